//! The categories of commands that Redis knows for its permissions, as `COMMAND` shows them: they follow from what a command
//! is, what it belongs to and who may call it. Permissions of our own do not depend on them.

use super::table::{Group, Permission, Run, Spec, flag};

/// Commands that an operator wants to know of before others use them, for other reasons than that they are for operators.
const DANGEROUS: [&str; 4] = ["info", "role", "keys", "lastsave"];
/// Commands that Redis counts to those for operators, though they have no such flag.
const OF_OPERATORS: [&str; 2] = ["role", "lastsave"];
/// Commands about the node that Redis counts to those about connections.
const OF_CONNECTIONS: [&str; 5] = ["asking", "readonly", "readwrite", "command", "wait"];

/// The categories of a command, in the order in which Redis shows them.
pub(crate) fn of(spec: &Spec) -> Vec<&'static str> {
    if let (Run::Family(_), false) = (spec.run, spec.name == "command") {
        // It is its subcommands that do something.
        return vec!["slow"];
    }
    let family = spec.name.split('|').next().unwrap_or_default();
    let is = |flag| spec.is(flag);
    let is_dangerous = is(flag::ADMIN)
        || (spec.permission == Permission::Admin && family != "memory")
        || DANGEROUS.contains(&spec.name);
    let of_connections = spec.group == Group::Connection || OF_CONNECTIONS.contains(&family);
    let of_keys = (spec.group == Group::Generic && family != "wait")
        || matches!(spec.name, "dbsize" | "flushdb" | "flushall");
    [
        (of_keys, "keyspace"),
        (is(flag::READONLY), "read"),
        (is(flag::WRITE), "write"),
        (spec.group == Group::String, "string"),
        (spec.group == Group::Bitmap, "bitmap"),
        (
            is(flag::ADMIN) || OF_OPERATORS.contains(&spec.name),
            "admin",
        ),
        (is(flag::FAST), "fast"),
        (!is(flag::FAST), "slow"),
        (is(flag::BLOCKING), "blocking"),
        (is_dangerous, "dangerous"),
        (of_connections, "connection"),
    ]
    .into_iter()
    .filter_map(|(holds, name)| holds.then_some(name))
    .collect()
}
