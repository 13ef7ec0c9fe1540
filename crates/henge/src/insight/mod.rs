//! What explains a node's figures: why keys are not there, which are asked for most, which are the largest, and what was slow. Each
//! is asked for by a person or a monitor, and says of itself how sure it is.

pub(crate) mod big;
pub(crate) mod hot;
pub(crate) mod slow;
pub(crate) mod why;

use std::time::Instant;

use big::Looking;
use hot::HotKeys;
use slow::SlowLog;

/// What a node keeps for that, beside what its shards remember.
#[derive(Debug)]
pub(crate) struct Insight {
    pub(crate) slow_log: SlowLog,
    pub(crate) hot_keys: HotKeys,
    /// Whether somebody looks for the largest items.
    pub(crate) looking: Looking,
}

impl Insight {
    /// Of a node with so many data threads, whose clients' keys are counted or not.
    pub(crate) fn new(counts: bool, threads: usize) -> Self {
        Self {
            slow_log: SlowLog::default(),
            hot_keys: HotKeys::new(threads, counts, Instant::now()),
            looking: Looking::default(),
        }
    }
}
