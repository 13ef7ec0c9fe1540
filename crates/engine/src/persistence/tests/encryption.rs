//! Encryption: a file whose key is missing or wrong is refused and never cut, whatever else is wrong with the log; files of
//! several keys and plain ones lie side by side; and no counter is used twice for a file.

use super::super::cipher::{self, KeyError, Sealer};
use super::super::frame::{self, Content, Damage, FRAME_BYTES, HEAD_BYTES, HEADER_BYTES, Header};
use super::super::journal::Journal;
use super::super::output::Output;
use super::super::recovery::RecoveryError;
use super::super::storage::{FileKind, Name, Position, StorageFile};
use super::super::wal::{self, Record};
use super::disk::Disk;
use super::keys::{CIPHER, Keys};
use super::machine::{Machine, Syncs};
use super::recover::{Settings, found_in, recover};
use bytes::Bytes;
use henge_wire::{Data, Effect, Expiry, Mutation, Partition, Value, Version};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::rc::Rc;

/// The key of number 1 is another than the one that writes elsewhere.
const WRONG: Keys = Keys {
    all: &[(1, 0xEE), (9, 0xCD)],
    encrypts: true,
};
/// There is none of number 1.
const OTHER: Keys = Keys {
    all: &[(9, 0xCD)],
    encrypts: true,
};

fn node(seed: u64, keys: Keys) -> Machine {
    let settings = Settings {
        segment_bytes: 1_024,
        keys,
        ..Settings::DEFAULT
    };
    let mut machine = Machine::new(seed, settings);
    machine.start().expect("nothing fails");
    machine
}

/// A life with other keys.
fn go_on(machine: &mut Machine, keys: Keys, syncs: Syncs) {
    machine.crash_process();
    machine.disk.keys = keys;
    machine.start().expect("all keys are there");
    machine.run_rounds(6, syncs);
}

fn contents(disk: &Disk) -> Vec<(Name, Vec<u8>)> {
    let names = disk.all().into_iter();
    names.map(|name| (name, disk.bytes(name))).collect()
}

/// What a start says that has these keys. It has changed nothing.
fn refused(machine: &Machine, disk: &Disk, keys: Keys) -> Option<RecoveryError> {
    let mut disk = disk.copy();
    disk.keys = keys;
    let before = contents(&disk);
    let error = recover(&disk, &machine.settings, machine.now_ms).err()?;
    assert!(contents(&disk) == before, "{error}");
    Some(error)
}

fn header_of(disk: &Disk, name: Name) -> Header {
    Header::decode(&disk.bytes(name)).expect("nothing is damaged")
}

fn of_kind(disk: &Disk, kind: FileKind) -> Vec<Name> {
    let mut names = disk.all();
    names.retain(|name| name.kind == kind);
    names
}

#[test]
fn whose_key_is_not_there_is_refused() {
    for has_snapshot in [false, true] {
        let mut machine = node(3, Keys::FIRST);
        machine.run_rounds(9, Syncs::Always);
        if has_snapshot {
            machine.snapshot().expect("nothing fails");
            machine.run_rounds(3, Syncs::Always);
        }
        machine.crash_process();
        let kinds = [FileKind::Segment, FileKind::Snapshot];
        let first = of_kind(&machine.disk, kinds[usize::from(has_snapshot)])[0];
        let missing = |why: &str| KeyError::Missing {
            key_id: 1,
            why: why.to_owned(),
        };
        for (keys, expected, line) in [
            (
                WRONG,
                KeyError::Wrong(1),
                "key 1 is not the one that it was encrypted with",
            ),
            (
                OTHER,
                missing("there are 1"),
                "encrypted with key 1, and there are 1",
            ),
            (
                Keys::NONE,
                missing("there are 0"),
                "encrypted with key 1, and there are 0",
            ),
        ] {
            let error = refused(&machine, &machine.disk, keys).expect("its key is not there");
            assert_eq!(error.to_string(), format!("{first}: {line}"));
            assert!(matches!(error, RecoveryError::Key(_, found) if found == expected));
        }
        assert!(refused(&machine, &machine.disk, Keys::SECOND).is_none());
    }
}

#[test]
fn a_cipher_of_a_later_version_is_refused() {
    let mut machine = node(3, Keys::FIRST);
    machine.run_rounds(9, Syncs::Always);
    machine.crash_process();
    for name in of_kind(&machine.disk, FileKind::Segment) {
        let mut bytes = machine.disk.bytes(name);
        let mut header = header_of(&machine.disk, name);
        header.cipher = CIPHER + 1;
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        let disk = machine.disk.copy();
        disk.replace(name, bytes);
        let error = refused(&machine, &disk, Keys::FIRST).expect("it is not known");
        let expected = format!("{name}: encrypted with cipher 8, which this version does not know");
        assert_eq!(error.to_string(), expected);
    }
}

/// A header that says something else leads to another key, or to none.
#[test]
fn a_header_is_a_part_of_the_key() {
    let mut machine = node(3, Keys::SECOND);
    machine.run_rounds(9, Syncs::Always);
    machine.crash_process();
    let name = of_kind(&machine.disk, FileKind::Segment)[0];
    let mut bytes = machine.disk.bytes(name);
    let mut header = header_of(&machine.disk, name);
    assert_eq!(header.key_id, 9);
    header.key_id = 1;
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    let disk = machine.disk.copy();
    disk.replace(name, bytes);
    let error = refused(&machine, &disk, Keys::SECOND).expect("it is another key");
    assert!(matches!(error, RecoveryError::Key(found, KeyError::Wrong(1)) if found == name));
}

/// The log is torn in a segment of one key, and behind it are segments of another: what those say of what was on the disk cannot
/// be read without that, so nothing is cut.
#[test]
fn a_torn_end_before_a_missing_key_is_not_cut() {
    let mut machine = node(3, Keys::FIRST);
    machine.run_rounds(6, Syncs::Never);
    go_on(&mut machine, Keys::SECOND, Syncs::Never);
    machine.crash_process();
    let segments = of_kind(&machine.disk, FileKind::Segment);
    let key_of = |name: &Name| header_of(&machine.disk, *name).key_id;
    let next = *segments.iter().find(|name| key_of(name) == 9).expect("one");
    let last = *segments
        .iter()
        .rfind(|name| key_of(name) == 1)
        .expect("one");
    let mut bytes = machine.disk.bytes(last);
    let len = bytes.len();
    bytes[len - 20..].fill(0);
    let disk = machine.disk.copy();
    disk.replace(last, bytes);
    let wrong = Keys {
        all: &[(1, 0xAB), (9, 0xEE)],
        encrypts: true,
    };
    for (keys, is_wrong) in [(Keys::FIRST, false), (wrong, true)] {
        match refused(&machine, &disk, keys) {
            Some(RecoveryError::Key(name, error)) => {
                assert_eq!(name, next);
                assert_eq!(error == KeyError::Wrong(9), is_wrong);
            }
            other => panic!("{other:?}"),
        }
    }
    // With all keys it is told from damage as ever: what is behind was read by the life that came after.
    let error = refused(&machine, &disk, Keys::SECOND).expect("it was on the disk");
    assert!(matches!(error, RecoveryError::Damaged { name, .. } if name == last));
}

/// Who has no key can reckon checksums: what does not decrypt is damage, also where a crash could have torn the log.
#[test]
fn what_was_changed_with_its_checksum_is_damage() {
    let mut machine = node(3, Keys::FIRST);
    machine.run_rounds(2, Syncs::Never);
    machine.crash_process();
    for name in of_kind(&machine.disk, FileKind::Segment) {
        let bytes = machine.disk.bytes(name);
        let seed = header_of(&machine.disk, name).seed();
        let mut at = HEADER_BYTES;
        while let frame::Frame::Whole { body, len } = frame::frame(seed, &bytes[at..]) {
            for place in [0, 8, body.len() - 1] {
                let mut body = body.to_vec();
                body[place] ^= 1;
                let mut changed = bytes[..at].to_vec();
                frame::append(seed, &body, &mut changed).expect("it is as long");
                changed.extend_from_slice(&bytes[at + len..]);
                let disk = machine.disk.copy();
                disk.replace(name, changed);
                let error = refused(&machine, &disk, Keys::FIRST).expect("it does not decrypt");
                if at == HEADER_BYTES {
                    let expected =
                        format!("{name}: key 1 is not the one that it was encrypted with");
                    assert_eq!(error.to_string(), expected);
                    continue;
                }
                let is_place = matches!(
                    error,
                    RecoveryError::Damaged { name: found, offset, damage: Damage::Sealed }
                    if found == name && offset == at as u64
                );
                assert!(is_place, "{at}: {error}");
            }
            at += len;
        }
        assert!(at > HEADER_BYTES + 100);
    }
}

/// The next snapshot makes all files those of the key that writes; then the others are not needed any more.
#[test]
fn keys_go_after_the_next_snapshot() {
    let ways = [
        (Keys::NONE, Keys::FIRST, (CIPHER, 1)),
        (Keys::FIRST, Keys::SECOND, (CIPHER, 9)),
        (Keys::FIRST, Keys::READ_ONLY, (0, 0)),
    ];
    for (before, after, expected) in ways {
        let mut machine = node(5, before);
        machine.run_rounds(6, Syncs::Always);
        machine.snapshot().expect("nothing fails");
        go_on(&mut machine, after, Syncs::Sometimes);
        let of_all = |machine: &Machine| -> BTreeSet<(u16, u32)> {
            let all = machine.disk.all().into_iter();
            all.map(|name| header_of(&machine.disk, name))
                .map(|header| (header.cipher, header.key_id))
                .collect()
        };
        assert_eq!(of_all(&machine).len(), 2);
        machine.snapshot().expect("nothing fails");
        assert_eq!(of_all(&machine), [expected].into());
        let only = Keys {
            all: if expected.0 == 0 {
                &[]
            } else {
                after.all.last_chunk::<1>().expect("one")
            },
            ..after
        };
        go_on(&mut machine, only, Syncs::Always);
    }
}

/// What a client wrote is in no file as it is, neither as a part of the log nor of a snapshot.
#[test]
fn nothing_of_a_value_or_a_key_can_be_read() {
    let mut found = [0; 2];
    for (found, keys) in found.iter_mut().zip(Keys::BOTH) {
        let mut machine = node(5, keys);
        for number in 0..10 {
            let key = machine.key(number);
            machine.set(&key, b"a value that nobody shall read", Expiry::Never);
        }
        machine.round(true).expect("nothing fails");
        let mut files = contents(&machine.disk);
        machine.snapshot().expect("nothing fails");
        files.extend(contents(&machine.disk));
        let is_in = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|part| part == text);
        let key = machine.key(3);
        for (_, bytes) in files {
            *found += usize::from(is_in(&bytes, b"nobody shall"));
            *found += usize::from(is_in(&bytes, &key));
        }
        machine.crash_process();
        let recovered = recover(&machine.disk, &machine.settings, machine.now_ms);
        let shards = recovered.map(|recovered| recovered.shards).ok();
        assert_eq!(found_in(&shards.expect("it is whole")).items.len(), 10);
    }
    assert!(found[0] > 0 && found[1] == 0, "{found:?}");
}

/// A file that takes some bytes of each write, and fails every other time. It keeps all that it was given.
#[derive(Clone, Default)]
struct Failing(Rc<RefCell<Vec<Vec<u8>>>>);

impl StorageFile for Failing {
    fn write_at(&self, pieces: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
        let mut given = self.0.borrow_mut();
        given.push(pieces.iter().flat_map(|piece| piece.to_vec()).collect());
        if given.len() % 2 == 1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(pieces.iter().map(|piece| piece.len()).sum())
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn mutation(data: &Bytes) -> Journal {
    let mut journal = Journal::default();
    let effect = Effect::Put {
        value: Value::raw(Data::Shared(data.clone())),
        expires_at_ms: None,
    };
    let record = Record::Mutation(Mutation {
        partition: Partition::new(3).expect("a partition"),
        version: Version::new(1, 1),
        effects: &[(b"key", effect)],
    });
    record.encode(&mut journal).expect("it is short");
    journal
}

/// A write that failed may have left bytes on the disk that were encrypted with its counters, so its retry takes others. And what
/// is long goes in several writes, of whole frames, through a buffer that does not grow.
#[test]
fn no_counter_is_used_twice() {
    let salt = [4; 16];
    let (header, sealer) =
        cipher::begin(&Keys::FIRST, Content::Log, frame::FORMAT, 1, salt).expect("it has it");
    assert_eq!((header.cipher, header.key_id), (CIPHER, 1));
    let mut output = Output::new(sealer);
    let file = Failing::default();
    let data = Bytes::from(vec![b'd'; 300_000]);
    let mut journals: Vec<Journal> = [10, 5_000, 300_000, 70_000, 300_000, 300_000]
        .map(|len| mutation(&data.slice(..len)))
        .into();
    let (first, rest) = journals.split_first_mut().expect("there are some");
    let mut written = 0;
    for _ in 0..6 {
        let outcome = output.write(&file, 0, &[], first, rest);
        written += u64::from(outcome.is_ok());
    }
    assert_eq!(written, 0, "of two writes one fails");
    let mut counters = BTreeSet::new();
    let (mut frames, mut longest) = (0, 0);
    for write in file.0.borrow().iter() {
        longest = longest.max(write.len());
        let mut at = 0;
        while at < write.len() {
            let frame::Frame::Whole { body, len } = frame::frame(header.seed(), &write[at..])
            else {
                panic!("a write is of whole frames");
            };
            let counter = body
                .first_chunk()
                .map(|counter| u64::from_le_bytes(*counter));
            assert!(counters.insert(counter.expect("eight bytes")));
            (frames, at) = (frames + 1, at + len);
        }
    }
    assert!(frames > 12 && counters.len() == frames);
    assert!(longest < 1_000_000, "{longest}");
    // Nothing was lost: the same journals are written by whoever can.
    let mut out = Vec::new();
    let mut sealer = Sealer::mending(&Keys::FIRST, &header, u64::MAX).expect("it has it");
    for journal in &journals {
        sealer.append_all(journal, &mut out).expect("it is short");
    }
    let cipher = cipher::opener(&Keys::FIRST, &header).expect("it has it");
    let cipher = cipher.expect("it is encrypted");
    let (mut at, mut lens) = (0, Vec::new());
    while at < out.len() {
        let frame::Frame::Whole { body, len } = frame::frame(header.seed(), &out[at..]) else {
            panic!("they are whole");
        };
        let counter = body
            .first_chunk()
            .map(|counter| u64::from_le_bytes(*counter));
        assert!(
            counters.insert(counter.expect("eight bytes")),
            "those of a repair are others"
        );
        let mut body = body.to_vec();
        let plain = cipher::open(&*cipher, &mut body).expect("it is the key");
        let mut effects = Vec::new();
        match wal::decode(&body[plain], &mut effects) {
            Ok(Record::Mutation(mutation)) => match &mutation.effects[0].1 {
                Effect::Put { value, .. } => lens.push(value.data.len()),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
        at += len;
    }
    assert_eq!(lens, [10, 5_000, 300_000, 70_000, 300_000, 300_000]);
}

/// Whatever is in a frame that is too short to be an encrypted one, it is refused.
#[test]
fn a_body_without_room_for_a_tag_is_refused() {
    let salt = [4; 16];
    let (header, _) =
        cipher::begin(&Keys::FIRST, Content::Log, frame::FORMAT, 1, salt).expect("it has it");
    let cipher = cipher::opener(&Keys::FIRST, &header).expect("it has it");
    let cipher = cipher.expect("it is encrypted");
    for len in 1..=cipher::SEALED_BYTES {
        assert_eq!(
            cipher::open(&*cipher, &mut vec![7; len]),
            Err(Damage::Sealed)
        );
        assert!(!cipher::may_begin(len, &[0; 12]));
    }
    // What is plain makes frames as it always did.
    let plain = Header {
        cipher: 0,
        key_id: 0,
        ..header
    };
    let mut sealer = Sealer::mending(&Keys::FIRST, &plain, 1).expect("it needs none");
    assert_eq!(sealer.frame_bytes(), FRAME_BYTES);
    let (mut made, mut expected) = (Vec::new(), Vec::new());
    sealer.append(b"body", &mut made).expect("it is short");
    frame::append(plain.seed(), b"body", &mut expected).expect("it is short");
    assert_eq!(made, expected);
    assert_eq!(made.len(), HEAD_BYTES + 4 + 1);
    assert_eq!(Position::default().offset, 0);
}
