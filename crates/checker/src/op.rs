//! What a search asks of an event over and over, found out once: when it is under way, which others are its like, and up to when
//! it can matter to anybody. It depends on all events of the key, those that are still to come among them.

use crate::history::{Condition, Event, Operation, Outcome};
use crate::look::{Leaves, Look, condition, needs};
use crate::register::Register;
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
    /// It may do something on a register that holds something which it cannot do on an empty one.
    pub(crate) follows: bool,
    /// The versions that it was told: of what it found, of what it made.
    pub(crate) versions: (Option<u64>, Option<u64>),
    /// The number of the value that it must find, if it must find one.
    pub(crate) needs: Option<u32>,
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
        let follows = Look::of(event).sums
            || match answer {
                Some(_) => !on_empty,
                None => !matches!(
                    condition(event.operation),
                    None | Some(Condition::Always | Condition::Absent)
                ),
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

    /// Whether it can have no place any more where this version was.
    pub(crate) fn too_late(&self, floor: Option<u64>) -> bool {
        let (found, made) = self.versions;
        found.is_some_and(|found| floor > Some(found))
            || made.is_some_and(|made| floor >= Some(made))
    }
}

/// All events of a search.
pub(crate) struct Ops<'a> {
    pub(crate) ops: Vec<Op<'a>>,
    /// Versions were told, so that an event can be too late.
    pub(crate) versioned: bool,
    /// Of each value by its number, how many of those that return must find it and have not returned.
    pub(crate) needed: Vec<u32>,
    /// Of each value by its number, how many may leave it and have not returned.
    pub(crate) made: Vec<u32>,
    /// The numbers of the values.
    pub(crate) values: HashMap<i64, u32>,
    /// Somebody adds to whatever is there and does not tell the sum: then any value may be made.
    pub(crate) sums: bool,
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
        let mut all = Self {
            versioned: ops.iter().any(|op| op.versions != (None, None)),
            sums: ops.iter().any(|op| Look::of(op.event).sums),
            ops,
            needed: Vec::new(),
            made: Vec::new(),
            values: HashMap::new(),
        };
        all.find_twins();
        all.find_use();
        all.find_values();
        all
    }

    /// Which events are the same to a register.
    fn find_twins(&mut self) {
        let mut outcomes: HashMap<(Operation, Outcome), (u32, u32)> = HashMap::new();
        let mut operations: HashMap<Operation, (u32, [bool; 2])> = HashMap::new();
        for (number, op) in (0..).zip(&self.ops) {
            let (operation, outcome) = (op.event.operation, op.event.outcome);
            outcomes
                .entry((operation, outcome))
                .or_insert((number, 0))
                .1 += 1;
            let (_, kinds) = operations.entry(operation).or_insert((number, [false; 2]));
            kinds[usize::from(outcome == Outcome::Unknown)] = true;
        }
        for op in &mut self.ops {
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
        for op in self.ops.iter().filter(|op| op.called != NEVER) {
            let look = Look::of(op.event);
            for value in look.named.into_iter().flatten() {
                let until = named.entry(value).or_default();
                *until = (*until).max(op.returned);
            }
            if look.any {
                any = any.max(op.returned);
            }
        }
        for op in self.ops.iter_mut().filter(|op| op.optional()) {
            (op.named_until, op.of_use_until) = match Leaves::of(op.event) {
                Leaves::Nothing => (0, 0),
                Leaves::Value(value) if !self.sums => {
                    let until = named.get(&value).copied().unwrap_or(0);
                    (until, until.max(any))
                }
                // What was added to any value can be looked at in turn.
                Leaves::Value(_) | Leaves::Any => (NEVER, NEVER),
            };
            if op.event.outcome != Outcome::Unknown {
                // What it found may tell it from others.
                op.named_until = NEVER;
            }
        }
    }

    /// Who needs which value, and who makes it.
    fn find_values(&mut self) {
        for op in self.ops.iter_mut().filter(|op| op.called != NEVER) {
            let mut number = |value: i64| {
                let next = self.needed.len() as u32;
                let number = *self.values.entry(value).or_insert(next);
                if number == next {
                    self.needed.push(0);
                    self.made.push(0);
                }
                number
            };
            op.needs = needs(op.event).filter(|_| !op.optional()).map(&mut number);
            op.leaves = match Leaves::of(op.event) {
                Leaves::Value(value) => Some(number(value)),
                Leaves::Nothing | Leaves::Any => None,
            };
            if let Some(number) = op.needs {
                self.needed[number as usize] += 1;
            }
            if let Some(number) = op.leaves {
                self.made[number as usize] += 1;
            }
        }
    }

    /// This one is over, or of no use any more.
    pub(crate) fn end(&mut self, op: u32) {
        let op = &self.ops[op as usize];
        if let Some(number) = op.needs {
            self.needed[number as usize] -= 1;
        }
        if let Some(number) = op.leaves {
            self.made[number as usize] -= 1;
        }
    }

    /// Whether somebody who is not placed must find this value, and nobody can make it any more.
    pub(crate) fn is_missed(&self, value: i64, placed: &[u32]) -> bool {
        let Some(&number) = self.values.get(&value).filter(|_| !self.sums) else {
            return false;
        };
        let (mut needed, mut made) = (self.needed[number as usize], self.made[number as usize]);
        if needed == 0 {
            return false;
        }
        for &p in placed {
            let op = &self.ops[p as usize];
            needed -= u32::from(op.needs == Some(number));
            made -= u32::from(op.leaves == Some(number));
        }
        needed > 0 && made == 0
    }
}

impl<'a> std::ops::Index<u32> for Ops<'a> {
    type Output = Op<'a>;

    fn index(&self, op: u32) -> &Op<'a> {
        &self.ops[op as usize]
    }
}
