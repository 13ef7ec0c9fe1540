//! The log's thread, and what others see of it. It goes round by round: takes what the shards have written to their
//! journals, writes it to the file, syncs it if every write has to be, and tells who waits. No data thread ever waits for
//! the disk; a connection holds its answers until the round is done that has its writes.
//!
//! ```text
//!            write fails for want of room
//! Open ───────────────────────────────────▶ Full: writes are refused, the round is tried again every 100 ms
//!   │ ◀─────────────────────────────────────  │  it was written
//!   │        no snapshot makes room for long  │
//!   │ ──────────────────────────────────────▶ │  writes are refused, and no round is begun
//!   │ ◀─────────────────────────────────────  │  a snapshot was made
//!   │ any other failure to write or to sync   │
//!   └─────────────────────────────────────────┴─▶ Broken: for good; writes are refused, reads of what is kept go on
//! ```

use std::fmt;
use std::io;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst,
};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::log::{LogWriter, SyncWork};
use henge_engine::persistence::{Position, Storage};
use parking_lot::Mutex;

use super::backlog::{Backlog, Change};
use super::figures::Figures;
use super::files::is_full;
use super::order::Order;
use crate::cache::{Cache, Refuses};
use crate::config::SyncPolicy;
use crate::net::inflight::InFlight;

/// How often a round is tried again that found no room on the disk.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// What an empty journal keeps of its memory, for each shard.
const KEPT_JOURNAL_BYTES: usize = 64 * 1024;
/// Over how long what is left of the log's room is spread when it runs short: the rate of writes sinks with it, and it is
/// never used up.
const SLOWING: Duration = Duration::from_secs(2);
/// The longest that a round waits for more connections, however long a sync takes, and for the next of them.
const LONGEST_GATHERING: Duration = Duration::from_millis(4);
const LONGEST_GAP: Duration = Duration::from_millis(1);
/// The shortest of these: what a client of many connections takes to answer them all, where a disk is faster than that.
const SHORTEST_GAP: Duration = Duration::from_micros(300);
/// A round that is synced waits for this part of the connections: the others are worked on meanwhile.
const ENOUGH: (usize, usize) = (2, 3);
/// How often it is looked whether there is room again.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// What is said while too much waits for it.
const BEHIND: &str =
    "the log is behind: what waits for it holds its part of limits.max_inflight_bytes";
/// So many segments that are not synced may be open, whatever the policy.
const MOST_UNSYNCED: usize = 8;

/// Whether the log can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Condition {
    Open,
    Full,
    Broken,
}

/// An answer waited for a round that was not written, and is not known to be lost either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotKept;

/// What others see of the log.
pub(crate) struct Log {
    cache: Arc<Cache>,
    pub(crate) sync: SyncPolicy,
    /// Rounds begun; the journals are taken after this is counted.
    begun: AtomicU64,
    /// Rounds done.
    done: AtomicU64,
    /// Rounds asked for.
    asked: AtomicU64,
    condition: AtomicU8,
    /// Why it is not open.
    failure: Mutex<Option<String>>,
    bells: Box<[Bell]>,
    thread: OnceLock<Thread>,
    /// The thread waits for so many connections before it begins a round; 0 if it does not.
    gathering: AtomicUsize,
    orders: Mutex<Vec<Order>>,
    is_stopping: AtomicBool,
    has_ended: AtomicBool,
    backlog: Mutex<Backlog>,
    pub(crate) figures: Figures,
}

/// Without the cache, which is not for showing.
impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("condition", &self.condition())
            .field("figures", &self.figures)
            .finish_non_exhaustive()
    }
}

/// What wakes a data thread.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Bell {
    waker: OnceLock<Waker>,
    is_awaited: AtomicBool,
    /// Connections of the thread that wait for a round: for the one that is to come, and for the one under way, by the last bit
    /// of its number.
    waiting: [AtomicUsize; 2],
}

/// How the log goes on from a recovery, and what bounds it.
pub(crate) struct Start<S: Storage> {
    pub(crate) writer: LogWriter<S>,
    pub(crate) files: S,
    pub(crate) sync_interval: Box<dyn Fn() -> Duration + Send>,
    /// Called with the bytes that no snapshot covers; gives how many more there may be, `u64::MAX` if nothing is short.
    pub(crate) room: Box<dyn Fn(u64) -> u64 + Send>,
    /// For how long nothing is written where no room is made, before writes are refused.
    pub(crate) standstill: Duration,
    /// Says why no room is made.
    pub(crate) shortage: Box<dyn Fn() -> String + Send>,
    /// Called when a failure may have cost what was acknowledged.
    pub(crate) note_failure: Box<dyn Fn() + Send>,
}

/// The thread; it ends when it is stopped.
#[derive(Debug)]
pub(crate) struct LogThread {
    log: Arc<Log>,
    thread: Option<JoinHandle<Option<Position>>>,
}

impl Log {
    pub(crate) fn new(cache: Arc<Cache>, sync: SyncPolicy, threads: usize) -> Self {
        Self {
            cache,
            sync,
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            condition: AtomicU8::new(Condition::Open as u8),
            failure: Mutex::default(),
            bells: (0..threads).map(|_| Bell::default()).collect(),
            thread: OnceLock::new(),
            gathering: AtomicUsize::new(0),
            orders: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            backlog: Mutex::default(),
            figures: Figures::default(),
        }
    }

    /// The round that is sure to have what was written to a journal before this call.
    #[inline]
    pub(crate) fn next_round(&self) -> u64 {
        self.begun.load(SeqCst) + 1
    }

    /// What became of a round; none as long as it may become anything.
    #[inline]
    pub(crate) fn outcome(&self, round: u64) -> Option<Result<(), NotKept>> {
        if self.done.load(SeqCst) >= round {
            return Some(Ok(()));
        }
        (self.condition() != Condition::Open).then_some(Err(NotKept))
    }

    /// Changes with every outcome.
    pub(crate) fn outcomes(&self) -> (u64, u8) {
        (self.done.load(SeqCst), self.condition.load(SeqCst))
    }

    pub(crate) fn condition(&self) -> Condition {
        match self.condition.load(SeqCst) {
            0 => Condition::Open,
            1 => Condition::Full,
            _ => Condition::Broken,
        }
    }

    /// Why writes are refused, if they are.
    pub(crate) fn failure(&self) -> Option<String> {
        let failure = self.failure.lock().clone();
        failure.or_else(|| self.backlog.lock().is_long().then(|| BEHIND.to_owned()))
    }

    /// Asks for a round that has all that is in the journals now.
    pub(crate) fn ask(&self) {
        let round = self.next_round();
        let is_new = self.asked.fetch_max(round, SeqCst) < round;
        // While more connections are waited for, the last of them is the one that matters.
        let gathering = self.gathering.load(SeqCst);
        if (is_new && gathering == 0) || (gathering > 0 && self.waiting(round) >= gathering) {
            self.wake();
        }
    }

    /// Whether so much waits for it that what can wait should.
    pub(crate) fn is_filling(&self) -> bool {
        self.backlog.lock().is_filling()
    }

    /// How much waits for it.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.backlog.lock().bytes()
    }

    /// Counts what a round is to write as in flight until it is written, and has writes refused if that is too much.
    pub(crate) fn count(&self, round: u64, bytes: usize, in_flight: &Arc<InFlight>) {
        let mut backlog = self.backlog.lock();
        // It may have been written since its number was asked for.
        if self.done.load(SeqCst) >= round {
            return;
        }
        if backlog.add(round, bytes, in_flight) == Some(Change::Refuse) {
            // Under the lock, so that the last that is said is what is.
            self.cache.refuse_writes(Refuses::Behind, true);
            drop(backlog);
            tracing::warn!("{BEHIND}: writes are refused until it has caught up");
            // Whoever wrote that may be gone without having waited for it.
            self.ask();
        }
    }

    /// All rounds up to this one are written, or never will be.
    fn release(&self, round: u64, backlog: &mut Backlog) {
        if backlog.release(round) == Some(Change::Take) {
            self.cache.refuse_writes(Refuses::Behind, false);
            tracing::info!("the log has caught up: writes are taken");
        } else if backlog.is_long() {
            // For the rest of it.
            self.asked.fetch_max(round + 1, SeqCst);
        }
    }

    /// One more connection of a data thread waits for this round.
    #[inline]
    pub(crate) fn note_waiting(&self, thread: usize, round: u64) {
        self.bells[thread].of(round).fetch_add(1, Relaxed);
    }

    /// How many connections wait for a round.
    fn waiting(&self, round: u64) -> usize {
        let waiting = self.bells.iter().map(|bell| bell.of(round).load(Relaxed));
        waiting.sum()
    }

    /// Has a data thread woken by this from now on.
    pub(crate) fn register(&self, thread: usize, waker: &Waker) {
        let _ = self.bells[thread].waker.set(waker.clone());
    }

    /// The next outcome wakes that thread.
    #[inline]
    pub(crate) fn await_bell(&self, thread: usize) {
        self.bells[thread].is_awaited.store(true, SeqCst);
    }

    fn ring(&self) {
        for bell in &self.bells {
            if bell.is_awaited.swap(false, SeqCst)
                && let Some(waker) = bell.waker.get()
            {
                waker.wake_by_ref();
            }
        }
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Gives an order to the thread, and waits for its answer. An error also if there is no thread any more.
    pub(crate) fn order<T>(
        &self,
        order: impl FnOnce(Sender<io::Result<T>>) -> Order,
    ) -> io::Result<T> {
        let (sender, receiver) = channel();
        self.orders.lock().push(order(sender));
        if self.has_ended.load(SeqCst) {
            self.orders.lock().clear();
        }
        self.wake();
        receiver
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the log was closed")))
    }

    fn set_condition(&self, condition: Condition, failure: Option<String>) {
        *self.failure.lock() = failure;
        self.condition.store(condition as u8, SeqCst);
        let refuses = condition != Condition::Open;
        self.cache.refuse_writes(Refuses::Failed, refuses);
        self.ring();
    }
}

impl Bell {
    fn of(&self, round: u64) -> &AtomicUsize {
        &self.waiting[usize::from(round % 2 == 1)]
    }
}

impl LogThread {
    /// Starts it. The journals of the shards have to be running.
    pub(crate) fn start<S>(log: &Arc<Log>, start: Start<S>) -> io::Result<Self>
    where
        S: Storage<File: Send> + Clone + Send + 'static,
    {
        let (work, works) = sync_channel(1);
        let (synced, done) = channel();
        let syncing = Arc::clone(log);
        let files = start.files;
        let sync = move || sync_all(&syncing, &files, &works, &synced);
        // Of a failure the kernel tells once for each open file. Where a round promises that it is synced no other thread may be
        // the one that is told.
        let is_apart = log.sync != SyncPolicy::Always;
        let sync_thread = is_apart
            .then(|| {
                thread::Builder::new()
                    .name("henge-sync".to_owned())
                    .spawn(sync)
            })
            .transpose()?;
        let runner = Runner {
            log: Arc::clone(log),
            writer: start.writer,
            sync_interval: start.sync_interval,
            room: start.room,
            standstill: start.standstill,
            shortage: start.shortage,
            note_failure: start.note_failure,
            orders: Vec::new(),
            resume_at: Instant::now(),
            stood_still: None,
            lacks_snapshot: false,
            batch: Vec::new(),
            spare: Vec::new(),
            work: is_apart.then_some(work),
            done,
            in_sync: false,
            synced_at: Instant::now(),
            sync_took: Duration::ZERO,
            crowd: 0,
            waiting: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("henge-log".to_owned())
            .spawn(move || {
                // However it ends.
                let _ended = Ended(Arc::clone(&runner.log));
                let end = runner.run();
                // It has lost its channel.
                let _ = sync_thread.map(JoinHandle::join);
                end
            })?;
        let _ = log.thread.set(thread.thread().clone());
        Ok(Self {
            log: Arc::clone(log),
            thread: Some(thread),
        })
    }

    /// Has it end; nobody has to wait for anything any more that may never come.
    pub(crate) fn begin_stop(&self) {
        self.log.is_stopping.store(true, SeqCst);
        self.log.wake();
    }

    /// Writes and syncs what is left, and ends. Says where the log ends, if all of it is on the disk. No data thread may run any
    /// more.
    pub(crate) fn stop(mut self) -> Option<Position> {
        self.end()
    }

    fn end(&mut self) -> Option<Position> {
        self.begin_stop();
        let ended = self.thread.take().map(JoinHandle::join);
        ended?.unwrap_or(None)
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}

/// When it is dropped the thread is no more: who waits for it is told, whatever it ended by.
struct Ended(Arc<Log>);

impl Drop for Ended {
    fn drop(&mut self) {
        let log = &self.0;
        log.has_ended.store(true, SeqCst);
        // Whoever waits for an answer sees that there is none.
        log.orders.lock().clear();
        if thread::panicking() {
            let failure = "the thread that writes it has ended".to_owned();
            log.set_condition(Condition::Broken, Some(failure));
        }
    }
}

/// Syncs for the log's thread, which goes on writing meanwhile.
fn sync_all<S: Storage>(
    log: &Log,
    files: &S,
    works: &Receiver<SyncWork<S>>,
    synced: &Sender<(SyncWork<S>, io::Result<()>)>,
) {
    for work in works {
        let begun = Instant::now();
        let outcome = work.run(files);
        log.figures.note_sync(begun.elapsed());
        if synced.send((work, outcome)).is_err() {
            return;
        }
        log.wake();
    }
}

/// What the thread has.
struct Runner<S: Storage> {
    log: Arc<Log>,
    writer: LogWriter<S>,
    sync_interval: Box<dyn Fn() -> Duration + Send>,
    room: Box<dyn Fn(u64) -> u64 + Send>,
    standstill: Duration,
    shortage: Box<dyn Fn() -> String + Send>,
    note_failure: Box<dyn Fn() + Send>,
    /// What is to be done after the next round.
    orders: Vec<Order>,
    /// No round that was only asked for begins before this.
    resume_at: Instant,
    /// Since when there is no room for one.
    stood_still: Option<Instant>,
    /// That has gone on for so long that writes are refused.
    lacks_snapshot: bool,
    batch: Vec<Journal>,
    /// Empty journals, for their memory.
    spare: Vec<Journal>,
    work: Option<SyncSender<SyncWork<S>>>,
    done: Receiver<(SyncWork<S>, io::Result<()>)>,
    in_sync: bool,
    synced_at: Instant,
    /// What the last sync of a round took.
    sync_took: Duration,
    /// How many connections take turns with the log: those that a round has answered and those that came meanwhile, which sinks
    /// slowly where that was fewer than before.
    crowd: usize,
    /// Who waits until all up to a place is on the disk.
    waiting: Vec<(Position, Sender<io::Result<Position>>)>,
}

impl<S: Storage> Runner<S> {
    /// Runs until it is stopped; where the log ends, if all is on the disk then.
    fn run(mut self) -> Option<Position> {
        loop {
            let is_stopping = self.log.is_stopping.load(SeqCst);
            self.take_synced();
            if self.log.condition() == Condition::Broken {
                self.refuse_orders();
                if is_stopping {
                    return None;
                }
                thread::park();
                continue;
            }
            self.take_orders();
            let is_asked = self.is_asked() && self.may_begin();
            // What goes to a new segment and what to the one before is all the same.
            let is_ordered = |order: &Order| matches!(order, Order::Sync(_));
            if is_asked || self.orders.iter().any(is_ordered) || is_stopping {
                self.round();
            }
            if self.log.condition() == Condition::Broken {
                continue;
            }
            for order in std::mem::take(&mut self.orders) {
                self.obey(order);
            }
            if is_stopping {
                return self.finish();
            }
            self.sync_in_time();
            self.rest();
        }
    }

    /// Whether somebody waits for a round.
    fn is_asked(&self) -> bool {
        // Where rounds stand still one is to be tried, whoever still waits: its end says that writes are taken again.
        self.stood_still.is_some() || self.log.asked.load(SeqCst) > self.log.done.load(SeqCst)
    }

    /// Takes what is ordered. What a snapshot covers is removed at once, as it may be the room that a round needs.
    fn take_orders(&mut self) {
        let orders = std::mem::take(&mut *self.log.orders.lock());
        for order in orders {
            match order {
                Order::Cover(..) => self.obey(order),
                order => self.orders.push(order),
            }
        }
    }

    /// Waits until there is something to do.
    fn rest(&self) {
        let now = Instant::now();
        let until = if self.is_asked() {
            self.resume_at
        } else {
            self.synced_at + (self.sync_interval)()
        };
        let is_ordered = !self.log.orders.lock().is_empty();
        if !is_ordered && !self.log.is_stopping.load(SeqCst) {
            thread::park_timeout(until.saturating_duration_since(now));
        }
    }

    /// Writes what is in the journals, syncs it if it must be, and tells who waits.
    fn round(&mut self) {
        let log = Arc::clone(&self.log);
        if log.sync == SyncPolicy::Always {
            self.gather();
        }
        let round = log.begun.fetch_add(1, SeqCst) + 1;
        log.cache
            .take_journals(round, &mut self.batch, &mut self.spare);
        let before = self.writer.end();
        if !self.batch.is_empty() && !self.write() {
            return;
        }
        let records: u64 = self.batch.iter().map(Journal::records).sum();
        let bytes: usize = self
            .batch
            .iter()
            .map(|journal| journal.frames().len())
            .sum();
        for mut journal in self.batch.drain(..) {
            // One for each shard is what the next round needs.
            if self.spare.len() < log.cache.shard_count() {
                journal.clear(KEPT_JOURNAL_BYTES);
                self.spare.push(journal);
            }
        }
        if records > 0 && log.sync == SyncPolicy::Always {
            let begun = Instant::now();
            if let Err(error) = self.writer.sync() {
                self.break_off("sync", &error);
                return;
            }
            self.sync_took = begun.elapsed();
            log.figures.note_sync(self.sync_took);
            self.synced_at = Instant::now();
        }
        let figures = &log.figures;
        figures.rounds.fetch_add(1, Relaxed);
        figures.records.fetch_add(records, Relaxed);
        figures.written_bytes.fetch_add(bytes as u64, Relaxed);
        if before.segment != self.writer.end().segment {
            tracing::debug!(segment = self.writer.end().segment, "a segment was begun");
        }
        self.slow_down(bytes as u64);
        let answered = log.bells.iter().map(|bell| bell.of(round).swap(0, Relaxed));
        let crowd = answered.sum::<usize>() + log.waiting(round + 1);
        self.crowd = crowd.max(self.crowd - self.crowd.div_ceil(64));
        log.cache.note_kept(round);
        {
            let mut backlog = log.backlog.lock();
            log.done.store(round, SeqCst);
            log.release(round, &mut backlog);
        }
        log.ring();
    }

    /// Waits until more than half of the connections are there, as long as more of them come. Without it there would be many times
    /// as many syncs, each for a few; if it waited for all, clients and data threads would stand still during each sync.
    fn gather(&self) {
        let log = &self.log;
        let gap = self.sync_took.clamp(SHORTEST_GAP, LONGEST_GAP);
        let enough = (self.crowd * ENOUGH.0).div_ceil(ENOUGH.1);
        let round = log.next_round();
        let until = Instant::now() + (16 * self.sync_took).min(LONGEST_GATHERING);
        let (mut before, mut changed_at) = (0, Instant::now());
        log.gathering.store(enough, SeqCst);
        loop {
            let (waiting, now) = (log.waiting(round), Instant::now());
            if waiting != before {
                (before, changed_at) = (waiting, now);
            }
            let end = until.min(changed_at + gap);
            if waiting >= enough || now >= end || log.is_stopping.load(SeqCst) {
                break;
            }
            thread::park_timeout(end - now);
        }
        log.gathering.store(0, SeqCst);
    }

    /// Writes the batch, as often as it takes. False if it never will be.
    fn write(&mut self) -> bool {
        let mut written = 0;
        while written < self.batch.len() {
            let error = match self.writer.write_some(&mut self.batch[written..]) {
                Ok(count) => {
                    written += count;
                    continue;
                }
                Err(error) => error,
            };
            if !is_full(&error) {
                self.break_off("write", &error);
                return false;
            }
            if self.log.condition() != Condition::Full {
                tracing::error!(%error, "the log cannot be written: writes are refused until the disk has room");
                let failure = Some(error.to_string());
                self.log.set_condition(Condition::Full, failure);
            }
            self.take_synced();
            if self.log.condition() == Condition::Broken {
                return false;
            }
            self.take_orders();
            for order in self.orders.drain(..) {
                order.refuse(io::ErrorKind::StorageFull.into());
            }
            // What is written can be synced, and a snapshot may wait for that.
            if !self.waiting.is_empty() {
                self.begin_sync();
            }
            if self.log.is_stopping.load(SeqCst) {
                self.refuse_orders();
                return false;
            }
            thread::park_timeout(RETRY_INTERVAL);
        }
        if self.log.condition() == Condition::Full && !self.lacks_snapshot {
            self.log.set_condition(Condition::Open, None);
            tracing::info!("the disk has room again: writes are taken");
        }
        true
    }

    /// A failure that nothing mends: what the file has from now on is not known.
    fn break_off(&mut self, what: &str, error: &io::Error) {
        tracing::error!(%error, "the log failed to {what}: writes are refused from now on, and what was acknowledged until now is on the disk as far as it was synced; restart the node when the disk is well");
        // With `always` all that was acknowledged is synced. But after a failed sync the system may show to the next start what the
        // disk does not have.
        if self.log.sync != SyncPolicy::Always || self.writer.has_failed_sync() {
            (self.note_failure)();
        }
        // Nobody will write it.
        self.batch.clear();
        let begun = self.log.begun.load(SeqCst);
        self.log.release(begun, &mut self.log.backlog.lock());
        let failure = Some(format!("failed to {what}: {error}"));
        self.log.set_condition(Condition::Broken, failure);
    }

    /// Puts the next round off where the log has outrun the snapshots: as little is left of its room, so few bytes a second are
    /// written.
    fn slow_down(&mut self, bytes: u64) {
        self.note_sizes();
        let left = self.room_left();
        if left == u64::MAX || bytes == 0 {
            return;
        }
        let share = bytes as f64 / left.max(1) as f64;
        self.put_off(SLOWING.mul_f64(share.min(1.0)));
    }

    fn put_off(&mut self, time: Duration) {
        self.resume_at = Instant::now() + time;
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.log.figures.delayed_us.fetch_add(time, Relaxed);
    }

    /// Whether the next round may begin that was only asked for.
    fn may_begin(&mut self) -> bool {
        if Instant::now() < self.resume_at {
            return false;
        }
        // Once, as `resume_at` says nothing of what was removed meanwhile.
        if self.room_left() == 0 {
            self.put_off(LOOK_INTERVAL);
            let since = *self.stood_still.get_or_insert_with(Instant::now);
            if !self.lacks_snapshot && since.elapsed() >= self.standstill {
                // What stands still for longer had better say so; to go on would break what is promised of the disk.
                self.lacks_snapshot = true;
                let failure = (self.shortage)();
                tracing::error!(%failure, "the log may not grow: writes are refused until a snapshot is made");
                self.log.set_condition(Condition::Full, Some(failure));
            }
            return false;
        }
        self.stood_still = None;
        if std::mem::take(&mut self.lacks_snapshot) {
            self.log.set_condition(Condition::Open, None);
            tracing::info!("a snapshot has made room: writes are taken");
        }
        true
    }

    /// How many bytes may be written before a snapshot has to cover some.
    fn room_left(&self) -> u64 {
        let covered = self.log.figures.covered.load(Relaxed);
        (self.room)(self.writer.bytes_from(covered))
    }

    /// Publishes how large the log is.
    fn note_sizes(&self) {
        let figures = &self.log.figures;
        let uncovered = self.writer.bytes_from(figures.covered.load(Relaxed));
        figures.uncovered_bytes.store(uncovered, Relaxed);
        let all = self.writer.bytes_from(0);
        figures.log_bytes.store(all, Relaxed);
        let segments = self.writer.segments() as u64;
        figures.segments.store(segments, Relaxed);
    }

    /// Has the other thread sync, if it is time.
    fn sync_in_time(&mut self) {
        let is_time = self.synced_at.elapsed() >= (self.sync_interval)();
        let is_wanted = !self.waiting.is_empty();
        if self.in_sync || !(is_time || is_wanted) {
            return;
        }
        if is_time {
            self.synced_at = Instant::now();
            // Each segment that was not synced is an open file.
            let are_many = self.writer.unsynced_segments() > MOST_UNSYNCED;
            let is_due = self.log.sync == SyncPolicy::Interval || is_wanted || are_many;
            if self.writer.has_news() && !is_due {
                return;
            }
        }
        if self.writer.has_news() || is_wanted {
            self.begin_sync();
        } else if self.writer.is_unmarked()
            && let Err(error) = self.writer.write(None)
            && !is_full(&error)
        {
            self.break_off("write", &error);
        }
    }

    /// Has the other thread sync what is written. While it is at it that has to wait.
    fn begin_sync(&mut self) {
        let work = self.writer.sync_work().filter(|_| !self.in_sync);
        if let (Some(work), Some(sender)) = (work, &self.work) {
            self.in_sync = sender.try_send(work).is_ok();
        }
        self.answer_waiting();
    }

    /// Takes notice of what the other thread has synced.
    fn take_synced(&mut self) {
        while let Ok((work, outcome)) = self.done.try_recv() {
            self.in_sync = false;
            match outcome {
                // Of one failure the kernel tells once; what comes after it says nothing.
                Ok(()) if self.log.condition() == Condition::Broken => {}
                Ok(()) => self.writer.sync_done(&work),
                Err(error) => self.break_off("sync", &error),
            }
        }
        self.answer_waiting();
    }

    fn answer_waiting(&mut self) {
        let synced = self.writer.synced();
        let waiting = &mut self.waiting;
        for (_, sender) in waiting.extract_if(.., |(position, _)| *position <= synced) {
            // Whoever asked may have given up.
            let _ = sender.send(Ok(synced));
        }
    }

    fn obey(&mut self, order: Order) {
        // Whoever gave it may be gone; it is obeyed all the same.
        match order {
            order if self.log.condition() == Condition::Broken => {
                let failure = self.log.failure().unwrap_or_default();
                order.refuse(io::Error::other(failure));
            }
            Order::Roll(sender) => {
                let rolled = self.writer.roll().map(|()| self.writer.end().segment);
                if let Err(error) = &rolled
                    && !is_full(error)
                {
                    self.break_off("begin a segment", error);
                }
                self.note_sizes();
                let _ = sender.send(rolled);
            }
            Order::Sync(sender) if self.work.is_none() => {
                let synced = self.writer.sync();
                if let Err(error) = &synced {
                    self.break_off("sync", error);
                }
                let _ = sender.send(synced.map(|()| self.writer.synced()));
            }
            Order::Sync(sender) => self.waiting.push((self.writer.end(), sender)),
            Order::Cover(segment, sender) => {
                self.log.figures.covered.store(segment, Relaxed);
                let removed = self.writer.remove_before(segment);
                self.note_sizes();
                let _ = sender.send(removed);
            }
        }
    }

    fn refuse_orders(&mut self) {
        let failure = || io::Error::other(self.log.failure().unwrap_or_default());
        let ordered = std::mem::take(&mut *self.log.orders.lock());
        for order in self.orders.drain(..).chain(ordered) {
            order.refuse(failure());
        }
        for (_, sender) in self.waiting.drain(..) {
            let _ = sender.send(Err(failure()));
        }
    }

    /// All is written; syncs it and marks that.
    fn finish(mut self) -> Option<Position> {
        // Wait for the other thread, which ends when it has nothing more to do.
        drop(self.work.take());
        while let Ok((work, outcome)) = self.done.recv() {
            match outcome {
                Ok(()) => self.writer.sync_done(&work),
                Err(error) => self.break_off("sync", &error),
            }
        }
        // What was kept back for want of a snapshot was written just now; what there was no room for is left.
        if self.log.condition() == Condition::Broken || !self.batch.is_empty() {
            self.refuse_orders();
            return None;
        }
        let synced = self.writer.sync();
        let finished = synced.and_then(|()| {
            self.writer.write(None)?;
            self.writer.sync()?;
            let end = self.writer.end();
            self.writer.close().map(|()| end)
        });
        let say = |error: &io::Error| {
            tracing::error!(%error, "the log could not be synced at the end");
        };
        finished.inspect_err(say).ok()
    }
}
