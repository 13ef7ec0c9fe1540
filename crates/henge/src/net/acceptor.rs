//! The acceptor thread: takes connections and gives each to the less loaded of two data threads. It reads nothing from
//! them, and out of file handles it pauses instead of spinning.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::net::{SocketFlags, accept_with};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::http::service::Shared;
use crate::metrics::counters::{Counters, add};

/// A connection on its way to a data thread.
pub(crate) type Accepted = std::net::TcpStream;

/// Connections that may wait for one data thread. Past this the acceptor waits, and then the kernel's backlog fills.
pub(crate) const HANDOFF: usize = 1024;

/// How long to wait when there are no file handles: clients close connections at this pace or not at all, and ten tries
/// a second cost nothing.
const OUT_OF_HANDLES_PAUSE: Duration = Duration::from_millis(100);

/// At most one line this often on failures to accept.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// What a connection past `limits.max_connections` is told.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\n\
    content-length: 150\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\r\n\
    {\"type\":\"urn:henge:problem:too_many_connections\",\"title\":\"The node has no room for another connection\",\"status\":503,\"code\":\"too_many_connections\"}\r\n";

/// Accepts until `stop` resolves, then closes the port; the data threads learn from their closed channels that they are
/// to drain.
pub(crate) async fn accept_all(
    listener: TcpListener,
    threads: Vec<mpsc::Sender<Accepted>>,
    counters: Arc<Counters>,
    shared: Arc<Shared>,
    mut stop: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = AsyncFd::new(listener)?;
    let mut acceptor = Acceptor {
        threads,
        counters,
        shared,
        turn: 0,
        logged: None,
    };
    loop {
        let mut ready = tokio::select! {
            _ = &mut stop => return Ok(()),
            ready = listener.readable() => ready?,
        };
        match accept_with(
            listener.get_ref(),
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        ) {
            Ok(socket) => acceptor.place(Accepted::from(socket)).await,
            Err(rustix::io::Errno::WOULDBLOCK) => ready.clear_ready(),
            Err(error) => {
                if let Some(pause) = acceptor.failed(error) {
                    tokio::select! {
                        _ = &mut stop => return Ok(()),
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }
}

struct Acceptor {
    threads: Vec<mpsc::Sender<Accepted>>,
    counters: Arc<Counters>,
    shared: Arc<Shared>,
    /// Picks the pair of threads to compare, in turn. No randomness is needed where no two acceptors compete.
    turn: usize,
    logged: Option<Instant>,
}

impl Acceptor {
    async fn place(&mut self, connection: Accepted) {
        add(&self.counters.acceptor.accepted, 1);
        if self.counters.open_connections() >= self.shared.live.load().max_connections {
            add(&self.counters.acceptor.refused, 1);
            // Best effort: it fits the empty send buffer of a new connection, or the client is gone.
            let _ = io::Write::write(&mut &connection, TOO_MANY);
            return;
        }
        let count = self.threads.len();
        let (one, other) = (
            self.turn % count,
            (self.turn + 1 + self.turn / count) % count,
        );
        self.turn = self.turn.wrapping_add(1);
        let open = |thread: usize| self.counters.thread(thread).open.load(Ordering::Relaxed);
        let chosen = if open(other) < open(one) { other } else { one };
        self.counters
            .thread(chosen)
            .open
            .fetch_add(1, Ordering::Relaxed);
        if self.threads[chosen].send(connection).await.is_err() {
            self.counters
                .thread(chosen)
                .open
                .fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How long to pause after a failure: not at all after one that concerned a single connection.
    fn failed(&mut self, error: rustix::io::Errno) -> Option<Duration> {
        use rustix::io::Errno;
        add(&self.counters.acceptor.errors, 1);
        if matches!(
            error,
            Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM
        ) {
            return None;
        }
        let now = Instant::now();
        if self
            .logged
            .is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL)
        {
            self.logged = Some(now);
            if matches!(error, Errno::MFILE | Errno::NFILE) {
                tracing::error!(
                    open_connections = self.counters.open_connections(),
                    "out of file handles: new connections wait; raise the limit (ulimit -n, LimitNOFILE) or lower limits.max_connections",
                );
            } else {
                tracing::error!(%error, "cannot accept connections");
            }
        }
        Some(OUT_OF_HANDLES_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_framed_right() {
        let text = std::str::from_utf8(TOO_MANY).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a blank line");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
