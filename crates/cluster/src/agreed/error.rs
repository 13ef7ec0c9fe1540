//! Why a command is rejected, as whoever proposed it is told. It is part of what Raft answers, and travels between nodes.

use super::{MAX_INCARNATION, MAX_MEMBERS, MAX_NAMES, MAX_SETTINGS, MAX_SETTINGS_BYTES};
use crate::ring::{MAX_WEIGHT, NodeId};
use crate::topology::{self, Incarnation};
use henge_wire::peer::MAX_NAME_BYTES;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a command changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Rejected {
    /// There is a cluster already.
    AlreadyFormed,
    /// There is none yet.
    NotFormed,
    /// The topology does not allow it.
    Topology(topology::Rejected),
    /// A node is registered by its start, and by nothing else.
    NotAStart,
    /// The data directory is that of a member of another name.
    OtherName(NodeId),
    /// No node has such a weight.
    Weight(u32),
    /// A partition has one replica or more.
    NoReplicas,
    /// There can be no more members.
    TooManyMembers,
    /// There can be no more names.
    TooManyNames,
    /// More partitions are named than there are.
    TooManyPartitions,
    /// There can be no more settings.
    TooManySettings,
    /// The setting has another version than was expected; 0 means that there is none.
    SettingVersion {
        /// Which it has.
        present: u64,
    },
    /// A text that must not be empty.
    Empty(Text),
    /// A text that must be shorter.
    TooLong(Text),
    /// No node has been started so often.
    Incarnation(Incarnation),
}

/// A text in a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Text {
    /// What an operator calls a node.
    NodeName,
    /// Where a node is reached.
    Address,
    /// What a setting is called.
    SettingName,
    /// What it is set to.
    SettingValue,
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeName => "the name of a node",
            Self::Address => "the address of a node",
            Self::SettingName => "the name of a setting",
            Self::SettingValue => "the value of a setting",
        })
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyFormed => f.write_str("there is a cluster already"),
            Self::NotFormed => f.write_str("there is no cluster yet"),
            Self::Topology(rejected) => rejected.fmt(f),
            Self::NotAStart => f.write_str("a node is registered by its start only"),
            Self::OtherName(node) => write!(
                f,
                "the data directory is that of the member {node}, which has another name"
            ),
            Self::Weight(weight) => write!(f, "a weight is 1 to {MAX_WEIGHT}, not {weight}"),
            Self::NoReplicas => f.write_str("a partition has at least one replica"),
            Self::TooManyMembers => write!(f, "a cluster has at most {MAX_MEMBERS} members"),
            Self::TooManyNames => write!(f, "a cluster has had at most {MAX_NAMES} node ids"),
            Self::TooManyPartitions => f.write_str("it names more partitions than there are"),
            Self::TooManySettings => write!(f, "a cluster has at most {MAX_SETTINGS} settings"),
            Self::SettingVersion { present: 0 } => f.write_str("there is no such setting"),
            Self::SettingVersion { present } => {
                write!(f, "the setting has the version {present}")
            }
            Self::Empty(text) => write!(f, "{text} is empty"),
            Self::TooLong(Text::SettingValue) => write!(
                f,
                "the settings of a cluster have at most {MAX_SETTINGS_BYTES} bytes together"
            ),
            Self::Incarnation(number) => write!(
                f,
                "the number of a start is at most {MAX_INCARNATION}, not {number}"
            ),
            Self::TooLong(text) => write!(f, "{text} has more than {MAX_NAME_BYTES} bytes"),
        }
    }
}

impl std::error::Error for Rejected {}
