//! SIEVE (Zhang and others, NSDI 2024): one queue in the order of arrival, a mark on what was used, and a hand that walks
//! from the oldest to the newest, takes marks away and drops the first record without one. The mark is the top bit of a
//! link, so that a record costs no more than under LRU, and a hit on a marked record writes nothing.

use super::queue::{Queue, next};
use super::{MAX_CANDIDATES, Policy, SECOND_CHANCES};
use crate::arena::Handle;
use crate::links::Links;

/// Handles leave the top bit of a link free; without it, none is named by all other bits, where no block can begin: it is
/// the last granule of the last segment.
const MARK: u32 = 1 << 31;

pub(crate) struct Sieve {
    pub(super) queue: Queue,
    /// Where the next walk begins; the oldest if there is none.
    hand: Option<Handle>,
}

impl Sieve {
    pub(crate) fn new() -> Self {
        Self {
            queue: Queue::EMPTY,
            hand: None,
        }
    }
}

/// Links that keep the mark in the previous link where it is.
struct Marked<'a, L>(&'a mut L);

impl<L: Links> Marked<'_, L> {
    fn is_marked(&self, handle: Handle) -> bool {
        self.0.previous(handle).0 & MARK != 0
    }

    fn mark(&mut self, handle: Handle) {
        let link = self.0.previous(handle).0;
        if link & MARK == 0 {
            self.0.set_previous(handle, Handle(link | MARK));
        }
    }

    fn unmark(&mut self, handle: Handle) {
        let link = self.0.previous(handle).0;
        self.0.set_previous(handle, Handle(link & !MARK));
    }
}

impl<L: Links> Links for Marked<'_, L> {
    fn previous(&self, handle: Handle) -> Handle {
        let link = self.0.previous(handle).0 & !MARK;
        if link == Handle::NONE.0 & !MARK {
            Handle::NONE
        } else {
            Handle(link)
        }
    }

    fn set_previous(&mut self, handle: Handle, previous: Handle) {
        let mark = self.0.previous(handle).0 & MARK;
        self.0
            .set_previous(handle, Handle((previous.0 & !MARK) | mark));
    }

    fn next(&self, handle: Handle) -> Handle {
        self.0.next(handle)
    }

    fn set_next(&mut self, handle: Handle, next: Handle) {
        self.0.set_next(handle, next);
    }

    fn word(&self, handle: Handle) -> u32 {
        self.0.word(handle)
    }

    fn set_word(&mut self, handle: Handle, word: u32) {
        self.0.set_word(handle, word);
    }
}

impl Policy for Sieve {
    fn insert(
        &mut self,
        links: &mut impl Links,
        handle: Handle,
        _hash: u64,
        _deadline: Option<u64>,
    ) {
        let links = &mut Marked(links);
        self.queue.push(links, handle);
        links.unmark(handle);
    }

    #[inline]
    fn touch(&mut self, links: &mut impl Links, handle: Handle, _deadline: Option<u64>) {
        Marked(links).mark(handle);
    }

    fn remove(&mut self, links: &mut impl Links, handle: Handle, _deadline: Option<u64>) {
        let links = &mut Marked(links);
        if self.hand == Some(handle) {
            self.hand = next(links, handle);
        }
        self.queue.remove(links, handle);
    }

    fn moved(&mut self, links: &mut impl Links, old: Handle, new: Handle, _deadline: Option<u64>) {
        if self.hand == Some(old) {
            self.hand = Some(new);
        }
        self.queue.moved(&mut Marked(links), new);
    }

    fn victim<L: Links>(
        &mut self,
        links: &mut L,
        mut may_drop: impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle> {
        // Once around takes the marks, and a second time looks at everything without one.
        for step in 0..MAX_CANDIDATES.min(2 * self.queue.len()) {
            let at = self.hand.or(self.queue.head())?;
            let marked = Marked(&mut *links);
            if marked.is_marked(at) && step < SECOND_CHANCES {
                Marked(&mut *links).unmark(at);
            } else if may_drop(links, at) {
                // The hand moves on when it is removed.
                self.hand = Some(at);
                return Some(at);
            }
            self.hand = next(links, at);
        }
        None
    }
}
