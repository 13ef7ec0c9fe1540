//! Connections between nodes, on the node's port: who each side is (`greet`), frames (`frames`), questions (`asking`) and
//! answers (`answering`), and the connections of a thread to all other nodes (`links`). What is asked is not known here.

pub(crate) mod answering;
pub(crate) mod asking;
pub(crate) mod frames;
pub(crate) mod greet;
pub(crate) mod links;

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
    /// A change that an operator asks for.
    Change = 6,
    /// A node says that it ends.
    Leave = 7,
}

/// The `service` of an answer that says that nothing was done, and why.
const FAILED: u8 = 0xFF;

impl Service {
    fn of(number: u8) -> Option<Self> {
        [
            Self::Resp,
            Self::Commands,
            Self::Raft,
            Self::Form,
            Self::Start,
            Self::Change,
            Self::Leave,
        ]
        .into_iter()
        .find(|service| *service as u8 == number)
    }
}
