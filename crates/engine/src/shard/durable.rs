//! A shard and the log: what it applies is written to a journal, in the order of its partitions; how much of that is kept is
//! told later, and an answer that shows more has to wait. And the other way: records of a snapshot are restored, and those of
//! the log replayed; those of a node that replicates are for `recover`. It decides neither when a journal is taken nor what makes it safe.

use super::recover::Recovery;
use super::room::NoRoom;
use super::write::Target;
use super::{Replace, Shard, Short};
use crate::budget::{Room, Turn};
use crate::partition::{Epochs, Progress};
use crate::persistence::journal::Journal;
use crate::persistence::replica::{
    EncodedEffects, ReplicaRecord, encode_entry_put, encode_part, parts,
};
use crate::persistence::wal::{Record, encode_put};
use crate::record::Body;
use crate::shard::RecordView;
use henge_wire::{Effect, Mutation, Partition, Value, Version};
use std::collections::BTreeSet;
use std::fmt;

/// Why a record can be written to a journal.
const WRITTEN: &str = "no value is near the longest record, and transactions were measured";

/// A journal that has come to this is followed by another one. So none is longer than this and a record, whoever writes them
/// out can stop in between, and no call waits while one grows that has megabytes.
const JOURNAL_BYTES: usize = 1 << 20;

/// What a shard knows of the log.
#[derive(Default)]
pub(super) struct Durable {
    /// What is not handed over; none where there is no log.
    journal: Option<Journal>,
    /// Those before it that have come to their length, oldest first.
    filled: Vec<Journal>,
    /// Counts the journals: what is written to the present one is of this epoch.
    epoch: u64,
    /// The round that has the journal before, if that is not known to be kept.
    round: Option<u64>,
    /// The last call showed what is not known to be kept, or made it.
    pub(super) is_unkept: bool,
    /// The bytes that the last call wrote to the journal.
    journalled_bytes: usize,
    /// In a recovery: partitions of which a missing part of the log may have had mutations.
    pub(super) suspects: BTreeSet<usize>,
    /// In a recovery of a node that replicates.
    pub(super) recovery: Recovery,
    /// Without a journal: effects are encoded for those who stream them, and those of the last call.
    captures: bool,
    captured: Option<EncodedEffects>,
}

impl Durable {
    /// A call begins.
    #[inline]
    pub(super) fn begin_call(&mut self) {
        self.is_unkept = false;
        self.journalled_bytes = 0;
    }

    /// A record was written to the journal, which had so many bytes before.
    #[inline]
    fn wrote(&mut self, before: usize) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let len = journal.frames().len();
        self.journalled_bytes += len - before;
        if len >= JOURNAL_BYTES {
            self.filled.push(std::mem::take(journal));
        }
    }

    /// Whether what happens is written to a journal.
    pub(super) fn has_log(&self) -> bool {
        self.journal.is_some()
    }

    fn write_frame(&mut self, write: impl FnOnce(&mut Journal)) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        self.is_unkept = true;
        let before = journal.frames().len();
        write(journal);
        self.wrote(before);
    }

    /// Writes parts of a copy, from this number on, and says which comes next.
    pub(super) fn write_parts(
        &mut self,
        partition: Partition,
        first: u32,
        records: &[RecordView<'_>],
    ) -> u32 {
        let mut number = first;
        if self.has_log() {
            for part in parts(records) {
                self.write_frame(|journal| {
                    encode_part(partition, number, part, journal).expect(WRITTEN);
                });
                number += 1;
            }
        }
        number
    }

    #[inline]
    pub(super) fn epochs(&self) -> Epochs {
        Epochs {
            present: self.epoch,
            has_unkept: self.round.is_some(),
        }
    }
}

/// What became of a record that was replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replayed {
    /// It was applied, or is of all partitions.
    Applied,
    /// What it did is in the snapshot.
    Covered,
    /// There is no room for it: its keys were forgotten.
    Forgotten,
}

/// A record cannot be replayed: it is not one that this log would have here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayError {
    /// It is not the next of its partition.
    NotNext(NotNext),
    /// It is of this partition, and one of its keys is of another.
    Foreign(Partition),
    /// It is of this partition, and installs a copy of which parts are missing.
    Parts(Partition),
}

impl From<NotNext> for ReplayError {
    fn from(not_next: NotNext) -> Self {
        Self::NotNext(not_next)
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNext(not_next) => not_next.fmt(f),
            Self::Foreign(partition) => write!(
                f,
                "a record of partition {} has a key of another one",
                partition.number()
            ),
            Self::Parts(partition) => write!(
                f,
                "a copy of partition {} lacks some of its parts",
                partition.number()
            ),
        }
    }
}

impl std::error::Error for ReplayError {}

/// A record is not the next of its partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotNext {
    /// The partition.
    pub partition: Partition,
    /// How far it has come.
    pub last: Version,
    /// The record's version.
    pub found: Version,
}

impl fmt::Display for NotNext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partition,
            last,
            found,
        } = self;
        write!(
            f,
            "version {found} of partition {} does not follow its version {last}",
            partition.number()
        )
    }
}

impl std::error::Error for NotNext {}

impl Shard {
    /// From now on what is applied is written to a journal. What there is counts as kept. Replicas that have lost their memory are
    /// so in the log as well then, once that has what is in the journal now.
    pub fn start_journal(&mut self) {
        self.durable.journal = Some(Journal::default());
        self.durable.epoch += 1;
        self.filling.interrupt_all();
        self.journal_losses();
    }

    /// Whether there is something in the journal.
    #[inline]
    pub fn has_journal(&self) -> bool {
        matches!(&self.durable.journal, Some(journal) if !journal.is_empty())
            || !self.durable.filled.is_empty()
    }

    /// Whether the last call showed, or made, what is not known to be in the log: its answer has to wait until that is.
    #[inline]
    pub fn is_unkept(&self) -> bool {
        self.durable.is_unkept
    }

    /// A call begins that is none of the shard's own, and may come to several or none: what these write and show counts for it alone.
    #[inline]
    pub fn begin_call(&mut self) {
        self.durable.begin_call();
    }

    /// The bytes that the last call wrote to the journal.
    #[inline]
    pub fn journalled_bytes(&self) -> usize {
        self.durable.journalled_bytes
    }

    /// Whether anything is not known to be in the log.
    pub fn has_unkept(&self) -> bool {
        self.has_journal() || self.durable.round.is_some()
    }

    /// Adds the journal to those of the round of this number, in as many parts as it has come to, and goes on with an empty
    /// one. All rounds before are kept.
    pub fn take_journal(&mut self, round: u64, empty: Journal, batch: &mut Vec<Journal>) {
        self.note_kept(round - 1);
        let Some(journal) = &mut self.durable.journal else {
            return;
        };
        batch.append(&mut self.durable.filled);
        let taken = std::mem::replace(journal, empty);
        if !taken.is_empty() {
            batch.push(taken);
        }
        self.durable.epoch += 1;
        self.durable.round = Some(round);
    }

    /// All rounds up to this one are in the log.
    #[inline]
    pub fn note_kept(&mut self, round: u64) {
        if self.durable.round.is_some_and(|handed| handed <= round) {
            self.durable.round = None;
        }
    }

    /// Takes notice that a call depends on what a partition had at this seq.
    #[inline]
    pub(super) fn look(&mut self, p: usize, seq: u64) {
        let state = &self.partitions[p];
        let last = state.last.seq();
        self.durable.is_unkept |= !state.logged.has(seq, last, self.durable.epochs());
    }

    /// Writes a mutation that was applied to the journal.
    #[inline]
    pub(super) fn journal(&mut self, p: usize, version: Version, effects: &[(&[u8], Effect<'_>)]) {
        if self.durable.journal.is_some() {
            self.journal_mutation(p, version, effects);
        } else if self.durable.captures {
            self.capture(effects);
        }
    }

    /// From now on, or no longer, effects are there for [`last_effects`](Self::last_effects) also where there is no journal.
    #[inline]
    pub fn set_captures(&mut self, captures: bool) {
        self.durable.captures = captures;
        self.durable.captured = None;
    }

    /// The effects of the mutation that the last call has stamped, as they are in the journal. Only of a shard whose commits
    /// are told.
    pub fn last_effects(&self) -> Option<EncodedEffects> {
        let Durable {
            journal,
            filled,
            journalled_bytes: len,
            captured,
            ..
        } = &self.durable;
        let Some(journal) = journal else {
            return captured.clone();
        };
        let journal = if journal.is_empty() {
            filled.last()?
        } else {
            journal
        };
        (*len > 0).then(|| EncodedEffects::of_frame(journal, *len))
    }

    #[cold]
    fn capture(&mut self, effects: &[(&[u8], Effect<'_>)]) {
        self.durable.captured = Some(EncodedEffects::encode(effects).expect(WRITTEN));
    }

    /// The same for one value.
    #[inline]
    pub(super) fn journal_put(
        &mut self,
        p: usize,
        version: Version,
        key: &[u8],
        value: &Value<'_>,
        expires_at_ms: Option<u64>,
    ) {
        if self.durable.journal.is_none() {
            if self.durable.captures {
                let effect = Effect::Put {
                    value: value.clone(),
                    expires_at_ms,
                };
                self.capture(&[(key, effect)]);
            }
            return;
        }
        let (partition, is_replica) = (self.global(p), self.is_replica(p));
        let commit = self.partitions[p].commit;
        self.note_journalled(p);
        self.durable.is_unkept = true;
        if let Some(journal) = &mut self.durable.journal {
            let before = journal.frames().len();
            let put = (value, expires_at_ms);
            let written = if is_replica {
                encode_entry_put(journal, (partition, version, commit), key, put)
            } else {
                encode_put(journal, partition, version, key, put)
            };
            written.expect(WRITTEN);
            self.durable.wrote(before);
        }
    }

    fn journal_mutation(&mut self, p: usize, version: Version, effects: &[(&[u8], Effect<'_>)]) {
        let partition = self.global(p);
        self.note_journalled(p);
        let mutation = Mutation {
            partition,
            version,
            effects,
        };
        self.journal_record(&if self.is_replica(p) {
            let commit = self.partitions[p].commit;
            Record::Replica(ReplicaRecord::Entry { mutation, commit })
        } else {
            Record::Mutation(mutation)
        });
    }

    /// Writes an entry that another replica has encoded.
    pub(super) fn journal_entry(&mut self, p: usize, version: Version, effects: &EncodedEffects) {
        let (partition, commit) = (self.global(p), self.partitions[p].commit);
        if self.durable.journal.is_some() {
            self.note_journalled(p);
        }
        self.durable.write_frame(|journal| {
            let written = effects.encode_entry(partition, version, commit, journal);
            written.expect(WRITTEN);
        });
    }

    /// Writes what changes a partition otherwise than by the next of its order.
    pub(super) fn journal_replica(&mut self, p: usize, record: ReplicaRecord<'_>) {
        self.filling.interrupt(p);
        if self.durable.journal.is_some() {
            let epochs = self.durable.epochs();
            self.partitions[p].logged.note_all(epochs);
            self.journal_record(&Record::Replica(record));
        }
    }

    #[inline]
    fn note_journalled(&mut self, p: usize) {
        let epochs = self.durable.epochs();
        self.partitions[p].logged.note(epochs);
    }

    pub(super) fn journal_flush(&mut self, p: usize, last: Version) {
        let partition = self.global(p);
        if self.durable.journal.is_some() {
            self.note_journalled(p);
        }
        self.journal_record(&Record::Flush { partition, last });
    }

    pub(super) fn journal_record(&mut self, record: &Record<'_>) {
        self.durable
            .write_frame(|journal| record.encode(journal).expect(WRITTEN));
    }

    /// The partition at a place of this shard.
    pub(super) fn global(&self, p: usize) -> Partition {
        let number = p * usize::from(self.config.shards) + usize::from(self.config.index);
        u16::try_from(number)
            .ok()
            .and_then(Partition::new)
            .expect("it is one of the partitions")
    }

    /// Puts a record of a snapshot, in no order with others of its partition. A tombstone is none to a node that keeps none.
    /// Without room the key is forgotten if `turn` has no fair share, as then nobody can help.
    ///
    /// # Panics
    /// If the key is of another partition.
    pub fn restore(
        &mut self,
        turn: &Turn<'_>,
        partition: Partition,
        record: &RecordView<'_>,
    ) -> Result<Replayed, Short> {
        assert_eq!(
            Partition::of(record.key),
            partition,
            "a record is of its key's partition"
        );
        let p = self.local(partition);
        let target = Target {
            p,
            hash: self.hasher.hash(record.key),
            key: record.key,
            version: record.version,
        };
        let seq = record.version.seq();
        if !self.is_replica(p) {
            // What is in a snapshot may be dropped.
            let commit = self.partitions[p].commit.max(seq);
            self.partitions[p].commit = commit;
        }
        let outcome = match &record.body {
            Body::Value(_) => self.put(turn, &target, &record.body, record.expires_at_ms),
            Body::Tombstone if self.keeps_tombstones(p) => self.bury(turn, &target),
            Body::Tombstone => {
                self.partitions[p].dropped(seq);
                Ok(())
            }
        };
        match outcome {
            Ok(()) => Ok(Replayed::Applied),
            Err(NoRoom::Short(short)) if turn.fair != Room::default() => Err(short),
            Err(_) => {
                self.forget(&target);
                self.owe(p, seq);
                Ok(Replayed::Forgotten)
            }
        }
    }

    /// A partition goes on from here: all of its records in the snapshot were restored.
    pub fn resume(&mut self, partition: Partition, progress: Progress) {
        let p = self.local(partition);
        let is_replica = self.is_replica(p);
        let state = &mut self.partitions[p];
        state.last = progress.last;
        state.horizon = state.horizon.max(progress.horizon);
        state.commit = state.commit.max(if is_replica {
            progress.commit
        } else {
            progress.last.seq()
        });
    }

    /// Applies a record of the log again. Without room its keys are forgotten if `turn` has no fair share.
    pub fn replay(
        &mut self,
        turn: &Turn<'_>,
        record: &Record<'_>,
    ) -> Result<Result<Replayed, Short>, ReplayError> {
        match record {
            Record::Replica(record) => self.replay_replica(turn, record),
            Record::Mutation(mutation) => {
                let p = self.local(mutation.partition);
                let is_foreign = |key: &[u8]| Partition::of(key) != mutation.partition;
                if mutation.effects.iter().any(|(key, _)| is_foreign(key)) {
                    return Err(ReplayError::Foreign(mutation.partition));
                }
                if !self.goes_on_alone(p) || !self.is_next(p, mutation.version)? {
                    return Ok(Ok(Replayed::Covered));
                }
                Ok(match self.apply_next(turn, p, mutation) {
                    Ok(()) => Ok(Replayed::Applied),
                    Err(NoRoom::Short(short)) if turn.fair != Room::default() => Err(short),
                    Err(_) => {
                        self.forget_all(p, mutation);
                        Ok(Replayed::Forgotten)
                    }
                })
            }
            Record::Flush { partition, last } => {
                let p = self.local(*partition);
                if !self.goes_on_alone(p) || !self.is_next(p, *last)? {
                    return Ok(Ok(Replayed::Covered));
                }
                self.remove_records(p, Replace::All);
                self.advance(p, *last, true);
                self.raise_horizon_to(p, last.seq());
                Ok(Ok(Replayed::Applied))
            }
            Record::Started { first, .. } => {
                self.durable.recovery.forget_parts();
                for p in 0..self.partitions.len() {
                    // That the next version follows the first one tells nothing of what was missing before.
                    let is_suspect = self.durable.suspects.contains(&p);
                    if is_suspect && self.partitions[p].last < *first {
                        self.forget_partition(p);
                    }
                }
                self.go_on_from(*first);
                Ok(Ok(Replayed::Applied))
            }
            Record::Gap { .. } => {
                let alone = (0..self.partitions.len()).filter(|&p| !self.is_replica(p));
                self.durable.suspects = alone.collect();
                self.lose_replicas();
                Ok(Ok(Replayed::Applied))
            }
            Record::Synced(_) | Record::Follows(_) => Ok(Ok(Replayed::Applied)),
        }
    }

    /// Partitions that have not come as far go on from this version.
    /// Replicas do so in a term of theirs.
    pub fn go_on_from(&mut self, first: Version) {
        for p in 0..self.partitions.len() {
            if self.partitions[p].last < first && !self.is_replica(p) {
                if self.durable.suspects.contains(&p) {
                    // What follows from here on says nothing any more of what is missing before.
                    self.forget_partition(p);
                }
                let state = &mut self.partitions[p];
                state.last = first;
                state.commit = state.commit.max(first.seq());
            }
        }
    }

    /// All of the snapshot and of the log was replayed. What a missing part of the log may have changed is forgotten. Says how
    /// many partitions that was. Of replicas those have lost their memory.
    pub fn finish_recovery(&mut self) -> usize {
        self.departures.begin_life();
        let suspects = std::mem::take(&mut self.durable.suspects);
        let forgotten = suspects.len();
        for p in suspects {
            self.forget_partition(p);
        }
        for p in 0..self.partitions.len() {
            if !self.is_replica(p) {
                let state = &mut self.partitions[p];
                state.commit = state.last.seq();
                state.horizon = state.horizon.min(state.commit);
            }
        }
        forgotten + self.finish_replicas()
    }

    /// Whether this version is the next of its partition's order; if not, it is one that was there.
    fn is_next(&mut self, p: usize, version: Version) -> Result<bool, NotNext> {
        let last = self.partitions[p].last;
        if version.seq() <= last.seq() {
            return Ok(false);
        }
        let follows = version.seq() == last.seq() + 1 && version.term() >= last.term();
        if !follows && !self.durable.suspects.contains(&p) {
            return Err(NotNext {
                partition: self.global(p),
                last,
                found: version,
            });
        }
        if !follows {
            // Nobody knows which of its keys were changed meanwhile.
            self.forget_partition(p);
        }
        self.durable.suspects.remove(&p);
        Ok(true)
    }

    fn forget_partition(&mut self, p: usize) {
        self.remove_records(p, Replace::All);
        self.raise_horizon_to(p, self.partitions[p].last.seq());
    }

    /// What was changed by versions up to this one may be missing without a tombstone.
    fn raise_horizon_to(&mut self, p: usize, seq: u64) {
        let state = &mut self.partitions[p];
        state.commit = state.commit.max(seq);
        state.horizon = state.horizon.max(seq);
    }

    fn forget_all(&mut self, p: usize, mutation: &Mutation<'_>) {
        self.forget_keys(p, mutation);
        self.advance(p, mutation.version, true);
        self.raise_horizon_to(p, mutation.version.seq());
    }

    pub(super) fn forget_keys(&mut self, p: usize, mutation: &Mutation<'_>) {
        for (key, _) in mutation.effects {
            self.forget(&Target {
                p,
                hash: self.hasher.hash(key),
                key,
                version: mutation.version,
            });
        }
    }
}
