//! S3-FIFO (Yang and others, SOSP 2023): new records queue in a small FIFO of a tenth. What is used twice there moves on to
//! the main FIFO, and what is not is dropped and remembered as a ghost; a ghost that returns goes to the main queue at once.
//! The head of the main queue is dropped if it was not used since its last turn, and queues again if it was.

use super::ghost::Ghosts;
use super::queue::{Queue, next};
use super::{MAX_CANDIDATES, Policy, SECOND_CHANCES};
use crate::arena::Handle;
use crate::links::Links;

/// The small queue's share of the items.
const SMALL_SHARE: usize = 10;
/// Uses in the small queue that make a record move on to the main one.
const PROMOTING_USES: u32 = 2;
/// Uses that are counted: two bits.
const MOST_USES: u32 = 3;
/// How many a walk through the small queue looks at: what may not be dropped is new, and if so much of it is at the head then
/// so is the rest.
const SMALL_WALK: usize = MAX_CANDIDATES / 4;
const MAIN_WALK: usize = MAX_CANDIDATES - SMALL_WALK;

// The order's word: uses 2 | in the main queue 1 | hash 29.
const IN_MAIN: u32 = 1 << 2;
const HASH_SHIFT: u32 = 3;

pub(crate) struct S3Fifo {
    pub(super) small: Queue,
    pub(super) main: Queue,
    ghosts: Ghosts,
    /// Insertions since a record was last dropped for room.
    unopposed: usize,
}

impl S3Fifo {
    pub(crate) fn new() -> Self {
        Self {
            small: Queue::EMPTY,
            main: Queue::EMPTY,
            ghosts: Ghosts::new(),
            unopposed: usize::MAX,
        }
    }

    fn items(&self) -> usize {
        self.small.len() + self.main.len()
    }

    fn queue(&mut self, word: u32) -> &mut Queue {
        if word & IN_MAIN == 0 {
            &mut self.small
        } else {
            &mut self.main
        }
    }

    fn promote(&mut self, links: &mut impl Links, handle: Handle, uses: u32) {
        self.small.remove(links, handle);
        let hash = links.word(handle) >> HASH_SHIFT;
        links.set_word(handle, (hash << HASH_SHIFT) | IN_MAIN | uses);
        self.main.push(links, handle);
    }

    fn small_victim<L: Links>(
        &mut self,
        links: &mut L,
        may_drop: &mut impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle> {
        let mut place = self.small.head();
        for _ in 0..SMALL_WALK {
            let at = place?;
            place = next(links, at);
            if links.word(at) & MOST_USES >= PROMOTING_USES {
                self.promote(links, at, 0);
            } else if may_drop(links, at) {
                return Some(at);
            }
        }
        None
    }

    fn main_victim<L: Links>(
        &mut self,
        links: &mut L,
        may_drop: &mut impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle> {
        let mut place = self.main.head();
        for step in 0..MAIN_WALK {
            let at = place?;
            place = next(links, at);
            let word = links.word(at);
            if word & MOST_USES > 0 && step < SECOND_CHANCES {
                links.set_word(at, word - 1);
                self.main.touch(links, at);
                place = place.or(self.main.head());
            } else if may_drop(links, at) {
                return Some(at);
            }
        }
        None
    }
}

/// How many of the items are to be in the small queue.
fn small_share(items: usize) -> usize {
    (items / SMALL_SHARE).max(1)
}

/// How many of the items are to be in the main queue; also how many ghosts there are.
fn main_share(items: usize) -> usize {
    items.saturating_sub(small_share(items))
}

impl Policy for S3Fifo {
    fn insert(
        &mut self,
        links: &mut impl Links,
        handle: Handle,
        hash: u64,
        _deadline: Option<u64>,
    ) {
        let hash = (hash >> (32 + HASH_SHIFT)) as u32;
        let items = self.items() + 1;
        self.ghosts.fit(items);
        if self.ghosts.take(hash, main_share(items)) {
            links.set_word(handle, (hash << HASH_SHIFT) | IN_MAIN);
            self.main.push(links, handle);
        } else {
            links.set_word(handle, hash << HASH_SHIFT);
            self.small.push(links, handle);
        }
        self.unopposed = self.unopposed.saturating_add(1);
        // While the cache fills, what leaves the small queue need not be dropped. A whole queue's worth without a drop tells
        // that from records of changing size, for one of which several go and for the next none.
        let share = small_share(items);
        if self.small.len() > share
            && self.unopposed > share
            && let Some(oldest) = self.small.head()
        {
            let uses = links.word(oldest) & MOST_USES;
            self.promote(links, oldest, uses);
        }
    }

    #[inline]
    fn touch(&mut self, links: &mut impl Links, handle: Handle, _deadline: Option<u64>) {
        let word = links.word(handle);
        if word & MOST_USES < MOST_USES {
            links.set_word(handle, word + 1);
        }
    }

    fn remove(&mut self, links: &mut impl Links, handle: Handle, _deadline: Option<u64>) {
        let word = links.word(handle);
        self.queue(word).remove(links, handle);
        self.ghosts.fit(self.items());
    }

    fn moved(&mut self, links: &mut impl Links, _old: Handle, new: Handle, _deadline: Option<u64>) {
        let word = links.word(new);
        self.queue(word).moved(links, new);
    }

    fn evicted(&mut self, links: &impl Links, handle: Handle) {
        let word = links.word(handle);
        if word & IN_MAIN == 0 {
            let most = main_share(self.items());
            self.ghosts.insert(word >> HASH_SHIFT, most);
        }
        self.unopposed = 0;
    }

    fn victim<L: Links>(
        &mut self,
        links: &mut L,
        mut may_drop: impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle> {
        if self.main.len() > main_share(self.items()) {
            self.main_victim(links, &mut may_drop)
                .or_else(|| self.small_victim(links, &mut may_drop))
        } else {
            self.small_victim(links, &mut may_drop)
                .or_else(|| self.main_victim(links, &mut may_drop))
        }
    }

    fn charged_bytes(&self) -> usize {
        self.ghosts.charged_bytes()
    }
}
