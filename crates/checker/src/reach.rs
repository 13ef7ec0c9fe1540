//! How far a value can be moved by increments that do not tell their sums.

/// The most values that are looked at between two, one by one. Beyond it every value is taken to be in reach: that costs steps,
/// and decides nothing.
const MOST: u64 = 256;

/// The sums of what is added and of what is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Reach {
    up: u64,
    down: u64,
}

impl Reach {
    /// No value is out of reach.
    pub(crate) const EVERYWHERE: Self = Self {
        up: u64::MAX,
        down: u64::MAX,
    };

    /// This is added too, or not.
    pub(crate) fn add(&mut self, by: i64) {
        let side = if by < 0 { &mut self.down } else { &mut self.up };
        *side = side.saturating_add(by.unsigned_abs());
    }

    /// Whether one value may become another.
    pub(crate) fn has(self, from: i64, to: i64) -> bool {
        let (limit, far) = if to < from {
            (self.down, from.abs_diff(to))
        } else {
            (self.up, to.abs_diff(from))
        };
        far <= limit
    }

    /// All values that may become this one, itself among them; none if they are too many.
    pub(crate) fn origins(self, to: i64) -> Option<impl Iterator<Item = i64>> {
        let (up, down) = (self.up.min(MOST), self.down.min(MOST));
        let range = to.saturating_sub_unsigned(up)..=to.saturating_add_unsigned(down);
        (self.up.saturating_add(self.down) < MOST).then_some(range)
    }

    /// All values that this one may become, itself among them; none if they are too many.
    pub(crate) fn results(self, from: i64) -> Option<impl Iterator<Item = i64>> {
        let turned = Self {
            up: self.down,
            down: self.up,
        };
        turned.origins(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_in_reach_by_what_is_added() {
        let mut reach = Reach::default();
        for by in [2, 3, -1] {
            reach.add(by);
        }
        for (from, to, is_within) in [(0, 5, true), (0, 6, false), (0, -1, true), (0, -2, false)] {
            assert_eq!(reach.has(from, to), is_within, "{from} to {to}");
        }
        let origins: Vec<i64> = reach.origins(0).expect("they are few").collect();
        assert_eq!(origins, (-5..=1).collect::<Vec<i64>>());
        let results: Vec<i64> = reach.results(0).expect("they are few").collect();
        assert_eq!(results, (-1..=5).collect::<Vec<i64>>());
        reach.add(i64::MAX);
        assert!(reach.origins(0).is_none() && Reach::EVERYWHERE.results(0).is_none());
        assert!(Reach::EVERYWHERE.has(i64::MIN, i64::MAX));
    }
}
