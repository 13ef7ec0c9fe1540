//! What the log counts of itself, for whoever asks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::metrics::histogram::Histogram;

/// What the log's thread counts. It alone writes.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) rounds: AtomicU64,
    pub(crate) records: AtomicU64,
    /// Records that the start replayed, as no snapshot has them.
    pub(crate) replayed: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    /// How long each sync took.
    pub(crate) syncs: Histogram,
    pub(crate) segments: AtomicU64,
    /// The bytes of all segments that are there.
    pub(crate) log_bytes: AtomicU64,
    /// Of these, those that no snapshot covers.
    pub(crate) uncovered_bytes: AtomicU64,
    /// From where on they count as that.
    pub(super) covered: AtomicU64,
    /// For how long rounds were put off, as the log outran the snapshots.
    pub(crate) delayed_us: AtomicU64,
}

impl Figures {
    /// Records in the log, as far as this life knows: what a snapshot has made superfluous is counted from it.
    pub(crate) fn all_records(&self) -> u64 {
        self.records.load(Relaxed) + self.replayed.load(Relaxed)
    }

    pub(super) fn note_sync(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.syncs.record_beside_others(took);
    }
}
