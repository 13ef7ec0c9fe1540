//! The data directory: whose it is, that only one process has it, and what the last process that had it leaves behind of
//! what it had promised.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use henge_engine::persistence::Position;
use henge_engine::persistence::recovery::LogEnd;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::files::{make_directory, sync_directory, to_make};
use crate::config::SyncPolicy;

/// The form of the file below that is written, and the newest that is read.
const FORMAT: u32 = 1;
const LOCK: &str = "lock";
pub(super) const STATE: &str = "node.json";

/// What a life of the node leaves behind; the file `node.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    format: u32,
    pub(crate) node_id: String,
    /// How many processes have had the directory; this one included.
    pub(crate) incarnation: u64,
    /// Which start of the machine it was.
    boot_id: String,
    /// How its log was synced; none if it had none.
    sync: Option<String>,
    /// It ended in order, with all of its log synced.
    clean: bool,
    /// A repair took something out of the log or a snapshot.
    pub(crate) repaired: bool,
    /// The disk failed, and what was acknowledged may not be on it.
    #[serde(default)]
    pub(crate) failed: bool,
    /// The latest time that the node's clock is known to have come to, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) seen_ms: u64,
    /// The latest seq that partitions went on from where it was not known what they had stamped.
    #[serde(default)]
    pub(crate) first_seq: u64,
    /// A place that the log has come to: where this life began in it, and where it ended in order.
    #[serde(default)]
    log_segment: u64,
    #[serde(default)]
    log_offset: u64,
}

/// The state of this life and the file that has it. All who change something in it do it here, so that none takes back what
/// another has noted.
#[derive(Clone, Debug)]
pub(crate) struct Ledger(Arc<(PathBuf, Mutex<State>)>);

impl Ledger {
    /// Changes the state, and returns when it is on the disk.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) -> Result<(), DirectoryError> {
        let (path, state) = &*self.0;
        let mut state = state.lock();
        change(&mut state);
        state.write(path)
    }

    /// As it is now.
    pub(crate) fn state(&self) -> State {
        self.0.1.lock().clone()
    }
}

/// Whether writes that were acknowledged may be missing after a start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Missing {
    /// Why they may be; none if they cannot.
    pub(crate) reason: Option<String>,
}

/// What the last life says of its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Left {
    /// It had come to there.
    log_end: Position,
    /// The machine has stopped since: segments may have gone with what was not synced.
    may_be_torn: bool,
}

/// The directory, held by this process until it is dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    /// The lock lasts as long as it is open.
    _lock: File,
    pub(crate) ledger: Ledger,
    /// What the last life left, as far as its state tells.
    pub(crate) missing: Missing,
    left: Option<Left>,
    /// The last life kept all in memory: what is in the log is older than what it served.
    pub(crate) is_outdated: bool,
    /// The disk failed in the last life: what is read now it may not have.
    pub(crate) is_in_doubt: bool,
}

/// Why a directory cannot be had.
#[derive(Debug)]
pub(crate) enum DirectoryError {
    /// The system refused: what, and where.
    Io(&'static str, PathBuf, io::Error),
    /// Another process has it.
    Locked(PathBuf),
    /// It is the directory of another node.
    OtherNode {
        path: PathBuf,
        found: String,
        wanted: String,
    },
    /// Its state cannot be read.
    State(PathBuf, String),
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, path, error) => {
                write!(
                    f,
                    "cannot {what} the data directory {}: {error}",
                    path.display()
                )
            }
            Self::Locked(path) => write!(
                f,
                "the data directory {} is in use by another process",
                path.display()
            ),
            Self::OtherNode {
                path,
                found,
                wanted,
            } => write!(
                f,
                "the data directory {} is that of the node {found}, and this one is {wanted}; give another persistence.dir or cluster.node_id",
                path.display()
            ),
            Self::State(path, detail) => write!(f, "{}: {detail}", path.display()),
        }
    }
}

impl std::error::Error for DirectoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, _, error) => Some(error),
            _ => None,
        }
    }
}

impl Directory {
    /// Takes the directory for this process, makes it if need be, and notes that a life has begun that syncs its log so.
    pub(crate) fn take(
        path: PathBuf,
        node_id: Option<&str>,
        default_id: &str,
        sync: Option<SyncPolicy>,
    ) -> Result<Self, DirectoryError> {
        let (path, lock, last) = Self::lock(path)?;
        let boot_id = boot_id();
        if let (Some(last), Some(wanted)) = (&last, node_id)
            && last.node_id != wanted
        {
            let (found, wanted) = (last.node_id.clone(), wanted.to_owned());
            return Err(DirectoryError::OtherNode {
                path,
                found,
                wanted,
            });
        }
        let state = State {
            format: FORMAT,
            node_id: match (&last, node_id) {
                (_, Some(id)) => id.to_owned(),
                (Some(last), None) => last.node_id.clone(),
                (None, None) => default_id.to_owned(),
            },
            incarnation: last.as_ref().map_or(0, |last| last.incarnation) + 1,
            boot_id,
            sync: sync.map(|sync| sync.name().to_owned()),
            clean: false,
            repaired: false,
            failed: false,
            seen_ms: last.as_ref().map_or(0, |last| last.seen_ms),
            first_seq: last.as_ref().map_or(0, |last| last.first_seq),
            log_segment: 0,
            log_offset: 0,
        };
        let missing = Missing {
            reason: last.as_ref().and_then(|last| last.missing(&state.boot_id)),
        };
        let is_in_doubt = last.as_ref().is_some_and(|last| last.failed);
        let is_outdated = last.as_ref().is_some_and(State::is_memory_only);
        let left = last.map(|last| Left {
            log_end: last.log_end(),
            may_be_torn: last.boot_id != state.boot_id || state.boot_id.is_empty(),
        });
        Ok(Self {
            ledger: Ledger(Arc::new((path.clone(), Mutex::new(state)))),
            path,
            _lock: lock,
            missing,
            left,
            is_outdated,
            is_in_doubt,
        })
    }

    /// Takes it for a tool, which leaves its state as it is. There must be one.
    pub(crate) fn borrow(path: PathBuf) -> Result<(File, Option<State>), DirectoryError> {
        if !path.is_dir() {
            let error = io::Error::from(io::ErrorKind::NotFound);
            return Err(DirectoryError::Io("open", path, error));
        }
        let (_, lock, state) = Self::lock(path)?;
        Ok((lock, state))
    }

    fn lock(path: PathBuf) -> Result<(PathBuf, File, Option<State>), DirectoryError> {
        let failed = |what, error| DirectoryError::Io(what, path.clone(), error);
        make_directory(&path).map_err(|error| failed("make", error))?;
        // What is in it stays, if it is another's.
        let lock = to_make().create(true).truncate(false).open(path.join(LOCK));
        let lock = lock.map_err(|error| failed("write to", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirectoryError::Locked(path)),
            Err(TryLockError::Error(error)) => return Err(failed("lock", error)),
        }
        let state = State::read(&path)?;
        Ok((path, lock, state))
    }

    /// Why writes may be missing, by what was found of the log, if they may: no process that ended leaves such a one.
    pub(crate) fn missing_from(&self, log: &LogEnd) -> Option<&'static str> {
        let segments_cut = log.cut.map_or(0, |cut| cut.segments);
        match self.left {
            // One that was made of a backup has a snapshot, and no log.
            None if log.records > 0 => {
                Some("there is a log, and node.json, which says how it was left, is not")
            }
            Some(left) if log.end < left.log_end => {
                Some("the log ends before a place that it had come to")
            }
            Some(left) if segments_cut > 0 && !left.may_be_torn => {
                Some("the log cannot be read up to its end, though the machine has not stopped")
            }
            _ => None,
        }
    }

    /// Writes down that this life has begun, at this time and with the log here; and the seq that its partitions go on from, if
    /// they do not from what the last one left. From now on the last one's state is gone.
    pub(crate) fn begin(
        &self,
        now_ms: u64,
        first_seq: u64,
        log_end: Position,
    ) -> Result<(), DirectoryError> {
        self.ledger.change(|state| {
            state.note_log_end(log_end);
            state.seen_ms = now_ms;
            state.first_seq = state.first_seq.max(first_seq);
        })
    }

    /// Writes down that this life ended in order, at this time and with its log here, if it has one.
    pub(crate) fn end(&self, now_ms: u64, log_end: Option<Position>) -> Result<(), DirectoryError> {
        self.ledger.change(|state| {
            if let Some(end) = log_end {
                state.note_log_end(end);
            }
            state.seen_ms = now_ms;
            state.clean = true;
        })
    }
}

impl State {
    fn read(path: &Path) -> Result<Option<Self>, DirectoryError> {
        let file = path.join(STATE);
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| DirectoryError::Io("read", path.to_owned(), error))?,
        };
        let state: Self = serde_json::from_str(&text).map_err(|error| {
            DirectoryError::State(file.clone(), format!("not readable: {error}"))
        })?;
        if state.format != FORMAT {
            let detail = format!(
                "format {}, and this version reads format {FORMAT} only",
                state.format
            );
            return Err(DirectoryError::State(file, detail));
        }
        Ok(Some(state))
    }

    /// Writes it beside and renames it, so that there is always a whole one.
    pub(crate) fn write(&self, path: &Path) -> Result<(), DirectoryError> {
        let written = (|| {
            let beside = path.join("node.json.part");
            let mut file = to_make().create(true).truncate(true).open(&beside)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&beside, path.join(STATE))?;
            sync_directory(path)
        })();
        written.map_err(|error| DirectoryError::Io("write to", path.to_owned(), error))
    }

    /// Notes that a repair took something out of the log or a snapshot, which the next start will say.
    pub(crate) fn mark_repaired(mut self, path: &Path) -> Result<(), DirectoryError> {
        self.repaired = true;
        self.write(path)
    }

    fn log_end(&self) -> Position {
        Position {
            segment: self.log_segment,
            offset: self.log_offset,
        }
    }

    fn note_log_end(&mut self, end: Position) {
        (self.log_segment, self.log_offset) = (end.segment, end.offset);
    }

    /// This life kept all in memory: the next start takes nothing from what lies here.
    pub(crate) fn is_memory_only(&self) -> bool {
        self.sync.is_none()
    }

    /// Why writes that this life acknowledged may be missing, if they may.
    fn missing(&self, boot_id: &str) -> Option<String> {
        let reason = match self.sync.as_deref() {
            _ if self.repaired => "a repair took something out of the log",
            _ if self.failed => {
                "the disk failed, and what was not synced then may not have been on it"
            }
            None => "the node kept everything in memory",
            _ if self.clean => return None,
            Some("always") => return None,
            // The kernel had all that was acknowledged, and is the same.
            Some(_) if self.boot_id == boot_id && !boot_id.is_empty() => return None,
            Some("interval") => {
                "the machine stopped, and with persistence.sync = \"interval\" the last writes before that may not have been on the disk"
            }
            Some(_) => {
                "the machine stopped, and with persistence.sync = \"never\" nothing says what was on the disk"
            }
        };
        Some(reason.to_owned())
    }
}

/// Which start of the machine this is; empty where the system does not say.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(sync: Option<&str>, clean: bool, repaired: bool) -> State {
        State {
            format: FORMAT,
            node_id: "a".to_owned(),
            incarnation: 1,
            boot_id: "this".to_owned(),
            sync: sync.map(str::to_owned),
            clean,
            repaired,
            failed: false,
            seen_ms: 0,
            first_seq: 0,
            log_segment: 0,
            log_offset: 0,
        }
    }

    #[test]
    fn what_may_be_missing() {
        // Policy, in order, repaired, the same start of the machine -> whether something may be missing.
        for (sync, clean, repaired, same, expected) in [
            (Some("always"), true, false, false, false),
            (Some("always"), false, false, false, false),
            (Some("interval"), true, false, false, false),
            (Some("interval"), false, false, true, false),
            (Some("interval"), false, false, false, true),
            (Some("never"), false, false, true, false),
            (Some("never"), false, false, false, true),
            (Some("always"), true, true, true, true),
            (None, true, false, true, true),
        ] {
            let boot_id = if same { "this" } else { "another" };
            let missing = state(sync, clean, repaired).missing(boot_id);
            assert_eq!(
                missing.is_some(),
                expected,
                "{sync:?} {clean} {repaired} {same}"
            );
        }
        assert!(state(Some("interval"), false, false).missing("").is_some());
        let mut failed = state(Some("interval"), false, false);
        assert!(failed.missing("this").is_none());
        failed.failed = true;
        assert!(failed.missing("this").is_some());
    }
}
