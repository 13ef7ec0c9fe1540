//! Requests and answers as both protocols mean them. How they look on the wire is told beside each protocol.

use henge_wire::MAX_PATTERN_BYTES;
use std::time::Duration;

use bytes::Bytes;

use crate::Error;

/// One operation of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// Are you there?
    Ping,
    /// The value of a key.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// Stores a value.
    Set {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
        /// For how long, and on which condition.
        options: SetOptions,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Adds to an integer; an absent one is 0.
    Increment {
        /// The key.
        key: &'a [u8],
        /// What is added.
        by: i64,
    },
    /// How long a key has left.
    Lifetime {
        /// The key.
        key: &'a [u8],
    },
    /// Gives a key a new lifetime.
    Expire {
        /// The key.
        key: &'a [u8],
        /// The lifetime from now on, longer than zero.
        ttl: Duration,
    },
    /// A page of the keys.
    Scan {
        /// Where to go on: `"0"` at first, and then what the page before answered.
        cursor: &'a str,
        /// Which keys: `*`, `?`, `[a-z]`, `[^a]`, and `\` before any of these that stands for itself.
        pattern: &'a [u8],
        /// How many keys the page should have, about; 1 to 1000.
        count: u16,
    },
}

/// What a server answers. Each request has its own answer, which stands beside it in the same order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Yes.
    Pong,
    /// The value of a key that is there.
    Value(Option<Bytes>),
    /// Whether it was stored; false if the condition did not hold.
    Stored(bool),
    /// Whether the key was there.
    Deleted(bool),
    /// The sum.
    Counted(i64),
    /// How long it has left.
    Lifetime(Lifetime),
    /// Whether the key was there.
    Expires(bool),
    /// A page of keys.
    Page {
        /// Where to go on; `"0"` when there is no more.
        cursor: String,
        /// The keys that match; may be none although there are more.
        keys: Vec<Bytes>,
    },
}

/// What is left of a key's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lifetime {
    /// There is no such key.
    Missing,
    /// It does not expire.
    Unlimited,
    /// As long as this.
    Left(Duration),
}

/// How many replicas of a partition answer for a request, in a cluster of Henge. What each promises `docs/cluster.md` has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsistencyLevel {
    /// One: a write that is answered may be lost, and a read may be stale.
    One,
    /// A majority: a write outlives the loss of any minority, and a read is of the latest that was answered.
    Quorum,
    /// All: a write that is answered has reached every one of them.
    All,
}

impl ConsistencyLevel {
    /// As both protocols spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::One => "ONE",
            Self::Quorum => "QUORUM",
            Self::All => "ALL",
        }
    }
}

/// How to store a value. By default it does not expire, whether the key is there or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetOptions {
    pub(crate) ttl: Option<Duration>,
    pub(crate) condition: Condition,
}

/// When to store a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Condition {
    /// In any case.
    #[default]
    Always,
    /// Only if the key is not there.
    IfAbsent,
    /// Only if the key is there.
    IfPresent,
}

impl SetOptions {
    /// No lifetime, no condition, as a constant.
    pub const NONE: Self = Self {
        ttl: None,
        condition: Condition::Always,
    };

    /// No lifetime, no condition.
    pub fn new() -> Self {
        Self::default()
    }

    /// Expires after this time, which is longer than zero. Servers count in milliseconds; what is between two is the later one.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Only on this condition.
    #[must_use]
    pub fn condition(mut self, condition: Condition) -> Self {
        self.condition = condition;
        self
    }
}

impl Request<'_> {
    /// Whether it may change something.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Ping | Self::Get { .. } | Self::Lifetime { .. } | Self::Scan { .. } => false,
            Self::Set { .. }
            | Self::Delete { .. }
            | Self::Increment { .. }
            | Self::Expire { .. } => true,
        }
    }

    /// The key that it is about, if there is one.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Ping | Self::Scan { .. } => None,
            Self::Get { key }
            | Self::Set { key, .. }
            | Self::Delete { key }
            | Self::Increment { key, .. }
            | Self::Lifetime { key }
            | Self::Expire { key, .. } => Some(key),
        }
    }

    /// Refuses what the protocols would take for something else.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let ttl = match self {
            Self::Set { options, .. } => options.ttl,
            Self::Expire { ttl, .. } => Some(*ttl),
            Self::Scan { count, .. } if !(1..=1000).contains(count) => {
                return Err(Error::Argument("a page of a scan has from 1 to 1000 keys"));
            }
            Self::Scan { pattern, .. } if pattern.len() > MAX_PATTERN_BYTES => {
                return Err(Error::Argument("a pattern has at most 262144 bytes"));
            }
            _ => None,
        };
        match ttl.map(milliseconds) {
            Some(None) => Err(Error::Argument("a lifetime is longer than 280,000 years")),
            // To one protocol it means to remove the key, to the other to keep it.
            Some(Some(0)) => Err(Error::Argument("a lifetime is longer than zero")),
            _ => Ok(()),
        }
    }
}

/// The most milliseconds of a lifetime: 2^53, which even servers that count in floating point have.
const MAX_MILLISECONDS: u64 = 1 << 53;

/// A lifetime in milliseconds, rounded up, so that what should live does. None if it is too long to be one.
pub(crate) fn milliseconds(ttl: Duration) -> Option<u64> {
    let ms = ttl.as_nanos().div_ceil(1_000_000);
    u64::try_from(ms).ok().filter(|ms| *ms <= MAX_MILLISECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_that_are_none_are_refused() {
        for (ttl, good) in [
            (Duration::ZERO, false),
            (Duration::from_nanos(1), true),
            (Duration::from_millis(MAX_MILLISECONDS), true),
            (Duration::from_millis(MAX_MILLISECONDS + 1), false),
            (Duration::MAX, false),
        ] {
            let expire = Request::Expire { key: b"k", ttl };
            assert_eq!(expire.check().is_ok(), good, "{ttl:?}");
            let set = Request::Set {
                key: b"k",
                value: b"",
                options: SetOptions::new().ttl(ttl),
            };
            assert_eq!(set.check().is_ok(), good, "{ttl:?}");
        }
        assert_eq!(milliseconds(Duration::from_micros(1001)), Some(2));
        for (count, good) in [(0, false), (1, true), (1000, true), (1001, false)] {
            let scan = Request::Scan {
                cursor: "0",
                pattern: b"*",
                count,
            };
            assert_eq!(scan.check().is_ok(), good, "{count}");
        }
        for (len, good) in [(MAX_PATTERN_BYTES, true), (MAX_PATTERN_BYTES + 1, false)] {
            let scan = Request::Scan {
                cursor: "0",
                pattern: &vec![b'*'; len],
                count: 1,
            };
            assert_eq!(scan.check().is_ok(), good, "{len}");
        }
    }
}
