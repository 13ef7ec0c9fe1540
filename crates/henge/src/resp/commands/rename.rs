//! Commands that bring a value under another key, as it is stored: with its encoding, what is said of its content, and its
//! deadline. The two keys are of one slot and change together, under one version.

use std::ops::ControlFlow;

use henge_wire::{Condition, Effect, Guard, Operation, Outcome, Reply, Slot, Transaction};

use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::resp::update::Attempts;
use crate::values::Found;

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "rename",
        syntax: "key newkey",
        arity: 3,
        flags: flag::WRITE,
        keys: Keys::FIRST_TWO,
        permission: Permission::Update,
        group: Group::Generic,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Gives a value another key, in place of what that had",
        run: Run::Handler(rename),
    },
    Spec {
        name: "renamenx",
        syntax: "key newkey",
        arity: 3,
        flags: flag::WRITE | flag::FAST,
        keys: Keys::FIRST_TWO,
        permission: Permission::Update,
        group: Group::Generic,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Gives a value another key, if that has none",
        run: Run::Handler(renamenx),
    },
    Spec {
        name: "copy",
        syntax: "source destination [DB destination-db] [REPLACE]",
        arity: -3,
        flags: flag::WRITE | flag::DENYOOM,
        keys: Keys::FIRST_TWO,
        permission: Permission::Update,
        group: Group::Generic,
        since: "6.2.0",
        complexity: "O(1)",
        summary: "Gives a value a second key",
        run: Run::Handler(copy),
    },
];

fn rename(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    one_slot(call)?;
    match transfer(call, Source::Goes, Destination::Any)? {
        Transferred::NoSource => Err(ErrorReply::NO_SUCH_KEY),
        Transferred::Yes | Transferred::DestinationExists => {
            call.out.ok();
            Ok(Flow::Done)
        }
    }
}

fn renamenx(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    one_slot(call)?;
    match transfer(call, Source::Goes, Destination::Absent)? {
        Transferred::NoSource => return Err(ErrorReply::NO_SUCH_KEY),
        Transferred::Yes => call.out.integer(1),
        Transferred::DestinationExists => call.out.integer(0),
    }
    Ok(Flow::Done)
}

fn copy(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    one_slot(call)?;
    let mut destination = Destination::Absent;
    let mut index = 3;
    while index < call.words.len() {
        if call.is(index, "replace") {
            destination = Destination::Any;
        } else if call.is(index, "db") && index + 1 < call.words.len() {
            index += 1;
            let database = i32::try_from(call.integer(index)?).map_err(|_| {
                ErrorReply::fixed(
                    "ERR value is out of range, value must between -2147483648 and 2147483647",
                )
            })?;
            if database != 0 {
                return Err(ErrorReply::fixed("ERR DB index is out of range"));
            }
        } else {
            return Err(ErrorReply::SYNTAX);
        }
        index += 1;
    }
    if call.word(1) == call.word(2) {
        return Err(ErrorReply::fixed(
            "ERR source and destination objects are the same",
        ));
    }
    let transferred = transfer(call, Source::Stays, destination)?;
    call.out.integer((transferred == Transferred::Yes).into());
    Ok(Flow::Done)
}

/// On a single node too, so that what works on one works on many.
fn one_slot(call: &Call<'_>) -> Result<(), ErrorReply> {
    if Slot::of(call.word(1)) == Slot::of(call.word(2)) {
        Ok(())
    } else {
        Err(ErrorReply::CROSS_SLOT)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Goes,
    Stays,
}

/// What must be true of the destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Destination {
    Any,
    Absent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transferred {
    Yes,
    NoSource,
    DestinationExists,
}

/// Puts the item of the first key under the second. Two keys that are the same are there and so is the destination.
fn transfer(
    call: &Call<'_>,
    source: Source,
    destination: Destination,
) -> Result<Transferred, ErrorReply> {
    // A value that goes is not used, as its key is no more.
    let look = match source {
        Source::Goes => Operation::Peek,
        Source::Stays => call.look(),
    };
    let mut attempts = Attempts::default();
    loop {
        attempts.begin()?;
        let found = call.on_key(1, look.clone(), |reply| match reply {
            Reply::Found(item) => Some(Found::copy(&item)),
            _ => None,
        });
        let Some(found) = found else {
            return Ok(Transferred::NoSource);
        };
        if call.word(1) == call.word(2) {
            return Ok(Transferred::DestinationExists);
        }
        if let ControlFlow::Break(transferred) = try_transfer(call, &found, source, destination)? {
            return Ok(transferred);
        }
    }
}

/// Goes on if the source has changed since it was found.
fn try_transfer(
    call: &Call<'_>,
    found: &Found,
    source: Source,
    destination: Destination,
) -> Result<ControlFlow<Transferred>, ErrorReply> {
    let (from, to) = (call.word(1), call.word(2));
    let guards = [
        Guard {
            key: from,
            condition: Condition::Version(found.version),
        },
        Guard {
            key: to,
            condition: Condition::Absent,
        },
    ];
    let put = Effect::Put {
        value: found.stored(),
        expires_at_ms: found.expires_at_ms,
    };
    let effects = [(to, put), (from, Effect::Delete)];
    let transaction = Transaction {
        guards: match destination {
            Destination::Any => &guards[..1],
            Destination::Absent => &guards,
        },
        effects: match source {
            Source::Goes => &effects,
            Source::Stays => &effects[..1],
        },
    };
    let outcome = call.cache().transact(&transaction, call.now_ms);
    match outcome.map_err(|_| ErrorReply::CROSS_SLOT)? {
        Outcome::Applied(_) => Ok(ControlFlow::Break(Transferred::Yes)),
        Outcome::Failed { guard: 0, .. } => Ok(ControlFlow::Continue(())),
        Outcome::Failed { .. } => Ok(ControlFlow::Break(Transferred::DestinationExists)),
        Outcome::Refused(refusal) => Err(ErrorReply::of(refusal)),
    }
}
