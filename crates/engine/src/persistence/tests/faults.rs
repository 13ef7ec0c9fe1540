//! A disk that says no: without room and broken, at every call in turn and for a while; writes and reads that take a part.

use super::super::frame::{HEADER_BYTES, Header};
use super::super::recovery::RecoveryError;
use super::super::snapshot_file::SnapshotWriter;
use super::super::storage::{Name, Storage};
use super::disk::{Disk, Failure, Faults};
use super::keys::Keys;
use super::machine::{Machine, StartError, Syncs};
use super::random::Random;
use super::recover::{Settings, found_in, recover};
use henge_wire::Expiry;
use std::io::ErrorKind;

fn small(keys: Keys) -> Settings {
    Settings {
        segment_bytes: 1_024,
        keys,
        ..Settings::DEFAULT
    }
}

/// The disk is well again: what could not be written is written, and is there after a loss of power.
fn recovers(mut machine: Machine) {
    machine.disk.set_faults(Faults::default());
    if machine.is_started() {
        // What waited, and what came meanwhile.
        for _ in 0..2 {
            machine.round(true).expect("nothing fails any more");
        }
        assert!(machine.model.is_all_written());
    }
    machine.lose_power();
    machine.start().expect("nothing fails any more");
    machine
        .live(5, Syncs::Always)
        .expect("nothing fails any more");
    machine.lose_power();
    machine.start().expect("nothing fails any more");
}

/// One life, which ends early if the log cannot be written any more.
fn lives(machine: &mut Machine) {
    match machine.start() {
        Ok(()) => {
            if machine.live(25, Syncs::Sometimes).is_err() {
                machine.crash_process();
            }
        }
        Err(StartError::Refused(RecoveryError::Io(..)) | StartError::Io(_)) => {
            machine.crash_process();
        }
        Err(StartError::Refused(error)) => panic!("{error}"),
    }
}

/// Whatever call fails, alone and with those after it: what could not be written for want of room is written when there is
/// some, and a start after anything else finds what it may.
#[test]
fn every_call_fails_in_turn() {
    for (seed, keys) in [0, 1, 2].into_iter().zip(Keys::BOTH.into_iter().cycle()) {
        let before = |seed| {
            // So that there is something to recover, a snapshot among it.
            let mut machine = Machine::new(seed, small(keys));
            machine.start().expect("nothing fails");
            machine.live(10, Syncs::Always).expect("nothing fails");
            machine.snapshot().expect("nothing fails");
            machine.live(5, Syncs::Never).expect("nothing fails");
            machine.crash_process();
            machine
        };
        let mut machine = before(seed);
        lives(&mut machine);
        let calls = machine.disk.calls();
        assert!(calls > 50, "{calls} calls");
        for call in 0..calls {
            for failure in [Failure::Full, Failure::Broken] {
                for count in [1, 2, 4] {
                    let mut machine = before(seed);
                    machine.disk.set_faults(Faults {
                        fails: Some((call..call + count, failure)),
                        ..Faults::default()
                    });
                    lives(&mut machine);
                    recovers(machine);
                }
            }
        }
    }
}

#[test]
fn writes_and_reads_may_take_a_part() {
    for most in (1..80).chain([511, 512, 513]) {
        let mut machine = Machine::new(most, small(Keys::BOTH[most as usize % 2]));
        for syncs in [Syncs::Sometimes, Syncs::Never, Syncs::Always] {
            machine.disk.set_faults(Faults {
                most_bytes: Some(most as usize),
                ..Faults::default()
            });
            machine.start().expect("nothing fails");
            machine.live(20, syncs).expect("nothing fails");
            machine.crash_process();
        }
        recovers(machine);
    }
}

/// A recovery that fails at any call has lost nothing: the next one finds the same.
#[test]
fn every_call_of_a_recovery_fails_in_turn() {
    let mut torn = 0;
    for seed in 0..40 {
        let settings = small(Keys::BOTH[(seed / 2 % 2) as usize]);
        let mut machine = Machine::new(seed, settings);
        machine.start().expect("nothing fails");
        machine.live(15, Syncs::Sometimes).expect("nothing fails");
        if seed % 2 == 0 {
            machine.snapshot().expect("nothing fails");
        }
        machine.live(15, Syncs::Never).expect("nothing fails");
        machine.lose_power();
        let (disk, now_ms) = (machine.disk.copy(), machine.now_ms);
        let expected = recover(&disk, &settings, now_ms).expect("nothing fails");
        torn += usize::from(expected.end.cut.is_some());
        let calls = disk.calls();
        for call in 0..calls {
            for failure in [Failure::Full, Failure::Broken] {
                let disk = machine.disk.copy();
                disk.set_faults(Faults {
                    fails: Some((call..call + 1, failure)),
                    ..Faults::default()
                });
                match recover(&disk, &settings, now_ms) {
                    Err(RecoveryError::Io(_, error)) => {
                        assert_ne!(error.kind(), ErrorKind::NotFound);
                    }
                    Err(other) => panic!("call {call}: {other}"),
                    Ok(_) => panic!("call {call} failed, and nobody noticed"),
                }
                disk.set_faults(Faults::default());
                let found = recover(&disk, &settings, now_ms).expect("nothing fails any more");
                assert_eq!(found_in(&found.shards), found_in(&expected.shards));
                assert_eq!(found.end.segments, expected.end.segments, "call {call}");
                assert_eq!(found.end.next, expected.end.next);
            }
        }
    }
    assert!(torn > 0);
}

/// What a write has left that failed is gone from the disk before other bytes come in its place, or in the next segment.
/// Else a loss of power might leave a mixture of both, which passes for damage.
#[test]
fn what_a_failed_write_left_does_not_come_back() {
    for (seed, rolls) in (0..60).flat_map(|seed| [(seed, false), (seed, true)]) {
        let settings = Settings {
            keys: Keys::BOTH[seed as usize % 2],
            ..Settings::DEFAULT
        };
        let mut machine = Machine::new(seed, settings);
        machine.start().expect("nothing fails");
        machine.round(true).expect("nothing fails");
        // Marks what is synced, so that the next round has no reason to.
        machine.round(true).expect("nothing fails");
        let mut data = Random::new(seed);
        for n in 0..12 {
            let key = machine.key(n);
            machine.set(&key, &data.bytes(100 + n), Expiry::Never);
        }
        if !rolls {
            machine.begin_sync();
        }
        machine.disk.set_faults(Faults {
            fails: Some((0..1, Failure::Full)),
            ..Faults::default()
        });
        let failed = machine.round(false).expect_err("there is no room");
        assert_eq!(failed.kind(), ErrorKind::StorageFull);
        if rolls {
            machine.writer().roll().expect("nothing fails any more");
            machine.round(true).expect("nothing fails any more");
        } else {
            // From now on there is something to mark, and what is written again lies elsewhere.
            machine.finish_sync().expect("nothing fails any more");
            machine.round(false).expect("nothing fails any more");
        }
        machine.lose_power();
        machine.start().expect("nothing fails any more");
    }
}

/// None of what a write had that failed counts, also where the process ends before it is tried again.
#[test]
fn what_a_failed_write_left_is_not_found() {
    let mut machine = Machine::new(1, Settings::DEFAULT);
    machine.start().expect("nothing fails");
    for n in 0..10 {
        let key = machine.key(n);
        machine.set(&key, b"some of them were written", Expiry::Never);
    }
    let before = machine.writer().end();
    machine.disk.set_faults(Faults {
        fails: Some((0..1, Failure::Full)),
        ..Faults::default()
    });
    machine.round(false).expect_err("there is no room");
    machine.crash_process();
    let recovered = recover(&machine.disk, &machine.settings, machine.now_ms);
    let recovered = recovered.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found_in(&recovered.shards).items.len(), 0);
    assert_eq!(recovered.end.cut, None);
    assert_eq!(recovered.end.end, before);
}

/// Who begins a snapshot removes nothing: what lies there is for the owner of the directory, who knows whose it is.
#[test]
fn a_snapshot_is_begun_where_there_is_none() {
    let disk = Disk::default();
    let name = Name::unfinished(7);
    let begin = |n| SnapshotWriter::begin(disk.clone(), 7, [n; 16]);
    let salt = || Header::decode(&disk.bytes(name)).map(|header| header.salt);
    assert!(begin(0).expect("there is none").is_empty());
    let error = begin(1).err().expect("there is one");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(salt(), Ok([0; 16]));
    disk.remove(name).expect("it is there");
    assert_eq!(
        begin(2).map(|writer| writer.len()).ok(),
        Some(HEADER_BYTES as u64)
    );
    assert_eq!(salt(), Ok([2; 16]));
    // One whose head cannot be written is not there.
    disk.remove(name).expect("it is there");
    disk.set_faults(Faults {
        fails: Some((1..2, Failure::Full)),
        ..Faults::default()
    });
    assert!(begin(3).is_err());
    assert!(!disk.names().expect("nothing fails").contains(&name));
}
