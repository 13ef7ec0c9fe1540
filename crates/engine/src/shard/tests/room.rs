//! How a shard makes room: what it charges, what holes may waste, how much it drops for one record, and that it ends.

use super::*;

/// Sets a value without a deadline; true if it was stored.
fn store(shard: &mut Shard, key: &[u8], data: &[u8]) -> bool {
    matches!(
        run(shard, 1, key, set(data, Expiry::Never)),
        Reply::Stored { .. }
    )
}

/// Blocks of one size leave the same hole in every segment, so that no segment's records fit elsewhere. Emptying one into
/// a fresh one gains nothing and must not be tried for ever.
#[test]
fn a_large_value_finds_room_among_records_of_an_awkward_size() {
    let mut shard = shard(PolicyKind::Lru, 4 << 20, u64::MAX);
    for n in 0..1000u32 {
        assert!(store(&mut shard, &n.to_le_bytes(), &[1; 7300]));
    }
    assert!(store(&mut shard, b"large", &vec![2; 300_000]));
    assert_eq!(get(&mut shard, 1, b"large"), Some(vec![2; 300_000]));
    shard.check();
}

#[test]
fn compaction_ends_where_one_record_fits_nowhere_else() {
    let mut shard = shard(PolicyKind::Lru, 64 << 20, u64::MAX);
    for n in 0..2000u32 {
        assert!(store(&mut shard, &n.to_le_bytes(), &[1; 1000]));
    }
    for n in 0..16u32 {
        assert!(store(&mut shard, &(5000 + n).to_le_bytes(), &[1; 8000]));
    }
    for n in (0..2000u32).step_by(2) {
        let precondition = Precondition::NONE;
        run(
            &mut shard,
            1,
            &n.to_le_bytes(),
            Operation::Delete { precondition },
        );
    }
    for n in 1..16u32 {
        let precondition = Precondition::NONE;
        run(
            &mut shard,
            1,
            &(5000 + n).to_le_bytes(),
            Operation::Delete { precondition },
        );
    }
    let segments = shard.stats().arena_bytes / SEGMENT_BYTES as u64;
    let mut compactions = 0;
    while shard.compact() {
        compactions += 1;
        assert!(compactions <= segments, "each gives a segment back");
    }
    let stats = shard.stats();
    assert!(
        stats.hole_bytes < stats.arena_bytes / 3,
        "{} of {} in holes after {compactions}",
        stats.hole_bytes,
        stats.arena_bytes
    );
    shard.check();
}

/// Bytes in holes beyond an eighth of the arena: a few segments are always open.
const MOST_HOLES: u64 = 4 * SEGMENT_BYTES as u64;
/// What live records take at the least of the grant, in hundredths, once it was used up. The rest is the table, which does
/// not give back what it once had, and what went before its segment could be given back.
const LEAST_LIVE: u64 = 80;
/// What one small record may evict: room for a chunk of the table, and for a segment given back to make it, of records of
/// a hundred bytes.
const MOST_EVICTED: u64 = 2 * SEGMENT_BYTES as u64 / 100;

/// What live records take.
fn live_bytes(shard: &Shard) -> u64 {
    let mut sum = 0;
    for state in &shard.partitions {
        shard.buckets.each(&state.table, |at| {
            sum += shard.records.kept_bytes(at) as u64;
        });
    }
    sum
}

/// Sets keys drawn at random to values of sizes that `size` draws, and checks each step. `settled` is from where on the
/// sizes before no longer show.
fn churn(
    shard: &mut Shard,
    random: &mut u64,
    (sets, keys): (u32, u64),
    settled: u32,
    size: impl Fn(u64) -> usize,
) {
    let buffer = vec![7; 200_000];
    let granted = shard.granted().bytes;
    let name = shard.config.policy;
    for n in 0..sets {
        // Knuth's generator for MMIX; the upper bits are good.
        *random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let key = (*random >> 20) % keys;
        let len = size(*random >> 33);
        let before = shard.stats().evictions[0];
        assert!(store(shard, &key.to_le_bytes(), &buffer[..len]));
        let stats = shard.stats();
        assert!(
            stats.charged_bytes <= granted,
            "{name}, step {n}: {} charged",
            stats.charged_bytes
        );
        if n < settled || before == 0 {
            continue;
        }
        assert!(
            stats.hole_bytes <= stats.arena_bytes / 8 + MOST_HOLES,
            "{name}, step {n}: {} of {} in holes",
            stats.hole_bytes,
            stats.arena_bytes
        );
        if len < 200 {
            let evicted = stats.evictions[0] - before;
            assert!(evicted <= MOST_EVICTED, "{name}, step {n}: {evicted}");
        }
        if n % 997 == 0 {
            let live = live_bytes(shard);
            assert!(
                live * 100 >= granted * LEAST_LIVE,
                "{name}, step {n}: {live} live"
            );
        }
    }
    assert!(shard.stats().evictions[0] > 0, "it was never full");
    shard.check();
}

#[test]
fn changing_sizes_waste_little_and_stay_within_the_grant() {
    let small = |r: u64| 10 + (r % 190) as usize;
    let large = |r: u64| 2_000 + (r % 98_000) as usize;
    let mixed = |r: u64| match r % 16 {
        0 => 10_000 + (r / 16 % 90_000) as usize,
        1..4 => 500 + (r / 16 % 7_000) as usize,
        _ => 10 + (r / 16 % 190) as usize,
    };
    for policy in PolicyKind::ALL {
        let mut shard = shard(policy, 16 << 20, u64::MAX);
        let mut random = 42;
        churn(&mut shard, &mut random, (300_000, 1_000_000), 0, small);
        churn(&mut shard, &mut random, (2_000, 10_000), 1_500, large);
        churn(&mut shard, &mut random, (20_000, 100_000), 10_000, mixed);
        churn(
            &mut shard,
            &mut random,
            (200_000, 1_000_000),
            100_000,
            small,
        );
    }
}

/// Nothing is evicted for a record that would not fit if it were alone.
#[test]
fn what_could_never_fit_is_refused_before_anything_goes() {
    let limit = Room {
        bytes: 2 << 20,
        items: u64::MAX,
    };
    let mut shard = shard(PolicyKind::Lru, limit.bytes, limit.items);
    let turn = Turn { limit, ..turn(1) };
    let mut n = 0u32;
    while shard.stats().evictions[0] == 0 {
        n += 1;
        assert!(store(&mut shard, &n.to_le_bytes(), b"v"));
    }
    let items = shard.stats().items;
    let mut stored = 0;
    for len in (0..limit.bytes as usize).step_by(10_000).rev() {
        let data = vec![1; len];
        let (key, operation) = (&b"large"[..], set(&data, Expiry::Never));
        let hash = shard.hasher.hash(key);
        let reply = shard
            .execute(&turn, Partition::of(key), hash, &Command { key, operation })
            .expect("a shard without a fair share is never short");
        match reply {
            Reply::Refused(Refusal::TooLarge) => assert_eq!(shard.stats().items, items, "{len}"),
            Reply::Stored { .. } => {
                stored = len;
                break;
            }
            other => panic!("{len} bytes are answered by {other:?}"),
        }
    }
    assert!(stored > limit.bytes as usize / 2, "only {stored}");
    shard.check();
}
