//! `Version`: the place of a mutation in its partition's order. It is packed here and nowhere else; it does not decide
//! who may stamp one.

use std::fmt;
use std::str::FromStr;

/// The bits of the seq. 2^44 mutations of one partition are 200 days of a million a second; the term keeps 20 bits, a
/// million changes of the topology. A partition that comes near either end is reset.
const SEQ_BITS: u32 = 44;

/// A term and a seq within it, ordered by term first. As text it is `term-seq`, because JavaScript rounds large integers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(u64);

impl Version {
    /// Before every mutation.
    pub const ZERO: Self = Self(0);
    /// The largest term.
    pub const MAX_TERM: u32 = (1 << (64 - SEQ_BITS)) - 1;
    /// The largest seq.
    pub const MAX_SEQ: u64 = (1 << SEQ_BITS) - 1;

    /// Packs a term and a seq.
    ///
    /// # Panics
    /// If either is too large for its bits: a partition is reset before its seq gets there.
    pub const fn new(term: u32, seq: u64) -> Self {
        assert!(
            term <= Self::MAX_TERM && seq <= Self::MAX_SEQ,
            "term or seq out of range"
        );
        Self(((term as u64) << SEQ_BITS) | seq)
    }

    /// The term of the leader that stamped it.
    pub const fn term(self) -> u32 {
        (self.0 >> SEQ_BITS) as u32
    }

    /// The position in the partition's order, which goes on across terms.
    pub const fn seq(self) -> u64 {
        self.0 & Self::MAX_SEQ
    }

    /// The packed form.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From the packed form; every u64 is a version.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The next version in the same term.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.term(), self.seq() + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.term(), self.seq())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseVersionError;

impl fmt::Display for ParseVersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a version looks like \"1-42\": a term up to 1048575, a dash, a seq up to 17592186044415")
    }
}

impl std::error::Error for ParseVersionError {}

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        let (term, seq) = text.split_once('-').ok_or(ParseVersionError)?;
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(term) || !digits(seq) {
            return Err(ParseVersionError);
        }
        let term: u32 = term.parse().map_err(|_| ParseVersionError)?;
        let seq: u64 = seq.parse().map_err(|_| ParseVersionError)?;
        if term > Self::MAX_TERM || seq > Self::MAX_SEQ {
            return Err(ParseVersionError);
        }
        Ok(Self::new(term, seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bits_go_there_and_back() {
        for (term, seq) in [(0, 0), (1, 42), (Version::MAX_TERM, Version::MAX_SEQ)] {
            let version = Version::new(term, seq);
            assert_eq!((version.term(), version.seq()), (term, seq));
            assert_eq!(version.to_string().parse(), Ok(version));
            assert_eq!(Version::from_bits(version.to_bits()), version);
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-2-3",
            "+1-2",
            "1- 2",
            "1048576-0",
            "0-17592186044416",
            "a-b",
            "1-99999999999999999999",
        ] {
            assert_eq!(text.parse::<Version>(), Err(ParseVersionError), "{text:?}");
        }
    }

    #[test]
    fn a_later_term_beats_any_seq() {
        assert!(Version::new(2, 0) > Version::new(1, Version::MAX_SEQ));
        assert!(Version::new(1, 2).next() == Version::new(1, 3));
    }
}
