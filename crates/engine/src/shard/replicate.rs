//! What replication does with a shard: mutations that a leader stamped are applied, commits are told, records are shown above
//! a version, and a copy of a partition is installed or wiped. Who leads, and what a commit needs, is decided elsewhere.

use super::room::NoRoom;
use super::write::Target;
use super::{Shard, Short};
use crate::budget::{Room, Turn};
use crate::partition::{PartitionState, Progress};
use crate::record::Body;
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

/// What a copy replaces when it is installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replace {
    /// Every record.
    All,
    /// The records above this seq.
    Above(u64),
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

    /// The same for a mutation that is known to be in order.
    pub(super) fn apply_next(
        &mut self,
        turn: &Turn<'_>,
        p: usize,
        mutation: &Mutation<'_>,
    ) -> Result<(), NoRoom> {
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

    /// How far a partition has come.
    pub fn progress(&self, partition: Partition) -> Progress {
        let state = &self.partitions[self.local(partition)];
        Progress {
            last: state.last,
            commit: state.commit,
            horizon: state.horizon,
        }
    }

    /// Shows the records above a seq, tombstones included, at one place of a partition's scan, and gives the next place.
    pub fn scan_records(
        &self,
        partition: Partition,
        above: u64,
        place: u32,
        mut each: impl FnMut(RecordView<'_>),
    ) -> u32 {
        let table = &self.partitions[self.local(partition)].table;
        self.buckets.scan(table, place, |at| {
            let version = self.records.version(at);
            if version.seq() > above {
                each(RecordView {
                    key: self.records.key(at),
                    version,
                    expires_at_ms: self.records.expires_at(at),
                    body: self.records.body(at),
                });
            }
        })
    }

    /// Installs a copy in one step: removes what it replaces, puts its records, and takes its progress, of a copy of what has
    /// changed the higher of both. A record that
    /// there is no room for is dropped if it is committed; if it is not, the partition is left wiped and it says so.
    pub fn install(
        &mut self,
        turn: &Turn<'_>,
        partition: Partition,
        replace: Replace,
        records: &[RecordView<'_>],
        progress: Progress,
    ) -> Result<(), Short> {
        assert!(
            progress.horizon <= progress.commit && progress.commit <= progress.last.seq(),
            "a copy's progress is in order"
        );
        let p = self.local(partition);
        self.remove_records(p, replace);
        let state = &mut self.partitions[p];
        if replace == Replace::All {
            // Nothing is left of what its own rest on.
            (state.commit, state.horizon) = (0, 0);
        }
        assert!(
            state.commit <= progress.last.seq(),
            "a copy's progress and what is committed here are in order"
        );
        state.last = progress.last;
        state.commit = state.commit.max(progress.commit);
        state.horizon = state.horizon.max(progress.horizon);
        let turn = Turn {
            fair: Room::default(),
            ..*turn
        };
        for record in records {
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
            let Err(no_room) = outcome else { continue };
            if record.version.seq() > self.partitions[p].commit {
                self.wipe(partition);
                return Err(match no_room {
                    NoRoom::Short(short) => short,
                    NoRoom::Refused(_) => Short(Room::default()),
                });
            }
            self.partitions[p].dropped(record.version.seq());
            // An older version of it must not be taken for it.
            if let Some(older) = self.find(p, target.hash, target.key) {
                self.remove(older);
            }
        }
        Ok(())
    }

    /// Forgets a partition as if it had never been: for a new generation, in which old data counts for nothing.
    pub fn wipe(&mut self, partition: Partition) {
        let p = self.local(partition);
        self.remove_records(p, Replace::All);
        self.partitions[p] = PartitionState::new(Version::ZERO);
    }

    pub(super) fn remove_records(&mut self, p: usize, replace: Replace) {
        let mut doomed = Vec::new();
        self.buckets.each(&self.partitions[p].table, |at| {
            if match replace {
                Replace::All => true,
                Replace::Above(seq) => self.records.version(at).seq() > seq,
            } {
                doomed.push(at);
            }
        });
        for at in doomed {
            self.remove(at);
        }
        if replace == Replace::All {
            self.buckets.clear(&mut self.partitions[p].table);
        }
    }
}
