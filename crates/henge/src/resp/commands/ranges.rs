//! Commands on a part of a string. Positions count from 0, or from the end if they are negative: -1 is the last.

use std::ops::Range;

use henge_wire::{Command, Data, Encoding, Expiry, Operation};

use crate::resp::call::{Call, ErrorReply, Flow, string};
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::resp::update::{Answer, Change};
use crate::values::Found;

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "getrange",
        syntax: "key start end",
        arity: 4,
        flags: flag::READONLY,
        keys: Keys::FIRST,
        permission: Permission::Read,
        group: Group::String,
        since: "2.4.0",
        complexity: "O(N) where N is the length of what is given",
        summary: "Gives a part of a key's value",
        run: Run::Handler(getrange),
    },
    Spec {
        name: "substr",
        syntax: "key start end",
        arity: 4,
        flags: flag::READONLY,
        keys: Keys::FIRST,
        permission: Permission::Read,
        group: Group::String,
        since: "1.0.0",
        complexity: "O(N) where N is the length of what is given",
        summary: "Gives a part of a key's value: the old name of GETRANGE",
        run: Run::Handler(getrange),
    },
    Spec {
        name: "setrange",
        syntax: "key offset value",
        arity: 4,
        flags: flag::WRITE | flag::DENYOOM,
        keys: Keys::FIRST,
        permission: Permission::Write,
        group: Group::String,
        since: "2.2.0",
        complexity: "O(N) where N is the length of the key's value after it",
        summary: "Writes over a part of a key's value, lengthened by zeros if need be",
        run: Run::Handler(setrange),
    },
];

fn getrange(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let (start, end) = (call.integer(2)?, call.integer(3)?);
    let key = call.word(1);
    let (at, look) = (call.locate(1, key), call.look());
    let command = Command {
        key,
        operation: look,
    };
    let out = &mut call.out;
    let cache = &call.local.shared.cache;
    let encoded = cache.execute_at(at, &command, call.now_ms, |reply| {
        string(reply).map(|item| match item {
            Some(item) if item.value.encoding == Encoding::Raw => {
                let part = part(start, end, item.value.data.len());
                match item.value.data {
                    Data::Slice(bytes) => out.bulk(&bytes[part]),
                    Data::Shared(bytes) if is_most(&part, &bytes) => {
                        out.bulk_shared(bytes.slice(part));
                    }
                    Data::Shared(bytes) => out.bulk(&bytes[part]),
                }
                None
            }
            Some(item) => Some(Found::copy(&item)),
            None => {
                out.bulk(b"");
                None
            }
        })
    });
    let Some(found) = encoded? else {
        return Ok(Flow::Done);
    };
    call.eventually(async move |out| {
        let value = found.raw_in_time(out.in_flight()).await?;
        let part = part(start, end, value.len());
        if is_most(&part, &value) {
            out.bulk_shared(value.slice(part));
        } else {
            out.bulk(&value[part]);
        }
        Ok(())
    })
}

/// Whether a part of a value may be sent as a part of it. A reply counts what it sends, and a small one would keep all of a large
/// value for as long as its client does not take it.
fn is_most(part: &Range<usize>, value: &[u8]) -> bool {
    part.len() >= value.len() / 2
}

/// The bytes from `start` to `end`, both included.
fn part(start: i64, end: i64, len: usize) -> Range<usize> {
    // Both beyond the beginning would else mean the first byte, whatever their order.
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    included(start, end, len).map_or(0..0, |(first, last)| first..last + 1)
}

/// The first position and the last of a range that is given by two, in something of this length; none if it is empty. What
/// is beyond an end is that end.
pub(super) fn included(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let from_start = |at: i64| if at < 0 { (at + len).max(0) } else { at };
    let (start, end) = (from_start(start), from_start(end).min(len - 1));
    if start > end {
        return None;
    }
    usize::try_from(start).ok().zip(usize::try_from(end).ok())
}

fn setrange(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let offset = usize::try_from(call.integer(2)?)
        .map_err(|_| ErrorReply::fixed("ERR offset is out of range"))?;
    let limit = call.local.shared.limits().max_value_bytes;
    let part = call.word(3).to_vec();
    call.update(Operation::Peek, move |current| {
        let value = current.map_or(&[][..], |current| &current.value);
        if part.is_empty() {
            return Ok((Change::None, Answer::Count(value.len())));
        }
        let end = offset.saturating_add(part.len());
        if end > limit {
            return Err(ErrorReply::VALUE_TOO_LONG);
        }
        let mut changed = Vec::with_capacity(value.len().max(end));
        changed.extend_from_slice(value);
        changed.resize(value.len().max(end), 0);
        changed[offset..end].copy_from_slice(&part);
        let answer = Answer::Count(changed.len());
        let change = Change::Put {
            value: changed.into(),
            expiry: Expiry::Keep,
        };
        Ok((change, answer))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_where_the_value_does() {
        for (start, end, len, expected) in [
            (0, -1, 5, 0..5),
            (1, 3, 5, 1..4),
            (-3, -2, 5, 2..4),
            (3, 1, 5, 0..0),
            (-1, -3, 5, 0..0),
            (-9, 2, 5, 0..3),
            (-9, -8, 5, 0..1),
            (-8, -9, 5, 0..0),
            (2, 9, 5, 2..5),
            (5, 9, 5, 0..0),
            (0, 0, 0, 0..0),
            (0, -1, 0, 0..0),
            (i64::MIN, i64::MAX, 5, 0..5),
            (i64::MAX, i64::MIN, 5, 0..0),
        ] {
            assert_eq!(part(start, end, len), expected, "{start} {end} of {len}");
        }
    }
}
