//! What is said about a lie: the fewest events that show it, and no others.

use crate::text::history;
use henge_checker::{Verdict, check, check_within};

/// A history, and what is said of it.
const CASES: &[(&str, &str)] = &[
    (
        "0-1 set 1 ok; 2-3 set 2 ok; 2-3 get is 1; 4-5 incr 5 =7; 6-7 set 3 ?; 8-9 get is 7; 10-11 get is 2; 12-13 get is 3",
        "\
key \"k\": this answer has no place in any order: client 7: read -> unchanged, 2 was there
the key held 7, or nothing; what shows it, by the time of the request:
    [2, 3] client 2: write 2 -> done
    [4, 5] client 4: add 5 -> done, now 7
 -> [10, 11] client 7: read -> unchanged, 2 was there
",
    ),
    (
        "0-1 set 1 ok; 0-1 set 2 ?; 2-3 get is 1; 4-5 del ok; 6-7 get is 2; 8-9 get is 1",
        "\
key \"k\": this answer has no place in any order: client 6: read -> unchanged, 1 was there
the key held nothing; what shows it, by the time of the request:
    [0, 1] client 1: write 1 -> done
    [4, 5] client 4: delete -> done
 -> [8, 9] client 6: read -> unchanged, 1 was there
",
    ),
    (
        "0-1 incr =1; 2-3 incr ?; 4-5 incr =2; 6-9 incr =4; 7-9 incr =4",
        "\
key \"k\": this answer has no place in any order: client 5: add 1 -> done, now 4
the key held 4, or nothing; what shows it, by the time of the request:
    [0, 1] client 1: add 1 -> done, now 1
    [2, ...] client 2: add 1 -> unknown
    [4, 5] client 3: add 1 -> done, now 2
    [6, 9] client 4: add 1 -> done, now 4
 -> [7, 9] client 5: add 1 -> done, now 4
",
    ),
    (
        "0-1 set 1 ok@5; 2-3 set 2 ok@6; 2-7 add 3 there; 4-5 casv 5 4 ok@7 was 1@5",
        "\
key \"k\": this answer has no place in any order: client 4: write 4 if version 5 -> done (version 7), 1 was there (version 5)
the key held 2 (version 6), or nothing; what shows it, by the time of the request:
    [0, 1] client 1: write 1 -> done (version 5)
    [2, 3] client 2: write 2 -> done (version 6)
 -> [4, 5] client 4: write 4 if version 5 -> done (version 7), 1 was there (version 5)
",
    ),
    (
        "0-1 add 1 there",
        "\
key \"k\": this answer has no place in any order: client 1: write 1 if absent -> unchanged, something was there
the key held nothing; what shows it, by the time of the request:
 -> [0, 1] client 1: write 1 if absent -> unchanged, something was there
",
    ),
];

#[test]
fn a_lie_is_shown_by_the_fewest_events() {
    for (text, said) in CASES {
        let Verdict::Lies(lie) = check(&history(text)) else {
            panic!("it is a lie: {text}");
        };
        assert_eq!(lie.to_string(), *said, "{text}");
    }
}

#[test]
fn the_steps_are_bounded() {
    let holds = history("0-1 set 1 ok; 2-3 get is 1");
    let verdict = check_within(&holds, 2);
    assert_eq!(verdict, Verdict::Undecided { key: b"k".to_vec() });
    assert_eq!(
        verdict.to_string(),
        "undecided: the steps were spent on key \"k\""
    );
    // What is a lie is one, though another key is undecided.
    let mut lies = holds.clone();
    for event in history("0-1 get is 9").events() {
        let mut event = event.clone();
        event.key = b"z".to_vec();
        lies.record(event).unwrap();
    }
    let Verdict::Lies(lie) = check_within(&lies, 2) else {
        panic!("9 was never there");
    };
    assert_eq!(lie.key, b"z");
}
