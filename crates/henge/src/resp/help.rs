//! `HELP` of every family of commands: its subcommands, each with its arguments and what it does, as the table has them.

use super::call::{Call, ErrorReply, Flow};
use super::table::{COMMANDS, Group, Keys, Permission, Run, Spec, flag};

/// The definition of a family's `HELP`; `name` is `family|help`.
pub(crate) const fn definition(name: &'static str, group: Group, since: &'static str) -> Spec {
    Spec {
        name,
        syntax: "",
        arity: 2,
        flags: flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group,
        since,
        complexity: "O(1)",
        summary: "Lists the subcommands",
        run: Run::Handler(help),
    }
}

/// Answers the help of the family that the call is of.
#[expect(
    clippy::unnecessary_wraps,
    reason = "handlers are of one type, though many never refuse"
)]
pub(crate) fn help(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let family = call.spec.name.split('|').next().unwrap_or_default();
    let subcommands = COMMANDS
        .find(family.as_bytes())
        .map_or(&[][..], |entry| entry.spec.subcommands());
    call.out.array(1 + 2 * subcommands.len());
    call.out.simple(&format!(
        "{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        family.to_uppercase()
    ));
    for spec in subcommands {
        let usage = format!("{} {}", spec.own_name().to_uppercase(), spec.syntax);
        call.out.simple(usage.trim_end());
        call.out.simple(&format!("    {}.", spec.summary));
    }
    Ok(Flow::Done)
}
