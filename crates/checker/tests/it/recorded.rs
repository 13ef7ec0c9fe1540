//! Histories that a real register gave: clients that ask at once, each request done at a moment between its call and its return,
//! a register that forgets now and then, and answers that get lost. All from one seed.

use henge_checker::{Answer, Condition, Event, Found, History, Made, Operation, Outcome};

/// Numbers that look random (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Below this.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// So many times in a thousand.
    pub(crate) fn permille(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// What clients ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Exists,
    Set,
    Swap,
    Add,
    Replace,
    CasValue,
    CasVersion,
    Delete,
    Increment,
}

/// All that there is.
pub(crate) const ALL: &[Kind] = &[
    Kind::Read,
    Kind::Read,
    Kind::Exists,
    Kind::Set,
    Kind::Set,
    Kind::Swap,
    Kind::Add,
    Kind::Replace,
    Kind::CasValue,
    Kind::CasVersion,
    Kind::Delete,
    Kind::Increment,
];

/// How a history comes about.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) clients: u64,
    pub(crate) events: u64,
    /// What is asked, each as often as it stands here.
    pub(crate) kinds: Vec<Kind>,
    /// Values are below this; 0 if no two are the same.
    pub(crate) values: i64,
    /// Of a thousand requests, how many are never answered, up to `most_unknown`.
    pub(crate) unknown: u64,
    pub(crate) most_unknown: u64,
    /// Of a thousand requests, before how many the register forgets.
    pub(crate) forgets: u64,
    /// Of a thousand answers, how many tell a version.
    pub(crate) versions: u64,
    /// Of a thousand increments, how many do not tell the sum.
    pub(crate) untold: u64,
    /// The longest that a request takes.
    pub(crate) longest: u64,
}

/// A request: when it was asked, done and answered.
struct Request {
    client: u64,
    invoked: u64,
    done: Option<u64>,
    completed: u64,
    known: bool,
}

impl Plan {
    /// The history of a seed.
    pub(crate) fn record(&self, random: &mut Random) -> History {
        let mut requests = self.requests(random);
        requests.sort_by_key(|request| (request.done.unwrap_or(u64::MAX), request.invoked));
        let mut register = Register::default();
        let mut history = History::new();
        for (fresh, request) in (1..).zip(requests) {
            if random.permille(self.forgets) {
                register.holds = None;
            }
            let value = match self.values {
                0 => fresh,
                limit => random.below(limit.cast_unsigned()).cast_signed(),
            };
            let kind = random.pick(&self.kinds);
            let operation = register.choose(kind, value, random);
            let mut outcome = Outcome::Unknown;
            if request.done.is_some() {
                let tells = random.permille(self.versions);
                let told = !random.permille(self.untold);
                let answer = register.run(kind, operation, (tells, told), random);
                if request.known {
                    outcome = Outcome::Answered(answer);
                }
            }
            let event = Event {
                client: request.client,
                key: b"k".to_vec(),
                invoked: request.invoked,
                completed: request.completed,
                operation,
                outcome,
            };
            history.record(event).expect("it ends after it began");
        }
        history
    }

    fn requests(&self, random: &mut Random) -> Vec<Request> {
        let mut requests: Vec<Request> = Vec::new();
        let mut free: Vec<u64> = (0..self.clients)
            .map(|_| random.below(self.longest))
            .collect();
        let mut unknown = 0;
        for number in 0..self.events {
            let client = number % self.clients;
            let free = &mut free[client as usize];
            let invoked = *free;
            let completed = invoked + random.below(self.longest);
            let known = unknown >= self.most_unknown || !random.permille(self.unknown);
            unknown += u64::from(!known);
            let done = if known {
                Some(invoked + random.below(completed - invoked + 1))
            } else if random.permille(300) {
                None
            } else {
                Some(invoked + random.below(self.longest * 20))
            };
            requests.push(Request {
                client,
                invoked,
                done,
                completed,
                known,
            });
            *free = completed + random.below(self.longest / 2 + 2);
        }
        requests
    }
}

#[derive(Default)]
struct Register {
    /// The value and its version.
    holds: Option<(i64, u64)>,
    version: u64,
    /// What it held not long ago.
    held: Vec<(i64, u64)>,
}

impl Register {
    fn choose(&self, kind: Kind, value: i64, random: &mut Random) -> Operation {
        let recent = &self.held[self.held.len().saturating_sub(3)..];
        let old = if recent.is_empty() {
            (value, 1)
        } else {
            random.pick(recent)
        };
        let expected = self.holds.filter(|_| random.permille(700)).unwrap_or(old);
        let when = match kind {
            Kind::Read | Kind::Exists => return Operation::Read,
            Kind::Increment => return Operation::Increment { by: 1 },
            Kind::Delete => {
                let when = Condition::Always;
                return Operation::Delete { when };
            }
            Kind::Set | Kind::Swap => Condition::Always,
            Kind::Add => Condition::Absent,
            Kind::Replace => Condition::Present,
            Kind::CasValue => Condition::Value(expected.0),
            Kind::CasVersion => Condition::Version(expected.1),
        };
        Operation::Write { value, when }
    }

    fn run(
        &mut self,
        kind: Kind,
        operation: Operation,
        (tells, told): (bool, bool),
        random: &mut Random,
    ) -> Answer {
        let holds = self.holds;
        let found = match holds {
            None => Found::Nothing,
            Some((value, version)) => Found::Something {
                value: (kind != Kind::Exists).then_some(value),
                version: tells.then_some(version),
            },
        };
        // Some servers tell more than others.
        let told_before = match found {
            _ if random.permille(400) => Found::Unsaid,
            Found::Something { version, .. } if random.permille(500) => Found::Something {
                value: None,
                version,
            },
            found => found,
        };
        let (value, when) = match operation {
            Operation::Read => return Answer { found, made: None },
            Operation::Write { value, when } => (Some(value), when),
            Operation::Delete { when } => (None, when),
            Operation::Increment { by } => (
                Some(holds.map_or(0, |(value, _)| value) + by),
                Condition::Always,
            ),
        };
        let is_done = match when {
            Condition::Always => true,
            Condition::Absent => holds.is_none(),
            Condition::Present => holds.is_some(),
            Condition::Value(value) => holds.is_some_and(|(held, _)| held == value),
            Condition::Version(version) => holds.is_some_and(|(_, held)| held == version),
        };
        if !is_done {
            return Answer {
                found: told_before,
                made: None,
            };
        }
        self.version += 1;
        self.holds = value.map(|value| (value, self.version));
        self.held.extend(self.holds);
        let counted = kind == Kind::Increment && told;
        let made = Made {
            value: value.filter(|_| counted),
            version: tells.then_some(self.version),
        };
        let shows = kind != Kind::Set;
        Answer {
            found: if shows { told_before } else { Found::Unsaid },
            made: Some(made),
        }
    }
}
