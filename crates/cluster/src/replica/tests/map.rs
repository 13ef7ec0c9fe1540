//! A table of numbers in memory, with a log of whole copies of itself: a crash brings back any that was written since the last
//! that is kept.

use crate::replica::{Entry, Key, NoRoom, Progress, Ran, Record, Replace, State, Table, Types};
use henge_wire::Version;
use std::collections::BTreeMap;

/// What is asked of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Request {
    Get(Key),
    Set(Key, u64),
    Delete(Key),
    /// Sets it if there is nothing.
    Add(Key, u64),
    Increment(Key),
}

impl Request {
    pub(super) fn key(&self) -> &Key {
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
pub(super) type Shown = (Option<Version>, Option<u64>);

/// What outlives a crash.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Durable {
    pub(super) records: BTreeMap<Key, (Version, Option<u64>)>,
    pub(super) progress: Progress,
    pub(super) state: State,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Map {
    pub(super) now: Durable,
    /// What was written, one behind the other, since what is kept.
    pub(super) log: Vec<Durable>,
    /// What is on the disk.
    pub(super) durable: Durable,
    /// It has no room for what it is to apply.
    pub(super) is_tight: bool,
    /// What it applies is committed with that.
    pub(super) commits_at_once: bool,
}

impl Map {
    fn write(&mut self, state: Option<&State>) {
        if let Some(state) = state {
            self.now.state = state.clone();
        }
        self.log.push(self.now.clone());
    }

    /// Forgets a record, if that is allowed.
    pub(super) fn drop_one(&mut self, key: &Key) {
        if let Some((version, _)) = self.now.records.get(key)
            && version.seq() <= self.now.progress.commit
        {
            let horizon = &mut self.now.progress.horizon;
            *horizon = (*horizon).max(version.seq());
            self.now.records.remove(key);
            self.log.push(self.now.clone());
        }
    }

    fn put(&mut self, version: Version, keys: &[Key], value: Option<u64>) {
        for key in keys {
            self.now.records.insert(key.clone(), (version, value));
        }
        self.now.progress.last = version;
        if self.commits_at_once {
            self.now.progress.commit = version.seq();
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
        assert_eq!(entry.version.seq(), self.now.progress.last.seq() + 1);
        if self.is_tight {
            return Err(NoRoom);
        }
        let (keys, value) = &entry.effects;
        self.put(entry.version, keys, *value);
        Ok(())
    }

    fn commit(&mut self, seq: u64) {
        assert!(seq <= self.now.progress.last.seq());
        assert!(seq >= self.now.progress.commit);
        self.now.progress.commit = seq;
    }

    fn commit_at_once(&mut self, at_once: bool) {
        self.commits_at_once = at_once;
        if at_once {
            self.now.progress.commit = self.now.progress.last.seq();
        }
    }

    fn log(&mut self, state: &State) {
        self.write(Some(state));
    }

    fn align(&mut self, term: u32, state: &State) {
        self.now.progress.last = Version::new(term, self.now.progress.last.seq());
        self.write(Some(state));
    }

    fn record(&self, key: &[u8]) -> Option<Record<u64>> {
        let (version, value) = *self.now.records.get(key)?;
        Some(Record {
            key: key.to_vec(),
            version,
            value,
        })
    }

    /// One record at each place, which is its key's own.
    fn scan(&self, place: u32, above: u64, each: &mut dyn FnMut(Record<u64>)) -> u32 {
        let place_of = |key: &Key| u32::from(key[0]) + 1;
        let from = place.max(1);
        let mut left = self.now.records.keys().filter(|key| place_of(key) >= from);
        let Some(key) = left.next() else { return 0 };
        let record = self.record(key).expect("it is there");
        if record.version.seq() > above {
            each(record);
        }
        if left.next().is_some() {
            place_of(key) + 1
        } else {
            0
        }
    }

    fn install(
        &mut self,
        replace: Replace,
        records: Vec<Record<u64>>,
        progress: Progress,
        state: &State,
    ) {
        assert!(progress.horizon <= progress.commit && progress.commit <= progress.last.seq());
        let above = match replace {
            Replace::All => 0,
            Replace::Above(seq) => seq,
        };
        self.now
            .records
            .retain(|_, (version, _)| version.seq() <= above);
        for record in records {
            self.now
                .records
                .insert(record.key, (record.version, record.value));
        }
        let own = match replace {
            Replace::All => Progress::default(),
            Replace::Above(_) => self.now.progress,
        };
        self.now.progress = Progress {
            last: progress.last,
            commit: progress.commit.max(own.commit),
            horizon: progress.horizon.max(own.horizon),
        };
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
