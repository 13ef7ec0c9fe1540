//! The least recently used record goes first. Exact, and O(1) for everything.

use super::{MAX_CANDIDATES, Policy};
use crate::arena::Handle;
use crate::links::{Links, List};

pub(crate) struct Lru {
    list: List,
}

impl Lru {
    pub(crate) fn new() -> Self {
        Self { list: List::EMPTY }
    }
}

impl Policy for Lru {
    fn insert(
        &mut self,
        links: &mut impl Links,
        handle: Handle,
        _hash: u64,
        _deadline: Option<u64>,
    ) {
        self.list.push(links, handle);
    }

    #[inline]
    fn touch(&mut self, links: &mut impl Links, handle: Handle, _deadline: Option<u64>) {
        self.list.touch(links, handle);
    }

    fn remove(&mut self, links: &mut impl Links, handle: Handle, _deadline: Option<u64>) {
        self.list.remove(links, handle);
    }

    fn moved(&mut self, links: &mut impl Links, _old: Handle, new: Handle, _deadline: Option<u64>) {
        self.list.moved(links, new);
    }

    fn victim<L: Links>(
        &mut self,
        links: &mut L,
        mut may_drop: impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle> {
        self.list
            .iter(links)
            .take(MAX_CANDIDATES)
            .find(|&handle| may_drop(links, handle))
    }
}
