//! The text of an API key, and what is kept of it: a keyed hash, from which nobody makes the text again. A text that is
//! presented is found by the number in it, which is no secret, and costs one hash of a short text, whatever is right or wrong
//! about it: the way to a "no" is the same for a number that nobody has and for a secret that is wrong in its first byte or in
//! its last.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::encryption::random;

/// How the text of a key begins, so that who finds one in a place where it should not be knows what it is.
const PREFIX: &str = "henge_";
/// Bytes of a key's number. It is drawn at random, and no other key of a cluster may have it.
const ID_BYTES: usize = 6;
/// Bytes of what is secret in it: nobody guesses 256 bits.
const SECRET_BYTES: usize = 32;
/// What those are as text.
const ID_LEN: usize = 2 * ID_BYTES;
const SECRET_LEN: usize = 43;
/// The length of every key's text. What is longer or shorter is no key, and is not hashed.
pub(crate) const TEXT_LEN: usize = PREFIX.len() + ID_LEN + 1 + SECRET_LEN;

/// Bytes of the key that a text is hashed under, another one for each: hashes of the same text have nothing in common.
const SALT_BYTES: usize = 16;
/// What a hash is made by, in the text of one.
const METHOD: &str = "hs256";

/// The number of a key, which tells it from all others. It is part of its text, and no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct KeyId([u8; ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl KeyId {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut id = [0; ID_BYTES];
        if text.len() != ID_LEN {
            return None;
        }
        for (byte, pair) in id.iter_mut().zip(text.chunks(2)) {
            let digit = |place: usize| match pair[place] {
                digit @ b'0'..=b'9' => Some(digit - b'0'),
                digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
                _ => None,
            };
            *byte = digit(0)? << 4 | digit(1)?;
        }
        Some(Self(id))
    }
}

/// The number in a text that may be a key's: of one that has the form, nothing else being known of it.
pub(crate) fn id_in(text: &[u8]) -> Option<KeyId> {
    if text.len() != TEXT_LEN {
        return None;
    }
    let rest = text.strip_prefix(PREFIX.as_bytes())?;
    let (id, secret) = rest.split_at_checked(ID_LEN)?;
    (secret[0] == b'_').then(|| KeyId::parse(id)).flatten()
}

/// A text for people in which no key stands: what looks like one is hidden, as people put keys where none belongs.
pub(crate) fn without_keys(text: &str) -> Cow<'_, str> {
    let is_of_key = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let mut shown = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find(PREFIX) {
        let of_key = rest[begin..].bytes().take_while(|byte| is_of_key(*byte));
        let end = begin + of_key.count();
        // A shorter one is a word that begins so, or so little of a key that nobody makes it whole.
        let is_key = end - begin > PREFIX.len() + ID_LEN;
        shown += if is_key { &rest[..begin] } else { &rest[..end] };
        if is_key {
            shown += "(hidden)";
        }
        rest = &rest[end..];
    }
    if shown.is_empty() {
        return Cow::Borrowed(rest);
    }
    Cow::Owned(shown + rest)
}

/// The same of a text that somebody gave, and not all of a long one.
pub(crate) fn quoted(text: &str) -> String {
    let shown: String = without_keys(text).chars().take(80).collect();
    format!("{shown:?}")
}

/// Whether two texts are the same, in a time that does not tell how far they are.
pub(crate) fn is_same_text(one: &[u8], other: &[u8]) -> bool {
    let differ = one
        .iter()
        .zip(other)
        .fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
    one.len() == other.len() && differ == 0
}

/// What is kept of a key: its number, and the hash of its text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeyHash {
    pub(crate) id: KeyId,
    salt: [u8; SALT_BYTES],
    tag: [u8; 32],
}

/// The hash is of no use to anybody, but it is not shown either.
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({})", self.id)
    }
}

/// As it is configured.
impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let salt = URL_SAFE_NO_PAD.encode(self.salt);
        let tag = URL_SAFE_NO_PAD.encode(self.tag);
        write!(f, "{METHOD}:{}:{salt}:{tag}", self.id)
    }
}

/// A text is no hash of a key. It is not shown: it may be the key itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoHash;

impl fmt::Display for NoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "its hash is none; expected what `henge key new` printed, {METHOD}: and three more parts"
        )
    }
}

impl FromStr for KeyHash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or(NoHash);
        if next()? != METHOD {
            return Err(NoHash);
        }
        let id = KeyId::parse(next()?.as_bytes()).ok_or(NoHash)?;
        let salt = URL_SAFE_NO_PAD.decode(next()?).map_err(|_| NoHash)?;
        let tag = URL_SAFE_NO_PAD.decode(next()?).map_err(|_| NoHash)?;
        if parts.next().is_some() {
            return Err(NoHash);
        }
        Ok(Self {
            id,
            salt: salt.try_into().map_err(|_| NoHash)?,
            tag: tag.try_into().map_err(|_| NoHash)?,
        })
    }
}

#[cfg(test)]
thread_local! {
    /// How many texts were hashed and compared.
    pub(super) static COMPARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl KeyHash {
    fn of(id: KeyId, salt: [u8; SALT_BYTES], text: &[u8]) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salt), text);
        let tag = tag.as_ref().try_into().expect("a tag has 32 bytes");
        Self { id, salt, tag }
    }

    /// Whether it is the hash of this text. Compared in constant time, by `ring`.
    pub(crate) fn is_of(&self, text: &[u8]) -> bool {
        #[cfg(test)]
        COMPARED.set(COMPARED.get() + 1);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.salt);
        hmac::verify(&key, text, &self.tag).is_ok()
    }

    /// A hash that is nobody's, for texts whose number nobody has: a "no" that costs as much as another.
    pub(crate) fn nobodys() -> Self {
        Self {
            id: KeyId([0; ID_BYTES]),
            salt: random(),
            tag: random(),
        }
    }
}

/// A key just made: the text, which nobody can be told again, and what is kept of it.
pub(crate) struct NewKey {
    pub(crate) text: String,
    pub(crate) hash: KeyHash,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewKey({})", self.hash.id)
    }
}

impl NewKey {
    /// Draws one.
    pub(crate) fn draw() -> Self {
        let id = KeyId(random());
        let secret: [u8; SECRET_BYTES] = random();
        let text = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
        let hash = KeyHash::of(id, random(), text.as_bytes());
        Self { text, hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_hash_and_by_nothing_less() {
        let key = NewKey::draw();
        assert_eq!(key.text.len(), TEXT_LEN);
        assert_eq!(id_in(key.text.as_bytes()), Some(key.hash.id));
        let hash: KeyHash = key.hash.to_string().parse().expect("what is shown is read");
        assert_eq!(hash, key.hash);
        assert!(hash.is_of(key.text.as_bytes()));
        for place in 0..TEXT_LEN {
            let mut wrong = key.text.clone().into_bytes();
            wrong[place] ^= 1;
            assert!(!hash.is_of(&wrong), "byte {place}");
        }
        assert!(!hash.is_of(b""));
        assert!(!KeyHash::nobodys().is_of(key.text.as_bytes()));
        let shown = format!("{key:?} {hash:?}");
        assert!(!shown.contains(&key.text[20..]), "{shown}");
    }

    #[test]
    fn two_keys_have_nothing_in_common() {
        let (one, other) = (NewKey::draw(), NewKey::draw());
        assert_ne!(one.text, other.text);
        assert_ne!(one.hash.id, other.hash.id);
        let again = KeyHash::of(one.hash.id, random(), one.text.as_bytes());
        assert_ne!(again, one.hash, "another salt");
        assert!(again.is_of(one.text.as_bytes()));
    }

    #[test]
    fn what_is_no_key_is_not_hashed() {
        let key = NewKey::draw().text;
        for wrong in [
            "",
            "henge_",
            "password",
            &key[..TEXT_LEN - 1],
            &format!("{key}a"),
            &key.to_uppercase(),
            &key.replacen("henge_", "hengE_", 1),
            &key.replacen('_', "-", 2),
        ] {
            assert_eq!(id_in(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn no_key_stands_in_what_is_shown() {
        let key = NewKey::draw().text;
        for (text, expected) in [
            ("nothing".to_owned(), "nothing".to_owned()),
            (String::new(), String::new()),
            (key.clone(), "(hidden)".to_owned()),
            (format!("{key}{key}"), "(hidden)".to_owned()),
            (
                format!("a \"{key}\", {key}."),
                "a \"(hidden)\", (hidden).".to_owned(),
            ),
            (format!("äé{}ü", &key[..40]), "äé(hidden)ü".to_owned()),
            (
                "henge_key and henge_".to_owned(),
                "henge_key and henge_".to_owned(),
            ),
        ] {
            assert_eq!(without_keys(&text), expected);
        }
        assert_eq!(quoted(&key), "\"(hidden)\"");
    }

    #[test]
    fn what_is_no_hash_is_not_shown() {
        let hash = NewKey::draw().hash.to_string();
        let cut = |by: usize| hash[..hash.len() - by].to_owned();
        for wrong in [
            String::new(),
            NewKey::draw().text,
            cut(1),
            cut(43),
            cut(44),
            format!("{hash}:"),
            format!("{hash}a"),
            hash.replacen("hs256", "md5", 1),
            hash.replacen(':', "::", 1),
        ] {
            let error = wrong.parse::<KeyHash>().expect_err(&wrong);
            assert!(wrong.is_empty() || !error.to_string().contains(&wrong));
        }
    }
}
