//! What has to be looked at again and again to be known: how much is done in a second, and the most memory that was in use.
//! Housekeeping looks once a second; nobody on the way of a request does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Metrics;

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    last: Mutex<Option<Look>>,
    /// Commands of the Redis protocol in the last second, and bytes over all protocols.
    per_second: AtomicU64,
    /// Commands of the Redis protocol and requests of HTTP.
    operations_per_second: AtomicU64,
    received_per_second: AtomicU64,
    sent_per_second: AtomicU64,
    peak_bytes: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    answered: u64,
    requests: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

impl Pulse {
    /// Looks, and compares with the last look.
    pub(crate) fn look(&self, metrics: &Metrics, charged_bytes: u64, at: Instant) {
        let counters = &metrics.counters;
        let now = Look {
            at,
            answered: counters.sum(|thread| &thread.answered),
            requests: counters.requests(),
            received_bytes: counters.sum(|thread| &thread.received_bytes),
            sent_bytes: counters.sum(|thread| &thread.sent_bytes),
        };
        self.peak(charged_bytes);
        if let Some(before) = self.last.lock().replace(now) {
            let took = at.saturating_duration_since(before.at);
            let store = |rate: &AtomicU64, now: u64, before: u64| {
                rate.store(per_second(now - before, took), Ordering::Relaxed);
            };
            store(&self.per_second, now.answered, before.answered);
            let operations = |look: &Look| look.answered + look.requests;
            store(
                &self.operations_per_second,
                operations(&now),
                operations(&before),
            );
            store(
                &self.received_per_second,
                now.received_bytes,
                before.received_bytes,
            );
            store(&self.sent_per_second, now.sent_bytes, before.sent_bytes);
        }
    }

    /// Notes what is in use, and gives the most that ever was.
    pub(crate) fn peak(&self, bytes: u64) -> u64 {
        self.peak_bytes
            .fetch_max(bytes, Ordering::Relaxed)
            .max(bytes)
    }

    /// Commands and requests, of all protocols, in the last second.
    pub(crate) fn operations_per_second(&self) -> u64 {
        self.operations_per_second.load(Ordering::Relaxed)
    }

    /// Commands, bytes received and bytes sent in the last second.
    pub(crate) fn rates(&self) -> [u64; 3] {
        [
            &self.per_second,
            &self.received_per_second,
            &self.sent_per_second,
        ]
        .map(|rate| rate.load(Ordering::Relaxed))
    }
}

fn per_second(count: u64, took: Duration) -> u64 {
    let millis = took.as_millis().max(1);
    u64::try_from(u128::from(count) * 1000 / millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_a_second() {
        assert_eq!(per_second(10, Duration::from_secs(1)), 10);
        assert_eq!(per_second(10, Duration::from_millis(500)), 20);
        assert_eq!(per_second(0, Duration::ZERO), 0);
        let pulse = Pulse::default();
        assert_eq!(pulse.peak(5), 5);
        assert_eq!(pulse.peak(3), 5);
    }
}
