//! What keys of the cache have to begin with, for an API key that is confined to them. It is held against each key that is named, in the
//! inside of every loop, so that one of up to eight bytes is told by a word, without a call.

/// As many bytes as a word has.
const WORD: usize = 8;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Prefix {
    bytes: Box<[u8]>,
    /// The first of them as a word, and which of its bits they are.
    word: u64,
    mask: u64,
}

impl Prefix {
    /// Of these bytes.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let (mut word, mut mask) = ([0; WORD], [0; WORD]);
        for (place, byte) in bytes.iter().take(WORD).enumerate() {
            (word[place], mask[place]) = (*byte, u8::MAX);
        }
        Self {
            bytes: bytes.into(),
            word: u64::from_le_bytes(word),
            mask: u64::from_le_bytes(mask),
        }
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a key begins with it.
    #[inline]
    pub(crate) fn begins(&self, key: &[u8]) -> bool {
        let Some(head) = key.first_chunk::<WORD>() else {
            return key.starts_with(&self.bytes);
        };
        (u64::from_le_bytes(*head) ^ self.word) & self.mask == 0
            && (self.bytes.len() <= WORD || key.starts_with(&self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lengths around that of a word, beside keys that differ from it in one place or in none, and are cut anywhere.
    #[test]
    fn it_is_told_as_byte_by_byte() {
        let text = b"app:user:0123456789";
        for length in 0..=text.len() {
            let prefix = Prefix::new(&text[..length]);
            assert_eq!(prefix.bytes(), &text[..length]);
            for end in 0..=text.len() {
                for changed in 0..=end {
                    let mut key = text[..end].to_vec();
                    if let Some(byte) = key.get_mut(changed) {
                        *byte ^= 0x80;
                    }
                    let expected = key.starts_with(&text[..length]);
                    assert_eq!(prefix.begins(&key), expected, "{length}, {end}, {changed}");
                }
            }
        }
    }
}
