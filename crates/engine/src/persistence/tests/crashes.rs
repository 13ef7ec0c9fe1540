//! Crashes of the process and losses of power, at every call of the disk and at every byte of a write, and at random over many
//! lives of a node.

use super::super::recovery::RecoveryError;
use super::super::storage::{FileKind, Name};
use super::disk::Faults;
use super::for_seeds;
use super::keys::Keys;
use super::machine::{Machine, StartError, Syncs};
use super::random::Random;
use super::recover::Settings;
use crate::budget::Room;
use henge_wire::Expiry;
use std::io;

/// What is cut in its midst.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Last {
    Write,
    SyncedWrite,
    Roll,
    Snapshot,
    Start,
}

impl Last {
    /// A node that is about to do it.
    fn prepared(self, seed: u64, keys: Keys) -> Machine {
        let settings = Settings {
            keys,
            ..Settings::DEFAULT
        };
        let mut machine = Machine::new(seed, settings);
        machine.start().expect("nothing fails");
        machine.live(8, Syncs::Always).expect("nothing fails");
        machine.live(4, Syncs::Never).expect("nothing fails");
        for n in 0..4 {
            let key = machine.key(n);
            machine.set(&key, b"the last", Expiry::Never);
            machine.transact(&key);
        }
        if self == Self::Start {
            machine.crash_process();
        }
        machine
    }

    fn act(self, machine: &mut Machine) -> io::Result<()> {
        match self {
            Self::Write => machine.round(false),
            Self::SyncedWrite => machine.round(true),
            Self::Roll => {
                machine.writer().roll()?;
                machine.round(true)
            }
            Self::Snapshot => machine.snapshot(),
            Self::Start => machine.start().map_err(|error| match error {
                StartError::Io(error) | StartError::Refused(RecoveryError::Io(_, error)) => error,
                StartError::Refused(error) => panic!("{error}"),
            }),
        }
    }
}

/// Wherever the last thing that a node does is cut, at every call and at every byte of a write: after a crash of the process
/// all that was written before is there, and after a loss of power all that was synced.
#[test]
fn the_last_is_cut_at_every_byte() {
    let all = [
        Last::Write,
        Last::SyncedWrite,
        Last::Roll,
        Last::Snapshot,
        Last::Start,
    ];
    for (last, keys) in all
        .into_iter()
        .flat_map(|last| Keys::BOTH.map(|keys| (last, keys)))
    {
        let mut machine = last.prepared(1, keys);
        machine.disk.set_faults(Faults::default());
        last.act(&mut machine).expect("nothing fails");
        let calls = machine.disk.to_write();
        assert!(calls.iter().any(|&bytes| bytes > 0));
        for (call, bytes) in calls.into_iter().enumerate() {
            for done in 0..=bytes.max(1) {
                for power_is_lost in [false, true] {
                    let mut machine = last.prepared(1, keys);
                    machine.disk.set_faults(Faults {
                        stops: Some((call as u64, done)),
                        ..Faults::default()
                    });
                    let error = last.act(&mut machine).expect_err("the machine stops");
                    assert!(machine.disk.is_stopped(), "{error}");
                    if power_is_lost {
                        // Not the same at every byte.
                        machine.random = Random::new((call * 10_000 + done) as u64);
                        machine.lose_power();
                    } else {
                        machine.crash_process();
                    }
                    if let Err(error) = machine.start() {
                        panic!("{last:?} cut in call {call} at byte {done}: {error:?}");
                    }
                }
            }
        }
    }
}

/// A node lives several lives, which end in all ways. Each next one finds a state that the one before may have left.
#[test]
fn many_lives_end_in_all_ways() {
    let (mut snapshots, mut cuts) = (0, 0);
    let all = for_seeds(250, |seed| {
        let mut machine = Machine::new(
            seed,
            Settings {
                has_zeros: true,
                tombstone_bytes: [0, 2_000][seed as usize % 2],
                room: if seed % 3 == 0 {
                    Room {
                        items: 12,
                        ..Settings::DEFAULT.room
                    }
                } else {
                    Settings::DEFAULT.room
                },
                ..Settings::DEFAULT
            },
        );
        for _ in 0..6 {
            if seed % 4 != 0 {
                // Encryption is switched on and off, and each of two keys comes to be the one that writes.
                machine.disk.keys = *machine.random.pick(&Keys::ALTERNATING);
            }
            let syncs = *machine
                .random
                .pick(&[Syncs::Always, Syncs::Sometimes, Syncs::Never]);
            let most = 1 + machine.random.below(400);
            let done = machine.random.below(300);
            machine.disk.set_faults(Faults {
                // Often enough in the recovery itself.
                stops: (!machine.random.one_in(4))
                    .then(|| (machine.random.below(most) as u64, done)),
                most_bytes: machine
                    .random
                    .one_in(4)
                    .then(|| 1 + machine.random.below(100)),
                fails: None,
            });
            match machine.start() {
                Ok(()) => {
                    let lived = machine.live(100, syncs);
                    assert!(lived.is_ok() || machine.disk.is_stopped(), "{lived:?}");
                }
                Err(error) => assert!(machine.disk.is_stopped(), "{error:?}"),
            }
            if machine.random.one_in(2) {
                machine.lose_power();
            } else {
                machine.crash_process();
            }
        }
        machine.start().expect("nothing fails any more");
        machine.snapshot().expect("nothing fails any more");
        // Whatever was left half done, nothing is left that the snapshot covers.
        let names = machine.disk.all();
        let is_newest = |name: &Name| match name.kind {
            FileKind::Snapshot => Some(name.number),
            _ => None,
        };
        let newest = names.iter().find_map(is_newest).expect("it was made");
        for name in names {
            let is_needed = match name.kind {
                FileKind::Segment => name.number >= newest,
                FileKind::Snapshot => name.number == newest,
                FileKind::Unfinished => false,
            };
            assert!(is_needed, "{name} is left, and {newest} covers it");
        }
        (snapshots, cuts) = (snapshots + machine.snapshots, cuts + machine.cuts);
    });
    assert!(
        !all || (snapshots > 0 && cuts > 0),
        "{snapshots} snapshots, {cuts} cuts"
    );
}
