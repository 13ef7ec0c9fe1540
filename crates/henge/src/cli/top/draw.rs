//! A frame, from what is known. What nodes say is shown without what a terminal would obey. It knows no terminal: it draws into whatever it is
//! given, and says how high a frame with all in it is.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, RenderDirection, Sparkline};
use serde_json::Value;
use std::collections::VecDeque;

use super::figures::{bytes, count, percent, took};
use super::members;
use super::state::State;
use crate::cli::colour::{Painter, Tone};
use crate::cli::table::{Key, printable};

/// Lines of the charts with their frame.
const CHART_LINES: u16 = 5;
/// Below this many columns charts and lists stand in two rows.
const NARROW: u16 = 76;
/// The most lines of a list below, with its frame, where there is room for all.
const LIST_LINES: u16 = 12;
/// The fewest for which they are drawn.
const LEAST_LIST_LINES: u16 = 4;
/// What the members' table has beside its rows: its frame and its head.
const TABLE_LINES: u16 = 3;

const HELP: &str = "\
q  quit
c  the node, or all members
s  sort by the next column
p  pause
?  this help

A rate is of the time between two looks. hits: the part of reads that
found their key. p50 and p99: what requests and commands took that have to
do with keys. ? before a name: it does not answer.";

/// Puts tones on.
#[derive(Clone, Copy)]
pub(super) struct Ink(pub(super) Painter);

impl Ink {
    pub(super) fn style(self, tone: Tone) -> Style {
        let colour = match tone {
            Tone::Plain => return Style::new(),
            Tone::Head => return Style::new().add_modifier(Modifier::BOLD),
            Tone::Good => Color::Green,
            Tone::Doubtful => Color::Yellow,
            Tone::Bad => Color::Red,
        };
        if self.0.is_on {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    pub(super) fn span(self, text: impl Into<String>, tone: Tone) -> Span<'static> {
        Span::styled(text.into(), self.style(tone))
    }
}

/// How many lines a frame needs in which nothing is left out.
pub(super) fn height(state: &State, width: u16) -> u16 {
    let rows = u16::try_from(members::count(state)).unwrap_or(u16::MAX);
    let bands = if width < NARROW { 2 } else { 1 };
    let head = head(state, Ink(Painter::default()), width).len();
    let head = u16::try_from(head).unwrap_or(u16::MAX);
    let lists = if width < NARROW { 3 } else { 1 };
    // Why there is no list may take some lines.
    let longest = [misses(state), hot(state), slow(state)];
    let longest = longest.iter().map(|list| list.as_ref().map_or(4, Vec::len));
    let longest = u16::try_from(longest.max().unwrap_or(0)).unwrap_or(u16::MAX);
    let list_lines = longest
        .saturating_add(2)
        .clamp(LEAST_LIST_LINES, LIST_LINES);
    head.saturating_add(bands * CHART_LINES)
        .saturating_add(rows.saturating_add(TABLE_LINES))
        .saturating_add(lists * list_lines + 1)
}

/// Draws a frame.
pub(super) fn frame(state: &State, painter: Painter, frame: &mut Frame) {
    let (ink, area) = (Ink(painter), frame.area());
    let head = head(state, ink, area.width);
    let is_narrow = area.width < NARROW;
    let rows = u16::try_from(members::count(state)).unwrap_or(u16::MAX);
    let lines = u16::try_from(head.len()).unwrap_or(u16::MAX);
    let charts_lines = if is_narrow {
        2 * CHART_LINES
    } else {
        CHART_LINES
    };
    let [top, charts, table, lists, foot] = Layout::vertical([
        Constraint::Length(lines),
        Constraint::Length(charts_lines),
        Constraint::Max(rows.saturating_add(TABLE_LINES)),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head), top);
    draw_charts(state, ink, is_narrow, charts, frame);
    members::draw(state, ink, table, frame);
    if lists.height >= LEAST_LIST_LINES {
        draw_lists(state, ink, is_narrow, lists, frame);
    }
    frame.render_widget(Paragraph::new(feet(state, ink)), foot);
    if state.shows_help {
        draw_help(ink, area, frame);
    }
}

/// What is above: the node, its cluster, who is down, whether the others are ready, and who does not answer.
fn head(state: &State, ink: Ink, width: u16) -> Vec<Line<'static>> {
    let status = state.status.as_ref();
    let word = |name: &str| {
        status
            .and_then(|status| status[name].as_str())
            .map(printable)
    };
    let scope = if state.is_cluster {
        "all members of the cluster of"
    } else {
        "the node at"
    };
    let mut first = vec![
        ink.span("henge top", Tone::Head),
        Span::raw(format!("  {scope} {}", state.url)),
    ];
    if state.is_paused {
        first.push(ink.span("  paused", Tone::Doubtful));
    }
    let mut second = match (word("standing").as_deref(), status) {
        (Some("member"), Some(status)) => {
            let cluster = word("cluster").unwrap_or_else(|| "of one node".to_owned());
            let leader = word("leader").unwrap_or_else(|| "not known".to_owned());
            let epoch = &status["epoch"];
            vec![
                Span::raw(format!("cluster {cluster}  ")),
                ink.span("member", Tone::Good),
                Span::raw(format!("  epoch {epoch}  control leader {leader}")),
            ]
        }
        (Some(standing), Some(status)) => {
            let waits = status["waits"].as_array().into_iter().flatten();
            let mut why: Vec<String> = waits.filter_map(Value::as_str).map(printable).collect();
            why.extend(word("why"));
            vec![
                ink.span(format!("in no cluster: {standing}"), Tone::Doubtful),
                Span::raw(format!("  {}", why.join("; "))),
            ]
        }
        _ => vec![Span::raw("its cluster is not known yet")],
    };
    second.extend(moving(state));
    let mut lines = vec![
        Line::from(first),
        Line::from(second),
        readiness(state, ink, width),
    ];
    if let Some((why, since)) = &state.silence {
        let passed = state.now.saturating_sub(*since).as_secs();
        let line = format!(
            "no answer for {passed} s: {}; it is tried on",
            printable(why)
        );
        lines.push(Line::from(ink.span(line, Tone::Bad)));
    }
    for (name, node) in &state.nodes {
        if let Some((why, since)) = &node.silence {
            let passed = state.now.saturating_sub(*since).as_secs();
            let line = format!(
                "{} has not answered for {passed} s: {}",
                printable(name),
                printable(why)
            );
            lines.push(Line::from(ink.span(line, Tone::Bad)));
        }
    }
    lines
}

fn moving(state: &State) -> Option<Span<'static>> {
    let moves = &state.status.as_ref()?["moves"];
    let (all, done) = (
        moves["partitions_total"].as_u64()?,
        moves["partitions_done"].as_u64()?,
    );
    (all > 0).then(|| Span::raw(format!("  {done} of {all} partitions have moved")))
}

/// Who is down, and of those that are asked who is ready, and by which checks. Who is down comes first: the line is cut at its end, and
/// the table of members has its rows cut where there are many.
fn readiness(state: &State, ink: Ink, width: u16) -> Line<'static> {
    let mut spans = Vec::new();
    let down = members::down(state);
    if !down.is_empty() {
        spans.push(ink.span(fitting(&down, "down: ", width.into()), Tone::Bad));
        spans.push(Span::raw("  "));
    }
    for (name, node) in &state.nodes {
        let (Some(pages), None) = (&node.pages, &node.silence) else {
            continue;
        };
        let page = &pages.ready;
        let word = page["status"]
            .as_str()
            .map_or("not known".to_owned(), printable);
        let is_ready = word == "ready";
        let checks = page["checks"].as_array().into_iter().flatten();
        // One that is ready is said in a word where there are many.
        let is_short = state.is_cluster && is_ready;
        let tone = if is_ready { Tone::Good } else { Tone::Bad };
        spans.push(ink.span(format!("{} {word}", printable(name)), tone));
        for check in checks {
            let is_ok = check["ok"] == true;
            if is_ok && is_short {
                continue;
            }
            let name = check["name"].as_str().map_or("?".to_owned(), printable);
            let name = name.replace('_', " ");
            spans.push(Span::raw(if is_ok { "  + " } else { "  - " }));
            spans.push(ink.span(name, if is_ok { Tone::Good } else { Tone::Bad }));
            if let (false, Some(why)) = (is_ok, check["why"].as_str()) {
                spans.push(Span::raw(format!(" ({})", printable(why))));
            }
        }
        spans.push(Span::raw("  "));
    }
    Line::from(spans)
}

/// Names behind a word, as many as so many columns have room for, and how many more there are. One is there in any case.
fn fitting(names: &[String], word: &str, columns: usize) -> String {
    let line = |shown: usize| match names.len() - shown {
        0 => format!("{word}{}", names.join(", ")),
        more => format!("{word}{} and {more} more", names[..shown].join(", ")),
    };
    let mut lines = (1..=names.len()).rev().map(line);
    let fits = lines.find(|line| Span::raw(line.as_str()).width() <= columns);
    fits.unwrap_or_else(|| line(1))
}

fn draw_charts(state: &State, ink: Ink, is_narrow: bool, area: Rect, frame: &mut Frame) {
    let total = state.total.as_ref();
    let rates = total.and_then(|total| total.rates.as_ref());
    let courses = &state.courses;
    let dash = || "-".to_owned();
    let operations = rates.map_or_else(dash, |rates| count(rates.operations));
    let hits = rates
        .and_then(super::sample::Rates::hit_ratio)
        .map_or_else(dash, percent);
    let memory = total.map_or_else(dash, |total| {
        let sizes = total.sizes;
        let part = sizes.charged_bytes as f64 / sizes.limit_bytes.max(1) as f64;
        format!("{} of {}", percent(part), bytes(sizes.limit_bytes))
    });
    let quantile = |part| {
        rates
            .and_then(|rates| rates.quantile(part))
            .map_or_else(dash, took)
    };
    let latency = format!("p50 {}  p99 {}", quantile(0.5), quantile(0.99));
    // A ratio has its whole height, and what has no bound that of the highest.
    let charts = [
        (format!("ops/s {operations}"), &courses.operations, None),
        (format!("hits {hits}"), &courses.hit_ratio, Some(1000)),
        (format!("memory {memory}"), &courses.memory, Some(1000)),
        (latency, &courses.slowest, None),
    ];
    let quarter = [Constraint::Ratio(1, 4); 4];
    let half = [Constraint::Ratio(1, 2); 2];
    let areas: Vec<Rect> = if is_narrow {
        let rows = Layout::vertical(half).split(area);
        let rows = rows
            .iter()
            .flat_map(|row| Layout::horizontal(half).split(*row).to_vec());
        rows.collect()
    } else {
        Layout::horizontal(quarter).split(area).to_vec()
    };
    for ((title, course, most), area) in charts.into_iter().zip(areas) {
        draw_chart(title, course, most, ink, area, frame);
    }
}

fn draw_chart(
    title: String,
    course: &VecDeque<Option<u64>>,
    most: Option<u64>,
    ink: Ink,
    area: Rect,
    frame: &mut Frame,
) {
    let block = Block::new()
        .borders(Borders::ALL)
        .title(ink.span(title, Tone::Head));
    let highest = course.iter().flatten().max().copied().unwrap_or(0);
    let chart = Sparkline::default()
        .block(block)
        .data(course.iter().copied())
        .max(most.unwrap_or(highest).max(1))
        .direction(RenderDirection::RightToLeft)
        .style(ink.style(Tone::Good));
    frame.render_widget(chart, area);
}

/// Misses by cause, hot keys, and slow requests.
fn draw_lists(state: &State, ink: Ink, is_narrow: bool, area: Rect, frame: &mut Frame) {
    let lists = [
        ("misses by cause", misses(state)),
        ("hot keys", hot(state)),
        ("slow requests", slow(state)),
    ];
    let areas: Vec<Rect> = if is_narrow {
        Layout::vertical([Constraint::Ratio(1, 3); 3])
            .split(area)
            .to_vec()
    } else {
        let widths = [
            Constraint::Ratio(5, 18),
            Constraint::Ratio(6, 18),
            Constraint::Ratio(7, 18),
        ];
        Layout::horizontal(widths).split(area).to_vec()
    };
    for ((title, lines), area) in lists.into_iter().zip(areas) {
        let block = Block::new()
            .borders(Borders::ALL)
            .title(ink.span(title, Tone::Head));
        // Why there is nothing may be a long sentence.
        let lines = lines.unwrap_or_else(|why| wrapped(&why, area.width.saturating_sub(2)));
        let lines: Vec<Line> = lines.into_iter().map(Line::from).collect();
        frame.render_widget(Paragraph::new(lines).block(block), area);
    }
}

/// Words in lines of so many columns.
fn wrapped(text: &str, width: u16) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in printable(text).split(' ') {
        let last = lines.len() - 1;
        let length = lines[last].chars().count() + word.chars().count();
        if lines[last].is_empty() {
            lines[last].push_str(word);
        } else if length < usize::from(width) {
            lines[last].push(' ');
            lines[last].push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn misses(state: &State) -> Result<Vec<String>, String> {
    let total = state.total.as_ref();
    let total = total.ok_or("nobody has answered yet")?;
    let causes = total.causes.as_ref().ok_or("the node does not say")?;
    let mut causes: Vec<_> = causes.iter().collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let lines = causes.into_iter().map(|(cause, &all)| {
        let rate = total
            .rates
            .as_ref()
            .map_or("-".to_owned(), |rates| count(rates.missed(cause)));
        let cause = printable(cause).replace('_', " ");
        format!("{cause:<9} {rate:>5}/s {:>7}", count(all as f64))
    });
    Ok(lines.collect())
}

fn hot(state: &State) -> Result<Vec<String>, String> {
    let hot = state.hot()?;
    let lines = hot
        .keys()
        .map(|(key, _, share): (&Key, u64, f64)| format!("{:>6}  {}", percent(share), key.shown()));
    Ok(lines.collect())
}

fn slow(state: &State) -> Result<Vec<String>, String> {
    let lines = state.slow()?.into_iter().map(|(node, entry)| {
        let micros = entry["took_us"].as_u64().unwrap_or(0);
        let took = took(std::time::Duration::from_micros(micros));
        let words = entry["words"].as_array().into_iter().flatten();
        let words = words
            .filter_map(Value::as_str)
            .map(|word| Key::Text(word.to_owned()).shown());
        let words: Vec<String> = words.collect();
        let node = if state.is_cluster {
            format!("{} ", printable(node))
        } else {
            String::new()
        };
        format!("{took:>8}  {node}{}", words.join(" "))
    });
    let lines: Vec<String> = lines.collect();
    Ok(if lines.is_empty() {
        vec!["none".to_owned()]
    } else {
        lines
    })
}

fn feet(state: &State, ink: Ink) -> Line<'static> {
    let scope = if state.is_cluster {
        "this node only"
    } else {
        "all members"
    };
    let pause = if state.is_paused { "go on" } else { "pause" };
    let mut spans = Vec::new();
    for (key, what) in [
        ("q", "quit"),
        ("c", scope),
        ("s", "sort"),
        ("p", pause),
        ("?", "help"),
    ] {
        spans.push(ink.span(key, Tone::Head));
        spans.push(Span::raw(format!(" {what}  ")));
    }
    spans.push(Span::raw(format!("sorted by {}", state.sort.name())));
    Line::from(spans)
}

fn draw_help(ink: Ink, area: Rect, frame: &mut Frame) {
    let text = Text::from(HELP);
    let wide = u16::try_from(text.width())
        .unwrap_or(u16::MAX)
        .saturating_add(2);
    let high = u16::try_from(text.height())
        .unwrap_or(u16::MAX)
        .saturating_add(2);
    let (width, height) = (wide.min(area.width), high.min(area.height));
    let inner = Rect::new(
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
        width,
        height,
    );
    let block = Block::new()
        .borders(Borders::ALL)
        .title(ink.span("help", Tone::Head));
    frame.render_widget(Clear, inner);
    frame.render_widget(Paragraph::new(text).block(block), inner);
}
