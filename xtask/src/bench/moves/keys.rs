//! The keys of a client, which nobody else writes: what each may hold, by a count that is in its value and grows with each write. It knows
//! no socket: who asks tells it what was answered.

use super::super::random::Random;
use std::fmt;

/// Bytes of a value.
pub(super) const VALUE_BYTES: usize = 1024;

/// Every so many-th key of all, from one on.
pub(super) struct Keys {
    first: usize,
    step: usize,
    counts: Vec<Counts>,
}

/// What was written to a key. From one to the other it may hold any: it is not known what became of those writes.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// Of the newest write that was acknowledged, or seen by a read.
    known: u32,
    /// Of the newest that was sent.
    sent: u32,
}

/// What is not as it must be of what a key holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Wrong {
    /// It was written, and nothing is there.
    Lost,
    /// Less than what is known.
    Older,
    /// Nothing that was ever written there.
    Strange,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Older => "older",
            Self::Strange => "strange",
        })
    }
}

impl Keys {
    /// Those of one of so many clients, of so many keys in all.
    pub(super) fn new(first: usize, step: usize, all: usize) -> Self {
        let own = all.saturating_sub(first).div_ceil(step);
        Self {
            first,
            step,
            counts: vec![Counts::default(); own],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// What one is called, by its place among these.
    pub(super) fn name(&self, place: usize) -> String {
        format!("key:{:012}", self.number(place))
    }

    fn number(&self, place: usize) -> usize {
        self.first + place * self.step
    }

    /// Makes the next value for a key, which is on its way from now on.
    pub(super) fn next(&mut self, place: usize) -> Vec<u8> {
        self.counts[place].sent += 1;
        value(self.number(place), self.counts[place].sent)
    }

    /// The newest write to it was acknowledged.
    pub(super) fn acknowledged(&mut self, place: usize) {
        self.counts[place].known = self.counts[place].sent;
    }

    /// A read that was asked when nothing else was under way found this. No later one may find less.
    pub(super) fn found(&mut self, place: usize, found: Option<&[u8]>) -> Result<(), Wrong> {
        let number = self.number(place);
        let counts = &mut self.counts[place];
        let Some(found) = found else {
            return if counts.known == 0 {
                Ok(())
            } else {
                Err(Wrong::Lost)
            };
        };
        let count = found.first_chunk().map(|count| u32::from_le_bytes(*count));
        match count {
            Some(count) if found == value(number, count) && count <= counts.sent => {
                if count < counts.known {
                    return Err(Wrong::Older);
                }
                counts.known = count;
                Ok(())
            }
            _ => Err(Wrong::Strange),
        }
    }

    /// What is known of one, for people.
    pub(super) fn known(&self, place: usize) -> String {
        let Counts { known, sent } = self.counts[place];
        format!("write {known} is known of it, {sent} were sent")
    }
}

/// A count, and bytes that no other key has with it, nor this one with another. None of it can be compressed.
fn value(number: usize, count: u32) -> Vec<u8> {
    let mut value = count.to_le_bytes().to_vec();
    let seed = number as u64 | u64::from(count) << 40;
    value.extend(Random::new(seed).bytes(VALUE_BYTES - value.len()));
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_may_hold_is_what_was_written_and_is_not_known_to_be_over() {
        let mut keys = Keys::new(1, 3, 8);
        assert_eq!((keys.len(), Keys::new(2, 3, 8).len()), (3, 2));
        assert_eq!(keys.name(2), "key:000000000007");
        assert_eq!(keys.found(2, None), Ok(()));
        let first = keys.next(2);
        assert_eq!(first.len(), VALUE_BYTES);
        // Nobody knows of it yet.
        assert_eq!(keys.found(2, None), Ok(()));
        keys.acknowledged(2);
        assert_eq!(keys.found(2, None), Err(Wrong::Lost));
        assert_eq!(keys.found(2, Some(&first)), Ok(()));
        let second = keys.next(2);
        assert_eq!(keys.found(2, Some(&first)), Ok(()));
        assert_eq!(keys.found(2, Some(&second)), Ok(()));
        // It was seen.
        assert_eq!(keys.found(2, Some(&first)), Err(Wrong::Older));
        assert_eq!(keys.found(2, Some(&value(7, 3))), Err(Wrong::Strange));
        assert_eq!(keys.found(2, Some(&value(4, 2))), Err(Wrong::Strange));
        assert_eq!(keys.found(2, Some(b"x")), Err(Wrong::Strange));
        assert_eq!(keys.found(0, Some(&first)), Err(Wrong::Strange));
    }
}
