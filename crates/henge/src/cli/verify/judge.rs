//! The judge: a thread that checks each round when it is over, so that a run of any length needs the memory of a few rounds, and looks for
//! acknowledged writes that are gone. What it knows of the nodes is nothing: whether a loss was to be expected is said in the report.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use henge_checker::{
    Answer, Condition, Event, Found, History, Made, Operation, Outcome, Verdict, check_within,
};
use henge_wire::{Partition, Version};
use tokio::sync::mpsc;

use super::history;
use super::options::Level;
use super::reported::{LastWord, MOST_KEPT, last_word};
use crate::config::shown;

/// Steps of the checker for one key of a round: some seconds. What needs more has hundreds of unknown writes on a key, and is undecided.
const STEPS: u64 = 1_000_000;
/// Lies that are told at length. One is enough to know, and a few show what they have in common.
const MOST_LIES: usize = 5;
/// Losses that are kept for the report.
const MOST_LOSSES: usize = 100_000;
/// Rounds that may wait to be judged; the run waits with the next one until there is room.
const MOST_WAITING: usize = 2;

/// An acknowledged write that was missing later. Times are in microseconds of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) key: String,
    pub(super) partition: u16,
    /// What was written, in words.
    pub(super) what: String,
    pub(super) version: Option<u64>,
    pub(super) asked: u64,
    pub(super) acknowledged: u64,
    /// When an answer had come that shows that it is gone.
    pub(super) missed: u64,
    /// What shows it, in words.
    pub(super) shown_by: String,
}

impl Loss {
    /// It in a line.
    pub(super) fn line(&self) -> String {
        let second = |us: u64| format!("{:.3} s", us as f64 / 1e6);
        let version = self
            .version
            .map(|bits| format!(", version {}", Version::from_bits(bits)));
        format!(
            "key \"{}\": {}{}, acknowledged at {}, was gone at {}: {}",
            self.key,
            self.what,
            version.unwrap_or_default(),
            second(self.acknowledged),
            second(self.missed),
            self.shown_by
        )
    }
}

/// What was found out.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    pub(super) events: u64,
    pub(super) keys: u64,
    /// The first lies, at length.
    pub(super) lies: Vec<String>,
    pub(super) lie_count: u64,
    /// Keys where something came back that had been missing, and that nothing newer had replaced. To the checker that is a lie; a node
    /// that starts again may do it with what it had evicted.
    pub(super) returned: u64,
    /// The first of them, at length.
    pub(super) returns: Vec<String>,
    /// Keys whose steps were spent.
    pub(super) undecided: u64,
    /// At ONE: keys with answers that are older than they should be, which nobody promises they are not.
    pub(super) stale: u64,
    pub(super) losses: Vec<Loss>,
    pub(super) losses_dropped: u64,
    /// At ONE: by partitions, versions that were there when their round was over.
    pub(super) survivors: Vec<(u16, u64)>,
    /// Why the history is not in its file.
    pub(super) unwritten: Option<String>,
}

impl Findings {
    /// Judges a round. Clients with this number or a higher one have looked again when it was over.
    pub(super) fn judge(&mut self, events: Vec<Event>, level: Level, lookers_from: u64) {
        let mut keys: BTreeMap<Vec<u8>, Vec<Event>> = BTreeMap::new();
        self.events += events.len() as u64;
        for event in events {
            keys.entry(event.key.clone()).or_default().push(event);
        }
        for (key, events) in keys {
            self.keys += 1;
            self.judge_key(&key, events, level, lookers_from);
        }
    }

    fn judge_key(&mut self, key: &[u8], events: Vec<Event>, level: Level, lookers_from: u64) {
        if level == Level::One {
            if let Some(invented) = invented(&events) {
                let key = key.escape_ascii();
                self.lie(format!(
                    "key \"{key}\": nobody wrote what was answered: {invented}\n"
                ));
                return;
            }
            let LastWord { losses, survives } = last_word(key, &events, lookers_from);
            self.keep(losses);
            if self.survivors.len() < MOST_KEPT {
                let partition = Partition::of(key).number();
                self.survivors
                    .extend(survives.map(|version| (partition, version)));
            }
        } else {
            self.keep(losses(key, &events));
        }
        let mut history = History::new();
        for event in events {
            if let Err(error) = history.record(event) {
                // The clock of the run does not go back, and files are refused that have such an event.
                unreachable!("{error}");
            }
        }
        match check_within(&history, STEPS) {
            Verdict::Holds => {}
            Verdict::Undecided { .. } => self.undecided += 1,
            Verdict::Lies(_) if level == Level::One => self.stale += 1,
            Verdict::Lies(lie) if holds_without_misses(&history) => {
                self.returned += 1;
                if self.returns.len() < MOST_LIES {
                    self.returns.push(lie.to_string());
                }
            }
            Verdict::Lies(lie) => self.lie(lie.to_string()),
        }
    }

    fn keep(&mut self, losses: Vec<Loss>) {
        for loss in losses {
            if self.losses.len() < MOST_LOSSES {
                self.losses.push(loss);
            } else {
                self.losses_dropped += 1;
            }
        }
    }

    fn lie(&mut self, text: String) {
        self.lie_count += 1;
        if self.lies.len() < MOST_LIES {
            self.lies.push(text);
        }
    }
}

/// Whether a history holds if a miss says nothing of what is there afterwards. What is said to whoever removes a key counts as before: that nothing was
/// there is a promise to them.
fn holds_without_misses(history: &History) -> bool {
    let is_miss = |event: &Event| {
        let missed = event.outcome == Outcome::Answered(Answer::MISSING);
        missed && !matches!(event.operation, Operation::Delete { .. })
    };
    let mut rest = History::new();
    for event in history.events().iter().filter(|event| !is_miss(event)) {
        if let Err(error) = rest.record(event.clone()) {
            unreachable!("it was recorded once: {error}");
        }
    }
    check_within(&rest, STEPS) == Verdict::Holds
}

/// The first answer that shows what nobody had asked to be written before it came.
fn invented(events: &[Event]) -> Option<&Event> {
    let mut written: BTreeMap<i64, u64> = BTreeMap::new();
    let mut added: Vec<u64> = Vec::new();
    for event in events
        .iter()
        .filter(|event| event.outcome != Outcome::Failed)
    {
        match event.operation {
            Operation::Write { value, .. } => {
                let first = written.entry(value).or_insert(event.invoked);
                *first = event.invoked.min(*first);
            }
            Operation::Increment { .. } => added.push(event.invoked),
            Operation::Read | Operation::Delete { .. } => {}
        }
    }
    added.sort_unstable();
    events.iter().find(|event| {
        let Outcome::Answered(Answer {
            found: Found::Something {
                value: Some(value), ..
            },
            ..
        }) = event.outcome
        else {
            return false;
        };
        let is_written = written
            .get(&value)
            .is_some_and(|first| *first <= event.completed);
        // Increments are by one, and begin with nothing.
        let most = added.partition_point(|invoked| *invoked <= event.completed);
        let is_counted = value > 0 && value.cast_unsigned() <= most as u64;
        !is_written && !is_counted
    })
}

/// The version that an acknowledged write has put something under, if that was told.
pub(super) fn made_version(event: &Event) -> Option<u64> {
    let puts = matches!(
        event.operation,
        Operation::Write { .. } | Operation::Increment { .. }
    );
    match event.outcome {
        Outcome::Answered(answer) if puts => answer.made?.version,
        _ => None,
    }
}

/// When something may have been removed: from when, and at the latest.
pub(super) fn removals(events: &[Event]) -> Vec<(u64, u64)> {
    let deletes = events
        .iter()
        .filter(|event| matches!(event.operation, Operation::Delete { .. }));
    let removals = deletes.filter_map(|event| match event.outcome {
        Outcome::Unknown => Some((event.invoked, u64::MAX)),
        Outcome::Answered(answer) if answer.made.is_some() => {
            Some((event.invoked, event.completed))
        }
        _ => None,
    });
    removals.collect()
}

/// Acknowledged writes of a key that are surely gone: an answer that was asked for after one was acknowledged shows that nothing is there,
/// and no delete can have been in between. Each is told once.
fn losses(key: &[u8], events: &[Event]) -> Vec<Loss> {
    let made = |event: &Event| match event.outcome {
        Outcome::Answered(answer) => answer.made,
        _ => None,
    };
    let puts = |event: &Event| {
        matches!(
            event.operation,
            Operation::Write { .. } | Operation::Increment { .. }
        )
    };
    let mut writes: Vec<&Event> = events
        .iter()
        .filter(|event| puts(event) && made(event).is_some())
        .collect();
    writes.sort_unstable_by_key(|event| event.completed);
    let removals = removals(events);
    // Of the writes up to each, the one that was asked last: the most that can be known to be there.
    let mut latest: Vec<&Event> = Vec::with_capacity(writes.len());
    for write in &writes {
        let last = latest.last().filter(|last| last.invoked > write.invoked);
        latest.push(last.copied().unwrap_or(write));
    }
    let mut found: BTreeMap<(u64, u64, u64), Loss> = BTreeMap::new();
    for event in events.iter().filter(|event| shows_nothing(event)) {
        let count = writes.partition_point(|write| write.completed < event.invoked);
        let Some(write) = count.checked_sub(1).map(|last| latest[last]) else {
            continue;
        };
        let may_be_removed = removals
            .iter()
            .any(|(from, to)| *to >= write.invoked && *from <= event.completed);
        if may_be_removed {
            continue;
        }
        let loss = || Loss {
            key: key.escape_ascii().to_string(),
            partition: Partition::of(key).number(),
            what: write.operation.to_string(),
            version: made(write).and_then(|made: Made| made.version),
            asked: write.invoked,
            acknowledged: write.completed,
            missed: event.completed,
            shown_by: event.to_string(),
        };
        let place = (write.completed, write.invoked, write.client);
        let known = found.entry(place).or_insert_with(loss);
        if event.completed < known.missed {
            *known = loss();
        }
    }
    found.into_values().collect()
}

/// Whether an answer shows that nothing was there: it says so, or did what is done only then.
fn shows_nothing(event: &Event) -> bool {
    let Outcome::Answered(answer) = event.outcome else {
        return false;
    };
    match (event.operation, answer.made) {
        _ if answer.found == Found::Nothing => true,
        (
            Operation::Write {
                when: Condition::Absent,
                ..
            },
            Some(_),
        ) => true,
        (Operation::Increment { by }, Some(made)) => made.value == Some(by),
        _ => false,
    }
}

/// A judge at work.
#[derive(Debug)]
pub(super) struct Judge {
    rounds: mpsc::Sender<(u64, Vec<Event>)>,
    thread: JoinHandle<Findings>,
}

impl Judge {
    /// Starts it; it writes what it judges to this file, if there is one.
    pub(super) fn start(
        level: Level,
        lookers_from: u64,
        file: Option<&PathBuf>,
    ) -> Result<Self, String> {
        let out = file
            .map(|path| {
                let file = File::create(path);
                file.map(|file| (path.clone(), BufWriter::new(file)))
                    .map_err(|error| format!("{} cannot be written: {error}", shown(path)))
            })
            .transpose()?;
        let (rounds, waiting) = mpsc::channel(MOST_WAITING);
        let thread = thread::Builder::new()
            .name("verify-judge".to_owned())
            .spawn(move || work(waiting, (level, lookers_from), out))
            .map_err(|error| format!("a thread does not start: {error}"))?;
        Ok(Self { rounds, thread })
    }

    /// Where rounds are given to it.
    pub(super) fn rounds(&self) -> mpsc::Sender<(u64, Vec<Event>)> {
        self.rounds.clone()
    }

    /// What it has found, when all that was given to it is judged.
    pub(super) fn end(self) -> Result<Findings, String> {
        drop(self.rounds);
        self.thread
            .join()
            .map_err(|_| "the judge's thread panicked".to_owned())
    }
}

fn work(
    mut waiting: mpsc::Receiver<(u64, Vec<Event>)>,
    (level, lookers_from): (Level, u64),
    mut out: Option<(PathBuf, BufWriter<File>)>,
) -> Findings {
    let mut findings = Findings::default();
    while let Some((number, events)) = waiting.blocking_recv() {
        if let Some((path, file)) = &mut out
            && let Err(error) = history::write_round(file, number, &events)
        {
            findings.unwritten = Some(format!("{} cannot be written: {error}", shown(path)));
            // What is behind a gap would be no history.
            out = None;
        }
        findings.judge(events, level, lookers_from);
    }
    if let Some((path, mut file)) = out
        && let Err(error) = file.flush()
    {
        findings.unwritten = Some(format!("{} cannot be written: {error}", shown(&path)));
    }
    findings
}

/// Judges the history of a file.
pub(super) fn judge_file(path: &Path) -> Result<Findings, String> {
    let file =
        File::open(path).map_err(|error| format!("{} cannot be read: {error}", shown(path)))?;
    let mut findings = Findings::default();
    history::read_rounds(std::io::BufReader::new(file), |_, events| {
        findings.judge(events, Level::Quorum, u64::MAX);
    })
    .map_err(|error| format!("{}: {error}", shown(path)))?;
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(invoked: u64, completed: u64, operation: Operation, outcome: Outcome) -> Event {
        Event {
            client: 1,
            key: b"k".to_vec(),
            invoked,
            completed,
            operation,
            outcome,
        }
    }

    const WRITE: Operation = Operation::Write {
        value: 7,
        when: Condition::Always,
    };
    const ADD: Operation = Operation::Write {
        value: 8,
        when: Condition::Absent,
    };
    const DELETE: Operation = Operation::Delete {
        when: Condition::Always,
    };
    const DONE: Outcome = Outcome::Answered(Answer::DONE);
    const MISSING: Outcome = Outcome::Answered(Answer::MISSING);

    #[test]
    fn what_is_surely_lost() {
        let one = |number| Outcome::Answered(Answer::counted(number, None));
        let add_one = Operation::Increment { by: 1 };
        let table: [(&str, Vec<Event>, usize); 10] = [
            (
                "a miss",
                vec![
                    event(0, 1, WRITE, DONE),
                    event(2, 3, Operation::Read, MISSING),
                    event(4, 5, Operation::Read, MISSING),
                ],
                1,
            ),
            (
                "at once",
                vec![
                    event(0, 2, WRITE, DONE),
                    event(2, 3, Operation::Read, MISSING),
                ],
                0,
            ),
            (
                "not acknowledged",
                vec![
                    event(0, 1, WRITE, Outcome::Unknown),
                    event(2, 3, Operation::Read, MISSING),
                ],
                0,
            ),
            (
                "deleted",
                vec![
                    event(0, 1, WRITE, DONE),
                    event(2, 3, DELETE, DONE),
                    event(4, 5, Operation::Read, MISSING),
                ],
                0,
            ),
            (
                "perhaps deleted",
                vec![
                    event(2, 3, WRITE, DONE),
                    event(0, 1, DELETE, Outcome::Unknown),
                    event(4, 5, Operation::Read, MISSING),
                ],
                0,
            ),
            (
                "deleted before",
                vec![
                    event(0, 1, DELETE, DONE),
                    event(2, 3, WRITE, DONE),
                    event(4, 5, Operation::Read, MISSING),
                ],
                1,
            ),
            (
                "not deleted",
                vec![
                    event(0, 1, WRITE, DONE),
                    event(2, 3, DELETE, Outcome::Failed),
                    event(4, 5, Operation::Read, MISSING),
                ],
                1,
            ),
            (
                "an add that finds room",
                vec![event(0, 1, WRITE, DONE), event(2, 3, ADD, DONE)],
                1,
            ),
            (
                "a counter that begins anew",
                vec![event(0, 1, add_one, one(4)), event(2, 3, add_one, one(1))],
                1,
            ),
            (
                "a counter",
                vec![event(0, 1, add_one, one(1)), event(2, 3, add_one, one(2))],
                0,
            ),
        ];
        for (name, events, count) in table {
            let found = losses(b"k", &events);
            assert_eq!(found.len(), count, "{name}: {found:?}");
        }
        let events = [
            event(
                1,
                2_000,
                WRITE,
                Outcome::Answered(Answer::done(Some(Version::new(3, 4).to_bits()))),
            ),
            event(3_000, 5_000, Operation::Read, MISSING),
        ];
        let lines: Vec<String> = losses(b"k", &events).iter().map(Loss::line).collect();
        assert_eq!(
            lines,
            [
                "key \"k\": write 7, version 3-4, acknowledged at 0.002 s, was gone at 0.005 s: client 1: read -> unchanged, nothing was there"
            ]
        );
    }

    #[test]
    fn what_comes_back_after_a_miss_is_told_apart() {
        let found = |value| Outcome::Answered(Answer::found(value, None));
        let later = Operation::Write {
            value: 9,
            when: Condition::Always,
        };
        let read = |at, outcome| event(at, at + 1, Operation::Read, outcome);
        let first = event(0, 1, WRITE, DONE);
        for (between, counts) in [
            (vec![read(2, MISSING)], (0, 1)),
            (vec![event(2, 3, DELETE, MISSING)], (1, 0)),
            (vec![event(2, 3, DELETE, DONE)], (1, 0)),
            (vec![event(2, 3, later, DONE), read(4, MISSING)], (1, 0)),
        ] {
            let mut events = vec![first.clone()];
            events.extend(between);
            events.push(read(8, found(7)));
            let mut findings = Findings::default();
            findings.judge(events.clone(), Level::Quorum, u64::MAX);
            let found = (findings.lie_count, findings.returned);
            assert_eq!(found, counts, "{events:?}");
        }
    }

    #[test]
    fn at_one_only_what_nobody_wrote_is_a_lie() {
        let found = |value| Outcome::Answered(Answer::found(value, None));
        let later = Operation::Write {
            value: 9,
            when: Condition::Always,
        };
        let stale = vec![
            event(0, 1, WRITE, DONE),
            event(2, 3, later, DONE),
            event(4, 5, Operation::Read, found(7)),
        ];
        let mut findings = Findings::default();
        findings.judge(stale.clone(), Level::One, u64::MAX);
        assert_eq!(
            (findings.lie_count, findings.stale, findings.keys),
            (0, 1, 1)
        );
        findings.judge(stale, Level::Quorum, u64::MAX);
        assert_eq!((findings.lie_count, findings.lies.len()), (1, 1));
        let early = vec![
            event(0, 1, Operation::Read, found(7)),
            event(2, 3, WRITE, DONE),
        ];
        findings.judge(early, Level::One, u64::MAX);
        assert_eq!(findings.lie_count, 2);
    }
}
