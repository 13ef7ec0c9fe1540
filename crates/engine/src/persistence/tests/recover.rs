//! The recovery of a node from a disk, as a node does it: the newest snapshot, then the log after it.

use super::super::frame::Damage;
use super::super::recovery::{LogEnd, RecoveryError, read_log};
use super::super::snapshot::Part;
use super::super::snapshot_file::SnapshotReader;
use super::super::storage::{FileKind, Name, Position, Storage};
use super::super::wal;
use super::disk::Disk;
use super::keys::Keys;
use super::machine::USED_SHARDS;
use super::model::{Found, Item};
use crate::budget::{NoLender, Room, Turn};
use crate::partition::Progress;
use crate::policy::PolicyKind;
use crate::record::Body;
use crate::shard::{Cause, Commit, Replayed, Shard, ShardConfig};
use henge_wire::{Partition, Version};

/// How many shards a node would have, of which there are two: so they have few partitions, and a flush is few records.
const SHARDS: u16 = 256;
pub(super) const SEED: u64 = 42;

/// What differs between nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) segment_bytes: u64,
    pub(crate) commit: Commit,
    pub(crate) tombstone_bytes: usize,
    pub(crate) room: Room,
    /// Whether values may have long runs of zeros, which damage can be mistaken for a torn write in.
    pub(crate) has_zeros: bool,
    pub(crate) keys: Keys,
}

impl Settings {
    /// Small segments, room for everything.
    pub(crate) const DEFAULT: Self = Self {
        segment_bytes: 4_096,
        commit: Commit::AtOnce,
        tombstone_bytes: 0,
        room: Room {
            bytes: 64 << 20,
            items: u64::MAX,
        },
        has_zeros: false,
        keys: Keys::NONE,
    };

    /// Whether there may be more items than there is room for.
    pub(crate) fn evicts(&self) -> bool {
        self.room.items < u64::MAX
    }
}

/// The partitions of the shards that there are.
pub(crate) fn partitions() -> Vec<Partition> {
    Partition::all()
        .filter(|partition| partition.number() % SHARDS < USED_SHARDS)
        .collect()
}

/// The shard of a partition.
pub(super) fn shard_of(partition: Partition) -> usize {
    usize::from(partition.number() % SHARDS)
}

pub(crate) fn turn(now_ms: u64) -> Turn<'static> {
    let most = Room {
        bytes: u64::MAX,
        items: u64::MAX,
    };
    Turn {
        now_ms,
        lender: &NoLender,
        fair: Room::default(),
        cause: Cause::Size,
        limit: most,
    }
}

pub(crate) fn new_shards(settings: &Settings) -> Vec<Shard> {
    let shards = (0..USED_SHARDS).map(|index| {
        let mut shard = Shard::new(ShardConfig {
            index,
            shards: SHARDS,
            policy: PolicyKind::Lru,
            seed: SEED,
            first: Version::new(1, 0),
            commit: settings.commit,
            tombstone_bytes: settings.tombstone_bytes,
            allocation_size: |bytes| bytes,
        });
        shard.grant(settings.room);
        shard
    });
    shards.collect()
}

/// What shards hold.
pub(crate) fn found_in(shards: &[Shard]) -> Found {
    let mut found = Found::default();
    for partition in partitions() {
        let shard = &shards[shard_of(partition)];
        let Progress { last, horizon, .. } = shard.progress(partition);
        found.last.insert(partition.number(), last);
        found.horizon.insert(partition.number(), horizon);
        let mut place = 0;
        loop {
            place = shard.scan_records(partition, 0, place, |record| {
                let key = record.key.to_vec();
                match &record.body {
                    Body::Value(value) => {
                        let item = Item {
                            data: value.data.to_vec(),
                            deadline: record.expires_at_ms,
                            version: record.version,
                        };
                        found.items.insert(key, item);
                    }
                    Body::Tombstone => drop(found.tombstones.insert(key, record.version)),
                }
            });
            if place == 0 {
                break;
            }
        }
    }
    found
}

/// What a recovery has found.
pub(crate) struct Recovered {
    pub(crate) shards: Vec<Shard>,
    pub(crate) end: LogEnd,
    /// The number of the snapshot that it began with.
    pub(crate) snapshot: Option<u64>,
    /// Partitions that were forgotten as a part of the log is missing.
    pub(crate) forgotten: usize,
    /// Records that there was no room for.
    pub(crate) without_room: usize,
}

/// Makes the shards again of what is on a disk.
pub(crate) fn recover(
    disk: &Disk,
    settings: &Settings,
    now_ms: u64,
) -> Result<Recovered, RecoveryError> {
    let mut shards = new_shards(settings);
    let mut without_room = 0;
    let io = |error| RecoveryError::Io(None, error);
    let names = disk.names().map_err(io)?;
    for name in &names {
        if name.kind == FileKind::Unfinished {
            disk.remove(*name).map_err(io)?;
        }
    }
    let newest = names
        .iter()
        .rfind(|name| name.kind == FileKind::Snapshot)
        .copied();
    let mut needed = Position::default();
    if let Some(name) = newest {
        (needed, without_room) = restore(disk, name, &mut shards, now_ms)?;
    }
    let snapshot = newest.map(|name| name.number);
    let mut show = |segment, offset, body: &[u8]| {
        let name = Name::segment(segment);
        let damaged = |damage| RecoveryError::Damaged {
            name,
            offset,
            damage,
        };
        let mut effects = Vec::new();
        let partition = wal::partition_of(body).map_err(damaged)?;
        let record = wal::decode(body, &mut effects).map_err(damaged)?;
        let of = partition.map(shard_of);
        for (n, shard) in shards.iter_mut().enumerate() {
            if of.is_some_and(|of| of != n) {
                continue;
            }
            let replayed = shard.replay(&turn(now_ms), &record);
            let replayed = replayed.map_err(|not_next| RecoveryError::Order {
                name,
                offset,
                detail: not_next.to_string(),
            })?;
            let replayed = replayed.expect("a shard without a fair share is never short");
            without_room += usize::from(replayed == Replayed::Forgotten);
        }
        Ok(())
    };
    let mut end = read_log(disk, snapshot.unwrap_or(1), needed, &mut |chunk| {
        let mut bodies = chunk.bodies();
        bodies.try_for_each(|(offset, body)| show(chunk.segment, offset, body))
    })?;
    end.settle(disk)?;
    if let Some(number) = snapshot {
        let io = |error| RecoveryError::Io(None, error);
        for name in disk.names().map_err(io)? {
            if name.kind == FileKind::Snapshot && name.number < number {
                disk.remove(name).map_err(io)?;
            }
        }
        end.remove_covered(disk, number).map_err(io)?;
    }
    let forgotten = shards.iter_mut().map(Shard::finish_recovery).sum();
    for shard in &shards {
        shard.check();
    }
    Ok(Recovered {
        shards,
        end,
        snapshot,
        forgotten,
        without_room,
    })
}

fn restore(
    disk: &Disk,
    name: Name,
    shards: &mut [Shard],
    now_ms: u64,
) -> Result<(Position, usize), RecoveryError> {
    let mut scratch = Vec::new();
    let mut complete = None;
    let mut without_room = 0;
    let (mut of_partition, mut of_all) = (0, 0);
    SnapshotReader::open(disk, name)?.read_all(|_, part| {
        match part {
            Part::Replica { .. } => return Err(Damage::Parts("it is of a node that replicates")),
            Part::Block(block) => {
                let shard = &mut shards[shard_of(block.partition)];
                of_partition += u64::from(block.records);
                return block.records(&mut scratch, |record| {
                    let restored = shard.restore(&turn(now_ms), block.partition, &record);
                    let restored = restored.expect("a shard without a fair share is never short");
                    without_room += usize::from(restored == Replayed::Forgotten);
                });
            }
            Part::Partition {
                partition,
                progress,
                records,
            } => {
                if records != of_partition {
                    return Err(Damage::Unknown("number of records", records));
                }
                of_all += std::mem::take(&mut of_partition);
                shards[shard_of(partition)].resume(partition, progress);
            }
            Part::Complete {
                position, records, ..
            } => {
                if records != of_all {
                    return Err(Damage::Unknown("number of records", records));
                }
                complete = Some(position);
            }
        }
        Ok(())
    })?;
    Ok((complete.expect("it was read to its end"), without_room))
}
