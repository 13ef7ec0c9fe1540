//! Work that takes longer than a data thread should give to one command: it is done by the blocking pool, and other
//! connections go on in the meantime.

use crate::resp::call::ErrorReply;

/// Does the work elsewhere.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ErrorReply> {
    let done = crate::aside::aside(work).await;
    done.ok_or(ErrorReply::fixed("ERR the node is stopping"))
}
