//! A shard: the records of some partitions under one eviction order and one budget. It looks up, applies, drops, scans,
//! installs and wipes; it decides nothing about replication, and stamps versions only where it is told that it leads.

mod room;
#[cfg(test)]
mod tests;

use crate::arena::{Handle, SEGMENT_BYTES};
use crate::budget::{Room, Turn};
use crate::decide::{Decision, decide, live};
use crate::expiry::Wheel;
use crate::hasher::KeyHasher;
use crate::links::List;
use crate::partition::{PartitionState, Progress};
use crate::policy::{Order, PolicyKind};
use crate::record::{Body, Content, Records};
use crate::table::Buckets;
use henge_wire::{
    Command, Data, Effect, Item, Mutation, Operation, PARTITIONS, Partition, Refusal, Reply, Value,
    Version,
};

/// How many tombstones that are not committed a purge looks past. A partition that cannot commit should hold up no other's;
/// but every commit purges, so the walk is short.
const MAX_WAITING_TOMBSTONES: usize = 64;

/// When what a shard applies is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commit {
    /// At once: nobody else holds it, and nothing outlives the process.
    AtOnce,
    /// When `Shard::commit` says so.
    Told,
}

/// What a shard is made from.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Its number among the shards, which also says its partitions: those that leave this remainder.
    pub index: u16,
    /// How many shards there are; a divisor of the number of partitions.
    pub shards: u16,
    /// The eviction order.
    pub policy: PolicyKind,
    /// Seeds the hash of keys and the random order.
    pub seed: u64,
    /// The version before each partition's first.
    pub first: Version,
    /// When what is applied is committed.
    pub commit: Commit,
    /// Bytes of committed tombstones to keep, so that a replica that was away for a short time needs no full copy.
    pub tombstone_bytes: usize,
    /// Rounds the size of an allocation as the allocator does, so that what is charged is what is taken.
    pub allocation_size: fn(usize) -> usize,
}

/// Why a record left without being deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The bytes were used up.
    Size,
    /// The items were used up.
    Items,
    /// The machine or its cgroup ran short of memory.
    Pressure,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Size, Self::Items, Self::Pressure];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Items => "items",
            Self::Pressure => "pressure",
        }
    }
}

/// The shard cannot make this room alone; somebody who can reach other shards may grant it, and the call be repeated.
/// Nothing has been changed but that records may have been evicted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Short(pub Room);

/// What a shard has counted since it was made, and what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShardStats {
    /// Live items, those included that have expired and were not swept.
    pub items: u64,
    /// Tombstones kept.
    pub tombstones: u64,
    /// Bytes charged: segments, tables, large values, the order.
    pub charged_bytes: u64,
    /// Of these, segments of the arena.
    pub arena_bytes: u64,
    /// Of these, holes in segments.
    pub hole_bytes: u64,
    /// Of the charge, buckets and directories.
    pub table_bytes: u64,
    /// What the shard was granted.
    pub granted: Room,
    /// Gets that found an item.
    pub hits: u64,
    /// Gets that did not.
    pub misses: u64,
    /// Values stored, counters included.
    pub sets: u64,
    /// Items deleted.
    pub deletes: u64,
    /// Items dropped because they had expired.
    pub expirations: u64,
    /// Items dropped for room, by [`Cause`].
    pub evictions: [u64; 3],
    /// Tombstones dropped.
    pub purges: u64,
    /// Segments evacuated.
    pub evacuations: u64,
}

impl std::ops::AddAssign for ShardStats {
    fn add_assign(&mut self, other: Self) {
        self.items += other.items;
        self.tombstones += other.tombstones;
        self.charged_bytes += other.charged_bytes;
        self.arena_bytes += other.arena_bytes;
        self.hole_bytes += other.hole_bytes;
        self.table_bytes += other.table_bytes;
        self.granted.bytes += other.granted.bytes;
        self.granted.items = self.granted.items.saturating_add(other.granted.items);
        self.hits += other.hits;
        self.misses += other.misses;
        self.sets += other.sets;
        self.deletes += other.deletes;
        self.expirations += other.expirations;
        for (sum, one) in self.evictions.iter_mut().zip(other.evictions) {
            *sum += one;
        }
        self.purges += other.purges;
        self.evacuations += other.evacuations;
    }
}

/// A record as replication sees it.
#[derive(Clone, Debug)]
pub struct RecordView<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// The version that wrote it.
    pub version: Version,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
    /// Its value, or that it was deleted.
    pub body: Body<'a>,
}

/// What a copy replaces when it is installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replace {
    /// Every record.
    All,
    /// The records above this seq.
    Above(u64),
}

/// See the head of the file.
pub struct Shard {
    config: ShardConfig,
    hasher: KeyHasher,
    records: Records,
    buckets: Buckets,
    order: Order,
    wheel: Wheel,
    /// Oldest first; not in the order.
    tombstones: List,
    tombstone_bytes: usize,
    partitions: Vec<PartitionState>,
    granted: Room,
    stats: ShardStats,
    /// Blocks of the segment that is being evacuated; kept for its memory.
    evacuated: Vec<Handle>,
    vain: room::Vain,
}

impl Shard {
    /// A shard with nothing in it and no room granted.
    ///
    /// # Panics
    /// If the number of shards does not divide the partitions.
    pub fn new(config: ShardConfig) -> Self {
        assert!(
            config.shards > 0
                && PARTITIONS.is_multiple_of(config.shards)
                && config.index < config.shards,
            "the number of shards divides the partitions"
        );
        let partitions = (0..PARTITIONS / config.shards)
            .map(|_| PartitionState::new(config.first))
            .collect();
        Self {
            hasher: KeyHasher::new(config.seed),
            records: Records::new(config.policy.has_word(), config.allocation_size),
            buckets: Buckets::new(),
            order: Order::new(config.policy, config.seed ^ u64::from(config.index)),
            wheel: Wheel::new(),
            tombstones: List::EMPTY,
            tombstone_bytes: 0,
            partitions,
            granted: Room::default(),
            stats: ShardStats::default(),
            evacuated: Vec::new(),
            vain: room::Vain::default(),
            config,
        }
    }

    /// Runs a command on a key of a partition of this shard, as its leader: decides, stamps, applies. `hash` is the key's
    /// by [`KeyHasher`] with the shard's seed.
    pub fn execute(
        &mut self,
        turn: &Turn<'_>,
        partition: Partition,
        hash: u64,
        command: &Command<'_>,
    ) -> Result<Reply<'_>, Short> {
        let p = self.local(partition);
        let found = self.find_live(turn.now_ms, p, hash, command.key);
        match &command.operation {
            Operation::Get => {
                let Some(at) = found else {
                    self.stats.misses += 1;
                    return Ok(Reply::Missing);
                };
                self.stats.hits += 1;
                let deadline = self.records.expires_at(at);
                self.order.touch(&mut self.records, at, deadline);
                Ok(Reply::Found(self.item(at)))
            }
            Operation::Peek => Ok(found.map_or(Reply::Missing, |at| Reply::Found(self.item(at)))),
            operation => self.write(turn, p, hash, command.key, operation, found),
        }
    }

    fn write(
        &mut self,
        turn: &Turn<'_>,
        p: usize,
        hash: u64,
        key: &[u8],
        operation: &Operation<'_>,
        found: Option<Handle>,
    ) -> Result<Reply<'_>, Short> {
        let current = found.map(|at| self.item(at));
        let as_it_is = current
            .as_ref()
            .map_or(Reply::Missing, |item| Reply::Stored {
                version: item.version,
                expires_at_ms: item.expires_at_ms,
            });
        let decision = decide(current.as_ref(), operation);
        let version = self.partitions[p].last.next();
        let target = Target {
            p,
            hash,
            key,
            version,
        };
        let (reply, outcome) = match decision {
            Decision::Missing => return Ok(Reply::Missing),
            Decision::Refused(refusal) => return Ok(Reply::Refused(refusal)),
            Decision::Unchanged => return Ok(as_it_is),
            Decision::Delete { existed } => {
                let reply = if existed {
                    Reply::Deleted
                } else {
                    Reply::Missing
                };
                (reply, self.delete(turn, &target))
            }
            Decision::Expire { expires_at_ms } => {
                let reply = Reply::Stored {
                    version,
                    expires_at_ms,
                };
                (reply, self.expire(turn, &target, expires_at_ms))
            }
            Decision::Count {
                value,
                expires_at_ms,
            } => {
                // Over HTTP a counter is a JSON number; the bytes are the same for everyone.
                let text = value.to_string();
                let mut stored = Value::from_slice(text.as_bytes());
                stored.json = true;
                let reply = Reply::Counted {
                    value,
                    version,
                    expires_at_ms,
                };
                (
                    reply,
                    self.put(turn, &target, &Body::Value(stored), expires_at_ms),
                )
            }
            Decision::Put { expires_at_ms } => {
                let Operation::Set { value, .. } = operation else {
                    unreachable!("only a Set is decided to be a Put")
                };
                let reply = Reply::Stored {
                    version,
                    expires_at_ms,
                };
                (
                    reply,
                    self.put(turn, &target, &Body::Value(value.clone()), expires_at_ms),
                )
            }
        };
        match outcome {
            Ok(()) => {
                let forgets = matches!(operation, Operation::Delete { .. });
                self.advance(p, version, forgets);
                if let Reply::Deleted = reply {
                    self.stats.deletes += 1;
                }
                Ok(reply)
            }
            Err(NoRoom::Short(short)) => Err(short),
            Err(NoRoom::Refused(refusal)) => Ok(Reply::Refused(refusal)),
        }
    }

    /// Applies a mutation that somebody stamped. If there is no room, the effects before the one that failed are applied
    /// and the mutation may be applied again; the partition's `last` has not moved.
    ///
    /// # Panics
    /// If it is not the next of its partition's order, or the first of a later term.
    pub fn apply(&mut self, turn: &Turn<'_>, mutation: &Mutation<'_>) -> Result<(), Short> {
        let p = self.local(mutation.partition);
        let last = self.partitions[p].last;
        let version = mutation.version;
        assert!(
            version.seq() == last.seq() + 1 && version.term() >= last.term(),
            "{version} does not follow {last}"
        );
        for (key, effect) in mutation.effects {
            let target = Target {
                p,
                hash: self.hasher.hash(key),
                key,
                version,
            };
            let outcome = match effect {
                Effect::Put {
                    value,
                    expires_at_ms,
                } => self.put(turn, &target, &Body::Value(value.clone()), *expires_at_ms),
                Effect::Expire { expires_at_ms } => self.expire(turn, &target, *expires_at_ms),
                Effect::Delete => self.delete(turn, &target),
            };
            match outcome {
                Ok(()) => {}
                Err(NoRoom::Short(short)) => return Err(short),
                Err(NoRoom::Refused(_)) => return Err(Short(Room::default())),
            }
        }
        let forgets = |effect: &Effect<'_>| !matches!(effect, Effect::Put { .. });
        let forgets = mutation.effects.iter().any(|(_, effect)| forgets(effect));
        self.advance(p, version, forgets);
        Ok(())
    }

    /// All of a partition up to this seq is kept; records up to it may be dropped from now on.
    pub fn commit(&mut self, partition: Partition, seq: u64) {
        let p = self.local(partition);
        let state = &mut self.partitions[p];
        assert!(
            seq <= state.last.seq(),
            "what was not applied cannot be committed"
        );
        state.commit = state.commit.max(seq);
        self.purge_tombstones();
    }

    /// How far a partition has come.
    pub fn progress(&self, partition: Partition) -> Progress {
        let state = &self.partitions[self.local(partition)];
        Progress {
            last: state.last,
            commit: state.commit,
            horizon: state.horizon,
        }
    }

    /// Shows the live keys at one place of a partition's scan, and gives the next place; 0 begins and ends.
    pub fn scan(
        &self,
        partition: Partition,
        place: u32,
        now_ms: u64,
        mut each: impl FnMut(&[u8]),
    ) -> u32 {
        let table = &self.partitions[self.local(partition)].table;
        self.buckets.scan(table, place, |at| {
            let expired = self
                .records
                .expires_at(at)
                .is_some_and(|deadline| deadline <= now_ms);
            if !expired && !self.records.is_tombstone(at) {
                each(self.records.key(at));
            }
        })
    }

    /// Shows the records above a seq, tombstones included, at one place of a partition's scan, and gives the next place.
    pub fn scan_records(
        &self,
        partition: Partition,
        above: u64,
        place: u32,
        mut each: impl FnMut(RecordView<'_>),
    ) -> u32 {
        let table = &self.partitions[self.local(partition)].table;
        self.buckets.scan(table, place, |at| {
            let version = self.records.version(at);
            if version.seq() > above {
                each(RecordView {
                    key: self.records.key(at),
                    version,
                    expires_at_ms: self.records.expires_at(at),
                    body: self.records.body(at),
                });
            }
        })
    }

    /// Installs a copy in one step: removes what it replaces, puts its records, and takes its progress. A record that
    /// there is no room for is dropped if it is committed; if it is not, the partition is left wiped and it says so.
    pub fn install(
        &mut self,
        turn: &Turn<'_>,
        partition: Partition,
        replace: Replace,
        records: &[RecordView<'_>],
        progress: Progress,
    ) -> Result<(), Short> {
        assert!(
            progress.horizon <= progress.commit && progress.commit <= progress.last.seq(),
            "a copy's progress is in order"
        );
        let p = self.local(partition);
        assert!(
            self.partitions[p].commit <= progress.last.seq(),
            "a copy's progress and what is committed here are in order"
        );
        self.remove_records(p, replace);
        let state = &mut self.partitions[p];
        state.last = progress.last;
        state.commit = state.commit.max(progress.commit);
        state.horizon = state.horizon.max(progress.horizon);
        let turn = Turn {
            fair: Room::default(),
            ..*turn
        };
        for record in records {
            let target = Target {
                p,
                hash: self.hasher.hash(record.key),
                key: record.key,
                version: record.version,
            };
            let outcome = match &record.body {
                Body::Value(_) => self.put(&turn, &target, &record.body, record.expires_at_ms),
                Body::Tombstone => self.bury(&turn, &target),
            };
            let Err(no_room) = outcome else { continue };
            if record.version.seq() > self.partitions[p].commit {
                self.wipe(partition);
                return Err(match no_room {
                    NoRoom::Short(short) => short,
                    NoRoom::Refused(_) => Short(Room::default()),
                });
            }
            self.partitions[p].dropped(record.version.seq());
            // An older version of it must not be taken for it.
            if let Some(older) = self.find(p, target.hash, target.key) {
                self.remove(older);
            }
        }
        Ok(())
    }

    /// Forgets a partition as if it had never been: for a new generation, in which old data counts for nothing.
    pub fn wipe(&mut self, partition: Partition) {
        let p = self.local(partition);
        self.remove_records(p, Replace::All);
        self.partitions[p] = PartitionState::new(Version::ZERO);
    }

    /// Forgets every record of every partition, and keeps how far they have come. The old contents are returned, so that
    /// freeing them costs nobody who waits for the shard.
    #[must_use = "dropping it frees the memory; do that where nobody waits"]
    pub fn clear(&mut self) -> Forgotten {
        let mut fresh = Self::new(self.config.clone());
        fresh.granted = self.granted;
        fresh.stats = ShardStats {
            items: 0,
            tombstones: 0,
            ..self.stats
        };
        for (new, old) in fresh.partitions.iter_mut().zip(&self.partitions) {
            let seq = old.last.seq();
            (new.last, new.commit, new.horizon) = (old.last, seq, seq);
        }
        Forgotten(std::mem::replace(self, fresh))
    }

    /// Drops what has expired and purges tombstones. Looks at no more than `steps` records; true if there may be more.
    pub fn sweep(&mut self, now_ms: u64, steps: usize) -> bool {
        let mut left = steps;
        while left > 0 {
            let Some(at) = self.wheel.pop(&mut self.records, now_ms, &mut left) else {
                break;
            };
            left = left.saturating_sub(1);
            if self.may_drop(at) {
                self.drop_swept(at);
            } else {
                self.wheel.postpone(&mut self.records, at, now_ms);
            }
        }
        self.purge_tombstones();
        left == 0
    }

    /// Brings the charge down to `target` bytes by evacuating segments and evicting, in no more than `steps` steps; true
    /// once it is there, or nothing more may be dropped.
    pub fn shed(&mut self, target: u64, cause: Cause, steps: usize) -> bool {
        let mut effort = room::Effort::default();
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
            if self.stats.items <= items || !self.evict(cause) {
                return true;
            }
        }
        self.stats.items <= items
    }

    /// What was granted.
    pub fn granted(&self) -> Room {
        self.granted
    }

    /// What is charged, in bytes.
    pub fn charged_bytes(&self) -> u64 {
        (self.records.charged_bytes()
            + self.buckets.charged_bytes()
            + self.order.charged_bytes()
            + self.partitions.capacity() * size_of::<PartitionState>()
            + size_of::<Self>()) as u64
    }

    /// Counters and sizes.
    pub fn stats(&self) -> ShardStats {
        ShardStats {
            charged_bytes: self.charged_bytes(),
            arena_bytes: self.records.arena.segment_bytes() as u64,
            hole_bytes: self.records.arena.hole_bytes() as u64,
            table_bytes: self.buckets.charged_bytes() as u64,
            granted: self.granted,
            ..self.stats
        }
    }

    fn local(&self, partition: Partition) -> usize {
        debug_assert_eq!(partition.number() % self.config.shards, self.config.index);
        usize::from(partition.number() / self.config.shards)
    }

    #[inline]
    fn item(&self, at: Handle) -> Item<'_> {
        let (version, expires_at_ms) = (self.records.version(at), self.records.expires_at(at));
        live(self.records.body(at), version, expires_at_ms, 0).expect("it was found alive")
    }

    #[inline]
    fn find(&self, p: usize, hash: u64, key: &[u8]) -> Option<Handle> {
        self.buckets.find(&self.partitions[p].table, hash, |at| {
            self.records.key(at) == key
        })
    }

    /// The key's live item; one that has expired is dropped if it may be.
    #[inline]
    fn find_live(&mut self, now_ms: u64, p: usize, hash: u64, key: &[u8]) -> Option<Handle> {
        let at = self.find(p, hash, key)?;
        if self.records.is_tombstone(at) {
            return None;
        }
        if self
            .records
            .expires_at(at)
            .is_some_and(|deadline| deadline <= now_ms)
        {
            if self.may_drop(at) {
                self.drop_expired(at);
            }
            return None;
        }
        Some(at)
    }

    /// A mutation is applied in whole. `forgets` says that it may have deleted something.
    fn advance(&mut self, p: usize, version: Version, forgets: bool) {
        let state = &mut self.partitions[p];
        state.last = version;
        if self.config.commit == Commit::AtOnce {
            state.commit = version.seq();
            if forgets && self.config.tombstone_bytes == 0 {
                state.dropped(version.seq());
            }
        }
    }

    fn put(
        &mut self,
        turn: &Turn<'_>,
        target: &Target<'_>,
        body: &Body<'_>,
        deadline: Option<u64>,
    ) -> Result<(), NoRoom> {
        let shape = self.records.shape(target.key, deadline, body);
        let content = Content {
            key: target.key,
            version: target.version,
            deadline,
            body,
        };
        let existing = self.find(target.p, target.hash, target.key);
        let alive = existing.filter(|&at| !self.records.is_tombstone(at));
        if let Some(at) = alive {
            let old = self.records.expires_at(at);
            if self.records.fits(at, &shape) {
                if old.is_some() {
                    self.wheel.remove(&mut self.records, at);
                }
                self.records.rewrite(at, &shape, &content);
                self.settle(at, old, deadline);
                self.stats.sets += 1;
                return Ok(());
            }
        } else {
            self.make_room_for_item(turn)?;
        }
        let new = self.allocate(turn, &shape)?;
        self.records.write(new, &shape, &content);
        // Making room may have evicted or moved what was there.
        match self.find(target.p, target.hash, target.key) {
            Some(old) if !self.records.is_tombstone(old) => {
                let old_deadline = self.records.expires_at(old);
                if old_deadline.is_some() {
                    self.wheel.remove(&mut self.records, old);
                }
                self.records.copy_links(old, new);
                self.order.moved(&mut self.records, old, new, old_deadline);
                self.reindex(target, old, new);
                self.records.free(old);
                self.settle(new, old_deadline, deadline);
            }
            found => {
                if let Some(tombstone) = found {
                    self.unlink_tombstone(tombstone);
                    self.reindex(target, tombstone, new);
                    self.records.free(tombstone);
                } else {
                    self.index(target, new);
                }
                self.order.insert(&mut self.records, new, deadline);
                if deadline.is_some() {
                    self.wheel.insert(&mut self.records, new);
                }
                self.stats.items += 1;
            }
        }
        self.stats.sets += 1;
        Ok(())
    }

    /// An item was written over: tells the order, and puts it into the wheel. It is not there.
    fn settle(&mut self, at: Handle, old: Option<u64>, new: Option<u64>) {
        if old == new {
            self.order.touch(&mut self.records, at, new);
        } else {
            self.order.retimed(&mut self.records, at, old, new);
            self.order.touch(&mut self.records, at, new);
        }
        if new.is_some() {
            self.wheel.insert(&mut self.records, at);
        }
    }

    fn expire(
        &mut self,
        turn: &Turn<'_>,
        target: &Target<'_>,
        deadline: Option<u64>,
    ) -> Result<(), NoRoom> {
        let found = self.find(target.p, target.hash, target.key);
        let Some(at) = found.filter(|&at| !self.records.is_tombstone(at)) else {
            // The value was dropped here, though the leader had it. What an older replica has of it is not this version and
            // must not pass for it; to forget the key is always allowed.
            return self.delete(turn, target);
        };
        let old = self.records.expires_at(at);
        if let (Some(_), Some(new)) = (old, deadline) {
            self.wheel.remove(&mut self.records, at);
            self.records.set_deadline(at, new);
            self.records.set_version(at, target.version);
            self.order.retimed(&mut self.records, at, old, deadline);
            self.wheel.insert(&mut self.records, at);
            return Ok(());
        }
        // The record changes its form: it is written again, from a copy, as making room may move or evict it.
        let Body::Value(value) = self.records.body(at) else {
            unreachable!("it is no tombstone");
        };
        let bytes = value.data.to_bytes();
        let content_type = value.content_type.map(str::to_owned);
        let copy = Value {
            data: Data::Shared(bytes),
            content_type: content_type.as_deref(),
            ..value
        };
        self.put(turn, target, &Body::Value(copy), deadline)?;
        self.stats.sets -= 1;
        Ok(())
    }

    fn delete(&mut self, turn: &Turn<'_>, target: &Target<'_>) -> Result<(), NoRoom> {
        if self.config.commit == Commit::AtOnce && self.config.tombstone_bytes == 0 {
            // The tombstone is dropped in the step that would write it, and `advance` raises the horizon to it.
            if let Some(at) = self.find(target.p, target.hash, target.key) {
                // Not if this very mutation has put it.
                if self.may_drop(at) {
                    self.raise_horizon(at);
                }
                self.remove(at);
            }
            return Ok(());
        }
        self.bury(turn, target)
    }

    /// Puts a tombstone in the key's place, whether or not it is there.
    fn bury(&mut self, turn: &Turn<'_>, target: &Target<'_>) -> Result<(), NoRoom> {
        let body = Body::Tombstone;
        let shape = self.records.shape(target.key, None, &body);
        let new = self.allocate(turn, &shape)?;
        let content = Content {
            key: target.key,
            version: target.version,
            deadline: None,
            body: &body,
        };
        self.records.write(new, &shape, &content);
        if let Some(old) = self.find(target.p, target.hash, target.key) {
            self.leave_lists(old);
            self.reindex(target, old, new);
            self.records.free(old);
        } else {
            self.index(target, new);
        }
        self.tombstones.push(&mut self.records, new);
        self.tombstone_bytes += self.records.kept_bytes(new);
        self.stats.tombstones += 1;
        Ok(())
    }

    fn index(&mut self, target: &Target<'_>, at: Handle) {
        let Self {
            records,
            buckets,
            partitions,
            hasher,
            ..
        } = self;
        buckets.insert(&mut partitions[target.p].table, target.hash, at, |h| {
            hasher.hash(records.key(h))
        });
    }

    fn reindex(&mut self, target: &Target<'_>, old: Handle, new: Handle) {
        let found = self
            .buckets
            .replace(&self.partitions[target.p].table, target.hash, old, new);
        assert!(found, "what was found is in the table");
    }

    /// Takes a record out of the lists it is in, by its kind.
    fn leave_lists(&mut self, at: Handle) {
        if self.records.is_tombstone(at) {
            self.unlink_tombstone(at);
            return;
        }
        let deadline = self.records.expires_at(at);
        self.order.remove(&mut self.records, at, deadline);
        if deadline.is_some() {
            self.wheel.remove(&mut self.records, at);
        }
        self.stats.items -= 1;
    }

    fn unlink_tombstone(&mut self, at: Handle) {
        self.tombstones.remove(&mut self.records, at);
        self.tombstone_bytes -= self.records.kept_bytes(at);
        self.stats.tombstones -= 1;
    }

    /// Takes a record out of everything and frees it. Dropping, which raises the horizon, is for the caller to say.
    fn remove(&mut self, at: Handle) {
        self.leave_lists(at);
        self.unindex_and_free(at);
    }

    fn unindex_and_free(&mut self, at: Handle) {
        let key = self.records.key(at);
        let (p, hash) = (self.local(Partition::of(key)), self.hasher.hash(key));
        let Self {
            records,
            buckets,
            partitions,
            hasher,
            ..
        } = self;
        let found = buckets.remove(&mut partitions[p].table, hash, at, |h| {
            hasher.hash(records.key(h))
        });
        assert!(found, "a record is in its partition's table");
        records.free(at);
    }

    fn remove_records(&mut self, p: usize, replace: Replace) {
        let mut doomed = Vec::new();
        self.buckets.each(&self.partitions[p].table, |at| {
            if match replace {
                Replace::All => true,
                Replace::Above(seq) => self.records.version(at).seq() > seq,
            } {
                doomed.push(at);
            }
        });
        for at in doomed {
            self.remove(at);
        }
        if replace == Replace::All {
            self.buckets.clear(&mut self.partitions[p].table);
        }
    }

    fn may_drop(&self, at: Handle) -> bool {
        may_drop(&self.config, &self.partitions, &self.records, at)
    }

    fn raise_horizon(&mut self, at: Handle) {
        let p = self.local(Partition::of(self.records.key(at)));
        let seq = self.records.version(at).seq();
        self.partitions[p].dropped(seq);
    }

    fn drop_expired(&mut self, at: Handle) {
        self.raise_horizon(at);
        self.remove(at);
        self.stats.expirations += 1;
    }

    /// As `drop_expired`, for a record that is out of the wheel already.
    fn drop_swept(&mut self, at: Handle) {
        self.raise_horizon(at);
        let deadline = self.records.expires_at(at);
        self.order.remove(&mut self.records, at, deadline);
        self.stats.items -= 1;
        self.unindex_and_free(at);
        self.stats.expirations += 1;
    }

    fn evict(&mut self, cause: Cause) -> bool {
        let Self {
            order,
            records,
            config,
            partitions,
            ..
        } = self;
        let Some(victim) = order.victim(records, |records, at| {
            may_drop(config, partitions, records, at)
        }) else {
            return false;
        };
        self.raise_horizon(victim);
        self.remove(victim);
        self.stats.evictions[cause as usize] += 1;
        true
    }

    /// Drops the oldest tombstone that is committed.
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
        self.remove(oldest);
        self.stats.purges += 1;
        true
    }

    fn purge_tombstones(&mut self) {
        while self.tombstone_bytes > self.config.tombstone_bytes && self.purge_tombstone() {}
    }
}

/// The key that a write is about, and what it is stamped with.
struct Target<'a> {
    /// The partition's place in the shard.
    p: usize,
    hash: u64,
    key: &'a [u8],
    version: Version,
}

/// Why a record found no room.
enum NoRoom {
    Short(Short),
    Refused(Refusal),
}

/// What a shard held before it was cleared, to be dropped.
pub struct Forgotten(#[expect(dead_code, reason = "it exists to be dropped")] Shard);

fn may_drop(
    config: &ShardConfig,
    partitions: &[PartitionState],
    records: &Records,
    at: Handle,
) -> bool {
    // Also where everything is committed at once, the first effects of a mutation are not before the last is applied.
    let partition = Partition::of(records.key(at)).number() / config.shards;
    records.version(at).seq() <= partitions[usize::from(partition)].commit
}
