//! `Command` and `Reply`: one operation on one key as every protocol means it, and its answer. A protocol decodes into
//! the one and encodes from the other; conditions are evaluated by the engine, and times are absolute by then.

use crate::{Value, Version};

/// One operation on one key.
#[derive(Clone, Debug)]
pub struct Command<'a> {
    /// The key, at most [`crate::MAX_KEY_BYTES`].
    pub key: &'a [u8],
    /// What to do with it.
    pub operation: Operation<'a>,
}

/// What to do with a key.
#[derive(Clone, Debug)]
pub enum Operation<'a> {
    /// Answer the item, and count this as a use of it.
    Get,
    /// Answer the item without counting a use: for `EXISTS`, `TTL`, conditional requests.
    Peek,
    /// Store a value, if the precondition holds.
    Set {
        /// What to store.
        value: Value<'a>,
        /// How long to keep it.
        expiry: Expiry,
        /// What must be true of the key.
        precondition: Precondition<'a>,
    },
    /// Remove the key, if the precondition holds.
    Delete {
        /// What must be true of the key.
        precondition: Precondition<'a>,
    },
    /// Add to a decimal integer of 64 bits.
    Increment {
        /// What to add.
        by: i64,
        /// What an absent counter is taken to hold before the addition.
        initial: i64,
        /// How long to keep a counter that this creates; one that exists keeps its own deadline.
        expiry: Expiry,
    },
    /// Change when the key expires, if it exists and the precondition holds; `Expiry::Keep` changes nothing.
    Expire {
        /// The new lifetime.
        expiry: Expiry,
        /// What must be true of the key. An absent key is missing first: nothing can change, whatever is asked of it.
        precondition: Precondition<'a>,
    },
}

impl Operation<'_> {
    /// Whether it may change something.
    #[inline]
    pub const fn is_write(&self) -> bool {
        !matches!(self, Self::Get | Self::Peek)
    }
}

/// A lifetime, decided when the command was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// It never expires.
    Never,
    /// At this time, in milliseconds since the Unix epoch.
    At(u64),
    /// As the item has it now; an absent one gets none.
    Keep,
}

/// What must be true of a key for a write to happen, as RFC 9110 has it: `matches` is If-Match, `none_matches` is
/// If-None-Match. NX is `none_matches: Any`, XX is `matches: Any`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Precondition<'a> {
    /// The key must exist, in one of these versions.
    pub matches: Option<Match<'a>>,
    /// The key must not exist in any of these versions.
    pub none_matches: Option<Match<'a>>,
}

/// A set of versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Match<'a> {
    /// Every version: matches whenever the key exists.
    Any,
    /// These.
    OneOf(&'a [Version]),
}

impl Match<'_> {
    /// Whether the version that a key has (none if it is absent) is in the set.
    pub fn contains(&self, current: Option<Version>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::OneOf(versions), Some(version)) => versions.contains(&version),
        }
    }
}

impl Precondition<'_> {
    /// No condition.
    pub const NONE: Precondition<'static> = Precondition {
        matches: None,
        none_matches: None,
    };

    /// Whether it holds for the version that the key has, none if it is absent.
    pub fn holds(&self, current: Option<Version>) -> bool {
        self.matches.is_none_or(|m| m.contains(current))
            && !self.none_matches.is_some_and(|m| m.contains(current))
    }
}

/// An item as the engine shows it; it borrows from the shard, so it is copied out before the lock is released.
#[derive(Clone, Debug)]
pub struct Item<'a> {
    /// The value.
    pub value: Value<'a>,
    /// The version that wrote it.
    pub version: Version,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

/// The answer to a command.
#[derive(Clone, Debug)]
pub enum Reply<'a> {
    /// To `Get` and `Peek`.
    Found(Item<'a>),
    /// The key is absent: to everything but `Set` and `Increment`.
    Missing,
    /// To `Set`, and to `Expire` of a key that exists: the state after it.
    Stored {
        /// The version of the item now.
        version: Version,
        /// When it expires, in milliseconds since the Unix epoch.
        expires_at_ms: Option<u64>,
    },
    /// To `Increment`.
    Counted {
        /// The counter's new value.
        value: i64,
        /// The version of the item now.
        version: Version,
        /// When it expires, in milliseconds since the Unix epoch.
        expires_at_ms: Option<u64>,
    },
    /// To `Delete` of a key that existed.
    Deleted,
    /// Nothing changed.
    Refused(Refusal),
}

/// Why nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// The precondition does not hold; the version that the key has, none if it is absent.
    PreconditionFailed(Option<Version>),
    /// `Increment` of what is no decimal integer of 64 bits.
    NotAnInteger,
    /// `Increment` would leave 64 bits.
    Overflow,
    /// There is no room: nothing that is there may be dropped.
    MemoryFull,
    /// The record could never fit this cache's budget.
    TooLarge,
    /// It could not be logged, as the disk is full or has failed.
    LogFailed,
    /// It could not be logged now: as much waits for the disk as may wait.
    LogBehind,
    /// This node does not lead the partition, or not yet: it may be asked again.
    NotOpen,
}
