//! The bytes of a connection, over TCP or over TLS on it, for who does not care which. What was read of a connection before it
//! was known to be TLS is read again by TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls;

/// See the head of the file.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Secure(Box<Secure>),
}

/// A connection over TLS.
#[derive(Debug)]
pub(crate) struct Secure {
    stream: TlsStream<Begun>,
    /// Something that was taken to be sent may not have left yet.
    is_behind: bool,
}

/// A socket of which something was read already.
#[derive(Debug)]
pub(crate) struct Begun {
    first: Vec<u8>,
    /// How much of that was read again.
    at: usize,
    socket: TcpStream,
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }
}

impl Socket {
    /// Shakes hands with a client that has begun to.
    pub(crate) async fn secured(
        socket: TcpStream,
        first: Vec<u8>,
        config: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let begun = Begun {
            first,
            at: 0,
            socket,
        };
        let stream = TlsAcceptor::from(config).accept(begun).await?;
        Ok(Self::Secure(Box::new(Secure {
            stream,
            is_behind: false,
        })))
    }

    /// What can be asked about it.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Secure(secure) => &secure.stream.get_ref().0.socket,
        }
    }

    /// Whether others than the two ends can read what passes.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// The names in the certificate that the client has shown.
    pub(crate) fn names_of_client(&self) -> Vec<String> {
        match self {
            Self::Plain(_) => Vec::new(),
            Self::Secure(secure) => tls::names_of_client(secure.stream.get_ref().1),
        }
    }

    /// Sends a few bytes if there is room for them now, and not at all else.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) {
        let mut context = Context::from_waker(Waker::noop());
        // Who cannot be told anything is beyond help.
        let _ = Pin::new(&mut *self).poll_write(&mut context, bytes);
        let _ = Pin::new(self).poll_flush(&mut context);
    }

    /// Whether something that was taken to be sent has still to be: then it has to be flushed.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secure(secure) => secure.is_behind,
        }
    }
}

impl Secure {
    /// So that what is taken is bounded: nothing more is, before all that was has left.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_behind {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_behind = false;
        }
        Poll::Ready(Ok(()))
    }

    /// What was written leaves now, as far as there is room.
    fn wrote(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = written {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => self.is_behind = true,
            }
        }
        written
    }
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Secure(secure) => Pin::new(&mut secure.stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Secure(secure) => {
                ready!(secure.poll_room(cx))?;
                let written = Pin::new(&mut secure.stream).poll_write(cx, bytes);
                secure.wrote(written, cx)
            }
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Secure(secure) => {
                ready!(secure.poll_room(cx))?;
                let written = Pin::new(&mut secure.stream).poll_write_vectored(cx, slices);
                secure.wrote(written, cx)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Secure(secure) => secure.poll_room(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Secure(secure) => Pin::new(&mut secure.stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at < self.first.len() {
            let rest = &self.first[self.at..];
            let len = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..len]);
            self.at += len;
            if self.at == self.first.len() {
                (self.first, self.at) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Begun {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
