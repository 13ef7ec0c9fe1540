//! `OBJECT`: what the server knows of a value beside the value. Looking is no use of the key.

use henge_wire::resp::request::integer;
use henge_wire::{Encoding, Item, Operation, Reply};

use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::help;
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};

pub(in crate::resp) const COMMANDS: &[Spec] = &[Spec {
    name: "object",
    syntax: "",
    arity: -2,
    flags: 0,
    keys: Keys::NONE,
    permission: Permission::Read,
    group: Group::Generic,
    since: "2.2.3",
    complexity: "That of the subcommand",
    summary: "Says what is known of a value beside the value",
    run: Run::Family(&[
        Spec {
            name: "object|encoding",
            syntax: "key",
            arity: 3,
            flags: flag::READONLY,
            keys: SECOND,
            permission: Permission::Read,
            group: Group::Generic,
            since: "2.2.3",
            complexity: "O(1)",
            summary: "Names the form in which Redis would keep a value",
            run: Run::Handler(encoding),
        },
        Spec {
            name: "object|freq",
            syntax: "key",
            arity: 3,
            flags: flag::READONLY,
            keys: SECOND,
            permission: Permission::Read,
            group: Group::Generic,
            since: "4.0.0",
            complexity: "O(1)",
            summary: "Says how often a key was used, where eviction goes by that",
            run: Run::Handler(freq),
        },
        help::definition("object|help", Group::Generic, "6.2.0"),
        Spec {
            name: "object|idletime",
            syntax: "key",
            arity: 3,
            flags: flag::READONLY,
            keys: SECOND,
            permission: Permission::Read,
            group: Group::Generic,
            since: "2.2.3",
            complexity: "O(1)",
            summary: "Answers an error for a key that is there: times of use are not kept",
            run: Run::Handler(idle_time),
        },
        Spec {
            name: "object|refcount",
            syntax: "key",
            arity: 3,
            flags: flag::READONLY,
            keys: SECOND,
            permission: Permission::Read,
            group: Group::Generic,
            since: "2.2.3",
            complexity: "O(1)",
            summary: "Says how many keys share a value: one",
            run: Run::Handler(refcount),
        },
    ]),
}];

const SECOND: Keys = Keys::new(2, 2, 1);

const FREQ_NOT_KEPT: ErrorReply = ErrorReply::fixed(
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
);
const IDLE_TIME_UNDER_LFU: ErrorReply = ErrorReply::fixed(
    "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
);
/// Henge's own: Redis has a clock in each object.
const IDLE_TIME_NOT_KEPT: ErrorReply =
    ErrorReply::fixed("ERR idle times are not kept: eviction goes by the order of uses");

/// Answers what `see` makes of the item, or null.
fn look<T>(call: &Call<'_>, see: impl FnOnce(&Item<'_>) -> T) -> Option<T> {
    call.on_key(2, Operation::Peek, |reply| match reply {
        Reply::Found(item) => Some(see(&item)),
        _ => None,
    })
}

fn encoding(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let key_len = call.word(2).len();
    match look(call, |item| encoding_of(key_len, item)) {
        Some(name) => call.out.bulk(name.as_bytes()),
        None => call.out.null(),
    }
    Ok(Flow::Done)
}

/// A number of 64 bits has at most this many characters.
const MAX_INTEGER_LEN: usize = 20;

/// Valkey keeps key, deadline and value in one allocation, `embstr`, while that has at most two cache lines.
const EMBEDDED_BYTES: usize = 128;
/// Of these, the header of the object: its kind, its age, its count of references.
const OBJECT_BYTES: usize = 8;
/// A deadline, where there is one.
const DEADLINE_BYTES: usize = 8;
/// Around an embedded value: a header of three bytes, a zero.
const VALUE_BYTES: usize = 4;

/// The name of the encoding that Valkey gives the value when it is set.
fn encoding_of(key_len: usize, item: &Item<'_>) -> &'static str {
    let value = &item.value;
    let is_short = value.encoding == Encoding::Raw && value.data.len() <= MAX_INTEGER_LEN;
    if is_short && integer(&value.data).is_some() {
        return "int";
    }
    // The length of its header, the header, a zero.
    let around_key = match key_len {
        0..32 => 1 + 1 + 1,
        32..256 => 1 + 3 + 1,
        _ => 1 + 5 + 1,
    };
    let deadline = item.expires_at_ms.map_or(0, |_| DEADLINE_BYTES);
    let value = value.raw_len as usize + VALUE_BYTES;
    if OBJECT_BYTES + deadline + around_key + key_len + value <= EMBEDDED_BYTES {
        "embstr"
    } else {
        "raw"
    }
}

fn freq(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    match call.cache().footprint(call.word(2), call.now_ms) {
        None => call.out.null(),
        Some(footprint) => {
            let uses = footprint.uses.ok_or(FREQ_NOT_KEPT)?;
            call.out.integer(uses.into());
        }
    }
    Ok(Flow::Done)
}

fn idle_time(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let footprint = call.cache().footprint(call.word(2), call.now_ms);
    match footprint.map(|footprint| footprint.uses) {
        None => {
            call.out.null();
            Ok(Flow::Done)
        }
        Some(None) => Err(IDLE_TIME_NOT_KEPT),
        Some(Some(_)) => Err(IDLE_TIME_UNDER_LFU),
    }
}

fn refcount(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    match look(call, |_| ()) {
        Some(()) => call.out.integer(1),
        None => call.out.null(),
    }
    Ok(Flow::Done)
}
