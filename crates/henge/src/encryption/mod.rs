//! Encryption at rest: which keys there are, which of them writes, and the ciphers behind the engine's `Keyring`. What is
//! encrypted, and how it lies in a file, is the engine's. docs/durability.md says what it protects against.

mod ciphers;
mod keys;
pub(crate) mod private;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use henge_engine::persistence::cipher::{FileCipher, KeyError, Keyring};
use henge_engine::persistence::frame::Header;
use ring::rand::{SecureRandom, SystemRandom};

use crate::config::{Config, EncryptionCipher, FilePath};
pub use keys::{Keys, KeysError};
pub(crate) use keys::{VARIABLE, from_variable, read_file};

/// Whom a line about keys is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Asker {
    #[default]
    Node,
    Tool,
}

impl Asker {
    /// What has to be given where no key is.
    fn expected(self) -> String {
        match self {
            Self::Node => format!("persistence.key_file or the variable {VARIABLE}"),
            Self::Tool => format!("--key-file or the variable {VARIABLE}"),
        }
    }
}

/// The keys that there are, and what new files are encrypted with.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Encryption {
    keys: Option<Keys>,
    /// How new files are encrypted: with the last of the keys. None for not at all.
    cipher: Option<EncryptionCipher>,
    asker: Asker,
}

impl Encryption {
    /// What a node is told. `given` are keys that come from elsewhere than the file that the configuration names.
    pub(crate) fn of(config: &Config, given: Option<Keys>) -> Result<Self, KeysError> {
        let file = config.persistence.key_file.as_ref();
        let keys = one_of(file.map(FilePath::as_path), given, "persistence.key_file")?;
        let cipher = config.persistence.encryption;
        if let (Some(cipher), None) = (cipher, &keys) {
            return Err(KeysError::None {
                cipher,
                expected: Asker::Node.expected(),
            });
        }
        Ok(Self {
            keys,
            cipher,
            asker: Asker::Node,
        })
    }

    /// What a tool is told, which has no say yet about the files that it makes.
    pub(crate) fn of_tool(file: Option<&Path>, given: Option<Keys>) -> Result<Self, KeysError> {
        Ok(Self {
            keys: one_of(file, given, "--key-file")?,
            cipher: None,
            asker: Asker::Tool,
        })
    }

    /// The same for files that are made of one with this cipher: where there are keys they are encrypted, and in the same way if
    /// that one is.
    pub(crate) fn made_of(&self, cipher: u16) -> Self {
        let same = ciphers::of_number(cipher).unwrap_or(EncryptionCipher::Aes256Gcm);
        Self {
            cipher: self.keys.is_some().then_some(same),
            ..self.clone()
        }
    }

    /// What new files are encrypted with, if they are: the cipher, and the number of the key.
    pub(crate) fn writes(&self) -> Option<(EncryptionCipher, u32)> {
        let (cipher, keys) = self.cipher.zip(self.keys.as_ref())?;
        Some((cipher, keys.last()))
    }
}

/// The keys of one of two sources.
fn one_of(
    file: Option<&Path>,
    given: Option<Keys>,
    setting: &'static str,
) -> Result<Option<Keys>, KeysError> {
    match (file, given) {
        (Some(_), Some(given)) => Err(KeysError::Both(setting, given.source())),
        (Some(file), None) => Keys::from_file(file).map(Some),
        (None, given) => Ok(given),
    }
}

impl Keyring for Encryption {
    fn current(&self) -> Option<(u16, u32)> {
        let (cipher, key_id) = self.writes()?;
        Some((ciphers::number(cipher), key_id))
    }

    fn all(&self) -> Vec<(u16, u32)> {
        let ids: Vec<u32> = self.keys.iter().flat_map(Keys::ids).collect();
        EncryptionCipher::ALL
            .iter()
            .flat_map(|cipher| ids.iter().map(|id| (ciphers::number(*cipher), *id)))
            .collect()
    }

    fn cipher(&self, header: &Header) -> Result<Arc<dyn FileCipher>, KeyError> {
        let cipher = ciphers::of_number(header.cipher).ok_or(KeyError::Cipher(header.cipher))?;
        let key_id = header.key_id;
        let missing = |why| KeyError::Missing { key_id, why };
        let Some(keys) = &self.keys else {
            let expected = self.asker.expected();
            return Err(missing(format!("no key is given; expected {expected}")));
        };
        let key = keys
            .get(key_id)
            .ok_or_else(|| missing(format!("{} has only {}", keys.source(), shown(keys.ids()))))?;
        Ok(ciphers::of_file(cipher, key, header))
    }
}

/// The name of a cipher, by the number that files have.
pub(crate) fn cipher_name(number: u16) -> Option<&'static str> {
    ciphers::of_number(number).map(EncryptionCipher::name)
}

/// Numbers of keys, for people.
fn shown(ids: impl IntoIterator<Item = u32>) -> impl fmt::Display {
    let ids: BTreeSet<u32> = ids.into_iter().collect();
    let numbers: Vec<String> = ids.iter().map(u32::to_string).collect();
    let word = if ids.len() == 1 { "key" } else { "keys" };
    format!("{word} {}", numbers.join(", "))
}

/// A salt for a file.
pub(crate) fn salt() -> [u8; 16] {
    random()
}

/// A number that nobody else has drawn.
pub(crate) fn random_number() -> u64 {
    u64::from_le_bytes(random())
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Linux has an answer to this from soon after its start on, and none of these calls before that.
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cipher: u16, key_id: u32) -> Header {
        Header {
            content: henge_engine::persistence::frame::Content::Log,
            format: henge_engine::persistence::frame::FORMAT,
            number: 1,
            cipher,
            key_id,
            salt: [0; 16],
        }
    }

    fn keys(ids: &[u32]) -> Keys {
        let lines: Vec<String> = ids.iter().map(|id| format!("{id} {id:064x}")).collect();
        from_variable(Some(lines.join(",").into()))
            .expect("they are keys")
            .expect("they are given")
    }

    #[test]
    fn the_last_key_writes_and_all_read() {
        let mut config = Config::default();
        let none = Encryption::of(&config, None).expect("nothing is needed");
        assert_eq!((none.current(), none.all()), (None, Vec::new()));
        config.persistence.encryption = Some(EncryptionCipher::ChaCha20Poly1305);
        let both = Encryption::of(&config, Some(keys(&[7, 3]))).expect("they are given");
        assert_eq!(both.current(), Some((2, 3)));
        assert_eq!(both.all(), [(1, 7), (1, 3), (2, 7), (2, 3)]);
        config.persistence.encryption = None;
        let reads = Encryption::of(&config, Some(keys(&[7, 3]))).expect("they are given");
        assert_eq!(reads.current(), None);
        for (cipher, key_id) in both.all() {
            assert!(reads.cipher(&header(cipher, key_id)).is_ok());
        }
        // A tool makes of an encrypted file one that is encrypted in the same way, and of a plain one an encrypted one if there is
        // a key.
        let tool = Encryption::of_tool(None, Some(keys(&[7, 3]))).expect("they are given");
        for (made_of, expected) in [(0, (1, 3)), (1, (1, 3)), (2, (2, 3))] {
            assert_eq!(tool.made_of(made_of).current(), Some(expected));
        }
        assert_eq!(none.made_of(1).current(), None);
    }

    #[test]
    fn what_is_missing_is_a_line_that_can_be_acted_on() {
        let line = |encryption: &Encryption, cipher, key_id| {
            let found = encryption.cipher(&header(cipher, key_id));
            found.err().map(|error| error.to_string())
        };
        let config = Config::default();
        let node = Encryption::of(&config, None).expect("nothing is needed");
        let tool = Encryption::of_tool(None, None).expect("nothing is needed");
        let one = Encryption::of_tool(None, Some(keys(&[7]))).expect("it is given");
        let two = Encryption::of_tool(None, Some(keys(&[7, 3]))).expect("they are given");
        for (encryption, cipher, key_id, expected) in [
            (
                &node,
                1,
                2,
                Some(
                    "encrypted with key 2, and no key is given; expected persistence.key_file or the variable HENGE_PERSISTENCE__KEYS",
                ),
            ),
            (
                &tool,
                1,
                2,
                Some(
                    "encrypted with key 2, and no key is given; expected --key-file or the variable HENGE_PERSISTENCE__KEYS",
                ),
            ),
            (
                &one,
                1,
                2,
                Some(
                    "encrypted with key 2, and the variable HENGE_PERSISTENCE__KEYS has only key 7",
                ),
            ),
            (
                &two,
                2,
                2,
                Some(
                    "encrypted with key 2, and the variable HENGE_PERSISTENCE__KEYS has only keys 3, 7",
                ),
            ),
            (
                &two,
                3,
                7,
                Some("encrypted with cipher 3, which this version does not know"),
            ),
            (&two, 2, 7, None),
        ] {
            assert_eq!(line(encryption, cipher, key_id).as_deref(), expected);
        }
    }

    #[test]
    fn keys_come_from_one_place() {
        let mut config = Config::default();
        config.persistence.encryption = Some(EncryptionCipher::Aes256Gcm);
        let refused = |config: &Config, keys| {
            let refused = Encryption::of(config, keys).expect_err("that cannot be");
            refused.to_string()
        };
        assert_eq!(
            refused(&config, None),
            "persistence.encryption = \"aes-256-gcm\" needs a key; expected persistence.key_file or the variable HENGE_PERSISTENCE__KEYS"
        );
        config.persistence.key_file = Some(FilePath::new("/nowhere/keys"));
        assert_eq!(
            refused(&config, Some(keys(&[1]))),
            "persistence.key_file and the variable HENGE_PERSISTENCE__KEYS both give keys; expected one of them"
        );
        let missing = refused(&config, None);
        assert!(
            missing.starts_with("/nowhere/keys: the key file cannot be read: "),
            "{missing}"
        );
    }

    #[test]
    fn nothing_random_comes_twice() {
        assert_ne!(salt(), salt());
        assert_ne!(random_number(), random_number());
    }
}
