//! Things that one node is asked for together, in the order in which they are to be run. Where it has answered only the first of
//! them, the rest was not run, and is asked for again: a head takes the place of the end of what is answered, so that nothing is
//! copied. It knows neither what they are nor who is asked.

use std::ops::Range;

/// Where fewer things were answered than asked for, the next question has so many times as many as were. What it carries in vain
/// is then no more than what was answered before, where all of the rest would make a question of many large values cost the
/// square of them; and where more are answered, it grows.
const MORE_THAN_ANSWERED: usize = 2;

/// Things of kind `T`, as bytes, behind a head of so many bytes.
#[derive(Debug)]
pub(crate) struct Bundle<T, const HEAD: usize> {
    body: Vec<u8>,
    /// Where each ends in the body, and what it is.
    things: Vec<(usize, T)>,
    /// Those that are asked for; those before are answered.
    asked: Range<usize>,
    /// The next question has no more things than this.
    most: usize,
}

impl<T: Copy, const HEAD: usize> Bundle<T, HEAD> {
    pub(crate) fn new() -> Self {
        /// Room for some small things, so that the first ones are not moved again and again.
        const ROOM: usize = 1_000;
        let mut body = Vec::with_capacity(HEAD + ROOM);
        body.resize(HEAD, 0);
        Self {
            body,
            things: Vec::with_capacity(ROOM / 64),
            asked: 0..0,
            most: usize::MAX,
        }
    }

    /// Adds a thing, as `write` writes it; of so many bytes.
    pub(crate) fn push(&mut self, thing: T, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = self.body.len();
        write(&mut self.body);
        self.things.push((self.body.len(), thing));
        self.body.len() - before
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.things.len()
    }

    /// Bytes of all of them, with one head.
    pub(crate) fn size_bytes(&self) -> usize {
        self.body.len()
    }

    pub(crate) fn get(&self, at: usize) -> Option<T> {
        self.things.get(at).map(|&(_, thing)| thing)
    }

    /// The bytes of one that was in the last question, or is behind that: heads are in the place of those before.
    pub(crate) fn bytes(&self, at: usize) -> &[u8] {
        let from = at
            .checked_sub(1)
            .map_or(HEAD, |before| self.things[before].0);
        &self.body[from..self.things[at].0]
    }

    /// Which are asked for. Of those behind them nothing was done.
    pub(crate) fn asked(&self) -> &Range<usize> {
        &self.asked
    }

    /// Asks for what is not answered, or the first of that; `head` is that of so many things.
    pub(crate) fn ask(&mut self, head: impl FnOnce(usize) -> [u8; HEAD]) -> &[u8] {
        let start = self.asked.start;
        self.asked.end = start + self.most.min(self.things.len() - start);
        let from = self.question().start;
        self.body[from..from + HEAD].copy_from_slice(&head(self.asked.len()));
        &self.body[self.question()]
    }

    /// What is asked for, once more, if nothing is changed by it.
    pub(crate) fn harmless(&self, is_write: impl Fn(T) -> bool) -> Option<&[u8]> {
        let mut asked = self.things[self.asked.clone()].iter();
        let has_write = asked.any(|&(_, thing)| is_write(thing));
        (!has_write).then(|| &self.body[self.question()])
    }

    /// The first so many of what was asked for are answered. False, and nothing changes, if that is none or more than were.
    pub(crate) fn answered(&mut self, count: usize) -> bool {
        let is_sense = (1..=self.asked.len()).contains(&count);
        if is_sense {
            let start = self.asked.start + count;
            self.asked = start..start;
            self.most = count.saturating_mul(MORE_THAN_ANSWERED);
        }
        is_sense
    }

    /// Where what is asked for is in the body, with its head.
    fn question(&self) -> Range<usize> {
        let end = |count: usize| match count {
            0 => HEAD,
            count => self.things[count - 1].0,
        };
        end(self.asked.start) - HEAD..end(self.asked.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_is_asked_for_again() {
        let mut bundle = Bundle::<bool, 2>::new();
        for (word, is_write) in [("aaa", true), ("b", false), ("cccc", false), ("d", false)] {
            let bytes = bundle.push(is_write, |body| body.extend_from_slice(word.as_bytes()));
            assert_eq!(bytes, word.len());
        }
        let head = |count: usize| [b'#', b'0' + count as u8];
        assert_eq!(bundle.ask(head), b"#4aaabccccd");
        assert_eq!(bundle.harmless(|is_write| is_write), None);
        assert!(!bundle.answered(0) && !bundle.answered(5));
        assert_eq!(bundle.asked(), &(0..4));
        assert!(bundle.answered(1));
        assert_eq!(bundle.ask(head), b"#2bcccc");
        assert_eq!(bundle.harmless(|is_write| is_write), Some(&b"#2bcccc"[..]));
        assert!(!bundle.answered(3));
        assert!(bundle.answered(2));
        assert_eq!(bundle.get(3), Some(false));
        assert_eq!(bundle.ask(head), b"#1d");
        assert!(bundle.answered(1));
        assert_eq!(bundle.asked().start, bundle.count());
    }
}
