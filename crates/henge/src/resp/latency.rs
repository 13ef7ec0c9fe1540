//! `LATENCY`: of events that took longer than a threshold, the worst of each second, for the last seconds that had any. The
//! events are commands: those that should take about as long whatever there is, and the others.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// How many seconds an event keeps, as in Redis.
const MAX_SAMPLES: usize = 160;

/// What is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Command,
    FastCommand,
}

impl Event {
    pub(crate) const ALL: [Self; 2] = [Self::Command, Self::FastCommand];

    /// The name that clients know.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::FastCommand => "fast-command",
        }
    }

    /// The event of this name; case matters, as in Redis.
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|event| event.name().as_bytes() == name)
    }
}

/// The worst of one second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sample {
    /// Seconds since the Unix epoch.
    pub(crate) at_seconds: u64,
    pub(crate) took_ms: u64,
}

/// What is known of one event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Series {
    /// The oldest first.
    pub(crate) samples: VecDeque<Sample>,
    /// Over all time, not only what is kept.
    pub(crate) worst_ms: u64,
    pub(crate) sum_ms: u64,
    pub(crate) count: u64,
}

impl Series {
    fn add(&mut self, at_seconds: u64, took_ms: u64) {
        self.worst_ms = self.worst_ms.max(took_ms);
        self.sum_ms = self.sum_ms.saturating_add(took_ms);
        self.count += 1;
        match self.samples.back_mut() {
            // Threads may come a little late with theirs.
            Some(last) if last.at_seconds >= at_seconds => {
                last.took_ms = last.took_ms.max(took_ms);
            }
            _ => {
                if self.samples.len() == MAX_SAMPLES {
                    self.samples.pop_front();
                }
                self.samples.push_back(Sample {
                    at_seconds,
                    took_ms,
                });
            }
        }
    }
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// In milliseconds; 0 watches nothing.
    threshold_ms: AtomicU64,
    series: [Mutex<Series>; Event::ALL.len()],
}

impl Latency {
    pub(crate) fn threshold_ms(&self) -> u64 {
        self.threshold_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_threshold_ms(&self, threshold_ms: u64) {
        self.threshold_ms.store(threshold_ms, Ordering::Relaxed);
    }

    /// Whether what took so long belongs here.
    #[inline]
    pub(crate) fn is_slow(&self, took_us: u64) -> bool {
        let threshold_ms = self.threshold_ms();
        threshold_ms > 0 && took_us / 1000 >= threshold_ms
    }

    pub(crate) fn add(&self, is_fast: bool, at_seconds: u64, took_ms: u64) {
        let event = if is_fast {
            Event::FastCommand
        } else {
            Event::Command
        };
        self.series[event as usize].lock().add(at_seconds, took_ms);
    }

    /// What is known of an event; nothing if it never occurred.
    pub(crate) fn series(&self, event: Event) -> Option<Series> {
        let series = self.series[event as usize].lock();
        (series.count > 0).then(|| series.clone())
    }

    /// Forgets an event; says whether there was something to forget.
    pub(crate) fn reset(&self, event: Event) -> bool {
        let mut series = self.series[event as usize].lock();
        std::mem::take(&mut *series).count > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_each_second_is_kept() {
        let latency = Latency::default();
        assert!(!latency.is_slow(u64::MAX), "nothing is watched");
        latency.set_threshold_ms(5);
        assert!(!latency.is_slow(4_999) && latency.is_slow(5_000));
        for (at_seconds, took_ms) in [(10, 7), (10, 9), (10, 8), (12, 5), (11, 6)] {
            latency.add(false, at_seconds, took_ms);
        }
        assert_eq!(latency.series(Event::FastCommand), None);
        let series = latency.series(Event::Command).expect("it occurred");
        let samples: Vec<_> = series
            .samples
            .iter()
            .map(|sample| (sample.at_seconds, sample.took_ms))
            .collect();
        assert_eq!(samples, [(10, 9), (12, 6)]);
        assert_eq!((series.worst_ms, series.sum_ms, series.count), (9, 35, 5));
        for at_seconds in 20..1000 {
            latency.add(false, at_seconds, 1);
        }
        let series = latency.series(Event::Command).expect("it occurred");
        assert_eq!(series.samples.len(), MAX_SAMPLES);
        assert_eq!(series.worst_ms, 9);
        assert!(latency.reset(Event::Command) && !latency.reset(Event::Command));
    }
}
