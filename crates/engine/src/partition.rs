//! What a shard keeps of one partition: its table, and how far its order has come.

use crate::table::Table;
use henge_wire::Version;

pub(crate) struct PartitionState {
    pub(crate) table: Table,
    /// The newest version applied.
    pub(crate) last: Version,
    /// The highest seq known to be kept. Only records at or below it may be dropped.
    pub(crate) commit: u64,
    /// The highest seq of any record ever dropped.
    pub(crate) horizon: u64,
}

impl PartitionState {
    pub(crate) fn new(last: Version) -> Self {
        Self {
            table: Table::default(),
            last,
            commit: last.seq(),
            horizon: last.seq(),
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
