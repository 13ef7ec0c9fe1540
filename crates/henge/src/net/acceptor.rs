//! The acceptor thread: takes connections and gives each to the less loaded of two data threads. It reads nothing from
//! them, and out of file handles it pauses instead of spinning.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use tokio::sync::mpsc;

use super::addresses::{Addresses, Seat};
use crate::http::problem::{Code, Problem};
use crate::metrics::counters::{Counters, add};
use crate::shared::Shared;

/// A connection on its way to a data thread.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: TcpStream,
    pub(crate) door: Door,
    /// Its place among those of its address; none where nobody knows that any more.
    pub(crate) seat: Option<Seat>,
}

/// What a port is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// What a connection speaks is told by what comes first.
    Any,
    /// The Redis protocol and no other.
    Resp,
}

/// A port, open.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: TcpListener,
    pub(crate) door: Door,
}

/// Connections that may wait for one data thread. Past this the acceptor waits, and then the kernel's backlog fills.
pub(crate) const HANDOFF: usize = 1024;

/// How long to wait when there are no file handles: clients close connections at this pace or not at all, and ten tries
/// a second cost nothing.
const OUT_OF_HANDLES_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// What a client of the Redis protocol reads who is one too many.
const TOO_MANY_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";

/// At most one line this often on failures to accept.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Ends the acceptor when it is dropped.
#[derive(Debug)]
pub(crate) struct Stop(
    #[expect(dead_code, reason = "its end is seen at the other end")] UnixStream,
);

/// The other end of a [`Stop`].
#[derive(Debug)]
pub(crate) struct Stopped(UnixStream);

/// A way to end the acceptor while it waits.
pub(crate) fn stop() -> io::Result<(Stop, Stopped)> {
    let (stop, stopped) = UnixStream::pair()?;
    Ok((Stop(stop), Stopped(stopped)))
}

/// Accepts until it is stopped, then closes the ports; the data threads learn from their closed channels that they are to
/// drain. It waits in `poll` and not in a runtime, where each connection would be registered twice.
pub(crate) fn accept_all(
    ports: &[Listening],
    threads: Vec<mpsc::Sender<Accepted>>,
    counters: Arc<Counters>,
    shared: Arc<Shared>,
    stopped: &Stopped,
) {
    let mut acceptor = Acceptor {
        threads,
        counters,
        shared,
        addresses: Addresses::default(),
        turn: 0,
        logged: None,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        let mut ready = vec![PollFd::new(&stopped.0, PollFlags::IN)];
        ready.extend(
            ports
                .iter()
                .map(|port| PollFd::new(&port.listener, PollFlags::IN)),
        );
        // A failure leaves all empty, and is tried again; EINTR is the only one that can come.
        let _ = poll(&mut ready, None);
        let stopping = !ready[0].revents().is_empty();
        for port in ports {
            // A burst is taken whole; the bound is for the look at `stopped`, and at the other port.
            for _ in 0..HANDOFF {
                match accept_with(&port.listener, flags) {
                    Ok(socket) => acceptor.place(Accepted {
                        socket: TcpStream::from(socket),
                        door: port.door,
                        seat: None,
                    }),
                    Err(Errno::WOULDBLOCK) => break,
                    Err(error) => {
                        if acceptor.must_pause(error) {
                            let mut stop = [PollFd::new(&stopped.0, PollFlags::IN)];
                            let _ = poll(&mut stop, Some(&OUT_OF_HANDLES_PAUSE));
                            break;
                        }
                    }
                }
            }
        }
        // Only now, as who waits to be accepted may have sent a request already.
        if stopping {
            return;
        }
    }
}

struct Acceptor {
    threads: Vec<mpsc::Sender<Accepted>>,
    counters: Arc<Counters>,
    shared: Arc<Shared>,
    addresses: Addresses,
    /// Picks the pair of threads to compare, in turn. No randomness is needed where no two acceptors compete.
    turn: usize,
    logged: Option<Instant>,
}

impl Acceptor {
    fn place(&mut self, mut connection: Accepted) {
        add(&self.counters.acceptor.accepted, 1);
        let live = self.shared.live.load();
        if self.counters.open_connections() >= live.max_connections {
            self.refuse(&connection, "raise limits.max_connections, or close some");
            return;
        }
        if let Ok(from) = connection.socket.peer_addr() {
            let most = live.max_connections_per_address.unwrap_or(usize::MAX);
            connection.seat = self.addresses.enter(from.ip(), most);
            if connection.seat.is_none() {
                let detail = "its address has limits.max_connections_per_address open; close some";
                self.refuse(&connection, detail);
                return;
            }
        }
        let (one, other) = pair(self.turn, self.threads.len());
        self.turn = self.turn.wrapping_add(1);
        let open = |thread: usize| self.counters.thread(thread).open.load(Ordering::Relaxed);
        let chosen = if open(other) < open(one) { other } else { one };
        self.counters
            .thread(chosen)
            .open
            .fetch_add(1, Ordering::Relaxed);
        // It waits only while a thousand connections wait already.
        if self.threads[chosen].blocking_send(connection).is_err() {
            self.counters
                .thread(chosen)
                .open
                .fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Closes a connection for which there is no room, and says so.
    fn refuse(&self, connection: &Accepted, detail: &'static str) {
        add(&self.counters.acceptor.refused, 1);
        let words = match connection.door {
            Door::Any => Problem::new(Code::TooManyConnections, detail).into_last_words(),
            Door::Resp => TOO_MANY_CLIENTS.into(),
        };
        // It fits the empty send buffer of a new connection, or the client is gone.
        let _ = io::Write::write(&mut &connection.socket, &words);
    }

    /// Whether to pause after a failure: not after one that concerned a single connection.
    fn must_pause(&mut self, error: Errno) -> bool {
        add(&self.counters.acceptor.errors, 1);
        if matches!(
            error,
            Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM
        ) {
            return false;
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
        true
    }
}

/// Two threads to compare, different ones where there are two; over the turns, every pair comes up.
fn pair(turn: usize, threads: usize) -> (usize, usize) {
    let one = turn % threads;
    let apart = 1 + turn / threads % usize::max(threads - 1, 1);
    (one, (one + apart) % threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_threads_is_compared() {
        assert_eq!(pair(7, 1), (0, 0));
        for threads in 2..9 {
            let mut seen = std::collections::BTreeSet::new();
            for turn in 0..threads * (threads - 1) {
                let (one, other) = pair(turn, threads);
                assert!(one != other && other < threads);
                seen.insert((one, other));
            }
            assert_eq!(seen.len(), threads * (threads - 1));
        }
    }
}
