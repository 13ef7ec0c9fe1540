//! GETs and SETs on a shard, by itself and as the table of a replica that is alone: what the protocol costs where there is
//! nobody to agree with. `cargo xtask bench one-replica` counts the instructions of both; `cargo test` has a tiny run of it, so that it does not
//! rot.
//!
//! ```text
//! one_replica shard|replica get|set OPERATIONS
//! ```

use henge_cluster::replica::{Input, Output, Progress, Replica, State, View};
use henge_cluster::ring::NodeId;
use henge_cluster::store::{PartitionTable, Store};
use henge_cluster::topology::Placement;
use henge_engine::persistence::journal::Journal;
use henge_engine::{Cause, Commit, NoLender, PolicyKind, Room, Shard, ShardConfig, Turn};
use henge_wire::{Command, Expiry, Operation, Partition, Precondition, Reply, Value, Version};
use std::hint::black_box;
use std::sync::Arc;

const ROOM: Room = Room {
    bytes: 64 << 20,
    items: 1 << 20,
};
const TURN: Turn<'static> = Turn {
    now_ms: 1_800_000_000_000,
    lender: &NoLender,
    fair: Room { bytes: 0, items: 0 },
    limit: ROOM,
    cause: Cause::Size,
};
/// All of one partition.
const KEYS: u32 = 4_096;
/// As often as a data thread hands its journal over in a pipeline of so many commands.
const ROUND: u32 = 64;

fn main() {
    // Without what cargo adds.
    let arguments = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let arguments: Vec<String> = arguments.collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [
            way @ ("shard" | "replica"),
            operation @ ("get" | "set"),
            count,
        ] => {
            let count = count.parse().expect("a number of operations");
            run(way == "replica", operation == "set", count);
        }
        // By `cargo test` or `cargo bench`, with options of theirs.
        _ => {
            for (replicated, sets) in [(false, false), (false, true), (true, false), (true, true)] {
                run(replicated, sets, 100);
            }
        }
    }
}

fn run(replicated: bool, sets: bool, count: u32) {
    let partition = Partition::of(b"{p}");
    let mut shard = Shard::new(ShardConfig {
        index: 0,
        shards: 1,
        policy: PolicyKind::Lru,
        seed: 42,
        first: Version::ZERO,
        commit: if replicated {
            Commit::Told
        } else {
            Commit::AtOnce
        },
        tombstone_bytes: 0,
        allocation_size: |bytes| bytes,
    });
    shard.grant(ROOM);
    shard.start_journal();
    let mut replica = replicated.then(|| alone(&mut shard, partition));
    let keys: Vec<Vec<u8>> = (0..KEYS)
        .map(|n| format!("{{p}}:{n:012}").into_bytes())
        .collect();
    let mut round = Round::default();
    for key in &keys {
        serve(replica.as_mut(), &mut shard, partition, key, true);
        round.pass(&mut shard);
    }
    let mut state = 1_u32;
    for _ in 0..count {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = &keys[(state >> 20) as usize % keys.len()];
        serve(replica.as_mut(), &mut shard, partition, key, sets);
        round.pass(&mut shard);
    }
}

/// One that leads its partition, and is open.
fn alone(shard: &mut Shard, partition: Partition) -> Replica<Store> {
    let me = NodeId(1);
    let mut replica = Replica::new(me, 1, State::default(), Progress::default());
    let view = View {
        placement: Arc::new(Placement {
            term: 1,
            generation: 1,
            leader: Some((me, 1)),
            leads_since: 1,
            old: vec![me],
            voters: [me].into_iter().collect(),
            ..Placement::default()
        }),
        incarnations: [(me, 1)].into_iter().collect(),
        up: vec![me],
    };
    let mut table = PartitionTable::new(shard, partition, TURN);
    replica.handle(&mut table, TURN.now_ms, Input::View(view));
    while !replica.is_alone() {
        let written = replica.written(&table);
        replica.handle(&mut table, TURN.now_ms, Input::Kept(written));
        while let Some(output) = replica.poll() {
            assert!(matches!(output, Output::Opened(_)), "{output:?}");
        }
    }
    replica
}

/// What a node does with a request once it has the shard: where there is a replica it asks that whether it may.
fn serve(
    replica: Option<&mut Replica<Store>>,
    shard: &mut Shard,
    partition: Partition,
    key: &[u8],
    sets: bool,
) {
    let operation = if sets {
        Operation::Set {
            value: Value::from_slice(&[b'x'; 64]),
            expiry: Expiry::Never,
            precondition: Precondition::NONE,
        }
    } else {
        Operation::Get
    };
    let command = Command { key, operation };
    let hash = shard.hash(key);
    if let Some(replica) = replica
        && !black_box(replica).is_alone()
    {
        unreachable!("nobody joins it");
    }
    let reply = shard.execute(&TURN, partition, hash, &command);
    let reply = reply.expect("there is room");
    assert!(matches!(reply, Reply::Found(_) | Reply::Stored { .. }));
    black_box(shard.is_unkept());
}

/// The journal is handed over now and then, and is kept.
#[derive(Default)]
struct Round {
    passed: u32,
    number: u64,
    empty: Journal,
    taken: Vec<Journal>,
}

impl Round {
    fn pass(&mut self, shard: &mut Shard) {
        self.passed += 1;
        if self.passed.is_multiple_of(ROUND) {
            self.number += 1;
            shard.take_journal(
                self.number,
                std::mem::take(&mut self.empty),
                &mut self.taken,
            );
            shard.note_kept(self.number);
            self.taken.clear();
        }
    }
}
