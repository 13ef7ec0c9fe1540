//! The records of the log against their golden file, against themselves, and against bodies that say what cannot be.

use super::super::frame::{self, Content, FORMAT, FRAME_BYTES, Frame, HEADER_BYTES, Header, Seed};
use super::super::tests::golden::golden;
use super::*;
use proptest::prelude::*;

/// A record that owns what it has.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Owned {
    Mutation(u16, u64, Vec<(Vec<u8>, OwnedEffect)>),
    Flush(u16, u64),
    Synced(Position),
    Started(u64, u64),
    Gap(u64),
    Follows(Position),
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
    fn encode(&self, out: &mut Journal) {
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
            Self::Synced(position) => Record::Synced(*position).encode(out),
            Self::Started(incarnation, first) => Record::Started {
                incarnation: *incarnation,
                first: Version::from_bits(*first),
            }
            .encode(out),
            Self::Gap(bytes) => Record::Gap { bytes: *bytes }.encode(out),
            Self::Follows(position) => Record::Follows(*position).encode(out),
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
            Record::Synced(position) => Self::Synced(*position),
            Record::Started { incarnation, first } => Self::Started(*incarnation, first.to_bits()),
            Record::Gap { bytes } => Self::Gap(*bytes),
            Record::Follows(position) => Self::Follows(*position),
            Record::Replica(record) => panic!("{}: of a node that replicates", record.name()),
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
                    // What is shared is kept by reference if it is long, and the bytes are the same.
                    data: Data::Shared(value.data.clone().into()),
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

/// The whole records from the begin on; behind them there has to be nothing.
fn read(seed: Seed, mut input: &[u8]) -> Result<Vec<Owned>, Damage> {
    let mut records = Vec::new();
    while let Frame::Whole { body, len } = frame::frame(seed, input) {
        records.push(Owned::of(&decode(body, &mut Vec::new())?));
        input = &input[len..];
    }
    assert!(input.iter().all(|&byte| byte == 0), "no frame: {input:?}");
    Ok(records)
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
        Owned::Follows(Position {
            segment: 41,
            offset: 9_999,
        }),
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
        Owned::Flush(512, Version::new(Version::MAX_TERM, LAST_SEQ).to_bits()),
        Owned::Synced(Position {
            segment: 41,
            offset: 4_096,
        }),
        Owned::Started(17, version(99)),
        Owned::Gap(1 << 40),
    ]
}

fn encoded(seed: Seed, records: &[Owned]) -> Vec<u8> {
    let mut out = Journal::default();
    for record in records {
        record.encode(&mut out);
    }
    assert_eq!(out.records(), records.len() as u64);
    out.seal(seed);
    out.frames().iter().flatten().copied().collect()
}

const GOLDEN_HEADER: Header = Header {
    content: Content::Log,
    format: FORMAT,
    number: 42,
    cipher: 0,
    key_id: 0,
    salt: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255],
};

/// A file that version 1 wrote is read, and written, for ever.
#[test]
fn the_golden_segment_is_read_and_written() {
    let mut written = GOLDEN_HEADER.encode().to_vec();
    written.extend(encoded(GOLDEN_HEADER.seed(), &examples()));
    // Room that was made ahead.
    written.resize(written.len() + 64, 0);
    let bytes = golden("wal-1.segment", &written);
    assert_eq!(Header::decode(&bytes), Ok(GOLDEN_HEADER));
    let records = read(GOLDEN_HEADER.seed(), &bytes[HEADER_BYTES..]);
    assert_eq!(records, Ok(examples()));
}

#[test]
fn the_partition_stands_at_the_begin() {
    for record in examples() {
        let frame = encoded(GOLDEN_HEADER.seed(), std::slice::from_ref(&record));
        let body = &frame[frame::HEAD_BYTES..frame.len() - 1];
        let expected = match record {
            Owned::Mutation(number, ..) | Owned::Flush(number, _) => Partition::new(number),
            _ => None,
        };
        assert_eq!(partition_of(body), Ok(expected));
    }
    assert_eq!(partition_of(&[]), Err(Damage::Short));
    assert_eq!(partition_of(&[MUTATION, 1]), Err(Damage::Short));
    let unknown = Damage::Unknown("partition", 1_024);
    assert_eq!(partition_of(&[FLUSH, 0, 4]), Err(unknown));
}

/// Who looks for a `synced` among bytes that are no frames looks for these.
#[test]
fn a_synced_has_the_length_and_the_kind_that_it_is_looked_for_by() {
    let synced = Owned::Synced(Position::default());
    let frame = encoded(GOLDEN_HEADER.seed(), &[synced]);
    let body = &frame[frame::HEAD_BYTES..frame.len() - 1];
    assert_eq!(SYNCED_BODY, (body.len(), body[0]));
}

/// A repair puts it in the place of what it leaves out, so that nothing behind that moves.
#[test]
fn a_gap_is_as_long_as_it_has_to_be() {
    for len in [GAP_BODY_BYTES, GAP_BODY_BYTES + 1, 5_000] {
        let body = gap_body(77, len);
        assert_eq!(body.len(), len);
        let mut effects = Vec::new();
        let found = decode(&body, &mut effects).map(|record| Owned::of(&record));
        assert_eq!(found, Ok(Owned::Gap(77)));
        let mut odd = body.clone();
        odd[len - 1] = 1;
        let found = decode(&odd, &mut effects).map(|record| Owned::of(&record));
        let is_length = len == GAP_BODY_BYTES;
        assert_eq!(found.is_ok(), is_length, "{len}");
    }
    let shortest = encoded(GOLDEN_HEADER.seed(), &[Owned::Gap(77)]);
    assert_eq!(shortest.len(), GAP_BODY_BYTES + FRAME_BYTES);
}

/// Who searches for frames finds all that may be written.
#[test]
fn what_is_written_begins_as_a_frame_may() {
    for record in examples() {
        let frame = encoded(GOLDEN_HEADER.seed(), std::slice::from_ref(&record));
        let body = &frame[frame::HEAD_BYTES..frame.len() - 1];
        let begin = &body[..body.len().min(BEGIN_BYTES)];
        assert!(may_begin(body.len(), begin), "{record:?}");
    }
    for (len, begin) in [
        (13, &[0, 0, 0][..]),
        (13, &[MUTATION, 0, 4]),
        (12, &[MUTATION, 0, 0]),
        (12, &[FLUSH, 0, 0]),
        (16, &[SYNCED]),
        (18, &[FOLLOWS]),
        (9, &[GAP, 0, 0, 0, 0, 0, 0, 0, 1]),
        (17, &[99]),
        (0, &[]),
    ] {
        assert!(!may_begin(len, begin), "{len} {begin:?}");
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
    let long_key = MAX_KEY_BYTES as u32 + 1;
    for (body, expected) in [
        (vec![0], Damage::Unknown("kind of record", 0)),
        (vec![99], Damage::Unknown("kind of record", 99)),
        (vec![SYNCED, 0, 0], Damage::Short),
        (vec![SYNCED; 18], Damage::Long),
        (vec![STARTED; 16], Damage::Short),
        (vec![GAP; 10], Damage::Long),
        (vec![FLUSH, 0, 4], Damage::Unknown("partition", 1_024)),
        (put(1 << TYPE_SHIFT), Damage::Unknown("type of value", 16)),
        (put(1), Damage::Short),
        // A length of data that is not there.
        (
            [&put(0)[..19], &u32::MAX.to_le_bytes()].concat(),
            Damage::Short,
        ),
        // A key that no command could have had.
        (
            [
                &put(0)[..14],
                &long_key.to_le_bytes(),
                &vec![b'k'; long_key as usize],
                &[0; 5],
            ]
            .concat(),
            Damage::Unknown("length of a key", long_key.into()),
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

/// The next write would find no version that it could stamp.
#[test]
fn versions_at_the_end_of_their_order_are_refused() {
    let seed = GOLDEN_HEADER.seed();
    for (seq, is_taken) in [
        (Version::MAX_SEQ / 2, true),
        (LAST_SEQ, true),
        (LAST_SEQ + 1, false),
        (Version::MAX_SEQ, false),
    ] {
        let version = Version::new(1, seq).to_bits();
        for record in [
            Owned::Started(1, version),
            Owned::Flush(3, version),
            Owned::Mutation(3, version, Vec::new()),
        ] {
            let expected = if is_taken {
                Ok(vec![record.clone()])
            } else {
                Err(Damage::Version(Version::from_bits(version)))
            };
            let found = read(seed, &encoded(seed, std::slice::from_ref(&record)));
            assert_eq!(found, expected, "{record:?}");
        }
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
    let mut out = Journal::default();
    examples()[0].encode(&mut out);
    let before = out.frames().len();
    assert_eq!(record.encode(&mut out), Err(TooLong));
    assert_eq!((out.frames().len(), out.records()), (before, 1));
}

fn any_value() -> impl Strategy<Value = OwnedValue> {
    let data = prop_oneof![
        9 => prop::collection::vec(any::<u8>(), 0..60),
        1 => (4_000_usize..4_200, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
    ];
    (
        data,
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

/// A version that may be read.
pub(in super::super) fn any_version() -> impl Strategy<Value = Version> {
    (0..=Version::MAX_TERM, 0..=LAST_SEQ).prop_map(|(term, seq)| Version::new(term, seq))
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
        8 => (0..1_024_u16, any_version(), effects)
            .prop_map(|(partition, version, effects)| Owned::Mutation(partition, version.to_bits(), effects)),
        1 => (0..1_024_u16, any_version()).prop_map(|(partition, last)| Owned::Flush(partition, last.to_bits())),
        1 => any::<[u64; 2]>().prop_map(|[segment, offset]| Owned::Synced(Position { segment, offset })),
        1 => (any::<u64>(), any_version())
            .prop_map(|(incarnation, first)| Owned::Started(incarnation, first.to_bits())),
        1 => any::<u64>().prop_map(Owned::Gap),
        1 => any::<[u64; 2]>().prop_map(|[segment, offset]| Owned::Follows(Position { segment, offset })),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        records in prop::collection::vec(any_record(), 0..20),
        salt in any::<[u8; 16]>(),
    ) {
        let seed = Header { salt, ..GOLDEN_HEADER }.seed();
        prop_assert_eq!(read(seed, &encoded(seed, &records)), Ok(records));
    }

    #[test]
    fn no_bytes_are_a_panic(body in prop::collection::vec(any::<u8>(), 0..80), kind in 0..7_u8) {
        let body = [&[kind][..], &body].concat();
        let mut effects = Vec::new();
        // Whatever is read is written as the same bytes: there is one way to say a thing, and a gap may be longer.
        if let Ok(record) = decode(&body, &mut effects) {
            let body = match record {
                Record::Gap { .. } => &body[..GAP_BODY_BYTES],
                _ => &body[..],
            };
            let mut out = Journal::default();
            prop_assert_eq!(record.encode(&mut out), Ok(()));
            let frame: Vec<u8> = out.frames().iter().flatten().copied().collect();
            prop_assert_eq!(frame.len(), body.len() + FRAME_BYTES);
            prop_assert_eq!(&frame[frame::HEAD_BYTES..][..body.len()], body);
        }
        let _ = partition_of(&body);
    }
}
