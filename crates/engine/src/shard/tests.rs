//! A shard against a naive model, and the promises that a model does not show: exact small caches, the horizon, room.

mod discard;
mod fill;
mod install;
mod protocol;
mod replica;
mod room;
mod small;
mod transact;
mod why;

use super::*;
use crate::budget::NoLender;
use crate::partition::Progress;
use crate::record::Body;
use crate::segment::SEGMENT_BYTES;
use henge_wire::{Data, Effect, Expiry, Mutation, Precondition, Refusal, Value};
use proptest::prelude::*;
use std::collections::BTreeMap;

impl Shard {
    /// Walks everything and checks that tables, lists, sums and sizes agree.
    pub(crate) fn check(&self) {
        self.records.arena.check();
        assert!(self.held.is_empty());
        let (mut items, mut tombstones) = (0, 0);
        for (p, state) in self.partitions.iter().enumerate() {
            assert!(state.horizon <= state.commit && state.commit <= state.last.seq());
            let before = tombstones;
            self.buckets.each(&state.table, |at| {
                let key = self.records.key(at);
                assert_eq!(self.local(Partition::of(key)), p);
                assert_eq!(self.find(p, self.hasher.hash(key), key), Some(at));
                assert!(self.records.version(at) <= state.last);
                if self.records.is_tombstone(at) {
                    tombstones += 1;
                } else {
                    items += 1;
                }
            });
            assert_eq!(u64::from(state.tombstones), tombstones - before);
        }
        assert_eq!(self.items(), items);
        self.discarded.each(&self.buckets, |p, at| {
            assert_eq!(self.belongs(at).0, p);
            let key = self.records.key(at);
            assert_ne!(self.find(p, self.hasher.hash(key), key), Some(at));
            if self.records.is_tombstone(at) {
                tombstones += 1;
            } else {
                items += 1;
            }
        });
        assert_eq!(
            (self.stats.items, self.stats.tombstones),
            (items, tombstones)
        );
        assert_eq!(
            self.tombstones.iter(&self.records).count() as u64,
            tombstones
        );
    }
}

fn config(policy: PolicyKind) -> ShardConfig {
    ShardConfig {
        index: 0,
        shards: 1,
        policy,
        seed: 42,
        first: Version::new(1, 0),
        commit: Commit::AtOnce,
        tombstone_bytes: 0,
        allocation_size: |bytes| bytes,
    }
}

fn shard(policy: PolicyKind, bytes: u64, items: u64) -> Shard {
    let mut shard = Shard::new(config(policy));
    shard.grant(Room { bytes, items });
    shard
}

/// A shard whose mutations are committed when it is told.
fn told(policy: PolicyKind, bytes: u64, items: u64, tombstone_bytes: usize) -> Shard {
    let mut shard = Shard::new(ShardConfig {
        commit: Commit::Told,
        tombstone_bytes,
        ..config(policy)
    });
    shard.grant(Room { bytes, items });
    shard
}

fn turn(now_ms: u64) -> Turn<'static> {
    Turn {
        now_ms,
        lender: &NoLender,
        fair: Room::default(),
        cause: Cause::Size,
        limit: Room {
            bytes: u64::MAX,
            items: u64::MAX,
        },
    }
}

fn run<'s>(shard: &'s mut Shard, now_ms: u64, key: &[u8], operation: Operation<'_>) -> Reply<'s> {
    let hash = shard.hasher.hash(key);
    shard
        .execute(
            &turn(now_ms),
            Partition::of(key),
            hash,
            &Command { key, operation },
        )
        .expect("a shard without a fair share is never short")
}

fn set(data: &[u8], expiry: Expiry) -> Operation<'_> {
    Operation::Set {
        value: Value::from_slice(data),
        expiry,
        precondition: Precondition::NONE,
    }
}

fn delete() -> Operation<'static> {
    Operation::Delete {
        precondition: Precondition::NONE,
    }
}

fn expire(expiry: Expiry) -> Operation<'static> {
    Operation::Expire {
        expiry,
        precondition: Precondition::NONE,
    }
}

fn get(shard: &mut Shard, now_ms: u64, key: &[u8]) -> Option<Vec<u8>> {
    match run(shard, now_ms, key, Operation::Get) {
        Reply::Found(item) => Some(item.value.data.to_vec()),
        Reply::Missing => None,
        other => panic!("a get is answered by {other:?}"),
    }
}

fn keys(shard: &Shard, now_ms: u64) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for partition in Partition::all() {
        let mut place = 0;
        loop {
            place = shard.scan(partition, place, now_ms, |key| keys.push(key.to_vec()));
            if place == 0 {
                break;
            }
        }
    }
    keys.sort();
    keys
}

/// A record with a life of its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Kept {
    key: Vec<u8>,
    version: Version,
    deadline: Option<u64>,
    /// None for a tombstone.
    data: Option<Vec<u8>>,
}

impl Kept {
    fn body(&self) -> Body<'_> {
        let value = |data: &Vec<u8>| Body::Value(Value::raw(Data::Shared(data.clone().into())));
        self.data.as_ref().map_or(Body::Tombstone, value)
    }

    fn view(&self) -> RecordView<'_> {
        RecordView {
            key: &self.key,
            version: self.version,
            expires_at_ms: self.deadline,
            body: self.body(),
        }
    }
}

/// A partition's records above a seq, as a copy scans them, in the order of their keys.
fn records(shard: &Shard, partition: Partition, above: u64) -> Vec<Kept> {
    let mut records = Vec::new();
    let mut place = 0;
    loop {
        place = shard.scan_records(partition, above, place, |record| {
            records.push(Kept {
                key: record.key.to_vec(),
                version: record.version,
                deadline: record.expires_at_ms,
                data: match record.body {
                    Body::Value(value) => Some(value.data.to_vec()),
                    Body::Tombstone => None,
                },
            });
        });
        if place == 0 {
            break;
        }
    }
    // A place that was split while it was scanned may be shown twice; here nothing changed.
    records.sort();
    records
}

#[derive(Clone, Debug)]
enum Step {
    Set {
        key: u16,
        len: usize,
        ttl: Option<u16>,
    },
    Get(u16),
    Delete(u16),
    Expire(u16, Option<u16>),
    Increment(u16, i64),
    Pass(u16),
    Sweep,
    Compact,
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0u16..60;
    let len = prop_oneof![4 => 0usize..60, 2 => 0usize..3000, 1 => 6000usize..40_000];
    let ttl = || prop::option::of(1u16..500);
    prop_oneof![
        8 => (key(), len, ttl()).prop_map(|(key, len, ttl)| Step::Set { key, len, ttl }),
        6 => key().prop_map(Step::Get),
        2 => key().prop_map(Step::Delete),
        2 => (key(), ttl()).prop_map(|(key, ttl)| Step::Expire(key, ttl)),
        1 => (key(), -5i64..5).prop_map(|(key, by)| Step::Increment(key, by)),
        2 => (0u16..300).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
        1 => Just(Step::Compact),
        1 => prop_oneof![20 => Just(Step::Sweep), 1 => Just(Step::Clear)],
    ]
}

fn key(number: u16) -> Vec<u8> {
    // Some keys are too long to lie inline.
    let len = if number.is_multiple_of(11) {
        300
    } else {
        usize::from(number % 7)
    };
    let mut key = format!("key{number}").into_bytes();
    key.resize(key.len() + len, b'.');
    key
}

/// Runs the steps on a shard and on a map. If nothing is evicted they agree; else the shard may miss, and never shows
/// anything else.
#[expect(clippy::too_many_lines, reason = "one arm a step")]
fn agree(
    policy: PolicyKind,
    bytes: u64,
    items: u64,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let mut shard = shard(policy, bytes, items);
    let mut model: BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)> = BTreeMap::new();
    let mut now = 1_800_000_000_000;
    let roomy = bytes == u64::MAX && items == u64::MAX;
    for (n, step) in steps.into_iter().enumerate() {
        let at = |ttl: Option<u16>| ttl.map(|ttl| now + u64::from(ttl));
        let expiry = |ttl: Option<u16>| at(ttl).map_or(Expiry::Never, Expiry::At);
        match step {
            Step::Set {
                key: number,
                len,
                ttl,
            } => {
                let data: Vec<u8> = (0..len).map(|i| (i * 7 + n) as u8).collect();
                let reply = run(&mut shard, now, &key(number), set(&data, expiry(ttl)));
                prop_assert!(matches!(reply, Reply::Stored { .. }), "{:?}", reply);
                prop_assert_eq!(get(&mut shard, now, &key(number)), Some(data.clone()));
                model.insert(key(number), (data, at(ttl)));
            }
            Step::Get(number) => {
                let expected = model
                    .get(&key(number))
                    .filter(|(_, d)| d.is_none_or(|d| d > now))
                    .map(|(data, _)| data.clone());
                let found = get(&mut shard, now, &key(number));
                prop_assert!(found == expected || (!roomy && found.is_none()));
            }
            Step::Delete(number) => {
                let reply = run(
                    &mut shard,
                    now,
                    &key(number),
                    Operation::Delete {
                        precondition: Precondition::NONE,
                    },
                );
                let existed = matches!(reply, Reply::Deleted);
                let expected = model
                    .remove(&key(number))
                    .is_some_and(|(_, d)| d.is_none_or(|d| d > now));
                prop_assert!(existed == expected || (!roomy && !existed));
            }
            Step::Expire(number, ttl) => {
                let reply = run(&mut shard, now, &key(number), expire(expiry(ttl)));
                if matches!(reply, Reply::Stored { .. }) {
                    let entry = model
                        .get_mut(&key(number))
                        .expect("what is in the shard is in the model");
                    prop_assert!(entry.1.is_none_or(|d| d > now));
                    entry.1 = at(ttl);
                }
            }
            Step::Increment(number, by) => {
                let before = get(&mut shard, now, &key(number));
                match run(
                    &mut shard,
                    now,
                    &key(number),
                    Operation::Increment {
                        by,
                        initial: 10,
                        expiry: Expiry::Never,
                    },
                ) {
                    Reply::Counted {
                        value,
                        expires_at_ms,
                        ..
                    } => {
                        let old = before.map_or(10, |b| {
                            String::from_utf8(b)
                                .expect("digits")
                                .parse::<i64>()
                                .expect("an integer")
                        });
                        prop_assert_eq!(value, old + by);
                        model.insert(key(number), (value.to_string().into_bytes(), expires_at_ms));
                    }
                    Reply::Refused(Refusal::NotAnInteger) => prop_assert!(before.is_some()),
                    other => panic!("an increment is answered by {other:?}"),
                }
            }
            Step::Pass(ms) => now += u64::from(ms),
            Step::Sweep => while shard.sweep(now, 10) {},
            Step::Compact => {
                shard.compact();
            }
            Step::Clear => {
                drop(shard.clear());
                model.clear();
            }
        }
        prop_assert!(
            shard.charged_bytes() <= bytes,
            "{} of {bytes}",
            shard.charged_bytes()
        );
        prop_assert!(shard.stats.items <= items);
        if n % 8 == 0 {
            shard.check();
        }
    }
    shard.check();
    let live: Vec<Vec<u8>> = model
        .iter()
        .filter(|(_, (_, d))| d.is_none_or(|d| d > now))
        .map(|(k, _)| k.clone())
        .collect();
    let shown = keys(&shard, now);
    if roomy {
        prop_assert_eq!(shown, live);
    } else {
        prop_assert!(shown.iter().all(|key| live.contains(key)));
    }
    Ok(())
}

proptest! {
    #[test]
    fn with_room_it_is_a_map(steps in prop::collection::vec(step(), 1..300), policy in 0..PolicyKind::ALL.len()) {
        agree(PolicyKind::ALL[policy], u64::MAX, u64::MAX, steps)?;
    }

    #[test]
    fn with_few_items_it_only_forgets(steps in prop::collection::vec(step(), 1..300), policy in 0..PolicyKind::ALL.len(), items in 1u64..20) {
        agree(PolicyKind::ALL[policy], u64::MAX, items, steps)?;
    }

    #[test]
    fn with_few_bytes_it_only_forgets(steps in prop::collection::vec(step(), 1..400), policy in 0..PolicyKind::ALL.len()) {
        agree(PolicyKind::ALL[policy], 700_000, u64::MAX, steps)?;
    }
}
