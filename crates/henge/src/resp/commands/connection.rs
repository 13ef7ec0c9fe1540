//! Commands about the connection itself: is it there, who speaks, which database, and its end. The greeting of RESP3 clients
//! stands in `hello`, what clients may know and do about each other in `client`.

use henge_wire::resp::request::integer;

use crate::access::entry::DEFAULT_USER;
use crate::audit::Outcome;
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
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
    },
    Spec {
        name: "echo",
        syntax: "message",
        arity: 2,
        flags: flag::LOADING | flag::STALE | flag::FAST,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Answers the message",
        run: Run::Handler(echo),
    },
    Spec {
        name: "auth",
        syntax: "[username] password",
        arity: -2,
        flags: flag::NOSCRIPT
            | flag::LOADING
            | flag::STALE
            | flag::FAST
            | flag::NO_AUTH
            | flag::ALLOW_BUSY
            | flag::SKIP_SLOWLOG,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Says who the client is",
        run: Run::Handler(auth),
    },
    Spec {
        name: "select",
        syntax: "index",
        arity: 2,
        flags: flag::LOADING | flag::STALE | flag::FAST | flag::ALLOW_BUSY,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Chooses a database; there is one, number 0",
        run: Run::Handler(select),
    },
    Spec {
        name: "quit",
        syntax: "",
        arity: -1,
        flags: flag::NOSCRIPT
            | flag::LOADING
            | flag::STALE
            | flag::FAST
            | flag::NO_AUTH
            | flag::ALLOW_BUSY,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Ends the connection after its reply",
        run: Run::Handler(quit),
    },
    Spec {
        name: "reset",
        syntax: "",
        arity: 1,
        flags: flag::NOSCRIPT
            | flag::LOADING
            | flag::STALE
            | flag::FAST
            | flag::NO_AUTH
            | flag::ALLOW_BUSY,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "6.2.0",
        complexity: "O(1)",
        summary: "Makes the connection what it was when it was new",
        run: Run::Handler(reset),
    },
];

fn ping(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    match call.words.len() {
        1 => call.out.simple("PONG"),
        2 => call.out.bulk(call.word(1)),
        _ => return Err(ErrorReply::wrong_arity(call.spec.name)),
    }
    Ok(Flow::Done)
}

fn echo(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.out.bulk(call.word(1));
    Ok(Flow::Done)
}

fn auth(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    match call.words.len() {
        2 => log_in(call, None, 1)?,
        3 => log_in(call, Some(1), 2)?,
        _ => return Err(ErrorReply::SYNTAX),
    }
    call.out.ok();
    Ok(Flow::Done)
}

/// A password alone is the default user's, who has none.
const NO_PASSWORD: ErrorReply = ErrorReply::fixed(
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
);

/// Takes the client for who has the key that stands in one place, under the name that stands in another.
pub(super) fn log_in(
    call: &mut Call<'_>,
    name: Option<usize>,
    text: usize,
) -> Result<(), ErrorReply> {
    let access = &call.local.shared.access;
    let name = name.map(|place| &call.words[place]);
    if access.ring().is_empty() {
        // Nobody needs a key, so any will do, as in Redis without a password.
        return match name {
            Some(name) if name == DEFAULT_USER.as_bytes() => Ok(()),
            Some(_) => Err(ErrorReply::WRONG_PASS),
            None => Err(NO_PASSWORD),
        };
    }
    let session = &mut *call.session;
    let shown = session
        .caller
        .show(access, name, &call.words[text], call.now_ms);
    if shown.is_err() {
        let error = ErrorReply::WRONG_PASS;
        let action = session.action("auth", Outcome::Denied, Some(error.code()));
        call.local.shared.audit.note(call.now_ms, &action);
        return Err(error);
    }
    session.show_name();
    Ok(())
}

fn select(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    match integer(call.word(1)) {
        Some(0) => call.out.ok(),
        Some(index) if i32::try_from(index).is_err() => {
            return Err(ErrorReply::fixed(
                "ERR value is out of range, value must between -2147483648 and 2147483647",
            ));
        }
        Some(_) => return Err(ErrorReply::fixed("ERR DB index is out of range")),
        None => return Err(ErrorReply::NOT_AN_INTEGER),
    }
    Ok(Flow::Done)
}

fn quit(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.out.ok();
    Ok(Flow::Close)
}

fn reset(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.session.reset();
    // What comes behind it is asked by who it is without a key that was shown.
    let now_ms = call.now_ms;
    call.session.caller.look(&call.local.shared.access, now_ms);
    call.session.show_name();
    call.out.simple("RESET");
    Ok(Flow::Done)
}
