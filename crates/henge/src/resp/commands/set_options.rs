//! The options of SET and GETEX, which have most of them in common: conditions, and how long the item lives. Words are read
//! from left to right, and only then are times looked at, so that the error is the one that Redis finds first.

use henge_wire::Expiry;
use henge_wire::resp::request::integer;

use crate::resp::call::{Call, ErrorReply};

/// What a SET or a GETEX asks for beside its key and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Options<'a> {
    pub(super) condition: Condition<&'a [u8]>,
    /// The value before is the reply.
    pub(super) gives_old: bool,
    pub(super) lifetime: Lifetime,
}

/// What must be true of the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Condition<B> {
    None,
    /// NX.
    Absent,
    /// XX.
    Exists,
    /// IFEQ.
    Equals(B),
}

/// How long the item lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lifetime {
    Unsaid,
    /// KEEPTTL.
    Keep,
    /// PERSIST.
    Persist,
    /// A deadline, in milliseconds since the Unix epoch.
    Until(u64),
}

impl Lifetime {
    /// What it is for a value that is written.
    pub(super) fn expiry(self) -> Expiry {
        match self {
            Self::Unsaid | Self::Persist => Expiry::Never,
            Self::Keep => Expiry::Keep,
            Self::Until(at_ms) => Expiry::At(at_ms),
        }
    }
}

/// How a time is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    UnixSeconds,
    UnixMilliseconds,
}

impl Unit {
    fn of(word: &[u8]) -> Option<Self> {
        [
            ("EX", Self::Seconds),
            ("PX", Self::Milliseconds),
            ("EXAT", Self::UnixSeconds),
            ("PXAT", Self::UnixMilliseconds),
        ]
        .into_iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, unit)| unit)
    }
}

/// A lifetime whose time was not looked at yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted<'a> {
    Unsaid,
    Keep,
    Persist,
    Time(Unit, &'a [u8]),
}

impl<'a> Options<'a> {
    /// Those of SET.
    pub(super) fn of_set(call: &Call<'a>) -> Result<Self, ErrorReply> {
        let (mut condition, mut gives_old) = (Condition::None, false);
        let mut wanted = Wanted::Unsaid;
        let mut at = 3;
        while let Some(word) = call.words.get(at) {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            at += 1;
            match condition {
                Condition::None | Condition::Absent if is("NX") => condition = Condition::Absent,
                Condition::None | Condition::Exists if is("XX") => condition = Condition::Exists,
                Condition::None if is("IFEQ") => {
                    let value = call.words.get(at).ok_or(ErrorReply::SYNTAX)?;
                    condition = Condition::Equals(value);
                    at += 1;
                }
                _ if is("GET") => gives_old = true,
                _ if is("KEEPTTL") && matches!(wanted, Wanted::Unsaid | Wanted::Keep) => {
                    wanted = Wanted::Keep;
                }
                _ => {
                    wanted = time(call, word, at, wanted)?;
                    at += 1;
                }
            }
        }
        Ok(Self {
            condition,
            gives_old,
            lifetime: lifetime(call, wanted)?,
        })
    }

    /// Those of GETEX.
    pub(super) fn of_getex(call: &Call<'a>) -> Result<Self, ErrorReply> {
        let mut wanted = Wanted::Unsaid;
        let mut at = 2;
        while let Some(word) = call.words.get(at) {
            at += 1;
            if word.eq_ignore_ascii_case(b"PERSIST")
                && matches!(wanted, Wanted::Unsaid | Wanted::Persist)
            {
                wanted = Wanted::Persist;
            } else {
                wanted = time(call, word, at, wanted)?;
                at += 1;
            }
        }
        Ok(Self {
            condition: Condition::None,
            gives_old: true,
            lifetime: lifetime(call, wanted)?,
        })
    }
}

/// A word that must be the unit of the time at `at`. The same unit may come again, and the last one holds.
fn time<'a>(
    call: &Call<'a>,
    word: &[u8],
    at: usize,
    before: Wanted<'_>,
) -> Result<Wanted<'a>, ErrorReply> {
    let unit = Unit::of(word).ok_or(ErrorReply::SYNTAX)?;
    let given = call.words.get(at).ok_or(ErrorReply::SYNTAX)?;
    match before {
        Wanted::Unsaid => {}
        Wanted::Time(other, _) if other == unit => {}
        _ => return Err(ErrorReply::SYNTAX),
    }
    Ok(Wanted::Time(unit, given))
}

fn lifetime(call: &Call<'_>, wanted: Wanted<'_>) -> Result<Lifetime, ErrorReply> {
    Ok(match wanted {
        Wanted::Unsaid => Lifetime::Unsaid,
        Wanted::Keep => Lifetime::Keep,
        Wanted::Persist => Lifetime::Persist,
        Wanted::Time(unit, given) => Lifetime::Until(deadline(call, unit, given)?),
    })
}

/// When an item expires, in milliseconds since the Unix epoch. Like Redis it takes no time of 0 or less, and none that 63 bits
/// do not hold.
pub(super) fn deadline(call: &Call<'_>, unit: Unit, given: &[u8]) -> Result<u64, ErrorReply> {
    let given = integer(given).ok_or(ErrorReply::NOT_AN_INTEGER)?;
    at_ms(unit, given, call.now_ms).ok_or_else(|| ErrorReply::invalid_expire(call.spec.name))
}

fn at_ms(unit: Unit, given: i64, now_ms: u64) -> Option<u64> {
    let given = u64::try_from(given).ok().filter(|&given| given > 0)?;
    let at_ms = match unit {
        Unit::Seconds => given.checked_mul(1000)?.checked_add(now_ms)?,
        Unit::Milliseconds => given.checked_add(now_ms)?,
        Unit::UnixSeconds => given.checked_mul(1000)?,
        Unit::UnixMilliseconds => given,
    };
    i64::try_from(at_ms).is_ok().then_some(at_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_stay_within_63_bits() {
        const MOST: i64 = i64::MAX;
        for (unit, given, expected) in [
            (Unit::Seconds, 1, Some(2_000)),
            (Unit::Milliseconds, 1, Some(1_001)),
            (Unit::UnixSeconds, 1, Some(1_000)),
            (Unit::UnixMilliseconds, 1, Some(1)),
            (Unit::Seconds, 0, None),
            (Unit::UnixMilliseconds, 0, None),
            (Unit::Milliseconds, -1, None),
            (Unit::Seconds, MOST / 1000, None),
            (Unit::Seconds, MOST / 1000 - 1, Some(MOST - 807)),
            (Unit::UnixSeconds, MOST / 1000, Some(MOST - 807)),
            (Unit::UnixSeconds, MOST / 1000 + 1, None),
            (Unit::Milliseconds, MOST - 1_000, Some(MOST)),
            (Unit::Milliseconds, MOST - 999, None),
            (Unit::UnixMilliseconds, MOST, Some(MOST)),
            (Unit::Seconds, MOST, None),
        ] {
            let expected = expected.and_then(|at_ms| u64::try_from(at_ms).ok());
            assert_eq!(at_ms(unit, given, 1_000), expected, "{unit:?} {given}");
        }
    }
}
