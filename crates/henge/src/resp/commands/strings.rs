//! Commands on strings: the value under a key as a whole. How values go in is in `set_options`, counting in `counters`, parts
//! of a value in `ranges`, several keys at once in `many`, and bits in `bits`.

use bytes::Bytes;
use henge_wire::resp::writer::Writer;
use henge_wire::{Command, Data, Encoding, Expiry, Match, Operation, Precondition, Refusal, Value};

use super::set_options::{Condition, Lifetime, Options, Unit, deadline};
use crate::cache::Location;
use crate::resp::call::{Call, ErrorReply, Flow, string};
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::resp::update::{Answer, Change, Store, refusal};
use crate::values::{Found, SHARED_BYTES};

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "get",
        syntax: "key",
        arity: 2,
        flags: flag::READONLY | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Read,
        group: Group::String,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Gives the value of a key",
        run: Run::Handler(get),
    },
    Spec {
        name: "set",
        syntax: "key value [NX | XX | IFEQ comparison-value] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
        arity: -3,
        flags: flag::WRITE | flag::DENYOOM | flag::BRIEF | flag::SHOWS_WITH_OPTION,
        keys: Keys::FIRST,
        permission: Permission::Write,
        group: Group::String,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Sets the value of a key, if its conditions hold",
        run: Run::Handler(set),
    },
    Spec {
        name: "setnx",
        syntax: "key value",
        arity: 3,
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Write,
        group: Group::String,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Sets the value of a key that is absent",
        run: Run::Handler(setnx),
    },
    Spec {
        name: "setex",
        syntax: "key seconds value",
        arity: 4,
        flags: flag::WRITE | flag::DENYOOM,
        keys: Keys::FIRST,
        permission: Permission::Write,
        group: Group::String,
        since: "2.0.0",
        complexity: "O(1)",
        summary: "Sets the value of a key, which then lives for some seconds",
        run: Run::Handler(setex),
    },
    Spec {
        name: "psetex",
        syntax: "key milliseconds value",
        arity: 4,
        flags: flag::WRITE | flag::DENYOOM,
        keys: Keys::FIRST,
        permission: Permission::Write,
        group: Group::String,
        since: "2.6.0",
        complexity: "O(1)",
        summary: "Sets the value of a key, which then lives for some milliseconds",
        run: Run::Handler(psetex),
    },
    Spec {
        name: "getset",
        syntax: "key value",
        arity: 3,
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Update,
        group: Group::String,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Sets the value of a key, and gives the one before",
        run: Run::Handler(getset),
    },
    Spec {
        name: "getdel",
        syntax: "key",
        arity: 2,
        flags: flag::WRITE | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Update,
        group: Group::String,
        since: "6.2.0",
        complexity: "O(1)",
        summary: "Removes a key, and gives its value",
        run: Run::Handler(getdel),
    },
    Spec {
        name: "getex",
        syntax: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
        arity: -2,
        flags: flag::WRITE | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Update,
        group: Group::String,
        since: "6.2.0",
        complexity: "O(1)",
        summary: "Gives the value of a key, and changes how long it lives",
        run: Run::Handler(getex),
    },
    Spec {
        name: "append",
        syntax: "key value",
        arity: 3,
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Write,
        group: Group::String,
        since: "2.0.0",
        complexity: "O(N) where N is the length of the value",
        summary: "Appends to the value of a key, and gives its length",
        run: Run::Handler(append),
    },
    Spec {
        name: "strlen",
        syntax: "key",
        arity: 2,
        flags: flag::READONLY | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Read,
        group: Group::String,
        since: "2.2.0",
        complexity: "O(1)",
        summary: "Gives the length of a key's value, in bytes",
        run: Run::Handler(strlen),
    },
];

#[inline]
fn get(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let at = call.locate(1, call.word(1));
    match copy_value(call, 1, at)? {
        None => Ok(Flow::Done),
        Some(found) => call.answer_value(found),
    }
}

/// Answers the value of the key at a place, or that there is none; what has to be decompressed first is given back instead.
#[inline]
pub(super) fn copy_value(
    call: &mut Call<'_>,
    index: usize,
    at: Location,
) -> Result<Option<Found>, ErrorReply> {
    let command = Command {
        key: call.word(index),
        operation: call.look(),
    };
    let out = &mut call.out;
    let cache = &call.local.shared.cache;
    cache.execute_at(at, &command, call.now_ms, |reply| {
        string(reply).map(|item| match item {
            Some(item) if item.value.encoding == Encoding::Raw => {
                match item.value.data {
                    Data::Slice(bytes) => out.bulk(bytes),
                    Data::Shared(bytes) => out.bulk_shared(bytes),
                }
                None
            }
            Some(item) => Some(Found::copy(&item)),
            None => {
                out.null();
                None
            }
        })
    })
}

#[inline]
fn set(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let value = call.word(2);
    if call.words.len() == 3 {
        return store(call, value, Expiry::Never, Precondition::NONE, |out, _| {
            out.ok();
        });
    }
    let options = Options::of_set(call)?;
    let precondition = match options.condition {
        _ if options.gives_old => return set_by_what_was(call, options),
        Condition::Equals(_) => return set_by_what_was(call, options),
        Condition::None => Precondition::NONE,
        Condition::Absent => ABSENT,
        Condition::Exists => EXISTS,
    };
    store(
        call,
        value,
        options.lifetime.expiry(),
        precondition,
        |out, done| if done { out.ok() } else { out.null() },
    )
}

const ABSENT: Precondition<'static> = Precondition {
    matches: None,
    none_matches: Some(Match::Any),
};

const EXISTS: Precondition<'static> = Precondition {
    matches: Some(Match::Any),
    none_matches: None,
};

/// Stores a value under the first key, and answers whether its precondition held. What need not be compressed, nor kept by
/// reference, goes in as it lies in the request.
#[inline]
fn store(
    call: &mut Call<'_>,
    value: &[u8],
    expiry: Expiry,
    precondition: Precondition<'static>,
    answer: fn(&mut Writer<'_>, bool),
) -> Result<Flow, ErrorReply> {
    let operation = if is_past(expiry, call.now_ms) {
        Operation::Delete { precondition }
    } else if value.len() < call.compress_from.min(SHARED_BYTES) {
        Operation::Set {
            value: Value::from_slice(value),
            expiry,
            precondition,
        }
    } else {
        return store_encoded(call, value, expiry, precondition, answer);
    };
    let done = match call.on_key(1, operation, refusal) {
        None => true,
        Some(Refusal::PreconditionFailed(_)) => false,
        Some(refusal) => return Err(ErrorReply::of(refusal)),
    };
    answer(&mut call.out, done);
    Ok(Flow::Done)
}

#[cold]
fn store_encoded(
    call: &mut Call<'_>,
    value: &[u8],
    expiry: Expiry,
    precondition: Precondition<'static>,
    answer: fn(&mut Writer<'_>, bool),
) -> Result<Flow, ErrorReply> {
    let store = Store::of(call);
    let key = Bytes::copy_from_slice(call.word(1));
    let value = Bytes::copy_from_slice(value);
    call.eventually(async move |out| {
        let change = Change::Put { value, expiry };
        answer(out, store.change(&key, change, precondition).await?);
        Ok(())
    })
}

/// Whether an item with this lifetime is gone as soon as it is there. It is deleted then, so that no room is made for it.
fn is_past(expiry: Expiry, now_ms: u64) -> bool {
    matches!(expiry, Expiry::At(at) if at <= now_ms)
}

/// A SET that looks at the value before: it answers it, or compares it.
#[cold]
fn set_by_what_was(call: &mut Call<'_>, options: Options<'_>) -> Result<Flow, ErrorReply> {
    let value = Bytes::copy_from_slice(call.word(2));
    let (gives_old, expiry) = (options.gives_old, options.lifetime.expiry());
    let change = put(value, expiry, call.now_ms);
    let look = if gives_old {
        call.look()
    } else {
        Operation::Peek
    };
    // Compressing or decompressing a large value may take longer than the request is there.
    let condition = match options.condition {
        Condition::Equals(wanted) => Condition::Equals(Bytes::copy_from_slice(wanted)),
        Condition::None => Condition::None,
        Condition::Absent => Condition::Absent,
        Condition::Exists => Condition::Exists,
    };
    call.update(look, move |current| {
        let old = current.map(|current| &current.value);
        let holds = match &condition {
            Condition::None => true,
            Condition::Absent => old.is_none(),
            Condition::Exists => old.is_some(),
            Condition::Equals(wanted) => old == Some(wanted),
        };
        let answer = match old {
            _ if !gives_old && holds => Answer::Ok,
            Some(old) if gives_old => Answer::Bulk(old.clone()),
            _ => Answer::Null,
        };
        let change = if holds { change.clone() } else { Change::None };
        Ok((change, answer))
    })
}

fn put(value: Bytes, expiry: Expiry, now_ms: u64) -> Change {
    if is_past(expiry, now_ms) {
        Change::Delete
    } else {
        Change::Put { value, expiry }
    }
}

fn setnx(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    store(call, call.word(2), Expiry::Never, ABSENT, |out, done| {
        out.integer(i64::from(done));
    })
}

fn setex(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    set_for(call, Unit::Seconds)
}

fn psetex(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    set_for(call, Unit::Milliseconds)
}

fn set_for(call: &mut Call<'_>, unit: Unit) -> Result<Flow, ErrorReply> {
    let expiry = Expiry::At(deadline(call, unit, call.word(2))?);
    store(call, call.word(3), expiry, Precondition::NONE, |out, _| {
        out.ok();
    })
}

fn getset(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let change = Change::Put {
        value: Bytes::copy_from_slice(call.word(2)),
        expiry: Expiry::Never,
    };
    call.update(call.look(), move |current| {
        let old = current.map(|current| current.value.clone());
        Ok((change.clone(), old.map_or(Answer::Null, Answer::Bulk)))
    })
}

fn getdel(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.update(call.look(), |current| {
        Ok(match current {
            Some(current) => (Change::Delete, Answer::Bulk(current.value.clone())),
            None => (Change::None, Answer::Null),
        })
    })
}

fn getex(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let change = match Options::of_getex(call)?.lifetime {
        // Nothing changes, so this is a GET.
        Lifetime::Unsaid | Lifetime::Keep => return get(call),
        Lifetime::Persist => Change::Expire(Expiry::Never),
        Lifetime::Until(at) if is_past(Expiry::At(at), call.now_ms) => Change::Delete,
        Lifetime::Until(at) => Change::Expire(Expiry::At(at)),
    };
    call.update(call.look(), move |current| {
        Ok(match current {
            Some(current) => (change.clone(), Answer::Bulk(current.value.clone())),
            None => (Change::None, Answer::Null),
        })
    })
}

fn append(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let limit = call.local.shared.limits().max_value_bytes;
    let more = call.word(2).to_vec();
    call.update(Operation::Peek, move |current| {
        let value = current.map_or(&[][..], |current| &current.value);
        let len = value.len() + more.len();
        if len > limit {
            return Err(ErrorReply::VALUE_TOO_LONG);
        }
        let change = match current {
            Some(_) if more.is_empty() => Change::None,
            _ => Change::Put {
                value: [value, &more[..]].concat().into(),
                expiry: Expiry::Keep,
            },
        };
        Ok((change, Answer::Count(len)))
    })
}

fn strlen(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let len = call.on_key(1, call.look(), |reply| {
        string(reply).map(|item| item.map_or(0, |item| item.value.raw_len))
    })?;
    call.out.integer(i64::from(len));
    Ok(Flow::Done)
}
