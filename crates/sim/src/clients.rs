//! Those who ask, and what they may be told: no answer at QUORUM or ALL shows anything older than what was acknowledged, or shown
//! to anybody, before it was asked.

use crate::store::{Asks, Told, What};
use henge_cluster::replica::{Key, Level, RequestId};
use henge_cluster::testing::random::Random;
use henge_wire::Version;
use std::collections::BTreeMap;

/// An operation of a client, which may take several requests.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its number among all.
    pub number: u64,
    /// Its partition, and its key there.
    pub place: (usize, usize),
    /// What is asked.
    pub asks: Asks,
    /// How much its answer promises.
    pub level: Level,
    /// When it was begun.
    pub began_ms: u64,
    /// When nobody waits for it any more.
    pub deadline_ms: u64,
    /// The request that is under way.
    pub request: RequestId,
}

impl Operation {
    /// Nothing changes by it.
    pub fn is_read(&self) -> bool {
        self.asks.what == What::Get
    }
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// With an answer.
    Told(Told),
    /// It did not happen, and will not.
    Never,
    /// It may have happened, or happen yet.
    Unknown,
}

/// An operation that has ended, for the checker.
#[derive(Clone, Debug)]
pub struct Done {
    /// Who has asked.
    pub client: usize,
    /// What.
    pub operation: Operation,
    /// How it ended.
    pub outcome: Outcome,
    /// When.
    pub ended_ms: u64,
}

/// One who asks one thing at a time.
pub struct Client {
    /// What it asks, and whom.
    pub random: Random,
    /// Who leads each partition, as far as it knows.
    pub leaders: Vec<usize>,
    /// What it waits for.
    pub operation: Option<Operation>,
}

/// A request that a node has.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Who has asked.
    pub client: usize,
    /// For which operation.
    pub operation: u64,
    /// The node.
    pub node: usize,
    /// Its partition, and its key there.
    pub place: (usize, usize),
    /// How much its answer promises.
    pub level: Level,
    /// What is asked.
    pub what: What,
    /// The version that was stamped for it.
    pub stamped: Option<Version>,
    /// No answer may show anything older.
    floor: Version,
}

/// See the head of the file.
pub struct Clients {
    /// All of them.
    pub all: Vec<Client>,
    /// Requests that nodes have.
    pub asked: BTreeMap<RequestId, Asked>,
    /// Keys by partitions.
    keys: Vec<Vec<Key>>,
    /// Of each key, the newest version that anybody was told of.
    floors: Vec<Vec<Version>>,
    /// What has ended.
    pub done: Vec<Done>,
    /// Of it, with an answer.
    pub completed: usize,
    /// What is begun from here on, no more than so many.
    pub operations: u64,
    requests: RequestId,
    values: u64,
}

impl Clients {
    /// So many, who ask for these keys.
    pub fn new(seed: u64, count: usize, keys: Vec<Vec<Key>>, nodes: usize) -> Self {
        let mut all = Vec::new();
        for number in 0..count {
            let mut random = Random::new(seed, 100 + number as u64);
            let guess = random.within(1, nodes as u64) as usize;
            all.push(Client {
                random,
                leaders: vec![guess; keys.len()],
                operation: None,
            });
        }
        let floors = keys.iter().map(|keys| vec![Version::ZERO; keys.len()]);
        Self {
            all,
            asked: BTreeMap::new(),
            floors: floors.collect(),
            keys,
            done: Vec::new(),
            completed: 0,
            operations: 0,
            requests: 0,
            values: 0,
        }
    }

    /// A client begins with something.
    pub fn begin(&mut self, client: usize, now_ms: u64) -> &Operation {
        self.operations += 1;
        // So that what was counted up does not look like what was put.
        self.values += 1_000;
        let random = &mut self.all[client].random;
        let partition = random.place(self.keys.len());
        let key = random.place(self.keys[partition].len());
        let newest = self.floors[partition][key];
        let value = self.values;
        let what = match random.below(20) {
            0..=6 => What::Get,
            7..=10 => What::Set(value),
            11 => What::SetFor(value, random.within(10, 400)),
            12 | 13 => What::Delete,
            14 | 15 => What::Add(value),
            16 | 17 => What::Increment,
            _ => What::Swap(newest, value),
        };
        let level = match random.below(20) {
            0..=2 => Level::One,
            3..=5 => Level::All,
            _ => Level::Quorum,
        };
        let operation = Operation {
            number: self.operations,
            place: (partition, key),
            asks: Asks {
                key: self.keys[partition][key].clone(),
                what,
            },
            level,
            began_ms: now_ms,
            deadline_ms: now_ms + random.within(60, 500),
            request: 0,
        };
        self.all[client].operation.insert(operation)
    }

    /// The next request for what a client waits for, if it does.
    pub fn request(&mut self, client: usize) -> Option<RequestId> {
        let operation = self.all[client].operation.as_mut()?;
        self.requests += 1;
        operation.request = self.requests;
        Some(self.requests)
    }

    /// A node has a request.
    pub fn ask(&mut self, client: usize, node: usize, operation: &Operation) {
        let (partition, key) = operation.place;
        let asked = Asked {
            client,
            operation: operation.number,
            node,
            place: operation.place,
            level: operation.level,
            what: operation.asks.what,
            stamped: None,
            floor: self.floors[partition][key],
        };
        let before = self.asked.insert(operation.request, asked);
        assert!(before.is_none(), "a request is asked once");
    }

    /// A node answers one: what it tells must not be too old.
    pub fn answer(&mut self, request: RequestId, told: Option<Told>) -> Asked {
        let asked = self.asked.remove(&request);
        let asked = asked.unwrap_or_else(|| panic!("{request} was not asked, or answered twice"));
        let (Some(told), true) = (told, asked.level != Level::One) else {
            return asked;
        };
        let floor = asked.floor;
        if let Some(version) = told.version {
            let is_miss = !told.is_changed && !told.is_there;
            assert!(
                version >= floor || is_miss,
                "request {request}, {:?}, is told {told:?}, and {floor} was known before it was asked",
                asked.what
            );
            let (partition, key) = asked.place;
            let known = &mut self.floors[partition][key];
            *known = (*known).max(version);
        }
        if let (What::Swap(expected, _), true) = (asked.what, told.is_changed) {
            assert!(
                expected >= floor,
                "request {request} replaces {expected}, and {floor} was known before it was asked"
            );
        }
        asked
    }

    /// What a client waits for has ended.
    pub fn end(&mut self, client: usize, now_ms: u64, outcome: Outcome) {
        let operation = self.all[client].operation.take();
        let operation = operation.expect("it waits for something");
        self.completed += usize::from(matches!(outcome, Outcome::Told(_)));
        self.done.push(Done {
            client,
            operation,
            outcome,
            ended_ms: now_ms,
        });
    }
}
