//! `Transaction`: what becomes of several keys of one partition, all of it or nothing, if what was read of them before still
//! holds. Its effects are computed by whoever read the keys; the engine only compares versions.

use crate::{Effect, Refusal, Version};

/// The most guards of a transaction, and the most effects. All of it happens under one lock, which others wait for: with this
/// many keys some hundred microseconds.
pub const MAX_TRANSACTION_KEYS: usize = 1_024;

/// Guards and effects, on keys of one partition; up to [`MAX_TRANSACTION_KEYS`] of each.
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    /// What must be true of keys for anything to happen.
    pub guards: &'a [Guard<'a>],
    /// What becomes of keys. Where a key comes twice they count in their order. A key that takes a new deadline must be
    /// guarded to exist: what has expired here may not be woken elsewhere.
    pub effects: &'a [(&'a [u8], Effect<'a>)],
}

impl<'a> Transaction<'a> {
    /// The keys of the guards, and those of the effects.
    pub fn keys(&self) -> impl Iterator<Item = &'a [u8]> {
        let guards = self.guards.iter().map(|guard| guard.key);
        guards.chain(self.effects.iter().map(|&(key, _)| key))
    }
}

/// What must be true of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guard<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What must be true of it.
    pub condition: Condition,
}

/// What a guard asks of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// It is not there.
    Absent,
    /// It is there.
    Exists,
    /// It is there, in this version.
    Version(Version),
}

impl Condition {
    /// Whether it holds for the version that the key has, none if it is absent.
    pub fn holds(self, current: Option<Version>) -> bool {
        match self {
            Self::Absent => current.is_none(),
            Self::Exists => current.is_some(),
            Self::Version(version) => current == Some(version),
        }
    }
}

/// What a transaction came to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// All effects happened, under this version. Without effects it is the partition's last.
    Applied(Version),
    /// Nothing changed: a guard does not hold.
    Failed {
        /// Its place among the guards; the first of several.
        guard: usize,
        /// The version that its key has, none if it is absent.
        found: Option<Version>,
    },
    /// Nothing changed: there is no room.
    Refused(Refusal),
}
