//! The room that no shard holds. Shards draw on it under their own locks, so it is two counters; below zero they are a debt
//! that is collected later. The hot path only reads them.

use henge_engine::{Cause, Lender, Room};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// In `limit_items`: any number.
const UNLIMITED: u64 = u64::MAX;

/// See the head of the file.
pub(super) struct Pool {
    room: Apart,
    limit_bytes: AtomicU64,
    limit_items: AtomicU64,
    withheld: AtomicU64,
    /// There is a power of two of them, and each command asks for its share: a shift costs less than a division.
    shards_log2: u32,
}

/// What shards draw on, on cache lines of its own: every command reads what stands beside it.
#[repr(align(128))]
struct Apart {
    bytes: AtomicI64,
    items: AtomicI64,
}

impl Pool {
    pub(super) fn new(limit_bytes: u64, limit_items: Option<u64>, shards: u64) -> Self {
        Self {
            room: Apart {
                bytes: AtomicI64::new(signed(limit_bytes)),
                items: AtomicI64::new(limit_items.map_or(0, signed)),
            },
            limit_bytes: AtomicU64::new(limit_bytes),
            limit_items: AtomicU64::new(limit_items.unwrap_or(UNLIMITED)),
            withheld: AtomicU64::new(0),
            shards_log2: shards.ilog2(),
        }
    }

    pub(super) fn limit_bytes(&self) -> u64 {
        self.limit_bytes.load(Relaxed)
    }

    pub(super) fn limit_items(&self) -> Option<u64> {
        Some(self.limit_items.load(Relaxed)).filter(|&items| items != UNLIMITED)
    }

    pub(super) fn withheld(&self) -> u64 {
        self.withheld.load(Relaxed)
    }

    /// All the room that there is.
    pub(super) fn limit(&self) -> Room {
        Room {
            bytes: self.limit_bytes(),
            items: self.limit_items.load(Relaxed),
        }
    }

    /// What each of several shards may expect to have; nothing if there is only one, as nobody could lend to it.
    pub(super) fn fair(&self) -> Room {
        if self.shards_log2 == 0 {
            return Room::default();
        }
        Room {
            bytes: self.limit_bytes().saturating_sub(self.withheld()) >> self.shards_log2,
            items: self
                .limit_items()
                .map_or(0, |items| items >> self.shards_log2),
        }
    }

    /// Why bytes are short, if they are.
    pub(super) fn cause(&self) -> Cause {
        if self.withheld() > 0 {
            Cause::Pressure
        } else {
            Cause::Size
        }
    }

    /// What was lent beyond what there is.
    pub(super) fn debt(&self) -> Room {
        let owed = |counter: &AtomicI64| counter.load(Relaxed).min(0).unsigned_abs();
        Room {
            bytes: owed(&self.room.bytes),
            items: if self.limit_items().is_some() {
                owed(&self.room.items)
            } else {
                0
            },
        }
    }

    pub(super) fn give(&self, room: Room) {
        self.room.bytes.fetch_add(signed(room.bytes), Relaxed);
        self.room.items.fetch_add(signed(room.items), Relaxed);
    }

    /// Items that a shard holds without having drawn them.
    /// A shard has granted itself more than there may be: that is a debt.
    pub(super) fn overdraw(&self, room: Room) {
        if room != Room::default() {
            self.room.bytes.fetch_sub(signed(room.bytes), Relaxed);
            self.room.items.fetch_sub(signed(room.items), Relaxed);
        }
    }

    pub(super) fn charge_items(&self, items: u64) {
        self.room.items.fetch_sub(signed(items), Relaxed);
    }

    pub(super) fn set_limits(&self, bytes: u64, items: Option<u64>) {
        let before = self.limit_bytes.swap(bytes, Relaxed);
        self.room
            .bytes
            .fetch_add(signed(bytes) - signed(before), Relaxed);
        let before = self.limit_items.swap(items.unwrap_or(UNLIMITED), Relaxed);
        match (before, items) {
            (UNLIMITED, Some(items)) => self.room.items.store(signed(items), Relaxed),
            (before, Some(items)) => {
                self.room
                    .items
                    .fetch_add(signed(items) - signed(before), Relaxed);
            }
            (_, None) => {}
        }
    }

    pub(super) fn withhold(&self, bytes: u64) {
        let bytes = bytes.min(self.limit_bytes());
        let before = self.withheld.swap(bytes, Relaxed);
        self.room
            .bytes
            .fetch_add(signed(before) - signed(bytes), Relaxed);
    }
}

impl Lender for Pool {
    fn lend_bytes(&self, need: u64, wish: u64) -> u64 {
        take(&self.room.bytes, need, wish)
    }

    fn lend_items(&self, need: u64, wish: u64) -> u64 {
        take(&self.room.items, need, wish)
    }
}

fn take(counter: &AtomicI64, need: u64, wish: u64) -> u64 {
    let mut there = counter.load(Relaxed);
    loop {
        let given = wish.min(there.max(0).unsigned_abs());
        if given < need || given == 0 {
            return 0;
        }
        match counter.compare_exchange_weak(there, there - signed(given), Relaxed, Relaxed) {
            Ok(_) => return given,
            Err(now) => there = now,
        }
    }
}

/// No machine has 2^63 bytes; what is more is as good as that.
fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX / 4)
}
