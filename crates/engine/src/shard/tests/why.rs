//! Why a key is not there: each way in which a shard loses one, and what it says of it.

use super::*;
use crate::departures::{Absence, MissCause};
use crate::partition::ReplicaState;
use crate::shard::Unexplained;

const NOW: u64 = 1_800_000_000_000;

fn remembering(mut shard: Shard) -> Shard {
    drop(shard.remember_departures(64 * 1024));
    shard.sweep(NOW, 0);
    shard
}

fn why(shard: &Shard, key: &[u8], now_ms: u64) -> Result<Absence, Unexplained> {
    let hash = shard.hasher.hash(key);
    shard.why(Partition::of(key), hash, key, now_ms)
}

fn cause(shard: &Shard, key: &[u8]) -> MissCause {
    why(shard, key, NOW).expect("it is not there").cause
}

/// A miss of a key, and under which cause it was counted.
fn missed(shard: &mut Shard, now_ms: u64, key: &[u8]) -> MissCause {
    let before = shard.stats().misses_by_cause;
    assert!(matches!(
        run(shard, now_ms, key, Operation::Get),
        Reply::Missing
    ));
    let after = shard.stats().misses_by_cause;
    let grown: Vec<usize> = (0..after.len()).filter(|&n| after[n] > before[n]).collect();
    let [grown] = grown[..] else {
        panic!("one is counted, not {grown:?}");
    };
    MissCause::ALL[grown]
}

#[test]
fn a_key_that_is_there_is_there() {
    let mut shard = shard(PolicyKind::Lru, 1 << 20, 10);
    run(&mut shard, NOW, b"k", set(b"v", Expiry::Never));
    assert_eq!(why(&shard, b"k", NOW), Err(Unexplained::Alive));
    assert_eq!(
        why(&shard, b"other", NOW),
        Err(Unexplained::NothingRemembered)
    );
    run(&mut shard, NOW, b"other", Operation::Get);
    assert_eq!(
        shard.stats().misses_by_cause,
        [0; 7],
        "nothing is remembered"
    );
}

#[test]
fn what_expired_says_when_and_how_old_it_was() {
    for is_swept in [false, true] {
        let mut shard = remembering(shard(PolicyKind::Lru, 1 << 20, 10));
        run(
            &mut shard,
            NOW + 1000,
            b"k",
            set(b"v", Expiry::At(NOW + 61_000)),
        );
        for second in 2..=100 {
            // Others go on, so that time is told by how far the order has come.
            run(
                &mut shard,
                NOW + second * 1000,
                b"other",
                set(b"v", Expiry::Never),
            );
            if is_swept || second < 50 {
                shard.sweep(NOW + second * 1000, 100);
            }
        }
        assert_eq!(missed(&mut shard, NOW + 100_000, b"k"), MissCause::Expired);
        let why = why(&shard, b"k", NOW + 100_000).expect("it is not there");
        assert_eq!((why.cause, why.is_certain), (MissCause::Expired, true));
        assert_eq!(why.left_ago_s, Some(39), "whenever it was seen");
        let age = why.age_s.expect("it has an age");
        assert!((30..=90).contains(&age), "a minute, to a half of it: {age}");
    }
}

#[test]
fn what_was_evicted_says_for_what() {
    let mut shard = remembering(shard(PolicyKind::Lru, 1 << 20, 3));
    for key in [b"a", b"b", b"c", b"d"] {
        run(&mut shard, NOW, key, set(b"v", Expiry::Never));
    }
    assert_eq!(missed(&mut shard, NOW, b"a"), MissCause::Evicted);
    let absence = why(&shard, b"a", NOW).expect("it is not there");
    assert_eq!(absence.evicted_for, Some(Cause::Items));
    assert!(absence.is_certain);
    // What comes back is there, and leaves again for another cause.
    run(&mut shard, NOW, b"a", set(b"v", Expiry::Never));
    assert_eq!(why(&shard, b"a", NOW), Err(Unexplained::Alive));
    run(&mut shard, NOW, b"a", delete());
    assert_eq!(cause(&shard, b"a"), MissCause::Deleted);
    assert_eq!(cause(&shard, b"never"), MissCause::NeverSet);
}

#[test]
fn what_was_deleted_was_with_a_tombstone_or_without() {
    let alone = shard(PolicyKind::Lru, 1 << 20, 10);
    let replica = told(PolicyKind::Lru, 1 << 20, 10, 1 << 16);
    for shard in [alone, replica] {
        let mut shard = remembering(shard);
        run(&mut shard, NOW, b"k", set(b"v", Expiry::Never));
        run(&mut shard, NOW, b"k", delete());
        assert_eq!(missed(&mut shard, NOW, b"k"), MissCause::Deleted);
        assert_eq!(cause(&shard, b"k"), MissCause::Deleted);
        // And once it is purged.
        let partition = Partition::of(b"k");
        let last = shard.progress(partition).last.seq();
        shard.config.tombstone_bytes = 0;
        shard.commit(partition, last);
        assert_eq!(shard.stats().tombstones, 0);
        assert_eq!(missed(&mut shard, NOW, b"k"), MissCause::Deleted);
        assert_eq!(cause(&shard, b"k"), MissCause::Deleted);
    }
}

#[test]
fn a_flush_explains_as_many_misses_as_it_took_keys() {
    let mut shard = remembering(shard(PolicyKind::Lru, 1 << 20, 10));
    run(&mut shard, NOW, b"k", set(b"v", Expiry::Never));
    drop(shard.clear());
    assert_eq!(missed(&mut shard, NOW, b"k"), MissCause::Flushed);
    assert_eq!(missed(&mut shard, NOW, b"k"), MissCause::NeverSet);
    let absence = why(&shard, b"k", NOW).expect("it is not there");
    assert_eq!(
        (absence.cause, absence.is_certain),
        (MissCause::Flushed, false)
    );
    // What is set since and expires at once has expired.
    run(&mut shard, NOW, b"k", set(b"v", Expiry::At(NOW + 10)));
    assert_eq!(missed(&mut shard, NOW + 20, b"k"), MissCause::Expired);
    assert_eq!(cause(&shard, b"k"), MissCause::Expired);
    // What is set and deleted since was deleted.
    run(&mut shard, NOW, b"k", set(b"v", Expiry::Never));
    run(&mut shard, NOW, b"k", delete());
    assert_eq!(cause(&shard, b"k"), MissCause::Deleted);
}

#[test]
fn what_replication_takes_away_is_lost_or_moved() {
    let mut shard = remembering(told(PolicyKind::Lru, 1 << 20, 10, 1 << 16));
    let partition = Partition::of(b"k");
    let state = ReplicaState::default();
    run(&mut shard, NOW, b"k", set(b"v", Expiry::Never));
    // Another order has nothing of it.
    let progress = Progress {
        last: Version::new(2, 5),
        commit: 5,
        horizon: 0,
    };
    let turn = turn(NOW);
    shard.install(&turn, partition, Replace::Above(0), &[], progress, &state);
    assert_eq!(missed(&mut shard, NOW, b"k"), MissCause::Lost);
    assert!(why(&shard, b"k", NOW).expect("it is not there").is_certain);
    for (explained, expected) in [
        (None, MissCause::Lost),
        (Some(MissCause::Flushed), MissCause::Flushed),
        (Some(MissCause::Moved), MissCause::Moved),
    ] {
        run(&mut shard, NOW + 1000, b"k", set(b"v", Expiry::Never));
        shard.wipe_to(partition, &state);
        if let Some(explained) = explained {
            shard.explain_wipe(partition, explained);
        }
        assert_eq!(missed(&mut shard, NOW, b"k"), expected);
        assert_eq!(cause(&shard, b"k"), expected);
    }
    // A copy from elsewhere.
    shard.install(&turn, partition, Replace::All, &[], progress, &state);
    assert_eq!(cause(&shard, b"k"), MissCause::Moved);
}

#[test]
fn what_is_remembered_is_charged_and_within_the_limit() {
    let mut shard = shard(PolicyKind::Lru, 1 << 20, u64::MAX / 2);
    let before = shard.charged_bytes();
    drop(shard.remember_departures(64 * 1024));
    let more = shard.charged_bytes() - before;
    assert!((64 * 1024..64 * 1024 + 1024 * 48).contains(&more), "{more}");
    for number in 0..20_000u32 {
        let key = number.to_le_bytes();
        run(&mut shard, NOW, &key, set(&[1; 100], Expiry::Never));
        assert!(shard.charged_bytes() <= 1 << 20);
    }
    assert_eq!(cause(&shard, &15_000u32.to_le_bytes()), MissCause::Evicted);
    assert_eq!(
        cause(&shard, &0u32.to_le_bytes()),
        MissCause::NeverSet,
        "too long ago"
    );
    shard.check();
}
