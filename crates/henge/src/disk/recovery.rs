//! Makes the cache again at a start: the newest snapshot that is whole, then the log after it. One thread reads, as many as
//! there are cores decode and apply, each for shards of its own; so each partition's records stay in their order.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use henge_engine::Replayed;
use henge_engine::persistence::frame::Damage;
use henge_engine::persistence::recovery::{Chunk, Cut, LogEnd, RecoveryError, read_log};
use henge_engine::persistence::snapshot::{self, Part};
use henge_engine::persistence::snapshot_file::{SnapshotReader, Window};
use henge_engine::persistence::wal::{self, Record};
use henge_engine::persistence::{FileKind, Name, Position, Storage, StorageFile};
use henge_wire::Partition;
use parking_lot::{Condvar, Mutex};

use super::files::Files;
use crate::cache::Cache;

/// Windows and chunks that wait for one worker.
const WAITING: usize = 4;
/// A window that is longer than this is done before anything else is read: it is one value, which is in the cache as well by then.
const LARGE_BYTES: usize = 4 << 20;

/// How far a recovery is; others read it meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The bytes of all files that have to be read.
    pub(crate) total_bytes: AtomicU64,
    /// Of these, those that were.
    pub(crate) read_bytes: AtomicU64,
    /// Records restored and replayed.
    pub(crate) records: AtomicU64,
    /// Nobody needs it any more.
    pub(crate) is_given_up: AtomicBool,
}

impl Progress {
    /// Records restored and replayed.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Relaxed)
    }

    /// An error if nobody needs it any more.
    fn go_on(&self) -> Result<(), RecoveryError> {
        if self.is_given_up.load(Relaxed) {
            let error = io::Error::other("the node was told to stop");
            return Err(RecoveryError::Io(None, error));
        }
        Ok(())
    }

    /// The part that is done, from 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        let total = self.total_bytes.load(Relaxed).max(1);
        (self.read_bytes.load(Relaxed) as f64 / total as f64).min(1.0)
    }
}

/// What a recovery has found.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// How far the log went.
    pub(crate) log: LogEnd,
    /// The snapshot that was restored.
    pub(crate) snapshot: Option<u64>,
    /// When that was made, in milliseconds since 1970.
    pub(crate) snapshot_at_ms: u64,
    /// Records of the snapshot.
    pub(crate) restored: u64,
    /// Records that there was no room for.
    pub(crate) forgotten: u64,
    pub(crate) took: Duration,
}

/// One line for the log.
impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.snapshot {
            Some(number) => write!(
                f,
                "{} records of {} and {} of the log after it",
                self.restored,
                Name::snapshot(number),
                self.log.records
            )?,
            None => write!(
                f,
                "{} records of the log, and no snapshot",
                self.log.records
            )?,
        }
        write!(f, ", in {:.1} s", self.took.as_secs_f64())?;
        if self.forgotten > 0 {
            write!(f, "; {} found no room", self.forgotten)?;
        }
        if let Some(Cut {
            at,
            bytes,
            segments,
        }) = self.log.cut
        {
            write!(f, "; the log was torn: {bytes} bytes were cut at {at}")?;
            if segments > 0 {
                write!(f, ", with {segments} segments behind it")?;
            }
        }
        Ok(())
    }
}

/// Makes the cache again of what is in the directory.
pub(crate) fn recover(
    files: &Files,
    cache: &Arc<Cache>,
    now_ms: u64,
    progress: &Progress,
) -> Result<Recovered, RecoveryError> {
    let begun = Instant::now();
    let io = |error| RecoveryError::Io(None, error);
    let names = files.names().map_err(io)?;
    let mut snapshots: Vec<u64> = names
        .iter()
        .filter(|name| name.kind == FileKind::Snapshot)
        .map(|name| name.number)
        .collect();
    let mut broken = None;
    let (snapshot, complete) = loop {
        let Some(number) = snapshots.pop() else {
            match broken {
                Some(error) => return Err(error),
                None => break (None, Complete::default()),
            }
        };
        let covered = |name: &&Name| name.kind == FileKind::Segment && name.number >= number;
        let sizes: io::Result<u64> = names
            .iter()
            .filter(covered)
            .chain([&Name::snapshot(number)])
            .map(|name| files.open(*name)?.len())
            .sum();
        progress.total_bytes.store(sizes.map_err(io)?, Relaxed);
        match restore(files, cache, number, now_ms, progress) {
            Ok(complete) => break (Some(number), complete),
            // It may be whole, and with its key nothing has to be passed over.
            Err(error @ RecoveryError::Key(..)) => return Err(error),
            Err(error) => {
                // An older one is as good, if the log still has all that came after it; which the log will show.
                if let Some(older) = snapshots.last() {
                    tracing::error!(%error, "trying {}", Name::snapshot(*older));
                }
                cache.wipe();
                broken.get_or_insert(error);
            }
        }
    };
    if snapshot.is_none() {
        let sizes: io::Result<u64> = names
            .iter()
            .filter(|name| name.kind == FileKind::Segment)
            .map(|name| files.open(*name)?.len())
            .sum();
        progress.total_bytes.store(sizes.map_err(io)?, Relaxed);
    }
    let (mut log, forgotten) = replay(
        files,
        cache,
        snapshot.unwrap_or(1),
        complete.position,
        now_ms,
        progress,
    )?;
    // All of it was found good by all workers: only now may anything be changed.
    for name in &names {
        if name.kind == FileKind::Unfinished {
            // Nobody finished it, and nothing was removed for it.
            files.remove(*name).map_err(io)?;
        }
    }
    log.settle(files)?;
    if let Some(number) = snapshot {
        // Before anything is written: it may be what fills the disk.
        let removed = snapshots
            .iter()
            .try_for_each(|&older| files.remove(Name::snapshot(older)))
            .and_then(|()| log.remove_covered(files, number));
        if let Err(error) = removed {
            tracing::warn!(%error, "what {} covers was not removed", Name::snapshot(number));
        }
    }
    Ok(Recovered {
        log,
        snapshot,
        snapshot_at_ms: complete.at_ms,
        restored: complete.records,
        forgotten: complete.forgotten + forgotten,
        took: begun.elapsed(),
    })
}

/// The end of a snapshot.
#[derive(Clone, Copy, Default)]
struct Complete {
    position: Position,
    records: u64,
    at_ms: u64,
    forgotten: u64,
}

/// Restores a snapshot.
fn restore(
    files: &Files,
    cache: &Arc<Cache>,
    number: u64,
    now_ms: u64,
    progress: &Progress,
) -> Result<Complete, RecoveryError> {
    let name = Name::snapshot(number);
    let mut reader = SnapshotReader::open(files, name)?;
    let forgotten = AtomicU64::new(0);
    let complete = OnceLock::new();
    let apply = |worker: Worker, window: &Window| {
        let mut scratch = Vec::new();
        for (offset, body) in window.bodies() {
            let damaged = |damage| RecoveryError::Damaged {
                name,
                offset,
                damage,
            };
            match snapshot::decode(body).map_err(damaged)? {
                Part::Block(block) if worker.has(cache.shard_of(block.partition)) => {
                    let mut foreign = None;
                    let restored = block.records(&mut scratch, |record| {
                        let partition = Partition::of(record.key);
                        if partition != block.partition {
                            foreign = Some(partition);
                            return;
                        }
                        // What has expired comes as well: the log may give it another deadline.
                        let restored = cache.restore(block.partition, &record, now_ms);
                        if restored == Replayed::Forgotten {
                            forgotten.fetch_add(1, Relaxed);
                        }
                    });
                    if let Some(partition) = foreign {
                        let number = partition.number().into();
                        return Err(damaged(Damage::Unknown("partition of a key", number)));
                    }
                    restored.map_err(damaged)?;
                    progress
                        .records
                        .fetch_add(u64::from(block.records), Relaxed);
                }
                Part::Partition {
                    partition,
                    progress,
                    ..
                } if worker.has(cache.shard_of(partition)) => cache.resume(partition, progress),
                Part::Block(_) | Part::Partition { .. } => {}
                Part::Complete {
                    position,
                    records,
                    at_ms,
                } => {
                    // Each worker says the same.
                    let _ = complete.set((position, records, at_ms));
                }
            }
        }
        Ok(())
    };
    in_parallel(apply, |workers| {
        while let Some(window) = reader.next_window()? {
            let behind = complete.get().and_then(|_| window.bodies().next());
            if let Some((offset, _)) = behind {
                return Err(RecoveryError::Damaged {
                    name,
                    offset,
                    damage: Damage::Long,
                });
            }
            progress.go_on()?;
            let len = window.bytes.len();
            progress.read_bytes.fetch_add(len as u64, Relaxed);
            workers.send(window)?;
            if len > LARGE_BYTES {
                workers.wait();
            }
        }
        Ok(())
    })?;
    let (position, records, at_ms) = complete
        .get()
        .copied()
        .ok_or(RecoveryError::Incomplete(name))?;
    Ok(Complete {
        position,
        records,
        at_ms,
        forgotten: forgotten.load(Relaxed),
    })
}

/// Replays the log.
fn replay(
    files: &Files,
    cache: &Arc<Cache>,
    from: u64,
    needed: Position,
    now_ms: u64,
    progress: &Progress,
) -> Result<(LogEnd, u64), RecoveryError> {
    let forgotten = AtomicU64::new(0);
    let apply = |worker: Worker, chunk: &Chunk| {
        let mut effects = Vec::new();
        let mut replayed = 0;
        let name = Name::segment(chunk.segment);
        for (offset, body) in chunk.bodies() {
            let damaged = |damage| RecoveryError::Damaged {
                name,
                offset,
                damage,
            };
            let partition = wal::partition_of(body).map_err(damaged)?;
            if partition.is_some_and(|partition| !worker.has(cache.shard_of(partition))) {
                continue;
            }
            let record = wal::decode(body, &mut effects).map_err(damaged)?;
            let Some(partition) = partition else {
                if !matches!(record, Record::Synced(_)) {
                    let shards = 0..cache.shard_count();
                    for shard in shards.filter(|&shard| worker.has(shard)) {
                        cache.replay_for_all(shard, &record, now_ms);
                    }
                }
                continue;
            };
            let outcome = cache.replay(partition, &record, now_ms);
            let outcome = outcome.map_err(|not_next| RecoveryError::Order {
                name,
                offset,
                detail: not_next.to_string(),
            })?;
            replayed += 1;
            if outcome == Replayed::Forgotten {
                forgotten.fetch_add(1, Relaxed);
            }
        }
        progress.records.fetch_add(replayed, Relaxed);
        Ok(())
    };
    let log = in_parallel(apply, |workers| {
        let (mut segment, mut read) = (0, 0);
        read_log(files, from, needed, &mut |chunk| {
            if chunk.segment != segment {
                (segment, read) = (chunk.segment, 0);
                // A chunk keeps its segment: no more than two are in memory, this one and the next that is read meanwhile.
                workers.wait();
            }
            progress.go_on()?;
            let end = chunk.end();
            progress.read_bytes.fetch_add(end - read, Relaxed);
            read = end;
            workers.send(chunk)
        })
    })?;
    Ok((log, forgotten.into_inner()))
}

/// One of several that share the shards.
#[derive(Clone, Copy)]
struct Worker {
    index: usize,
    count: usize,
}

impl Worker {
    fn has(self, shard: usize) -> bool {
        shard % self.count == self.index
    }
}

/// What was sent to all workers, and is not done by all of them.
#[derive(Default)]
struct Undone {
    count: Mutex<usize>,
    changed: Condvar,
}

/// A piece of work. It is done when the last worker has dropped it.
struct Piece<W> {
    work: W,
    /// Dropped after the work, whose memory is free by then.
    _counted: Counted,
}

struct Counted(Arc<Undone>);

impl Drop for Counted {
    fn drop(&mut self) {
        let mut count = self.0.count.lock();
        *count -= 1;
        if *count == 0 {
            self.0.changed.notify_all();
        }
    }
}

/// Those that work, for who reads.
struct Workers<W> {
    senders: Vec<SyncSender<Arc<Piece<W>>>>,
    undone: Arc<Undone>,
    failure: Arc<OnceLock<()>>,
}

impl<W> Workers<W> {
    /// Shows work to all of them. An error if one has failed.
    fn send(&self, work: W) -> Result<(), RecoveryError> {
        *self.undone.count.lock() += 1;
        let piece = Arc::new(Piece {
            work,
            _counted: Counted(Arc::clone(&self.undone)),
        });
        for sender in &self.senders {
            // One that has failed takes nothing more, and says so in the end.
            let _ = sender.send(Arc::clone(&piece));
        }
        match self.failure.get() {
            // What the worker says comes before this.
            Some(()) => Err(RecoveryError::Io(None, io::Error::other("given up"))),
            None => Ok(()),
        }
    }

    /// Waits until all that was sent is done.
    fn wait(&self) {
        let mut count = self.undone.count.lock();
        while *count > 0 {
            self.undone.changed.wait(&mut count);
        }
    }
}

/// Has `read` send work to as many workers as there are cores, each of which is shown all of it. The first error of any ends
/// all.
fn in_parallel<W: Send + Sync, R>(
    apply: impl Fn(Worker, &W) -> Result<(), RecoveryError> + Sync,
    read: impl FnOnce(&Workers<W>) -> Result<R, RecoveryError>,
) -> Result<R, RecoveryError> {
    let count = thread::available_parallelism().map_or(1, usize::from);
    let failure = Arc::new(OnceLock::new());
    let (outcome, applied) = thread::scope(|scope| {
        let mut senders = Vec::new();
        let mut workers = Vec::new();
        for index in 0..count {
            let (sender, receiver): (_, Receiver<Arc<Piece<W>>>) = sync_channel(WAITING);
            senders.push(sender);
            let (apply, failure) = (&apply, &failure);
            workers.push(scope.spawn(move || {
                for piece in receiver {
                    // After a failure what comes is only taken, so that nobody waits.
                    if failure.get().is_some() {
                        continue;
                    }
                    if let Err(error) = apply(Worker { index, count }, &piece.work) {
                        let _ = failure.set(());
                        return Err(error);
                    }
                }
                Ok(())
            }));
        }
        let to = Workers {
            senders,
            undone: Arc::default(),
            failure: Arc::clone(&failure),
        };
        let outcome = read(&to);
        drop(to);
        let applied: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                worker.join().unwrap_or_else(|_| {
                    let error = io::Error::other("a thread of the recovery ended early");
                    Err(RecoveryError::Io(None, error))
                })
            })
            .collect();
        (outcome, applied)
    });
    applied.into_iter().collect::<Result<(), _>>()?;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    /// Counts how many there are of it.
    struct Thing(Arc<AtomicUsize>);

    impl Drop for Thing {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }

    #[test]
    fn who_waits_finds_all_work_done() {
        let (there, done) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let work = || {
            there.fetch_add(1, SeqCst);
            Thing(Arc::clone(&there))
        };
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let apply = |_: Worker, _: &Thing| {
            done.fetch_add(1, SeqCst);
            Ok(())
        };
        let outcome = in_parallel(apply, |to| {
            for round in 1..50 {
                to.wait();
                for _ in 0..round {
                    to.send(work())?;
                }
                to.wait();
                assert_eq!(there.load(SeqCst), 0, "round {round}");
            }
            Ok(())
        });
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(done.load(SeqCst), workers * (1..50).sum::<usize>());
    }

    /// Nobody waits for a worker that is not there any more.
    #[test]
    fn a_failure_ends_all() {
        let there = Arc::new(AtomicUsize::new(0));
        let apply = |worker: Worker, _: &Thing| match worker.index {
            0 => Err(RecoveryError::Missing(7)),
            _ => Ok(()),
        };
        let outcome: Result<(), _> = in_parallel(apply, |to| {
            loop {
                there.fetch_add(1, SeqCst);
                to.send(Thing(Arc::clone(&there)))?;
                to.wait();
            }
        });
        assert!(matches!(outcome, Err(RecoveryError::Missing(7))));
        assert_eq!(there.load(SeqCst), 0);
    }
}
