//! The ports that a node listens on, and those of its peers: whether they are free, whose they are, and whether they can be reached.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::judge::{self, Check};
use super::machine::owner_of;
use crate::config::{Config, ListenAddress, PeerAddress};
use crate::net::listen::listen;

pub(super) fn checks(config: &Config, patience: Duration) -> Vec<Check> {
    let listens = &config.server.listen;
    let mut checks = vec![port("server.listen", listens)];
    if let Some(resp) = &config.server.resp_listen {
        checks.push(port("server.resp_listen", resp));
    }
    let peers = config.cluster.peers.addresses();
    let others: Vec<&PeerAddress> = peers
        .iter()
        .filter(|peer| peer.port != listens.port || !is_here(peer))
        .collect();
    // All at once: of those that do not answer each takes as long as is waited.
    let reached = thread::scope(|scope| {
        let asked: Vec<_> = others
            .iter()
            .map(|peer| scope.spawn(|| reach(peer, patience)))
            .collect();
        let nobody = || Err("it was not asked".to_owned());
        let asked = asked
            .into_iter()
            .map(|asked| asked.join().unwrap_or_else(|_| nobody()));
        asked.collect::<Vec<_>>()
    });
    for (peer, reached) in others.iter().zip(reached) {
        checks.push(judge::peer(&peer.to_string(), &reached));
    }
    checks
}

fn port(name: &str, address: &ListenAddress) -> Check {
    let opened = listen(address.host.as_deref(), address.port);
    let opened = opened.map(drop).map_err(|error| error.to_string());
    let owner = opened.as_ref().err().and_then(|_| owner_of(address.port));
    let shown = match &address.host {
        None => format!("port {}", address.port),
        Some(host) => format!("port {} of {host}", address.port),
    };
    judge::port(name, &shown, &opened, owner.as_ref())
}

fn addresses(peer: &PeerAddress) -> Result<Vec<SocketAddr>, String> {
    let found = (&*peer.host, peer.port).to_socket_addrs();
    let found = found.map_err(|error| format!("its name has no address: {error}"))?;
    Ok(found.collect())
}

/// Whether its address is one of this machine.
fn is_here(peer: &PeerAddress) -> bool {
    let is_ours = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
    let found = addresses(peer);
    found.is_ok_and(|found| found.iter().any(|address| is_ours(address.ip())))
}

/// How long a connection took.
fn reach(peer: &PeerAddress, patience: Duration) -> Result<Duration, String> {
    let mut why = "its name has no address".to_owned();
    for address in addresses(peer)? {
        let started = Instant::now();
        match TcpStream::connect_timeout(&address, patience) {
            Ok(_) => return Ok(started.elapsed()),
            Err(error) => why = format!("no connection to {address}: {error}"),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn ports_and_peers_are_looked_at() {
        // Closed at once.
        let gone = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
        let gone = gone.expect("a port");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let there = listener.local_addr().expect("it has one");
        let mut config = Config::default();
        for (name, value) in [
            ("server.listen", format!("127.0.0.1:{}", there.port())),
            ("server.resp_listen", "127.0.0.1:0".to_owned()),
            (
                "cluster.peers",
                format!("{},127.0.0.1:{},{gone}", there, there.port()),
            ),
        ] {
            assert_eq!(config.set(name, &value), Ok(()));
        }
        let found = checks(&config, Duration::from_mins(1));
        let names: Vec<_> = found
            .iter()
            .map(|check| (&*check.name, check.verdict.word()))
            .collect();
        let gone = format!("peer {gone}");
        // The node's own address is no peer; the first port is this test's.
        assert_eq!(
            names,
            [
                ("server.listen", "bad"),
                ("server.resp_listen", "ok"),
                (&gone, "warn")
            ]
        );
        let owner = format!("(process {})", std::process::id());
        assert!(found[0].found.ends_with(&owner), "{}", found[0].found);
    }
}
