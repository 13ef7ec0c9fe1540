//! What is kept: the items of a node's partitions, in memory, with their eviction order, expiry and compression. Pure:
//! it knows no clock, file, socket, thread or lock; time, seeds and the room to grow come in as arguments.

mod arena;
mod expiry;
mod links;
mod policy;
mod table;

pub use policy::{PolicyKind, UnknownPolicy};
