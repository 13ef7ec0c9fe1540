//! The record that expires first goes first, however much it is used; of several the one not used for longest. What
//! never expires goes last, by LRU.

use super::Policy;
use super::ranked::Ranked;
use crate::arena::Handle;
use crate::links::Links;

pub(crate) struct Ttl {
    by_deadline: Ranked,
}

impl Ttl {
    pub(crate) fn new() -> Self {
        Self {
            by_deadline: Ranked::default(),
        }
    }
}

/// What never expires comes after every deadline.
fn rank(deadline: Option<u64>) -> u64 {
    deadline.unwrap_or(u64::MAX)
}

impl Policy for Ttl {
    fn insert(
        &mut self,
        links: &mut impl Links,
        handle: Handle,
        _hash: u64,
        deadline: Option<u64>,
    ) {
        self.by_deadline.push(links, handle, rank(deadline));
    }

    fn touch(&mut self, links: &mut impl Links, handle: Handle, deadline: Option<u64>) {
        self.by_deadline.touch(links, handle, rank(deadline));
    }

    fn remove(&mut self, links: &mut impl Links, handle: Handle, deadline: Option<u64>) {
        self.by_deadline.remove(links, handle, rank(deadline));
    }

    fn moved(&mut self, links: &mut impl Links, _old: Handle, new: Handle, deadline: Option<u64>) {
        self.by_deadline.moved(links, new, rank(deadline));
    }

    fn retimed(
        &mut self,
        links: &mut impl Links,
        handle: Handle,
        old: Option<u64>,
        new: Option<u64>,
    ) {
        self.by_deadline.remove(links, handle, rank(old));
        self.by_deadline.push(links, handle, rank(new));
    }

    fn victim<L: Links>(
        &mut self,
        links: &mut L,
        may_drop: impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle> {
        self.by_deadline.first(links, may_drop)
    }

    fn charged_bytes(&self) -> usize {
        self.by_deadline.charged_bytes()
    }
}
