//! A trace through the store of a node: one shard, with all the room that the simulated cache has.

use henge_engine::{
    Cause, Commit, KeyHasher, NoLender, PolicyKind, Room, Shard, ShardConfig, Turn,
};
use henge_wire::{Command, Expiry, Operation, Partition, Precondition, Reply, Value, Version};

use super::Capacity;
use super::trace::Trace;
use crate::allocator;

/// No limit that a trace could reach, and far from where sums overflow.
const UNLIMITED: u64 = u64::MAX / 4;

/// How many of a trace's accesses find their key.
pub(super) fn hits(trace: &Trace, policy: PolicyKind, capacity: Capacity, seed: u64) -> u64 {
    let mut shard = Shard::new(ShardConfig {
        index: 0,
        shards: 1,
        policy,
        seed,
        first: Version::new(1, 0),
        commit: Commit::AtOnce,
        tombstone_bytes: 0,
        allocation_size: allocator::rounded_size,
    });
    let room = match capacity {
        Capacity::Items(items) => Room {
            bytes: UNLIMITED,
            items,
        },
        Capacity::Bytes(size) => Room {
            bytes: size.as_u64(),
            items: UNLIMITED,
        },
    };
    shard.grant(room);
    let turn = Turn {
        now_ms: 1,
        lender: &NoLender,
        fair: Room::default(),
        limit: room,
        cause: Cause::Size,
    };
    let hasher = KeyHasher::new(seed);
    let mut zeros = Vec::new();
    for at in 0..trace.accesses().len() {
        let key = trace.key(at);
        let (partition, hash) = (Partition::of(key), hasher.hash(key));
        let mut run = |operation| {
            let command = Command { key, operation };
            let reply = shard.execute(&turn, partition, hash, &command);
            matches!(reply, Ok(Reply::Found(_)))
        };
        if run(Operation::Get) {
            continue;
        }
        // In a cache of items all of them count the same, so their values need not be made.
        let len = match capacity {
            Capacity::Items(_) => 0,
            Capacity::Bytes(size) if trace.size(at) > size.as_u64() => continue,
            Capacity::Bytes(_) => trace.size(at) as usize,
        };
        if zeros.len() < len {
            zeros.resize(len, 0);
        }
        // A value that does not fit is refused, and its key stays a miss.
        run(Operation::Set {
            value: Value::from_slice(&zeros[..len]),
            expiry: Expiry::Never,
            precondition: Precondition::NONE,
        });
    }
    shard.stats().hits
}
