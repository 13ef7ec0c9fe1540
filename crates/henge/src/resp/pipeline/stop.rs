//! Why a pipeline stops, and what it leaves to who runs it.

use std::time::Instant;

use bytes::Bytes;

use crate::resp::call::Later;
use crate::resp::table::{Entry, flag};

/// Why a pipeline stopped.
pub(in crate::resp) enum Stop {
    /// All whole requests are answered. The next one has at least this many bytes.
    Input { at_least: usize },
    /// Replies have to be sent before more are made, or others have their turn.
    Output,
    /// A reply comes later.
    Later(Waiting),
    /// Clients are paused until this time.
    Paused { until_ms: u64 },
    /// The next command waits for the replies of those that were sent to other nodes.
    Before,
    /// The connection ends once what was written is sent.
    Close,
}

/// A reply that comes later, and what is counted then.
pub(in crate::resp) struct Waiting {
    pub(in crate::resp) reply: Later,
    pub(in crate::resp) entry: Entry,
    /// The command as it is sent on, where it may have to be asked for again.
    pub(in crate::resp) request: Bytes,
    /// The command's, for the slow log.
    pub(in crate::resp) words: Vec<Vec<u8>>,
    pub(in crate::resp) since: Instant,
    pub(in crate::resp) is_wanted: bool,
}

impl Waiting {
    /// Whether nothing is done for it but to wait, because its client asked for that.
    pub(in crate::resp) fn is_idle(&self) -> bool {
        self.entry.spec.is(flag::BLOCKING)
    }
}
