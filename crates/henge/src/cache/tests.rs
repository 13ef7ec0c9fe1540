//! The promises of a whole cache that no shard can keep alone: exact when small, room lent when large, scans and limits
//! over many shards.

use super::*;
use henge_cluster::replica::{Level, Output, RequestId, Seen, Vouch};
use henge_cluster::ring::NodeId;
use henge_cluster::store::Served;
use henge_wire::{Condition, Effect, Expiry, Guard, Operation, Precondition, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

fn cache(max_size_bytes: u64, max_items: Option<u64>, policy: PolicyKind) -> Cache {
    Cache::new(&CacheConfig {
        max_size_bytes,
        max_items,
        policy,
        seed: 0x1234_5678_9abc_def0,
        first: Version::new(1, 0),
        threads: 2,
        allocation_size: |bytes| bytes,
        remembers_departures: true,
    })
}

fn set(cache: &Cache, key: &str, value: &[u8]) -> Result<(), Refusal> {
    let operation = Operation::Set {
        value: Value::from_slice(value),
        expiry: Expiry::Never,
        precondition: Precondition::NONE,
    };
    let command = Command {
        key: key.as_bytes(),
        operation,
    };
    cache.execute(&command, 1, |reply| match reply {
        Reply::Stored { .. } => Ok(()),
        Reply::Refused(refusal) => Err(refusal),
        other => panic!("a set is answered by {other:?}"),
    })
}

fn has(cache: &Cache, key: &str) -> bool {
    let command = Command {
        key: key.as_bytes(),
        operation: Operation::Get,
    };
    cache.execute(&command, 1, |reply| matches!(reply, Reply::Found(_)))
}

#[test]
fn shards_follow_the_limits() {
    for (bytes, items, threads, count) in [
        (1 << 20, None, 8, 1),
        (64 << 20, None, 8, 1),
        (65 << 20, None, 8, 4),
        (256 << 20, None, 2, 16),
        (6 << 30, None, 2, 32),
        (6 << 30, Some(65_536), 2, 1),
        (6 << 30, Some(65_537), 2, 16),
        (6 << 30, Some(1_000_000), 1, 16),
        (512 << 30, None, 1, 128),
        (1 << 50, None, 1, 1024),
    ] {
        let config = CacheConfig {
            max_size_bytes: bytes,
            max_items: items,
            policy: PolicyKind::Lru,
            seed: 0,
            first: Version::ZERO,
            threads,
            allocation_size: |bytes| bytes,
            remembers_departures: true,
        };
        assert_eq!(shard_count(&config), count, "{bytes} {items:?} {threads}");
    }
}

#[test]
fn a_small_cache_evicts_exactly_the_least_recently_used() {
    let cache = cache(1 << 30, Some(3), PolicyKind::Lru);
    for key in ["a", "b", "c"] {
        set(&cache, key, b"1").expect("room");
    }
    assert!(has(&cache, "a"));
    set(&cache, "d", b"1").expect("room");
    assert_eq!(
        ["a", "b", "c", "d"].map(|key| has(&cache, key)),
        [true, false, true, true]
    );
}

#[test]
fn a_limit_of_items_is_met_over_many_shards() {
    let cache = cache(1 << 30, Some(100_000), PolicyKind::Lru);
    for n in 0..150_000 {
        set(&cache, &format!("key{n}"), b"1").expect("room");
    }
    let items = cache.stats().shards.items;
    assert!((99_000..=100_000).contains(&items), "{items} items");
}

#[test]
fn a_value_larger_than_a_shards_share_finds_room() {
    let cache = cache(256 << 20, None, PolicyKind::Lru);
    let large = vec![7; 60 << 20];
    set(&cache, "before", &large).expect("the pool has room");
    for n in 0..40_000 {
        set(&cache, &format!("key{n}"), &[0; 8000]).expect("room");
    }
    assert!(cache.charged_bytes() <= 256 << 20);
    // Now the pool is empty, and no shard holds as much.
    set(&cache, "after", &large).expect("others lend");
    assert!(has(&cache, "after"));
    assert!(cache.charged_bytes() <= 256 << 20);
    assert_eq!(
        set(&cache, "never", &vec![0; 256 << 20]),
        Err(Refusal::TooLarge)
    );
}

fn put(value: &[u8]) -> Effect<'_> {
    Effect::Put {
        value: Value::from_slice(value),
        expires_at_ms: None,
    }
}

/// Keys of one partition, and effects that put this value under each.
fn transact(cache: &Cache, keys: &[Vec<u8>], value: &[u8]) -> Result<Outcome, NotOnePartition> {
    let guards: Vec<Guard<'_>> = keys
        .iter()
        .map(|key| Guard {
            key,
            condition: Condition::Absent,
        })
        .collect();
    let effects: Vec<(&[u8], Effect<'_>)> = keys.iter().map(|key| (&key[..], put(value))).collect();
    let transaction = Transaction {
        guards: &guards,
        effects: &effects,
    };
    cache.transact(&transaction, 1)
}

#[test]
fn a_transaction_is_of_one_partition() {
    let cache = cache(1 << 20, None, PolicyKind::Lru);
    let keys = [b"{p}a".to_vec(), b"{p}b".to_vec(), b"{q}c".to_vec()];
    assert_eq!(transact(&cache, &[], b"v"), Err(NotOnePartition));
    assert_eq!(transact(&cache, &keys, b"v"), Err(NotOnePartition));
    assert!(!has(&cache, "{p}a"));
    let outcome = transact(&cache, &keys[..2], b"v");
    assert!(matches!(outcome, Ok(Outcome::Applied(_))), "{outcome:?}");
    assert!(has(&cache, "{p}a") && has(&cache, "{p}b"));
    let outcome = transact(&cache, &keys[1..2], b"w");
    assert!(
        matches!(
            outcome,
            Ok(Outcome::Failed {
                guard: 0,
                found: Some(_)
            })
        ),
        "{outcome:?}"
    );
}

/// Small caches, and a large one whose pool is empty and whose shards have to lend.
#[test]
fn a_transaction_finds_the_room_of_all_its_keys_or_none() {
    for (bytes, items, value_bytes, fits) in [
        (1 << 20, None, 8 << 10, false),
        (2 << 20, None, 8 << 10, true),
        (64 << 20, None, 8 << 10, true),
        (64 << 20, Some(100), 8 << 10, true),
        (64 << 20, Some(99), 8 << 10, false),
        (256 << 20, None, 1 << 20, true),
        (256 << 20, None, 3 << 20, false),
        (256 << 20, Some(70_000), 100, true),
    ] {
        let cache = cache(bytes, items, PolicyKind::Lru);
        for n in 0..bytes / 3000 {
            set(&cache, &format!("key{n}"), &[1; 3000]).expect("room");
        }
        for round in 0..2 {
            let keys: Vec<Vec<u8>> = (0..100)
                .map(|n| format!("{{p}}{round}-{n}").into_bytes())
                .collect();
            let outcome = transact(&cache, &keys, &vec![7; value_bytes]);
            let there = keys
                .iter()
                .filter(|key| has(&cache, std::str::from_utf8(key).expect("text")))
                .count();
            if fits {
                assert!(
                    matches!(outcome, Ok(Outcome::Applied(_))),
                    "{bytes}: {outcome:?}"
                );
                assert_eq!(there, 100);
            } else {
                assert_eq!(outcome, Ok(Outcome::Refused(Refusal::TooLarge)));
                assert_eq!(there, 0);
            }
            assert!(cache.charged_bytes() <= bytes);
            assert!(cache.stats().shards.items <= items.unwrap_or(u64::MAX));
        }
    }
}

#[test]
fn a_scan_over_shards_shows_every_key() {
    let cache = cache(256 << 20, None, PolicyKind::Lru);
    let keys: BTreeSet<String> = (0..20_000).map(|n| format!("key{n}")).collect();
    for key in &keys {
        set(&cache, key, b"1").expect("room");
    }
    for limit in [1, 100, 100_000] {
        let mut seen = BTreeSet::new();
        let mut cursor = ScanCursor::default();
        let mut pages = 0;
        loop {
            cursor = cache.scan(cursor, limit, 1, &mut |key| {
                seen.insert(String::from_utf8(key.to_vec()).expect("text"));
            });
            cursor = cursor
                .to_string()
                .parse()
                .expect("a cursor reads its own text");
            cursor = ScanCursor::from_u64(cursor.to_u64());
            pages += 1;
            if cursor.is_end() {
                break;
            }
        }
        assert_eq!(seen, keys);
        assert!(pages <= 20_000 / limit + 1025, "{pages} pages of {limit}");
    }
    cache.flush().expect("it has no log");
    assert_eq!(cache.stats().shards.items, 0);
    assert!(
        cache
            .scan(ScanCursor::default(), 10, 1, &mut |_| panic!("it is empty"))
            .is_end()
    );
}

/// Keys of one partition are as likely as any, though they are half of all; and what has expired is no key.
#[test]
fn a_random_key_is_any_live_key() {
    for bytes in [64 << 20, 256 << 20] {
        let cache = cache(bytes, None, PolicyKind::Lru);
        assert_eq!(cache.random_key(7, 1), None);
        let expire = |key: &str| {
            let operation = Operation::Set {
                value: Value::from_slice(b"1"),
                expiry: Expiry::At(10),
                precondition: Precondition::NONE,
            };
            let key = key.as_bytes();
            cache.execute(&Command { key, operation }, 1, |_| ());
        };
        for n in 0..1000 {
            set(&cache, &format!("key{n}"), b"1").expect("room");
            set(&cache, &format!("{{p}}{n}"), b"1").expect("room");
            expire(&format!("gone{n}"));
        }
        assert_eq!(cache.items(), 3000);
        let mut drawn = std::collections::BTreeMap::<Vec<u8>, u32>::new();
        for random in 0..40_000 {
            // Numbers as alike as can be: they are as good as any.
            let key = cache.random_key(random, 20).expect("there are keys");
            *drawn.entry(key).or_default() += 1;
        }
        assert!(drawn.keys().all(|key| !key.starts_with(b"gone")));
        assert!(drawn.len() > 1990, "{} of 2000", drawn.len());
        let tagged: u32 = drawn
            .iter()
            .filter(|(key, _)| key.starts_with(b"{p}"))
            .map(|(_, times)| times)
            .sum();
        assert!((18_000..26_000).contains(&tagged), "{tagged} of 40000");
        let most = drawn.values().max().expect("some");
        assert!(*most < 200, "one came {most} times, and 20 is the mean");
    }
}

#[test]
fn a_random_key_is_found_among_many_that_have_expired() {
    let cache = cache(256 << 20, None, PolicyKind::Lru);
    for n in 0..5000 {
        let operation = Operation::Set {
            value: Value::from_slice(b"1"),
            expiry: Expiry::At(10),
            precondition: Precondition::NONE,
        };
        let key = format!("key{n}");
        let key = key.as_bytes();
        cache.execute(&Command { key, operation }, 1, |_| ());
    }
    for random in 0..50 {
        assert!(cache.random_key(random, 1).is_some());
        assert_eq!(cache.random_key(random, 10), None, "all have expired");
    }
    set(&cache, "one", b"1").expect("room");
    for random in 0..50 {
        assert_eq!(cache.random_key(random, 10), Some(b"one".to_vec()));
    }
}

#[test]
fn a_footprint_says_what_an_item_takes_and_is_no_use_of_it() {
    for policy in PolicyKind::ALL {
        let cache = cache(1 << 20, Some(2), policy);
        set(&cache, "a", &[0; 100]).expect("room");
        set(&cache, "b", &vec![0; 100_000]).expect("room");
        assert!(has(&cache, "b"));
        assert_eq!(cache.footprint(b"c", 1), None);
        let lfu = policy == PolicyKind::Lfu;
        for _ in 0..5 {
            let a = cache.footprint(b"a", 1).expect("it is there");
            assert!((121..140).contains(&a.record_bytes), "{a:?}");
            assert_eq!(a.uses, lfu.then_some(1));
        }
        let b = cache.footprint(b"b", 1).expect("it is there");
        assert!((100_001..100_100).contains(&b.record_bytes), "{b:?}");
        assert_eq!(b.uses, lfu.then_some(2));
        set(&cache, "d", b"1").expect("room");
        if matches!(policy, PolicyKind::Lru | PolicyKind::Lfu) {
            assert!(!has(&cache, "a"), "{policy}: it was not used");
        }
    }
}

#[test]
fn lowering_a_limit_evicts_and_raising_it_gives_room() {
    let cache = cache(256 << 20, None, PolicyKind::Lru);
    let fill = |bytes: usize| {
        for n in 0..bytes / 1000 {
            set(&cache, &format!("key{n}"), &[0; 900]).expect("room");
        }
    };
    fill(250_000_000);
    assert!(cache.charged_bytes() > 200 << 20);
    cache.set_limits(100 << 20, None);
    assert!(
        cache.charged_bytes() <= 100 << 20,
        "{}",
        cache.charged_bytes()
    );
    cache.set_limits(100 << 20, Some(10_000));
    assert!(cache.stats().shards.items <= 10_000);
    fill(250_000_000);
    assert!(cache.stats().shards.items <= 10_000);
    cache.set_limits(256 << 20, None);
    fill(250_000_000);
    assert!(cache.charged_bytes() > 200 << 20);
}

#[test]
fn pressure_withholds_and_calm_gives_back() {
    let cache = cache(256 << 20, None, PolicyKind::Lru);
    for n in 0..300_000 {
        set(&cache, &format!("key{n}"), &[0; 900]).expect("room");
    }
    let before = cache.stats();
    cache.withhold(200 << 20);
    let during = cache.stats();
    assert!(
        during.shards.charged_bytes <= 56 << 20,
        "{}",
        during.shards.charged_bytes
    );
    assert!(during.shards.evictions[Cause::Pressure as usize] > 100_000);
    // What has to go for the newcomers goes for the same reason.
    for n in 300_000..301_000 {
        set(&cache, &format!("key{n}"), &[0; 900]).expect("room");
    }
    assert_eq!(
        cache.stats().shards.evictions[Cause::Size as usize],
        before.shards.evictions[Cause::Size as usize]
    );
    cache.withhold(0);
    for n in 0..300_000 {
        set(&cache, &format!("key{n}"), &[0; 900]).expect("room");
    }
    assert!(cache.charged_bytes() > before.shards.charged_bytes * 9 / 10);
}

#[test]
fn idle_room_goes_back_to_the_pool() {
    let cache = cache(256 << 20, None, PolicyKind::Lru);
    for n in 0..200_000 {
        set(&cache, &format!("key{n}"), &[0; 900]).expect("room");
    }
    let before = cache.stats().shards;
    cache.flush().expect("it has no log");
    for shard in 0..cache.shard_count() {
        while cache.compact(shard) {}
        cache.collect_idle(shard);
    }
    let after = cache.stats().shards;
    assert!(after.granted.bytes < before.granted.bytes / 10);
    assert!(after.charged_bytes < 4 << 20, "{}", after.charged_bytes);
}

/// Carries nothing.
struct Silent;

impl replicas::Carry for Silent {
    fn begin(&self, _: Partition, _: bool) -> (RequestId, Level) {
        (0, Level::Quorum)
    }

    fn stamped(&self, _: RequestId, _: Version) {}

    fn level(&self) -> Level {
        Level::Quorum
    }

    fn adopted(&self) {}

    fn wait(&self, _: Partition, vouch: Vouch<()>) -> Option<Seen<()>> {
        Some(vouch.seen)
    }

    fn carry(&self, _: Partition, _: Output<Served>) {}
}

/// It would be acknowledged, and be in no copy of the partition.
#[test]
fn what_waits_for_room_goes_by_the_machine_that_has_come_meanwhile() {
    let cache = cache(64 << 20, None, PolicyKind::Lru);
    let command = Command {
        key: b"key",
        operation: Operation::Set {
            value: Value::from_slice(b"value"),
            expiry: Expiry::Never,
            precondition: Precondition::NONE,
        },
    };
    let Location { partition, hash } = cache.locate(command.key);
    let index = cache.shard_of(partition);
    let run = |cache: &Cache| {
        let (turn, short) = (cache.turn(1), Short(Room::default()));
        cache.execute_with_help(&command, index, hash, turn, short, |reply| {
            matches!(reply, Reply::Refused(Refusal::NotOpen))
        })
    };
    assert!(!run(&cache), "it has all partitions itself");
    let identified = replicas::Identified {
        me: NodeId(1),
        incarnation: 1,
        has_log: false,
    };
    cache.replicate(identified, Arc::new(Silent), |_| 1);
    assert!(run(&cache));
}
