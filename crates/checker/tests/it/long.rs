//! Long histories of one key, of the kinds that users record, within far fewer steps than everybody has.

use crate::recorded::{ALL, Kind, Plan, Random};
use henge_checker::{Answer, Event, Found, History, Operation, Outcome, Verdict, check_within};
use std::time::Instant;

/// What the Redis protocol tells of: little about what was there.
const CLIENT: &[Kind] = &[
    Kind::Read,
    Kind::Read,
    Kind::Read,
    Kind::Set,
    Kind::Set,
    Kind::Add,
    Kind::Replace,
    Kind::Delete,
];

/// As many as a test may take. With `CHECKER_EVENTS=100000` it is a measurement.
fn events() -> u64 {
    let given = std::env::var("CHECKER_EVENTS").ok();
    given.map_or(5_000, |text| {
        text.parse().expect("CHECKER_EVENTS is a number")
    })
}

fn plan(kinds: &[Kind]) -> Plan {
    Plan {
        clients: 20,
        events: events(),
        kinds: kinds.to_vec(),
        values: 0,
        unknown: 2,
        most_unknown: 50,
        forgets: 1,
        versions: 0,
        untold: 0,
        longest: 40,
    }
}

fn plans() -> Vec<(&'static str, Plan)> {
    let mut plans = vec![
        ("reads and writes", plan(&[Kind::Read, Kind::Set])),
        (
            "mostly reads",
            plan(&[Kind::Read, Kind::Read, Kind::Read, Kind::Set]),
        ),
        ("writes", plan(&[Kind::Set])),
        ("counters", plan(&[Kind::Increment])),
        (
            "counters that are read",
            plan(&[Kind::Increment, Kind::Read]),
        ),
        ("what a client asks", plan(CLIENT)),
    ];
    let mut forgetful = plan(CLIENT);
    forgetful.forgets = 300;
    plans.push(("what a client asks of a small cache", forgetful));
    let mut versions = plan(CLIENT);
    versions.versions = 1000;
    plans.push(("what a client asks, with versions", versions));
    // Values that come again leave more orders, and so do answers to which dozens of unknown events of all kinds may have led:
    // of these a user should not record as many.
    let mut few_values = plan(CLIENT);
    (few_values.values, few_values.clients, few_values.events) = (8, 6, 5_000);
    plans.push(("few values of few clients", few_values));
    let mut all = plan(ALL);
    all.events = 5_000;
    for (what, versions) in [
        ("all", 0),
        ("all, some with versions", 500),
        ("all, with versions", 1000),
    ] {
        all.versions = versions;
        plans.push((what, all.clone()));
    }
    plans
}

#[test]
fn long_histories_are_decided() {
    for (what, plan) in plans() {
        let history = plan.record(&mut Random(1));
        let begun = Instant::now();
        let verdict = check_within(&history, 100 * plan.events);
        println!("{what}: {:?} for {} events", begun.elapsed(), plan.events);
        assert_eq!(verdict, Verdict::Holds, "{what}: {verdict}");
    }
}

/// The history with another answer to the first read, or increment, behind so many.
fn with_a_lie(
    history: &History,
    behind: usize,
    answer: impl Fn(&Event) -> Option<Answer>,
) -> History {
    let mut events = history.events().to_vec();
    events.sort_by_key(|event| event.invoked);
    let place = (behind..events.len()).find(|&p| answer(&events[p]).is_some());
    let event = &mut events[place.expect("there is one")];
    event.outcome = Outcome::Answered(answer(event).expect("it was found"));
    let mut changed = History::new();
    for event in events {
        changed.record(event).expect("it was recorded before");
    }
    changed
}

#[test]
fn a_lie_in_a_long_history_is_shown_by_few_events() {
    let history = plan(&[Kind::Read, Kind::Set]).record(&mut Random(2));
    let behind = history.events().len() * 9 / 10;
    let mut shown = history.events()[..behind / 2]
        .iter()
        .filter_map(|event| match event.outcome {
            Outcome::Answered(Answer {
                found: Found::Something { value, .. },
                ..
            }) => value,
            _ => None,
        });
    let old = shown.next_back().expect("something was read");
    let lie = with_a_lie(&history, behind, |event| {
        let is_read = event.operation == Operation::Read && event.outcome != Outcome::Unknown;
        is_read.then(|| Answer::found(old, None))
    });
    let begun = Instant::now();
    let Verdict::Lies(lie) = check_within(&lie, 100 * events()) else {
        panic!("{old} was replaced long ago");
    };
    println!("an old value: {:?}\n{lie}", begun.elapsed());
    assert!(lie.window.len() <= 4 && lie.left_out == 0, "{lie}");
    assert_eq!(Some(&lie.event), lie.window.last());

    let history = plan(&[Kind::Increment]).record(&mut Random(3));
    let lie = with_a_lie(&history, behind, |event| match event.outcome {
        Outcome::Answered(answer) => {
            let number = answer.made?.value?;
            Some(Answer::counted(number + 30, None))
        }
        _ => None,
    });
    let begun = Instant::now();
    let Verdict::Lies(lie) = check_within(&lie, 100 * events()) else {
        panic!("thirty more than were counted");
    };
    println!("a number too large: {:?}\n{lie}", begun.elapsed());
    assert!(!lie.records.is_empty(), "{lie}");
}
