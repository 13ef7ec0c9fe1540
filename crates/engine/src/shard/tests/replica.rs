//! A leader that runs commands and a follower that applies its mutations or copies its records, each with its own room and
//! clockwork of sweeps, against the history of all mutations: for each key a shard holds exactly the newest mutation up to
//! its last, or nothing, and then that mutation is at or below its horizon.

use super::*;
use crate::partition::ReplicaState;
use std::collections::VecDeque;

/// What a mutation of one key made of it.
type Ghost = Kept;

#[derive(Clone, Debug)]
enum Step {
    Set {
        key: u16,
        len: usize,
        ttl: Option<u16>,
    },
    Delete(u16),
    Expire(u16, Option<u16>),
    Increment(u16),
    Get(u16),
    /// Commit a part of what is not committed, in tenths.
    Commit(u64),
    /// Have the follower apply so many.
    Follow(usize),
    /// Have the follower copy from the leader, in full or as little as it may.
    Copy {
        full: bool,
    },
    Pass(u16),
    Sweep(usize),
    Shed {
        leader: bool,
    },
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0u16..40;
    let len = prop_oneof![4 => 0usize..60, 2 => 0usize..3000, 1 => 6000usize..40_000];
    let ttl = || prop::option::of(1u16..500);
    prop_oneof![
        8 => (key(), len, ttl()).prop_map(|(key, len, ttl)| Step::Set { key, len, ttl }),
        4 => key().prop_map(Step::Delete),
        4 => (key(), ttl()).prop_map(|(key, ttl)| Step::Expire(key, ttl)),
        1 => key().prop_map(Step::Increment),
        3 => key().prop_map(Step::Get),
        4 => (0u64..11).prop_map(Step::Commit),
        4 => (0usize..20).prop_map(Step::Follow),
        1 => any::<bool>().prop_map(|full| Step::Copy { full }),
        2 => (0u16..300).prop_map(Step::Pass),
        2 => (0usize..20).prop_map(Step::Sweep),
        1 => any::<bool>().prop_map(|leader| Step::Shed { leader }),
        1 => Just(Step::Compact),
    ]
}

fn partition() -> Partition {
    Partition::of(b"{p}")
}

fn tagged(number: u16) -> Vec<u8> {
    [b"{p}".to_vec(), key(number)].concat()
}

/// Checks a shard against the history.
fn holds_the_newest_or_nothing(shard: &Shard, history: &[Ghost]) -> Result<(), TestCaseError> {
    let progress = shard.progress(partition());
    let last = progress.last.seq();
    prop_assert!(progress.horizon <= progress.commit && progress.commit <= last);
    let mut newest = BTreeMap::new();
    for ghost in &history[..last as usize] {
        newest.insert(&ghost.key, ghost);
    }
    let mut found = BTreeMap::new();
    for record in records(shard, partition(), 0) {
        prop_assert!(
            found.insert(record.key.clone(), record).is_none(),
            "shown twice"
        );
    }
    prop_assert!(found.keys().all(|key| newest.contains_key(key)));
    for (key, ghost) in newest {
        match found.get(key) {
            // A follower that had dropped the value of a new deadline has forgotten the key at that version.
            Some(record) if record.data.is_none() && record.version == ghost.version => {}
            Some(record) => prop_assert_eq!(record, ghost),
            None => prop_assert!(
                ghost.version.seq() <= progress.horizon,
                "{} is lost above {}",
                ghost.version,
                progress.horizon
            ),
        }
    }
    Ok(())
}

/// The same mutations as effects, whichever command they came from.
fn apply(shard: &mut Shard, now: u64, ghost: &Ghost, only_deadline: bool) -> Result<(), Short> {
    let effect = match ghost.body() {
        Body::Tombstone => Effect::Delete,
        Body::Value(_) if only_deadline => Effect::Expire {
            expires_at_ms: ghost.deadline,
        },
        Body::Value(value) => Effect::Put {
            value,
            expires_at_ms: ghost.deadline,
        },
    };
    shard.apply(
        &turn(now),
        &Mutation {
            partition: partition(),
            version: ghost.version,
            effects: &[(&ghost.key, effect)],
        },
    )
}

#[expect(clippy::too_many_lines, reason = "one arm a step")]
fn lead_and_follow(
    policy: PolicyKind,
    rooms: [Room; 2],
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let [mut leader, mut follower] = rooms.map(|room| told(policy, room.bytes, room.items, 300));
    let p = partition();
    let mut now = 1_800_000_000_000;
    let mut history: Vec<Ghost> = Vec::new();
    // Of each mutation, whether it only changed a deadline.
    let mut only_deadline: VecDeque<bool> = VecDeque::new();
    for (n, step) in steps.into_iter().enumerate() {
        let at = |ttl: Option<u16>| ttl.map(|ttl| now + u64::from(ttl));
        let expiry = |ttl: Option<u16>| at(ttl).map_or(Expiry::Never, Expiry::At);
        let before = leader.progress(p).last;
        // The key that is written, its data, and its deadline as the leader answers it.
        let written = match step {
            Step::Set { key, len, ttl } => {
                let data: Vec<u8> = (0..len).map(|i| (i * 7 + n) as u8).collect();
                match run(&mut leader, now, &tagged(key), set(&data, expiry(ttl))) {
                    Reply::Stored { expires_at_ms, .. } => {
                        Some((key, Some(data), expires_at_ms, false))
                    }
                    Reply::Refused(Refusal::MemoryFull) => None,
                    other => panic!("a set is answered by {other:?}"),
                }
            }
            Step::Delete(key) => match run(&mut leader, now, &tagged(key), delete()) {
                Reply::Deleted | Reply::Missing => Some((key, None, None, false)),
                Reply::Refused(Refusal::MemoryFull) => None,
                other => panic!("a delete is answered by {other:?}"),
            },
            Step::Expire(key, ttl) => {
                let data = get(&mut leader, now, &tagged(key));
                let expiry = expiry(ttl);
                match run(&mut leader, now, &tagged(key), expire(expiry)) {
                    Reply::Stored {
                        version,
                        expires_at_ms,
                    } if version > before => Some((key, data, expires_at_ms, true)),
                    Reply::Stored { .. } | Reply::Missing | Reply::Refused(Refusal::MemoryFull) => {
                        None
                    }
                    other => panic!("an expire is answered by {other:?}"),
                }
            }
            Step::Increment(key) => {
                let (by, initial, expiry) = (3, 10, Expiry::Never);
                let increment = Operation::Increment {
                    by,
                    initial,
                    expiry,
                };
                match run(&mut leader, now, &tagged(key), increment) {
                    Reply::Counted {
                        value,
                        expires_at_ms,
                        ..
                    } => Some((
                        key,
                        Some(value.to_string().into_bytes()),
                        expires_at_ms,
                        false,
                    )),
                    Reply::Refused(_) => None,
                    other => panic!("an increment is answered by {other:?}"),
                }
            }
            Step::Get(key) => {
                let newest = history.iter().rfind(|ghost| ghost.key == tagged(key));
                let live = newest.filter(|ghost| ghost.deadline.is_none_or(|d| d > now));
                let expected = live.and_then(|ghost| ghost.data.clone());
                let found = get(&mut leader, now, &tagged(key));
                prop_assert!(found.is_none() || found == expected);
                None
            }
            Step::Commit(tenths) => {
                let Progress { last, commit, .. } = leader.progress(p);
                leader.commit(p, commit + (last.seq() - commit) * tenths / 10);
                let known = leader
                    .progress(p)
                    .commit
                    .min(follower.progress(p).last.seq());
                follower.commit(p, known);
                None
            }
            Step::Follow(count) => {
                for _ in 0..count {
                    let done = follower.progress(p).last.seq() as usize;
                    let Some(next) = history.get(done) else { break };
                    if apply(&mut follower, now, next, only_deadline[done]).is_err() {
                        prop_assert_eq!(follower.progress(p).last.seq() as usize, done);
                        break;
                    }
                }
                None
            }
            Step::Copy { full } => {
                let (source, from) = (leader.progress(p), follower.progress(p).last.seq());
                let (replace, above) = if full || from < source.horizon {
                    (Replace::All, 0)
                } else {
                    (Replace::Above(from), from)
                };
                let copy = records(&leader, p, above);
                let views: Vec<RecordView<'_>> = copy.iter().map(Kept::view).collect();
                let state = ReplicaState::default();
                let overdrawn = follower.install(&turn(now), p, replace, &views, source, &state);
                // It is given back where it can be.
                follower.surrender(overdrawn);
                prop_assert_eq!(follower.progress(p).last, source.last);
                None
            }
            Step::Pass(ms) => {
                now += u64::from(ms);
                None
            }
            Step::Sweep(steps) => {
                leader.sweep(now, steps);
                follower.sweep(now, steps + 3);
                None
            }
            Step::Shed { leader: it } => {
                if it { &mut leader } else { &mut follower }.shed(0, Cause::Pressure, 3);
                None
            }
            Step::Compact => {
                leader.compact();
                follower.compact();
                None
            }
        };
        let last = leader.progress(p).last;
        if let Some((key, data, deadline, of_deadline)) = written {
            prop_assert_eq!(last, before.next(), "what is answered is stamped");
            history.push(Kept {
                key: tagged(key),
                version: last,
                deadline,
                data,
            });
            only_deadline.push_back(of_deadline);
        } else {
            prop_assert_eq!(last, before, "what is refused is not stamped");
        }
        holds_the_newest_or_nothing(&leader, &history)?;
        holds_the_newest_or_nothing(&follower, &history)?;
        if n % 16 == 0 {
            leader.check();
            follower.check();
        }
    }
    // At the end the follower catches up as far as its room lets it.
    while let Some(next) = history.get(follower.progress(p).last.seq() as usize) {
        let of_deadline = only_deadline[next.version.seq() as usize - 1];
        if apply(&mut follower, now, next, of_deadline).is_err() {
            break;
        }
    }
    holds_the_newest_or_nothing(&follower, &history)
}

const ROOMY: Room = Room {
    bytes: u64::MAX / 4,
    items: u64::MAX / 4,
};

proptest! {
    #[test]
    fn with_room_both_hold_the_same(steps in prop::collection::vec(step(), 1..150), policy in 0..PolicyKind::ALL.len()) {
        lead_and_follow(PolicyKind::ALL[policy], [ROOMY, ROOMY], steps)?;
    }

    #[test]
    fn with_few_items_they_only_forget(steps in prop::collection::vec(step(), 1..150), policy in 0..PolicyKind::ALL.len(), items in (1u64..20, 1u64..20)) {
        let rooms = [Room { items: items.0, ..ROOMY }, Room { items: items.1, ..ROOMY }];
        lead_and_follow(PolicyKind::ALL[policy], rooms, steps)?;
    }

    #[test]
    fn with_few_bytes_they_only_forget(steps in prop::collection::vec(step(), 1..200), policy in 0..PolicyKind::ALL.len()) {
        let room = Room { bytes: 450_000, ..ROOMY };
        lead_and_follow(PolicyKind::ALL[policy], [room, room], steps)?;
    }
}

/// Every operation, and nothing dropped: what is executed and what is applied are the same to the last byte.
#[test]
fn applied_is_as_executed() {
    let now = 1_800_000_000_000;
    let unlimited = ROOMY.bytes;
    let [mut leader, mut follower] = [PolicyKind::Lru, PolicyKind::Lfu]
        .map(|policy| told(policy, unlimited, unlimited, usize::MAX));
    let mut seq = 0;
    let mut stamp =
        |leader: &mut Shard, key: &[u8], operation: Operation<'_>, effect: Effect<'_>| {
            run(leader, now, key, operation);
            seq += 1;
            let version = Version::new(1, seq);
            assert_eq!(leader.progress(partition()).last, version);
            let mutation = Mutation {
                partition: partition(),
                version,
                effects: &[(key, effect)],
            };
            follower.apply(&turn(now), &mutation).expect("room");
            let all = records(leader, partition(), 0);
            assert_eq!(all, records(&follower, partition(), 0));
            assert_eq!(follower.progress(partition()), leader.progress(partition()));
        };
    let put = |data: &'static [u8], expires_at_ms| Effect::Put {
        value: Value::from_slice(data),
        expires_at_ms,
    };
    let later = Some(now + 1000);
    let lifetime = Expiry::At(now + 1000);
    for key in [&b"{p}a"[..], &[b"{p}".as_slice(), &[b'.'; 400]].concat()] {
        for data in [&b"1"[..], &[7; 9000]] {
            stamp(&mut leader, key, set(data, Expiry::Never), put(data, None));
            let expire = |expiry, expires_at_ms| (expire(expiry), Effect::Expire { expires_at_ms });
            for (expiry, at) in [
                (lifetime, later),
                (Expiry::At(now + 5), Some(now + 5)),
                (Expiry::Never, None),
            ] {
                let (operation, effect) = expire(expiry, at);
                stamp(&mut leader, key, operation, effect);
            }
            stamp(&mut leader, key, set(data, lifetime), put(data, later));
            // Keeping the lifetime is decided by the leader.
            stamp(
                &mut leader,
                key,
                set(b"41", Expiry::Keep),
                put(b"41", later),
            );
            let increment = Operation::Increment {
                by: 1,
                initial: 0,
                expiry: Expiry::Never,
            };
            stamp(&mut leader, key, increment, put(b"42", later));
            stamp(&mut leader, key, delete(), Effect::Delete);
            stamp(&mut leader, key, delete(), Effect::Delete);
        }
    }
    leader.check();
    follower.check();
}
