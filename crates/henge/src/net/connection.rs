//! One connection, from its first byte to its last: its first line tells which protocol it speaks. `*` begins a request of
//! the Redis protocol, a line that ends in ` HTTP/1.1` or ` HTTP/1.0` is HTTP, the preface of the peer protocol is another node,
//! any other is an inline command of the Redis protocol. HTTP is served here, by hyper; the rest goes to `resp` and `cluster`.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use henge_wire::peer::PREFACE;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::acceptor::Door;
use super::data_thread::Local;
use super::inflight::paid_by;
use super::pace::{Late, Pace, Stream};
use super::socket::Socket;
use super::watch::{DRAIN_GRACE, Seen, Watch};
use crate::access::caller::Caller;
use crate::audit::{Action, Outcome};
use crate::cluster;
use crate::http::problem::{Code, Problem};
use crate::http::service::Service;
use crate::metrics::counters::add;
use crate::resp;

/// What is read ahead of a body at once. At least a head must fit.
const MAX_READ_BYTES: usize = 256 * 1024;

/// After an answer that left a body unread, the rest is read and thrown away, or the client would see its connection reset
/// before it saw the answer (RFC 9112, 9.6). Most clients look for an answer only when all of the body is sent. They have
/// this long and one second more for each [`LINGER_BYTES_PER_SECOND`] that came, and no pause may be longer than this.
const LINGER: Duration = Duration::from_secs(2);
/// Slower than any client that has megabytes to send; a body that is of use may come slower still.
const LINGER_BYTES_PER_SECOND: u64 = 64 * 1024;
/// A body that says how long it is has that read, if it would be taken with the largest `limits.max_body_bytes` that can
/// be set: the rest of it costs the node a buffer and a pass of the processor, as would a body that it takes.
const LINGER_ANNOUNCED_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// How much is read of what does not say, or says more: what a client may have had in its buffers and ours.
const LINGER_BYTES: u64 = 8 * 1024 * 1024;

/// The longest first line. A URL of HTTP holds at most 65,534 bytes; an inline command as much.
const MAX_FIRST_LINE_BYTES: usize = 66_000;

/// What is read at once while the protocol is not known; most first requests are whole in it.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a connection speaks, by what came first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Speaks {
    Http,
    Resp,
    /// Another node.
    Peer,
    /// TLS.
    Tls,
    /// The first line is not whole.
    NotYet,
}

/// Tells the protocol by the first line, however it comes: each byte is looked at once.
#[derive(Default)]
struct Sniffer {
    /// Where the line begins: empty ones before it mean nothing in any protocol.
    begin: usize,
    /// How far its end has been looked for.
    searched: usize,
}

impl Sniffer {
    /// What is spoken, by all that has come.
    fn sniff(&mut self, bytes: &[u8]) -> Speaks {
        let is_empty = |byte: &&u8| matches!(**byte, b'\r' | b'\n');
        self.begin += bytes[self.begin..].iter().take_while(is_empty).count();
        let line = &bytes[self.begin..];
        match line.first() {
            Some(b'*') => return Speaks::Resp,
            Some(&TLS_HANDSHAKE) => return Speaks::Tls,
            _ => {}
        }
        let from = self.searched.max(self.begin);
        let end = bytes[from..].iter().position(|&byte| byte == b'\n');
        self.searched = bytes.len();
        let Some(end) = end.map(|at| from + at) else {
            return if bytes.len() < MAX_FIRST_LINE_BYTES {
                Speaks::NotYet
            } else if looks_like_http(line) {
                // hyper says what is wrong with it, as an HTTP client understands it.
                Speaks::Http
            } else {
                Speaks::Resp
            };
        };
        if line.starts_with(PREFACE) {
            return Speaks::Peer;
        }
        let line = bytes[self.begin..end].trim_ascii_end();
        if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") {
            Speaks::Http
        } else {
            Speaks::Resp
        }
    }
}

/// Whether a line without its end begins as a request of HTTP does: a method, and a path or a URL.
fn looks_like_http(line: &[u8]) -> bool {
    let mut words = line.splitn(2, |&byte| byte == b' ');
    let is_method = |word: &[u8]| !word.is_empty() && word.iter().all(u8::is_ascii_uppercase);
    words.next().is_some_and(is_method)
        && words
            .next()
            .is_some_and(|target| target.starts_with(b"/") || target.starts_with(b"http"))
}

/// Serves a connection until either side is to close it; gives what is left of it, to be closed in its turn. What each protocol needs is
/// boxed: whoever says nothing, or speaks another, has no room for it.
pub(crate) async fn serve(socket: TcpStream, door: Door, local: &Rc<Local>) -> Option<Socket> {
    let new_pace = || Rc::new(Pace::new(local.shared.live.load().patience, Instant::now()));
    let new_stream =
        |socket, pace: &Rc<Pace>| Stream::new(socket, Rc::clone(pace), local.counters.clone());
    let mut pace = new_pace();
    let certificates = local.shared.tls.config();
    let socket = Socket::from(socket);
    if door == Door::Resp {
        if certificates.is_none() {
            let serving = Box::pin(resp::serve(socket, pace, local, Vec::new()));
            return serving.await;
        }
        // A pool of clients may open it long before it says anything.
        let address = socket.tcp().peer_addr();
        let is_stranger = |address| resp::caller_of(address, &socket, local).is_stranger();
        pace.last(address.is_ok_and(is_stranger), Instant::now());
    }
    let mut first = Vec::new();
    let mut stream = new_stream(socket, &pace);
    let mut spoken = listen(&mut stream, &mut first, &pace, local).await;
    if let (Ok(Speaks::Tls), Some(config)) = (&spoken, certificates) {
        let Socket::Plain(socket) = stream.into_socket() else {
            unreachable!("it was made of one");
        };
        let begun = std::mem::take(&mut first);
        let shaking = Box::pin(shake_hands(socket, begun, config, &pace, local));
        let secured = shaking.await?;
        // What comes over it has its own time.
        pace = new_pace();
        if door == Door::Resp {
            return Box::pin(resp::serve(secured, pace, local, Vec::new())).await;
        }
        stream = new_stream(secured, &pace);
        spoken = listen(&mut stream, &mut first, &pace, local).await;
    }
    let is_plain = stream.socket().is_plain();
    let spoken = match (spoken, door) {
        (Ok(Speaks::Http | Speaks::Peer), Door::Resp) => Ok(Speaks::Resp),
        (spoken, _) => spoken,
    };
    if is_plain && local.shared.live.load().requires_tls {
        let mut socket = stream.into_socket();
        let address = socket.tcp().peer_addr().ok();
        match spoken {
            Ok(Speaks::Peer) => {
                Box::pin(serve_peer(socket, first, local)).await;
                return None;
            }
            Ok(Speaks::Http) => {
                let detail = "the node is reached by https:// only";
                let words = Problem::new(Code::TlsRequired, detail).into_last_words();
                note_denied(address, "http", Code::TlsRequired.name(), local);
                say_last(&mut socket, &words, local).await;
            }
            Ok(Speaks::Resp) => {
                note_denied(address, "redis", "DENIED", local);
                say_last(&mut socket, TLS_REQUIRED, local).await;
            }
            _ => {}
        }
        return Some(socket);
    }
    match spoken {
        Ok(Speaks::Resp) => {
            let serving = Box::pin(resp::serve(stream.into_socket(), pace, local, first));
            serving.await
        }
        Ok(Speaks::Peer) => {
            Box::pin(serve_peer(stream.into_socket(), first, local)).await;
            None
        }
        Ok(Speaks::Http) => {
            stream.give_back(first);
            Box::pin(serve_http(stream, &pace, local)).await
        }
        Ok(Speaks::Tls | Speaks::NotYet) => {
            add(&local.counters.protocol_errors, 1);
            tracing::debug!("a connection speaks TLS, for which this node has no certificate");
            Some(stream.into_socket())
        }
        Err(None) => Some(stream.into_socket()),
        Err(Some(late)) => {
            let mut socket = stream.into_socket();
            if looks_like_http(&first) {
                close_late(&mut socket, late, local).await;
            } else {
                add(&local.counters.timed_out, 1);
            }
            Some(socket)
        }
    }
}

/// What a client of the Redis protocol is told that comes without TLS where that is required.
const TLS_REQUIRED: &[u8] = b"-DENIED TLS is required; connect with it, on the same port\r\n";

/// Notes down for the audit log that a client is served nothing on this connection.
fn note_denied(client: Option<SocketAddr>, protocol: &'static str, code: &str, local: &Local) {
    let shared = &local.shared;
    if !shared.audit.is_on() {
        return;
    }
    let action = Action {
        protocol,
        client,
        key: None,
        what: "connect",
        outcome: Outcome::Denied,
        code: Some(code),
    };
    shared.audit.note(shared.clock.now_ms(), &action);
}

/// Tells a client why it is not served, so that it reads that before it learns of the close.
async fn say_last(socket: &mut Socket, words: &[u8], local: &Local) {
    socket.try_send(words);
    linger(socket, None, local).await;
}

/// Serves another node. It proves who it is by the secret, on TCP itself.
async fn serve_peer(socket: Socket, first: Vec<u8>, local: &Rc<Local>) {
    match socket {
        Socket::Plain(socket) => {
            // Its questions are those of any client, and not of its address.
            paid_by(None, cluster::peers::serve(socket, first, local)).await;
        }
        Socket::Secure(_) => {
            add(&local.counters.protocol_errors, 1);
            tracing::debug!("a connection speaks as another node, and over TLS");
        }
    }
}

/// Reads until it can be told what is spoken; none if the connection ends first, or why it is given up.
async fn listen(
    stream: &mut Stream,
    first: &mut Vec<u8>,
    pace: &Pace,
    local: &Local,
) -> Result<Speaks, Option<Late>> {
    let mut watch = Watch::new(pace, local);
    let mut sniffer = Sniffer::default();
    poll_fn(|cx| {
        loop {
            // A connection that says nothing has no buffer.
            let mut piece = [MaybeUninit::uninit(); FIRST_READ_BYTES];
            let mut piece = ReadBuf::uninit(&mut piece);
            match Pin::new(&mut *stream).poll_read(cx, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => {
                    first.extend_from_slice(piece.filled());
                    match sniffer.sniff(first) {
                        Speaks::NotYet => {}
                        speaks => return Poll::Ready(Ok(speaks)),
                    }
                }
                // Nothing whole was asked, so nothing is answered.
                Poll::Ready(_) => return Poll::Ready(Err(None)),
                Poll::Pending => break,
            }
        }
        match watch.look(cx) {
            Seen::Nothing => Poll::Pending,
            Seen::GraceOver => Poll::Ready(Err(None)),
            Seen::Late(late) => Poll::Ready(Err(Some(late))),
        }
    })
    .await
}

/// Shakes hands with a client of TLS, in the time that the head of a request has. None where that fails.
async fn shake_hands(
    socket: TcpStream,
    begun: Vec<u8>,
    config: Arc<ServerConfig>,
    pace: &Pace,
    local: &Local,
) -> Option<Socket> {
    let mut watch = Watch::new(pace, local);
    let address = socket.peer_addr().ok();
    let mut shaking = pin!(Socket::secured(socket, begun, config));
    let shaken = poll_fn(|cx| {
        if let Poll::Ready(shaken) = shaking.as_mut().poll(cx) {
            return Poll::Ready(shaken.map_err(|error| {
                if is_of_certificate(&error) {
                    add(&local.counters.refused_certificates, 1);
                    note_denied(address, "tls", "certificate", local);
                }
                error.to_string()
            }));
        }
        match watch.look(cx) {
            Seen::Nothing => Poll::Pending,
            Seen::GraceOver => Poll::Ready(Err("the node ends".to_owned())),
            Seen::Late(_) => {
                add(&local.counters.timed_out, 1);
                Poll::Ready(Err("it took too long".to_owned()))
            }
        }
    })
    .await;
    match shaken {
        Ok(socket) => Some(socket),
        Err(error) => {
            add(&local.counters.protocol_errors, 1);
            tracing::debug!(error, "no handshake of TLS");
            local.endings.wait().await;
            None
        }
    }
}

/// Whether a handshake failed for what a client has shown of itself.
fn is_of_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

async fn serve_http(stream: Stream, pace: &Rc<Pace>, local: &Rc<Local>) -> Option<Socket> {
    let Ok(address) = stream.socket().tcp().peer_addr() else {
        // It is gone already.
        return Some(stream.into_socket());
    };
    let caller = Caller::from(address.ip(), stream.socket().names_of_client());
    // `pipeline_flush` stays off: with it hyper gathers answers without bound for as long as requests are buffered, so
    // 8 KiB of pipelined requests for a large value would hold hundreds of copies of it.
    let mut connection = http1::Builder::new()
        .max_header_size(local.shared.live.load().max_header_bytes)
        .max_buf_size(MAX_READ_BYTES)
        .header_read_timeout(None)
        .serve_connection(
            TokioIo::new(stream),
            Service::new(Rc::clone(local), Rc::clone(pace), address, caller),
        );
    let late = {
        let mut watch = Watch::new(pace, local);
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = Pin::new(&mut connection).poll(cx) {
                if let Err(error) = outcome
                    && (error.is_parse() || error.is_parse_too_large())
                {
                    add(&local.counters.protocol_errors, 1);
                    tracing::debug!(%error, "a connection spoke no HTTP");
                }
                return Poll::Ready(None);
            }
            match watch.look(cx) {
                Seen::Nothing => Poll::Pending,
                Seen::Late(late) => Poll::Ready(Some(late)),
                Seen::GraceOver => {
                    Pin::new(&mut connection).graceful_shutdown();
                    // So that hyper acts on it.
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        })
        .await
    };
    let mut socket = connection.into_parts().io.into_inner().into_socket();
    if let Some(late) = late {
        close_late(&mut socket, late, local).await;
    } else if pace.left_unread() {
        linger(&mut socket, pace.announced_body(), local).await;
    }
    Some(socket)
}

/// Closes the connection of a client of HTTP that was too slow.
async fn close_late(socket: &mut Socket, late: Late, local: &Local) {
    add(&local.counters.timed_out, 1);
    tracing::debug!(?late, "closing the connection of a slow client");
    if late != Late::Header {
        return;
    }
    // It fits the send buffer, since nothing else waits there; if it does not, the client is beyond reach.
    let detail = "the head of the request did not come within limits.header_timeout_ms";
    let words = Problem::new(Code::RequestTimeout, detail).into_last_words();
    socket.try_send(&words);
    linger(socket, None, local).await;
}

/// Reads what the client still sends and throws it away, so that it reads our answer before it learns of the close. A node that ends
/// waits for none of that.
pub(crate) async fn linger(socket: &mut Socket, announced: Option<u64>, local: &Local) {
    let mut reading = pin!(read_away(socket, announced));
    let draining = async {
        let begins = local.drain();
        if !local.is_draining() {
            begins.await;
        }
    };
    tokio::select! {
        () = &mut reading => return,
        () = draining => {}
    }
    // Done or not, the socket is closed next.
    let _ = tokio::time::timeout(DRAIN_GRACE, reading).await;
}

async fn read_away(socket: &mut Socket, announced: Option<u64>) {
    let most = announced
        .filter(|&bytes| bytes <= LINGER_ANNOUNCED_BYTES)
        .map_or(LINGER_BYTES, |bytes| bytes.max(LINGER_BYTES));
    let start = Instant::now();
    // Fails when the client is gone, and then reading does as well. TLS says that it ends, for which there may be no room.
    let _ = tokio::time::timeout_at((start + LINGER).into(), socket.shutdown()).await;
    let mut sink = vec![0; 16 * 1024];
    let mut came = 0;
    while came < most {
        let earned = start + LINGER + Duration::from_secs(came / LINGER_BYTES_PER_SECOND);
        // Who stops sending has no use for what was earned.
        let deadline = earned.min(Instant::now() + LINGER);
        match tokio::time::timeout_at(deadline.into(), socket.read(&mut sink)).await {
            Ok(Ok(read)) if read > 0 => came += read as u64,
            // Late or done, the socket is closed next.
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_tells_the_protocol() {
        let long = |head: &str| [head.as_bytes(), &b"x".repeat(MAX_FIRST_LINE_BYTES)].concat();
        let cases: &[(&[u8], Speaks)] = &[
            (b"*1\r\n", Speaks::Resp),
            (b"*", Speaks::Resp),
            (b"GET /k HTTP/1.1\r\n", Speaks::Http),
            (b"\r\n\r\nGET /k HTTP/1.0\n", Speaks::Http),
            (b"GET /k HTTP/1.1", Speaks::NotYet),
            (b"GET k\r\n", Speaks::Resp),
            (b"GET /k\r\n", Speaks::Resp),
            (b"GET /k HTTP/2.0\r\n", Speaks::Resp),
            (b"PING\n", Speaks::Resp),
            (b"PIN", Speaks::NotYet),
            (b"\r\n", Speaks::NotYet),
            (PREFACE, Speaks::Peer),
            (b"HENGE-PEER", Speaks::NotYet),
            (b"HENGE-PEERS\n", Speaks::Resp),
            (b"\x16\x03\x01", Speaks::Tls),
            (&long("GET /"), Speaks::Http),
            (&long("SET k "), Speaks::Resp),
        ];
        for (bytes, speaks) in cases {
            let shown = bytes[..bytes.len().min(40)].escape_ascii();
            assert_eq!(Sniffer::default().sniff(bytes), *speaks, "{shown}");
            let mut sniffer = Sniffer::default();
            let mut told = (1..=bytes.len()).map(|len| sniffer.sniff(&bytes[..len]));
            let told = told.find(|speaks| *speaks != Speaks::NotYet);
            assert_eq!(told.unwrap_or(Speaks::NotYet), *speaks, "{shown}");
        }
    }
}
