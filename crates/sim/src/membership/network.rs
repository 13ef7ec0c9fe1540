//! The network between members: each datagram takes its time, some are lost, and some ways are cut. Nothing keeps an order.

use henge_cluster::testing::random::Random;
use std::collections::BTreeSet;

/// The fastest datagram, and what one takes longer in most cases.
const FASTEST_MS: u64 = 1;
const JITTER_MS: u64 = 4;
/// One in so many takes far longer.
const SLOW_ONES: u64 = 50;
const SLOW_MS: u64 = 60;
/// Of a thousand so many are lost.
const LOST: u64 = 20;

/// See the head of the file.
pub struct Network {
    random: Random,
    cuts: BTreeSet<(usize, usize)>,
}

impl Network {
    /// One without cuts.
    pub fn new(random: Random) -> Self {
        Self {
            random,
            cuts: BTreeSet::new(),
        }
    }

    /// Nothing gets from one member to another any more.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// All ways are open.
    pub fn mend(&mut self) {
        self.cuts.clear();
    }

    /// When a datagram arrives that is sent now, if it does.
    pub fn arrives(&mut self, now_ms: u64, from: usize, to: usize) -> Option<u64> {
        if self.random.happens(LOST) || self.cuts.contains(&(from, to)) {
            return None;
        }
        let slow_ms = if self.random.one_in(SLOW_ONES) {
            self.random.within(0, SLOW_MS)
        } else {
            0
        };
        Some(now_ms + FASTEST_MS + self.random.within(0, JITTER_MS) + slow_ms)
    }
}
