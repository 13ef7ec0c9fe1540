//! Records of replicas against their golden files, against themselves, and against bodies that say what cannot be.

use super::super::frame::{
    Content, FRAME_BYTES, Frame, HEAD_BYTES, HEADER_BYTES, Header, REPLICA_FORMAT, frame,
};
use super::super::snapshot::{self, Builder, Part};
use super::super::tests::golden::golden;
use super::super::wal::{BEGIN_BYTES, Record, decode, may_begin, partition_of};
use super::super::{Position, wal};
use super::*;
use henge_wire::{Data, Value};
use proptest::prelude::*;

const HEADER: Header = Header {
    content: Content::Log,
    format: REPLICA_FORMAT,
    number: 42,
    cipher: 0,
    key_id: 0,
    salt: *b"salt of sixteen!",
};

fn partition(number: u16) -> Partition {
    Partition::new(number).expect("a partition")
}

fn state() -> ReplicaState {
    ReplicaState {
        adopted: 9,
        generation: 4,
        history: vec![(3, 1), (5, 40), (8, 40)],
    }
}

fn put(data: Data<'_>) -> Effect<'_> {
    Effect::Put {
        value: Value::raw(data),
        expires_at_ms: None,
    }
}

fn copied(key: &[u8], seq: u64, data: Option<Bytes>) -> RecordView<'_> {
    RecordView {
        key,
        version: Version::new(8, seq),
        expires_at_ms: data.as_ref().map(|_| 1_800_000_000_000),
        body: data.map_or(Body::Tombstone, |data| {
            Body::Value(Value::raw(Data::Shared(data)))
        }),
    }
}

/// One of everything.
fn examples() -> Journal {
    let mut out = Journal::default();
    let large = Bytes::from(vec![b'l'; 5_000]);
    let mut write = |record| {
        Record::Replica(record)
            .encode(&mut out)
            .expect("it is short");
    };
    let effects = [
        (&b"k"[..], put(Data::Slice(b"v"))),
        (b"large", put(Data::Shared(large.clone()))),
        (b"", Effect::Delete),
        (
            b"d",
            Effect::Expire {
                expires_at_ms: Some(7),
            },
        ),
    ];
    write(ReplicaRecord::Entry {
        mutation: Mutation {
            partition: partition(1_023),
            version: Version::new(8, 41),
            effects: &effects,
        },
        commit: 40,
    });
    write(ReplicaRecord::State {
        partition: partition(7),
        last: Version::new(8, 41),
        commit: 41,
        state: state(),
    });
    write(ReplicaRecord::Wiped {
        partition: partition(7),
        state: ReplicaState::default(),
    });
    let records = [copied(b"k", 42, Some(large)), copied(b"gone", 43, None)];
    encode_part(partition(7), 0, &records, &mut out).expect("it is short");
    let mut write = |record| {
        Record::Replica(record)
            .encode(&mut out)
            .expect("it is short");
    };
    for replace in [Replace::All, Replace::Above(41)] {
        write(ReplicaRecord::Installed {
            partition: partition(7),
            replace,
            progress: Progress {
                last: Version::new(8, 43),
                commit: 42,
                horizon: 41,
            },
            parts: 1,
            state: state(),
        });
    }
    write(ReplicaRecord::Scanned {
        partition: partition(512),
        snapshot: 42,
    });
    write(ReplicaRecord::Lost {
        partition: partition(7),
        state: ReplicaState {
            history: Vec::new(),
            ..state()
        },
    });
    out
}

fn bytes_of(mut journal: Journal, header: &Header) -> Vec<u8> {
    journal.seal(header.seed());
    journal.frames().iter().flatten().copied().collect()
}

fn bodies<'a>(header: &Header, mut input: &'a [u8]) -> Vec<&'a [u8]> {
    let mut bodies = Vec::new();
    while let Frame::Whole { body, len } = frame(header.seed(), input) {
        bodies.push(body);
        input = &input[len..];
    }
    assert!(input.iter().all(|&byte| byte == 0), "no frame");
    bodies
}

/// Reads a body and writes it again.
fn again(body: &[u8]) -> Result<Vec<u8>, Damage> {
    let mut effects = Vec::new();
    let record = decode(body, &mut effects)?;
    let Record::Replica(replica) = &record else {
        panic!("{record:?}");
    };
    assert_eq!(partition_of(body), Ok(Some(replica.partition())));
    let mut out = Journal::default();
    record.encode(&mut out).expect("it was in a frame");
    let frame = bytes_of(out, &HEADER);
    assert_eq!(frame.len(), body.len() + FRAME_BYTES);
    Ok(frame[HEAD_BYTES..frame.len() - 1].to_vec())
}

/// A file of format 2 is read, and written, for ever.
#[test]
fn the_golden_segment_is_read_and_written() {
    let mut written = HEADER.encode().to_vec();
    written.extend(bytes_of(examples(), &HEADER));
    let bytes = golden("wal-2.segment", &written);
    assert_eq!(Header::decode(&bytes), Ok(HEADER));
    let mut names = Vec::new();
    for body in bodies(&HEADER, &bytes[HEADER_BYTES..]) {
        assert_eq!(again(body).as_deref(), Ok(body));
        let begin = &body[..body.len().min(BEGIN_BYTES)];
        assert!(may_begin(body.len(), begin), "{body:?}");
        if let Ok(Record::Replica(record)) = decode(body, &mut Vec::new()) {
            names.push(record.name());
        }
    }
    let all = [
        "entry",
        "state",
        "wiped",
        "copied",
        "installed",
        "installed",
        "scanned",
        "lost",
    ];
    assert_eq!(names, all);
}

#[test]
fn the_golden_snapshot_is_read_and_written() {
    let header = Header {
        content: Content::Snapshot,
        ..HEADER
    };
    let (mut builder, mut out) = (Builder::default(), Journal::default());
    let progress = Progress {
        last: Version::new(8, 43),
        commit: 42,
        horizon: 41,
    };
    Builder::replica(partition(7), 41, &state(), &mut out).expect("it is short");
    let tombstone = copied(b"gone", 43, None);
    builder.push(&tombstone).expect("it is short");
    builder.finish(partition(7), &mut out).expect("it is short");
    Builder::partition(partition(7), progress, 1, &mut out).expect("it is short");
    Builder::complete(Position::default(), 1, 0, &mut out).expect("it is short");
    let mut written = header.encode().to_vec();
    written.extend(bytes_of(out, &header));
    let bytes = golden("snapshot-2.snap", &written);
    assert_eq!(Header::decode(&bytes), Ok(header));
    let bodies = bodies(&header, &bytes[HEADER_BYTES..]);
    let expected = Part::Replica {
        partition: partition(7),
        commit: 41,
        state: state(),
    };
    assert_eq!(snapshot::decode(bodies[0]), Ok(expected));
    assert!(snapshot::may_begin(
        bodies[0].len(),
        &bodies[0][..BEGIN_BYTES]
    ));
    assert_eq!(bodies.len(), 4);
}

#[test]
fn what_no_replica_would_write_is_refused() {
    let written = bytes_of(examples(), &HEADER);
    let bodies = bodies(&HEADER, &written);
    let with = |n: usize, at: usize, bytes: &[u8]| {
        let mut body = bodies[n].to_vec();
        body[at..at + bytes.len()].copy_from_slice(bytes);
        decode(&body, &mut Vec::new()).map(|_| ())
    };
    let unknown = |what, found| Err(Damage::Unknown(what, found));
    // A commit that is not below the version, or above the last.
    assert_eq!(with(0, 11, &[41]), unknown("commit", 41));
    assert_eq!(with(1, 11, &[42]), unknown("commit", 42));
    // The second term is not above the first; it begins before it; it is none that a version has.
    assert_eq!(with(1, 40, &[3]), unknown("term", 3));
    assert_eq!(with(1, 44, &[0]), unknown("term", 5));
    assert_eq!(with(1, 43, &[1]), unknown("term", 0x0100_0005));
    assert_eq!(with(1, 32, &[0]), unknown("term", 3));
    assert_eq!(with(1, 22, &[1]), unknown("term", 0x0100_0009));
    // A horizon above the commit, and a range that there is not.
    assert_eq!(with(4, 19, &[43]), unknown("progress with a horizon", 43));
    assert_eq!(with(4, 27, &[2]), unknown("range of a copy", 2));
    assert_eq!(with(4, 28, &[2]), unknown("range of a copy", 0));
    assert_eq!(with(6, 2, &[4]), unknown("partition", 1_024));
    // More records than there are, or fewer.
    assert_eq!(with(3, 7, &[3]), Err(Damage::Short));
    assert_eq!(with(3, 7, &[1]), Err(Damage::Long));
}

/// What is streamed is what is in the journal, whether a value in it is shared or not, and whatever is before it.
#[test]
fn effects_are_those_of_the_frame() {
    let key = b"k".to_vec();
    let partition = Partition::of(&key);
    let other = (0_u16..).map(|n| n.to_le_bytes().to_vec());
    let other = other
        .into_iter()
        .find(|key| Partition::of(key) != partition);
    let other = other.expect("there are several");
    for before in [0, 10, 5_000] {
        for lens in [vec![3], vec![5_000], vec![3, 5_000, 5_000, 1], vec![0]] {
            let mut journal = Journal::default();
            let value = |len| put(Data::Shared(vec![b'v'; len].into()));
            let entry = |effects: &[(&[u8], Effect<'_>)], journal: &mut Journal| {
                let mutation = Mutation {
                    partition,
                    version: Version::new(1, 9),
                    effects,
                };
                let record = Record::Replica(ReplicaRecord::Entry {
                    mutation,
                    commit: 3,
                });
                record.encode(journal).expect("it is short");
            };
            entry(&[(&key, value(before))], &mut journal);
            let len = journal.frames().len();
            let effects: Vec<_> = lens.iter().map(|&len| (&key[..], value(len))).collect();
            entry(&effects, &mut journal);
            let found = EncodedEffects::of_frame(&journal, journal.frames().len() - len);
            let bytes = Bytes::from(found.pieces().collect::<Vec<_>>().concat());
            assert_eq!(found.len(), bytes.len());
            let read = EncodedEffects::read(partition, bytes.clone()).expect("it was written so");
            for effects in [
                &found,
                &read,
                &EncodedEffects::encode(&effects).expect("short"),
            ] {
                assert_eq!(effects.pieces().collect::<Vec<_>>().concat(), bytes);
                let shown: Vec<usize> = effects.with(|effects| {
                    let len = |effect: &Effect<'_>| match effect {
                        Effect::Put { value, .. } => value.data.len(),
                        _ => panic!("a value was put"),
                    };
                    effects.iter().map(|(_, effect)| len(effect)).collect()
                });
                assert_eq!(shown, lens);
                // And into the journal of another.
                let mut copy = Journal::default();
                effects
                    .encode_entry(partition, Version::new(1, 9), 3, &mut copy)
                    .expect("it is short");
                let all = bytes_of(journal.clone(), &HEADER);
                assert_eq!(bytes_of(copy, &HEADER), all[len..]);
            }
            assert!(EncodedEffects::read(partition, bytes.slice(1..)).is_err());
            let foreign = EncodedEffects::encode(&[(&other, Effect::Delete)]).expect("short");
            let foreign = Bytes::from(foreign.pieces().collect::<Vec<_>>().concat());
            let refused = EncodedEffects::read(partition, foreign);
            assert!(matches!(refused, Err(Damage::Foreign(_))));
        }
    }
}

#[test]
fn a_copy_is_written_in_parts_that_have_a_bound() {
    let large = Bytes::from(vec![b'l'; PART_BYTES / 4 * 3]);
    let records: Vec<_> = (1..=9)
        .map(|seq| copied(b"k", seq, (seq % 3 > 0).then(|| large.clone())))
        .collect();
    let parts: Vec<usize> = parts(&records).map(<[_]>::len).collect();
    assert_eq!(parts, [2, 3, 3, 1]);
    assert_eq!(super::parts(&[]).count(), 0);
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(body in prop::collection::vec(any::<u8>(), 0..120), kind in KINDS, low in any::<bool>()) {
        // Numbers that are mostly small come further.
        let small = |byte: u8| if low { byte & 3 } else { byte };
        let body: Vec<u8> = [kind].into_iter().chain(body.into_iter().map(small)).collect();
        if wal::decode(&body, &mut Vec::new()).is_ok() {
            prop_assert_eq!(again(&body), Ok(body));
        }
    }
}

/// However a put is written, and whatever it puts.
#[test]
fn a_put_in_few_steps_is_the_same_bytes() {
    let partition = Partition::of(b"k");
    let long = vec![b'x'; 70_000];
    let (plain, large) = (Value::from_slice(b"value"), Value::from_slice(&long));
    let typed = Value {
        content_type: Some("text/plain"),
        ..plain.clone()
    };
    for (value, deadline) in [
        (&plain, None),
        (&plain, Some(9)),
        (&large, None),
        (&typed, None),
    ] {
        let (mut quick, mut whole) = (Journal::default(), Journal::default());
        let version = Version::new(3, 7);
        let quickly =
            encode_entry_put(&mut quick, (partition, version, 5), b"k", (value, deadline));
        quickly.expect("it is short");
        let effect = Effect::Put {
            value: value.clone(),
            expires_at_ms: deadline,
        };
        let mutation = Mutation {
            partition,
            version,
            effects: &[(b"k", effect)],
        };
        let entry = Record::Replica(ReplicaRecord::Entry {
            mutation,
            commit: 5,
        });
        entry.encode(&mut whole).expect("it is short");
        let frames = |journal: &mut Journal| {
            journal.seal(HEADER.seed());
            journal
                .frames()
                .iter()
                .flatten()
                .copied()
                .collect::<Vec<u8>>()
        };
        assert_eq!(
            frames(&mut quick),
            frames(&mut whole),
            "{value:?} {deadline:?}"
        );
    }
}
