//! When to ask again for what could not be done as leaders change: once the topology is heard of, or after a pause that grows, until a
//! request's time is over. What is asked, and of whom, is the caller's.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::net::data_thread::Local;

/// The pause at first, if nothing is heard of the topology: about what a leader takes to open.
const FIRST: Duration = Duration::from_millis(2);
/// The longest: little beside the time in which a lost leader is replaced.
const LAST: Duration = Duration::from_millis(50);

/// See the head of the file.
pub(crate) struct Patience {
    deadline: Instant,
    changes: watch::Receiver<()>,
    pause: Duration,
}

impl Patience {
    pub(crate) fn until(deadline: Instant, local: &Local) -> Self {
        Self {
            deadline,
            changes: local.shared.cluster.changes(),
            pause: FIRST,
        }
    }

    /// Waits until it is worth to ask again; false once the time is over: what is asked at its very end has no time to be answered.
    pub(crate) async fn waits(&mut self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        // Whether something is heard or not is the same.
        let _ = tokio::time::timeout(self.pause.min(left), self.changes.changed()).await;
        self.pause = (2 * self.pause).min(LAST);
        Instant::now() < self.deadline
    }
}
