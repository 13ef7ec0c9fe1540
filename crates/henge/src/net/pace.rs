//! How a connection keeps pace: when its client last sent or took something, and by when it must do so again. The stream
//! notes what passes; the connection looks when its timer fires. There is no timer operation on the way of a request,
//! which is why hyper's own header time-out is not used: that makes one for every request.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;

use crate::metrics::counters::{ThreadCounters, add};

/// Up to this many bytes an answer is copied into one piece before it is sent: `send` costs less than `writev`, by more
/// than it costs to copy a head and a small body.
const GATHERED_BYTES: usize = 4 * 1024;

thread_local! {
    /// Where that is done; it grows once.
    static GATHERED: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(GATHERED_BYTES));
}

/// The slowest that what may be large has to come, in bytes a second. A modem is faster.
pub(crate) const SLOWEST_IN: u64 = 1024;
/// The slowest that answers have to be taken. What waits for its client is memory that others lack, so it is more than for
/// requests, and still less than any link has over which an answer comes that is longer than its first time.
const SLOWEST_OUT: u64 = 16 * 1024;

/// How slow a client may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// From the first byte of a request's head to its last.
    pub(crate) header: Duration,
    /// Between requests, and before the first.
    pub(crate) idle: Duration,
    /// How far it may be behind [`SLOWEST_OUT`] with taking what it was sent.
    pub(crate) write: Duration,
    /// How far it may be behind [`SLOWEST_IN`] with sending what may be large: a request of the Redis protocol.
    pub(crate) body: Duration,
}

/// Since when a client is behind that has sent or taken so many bytes more. What is faster than the slowest that may be earns
/// nothing for later: who sends much at once and then nothing would else hold it for hours.
pub(crate) fn behind_since(since: Instant, bytes: u64, slowest: u64, now: Instant) -> Instant {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(slowest);
    let earned = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    since
        .checked_add(earned)
        .map_or(now, |since| since.min(now))
}

/// What a client was too slow for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Late {
    /// Sending the head of a request.
    Header,
    /// Sending the rest of a request of the Redis protocol.
    Request,
    /// Sending another request.
    Idle,
    /// Taking its answers.
    Write,
}

/// Where the conversation stands.
///
/// ```text
///          bytes            a request is whole
///   Idle ---------> Head -----------------------> Busy
///    ^   <-------------------------------------    |
///    |         a request came whole, at once       |
///    +---------------------------------------------+
///                        answered
/// ```
///
/// A client that pipelines can have the head of its next request half read while the state is Idle. It then has the
/// idle time until its next byte: no more than had it sent nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// No request has begun.
    Idle,
    /// A head has begun.
    Head,
    /// A request is being answered; reading its body has its own deadline.
    Busy,
    /// A request of the Redis protocol has begun, which may be of any size: between Idle and itself.
    Request,
}

/// The pace of one connection.
#[derive(Debug)]
pub(crate) struct Pace {
    patience: Cell<Patience>,
    phase: Cell<Phase>,
    /// When the phase began; for a request of the Redis protocol, since when its client is behind with it.
    since: Cell<Instant>,
    /// When bytes last came.
    received: Cell<Instant>,
    /// Whether they came for the request that begins next, and only now: no request has begun since, and nothing was
    /// sent. Then the time of that request is `received`, without another look at the clock. A pipelined request waits
    /// for its client to take the answers before, and what was there when it came may have expired since.
    fresh: Cell<bool>,
    /// Since when the client is behind with taking what waits for it.
    blocked: Cell<Option<Instant>>,
    /// How long the last body is, by its Content-Length.
    announced: Cell<Option<u64>>,
    /// A request's body was left unread.
    unread: Cell<bool>,
    /// How much of a request of the Redis protocol is there.
    came: Cell<usize>,
    /// Between requests the client may be silent as long as it likes.
    lasting: Cell<bool>,
    /// Since when it is known to be served nothing.
    stranger: Cell<Option<Instant>>,
    /// Bytes that came since somebody asked.
    taken_in: Cell<u64>,
}

impl Pace {
    pub(crate) fn new(patience: Patience, now: Instant) -> Self {
        Self {
            patience: Cell::new(patience),
            phase: Cell::new(Phase::Idle),
            since: Cell::new(now),
            received: Cell::new(now),
            fresh: Cell::new(false),
            blocked: Cell::new(None),
            announced: Cell::new(None),
            unread: Cell::new(false),
            came: Cell::new(0),
            lasting: Cell::new(false),
            stranger: Cell::new(None),
            taken_in: Cell::new(0),
        }
    }

    /// The connection speaks the Redis protocol. Its clients keep idle connections in pools and expect to find them open: Redis
    /// closes none by itself, and TCP's keep-alive finds those whose client is gone. A stranger, who is served nothing, has no
    /// pool: the time that others have between requests is all that it has, from when that was found out, whatever it sends.
    #[inline]
    pub(crate) fn last(&self, is_stranger: bool, now: Instant) {
        self.lasting.set(true);
        if is_stranger != self.stranger.get().is_some() {
            self.stranger.set(is_stranger.then_some(now));
        }
    }

    /// Has the client be that slow from now on.
    pub(crate) fn set_patience(&self, patience: Patience) {
        self.patience.set(patience);
    }

    /// So many bytes of a request are there, and it is not whole; 0 if none has begun.
    #[inline]
    pub(crate) fn partial(&self, bytes: usize, now: Instant) {
        let phase = if bytes == 0 {
            Phase::Idle
        } else {
            Phase::Request
        };
        let came = self.came.replace(bytes);
        if self.phase.replace(phase) != phase {
            self.since.set(now);
        } else if let Some(more @ 1..) = bytes.checked_sub(came) {
            let since = behind_since(self.since.get(), more as u64, SLOWEST_IN, now);
            self.since.set(since);
        }
    }

    /// Something waits for the client to take it, or nothing does.
    #[inline]
    pub(crate) fn block(&self, is_blocked: bool) {
        match (is_blocked, self.blocked.get()) {
            (true, None) => self.blocked.set(Some(Instant::now())),
            (false, Some(_)) => self.blocked.set(None),
            _ => {}
        }
    }

    /// The client has taken so many bytes, and perhaps not all.
    #[inline]
    pub(crate) fn took(&self, bytes: usize) {
        if let Some(since) = self.blocked.get() {
            let since = behind_since(since, bytes as u64, SLOWEST_OUT, Instant::now());
            self.blocked.set(Some(since));
        }
    }

    /// A request's head is whole: it is being answered. Says what time it is for that request: when its last bytes came,
    /// if that was just now, or else what `clock` says.
    #[inline]
    pub(crate) fn begin(&self, clock: impl FnOnce() -> Instant) -> Instant {
        self.phase.set(Phase::Busy);
        if self.fresh.replace(false) {
            self.received.get()
        } else {
            clock()
        }
    }

    /// It is answered, though perhaps not yet sent.
    #[inline]
    pub(crate) fn answered(&self, now: Instant) {
        self.phase.set(Phase::Idle);
        self.since.set(now);
    }

    /// The request has a body, which says that it is this long.
    pub(crate) fn announce_body(&self, bytes: Option<u64>) {
        self.announced.set(bytes);
    }

    /// A body will not be read to its end.
    pub(crate) fn leave_unread(&self) {
        self.unread.set(true);
    }

    pub(crate) fn left_unread(&self) -> bool {
        self.unread.get()
    }

    /// What was announced of the last body.
    pub(crate) fn announced_body(&self) -> Option<u64> {
        self.announced.get()
    }

    /// How many bytes came since they were taken last.
    pub(crate) fn received(&self) -> u64 {
        self.taken_in.get()
    }

    /// How many bytes came since this was asked last.
    #[inline]
    pub(crate) fn take_received(&self) -> u64 {
        self.taken_in.take()
    }

    #[inline]
    fn read(&self, bytes: u64, now: Instant) {
        self.taken_in.set(self.taken_in.get() + bytes);
        self.received.set(now);
        let phase = self.phase.get();
        self.fresh.set(phase != Phase::Busy);
        if phase == Phase::Idle {
            self.phase.set(Phase::Head);
            self.since.set(now);
        }
    }

    /// Something was sent, or is waiting to be.
    #[inline]
    fn write(&self) {
        self.fresh.set(false);
    }

    fn deadline(&self) -> Option<(Instant, Late)> {
        let stranger = self.stranger.get();
        let stranger = stranger.map(|since| (since + self.patience.get().idle, Late::Idle));
        let deadlines = self.deadline_of_phase().into_iter().chain(stranger);
        deadlines.min_by_key(|(deadline, _)| *deadline)
    }

    fn deadline_of_phase(&self) -> Option<(Instant, Late)> {
        if let Some(since) = self.blocked.get() {
            return Some((since + self.patience.get().write, Late::Write));
        }
        match self.phase.get() {
            Phase::Idle if self.lasting.get() => None,
            Phase::Idle => Some((self.since.get() + self.patience.get().idle, Late::Idle)),
            Phase::Head => Some((self.since.get() + self.patience.get().header, Late::Header)),
            Phase::Request => Some((self.since.get() + self.patience.get().body, Late::Request)),
            Phase::Busy => None,
        }
    }

    /// What the client is late with, or when to look again. No state that begins later can have an earlier deadline
    /// than the shortest patience from now, so looking then misses none.
    pub(crate) fn check(&self, now: Instant) -> Result<Instant, Late> {
        let Patience {
            header,
            idle,
            write,
            body,
        } = self.patience.get();
        let soonest = now + header.min(idle).min(write).min(body);
        match self.deadline() {
            Some((deadline, late)) if deadline <= now => Err(late),
            Some((deadline, _)) => Ok(deadline.min(soonest)),
            None => Ok(soonest),
        }
    }
}

/// A socket that notes what passes.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    pace: Rc<Pace>,
    counters: Arc<ThreadCounters>,
    /// What was read before it was known who reads it; from a place on.
    given_back: Option<(Vec<u8>, usize)>,
}

impl Stream {
    pub(crate) fn new(socket: Socket, pace: Rc<Pace>, counters: Arc<ThreadCounters>) -> Self {
        Self {
            socket,
            pace,
            counters,
            given_back: None,
        }
    }

    /// What was read is read again by whoever comes next.
    pub(crate) fn give_back(&mut self, bytes: Vec<u8>) {
        self.given_back = Some((bytes, 0));
    }

    /// The socket, for what can be asked about it.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket, for what is said outside the protocol.
    pub(crate) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Notes whether the client keeps what was written from leaving.
    fn waited(&self, outcome: &Poll<io::Result<()>>) {
        match outcome {
            Poll::Pending if self.pace.blocked.get().is_none() => {
                self.pace.blocked.set(Some(Instant::now()));
            }
            Poll::Pending => {}
            Poll::Ready(_) => self.pace.blocked.set(None),
        }
    }

    fn wrote(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.pace.write();
        match outcome {
            Poll::Pending if self.pace.blocked.get().is_none() => {
                self.pace.blocked.set(Some(Instant::now()));
            }
            Poll::Pending => {}
            Poll::Ready(ref sent) => {
                if let Ok(sent) = sent {
                    // Whether that is all of it is known when it is flushed.
                    self.pace.took(*sent);
                    add(&self.counters.sent_bytes, *sent as u64);
                }
            }
        }
        outcome
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some((bytes, from)) = &mut self.given_back {
            let rest = &bytes[*from..];
            let len = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..len]);
            *from += len;
            if *from == bytes.len() {
                self.given_back = None;
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.socket).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        if read > 0 {
            self.pace.read(read as u64, Instant::now());
            add(&self.counters.received_bytes, read as u64);
        }
        outcome
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        let outcome = if len > GATHERED_BYTES {
            Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
        } else {
            GATHERED.with_borrow_mut(|gathered| {
                gathered.clear();
                for slice in slices {
                    gathered.extend_from_slice(slice);
                }
                Pin::new(&mut self.socket).poll_write(cx, gathered)
            })
        };
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.waited(&flushed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.waited(&ended);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        header: Duration::from_secs(5),
        idle: Duration::from_mins(5),
        write: Duration::from_secs(30),
        body: Duration::from_secs(10),
    };

    /// Every (state, event), and by when the client must move after it.
    #[test]
    fn each_state_has_its_deadline() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let pace = Pace::new(PATIENCE, start);
        assert_eq!(pace.deadline(), Some((at(300), Late::Idle)));
        pace.read(1, at(10));
        assert_eq!(pace.deadline(), Some((at(15), Late::Header)));
        pace.read(1, at(14));
        assert_eq!(
            pace.deadline(),
            Some((at(15), Late::Header)),
            "dripping buys no time"
        );
        assert_eq!(pace.begin(|| at(99)), at(14));
        assert_eq!(pace.deadline(), None);
        pace.read(1, at(15));
        assert_eq!(pace.deadline(), None, "a body");
        pace.answered(at(16));
        assert_eq!(pace.deadline(), Some((at(316), Late::Idle)));
        pace.blocked.set(Some(at(17)));
        assert_eq!(pace.deadline(), Some((at(47), Late::Write)));
        pace.blocked.set(None);
        pace.begin(|| at(18));
        pace.answered(at(18));
        assert_eq!(pace.check(at(317)), Ok(at(318)));
        assert_eq!(pace.check(at(318)), Err(Late::Idle));
        assert_eq!(pace.check(at(20)), Ok(at(25)), "a head may begin meanwhile");
    }

    #[test]
    fn a_stranger_has_one_time_whatever_it_sends() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let pace = Pace::new(PATIENCE, start);
        let idle = PATIENCE.idle.as_secs();
        pace.last(true, at(1));
        let end = Some((at(1 + idle), Late::Idle));
        assert_eq!(pace.deadline(), end);
        for second in (2..idle).step_by(7) {
            // Half a request, the rest of it, and an answer that it takes.
            pace.partial(5, at(second));
            pace.partial(0, at(second));
            pace.block(true);
            pace.block(false);
            pace.last(true, at(second));
            assert_eq!(pace.deadline(), end, "{second}");
        }
        // What it is late with otherwise counts as well.
        pace.partial(5, at(2));
        assert_eq!(pace.deadline(), Some((at(12), Late::Request)));
        pace.partial(0, at(3));
        // It has shown a key, and that has expired.
        pace.last(false, at(3));
        assert_eq!(pace.deadline(), None);
        pace.last(true, at(9));
        assert_eq!(pace.deadline(), Some((at(9 + idle), Late::Idle)));
    }

    #[test]
    fn a_request_of_any_size_earns_its_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let pace = Pace::new(PATIENCE, start);
        pace.last(false, start);
        assert_eq!(pace.deadline(), None, "idle for ever");
        pace.partial(10, at(1));
        assert_eq!(pace.deadline(), Some((at(11), Late::Request)));
        pace.partial(10 + 4096, at(9));
        assert_eq!(pace.deadline(), Some((at(15), Late::Request)));
        pace.partial(10 + 4096, at(14));
        assert_eq!(pace.deadline(), Some((at(15), Late::Request)), "no more");
        pace.partial(64 << 20, at(14));
        let much = "much at once buys no more than a pause";
        assert_eq!(pace.deadline(), Some((at(24), Late::Request)), "{much}");
        pace.partial(0, at(15));
        pace.partial(7, at(15));
        assert_eq!(pace.deadline(), Some((at(25), Late::Request)), "the next");
        pace.block(true);
        assert!(matches!(pace.deadline(), Some((_, Late::Write))));
        pace.block(false);
        pace.partial(0, at(20));
        assert_eq!(pace.deadline(), None);
        assert_eq!(pace.check(at(30)), Ok(at(35)));
    }

    /// An answer that is taken in drips is not held for ever.
    #[test]
    fn an_answer_has_to_be_taken_at_some_speed() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(
            behind_since(start, 3 * SLOWEST_OUT, SLOWEST_OUT, start + 10 * second),
            start + 3 * second
        );
        let pace = Pace::new(PATIENCE, start);
        let deadline = || pace.deadline().map(|(at, late)| (at, late == Late::Write));
        pace.took(1 << 20);
        assert_eq!(deadline(), Some((start + PATIENCE.idle, false)));
        let blocked = start.checked_sub(20 * second).expect("the machine runs");
        pace.blocked.set(Some(blocked));
        pace.took(SLOWEST_OUT as usize);
        assert_eq!(deadline(), Some((blocked + 31 * second, true)));
        pace.took(usize::MAX);
        assert!(deadline() >= Some((start + PATIENCE.write, true)), "now");
        pace.block(true);
        pace.block(false);
        assert_eq!(deadline(), Some((start + PATIENCE.idle, false)));
    }

    /// The time of a request is that of its bytes only if nothing stood between them and it.
    #[test]
    fn a_request_that_waited_begins_now() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let now = || at(99);
        let after = |events: &[&dyn Fn(&Pace)]| {
            let pace = Pace::new(PATIENCE, start);
            for event in events {
                event(&pace);
            }
            pace.begin(now)
        };
        let read = |pace: &Pace| pace.read(1, at(1));
        let read_more = |pace: &Pace| pace.read(1, at(2));
        let begin = |pace: &Pace| {
            pace.begin(now);
        };
        let answered = |pace: &Pace| pace.answered(at(3));
        let write = |pace: &Pace| pace.write();
        assert_eq!(after(&[]), at(99));
        assert_eq!(after(&[&read]), at(1));
        assert_eq!(after(&[&read, &read_more]), at(2), "a head in two pieces");
        let first: [&dyn Fn(&Pace); 3] = [&read, &begin, &answered];
        assert_eq!(after(&first), at(99), "it came with the one before");
        assert_eq!(after(&[&read, &begin, &answered, &write]), at(99));
        assert_eq!(
            after(&[&read, &begin, &answered, &write, &read_more]),
            at(2)
        );
        assert_eq!(
            after(&[&read, &begin, &answered, &read_more, &write]),
            at(99),
            "it came before the last answer was taken"
        );
        assert_eq!(
            after(&[&read, &begin, &read_more, &answered]),
            at(99),
            "it came before the last answer was made"
        );
    }
}
