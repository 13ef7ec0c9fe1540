//! What a shard may charge. A shard is granted bytes and items, draws more from whoever lends, and never charges more
//! than it was granted; who lends, and how shards share, is not decided here.

use crate::shard::Cause;

/// Something that a shard can draw room from while it holds its own lock; it must not need another.
pub trait Lender {
    /// Gives up to `wish` bytes, and 0 rather than less than `need`.
    fn lend_bytes(&self, need: u64, wish: u64) -> u64;
    /// Gives up to `wish` items, and 0 rather than less than `need`.
    fn lend_items(&self, need: u64, wish: u64) -> u64;
}

/// Nothing to draw from.
pub struct NoLender;

impl Lender for NoLender {
    fn lend_bytes(&self, _need: u64, _wish: u64) -> u64 {
        0
    }

    fn lend_items(&self, _need: u64, _wish: u64) -> u64 {
        0
    }
}

/// Room for records: what a shard was granted, what it is short of, what it gives up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Room {
    /// Bytes of memory, as the allocator takes them.
    pub bytes: u64,
    /// Live items.
    pub items: u64,
}

impl std::ops::AddAssign for Room {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.items += other.items;
    }
}

/// What surrounds one call into a shard.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    /// Now, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Where room may be drawn from.
    pub lender: &'a (dyn Lender + Sync),
    /// A shard's fair share. With less than half of it granted, and nothing lent, a shard says what it is short of before
    /// it evicts its own; 0 makes it evict at once.
    pub fair: Room,
    /// The whole cache's room, which no record may exceed.
    pub limit: Room,
    /// Why bytes are short, if they are: for the count of evictions.
    pub cause: Cause,
}
