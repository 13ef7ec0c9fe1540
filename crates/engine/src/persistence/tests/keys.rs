//! A keyring of toys: ciphers that hide nothing, and whose tags check all the same. So the same suites run over plain files,
//! over encrypted ones, and over directories that have both.

use super::super::cipher::{FileCipher, KeyError, Keyring, TAG_BYTES};
use super::super::frame::Header;
use std::sync::Arc;

/// The one cipher that there is.
pub(super) const CIPHER: u16 = 7;

/// What a node has of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Keys {
    /// The keys that there are: their numbers, and what they are.
    pub(super) all: &'static [(u32, u64)],
    /// Whether new files are encrypted, with the last of them.
    pub(super) encrypts: bool,
}

impl Keys {
    pub(crate) const NONE: Self = Self {
        all: &[],
        encrypts: false,
    };
    pub(crate) const FIRST: Self = Self {
        all: &[(1, 0xAB)],
        encrypts: true,
    };
    /// What is plain or encrypted is read, and both are written.
    pub(crate) const BOTH: [Self; 2] = [Self::NONE, Self::FIRST];

    /// What lives of a node may have one after the other, in any order.
    pub(crate) const ALTERNATING: [Self; 3] = [
        Self::SECOND,
        Self::READ_ONLY,
        Self {
            all: &[(9, 0xCD), (1, 0xAB)],
            encrypts: true,
        },
    ];

    /// Another key writes, and those before it are still there.
    pub(super) const SECOND: Self = Self {
        all: &[(1, 0xAB), (9, 0xCD)],
        encrypts: true,
    };
    /// Encryption was switched off, and the keys are still there.
    pub(super) const READ_ONLY: Self = Self {
        encrypts: false,
        ..Self::SECOND
    };
}

impl Keyring for Keys {
    fn current(&self) -> Option<(u16, u32)> {
        let (key_id, _) = self.all.last().filter(|_| self.encrypts)?;
        Some((CIPHER, *key_id))
    }

    fn all(&self) -> Vec<(u16, u32)> {
        self.all
            .iter()
            .map(|(key_id, _)| (CIPHER, *key_id))
            .collect()
    }

    fn cipher(&self, header: &Header) -> Result<Arc<dyn FileCipher>, KeyError> {
        if header.cipher != CIPHER {
            return Err(KeyError::Cipher(header.cipher));
        }
        let key_id = header.key_id;
        let key = self.all.iter().find(|(id, _)| *id == key_id);
        let (_, key) = key.ok_or_else(|| KeyError::Missing {
            key_id,
            why: format!("there are {}", self.all.len()),
        })?;
        let header = header.encode();
        Ok(Arc::new(Toy(mixed(*key, &header))))
    }
}

struct Toy(u64);

impl Toy {
    fn cover(&self, counter: u64, body: &mut [u8]) {
        let mut state = mixed(self.0, &counter.to_le_bytes());
        for chunk in body.chunks_mut(8) {
            state = mixed(state, b"next");
            for (byte, cover) in chunk.iter_mut().zip(state.to_le_bytes()) {
                *byte ^= cover;
            }
        }
    }

    fn tag(&self, counter: u64, body: &[u8]) -> [u8; TAG_BYTES] {
        let first = mixed(self.0 ^ counter, body);
        let mut tag = [0; TAG_BYTES];
        tag[..8].copy_from_slice(&first.to_le_bytes());
        tag[8..].copy_from_slice(&mixed(first, b"tag").to_le_bytes());
        tag
    }
}

impl FileCipher for Toy {
    fn seal(&self, counter: u64, body: &mut [u8]) -> [u8; TAG_BYTES] {
        self.cover(counter, body);
        self.tag(counter, body)
    }

    fn open(&self, counter: u64, sealed: &mut [u8]) -> bool {
        let (body, tag) = sealed.split_at_mut(sealed.len() - TAG_BYTES);
        let is_right = *tag == self.tag(counter, body);
        self.cover(counter, body);
        is_right
    }
}

/// FNV, eight bytes at a time, and its bits stirred.
fn mixed(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed ^ 0xCBF2_9CE4_8422_2325;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = (state ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01B3);
        state ^= state >> 29;
    }
    state ^ bytes.len() as u64
}
