//! `HELLO`: a client says which version of the protocol it speaks, and learns whom it speaks to.

use henge_wire::resp::request::integer;
use henge_wire::resp::writer::{Protocol, Writer};

use super::client::check_name;
use super::connection::log_in;
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::pipeline::shown;
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};

pub(in crate::resp) const COMMANDS: &[Spec] = &[Spec {
    name: "hello",
    syntax: "[protover [AUTH username password] [SETNAME clientname]]",
    arity: -1,
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
    since: "6.0.0",
    complexity: "O(1)",
    summary: "Chooses the version of the protocol, and says who both sides are",
    run: Run::Handler(hello),
}];

const NOT_LOGGED_IN: ErrorReply = ErrorReply::fixed(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
);

fn hello(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let mut protocol = call.session.protocol;
    if let Some(version) = call.words.get(1) {
        protocol = match integer(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(ErrorReply::fixed("NOPROTO unsupported protocol version")),
            None => {
                return Err(ErrorReply::fixed(
                    "ERR Protocol version is not an integer or out of range",
                ));
            }
        };
    }
    let (mut user, mut name) = (None, None);
    let mut at = 2;
    while let Some(option) = call.words.get(at) {
        let left = call.words.len() - at - 1;
        if call.is(at, "AUTH") && left >= 2 {
            user = Some(at + 1);
            at += 3;
        } else if call.is(at, "SETNAME") && left >= 1 {
            let given = call.word(at + 1);
            check_name(given)?;
            name = Some(given);
            at += 2;
        } else {
            return Err(ErrorReply::new(format!(
                "ERR Syntax error in HELLO option '{}'",
                shown(option)
            )));
        }
    }
    // Nothing holds before all is known to be right.
    if let Some(user) = user {
        log_in(call, Some(user), user + 1)?;
    }
    if call.session.caller.check(Permission::Connection).is_err() {
        return Err(NOT_LOGGED_IN);
    }
    let is_alone = call.local.shared.cluster.view.load().is_alone;
    let mode = if is_alone { "standalone" } else { "cluster" };
    let session = &mut *call.session;
    if let Some(name) = name {
        session.client.details.lock().name = name.to_vec();
    }
    session.speak(protocol);
    let id = session.client.id;
    let mut out = Writer::new(call.out.output(), protocol);
    out.map(7);
    let mut text = |name: &str, value: &str| {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    };
    text("server", "henge");
    text("version", env!("CARGO_PKG_VERSION"));
    out.bulk(b"proto");
    out.integer(protocol.number());
    out.bulk(b"id");
    out.integer(i64::try_from(id).unwrap_or(i64::MAX));
    let mut text = |name: &str, value: &str| {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    };
    text("mode", mode);
    text("role", "master");
    out.bulk(b"modules");
    out.array(0);
    Ok(Flow::Done)
}
