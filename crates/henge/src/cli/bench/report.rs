//! The findings as a table for people, and as JSON for programs.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::options::Options;
use super::tally::{Class, Tally};

/// The quantiles that are shown, and what they are called. The last is the longest latency of all.
pub(super) const QUANTILES: [(f64, &str); 6] = [
    (0.5, "p50"),
    (0.9, "p90"),
    (0.99, "p99"),
    (0.999, "p99.9"),
    (0.9999, "p99.99"),
    (1.0, "max"),
];

/// A load that is late by as much makes a good part of the latencies that it finds.
const LATE: Duration = Duration::from_millis(1);

/// What is reported.
pub(super) struct Report<'a> {
    pub(super) options: &'a Options,
    pub(super) tally: &'a Tally,
    /// How long it was measured; less than was asked for if it was ended.
    pub(super) measured: Duration,
}

impl Report<'_> {
    /// The three groups of requests, with their names.
    pub(super) fn classes(&self) -> [(&'static str, Class); 3] {
        [
            ("reads", self.tally.reads.clone()),
            ("writes", self.tally.writes.clone()),
            ("all", self.tally.all()),
        ]
    }

    /// Requests a second.
    pub(super) fn rate(&self, class: &Class) -> f64 {
        class.answered() as f64 / self.measured.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// How many intervals of the course were measured to their end. What comes behind is left out: as a whole interval it
    /// would look like a collapse.
    pub(super) fn whole_intervals(&self) -> usize {
        (self.measured.as_nanos() / self.tally.interval.as_nanos()) as usize
    }

    /// The part of the reads that found something; none if nothing was read.
    pub(super) fn hit_ratio(&self) -> Option<f64> {
        let reads = &self.tally.reads;
        let answered = reads.answered();
        (answered > 0).then(|| reads.hits as f64 / answered as f64)
    }

    /// The rows of the table: what, and its figure for reads, writes and all.
    pub(super) fn rows(&self) -> Vec<(String, [String; 3])> {
        let classes = self.classes().map(|(_, class)| class);
        let each = |figure: &dyn Fn(&Class) -> String| {
            [
                figure(&classes[0]),
                figure(&classes[1]),
                figure(&classes[2]),
            ]
        };
        let hit_ratio = self
            .hit_ratio()
            .map_or("-".to_owned(), |ratio| format!("{:.2}%", ratio * 100.0));
        let mut rows = vec![
            (
                "ops".to_owned(),
                each(&|class| grouped(class.answered() as f64)),
            ),
            (
                "errors".to_owned(),
                each(&|class| grouped(class.errors as f64)),
            ),
            (
                "hit ratio".to_owned(),
                [hit_ratio, "-".to_owned(), "-".to_owned()],
            ),
            ("ops/s".to_owned(), each(&|class| grouped(self.rate(class)))),
        ];
        for (quantile, name) in QUANTILES {
            let latency = |class: &Class| match class.answered() {
                0 => "-".to_owned(),
                _ => duration(class.quantile(quantile)),
            };
            rows.push((name.to_owned(), each(&latency)));
        }
        rows
    }

    /// What a reader must know beside the figures.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(error) = &self.tally.first_error {
            remarks.push(format!("The first error: {error}"));
        }
        if self.tally.unsent > 0 {
            let rate = self.options.rate.unwrap_or_default();
            remarks.push(format!(
                "The rate of {}/s was not reached: {} requests were due and never sent, more than the server or this machine could do.",
                grouped(rate as f64),
                grouped(self.tally.unsent as f64)
            ));
        }
        if let Some(lag) = self.tally.lag_quantile(0.99)
            && lag >= LATE
        {
            remarks.push(format!(
                "The load itself was late: one in 100 requests was sent {} or more after it was due, though its connection was free. This machine is short of processors.",
                duration(lag)
            ));
        }
        if self.measured < self.options.duration {
            remarks.push(format!(
                "Ended after {} of {}.",
                duration(self.measured),
                duration(self.options.duration)
            ));
        }
        remarks
    }

    /// The table, for a terminal.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{}, {}\n\n{:<10} {:>14} {:>14} {:>14}\n",
            self.options.summary(),
            duration(self.measured),
            "",
            "reads",
            "writes",
            "all"
        );
        for (name, [reads, writes, all]) in self.rows() {
            // A string takes every text.
            let _ = writeln!(text, "{name:<10} {reads:>14} {writes:>14} {all:>14}");
        }
        for remark in self.remarks() {
            let _ = write!(text, "\n{remark}\n");
        }
        text
    }

    /// All of it, for programs. Latencies are in microseconds.
    pub(super) fn json(&self) -> String {
        let options = self.options;
        let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
        let class = |class: &Class| {
            let latencies: serde_json::Map<String, Value> = QUANTILES
                .iter()
                .filter(|_| class.answered() > 0)
                .map(|(quantile, name)| {
                    ((*name).to_owned(), json!(micros(class.quantile(*quantile))))
                })
                .collect();
            json!({
                "ops": class.answered(),
                "errors": class.errors,
                "ops_per_second": self.rate(class),
                "latency_us": latencies,
                "course": class.course.iter().take(self.whole_intervals()).collect::<Vec<_>>(),
            })
        };
        let lags = QUANTILES.map(|(quantile, name)| {
            let lag = self.tally.lag_quantile(quantile);
            (name.to_owned(), json!(lag.map(micros)))
        });
        let lags = serde_json::Map::from_iter(lags);
        let [(_, reads), (_, writes), (_, all)] = self.classes();
        let document = json!({
            "options": {
                "url": options.target.to_string(),
                "connections": options.connections,
                "threads": options.threads,
                "duration_s": options.duration.as_secs_f64(),
                "warmup_s": options.warmup.as_secs_f64(),
                "keys": options.keys,
                "size_bytes": options.size,
                "read": options.read,
                "rate": options.rate,
                "pipeline": options.pipeline,
                "dist": if options.is_zipf { "zipf" } else { "uniform" },
                "seed": options.seed,
                "load": options.load,
            },
            "measured_s": self.measured.as_secs_f64(),
            "hit_ratio": self.hit_ratio(),
            "unsent": self.tally.unsent,
            "send_lag_us": options.rate.map(|_| lags),
            "first_error": self.tally.first_error,
            "course_interval_s": self.tally.interval.as_secs_f64(),
            "reads": class(&reads),
            "writes": class(&writes),
            "all": class(&all),
        });
        format!("{document:#}\n")
    }
}

/// A duration with the unit that suits it, to three digits or so.
pub(in crate::cli) fn duration(duration: Duration) -> String {
    let us = duration.as_nanos() as f64 / 1000.0;
    let (number, unit) = match us {
        _ if us < 1e3 => (us, "µs"),
        _ if us < 1e6 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    let decimals = match number {
        _ if number == 0.0 || number >= 100.0 => 0,
        _ if number >= 10.0 => 1,
        _ => 2,
    };
    format!("{number:.decimals$} {unit}")
}

/// A whole number with its thousands apart.
pub(in crate::cli) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::options::tests::options;
    use super::*;

    /// Findings of a run of ten seconds: a thousand reads of 1 to 1000 µs, nine in ten a hit, and a hundred writes of 10 ms.
    pub(in crate::cli::bench) fn findings() -> (Options, Tally) {
        let options = options("-d 10s --rate 500").expect("good options");
        let mut tally = Tally::new(options.duration);
        for i in 1..=1000 {
            let at = Duration::from_millis(i * 10);
            tally.answer(true, i % 10 != 0, Duration::from_micros(i), at);
        }
        for i in 0..100 {
            let at = Duration::from_millis(i * 100);
            tally.answer(false, false, Duration::from_millis(10), at);
        }
        tally.errors(false, 2, || "no <answer>".to_owned());
        tally.unsent = 1234;
        for i in 1..=100 {
            tally.lag(Duration::from_micros(20 * i));
        }
        (options, tally)
    }

    #[test]
    fn the_table_has_every_figure() {
        let (options, tally) = findings();
        let report = Report {
            options: &options,
            tally: &tally,
            measured: Duration::from_millis(5003),
        };
        let expected = "\
http://localhost:8080, 50 connections, 1 thread, 10000 keys of 500 bytes, uniform, 80% reads, open loop at 500/s, 5.00 s

                    reads         writes            all
ops                 1,000            100          1,100
errors                  0              2              2
hit ratio          90.00%              -              -
ops/s                 200             20            220
p50                500 µs        10.0 ms         550 µs
p90                900 µs        10.0 ms         990 µs
p99                990 µs        10.0 ms        10.0 ms
p99.9              999 µs        10.0 ms        10.0 ms
p99.99            1.00 ms        10.0 ms        10.0 ms
max               1.00 ms        10.0 ms        10.0 ms

The first error: no <answer>

The rate of 500/s was not reached: 1,234 requests were due and never sent, more than the server or this machine could do.

The load itself was late: one in 100 requests was sent 1.98 ms or more after it was due, though its connection was free. This machine is short of processors.

Ended after 5.00 s of 10.0 s.
";
        assert_eq!(report.text(), expected);
        let json: Value = serde_json::from_str(&report.json()).expect("it is JSON");
        assert_eq!(json["reads"]["ops"], 1000);
        assert_eq!(json["all"]["errors"], 2);
        assert_eq!(json["hit_ratio"], 0.9);
        assert_eq!(json["options"]["rate"], 500);
        let lag = json["send_lag_us"]["p50"].as_f64();
        assert!(lag.is_some_and(|us| (us - 1000.0).abs() < 2.0), "{lag:?}");
        let p99 = json["writes"]["latency_us"]["p99"].as_f64();
        assert!(
            p99.is_some_and(|us| (us - 10_000.0).abs() < 20.0),
            "{p99:?}"
        );
        let course = json["reads"]["course"].as_array().expect("a list");
        let sum: u64 = course.iter().filter_map(Value::as_u64).sum();
        assert_eq!(
            (course.len(), sum),
            (50, 499),
            "what was measured to its end"
        );
    }

    #[test]
    fn nothing_is_no_division_by_zero() {
        let (options, _) = findings();
        let tally = Tally::new(options.duration);
        let report = Report {
            options: &options,
            tally: &tally,
            measured: Duration::ZERO,
        };
        assert!(report.text().contains("\np99                     -"));
        assert!(serde_json::from_str::<Value>(&report.json()).is_ok());
    }

    #[test]
    fn figures() {
        for (us, text) in [
            (0.0, "0 µs"),
            (0.5, "0.50 µs"),
            (12.34, "12.3 µs"),
            (999.0, "999 µs"),
            (1500.0, "1.50 ms"),
            (2_000_000.0, "2.00 s"),
            (123_000_000.0, "123 s"),
        ] {
            assert_eq!(duration(Duration::from_secs_f64(us / 1e6)), text);
        }
        for (number, text) in [
            (0.0, "0"),
            (999.4, "999"),
            (1000.0, "1,000"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
