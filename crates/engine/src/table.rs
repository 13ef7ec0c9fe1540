//! The table: from a key's hash to the handles that may hold the key. Linear hashing (Litwin, 1980) over buckets of one
//! cache line: it grows and shrinks by one bucket at a time, so nothing ever stops to rehash, and a scan can follow it
//! while it does. It knows no keys: whoever calls it compares them, and computes the hash of a handle again when a bucket
//! is split.

use crate::arena::Handle;
use crate::prefetch::Line;
use crate::segment::{SEGMENT_BYTES, Segment};

/// Entries in a bucket: twelve handles, twelve tags and the link to an overflow bucket fill 64 bytes.
const ENTRIES: usize = 12;
/// A partition's directory names groups of buckets, so that it costs a quarter of a handle for each bucket.
const GROUP: u32 = 4;
/// Buckets in a chunk, which is a segment.
const CHUNK: u32 = (SEGMENT_BYTES / size_of::<Bucket>()) as u32;
/// A bucket is split when there are more entries than this for each. At ten an entry costs 8.5 bytes with its overflow
/// buckets and directory, at nine 9.0, at twelve 8.3 with twice the second lines.
const SPLIT_LOAD: u32 = 10;
/// Two buckets are merged when there are fewer entries than this for each: far enough from `SPLIT_LOAD` that a table does
/// not do both in turn.
const MERGE_LOAD: u32 = 3;

/// What an entry costs in a table that is not small, rounded up.
pub(crate) const ENTRY_BYTES: usize = 9;

type Chunk = Segment<[Bucket; CHUNK as usize]>;
/// What a chunk begins as. A local array would be much for a stack.
static EMPTY: [Bucket; CHUNK as usize] = [Bucket::EMPTY; CHUNK as usize];

const NONE: u32 = u32::MAX;

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Bucket {
    /// Eight bits of each entry's hash, never 0; 0 where there is no entry.
    tags: [u8; ENTRIES],
    /// The next bucket of the chain; in a free bucket or group, the next free one.
    overflow: u32,
    handles: [u32; ENTRIES],
}

impl Bucket {
    const EMPTY: Self = Self {
        tags: [0; ENTRIES],
        overflow: NONE,
        handles: [NONE; ENTRIES],
    };

    /// A bit for each entry with this tag; with tag 0, for each place that is free.
    #[inline]
    fn matches(&self, tag: u8) -> u16 {
        let mut bits = 0;
        for (n, &t) in self.tags.iter().enumerate() {
            bits |= u16::from(t == tag) << n;
        }
        bits
    }

    #[inline]
    fn vacancy(&self) -> Option<usize> {
        let free = self.matches(0);
        (free != 0).then(|| free.trailing_zeros() as usize)
    }
}

/// A partition's index into the buckets of its shard.
#[derive(Default)]
pub(crate) struct Table {
    /// The first bucket of each group.
    groups: Vec<u32>,
    /// How many buckets there are. Those at `n - base` and above, where `base` is the greatest power of two up to `n`, are
    /// not split in this round.
    buckets: u32,
    len: u32,
}

impl Table {
    /// How many entries there are.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The greatest power of two up to the number of buckets.
    #[inline]
    fn base(&self) -> u32 {
        1 << self.buckets.ilog2()
    }

    /// Where a hash belongs now. There is a bucket.
    #[inline]
    fn place(&self, hash: u64) -> u32 {
        let base = self.base();
        let wide = hash as u32 & (2 * base - 1);
        if wide < self.buckets {
            wide
        } else {
            wide - base
        }
    }

    /// The index in the pool of the table's bucket.
    #[inline]
    fn bucket(&self, place: u32) -> u32 {
        self.groups[(place / GROUP) as usize] + place % GROUP
    }
}

#[inline]
fn tag(hash: u64) -> u8 {
    ((hash >> 56) as u8).max(1)
}

/// What a bucket says of a hash.
pub(crate) enum Ahead {
    /// Its first entry that may have it.
    Entry(Handle),
    /// No entry has it, and there is another bucket, with its line.
    Overflow(u32, Line),
    /// Nothing has it.
    Nothing,
}

/// The buckets of all tables of a shard.
pub(crate) struct Buckets {
    chunks: Vec<Box<Chunk>>,
    free_group: u32,
    free_groups: u32,
    free_bucket: u32,
    /// Entries of the chain that is being split or merged; kept for its memory.
    chain: Vec<u32>,
    directory_bytes: usize,
}

impl Buckets {
    pub(crate) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free_group: NONE,
            free_groups: 0,
            free_bucket: NONE,
            chain: Vec::new(),
            directory_bytes: 0,
        }
    }

    /// Bytes in chunks and directories.
    pub(crate) fn charged_bytes(&self) -> usize {
        self.chunks.len() * SEGMENT_BYTES
            + self.chunks.capacity() * size_of::<Box<Chunk>>()
            + self.directory_bytes
    }

    /// Bytes that the next insertions, at least one, may take: chunks, if they could use up the groups that are free. The
    /// first takes one for a bucket, and one each for the overflow before and after the split. Of those after it each adds
    /// a bucket of overflow at the most, and each tenth a bucket of the table: a third of a group.
    pub(crate) fn growth_bytes(&self, insertions: usize) -> usize {
        let wanted = 4 + (insertions - 1) / 2;
        let missing = wanted.saturating_sub(self.free_groups as usize);
        missing.div_ceil((CHUNK / GROUP) as usize) * SEGMENT_BYTES
    }

    /// The entry with this hash that `is_it` accepts. `is_it` may be asked about entries of other hashes.
    #[inline]
    pub(crate) fn find(
        &self,
        table: &Table,
        hash: u64,
        mut is_it: impl FnMut(Handle) -> bool,
    ) -> Option<Handle> {
        if table.buckets == 0 {
            return None;
        }
        let tag = tag(hash);
        let mut index = table.bucket(table.place(hash));
        loop {
            let bucket = self.at(index);
            let mut bits = bucket.matches(tag);
            while bits != 0 {
                let handle = Handle(bucket.handles[bits.trailing_zeros() as usize]);
                if is_it(handle) {
                    return Some(handle);
                }
                bits &= bits - 1;
            }
            if bucket.overflow == NONE {
                return None;
            }
            index = bucket.overflow;
        }
    }

    /// The first bucket of a hash, and its line.
    #[inline]
    pub(crate) fn ahead(&self, table: &Table, hash: u64) -> Option<(u32, Line)> {
        if table.buckets == 0 {
            return None;
        }
        let index = table.bucket(table.place(hash));
        Some((index, Line::of(self.at(index))))
    }

    /// What a bucket says of a hash. The bucket may be any number, and no longer the hash's.
    #[inline]
    pub(crate) fn candidate(&self, bucket: u32, hash: u64) -> Ahead {
        let Some(chunk) = self.chunks.get((bucket / CHUNK) as usize) else {
            return Ahead::Nothing;
        };
        let bucket = &chunk.0[(bucket % CHUNK) as usize];
        let bits = bucket.matches(tag(hash));
        if bits != 0 {
            return Ahead::Entry(Handle(bucket.handles[bits.trailing_zeros() as usize]));
        }
        let next = bucket.overflow;
        match self.chunks.get((next / CHUNK) as usize) {
            Some(chunk) => Ahead::Overflow(next, Line::of(&chunk.0[(next % CHUNK) as usize])),
            None => Ahead::Nothing,
        }
    }

    /// Adds an entry that is not there. `hash_of` gives the hash of any entry of the table.
    pub(crate) fn insert(
        &mut self,
        table: &mut Table,
        hash: u64,
        handle: Handle,
        hash_of: impl Fn(Handle) -> u64,
    ) {
        if table.buckets == 0 {
            self.push_bucket(table);
        }
        let index = table.bucket(table.place(hash));
        self.add(index, tag(hash), handle.0);
        table.len += 1;
        if table.len > table.buckets * SPLIT_LOAD {
            self.split(table, hash_of);
        }
    }

    /// Removes the entry; false if it is not there.
    pub(crate) fn remove(
        &mut self,
        table: &mut Table,
        hash: u64,
        handle: Handle,
        hash_of: impl Fn(Handle) -> u64,
    ) -> bool {
        let Some((index, entry)) = self.locate(table, hash, handle) else {
            return false;
        };
        // The last entry of the chain takes its place, so that overflow buckets empty from the end.
        let (mut last, mut before_last) = (table.bucket(table.place(hash)), NONE);
        while self.at(last).overflow != NONE {
            before_last = last;
            last = self.at(last).overflow;
        }
        let from = (0..ENTRIES).rev().find(|&n| self.at(last).tags[n] != 0);
        let from = from.expect("no bucket but the first of a chain is empty, and that holds the entry if it is the last");
        let (moved_tag, moved) = (self.at(last).tags[from], self.at(last).handles[from]);
        self.set(index, entry, moved_tag, moved);
        self.set(last, from, 0, NONE);
        if before_last != NONE && self.at(last).tags == [0; ENTRIES] {
            self.at_mut(before_last).overflow = NONE;
            self.give_bucket(last);
        }
        table.len -= 1;
        if table.buckets > 1 && table.len < table.buckets * MERGE_LOAD {
            self.merge(table, hash_of);
        }
        true
    }

    /// Gives an entry another handle, as its record has moved; false if it is not there.
    pub(crate) fn replace(&mut self, table: &Table, hash: u64, old: Handle, new: Handle) -> bool {
        let Some((index, entry)) = self.locate(table, hash, old) else {
            return false;
        };
        self.at_mut(index).handles[entry] = new.0;
        true
    }

    /// Shows all entries at one place of a scan and gives the place after it; 0 begins and ends. Whatever is in the table
    /// from the first call to the last is shown at least once, however the table grows or shrinks between calls: places
    /// go by the reversed bits of the hash, so a bucket's parts follow it.
    pub(crate) fn scan(&self, table: &Table, place: u32, mut each: impl FnMut(Handle)) -> u32 {
        if table.buckets == 0 {
            return 0;
        }
        let base = table.base();
        let mask = base - 1;
        let low = place & mask;
        self.each_in_chain(table.bucket(low), &mut each);
        if low + base < table.buckets {
            self.each_in_chain(table.bucket(low + base), &mut each);
        }
        // Add one to the reversed place: set the bits above the mask, so that the carry runs into those below.
        (place | !mask)
            .reverse_bits()
            .wrapping_add(1)
            .reverse_bits()
    }

    /// Shows every entry.
    pub(crate) fn each(&self, table: &Table, mut each: impl FnMut(Handle)) {
        for place in 0..table.buckets {
            self.each_in_chain(table.bucket(place), &mut each);
        }
    }

    /// Forgets the entries of the last bucket, which are shown, and gives the bucket back; true if that was the last one. What is left
    /// can be found and replaced, and nothing else.
    pub(crate) fn pop(&mut self, table: &mut Table, mut each: impl FnMut(Handle)) -> bool {
        if table.buckets > 0 {
            let bucket = table.bucket(table.buckets - 1);
            self.take_chain(bucket);
            self.pop_bucket(table);
            table.len -= self.chain.len() as u32;
            self.chain.iter().for_each(|&at| each(Handle(at)));
        }
        let is_empty = table.buckets == 0;
        if is_empty {
            self.directory_bytes -= table.groups.capacity() * size_of::<u32>();
            table.groups = Vec::new();
        }
        is_empty
    }

    /// Splits the next bucket of the round into itself and a new last one.
    fn split(&mut self, table: &mut Table, hash_of: impl Fn(Handle) -> u64) {
        let low = table.buckets - table.base();
        self.push_bucket(table);
        self.redistribute(table, table.bucket(low), hash_of);
    }

    /// Undoes the last split.
    fn merge(&mut self, table: &mut Table, hash_of: impl Fn(Handle) -> u64) {
        let last = table.bucket(table.buckets - 1);
        self.take_chain(last);
        let chain = std::mem::take(&mut self.chain);
        self.pop_bucket(table);
        for &handle in &chain {
            let hash = hash_of(Handle(handle));
            self.add(table.bucket(table.place(hash)), tag(hash), handle);
        }
        self.chain = chain;
    }

    fn redistribute(&mut self, table: &Table, bucket: u32, hash_of: impl Fn(Handle) -> u64) {
        self.take_chain(bucket);
        let chain = std::mem::take(&mut self.chain);
        for &handle in &chain {
            let hash = hash_of(Handle(handle));
            self.add(table.bucket(table.place(hash)), tag(hash), handle);
        }
        self.chain = chain;
    }

    /// Moves a chain's entries to `self.chain`, and leaves its first bucket empty and alone.
    fn take_chain(&mut self, first: u32) {
        let mut chain = std::mem::take(&mut self.chain);
        chain.clear();
        self.each_in_chain(first, &mut |handle| chain.push(handle.0));
        self.chain = chain;
        let mut overflow = self.at(first).overflow;
        *self.at_mut(first) = Bucket::EMPTY;
        while overflow != NONE {
            let next = self.at(overflow).overflow;
            self.give_bucket(overflow);
            overflow = next;
        }
    }

    fn locate(&self, table: &Table, hash: u64, handle: Handle) -> Option<(u32, usize)> {
        if table.buckets == 0 {
            return None;
        }
        let mut index = table.bucket(table.place(hash));
        while index != NONE {
            let bucket = self.at(index);
            if let Some(entry) = (0..ENTRIES).find(|&n| bucket.handles[n] == handle.0) {
                return Some((index, entry));
            }
            index = bucket.overflow;
        }
        None
    }

    fn add(&mut self, first: u32, tag: u8, handle: u32) {
        let mut index = first;
        loop {
            if let Some(entry) = self.at(index).vacancy() {
                self.set(index, entry, tag, handle);
                return;
            }
            if self.at(index).overflow == NONE {
                let bucket = self.take_bucket();
                self.at_mut(index).overflow = bucket;
            }
            index = self.at(index).overflow;
        }
    }

    fn each_in_chain(&self, first: u32, each: &mut impl FnMut(Handle)) {
        let mut index = first;
        while index != NONE {
            let bucket = self.at(index);
            for handle in bucket.handles.into_iter().filter(|&h| h != NONE) {
                each(Handle(handle));
            }
            index = bucket.overflow;
        }
    }

    fn push_bucket(&mut self, table: &mut Table) {
        if table.buckets.is_multiple_of(GROUP) {
            let group = self.take_group();
            let before = table.groups.capacity();
            if before == table.groups.len() {
                // A quarter more, not twice as much: the directory of a thousand partitions adds up.
                table.groups.reserve_exact(4.max(before / 4));
            }
            table.groups.push(group);
            self.directory_bytes += (table.groups.capacity() - before) * size_of::<u32>();
        }
        table.buckets += 1;
        let index = table.bucket(table.buckets - 1);
        *self.at_mut(index) = Bucket::EMPTY;
    }

    fn pop_bucket(&mut self, table: &mut Table) {
        table.buckets -= 1;
        if table.buckets.is_multiple_of(GROUP) {
            let group = table
                .groups
                .pop()
                .expect("a bucket's group is in the directory");
            self.at_mut(group).overflow = self.free_group;
            self.free_group = group;
            self.free_groups += 1;
        }
    }

    fn take_group(&mut self) -> u32 {
        if self.free_group == NONE {
            let first = self.chunks.len() as u32 * CHUNK;
            self.chunks.push(Segment::boxed(&EMPTY));
            for group in (first..first + CHUNK).step_by(GROUP as usize).rev() {
                self.at_mut(group).overflow = self.free_group;
                self.free_group = group;
                self.free_groups += 1;
            }
        }
        let group = self.free_group;
        self.free_group = self.at(group).overflow;
        self.free_groups -= 1;
        group
    }

    fn take_bucket(&mut self) -> u32 {
        if self.free_bucket == NONE {
            let group = self.take_group();
            for bucket in group..group + GROUP {
                self.give_bucket(bucket);
            }
        }
        let bucket = self.free_bucket;
        self.free_bucket = self.at(bucket).overflow;
        *self.at_mut(bucket) = Bucket::EMPTY;
        bucket
    }

    fn give_bucket(&mut self, bucket: u32) {
        self.at_mut(bucket).overflow = self.free_bucket;
        self.free_bucket = bucket;
    }

    fn set(&mut self, index: u32, entry: usize, tag: u8, handle: u32) {
        let bucket = self.at_mut(index);
        bucket.tags[entry] = tag;
        bucket.handles[entry] = handle;
    }

    #[inline]
    fn at(&self, index: u32) -> &Bucket {
        &self.chunks[(index / CHUNK) as usize].0[(index % CHUNK) as usize]
    }

    #[inline]
    fn at_mut(&mut self, index: u32) -> &mut Bucket {
        &mut self.chunks[(index / CHUNK) as usize].0[(index % CHUNK) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Spreads a number over 64 bits, so that tags and places differ. A constant few share a place and a tag.
    fn hash(handle: Handle) -> u64 {
        if handle.0 % 10 == 3 {
            return 0x0100_0000_0000_0003;
        }
        u64::from(handle.0)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    }

    #[derive(Default)]
    struct Model {
        inside: BTreeSet<u32>,
    }

    fn check(buckets: &Buckets, table: &Table, model: &Model) {
        assert_eq!(table.len() as usize, model.inside.len());
        for &n in &model.inside {
            let handle = Handle(n);
            assert_eq!(
                buckets.find(table, hash(handle), |h| h == handle),
                Some(handle)
            );
        }
        let mut all = Vec::new();
        buckets.each(table, |h| all.push(h.0));
        all.sort_unstable();
        assert!(all.iter().eq(&model.inside));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec((any::<bool>(), 0u32..300), 1..1500)) {
            let (mut buckets, mut table, mut model) = (Buckets::new(), Table::default(), Model::default());
            for (n, (add, number)) in steps.into_iter().enumerate() {
                let handle = Handle(number);
                if add && model.inside.insert(number) {
                    buckets.insert(&mut table, hash(handle), handle, hash);
                } else if !add {
                    let there = model.inside.remove(&number);
                    prop_assert_eq!(buckets.remove(&mut table, hash(handle), handle, hash), there);
                }
                if n % 16 == 0 {
                    check(&buckets, &table, &model);
                }
            }
            check(&buckets, &table, &model);
            // A bucket after the other goes, and what is left can be found meanwhile.
            let mut left = model.inside.clone();
            let mut is_empty = false;
            while !is_empty {
                is_empty = buckets.pop(&mut table, |at| assert!(left.remove(&at.0)));
                prop_assert_eq!(table.len() as usize, left.len());
                for &number in &left {
                    let handle = Handle(number);
                    prop_assert!(buckets.replace(&table, hash(handle), handle, handle));
                }
            }
            prop_assert!(left.is_empty());
            check(&buckets, &table, &Model::default());
            prop_assert_eq!(buckets.directory_bytes, 0);
        }

        #[test]
        fn insertions_take_no_more_than_was_said(
            steps in prop::collection::vec((any::<bool>(), 1usize..900, 0usize..3), 1..30),
        ) {
            let mut buckets = Buckets::new();
            let mut tables = [Table::default(), Table::default(), Table::default()];
            let mut inside = [const { Vec::new() }; 3];
            let mut next = 0;
            for (add, count, which) in steps {
                let (table, inside) = (&mut tables[which], &mut inside[which]);
                if add {
                    let (said, before) = (buckets.growth_bytes(count), buckets.chunks.len());
                    for _ in 0..count {
                        buckets.insert(table, hash(Handle(next)), Handle(next), hash);
                        inside.push(next);
                        next += 1;
                    }
                    let grown = (buckets.chunks.len() - before) * SEGMENT_BYTES;
                    prop_assert!(grown <= said, "{} for {}, said {}", grown, count, said);
                } else {
                    for number in inside.drain(..count.min(inside.len())) {
                        prop_assert!(buckets.remove(table, hash(Handle(number)), Handle(number), hash));
                    }
                }
            }
        }

        #[test]
        fn a_scan_shows_what_stays(
            stay in prop::collection::btree_set(0u32..10_000, 1..400),
            steps in prop::collection::vec((any::<bool>(), 10_000u32..10_900), 0..3000),
            pace in 1usize..60,
        ) {
            let (mut buckets, mut table) = (Buckets::new(), Table::default());
            for &number in &stay {
                buckets.insert(&mut table, hash(Handle(number)), Handle(number), hash);
            }
            let mut others = BTreeSet::new();
            let mut seen = BTreeSet::new();
            let mut steps = steps.into_iter();
            let mut place = 0;
            loop {
                place = buckets.scan(&table, place, |h| { seen.insert(h.0); });
                if place == 0 {
                    break;
                }
                for (add, number) in steps.by_ref().take(pace) {
                    let handle = Handle(number);
                    if add && others.insert(number) {
                        buckets.insert(&mut table, hash(handle), handle, hash);
                    } else if !add && others.remove(&number) {
                        buckets.remove(&mut table, hash(handle), handle, hash);
                    }
                }
            }
            prop_assert!(stay.is_subset(&seen));
        }
    }

    #[test]
    fn costs_at_most_nine_bytes_an_entry() {
        let (mut buckets, mut tables) = (Buckets::new(), Vec::new());
        tables.resize_with(64, Table::default);
        let good_hash =
            |h: Handle| u64::from(h.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(h.0) << 40);
        let mut sum = 0.0;
        let mut samples = 0.0;
        for n in 0..200_000u32 {
            let hash = good_hash(Handle(n));
            buckets.insert(
                &mut tables[(n % 64) as usize],
                hash.rotate_left(20),
                Handle(n),
                |h| good_hash(h).rotate_left(20),
            );
            if n >= 50_000 && n % 10_000 == 0 {
                sum += buckets.charged_bytes() as f64 / f64::from(n);
                samples += 1.0;
            }
        }
        let mean = sum / samples;
        assert!(mean < 9.0, "{mean} bytes an entry");
    }
}
