//! The load: clients that each have one request at a time under way, on a few keys that all of them read and write, and the rounds
//! that their keys are of. A round has keys of its own, so that its history ends: it can be checked, and forgotten, while the run goes
//! on. A request is sent once, and what became of it is recorded as it was told.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use henge_checker::{Condition, Event};

use super::faults::Kind;
use super::nodes::Places;
use super::options::{Level, Plan};
use super::request::{Asked, Connection, Told, version_told};
use super::tally::Tally;
use crate::cli::bench::Random;

/// How long a connection may take, where other nodes can be asked instead.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The most events of a round: some 100 MiB. No round of the highest rate comes near it, unless it has to wait for those before it.
const MOST_EVENTS: usize = 1_000_000;

/// One key of so many is a counter.
const COUNTERS: u64 = 6;

/// What all clients share.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) plan: Plan,
    pub(super) places: Places,
    /// What keys are called by, so that two runs on one cluster are not in each other's way.
    pub(super) run: u32,
    pub(super) start: Instant,
    pub(super) tally: RefCell<Tally>,
    /// What is being done to the nodes.
    pub(super) phase: Cell<Option<Kind>>,
    /// Nothing more is asked.
    pub(super) is_over: Cell<bool>,
    round: RefCell<Rc<Round>>,
}

/// Some time of the run, with keys of its own.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) number: u64,
    pub(super) events: RefCell<Vec<Event>>,
    /// Requests that have not been answered.
    pub(super) under_way: Cell<usize>,
}

impl Round {
    fn new(number: u64) -> Rc<Self> {
        Rc::new(Self {
            number,
            events: RefCell::default(),
            under_way: Cell::new(0),
        })
    }
}

impl Load {
    pub(super) fn new(plan: Plan, places: Places, run: u32) -> Self {
        let tally = Tally::new(plan.duration, plan.keys);
        Self {
            plan,
            places,
            run,
            start: Instant::now(),
            tally: RefCell::new(tally),
            phase: Cell::new(None),
            is_over: Cell::new(false),
            round: RefCell::new(Round::new(0)),
        }
    }

    /// The run begins now.
    pub(super) fn restart(&mut self) {
        self.start = Instant::now();
    }

    /// Microseconds of the run.
    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// Begins the next round; the one that was.
    pub(super) fn turn(&self) -> Rc<Round> {
        let mut round = self.round.borrow_mut();
        let next = Round::new(round.number + 1);
        std::mem::replace(&mut round, next)
    }

    /// A key by its number. That of each round is of the same slot, so that its gaps are those of one partition.
    pub(super) fn key(&self, round: u64, number: u64) -> String {
        format!(
            "verify-{:08x}-{round}{{{number}.{}}}",
            self.run, self.plan.seed
        )
    }

    /// Asks something of a key, and records it.
    async fn ask(
        &self,
        round: &Round,
        client: &mut Client,
        number: u64,
        asked: Asked,
    ) -> Option<Event> {
        let key = self.key(round.number, number);
        let phase = self.phase.get();
        round.under_way.set(round.under_way.get() + 1);
        let invoked = self.now();
        let is_look = client.number >= self.plan.clients;
        let level = match self.plan.level {
            // What a replica has not heard of yet is not lost.
            Level::One if is_look => Level::Quorum,
            level => level,
        };
        let told = client.ask(self, asked, &key, level).await;
        let completed = self.now();
        round.under_way.set(round.under_way.get() - 1);
        let outcome = asked.outcome(&told, self.plan.size);
        // Who only looks again is no part of the load.
        if !self.is_over.get() && !is_look {
            let mut tally = self.tally.borrow_mut();
            let times = (invoked, completed);
            tally.record(number as usize, phase, asked, times, &told, outcome);
        }
        let event = Event {
            client: client.number,
            key: key.into_bytes(),
            invoked,
            completed,
            operation: asked.operation(),
            outcome: outcome?,
        };
        round.events.borrow_mut().push(event.clone());
        Some(event)
    }

    /// Reads a key of a round that is over once more; whether it was answered.
    pub(super) async fn look_again(&self, round: &Round, client: &mut Client, number: u64) -> bool {
        for _ in 0..self.places.count() {
            let asked = if is_counter(number) {
                Asked::Count
            } else {
                Asked::Read
            };
            if self.ask(round, client, number, asked).await.is_some() {
                return true;
            }
            client.move_on(&self.places);
        }
        false
    }

    /// Has the last word about a key of a round that nobody asks for any more: the cache need not keep it.
    pub(super) async fn remove(&self, round: &Round, client: &mut Client, number: u64) {
        let key = self.key(round.number, number);
        client.ask(self, Asked::Delete, &key, self.plan.level).await;
    }
}

/// Whether the key with this number holds a counter.
pub(super) fn is_counter(number: u64) -> bool {
    number % COUNTERS == COUNTERS - 1
}

/// A client. It stays with a node for as long as that answers.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) number: u64,
    node: usize,
    connection: Option<Connection>,
}

impl Client {
    pub(super) fn new(number: u64, places: &Places) -> Self {
        Self {
            number,
            node: number as usize % places.count(),
            connection: None,
        }
    }

    /// Goes to the next node.
    fn move_on(&mut self, places: &Places) {
        self.connection = None;
        self.node = (self.node + 1) % places.count();
    }

    /// Goes back to its own.
    fn go_home(&mut self, places: &Places) {
        let home = self.number as usize % places.count();
        if self.node != home {
            self.node = home;
            self.connection = None;
        }
    }

    /// Its connection, or a new one.
    async fn connect(&mut self, load: &Load) -> Result<Connection, String> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let timeout = CONNECT_TIMEOUT.min(load.plan.timeout);
        load.places.connect(self.node, timeout).await
    }

    async fn ask(&mut self, load: &Load, asked: Asked, key: &str, level: Level) -> Told {
        let plan = &load.plan;
        let mut connection = match self.connect(load).await {
            Ok(connection) => connection,
            Err(why) => {
                self.move_on(&load.places);
                return Told::Unsent(why);
            }
        };
        let told = connection
            .ask(asked, key, level, plan.size, plan.timeout)
            .await;
        match &told {
            // It will take no request for a while.
            Told::Answered(reply) if matches!(&*reply.code(), "loading" | "not_in_cluster") => {
                self.move_on(&load.places);
            }
            Told::Answered(_) => self.connection = Some(connection),
            Told::Unsent(_) | Told::Silence(_) => self.move_on(&load.places),
        }
        told
    }

    /// Asks by the clock, until the end. What could not be asked in time is left out: a client has one request under way.
    pub(super) async fn run(mut self, load: &Load) {
        let mut random = Random::new(load.plan.seed, self.number);
        let mut habits = Habits {
            round: 0,
            versions: vec![None; load.plan.keys as usize],
            written: 0,
        };
        let mut turn = 0;
        while !load.is_over.get() {
            turn = self.next_turn(load, turn).await;
            if load.is_over.get() {
                break;
            }
            let round = Rc::clone(&load.round.borrow());
            if round.events.borrow().len() >= MOST_EVENTS {
                continue;
            }
            if habits.round != round.number {
                habits.round = round.number;
                habits.versions.fill(None);
                self.go_home(&load.places);
            }
            let number = random.below(load.plan.keys);
            let asked = habits.choose(&mut random, self.number, number);
            if let Some(event) = load.ask(&round, &mut self, number, asked).await
                && let Some(version) = version_told(&event)
            {
                habits.versions[number as usize] = Some(version);
            }
        }
    }

    /// Waits for the first turn after this one that is not over; its number.
    async fn next_turn(&self, load: &Load, turn: u64) -> u64 {
        let Plan { clients, rate, .. } = load.plan;
        let due_us = |turn: u64| {
            let number = u128::from(turn) * u128::from(clients) + u128::from(self.number);
            (number * 1_000_000 / u128::from(rate)) as u64
        };
        let passed = u128::from(load.now()) * u128::from(rate) / 1_000_000;
        let passed = (passed / u128::from(clients)) as u64;
        let turn = (turn + 1).max(passed);
        let due = load.start + Duration::from_micros(due_us(turn));
        tokio::time::sleep_until(due.into()).await;
        turn
    }
}

/// What a client does next.
struct Habits {
    round: u64,
    /// The last version that it was told of each key.
    versions: Vec<Option<u64>>,
    /// Values that it has written.
    written: i64,
}

impl Habits {
    /// Half of all are reads. A register that may forget is caught lying by what is read after writes that depend on each other.
    fn choose(&mut self, random: &mut Random, client: u64, number: u64) -> Asked {
        let is_counter = is_counter(number);
        let part = random.below(100);
        match part {
            0..50 if is_counter => Asked::Count,
            // Never removed: a counter that begins anew has forgotten.
            _ if is_counter => Asked::Increment,
            0..50 => Asked::Read,
            50..57 => Asked::Delete,
            _ => {
                self.written += 1;
                // No two clients write the same: each has 2^40 values, more than a month of any rate.
                let value = ((client.cast_signed() + 1) << 40) | self.written;
                let when = match (part, self.versions[number as usize]) {
                    (57..70, Some(version)) => Condition::Version(version),
                    (70..78, _) => Condition::Absent,
                    _ => Condition::Always,
                };
                Asked::Write { value, when }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_the_same_requests_and_no_value_comes_twice() {
        let choices = |client| {
            let mut random = Random::new(5, client);
            let mut habits = Habits {
                round: 0,
                versions: vec![Some(3); 12],
                written: 0,
            };
            let choose = |_| {
                let number = random.below(12);
                (number, habits.choose(&mut random, client, number))
            };
            (0..2_000).map(choose).collect::<Vec<(u64, Asked)>>()
        };
        assert_eq!(choices(1), choices(1));
        let mut values = Vec::new();
        for (number, asked) in choices(1).into_iter().chain(choices(2)) {
            let is_of_counter = matches!(asked, Asked::Count | Asked::Increment);
            assert_eq!(is_of_counter, is_counter(number), "{number}: {asked:?}");
            if let Asked::Write { value, .. } = asked {
                values.push(value);
            }
        }
        let count = values.len();
        values.sort_unstable();
        values.dedup();
        assert!(values.len() == count && count > 1_000, "{count}");
    }
}
