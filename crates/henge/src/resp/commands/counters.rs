//! Commands that count: a string that is a number, and what is added to it. Integers are added by the engine, where they lie;
//! others are reckoned as Redis does on x86-64, so that a client reads the same digits.

use bytes::Bytes;
use henge_wire::{Expiry, LongDouble, Operation, Reply};

use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::resp::update::{Answer, Change};

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "incr",
        syntax: "key",
        arity: 2,
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Update,
        group: Group::String,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Adds one to the integer of a key; an absent one is 0",
        run: Run::Handler(incr),
    },
    Spec {
        name: "decr",
        syntax: "key",
        arity: 2,
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Update,
        group: Group::String,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Takes one from the integer of a key; an absent one is 0",
        run: Run::Handler(decr),
    },
    Spec {
        name: "incrby",
        syntax: "key increment",
        arity: 3,
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Update,
        group: Group::String,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Adds to the integer of a key; an absent one is 0",
        run: Run::Handler(incrby),
    },
    Spec {
        name: "decrby",
        syntax: "key decrement",
        arity: 3,
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Update,
        group: Group::String,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Takes from the integer of a key; an absent one is 0",
        run: Run::Handler(decrby),
    },
    Spec {
        name: "incrbyfloat",
        syntax: "key float-increment",
        arity: 3,
        flags: flag::WRITE | flag::DENYOOM | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Update,
        group: Group::String,
        since: "2.6.0",
        complexity: "O(1)",
        summary: "Adds to the decimal number of a key; an absent one is 0",
        run: Run::Handler(incrbyfloat),
    },
];

fn incr(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    add(call, 1)
}

fn decr(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    add(call, -1)
}

fn incrby(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let by = call.integer(2)?;
    add(call, by)
}

fn decrby(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let by = call.integer(2)?;
    let by = by
        .checked_neg()
        .ok_or(ErrorReply::fixed("ERR decrement would overflow"))?;
    add(call, by)
}

#[inline]
fn add(call: &mut Call<'_>, by: i64) -> Result<Flow, ErrorReply> {
    let operation = Operation::Increment {
        by,
        initial: 0,
        expiry: Expiry::Never,
    };
    let counted = call.on_key(1, operation, |reply| match reply {
        Reply::Counted { value, .. } => Ok(value),
        Reply::Refused(refusal) => Err(ErrorReply::of(refusal)),
        other => unreachable!("an increment is counted or refused: {other:?}"),
    });
    call.out.integer(counted?);
    Ok(Flow::Done)
}

fn incrbyfloat(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let by = call.word(2).to_vec();
    call.update(call.look(), move |current| {
        let number = |text: &[u8]| LongDouble::parse(text).ok_or(ErrorReply::NOT_A_FLOAT);
        let value = current.map_or(&b"0"[..], |current| &current.value);
        let sum = number(value)?.plus(number(&by)?).ok_or(ErrorReply::fixed(
            "ERR increment would produce NaN or Infinity",
        ))?;
        let text = Bytes::from(sum.to_string());
        let change = Change::Put {
            value: text.clone(),
            expiry: Expiry::Keep,
        };
        Ok((change, Answer::Bulk(text)))
    })
}
