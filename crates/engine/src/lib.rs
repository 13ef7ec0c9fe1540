//! What is kept: the items of a node's partitions, in memory, with their eviction order, expiry and compression. Pure:
//! it knows no clock, file, socket, thread or lock; time, seeds and the room to grow come in as arguments.

mod arena;
mod budget;
pub mod compress;
mod decide;
mod departures;
mod expiry;
mod hasher;
mod links;
mod partition;
pub mod persistence;
mod policy;
mod prefetch;
mod record;
mod segment;
mod shard;
mod table;

pub use budget::{Lender, NoLender, Room, Turn};
pub use departures::{AGE_BOUNDS_S, Absence, EvictionAges, MissCause};
pub use hasher::KeyHasher;
pub use partition::{Progress, ReplicaState};
pub use policy::PolicyKind;
pub use prefetch::Line;
pub use record::Body;
pub use segment::SEGMENT_BYTES;
pub use shard::{
    Cause, Commit, Footprint, Forgotten, Hint, NotNext, RecordView, Recovered, Replace,
    ReplayError, Replayed, Scan, Shard, ShardConfig, ShardStats, Short, Size, Unexplained,
};
