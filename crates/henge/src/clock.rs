//! The node's clock: the wall time at its start plus the monotonic time since. It never jumps, so a correction of the
//! wall clock neither expires an item early nor keeps one for ever. The price is that it does not follow a correction
//! either: the deadlines of a node are right by its own clock at its start. Nor does it go back from one life of the node to the
//! next: it starts at what the last one has noted down, if the wall clock is behind that.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 that only ever grow. Cheap to copy; copies agree for ever.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_ms: u64,
}

impl Clock {
    /// Reads the wall clock for the last time.
    pub fn start() -> Self {
        Self::start_from(0)
    }

    /// The same, but not before a time that was seen already, in milliseconds since 1970.
    pub fn start_from(seen_ms: u64) -> Self {
        // Before 1970 the machine has no idea of the time; 0 is as good as any, and deadlines still work.
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let wall = wall.max(Duration::from_millis(seen_ms));
        Self::starting_at(Instant::now(), wall)
    }

    fn starting_at(start: Instant, wall: Duration) -> Self {
        Self {
            start,
            start_ms: millis(wall),
        }
    }

    /// Milliseconds since 1970, at the start.
    pub fn started_ms(&self) -> u64 {
        self.start_ms
    }

    /// Milliseconds since 1970, now.
    pub fn now_ms(&self) -> u64 {
        self.at(Instant::now())
    }

    /// Milliseconds since 1970 at an instant, so that one reading of the machine's clock can serve expiry and latency. What
    /// was before the clock's start counts as its start.
    pub fn at(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.start);
        self.start_ms.saturating_add(millis(since))
    }

    /// Microseconds since 1970, now.
    pub fn now_us(&self) -> u64 {
        let since = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.start_ms.saturating_mul(1000).saturating_add(since)
    }

    /// The time since the start.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_wall_time_at_the_start_plus_what_has_passed() {
        let start = Instant::now();
        let clock = Clock::starting_at(start, Duration::from_micros(1_700_000_000_000_900));
        for (since_us, expected_ms) in [
            (0, 1_700_000_000_000),
            (999, 1_700_000_000_000),
            (1_000, 1_700_000_000_001),
            (86_400_000_000, 1_700_086_400_000),
        ] {
            assert_eq!(
                clock.at(start + Duration::from_micros(since_us)),
                expected_ms
            );
        }
        if let Some(before) = start.checked_sub(Duration::from_millis(5)) {
            assert_eq!(clock.at(before), 1_700_000_000_000);
        }
    }

    #[test]
    fn it_starts_no_earlier_than_what_was_seen() {
        let ahead = Clock::start().now_ms() + 86_400_000;
        assert_eq!(Clock::start_from(ahead).started_ms(), ahead);
        let now = Clock::start_from(1_000).started_ms();
        assert!((1_700_000_000_000..ahead).contains(&now), "{now}");
    }

    #[test]
    fn it_starts_at_the_wall_time_and_never_goes_back() {
        let wall = || millis(UNIX_EPOCH.elapsed().expect("this machine is past 1970"));
        let before = wall();
        let clock = Clock::start();
        let copy = clock;
        let after = wall();
        assert!((before..=after).contains(&clock.start_ms));
        let instant = Instant::now();
        assert_eq!(clock.at(instant), copy.at(instant));
        let mut last = clock.at(instant);
        for _ in 0..1000 {
            let now = clock.now_ms();
            assert!(now >= last);
            last = now;
        }
    }
}
