//! A table of who is there, and who is to vote then.

use super::*;

/// Members as words: a number is one that is alive, `-3` one that is lost, `3/` one that leaves.
fn members(text: &str) -> BTreeMap<u64, Seat> {
    text.split_whitespace()
        .map(|word| {
            let number = word.trim_matches(['-', '/']).parse();
            let seat = Seat {
                is_alive: !word.starts_with('-'),
                is_leaving: word.ends_with('/'),
            };
            (number.expect("a number"), seat)
        })
        .collect()
}

fn ids(text: &str) -> BTreeSet<u64> {
    let numbers = text.split_whitespace().map(str::parse);
    numbers.map(|number| number.expect("a number")).collect()
}

/// What it is about, members, voters, learners, and the voters that are to be; none for no change. Who asks is 1.
const CASES: [(&str, &str, &str, &str, Option<&str>); 28] = [
    ("alone", "1", "1", "", None),
    ("a second one", "1 2", "1", "2", Some("1 2")),
    ("a third one", "1 2 3", "1 2", "3", Some("1 2 3")),
    ("two at once", "1 2 3", "1", "2 3", Some("1 2 3")),
    ("a fourth would not help", "1 2 3 4", "1 2 3", "4", None),
    (
        "a fifth one does",
        "1 2 3 4 5",
        "1 2 3",
        "4 5",
        Some("1 2 3 4 5"),
    ),
    (
        "seven at most",
        "1 2 3 4 5 6 7 8 9",
        "1 2 3 4 5",
        "6 7 8 9",
        Some("1 2 3 4 5 6 7"),
    ),
    (
        "no more than seven",
        "1 2 3 4 5 6 7 8 9",
        "1 2 3 4 5 6 7",
        "8 9",
        None,
    ),
    ("who has not copied waits", "1 2 3", "1 2", "", None),
    ("who is lost gets no vote", "1 2 -3", "1 2", "3", None),
    ("who leaves gets no vote", "1 2 3/", "1 2", "3", None),
    ("a lost one keeps its vote", "1 2 -3", "1 2 3", "", None),
    (
        "until somebody can take it",
        "1 2 -3 4",
        "1 2 3",
        "4",
        Some("1 2 4"),
    ),
    (
        "one at a time",
        "1 2 3 -4 -5 6 7",
        "1 2 3 4 5",
        "6 7",
        Some("1 2 3 4 5 6 7"),
    ),
    (
        "one at a time, and who is numbered last first",
        "1 2 3 4 5 -6 -7 8 9",
        "1 2 3 4 5 6 7",
        "8 9",
        Some("1 2 3 4 5 6 8"),
    ),
    ("it comes back as a learner", "1 2 3 4", "1 2 4", "3", None),
    ("no majority is alive", "1 -2 -3 4 5", "1 2 3", "4 5", None),
    ("half is no majority", "1 -2", "1 2", "", None),
    (
        "a replaced one leaves for its successor",
        "1 2 13",
        "1 2 3",
        "13",
        Some("1 2 13"),
    ),
    ("a removed one leaves", "1 2", "1 2 3", "", Some("1 2")),
    (
        "a removed one leaves an odd number",
        "1 2 3 4",
        "1 2 3 4 5",
        "",
        Some("1 2 3"),
    ),
    (
        "the lost one of four gives its vote up",
        "1 -2 3 4",
        "1 2 3 4 5",
        "",
        Some("1 3 4"),
    ),
    (
        "a removed one of two cannot be voted out",
        "1",
        "1 2",
        "",
        None,
    ),
    ("who leaves can", "1 2/", "1 2", "", Some("1")),
    (
        "who leaves does so for another",
        "1 2 3/ 4",
        "1 2 3",
        "4",
        Some("1 2 4"),
    ),
    ("who asks may leave", "1/ 2 3", "1 2 3", "", Some("2 3")),
    (
        "who leaves has to wait for others",
        "1/ 2/ -3 4",
        "1 2 3",
        "4",
        Some("1 2 4"),
    ),
    ("too few would be alive", "1 -2 3/ ", "1 2 3", "", None),
];

#[test]
fn who_is_to_vote() {
    for (what, all, voters, learners, expected) in CASES {
        let found = next(&members(all), &ids(voters), &ids(learners), 1);
        assert_eq!(found, expected.map(ids), "{what}");
    }
}

/// Whoever is lost, and in whatever state it is, the changes come to an end, and each is one that can be agreed on.
#[test]
fn changes_come_to_an_end() {
    let all: BTreeSet<u64> = (1..=6).collect();
    for bits in 0..4_u32.pow(6) {
        let kind = |id: &u64| bits >> (2 * (id - 1)) & 3;
        let seat = |id: &u64| Seat {
            is_alive: kind(id) != 1,
            is_leaving: kind(id) == 2,
        };
        let there = all.iter().filter(|id| kind(id) != 3);
        let members: BTreeMap<u64, Seat> = there.map(|id| (*id, seat(id))).collect();
        for count in 1..=6 {
            let mut voters: BTreeSet<u64> = (1..=count).collect();
            let mut turns = 0;
            while let Some(next) = next(
                &members,
                &voters,
                &all.difference(&voters).copied().collect(),
                1,
            ) {
                let alive = |of: &BTreeSet<u64>| {
                    let is_alive = |id: &&u64| members.get(id).is_some_and(|seat| seat.is_alive);
                    2 * of.iter().filter(is_alive).count() > of.len()
                };
                assert!(alive(&voters) && alive(&next), "{members:?}: {next:?}");
                assert!(next.difference(&voters).all(|id| members.contains_key(id)));
                assert!(next.len() <= MAX_VOTERS);
                voters = next;
                turns += 1;
                assert!(turns < 8, "{members:?}: {voters:?}");
            }
            // Nobody who could vote is left out for one who cannot.
            let is_lost = |id: &u64| members.get(id).is_none_or(|seat| !seat.is_alive);
            let waits = members
                .iter()
                .any(|(id, seat)| seat.is_alive && !seat.is_leaving && !voters.contains(id));
            let lost = voters.iter().filter(|id| is_lost(id)).count();
            let can_agree = 2 * lost < voters.len();
            assert!(!waits || lost == 0 || !can_agree, "{members:?}: {voters:?}");
        }
    }
}
