//! What is said about a lie: the fewest events that show it, and no others.

use crate::text::history;
use henge_checker::{Verdict, check};

#[test]
fn a_lie_is_shown_by_the_fewest_events() {
    let text = "0-1 set 1 ok; 2-3 set 2 ok; 2-3 get is 1; 4-5 incr 5 =7; 6-7 set 3 ?; 8-9 get is 7; \
        10-11 get is 2; 12-13 get is 3";
    let Verdict::Lies(lie) = check(&history(text)) else {
        panic!("2 was replaced");
    };
    let shown = "\
key \"k\": this answer has no place in any order: client 7: read -> unchanged, 2 was there
the key held 7, or nothing; what shows it, by the time of the request:
    [2, 3] client 2: write 2 -> done
    [4, 5] client 4: add 5 -> done, now 7
 -> [10, 11] client 7: read -> unchanged, 2 was there
";
    assert_eq!(lie.to_string(), shown);
}
