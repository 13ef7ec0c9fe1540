//! Commands on several strings. MGET and MSET take keys from anywhere and are atomic for each of them; MSETNX sets all or
//! none, so its keys have to be of one slot. Few and small values are worked on at once, and others in steps.

use bytes::Bytes;
use henge_wire::{
    Command, Condition, Effect, Expiry, Guard, MAX_TRANSACTION_KEYS, Operation, Outcome,
    Precondition, Slot, Transaction, Value,
};

use super::steps::{Pace, STEP_BYTES, Words};
use super::strings::copy_value;
use crate::cache::KeysAhead;
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::resp::update::{Change, Store, refusal};
use crate::values::{SHARED_BYTES, encode};

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "mget",
        syntax: "key [key ...]",
        arity: -2,
        flags: flag::READONLY | flag::FAST,
        keys: Keys::ALL,
        permission: Permission::Read,
        group: Group::String,
        since: "1.0.0",
        complexity: "O(N) where N is the number of keys",
        summary: "Gives the values of several keys",
        run: Run::Handler(mget),
    },
    Spec {
        name: "mset",
        syntax: "key value [key value ...]",
        arity: -3,
        flags: flag::WRITE | flag::DENYOOM,
        keys: Keys::PAIRS,
        permission: Permission::Write,
        group: Group::String,
        since: "1.0.1",
        complexity: "O(N) where N is the number of keys",
        summary: "Sets the values of several keys, one after the other",
        run: Run::Handler(mset),
    },
    Spec {
        name: "msetnx",
        syntax: "key value [key value ...]",
        arity: -3,
        flags: flag::WRITE | flag::DENYOOM,
        keys: Keys::PAIRS,
        permission: Permission::Write,
        group: Group::String,
        since: "1.0.1",
        complexity: "O(N) where N is the number of keys",
        summary: "Sets the values of several keys of one slot at once, if all of them are absent",
        run: Run::Handler(msetnx),
    },
];

/// With more keys than this a command goes in steps from the beginning: some 200 us of work.
pub(super) const INLINE_KEYS: usize = 1_000;

fn mget(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let count = call.words.len() - 1;
    if count > INLINE_KEYS {
        return mget_in_steps(call, 0);
    }
    let mark = call.out.output().mark();
    let before = call.out.output().len();
    call.out.array(count);
    let mut ahead = KeysAhead::default();
    for nth in 0..count {
        let locate = |nth| call.locate(nth + 1, call.word(nth + 1));
        let at = ahead.locate(call.cache(), nth, count, locate);
        let is_quick = match copy_value(call, nth + 1, at)? {
            None => true,
            Some(found) if found.is_quick() => {
                call.out.bulk_shared(found.raw()?);
                true
            }
            Some(_) => false,
        };
        // What was done is little enough to be done again.
        if !is_quick || call.out.output().len() > before + STEP_BYTES {
            call.out.output().rewind(mark);
            return mget_in_steps(call, nth + 1);
        }
    }
    Ok(Flow::Done)
}

/// Of the first keys, so many were used already.
#[cold]
fn mget_in_steps(call: &mut Call<'_>, used: usize) -> Result<Flow, ErrorReply> {
    let (store, look) = (Store::of(call), call.look());
    let keys = Words::copy(call.words.from(1));
    call.eventually_with(keys.size_bytes(), async move |out| {
        let mut pace = Pace::default();
        out.array(keys.len());
        for (nth, key) in keys.iter().enumerate() {
            let look = if nth < used { &Operation::Peek } else { &look };
            let found = store.current(key, look).await?;
            let len = found.as_ref().map_or(0, |found| found.value.len());
            match found {
                Some(found) => out.bulk_shared(found.value),
                None => out.null(),
            }
            out.account()?;
            pace.key(len).await;
        }
        Ok(())
    })
}

fn mset(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let pairs = pairs(call)?;
    let values = || call.words.from(2).step_by(2);
    let inline_bytes = call.compress_from.min(SHARED_BYTES);
    let is_inline = pairs <= INLINE_KEYS
        && values().all(|value| value.len() < inline_bytes)
        && values().map(<[u8]>::len).sum::<usize>() <= STEP_BYTES;
    if !is_inline {
        return mset_in_steps(call);
    }
    let mut ahead = KeysAhead::default();
    for pair in 0..pairs {
        let key = |pair| call.word(2 * pair + 1);
        let locate = |pair| call.locate(2 * pair + 1, key(pair));
        let at = ahead.locate(call.cache(), pair, pairs, locate);
        let command = Command {
            key: key(pair),
            operation: Operation::Set {
                value: Value::from_slice(call.word(2 * pair + 2)),
                expiry: Expiry::Never,
                precondition: Precondition::NONE,
            },
        };
        let cache = call.cache();
        if let Some(refusal) = cache.execute_at(at, &command, call.now_ms, refusal) {
            return Err(ErrorReply::of(refusal));
        }
    }
    call.out.ok();
    Ok(Flow::Done)
}

/// How many pairs of a key and a value there are. A value that is too long is found before any is set.
fn pairs(call: &Call<'_>) -> Result<usize, ErrorReply> {
    let words = call.words.len() - 1;
    if !words.is_multiple_of(2) {
        return Err(ErrorReply::wrong_arity(call.spec.name));
    }
    let limit = call.local.shared.limits().max_value_bytes;
    if call
        .words
        .from(2)
        .step_by(2)
        .any(|value| value.len() > limit)
    {
        return Err(ErrorReply::VALUE_TOO_LONG);
    }
    Ok(words / 2)
}

#[cold]
fn mset_in_steps(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let store = Store::of(call);
    let words = Words::copy(call.words.from(1));
    call.eventually_with(words.size_bytes(), async move |out| {
        let mut pace = Pace::default();
        for pair in 0..words.len() / 2 {
            let (key, value) = (words.word(2 * pair), words.word(2 * pair + 1));
            let change = Change::Put {
                value: Bytes::copy_from_slice(value),
                expiry: Expiry::Never,
            };
            store.change(key, change, Precondition::NONE).await?;
            pace.key(value.len()).await;
        }
        out.ok();
        Ok(())
    })
}

fn msetnx(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    pairs(call)?;
    one_slot(call, call.words.from(1).step_by(2))?;
    let store = Store::of(call);
    let words = Words::copy(call.words.from(1));
    call.eventually_with(words.size_bytes(), async move |out| {
        let mut pace = Pace::default();
        let mut values = Vec::with_capacity(words.len() / 2);
        let mut values_bytes = 0;
        for value in words.iter().skip(1).step_by(2) {
            values_bytes += value.len();
            out.account_with(values_bytes)?;
            let value = Bytes::copy_from_slice(value);
            pace.key(value.len()).await;
            values.push(encode(&store.local, value, false).await?);
        }
        let keys = || words.iter().step_by(2);
        let guards: Vec<_> = keys()
            .map(|key| Guard {
                key,
                condition: Condition::Absent,
            })
            .collect();
        let effects: Vec<_> = keys()
            .zip(&values)
            .map(|(key, value)| {
                let effect = Effect::Put {
                    value: value.value(None),
                    expires_at_ms: None,
                };
                (key, effect)
            })
            .collect();
        let done = transact(&store, &guards, &effects)?;
        out.integer(i64::from(done));
        Ok(())
    })
}

/// Refuses keys that are not of one slot, on a node that has all slots too: what works on one node works on several. And
/// refuses more of them than may be locked at once.
pub(super) fn one_slot<'a>(
    call: &Call<'_>,
    mut keys: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<(), ErrorReply> {
    let limit = call.local.shared.limits().max_batch_items;
    if keys.len() > limit.min(MAX_TRANSACTION_KEYS) {
        let (most, setting) = if limit < MAX_TRANSACTION_KEYS {
            (limit, " (limits.max_batch_items)")
        } else {
            (MAX_TRANSACTION_KEYS, "")
        };
        return Err(ErrorReply::new(format!(
            "ERR '{}' takes at most {most} keys at once{setting}",
            call.spec.name
        )));
    }
    let slot = keys.next().map(Slot::of);
    if keys.any(|key| Some(Slot::of(key)) != slot) {
        return Err(ErrorReply::CROSS_SLOT);
    }
    Ok(())
}

/// Makes all effects happen if all guards hold; says whether they did. The keys are of one slot.
pub(super) fn transact(
    store: &Store,
    guards: &[Guard<'_>],
    effects: &[(&[u8], Effect<'_>)],
) -> Result<bool, ErrorReply> {
    let transaction = Transaction { guards, effects };
    let outcome = store
        .local
        .shared
        .cache
        .transact(&transaction, store.now_ms)
        .map_err(|_| ErrorReply::CROSS_SLOT)?;
    match outcome {
        Outcome::Applied(_) => Ok(true),
        Outcome::Failed { .. } => Ok(false),
        Outcome::Refused(refusal) => Err(ErrorReply::of(refusal)),
    }
}
