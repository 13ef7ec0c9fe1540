//! A key and a role as they are configured: in a node's key file, in the settings of a cluster, in the bodies of the admin
//! routes. One form for all of them, with what is wrong with one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::hash::{self, KeyHash, NoHash, quoted, without_keys};
use super::permission::Permissions;
use crate::calendar::{self, NoTime};

/// The longest name of a key or a role.
const NAME_LEN_MAX: usize = 64;
/// The user as whom clients of the Redis protocol log in that know of no users: it stands for no name.
pub(crate) const DEFAULT_USER: &str = "default";
/// Prefixes that one key may be confined to: each request of such a key is compared with all of them.
const PREFIXES_MAX: usize = 64;
/// Bytes of one.
const PREFIX_LEN_MAX: usize = 1024;
/// Bytes of all of one key: a cluster has room for tens of KiB of all that it agrees on.
const PREFIXES_LEN_MAX: usize = 2048;

/// A key, as it is configured.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyEntry {
    /// What `henge key new` printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hash: Option<String>,
    /// Beside a hash, or in place of one: a DNS name in the certificate that a client shows. Who shows it needs no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<String>,
    /// What it may do, beside what its roles say.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) permissions: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) roles: BTreeSet<String>,
    /// The keys of the cache that it may touch begin with one of these; all where there is none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) prefixes: BTreeSet<String>,
    /// Until when it holds, as RFC 3339 has it; for ever where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<String>,
}

/// Roles by their names, with what each may do.
pub(crate) type Roles = BTreeMap<String, BTreeSet<String>>;

/// A key that was read: what there is to know of one but its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KeyRule {
    pub(crate) hash: Option<KeyHash>,
    pub(crate) certificate: Option<String>,
    pub(crate) permissions: Permissions,
    pub(crate) roles: BTreeSet<String>,
    pub(crate) prefixes: Vec<Vec<u8>>,
    /// Milliseconds since the Unix epoch.
    pub(crate) expires_at_ms: Option<u64>,
}

/// What is wrong with a key or a role. No hash and no key is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum EntryError {
    Name(String),
    Hash(NoHash),
    /// Nobody could show it.
    NoProof,
    Certificate(String),
    Permission(String),
    /// It may do nothing.
    Nothing,
    /// Who administers the node is not kept from any of its keys.
    AdminWithPrefixes,
    /// It would be that of every key.
    EmptyPrefix,
    TooManyPrefixes,
    PrefixTooLong,
    Expires(NoTime),
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => {
                let shown = quoted(name);
                write!(
                    f,
                    "{shown} is no name: expected letters, digits, \"-\", \"_\" and \".\", up to {NAME_LEN_MAX}, and not \"{DEFAULT_USER}\""
                )
            }
            Self::Hash(why) => why.fmt(f),
            Self::NoProof => f.write_str(
                "it has neither a hash nor a certificate; expected what `henge key new` printed",
            ),
            Self::Certificate(name) => {
                let shown = quoted(name);
                write!(
                    f,
                    "{shown} is no name of a certificate; expected a DNS name, such as web.example"
                )
            }
            Self::Permission(name) => {
                let shown = quoted(name);
                write!(f, "{shown} is no permission; expected {}", Permissions::ALL)
            }
            Self::Nothing => f.write_str("it has no permission and no role"),
            Self::AdminWithPrefixes => {
                f.write_str("who may administer is confined to no prefix; expected admin or prefixes, and not both")
            }
            Self::EmptyPrefix => f.write_str(
                "a prefix is empty, and every key begins with that; expected text, or no prefixes where all keys may be touched",
            ),
            Self::TooManyPrefixes => write!(f, "it has more than {PREFIXES_MAX} prefixes"),
            Self::PrefixTooLong => {
                write!(
                    f,
                    "a prefix has more than {PREFIX_LEN_MAX} bytes, or all of them more than {PREFIXES_LEN_MAX}"
                )
            }
            Self::Expires(why) => f.write_str(&without_keys(&why.to_string())),
        }
    }
}

impl std::error::Error for EntryError {}

/// Refuses what cannot be the name of a key or a role.
pub(crate) fn check_name(name: &str) -> Result<(), EntryError> {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty()
        || name.len() > NAME_LEN_MAX
        || name == DEFAULT_USER
        // Names are shown to others.
        || hash::id_in(name.as_bytes()).is_some()
        || !name.bytes().all(is_fit)
    {
        return Err(EntryError::Name(name.to_owned()));
    }
    Ok(())
}

/// The longest DNS name.
const DNS_NAME_LEN_MAX: usize = 253;

/// A DNS name as certificates are asked for it.
fn dns_name(name: &str) -> Result<String, EntryError> {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    // A certificate has none with the dot of the root.
    let is_whole = !name.is_empty() && !name.ends_with('.');
    if !is_whole || name.len() > DNS_NAME_LEN_MAX || !name.bytes().all(is_fit) {
        return Err(EntryError::Certificate(name.to_owned()));
    }
    Ok(name.to_ascii_lowercase())
}

/// The permissions of these names.
pub(crate) fn permissions(names: &BTreeSet<String>) -> Result<Permissions, EntryError> {
    names.iter().try_fold(Permissions::default(), |all, name| {
        let one = Permissions::named(name).ok_or_else(|| EntryError::Permission(name.clone()))?;
        Ok(all.and(one))
    })
}

/// The permissions of a role, which has one at least.
pub(crate) fn role(names: &BTreeSet<String>) -> Result<Permissions, EntryError> {
    let held = permissions(names)?;
    if held.is_empty() {
        return Err(EntryError::Nothing);
    }
    Ok(held)
}

impl KeyEntry {
    /// What it says, checked.
    pub(crate) fn read(&self) -> Result<KeyRule, EntryError> {
        let permissions = permissions(&self.permissions)?;
        if permissions.is_empty() && self.roles.is_empty() {
            return Err(EntryError::Nothing);
        }
        self.roles.iter().try_for_each(|role| check_name(role))?;
        if self.prefixes.contains("") {
            // Most likely a variable of a script that is not set: it must not give all keys away.
            return Err(EntryError::EmptyPrefix);
        }
        if !self.prefixes.is_empty() && permissions.have(Permissions::ADMIN) {
            return Err(EntryError::AdminWithPrefixes);
        }
        if self.prefixes.len() > PREFIXES_MAX {
            return Err(EntryError::TooManyPrefixes);
        }
        if self.prefixes.iter().any(|one| one.len() > PREFIX_LEN_MAX)
            || self.prefixes.iter().map(String::len).sum::<usize>() > PREFIXES_LEN_MAX
        {
            return Err(EntryError::PrefixTooLong);
        }
        let prefixes = self.prefixes.iter();
        let expires = self.expires.as_deref().map(calendar::parse).transpose();
        if self.hash.is_none() && self.certificate.is_none() {
            return Err(EntryError::NoProof);
        }
        let hash = self.hash.as_deref().map(str::parse).transpose();
        Ok(KeyRule {
            hash: hash.map_err(EntryError::Hash)?,
            certificate: self.certificate.as_deref().map(dns_name).transpose()?,
            permissions,
            roles: self.roles.clone(),
            prefixes: prefixes.map(|one| one.clone().into_bytes()).collect(),
            expires_at_ms: expires.map_err(EntryError::Expires)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::NewKey;
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    type Change<'a> = &'a dyn Fn(&mut KeyEntry);

    #[test]
    fn what_is_read_and_what_is_refused() {
        let good = KeyEntry {
            hash: Some(NewKey::draw().hash.to_string()),
            permissions: names(&["read"]),
            ..KeyEntry::default()
        };
        let long = "x".repeat(PREFIX_LEN_MAX + 1);
        let many: Vec<String> = (0..=PREFIXES_MAX)
            .map(|number| number.to_string())
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let cases: &[(Change<'_>, Result<(), &str>)] = &[
            (&|_| (), Ok(())),
            (&|key| key.roles = names(&["some"]), Ok(())),
            (&|key| key.prefixes = names(&["a:", "b:"]), Ok(())),
            (
                &|key| key.expires = Some("2030-01-01T00:00:00Z".into()),
                Ok(()),
            ),
            (&|key| key.hash = Some("x".into()), Err("its hash is none")),
            (&|key| key.hash = None, Err("it has neither a hash nor")),
            (
                &|key| key.certificate = Some("a b".into()),
                Err("\"a b\" is no name of a certificate"),
            ),
            (
                &|key| key.permissions = names(&["reed"]),
                Err("\"reed\" is no permission; expected read, write, admin"),
            ),
            (
                &|key| key.permissions.clear(),
                Err("it has no permission and no role"),
            ),
            (
                &|key| key.roles = names(&["a b"]),
                Err("\"a b\" is no name"),
            ),
            (
                &|key| {
                    key.permissions = names(&["admin"]);
                    key.prefixes = names(&["a"]);
                },
                Err("who may administer is confined to no prefix"),
            ),
            (
                &|key| key.prefixes = names(&[&long]),
                Err("a prefix has more than 1024 bytes"),
            ),
            (
                &|key| key.prefixes = names(&many),
                Err("it has more than 64 prefixes"),
            ),
            (
                &|key| key.expires = Some("tomorrow".into()),
                Err("\"tomorrow\" is no time"),
            ),
        ];
        for (number, (change, expected)) in cases.iter().enumerate() {
            let mut key = good.clone();
            change(&mut key);
            let found = key.read().map(|_| ()).map_err(|error| error.to_string());
            match (found, expected) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err(begin)) if error.starts_with(begin) => {}
                (found, _) => panic!("case {number}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn an_empty_prefix_is_refused() {
        for prefixes in [&["", "a:"][..], &[""]] {
            let key = KeyEntry {
                hash: Some(NewKey::draw().hash.to_string()),
                permissions: names(&["read"]),
                prefixes: names(prefixes),
                ..KeyEntry::default()
            };
            assert_eq!(key.read().map(|_| ()), Err(EntryError::EmptyPrefix));
        }
    }

    #[test]
    fn what_may_be_a_name() {
        for name in ["a", "web-1", "A.b_c", &"x".repeat(64)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "default", "a b", "ä", "a:b", "a/b", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
