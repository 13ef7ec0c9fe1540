//! What must hold for every file that the log or a snapshot is read from, whatever is in it.

pub(crate) mod files;
pub(crate) mod log;
pub(crate) mod snapshot;

use henge_engine::{Cause, Commit, NoLender, PolicyKind, Room, Shard, ShardConfig, Turn};
use henge_wire::Version;

/// A shard that evicts and forgets, as it has room for little; of a lone node, or of one that replicates.
fn with_little_room(commit: Commit) -> (Shard, Turn<'static>) {
    let mut shard = Shard::new(ShardConfig {
        index: 0,
        shards: 1,
        policy: PolicyKind::Lru,
        seed: 1,
        first: Version::ZERO,
        commit,
        tombstone_bytes: 0,
        allocation_size: |bytes| bytes,
    });
    let room = Room {
        bytes: 512 << 10,
        items: 100,
    };
    shard.grant(room);
    let turn = Turn {
        now_ms: 1,
        lender: &NoLender,
        fair: Room::default(),
        limit: room,
        cause: Cause::Size,
    };
    (shard, turn)
}
