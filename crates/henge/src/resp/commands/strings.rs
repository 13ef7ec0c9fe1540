//! Commands on strings: the value under a key as a whole. Those on its bits stand in `bits`.

use bytes::Bytes;
use henge_wire::{Encoding, Expiry, Match, Operation, Precondition, Refusal, Reply, Value};

use crate::resp::call::{Call, ErrorReply, Flow, later};
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::values::{Found, encode};

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
        flags: flag::WRITE | flag::DENYOOM,
        keys: Keys::FIRST,
        permission: Permission::Write,
        group: Group::String,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Sets the value of a key, if its conditions hold",
        run: Run::Handler(set),
    },
];

#[inline]
fn get(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let key = call.word(1);
    let (at, look) = (call.locate(1, key), call.look());
    let command = henge_wire::Command {
        key,
        operation: look,
    };
    let out = &mut call.out;
    let cache = &call.local.shared.cache;
    let encoded = cache.execute_at(at, &command, call.now_ms, |reply| match reply {
        Reply::Found(item) if item.value.encoding == Encoding::Raw => {
            match item.value.data {
                henge_wire::Data::Slice(bytes) => out.bulk(bytes),
                henge_wire::Data::Shared(bytes) => out.bulk_shared(bytes),
            }
            None
        }
        Reply::Found(item) => Some(Found::copy(&item)),
        _ => {
            out.null();
            None
        }
    });
    match encoded {
        None => Ok(Flow::Done),
        Some(found) => call.answer_value(found),
    }
}

#[inline]
fn set(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let value = call.word(2);
    let operation = Operation::Set {
        value: Value::from_slice(value),
        expiry: Expiry::Never,
        precondition: Precondition::NONE,
    };
    match call.on_key(1, operation, refusal) {
        None => call.out.ok(),
        Some(refusal) => return Err(ErrorReply::of(refusal)),
    }
    Ok(Flow::Done)
}

fn refusal(reply: Reply<'_>) -> Option<Refusal> {
    match reply {
        Reply::Refused(refusal) => Some(refusal),
        _ => None,
    }
}
