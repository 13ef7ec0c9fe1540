//! What a start makes of snapshots that are not what they say, and how it tells of it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use henge_engine::persistence::frame::Damage;
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::log::{LogConfig, LogWriter};
use henge_engine::persistence::recovery::RecoveryError;
use henge_engine::persistence::snapshot::Builder;
use henge_engine::persistence::snapshot_file::SnapshotWriter;
use henge_engine::persistence::wal::Record;
use henge_engine::persistence::{Name, Position, Storage, StorageFile};
use henge_engine::{Body, PolicyKind, Progress as Come, RecordView};
use henge_wire::{Effect, Mutation, PARTITIONS, Partition, Value, Version};

use super::super::files::Files;
use super::super::persistence::SEGMENT_BYTES;
use super::super::repair::{self, Choice, Finding, Overlay, Plan};
use super::super::restore::restore;
use super::{Progress, Recovered, recover};
use crate::cache::{Cache, CacheConfig};
use crate::encryption::{Encryption, salt};

const KEY: &[u8] = b"key";

/// A directory of one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("henge-recovery-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn path(&self, name: Name) -> PathBuf {
        self.0.join(name.to_string())
    }

    fn recover(&self, progress: &Progress) -> Result<Recovered, RecoveryError> {
        let cache = Arc::new(Cache::new(&CacheConfig {
            max_size_bytes: 32 << 20,
            max_items: None,
            policy: PolicyKind::Lru,
            seed: 7,
            first: Version::ZERO,
            threads: 1,
            allocation_size: |bytes| bytes,
            remembers_departures: true,
        }));
        recover(&files(&self.0), &cache, 1, progress)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn files(path: &Path) -> Files {
    Files::new(path, Arc::new(Encryption::default()))
}

/// A part of a snapshot.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Piece {
    /// A record of this key in a block of the partition.
    Block(&'static [u8], Partition),
    /// A record of the key in a block so long that it is not compressed.
    Large,
    /// A partition ends, with so many records.
    End(Partition, u64),
    /// All does, with so many records.
    Complete(u64),
}

/// The parts of a snapshot of one record.
fn whole() -> Vec<Piece> {
    let own = Partition::of(KEY);
    let mut pieces = vec![Piece::Block(KEY, own)];
    pieces.extend(Partition::all().map(|one| Piece::End(one, u64::from(one == own))));
    pieces.push(Piece::Complete(1));
    pieces
}

/// Writes a snapshot whose record of the key has this seq.
fn write_snapshot(folder: &Folder, number: u64, seq: u64, pieces: &[Piece]) {
    let mut frames = Journal::default();
    let short = "it is short";
    let push = |key: &[u8], value: &[u8], partition, frames: &mut Journal| {
        let mut builder = Builder::default();
        let record = RecordView {
            key,
            version: Version::new(1, seq),
            expires_at_ms: None,
            body: Body::Value(Value::from_slice(value)),
        };
        builder.push(&record).expect(short);
        builder.finish(partition, frames).expect(short);
    };
    for piece in pieces {
        match *piece {
            Piece::Block(key, partition) => push(key, b"value", partition, &mut frames),
            Piece::Large => push(KEY, &vec![0; 1 << 20], Partition::of(KEY), &mut frames),
            Piece::End(partition, records) => {
                let last = Version::new(
                    1,
                    if partition == Partition::of(KEY) {
                        seq
                    } else {
                        0
                    },
                );
                let come = Come {
                    last,
                    commit: last.seq(),
                    horizon: 0,
                };
                Builder::partition(partition, come, records, &mut frames).expect(short);
            }
            Piece::Complete(records) => {
                Builder::complete(Position::default(), records, 77, &mut frames).expect(short);
            }
        }
    }
    let files = files(&folder.0);
    let mut writer = SnapshotWriter::begin(files.clone(), number, salt()).expect("there is room");
    writer.write(&mut frames).expect("there is room");
    drop(writer);
    files
        .rename(Name::unfinished(number), Name::snapshot(number))
        .expect("it was written");
}

/// A segment of the log with writes of the key, as a process leaves it that is killed: with room ahead.
fn write_segment(folder: &Folder, number: u64, seqs: RangeInclusive<u64>) {
    let versions = seqs.map(|seq| Version::new(1, seq));
    write_records(folder, number, Partition::of(KEY), versions);
}

/// The same with writes that say that the key is of this partition.
fn write_records(
    folder: &Folder,
    number: u64,
    partition: Partition,
    versions: impl Iterator<Item = Version>,
) {
    let mut journal = Journal::default();
    for version in versions {
        let effect = Effect::Put {
            value: Value::from_slice(b"newer"),
            expires_at_ms: None,
        };
        let mutation = Mutation {
            partition,
            version,
            effects: &[(KEY, effect)],
        };
        let written = Record::Mutation(mutation).encode(&mut journal);
        written.expect("it is short");
    }
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        ahead_bytes: 0,
    };
    let begun = LogWriter::begin(
        files(&folder.0),
        config,
        Box::new(salt),
        number,
        BTreeMap::new(),
    );
    let mut writer = begun.expect("there is room");
    writer.write(Some(journal)).expect("there is room");
}

/// Spoils the end of a snapshot.
fn damage(folder: &Folder, name: Name) {
    let path = folder.path(name);
    let mut bytes = fs::read(&path).expect("it is there");
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    fs::write(&path, bytes).expect("there is room");
}

/// What makes a snapshot a wrong one.
type Change = Box<dyn Fn(&mut Vec<Piece>)>;

/// All of it is one window, so nothing of this is found by who applies being behind.
#[test]
fn what_a_snapshot_says_of_itself_must_hold() {
    let own = Partition::of(KEY);
    let other = Partition::all().find(|one| *one != own).expect("another");
    let foreign = Piece::Block(KEY, other);
    let end = |pieces: &[Piece], of| {
        let is_end = |piece: &Piece| matches!(piece, Piece::End(partition, _) if *partition == of);
        pieces.iter().position(is_end).expect("it has one")
    };
    let changes: [(&str, Change); 10] = [
        (
            "behind the end of all",
            Box::new(move |pieces| pieces.push(Piece::End(own, 1))),
        ),
        (
            "ended twice",
            Box::new(|pieces| pieces.push(Piece::Complete(1))),
        ),
        (
            "no partition's end",
            Box::new(move |pieces| {
                pieces.remove(end(pieces, other));
            }),
        ),
        (
            "one ends twice",
            Box::new(move |pieces| pieces.insert(1, Piece::End(other, 0))),
        ),
        (
            "more records than there are",
            Box::new(move |pieces| {
                let at = end(pieces, own);
                pieces[at] = Piece::End(own, 2);
            }),
        ),
        (
            "fewer records than there are",
            Box::new(move |pieces| {
                let at = end(pieces, own);
                pieces[at] = Piece::End(own, 0);
            }),
        ),
        (
            "another number of all records",
            Box::new(|pieces| {
                let last = pieces.len() - 1;
                pieces[last] = Piece::Complete(2);
            }),
        ),
        (
            "records behind the end of their partition",
            Box::new(move |pieces| {
                let block = pieces.remove(0);
                let at = end(pieces, own) + 1;
                pieces.insert(at, block);
            }),
        ),
        (
            "a lost block",
            Box::new(|pieces| {
                pieces.remove(0);
            }),
        ),
        (
            "a key of another partition",
            Box::new(move |pieces| {
                pieces[0] = foreign;
                let (from, to) = (end(pieces, own), end(pieces, other));
                pieces[from] = Piece::End(own, 0);
                pieces[to] = Piece::End(other, 1);
            }),
        ),
    ];
    let folder = Folder::new();
    write_snapshot(&folder, 1, 1, &whole());
    write_segment(&folder, 1, 2..=2);
    let progress = Progress::default();
    let recovered = folder.recover(&progress).expect("it is whole");
    assert_eq!((recovered.restored, progress.records()), (1, 2));
    assert_eq!(whole().len(), 2 + usize::from(PARTITIONS));
    for (wrong, change) in &changes {
        let folder = Folder::new();
        let mut pieces = whole();
        change(&mut pieces);
        write_snapshot(&folder, 1, 1, &pieces);
        write_segment(&folder, 1, 2..=2);
        let outcome = folder.recover(&Progress::default());
        let error = outcome.expect_err(wrong);
        let is_of_it =
            matches!(error, RecoveryError::Damaged { name, .. } if name == Name::snapshot(1));
        assert!(is_of_it, "{wrong}: {error}");
    }
}

/// A repair finds what a start does, and what it makes of it starts; so does a restored directory.
#[test]
fn keys_of_another_partition_are_found_by_all() {
    let own = Partition::of(KEY);
    let other = Partition::all().find(|one| *one != own).expect("another");
    for in_log in [true, false] {
        let folder = Folder::new();
        let mut pieces = whole();
        if !in_log {
            pieces[0] = Piece::Block(KEY, other);
            for piece in &mut pieces {
                if let Piece::End(partition, records) = piece {
                    *records = u64::from(*partition == other);
                }
            }
        }
        write_snapshot(&folder, 1, 1, &pieces);
        if in_log {
            let first = Version::new(1, 1);
            write_records(&folder, 1, other, [first].into_iter());
        } else {
            write_segment(&folder, 1, 2..=2);
        }
        let error = folder.recover(&Progress::default());
        let error = error
            .expect_err("a key is of another partition")
            .to_string();
        let overlay = || Overlay::new(&folder.0, Encryption::default()).expect("it is there");
        match repair::find(&overlay()).expect("it is read") {
            Finding::Refuses(wrong) => assert_eq!(wrong, error),
            Finding::Starts(_) => panic!("it does not start: {error}"),
        }
        if !in_log {
            let to = Folder::new();
            let from = folder.path(Name::snapshot(1));
            let restored = restore(&from, &to.0, &Encryption::default(), &mut |_, _, _| {});
            assert!(restored.expect_err("it is damaged").is_damage());
        }
        for choice in [Choice::Skip, Choice::Cut] {
            let plan = Plan::make(overlay(), choice).expect("it can be mended");
            assert!(!plan.is_empty());
            if choice == Choice::Cut {
                plan.carry_out(&folder.0, None).expect("there is room");
            }
        }
        folder.recover(&Progress::default()).expect("it was mended");
    }
}

/// It is no damage, so nothing else is tried.
#[test]
fn who_is_told_to_stop_tries_no_older_snapshot() {
    let folder = Folder::new();
    write_snapshot(&folder, 1, 1, &whole());
    write_segment(&folder, 1, 2..=2);
    write_snapshot(&folder, 2, 2, &whole());
    let progress = Progress::default();
    progress.is_given_up.store(true, Relaxed);
    let error = folder.recover(&progress).expect_err("it was given up");
    assert!(error.to_string().contains("told to stop"), "{error}");
    let len = fs::metadata(folder.path(Name::snapshot(2))).map(|meta| meta.len());
    assert_eq!(
        progress.total_bytes.load(Relaxed),
        len.expect("it is there")
    );
}

/// What came of the older one tells nobody what to mend.
#[test]
fn where_an_older_snapshot_does_not_help_the_damage_of_the_newest_is_told() {
    let folder = Folder::new();
    write_snapshot(&folder, 1, 1, &whole());
    write_snapshot(&folder, 2, 2, &whole());
    write_segment(&folder, 2, 3..=3);
    damage(&folder, Name::snapshot(2));
    let error = folder
        .recover(&Progress::default())
        .expect_err("segment 1 is gone");
    assert!(
        matches!(
            error,
            RecoveryError::Damaged { name, damage: Damage::Checksum, .. } if name == Name::snapshot(2)
        ),
        "{error}"
    );
}

#[test]
fn progress_is_that_of_the_snapshot_that_is_loaded_and_comes_to_its_end() {
    let folder = Folder::new();
    write_snapshot(&folder, 1, 1, &whole());
    write_segment(&folder, 1, 2..=9);
    // Some of it is applied before its end is read, and nothing but that is wrong.
    let mut pieces = [&[Piece::Large; 5][..], &whole()[1..]].concat();
    for piece in &mut pieces {
        match piece {
            Piece::End(_, records @ 1) | Piece::Complete(records) => *records = 5,
            _ => {}
        }
    }
    write_snapshot(&folder, 2, 9, &pieces);
    damage(&folder, Name::snapshot(2));
    let progress = Progress::default();
    let recovered = folder.recover(&progress).expect("the older one is whole");
    assert_eq!(recovered.snapshot, Some(1));
    assert_eq!((recovered.restored, progress.records()), (1, 9));
    let share = progress.share();
    assert!((0.999_999..=1.0).contains(&share), "{share}");
    let (total, read) = (
        progress.total_bytes.load(Relaxed),
        progress.read_bytes.load(Relaxed),
    );
    assert_eq!(total, read);
    // The room ahead was cut off meanwhile.
    let segment = files(&folder.0).open(Name::segment(1));
    let left = segment.and_then(|file| file.len()).expect("it is there");
    assert!(left < SEGMENT_BYTES && total > SEGMENT_BYTES);
}
