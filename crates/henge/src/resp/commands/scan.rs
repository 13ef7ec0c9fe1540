//! `SCAN` and `KEYS`: which keys there are. Both read the cache a page at a time and let others run between pages; what
//! they found so far counts against the memory for replies. A key that stays throughout is shown at least once.

use std::rc::Rc;

use henge_wire::resp::request::integer;
use henge_wire::resp::writer::{Output, Protocol, Writer};
use henge_wire::{Glob, Search};

use crate::cache::ScanCursor;
use crate::net::data_thread::Local;
use crate::net::inflight::Hold;
use crate::resp::call::{Call, ErrorReply, Flow, glob};
use crate::resp::pipeline::shown;
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "scan",
        syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        arity: -2,
        flags: flag::READONLY | flag::OF_MATCH,
        keys: Keys::NONE,
        permission: Permission::Read,
        group: Group::Generic,
        since: "2.8.0",
        complexity: "O(1) for a call, O(N) until the cursor is 0 again, where N is the number of keys",
        summary: "Shows some of the keys, and the cursor that shows the next ones",
        run: Run::Handler(scan),
    },
    Spec {
        name: "keys",
        syntax: "pattern",
        arity: 2,
        flags: flag::READONLY | flag::OF_PATTERN,
        keys: Keys::NONE,
        permission: Permission::Read,
        group: Group::Generic,
        since: "1.0.0",
        complexity: "O(N) where N is the number of all keys",
        summary: "Shows all keys that match a pattern",
        run: Run::Handler(keys),
    },
];

/// In a cursor's number: its scan goes over all nodes. A scan that a connection has begun that knows the map goes over this
/// node's keys. It is the cursor that says so and not the connection that goes on with it, as a client may have both kinds
/// in one pool.
pub(in crate::resp) const OF_ALL: u64 = 1 << ScanCursor::BITS;

/// Keys that `SCAN` looks at if it is not told, as in Redis.
const DEFAULT_COUNT: usize = 10;

/// Keys that are looked at before others have their turn: some tens of microseconds.
const PAGE: usize = 256;

/// Steps of a pattern on one key under a shard's lock. What takes more, a key far longer than usual or a hostile pattern, is
/// copied out and decided later.
const STEPS_LOCKED: u32 = 1_024;

/// Steps of a pattern on one key before others have their turn: some hundred microseconds.
const STEPS: u32 = 64 * 1024;

/// The types that Redis knows; no key has another than the first.
const TYPES: [&str; 6] = ["string", "list", "set", "zset", "hash", "stream"];

fn scan(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let given = cursor(call.word(1)).ok_or(ErrorReply::fixed("ERR invalid cursor"))?;
    let is_of_all = is_of_all(given, call.session.asks_for_all());
    let mut cursor = ScanCursor::from_u64(given & !OF_ALL);
    let (mut pattern, mut count, mut is_of_type) = (None, DEFAULT_COUNT, true);
    let mut index = 2;
    while index < call.words.len() {
        let has_value = index + 1 < call.words.len();
        if call.is(index, "count") && has_value {
            count = usize::try_from(call.integer(index + 1)?)
                .ok()
                .filter(|&count| count > 0)
                .ok_or(ErrorReply::SYNTAX)?;
        } else if call.is(index, "match") && has_value {
            pattern = Some(glob(call.word(index + 1))?);
        } else if call.is(index, "type") && has_value {
            let Some(known) = TYPES.iter().position(|name| call.is(index + 1, name)) else {
                let name = shown(call.word(index + 1));
                let error = format!("ERR unknown type name '{name}'");
                return Err(ErrorReply::new(error));
            };
            is_of_type = known == 0;
        } else if call.is(index, "novalues") {
            return Err(ErrorReply::fixed(
                "ERR NOVALUES option can only be used in HSCAN",
            ));
        } else if call.is(index, "noscores") {
            return Err(ErrorReply::fixed(
                "ERR NOSCORES option can only be used in ZSCAN",
            ));
        } else {
            return Err(ErrorReply::SYNTAX);
        }
        index += 2;
    }
    let local = Rc::clone(call.local);
    call.eventually(async move |out| {
        let mut found = Found::new(&local, pattern, out.protocol());
        // No key has another type, so such a scan is over.
        if !is_of_type {
            (cursor, count) = (ScanCursor::default(), 0);
        }
        let mut left = count;
        while left > 0 {
            let page = left.min(PAGE);
            let looked = found.page(&mut cursor, page).await?;
            left = left.saturating_sub(looked);
            // It also ends a page early where it came through many places without a key.
            if cursor.is_end() || looked < page {
                break;
            }
            if left > 0 {
                tokio::task::yield_now().await;
            }
        }
        out.array(2);
        out.bulk(number(cursor, is_of_all).to_string().as_bytes());
        found.write(out);
        Ok(())
    })
}

fn keys(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let pattern = glob(call.word(1))?;
    let local = Rc::clone(call.local);
    call.eventually(async move |out| {
        let mut found = Found::new(&local, Some(pattern), out.protocol());
        let mut cursor = ScanCursor::default();
        loop {
            found.page(&mut cursor, PAGE).await?;
            if cursor.is_end() {
                break;
            }
            tokio::task::yield_now().await;
        }
        found.write(out);
        Ok(())
    })
}

/// The keys that were found so far, as the parts of an array that is not announced yet.
struct Found<'a> {
    local: &'a Local,
    glob: Option<Glob>,
    protocol: Protocol,
    keys: Output,
    count: usize,
    /// What they hold of the memory for replies. It goes over to the reply, which is counted by who sends it.
    hold: Hold<'a>,
}

impl<'a> Found<'a> {
    fn new(local: &'a Local, glob: Option<Glob>, protocol: Protocol) -> Self {
        let in_flight = &local.shared.in_flight;
        let mut keys = Output::default();
        keys.set_budget(in_flight.left());
        Self {
            local,
            glob,
            protocol,
            keys,
            count: 0,
            hold: in_flight.hold(),
        }
    }

    /// Looks at about so many keys from the cursor on, and says at how many it did.
    async fn page(&mut self, cursor: &mut ScanCursor, len: usize) -> Result<usize, ErrorReply> {
        let shared = &self.local.shared;
        let mut writer = Writer::new(&mut self.keys, self.protocol);
        let (mut looked, mut count) = (0, 0);
        let mut undecided: Vec<(Box<[u8]>, Search)> = Vec::new();
        let now_ms = shared.clock.now_ms();
        *cursor = shared.cache.scan(*cursor, len, now_ms, &mut |key| {
            looked += 1;
            let mut search = Search::default();
            let is_match = match &self.glob {
                None => Some(true),
                Some(glob) => glob.advance(&mut search, key, STEPS_LOCKED),
            };
            match is_match {
                Some(true) => {
                    writer.bulk(key);
                    count += 1;
                }
                Some(false) => {}
                None => undecided.push((key.into(), search)),
            }
        });
        self.count += count;
        let copied: usize = undecided.iter().map(|(key, _)| key.len()).sum();
        if !self.hold.set(self.keys.len() + copied) {
            return Err(ErrorReply::REPLY_TOO_LONG);
        }
        for (key, mut search) in undecided {
            let is_match = loop {
                tokio::task::yield_now().await;
                let glob = self.glob.as_ref();
                let found = glob.map_or(Some(true), |glob| glob.advance(&mut search, &key, STEPS));
                if let Some(is_match) = found {
                    break is_match;
                }
            };
            if is_match {
                Writer::new(&mut self.keys, self.protocol).bulk(&key);
                self.count += 1;
            }
        }
        if self.keys.is_over_budget() || !self.hold.set(self.keys.len()) {
            return Err(ErrorReply::REPLY_TOO_LONG);
        }
        Ok(looked)
    }

    fn write(self, out: &mut Writer<'_>) {
        out.array(self.count);
        out.output().append(self.keys);
    }
}

/// The cursor that a client gave. As in Redis it is a number as the C library reads one, so that spaces or zeros in front
/// of it, or a sign, are no error; what is negative outright is one.
pub(in crate::resp) fn cursor(text: &[u8]) -> Option<u64> {
    if let Some(number) = integer(text) {
        return u64::try_from(number).ok();
    }
    let text = text.split(|&byte| byte == 0).next()?;
    let start = text
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t'..=b'\r'))?;
    let (is_negative, digits) = match &text[start..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })?;
    let number = if is_negative {
        number.wrapping_neg()
    } else {
        number
    };
    Some(number)
}

/// Whether a scan goes over all nodes, by the cursor that it goes on with, or by whether who begins it asks for all.
pub(in crate::resp) fn is_of_all(cursor: u64, asks_for_all: bool) -> bool {
    match cursor {
        0 => asks_for_all,
        cursor => cursor & OF_ALL != 0,
    }
}

/// The number of a cursor for a client.
pub(in crate::resp) fn number(cursor: ScanCursor, is_of_all: bool) -> u64 {
    if is_of_all && !cursor.is_end() {
        cursor.to_u64() | OF_ALL
    } else {
        cursor.to_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_numbers_as_the_c_library_reads_them() {
        for (text, number) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("00", Some(0)),
            ("007", Some(7)),
            ("+5", Some(5)),
            (" 5", Some(5)),
            ("\t\n 5", Some(5)),
            ("-0", Some(0)),
            (" -5", Some(u64::MAX - 4)),
            ("5\0x", Some(5)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-1", None),
            ("", None),
            (" ", None),
            ("+", None),
            ("+-5", None),
            ("\x005", None),
            ("5 ", None),
            ("5x", None),
            ("0x10", None),
            ("1e2", None),
        ] {
            assert_eq!(cursor(text.as_bytes()), number, "{text:?}");
        }
    }

    #[test]
    fn a_cursor_says_whose_keys_it_goes_over() {
        let middle = ScanCursor::from_u64(5);
        for asks_for_all in [false, true] {
            assert_eq!(is_of_all(0, asks_for_all), asks_for_all);
            for of_all in [false, true] {
                let given = number(middle, of_all);
                assert_eq!(is_of_all(given, asks_for_all), of_all);
                assert_eq!(given & !OF_ALL, middle.to_u64());
                assert_eq!(number(ScanCursor::default(), of_all), 0);
            }
        }
    }
}
