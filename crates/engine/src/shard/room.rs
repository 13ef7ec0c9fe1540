//! A shard's room: what it is granted and gives back, and how it makes room for a record. It draws on what others lend,
//! evacuates segments that are mostly holes, and drops records in the eviction order. It takes nothing from another shard;
//! it says what it is short of.

use super::{Cause, Shard, Short, may_drop};
use crate::arena::{GRANULE, Handle};
use crate::budget::{Room, Turn};
use crate::record::Shape;
use crate::segment::SEGMENT_BYTES;
use henge_wire::Refusal;

/// What a shard draws at once: four segments, so that drawing is rare and little lies idle.
const WISH_BYTES: u64 = 4 * SEGMENT_BYTES as u64;
/// Items drawn at once. Little enough that a limit of 65,537 is still met to a percent with sixteen shards.
const WISH_ITEMS: u64 = 32;
/// After so many evictions in a row without finding a block, the emptiest segment is evacuated even if few holes are
/// elsewhere: the evictions have made some, and one at a time they may never lie side by side.
const EVICTIONS_BEFORE_EVACUATION: u32 = 64;
/// Evacuating pays when a sixteenth of the arena, or of the segment, is holes: it bounds what holes can waste to that.
const HOLE_SHARE: usize = 16;
/// After an evacuation that gave nothing back, this much more has to be in holes before another is tried: four bytes are
/// copied in vain for each byte evicted, at the worst.
const VAIN_BYTES: usize = SEGMENT_BYTES / 4;

/// How many tombstones that are not committed a purge looks past. A partition that cannot commit should hold up no other's;
/// but every commit purges, so the walk is short.
const MAX_WAITING_TOMBSTONES: usize = 64;

/// Room kept for what grows by little with a record: a partition's directory, the order's own memory.
const SLACK_BYTES: usize = 8 * 1024;

/// The same for each record after the first: an entry of an order that keeps a tree, and a place in one that keeps an array.
const SLACK_BYTES_EACH: usize = 64;

/// What the records of one call need beside the block that is looked for.
pub(super) struct Need {
    /// Records, at least one; each may be new to its table.
    pub(super) insertions: usize,
    /// Of these, those with an allocation of their own.
    pub(super) large: usize,
    /// What those are charged.
    pub(super) large_bytes: usize,
    /// What all blocks take.
    pub(super) block_bytes: usize,
}

/// Why a record found no room.
pub(super) enum NoRoom {
    Short(Short),
    Refused(Refusal),
}

/// What one call has done for its room.
#[derive(Default)]
pub(super) struct Effort {
    /// Evictions since the last evacuation.
    evicted: u32,
    /// The last step evacuated a segment and gave nothing back: a second such step gains nothing.
    evacuated: bool,
}

/// The last evacuation that gave no segment back, as some records of its segment fitted nowhere else. Blocks of one size
/// leave the same hole in every segment, so without this memory it would happen again and again.
#[derive(Default)]
pub(super) struct Vain {
    /// Holes there were then, or at the least since.
    holes: usize,
    /// The segment that was added for what fitted nowhere. Its rest is one hole; moving it again gains nothing.
    segment: Option<usize>,
}

impl Shard {
    /// Brings the charge down to `target` bytes by evacuating segments and evicting, in no more than `steps` steps; true
    /// once it is there, or nothing more may be dropped.
    pub fn shed(&mut self, target: u64, cause: Cause, steps: usize) -> bool {
        let mut effort = Effort::default();
        for _ in 0..steps {
            if self.charged_bytes() <= target {
                return true;
            }
            if !self.reclaim(SEGMENT_BYTES, true, cause, &mut effort) {
                return true;
            }
        }
        self.charged_bytes() <= target
    }

    /// Gives memory back that deletes and expiry have left in holes: evacuates a segment if a quarter of the arena is
    /// holes. True if it gave one back.
    pub fn compact(&mut self) -> bool {
        let (holes, total) = (
            self.records.arena.hole_bytes(),
            self.records.arena.segment_bytes(),
        );
        if holes < total / 4 || holes < 2 * SEGMENT_BYTES {
            return false;
        }
        // What did not fit elsewhere got a segment of its own, into which the next one's records fit.
        self.evacuate_and_release(holes) || self.evacuate_and_release(holes)
    }

    /// Grants room.
    pub fn grant(&mut self, room: Room) {
        self.granted.bytes = self.granted.bytes.saturating_add(room.bytes);
        self.granted.items = self.granted.items.saturating_add(room.items);
    }

    /// Takes back up to this much of the room granted, only as far as it is not in use.
    pub fn surrender(&mut self, wish: Room) -> Room {
        let spare = Room {
            bytes: self.granted.bytes.saturating_sub(self.charged_bytes()),
            items: self.granted.items.saturating_sub(self.stats.items),
        };
        let given = Room {
            bytes: spare.bytes.min(wish.bytes),
            items: spare.items.min(wish.items),
        };
        self.granted.bytes -= given.bytes;
        self.granted.items -= given.items;
        given
    }

    /// Drops records until `surrender` could give this room, in no more than `steps` steps; true once it could, or
    /// nothing more may be dropped.
    pub fn vacate(&mut self, room: Room, cause: Cause, steps: usize) -> bool {
        let bytes = self.granted.bytes.saturating_sub(room.bytes);
        let items = self.granted.items.saturating_sub(room.items);
        if !self.shed(bytes, cause, steps) {
            return false;
        }
        for _ in 0..steps {
            // Whatever is short, it is items here.
            if self.stats.items <= items || !self.evict(Cause::Items) {
                return true;
            }
        }
        self.stats.items <= items
    }

    /// Drops the next record in the order, or some that were discarded before.
    pub(super) fn evict(&mut self, cause: Cause) -> bool {
        if self.free_discarded().is_some() {
            return true;
        }
        let Self {
            order,
            records,
            config,
            partitions,
            held,
            ..
        } = self;
        let first = order.victim(records, |records, at| {
            may_drop(config, partitions, records, at) && !held.guards(at)
        });
        let Some(victim) = first.or_else(|| self.any_victim()) else {
            return false;
        };
        self.order.evicted(&self.records, victim);
        self.raise_horizon(victim);
        let seq = self.records.version(victim).seq();
        let (p, hash) = self.remove(victim);
        let seqs = self.seqs(p, seq);
        self.departures.evicted(p, hash, cause, seqs);
        self.stats.evictions[cause as usize] += 1;
        true
    }

    /// Drops the oldest tombstone that is committed. There are none that were discarded: they would be among those it looks at.
    fn purge_tombstone(&mut self) -> bool {
        let Some(oldest) = self
            .tombstones
            .iter(&self.records)
            .take(MAX_WAITING_TOMBSTONES)
            .find(|&at| self.may_drop(at))
        else {
            return false;
        };
        self.raise_horizon(oldest);
        let seq = self.records.version(oldest).seq();
        let (p, hash) = self.remove(oldest);
        let seqs = self.seqs(p, seq);
        self.departures.deleted(p, hash, seqs);
        self.stats.purges += 1;
        true
    }

    /// Brings the tombstones down to their allowance, as far as they are committed.
    pub(super) fn purge_tombstones(&mut self) {
        if self.tombstone_bytes > self.config.tombstone_bytes && self.free_discarded().is_some() {
            // What there is too much of may be those.
            return;
        }
        while self.tombstone_bytes > self.config.tombstone_bytes && self.purge_tombstone() {}
    }

    /// Makes the room of one more item.
    pub(super) fn make_room_for_item(&mut self, turn: &Turn<'_>) -> Result<(), NoRoom> {
        while self.stats.items >= self.granted.items {
            self.give_way_to_items(turn, 1)?;
        }
        Ok(())
    }

    /// One step towards the room of so many items: draws it, or drops as many.
    pub(super) fn give_way_to_items(&mut self, turn: &Turn<'_>, need: u64) -> Result<(), NoRoom> {
        let lent = turn.lender.lend_items(1, need.max(WISH_ITEMS));
        if lent > 0 {
            self.granted.items += lent;
            return Ok(());
        }
        let short = Room {
            bytes: 0,
            items: need,
        };
        if self.granted.items < turn.fair.items / 2 {
            return Err(NoRoom::Short(Short(short)));
        }
        // Of what was discarded several are freed at once, or none.
        let target = self.stats.items.saturating_sub(need);
        for _ in 0..need {
            if !self.evict(Cause::Items) {
                return Err(Self::exhausted(turn, short));
            }
            if self.stats.items <= target {
                break;
            }
        }
        Ok(())
    }

    /// Finds a block, and the room for what the shape allocates beside it.
    pub(super) fn allocate(&mut self, turn: &Turn<'_>, shape: &Shape) -> Result<Handle, NoRoom> {
        let need = Need {
            insertions: 1,
            large: usize::from(shape.is_large()),
            large_bytes: shape.large_bytes,
            block_bytes: shape.granules() as usize * GRANULE,
        };
        self.refuse_too_large(turn, &need, SEGMENT_BYTES)?;
        self.find_block(turn, shape.granules(), &need, |_| 0)
    }

    /// Refuses what would not fit if it were alone, with this much beside it.
    pub(super) fn refuse_too_large(
        &self,
        turn: &Turn<'_>,
        need: &Need,
        beside: usize,
    ) -> Result<(), NoRoom> {
        let alone = need.large_bytes + beside + self.growth_bytes(need);
        if alone as u64 + self.overhead_bytes() > turn.limit.bytes {
            return Err(NoRoom::Refused(Refusal::TooLarge));
        }
        Ok(())
    }

    /// Finds a block, and the room for all that is charged only once the records are written. `freed` says how much of what
    /// is charged goes in the same step.
    pub(super) fn find_block(
        &mut self,
        turn: &Turn<'_>,
        granules: u32,
        need: &Need,
        mut freed: impl FnMut(&Self) -> usize,
    ) -> Result<Handle, NoRoom> {
        let block_bytes = granules as usize * GRANULE;
        let mut effort = Effort::default();
        loop {
            let more = need.large_bytes + self.growth_bytes(need);
            let less = freed(self);
            let fits = self.may_grow(turn, more, less);
            if fits {
                if let Some(at) = self.records.arena.allocate(granules) {
                    return Ok(at);
                }
                if self.records.arena.can_add_segment()
                    && self.may_grow(turn, more + SEGMENT_BYTES, less)
                {
                    self.records.arena.add_segment();
                    continue;
                }
            }
            let mut all = need.block_bytes;
            if !fits {
                all += need.large_bytes.saturating_sub(less);
            }
            self.give_way(turn, block_bytes, all, !fits, &mut effort)?;
        }
    }

    /// What records of this need may add to the tables about them.
    fn growth_bytes(&self, need: &Need) -> usize {
        SLACK_BYTES
            + (need.insertions - 1) * SLACK_BYTES_EACH
            + self.buckets.growth_bytes(need.insertions)
            + self.records.growth_bytes(need.large)
    }

    /// What is charged when there are no records: it is never available for one.
    fn fixed_bytes(&self) -> u64 {
        (self.partition_bytes() + size_of::<Self>()) as u64
    }

    /// What stays charged when every record is dropped: tables do not give back what they once had.
    fn overhead_bytes(&self) -> u64 {
        self.fixed_bytes() + (self.buckets.charged_bytes() + self.records.overhead_bytes()) as u64
    }

    /// Whether `more` bytes may be charged when `less` go, drawing them if need be.
    fn may_grow(&mut self, turn: &Turn<'_>, more: usize, less: usize) -> bool {
        let wanted = self.charged_bytes() + more as u64 - less as u64;
        if wanted <= self.granted.bytes {
            return true;
        }
        let need = wanted - self.granted.bytes;
        self.granted.bytes += turn.lender.lend_bytes(need, need.max(WISH_BYTES));
        wanted <= self.granted.bytes
    }

    /// One step towards `need` bytes: in one hole, or uncharged if `release`. `whole` is what the call needs in all.
    fn give_way(
        &mut self,
        turn: &Turn<'_>,
        need: usize,
        whole: usize,
        release: bool,
        effort: &mut Effort,
    ) -> Result<(), NoRoom> {
        let all = self.fixed_bytes() + (whole + SEGMENT_BYTES) as u64;
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
        if self.reclaim(need, release, turn.cause, effort) {
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
        effort: &mut Effort,
    ) -> bool {
        let (holes, total) = (
            self.records.arena.hole_bytes(),
            self.records.arena.segment_bytes(),
        );
        self.vain.holes = self.vain.holes.min(holes);
        let pays = holes * HOLE_SHARE > total || effort.evicted >= EVICTIONS_BEFORE_EVACUATION;
        if pays && release {
            if holes >= self.vain.holes + VAIN_BYTES && self.evacuate_and_release(holes) {
                effort.evicted = 0;
                return true;
            }
        } else if pays && !effort.evacuated && self.evacuate_for(need) {
            *effort = Effort {
                evicted: 0,
                evacuated: true,
            };
            return true;
        }
        effort.evicted += 1;
        effort.evacuated = false;
        self.free_discarded().is_some() || self.purge_tombstone() || self.evict(cause)
    }

    /// Makes one hole of the emptiest segment's, if they are worth it.
    fn evacuate_for(&mut self, need: usize) -> bool {
        let Some((segment, free)) = self.records.arena.emptiest(None) else {
            return false;
        };
        if free < need.max(SEGMENT_BYTES / HOLE_SHARE) || free == SEGMENT_BYTES {
            return false;
        }
        self.evacuate(segment, false);
        true
    }

    /// Gives a segment back, if its records fit into the holes of the others.
    pub(super) fn evacuate_and_release(&mut self, holes: usize) -> bool {
        let Some((segment, free)) = self.records.arena.emptiest(self.vain.segment) else {
            return false;
        };
        if !Self::fits_elsewhere(holes, free) {
            return false;
        }
        let added = self.evacuate(segment, true);
        if added.is_some() {
            self.vain = Vain {
                holes: self.records.arena.hole_bytes(),
                segment: added,
            };
        }
        added.is_none()
    }

    /// Whether a segment's live records likely fit into the holes of the others, so that evacuating it frees it. Holes are
    /// of all sizes, so twice the room is asked for.
    fn fits_elsewhere(holes: usize, free: usize) -> bool {
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

    /// Moves a segment's records elsewhere; the segment becomes a hole, or is given back. Gives the segment that had to be
    /// added, if one had to be.
    fn evacuate(&mut self, segment: usize, release: bool) -> Option<usize> {
        let mut blocks = std::mem::take(&mut self.evacuated);
        self.records.arena.begin_evacuation(segment, &mut blocks);
        let mut added = None;
        for &old in &blocks {
            let granules = self.records.used_granules(old);
            let new = self.records.arena.allocate(granules).unwrap_or_else(|| {
                // No hole elsewhere is large enough. The segment that is being emptied is given back for this one.
                added = Some(self.records.arena.add_segment());
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
            .finish_evacuation(segment, release || added.is_some());
        self.evacuated = blocks;
        self.stats.evacuations += 1;
        added
    }

    fn relocated(&mut self, old: Handle, new: Handle) {
        if self.held.moved(&self.records, old, new) {
            return;
        }
        let (p, hash) = self.belongs(new);
        let table = &self.partitions[p].table;
        let found =
            self.buckets.replace(table, hash, old, new) || self.move_discarded(p, hash, old, new);
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
