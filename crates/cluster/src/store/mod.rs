//! The table of a replica that the engine is. `PartitionTable` is one partition of a shard for as long as a call takes: whoever
//! carries the replica has the shard behind its lock, the time, and where room comes from. It decides nothing: what may be
//! dropped, and what is in the log, is the shard's, and all else the protocol's.
//!
//! ```text
//! let mut table = PartitionTable::new(&mut shard, partition, turn);
//! replica.handle(&mut table, now_ms, input);
//! while let Some(output) = replica.poll() { ... }
//! let written = replica.written(&table);    // Input::Kept(written) once the journal is in the log
//! ```
//!
//! Beside it stands what makes a shard again of its log and a snapshot, all of it bytes: see [`disk`].

pub mod disk;
mod served;
mod value;

pub use henge_engine::persistence::replica::EncodedEffects;
pub use served::{Asked, Served, Show, Shown};
pub use value::{Reply, Value};

use crate::history::History;
use crate::replica::{
    Entry, Key, NoRoom, Progress, Ran, Record, Replace, State, Table, Types, Wiped,
};
use henge_engine::{MissCause, RecordView, ReplicaState, Room, Shard, Short, Turn};
use henge_wire::{Command, Outcome, Partition, Refusal, Transaction, Version};
use std::fmt;
use std::marker::PhantomData;

/// What goes into the table and comes out of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Store {}

impl Types for Store {
    type Request<'r> = Request<'r>;
    type Reply = Reply;
    type Effects = EncodedEffects;
    type Value = Value;

    fn bytes(record: &Record<Value>) -> usize {
        bytes(record)
    }

    fn effects_bytes(effects: &EncodedEffects) -> usize {
        effects.len()
    }
}

fn bytes(record: &Record<Value>) -> usize {
    let value = record.value.as_ref();
    record.key.len() + value.map_or(0, |value| value.data.len())
}

/// A way of asking the engine: what a request is, and what is made of the reply while its shard lends it.
pub trait Ways: Types<Effects = EncodedEffects, Value = Value> {
    /// What is to be run.
    fn request<'r: 'r>(asked: &Self::Request<'r>) -> Request<'r>;

    /// Makes a reply of what it came to.
    fn reply(asked: &Self::Request<'_>, shown: Shown<'_>) -> Self::Reply;
}

impl Ways for Store {
    fn request<'r: 'r>(asked: &Request<'r>) -> Request<'r> {
        *asked
    }

    fn reply(_: &Request<'_>, shown: Shown<'_>) -> Reply {
        match shown {
            Shown::Reply(reply) => Reply::of(&reply),
            Shown::Outcome(outcome) => Reply::Transacted(outcome),
            Shown::Looked => unreachable!("what is kept of a reply is that of a command"),
        }
    }
}

/// What a client asks, as it was decoded: nothing of it is copied.
#[derive(Clone, Copy)]
pub enum Request<'r> {
    /// One operation on one key, and the [hash](Shard::hash) of that.
    Command(&'r Command<'r>, u64),
    /// Several keys.
    Transaction(&'r Transaction<'r>),
    /// What the partition has, whatever it is: nothing is changed.
    Look(&'r dyn Look),
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command, _) => command.fmt(f),
            Self::Transaction(transaction) => transaction.fmt(f),
            Self::Look(_) => f.write_str("Look"),
        }
    }
}

/// Looks at all that there is of a partition.
pub trait Look {
    /// Takes what it needs of the partition's shard, at most once.
    fn look(&self, shard: &Shard);
}

/// See the head of the file.
pub struct PartitionTable<'a, W = Store> {
    shard: &'a mut Shard,
    partition: Partition,
    turn: Turn<'a>,
    short: Option<Short>,
    overdrawn: Room,
    ways: PhantomData<W>,
}

impl<'a> PartitionTable<'a> {
    /// A partition of this shard. Its commits have to be [told](henge_engine::Commit::Told), and the version before the first of
    /// its partitions zero.
    pub fn new(shard: &'a mut Shard, partition: Partition, turn: Turn<'a>) -> Self {
        Self::of(shard, partition, turn)
    }
}

impl<'a> PartitionTable<'a, Served> {
    /// The same for a node.
    pub fn served(shard: &'a mut Shard, partition: Partition, turn: Turn<'a>) -> Self {
        Self::of(shard, partition, turn)
    }
}

impl<'a, W> PartitionTable<'a, W> {
    fn of(shard: &'a mut Shard, partition: Partition, turn: Turn<'a>) -> Self {
        Self {
            shard,
            partition,
            turn,
            short: None,
            overdrawn: Room::default(),
            ways: PhantomData,
        }
    }

    /// What the shard was short of, if others may lend it: the call has said that there is no room, and may be repeated once there
    /// is.
    pub fn short(&self) -> Option<Short> {
        self.short
    }

    /// What the shard has granted itself for a copy, beyond what it was granted. It is to be had back as soon as it can be.
    pub fn overdrawn(&self) -> Room {
        self.overdrawn
    }

    fn turn(&self, now_ms: u64) -> Turn<'a> {
        Turn {
            now_ms,
            ..self.turn
        }
    }

    /// The seq of what there is of a key, 0 if there is nothing.
    fn seq_of(&self, key: &[u8]) -> u64 {
        let record = self.shard.record(self.partition, key);
        record.map_or(0, |record| record.version.seq())
    }

    /// The seq that a reply rests on which has changed nothing.
    fn seen(&self, request: &Request<'_>, rests: Rests) -> u64 {
        match (rests, request) {
            (Rests::Version(version), _) => version.seq(),
            (Rests::Nothing, _) | (Rests::Keys(_), Request::Look(_)) => 0,
            // It may be a tombstone that was seen, or what has expired.
            (Rests::Keys(_), Request::Command(command, _)) => self.seq_of(command.key),
            // That those before it hold is shown as well.
            (Rests::Keys(guards), Request::Transaction(transaction)) => {
                let checked = transaction.guards[..guards].iter();
                let seqs = checked.map(|guard| self.seq_of(guard.key));
                seqs.max().unwrap_or(0)
            }
        }
    }
}

/// What a reply rests on that has changed nothing.
#[derive(Clone, Copy)]
enum Rests {
    /// An item or a change of it.
    Version(Version),
    /// What there is of the key, or of those of so many guards.
    Keys(usize),
    /// No key.
    Nothing,
}

impl Rests {
    fn of(shown: &Shown<'_>) -> Self {
        match shown {
            Shown::Reply(reply) => match reply {
                henge_wire::Reply::Found(item) => Self::Version(item.version),
                henge_wire::Reply::Stored { version, .. }
                | henge_wire::Reply::Refused(Refusal::PreconditionFailed(Some(version))) => {
                    Self::Version(*version)
                }
                henge_wire::Reply::Refused(Refusal::TooLarge) => Self::Nothing,
                _ => Self::Keys(1),
            },
            Shown::Outcome(Outcome::Applied(last)) => Self::Version(*last),
            Shown::Outcome(Outcome::Failed { guard, .. }) => Self::Keys(guard + 1),
            Shown::Outcome(Outcome::Refused(_)) | Shown::Looked => Self::Nothing,
        }
    }
}

impl<W: Ways> Table<W> for PartitionTable<'_, W> {
    fn progress(&self) -> Progress {
        let henge_engine::Progress {
            last,
            commit,
            horizon,
        } = self.shard.progress(self.partition);
        Progress {
            last,
            commit,
            horizon,
        }
    }

    fn execute(
        &mut self,
        now_ms: u64,
        asked: &W::Request<'_>,
        wants_effects: bool,
    ) -> Ran<EncodedEffects, W::Reply> {
        let (turn, partition) = (self.turn(now_ms), self.partition);
        let before = self.shard.progress(partition).last;
        self.shard.set_captures(wants_effects);
        let request = W::request(asked);
        let shown = match &request {
            Request::Command(command, hash) => {
                let reply = self.shard.execute(&turn, partition, *hash, command);
                reply.map(Shown::Reply)
            }
            Request::Transaction(transaction) => {
                let outcome = self.shard.transact(&turn, partition, transaction);
                outcome.map(Shown::Outcome)
            }
            Request::Look(look) => {
                look.look(self.shard);
                return Ran::Saw(before.seq(), W::reply(asked, Shown::Looked));
            }
        };
        let (rests, reply) = match shown {
            Ok(
                Shown::Reply(henge_wire::Reply::Refused(Refusal::MemoryFull))
                | Shown::Outcome(Outcome::Refused(Refusal::MemoryFull)),
            ) => return Ran::NoRoom,
            Ok(shown) => (Rests::of(&shown), W::reply(asked, shown)),
            Err(short) => {
                self.short = Some(short);
                return Ran::NoRoom;
            }
        };
        let last = self.shard.progress(partition).last;
        if last == before {
            return Ran::Saw(self.seen(&request, rests), reply);
        }
        let effects = wants_effects.then(|| self.shard.last_effects());
        let effects = effects.map(|effects| effects.expect("something was stamped"));
        Ran::Changed(last, effects, reply)
    }

    fn keys(&self, effects: &EncodedEffects) -> Vec<Key> {
        effects.with(|effects| effects.iter().map(|(key, _)| key.to_vec()).collect())
    }

    fn apply(&mut self, now_ms: u64, entry: &Entry<EncodedEffects>) -> Result<(), NoRoom> {
        let turn = self.turn(now_ms);
        let applied =
            self.shard
                .apply_encoded(&turn, self.partition, entry.version, &entry.effects);
        applied.map_err(|short| {
            self.short = Some(short);
            NoRoom
        })
    }

    fn commit(&mut self, seq: u64) {
        self.shard.commit(self.partition, seq);
    }

    fn commit_at_once(&mut self, at_once: bool) {
        self.shard.set_commits_at_once(self.partition, at_once);
    }

    fn log(&mut self, state: &State) {
        self.shard.log_state(self.partition, &state.into());
    }

    fn align(&mut self, term: u32, state: &State) {
        self.shard.align(self.partition, term, &state.into());
    }

    fn record(&self, key: &[u8]) -> Option<Record<Value>> {
        let record = self.shard.record(self.partition, key)?;
        Some(owned(&record))
    }

    fn scan(&self, place: u32, above: u64, each: &mut dyn FnMut(Record<Value>)) -> u32 {
        let each = |record: RecordView<'_>| each(owned(&record));
        self.shard.scan_records(self.partition, above, place, each)
    }

    fn install(
        &mut self,
        replace: Replace,
        records: Vec<Record<Value>>,
        progress: Progress,
        state: &State,
    ) {
        let views: Vec<RecordView<'_>> = records.iter().map(view).collect();
        let replace = match replace {
            Replace::All => henge_engine::Replace::All,
            Replace::Above(seq) => henge_engine::Replace::Above(seq),
        };
        let (turn, partition) = (self.turn, self.partition);
        let overdrawn = self.shard.install(
            &turn,
            partition,
            replace,
            &views,
            progress.into(),
            &state.into(),
        );
        self.overdrawn += overdrawn;
    }

    fn fill(&mut self, states: Vec<(Key, Option<Record<Value>>)>) {
        let states = states.iter();
        let views: Vec<RecordView<'_>> = states
            .map(|(key, record)| record.as_ref().map_or(RecordView::nothing(key), view))
            .collect();
        self.overdrawn += self.shard.fill(&self.turn, self.partition, &views);
    }

    fn complete(&mut self, progress: Progress, state: &State) {
        let partition = self.partition;
        self.shard
            .complete(partition, progress.into(), &state.into());
    }

    fn empty(&mut self) {
        self.shard.empty(self.partition);
    }

    fn keep(&mut self, state: &State) {
        self.shard.keep(self.partition, &state.into());
    }

    fn wipe(&mut self, state: &State) {
        self.shard.wipe_to(self.partition, &state.into());
    }

    fn explain_wipe(&mut self, why: Wiped) {
        let cause = match why {
            Wiped::Ordered => MissCause::Flushed,
            Wiped::Lost => MissCause::Lost,
            Wiped::Removed => MissCause::Moved,
        };
        self.shard.explain_wipe(self.partition, cause);
    }
}

/// A record with a life of its own.
pub(crate) fn owned(record: &RecordView<'_>) -> Record<Value> {
    Record {
        key: record.key.to_vec(),
        version: record.version,
        value: Value::of(record),
    }
}

/// A record as the shard takes it.
pub(crate) fn view(record: &Record<Value>) -> RecordView<'_> {
    let value = record.value.as_ref();
    RecordView {
        key: &record.key,
        version: record.version,
        expires_at_ms: value.and_then(|value| value.expires_at_ms),
        body: value.map_or(henge_engine::Body::Tombstone, |value| {
            henge_engine::Body::Value(value.view())
        }),
    }
}

impl From<Progress> for henge_engine::Progress {
    fn from(progress: Progress) -> Self {
        let Progress {
            last,
            commit,
            horizon,
        } = progress;
        Self {
            last,
            commit,
            horizon,
        }
    }
}

impl From<&State> for ReplicaState {
    fn from(state: &State) -> Self {
        Self {
            adopted: state.adopted,
            generation: state.generation,
            history: state.history.terms().to_vec(),
        }
    }
}

/// What was decoded of a file has its terms in order.
impl From<&ReplicaState> for State {
    fn from(state: &ReplicaState) -> Self {
        Self {
            adopted: state.adopted,
            generation: state.generation,
            history: History::from(&state.history[..]),
        }
    }
}

#[cfg(test)]
mod tests;
