//! The findings as one page that needs nothing else: no script, no font, no address. Two plots as SVG, in colours that follow the reader's choice
//! of light or dark, and the same figures as a table.

use std::fmt::Write;
use std::time::Duration;

use super::super::plot::{
    BOTTOM, HEIGHT, LEFT, Plot, RIGHT, STYLE, TOP, WIDTH, escaped, place, tidy_step,
};
use super::report::{Report, duration, grouped};
use super::tally::Class;

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
<style>{STYLE}{COLOURS}</style>
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

const NOTHING: &str = "<p>Nothing was answered.</p>";

const LEGEND: &str = "<ul class=\"legend\"><li class=\"reads\">reads</li><li class=\"writes\">writes</li>\
<li class=\"all\">all</li></ul>";

/// Reads and writes are told apart by people who do not see red and green apart too; what is dashed is their sum.
const COLOURS: &str = "
:root { --reads: #1f6fc4; --writes: #c2590a; --all: #5f666e; }
@media (prefers-color-scheme: dark) {
  :root { --reads: #63a9f2; --writes: #f0934a; --all: #9aa2ab; }
}
.reads { --colour: var(--reads); }
.writes { --colour: var(--writes); }
.all { --colour: var(--all); }
li.all::before { border-top-style: dashed; }
polyline.all { stroke-dasharray: 5 5; }
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
}
