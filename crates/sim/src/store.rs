//! What the simulator asks of a table beside what the protocol does: its disk. What a table writes goes to its log; the log is
//! handed to the disk in batches; a batch is written at some time, and synced at the same or a later one. A crash keeps what was
//! written, or only what was synced, and of what comes behind that any part.

use henge_cluster::bugs::Bugs;
use henge_cluster::carrier::FrameOf;
use henge_cluster::replica::{Key, Progress, State, Table, Types};
use henge_cluster::testing::random::Random;
use henge_wire::{Partition, Version};

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
    /// Something is there, or was found.
    pub is_there: bool,
    /// What it holds, where that is told.
    pub value: Option<u64>,
    /// Something was changed.
    pub is_changed: bool,
}

/// What a key holds, for who compares.
pub type Held = (Version, Option<u64>);

/// What is found after a crash.
#[derive(Clone, Debug)]
pub struct Found {
    /// The state of the protocol.
    pub state: State,
    /// How far the order has come.
    pub progress: Progress,
    /// More may have been promised.
    pub has_lost_memory: bool,
}

/// What is different from one table to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// The records that there is room for.
    pub records: usize,
    /// Of which partition it is.
    pub partition: Partition,
    /// Planted ones.
    pub bugs: Bugs,
    /// Each key is at a place of its own in scans, so that a copy of a few has several parts.
    pub scans_by_key: bool,
}

/// Where a key is in a scan that goes by keys: by a hash of it, so that none that comes or goes moves others, and above 0, which begins.
pub fn place_of(key: &Key) -> u32 {
    let mixed = key.iter().fold(0x811c_9dc5_u32, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    mixed >> 1 | 1
}

/// A request of a table.
pub type RequestOf<'r, S> = <<S as Store>::Kind as Types>::Request<'r>;
/// The effects of a table's entries.
pub type EffectsOf<S> = <<S as Store>::Kind as Types>::Effects;
/// What a table's records hold.
pub type ValueOf<S> = <<S as Store>::Kind as Types>::Value;
/// What a table's requests are answered.
pub type ReplyOf<S> = <<S as Store>::Kind as Types>::Reply;

/// See the head of the file.
pub trait Store: Table<Self::Kind> {
    /// What goes into it and comes out of it.
    type Kind: Types;

    /// An empty one.
    fn create(size: Size) -> Self;

    /// The hash of a key, as its requests have it.
    fn hash(&self, key: &[u8]) -> u64;

    /// Calls with the request of its own for what a client asks.
    fn request(asks: &Asks, now_ms: u64, hash: u64, call: impl FnOnce(RequestOf<'_, Self>));

    /// What a client is told by a reply.
    fn told(what: What, reply: &<Self::Kind as Types>::Reply) -> Told;

    /// A frame as it comes out of the bytes that it travels as, where it has any.
    fn carry(frame: FrameOf<Self::Kind>) -> FrameOf<Self::Kind> {
        frame
    }

    /// What a key holds, expired or not.
    fn held(&self, key: &[u8]) -> Option<Held>;

    /// The keys of which it has something.
    fn all_keys(&self) -> Vec<Key>;

    /// All that is in the log is on its way to the disk; the number of that batch.
    fn hand(&mut self) -> u64;

    /// Batches up to this one are in the file.
    fn written(&mut self, batch: u64);

    /// All that is in the file is synced.
    fn sync_written(&mut self);

    /// The process ends, or the machine, and it is found again with what of its log survived.
    fn crash(&mut self, is_machine: bool, random: &mut Random) -> Found;

    /// Forgets some record that may be forgotten.
    fn evict(&mut self, random: &mut Random) -> bool;
}
