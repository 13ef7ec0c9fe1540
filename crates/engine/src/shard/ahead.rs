//! Looking ahead: what a coming command will read is asked of memory before the command runs, so that the misses of a
//! whole pipeline overlap. Three steps follow one another's reads, bucket, record, neighbours in the eviction order; between
//! them others' steps are taken. Nothing is changed, and nothing is promised: what a step names may be gone at the next.

use super::Shard;
use crate::arena::Handle;
use crate::prefetch::Line;
use henge_wire::Partition;

/// What the step before has found, if it has.
#[derive(Clone, Copy, Debug)]
pub struct Hint(u32);

impl Hint {
    /// Nothing was found.
    pub const NONE: Self = Self(u32::MAX);
}

impl Shard {
    /// The bucket of a hash in a partition of this shard, and its line.
    #[inline]
    pub fn ahead_bucket(&self, partition: Partition, hash: u64) -> (Hint, Line) {
        let table = &self.partitions[self.local(partition)].table;
        match self.buckets.ahead(table, hash) {
            Some((index, line)) => (Hint(index), line),
            None => (Hint::NONE, Line::NONE),
        }
    }

    /// The record that the bucket names for the hash, and its first two lines: most have no more.
    #[inline]
    pub fn ahead_record(&self, bucket: Hint, hash: u64) -> (Hint, [Line; 2]) {
        let Some(at) = self.buckets.candidate(bucket.0, hash) else {
            return (Hint::NONE, [Line::NONE; 2]);
        };
        let first = self.records.arena.line(at);
        (Hint(at.0), [first, first.next()])
    }

    /// The line after a record's first two, if it goes on there, and those of what a use of it writes beside it.
    #[inline]
    pub fn ahead_neighbours(&self, record: Hint) -> [Line; 3] {
        self.records.ahead(Handle(record.0))
    }
}
