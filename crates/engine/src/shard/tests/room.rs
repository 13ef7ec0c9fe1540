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
    assert!(store(&mut shard, b"large", &[2; 300_000]));
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
