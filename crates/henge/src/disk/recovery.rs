//! Makes the cache again at a start: the newest snapshot that is whole, then the log after it. One thread reads, as many as
//! there are cores decode and apply, each for shards of its own; so each partition's records stay in their order.

mod workers;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use henge_engine::Replayed;
use henge_engine::persistence::inventory::Inventory;
use henge_engine::persistence::recovery::{Chunk, Cut, LogEnd, RecoveryError, read_log};
use henge_engine::persistence::snapshot::{self, Part};
use henge_engine::persistence::snapshot_file::{SnapshotReader, Window};
use henge_engine::persistence::wal::{self, Record};
use henge_engine::persistence::{FileKind, Name, Position, Storage, StorageFile};

use self::workers::{Worker, in_parallel};
use super::files::Files;
use crate::cache::Cache;

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

    /// So much is to be read from now on. What was read before of what did not help does not count.
    fn begin(&self, total_bytes: u64) {
        self.total_bytes.store(total_bytes, Relaxed);
        self.read_bytes.store(0, Relaxed);
        self.records.store(0, Relaxed);
    }

    /// All was read.
    fn end(&self) {
        let total = self.total_bytes.load(Relaxed);
        self.read_bytes.store(total, Relaxed);
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
        progress.begin(sizes.map_err(io)?);
        match restore(files, cache, number, now_ms, progress) {
            Ok(complete) => break (Some(number), complete),
            // It may be whole, and with its key nothing has to be passed over.
            Err(error @ RecoveryError::Key(..)) => return Err(error),
            // Nothing is wrong with it.
            Err(error) if progress.is_given_up.load(Relaxed) => return Err(error),
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
        progress.begin(sizes.map_err(io)?);
    }
    let from = snapshot.unwrap_or(1);
    let replayed = replay(files, cache, from, complete.position, now_ms, progress);
    let (mut log, forgotten) = match (replayed, broken) {
        (Ok(replayed), _) => replayed,
        (Err(error), None) => return Err(error),
        // What the newest one needs is not what is wrong with the log of an older one.
        (Err(error), Some(broken)) => {
            return Err(match error {
                RecoveryError::Key(..) => error,
                _ if progress.is_given_up.load(Relaxed) => error,
                _ => {
                    tracing::error!(%error, "the older snapshot does not help");
                    broken
                }
            });
        }
    };
    // Room that was made ahead and not used is not read.
    progress.end();
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
                    let restored = block.own_records(&mut scratch, |record| {
                        // What has expired comes as well: the log may give it another deadline.
                        let restored = cache.restore(block.partition, &record, now_ms);
                        if restored == Replayed::Forgotten {
                            forgotten.fetch_add(1, Relaxed);
                        }
                    });
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
                Part::Replica {
                    partition,
                    commit,
                    state,
                } if worker.has(cache.shard_of(partition)) => {
                    cache.begin_restore(partition, number, commit, state);
                }
                Part::Block(_)
                | Part::Partition { .. }
                | Part::Replica { .. }
                | Part::Complete { .. } => {}
            }
        }
        Ok(())
    };
    let mut complete = None;
    in_parallel(apply, |workers| {
        let mut inventory = Inventory::default();
        while let Some(window) = reader.next_window()? {
            progress.go_on()?;
            for (offset, body) in window.bodies() {
                let damaged = |damage| RecoveryError::Damaged {
                    name,
                    offset,
                    damage,
                };
                let part = snapshot::decode(body).map_err(damaged)?;
                inventory.take(&part).map_err(damaged)?;
                if let Part::Complete {
                    position,
                    records,
                    at_ms,
                } = part
                {
                    complete = Some((position, records, at_ms));
                }
            }
            let len = window.bytes.len();
            progress.read_bytes.fetch_add(len as u64, Relaxed);
            workers.send(window)?;
            if len > LARGE_BYTES {
                workers.wait();
            }
        }
        Ok(())
    })?;
    let (position, records, at_ms) = complete.ok_or(RecoveryError::Incomplete(name))?;
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

#[cfg(test)]
mod tests;
