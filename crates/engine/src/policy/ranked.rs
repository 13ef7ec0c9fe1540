//! Lists in the order of a rank: what LFU and TTL have in common. Within a rank the record not used for longest comes
//! first. O(log n) in the number of ranks in use.

use super::MAX_CANDIDATES;
use crate::arena::Handle;
use crate::links::{Links, List};
use std::collections::BTreeMap;

/// What an entry of the map costs: its key and list, and the slack of B-tree nodes that are two thirds full.
const ENTRY_BYTES: usize = (size_of::<u64>() + size_of::<List>()) * 3 / 2;

#[derive(Default)]
pub(super) struct Ranked {
    lists: BTreeMap<u64, List>,
}

impl Ranked {
    pub(super) fn push(&mut self, links: &mut impl Links, handle: Handle, rank: u64) {
        self.lists
            .entry(rank)
            .or_insert(List::EMPTY)
            .push(links, handle);
    }

    pub(super) fn remove(&mut self, links: &mut impl Links, handle: Handle, rank: u64) {
        let list = self.list(rank);
        list.remove(links, handle);
        if list.is_empty() {
            self.lists.remove(&rank);
        }
    }

    pub(super) fn touch(&mut self, links: &mut impl Links, handle: Handle, rank: u64) {
        self.list(rank).touch(links, handle);
    }

    pub(super) fn moved(&mut self, links: &mut impl Links, new: Handle, rank: u64) {
        self.list(rank).moved(links, new);
    }

    pub(super) fn first<L: Links>(
        &self,
        links: &L,
        mut may_drop: impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle> {
        self.lists
            .values()
            .flat_map(|list| list.iter(links))
            .take(MAX_CANDIDATES)
            .find(|&handle| may_drop(links, handle))
    }

    pub(super) fn charged_bytes(&self) -> usize {
        self.lists.len() * ENTRY_BYTES
    }

    fn list(&mut self, rank: u64) -> &mut List {
        self.lists
            .get_mut(&rank)
            .expect("a handle is in the list of its rank")
    }
}
