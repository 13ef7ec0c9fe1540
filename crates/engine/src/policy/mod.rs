//! Eviction orders: which record to drop when there is no room. An order sees handles, its links and deadlines; never a
//! key or a value, and it drops nothing by itself.

mod blocks;
mod ghost;
mod lfu;
mod lru;
mod queue;
mod random;
mod ranked;
mod s3fifo;
mod sieve;
mod sketch;
mod ttl;
mod wtinylfu;

#[cfg(test)]
mod tests;

use crate::arena::Handle;
use crate::links::Links;
use std::fmt;

/// How many candidates an order may look at for one that may be dropped. Records above the commit are few and new, but for those of a
/// partition that is being filled, where the shard finds others (`Shard::any_victim`); a walk past them has to end.
const MAX_CANDIDATES: usize = 1024;

/// How many records in use an order may pass over for one victim, where its paper passes over all of them: in a cache of a
/// million hot items that would be a pause of tenths of a second. The next victim's walk goes on where this one ended.
const SECOND_CHANCES: usize = MAX_CANDIDATES / 2;

/// An eviction order. Every handle is inserted once, and removed before its record is freed.
trait Policy {
    /// A record was created; the hash is its key's, the deadline in milliseconds since the Unix epoch. No other call has the
    /// hash, as a read should not have to compute it: an order that needs it later keeps what it needs.
    fn insert(&mut self, links: &mut impl Links, handle: Handle, hash: u64, deadline: Option<u64>);
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
    /// A victim is dropped for room; its removal follows. Deletes and expiry do not pass here.
    fn evicted(&mut self, _links: &impl Links, _handle: Handle) {}
    /// The first record in the order that may be dropped. It stays in the order until it is removed.
    fn victim<L: Links>(
        &mut self,
        links: &mut L,
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
    /// S3-FIFO: a small queue for what is new, a main queue for what came back.
    S3Fifo,
    /// SIEVE: one queue, and a hand that passes over what was used since it last came by.
    Sieve,
    /// W-TinyLFU: a small window by LRU, and behind it what is used most of late.
    WTinyLfu,
}

impl PolicyKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Lru,
        Self::Lfu,
        Self::Ttl,
        Self::Random,
        Self::S3Fifo,
        Self::Sieve,
        Self::WTinyLfu,
    ];

    /// The name in configuration and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::Ttl => "ttl",
            Self::Random => "random",
            Self::S3Fifo => "s3fifo",
            Self::Sieve => "sieve",
            Self::WTinyLfu => "wtinylfu",
        }
    }

    /// Whether the order needs a word of its own in each record.
    pub(crate) const fn has_word(self) -> bool {
        matches!(self, Self::Lfu | Self::S3Fifo | Self::WTinyLfu)
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
    S3Fifo(s3fifo::S3Fifo),
    Sieve(sieve::Sieve),
    WTinyLfu(wtinylfu::WTinyLfu),
}

macro_rules! each_order {
    ($self:expr, $order:ident => $call:expr) => {
        match $self {
            Order::Lru($order) => $call,
            Order::Lfu($order) => $call,
            Order::Ttl($order) => $call,
            Order::Random($order) => $call,
            Order::S3Fifo($order) => $call,
            Order::Sieve($order) => $call,
            Order::WTinyLfu($order) => $call,
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
            PolicyKind::S3Fifo => Self::S3Fifo(s3fifo::S3Fifo::new()),
            PolicyKind::Sieve => Self::Sieve(sieve::Sieve::new()),
            PolicyKind::WTinyLfu => Self::WTinyLfu(wtinylfu::WTinyLfu::new()),
        }
    }

    pub(crate) fn insert(
        &mut self,
        links: &mut impl Links,
        handle: Handle,
        hash: u64,
        deadline: Option<u64>,
    ) {
        each_order!(self, order => order.insert(links, handle, hash, deadline));
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

    pub(crate) fn evicted(&mut self, links: &impl Links, handle: Handle) {
        each_order!(self, order => order.evicted(links, handle));
    }

    pub(crate) fn victim<L: Links>(
        &mut self,
        links: &mut L,
        may_drop: impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle> {
        each_order!(self, order => order.victim(links, may_drop))
    }

    pub(crate) fn charged_bytes(&self) -> usize {
        each_order!(self, order => order.charged_bytes())
    }
}
