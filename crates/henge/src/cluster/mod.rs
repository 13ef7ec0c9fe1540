//! The node among others: what they agree on, by Raft.

pub(crate) mod raft;
