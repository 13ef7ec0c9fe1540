//! What is read of a backup, as records in batches.

use std::collections::BTreeMap;
use std::path::PathBuf;

use henge_engine::persistence::Position;
use henge_engine::persistence::snapshot_file::SnapshotWriter;
use henge_engine::{Body, Progress};
use henge_wire::{Data, Value};

use super::*;
use crate::disk::one_file::OneFile;

/// A backup that goes with its test.
struct Backup(PathBuf);

impl Drop for Backup {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Of these records: key, version, and the value, or none of a key that was deleted.
fn backup(name: &str, records: &[(String, u64, Option<String>)]) -> Backup {
    let path = std::env::temp_dir().join(format!("henge-batches-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let file = OneFile::new(&path, Encryption::default(), false);
    let mut writer = SnapshotWriter::begin(file, 1, [1; 16]).expect("there is room");
    let mut frames = Journal::default();
    for partition in Partition::all() {
        let mut count = 0;
        for (key, seq, value) in records {
            if Partition::of(key.as_bytes()) != partition {
                continue;
            }
            let mut builder = Builder::default();
            let body = value.as_ref().map_or(Body::Tombstone, |value| {
                Body::Value(Value::raw(Data::Slice(value.as_bytes())))
            });
            let record = RecordView {
                key: key.as_bytes(),
                version: Version::new(1, *seq),
                expires_at_ms: None,
                body,
            };
            builder.push(&record).expect("it is short");
            builder.finish(partition, &mut frames).expect("it is short");
            count += 1;
        }
        let progress = Progress {
            last: Version::new(1, 1_000),
            commit: 1_000,
            horizon: 0,
        };
        Builder::partition(partition, progress, count, &mut frames).expect("it is short");
    }
    writer.write(&mut frames).expect("there is room");
    let finished = writer.finish(Position::default(), records.len() as u64, 77);
    finished.expect("there is room");
    Backup(path)
}

/// The records of a batch.
fn records(batch: &Batch) -> Vec<(String, u64)> {
    let (mut records, mut scratch) = (Vec::new(), Vec::new());
    batch.blocks(|block| {
        let read = block.own_records(&mut scratch, |record| {
            let key = String::from_utf8(record.key.to_vec()).expect("it is text");
            records.push((key, record.version.seq()));
        });
        read.expect("they are whole");
    });
    assert_eq!(records.len(), batch.records);
    records
}

#[test]
fn of_a_key_that_is_there_twice_the_newest_record_is_read() {
    let mut all = Vec::new();
    for number in 0..3_000 {
        all.push((format!("key{number}"), 1, Some("value".to_owned())));
    }
    // The newest first, last, and a deletion.
    all.push(("key7".to_owned(), 9, Some("newer".to_owned())));
    all.insert(0, ("key8".to_owned(), 9, Some("newer".to_owned())));
    all.push(("key9".to_owned(), 9, None));
    all.push(("key9".to_owned(), 5, Some("older".to_owned())));
    let backup = backup("repeated", &all);
    let encryption = Encryption::default();
    let checked = check(&backup.0, &encryption, &mut |_, _, _| ()).expect("it is whole");
    assert_eq!((checked.records, checked.at_ms), (3_004, 77));
    let (mut found, mut older, mut batches) = (BTreeMap::new(), 0, 0);
    let read = read(&backup.0, &encryption, &checked, &mut |shown| {
        match shown {
            Shown::Older(count) => older += count,
            Shown::Batch(batch) => {
                batches += 1;
                assert!(batch.records < 2 * ENOUGH_RECORDS, "{}", batch.records);
                for (key, seq) in records(&batch) {
                    assert_eq!(found.insert(key.clone(), seq), None, "{key}");
                }
            }
        }
        ControlFlow::Continue(())
    });
    read.expect("it is whole");
    assert_eq!((found.len(), older, batches), (3_000, 4, 6));
    for (key, seq) in found {
        let is_newer = ["key7", "key8", "key9"].contains(&&*key);
        assert_eq!(seq, if is_newer { 9 } else { 1 }, "{key}");
    }
}

#[test]
fn some_of_a_batch_is_a_batch() {
    let all: Vec<(String, u64, Option<String>)> = (0..100)
        .map(|number| (format!("key{number}"), number + 1, Some("value".repeat(10))))
        .collect();
    let backup = backup("some", &all);
    let encryption = Encryption::default();
    let checked = check(&backup.0, &encryption, &mut |_, _, _| ()).expect("it is whole");
    let mut batches = Vec::new();
    let read = read(&backup.0, &encryption, &checked, &mut |shown| {
        if let Shown::Batch(batch) = shown {
            batches.push(batch);
        }
        ControlFlow::Continue(())
    });
    read.expect("it is whole");
    let [batch] = &batches[..] else {
        panic!("{} batches", batches.len());
    };
    let whole = records(batch);
    let places = HashSet::from([0, 7, 99]);
    let some = batch.only(&places);
    let expected = [0, 7, 99].map(|place: usize| whole[place].clone());
    assert_eq!(records(&some), expected);
    assert_eq!(batch.key(7), Some(whole[7].0.clone().into_bytes()));
    assert_eq!(batch.key(100), None);
}
