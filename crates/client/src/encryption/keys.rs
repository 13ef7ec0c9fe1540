//! The keys that seal and open values, each with a number. It takes them as bytes or in the text form of the node's key files,
//! reads no file itself, and shows nobody what they are: not in an error, not by `Debug`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};

/// Bytes of a key of AES-256.
const KEY_BYTES: usize = 32;

/// What a line of a key looks like.
const FORM: &str = "expected a number, a space and 64 hexadecimal digits";

/// Keys for values, at least one, each with a number from 1 on. One of them writes, all of them read. Clones share them.
///
/// Their text form is that of the node's key files: lines of a number and 64 hexadecimal digits; empty lines, and such as begin with
/// `#`, are passed over. The last line's key writes.
///
/// ```
/// use henge_client::EncryptionKeys;
///
/// # fn main() -> Result<(), henge_client::EncryptionKeysError> {
/// let old = "1 1111111111111111111111111111111111111111111111111111111111111111";
/// let new = "2 2222222222222222222222222222222222222222222222222222222222222222";
/// let keys: EncryptionKeys = format!("{old}\n{new}\n").parse()?;
/// assert_eq!(keys.writes(), 2);
/// // While there are clients that do not have the new key yet:
/// let keys = keys.written_by(1)?;
/// assert_eq!(keys.writes(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EncryptionKeys {
    /// "Less safe", as its user has to see to it that no nonce comes twice: they are random.
    keys: Arc<[(u32, LessSafeKey)]>,
    /// The place of the one that writes.
    writer: usize,
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Why there are no keys. What they are is not in it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EncryptionKeysError {
    /// A line of the text is none of a key.
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// There is a key without a number: its number is 0.
    Zero,
    /// Two keys have the same number: that number.
    Twice(u32),
    /// The key that should write is not there: its number.
    Missing(u32),
    /// There is no key at all.
    Empty,
}

impl fmt::Display for EncryptionKeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { line, wrong } => write!(f, "line {line}: {wrong}"),
            Self::Zero => f.write_str("found a key of number 0; expected from 1 to 4294967295"),
            Self::Twice(number) => write!(
                f,
                "found two keys of number {number}; expected a number of its own for each"
            ),
            Self::Missing(number) => write!(
                f,
                "found no key of number {number}, which should write; expected one of those given"
            ),
            Self::Empty => f.write_str(
                "found no key; expected lines of a number, a space and 64 hexadecimal digits",
            ),
        }
    }
}

impl std::error::Error for EncryptionKeysError {}

impl EncryptionKeys {
    /// Keys of 32 random bytes with their numbers; the last one writes.
    pub fn new(
        keys: impl IntoIterator<Item = (u32, [u8; KEY_BYTES])>,
    ) -> Result<Self, EncryptionKeysError> {
        let mut given: Vec<(u32, LessSafeKey)> = Vec::new();
        for (number, bytes) in keys {
            if number == 0 {
                return Err(EncryptionKeysError::Zero);
            }
            if given.iter().any(|(other, _)| *other == number) {
                return Err(EncryptionKeysError::Twice(number));
            }
            let key = UnboundKey::new(&AES_256_GCM, &bytes);
            let key = key.expect("AES-256 takes any key of 32 bytes");
            given.push((number, LessSafeKey::new(key)));
        }
        let writer = given.len().checked_sub(1);
        Ok(Self {
            writer: writer.ok_or(EncryptionKeysError::Empty)?,
            keys: given.into(),
        })
    }

    /// The same, of which the one of this number writes.
    pub fn written_by(mut self, number: u32) -> Result<Self, EncryptionKeysError> {
        let place = self.numbers().position(|other| other == number);
        self.writer = place.ok_or(EncryptionKeysError::Missing(number))?;
        Ok(self)
    }

    /// The number of the key that writes.
    pub fn writes(&self) -> u32 {
        self.writer().0
    }

    /// The numbers of all of them, in the order in which they were given.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.keys.iter().map(|(number, _)| *number)
    }

    pub(super) fn writer(&self) -> (u32, &LessSafeKey) {
        let (number, key) = &self.keys[self.writer];
        (*number, key)
    }

    pub(super) fn get(&self, number: u32) -> Option<&LessSafeKey> {
        let found = self.keys.iter().find(|(other, _)| *other == number);
        found.map(|(_, key)| key)
    }
}

impl FromStr for EncryptionKeys {
    type Err = EncryptionKeysError;

    fn from_str(text: &str) -> Result<Self, EncryptionKeysError> {
        let mut keys: Vec<(u32, [u8; KEY_BYTES])> = Vec::new();
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let key = read(content).map_err(|wrong| EncryptionKeysError::Line { line, wrong })?;
            keys.push(key);
        }
        Self::new(keys)
    }
}

/// A number and a key; or what is wrong, without what was found: it may be a key.
fn read(line: &str) -> Result<(u32, [u8; KEY_BYTES]), &'static str> {
    let (number, digits) = line.split_once(char::is_whitespace).ok_or(FORM)?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|&id| is_number && id > 0);
    let number = number.ok_or("the number of a key is from 1 to 4294967295")?;
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
    Ok((number, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
    const MIXED: &str = "000102030405060708090a0b0c0d0e0fF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF";

    #[test]
    fn lines_of_keys() {
        let number = "line 1: the number of a key is from 1 to 4294967295";
        let length = "line 1: a key has 64 hexadecimal digits, not more and not less";
        let digits = "line 1: a key has hexadecimal digits only: 0 to 9 and a to f";
        let form = "line 1: expected a number, a space and 64 hexadecimal digits";
        let empty = "found no key; expected lines of a number, a space and 64 hexadecimal digits";
        let twice = "found two keys of number 1; expected a number of its own for each";
        let table: &[(String, Result<&[u32], &str>)] = &[
            (format!("1 {ONE}"), Ok(&[1])),
            (
                format!("# old\r\n7\t{ONE}\r\n\r\n 3   {MIXED}  \n# end"),
                Ok(&[7, 3]),
            ),
            (format!("4294967295 {ONE}"), Ok(&[u32::MAX])),
            (format!("0007 {ONE}"), Ok(&[7])),
            (String::new(), Err(empty)),
            ("# nothing\n\n".into(), Err(empty)),
            (ONE.into(), Err(form)),
            (format!("{ONE} 1"), Err(number)),
            (format!("0 {ONE}"), Err(number)),
            (format!("+1 {ONE}"), Err(number)),
            (format!("4294967296 {ONE}"), Err(number)),
            (format!("1 {}", &ONE[1..]), Err(length)),
            (format!("1 {ONE}1"), Err(length)),
            (format!("1 {ONE} # mine"), Err(length)),
            (format!("1 {}", ONE.replace('1', "g")), Err(digits)),
            (format!("1 {}", "é".repeat(32)), Err(digits)),
            (format!("1 {ONE}\n1 {MIXED}"), Err(twice)),
        ];
        for (text, expected) in table {
            let found: Result<EncryptionKeys, _> = text.parse();
            let found = found.map(|keys| keys.numbers().collect::<Vec<_>>());
            let expected = expected.map(<[u32]>::to_vec).map_err(str::to_owned);
            let shown = format!("{found:?}");
            assert!(!shown.contains(&ONE[..8]), "{shown}");
            assert_eq!(found.map_err(|error| error.to_string()), expected, "{text}");
        }
    }

    #[test]
    fn the_last_one_writes_or_the_one_that_is_named() {
        let keys = EncryptionKeys::new([(1, [1; 32]), (9, [9; 32]), (4, [4; 32])]);
        let keys = keys.expect("keys");
        assert_eq!(keys.writes(), 4);
        assert_eq!(keys.clone().written_by(9).map(|keys| keys.writes()), Ok(9));
        let missing = keys.written_by(2).map(|keys| keys.writes());
        assert_eq!(missing, Err(EncryptionKeysError::Missing(2)));
        let zero = EncryptionKeys::new([(0, [1; 32])]).map(drop);
        assert_eq!(zero, Err(EncryptionKeysError::Zero));
        let none = EncryptionKeys::new([]).map(drop);
        assert_eq!(none, Err(EncryptionKeysError::Empty));
    }

    #[test]
    fn nobody_is_shown_a_key() {
        let keys: EncryptionKeys = format!("1 {ONE}\n2 {MIXED}").parse().expect("keys");
        assert_eq!(format!("{keys:?} {keys:#?}"), "(hidden) (hidden)");
    }
}
