//! What time it is for commands that are answered together, how it is shared among them, and when it is the turn of other
//! connections.

use std::time::{Duration, Instant};

use crate::net::data_thread::Local;
use crate::shared::Live;

/// With a slow log that asks for less than this, every command is timed by itself.
const TIMED_THRESHOLD_US: i64 = 1_000;

/// How long one connection is answered while others wait for the thread, as far as whole commands and batches allow: as long as a lock may be
/// held. What it has sent beyond that is answered when they have had their turn.
const TURN: Duration = Duration::from_micros(200);

/// What holds for all commands that are answered together: the time, read once at their begin and as seldom as may be
/// later, and from where on values are compressed or refused.
pub(super) struct Timing {
    pub(super) now_ms: u64,
    /// When the clock was last read.
    pub(super) mark: Instant,
    /// When others have their turn; none where all is answered together, as another node asks for it.
    until: Option<Instant>,
    pub(super) times_each: bool,
    pub(super) compress_from: usize,
}

impl Timing {
    pub(super) fn begin(now: Instant, live: &Live, local: &Local, is_forwarded: bool) -> Self {
        let threshold = local.shared.insight.slow_log.threshold_us();
        Self {
            now_ms: local.shared.clock.at(now),
            mark: now,
            until: (!is_forwarded).then(|| now + TURN),
            // What is past the limit goes that way as well, and is refused on it.
            compress_from: match live.compression.algorithm {
                Some(_) => live.compression.threshold_bytes,
                None => usize::MAX,
            }
            .min(live.limits.max_value_bytes.saturating_add(1)),
            times_each: (0..TIMED_THRESHOLD_US).contains(&threshold),
        }
    }

    /// Whether others have waited long enough, as far as the clock was read.
    #[inline]
    pub(super) fn is_turn_over(&self) -> bool {
        self.until.is_some_and(|until| self.mark >= until)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_over_when_the_clock_says_so() {
        let now = Instant::now();
        let mut timing = Timing {
            now_ms: 0,
            mark: now,
            until: Some(now + TURN),
            times_each: false,
            compress_from: 0,
        };
        assert!(!timing.is_turn_over());
        timing.mark = now + TURN;
        assert!(timing.is_turn_over());
        timing.until = None;
        assert!(!timing.is_turn_over());
    }
}
