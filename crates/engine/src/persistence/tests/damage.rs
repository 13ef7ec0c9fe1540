//! Damage: flipped bits, lost sectors, files that were cut, changed or lost. What was there and synced is found, or the
//! recovery says in which file and where it cannot read on; it never finds anything else.

use super::super::cipher::Sealer;
use super::super::frame::{
    Content, FORMAT, HEAD_BYTES, HEADER_BYTES, Header, HeaderError, REPLICA_FORMAT,
};
use super::super::journal::Journal;
use super::super::recovery::RecoveryError;
use super::super::storage::{FileKind, Name, Position};
use super::super::wal::Record;
use super::disk::Disk;
use super::keys::Keys;
use super::machine::{Machine, Syncs};
use super::recover::{Recovered, Settings, found_in, recover};

fn small(keys: Keys) -> Settings {
    Settings {
        segment_bytes: 1_024,
        keys,
        ..Settings::DEFAULT
    }
}

const SECTOR_BYTES: usize = 512;

/// A node that has written several segments, and has ended.
fn ended(seed: u64, has_snapshot: bool, syncs: &[Syncs], keys: Keys) -> Machine {
    let mut machine = Machine::new(seed, small(keys));
    machine.start().expect("nothing fails");
    for syncs in syncs {
        machine.run_rounds(6, *syncs);
        if has_snapshot {
            machine.snapshot().expect("nothing fails");
        }
        machine.run_rounds(3, *syncs);
    }
    machine.crash_process();
    machine
}

/// What a recovery finds is a state that it may find, or it was refused, with this.
fn refused(machine: &Machine, disk: &Disk) -> Option<RecoveryError> {
    match recover(disk, &machine.settings, machine.now_ms) {
        Err(error) => {
            assert!(!matches!(error, RecoveryError::Io(..)), "{error}");
            Some(error)
        }
        Ok(Recovered { shards, .. }) => {
            let mut model = machine.model.clone();
            model.end(true);
            let settled = model.settle(&found_in(&shards), machine.now_ms);
            settled.map_or_else(|wrong| panic!("{wrong}"), |_| None)
        }
    }
}

fn names(disk: &Disk, kind: FileKind) -> Vec<Name> {
    let mut names = disk.all();
    names.retain(|name| name.kind == kind);
    names
}

/// The places where the frames of a file begin, and where the last one ends.
fn frames(file: &[u8]) -> Vec<usize> {
    let mut places = vec![HEADER_BYTES];
    let mut at = HEADER_BYTES;
    while let Some(len) = file[at..].first_chunk().map(|len| u32::from_le_bytes(*len))
        && len > 0
    {
        at += HEAD_BYTES + len as usize + 1;
        places.push(at);
    }
    places
}

#[test]
fn every_bit_of_a_log_is_flipped() {
    for keys in Keys::BOTH {
        for syncs in [
            &[Syncs::Always][..],
            &[Syncs::Always, Syncs::Never],
            &[Syncs::Never],
        ] {
            let machine = ended(3, false, syncs, keys);
            let segments = names(&machine.disk, FileKind::Segment);
            assert!(segments.len() > 2);
            assert!(refused(&machine, &machine.disk.copy()).is_none());
            for name in segments {
                let bytes = machine.disk.bytes(name);
                let end = *frames(&bytes).last().expect("there is a begin");
                for bit in 0..bytes.len().min(end + 64) * 8 {
                    let disk = machine.disk.copy();
                    disk.flip(name, bit);
                    match refused(&machine, &disk) {
                        // Behind the end there is nothing to be lost.
                        None => assert!(bit / 8 >= end, "bit {bit} of {name}"),
                        Some(error) => {
                            let text = error.to_string();
                            assert!(text.starts_with(&name.to_string()), "bit {bit}: {text}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_bit_of_a_snapshot_is_flipped() {
    for keys in Keys::BOTH {
        let machine = ended(5, true, &[Syncs::Always], keys);
        let [name] = names(&machine.disk, FileKind::Snapshot)[..] else {
            panic!("there is one");
        };
        assert!(refused(&machine, &machine.disk.copy()).is_none());
        for bit in 0..machine.disk.bytes(name).len() * 8 {
            let disk = machine.disk.copy();
            disk.flip(name, bit);
            let error =
                refused(&machine, &disk).unwrap_or_else(|| panic!("bit {bit} was not seen"));
            let text = error.to_string();
            assert!(text.starts_with(&name.to_string()), "bit {bit}: {text}");
        }
    }
}

#[test]
fn a_snapshot_that_is_cut_or_goes_on_is_refused() {
    for keys in Keys::BOTH {
        let machine = ended(5, true, &[Syncs::Always], keys);
        let name = names(&machine.disk, FileKind::Snapshot)[0];
        let whole = machine.disk.bytes(name);
        let behind = [&whole[..], &whole[HEADER_BYTES..]].concat();
        let cuts = (0..whole.len()).map(|len| whole[..len].to_vec());
        let zeros = [1, 8, 100].map(|count| [&whole[..], &vec![0; count]].concat());
        for bytes in cuts.chain(zeros).chain([behind]) {
            let disk = machine.disk.copy();
            let len = bytes.len();
            disk.replace(name, bytes);
            let error = refused(&machine, &disk);
            let text = error.expect("it is not whole").to_string();
            assert!(text.starts_with(&name.to_string()), "{len} bytes: {text}");
            if len == HEADER_BYTES {
                assert!(text.ends_with("ends before it is complete"), "{text}");
            }
        }
    }
}

/// It was given up, or its process is gone: nothing depends on it, whatever is in it.
#[test]
fn an_unfinished_snapshot_is_no_snapshot() {
    for keys in Keys::BOTH {
        let mut machine = Machine::new(7, small(keys));
        machine.start().expect("nothing fails");
        machine.run_rounds(5, Syncs::Never);
        machine.begin_snapshot().expect("nothing fails");
        for _ in 0..4 {
            machine.step_snapshot().expect("nothing fails");
            machine.run_rounds(1, Syncs::Never);
        }
        assert!(machine.is_in_snapshot());
        machine.crash_process();
        let [name] = names(&machine.disk, FileKind::Unfinished)[..] else {
            panic!("there is one");
        };
        let whole = machine.disk.bytes(name);
        for bytes in [
            whole.clone(),
            whole[..whole.len() / 2].to_vec(),
            Vec::new(),
            b"anything".to_vec(),
        ] {
            let disk = machine.disk.copy();
            disk.replace(name, bytes);
            assert!(refused(&machine, &disk).is_none());
            assert_eq!(names(&disk, FileKind::Unfinished), []);
        }
        machine.start().expect("nothing fails");
        machine.snapshot().expect("it is in nobody's way");
    }
}

/// What a loss of power could have left is damage all the same where the log says later that it was synced. And where a file
/// ends too early the next one says so.
#[test]
fn damage_in_the_middle_is_refused_with_the_place() {
    for keys in Keys::BOTH {
        let machine = ended(3, false, &[Syncs::Always, Syncs::Always], keys);
        let segments = names(&machine.disk, FileKind::Segment);
        let (last, closed) = segments.split_last().expect("there are some");
        let expect = |name: Name, bytes: Vec<u8>, place: usize| {
            let disk = machine.disk.copy();
            disk.replace(name, bytes);
            let error = refused(&machine, &disk);
            let text = error
                .unwrap_or_else(|| panic!("{name} at {place}"))
                .to_string();
            let expected = format!("{name} is damaged at byte {place}: ");
            assert!(text.starts_with(&expected), "{text:?} is not {expected:?}");
        };
        for &name in closed {
            let bytes = machine.disk.bytes(name);
            let places = frames(&bytes);
            assert_eq!(*places.last().expect("there is a begin"), bytes.len());
            // The first frame of the sector, or the one that goes into it, is the one that cannot be read.
            for start in (SECTOR_BYTES..bytes.len()).step_by(SECTOR_BYTES) {
                let mut zeroed = bytes.clone();
                let end = bytes.len().min(start + SECTOR_BYTES);
                zeroed[start..end].fill(0);
                let place = places.iter().rfind(|&&place| place <= start);
                expect(name, zeroed, *place.expect("it is behind the begin"));
            }
            for len in HEADER_BYTES..bytes.len() {
                let place = places.iter().rfind(|&&place| place <= len);
                let place = *place.expect("it is behind the begin");
                expect(name, bytes[..len].to_vec(), place);
                // The same with zeros in place of what is missing.
                let mut zeroed = bytes[..len].to_vec();
                zeroed.resize(bytes.len(), 0);
                expect(name, zeroed, place);
            }
        }
        // In the last one all but what came with the last round has a mark behind it.
        let bytes = machine.disk.bytes(*last);
        let places = frames(&bytes);
        for &place in &places[1..places.len() / 2] {
            let mut zeroed = bytes.clone();
            zeroed[place..place + HEAD_BYTES].fill(0);
            expect(*last, zeroed, place);
        }
    }
}

#[test]
fn a_missing_segment_is_refused() {
    for keys in Keys::BOTH {
        for has_snapshot in [false, true] {
            let machine = ended(3, has_snapshot, &[Syncs::Always, Syncs::Always], keys);
            let segments = names(&machine.disk, FileKind::Segment);
            let (last, closed) = segments.split_last().expect("there are some");
            assert!(!closed.is_empty());
            for &name in closed {
                let disk = machine.disk.copy();
                disk.lose(name);
                // Also if what is behind it cannot say any more that it was on the disk.
                let is_read = refused(&machine, &disk);
                assert!(matches!(is_read, Some(RecoveryError::Missing(_))));
                for &behind in segments.iter().filter(|&&behind| behind > name) {
                    disk.flip(behind, 8 * 30);
                }
                match refused(&machine, &disk) {
                    Some(error @ RecoveryError::Missing(number)) => {
                        assert_eq!(number, name.number);
                        let text = error.to_string();
                        assert!(text.starts_with(&format!("{name} is missing")), "{text}");
                    }
                    other => panic!("{other:?}"),
                }
            }
            if has_snapshot {
                // The snapshot itself, without which the log is of no use: it does not begin at its begin.
                let disk = machine.disk.copy();
                disk.lose(names(&disk, FileKind::Snapshot)[0]);
                let error = refused(&machine, &disk);
                assert!(
                    matches!(error, Some(RecoveryError::Missing(1))),
                    "{error:?}"
                );
                // And all of the log, which the snapshot needs.
                let disk = machine.disk.copy();
                for &name in closed.iter().chain([last]) {
                    disk.lose(name);
                }
                let error = refused(&machine, &disk);
                assert!(
                    matches!(error, Some(RecoveryError::Missing(_))),
                    "{error:?}"
                );
            }
        }
    }
}

/// A snapshot is newer than the log before its end: where the log is shorter than that, nobody knows what is missing.
#[test]
fn a_log_that_ends_before_its_snapshot_is_refused() {
    for keys in Keys::BOTH {
        let mut machine = Machine::new(9, small(keys));
        machine.start().expect("nothing fails");
        machine.run_rounds(6, Syncs::Always);
        machine.begin_snapshot().expect("nothing fails");
        while machine.is_in_snapshot() {
            machine.run_rounds(1, Syncs::Never);
            machine.step_snapshot().expect("nothing fails");
        }
        machine.crash_process();
        let segments = names(&machine.disk, FileKind::Segment);
        let last = *segments.last().expect("there is one");
        let bytes = machine.disk.bytes(last);
        let places = frames(&bytes);
        for &len in &places[..places.len() - 1] {
            let disk = machine.disk.copy();
            disk.replace(last, bytes[..len].to_vec());
            let error = refused(&machine, &disk).expect("records are missing");
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("{last} is damaged at byte {len}: ")),
                "{text}"
            );
            let disk = machine.disk.copy();
            disk.replace(last, bytes[..len + 5].to_vec());
            assert!(refused(&machine, &disk).is_some());
        }
    }
}

#[test]
fn a_file_in_the_place_of_another_is_refused() {
    for keys in Keys::BOTH {
        let mut machine = ended(3, true, &[Syncs::Always], keys);
        machine.start().expect("nothing fails");
        machine.run_rounds(9, Syncs::Always);
        machine.crash_process();
        let segments = names(&machine.disk, FileKind::Segment);
        let snapshot = names(&machine.disk, FileKind::Snapshot)[0];
        let (first, last) = (segments[0], segments[segments.len() - 1]);
        assert_ne!(first, last);
        let newer = |content, number| {
            let mut header = Header {
                content,
                format: FORMAT,
                number,
                cipher: 0,
                key_id: 0,
                salt: [1; 16],
            }
            .encode();
            header[8] = REPLICA_FORMAT as u8 + 1;
            header.to_vec()
        };
        let unknown = HeaderError::Unknown;
        let format = HeaderError::Format(REPLICA_FORMAT + 1);
        for (name, bytes, expected) in [
            (first, machine.disk.bytes(last), unknown),
            (last, machine.disk.bytes(first), unknown),
            (first, machine.disk.bytes(snapshot), unknown),
            (snapshot, machine.disk.bytes(first), unknown),
            (first, vec![b'x'; 2_000], unknown),
            (last, newer(Content::Log, last.number), format),
            (snapshot, newer(Content::Snapshot, snapshot.number), format),
        ] {
            let disk = machine.disk.copy();
            disk.replace(name, bytes);
            match refused(&machine, &disk) {
                Some(RecoveryError::Header(found, error)) => {
                    assert_eq!((found, error), (name, expected));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        // A frame of another segment that lies where a frame is looked for.
        let (bytes, other) = (machine.disk.bytes(last), machine.disk.bytes(first));
        let (end, from) = (
            *frames(&bytes).last().expect("there is a begin"),
            frames(&other),
        );
        let disk = machine.disk.copy();
        let stray = &other[from[1]..from[2]];
        disk.replace(last, [&bytes[..end], stray].concat());
        let error = refused(&machine, &disk).expect("it is not of this file");
        let expected = format!("{last} is damaged at byte {end}: the checksum is wrong");
        assert_eq!(error.to_string(), expected);
    }
}

/// A closed segment that goes on behind where the next one begins was not written so.
#[test]
fn a_segment_that_is_longer_than_the_next_says_is_refused() {
    for keys in Keys::BOTH {
        let machine = ended(3, false, &[Syncs::Never], keys);
        let segments = names(&machine.disk, FileKind::Segment);
        for pair in segments.windows(2) {
            let bytes = machine.disk.bytes(pair[0]);
            let header = Header::decode(&bytes).expect("nothing is damaged");
            let end = bytes.len();
            let mut longer = bytes;
            let mut more = Journal::default();
            let record = Record::Synced(Position::default());
            record.encode(&mut more).expect("it is short");
            let sealer = Sealer::mending(&keys, &header, 77);
            let appended = sealer.map(|mut sealer| sealer.append_all(&more, &mut longer));
            assert_eq!(appended, Ok(Ok(())));
            let place = longer.len();
            let disk = machine.disk.copy();
            disk.replace(pair[0], longer.clone());
            let error = refused(&machine, &disk).expect("it is longer");
            let expected = format!(
                "{} is damaged at byte {place}: it ends here, and the next segment begins behind {} at byte {end}",
                pair[0], pair[0]
            );
            assert_eq!(error.to_string(), expected);
        }
    }
}
