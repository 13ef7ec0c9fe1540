//! `HENGE`: what no other cache has a command for. A connection's level of consistency, the versions of keys, and why they are not there.

use std::rc::Rc;
use std::time::Duration;

use henge_wire::resp::request::integer;
use henge_wire::{Command, Operation, PARTITIONS, Partition, Reply};

use crate::config::ConsistencyLevel;
use crate::insight::why::{self, Known};
use crate::resp::acknowledged::acknowledged_here;
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::help;
use crate::resp::session::NextTrace;
use crate::resp::sizes;
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::traces::Context;

pub(in crate::resp) const COMMANDS: &[Spec] = &[Spec {
    name: "henge",
    syntax: "",
    arity: -2,
    flags: 0,
    keys: Keys::NONE,
    permission: Permission::Connection,
    group: Group::Server,
    since: "0.1.0",
    complexity: "Depends on the subcommand",
    summary: "Commands that are Henge's own",
    run: Run::Family(FAMILY),
}];

const FAMILY: &[Spec] = &[
    Spec {
        name: "henge|level",
        syntax: "[ONE | QUORUM | ALL]",
        arity: -2,
        flags: flag::LOADING | flag::STALE | flag::FAST,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "0.1.0",
        complexity: "O(1)",
        summary: "Chooses the level of consistency of the connection's commands, or gives it",
        run: Run::Handler(level),
    },
    Spec {
        name: "henge|traceparent",
        syntax: "traceparent",
        arity: 3,
        flags: flag::LOADING | flag::STALE | flag::FAST,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "0.1.0",
        complexity: "O(1)",
        summary: "Says which trace the connection's next command is in, as the header of HTTP does",
        run: Run::Handler(traceparent),
    },
    Spec {
        name: "henge|version",
        syntax: "key",
        arity: 3,
        flags: flag::READONLY | flag::FAST,
        keys: Keys::new(2, 2, 1),
        permission: Permission::Read,
        group: Group::Generic,
        since: "0.1.0",
        complexity: "O(1)",
        summary: "Gives the version of a key, as conditional requests of the HTTP interface take it",
        run: Run::Handler(version),
    },
    Spec {
        name: "henge|why",
        syntax: "key",
        arity: 3,
        flags: flag::READONLY,
        keys: Keys::new(2, 2, 1),
        permission: Permission::Read,
        group: Group::Generic,
        since: "0.1.0",
        complexity: "O(1)",
        summary: "Says why a key is not there: the cause, and in a sentence how long ago that was",
        run: Run::Handler(why),
    },
    Spec {
        name: "henge|acked",
        syntax: "numreplicas timeout partition term [partition term ...]",
        arity: -6,
        flags: flag::BLOCKING,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Generic,
        since: "0.1.0",
        complexity: "O(N), N being the partitions",
        summary: "What nodes ask for WAIT: how many replicas beside this one have what was written to partitions that it leads, in these terms or, for 0, in any",
        run: Run::Handler(acked),
    },
    Spec {
        name: "henge|size",
        syntax: "",
        arity: 2,
        flags: flag::READONLY,
        keys: Keys::NONE,
        permission: Permission::Read,
        group: Group::Server,
        since: "0.1.0",
        complexity: "O(1)",
        summary: "What nodes ask for DBSIZE: how many keys the partitions have that this one leads, and which those are",
        run: Run::Handler(size),
    },
    help::definition("henge|help", Group::Connection, "0.1.0"),
];

const LEVELS: [(&str, ConsistencyLevel); 3] = [
    ("ONE", ConsistencyLevel::One),
    ("QUORUM", ConsistencyLevel::Quorum),
    ("ALL", ConsistencyLevel::All),
];

fn level(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    match call.words.len() {
        2 => {
            let default = call.local.shared.live.load().default_level;
            let level = call.session.level.unwrap_or(default);
            let name = LEVELS.iter().find(|(_, known)| *known == level);
            call.out.bulk(name.map_or("", |(name, _)| name).as_bytes());
        }
        3 => {
            let level = LEVELS.iter().find(|(name, _)| call.is(2, name));
            let (_, level) = level.ok_or(ErrorReply::SYNTAX)?;
            call.session.level = Some(*level);
            call.out.ok();
        }
        _ => return Err(ErrorReply::wrong_arity(call.spec.name)),
    }
    Ok(Flow::Done)
}

/// Where nothing is traced it is taken all the same, so that a client need not know.
fn traceparent(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let context = Context::parse(call.word(2)).ok_or(ErrorReply::fixed(
        "ERR that is no traceparent, which has the form 00-TRACE-PARENT-FLAGS of W3C Trace Context",
    ))?;
    if call.local.tracer.is_some() {
        call.session.next_trace = Some(Box::new(NextTrace::Told(context)));
    }
    call.out.ok();
    Ok(Flow::Done)
}

/// Of a partition that this node does not lead, or not in the term, no replica is known to have anything.
fn acked(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    /// No node asks for longer.
    const LONGEST: Duration = Duration::from_secs(5);
    // It looks at many partitions, again and again; clients have WAIT.
    if !call.session.is_forwarded {
        return Err(ErrorReply::fixed(
            "ERR HENGE ACKED is for nodes of the cluster; WAIT tells clients the same",
        ));
    }
    let number = |at: usize, most: u64| {
        let number = integer(call.word(at)).and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|&number| number <= most);
        number.ok_or(ErrorReply::fixed(
            "ERR a number of HENGE ACKED is not an integer or out of range",
        ))
    };
    let wanted = number(2, u64::from(u8::MAX))?;
    let step = Duration::from_millis(number(3, u64::MAX)?).min(LONGEST);
    if !(call.words.len() - 4).is_multiple_of(2) {
        return Err(ErrorReply::SYNTAX);
    }
    let mut partitions: Vec<(Partition, u32)> = Vec::new();
    for at in (4..call.words.len()).step_by(2) {
        let partition = number(at, u64::from(PARTITIONS) - 1)?;
        let partition = u16::try_from(partition).ok().and_then(Partition::new);
        let term = u32::try_from(number(at + 1, u64::from(u32::MAX))?);
        partitions.extend(partition.zip(term.ok()));
    }
    // Each is looked at again and again.
    if !partitions.is_sorted_by(|(one, _), (next, _)| one < next) {
        return Err(ErrorReply::fixed(
            "ERR the partitions of HENGE ACKED are not in their order, or one comes twice",
        ));
    }
    let local = Rc::clone(call.local);
    call.eventually(async move |out| {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let count = acknowledged_here(&local, &partitions, wanted, step).await;
        out.integer(i64::try_from(count.unwrap_or(0)).unwrap_or(0));
        Ok(())
    })
}

fn size(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let (keys, partitions) = call.cache().size_of_led();
    let text = sizes::text(keys, &partitions);
    call.out.bulk(text.as_bytes());
    Ok(Flow::Done)
}

fn why(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let known = why::known(call.local, call.word(2));
    let known = known.ok_or(ErrorReply::fixed(
        "TRYAGAIN the leader of the key's partition is changing",
    ))?;
    let cause = match known {
        Known::Absent(absence) => absence.cause.name(),
        Known::Alive => "is_there",
        Known::Off => "unknown",
    };
    let policy = call.cache().policy().name();
    call.out.array(2);
    call.out.bulk(cause.as_bytes());
    call.out.bulk(why::sentence(known, policy).as_bytes());
    Ok(Flow::Done)
}

/// To ask for a version is no use of the key.
fn version(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let key = call.word(2);
    let command = Command {
        key,
        operation: Operation::Peek,
    };
    let cache = call.cache();
    let version = cache.execute(&command, call.now_ms, |reply| match reply {
        Reply::Found(item) => Some(item.version.to_string()),
        _ => None,
    });
    match version {
        Some(version) => call.out.bulk(version.as_bytes()),
        None => call.out.null(),
    }
    Ok(Flow::Done)
}
