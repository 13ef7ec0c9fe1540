//! What Raft is told about this program: the types of what it orders, and its times.

use std::time::Duration;

use henge_cluster::agreed::{Agreed, Command, Outcome, Rejected};
use openraft::{BasicNode, Config, SnapshotPolicy};
use serde::{Deserialize, Serialize};

/// What became of an entry: nothing is told of one that is Raft's own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Applied(pub(super) Option<Result<Outcome, Rejected>>);

openraft::declare_raft_types!(
    /// The types of this program's Raft.
    pub(super) Types:
        D = Command,
        R = Applied,
        NodeId = u64,
        Node = BasicNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = Agreed,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(super) type Entry = openraft::Entry<Types>;
pub(super) type Vote = openraft::Vote<u64>;
pub(super) type LogId = openraft::LogId<u64>;
pub(super) type Membership = openraft::StoredMembership<u64, BasicNode>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
pub(super) type Snapshot = openraft::Snapshot<Types>;
pub(super) type StorageError = openraft::StorageError<u64>;

/// How often a leader says that it is there: openraft looks every one and a half of these, so that it is every 150 ms. It is also how
/// long one question with entries may take, so no two members may be farther from each other than that.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(100);
/// For so long after a leader was heard nobody votes for another. A leader that has heard no majority for as long is none.
pub(crate) const LEASE: Duration = Duration::from_millis(600);
/// A voter that hears no leader waits for the lease and then for a time between this and another lease, which it draws at its start:
/// 0.9 s at the least, so that a pause of 0.3 s beside a heartbeat that has just been missed elects nobody, and 1.35 s at the
/// most, with the tick of the clock, so that a leader that is lost has a successor well within 2 s.
const ELECTION_MIN: Duration = Duration::from_millis(300);
/// Whoever has not heard its leader for so long would have campaigned if it could.
pub(super) const SILENCE: Duration = Duration::from_millis(1_350);
/// A snapshot is some hundred KiB, and takes as long over a slow line as all entries that it stands for.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);
/// Entries in one question; their bytes are bounded by the store.
const MAX_ENTRIES: u64 = 256;
/// Entries between two snapshots. A snapshot is as large as a few hundred entries, and entries are few: members come and go.
const SNAPSHOT_EVERY: u64 = 1_000;

/// When the log is made shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compaction {
    /// Entries from one snapshot to the next.
    pub(super) snapshot_every: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            snapshot_every: SNAPSHOT_EVERY,
        }
    }
}

/// Raft's settings.
pub(super) fn config(compaction: Compaction) -> Config {
    let millis = |time: Duration| time.as_millis() as u64;
    let every = compaction.snapshot_every;
    Config {
        cluster_name: "henge".to_owned(),
        heartbeat_interval: millis(HEARTBEAT),
        election_timeout_min: millis(ELECTION_MIN),
        election_timeout_max: millis(LEASE),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        max_payload_entries: MAX_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(every),
        // Who was away for a short time needs no snapshot.
        max_in_snapshot_log_to_keep: every,
        // Above what a snapshot can be behind by, or one would be followed by another.
        replication_lag_threshold: 2 * every,
        // Who has just started has nothing to lead by.
        enable_elect: false,
        ..Config::default()
    }
}
