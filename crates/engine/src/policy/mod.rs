//! Eviction orders: which record to drop when there is no room. An order sees handles, its links and deadlines; never a
//! key or a value, and it drops nothing by itself.

mod lfu;
mod lru;
mod random;
mod ranked;
mod ttl;

#[cfg(test)]
mod tests;

use crate::arena::Handle;
use crate::links::Links;
use std::fmt;

/// How many candidates an order may look at for one that may be dropped. Records above the commit are few and new; a walk
/// past them has to end.
const MAX_CANDIDATES: usize = 1024;

/// An eviction order. Every handle is inserted once, and removed before its record is freed.
trait Policy {
    /// A record was created; the deadline is in milliseconds since the Unix epoch.
    fn insert(&mut self, links: &mut impl Links, handle: Handle, deadline: Option<u64>);
    /// A record was read or overwritten.
    fn touch(&mut self, links: &mut impl Links, handle: Handle, deadline: Option<u64>);
    /// A record is about to be freed, or leaves the order.
    fn remove(&mut self, links: &mut impl Links, handle: Handle, deadline: Option<u64>);
    /// A record was copied, links and word included, to a new handle.
    fn moved(&mut self, links: &mut impl Links, old: Handle, new: Handle, deadline: Option<u64>);
    /// A record's deadline has changed.
    fn retimed(
        &mut self,
        _links: &mut impl Links,
        _handle: Handle,
        _old: Option<u64>,
        _new: Option<u64>,
    ) {
    }
    /// The first record in the order that may be dropped.
    fn victim<L: Links>(
        &mut self,
        links: &L,
        may_drop: impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle>;
    /// Memory beside the records, in bytes.
    fn charged_bytes(&self) -> usize {
        0
    }
}

/// The name of an eviction order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum PolicyKind {
    /// The least recently used goes first.
    #[default]
    Lru,
    /// The least frequently used goes first, of several the one not used for longest. Counts do not age.
    Lfu,
    /// The one that expires first goes first; what never expires goes last, by LRU.
    Ttl,
    /// Any.
    Random,
}

impl PolicyKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lru, Self::Lfu, Self::Ttl, Self::Random];

    /// The name in configuration and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::Ttl => "ttl",
            Self::Random => "random",
        }
    }

    /// Whether the order needs a word of its own in each record.
    pub(crate) const fn has_word(self) -> bool {
        matches!(self, Self::Lfu)
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The order that a shard was given. A match costs less than a call through a table, and this is on the path of a GET.
pub(crate) enum Order {
    Lru(lru::Lru),
    Lfu(lfu::Lfu),
    Ttl(ttl::Ttl),
    Random(random::Random),
}

macro_rules! each_order {
    ($self:expr, $order:ident => $call:expr) => {
        match $self {
            Order::Lru($order) => $call,
            Order::Lfu($order) => $call,
            Order::Ttl($order) => $call,
            Order::Random($order) => $call,
        }
    };
}

impl Order {
    pub(crate) fn new(kind: PolicyKind, seed: u64) -> Self {
        match kind {
            PolicyKind::Lru => Self::Lru(lru::Lru::new()),
            PolicyKind::Lfu => Self::Lfu(lfu::Lfu::new()),
            PolicyKind::Ttl => Self::Ttl(ttl::Ttl::new()),
            PolicyKind::Random => Self::Random(random::Random::new(seed)),
        }
    }

    pub(crate) fn insert(&mut self, links: &mut impl Links, handle: Handle, deadline: Option<u64>) {
        each_order!(self, order => order.insert(links, handle, deadline));
    }

    #[inline]
    pub(crate) fn touch(&mut self, links: &mut impl Links, handle: Handle, deadline: Option<u64>) {
        each_order!(self, order => order.touch(links, handle, deadline));
    }

    pub(crate) fn remove(&mut self, links: &mut impl Links, handle: Handle, deadline: Option<u64>) {
        each_order!(self, order => order.remove(links, handle, deadline));
    }

    pub(crate) fn moved(
        &mut self,
        links: &mut impl Links,
        old: Handle,
        new: Handle,
        deadline: Option<u64>,
    ) {
        each_order!(self, order => order.moved(links, old, new, deadline));
    }

    pub(crate) fn retimed(
        &mut self,
        links: &mut impl Links,
        handle: Handle,
        old: Option<u64>,
        new: Option<u64>,
    ) {
        each_order!(self, order => order.retimed(links, handle, old, new));
    }

    pub(crate) fn victim<L: Links>(
        &mut self,
        links: &L,
        may_drop: impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle> {
        each_order!(self, order => order.victim(links, may_drop))
    }

    pub(crate) fn charged_bytes(&self) -> usize {
        each_order!(self, order => order.charged_bytes())
    }
}
