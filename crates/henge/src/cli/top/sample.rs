//! What one node's pages say at a moment, read once; and the figures that follow from two such moments, of one node or of several together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::latency::Latencies;
use super::poll::Pages;

/// The counters and sizes of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    hits: u64,
    misses: u64,
    latencies: Latencies,
    sizes: Sizes,
    /// How many reads missed, by what had become of the key; none of a node that does not say.
    causes: Option<BTreeMap<String, u64>>,
}

/// What is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) charged_bytes: u64,
    pub(super) limit_bytes: u64,
    pub(super) rss_bytes: u64,
    pub(super) items: u64,
}

impl Sample {
    pub(super) fn read(pages: &Pages) -> Self {
        let page = &pages.metrics;
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let memory = &page["memory"];
        let causes = page["misses_by_cause"].as_object();
        Self {
            hits: number(&page["hits"]),
            misses: number(&page["misses"]),
            latencies: Latencies::read(&pages.text),
            sizes: Sizes {
                charged_bytes: number(&memory["charged_bytes"]),
                limit_bytes: number(&memory["limit_bytes"]),
                rss_bytes: number(&memory["rss_bytes"]),
                items: number(&page["items"]),
            },
            causes: causes.map(|causes| {
                let causes = causes.iter();
                causes
                    .map(|(cause, count)| (cause.clone(), number(count)))
                    .collect()
            }),
        }
    }
}

/// What a node, or several, do and hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) sizes: Sizes,
    /// None before there are two moments.
    pub(super) rates: Option<Rates>,
    /// Reads that missed since the start, by cause.
    pub(super) causes: Option<BTreeMap<String, u64>>,
}

/// What was done in a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) operations: f64,
    hits: f64,
    misses: f64,
    latencies: Latencies,
    causes: BTreeMap<String, f64>,
}

impl Figures {
    /// Those of a moment, with the rates since an earlier one.
    pub(super) fn of(now: &Sample, before: Option<(&Sample, Duration)>) -> Self {
        Self {
            sizes: now.sizes,
            rates: before.and_then(|(before, passed)| Rates::between(before, now, passed)),
            causes: now.causes.clone(),
        }
    }

    /// Adds those of another node.
    pub(super) fn add(&mut self, other: &Self) {
        let (mine, theirs) = (&mut self.sizes, &other.sizes);
        mine.charged_bytes += theirs.charged_bytes;
        mine.limit_bytes += theirs.limit_bytes;
        mine.rss_bytes += theirs.rss_bytes;
        mine.items += theirs.items;
        if let Some(theirs) = &other.rates {
            let mine = self.rates.get_or_insert_default();
            mine.operations += theirs.operations;
            mine.hits += theirs.hits;
            mine.misses += theirs.misses;
            mine.latencies.add(&theirs.latencies);
            for (cause, rate) in &theirs.causes {
                *mine.causes.entry(cause.clone()).or_default() += rate;
            }
        }
        for (cause, count) in other.causes.iter().flatten() {
            let mine = self.causes.get_or_insert_default();
            *mine.entry(cause.clone()).or_default() += count;
        }
    }
}

impl Rates {
    /// None of a node that was started anew meanwhile.
    fn between(before: &Sample, now: &Sample, passed: Duration) -> Option<Self> {
        let seconds = passed.as_secs_f64();
        if seconds <= 0.0 {
            return None;
        }
        let rate = |now: u64, before: u64| Some(now.checked_sub(before)? as f64 / seconds);
        let latencies = now.latencies.since(&before.latencies)?;
        let earlier = |cause: &str| {
            let causes = before.causes.as_ref();
            causes
                .and_then(|causes| causes.get(cause))
                .copied()
                .unwrap_or(0)
        };
        let causes = now.causes.iter().flatten();
        Some(Self {
            operations: latencies.count() as f64 / seconds,
            hits: rate(now.hits, before.hits)?,
            misses: rate(now.misses, before.misses)?,
            causes: causes
                .map(|(cause, &count)| Some((cause.clone(), rate(count, earlier(cause))?)))
                .collect::<Option<_>>()?,
            latencies,
        })
    }

    /// Which part of the reads found their key; none where nothing was read.
    pub(super) fn hit_ratio(&self) -> Option<f64> {
        let reads = self.hits + self.misses;
        (reads > 0.0).then(|| self.hits / reads)
    }

    pub(super) fn quantile(&self, part: f64) -> Option<Duration> {
        self.latencies.quantile(part)
    }

    /// How many reads missed for a cause.
    pub(super) fn missed(&self, cause: &str) -> f64 {
        self.causes.get(cause).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample(hits: u64, misses: u64) -> Sample {
        let metrics = json!({
            "hits": hits, "misses": misses, "items": 7,
            "memory": {"charged_bytes": 10, "limit_bytes": 100, "rss_bytes": 50},
            "misses_by_cause": {"expired": misses},
        });
        let pages = Pages {
            metrics,
            text: format!(
                "henge_request_duration_seconds_bucket{{le=\"+Inf\",route=\"get\"}} {}",
                hits + misses
            ),
            ..Pages::default()
        };
        Sample::read(&pages)
    }

    #[test]
    fn rates_are_of_what_came_between() {
        let (before, now) = (sample(10, 10), sample(100, 20));
        let alone = Figures::of(&before, None);
        assert_eq!((alone.rates, alone.sizes.items), (None, 7));
        let figures = Figures::of(&now, Some((&before, Duration::from_secs(2))));
        let rates = figures.rates.clone().expect("there are two");
        assert_eq!((rates.operations, rates.hit_ratio()), (50.0, Some(0.9)));
        assert!((rates.missed("expired") - 5.0).abs() < 1e-9);
        let mut both = figures.clone();
        both.add(&figures);
        let rates = both.rates.expect("there are two");
        assert_eq!((rates.operations, rates.hit_ratio()), (100.0, Some(0.9)));
        assert_eq!(
            (both.sizes.items, both.causes.expect("some")["expired"]),
            (14, 40)
        );
        // It was started anew: nothing can be said of the time between.
        assert_eq!(
            Figures::of(&before, Some((&now, Duration::from_secs(2)))).rates,
            None
        );
        assert_eq!(
            Figures::of(&now, Some((&before, Duration::ZERO))).rates,
            None
        );
        let still = Figures::of(&now, Some((&now, Duration::from_secs(1))))
            .rates
            .expect("two");
        assert_eq!((still.hit_ratio(), still.quantile(0.5)), (None, None));
    }
}
