//! What others tell the log's thread to do between two rounds. It does none of it.

use std::io;
use std::sync::mpsc::Sender;

use henge_engine::persistence::Position;

/// What the thread is told to do between two rounds.
#[derive(Debug)]
pub(crate) enum Order {
    /// Begin a segment, and say which.
    Roll(Sender<io::Result<u64>>),
    /// Have all that was applied until now on the disk, and say how far that is.
    Sync(Sender<io::Result<Position>>),
    /// Remove what a snapshot covers: all segments before this one.
    Cover(u64, Sender<io::Result<()>>),
}

impl Order {
    /// Answers that it was not done. Whoever gave it may be gone.
    pub(super) fn refuse(self, error: io::Error) {
        match self {
            Self::Roll(sender) => drop(sender.send(Err(error))),
            Self::Sync(sender) => drop(sender.send(Err(error))),
            Self::Cover(_, sender) => drop(sender.send(Err(error))),
        }
    }
}
