//! The shards behind their locks: from a key to its shard, lending of room between shards, and what is done to all of them.
//! A thread holds at most one shard's lock, and briefly; the pool of room is two counters, not a lock. It knows no protocol.

use crate::cache::cursor::{Mark, Position};
use crate::disk::gate::{note_for_replicas, note_journalled, note_unkept};
use henge_engine::{
    Cause, Commit, Footprint, KeyHasher, Lender, PolicyKind, Room, Shard, ShardConfig, ShardStats,
    Short, Size, Turn,
};
use henge_wire::{Command, Outcome, PARTITIONS, Partition, Refusal, Reply, Transaction, Version};
use parking_lot::{Mutex, MutexGuard};
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst,
};

mod ahead;
mod cursor;
mod departures;
mod durable;
mod pool;
mod replicas;
#[cfg(test)]
mod tests;

pub use ahead::{AHEAD, KeysAhead, LookAhead};
pub use cursor::{ParseCursorError, ScanCursor};
pub(crate) use durable::{Generations, Whose};
use pool::Pool;
pub(crate) use replicas::{Carry, Identified, Led};
use replicas::{Replication, Seat};

/// Up to this many items, or bytes, the eviction order is exact over the whole cache: there is one shard.
const EXACT_ITEMS: u64 = 65_536;
const EXACT_BYTES: u64 = 64 << 20;
/// A shard is worth its lock from here on: with less, what it draws at a time would be a large part of it.
const LEAST_SHARD_BYTES: u64 = 16 << 20;
const LEAST_SHARD_ITEMS: u64 = 4_096;
/// More than a shard's handles should have to reach: half of what they can.
const MOST_SHARD_BYTES: u64 = 4 << 30;
/// Shards for each thread: two threads then meet at a lock in one of sixteen commands at the most, and briefly.
const SHARDS_PER_THREAD: usize = 16;
/// Records dropped, or segments evacuated, under one hold of a lock by whoever does not need them at once.
const STEPS: usize = 64;
/// Places of a scan visited under one hold of a lock: some ten records each.
const SCAN_PLACES: usize = 16;
/// Draws of a random key before it is looked for: one of them finds a key unless most of what is there has expired.
const RANDOM_DRAWS: usize = 16;
/// Times that a command is tried again after others have lent room, before its shard evicts whatever it has.
const LENDING_ROUNDS: usize = 4;
/// What a shard may keep beyond its use when room is collected, so that it need not draw again at once.
const IDLE_BYTES: u64 = 512 << 10;
const IDLE_ITEMS: u64 = 64;

/// What a cache is made from.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// The bytes that may be charged.
    pub max_size_bytes: u64,
    /// The items that may be kept; none for any number.
    pub max_items: Option<u64>,
    /// The eviction order.
    pub policy: PolicyKind,
    /// Seeds the hash of keys and the random order.
    pub seed: u64,
    /// The version before each partition's first.
    pub first: Version,
    /// How many threads will use it.
    pub threads: usize,
    /// Rounds the size of an allocation as the allocator does.
    pub allocation_size: fn(usize) -> usize,
    /// Whether it remembers why keys left.
    pub remembers_departures: bool,
}

/// The figures of a cache: sums over its shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// What the shards count.
    pub shards: ShardStats,
    /// How many shards there are.
    pub shard_count: usize,
    /// The bytes that may be charged.
    pub limit_bytes: u64,
    /// Of these, withheld because the machine is short of memory.
    pub withheld_bytes: u64,
    /// The items that may be kept; none for any number.
    pub limit_items: Option<u64>,
    /// The eviction order.
    pub policy: PolicyKind,
    /// Sweeps for what has expired.
    pub sweeps: u64,
}

/// Where a key lies, by [`Cache::locate`]: its partition, and its hash under the cache's seed.
#[derive(Clone, Copy, Debug)]
pub struct Location {
    partition: Partition,
    hash: u64,
}

impl Location {
    /// Its partition.
    #[inline]
    pub fn partition(self) -> Partition {
        self.partition
    }
}

/// See the head of the file.
pub struct Cache {
    shards: Box<[Slot]>,
    hasher: KeyHasher,
    pool: Pool,
    policy: PolicyKind,
    /// Tells the cursors of this process from those of another.
    mark: Mark,
    sweeps: AtomicU64,
    /// The bytes in which each shard remembers what left; 0 where none does.
    departures: AtomicUsize,
    log: LogState,
    /// How its partitions are replicated; none for a node that has them alone.
    replication: OnceLock<Replication>,
}

/// The keys of a transaction are of several partitions, or there are none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOnePartition;

impl fmt::Display for NotOnePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what happens to several keys at once is for keys of one partition")
    }
}

impl std::error::Error for NotOnePartition {}

/// A shard on cache lines of its own, prefetched pairs included.
#[repr(align(128))]
struct Slot {
    shard: Mutex<Seat>,
    /// There is something in its journal. Set under the lock, taken back before it is locked.
    is_journalled: AtomicBool,
    /// Replicas wait for a round of the log that has taken its journal.
    has_taken: AtomicBool,
}

impl Slot {
    /// One of many steps, each under a hold of the lock by itself. It goes to whoever waits for it then: who does the next step at once
    /// would have it again before any other has woken up, and keep a data thread out until the last is done.
    fn step<R>(&self, work: impl FnOnce(&mut Seat) -> R) -> R {
        let mut shard = self.shard.lock();
        let result = work(&mut shard);
        MutexGuard::unlock_fair(shard);
        result
    }

    /// The shard, told how far the log is.
    #[inline]
    fn lock(&self, log: &LogState) -> MutexGuard<'_, Seat> {
        let mut shard = self.shard.lock();
        shard.note_kept(log.kept.load(Relaxed));
        shard
    }

    /// The same for who shows whatever is there: all of it waits for what is not in the log yet.
    fn lock_to_show(&self, log: &LogState) -> MutexGuard<'_, Seat> {
        let shard = self.lock(log);
        if shard.has_unkept() {
            note_unkept();
        }
        shard
    }

    /// Takes notice of what a call has written to the journal, or shown of what is not in the log.
    #[inline]
    fn note(&self, shard: &Shard) {
        if shard.is_unkept() {
            note_unkept();
            self.note_journal(shard);
        }
    }

    /// The same where a machine says itself what may be told.
    fn note_for_replicas(&self, shard: &Shard) {
        if shard.is_unkept() {
            note_for_replicas();
            self.note_journal(shard);
        }
    }

    #[inline]
    fn note_journal(&self, shard: &Shard) {
        note_journalled(shard.journalled_bytes());
        if shard.has_journal() && !self.is_journalled.load(Relaxed) {
            // In one order with the number of the round, which is read after it: see `Log::next_round`.
            self.is_journalled.store(true, SeqCst);
        }
    }
}

/// What the cache knows of the log.
#[derive(Default)]
struct LogState {
    /// All rounds up to this one are kept.
    kept: AtomicU64,
    /// Why writes are refused: a bit for each reason.
    refuses: AtomicU8,
}

/// Why writes are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Refuses {
    /// There is no log yet.
    Loading = 1,
    /// It cannot be written.
    Failed = 2,
    /// What waits for it is as much as may wait.
    Behind = 4,
}

impl LogState {
    /// Why a write is refused now, if it is.
    #[inline]
    fn refusal(&self) -> Option<Refusal> {
        match self.refuses.load(Relaxed) {
            0 => None,
            reasons if reasons == Refuses::Behind as u8 => Some(Refusal::LogBehind),
            _ => Some(Refusal::LogFailed),
        }
    }
}

impl Cache {
    /// An empty cache.
    pub fn new(config: &CacheConfig) -> Self {
        let count = shard_count(config);
        let pool = Pool::new(config.max_size_bytes, config.max_items, count as u64);
        let shards: Box<[Slot]> = (0..count)
            .map(|index| {
                let mut shard = Shard::new(ShardConfig {
                    index: index as u16,
                    shards: count as u16,
                    policy: config.policy,
                    seed: config.seed,
                    first: config.first,
                    // Until it is one of several.
                    commit: Commit::AtOnce,
                    tombstone_bytes: 0,
                    allocation_size: config.allocation_size,
                });
                if config.max_items.is_none() {
                    shard.grant(Room {
                        bytes: 0,
                        items: u64::MAX,
                    });
                }
                Slot {
                    shard: Mutex::new(Seat::new(shard)),
                    is_journalled: AtomicBool::new(false),
                    has_taken: AtomicBool::new(false),
                }
            })
            .collect();
        let cache = Self {
            shards,
            hasher: KeyHasher::new(config.seed),
            pool,
            policy: config.policy,
            mark: Mark::of_seed(config.seed),
            sweeps: AtomicU64::new(0),
            departures: AtomicUsize::new(0),
            log: LogState::default(),
            replication: OnceLock::new(),
        };
        cache.remember_departures(config.remembers_departures);
        cache
    }

    /// Where a key lies: what finding it costs before its shard is locked.
    #[inline]
    pub fn locate(&self, key: &[u8]) -> Location {
        Location {
            partition: Partition::of(key),
            hash: self.hasher.hash(key),
        }
    }

    /// Runs a command. `answer` sees the reply while the key's shard is locked: it copies out what it needs and does
    /// nothing else.
    #[inline]
    pub fn execute<R>(
        &self,
        command: &Command<'_>,
        now_ms: u64,
        answer: impl FnOnce(Reply<'_>) -> R,
    ) -> R {
        self.execute_at(self.locate(command.key), command, now_ms, answer)
    }

    /// The same for a command whose key was located.
    #[inline]
    pub fn execute_at<R>(
        &self,
        at: Location,
        command: &Command<'_>,
        now_ms: u64,
        answer: impl FnOnce(Reply<'_>) -> R,
    ) -> R {
        let Location { partition, hash } = at;
        let index = usize::from(partition.number()) & (self.shards.len() - 1);
        if let Some(refusal) = self.log.refusal()
            && command.operation.is_write()
        {
            return answer(Reply::Refused(refusal));
        }
        let turn = self.turn(now_ms);
        let short = {
            let slot = &self.shards[index];
            let mut shard = slot.lock(&self.log);
            if shard.has_machine(self.place(partition))
                && (command.operation.is_write() || !self.reads_at_one())
            {
                drop(shard);
                return self.ask_command(at, command, now_ms, answer);
            }
            match shard.execute(&turn, partition, hash, command) {
                Ok(reply) => {
                    let answered = answer(reply);
                    slot.note(&shard);
                    return answered;
                }
                Err(short) => short,
            }
        };
        self.execute_with_help(command, index, hash, turn, short, answer)
    }

    #[cold]
    fn execute_with_help<R>(
        &self,
        command: &Command<'_>,
        index: usize,
        hash: u64,
        mut turn: Turn<'_>,
        mut short: Short,
        answer: impl FnOnce(Reply<'_>) -> R,
    ) -> R {
        let partition = Partition::of(command.key);
        for round in 0..=LENDING_ROUNDS {
            if !self.lend_to(index, short.0) || round == LENDING_ROUNDS {
                turn.fair = Room::default();
            }
            let slot = &self.shards[index];
            let mut shard = slot.lock(&self.log);
            if shard.has_machine(self.place(partition)) {
                // Others have come to hold the partition too while room was lent: what passed the machine would be in no copy.
                drop(shard);
                let at = Location { partition, hash };
                return self.ask_command(at, command, turn.now_ms, answer);
            }
            match shard.execute(&turn, partition, hash, command) {
                Ok(reply) => {
                    let answered = answer(reply);
                    slot.note(&shard);
                    return answered;
                }
                Err(again) => short = again,
            }
        }
        // Without a fair share a shard does not say that it is short.
        answer(Reply::Refused(Refusal::MemoryFull))
    }

    /// Runs a transaction: all of its effects happen, under one version, or none does.
    pub fn transact(
        &self,
        transaction: &Transaction<'_>,
        now_ms: u64,
    ) -> Result<Outcome, NotOnePartition> {
        let mut partitions = transaction.keys().map(Partition::of);
        let partition = partitions.next().ok_or(NotOnePartition)?;
        if partitions.any(|other| other != partition) {
            return Err(NotOnePartition);
        }
        if let Some(refusal) = self.log.refusal()
            && !transaction.effects.is_empty()
        {
            return Ok(Outcome::Refused(refusal));
        }
        let index = usize::from(partition.number()) & (self.shards.len() - 1);
        let mut turn = self.turn(now_ms);
        for round in 0..=LENDING_ROUNDS + 1 {
            let slot = &self.shards[index];
            let mut shard = slot.lock(&self.log);
            if shard.has_machine(self.place(partition)) {
                drop(shard);
                return Ok(self.ask_transaction(partition, transaction, now_ms));
            }
            let outcome = shard.transact(&turn, partition, transaction);
            slot.note(&shard);
            drop(shard);
            match outcome {
                Ok(outcome) => return Ok(outcome),
                Err(Short(wanted)) => {
                    if !self.lend_to(index, wanted) || round == LENDING_ROUNDS {
                        turn.fair = Room::default();
                    }
                }
            }
        }
        // Without a fair share a shard does not say that it is short.
        Ok(Outcome::Refused(Refusal::MemoryFull))
    }

    /// Shows live keys from a cursor on, until about `limit` were shown or as many were looked at, and gives the cursor to go
    /// on from. `ScanCursor::default()` begins and ends. Every key that stays throughout is shown at least once.
    pub fn scan(
        &self,
        cursor: ScanCursor,
        limit: usize,
        now_ms: u64,
        each: &mut dyn FnMut(&[u8]),
    ) -> ScanCursor {
        self.scan_by(cursor, limit, now_ms, |shard, partition, place| {
            let mut shown = 0;
            let next = shard.scan(partition, place, now_ms, |key| {
                shown += 1;
                each(key);
            });
            (next, shown)
        })
    }

    /// The same with what each item takes.
    pub fn scan_sizes(
        &self,
        cursor: ScanCursor,
        limit: usize,
        now_ms: u64,
        each: &mut dyn FnMut(&[u8], Size),
    ) -> ScanCursor {
        self.scan_by(cursor, limit, now_ms, |shard, partition, place| {
            let mut shown = 0;
            let next = shard.scan_sizes(partition, place, now_ms, |key, size| {
                shown += 1;
                each(key, size);
            });
            (next, shown)
        })
    }

    /// Goes on with a scan: `show` shows what is at a place, and says what is the next place and how many it has shown.
    fn scan_by(
        &self,
        cursor: ScanCursor,
        limit: usize,
        now_ms: u64,
        mut show: impl FnMut(&Shard, Partition, u32) -> (u32, usize),
    ) -> ScanCursor {
        let mut at = cursor.position(self.mark);
        let mut shown = 0;
        // Empty partitions cost a place each, so a page may end before its limit.
        let mut places = usize::from(PARTITIONS).max(limit);
        while let Some(partition) = Partition::new(at.partition) {
            let looked = self.look_at(partition, now_ms, |shard| {
                for _ in 0..SCAN_PLACES.min(places) {
                    let (next, more) = show(shard, partition, at.place);
                    at.place = next;
                    shown += more;
                    places -= 1;
                    if at.place == 0 || shown >= limit {
                        break;
                    }
                }
            });
            if looked.is_none() {
                // It is another's, or does not say now what it has.
                at.place = 0;
                places -= 1;
            }
            if at.place == 0 {
                at = Position {
                    partition: at.partition + 1,
                    place: 0,
                };
            }
            if shown >= limit || places == 0 {
                break;
            }
        }
        ScanCursor::at(self.mark, at)
    }

    /// A live key, drawn by a random number so that each shard and partition has about its share of them; none if there is
    /// no live key. Where draws find only what has expired, it is the first live key from there on.
    pub fn random_key(&self, mut random: u64, now_ms: u64) -> Option<Vec<u8>> {
        let mut found = None;
        if self.replication.get().is_some() {
            return self.random_key_of_led(random, now_ms);
        }
        for _ in 0..RANDOM_DRAWS {
            let items: Vec<u64> = self.shards.iter().map(|slot| self.count(slot)).collect();
            let sum: u64 = items.iter().sum();
            random = self.hasher.hash(&random.to_le_bytes());
            let mut nth = ((u128::from(random) * u128::from(sum)) >> 64) as u64;
            let drawn = items.iter().position(|&items| {
                let here = nth < items;
                nth = nth.wrapping_sub(if here { 0 } else { items });
                here
            })?;
            // Another number: the one that chose this shard would choose the same part of it.
            random = self.hasher.hash(&random.to_le_bytes());
            let shard = self.shards[drawn].lock_to_show(&self.log);
            if shard.random_key(random, now_ms, |key| found = Some(key.to_vec())) {
                return found;
            }
        }
        let start = random as u16 % PARTITIONS;
        let mut at = Position {
            partition: start,
            place: 0,
        };
        while found.is_none() {
            let partition = Partition::new(at.partition).expect("it is one of them");
            let shard = self.slot(partition).lock_to_show(&self.log);
            for _ in 0..SCAN_PLACES {
                at.place = shard.scan(partition, at.place, now_ms, |key| {
                    found.get_or_insert_with(|| key.to_vec());
                });
                if at.place == 0 {
                    break;
                }
            }
            drop(shard);
            if at.place == 0 {
                at.partition = (at.partition + 1) % PARTITIONS;
                if at.partition == start {
                    break;
                }
            }
        }
        found
    }

    /// The same of the partitions that this node leads.
    fn random_key_of_led(&self, mut random: u64, now_ms: u64) -> Option<Vec<u8>> {
        for _ in 0..RANDOM_DRAWS {
            let counts: Vec<u64> = Partition::all()
                .map(|partition| self.count_of(partition))
                .collect();
            let sum: u64 = counts.iter().sum();
            random = self.hasher.hash(&random.to_le_bytes());
            let mut nth = ((u128::from(random) * u128::from(sum)) >> 64) as u64;
            let drawn = Partition::all().zip(counts).find(|&(_, items)| {
                let here = nth < items;
                nth = nth.wrapping_sub(if here { 0 } else { items });
                here
            });
            let (partition, _) = drawn?;
            random = self.hasher.hash(&random.to_le_bytes());
            let mut found = None;
            self.look_at(partition, now_ms, |shard| {
                shard.random_key_of(partition, random, now_ms, |key| found = Some(key.to_vec()));
            });
            if found.is_some() {
                return found;
            }
        }
        let mut found = None;
        let mut cursor = ScanCursor::default();
        loop {
            cursor = self.scan(cursor, 1, now_ms, &mut |key| {
                found.get_or_insert_with(|| key.to_vec());
            });
            if found.is_some() || cursor.is_end() {
                return found;
            }
        }
    }

    /// What a live item takes. It is no use of it.
    pub fn footprint(&self, key: &[u8], now_ms: u64) -> Option<Footprint> {
        let partition = Partition::of(key);
        let hash = self.hasher.hash(key);
        let looked = self.look_at(partition, now_ms, |shard| {
            shard.footprint(partition, hash, key, now_ms)
        });
        looked.flatten()
    }

    /// The eviction order.
    pub fn policy(&self) -> PolicyKind {
        self.policy
    }

    /// Live items, those included that have expired and were not swept, for a client: what is not in the log yet counts too.
    pub fn size(&self) -> u64 {
        if self.replication.get().is_some() {
            return Partition::all()
                .map(|partition| self.count_of(partition))
                .sum();
        }
        self.shards.iter().map(|slot| self.count(slot)).sum()
    }

    /// Items of a partition; none of one that another node leads.
    fn count_of(&self, partition: Partition) -> u64 {
        let seat = self.slot(partition).lock_to_show(&self.log);
        if seat.shows(self.place(partition)) {
            seat.items_of(partition)
        } else {
            0
        }
    }

    fn count(&self, slot: &Slot) -> u64 {
        slot.lock_to_show(&self.log).items()
    }

    /// The same for a figure.
    pub fn items(&self) -> u64 {
        self.shards.iter().map(|s| s.shard.lock().items()).sum()
    }

    /// Forgets everything; or nothing, if that cannot be logged. The memory is freed after each shard's lock is
    /// released. Whoever answers for it has to wait for the log.
    pub fn flush(&self) -> Result<(), Refusal> {
        if let Some(refusal) = self.log.refusal() {
            return Err(refusal);
        }
        for slot in &self.shards {
            let mut shard = slot.lock(&self.log);
            let forgotten = shard.clear();
            slot.note(&shard);
            drop(shard);
            drop(forgotten);
        }
        Ok(())
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Drops what has expired in one shard, a few records under one hold of its lock; true if there may be more.
    pub fn sweep(&self, shard: usize, now_ms: u64) -> bool {
        let more = self.shards[shard].step(|shard| shard.sweep(now_ms, STEPS));
        if !more {
            self.sweeps.fetch_add(1, Relaxed);
        }
        more
    }

    /// Gives back a segment of one shard that deletes and expiry have mostly emptied; true if there may be more.
    pub fn compact(&self, shard: usize) -> bool {
        self.shards[shard].step(|shard| shard.compact())
    }

    /// Takes the room that one shard does not use back into the pool.
    pub fn collect_idle(&self, shard: usize) {
        let mut shard = self.shards[shard].shard.lock();
        let (granted, stats) = (shard.granted(), shard.stats());
        let room = shard.surrender(Room {
            bytes: granted
                .bytes
                .saturating_sub(stats.charged_bytes + IDLE_BYTES),
            items: if self.pool.limit_items().is_some() {
                granted.items.saturating_sub(stats.items + IDLE_ITEMS)
            } else {
                0
            },
        });
        drop(shard);
        self.pool.give(room);
    }

    /// Changes the limits. What is above them is evicted before this returns.
    pub fn set_limits(&self, max_size_bytes: u64, max_items: Option<u64>) {
        let had_items = self.pool.limit_items().is_some();
        self.pool.set_limits(max_size_bytes, max_items);
        for shard in &self.shards {
            let mut shard = shard.shard.lock();
            match (had_items, max_items) {
                (true, None) => shard.grant(Room {
                    bytes: 0,
                    items: u64::MAX,
                }),
                (false, Some(_)) => {
                    // What was unlimited counts from what is there.
                    shard.surrender(Room {
                        bytes: 0,
                        items: u64::MAX,
                    });
                    self.pool.charge_items(shard.granted().items);
                }
                _ => {}
            }
        }
        self.remember_departures(self.departures.load(Relaxed) > 0);
        self.pay_debts(Cause::Size);
    }

    /// Withholds this many bytes of the limit, as the machine is short of memory, and evicts what is above the rest.
    pub fn withhold(&self, bytes: u64) {
        self.pool.withhold(bytes);
        self.pay_debts(Cause::Pressure);
    }

    /// The bytes withheld now.
    pub fn withheld(&self) -> u64 {
        self.pool.withheld()
    }

    /// The bytes that may be charged.
    pub fn limit_bytes(&self) -> u64 {
        self.pool.limit_bytes()
    }

    /// The bytes charged now.
    pub fn charged_bytes(&self) -> u64 {
        self.shards
            .iter()
            .map(|s| s.shard.lock().charged_bytes())
            .sum()
    }

    /// The figures.
    pub fn stats(&self) -> CacheStats {
        let mut sum = ShardStats::default();
        for shard in &self.shards {
            let one = shard.shard.lock().stats();
            sum += one;
        }
        CacheStats {
            shards: sum,
            shard_count: self.shards.len(),
            limit_bytes: self.pool.limit_bytes(),
            withheld_bytes: self.pool.withheld(),
            limit_items: self.pool.limit_items(),
            policy: self.policy,
            sweeps: self.sweeps.load(Relaxed),
        }
    }

    fn slot(&self, partition: Partition) -> &Slot {
        &self.shards[usize::from(partition.number()) & (self.shards.len() - 1)]
    }

    fn turn(&self, now_ms: u64) -> Turn<'_> {
        Turn {
            now_ms,
            lender: &self.pool,
            fair: self.pool.fair(),
            limit: self.pool.limit(),
            cause: self.pool.cause(),
        }
    }

    /// Collects room for a shard from the others, the richest first; false if they have none.
    fn lend_to(&self, index: usize, wanted: Room) -> bool {
        let mut rich: Vec<(Room, usize)> = (0..self.shards.len())
            .filter(|&other| other != index)
            .map(|other| (self.shards[other].shard.lock().granted(), other))
            .collect();
        rich.sort_unstable_by_key(|(room, _)| {
            std::cmp::Reverse(if wanted.bytes > 0 {
                room.bytes
            } else {
                room.items
            })
        });
        let mut got = Room {
            bytes: self.pool.lend_bytes(0, wanted.bytes),
            items: self.pool.lend_items(0, wanted.items),
        };
        for (granted, other) in rich {
            // A shard that still counts without a limit, while one is being set, has nothing to lend.
            let items = if granted.items <= self.pool.limit().items {
                granted.items / 2
            } else {
                0
            };
            let ask = Room {
                bytes: (wanted.bytes - got.bytes).min(granted.bytes / 2),
                items: (wanted.items - got.items).min(items),
            };
            if ask == Room::default() {
                continue;
            }
            let room = Self::collect(&self.shards[other], ask, self.pool.cause());
            got.bytes += room.bytes;
            got.items += room.items;
            if got.bytes >= wanted.bytes && got.items >= wanted.items {
                break;
            }
        }
        self.shards[index].shard.lock().grant(got);
        got.bytes >= wanted.bytes && got.items >= wanted.items
    }

    /// Has a shard give up room, evicting if it must, a few records under each hold of its lock.
    fn collect(slot: &Slot, ask: Room, cause: Cause) -> Room {
        let mut got = Room::default();
        loop {
            let left = Room {
                bytes: ask.bytes - got.bytes,
                items: ask.items - got.items,
            };
            let (done, room) =
                slot.step(|shard| (shard.vacate(left, cause, STEPS), shard.surrender(left)));
            got.bytes += room.bytes;
            got.items += room.items;
            if done || got == ask {
                return got;
            }
        }
    }

    /// Collects from all shards, in proportion to what they have, until the pool owes nothing.
    fn pay_debts(&self, cause: Cause) {
        let debt = self.pool.debt();
        if debt == Room::default() {
            return;
        }
        let granted: Vec<Room> = self
            .shards
            .iter()
            .map(|s| s.shard.lock().granted())
            .collect();
        let sum = |part: fn(&Room) -> u64| {
            granted
                .iter()
                .map(|room| u128::from(part(room)))
                .sum::<u128>()
                .max(1)
        };
        let (bytes, items) = (sum(|room| room.bytes), sum(|room| room.items));
        for (shard, granted) in self.shards.iter().zip(&granted) {
            // Rounded up, so that the shares make up the whole.
            let share = |debt: u64, part: u64, whole: u128| {
                (u128::from(debt) * u128::from(part))
                    .div_ceil(whole)
                    .min(u128::from(part)) as u64
            };
            let ask = Room {
                bytes: share(debt.bytes, granted.bytes, bytes),
                items: share(debt.items, granted.items, items),
            };
            self.pool.give(Self::collect(shard, ask, cause));
        }
    }
}

/// How many shards a cache of these limits has: a power of two.
fn shard_count(config: &CacheConfig) -> usize {
    let items = config.max_items.unwrap_or(u64::MAX);
    if items <= EXACT_ITEMS || config.max_size_bytes <= EXACT_BYTES {
        return 1;
    }
    let worth = (config.max_size_bytes / LEAST_SHARD_BYTES).min(items / LEAST_SHARD_ITEMS);
    let wanted = (config.threads.max(1) * SHARDS_PER_THREAD) as u64;
    let needed = config.max_size_bytes.div_ceil(MOST_SHARD_BYTES);
    let count = worth.min(wanted).max(needed).max(1);
    let power = 1 << count.ilog2();
    let power = if power < needed { power * 2 } else { power };
    power.min(u64::from(PARTITIONS)) as usize
}
