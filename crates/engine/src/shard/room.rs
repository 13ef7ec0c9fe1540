//! How a shard makes room: it draws on what it was granted and what others lend, evacuates segments that are mostly holes,
//! and drops records in the eviction order. It takes nothing from another shard; it says what it is short of.

use super::{Cause, NoRoom, Shard, Short};
use crate::arena::{GRANULE, Handle, SEGMENT_BYTES};
use crate::budget::{Room, Turn};
use crate::partition::PartitionState;
use crate::record::Shape;
use henge_wire::{Partition, Refusal};

/// What a shard draws at once: four segments, so that drawing is rare and little lies idle.
const WISH_BYTES: u64 = 4 * SEGMENT_BYTES as u64;
/// Items drawn at once. Little enough that a limit of 65,537 is still met to a percent with sixteen shards.
const WISH_ITEMS: u64 = 32;
/// After so many evictions in a row without finding a block, the emptiest segment is evacuated even if few holes are
/// elsewhere: the evictions have made some, and one at a time they may never lie side by side.
const EVICTIONS_BEFORE_EVACUATION: u32 = 64;
/// Evacuating pays when a sixteenth of the arena, or of the segment, is holes: it bounds what holes can waste to that.
const HOLE_SHARE: usize = 16;

impl Shard {
    /// Makes the room of one more item.
    pub(super) fn make_room_for_item(&mut self, turn: &Turn<'_>) -> Result<(), NoRoom> {
        while self.stats.items >= self.granted.items {
            let lent = turn.lender.lend_items(1, WISH_ITEMS);
            if lent > 0 {
                self.granted.items += lent;
                continue;
            }
            if self.granted.items < turn.fair.items / 2 {
                return Err(NoRoom::Short(Short(Room { bytes: 0, items: 1 })));
            }
            if !self.evict(Cause::Items) {
                return Err(Self::exhausted(turn, Room { bytes: 0, items: 1 }));
            }
        }
        Ok(())
    }

    /// Finds a block, and the room for what the shape allocates beside it.
    pub(super) fn allocate(&mut self, turn: &Turn<'_>, shape: &Shape) -> Result<Handle, NoRoom> {
        let need = shape.large_bytes + SEGMENT_BYTES;
        if need as u64 + self.fixed_bytes() > turn.limit.bytes {
            return Err(NoRoom::Refused(Refusal::TooLarge));
        }
        let mut evicted = 0;
        // Large allocations are charged when the record is written, so their room has to be there first.
        while shape.large_bytes > 0 && !self.may_grow(turn, shape.large_bytes) {
            self.give_way(turn, shape.large_bytes, true, &mut evicted)?;
        }
        let block_bytes = shape.granules() as usize * GRANULE;
        loop {
            // A table that grew beyond the grant is made up for here.
            if self.charged_bytes() <= self.granted.bytes || self.may_grow(turn, 0) {
                if let Some(at) = self.records.arena.allocate(shape.granules()) {
                    return Ok(at);
                }
                if self.records.arena.can_add_segment()
                    && self.may_grow(turn, shape.large_bytes + SEGMENT_BYTES)
                {
                    self.records.arena.add_segment();
                    continue;
                }
            }
            self.give_way(
                turn,
                block_bytes,
                self.charged_bytes() > self.granted.bytes,
                &mut evicted,
            )?;
        }
    }

    /// What is charged when there are no records: it is never available for one.
    fn fixed_bytes(&self) -> u64 {
        (self.partitions.capacity() * size_of::<PartitionState>() + size_of::<Self>()) as u64
    }

    /// Whether `more` bytes may be charged, drawing them if need be.
    fn may_grow(&mut self, turn: &Turn<'_>, more: usize) -> bool {
        let wanted = self.charged_bytes() + more as u64;
        if wanted <= self.granted.bytes {
            return true;
        }
        let need = wanted - self.granted.bytes;
        self.granted.bytes += turn.lender.lend_bytes(need, need.max(WISH_BYTES));
        wanted <= self.granted.bytes
    }

    /// One step towards `need` bytes: in one hole, or uncharged if `release`.
    fn give_way(
        &mut self,
        turn: &Turn<'_>,
        need: usize,
        release: bool,
        evicted: &mut u32,
    ) -> Result<(), NoRoom> {
        let all = self.fixed_bytes() + (need + SEGMENT_BYTES) as u64;
        let short = Room {
            bytes: all
                .saturating_sub(self.granted.bytes)
                .max(SEGMENT_BYTES as u64),
            items: 0,
        };
        let fair = turn.fair.bytes;
        if self.granted.bytes < fair / 2 || (fair > 0 && self.granted.bytes < all) {
            return Err(NoRoom::Short(Short(short)));
        }
        if self.reclaim(need, release, Cause::Size, evicted) {
            return Ok(());
        }
        Err(Self::exhausted(turn, short))
    }

    /// Evacuates a segment where that pays, else drops a record: a tombstone first. False if nothing may be dropped.
    pub(super) fn reclaim(
        &mut self,
        need: usize,
        release: bool,
        cause: Cause,
        evicted: &mut u32,
    ) -> bool {
        let (holes, total) = (
            self.records.arena.hole_bytes(),
            self.records.arena.segment_bytes(),
        );
        if (holes * HOLE_SHARE > total || *evicted >= EVICTIONS_BEFORE_EVACUATION)
            && let Some((segment, free)) = self.records.arena.emptiest()
        {
            let enough = free >= need.max(SEGMENT_BYTES / HOLE_SHARE);
            if (!release && enough && free < SEGMENT_BYTES)
                || (release && Self::fits_elsewhere(holes, free))
            {
                self.evacuate(segment, release);
                *evicted = 0;
                return true;
            }
        }
        *evicted += 1;
        self.purge_tombstone() || self.evict(cause)
    }

    /// Whether a segment's live records likely fit into the holes of the others, so that evacuating it frees it. Holes are
    /// of all sizes, so twice the room is asked for.
    pub(super) fn fits_elsewhere(holes: usize, free: usize) -> bool {
        holes - free >= 2 * (SEGMENT_BYTES - free)
    }

    /// Nothing here may be dropped; other shards may have room, unless they were asked already.
    fn exhausted(turn: &Turn<'_>, short: Room) -> NoRoom {
        if turn.fair == Room::default() {
            NoRoom::Refused(Refusal::MemoryFull)
        } else {
            NoRoom::Short(Short(short))
        }
    }

    /// Moves a segment's records elsewhere; the segment becomes a hole, or is given back.
    pub(super) fn evacuate(&mut self, segment: usize, release: bool) {
        let mut blocks = std::mem::take(&mut self.evacuated);
        self.records.arena.begin_evacuation(segment, &mut blocks);
        let mut added = false;
        for &old in &blocks {
            let granules = self.records.used_granules(old);
            let new = self.records.arena.allocate(granules).unwrap_or_else(|| {
                // No hole elsewhere is large enough. The segment that is being emptied is given back for this one.
                added = true;
                self.records.arena.add_segment();
                self.records
                    .arena
                    .allocate(granules)
                    .expect("a fresh segment has room")
            });
            self.records.copy(old, new);
            self.relocated(old, new);
        }
        self.records
            .arena
            .finish_evacuation(segment, release || added);
        self.evacuated = blocks;
        self.stats.evacuations += 1;
    }

    fn relocated(&mut self, old: Handle, new: Handle) {
        let key = self.records.key(new);
        let (p, hash) = (self.local(Partition::of(key)), self.hasher.hash(key));
        let found = self
            .buckets
            .replace(&self.partitions[p].table, hash, old, new);
        assert!(found, "a record is in its partition's table");
        if self.records.is_tombstone(new) {
            self.tombstones.moved(&mut self.records, new);
            return;
        }
        let deadline = self.records.expires_at(new);
        self.order.moved(&mut self.records, old, new, deadline);
        if deadline.is_some() {
            self.wheel.moved(&mut self.records, new);
        }
    }
}
