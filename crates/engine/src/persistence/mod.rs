//! What outlives the process, as bytes and as rules: the write-ahead log, snapshots, and how a cache is made again of
//! both. Pure: files are behind [`Storage`], which the node implements over a directory and the tests over a disk that
//! fails. docs/durability.md has every format byte by byte.

pub mod cipher;
pub mod frame;
pub mod inventory;
pub mod journal;
pub mod log;
mod output;
pub mod recovery;
pub mod replica;
pub mod snapshot;
pub mod snapshot_file;
mod storage;
pub mod wal;
pub mod walk;

#[cfg(test)]
mod tests;

pub use storage::{FileKind, Name, Position, Storage, StorageFile};
