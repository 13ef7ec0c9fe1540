//! The words in which what was found is handed to who judges it.

use std::time::Duration;

/// What was found, or why it could not be.
pub(super) type Known<T> = Result<T, String>;

/// What may be swapped out to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Swap {
    pub(super) total_bytes: u64,
    pub(super) swappiness: u64,
}

/// The directory of the data of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) is_there: bool,
    /// It belongs to the user of this process.
    pub(super) is_ours: bool,
    pub(super) mode: u32,
    /// Why no file can be made there, or of one that is not there, in the nearest above it that is.
    pub(super) not_writable: Option<String>,
}

/// How long syncs of a disk took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Speed {
    pub(super) times: usize,
    pub(super) median: Duration,
    pub(super) worst: Duration,
}

/// The room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) free_bytes: u64,
    /// What the node has there.
    pub(super) own_bytes: u64,
}

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) process: u32,
}

/// How far a clock is before this machine's, at least and at most; below 0 it is behind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ClockBounds {
    pub(super) least_ms: f64,
    pub(super) most_ms: f64,
}

impl ClockBounds {
    /// The middle, and how far it may be off.
    pub(super) fn middle(self) -> (f64, f64) {
        let middle = f64::midpoint(self.least_ms, self.most_ms);
        (middle, self.most_ms - middle)
    }
}
