//! A histogram of durations with one writer: log-linear buckets of nanoseconds, eight to each power of two, so that a
//! quantile read from it is wrong by at most an eighth. It keeps no minimum or maximum; the buckets bound both.

use std::sync::atomic::{AtomicU64, Ordering};

use super::counters::add;

/// Buckets to each power of two: 2^3.
const SUB_BITS: u32 = 3;
/// What is shorter than this many bits of nanoseconds (1 us) falls into the first bucket: no request is that short.
const MIN_BITS: u32 = 10;
/// What is longer (68 s) falls into the last: every time-out is shorter, or is set so on purpose.
const MAX_BITS: u32 = 36;
/// The number of buckets.
pub(crate) const BUCKETS: usize = ((MAX_BITS - MIN_BITS) << SUB_BITS) as usize + 2;

/// Durations in nanoseconds. Written by one thread, read by any.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub(crate) const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum_ns: AtomicU64::new(0),
        }
    }

    /// Counts a duration. Only the thread that owns the histogram may call this.
    #[inline]
    pub(crate) fn record(&self, nanos: u64) {
        self.record_some(nanos, 1);
    }

    /// The same for some that took as long.
    #[inline]
    pub(crate) fn record_some(&self, nanos: u64, count: u64) {
        add(&self.buckets[bucket_of(nanos)], count);
        add(&self.sum_ns, nanos.saturating_mul(count));
    }

    /// The same where several threads may. Dearer: for what is rare.
    pub(crate) fn record_beside_others(&self, nanos: u64) {
        self.buckets[bucket_of(nanos)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// As it is now.
    pub(crate) fn distribution(&self) -> Distribution {
        let mut distribution = Distribution::default();
        distribution.add(self);
        distribution
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The index of the bucket that a duration falls in.
#[inline]
fn bucket_of(nanos: u64) -> usize {
    if nanos < 1 << MIN_BITS {
        return 0;
    }
    let bits = nanos.ilog2();
    if bits >= MAX_BITS {
        return BUCKETS - 1;
    }
    let sub = (nanos >> (bits - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    1 + (((bits - MIN_BITS) as usize) << SUB_BITS) + sub as usize
}

/// The first duration, in nanoseconds, that is too long for a bucket.
fn upper_bound_ns(bucket: usize) -> u64 {
    if bucket == 0 {
        return 1 << MIN_BITS;
    }
    let place = bucket as u64 - 1;
    let bits = MIN_BITS + (place >> SUB_BITS) as u32;
    let sub = place & ((1 << SUB_BITS) - 1);
    ((1 << SUB_BITS) + sub + 1) << (bits - SUB_BITS)
}

/// The sum of some histograms at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Distribution {
    buckets: [u64; BUCKETS],
    sum_ns: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            sum_ns: 0,
        }
    }
}

impl Distribution {
    pub(crate) fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        self.sum_ns += histogram.sum_ns.load(Ordering::Relaxed);
    }

    /// Takes away what was counted up to an earlier moment.
    pub(crate) fn subtract(&mut self, earlier: &Self) {
        for (sum, before) in self.buckets.iter_mut().zip(&earlier.buckets) {
            *sum = sum.saturating_sub(*before);
        }
        self.sum_ns = self.sum_ns.saturating_sub(earlier.sum_ns);
    }

    /// For each power of two that something is below and not below the one before: the bound in nanoseconds, and how many
    /// are below it.
    pub(crate) fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut steps = Vec::new();
        let (mut held, mut told) = (0, 0);
        for (bucket, count) in self.buckets.iter().enumerate() {
            held += count;
            let bound = upper_bound_ns(bucket);
            if held > told && (bound.is_power_of_two() || bucket == BUCKETS - 1) {
                told = held;
                steps.push((bound, held));
            }
        }
        steps
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(crate) fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// The upper bound, in seconds, of the bucket that holds the quantile; 0 when nothing was counted.
    pub(crate) fn quantile_seconds(&self, quantile: f64) -> f64 {
        let count = self.count();
        if count == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_sign_loss, reason = "quantiles lie between 0 and 1")]
        let above = (count as f64 * (1.0 - quantile)) as u64;
        let mut left = count - above.min(count - 1);
        for (bucket, &held) in self.buckets.iter().enumerate() {
            if held >= left {
                return upper_bound_ns(bucket) as f64 / 1e9;
            }
            left -= held;
        }
        0.0
    }

    /// For the exposition: an upper bound in seconds and how many are *in* that bucket, at powers of two from 4 us to 9
    /// s, where bounds of the log-linear buckets lie exactly, then infinity.
    pub(crate) fn coarse(&self) -> Vec<(f64, u64)> {
        let mut coarse = Vec::with_capacity(23);
        let mut held = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            held += count;
            let bound = upper_bound_ns(bucket);
            if bound.is_power_of_two() && (12..=33).contains(&bound.ilog2()) {
                coarse.push((bound as f64 / 1e9, held));
                held = 0;
            }
        }
        coarse.push((f64::INFINITY, held));
        coarse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        let mut nanos = 0u64;
        for bucket in 0..BUCKETS - 1 {
            assert_eq!(bucket_of(nanos), bucket, "{nanos} ns");
            let bound = upper_bound_ns(bucket);
            assert_eq!(bucket_of(bound - 1), bucket, "{bound} ns");
            assert!(bound > nanos);
            nanos = bound;
        }
        assert_eq!(bucket_of(nanos), BUCKETS - 1);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_right_to_an_eighth() {
        let histogram = Histogram::new();
        for micros in 1..=1000u64 {
            histogram.record(micros * 1000);
        }
        let mut sum = Distribution::default();
        sum.add(&histogram);
        assert_eq!(sum.count(), 1000);
        assert!((sum.sum_seconds() - 0.5005).abs() < 1e-9);
        for (quantile, seconds) in [(0.5, 0.0005), (0.95, 0.00095), (0.99, 0.00099)] {
            let found = sum.quantile_seconds(quantile);
            assert!(
                (seconds..seconds * 1.13).contains(&found),
                "p{quantile}: {found}"
            );
        }
        assert_eq!(sum.coarse().iter().map(|b| b.1).sum::<u64>(), 1000);
    }
}
