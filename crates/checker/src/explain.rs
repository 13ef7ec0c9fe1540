//! Why a history is a lie: the fewest events that show it. Events are left out only where the rest can be a lie for no other
//! reason than the whole is, so that nobody is told that a value was never written which was.

use crate::history::{Event, Outcome};
use crate::look::{Leaves, Look, is_wall};
use crate::op::{Moment, moments};
use crate::register::Record;
use crate::search::{End, Search, held_before, told_at};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Events that an explanation shows. More than these nobody reads; what they came from is in the records.
const SHOWN: usize = 24;

/// Records that an explanation names.
const NAMED: usize = 8;

/// How many times the steps and the events in which a lie was found are spent on making it small: in halves it takes few, and
/// the rest is not worth the wait.
const TIMES: u64 = 8;

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
    /// Of these events of one key, which are a lie. A search of them took so many steps, of so many that it had.
    pub(crate) fn explain(key: &[u8], events: &[&Event], steps: u64, budget: u64) -> Self {
        let left = (steps + events.len() as u64) * TIMES + AT_LEAST;
        let mut smaller = Smaller {
            events: events.to_vec(),
            kept: (0..events.len()).collect(),
            left,
        };
        smaller.run();
        let events: Vec<&Event> = smaller.kept.iter().map(|&p| events[p]).collect();
        let moments = moments(&events);
        let end = told_at(&events, &moments, budget);
        let (Moment::Call(last) | Moment::Return(last)) = moments[end - 1];
        let records = held_before(&events, &moments[..end], budget);
        let mut window: Vec<&Event> = Vec::new();
        for moment in &moments[..end] {
            if let Moment::Call(place) = *moment {
                window.push(events[place]);
            }
        }
        let left_out = window.len().saturating_sub(SHOWN);
        let event = events[last];
        let is_shown = |&(place, shown): &(usize, &Event)| place >= left_out || shown == event;
        let shown = window.into_iter().enumerate().filter(is_shown);
        Self {
            key: key.to_vec(),
            event: event.clone(),
            records: records.into_iter().collect(),
            window: shown.map(|(_, event)| event.clone()).collect(),
            left_out,
        }
    }
}

/// A lie that is made smaller.
struct Smaller<'a> {
    /// All, in any order.
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
        self.left = self.left.saturating_sub(1 + self.kept.len() as u64);
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
/// nobody who is kept can have looked at what the dropped ones made. Then those that are kept are a lie only if all are. And
/// who is kept and names a value keeps one who made it, if there was any: a lie is no less of one without, but it is told
/// as if the value came from nowhere.
fn may_go(dropped: &[&Event], kept: &[&Event]) -> bool {
    let sights = Sights::of(kept);
    let mut made: HashMap<i64, u64> = HashMap::new();
    for event in kept {
        if let Leaves::Value(value) = Leaves::of(event) {
            let first = made.entry(value).or_insert(event.invoked);
            *first = event.invoked.min(*first);
        }
    }
    dropped.iter().all(|event| match Leaves::of(event) {
        Leaves::Nothing => true,
        Leaves::Any => sights
            .all
            .iter()
            .chain(&sights.of_any)
            .all(|sight| !sight.shows(event)),
        Leaves::Value(value) => {
            let named = sights.of_value.get(&value);
            let named = named.into_iter().flatten();
            let is_told = |sight: &Sight| {
                let first = made.get(&value);
                event.invoked > sight.until || first.is_some_and(|&first| first <= sight.until)
            };
            named
                .clone()
                .all(|sight| !sight.shows(event) && is_told(sight))
                && sights.of_any.iter().all(|sight| !sight.shows(event))
        }
    })
}

/// The time in which something must have been made for an event to look at it.
#[derive(Clone, Copy)]
struct Sight {
    /// What was over before this is gone.
    wall: Option<u64>,
    /// When it was completed itself.
    until: u64,
}

impl Sight {
    fn shows(&self, event: &Event) -> bool {
        let gone = self
            .wall
            .is_some_and(|wall| event.completed_or_never() < wall);
        event.invoked <= self.until && !gone
    }
}

/// What some events can have looked at.
#[derive(Default)]
struct Sights {
    /// Of those who take any value.
    of_any: Vec<Sight>,
    /// Of those who name a value.
    of_value: HashMap<i64, Vec<Sight>>,
    /// Of all who name one.
    all: Vec<Sight>,
}

impl Sights {
    fn of(events: &[&Event]) -> Self {
        // By when they were completed, each with the latest time at which one of those so far was asked.
        let walls = events.iter().filter(|event| is_wall(event));
        let mut walls: Vec<(u64, u64)> = walls.map(|e| (e.completed, e.invoked)).collect();
        walls.sort_unstable();
        let mut latest = 0;
        for (_, invoked) in &mut walls {
            latest = latest.max(*invoked);
            *invoked = latest;
        }
        let mut sights = Self::default();
        for event in events {
            let count = walls.partition_point(|&(completed, _)| completed < event.invoked);
            let sight = Sight {
                wall: count.checked_sub(1).map(|last| walls[last].1),
                until: event.completed_or_never(),
            };
            let look = Look::of(event);
            if look.any || look.sums {
                sights.of_any.push(sight);
            }
            for value in look.named.into_iter().flatten() {
                sights.of_value.entry(value).or_default().push(sight);
                sights.all.push(sight);
            }
        }
        sights
    }
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
        for record in self.records.iter().take(NAMED) {
            write!(f, "{record}, or ")?;
        }
        if let Some(others) = self.records.len().checked_sub(NAMED + 1) {
            write!(f, "one of {} others, or ", others + 1)?;
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
