//! Long histories of one key, of the kinds that users record, within the steps that everybody has.

use crate::recorded::{ALL, Kind, Plan, Random};
use henge_checker::{Verdict, check_within};

/// As many as a test may take. With `CHECKER_EVENTS=100000` it is a measurement.
fn events() -> u64 {
    let given = std::env::var("CHECKER_EVENTS").ok();
    given.map_or(5_000, |text| {
        text.parse().expect("CHECKER_EVENTS is a number")
    })
}

fn plans() -> Vec<(&'static str, Plan)> {
    let plan = Plan {
        clients: 20,
        events: events(),
        kinds: vec![Kind::Read, Kind::Set],
        values: 0,
        unknown: 2,
        most_unknown: 50,
        forgets: 1,
        versions: 0,
        longest: 40,
    };
    let few = |kinds: &[Kind]| Plan {
        kinds: kinds.to_vec(),
        ..plan.clone()
    };
    vec![
        ("reads and writes", plan.clone()),
        (
            "mostly reads",
            few(&[Kind::Read, Kind::Read, Kind::Read, Kind::Read, Kind::Set]),
        ),
        ("writes", few(&[Kind::Set])),
        ("counters", few(&[Kind::Increment])),
        ("counters, read", few(&[Kind::Increment, Kind::Read])),
        ("all", few(ALL)),
        (
            "all, with versions",
            Plan {
                versions: 1000,
                ..few(ALL)
            },
        ),
        (
            "all, some with versions",
            Plan {
                versions: 500,
                ..few(ALL)
            },
        ),
        (
            "all, of few values",
            Plan {
                values: 8,
                ..few(ALL)
            },
        ),
        (
            "forgetful",
            Plan {
                forgets: 300,
                ..few(ALL)
            },
        ),
    ]
}

#[test]
fn long_histories_are_decided() {
    for (what, plan) in plans() {
        let history = plan.record(&mut Random(1));
        let begun = std::time::Instant::now();
        let verdict = check_within(&history, 100 * plan.events);
        println!("{what}: {:?} for {} events", begun.elapsed(), plan.events);
        assert_eq!(verdict, Verdict::Holds, "{what}: {verdict}");
    }
}
