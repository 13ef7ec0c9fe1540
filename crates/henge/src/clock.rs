//! The node's clock: the wall time at the start plus the monotonic time since, so that a step of the machine's clock
//! neither expires items early nor gives them another life. It is read by whoever needs the time, and passed on.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock that never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    /// Starts now, at the machine's wall time.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            started: Instant::now(),
            started_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.at_ms(Instant::now())
    }

    /// What this clock said, or will say, at an instant, in milliseconds since the Unix epoch.
    pub fn at_ms(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.started);
        self.started_ms + u64::try_from(since.as_millis()).unwrap_or(u64::MAX / 2)
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }
}
