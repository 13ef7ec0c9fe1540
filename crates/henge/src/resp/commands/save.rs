//! Commands about what is on the disk. What is written is in the log before it is answered, so none of these is needed for
//! it to last; a snapshot makes the log shorter and the next start faster.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::disk::snapshots::Snapshots;
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "save",
        syntax: "",
        arity: 1,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::NO_MULTI | flag::NO_ASYNC_LOADING,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "1.0.0",
        complexity: "O(N) where N is the number of keys, apart from what serves others",
        summary: "Makes a snapshot, and answers when it is on the disk",
        run: Run::Handler(save),
    },
    Spec {
        name: "bgsave",
        syntax: "[SCHEDULE]",
        arity: -1,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Has a snapshot made",
        run: Run::Handler(bgsave),
    },
    Spec {
        name: "lastsave",
        syntax: "",
        arity: 1,
        flags: flag::LOADING | flag::STALE | flag::FAST,
        keys: Keys::NONE,
        permission: Permission::Observe,
        group: Group::Server,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Gives the time of the last snapshot, in seconds since 1970; that of the start if there is none",
        run: Run::Handler(lastsave),
    },
];

fn snapshots(call: &Call<'_>) -> Result<Arc<Snapshots>, ErrorReply> {
    let snapshots = &call.local.shared.persistence.snapshots;
    snapshots.clone().ok_or(ErrorReply::fixed(
        "ERR persistence.enabled is false, so there are no snapshots",
    ))
}

fn save(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let snapshots = snapshots(call)?;
    let asked = snapshots.ask_and_wait();
    call.eventually(async move |out| {
        match asked.made().await {
            Ok(_) => out.ok(),
            Err(error) => {
                return Err(ErrorReply::new(format!(
                    "ERR no snapshot was made: {error}"
                )));
            }
        }
        Ok(())
    })
}

fn bgsave(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let schedules = match call.words.len() {
        1 => false,
        2 if call.is(1, "SCHEDULE") => true,
        _ => return Err(ErrorReply::SYNTAX),
    };
    let snapshots = snapshots(call)?;
    let is_running = snapshots.figures.is_running.load(Ordering::Relaxed);
    if is_running && !schedules {
        return Err(ErrorReply::fixed("ERR Background save already in progress"));
    }
    snapshots.ask();
    call.out.simple(if is_running {
        "Background saving scheduled"
    } else {
        "Background saving started"
    });
    Ok(Flow::Done)
}

fn lastsave(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let shared = &call.local.shared;
    let made = match &shared.persistence.snapshots {
        Some(snapshots) => snapshots.figures.made_at_ms.load(Ordering::Relaxed),
        None => 0,
    };
    let at_ms = if made == 0 {
        shared.clock.started_ms()
    } else {
        made
    };
    call.out
        .integer(i64::try_from(at_ms / 1000).unwrap_or(i64::MAX));
    Ok(Flow::Done)
}
