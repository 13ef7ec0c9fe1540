//! Records that count for nothing any more, as their partition was wiped or replaced: its table goes at once, whatever was in it, and they
//! are freed a bucket at a time, before anything else that is asked for room or swept. Nobody finds them meanwhile: no read,
//! no scan, no count. They are in the lists by which a shard drops records, so whoever takes one from there has all of
//! these freed first.

use super::Shard;
use crate::arena::Handle;
use crate::table::Table;

/// So few are freed where they are discarded: it takes some microseconds, and less than what they would cost later.
const AT_ONCE: u32 = 64;

#[derive(Default)]
pub(super) struct Discarded {
    /// Each with its partition, which may have several.
    tables: Vec<(usize, Table)>,
    /// Items in these.
    pub(super) items: u64,
    /// Tombstones in these.
    pub(super) tombstones: u64,
    /// Records of the bucket that is being freed; kept for its memory.
    bucket: Vec<Handle>,
}

impl Shard {
    /// Takes all records out of a partition.
    pub(super) fn discard(&mut self, p: usize) {
        let state = &mut self.partitions[p];
        let table = std::mem::take(&mut state.table);
        let tombstones = std::mem::take(&mut state.tombstones);
        let len = table.len();
        self.discarded.items += u64::from(len - tombstones);
        self.discarded.tombstones += u64::from(tombstones);
        self.discarded.tables.push((p, table));
        if len <= AT_ONCE {
            // It is the last of them, so it goes before the others.
            let before = self.discarded.tables.len() - 1;
            while self.discarded.tables.len() > before {
                self.free_discarded();
            }
        }
    }

    /// Frees some of the records that were discarded, and says how many; none if there are none.
    pub(super) fn free_discarded(&mut self) -> Option<usize> {
        let (_, table) = self.discarded.tables.last_mut()?;
        let mut bucket = std::mem::take(&mut self.discarded.bucket);
        bucket.clear();
        let is_empty = self.buckets.pop(table, |at| bucket.push(at));
        if is_empty {
            self.discarded.tables.pop();
        }
        for &at in &bucket {
            if self.records.is_tombstone(at) {
                self.discarded.tombstones -= 1;
                self.unlist_tombstone(at);
            } else {
                self.discarded.items -= 1;
                self.leave_lists(at);
            }
            self.records.free(at);
        }
        let freed = bucket.len();
        self.discarded.bucket = bucket;
        Some(freed)
    }

    /// A record that was discarded has moved; false if it was not.
    pub(super) fn move_discarded(&mut self, p: usize, hash: u64, old: Handle, new: Handle) -> bool {
        let Self {
            buckets, discarded, ..
        } = self;
        let mut tables = discarded.tables.iter();
        tables.any(|(of, table)| *of == p && buckets.replace(table, hash, old, new))
    }
}

#[cfg(test)]
impl Discarded {
    /// Shows all of them, with their partitions.
    pub(super) fn each(
        &self,
        buckets: &crate::table::Buckets,
        mut each: impl FnMut(usize, Handle),
    ) {
        for (p, table) in &self.tables {
            buckets.each(table, |at| each(*p, at));
        }
    }
}
