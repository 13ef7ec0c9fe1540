//! The verdict as one page that needs nothing else, with the look of `henge bench`'s: answers and latency over the time of the run, with
//! the faults behind them, latency by percentile for each kind of fault, the gap of each fault, and the same figures as tables.

use std::fmt::Write;
use std::time::Duration;

use super::conduct::Outcome;
use super::faults::{Happened, Kind};
use super::report::{FAULT_HEAD, LatencyRow, QUANTILES, second, span};
use super::tally::Point;
use crate::cli::bench::{duration, grouped};
use crate::cli::plot::{
    BOTTOM, HEIGHT, LEFT, Plot, RIGHT, STYLE, TOP, WIDTH, escaped, place, tidy_step,
};

/// The end of the percentile curve's axis: nines behind the point, so that each further tenth of the slowest has as much room.
const MOST_NINES: f64 = 4.0;
/// Points of a percentile curve.
const CURVE_POINTS: u32 = 200;

impl Outcome {
    /// The page.
    pub(super) fn html(&self) -> String {
        let plan = &self.load.plan;
        let mut verdict = String::new();
        for (is_good, line) in self.verdict() {
            let class = if is_good { "good" } else { "bad" };
            // A string takes every text.
            let _ = writeln!(verdict, "<p class=\"{class}\">{}</p>", escaped(&line));
        }
        for lie in self.findings.lies.iter().chain(self.returns()) {
            let _ = writeln!(verdict, "<pre>{}</pre>", escaped(lie));
        }
        let lost: Vec<String> = self.lost().map(|loss| escaped(&loss.line())).collect();
        if !lost.is_empty() {
            let _ = writeln!(verdict, "<pre>{}</pre>", lost.join("\n"));
        }
        let mut notes = String::new();
        for note in self.notes() {
            let _ = writeln!(notes, "<p>{}</p>", escaped(&note));
        }
        let faults = self.faults.iter().map(|fault| self.fault_row(fault));
        let mut faults: Vec<[String; 6]> = faults.collect();
        faults.push(self.calm_row());
        let counts = self.count_rows().map(|(name, reads, writes)| {
            let writes = writes.map_or(String::new(), |count| grouped(count as f64));
            [name.to_owned(), grouped(reads as f64), writes]
        });
        let refusals = match &*self.refusals() {
            "" => String::new(),
            refusals => format!("<p>Not done: {}</p>", escaped(refusals)),
        };
        let rows: Vec<[String; 8]> = self.latency_rows().iter().map(LatencyRow::cells).collect();
        let [p50, p90, p99, p999, max] = QUANTILES.map(|(_, name)| name);
        format!(
            "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>henge verify: seed {seed}</title>
<style>{STYLE}{LOOK}</style>
</head>
<body>
<main>
<h1>henge verify</h1>
<p class=\"summary\">Seed {seed}, {lasted}: {summary}</p>
{verdict}<h2>Answers over time</h2>
{band_legend}
{answers}
<h2>Latency over time</h2>
{latency_legend}
{latency}
<h2>Latency by percentile</h2>
{phase_legend}
{percentiles}
<h2>Faults and gaps</h2>
<p>A gap is the longest time in which nothing was acknowledged: of all keys, and of the one key that waited longest.</p>
{faults}
<h2>What came of requests</h2>
{counts}
{refusals}
<h2>Latencies</h2>
{latencies}
{notes}</main>
</body>
</html>
",
            seed = plan.seed,
            lasted = second(self.lasted),
            summary = escaped(&plan.summary()),
            band_legend = self.legend(&[("reads", "reads"), ("writes", "writes"), ("failed", "not answered, or refused")]),
            answers = self.answers_plot(),
            latency_legend = self.legend(&[("p50", "p50"), ("p99", "p99"), ("max", "max")]),
            latency = self.latency_plot(),
            phase_legend = self.phase_legend(),
            percentiles = self.percentile_plot(),
            faults = table(&FAULT_HEAD.map(str::to_lowercase), &faults, 2),
            counts = table(&["", "reads", "writes"].map(str::to_owned), &counts, 1),
            latencies = table(&["", "", "count", p50, p90, p99, p999, max].map(str::to_owned), &rows, 2),
        )
    }

    /// Lines, and the bands of the faults that there were.
    fn legend(&self, lines: &[(&str, &str)]) -> String {
        let mut legend = String::from("<ul class=\"legend\">");
        for (class, text) in lines {
            let _ = write!(legend, "<li class=\"{class}\">{text}</li>");
        }
        for kind in Kind::ALL {
            if self.faults.iter().any(|fault| fault.kind == kind) {
                let name = kind.name();
                let _ = write!(legend, "<li class=\"{name} band\">{name}</li>");
            }
        }
        legend + "</ul>"
    }

    fn phase_legend(&self) -> String {
        let mut legend = String::from("<ul class=\"legend\">");
        for (phase, _) in self.latencies_by_phase() {
            let _ = write!(legend, "<li class=\"{phase}\">{phase}</li>");
        }
        legend + "</ul>"
    }

    /// The points of the course that were run to their ends, and the seconds of the run that they are.
    fn course(&self) -> (Vec<Point>, f64, f64) {
        let tally = self.load.tally.borrow();
        let whole = (self.lasted / tally.interval) as usize;
        let course: Vec<Point> = tally.course.iter().take(whole.max(1)).cloned().collect();
        let interval = tally.interval as f64 / 1e6;
        let end = course.len() as f64 * interval;
        (course, interval, end)
    }

    /// A plot over the time of the run, with the faults in it.
    fn over_time(&self, name: &str, end: f64) -> Plot {
        let x = |seconds: f64| place(seconds.clamp(0.0, end), 0.0, end, LEFT, WIDTH - RIGHT);
        let mut plot = Plot::new(name);
        for fault in &self.faults {
            let from = fault.began as f64 / 1e6;
            let to = fault.until().min(self.lasted) as f64 / 1e6;
            plot.band(fault.kind.name(), x(from), x(to), &told(fault));
        }
        let step = tidy_step(end);
        let mut seconds = 0.0;
        while seconds <= end * 1.001 {
            let decimals = usize::from(step < 1.0);
            plot.grid_x(x(seconds), &format!("{seconds:.decimals$} s"));
            seconds += step;
        }
        plot
    }

    fn answers_plot(&self) -> String {
        let (course, interval, end) = self.course();
        let rates = |figure: fn(&Point) -> u64| -> Vec<f64> {
            course
                .iter()
                .map(|point| figure(point) as f64 / interval)
                .collect()
        };
        let lines = [
            ("reads", rates(|point| point.reads)),
            ("writes", rates(|point| point.writes)),
            ("failed", rates(|point| point.failed)),
        ];
        let most = lines
            .iter()
            .flat_map(|(_, rates)| rates)
            .fold(0.0_f64, |a, b| a.max(*b));
        if most == 0.0 {
            return NOTHING.to_owned();
        }
        let step = tidy_step(most);
        let high = (most / step).ceil() * step;
        let y = |rate: f64| place(rate, 0.0, high, HEIGHT - BOTTOM, TOP);
        let mut plot = self.over_time("Answers over time", end);
        let mut rate = 0.0;
        while rate <= high * 1.001 {
            plot.grid_y(y(rate), &grouped(rate));
            rate += step;
        }
        plot.titles("Requests per second", "Time of the run");
        for (name, rates) in &lines {
            if rates.iter().any(|rate| *rate > 0.0) {
                let points = rates.iter().enumerate();
                plot.line(
                    name,
                    points.map(|(i, rate)| (middle(i, interval, end), y(*rate))),
                );
            }
        }
        plot.finish()
    }

    fn latency_plot(&self) -> String {
        let (course, interval, end) = self.course();
        let answered = course
            .iter()
            .enumerate()
            .filter(|(_, point)| !point.latencies.is_empty());
        let (mut low, mut high) = (f64::MAX, 0.0_f64);
        for (_, point) in answered.clone() {
            low = low.min(point.latencies.value_at_quantile(0.5) as f64);
            high = high.max(point.latencies.max() as f64);
        }
        if high == 0.0 {
            return NOTHING.to_owned();
        }
        let (low, high) = decades(low, high);
        let y = |us: f64| place(us.max(1.0).log10(), low, high, HEIGHT - BOTTOM, TOP);
        let mut plot = self.over_time("Latency over time", end);
        grid_of_latency(&mut plot, low, high, y);
        plot.titles("Latency (logarithmic)", "Time of the run");
        for (name, quantile) in [("max", 1.0), ("p99", 0.99), ("p50", 0.5)] {
            // Where nothing was answered there is no line.
            let places: Vec<usize> = answered.clone().map(|(i, _)| i).collect();
            for run in places.chunk_by(|a, b| a + 1 == *b) {
                let points = run.iter().map(|i| {
                    let latency = course[*i].latencies.value_at_quantile(quantile);
                    (middle(*i, interval, end), y(latency as f64))
                });
                plot.line(name, points);
            }
        }
        plot.finish()
    }

    fn percentile_plot(&self) -> String {
        let phases = self.latencies_by_phase();
        let (mut low, mut high) = (f64::MAX, 0.0_f64);
        for (_, latencies) in &phases {
            low = low.min(latencies.min() as f64);
            high = high.max(latencies.max() as f64);
        }
        if high == 0.0 {
            return NOTHING.to_owned();
        }
        let (low, high) = decades(low, high);
        let y = |us: f64| place(us.max(1.0).log10(), low, high, HEIGHT - BOTTOM, TOP);
        let x = |nines: f64| place(nines, 0.0, MOST_NINES, LEFT, WIDTH - RIGHT);
        let mut plot = Plot::new("Latency by percentile");
        grid_of_latency(&mut plot, low, high, y);
        for (nines, label) in [
            (0.0, "0%"),
            (1.0, "90%"),
            (2.0, "99%"),
            (3.0, "99.9%"),
            (4.0, "99.99%"),
        ] {
            plot.grid_x(x(nines), label);
        }
        plot.titles(
            "Latency (logarithmic)",
            "Part of the requests that were at most as slow",
        );
        for (name, latencies) in &phases {
            // Beyond the slowest request there is only that one again.
            let last = (latencies.len() as f64).log10().clamp(0.3, MOST_NINES);
            let points = (0..=CURVE_POINTS).map(|step| {
                let nines = last * f64::from(step) / f64::from(CURVE_POINTS);
                let latency = latencies.value_at_quantile(1.0 - 10_f64.powf(-nines));
                (x(nines), y(latency as f64))
            });
            plot.line(name, points);
        }
        plot.finish()
    }
}

/// A fault in a line.
fn told(fault: &Happened) -> String {
    let whole = fault.whole.map_or("never whole again".to_owned(), |at| {
        format!("whole {} later", span(at.saturating_sub(fault.ended)))
    });
    format!(
        "{} at {}, {}; {whole}",
        fault.what(),
        second(fault.began),
        span(fault.ended - fault.began)
    )
}

/// A point stands for its interval, so it lies in the middle of it.
fn middle(point: usize, interval: f64, end: f64) -> f64 {
    place(
        (point as f64 + 0.5) * interval,
        0.0,
        end,
        LEFT,
        WIDTH - RIGHT,
    )
}

/// Whole decades of microseconds, so that every plot has at least two labels.
fn decades(low: f64, high: f64) -> (f64, f64) {
    let low = low.max(1.0).log10().floor();
    (low, high.log10().ceil().max(low + 1.0))
}

fn grid_of_latency(plot: &mut Plot, low: f64, high: f64, y: impl Fn(f64) -> f64) {
    let mut decade = low;
    while decade <= high {
        let us = 10_f64.powf(decade);
        plot.grid_y(y(us), &duration(Duration::from_secs_f64(us / 1e6)));
        decade += 1.0;
    }
}

/// A table; so many columns at its left are words.
fn table<const N: usize>(head: &[String; N], rows: &[[String; N]], words: usize) -> String {
    let class = |column: usize| {
        if column < words {
            " class=\"word\""
        } else {
            ""
        }
    };
    let mut table = String::from("<div class=\"wide\"><table>\n<thead><tr>");
    for (column, cell) in head.iter().enumerate() {
        let _ = write!(
            table,
            "<th scope=\"col\"{}>{}</th>",
            class(column),
            escaped(cell)
        );
    }
    table.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        table.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(table, "<td{}>{}</td>", class(column), escaped(cell));
        }
        table.push_str("</tr>\n");
    }
    table + "</tbody></table></div>"
}

const NOTHING: &str = "<p>Nothing was answered.</p>";

/// What the bench's page has not: a verdict, bands, and the colours of lines and faults, told apart by people who do not see red and green
/// apart too. Answers are before the slower ones, so that half of them is the strongest line.
const LOOK: &str = "
:root { --good: #1a7f4b; --bad: #c0262d; }
.reads, .p50 { --colour: #1f6fc4; }
.writes, .p99 { --colour: #c2590a; }
.failed { --colour: #c0262d; }
.max, .calm { --colour: #5f666e; }
.kill { --colour: #c0262d; }
.restart { --colour: #8a6d00; }
.wipe { --colour: #8e3bb8; }
.pause { --colour: #2878c8; }
.partition { --colour: #008a78; }
@media (prefers-color-scheme: dark) {
  :root { --good: #4fc98a; --bad: #ff7b7b; }
  .reads, .p50 { --colour: #63a9f2; }
  .writes, .p99 { --colour: #f0934a; }
  .failed { --colour: #ff7b7b; }
  .max, .calm { --colour: #9aa2ab; }
  .kill { --colour: #ff6b6b; }
  .restart { --colour: #d9b84a; }
  .wipe { --colour: #c78af0; }
  .pause { --colour: #6ab0ff; }
  .partition { --colour: #3fcfbb; }
}
p.good, p.bad { margin: .5rem 0; font-size: 1.05rem; }
p.good::before { content: '\\2713'; color: var(--good); margin-right: .5rem; font-weight: 700; }
p.bad { color: var(--bad); font-weight: 600; }
p.bad::before { content: '\\2717'; margin-right: .5rem; }
pre { overflow-x: auto; padding: .8rem 1rem; background: var(--grid); font-size: .85rem; }
.legend li.band::before { width: 1rem; height: .8rem; border: 0; background: var(--colour); opacity: .35; vertical-align: -.05rem; }
polyline.failed { stroke-dasharray: 3 3; }
polyline.max { stroke-width: 1; }
.wide { overflow-x: auto; }
td, th { white-space: nowrap; }
td.word { white-space: normal; }
td.word, th.word { text-align: left; }
td.word:first-child { white-space: nowrap; }
tr > :first-child { padding-left: 0; }
";
