//! The findings as one page that needs nothing else: no script, no font, no address. Two plots as SVG, in colours that follow the reader's choice
//! of light or dark, and the same figures as a table.

use std::fmt::Write;
use std::time::Duration;

use super::report::{Report, duration, grouped};
use super::tally::Class;

/// The plots' size, in units of the SVG; the page scales them.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 340.0;
/// What axes and their labels take at the left, the top, the right and the bottom.
const LEFT: f64 = 78.0;
const TOP: f64 = 16.0;
const RIGHT: f64 = 36.0;
const BOTTOM: f64 = 52.0;

/// The ends of the percentile curve's axis: nines behind the point, so that each further tenth of the slowest has as much room.
const MOST_NINES: f64 = 5.0;
/// Points of a percentile curve.
const CURVE_POINTS: u32 = 200;

impl Report<'_> {
    /// The page.
    pub(super) fn html(&self) -> String {
        let mut table = String::new();
        for (name, figures) in self.rows() {
            let cells = figures.map(|figure| format!("<td>{}</td>", escaped(&figure)));
            let row = format!("<tr><th scope=\"row\">{name}</th>{}</tr>\n", cells.concat());
            table.push_str(&row);
        }
        let mut remarks = String::new();
        for remark in self.remarks() {
            // A string takes every text.
            let _ = writeln!(remarks, "<p>{}</p>", escaped(&remark));
        }
        format!(
            "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>henge bench: {title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>henge bench</h1>
<p class=\"summary\">{title}, {measured}</p>
{remarks}<h2>Latency by percentile</h2>
{LEGEND}
{latency}
<h2>Throughput over time</h2>
{LEGEND}
{throughput}
<h2>Figures</h2>
<table>
<thead><tr><td></td><th scope=\"col\">reads</th><th scope=\"col\">writes</th><th scope=\"col\">all</th></tr></thead>
<tbody>
{table}</tbody>
</table>
</main>
</body>
</html>
",
            title = escaped(&self.options.summary()),
            measured = duration(self.measured),
            latency = self.latency_plot(),
            throughput = self.throughput_plot(),
        )
    }

    /// Latency, logarithmic, by percentile, on an axis that stretches its end.
    fn latency_plot(&self) -> String {
        let classes = self.classes();
        let answered = classes.iter().filter(|(_, class)| class.answered() > 0);
        let (mut low, mut high) = (f64::MAX, 0.0_f64);
        for (_, class) in answered.clone() {
            low = low.min(class.quantile(0.0).as_secs_f64());
            high = high.max(class.quantile(1.0).as_secs_f64());
        }
        if high == 0.0 {
            return NOTHING.to_owned();
        }
        // Whole decades, so that every plot has at least two labels.
        let low = low.max(1e-9).log10().floor();
        let high = high.log10().ceil().max(low + 1.0);
        let y = |seconds: f64| place(seconds.max(1e-9).log10(), low, high, HEIGHT - BOTTOM, TOP);
        let x = |nines: f64| place(nines, 0.0, MOST_NINES, LEFT, WIDTH - RIGHT);

        let mut plot = Plot::new("Latency by percentile");
        let mut decade = low;
        while decade <= high {
            let seconds = 10_f64.powf(decade);
            plot.grid_y(y(seconds), &duration(Duration::from_secs_f64(seconds)));
            decade += 1.0;
        }
        for (nines, label) in [
            (0.0, "0%"),
            (1.0, "90%"),
            (2.0, "99%"),
            (3.0, "99.9%"),
            (4.0, "99.99%"),
            (5.0, "99.999%"),
        ] {
            plot.grid_x(x(nines), label);
        }
        plot.titles(
            "Latency (logarithmic)",
            "Part of the requests that were at most as slow",
        );
        for (name, class) in answered {
            // Beyond the slowest request there is only that one again.
            let last = (class.answered() as f64).log10().clamp(0.3, MOST_NINES);
            let points = (0..=CURVE_POINTS).map(|step| {
                let nines = last * f64::from(step) / f64::from(CURVE_POINTS);
                let latency = class.quantile(1.0 - 10_f64.powf(-nines));
                (x(nines), y(latency.as_secs_f64()))
            });
            plot.line(name, points);
        }
        plot.finish()
    }

    /// Answers a second over the time of the run.
    fn throughput_plot(&self) -> String {
        let interval = self.tally.interval.as_secs_f64();
        let whole = self.whole_intervals();
        let rates = |class: &Class| -> Vec<f64> {
            let course = class.course.iter().take(whole);
            course.map(|count| *count as f64 / interval).collect()
        };
        let lines = self.classes().map(|(name, class)| (name, rates(&class)));
        let most = lines
            .iter()
            .flat_map(|(_, rates)| rates)
            .fold(0.0_f64, |a, b| a.max(*b));
        if most == 0.0 {
            return NOTHING.to_owned();
        }
        let step = tidy_step(most);
        let high = (most / step).ceil() * step;
        let end = whole as f64 * interval;
        let y = |rate: f64| place(rate, 0.0, high, HEIGHT - BOTTOM, TOP);
        let x = |seconds: f64| place(seconds, 0.0, end, LEFT, WIDTH - RIGHT);

        let mut plot = Plot::new("Throughput over time");
        let mut rate = 0.0;
        while rate <= high * 1.001 {
            plot.grid_y(y(rate), &grouped(rate));
            rate += step;
        }
        let time_step = tidy_step(end);
        let mut seconds = 0.0;
        while seconds <= end * 1.001 {
            let decimals = usize::from(time_step < 1.0);
            plot.grid_x(x(seconds), &format!("{seconds:.decimals$} s"));
            seconds += time_step;
        }
        plot.titles("Answers per second", "Time since the measurement began");
        for (name, rates) in &lines {
            if rates.iter().any(|rate| *rate > 0.0) {
                // A point stands for its interval, so it lies in the middle of it.
                let points = rates.iter().enumerate();
                let points = points.map(|(i, rate)| (x((i as f64 + 0.5) * interval), y(*rate)));
                plot.line(name, points);
            }
        }
        plot.finish()
    }
}

/// Where a value between two lies between two places.
fn place(value: f64, low: f64, high: f64, from: f64, to: f64) -> f64 {
    let part = (value - low) / (high - low).max(f64::MIN_POSITIVE);
    from + part * (to - from)
}

/// 1, 2 or 5 times a power of ten, so that some five of it make the whole.
fn tidy_step(whole: f64) -> f64 {
    let rough = whole / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let digit = rough / power;
    let tidy = match digit {
        _ if digit <= 1.0 => 1.0,
        _ if digit <= 2.0 => 2.0,
        _ if digit <= 5.0 => 5.0,
        _ => 10.0,
    };
    tidy * power
}

/// An SVG that grows.
struct Plot(String);

impl Plot {
    fn new(name: &str) -> Self {
        Self(format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{name}\">\n"
        ))
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // A string takes every text.
        let _ = self.0.write_fmt(element);
        self.0.push('\n');
    }

    fn grid_y(&mut self, y: f64, label: &str) {
        let (right, at, baseline) = (WIDTH - RIGHT, LEFT - 10.0, y + 4.0);
        self.add(format_args!(
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
             <text x=\"{at}\" y=\"{baseline:.1}\" text-anchor=\"end\">{label}</text>"
        ));
    }

    fn grid_x(&mut self, x: f64, label: &str) {
        let (bottom, baseline) = (HEIGHT - BOTTOM, HEIGHT - BOTTOM + 18.0);
        self.add(format_args!(
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text x=\"{x:.1}\" y=\"{baseline}\" text-anchor=\"middle\">{label}</text>"
        ));
    }

    /// What the axes measure.
    fn titles(&mut self, y: &str, x: &str) {
        let (middle_x, middle_y) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
        let below = HEIGHT - 10.0;
        self.add(format_args!(
            "<text class=\"axis\" x=\"{middle_x}\" y=\"{below}\" text-anchor=\"middle\">{x}</text>\
             <text class=\"axis\" transform=\"translate(14 {middle_y}) rotate(-90)\" text-anchor=\"middle\">{y}</text>"
        ));
    }

    fn line(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        let path = path.trim_end();
        self.add(format_args!(
            "<polyline class=\"{class}\" points=\"{path}\"><title>{class}</title></polyline>"
        ));
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>");
        self.0
    }
}

/// Text that means nothing to a browser.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

const NOTHING: &str = "<p>Nothing was answered.</p>";

const LEGEND: &str = "<ul class=\"legend\"><li class=\"reads\">reads</li><li class=\"writes\">writes</li>\
<li class=\"all\">all</li></ul>";

/// Reads and writes are told apart by people who do not see red and green apart too; what is dashed is their sum.
const STYLE: &str = "
:root { color-scheme: light dark; --paper: #fbfbfa; --ink: #1f2328; --soft: #5f666e; --grid: #e3e5e8;
  --reads: #1f6fc4; --writes: #c2590a; --all: #5f666e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e6e8ea; --soft: #9aa2ab; --grid: #2c3138;
    --reads: #63a9f2; --writes: #f0934a; --all: #9aa2ab; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { margin: 0; font-size: 1.6rem; }
h2 { margin: 2.2rem 0 .4rem; font-size: 1.15rem; }
.summary { margin: .3rem 0 0; color: var(--soft); overflow-wrap: anywhere; }
.legend { display: flex; gap: 1.4rem; margin: 0 0 .4rem; padding: 0; list-style: none; font-size: .9rem; }
.legend li::before { content: ''; display: inline-block; width: 1.4rem; margin-right: .45rem; vertical-align: .25rem;
  border-top: 3px solid; }
li.reads::before { border-color: var(--reads); }
li.writes::before { border-color: var(--writes); }
li.all::before { border-color: var(--all); border-top-style: dashed; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg text.axis { fill: var(--ink); font-size: 13px; }
.grid { stroke: var(--grid); stroke-width: 1; }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
polyline.reads { stroke: var(--reads); }
polyline.writes { stroke: var(--writes); }
polyline.all { stroke: var(--all); stroke-dasharray: 5 5; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 0 .3rem 2.2rem; border-bottom: 1px solid var(--grid); text-align: right; font-weight: 400; }
thead th { color: var(--soft); }
tbody th { padding-left: 0; text-align: left; }
";

#[cfg(test)]
mod tests {
    use super::super::report::tests::findings;
    use super::super::tally::Tally;
    use super::*;

    #[test]
    fn the_page_stands_alone_and_has_both_plots() {
        let (options, tally) = findings();
        let report = Report {
            options: &options,
            tally: &tally,
            measured: options.duration,
        };
        let page = report.html();
        assert_eq!(page.matches("<svg ").count(), 2);
        assert_eq!(page.matches("<polyline ").count(), 6);
        for resource in ["src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(resource), "{resource}");
        }
        assert!(
            page.contains("no &lt;answer&gt;"),
            "what a server says is escaped"
        );
        for text in [">99.99%<", ">1.00 ms<", ">10 s<", "Answers per second"] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
        // Every tag that opens closes, but for those that have no end.
        for tag in [
            "html", "main", "svg", "table", "text", "polyline", "ul", "p",
        ] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn every_point_lies_within_its_plot() {
        let (options, tally) = findings();
        let report = Report {
            options: &options,
            tally: &tally,
            measured: options.duration,
        };
        for part in report.html().split("points=\"").skip(1) {
            for point in part.split('"').next().unwrap_or_default().split(' ') {
                let (x, y) = point.split_once(',').expect("x and y");
                let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
                assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{point}");
                assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{point}");
            }
        }
    }

    #[test]
    fn a_run_without_answers_has_a_page() {
        let (options, _) = findings();
        let tally = Tally::new(options.duration);
        let report = Report {
            options: &options,
            tally: &tally,
            measured: Duration::ZERO,
        };
        assert_eq!(report.html().matches(NOTHING).count(), 2);
    }

    #[test]
    fn steps_are_tidy() {
        for (whole, step) in [
            (5.0, 1.0),
            (30.0, 10.0),
            (9.0, 2.0),
            (0.4, 0.1),
            (123_456.0, 50_000.0),
        ] {
            let found = tidy_step(whole);
            assert!((found - step).abs() < step / 1e6, "{whole}: {found}");
        }
    }
}
