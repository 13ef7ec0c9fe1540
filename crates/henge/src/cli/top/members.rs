//! The table of members: what the cluster says of each, and the figures of those that were asked themselves.

use std::cmp::Ordering;

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Text;
use ratatui::widgets::{Block, Borders, Cell, Row, Table};
use serde_json::Value;

use super::draw::Ink;
use super::figures::{bytes, count as short, percent, took};
use super::sample::Figures;
use super::state::{Sort, State};
use crate::cli::cluster::tone_of;
use crate::cli::colour::Tone;
use crate::cli::table::printable;

/// The columns, how wide each is, and whether it has figures.
const COLUMNS: [(&str, u16, bool); 11] = [
    ("", 2, false),
    ("NAME", 14, false),
    ("STATE", 8, false),
    ("LEADS", 6, true),
    ("HOLDS", 6, true),
    ("OPS/S", 9, true),
    ("MEMORY", 10, true),
    ("ITEMS", 10, true),
    ("HITS", 6, true),
    ("P50", 7, true),
    ("P99", 7, true),
];

/// A member with what is known of it.
struct Member<'a> {
    said: &'a Value,
    figures: Option<&'a Figures>,
}

impl Member<'_> {
    fn name(&self) -> &str {
        self.said["name"].as_str().unwrap_or_default()
    }

    /// What it does in a second: as it was seen here, or else as the others have heard.
    fn operations(&self) -> Option<f64> {
        let rates = self.figures.and_then(|figures| figures.rates.as_ref());
        let seen = rates.map(|rates| rates.operations);
        seen.or_else(|| self.said["operations_per_second"].as_f64())
    }

    fn memory(&self) -> Option<u64> {
        let seen = self.figures.map(|figures| figures.sizes.rss_bytes);
        seen.or_else(|| self.said["memory_bytes"].as_u64())
    }

    fn items(&self) -> Option<u64> {
        let seen = self.figures.map(|figures| figures.sizes.items);
        seen.or_else(|| self.said["items"].as_u64())
    }

    fn hit_ratio(&self) -> Option<f64> {
        self.figures?.rates.as_ref()?.hit_ratio()
    }
}

/// How many rows there are.
pub(super) fn count(state: &State) -> usize {
    all(state).len()
}

/// The names of those that the cluster takes for lost, in their order.
pub(super) fn down(state: &State) -> Vec<String> {
    let status = state.status.as_ref();
    let members = status.and_then(|status| status["members"].as_array());
    let mut down: Vec<String> = members
        .into_iter()
        .flatten()
        .filter(|said| said["state"] == "down")
        .map(|said| said["name"].as_str().map_or("?".to_owned(), printable))
        .collect();
    down.sort();
    down
}

fn all(state: &State) -> Vec<Member<'_>> {
    let status = state.status.as_ref();
    let members = status.and_then(|status| status["members"].as_array());
    let mut members: Vec<Member> = members
        .into_iter()
        .flatten()
        .map(|said| {
            let name = said["name"].as_str().unwrap_or_default();
            let node = state.nodes.get(name);
            Member {
                said,
                figures: node.and_then(|node| node.figures.as_ref()),
            }
        })
        .collect();
    members.sort_by(|one, other| {
        let most_first = |one: Option<f64>, other: Option<f64>| {
            let known = |figure: Option<f64>| figure.unwrap_or(f64::NEG_INFINITY);
            known(other).total_cmp(&known(one))
        };
        let whole = |figure: Option<u64>| figure.map(|figure| figure as f64);
        let by = match state.sort {
            Sort::Name => Ordering::Equal,
            Sort::Operations => most_first(one.operations(), other.operations()),
            Sort::Memory => most_first(whole(one.memory()), whole(other.memory())),
            Sort::Items => most_first(whole(one.items()), whole(other.items())),
            Sort::HitRatio => most_first(one.hit_ratio(), other.hit_ratio()),
        };
        by.then_with(|| one.name().cmp(other.name()))
    });
    members
}

pub(super) fn draw(state: &State, ink: Ink, area: Rect, frame: &mut Frame) {
    let leader = state
        .status
        .as_ref()
        .and_then(|status| status["leader"].as_str());
    let rows = all(state)
        .into_iter()
        .map(|member| row(state, &member, leader, ink));
    let heads = COLUMNS
        .iter()
        .map(|&(head, _, is_figure)| cell(head.to_owned(), is_figure).style(ink.style(Tone::Head)));
    let table = Table::new(rows, COLUMNS.map(|(_, width, _)| Constraint::Max(width)))
        .header(Row::new(heads))
        .block(
            Block::new()
                .borders(Borders::ALL)
                .title(ink.span("members", Tone::Head)),
        );
    frame.render_widget(table, area);
}

fn cell(text: String, is_figure: bool) -> Cell<'static> {
    let text = Text::from(text);
    Cell::from(if is_figure {
        text.right_aligned()
    } else {
        text
    })
}

fn row(state: &State, member: &Member, leader: Option<&str>, ink: Ink) -> Row<'static> {
    let said = member.said;
    let name = member.name();
    let word = |name: &str| said[name].as_str().map_or("-".to_owned(), printable);
    let number = |name: &str| {
        said[name]
            .as_u64()
            .map_or("-".to_owned(), |n| short(n as f64))
    };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let is_mute = state
        .nodes
        .get(name)
        .is_some_and(|node| node.silence.is_some());
    let is_silent = (said["is_reachable"] == false && said["state"] != "down") || is_mute;
    let marks = [
        (said["is_me"] == true, '*'),
        (leader == Some(name), 'L'),
        (is_silent, '?'),
    ];
    let marks = marks
        .iter()
        .filter(|mark| mark.0)
        .map(|mark| mark.1)
        .collect();
    let rates = member.figures.and_then(|figures| figures.rates.as_ref());
    let quantile = |part| or_dash(rates.and_then(|rates| rates.quantile(part)).map(took));
    let texts: [String; COLUMNS.len()] = [
        marks,
        printable(name),
        word("state"),
        number("partitions"),
        number("holds_partitions"),
        or_dash(member.operations().map(short)),
        or_dash(member.memory().map(bytes)),
        or_dash(member.items().map(|items| short(items as f64))),
        or_dash(member.hit_ratio().map(percent)),
        quantile(0.5),
        quantile(0.99),
    ];
    let tone = tone_of(said["state"].as_str().unwrap_or_default(), is_silent);
    let cells = texts
        .into_iter()
        .zip(COLUMNS)
        .map(|(text, (head, _, is_figure))| {
            let cell = cell(text, is_figure);
            match head {
                "STATE" => cell.style(ink.style(tone)),
                _ => cell,
            }
        });
    Row::new(cells)
}
