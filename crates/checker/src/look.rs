//! What an event looks at in what was there, and what it leaves to be looked at: by this it is known which events cannot
//! matter to each other.

use crate::history::{Answer, Condition, Event, Found, Operation};

/// What an event looks at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    /// Values that make a difference to it: that which was found, and that which its condition names.
    pub(crate) named: [Option<i64>; 2],
    /// It takes any value for an answer, or a version, which any value may have.
    pub(crate) any: bool,
    /// It adds to whatever is there and does not tell the sum, so that it takes any value too.
    pub(crate) sums: bool,
}

impl Look {
    /// Of this event.
    pub(crate) fn of(event: &Event) -> Self {
        let mut look = Self::default();
        if let Operation::Increment { by } = event.operation {
            let told = event.answer().and_then(|answer| answer.made?.value);
            match told.and_then(|sum| sum.checked_sub(by)) {
                Some(value) => look.named[0] = Some(value),
                None => look.sums = true,
            }
        }
        match condition(event.operation) {
            Some(Condition::Value(value)) => look.named[0] = Some(value),
            Some(Condition::Present | Condition::Version(_)) => look.any = true,
            None | Some(Condition::Always | Condition::Absent) => {}
        }
        if let Some(answer) = event.answer() {
            if let Found::Something { value, .. } = answer.found {
                look.named[1] = value;
                look.any |= value.is_none();
            }
            // Refused for no other reason than that something is there.
            let is_add = condition(event.operation) == Some(Condition::Absent);
            look.any |= is_add && answer.made.is_none();
        }
        look
    }
}

/// On which condition it is done, if it can have one.
pub(crate) fn condition(operation: Operation) -> Option<Condition> {
    match operation {
        Operation::Write { when, .. } | Operation::Delete { when } => Some(when),
        Operation::Read | Operation::Increment { .. } => None,
    }
}

/// The value without which an event cannot have had its answer, if there is one.
pub(crate) fn needs(event: &Event) -> Option<i64> {
    let answer = event.answer()?;
    let found = match answer.found {
        Found::Something { value, .. } => value,
        Found::Unsaid | Found::Nothing => None,
    };
    found.or_else(|| match (event.operation, answer.made?) {
        // The sum of nothing and what was added needs nothing.
        (Operation::Increment { by }, made) if made.value != Some(by) => {
            made.value?.checked_sub(by)
        }
        (operation, _) => match condition(operation)? {
            Condition::Value(value) => Some(value),
            _ => None,
        },
    })
}

/// The value that must be there for an event to do anything, answered or not.
pub(crate) fn named_by(event: &Event) -> Option<i64> {
    match condition(event.operation) {
        Some(Condition::Value(value)) => Some(value),
        _ => needs(event),
    }
}

/// What an event may leave to be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leaves {
    /// Nothing that was not there before.
    Nothing,
    /// This value.
    Value(i64),
    /// Any value.
    Any,
}

impl Leaves {
    /// By this event.
    pub(crate) fn of(event: &Event) -> Self {
        let answer = event.answer();
        if answer.is_some_and(|answer| answer.made.is_none()) {
            return Self::Nothing;
        }
        match event.operation {
            Operation::Read | Operation::Delete { .. } => Self::Nothing,
            Operation::Write { value, .. } => Self::Value(value),
            Operation::Increment { .. } => {
                let told = answer.and_then(|answer| answer.made?.value);
                told.map_or(Self::Any, Self::Value)
            }
        }
    }
}

/// Whether nothing that was there before is there after it, or is needed for what is: it found nothing, or put something else in
/// its place whatever it found.
pub(crate) fn is_wall(event: &Event) -> bool {
    let Some(Answer { found, made }) = event.answer() else {
        return false;
    };
    let replaces = match (event.operation, made) {
        (_, None) | (Operation::Read, _) => false,
        (Operation::Increment { by }, Some(made)) => made.value == Some(by),
        (Operation::Write { .. } | Operation::Delete { .. }, Some(_)) => true,
    };
    *found == Found::Nothing || replaces
}
