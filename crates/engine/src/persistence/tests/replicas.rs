//! The files of a node that replicates: format 2, from a shard's journal through segments and a snapshot to a shard.

use super::super::frame::{FORMAT, Header, REPLICA_FORMAT};
use super::super::inventory::Inventory;
use super::super::journal::Journal;
use super::super::log::{LogConfig, LogWriter};
use super::super::recovery::read_log;
use super::super::snapshot::{Builder, Part};
use super::super::snapshot_file::{SnapshotReader, SnapshotWriter};
use super::super::storage::{FileKind, Name, Position, Storage};
use super::super::wal;
use super::disk::{Disk, DiskFile};
use super::recover::turn;
use crate::budget::Room;
use crate::partition::{Progress, ReplicaState};
use crate::policy::PolicyKind;
use crate::record::Body;
use crate::shard::{Commit, Recovered, Shard, ShardConfig};
use henge_wire::{Effect, Mutation, Partition, Value, Version};
use std::collections::BTreeMap;
use std::io;

/// A disk of a node that replicates.
#[derive(Clone, Default)]
struct Replicating(Disk);

impl Storage for Replicating {
    type File = DiskFile;

    fn names(&self) -> io::Result<Vec<Name>> {
        self.0.names()
    }

    fn create(&self, name: Name, len: u64) -> io::Result<DiskFile> {
        self.0.create(name, len)
    }

    fn open(&self, name: Name) -> io::Result<DiskFile> {
        self.0.open(name)
    }

    fn rename(&self, from: Name, to: Name) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: Name) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.sync_names()
    }

    fn format(&self) -> u16 {
        REPLICA_FORMAT
    }
}

fn shard() -> Shard {
    shard_of(Commit::Told)
}

fn shard_of(commit: Commit) -> Shard {
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
    shard.grant(Room {
        bytes: 64 << 20,
        items: u64::MAX,
    });
    shard
}

fn partition() -> Partition {
    Partition::of(b"k")
}

fn put(shard: &mut Shard, term: u32, seq: u64, effect: Effect<'_>) {
    let mutation = Mutation {
        partition: partition(),
        version: Version::new(term, seq),
        effects: &[(b"k", effect)],
    };
    shard.apply(&turn(1), &mutation).expect("there is room");
}

fn value(data: &[u8]) -> Effect<'_> {
    Effect::Put {
        value: Value::from_slice(data),
        expires_at_ms: None,
    }
}

fn take(shard: &mut Shard) -> Vec<Journal> {
    let mut batch = Vec::new();
    shard.take_journal(1, Journal::default(), &mut batch);
    shard.note_kept(1);
    batch
}

/// What a shard makes of a disk, from the newest snapshot on or without it.
fn recover(disk: &Replicating, with_snapshot: bool) -> Recovered {
    let shard = replayed(disk, with_snapshot, shard());
    shard.recovered(partition())
}

/// The same with a shard of either kind.
fn replayed(disk: &Replicating, with_snapshot: bool, mut shard: Shard) -> Shard {
    let mut needed = Position::default();
    let names = disk.names().expect("nothing fails");
    let snapshot = names.iter().rfind(|name| name.kind == FileKind::Snapshot);
    if let Some(&name) = snapshot.filter(|_| with_snapshot) {
        let mut inventory = Inventory::default();
        let reader = SnapshotReader::open(disk, name).expect("it is whole");
        assert_eq!(reader.header().format, REPLICA_FORMAT);
        let read = reader.read_all(|_, part| {
            inventory.take(&part)?;
            match part {
                Part::Replica {
                    partition,
                    commit,
                    state,
                } => shard.begin_restore(partition, name.number, commit, state),
                Part::Block(block) => block.own_records(&mut Vec::new(), |record| {
                    shard
                        .restore(&turn(1), block.partition, &record)
                        .expect("there is room");
                })?,
                Part::Partition {
                    partition,
                    progress,
                    ..
                } => shard.resume(partition, progress),
                Part::Complete { position, .. } => needed = position,
            }
            Ok(())
        });
        read.expect("it is whole");
        assert!(inventory.is_complete());
    }
    let read = read_log(disk, 1, needed, &mut |chunk| {
        for (_, body) in chunk.bodies() {
            let mut effects = Vec::new();
            let record = wal::decode(body, &mut effects).expect("it was written so");
            let replayed = shard.replay(&turn(1), &record).expect("it follows");
            replayed.expect("there is room");
        }
        Ok(())
    });
    read.expect("it is whole");
    shard.finish_recovery();
    shard.check();
    shard
}

/// A key is written and deleted, that is committed, and the tombstone is dropped; the snapshot has neither, and the log has the
/// write. Who replays it onto the snapshot has the key again.
#[test]
fn what_a_snapshot_has_is_not_replayed_onto_it() {
    let disk = Replicating::default();
    let config = LogConfig {
        segment_bytes: 4_096,
        ahead_bytes: 0,
    };
    let salts = Box::new(|| [7; 16]);
    let begun = LogWriter::begin(disk.clone(), config, salts, 1, BTreeMap::new());
    let mut log = begun.expect("nothing fails");
    let mut shard = shard();
    shard.start_journal();
    let state = ReplicaState {
        adopted: 3,
        generation: 2,
        history: vec![(3, 1)],
    };
    shard.align(partition(), 3, &state);
    put(&mut shard, 3, 1, value(b"old"));
    put(&mut shard, 3, 2, Effect::Delete);
    shard.commit(partition(), 2);
    let mut write = |shard: &mut Shard| {
        for journal in take(shard) {
            log.write(Some(journal)).expect("nothing fails");
        }
        log.sync().expect("nothing fails");
        log.end()
    };
    write(&mut shard);
    // In the same segment: the records before are read again.
    let mut writer = SnapshotWriter::begin(disk.clone(), 1, [8; 16]).expect("nothing fails");
    let (mut builder, mut out) = (Builder::default(), Journal::default());
    for of in Partition::all() {
        let scan = shard.begin_scan(of, 1);
        if let Some(state) = &scan.state {
            Builder::replica(of, scan.before().commit, state, &mut out).expect("it is short");
        }
        let mut place = 0;
        loop {
            place = shard.scan_records(of, 0, place, |record| {
                builder.push(&record).expect("it is short");
            });
            if place == 0 {
                break;
            }
        }
        let progress = shard.end_scan(of, &scan);
        builder.finish(of, &mut out).expect("it is short");
        Builder::partition(of, progress, 0, &mut out).expect("it is short");
    }
    writer.write(&mut out).expect("nothing fails");
    let position = write(&mut shard);
    writer.finish(position, 0, 0).expect("nothing fails");
    let progress = |seq, commit, horizon| Progress {
        last: Version::new(3, seq),
        commit,
        horizon,
    };
    let found = recover(&disk, true);
    assert_eq!(found.progress, progress(2, 2, 2));
    assert_eq!((&found.state, found.has_lost_memory), (&state, false));
    // Of the log alone: that 2 was committed nothing in it says.
    let found = recover(&disk, false);
    assert_eq!(found.progress, progress(2, 0, 0));
    put(&mut shard, 3, 3, value(b"new"));
    write(&mut shard);
    assert_eq!(recover(&disk, true).progress, progress(3, 2, 2));
    assert_eq!(recover(&disk, false).progress, progress(3, 2, 0));
    let bytes = disk.0.bytes(Name::segment(1));
    let header = Header::decode(&bytes).expect("it is whole");
    assert_eq!(header.format, REPLICA_FORMAT);
    assert_ne!(header.format, FORMAT);
}

/// A node by itself becomes one of several, and is by itself again in the end. Whoever reads its log, from whichever moment on, has all
/// that it had, and shares a history with nobody of before.
#[test]
fn a_log_tells_who_had_a_partition() {
    let disk = Replicating::default();
    let config = LogConfig {
        segment_bytes: 4_096,
        ahead_bytes: 0,
    };
    let salts = Box::new(|| [7; 16]);
    let begun = LogWriter::begin(disk.clone(), config, salts, 1, BTreeMap::new());
    let mut log = begun.expect("nothing fails");
    let mut write = |shard: &mut Shard| {
        for journal in take(shard) {
            log.write(Some(journal)).expect("nothing fails");
        }
        log.sync().expect("nothing fails");
    };
    let kept = |shard: &Shard| {
        let (mut data, mut place) = (Vec::new(), 0);
        loop {
            place = shard.scan_records(partition(), 0, place, |record| {
                if let Body::Value(value) = record.body {
                    data.push((record.version, value.data.to_vec()));
                }
            });
            if place == 0 {
                return data;
            }
        }
    };

    // By itself.
    let mut shard = shard_of(Commit::AtOnce);
    shard.start_journal();
    put(&mut shard, 1, 1, value(b"alone"));
    write(&mut shard);
    let again = replayed(&disk, false, shard_of(Commit::AtOnce));
    assert_eq!(again.progress(partition()).commit, 1);
    let of_a_cluster = |mut shard: Shard| {
        shard.replicate(|_| 0);
        shard.recovered(partition())
    };
    let found = of_a_cluster(again);
    assert_eq!((found.state.generation, found.state.adopted), (0, 1));

    // One of several, in the generation in which it has served.
    shard.replicate(|_| 4);
    let mut state = shard.recovered(partition()).state;
    assert_eq!((state.generation, state.adopted), (4, 1));
    assert!(state.history.is_empty());
    (state.adopted, state.history) = (6, vec![(6, 2)]);
    shard.align(partition(), 6, &state);
    put(&mut shard, 6, 2, value(b"replicated"));
    write(&mut shard);
    let again = replayed(&disk, false, shard_of(Commit::AtOnce));
    assert_eq!(kept(&again), [(Version::new(6, 2), b"replicated".to_vec())]);
    // Of its own it has committed one, of the other it does not know.
    assert_eq!(again.progress(partition()).commit, 1);
    let found = of_a_cluster(again);
    assert_eq!((&found.state, found.has_lost_memory), (&state, false));

    // By itself again. What it goes on with is in the same order.
    let mut shard = replayed(&disk, false, shard_of(Commit::AtOnce));
    shard.stand_alone(|_| 4);
    shard.start_journal();
    assert_eq!(shard.progress(partition()).commit, 2);
    put(&mut shard, 6, 3, value(b"again"));
    write(&mut shard);
    let again = replayed(&disk, false, shard_of(Commit::AtOnce));
    assert_eq!(kept(&again), [(Version::new(6, 3), b"again".to_vec())]);
    assert_eq!(again.progress(partition()).commit, 3);
    assert!(of_a_cluster(again).state.history.is_empty());

    // One of a generation that is over counts for nothing.
    let mut shard = shard_of(Commit::AtOnce);
    shard.replicate(|_| 4);
    put(&mut shard, 1, 1, value(b"old"));
    shard.stand_alone(|_| 5);
    assert_eq!(kept(&shard), []);
}
