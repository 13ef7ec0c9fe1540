//! What travels: commands and replies between a protocol and the engine, mutations between replicas, the versions
//! and slots that both speak of, the Redis protocol's bytes, and those between nodes. Bytes in, bytes out; this crate knows no socket, clock, lock or engine.

mod command;
mod glob;
mod long_double;
mod mutation;
pub mod peer;
pub mod resp;
mod slot;
mod transaction;
mod value;
mod version;

pub use command::{Command, Expiry, Item, Match, Operation, Precondition, Refusal, Reply};
pub use glob::{Glob, MAX_PATTERN_BYTES, Search};
pub use long_double::LongDouble;
pub use mutation::{Effect, Mutation};
pub use slot::{PARTITIONS, Partition, SLOTS, Slot};
pub use transaction::{Condition, Guard, MAX_TRANSACTION_KEYS, Outcome, Transaction};
pub use value::{Data, DataType, Encoding, Value};
pub use version::{ParseVersionError, Version};

/// The longest key, in bytes. A key's length fits 16 bits on every wire, and a key costs no more than a small value.
pub const MAX_KEY_BYTES: usize = 64 * 1024;
