//! Client-side encryption: values are sealed before they are sent and opened when they come back, so that servers have
//! ciphertext only. Keys of the cache, lengths and lifetimes stay visible, and nothing that is not sealed passes for a value.
//! `docs/client-encryption.md` has the format, and what all this does not protect against.

mod keys;
mod sealed;

use std::fmt;

use bytes::Bytes;

pub use keys::{EncryptionKeys, EncryptionKeysError};

use sealed::{FORMAT, MIN_BYTES};

/// Why a value was not sealed or not opened. Neither keys nor values are in it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EncryptionError {
    /// The value of the server does not begin as a sealed one does; something without encryption has written it.
    NotSealed {
        /// How long it is.
        bytes: usize,
    },
    /// It is sealed in a format that this version does not know: its number.
    Format(u8),
    /// It begins as a sealed value does, and is shorter than any.
    Short {
        /// How long it is.
        bytes: usize,
    },
    /// It is sealed under a key that is not there.
    UnknownKey {
        /// The number of that key.
        number: u32,
        /// The numbers of those that are.
        known: Vec<u32>,
    },
    /// It does not open: the value is damaged or forged, or was sealed for another key of the cache, or the key of this number
    /// is another one than that which sealed it. The cipher does not tell which.
    NotOpened {
        /// The number of the key.
        number: u32,
    },
    /// The value that is to be stored is longer than what the cipher takes.
    Long {
        /// How long it is.
        bytes: usize,
    },
    /// The system gives no random bytes, without which nothing is sealed.
    NoRandomBytes,
}

impl fmt::Display for EncryptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSealed { bytes } => write!(
                f,
                "found a value of {bytes} bytes that is not sealed; expected one that was stored with encryption"
            ),
            Self::Format(format) => write!(
                f,
                "found a value that is sealed in format {format}; expected format {FORMAT}"
            ),
            Self::Short { bytes } => write!(
                f,
                "found a sealed value of {bytes} bytes; expected at least {MIN_BYTES}, so some are missing"
            ),
            Self::UnknownKey { number, known } => {
                let known: Vec<String> = known.iter().map(u32::to_string).collect();
                write!(
                    f,
                    "found a value that is sealed under key {number}; expected one of those given: {}",
                    known.join(", ")
                )
            }
            Self::NotOpened { number } => write!(
                f,
                "found a sealed value that key {number} does not open; expected one that was sealed by it, for this key of the cache, and not changed since"
            ),
            Self::Long { bytes } => write!(
                f,
                "found a value of {bytes} bytes; expected one that AES-GCM can seal at once, at most 64 GiB"
            ),
            Self::NoRandomBytes => {
                f.write_str("the system gives no random bytes, without which nothing is sealed")
            }
        }
    }
}

impl std::error::Error for EncryptionError {}

impl EncryptionKeys {
    /// Seals a value for this key of the cache, with the key that writes.
    ///
    /// A client [with encryption](crate::Builder::encryption) does this by itself; it is here for what goes over a
    /// [`Connection`](crate::Connection), which does not.
    pub fn seal(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        let (number, by) = self.writer();
        sealed::seal(number, by, key, value, sealed::random_nonce()?)
    }

    /// Opens what was sealed for this key of the cache, by the key whose number it has.
    pub fn open(&self, key: &[u8], sealed: impl Into<Bytes>) -> Result<Bytes, EncryptionError> {
        let sealed = sealed.into();
        let number = sealed::number(&sealed)?;
        let Some(by) = self.get(number) else {
            let known = self.numbers().collect();
            return Err(EncryptionError::UnknownKey { number, known });
        };
        sealed::open(number, by, key, sealed)
    }
}

#[cfg(test)]
mod tests;
