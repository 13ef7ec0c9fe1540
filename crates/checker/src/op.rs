//! What a search asks of an event over and over, found out once: when it is under way, which others are its like, and up to when
//! it can matter to anybody. It depends on all events of the key, those that are still to come among them.

use crate::history::{Condition, Event, Found, Operation, Outcome};
use crate::look::{Leaves, Look, condition, needs};
use crate::reach::Reach;
use crate::register::{Record, Register};
use std::collections::HashMap;

/// The moment of a return that never comes.
pub(crate) const NEVER: u32 = u32::MAX;

/// A call or a return, of the event at this place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    Call(usize),
    Return(usize),
}

/// Calls and returns in order of time, of events that did not fail. At one time the calls come first: what touches counts as
/// concurrent, so that no lie is claimed where the clock cannot tell.
pub(crate) fn moments(events: &[&Event]) -> Vec<Moment> {
    let mut moments = Vec::with_capacity(2 * events.len());
    for (place, event) in events.iter().enumerate() {
        moments.push((event.invoked, false, place));
        if event.answer().is_some() {
            moments.push((event.completed, true, place));
        }
    }
    moments.sort_unstable();
    let moments = moments.into_iter();
    let moments = moments.map(|(_, returns, place)| {
        if returns {
            Moment::Return(place)
        } else {
            Moment::Call(place)
        }
    });
    moments.collect()
}

/// An event in a search.
pub(crate) struct Op<'a> {
    pub(crate) event: &'a Event,
    /// The moment of its call; `NEVER` if the moments do not reach to it.
    pub(crate) called: u32,
    /// The moment of its return. `NEVER` if there is none, and then it may be left out.
    pub(crate) returned: u32,
    /// Possible on an empty register, answered, without a version.
    pub(crate) loose: bool,
    /// It was answered, and changed nothing.
    pub(crate) looks: bool,
    /// Something comes of it on a register that holds something which does not on an empty one.
    pub(crate) follows: bool,
    /// The versions that it was told: of what it found, of what it made.
    pub(crate) versions: (Option<u64>, Option<u64>),
    /// The number of the value that it must find, if it must find one.
    pub(crate) needs: Option<u32>,
    /// The numbers of the values that make a difference to it.
    pub(crate) names: [Option<u32>; 2],
    /// The number of the value that it leaves, if it leaves one that is known.
    pub(crate) leaves: Option<u32>,
    /// Events with the same operation and the same outcome have the same number, if there are any.
    pub(crate) twins: Option<u32>,
    /// The number of its operation, if both an answered event and an unknown one have that.
    pub(crate) doubles: Option<u32>,
    /// If it may be left out: the last moment at which its value can be told from others that nobody names.
    pub(crate) named_until: u32,
    /// If it may be left out: the last moment at which anybody may look at what it made.
    pub(crate) of_use_until: u32,
}

impl<'a> Op<'a> {
    fn new(event: &'a Event) -> Self {
        let versions = event.versions();
        let answer = event.answer();
        let on_empty = answer.is_some() && Register::default().after(event).is_some();
        let follows = match answer {
            Some(answer) => {
                // A refusal that does not say what was there leaves it there, if there was something else than was asked for.
                let may_keep = answer.made.is_none() && answer.found == Found::Unsaid;
                !on_empty || may_keep || Look::of(event).sums
            }
            None => match condition(event.operation) {
                Some(when) => !matches!(when, Condition::Always | Condition::Absent),
                None => Look::of(event).sums,
            },
        };
        Self {
            event,
            called: NEVER,
            returned: NEVER,
            loose: on_empty && versions == (None, None),
            looks: answer.is_some_and(|answer| answer.made.is_none()),
            follows,
            versions,
            needs: None,
            names: [None; 2],
            leaves: None,
            twins: None,
            doubles: None,
            named_until: NEVER,
            of_use_until: NEVER,
        }
    }

    /// Whether it may be left out: nobody was told that it is done.
    pub(crate) fn optional(&self) -> bool {
        self.returned == NEVER
    }

    /// Whether it takes any value for an answer.
    fn takes_any(&self) -> bool {
        let look = Look::of(self.event);
        look.any || look.sums
    }

    /// Whether it can have no place any more where this version was.
    pub(crate) fn too_late(&self, floor: Option<u64>) -> bool {
        let (found, made) = self.versions;
        found.is_some_and(|found| floor > Some(found))
            || made.is_some_and(|made| floor >= Some(made))
    }
}

/// All events of a search.
pub(crate) struct Ops<'a> {
    pub(crate) all: Vec<Op<'a>>,
    /// Versions were told, so that an event can be too late.
    pub(crate) versioned: bool,
    /// Of each value by its number, how many of those that return must find it and have not returned.
    pub(crate) needed: Vec<u32>,
    /// Of each value by its number, how many may leave it and have not returned.
    pub(crate) made: Vec<u32>,
    /// Of each value by its number, to how many who have not returned it makes a difference.
    pub(crate) named: Vec<u32>,
    /// How many who have not returned take any value for an answer.
    pub(crate) takers: u32,
    /// A value that stands for all which nobody names.
    pub(crate) nameless: Option<i64>,
    /// Nobody asks for a version, and nobody was told that something else than a value is there without being told what:
    /// then more is allowed where more is there.
    pub(crate) plain: bool,
    /// The numbers of the values.
    pub(crate) values: HashMap<i64, u32>,
    /// What is added, all in all, without the sum being told.
    pub(crate) reach: Reach,
}

impl<'a> Ops<'a> {
    /// Of these events, in so far as these moments go: what returns later is not known to return.
    pub(crate) fn new(events: &[&'a Event], moments: &[Moment]) -> Self {
        let mut ops: Vec<Op> = events.iter().map(|event| Op::new(event)).collect();
        for (at, moment) in (0..).zip(moments) {
            match *moment {
                Moment::Call(place) => ops[place].called = at,
                Moment::Return(place) => ops[place].returned = at,
            }
        }
        let mut this = Self {
            versioned: ops.iter().any(|op| op.versions != (None, None)),
            reach: reach(&ops),
            all: ops,
            needed: Vec::new(),
            made: Vec::new(),
            named: Vec::new(),
            takers: 0,
            nameless: None,
            plain: false,
            values: HashMap::new(),
        };
        this.plain = !this.versioned && !this.all.iter().any(|op| is_particular(op.event));
        this.find_twins();
        this.find_use();
        this.find_values();
        this
    }

    /// Which events are the same to a register.
    fn find_twins(&mut self) {
        let mut outcomes: HashMap<(Operation, Outcome), (u32, u32)> = HashMap::new();
        let mut operations: HashMap<Operation, (u32, [bool; 2])> = HashMap::new();
        for (number, op) in (0..).zip(&self.all) {
            let (operation, outcome) = (op.event.operation, op.event.outcome);
            outcomes
                .entry((operation, outcome))
                .or_insert((number, 0))
                .1 += 1;
            let (_, kinds) = operations.entry(operation).or_insert((number, [false; 2]));
            kinds[usize::from(outcome == Outcome::Unknown)] = true;
        }
        for op in &mut self.all {
            let (number, count) = outcomes[&(op.event.operation, op.event.outcome)];
            op.twins = (count > 1).then_some(number);
            let (number, kinds) = operations[&op.event.operation];
            op.doubles = (kinds == [true; 2]).then_some(number);
        }
    }

    /// Up to when those that may be left out are of use to anybody. A read or a delete never is: the one changes nothing, the
    /// other only what forgetting does as well.
    fn find_use(&mut self) {
        // Until when each value is named, and until when anybody looks who takes any value.
        let mut named: HashMap<i64, u32> = HashMap::new();
        let mut any = 0;
        for op in self.all.iter().filter(|op| op.called != NEVER) {
            let look = Look::of(op.event);
            for value in look.named.into_iter().flatten() {
                let until = named.entry(value).or_default();
                *until = (*until).max(op.returned);
            }
            if look.any || (look.sums && !op.optional()) {
                any = any.max(op.returned);
            }
        }
        for op in self.all.iter_mut().filter(|op| op.optional()) {
            (op.named_until, op.of_use_until) = match Leaves::of(op.event) {
                Leaves::Nothing => (0, 0),
                Leaves::Value(value) => {
                    // What is added to it can be looked at in turn.
                    let until = self.reach.results(value).map_or(NEVER, |values| {
                        let until = values.filter_map(|value| named.get(&value).copied());
                        until.max().unwrap_or(0)
                    });
                    (until, until.max(any))
                }
                Leaves::Any => (NEVER, NEVER),
            };
            if op.event.outcome != Outcome::Unknown {
                // What it found may tell it from others.
                op.named_until = NEVER;
            }
        }
    }

    /// Who needs which value, and who makes it.
    fn find_values(&mut self) {
        for op in self.all.iter_mut().filter(|op| op.called != NEVER) {
            let mut number = |value: i64| {
                let next = self.needed.len() as u32;
                let number = *self.values.entry(value).or_insert(next);
                if number == next {
                    self.needed.push(0);
                    self.named.push(0);
                    self.made.push(0);
                }
                number
            };
            op.needs = needs(op.event).filter(|_| !op.optional()).map(&mut number);
            op.leaves = match Leaves::of(op.event) {
                Leaves::Value(value) => Some(number(value)),
                Leaves::Nothing | Leaves::Any => None,
            };
            let look = Look::of(op.event);
            op.names = look.named.map(|value| value.map(&mut number));
            if op.names[0] == op.names[1] {
                op.names[1] = None;
            }
            self.takers += u32::from(op.takes_any());
            for number in op.names.into_iter().flatten() {
                self.named[number as usize] += 1;
            }
            if let Some(number) = op.needs {
                self.needed[number as usize] += 1;
            }
            if let Some(number) = op.leaves {
                self.made[number as usize] += 1;
            }
        }
        // Far from all others, so that nothing that is added makes one of them the other.
        let largest = self.values.keys().copied().max().unwrap_or(0);
        self.nameless = largest.max(0).checked_add(1 << 32);
    }

    /// This one is over, or of no use any more.
    pub(crate) fn end(&mut self, op: u32) {
        let op = &self.all[op as usize];
        if let Some(number) = op.needs {
            self.needed[number as usize] -= 1;
        }
        if let Some(number) = op.leaves {
            self.made[number as usize] -= 1;
        }
        for number in op.names.into_iter().flatten() {
            self.named[number as usize] -= 1;
        }
        self.takers -= u32::from(op.takes_any());
    }

    /// What is as good as this record to all who are not placed: nothing, if nobody looks; if nobody names it, a value that
    /// stands for all such.
    pub(crate) fn reduced(&self, record: Record, placed: &[u32]) -> Option<Record> {
        let taken = placed.iter().filter(|&&p| self[p].takes_any()).count() as u32;
        let is_named = |value: i64| {
            let number = self.values.get(&value);
            number.is_some_and(|&number| {
                let all = self.named[number as usize];
                let is_done = |p: &&u32| self[**p].names.contains(&Some(number));
                all > 0 && all > placed.iter().filter(is_done).count() as u32
            })
        };
        let (Some(results), Some(value)) = (self.reach.results(record.value), self.nameless) else {
            return Some(record);
        };
        if results.into_iter().any(is_named) {
            return Some(record);
        }
        (taken < self.takers).then_some(Record { value, ..record })
    }

    /// Whether somebody who is not placed must find this value, and nobody can make it any more, though this one is there now.
    pub(crate) fn is_missed(&self, value: i64, now: Option<i64>, placed: &[u32]) -> bool {
        let left = |counts: &[u32], number: u32, of: fn(&Op) -> Option<u32>| {
            let placed = placed.iter().filter(|&&p| of(&self[p]) == Some(number));
            counts[number as usize] - placed.count() as u32
        };
        let Some(&number) = self.values.get(&value) else {
            return false;
        };
        if self.needed[number as usize] == 0 || left(&self.needed, number, |op| op.needs) == 0 {
            return false;
        }
        let Some(mut origins) = self.reach.origins(value) else {
            return false;
        };
        !origins.any(|from| {
            // What is added to nothing is added to 0.
            let is_there = from == 0 || (from != value && now == Some(from));
            let number = self.values.get(&from);
            is_there || number.is_some_and(|&number| left(&self.made, number, |op| op.leaves) > 0)
        })
    }
}

/// Whether it may be refused for what is there, or asks for a version.
fn is_particular(event: &Event) -> bool {
    match condition(event.operation) {
        Some(Condition::Version(_)) => true,
        Some(Condition::Value(_)) => event.answer().is_some_and(|answer| answer.made.is_none()),
        _ => false,
    }
}

/// What all together may add without telling the sum.
fn reach(ops: &[Op]) -> Reach {
    let mut reach = Reach::default();
    for op in ops {
        if let (Operation::Increment { by }, true) = (op.event.operation, Look::of(op.event).sums) {
            if op.looks {
                // It was refused at the end of the range: which values that concerns is not worth finding out.
                return Reach::EVERYWHERE;
            }
            reach.add(by);
        }
    }
    reach
}

impl<'a> std::ops::Index<u32> for Ops<'a> {
    type Output = Op<'a>;

    fn index(&self, op: u32) -> &Op<'a> {
        &self.all[op as usize]
    }
}
