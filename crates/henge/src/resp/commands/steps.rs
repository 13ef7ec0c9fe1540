//! What long commands have in common: they keep their words, as the request is gone before they end, and they let others run
//! between their steps, as a data thread serves all of its connections in turn.

/// How much is worked on without a pause: some 100 us of copying, adding bits, or writing small items.
pub(super) const STEP_BYTES: usize = 256 * 1024;
const STEP_KEYS: usize = 256;

/// Pauses after each step.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes: usize,
    keys: usize,
}

impl Pace {
    /// Another key was worked on, and so many bytes of its value.
    pub(super) async fn key(&mut self, bytes: usize) {
        self.keys += 1;
        self.bytes(bytes).await;
    }

    /// So many bytes were worked on.
    pub(super) async fn bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= STEP_BYTES || self.keys >= STEP_KEYS {
            *self = Self::default();
            tokio::task::yield_now().await;
        }
    }
}

/// Words with a life of their own, in one piece of memory however many there are.
#[derive(Debug, Default)]
pub(super) struct Words {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Words {
    pub(super) fn copy<'a>(words: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let mut copy = Self {
            bytes: Vec::with_capacity(words.clone().map(<[u8]>::len).sum()),
            ends: Vec::with_capacity(words.size_hint().0),
        };
        for word in words {
            copy.bytes.extend_from_slice(word);
            copy.ends.push(copy.bytes.len());
        }
        copy
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The memory that they take.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// The word at a place that there is.
    pub(super) fn word(&self, index: usize) -> &[u8] {
        let start = index
            .checked_sub(1)
            .map_or(0, |previous| self.ends[previous]);
        &self.bytes[start..self.ends[index]]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.word(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_as_they_were() {
        for words in [&[][..], &[""], &["a"], &["", "abc", "", "d", ""]] {
            let copy = Words::copy(words.iter().map(|word| word.as_bytes()));
            assert_eq!(copy.len(), words.len());
            assert!(copy.iter().eq(words.iter().map(|word| word.as_bytes())));
        }
    }
}
