//! The codec of the log against its golden file, against itself, and against every tear and every flipped bit.

use super::*;
use proptest::prelude::*;

/// A record that owns what it has.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Owned {
    Mutation(u16, u64, Vec<(Vec<u8>, OwnedEffect)>),
    Flush(u16, u64),
    Synced(u64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum OwnedEffect {
    Delete,
    Expire(Option<u64>),
    Put(OwnedValue, Option<u64>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct OwnedValue {
    data: Vec<u8>,
    encoding: Encoding,
    raw_len: u32,
    json: bool,
    content_type: Option<String>,
}

impl Owned {
    fn encode(&self, out: &mut Vec<u8>) {
        let partition = |number| Partition::new(number).expect("a partition");
        let encoded = match self {
            Self::Mutation(number, version, effects) => {
                let effects: Vec<(&[u8], Effect<'_>)> = effects
                    .iter()
                    .map(|(key, effect)| (key.as_slice(), effect.borrowed()))
                    .collect();
                Record::Mutation(Mutation {
                    partition: partition(*number),
                    version: Version::from_bits(*version),
                    effects: &effects,
                })
                .encode(out)
            }
            Self::Flush(number, last) => Record::Flush {
                partition: partition(*number),
                last: Version::from_bits(*last),
            }
            .encode(out),
            Self::Synced(offset) => Record::Synced { offset: *offset }.encode(out),
        };
        assert_eq!(encoded, Ok(()));
    }

    fn of(record: &Record<'_>) -> Self {
        match record {
            Record::Mutation(mutation) => Self::Mutation(
                mutation.partition.number(),
                mutation.version.to_bits(),
                mutation
                    .effects
                    .iter()
                    .map(|(key, effect)| (key.to_vec(), OwnedEffect::of(effect)))
                    .collect(),
            ),
            Record::Flush { partition, last } => Self::Flush(partition.number(), last.to_bits()),
            Record::Synced { offset } => Self::Synced(*offset),
        }
    }
}

impl OwnedEffect {
    fn borrowed(&self) -> Effect<'_> {
        match self {
            Self::Delete => Effect::Delete,
            Self::Expire(expires_at_ms) => Effect::Expire {
                expires_at_ms: *expires_at_ms,
            },
            Self::Put(value, expires_at_ms) => Effect::Put {
                value: Value {
                    data_type: DataType::String,
                    data: Data::Slice(&value.data),
                    encoding: value.encoding,
                    raw_len: value.raw_len,
                    json: value.json,
                    content_type: value.content_type.as_deref(),
                },
                expires_at_ms: *expires_at_ms,
            },
        }
    }

    fn of(effect: &Effect<'_>) -> Self {
        match effect {
            Effect::Delete => Self::Delete,
            Effect::Expire { expires_at_ms } => Self::Expire(*expires_at_ms),
            Effect::Put {
                value,
                expires_at_ms,
            } => Self::Put(
                OwnedValue {
                    data: value.data.to_vec(),
                    encoding: value.encoding,
                    raw_len: value.raw_len,
                    json: value.json,
                    content_type: value.content_type.map(str::to_owned),
                },
                *expires_at_ms,
            ),
        }
    }
}

/// The whole records from the begin on, and what is at the place after the last.
fn read(mut input: &[u8]) -> (Vec<Owned>, Result<bool, Damage>) {
    let mut records = Vec::new();
    loop {
        match frame(input) {
            Frame::Whole { body, len } => {
                match decode(body, &mut Vec::new()) {
                    Ok(record) => records.push(Owned::of(&record)),
                    Err(damage) => return (records, Err(damage)),
                }
                input = &input[len..];
            }
            Frame::End => return (records, Ok(true)),
            Frame::Torn => return (records, Ok(false)),
            Frame::Damaged(damage) => return (records, Err(damage)),
        }
    }
}

fn raw(data: &[u8]) -> OwnedValue {
    OwnedValue {
        data: data.to_vec(),
        encoding: Encoding::Raw,
        raw_len: data.len() as u32,
        json: false,
        content_type: None,
    }
}

/// One of everything.
fn examples() -> Vec<Owned> {
    let key = |text: &str| text.as_bytes().to_vec();
    let gzip = OwnedValue {
        data: vec![0x1f, 0x8b, 8, 0],
        encoding: Encoding::Gzip,
        raw_len: 70_000,
        json: true,
        content_type: Some("application/json".to_owned()),
    };
    let version = |seq| Version::new(3, seq).to_bits();
    vec![
        Owned::Mutation(
            0,
            version(1),
            vec![(key("k"), OwnedEffect::Put(raw(b"v"), None))],
        ),
        Owned::Mutation(
            1_023,
            version(2),
            vec![
                (key("a"), OwnedEffect::Put(gzip, Some(1_800_000_000_000))),
                (key(""), OwnedEffect::Delete),
                (key("b\0c"), OwnedEffect::Expire(Some(u64::MAX))),
                (key("d"), OwnedEffect::Expire(None)),
            ],
        ),
        Owned::Mutation(7, version(3), Vec::new()),
        Owned::Flush(
            512,
            Version::new(Version::MAX_TERM, Version::MAX_SEQ).to_bits(),
        ),
        Owned::Synced(4_096),
    ]
}

fn encoded(records: &[Owned]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        record.encode(&mut out);
    }
    out
}

const GOLDEN_HEADER: Header = Header {
    number: 42,
    cipher: 0,
    key_id: 0,
};

/// A file that version 1 wrote is read, and written, for ever.
#[test]
fn the_golden_segment_is_read_and_written() {
    let golden: &[u8] = include_bytes!("../../tests/golden/wal-1.segment");
    assert_eq!(Header::decode(golden), Ok(GOLDEN_HEADER));
    let (records, end) = read(&golden[HEADER_BYTES..]);
    assert_eq!((records, end), (examples(), Ok(true)));
    let mut written = GOLDEN_HEADER.encode().to_vec();
    written.extend(encoded(&examples()));
    written.resize(golden.len(), 0);
    assert_eq!(written, golden, "the format changed without a new number");
}

#[test]
fn the_checksum_is_that_of_the_catalogue() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn headers_say_what_is_wrong_with_them() {
    let good = GOLDEN_HEADER.encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        bytes
    };
    for (bytes, expected) in [
        (good.to_vec(), Ok(GOLDEN_HEADER)),
        (good[..31].to_vec(), Err(HeaderError::Short)),
        (Vec::new(), Err(HeaderError::Short)),
        (with(0, b'h').to_vec(), Err(HeaderError::NotASegment)),
        (with(8, 2).to_vec(), Err(HeaderError::Format(2))),
        (with(16, 43).to_vec(), Err(HeaderError::Checksum)),
        (with(31, !good[31]).to_vec(), Err(HeaderError::Checksum)),
    ] {
        assert_eq!(Header::decode(&bytes), expected);
    }
}

/// Wherever the log ends, exactly the records that are whole are read, and the rest is torn.
#[test]
fn torn_at_every_byte() {
    let records = examples();
    let whole = encoded(&records);
    let ends: Vec<usize> = (0..=records.len())
        .map(|count| encoded(&records[..count]).len())
        .collect();
    for cut in 0..=whole.len() {
        let count = ends.iter().filter(|&&end| end <= cut).count() - 1;
        let (read_back, end) = read(&whole[..cut]);
        assert_eq!(read_back, records[..count], "cut at {cut}");
        assert_eq!(end, Ok(ends.contains(&cut)), "cut at {cut}");
        // The same where the rest of the segment is zeros, as it is when it was made longer ahead of its use. What was cut may
        // have been zeros itself.
        let mut padded = whole[..cut].to_vec();
        padded.resize(whole.len() + 64, 0);
        let (read_back, _) = read(&padded);
        assert!(
            read_back.len() >= count && records.starts_with(&read_back),
            "cut at {cut}"
        );
    }
}

/// Whatever bit is wrong, what stands before it is read, and what it is in is not.
#[test]
fn flipped_at_every_bit() {
    let records = examples();
    let whole = encoded(&records);
    let ends: Vec<usize> = (0..=records.len())
        .map(|count| encoded(&records[..count]).len())
        .collect();
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let before = ends.iter().filter(|&&end| end <= bit / 8).count() - 1;
        let (read_back, end) = read(&damaged);
        assert_eq!(read_back, records[..before], "bit {bit}");
        assert_ne!(end, Ok(true), "bit {bit} was taken for the end");
    }
}

#[test]
fn bodies_of_the_right_checksum_and_the_wrong_content_are_refused() {
    let put = |form: u8| {
        [
            &[
                MUTATION, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, PUT, 0, 0, 0, 0, form,
            ][..],
            &[0; 4],
        ]
        .concat()
    };
    for (body, expected) in [
        (vec![0], Damage::Unknown("kind of record", 0)),
        (vec![9], Damage::Unknown("kind of record", 9)),
        (vec![SYNCED, 0, 0], Damage::Short),
        (vec![SYNCED, 0, 0, 0, 0, 0, 0, 0, 0, 0], Damage::Long),
        (vec![FLUSH, 0, 4], Damage::Unknown("partition", 1_024)),
        (put(1 << TYPE_SHIFT), Damage::Unknown("type of value", 16)),
        (put(1), Damage::Short),
        // A length of data that is not there.
        (
            [&put(0)[..19], &u32::MAX.to_le_bytes()].concat(),
            Damage::Short,
        ),
    ] {
        let mut effects = Vec::new();
        let found = decode(&body, &mut effects).map(|record| Owned::of(&record));
        assert_eq!(found, Err(expected), "{body:?}");
    }
    for operation in [3, DELETE | HAS_DEADLINE, 8, 0x80] {
        let mut body = put(0);
        body[13] = operation;
        body.extend([0; 8]);
        let mut effects = Vec::new();
        let found = decode(&body, &mut effects).map(|record| Owned::of(&record));
        let expected = Damage::Unknown("effect", operation.into());
        assert_eq!(found, Err(expected));
    }
}

#[test]
fn what_a_frame_cannot_say_is_not_written() {
    let many = vec![(&b"k"[..], Effect::Delete); usize::from(u16::MAX) + 1];
    let record = Record::Mutation(Mutation {
        partition: Partition::new(0).expect("a partition"),
        version: Version::new(1, 1),
        effects: &many,
    });
    let mut out = b"before".to_vec();
    assert_eq!(record.encode(&mut out), Err(TooLong));
    assert_eq!(out, b"before");
    let huge = (MAX_BODY_BYTES as u32 + 1).to_le_bytes();
    let input = [&huge[..], &[1; 12]].concat();
    let expected = Damage::Length(MAX_BODY_BYTES as u32 + 1);
    assert_eq!(frame(&input), Frame::Damaged(expected));
}

fn any_value() -> impl Strategy<Value = OwnedValue> {
    (
        prop::collection::vec(any::<u8>(), 0..60),
        0..4_usize,
        any::<u32>(),
        any::<bool>(),
        prop::option::of("[a-z/]{0,20}"),
    )
        .prop_map(|(data, encoding, raw_len, json, content_type)| OwnedValue {
            raw_len: if encoding == 0 {
                data.len() as u32
            } else {
                raw_len
            },
            data,
            encoding: Encoding::ALL[encoding],
            json,
            content_type,
        })
}

fn any_record() -> impl Strategy<Value = Owned> {
    let effect = prop_oneof![
        Just(OwnedEffect::Delete),
        any::<Option<u64>>().prop_map(OwnedEffect::Expire),
        (any_value(), any::<Option<u64>>())
            .prop_map(|(value, deadline)| OwnedEffect::Put(value, deadline)),
    ];
    let effects = prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), effect), 0..5);
    prop_oneof![
        8 => (0..1_024_u16, any::<u64>(), effects)
            .prop_map(|(partition, version, effects)| Owned::Mutation(partition, version, effects)),
        1 => (0..1_024_u16, any::<u64>()).prop_map(|(partition, last)| Owned::Flush(partition, last)),
        1 => any::<u64>().prop_map(Owned::Synced),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(records in prop::collection::vec(any_record(), 0..20)) {
        prop_assert_eq!(read(&encoded(&records)), (records, Ok(true)));
    }

    #[test]
    fn no_bytes_are_a_panic(body in prop::collection::vec(any::<u8>(), 0..80), kind in 0..5_u8) {
        let body = [&[kind][..], &body].concat();
        let mut effects = Vec::new();
        // Whatever is read is written as the same bytes: there is one way to say a thing.
        if let Ok(record) = decode(&body, &mut effects) {
            let mut out = Vec::new();
            prop_assert_eq!(record.encode(&mut out), Ok(()));
            prop_assert_eq!(&out[FRAME_BYTES..], &body[..]);
        }
        let _ = frame(&body);
    }
}
