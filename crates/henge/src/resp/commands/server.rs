//! Commands about the node as a whole: its time, its role, its end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::deadline;
use crate::disk::log::Condition;
use crate::resp::acknowledged::Acknowledged;
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::session::Session;
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "time",
        syntax: "",
        arity: 1,
        flags: flag::LOADING | flag::STALE | flag::FAST,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Server,
        since: "2.6.0",
        complexity: "O(1)",
        summary: "Gives the node's time: seconds since 1970, and microseconds",
        run: Run::Handler(time),
    },
    Spec {
        name: "role",
        syntax: "",
        arity: 1,
        flags: flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST,
        keys: Keys::NONE,
        permission: Permission::Observe,
        group: Group::Server,
        since: "2.8.12",
        complexity: "O(1)",
        summary: "Gives the part of the node in replication: it leads, and nobody follows",
        run: Run::Handler(role),
    },
    Spec {
        name: "wait",
        syntax: "numreplicas timeout",
        arity: 3,
        flags: flag::BLOCKING,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Generic,
        since: "3.0.0",
        complexity: "O(N), N being the partitions that the connection has written to",
        summary: "Waits until as many replicas beside the leader have what the connection has written, or the time is over, and says how many have",
        run: Run::Handler(wait),
    },
    Spec {
        name: "shutdown",
        syntax: "[NOSAVE | SAVE] [NOW] [FORCE] [SAFE] [ABORT]",
        arity: -1,
        flags: flag::ADMIN
            | flag::NOSCRIPT
            | flag::LOADING
            | flag::STALE
            | flag::NO_MULTI
            | flag::ALLOW_BUSY,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "1.0.0",
        complexity: "O(N) where N is the number of requests in flight",
        summary: "Answers what is in flight and ends the node",
        run: Run::Handler(shutdown),
    },
];

fn time(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let now_us = call.local.shared.clock.now_us();
    call.out.array(2);
    for part in [now_us / 1_000_000, now_us % 1_000_000] {
        call.out.bulk(part.to_string().as_bytes());
    }
    Ok(Flow::Done)
}

fn role(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.out.array(3);
    call.out.bulk(b"master");
    call.out.integer(0);
    call.out.array(0);
    Ok(Flow::Done)
}

/// A node by itself has no replicas, so no number of them but none is ever reached. Among others leaders are asked, once all that came
/// before is done.
fn wait(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let replicas = call.integer(1)?;
    let until_ms = deadline(call, 2)?;
    let wanted = usize::try_from(replicas).unwrap_or(0);
    let is_by_itself = call.local.routing.routes().is_none();
    if wanted == 0 && is_by_itself {
        call.out.integer(0);
        return Ok(Flow::Done);
    }
    let left = Duration::from_millis(until_ms - call.now_ms);
    // No time-out is to wait until the client has enough of it.
    let deadline = (!left.is_zero()).then(|| Instant::now() + left);
    let local = Rc::clone(call.local);
    let session = &call.session;
    let client = Arc::clone(&session.client);
    let asking = Acknowledged {
        writes: session.writes.clone(),
        local: Rc::clone(&local),
        session: Session::forwarded(client, session.protocol, session.no_touch),
        spec: call.spec,
    };
    call.eventually(async move |out| {
        // What came before in the same pipeline is waited for before this is polled again.
        tokio::task::yield_now().await;
        let drained = local.drain();
        let mut count = 0;
        // A node that stops waits for nobody.
        if !local.is_draining() {
            let acknowledged = async {
                if is_by_itself {
                    return acknowledged_by_nobody(deadline).await;
                }
                asking.by(wanted, deadline).await
            };
            tokio::select! {
                acknowledged = acknowledged => count = acknowledged,
                () = drained => {}
            }
        }
        out.integer(i64::try_from(count).unwrap_or(0));
        Ok(())
    })
}

/// There is nobody to acknowledge anything, be it till the end of time.
async fn acknowledged_by_nobody(deadline: Option<Instant>) -> usize {
    let never = std::future::pending::<()>();
    match deadline {
        Some(at) => drop(tokio::time::timeout_at(at.into(), never).await),
        None => never.await,
    }
    0
}

/// The client sees the connection end, and no reply. `NOW` waits for no replicas, of which there are none. All that was written
/// is in the log, which is synced at the end: that is what `SAVE` asks for. Where there is no log, or it has failed, `SAVE`
/// fails unless it is told to go on with `FORCE`.
fn shutdown(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let (mut saves, mut forgoes, mut forces, mut aborts) = (false, false, false, false);
    let words = call.words.len();
    for at in 1..words {
        if call.is(at, "SAVE") && !forgoes {
            saves = true;
        } else if call.is(at, "NOSAVE") && !saves {
            forgoes = true;
        } else if call.is(at, "FORCE") {
            forces = true;
        } else if call.is(at, "ABORT") && words == 2 {
            aborts = true;
        } else if !call.is(at, "NOW") && !call.is(at, "SAFE") {
            // Safe is what leaves no slot of a cluster without its leader: a node by itself.
            return Err(ErrorReply::SYNTAX);
        }
    }
    if aborts {
        // What has begun is not to be stopped: connections close at once.
        return Err(ErrorReply::fixed("ERR No shutdown in progress."));
    }
    let log = &call.local.shared.persistence.log;
    let is_kept = log
        .as_ref()
        .is_some_and(|log| log.condition() == Condition::Open);
    if saves && !forces && !is_kept {
        return Err(ErrorReply::fixed(
            "ERR Errors trying to SHUTDOWN. Check logs.",
        ));
    }
    tracing::info!(client = %call.session.client.address, "told to stop by SHUTDOWN");
    call.local.admin.ask_to_stop();
    Ok(Flow::Close)
}
