//! What this node has found to be lost, and what it cannot know: reports of its replicas, and of starts without their memory. A
//! bounded list, in a file of the data directory, so that it outlives the process, which mostly has ended once before there is
//! anything to report. What other nodes have found is theirs to say; [`Merged`] makes one list of all.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use henge_cluster::replica::{Fate, Loss};
use henge_wire::{Partition, Version};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::disk::files::{sync_directory, to_make};

mod merged;

pub(crate) use merged::{Merged, Of};

/// Entries that are kept: more than a partition each.
pub(crate) const KEPT: usize = 4_096;
/// The form of the file that is written, and the newest that is read.
const FORMAT: u32 = 1;
const FILE: &str = "losses.json";

/// A run of entries that did not survive, or something of which nobody knows whether it did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// None of what is about all that the node had.
    pub(crate) partition: Option<u16>,
    pub(crate) generation: Option<u32>,
    /// The first and the last version of the run; none where nobody knows which.
    #[serde(with = "as_text")]
    pub(crate) first: Option<Version>,
    #[serde(with = "as_text")]
    pub(crate) last: Option<Version>,
    /// Why it is not known; none of what is known to be lost.
    pub(crate) unknown: Option<String>,
    /// When it was found, in milliseconds since 1970.
    pub(crate) time_ms: u64,
}

impl Entry {
    /// The run, if there is one that can be read.
    pub(crate) fn run(&self) -> Option<(Version, Version)> {
        let (first, last) = (self.first?, self.last?);
        (first.seq() <= last.seq()).then_some((first, last))
    }

    /// How many entries were lost; none of what is not known.
    pub(crate) fn count(&self) -> Option<u64> {
        if self.unknown.is_some() {
            return None;
        }
        let (first, last) = self.run()?;
        Some(last.seq() - first.seq() + 1)
    }

    fn of(partition: Partition, loss: &Loss, time_ms: u64) -> Self {
        let (first, last) = loss.versions.unzip();
        Self {
            partition: Some(partition.number()),
            generation: Some(loss.generation),
            first,
            last,
            unknown: why(loss.fate).map(str::to_owned),
            time_ms,
        }
    }

    /// Whether this one says all that another does.
    fn covers(&self, other: &Self) -> bool {
        let is_same = (self.partition, self.generation) == (other.partition, other.generation);
        let (Some(own), Some(its)) = (self.run(), other.run()) else {
            return self.unknown == other.unknown && is_same && self.run() == other.run();
        };
        let is_at_least = self.unknown.is_none() || self.unknown == other.unknown;
        let is_one_term = own.0.term() == its.0.term() && own.1.term() == its.1.term();
        is_same
            && is_at_least
            && is_one_term
            && own.0.seq() <= its.0.seq()
            && its.1.seq() <= own.1.seq()
    }
}

impl Entry {
    /// How many entries both say are lost.
    fn overlap(&self, other: &Self) -> u64 {
        let is_same = (self.partition, self.generation) == (other.partition, other.generation);
        let are_known = self.unknown.is_none() && other.unknown.is_none();
        let (Some(own), Some(its)) = (self.run(), other.run()) else {
            return 0;
        };
        if !is_same || !are_known || own.0.term() != its.0.term() {
            return 0;
        }
        let (first, last) = (own.0.seq().max(its.0.seq()), own.1.seq().min(its.1.seq()));
        (last + 1).saturating_sub(first)
    }
}

/// Versions in the file and between nodes: the text that clients see.
mod as_text {
    use henge_wire::Version;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    #[expect(clippy::ref_option, reason = "so serde calls it")]
    pub(super) fn serialize<S: Serializer>(
        version: &Option<Version>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        version.map(|version| version.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Version>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(de::Error::custom))
            .transpose()
    }
}

/// Why it is not known whether something was lost; none where it is known that it was.
fn why(fate: Fate) -> Option<&'static str> {
    match fate {
        Fate::Replaced => None,
        Fate::Reset => Some(
            "the partition began anew, as a majority of its replicas had lost its memory, and what this replica had counted for nothing",
        ),
        Fate::Removed => {
            Some("the replica was removed while it had more than it knew to be committed")
        }
        Fate::Forgotten => {
            Some("it was stamped so many changes of leader ago that no order tells any more")
        }
    }
}

/// What a node has found, as it lies on the disk and as it is told to others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    format: u32,
    /// What happened before is not in it.
    pub(crate) since_ms: u64,
    /// Entries that were lost, and findings that nobody knows, of all that was found since then.
    pub(crate) lost_entries: u64,
    pub(crate) unknown: u64,
    /// Findings that the list has no room for any more: the oldest.
    pub(crate) forgotten: u64,
    /// The oldest first.
    pub(crate) entries: Vec<Entry>,
    /// By partitions, what a replica has given up and may yet have survived elsewhere.
    unsettled: BTreeMap<u16, Vec<Entry>>,
}

impl Found {
    fn new(since_ms: u64) -> Self {
        Self {
            format: FORMAT,
            since_ms,
            lost_entries: 0,
            unknown: 0,
            forgotten: 0,
            entries: Vec::new(),
            unsettled: BTreeMap::new(),
        }
    }

    fn add(&mut self, entry: Entry) {
        if self.entries.iter().any(|known| known.covers(&entry)) {
            return;
        }
        match entry.count() {
            Some(count) => {
                // A start that had not kept what it took over finds the same again, and perhaps more.
                let known = self.entries.iter().map(|known| known.overlap(&entry)).sum();
                self.lost_entries += count.saturating_sub(known);
            }
            None => self.unknown += 1,
        }
        // What was not known is known better now.
        self.entries.retain(|known| !entry.covers(known));
        if self.entries.len() == KEPT {
            self.entries.remove(0);
            self.forgotten += 1;
        }
        self.entries.push(entry);
    }

    fn unsettled(&self) -> impl Iterator<Item = Entry> {
        const WHY: &str = "the node ended after it had given this up, and before it was settled whether others have it";
        let all = self.unsettled.values().flatten().cloned();
        all.map(|entry| Entry {
            unknown: entry.unknown.or_else(|| Some(WHY.to_owned())),
            ..entry
        })
    }

    fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let found: Self = serde_json::from_slice(&text)?;
        if found.format != FORMAT {
            let newer = format!(
                "format {}, and this version reads format {FORMAT} only",
                found.format
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, newer));
        }
        Ok(Some(found))
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Losses {
    path: PathBuf,
    clock: Clock,
    found: Mutex<Found>,
    /// Is told that the file is older than what is here.
    changed: Notify,
}

impl Losses {
    /// What the last life has left in a data directory. What it had not settled is unknown from now on, and so is what a file said
    /// that cannot be read: that stays, under another name.
    pub(crate) fn open(directory: &Path, clock: Clock) -> Self {
        let path = directory.join(FILE);
        let now_ms = clock.now_ms();
        let mut found = match Found::read(&path) {
            Ok(found) => found.unwrap_or_else(|| Found::new(now_ms)),
            Err(error) => {
                let aside = path.with_extension("json.unreadable");
                tracing::error!(%error, file = %path.display(), kept_as = %aside.display(), "the list of losses cannot be read, and begins anew");
                if let Err(error) = fs::rename(&path, &aside) {
                    tracing::error!(%error, "it could not be kept");
                }
                let mut found = Found::new(now_ms);
                found.add(Entry {
                    partition: None,
                    generation: None,
                    first: None,
                    last: None,
                    unknown: Some("the node's list of losses could not be read".to_owned()),
                    time_ms: now_ms,
                });
                found
            }
        };
        for entry in found.unsettled().collect::<Vec<_>>() {
            found.add(entry);
        }
        found.unsettled.clear();
        let losses = Self {
            path,
            clock,
            found: Mutex::new(found),
            changed: Notify::new(),
        };
        losses.note_unwritten();
        losses
    }

    /// A replica reports.
    pub(crate) fn add(&self, partition: Partition, loss: &Loss) {
        let entry = Entry::of(partition, loss, self.clock.now_ms());
        self.found.lock().add(entry);
        self.note_unwritten();
    }

    /// What a replica has given up by now and may have survived, in place of what it said before.
    pub(crate) fn note_unsettled(&self, partition: Partition, losses: &[Loss]) {
        let now_ms = self.clock.now_ms();
        let entries = losses.iter();
        let entries: Vec<Entry> = entries
            .map(|loss| Entry::of(partition, loss, now_ms))
            .collect();
        let mut found = self.found.lock();
        if entries.is_empty() {
            found.unsettled.remove(&partition.number());
        } else {
            found.unsettled.insert(partition.number(), entries);
        }
        drop(found);
        self.changed.notify_one();
    }

    /// The node has started without what it had, or may have: of what it alone had nothing is known.
    pub(crate) fn note_amnesia(&self, why: &str) {
        let entry = Entry {
            partition: None,
            generation: None,
            first: None,
            last: None,
            unknown: Some(format!("the node lost its memory: {why}")),
            time_ms: self.clock.now_ms(),
        };
        let mut found = self.found.lock();
        // Of the same kind as one before, and not the same.
        found.unknown += 1;
        if found.entries.len() == KEPT {
            found.entries.remove(0);
            found.forgotten += 1;
        }
        found.entries.push(entry);
        drop(found);
        self.changed.notify_one();
    }

    /// All of it, as it is told to others.
    pub(crate) fn found(&self) -> Found {
        self.found.lock().clone()
    }

    /// How many entries were lost, and how many findings are of what is not known.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let found = self.found.lock();
        (found.lost_entries, found.unknown)
    }

    /// Waits until there is something to write.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is here is on the disk not yet.
    pub(crate) fn note_unwritten(&self) {
        self.changed.notify_one();
    }

    /// Writes it beside and renames it, so that there is always a whole one.
    pub(crate) fn write(&self) -> io::Result<()> {
        // Not under the lock, which replicas take while their shards are locked.
        let text = serde_json::to_vec(&self.found())?;
        let beside = self.path.with_extension("json.part");
        let mut file = to_make().create(true).truncate(true).open(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        match self.path.parent() {
            Some(directory) => sync_directory(directory),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u16) -> Partition {
        Partition::new(number).expect("it is one")
    }

    fn lost(term: u32, first: u64, last: u64, fate: Fate) -> Loss {
        Loss {
            generation: 2,
            versions: Some((Version::new(term, first), Version::new(term, last))),
            fate,
        }
    }

    fn directory() -> PathBuf {
        let name = format!(
            "henge-losses-{}-{}",
            std::process::id(),
            crate::encryption::random_number()
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    }

    #[test]
    fn what_was_found_outlives_the_process_and_what_was_not_settled_is_unknown() {
        let directory = directory();
        let losses = Losses::open(&directory, Clock::start());
        let since_ms = losses.found().since_ms;
        losses.add(partition(3), &lost(4, 10, 12, Fate::Replaced));
        // The same again says nothing new.
        losses.add(partition(3), &lost(4, 10, 12, Fate::Replaced));
        // Some of it again, and more.
        losses.add(partition(3), &lost(4, 12, 13, Fate::Replaced));
        losses.note_unsettled(partition(5), &[lost(6, 1, 2, Fate::Replaced)]);
        losses.note_amnesia("it was in memory");
        assert_eq!(losses.counts(), (4, 1));
        losses.write().expect("there is room");
        let again = Losses::open(&directory, Clock::start());
        let found = again.found();
        assert_eq!(found.since_ms, since_ms);
        assert_eq!(again.counts(), (4, 2));
        let unsettled = &found.entries[3];
        assert_eq!(unsettled.partition, Some(5));
        assert_eq!(
            unsettled.run(),
            Some((Version::new(6, 1), Version::new(6, 2)))
        );
        assert!(unsettled.unknown.is_some() && unsettled.count().is_none());
        assert!(found.unsettled.is_empty());
        // Found out later, it is unknown no more.
        again.add(partition(5), &lost(6, 1, 3, Fate::Replaced));
        assert_eq!(again.found().entries.len(), 4);
        assert_eq!(again.found().entries[3].count(), Some(3));
        fs::remove_dir_all(&directory).expect("it is there");
    }

    #[test]
    fn a_list_that_cannot_be_read_is_unknown_and_kept() {
        let directory = directory();
        for text in ["{", r#"{"format":2}"#] {
            fs::write(directory.join(FILE), text).expect("there is room");
            let losses = Losses::open(&directory, Clock::start());
            assert_eq!(losses.counts(), (0, 1), "{text}");
            let kept = fs::read_to_string(directory.join("losses.json.unreadable"));
            assert_eq!(kept.expect("it is there"), text);
        }
        fs::remove_dir_all(&directory).expect("it is there");
    }

    #[test]
    fn the_list_has_a_bound_and_says_what_it_left_out() {
        let directory = directory();
        let losses = Losses::open(&directory, Clock::start());
        for seq in 1..=KEPT as u64 + 2 {
            // Not side by side, and so each by itself.
            losses.add(partition(0), &lost(3, 2 * seq, 2 * seq, Fate::Replaced));
        }
        let found = losses.found();
        assert_eq!((found.entries.len(), found.forgotten), (KEPT, 2));
        assert_eq!(found.lost_entries, KEPT as u64 + 2);
        assert_eq!(found.entries[0].first, Some(Version::new(3, 6)));
        fs::remove_dir_all(&directory).expect("it is there");
    }

    /// Written once, and read for ever.
    #[test]
    fn the_file_has_this_form() {
        let mut found = Found::new(5);
        found.add(Entry::of(partition(1), &lost(4, 10, 12, Fate::Replaced), 7));
        found.unsettled.insert(
            2,
            vec![Entry::of(partition(2), &lost(9, 1, 1, Fate::Reset), 8)],
        );
        let text = r#"{"format":1,"since_ms":5,"lost_entries":3,"unknown":0,"forgotten":0,"entries":[{"partition":1,"generation":2,"first":"4-10","last":"4-12","unknown":null,"time_ms":7}],"unsettled":{"2":[{"partition":2,"generation":2,"first":"9-1","last":"9-1","unknown":"the partition began anew, as a majority of its replicas had lost its memory, and what this replica had counted for nothing","time_ms":8}]}}"#;
        assert_eq!(serde_json::to_string(&found).expect("it is JSON"), text);
        let read: Found = serde_json::from_str(text).expect("it is one");
        assert_eq!(read, found);
    }
}
