//! One connection, from its first byte to its last: which protocol it speaks, its time-outs, and how it is closed. Today
//! all of the port is HTTP; the next protocol is told apart here, by the first line, before hyper sees the stream.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::futures::Notified;
use tokio::time::Sleep;

use super::data_thread::Local;
use super::pace::{Late, Pace, Stream};
use crate::http::problem::{Code, Problem};
use crate::http::service::Service;
use crate::metrics::counters::add;

/// The longest head of a request. A URL holds at most 65,534 bytes (the `http` crate's bound; 414 past it), and this
/// leaves it as much again for headers; past it is a 431.
const MAX_HEAD_BYTES: usize = 128 * 1024;

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

/// How long an idle connection is kept once draining has begun, so that a request already on its way is answered, with
/// `connection: close`. A round trip across a continent; a stop takes that much longer.
const DRAIN_GRACE: Duration = Duration::from_millis(100);

/// Serves a connection until either side closes it.
pub(crate) async fn serve(socket: TcpStream, local: &Rc<Local>) {
    let pace = Rc::new(Pace::new(local.shared.live.load().patience, Instant::now()));
    let stream = Stream::new(socket, Rc::clone(&pace), local.counters.clone());
    serve_http(stream, &pace, local).await;
}

async fn serve_http(stream: Stream, pace: &Rc<Pace>, local: &Rc<Local>) {
    // `pipeline_flush` stays off: with it hyper gathers answers without bound for as long as requests are buffered, so
    // 8 KiB of pipelined requests for a large value would hold hundreds of copies of it.
    let mut connection = http1::Builder::new()
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_READ_BYTES)
        .header_read_timeout(None)
        .serve_connection(
            TokioIo::new(stream),
            Service::new(Rc::clone(local), Rc::clone(pace)),
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
        add(&local.counters.timed_out, 1);
        tracing::debug!(?late, "closing the connection of a slow client");
        if late != Late::Header {
            return;
        }
        // It fits the send buffer, since nothing else waits there; if it does not, the client is beyond reach.
        let detail = "the head of the request did not come within limits.header_timeout_ms";
        let words = Problem::new(Code::RequestTimeout, detail).into_last_words();
        let _ = socket.try_write(&words);
        let _ = socket.shutdown().await;
    } else if !pace.left_unread() {
        return;
    }
    let announced = pace.announced_body().filter(|_| pace.left_unread());
    linger(&mut socket, announced).await;
}

/// What a look around found.
enum Seen {
    Nothing,
    /// Draining has begun, and an idle connection need not be kept any longer.
    GraceOver,
    Late(Late),
}

/// Looks at what a connection must notice beside its own traffic. The task is woken for that by futures that were polled
/// once; every wake-up for a request then costs a look at two flags, where `select!` would poll both futures again.
struct Watch<'a> {
    pace: &'a Pace,
    local: &'a Local,
    timer: Pin<Box<Sleep>>,
    drain: Pin<Box<Notified<'a>>>,
    timer_is_set: bool,
    /// Draining was seen to have begun.
    is_draining: bool,
    /// Until when the connection is kept though idle; only while draining, and until that has passed.
    grace: Option<Instant>,
}

impl<'a> Watch<'a> {
    fn new(pace: &'a Pace, local: &'a Local) -> Self {
        let now = Instant::now();
        let first = pace.check(now).unwrap_or(now);
        Self {
            pace,
            local,
            timer: Box::pin(tokio::time::sleep_until(first.into())),
            drain: Box::pin(local.drain()),
            timer_is_set: false,
            is_draining: false,
            grace: None,
        }
    }

    /// Must be called each time that the task is woken and does not end.
    #[inline]
    fn look(&mut self, cx: &mut Context<'_>) -> Seen {
        if self.timer_is_set
            && !self.timer.is_elapsed()
            && self.is_draining == self.local.is_draining()
        {
            return Seen::Nothing;
        }
        self.look_closely(cx)
    }

    #[cold]
    fn look_closely(&mut self, cx: &mut Context<'_>) -> Seen {
        if !self.is_draining {
            let begun = self.drain.as_mut().poll(cx).is_ready() || self.local.is_draining();
            if begun {
                self.is_draining = true;
                let until = Instant::now() + DRAIN_GRACE;
                self.grace = Some(until);
                self.timer.as_mut().reset(until.into());
            }
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.grace.take_if(|until| *until <= now).is_some() {
                return Seen::GraceOver;
            }
            match self.pace.check(now) {
                Ok(next) => {
                    let next = self.grace.map_or(next, |until| next.min(until));
                    self.timer.as_mut().reset(next.into());
                }
                Err(late) => return Seen::Late(late),
            }
        }
        self.timer_is_set = true;
        Seen::Nothing
    }
}

/// Reads what the client still sends and throws it away, so that it reads our answer before it learns of the close.
async fn linger(socket: &mut TcpStream, announced: Option<u64>) {
    let most = announced
        .filter(|&bytes| bytes <= LINGER_ANNOUNCED_BYTES)
        .map_or(LINGER_BYTES, |bytes| bytes.max(LINGER_BYTES));
    let start = Instant::now();
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
