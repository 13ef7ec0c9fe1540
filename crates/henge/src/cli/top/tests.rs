//! Frames from recorded pages.

use std::time::Duration;

use serde_json::{Value, json};

use super::poll::{Pages, Round};
use super::state::{Press, State};
use super::*;
use crate::cli::colour::Painter;

const STATUS: &str = include_str!("recorded/status.json");
const METRICS: &str = include_str!("recorded/metrics.json");

fn status() -> Value {
    serde_json::from_str(STATUS).expect("it was a page")
}

/// The pages of a node that has answered so many reads, of which one in ten missed.
fn pages(reads: u64) -> Pages {
    let mut metrics: Value = serde_json::from_str(METRICS).expect("it was a page");
    metrics["hits"] = json!(reads - reads / 10);
    metrics["misses"] = json!(reads / 10);
    metrics["misses_by_cause"] =
        json!({"never_set": reads / 20, "evicted": reads / 20, "expired": 0});
    let bucket = |bound: &str, count: u64| {
        format!("henge_request_duration_seconds_bucket{{le=\"{bound}\",route=\"get\"}} {count}\n")
    };
    let text = [
        bucket("0.000065536", 0),
        bucket("0.000131072", reads / 2),
        bucket("0.002097152", reads),
        bucket("+Inf", reads),
    ];
    Pages {
        metrics,
        text: text.concat(),
        ready: json!({"status": "ready", "node_id": "node1", "checks": [
            {"name": "recovered", "ok": true, "why": ""},
            {"name": "in_cluster", "ok": true, "why": ""},
        ]}),
        hot: Ok(
            json!({"node": "node1", "seen": 1000, "since_seconds": 60.0, "sampled_one_in": 16, "keys": [
                {"key": "user:1", "count": 415, "share": 0.415},
                {"key": "\u{1b}[31mred\n", "count": 10, "share": 0.01},
            ]}),
        ),
        slow: Ok(json!({"node": "node1", "threshold_us": 10_000, "entries": [
            {"id": 7, "at_ms": 9, "took_us": 15_000, "words": ["GET", "k\u{7}"], "client": "127.0.0.1:1", "client_name": ""},
        ]})),
    }
}

fn round(looks: &[(&str, u64)]) -> Round {
    let looks = looks
        .iter()
        .map(|(name, reads)| ((*name).to_owned(), Ok(pages(*reads))));
    Round {
        status: Ok(status()),
        looks: looks.collect(),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_frame_of_one_node() {
    let mut state = State::new("http://127.0.0.1:19180".to_owned(), false);
    state.take(round(&[("node1", 1_000)]), seconds(1));
    state.take(round(&[("node1", 3_000)]), seconds(2));
    let text = text_of(&state, 100).expect("it is drawn");
    assert_eq!(text, include_str!("recorded/one.txt"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn a_frame_of_a_cluster() {
    let mut state = State::new("http://127.0.0.1:19180".to_owned(), true);
    state.take(
        round(&[("node1", 1_000), ("node2", 2_000), ("node3", 0)]),
        seconds(1),
    );
    let mut last = round(&[("node1", 3_000), ("node2", 2_500)]);
    last.looks.push((
        "node3".to_owned(),
        Err("the node did not answer within 2s\u{1b}c".to_owned()),
    ));
    if let Ok(status) = &mut last.status {
        status["members"][1]["is_reachable"] = json!(false);
    }
    state.take(last, seconds(2));
    state.press(Press::Sort);
    let text = text_of(&state, 100).expect("it is drawn");
    assert_eq!(text, include_str!("recorded/cluster.txt"), "{text}");
}

/// In a small cluster all who are down are named, and in a large one those that there is room for.
#[test]
fn who_is_down_is_named() {
    let third_line = |down: usize, is_cluster: bool, width: u16| {
        let mut state = State::new("http://127.0.0.1:19180".to_owned(), is_cluster);
        let mut round = round(&[("node1", 1_000)]);
        if let Ok(status) = &mut round.status {
            let members = status["members"].as_array_mut().expect("members");
            let mut other = members.pop().expect("it has some");
            other["state"] = json!("down");
            members.truncate(1);
            for number in (0..down).rev() {
                other["name"] = json!(format!("lost{number}"));
                members.push(other.clone());
            }
        }
        state.take(round, seconds(1));
        let text = text_of(&state, width).expect("it is drawn");
        text.lines().nth(2).expect("a line").trim_end().to_owned()
    };
    for is_cluster in [true, false] {
        let line = third_line(2, is_cluster, 100);
        assert!(
            line.starts_with("down: lost0, lost1  node1 ready"),
            "{line}"
        );
    }
    assert_eq!(third_line(5, true, 26), "down: lost0 and 4 more  no");
    assert_eq!(third_line(5, true, 30), "down: lost0, lost1 and 3 more");
    assert_eq!(
        third_line(5, true, 39),
        "down: lost0, lost1, lost2, lost3, lost4"
    );
    assert_eq!(third_line(2, true, 10), "down: lost");
    assert_eq!(third_line(0, true, 30), "node1 ready");
}

#[test]
fn a_frame_before_anything_is_heard_and_after() {
    let mut state = State::new("http://h:1".to_owned(), false);
    let text = text_of(&state, 100).expect("it is drawn");
    assert!(text.contains("its cluster is not known yet"), "{text}");
    let nobody = || Round {
        status: Err("no connection to the node: refused\u{1b}[2J".to_owned()),
        looks: Vec::new(),
    };
    state.take(nobody(), seconds(1));
    state.take(nobody(), seconds(13));
    let text = text_of(&state, 100).expect("it is drawn");
    let line = "no answer for 12 s: no connection to the node: refused?[2J; it is tried on";
    assert!(text.contains(line), "{text}");
    let mut older = round(&[("node1", 1_000)]);
    if let (_, Ok(pages)) = &mut older.looks[0] {
        pages.slow = Err("the node refused: 403 Forbidden: it takes admin".to_owned());
        pages.hot = Err("the node refused: 404 Not Found".to_owned());
        pages.metrics["misses_by_cause"] = Value::Null;
        pages.ready = json!({"status": "drained", "checks": [{"name": "not_drained", "ok": false, "why": "an operator asked"}]});
    }
    state.take(older, seconds(14));
    let text = text_of(&state, 100).expect("it is drawn");
    for expected in [
        "the node refused: 404 Not Found",
        "the node refused: 403 Forbidden: it",
        "the node does not say",
        "node1 drained  - not drained (an operator asked)",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("no answer"), "{text}");
}

#[test]
fn every_size_can_be_drawn() {
    let mut state = State::new("http://h:1".to_owned(), true);
    for at in 1..4 {
        state.take(round(&[("node1", at * 1_000), ("node2", at)]), seconds(at));
    }
    for shows_help in [false, true] {
        state.shows_help = shows_help;
        for (width, height) in [
            (1, 1),
            (10, 3),
            (40, 12),
            (75, 24),
            (80, 24),
            (200, 60),
            (500, 5),
        ] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a backend");
            let painter = Painter { is_on: true };
            terminal
                .draw(|frame| draw::frame(&state, painter, frame))
                .expect("it is drawn");
        }
        let text = text_of(&state, 60).expect("it is drawn");
        assert!(text.contains("slow requests"), "{text}");
    }
    assert!(
        text_of(&state, 100)
            .expect("it is drawn")
            .contains("sort by the next column")
    );
}

#[test]
fn colour_is_where_it_means_something() {
    let mut state = State::new("http://h:1".to_owned(), false);
    state.take(round(&[("node1", 1_000)]), seconds(1));
    let drawn = |is_on| {
        let mut terminal = Terminal::new(TestBackend::new(100, 30)).expect("a backend");
        let painter = Painter { is_on };
        terminal
            .draw(|frame| draw::frame(&state, painter, frame))
            .expect("it is drawn");
        let cells = terminal.backend().buffer().content().iter();
        cells
            .filter(|cell| cell.fg != ratatui::style::Color::Reset)
            .count()
    };
    assert!(drawn(true) > 20);
    assert_eq!(drawn(false), 0);
}

#[test]
fn what_is_understood() {
    let asked = |line: &str| {
        let matches = command().try_get_matches_from(line.split(' '));
        let matches = matches.map_err(|error| error.to_string())?;
        understood(&matches).expect("it has its defaults")
    };
    let top = asked("top --cluster --interval 500ms --once --url http://h:1").expect("understood");
    assert_eq!(
        (top.interval, top.is_cluster, top.is_once),
        (Duration::from_millis(500), true, true)
    );
    for line in [
        "top --interval 99ms",
        "top --interval x",
        "top --url redis://h:1",
        "top x",
    ] {
        assert!(asked(line).is_err(), "{line}");
    }
}
