//! A node's log, its snapshots and its recovery where the disk fails, without a node around them: what fails is told by the
//! test, and so is whether there is room.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use henge_engine::PolicyKind;
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::log::{LogConfig, LogWriter};
use henge_engine::persistence::recovery::RecoveryError;
use henge_engine::persistence::wal::Record;
use henge_engine::persistence::{FileKind, Name, Position, Storage, StorageFile};
use henge_wire::{
    Command, Effect, Expiry, Mutation, Operation, Partition, Precondition, Refusal, Reply, Value,
    Version,
};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::files::{Files, OpenFile};
use super::gate::{Gate, Place};
use super::log::{Condition, Log, LogThread, NotKept, Start};
use super::order::Order;
use super::persistence::{SEGMENT_BYTES, stop};
use super::recovery::{Progress, recover};
use super::snapshots::{Schedule, SnapshotThread, Snapshots};
use crate::cache::{Cache, CacheConfig, Refuses};
use crate::clock::Clock;
use crate::cluster::replicas::told::Inboxes;
use crate::config::SyncPolicy;
use crate::encryption::{Encryption, salt};
use crate::net::inflight::InFlight;

/// How long to wait for what must come.
const DEADLINE: Duration = Duration::from_mins(1);
const FOR_EVER: Duration = Duration::MAX;

/// A directory of one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "henge-disk-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a disk answers from now on; none where it does what it is told.
#[derive(Default)]
struct Faults {
    write: Mutex<Option<Errno>>,
    sync: Mutex<Option<Errno>>,
    /// The next sync of a file is held up.
    hold: AtomicBool,
    /// One is, until this is taken back.
    is_held: AtomicBool,
    /// The thread that has it held up.
    held_thread: Mutex<Option<String>>,
    /// What a sync answers that was held up.
    late: Mutex<Option<Errno>>,
}

/// A directory on a disk that may fail.
#[derive(Clone)]
struct Disk {
    files: Files,
    faults: Arc<Faults>,
}

#[derive(Clone)]
struct DiskFile {
    file: OpenFile,
    faults: Arc<Faults>,
}

fn fail(fault: &Mutex<Option<Errno>>) -> io::Result<()> {
    fault.lock().map_or(Ok(()), |errno| Err(errno.into()))
}

impl Disk {
    fn file(&self, file: OpenFile) -> DiskFile {
        DiskFile {
            file,
            faults: Arc::clone(&self.faults),
        }
    }
}

impl Storage for Disk {
    type File = DiskFile;

    fn names(&self) -> io::Result<Vec<Name>> {
        self.files.names()
    }

    fn create(&self, name: Name, len: u64) -> io::Result<DiskFile> {
        fail(&self.faults.write)?;
        Ok(self.file(self.files.create(name, len)?))
    }

    fn open(&self, name: Name) -> io::Result<DiskFile> {
        Ok(self.file(self.files.open(name)?))
    }

    fn rename(&self, from: Name, to: Name) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn remove(&self, name: Name) -> io::Result<()> {
        self.files.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        fail(&self.faults.sync)?;
        self.files.sync_names()
    }
}

impl StorageFile for DiskFile {
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        fail(&self.faults.write)?;
        self.file.write_at(pieces, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        fail(&self.faults.sync)?;
        if self.faults.hold.swap(false, SeqCst) {
            *self.faults.held_thread.lock() = thread::current().name().map(str::to_owned);
            self.faults.is_held.store(true, SeqCst);
            // Not for ever, so that a test that fails ends.
            let until = Instant::now() + DEADLINE;
            while self.faults.is_held.load(SeqCst) && Instant::now() < until {
                thread::yield_now();
            }
            fail(&self.faults.late)?;
        }
        self.file.sync()
    }
}

/// Wakes the thread of a test, as if it were a data thread.
struct Woken(Thread);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A cache with a log.
struct Logged {
    cache: Arc<Cache>,
    log: Arc<Log>,
    thread: LogThread,
    faults: Arc<Faults>,
    /// What the log has room for.
    room: Arc<AtomicU64>,
    /// It was noted that something may be missing.
    is_noted: Arc<AtomicBool>,
    in_flight: Arc<InFlight>,
    gate: Gate,
}

fn files(path: &Path) -> Files {
    Files::new(path, Arc::new(Encryption::default()))
}

fn cache() -> Arc<Cache> {
    Arc::new(Cache::new(&CacheConfig {
        max_size_bytes: 32 << 20,
        max_items: None,
        policy: PolicyKind::Lru,
        seed: 7,
        first: Version::ZERO,
        threads: 1,
        allocation_size: |bytes| bytes,
        remembers_departures: true,
    }))
}

fn writer<S: Storage>(storage: S) -> LogWriter<S> {
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        ahead_bytes: 1 << 10,
    };
    LogWriter::begin(storage, config, Box::new(salt), 1, BTreeMap::new()).expect("there is room")
}

impl Logged {
    fn start(path: &Path, sync: SyncPolicy, standstill: Duration) -> Self {
        let cache = cache();
        cache.start_journals();
        let log = Arc::new(Log::new(Arc::clone(&cache), sync, 1));
        let faults = Arc::new(Faults::default());
        let disk = Disk {
            files: files(path),
            faults: Arc::clone(&faults),
        };
        let room = Arc::new(AtomicU64::new(u64::MAX));
        let is_noted = Arc::new(AtomicBool::new(false));
        let (left, noted) = (Arc::clone(&room), Arc::clone(&is_noted));
        let start = Start {
            writer: writer(disk.clone()),
            files: disk,
            // At once, so that no test waits for it.
            sync_interval: Box::new(|| Duration::ZERO),
            room: Box::new(move |_| left.load(SeqCst)),
            standstill,
            shortage: Box::new(|| "no snapshot was made".to_owned()),
            note_failure: Box::new(move || noted.store(true, SeqCst)),
        };
        let thread = LogThread::start(&log, start).expect("a thread");
        log.register(0, &Waker::from(Arc::new(Woken(thread::current()))));
        let in_flight = InFlight::new(1 << 30);
        let gate = Gate::new(
            Some(Arc::clone(&log)),
            Arc::new(Inboxes::new(1)),
            Arc::clone(&in_flight),
            0,
        );
        Self {
            cache,
            log,
            thread,
            faults,
            room,
            is_noted,
            in_flight,
            gate,
        }
    }

    /// Waits until the log says something.
    fn wait<T>(&self, mut look: impl FnMut(&Log) -> Option<T>) -> T {
        let until = Instant::now() + DEADLINE;
        loop {
            self.log.await_bell(0);
            if let Some(seen) = look(&self.log) {
                return seen;
            }
            assert!(Instant::now() < until, "{:?}", self.log);
            thread::park_timeout(DEADLINE);
        }
    }

    /// Waits until a sync is held up.
    fn wait_until_held(&self) {
        until(|| self.faults.is_held.load(SeqCst));
    }

    fn wait_until(&self, condition: Condition) {
        self.wait(|log| (log.condition() == condition).then_some(()));
    }

    fn wait_until_kept(&self, round: u64) {
        self.wait(|log| (log.outcome(round) == Some(Ok(()))).then_some(()));
    }

    fn snapshots(&self, folder: &Folder) -> Snapshots {
        let (cache, log) = (Arc::clone(&self.cache), Arc::clone(&self.log));
        Snapshots::new(files(&folder.0), cache, log, Clock::start())
    }

    /// Writes to the cache, and asks for the round that has it.
    fn write(&self, key: &[u8], value: &[u8]) -> Result<u64, Refusal> {
        set(&self.cache, key, value)?;
        let round = self.log.next_round();
        // As a connection does.
        assert!(self.gate.take_owed().is_some(), "it is not kept yet");
        self.log.ask();
        Ok(round)
    }

    fn outcome(&self, round: u64) -> Result<(), NotKept> {
        self.wait(|log| log.outcome(round))
    }

    /// Reads a key; whether an answer with it would have to wait.
    fn reads(&self, key: &[u8]) -> bool {
        let command = Command {
            key,
            operation: Operation::Get,
        };
        let found = self
            .cache
            .execute(&command, 1, |reply| matches!(reply, Reply::Found(_)));
        assert!(found, "it is there");
        self.gate.take_owed().is_some()
    }
}

/// Waits until something is so that wakes nobody.
fn until(is_so: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < until, "it does not come");
        thread::yield_now();
    }
}

fn set(cache: &Cache, key: &[u8], value: &[u8]) -> Result<(), Refusal> {
    let operation = Operation::Set {
        value: Value::from_slice(value),
        expiry: Expiry::Never,
        precondition: Precondition::NONE,
    };
    cache.execute(&Command { key, operation }, 1, |reply| match reply {
        Reply::Stored { .. } => Ok(()),
        Reply::Refused(refusal) => Err(refusal),
        other => panic!("a set is answered by {other:?}"),
    })
}

/// What the next start finds: how many records of the log.
fn recovered(path: &Path) -> u64 {
    let progress = Progress::default();
    recover(&files(path), &cache(), 1, &progress).expect("it is whole");
    progress.records()
}

/// Any failure but a full disk is for good: writes are refused, what is kept is shown, and the next start is told where
/// something that was acknowledged may be missing.
#[test]
fn a_disk_that_fails_breaks_the_log() {
    type Fault = fn(&Faults) -> &Mutex<Option<Errno>>;
    let (writing, syncing): (Fault, Fault) = (|faults| &faults.write, |faults| &faults.sync);
    // What fails, how the log is synced -> what becomes of the write under way, whether something may be missing.
    for (what, fault, sync, is_kept, is_noted) in [
        ("write", writing, SyncPolicy::Always, false, false),
        ("write", writing, SyncPolicy::Interval, false, true),
        ("write", writing, SyncPolicy::Never, false, true),
        // What a start reads then the disk may not have.
        ("sync", syncing, SyncPolicy::Always, false, true),
        ("sync", syncing, SyncPolicy::Interval, true, true),
    ] {
        let folder = Folder::new();
        let node = Logged::start(&folder.0, sync, FOR_EVER);
        let round = node.write(b"kept", b"1").expect("it is taken");
        assert_eq!(node.outcome(round), Ok(()), "{what} {sync:?}");
        // Whatever is synced of itself is, so that the next that fails is that of the next write.
        node.log.order(Order::Sync).expect("nothing fails yet");
        *fault(&node.faults).lock() = Some(Errno::IO);
        let written = node.write(b"later", b"1");
        // A mark of what was synced may have found the failure before.
        if let Ok(round) = written {
            let outcome = node.outcome(round);
            assert_eq!(outcome.is_ok(), is_kept, "{what} {sync:?}");
        }
        node.wait_until(Condition::Broken);
        let failure = node.log.failure().expect("it says why");
        assert!(
            failure.starts_with(&format!("failed to {what}: ")),
            "{failure}"
        );
        assert_eq!(node.is_noted.load(SeqCst), is_noted, "{what} {sync:?}");

        // What the kernel said once it does not say again.
        *fault(&node.faults).lock() = None;
        // A start that is not at its end yet takes back no more than it has refused itself.
        node.cache.refuse_writes(Refuses::Loading, false);
        assert_eq!(node.write(b"more", b"1"), Err(Refusal::LogFailed));
        assert!(!node.reads(b"kept"), "{what} {sync:?}");
        if written.is_ok() && !is_kept {
            assert!(node.reads(b"later"), "{what} {sync:?}: in no log");
        }
        let refused = node.log.order(Order::Roll).expect_err("it is broken");
        assert_eq!(refused.to_string(), failure);
        assert_eq!(node.thread.stop(), None, "it does not end in order");
        assert!(recovered(&folder.0) >= 1);
    }
}

#[test]
fn a_full_disk_is_waited_for() {
    let folder = Folder::new();
    let node = Logged::start(&folder.0, SyncPolicy::Always, FOR_EVER);
    let round = node.write(b"kept", b"1").expect("it is taken");
    assert_eq!(node.outcome(round), Ok(()));
    *node.faults.write.lock() = Some(Errno::NOSPC);
    let Ok(round) = node.write(b"later", b"1") else {
        panic!("nobody knows yet that it is full");
    };
    assert_eq!(node.outcome(round), Err(NotKept));
    assert_eq!(node.log.condition(), Condition::Full);
    assert_eq!(node.write(b"more", b"1"), Err(Refusal::LogFailed));
    assert!(node.reads(b"later"), "it is in no log yet");
    *node.faults.write.lock() = None;
    node.wait_until(Condition::Open);
    node.wait_until_kept(round);
    assert!(!node.reads(b"later"));
    assert!(!node.is_noted.load(SeqCst));
    assert!(node.thread.stop().is_some());
    assert_eq!(recovered(&folder.0), 2);
}

/// A node of which a sync is held up, another one is ordered, and the disk has become full; what was ordered.
fn held_and_full(folder: &Folder) -> (Logged, thread::JoinHandle<io::Result<Position>>) {
    let node = Logged::start(&folder.0, SyncPolicy::Interval, FOR_EVER);
    node.faults.hold.store(true, SeqCst);
    let round = node.write(b"kept", b"1").expect("it is taken");
    assert_eq!(node.outcome(round), Ok(()));
    node.wait_until_held();
    let round = node.write(b"more", b"1").expect("it is taken");
    assert_eq!(node.outcome(round), Ok(()));
    let rounds = node.log.figures.rounds.load(Relaxed);
    let log = Arc::clone(&node.log);
    let ordered = thread::spawn(move || log.order(Order::Sync));
    until(|| node.log.figures.rounds.load(Relaxed) > rounds);
    *node.faults.write.lock() = Some(Errno::NOSPC);
    let round = node.write(b"later", b"1").expect("nobody knows yet");
    assert_eq!(node.outcome(round), Err(NotKept));
    (node, ordered)
}

/// What is written is synced for whoever asks, though nothing more can be written.
#[test]
fn a_full_disk_is_synced() {
    let folder = Folder::new();
    let (node, ordered) = held_and_full(&folder);
    node.faults.is_held.store(false, SeqCst);
    until(|| ordered.is_finished());
    let synced = ordered.join().expect("it does not panic");
    assert!(synced.is_ok(), "{synced:?}");
    assert_eq!(node.log.condition(), Condition::Full);
    *node.faults.write.lock() = None;
    node.wait_until(Condition::Open);
    assert!(node.thread.stop().is_some());
    assert_eq!(recovered(&folder.0), 3);
}

/// A node that stops does not wait for room, and neither does its snapshot.
#[test]
fn a_node_with_a_full_disk_stops() {
    let folder = Folder::new();
    let node = Logged::start(&folder.0, SyncPolicy::Interval, FOR_EVER);
    let snapshots = Arc::new(node.snapshots(&folder));
    let schedule = Schedule {
        interval: Box::new(|| None),
    };
    let thread = SnapshotThread::start(&snapshots, schedule).expect("a thread");
    let round = node.write(b"kept", b"1").expect("it is taken");
    assert_eq!(node.outcome(round), Ok(()));
    node.log.order(Order::Sync).expect("nothing fails yet");
    node.faults.hold.store(true, SeqCst);
    let asked = snapshots.ask_and_wait();
    node.wait_until_held();
    *node.faults.write.lock() = Some(Errno::NOSPC);
    let Ok(round) = node.write(b"later", b"1") else {
        panic!("nobody knows yet that it is full");
    };
    assert_eq!(node.outcome(round), Err(NotKept));
    let (faults, log) = (Arc::clone(&node.faults), node.thread);
    let stopping = thread::spawn(move || stop(log, thread));
    // While the sync goes on that it waits for.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let outcome = runtime.block_on(async { tokio::time::timeout(DEADLINE, asked.made()).await });
    assert_eq!(outcome, Ok(Err("the node stops".to_owned())));
    faults.is_held.store(false, SeqCst);
    until(|| stopping.is_finished());
    let end = stopping.join().expect("it does not panic");
    assert_eq!(end, None, "what is in no log was not promised, and is said");
    assert_eq!(recovered(&folder.0), 1);
}

/// The kernel tells of a failure once for each open file: whoever is told has to be whoever promises.
#[test]
fn a_failed_sync_is_not_lost_on_another_thread() {
    let folder = Folder::new();
    let node = Logged::start(&folder.0, SyncPolicy::Always, FOR_EVER);
    let round = node.write(b"kept", b"1").expect("it is taken");
    assert_eq!(node.outcome(round), Ok(()));
    node.log.order(Order::Roll).expect("nothing fails yet");
    *node.faults.late.lock() = Some(Errno::IO);
    node.faults.hold.store(true, SeqCst);
    let log = Arc::clone(&node.log);
    let ordered = thread::spawn(move || log.order(Order::Sync));
    node.wait_until_held();
    set(&node.cache, b"later", b"1").expect("nobody knows yet");
    let round = node.log.next_round();
    node.log.ask();
    node.faults.is_held.store(false, SeqCst);
    assert_eq!(node.faults.held_thread.lock().as_deref(), Some("henge-log"));
    node.wait_until(Condition::Broken);
    assert_eq!(node.log.outcome(round), Some(Err(NotKept)));
    assert!(ordered.join().expect("it does not panic").is_err());
    assert!(node.is_noted.load(SeqCst));
    assert_eq!(node.thread.stop(), None);
}

/// Where a segment cannot be begun, or what a failed write has left not be removed, nothing is written any more.
#[test]
fn a_segment_that_cannot_be_begun_breaks_the_log() {
    // What happens -> whether the log is broken then.
    for (errno, expected) in [
        (Errno::IO, Condition::Broken),
        (Errno::NOSPC, Condition::Open),
    ] {
        let folder = Folder::new();
        let node = Logged::start(&folder.0, SyncPolicy::Never, FOR_EVER);
        let round = node.write(b"kept", b"1").expect("it is taken");
        assert_eq!(node.outcome(round), Ok(()));
        *node.faults.write.lock() = Some(errno);
        let error = node.log.order(Order::Roll).expect_err("it cannot be made");
        assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()));
        assert_eq!(node.log.condition(), expected);
        *node.faults.write.lock() = None;
        let is_open = expected == Condition::Open;
        assert_eq!(node.write(b"more", b"1").is_ok(), is_open);
        assert_eq!(node.thread.stop().is_some(), is_open);
    }
}

/// Where no snapshot makes room nothing is written, so that the log never grows beyond its bound. After a while that is said.
#[test]
fn a_log_without_room_stands_still() {
    let folder = Folder::new();
    let node = Logged::start(&folder.0, SyncPolicy::Never, Duration::ZERO);
    let round = node.write(b"kept", b"1").expect("it is taken");
    assert_eq!(node.outcome(round), Ok(()));
    node.room.store(0, SeqCst);
    let round = node.write(b"later", b"1").expect("nobody knows yet");
    assert_eq!(node.outcome(round), Err(NotKept));
    assert_eq!(node.log.condition(), Condition::Full);
    assert_eq!(node.log.failure().as_deref(), Some("no snapshot was made"));
    assert_eq!(node.write(b"more", b"1"), Err(Refusal::LogFailed));
    assert!(node.reads(b"later") && !node.reads(b"kept"));

    // Trying a snapshot writes nothing of what waits.
    let rounds = node.log.figures.rounds.load(Relaxed);
    assert_eq!(node.log.order(Order::Roll).ok(), Some(2));
    assert_eq!(node.log.figures.rounds.load(Relaxed), rounds);

    node.room.store(u64::MAX, SeqCst);
    node.wait_until(Condition::Open);
    assert_eq!(node.log.failure(), None);
    node.wait_until_kept(round);
    let round = node.write(b"more", b"1").expect("it is taken again");
    assert_eq!(node.outcome(round), Ok(()));

    // A node that is told to stop meanwhile ends in order, and loses nothing.
    node.room.store(0, SeqCst);
    let round = node.write(b"last", b"1").expect("nobody knows yet");
    assert_eq!(node.outcome(round), Err(NotKept));
    assert!(node.thread.stop().is_some());
    assert_eq!(recovered(&folder.0), 4);
}

/// What is in the journals counts as in flight until it is written, whoever waits for it.
#[test]
fn journals_count_as_in_flight() {
    let folder = Folder::new();
    let node = Logged::start(&folder.0, SyncPolicy::Never, FOR_EVER);
    node.room.store(0, SeqCst);
    let value = vec![b'v'; 1 << 20];
    let mut round = 0;
    for writes in 1..=8 {
        // Of one key: the cache has the last of them only.
        round = node.write(b"key", &value).expect("it is taken");
        let held = node.in_flight.held();
        let expected = writes * value.len();
        assert!((expected..expected + 8 * 64).contains(&held), "{held}");
    }
    assert!(node.log.outcome(round).is_none(), "it stands still");
    node.room.store(u64::MAX, SeqCst);
    assert_eq!(node.outcome(round), Ok(()));
    assert_eq!(node.in_flight.held(), 0);
    // What a disk has failed to write nobody will.
    *node.faults.write.lock() = Some(Errno::IO);
    let round = node.write(b"key", &value).expect("it is taken");
    assert_eq!(node.outcome(round), Err(NotKept));
    assert_eq!(node.in_flight.held(), 0);
    assert_eq!(node.thread.stop(), None);
}

/// What clients have written that are gone takes no more memory than it may: writes are refused until it is in the log, and
/// segments of the log stay as short as they are to be.
#[test]
fn what_the_log_is_behind_with_is_bounded() {
    const LIMIT: usize = 128 << 20;
    let folder = Folder::new();
    let node = Logged::start(&folder.0, SyncPolicy::Never, FOR_EVER);
    node.in_flight.set_limit(LIMIT);
    node.room.store(0, SeqCst);
    // Each by itself is too little to be counted.
    let value = vec![b'v'; 60_000];
    let mut written = 0;
    let refused = loop {
        match set(&node.cache, b"key", &value) {
            Ok(()) => written += value.len(),
            Err(refusal) => break refusal,
        }
        let owed = node.gate.take_owed();
        assert!(owed.is_some() && written <= LIMIT, "{written}");
    };
    assert_eq!(refused, Refusal::LogBehind);
    let held = node.in_flight.held();
    assert!(written > LIMIT / 2 && held > LIMIT / 2, "{written} {held}");
    assert_eq!(node.cache.flush(), Err(Refusal::LogBehind));
    let failure = node.log.failure().expect("it says why");
    assert!(failure.starts_with("the log is behind"), "{failure}");
    assert_eq!(node.log.condition(), Condition::Open);
    assert!(node.reads(b"key"), "it is in no log yet");

    // Nobody waits for it, and it is written all the same.
    node.room.store(u64::MAX, SeqCst);
    let round = node.log.next_round();
    assert_eq!(node.outcome(round), Ok(()));
    assert_eq!((node.in_flight.held(), node.log.failure()), (0, None));
    assert!(!node.reads(b"key"));
    let round = node.write(b"key", b"1").expect("it is taken again");
    assert_eq!(node.outcome(round), Ok(()));
    assert!(node.thread.stop().is_some());
    let longest = fs::read_dir(&folder.0)
        .expect("it is there")
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .max();
    assert!(longest < Some(SEGMENT_BYTES + (2 << 20)), "{longest:?}");
    assert_eq!(recovered(&folder.0), (written / value.len()) as u64 + 1);
}

/// Whoever goes away while it waits leaves nothing.
#[test]
fn who_is_gone_does_not_wait() {
    let folder = Folder::new();
    let node = Logged::start(&folder.0, SyncPolicy::Never, FOR_EVER);
    node.room.store(0, SeqCst);
    set(&node.cache, b"key", b"1").expect("it is taken");
    let mut owed = node.gate.take_owed().expect("it is not kept yet");
    let woken = Waker::from(Arc::new(Woken(thread::current())));
    let mut cx = Context::from_waker(&woken);
    let before = Arc::new(Woken(thread::current()));
    let mut stays = Place::default();
    let polled = node.gate.poll_owed(&mut owed, &mut stays, &mut cx);
    assert!(polled.is_pending());
    for _ in 0..100 {
        let waker = Waker::from(Arc::clone(&before));
        let mut place = Place::default();
        let mut cx = Context::from_waker(&waker);
        for _ in 0..2 {
            assert!(
                node.gate
                    .poll_owed(&mut owed, &mut place, &mut cx)
                    .is_pending()
            );
        }
        assert_eq!(node.gate.waiting(), 2);
    }
    assert_eq!((node.gate.waiting(), Arc::strong_count(&before)), (1, 1));
    node.room.store(u64::MAX, SeqCst);
    node.log.ask();
    node.wait(|log| (log.outcomes().0 > 0).then_some(()));
    let polled = node.gate.poll_owed(&mut owed, &mut stays, &mut cx);
    assert_eq!(polled, Poll::Ready(Ok(())));
    assert_eq!(node.gate.waiting(), 0);
}

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One that takes long says how far it is.
#[test]
fn a_snapshot_tells_of_its_progress() {
    let folder = Folder::new();
    let node = Logged::start(&folder.0, SyncPolicy::Never, FOR_EVER);
    let round = node.write(b"key", b"value").expect("it is taken");
    assert_eq!(node.outcome(round), Ok(()));
    let (files, cache, log) = (files(&folder.0), &node.cache, &node.log);
    let mut snapshots = Snapshots::new(files, Arc::clone(cache), Arc::clone(log), Clock::start());
    for (every, is_told) in [(DEADLINE, false), (Duration::ZERO, true)] {
        snapshots.line_every = every;
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let made = tracing::subscriber::with_default(subscriber, || snapshots.make());
        assert_eq!(made.expect("nothing fails").records, 1);
        let lines = String::from_utf8(lines.0.lock().clone()).expect("it is text");
        let line = r#"a snapshot is being made percent="50%" records="#;
        assert_eq!(lines.contains(line), is_told, "{lines}");
    }
}

/// A node that was killed before it could remove what its last snapshot covers needs no room for that at the next start.
#[test]
fn a_start_removes_what_its_snapshot_covers() {
    let folder = Folder::new();
    let node = Logged::start(&folder.0, SyncPolicy::Never, FOR_EVER);
    let (own, cache, log) = (files(&folder.0), &node.cache, &node.log);
    let snapshots = Snapshots::new(
        own.clone(),
        Arc::clone(cache),
        Arc::clone(log),
        Clock::start(),
    );
    let mut covered = BTreeMap::new();
    for value in [b"1", b"2"] {
        let round = node.write(b"key", value).expect("it is taken");
        assert_eq!(node.outcome(round), Ok(()));
        for name in own.names().expect("they are read") {
            let bytes = fs::read(own.path(name)).expect("it is read");
            covered.insert(name, bytes);
        }
        snapshots.make().expect("nothing fails");
    }
    assert!(node.thread.stop().is_some());
    let there = own.names().expect("they are read");
    covered.retain(|name, _| !there.contains(name));
    let kinds: Vec<FileKind> = covered.keys().map(|name| name.kind).collect();
    let (log, snapshot) = (FileKind::Segment, FileKind::Snapshot);
    assert_eq!(kinds, [log, log, snapshot]);
    for (name, bytes) in covered {
        fs::write(own.path(name), bytes).expect("it is written");
    }

    let (cache, progress) = (self::cache(), Progress::default());
    let recovered = recover(&own, &cache, 1, &progress).expect("it is whole");
    assert_eq!(recovered.snapshot, Some(3));
    assert_eq!(own.names().expect("they are read"), there);
    let segments: Vec<Name> = recovered
        .log
        .segments
        .into_keys()
        .map(Name::segment)
        .collect();
    assert_eq!(segments, there[..1]);
}

/// Who asked for a snapshot is told of the one that began after that, however late they look; and one that somebody waits
/// for is tried at once, though the last one failed.
#[test]
fn everybody_is_told_of_their_snapshot() {
    let folder = Folder::new();
    let node = Logged::start(&folder.0, SyncPolicy::Never, FOR_EVER);
    let snapshots = Arc::new(node.snapshots(&folder));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (late, early) = (snapshots.ask_and_wait(), snapshots.ask_and_wait());
    assert!(snapshots.is_wanted());
    let schedule = Schedule {
        interval: Box::new(|| None),
    };
    let thread = SnapshotThread::start(&snapshots, schedule).expect("a thread");
    let made = runtime.block_on(early.made()).expect("it is made");
    assert_eq!(snapshots.failure(), None);

    // In the way of the next one.
    let in_the_way = folder.0.join(Name::unfinished(9_999).to_string());
    fs::create_dir(&in_the_way).expect("a directory");
    for _ in 0..3 {
        let failed = runtime.block_on(snapshots.ask_and_wait().made());
        let failure = failed.expect_err("a directory is in the way");
        assert_eq!(snapshots.failure(), Some(failure));
    }
    assert_eq!(runtime.block_on(late.made()), Ok(made));
    fs::remove_dir(&in_the_way).expect("it is there");
    let next = runtime.block_on(snapshots.ask_and_wait().made());
    assert_eq!(next.map(|next| next.number), Ok(made.number + 1));
    assert_eq!(snapshots.failure(), None);
    drop(thread);
    let too_late = runtime.block_on(snapshots.ask_and_wait().made());
    assert_eq!(too_late, Err("the node stops".to_owned()));
}

/// A log of so many records of one key, and one at its end that does not follow if that is asked for.
fn write_log(path: &Path, records: u64, is_wrong: bool) {
    let partition = Partition::of(b"key");
    let mut journal = Journal::default();
    let skipped = records + 2;
    for seq in (1..=records).chain(is_wrong.then_some(skipped)) {
        let value = Value::from_slice(b"value");
        let effect = Effect::Put {
            value,
            expires_at_ms: None,
        };
        let mutation = Mutation {
            partition,
            version: Version::new(1, seq),
            effects: &[(b"key", effect)],
        };
        let written = Record::Mutation(mutation).encode(&mut journal);
        written.expect("it is short");
    }
    let mut writer = writer(files(path));
    writer.write(Some(journal)).expect("there is room");
    let end = writer.end().offset as usize;
    drop(writer);
    // The begin of a frame, as a crash leaves it.
    let file = path.join(Name::segment(1).to_string());
    let mut bytes = fs::read(&file).expect("it is there");
    bytes.truncate(end);
    bytes.extend_from_slice(&[200, 0, 0, 0, 1, 2, 3, 4, 5, 6]);
    fs::write(&file, bytes).expect("there is room");
}

/// Nothing is changed before all was applied: a torn end stays where a record before it is refused.
#[test]
fn a_refused_log_keeps_its_torn_end() {
    for is_wrong in [true, false] {
        let folder = Folder::new();
        // So many that they are not applied when the end is found.
        let records = 50_000;
        write_log(&folder.0, records, is_wrong);
        let part = folder.0.join(Name::unfinished(1).to_string());
        fs::write(&part, b"begun").expect("there is room");
        let file = folder.0.join(Name::segment(1).to_string());
        let before = fs::read(&file).expect("it is there");
        let progress = Progress::default();
        let outcome = recover(&files(&folder.0), &cache(), 1, &progress);
        let after = fs::read(&file).expect("it is there");
        if is_wrong {
            let error = outcome.expect_err("a version is missing");
            assert!(matches!(error, RecoveryError::Order { .. }), "{error}");
            assert!(before == after, "the log was changed");
            assert!(part.exists());
        } else {
            let recovered = outcome.expect("it is only torn");
            let cut = recovered.log.cut.expect("it was torn");
            assert_eq!((cut.bytes, progress.records()), (10, records));
            assert_eq!(after, before[..before.len() - 10]);
            assert!(!part.exists());
        }
    }
}
