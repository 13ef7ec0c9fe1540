//! A table of numbers in memory, with a log of whole copies of itself: a crash brings back any that was written since the last
//! that is kept.

use crate::bugs::Bugs;
use crate::replica::{Entry, Key, NoRoom, Progress, Ran, Record, Replace, State, Table, Types};
use henge_wire::Version;
use std::collections::BTreeMap;

/// What is asked of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// What does it hold?
    Get(Key),
    /// Puts it.
    Set(Key, u64),
    /// Deletes it.
    Delete(Key),
    /// Sets it if there is nothing.
    Add(Key, u64),
    /// Adds 1 to it; from nothing it becomes 1.
    Increment(Key),
}

impl Request {
    /// The key that it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Get(key)
            | Self::Set(key, _)
            | Self::Delete(key)
            | Self::Add(key, _)
            | Self::Increment(key) => key,
        }
    }
}

/// The version that was found or made, and the value in it; none for nothing.
pub type Shown = (Option<Version>, Option<u64>);

/// What outlives a crash: records of any values, and the state beside them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Durable<V = u64> {
    /// Records; a tombstone holds nothing.
    pub records: BTreeMap<Key, (Version, Option<V>)>,
    /// How far the order has come.
    pub progress: Progress,
    /// The state of the protocol.
    pub state: State,
    /// What has come of a copy; it outlives nothing.
    filled: BTreeMap<Key, (Version, Option<V>)>,
}

impl<V: Clone> Durable<V> {
    /// What of it outlives a crash.
    #[must_use]
    pub fn image(&self) -> Self {
        Self {
            records: self.records.clone(),
            progress: self.progress,
            state: self.state.clone(),
            filled: BTreeMap::new(),
        }
    }

    /// A record of a key in the next version of the order.
    pub fn put(&mut self, version: Version, key: &Key, value: Option<V>) {
        self.records.insert(key.clone(), (version, value));
        self.progress.last = version;
    }

    /// Forgets a record, if that is allowed.
    pub fn drop_one(&mut self, key: &Key) -> bool {
        let version = self.records.get(key).map(|(version, _)| *version);
        let may = version.is_some_and(|version| version.seq() <= self.progress.commit);
        if let Some(version) = version.filter(|_| may) {
            self.records.remove(key);
            self.progress.horizon = self.progress.horizon.max(version.seq());
        }
        may
    }

    /// Asserts that an entry is the next of the order.
    pub fn check_next<E>(&self, entry: &Entry<E>) {
        let next = self.progress.last.seq() + 1;
        assert_eq!(entry.version.seq(), next, "it is the next of the order");
    }

    /// See [`Table::commit`].
    pub fn commit(&mut self, seq: u64) {
        let Progress { last, commit, .. } = self.progress;
        assert!(seq <= last.seq(), "what was not applied is not committed");
        assert!(seq >= commit, "what was committed stays so");
        self.progress.commit = seq;
    }

    /// See [`Table::align`].
    pub fn align(&mut self, term: u32) {
        self.progress.last = Version::new(term, self.progress.last.seq());
    }

    /// See [`Table::record`].
    pub fn record(&self, key: &[u8]) -> Option<Record<V>> {
        let (version, value) = self.records.get(key)?;
        Some(Record {
            key: key.to_vec(),
            version: *version,
            value: value.clone(),
        })
    }

    /// See [`Table::scan`]. A place is that of all keys of which `place_of` says so; none is at 0, which begins and ends.
    pub fn scan(
        &self,
        place_of: impl Fn(&Key) -> u32,
        place: u32,
        above: u64,
        each: &mut dyn FnMut(Record<V>),
    ) -> u32 {
        let places = self.records.keys().map(|key| (place_of(key), key));
        let mut left: Vec<(u32, &Key)> = places.filter(|&(at, _)| at >= place).collect();
        left.sort_unstable();
        let Some(&(at, _)) = left.first() else {
            return 0;
        };
        let here = left.partition_point(|&(next, _)| next == at);
        for (_, key) in &left[..here] {
            let record = self.record(key).expect("it is there");
            if record.version.seq() > above {
                each(record);
            }
        }
        if here < left.len() { at + 1 } else { 0 }
    }

    /// See [`Table::install`].
    pub fn install(&mut self, replace: Replace, records: Vec<Record<V>>, progress: Progress) {
        assert!(
            progress.horizon <= progress.commit && progress.commit <= progress.last.seq(),
            "a copy's progress is in order"
        );
        let (above, own) = match replace {
            Replace::All => (0, Progress::default()),
            Replace::Above(seq) => (seq, self.progress),
        };
        self.records
            .retain(|_, (version, _)| version.seq() <= above);
        let came = records.into_iter();
        self.records
            .extend(came.map(|record| (record.key, (record.version, record.value))));
        self.progress = Progress {
            last: progress.last,
            commit: progress.commit.max(own.commit),
            horizon: progress.horizon.max(own.horizon),
        };
    }

    /// See [`Table::fill`].
    pub fn fill(&mut self, states: Vec<(Key, Option<Record<V>>)>) {
        assert!(self.records.is_empty(), "there is nothing");
        for (key, record) in states {
            match record {
                Some(record) => self.filled.insert(key, (record.version, record.value)),
                None => self.filled.remove(&key),
            };
        }
    }

    /// See [`Table::complete`].
    pub fn complete(&mut self, progress: Progress) {
        self.install(Replace::All, Vec::new(), progress);
        self.records = std::mem::take(&mut self.filled);
    }

    /// See [`Table::empty`].
    pub fn empty(&mut self) {
        self.filled.clear();
    }

    /// See [`Table::keep`].
    pub fn keep(&mut self) {
        (self.progress.commit, self.progress.horizon) = (0, 0);
    }

    /// See [`Table::wipe`].
    pub fn wipe(&mut self) {
        self.records.clear();
        self.filled.clear();
        self.progress = Progress::default();
    }
}

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Map {
    /// As it is.
    pub now: Durable,
    /// What was written, one behind the other, since what is kept.
    pub log: Vec<Durable>,
    /// What is on the disk.
    pub durable: Durable,
    /// It has no room for what it is to apply.
    pub is_tight: bool,
    /// What it applies is committed with that.
    pub commits_at_once: bool,
    /// The newest that was.
    at_once: Version,
    /// Planted ones.
    pub bugs: Bugs,
}

impl Map {
    fn write(&mut self, state: Option<&State>) {
        if let Some(state) = state {
            self.now.state = state.clone();
        }
        self.log.push(self.now.image());
    }

    /// How far it is committed, whoever crashes: of what it took for that at once only what is kept.
    pub fn committed(&self) -> u64 {
        let Progress { last, commit, .. } = self.now.progress;
        let kept = self.durable.progress.last;
        if last.term() != self.at_once.term() || commit > self.at_once.seq() {
            commit
        } else if kept.term() == last.term() {
            commit.min(kept.seq())
        } else {
            0
        }
    }

    fn take_for_committed(&mut self) {
        self.at_once = self.now.progress.last;
        self.now.progress.commit = self.at_once.seq();
    }

    /// Forgets a record, if that is allowed.
    pub fn drop_one(&mut self, key: &Key) {
        if self.now.drop_one(key) {
            self.write(None);
        }
    }

    fn put(&mut self, version: Version, keys: &[Key], value: Option<u64>) {
        for key in keys {
            self.now.put(version, key, value);
        }
        if self.commits_at_once {
            self.take_for_committed();
        }
        self.write(None);
    }
}

impl Types for Map {
    type Request<'r> = Request;
    type Reply = Shown;
    /// Keys, and what all of them hold then.
    type Effects = (Vec<Key>, Option<u64>);
    type Value = u64;
}

impl Table<Self> for Map {
    fn progress(&self) -> Progress {
        self.now.progress
    }

    fn execute(
        &mut self,
        _: u64,
        request: &Request,
        _: bool,
    ) -> Ran<(Vec<Key>, Option<u64>), Shown> {
        let key = request.key();
        let found = self.now.records.get(key).copied();
        let (version, value) =
            found.map_or((None, None), |(version, value)| (Some(version), value));
        let saw = |shown: Shown| Ran::Saw(version.map_or(0, Version::seq), shown);
        let effect = match request {
            Request::Get(_) => return saw((version, value)),
            Request::Add(..) if value.is_some() => return saw((version, value)),
            Request::Delete(_) if value.is_none() && self.bugs.has(15) => {
                return saw((version, value));
            }
            Request::Set(_, new) | Request::Add(_, new) => Some(*new),
            Request::Delete(_) => None,
            Request::Increment(_) => Some(value.unwrap_or(0) + 1),
        };
        let next = self.now.progress.last.next();
        let keys = vec![key.clone()];
        self.put(next, &keys, effect);
        Ran::Changed(next, Some((keys, effect)), (Some(next), effect))
    }

    fn keys(&self, (keys, _): &(Vec<Key>, Option<u64>)) -> Vec<Key> {
        keys.clone()
    }

    fn apply(&mut self, _: u64, entry: &Entry<(Vec<Key>, Option<u64>)>) -> Result<(), NoRoom> {
        self.now.check_next(entry);
        if self.is_tight {
            return Err(NoRoom);
        }
        let (keys, value) = &entry.effects;
        self.put(entry.version, keys, *value);
        Ok(())
    }

    fn commit(&mut self, seq: u64) {
        self.now.commit(seq);
    }

    fn commit_at_once(&mut self, at_once: bool) {
        self.commits_at_once = at_once;
        if at_once {
            self.take_for_committed();
        }
    }

    fn log(&mut self, state: &State) {
        self.write(Some(state));
    }

    fn align(&mut self, term: u32, state: &State) {
        self.now.align(term);
        self.write(Some(state));
    }

    fn record(&self, key: &[u8]) -> Option<Record<u64>> {
        self.now.record(key)
    }

    /// In the order of keys, which differ in their first byte.
    fn scan(&self, place: u32, above: u64, each: &mut dyn FnMut(Record<u64>)) -> u32 {
        let place_of = |key: &Key| u32::from(key[0]) + 1;
        self.now.scan(place_of, place, above, each)
    }

    fn install(
        &mut self,
        replace: Replace,
        records: Vec<Record<u64>>,
        progress: Progress,
        state: &State,
    ) {
        self.now.install(replace, records, progress);
        self.write(Some(state));
    }

    fn fill(&mut self, states: Vec<(Key, Option<Record<u64>>)>) {
        self.now.fill(states);
    }

    fn complete(&mut self, progress: Progress, state: &State) {
        self.now.complete(progress);
        self.write(Some(state));
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
