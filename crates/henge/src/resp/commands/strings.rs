//! Commands on strings: the value under a key as a whole. Those on its bits stand in `bits`.

use henge_wire::{Command, Data, Encoding, Expiry, Operation, Precondition, Reply, Value};

use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::resp::update::{Answer, Change, refusal};
use crate::values::Found;

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
        flags: flag::WRITE | flag::DENYOOM | flag::BRIEF,
        keys: Keys::FIRST,
        permission: Permission::Write,
        group: Group::String,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Sets the value of a key, if its conditions hold",
        run: Run::Handler(set),
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
];

#[inline]
fn get(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let key = call.word(1);
    let (at, look) = (call.locate(1, key), call.look());
    let command = Command {
        key,
        operation: look,
    };
    let out = &mut call.out;
    let cache = &call.local.shared.cache;
    let encoded = cache.execute_at(at, &command, call.now_ms, |reply| match reply {
        Reply::Found(item) if item.value.encoding == Encoding::Raw => {
            match item.value.data {
                Data::Slice(bytes) => out.bulk(bytes),
                Data::Shared(bytes) => out.bulk_shared(bytes),
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

fn append(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let more = call.word(2).to_vec();
    call.update(Operation::Peek, move |current| {
        let value = current.map_or(&[][..], |current| &current.value);
        let joined = [value, &more[..]].concat();
        let answer = Answer::Integer(joined.len() as i64);
        let change = Change::Put {
            value: joined.into(),
            expiry: Expiry::Keep,
        };
        Ok((change, answer))
    })
}
