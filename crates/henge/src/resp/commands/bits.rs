//! Commands on the bits of strings. Bit 0 is the highest of the first byte, and past the end of a string all are 0.

use std::ops::Range;

use bytes::Bytes;
use henge_wire::resp::request::integer;
use henge_wire::{Condition, Effect, Encoding, Expiry, Guard, Operation};

use super::many::{one_slot, transact};
use super::ranges::included;
use super::steps::{Pace, STEP_BYTES, Words};
use crate::resp::call::{Call, ErrorReply, Flow, string};
use crate::resp::counted::Counted;
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::resp::update::{Answer, Attempts, Change, Current, Store};
use crate::values::{Found, encode};

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "setbit",
        syntax: "key offset value",
        arity: 4,
        flags: flag::WRITE | flag::DENYOOM,
        keys: Keys::FIRST,
        permission: Permission::Update,
        group: Group::Bitmap,
        since: "2.2.0",
        complexity: "O(N) where N is the length of the key's value",
        summary: "Sets a bit of a key's value, lengthened by zeros if need be, and gives what it was",
        run: Run::Handler(setbit),
    },
    Spec {
        name: "getbit",
        syntax: "key offset",
        arity: 3,
        flags: flag::READONLY | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Read,
        group: Group::Bitmap,
        since: "2.2.0",
        complexity: "O(1)",
        summary: "Gives a bit of a key's value",
        run: Run::Handler(getbit),
    },
    Spec {
        name: "bitcount",
        syntax: "key [start [end [BYTE | BIT]]]",
        arity: -2,
        flags: flag::READONLY,
        keys: Keys::FIRST,
        permission: Permission::Read,
        group: Group::Bitmap,
        since: "2.6.0",
        complexity: "O(N) where N is the length of what is counted",
        summary: "Counts the bits of a key's value that are 1, in all of it or in a range",
        run: Run::Handler(bitcount),
    },
    Spec {
        name: "bitpos",
        syntax: "key bit [start [end [BYTE | BIT]]]",
        arity: -3,
        flags: flag::READONLY,
        keys: Keys::FIRST,
        permission: Permission::Read,
        group: Group::Bitmap,
        since: "2.8.7",
        complexity: "O(N) where N is the length of what is searched",
        summary: "Finds the first bit that is 0, or 1, in a key's value or in a range of it",
        run: Run::Handler(bitpos),
    },
    Spec {
        name: "bitop",
        syntax: "<AND | OR | XOR | NOT> destkey key [key ...]",
        arity: -4,
        flags: flag::WRITE | flag::DENYOOM,
        keys: Keys::new(2, -1, 1),
        permission: Permission::Update,
        group: Group::Bitmap,
        since: "2.6.0",
        complexity: "O(N) where N is the length of all values",
        summary: "Combines the bits of values of one slot, and stores what comes out under a key",
        run: Run::Handler(bitop),
    },
];

/// The bit that an argument names, which a value may have.
fn offset(call: &Call<'_>) -> Result<usize, ErrorReply> {
    let limit = call.local.shared.limits().max_value_bytes;
    integer(call.word(2))
        .and_then(|offset| usize::try_from(offset).ok())
        .filter(|offset| offset / 8 < limit)
        .ok_or(ErrorReply::fixed(
            "ERR bit offset is not an integer or out of range",
        ))
}

fn bit_at(bytes: &[u8], offset: usize) -> u8 {
    bytes
        .get(offset / 8)
        .map_or(0, |byte| byte >> (7 - offset % 8) & 1)
}

fn setbit(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let offset = offset(call)?;
    let bit = match call.word(3) {
        b"0" => 0,
        b"1" => 1,
        _ => {
            return Err(ErrorReply::fixed(
                "ERR bit is not an integer or out of range",
            ));
        }
    };
    call.update(Operation::Peek, move |current| {
        let value = current.map_or(&[][..], |current| &current.value);
        let before = bit_at(value, offset);
        let answer = Answer::Integer(i64::from(before));
        let len = value.len().max(offset / 8 + 1);
        if before == bit && len == value.len() {
            return Ok((Change::None, answer));
        }
        let mut changed = Vec::with_capacity(len);
        changed.extend_from_slice(value);
        changed.resize(len, 0);
        let mask = 0x80 >> (offset % 8);
        if bit == 1 {
            changed[offset / 8] |= mask;
        } else {
            changed[offset / 8] &= !mask;
        }
        let change = Change::Put {
            value: changed.into(),
            expiry: Expiry::Keep,
        };
        Ok((change, answer))
    })
}

fn getbit(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let offset = offset(call)?;
    let (bit, encoded) = call.on_key(1, call.look(), |reply| {
        string(reply).map(|item| match item {
            Some(item) if offset / 8 >= item.value.raw_len as usize => (0, None),
            Some(item) if item.value.encoding == Encoding::Raw => {
                (bit_at(&item.value.data, offset), None)
            }
            Some(item) => (0, Some(Found::copy(&item))),
            None => (0, None),
        })
    })?;
    let Some(encoded) = encoded else {
        call.out.integer(i64::from(bit));
        return Ok(Flow::Done);
    };
    call.eventually(async move |out| {
        let value = encoded.raw_in_time(out.in_flight()).await?;
        out.integer(i64::from(bit_at(&value, offset)));
        Ok(())
    })
}

/// The range that BITCOUNT and BITPOS take.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: i64,
    /// The last one, if it was given.
    end: Option<i64>,
    in_bits: bool,
}

impl Span {
    /// Reads `[start [end [BYTE | BIT]]]` from a place on. The unit is looked at before the end, as Redis does it.
    fn parse(call: &Call<'_>, at: usize) -> Result<Self, ErrorReply> {
        if call.words.len() > at + 3 {
            return Err(ErrorReply::SYNTAX);
        }
        let has = |index| call.words.get(index).is_some();
        let start = if has(at) { call.integer(at)? } else { 0 };
        let in_bits = match has(at + 2) {
            true if call.is(at + 2, "BIT") => true,
            true if !call.is(at + 2, "BYTE") => return Err(ErrorReply::SYNTAX),
            _ => false,
        };
        let end = if has(at + 1) {
            Some(call.integer(at + 1)?)
        } else {
            None
        };
        Ok(Self {
            start,
            end,
            in_bits,
        })
    }

    /// The bits that it has of a value of so many bytes.
    fn bits(self, len: usize) -> Range<usize> {
        let unit = if self.in_bits { 1 } else { 8 };
        match included(self.start, self.end.unwrap_or(-1), len * 8 / unit) {
            Some((first, last)) => first * unit..(last + 1) * unit,
            None => 0..0,
        }
    }
}

/// The bytes in which bits of a range lie, and what of each counts: all but the first and the last are whole.
fn bytes_of(bits: &Range<usize>) -> Range<usize> {
    bits.start / 8..bits.end.div_ceil(8)
}

/// Which bits of the byte at a place are in the range.
fn mask(bits: &Range<usize>, byte: usize) -> u8 {
    let from = bits.start.saturating_sub(byte * 8).min(8);
    let to = bits.end.saturating_sub(byte * 8).min(8);
    let after = |skipped: usize| 0xff_u8.checked_shr(skipped as u32).unwrap_or(0);
    after(from) & !after(to)
}

fn bitcount(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let span = Span::parse(call, 2)?;
    let (store, look) = (Store::of(call), call.look());
    let key = Bytes::copy_from_slice(call.word(1));
    call.eventually(async move |out| {
        let current = store.current(&key, &look).await?;
        out.account_with(current.as_ref().map_or(0, Current::decompressed_bytes))?;
        let value = current.map(|current| current.value).unwrap_or_default();
        // As with GETRANGE, beyond the beginning the order still counts.
        let is_reversed = matches!(span.end, Some(end) if span.start > end && span.start < 0);
        let count = if is_reversed {
            0
        } else {
            count(&value, &span.bits(value.len())).await
        };
        out.count(count);
        Ok(())
    })
}

async fn count(value: &[u8], bits: &Range<usize>) -> usize {
    if bits.is_empty() {
        return 0;
    }
    let range = bytes_of(bits);
    let mut pace = Pace::default();
    let mut count = 0;
    for step in value[range.clone()].chunks(STEP_BYTES) {
        count += step
            .iter()
            .map(|byte| byte.count_ones() as usize)
            .sum::<usize>();
        pace.bytes(step.len()).await;
    }
    let (first, last) = (range.start, range.end - 1);
    let outside = |byte: usize| (value[byte] & !mask(bits, byte)).count_ones() as usize;
    count - outside(first) - if last > first { outside(last) } else { 0 }
}

fn bitpos(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let bit = match call.integer(2)? {
        0 => false,
        1 => true,
        _ => {
            return Err(ErrorReply::fixed("ERR The bit argument must be 1 or 0."));
        }
    };
    let span = Span::parse(call, 3)?;
    let (store, look) = (Store::of(call), call.look());
    let key = Bytes::copy_from_slice(call.word(1));
    call.eventually(async move |out| {
        let Some(current) = store.current(&key, &look).await? else {
            // An absent value is of zeros.
            out.integer(if bit { -1 } else { 0 });
            return Ok(());
        };
        out.account_with(current.decompressed_bytes())?;
        let bits = span.bits(current.value.len());
        match first(&current.value, &bits, bit).await {
            Some(found) => out.count(found),
            // What is past the end counts as zeros, unless the client said where the end is.
            None if !bit && span.end.is_none() && !bits.is_empty() => {
                out.count(current.value.len() * 8);
            }
            None => out.integer(-1),
        }
        Ok(())
    })
}

/// The first bit of a range that is `bit`.
async fn first(value: &[u8], bits: &Range<usize>, bit: bool) -> Option<usize> {
    let range = bytes_of(bits);
    let wanted = |at: usize| {
        let byte = if bit { value[at] } else { !value[at] };
        byte & mask(bits, at)
    };
    let skipped = if bit { 0 } else { 0xff };
    let mut pace = Pace::default();
    let mut at = range.start;
    while at < range.end {
        if wanted(at) != 0 {
            return Some(at * 8 + wanted(at).leading_zeros() as usize);
        }
        at += 1;
        // Many bytes at a time can be compared at once.
        let same = value[at..range.end]
            .chunks_exact(COMPARED_BYTES)
            .take(STEP_BYTES / COMPARED_BYTES)
            .take_while(|chunk| chunk.iter().fold(0, |all, byte| all | (byte ^ skipped)) == 0)
            .count();
        at += same * COMPARED_BYTES;
        pace.bytes(same * COMPARED_BYTES + 1).await;
    }
    None
}

/// Bytes that BITPOS compares at once: some registers of a processor.
const COMPARED_BYTES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Combine {
    And,
    Or,
    Xor,
    Not,
}

fn bitop(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let combine = [
        ("AND", Combine::And),
        ("OR", Combine::Or),
        ("XOR", Combine::Xor),
        ("NOT", Combine::Not),
    ]
    .into_iter()
    .find(|(name, _)| call.is(1, name))
    .map(|(_, combine)| combine);
    let combine = combine.ok_or(ErrorReply::SYNTAX)?;
    one_slot(call, call.words.from(2))?;
    let words = Words::copy(call.words.from(2));
    if combine == Combine::Not && words.len() > 2 {
        return Err(ErrorReply::fixed(
            "ERR BITOP NOT must be called with a single source key.",
        ));
    }
    let (store, look) = (Store::of(call), call.look());
    call.eventually_with(words.size_bytes(), async move |out| {
        let mut attempts = Attempts::default();
        loop {
            attempts.begin()?;
            let (result, guards) = combined(&store, combine, &words, &look, out).await?;
            let len = result.len();
            attempts.worked_on(len);
            let encoded;
            let effect = if result.is_empty() {
                Effect::Delete
            } else {
                encoded = encode(&store.local, result, false).await?;
                Effect::Put {
                    value: encoded.value(None),
                    expires_at_ms: None,
                }
            };
            if transact(&store, &guards, &[(words.word(0), effect)])? {
                out.count(len);
                return Ok(());
            }
        }
    })
}

/// Combines the values of all keys but the first, and says what must still be true of them when the result is stored. They
/// are read one after the other, so that of values that lie there compressed only one is there in full.
async fn combined<'a>(
    store: &Store,
    combine: Combine,
    words: &'a Words,
    look: &Operation<'_>,
    out: &mut Counted<'_>,
) -> Result<(Bytes, Vec<Guard<'a>>), ErrorReply> {
    let mut pace = Pace::default();
    let mut guards = Vec::with_capacity(words.len() - 1);
    let mut result = Vec::new();
    for (place, key) in words.iter().skip(1).enumerate() {
        let current = store.current(key, look).await?;
        let condition = match &current {
            Some(current) => Condition::Version(current.version),
            None => Condition::Absent,
        };
        guards.push(Guard { key, condition });
        let decompressed_bytes = current.as_ref().map_or(0, Current::decompressed_bytes);
        let value = current.map(|current| current.value).unwrap_or_default();
        out.account_with(result.len().max(value.len()) + decompressed_bytes)?;
        if place == 0 {
            result.extend_from_slice(&value);
        } else {
            result.resize(result.len().max(value.len()), 0);
        }
        let both = value.len();
        for (step, with) in result[..both]
            .chunks_mut(STEP_BYTES)
            .zip(value.chunks(STEP_BYTES))
        {
            match combine {
                Combine::Not => step.iter_mut().for_each(|byte| *byte = !*byte),
                _ if place == 0 => {}
                Combine::And => step
                    .iter_mut()
                    .zip(with)
                    .for_each(|(byte, with)| *byte &= with),
                Combine::Or => step
                    .iter_mut()
                    .zip(with)
                    .for_each(|(byte, with)| *byte |= with),
                Combine::Xor => step
                    .iter_mut()
                    .zip(with)
                    .for_each(|(byte, with)| *byte ^= with),
            }
            pace.bytes(step.len()).await;
        }
        if combine == Combine::And {
            result[both..].fill(0);
        }
        pace.key(0).await;
    }
    Ok((result.into(), guards))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_cut_off_what_is_outside() {
        for (bits, byte, expected) in [
            (0..8, 0, 0xff),
            (0..24, 1, 0xff),
            (3..24, 0, 0b0001_1111),
            (3..5, 0, 0b0001_1000),
            (3..9, 1, 0b1000_0000),
            (8..16, 0, 0),
            (8..16, 2, 0),
            (4..4, 0, 0),
        ] {
            assert_eq!(mask(&bits, byte), expected, "{bits:?} {byte}");
        }
    }
}
