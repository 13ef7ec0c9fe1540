//! A list that knows its length: what the orders of several lists are made of.

use crate::arena::Handle;
use crate::links::{Links, List};

pub(super) struct Queue {
    list: List,
    len: usize,
}

impl Queue {
    pub(super) const EMPTY: Self = Self {
        list: List::EMPTY,
        len: 0,
    };

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The oldest.
    pub(super) fn head(&self) -> Option<Handle> {
        self.list.head()
    }

    /// The handles from the oldest on.
    pub(super) fn iter(&self, links: &impl Links) -> impl Iterator<Item = Handle> {
        self.list.iter(links)
    }

    /// Adds a handle as the newest.
    #[inline]
    pub(super) fn push(&mut self, links: &mut impl Links, handle: Handle) {
        self.list.push(links, handle);
        self.len += 1;
    }

    #[inline]
    pub(super) fn remove(&mut self, links: &mut impl Links, handle: Handle) {
        self.list.remove(links, handle);
        self.len -= 1;
    }

    /// Makes a handle the newest.
    #[inline]
    pub(super) fn touch(&mut self, links: &mut impl Links, handle: Handle) {
        self.list.touch(links, handle);
    }

    /// The record of a handle was copied, links included, to `new`.
    pub(super) fn moved(&mut self, links: &mut impl Links, new: Handle) {
        self.list.moved(links, new);
    }
}

/// The handle after this one, towards the newest.
pub(super) fn next(links: &impl Links, handle: Handle) -> Option<Handle> {
    let next = links.next(handle);
    (next != Handle::NONE).then_some(next)
}
