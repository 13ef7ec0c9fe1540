//! What a shard remembers of records that are gone: a fingerprint of each, with why and when it left and how old it was, in blocks of
//! a cache line that forget the oldest first; and of each partition when all of it went at once. It answers why a key is not
//! there. It is a memory of bounded size and of hashes, so it may not know, and says so; it changes nothing but figures.

use crate::prefetch::Line;
use crate::shard::Cause;

/// Why a read found nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MissCause {
    /// Nothing of the key is remembered: it was never set here, or left before what is remembered.
    NeverSet,
    /// Its lifetime was over.
    Expired,
    /// It was dropped for room.
    Evicted,
    /// A client deleted it.
    Deleted,
    /// Everything was forgotten, as somebody asked for.
    Flushed,
    /// The partition has come from another node, which alone knows what left before that.
    Moved,
    /// It was with nodes that were lost, or in an order that did not survive a failover.
    Lost,
}

impl MissCause {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NeverSet,
        Self::Expired,
        Self::Evicted,
        Self::Deleted,
        Self::Flushed,
        Self::Moved,
        Self::Lost,
    ];

    /// The name in metrics and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeverSet => "never_set",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Deleted => "deleted",
            Self::Flushed => "flushed",
            Self::Moved => "moved",
            Self::Lost => "lost",
        }
    }
}

/// Why a key is not there, as far as is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Absence {
    /// The likeliest cause.
    pub cause: MissCause,
    /// What an eviction made room for.
    pub evicted_for: Option<Cause>,
    /// Seconds since it left, where that is known.
    pub left_ago_s: Option<u64>,
    /// How old it was then, counted from its last write, in seconds; known to a half of itself, or not at all.
    pub age_s: Option<u64>,
    /// No other cause fits. Never so of [`MissCause::NeverSet`]: before what is remembered there may have been anything, in an earlier
    /// life of the node too.
    pub is_certain: bool,
    /// For so many seconds all that left with this fingerprint's place is remembered.
    pub remembered_s: u64,
}

/// The ages at which evictions are told apart: up to so many seconds each, and older ones last.
pub const AGE_BOUNDS_S: [u64; 8] = [1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600];

/// How many evictions were of which age.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EvictionAges {
    /// By [`AGE_BOUNDS_S`], and older ones; those of which no age is known are in none.
    pub counts: [u64; AGE_BOUNDS_S.len() + 1],
    /// The sum of their ages in seconds.
    pub sum_s: u64,
}

impl EvictionAges {
    fn note(&mut self, age_s: u64) {
        let place = AGE_BOUNDS_S.iter().take_while(|&&bound| age_s > bound);
        self.counts[place.count()] += 1;
        self.sum_s = self.sum_s.saturating_add(age_s);
    }
}

impl std::ops::AddAssign for EvictionAges {
    fn add_assign(&mut self, other: Self) {
        for (sum, one) in self.counts.iter_mut().zip(other.counts) {
            *sum += one;
        }
        self.sum_s = self.sum_s.saturating_add(other.sum_s);
    }
}

/// Fingerprints in a block: a cache line of them.
const PLACES: usize = 8;
/// What a block takes.
pub(crate) const BLOCK_BYTES: usize = PLACES * size_of::<u64>();

/// A fingerprint from its lowest bit on: 32 of the second in which the record left, 6 of its age, 4 of why, and 22 of the hash of its
/// key. With eight in a block a stranger passes for one once in half a million times. 0 is none, as no cause is.
type Fingerprint = u64;
type Block = [Fingerprint; PLACES];
const AGE_SHIFT: u32 = 32;
const CAUSE_SHIFT: u32 = 38;
const TAG_SHIFT: u32 = 42;

/// The causes that a fingerprint has.
const EXPIRED: u64 = 1;
const DELETED: u64 = 2;
const LOST: u64 = 3;
/// The first of as many as [`Cause`] has.
const EVICTED: u64 = 4;

/// Departures that wait to be written down. The line of each is asked for when it comes, and is there by the time that all of these are:
/// written at once, each would be waited for.
const WAITING: usize = 16;

/// A record has left, and that is not written down yet.
#[derive(Clone, Copy, Debug)]
struct Departed {
    hash: u64,
    /// The low bits of its seq, and of that to which its partition had come.
    seqs: (u32, u32),
    p: u32,
    at_s: u32,
    cause: u64,
}

impl Departed {
    const NONE: Self = Self {
        hash: 0,
        seqs: (0, 0),
        p: 0,
        at_s: 0,
        cause: 0,
    };
}

/// Moments at which is noted how far each partition had come: a record has no time, but its seq lies between two of these. They are
/// thinned so that they lie further apart the longer ago they are, so that an age is known to about a half of itself.
const MOMENTS: usize = 8;

/// All of a partition went at once.
#[derive(Clone, Copy, Debug)]
struct Mark {
    cause: MissCause,
    at_s: u32,
    /// How many keys went, of which no read has missed one yet: as many misses are counted as its.
    keys: u32,
}

impl Mark {
    /// As a partition begins.
    const NONE: Self = Self {
        cause: MissCause::NeverSet,
        at_s: 0,
        keys: 0,
    };
}

/// See the head of the file.
pub(crate) struct Departures {
    /// None, if nothing is to be remembered.
    blocks: Box<[Block]>,
    /// The first so many are not written down yet.
    waiting: [Departed; WAITING],
    waiting_count: usize,
    /// How old those were that were evicted, by [`Cause`], but for those that wait.
    ages: [EvictionAges; Cause::ALL.len()],
    marks: Vec<Mark>,
    /// The moments, the oldest first, in seconds since 1970.
    moments: [u32; MOMENTS],
    moment_count: usize,
    /// The low bits of how far each partition had come at these.
    seqs: Vec<[u32; MOMENTS]>,
    now_s: u32,
    /// The second of the newest mark. What leaves after it is of no earlier one, and what left before it of none so late.
    marked_s: u32,
    /// What the clock said last.
    clock_s: u32,
}

impl Departures {
    /// Remembers nothing.
    pub(crate) fn none() -> Self {
        Self {
            blocks: Box::default(),
            waiting: [Departed::NONE; WAITING],
            waiting_count: 0,
            ages: [EvictionAges::default(); Cause::ALL.len()],
            marks: Vec::new(),
            moments: [0; MOMENTS],
            moment_count: 0,
            seqs: Vec::new(),
            now_s: 0,
            marked_s: 0,
            clock_s: 0,
        }
    }

    /// Has room for fingerprints in so many bytes, of a shard of so many partitions.
    pub(crate) fn new(bytes: usize, partitions: usize) -> Self {
        let blocks = (bytes / BLOCK_BYTES).max(1);
        Self {
            // From the allocator as zeros: what is not used takes no memory.
            blocks: vec![[0; PLACES]; blocks].into(),
            marks: vec![Mark::NONE; partitions],
            seqs: vec![[0; MOMENTS]; partitions],
            ..Self::none()
        }
    }

    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        !self.blocks.is_empty()
    }

    pub(crate) fn charged_bytes(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
            + self.marks.capacity() * size_of::<Mark>()
            + self.seqs.capacity() * size_of::<[u32; MOMENTS]>()
    }

    /// It is this time now, as far as anybody has said.
    #[inline]
    pub(crate) fn at(&mut self, now_ms: u64) {
        self.clock_s = seconds(now_ms);
        self.now_s = self.clock_s.max(self.marked_s);
    }

    /// Notes how far the partitions have come, once a second.
    pub(crate) fn note_moment(&mut self, last: impl Fn(usize) -> u64) {
        let newest = self.moment_count.checked_sub(1);
        if !self.is_on() || newest.is_some_and(|newest| self.now_s <= self.moments[newest]) {
            // Or the clock was set back: what follows is of the moment before.
            return;
        }
        self.write_down();
        if self.moment_count == MOMENTS {
            self.thin();
        }
        let place = self.moment_count;
        self.moments[place] = self.now_s;
        self.moment_count += 1;
        for (p, seqs) in self.seqs.iter_mut().enumerate() {
            seqs[place] = last(p) as u32;
        }
    }

    /// Leaves out the moment between whose neighbours the least lies, beside how long ago that is.
    fn thin(&mut self) {
        let gap = |&place: &usize| {
            let (before, after) = (self.moments[place - 1], self.moments[place + 1]);
            let ago = self.now_s.saturating_sub(before);
            u64::from(after.saturating_sub(before)) * 1000 / u64::from(ago.max(1))
        };
        let place = (1..MOMENTS - 1).min_by_key(gap).unwrap_or(1);
        self.moments.copy_within(place + 1.., place);
        for seqs in &mut self.seqs {
            seqs.copy_within(place + 1.., place);
        }
        self.moment_count -= 1;
    }

    /// How long ago a partition that has come to the second seq had come to the first, in seconds; none before the first moment.
    pub(crate) fn age_s(&self, p: usize, seqs: (u64, u64), now_ms: u64) -> Option<u64> {
        let now = seconds(now_ms);
        let (seq, last) = (seqs.0 as u32, seqs.1 as u32);
        let behind = |seq: u32| last.wrapping_sub(seq);
        let own = behind(seq);
        let seqs = &self.seqs[p][..self.moment_count];
        let after = seqs.iter().position(|&seq| behind(seq) <= own);
        let since = |moment: u32| u64::from(now.saturating_sub(moment));
        let Some(after) = after else {
            // Since the newest moment, which is a second or two ago.
            return self.moment_count.checked_sub(1).map(|_| 0);
        };
        let before = after.checked_sub(1)?;
        let (oldest, newest) = (since(self.moments[before]), since(self.moments[after]));
        let (from, to) = (behind(seqs[before]), behind(seqs[after]));
        // In the middle of its own part of the time between the two, which a clock may have jumped over.
        let (place, parts) = (2 * u64::from(own - to) + 1, 2 * u64::from(from - to).max(1));
        Some(newest + place * (oldest - newest).min(1 << 30) / parts)
    }

    /// A record has left at this second: its seq, and that to which its partition has come.
    #[inline]
    fn note(&mut self, p: usize, hash: u64, cause: u64, seqs: (u64, u64), at_s: u32) {
        if self.waiting_count == WAITING {
            self.write_down();
        }
        self.line(hash).prefetch();
        self.waiting[self.waiting_count] = Departed {
            hash,
            seqs: (seqs.0 as u32, seqs.1 as u32),
            p: p as u32,
            at_s,
            cause,
        };
        self.waiting_count += 1;
    }

    /// How old a record was when it left, in seconds, where that is known. No moment may have been noted since then.
    fn age_when_left(&self, departed: &Departed) -> Option<u64> {
        let (seq, last) = departed.seqs;
        let seqs = (u64::from(seq), u64::from(last));
        let age_s = self.age_s(departed.p as usize, seqs, u64::from(self.now_s) * 1000);
        let since = u64::from(self.now_s.saturating_sub(departed.at_s));
        age_s.map(|age_s| age_s.saturating_sub(since))
    }

    /// Writes fingerprints of those that wait, in their order.
    #[inline(never)]
    fn write_down(&mut self) {
        for nth in 0..std::mem::take(&mut self.waiting_count) {
            let departed = self.waiting[nth];
            let age_s = self.age_when_left(&departed);
            note_age(&mut self.ages, departed.cause, age_s);
            let place = self.place_of(departed.hash);
            put(&mut self.blocks[place], &departed, age_s);
        }
    }

    /// The block of a key, as it will be when all that wait are written down.
    fn block_soon(&self, hash: u64) -> Block {
        let place = self.place_of(hash);
        let mut block = self.blocks[place];
        for departed in &self.waiting[..self.waiting_count] {
            if self.place_of(departed.hash) == place {
                put(&mut block, departed, self.age_when_left(departed));
            }
        }
        block
    }

    /// What is remembered of a key. Those that wait go on doing so: a miss between two evictions is as frequent as these.
    #[inline]
    fn find(&self, hash: u64) -> Option<Fingerprint> {
        let waiting = &self.waiting[..self.waiting_count];
        if waiting.iter().any(|departed| departed.hash == hash) {
            return find(&self.block_soon(hash), hash);
        }
        find(&self.blocks[self.place_of(hash)], hash)
    }

    /// How old those were that were evicted, by [`Cause`].
    pub(crate) fn ages(&self) -> [EvictionAges; Cause::ALL.len()] {
        let mut ages = self.ages;
        for departed in &self.waiting[..self.waiting_count] {
            note_age(&mut ages, departed.cause, self.age_when_left(departed));
        }
        ages
    }

    /// Goes on from what another has remembered of the same partitions, as far as there is room here.
    pub(crate) fn going_on(self, mut other: Self) -> (Self, Self) {
        other.write_down();
        let mut own = Self {
            // Figures only grow.
            ages: other.ages,
            now_s: other.now_s,
            marked_s: other.marked_s,
            clock_s: other.clock_s,
            ..self
        };
        if own.is_on() && other.is_on() {
            own.moments = other.moments;
            own.moment_count = other.moment_count;
            own.marks.clone_from(&other.marks);
            own.seqs.clone_from(&other.seqs);
            own.take_blocks(&other.blocks);
        }
        (own, other)
    }

    /// Takes over fingerprints. Of a block nobody knows which of the blocks in its place each one is of, where these are more: then
    /// each has all of them, and those that are found nowhere go as the oldest do.
    fn take_blocks(&mut self, others: &[Block]) {
        let (own, old) = (self.blocks.len(), others.len());
        let mut found: Vec<Fingerprint> = Vec::new();
        for (nth, block) in self.blocks.iter_mut().enumerate() {
            let from = nth * old / own;
            let to = ((nth + 1) * old).div_ceil(own);
            let all = others[from..to].iter().flatten();
            found.clear();
            found.extend(all.filter(|fingerprint| **fingerprint != 0));
            if to - from > 1 {
                // The newest first, as a block has them.
                found.sort_by_key(|fingerprint| std::cmp::Reverse(*fingerprint as u32));
            }
            for (place, &fingerprint) in block.iter_mut().zip(&found) {
                *place = fingerprint;
            }
        }
    }

    /// A record was dropped for room.
    #[inline]
    pub(crate) fn evicted(&mut self, p: usize, hash: u64, cause: Cause, seqs: (u64, u64)) {
        if self.is_on() {
            self.note(p, hash, EVICTED + cause as u64, seqs, self.now_s);
        }
    }

    /// A client deleted a record.
    pub(crate) fn deleted(&mut self, p: usize, hash: u64, seqs: (u64, u64)) {
        if self.is_on() {
            self.note(p, hash, DELETED, seqs, self.now_s);
        }
    }

    /// A record was in an order that did not survive.
    pub(crate) fn lost(&mut self, p: usize, hash: u64, seqs: (u64, u64)) {
        if self.is_on() {
            self.note(p, hash, LOST, seqs, self.now_s);
        }
    }

    /// The lifetime of a record was over at this time.
    pub(crate) fn expired(&mut self, p: usize, hash: u64, seqs: (u64, u64), deadline_ms: u64) {
        if self.is_on() {
            // What was there after a mark left after it.
            let marked_s = self.marks[p].at_s;
            let at_s = seconds(deadline_ms).max(marked_s).min(self.now_s);
            self.note(p, hash, EXPIRED, seqs, at_s);
        }
    }

    /// All of a partition has left, so many keys.
    pub(crate) fn all_left(&mut self, p: usize, cause: MissCause, keys: u64) {
        if !self.is_on() {
            return;
        }
        // A second ahead, so that what left in this one is before it. Not further, however often: then what left between two is taken for
        // having left after both.
        self.marked_s = self.marked_s.max(self.clock_s.saturating_add(1));
        self.now_s = self.marked_s;
        if let Some(mark) = self.marks.get_mut(p) {
            *mark = Mark {
                cause,
                at_s: self.marked_s,
                keys: u32::try_from(keys).unwrap_or(u32::MAX),
            };
        }
    }

    /// All of the log was read. What left by that did so in an earlier life, of which the log has neither the times nor all: who knew a
    /// part of it would take that for the cause. So nothing of it is remembered.
    pub(crate) fn begin_life(&mut self) {
        self.waiting_count = 0;
        // Anew and not overwritten, so that what is not used still takes no memory.
        self.blocks = vec![[0; PLACES]; self.blocks.len()].into();
        self.marks.fill(Mark::NONE);
        self.moment_count = 0;
    }

    /// Why all of a partition has left is known better now.
    pub(crate) fn explain(&mut self, p: usize, cause: MissCause) {
        let now_s = self.now_s;
        if let Some(mark) = self.marks.get_mut(p) {
            if mark.cause == MissCause::NeverSet {
                mark.at_s = now_s;
            }
            mark.cause = cause;
        }
    }

    /// A partition's order begins anew.
    pub(crate) fn begin_anew(&mut self, p: usize) {
        self.write_down();
        if let Some(seqs) = self.seqs.get_mut(p) {
            *seqs = [0; MOMENTS];
        }
    }

    /// Why a read of a key that has no record found nothing, for the count.
    pub(crate) fn count(&mut self, p: usize, hash: u64) -> MissCause {
        if !self.is_on() {
            return MissCause::NeverSet;
        }
        let found = self.find(hash);
        if let Some(found) = found.filter(|found| self.is_since_mark(p, *found)) {
            return cause_of(found).0;
        }
        let mark = &mut self.marks[p];
        if mark.keys > 0 {
            mark.keys -= 1;
            return mark.cause;
        }
        found.map_or(MissCause::NeverSet, |found| cause_of(found).0)
    }

    /// Why a key that has no record is not there.
    pub(crate) fn why(&self, p: usize, hash: u64, now_ms: u64) -> Absence {
        let now = seconds(now_ms);
        let block = self.block_soon(hash);
        let since = |at_s: u32| u64::from(now.saturating_sub(at_s));
        let oldest = block.last().copied().filter(|oldest| *oldest != 0);
        let began = if self.moment_count > 0 {
            self.moments[0]
        } else {
            now
        };
        // What has expired is older where its lifetime was over before this one began.
        let remembered_s = since(oldest.map_or(began, |oldest| began.max(oldest as u32)));
        let mark = self.marks[p];
        if let Some(found) = find(&block, hash) {
            let (cause, evicted_for) = cause_of(found);
            let is_newest = self.is_since_mark(p, found);
            if is_newest {
                return Absence {
                    cause,
                    evicted_for,
                    left_ago_s: Some(since(found as u32)),
                    age_s: age_of(found),
                    is_certain: true,
                    remembered_s,
                };
            }
        }
        let has_mark = mark.cause != MissCause::NeverSet;
        Absence {
            cause: mark.cause,
            evicted_for: None,
            left_ago_s: has_mark.then(|| since(mark.at_s)),
            age_s: None,
            is_certain: false,
            remembered_s,
        }
    }

    fn is_since_mark(&self, p: usize, found: Fingerprint) -> bool {
        let mark = self.marks[p];
        mark.cause == MissCause::NeverSet || found as u32 >= mark.at_s
    }

    /// Where the fingerprint of a key would be.
    #[inline]
    pub(crate) fn line(&self, hash: u64) -> Line {
        if self.is_on() {
            Line::of(&self.blocks[self.place_of(hash)])
        } else {
            Line::NONE
        }
    }

    /// The upper half of a hash chooses the block, so that the tag, of the lower, says nothing of it.
    #[inline]
    fn place_of(&self, hash: u64) -> usize {
        (((hash >> 32) * self.blocks.len() as u64) >> 32) as usize
    }
}

/// Puts the fingerprint of a record first. It takes the place of what was remembered of its key, or of the oldest.
#[inline]
fn put(block: &mut Block, departed: &Departed, age_s: Option<u64>) {
    let hash = departed.hash;
    let place = block.iter().position(|other| is_of(*other, hash));
    block.copy_within(..place.unwrap_or(PLACES - 1), 1);
    block[0] = tagged(hash)
        | (departed.cause << CAUSE_SHIFT)
        | (age_code(age_s) << AGE_SHIFT)
        | u64::from(departed.at_s);
}

fn find(block: &Block, hash: u64) -> Option<Fingerprint> {
    let found = block.iter().find(|other| is_of(**other, hash));
    found.copied()
}

#[inline]
fn tagged(hash: u64) -> u64 {
    hash << TAG_SHIFT
}

#[inline]
fn is_of(fingerprint: Fingerprint, hash: u64) -> bool {
    fingerprint != 0 && fingerprint >> TAG_SHIFT == tagged(hash) >> TAG_SHIFT
}

fn seconds(now_ms: u64) -> u32 {
    u32::try_from(now_ms / 1000).unwrap_or(u32::MAX)
}

fn cause_of(fingerprint: Fingerprint) -> (MissCause, Option<Cause>) {
    match (fingerprint >> CAUSE_SHIFT) & 0xf {
        EXPIRED => (MissCause::Expired, None),
        DELETED => (MissCause::Deleted, None),
        LOST => (MissCause::Lost, None),
        evicted => {
            let cause = Cause::ALL.get((evicted - EVICTED) as usize);
            (MissCause::Evicted, cause.copied())
        }
    }
}

fn note_age(by_cause: &mut [EvictionAges; Cause::ALL.len()], cause: u64, age_s: Option<u64>) {
    let evicted = cause.checked_sub(EVICTED);
    if let (Some(cause), Some(age_s)) = (evicted, age_s) {
        by_cause[cause as usize].note(age_s);
    }
}

/// An age in six bits: two to each power of two, and 0 where it is not known.
fn age_code(age_s: Option<u64>) -> u64 {
    let Some(age_s) = age_s else {
        return 0;
    };
    let age = age_s.min(u64::from(u32::MAX >> 2)) + 1;
    let power = u64::from(age.ilog2());
    let half = u64::from(power > 0 && age & (1 << (power - 1)) > 0);
    1 + 2 * power + half
}

fn age_of(fingerprint: Fingerprint) -> Option<u64> {
    let code = (fingerprint >> AGE_SHIFT) & 0x3f;
    let code = code.checked_sub(1)?;
    let (power, half) = (code / 2, code % 2);
    Some((1 << power) + half * ((1 << power) / 2) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hasher::KeyHasher;

    const PARTITION: usize = 0;
    const NOW_MS: u64 = 1_000_000;

    fn memory(bytes: usize) -> Departures {
        let mut memory = Departures::new(bytes, 1);
        memory.at(NOW_MS);
        memory.note_moment(|_| 0);
        memory
    }

    fn hash(number: u64) -> u64 {
        KeyHasher::new(7).hash(&number.to_le_bytes())
    }

    #[test]
    fn ages_are_known_to_a_half() {
        for age_s in (0..100).chain([1000, 3599, 86_400, 10_000_000, u64::from(u32::MAX >> 2)]) {
            let found = age_of(age_code(Some(age_s)) << AGE_SHIFT).expect("it has an age");
            assert!(
                found <= age_s && age_s <= found + found / 2 + 1,
                "{age_s}: {found}"
            );
        }
        assert_eq!(age_of(age_code(None)), None);
        assert_eq!(age_code(Some(u64::MAX)) >> 6, 0, "it has its bits");
    }

    #[test]
    fn a_record_s_age_follows_from_where_its_order_was() {
        let mut memory = memory(4096);
        // A write each second for a day.
        let day = 86_400;
        for second in 1..=day {
            memory.at((1000 + second) * 1000);
            memory.note_moment(|_| second);
        }
        let now_ms = (1000 + day) * 1000;
        for age in [0, 1, 2, 5, 30, 100, 1000, 10_000, 80_000] {
            let found = memory
                .age_s(PARTITION, (day - age, day), now_ms)
                .expect("an age");
            assert!(found.abs_diff(age) <= 1 + age / 4, "{age}: {found}");
        }
        assert_eq!(
            memory.age_s(PARTITION, (0, day), now_ms),
            None,
            "before all moments"
        );
        // A clock that is set back changes nothing.
        memory.at(5000);
        memory.note_moment(|_| day + 1);
        assert_eq!(memory.age_s(PARTITION, (day, day), 5000), Some(0));
    }

    #[test]
    fn what_left_last_is_remembered() {
        let mut memory = memory(64 * BLOCK_BYTES);
        let count = 2000;
        for number in 0..count {
            memory.expired(PARTITION, hash(number), (0, number), NOW_MS);
        }
        let cause = |memory: &Departures, number| memory.why(PARTITION, hash(number), NOW_MS).cause;
        let remembered = (0..count).filter(|&n| cause(&memory, n) == MissCause::Expired);
        assert_eq!(remembered.count(), 64 * PLACES);
        for number in count - 100..count {
            assert_eq!(cause(&memory, number), MissCause::Expired, "{number}");
        }
        let stranger = memory.why(PARTITION, hash(count + 1), NOW_MS);
        assert_eq!(stranger.cause, MissCause::NeverSet);
        assert!(
            !stranger.is_certain,
            "it may have left before what is remembered"
        );
        // The last cause of a key counts, and takes no second place.
        memory.deleted(PARTITION, hash(count - 1), (0, count));
        assert_eq!(cause(&memory, count - 1), MissCause::Deleted);
        let remembered = (0..count).filter(|&n| cause(&memory, n) != MissCause::NeverSet);
        assert_eq!(remembered.count(), 64 * PLACES);
    }

    #[test]
    fn evictions_say_for_what_and_at_what_age() {
        let mut memory = memory(4096);
        memory.at(1_100_000);
        memory.note_moment(|_| 50);
        for cause in Cause::ALL {
            memory.evicted(PARTITION, hash(1), cause, (25, 50));
            assert_eq!(memory.ages()[cause as usize].sum_s, 51, "what waits counts");
            let why = memory.why(PARTITION, hash(1), 1_100_000);
            assert_eq!(why.cause, MissCause::Evicted);
            assert_eq!(why.evicted_for, Some(cause));
            assert_eq!(
                why.age_s,
                Some(47),
                "half of a hundred seconds, rounded down"
            );
            assert_eq!(why.left_ago_s, Some(0));
            assert!(why.is_certain);
        }
        for ages in memory.ages() {
            assert_eq!((ages.counts[2], ages.sum_s), (1, 51), "{ages:?}");
        }
        memory.evicted(PARTITION, hash(1), Cause::ALL[0], (25, 50));
        let (next, _) = Departures::new(4096, 1).going_on(memory);
        assert_eq!(next.ages()[0].sum_s, 2 * 51);
    }

    /// Another limit is no reason to forget why keys left, nor when.
    #[test]
    fn another_size_goes_on_from_what_was_remembered() {
        for blocks in [1, 7, 64, 100, 1000] {
            let mut before = memory(64 * BLOCK_BYTES);
            before.at(1_100_000);
            before.note_moment(|_| 50);
            before.all_left(PARTITION, MissCause::Flushed, 3);
            before.at(1_200_000);
            for number in 0..100 {
                before.evicted(PARTITION, hash(number), Cause::ALL[0], (50, 60));
            }
            before.deleted(PARTITION, hash(99), (60, 60));
            let (mut after, _) = Departures::new(blocks * BLOCK_BYTES, 1).going_on(before);
            let cause = |memory: &Departures, n| memory.why(PARTITION, hash(n), 1_200_000).cause;
            let known = (0..100).filter(|&n| cause(&after, n) != MissCause::Flushed);
            let least = if blocks < 64 { blocks * PLACES / 2 } else { 90 };
            assert!(known.count() >= least.min(90), "{blocks}");
            if blocks >= 64 {
                assert_eq!(cause(&after, 99), MissCause::Deleted, "{blocks}");
            }
            assert_eq!(cause(&after, 5000), MissCause::Flushed, "{blocks}");
            after.evicted(PARTITION, hash(1), Cause::ALL[1], (60, 60));
            let why = after.why(PARTITION, hash(1), 1_200_000);
            assert_eq!(
                (why.left_ago_s, why.evicted_for),
                (Some(0), Some(Cause::ALL[1]))
            );
            assert!(why.age_s.is_some(), "{blocks}");
        }
        // What is switched off keeps its figures.
        let mut before = memory(4096);
        before.at(1_100_000);
        before.note_moment(|_| 50);
        before.evicted(PARTITION, hash(1), Cause::ALL[0], (25, 50));
        let (off, _) = Departures::none().going_on(before);
        assert!(!off.is_on() && off.ages()[0].counts.iter().sum::<u64>() == 1);
    }

    /// However many leave before any is looked at, and whatever happens between.
    #[test]
    fn what_waits_is_of_its_own_second_and_mark() {
        let mut memory = memory(4096);
        memory.at(1_100_000);
        memory.note_moment(|_| 50);
        let count = 2 * WAITING as u64 + 3;
        for number in 0..count {
            memory.evicted(PARTITION, hash(number), Cause::ALL[0], (25, 50));
        }
        memory.at(1_200_000);
        memory.note_moment(|_| 60);
        memory.deleted(PARTITION, hash(0), (60, 60));
        memory.evicted(PARTITION, hash(1), Cause::ALL[1], (60, 60));
        memory.all_left(PARTITION, MissCause::Flushed, 0);
        memory.at(1_300_000);
        let found = |memory: &Departures, number| {
            let block = memory.block_soon(hash(number));
            find(&block, hash(number)).expect("it is remembered")
        };
        assert_eq!(memory.ages()[0].counts.iter().sum::<u64>(), count);
        for number in 2..count {
            let found = found(&memory, number);
            assert_eq!(found as u32, 1100, "{number}");
            assert_eq!(age_of(found), Some(47), "{number}");
        }
        assert_eq!(cause_of(found(&memory, 0)).0, MissCause::Deleted);
        assert_eq!(cause_of(found(&memory, 1)).0, MissCause::Evicted);
        let why = memory.why(PARTITION, hash(2), 1_300_000);
        assert_eq!(why.cause, MissCause::Flushed, "it left before the mark");
    }

    #[test]
    fn nothing_of_an_earlier_life_is_remembered() {
        let mut memory = memory(4096);
        memory.at(1_100_000);
        memory.note_moment(|_| 5);
        memory.deleted(PARTITION, hash(1), (1, 1));
        memory.all_left(PARTITION, MissCause::Lost, 7);
        memory.begin_life();
        memory.at(1_200_000);
        memory.note_moment(|_| 5);
        memory.deleted(PARTITION, hash(3), (6, 6));
        for (number, cause) in [(1, MissCause::NeverSet), (3, MissCause::Deleted)] {
            let why = memory.why(PARTITION, hash(number), 1_300_000);
            assert_eq!((why.cause, why.remembered_s), (cause, 100));
            assert_eq!(memory.count(PARTITION, hash(number)), cause);
        }
    }

    #[test]
    fn a_clock_that_jumps_by_a_century_is_survived() {
        let mut memory = memory(4096);
        memory.at(u64::MAX);
        memory.note_moment(|_| u64::from(u32::MAX));
        memory.evicted(PARTITION, hash(1), Cause::ALL[0], (1, u64::from(u32::MAX)));
        assert_eq!(memory.ages()[0].counts.iter().sum::<u64>(), 1);
    }

    #[test]
    fn what_went_at_once_explains_as_many_misses() {
        let mut memory = memory(4096);
        let stranger = memory.why(PARTITION, hash(1), NOW_MS);
        assert_eq!(
            (stranger.cause, stranger.is_certain),
            (MissCause::NeverSet, false),
            "nobody knows what was before the memory began"
        );
        memory.expired(PARTITION, hash(1), (0, 0), NOW_MS);
        memory.at(1_005_000);
        memory.all_left(PARTITION, MissCause::Lost, 2);
        memory.explain(PARTITION, MissCause::Flushed);
        memory.at(1_008_000);
        let why = memory.why(PARTITION, hash(9), 1_008_000);
        assert_eq!((why.cause, why.left_ago_s), (MissCause::Flushed, Some(2)));
        assert!(!why.is_certain);
        // What left before that may have come back before it.
        assert_eq!(
            memory.why(PARTITION, hash(1), 1_008_000).cause,
            MissCause::Flushed
        );
        let counted: Vec<_> = (0..4)
            .map(|n| memory.count(PARTITION, hash(10 + n)))
            .collect();
        let [flushed, never] = [MissCause::Flushed, MissCause::NeverSet];
        assert_eq!(counted, [flushed, flushed, never, never]);
        assert_eq!(memory.count(PARTITION, hash(1)), MissCause::Expired);
        // And what leaves after it did so for its own cause.
        memory.deleted(PARTITION, hash(9), (0, 0));
        assert_eq!(
            memory.why(PARTITION, hash(9), 1_008_000).cause,
            MissCause::Deleted
        );
    }

    #[test]
    fn what_is_off_costs_nothing_and_says_nothing() {
        let mut memory = Departures::none();
        memory.expired(PARTITION, hash(1), (0, 0), NOW_MS);
        memory.all_left(PARTITION, MissCause::Flushed, 3);
        assert_eq!(memory.count(PARTITION, hash(1)), MissCause::NeverSet);
        assert_eq!(memory.charged_bytes(), 0);
    }
}
