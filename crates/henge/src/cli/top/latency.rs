//! How long requests took between two looks at a node: the histograms of its `/metrics`, read, added up and taken from each other. Quantiles
//! since the start, which JSON has, would hardly move any more on a node that has run for a day.

use std::collections::BTreeMap;
use std::time::Duration;

use super::figures::whole;
use crate::http::routes::ROUTES;

/// The metrics that are read: of requests over HTTP, and of commands of the Redis protocol.
const NAMES: [&str; 2] = [
    "henge_request_duration_seconds_bucket{",
    "henge_command_duration_seconds_bucket{",
];

/// How many operations took no longer than so many nanoseconds; the last bucket has all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Latencies {
    buckets: BTreeMap<u64, u64>,
}

impl Latencies {
    /// Those of a page of metrics: of whatever has to do with keys, so that who looks does not see his own looks.
    pub(super) fn read(page: &str) -> Self {
        let mut all = Self::default();
        for line in page.lines() {
            let series = NAMES.iter().find_map(|name| line.strip_prefix(name));
            if let Some((bound, count)) = series.and_then(bucket) {
                *all.buckets.entry(bound).or_default() += count;
            }
        }
        all
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.buckets.last_key_value().map_or(0, |(_, count)| *count)
    }

    /// Those since an earlier look; none where there are less than then, as of a node that was started anew.
    pub(super) fn since(&self, before: &Self) -> Option<Self> {
        let mut left = Self::default();
        for (&bound, &count) in &self.buckets {
            let earlier = before.buckets.get(&bound).copied().unwrap_or(0);
            left.buckets.insert(bound, count.checked_sub(earlier)?);
        }
        Some(left)
    }

    /// Adds those of another node.
    pub(super) fn add(&mut self, other: &Self) {
        for (&bound, &count) in &other.buckets {
            *self.buckets.entry(bound).or_default() += count;
        }
    }

    /// What a part of all took at most, as if those of a bucket were spread over it; none where there were none.
    pub(super) fn quantile(&self, part: f64) -> Option<Duration> {
        let all = self.count();
        if all == 0 {
            return None;
        }
        let rank = part * all as f64;
        let (mut bound_before, mut count_before) = (0, 0);
        for (&bound, &count) in &self.buckets {
            if count as f64 >= rank && count > count_before {
                // Nobody knows how much longer than the last bound the longest took.
                let bound = if bound == u64::MAX {
                    bound_before
                } else {
                    bound
                };
                let within = (rank - count_before as f64) / (count - count_before) as f64;
                let nanos = bound_before as f64 + within.max(0.0) * (bound - bound_before) as f64;
                return Some(Duration::from_secs_f64(nanos / 1e9));
            }
            (bound_before, count_before) = (bound, count);
        }
        None
    }
}

/// The bound in nanoseconds and the count of what stands behind the brace of a series; none if it is not to be counted.
fn bucket(series: &str) -> Option<(u64, u64)> {
    let (labels, count) = series.split_once("} ")?;
    let mut bound = None;
    for label in labels.split(',') {
        let (name, value) = label.split_once('=')?;
        let value = value.trim_matches('"');
        match name {
            "le" if value == "+Inf" => bound = Some(u64::MAX),
            "le" => bound = Some(whole(value.parse::<f64>().ok()? * 1e9)),
            "route" => {
                let route = ROUTES.iter().find(|route| route.name == value)?;
                if !route.id.is_about_keys() {
                    return None;
                }
            }
            _ => {}
        }
    }
    // A time may follow.
    let count = count.split(' ').next()?.parse::<f64>().ok()?;
    Some((bound?, whole(count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# TYPE henge_request_duration_seconds histogram
henge_request_duration_seconds_bucket{le=\"0.001\",route=\"get\"} 0
henge_request_duration_seconds_bucket{le=\"0.002\",route=\"get\"} 100
henge_request_duration_seconds_bucket{le=\"+Inf\",route=\"get\"} 101
henge_request_duration_seconds_bucket{le=\"0.001\",route=\"metrics\"} 1000
henge_request_duration_seconds_bucket{le=\"+Inf\",route=\"metrics\"} 1000
henge_command_duration_seconds_bucket{le=\"0.001\",command=\"get\"} 99
henge_command_duration_seconds_bucket{le=\"0.002\",command=\"get\"} 99
henge_command_duration_seconds_bucket{le=\"+Inf\",command=\"get\"} 99
henge_command_duration_seconds_sum{command=\"get\"} 12
";

    #[test]
    fn what_has_to_do_with_keys_is_read() {
        let all = Latencies::read(PAGE);
        assert_eq!(all.count(), 200);
        let micros = |part| all.quantile(part).map(|took| took.as_micros());
        assert_eq!(micros(0.25), Some(505));
        assert_eq!(micros(0.745), Some(1500));
        assert_eq!(micros(1.0), Some(2000));
        assert_eq!(Latencies::read("").quantile(0.5), None);
        assert_eq!(
            Latencies::read("henge_request_duration_seconds_bucket{le=").count(),
            0
        );
    }

    #[test]
    fn looks_are_taken_from_each_other() {
        let now = Latencies::read(PAGE);
        let mut before = now.clone();
        assert_eq!(now.since(&before).map(|left| left.count()), Some(0));
        assert_eq!(now.since(&Latencies::default()), Some(now.clone()));
        before.add(&now);
        assert_eq!(now.since(&before), None, "it was started anew");
        assert_eq!(before.count(), 400);
    }
}
