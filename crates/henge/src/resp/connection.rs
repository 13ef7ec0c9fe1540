//! A connection of the Redis protocol: bytes are read into the thread's buffer, every whole request in them is answered,
//! and the replies are sent in one piece. A connection keeps memory of its own only for what is not whole: a request that
//! has not all come, replies that its client does not take.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use henge_wire::resp::writer::{Output, Writer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::again::Again;
use super::held::{Held, MOST_REQUEST_BYTES, Written};
use super::pipeline::{Pipeline, Scratch, Stop, Waiting};
use super::session::Session;
use crate::access::caller::Caller;
use crate::audit::Outcome;
use crate::cluster::replicas::told;
use crate::disk::gate::Owed;
use crate::metrics::counters::add;
use crate::net::connection::linger;
use crate::net::data_thread::Local;
use crate::net::inflight::Hold;
use crate::net::pace::Pace;
use crate::net::socket::Socket;
use crate::net::watch::{Seen, Watch};

/// How long a silent connection is before TCP asks whether its client is still there, as in Redis.
pub(super) const KEEPALIVE: Duration = Duration::from_mins(5);

/// How often a connection reads and answers before others on its thread have their turn: once, and again to see that
/// there is no more. Of what was read only so much is answered at once as takes a turn.
const READS_PER_TURN: usize = 2;

/// What the thread's output buffer keeps of its memory.
const KEPT_OUTPUT_BYTES: usize = 256 * 1024;
/// What a connection's own buffer keeps of its memory when it is empty.
const KEPT_INPUT_BYTES: usize = 4 * 1024;
/// By how much, at the least, a connection's own buffer grows.
const INPUT_STEP_BYTES: usize = 16 * 1024;
/// Pieces that one call of the system sends.
const PIECES: usize = 16;

/// Who asks on a connection from this address, before it has shown anything.
pub(crate) fn caller_of(address: SocketAddr, socket: &Socket, local: &Local) -> Caller {
    let mut caller = Caller::from(address.ip(), socket.names_of_client());
    caller.look(&local.shared.access, local.shared.clock.now_ms());
    caller
}

/// Serves a connection whose first bytes were read; gives back what is to be closed.
pub(crate) async fn serve(
    socket: Socket,
    pace: Rc<Pace>,
    local: &Rc<Local>,
    first: Vec<u8>,
) -> Option<Socket> {
    let tcp = socket.tcp();
    let (Ok(address), Ok(local_address)) = (tcp.peer_addr(), tcp.local_addr()) else {
        // It is gone already.
        return Some(socket);
    };
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    // Without it a dead client is found when something is sent to it.
    let _ = SockRef::from(tcp).set_tcp_keepalive(&keepalive);
    let server = &local.shared.resp;
    let client = server.clients.connect(
        address,
        local_address,
        tcp.as_raw_fd(),
        local.shared.clock.now_ms(),
    );
    add(&client.received_bytes, first.len() as u64);
    let mut killed = pin!(client.killed());
    // So that a kill from now on is noticed; one before is seen in the flag.
    killed.as_mut().enable();
    let caller = caller_of(address, &socket, local);
    pace.last(caller.is_stranger(), Instant::now());
    let session = Session::new(Arc::clone(&client), caller);
    if !socket.is_plain() {
        // Its certificate may stand for a key.
        session.show_name();
    }
    let mut connection = Connection {
        socket,
        pipeline: Pipeline::new(session, Rc::clone(local)),
        pace: Rc::clone(&pace),
        local,
        pending: first,
        read_at: Instant::now(),
        needed: 1,
        unsent: VecDeque::new(),
        unsent_bytes: 0,
        hold: None,
        waiting: None,
        held: None,
        owed: None,
        paused: None,
        reads_no_more: false,
        is_closing: false,
    };
    // Dropped before the connection, so that who sees the socket closed finds it gone from the list.
    let connected = Connected {
        id: client.id,
        local,
    };
    let mut watch = Watch::new(&pace, local);
    let mut is_watched = false;
    poll_fn(|cx| {
        // Once is enough: it is this task that is to be woken, and then the flag is set.
        if !is_watched {
            is_watched = true;
            let _ = killed.as_mut().poll(cx);
        }
        if client.is_killed() || connection.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match watch.look(cx) {
            Seen::Nothing => Poll::Pending,
            Seen::GraceOver => {
                connection.reads_no_more = true;
                connection.poll(cx)
            }
            Seen::Late(late) => {
                add(&local.counters.timed_out, 1);
                tracing::debug!(?late, %address, "closing the connection of a slow client");
                Poll::Ready(())
            }
        }
    })
    .await;
    drop(connected);
    if let Some(Waiting { entry, words, .. }) = &connection.waiting {
        // It goes on, or does not, and nobody is told.
        let pipeline = &connection.pipeline;
        pipeline.audit(entry.spec, words, Outcome::Unknown, None);
    }
    if connection.is_closing {
        // What it still sends is read, so that it reads why we end.
        linger(&mut connection.socket, None, local).await;
    }
    // All else is given back first: who sees it closed finds that.
    Some(connection.socket)
}

/// A client is in the list until this is dropped.
struct Connected<'a> {
    id: u64,
    local: &'a Local,
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.local.shared.resp.clients.disconnect(self.id);
    }
}

struct Connection<'a> {
    pipeline: Pipeline,
    pace: Rc<Pace>,
    local: &'a Rc<Local>,
    /// Requests that are not answered: the beginning of one, or whole ones that wait for a reply, for the client to take
    /// replies, or for the end of a pause.
    pending: Vec<u8>,
    /// When the first request that is whole in there was.
    read_at: Instant,
    /// How many bytes must be in `pending` before it is worth a look.
    needed: usize,
    /// Replies that the client has not taken.
    unsent: VecDeque<Bytes>,
    unsent_bytes: usize,
    /// What `pending` and `unsent` hold, where it is much.
    hold: Option<Hold<'static>>,
    waiting: Option<Waiting>,
    /// What was written and is not to be sent yet.
    held: Option<Held>,
    /// What the command in `waiting` has to wait for beside itself.
    owed: Option<Owed>,
    /// Resolves at the end of a pause.
    paused: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// The node drains: what has come is answered, and nothing more is read.
    reads_no_more: bool,
    /// It ends when all is sent, whatever else has come.
    is_closing: bool,
    socket: Socket,
}

impl Connection<'_> {
    /// Ready when the connection is done.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_PER_TURN {
            if self.socket.is_behind() && ready!(self.poll_flush(cx)).is_err() {
                return Poll::Ready(());
            }
            if let Some(held) = &mut self.held {
                let (client, local) = (&self.pipeline.session.client, self.local);
                let again = |manner, deadline| Again::until(client, manner, local, deadline);
                let replies = ready!(held.poll(local, again, cx));
                let bytes = replies.iter().map(Bytes::len).sum::<usize>();
                let later = bytes.saturating_sub(held.written_bytes());
                self.pipeline.spend_later(later);
                self.held = None;
                self.unsent_bytes += bytes;
                self.unsent.extend(replies);
                if !self.account() {
                    return Poll::Ready(());
                }
            }
            if !self.unsent.is_empty() && ready!(self.poll_send(cx)).is_err() {
                return Poll::Ready(());
            }
            if self.is_closing {
                return Poll::Ready(());
            }
            if let Some(waiting) = &self.waiting {
                // Work is done to its end, for a client that reads and sends no more as well; waiting is not.
                if waiting.is_idle() && self.is_gone(cx) {
                    return Poll::Ready(());
                }
                if ready!(self.poll_waiting(cx)).is_err() {
                    return Poll::Ready(());
                }
                continue;
            }
            if self.paused.is_some() {
                // A node that drains does not wait for the end of a pause, and runs nothing in it.
                if self.reads_no_more || self.is_gone(cx) {
                    return Poll::Ready(());
                }
                ready!(self.poll_pause(cx));
            }
            let outcome = if self.pending.len() >= self.needed {
                self.answer_pending(cx)
            } else if self.reads_no_more {
                return Poll::Ready(());
            } else if self.pending.is_empty() {
                ready!(self.poll_read(cx))
            } else {
                ready!(self.poll_read_more(cx))
            };
            if outcome.is_err() {
                return Poll::Ready(());
            }
            if self.has_had_its_turn() {
                break;
            }
        }
        // Others have their turn, those included whose bytes the runtime has not seen yet: only a task that yields is woken
        // after it has looked at the sockets.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        Poll::Pending
    }

    /// Whether a pipeline is to go on at once, and others come first.
    fn has_had_its_turn(&self) -> bool {
        let waits = self.waiting.is_some() || self.held.is_some() || self.paused.is_some();
        let is_behind = !self.unsent.is_empty() || self.is_closing;
        !waits && !is_behind && self.pending.len() >= self.needed
    }

    /// Whether the client has closed its side, looked at while nothing is read. What it sends meanwhile is kept, up to a
    /// bound; behind more than that nobody sees its end.
    fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        while self.pending.len() < INPUT_STEP_BYTES {
            if self.pending.is_empty() {
                self.read_at = Instant::now();
            }
            self.pending.reserve(KEPT_INPUT_BYTES);
            match pin!(self.socket.read_buf(&mut self.pending)).poll(cx) {
                Poll::Ready(Ok(read)) if read > 0 => self.received(read),
                Poll::Ready(_) => return true,
                Poll::Pending => return false,
            }
        }
        false
    }

    /// Reads into the thread's buffer and answers from there: the way of nearly all requests.
    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut scratch = self.local.resp.borrow_mut();
        let Scratch {
            input,
            out,
            buffers,
        } = &mut *scratch;
        let mut buffer = ReadBuf::new(input);
        match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => {}
            _ => return Poll::Ready(Err(Gone)),
        }
        let input = buffer.filled();
        // Asked after the reading: what was sent once the kill was answered is not run.
        if self.client().is_killed() {
            return Poll::Ready(Err(Gone));
        }
        self.received(input.len());
        let now = Instant::now();
        out.set_budget(self.local.shared.in_flight.left());
        self.read_at = now;
        let (done, stop) = self.pipeline.run(input, (now, now), buffers, out);
        let owed = self.local.gate.take_owed();
        if done < input.len() && !matches!(stop, Stop::Close) {
            self.pending.extend_from_slice(&input[done..]);
        }
        self.after(stop, now);
        Poll::Ready(self.dispatch(out, owed, &input[..done], cx))
    }

    /// Reads the rest of a request into the connection's own buffer.
    fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let missing = self.needed - self.pending.len();
        // As much again as there is, so that who announces much and sends little costs little; and no single bytes.
        let room = missing
            .min(self.pending.len().max(INPUT_STEP_BYTES))
            .max(KEPT_INPUT_BYTES);
        if self.pending.capacity() - self.pending.len() < room {
            self.pending.reserve_exact(room);
            if !self.account() {
                return Poll::Ready(self.refuse_for_memory(cx));
            }
        }
        match ready!(pin!(self.socket.read_buf(&mut self.pending)).poll(cx)) {
            Ok(read) if read > 0 => {
                self.received(read);
                self.read_at = Instant::now();
                self.pace.partial(self.pending.len(), self.read_at);
                self.client()
                    .pending_bytes
                    .store(self.pending.len() as u64, Ordering::Relaxed);
                Poll::Ready(Ok(()))
            }
            _ => Poll::Ready(Err(Gone)),
        }
    }

    /// Answers what waits in the connection's own buffer.
    fn answer_pending(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        if self.client().is_killed() {
            return Err(Gone);
        }
        let mut scratch = self.local.resp.borrow_mut();
        let Scratch { out, buffers, .. } = &mut *scratch;
        let now = Instant::now();
        out.set_budget(self.local.shared.in_flight.left());
        let pending = std::mem::take(&mut self.pending);
        let (done, stop) = self
            .pipeline
            .run(&pending, (self.read_at, now), buffers, out);
        let owed = self.local.gate.take_owed();
        let outcome = self.dispatch(out, owed, &pending[..done], cx);
        self.pending = pending;
        self.pending.drain(..done);
        if self.pending.capacity() > KEPT_INPUT_BYTES.max(4 * self.pending.len()) {
            self.pending.shrink_to_fit();
        }
        if self.hold.is_some() {
            // Others may have taken the room meanwhile; it was there before them.
            self.account_anyway();
        }
        if done > 0 {
            // What is left is another request, with a time of its own.
            self.pace.partial(0, now);
        }
        self.after(stop, now);
        outcome
    }

    /// Sends what a run over this input has written, at once or when all that it needs is there.
    #[inline]
    fn dispatch(
        &mut self,
        out: &mut Output,
        owed: Option<Owed>,
        input: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Gone> {
        if owed.is_none() && self.pipeline.forwards.is_empty() {
            self.pipeline.batch.told(&self.local.counters);
            return self.send(out, cx);
        }
        let written = self.pipeline.take_written(input, owed.as_ref());
        self.hold_back(out, owed, written)
    }

    /// Takes notice of why a pipeline stopped.
    #[inline]
    fn after(&mut self, stop: Stop, now: Instant) {
        let is_stranger = self.pipeline.session.caller.is_stranger();
        self.pace.last(is_stranger, now);
        self.needed = 1;
        match stop {
            Stop::Input { at_least } => {
                self.needed = at_least;
                self.pace.partial(self.pending.len(), now);
                let client = self.client();
                if client.pending_bytes.load(Ordering::Relaxed) != self.pending.len() as u64 {
                    client
                        .pending_bytes
                        .store(self.pending.len() as u64, Ordering::Relaxed);
                }
                return;
            }
            Stop::Output | Stop::Before => {}
            Stop::Later(waiting) => {
                let is_large = waiting.request.len() > MOST_REQUEST_BYTES;
                self.waiting = Some(waiting);
                if is_large {
                    // It is kept as there was room for it.
                    self.account();
                }
            }
            Stop::Paused { until_ms } => {
                let shared = Arc::clone(&self.local.shared);
                self.paused = Some(Box::pin(async move {
                    let mut ended = pin!(shared.resp.pause.ended());
                    ended.as_mut().enable();
                    let now_ms = shared.clock.now_ms();
                    if shared.resp.pause.now(now_ms).is_some() {
                        let left = Duration::from_millis(until_ms.saturating_sub(now_ms));
                        // Whether it was ended or ran out is the same.
                        let _ = tokio::time::timeout(left, ended).await;
                    }
                }));
            }
            Stop::Close => self.is_closing = true,
        }
        // Whatever waits does not wait for its client.
        self.pace.partial(0, now);
    }

    /// Sends what was written; what the client does not take is kept.
    #[inline]
    fn send(&mut self, out: &mut Output, cx: &mut Context<'_>) -> Result<(), Gone> {
        if out.is_empty() {
            return Ok(());
        }
        let mut sent = 0;
        if self.unsent.is_empty()
            && let Some(bytes) = out.as_bytes()
        {
            match Pin::new(&mut self.socket).poll_write(cx, bytes) {
                Poll::Ready(Ok(written)) => {
                    sent = written;
                    self.sent(written);
                    if sent == bytes.len() {
                        out.clear(KEPT_OUTPUT_BYTES);
                        return Ok(());
                    }
                }
                Poll::Ready(Err(_)) => {
                    out.clear(KEPT_OUTPUT_BYTES);
                    return Err(Gone);
                }
                Poll::Pending => {}
            }
        }
        self.keep_unsent(out, sent)
    }

    /// Keeps what was written until what it needs is there, and sends to other nodes what a run has for them.
    fn hold_back(
        &mut self,
        out: &mut Output,
        owed: Option<Owed>,
        written: Written,
    ) -> Result<(), Gone> {
        let forwards = std::mem::take(&mut self.pipeline.forwards);
        let sent = match &self.pipeline.routes {
            Some(routes) if !forwards.is_empty() => {
                let client = &self.pipeline.session.client;
                let again = Again::of(client, written.manner, self.local);
                Some(forwards.send(routes, &self.local.shared.in_flight, again))
            }
            _ => None,
        };
        self.held = Some(Held::new(out, owed, written, sent));
        out.clear(KEPT_OUTPUT_BYTES);
        // More than the node may hold: its replies are lost to this client, and not the node to all.
        if self.account() { Ok(()) } else { Err(Gone) }
    }

    fn keep_unsent(&mut self, out: &mut Output, sent: usize) -> Result<(), Gone> {
        let pieces = out.take_pieces(sent);
        out.clear(KEPT_OUTPUT_BYTES);
        self.unsent_bytes += pieces.iter().map(Bytes::len).sum::<usize>();
        self.unsent.extend(pieces);
        // More than the node may hold: its replies are lost to this client, and not the node to all.
        if self.account() { Ok(()) } else { Err(Gone) }
    }

    /// Waits until what TLS was given has left.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.pace.block(flushed.is_pending());
        flushed.map(|flushed| flushed.map_err(|_| Gone))
    }

    /// Sends what the client did not take.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while !self.unsent.is_empty() {
            let written = match self.unsent.front() {
                // It costs a little less.
                Some(piece) if self.unsent.len() == 1 => {
                    Pin::new(&mut self.socket).poll_write(cx, piece)
                }
                _ => {
                    let mut slices = [IoSlice::new(&[]); PIECES];
                    let mut count = 0;
                    for (slice, piece) in slices.iter_mut().zip(&self.unsent) {
                        *slice = IoSlice::new(piece);
                        count += 1;
                    }
                    Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..count])
                }
            };
            let Poll::Ready(written) = written else {
                self.pace.block(true);
                self.client()
                    .unsent_bytes
                    .store(self.unsent_bytes as u64, Ordering::Relaxed);
                return Poll::Pending;
            };
            let Ok(mut written) = written else {
                return Poll::Ready(Err(Gone));
            };
            self.pace.took(written);
            self.sent(written);
            self.unsent_bytes -= written;
            while let Some(piece) = self.unsent.front_mut() {
                let taken = written.min(piece.len());
                piece.advance(taken);
                written -= taken;
                if !piece.is_empty() {
                    break;
                }
                self.unsent.pop_front();
            }
        }
        self.pace.block(false);
        self.client().unsent_bytes.store(0, Ordering::Relaxed);
        self.account();
        Poll::Ready(Ok(()))
    }

    /// Waits for a reply that comes later.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let Some(waiting) = &mut self.waiting else {
            return Poll::Ready(Ok(()));
        };
        let level = self.pipeline.session.level;
        told::set_level(level.unwrap_or_else(|| self.local.shared.live.load().default_level));
        told::set_reply(0);
        let polled = waiting.reply.as_mut().poll(cx);
        // Of all that it ran, in whatever poll.
        Owed::add(&mut self.owed, self.local.gate.take_owed());
        let reply = ready!(polled);
        let (entry, is_wanted) = (waiting.entry, waiting.is_wanted);
        let words = std::mem::take(&mut waiting.words);
        let request = std::mem::take(&mut waiting.request);
        let mut batch = self.pipeline.batch_of(waiting);
        self.pipeline
            .waited(words, entry, waiting.since, reply.as_ref().err());
        self.waiting = None;
        let mut out = Output::default();
        match reply {
            Ok(reply) => out = reply,
            Err(error) => self.pipeline.fail(entry, &error, &mut out),
        }
        if !is_wanted {
            out = Output::default();
        }
        self.pipeline.spend_later(out.len());
        Poll::Ready(match self.owed.take() {
            None => {
                batch.told(&self.local.counters);
                self.send(&mut out, cx)
            }
            Some(owed) => {
                let manner = self.pipeline.session.manner();
                let written = Written::one(manner, out.len(), request, is_wanted, batch);
                self.hold_back(&mut out, Some(owed), written)
            }
        })
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.paused {
            ready!(pause.as_mut().poll(cx));
            self.paused = None;
        }
        Poll::Ready(())
    }

    /// There is no memory for the request that has begun.
    fn refuse_for_memory(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        let mut out = Output::default();
        Writer::new(&mut out, self.pipeline.session.protocol)
            .error("OOM requests hold limits.max_inflight_bytes, or of its address limits.max_inflight_bytes_per_address; the connection is closed");
        self.is_closing = true;
        self.pending = Vec::new();
        self.account();
        self.send(&mut out, cx)
    }

    /// Holds what is kept against the node's bound; false past it.
    fn account(&mut self) -> bool {
        let bytes = self.kept_bytes();
        if self.hold.is_none() {
            self.hold = self.local.shared.in_flight.hold_for(bytes);
        }
        match &mut self.hold {
            None => true,
            Some(hold) => hold.set(bytes),
        }
    }

    /// The same for what is there already, whether there is room for it or not.
    fn account_anyway(&mut self) {
        let bytes = self.kept_bytes();
        if let Some(hold) = &mut self.hold {
            hold.set_anyway(bytes);
        }
    }

    /// What it has of its own.
    fn kept_bytes(&self) -> usize {
        let waits = self.held.as_ref().map_or(0, Held::size_bytes);
        let later = self.waiting.as_ref().map_or(0, |w| w.request.len());
        self.pending.capacity() + self.unsent_bytes + waits + later
    }

    fn client(&self) -> &super::clients::Client {
        &self.pipeline.session.client
    }

    #[inline]
    fn received(&self, bytes: usize) {
        add(&self.local.counters.received_bytes, bytes as u64);
        add(&self.client().received_bytes, bytes as u64);
    }

    #[inline]
    fn sent(&self, bytes: usize) {
        add(&self.local.counters.sent_bytes, bytes as u64);
        add(&self.client().sent_bytes, bytes as u64);
    }
}

/// The client is gone, or nobody can help it.
struct Gone;
