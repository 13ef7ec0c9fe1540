//! Placeholder.
pub(crate) const FILE: &str = "raft.redb";
