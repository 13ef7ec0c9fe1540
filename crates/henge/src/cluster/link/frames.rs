//! Frames of one connection, in and out: what came and is not whole is kept, what was not taken is kept. It knows nothing of
//! what is in them.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use henge_wire::peer::{self, Decoded, FrameError, Head};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is read at once: hundreds of small frames, and little enough to stay in the processor's second cache.
const READ_BYTES: usize = 64 * 1024;
/// What an empty buffer keeps of its memory: what a part of a copy needs, with what comes with it.
const KEPT_BYTES: usize = 512 * 1024;
/// What is sent is thrown away from so much on, if it is as much as what waits: each byte is moved once at the most.
const SENT_BYTES: usize = 256 * 1024;

thread_local! {
    /// What the links of a thread read into.
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What came and was not taken.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    buffer: BytesMut,
    /// Bytes of the frame that is not whole, as far as it says.
    needed: usize,
    /// The longest frame for which there was to be room in the buffer.
    longest: usize,
}

/// Why nothing more is read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The other side has closed.
    Closed,
    /// It wants nothing to do with this node, and says why.
    Refused(String),
    Io(io::Error),
    Frame(FrameError),
    /// The secret by which it proved itself was taken away since.
    Over,
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("it has closed the connection"),
            Self::Refused(why) => write!(f, "it refuses this node: {why}"),
            Self::Io(error) => error.fmt(f),
            Self::Frame(error) => write!(f, "it sent {error}"),
            Self::Over => {
                f.write_str("it proved itself by a secret that this node does not accept any more")
            }
        }
    }
}

impl Incoming {
    /// Begins with what was read already.
    pub(crate) fn after(read: &[u8]) -> Self {
        Self {
            buffer: BytesMut::from(read),
            needed: 0,
            longest: 0,
        }
    }

    /// The next frame that is whole, if there is one.
    pub(crate) fn next(&mut self, most_bytes: usize) -> Result<Option<(Head, Bytes)>, ReadError> {
        if self.buffer.len() < self.needed {
            return Ok(None);
        }
        match peer::decode(&self.buffer, most_bytes).map_err(ReadError::Frame)? {
            Decoded::NotYet(needed) => {
                self.needed = needed;
                self.longest = self.longest.max(needed);
                Ok(None)
            }
            Decoded::Frame { head, body } => {
                self.needed = 0;
                let mut frame = self.buffer.split_to(body.end);
                let body = frame.split_off(body.start).freeze();
                Ok(Some((head, body)))
            }
        }
    }

    /// Reads what there is.
    pub(crate) fn poll_read(
        &mut self,
        socket: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ReadError>> {
        if self.longest > KEPT_BYTES && self.needed.max(self.buffer.len()) <= KEPT_BYTES {
            // It would have the room of the longest frame for ever.
            self.buffer = BytesMut::from(&self.buffer[..]);
            self.longest = 0;
        }
        let missing = self.needed.saturating_sub(self.buffer.len());
        let read = if missing > READ_BYTES {
            // As much again as there is, so that who announces much and sends little costs little.
            let most = self.buffer.len().max(KEPT_BYTES);
            self.buffer.reserve(missing.min(most));
            ready!(pin!(socket.read_buf(&mut self.buffer)).poll(cx))
        } else {
            // What came has room of its size: that of a whole read would be given back to the system, and had from it, each time.
            ready!(READ.with_borrow_mut(|read| {
                read.resize(READ_BYTES, 0);
                let mut came = ReadBuf::new(read);
                let polled = Pin::new(&mut *socket).poll_read(cx, &mut came);
                self.buffer.extend_from_slice(came.filled());
                polled.map_ok(|()| came.filled().len())
            }))
        };
        match read {
            Ok(0) => Poll::Ready(Err(ReadError::Closed)),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(ReadError::Io(error))),
        }
    }
}

#[cfg(test)]
impl Incoming {
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

/// What is to be sent. Many write to it, one sends.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: RefCell<Vec<u8>>,
    /// Of `bytes`, so many are sent.
    sent: Cell<usize>,
    sender: RefCell<Option<Waker>>,
}

impl Outgoing {
    /// Appends a frame, which is sent when this turn of the thread is over.
    pub(crate) fn push(&self, head: Head, body: &[&[u8]]) {
        peer::encode(&mut self.bytes.borrow_mut(), head, body);
        self.wake();
    }

    /// Has who sends look around.
    pub(crate) fn wake(&self) {
        if let Some(sender) = self.sender.borrow_mut().take() {
            sender.wake();
        }
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.borrow().len() - self.sent.get()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.borrow().capacity()
    }

    /// Sends what waits. Ready only with an error: there may always be more.
    pub(crate) fn poll_send(
        &self,
        socket: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Error> {
        let mut bytes = self.bytes.borrow_mut();
        while self.sent.get() < bytes.len() {
            let rest = &bytes[self.sent.get()..];
            match Pin::new(&mut *socket).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => self.sent.set(self.sent.get() + written),
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                // The socket wakes; what is pushed meanwhile goes with it.
                Poll::Pending => {
                    let sent = self.sent.get();
                    if sent >= SENT_BYTES.max(bytes.len() - sent) {
                        // There may always be more, so it is not left until all is sent.
                        bytes.drain(..sent);
                        self.sent.set(0);
                    }
                    return Poll::Pending;
                }
            }
        }
        bytes.clear();
        bytes.shrink_to(KEPT_BYTES);
        self.sent.set(0);
        *self.sender.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}
