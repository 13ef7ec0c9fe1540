//! Looking ahead: what a coming command will read is asked of memory before the command runs, so that the misses of a
//! whole pipeline overlap. Three steps follow one another's reads, bucket, record, neighbours in the eviction order; between
//! them others' steps are taken. Nothing is changed, and nothing is promised: what a step names may be gone at the next.

use super::Shard;
use crate::arena::Handle;
use henge_wire::Partition;

/// What the step before has found, if it has.
#[derive(Clone, Copy, Debug)]
pub struct Hint(u32);

impl Hint {
    /// Nothing was found.
    pub const NONE: Self = Self(u32::MAX);
}

impl Shard {
    /// Asks for the bucket of a hash in a partition of this shard.
    #[inline]
    pub fn ahead_bucket(&self, partition: Partition, hash: u64) -> Hint {
        let table = &self.partitions[self.local(partition)].table;
        Hint(self.buckets.prefetch(table, hash).unwrap_or(u32::MAX))
    }

    /// Asks for the record that the bucket names for the hash.
    #[inline]
    pub fn ahead_record(&self, bucket: Hint, hash: u64) -> Hint {
        let Some(at) = self.buckets.candidate(bucket.0, hash) else {
            return Hint::NONE;
        };
        self.records.prefetch(at);
        Hint(at.0)
    }

    /// Asks for the rest of the record, and for what a use of it writes beside it.
    #[inline]
    pub fn ahead_neighbours(&self, record: Hint) {
        self.records.prefetch_neighbours(Handle(record.0));
    }
}
