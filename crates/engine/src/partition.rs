//! What a shard keeps of one partition: its table, and how far its order has come.

use crate::table::Table;
use henge_wire::Version;

pub(crate) struct PartitionState {
    pub(crate) table: Table,
    /// How many of the table's records are tombstones.
    pub(crate) tombstones: u32,
    /// The newest version applied.
    pub(crate) last: Version,
    /// The highest seq known to be kept. Only records at or below it may be dropped.
    pub(crate) commit: u64,
    /// The highest seq of any record ever dropped.
    pub(crate) horizon: u64,
    /// Where the log is with it.
    pub(crate) logged: Logged,
    /// The seq of the last delete or flush, or of a record that was dropped before it was kept: what is missing may be so because
    /// of it.
    pub(crate) deleted: u64,
    /// What is applied is committed with that: nobody else has it.
    pub(crate) commits_at_once: bool,
}

impl PartitionState {
    pub(crate) fn new(last: Version, commits_at_once: bool) -> Self {
        Self {
            table: Table::default(),
            tombstones: 0,
            last,
            commit: last.seq(),
            horizon: last.seq(),
            logged: Logged::default(),
            deleted: 0,
            commits_at_once,
        }
    }

    /// A record of this seq is dropped.
    pub(crate) fn dropped(&mut self, seq: u64) {
        assert!(
            seq <= self.commit,
            "a record above the commit may not be dropped"
        );
        self.horizon = self.horizon.max(seq);
    }
}

/// What a shard whose commits are told keeps of a partition beside.
#[derive(Clone, Default)]
pub(crate) struct Replicated {
    /// The partition is that of a node that replicates. In a recovery the log says so of each by itself.
    pub(crate) is_replica: bool,
    pub(crate) state: ReplicaState,
    /// Up to where its order is still what it was when the present scan for a snapshot began: copies have replaced what is above.
    pub(crate) unreplaced: u64,
}

/// Which part of a partition's order is known to be in the log. A shard's journal is taken once per round, and at most one that
/// was taken is not known to be kept; so what is not kept is of two epochs at the most, the present one and the one before.
/// Nothing of this changes when a journal is taken or kept: a round costs nothing for each partition.
///
/// Of epochs the low bits are enough, as each partition costs memory in the smallest cache: one that is 2^32 rounds old may
/// pass for the present one, and then somebody waits for a round without need.
#[derive(Clone, Copy, Default)]
pub(crate) struct Logged {
    /// The epoch of the last mutation.
    epoch: u32,
    /// How many mutations are of it.
    count: u32,
    /// The epoch before that of which there are mutations, and how many.
    previous: u32,
    previous_count: u32,
}

/// The epochs of a shard: the present one, and up to which one all is kept.
#[derive(Clone, Copy)]
pub(crate) struct Epochs {
    /// What is written to the journal now is of this one.
    pub(crate) present: u64,
    /// The one before is not known to be kept.
    pub(crate) has_unkept: bool,
}

impl Epochs {
    /// Whether what is of an epoch may be of one that is not kept.
    #[inline]
    fn may_lack(self, epoch: u32) -> bool {
        epoch == self.present as u32
            || (self.has_unkept && epoch == self.present.wrapping_sub(1) as u32)
    }
}

impl Logged {
    /// The next mutation of the partition was written to the journal.
    #[inline]
    pub(crate) fn note(&mut self, epochs: Epochs) {
        let present = epochs.present as u32;
        if self.epoch != present {
            // What is kept needs no count.
            (self.previous, self.previous_count) = if epochs.may_lack(self.epoch) {
                (self.epoch, self.count)
            } else {
                (present, 0)
            };
            (self.epoch, self.count) = (present, 0);
        }
        self.count = self.count.saturating_add(1);
    }

    /// What cannot be counted in mutations was written to the journal: of nothing it is sure that it is in the log until that is.
    pub(crate) fn note_all(&mut self, epochs: Epochs) {
        self.note(epochs);
        self.count = u32::MAX;
    }

    /// Whether a seq is in the log, of a partition that has come to `last`.
    #[inline]
    pub(crate) fn has(&self, seq: u64, last: u64, epochs: Epochs) -> bool {
        if !epochs.may_lack(self.epoch) {
            return true;
        }
        let mut lacking = u64::from(self.count);
        if epochs.may_lack(self.previous) {
            lacking += u64::from(self.previous_count);
        }
        // Where the counting ended nothing is sure.
        self.count < u32::MAX && seq + lacking <= last
    }
}

/// What a replica of a partition has promised, beside its table: it is kept with the table, in one order with what becomes of
/// that, and not looked into.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplicaState {
    /// The highest term that it has followed.
    pub adopted: u32,
    /// The generation of its data.
    pub generation: u32,
    /// Where the seqs of each term began, ascending in both.
    pub history: Vec<(u32, u64)>,
}

/// How far a partition's order has come, for those who replicate it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The newest version applied.
    pub last: Version,
    /// The highest seq known to be kept.
    pub commit: u64,
    /// The highest seq of any record ever dropped.
    pub horizon: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against what the epochs of all mutations say.
    #[test]
    fn what_is_in_the_log_is_known() {
        // The epoch of each mutation, and up to which epoch all is kept then.
        for steps in [
            &[(1, 0)][..],
            &[(1, 0), (1, 0)],
            &[(1, 0), (2, 0)],
            &[(1, 0), (2, 1)],
            &[(1, 0), (2, 0), (2, 1)],
            &[(1, 0), (2, 0), (2, 1), (3, 1)],
            &[(1, 0), (2, 1), (3, 1), (3, 2)],
            &[(1, 0), (2, 1), (3, 2), (4, 2), (4, 3)],
            &[(1, 0), (5, 4)],
            &[(1, 0), (1, 0), (2, 0), (4, 2), (4, 2), (5, 3)],
        ] {
            let mut logged = Logged::default();
            for (last, &(present, kept)) in (1..).zip(steps) {
                let epochs = Epochs {
                    present,
                    has_unkept: kept + 1 < present,
                };
                logged.note(epochs);
                for has_unkept in [epochs.has_unkept, false] {
                    let epochs = Epochs {
                        has_unkept,
                        ..epochs
                    };
                    let kept = if has_unkept { present - 2 } else { present - 1 };
                    let expected = steps.iter().take(last as usize);
                    let expected = expected.take_while(|(epoch, _)| *epoch <= kept).count();
                    let found = (0..=last).rev().find(|&seq| logged.has(seq, last, epochs));
                    assert_eq!(found, Some(expected as u64), "{steps:?}, at {last}");
                }
            }
        }
    }
}
