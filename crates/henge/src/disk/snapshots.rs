//! The thread that makes snapshots, and what others see of it: partition by partition, a few records under one hold of a
//! shard's lock, compressed and written outside of it. Nothing forks, nothing stops.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use henge_engine::persistence::frame::TooLong;
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::snapshot::Builder;
use henge_engine::persistence::snapshot_file::SnapshotWriter;
use henge_engine::persistence::{FileKind, Name, Position, Storage};
use henge_wire::{PARTITIONS, Partition};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::bound::{Cleaning, Usage};
use super::files::Files;
use super::log::Log;
use super::order::Order;
use super::pace::Pace;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::encryption::salt;

/// Frames are written when they come to this.
const WRITE_BYTES: usize = 512 * 1024;
/// What the frames in the making keep of their memory.
const KEPT_BYTES: usize = 2 * WRITE_BYTES;
/// How often the log has a line of how far a snapshot is; as often as of loading.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The longest pause after a snapshot that failed; each is twice as long as the one before.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What others see of the snapshots.
pub(crate) struct Snapshots {
    files: Files,
    cache: Arc<Cache>,
    log: Arc<Log>,
    clock: Clock,
    wanted: Mutex<Wanted>,
    changed: Condvar,
    /// The numbers of the keys that files of the directory need, beside the one that writes.
    key_ids: Mutex<BTreeSet<u32>>,
    /// How often the log has a line of how far one is.
    pub(super) line_every: Duration,
    pub(crate) figures: Figures,
}

/// Without the cache, which is not for showing.
impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots")
            .field("figures", &self.figures)
            .finish_non_exhaustive()
    }
}

/// What is wanted of the thread, and what became of it.
#[derive(Debug, Default)]
struct Wanted {
    is_stopping: bool,
    /// One was asked for, and is not begun.
    is_asked: bool,
    /// Who is to be told what becomes of the next one that is begun.
    waiting: Vec<oneshot::Sender<Outcome>>,
    /// The thread has ended: there is no next one.
    has_ended: bool,
    /// Why the last one failed, if it did.
    failure: Option<String>,
}

/// What became of a snapshot; the error is for people.
type Outcome = Result<Snapshot, String>;

/// A snapshot that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    pub(crate) number: u64,
    pub(crate) records: u64,
    /// Records of the log when it was begun, as its thread counts them.
    log_records: u64,
    pub(crate) bytes: u64,
    pub(crate) at_ms: u64,
    pub(crate) took: Duration,
}

/// What the thread counts.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) is_running: AtomicBool,
    /// When the last was begun, in milliseconds since 1970.
    pub(crate) begun_at_ms: AtomicU64,
    /// Partitions that the present one has.
    pub(crate) partitions: AtomicU64,
    pub(crate) made: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Of the last one, as long as it lies on the disk.
    pub(crate) bytes: AtomicU64,
    pub(crate) records: AtomicU64,
    /// What the log's thread had counted when it was begun.
    pub(crate) log_records: AtomicU64,
    pub(crate) took_us: AtomicU64,
    /// Milliseconds since 1970; 0 for none.
    pub(crate) made_at_ms: AtomicU64,
    /// The last that was tried did not fail.
    pub(crate) has_failed: AtomicBool,
}

/// How the thread decides that it is time.
pub(crate) struct Schedule {
    /// How often, if at all.
    pub(crate) interval: Box<dyn Fn() -> Option<Duration> + Send>,
}

/// The thread; it ends when it is stopped, with what it was at given up.
#[derive(Debug)]
pub(crate) struct SnapshotThread {
    snapshots: Arc<Snapshots>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no snapshot.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    /// The node stops.
    GivenUp,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TooLong> for Failure {
    fn from(error: TooLong) -> Self {
        Self::Io(io::Error::other(error))
    }
}

/// A snapshot that was asked for.
#[derive(Debug)]
pub(crate) struct Asked(oneshot::Receiver<Outcome>);

impl Asked {
    /// Waits until it is made.
    pub(crate) async fn made(self) -> Result<Snapshot, String> {
        self.0.await.unwrap_or_else(|_| Err(STOPS.to_owned()))
    }
}

/// Why a snapshot is not made that was asked for too late.
const STOPS: &str = "the node stops";

impl Snapshots {
    pub(crate) fn new(files: Files, cache: Arc<Cache>, log: Arc<Log>, clock: Clock) -> Self {
        Self {
            files,
            cache,
            log,
            clock,
            wanted: Mutex::default(),
            changed: Condvar::new(),
            key_ids: Mutex::default(),
            line_every: LINE_EVERY,
            figures: Figures::default(),
        }
    }

    /// Asks for a snapshot that begins after this. Where the last one failed it may have to wait.
    pub(crate) fn ask(&self) {
        self.wanted.lock().is_asked = true;
        self.changed.notify_all();
    }

    /// The same for who waits for what becomes of it; it is tried at once.
    pub(crate) fn ask_and_wait(&self) -> Asked {
        let (sender, receiver) = oneshot::channel();
        let mut wanted = self.wanted.lock();
        if !wanted.has_ended {
            // Clients that are gone wait for nothing.
            wanted.waiting.retain(|waiting| !waiting.is_closed());
            wanted.waiting.push(sender);
            wanted.is_asked = true;
            self.changed.notify_all();
        }
        Asked(receiver)
    }

    /// Why the last one failed, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.wanted.lock().failure.clone()
    }

    /// Whether anything was written since the last one was begun.
    fn has_news(&self) -> bool {
        self.log.figures.all_records() > self.figures.log_records.load(Relaxed)
    }

    /// What there is in memory and on the disk.
    fn usage(&self) -> Usage {
        Usage {
            live: self.cache.charged_bytes(),
            snapshot: self.figures.bytes.load(Relaxed),
            uncovered: self.log.figures.uncovered_bytes.load(Relaxed),
        }
    }

    /// Notes what lies on the disk from before the start.
    pub(crate) fn note_found(&self, bytes: u64, records: u64, at_ms: u64) {
        let figures = &self.figures;
        figures.bytes.store(bytes, Relaxed);
        figures.records.store(records, Relaxed);
        figures.made_at_ms.store(at_ms, Relaxed);
    }

    /// Looks again which keys the files of the directory need: at a start, and once a snapshot has made some superfluous. What
    /// comes meanwhile takes the one that writes.
    pub(crate) fn note_keys(&self) {
        let found = || -> io::Result<BTreeSet<u32>> {
            let headers = self.files.headers()?;
            let encrypted = headers.iter().filter(|header| header.cipher != 0);
            Ok(encrypted.map(|header| header.key_id).collect())
        };
        match found() {
            Ok(ids) => *self.key_ids.lock() = ids,
            Err(error) => tracing::warn!(%error, "it is not known which keys are still needed"),
        }
    }

    /// The numbers of the keys that must not go yet.
    pub(crate) fn needed_keys(&self) -> BTreeSet<u32> {
        let mut ids = self.key_ids.lock().clone();
        ids.extend(self.files.keys().current().map(|(_, key_id)| key_id));
        ids
    }

    /// Whether one was asked for, or is being made.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.lock().is_asked || self.figures.is_running.load(Relaxed)
    }

    /// Makes one, on the thread that calls.
    pub(super) fn make(&self) -> Result<Snapshot, Failure> {
        let begun = Instant::now();
        let log_records = self.log.figures.all_records();
        // First, so that nothing is begun where this fails.
        self.remove(|name| name.kind == FileKind::Unfinished)?;
        let number = self.log.order(Order::Roll)?;
        let written = self.write_file(number);
        if written.is_err() {
            // It may be what fills the disk. Where that fails it is tried before the next.
            let _ = self.files.remove(Name::unfinished(number));
        }
        let (records, bytes, at_ms) = written?;
        self.log.order(|sender| Order::Cover(number, sender))?;
        self.remove(|name| name.kind == FileKind::Snapshot && name.number < number)?;
        self.note_keys();
        Ok(Snapshot {
            number,
            records,
            log_records,
            bytes,
            at_ms,
            took: begun.elapsed(),
        })
    }

    /// Writes the file and gives it its name; its records, its bytes, and when it was done.
    fn write_file(&self, number: u64) -> Result<(u64, u64, u64), Failure> {
        let mut writer = SnapshotWriter::begin(self.files.clone(), number, salt())?;
        let records = self.write(number, &mut writer)?;
        // What it shows may be newer than what is in the log yet.
        let position: Position = self.log.order(Order::Sync)?;
        let at_ms = self.clock.now_ms();
        let bytes = writer.finish(position, records, at_ms)?;
        Ok((records, bytes, at_ms))
    }

    /// Writes all partitions; says how many records they have.
    fn write(&self, snapshot: u64, writer: &mut SnapshotWriter<Files>) -> Result<u64, Failure> {
        let mut builder = Builder::default();
        let mut frames = Journal::default();
        let mut way = Pace::new();
        let mut line = Instant::now() + self.line_every;
        let mut all = 0;
        for number in 0..PARTITIONS {
            let partition = Partition::new(number).expect("it is one of them");
            // That it writes a line to the journal nobody waits for.
            let scan = self.cache.begin_scan(partition, snapshot);
            if let Some(state) = &scan.state {
                let commit = scan.before().commit;
                Builder::replica(partition, commit, state, &mut frames)?;
            }
            let mut records = 0;
            let mut place = 0;
            loop {
                let mut outcome = Ok(());
                place = self.cache.scan_records(partition, place, |record| {
                    if outcome.is_ok() {
                        outcome = builder.push(&record);
                        records += 1;
                    }
                });
                outcome?;
                way.worked();
                builder.finish_full(partition, &mut frames)?;
                if frames.frames().len() >= WRITE_BYTES {
                    writer.write(&mut frames)?;
                    frames.clear(KEPT_BYTES);
                }
                let now = Instant::now();
                if now >= line {
                    line = now + self.line_every;
                    let percent = u32::from(number) * 100 / u32::from(PARTITIONS);
                    let percent = format!("{percent}%");
                    let (records, bytes) = (all + records, writer.len());
                    tracing::info!(percent, records, bytes, "a snapshot is being made");
                }
                if place == 0 {
                    break;
                }
            }
            builder.finish(partition, &mut frames)?;
            let progress = self.cache.end_scan(partition, &scan);
            Builder::partition(partition, progress, records, &mut frames)?;
            all += records;
            self.figures
                .partitions
                .store(u64::from(number) + 1, Relaxed);
            if self.wanted.lock().is_stopping {
                return Err(Failure::GivenUp);
            }
        }
        writer.write(&mut frames)?;
        Ok(all)
    }

    fn remove(&self, is_one: impl Fn(&Name) -> bool) -> io::Result<()> {
        let names = self.files.names()?;
        names
            .into_iter()
            .filter(is_one)
            .try_for_each(|name| self.files.remove(name))
    }
}

impl SnapshotThread {
    /// Starts it.
    pub(crate) fn start(snapshots: &Arc<Snapshots>, schedule: Schedule) -> io::Result<Self> {
        let own = Arc::clone(snapshots);
        let thread = thread::Builder::new()
            .name("henge-snapshot".to_owned())
            .spawn(move || run(&own, &schedule))?;
        Ok(Self {
            snapshots: Arc::clone(snapshots),
            thread: Some(thread),
        })
    }

    /// Has it end.
    pub(crate) fn begin_stop(&self) {
        self.snapshots.wanted.lock().is_stopping = true;
        self.snapshots.changed.notify_all();
    }
}

impl Drop for SnapshotThread {
    fn drop(&mut self) {
        self.begin_stop();
        if let Some(thread) = self.thread.take() {
            // It has logged what went wrong with it.
            let _ = thread.join();
        }
    }
}

fn run(snapshots: &Snapshots, schedule: &Schedule) {
    /// How often the schedule is looked at, which a reload may change.
    const LOOK: Duration = Duration::from_secs(1);
    let mut last = Instant::now();
    let mut not_before = last;
    let mut pause = LOOK;
    let mut cleaning = Cleaning::default();
    loop {
        // Here too, as nothing may be written after what lives has become less.
        let is_too_much = cleaning.is_due(&snapshots.usage(), Instant::now());
        let waiting = {
            let mut wanted = snapshots.wanted.lock();
            if wanted.is_stopping {
                wanted.has_ended = true;
                wanted.waiting.clear();
                return;
            }
            let is_time = (schedule.interval)().is_some_and(|interval| last.elapsed() >= interval)
                && snapshots.has_news();
            let now = Instant::now();
            let has_paused = now >= not_before || !wanted.waiting.is_empty();
            if !(wanted.is_asked || is_time || is_too_much) || !has_paused {
                let until = LOOK.max(not_before.saturating_duration_since(now));
                snapshots.changed.wait_for(&mut wanted, until);
                continue;
            }
            wanted.is_asked = false;
            let figures = &snapshots.figures;
            figures.begun_at_ms.store(snapshots.clock.now_ms(), Relaxed);
            figures.partitions.store(0, Relaxed);
            // Under the lock, so that at any time one is wanted, or runs, or is done.
            figures.is_running.store(true, Relaxed);
            std::mem::take(&mut wanted.waiting)
        };
        last = Instant::now();
        let figures = &snapshots.figures;
        tracing::info!("a snapshot is begun");
        let outcome = snapshots.make().map_err(|failure| {
            // Whatever it failed by then: the log ends as well.
            if snapshots.wanted.lock().is_stopping {
                Failure::GivenUp
            } else {
                failure
            }
        });
        figures.is_running.store(false, Relaxed);
        let outcome = match outcome {
            Ok(made) => {
                figures.made.fetch_add(1, Relaxed);
                figures.has_failed.store(false, Relaxed);
                snapshots.note_found(made.bytes, made.records, made.at_ms);
                figures.log_records.store(made.log_records, Relaxed);
                cleaning.note_made(&snapshots.usage(), Instant::now());
                let took = u64::try_from(made.took.as_micros()).unwrap_or(u64::MAX);
                figures.took_us.store(took, Relaxed);
                tracing::info!(
                    number = made.number,
                    records = made.records,
                    bytes = made.bytes,
                    seconds = made.took.as_secs_f64(),
                    "a snapshot was made"
                );
                Ok(made)
            }
            Err(Failure::GivenUp) => Err(STOPS.to_owned()),
            Err(Failure::Io(error)) => {
                figures.failed.fetch_add(1, Relaxed);
                figures.has_failed.store(true, Relaxed);
                tracing::error!(%error, "no snapshot was made");
                Err(error.to_string())
            }
        };
        let has_failed = outcome.is_err();
        snapshots.wanted.lock().failure = outcome.clone().err();
        for sender in waiting {
            // Whoever asked may be gone.
            let _ = sender.send(outcome.clone());
        }
        // Where one fails the next one likely does.
        pause = if has_failed {
            (2 * pause).min(LONGEST_PAUSE)
        } else {
            LOOK
        };
        not_before = if has_failed {
            Instant::now() + pause
        } else {
            last
        };
    }
}
