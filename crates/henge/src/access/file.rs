//! The key file of a node, `security.key_file`: roles and keys in TOML, for its owner alone. It is read at the start and at
//! each reload; one that is wrong changes nothing.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::entry::{self, EntryError, KeyEntry, KeyRule, Roles};
use super::hash::without_keys;
use super::permission::Permissions;
use crate::config::shown;
use crate::encryption::private::{self, FILE_BYTES_MAX, FileError};

/// The form of the file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Form {
    roles: Roles,
    keys: BTreeMap<String, KeyEntry>,
}

/// What is in a key file, checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct KeyFile {
    pub(crate) keys: BTreeMap<String, KeyRule>,
    pub(crate) roles: BTreeMap<String, Permissions>,
}

/// Why a key file was not taken. Nothing of a key is in it.
#[derive(Debug)]
pub struct KeyFileError {
    path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Read(io::Error),
    Mode(u32),
    NoFile,
    Long,
    NotText,
    /// Where, and what the parser says without what stands there.
    Form(Option<usize>, String),
    Entry(String, EntryError),
    /// Two keys have one number.
    Twice(String, String),
    UnknownRole(String, String),
    /// It has no key.
    Empty,
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = shown(&self.path);
        self.why.write(&mut line)?;
        // Whatever the parser quotes of it: a key is easily put in the wrong place.
        f.write_str(&without_keys(&line))
    }
}

impl Why {
    fn write(&self, f: &mut String) -> fmt::Result {
        match self {
            Why::Read(error) => write!(f, ": the key file cannot be read: {error}"),
            Why::Mode(mode) => write!(
                f,
                ": others than its owner may use the key file (mode {mode:04o}); expected 0600 or 0400"
            ),
            Why::NoFile => f.write_str(": expected a file of keys, and it is none"),
            Why::Long => write!(
                f,
                ": the file is larger than {FILE_BYTES_MAX} bytes, which no key file is"
            ),
            Why::NotText => f.write_str(": expected TOML, and it is no text"),
            Why::Form(Some(line), why) => write!(f, ", line {line}: {why}"),
            Why::Form(None, why) => write!(f, ": {why}"),
            Why::Entry(name, why) => write!(f, ", {name}: {why}"),
            Why::Twice(one, other) => {
                write!(f, ": keys.{one} and keys.{other} are the same key")
            }
            Why::UnknownRole(key, role) => {
                write!(f, ", keys.{key}: the file has no role {role:?}")
            }
            Why::Empty => {
                f.write_str(" has no key; expected [keys.NAME] with what `henge key new` printed")
            }
        }
    }
}

impl std::error::Error for KeyFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.why {
            Why::Read(error) => Some(error),
            _ => None,
        }
    }
}

impl KeyFile {
    /// Reads one.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |why| KeyFileError {
            path: path.to_owned(),
            why,
        };
        let bytes = private::read(path).map_err(|error| {
            failed(match error {
                FileError::Read(error) => Why::Read(error),
                FileError::Mode(mode) => Why::Mode(mode),
                FileError::NoFile => Why::NoFile,
                FileError::Long => Why::Long,
            })
        })?;
        let text = String::from_utf8(bytes).map_err(|_| failed(Why::NotText))?;
        Self::parse(&text).map_err(failed)
    }

    fn parse(text: &str) -> Result<Self, Why> {
        let form: Form = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map(|span| 1 + text[..span.start].matches('\n').count());
            // The line itself, which the parser would show, may hold a key.
            Why::Form(line, error.message().to_owned())
        })?;
        let mut file = Self::default();
        for (name, permissions) in &form.roles {
            let held = entry::check_name(name).and_then(|()| entry::role(permissions));
            let held = held.map_err(|why| Why::Entry(format!("roles.{name}"), why))?;
            file.roles.insert(name.clone(), held);
        }
        for (name, key) in &form.keys {
            let rule = entry::check_name(name).and_then(|()| key.read());
            let rule = rule.map_err(|why| Why::Entry(format!("keys.{name}"), why))?;
            if let Some(role) = rule
                .roles
                .iter()
                .find(|role| !file.roles.contains_key(*role))
            {
                return Err(Why::UnknownRole(name.clone(), role.clone()));
            }
            let id = |rule: &KeyRule| rule.hash.as_ref().map(|hash| hash.id);
            let is_twin = |other: &KeyRule| {
                id(other).is_some() && id(other) == id(&rule)
                    || other.certificate.is_some() && other.certificate == rule.certificate
            };
            let twin = file.keys.iter().find(|(_, other)| is_twin(other));
            if let Some((twin, _)) = twin {
                return Err(Why::Twice(twin.clone(), name.clone()));
            }
            file.keys.insert(name.clone(), rule);
        }
        if file.keys.is_empty() {
            return Err(Why::Empty);
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::NewKey;
    use super::*;

    #[test]
    fn what_a_file_may_say() {
        let hash = NewKey::draw().hash;
        let text = format!(
            "[roles]\nreader = [\"read\"]\n\n[keys.web]\nhash = \"{hash}\"\nroles = [\"reader\"]\n\
             permissions = [\"write\"]\nprefixes = [\"app:\"]\nexpires = \"2030-01-01\"\n"
        );
        let file = KeyFile::parse(&text).expect("it is right");
        assert_eq!(file.roles["reader"], Permissions::READ);
        let key = &file.keys["web"];
        assert_eq!(
            (key.permissions, &key.prefixes),
            (Permissions::WRITE, &vec![b"app:".to_vec()])
        );
    }

    #[test]
    fn what_is_wrong_with_a_file() {
        let new = NewKey::draw();
        let key =
            |name: &str, rest: &str| format!("[keys.{name}]\nhash = \"{}\"\n{rest}\n", new.hash);
        for (text, expected) in [
            (String::new(), " has no key; expected"),
            ("[keys.web]\n".into(), ", keys.web: it has no permission"),
            ("\n\nkeys = 1\n".into(), ", line 3: invalid type"),
            (
                format!("[keys]\nweb = \"{}\"\n", new.text),
                ", line 2: invalid type",
            ),
            (
                format!("[keys.{}]\nhash = \"x\"\n", new.text),
                ", keys.(hidden): \"(hidden)\" is no name",
            ),
            (
                key("web", &format!("{} = 1", new.text)),
                ", line 3: unknown field",
            ),
            (
                key("web", &format!("permissions = [\"{}\"]", new.text)),
                ", keys.web: \"(hidden)\" is no permission",
            ),
            (
                key("web", &format!("roles = [\"{}\"]", new.text)),
                ", keys.web: \"(hidden)\" is no name",
            ),
            (
                key(
                    "web",
                    &format!("permissions = [\"read\"]\nexpires = \"{}\"", new.text),
                ),
                ", keys.web: \"(hidden)\" is no time",
            ),
            (format!("{}\n", new.text), ", line 1: "),
            (key("web", ""), ", keys.web: it has no permission"),
            (
                key("web", "permission = \"read\""),
                ", line 3: unknown field `permission`",
            ),
            (
                key("web", "roles = [\"none\"]"),
                ", keys.web: the file has no role \"none\"",
            ),
            (
                key("default", "permissions = [\"read\"]"),
                ", keys.default: \"default\" is no name",
            ),
            (
                key("a", "permissions = [\"read\"]") + &key("b", "permissions = [\"read\"]"),
                ": keys.a and keys.b are the same key",
            ),
            (
                "[roles]\nnone = []\n".into(),
                ", roles.none: it has no permission",
            ),
            (
                format!(
                    "[keys.web]\nhash = \"{}\"\npermissions = [\"read\"]",
                    new.text
                ),
                ", keys.web: its hash is none",
            ),
        ] {
            let why = KeyFile::parse(&text).expect_err(&text);
            let error = KeyFileError {
                path: "keys".into(),
                why,
            }
            .to_string();
            assert!(error.starts_with(&format!("keys{expected}")), "{error}");
            assert!(!error.contains(&new.text[19..]), "{error}");
        }
    }
}
