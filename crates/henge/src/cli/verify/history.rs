//! A history in a file: a line of JSON for each event, and one where a round ends, whose keys do not come again. So a file of any length
//! can be checked round by round.

use std::fmt;
use std::io::{self, BufRead, Write};

use henge_checker::{Answer, Condition, Event, Found, Made, Operation, Outcome};
use henge_wire::Version;
use serde::{Deserialize, Serialize};

/// The longest line: a key of 64 KiB, each byte of it escaped, and some.
const MAX_LINE_BYTES: u64 = 1 << 19;

/// An event, as a line has it. Times are in any unit that all clients share.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    client: u64,
    key: String,
    invoked: u64,
    completed: u64,
    #[serde(rename = "do")]
    verb: Verb,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<i64>,
    #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
    presence: Option<Presence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_value: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_version: Option<String>,
    outcome: Word,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<Before>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found_value: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    made_value: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    made_version: Option<String>,
}

/// What was asked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verb {
    Read,
    Write,
    Delete,
    Add,
}

/// A condition that names no value and no version.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Presence {
    Absent,
    Present,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Done,
    Unchanged,
    Failed,
    Unknown,
}

/// What was there before.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Before {
    Nothing,
    Something,
}

/// The end of a round.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoundLine {
    round: u64,
}

fn text_of(version: Option<u64>) -> Option<String> {
    version.map(|bits| Version::from_bits(bits).to_string())
}

fn version_of(text: Option<&str>) -> Result<Option<u64>, String> {
    let parsed = text.map(|text| {
        let version: Result<Version, _> = text.parse();
        version.map_err(|_| format!("found the version {text:?}, expected term-seq"))
    });
    Ok(parsed.transpose()?.map(Version::to_bits))
}

impl From<&Event> for Line {
    fn from(event: &Event) -> Self {
        let (verb, value, when) = match event.operation {
            Operation::Read => (Verb::Read, None, Condition::Always),
            Operation::Write { value, when } => (Verb::Write, Some(value), when),
            Operation::Delete { when } => (Verb::Delete, None, when),
            Operation::Increment { by } => (Verb::Add, Some(by), Condition::Always),
        };
        let answer = match event.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Failed | Outcome::Unknown => None,
        };
        let (found, found_value, found_version) = match answer.map(|answer| answer.found) {
            None | Some(Found::Unsaid) => (None, None, None),
            Some(Found::Nothing) => (Some(Before::Nothing), None, None),
            Some(Found::Something { value, version }) => (Some(Before::Something), value, version),
        };
        let made = answer.and_then(|answer| answer.made);
        Self {
            client: event.client,
            key: String::from_utf8_lossy(&event.key).into_owned(),
            invoked: event.invoked,
            completed: event.completed,
            verb,
            value,
            presence: match when {
                Condition::Absent => Some(Presence::Absent),
                Condition::Present => Some(Presence::Present),
                _ => None,
            },
            if_value: match when {
                Condition::Value(value) => Some(value),
                _ => None,
            },
            if_version: match when {
                Condition::Version(version) => text_of(Some(version)),
                _ => None,
            },
            outcome: match event.outcome {
                Outcome::Failed => Word::Failed,
                Outcome::Unknown => Word::Unknown,
                Outcome::Answered(_) if made.is_some() => Word::Done,
                Outcome::Answered(_) => Word::Unchanged,
            },
            found,
            found_value,
            found_version: text_of(found_version),
            made_value: made.and_then(|made| made.value),
            made_version: text_of(made.and_then(|made| made.version)),
        }
    }
}

impl TryFrom<Line> for Event {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        let if_version = version_of(line.if_version.as_deref())?;
        let when = match (line.presence, line.if_value, if_version) {
            (None, None, None) => Condition::Always,
            (Some(Presence::Absent), None, None) => Condition::Absent,
            (Some(Presence::Present), None, None) => Condition::Present,
            (None, Some(value), None) => Condition::Value(value),
            (None, None, Some(version)) => Condition::Version(version),
            _ => return Err("it has several conditions, expected one".to_owned()),
        };
        let value = || line.value.ok_or_else(|| "it has no value".to_owned());
        let operation = match line.verb {
            Verb::Read => Operation::Read,
            Verb::Write => Operation::Write {
                value: value()?,
                when,
            },
            Verb::Delete => Operation::Delete { when },
            Verb::Add => Operation::Increment { by: value()? },
        };
        let found = match line.found {
            None => Found::Unsaid,
            Some(Before::Nothing) => Found::Nothing,
            Some(Before::Something) => Found::Something {
                value: line.found_value,
                version: version_of(line.found_version.as_deref())?,
            },
        };
        let made = Made {
            value: line.made_value,
            version: version_of(line.made_version.as_deref())?,
        };
        let answered = |made| Outcome::Answered(Answer { found, made });
        let outcome = match line.outcome {
            Word::Failed => Outcome::Failed,
            Word::Unknown => Outcome::Unknown,
            Word::Done => answered(Some(made)),
            Word::Unchanged => answered(None),
        };
        if line.completed < line.invoked {
            return Err(format!(
                "it is completed at {}, before it was asked, at {}",
                line.completed, line.invoked
            ));
        }
        Ok(Self {
            client: line.client,
            key: line.key.into_bytes(),
            invoked: line.invoked,
            completed: line.completed,
            operation,
            outcome,
        })
    }
}

/// Writes the events of a round, and its end.
pub(super) fn write_round(out: &mut impl Write, number: u64, events: &[Event]) -> io::Result<()> {
    for event in events {
        serde_json::to_writer(&mut *out, &Line::from(event))?;
        out.write_all(b"\n")?;
    }
    serde_json::to_writer(&mut *out, &RoundLine { round: number })?;
    out.write_all(b"\n")
}

/// A file that is no history.
#[derive(Debug)]
pub(super) struct HistoryError {
    line: u64,
    why: String,
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

/// Reads a history, and gives its rounds away one after the other, each with its number.
pub(super) fn read_rounds(
    mut input: impl BufRead,
    mut take: impl FnMut(u64, Vec<Event>),
) -> Result<(), HistoryError> {
    let (mut events, mut number, mut last) = (Vec::new(), 0, 0);
    let mut text = String::new();
    loop {
        text.clear();
        number += 1;
        let at = |why: String| HistoryError { line: number, why };
        let length = read_line(&mut input, &mut text).map_err(|error| at(error.to_string()))?;
        if length == 0 {
            break;
        }
        if text.trim().is_empty() {
            continue;
        }
        if let Ok(RoundLine { round }) = serde_json::from_str(&text) {
            last = round;
            take(round, std::mem::take(&mut events));
            continue;
        }
        let line: Line = serde_json::from_str(&text).map_err(|error| at(error.to_string()))?;
        events.push(Event::try_from(line).map_err(at)?);
    }
    if !events.is_empty() {
        take(last + 1, events);
    }
    Ok(())
}

/// A line, up to the longest that there may be.
fn read_line(input: &mut impl BufRead, text: &mut String) -> io::Result<usize> {
    let length = io::Read::take(input, MAX_LINE_BYTES).read_line(text)?;
    if length as u64 == MAX_LINE_BYTES {
        return Err(io::Error::other(format!(
            "it is longer than {MAX_LINE_BYTES} bytes"
        )));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let conditions = [
            Condition::Always,
            Condition::Absent,
            Condition::Present,
            Condition::Value(-3),
            Condition::Version(Version::new(4, 5).to_bits()),
        ];
        let there = Found::Something {
            value: Some(i64::MIN),
            version: Some(Version::new(1, 2).to_bits()),
        };
        let answers = [
            Answer::MISSING,
            Answer::THERE,
            Answer::REFUSED,
            Answer::DONE,
            Answer::counted(7, Some(Version::new(6, 7).to_bits())).over(there),
        ];
        let mut outcomes = vec![Outcome::Failed, Outcome::Unknown];
        outcomes.extend(answers.map(Outcome::Answered));
        let mut operations = vec![Operation::Read, Operation::Increment { by: -1 }];
        for when in conditions {
            operations.push(Operation::Delete { when });
            operations.push(Operation::Write { value: 9, when });
        }
        let mut events = Vec::new();
        for operation in operations {
            for outcome in &outcomes {
                events.push(Event {
                    client: 3,
                    key: b"k\"{}".to_vec(),
                    invoked: 10,
                    completed: 11,
                    operation,
                    outcome: *outcome,
                });
            }
        }
        let mut file = Vec::new();
        write_round(&mut file, 5, &events).expect("memory takes all");
        write_round(&mut file, 6, &events[..1]).expect("memory takes all");
        let mut rounds = Vec::new();
        read_rounds(&*file, |number, events| rounds.push((number, events))).expect("it is one");
        assert_eq!(rounds, [(5, events.clone()), (6, vec![events[0].clone()])]);
        // Without an end it is one all the same.
        let text = String::from_utf8(file).expect("JSON");
        let first = text.lines().next().expect("a line");
        let mut rounds = Vec::new();
        read_rounds(first.as_bytes(), |number, events| {
            rounds.push((number, events.len()));
        })
        .expect("it is one");
        assert_eq!(rounds, [(1, 1)]);
    }

    #[test]
    fn what_is_no_history_is_told_by_its_line() {
        let good = r#"{"client":1,"key":"k","invoked":1,"completed":2,"do":"read","outcome":"unchanged","found":"nothing"}"#;
        let event = |rest: &str| {
            format!("{{\"client\":1,\"key\":\"k\",\"invoked\":3,\"completed\":4,{rest}}}")
        };
        for (line, part) in [
            ("nonsense".to_owned(), "line 2: expected"),
            (
                "{\"client\":1,\"kye\":2}".to_owned(),
                "line 2: unknown field `kye`",
            ),
            (
                event(r#""do":"reed","outcome":"done""#),
                "unknown variant `reed`, expected one of `read`",
            ),
            (event(r#""do":"write","outcome":"done""#), "it has no value"),
            (
                event(r#""do":"read","outcome":"maybe""#),
                "unknown variant `maybe`",
            ),
            (event(r#""do":"read""#), "missing field `outcome`"),
            (
                event(r#""do":"delete","outcome":"done","if_version":"x""#),
                "expected term-seq",
            ),
            (
                event(r#""do":"delete","outcome":"done","if":"absent","if_value":3"#),
                "several conditions",
            ),
            (good.replace(":2,", ":0,"), "before it was asked, at 1"),
        ] {
            let file = format!("{good}\n{line}\n");
            let error = read_rounds(file.as_bytes(), |_, _| ()).expect_err(&line);
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }
}
