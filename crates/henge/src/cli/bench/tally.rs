//! What a run has found: latencies, counts and the course of both, of one thread or of all together.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What is longer counts as this long. Time-outs are shorter, but a request may be due long before it is sent.
const MAX_LATENCY: Duration = Duration::from_hours(1);
/// Three decimal digits, as the figures are rounded to in any case.
const DIGITS: u8 = 3;
/// The most points of the course of a run: what a plot can show.
const MAX_POINTS: u32 = 240;
/// The shortest time between two of them; below, chance is all that one sees.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// The findings.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) reads: Class,
    pub(super) writes: Class,
    /// Requests that were due and could not be sent before the end.
    pub(super) unsent: u64,
    /// How late the load itself was in an open loop, in nanoseconds: from when a request was due, and its connection had been
    /// answered, until it was sent.
    pub(super) lags: Histogram<u64>,
    pub(super) first_error: Option<String>,
    /// Of the points of the course.
    pub(super) interval: Duration,
}

/// Of requests of one kind.
#[derive(Clone, Debug)]
pub(super) struct Class {
    /// Latencies of those that were answered, in nanoseconds.
    pub(super) latencies: Histogram<u64>,
    pub(super) errors: u64,
    /// Reads that found something.
    pub(super) hits: u64,
    /// How many were answered in each interval.
    pub(super) course: Vec<u64>,
}

/// Of nanoseconds.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY.as_nanos() as u64, DIGITS)
        .expect("the bounds are far enough apart")
}

impl Class {
    fn new(points: usize) -> Self {
        Self {
            latencies: histogram(),
            errors: 0,
            hits: 0,
            course: vec![0; points],
        }
    }

    /// How many were answered.
    pub(super) fn answered(&self) -> u64 {
        self.latencies.len()
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.latencies
            .add(&other.latencies)
            .expect("all histograms have the same bounds");
        self.errors += other.errors;
        self.hits += other.hits;
        for (mine, others) in self.course.iter_mut().zip(&other.course) {
            *mine += others;
        }
    }

    /// The latency that this part of the requests had at most.
    pub(super) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latencies.value_at_quantile(quantile))
    }
}

impl Tally {
    /// For a run that is measured so long.
    pub(super) fn new(duration: Duration) -> Self {
        let interval = (duration / MAX_POINTS).max(MIN_INTERVAL);
        let points = duration.as_nanos().div_ceil(interval.as_nanos()) as usize;
        Self {
            reads: Class::new(points),
            writes: Class::new(points),
            unsent: 0,
            lags: histogram(),
            first_error: None,
            interval,
        }
    }

    fn class(&mut self, is_read: bool) -> &mut Class {
        if is_read {
            &mut self.reads
        } else {
            &mut self.writes
        }
    }

    /// Counts an answer that came so long after the request was due, at this time of the run.
    pub(super) fn answer(&mut self, is_read: bool, is_hit: bool, latency: Duration, at: Duration) {
        let point = (at.as_nanos() / self.interval.as_nanos()) as usize;
        let class = self.class(is_read);
        class.latencies.saturating_record(latency.as_nanos() as u64);
        class.hits += u64::from(is_hit);
        // What was sent before the end and answered after it belongs to the end.
        let last = class.course.len() - 1;
        class.course[point.min(last)] += 1;
    }

    /// Counts requests that got no answer, or a refusal.
    pub(super) fn errors(&mut self, is_read: bool, count: u64, why: impl FnOnce() -> String) {
        self.class(is_read).errors += count;
        if count > 0 && self.first_error.is_none() {
            self.first_error = Some(why());
        }
    }

    /// Counts how late something was sent, for no other reason than the load itself.
    pub(super) fn lag(&mut self, lag: Duration) {
        self.lags.saturating_record(lag.as_nanos() as u64);
    }

    /// The lag that this part of what was sent had at most; none where nothing was sent by the clock.
    pub(super) fn lag_quantile(&self, quantile: f64) -> Option<Duration> {
        let is_known = !self.lags.is_empty();
        is_known.then(|| Duration::from_nanos(self.lags.value_at_quantile(quantile)))
    }

    pub(super) fn add(&mut self, other: Self) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.unsent += other.unsent;
        self.lags
            .add(&other.lags)
            .expect("all histograms have the same bounds");
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// Reads and writes together.
    pub(super) fn all(&self) -> Class {
        let mut all = self.reads.clone();
        all.add(&self.writes);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let second = Duration::from_secs(1);
        let mut all = Tally::new(second);
        assert_eq!(all.reads.course.len(), 10);
        for thread in 0..4_u32 {
            let mut one = Tally::new(second);
            one.answer(true, thread > 0, Duration::from_micros(100), Duration::ZERO);
            one.answer(false, false, Duration::from_hours(2), second * 2);
            one.errors(false, 2, || format!("error {thread}"));
            one.unsent = 3;
            one.lag(Duration::from_millis(u64::from(thread) + 1));
            all.add(one);
        }
        assert_eq!((all.reads.answered(), all.reads.hits), (4, 3));
        assert_eq!((all.writes.answered(), all.writes.errors), (4, 8));
        assert_eq!(
            (all.unsent, all.first_error.as_deref()),
            (12, Some("error 0"))
        );
        assert_eq!(all.reads.course[0], 4);
        assert_eq!(all.writes.course[9], 4, "after the end is at the end");
        let both = all.all();
        assert_eq!((both.answered(), both.errors), (8, 8));
        let close = |found: Duration, expected: Duration| {
            let off = found.abs_diff(expected).as_secs_f64() / expected.as_secs_f64();
            assert!(off < 0.002, "{found:?}");
        };
        close(both.quantile(0.5), Duration::from_micros(100));
        close(both.quantile(1.0), MAX_LATENCY);
        let lag = all.lag_quantile(1.0).expect("some were late");
        close(lag, Duration::from_millis(4));
        assert_eq!(Tally::new(second).lag_quantile(1.0), None);
    }

    #[test]
    fn a_course_has_a_bounded_number_of_points() {
        for seconds in [1, 30, 3600, 86_400 * 365] {
            let tally = Tally::new(Duration::from_secs(seconds));
            let points = tally.reads.course.len();
            assert!((10..=241).contains(&points), "{seconds} s: {points}");
        }
    }
}
