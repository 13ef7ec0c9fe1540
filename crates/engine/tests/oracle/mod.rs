//! What must hold for every file that the log or a snapshot is read from, whatever is in it.

pub(crate) mod files;
pub(crate) mod log;
pub(crate) mod snapshot;
