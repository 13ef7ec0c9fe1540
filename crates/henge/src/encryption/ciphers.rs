//! The two ciphers, by `ring`: AES-256-GCM and ChaCha20-Poly1305. Each file has a key of its own, made of the master key, the
//! file's salt and all that its header says; so a counter that two files have in common is no harm, and a header that somebody
//! changed leads to another key.

use std::sync::Arc;

use henge_engine::persistence::cipher::{FileCipher, TAG_BYTES};
use henge_engine::persistence::frame::Header;
use ring::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use ring::hkdf::{HKDF_SHA256, Salt};

use super::keys::Key;
use crate::config::EncryptionCipher;

/// The number that files have of a cipher. 0 is a plain file.
pub(super) fn number(cipher: EncryptionCipher) -> u16 {
    match cipher {
        EncryptionCipher::Aes256Gcm => 1,
        EncryptionCipher::ChaCha20Poly1305 => 2,
    }
}

/// The cipher of that number.
pub(super) fn of_number(wanted: u16) -> Option<EncryptionCipher> {
    let all = EncryptionCipher::ALL.iter().copied();
    all.into_iter().find(|cipher| number(*cipher) == wanted)
}

/// The cipher of a file.
pub(super) fn of_file(cipher: EncryptionCipher, key: &Key, header: &Header) -> Arc<dyn FileCipher> {
    let algorithm: &'static Algorithm = match cipher {
        EncryptionCipher::Aes256Gcm => &AES_256_GCM,
        EncryptionCipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    };
    let extracted = Salt::new(HKDF_SHA256, &header.salt).extract(key.bytes());
    let said = header.identity();
    let said = [&said[..]];
    let expanded = extracted.expand(&said, algorithm);
    let own = expanded.expect("a key is shorter than what HKDF gives at most");
    Arc::new(Sealed(LessSafeKey::new(UnboundKey::from(own))))
}

/// "Less safe", as who calls it counts: the engine does, and never gives a counter twice.
struct Sealed(LessSafeKey);

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

impl FileCipher for Sealed {
    fn seal(&self, counter: u64, body: &mut [u8]) -> [u8; TAG_BYTES] {
        let Self(key) = self;
        let tag = key.seal_in_place_separate_tag(nonce(counter), Aad::empty(), body);
        let tag = tag.expect("a body is shorter than what a cipher takes at most");
        let mut bytes = [0; TAG_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    fn open(&self, counter: u64, sealed: &mut [u8]) -> bool {
        let Self(key) = self;
        let opened = key.open_in_place(nonce(counter), Aad::empty(), sealed);
        opened.is_ok()
    }
}

#[cfg(test)]
mod tests;
