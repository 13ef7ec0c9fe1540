//! Why a history is a lie: the fewest events that show it. Events are left out only where the rest can be a lie for no other
//! reason than the whole is, so that nobody is told that a value was never written which was.

use crate::history::{Event, Outcome};
use crate::look::{Leaves, Look, is_wall};
use crate::op::{Moment, moments};
use crate::register::Record;
use crate::search::{End, Search, held_before, told_at};
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// Events that an explanation shows. More than these nobody reads; what they came from is in the records.
const SHOWN: usize = 24;

/// How many times the steps that found a lie are spent on making it small.
const TIMES: u64 = 20;

/// Steps that are spent on making a lie small in any case: those of some thousand small histories.
const AT_LEAST: u64 = 200_000;

/// An answer that no register can have given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lie {
    /// The key.
    pub key: Vec<u8>,
    /// The event that has no place in any order that all others before it leave.
    pub event: Event,
    /// What the key can have held when it would have had to be there, in any of these orders. It can have held nothing as well.
    pub records: Vec<Record>,
    /// The events that show it, in order of the times at which they were asked; the event itself is among them.
    pub window: Vec<Event>,
    /// How many events before these matter, which are left out because they are many. What they came to is in `records`.
    pub left_out: usize,
}

impl Lie {
    /// Of these events of one key. A search found it after so many moments, in so many steps.
    pub(crate) fn explain(key: &[u8], events: &[&Event], stuck: usize, steps: u64) -> Self {
        let steps = (steps * TIMES).max(AT_LEAST);
        let events = told(events, stuck, steps);
        let mut smaller = Smaller {
            kept: (0..events.len()).collect(),
            events,
            left: steps,
        };
        smaller.run();
        let events: Vec<&Event> = smaller.kept.iter().map(|&p| smaller.events[p]).collect();
        let mut window = told(&events, 0, steps);
        let moments = moments(&window);
        let end = told_at(&window, &moments, 0, &mut steps.clone()).unwrap_or(moments.len());
        let (Moment::Call(last) | Moment::Return(last)) = moments[end - 1];
        let event = window[last].clone();
        let records = held_before(&window, &moments[..end], steps);
        window.sort_by_key(|event| (event.invoked, event.completed, event.client));
        let left_out = window.len().saturating_sub(SHOWN);
        window.drain(..left_out);
        Self {
            key: key.to_vec(),
            event,
            records: records.into_iter().collect(),
            window: window.into_iter().cloned().collect(),
            left_out,
        }
    }
}

/// Those that were asked before the lie was told; all, if the steps do not suffice to find out when. It was told no sooner than
/// at this moment.
fn told<'a>(events: &[&'a Event], stuck: usize, mut steps: u64) -> Vec<&'a Event> {
    let moments = moments(events);
    let end = told_at(events, &moments, stuck, &mut steps).unwrap_or(moments.len());
    let mut told = Vec::new();
    for moment in &moments[..end] {
        if let Moment::Call(place) = *moment {
            told.push(events[place]);
        }
    }
    told
}

/// A lie that is made smaller.
struct Smaller<'a> {
    /// All, in order of their calls.
    events: Vec<&'a Event>,
    /// The places of those that are kept.
    kept: Vec<usize>,
    /// Steps that may still be spent.
    left: u64,
}

impl Smaller<'_> {
    fn run(&mut self) {
        loop {
            let count = self.kept.len();
            self.drop_values();
            self.drop_single();
            if self.left == 0 || self.kept.len() == count {
                break;
            }
        }
    }

    /// Drops values, with all that write them, find them or name them.
    fn drop_values(&mut self) {
        let mut values: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for &place in &self.kept {
            let event = self.events[place];
            let made = match Leaves::of(event) {
                Leaves::Value(value) => Some(value),
                Leaves::Nothing | Leaves::Any => None,
            };
            for value in Look::of(event).named.into_iter().chain([made]).flatten() {
                values.entry(value).or_default().push(place);
            }
        }
        self.drop_units(values.into_values().collect());
    }

    /// Drops single events.
    fn drop_single(&mut self) {
        self.drop_units(self.kept.iter().map(|&place| vec![place]).collect());
    }

    /// Drops halves of the units, then quarters, and so on, where what is left is still a lie.
    fn drop_units(&mut self, mut units: Vec<Vec<usize>>) {
        let mut size = units.len().div_ceil(2);
        while size > 0 && self.left > 0 {
            let mut from = 0;
            while from < units.len() && self.left > 0 {
                let to = (from + size).min(units.len());
                if self.drops(&units[from..to]) {
                    units.drain(from..to);
                } else {
                    from = to;
                }
            }
            size /= 2;
        }
    }

    /// Drops these, if it may and what is left is still a lie.
    fn drops(&mut self, units: &[Vec<usize>]) -> bool {
        let mut gone = vec![false; self.events.len()];
        for &place in units.iter().flatten() {
            gone[place] = true;
        }
        let events = |places: &[usize]| places.iter().map(|&p| self.events[p]).collect();
        let (dropped, kept): (Vec<usize>, Vec<usize>) = self.kept.iter().partition(|&&p| gone[p]);
        let (dropped, rest): (Vec<&Event>, Vec<&Event>) = (events(&dropped), events(&kept));
        self.left = self.left.saturating_sub(1 + self.kept.len() as u64 / 8);
        if !may_go(&dropped, &rest) {
            return false;
        }
        let moments = moments(&rest);
        let mut search = Search::new(&rest, &moments, self.left);
        let lies = search.run() == End::Lies;
        self.left = self.left.saturating_sub(search.steps());
        if lies {
            self.kept = kept;
        }
        lies
    }
}

/// Whether an order of all gives an order of those that are kept: wherever one is dropped, the register forgets. So it is if
/// nobody who is kept looks at what the dropped ones made. Then those that are kept are a lie only if all are.
fn may_go(dropped: &[&Event], kept: &[&Event]) -> bool {
    let mut named: HashSet<i64> = HashSet::new();
    let mut lookers: Vec<&Event> = Vec::new();
    let looks: Vec<Look> = kept.iter().map(|event| Look::of(event)).collect();
    for (event, look) in kept.iter().zip(&looks) {
        named.extend(look.named.into_iter().flatten());
        if look.any {
            lookers.push(event);
        }
    }
    // Each with when it was asked; what was completed before the latest wall before a looker is not seen by it.
    let mut walls: Vec<(u64, u64)> = kept
        .iter()
        .filter(|event| is_wall(event))
        .map(|event| (event.completed, event.invoked))
        .collect();
    walls.sort_unstable();
    let mut latest = 0;
    for (_, invoked) in &mut walls {
        latest = latest.max(*invoked);
        *invoked = latest;
    }
    let wall_before = |looker: &Event| {
        let count = walls.partition_point(|&(completed, _)| completed < looker.invoked);
        count.checked_sub(1).map(|last| walls[last].1)
    };
    // A looker who takes anything sees what is between its wall and its completion.
    let sights: Vec<(Option<u64>, u64)> = lookers
        .iter()
        .map(|looker| (wall_before(looker), looker.completed_or_never()))
        .collect();
    dropped.iter().all(|event| {
        match Leaves::of(event) {
            Leaves::Nothing => return true,
            Leaves::Value(value) if named.contains(&value) => return false,
            Leaves::Any if !named.is_empty() => return false,
            Leaves::Value(_) | Leaves::Any => {}
        }
        sights.iter().all(|&(wall, until)| {
            event.invoked > until || wall.is_some_and(|wall| event.completed_or_never() < wall)
        })
    })
}

impl Event {
    /// When it can no longer be done.
    fn completed_or_never(&self) -> u64 {
        match self.outcome {
            Outcome::Unknown => u64::MAX,
            Outcome::Answered(_) | Outcome::Failed => self.completed,
        }
    }
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.escape_ascii();
        writeln!(
            f,
            "key \"{key}\": this answer has no place in any order: {}",
            self.event
        )?;
        f.write_str("the key held ")?;
        for record in &self.records {
            write!(f, "{record}, or ")?;
        }
        writeln!(f, "nothing; what shows it, by the time of the request:")?;
        if self.left_out > 0 {
            writeln!(
                f,
                "    ({} events before these are left out)",
                self.left_out
            )?;
        }
        for event in &self.window {
            let mark = if *event == self.event { "->" } else { "  " };
            match event.outcome {
                Outcome::Unknown => writeln!(f, " {mark} [{}, ...] {event}", event.invoked)?,
                Outcome::Answered(_) | Outcome::Failed => {
                    writeln!(
                        f,
                        " {mark} [{}, {}] {event}",
                        event.invoked, event.completed
                    )?;
                }
            }
        }
        Ok(())
    }
}
