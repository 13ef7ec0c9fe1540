//! The register that a key is, and what one operation makes of it. That it may forget is not told here: who calls may empty it
//! before any step.

use crate::history::{Answer, Condition, Event, Found, Operation, Outcome};
use std::fmt;

/// What a key holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Record {
    /// The value.
    pub value: i64,
    /// Its version, as far as any answer has told it.
    pub version: Option<u64>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)?;
        self.version
            .map_or(Ok(()), |version| write!(f, " (version {version})"))
    }
}

/// A register somewhere in the order of operations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Register {
    /// What it holds.
    pub(crate) record: Option<Record>,
    /// The greatest version that was told of it up to here. What comes later is greater.
    pub(crate) floor: Option<u64>,
}

/// Whether a condition holds. Of a version that nobody has told it may not be known.
enum Holds {
    Yes,
    No,
    IfVersion(u64),
}

impl Register {
    /// After it has forgotten.
    pub(crate) fn emptied(self) -> Self {
        Self {
            record: None,
            ..self
        }
    }

    /// After this event; none if it cannot happen here with the answer that it had. An event of unknown outcome can happen
    /// anywhere.
    pub(crate) fn after(self, event: &Event) -> Option<Self> {
        match &event.outcome {
            Outcome::Failed => Some(self),
            Outcome::Unknown => Some(self.after_unknown(event.operation)),
            Outcome::Answered(answer) => self.after_answered(event.operation, answer),
        }
    }

    fn after_unknown(mut self, operation: Operation) -> Self {
        let when = match operation {
            Operation::Read => return self,
            Operation::Write { when, .. } | Operation::Delete { when } => when,
            Operation::Increment { .. } => Condition::Always,
        };
        let done = match self.holds(when) {
            Holds::Yes => true,
            Holds::No => false,
            Holds::IfVersion(version) => self.learn(version),
        };
        if done {
            self.made(operation, None).unwrap_or(self)
        } else {
            self
        }
    }

    fn after_answered(mut self, operation: Operation, answer: &Answer) -> Option<Self> {
        match (answer.found, self.record) {
            (Found::Unsaid, _) | (Found::Nothing, None) => {}
            (Found::Nothing, Some(_)) | (Found::Something { .. }, None) => return None,
            (Found::Something { value, version }, Some(record)) => {
                let same = value.is_none_or(|value| value == record.value)
                    && match (version, record.version) {
                        (None, _) => true,
                        (Some(told), Some(known)) => told == known,
                        (Some(told), None) => self.learn(told),
                    };
                if !same {
                    return None;
                }
            }
        }
        let when = match operation {
            Operation::Read => return answer.made.is_none().then_some(self),
            Operation::Write { when, .. } | Operation::Delete { when } => when,
            Operation::Increment { .. } => Condition::Always,
        };
        let holds = self.holds(when);
        let Some(made) = answer.made else {
            // A counter that would leave its range is refused as if by a condition, and to delete nothing changes nothing.
            let refused = match holds {
                Holds::No | Holds::IfVersion(_) => true,
                Holds::Yes => match operation {
                    Operation::Delete { .. } => self.record.is_none(),
                    _ => self.made(operation, None).is_none(),
                },
            };
            return refused.then_some(self);
        };
        let done = match holds {
            Holds::Yes => true,
            Holds::No => false,
            Holds::IfVersion(version) => self.learn(version),
        };
        let after = self.made(operation, made.version).filter(|_| done)?;
        let told = made.value.is_none() || made.value == after.record.map(|record| record.value);
        (told && (made.version.is_none() || made.version > self.floor)).then_some(after)
    }

    fn holds(&self, when: Condition) -> Holds {
        let holds = match (when, self.record) {
            (Condition::Always, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => {
                true
            }
            (Condition::Value(value), Some(record)) => record.value == value,
            (Condition::Version(version), Some(record)) => match record.version {
                Some(known) => known == version,
                None => return Holds::IfVersion(version),
            },
            (_, None) | (Condition::Absent, Some(_)) => false,
        };
        if holds { Holds::Yes } else { Holds::No }
    }

    /// What is here turns out to have this version, unless that is too old.
    fn learn(&mut self, version: u64) -> bool {
        let newer = self.floor < Some(version);
        if let (true, Some(record)) = (newer, &mut self.record) {
            record.version = Some(version);
            self.floor = Some(version);
        }
        newer
    }

    /// After the effect of an operation; none if a counter would leave its range.
    fn made(self, operation: Operation, version: Option<u64>) -> Option<Self> {
        let value = match operation {
            Operation::Read => return Some(self),
            Operation::Write { value, .. } => Some(value),
            Operation::Delete { .. } => None,
            Operation::Increment { by } => Some(
                self.record
                    .map_or(0, |record| record.value)
                    .checked_add(by)?,
            ),
        };
        Some(Self {
            record: value.map(|value| Record { value, version }),
            floor: self.floor.max(version),
        })
    }
}
