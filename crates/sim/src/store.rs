//! What the simulator asks of a table beside what the protocol does: its disk. What a table writes goes to its log; the log is
//! handed to the disk in batches; a batch is written at some time, and synced at the same or a later one. A crash keeps what was
//! written, or only what was synced, and of what comes behind that any part.

use crate::random::Random;
use henge_cluster::replica::{Key, Progress, State, Table};
use henge_wire::Version;

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asks {
    /// The key that it is about.
    pub key: Key,
    /// What is to be done with it.
    pub what: What,
}

/// See [`Asks`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// What does it hold?
    Get,
    /// Puts it.
    Set(u64),
    /// Puts it for some milliseconds.
    SetFor(u64, u64),
    /// Deletes it.
    Delete,
    /// Sets it if there is nothing.
    Add(u64),
    /// Adds 1; from nothing it becomes 1.
    Increment,
    /// Puts it if it is of this version.
    Swap(Version, u64),
}

/// What a client is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Told {
    /// The version that was made, or found; none for nothing.
    pub version: Option<Version>,
    /// What it holds; none for nothing, or for what was deleted.
    pub value: Option<u64>,
    /// Something was changed.
    pub is_changed: bool,
}

/// What a key holds, for who compares.
pub type Held = (Version, Option<u64>);

/// What is different from one table to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// The records that there is room for.
    pub records: usize,
}

/// See the head of the file.
pub trait Store: Table {
    /// An empty one.
    fn create(size: Size) -> Self;

    /// The request of its own for what a client asks.
    fn request(asks: &Asks) -> Self::Request;

    /// What a client is told by a reply.
    fn told(reply: &Self::Reply) -> Told;

    /// What a key holds, expired or not.
    fn held(&self, key: &[u8]) -> Option<Held>;

    /// The keys of which it has something.
    fn keys(&self) -> Vec<Key>;

    /// All that is in the log is on its way to the disk; the number of that batch.
    fn hand(&mut self) -> u64;

    /// Batches up to this one are in the file.
    fn written(&mut self, batch: u64);

    /// All that is in the file is synced.
    fn sync_written(&mut self);

    /// The process ends, or the machine, and it is found again with what of its log survived.
    fn crash(&mut self, is_machine: bool, random: &mut Random) -> (State, Progress);

    /// Forgets some record that may be forgotten.
    fn evict(&mut self, random: &mut Random) -> bool;
}
