//! The cache and the log: journals are taken from all shards, records of snapshots are shown and restored, and those of the
//! log are replayed.

use super::{Cache, LENDING_ROUNDS, Refuses};
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::wal::Record;
use henge_engine::{
    Progress, RecordView, ReplayError, Replayed, ReplicaState, Room, Scan, Short, Turn,
};
use henge_wire::{PARTITIONS, Partition, Version};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Places of a scan of whole records under one hold of a lock: some 20 records, whose values are copied.
const RECORD_PLACES: usize = 2;

/// Whose partitions a node has found in its directory.
#[derive(Debug)]
pub(crate) enum Whose {
    /// Its own: it is by itself. What is of a generation before these counts for nothing.
    Own(Generations),
    /// Those of a cluster, which says what counts of them.
    Cluster,
}

/// Generations by partitions; 0 where none is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Generations(pub(crate) Vec<u32>);

impl Generations {
    pub(crate) fn of(&self, partition: Partition) -> u32 {
        let known = self.0.get(usize::from(partition.number()));
        known.copied().unwrap_or(0)
    }
}

impl Cache {
    /// From now on all shards write what they apply to their journals.
    pub(crate) fn start_journals(&self) {
        for slot in &self.shards {
            let mut seat = slot.shard.lock();
            seat.start_journal();
            // It may begin with what the recovery has found to be lost.
            slot.is_journalled.store(seat.has_journal(), SeqCst);
        }
    }

    /// Takes what is in the journals, for the round of this number; all rounds before are kept.
    pub(crate) fn take_journals(
        &self,
        round: u64,
        batch: &mut Vec<Journal>,
        spare: &mut Vec<Journal>,
    ) {
        for slot in &self.shards {
            if slot.is_journalled.swap(false, SeqCst) {
                let empty = spare.pop().unwrap_or_default();
                let mut seat = slot.shard.lock();
                seat.take_journal(round, empty, batch);
                if seat.note_taken(round) {
                    slot.has_taken.store(true, SeqCst);
                }
            }
        }
    }

    /// All rounds up to this one are in the log.
    pub(crate) fn note_kept(&self, round: u64) {
        self.log.kept.store(round, Relaxed);
    }

    /// Writes are refused for this reason, or not for this one any more.
    pub(crate) fn refuse_writes(&self, reason: Refuses, refuses: bool) {
        let bit = reason as u8;
        if refuses {
            self.log.refuses.fetch_or(bit, Relaxed);
        } else {
            self.log.refuses.fetch_and(!bit, Relaxed);
        }
    }

    /// How far a partition has come.
    pub(crate) fn progress(&self, partition: Partition) -> Progress {
        self.slot(partition).shard.lock().progress(partition)
    }

    /// Shows all records of a partition from a place of its scan on, a few under one hold of the lock, and gives the next
    /// place; 0 begins and ends.
    pub(crate) fn scan_records(
        &self,
        partition: Partition,
        mut place: u32,
        mut each: impl FnMut(RecordView<'_>),
    ) -> u32 {
        self.slot(partition).step(|shard| {
            for _ in 0..RECORD_PLACES {
                place = shard.scan_records(partition, 0, place, &mut each);
                if place == 0 {
                    break;
                }
            }
        });
        place
    }

    /// The same at one place only, for who counts what it was shown before it goes on.
    pub(crate) fn scan_records_at(
        &self,
        partition: Partition,
        place: u32,
        each: impl FnMut(RecordView<'_>),
    ) -> u32 {
        let slot = self.slot(partition);
        slot.step(|shard| shard.scan_records(partition, 0, place, each))
    }

    /// Begins the scan of a partition for a snapshot; of one that is replicated the journal says so.
    pub(crate) fn begin_scan(&self, partition: Partition, snapshot: u64) -> Scan {
        let slot = self.slot(partition);
        let mut shard = slot.lock(&self.log);
        let scan = shard.begin_scan(partition, snapshot);
        slot.note(&shard);
        scan
    }

    /// What a snapshot is to say of a partition whose scan is done.
    pub(crate) fn end_scan(&self, partition: Partition, scan: &Scan) -> Progress {
        self.slot(partition).shard.lock().end_scan(partition, scan)
    }

    /// A snapshot of this number has a replica, whose records come after this.
    pub(crate) fn begin_restore(
        &self,
        partition: Partition,
        snapshot: u64,
        commit: u64,
        state: ReplicaState,
    ) {
        let mut shard = self.slot(partition).shard.lock();
        shard.begin_restore(partition, snapshot, commit, state);
    }

    /// Puts a record of a snapshot.
    pub(crate) fn restore(
        &self,
        partition: Partition,
        record: &RecordView<'_>,
        now_ms: u64,
    ) -> Replayed {
        self.with_help(partition, now_ms, |shard, turn| {
            shard.restore(turn, partition, record)
        })
    }

    /// A partition goes on from here.
    pub(crate) fn resume(&self, partition: Partition, progress: Progress) {
        let mut shard = self.slot(partition).shard.lock();
        shard.resume(partition, progress);
    }

    /// Applies a record of the log to a partition again.
    pub(crate) fn replay(
        &self,
        partition: Partition,
        record: &Record<'_>,
        now_ms: u64,
    ) -> Result<Replayed, ReplayError> {
        let mut refused = None;
        let replayed = self.with_help(partition, now_ms, |shard, turn| {
            match shard.replay(turn, record) {
                Ok(replayed) => replayed,
                Err(error) => {
                    refused = Some(error);
                    Ok(Replayed::Covered)
                }
            }
        });
        refused.map_or(Ok(replayed), Err)
    }

    /// Applies a record of the log that is of all partitions to those of a shard.
    pub(crate) fn replay_for_all(&self, shard: usize, record: &Record<'_>, now_ms: u64) {
        let turn = self.turn(now_ms);
        let outcome = self.shards[shard].shard.lock().replay(&turn, record);
        debug_assert!(matches!(outcome, Ok(Ok(Replayed::Applied))));
    }

    /// The shard that has a partition.
    pub(crate) fn shard_of(&self, partition: Partition) -> usize {
        usize::from(partition.number()) & (self.shards.len() - 1)
    }

    /// All was replayed. The partitions of a node by itself go on from this version if they have not come as far. Says how many were
    /// forgotten, as a part of the log is missing.
    pub(crate) fn finish_recovery(&self, first: Version, whose: &Whose) -> usize {
        let mut forgotten = 0;
        for slot in &self.shards {
            let mut shard = slot.shard.lock();
            forgotten += shard.finish_recovery();
            match whose {
                Whose::Own(generations) => {
                    shard.stand_alone(|partition| generations.of(partition));
                    shard.go_on_from(first);
                }
                Whose::Cluster => shard.replicate(|_| 0),
            }
        }
        forgotten
    }

    /// Forgets what a recovery has restored that is begun anew.
    pub(crate) fn wipe(&self) {
        for number in 0..PARTITIONS {
            let partition = Partition::new(number).expect("it is one of them");
            self.slot(partition).shard.lock().forget_restored(partition);
        }
    }

    /// Calls a shard, and again with room that others lent to it.
    fn with_help(
        &self,
        partition: Partition,
        now_ms: u64,
        mut call: impl FnMut(&mut henge_engine::Shard, &Turn<'_>) -> Result<Replayed, Short>,
    ) -> Replayed {
        let index = self.shard_of(partition);
        let mut turn = self.turn(now_ms);
        for round in 0..=LENDING_ROUNDS + 1 {
            let outcome = call(&mut self.shards[index].shard.lock(), &turn);
            match outcome {
                Ok(replayed) => return replayed,
                Err(Short(wanted)) => {
                    if !self.lend_to(index, wanted) || round == LENDING_ROUNDS {
                        turn.fair = Room::default();
                    }
                }
            }
        }
        // Without a fair share a shard does not say that it is short.
        Replayed::Forgotten
    }
}
