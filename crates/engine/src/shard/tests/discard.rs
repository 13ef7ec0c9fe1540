//! A partition that is wiped while it has much: it is empty at once, what it had is freed in steps, and nobody meets it
//! again, whatever is dropped, swept or moved meanwhile.

use super::*;

const NOW: u64 = 1_800_000_000_000;

fn key(partition: bool, number: u16) -> Vec<u8> {
    format!("{{{}}}{number}", if partition { "p" } else { "q" }).into_bytes()
}

fn of(partition: bool) -> Partition {
    Partition::of(&key(partition, 0))
}

fn commit(shard: &mut Shard, partition: Partition) {
    let last = shard.progress(partition).last.seq();
    shard.commit(partition, last);
}

#[test]
fn a_large_partition_is_empty_at_once_and_freed_in_steps() {
    let mut shard = told(PolicyKind::Lru, u64::MAX / 4, u64::MAX / 4, usize::MAX);
    for number in 0..5000 {
        let expiry = [Expiry::Never, Expiry::At(NOW + 1)][usize::from(number % 2)];
        run(&mut shard, NOW, &key(true, number), set(&[1; 100], expiry));
    }
    for number in 0..1000 {
        run(&mut shard, NOW, &key(true, number), delete());
    }
    run(&mut shard, NOW, &key(false, 0), set(b"kept", Expiry::Never));
    commit(&mut shard, of(true));
    let full = shard.stats();
    shard.wipe(of(true));
    let wiped = shard.stats();
    assert_eq!((wiped.items, wiped.tombstones), (1, 0));
    assert_eq!(shard.items(), 1);
    assert_eq!(shard.items_of(of(true)), 0);
    assert_eq!(
        wiped.charged_bytes, full.charged_bytes,
        "nothing is freed yet"
    );
    assert_eq!(keys(&shard, NOW), [key(false, 0)]);
    shard.check();
    run(&mut shard, NOW, &key(true, 1), set(b"new", Expiry::Never));
    let mut steps = 0;
    while shard.sweep(NOW + 2, 100) {
        steps += 1;
        shard.check();
    }
    assert!(steps >= 5000 / 200, "{steps} steps");
    while shard.compact() {}
    let swept = shard.stats();
    assert_eq!((swept.items, swept.tombstones, swept.expiring), (2, 0, 0));
    assert_eq!(
        (swept.expirations, swept.purges, swept.evictions),
        (0, 0, [0; 3])
    );
    assert!(swept.arena_bytes < full.arena_bytes / 4);
    assert_eq!(keys(&shard, NOW + 2), [key(true, 1), key(false, 0)]);
}

/// Room is made of it first: while there is any, this shard drops nothing that counts, and no tombstone of another partition.
#[test]
fn what_was_discarded_makes_room_before_anything_is_evicted() {
    for (bytes, items) in [(4_000_000, u64::MAX / 4), (u64::MAX / 4, 3000)] {
        let mut shard = told(PolicyKind::Lru, bytes, items, 0);
        for number in 0..3000 {
            run(
                &mut shard,
                NOW,
                &key(true, number),
                set(&[1; 1000], Expiry::Never),
            );
            commit(&mut shard, of(true));
        }
        let evicted = shard.stats().evictions;
        let purged = shard.stats().purges;
        shard.wipe(of(true));
        for number in 0..2500 {
            run(
                &mut shard,
                NOW,
                &key(false, number),
                set(&[2; 1000], Expiry::Never),
            );
            commit(&mut shard, of(false));
        }
        shard.check();
        assert_eq!(shard.items(), 2500);
        assert_eq!(shard.stats().evictions, evicted);
        assert_eq!(shard.stats().purges, purged);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(bool, u16, u16, bool),
    Delete(bool, u16),
    Wipe(bool),
    Commit(bool),
    Sweep,
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    let number = || 0u16..400;
    prop_oneof![
        40 => (any::<bool>(), number(), 0u16..2000, any::<bool>()).prop_map(|(p, n, len, ttl)| Step::Set(p, n, len, ttl)),
        6 => (any::<bool>(), number()).prop_map(|(p, n)| Step::Delete(p, n)),
        1 => any::<bool>().prop_map(Step::Wipe),
        4 => any::<bool>().prop_map(Step::Commit),
        1 => Just(Step::Sweep),
        1 => Just(Step::Compact),
    ]
}

proptest! {
    #[test]
    fn what_was_discarded_never_comes_back(
        steps in prop::collection::vec(step(), 1..1500),
        policy in 0..PolicyKind::ALL.len(),
        bytes in 400_000u64..2_000_000,
        items in 100u64..1000,
        tombstone_bytes in 0usize..10_000,
    ) {
        let mut shard = told(PolicyKind::ALL[policy], bytes, items, tombstone_bytes);
        let mut model = BTreeMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            let now = NOW + n as u64;
            match step {
                Step::Set(p, number, len, ttl) => {
                    let expiry = if ttl { Expiry::At(now + 50) } else { Expiry::Never };
                    let data = vec![n as u8; usize::from(len)];
                    if matches!(run(&mut shard, now, &key(p, number), set(&data, expiry)), Reply::Stored { .. }) {
                        model.insert(key(p, number), data);
                    }
                }
                Step::Delete(p, number) => {
                    if !matches!(run(&mut shard, now, &key(p, number), delete()), Reply::Refused(_)) {
                        model.remove(&key(p, number));
                    }
                }
                Step::Wipe(p) => {
                    shard.wipe(of(p));
                    model.retain(|key, _| Partition::of(key) != of(p));
                    prop_assert_eq!(shard.items_of(of(p)), 0);
                }
                Step::Commit(p) => commit(&mut shard, of(p)),
                Step::Sweep => { shard.sweep(now, 20); }
                Step::Compact => { shard.compact(); }
            }
            if n % 16 == 0 {
                shard.check();
            }
            let p = of(n % 2 == 0);
            if shard.progress(p).last.seq() > 0 {
                prop_assert!(shard.progress(p).horizon <= shard.progress(p).commit);
            }
        }
        shard.check();
        for key in keys(&shard, 0) {
            let Body::Value(value) = shard.record(Partition::of(&key), &key).expect("it was shown").body else {
                panic!("it was shown as an item");
            };
            prop_assert_eq!(Some(&value.data.to_vec()), model.get(&key));
        }
        while shard.sweep(NOW, 1000) {}
        shard.check();
    }
}
