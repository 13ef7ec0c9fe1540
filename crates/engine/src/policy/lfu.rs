//! The least frequently used record goes first, of several the one not used for longest. Exact; counts do not age. The
//! count is the order's word in the record.

use super::Policy;
use super::ranked::Ranked;
use crate::arena::Handle;
use crate::links::Links;

pub(crate) struct Lfu {
    by_count: Ranked,
}

impl Lfu {
    pub(crate) fn new() -> Self {
        Self {
            by_count: Ranked::default(),
        }
    }
}

impl Policy for Lfu {
    fn insert(
        &mut self,
        links: &mut impl Links,
        handle: Handle,
        _hash: u64,
        _deadline: Option<u64>,
    ) {
        links.set_word(handle, 1);
        self.by_count.push(links, handle, 1);
    }

    fn touch(&mut self, links: &mut impl Links, handle: Handle, _deadline: Option<u64>) {
        let count = links.word(handle);
        let more = count.saturating_add(1);
        if more == count {
            self.by_count.touch(links, handle, count.into());
            return;
        }
        self.by_count.remove(links, handle, count.into());
        links.set_word(handle, more);
        self.by_count.push(links, handle, more.into());
    }

    fn remove(&mut self, links: &mut impl Links, handle: Handle, _deadline: Option<u64>) {
        let count = links.word(handle);
        self.by_count.remove(links, handle, count.into());
    }

    fn moved(&mut self, links: &mut impl Links, _old: Handle, new: Handle, _deadline: Option<u64>) {
        let count = links.word(new);
        self.by_count.moved(links, new, count.into());
    }

    fn victim<L: Links>(
        &mut self,
        links: &mut L,
        may_drop: impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle> {
        self.by_count.first(links, may_drop)
    }

    fn charged_bytes(&self) -> usize {
        self.by_count.charged_bytes()
    }
}
