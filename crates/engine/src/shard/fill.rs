//! A full copy that comes into a partition that has nothing: each part goes into the table, and into the log, as it comes, so that neither
//! what waits for the end of the copy nor the step that makes it count grows with the partition. Until that step no record of it
//! may be dropped, no scan shows one, and a recovery brings none back. Who may fill, and when a copy has ended, is
//! decided elsewhere.

use super::Shard;
use super::replicate::{RecordView, Replace, view};
use crate::arena::Handle;
use crate::budget::{Room, Turn};
use crate::partition::{Progress, ReplicaState};
use crate::persistence::replica::ReplicaRecord;
use henge_wire::Partition;
use std::collections::BTreeMap;

/// Partitions that are being filled.
#[derive(Default)]
pub(super) struct Filling {
    logged: BTreeMap<usize, Logged>,
    /// Where the last victim was found that is in no order: a partition, and a place of its scan.
    next_victim: (usize, u32),
}

/// Places that are looked at for one that is in no order: mostly the first has one.
const PLACES_ASKED: usize = 256;

/// What the log has of a copy.
#[derive(Clone, Copy)]
enum Logged {
    /// Its first parts, so many of them.
    Parts(u32),
    /// Not all that has come of it, and nothing says which.
    Some,
}

impl Filling {
    /// Whether no partition is being filled.
    pub(super) fn is_empty(&self) -> bool {
        self.logged.is_empty()
    }

    /// Whether a partition is being filled.
    pub(super) fn has(&self, p: usize) -> bool {
        self.logged.contains_key(&p)
    }

    /// The log has something else of a partition, or may be cut off before its present end.
    pub(super) fn interrupt(&mut self, p: usize) {
        if let Some(logged) = self.logged.get_mut(&p) {
            *logged = Logged::Some;
        }
    }

    /// The same for all.
    pub(super) fn interrupt_all(&mut self) {
        self.logged
            .values_mut()
            .for_each(|logged| *logged = Logged::Some);
    }

    /// It is not being filled any more.
    pub(super) fn end(&mut self, p: usize) {
        self.logged.remove(&p);
    }
}

impl Shard {
    /// Takes a part of a full copy into a partition that has nothing, behind those that came before. A tombstone of version 0 says that there
    /// is nothing of its key any more. None of it is committed yet, so it can be neither dropped nor refused: what the shard
    /// lacks it grants itself, and says how much that is.
    ///
    /// # Panics
    /// If the partition has something of its own.
    pub fn fill(
        &mut self,
        turn: &Turn<'_>,
        partition: Partition,
        records: &[RecordView<'_>],
    ) -> Room {
        let p = self.local(partition);
        assert_eq!(
            self.partitions[p].last.seq(),
            0,
            "a partition that is filled has nothing"
        );
        let begun = if self.durable.has_log() {
            Logged::Parts(0)
        } else {
            Logged::Some
        };
        let logged = self.filling.logged.entry(p).or_insert(begun);
        if let Logged::Parts(number) = logged {
            *number = self.durable.write_parts(partition, *number, records);
        }
        let mut overdrawn = Room::default();
        for record in records {
            if record.is_nothing() {
                self.remove_copied(p, record.key);
            } else {
                overdrawn += self.put_promised(turn, p, record);
            }
        }
        overdrawn
    }

    /// What a partition was filled with is all of a copy that has come this far: it counts from now on, in the log as well.
    ///
    /// # Panics
    /// If no part of a copy has come.
    pub fn complete(&mut self, partition: Partition, progress: Progress, state: &ReplicaState) {
        let p = self.local(partition);
        let logged = self.filling.logged.remove(&p);
        let parts = match logged.expect("parts of a copy have come") {
            Logged::Parts(parts) => parts,
            // A snapshot has begun meanwhile, which is rare.
            Logged::Some => self.journal_filled(p),
        };
        self.durable.recovery.found_again(p);
        self.replicas[p].state.clone_from(state);
        let record = ReplicaRecord::Installed {
            partition,
            replace: Replace::All,
            progress,
            parts,
            state: state.clone(),
        };
        self.journal_replica(p, record);
        self.take_progress(p, Replace::All, progress);
    }

    /// Removes what a partition was filled with.
    pub fn empty(&mut self, partition: Partition) {
        let p = self.local(partition);
        self.filling.end(p);
        self.remove_records(p, Replace::All);
    }

    /// A record that may be dropped, where the eviction order looks at as many as it may and finds none: what fills partitions is in it, and
    /// may be more than that. It is one of a partition that is not being filled, in no order: their places are looked at one after the other, and the
    /// next time from where this one was found.
    pub(super) fn any_victim(&mut self) -> Option<Handle> {
        if self.filling.is_empty() {
            return None;
        }
        let count = self.partitions.len();
        let (from, place) = self.filling.next_victim;
        let mut left = PLACES_ASKED;
        for n in 0..count {
            let p = (from + n) % count;
            let state = &self.partitions[p];
            if state.table.len() == 0 || self.filling.has(p) {
                continue;
            }
            let mut found = None;
            let mut at = if n == 0 { place } else { 0 };
            while left > 0 {
                left -= 1;
                let next = self.buckets.scan(&state.table, at, |record| {
                    let may = found.is_none() && self.may_drop(record) && !self.held.guards(record);
                    found = found.or(may.then_some(record));
                });
                if found.is_some() {
                    self.filling.next_victim = (p, at);
                    return found;
                }
                at = next;
                if at == 0 {
                    break;
                }
            }
        }
        None
    }

    /// Writes all that a partition was filled with to the journal, and says in how many parts.
    fn journal_filled(&mut self, p: usize) -> u32 {
        if !self.durable.has_log() {
            return 0;
        }
        let partition = self.global(p);
        let mut all = Vec::new();
        self.buckets.each(&self.partitions[p].table, |at| {
            all.push(view(&self.records, at));
        });
        self.durable.write_parts(partition, 0, &all)
    }
}
