//! The page of documentation of all metrics, `docs/metrics.md`, made of the table.

use std::fmt::Write as _;

use super::table::{Kind, METRICS, Metric, Unit};
use crate::docs_page;

const HEAD: &str = "\
# Metrics

What a node shows of itself: `GET /metrics` for Prometheus and what reads its format, `GET /metrics/json` as JSON, with quantiles. This page is
made of the table of metrics; to write it anew: `UPDATE_DOCS=1 cargo test -p henge --lib docs_page`.

A counter only grows while the node lives; a gauge goes up and down. A histogram has `_bucket`, `_sum` and `_count` for Prometheus; JSON has `p50`,
`p95`, `p99`, `p999`, `sum` and `count` of it, in seconds. `henge_eviction_age_seconds` is the one without quantiles, as its bounds lie too far apart: JSON has
`counts` of it, by how many are up to each bound and not up to the one before, beside `sum` and `count`. What holds or does not is 1 or 0 for Prometheus, and true or false in JSON. `/metrics` is
OpenMetrics 1.0 where `Accept` names that, as Prometheus does, and else the text format 0.0.4. The labels of a series are few: routes, commands that were called, and words
of this page. In JSON what has figures by labels is always there, as an object without members before the first of them.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut section = "";
    for metric in &METRICS {
        if metric.section != section {
            section = metric.section;
            let _ = write!(
                page,
                "\n## {section}\n\n| metric | kind | labels | JSON | what it is |\n|---|---|---|---|---|\n"
            );
        }
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | `{}` | {} |",
            shown(metric),
            kind(metric.kind),
            labels.join(", "),
            metric.json,
            metric.help,
        );
    }
    page
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge | Kind::Flag => "gauge",
        Kind::Histogram => "histogram",
        Kind::Info => "info",
    }
}

/// The name that a query has.
fn shown(metric: &Metric) -> String {
    let unit = match metric.unit {
        Unit::Plain => "",
        Unit::Bytes => "_bytes",
        Unit::Seconds => "_seconds",
    };
    let kind = match metric.kind {
        Kind::Counter => "_total",
        Kind::Info => "_info",
        Kind::Gauge | Kind::Flag | Kind::Histogram => "",
    };
    format!("{}{unit}{kind}", metric.prefixed())
}

#[test]
fn docs_page_is_what_the_table_gives() {
    docs_page::check("metrics.md", &page());
}
