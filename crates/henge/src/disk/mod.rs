//! What a node has on its disk: its data directory, the log and the thread that writes it, snapshots, and how the cache is
//! made again of both at a start. The formats and the rules of recovery are the engine's; here are the files, the threads,
//! and who waits for what.

mod backlog;
mod bound;
pub(crate) mod directory;
pub(crate) mod figures;
pub(crate) mod files;
pub(crate) mod gate;
pub(crate) mod log;
pub(crate) mod one_file;
mod order;
mod pace;
pub(crate) mod persistence;
pub(crate) mod recovery;
pub(crate) mod repair;
pub(crate) mod restore;
pub(crate) mod snapshots;
#[cfg(test)]
mod tests;
mod timekeeper;
