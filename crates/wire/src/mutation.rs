//! `Mutation`: what a partition's leader stamps, logs and streams, and every replica applies. It holds effects and
//! absolute deadlines, never a condition or a relative lifetime: those were decided before the stamp.

use crate::{Partition, Value, Version};

/// One step in a partition's order.
#[derive(Clone, Debug)]
pub struct Mutation<'a> {
    /// The partition whose order it belongs to.
    pub partition: Partition,
    /// Its place in that order.
    pub version: Version,
    /// What becomes of each key, applied together.
    pub effects: &'a [(&'a [u8], Effect<'a>)],
}

/// What becomes of a key.
#[derive(Clone, Debug)]
pub enum Effect<'a> {
    /// It holds this value until the deadline, in milliseconds since the Unix epoch.
    Put {
        /// The new value.
        value: Value<'a>,
        /// When it expires, if ever.
        expires_at_ms: Option<u64>,
    },
    /// It keeps its value and takes this deadline.
    Expire {
        /// When it expires, if ever.
        expires_at_ms: Option<u64>,
    },
    /// It is gone. Stamped even when the leader does not hold the key, as another replica may.
    Delete,
}
