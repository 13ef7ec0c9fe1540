//! The figures of all metrics at one moment, in the order of the table, for whichever form they are shown in.

use henge_engine::{AGE_BOUNDS_S, EvictionAges};
use serde_json::{Map, Value, json};

use super::histogram::Distribution;
use super::table::{Kind, METRICS, Metric, MetricId};

/// One figure.
#[derive(Clone, Debug)]
pub(crate) enum Figure {
    Count(u64),
    Number(f64),
    Durations(Box<Distribution>),
    Ages(EvictionAges),
}

/// A figure, and what its labels say, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) labels: Vec<String>,
    pub(crate) figure: Figure,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Reading {
    samples: Vec<Vec<Sample>>,
}

impl Reading {
    /// Of nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            samples: METRICS.iter().map(|_| Vec::new()).collect(),
        }
    }

    pub(crate) fn count(&mut self, metric: MetricId, count: u64) {
        self.set(metric, &[], Figure::Count(count));
    }

    pub(crate) fn number(&mut self, metric: MetricId, number: f64) {
        self.set(metric, &[], Figure::Number(number));
    }

    pub(crate) fn flag(&mut self, metric: MetricId, holds: bool) {
        self.count(metric, u64::from(holds));
    }

    /// The figure of these labels, one for each that the metric has.
    pub(crate) fn set(&mut self, metric: MetricId, labels: &[&str], figure: Figure) {
        assert_eq!(labels.len(), METRICS[metric as usize].labels.len());
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        self.samples[metric as usize].push(Sample { labels, figure });
    }

    /// Each metric that has a figure, with its figures.
    pub(crate) fn families(&self) -> impl Iterator<Item = (&'static Metric, &[Sample])> {
        let families = METRICS.iter().zip(&self.samples);
        families
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(metric, samples)| (metric, &samples[..]))
    }

    /// Puts all figures where the table says that JSON has them. What has figures by labels is there before the first of them comes, as an
    /// object without members, so that who reads it needs no case for that.
    pub(crate) fn show(&self, page: &mut Map<String, Value>) {
        let before_labels =
            |metric: &'static Metric| metric.json.split_once('{')?.0.rsplit_once('.');
        for (members, _) in METRICS.iter().filter_map(before_labels) {
            members.split('.').fold(&mut *page, object_in);
        }
        for (metric, samples) in self.families() {
            for sample in samples {
                put(page, &path(metric, sample), shown(metric, sample));
            }
        }
    }
}

/// The members that lead to a figure.
fn path(metric: &Metric, sample: &Sample) -> Vec<String> {
    let members = metric.json.split('.').map(|member| {
        let labels = metric.labels.iter().zip(&sample.labels);
        labels.fold(member.to_owned(), |member, (label, value)| {
            member.replace(&format!("{{{label}}}"), value)
        })
    });
    members.collect()
}

/// Puts a value in the place of what is there.
fn put(page: &mut Map<String, Value>, path: &[String], value: Value) {
    let Some((last, before)) = path.split_last() else {
        return;
    };
    let mut at = page;
    for member in before {
        at = object_in(at, member);
    }
    at.insert(last.clone(), value);
}

/// A member that is an object, or is made one.
fn object_in<'a>(page: &'a mut Map<String, Value>, member: &str) -> &'a mut Map<String, Value> {
    let member = page.entry(member).or_insert(Value::Null);
    if !member.is_object() {
        *member = json!({});
    }
    let Value::Object(object) = member else {
        unreachable!("it was made one");
    };
    object
}

fn shown(metric: &Metric, sample: &Sample) -> Value {
    match (metric.kind, &sample.figure) {
        (Kind::Flag, Figure::Count(holds)) => json!(*holds > 0),
        (Kind::Info, _) => {
            let texts = metric.labels.iter().zip(&sample.labels);
            texts
                .map(|(label, text)| ((*label).to_owned(), json!(text)))
                .collect()
        }
        (_, Figure::Count(count)) => json!(count),
        (_, Figure::Number(number)) => json!(number),
        (_, Figure::Durations(durations)) => quantiles(durations),
        (_, Figure::Ages(ages)) => buckets(ages),
    }
}

fn quantiles(durations: &Distribution) -> Value {
    let quantile = |q| durations.quantile_seconds(q);
    json!({
        "p50": quantile(0.5),
        "p95": quantile(0.95),
        "p99": quantile(0.99),
        "p999": quantile(0.999),
        "sum": durations.sum_seconds(),
        "count": durations.count(),
    })
}

/// How many are up to each bound, in seconds, and not up to the one before.
fn buckets(ages: &EvictionAges) -> Value {
    let bounds = AGE_BOUNDS_S.iter().map(u64::to_string);
    let bounds = bounds.chain(["inf".to_owned()]);
    let counts: Map<String, Value> = bounds
        .zip(ages.counts.iter().map(|count| json!(count)))
        .collect();
    json!({
        "counts": counts,
        "sum": ages.sum_s,
        "count": ages.counts.iter().sum::<u64>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_where_the_table_says() {
        let mut reading = Reading::new();
        reading.count(MetricId::Hits, 3);
        reading.flag(MetricId::Loading, false);
        reading.set(MetricId::Cpu, &["user"], Figure::Number(1.5));
        let labels = ["get", "read", "200"];
        reading.set(MetricId::Requests, &labels, Figure::Count(2));
        reading.set(MetricId::Build, &["1.0", "abc"], Figure::Count(1));
        let mut page = Map::new();
        page.insert("hits".to_owned(), json!(1));
        page.insert("routes".to_owned(), json!({"get": {"class": "read"}}));
        reading.show(&mut page);
        let none = json!({});
        let expected = json!({
            "hits": 3,
            "persistence": {"is_loading": false},
            "process": {"cpu_user_seconds": 1.5},
            "routes": {"get": {"class": "read", "by_status": {"200": 2}}},
            "build": {"version": "1.0", "commit": "abc"},
            // There is no figure of these yet.
            "answers": none,
            "cluster": {"links": none, "members": none},
            "commands": none,
            "error_replies": none,
            "evictions": none,
            "evictions_by_age": none,
            "memory": {"by_use": none},
            "misses_by_cause": none,
            "network": {"rate_limited": none},
            "replication": {"peers": none},
            "threads": none,
        });
        assert_eq!(Value::Object(page), expected);
    }
}
