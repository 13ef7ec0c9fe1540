//! A command against what is there: what it answers, and what it changes. Here conditions are evaluated, once, by whoever
//! stamps the mutation; nothing is changed.

use crate::record::Body;
use henge_wire::{Encoding, Expiry, Item, Operation, Refusal};

/// What a write comes to.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Nothing changes: the key is absent.
    Missing,
    /// Nothing changes, for this reason.
    Refused(Refusal),
    /// Nothing changes: it is as it was asked to be.
    Unchanged,
    /// The command's value is stored.
    Put { expires_at_ms: Option<u64> },
    /// The counter is stored.
    Count {
        value: i64,
        expires_at_ms: Option<u64>,
    },
    /// The item keeps its value and takes this deadline.
    Expire { expires_at_ms: Option<u64> },
    /// The key is removed; whether it was there.
    Delete { existed: bool },
}

/// Decides a write. `current` is the live item, if there is one.
pub(crate) fn decide(current: Option<&Item<'_>>, operation: &Operation<'_>) -> Decision {
    let version = current.map(|item| item.version);
    match operation {
        Operation::Get | Operation::Peek => Decision::Unchanged,
        Operation::Set {
            expiry,
            precondition,
            ..
        } => {
            if !precondition.holds(version) {
                return Decision::Refused(Refusal::PreconditionFailed(version));
            }
            Decision::Put {
                expires_at_ms: deadline(*expiry, current),
            }
        }
        Operation::Delete { precondition } => {
            if !precondition.holds(version) {
                return Decision::Refused(Refusal::PreconditionFailed(version));
            }
            Decision::Delete {
                existed: current.is_some(),
            }
        }
        Operation::Increment {
            by,
            initial,
            expiry,
        } => {
            let before = match current {
                None => *initial,
                Some(item) => match integer(item) {
                    Some(value) => value,
                    None => return Decision::Refused(Refusal::NotAnInteger),
                },
            };
            let expiry = if current.is_some() {
                Expiry::Keep
            } else {
                *expiry
            };
            match before.checked_add(*by) {
                None => Decision::Refused(Refusal::Overflow),
                Some(value) => Decision::Count {
                    value,
                    expires_at_ms: deadline(expiry, current),
                },
            }
        }
        Operation::Expire {
            expiry,
            precondition,
        } => match current {
            None => Decision::Missing,
            Some(_) if !precondition.holds(version) => {
                Decision::Refused(Refusal::PreconditionFailed(version))
            }
            Some(item) => {
                let expires_at_ms = deadline(*expiry, current);
                if expires_at_ms == item.expires_at_ms {
                    Decision::Unchanged
                } else {
                    Decision::Expire { expires_at_ms }
                }
            }
        },
    }
}

fn deadline(expiry: Expiry, current: Option<&Item<'_>>) -> Option<u64> {
    match expiry {
        Expiry::Never => None,
        Expiry::At(at) => Some(at),
        Expiry::Keep => current.and_then(|item| item.expires_at_ms),
    }
}

/// The integer that an item's text is, as Redis reads one: no plus sign, no leading zeros, no spaces.
fn integer(item: &Item<'_>) -> Option<i64> {
    // A value long enough to be compressed is no integer.
    if item.value.encoding != Encoding::Raw {
        return None;
    }
    let text = std::str::from_utf8(&item.value.data).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = digits == "0" && digits.len() == text.len()
        || digits.starts_with(|c: char| ('1'..='9').contains(&c));
    if canonical { text.parse().ok() } else { None }
}

/// The live item behind a body, if it is one.
#[inline]
pub(crate) fn live(
    body: Body<'_>,
    version: henge_wire::Version,
    expires_at_ms: Option<u64>,
    now_ms: u64,
) -> Option<Item<'_>> {
    match body {
        Body::Tombstone => None,
        Body::Value(_) if expires_at_ms.is_some_and(|at| at <= now_ms) => None,
        Body::Value(value) => Some(Item {
            value,
            version,
            expires_at_ms,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_wire::{Match, Precondition, Value, Version};

    /// Each write but an increment under each precondition, on a key that is absent and on one of version 1-7.
    #[test]
    fn a_precondition_decides_before_anything_else_but_absence() {
        let version = Version::new(1, 7);
        let (same, other) = ([version], [Version::new(1, 6), Version::new(2, 7)]);
        let matches = |m| Precondition {
            matches: Some(m),
            none_matches: None,
        };
        let none_matches = |m| Precondition {
            matches: None,
            none_matches: Some(m),
        };
        let item = Item {
            value: Value::from_slice(b"v"),
            version,
            expires_at_ms: None,
        };
        for (precondition, absent, present) in [
            (Precondition::NONE, true, true),
            (matches(Match::Any), false, true),
            (matches(Match::OneOf(&same)), false, true),
            (matches(Match::OneOf(&other)), false, false),
            (none_matches(Match::Any), true, false),
            (none_matches(Match::OneOf(&same)), true, false),
            (none_matches(Match::OneOf(&other)), true, true),
        ] {
            let deadline = Expiry::At(9);
            let set = Operation::Set {
                value: Value::from_slice(b"w"),
                expiry: deadline,
                precondition,
            };
            let delete = Operation::Delete { precondition };
            let expire = Operation::Expire {
                expiry: deadline,
                precondition,
            };
            for operation in [&set, &delete, &expire] {
                for (current, holds) in [(None, absent), (Some(&item), present)] {
                    let refused = match decide(current, operation) {
                        Decision::Refused(Refusal::PreconditionFailed(found)) => {
                            assert_eq!(found, current.map(|item| item.version));
                            true
                        }
                        Decision::Missing => {
                            assert!(
                                current.is_none() && matches!(operation, Operation::Expire { .. })
                            );
                            continue;
                        }
                        _ => false,
                    };
                    assert_eq!(refused, !holds, "{operation:?} on {current:?}");
                }
            }
        }
    }

    #[test]
    fn integers_are_read_as_redis_reads_them() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("1e3", None),
        ] {
            let item = Item {
                value: Value::from_slice(text.as_bytes()),
                version: Version::ZERO,
                expires_at_ms: None,
            };
            assert_eq!(integer(&item), value, "{text:?}");
        }
    }
}
