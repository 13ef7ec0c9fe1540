//! Commands on keys as such, whatever their values are: whether they are there, what they are, how many, one of them, and
//! that they go. Several keys may be of any slots; each is looked at or deleted by itself.

use std::hash::{BuildHasher, Hasher, RandomState};

use henge_wire::{Command, Operation, Precondition, Reply};

use super::many::INLINE_KEYS;
use super::steps::{Pace, Words};
use crate::cache::KeysAhead;
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::resp::update::Store;

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "del",
        syntax: "key [key ...]",
        arity: -2,
        flags: flag::WRITE,
        keys: Keys::ALL,
        permission: Permission::Write,
        group: Group::Generic,
        since: "1.0.0",
        complexity: "O(N) where N is the number of keys",
        summary: "Deletes keys, and says how many there were",
        run: Run::Handler(del),
    },
    Spec {
        name: "unlink",
        syntax: "key [key ...]",
        arity: -2,
        flags: flag::WRITE | flag::FAST,
        keys: Keys::ALL,
        permission: Permission::Write,
        group: Group::Generic,
        since: "4.0.0",
        complexity: "O(N) where N is the number of keys",
        summary: "Deletes keys as DEL does, which never waits for memory to be freed",
        run: Run::Handler(del),
    },
    Spec {
        name: "exists",
        syntax: "key [key ...]",
        arity: -2,
        flags: flag::READONLY | flag::FAST,
        keys: Keys::ALL,
        permission: Permission::Read,
        group: Group::Generic,
        since: "1.0.0",
        complexity: "O(N) where N is the number of keys",
        summary: "Says how many of the keys are there, one given twice counted twice",
        run: Run::Handler(exists),
    },
    Spec {
        name: "touch",
        syntax: "key [key ...]",
        arity: -2,
        flags: flag::READONLY | flag::FAST,
        keys: Keys::ALL,
        permission: Permission::Read,
        group: Group::Generic,
        since: "3.2.1",
        complexity: "O(N) where N is the number of keys",
        summary: "Counts a use of each key, and says how many are there",
        run: Run::Handler(touch),
    },
    Spec {
        name: "type",
        syntax: "key",
        arity: 2,
        flags: flag::READONLY | flag::FAST,
        keys: Keys::FIRST,
        permission: Permission::Read,
        group: Group::Generic,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Says of which type a key's value is, or none",
        run: Run::Handler(type_of),
    },
    Spec {
        name: "randomkey",
        syntax: "",
        arity: 1,
        flags: flag::READONLY,
        keys: Keys::NONE,
        permission: Permission::Read,
        group: Group::Generic,
        since: "1.0.0",
        complexity: "O(1); O(N) where nearly all of N keys have expired",
        summary: "Gives a key that chance has picked",
        run: Run::Handler(random_key),
    },
    Spec {
        name: "dbsize",
        syntax: "",
        arity: 1,
        flags: flag::READONLY | flag::FAST,
        keys: Keys::NONE,
        permission: Permission::Read,
        group: Group::Server,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Says how many keys there are, with those that expired a moment ago",
        run: Run::Handler(dbsize),
    },
];

fn del(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let operation = Operation::Delete {
        precondition: Precondition::NONE,
    };
    count(call, operation)
}

fn exists(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    count(call, Operation::Peek)
}

/// A use also where the client has said `CLIENT NO-TOUCH`: it is all that the command is for.
fn touch(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    count(call, Operation::Get)
}

/// Runs an operation on every key, and answers how many were there.
fn count(call: &mut Call<'_>, operation: Operation<'static>) -> Result<Flow, ErrorReply> {
    let keys = call.words.len() - 1;
    if keys == 1 {
        let count = call.on_key(1, operation, was_there)?;
        call.out.integer(count);
        return Ok(Flow::Done);
    }
    if keys > INLINE_KEYS {
        return count_in_steps(call, operation);
    }
    let cache = call.cache();
    let mut ahead = KeysAhead::default();
    let mut count = 0;
    for nth in 0..keys {
        let locate = |nth| call.locate(nth + 1, call.word(nth + 1));
        let at = ahead.locate(cache, nth, keys, locate);
        let command = Command {
            key: call.word(nth + 1),
            operation: operation.clone(),
        };
        count += cache.execute_at(at, &command, call.now_ms, was_there)?;
    }
    call.out.integer(count);
    Ok(Flow::Done)
}

#[cold]
fn count_in_steps(call: &mut Call<'_>, operation: Operation<'static>) -> Result<Flow, ErrorReply> {
    let store = Store::of(call);
    let keys = Words::copy(call.words.from(1));
    call.eventually_with(keys.size_bytes(), async move |out| {
        let cache = &store.local.shared.cache;
        let mut pace = Pace::default();
        let mut count = 0;
        let mut ahead = KeysAhead::default();
        for (nth, key) in keys.iter().enumerate() {
            let locate = |nth| cache.locate(keys.word(nth));
            let at = ahead.locate(cache, nth, keys.len(), locate);
            let command = Command {
                key,
                operation: operation.clone(),
            };
            count += cache.execute_at(at, &command, store.now_ms, was_there)?;
            pace.key(0).await;
        }
        out.integer(count);
        Ok(())
    })
}

/// How many items of a key there were.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is called with what the cache answers"
)]
fn was_there(reply: Reply<'_>) -> Result<i64, ErrorReply> {
    match reply {
        Reply::Found(_) | Reply::Deleted => Ok(1),
        Reply::Refused(refusal) => Err(ErrorReply::of(refusal)),
        _ => Ok(0),
    }
}

fn type_of(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let is_there = call.on_key(1, Operation::Peek, |reply| matches!(reply, Reply::Found(_)));
    call.out.simple(if is_there { "string" } else { "none" });
    Ok(Flow::Done)
}

fn random_key(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    // Each has another seed, and the first of a thread has it from the system.
    let random = RandomState::new().build_hasher().finish();
    match call.cache().random_key(random, call.now_ms) {
        Some(key) => call.out.bulk(&key),
        None => call.out.null(),
    }
    Ok(Flow::Done)
}

fn dbsize(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let items = call.cache().size();
    call.out.integer(i64::try_from(items).unwrap_or(i64::MAX));
    Ok(Flow::Done)
}
