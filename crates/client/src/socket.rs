//! The bytes of a connection to a server, over TCP or over TLS on it, for who does not care which. It connects, and knows nothing
//! of what passes.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Target, Tls};

/// What is wrong where a server is to be reached over TLS and nothing says whom to trust.
pub(crate) const NO_AUTHORITIES: &str = "a URL of https:// or rediss:// needs the authorities whose certificates are trusted; none \
     are built in";

/// A connection to a server, of bytes, for programs that speak something over it that a [`Client`](crate::Client) does not. It
/// has no time-outs; when it is dropped it is closed.
#[derive(Debug)]
pub struct Socket(Transport);

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Connects to a server, and over TLS if that is what its scheme says. Then the server has shown a certificate for its host by
    /// an authority that is trusted.
    ///
    /// # Errors
    /// What the system says, or TLS; [`io::ErrorKind::InvalidInput`] without a word to anybody if there has to be TLS and is none
    /// here, or if no certificate could be for such a host.
    pub async fn open(target: &Target, tls: Option<&Tls>) -> io::Result<Self> {
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        let secured = if target.scheme.is_secure() {
            let tls = tls.ok_or_else(|| invalid(NO_AUTHORITIES))?;
            let name = ServerName::try_from(target.host.clone());
            let name = name.map_err(|_| invalid("no certificate can be for such a host"))?;
            Some((TlsConnector::from(tls.config()), name))
        } else {
            None
        };
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
        // A request is written at once and then waited for; holding its end back would only delay it.
        stream.set_nodelay(true)?;
        Ok(Self(match secured {
            None => Transport::Plain(stream),
            Some((connector, name)) => {
                Transport::Secure(Box::new(connector.connect(name, stream).await?))
            }
        }))
    }

    /// Whether what was not taken to be sent cannot have left. TLS may fail after it has sent a part of what it was given.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.0, Transport::Plain(_))
    }

    /// Whether it is open, and nothing has come that nobody asked for.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let tcp = match &mut self.0 {
            Transport::Plain(stream) => stream,
            Transport::Secure(stream) => {
                // TLS takes in what is for itself, such as tickets for the next connection. Whoever uses the connection next polls
                // it again with a waker of its own.
                let mut context = Context::from_waker(Waker::noop());
                let mut byte = [0];
                let read =
                    Pin::new(&mut *stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte));
                if read.is_ready() {
                    return false;
                }
                stream.get_mut().0
            }
        };
        // Asks the system and not tokio, which may not have heard yet that the server closed the connection.
        let mut byte = [MaybeUninit::uninit()];
        let peeked = socket2::SockRef::from(&*tcp).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Secure(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

/// What is written has left only when it was flushed.
impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Secure(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Secure(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Secure(stream) => stream.is_write_vectored(),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
