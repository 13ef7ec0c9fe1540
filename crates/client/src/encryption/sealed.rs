//! A sealed value, byte by byte: the header, the nonce, the ciphertext, the tag. It knows one key at a time; which one that is, is
//! its caller's to find. Nothing is made of a value before the tag of all of it is right.

use bytes::{Bytes, BytesMut};
use ring::aead::{Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce};
use ring::rand::{SecureRandom, SystemRandom};

use super::EncryptionError;

/// What a sealed value begins with. No text in UTF-8 begins with the first byte, so that no text, number or JSON is taken for one, and
/// HTTP carries it as bytes.
const MAGIC: [u8; 4] = *b"\x89HSV";

/// The one format that there is: AES-256-GCM with random nonces, all of it as below.
pub(super) const FORMAT: u8 = 1;

/// The magic, the format, and the number of the key.
const HEADER_BYTES: usize = 9;

/// Where the ciphertext begins.
const BODY_AT: usize = HEADER_BYTES + NONCE_LEN;

/// As long as the one of the empty value.
pub(super) const MIN_BYTES: usize = BODY_AT + MAX_TAG_LEN;

fn header(number: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = FORMAT;
    header[5..].copy_from_slice(&number.to_le_bytes());
    header
}

/// What is not encrypted and yet cannot be changed: the header, and for which key of the cache the value is. As the first has always
/// the same length, no two pairs of them are the same bytes.
fn associated_data(number: u32, key: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([&header(number)[..], key].concat())
}

/// A nonce that no other value of the key has, but by a chance that docs/client-encryption.md reckons.
pub(super) fn random_nonce() -> Result<[u8; NONCE_LEN], EncryptionError> {
    let mut nonce = [0; NONCE_LEN];
    let filled = SystemRandom::new().fill(&mut nonce);
    filled.map_err(|_| EncryptionError::NoRandomBytes)?;
    Ok(nonce)
}

/// Seals a value. Two values under one nonce and one key would give both away, and let anybody forge others.
pub(super) fn seal(
    number: u32,
    by: &LessSafeKey,
    key: &[u8],
    value: &[u8],
    nonce: [u8; NONCE_LEN],
) -> Result<Vec<u8>, EncryptionError> {
    let mut sealed = Vec::with_capacity(MIN_BYTES + value.len());
    sealed.extend_from_slice(&header(number));
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(value);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let aad = associated_data(number, key);
    let tag = by.seal_in_place_separate_tag(nonce, aad, &mut sealed[BODY_AT..]);
    // It fails for no other reason.
    let bytes = value.len();
    let tag = tag.map_err(|_| EncryptionError::Long { bytes })?;
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

/// The number of the key that has sealed it, as it says; [`open`] finds out whether that is so.
pub(super) fn number(sealed: &[u8]) -> Result<u32, EncryptionError> {
    let bytes = sealed.len();
    let Some(rest) = sealed.strip_prefix(&MAGIC) else {
        return Err(EncryptionError::NotSealed { bytes });
    };
    // Another format may be shorter, so that it is looked at first.
    if let Some(format) = rest.first()
        && *format != FORMAT
    {
        return Err(EncryptionError::Format(*format));
    }
    if bytes < MIN_BYTES {
        return Err(EncryptionError::Short { bytes });
    }
    let number = rest[1..].first_chunk().expect("it is long enough");
    Ok(u32::from_le_bytes(*number))
}

/// Opens what [`number`] has named the key of, in place where nobody else has the bytes.
pub(super) fn open(
    number: u32,
    by: &LessSafeKey,
    key: &[u8],
    sealed: Bytes,
) -> Result<Bytes, EncryptionError> {
    assert!(sealed.len() >= MIN_BYTES, "its number was read");
    let mut bytes = BytesMut::from(sealed);
    let nonce = bytes[HEADER_BYTES..].first_chunk();
    let nonce = Nonce::assume_unique_for_key(*nonce.expect("it is long enough"));
    let aad = associated_data(number, key);
    let opened = by.open_in_place(nonce, aad, &mut bytes[BODY_AT..]);
    let end = BODY_AT
        + opened
            .map_err(|_| EncryptionError::NotOpened { number })?
            .len();
    Ok(bytes.freeze().slice(BODY_AT..end))
}
