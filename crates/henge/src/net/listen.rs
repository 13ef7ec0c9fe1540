//! Opening the port: addresses, socket options, and errors that say what to do. It accepts nothing.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

use super::handles;

/// Connections that wait to be accepted. The kernel cuts it to `net.core.somaxconn`, 4096 on Linux since 5.4.
pub(crate) const BACKLOG: i32 = 4096;

/// What the system takes of an answer before any of it is sent; connections have it of the port that they came to. The system would by itself
/// take megabytes for a client that reads nothing: milliseconds of copying for each, and memory that no limit of ours counts. It is
/// some times what a thread writes at once, so that no client that reads waits for that.
const UNSENT_BYTES: u32 = 128 * 1024;

/// Why the port could not be opened.
#[derive(Debug)]
pub struct ListenError {
    /// What was to be listened on, as it was given.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, source } = self;
        write!(f, "cannot listen on {address}: ")?;
        match source.kind() {
            io::ErrorKind::AddrInUse => f.write_str(
                "the port is in use by another process; stop that, or choose another with --port",
            ),
            io::ErrorKind::PermissionDenied => f.write_str(
                "permission denied; ports below 1024 are for root, or choose another with --port",
            ),
            io::ErrorKind::AddrNotAvailable => {
                f.write_str("this machine has no such address; check `ip addr`")
            }
            _ => match handles::explained(source) {
                Some(line) => f.write_str(&line),
                None => write!(f, "{source}"),
            },
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Listens on a host, or on all interfaces if there is none: on `[::]` for IPv6 and IPv4 together, on `0.0.0.0` where
/// the machine has no IPv6.
pub(crate) fn listen(host: Option<&str>, port: u16) -> Result<TcpListener, ListenError> {
    let failed = |source| ListenError {
        address: match host {
            None => format!(":{port}"),
            Some(host) if host.contains(':') => format!("[{host}]:{port}"),
            Some(host) => format!("{host}:{port}"),
        },
        source,
    };
    let Some(host) = host else {
        return match open(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
            Ok(listener) => Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(failed(error)),
            Err(_) => open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).map_err(failed),
        };
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs().map_err(failed)? {
        match open(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    // A restarted node must not wait for the connections of the one before it to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
