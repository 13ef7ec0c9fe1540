//! What the partition protocol asks of a shard that is told what is committed: nothing above the commit is dropped,
//! whatever is dropped raises the horizon, and a delete leaves a tombstone.

use super::*;

const NOW: u64 = 1_800_000_000_000;
const ROOMY: u64 = u64::MAX / 4;

fn seqs(shard: &Shard, partition: Partition) -> (u64, u64, u64) {
    let progress = shard.progress(partition);
    (progress.horizon, progress.commit, progress.last.seq())
}

fn is_full(reply: &Reply<'_>) -> bool {
    matches!(reply, Reply::Refused(Refusal::MemoryFull))
}

/// Keys of one partition.
fn tagged(number: u32) -> Vec<u8> {
    format!("{{p}}{number}").into_bytes()
}

#[test]
fn of_three_items_none_goes_before_it_is_committed() {
    for policy in PolicyKind::ALL {
        let mut shard = told(policy, ROOMY, 3, 0);
        let p = Partition::of(b"{p}");
        for n in 1..=3 {
            run(&mut shard, NOW, &tagged(n), set(b"v", Expiry::Never));
        }
        assert_eq!(seqs(&shard, p), (0, 0, 3));
        let reply = run(&mut shard, NOW, &tagged(4), set(b"v", Expiry::Never));
        assert!(is_full(&reply), "{policy}: {reply:?}");
        assert_eq!(seqs(&shard, p), (0, 0, 3), "nothing was stamped");
        assert_eq!(records(&shard, p, 0).len(), 3);
        // Overwriting needs no room.
        run(&mut shard, NOW, &tagged(1), set(b"w", Expiry::Never));
        shard.commit(p, 2);
        run(&mut shard, NOW, &tagged(4), set(b"v", Expiry::Never));
        assert_eq!(seqs(&shard, p), (2, 2, 5), "{policy}: only 2 could go");
        let left: Vec<u64> = records(&shard, p, 0)
            .iter()
            .map(|r| r.version.seq())
            .collect();
        assert_eq!(left, [4, 3, 5], "{policy}: in the order of their keys");
        shard.check();
    }
}

#[test]
fn of_few_bytes_none_goes_before_it_is_committed() {
    for policy in PolicyKind::ALL {
        let mut shard = told(policy, 500_000, ROOMY, 0);
        let p = Partition::of(b"{p}");
        let data = |n: u32| vec![n as u8; if n.is_multiple_of(5) { 20_000 } else { 700 }];
        let mut n = 0;
        while !is_full(&run(
            &mut shard,
            NOW,
            &tagged(n),
            set(&data(n), Expiry::Never),
        )) {
            n += 1;
        }
        assert!(n > 40, "{policy}: full after {n}");
        assert_eq!(seqs(&shard, p), (0, 0, n.into()));
        for m in 0..n {
            assert_eq!(get(&mut shard, NOW, &tagged(m)), Some(data(m)), "{policy}");
        }
        assert!(!shard.shed(0, Cause::Pressure, 10) || shard.stats().evictions == [0; 3]);
        assert_eq!(records(&shard, p, 0).len(), n as usize);
        shard.commit(p, u64::from(n) / 2);
        let reply = run(&mut shard, NOW, &tagged(n), set(&data(n), Expiry::Never));
        assert!(!is_full(&reply), "{policy}");
        let (horizon, commit, _) = seqs(&shard, p);
        assert!(horizon > 0 && horizon <= commit);
        assert_eq!(
            records(&shard, p, commit).len(),
            n as usize + 1 - commit as usize
        );
        shard.check();
    }
}

#[test]
fn what_has_expired_is_hidden_at_once_and_dropped_when_committed() {
    let mut shard = told(PolicyKind::Lru, ROOMY, ROOMY, 0);
    let p = Partition::of(b"{p}");
    for n in 1..=2 {
        run(
            &mut shard,
            NOW,
            &tagged(n),
            set(b"v", Expiry::At(NOW + 1000)),
        );
    }
    let later = NOW + 10_000;
    assert_eq!(get(&mut shard, later, &tagged(1)), None);
    while shard.sweep(later, 1) {}
    assert_eq!(keys(&shard, later).len(), 0);
    assert_eq!(
        (records(&shard, p, 0).len(), seqs(&shard, p)),
        (2, (0, 0, 2))
    );
    shard.commit(p, 1);
    while shard.sweep(later + 1000, 1) {}
    assert_eq!(seqs(&shard, p), (1, 1, 2));
    shard.commit(p, 2);
    assert_eq!(
        get(&mut shard, later, &tagged(2)),
        None,
        "dropped as it was asked for"
    );
    assert_eq!(
        (records(&shard, p, 0).len(), seqs(&shard, p)),
        (0, (2, 2, 2))
    );
    assert_eq!(shard.stats().expirations, 2);
    shard.check();
}

#[test]
fn a_deadline_in_the_past_is_a_version_that_nobody_sees() {
    let mut shard = told(PolicyKind::Ttl, ROOMY, ROOMY, 0);
    let p = Partition::of(b"{p}");
    run(&mut shard, NOW, &tagged(1), set(b"v", Expiry::Never));
    while shard.sweep(NOW, 10) {}
    for at in [0, 1, NOW - 100_000, NOW] {
        let expiry = Expiry::At(at);
        run(&mut shard, NOW, &tagged(1), set(b"v", Expiry::Never));
        run(&mut shard, NOW, &tagged(1), expire(expiry));
        assert_eq!(get(&mut shard, NOW, &tagged(1)), None);
        run(&mut shard, NOW, &tagged(2), set(b"v", expiry));
        assert_eq!(get(&mut shard, NOW, &tagged(2)), None);
    }
    assert_eq!(seqs(&shard, p), (0, 0, 13));
    assert_eq!(records(&shard, p, 0).len(), 2);
    shard.commit(p, 13);
    while shard.sweep(NOW + 1000, 10) {}
    assert_eq!(
        (records(&shard, p, 0).len(), seqs(&shard, p)),
        (0, (13, 13, 13))
    );
    shard.check();
}

#[test]
fn a_delete_leaves_a_tombstone_even_of_what_is_not_there() {
    let mut shard = told(PolicyKind::Lru, ROOMY, ROOMY, 0);
    let p = Partition::of(b"{p}");
    run(&mut shard, NOW, &tagged(1), set(b"v", Expiry::Never));
    assert!(matches!(
        run(&mut shard, NOW, &tagged(1), delete()),
        Reply::Deleted
    ));
    assert!(matches!(
        run(&mut shard, NOW, &tagged(2), delete()),
        Reply::Missing
    ));
    assert!(matches!(
        run(&mut shard, NOW, &tagged(2), delete()),
        Reply::Missing
    ));
    assert_eq!(seqs(&shard, p), (0, 0, 4));
    let kept: Vec<_> = records(&shard, p, 0)
        .into_iter()
        .map(|r| (r.version.seq(), r.data))
        .collect();
    assert_eq!(kept, [(2, None), (4, None)]);
    assert_eq!((shard.stats().items, shard.stats().tombstones), (0, 2));
    shard.commit(p, 2);
    assert_eq!(
        (records(&shard, p, 0).len(), seqs(&shard, p)),
        (1, (2, 2, 4))
    );
    // A key that comes back takes its tombstone's place.
    run(&mut shard, NOW, &tagged(2), set(b"w", Expiry::Never));
    assert_eq!((shard.stats().items, shard.stats().tombstones), (1, 0));
    shard.check();
}

#[test]
fn tombstones_are_kept_within_the_allowance_and_purged_oldest_first() {
    for long in [0, 400, 60_000] {
        let key = |n: u32| {
            let mut key = tagged(n + 100);
            key.resize(key.len() + long, b'.');
            key
        };
        // A header of twenty bytes and the key; a key that lies apart has an index in its place.
        let one = if long == 0 { 28 } else { 24 + 6 + long };
        let mut shard = told(PolicyKind::Lru, ROOMY, ROOMY, 10 * one);
        let p = Partition::of(b"{p}");
        for n in 0..30 {
            run(&mut shard, NOW, &key(n), delete());
        }
        assert_eq!(shard.stats().tombstones, 30, "none is committed");
        shard.commit(p, 5);
        assert_eq!(
            (shard.stats().tombstones, seqs(&shard, p)),
            (25, (5, 5, 30))
        );
        shard.commit(p, 30);
        assert_eq!(
            (shard.stats().tombstones, shard.stats().purges),
            (10, 20),
            "{long}"
        );
        assert_eq!(seqs(&shard, p), (20, 30, 30));
        let left: Vec<u64> = records(&shard, p, 0)
            .iter()
            .map(|r| r.version.seq())
            .collect();
        assert_eq!(left, (21..=30).collect::<Vec<_>>());
        shard.check();
    }
}

/// A partition without a quorum commits nothing; its tombstones wait, and those of others do not wait with them.
#[test]
fn a_partition_that_commits_nothing_holds_up_no_other() {
    let mut shard = told(PolicyKind::Lru, ROOMY, ROOMY, 0);
    let (stuck, other) = (Partition::of(b"{q}"), Partition::of(b"{p}"));
    assert_ne!(stuck, other);
    for n in 0..20 {
        run(&mut shard, NOW, format!("{{q}}{n}").as_bytes(), delete());
        run(&mut shard, NOW, &tagged(n), delete());
    }
    shard.commit(other, 20);
    assert_eq!(seqs(&shard, other), (20, 20, 20));
    assert_eq!(seqs(&shard, stuck), (0, 0, 20));
    assert_eq!(shard.stats().tombstones, 20);
    shard.check();
}

/// A tombstone may lie in a larger block after it was moved.
#[test]
fn moving_tombstones_does_not_change_what_they_count() {
    let mut shard = told(PolicyKind::Lru, ROOMY, ROOMY, usize::MAX);
    let p = Partition::of(b"{p}");
    let mut last = 0;
    for round in 0..3u32 {
        for n in 0..8000 {
            let key = tagged(round * 8000 + n);
            let len = 4 * ((n + round) % 41) as usize;
            run(&mut shard, NOW, &key, set(&vec![0; len], Expiry::Never));
            if n % 3 != 0 {
                run(&mut shard, NOW, &key, delete());
                last += 1;
            }
            last += 1;
        }
        shard.commit(p, last);
        while shard.evict(Cause::Size) {}
        while shard.compact() {}
        shard.check();
    }
    let evacuations = shard.stats().evacuations;
    assert!(evacuations > 0, "nothing moved");
    shard.config.tombstone_bytes = 0;
    shard.purge_tombstones();
    assert_eq!((shard.stats().tombstones, shard.tombstone_bytes), (0, 0));
}

#[test]
fn records_above_a_seq_are_those_and_no_others() {
    let mut shard = told(PolicyKind::Lru, ROOMY, ROOMY, usize::MAX);
    let p = Partition::of(b"{p}");
    let mut newest = BTreeMap::new();
    for seq in 1..=2000u64 {
        let key = tagged((seq * 7919 % 600) as u32);
        let operation = if seq % 5 == 0 {
            delete()
        } else {
            set(b"v", Expiry::Never)
        };
        run(&mut shard, NOW, &key, operation);
        newest.insert(key, (seq, seq % 5 != 0));
    }
    for above in [0, 1, 1000, 1500, 1999, 2000] {
        let expected: Vec<_> = newest
            .iter()
            .filter(|(_, (seq, _))| *seq > above)
            .map(|(key, &(seq, alive))| (key.clone(), seq, alive))
            .collect();
        let found: Vec<_> = records(&shard, p, above)
            .into_iter()
            .map(|r| (r.key, r.version.seq(), r.data.is_some()))
            .collect();
        assert_eq!(found, expected, "above {above}");
    }
    // What stays while the table grows and shrinks under the scan is seen.
    let staying = records(&shard, p, 1900);
    let (mut seen, mut place, mut n) = (Vec::new(), 0, 10_000);
    loop {
        place = shard.scan_records(p, 1900, place, |r| seen.push(r.key.to_vec()));
        if place == 0 {
            break;
        }
        for _ in 0..10 {
            run(&mut shard, NOW, &tagged(n), set(b"v", Expiry::Never));
            n += 1;
        }
    }
    assert!(staying.iter().all(|r| seen.contains(&r.key)));
}

fn mutation<'a>(seq: u64, effects: &'a [(&'a [u8], Effect<'a>)]) -> Mutation<'a> {
    Mutation {
        partition: Partition::of(b"{p}"),
        version: Version::new(1, seq),
        effects,
    }
}

fn put(data: &[u8]) -> Effect<'_> {
    Effect::Put {
        value: Value::from_slice(data),
        expires_at_ms: None,
    }
}

#[test]
#[should_panic(expected = "does not follow")]
fn a_gap_is_not_applied() {
    let mut shard = told(PolicyKind::Lru, ROOMY, ROOMY, 0);
    let _ = shard.apply(&turn(NOW), &mutation(2, &[(b"{p}", put(b"v"))]));
}

#[test]
#[should_panic(expected = "does not follow")]
fn the_same_mutation_is_not_applied_twice() {
    let mut shard = told(PolicyKind::Lru, ROOMY, ROOMY, 0);
    for _ in 0..2 {
        let _ = shard.apply(&turn(NOW), &mutation(1, &[(b"{p}", put(b"v"))]));
    }
}

#[test]
#[should_panic(expected = "does not follow")]
fn an_older_term_is_not_applied() {
    let mut shard = told(PolicyKind::Lru, ROOMY, ROOMY, 0);
    let older = Mutation {
        version: Version::new(0, 1),
        ..mutation(1, &[])
    };
    let _ = shard.apply(&turn(NOW), &older);
}

#[test]
#[should_panic(expected = "cannot be committed")]
fn what_was_not_applied_is_not_committed() {
    told(PolicyKind::Lru, ROOMY, ROOMY, 0).commit(Partition::of(b"{p}"), 1);
}

/// A follower may have dropped the value that a new deadline is for. It has nothing then that could be this version, and an
/// older replica's copy of it must not pass for it: a tombstone says so until the version is committed.
#[test]
fn a_deadline_for_what_was_dropped_leaves_a_tombstone() {
    let mut shard = told(PolicyKind::Lru, ROOMY, ROOMY, 0);
    let p = Partition::of(b"{p}");
    shard
        .apply(&turn(NOW), &mutation(1, &[(b"{p}", put(b"v"))]))
        .expect("room");
    shard.commit(p, 1);
    assert!(shard.evict(Cause::Size));
    assert_eq!(seqs(&shard, p), (1, 1, 1));
    let expires_at_ms = Some(NOW + 1000);
    let effects: [(&[u8], _); 1] = [(b"{p}", Effect::Expire { expires_at_ms })];
    for seq in 2..=3 {
        shard
            .apply(&turn(NOW), &mutation(seq, &effects))
            .expect("room");
        let kept = records(&shard, p, 1);
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].version.seq(), &kept[0].data), (seq, &None));
    }
    shard.commit(p, 3);
    assert_eq!(
        (records(&shard, p, 0).len(), seqs(&shard, p)),
        (0, (3, 3, 3))
    );
    shard.check();
}

/// The effects of one mutation are not committed before the last of them, also where nobody else holds them.
#[test]
fn a_mutation_does_not_evict_what_it_has_put() {
    for commit in [Commit::AtOnce, Commit::Told] {
        let mut shard = Shard::new(ShardConfig {
            commit,
            ..config(PolicyKind::Lru)
        });
        shard.grant(Room {
            bytes: ROOMY,
            items: 1,
        });
        let effects: [(&[u8], _); 3] = [
            (b"{p}0", Effect::Delete),
            (b"{p}1", put(b"v")),
            (b"{p}2", put(b"v")),
        ];
        shard
            .apply(&turn(NOW), &mutation(1, &effects))
            .expect_err("two items have no room");
        assert_eq!(seqs(&shard, Partition::of(b"{p}")), (0, 0, 0));
        shard.grant(Room { bytes: 0, items: 1 });
        shard
            .apply(&turn(NOW), &mutation(1, &effects))
            .expect("room for two");
        assert_eq!(keys(&shard, NOW).len(), 2);
        shard.check();
    }
}

#[test]
fn clearing_keeps_how_far_it_came() {
    for commit in [Commit::AtOnce, Commit::Told] {
        let mut shard = Shard::new(ShardConfig {
            commit,
            ..config(PolicyKind::Lru)
        });
        shard.grant(Room {
            bytes: ROOMY,
            items: ROOMY,
        });
        let p = Partition::of(b"{p}");
        let mut stamped = Vec::new();
        for round in 0..3 {
            for n in 0..5 {
                match run(&mut shard, NOW, &tagged(n), set(b"v", Expiry::Never)) {
                    Reply::Stored { version, .. } => stamped.push(version),
                    other => panic!("a set is answered by {other:?}"),
                }
            }
            drop(shard.clear());
            // The flush is a step of the partition's order as well.
            assert_eq!(seqs(&shard, p).2, 6 * (round + 1));
            assert_eq!(keys(&shard, NOW).len(), 0);
            assert_eq!(shard.stats().items, 0);
            shard.check();
        }
        assert!(stamped.is_sorted_by(|a, b| a < b), "no version came twice");
        assert_eq!(
            shard.granted(),
            Room {
                bytes: ROOMY,
                items: ROOMY
            }
        );
    }
}
