//! The table that ships, with a disk of bytes: a shard of the engine for each partition of each node, and what its journal comes to
//! in a log of which a crash takes any end.

use crate::store::{Asks, Found, Held, Size, Store, Told, What, place_of};
use bytes::Bytes;
use henge_cluster::carrier::FrameOf;
use henge_cluster::replica::{Entry, Key, NoRoom, Progress, Ran, Record, Replace, State, Table};
use henge_cluster::store::disk::{ShardSettings, Snapshot, take_log};
use henge_cluster::store::{EncodedEffects, PartitionTable, Reply, Request, Store as Kind, Value};
use henge_cluster::testing::random::Random;
use henge_engine::persistence::journal::Pieces;
use henge_engine::{Cause, Room, Shard};
use henge_wire::{
    Command, Expiry, Match, Operation, PARTITIONS, Partition, Precondition, Refusal, Version,
};
use std::cell::RefCell;

/// Seeds the hash of keys, of all shards alike: nothing rests on it.
const HASH_SEED: u64 = 1;
/// Bytes of a shard's room beside that of its records, which are few and small: it is the number of records that bounds.
const ROOM_BYTES: u64 = 4 << 20;
/// A log that has come to this many bytes is followed by a snapshot: some hundred records.
const LOG_BYTES: usize = 16 << 10;

/// See the head of the file.
pub struct Engine {
    settings: ShardSettings,
    partition: Partition,
    /// The table's readers have it for as long as they look.
    shard: RefCell<Shard>,
    log: Vec<u8>,
    /// Up to here it is in the file, and up to here it is synced.
    written: usize,
    synced: usize,
    /// Bytes that went with snapshots.
    gone: usize,
    snapshot: Option<Vec<u8>>,
    /// One that waits for what it needs to be synced: where the log began, and where it has to be synced to.
    next_snapshot: Option<(Vec<u8>, usize, usize)>,
    snapshots: u64,
    scans_by_key: bool,
}

impl Engine {
    fn with<R>(&self, now_ms: u64, call: impl FnOnce(&mut PartitionTable<'_>) -> R) -> R {
        let mut shard = self.shard.borrow_mut();
        let turn = self.settings.turn(now_ms);
        let mut table = PartitionTable::new(&mut shard, self.partition, turn);
        call(&mut table)
    }

    /// A call that may grant itself room, which is had back as far as it is not in use.
    fn overdraw(&mut self, call: impl FnOnce(&mut PartitionTable<'_>)) {
        let overdrawn = self.with(0, |table| {
            call(table);
            table.overdrawn()
        });
        self.shard.get_mut().surrender(overdrawn);
    }

    fn hand_over(&mut self) {
        let bytes = take_log(self.shard.get_mut());
        self.log.extend(bytes);
    }
}

/// A number as the engine has it.
fn number(value: &Value) -> u64 {
    let text = std::str::from_utf8(&value.data).expect("it is a number");
    text.parse().expect("it is a number")
}

impl Table<Kind> for Engine {
    fn progress(&self) -> Progress {
        self.with(0, |table| table.progress())
    }

    fn execute(
        &mut self,
        now_ms: u64,
        request: &Request<'_>,
        wants_effects: bool,
    ) -> Ran<EncodedEffects, Reply> {
        self.with(now_ms, |table| {
            table.execute(now_ms, request, wants_effects)
        })
    }

    fn keys(&self, effects: &EncodedEffects) -> Vec<Key> {
        self.with(0, |table| table.keys(effects))
    }

    fn apply(&mut self, now_ms: u64, entry: &Entry<EncodedEffects>) -> Result<(), NoRoom> {
        self.with(now_ms, |table| table.apply(now_ms, entry))
    }

    fn commit(&mut self, seq: u64) {
        self.with(0, |table| table.commit(seq));
    }

    fn log(&mut self, state: &State) {
        self.with(0, |table| table.log(state));
    }

    fn align(&mut self, term: u32, state: &State) {
        self.with(0, |table| table.align(term, state));
    }

    fn record(&self, key: &[u8]) -> Option<Record<Value>> {
        self.with(0, |table| table.record(key))
    }

    fn scan(&self, place: u32, above: u64, each: &mut dyn FnMut(Record<Value>)) -> u32 {
        if !self.scans_by_key {
            return self.with(0, |table| table.scan(place, above, each));
        }
        // What there is, by the scan of the table, which has few places.
        let mut left = Vec::new();
        let mut at = 0;
        loop {
            let mut show = |record: Record<Value>| left.push((place_of(&record.key), record));
            at = self.with(0, |table| table.scan(at, 0, &mut show));
            if at == 0 {
                break;
            }
        }
        left.retain(|&(at, _)| at >= place);
        let Some(here) = left.iter().map(|&(at, _)| at).min() else {
            return 0;
        };
        let is_last = left.iter().all(|&(at, _)| at == here);
        let shown = left.into_iter().filter(|&(at, _)| at == here);
        let shown = shown.map(|(_, record)| record);
        shown
            .filter(|record| record.version.seq() > above)
            .for_each(each);
        if is_last { 0 } else { here + 1 }
    }

    fn install(
        &mut self,
        replace: Replace,
        records: Vec<Record<Value>>,
        progress: Progress,
        state: &State,
    ) {
        self.overdraw(|table| table.install(replace, records, progress, state));
    }

    fn fill(&mut self, states: Vec<(Key, Option<Record<Value>>)>) {
        self.overdraw(|table| table.fill(states));
    }

    fn complete(&mut self, progress: Progress, state: &State) {
        self.with(0, |table| table.complete(progress, state));
    }

    fn empty(&mut self) {
        self.with(0, |table| table.empty());
    }

    fn keep(&mut self, state: &State) {
        self.with(0, |table| table.keep(state));
    }

    fn wipe(&mut self, state: &State) {
        self.with(0, |table| table.wipe(state));
    }
}

impl Store for Engine {
    type Kind = Kind;

    fn create(size: Size) -> Self {
        let room = Room {
            bytes: ROOM_BYTES,
            items: size.records as u64,
        };
        let settings = ShardSettings {
            index: size.partition.number(),
            shards: PARTITIONS,
            ..ShardSettings::new(room, HASH_SEED)
        };
        Self {
            shard: RefCell::new(settings.shard()),
            settings,
            partition: size.partition,
            log: Vec::new(),
            written: 0,
            synced: 0,
            gone: 0,
            snapshot: None,
            next_snapshot: None,
            snapshots: 0,
            scans_by_key: size.scans_by_key,
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.shard.borrow().hash(key)
    }

    fn request(asks: &Asks, now_ms: u64, hash: u64, call: impl FnOnce(Request<'_>)) {
        let (text, versions) = match asks.what {
            What::Set(number) | What::SetFor(number, _) | What::Add(number) => {
                (number.to_string(), [Version::ZERO])
            }
            What::Swap(version, number) => (number.to_string(), [version]),
            What::Get | What::Delete | What::Increment => (String::new(), [Version::ZERO]),
        };
        let value = henge_wire::Value::from_slice(text.as_bytes());
        let none = Precondition::NONE;
        let set = |value, expiry, precondition| Operation::Set {
            value,
            expiry,
            precondition,
        };
        let operation = match asks.what {
            What::Get => Operation::Get,
            What::Set(_) => set(value, Expiry::Never, none),
            What::SetFor(_, for_ms) => set(value, Expiry::At(now_ms + for_ms), none),
            What::Delete => Operation::Delete { precondition: none },
            What::Add(_) => {
                let absent = Precondition {
                    none_matches: Some(Match::Any),
                    ..none
                };
                set(value, Expiry::Never, absent)
            }
            What::Increment => Operation::Increment {
                by: 1,
                initial: 0,
                expiry: Expiry::Never,
            },
            What::Swap(..) => {
                let same = Precondition {
                    matches: Some(Match::OneOf(&versions)),
                    ..none
                };
                set(value, Expiry::Never, same)
            }
        };
        let command = Command {
            key: &asks.key,
            operation,
        };
        call(Request::Command(&command, hash));
    }

    fn told(what: What, reply: &Reply) -> Told {
        let version_of = |version: Version, value: Option<u64>, is_changed| Told {
            version: Some(version),
            is_there: true,
            value,
            is_changed,
        };
        match reply {
            Reply::Found(value, version) => version_of(*version, Some(number(value)), false),
            Reply::Stored { version, .. } => version_of(*version, None, true),
            Reply::Counted { value, version, .. } => {
                version_of(*version, Some(*value as u64), true)
            }
            Reply::Refused(Refusal::PreconditionFailed(Some(version))) => {
                version_of(*version, None, false)
            }
            // A delete is stamped though there was nothing.
            Reply::Deleted | Reply::Missing => Told {
                is_changed: what == What::Delete,
                ..Told::default()
            },
            Reply::Refused(Refusal::PreconditionFailed(None)) => Told::default(),
            Reply::Refused(_) | Reply::Transacted(_) => panic!("nobody asks for {reply:?}"),
        }
    }

    fn carry(frame: FrameOf<Kind>) -> FrameOf<Kind> {
        let mut pieces = Pieces::default();
        frame.encode(&mut pieces).expect("it is short");
        let bytes = Bytes::from(pieces.iter().collect::<Vec<_>>().concat());
        let read = FrameOf::<Kind>::decode(&bytes);
        let read = read.unwrap_or_else(|error| panic!("{error}: {frame:?}"));
        assert_eq!(read, frame, "it says what was said");
        read
    }

    fn held(&self, key: &[u8]) -> Option<Held> {
        let record = self.record(key)?;
        Some((record.version, record.value.as_ref().map(number)))
    }

    fn all_keys(&self) -> Vec<Key> {
        let (mut keys, mut place) = (Vec::new(), 0);
        loop {
            place = self.scan(place, 0, &mut |record| keys.push(record.key));
            if place == 0 {
                return keys;
            }
        }
    }

    fn hand(&mut self) -> u64 {
        if self.next_snapshot.is_none() && self.log.len() > LOG_BYTES {
            self.hand_over();
            let from = self.log.len();
            self.snapshots += 1;
            let snapshot = Snapshot::of(self.shard.get_mut(), self.snapshots);
            self.hand_over();
            self.next_snapshot = Some((snapshot, self.gone + from, self.gone + self.log.len()));
        }
        self.hand_over();
        (self.gone + self.log.len()) as u64
    }

    fn written(&mut self, batch: u64) {
        self.written = self.written.max(batch as usize - self.gone);
    }

    fn sync_written(&mut self) {
        self.synced = self.written;
        if let Some((snapshot, from, _)) = self
            .next_snapshot
            .take_if(|(.., until)| *until <= self.gone + self.synced)
        {
            // Now it counts, and what is before it may go.
            let gone = from - self.gone;
            self.log.drain(..gone);
            self.gone = from;
            self.written -= gone;
            self.synced -= gone;
            self.snapshot = Some(snapshot);
        }
    }

    fn crash(&mut self, is_machine: bool, random: &mut Random) -> Found {
        let safe = if is_machine {
            self.synced
        } else {
            self.written
        };
        let survives = random.within(safe as u64, self.log.len() as u64);
        self.log.truncate(survives as usize);
        self.next_snapshot = None;
        let found = self
            .settings
            .recover(0, self.snapshot.as_deref(), &self.log);
        let found = found.unwrap_or_else(|error| panic!("it is found again: {error}"));
        self.log.truncate(found.log_bytes);
        self.written = self.log.len();
        self.synced = self.written;
        self.shard = RefCell::new(found.shard);
        let replica = found.replicas.get(&self.partition).cloned();
        let replica = replica.unwrap_or_default();
        Found {
            state: replica.state,
            progress: replica.progress,
            has_lost_memory: replica.has_lost_memory,
        }
    }

    fn evict(&mut self, _: &mut Random) -> bool {
        let shard = self.shard.get_mut();
        let items = shard.stats().items;
        let all_but_one = Room {
            bytes: 0,
            items: (self.settings.room.items + 1).saturating_sub(items),
        };
        shard.vacate(all_but_one, Cause::Size, 2);
        shard.stats().items < items
    }
}
