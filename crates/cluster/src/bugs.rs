//! Planted bugs, for tests that must find them: each breaks one rule in the way in which a first draft of the protocol did. They
//! are in no program that is shipped.
//!
//! | number | what is broken |
//! |---|---|
//! | 1 | a source does not look at its horizon |
//! | 2 | a copy does not inherit the horizon |
//! | 3 | a source looks at its horizon only at the begin of a copy |
//! | 6 | the base is the longest order, whatever its term |
//! | 7 | an entry is taken by its seq, without alignment |
//! | 9 | messages of other incarnations are taken |
//! | 12 | answers go before they are kept |
//! | 16 | what changed nothing is answered without a probe |
//! | 18 | a probe is echoed whatever term was adopted |
//! | 22 | the keys of an order that is given up are not named |

/// Those that are switched on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Bugs(u32);

impl Bugs {
    /// One of them.
    pub const fn only(number: u8) -> Self {
        Self(1 << number)
    }

    pub(crate) const fn has(self, number: u8) -> bool {
        self.0 >> number & 1 == 1
    }
}
