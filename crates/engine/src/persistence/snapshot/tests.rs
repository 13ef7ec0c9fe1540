//! The parts of a snapshot against their golden file, against themselves, and against bodies that say what cannot be.

use super::super::frame::{Content, FORMAT, Frame, HEADER_BYTES, Header, frame};
use super::super::tests::golden::golden;
use super::super::wal::tests::any_version;
use super::*;
use crate::record::Body;
use henge_wire::{Data, DataType, Value, Version};
use proptest::prelude::*;

/// A record that owns what it has.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Owned {
    key: Vec<u8>,
    version: Version,
    deadline: Option<u64>,
    /// None for a tombstone.
    value: Option<OwnedValue>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct OwnedValue {
    data: Vec<u8>,
    encoding: Encoding,
    raw_len: u32,
    json: bool,
    typed: Option<String>,
}

impl Owned {
    fn view(&self) -> RecordView<'_> {
        let body = self.value.as_ref().map_or(Body::Tombstone, |value| {
            Body::Value(Value {
                data_type: DataType::String,
                data: Data::Shared(value.data.clone().into()),
                encoding: value.encoding,
                raw_len: value.raw_len,
                json: value.json,
                content_type: value.typed.as_deref(),
            })
        });
        RecordView {
            key: &self.key,
            version: self.version,
            expires_at_ms: self.deadline,
            body,
        }
    }

    fn of(record: &RecordView<'_>) -> Self {
        Self {
            key: record.key.to_vec(),
            version: record.version,
            deadline: record.expires_at_ms,
            value: match &record.body {
                Body::Tombstone => None,
                Body::Value(value) => Some(OwnedValue {
                    data: value.data.to_vec(),
                    encoding: value.encoding,
                    raw_len: value.raw_len,
                    json: value.json,
                    typed: value.content_type.map(str::to_owned),
                }),
            },
        }
    }
}

/// A part that owns what it has.
#[derive(Clone, PartialEq, Eq, Debug)]
enum OwnedPart {
    /// How it is compressed, and its records.
    Block(u16, Encoding, Vec<Owned>),
    Partition(u16, Progress, u64),
    Complete(Position, u64, u64),
}

fn partition(number: u16) -> Partition {
    Partition::new(number).expect("a partition")
}

fn encode(parts: &[OwnedPart]) -> Journal {
    let mut out = Journal::default();
    let mut builder = Builder::default();
    for part in parts {
        let written = match part {
            OwnedPart::Block(number, _, records) => {
                for record in records {
                    assert_eq!(builder.push(&record.view()), Ok(()));
                }
                builder.finish(partition(*number), &mut out)
            }
            OwnedPart::Partition(number, progress, records) => {
                Builder::partition(partition(*number), *progress, *records, &mut out)
            }
            OwnedPart::Complete(position, records, at_ms) => {
                Builder::complete(*position, *records, *at_ms, &mut out)
            }
        };
        assert_eq!(written, Ok(()));
    }
    out
}

fn decoded(body: &[u8]) -> Result<OwnedPart, Damage> {
    Ok(match decode(body)? {
        Part::Block(block) => {
            let mut records = Vec::new();
            block.records(&mut b"left over".to_vec(), |record| {
                records.push(Owned::of(&record));
            })?;
            assert_eq!(records.len(), block.records as usize);
            OwnedPart::Block(block.partition.number(), block.encoding, records)
        }
        Part::Replica { .. } => panic!("of a node that replicates"),
        Part::Partition {
            partition,
            progress,
            records,
        } => OwnedPart::Partition(partition.number(), progress, records),
        Part::Complete {
            position,
            records,
            at_ms,
        } => OwnedPart::Complete(position, records, at_ms),
    })
}

const HEADER: Header = Header {
    content: Content::Snapshot,
    format: FORMAT,
    number: 7,
    cipher: 0,
    key_id: 0,
    salt: [3; 16],
};

fn bytes_of(mut frames: Journal) -> Vec<u8> {
    frames.seal(HEADER.seed());
    frames.frames().iter().flatten().copied().collect()
}

fn read(mut input: &[u8]) -> Result<Vec<OwnedPart>, Damage> {
    let mut parts = Vec::new();
    while let Frame::Whole { body, len } = frame(HEADER.seed(), input) {
        parts.push(decoded(body)?);
        input = &input[len..];
    }
    assert_eq!(input, b"", "no frame");
    Ok(parts)
}

/// A value that was given as it is.
fn raw(key: &str, seq: u64, data: &[u8]) -> Owned {
    Owned {
        key: key.into(),
        version: Version::new(2, seq),
        deadline: None,
        value: Some(OwnedValue {
            data: data.to_vec(),
            encoding: Encoding::Raw,
            raw_len: data.len() as u32,
            json: false,
            typed: None,
        }),
    }
}

fn tombstone(key: &str, seq: u64) -> Owned {
    Owned {
        key: key.into(),
        version: Version::new(2, seq),
        deadline: None,
        value: None,
    }
}

/// One of everything.
fn examples() -> Vec<OwnedPart> {
    let json = Owned {
        deadline: Some(1_800_000_000_000),
        value: Some(OwnedValue {
            data: vec![0x1f, 0x8b, 8, 0],
            encoding: Encoding::Gzip,
            raw_len: 70_000,
            json: true,
            typed: Some("application/json".to_owned()),
        }),
        ..raw("json", 6, b"")
    };
    let progress = |last, commit, horizon| Progress {
        last: Version::new(2, last),
        commit,
        horizon,
    };
    vec![
        // Nothing in it comes twice.
        OwnedPart::Block(
            5,
            Encoding::Raw,
            vec![raw("k", 4, &std::array::from_fn::<u8, 99, _>(|n| n as u8))],
        ),
        OwnedPart::Block(
            5,
            Encoding::Lz4,
            vec![
                raw("long", 9, &[b'z'; 600]),
                raw("", 8, b""),
                tombstone("gone", 5),
                json,
            ],
        ),
        OwnedPart::Partition(5, progress(8, 7, 3), 5),
        OwnedPart::Partition(6, progress(0, 0, 0), 0),
        // Its one value is too large to be copied, and compressed with others.
        OwnedPart::Block(1_023, Encoding::Raw, vec![raw("large", 1, &[b'l'; 5_000])]),
        OwnedPart::Partition(1_023, progress(1, 1, 1), 1),
        OwnedPart::Complete(
            Position {
                segment: 8,
                offset: 4_096,
            },
            6,
            1_767_225_600_000,
        ),
    ]
}

/// A file that version 1 wrote is read, and written, for ever. How a block is compressed is the library's choice: if a new one
/// chooses otherwise, the old file is still to be read, and a second one joins it.
#[test]
fn the_golden_snapshot_is_read_and_written() {
    let written = [&HEADER.encode()[..], &bytes_of(encode(&examples()))].concat();
    let bytes = golden("snapshot-1.snap", &written);
    assert_eq!(Header::decode(&bytes), Ok(HEADER));
    let parts = read(&bytes[HEADER_BYTES..]).expect("it is whole");
    assert_eq!(parts.len(), examples().len());
    for (part, expected) in parts.into_iter().zip(examples()) {
        assert_eq!(part, expected);
    }
}

#[test]
fn bodies_of_the_right_checksum_and_the_wrong_content_are_refused() {
    let block = |encoding: u8, raw_len: u32, records: u32, data: &[u8]| {
        [
            &[BLOCK, 0, 0][..],
            &records.to_le_bytes(),
            &[encoding],
            &raw_len.to_le_bytes(),
            data,
        ]
        .concat()
    };
    // Version, a delete, the length of the key, the key.
    let record = [&[9; 8][..], &[0], &1_u32.to_le_bytes(), b"k"].concat();
    let len = record.len() as u32;
    let compressed = lz4_flex::block::compress(&record);
    let expire = [&[9; 8][..], &[1, 0, 0, 0, 0]].concat();
    let progress = |last: u64, commit: u64, horizon: u64| {
        let numbers = [last, commit, horizon, 0].map(u64::to_le_bytes);
        [&[PARTITION, 0, 0][..], numbers.as_flattened()].concat()
    };
    let lengths = |len: u32| Damage::Unknown("length of a block", len.into());
    for (body, expected) in [
        (vec![], Damage::Short),
        (vec![0], Damage::Unknown("part of a snapshot", 0)),
        (vec![99], Damage::Unknown("part of a snapshot", 99)),
        (vec![BLOCK, 0, 4], Damage::Unknown("partition", 1_024)),
        (
            block(1, len, 1, &record),
            Damage::Unknown("encoding of a block", 1),
        ),
        (block(0, len + 1, 1, &record), lengths(len + 1)),
        (block(0, len, 2, &record), Damage::Short),
        (block(0, len, 0, &record), Damage::Long),
        (block(3, len + 1, 1, &compressed), lengths(len + 1)),
        (block(3, len - 1, 1, &compressed), lengths(len - 1)),
        // It says that it is longer than a block may be, and no memory is taken for it.
        (block(3, u32::MAX, 1, &compressed), lengths(u32::MAX)),
        (block(3, len, 1, &[]), lengths(len)),
        (block(3, len, 1, &[0xff; 40]), lengths(len)),
        (
            block(0, expire.len() as u32, 1, &expire),
            Damage::Unknown("effect", 1),
        ),
        (
            progress(5, 4, 5),
            Damage::Unknown("progress with a horizon", 5),
        ),
        (
            progress(5, 6, 4),
            Damage::Unknown("progress with a horizon", 4),
        ),
        (progress(5, 5, 5)[..34].to_vec(), Damage::Short),
        (vec![COMPLETE; 34], Damage::Long),
        (vec![COMPLETE; 32], Damage::Short),
    ] {
        assert_eq!(decoded(&body), Err(expected), "{body:?}");
    }
}

fn any_record() -> impl Strategy<Value = Owned> {
    let data = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..60),
        2 => (0_usize..4_200, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
    ];
    let value = (
        data,
        0..4_usize,
        any::<u32>(),
        any::<bool>(),
        prop::option::of("[a-z/]{0,20}"),
    );
    let value = value.prop_map(|(data, encoding, raw_len, json, typed)| {
        let raw_len = if encoding == 0 {
            data.len() as u32
        } else {
            raw_len
        };
        OwnedValue {
            data,
            encoding: Encoding::ALL[encoding],
            raw_len,
            json,
            typed,
        }
    });
    let key = prop::collection::vec(any::<u8>(), 0..20);
    (
        key,
        any_version(),
        any::<Option<u64>>(),
        prop::option::of(value),
    )
        .prop_map(|(key, version, deadline, value)| Owned {
            key,
            version,
            deadline: deadline.filter(|_| value.is_some()),
            value,
        })
}

/// However many records are pushed before blocks are finished, none is longer than its bound, but for one of a single record.
#[test]
fn a_block_has_a_bound() {
    let partition = partition(5);
    // Copied as well as shared ones; some compress, and some have a bound of their own.
    let lengths = [
        100, 40_000, 60_000, 60_000, 1_000_000, 3_000, 3_000, 130_000, 1, 700_000, 131_040, 131_072,
    ];
    let records: Vec<Owned> = (1..)
        .zip(lengths)
        .map(|(seq, len)| raw("key", seq, &vec![b'v'; len]))
        .collect();
    for is_shared in [false, true] {
        let (mut builder, mut out) = (Builder::default(), Journal::default());
        for record in &records {
            let mut view = record.view();
            if let (false, Body::Value(value), Some(owned)) =
                (is_shared, &mut view.body, &record.value)
            {
                value.data = Data::Slice(&owned.data);
            }
            assert_eq!(builder.push(&view), Ok(()));
        }
        builder.finish(partition, &mut out).expect("none is long");
        let bytes = bytes_of(out);
        let (mut input, mut found) = (&bytes[..], Vec::new());
        while let Frame::Whole { body, len } = frame(HEADER.seed(), input) {
            let Ok(Part::Block(block)) = decode(body) else {
                panic!("only blocks were written");
            };
            let raw_bytes = block.raw_bytes() as usize;
            assert!(
                raw_bytes <= BLOCK_BYTES || block.records == 1,
                "{raw_bytes} bytes of {} records",
                block.records
            );
            let read = block.records(&mut Vec::new(), |record| found.push(Owned::of(&record)));
            assert_eq!(read, Ok(()));
            input = &input[len..];
        }
        assert_eq!(input, b"", "no frame");
        assert!(found == records, "{} of them", found.len());
    }
}

/// Who searches for frames finds all that may be written.
#[test]
fn what_is_written_begins_as_a_part_may() {
    let bytes = bytes_of(encode(&examples()));
    let mut input = &bytes[..];
    let mut found = 0;
    while let Frame::Whole { body, len } = frame(HEADER.seed(), input) {
        let begin = &body[..body.len().min(super::super::wal::BEGIN_BYTES)];
        assert!(may_begin(body.len(), begin), "{body:?}");
        assert!(
            !may_begin(body.len() + 1, begin) || begin[7] == 3,
            "{body:?}"
        );
        (input, found) = (&input[len..], found + 1);
    }
    assert!(found > 2, "{found}");
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        records in prop::collection::vec(any_record(), 1..20),
        number in 0..1_024_u16,
    ) {
        let parts = [OwnedPart::Block(number, Encoding::Raw, records.clone())];
        let found = read(&bytes_of(encode(&parts)));
        let [OwnedPart::Block(at, _, found)] = &found.expect("it was written so")[..] else {
            panic!("one block was written");
        };
        prop_assert_eq!((*at, found), (number, &records));
    }

    #[test]
    fn no_bytes_are_a_panic(body in prop::collection::vec(any::<u8>(), 0..120), kind in 0..4_u8) {
        let _ = decoded(&[&[kind][..], &body].concat());
        // A block in which nothing is wrong but its records.
        let head = [&[BLOCK, 0, 0, 3, 0, 0, 0, 0][..], &(body.len() as u32).to_le_bytes()].concat();
        let _ = decoded(&[&head[..], &body].concat());
    }
}
