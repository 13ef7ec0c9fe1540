//! Three nodes on this machine, each of which has a replica of every partition, and those that join them. Who starts them says what else
//! they are set to.

use super::Result;
use super::network::Network;
use super::ring::{address, status, wait_until};
use super::server::Server;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub(super) const NODES: usize = 3;

/// See the head of the file.
pub(super) struct Three<'a> {
    pub(super) servers: Vec<Server>,
    pub(super) addresses: Vec<SocketAddr>,
    /// Where each is on a machine of its own; none where all are on this one.
    network: Option<&'a Network>,
    binary: PathBuf,
    settings: Vec<String>,
}

impl<'a> Three<'a> {
    /// Starts them at addresses whose last numbers begin with this one, and waits until each knows all to be up.
    pub(super) fn start(binary: &Path, first: u8, settings: &[&str]) -> Result<Self> {
        let addresses = (0..NODES).map(|n| address(first + n as u8)).collect();
        Self::start_at(addresses, None, binary, settings)
    }

    /// The same in a network, whose nodes count from 1 on. Whoever asks them has to be [amidst](Network::amidst) it.
    pub(super) fn start_in(network: &'a Network, binary: &Path, settings: &[&str]) -> Result<Self> {
        let addresses = (1..=NODES).map(Network::address).collect();
        Self::start_at(addresses, Some(network), binary, settings)
    }

    fn start_at(
        addresses: Vec<SocketAddr>,
        network: Option<&'a Network>,
        binary: &Path,
        settings: &[&str],
    ) -> Result<Self> {
        let mut three = Self {
            servers: Vec::new(),
            addresses,
            network,
            binary: binary.to_path_buf(),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
        };
        for n in 0..NODES {
            let (at, flags) = (three.addresses[n], three.flags(n));
            let server = inside(network, n, || Server::member(binary, &name(n), at, &flags))?;
            three.servers.push(server);
        }
        three.settle()?;
        Ok(three)
    }

    fn flags(&self, n: usize) -> Vec<String> {
        let others = self.addresses.iter().enumerate();
        let others = others.filter(|(other, _)| *other != n);
        let others: Vec<String> = others.map(|(_, at)| at.to_string()).collect();
        let mut flags = vec!["--peers".to_owned(), others.join(",")];
        let settings = self.settings.iter().map(String::as_str);
        // In a network of their own, from which clients come as from another machine.
        let open = self.network.map(|_| "security.protected_mode=false");
        for setting in settings.chain(["cluster.replication_factor=3"]).chain(open) {
            flags.extend(["--set".to_owned(), setting.to_owned()]);
        }
        flags
    }

    /// Starts one again with its data, and waits as at the start.
    pub(super) fn restart(&mut self, n: usize) -> Result<()> {
        let flags = self.flags(n);
        let at = self.addresses[n];
        let (network, binary) = (self.network, &self.binary);
        let server = &mut self.servers[n];
        inside(network, n, || {
            server.restart_member(binary, &name(n), at, &flags)
        })?;
        self.settle()
    }

    /// Starts one more on this machine, which joins by what it is told of those that are there. Waits for nothing but that it listens.
    pub(super) fn join(&mut self, at: SocketAddr) -> Result<()> {
        let n = self.servers.len();
        self.addresses.push(at);
        let flags = self.flags(n);
        let server = Server::member(&self.binary, &name(n), at, &flags)?;
        self.servers.push(server);
        Ok(())
    }

    /// Waits until each knows all to be up, and to lead what they are to.
    pub(super) fn settle(&self) -> Result<()> {
        for at in &self.addresses {
            wait_until(*at, "knows all to be up and to lead", |status| {
                let members = status["members"].as_array();
                let are_up = members.is_some_and(|all| {
                    let is_up = |member: &Value| member["state"] == "up";
                    all.len() == self.servers.len() && all.iter().all(is_up)
                });
                are_up && status["moves"]["partitions_to_hand_over"] == 0
            })?;
        }
        Ok(())
    }

    /// How often what all agree on has changed.
    pub(super) fn epoch(&self) -> Result<u64> {
        let status = status(self.addresses[0])?;
        status["epoch"].as_u64().ok_or_else(|| "no epoch".into())
    }
}

/// Does something where a node is.
fn inside<T: Send>(
    network: Option<&Network>,
    n: usize,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    match network {
        None => work(),
        Some(network) => {
            let work = || work().map_err(|error| error.to_string());
            Ok(network.inside(n + 1, work)?)
        }
    }
}

/// What a node is called.
pub(super) fn name(n: usize) -> String {
    format!("node{n}")
}
