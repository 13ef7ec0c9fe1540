//! Frames as bytes against their golden file, which is read for ever, against themselves by chance, and against bytes that are
//! none.

use super::super::tests::seeds;
use super::*;
use crate::testing::random::Random;
use henge_wire::{DataType, Effect, Encoding};
use std::fs;
use std::path::Path;

type Of = Frame<EncodedEffects, Value>;

/// Keys of one partition, as they share a slot.
fn key(number: u64) -> Vec<u8> {
    format!("{{k}}{number}").into_bytes()
}

fn partition() -> Partition {
    Partition::of(&key(0))
}

fn flat(frame: &Of) -> Bytes {
    let mut pieces = Pieces::default();
    frame.encode(&mut pieces).expect("it is short");
    let flat = pieces.iter().collect::<Vec<_>>().concat();
    assert_eq!(flat.len(), pieces.len());
    flat.into()
}

fn frame(bodies: Vec<Body<EncodedEffects, Value>>) -> Of {
    let messages = bodies.into_iter().map(|body| {
        let message = Message { term: 9, body };
        (partition(), message)
    });
    Frame {
        incarnation: 3,
        messages: messages.collect(),
        contexts: Vec::new(),
        acks: Vec::new(),
        probes: None,
        echoes: None,
    }
}

fn value(data: Vec<u8>) -> Value {
    Value {
        data_type: DataType::String,
        raw_len: data.len() as u32,
        data: data.into(),
        encoding: Encoding::Raw,
        json: false,
        content_type: None,
        expires_at_ms: None,
    }
}

fn record(number: u64, value: Option<Value>) -> (Vec<u8>, Option<Record<Value>>) {
    let record = Record {
        key: key(number),
        version: Version::new(8, 40 + number),
        value,
    };
    (key(number), Some(record))
}

fn effects(effects: &[(&[u8], Effect<'_>)]) -> EncodedEffects {
    EncodedEffects::encode(effects).expect("they are short")
}

fn put(value: &Value) -> Effect<'_> {
    Effect::Put {
        value: value.view(),
        expires_at_ms: value.expires_at_ms,
    }
}

/// One of everything.
fn example() -> Of {
    let history = History::from(&[(3, 1), (5, 40), (8, 40)][..]);
    let typed = Value {
        encoding: Encoding::Zstd,
        raw_len: 70,
        json: true,
        content_type: Some("application/json".into()),
        expires_at_ms: Some(1_800_000_000_000),
        ..value(b"as if encoded".to_vec())
    };
    let large = value(vec![b'l'; 5_000]);
    let small = value(b"small".to_vec());
    let [a, b, c, d] = [1, 2, 3, 4].map(key);
    let many: [(&[u8], Effect<'_>); 4] = [
        (&a, put(&small)),
        (&b, put(&large)),
        (&c, Effect::Delete),
        (
            &d,
            Effect::Expire {
                expires_at_ms: Some(1_800_000_000_001),
            },
        ),
    ];
    let entry = |seq, effects| Entry {
        version: Version::new(9, seq),
        effects,
    };
    let bodies = vec![
        Body::Fence { generation: 4 },
        Body::Fenced {
            last: Version::new(8, 50),
            history: history.clone(),
        },
        Body::Refused { adopted: 10 },
        Body::Open {
            generation: 4,
            base: 50,
            history: history.clone(),
        },
        Body::Aligned { applied: 50 },
        Body::Pull {
            id: 6,
            common: 39,
            wanted: Some(Version::new(8, 50)),
            keys: vec![key(1), key(2)],
        },
        Body::Pull {
            id: 7,
            common: 0,
            wanted: None,
            keys: Vec::new(),
        },
        Body::Next { id: 7, number: 1 },
        Body::Part {
            id: 7,
            number: 0,
            is_full: true,
            states: vec![
                record(1, Some(small.clone())),
                record(2, Some(large.clone())),
            ],
            end: None,
        },
        Body::Part {
            id: 7,
            number: 1,
            is_full: false,
            states: vec![record(3, Some(typed)), record(4, None), (key(5), None)],
            end: Some(End {
                at: Version::new(8, 50),
                history,
                commit: 49,
                horizon: 12,
            }),
        },
        Body::Abort { id: 7 },
        Body::Append {
            entry: entry(51, effects(&[(&a, put(&small))])),
            commit: 50,
        },
        Body::Append {
            entry: entry(52, effects(&many)),
            commit: 51,
        },
        Body::Beat {
            last: 52,
            commit: 51,
        },
        Body::Ack { applied: 52 },
        Body::Probe { number: 5 },
        Body::Echo { number: 5 },
    ];
    let other = Partition::new(1_023).expect("the last");
    Frame {
        acks: vec![(partition(), 9, 52), (other, 2, 7)],
        probes: Some((11, vec![(other, 2, 3)])),
        echoes: Some(nobody(12, 3)),
        ..frame(bodies)
    }
}

/// An answer in which nobody echoes.
fn nobody(number: u64, adoptions: u64) -> Echoes {
    Echoes {
        number,
        adoptions,
        marks: Vec::new(),
    }
}

/// The same, of which an entry is traced.
fn traced() -> Of {
    let mut frame = example();
    let mut messages = frame.messages.iter();
    let place = messages.position(|(_, said)| matches!(said.body, Body::Append { .. }));
    let place = place.expect("there is an entry") as u32;
    let context = std::array::from_fn(|nth| nth as u8);
    frame.contexts = vec![(place, context)];
    frame
}

#[test]
fn golden_frames_are_read_for_ever() {
    check_golden("frame-2.bin", &example());
    check_golden("frame-2-traced.bin", &traced());
}

/// With `UPDATE_GOLDEN=1` in the environment the file is written anew, which is right only with a new number of the format.
fn check_golden(name: &str, frame: &Of) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let path = path.join(name);
    let written = flat(frame);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &written).expect("the folder of golden files can be written to");
    }
    let kept = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        kept == written,
        "{}: the format changed without a new number",
        path.display()
    );
    assert_eq!(Of::decode(&Bytes::from(kept)).as_ref(), Ok(frame));
}

/// What is told of a trace is told of an entry of the frame, of each once and in their order.
#[test]
fn traces_are_of_entries() {
    let mut frame = traced();
    let (place, context) = frame.contexts[0];
    for places in [
        vec![place - 1],
        vec![place, place],
        vec![frame.messages.len() as u32],
        vec![u32::MAX],
    ] {
        frame.contexts = places.iter().map(|&place| (place, context)).collect();
        let read = Of::decode(&flat(&frame));
        let is_refused = matches!(read, Err(FrameError::Malformed("trace", _)));
        assert!(is_refused, "{places:?}: {read:?}");
    }
    let mut bytes = flat(&example()).to_vec();
    bytes.extend(0_u32.to_le_bytes());
    let read = Of::decode(&bytes.into());
    assert!(matches!(read, Err(FrameError::Malformed("trace", _))));
}

#[test]
fn what_is_large_is_not_copied() {
    let large = value(vec![b'l'; 10_000]);
    let small = value(b"small".to_vec());
    let append = |value: &Value| Body::Append {
        entry: Entry {
            version: Version::new(9, 1),
            effects: effects(&[(&key(1), put(value))]),
        },
        commit: 0,
    };
    let states = vec![record(1, Some(large.clone()))];
    let part = Body::Part {
        id: 1,
        number: 0,
        is_full: false,
        states,
        end: None,
    };
    let frame = frame(vec![append(&small), append(&large), part]);
    let mut pieces = Pieces::default();
    frame.encode(&mut pieces).expect("it is short");
    let data = large.data.as_ptr();
    let shared = pieces.iter().filter(|piece| piece.as_ptr() == data);
    assert_eq!(shared.count(), 2);
    let bytes = flat(&frame);
    let inside = bytes.as_ptr_range();
    let read = Of::decode(&bytes).expect("it was written so");
    let is_shared = read
        .messages
        .iter()
        .map(|(_, message)| match &message.body {
            Body::Append { entry, .. } => {
                let mut pieces = entry.effects.pieces();
                pieces.any(|piece| inside.contains(&piece.as_ptr()))
            }
            Body::Part { states, .. } => {
                let record = states[0].1.as_ref().expect("there is one");
                let value = record.value.as_ref().expect("it holds something");
                inside.contains(&value.data.as_ptr())
            }
            other => panic!("{other:?}"),
        });
    assert_eq!(is_shared.collect::<Vec<_>>(), [false, true, false]);
}

fn any_value(random: &mut Random) -> Value {
    let len = random.weighted(&[(0, 1), (20, 6), (4_095, 1), (4_096, 1), (9_000, 1)]);
    let data: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
    let encoding = *random.of(Encoding::ALL.as_slice());
    let raw_len = match encoding {
        Encoding::Raw => data.len() as u32,
        _ => random.below(1 << 32) as u32,
    };
    Value {
        encoding,
        raw_len,
        json: random.one_in(2),
        content_type: random.one_in(3).then(|| "text/plain".into()),
        expires_at_ms: random.one_in(3).then(|| random.next()),
        ..value(data)
    }
}

fn any_history(random: &mut Random) -> History {
    let (mut terms, mut term, mut first) = (Vec::new(), 0, 1);
    for _ in 0..random.below(65) {
        term += random.within(1, 100) as Epoch;
        first += random.below(1_000);
        terms.push((term, first));
    }
    History::from(&terms[..])
}

fn any_body(random: &mut Random) -> Body<EncodedEffects, Value> {
    let seq = |random: &mut Random| random.within(0, LAST_SEQ);
    let epoch = |random: &mut Random| random.within(0, u64::from(Version::MAX_TERM)) as Epoch;
    let version = |random: &mut Random| Version::new(epoch(random), random.within(0, LAST_SEQ));
    match random.below(14) {
        0 => Body::Fence {
            generation: epoch(random),
        },
        1 => Body::Fenced {
            last: version(random),
            history: any_history(random),
        },
        2 => Body::Refused {
            adopted: epoch(random),
        },
        3 => Body::Open {
            generation: epoch(random),
            base: seq(random),
            history: any_history(random),
        },
        4 => Body::Aligned {
            applied: seq(random),
        },
        5 => Body::Pull {
            id: random.next(),
            common: seq(random),
            wanted: random.one_in(2).then(|| version(random)),
            keys: (0..random.below(9)).map(key).collect(),
        },
        6 => Body::Next {
            id: random.next(),
            number: seq(random),
        },
        7 => {
            let at = version(random);
            let commit = random.within(0, at.seq());
            let state = |number, random: &mut Random| match random.below(4) {
                0 => (key(number), None),
                1 => record(number, None),
                _ => record(number, Some(any_value(random))),
            };
            Body::Part {
                id: random.next(),
                number: seq(random),
                is_full: random.one_in(2),
                states: (0..random.below(6)).map(|n| state(n, random)).collect(),
                end: random.one_in(2).then(|| End {
                    at,
                    history: any_history(random),
                    commit,
                    horizon: random.within(0, commit),
                }),
            }
        }
        8 => Body::Abort { id: random.next() },
        9 => {
            let values: Vec<_> = (0..random.below(5)).map(|_| any_value(random)).collect();
            let keys: Vec<_> = (0..5).map(key).collect();
            let mut all: Vec<(&[u8], Effect<'_>)> = Vec::new();
            for (key, value) in keys.iter().zip(&values) {
                all.push((key, put(value)));
            }
            if random.one_in(3) {
                all.push((&keys[4], Effect::Delete));
            }
            Body::Append {
                entry: Entry {
                    version: Version::new(9, seq(random)),
                    effects: effects(&all),
                },
                commit: seq(random),
            }
        }
        10 => Body::Beat {
            last: seq(random),
            commit: seq(random),
        },
        11 => Body::Ack {
            applied: seq(random),
        },
        12 => Body::Probe {
            number: random.next(),
        },
        _ => Body::Echo {
            number: random.next(),
        },
    }
}

/// What was sent comes; without its end, or with something behind it, it is nothing; and with another byte in it, it is nothing or
/// something else that has just that form.
fn run(seed: u64) {
    let mut random = Random::new(seed, 2);
    let bodies = (0..random.below(6)).map(|_| any_body(&mut random));
    let mut sent = frame(bodies.collect());
    sent.incarnation = random.next();
    let marks = |random: &mut Random| {
        let mark = |random: &mut Random| {
            let partition = Partition::new(random.below(1_024) as u16);
            (partition.expect("it is below"), 5, random.next())
        };
        (0..random.below(5))
            .map(|_| mark(random))
            .collect::<Vec<_>>()
    };
    sent.acks = marks(&mut random);
    let question = |random: &mut Random| random.one_in(2).then(|| (random.next(), marks(random)));
    sent.probes = question(&mut random);
    sent.echoes = question(&mut random).map(|(number, marks)| Echoes {
        number,
        adoptions: random.next(),
        marks,
    });
    let without_traces = flat(&sent).len();
    for (place, (_, said)) in sent.messages.iter().enumerate() {
        if matches!(said.body, Body::Append { .. }) && random.one_in(2) {
            let context = std::array::from_fn(|_| random.next() as u8);
            sent.contexts.push((place as u32, context));
        }
    }
    let bytes = flat(&sent);
    let is_traced = !sent.contexts.is_empty();
    assert_eq!(Of::decode(&bytes), Ok(sent));
    for _ in 0..20 {
        let cut = random.place(bytes.len());
        // There the traces are told behind a frame that is whole without them.
        let is_whole = cut == without_traces;
        assert_eq!(Of::decode(&bytes.slice(..cut)).is_ok(), is_whole);
        let mut other = bytes.to_vec();
        other[cut] ^= random.within(1, 255) as u8;
        if let Ok(read) = Of::decode(&other.clone().into()) {
            assert_eq!(flat(&read), other);
        }
    }
    let longer = [&bytes[..], &[0]].concat();
    let part = if is_traced { "end" } else { "trace" };
    let wrong = FrameError::Malformed(part, bytes.len());
    assert_eq!(Of::decode(&longer.into()), Err(wrong));
}

#[test]
fn by_chance_what_was_sent_comes() {
    for seed in seeds(2_000) {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "HENGE_SEED={seed}");
    }
}

/// A frame of one message of this kind, with this behind the kind, from byte 20 on.
fn with(kind: u8, rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![VERSION, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    bytes.extend(partition().number().to_le_bytes());
    bytes.extend([9, 0, 0, 0, kind]);
    bytes.extend(rest.concat());
    bytes
}

fn number(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

fn are_refused(cases: &[(Vec<u8>, &str)]) {
    for (bytes, expected) in cases {
        let error = Of::decode(&bytes.clone().into()).expect_err("it is wrong");
        let text = error.to_string();
        assert!(text.contains(expected), "{text}, not {expected}: {bytes:?}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "no version at byte 0"),
        (vec![1], "of version 1, and this node speaks 2"),
        (vec![3], "of version 3, and this node speaks 2"),
        (vec![VERSION, 0], "no start at byte 1"),
        // As many as could be, and nothing for it.
        (
            [&[VERSION; 9][..], &[0xff; 4]].concat(),
            "no messages at byte 9",
        ),
        (
            with(0, &[&[0; 40]]),
            "no message that this node knows at byte 19",
        ),
        (
            with(15, &[&[0; 40]]),
            "no message that this node knows at byte 19",
        ),
        (with(FENCE, &[&[0xff; 4]]), "no generation at byte 20"),
        (with(ALIGNED, &[&[0xff; 8]]), "no applied seq at byte 20"),
        (with(FENCED, &[&[0xff; 8]]), "no last version at byte 20"),
        (
            with(FENCED, &[&[0; 8], &[1], &[1; 4], &[0; 8]]),
            "no term of a history at byte 29",
        ),
        (
            with(PULL, &[&[0; 16], &[2], &[0; 8]]),
            "no wanted version at byte 36",
        ),
        (
            with(PULL, &[&[0; 17], &9_u32.to_le_bytes(), &[0; 12]]),
            "no keys at byte 37",
        ),
        (
            with(
                PULL,
                &[&[0; 17], &[1, 0, 0, 0], &[1, 0, 0, 0], b"a", &[0; 6]],
            ),
            "behind byte 45: it has a key of partition 968, which is another",
        ),
    ];
    are_refused(&cases);
}

#[test]
fn what_is_wrong_with_records_and_effects_is_said() {
    let nine = [number(Version::new(9, 5).to_bits()), number(0)].concat();
    let foreign = key(1).len() as u32;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            with(PART, &[&[0; 16], &[4], &[0; 4]]),
            "no flags at byte 36",
        ),
        (
            with(PART, &[&[0; 16], &[0], &[1, 0, 0, 0], &[2], &[0; 9]]),
            "no state at byte 41",
        ),
        (
            with(
                PART,
                &[
                    &[0; 16],
                    &[0],
                    &[1, 0, 0, 0],
                    &[1],
                    &[0; 8],
                    &[0],
                    &foreign.to_le_bytes(),
                    b"{l}1",
                ],
            ),
            "behind byte 42: it has a key of partition",
        ),
        (
            with(
                PART,
                &[
                    &[0; 16],
                    &[2],
                    &[0; 4],
                    &number(Version::new(1, 5).to_bits()),
                    &[0],
                    &number(6),
                    &number(0),
                ],
            ),
            "no end in its order at byte 41",
        ),
        (
            with(APPEND, &[&number(Version::new(8, 5).to_bits()), &[0; 8]]),
            "no version of its term at byte 20",
        ),
        (
            with(APPEND, &[&nine, &[3, 0, 0, 0], &[1, 0, 8]]),
            "behind byte 40: an unknown effect: 8",
        ),
        (
            with(APPEND, &[&nine, &[9, 0, 0, 0], &[0, 0]]),
            "no effects at byte 40",
        ),
        (
            with(APPEND, &[&nine, &[3, 0, 0, 0], &[0, 0, 0]]),
            "behind byte 40: the record goes on behind what it says is in it",
        ),
    ];
    are_refused(&cases);
}
