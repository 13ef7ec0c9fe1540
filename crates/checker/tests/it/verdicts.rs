//! Histories with known verdicts: what a cache may do, and each way in which it could lie.

use crate::naive;
use crate::text::history;
use henge_checker::{Verdict, check};

/// What happens, the history, and the times of the answer that is a lie; none if it is none.
type Case = (&'static str, &'static str, Option<&'static str>);

const HOLDS: Option<&str> = None;

const CASES: &[Case] = &[
    // Nothing, and misses.
    ("nothing was asked", "0-1 get ?", HOLDS),
    ("a miss of what was never there", "0-1 get -", HOLDS),
    ("a miss after a write", "0-1 set 1 ok; 2-3 get -", HOLDS),
    (
        "a miss between two hits: what is forgotten stays so",
        "0-1 set 1 ok; 2-3 get is 1; 4-5 get -; 6-7 get is 1",
        Some("6-7"),
    ),
    (
        "a miss beside the hit, whichever came first",
        "0-1 set 1 ok; 2-5 get -; 3-6 get is 1",
        HOLDS,
    ),
    ("a value that nobody wrote", "0-1 get is 1", Some("0-1")),
    (
        "a value that somebody else writes later",
        "0-1 get is 1; 2-3 set 1 ok",
        Some("0-1"),
    ),
    // Older values.
    (
        "the newest value",
        "0-1 set 1 ok; 2-3 set 2 ok; 4-5 get is 2",
        HOLDS,
    ),
    (
        "an older value after a newer one was acknowledged",
        "0-1 set 1 ok; 2-3 set 2 ok; 4-5 get is 1",
        Some("4-5"),
    ),
    (
        "an older value after a newer one was shown",
        "0-1 set 1 ok; 2-9 set 2 ok; 3-4 get is 2; 5-6 get is 1",
        Some("5-6"),
    ),
    (
        "the older value, then the newer, of a write under way",
        "0-1 set 1 ok; 2-9 set 2 ok; 3-4 get is 1; 5-6 get is 2",
        HOLDS,
    ),
    (
        "a value that is written again is no older one",
        "0-1 set 1 ok; 2-3 set 2 ok; 4-5 set 1 ok; 6-7 get is 1",
        HOLDS,
    ),
    (
        "two writes at once, either is the last",
        "0-5 set 1 ok; 1-6 set 2 ok; 7-8 get is 1",
        HOLDS,
    ),
    (
        "two writes at once, the other is the last",
        "0-5 set 1 ok; 1-6 set 2 ok; 7-8 get is 2",
        HOLDS,
    ),
    (
        "two writes at once, both are the last",
        "0-5 set 1 ok; 1-6 set 2 ok; 7-8 get is 1; 9-10 get is 2",
        Some("9-10"),
    ),
    (
        "reads of two writes at once agree on no order",
        "0-9 set 1 ok; 0-9 set 2 ok; 1-2 get is 1; 3-4 get is 2; 5-6 get is 1",
        Some("5-6"),
    ),
    (
        "two readers see two writes in two orders",
        "0-9 set 1 ok; 0-9 set 2 ok; 1-2 get is 1; 3-4 get is 2; 10-11 get is 1",
        Some("10-11"),
    ),
    (
        "a read that overlaps the write sees it or not",
        "0-1 set 1 ok; 2-5 set 2 ok; 3-6 get is 1; 4-7 get is 2",
        HOLDS,
    ),
    (
        "a read that touches the write sees it",
        "0-1 get is 1; 1-5 set 1 ok",
        HOLDS,
    ),
    (
        "an acknowledged write that was lost, and comes back",
        "0-1 set 1 ok; 2-3 set 2 ok; 4-5 get -; 6-7 get is 2",
        Some("6-7"),
    ),
    (
        "an older value from behind a forgotten one",
        "0-1 set 1 ok; 2-3 set 2 ok; 4-5 get -; 6-7 get is 1",
        Some("6-7"),
    ),
    (
        "answers that touch are at once",
        "0-1 set 1 ok; 1-2 set 2 ok; 3-4 get is 1",
        HOLDS,
    ),
    // Deletes.
    (
        "a value after an acknowledged delete",
        "0-1 set 1 ok; 2-3 del ok; 4-5 get is 1",
        Some("4-5"),
    ),
    (
        "a value beside a delete under way",
        "0-1 set 1 ok; 2-9 del ok; 3-4 get is 1; 5-6 get -",
        HOLDS,
    ),
    (
        "a value beside a delete that was seen already",
        "0-1 set 1 ok; 2-9 del ok; 3-4 get -; 5-6 get is 1",
        Some("5-6"),
    ),
    (
        "a delete that found something, where nothing was",
        "0-1 del ok was there",
        Some("0-1"),
    ),
    (
        "two deletes found the same value",
        "0-1 set 1 ok; 2-5 del ok was there; 3-6 del ok was there",
        Some("3-6"),
    ),
    (
        "a delete that found nothing ends the value too",
        "0-1 set 1 ok; 2-3 del -; 4-5 get is 1",
        Some("4-5"),
    ),
    (
        "two take the same value",
        "0-1 set 1 ok; 2-5 del ok was 1; 3-6 del ok was 1",
        Some("3-6"),
    ),
    (
        "an unknown delete may never be done",
        "0-1 set 1 ok; 2-3 del ?; 4-5 get is 1",
        HOLDS,
    ),
    (
        "an unknown delete leaves a miss, which stays",
        "0-1 set 1 ok; 2-3 del ?; 4-5 get -; 6-7 get is 1",
        Some("6-7"),
    ),
    // Writes of which nobody knows.
    (
        "an unknown write is seen",
        "0-1 set 1 ?; 2-3 get is 1",
        HOLDS,
    ),
    (
        "an unknown write is never seen",
        "0-1 set 1 ok; 2-3 set 2 ?; 4-5 get is 1; 6-7 get is 1",
        HOLDS,
    ),
    (
        "an unknown write lands long after",
        "0-1 set 1 ?; 2-3 set 2 ok; 4-5 get is 2; 6-7 get is 1",
        HOLDS,
    ),
    (
        "an unknown write lands twice",
        "0-1 set 1 ?; 2-3 get is 1; 4-5 set 2 ok; 6-7 get is 2; 8-9 get is 1",
        Some("8-9"),
    ),
    (
        "an unknown write lands between, and is gone",
        "0-1 set 1 ?; 2-3 set 2 ok; 4-5 get is 1; 6-7 get is 2",
        Some("6-7"),
    ),
    (
        "an unknown write is seen before it was asked",
        "0-1 get is 1; 2-3 set 1 ?",
        Some("0-1"),
    ),
    (
        "a forgotten unknown write comes back",
        "0-1 set 1 ?; 2-3 get is 1; 4-5 get -; 6-7 get is 1",
        Some("6-7"),
    ),
    (
        "two unknown writes of one value land each once",
        "0-1 set 1 ?; 0-1 set 1 ?; 2-3 get is 1; 4-5 get -; 6-7 get is 1",
        HOLDS,
    ),
    (
        "two unknown writes of one value land three times",
        "0-1 set 1 ?; 0-1 set 1 ?; 2-3 get is 1; 4-5 get -; 6-7 get is 1; 8-9 get -; 10-11 get is 1",
        Some("10-11"),
    ),
    (
        "a failed write is seen",
        "0-1 set 1 !; 2-3 get is 1",
        Some("2-3"),
    ),
    (
        "unknown writes land in either order",
        "0-1 set 1 ?; 0-1 set 2 ?; 2-3 get is 2; 4-5 get is 1",
        HOLDS,
    ),
    // Conditions.
    ("an add to nothing", "0-1 add 1 ok; 2-3 get is 1", HOLDS),
    (
        "an add that fails against nothing",
        "0-1 add 1 there",
        Some("0-1"),
    ),
    (
        "an add that fails after a delete",
        "0-1 set 1 ok; 2-3 del ok; 4-5 add 2 there",
        Some("4-5"),
    ),
    (
        "an add that fails against an unknown write",
        "0-1 set 1 ?; 2-3 add 2 there; 4-5 get is 1",
        HOLDS,
    ),
    (
        "an add that fails against one of two unknown writes",
        "0-1 set 1 ?; 0-1 set 3 ?; 2-3 add 2 there; 4-5 get is 3; 6-7 get is 1",
        HOLDS,
    ),
    (
        "an add that is done although something was there",
        "0-1 set 1 ok; 2-3 add 2 ok; 4-5 get is 2",
        HOLDS,
    ),
    (
        "the value that an add replaced comes back",
        "0-1 set 1 ok; 2-3 add 2 ok; 4-5 get is 1",
        Some("4-5"),
    ),
    (
        "two adds at once are both done, as one was forgotten",
        "0-5 add 1 ok; 1-6 add 2 ok; 7-8 get is 1",
        HOLDS,
    ),
    (
        "a failed add is done all the same",
        "0-1 set 1 ok; 2-3 add 2 there; 4-5 get is 2",
        Some("4-5"),
    ),
    (
        "something is there that an add should have found",
        "0-1 get there",
        Some("0-1"),
    ),
    ("a replacement of nothing", "0-1 replace 1 ok", Some("0-1")),
    (
        "a replacement that missed",
        "0-1 set 1 ok; 2-3 replace 2 -; 4-5 get is 1",
        Some("4-5"),
    ),
    (
        "an unknown replacement",
        "0-1 set 1 ok; 2-3 replace 2 ?; 4-5 get is 1; 6-7 get is 2",
        HOLDS,
    ),
    (
        "an unknown replacement of nothing",
        "0-1 replace 2 ?; 2-3 get is 2",
        Some("2-3"),
    ),
    // Compare-and-set.
    (
        "one of two wins",
        "0-1 set 1 ok; 2-5 cas 1 2 ok; 3-6 cas 1 3 no; 7-8 get is 2",
        HOLDS,
    ),
    (
        "both win",
        "0-1 set 1 ok; 2-5 cas 1 2 ok; 3-6 cas 1 3 ok",
        Some("3-6"),
    ),
    (
        "both win, as the value was written once more",
        "0-1 set 1 ok; 2-5 cas 1 2 ok; 3-6 cas 1 3 ok; 0-9 set 1 ok",
        HOLDS,
    ),
    (
        "a refusal that shows the value it wanted",
        "0-1 set 1 ok; 2-3 cas 1 2 is 1",
        Some("2-3"),
    ),
    (
        "a refusal may always be a miss",
        "0-1 set 1 ok; 2-3 cas 1 2 no",
        HOLDS,
    ),
    (
        "a refusal that was a miss, and the value after it",
        "0-1 set 1 ok; 2-3 cas 1 2 no; 4-5 get is 1",
        Some("4-5"),
    ),
    (
        "a refusal of another value leaves it",
        "0-1 set 1 ok; 2-3 cas 5 2 no; 4-5 get is 1",
        HOLDS,
    ),
    (
        "an unknown swap that a later one needs",
        "0-1 set 1 ok; 2-3 cas 1 2 ?; 4-5 cas 2 3 ok; 6-7 get is 3",
        HOLDS,
    ),
    (
        "an unknown swap of a value that never was",
        "0-1 set 1 ok; 2-3 cas 7 2 ?; 4-5 get is 2",
        Some("4-5"),
    ),
    (
        "a chain of unknown swaps",
        "0-1 set 1 ?; 0-1 cas 2 3 ?; 0-1 cas 1 2 ?; 2-3 get is 3",
        HOLDS,
    ),
    (
        "a swap that shows what it replaced",
        "0-1 set 1 ok; 2-3 set 2 ok was 1; 4-5 set 3 ok was 1",
        Some("4-5"),
    ),
    (
        "a refusal because of an unknown swap, which is seen behind it",
        "0-1 set 1 ok; 2-3 replace 2 ?; 4-5 cas 1 3 no; 6-7 get is 2",
        HOLDS,
    ),
    (
        "a refusal of a version because of an unknown swap",
        "0-1 set 1 ok@1; 2-3 replace 2 ?; 4-5 casv 1 3 no; 6-7 get is 2@2",
        HOLDS,
    ),
    // Counters.
    ("it counts", "0-1 incr =1; 2-3 incr =2; 4-5 incr =3", HOLDS),
    (
        "it starts over",
        "0-1 incr =1; 2-3 incr =2; 4-5 incr =1; 6-7 incr =2",
        HOLDS,
    ),
    (
        "it counts one twice",
        "0-1 incr =1; 2-3 incr =3",
        Some("2-3"),
    ),
    (
        "it counts two as one",
        "0-1 incr =1; 2-5 incr =2; 3-6 incr =2",
        Some("3-6"),
    ),
    (
        "it goes back",
        "0-1 incr =1; 2-3 incr =2; 4-5 incr =2",
        Some("4-5"),
    ),
    (
        "an unknown one counts",
        "0-1 incr =1; 2-3 incr ?; 4-5 incr =3",
        HOLDS,
    ),
    (
        "an unknown one counts late",
        "0-1 incr =1; 2-3 incr ?; 4-5 incr =2; 6-7 incr =4",
        HOLDS,
    ),
    (
        "an unknown one counts twice",
        "0-1 incr =1; 2-3 incr ?; 4-5 incr =4",
        Some("4-5"),
    ),
    (
        "an unknown one counts before and after",
        "0-1 incr =1; 2-3 incr ?; 4-5 incr =3; 6-7 incr =5",
        Some("6-7"),
    ),
    (
        "an unknown one starts a counter",
        "0-1 incr ?; 2-3 incr =2",
        HOLDS,
    ),
    (
        "those at once are counted in some order",
        "0-9 incr =3; 0-9 incr =1; 0-9 incr =4; 0-9 incr =2; 10-11 get is 4",
        HOLDS,
    ),
    (
        "a failed one counts",
        "0-1 incr =1; 2-3 incr !; 4-5 incr =3",
        Some("4-5"),
    ),
    (
        "larger steps",
        "0-1 set 40 ok; 2-3 incr 2 =42; 4-5 incr -2 =40",
        HOLDS,
    ),
    (
        "steps that do not tell",
        "0-1 incr ok; 2-3 incr ok; 4-5 get is 2",
        HOLDS,
    ),
    (
        "steps that do not tell, and one too many",
        "0-1 incr ok; 2-3 incr ok; 4-5 get is 3",
        Some("4-5"),
    ),
    (
        "one that was refused although there was room",
        "0-1 set 5 ok; 2-3 incr is 5",
        Some("2-3"),
    ),
    (
        "one that was refused at the end of the range",
        "0-1 set 9223372036854775807 ok; 2-3 incr is 9223372036854775807",
        HOLDS,
    ),
    (
        "a step that does not tell and came after the value under way",
        "0-0 set 1 ok; 1-1 set 2 ok; 1-1 incr ok was there; 2-2 cas 3 4 ok was 3",
        HOLDS,
    ),
    (
        "a step of nothing makes 0 of nothing",
        "0-1 set 0 ok; 2-3 incr 0 ?; 4-5 get -; 6-7 get is 0",
        HOLDS,
    ),
    // Versions.
    (
        "versions grow",
        "0-1 set 1 ok@5; 2-3 get is 1@5; 4-5 set 2 ok@6; 6-7 get is 2@6",
        HOLDS,
    ),
    (
        "a version goes back",
        "0-1 set 1 ok@5; 2-3 set 1 ok@4",
        Some("2-3"),
    ),
    (
        "the same value of an older version",
        "0-1 set 1 ok@5; 2-3 set 1 ok@6; 4-5 get is 1@5",
        Some("4-5"),
    ),
    (
        "writes at once go by their versions",
        "0-9 set 1 ok@6; 0-9 set 2 ok@5; 10-11 get is 2",
        Some("10-11"),
    ),
    (
        "one record has two versions",
        "0-1 set 1 ok; 2-3 get is 1@5; 4-5 get is 1@6",
        Some("4-5"),
    ),
    (
        "an unknown write has the version that is shown",
        "0-1 set 1 ok@5; 2-3 set 2 ?; 4-5 get is 2@6; 6-7 casv 6 3 ok@7",
        HOLDS,
    ),
    (
        "an unknown write is too old",
        "0-1 set 1 ok@5; 2-3 set 2 ?; 4-5 get is 2@4",
        Some("4-5"),
    ),
    (
        "a delete has a version too",
        "0-1 del ok@5; 2-3 set 1 ok@4",
        Some("2-3"),
    ),
    (
        "a swap by version",
        "0-1 set 1 ok@5; 2-3 casv 5 2 ok@6; 4-5 casv 5 3 no; 6-7 delv 6 ok@7; 8-9 get -",
        HOLDS,
    ),
    (
        "a swap by an older version",
        "0-1 set 1 ok@5; 2-3 set 2 ok@6; 4-5 casv 5 3 ok@7",
        Some("4-5"),
    ),
    (
        "a swap by version is refused, though it was right",
        "0-1 set 1 ok@5; 2-3 casv 5 2 is 1@5",
        Some("2-3"),
    ),
    (
        "a read of an older version beside a newer write",
        "0-1 set 1 ok@5; 2-6 set 2 ok@6; 3-7 get is 1@5; 8-9 get is 2@6",
        HOLDS,
    ),
];

#[test]
fn known_histories_have_known_verdicts() {
    let mut wrong = Vec::new();
    for (what, text, lie) in CASES {
        let history = history(text);
        let verdict = check(&history);
        let found = match &verdict {
            Verdict::Lies(lie) => Some(format!("{}-{}", lie.event.invoked, lie.event.completed)),
            Verdict::Holds => None,
            Verdict::Undecided { .. } => Some("undecided".to_owned()),
        };
        if found.as_deref() != *lie {
            wrong.push(format!("{what}: {text}\n  is {verdict}"));
        }
        assert_eq!(
            naive::holds(history.events()),
            lie.is_none(),
            "{what}: the naive judge"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn keys_are_judged_by_themselves() {
    let mut history = history("0-1 set 1 ok; 2-3 set 2 ok");
    let mut read = history.events()[0].clone();
    read.key = b"other".to_vec();
    history.record(read.clone()).unwrap();
    assert_eq!(check(&history), Verdict::Holds);
    let reads = crate::text::history("4-5 get is 2; 4-5 get is 1");
    for (key, event) in [&b"k"[..], b"other"].iter().zip(reads.events()) {
        let mut event = event.clone();
        event.key = key.to_vec();
        history.record(event).unwrap();
    }
    assert_eq!(check(&history), Verdict::Holds);
    read = reads.events()[0].clone();
    read.key = b"other".to_vec();
    history.record(read).unwrap();
    let Verdict::Lies(lie) = check(&history) else {
        panic!("2 was never there");
    };
    assert_eq!(lie.key, b"other");
}

#[test]
fn an_event_ends_no_earlier_than_it_began() {
    let mut history = history("3-3 set 1 ok");
    let mut event = history.events()[0].clone();
    event.completed = 2;
    let refused = history.record(event).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("asked at 3 and completed at 2"),
        "{refused}"
    );
    assert_eq!(history.events().len(), 1);
}
