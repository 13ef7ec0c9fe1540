//! A snapshot as bytes: the records of a cache, partition by partition, in blocks that are compressed where that pays. It
//! opens no file. docs/durability.md has the format byte by byte; it changes only with a new number.
//!
//! ```text
//! body       u8 kind, then by kind:
//! block      1 | u16 partition | u32 records | u8 encoding | u32 raw length | record, record, ...; compressed together
//! partition  2 | u16 partition | u64 last | u64 commit | u64 horizon | u64 records
//! complete   3 | u64 segment | u64 offset | u64 records | u64 milliseconds since 1970
//! replica    4 | u16 partition | u64 commit | state, as in the log
//! record     u64 version | effect, as in the log: a put, or a delete for a tombstone
//! ```
//!
//! The blocks of a partition come before its `partition`. What a block holds may be newer than the partition's `last`, which
//! is where the log is replayed from; of a node that replicates its `replica` comes before them. `complete` says how far the log must go for all of that to be in it.

use super::Position;
use super::frame::{Damage, Reader, TooLong};
use super::journal::{Journal, Pieces};
use super::replica::{encode_record, encode_state, may_have_state};
use crate::partition::{Progress, ReplicaState};
use crate::shard::RecordView;
use henge_wire::{Encoding, PARTITIONS, Partition};
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

const BLOCK: u8 = 1;
const PARTITION: u8 = 2;
const COMPLETE: u8 = 3;
const REPLICA: u8 = 4;

/// The records of a block have no more than this, or it has only one: large enough to compress well, and small beside what who
/// reads it may hold.
pub const BLOCK_BYTES: usize = 128 * 1024;
/// The longest block that is compressed: of one record, as long as those that lie in a segment of the arena.
const MAX_COMPRESSED_BYTES: usize = 512 * 1024;
/// What compression must save for a block to be kept compressed: a sixteenth. Less is not worth the time of reading it.
const LEAST_SAVED: usize = 16;

/// A part of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part<'a> {
    /// A partition of a node that replicates: its blocks come behind this.
    Replica {
        /// The partition.
        partition: Partition,
        /// What was known to be committed when its scan began.
        commit: u64,
        /// The state of the protocol then.
        state: ReplicaState,
    },
    /// Records of a partition.
    Block(Block<'a>),
    /// All of a partition came before this.
    Partition {
        /// The partition.
        partition: Partition,
        /// How far it had come when its scan began.
        progress: Progress,
        /// How many records it has.
        records: u64,
    },
    /// All came before this.
    Complete {
        /// What all records are in the log up to.
        position: Position,
        /// How many records there are.
        records: u64,
        /// When it was finished, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
}

/// Records of a partition, as they lie in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block<'a> {
    /// The partition.
    pub partition: Partition,
    /// How many there are.
    pub records: u32,
    /// How they are compressed.
    encoding: Encoding,
    /// Their length before that.
    raw_len: u32,
    data: &'a [u8],
}

/// Reads the body of a frame.
pub fn decode(body: &[u8]) -> Result<Part<'_>, Damage> {
    let mut reader = Reader(body);
    let part = match reader.u8()? {
        BLOCK => {
            let partition = reader.partition()?;
            let records = reader.u32()?;
            let encoding = match reader.u8()? {
                0 => Encoding::Raw,
                3 => Encoding::Lz4,
                other => return Err(Damage::Unknown("encoding of a block", other.into())),
            };
            let raw_len = reader.u32()?;
            let data = reader.take(reader.0.len())?;
            let is_right = match encoding {
                Encoding::Raw => raw_len as usize == data.len(),
                _ => raw_len as usize <= MAX_COMPRESSED_BYTES,
            };
            if !is_right {
                return Err(Damage::Unknown("length of a block", raw_len.into()));
            }
            Part::Block(Block {
                partition,
                records,
                encoding,
                raw_len,
                data,
            })
        }
        PARTITION => Part::Partition {
            partition: reader.partition()?,
            progress: {
                let progress = Progress {
                    last: reader.version()?,
                    commit: reader.u64()?,
                    horizon: reader.u64()?,
                };
                let Progress {
                    last,
                    commit,
                    horizon,
                } = progress;
                if horizon > commit || commit > last.seq() {
                    return Err(Damage::Unknown("progress with a horizon", horizon));
                }
                progress
            },
            records: reader.u64()?,
        },
        COMPLETE => Part::Complete {
            position: Position {
                segment: reader.u64()?,
                offset: reader.u64()?,
            },
            records: reader.u64()?,
            at_ms: reader.u64()?,
        },
        REPLICA => Part::Replica {
            partition: reader.partition()?,
            commit: reader.u64()?,
            state: reader.state()?,
        },
        kind => return Err(Damage::Unknown("part of a snapshot", kind.into())),
    };
    reader.end()?;
    Ok(part)
}

/// Whether a body of so many bytes may begin like this; see [`may_begin`](super::wal::may_begin) of the log.
pub fn may_begin(len: usize, begin: &[u8]) -> bool {
    let Some(begin) = begin.first_chunk::<{ super::wal::BEGIN_BYTES }>() else {
        return false;
    };
    let is_partition = u16::from(begin[2]) << 8 < PARTITIONS;
    let raw_len = u32::from_le_bytes([begin[8], begin[9], begin[10], begin[11]]) as usize;
    match (begin[0], begin[7]) {
        (BLOCK, 0) => is_partition && raw_len == len.wrapping_sub(begin.len()),
        (BLOCK, 3) => {
            is_partition && raw_len <= MAX_COMPRESSED_BYTES && len <= raw_len + begin.len()
        }
        (PARTITION, _) => is_partition && len == 35,
        (COMPLETE, _) => len == 33,
        (REPLICA, _) => is_partition && may_have_state(len, 11),
        _ => false,
    }
}

impl Block<'_> {
    /// The bytes of its records, before they were compressed.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_len.into()
    }

    /// The bytes of its records, as they lie in the file.
    pub fn stored_bytes(&self) -> u64 {
        self.data.len() as u64
    }

    /// Shows its records, as far as their keys are of the partition; an error if one is not. Who keeps records goes by the
    /// partition of their keys, and would not find it again.
    pub fn own_records(
        &self,
        scratch: &mut Vec<u8>,
        mut each: impl FnMut(RecordView<'_>),
    ) -> Result<(), Damage> {
        let mut foreign = None;
        self.records(scratch, |record| {
            let partition = Partition::of(record.key);
            if partition != self.partition {
                foreign = Some(partition.number());
            } else if foreign.is_none() {
                each(record);
            }
        })?;
        foreign.map_or(Ok(()), |number| Err(Damage::Foreign(number)))
    }

    /// Shows its records, whatever keys they have. `scratch` is where it is decompressed; what was in it goes.
    pub fn records(
        &self,
        scratch: &mut Vec<u8>,
        mut each: impl FnMut(RecordView<'_>),
    ) -> Result<(), Damage> {
        let raw = if self.encoding == Encoding::Raw {
            self.data
        } else {
            scratch.clear();
            scratch.resize(self.raw_len as usize, 0);
            let read = decompress_into(self.data, scratch);
            if !read.is_ok_and(|read| read == scratch.len()) {
                return Err(Damage::Unknown("length of a block", self.raw_len.into()));
            }
            &scratch[..]
        };
        let mut reader = Reader(raw);
        for _ in 0..self.records {
            each(reader.record()?);
        }
        reader.end()
    }
}

/// Makes the frames of a snapshot.
#[derive(Debug, Default)]
pub struct Builder {
    /// In the making: [`BLOCK_BYTES`] of records at the most, or one that is longer.
    block: Raw,
    /// Those that are full, in their order.
    full: Vec<Raw>,
    /// Empty, with the memory of one that was written: pushing is done under a lock, where it should not grow.
    spare: Pieces,
    compressed: Vec<u8>,
}

/// Records of a block, before they are compressed.
#[derive(Debug, Default)]
struct Raw {
    pieces: Pieces,
    records: u32,
}

impl Builder {
    /// Adds a record to the block in the making, or to another if that would become too long. Large values are shared, all else
    /// is copied.
    pub fn push(&mut self, record: &RecordView<'_>) -> Result<(), TooLong> {
        let Raw { pieces, records } = &mut self.block;
        let before = pieces.mark();
        pieces.all_or_nothing(|out| encode_record(record, out))?;
        *records += 1;
        if *records > 1 && pieces.len() > BLOCK_BYTES {
            let mut last = pieces.split_off(before);
            *records -= 1;
            self.close();
            self.block.pieces.take(&mut last);
            self.block.records = 1;
        }
        if self.block.pieces.len() >= BLOCK_BYTES {
            self.close();
        }
        Ok(())
    }

    /// Begins another block.
    fn close(&mut self) {
        let next = Raw {
            pieces: std::mem::take(&mut self.spare),
            records: 0,
        };
        self.full.push(std::mem::replace(&mut self.block, next));
    }

    /// Whether it is time to [write](Self::finish_full) blocks.
    pub fn is_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// Adds the blocks that are full to the frames.
    pub fn finish_full(&mut self, partition: Partition, out: &mut Journal) -> Result<(), TooLong> {
        let full = std::mem::take(&mut self.full);
        full.into_iter()
            .try_for_each(|block| self.write(block, partition, out))
    }

    /// Adds all that was pushed to the frames.
    pub fn finish(&mut self, partition: Partition, out: &mut Journal) -> Result<(), TooLong> {
        if self.block.records > 0 {
            self.close();
        }
        self.finish_full(partition, out)
    }

    fn write(
        &mut self,
        mut block: Raw,
        partition: Partition,
        out: &mut Journal,
    ) -> Result<(), TooLong> {
        let raw_len = u32::try_from(block.pieces.len()).map_err(|_| TooLong)?;
        let is_compressed = self.compress(&block.pieces);
        let encoding = if is_compressed {
            Encoding::Lz4
        } else {
            Encoding::Raw
        };
        let mut head = [0; 12];
        head[0] = BLOCK;
        head[1..3].copy_from_slice(&partition.number().to_le_bytes());
        head[3..7].copy_from_slice(&block.records.to_le_bytes());
        head[7] = encoding as u8;
        head[8..].copy_from_slice(&raw_len.to_le_bytes());
        let written = out.frame(|out| {
            out.push(&head);
            if is_compressed {
                out.push(&self.compressed);
            } else {
                out.take(&mut block.pieces);
            }
            Ok(())
        });
        block.pieces.clear(2 * BLOCK_BYTES);
        self.spare = block.pieces;
        written
    }

    /// Compresses the block if that pays.
    fn compress(&mut self, pieces: &Pieces) -> bool {
        let Some(raw) = pieces.as_one() else {
            return false;
        };
        if raw.len() > MAX_COMPRESSED_BYTES {
            return false;
        }
        self.compressed
            .resize(get_maximum_output_size(raw.len()), 0);
        let Ok(len) = compress_into(raw, &mut self.compressed) else {
            return false;
        };
        self.compressed.truncate(len);
        len <= raw.len() - raw.len() / LEAST_SAVED
    }

    /// Adds the begin of a partition of a node that replicates.
    pub fn replica(
        partition: Partition,
        commit: u64,
        state: &ReplicaState,
        out: &mut Journal,
    ) -> Result<(), TooLong> {
        out.frame(|out| {
            out.push(&[REPLICA]);
            out.push(&partition.number().to_le_bytes());
            out.push(&commit.to_le_bytes());
            encode_state(state, out)
        })
    }

    /// Adds the end of a partition.
    pub fn partition(
        partition: Partition,
        progress: Progress,
        records: u64,
        out: &mut Journal,
    ) -> Result<(), TooLong> {
        out.frame(|out| {
            out.push(&[PARTITION]);
            out.push(&partition.number().to_le_bytes());
            out.push(&progress.last.to_bits().to_le_bytes());
            for number in [progress.commit, progress.horizon, records] {
                out.push(&number.to_le_bytes());
            }
            Ok(())
        })
    }

    /// Adds the end of all.
    pub fn complete(
        position: Position,
        records: u64,
        at_ms: u64,
        out: &mut Journal,
    ) -> Result<(), TooLong> {
        out.frame(|out| {
            out.push(&[COMPLETE]);
            for number in [position.segment, position.offset, records, at_ms] {
                out.push(&number.to_le_bytes());
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
