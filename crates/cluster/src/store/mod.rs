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
mod value;

pub use henge_engine::persistence::replica::EncodedEffects;
pub use value::{Reply, Value};

use crate::history::History;
use crate::replica::{Entry, Key, NoRoom, Progress, Ran, Record, Replace, State, Table, Types};
use henge_engine::{RecordView, ReplicaState, Room, Shard, Short, Turn};
use henge_wire::{Command, Outcome, Partition, Refusal, Transaction};

/// What goes into the table and comes out of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Store {}

impl Types for Store {
    type Request<'r> = Request<'r>;
    type Reply = Reply;
    type Effects = EncodedEffects;
    type Value = Value;

    fn bytes(record: &Record<Value>) -> usize {
        let value = record.value.as_ref();
        record.key.len() + value.map_or(0, |value| value.data.len())
    }

    fn effects_bytes(effects: &EncodedEffects) -> usize {
        effects.len()
    }
}

/// What a client asks, as it was decoded: nothing of it is copied.
#[derive(Clone, Copy, Debug)]
pub enum Request<'r> {
    /// One operation on one key, and the [hash](Shard::hash) of that.
    Command(&'r Command<'r>, u64),
    /// Several keys.
    Transaction(&'r Transaction<'r>),
}

/// See the head of the file.
pub struct PartitionTable<'a> {
    shard: &'a mut Shard,
    partition: Partition,
    turn: Turn<'a>,
    short: Option<Short>,
    overdrawn: Room,
}

impl<'a> PartitionTable<'a> {
    /// A partition of this shard. Its commits have to be [told](henge_engine::Commit::Told), and the version before the first of
    /// its partitions zero.
    pub fn new(shard: &'a mut Shard, partition: Partition, turn: Turn<'a>) -> Self {
        Self {
            shard,
            partition,
            turn,
            short: None,
            overdrawn: Room::default(),
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

    /// What a reply rests on that has changed nothing.
    fn seen(&self, request: &Request<'_>, reply: &Reply) -> u64 {
        match (request, reply) {
            (
                _,
                Reply::Found(_, version)
                | Reply::Stored { version, .. }
                | Reply::Refused(Refusal::PreconditionFailed(Some(version))),
            ) => version.seq(),
            (_, Reply::Refused(Refusal::TooLarge)) => 0,
            // It may be a tombstone that was seen, or what has expired.
            (Request::Command(command, _), _) => self.seq_of(command.key),
            (Request::Transaction(transaction), Reply::Transacted(outcome)) => match outcome {
                Outcome::Applied(last) => last.seq(),
                // That those before it hold is shown as well.
                Outcome::Failed { guard, .. } => {
                    let checked = transaction.guards[..=*guard].iter();
                    let seqs = checked.map(|guard| self.seq_of(guard.key));
                    seqs.max().unwrap_or(0)
                }
                Outcome::Refused(_) => 0,
            },
            (Request::Transaction(_), _) => unreachable!("a transaction has an outcome"),
        }
    }
}

impl Table<Store> for PartitionTable<'_> {
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
        request: &Request<'_>,
        wants_effects: bool,
    ) -> Ran<EncodedEffects, Reply> {
        let (turn, partition) = (self.turn(now_ms), self.partition);
        let before = self.progress().last;
        self.shard.set_captures(wants_effects);
        let outcome = match request {
            Request::Command(command, hash) => {
                let reply = self.shard.execute(&turn, partition, *hash, command);
                reply.map(|reply| Reply::of(&reply))
            }
            Request::Transaction(transaction) => {
                let outcome = self.shard.transact(&turn, partition, transaction);
                outcome.map(Reply::Transacted)
            }
        };
        let reply = match outcome {
            Ok(
                Reply::Refused(Refusal::MemoryFull)
                | Reply::Transacted(Outcome::Refused(Refusal::MemoryFull)),
            ) => return Ran::NoRoom,
            Ok(reply) => reply,
            Err(short) => {
                self.short = Some(short);
                return Ran::NoRoom;
            }
        };
        let last = self.progress().last;
        if last == before {
            let seen = self.seen(request, &reply);
            return Ran::Saw(seen, reply);
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
        let progress = henge_engine::Progress {
            last: progress.last,
            commit: progress.commit,
            horizon: progress.horizon,
        };
        let (turn, partition) = (self.turn, self.partition);
        let overdrawn =
            self.shard
                .install(&turn, partition, replace, &views, progress, &state.into());
        self.overdrawn.bytes += overdrawn.bytes;
        self.overdrawn.items += overdrawn.items;
    }

    fn keep(&mut self, state: &State) {
        self.shard.keep(self.partition, &state.into());
    }

    fn wipe(&mut self, state: &State) {
        self.shard.wipe_to(self.partition, &state.into());
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
