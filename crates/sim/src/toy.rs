//! A table of numbers that is all the simulator asks of one: room for a few records, which makes it drop others, records that
//! expire, and a log of whole copies of itself, of which some are written and some of those synced. The `Map` of
//! `henge_cluster::testing` has none of that: the small worlds and the model say themselves what is dropped and kept, and a state of
//! the model has to be small. What a table holds, and what becomes of it by a copy or a new term, is one for both. It is faster than
//! the engine (`--table toy`), and a seed that fails over one of the two alone says on which side the mistake is.

use crate::store::{Asks, Found, Held, Size, Store, Told, What, place_of};
use henge_cluster::bugs::Bugs;
use henge_cluster::replica::{
    Entry, Key, NoRoom, Progress, Ran, Record, Replace, State, Table, Types,
};
use henge_cluster::testing::map::Durable;
use henge_cluster::testing::random::Random;
use henge_wire::Version;
use std::collections::VecDeque;

/// A number, and when it expires.
pub type Number = (u64, Option<u64>);

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Toy {
    now: Image,
    /// What was written since what is synced.
    log: VecDeque<Image>,
    /// What is synced.
    base: Image,
    /// How many copies were ever written before the log, and how many of them are in the file.
    before: u64,
    written: u64,
    room: usize,
    /// Which record goes when there is no room.
    turn: usize,
    bugs: Bugs,
}

/// As it is at some time.
type Image = Durable<Number>;

impl Toy {
    fn write(&mut self, state: Option<&State>) {
        if let Some(state) = state {
            self.now.state = state.clone();
        }
        self.log.push_back(self.now.image());
    }

    /// Forgets a record that is committed, the first from a place on.
    fn forget(&mut self, place: usize) -> bool {
        let commit = self.now.progress.commit;
        let count = self.now.records.len();
        let order = self.now.records.iter().cycle().skip(place % count.max(1));
        let mut may = order
            .take(count)
            .filter(|(_, (version, _))| version.seq() <= commit);
        let key = may.next().map(|(key, _)| key.clone());
        key.is_some_and(|key| self.now.drop_one(&key))
    }

    /// Makes room for a key.
    fn make_room(&mut self, key: &Key) -> bool {
        while self.now.records.len() >= self.room && !self.now.records.contains_key(key) {
            self.turn += 1;
            if !self.forget(self.turn) {
                return false;
            }
        }
        true
    }

    fn put(&mut self, version: Version, key: &Key, value: Option<Number>) -> Result<(), NoRoom> {
        if !self.make_room(key) {
            return Err(NoRoom);
        }
        self.now.put(version, key, value);
        self.write(None);
        Ok(())
    }

    /// A copy has come to its end: of what there is no room for goes what may.
    fn installed(&mut self, state: &State) {
        while self.now.records.len() > self.room && self.forget(self.turn) {
            self.turn += 1;
        }
        self.write(Some(state));
    }

    /// What a key holds at a time.
    fn alive(&self, now_ms: u64, key: &Key) -> (Option<Version>, Option<u64>) {
        match self.now.records.get(key) {
            Some((_, Some((_, Some(at))))) if *at <= now_ms => (None, None),
            Some((version, value)) => (Some(*version), value.map(|(number, _)| number)),
            None => (None, None),
        }
    }
}

impl Types for Toy {
    type Request<'r> = Asks;
    type Reply = Told;
    type Effects = (Key, Option<Number>);
    type Value = Number;
}

impl Table<Self> for Toy {
    fn progress(&self) -> Progress {
        self.now.progress
    }

    fn execute(
        &mut self,
        now_ms: u64,
        request: &Asks,
        _: bool,
    ) -> Ran<(Key, Option<Number>), Told> {
        let key = &request.key;
        let (version, value) = self.alive(now_ms, key);
        let is_wanted = |expected: Version| version == Some(expected) && value.is_some();
        let effect = match request.what {
            What::Set(new) => Some((new, None)),
            What::SetFor(new, for_ms) => Some((new, Some(now_ms + for_ms))),
            What::Add(new) if value.is_none() => Some((new, None)),
            What::Swap(expected, new) if is_wanted(expected) => Some((new, None)),
            What::Delete if version.is_some() || !self.bugs.has(15) => None,
            What::Increment => Some((value.unwrap_or(0) + 1, None)),
            What::Get | What::Add(_) | What::Swap(..) | What::Delete => {
                let told = Told {
                    version,
                    is_there: value.is_some(),
                    value,
                    is_changed: false,
                };
                return Ran::Saw(version.map_or(0, Version::seq), told);
            }
        };
        let next = self.now.progress.last.next();
        if self.put(next, key, effect).is_err() {
            return Ran::NoRoom;
        }
        let told = Told {
            version: Some(next),
            is_there: effect.is_some(),
            value: effect.map(|(number, _)| number),
            is_changed: true,
        };
        Ran::Changed(next, Some((key.clone(), effect)), told)
    }

    fn keys(&self, (key, _): &(Key, Option<Number>)) -> Vec<Key> {
        vec![key.clone()]
    }

    fn apply(&mut self, _: u64, entry: &Entry<(Key, Option<Number>)>) -> Result<(), NoRoom> {
        self.now.check_next(entry);
        let (key, effect) = &entry.effects;
        self.put(entry.version, key, *effect)
    }

    fn commit(&mut self, seq: u64) {
        self.now.commit(seq);
    }

    fn log(&mut self, state: &State) {
        self.write(Some(state));
    }

    fn align(&mut self, term: u32, state: &State) {
        self.now.align(term);
        self.write(Some(state));
    }

    fn record(&self, key: &[u8]) -> Option<Record<Number>> {
        self.now.record(key)
    }

    fn scan(&self, place: u32, above: u64, each: &mut dyn FnMut(Record<Number>)) -> u32 {
        self.now.scan(place_of, place, above, each)
    }

    fn install(
        &mut self,
        replace: Replace,
        records: Vec<Record<Number>>,
        progress: Progress,
        state: &State,
    ) {
        self.now.install(replace, records, progress);
        self.installed(state);
    }

    fn fill(&mut self, states: Vec<(Key, Option<Record<Number>>)>) {
        self.now.fill(states);
    }

    fn complete(&mut self, progress: Progress, state: &State) {
        self.now.complete(progress);
        self.installed(state);
    }

    fn empty(&mut self) {
        self.now.empty();
    }

    fn keep(&mut self, state: &State) {
        self.now.keep();
        self.write(Some(state));
    }

    fn wipe(&mut self, state: &State) {
        self.now.wipe();
        self.write(Some(state));
    }
}

impl Store for Toy {
    type Kind = Self;

    fn create(size: Size) -> Self {
        Self {
            now: Image::default(),
            log: VecDeque::new(),
            base: Image::default(),
            before: 0,
            written: 0,
            room: size.records,
            turn: 0,
            bugs: size.bugs,
        }
    }

    fn hash(&self, _: &[u8]) -> u64 {
        0
    }

    fn request(asks: &Asks, _: u64, _: u64, call: impl FnOnce(Asks)) {
        call(asks.clone());
    }

    fn told(_: What, reply: &Told) -> Told {
        *reply
    }

    fn held(&self, key: &[u8]) -> Option<Held> {
        let (version, value) = self.now.records.get(key)?;
        Some((*version, value.map(|(number, _)| number)))
    }

    fn all_keys(&self) -> Vec<Key> {
        self.now.records.keys().cloned().collect()
    }

    fn hand(&mut self) -> u64 {
        self.before + self.log.len() as u64
    }

    fn written(&mut self, batch: u64) {
        self.written = self.written.max(batch);
    }

    fn sync_written(&mut self) {
        while self.before < self.written {
            self.base = self.log.pop_front().expect("it was written");
            self.before += 1;
        }
    }

    fn crash(&mut self, is_machine: bool, random: &mut Random) -> Found {
        let safe = if is_machine {
            0
        } else {
            self.written.saturating_sub(self.before)
        };
        let survives = random.within(safe, self.log.len() as u64);
        if survives > 0 {
            self.base = self.log[survives as usize - 1].clone();
        }
        self.before += self.log.len() as u64;
        self.written = self.before;
        self.log.clear();
        self.now = self.base.clone();
        Found {
            state: self.now.state.clone(),
            progress: self.now.progress,
            has_lost_memory: false,
        }
    }

    fn evict(&mut self, random: &mut Random) -> bool {
        self.forget(random.place(1 << 20))
    }
}
