//! `SLOWLOG`: the last commands that were slow, as the log keeps them.

use henge_wire::resp::request::integer;

use super::steps::Pace;
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::help;
use crate::resp::pipeline::shown;
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};

pub(in crate::resp) const COMMANDS: &[Spec] = &[Spec {
    name: "slowlog",
    syntax: "",
    arity: -2,
    flags: 0,
    keys: Keys::NONE,
    permission: Permission::Observe,
    group: Group::Server,
    since: "2.2.12",
    complexity: "Depends on the subcommand",
    summary: "Shows the log of slow commands",
    run: Run::Family(FAMILY),
}];

const FAMILY: &[Spec] = &[
    Spec {
        name: "slowlog|get",
        syntax: "[count]",
        arity: -2,
        flags: flag::ADMIN | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "2.2.12",
        complexity: "O(N) where N is the number of entries",
        summary: "Gives the newest entries",
        run: Run::Handler(get),
    },
    Spec {
        name: "slowlog|len",
        syntax: "",
        arity: 2,
        flags: flag::ADMIN | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Observe,
        group: Group::Server,
        since: "2.2.12",
        complexity: "O(1)",
        summary: "Gives the number of entries",
        run: Run::Handler(len),
    },
    Spec {
        name: "slowlog|reset",
        syntax: "",
        arity: 2,
        flags: flag::ADMIN | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "2.2.12",
        complexity: "O(N) where N is the number of entries",
        summary: "Forgets all entries",
        run: Run::Handler(reset),
    },
    help::definition("slowlog|help", Group::Server, "6.2.0"),
];

/// As in Redis.
const DEFAULT_COUNT: usize = 10;

fn get(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let count = match call.words.len() {
        2 => DEFAULT_COUNT,
        3 => match integer(call.word(2)) {
            Some(-1) => usize::MAX,
            Some(count) if count >= 0 => usize::try_from(count).unwrap_or(usize::MAX),
            _ => {
                return Err(ErrorReply::fixed(
                    "ERR count should be greater than or equal to -1",
                ));
            }
        },
        _ => {
            return Err(ErrorReply::new(format!(
                "ERR unknown subcommand or wrong number of arguments for '{}'. Try SLOWLOG HELP.",
                shown(call.word(1))
            )));
        }
    };
    let entries = call.local.shared.insight.slow_log.newest(count);
    call.eventually(async move |out| {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mut pace = Pace::default();
        out.array(entries.len());
        for entry in entries {
            out.array(6);
            out.integer(number(entry.id));
            out.integer(number(entry.at_ms / 1000));
            out.integer(number(entry.took_us));
            out.array(entry.words.len());
            for word in &entry.words {
                out.bulk(word);
            }
            out.bulk(entry.client.as_bytes());
            out.bulk(&entry.client_name);
            out.account()?;
            pace.key(ENTRY_BYTES).await;
        }
        Ok(())
    })
}

/// What an entry may have, of words mostly: whoever asks for very many has others served between.
const ENTRY_BYTES: usize = 4_096;

fn len(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.out.count(call.local.shared.insight.slow_log.len());
    Ok(Flow::Done)
}

fn reset(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.local.shared.insight.slow_log.clear();
    call.out.ok();
    Ok(Flow::Done)
}
