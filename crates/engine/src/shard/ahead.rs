//! Looking ahead: what a coming command will read is asked of memory before the command runs, so that the misses of a
//! whole pipeline overlap. Each step follows what the one before has asked for: bucket, more buckets where they overflow, record,
//! neighbours in the eviction order; between them others' steps are taken. Nothing is changed, and nothing is promised: what
//! a step names may be gone at the next.

use super::Shard;
use crate::arena::Handle;
use crate::prefetch::Line;
use crate::table::Ahead;
use henge_wire::Partition;

/// How far looking ahead has come for one key.
#[derive(Clone, Copy, Debug)]
pub enum Hint {
    /// Nothing is known but the hash.
    Start,
    /// The bucket is asked for.
    Bucket(u32),
    /// The record is asked for.
    Record(u32),
    /// All is asked for, or there is nothing.
    Done,
}

impl Shard {
    /// Takes the next step for a key of a partition of this shard, by the key's hash: what is known then, and the lines that
    /// are to be asked for.
    #[inline]
    pub fn ahead(&self, partition: Partition, hash: u64, hint: Hint) -> (Hint, [Line; 3]) {
        match hint {
            Hint::Start => {
                let table = &self.partitions[self.local(partition)].table;
                self.buckets
                    .ahead(table, hash)
                    .map_or((Hint::Done, [Line::NONE; 3]), |(bucket, line)| {
                        (Hint::Bucket(bucket), [line, Line::NONE, Line::NONE])
                    })
            }
            Hint::Bucket(bucket) => match self.buckets.candidate(bucket, hash) {
                Ahead::Entry(at) => {
                    // Most records have no more than two.
                    let first = self.records.arena.line(at);
                    (Hint::Record(at.0), [first, first.next(), Line::NONE])
                }
                Ahead::Overflow(bucket, line) => {
                    (Hint::Bucket(bucket), [line, Line::NONE, Line::NONE])
                }
                // What is counted of a read that finds nothing is why.
                Ahead::Nothing => {
                    let why = self.departures.line(hash);
                    (Hint::Done, [why, Line::NONE, Line::NONE])
                }
            },
            Hint::Record(record) => (Hint::Done, self.records.ahead(Handle(record))),
            Hint::Done => (Hint::Done, [Line::NONE; 3]),
        }
    }
}
