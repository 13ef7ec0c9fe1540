//! A data thread: one tokio `LocalRuntime` that keeps its connections for life. When the acceptor goes away it drains:
//! idle connections close, requests in flight are answered, and after the shutdown time-out the rest is cut.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, mpsc};

use super::acceptor::Accepted;
use super::connection;
use crate::http::Call;
use crate::http::service::Shared;
use crate::metrics::counters::ThreadCounters;

/// What the connections of a thread share; one reference each, and no lock.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    pub(crate) counters: Arc<ThreadCounters>,
    /// To the control runtime.
    pub(crate) control: mpsc::Sender<Call>,
    /// Scratch for answers, so that they grow once and are then of a known size.
    pub(crate) scratch: RefCell<Vec<u8>>,
    drain: Notify,
    draining: Cell<bool>,
    empty: Notify,
}

impl Local {
    /// Whether connections are to close as soon as they are idle.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Resolves when draining begins.
    pub(crate) fn drain(&self) -> tokio::sync::futures::Notified<'_> {
        self.drain.notified()
    }
}

/// Builds the runtime of a data thread, on that thread.
pub(crate) fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .thread_keep_alive(Duration::from_secs(10))
        .build_local(LocalOptions::default())
}

/// Serves what comes over `connections` until that is closed and all are done, or the time-out has passed. Answers
/// whether all were done.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    counters: Arc<ThreadCounters>,
    control: mpsc::Sender<Call>,
    mut connections: mpsc::Receiver<Accepted>,
) -> bool {
    let local = Rc::new(Local {
        shared,
        counters,
        control,
        scratch: RefCell::new(Vec::new()),
        drain: Notify::new(),
        draining: Cell::new(false),
        empty: Notify::new(),
    });
    while let Some(connection) = connections.recv().await {
        let open = Open(Rc::clone(&local));
        // Refused only when the runtime has no more room in its poller; the connection is closed then.
        let Ok(socket) = TcpStream::from_std(connection) else {
            continue;
        };
        // Answers are written whole; waiting to fill a segment only delays them. Without it all still works.
        let _ = socket.set_nodelay(true);
        tokio::task::spawn_local(async move {
            connection::serve(socket, &open.0).await;
            drop(open);
        });
    }
    local.draining.set(true);
    local.drain.notify_waiters();
    let deadline = Instant::now() + local.shared.live.load().shutdown_timeout;
    while local.counters.open.load(Ordering::Relaxed) > 0 {
        if tokio::time::timeout_at(deadline.into(), local.empty.notified())
            .await
            .is_err()
        {
            return false;
        }
    }
    true
}

/// Counts a connection as open until it is dropped.
struct Open(Rc<Local>);

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.counters.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.empty.notify_one();
        }
    }
}
