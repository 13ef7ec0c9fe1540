//! What clients asked and were told, in the words of the checker.
//!
//! A miss says nothing there. The checker's register does not hold again what it has forgotten; a replica that has dropped a
//! record gives a miss, and the next leader, who has it, shows it again. That is allowed, as it is still the latest. What is
//! written because of a miss does count.

use crate::clients::{Done, Outcome};
use crate::store::{Told, What};
use henge_checker::{Answer, Condition, Event, Found, History, Operation, Outcome as Verdict};
use henge_cluster::replica::Level;

/// The history of what has ended.
pub fn history(done: &[Done]) -> History {
    let mut history = History::new();
    for done in done {
        let Some((operation, outcome)) = words(done) else {
            continue;
        };
        let event = Event {
            client: done.client as u64,
            key: done.operation.asks.key.clone(),
            invoked: done.operation.began_ms,
            completed: done.ended_ms,
            operation,
            outcome,
        };
        history.record(event).expect("it ends after it begins");
    }
    history
}

fn words(done: &Done) -> Option<(Operation, Verdict)> {
    let write = |value: u64, when| Operation::Write {
        value: value as i64,
        when,
    };
    let always = Condition::Always;
    let operation = match done.operation.asks.what {
        What::Get => Operation::Read,
        What::Set(value) | What::SetFor(value, _) => write(value, always),
        What::Delete => Operation::Delete { when: always },
        What::Add(value) => write(value, Condition::Absent),
        What::Increment => Operation::Increment { by: 1 },
        What::Swap(version, value) => write(value, Condition::Version(version.to_bits())),
    };
    let is_read = operation == Operation::Read;
    let outcome = match done.outcome {
        Outcome::Never => return None,
        // It may be on one replica only, and lost with it, or win.
        Outcome::Told(_) if done.operation.level == Level::One => Verdict::Unknown,
        Outcome::Unknown => Verdict::Unknown,
        Outcome::Told(told) => Verdict::Answered(answer(operation, told)?),
    };
    (!is_read || outcome != Verdict::Unknown).then_some((operation, outcome))
}

fn answer(operation: Operation, told: Told) -> Option<Answer> {
    let version = told.version.map(henge_wire::Version::to_bits);
    let found = Found::Something {
        value: told.value.map(|value| value as i64),
        version,
    };
    match (told.is_changed, told.value, operation) {
        (true, Some(value), Operation::Increment { .. }) => {
            Some(Answer::counted(value as i64, version))
        }
        (true, ..) => Some(Answer::done(version)),
        (false, ..) if told.is_there => Some(Answer { found, made: None }),
        (false, ..) => None,
    }
}
