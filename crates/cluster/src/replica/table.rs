//! What the protocol asks of a replica's table. What is in a request, a reply or a value it does not know: it sees keys and
//! versions. All that a table does to itself it writes to its log, in one order, together with the state of the protocol that
//! comes with it: both are in the log, or neither.

use super::State;
use henge_wire::Version;
use std::fmt::Debug;
use std::hash::Hash;

/// A key.
pub type Key = Vec<u8>;

/// How far a replica's order has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Progress {
    /// The term in which it was last aligned, and the seq of the newest that it has applied.
    pub last: Version,
    /// The highest seq known to be committed.
    pub commit: u64,
    /// The highest seq of any record ever dropped.
    pub horizon: u64,
}

/// A record as it travels: what a key holds in which version, or that it was deleted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Record<V> {
    /// Its key.
    pub key: Key,
    /// The version that wrote it.
    pub version: Version,
    /// What it holds; none for a tombstone.
    pub value: Option<V>,
}

/// A step of a partition's order: effects, never conditions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Entry<E> {
    /// Its place.
    pub version: Version,
    /// What becomes of which keys.
    pub effects: E,
}

/// What a request came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ran<E, R> {
    /// It was stamped and applied. Its effects are there if they were asked for.
    Changed(Version, Option<E>, R),
    /// It changed nothing, and its answer rests on a version of this seq; 0 if it found nothing.
    Saw(u64, R),
    /// There is no room, and nothing may be dropped for it. Nothing was changed.
    NoRoom,
}

/// There is no room for an entry, and nothing may be dropped for it. It was not applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

/// What an installed copy replaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replace {
    /// All records.
    All,
    /// Those above this seq.
    Above(u64),
}

/// Why a table was wiped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wiped {
    /// It was ordered that all be forgotten.
    Ordered,
    /// No majority of those who had it remembers it.
    Lost,
    /// Others have it.
    Removed,
}

/// What goes into a table and comes out of it.
pub trait Types {
    /// What clients ask; it may borrow, as it is not kept.
    type Request<'r>: Clone + Debug;
    /// What they are answered.
    type Reply: Clone + Eq + Hash + Debug;
    /// What an entry does.
    type Effects: Clone + Eq + Hash + Debug;
    /// What a record holds.
    type Value: Clone + Eq + Hash + Debug;

    /// About how many bytes a record is as a message.
    fn bytes(record: &Record<Self::Value>) -> usize {
        record.key.len()
    }

    /// About how many bytes effects are as a message, where anybody has to know.
    fn effects_bytes(_: &Self::Effects) -> usize {
        0
    }
}

/// See the head of the file.
pub trait Table<T: Types> {
    /// How far it is.
    fn progress(&self) -> Progress;

    /// Decides, stamps `(last.term, last.seq + 1)` and applies, as the leader. Effects are asked for where somebody else is to have
    /// them: to encode them is not for nothing.
    fn execute(
        &mut self,
        now_ms: u64,
        request: &T::Request<'_>,
        wants_effects: bool,
    ) -> Ran<T::Effects, T::Reply>;

    /// The keys that effects are on.
    fn keys(&self, effects: &T::Effects) -> Vec<Key>;

    /// Applies the next entry.
    fn apply(&mut self, now_ms: u64, entry: &Entry<T::Effects>) -> Result<(), NoRoom>;

    /// All up to this seq is committed, and may be dropped.
    fn commit(&mut self, seq: u64);

    /// From now on, or no longer, nobody else has it, and all may be taken for committed that is applied. A table that waits until
    /// it is told is as right.
    fn commit_at_once(&mut self, _at_once: bool) {}

    /// Writes the state of the protocol to the log.
    fn log(&mut self, state: &State);

    /// It is aligned in a later term, at the same seq.
    fn align(&mut self, term: u32, state: &State);

    /// What it has of a key.
    fn record(&self, key: &[u8]) -> Option<Record<T::Value>>;

    /// Shows the records above a seq at a place of a scan, and gives the next place; 0 begins and ends. A record that is there
    /// from the begin to the end of a scan is shown, whatever else comes and goes.
    fn scan(&self, place: u32, above: u64, each: &mut dyn FnMut(Record<T::Value>)) -> u32;

    /// In one step: removes what is replaced, puts these, and takes this progress; its own commit or horizon where they are
    /// higher, unless all is replaced.
    fn install(
        &mut self,
        replace: Replace,
        records: Vec<Record<T::Value>>,
        progress: Progress,
        state: &State,
    );

    /// Takes a part of a full copy, where there is nothing: of each of these keys this is all that it has from now on, its record or none.
    /// It counts for nothing until [`complete`](Self::complete), and no crash brings it back before that.
    fn fill(&mut self, states: Vec<(Key, Option<Record<T::Value>>)>);

    /// What it was filled with is all of the copy, and has this progress.
    fn complete(&mut self, progress: Progress, state: &State);

    /// Removes what it was filled with, as the copy has not come to its end.
    fn empty(&mut self);

    /// The same records in a new generation. That they were committed, and what was dropped, was so in the one before: in this
    /// one nothing is yet.
    fn keep(&mut self, state: &State);

    /// Forgets all, its progress as well.
    fn wipe(&mut self, state: &State);

    /// Why it was wiped last, for who asks what became of a key; it may be said later than that.
    fn explain_wipe(&mut self, _why: Wiped) {}
}
