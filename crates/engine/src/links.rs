//! Doubly linked lists whose links lie in the records themselves: eight bytes a record, and O(1) from a handle. The list
//! knows no records, only something that reads and writes a handle's links.

use crate::arena::Handle;

/// Where the links of a handle lie, and what else an eviction order may keep beside them.
pub(crate) trait Links {
    /// The neighbour nearer to the head.
    fn previous(&self, handle: Handle) -> Handle;
    /// Sets the neighbour nearer to the head.
    fn set_previous(&mut self, handle: Handle, previous: Handle);
    /// The neighbour nearer to the tail.
    fn next(&self, handle: Handle) -> Handle;
    /// Sets the neighbour nearer to the tail.
    fn set_next(&mut self, handle: Handle, next: Handle);
    /// The order's own word, for orders that ask for one.
    fn word(&self, handle: Handle) -> u32;
    /// Sets the order's own word.
    fn set_word(&mut self, handle: Handle, word: u32);
}

/// A list from its head, the oldest, to its tail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    head: Handle,
    tail: Handle,
}

impl List {
    pub(crate) const EMPTY: Self = Self {
        head: Handle::NONE,
        tail: Handle::NONE,
    };

    pub(crate) fn head(self) -> Option<Handle> {
        (self.head != Handle::NONE).then_some(self.head)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.head == Handle::NONE
    }

    /// The handles from the head on.
    pub(crate) fn iter(self, links: &impl Links) -> impl Iterator<Item = Handle> {
        std::iter::successors(self.head(), |&handle| {
            let next = links.next(handle);
            (next != Handle::NONE).then_some(next)
        })
    }

    #[inline]
    pub(crate) fn push(&mut self, links: &mut impl Links, handle: Handle) {
        links.set_previous(handle, self.tail);
        links.set_next(handle, Handle::NONE);
        if self.tail == Handle::NONE {
            self.head = handle;
        } else {
            links.set_next(self.tail, handle);
        }
        self.tail = handle;
    }

    #[inline]
    pub(crate) fn remove(&mut self, links: &mut impl Links, handle: Handle) {
        let (previous, next) = (links.previous(handle), links.next(handle));
        self.join(links, previous, next);
    }

    /// Makes the one end or the other, or both, of a gap meet.
    #[inline]
    fn join(&mut self, links: &mut impl Links, previous: Handle, next: Handle) {
        if previous == Handle::NONE {
            self.head = next;
        } else {
            links.set_next(previous, next);
        }
        if next == Handle::NONE {
            self.tail = previous;
        } else {
            links.set_previous(next, previous);
        }
    }

    /// Moves a handle to the tail.
    #[inline]
    pub(crate) fn touch(&mut self, links: &mut impl Links, handle: Handle) {
        if self.tail != handle {
            self.remove(links, handle);
            self.push(links, handle);
        }
    }

    /// The record of `old` was copied, links included, to `new`: its neighbours are told.
    pub(crate) fn moved(&mut self, links: &mut impl Links, new: Handle) {
        let (previous, next) = (links.previous(new), links.next(new));
        if previous == Handle::NONE {
            self.head = new;
        } else {
            links.set_next(previous, new);
        }
        if next == Handle::NONE {
            self.tail = new;
        } else {
            links.set_previous(next, new);
        }
    }
}
