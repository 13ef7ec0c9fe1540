//! Commands that forget everything. There is one database, so `FLUSHDB` and `FLUSHALL` are the same; and freeing what was
//! there never delays another client, so `SYNC` and `ASYNC` are the same too: the reply comes when all of it is gone.

use std::rc::Rc;

use crate::cluster::keys::{self, FlushFailure};
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
    let local = Rc::clone(call.local);
    call.eventually(async move |out| {
        keys::flush(&local).await.map_err(|failure| match failure {
            FlushFailure::Refused(refusal) => ErrorReply::of(refusal),
            FlushFailure::NotNow(why) => {
                ErrorReply::new(format!("TRYAGAIN {why}; nothing was done"))
            }
            FlushFailure::Cut => {
                ErrorReply::fixed("UNKNOWN the flush was cut off: it may or may not have been done")
            }
        })?;
        out.ok();
        Ok(())
    })
}
