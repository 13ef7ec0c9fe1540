//! Commands about the connection itself.

use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};

pub(in crate::resp) const COMMANDS: &[Spec] = &[Spec {
    name: "ping",
    syntax: "[message]",
    arity: -1,
    flags: flag::FAST,
    keys: Keys::NONE,
    permission: Permission::Connection,
    group: Group::Connection,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "Answers PONG, or the message",
    run: Run::Handler(ping),
}];

fn ping(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    match call.words.len() {
        1 => call.out.simple("PONG"),
        2 => call.out.bulk(call.word(1)),
        _ => return Err(ErrorReply::wrong_arity(call.spec.name)),
    }
    Ok(Flow::Done)
}
