//! The smallest table with a disk: numbers in memory with room for a few of them, and a log of whole copies of itself, any of
//! which a crash may bring back.

use crate::random::Random;
use crate::store::{Asks, Found, Held, Size, Store, Told, What};
use henge_cluster::bugs::Bugs;
use henge_cluster::replica::{
    Entry, Key, NoRoom, Progress, Ran, Record, Replace, State, Table, Types,
};
use henge_wire::Version;
use std::collections::{BTreeMap, VecDeque};

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

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Image {
    records: BTreeMap<Key, (Version, Option<Number>)>,
    progress: Progress,
    state: State,
}

impl Toy {
    fn write(&mut self, state: Option<&State>) {
        if let Some(state) = state {
            self.now.state = state.clone();
        }
        self.log.push_back(self.now.clone());
    }

    /// Forgets a record that is committed, the first from a place on.
    fn forget(&mut self, place: usize) -> bool {
        let commit = self.now.progress.commit;
        let count = self.now.records.len();
        let order = self.now.records.iter().cycle().skip(place % count.max(1));
        let mut may = order
            .take(count)
            .filter(|(_, (version, _))| version.seq() <= commit);
        let Some((key, version)) = may
            .next()
            .map(|(key, (version, _))| (key.clone(), *version))
        else {
            return false;
        };
        self.now.records.remove(&key);
        let horizon = &mut self.now.progress.horizon;
        *horizon = (*horizon).max(version.seq());
        true
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
        self.now.records.insert(key.clone(), (version, value));
        self.now.progress.last = version;
        self.write(None);
        Ok(())
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
        let next = self.now.progress.last.seq() + 1;
        assert_eq!(entry.version.seq(), next, "it is the next of the order");
        let (key, effect) = &entry.effects;
        self.put(entry.version, key, *effect)
    }

    fn commit(&mut self, seq: u64) {
        let Progress { last, commit, .. } = self.now.progress;
        assert!(seq <= last.seq(), "what was not applied is not committed");
        assert!(seq >= commit, "what was committed stays so");
        self.now.progress.commit = seq;
    }

    fn log(&mut self, state: &State) {
        self.write(Some(state));
    }

    fn align(&mut self, term: u32, state: &State) {
        self.now.progress.last = Version::new(term, self.now.progress.last.seq());
        self.write(Some(state));
    }

    fn record(&self, key: &[u8]) -> Option<Record<Number>> {
        let (version, value) = *self.now.records.get(key)?;
        Some(Record {
            key: key.to_vec(),
            version,
            value,
        })
    }

    /// One record at each place, by its key's rank: a key that comes or goes meanwhile may move others, so the place is a hash.
    fn scan(&self, place: u32, above: u64, each: &mut dyn FnMut(Record<Number>)) -> u32 {
        let mut places: Vec<(u32, &Key)> =
            self.now.records.keys().map(|k| (place_of(k), k)).collect();
        places.sort_unstable();
        let mut left = places
            .into_iter()
            .skip_while(|&(at, _)| at < place)
            .peekable();
        let Some(&(at, _)) = left.peek() else {
            return 0;
        };
        while let Some((_, key)) = left.next_if(|&(next, _)| next == at) {
            let record = self.record(key).expect("it is there");
            if record.version.seq() > above {
                each(record);
            }
        }
        left.peek().map_or(0, |&(next, _)| next)
    }

    fn install(
        &mut self,
        replace: Replace,
        records: Vec<Record<Number>>,
        progress: Progress,
        state: &State,
    ) {
        assert!(
            progress.horizon <= progress.commit && progress.commit <= progress.last.seq(),
            "a copy's progress is in order"
        );
        let above = match replace {
            Replace::All => 0,
            Replace::Above(seq) => seq,
        };
        let now = &mut self.now;
        now.records.retain(|_, (version, _)| version.seq() <= above);
        let came = records.into_iter();
        now.records
            .extend(came.map(|record| (record.key, (record.version, record.value))));
        let own = now.progress;
        now.progress = Progress {
            last: progress.last,
            commit: progress.commit.max(own.commit),
            horizon: progress.horizon.max(own.horizon),
        };
        while self.now.records.len() > self.room && self.forget(self.turn) {
            self.turn += 1;
        }
        self.write(Some(state));
    }

    fn keep(&mut self, state: &State) {
        (self.now.progress.commit, self.now.progress.horizon) = (0, 0);
        self.write(Some(state));
    }

    fn wipe(&mut self, state: &State) {
        self.now.records.clear();
        self.now.progress = Progress::default();
        self.write(Some(state));
    }
}

/// Above 0, which begins a scan.
fn place_of(key: &Key) -> u32 {
    let mixed = key.iter().fold(0x811c_9dc5_u32, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    mixed >> 1 | 1
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
        self.forget(random.below(1 << 20) as usize)
    }
}
