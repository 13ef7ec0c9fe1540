//! W-TinyLFU (Einziger, Friedman and Manes, 2017): new records enter a small window in LRU order. What leaves it for want of
//! room meets the main area's next victim, and the one that was used more often of late stays; a sketch knows how often. The
//! main area is a segmented LRU: on probation until used again, then protected.

use super::queue::Queue;
use super::sketch::{Sketch, USE};
use super::{MAX_CANDIDATES, Policy};
use crate::arena::Handle;
use crate::links::Links;

/// The main area's share of the items, in percent.
const MAIN_PERCENT: usize = 99;
/// The share of the main area that is protected, in percent.
const PROTECTED_PERCENT: usize = 80;

/// Wins in a row after which a victim goes to the end of its line. With few, what comes in a scan or a loop would try itself
/// against everybody, and by the errors of the sketch win too often.
pub(super) const MOST_WINS: u32 = 512;

// The order's word: segment 2 | hash 30.
const WINDOW: u32 = 0;
const PROBATION: u32 = 1;
const PROTECTED: u32 = 2;
const SEGMENT: u32 = 3;
const HASH_SHIFT: u32 = 2;

pub(crate) struct WTinyLfu {
    /// The window, probation, the protected ones.
    pub(super) segments: [Queue; 3],
    sketch: Sketch,
    /// How often in a row a victim has won against what came.
    wins: u32,
}

impl WTinyLfu {
    pub(crate) fn new() -> Self {
        Self {
            segments: [Queue::EMPTY; 3],
            sketch: Sketch::new(),
            wins: 0,
        }
    }

    fn items(&self) -> usize {
        self.segments.iter().map(Queue::len).sum()
    }

    /// After very many wins in a row the victim goes to the end of its line. The sketch takes some keys for others that are
    /// used much; one of those at the head would win against everything that comes, and the main area would never change.
    fn defended(&mut self, links: &mut impl Links, victim: Handle) {
        self.wins += 1;
        if self.wins == MOST_WINS {
            let segment = links.word(victim) & SEGMENT;
            self.segments[segment as usize].touch(links, victim);
            self.wins = 0;
        }
    }

    fn len(&self, segment: u32) -> usize {
        self.segments[segment as usize].len()
    }

    /// Makes a record the newest of another segment.
    fn transfer(&mut self, links: &mut impl Links, handle: Handle, to: u32) {
        let word = links.word(handle);
        self.segments[(word & SEGMENT) as usize].remove(links, handle);
        links.set_word(handle, (word & !SEGMENT) | to);
        self.segments[to as usize].push(links, handle);
    }

    /// Moves the oldest of a segment that is over its share to probation.
    fn trim(&mut self, links: &mut impl Links, segment: u32, share: usize) {
        if self.len(segment) > share
            && let Some(oldest) = self.segments[segment as usize].head()
        {
            self.transfer(links, oldest, PROBATION);
        }
    }
}

/// How many of the items are to be in the window; one at least.
fn window_share(items: usize) -> usize {
    items - items * MAIN_PERCENT / 100
}

/// How many of the items are to be protected.
fn protected_share(items: usize) -> usize {
    (items - window_share(items)) * PROTECTED_PERCENT / 100
}

impl Policy for WTinyLfu {
    fn insert(
        &mut self,
        links: &mut impl Links,
        handle: Handle,
        hash: u64,
        _deadline: Option<u64>,
    ) {
        let hash = (hash >> (32 + HASH_SHIFT)) as u32;
        let items = self.items() + 1;
        self.sketch.fit(items);
        self.sketch.add(hash, items);
        links.set_word(handle, (hash << HASH_SHIFT) | WINDOW);
        self.segments[WINDOW as usize].push(links, handle);
        self.trim(links, WINDOW, window_share(items));
    }

    #[inline]
    fn touch(&mut self, links: &mut impl Links, handle: Handle, _deadline: Option<u64>) {
        let word = links.word(handle);
        let items = self.items();
        // In the window, uses that follow closely are one burst, and say little of how often a key will be wanted.
        if word & SEGMENT != WINDOW {
            self.sketch.add(word >> HASH_SHIFT, items);
        }
        match word & SEGMENT {
            PROBATION => {
                self.transfer(links, handle, PROTECTED);
                self.trim(links, PROTECTED, protected_share(items));
            }
            segment => self.segments[segment as usize].touch(links, handle),
        }
    }

    fn remove(&mut self, links: &mut impl Links, handle: Handle, _deadline: Option<u64>) {
        let word = links.word(handle);
        self.segments[(word & SEGMENT) as usize].remove(links, handle);
        self.sketch.fit(self.items());
    }

    fn moved(&mut self, links: &mut impl Links, _old: Handle, new: Handle, _deadline: Option<u64>) {
        let word = links.word(new);
        self.segments[(word & SEGMENT) as usize].moved(links, new);
    }

    fn victim<L: Links>(
        &mut self,
        links: &mut L,
        mut may_drop: impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle> {
        let items = self.items();
        // What is about to come needs a place in the window.
        let candidate = self.segments[WINDOW as usize]
            .head()
            .filter(|_| self.len(WINDOW) >= window_share(items));
        if let Some(candidate) = candidate {
            self.transfer(links, candidate, PROBATION);
        }
        self.trim(links, PROTECTED, protected_share(items));
        let [window, probation, protected] = &self.segments;
        let view = &*links;
        let victim = probation
            .iter(view)
            .chain(protected.iter(view))
            .chain(window.iter(view))
            .filter(|&at| Some(at) != candidate)
            .take(MAX_CANDIDATES - 1)
            .find(|&at| may_drop(view, at));
        let candidate = candidate.filter(|&at| may_drop(links, at));
        let (Some(candidate), Some(victim)) = (candidate, victim) else {
            return candidate.or(victim);
        };
        let frequency = |at| self.sketch.frequency(links.word(at) >> HASH_SHIFT);
        // By a whole use: less is only what ageing between the last use of one and the last of the other has made.
        if frequency(candidate) >= frequency(victim) + USE {
            self.wins = 0;
            Some(victim)
        } else {
            self.defended(links, victim);
            Some(candidate)
        }
    }

    fn charged_bytes(&self) -> usize {
        self.sketch.charged_bytes()
    }
}
