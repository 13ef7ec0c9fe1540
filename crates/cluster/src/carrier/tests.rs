//! An outbox against what it says of order and bounds: case by case, and by chance. What its messages carry are so many bytes.

use super::*;
use crate::history::History;
use crate::replica::{End, Entry, Record};
use crate::testing::random::Random;
use henge_wire::Version;

/// Effects and values of so many bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Sizes {}

impl Types for Sizes {
    type Request<'r> = ();
    type Reply = ();
    type Effects = usize;
    type Value = usize;

    fn bytes(record: &Record<usize>) -> usize {
        record.value.unwrap_or(0)
    }

    fn effects_bytes(effects: &usize) -> usize {
        *effects
    }
}

type Said = MessageOf<Sizes>;

const TERM: Epoch = 7;
/// More than any test has.
const ALL: usize = 1 << 30;

fn p(number: u16) -> Partition {
    Partition::new(number).expect("there are so many")
}

fn said(body: Body<usize, usize>) -> Said {
    Message { term: TERM, body }
}

fn append(seq: u64, bytes: usize) -> Said {
    said(Body::Append {
        entry: Entry {
            version: Version::new(TERM, seq),
            effects: bytes,
        },
        commit: 0,
    })
}

fn part(id: CopyId, number: u64, bytes: usize, end: Option<u64>) -> Said {
    let record = Record {
        key: b"k".to_vec(),
        version: Version::new(TERM, 1),
        value: Some(bytes),
    };
    said(Body::Part {
        id,
        number,
        is_full: true,
        states: vec![(b"k".to_vec(), Some(record))],
        end: end.map(|seq| End {
            at: Version::new(TERM, seq),
            history: History::default(),
            commit: 0,
            horizon: 0,
        }),
    })
}

fn beat(last: u64) -> Said {
    said(Body::Beat { last, commit: 0 })
}

fn open() -> Said {
    said(Body::Open {
        generation: 1,
        base: 0,
        history: History::from(&[(TERM, 1)][..]),
    })
}

fn outbox(most_append_bytes: usize) -> Outbox<Sizes> {
    Outbox::new(most_append_bytes)
}

fn echoes(number: u64, adoptions: u64, marks: &[Mark]) -> Echoes {
    Echoes {
        number,
        adoptions,
        marks: marks.to_vec(),
    }
}

/// All that is taken, frame by frame.
fn frames(outbox: &mut Outbox<Sizes>, most_bytes: usize) -> Vec<Vec<(Partition, Said)>> {
    let taken = std::iter::from_fn(|| outbox.take(0, most_bytes));
    taken.map(|frame| frame.messages).collect()
}

/// All messages that are taken at once.
fn messages(outbox: &mut Outbox<Sizes>) -> Vec<(Partition, Said)> {
    frames(outbox, ALL).concat()
}

#[test]
fn the_newest_ack_of_each_partition_goes() {
    let mut outbox = outbox(ALL);
    for (partition, applied) in [(1, 4), (2, 9), (1, 6), (1, 5)] {
        outbox.put(p(partition), 1, said(Body::Ack { applied }));
    }
    let frame = outbox.take(0, ALL).expect("there are acks");
    assert_eq!(frame.acks, [(p(1), TERM, 6), (p(2), TERM, 9)]);
    assert!(outbox.is_empty() && outbox.take(0, ALL).is_none());
}

#[test]
fn one_question_is_in_flight() {
    let mut outbox = outbox(ALL);
    let probe = |number| said(Body::Probe { number });
    outbox.put(p(1), 1, probe(3));
    outbox.put(p(2), 1, probe(8));
    let frame = outbox.take(10, ALL).expect("a question");
    assert_eq!(
        frame.probes,
        Some((1, vec![(p(1), TERM, 3), (p(2), TERM, 8)]))
    );
    assert_eq!(outbox.next_deadline(), None);
    outbox.put(p(1), 1, probe(4));
    assert_eq!(outbox.take(11, ALL), None);
    assert!(!outbox.is_empty() && outbox.has_probes());
    assert_eq!(outbox.next_deadline(), Some(10 + PROBE_LOST_AFTER_MS));
    // Another's answer is none.
    outbox.answered(&echoes(7, 0, &[]));
    assert_eq!(outbox.take(11, ALL), None);
    outbox.answered(&echoes(1, 0, &[]));
    let frame = outbox.take(12, ALL).expect("the next question");
    assert_eq!(frame.probes, Some((2, vec![(p(1), TERM, 4)])));
    // One that is lost keeps others waiting no longer.
    outbox.put(p(2), 1, probe(9));
    let lost_ms = outbox.next_deadline().expect("there is a probe");
    assert_eq!(outbox.take(lost_ms - 1, ALL), None);
    let frame = outbox.take(lost_ms, ALL).expect("the next question");
    assert_eq!(frame.probes, Some((3, vec![(p(2), TERM, 9)])));
    // Over another connection it is asked again, with what was asked since.
    outbox.put(p(1), 1, probe(5));
    outbox.reconnected();
    let frame = outbox.take(lost_ms, ALL).expect("the same question");
    let marks = vec![(p(1), TERM, 5), (p(2), TERM, 9)];
    assert_eq!(frame.probes, Some((4, marks)));
}

#[test]
fn who_has_echoed_is_not_named_until_a_term_is_adopted() {
    let mut outbox = outbox(ALL);
    let ask = |outbox: &mut Outbox<Sizes>, marks: &[Mark]| {
        for &(partition, term, number) in marks {
            let body = Body::Probe { number };
            outbox.put(partition, 1, Message { term, body });
        }
        outbox.take(0, ALL).expect("a question").probes
    };
    let one = |number| (p(1), TERM, number);
    let two = |number| (p(2), TERM, number);
    assert_eq!(ask(&mut outbox, &[one(1)]), Some((1, vec![one(1)])));
    assert_eq!(outbox.answered(&echoes(1, 5, &[one(1)])).unnamed, []);
    // It is in the answer, though it was not asked about by name. The other did not echo, and is named again.
    assert_eq!(ask(&mut outbox, &[one(2), two(1)]), Some((2, vec![two(1)])));
    assert_eq!(outbox.answered(&echoes(2, 5, &[])).unnamed, [one(2)]);
    assert_eq!(ask(&mut outbox, &[one(3), two(2)]), Some((3, vec![two(2)])));
    // Somebody there has adopted a term, so nobody has echoed that was not named: that is asked about again, by name.
    assert_eq!(outbox.answered(&echoes(3, 6, &[two(2)])).unnamed, []);
    assert_eq!(ask(&mut outbox, &[two(3)]), Some((4, vec![one(3)])));
    assert_eq!(outbox.answered(&echoes(4, 6, &[one(3)])).unnamed, [two(3)]);
    // What is known of a later term says nothing of an earlier one; and another start has said nothing.
    let earlier = (p(1), TERM - 1, 9);
    assert_eq!(ask(&mut outbox, &[earlier]), Some((5, vec![earlier])));
    assert_eq!(outbox.answered(&echoes(5, 6, &[])).unnamed, []);
    let body = Body::Probe { number: 4 };
    outbox.put(p(1), 2, Message { term: TERM, body });
    let frame = outbox.take(0, ALL).expect("a question");
    assert_eq!(frame.probes, Some((6, vec![one(4)])));
}

/// One of which somebody has echoed the term that is asked about, and has adopted terms so often.
fn followed(adoptions: u64) -> Outbox<Sizes> {
    let mut outbox = outbox(ALL);
    outbox.put(p(1), 1, said(Body::Probe { number: 1 }));
    assert!(outbox.take(0, ALL).is_some());
    outbox.answered(&echoes(1, adoptions, &[(p(1), TERM, 1)]));
    outbox
}

#[test]
fn who_waits_is_told_by_an_answer_to_a_later_question() {
    let mut outbox = followed(5);
    // Of what was not echoed, or in another term, or by another start, nobody waits.
    for (start, partition, term) in [(1, p(2), TERM), (1, p(1), TERM - 1), (2, p(1), TERM)] {
        assert_eq!(outbox.wait(start, partition, term, 70), None);
    }
    assert_eq!(outbox.wait(1, p(1), TERM, 70), Some(2));
    assert_eq!(outbox.wait(1, p(1), TERM + 1, 70), Some(2));
    assert_eq!(outbox.wait(1, p(1), TERM, 71), Some(2));
    let frame = outbox.take(0, ALL).expect("it is asked for them");
    assert_eq!(frame.probes, Some((2, vec![])));
    // One that comes now waits for the next, and so it is not in the answer to this.
    assert_eq!(outbox.wait(1, p(1), TERM, 70), Some(3));
    assert_eq!(outbox.take(0, ALL), None);
    let told = outbox.answered(&echoes(2, 5, &[]));
    assert_eq!((told.waiters, told.vouches), (vec![(70, 2), (71, 2)], true));
    assert_eq!(outbox.answered(&echoes(2, 5, &[])), Answered::default());
    // Over another connection the question is another one, and answers who waited before as well.
    assert!(outbox.take(0, ALL).is_some());
    outbox.reconnected();
    let frame = outbox.take(0, ALL).expect("it is asked again");
    assert_eq!(frame.probes, Some((4, vec![])));
    let told = outbox.answered(&echoes(4, 5, &[]));
    assert_eq!((told.waiters, told.vouches), (vec![(70, 3)], true));
    assert!(!outbox.has_probes());
}

#[test]
fn who_waits_is_told_when_nothing_is_known_any_more() {
    // A term was adopted: it may be that of the partition. Also who waits for the next answer has relied on what was known.
    let mut outbox = followed(5);
    outbox.wait(1, p(1), TERM, 70);
    assert!(outbox.take(0, ALL).is_some());
    outbox.wait(1, p(1), TERM, 71);
    let told = outbox.answered(&echoes(2, 6, &[]));
    assert_eq!(
        (told.waiters, told.vouches),
        (vec![(70, 2), (71, 3)], false)
    );
    assert_eq!(outbox.wait(1, p(1), TERM, 72), None);
    assert_eq!(outbox.take(0, ALL), None);
    // No answer comes: nobody waits until there is one.
    let mut outbox = followed(5);
    outbox.wait(1, p(1), TERM, 70);
    assert!(outbox.take(0, ALL).is_some());
    outbox.wait(1, p(1), TERM, 71);
    let lost_ms = outbox.next_deadline().expect("there is a question");
    assert_eq!(outbox.given_up(lost_ms - 1), []);
    assert_eq!(outbox.given_up(lost_ms), [(70, 2), (71, 3)]);
    assert_eq!(outbox.given_up(lost_ms), []);
    assert_eq!(outbox.wait(1, p(1), TERM, 72), None);
    assert_eq!(outbox.answered(&echoes(2, 5, &[])).waiters, []);
    assert_eq!(outbox.wait(1, p(1), TERM, 72), Some(3));
    // Nobody takes the question: there may be no connection.
    assert_eq!(outbox.given_up(0), []);
    assert_eq!(outbox.wait(1, p(1), TERM, 73), Some(3));
    assert_eq!(outbox.given_up(0), [(72, 3), (73, 3)]);
    assert_eq!(outbox.wait(1, p(1), TERM, 72), None);
    // The node is started anew.
    let mut outbox = followed(5);
    outbox.wait(1, p(1), TERM, 72);
    outbox.put(p(1), 2, said(Body::Probe { number: 2 }));
    assert_eq!(outbox.given_up(0), [(72, 2)]);
    assert_eq!(outbox.wait(2, p(1), TERM, 72), None);
    // It is no member any more.
    let mut outbox = followed(5);
    outbox.wait(1, p(1), TERM, 70);
    assert!(outbox.take(0, ALL).is_some());
    outbox.wait(1, p(1), TERM, 71);
    assert_eq!(outbox.close(), [(70, 2), (71, 3)]);
    assert_eq!(outbox.wait(1, p(1), TERM, 72), None);
    assert_eq!(outbox.close(), []);
}

#[test]
fn an_answer_goes_when_it_is_whole() {
    let mut outbox = outbox(ALL);
    let echo = |number| said(Body::Echo { number });
    outbox.begin_answer(1, 5, 3);
    outbox.put(p(1), 1, echo(3));
    assert_eq!(outbox.take(0, ALL), None);
    outbox.put(p(2), 1, echo(4));
    outbox.end_answer();
    // Before it went the question was asked again: what was said is an answer to that as well.
    outbox.begin_answer(1, 6, 3);
    outbox.put(p(1), 1, echo(4));
    outbox.end_answer();
    let frame = outbox.take(0, ALL).expect("an answer");
    let marks = [(p(1), TERM, 4), (p(2), TERM, 4)];
    assert_eq!(frame.echoes, Some(echoes(6, 3, &marks)));
    // Who comes late says so as such.
    outbox.put(p(3), 1, echo(1));
    assert_eq!(messages(&mut outbox), [(p(3), echo(1))]);
    // Nobody has anything to say.
    outbox.begin_answer(1, 7, 3);
    outbox.end_answer();
    let frame = outbox.take(0, ALL).expect("an answer");
    assert_eq!(frame.echoes, Some(echoes(7, 3, &[])));
    // What was looked at before a term was adopted is not told as if it had been after that.
    outbox.begin_answer(1, 8, 3);
    outbox.put(p(1), 1, echo(5));
    outbox.end_answer();
    outbox.begin_answer(1, 9, 4);
    outbox.put(p(2), 1, echo(5));
    outbox.end_answer();
    let frame = outbox.take(0, ALL).expect("an answer");
    assert_eq!(frame.echoes, Some(echoes(9, 4, &[(p(2), TERM, 5)])));
}

#[test]
fn what_is_for_an_earlier_start_is_for_nobody() {
    let mut outbox = outbox(ALL);
    let ack = |applied| said(Body::Ack { applied });
    outbox.put(p(1), 4, append(1, 1));
    outbox.put(p(1), 4, ack(9));
    outbox.put(p(1), 3, append(2, 1));
    outbox.begin_answer(3, 1, 0);
    outbox.put(p(2), 5, ack(1));
    outbox.put(p(3), 4, append(3, 1));
    let frame = outbox.take(0, ALL).expect("there is an ack");
    assert_eq!(
        (frame.incarnation, &frame.messages[..], &frame.acks[..]),
        (5, &[][..], &[(p(2), TERM, 1)][..])
    );
    assert_eq!(frame.echoes, None);
    assert_eq!((outbox.bytes(), outbox.is_empty()), (0, true));
}

#[test]
fn what_is_said_again_waits_once() {
    let mut outbox = outbox(ALL);
    let pull = |id, keys: &[&str]| {
        said(Body::Pull {
            id,
            common: 3,
            wanted: None,
            keys: keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
        })
    };
    let next = |number| said(Body::Next { id: 1, number });
    for round in 0..1_000 {
        for number in 1..=3 {
            outbox.put(p(number), 1, open());
            outbox.put(p(number), 1, pull(round, &["a", "b"]));
            outbox.put(p(number), 1, next(round));
            outbox.put(p(number), 1, beat(round));
        }
    }
    let most = 3 * 4 * (size_of::<Waiting<Sizes>>() + 100);
    assert!(outbox.bytes() < most);
    let taken = messages(&mut outbox);
    let newest = [open(), pull(999, &["a", "b"]), next(999), beat(0)];
    let expected = (1..=3).flat_map(|number| newest.clone().map(|message| (p(number), message)));
    assert_eq!(taken, expected.collect::<Vec<_>>());
    assert_eq!((outbox.bytes(), outbox.is_empty()), (0, true));
    // It has gone, so the next is one that waits.
    outbox.put(p(1), 1, beat(1_000));
    assert_eq!(messages(&mut outbox), [(p(1), beat(1_000))]);
}

#[test]
fn a_beat_does_not_overtake_what_it_tells_of() {
    let mut outbox = outbox(ALL);
    outbox.put(p(1), 1, beat(0));
    outbox.put(p(1), 1, append(1, 1));
    outbox.put(p(1), 1, beat(1));
    let later = Message {
        term: TERM + 1,
        ..beat(9)
    };
    outbox.put(p(2), 1, beat(3));
    outbox.put(p(2), 1, later.clone());
    let expected = [(p(1), beat(0)), (p(1), append(1, 1)), (p(2), later)];
    assert_eq!(messages(&mut outbox), expected);
}

#[test]
fn who_is_too_slow_has_a_gap_until_it_has_copied() {
    let bytes = bytes::<Sizes>(&append(1, 100));
    let mut outbox = outbox(4 * bytes);
    for seq in 1..=6 {
        outbox.put(p(1), 1, append(seq, 100));
    }
    outbox.put(p(2), 1, append(1, 100));
    assert_eq!(outbox.dropped(), 3);
    assert_eq!(outbox.bytes(), 4 * bytes);
    // Nobody hears of a gap as long as there is no room for what would come behind the copy.
    outbox.put(p(1), 1, beat(6));
    outbox.put(p(3), 1, beat(1));
    let one = outbox.take(0, bytes).expect("there is more");
    assert_eq!(one.messages, [(p(1), append(1, 100))]);
    outbox.put(p(1), 1, beat(6));
    outbox.put(p(1), 1, append(7, 100));
    outbox.put(p(4), 1, append(1, 100));
    let two = outbox.take(0, 2 * bytes).expect("there is more");
    assert_eq!(two.messages.len(), 2);
    outbox.put(p(1), 1, beat(7));
    let rest = [
        (p(1), append(4, 100)),
        (p(3), beat(1)),
        (p(4), append(1, 100)),
        (p(1), beat(7)),
    ];
    assert_eq!(messages(&mut outbox), rest);
    assert_eq!(outbox.dropped(), 4);
    // A part that is not the last changes nothing; behind the last all is well.
    outbox.put(p(1), 1, part(1, 0, 10, None));
    outbox.put(p(1), 1, append(8, 100));
    assert_eq!(messages(&mut outbox), [(p(1), part(1, 0, 10, None))]);
    outbox.put(p(1), 1, part(1, 1, 10, Some(8)));
    outbox.put(p(1), 1, append(9, 100));
    let expected = [(p(1), part(1, 1, 10, Some(8))), (p(1), append(9, 100))];
    assert_eq!(messages(&mut outbox), expected);
    // And so it is in a term that opens.
    outbox.put(p(2), 1, append(2, 100));
    outbox.put(p(2), 1, open());
    outbox.put(p(2), 1, append(3, 100));
    let expected = [(p(2), open()), (p(2), append(3, 100))];
    assert_eq!(messages(&mut outbox), expected);
    assert_eq!((outbox.bytes(), outbox.append_bytes), (0, 0));
}

#[test]
fn nothing_of_size_waits_for_who_is_away() {
    let mut outbox = outbox(1 << 20);
    outbox.put(p(3), 1, open());
    outbox.put(p(1), 1, append(1, 100_000));
    outbox.put(p(1), 1, beat(1));
    outbox.put(p(2), 1, part(1, 1, 100_000, Some(4)));
    outbox.put(p(2), 1, append(5, 100_000));
    assert!(!outbox.disconnected(), "it was little");
    outbox.put(p(1), 1, append(2, 100_000));
    outbox.put(p(4), 1, append(1, 100_000));
    outbox.put(p(5), 1, part(1, 0, 100_000, None));
    assert_eq!(outbox.dropped(), 4);
    let small = bytes::<Sizes>(&open()) + bytes::<Sizes>(&beat(1));
    assert_eq!(outbox.bytes(), small);
    assert!(!outbox.disconnected(), "it is so already");
    // What there is once of a kind is found in its place still.
    outbox.put(p(3), 1, open());
    outbox.put(p(1), 1, beat(2));
    outbox.reconnected();
    // Each has a gap until it has copied.
    for of in [1, 2, 4] {
        outbox.put(p(of), 1, append(6, 100));
    }
    outbox.put(p(1), 1, part(1, 0, 10, Some(6)));
    outbox.put(p(1), 1, append(7, 100));
    let expected = [
        (p(3), open()),
        (p(1), beat(1)),
        (p(1), part(1, 0, 10, Some(6))),
        (p(1), append(7, 100)),
    ];
    assert_eq!(messages(&mut outbox), expected);
    assert_eq!((outbox.bytes(), outbox.append_bytes), (0, 0));
}

/// What is told of a trace goes in the frame of its entry, and is dropped with it.
#[test]
fn a_context_goes_with_its_entry() {
    let entry_bytes = size_of::<Waiting<Sizes>>() + 10;
    let mut outbox = outbox(3 * entry_bytes);
    let context = |nth: u8| Some([nth; 25]);
    outbox.put(p(1), 1, part(1, 0, 5, Some(6)));
    // Behind the part, and before it.
    outbox.put_traced(p(1), 1, append(7, 10), context(1));
    outbox.put_traced(p(2), 1, append(1, 10), None);
    outbox.put_traced(p(2), 1, append(2, 10), context(2));
    // There is no room for it.
    outbox.put_traced(p(2), 1, append(3, 10), context(3));
    let mut seen = Vec::new();
    while let Some(frame) = outbox.take(0, entry_bytes) {
        for (place, context) in frame.contexts {
            let (partition, message) = &frame.messages[place as usize];
            let Body::Append { entry, .. } = &message.body else {
                panic!("{message:?}");
            };
            seen.push((partition.number(), entry.version.seq(), context[0]));
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [(1, 7, 1), (2, 2, 2)]);
}

#[test]
fn one_entry_goes_however_large_it_is() {
    let mut outbox = outbox(10);
    outbox.put(p(1), 1, append(1, 1_000));
    outbox.put(p(2), 1, append(1, 1_000));
    assert_eq!(messages(&mut outbox), [(p(1), append(1, 1_000))]);
}

#[test]
fn a_copy_keeps_nobody_waiting_for_more_than_a_part() {
    let mut outbox = outbox(ALL);
    for number in 0..10 {
        outbox.put(p(number), 1, part(1, 0, 5_000, Some(3)));
        outbox.put(p(number), 1, append(4, 100));
    }
    outbox.put(p(20), 1, append(1, 100));
    // They wait beside it, in whatever order they came.
    let frame = outbox.take(0, 6_000).expect("there is much");
    let expected = [
        (p(20), append(1, 100)),
        (p(0), part(1, 0, 5_000, Some(3))),
        (p(0), append(4, 100)),
    ];
    assert_eq!(frame.messages, expected);
    let mut came = vec![];
    for seq in 2.. {
        if outbox.is_empty() {
            break;
        }
        outbox.put(p(20), 1, append(seq, 100));
        let frames = [outbox.take(0, 6_000), outbox.take(0, 6_000)];
        let messages = frames
            .into_iter()
            .flatten()
            .flat_map(|frame| frame.messages);
        let (own, rest): (Vec<_>, Vec<_>) = messages.partition(|(of, _)| *of == p(20));
        assert_eq!(own, [(p(20), append(seq, 100))]);
        came.extend(rest);
    }
    assert_eq!(came.len(), 18);
    for number in 1..10 {
        let own = came.iter().filter(|(of, _)| *of == p(number));
        let own: Vec<_> = own.map(|(_, message)| message.clone()).collect();
        let expected = [part(1, 0, 5_000, Some(3)), append(4, 100)];
        assert_eq!(own, expected);
    }
}

#[test]
fn a_part_waits_once() {
    let mut outbox = outbox(ALL);
    for _ in 0..100 {
        outbox.put(p(1), 1, part(1, 3, 5_000, Some(3)));
        outbox.put(p(1), 1, append(4, 100));
    }
    let once = bytes::<Sizes>(&part(1, 3, 5_000, Some(3)));
    let appends = 100 * bytes::<Sizes>(&append(4, 100));
    assert_eq!(outbox.bytes(), once + appends);
    // Another copy has all that was stamped by now.
    outbox.put(p(1), 1, part(2, 0, 50, None));
    assert_eq!(messages(&mut outbox), [(p(1), part(2, 0, 50, None))]);
    assert_eq!((outbox.bytes(), outbox.append_bytes), (0, 0));
}

/// What comes out, as a replica that takes all would see it.
#[derive(Default)]
struct Came {
    /// The newest seq of each partition.
    newest: BTreeMap<Partition, u64>,
}

fn run(seed: u64) {
    let mut random = Random::new(seed, 1);
    let most = random.within(1, 20_000) as usize;
    let mut outbox = outbox(most);
    let (mut seqs, mut copies) = (BTreeMap::new(), BTreeMap::new());
    let mut came = Came::default();
    let partitions = random.within(1, 6);
    for step in 0..2_000 {
        let of = p(random.below(partitions) as u16);
        let size = |random: &mut Random| random.below(3_000) as usize;
        match random.below(13) {
            12 if random.one_in(10) => while outbox.disconnected() {},
            12 => outbox.reconnected(),
            0..=5 => {
                let seq = seqs.entry(of).or_insert(0);
                *seq += 1;
                outbox.put(of, 1, append(*seq, size(&mut random)));
            }
            6 => outbox.put(of, 1, beat(seqs.get(&of).copied().unwrap_or(0))),
            7 => {
                let (id, number) = copies.entry(of).or_insert((0, 0));
                if random.one_in(3) {
                    (*id, *number) = (*id + 1, 0);
                } else {
                    *number += u64::from(random.one_in(2));
                }
                let end = random
                    .one_in(2)
                    .then(|| seqs.get(&of).copied().unwrap_or(0));
                let part = part(*id, *number, size(&mut random), end);
                outbox.put(of, 1, part);
            }
            8 => outbox.put(of, 1, said(Body::Ack { applied: step })),
            _ => take(&mut outbox, &mut random, &mut came),
        }
        let largest = 3_000 + size_of::<Waiting<Sizes>>();
        assert!(outbox.append_bytes < most + largest, "it has a bound");
        let waiting = outbox.copies.len();
        assert!(waiting <= partitions as usize);
        let parts = waiting * 2 * (3_000 + size_of::<Waiting<Sizes>>() + 200);
        let beats = partitions as usize * size_of::<Waiting<Sizes>>();
        let acks = partitions as usize * size_of::<Mark>();
        assert!(outbox.bytes() <= outbox.append_bytes + parts + beats + acks);
    }
    outbox.reconnected();
    while !outbox.is_empty() {
        take(&mut outbox, &mut random, &mut came);
    }
    assert_eq!((outbox.bytes(), outbox.append_bytes), (0, 0));
    assert!(outbox.places.is_empty() && outbox.copies.is_empty());
}

fn take(outbox: &mut Outbox<Sizes>, random: &mut Random, came: &mut Came) {
    let most = random.within(1, 8_000) as usize;
    let Some(frame) = outbox.take(0, most) else {
        return;
    };
    let all = frame.messages.iter();
    let size: usize = all.map(|(_, message)| bytes::<Sizes>(message)).sum();
    assert!(size <= most || frame.messages.len() == 1, "it has a bound");
    for (of, message) in frame.messages {
        let newest = came.newest.entry(of).or_default();
        match message.body {
            Body::Append { entry, .. } => {
                let seq = entry.version.seq();
                assert!(seq > *newest, "of a partition all is in its order");
                *newest = seq;
            }
            Body::Part { end: Some(end), .. } => {
                // What was stamped behind it has to come behind it.
                assert!(
                    *newest <= end.at.seq(),
                    "nothing overtakes the end of a copy"
                );
            }
            _ => {}
        }
    }
}

/// So many, or the one that the environment names.
#[expect(clippy::disallowed_methods, reason = "a test is told its seed")]
pub(super) fn seeds(count: u64) -> std::ops::Range<u64> {
    let given = std::env::var("HENGE_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("HENGE_SEED is a number"));
    given.map_or(0..count, |seed: u64| seed..seed + 1)
}

#[test]
fn by_chance_nothing_overtakes_what_it_follows() {
    for seed in seeds(300) {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "HENGE_SEED={seed}");
    }
}
