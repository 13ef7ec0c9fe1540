//! The arena: 64 KiB segments cut into blocks, named by u32 handles. It hands out blocks, merges what is freed into holes
//! and finds holes again by size. It does not know what lies in a block beyond the word at its start, and does not move
//! anything by itself: evacuating a segment is a dance with whoever holds the handles.
//!
//! The first word of every block:
//!
//! ```text
//! used   bit 0 = 0 | bit 1 previous is a hole | bits 2..13 size in granules | bits 13..32 the owner's
//! hole   bit 0 = 1 | bit 1 = 0                | bits 2..17 size in granules
//! ```
//!
//! A hole holds its free-list links in its second and third word and its size again in its last word, so that the block
//! behind it can find its start.

use crate::prefetch::Line;
use crate::segment::{SEGMENT_BYTES, Segment};

/// The unit of size and address. Four bytes let a handle reach 8 GiB and cost two bytes a record in rounding.
pub(crate) const GRANULE: usize = 4;
const SEGMENT_GRANULES: u32 = (SEGMENT_BYTES / GRANULE) as u32;
const SEGMENT_SHIFT: u32 = SEGMENT_GRANULES.trailing_zeros();
/// The largest block: eleven bits of granules. An eighth of a segment, so that the end of a segment wastes little.
pub(crate) const MAX_BLOCK_GRANULES: u32 = (1 << 11) - 1;
/// The smallest hole: word, two links, and the size again.
const MIN_HOLE_GRANULES: u32 = 4;
/// A handle's top bit is left to the lists that mark their heads with it.
const MAX_SEGMENTS: usize = 1 << (31 - SEGMENT_SHIFT);

/// Of the processors of today.
const CACHE_LINE_BYTES: usize = 64;

const HOLE: u32 = 1;
const AFTER_HOLE: u32 = 2;
const SIZE_SHIFT: u32 = 2;
/// The first bit of the word that belongs to the owner of a used block.
pub(crate) const OWNER_SHIFT: u32 = 13;

/// Names a block: its segment and its first granule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Handle(pub(crate) u32);

impl Handle {
    /// Names no block.
    pub(crate) const NONE: Self = Self(u32::MAX);

    fn new(segment: usize, granule: u32) -> Self {
        Self(((segment as u32) << SEGMENT_SHIFT) | granule)
    }

    #[inline]
    fn segment(self) -> usize {
        (self.0 >> SEGMENT_SHIFT) as usize
    }

    #[inline]
    fn granule(self) -> u32 {
        self.0 & (SEGMENT_GRANULES - 1)
    }

    #[inline]
    fn byte(self) -> usize {
        self.granule() as usize * GRANULE
    }
}

type Bytes = Segment<[u8; SEGMENT_BYTES]>;
/// What a segment begins as. A local array would be much for a stack.
static ZEROS: [u8; SEGMENT_BYTES] = [0; SEGMENT_BYTES];

/// Blocks in segments. See the head of the file.
pub(crate) struct Arena {
    /// A released segment leaves nothing in its place, so that handles of the others stay.
    segments: Vec<Option<Box<Bytes>>>,
    /// Granules in the holes of each segment; a segment that is being evacuated counts as 0.
    hole_granules: Vec<u16>,
    released: Vec<u32>,
    holes: Holes,
    /// Live segments.
    live: usize,
    /// The sum of `hole_granules`.
    total_holes: u64,
}

impl Arena {
    pub(crate) fn new() -> Self {
        Self {
            segments: Vec::new(),
            hole_granules: Vec::new(),
            released: Vec::new(),
            holes: Holes::new(),
            live: 0,
            total_holes: 0,
        }
    }

    /// Bytes in live segments and in the tables about them.
    pub(crate) fn charged_bytes(&self) -> usize {
        self.live * SEGMENT_BYTES
            + self.segments.capacity() * size_of::<Option<Box<Bytes>>>()
            + self.hole_granules.capacity() * size_of::<u16>()
    }

    /// Bytes in live segments.
    pub(crate) fn segment_bytes(&self) -> usize {
        self.live * SEGMENT_BYTES
    }

    /// Bytes in holes.
    pub(crate) fn hole_bytes(&self) -> usize {
        self.total_holes as usize * GRANULE
    }

    /// Whether another segment can be named.
    pub(crate) fn can_add_segment(&self) -> bool {
        !self.released.is_empty() || self.segments.len() < MAX_SEGMENTS
    }

    /// Adds an empty segment, and gives its number.
    ///
    /// # Panics
    /// If `can_add_segment` is false.
    pub(crate) fn add_segment(&mut self) -> usize {
        let memory = Some(Segment::boxed(&ZEROS));
        let index = if let Some(index) = self.released.pop() {
            self.segments[index as usize] = memory;
            index as usize
        } else {
            assert!(
                self.segments.len() < MAX_SEGMENTS,
                "the handles are used up"
            );
            self.segments.push(memory);
            self.hole_granules.push(0);
            self.segments.len() - 1
        };
        self.live += 1;
        self.make_hole(Handle::new(index, 0), SEGMENT_GRANULES);
        index
    }

    /// Takes a block of at least this many granules; it may be up to three larger, because what would remain is too small
    /// for a hole. None if no hole is large enough. The owner's bits of its word are 0.
    ///
    /// # Panics
    /// If `granules` is less than a hole needs, or more than `MAX_BLOCK_GRANULES` less the three.
    pub(crate) fn allocate(&mut self, granules: u32) -> Option<Handle> {
        assert!(
            (MIN_HOLE_GRANULES..=MAX_BLOCK_GRANULES - 3).contains(&granules),
            "block size out of range"
        );
        let hole = self.find_hole(granules)?;
        let size = self.hole_size(hole);
        self.unlink_hole(hole);
        let rest = size - granules;
        let taken = if rest >= MIN_HOLE_GRANULES {
            // A used block is before the rest, so it need not know of a hole before it.
            self.make_hole(Handle(hole.0 + granules), rest);
            granules
        } else {
            self.mark_next(hole, size, false);
            size
        };
        debug_assert!(taken <= MAX_BLOCK_GRANULES);
        self.set_word(hole, taken << SIZE_SHIFT);
        Some(hole)
    }

    /// Makes a used block a hole, merged with the holes beside it. If the whole segment is a hole then, it is given back
    /// to the allocator, unless that would leave less than a segment in holes.
    pub(crate) fn free(&mut self, block: Handle) {
        let word = self.word(block);
        debug_assert_eq!(word & HOLE, 0, "freed twice");
        let mut start = block;
        let mut size = Self::size_of_word(word);
        if self.is_detached(block.segment()) {
            // The segment is being evacuated: it becomes one hole at the end.
            return;
        }
        if word & AFTER_HOLE != 0 {
            let before = self.read(Handle(block.0 - 1), 0);
            start = Handle(block.0 - before);
            self.unlink_hole(start);
            size += before;
        }
        if let Some(next) = self.next(block) {
            let next_word = self.word(next);
            if next_word & HOLE != 0 {
                self.unlink_hole(next);
                size += Self::hole_size_of_word(next_word);
            }
        }
        self.make_hole(start, size);
        if size == SEGMENT_GRANULES && self.total_holes >= 2 * u64::from(SEGMENT_GRANULES) {
            self.unlink_hole(start);
            self.release(start.segment());
        }
    }

    /// Cuts the tail off a used block if that makes a hole; true if it did.
    pub(crate) fn shrink(&mut self, block: Handle, granules: u32) -> bool {
        let word = self.word(block);
        let size = Self::size_of_word(word);
        let rest = size - granules;
        debug_assert!(granules >= MIN_HOLE_GRANULES);
        if rest < MIN_HOLE_GRANULES || self.is_detached(block.segment()) {
            return false;
        }
        self.set_word(
            block,
            (word & !(((1 << 11) - 1) << SIZE_SHIFT)) | (granules << SIZE_SHIFT),
        );
        let tail = Handle(block.0 + granules);
        let mut tail_size = rest;
        if let Some(next) = Self::next_after(tail, rest) {
            let next_word = self.word(next);
            if next_word & HOLE != 0 {
                self.unlink_hole(next);
                tail_size += Self::hole_size_of_word(next_word);
            }
        }
        self.make_hole(tail, tail_size);
        true
    }

    /// The size of a used block, in granules.
    #[inline]
    pub(crate) fn granules(&self, block: Handle) -> u32 {
        Self::size_of_word(self.word(block))
    }

    /// The bytes of a used block, its word included.
    #[inline]
    pub(crate) fn block(&self, block: Handle) -> &[u8] {
        let bytes = &self.segment(block.segment())[block.byte()..];
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        &bytes[..Self::size_of_word(word) as usize * GRANULE]
    }

    /// The bytes of a used block. Its word may only be changed through `set_owner_bits`.
    #[inline]
    pub(crate) fn block_mut(&mut self, block: Handle) -> &mut [u8] {
        let bytes = &mut self.segment_mut(block.segment())[block.byte()..];
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        &mut bytes[..Self::size_of_word(word) as usize * GRANULE]
    }

    /// The word at a block's start.
    #[inline]
    pub(crate) fn word(&self, block: Handle) -> u32 {
        self.read(block, 0)
    }

    /// Replaces the owner's bits of a used block's word.
    #[inline]
    pub(crate) fn set_owner_bits(&mut self, block: Handle, bits: u32) {
        let kept = self.word(block) & ((1 << OWNER_SHIFT) - 1);
        self.set_word(block, kept | (bits << OWNER_SHIFT));
    }

    /// The u32 this many bytes into a block.
    #[inline]
    pub(crate) fn read(&self, block: Handle, offset: usize) -> u32 {
        let at = block.byte() + offset;
        let bytes = &self.segment(block.segment())[at..at + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// Sets the u32 this many bytes into a block.
    #[inline]
    pub(crate) fn write(&mut self, block: Handle, offset: usize, value: u32) {
        let at = block.byte() + offset;
        self.segment_mut(block.segment())[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// The line of a block's start. The handle may be any.
    #[inline]
    pub(crate) fn line(&self, block: Handle) -> Line {
        self.line_at(block, 0)
    }

    /// The line that is so many bytes into a block. The handle may be any.
    #[inline]
    pub(crate) fn line_at(&self, block: Handle, offset: usize) -> Line {
        let segment = self.segments.get(block.segment()).and_then(Option::as_ref);
        let byte = segment.and_then(|segment| segment.0.get(block.byte() + offset));
        byte.map_or(Line::NONE, Line::of)
    }

    /// The third line that a block reaches into, if it does; its word says how long it is.
    #[inline]
    pub(crate) fn third_line(&self, block: Handle, word: u32) -> Line {
        let begin = block.byte() % CACHE_LINE_BYTES;
        let end = begin + Self::size_of_word(word) as usize * GRANULE;
        if end > 2 * CACHE_LINE_BYTES {
            self.line(block).next().next()
        } else {
            Line::NONE
        }
    }

    /// The words at these offsets of what may be a block, if the handle is within a segment.
    #[inline]
    pub(crate) fn peek<const N: usize>(
        &self,
        block: Handle,
        offsets: [usize; N],
    ) -> Option<[u32; N]> {
        let segment = self.segments.get(block.segment())?.as_ref()?;
        let bytes = &segment.0[block.byte()..];
        let mut words = [0; N];
        for (word, offset) in words.iter_mut().zip(offsets) {
            let bytes = bytes.get(offset..offset + 4)?;
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Some(words)
    }

    /// Copies the first `len` bytes of a used block, all but its word, into another.
    pub(crate) fn copy(&mut self, from: Handle, to: Handle, len: usize) {
        let (source, target) = (
            from.byte() + 4..from.byte() + len,
            to.byte() + 4..to.byte() + len,
        );
        debug_assert!(self.granules(to) as usize * GRANULE >= len);
        if from.segment() == to.segment() {
            self.segment_mut(from.segment())
                .copy_within(source, target.start);
        } else {
            let Ok([Some(from), Some(to)]) = self
                .segments
                .get_disjoint_mut([from.segment(), to.segment()])
            else {
                unreachable!("both segments are live and differ");
            };
            to.0[target].copy_from_slice(&from.0[source]);
        }
    }

    /// The segment with the most in holes, and how many bytes that is. One that holds something may be left out.
    pub(crate) fn emptiest(&self, but: Option<usize>) -> Option<(usize, usize)> {
        let (index, &granules) = self
            .hole_granules
            .iter()
            .enumerate()
            .filter(|&(index, &granules)| {
                but != Some(index) || u32::from(granules) == SEGMENT_GRANULES
            })
            .max_by_key(|&(_, &granules)| granules)?;
        (granules > 0).then_some((index, usize::from(granules) * GRANULE))
    }

    /// Takes a segment's holes out of the free lists, so that nothing new is put there, and lists its used blocks into
    /// `blocks`. Each of them must be copied elsewhere before `finish_evacuation`.
    pub(crate) fn begin_evacuation(&mut self, segment: usize, blocks: &mut Vec<Handle>) {
        blocks.clear();
        let mut granule = 0;
        while granule < SEGMENT_GRANULES {
            let block = Handle::new(segment, granule);
            let word = self.word(block);
            if word & HOLE != 0 {
                self.unlink_hole(block);
                granule += Self::hole_size_of_word(word);
            } else {
                blocks.push(block);
                granule += Self::size_of_word(word);
            }
        }
        self.hole_granules[segment] = DETACHED;
    }

    /// Makes an evacuated segment one hole, or gives it back.
    pub(crate) fn finish_evacuation(&mut self, segment: usize, release: bool) {
        self.hole_granules[segment] = 0;
        if release {
            self.release(segment);
        } else {
            self.make_hole(Handle::new(segment, 0), SEGMENT_GRANULES);
        }
    }

    #[inline]
    fn segment(&self, index: usize) -> &[u8; SEGMENT_BYTES] {
        match &self.segments[index] {
            Some(segment) => &segment.0,
            None => Self::released_is_named(),
        }
    }

    #[inline]
    fn segment_mut(&mut self, index: usize) -> &mut [u8; SEGMENT_BYTES] {
        match &mut self.segments[index] {
            Some(segment) => &mut segment.0,
            None => Self::released_is_named(),
        }
    }

    #[cold]
    fn released_is_named() -> ! {
        panic!("a handle names a segment that was given back");
    }

    fn release(&mut self, segment: usize) {
        self.segments[segment] = None;
        self.released.push(segment as u32);
        self.live -= 1;
    }

    fn is_detached(&self, segment: usize) -> bool {
        self.hole_granules[segment] == DETACHED
    }

    fn next(&self, block: Handle) -> Option<Handle> {
        Self::next_after(block, self.granules(block))
    }

    fn next_after(block: Handle, size: u32) -> Option<Handle> {
        let granule = block.granule() + size;
        (granule < SEGMENT_GRANULES).then(|| Handle(block.0 + size))
    }

    fn mark_next(&mut self, block: Handle, size: u32, after_hole: bool) {
        if let Some(next) = Self::next_after(block, size) {
            let word = self.word(next);
            let marked = if after_hole {
                word | AFTER_HOLE
            } else {
                word & !AFTER_HOLE
            };
            self.set_word(next, marked);
        }
    }

    #[inline]
    fn set_word(&mut self, block: Handle, word: u32) {
        self.write(block, 0, word);
    }

    #[inline]
    fn size_of_word(word: u32) -> u32 {
        (word >> SIZE_SHIFT) & ((1 << 11) - 1)
    }

    fn hole_size_of_word(word: u32) -> u32 {
        (word >> SIZE_SHIFT) & ((1 << 15) - 1)
    }

    fn hole_size(&self, hole: Handle) -> u32 {
        Self::hole_size_of_word(self.word(hole))
    }

    fn make_hole(&mut self, at: Handle, size: u32) {
        debug_assert!(size >= MIN_HOLE_GRANULES);
        let class = Holes::class(size);
        let head = self.holes.heads[class];
        self.set_word(at, HOLE | (size << SIZE_SHIFT));
        self.write(at, 4, head);
        self.write(at, 8, Handle::NONE.0);
        self.write(at, (size as usize - 1) * GRANULE, size);
        if head != Handle::NONE.0 {
            self.write(Handle(head), 8, at.0);
        }
        self.holes.set_head(class, at);
        self.mark_next(at, size, true);
        self.hole_granules[at.segment()] += size as u16;
        self.total_holes += u64::from(size);
    }

    fn unlink_hole(&mut self, hole: Handle) {
        let size = self.hole_size(hole);
        let (next, previous) = (self.read(hole, 4), self.read(hole, 8));
        if next != Handle::NONE.0 {
            self.write(Handle(next), 8, previous);
        }
        if previous == Handle::NONE.0 {
            self.holes.set_head(Holes::class(size), Handle(next));
        } else {
            self.write(Handle(previous), 4, next);
        }
        self.hole_granules[hole.segment()] -= size as u16;
        self.total_holes -= u64::from(size);
    }

    /// The head of the smallest class that fits. In a class of several sizes the head may be too small though others are
    /// not; a larger class is taken then, as walking the list would have no bound.
    fn find_hole(&self, granules: u32) -> Option<Handle> {
        let class = Holes::class(granules);
        let head = self.holes.heads[class];
        if head != Handle::NONE.0 && self.fits(Handle(head), granules) {
            return Some(Handle(head));
        }
        self.holes
            .first_from(class + 1)
            .filter(|&hole| self.fits(hole, granules))
    }

    fn fits(&self, hole: Handle, granules: u32) -> bool {
        self.hole_size(hole) >= granules
    }

    /// Walks everything and checks that sizes, marks, lists and sums agree. For tests.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut total = 0;
        let mut holes = 0;
        for (index, segment) in self.segments.iter().enumerate() {
            if segment.is_none() {
                continue;
            }
            let (mut granule, mut after_hole, mut here) = (0, false, 0);
            while granule < SEGMENT_GRANULES {
                let block = Handle::new(index, granule);
                let word = self.word(block);
                assert_eq!(word & AFTER_HOLE != 0, after_hole, "mark of {block:?}");
                let size = if word & HOLE == 0 {
                    after_hole = false;
                    Self::size_of_word(word)
                } else {
                    assert!(!after_hole, "two holes in a row");
                    after_hole = true;
                    let size = Self::hole_size_of_word(word);
                    assert_eq!(self.read(Handle(block.0 + size - 1), 0), size);
                    here += size;
                    holes += 1;
                    size
                };
                assert!(size > 0);
                granule += size;
            }
            assert_eq!(granule, SEGMENT_GRANULES);
            assert_eq!(u32::from(self.hole_granules[index]), here);
            total += u64::from(here);
        }
        assert_eq!(self.total_holes, total);
        let mut listed = 0;
        for class in 0..CLASSES {
            let mut at = self.holes.heads[class];
            assert_eq!(self.holes.is_occupied(class), at != Handle::NONE.0);
            while at != Handle::NONE.0 {
                assert_eq!(Holes::class(self.hole_size(Handle(at))), class);
                listed += 1;
                at = self.read(Handle(at), 4);
            }
        }
        assert_eq!(listed, holes);
    }
}

/// In `hole_granules`: the segment is being evacuated. No segment has so many granules in holes.
const DETACHED: u16 = u16::MAX;

/// Below this many granules each size has its own class; above, sixteen classes for each doubling.
const EXACT: u32 = 64;
const CLASSES: usize = EXACT as usize + 16 * (SEGMENT_SHIFT as usize - 6) + 1;

/// The heads of the free lists, by size class, and a bit for each that is not empty.
struct Holes {
    heads: [u32; CLASSES],
    occupied: [u64; CLASSES.div_ceil(64)],
}

impl Holes {
    fn new() -> Self {
        Self {
            heads: [Handle::NONE.0; CLASSES],
            occupied: [0; CLASSES.div_ceil(64)],
        }
    }

    fn class(granules: u32) -> usize {
        if granules < EXACT {
            return granules as usize;
        }
        let log = granules.ilog2();
        let sixteenth = (granules >> (log - 4)) & 15;
        (EXACT + (log - 6) * 16 + sixteenth) as usize
    }

    fn set_head(&mut self, class: usize, head: Handle) {
        self.heads[class] = head.0;
        let bit = 1 << (class % 64);
        if head == Handle::NONE {
            self.occupied[class / 64] &= !bit;
        } else {
            self.occupied[class / 64] |= bit;
        }
    }

    #[cfg(test)]
    fn is_occupied(&self, class: usize) -> bool {
        self.occupied[class / 64] & (1 << (class % 64)) != 0
    }

    fn first_from(&self, class: usize) -> Option<Handle> {
        let mut word = class / 64;
        let mut bits = *self.occupied.get(word)? & (u64::MAX << (class % 64));
        loop {
            if bits != 0 {
                return Some(Handle(
                    self.heads[word * 64 + bits.trailing_zeros() as usize],
                ));
            }
            word += 1;
            bits = *self.occupied.get(word)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_segment_freed_is_one_hole_again() {
        let mut arena = Arena::new();
        assert_eq!(arena.allocate(10), None);
        arena.add_segment();
        let blocks: Vec<Handle> = (4..100).map(|n| arena.allocate(n).expect("room")).collect();
        arena.check();
        for block in blocks
            .iter()
            .step_by(2)
            .chain(blocks.iter().skip(1).step_by(2))
        {
            arena.free(*block);
            arena.check();
        }
        assert_eq!(arena.hole_bytes(), SEGMENT_BYTES);
    }

    #[test]
    fn the_second_empty_segment_is_given_back() {
        let mut arena = Arena::new();
        arena.add_segment();
        arena.add_segment();
        let blocks: Vec<Handle> = (0..40)
            .map(|_| arena.allocate(800).expect("room"))
            .collect();
        for block in blocks {
            arena.free(block);
        }
        assert_eq!(arena.segment_bytes(), SEGMENT_BYTES);
        arena.add_segment();
        arena.check();
        assert_eq!(arena.segment_bytes(), 2 * SEGMENT_BYTES);
    }

    #[test]
    fn evacuation_leaves_one_hole_or_nothing() {
        for release in [false, true] {
            let mut arena = Arena::new();
            arena.add_segment();
            let first: Vec<Handle> = (0..8)
                .map(|_| arena.allocate(2000).expect("room"))
                .collect();
            arena.block_mut(first[3])[4..].fill(7);
            arena.free(first[1]);
            arena.add_segment();
            let mut blocks = Vec::new();
            arena.begin_evacuation(0, &mut blocks);
            assert_eq!(blocks.len(), 7);
            for &block in &blocks {
                let target = arena.allocate(arena.granules(block)).expect("room");
                arena.copy(block, target, 8000);
                arena.free(block);
                if block == first[3] {
                    assert!(arena.block(target)[4..8000].iter().all(|&b| b == 7));
                }
            }
            arena.finish_evacuation(0, release);
            arena.check();
            assert_eq!(
                arena.segment_bytes(),
                if release {
                    SEGMENT_BYTES
                } else {
                    2 * SEGMENT_BYTES
                }
            );
        }
    }

    proptest! {
        #[test]
        fn blocks_never_overlap(steps in prop::collection::vec((0u8..4, 4u32..600, any::<prop::sample::Index>()), 1..400)) {
            let mut arena = Arena::new();
            let mut live: Vec<(Handle, u8)> = Vec::new();
            for (n, (what, granules, pick)) in steps.into_iter().enumerate() {
                let mark = n as u8;
                match what {
                    0 | 1 => {
                        let block = arena.allocate(granules).unwrap_or_else(|| {
                            arena.add_segment();
                            arena.allocate(granules).expect("a fresh segment has room")
                        });
                        prop_assert!(arena.granules(block) >= granules && arena.granules(block) <= granules + 3);
                        arena.block_mut(block)[4..].fill(mark);
                        live.push((block, mark));
                    }
                    2 if !live.is_empty() => {
                        let (block, _) = live.swap_remove(pick.index(live.len()));
                        arena.free(block);
                    }
                    3 if !live.is_empty() => {
                        let (block, _) = live[pick.index(live.len())];
                        let size = arena.granules(block);
                        arena.shrink(block, (granules % size).max(4));
                    }
                    _ => {}
                }
                arena.check();
                for &(block, mark) in &live {
                    prop_assert!(arena.block(block)[4..].iter().all(|&b| b == mark));
                }
            }
        }
    }
}
