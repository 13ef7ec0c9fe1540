//! What openraft asks of a log and of a state machine, over [`RaftFile`]. All that touches the disk happens on one thread of its own,
//! in the order in which it was asked: the runtime that asks has other things to do than to wait for a disk. The state is in
//! memory, and on the disk as the newest snapshot and the entries behind it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;
use std::{io, thread};

use henge_cluster::agreed::Agreed;
use openraft::storage::{LogFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{
    AnyError, BasicNode, EntryPayload, ErrorSubject, ErrorVerb, LogState, OptionalSend,
    RaftLogReader, RaftSnapshotBuilder, StorageIOError,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::file::{FileError, Kept, RaftFile};
use super::types::{
    Applied, Entry, LogId, Membership, Snapshot, SnapshotMeta, StorageError, Types, Vote,
};

/// Who asks waits for the answer, so that few wait: Raft itself, a snapshot, and one reader for each member.
const MAX_WAITING: usize = 64;
/// One question to another node carries no more of the log than that, unless one entry alone is larger: it has to arrive within a heartbeat.
const MAX_BATCH_BYTES: usize = 256 << 10;

enum Job {
    Work(Box<dyn FnOnce(&mut RaftFile) + Send>),
    Close(oneshot::Sender<()>),
}

/// The thread that has the file.
#[derive(Clone, Debug)]
pub(super) struct Disk(mpsc::Sender<Job>);

impl Disk {
    /// Opens the file of a directory.
    async fn open(directory: &Path, instance: u64) -> Result<Self, FileError> {
        let directory = directory.to_owned();
        let path = directory.clone();
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let (tell, told) = oneshot::channel();
        let open = move || {
            let opened = RaftFile::open(&directory, instance);
            let (file, opened) = match opened {
                Ok(file) => (Some(file), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // Nobody hears it who has gone meanwhile, and then nobody asks for anything either.
            let _ = tell.send(opened);
            if let Some(file) = file {
                serve(file, waiting);
            }
        };
        let thread = thread::Builder::new().name("henge-raft-log".to_owned());
        let spawned = thread.spawn(open);
        spawned.map_err(|error| FileError::Failed(path, error.to_string()))?;
        told.await.map_err(|_| FileError::Closed)??;
        Ok(Self(jobs))
    }

    /// Has something done with the file, and awaits it.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RaftFile) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, FileError> {
        let (tell, told) = oneshot::channel();
        let job = move |file: &mut RaftFile| {
            // Who asked may have gone.
            let _ = tell.send(file.latched(work));
        };
        self.give(job).await?;
        told.await.map_err(|_| FileError::Closed)?
    }

    async fn give(
        &self,
        job: impl FnOnce(&mut RaftFile) + Send + 'static,
    ) -> Result<(), FileError> {
        let given = self.0.send(Job::Work(Box::new(job))).await;
        given.map_err(|_| FileError::Closed)
    }

    /// Closes the file, and returns when it is. Whoever asks for anything afterwards is told that it is.
    pub(super) async fn close(&self) {
        let (tell, told) = oneshot::channel();
        if self.0.send(Job::Close(tell)).await.is_ok() {
            // An error means that it is closed already.
            let _ = told.await;
        }
    }

    #[cfg(test)]
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

fn serve(mut file: RaftFile, mut waiting: mpsc::Receiver<Job>) {
    while let Some(job) = waiting.blocking_recv() {
        match job {
            Job::Work(work) => work(&mut file),
            Job::Close(tell) => {
                drop(file);
                // Before it is told, so that nothing is sent while the channel goes: that would neither be refused nor be answered.
                waiting.close();
                while waiting.blocking_recv().is_some() {}
                let _ = tell.send(());
                return;
            }
        }
    }
}

fn wrong(error: &FileError, subject: ErrorSubject<u64>, verb: ErrorVerb) -> StorageError {
    StorageIOError::new(subject, verb, AnyError::new(error)).into()
}

/// Opens the file of a directory: its thread, the log, the state, and where to watch that.
pub(super) async fn open(
    directory: &Path,
    instance: u64,
) -> Result<(Disk, Log, State, watch::Receiver<Arc<Agreed>>), FileError> {
    let disk = Disk::open(directory, instance).await?;
    let kept = disk.run(RaftFile::snapshot).await?;
    let (meta, agreed) = match kept {
        Some(kept) => (kept.meta, kept.agreed),
        None => (SnapshotMeta::default(), Agreed::new()),
    };
    let agreed = Arc::new(agreed);
    let (shows, seen) = watch::channel(Arc::clone(&agreed));
    let state = State {
        disk: disk.clone(),
        agreed,
        applied: meta.last_log_id,
        membership: meta.last_membership,
        shows,
    };
    let log = Log {
        disk: disk.clone(),
        own: instance,
    };
    Ok((disk, log, state, seen))
}

/// The log and the vote.
#[derive(Clone, Debug)]
pub(super) struct Log {
    disk: Disk,
    /// The Raft id that it is of.
    own: u64,
}

impl Log {
    async fn read(
        &self,
        range: impl RangeBounds<u64>,
        most_bytes: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        let read = self.disk.run(move |file| file.entries(range, most_bytes));
        let read = read.await;
        read.map_err(|error| wrong(&error, ErrorSubject::Logs, ErrorVerb::Read))
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(range, usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(start..end, MAX_BATCH_BYTES).await
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let ends = self.disk.run(RaftFile::ends).await;
        let ends = ends.map_err(|error| wrong(&error, ErrorSubject::Logs, ErrorVerb::Read))?;
        Ok(LogState {
            last_purged_log_id: ends.purged,
            last_log_id: ends.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        let saved = self.disk.run(move |file| file.set_vote(&vote)).await;
        saved.map_err(|error| wrong(&error, ErrorSubject::Vote, ErrorVerb::Write))
    }

    /// The last vote. Who voted for itself and was elected is so no more: openraft would have it lead on from its first moment, in the same
    /// term, though it has forgotten what a leader is told, and nobody else would know that it began anew.
    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.disk.run(RaftFile::vote).await;
        let mut vote = vote.map_err(|error| wrong(&error, ErrorSubject::Vote, ErrorVerb::Read))?;
        if let Some(vote) = &mut vote {
            vote.committed &= vote.leader_id.voted_for() != Some(self.own);
        }
        Ok(vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let saved = self
            .disk
            .run(move |file| file.set_committed(committed))
            .await;
        saved.map_err(|error| wrong(&error, ErrorSubject::Store, ErrorVerb::Write))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let committed = self.disk.run(RaftFile::committed).await;
        committed.map_err(|error| wrong(&error, ErrorSubject::Store, ErrorVerb::Read))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        // Whoever reads them asks the same thread after this.
        let append = move |file: &mut RaftFile| {
            let appended = file.latched(|file| file.append(&entries));
            callback.log_io_completed(appended.map_err(io::Error::other));
        };
        let given = self.disk.give(append).await;
        given.map_err(|error| wrong(&error, ErrorSubject::Logs, ErrorVerb::Write))
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        let done = self.disk.run(move |file| file.truncate(from.index)).await;
        done.map_err(|error| wrong(&error, ErrorSubject::Logs, ErrorVerb::Delete))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let done = self.disk.run(move |file| file.purge(upto)).await;
        done.map_err(|error| wrong(&error, ErrorSubject::Logs, ErrorVerb::Delete))
    }
}

/// What is agreed on, as far as it is applied.
pub(super) struct State {
    disk: Disk,
    agreed: Arc<Agreed>,
    applied: Option<LogId>,
    membership: Membership,
    shows: watch::Sender<Arc<Agreed>>,
}

/// A state of which a snapshot is to be made.
pub(super) struct Builder {
    disk: Disk,
    meta: SnapshotMeta,
    agreed: Arc<Agreed>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let meta = self.meta.clone();
        let agreed = Arc::clone(&self.agreed);
        let keep = move |file: &RaftFile| {
            let agreed = Agreed::clone(&agreed);
            let kept = Kept { meta, agreed };
            // One that a leader has sent meanwhile is newer.
            Ok(file.set_snapshot(&kept)?.unwrap_or(kept))
        };
        let kept = self.disk.run(keep).await;
        let subject = ErrorSubject::Snapshot(Some(self.meta.signature()));
        let kept = kept.map_err(|error| wrong(&error, subject, ErrorVerb::Write))?;
        Ok(snapshot_of(kept))
    }
}

fn snapshot_of(kept: Kept) -> Snapshot {
    Snapshot {
        meta: kept.meta,
        snapshot: Box::new(kept.agreed),
    }
}

impl RaftStateMachine<Types> for State {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut results = Vec::new();
        let mut has_changed = false;
        for entry in entries {
            self.applied = Some(entry.log_id);
            let applied = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(command) => {
                    let applied = Arc::make_mut(&mut self.agreed).apply(&command);
                    has_changed |= applied.is_ok();
                    Some(applied)
                }
                EntryPayload::Membership(membership) => {
                    self.membership = Membership::new(Some(entry.log_id), membership);
                    None
                }
            };
            results.push(Applied(applied));
        }
        if has_changed {
            self.shows.send_replace(Arc::clone(&self.agreed));
        }
        Ok(results)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let index = self.applied.map_or(0, |id| id.index);
        Builder {
            disk: self.disk.clone(),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
                // Two of the same state are the same.
                snapshot_id: index.to_string(),
            },
            agreed: Arc::clone(&self.agreed),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Agreed>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Agreed>,
    ) -> Result<(), StorageError> {
        let kept = Kept {
            meta: meta.clone(),
            agreed: *snapshot,
        };
        let agreed = Arc::new(kept.agreed.clone());
        let done = self.disk.run(move |file| file.set_snapshot(&kept)).await;
        let subject = ErrorSubject::Snapshot(Some(meta.signature()));
        done.map_err(|error| wrong(&error, subject, ErrorVerb::Write))?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.agreed = agreed;
        self.shows.send_replace(Arc::clone(&self.agreed));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let kept = self.disk.run(RaftFile::snapshot).await;
        let subject = ErrorSubject::Snapshot(None);
        let kept = kept.map_err(|error| wrong(&error, subject, ErrorVerb::Read))?;
        Ok(kept.map(snapshot_of))
    }
}

/// The nodes of a membership that is this one alone.
pub(super) fn alone(instance: u64, address: String) -> BTreeMap<u64, BasicNode> {
    BTreeMap::from([(instance, BasicNode::new(address))])
}
