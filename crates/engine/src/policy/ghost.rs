//! What S3-FIFO remembers of records that it has let go: sixteen bits of a hash and when it was, in blocks found by the
//! hash (section 4.2 of the paper). It forgets by age, and the oldest of a block that is full; a stranger passes for a
//! ghost once in some ten thousand times.

use super::blocks::{Block, Blocks, scatter};

/// Ages in a ghost's life, at least: with more ghosts than this a tick of the clock stands for several. With fewer their
/// number is exact. Far fewer than the 65,536 ages that can be told apart, so that none grows young again before its
/// place in the block is needed.
const AGES: usize = 1024;
const TIME_SHIFT: u32 = 16;

/// Items for each block of sixteen words: eight bytes an item.
const ITEMS: usize = 8;

pub(super) struct Ghosts {
    /// Of each word the upper half is a time, the lower a part of the hash that is never 0; 0 is no ghost.
    blocks: Blocks,
    now: u16,
    /// Ghosts of this tick.
    ticked: usize,
}

impl Ghosts {
    pub(super) fn new() -> Self {
        Self {
            blocks: Blocks::new(ITEMS),
            now: 0,
            ticked: 0,
        }
    }

    /// One step towards the size for so many items.
    pub(super) fn fit(&mut self, items: usize) {
        let now = self.now;
        self.blocks.fit(items, |stays, goes| {
            for (stay, &go) in stays.iter_mut().zip(goes) {
                if *stay == 0 || (go != 0 && age(now, go) < age(now, *stay)) {
                    *stay = go;
                }
            }
        });
    }

    /// Remembers a hash. There are to be about `most` ghosts.
    pub(super) fn insert(&mut self, hash: u32, most: usize) {
        let now = self.now;
        let block = self.blocks.of_mut(scatter(hash));
        let place = find(block, hash).unwrap_or_else(|| {
            let rank = |&place: &usize| match block[place] {
                0 => u32::MAX,
                ghost => age(now, ghost).into(),
            };
            (0..block.len()).max_by_key(rank).unwrap_or(0)
        });
        block[place] = (u32::from(now) << TIME_SHIFT) | tag(hash);
        self.ticked += 1;
        if self.ticked >= step(most) {
            self.ticked = 0;
            self.now = now.wrapping_add(1);
        }
    }

    /// Whether a hash is among the last `most` that were let go; forgets it.
    pub(super) fn take(&mut self, hash: u32, most: usize) -> bool {
        let now = self.now;
        let block = self.blocks.of_mut(scatter(hash));
        let Some(place) = find(block, hash) else {
            return false;
        };
        let ghost = std::mem::take(&mut block[place]);
        usize::from(age(now, ghost)) <= most / step(most)
    }

    pub(super) fn charged_bytes(&self) -> usize {
        self.blocks.charged_bytes()
    }
}

fn tag(hash: u32) -> u32 {
    (hash & 0xffff).max(1)
}

fn find(block: &Block, hash: u32) -> Option<usize> {
    block.iter().position(|ghost| ghost & 0xffff == tag(hash))
}

fn age(now: u16, ghost: u32) -> u16 {
    now.wrapping_sub((ghost >> TIME_SHIFT) as u16)
}

/// Ghosts in a tick.
fn step(most: usize) -> usize {
    (most / AGES).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash for each number, all of them apart in their lower half up to 65,535.
    fn hash(number: u32) -> u32 {
        (scatter(number) << 16) | number
    }

    #[test]
    fn the_last_ones_are_remembered_and_older_ones_are_not() {
        for (items, most) in [(10, 9), (100, 90), (1000, 900), (20_000, 18_000)] {
            let mut ghosts = Ghosts::new();
            for _ in 0..items {
                ghosts.fit(items);
            }
            let last = 3 * most as u32;
            for number in 1..=last {
                ghosts.insert(hash(number), most);
            }
            let mut forgotten = 0;
            for number in 1..=last {
                let since = (last - number) as usize;
                let there = ghosts.take(hash(number), most);
                // A tick is at most a thousandth of them.
                if since > most + most / AGES {
                    assert!(!there, "{number} of {last}, {most}");
                } else if since < most && !there {
                    forgotten += 1;
                }
                assert!(!ghosts.take(hash(number), most), "it is forgotten");
            }
            // Blocks overflow now and then, more so in the middle of a round.
            assert!(forgotten * 20 < most, "{forgotten} of {most}");
        }
    }

    #[test]
    fn a_stranger_is_no_ghost() {
        let mut ghosts = Ghosts::new();
        for _ in 0..1000 {
            ghosts.fit(1000);
        }
        for number in 1..=900 {
            ghosts.insert(scatter(number), 900);
        }
        let strangers = (10_000..60_000).filter(|&number| ghosts.take(scatter(number), 900));
        // Eight ghosts in a block, of 65,536 tags: six of 50,000, and the odds of thirty are none.
        assert!(strangers.count() < 30);
    }
}
