//! Connections between nodes, on the node's port: how they begin (`greet`), frames (`frames`), questions (`asking`) and
//! answers (`answering`), large answers that wait for another connection (`parking`), the connections of a thread to all other
//! nodes (`links`), and whether what was proved on one still holds (`standing`). What is asked is not known here.

pub(crate) mod answering;
pub(crate) mod asking;
pub(crate) mod frames;
pub(crate) mod greet;
pub(crate) mod links;
pub(crate) mod parking;
pub(crate) mod standing;

/// What a question is about: the `service` of its frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub(crate) enum Service {
    /// Requests of the Redis protocol, as clients sent them.
    Resp = 1,
    /// Commands on keys.
    Commands = 2,
    /// What consensus says.
    Raft = 3,
    /// Who is there, of nodes that form a cluster.
    Form = 4,
    /// To be taken in, or to begin a start.
    Start = 5,
    /// For an answer that was parked, by its number.
    Claim = 6,
    /// A change that an operator asks for.
    Change = 7,
    /// A node says that it ends.
    Leave = 8,
    /// How a node's replicas stand.
    Report = 9,
    /// What a node has found to be lost.
    Losses = 12,
    /// One of the others, of a request that is traced: see [`crate::traces::Wrapped`].
    Traced = 13,
}

/// The `service` of an answer that says that nothing was done, and why.
const FAILED: u8 = 0xFF;
/// The same of one that says under which number (u64) the answer is parked: see [`parking`].
const PARKED: u8 = 0xFE;
/// The same of one that says why there is no answer to what was done.
const UNTOLD: u8 = 0xFD;

/// Questions and answers from this size on go over connections for bulk: 2 ms of a network of 1 Gbit/s, so that a small one
/// behind those that do not waits no longer than a round trip or two; and the round trip more that a parked answer costs is
/// little beside its own time. Batches of small values are mostly below.
pub(crate) const BULK_BYTES: usize = 256 * 1024;
/// The longest answer: the largest value that can be configured, behind as much as an answer may have before it stops (1 MiB in
/// `keys`), with what surrounds them.
pub(crate) const MAX_ANSWER_BYTES: usize = (1 << 30) + (2 << 20);

impl Service {
    pub(crate) fn of(number: u8) -> Option<Self> {
        [
            Self::Resp,
            Self::Commands,
            Self::Raft,
            Self::Form,
            Self::Start,
            Self::Claim,
            Self::Change,
            Self::Leave,
            Self::Report,
            Self::Losses,
            Self::Traced,
        ]
        .into_iter()
        .find(|service| *service as u8 == number)
    }
}

#[cfg(test)]
mod tests;
