//! How often keys were used of late, about: a count-min sketch (Cormode and Muthukrishnan, 2005) whose counters age by
//! halves (Einziger, Friedman and Manes, 2017). A key's four counters lie in one block, so that it costs one cache line.
//! There is no doorkeeper: one for ten samples an item would be as large as the counters.
//!
//! The paper's counters have four bits. These have four more behind the point: where a use becomes a half, then a quarter,
//! what is rounded away would turn the order of two keys that are used in turn, whichever of them came last. A loop over more
//! keys than fit lost an eighth of its hits to that.

use super::blocks::{Block, Blocks, scatter};

/// One use.
pub(super) const USE: u32 = 16;
/// The greatest count.
const MOST: u32 = 255;
/// All counters are halved after this many samples for each item, so that what was popular long ago gives way.
const SAMPLES: usize = 10;
const ROWS: usize = 4;
/// Words of a block in a row, and counters in a word.
const ROW_WORDS: usize = 4;
const WORD_COUNTERS: usize = 4;
const ROW_COUNTERS: usize = ROW_WORDS * WORD_COUNTERS;
const COUNTER_BITS: usize = 8;
/// Items for each block of 63 counters: sixteen bytes an item. With half of that, keys that were used once pass for ones
/// that were used twice too often.
const ITEMS: usize = 4;

/// In each block the first counter says in which period it was aged last. A block is aged when it is next looked at, which is
/// the same as all at once, without the pause. One that nobody looks at for 256 periods may be aged too little, and has only
/// forgotten keys in it.
pub(super) struct Sketch {
    blocks: Blocks,
    period: u8,
    samples: usize,
}

impl Sketch {
    pub(super) fn new() -> Self {
        Self {
            blocks: Blocks::new(ITEMS),
            period: 0,
            samples: 0,
        }
    }

    /// One step towards the size for so many items.
    pub(super) fn fit(&mut self, items: usize) {
        let period = self.period;
        self.blocks.fit(items, |stays, goes| {
            let mut goes = *goes;
            age(stays, period);
            age(&mut goes, period);
            for counter in 1..ROWS * ROW_COUNTERS {
                let more = count(stays, counter).max(count(&goes, counter));
                set_count(stays, counter, more);
            }
        });
    }

    /// A key of this hash was used; there are so many items.
    #[inline]
    pub(super) fn add(&mut self, hash: u32, items: usize) {
        let bits = scatter(hash);
        let block = self.blocks.of_mut(bits);
        age(block, self.period);
        let least = least(block, bits, hash);
        if least > MOST - USE {
            return;
        }
        // Of counters that several keys share, only those that could be this key's count go up (Estan and Varghese, 2002).
        for counter in counters(bits, hash) {
            let more = count(block, counter).max(least + USE);
            set_count(block, counter, more);
        }
        self.samples += 1;
        if self.samples >= SAMPLES * items.max(1) {
            self.samples /= 2;
            self.period = self.period.wrapping_add(1);
        }
    }

    /// How often, in parts of `USE`.
    pub(super) fn frequency(&self, hash: u32) -> u32 {
        let bits = scatter(hash);
        let block = self.blocks.of(bits);
        let periods = self.period.wrapping_sub(block[0] as u8);
        least(block, bits, hash) >> u32::from(periods).min(COUNTER_BITS as u32)
    }

    pub(super) fn charged_bytes(&self) -> usize {
        self.blocks.charged_bytes()
    }
}

/// A key's counter in each row. Which block it is comes from the low bits of `bits`, so these come from elsewhere.
#[inline]
fn counters(bits: u32, hash: u32) -> impl Iterator<Item = usize> {
    let choice = scatter(bits.rotate_left(16) ^ hash.wrapping_mul(0x9e37_79b1));
    (0..ROWS).map(move |row| {
        let chosen = (choice >> (8 * row)) as usize & 0xff;
        if row == 0 {
            // The first is the period.
            1 + chosen % (ROW_COUNTERS - 1)
        } else {
            row * ROW_COUNTERS + chosen % ROW_COUNTERS
        }
    })
}

#[inline]
fn least(block: &Block, bits: u32, hash: u32) -> u32 {
    counters(bits, hash)
        .map(|counter| count(block, counter))
        .min()
        .unwrap_or(0)
}

#[inline]
fn count(block: &Block, counter: usize) -> u32 {
    (block[counter / WORD_COUNTERS] >> (COUNTER_BITS * (counter % WORD_COUNTERS))) & MOST
}

#[inline]
fn set_count(block: &mut Block, counter: usize, count: u32) {
    let shift = COUNTER_BITS * (counter % WORD_COUNTERS);
    let word = &mut block[counter / WORD_COUNTERS];
    *word = (*word & !(MOST << shift)) | (count << shift);
}

/// Halves a block's counters once for each period since it was last looked at.
#[inline]
fn age(block: &mut Block, period: u8) {
    let periods = period.wrapping_sub(block[0] as u8);
    if periods == 0 {
        return;
    }
    for word in block.iter_mut() {
        for _ in 0..usize::from(periods).min(COUNTER_BITS) {
            *word = (*word >> 1) & 0x7f7f_7f7f;
        }
    }
    block[0] = (block[0] & !0xff) | u32::from(period);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Beside exact counts that are halved all at once, a sketch never says less.
        #[test]
        fn it_never_says_less_than_there_was(
            uses in prop::collection::vec((0u32..200, 1usize..60), 0..1500)
        ) {
            let mut sketch = Sketch::new();
            let mut exact: BTreeMap<u32, u32> = BTreeMap::new();
            for (number, items) in uses {
                let hash = scatter(number + 1) >> 2;
                for _ in 0..4 {
                    sketch.fit(items);
                }
                let before = sketch.period;
                sketch.add(hash, items);
                let count = exact.entry(hash).or_insert(0);
                if *count <= MOST - USE {
                    *count += USE;
                }
                if sketch.period != before {
                    for count in exact.values_mut() {
                        *count /= 2;
                    }
                }
                for (&hash, &count) in &exact {
                    prop_assert!(sketch.frequency(hash) >= count);
                }
            }
        }
    }

    #[test]
    fn few_keys_are_counted_exactly() {
        let mut sketch = Sketch::new();
        for _ in 0..100 {
            sketch.fit(1000);
        }
        for number in 1..=20u32 {
            for _ in 0..number {
                sketch.add(scatter(number), 1000);
            }
        }
        for number in 1..=20 {
            assert_eq!(
                sketch.frequency(scatter(number)),
                (number * USE).min(MOST / USE * USE)
            );
        }
        assert_eq!(sketch.frequency(scatter(1234)), 0);
    }

    #[test]
    fn old_uses_are_worth_half() {
        let mut sketch = Sketch::new();
        sketch.fit(2);
        for _ in 0..12 {
            sketch.add(5, 2);
        }
        assert_eq!(sketch.frequency(5), 12 * USE);
        for other in 0..8 {
            sketch.add(1000 + other, 2);
        }
        assert_eq!((sketch.period, sketch.frequency(5)), (1, 6 * USE));
    }

    /// With as many keys as there are items, each sampled some times, most counts are right.
    #[test]
    fn many_keys_are_counted_well() {
        let mut sketch = Sketch::new();
        for items in 1..=10_000 {
            sketch.fit(items);
        }
        for _ in 0..3 {
            for number in 0..10_000 {
                sketch.add(scatter(number) >> 2, 10_000);
            }
        }
        let exact = (0..10_000).filter(|&number| sketch.frequency(scatter(number) >> 2) == 3 * USE);
        let exact = exact.count();
        assert!(exact > 9_000, "{exact}");
    }
}
