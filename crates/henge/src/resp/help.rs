//! `HELP` of a family of commands: what its definitions say, line by line, as Redis clients print it. There is no text of
//! its own.

use super::call::{Call, ErrorReply, Flow};
use super::table::COMMANDS;

/// Answers the help of the family that the call is of.
pub(crate) fn help(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let family = call.spec.name.split('|').next().unwrap_or_default();
    let subcommands = COMMANDS
        .find(family.as_bytes())
        .map_or(&[][..], |entry| entry.spec.subcommands());
    call.out.array(1 + 2 * subcommands.len());
    let family = family.to_uppercase();
    call.out.simple(&format!("{family} and one of these:"));
    for spec in subcommands {
        let name = spec.own_name().to_uppercase();
        let line = format!("{name} {}", spec.syntax);
        call.out.simple(line.trim_end());
        call.out.simple(&format!("    {}", spec.summary));
    }
    Ok(Flow::Done)
}
