//! What time it is for the commands that are answered together, and how the time that they take is shared among them.

use std::time::{Duration, Instant};

use crate::net::data_thread::Local;
use crate::shared::Live;

/// With a slow log that asks for less than this, every command is timed by itself.
const TIMED_THRESHOLD_US: i64 = 1_000;

/// What holds for all commands that are answered together: the time, read once at their begin and as seldom as may be
/// later, and from where on values are compressed or refused.
pub(super) struct Timing {
    pub(super) now_ms: u64,
    pub(super) mark: Instant,
    pub(super) times_each: bool,
    pub(super) compress_from: usize,
}

impl Timing {
    pub(super) fn begin(now: Instant, live: &Live, local: &Local) -> Self {
        let threshold = local.shared.resp.slow_log.threshold_us();
        Self {
            now_ms: local.shared.clock.at(now),
            mark: now,
            // What is past the limit goes that way as well, and is refused on it.
            compress_from: match live.compression.algorithm {
                Some(_) => live.compression.threshold_bytes,
                None => usize::MAX,
            }
            .min(live.limits.max_value_bytes.saturating_add(1)),
            times_each: (0..TIMED_THRESHOLD_US).contains(&threshold),
        }
    }

    /// The time since the last reading.
    pub(super) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.mark);
        self.mark = now;
        took
    }

    /// Shares the time since the last reading among the commands that ran in it.
    pub(super) fn settle(&mut self, untimed: &mut Vec<u16>, local: &Local) {
        let Ok(count) = u32::try_from(untimed.len()) else {
            return;
        };
        if count == 0 {
            return;
        }
        let share = self.lap() / count;
        for number in untimed.drain(..) {
            local.counters.command(number).took(share);
        }
    }
}
