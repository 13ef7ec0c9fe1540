//! Whether a history of requests and answers is one that a cache may give: linearizable for each key, but for what it may forget.
//!
//! A key is a register. At any moment it may forget what it holds: then it holds nothing until somebody writes again, and what
//! is forgotten does not come back. So a miss is always allowed; an older value after a newer one was acknowledged or shown,
//! one after an acknowledged delete, and a number that was counted twice are lies. What is checked, and what that is worth,
//! is told in `docs/checker.md`.
//!
//! ```
//! use henge_checker::{Answer, Condition, Event, History, Operation, Outcome, Verdict, check};
//!
//! let event = |invoked, completed, operation, answer| Event {
//!     client: 1,
//!     key: b"k".to_vec(),
//!     invoked,
//!     completed,
//!     operation,
//!     outcome: Outcome::Answered(answer),
//! };
//! let write = |value| Operation::Write { value, when: Condition::Always };
//!
//! let mut history = History::new();
//! history.record(event(0, 1, write(7), Answer::DONE))?;
//! history.record(event(2, 3, write(8), Answer::DONE))?;
//! history.record(event(4, 5, Operation::Read, Answer::MISSING))?;
//! assert_eq!(check(&history), Verdict::Holds);
//!
//! history.record(event(6, 7, Operation::Read, Answer::found(8, None)))?;
//! let Verdict::Lies(lie) = check(&history) else { panic!("what is forgotten does not come back") };
//! assert_eq!(lie.event.invoked, 6);
//! assert_eq!(lie.window.len(), 3, "the first write has nothing to do with it: {lie}");
//! # Ok::<(), henge_checker::CompletedTooEarly>(())
//! ```

mod explain;
mod history;
mod look;
mod op;
mod reach;
mod register;
mod search;

pub use explain::Lie;
pub use history::{
    Answer, CompletedTooEarly, Condition, Event, Found, History, Made, Operation, Outcome,
};
pub use register::Record;

use search::{End, Search};
use std::collections::BTreeMap;
use std::fmt;

/// Steps that [`check`] spends on one key: half a minute at the most. A hundred thousand events of twenty clients take a tenth
/// of it, or less.
pub const STEPS: u64 = 5_000_000;

/// What can be said of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A register that may forget can have given every answer.
    Holds,
    /// It cannot.
    Lies(Box<Lie>),
    /// The steps were spent before this key was decided, and no other key lies.
    Undecided {
        /// The first such key.
        key: Vec<u8>,
    },
}

/// Judges a history, each key by itself. The same history has the same verdict, and the same explanation.
pub fn check(history: &History) -> Verdict {
    check_within(history, STEPS)
}

/// The same, with so many steps for each key. A step takes some microseconds and at the most some hundred bytes. A lie that was
/// found is made small in some times the steps that it took to find it.
pub fn check_within(history: &History, steps: u64) -> Verdict {
    let mut keys: BTreeMap<&[u8], Vec<&Event>> = BTreeMap::new();
    for event in history.events() {
        if event.outcome != Outcome::Failed {
            keys.entry(&event.key).or_default().push(event);
        }
    }
    let mut undecided = None;
    for (key, events) in &keys {
        let moments = op::moments(events);
        let mut search = Search::new(events, &moments, steps);
        match search.run() {
            End::Holds => {}
            End::Lies => {
                let lie = Lie::explain(key, events, search.steps(), steps);
                return Verdict::Lies(Box::new(lie));
            }
            End::Spent => {
                undecided.get_or_insert(*key);
            }
        }
    }
    undecided.map_or(Verdict::Holds, |key| Verdict::Undecided {
        key: key.to_vec(),
    })
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds => f.write_str("holds"),
            Self::Lies(lie) => write!(f, "a lie: {lie}"),
            Self::Undecided { key } => {
                write!(
                    f,
                    "undecided: the steps were spent on key \"{}\"",
                    key.escape_ascii()
                )
            }
        }
    }
}
