//! What a real register gave holds; what was made of it is judged as the naive judge judges. Each test prints the seed of what
//! it was at when it fails.

use crate::naive;
use crate::recorded::{ALL, Kind, Plan, Random};
use henge_checker::{
    Answer, Condition, Event, Found, History, Made, Operation, Outcome, Verdict, check,
};

/// So many seeds; or those of `CHECKER_SEEDS`, such as `7..8`.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("CHECKER_SEEDS") else {
        return 0..count;
    };
    let ends = text.split_once("..");
    let ends = ends.map(|(from, to)| (from.parse(), to.parse()));
    let Some((Ok(from), Ok(to))) = ends else {
        panic!("CHECKER_SEEDS is a range such as 7..8");
    };
    from..to
}

/// Both verdicts come up often, where all seeds are tried.
fn assert_both(counts: [u64; 2]) {
    println!("lies and others: {counts:?}");
    let all = std::env::var("CHECKER_SEEDS").is_err();
    assert!(!all || counts.iter().all(|&count| count > 3000));
}

/// Prints the seed if the test does not get further.
struct Printed(u64);

impl Drop for Printed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}", self.0);
        }
    }
}

fn plan(random: &mut Random, events: u64) -> Plan {
    let counters = [Kind::Increment, Kind::Increment, Kind::Read, Kind::Delete].to_vec();
    let writes = [Kind::Set, Kind::Read, Kind::Read].to_vec();
    let kinds = match random.below(4) {
        0 => counters,
        1 => writes,
        _ => ALL.to_vec(),
    };
    Plan {
        clients: 1 + random.below(5),
        events,
        kinds,
        values: random.pick(&[0, 2, 4]),
        unknown: random.pick(&[0, 100, 300, 500]),
        most_unknown: 8,
        forgets: random.pick(&[0, 50, 300]),
        versions: random.pick(&[0, 0, 500, 1000]),
        untold: random.pick(&[0, 100]),
        longest: 1 + random.below(12),
    }
}

#[test]
fn what_a_register_gave_holds() {
    for seed in seeds(1500) {
        let _printed = Printed(seed);
        let mut random = Random(seed);
        let events = 1 + random.below(60);
        let plan = plan(&mut random, events);
        let history = plan.record(&mut random);
        let verdict = check(&history);
        assert_eq!(verdict, Verdict::Holds, "{plan:?}: {verdict}");
    }
}

/// Another answer to a question, or other times.
fn mutate(event: &mut Event, random: &mut Random) {
    let Outcome::Answered(answer) = &mut event.outcome else {
        event.invoked = event.invoked.saturating_sub(random.below(8));
        return;
    };
    let value = random.below(5).cast_signed();
    match random.below(6) {
        0 => answer.found = any_found(random),
        1 => match &mut answer.found {
            Found::Something { value: found, .. } => *found = Some(value),
            found => *found = Found::Nothing,
        },
        2 => match &mut answer.made {
            Some(made) => made.value = made.value.map(|made| made + value - 2),
            None => answer.found = Answer::THERE.found,
        },
        3 => {
            if let (
                Some(Made {
                    version: Some(version),
                    ..
                }),
                _,
            )
            | (
                _,
                Found::Something {
                    version: Some(version),
                    ..
                },
            ) = (&mut answer.made, &mut answer.found)
            {
                *version = 1 + random.below(6);
            }
        }
        4 => {
            event.completed = event.invoked + random.below(event.completed - event.invoked + 1);
        }
        _ => {
            answer.made = match answer.made {
                Some(_) => None,
                None if event.operation == Operation::Read => None,
                None => Answer::DONE.made,
            };
        }
    }
}

fn any_found(random: &mut Random) -> Found {
    match random.below(4) {
        0 => Found::Unsaid,
        1 => Found::Nothing,
        _ => Found::Something {
            value: random.permille(600).then(|| random.below(3).cast_signed()),
            version: random.permille(100).then(|| 1 + random.below(4)),
        },
    }
}

/// An event about which nothing was thought, of few values, so that much fits by chance.
fn any_event(random: &mut Random) -> Event {
    let value = random.below(3).cast_signed();
    let when = match random.below(8) {
        0 => Condition::Absent,
        1 => Condition::Present,
        2 => Condition::Value(random.below(3).cast_signed()),
        3 => Condition::Version(1 + random.below(4)),
        _ => Condition::Always,
    };
    let operation = match random.below(7) {
        0..2 => Operation::Read,
        2..5 => Operation::Write { value, when },
        5 => Operation::Increment {
            by: random.pick(&[1, 1, 1, 2, -1, 0]),
        },
        _ => Operation::Delete { when },
    };
    let made = random.permille(750).then(|| Made {
        value: matches!(operation, Operation::Increment { .. })
            .then(|| random.below(4).cast_signed())
            .filter(|_| random.permille(800)),
        version: random.permille(150).then(|| 1 + random.below(6)),
    });
    let answer = Answer {
        found: if made.is_some() && random.permille(700) {
            Found::Unsaid
        } else {
            any_found(random)
        },
        made: made.filter(|_| operation != Operation::Read),
    };
    let invoked = random.below(12);
    Event {
        client: random.below(9),
        key: b"k".to_vec(),
        invoked,
        completed: invoked + random.below(6),
        operation,
        outcome: match random.below(8) {
            0..2 => Outcome::Unknown,
            _ => Outcome::Answered(answer),
        },
    }
}

fn of(events: &[Event]) -> History {
    let mut history = History::new();
    for event in events {
        history
            .record(event.clone())
            .expect("it ends after it began");
    }
    history
}

/// Judges by both, and whether what is shown of a lie is one. Gives whether it holds.
fn judge(events: &[Event]) -> bool {
    let verdict = check(&of(events));
    let text: Vec<String> = events
        .iter()
        .map(|event| format!("[{}, {}] {event}", event.invoked, event.completed))
        .collect();
    let text = text.join("\n");
    let holds = match &verdict {
        Verdict::Holds => true,
        Verdict::Lies(lie) => {
            assert!(lie.window.contains(&lie.event), "{text}\n{lie}");
            assert!(
                lie.window.iter().all(|event| events.contains(event)),
                "{text}\n{lie}"
            );
            assert!(
                !naive::holds(&lie.window),
                "what is shown is no lie\n{text}\n{lie}"
            );
            false
        }
        Verdict::Undecided { .. } => panic!("some events took too long\n{text}"),
    };
    assert_eq!(naive::holds(events), holds, "{text}\n{verdict}");
    holds
}

#[test]
fn mutated_histories_are_judged_as_by_the_naive_judge() {
    let mut counts = [0, 0];
    for seed in seeds(6000) {
        let _printed = Printed(seed);
        let mut random = Random(seed);
        let events = 2 + random.below(6);
        let plan = plan(&mut random, events);
        let mut events = plan.record(&mut random).events().to_vec();
        assert!(judge(&events), "it was given by a register");
        for _ in 0..3 {
            let place = random.below(events.len() as u64) as usize;
            mutate(&mut events[place], &mut random);
            counts[usize::from(judge(&events))] += 1;
        }
    }
    assert_both(counts);
}

#[test]
fn senseless_histories_are_judged_as_by_the_naive_judge() {
    let mut counts = [0, 0];
    for seed in seeds(20_000) {
        let _printed = Printed(seed);
        let mut random = Random(seed);
        let count = 2 + random.below(6);
        let events: Vec<Event> = (0..count).map(|_| any_event(&mut random)).collect();
        counts[usize::from(judge(&events))] += 1;
    }
    assert_both(counts);
}
