//! Looking ahead: what a coming command will read is asked of memory before the command runs, so that the misses of a
//! whole pipeline overlap. Three steps follow one another's reads, bucket, record, neighbours in the eviction order; between
//! them others' steps are taken. Nothing is changed, and nothing is promised: a record may have moved by the time it is read.

use super::Shard;
use henge_wire::Partition;

/// How far to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ahead {
    /// The bucket of the key's hash.
    Bucket,
    /// The records that the bucket names for it: nearly always one.
    Record,
    /// What a use of the record writes beside it.
    Neighbours,
}

impl Shard {
    /// Takes one step for a key of this hash in a partition of this shard.
    #[inline]
    pub fn look_ahead(&self, partition: Partition, hash: u64, step: Ahead) {
        let table = &self.partitions[self.local(partition)].table;
        match step {
            Ahead::Bucket => self.buckets.prefetch(table, hash),
            Ahead::Record => {
                self.buckets
                    .candidates(table, hash, |at| self.records.prefetch(at));
            }
            Ahead::Neighbours => self.buckets.candidates(table, hash, |at| {
                self.records.prefetch_neighbours(at);
            }),
        }
    }
}
