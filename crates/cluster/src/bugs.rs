//! Planted bugs, for tests that must find them: each breaks one rule in the way in which a first draft of the protocol did. They
//! have the numbers of the table in docs/replication.md, and are in no program that is shipped.

/// Those that are switched on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
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
