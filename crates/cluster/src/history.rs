//! Where the seqs of each term began in a replica's order, and up to where two orders are the same.

use henge_wire::Version;

/// Terms that are kept. What two replicas have in common may lie before: then more is copied than would have to be.
pub(crate) const KEPT_TERMS: usize = 64;

/// Terms and the first seq of each, ascending in both. A term ends where the next begins, and the newest at the replica's
/// `last`, which it does not know itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct History(Vec<(u32, u64)>);

impl History {
    /// A term begins at this seq.
    ///
    /// # Panics
    /// If it is not later than all there are.
    pub fn begin(&mut self, term: u32, first: u64) {
        let after = self.0.last().is_none_or(|&(t, f)| t < term && f <= first);
        assert!(after, "term {term} from {first} does not follow {self:?}");
        self.0.push((term, first));
        let surplus = self.0.len().saturating_sub(KEPT_TERMS);
        self.0.drain(..surplus);
    }

    /// The terms, and the first seq of each.
    pub fn terms(&self) -> &[(u32, u64)] {
        &self.0
    }

    /// Whether there are no terms.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest term; 0 before there is any.
    pub fn newest(&self) -> u32 {
        self.0.last().map_or(0, |&(term, _)| term)
    }

    /// The term in which a seq of the order was stamped; 0 where that is not known any more.
    pub fn term_of(&self, seq: u64) -> u32 {
        let mut terms = self.0.iter().rev();
        let begun = terms.find(|(_, first)| *first <= seq);
        begun.map_or(0, |&(term, _)| term)
    }

    /// The last seq of the term at a place.
    fn end(&self, place: usize, last: u64) -> u64 {
        self.0.get(place + 1).map_or(last, |&(_, first)| first - 1)
    }

    /// The seq up to which this order, which has come to `last`, and another one are the same; 0 if nothing is known to be.
    pub fn common(&self, last: u64, other: &Self, other_last: u64) -> u64 {
        let pairs = self.0.iter().enumerate().rev();
        let shared = pairs.filter_map(|(place, (term, _))| {
            let found = other.0.binary_search_by_key(term, |&(term, _)| term);
            Some((place, found.ok()?))
        });
        let mut shared =
            shared.map(|(place, found)| self.end(place, last).min(other.end(found, other_last)));
        shared.next().unwrap_or(0)
    }
}

impl From<&[(u32, u64)]> for History {
    fn from(terms: &[(u32, u64)]) -> Self {
        let mut history = Self::default();
        for &(term, first) in terms {
            history.begin(term, first);
        }
        history
    }
}

/// Where the next of a replica's order goes.
pub(crate) fn next(last: Version) -> u64 {
    last.seq() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_orders_have_in_common() {
        type Terms = &'static [(u32, u64)];
        // Two orders with how far they have come, and up to where they are the same.
        let cases: [(Terms, u64, Terms, u64, u64); 9] = [
            (&[], 0, &[], 0, 0),
            (&[(1, 1)], 5, &[(1, 1)], 3, 3),
            (&[(1, 1)], 5, &[(2, 1)], 3, 0),
            // It went on in term 1 while the others began term 2 behind 3.
            (&[(1, 1)], 5, &[(1, 1), (2, 4)], 9, 3),
            (&[(1, 1), (2, 6)], 8, &[(1, 1), (3, 4)], 9, 3),
            (&[(1, 1), (3, 4)], 9, &[(1, 1), (3, 4)], 7, 7),
            // A term without a mutation of its own.
            (&[(1, 1), (2, 6)], 5, &[(1, 1), (2, 6), (3, 6)], 8, 5),
            (&[(2, 1), (5, 7)], 9, &[(2, 1), (4, 3)], 4, 2),
            (&[(7, 1)], 4, &[(7, 1), (9, 1)], 0, 0),
        ];
        for (a, a_last, b, b_last, expected) in cases {
            let (a, b) = (History::from(a), History::from(b));
            assert_eq!(a.common(a_last, &b, b_last), expected, "{a:?} {b:?}");
            assert_eq!(b.common(b_last, &a, a_last), expected, "{b:?} {a:?}");
        }
    }

    #[test]
    fn when_a_seq_was_stamped() {
        let history = History::from(&[(2, 4), (5, 7), (6, 7)][..]);
        let terms = [3, 4, 6, 7, 9].map(|seq| history.term_of(seq));
        assert_eq!(terms, [0, 2, 2, 6, 6]);
    }

    #[test]
    fn old_terms_are_forgotten_and_what_is_left_is_true() {
        let mut long = History::default();
        for term in 1..=200 {
            long.begin(term, u64::from(term) * 10);
        }
        assert_eq!((long.0.len(), long.newest()), (KEPT_TERMS, 200));
        let short = History::from(&[(1, 10), (150, 1_500)][..]);
        assert_eq!(long.common(2_003, &short, 1_504), 1_504);
        let old = History::from(&[(1, 10)][..]);
        assert_eq!(long.common(2_003, &old, 15), 0);
    }
}
