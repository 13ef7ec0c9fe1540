//! What may go wrong with consensus, as whoever asked for it is told.

use std::fmt;

use openraft::BasicNode;
use openraft::error::{ChangeMembershipError, ClientWriteError, Fatal, RaftError};

use super::file::FileError;

/// Why this node takes no part in consensus, or did not understand a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ConsensusError {
    /// The file of the log cannot be used.
    File(FileError),
    /// Raft has stopped: because the disk failed, or the node ends.
    Stopped(String),
    /// The node has been in a cluster before, and can begin none.
    HasBegun,
    /// It has begun, and is not done in the time that is given to it.
    Late,
    /// A question, or an answer, of another version.
    Version(u8),
    /// A question, or an answer, that makes no sense.
    Malformed(String),
}

impl fmt::Display for ConsensusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Stopped(why) => write!(f, "Raft has stopped: {why}"),
            Self::HasBegun => f.write_str("the node has been in a cluster before"),
            Self::Late => f.write_str("Raft has not begun in time"),
            Self::Version(version) => write!(
                f,
                "Raft's question has the version {version}, and this node speaks {}",
                super::network::VERSION
            ),
            Self::Malformed(what) => write!(f, "Raft's question makes no sense: {what}"),
        }
    }
}

impl std::error::Error for ConsensusError {}

impl From<FileError> for ConsensusError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<Fatal<u64>> for ConsensusError {
    fn from(fatal: Fatal<u64>) -> Self {
        Self::Stopped(fatal.to_string())
    }
}

/// Why what was proposed has not been agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ProposeError {
    /// Another node leads, if it is known which. Nothing was proposed.
    NotLeader(Option<u64>),
    /// Nobody has said in time whether it was agreed on: it may be, or may still come to be.
    Lost,
    /// A change of the members is under way. Nothing was proposed.
    Busy,
    /// The command is longer than one may be. Nothing was proposed.
    TooLong,
    /// Somebody is to vote who does not learn. Nothing was proposed.
    UnknownLearner(u64),
    /// Nobody would vote. Nothing was proposed.
    NoVoters,
    /// Raft has stopped: it may have been agreed on or not.
    Stopped(String),
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader(Some(leader)) => write!(f, "the leader of Raft is {leader:016x}"),
            Self::NotLeader(None) => f.write_str("no majority of the voters has a leader"),
            Self::Lost => f.write_str("nobody has said in time whether it was agreed on"),
            Self::Busy => f.write_str("another change of the members is under way"),
            Self::TooLong => f.write_str("the command is too long"),
            Self::UnknownLearner(id) => write!(f, "{id:016x} is not known to Raft"),
            Self::NoVoters => f.write_str("nobody would vote"),
            Self::Stopped(why) => write!(f, "Raft has stopped: {why}"),
        }
    }
}

impl std::error::Error for ProposeError {}

impl From<RaftError<u64, ClientWriteError<u64, BasicNode>>> for ProposeError {
    fn from(error: RaftError<u64, ClientWriteError<u64, BasicNode>>) -> Self {
        let error = match error {
            RaftError::Fatal(fatal) => return Self::Stopped(fatal.to_string()),
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                return Self::NotLeader(forward.leader_id);
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => error,
        };
        match error {
            ChangeMembershipError::InProgress(_) => Self::Busy,
            ChangeMembershipError::EmptyMembership(_) => Self::NoVoters,
            ChangeMembershipError::LearnerNotFound(learner) => {
                Self::UnknownLearner(learner.node_id)
            }
        }
    }
}
