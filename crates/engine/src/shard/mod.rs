//! A shard: the records of some partitions under one eviction order and one budget. What it is, how it finds, sweeps and
//! takes a record out stands here; `write` puts records in, `transact` several or none, `room` makes their room, `why` tells what became of those that left, `ahead`
//! warms what a coming command will read, `replicate` and `fill` are what replication does with it, `durable` the log and `recover` what is
//! made of that of a replica. It decides nothing about replication, and stamps versions only where it is told that it leads.

mod ahead;
mod discard;
mod durable;
mod fill;
mod recover;
mod replicate;
mod room;
#[cfg(test)]
mod tests;
mod transact;
mod why;
mod write;

pub use ahead::Hint;
pub use durable::{NotNext, ReplayError, Replayed};
pub use recover::Recovered;
pub use replicate::{RecordView, Replace, Scan};
pub use why::Unexplained;

use crate::arena::Handle;
use crate::budget::{Room, Turn};
use crate::decide::live;
use crate::departures::{Departures, EvictionAges, MissCause};
use crate::expiry::Wheel;
use crate::hasher::KeyHasher;
use crate::links::{Links, List};
use crate::partition::{PartitionState, Replicated};
use crate::policy::{Order, PolicyKind};
use crate::record::Records;
use crate::table::{Buckets, ENTRY_BYTES, Table};
use henge_wire::{Command, Item, Operation, PARTITIONS, Partition, Reply, Version};
use write::Target;

/// When what a shard applies is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commit {
    /// At once: nobody else holds it, and nothing outlives the process.
    AtOnce,
    /// When `Shard::commit` says so: its partitions are replicated. What is committed, and what the protocol has promised, is in
    /// its log, and a recovery has it as far as it was known.
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
    /// Of the items, those with a deadline.
    pub expiring: u64,
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
    /// Of the charge, what remembers why records left.
    pub departures_bytes: u64,
    /// What the shard was granted.
    pub granted: Room,
    /// Gets that found an item.
    pub hits: u64,
    /// Gets that did not.
    pub misses: u64,
    /// Of these, how many for which cause, in the order of [`MissCause::ALL`]; none while nothing is remembered of what left.
    pub misses_by_cause: [u64; MissCause::ALL.len()],
    /// Values stored, counters included.
    pub sets: u64,
    /// Items deleted.
    pub deletes: u64,
    /// Items dropped because they had expired.
    pub expirations: u64,
    /// Items dropped for room, by [`Cause`].
    pub evictions: [u64; 3],
    /// How old these were, where that is known, by [`Cause`].
    pub eviction_ages: [EvictionAges; 3],
    /// Tombstones dropped.
    pub purges: u64,
    /// Segments evacuated.
    pub evacuations: u64,
}

impl std::ops::AddAssign for ShardStats {
    fn add_assign(&mut self, other: Self) {
        self.items += other.items;
        self.expiring += other.expiring;
        self.tombstones += other.tombstones;
        self.charged_bytes += other.charged_bytes;
        self.arena_bytes += other.arena_bytes;
        self.hole_bytes += other.hole_bytes;
        self.table_bytes += other.table_bytes;
        self.departures_bytes += other.departures_bytes;
        self.granted.bytes += other.granted.bytes;
        self.granted.items = self.granted.items.saturating_add(other.granted.items);
        self.hits += other.hits;
        self.misses += other.misses;
        let causes = self.misses_by_cause.iter_mut();
        for (sum, one) in causes.zip(other.misses_by_cause) {
            *sum += one;
        }
        self.sets += other.sets;
        self.deletes += other.deletes;
        self.expirations += other.expirations;
        for (sum, one) in self.evictions.iter_mut().zip(other.evictions) {
            *sum += one;
        }
        for (sum, one) in self.eviction_ages.iter_mut().zip(other.eviction_ages) {
            *sum += one;
        }
        self.purges += other.purges;
        self.evacuations += other.evacuations;
    }
}

/// What an item takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// Its record, in bytes: header, key and value, with what rounding them costs.
    pub record_bytes: u64,
    /// Its share of the table, in bytes: what an entry costs in the mean.
    pub table_bytes: u64,
    /// How often it was used since it came to be, under the order that counts this.
    pub uses: Option<u32>,
}

/// How large an item is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// What it takes: its record, and its share of the table.
    pub bytes: u64,
    /// Its value before compression.
    pub value_bytes: u64,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
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
    /// The same for each partition, if commits are told.
    replicas: Vec<Replicated>,
    granted: Room,
    stats: ShardStats,
    /// Blocks of the segment that is being evacuated; kept for its memory.
    evacuated: Vec<Handle>,
    vain: room::Vain,
    held: transact::Held,
    durable: durable::Durable,
    filling: fill::Filling,
    discarded: discard::Discarded,
    departures: Departures,
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
        let partitions: Vec<_> = (0..PARTITIONS / config.shards)
            .map(|_| PartitionState::new(config.first, config.commit == Commit::AtOnce))
            .collect();
        let mut shard = Self {
            hasher: KeyHasher::new(config.seed),
            records: Records::new(config.policy.has_word(), config.allocation_size),
            buckets: Buckets::new(),
            order: Order::new(config.policy, config.seed ^ u64::from(config.index)),
            wheel: Wheel::new(),
            tombstones: List::EMPTY,
            tombstone_bytes: 0,
            partitions,
            replicas: Vec::new(),
            granted: Room::default(),
            stats: ShardStats::default(),
            evacuated: Vec::new(),
            vain: room::Vain::default(),
            held: transact::Held::default(),
            durable: durable::Durable::default(),
            filling: fill::Filling::default(),
            discarded: discard::Discarded::default(),
            departures: Departures::none(),
            config,
        };
        if shard.config.commit == Commit::Told {
            shard.replicate(|_| 0);
        }
        shard
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
        self.durable.begin_call();
        let found = self.find_live(turn.now_ms, p, hash, command.key);
        match &command.operation {
            Operation::Get => {
                let Some(at) = found else {
                    self.count_miss(p, hash, command.key);
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
            if self.is_live(at, now_ms) {
                each(self.records.key(at));
            }
        })
    }

    /// The same with what each item takes.
    pub fn scan_sizes(
        &self,
        partition: Partition,
        place: u32,
        now_ms: u64,
        mut each: impl FnMut(&[u8], Size),
    ) -> u32 {
        let table = &self.partitions[self.local(partition)].table;
        self.buckets.scan(table, place, |at| {
            if self.is_live(at, now_ms) {
                let size = Size {
                    bytes: (self.records.kept_bytes(at) + ENTRY_BYTES) as u64,
                    value_bytes: self.item(at).value.raw_len.into(),
                    expires_at_ms: self.records.expires_at(at),
                };
                each(self.records.key(at), size);
            }
        })
    }

    /// Shows a live key, drawn by a random number: a partition by its share of the records, there a place of the scan, and
    /// one of the records at it. False if nothing alive was drawn, though there may be some. Keys at sparse places come a
    /// little more often.
    pub fn random_key(&self, random: u64, now_ms: u64, each: impl FnOnce(&[u8])) -> bool {
        let tables = || self.partitions.iter().map(|state| &state.table);
        let records: u64 = tables().map(|table| u64::from(table.len())).sum();
        // Which record of all, counted partition by partition; then the hash makes more random numbers of the one.
        let mut nth = below(random, records);
        let Some(table) = tables().find(|table| {
            let len = u64::from(table.len());
            let here = nth < len;
            nth = nth.wrapping_sub(if here { 0 } else { len });
            here
        }) else {
            return false;
        };
        self.random_key_in(table, random, now_ms, each)
    }

    /// The same of one partition.
    pub fn random_key_of(
        &self,
        partition: Partition,
        random: u64,
        now_ms: u64,
        each: impl FnOnce(&[u8]),
    ) -> bool {
        let table = &self.partitions[self.local(partition)].table;
        table.len() > 0 && self.random_key_in(table, random, now_ms, each)
    }

    fn random_key_in(
        &self,
        table: &Table,
        random: u64,
        now_ms: u64,
        each: impl FnOnce(&[u8]),
    ) -> bool {
        let random = self.hasher.hash(&random.to_le_bytes());
        let place = random as u32;
        let mut there = 0;
        self.buckets.scan(table, place, |_| there += 1);
        let random = self.hasher.hash(&random.to_le_bytes());
        let mut left = below(random, there);
        let mut chosen = None;
        self.buckets.scan(table, place, |at| {
            if left == 0 {
                chosen = chosen.or(Some(at));
            }
            left = left.saturating_sub(1);
        });
        // To pass over what is not alive would favour what lies beside it.
        let Some(at) = chosen.filter(|&at| self.is_live(at, now_ms)) else {
            return false;
        };
        each(self.records.key(at));
        true
    }

    /// What a live item takes. It is no use of it.
    pub fn footprint(
        &self,
        partition: Partition,
        hash: u64,
        key: &[u8],
        now_ms: u64,
    ) -> Option<Footprint> {
        let at = self.find(self.local(partition), hash, key)?;
        self.is_live(at, now_ms).then(|| Footprint {
            record_bytes: self.records.kept_bytes(at) as u64,
            table_bytes: ENTRY_BYTES as u64,
            uses: (self.config.policy == PolicyKind::Lfu).then(|| self.records.word(at)),
        })
    }

    /// Live items, those included that have expired and were not swept.
    pub fn items(&self) -> u64 {
        self.stats.items - self.discarded.items
    }

    /// The same of one partition.
    pub fn items_of(&self, partition: Partition) -> u64 {
        let state = &self.partitions[self.local(partition)];
        u64::from(state.table.len() - state.tombstones)
    }

    /// Forgets every record of every partition, as one more step of each partition's order. The old contents are returned, so
    /// that freeing them costs nobody who waits for the shard.
    #[must_use = "dropping it frees the memory; do that where nobody waits"]
    pub fn clear(&mut self) -> Forgotten {
        let mut fresh = Self::new(self.config.clone());
        fresh.granted = self.granted;
        fresh.stats = ShardStats {
            items: 0,
            tombstones: 0,
            ..self.stats
        };
        std::mem::swap(&mut fresh.durable, &mut self.durable);
        std::mem::swap(&mut fresh.replicas, &mut self.replicas);
        std::mem::swap(&mut fresh.departures, &mut self.departures);
        fresh.durable.begin_call();
        for (p, old) in self.partitions.iter().enumerate() {
            let version = old.last.next();
            let keys = old.table.len() - old.tombstones;
            fresh
                .departures
                .all_left(p, MissCause::Flushed, keys.into());
            fresh.partitions[p] = PartitionState {
                last: version,
                commit: version.seq(),
                horizon: version.seq(),
                logged: old.logged,
                deleted: version.seq(),
                ..PartitionState::new(version, old.commits_at_once)
            };
            fresh.journal_flush(p, version);
        }
        Forgotten(std::mem::replace(self, fresh))
    }

    /// Drops what has expired and purges tombstones. Looks at no more than `steps` records; true if there may be more.
    pub fn sweep(&mut self, now_ms: u64, steps: usize) -> bool {
        self.departures.at(now_ms);
        let partitions = &self.partitions;
        self.departures.note_moment(|p| partitions[p].last.seq());
        let mut left = steps;
        while left > 0 {
            if let Some(freed) = self.free_discarded() {
                left = left.saturating_sub(freed.max(1));
                continue;
            }
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

    /// What was granted.
    pub fn granted(&self) -> Room {
        self.granted
    }

    /// What is charged, in bytes.
    pub fn charged_bytes(&self) -> u64 {
        (self.records.charged_bytes()
            + self.buckets.charged_bytes()
            + self.order.charged_bytes()
            + self.partition_bytes()
            + size_of::<Self>()) as u64
    }

    /// Counters and sizes.
    pub fn stats(&self) -> ShardStats {
        ShardStats {
            items: self.items(),
            tombstones: self.stats.tombstones - self.discarded.tombstones,
            // Which of those that were discarded had a deadline nobody counts.
            expiring: self.wheel.len().min(self.items()),
            charged_bytes: self.charged_bytes(),
            arena_bytes: self.records.arena.segment_bytes() as u64,
            hole_bytes: self.records.arena.hole_bytes() as u64,
            table_bytes: self.buckets.charged_bytes() as u64,
            departures_bytes: self.departures.charged_bytes() as u64,
            granted: self.granted,
            eviction_ages: self.departures.ages(),
            ..self.stats
        }
    }

    /// What is charged for partitions, whatever is in them.
    fn partition_bytes(&self) -> usize {
        self.partitions.capacity() * size_of::<PartitionState>()
            + self.replicas.capacity() * size_of::<Replicated>()
            + self.departures.charged_bytes()
    }

    /// Whether a partition is that of a node that replicates.
    #[inline]
    fn is_replica(&self, p: usize) -> bool {
        self.replicas.get(p).is_some_and(|own| own.is_replica)
    }

    /// Whether a partition is one of its.
    pub fn has(&self, partition: Partition) -> bool {
        partition.number() % self.config.shards == self.config.index
    }

    /// The hash of a key that its commands are to come with.
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    fn local(&self, partition: Partition) -> usize {
        debug_assert!(self.has(partition));
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

    /// Whether a record is an item that has not expired.
    fn is_live(&self, at: Handle, now_ms: u64) -> bool {
        let expired = self
            .records
            .expires_at(at)
            .is_some_and(|deadline| deadline <= now_ms);
        !expired && !self.records.is_tombstone(at)
    }

    /// The key's live item; one that has expired is dropped if it may be.
    #[inline]
    fn find_live(&mut self, now_ms: u64, p: usize, hash: u64, key: &[u8]) -> Option<Handle> {
        let Some(at) = self.find(p, hash, key) else {
            self.look(p, self.partitions[p].deleted);
            return None;
        };
        self.look(p, self.records.version(at).seq());
        if self.records.is_tombstone(at) {
            return None;
        }
        if self
            .records
            .expires_at(at)
            .is_some_and(|deadline| deadline <= now_ms)
        {
            if self.may_drop(at) {
                self.departures.at(now_ms);
                self.drop_expired(at);
            }
            return None;
        }
        Some(at)
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
        self.unlist_tombstone(at);
        let p = self.local(Partition::of(self.records.key(at)));
        self.partitions[p].tombstones -= 1;
    }

    /// The same of one that its partition does not count.
    fn unlist_tombstone(&mut self, at: Handle) {
        self.tombstones.remove(&mut self.records, at);
        self.tombstone_bytes -= self.records.kept_bytes(at);
        self.stats.tombstones -= 1;
    }

    /// Takes a record out of everything and frees it. Dropping, which raises the horizon, is for the caller to say. Gives whose it was,
    /// and the hash of its key.
    fn remove(&mut self, at: Handle) -> (usize, u64) {
        self.leave_lists(at);
        self.unindex_and_free(at)
    }

    /// Whose record it is, and the hash of its key.
    fn belongs(&self, at: Handle) -> (usize, u64) {
        let key = self.records.key(at);
        (self.local(Partition::of(key)), self.hasher.hash(key))
    }

    fn unindex_and_free(&mut self, at: Handle) -> (usize, u64) {
        let (p, hash) = self.belongs(at);
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
        (p, hash)
    }

    fn may_drop(&self, at: Handle) -> bool {
        may_drop(&self.config, &self.partitions, &self.records, at)
    }

    fn raise_horizon(&mut self, at: Handle) {
        let p = self.local(Partition::of(self.records.key(at)));
        let seq = self.records.version(at).seq();
        let epochs = self.durable.epochs();
        let state = &mut self.partitions[p];
        state.dropped(seq);
        if !state.logged.has(seq, state.last.seq(), epochs) {
            // After a crash an older value may be there again, as if this had never been.
            state.deleted = state.deleted.max(seq);
        }
    }

    fn drop_expired(&mut self, at: Handle) {
        self.raise_horizon(at);
        let seq = self.records.version(at).seq();
        let deadline = self.records.expires_at(at);
        let (p, hash) = self.remove(at);
        self.expired(p, hash, seq, deadline);
    }

    /// As `drop_expired`, for a record that is out of the wheel already.
    fn drop_swept(&mut self, at: Handle) {
        self.raise_horizon(at);
        let deadline = self.records.expires_at(at);
        self.order.remove(&mut self.records, at, deadline);
        self.stats.items -= 1;
        let seq = self.records.version(at).seq();
        let (p, hash) = self.unindex_and_free(at);
        self.expired(p, hash, seq, deadline);
    }

    fn expired(&mut self, p: usize, hash: u64, seq: u64, deadline: Option<u64>) {
        let seqs = self.seqs(p, seq);
        let deadline = deadline.unwrap_or(u64::MAX);
        self.departures.expired(p, hash, seqs, deadline);
        self.stats.expirations += 1;
    }
}

/// What a shard held before it was cleared, to be dropped.
pub struct Forgotten(#[expect(dead_code, reason = "it exists to be dropped")] Shard);

/// A number below the bound, 0 if that is 0, from one of 64 random bits.
fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

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
