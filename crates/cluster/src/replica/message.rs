//! What replicas of a partition say to each other. Each message is of a term, and travels with the incarnations of who sent it
//! and of whom it is for; what is for another incarnation is not given to a replica.

use super::table::{Entry, Key, Record};
use crate::history::History;
use crate::topology::Epoch;
use henge_wire::Version;

/// The number of a copy, among all that a puller has asked for in its life.
pub type CopyId = u64;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Message<E, V> {
    /// The term that it is of.
    pub term: Epoch,
    /// What is said.
    pub body: Body<E, V>,
}

/// What is said in a term.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Body<E, V> {
    /// Leader: leave lower terms behind.
    Fence {
        /// The generation.
        generation: Epoch,
    },
    /// To the leader: done, and this is how far I have come.
    Fenced {
        /// The newest applied, in the term in which that was aligned.
        last: Version,
        /// The order that it is of.
        history: History,
    },
    /// To anybody: I follow a later term.
    Refused {
        /// That term.
        adopted: Epoch,
    },
    /// Leader: this is the order.
    Open {
        /// The generation.
        generation: Epoch,
        /// Where the term began.
        base: u64,
        /// The order; its newest term is this one.
        history: History,
    },
    /// To the leader: I have that order, up to here.
    Aligned {
        /// The newest seq that is applied and kept.
        applied: u64,
    },
    /// To a source: send what I lack.
    Pull {
        /// Of this copy.
        id: CopyId,
        /// What both have.
        common: u64,
        /// What the source is to have, and no more than that, where the puller is to lead.
        wanted: Option<Version>,
        /// Keys of which the puller has something that the source may not.
        keys: Vec<Key>,
    },
    /// To a source: that has come; go on behind it.
    Next {
        /// Of this copy.
        id: CopyId,
        /// The number of the part that comes next, from 0 on.
        number: u64,
    },
    /// From a source.
    Part {
        /// Of this copy.
        id: CopyId,
        /// Its place, from 0 on.
        number: u64,
        /// Whether the copy is of everything. A part that says another thing than the one before begins the copy anew.
        is_full: bool,
        /// What keys hold now.
        states: Vec<(Key, Option<Record<V>>)>,
        /// All was sent; how far the source is with that.
        end: Option<End>,
    },
    /// From a source: not that, or not any more.
    Abort {
        /// Of this copy.
        id: CopyId,
    },
    /// Leader: the next of the order.
    Append {
        /// It.
        entry: Entry<E>,
        /// What is committed.
        commit: u64,
    },
    /// Leader: how far the order is, if nothing else is said for a while. It is said once the term is open.
    Beat {
        /// The newest seq.
        last: u64,
        /// What is committed.
        commit: u64,
    },
    /// To the leader: all up to here is applied and kept.
    Ack {
        /// That seq.
        applied: u64,
    },
    /// Leader: do you still follow nobody later?
    Probe {
        /// The number of the question.
        number: u64,
    },
    /// To the leader: so it is.
    Echo {
        /// The number of the question.
        number: u64,
    },
}

/// Where a source is at the end of a copy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct End {
    /// The newest that it has applied.
    pub at: Version,
    /// Its order.
    pub history: History,
    /// What it knows to be committed.
    pub commit: u64,
    /// The highest seq of any record that it dropped.
    pub horizon: u64,
}
