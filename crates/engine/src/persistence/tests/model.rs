//! What a node should hold, naively: all keys, the log as a list of what each record does, and how much of it was written and
//! synced. What a recovery gives has to be the state after one of those records, and not before the last that it may not lose.

use henge_wire::{Partition, Version};
use std::collections::BTreeMap;

/// An item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Item {
    pub(crate) data: Vec<u8>,
    pub(crate) deadline: Option<u64>,
    pub(crate) version: Version,
}

impl Item {
    fn is_over(&self, now_ms: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now_ms)
    }
}

/// What becomes of a key: its item, or none any more.
pub(crate) type Change = (Vec<u8>, Option<Item>);

/// What a record of the log does.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Mutation(Partition, Version, Vec<Change>),
    Flush(Partition, Version),
    Started(Version),
}

impl Entry {
    /// Whether what is known of a key comes from it.
    pub(crate) fn touches(&self, key: &[u8]) -> bool {
        match self {
            Self::Mutation(_, _, changes) => changes.iter().any(|(changed, _)| changed == key),
            Self::Flush(partition, _) => *partition == Partition::of(key),
            Self::Started(_) => false,
        }
    }
}

/// All keys, and how far each partition has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) items: BTreeMap<Vec<u8>, Item>,
    pub(crate) last: BTreeMap<u16, Version>,
    /// Keys that are no more, and what took them away.
    gone: BTreeMap<Vec<u8>, Version>,
}

/// What was found in shards.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    pub(crate) items: BTreeMap<Vec<u8>, Item>,
    pub(crate) last: BTreeMap<u16, Version>,
    pub(crate) horizon: BTreeMap<u16, u64>,
    pub(crate) tombstones: BTreeMap<Vec<u8>, Version>,
}

impl State {
    pub(crate) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Mutation(partition, version, changes) => {
                self.last.insert(partition.number(), *version);
                for (key, item) in changes {
                    if let Some(item) = item {
                        self.items.insert(key.clone(), item.clone());
                        self.gone.remove(key);
                    } else {
                        self.items.remove(key);
                        self.gone.insert(key.clone(), *version);
                    }
                }
            }
            Entry::Flush(partition, version) => {
                self.last.insert(partition.number(), *version);
                let flushed = self
                    .items
                    .extract_if(.., |key, _| Partition::of(key) == *partition);
                let flushed = flushed.map(|(key, _)| (key, *version));
                self.gone.extend(flushed);
                for (key, taken) in &mut self.gone {
                    if Partition::of(key) == *partition {
                        *taken = *version;
                    }
                }
            }
            Entry::Started(first) => {
                for last in self.last.values_mut() {
                    *last = (*last).max(*first);
                }
            }
        }
    }

    /// The item of a key, if it has not expired.
    pub(crate) fn live(&self, key: &[u8], now_ms: u64) -> Option<&Item> {
        self.items.get(key).filter(|item| !item.is_over(now_ms))
    }

    /// What is wrong with what was found, if this is what should be. What has expired may be gone, and anything where
    /// records are evicted. Of all that is gone there is a tombstone, or the horizon says that there may be none.
    fn difference(&self, found: &Found, now_ms: u64, evicts: bool) -> Option<String> {
        if self.last != found.last {
            return Some(format!("last is {:?}, not {:?}", found.last, self.last));
        }
        let name = String::from_utf8_lossy;
        for (key, item) in &found.items {
            match self.items.get(key) {
                Some(expected) if expected == item => {}
                Some(expected) => {
                    let (found, expected) = (brief(item), brief(expected));
                    return Some(format!("{} is {found}, not {expected}", name(key)));
                }
                None => return Some(format!("{} is {}", name(key), brief(item))),
            }
        }
        for (key, item) in &self.items {
            if found.items.contains_key(key) {
                continue;
            }
            if !item.is_over(now_ms) && !evicts {
                return Some(format!("{} is not {}", name(key), brief(item)));
            }
            if let Some(wrong) = found.is_untold(key, item.version) {
                return Some(wrong);
            }
        }
        let gone = &self.gone;
        gone.iter()
            .find_map(|(key, version)| found.is_untold(key, *version))
    }
}

impl Found {
    /// What is wrong if a key that this version has changed last, or taken away, is not there, and nothing tells who asks
    /// for all that came after an earlier version.
    fn is_untold(&self, key: &[u8], version: Version) -> Option<String> {
        let horizon = self.horizon[&Partition::of(key).number()];
        let tombstone = self.tombstones.get(key);
        (horizon < version.seq() && tombstone != Some(&version)).then(|| {
            let name = String::from_utf8_lossy(key);
            format!(
                "{name} went by {version}, its tombstone is {tombstone:?}, the horizon {horizon}"
            )
        })
    }
}

fn brief(item: &Item) -> String {
    let Item {
        data,
        deadline,
        version,
    } = item;
    let begin = &data[..data.len().min(20)];
    format!(
        "{version} of {} bytes {:?} until {deadline:?}",
        data.len(),
        String::from_utf8_lossy(begin)
    )
}

/// See the head of the file.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// As the node sees it.
    pub(crate) now: State,
    /// What nothing may take away.
    certain: State,
    /// Records behind that which were handed to the log, in its order.
    log: Vec<Entry>,
    /// How many there were before those.
    before: usize,
    /// All up to here was written.
    written: usize,
    /// What is in the journals of the shards.
    waiting: Vec<Vec<Entry>>,
    /// Shards may evict what they have.
    evicts: bool,
}

impl Model {
    /// Nothing, of these partitions.
    pub(crate) fn new(
        shards: usize,
        partitions: &[Partition],
        first: Version,
        evicts: bool,
    ) -> Self {
        let state = State {
            last: partitions
                .iter()
                .map(|partition| (partition.number(), first))
                .collect(),
            ..State::default()
        };
        Self {
            now: state.clone(),
            certain: state,
            log: Vec::new(),
            before: 0,
            written: 0,
            waiting: vec![Vec::new(); shards],
            evicts,
        }
    }

    /// A record was put into the journal of a shard.
    pub(crate) fn journal(&mut self, shard: usize, entry: Entry) {
        self.now.apply(&entry);
        self.waiting[shard].push(entry);
    }

    /// The journal of a shard was taken, and is written next.
    pub(crate) fn take(&mut self, shard: usize) {
        self.log.append(&mut self.waiting[shard]);
    }

    /// A record that is of no shard is written next.
    pub(crate) fn append(&mut self, entry: Entry) {
        self.now.apply(&entry);
        self.log.push(entry);
    }

    /// All that was taken is written. Says how much that is.
    pub(crate) fn note_written(&mut self) -> usize {
        self.written = self.before + self.log.len();
        self.written
    }

    /// All up to this place is synced.
    pub(crate) fn note_synced(&mut self, place: usize) {
        let count = place.saturating_sub(self.before);
        for entry in self.log.drain(..count) {
            self.certain.apply(&entry);
        }
        self.before += count;
    }

    /// Whether a record of this key, or a flush of it, is in the journal of the shard or was taken and is not written.
    pub(crate) fn is_unkept(&self, shard: usize, key: &[u8]) -> bool {
        let unwritten = &self.log[self.written.saturating_sub(self.before)..];
        let mut entries = self.waiting[shard].iter().chain(unwritten);
        entries.any(|entry| entry.touches(key))
    }

    /// Whether all is written.
    pub(crate) fn is_all_written(&self) -> bool {
        self.written == self.before + self.log.len() && self.waiting.iter().all(Vec::is_empty)
    }

    /// The process is gone. What it wrote is there as long as the power is not lost, and what it synced in any case.
    pub(crate) fn end(&mut self, power_is_lost: bool) {
        if power_is_lost {
            self.written = self.before;
        }
        self.waiting.iter_mut().for_each(Vec::clear);
    }

    /// Of every key that is not as it once was there is a record or a tombstone, or the horizon says that there may be none.
    pub(crate) fn assert_told(&self, found: &Found) {
        let State { items, gone, .. } = &self.now;
        let items = items.iter().map(|(key, item)| (key, item.version));
        let gone = gone.iter().map(|(key, version)| (key, *version));
        for (key, version) in items.chain(gone) {
            if !found.items.contains_key(key)
                && let Some(wrong) = found.is_untold(key, version)
            {
                panic!("{wrong}");
            }
        }
    }

    /// Finds how much of the log was recovered, and goes on from there; says what is wrong if there is no such place.
    pub(crate) fn settle(&mut self, found: &Found, now_ms: u64) -> Result<usize, String> {
        let mut state = self.certain.clone();
        let mut nearest = String::new();
        for count in 0..=self.log.len() {
            if count > 0 {
                state.apply(&self.log[count - 1]);
            }
            if self.before + count < self.written {
                continue;
            }
            let Some(difference) = state.difference(found, now_ms, self.evicts) else {
                self.before += count;
                self.written = self.before;
                self.log.clear();
                self.now.clone_from(&state);
                self.certain = state;
                return Ok(count);
            };
            // The one that is as far in the log says most.
            if state.last == found.last || nearest.is_empty() {
                nearest = difference;
            }
        }
        Err(format!(
            "it is none of the {} states that it may be: {nearest}",
            self.before + self.log.len() + 1 - self.written,
        ))
    }
}
