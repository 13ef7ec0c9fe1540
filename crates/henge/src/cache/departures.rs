//! What a cache remembers of keys that left: how much room that has, and what it says of one. What is remembered is each shard's.

use std::sync::atomic::Ordering::Relaxed;

use henge_engine::{Absence, Cause, Unexplained};
use henge_wire::Partition;

use super::{Cache, STEPS, Seat};

/// This part of the limit remembers what left: with values of half a KiB a fingerprint for every second one.
const DEPARTURES_SHARE: u64 = 128;

impl Cache {
    /// Remembers from now on why keys leave, in a part of the limit, or does not.
    pub fn remember_departures(&self, remembers: bool) {
        let bytes = if remembers {
            self.departures_bytes()
        } else {
            0
        };
        if self.departures.swap(bytes, Relaxed) == bytes {
            return;
        }
        for slot in &self.shards {
            let before = slot.shard.lock().remember_departures(bytes);
            drop(before);
            // It takes its room from the items.
            let shed = |seat: &mut Seat| {
                let granted = seat.granted().bytes;
                seat.shed(granted, Cause::Size, STEPS)
            };
            while !slot.step(shed) {}
        }
    }

    /// What each shard remembers departures in, where it does: no cache is too small to remember something.
    fn departures_bytes(&self) -> usize {
        let all = self.pool.limit().bytes / DEPARTURES_SHARE;
        (all as usize / self.shards.len()).max(1)
    }

    /// What it had in the life of another process is gone with that.
    pub(crate) fn lost_its_memory(&self) {
        for slot in &self.shards {
            slot.shard.lock().lost_its_memory();
        }
    }

    /// Why a key is not there; none if its partition is another node's to tell of.
    pub fn why(&self, key: &[u8], now_ms: u64) -> Option<Result<Absence, Unexplained>> {
        let partition = Partition::of(key);
        let hash = self.hasher.hash(key);
        self.look_at(partition, now_ms, |shard| {
            shard.why(partition, hash, key, now_ms)
        })
    }
}
