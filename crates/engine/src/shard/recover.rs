//! What a recovery makes of the log of a node that replicates, and of the change from a node by itself to one that replicates and back.
//! A replica must come back as it was at some moment: with all that
//! is not committed, with no more known to be committed than was known, and with what it has promised. If it cannot, for
//! want of room or of a part of the log, it has lost its memory: it comes back empty and says so.
//!
//! - Records of a partition before the begin of the snapshot's scan of it are in the snapshot. Seqs do not tell which those are, as a
//!   copy may have taken the order back; a `Scanned` in the log does.
//! - Parts of a copy wait for the `Installed` behind them. Anything else of the partition, and the begin of a process, say that it
//!   never came.
//! - What there is no room for is forgotten, and owed. In the end it either turns out to have been committed, and then it
//!   was dropped, or the memory is lost.
//! - A log tells of each partition whether it is a replica: of a node by itself there are mutations, of a replica the records of one.
//! - That it is lost stays so over further crashes, as nobody may have been told: until the replica is aligned again, which it
//!   only is once its node was registered without its memory.

use super::durable::{NotNext, ReplayError, Replayed};
use super::room::NoRoom;
use super::{Commit, Replace, Shard, Short};
use crate::budget::{Room, Turn};
use crate::partition::{Progress, ReplicaState, Replicated};
use crate::persistence::replica::{CopiedRecords, ReplicaRecord};
use henge_wire::{Mutation, Partition, Version};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of partitions in a recovery, beside what the shard has of them.
#[derive(Default)]
pub(super) struct Recovery {
    partitions: BTreeMap<usize, Recovering>,
    /// Those that have lost their memory.
    lost: BTreeSet<usize>,
}

#[derive(Default)]
struct Recovering {
    /// The snapshot that was restored, until the log comes to the begin of its scan.
    covered_by: Option<u64>,
    /// Parts of a copy that has not come to its end: how many records, and these.
    parts: Vec<(u32, Vec<u8>)>,
    /// The highest seq of what found no room and was not known to be committed.
    owed: u64,
    /// A part of the log is missing before that begin, or with it.
    may_lack_begin: bool,
}

impl Recovery {
    fn of(&mut self, p: usize) -> &mut Recovering {
        self.partitions.entry(p).or_default()
    }

    /// Whether a replica has lost its memory, and was not aligned since.
    pub(super) fn has_lost(&self, p: usize) -> bool {
        self.lost.contains(&p)
    }

    /// It is aligned with somebody who has not.
    pub(super) fn found_again(&mut self, p: usize) {
        self.lost.remove(&p);
    }

    /// A copy that a process before did not come to the end of never will.
    pub(super) fn forget_parts(&mut self) {
        for recovering in self.partitions.values_mut() {
            recovering.parts.clear();
        }
    }
}

/// A replica as a recovery has found it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// How far its order has come.
    pub progress: Progress,
    /// What it has promised.
    pub state: ReplicaState,
    /// It may have promised more, and had records that it has not any more: it is empty.
    pub has_lost_memory: bool,
}

impl Shard {
    /// A snapshot of this number has a replica, whose records come after this.
    pub fn begin_restore(
        &mut self,
        partition: Partition,
        snapshot: u64,
        commit: u64,
        state: ReplicaState,
    ) {
        let p = self.local(partition);
        self.goes_on_as_replica(p);
        self.replicas[p].state = state;
        self.partitions[p].commit = commit;
        self.durable.recovery.of(p).covered_by = Some(snapshot);
    }

    /// What was restored of a partition counts for nothing: a recovery begins anew.
    pub fn forget_restored(&mut self, partition: Partition) {
        self.wipe(partition);
        let p = self.local(partition);
        self.durable.recovery.partitions.remove(&p);
        if self.config.commit == Commit::AtOnce && self.is_replica(p) {
            self.replicas[p] = Replicated::default();
            self.partitions[p].commits_at_once = true;
        }
    }

    /// All is recovered, and this is a node by itself: what it has is all there is of its partitions, and what it applies is committed
    /// with that. A replica of a generation before the present one counts for nothing.
    pub fn stand_alone(&mut self, generation: impl Fn(Partition) -> u32) {
        for p in 0..self.partitions.len() {
            if !self.is_replica(p) {
                continue;
            }
            let partition = self.global(p);
            if self.replicas[p].state.generation < generation(partition) {
                self.wipe(partition);
            }
            let own = &mut self.partitions[p];
            own.commits_at_once = true;
            own.commit = own.last.seq();
        }
        self.durable.recovery = Recovery::default();
        self.replicas = Vec::new();
        self.config.commit = Commit::AtOnce;
        self.purge_tombstones();
    }

    /// From now on this is a node that replicates: what is applied is committed when that is told. Partitions that were nobody
    /// else's are replicas that go on from all that they have, in their present generation, and share no history with anybody.
    pub fn replicate(&mut self, generation: impl Fn(Partition) -> u32) {
        self.config.commit = Commit::Told;
        for p in 0..self.partitions.len() {
            if !self.is_replica(p) {
                self.goes_on_as_replica(p);
                let adopted = self.partitions[p].last.term();
                let generation = generation(self.global(p));
                self.replicas[p].state = ReplicaState {
                    adopted,
                    generation,
                    history: Vec::new(),
                };
            }
        }
    }

    /// A partition is a replica's from here on, be it in the log.
    fn goes_on_as_replica(&mut self, p: usize) {
        if self.is_replica(p) {
            return;
        }
        self.replicas
            .resize_with(self.partitions.len(), Replicated::default);
        self.replicas[p] = Replicated {
            is_replica: true,
            // A scan for a snapshot may have begun before.
            unreplaced: u64::MAX,
            ..Replicated::default()
        };
        let own = &mut self.partitions[p];
        own.commits_at_once = false;
        // In a recovery records of later were restored before.
        own.commit = own.last.seq();
        own.horizon = own.horizon.min(own.commit);
        if self.durable.suspects.remove(&p) {
            self.lose(p);
        }
    }

    /// The log has a partition as that of a node by itself from here on. False if what follows is in the snapshot that was restored.
    pub(super) fn goes_on_alone(&mut self, p: usize) -> bool {
        if !self.is_replica(p) {
            return true;
        }
        let recovery = &mut self.durable.recovery;
        let known = recovery.partitions.get(&p);
        if known.is_some_and(|known| known.covered_by.is_some()) {
            return false;
        }
        let owed = known.map_or(0, |known| known.owed);
        recovery.partitions.remove(&p);
        if recovery.lost.remove(&p) {
            self.durable.suspects.insert(p);
        }
        self.replicas[p] = Replicated::default();
        let own = &mut self.partitions[p];
        own.commits_at_once = true;
        own.commit = own.last.seq();
        // It was dropped, as it turns out.
        own.horizon = own.horizon.max(owed.min(own.commit));
        true
    }

    /// What was recovered of a partition.
    pub fn recovered(&self, partition: Partition) -> Recovered {
        let p = self.local(partition);
        Recovered {
            progress: self.progress(partition),
            state: self
                .replicas
                .get(p)
                .map_or_else(ReplicaState::default, |own| own.state.clone()),
            has_lost_memory: self.durable.recovery.has_lost(p),
        }
    }

    /// A record of this seq is not there, as there was no room for it.
    pub(super) fn owe(&mut self, p: usize, seq: u64) {
        let state = &mut self.partitions[p];
        if seq <= state.commit {
            state.dropped(seq);
        } else {
            let owed = &mut self.durable.recovery.of(p).owed;
            *owed = (*owed).max(seq);
        }
    }

    pub(super) fn replay_replica(
        &mut self,
        turn: &Turn<'_>,
        record: &ReplicaRecord<'_>,
    ) -> Result<Result<Replayed, Short>, ReplayError> {
        let p = self.local(record.partition());
        self.goes_on_as_replica(p);
        let recovering = self.durable.recovery.of(p);
        if let ReplicaRecord::Scanned { snapshot, .. } = record {
            recovering.covered_by = recovering.covered_by.filter(|of| of != snapshot);
            return Ok(Ok(Replayed::Applied));
        }
        if recovering.covered_by.is_some() {
            return Ok(Ok(Replayed::Covered));
        }
        let parts = match record {
            ReplicaRecord::Copied { part, records, .. } => {
                return self.take_part(p, *part, records).map(Ok);
            }
            _ => std::mem::take(&mut recovering.parts),
        };
        let is_lost = self.durable.recovery.has_lost(p);
        match record {
            ReplicaRecord::Lost { state, .. } => {
                self.lose(p);
                self.replicas[p].state.clone_from(state);
            }
            ReplicaRecord::Entry { .. } if is_lost => {}
            ReplicaRecord::Entry { mutation, commit } => {
                return self.replay_entry(turn, p, mutation, *commit);
            }
            // To be aligned with nothing is to have nothing to remember.
            ReplicaRecord::State { last, state, .. }
                if is_lost && (last.seq() > 0 || last.term() == 0) =>
            {
                self.replicas[p].state.clone_from(state);
            }
            ReplicaRecord::State {
                last,
                commit,
                state,
                ..
            } => {
                let own = &mut self.partitions[p];
                if last.seq() != own.last.seq() || last.term() < own.last.term() {
                    return Err(self.not_next(p, *last));
                }
                own.last = *last;
                if state.generation > self.replicas[p].state.generation {
                    // It has kept its records, and none of them is known to be committed.
                    (own.commit, own.horizon) = (*commit, 0);
                }
                own.commit = own.commit.max(*commit);
                self.replicas[p].state.clone_from(state);
                self.durable.recovery.found_again(p);
                return Ok(Ok(Replayed::Applied));
            }
            // What was lost may have been promised in the generation that this begins: who is told of one need not be registered.
            ReplicaRecord::Wiped { partition, state } => {
                self.wipe(*partition);
                self.replicas[p].state.clone_from(state);
                self.durable.recovery.of(p).owed = 0;
            }
            ReplicaRecord::Installed {
                replace,
                progress,
                parts: expected,
                state,
                ..
            } => {
                self.replicas[p].state.clone_from(state);
                // One without parts does not say that those of another are over.
                let parts = if *expected == 0 { Vec::new() } else { parts };
                let is_whole = parts.len() == *expected as usize;
                if is_lost && !(replace.is_all() && is_whole) {
                    return Ok(Ok(Replayed::Forgotten));
                }
                if !is_whole {
                    return Err(ReplayError::Parts(self.global(p)));
                }
                let is_kept = *replace != Replace::All;
                if is_kept && self.partitions[p].commit > progress.last.seq() {
                    return Err(self.not_next(p, progress.last));
                }
                self.durable.recovery.found_again(p);
                return Ok(Ok(self.install_again(turn, p, *replace, &parts, *progress)));
            }
            ReplicaRecord::Copied { .. } | ReplicaRecord::Scanned { .. } => {
                unreachable!("it was taken above")
            }
        }
        Ok(Ok(if is_lost {
            Replayed::Forgotten
        } else {
            Replayed::Applied
        }))
    }

    fn not_next(&self, p: usize, found: Version) -> ReplayError {
        ReplayError::NotNext(NotNext {
            partition: self.global(p),
            last: self.partitions[p].last,
            found,
        })
    }

    fn take_part(
        &mut self,
        p: usize,
        part: u32,
        records: &CopiedRecords<'_>,
    ) -> Result<Replayed, ReplayError> {
        let partition = self.global(p);
        let mut is_foreign = false;
        let read = records.each(|record| is_foreign |= Partition::of(record.key) != partition);
        if is_foreign || read.is_err() {
            return Err(ReplayError::Foreign(partition));
        }
        let parts = &mut self.durable.recovery.of(p).parts;
        if part == 0 {
            parts.clear();
        }
        // One that does not follow leaves too few.
        if parts.len() == part as usize {
            parts.push((records.count(), records.bytes().to_vec()));
        }
        Ok(Replayed::Applied)
    }

    fn replay_entry(
        &mut self,
        turn: &Turn<'_>,
        p: usize,
        mutation: &Mutation<'_>,
        commit: u64,
    ) -> Result<Result<Replayed, Short>, ReplayError> {
        let is_foreign = |key: &[u8]| Partition::of(key) != mutation.partition;
        if mutation.effects.iter().any(|(key, _)| is_foreign(key)) {
            return Err(ReplayError::Foreign(mutation.partition));
        }
        let (version, own) = (mutation.version, &mut self.partitions[p]);
        if version.seq() != own.last.seq() + 1 || version.term() != own.last.term() {
            return Err(self.not_next(p, version));
        }
        own.commit = own.commit.max(commit);
        Ok(match self.apply_next(turn, p, mutation) {
            Ok(()) => Ok(Replayed::Applied),
            Err(NoRoom::Short(short)) if turn.fair != Room::default() => Err(short),
            Err(_) => {
                self.forget_keys(p, mutation);
                self.advance(p, version, true);
                self.owe(p, version.seq());
                Ok(Replayed::Forgotten)
            }
        })
    }

    fn install_again(
        &mut self,
        turn: &Turn<'_>,
        p: usize,
        replace: Replace,
        parts: &[(u32, Vec<u8>)],
        progress: Progress,
    ) -> Replayed {
        let owed = &mut self.durable.recovery.of(p).owed;
        *owed = match replace {
            Replace::All => 0,
            Replace::Above(seq) => (*owed).min(seq),
        };
        self.replace(p, replace, progress);
        // A later part may take back what one before has of a key: of that nothing is owed.
        let mut newest = BTreeMap::new();
        for (count, bytes) in parts {
            let read = CopiedRecords::of(*count, bytes).each(|record| {
                newest.insert(record.key, record);
            });
            read.expect("it was read before");
        }
        let mut replayed = Replayed::Applied;
        for record in newest.into_values().filter(|record| !record.is_nothing()) {
            if !self.put_copied(turn, p, &record) {
                self.owe(p, record.version.seq());
                replayed = Replayed::Forgotten;
            }
        }
        replayed
    }

    /// A replica has lost its memory. Of what it has promised it knows no less than this.
    fn lose(&mut self, p: usize) {
        self.wipe(self.global(p));
        self.replicas[p].state.history.clear();
        let recovering = self.durable.recovery.of(p);
        recovering.parts.clear();
        recovering.owed = 0;
        self.durable.recovery.lost.insert(p);
    }

    /// A part of the log is missing, and nobody knows of what.
    pub(super) fn lose_replicas(&mut self) {
        for p in 0..self.partitions.len() {
            if !self.is_replica(p) {
                continue;
            }
            let recovering = self.durable.recovery.of(p);
            if recovering.covered_by.is_some() {
                // Unless the begin of the scan is behind it what is missing may be, or have been in front of, anything.
                recovering.may_lack_begin = true;
            } else {
                self.lose(p);
            }
        }
    }

    pub(super) fn finish_replicas(&mut self) -> usize {
        let recovery = std::mem::take(&mut self.durable.recovery.partitions);
        for p in 0..self.partitions.len() {
            if !self.is_replica(p) {
                continue;
            }
            let of = recovery.get(&p);
            let owed = of.map_or(0, |recovering| recovering.owed);
            let lacks_begin = of.is_some_and(|of| of.covered_by.is_some() && of.may_lack_begin);
            let own = &mut self.partitions[p];
            if owed > 0 && owed <= own.commit {
                own.dropped(owed);
            }
            let ReplicaState {
                adopted, history, ..
            } = &self.replicas[p].state;
            // One that was that of a node by itself has no history yet.
            let newest = history.last().copied();
            let newest = newest.unwrap_or((own.last.term(), 0));
            // No replica has written that; a file that one has not written may say anything.
            let is_possible = own.last.term() == newest.0
                && newest.1 <= own.last.seq() + 1
                && newest.0 <= *adopted
                && own.commit <= own.last.seq();
            if owed > own.commit || lacks_begin || !is_possible {
                self.lose(p);
            }
        }
        self.durable.recovery.partitions.clear();
        self.durable.recovery.lost.len()
    }

    /// Writes to the journal which replicas have lost their memory.
    pub(super) fn journal_losses(&mut self) {
        for p in self.durable.recovery.lost.clone() {
            let (partition, state) = (self.global(p), self.replicas[p].state.clone());
            self.journal_replica(p, ReplicaRecord::Lost { partition, state });
        }
    }
}
