//! Which keys are asked for most: each data thread takes a sample of the keys that its clients name, and keeps counts of them in a
//! `HeavyKeeper` (Yang et al., USENIX ATC 2018), whose small counts give way and whose large ones stay, with a list of those that
//! were counted most. What was counted loses half of its weight each minute. It estimates; it counts nothing exactly.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use henge_engine::KeyHasher;
use parking_lot::Mutex;

/// The most keys that are shown.
pub(crate) const MOST_KEYS: usize = 100;
/// Keys that a thread keeps a list of: some more than are shown, as each thread has an order of its own.
const LISTED: usize = 2 * MOST_KEYS;
/// Rows of the sketch, each with a hash of its own.
const ROWS: usize = 2;
/// Counts in a row: 32 KiB in all, with twenty for each key that is listed.
const WIDTH: usize = 2048;
/// A count of another key goes down with a chance of so much to the power of it, as in the paper.
const DECAY: f64 = 1.08;
/// Beyond this count a chance is none: it is below one in two million.
const MOST_STEPS: usize = 192;
/// Longer keys are cut, so that the lists have a bound: 200 keys of the longest would be 13 MiB for each thread.
const KEY_BYTES: usize = 512;
/// As many samples a second are enough for a thread, and cost it a few thousandths of its time. While fewer keys are named each is one.
const SAMPLES_PER_SECOND: u64 = 20_000;
/// Where that many are taken before a second is over, so much more is asked for than in the one before: half as many are taken from then
/// on, and again after each few more.
const SAMPLES_AT_ONCE: u64 = SAMPLES_PER_SECOND * 5 / 4;
const SAMPLES_MORE: u64 = SAMPLES_PER_SECOND / 5;
/// Of more than so many keys one is taken as well: what is left out is then too much to tell from others.
const MOST_EVERY: u64 = 256;
/// Nothing is counted.
const OFF: u32 = 0;
/// Where nothing is counted it is looked after so many keys whether that is still so.
const LOOK_AGAIN: u32 = 4096;
/// How often all counts are made less, and to which part: half in a minute.
const FADE_INTERVAL: Duration = Duration::from_secs(15);
const FADE_NUMERATOR: u64 = 27;
const FADE_DENOMINATOR: u64 = 32;

/// What the threads of a node have counted.
#[derive(Debug)]
pub(crate) struct HotKeys {
    threads: Box<[Arc<Counted>]>,
    begun: Instant,
}

/// What one thread has counted.
#[derive(Debug)]
pub(crate) struct Counted {
    /// One of so many keys is taken; [`OFF`] for none.
    every: AtomicU32,
    /// Locked by its thread for each sample, and by others for as long as it takes to read the list.
    keeper: Mutex<Keeper>,
}

struct Keeper {
    rows: [Box<[Count]>; ROWS],
    /// By chance in so many of 2^32, of a count of so many steps.
    chances: Box<[u32; MOST_STEPS]>,
    random: u64,
    /// The same on all threads.
    hasher: KeyHasher,
    /// The hashes of the keys that are listed, beside them: they are looked through at each sample.
    hashes: Vec<u64>,
    listed: Vec<Listed>,
    /// All that was taken, by its weight.
    total: u64,
    /// The same since the last look.
    taken: u64,
    /// How many samples that were.
    samples: u64,
    /// No key that is listed has less weight.
    least: u64,
    faded: Instant,
}

/// Without its counts, which are many.
impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

/// A fingerprint, and the weight of what was counted under it.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    fingerprint: u32,
    weight: u32,
}

#[derive(Debug)]
struct Listed {
    key: Box<[u8]>,
    is_cut: bool,
    weight: u64,
}

/// A key that is asked for often.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hot {
    pub(crate) key: Box<[u8]>,
    /// Only its beginning is kept.
    pub(crate) is_cut: bool,
    /// About how often it was named, of late.
    pub(crate) count: u64,
}

/// What is asked for most.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hottest {
    /// The most first.
    pub(crate) keys: Vec<Hot>,
    /// About how many keys were named in all, of late.
    pub(crate) seen: u64,
    /// One of so many was looked at, on the busiest thread.
    pub(crate) sampled_one_in: u32,
    pub(crate) since: Duration,
    /// Whether they are counted at all.
    pub(crate) is_counting: bool,
}

impl HotKeys {
    /// For so many threads, which count or do not.
    pub(crate) fn new(threads: usize, counts: bool, now: Instant) -> Self {
        let thread = |seed| Arc::new(Counted::new(seed, counts, now));
        Self {
            threads: (1..=threads as u64).map(thread).collect(),
            begun: now,
        }
    }

    /// What a thread takes its samples by.
    pub(crate) fn sampler(&self, thread: usize) -> Sampler {
        Sampler {
            counted: Arc::clone(&self.threads[thread]),
            left: Cell::new(1),
            random: Cell::new(0x9e37_79b9_7f4a_7c15 ^ thread as u64),
        }
    }

    /// To be called each second: says how many samples are to be taken, and has what was counted fade.
    pub(crate) fn look(&self, now: Instant) {
        for counted in &self.threads {
            let mut keeper = counted.keeper.lock();
            let taken = std::mem::take(&mut keeper.taken);
            keeper.samples = 0;
            let every = (taken / SAMPLES_PER_SECOND).clamp(1, MOST_EVERY);
            counted.take_every(every as u32);
            if now.saturating_duration_since(keeper.faded) >= FADE_INTERVAL {
                keeper.faded = now;
                keeper.fade();
            }
        }
    }

    /// Counts from now on, or forgets what was counted and does not.
    pub(crate) fn set(&self, counts: bool) {
        for counted in &self.threads {
            let is_on = counted.every.load(Ordering::Relaxed) != OFF;
            if counts && !is_on {
                counted.every.store(1, Ordering::Relaxed);
            } else if !counts {
                counted.every.store(OFF, Ordering::Relaxed);
                counted.keeper.lock().forget();
            }
        }
    }

    /// The keys that are asked for most, up to so many of those that `shows` lets through.
    pub(crate) fn hottest(
        &self,
        count: usize,
        now: Instant,
        shows: impl Fn(&[u8]) -> bool,
    ) -> Hottest {
        let mut all: BTreeMap<u64, Hot> = BTreeMap::new();
        let (mut seen, mut sampled_one_in, mut is_counting) = (0, 1, false);
        for counted in &self.threads {
            let every = counted.every.load(Ordering::Relaxed);
            sampled_one_in = sampled_one_in.max(every);
            is_counting |= every != OFF;
            let keeper = counted.keeper.lock();
            seen += keeper.total;
            for (&hash, listed) in keeper.hashes.iter().zip(&keeper.listed) {
                if let Entry::Vacant(place) = all.entry(hash)
                    && shows(&listed.key)
                {
                    place.insert(Hot {
                        key: listed.key.clone(),
                        is_cut: listed.is_cut,
                        count: 0,
                    });
                }
            }
        }
        // Also what a thread has counted of a key that is not in its list.
        for counted in &self.threads {
            let keeper = counted.keeper.lock();
            for (hash, hot) in &mut all {
                hot.count += keeper.weight_of(*hash);
            }
        }
        let mut keys: Vec<Hot> = all.into_values().collect();
        // What has faded away.
        keys.retain(|hot| hot.count > 0);
        keys.sort_by(|one, other| other.count.cmp(&one.count).then(one.key.cmp(&other.key)));
        keys.truncate(count);
        Hottest {
            keys,
            seen,
            sampled_one_in,
            since: now.saturating_duration_since(self.begun),
            is_counting,
        }
    }
}

/// Takes samples of the keys of one thread.
#[derive(Debug)]
pub(crate) struct Sampler {
    counted: Arc<Counted>,
    /// Keys until the next one that is taken.
    left: Cell<u32>,
    random: Cell<u64>,
}

impl Sampler {
    /// A client has named a key.
    #[inline]
    pub(crate) fn one(&self, key: &[u8]) {
        let left = self.left.get() - 1;
        self.left.set(left);
        if left == 0 {
            self.take(key);
        }
    }

    #[cold]
    fn take(&self, key: &[u8]) {
        let every = self.counted.every.load(Ordering::Relaxed);
        if every == OFF {
            self.left.set(LOOK_AGAIN);
            return;
        }
        // From 1 to twice as many, so that what comes in turns is not met at the same place of each.
        let random = next(self.random.get());
        self.random.set(random);
        let span = u64::from(2 * every - 1);
        let left = 1 + (((random >> 32) * span) >> 32) as u32;
        self.left.set(left);
        let kept = &key[..key.len().min(KEY_BYTES)];
        let mut keeper = self.counted.keeper.lock();
        keeper.count(kept, key.len() > KEY_BYTES, every);
        if keeper.is_hurried() {
            self.counted
                .take_every(every.saturating_mul(2).min(MOST_EVERY as u32));
        }
    }
}

impl Counted {
    /// Takes one key of so many from now on, unless none is to be taken.
    fn take_every(&self, every: u32) {
        let next = |now| (now != OFF).then_some(every);
        // It fails where nothing is counted, which stays so.
        let _ = self
            .every
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    fn new(seed: u64, counts: bool, now: Instant) -> Self {
        let mut chances = Box::new([0; MOST_STEPS]);
        for (steps, chance) in chances.iter_mut().enumerate() {
            // A cast takes what is past the end for the end, which is what a chance of one is.
            #[expect(clippy::cast_sign_loss)]
            let of_all = (DECAY.powf(-(steps as f64)) * 2f64.powi(32)) as u32;
            *chance = of_all;
        }
        Self {
            every: AtomicU32::new(if counts { 1 } else { OFF }),
            keeper: Mutex::new(Keeper {
                rows: [(); ROWS].map(|()| vec![Count::default(); WIDTH].into()),
                chances,
                random: seed,
                hasher: KeyHasher::new(0),
                hashes: Vec::with_capacity(LISTED),
                listed: Vec::with_capacity(LISTED),
                total: 0,
                taken: 0,
                samples: 0,
                least: 0,
                faded: now,
            }),
        }
    }
}

impl Keeper {
    fn count(&mut self, key: &[u8], is_cut: bool, weight: u32) {
        self.total += u64::from(weight);
        self.taken += u64::from(weight);
        self.samples += 1;
        let hash = self.hasher.hash(key);
        let fingerprint = fingerprint(hash);
        let mut estimate = 0;
        for row in 0..ROWS {
            let count = &mut self.rows[row][place(hash, row)];
            if count.fingerprint == fingerprint || count.weight == 0 {
                count.fingerprint = fingerprint;
                count.weight = count.weight.saturating_add(weight);
                estimate = estimate.max(count.weight);
                continue;
            }
            let steps = (count.weight / weight) as usize;
            let chance = self.chances.get(steps).copied().unwrap_or(0);
            self.random = next(self.random);
            if ((self.random >> 32) as u32) < chance {
                count.weight = count.weight.saturating_sub(weight);
            }
        }
        if estimate > 0 {
            self.list(hash, key, is_cut, u64::from(estimate));
        }
    }

    /// Puts a key in the list, if it was counted more often than the last one there.
    fn list(&mut self, hash: u64, key: &[u8], is_cut: bool, weight: u64) {
        if let Some(at) = self.hashes.iter().position(|other| *other == hash) {
            self.listed[at].weight = weight;
            return;
        }
        let listed = || Listed {
            key: key.into(),
            is_cut,
            weight,
        };
        if self.listed.len() < LISTED {
            self.hashes.push(hash);
            self.listed.push(listed());
            return;
        }
        if weight <= self.least {
            return;
        }
        let weights = self.listed.iter().map(|listed| listed.weight);
        let Some((at, last)) = weights.enumerate().min_by_key(|(_, weight)| *weight) else {
            return;
        };
        // They only grow, but where all fade.
        self.least = last;
        if weight > last {
            self.hashes[at] = hash;
            self.listed[at] = listed();
        }
    }

    /// Whether half as many samples are to be taken from here on.
    fn is_hurried(&self) -> bool {
        let more = self.samples.checked_sub(SAMPLES_AT_ONCE);
        more.is_some_and(|more| more % SAMPLES_MORE == 0)
    }

    fn weight_of(&self, hash: u64) -> u64 {
        let counts = (0..ROWS).map(|row| self.rows[row][place(hash, row)]);
        let own = counts.filter(|count| count.fingerprint == fingerprint(hash));
        own.map(|count| u64::from(count.weight)).max().unwrap_or(0)
    }

    fn forget(&mut self) {
        for count in self.rows.iter_mut().flat_map(|row| row.iter_mut()) {
            *count = Count::default();
        }
        self.hashes.clear();
        self.listed.clear();
        (self.total, self.taken, self.samples, self.least) = (0, 0, 0, 0);
    }

    fn fade(&mut self) {
        let less = |weight: u64| weight * FADE_NUMERATOR / FADE_DENOMINATOR;
        for count in self.rows.iter_mut().flat_map(|row| row.iter_mut()) {
            count.weight = less(count.weight.into()) as u32;
        }
        for listed in &mut self.listed {
            listed.weight = less(listed.weight);
        }
        self.total = less(self.total);
        self.least = less(self.least);
    }
}

/// 0 is none of a key.
fn fingerprint(hash: u64) -> u32 {
    (hash as u32).max(1)
}

fn place(hash: u64, row: usize) -> usize {
    (hash >> (32 + 12 * row)) as usize % WIDTH
}

/// The next of a row of random numbers (xorshift64*, Vigna 2016).
fn next(random: u64) -> u64 {
    let mut bits = random;
    bits ^= bits >> 12;
    bits ^= bits << 25;
    bits ^= bits >> 27;
    bits.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws of a zipf distribution over a million keys, the hottest of which is 0.
    struct Zipf {
        /// Up to where each key comes, of one.
        ends: Vec<f64>,
        random: u64,
    }

    impl Zipf {
        fn new(exponent: f64, seed: u64) -> Self {
            let weights = (1..=1_000_000u32).map(|rank| f64::from(rank).powf(-exponent));
            let mut sum = 0.0;
            let sums = weights.map(|weight| {
                sum += weight;
                sum
            });
            let mut ends: Vec<f64> = sums.collect();
            for end in &mut ends {
                *end /= sum;
            }
            Self { ends, random: seed }
        }

        fn draw(&mut self) -> usize {
            self.random = next(self.random);
            let at = (self.random >> 11) as f64 / 2f64.powi(53);
            self.ends.partition_point(|end| *end < at)
        }
    }

    fn numbers(hot: &Hottest) -> Vec<usize> {
        let number = |hot: &Hot| String::from_utf8_lossy(&hot.key)[3..].parse();
        hot.keys
            .iter()
            .map(|hot| number(hot).expect("a number"))
            .collect()
    }

    #[test]
    fn the_hottest_of_a_million_are_found() {
        let now = Instant::now();
        // As a node is that answers little, and one that leaves most out.
        for (per_second, draws) in [(10_000, 500_000), (320_000, 8_000_000)] {
            let hot = HotKeys::new(2, true, now);
            let samplers = [hot.sampler(0), hot.sampler(1)];
            let mut zipf = Zipf::new(0.99, 7);
            for n in 0..draws {
                let key = format!("key{}", zipf.draw());
                samplers[n % 2].one(key.as_bytes());
                if n % per_second == 0 {
                    hot.look(now);
                }
            }
            let found = hot.hottest(10, now, |_| true);
            let mut ten = numbers(&found);
            assert_eq!(ten[..3], [0, 1, 2], "{found:?}");
            ten.sort_unstable();
            assert_eq!(ten, (0..10).collect::<Vec<_>>(), "{found:?}");
            let share = found.keys[0].count as f64 / found.seen as f64;
            assert!((share - zipf.ends[0]).abs() < 0.01, "{share}");
            let drawn = draws as f64;
            assert!(
                (found.seen as f64 - drawn).abs() < drawn / 50.0,
                "{}",
                found.seen
            );
        }
    }

    #[test]
    fn what_was_hot_gives_way() {
        let now = Instant::now();
        let hot = HotKeys::new(1, true, now);
        let sampler = hot.sampler(0);
        let use_key = |key: &[u8], times: usize| (0..times).for_each(|_| sampler.one(key));
        use_key(b"old", 10_000);
        let first = |hot: &Hottest| hot.keys.first().map(|hot| hot.key.to_vec());
        assert_eq!(first(&hot.hottest(1, now, |_| true)), Some(b"old".to_vec()));
        for minutes in 1..=2 {
            for quarter in 0..4 {
                hot.look(now + FADE_INTERVAL * (4 * minutes + quarter));
            }
        }
        let faded = hot.hottest(1, now, |_| true).keys[0].count;
        assert!((2300..2700).contains(&faded), "a quarter: {faded}");
        use_key(b"new", 3_000);
        assert_eq!(first(&hot.hottest(1, now, |_| true)), Some(b"new".to_vec()));
        let only_old = hot.hottest(1, now, |key| key == b"old");
        assert_eq!(
            first(&only_old),
            Some(b"old".to_vec()),
            "what is shown is chosen"
        );
    }

    #[test]
    fn how_many_are_taken_follows_how_many_there_are() {
        let now = Instant::now();
        let hot = HotKeys::new(1, true, now);
        let sampler = hot.sampler(0);
        for (per_second, expected) in [(1_000u32, 1u32), (200_000, 10), (10_000_000, 256), (0, 1)] {
            for n in 0..per_second {
                sampler.one(&[n as u8]);
            }
            hot.look(now);
            let every = hot.threads[0].every.load(Ordering::Relaxed);
            assert!(
                every.abs_diff(expected) <= expected / 10,
                "{per_second}: {every}"
            );
        }
    }

    #[test]
    fn long_keys_are_cut_and_nothing_is_counted_where_that_is_off() {
        let now = Instant::now();
        let hot = HotKeys::new(1, true, now);
        hot.sampler(0).one(&[b'x'; 2000]);
        let found = hot.hottest(1, now, |_| true);
        assert_eq!(
            (found.keys[0].key.len(), found.keys[0].is_cut),
            (KEY_BYTES, true)
        );
        let sampler = hot.sampler(0);
        let use_key = || (0..2 * LOOK_AGAIN).for_each(|_| sampler.one(b"k"));
        hot.set(false);
        use_key();
        assert_eq!(hot.hottest(1, now, |_| true).seen, 0);
        hot.set(true);
        use_key();
        assert!(hot.hottest(1, now, |_| true).seen > 0);
    }
}
