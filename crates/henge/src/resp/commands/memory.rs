//! `MEMORY`: what is taken by one key, and its family's other commands. What the node takes in all it asks of others.

use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::help;
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};

pub(in crate::resp) const COMMANDS: &[Spec] = &[Spec {
    name: "memory",
    syntax: "",
    arity: -2,
    flags: 0,
    keys: Keys::NONE,
    permission: Permission::Observe,
    group: Group::Server,
    since: "4.0.0",
    complexity: "That of the subcommand",
    summary: "Says what memory is used for",
    run: Run::Family(&[
        help::definition("memory|help", Group::Server, "4.0.0"),
        Spec {
            name: "memory|usage",
            syntax: "key [SAMPLES count]",
            arity: -3,
            flags: flag::READONLY,
            keys: Keys::new(2, 2, 1),
            permission: Permission::Read,
            group: Group::Server,
            since: "4.0.0",
            complexity: "O(1)",
            summary: "Says how many bytes a key takes with its value and its part of the index",
            run: Run::Handler(usage),
        },
    ]),
}];

fn usage(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let mut index = 3;
    while index < call.words.len() {
        // How many parts of a value to look at: a string has one.
        if !call.is(index, "samples") || index + 1 == call.words.len() {
            return Err(ErrorReply::SYNTAX);
        }
        if call.integer(index + 1)? < 0 {
            return Err(ErrorReply::SYNTAX);
        }
        index += 2;
    }
    match call.cache().footprint(call.word(2), call.now_ms) {
        Some(footprint) => {
            let bytes = footprint.record_bytes + footprint.table_bytes;
            call.out.integer(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        None => call.out.null(),
    }
    Ok(Flow::Done)
}
