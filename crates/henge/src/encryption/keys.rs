//! Keys, as a file or the environment gives them: lines of a number and 64 hexadecimal digits. It reads them, and shows nobody
//! what they are: not in an error, not by `Debug`.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::private::{self, FILE_BYTES_MAX, FileError};
use crate::config::{EncryptionCipher, shown};

/// The variable of the environment that holds the lines of a key file, apart by line ends or commas. It is no setting, as those
/// are shown.
pub(crate) const VARIABLE: &str = "HENGE_PERSISTENCE__KEYS";
/// Bytes of a key, of either cipher.
pub(super) const KEY_BYTES: usize = 32;

/// One key. It is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key([u8; KEY_BYTES]);

impl Key {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Where keys came from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Source {
    File(PathBuf),
    Environment,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(&shown(path)),
            Self::Environment => write!(f, "the variable {VARIABLE}"),
        }
    }
}

/// Keys for what a node has on its disk, each with a number. The last writes, all read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    source: Source,
    /// At least one.
    keys: Vec<(u32, Key)>,
}

/// Why there are no keys. What they are is not in it.
#[derive(Debug)]
pub enum KeysError {
    /// The key file cannot be read.
    Read(PathBuf, io::Error),
    /// Others than the owner of the key file may read or change it: its mode.
    Mode(PathBuf, u32),
    /// It is a directory, a pipe or a device.
    NoFile(PathBuf),
    /// It is too long for a key file.
    Long(PathBuf),
    /// A line is none of a key: where the keys came from, the line, and what is wrong with it.
    Line(String, usize, &'static str),
    /// A number comes twice: where the keys came from, the line, and the number.
    Twice(String, usize, u32),
    /// There is no line of a key.
    Empty(String),
    /// Keys come from two places: the setting or flag, and where else.
    Both(&'static str, String),
    /// A cipher is set, and there is no key for it.
    None {
        /// The cipher.
        cipher: EncryptionCipher,
        /// What was expected.
        expected: String,
    },
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => {
                write!(f, "{}: the key file cannot be read: {error}", shown(path))
            }
            Self::Mode(path, mode) => write!(
                f,
                "{}: others than its owner may use the key file (mode {mode:04o}); expected 0600 or 0400",
                shown(path)
            ),
            Self::NoFile(path) => {
                write!(
                    f,
                    "{}: expected a file of keys, and it is none",
                    shown(path)
                )
            }
            Self::Long(path) => write!(
                f,
                "{}: the file is larger than {FILE_BYTES_MAX} bytes, which no key file is",
                shown(path)
            ),
            Self::Line(source, line, wrong) => write!(f, "{source}, line {line}: {wrong}"),
            Self::Twice(source, line, id) => {
                write!(f, "{source}, line {line}: there is a key {id} already")
            }
            Self::Empty(source) => write!(
                f,
                "{source} has no key; expected lines of a number and 64 hexadecimal digits"
            ),
            Self::Both(setting, source) => {
                write!(
                    f,
                    "{setting} and {source} both give keys; expected one of them"
                )
            }
            Self::None { cipher, expected } => write!(
                f,
                "persistence.encryption = \"{}\" needs a key; expected {expected}",
                cipher.name()
            ),
        }
    }
}

impl std::error::Error for KeysError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, error) => Some(error),
            _ => None,
        }
    }
}

/// The keys of the variable, if it is set.
pub(crate) fn from_variable(value: Option<OsString>) -> Result<Option<Keys>, KeysError> {
    let Some(value) = value else {
        return Ok(None);
    };
    // What is no text is no key, and is found to be none.
    let text = value.to_string_lossy().replace(',', "\n");
    Keys::parse(&text, Source::Environment).map(Some)
}

impl Keys {
    /// Reads a key file: lines of a number, from 1 to 4,294,967,295, and 64 hexadecimal digits; empty lines, and such as begin
    /// with `#`, are passed over. Refuses one that others than its owner may read or write.
    pub fn from_file(path: &Path) -> Result<Self, KeysError> {
        let text = read_file(path)?;
        Self::parse(&text, Source::File(path.to_owned()))
    }

    fn parse(text: &str, source: Source) -> Result<Self, KeysError> {
        let mut keys: Vec<(u32, Key)> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, key) =
                read(line).map_err(|wrong| KeysError::Line(source.to_string(), number, wrong))?;
            if keys.iter().any(|(other, _)| *other == id) {
                return Err(KeysError::Twice(source.to_string(), number, id));
            }
            keys.push((id, key));
        }
        if keys.is_empty() {
            return Err(KeysError::Empty(source.to_string()));
        }
        Ok(Self { source, keys })
    }

    /// Where they came from.
    pub(super) fn source(&self) -> String {
        self.source.to_string()
    }

    /// Their numbers, in the order of their lines.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.keys.iter().map(|(id, _)| *id)
    }

    /// The number of the one that writes.
    pub(super) fn last(&self) -> u32 {
        self.keys.last().expect("there is at least one").0
    }

    pub(super) fn get(&self, id: u32) -> Option<&Key> {
        let found = self.keys.iter().find(|(other, _)| *other == id);
        found.map(|(_, key)| key)
    }
}

/// The text of a key file, whatever it is the keys of. Refuses one that others than its owner may read or write.
pub(crate) fn read_file(path: &Path) -> Result<String, KeysError> {
    let owned = path.to_owned();
    let bytes = private::read(path).map_err(|error| match error {
        FileError::Read(error) => KeysError::Read(owned, error),
        FileError::Mode(mode) => KeysError::Mode(owned, mode),
        FileError::NoFile => KeysError::NoFile(owned),
        FileError::Long => KeysError::Long(owned),
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A number and a key; or what is wrong, without what was found: it may be a key.
fn read(line: &str) -> Result<(u32, Key), &'static str> {
    const FORM: &str = "expected a number, a space and 64 hexadecimal digits";
    let (id, digits) = line.split_once(char::is_whitespace).ok_or(FORM)?;
    let is_number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let id = id.parse().ok().filter(|&id| is_number && id > 0);
    let id = id.ok_or("the number of a key is from 1 to 4294967295")?;
    let digits = digits.trim_start().as_bytes();
    if digits.len() != 2 * KEY_BYTES {
        return Err("a key has 64 hexadecimal digits, not more and not less");
    }
    let mut key = [0; KEY_BYTES];
    for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
        let digit = |place: usize| char::from(pair[place]).to_digit(16);
        let value = digit(0).zip(digit(1)).map(|(high, low)| high << 4 | low);
        let value = value.and_then(|value| u8::try_from(value).ok());
        *byte = value.ok_or("a key has hexadecimal digits only: 0 to 9 and a to f")?;
    }
    Ok((id, Key(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
    const MIXED: &str = "000102030405060708090a0b0c0d0e0fF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF";

    fn parsed(text: &str) -> Result<Vec<u32>, String> {
        let keys = Keys::parse(text, Source::File("keys".into()));
        keys.map(|keys| keys.ids().collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn lines_of_keys() {
        let form = "expected a number, a space and 64 hexadecimal digits";
        let number = "the number of a key is from 1 to 4294967295";
        let length = "a key has 64 hexadecimal digits, not more and not less";
        let table: &[(String, Result<&[u32], String>)] = &[
            (format!("1 {ONE}"), Ok(&[1])),
            (format!("1 {ONE}\n"), Ok(&[1])),
            (
                format!("# old\r\n7\t{ONE}\r\n\r\n 3   {MIXED}  \n# end"),
                Ok(&[7, 3]),
            ),
            (format!("4294967295 {ONE}"), Ok(&[u32::MAX])),
            (format!("0007 {ONE}"), Ok(&[7])),
            (
                String::new(),
                Err("keys has no key; expected lines of a number and 64 hexadecimal digits".into()),
            ),
            (
                "# nothing\n\n".into(),
                Err("keys has no key; expected lines of a number and 64 hexadecimal digits".into()),
            ),
            (ONE.into(), Err(format!("keys, line 1: {form}"))),
            (format!("\n1{ONE}"), Err(format!("keys, line 2: {form}"))),
            (format!("{ONE} 1"), Err(format!("keys, line 1: {number}"))),
            (format!("0 {ONE}"), Err(format!("keys, line 1: {number}"))),
            (format!("+1 {ONE}"), Err(format!("keys, line 1: {number}"))),
            (
                format!("4294967296 {ONE}"),
                Err(format!("keys, line 1: {number}")),
            ),
            (
                format!("1 {}", &ONE[1..]),
                Err(format!("keys, line 1: {length}")),
            ),
            (format!("1 {ONE}1"), Err(format!("keys, line 1: {length}"))),
            (
                format!("1 {ONE} # mine"),
                Err(format!("keys, line 1: {length}")),
            ),
            (
                format!("1 {ONE}\n2 {}", ONE.replace('1', "g")),
                Err("keys, line 2: a key has hexadecimal digits only: 0 to 9 and a to f".into()),
            ),
            (
                format!("1 {}", "é".repeat(32)),
                Err("keys, line 1: a key has hexadecimal digits only: 0 to 9 and a to f".into()),
            ),
            (
                format!("1 {ONE}\n1 {MIXED}"),
                Err("keys, line 2: there is a key 1 already".into()),
            ),
        ];
        for (text, expected) in table {
            let expected = expected.clone().map(<[u32]>::to_vec);
            let found = parsed(text);
            assert_eq!(found, expected, "{text}");
            // The client has a parser of its own, as it stands below the node, and one form of key files is enough for both.
            let by_client = text.parse::<henge_client::EncryptionKeys>();
            let by_client = by_client.map(|keys| keys.numbers().collect()).ok();
            assert_eq!(by_client, expected.ok(), "{text}");
            let shown = format!("{found:?}");
            assert!(!shown.contains(&ONE[..8]), "{shown}");
        }
    }

    #[test]
    fn digits_are_bytes() {
        let keys = Keys::parse(&format!("1 {MIXED}"), Source::Environment).expect("a key");
        let expected: Vec<u8> = (0..16).chain(0xF0..=0xFF).collect();
        assert_eq!(keys.get(1).map(Key::bytes), Some(&expected[..]));
        assert!(keys.get(2).is_none());
    }

    #[test]
    fn nobody_is_shown_a_key() {
        let value = format!("1 {ONE},2 {MIXED}");
        let keys = from_variable(Some(value.into())).expect("keys");
        let keys = keys.expect("they are given");
        assert_eq!(keys.ids().collect::<Vec<_>>(), [1, 2]);
        let shown = format!("{keys:?} {keys:#?}").to_lowercase();
        // Neither as digits nor as bytes: 17 is what 0x11 is.
        for part in ["1111", "0a0b", "17,", "17\n"] {
            assert!(!shown.contains(part), "{shown}");
        }
        assert_eq!(
            from_variable(None).map_err(|error| error.to_string()),
            Ok(None)
        );
    }

    #[test]
    fn a_file_is_for_its_owner_alone() {
        let path = std::env::temp_dir().join(format!("henge-keys-{}", std::process::id()));
        fs::write(&path, format!("5 {ONE}\n")).expect("a file");
        let of_mode = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            Keys::from_file(&path).map_err(|error| error.to_string())
        };
        let found: Vec<_> = [0o600, 0o400, 0o640, 0o604, 0o660]
            .map(|mode| of_mode(mode).map(|keys| keys.last()))
            .into();
        fs::write(&path, vec![b'\n'; 70_000]).expect("a file");
        let long = of_mode(0o600);
        fs::remove_file(&path).expect("it is there");
        let shown = path.display();
        let refused = |mode: &str| {
            Err(format!(
                "{shown}: others than its owner may use the key file (mode {mode}); expected 0600 or 0400"
            ))
        };
        let expected = [
            Ok(5),
            Ok(5),
            refused("0640"),
            refused("0604"),
            refused("0660"),
        ];
        assert_eq!(found, expected);
        let long = long.expect_err("it is too long");
        assert!(
            long.ends_with("is larger than 65536 bytes, which no key file is"),
            "{long}"
        );
    }
}
