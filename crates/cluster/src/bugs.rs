//! Planted bugs, for tests that must find them: each breaks one rule in the way in which a first draft of the protocol did. They
//! are in no program that is shipped. 15 is planted in the table of the tests, 17 in a client, 20 in a carrier and 23 in the replay
//! of a log, as those are where the mistake would be made; 19 and 21 are of parts that do not exist.
//!
//! | number | what is broken |
//! |---|---|
//! | 1 | a source does not look at its horizon |
//! | 2 | a copy does not inherit the horizon |
//! | 3 | a source looks at its horizon only at the begin of a copy |
//! | 4 | what has come of a copy is put into the table before its end |
//! | 5 | a copy's end says where the source was at its begin |
//! | 6 | an order is as good as the term of its newest mutation, and not of its alignment |
//! | 7 | an entry is taken by its seq, without alignment |
//! | 8 | a leader goes on in its term after a restart |
//! | 9 | messages of other incarnations are taken |
//! | 10 | a replica says that it is aligned when it begins to copy |
//! | 11 | the term that is adopted is not written to the log (harmless without 9) |
//! | 12 | what is written counts as kept |
//! | 13 | only who sees a reset happen forgets |
//! | 14 | a leader says that it is open when it starts |
//! | 15 | a delete of what is not there does nothing |
//! | 16 | what changed nothing is answered at once |
//! | 18 | a probe is echoed whatever term was adopted |
//! | 22 | what a replica has of an order that is given up is neither removed nor named |

use std::fmt;
use std::str::FromStr;

/// Those that are switched on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Bugs(u32);

impl Bugs {
    /// All numbers that there are: those above, and those that are planted in the table, the client and the carrier of tests.
    pub const NUMBERS: [u8; 20] = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22,
    ];

    /// One of them.
    pub const fn only(number: u8) -> Self {
        Self(1 << number)
    }

    /// Another one too.
    #[must_use]
    pub const fn and(self, number: u8) -> Self {
        Self(self.0 | 1 << number)
    }

    /// Whether one is.
    pub const fn has(self, number: u8) -> bool {
        self.0 >> number & 1 == 1
    }
}

/// There is no bug of that number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownBug;

impl fmt::Display for UnknownBug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = Bugs::NUMBERS.iter().map(u8::to_string).collect();
        write!(f, "there are {}", all.join(", "))
    }
}

impl std::error::Error for UnknownBug {}

/// One, by its number.
impl FromStr for Bugs {
    type Err = UnknownBug;

    fn from_str(text: &str) -> Result<Self, UnknownBug> {
        let number = text.parse().map_err(|_| UnknownBug)?;
        if Self::NUMBERS.contains(&number) {
            Ok(Self::only(number))
        } else {
            Err(UnknownBug)
        }
    }
}
