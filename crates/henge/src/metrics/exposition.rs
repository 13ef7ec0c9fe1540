//! The metrics as text: in the `OpenMetrics` format, which Prometheus asks for, and in the older one of Prometheus, which others read.

use std::fmt::{self, Write as _};

use henge_engine::AGE_BOUNDS_S;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{self, Registry};

use super::reading::{Figure, Reading, Sample};
use super::table::{Kind, Metric, Unit};

/// How the metrics are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// What suits who says that it accepts this, in values of `Accept`.
    pub(crate) fn accepted<'a>(accept: impl Iterator<Item = &'a str>) -> Self {
        let (mut open, mut older) = (0.0, 0.0);
        for range in accept.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok());
            let weight = weight.unwrap_or(1.0);
            let of = if name.eq_ignore_ascii_case("application/openmetrics-text") {
                &mut open
            } else if name.eq_ignore_ascii_case("text/plain") {
                &mut older
            } else {
                // Who takes anything is given what it always was.
                continue;
            };
            *of = f64::max(*of, weight);
        }
        if open > 0.0 && open >= older {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its media type.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The media types of all formats.
pub(crate) const CONTENT_TYPES: [&str; 2] = [
    Format::OpenMetrics.content_type(),
    Format::Prometheus.content_type(),
];

/// All metrics as text.
pub(crate) fn text(reading: Reading, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(reading)));
    let mut out = String::with_capacity(32 * 1024);
    text::encode(&mut out, &registry).expect("writing to a string cannot fail");
    match format {
        Format::OpenMetrics => out,
        Format::Prometheus => older(&out),
    }
}

/// The same in the older format: it knows no units, no infos and no end, and a counter's name has its suffix everywhere.
fn older(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut suffix = "";
    let mut kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for line in text.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            let _ = writeln!(out, "{line}");
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (Some(what), Some(name), Some(rest)) = (words.next(), words.next(), words.next())
        else {
            // The end.
            continue;
        };
        let rest = match what {
            "HELP" => {
                // What kind it is comes behind.
                let kind = kinds.next().and_then(|kind| kind.rsplit(' ').next());
                suffix = match kind {
                    Some("counter") => "_total",
                    Some("info") => "_info",
                    _ => "",
                };
                rest
            }
            "TYPE" if rest == "info" => "gauge",
            "TYPE" => rest,
            _ => continue,
        };
        let _ = writeln!(out, "# {what} {name}{suffix} {rest}");
    }
    out
}

#[derive(Debug)]
struct Scrape(Reading);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (metric, samples) in self.0.families() {
            let (name, unit) = (metric.prefixed(), unit(metric.unit));
            let mut encoder =
                encoder.encode_descriptor(&name, metric.help, unit.as_ref(), kind(metric.kind))?;
            for sample in samples {
                let labels: Vec<(&str, &str)> = labels(metric, sample).collect();
                if metric.kind == Kind::Info {
                    encoder.encode_info(&labels)?;
                } else if labels.is_empty() {
                    encode(&mut encoder, metric.kind, &sample.figure)?;
                } else {
                    let mut encoder = encoder.encode_family(&labels)?;
                    encode(&mut encoder, metric.kind, &sample.figure)?;
                }
            }
        }
        Ok(())
    }
}

fn labels<'a>(
    metric: &Metric,
    sample: &'a Sample,
) -> impl Iterator<Item = (&'static str, &'a str)> {
    let values = sample.labels.iter().map(String::as_str);
    metric.labels.iter().copied().zip(values)
}

fn encode(encoder: &mut MetricEncoder<'_>, kind: Kind, figure: &Figure) -> fmt::Result {
    type None = [(&'static str, &'static str); 0];
    match (kind, figure) {
        (Kind::Counter, Figure::Count(count)) => {
            encoder.encode_counter::<None, _, f64>(count, None)
        }
        (Kind::Counter, Figure::Number(number)) => {
            encoder.encode_counter::<None, _, f64>(number, None)
        }
        (_, Figure::Count(count)) => encoder.encode_gauge(&(*count as f64)),
        (_, Figure::Number(number)) => encoder.encode_gauge(number),
        (_, Figure::Durations(durations)) => {
            let (sum, count) = (durations.sum_seconds(), durations.count());
            encoder.encode_histogram::<None>(sum, count, &durations.coarse(), None)
        }
        (_, Figure::Ages(ages)) => {
            let bounds = AGE_BOUNDS_S.iter().map(|&bound| bound as f64);
            let bounds = bounds.chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(ages.counts).collect();
            let count = ages.counts.iter().sum();
            encoder.encode_histogram::<None>(ages.sum_s as f64, count, &buckets, None)
        }
    }
}

fn unit(unit: Unit) -> Option<registry::Unit> {
    match unit {
        Unit::Plain => None,
        Unit::Bytes => Some(registry::Unit::Bytes),
        Unit::Seconds => Some(registry::Unit::Seconds),
    }
}

fn kind(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge | Kind::Flag => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::table::MetricId;

    #[test]
    fn each_is_given_what_it_prefers() {
        let open = "application/openmetrics-text";
        for (accept, expected) in [
            (vec![], Format::Prometheus),
            (vec!["*/*"], Format::Prometheus),
            (vec![open], Format::OpenMetrics),
            (
                vec!["Application/OpenMetrics-Text; version=1.0.0"],
                Format::OpenMetrics,
            ),
            (vec!["text/html, */*", open], Format::OpenMetrics),
            (
                vec!["application/openmetrics-text;q=0, text/plain"],
                Format::Prometheus,
            ),
            (vec!["application/openmetrics-text;q=0"], Format::Prometheus),
            (
                vec!["text/plain;q=1, application/openmetrics-text;q=0.1"],
                Format::Prometheus,
            ),
            (
                vec!["application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2,*/*;q=0.1"],
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(
                Format::accepted(accept.iter().copied()),
                expected,
                "{accept:?}"
            );
        }
    }

    #[test]
    fn both_formats_say_the_same() {
        let reading = || {
            let mut reading = Reading::new();
            reading.count(MetricId::Hits, 3);
            reading.count(MetricId::Items, 2);
            reading.set(MetricId::Cpu, &["user"], Figure::Number(1.5));
            reading.set(MetricId::Build, &["1.0", "abc"], Figure::Count(1));
            reading
        };
        let open = "\
# HELP henge_items Items that live
# TYPE henge_items gauge
henge_items 2.0
# HELP henge_hits Reads that found their key
# TYPE henge_hits counter
henge_hits_total 3
# HELP henge_cpu_seconds Processor time
# TYPE henge_cpu_seconds counter
# UNIT henge_cpu_seconds seconds
henge_cpu_seconds_total{mode=\"user\"} 1.5
# HELP henge_build What is running
# TYPE henge_build info
henge_build_info{version=\"1.0\",commit=\"abc\"} 1
# EOF
";
        let older = "\
# HELP henge_items Items that live
# TYPE henge_items gauge
henge_items 2.0
# HELP henge_hits_total Reads that found their key
# TYPE henge_hits_total counter
henge_hits_total 3
# HELP henge_cpu_seconds_total Processor time
# TYPE henge_cpu_seconds_total counter
henge_cpu_seconds_total{mode=\"user\"} 1.5
# HELP henge_build_info What is running
# TYPE henge_build_info gauge
henge_build_info{version=\"1.0\",commit=\"abc\"} 1
";
        assert_eq!(text(reading(), Format::OpenMetrics), open);
        assert_eq!(text(reading(), Format::Prometheus), older);
    }
}
