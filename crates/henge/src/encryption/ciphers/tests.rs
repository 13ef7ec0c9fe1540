//! The ciphers against what another implementation reckoned, and whole files against golden ones, which are read and written for
//! ever. With `UPDATE_GOLDEN=1` in the environment these are written anew, which is right only with a new number of the format.

use std::fs;
use std::path::{Path, PathBuf};

use henge_engine::Progress;
use henge_engine::persistence::cipher::{KeyError, Keyring};
use henge_engine::persistence::frame::{Content, FORMAT};
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::log::{LogConfig, LogWriter};
use henge_engine::persistence::recovery::{RecoveryError, read_log};
use henge_engine::persistence::snapshot::{Builder, Part};
use henge_engine::persistence::snapshot_file::{SnapshotReader, SnapshotWriter};
use henge_engine::persistence::wal::{self, Record};
use henge_engine::persistence::{Name, Position, Storage};
use henge_engine::{Body, RecordView};
use henge_wire::{Data, Effect, Mutation, Partition, Value, Version};

use super::*;
use crate::config::Config;
use crate::disk::files::Files;
use crate::encryption::{Encryption, Keys, from_variable};

const SALT: [u8; 16] = [
    16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
];

/// A key of number 7, and what it is; and one of number 9 that writes.
fn keys() -> Keys {
    let digits = hex(&(0..32).collect::<Vec<u8>>());
    let lines = format!("9 {},7 {digits}", "9".repeat(64));
    let keys = from_variable(Some(lines.into())).expect("they are keys");
    keys.expect("they are given")
}

fn encryption(cipher: EncryptionCipher) -> Encryption {
    let mut config = Config::default();
    config.persistence.encryption = Some(cipher);
    Encryption::of(&config, Some(keys())).expect("there are keys")
}

fn hex(bytes: &[u8]) -> String {
    let pairs = bytes.iter().map(|byte| format!("{byte:02x}"));
    pairs.collect::<Vec<_>>().concat()
}

/// HKDF by Python's `hmac`, the ciphers by its `cryptography`, which is OpenSSL.
#[test]
fn what_others_reckon() {
    const BODY: &[u8] = b"a body that is encrypted";
    let table = [
        (
            EncryptionCipher::Aes256Gcm,
            0,
            "6ad5e8220da171df40bf7b1da28ffa88178c37dccb00dbfe862fe7bbe0743e34fc3124002b78dbd4",
        ),
        (
            EncryptionCipher::Aes256Gcm,
            1,
            "95b80a9a53f87bd03b12060eca384ea4bdefd4463b8370c912ed498e077d45c8713302116a4e8759",
        ),
        (
            EncryptionCipher::Aes256Gcm,
            0xFFFF_0000_0000_0005,
            "99e11a4c8ccfc04fbd045df9bd3206b2be0ce06fe1936fcc3c35010a6f5dc60a7f143a878288ff5e",
        ),
        (
            EncryptionCipher::ChaCha20Poly1305,
            0,
            "dc51d8c5d07123f7c348ccf2ad863d0a6884a50eb547c7bdfb7bdf4fa1b7d36cc88a721f6d2ba70c",
        ),
        (
            EncryptionCipher::ChaCha20Poly1305,
            1,
            "03ffe2db84e6e35a2ce8cb04ba1007524d3e8795a90b15db8404511441e09bc5d46e3eefe5ba214c",
        ),
        (
            EncryptionCipher::ChaCha20Poly1305,
            0xFFFF_0000_0000_0005,
            "c25f335637fd627563993db4128eb12b51ecb531094d2b125b3e535d1ccaa54e9900c9bc29344128",
        ),
    ];
    for (cipher, counter, expected) in table {
        let header = Header {
            content: Content::Log,
            format: FORMAT,
            number: 42,
            cipher: number(cipher),
            key_id: 7,
            salt: SALT,
        };
        let of_file = encryption(cipher).cipher(&header).expect("it is there");
        let mut sealed = BODY.to_vec();
        let tag = of_file.seal(counter, &mut sealed);
        sealed.extend_from_slice(&tag);
        assert_eq!(hex(&sealed), expected, "{cipher:?} {counter}");
        let opens = |counter, change: usize| {
            let mut copy = sealed.clone();
            if let Some(byte) = copy.get_mut(change) {
                *byte ^= 1;
            }
            of_file.open(counter, &mut copy).then_some(copy)
        };
        let opened = opens(counter, usize::MAX).expect("it is as it was");
        assert_eq!(&opened[..BODY.len()], BODY);
        assert_eq!(opens(counter + 1, usize::MAX), None);
        for change in 0..sealed.len() {
            assert_eq!(opens(counter, change), None, "{change}");
        }
        // Whatever else a header says is another key.
        let others = [
            Header {
                number: 43,
                ..header
            },
            Header {
                key_id: 9,
                ..header
            },
            Header {
                salt: [1; 16],
                ..header
            },
            Header {
                content: Content::Snapshot,
                ..header
            },
        ];
        for other in others {
            let of_other = encryption(cipher).cipher(&other).expect("it is there");
            assert!(!of_other.open(counter, &mut sealed.clone()), "{other:?}");
        }
    }
}

#[test]
fn numbers_of_ciphers() {
    for cipher in EncryptionCipher::ALL {
        assert_eq!(of_number(number(*cipher)), Some(*cipher));
    }
    assert_eq!((of_number(0), of_number(3)), (None, None));
}

/// A directory that goes with it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SEGMENT: Name = Name::segment(1);
const SNAPSHOT: Name = Name::snapshot(1);

/// Writes a segment and a snapshot, always the same.
fn write(files: &Files) -> std::io::Result<()> {
    let partition = Partition::new(5).expect("a partition");
    let config = LogConfig {
        segment_bytes: 1_000,
        ahead_bytes: 0,
    };
    let salts = Box::new(|| SALT);
    let mut writer = LogWriter::begin(files.clone(), config, salts, 1, [].into())?;
    for seq in 1..4 {
        let effect = Effect::Put {
            value: Value::raw(Data::Slice(b"the value of it")),
            expires_at_ms: None,
        };
        let record = Record::Mutation(Mutation {
            partition,
            version: Version::new(1, seq),
            effects: &[(b"a key", effect)],
        });
        let mut journal = Journal::default();
        record.encode(&mut journal).expect("it is short");
        writer.write(Some(journal))?;
        writer.sync()?;
    }
    writer.close()?;
    let mut writer = SnapshotWriter::begin(files.clone(), 1, SALT)?;
    let (mut builder, mut frames) = (Builder::default(), Journal::default());
    let record = RecordView {
        key: b"a key",
        version: Version::new(1, 3),
        expires_at_ms: Some(4_102_444_800_000),
        body: Body::Value(Value::raw(Data::Slice(b"the value of it"))),
    };
    builder.push(&record).expect("it is short");
    builder.finish(partition, &mut frames).expect("it is short");
    let progress = Progress {
        last: Version::new(1, 3),
        commit: 3,
        horizon: 0,
    };
    Builder::partition(partition, progress, 1, &mut frames).expect("it is short");
    writer.write(&mut frames)?;
    writer.finish(Position::default(), 1, 1_772_323_200_000)?;
    Ok(())
}

#[test]
fn the_golden_files_are_read_and_written() {
    let folder_of_golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (cipher, key_id) in [
        (EncryptionCipher::Aes256Gcm, 7),
        (EncryptionCipher::ChaCha20Poly1305, 7),
    ] {
        let folder = Folder(std::env::temp_dir().join(format!(
            "henge-golden-{}-{}",
            cipher.name(),
            std::process::id()
        )));
        fs::create_dir_all(&folder.0).expect("a directory");
        let files = Files::new(&folder.0, Arc::new(encryption(cipher)));
        write(&files).expect("it is written");
        for (name, golden) in [
            (SEGMENT, format!("wal-2-{}.segment", cipher.name())),
            (SNAPSHOT, format!("snapshot-2-{}.snap", cipher.name())),
        ] {
            let written = fs::read(files.path(name)).expect("it is there");
            let golden = folder_of_golden.join(golden);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(&golden, &written).expect("the folder of golden files can be written to");
            }
            let kept =
                fs::read(&golden).unwrap_or_else(|error| panic!("{}: {error}", golden.display()));
            assert!(
                written == kept,
                "{}: the format changed without a new number",
                golden.display()
            );
            let header = Header::decode(&written).expect("it has one");
            assert_eq!((header.cipher, header.key_id), (number(cipher), key_id));
            let holds = |text: &[u8]| written.windows(text.len()).any(|part| part == text);
            assert!(!holds(b"a key") && !holds(b"the value"));
        }
        read(&files).expect("it is read");
        // What was written before is read for ever.
        for (name, golden) in [
            (SEGMENT, format!("wal-1-{}.segment", cipher.name())),
            (SNAPSHOT, format!("snapshot-1-{}.snap", cipher.name())),
        ] {
            let golden = folder_of_golden.join(golden);
            fs::copy(golden, files.path(name)).expect("it is there");
        }
        read(&files).expect("it is read");
        // The same directory for who has another key of that number.
        let mut config = Config::default();
        config.persistence.encryption = Some(cipher);
        let other = from_variable(Some(format!("7 {}", "e".repeat(64)).into()));
        let other = Encryption::of(&config, other.expect("it is a key")).expect("it is given");
        let files = Files::new(&folder.0, Arc::new(other));
        let error = read(&files).expect_err("it is another");
        assert!(
            matches!(error, RecoveryError::Key(SEGMENT, KeyError::Wrong(7))),
            "{error}"
        );
        let reader = SnapshotReader::open(&files, SNAPSHOT).expect("its head is plain");
        let error = reader.read_all(|_, _| Ok(())).expect_err("it is another");
        assert!(
            matches!(error, RecoveryError::Key(SNAPSHOT, KeyError::Wrong(7))),
            "{error}"
        );
    }
}

fn read(files: &Files) -> Result<(), RecoveryError> {
    assert!(files.keys().current().is_some());
    let mut kinds = Vec::new();
    read_log(files, 1, Position::default(), &mut |chunk| {
        for (_, body) in chunk.bodies() {
            let mut effects = Vec::new();
            kinds.push(match wal::decode(body, &mut effects) {
                Ok(Record::Mutation(mutation)) => {
                    assert_eq!(mutation.effects[0].0, b"a key");
                    'm'
                }
                Ok(Record::Synced(_)) => 's',
                Ok(Record::Follows(_)) => 'f',
                other => panic!("{other:?}"),
            });
        }
        Ok(())
    })?;
    assert_eq!(String::from_iter(kinds), "fsmsmsm");
    let mut parts = 0;
    SnapshotReader::open(files, SNAPSHOT)?.read_all(|_, part| {
        parts += 1;
        match part {
            Part::Block(block) => block.records(&mut Vec::new(), |record| {
                assert_eq!(record.key, b"a key");
            }),
            _ => Ok(()),
        }
    })?;
    assert_eq!(parts, 3);
    Ok(())
}
