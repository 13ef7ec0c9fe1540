//! Transactions, and mutations of several effects, against a naive model: all effects are there under one version, or
//! nothing has changed but that something may have been dropped, whatever room there is.

use super::*;
use henge_wire::{Condition, Guard, MAX_TRANSACTION_KEYS, Outcome, Transaction};

const START: u64 = 1_800_000_000_000;

fn partition() -> Partition {
    Partition::of(b"{p}")
}

fn tagged(number: u16) -> Vec<u8> {
    [b"{p}".to_vec(), key(number)].concat()
}

/// An effect with a life of its own.
#[derive(Clone, Debug)]
enum Change {
    Put { len: usize, ttl: Option<u16> },
    Expire(Option<u16>),
    Delete,
}

#[derive(Clone, Debug)]
enum Step {
    One(u16, Change),
    Transact {
        /// Key, and what is asked of it: absent, there, its version, another version.
        guards: Vec<(u16, u8)>,
        effects: Vec<(u16, Change)>,
    },
    /// Commit a part of what is not committed, in tenths.
    Commit(u64),
    Get(u16),
    Pass(u16),
    Sweep,
    Compact,
}

fn change() -> impl Strategy<Value = Change> {
    let len = prop_oneof![4 => 0usize..60, 3 => 0usize..3000, 2 => 6000usize..40_000];
    let ttl = || prop::option::of(1u16..500);
    prop_oneof![
        6 => (len, ttl()).prop_map(|(len, ttl)| Change::Put { len, ttl }),
        2 => ttl().prop_map(Change::Expire),
        2 => Just(Change::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let number = || 0u16..40;
    // Guards that hold by chance are rare: most ask for what is there, and are made to below.
    let guards = prop::collection::vec((number(), 0u8..30), 0..4);
    let effects = prop::collection::vec((number(), change()), 1..14);
    prop_oneof![
        4 => (number(), change()).prop_map(|(number, change)| Step::One(number, change)),
        8 => (guards, effects).prop_map(|(guards, effects)| Step::Transact { guards, effects }),
        4 => (0u64..11).prop_map(Step::Commit),
        3 => number().prop_map(Step::Get),
        2 => (0u16..300).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
        1 => Just(Step::Compact),
    ]
}

fn data(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + salt) as u8).collect()
}

type Content = BTreeMap<Vec<u8>, Kept>;

fn content(shard: &Shard) -> Content {
    records(shard, partition(), 0)
        .into_iter()
        .map(|record| (record.key.clone(), record))
        .collect()
}

fn is_live(record: &Kept, now: u64) -> bool {
    record.data.is_some() && record.deadline.is_none_or(|at| at > now)
}

/// What the effects make of a shard that drops nothing.
fn applied(
    before: &Content,
    effects: &[(&[u8], Effect<'_>)],
    version: Version,
    tombstones: bool,
) -> Content {
    let mut after = before.clone();
    for (key, effect) in effects {
        let key = key.to_vec();
        let (data, deadline) = match effect {
            Effect::Put {
                value,
                expires_at_ms,
            } => (Some(value.data.to_vec()), *expires_at_ms),
            Effect::Expire { expires_at_ms } => match after.get(&key) {
                Some(Kept {
                    data: Some(data), ..
                }) => (Some(data.clone()), *expires_at_ms),
                _ => (None, None),
            },
            Effect::Delete => (None, None),
        };
        if data.is_some() || tombstones {
            let record = Kept {
                key: key.clone(),
                version,
                deadline,
                data,
            };
            after.insert(key, record);
        } else {
            after.remove(&key);
        }
    }
    after
}

/// Everything that is there is as expected; what is missing was dropped by right, and is none of those that have to stay.
fn is_expected_or_dropped<'k>(
    shard: &Shard,
    expected: &Content,
    commit_before: u64,
    stay: impl IntoIterator<Item = &'k [u8]>,
) -> Result<(), TestCaseError> {
    let found = content(shard);
    let progress = shard.progress(partition());
    for (key, record) in &found {
        prop_assert_eq!(Some(record), expected.get(key));
    }
    for (key, record) in expected {
        if !found.contains_key(key) {
            let seq = record.version.seq();
            prop_assert!(
                seq <= commit_before && seq <= progress.horizon,
                "{} is lost",
                record.version
            );
        }
    }
    for key in stay {
        prop_assert!(
            !expected.contains_key(key) || found.contains_key(key),
            "{:?} was dropped for its own transaction",
            String::from_utf8_lossy(key)
        );
    }
    Ok(())
}

/// How much room there is, and what else a run is about.
#[derive(Clone, Copy, Debug)]
struct Setting {
    policy: PolicyKind,
    commit: Commit,
    tombstone_bytes: usize,
    bytes: u64,
    items: u64,
}

#[expect(clippy::too_many_lines, reason = "one arm a step")]
fn agree(setting: Setting, steps: Vec<Step>) -> Result<[u32; 4], TestCaseError> {
    let Setting {
        policy,
        commit,
        tombstone_bytes,
        bytes,
        items,
    } = setting;
    let make = |room| {
        let mut shard = Shard::new(ShardConfig {
            commit,
            tombstone_bytes,
            ..config(policy)
        });
        shard.grant(room);
        shard
    };
    let mut leader = make(Room { bytes, items });
    let roomy = bytes == u64::MAX && items == u64::MAX;
    // With as much, the follower would never be the first to have too little.
    let mut follower = make(Room {
        bytes: if roomy { bytes } else { bytes / 4 * 3 },
        items: if roomy { items } else { (items / 4 * 3).max(1) },
    });
    let tombstones = leader.keeps_tombstones(leader.local(partition()));
    let p = partition();
    let mut now = START;
    // Applied, failed, refused; and how often the follower had no room.
    let mut seen = [0; 4];
    for (n, step) in steps.into_iter().enumerate() {
        let (guards, changes) = match step {
            Step::One(number, change) => (Vec::new(), vec![(number, change)]),
            Step::Transact { guards, effects } => (guards, effects),
            Step::Commit(tenths) => {
                for shard in [&mut leader, &mut follower] {
                    let Progress { last, commit, .. } = shard.progress(p);
                    shard.commit(p, commit + (last.seq() - commit) * tenths / 10);
                }
                continue;
            }
            Step::Get(number) => {
                get(&mut leader, now, &tagged(number));
                continue;
            }
            Step::Pass(ms) => {
                now += u64::from(ms);
                continue;
            }
            Step::Sweep => {
                while leader.sweep(now, 10) {}
                while follower.sweep(now, 10) {}
                continue;
            }
            Step::Compact => {
                leader.compact();
                follower.compact();
                continue;
            }
        };
        let before = content(&leader);
        let version_of = |key: &[u8]| {
            before
                .get(key)
                .filter(|record| is_live(record, now))
                .map(|record| record.version)
        };
        let mut guards: Vec<(Vec<u8>, Condition)> = guards
            .into_iter()
            .map(|(number, ask)| {
                let key = tagged(number);
                let version = version_of(&key);
                let condition = match (ask, version) {
                    (2, _) => Condition::Version(Version::new(1, n as u64)),
                    (1, _) | (3..15, Some(_)) => Condition::Exists,
                    (0, _) | (_, None) => Condition::Absent,
                    (_, Some(version)) => Condition::Version(version),
                };
                (key, condition)
            })
            .collect();
        let values: Vec<Vec<u8>> = changes
            .iter()
            .map(|(_, change)| match change {
                Change::Put { len, .. } => data(*len, n),
                _ => Vec::new(),
            })
            .collect();
        let keys: Vec<Vec<u8>> = changes.iter().map(|(number, _)| tagged(*number)).collect();
        let at = |ttl: Option<u16>| ttl.map(|ttl| now + u64::from(ttl));
        let mut effects: Vec<(&[u8], Effect<'_>)> = Vec::new();
        for (((_, change), key), value) in changes.iter().zip(&keys).zip(&values) {
            let effect = match change {
                Change::Put { ttl, .. } => Effect::Put {
                    value: Value::from_slice(value),
                    expires_at_ms: at(*ttl),
                },
                Change::Expire(ttl) => {
                    if version_of(key).is_none() {
                        continue;
                    }
                    guards.push((key.clone(), Condition::Exists));
                    Effect::Expire {
                        expires_at_ms: at(*ttl),
                    }
                }
                Change::Delete => Effect::Delete,
            };
            effects.push((key, effect));
        }
        let guards: Vec<Guard<'_>> = guards
            .iter()
            .map(|(key, condition)| Guard {
                key,
                condition: *condition,
            })
            .collect();
        let transaction = Transaction {
            guards: &guards,
            effects: &effects,
        };
        let Progress { last, commit, .. } = leader.progress(p);
        let outcome = leader
            .transact(&turn(now), p, &transaction)
            .expect("a shard without a fair share is never short");
        let failing = guards
            .iter()
            .position(|guard| !guard.condition.holds(version_of(guard.key)));
        match outcome {
            Outcome::Failed { guard, found } => {
                prop_assert_eq!(Some(guard), failing);
                prop_assert_eq!(found, version_of(guards[guard].key));
                prop_assert_eq!(leader.progress(p).last, last);
                let alive = before.iter().filter(|(_, record)| is_live(record, now));
                let alive = alive.map(|(key, _)| &key[..]);
                is_expected_or_dropped(&leader, &before, commit, alive)?;
                seen[1] += 1;
            }
            Outcome::Refused(refusal) => {
                prop_assert_eq!(failing, None);
                prop_assert!(!roomy, "{:?}", refusal);
                prop_assert_eq!(leader.progress(p).last, last);
                let guarded = guards
                    .iter()
                    .filter(|guard| guard.condition != Condition::Absent)
                    .map(|guard| guard.key);
                is_expected_or_dropped(&leader, &before, commit, guarded)?;
                seen[2] += 1;
            }
            Outcome::Applied(version) if effects.is_empty() => prop_assert_eq!(version, last),
            Outcome::Applied(version) => {
                prop_assert_eq!(failing, None);
                prop_assert_eq!((version, leader.progress(p).last), (last.next(), version));
                let expected = applied(&before, &effects, version, tombstones);
                // An absent key's tombstone may go.
                let guards = guards
                    .iter()
                    .filter(|guard| guard.condition != Condition::Absent);
                let stay = guards.map(|guard| guard.key);
                let stay = stay.chain(effects.iter().map(|&(key, _)| key));
                is_expected_or_dropped(&leader, &expected, commit, stay)?;
                seen[0] += 1;

                let mutation = Mutation {
                    partition: p,
                    version,
                    effects: &effects,
                };
                let before = content(&follower);
                let commit = follower.progress(p).commit;
                if follower.apply(&turn(now), &mutation).is_err() {
                    prop_assert!(!roomy);
                    prop_assert_eq!(follower.progress(p).last, last);
                    is_expected_or_dropped(&follower, &before, commit, [])?;
                    follower.check();
                    seen[3] += 1;
                    let Progress { last, .. } = follower.progress(p);
                    follower.commit(p, last.seq());
                    let more = Room {
                        bytes: 10 << 20,
                        items: 100,
                    };
                    follower.grant(more);
                    let before = content(&follower);
                    follower.apply(&turn(now), &mutation).expect("room");
                    let expected = applied(&before, &effects, version, tombstones);
                    let own = effects.iter().map(|&(key, _)| key);
                    is_expected_or_dropped(&follower, &expected, last.seq(), own)?;
                    while !follower.vacate(more, Cause::Size, 100) {}
                    // What an order grows by when a record is read is not asked for.
                    follower.surrender(more);
                    follower.grant(Room {
                        bytes: 8 << 10,
                        items: 0,
                    });
                } else {
                    let expected = applied(&before, &effects, version, tombstones);
                    let own = effects.iter().map(|&(key, _)| key);
                    is_expected_or_dropped(&follower, &expected, commit, own)?;
                }
            }
        }
        prop_assert!(leader.charged_bytes() <= bytes);
        prop_assert!(leader.stats.items <= items);
        prop_assert!(follower.charged_bytes() <= follower.granted().bytes);
        prop_assert!(follower.stats.items <= follower.granted().items);
        leader.check();
        follower.check();
    }
    Ok(seen)
}

fn setting() -> impl Strategy<Value = Setting> {
    let commit = prop_oneof![Just(Commit::AtOnce), Just(Commit::Told)];
    let tombstone_bytes = prop_oneof![Just(0), Just(400usize), Just(usize::MAX)];
    let bytes = prop_oneof![
        2 => Just(u64::MAX),
        2 => 260_000u64..420_000,
        2 => 420_000u64..1_200_000,
    ];
    let items = prop_oneof![2 => Just(u64::MAX), 1 => 1u64..25];
    let policy = 0..PolicyKind::ALL.len();
    (policy, commit, tombstone_bytes, bytes, items).prop_map(
        |(policy, commit, tombstone_bytes, bytes, items)| Setting {
            policy: PolicyKind::ALL[policy],
            commit,
            tombstone_bytes,
            bytes,
            items,
        },
    )
}

proptest! {
    #[test]
    fn all_or_nothing(setting in setting(), steps in prop::collection::vec(step(), 1..120)) {
        agree(setting, steps)?;
    }
}

/// The test above is worth something only if everything happens in it.
#[test]
fn every_outcome_is_met() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut sum = [0; 4];
    for commit in [Commit::AtOnce, Commit::Told] {
        for _ in 0..10 {
            let steps = prop::collection::vec(step(), 100..120)
                .new_tree(&mut runner)
                .expect("steps")
                .current();
            let setting = Setting {
                policy: PolicyKind::Lru,
                commit,
                tombstone_bytes: 400,
                bytes: 400_000,
                items: 20,
            };
            let seen = agree(setting, steps).expect("it agrees");
            for (sum, one) in sum.iter_mut().zip(seen) {
                *sum += one;
            }
        }
    }
    assert!(sum.iter().all(|&n| n >= 20), "{sum:?}");
}

fn put(value: &[u8]) -> Effect<'_> {
    Effect::Put {
        value: Value::from_slice(value),
        expires_at_ms: None,
    }
}

fn transact(
    shard: &mut Shard,
    guards: &[Guard<'_>],
    effects: &[(&[u8], Effect<'_>)],
) -> Result<Outcome, Short> {
    let transaction = Transaction { guards, effects };
    let limit = shard.granted();
    let turn = Turn {
        limit,
        ..turn(START)
    };
    shard.transact(&turn, partition(), &transaction)
}

fn exists(key: &[u8]) -> Guard<'_> {
    Guard {
        key,
        condition: Condition::Exists,
    }
}

#[test]
fn a_hundred_keys_of_8_kib_find_room_or_are_refused() {
    let values: Vec<Vec<u8>> = (0..100).map(|n| data(8 << 10, n)).collect();
    let names: Vec<Vec<u8>> = (0..100).map(|n| format!("{{p}}{n}").into_bytes()).collect();
    let effects: Vec<(&[u8], Effect<'_>)> = names
        .iter()
        .zip(&values)
        .map(|(key, value)| (&key[..], put(value)))
        .collect();
    for policy in PolicyKind::ALL {
        for (bytes, fits) in [(1 << 20, false), (3 << 19, true), (64 << 20, true)] {
            let mut shard = shard(policy, bytes, u64::MAX);
            let mut n = 0u32;
            while shard.stats().evictions[0] == 0 {
                n += 1;
                run(
                    &mut shard,
                    START,
                    &n.to_le_bytes(),
                    set(&[1; 3000], Expiry::Never),
                );
            }
            let items = shard.stats().items;
            for _ in 0..2 {
                let outcome = transact(&mut shard, &[], &effects).expect("not short");
                shard.check();
                assert!(shard.charged_bytes() <= bytes);
                if fits {
                    assert!(
                        matches!(outcome, Outcome::Applied(_)),
                        "{policy} {bytes}: {outcome:?}"
                    );
                    for (key, value) in names.iter().zip(&values) {
                        assert_eq!(get(&mut shard, START, key).as_ref(), Some(value));
                    }
                } else {
                    assert_eq!(outcome, Outcome::Refused(Refusal::TooLarge));
                    assert_eq!(shard.stats().items, items, "nothing went for it");
                }
            }
        }
    }
}

/// A key that changes its name changes no other, in a cache that is full of items and nearly full of one value.
#[test]
fn renaming_needs_the_room_of_what_it_frees() {
    for policy in PolicyKind::ALL {
        let mut shard = shard(policy, 4 << 20, 3);
        let large = data(3 << 20, 1);
        for (key, value) in [
            (&b"{p}a"[..], &b"1"[..]),
            (b"{p}b", b"2"),
            (b"{p}c", &large),
        ] {
            run(&mut shard, START, key, set(value, Expiry::Never));
        }
        for (from, to) in [
            (&b"{p}a"[..], &b"{p}d"[..]),
            (b"{p}c", b"{p}e"),
            (b"{p}e", b"{p}b"),
        ] {
            let before = shard.stats().items;
            let (existed, value) = match run(&mut shard, START, from, Operation::Peek) {
                Reply::Found(item) => (item.version, Data::Shared(item.value.data.to_bytes())),
                other => panic!("{policy}: a peek is answered by {other:?}"),
            };
            let guard = Guard {
                key: from,
                condition: Condition::Version(existed),
            };
            let held = value.to_bytes();
            let effect = Effect::Put {
                value: Value::raw(value),
                expires_at_ms: None,
            };
            let gone = u64::from(to == b"{p}b");
            let effects = [(to, effect), (from, Effect::Delete)];
            let outcome = transact(&mut shard, &[guard], &effects).expect("not short");
            assert!(
                matches!(outcome, Outcome::Applied(_)),
                "{policy}: {outcome:?}"
            );
            assert_eq!(shard.stats().items, before - gone, "{policy}");
            assert_eq!(shard.stats().evictions, [0; 3], "{policy}");
            assert_eq!(get(&mut shard, START, to), Some(held.to_vec()));
            assert_eq!(get(&mut shard, START, from), None);
            shard.check();
        }
        assert_eq!(shard.stats().deletes, 3);
    }
}

#[test]
fn what_a_guard_wants_is_not_evicted_for_its_transaction() {
    for policy in PolicyKind::ALL {
        for items in [2, u64::MAX] {
            let mut shard = shard(policy, 700_000, items);
            // The least recently and least often used of all, and any order's first choice but that of chance.
            let deadline = Expiry::At(START + 1);
            run(&mut shard, START, b"{p}source", set(b"v", deadline));
            for n in 0..500u32 {
                if items == 2 || shard.stats().evictions != [0; 3] {
                    break;
                }
                run(
                    &mut shard,
                    START,
                    &n.to_le_bytes(),
                    set(&[0; 900], Expiry::Never),
                );
            }
            if get(&mut shard, START, b"{p}source").is_none() {
                run(&mut shard, START, b"{p}source", set(b"v", deadline));
            }
            let value = data(100_000, 3);
            for to in [b"{p}1", b"{p}2", b"{p}3", b"{p}4"] {
                let guards = [exists(b"{p}source")];
                let outcome = transact(&mut shard, &guards, &[(to, put(&value))]);
                assert!(
                    matches!(outcome, Ok(Outcome::Applied(_))),
                    "{policy}: {outcome:?}"
                );
                assert_eq!(get(&mut shard, START, to).as_ref(), Some(&value));
            }
            assert!(get(&mut shard, START, b"{p}source").is_some(), "{policy}");
            assert_ne!(shard.stats().evictions, [0; 3]);
            shard.check();
        }
    }
}

#[test]
fn the_last_of_several_effects_on_a_key_counts() {
    let mut shard = told(PolicyKind::Lru, u64::MAX, u64::MAX, 0);
    let effects: [(&[u8], Effect<'_>); 5] = [
        (b"{p}a", put(b"1")),
        (b"{p}b", Effect::Delete),
        (b"{p}a", put(b"2")),
        (b"{p}b", put(b"3")),
        (b"{p}c", put(b"4")),
    ];
    transact(&mut shard, &[], &effects).expect("room");
    let kept: Vec<_> = records(&shard, partition(), 0)
        .into_iter()
        .map(|record| record.data)
        .collect();
    assert_eq!(kept, [b"2", b"3", b"4"].map(|data| Some(data.to_vec())));
    assert_eq!(shard.stats().items, 3);
    shard.check();
}

/// A shard that has little of the room says how much it is short of, for all of it and not for one record.
#[test]
fn being_short_is_said_in_whole_and_changes_nothing() {
    let values = [data(300_000, 1), data(300_000, 2)];
    let effects: [(&[u8], Effect<'_>); 2] =
        [(b"{p}a", put(&values[0])), (b"{p}b", put(&values[1]))];
    let mut shard = shard(PolicyKind::Lru, 400_000, 1);
    run(&mut shard, START, b"{p}a", set(b"v", Expiry::Never));
    let transaction = Transaction {
        guards: &[exists(b"{p}a")],
        effects: &effects,
    };
    let turn = Turn {
        fair: Room {
            bytes: 4 << 20,
            items: 10,
        },
        limit: Room {
            bytes: 64 << 20,
            items: 100,
        },
        ..turn(START)
    };
    let mut asked = Vec::new();
    while let Err(Short(room)) = shard.transact(&turn, partition(), &transaction) {
        assert_eq!(get(&mut shard, START, b"{p}a"), Some(b"v".to_vec()));
        assert_eq!(get(&mut shard, START, b"{p}b"), None);
        shard.check();
        shard.grant(room);
        asked.push(room);
        assert!(asked.len() <= 20, "{asked:?}");
    }
    assert_eq!((asked[0].bytes, asked[0].items), (0, 1));
    let bytes: Vec<u64> = asked
        .iter()
        .map(|room| room.bytes)
        .filter(|&bytes| bytes > 0)
        .collect();
    assert!(bytes[0] > 300_000, "{bytes:?}");
    for value in [&b"{p}a"[..], b"{p}b"].iter().zip(&values) {
        assert_eq!(get(&mut shard, START, value.0).as_ref(), Some(value.1));
    }
    shard.check();
}

#[test]
#[should_panic(expected = "of its partition")]
fn a_key_of_another_partition_is_a_mistake() {
    let mut shard = shard(PolicyKind::Lru, u64::MAX, u64::MAX);
    let _ = transact(&mut shard, &[], &[(b"{p}", put(b"v")), (b"{q}", put(b"v"))]);
}

#[test]
#[should_panic(expected = "few enough keys")]
fn more_keys_than_one_hold_of_the_lock_is_for_are_a_mistake() {
    let mut shard = shard(PolicyKind::Lru, u64::MAX, u64::MAX);
    let guard = Guard {
        key: b"{p}",
        condition: Condition::Absent,
    };
    let _ = transact(&mut shard, &vec![guard; MAX_TRANSACTION_KEYS + 1], &[]);
}

#[test]
#[should_panic(expected = "guarded to exist")]
fn a_deadline_for_a_key_that_may_be_absent_is_a_mistake() {
    let mut shard = shard(PolicyKind::Lru, u64::MAX, u64::MAX);
    let effect = Effect::Expire {
        expires_at_ms: None,
    };
    let _ = transact(&mut shard, &[], &[(b"{p}", effect)]);
}
