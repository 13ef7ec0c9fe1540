//! Snapshots as files: blocks that are longer than what is read at once, and files that change while they are read.

use super::super::frame::{Damage, HEAD_BYTES};
use super::super::journal::Journal;
use super::super::recovery::RecoveryError;
use super::super::snapshot::{Builder, Part};
use super::super::snapshot_file::{SnapshotReader, SnapshotWriter};
use super::super::storage::{Name, Position};
use super::disk::{Disk, Faults};
use super::keys::Keys;
use super::random::Random;
use crate::partition::Progress;
use crate::record::Body;
use crate::shard::RecordView;
use henge_wire::{Data, Partition, Value, Version};

/// Values of these lengths, in order; what is in them tells their number.
const LENGTHS: [usize; 9] = [
    10, 300_000, 100, 5_000_000, 2_097_152, 40, 131_072, 2_500_000, 3,
];

fn data(number: usize) -> Vec<u8> {
    Random::new(number as u64).bytes(LENGTHS[number])
}

fn written(disk: &Disk) -> Name {
    let partition = Partition::new(3).expect("a partition");
    let mut writer = SnapshotWriter::begin(disk.clone(), 9, [1; 16]).expect("nothing fails");
    let (mut builder, mut frames) = (Builder::default(), Journal::default());
    for number in 0..LENGTHS.len() {
        let record = RecordView {
            key: &number.to_le_bytes(),
            version: Version::new(1, 1 + number as u64),
            expires_at_ms: None,
            body: Body::Value(Value::raw(Data::Shared(data(number).into()))),
        };
        builder.push(&record).expect("it is short");
        if builder.is_full() {
            builder.finish(partition, &mut frames).expect("it is short");
        }
        if number % 3 == 2 {
            writer.write(&mut frames).expect("nothing fails");
            frames.clear(0);
        }
    }
    builder.finish(partition, &mut frames).expect("it is short");
    let progress = Progress {
        last: Version::new(1, 9),
        commit: 9,
        horizon: 0,
    };
    Builder::partition(partition, progress, 9, &mut frames).expect("it is short");
    writer.write(&mut frames).expect("nothing fails");
    let len = writer.len();
    let position = Position {
        segment: 9,
        offset: 48,
    };
    let whole = writer.finish(position, 9, 77).expect("nothing fails");
    let name = Name::snapshot(9);
    assert_eq!(disk.bytes(name).len() as u64, whole);
    assert!(whole > len);
    name
}

/// The numbers of the values, in their order.
fn read(disk: &Disk, name: Name) -> Result<Vec<usize>, RecoveryError> {
    let mut numbers = Vec::new();
    let mut is_complete = false;
    SnapshotReader::open(disk, name)?.read_all(|_, part| {
        match part {
            Part::Replica { .. } => panic!("of a node that replicates"),
            Part::Block(block) => {
                let mut scratch = Vec::new();
                return block.records(&mut scratch, |record| {
                    let number = usize::from_le_bytes(record.key.try_into().expect("it is eight"));
                    let Body::Value(value) = record.body else {
                        panic!("none was deleted");
                    };
                    assert!(value.data[..] == data(number)[..], "value {number}");
                    numbers.push(number);
                });
            }
            Part::Partition { records, .. } => assert_eq!(records, 9),
            Part::Complete { records, at_ms, .. } => {
                assert_eq!((records, at_ms), (9, 77));
                is_complete = true;
            }
        }
        Ok(())
    })?;
    assert!(is_complete);
    Ok(numbers)
}

#[test]
fn blocks_may_be_longer_than_what_is_read_at_once() {
    let all =
        [None, Some(1_000_000), Some(123_456)].map(|most| Keys::BOTH.map(|keys| (most, keys)));
    for (most_bytes, keys) in all.into_iter().flatten() {
        let disk = Disk::with(keys);
        disk.set_faults(Faults {
            most_bytes,
            ..Faults::default()
        });
        let name = written(&disk);
        let numbers = read(&disk, name).expect("it is whole");
        assert_eq!(numbers, (0..LENGTHS.len()).collect::<Vec<_>>());
    }
}

/// What is in memory at once has a bound: a window has what is read at once, or one block.
#[test]
fn a_window_has_a_bound() {
    for keys in Keys::BOTH {
        let disk = Disk::with(keys);
        let name = written(&disk);
        let mut reader = SnapshotReader::open(&disk, name).expect("it is whole");
        let mut long = 0;
        while let Some(window) = reader.next_window().expect("it is whole") {
            if window.bytes.len() > 2 << 20 {
                assert_eq!(window.bodies().count(), 1, "{}", window.bytes.len());
                long += 1;
            }
        }
        assert_eq!(long, 3);
    }
}

/// A wrong length is no reason to read for ever, or to take memory that there is not.
#[test]
fn a_long_block_of_the_wrong_length_is_refused() {
    let disk = Disk::default();
    let name = written(&disk);
    let whole = disk.bytes(name);
    // The block of the longest value begins a frame.
    let lens = 4_000_000_u32..6_000_000;
    let at = (48..whole.len() - 4)
        .find(|&at| {
            let len = whole[at..]
                .first_chunk()
                .map(|len| u32::from_le_bytes(*len));
            len.is_some_and(|len| lens.contains(&len)) && whole[at + HEAD_BYTES] == 1
        })
        .expect("it is there");
    for bit in 0..32 {
        let disk = disk.copy();
        disk.flip(name, at * 8 + bit);
        match read(&disk, name) {
            Err(RecoveryError::Damaged { offset, .. }) => assert_eq!(offset, at as u64),
            other => panic!("bit {bit}: {other:?}"),
        }
    }
}

/// Somebody cuts the file while it is read.
#[test]
fn a_file_that_becomes_shorter_is_refused() {
    let disk = Disk::default();
    let name = written(&disk);
    let whole = disk.bytes(name);
    for len in [whole.len() / 2, 4_000, 0] {
        let disk = disk.copy();
        let mut reader = SnapshotReader::open(&disk, name).expect("it is whole");
        disk.replace(name, whole[..len].to_vec());
        let error = loop {
            match reader.next_window() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it was read to its end"),
                Err(error) => break error,
            }
        };
        let is_short = matches!(
            error,
            RecoveryError::Damaged {
                damage: Damage::Short,
                ..
            }
        );
        assert!(is_short, "{error}");
    }
}

/// What is cut off is nothing, and what comes in its place can be read, also where it is encrypted.
#[test]
fn a_snapshot_is_cut_back_between_two_writes() {
    for keys in Keys::BOTH {
        let disk = Disk::with(keys);
        let partition = Partition::new(3).expect("a partition");
        let mut writer = SnapshotWriter::begin(disk.clone(), 9, [1; 16]).expect("nothing fails");
        let begun = writer.len();
        let one = |number: usize| {
            let (mut builder, mut frames) = (Builder::default(), Journal::default());
            let record = RecordView {
                key: &number.to_le_bytes(),
                version: Version::new(1, 1 + number as u64),
                expires_at_ms: None,
                body: Body::Value(Value::raw(Data::Shared(data(number).into()))),
            };
            builder.push(&record).expect("it is short");
            builder.finish(partition, &mut frames).expect("it is short");
            frames
        };
        let mut frames = Journal::default();
        let mut sealed = Vec::new();
        for (at, number) in [2, 5, 0, 0].into_iter().enumerate() {
            writer.write(&mut one(number)).expect("nothing fails");
            if at < 3 {
                let bytes = disk.bytes(Name::unfinished(9));
                sealed.push(bytes[begun as usize + HEAD_BYTES..].to_vec());
                writer.cut_back(begun).expect("nothing fails");
                assert_eq!(writer.len(), begun);
                assert_eq!(disk.bytes(Name::unfinished(9)).len() as u64, begun);
            }
        }
        // As many in all as are read below.
        for _ in 1..LENGTHS.len() {
            let mut again = one(0);
            writer.write(&mut again).expect("nothing fails");
        }
        let progress = Progress {
            last: Version::new(1, 9),
            commit: 9,
            horizon: 0,
        };
        Builder::partition(partition, progress, 9, &mut frames).expect("it is short");
        writer.write(&mut frames).expect("nothing fails");
        let finished = writer.finish(Position::default(), 9, 77);
        finished.expect("nothing fails");
        assert_eq!(read(&disk, Name::snapshot(9)).ok(), Some(vec![0; 9]));
        // The same record is encrypted anew, under a counter of its own.
        let bytes = disk.bytes(Name::snapshot(9));
        let again = &bytes[begun as usize + HEAD_BYTES..][..sealed[2].len()];
        assert_eq!(again == sealed[2], keys == Keys::NONE);
    }
}
