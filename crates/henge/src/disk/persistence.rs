//! A node and its disk as a whole: takes the data directory, recovers while the port is open and requests are refused,
//! then runs the log and the snapshots, and ends them in order.
//!
//! ```text
//! Loading ──▶ Ready      all was replayed
//!    └──────▶ Failed     what is there cannot be read, and nothing of it was changed; the node is to be stopped
//! ```

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use henge_engine::persistence::frame::LAST_SEQ;
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::log::{LogConfig, LogWriter};
use henge_engine::persistence::recovery::RecoveryError;
use henge_engine::persistence::wal::Record;
use henge_engine::persistence::{FileKind, Name, Position, Storage, StorageFile};
use henge_wire::{Partition, Version};
use parking_lot::{Condvar, Mutex};

use super::bound::Usage;
use super::directory::{Directory, DirectoryError, Missing};
use super::files::Files;
use super::log::{Log, LogThread, Start};
use super::recovery::{Progress, Recovered, recover};
use super::snapshots::{Schedule, SnapshotThread, Snapshots};
use super::timekeeper::{self, TimeKeeper};
use crate::cache::{Cache, Refuses, Whose};
use crate::clock::Clock;
use crate::config::SyncPolicy;
use crate::encryption::{Encryption, salt};
use crate::shared::Live;

/// A segment of the log is full from here on: long enough that beginning one is nothing beside writing it, short enough that
/// a small cache takes little disk.
pub(crate) const SEGMENT_BYTES: u64 = 32 << 20;
/// What is written ahead where each write is synced: of hundreds of rounds of small writes one pays for it.
const AHEAD_BYTES: usize = 256 << 10;
/// For how long writes wait for a snapshot before they are refused: longer than most take, and most clients wait.
const LONGEST_STANDSTILL: Duration = Duration::from_mins(1);

/// Why what is on the disk cannot be had.
#[derive(Debug)]
pub(crate) enum PersistenceError {
    Directory(DirectoryError),
    Recovery(RecoveryError),
    Io(io::Error),
}

impl fmt::Display for PersistenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => error.fmt(f),
            Self::Recovery(error) => error.fmt(f),
            Self::Io(error) => write!(
                f,
                "the log cannot be begun: {error}; what is there is kept for the next start"
            ),
        }
    }
}

impl std::error::Error for PersistenceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory(error) => Some(error),
            Self::Recovery(error) => Some(error),
            Self::Io(error) => Some(error),
        }
    }
}

/// See the head of the file.
pub(crate) struct Persistence {
    /// None for a node that keeps everything in memory.
    pub(crate) log: Option<Arc<Log>>,
    pub(crate) snapshots: Option<Arc<Snapshots>>,
    pub(crate) progress: Progress,
    pub(crate) incarnation: u64,
    missing: Mutex<Missing>,
    pub(crate) path: String,
    pub(crate) encryption: Arc<Encryption>,
    clock: Clock,
    is_loading: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    directory: Directory,
    /// What a recovery has found; none before it is done.
    outcome: Option<Result<Option<Recovered>, Arc<PersistenceError>>>,
    running: Option<(LogThread, SnapshotThread)>,
    time: Option<TimeKeeper>,
}

impl fmt::Debug for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Persistence")
            .field("path", &self.path)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

/// What a recovery needs of the node.
pub(crate) struct Surroundings {
    pub(crate) cache: Arc<Cache>,
    pub(crate) live: Arc<ArcSwap<Live>>,
    /// The version that no write before this start can have come to.
    pub(crate) fresh: Version,
    pub(crate) whose: Whose,
}

impl Persistence {
    /// A node that keeps everything in memory, and goes on from a version.
    pub(crate) fn none(
        directory: Directory,
        encryption: Arc<Encryption>,
        clock: Clock,
        fresh: Version,
    ) -> Result<Self, PersistenceError> {
        let begun = directory.begin(clock.now_ms(), fresh.seq(), Position::default());
        begun.map_err(PersistenceError::Directory)?;
        let time = TimeKeeper::start(directory.ledger.clone(), clock, timekeeper::INTERVAL);
        let own = Self::new(directory, encryption, clock, None, Some(Ok(None)));
        own.state.lock().time = Some(time.map_err(PersistenceError::Io)?);
        Ok(own)
    }

    /// A node that is about to recover.
    pub(crate) fn loading(
        directory: Directory,
        encryption: Arc<Encryption>,
        cache: &Arc<Cache>,
        clock: Clock,
        sync: SyncPolicy,
        threads: usize,
    ) -> Self {
        // Whoever has the cache itself writes nothing to it that no log has.
        cache.refuse_writes(Refuses::Loading, true);
        let log = Arc::new(Log::new(Arc::clone(cache), sync, threads));
        let files = Files::new(&directory.path, Arc::clone(&encryption));
        let snapshots = Snapshots::new(files, Arc::clone(cache), Arc::clone(&log), clock);
        let running = (log, Arc::new(snapshots));
        Self::new(directory, encryption, clock, Some(running), None)
    }

    fn new(
        directory: Directory,
        encryption: Arc<Encryption>,
        clock: Clock,
        running: Option<(Arc<Log>, Arc<Snapshots>)>,
        outcome: Option<Result<Option<Recovered>, Arc<PersistenceError>>>,
    ) -> Self {
        let (log, snapshots) = running.unzip();
        Self {
            log,
            snapshots,
            progress: Progress::default(),
            incarnation: directory.ledger.state().incarnation,
            missing: Mutex::new(directory.missing.clone()),
            path: directory.path.display().to_string(),
            encryption,
            clock,
            is_loading: AtomicBool::new(outcome.is_none()),
            state: Mutex::new(State {
                directory,
                outcome,
                running: None,
                time: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Whether requests have to wait for the end of the recovery.
    #[inline]
    pub(crate) fn is_loading(&self) -> bool {
        self.is_loading.load(Acquire)
    }

    /// The name that the directory knows the node by.
    pub(crate) fn node_id(&self) -> String {
        self.state.lock().directory.ledger.state().node_id
    }

    /// Writes down that this life has a higher number than the directory knew.
    pub(crate) fn note_incarnation(&self, incarnation: u64) -> Result<(), DirectoryError> {
        let ledger = self.state.lock().directory.ledger.clone();
        ledger.change(|state| state.incarnation = incarnation)
    }

    /// Starts the thread that recovers, if there is anything to recover for.
    pub(crate) fn start(
        self: &Arc<Self>,
        around: Surroundings,
    ) -> io::Result<Option<JoinHandle<()>>> {
        if !self.is_loading() {
            return Ok(None);
        }
        let own = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("henge-recovery".to_owned())
            .spawn(move || {
                let outcome = own.recover_and_begin(&around).map_err(Arc::new);
                let mut state = own.state.lock();
                let is_whole = outcome.is_ok();
                match &outcome {
                    Ok(recovered) => tracing::info!("recovered {recovered}"),
                    Err(error) => tracing::error!(%error, "what is on the disk was not loaded"),
                }
                state.outcome = Some(outcome.map(Some));
                if is_whole {
                    own.is_loading.store(false, Release);
                }
                own.changed.notify_all();
            })?;
        Ok(Some(thread))
    }

    /// Waits until the recovery is done, but no longer than this; none if it is not.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<Result<(), Arc<PersistenceError>>> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return Some(outcome.as_ref().map(|_| ()).map_err(Arc::clone));
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return None;
            }
        }
    }

    fn recover_and_begin(&self, around: &Surroundings) -> Result<Recovered, PersistenceError> {
        let Some((log, snapshots)) = self.log.as_ref().zip(self.snapshots.as_ref()) else {
            unreachable!("a node without a log does not recover");
        };
        let cache = &around.cache;
        let (path, is_outdated, is_fresh, is_in_doubt) = {
            let directory = &self.state.lock().directory;
            let is_fresh = self.incarnation == 1;
            let (is_outdated, is_in_doubt) = (directory.is_outdated, directory.is_in_doubt);
            (directory.path.clone(), is_outdated, is_fresh, is_in_doubt)
        };
        let files = Files::new(&path, Arc::clone(&self.encryption));
        if is_outdated {
            forget_all(&files).map_err(PersistenceError::Io)?;
        }
        let now_ms = self.clock.now_ms();
        let recovered =
            recover(&files, cache, now_ms, &self.progress).map_err(PersistenceError::Recovery)?;
        let mut missing = self.missing.lock().clone();
        if let Some(found) = self.state.lock().directory.missing_from(&recovered.log) {
            missing.reason.get_or_insert_with(|| found.to_owned());
            self.missing.lock().clone_from(&missing);
        }
        if let Some(reason) = &missing.reason {
            tracing::warn!(
                reason,
                "writes that were acknowledged before may be missing"
            );
        }
        // What was stamped before and is not in the log must not be stamped again.
        let first = if is_fresh || missing.reason.is_some() {
            // The clock may be behind that of the last life.
            around.fresh.max(beyond(newest(cache)))
        } else {
            Version::ZERO
        };
        let forgotten = cache.finish_recovery(first, &around.whose);
        if forgotten > 0 {
            tracing::warn!(
                partitions = forgotten,
                "a part of the log is missing: what was in these partitions before it was forgotten"
            );
        }
        if let Some(number) = recovered.snapshot {
            let bytes = files
                .open(Name::snapshot(number))
                .and_then(|file| file.len())
                .unwrap_or(0);
            snapshots.note_found(bytes, recovered.restored, recovered.snapshot_at_ms);
        }
        log.figures.replayed.store(recovered.log.records, Relaxed);
        let writer = self.begin_log(&files, &recovered, first, log.sync)?;
        snapshots.note_keys();
        let ledger = {
            let directory = &self.state.lock().directory;
            // Only now: until the log says where versions go on from, the last life's state has to be there.
            let begun = directory.begin(self.clock.now_ms(), first.seq(), writer.end());
            begun.map_err(PersistenceError::Directory)?;
            directory.ledger.clone()
        };
        let time = TimeKeeper::start(ledger.clone(), self.clock, timekeeper::INTERVAL);
        self.state.lock().time = Some(time.map_err(PersistenceError::Io)?);
        let note_failure = move || {
            if let Err(error) = ledger.change(|state| state.failed = true) {
                tracing::error!(%error, "the next start will not know of the failure");
            }
        };
        cache.start_journals();
        let live = Arc::clone(&around.live);
        let (room, shortage) = (Arc::clone(snapshots), Arc::clone(snapshots));
        let log_thread = LogThread::start(
            log,
            Start {
                writer,
                files,
                note_failure: Box::new(note_failure),
                sync_interval: Box::new(move || live.load().sync_interval),
                room: Box::new(room_of(room, Arc::clone(cache))),
                standstill: LONGEST_STANDSTILL,
                shortage: Box::new(move || shortage_of(&shortage)),
            },
        )
        .map_err(PersistenceError::Io)?;
        let live = Arc::clone(&around.live);
        let schedule = Schedule {
            interval: Box::new(move || live.load().snapshot_interval),
        };
        let snapshot_thread =
            SnapshotThread::start(snapshots, schedule).map_err(PersistenceError::Io)?;
        if is_in_doubt {
            // What was read the system may have had in its memory only, and takes for written.
            snapshots.ask();
        }
        self.state.lock().running = Some((log_thread, snapshot_thread));
        cache.refuse_writes(Refuses::Loading, false);
        Ok(recovered)
    }

    /// Begins a segment, and says in it that this process goes on here.
    fn begin_log(
        &self,
        files: &Files,
        recovered: &Recovered,
        first: Version,
        sync: SyncPolicy,
    ) -> Result<LogWriter<Files>, PersistenceError> {
        let mut started = Journal::default();
        let incarnation = self.incarnation;
        Record::Started { incarnation, first }
            .encode(&mut started)
            .expect("it is short");
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES,
            // Where nobody waits for syncs they may take their time.
            ahead_bytes: match sync {
                SyncPolicy::Always => AHEAD_BYTES,
                SyncPolicy::Interval | SyncPolicy::Never => 0,
            },
        };
        let (number, segments) = (recovered.log.next, recovered.log.segments.clone());
        let begun = LogWriter::begin(files.clone(), config, Box::new(salt), number, segments);
        let begun = begun.and_then(|mut writer| {
            writer.write(Some(started))?;
            writer.sync()?;
            Ok(writer)
        });
        begun.map_err(PersistenceError::Io)
    }

    /// Why writes that were acknowledged before the start may be missing, if they may.
    pub(crate) fn missing(&self) -> Option<String> {
        self.missing.lock().reason.clone()
    }

    /// Gives a recovery up.
    pub(crate) fn give_up(&self) {
        self.progress.is_given_up.store(true, Relaxed);
    }

    /// Ends the threads in order, once nobody writes any more.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        let (is_whole, log_end) = match state.running.take() {
            Some((log, snapshots)) => {
                let end = stop(log, snapshots);
                (end.is_some(), end)
            }
            // In memory nothing is missing of what was promised; a recovery that did not end has promised nothing.
            None => (matches!(state.outcome, Some(Ok(None))), None),
        };
        // Before the end is noted, as nothing comes after that.
        drop(state.time.take());
        if is_whole && let Err(error) = state.directory.end(self.clock.now_ms(), log_end) {
            tracing::error!(%error, "the next start will take this one for a crash");
        }
    }
}

/// Ends both threads; where the log ends, if all is on the disk then. A snapshot is given up: it may wait for the log, which does not end
/// of itself while the disk is full.
pub(super) fn stop(log: LogThread, snapshots: SnapshotThread) -> Option<Position> {
    snapshots.begin_stop();
    log.begin_stop();
    drop(snapshots);
    log.stop()
}

/// The newest version of any partition.
fn newest(cache: &Cache) -> Version {
    let versions = Partition::all().map(|partition| cache.progress(partition).last);
    versions.max().unwrap_or(Version::ZERO)
}

/// A version that no partition can have come to that is known to have come to another, and had stamped what is lost since.
pub(crate) fn beyond(version: Version) -> Version {
    /// So many records of one partition are more than 2 GiB of log. What is lost is that of a second or so, or what the
    /// kernel has kept in memory for half a minute.
    const LOST: u64 = 1 << 26;
    Version::new(version.term(), (version.seq() + LOST).min(LAST_SEQ))
}

/// How much more log there may be, by how much there is that no snapshot covers; asks for a snapshot when it is time.
fn room_of(snapshots: Arc<Snapshots>, cache: Arc<Cache>) -> impl Fn(u64) -> u64 + Send {
    /// How long what the cache is charged is taken for the same: to ask all shards costs microseconds.
    const STALE: Duration = Duration::from_millis(100);
    let kept = Mutex::new((Instant::now(), cache.charged_bytes()));
    move |uncovered| {
        let mut kept = kept.lock();
        if kept.0.elapsed() > STALE {
            *kept = (Instant::now(), cache.charged_bytes());
        }
        let usage = Usage {
            live: kept.1,
            snapshot: snapshots.figures.bytes.load(Relaxed),
            uncovered,
        };
        if !usage.is_log_long() {
            return u64::MAX;
        }
        if !snapshots.is_wanted() {
            snapshots.ask();
        }
        usage.room()
    }
}

/// Why the log is not made shorter.
fn shortage_of(snapshots: &Snapshots) -> String {
    match snapshots.failure() {
        Some(failure) => {
            format!("the log is as long as it may be, and no snapshot was made: {failure}")
        }
        None => "the log is as long as it may be, and the snapshot that is being made is not done"
            .to_owned(),
    }
}

/// Removes what a life before the last has left, as the last one served newer things from its memory.
fn forget_all(files: &Files) -> io::Result<()> {
    let names = files.names()?;
    if names.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        "the node kept everything in memory since the log and the snapshots here were written: they are older than what it served, and are removed"
    );
    let order = [FileKind::Snapshot, FileKind::Unfinished, FileKind::Segment];
    for kind in order {
        for name in names.iter().filter(|name| name.kind == kind) {
            files.remove(*name)?;
        }
    }
    files.sync_names()
}

#[cfg(test)]
mod tests;
