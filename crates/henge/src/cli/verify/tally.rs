//! What a run has counted: what came of requests, how long answers took while which fault was going on, the course of both, and the gaps
//! in which nothing was acknowledged. All of it is bounded, however long a run is. Times are in microseconds of the run.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use henge_checker::{Found, Outcome};

use super::faults::{Happened, Kind};
use super::request::{Asked, Told};

/// What is longer counts as this long; time-outs are shorter than an hour.
const MAX_LATENCY_US: u64 = 3_600_000_000;
/// Three decimal digits, as the figures are rounded to in any case.
const DIGITS: u8 = 3;
/// The same for the points of a course, of which there are many: what a pixel can show.
const COURSE_DIGITS: u8 = 2;
/// The most points of the course of a run: what a plot can show.
const MOST_POINTS: u64 = 240;
/// The shortest time between two of them; below, chance is all that one sees.
const MIN_INTERVAL_US: u64 = 100_000;
/// Gaps of all keys that are kept: those of an hour of faults are some thousands.
const MOST_GAPS: usize = 100_000;
/// What is shorter is no gap of a key that has some dozens of requests a second.
const MIN_GAP_US: u64 = 200_000;
/// The same for all keys together.
const MIN_GAP_OF_ALL_US: u64 = 20_000;
/// Different words that nodes have for a refusal. There are some dozens.
const MOST_CODES: usize = 64;

/// The findings.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) interval: u64,
    pub(super) course: Vec<Point>,
    /// Latencies of reads and writes that were answered while this was going on; none is calm.
    pub(super) phases: BTreeMap<Option<Kind>, [Histogram<u64>; 2]>,
    pub(super) reads: Counts,
    pub(super) writes: Counts,
    /// Refusals by their codes.
    pub(super) refusals: BTreeMap<String, u64>,
    gaps: Vec<Gap>,
    /// Gaps that were not kept.
    pub(super) gaps_dropped: u64,
    /// When something was acknowledged last: of each key of a round by its number, and of all.
    last: Vec<u64>,
    last_of_all: u64,
}

/// One interval of the course.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) reads: u64,
    pub(super) writes: u64,
    /// Neither answered nor known to be done.
    pub(super) failed: u64,
    pub(super) latencies: Histogram<u64>,
}

/// What came of reads, or of writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Reads that found something; writes that were done.
    pub(super) done: u64,
    /// Misses; conditions that did not hold, and deletes of nothing.
    pub(super) nothing: u64,
    /// Refused with nothing done, or never sent. Of reads: not answered.
    pub(super) refused: u64,
    /// Writes of which nobody knows.
    pub(super) unknown: u64,
}

impl Counts {
    pub(super) fn answered(&self) -> u64 {
        self.done + self.nothing
    }
}

/// A time in which nothing was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    from: u64,
    to: u64,
    /// Of all keys, or of one.
    of_all: bool,
}

/// The longest gaps of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Longest {
    /// In which nothing at all was acknowledged.
    pub(super) of_all: u64,
    /// In which nothing on some one key was.
    pub(super) of_key: u64,
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_US, digits).expect("the bounds are far enough apart")
}

impl Tally {
    /// For a run of so long with so many keys at a time.
    pub(super) fn new(duration: Duration, keys: u64) -> Self {
        let whole = duration.as_micros() as u64;
        let interval = (whole / MOST_POINTS).max(MIN_INTERVAL_US);
        let points = whole.div_ceil(interval).max(1);
        let point = Point {
            reads: 0,
            writes: 0,
            failed: 0,
            latencies: histogram(COURSE_DIGITS),
        };
        Self {
            interval,
            course: vec![point; points as usize],
            phases: BTreeMap::new(),
            reads: Counts::default(),
            writes: Counts::default(),
            refusals: BTreeMap::new(),
            gaps: Vec::new(),
            gaps_dropped: 0,
            last: vec![0; keys as usize],
            last_of_all: 0,
        }
    }

    /// What came of a request on a key by its number, that was asked and completed at these times, the first within this phase.
    pub(super) fn record(
        &mut self,
        key: usize,
        phase: Option<Kind>,
        asked: Asked,
        (from, to): (u64, u64),
        told: &Told,
        outcome: Option<Outcome>,
    ) {
        let counts = if asked.is_read() {
            &mut self.reads
        } else {
            &mut self.writes
        };
        let answer = match outcome {
            Some(Outcome::Answered(answer)) => Some(answer),
            Some(Outcome::Unknown) => {
                counts.unknown += 1;
                None
            }
            Some(Outcome::Failed) | None => {
                counts.refused += 1;
                None
            }
        };
        // What was asked before the end and answered after it belongs to the end.
        let place = (to / self.interval).min(self.course.len() as u64 - 1) as usize;
        let point = &mut self.course[place];
        let Some(answer) = answer else {
            point.failed += 1;
            let code = match told {
                Told::Answered(reply) => reply.code(),
                Told::Unsent(_) => "no connection".to_owned(),
                Told::Silence(_) => "no answer".to_owned(),
            };
            if self.refusals.len() < MOST_CODES || self.refusals.contains_key(&code) {
                *self.refusals.entry(code).or_default() += 1;
            }
            return;
        };
        let is_done = answer.made.is_some() || (asked.is_read() && answer.found != Found::Nothing);
        if is_done {
            counts.done += 1;
        } else {
            counts.nothing += 1;
        }
        let latency = to.saturating_sub(from).max(1);
        let of_phase = self
            .phases
            .entry(phase)
            .or_insert_with(|| [histogram(DIGITS), histogram(DIGITS)]);
        of_phase[usize::from(!asked.is_read())].saturating_record(latency);
        point.latencies.saturating_record(latency);
        if asked.is_read() {
            point.reads += 1;
        } else {
            point.writes += 1;
        }
        self.acknowledged(key, to);
    }

    fn acknowledged(&mut self, key: usize, at: u64) {
        let of_key = std::mem::replace(&mut self.last[key], at);
        self.keep(of_key, at, false);
        let of_all = std::mem::replace(&mut self.last_of_all, at);
        self.keep(of_all, at, true);
    }

    fn keep(&mut self, from: u64, to: u64, of_all: bool) {
        let least = if of_all {
            MIN_GAP_OF_ALL_US
        } else {
            MIN_GAP_US
        };
        if to.saturating_sub(from) < least {
            return;
        }
        if self.gaps.len() < MOST_GAPS {
            self.gaps.push(Gap { from, to, of_all });
        } else {
            self.gaps_dropped += 1;
        }
    }

    /// Nothing more is asked.
    pub(super) fn end(&mut self, at: u64) {
        for key in 0..self.last.len() {
            self.keep(self.last[key], at, false);
        }
        self.keep(self.last_of_all, at, true);
    }

    /// The longest gaps that touch a time.
    fn longest_in(&self, mut touches: impl FnMut(&Gap) -> bool) -> Longest {
        let mut longest = Longest::default();
        for gap in self.gaps.iter().filter(|gap| touches(gap)) {
            let most = if gap.of_all {
                &mut longest.of_all
            } else {
                &mut longest.of_key
            };
            *most = (*most).max(gap.to - gap.from);
        }
        longest
    }

    /// The longest gaps that touch a fault, from its beginning until all was well again.
    pub(super) fn longest_of(&self, fault: &Happened) -> Longest {
        self.longest_in(|gap| gap.to > fault.began && gap.from < fault.until())
    }

    /// The longest gaps while all was well: what no fault explains.
    pub(super) fn longest_calm(&self, faults: &[Happened]) -> Longest {
        self.longest_in(|gap| {
            !faults
                .iter()
                .any(|fault| gap.to > fault.began && gap.from < fault.until())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_checker::Answer;

    fn tally() -> Tally {
        Tally::new(Duration::from_secs(10), 2)
    }

    fn read(tally: &mut Tally, key: usize, from: u64, to: u64) {
        let outcome = Some(Outcome::Answered(Answer::MISSING));
        let told = Told::Unsent(String::new());
        tally.record(key, None, Asked::Read, (from, to), &told, outcome);
    }

    #[test]
    fn gaps_belong_to_the_faults_that_they_touch() {
        let mut tally = tally();
        for at in (0..=1_000_000).step_by(10_000) {
            read(&mut tally, 0, at, at);
            read(&mut tally, 1, at, at);
        }
        read(&mut tally, 0, 1_400_000, 1_500_000);
        for at in (1_500_000..=4_000_000).step_by(10_000) {
            read(&mut tally, 0, at, at);
        }
        read(&mut tally, 1, 4_000_000, 4_000_000);
        tally.end(4_250_000);
        let fault = |began, whole| Happened {
            kind: Kind::Kill,
            nodes: vec![0],
            leader: None,
            how: String::new(),
            began,
            ended: began,
            whole,
        };
        let first = fault(900_000, Some(2_000_000));
        let longest = |of_all, of_key| Longest { of_all, of_key };
        assert_eq!(tally.longest_of(&first), longest(500_000, 3_000_000));
        let later = fault(4_100_000, None);
        assert_eq!(tally.longest_of(&later), longest(250_000, 250_000));
        assert_eq!(tally.longest_calm(&[first]), longest(250_000, 250_000));
        assert_eq!(tally.reads.nothing, 101 * 2 + 251 + 2);
    }

    #[test]
    fn a_course_has_a_bounded_number_of_points() {
        for seconds in [1, 30, 3600, 86_400 * 31] {
            let tally = Tally::new(Duration::from_secs(seconds), 1);
            let points = tally.course.len();
            assert!((10..=241).contains(&points), "{seconds} s: {points}");
        }
    }
}
