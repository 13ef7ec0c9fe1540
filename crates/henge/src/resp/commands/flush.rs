//! Commands that forget everything. There is one database, so `FLUSHDB` and `FLUSHALL` are the same; and freeing what was
//! there never delays another client, so `SYNC` and `ASYNC` are the same too: the reply comes when all of it is gone.

use std::sync::Arc;

use crate::disk::gate::note_unkept;
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "flushdb",
        syntax: "[ASYNC | SYNC]",
        arity: -1,
        flags: flag::WRITE,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "1.0.0",
        complexity: "O(N) where N is the number of keys, apart from what serves others",
        summary: "Deletes every key, as FLUSHALL does",
        run: Run::Handler(flush),
    },
    Spec {
        name: "flushall",
        syntax: "[ASYNC | SYNC]",
        arity: -1,
        flags: flag::WRITE,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "1.0.0",
        complexity: "O(N) where N is the number of keys, apart from what serves others",
        summary: "Deletes every key",
        run: Run::Handler(flush),
    },
];

fn flush(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    match call.words.len() {
        1 => {}
        2 if call.is(1, "async") || call.is(1, "sync") => {}
        _ => return Err(ErrorReply::SYNTAX),
    }
    let shared = Arc::clone(&call.local.shared);
    call.eventually(async move |out| {
        // Giving back gigabytes takes its time. A client that goes away does not stop it.
        tokio::task::spawn_blocking(move || shared.flush())
            .await
            .map_err(|_| {
                ErrorReply::fixed("UNKNOWN the flush was cut off: it may or may not have been done")
            })?
            .map_err(ErrorReply::of)?;
        // It was done on another thread.
        note_unkept();
        out.ok();
        Ok(())
    })
}
