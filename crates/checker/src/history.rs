//! What clients asked, when, and what they were told. It knows no protocol: who records a history says in these words what
//! an answer means.

use std::fmt;

/// One request on one key, and its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Who asked. It is for reports only: a client may have many requests under way.
    pub client: u64,
    /// The key.
    pub key: Vec<u8>,
    /// When it was asked, in any unit that all clients share: no later than the request left.
    pub invoked: u64,
    /// When the answer was there, or nobody waited any more: no earlier than it came. A request that is asked in the very
    /// unit in which another is answered counts as concurrent with it.
    pub completed: u64,
    /// What was asked.
    pub operation: Operation,
    /// What came of it.
    pub outcome: Outcome,
}

/// What may be asked of a register. Its values are numbers: who writes bytes gives each distinct value a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// What is there? Anything that only looks, such as `EXISTS`, is a read that is told less.
    Read,
    /// Puts a value there.
    Write {
        /// The value.
        value: i64,
        /// On which condition.
        when: Condition,
    },
    /// Takes away what is there.
    Delete {
        /// On which condition.
        when: Condition,
    },
    /// Adds to what is there; nothing counts as 0.
    Increment {
        /// What is added.
        by: i64,
    },
}

/// When an operation does what it says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Condition {
    /// In any case.
    Always,
    /// Only if nothing is there.
    Absent,
    /// Only if something is there.
    Present,
    /// Only if this value is there.
    Value(i64),
    /// Only if what is there has this version.
    Version(u64),
}

/// What came of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// It was answered.
    Answered(Answer),
    /// It was not done and never will be: it says nothing and constrains nothing.
    Failed,
    /// Nobody knows. It may be done at any time after it was asked, also after its completion, once or never.
    Unknown,
}

/// What an answer says of the moment in which the operation was done: what was there before it, and what it made of that.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Answer {
    /// What was there.
    pub found: Found,
    /// What the operation made; none if it changed nothing, as it is a read or its condition did not hold.
    pub made: Option<Made>,
}

/// What an answer says of what was there before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Found {
    /// It does not say.
    Unsaid,
    /// Nothing was there.
    Nothing,
    /// Something was there.
    Something {
        /// The value, if it is told.
        value: Option<i64>,
        /// Its version, if it is told.
        version: Option<u64>,
    },
}

/// What an answer says of what the operation made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Made {
    /// The value, if it is told: a counter's new number.
    pub value: Option<i64>,
    /// Its version, or that of the delete, if it is told. Versions of a key grow with each change.
    pub version: Option<u64>,
}

impl Answer {
    /// Nothing was there, and nothing changed: a miss, or a condition that asks for something.
    pub const MISSING: Self = Self {
        found: Found::Nothing,
        made: None,
    };
    /// Something was there, and nothing changed: the answer to `EXISTS`, or to a set-if-absent that was refused.
    pub const THERE: Self = Self {
        found: Found::Something {
            value: None,
            version: None,
        },
        made: None,
    };
    /// The condition did not hold, and the answer does not say what was there instead.
    pub const REFUSED: Self = Self {
        found: Found::Unsaid,
        made: None,
    };
    /// It was done.
    pub const DONE: Self = Self::done(None);

    /// This value was there, and nothing changed.
    pub const fn found(value: i64, version: Option<u64>) -> Self {
        let found = Found::Something {
            value: Some(value),
            version,
        };
        Self { found, made: None }
    }

    /// It was done, under this version if that is told.
    pub const fn done(version: Option<u64>) -> Self {
        Self {
            found: Found::Unsaid,
            made: Some(Made {
                value: None,
                version,
            }),
        }
    }

    /// It was done, and the counter's number is this now.
    pub const fn counted(value: i64, version: Option<u64>) -> Self {
        Self {
            found: Found::Unsaid,
            made: Some(Made {
                value: Some(value),
                version,
            }),
        }
    }

    /// The same, and this was there before: for what writes and shows, such as `GETDEL`.
    #[must_use]
    pub const fn over(mut self, found: Found) -> Self {
        self.found = found;
        self
    }
}

impl Event {
    /// What was answered, if it was.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Failed | Outcome::Unknown => None,
        }
    }

    /// The version under which it found something, and that under which it made something.
    pub(crate) fn versions(&self) -> (Option<u64>, Option<u64>) {
        let Some(answer) = self.answer() else {
            return (None, None);
        };
        let found = match answer.found {
            Found::Something { version, .. } => version,
            Found::Unsaid | Found::Nothing => None,
        };
        (found, answer.made.and_then(|made| made.version))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}: {} -> ", self.client, self.operation)?;
        match self.outcome {
            Outcome::Answered(answer) => write!(f, "{answer}"),
            Outcome::Failed => f.write_str("failed"),
            Outcome::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Write { value, when } => write!(f, "write {value}{when}"),
            Self::Delete { when } => write!(f, "delete{when}"),
            Self::Increment { by } => write!(f, "add {by}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => Ok(()),
            Self::Absent => f.write_str(" if absent"),
            Self::Present => f.write_str(" if present"),
            Self::Value(value) => write!(f, " if {value}"),
            Self::Version(version) => write!(f, " if version {version}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.made {
            None => f.write_str("unchanged")?,
            Some(made) => {
                f.write_str("done")?;
                if let Some(value) = made.value {
                    write!(f, ", now {value}")?;
                }
                if let Some(version) = made.version {
                    write!(f, " (version {version})")?;
                }
            }
        }
        match self.found {
            Found::Unsaid => Ok(()),
            Found::Nothing => f.write_str(", nothing was there"),
            Found::Something { value, version } => {
                match value {
                    Some(value) => write!(f, ", {value} was there")?,
                    None => f.write_str(", something was there")?,
                }
                version.map_or(Ok(()), |version| write!(f, " (version {version})"))
            }
        }
    }
}

/// An event that cannot have been: it was completed before it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompletedTooEarly {
    /// Whose event it is.
    pub client: u64,
    /// When it was asked.
    pub invoked: u64,
    /// When it was completed.
    pub completed: u64,
}

impl fmt::Display for CompletedTooEarly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "an event of client {} is asked at {} and completed at {}, which is earlier; clients must share one clock that does not go back",
            self.client, self.invoked, self.completed
        )
    }
}

impl std::error::Error for CompletedTooEarly {}

/// Events in any order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    events: Vec<Event>,
}

impl History {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { events: Vec::new() }
    }

    /// One more. An event that is completed before it is asked is refused, and not in the history.
    pub fn record(&mut self, event: Event) -> Result<(), CompletedTooEarly> {
        if event.completed < event.invoked {
            return Err(CompletedTooEarly {
                client: event.client,
                invoked: event.invoked,
                completed: event.completed,
            });
        }
        self.events.push(event);
        Ok(())
    }

    /// All that were recorded, in that order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}
