//! Where the keys of a command are and what it does with them, as `COMMAND` tells clients that send each command to the node
//! of its keys. The places follow from the definition. So does the use, for most: a command that reads them reads their
//! values, one that writes changes them; what is finer than that stands here.

use henge_wire::resp::request::Arguments;

use super::table::{Keys, Spec, flag};

/// Some keys of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeySpec {
    pub(crate) keys: Keys,
    /// What is done with them, in the words that clients know.
    pub(crate) uses: &'static [&'static str],
}

type Uses = &'static [&'static str];

const READ: Uses = &["RO", "access"];
/// What says something about a key without its value.
const LOOK: Uses = &["RO"];
const CHANGE: Uses = &["RW", "access", "update"];
const REPLACE: Uses = &["OW", "update"];
const CREATE: Uses = &["OW", "insert"];
const REMOVE: Uses = &["RM", "delete"];
const TAKE: Uses = &["RW", "access", "delete"];
const UPDATE: Uses = &["RW", "update"];
const INSERT: Uses = &["RW", "insert"];
/// It depends on the options.
const VARIES: Uses = &["RW", "access", "update", "variable_flags"];

/// The keys of a command; none for one that has none.
pub(crate) fn of(spec: &Spec) -> Vec<KeySpec> {
    let keys = spec.keys;
    if keys.first == 0 {
        return Vec::new();
    }
    let one = |uses| vec![KeySpec { keys, uses }];
    let two = |first: Uses, rest: Uses| {
        let at = keys.first;
        vec![
            KeySpec {
                keys: Keys::new(at, at, 1),
                uses: first,
            },
            KeySpec {
                keys: Keys::new(at + 1, keys.last, 1),
                uses: rest,
            },
        ]
    };
    match spec.name {
        "set" | "bitfield" => one(VARIES),
        "append" => one(INSERT),
        "strlen" | "exists" | "type" | "touch" | "memory|usage" | "object|encoding"
        | "object|freq" | "object|idletime" | "object|refcount" => one(LOOK),
        "setnx" | "msetnx" => one(CREATE),
        "setex" | "psetex" | "mset" => one(REPLACE),
        "getdel" => one(TAKE),
        "setrange" | "expire" | "pexpire" | "expireat" | "pexpireat" | "persist" => one(UPDATE),
        "del" | "unlink" => one(REMOVE),
        "bitop" => two(REPLACE, READ),
        "copy" => two(READ, REPLACE),
        "rename" => two(TAKE, REPLACE),
        "renamenx" => two(TAKE, CREATE),
        _ if spec.is(flag::WRITE) => one(CHANGE),
        _ => one(READ),
    }
}

/// What a command with these words does with the keys of one of its specifications.
pub(crate) fn uses_in(spec: &Spec, key_spec: &KeySpec, words: &Arguments<'_>) -> Uses {
    if spec.name != "set" {
        return key_spec.uses;
    }
    let is_get = |word: &[u8]| word.eq_ignore_ascii_case(b"GET");
    if words.from(2).any(is_get) {
        CHANGE
    } else {
        REPLACE
    }
}

/// The places of the keys in a command of so many words.
pub(crate) fn places(keys: Keys, words: usize) -> impl Iterator<Item = usize> {
    let first = usize::from(keys.first.unsigned_abs());
    let last = if keys.last < 0 {
        words.saturating_sub(usize::from(keys.last.unsigned_abs()))
    } else {
        usize::from(keys.last.unsigned_abs())
    };
    (first..=last.min(words.saturating_sub(1)))
        .step_by(usize::from(keys.step.unsigned_abs()).max(1))
}
