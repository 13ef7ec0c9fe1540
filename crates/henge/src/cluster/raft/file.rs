//! `raft.redb`: Raft's log, its vote and its newest snapshot in the data directory, as calls that return when all is on the disk. The
//! Raft id is in it as well, so that it goes when the log goes. It does not know when it is called, and the first failure is
//! the last thing that it does: what is on the disk after one is not known.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::ops::{Bound, RangeBounds};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use henge_cluster::agreed::Agreed;
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable,
    TableDefinition, TableError, WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::types::{Entry, LogId, SnapshotMeta, Vote};

/// The form of the records that is written, and the newest that is read. What is agreed on has a number of its own.
const FORMAT: u32 = 1;
/// The file's name.
pub(super) const NAME: &str = "raft.redb";
/// The file is read at a start, and when another node is behind; the default of redb is 1 GiB.
const CACHE_BYTES: usize = 1 << 20;

/// Entries by their index, as JSON.
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// One record of each name below, as JSON.
const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
const FORMAT_KEY: &str = "format";
const INSTANCE_KEY: &str = "instance";
const VOTE_KEY: &str = "vote";
const COMMITTED_KEY: &str = "committed";
const PURGED_KEY: &str = "purged";
const SNAPSHOT_KEY: &str = "snapshot";

/// Why the file cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FileError {
    /// Another process has it.
    InUse(PathBuf),
    /// It has a form that only a newer program reads.
    Newer(PathBuf, u32),
    /// It is that of another Raft id.
    OtherInstance(PathBuf),
    /// It holds something that cannot be: which record, and what is wrong.
    Malformed(String, String),
    /// The disk, or the file as a whole.
    Failed(PathBuf, String),
    /// It is closed.
    Closed,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(f, "{}: another process has it", path.display()),
            Self::Newer(path, format) => write!(
                f,
                "{}: it has the format {format}, and this program reads {FORMAT}; a newer one wrote it",
                path.display()
            ),
            Self::OtherInstance(path) => write!(
                f,
                "{}: it is the log of another node than the one that this directory is of",
                path.display()
            ),
            Self::Malformed(record, text) => write!(f, "{NAME}: its {record} is damaged: {text}"),
            Self::Failed(path, text) => write!(f, "{}: {text}", path.display()),
            Self::Closed => write!(f, "{NAME} is closed"),
        }
    }
}

impl std::error::Error for FileError {}

/// A snapshot as it is kept, and as it is sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) meta: SnapshotMeta,
    pub(super) agreed: Agreed,
}

/// The ends of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ends {
    /// The last entry that was purged.
    pub(super) purged: Option<LogId>,
    /// The last entry that there is, or else that was purged.
    pub(super) last: Option<LogId>,
}

/// See the head of the file.
pub(super) struct RaftFile {
    path: PathBuf,
    database: Database,
    failed: Option<FileError>,
}

impl RaftFile {
    /// Opens the file of a directory, or makes one for a Raft id.
    pub(super) fn open(directory: &Path, instance: u64) -> Result<Self, FileError> {
        let path = directory.join(NAME);
        // Made for its owner only, as all files of the directory; redb takes an empty one for a new one.
        let mut create = OpenOptions::new();
        create.write(true).create(true).truncate(false).mode(0o600);
        let created = create.open(&path);
        created.map_err(|error| FileError::Failed(path.clone(), error.to_string()))?;
        let database = builder().create(&path).map_err(|e| opening(&path, e))?;
        let file = Self {
            path,
            database,
            failed: None,
        };
        if file.check_format()?.is_none() {
            file.write(Durability::Immediate, |write| {
                let mut state = open(write.open_table(STATE))?;
                put(&mut state, FORMAT_KEY, &FORMAT)?;
                put(&mut state, INSTANCE_KEY, &instance)?;
                open(write.open_table(LOG))?;
                Ok(())
            })?;
            // The name of a new file is not on the disk until its directory is.
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(|error| file.failure(&error))?;
        }
        if file.get(INSTANCE_KEY)? == Some(instance) {
            Ok(file)
        } else {
            Err(FileError::OtherInstance(file.path.clone()))
        }
    }

    /// Opens the file of a directory, if there is one, and gives the Raft id that it is of.
    pub(super) fn existing(directory: &Path) -> Result<Option<(Self, u64)>, FileError> {
        let path = directory.join(NAME);
        let is_there = path.try_exists();
        if !is_there.map_err(|error| FileError::Failed(path.clone(), error.to_string()))? {
            return Ok(None);
        }
        let database = builder().create(&path).map_err(|e| opening(&path, e))?;
        let file = Self {
            path,
            database,
            failed: None,
        };
        // The process that made it did not come so far as to say whose it is.
        if file.check_format()?.is_none() {
            return Ok(None);
        }
        let instance = file.get(INSTANCE_KEY)?;
        Ok(instance.map(|instance| (file, instance)))
    }

    /// Works on the file, unless it has failed before.
    pub(super) fn latched<T>(
        &mut self,
        work: impl FnOnce(&Self) -> Result<T, FileError>,
    ) -> Result<T, FileError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let result = work(self);
        if let Err(error) = &result {
            tracing::error!(%error, "Raft's log failed; this node takes no part in what the cluster agrees on until it is started anew");
            self.failed = Some(error.clone());
        }
        result
    }

    pub(super) fn vote(&self) -> Result<Option<Vote>, FileError> {
        self.get(VOTE_KEY)
    }

    pub(super) fn set_vote(&self, vote: &Vote) -> Result<(), FileError> {
        self.set(Durability::Immediate, VOTE_KEY, vote)
    }

    pub(super) fn committed(&self) -> Result<Option<LogId>, FileError> {
        let committed: Option<Option<LogId>> = self.get(COMMITTED_KEY)?;
        Ok(committed.flatten())
    }

    /// Notes how far the log is committed; it comes to the disk with what is written next, as a start without it finds out by itself.
    pub(super) fn set_committed(&self, committed: Option<LogId>) -> Result<(), FileError> {
        self.set(Durability::None, COMMITTED_KEY, &committed)
    }

    pub(super) fn ends(&self) -> Result<Ends, FileError> {
        let purged: Option<LogId> = self.get(PURGED_KEY)?;
        let read = self.read()?;
        let log = self.table(read.open_table(LOG))?;
        let last = log.last().map_err(|e| self.failure(&e))?;
        let last = last.map(|(index, entry)| parse_entry(index.value(), entry.value()));
        let last = last.transpose()?.map(|entry| entry.log_id);
        Ok(Ends {
            purged,
            last: last.or(purged),
        })
    }

    /// Entries of a range, as many as have so many bytes together; the first that there is in any case.
    pub(super) fn entries(
        &self,
        range: (Bound<u64>, Bound<u64>),
        most_bytes: usize,
    ) -> Result<Vec<Entry>, FileError> {
        if is_empty(range) {
            return Ok(Vec::new());
        }
        let read = self.read()?;
        let log = self.table(read.open_table(LOG))?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in log.range::<u64>(range).map_err(|e| self.failure(&e))? {
            let (index, entry) = entry.map_err(|e| self.failure(&e))?;
            bytes += entry.value().len();
            if bytes > most_bytes && !entries.is_empty() {
                break;
            }
            entries.push(parse_entry(index.value(), entry.value())?);
        }
        Ok(entries)
    }

    pub(super) fn append(&self, entries: &[Entry]) -> Result<(), FileError> {
        self.write(Durability::Immediate, |write| {
            let mut log = open(write.open_table(LOG))?;
            for entry in entries {
                let bytes = json(entry)?;
                let inserted = log.insert(entry.log_id.index, &bytes[..]);
                inserted.map_err(|error| error.to_string())?;
            }
            Ok(())
        })
    }

    /// Takes away all entries from an index on.
    pub(super) fn truncate(&self, from: u64) -> Result<(), FileError> {
        self.write(Durability::Immediate, |write| {
            let mut log = open(write.open_table(LOG))?;
            let removed = log.retain_in(from.., |_, _| false);
            removed.map_err(|error| error.to_string())
        })
    }

    /// Takes away all entries up to one.
    pub(super) fn purge(&self, upto: LogId) -> Result<(), FileError> {
        self.write(Durability::Immediate, |write| {
            let mut log = open(write.open_table(LOG))?;
            let removed = log.retain_in(..=upto.index, |_, _| false);
            removed.map_err(|error| error.to_string())?;
            put(&mut open(write.open_table(STATE))?, PURGED_KEY, &upto)
        })
    }

    pub(super) fn snapshot(&self) -> Result<Option<Kept>, FileError> {
        self.get(SNAPSHOT_KEY)
    }

    /// Keeps a snapshot in the place of the one before, unless that is newer: then it is given back.
    pub(super) fn set_snapshot(&self, kept: &Kept) -> Result<Option<Kept>, FileError> {
        if let Some(present) = self.snapshot()?
            && present.meta.last_log_id > kept.meta.last_log_id
        {
            return Ok(Some(present));
        }
        self.set(Durability::Immediate, SNAPSHOT_KEY, kept)?;
        Ok(None)
    }

    /// Puts a snapshot in the place of all that there is.
    pub(super) fn begin_anew(&self, vote: &Vote, kept: &Kept) -> Result<(), FileError> {
        self.write(Durability::Immediate, |write| {
            let mut log = open(write.open_table(LOG))?;
            let removed = log.retain(|_, _| false);
            removed.map_err(|error| error.to_string())?;
            let mut state = open(write.open_table(STATE))?;
            put(&mut state, VOTE_KEY, vote)?;
            put(&mut state, SNAPSHOT_KEY, kept)?;
            put(&mut state, COMMITTED_KEY, &kept.meta.last_log_id)?;
            put(&mut state, PURGED_KEY, &kept.meta.last_log_id)
        })
    }

    /// The number of the form; none if nothing was written yet.
    fn check_format(&self) -> Result<Option<u32>, FileError> {
        let read = self.read()?;
        match read.open_table(STATE) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(self.failure(&error)),
            Ok(_) => {}
        }
        match self.get(FORMAT_KEY)? {
            Some(newer) if newer > FORMAT => Err(FileError::Newer(self.path.clone(), newer)),
            other => Ok(other),
        }
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, FileError> {
        let read = self.read()?;
        let state = self.table(read.open_table(STATE))?;
        let bytes = state.get(key).map_err(|error| self.failure(&error))?;
        let record = bytes.map(|bytes| serde_json::from_slice(bytes.value()));
        let record = record.transpose();
        record.map_err(|error| FileError::Malformed(key.to_owned(), error.to_string()))
    }

    fn set(
        &self,
        durability: Durability,
        key: &str,
        record: &impl Serialize,
    ) -> Result<(), FileError> {
        self.write(durability, |write| {
            put(&mut open(write.open_table(STATE))?, key, record)
        })
    }

    fn read(&self) -> Result<ReadTransaction, FileError> {
        self.database.begin_read().map_err(|e| self.failure(&e))
    }

    fn table<T>(&self, table: Result<T, TableError>) -> Result<T, FileError> {
        table.map_err(|error| self.failure(&error))
    }

    /// All of some changes, or none.
    fn write(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<(), String>,
    ) -> Result<(), FileError> {
        let failure = |text| FileError::Failed(self.path.clone(), text);
        let begun = self.database.begin_write();
        let mut write = begun.map_err(|error| self.failure(&error))?;
        let set = write.set_durability(durability);
        set.map_err(|error| self.failure(&error))?;
        change(&write).map_err(failure)?;
        write.commit().map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &impl fmt::Display) -> FileError {
        FileError::Failed(self.path.clone(), error.to_string())
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    // Without it redb may panic on a file that was damaged; this one is small enough to be read through.
    builder.set_check_integrity_on_open(true);
    builder
}

fn opening(path: &Path, error: DatabaseError) -> FileError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => FileError::InUse(path.to_owned()),
        error => FileError::Failed(path.to_owned(), error.to_string()),
    }
}

fn open<T>(table: Result<T, TableError>) -> Result<T, String> {
    table.map_err(|error| error.to_string())
}

fn put(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: &str,
    record: &impl Serialize,
) -> Result<(), String> {
    let bytes = json(record)?;
    let inserted = table.insert(key, &bytes[..]);
    inserted.map(drop).map_err(|error| error.to_string())
}

fn json(record: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(record).map_err(|error| error.to_string())
}

fn parse_entry(index: u64, bytes: &[u8]) -> Result<Entry, FileError> {
    let parsed = serde_json::from_slice(bytes);
    parsed.map_err(|e| FileError::Malformed(format!("entry {index}"), e.to_string()))
}

/// redb takes a range whose end is before its begin for a mistake.
fn is_empty(range: (Bound<u64>, Bound<u64>)) -> bool {
    let first = match range.start_bound() {
        Bound::Included(first) => Some(*first),
        Bound::Excluded(before) => before.checked_add(1),
        Bound::Unbounded => Some(0),
    };
    first.is_none_or(|first| !range.contains(&first))
}
