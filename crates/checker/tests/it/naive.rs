//! A judge that tries every order, every subset of the unknown and every moment of forgetting. It is slow, and shares nothing
//! with the checker but the words of a history.

use henge_checker::{Condition, Event, Found, Operation, Outcome};
use std::collections::HashSet;

/// What is there, and the greatest version that was told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct State {
    value: Option<i64>,
    version: Option<u64>,
    greatest: u64,
}

/// Whether there is an order. For a dozen events at the most, of one key, with versions above 0.
pub(crate) fn holds(events: &[Event]) -> bool {
    let events: Vec<&Event> = events
        .iter()
        .filter(|e| e.outcome != Outcome::Failed)
        .collect();
    assert!(events.len() < 20, "too many orders");
    let mut seen = HashSet::new();
    search(&events, 0, State::default(), &mut seen)
}

fn search(events: &[&Event], done: u32, state: State, seen: &mut HashSet<(u32, State)>) -> bool {
    if !seen.insert((done, state)) {
        return false;
    }
    let left = |place: &usize| done & (1 << place) == 0;
    let answered = |place: &usize| matches!(events[*place].outcome, Outcome::Answered(_));
    let owed: Vec<usize> = (0..events.len()).filter(left).filter(answered).collect();
    if owed.is_empty() {
        return true;
    }
    let forgotten = State {
        value: None,
        version: None,
        ..state
    };
    if search(events, done, forgotten, seen) {
        return true;
    }
    for place in (0..events.len()).filter(left) {
        let event = events[place];
        let too_early = owed.iter().any(|&o| events[o].completed < event.invoked);
        if too_early {
            continue;
        }
        for next in step(state, event) {
            if search(events, done | (1 << place), next, seen) {
                return true;
            }
        }
    }
    false
}

/// All states after an event.
fn step(state: State, event: &Event) -> Vec<State> {
    // A version that was not told can be any that is new; the one that matters is the one that the event names.
    let mut names: Vec<u64> = Vec::new();
    let when = match event.operation {
        Operation::Write { when, .. } | Operation::Delete { when } => when,
        Operation::Read | Operation::Increment { .. } => Condition::Always,
    };
    if let Condition::Version(version) = when {
        names.push(version);
    }
    if let Outcome::Answered(answer) = event.outcome
        && let Found::Something {
            version: Some(version),
            ..
        } = answer.found
    {
        names.push(version);
    }
    let mut starts = vec![state];
    if state.value.is_some() && state.version.is_none() {
        for version in names {
            if version > state.greatest {
                starts.push(State {
                    version: Some(version),
                    greatest: version,
                    ..state
                });
            }
        }
    }
    starts
        .into_iter()
        .filter_map(|start| step_known(start, when, event))
        .collect()
}

fn step_known(state: State, when: Condition, event: &Event) -> Option<State> {
    let holds = match when {
        Condition::Always => true,
        Condition::Absent => state.value.is_none(),
        Condition::Present => state.value.is_some(),
        Condition::Value(value) => state.value == Some(value),
        Condition::Version(version) => state.value.is_some() && state.version == Some(version),
    };
    let value = match event.operation {
        Operation::Read => state.value,
        Operation::Write { value, .. } => Some(value),
        Operation::Delete { .. } => None,
        Operation::Increment { by } => match state.value.unwrap_or(0).checked_add(by) {
            Some(sum) => Some(sum),
            None => return refused(state, event),
        },
    };
    let looks = matches!(event.outcome, Outcome::Answered(answer) if answer.made.is_none());
    let deletes_nothing =
        looks && state.value.is_none() && matches!(event.operation, Operation::Delete { .. });
    if !holds || event.operation == Operation::Read || deletes_nothing {
        return refused(state, event);
    }
    let done = State {
        value,
        version: None,
        ..state
    };
    let Outcome::Answered(answer) = event.outcome else {
        return Some(done);
    };
    let made = answer.made?;
    if !agrees(state, answer.found) || made.value.is_some_and(|told| done.value != Some(told)) {
        return None;
    }
    match made.version {
        None => Some(done),
        Some(version) if version > state.greatest => Some(State {
            version: done.value.map(|_| version),
            greatest: version,
            ..done
        }),
        Some(_) => None,
    }
}

fn refused(state: State, event: &Event) -> Option<State> {
    match event.outcome {
        Outcome::Answered(answer) => {
            (answer.made.is_none() && agrees(state, answer.found)).then_some(state)
        }
        Outcome::Failed | Outcome::Unknown => Some(state),
    }
}

fn agrees(state: State, found: Found) -> bool {
    match found {
        Found::Unsaid => true,
        Found::Nothing => state.value.is_none(),
        Found::Something { value, version } => {
            state.value.is_some()
                && (value.is_none() || state.value == value)
                && (version.is_none() || state.version == version)
        }
    }
}
