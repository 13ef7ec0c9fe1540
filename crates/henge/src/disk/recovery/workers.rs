//! Threads that a recovery has, each for shards of its own: all are shown what was read, in its order. What a piece of work
//! does they are told.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use henge_engine::persistence::recovery::RecoveryError;
use parking_lot::{Condvar, Mutex};

/// Windows and chunks that wait for one worker.
const WAITING: usize = 4;

/// One of several that share the shards.
#[derive(Clone, Copy)]
pub(super) struct Worker {
    index: usize,
    count: usize,
}

impl Worker {
    /// Whether a shard is its.
    pub(super) fn has(self, shard: usize) -> bool {
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
pub(super) struct Workers<W> {
    senders: Vec<SyncSender<Arc<Piece<W>>>>,
    undone: Arc<Undone>,
    failure: Arc<OnceLock<()>>,
}

impl<W> Workers<W> {
    /// Shows work to all of them. An error if one has failed.
    pub(super) fn send(&self, work: W) -> Result<(), RecoveryError> {
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
    pub(super) fn wait(&self) {
        let mut count = self.undone.count.lock();
        while *count > 0 {
            self.undone.changed.wait(&mut count);
        }
    }
}

/// Has `read` send work to as many workers as there are cores, each of which is shown all of it. The first error of any ends
/// all.
pub(super) fn in_parallel<W: Send + Sync, R>(
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
