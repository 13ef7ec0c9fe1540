//! Histories as text, so that a table can hold them. Events of one key stand behind each other with a semicolon between: from
//! and to when, the operation, and what was answered.
//!
//! | operation | |
//! |---|---|
//! | `get`, `set 1`, `add 1`, `replace 1`, `del`, `incr`, `incr 5` | a read; writes always, if absent, if present; a delete; increments |
//! | `cas 1 2`, `casv 7 2`, `delv 7` | a write if the value is 1, if the version is 7; a delete if the version is 7 |
//!
//! | answer | |
//! |---|---|
//! | `?`, `!` | unknown, failed |
//! | `-`, `there`, `no`, `is 1`, `is 1@7` | unchanged: nothing, something, who knows what, or this was there, with version 7 |
//! | `ok`, `ok@7`, `=5`, `=5@7` | done, under version 7; a counter's number |
//! | `was -`, `was there`, `was 1@7` | behind one of these: what was there before |

use henge_checker::{Answer, Condition, Event, Found, History, Made, Operation, Outcome};

/// The history that a text tells of.
pub(crate) fn history(text: &str) -> History {
    let mut history = History::new();
    for (client, line) in (1..).zip(text.split(';')) {
        let event = event(client, line).unwrap_or_else(|| panic!("{line:?} is no event"));
        history.record(event).expect("it ends after it began");
    }
    history
}

fn event(client: u64, line: &str) -> Option<Event> {
    let mut words = line.split_whitespace().peekable();
    let (invoked, completed) = words.next()?.split_once('-')?;
    let number = |words: &mut dyn Iterator<Item = &str>| words.next()?.parse().ok();
    let write = |value, when| Operation::Write { value, when };
    let operation = match words.next()? {
        "get" => Operation::Read,
        "set" => write(number(&mut words)?, Condition::Always),
        "add" => write(number(&mut words)?, Condition::Absent),
        "replace" => write(number(&mut words)?, Condition::Present),
        "cas" => {
            let expected = number(&mut words)?;
            write(number(&mut words)?, Condition::Value(expected))
        }
        "casv" => {
            let expected = number(&mut words)?.cast_unsigned();
            write(number(&mut words)?, Condition::Version(expected))
        }
        "del" => Operation::Delete {
            when: Condition::Always,
        },
        "delv" => Operation::Delete {
            when: Condition::Version(number(&mut words)?.cast_unsigned()),
        },
        "incr" => {
            let by: Option<i64> = words.peek().and_then(|word| word.parse().ok());
            if by.is_some() {
                words.next();
            }
            Operation::Increment {
                by: by.unwrap_or(1),
            }
        }
        _ => return None,
    };
    let outcome = match words.next()? {
        "?" => Outcome::Unknown,
        "!" => Outcome::Failed,
        "-" => Outcome::Answered(Answer::MISSING),
        "there" => Outcome::Answered(Answer::THERE),
        "no" => Outcome::Answered(Answer::REFUSED),
        "is" => Outcome::Answered(Answer::REFUSED.over(found(words.next()?)?)),
        done => {
            let made = if let Some(number) = done.strip_prefix('=') {
                let (value, version) = versioned(number)?;
                Made { value, version }
            } else {
                let version = versioned(done.strip_prefix("ok")?)?.1;
                Made {
                    value: None,
                    version,
                }
            };
            let found = match words.next() {
                None => Found::Unsaid,
                Some("was") => found(words.next()?)?,
                Some(_) => return None,
            };
            let made = Some(made);
            Outcome::Answered(Answer { found, made })
        }
    };
    words.next().is_none().then_some(Event {
        client,
        key: b"k".to_vec(),
        invoked: invoked.parse().ok()?,
        completed: completed.parse().ok()?,
        operation,
        outcome,
    })
}

fn found(word: &str) -> Option<Found> {
    Some(match word {
        "-" => Found::Nothing,
        "there" => Found::Something {
            value: None,
            version: None,
        },
        word => {
            let (value, version) = versioned(word)?;
            Found::Something { value, version }
        }
    })
}

/// `1`, `1@7` or `@7`, or neither.
fn versioned(word: &str) -> Option<(Option<i64>, Option<u64>)> {
    let (value, version) = match word.split_once('@') {
        Some((value, version)) => (value, Some(version.parse().ok()?)),
        None => (word, None),
    };
    let value = match value {
        "" => None,
        value => Some(value.parse().ok()?),
    };
    Some((value, version))
}
