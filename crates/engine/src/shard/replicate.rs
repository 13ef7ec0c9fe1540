//! What replication does with a shard: mutations that a leader stamped are applied, commits are told, records are shown above
//! a version, a copy of a partition is installed or wiped, and what the protocol promises is kept beside them. Who leads, and
//! what a commit needs, is decided elsewhere.

use super::room::NoRoom;
use super::write::Target;
use super::{Shard, Short};
use crate::arena::Handle;
use crate::budget::{Lender, Room, Turn};
use crate::departures::MissCause;
use crate::partition::{PartitionState, Progress, ReplicaState, Replicated};
use crate::persistence::replica::{EncodedEffects, ReplicaRecord};
use crate::persistence::wal::Record;
use crate::record::{Body, Records};
use henge_wire::{Effect, Mutation, Partition, Version};

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

impl<'a> RecordView<'a> {
    /// In a part of a copy: there is nothing of this key any more.
    pub fn nothing(key: &'a [u8]) -> Self {
        Self {
            key,
            version: Version::ZERO,
            expires_at_ms: None,
            body: Body::Tombstone,
        }
    }

    /// Whether it says that.
    pub(super) fn is_nothing(&self) -> bool {
        self.version == Version::ZERO
    }
}

/// What a shard has at a place.
pub(super) fn view(records: &Records, at: Handle) -> RecordView<'_> {
    RecordView {
        key: records.key(at),
        version: records.version(at),
        expires_at_ms: records.expires_at(at),
        body: records.body(at),
    }
}

/// What a copy replaces when it is installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replace {
    /// Every record.
    All,
    /// The records above this seq.
    Above(u64),
}

impl Replace {
    /// Whether no record stays: none has the seq 0.
    pub(super) fn is_all(self) -> bool {
        matches!(self, Self::All | Self::Above(0))
    }
}

/// A scan of a partition for a snapshot, which others change meanwhile.
#[derive(Clone, Debug)]
pub struct Scan {
    before: Progress,
    /// The state of the protocol when it began; none if nothing was ever promised, or the partition is not replicated.
    pub state: Option<ReplicaState>,
}

impl Scan {
    /// How far the partition had come when it began.
    pub fn before(&self) -> Progress {
        self.before
    }
}

/// Lends whatever is needed.
struct Boundless;

impl Lender for Boundless {
    fn lend_bytes(&self, need: u64, _: u64) -> u64 {
        need
    }

    fn lend_items(&self, need: u64, _: u64) -> u64 {
        need
    }
}

impl Shard {
    /// Applies a mutation that somebody stamped. If there is no room nothing of it is applied, and it may be applied again.
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
        match self.apply_next(turn, p, mutation) {
            Ok(()) => self.journal(p, version, mutation.effects),
            Err(NoRoom::Short(short)) => return Err(short),
            Err(NoRoom::Refused(_)) => return Err(Short(Room::default())),
        }
        Ok(())
    }

    /// The same for an entry as another replica has encoded it, which goes to the journal as it came.
    ///
    /// # Panics
    /// As above.
    pub fn apply_encoded(
        &mut self,
        turn: &Turn<'_>,
        partition: Partition,
        version: Version,
        effects: &EncodedEffects,
    ) -> Result<(), Short> {
        let p = self.local(partition);
        let last = self.partitions[p].last;
        assert!(
            version.seq() == last.seq() + 1 && version.term() >= last.term(),
            "{version} does not follow {last}"
        );
        let applied = effects.with(|effects| {
            let mutation = Mutation {
                partition,
                version,
                effects,
            };
            self.apply_next(turn, p, &mutation)
        });
        match applied {
            Ok(()) => self.journal_entry(p, version, effects),
            Err(NoRoom::Short(short)) => return Err(short),
            Err(NoRoom::Refused(_)) => return Err(Short(Room::default())),
        }
        Ok(())
    }

    /// The same for a mutation that is known to be in order.
    pub(super) fn apply_next(
        &mut self,
        turn: &Turn<'_>,
        p: usize,
        mutation: &Mutation<'_>,
    ) -> Result<(), NoRoom> {
        self.departures.at(turn.now_ms);
        let version = mutation.version;
        let forgets = |effect: &Effect<'_>| !matches!(effect, Effect::Put { .. });
        let forgets = mutation.effects.iter().any(|(_, effect)| forgets(effect));
        match mutation.effects {
            [] => {}
            // One needs no plan, and may be written where the record before it lies.
            [(key, effect)] => {
                let target = Target {
                    p,
                    hash: self.hasher.hash(key),
                    key,
                    version,
                };
                match effect {
                    Effect::Put {
                        value,
                        expires_at_ms,
                    } => self.put(turn, &target, &Body::Value(value.clone()), *expires_at_ms)?,
                    Effect::Expire { expires_at_ms } => {
                        self.expire(turn, &target, *expires_at_ms)?;
                    }
                    Effect::Delete => self.delete(turn, &target)?,
                }
            }
            effects => {
                self.carry_out(turn, p, version, effects)?;
            }
        }
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

    /// From now on, or no longer, what a partition applies is committed with that, as nobody else has it; what it has applied is
    /// then. What of it may be shown is another matter: see [`is_unkept`](Self::is_unkept).
    pub fn set_commits_at_once(&mut self, partition: Partition, at_once: bool) {
        let p = self.local(partition);
        let state = &mut self.partitions[p];
        state.commits_at_once = at_once;
        if at_once {
            state.commit = state.last.seq();
        }
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

    /// Shows the records above a seq, tombstones included, at one place of a partition's scan, and gives the next place. What a partition
    /// is being filled with is none of them yet.
    pub fn scan_records(
        &self,
        partition: Partition,
        above: u64,
        place: u32,
        mut each: impl FnMut(RecordView<'_>),
    ) -> u32 {
        let p = self.local(partition);
        if self.filling.has(p) {
            return 0;
        }
        self.buckets.scan(&self.partitions[p].table, place, |at| {
            if self.records.version(at).seq() > above {
                each(view(&self.records, at));
            }
        })
    }

    /// What a partition has of a key.
    pub fn record(&self, partition: Partition, key: &[u8]) -> Option<RecordView<'_>> {
        let at = self.find(self.local(partition), self.hasher.hash(key), key)?;
        Some(view(&self.records, at))
    }

    /// The state of the protocol, as it was written last.
    pub fn replica_state(&self, partition: Partition) -> &ReplicaState {
        &self.replicas[self.local(partition)].state
    }

    /// Writes the state of the protocol.
    pub fn log_state(&mut self, partition: Partition, state: &ReplicaState) {
        let p = self.local(partition);
        self.replicas[p].state.clone_from(state);
        let PartitionState { last, commit, .. } = self.partitions[p];
        let record = ReplicaRecord::State {
            partition,
            last,
            commit,
            state: state.clone(),
        };
        self.journal_replica(p, record);
    }

    /// The same where a new generation begins with the records that are there: that they were committed, and what was dropped, was
    /// so in the one before.
    pub fn keep(&mut self, partition: Partition, state: &ReplicaState) {
        let p = self.local(partition);
        (self.partitions[p].commit, self.partitions[p].horizon) = (0, 0);
        self.log_state(partition, state);
    }

    /// The same where the partition is aligned in a later term, at the same seq.
    pub fn align(&mut self, partition: Partition, term: u32, state: &ReplicaState) {
        let p = self.local(partition);
        let last = &mut self.partitions[p].last;
        assert!(term >= last.term(), "terms only grow");
        *last = Version::new(term, last.seq());
        if last.seq() == 0 {
            self.durable.recovery.found_again(p);
        }
        self.log_state(partition, state);
    }

    /// Installs a copy in one step, which is one in the log as well: removes what it replaces, puts its records, and takes its
    /// progress, of a copy of what has changed the higher of both, and the state of the protocol. A record that there is no room for is dropped if it is committed. What is not
    /// may not be dropped, and it cannot be refused either: the shard grants itself what it lacks, and says how much that is.
    pub fn install(
        &mut self,
        turn: &Turn<'_>,
        partition: Partition,
        replace: Replace,
        records: &[RecordView<'_>],
        progress: Progress,
        state: &ReplicaState,
    ) -> Room {
        assert!(
            progress.horizon <= progress.commit && progress.commit <= progress.last.seq(),
            "a copy's progress is in order"
        );
        let p = self.local(partition);
        if replace.is_all() {
            self.durable.recovery.found_again(p);
        }
        self.replicas[p].state.clone_from(state);
        let parts = self.durable.write_parts(partition, 0, records);
        let commit = match replace {
            Replace::All => progress.commit,
            Replace::Above(_) => self.partitions[p].commit.max(progress.commit),
        };
        let record = ReplicaRecord::Installed {
            partition,
            replace,
            progress: Progress { commit, ..progress },
            parts,
            state: state.clone(),
        };
        self.journal_replica(p, record);
        self.replace(p, replace, progress);
        let mut overdrawn = Room::default();
        for record in records {
            let seq = record.version.seq();
            if seq > self.partitions[p].commit {
                overdrawn += self.put_promised(turn, p, record);
            } else if !self.put_copied(turn, p, record) {
                self.partitions[p].dropped(seq);
            }
        }
        overdrawn
    }

    /// Puts a record of a copy that may not be dropped. What the shard lacks for it it grants itself, and says how much that is.
    pub(super) fn put_promised(
        &mut self,
        turn: &Turn<'_>,
        p: usize,
        record: &RecordView<'_>,
    ) -> Room {
        if self.put_copied(turn, p, record) {
            return Room::default();
        }
        let before = self.granted;
        let limit = Room {
            bytes: u64::MAX,
            items: u64::MAX,
        };
        let boundless = Turn {
            lender: &Boundless,
            limit,
            ..*turn
        };
        let is_put = self.put_copied(&boundless, p, record);
        assert!(is_put, "no shard is near the end of its addresses");
        Room {
            bytes: self.granted.bytes - before.bytes,
            items: self.granted.items - before.items,
        }
    }

    /// Removes what a copy replaces, and takes its progress.
    pub(super) fn replace(&mut self, p: usize, replace: Replace, progress: Progress) {
        self.remove_records(p, replace);
        self.take_progress(p, replace, progress);
    }

    /// The same where what it replaces is gone.
    pub(super) fn take_progress(&mut self, p: usize, replace: Replace, progress: Progress) {
        self.replaced(p, replace);
        let state = &mut self.partitions[p];
        if replace == Replace::All {
            // Nothing is left of what its own rest on.
            (state.commit, state.horizon) = (0, 0);
            // What left it where it was is remembered there.
            if progress.last.seq() > 0 {
                self.departures.all_left(p, MissCause::Moved, 0);
            }
        }
        assert!(
            state.commit <= progress.last.seq(),
            "a copy's progress and what is committed here are in order"
        );
        state.last = progress.last;
        state.commit = state.commit.max(progress.commit);
        state.horizon = state.horizon.max(progress.horizon);
        state.deleted = progress.last.seq();
    }

    /// Puts a record of a copy; false if there is no room for it. An older one of its key is gone then, as it must not be taken
    /// for it.
    pub(super) fn put_copied(
        &mut self,
        turn: &Turn<'_>,
        p: usize,
        record: &RecordView<'_>,
    ) -> bool {
        let turn = Turn {
            fair: Room::default(),
            ..*turn
        };
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
        if outcome.is_err() {
            self.remove_copied(p, record.key);
        }
        outcome.is_ok()
    }

    /// What a copy has brought of a key, or would take the place of, is gone.
    pub(super) fn remove_copied(&mut self, p: usize, key: &[u8]) {
        if let Some(older) = self.find(p, self.hasher.hash(key), key) {
            self.remove(older);
        }
    }

    /// Begins the scan of a partition for the snapshot of this number, one at a time. Of a partition that is replicated the log
    /// says where that was: a recovery from that snapshot goes on from there.
    pub fn begin_scan(&mut self, partition: Partition, snapshot: u64) -> Scan {
        let p = self.local(partition);
        let before = self.progress(partition);
        // Once the snapshot is whole the log before it goes.
        self.filling.interrupt(p);
        let replica = self.replicas.get_mut(p);
        let state = replica.filter(|own| own.is_replica).map(|replica| {
            replica.unreplaced = u64::MAX;
            replica.state.clone()
        });
        let is_lost = self.durable.recovery.has_lost(p);
        let is_known = |state: &ReplicaState| {
            is_lost || *state != ReplicaState::default() || before.last > Version::ZERO
        };
        let state = state.filter(is_known);
        if let Some(state) = &state {
            let record = ReplicaRecord::Scanned {
                partition,
                snapshot,
            };
            self.journal_record(&Record::Replica(record));
            if is_lost {
                // The snapshot does not say it, and what did may go with the log before it.
                let state = state.clone();
                self.journal_record(&Record::Replica(ReplicaRecord::Lost { partition, state }));
            }
        }
        Scan { before, state }
    }

    /// What a snapshot is to say of a partition whose scan is done: how far it was at its begin, and what was dropped since, as
    /// the scan may not have come to that. Only as far as the order is what it was: all else is in the log behind the
    /// begin, with what it replaced.
    pub fn end_scan(&self, partition: Partition, scan: &Scan) -> Progress {
        let (before, after) = (scan.before, self.progress(partition));
        let replica = self.replicas.get(self.local(partition));
        let same = replica.map_or(u64::MAX, |replica| replica.unreplaced);
        let same = same.min(before.last.seq());
        let horizon = before.horizon.max(after.horizon.min(same));
        let commit = if replica.is_some() {
            after.commit.min(same)
        } else {
            horizon
        };
        Progress {
            last: before.last,
            commit: before.commit.max(commit),
            horizon,
        }
    }

    /// Forgets a partition as if it had never been: for a new generation, in which old data counts for nothing.
    pub fn wipe(&mut self, partition: Partition) {
        let p = self.local(partition);
        self.filling.end(p);
        let state = &self.partitions[p];
        let keys = state.table.len() - state.tombstones;
        if keys > 0 {
            self.departures.all_left(p, MissCause::Lost, keys.into());
        }
        self.remove_records(p, Replace::All);
        let PartitionState {
            logged,
            commits_at_once,
            ..
        } = self.partitions[p];
        self.partitions[p] = PartitionState {
            logged,
            ..PartitionState::new(Version::ZERO, commits_at_once)
        };
        self.replaced(p, Replace::All);
        self.departures.begin_anew(p);
    }

    /// Why all records of a partition went when it was wiped last.
    pub fn explain_wipe(&mut self, partition: Partition, cause: MissCause) {
        let p = self.local(partition);
        self.departures.explain(p, cause);
    }

    fn replaced(&mut self, p: usize, replace: Replace) {
        if let Some(Replicated { unreplaced, .. }) = self.replicas.get_mut(p) {
            *unreplaced = match replace {
                Replace::All => 0,
                Replace::Above(seq) => seq.min(*unreplaced),
            };
        }
    }

    /// The same with the state of the protocol since, in the log as well.
    pub fn wipe_to(&mut self, partition: Partition, state: &ReplicaState) {
        self.wipe(partition);
        let p = self.local(partition);
        self.replicas[p].state.clone_from(state);
        let state = state.clone();
        self.journal_replica(p, ReplicaRecord::Wiped { partition, state });
    }

    pub(super) fn remove_records(&mut self, p: usize, replace: Replace) {
        let Replace::Above(seq) = replace else {
            self.discard(p);
            return;
        };
        let mut doomed = Vec::new();
        self.buckets.each(&self.partitions[p].table, |at| {
            if self.records.version(at).seq() > seq {
                doomed.push(at);
            }
        });
        for at in doomed {
            let seq = self.records.version(at).seq();
            let (p, hash) = self.remove(at);
            // What took its place in the order may put it back; else it is in no order that survived.
            let seqs = self.seqs(p, seq);
            self.departures.lost(p, hash, seqs);
        }
    }
}
