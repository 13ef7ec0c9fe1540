//! The nodes of a run, each a process of this very binary with a directory of its own, and what can be done to them. They end with
//! this, in whatever state they are; no other process is touched.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use super::network::Network;
use super::options::Own;
use super::request::Connection;
use crate::encryption::random_number;

/// The port of all nodes, each at an address of its own: a node that is away for a while finds it free when it comes back.
pub(super) const PORT: u16 = 7000;

/// Memory of a node that is to hold all of a run's keys, and of one that is to be always full.
const SIZE: &str = "64MiB";
/// Items of a node that is to be always full: some few times the keys of a round, so that these are evicted too, and are there for a while.
const FULL_ITEMS: &str = "200";

/// Nodes by their numbers, from 0.
#[derive(Debug)]
pub(super) struct Nodes {
    own: Own,
    directory: PathBuf,
    /// The directory stays where somebody may want to look into it.
    keeps: bool,
    addresses: Vec<SocketAddr>,
    all: Vec<Node>,
    settings: Vec<String>,
    network: Option<Arc<Network>>,
}

#[derive(Debug, Default)]
struct Node {
    child: Option<Child>,
    is_paused: bool,
    /// It was told to end.
    is_ending: bool,
}

impl Nodes {
    /// Places for nodes, and none of them started.
    pub(super) fn new(own: &Own, needs_network: bool) -> Result<Self, String> {
        let network = needs_network
            .then(|| Network::new(own.nodes).map(Arc::new))
            .transpose()?;
        let addresses = match &network {
            Some(_) => (0..own.nodes).map(Network::address).collect(),
            None => free_addresses(own.nodes)?,
        };
        let name = format!(
            "henge-verify-{}-{:08x}",
            std::process::id(),
            random_number() as u32
        );
        let directory = std::env::temp_dir().join(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(|error| format!("{} cannot be made: {error}", directory.display()))?;
        let mut nodes = Self {
            own: own.clone(),
            directory,
            keeps: false,
            addresses,
            all: (0..own.nodes).map(|_| Node::default()).collect(),
            settings: Vec::new(),
            network,
        };
        nodes.settings = nodes.all_settings()?;
        Ok(nodes)
    }

    /// What every node is set to: what the run needs, and over it what was asked for.
    fn all_settings(&self) -> Result<Vec<String>, String> {
        let own = &self.own;
        let mut settings: BTreeMap<String, String> = BTreeMap::new();
        let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
        set("cache.max_size_bytes", SIZE.to_owned());
        set("persistence.enabled", own.is_persistent.to_string());
        // Clients keep their connections; who stops a node does not wait for them.
        set("server.shutdown_timeout_ms", "2000".to_owned());
        if let Some(replicas) = own.replicas {
            set("cluster.replication_factor", replicas.to_string());
        }
        if own.evicts {
            set("cache.max_items", FULL_ITEMS.to_owned());
            // By chance, as the keys of a run are the most used, and by their use they would stay.
            set("cache.policy", "random".to_owned());
        }
        if self.network.is_some() {
            // It is a network of this run's own, in which clients are on another machine than any node.
            set("security.protected_mode", "false".to_owned());
            // Nodes on several machines need one.
            let secret = self.directory.join("secret");
            let text = [(); 4]
                .map(|()| format!("{:016x}", random_number()))
                .concat();
            let file = fs::OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&secret);
            file.and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(|error| format!("{} cannot be written: {error}", secret.display()))?;
            set("cluster.secret_file", secret.display().to_string());
        }
        for setting in &own.settings {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            settings.insert(name.to_owned(), value.to_owned());
        }
        let settings = settings.into_iter();
        Ok(settings
            .map(|(name, value)| format!("{name}={value}"))
            .collect())
    }

    /// How its nodes are reached.
    pub(super) fn places(&self) -> Places {
        Places {
            hosts: self
                .addresses
                .iter()
                .map(|address| (address.ip().to_string(), address.port()))
                .collect(),
            network: self.network.clone(),
        }
    }

    pub(super) fn network(&self) -> Option<Arc<Network>> {
        self.network.clone()
    }

    /// Where their files and logs are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Leaves the directory when this goes.
    pub(super) fn keep(&mut self) {
        self.keeps = true;
    }

    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// Starts a node that does not run.
    pub(super) fn start(&mut self, n: usize) -> Result<(), String> {
        let cannot = |error: io::Error| format!("node{} cannot be started: {error}", n + 1);
        let program = std::env::current_exe().map_err(cannot)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path(n))
            .map_err(cannot)?;
        let peers: Vec<String> = self
            .addresses
            .iter()
            .map(|address| format!("http://{address}"))
            .collect();
        let mut command = Command::new(program);
        command
            .args(["serve", "--port", &self.addresses[n].to_string()])
            .args(["--node-id", &format!("node{}", n + 1)])
            .args(["--peers", &peers.join(","), "--log-level", "info"])
            .arg("--data-dir")
            .arg(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for this process, which ends them.
            .process_group(0);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let child = match &self.network {
            Some(network) => network.inside(n, || command.spawn()).flatten(),
            None => command.spawn(),
        };
        self.all[n] = Node {
            child: Some(child.map_err(cannot)?),
            ..Node::default()
        };
        Ok(())
    }

    /// Whether its process is there and goes on.
    pub(super) fn is_running(&self, n: usize) -> bool {
        let node = &self.all[n];
        node.child.is_some() && !node.is_paused && !node.is_ending
    }

    /// How a node has ended that nobody has ended; it is told once.
    pub(super) fn ended(&mut self) -> Option<(usize, ExitStatus)> {
        for (n, node) in self.all.iter_mut().enumerate() {
            if !node.is_ending
                && let Some(child) = &mut node.child
                && let Ok(Some(status)) = child.try_wait()
            {
                node.child = None;
                return Some((n, status));
            }
        }
        None
    }

    fn signal(&self, n: usize, signal: Signal) -> bool {
        // It is not waited for yet, so its number is still its own.
        let process = self.all[n].child.as_ref().map(Pid::from_child);
        process.is_some_and(|process| kill_process(process, signal).is_ok())
    }

    /// Kills a node, as a power cut of its process does.
    pub(super) fn kill(&mut self, n: usize) {
        if let Some(mut child) = self.all[n].child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Tells a node to end in order.
    pub(super) fn stop(&mut self, n: usize) {
        self.all[n].is_ending = self.signal(n, Signal::TERM);
    }

    /// Whether it has ended, after it was told to.
    pub(super) fn is_over(&mut self, n: usize) -> bool {
        let child = &mut self.all[n].child;
        if let Some(running) = child
            && matches!(running.try_wait(), Ok(Some(_)))
        {
            *child = None;
        }
        child.is_none()
    }

    /// Stops its process, or lets it go on.
    pub(super) fn pause(&mut self, n: usize, is_paused: bool) {
        let signal = if is_paused {
            Signal::STOP
        } else {
            Signal::CONT
        };
        self.all[n].is_paused = self.signal(n, signal) && is_paused;
    }

    /// Throws its directory away. It must not run.
    pub(super) fn wipe(&self, n: usize) -> Result<(), String> {
        let directory = self.directory.join(format!("node{}", n + 1));
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!(
                "{} cannot be removed: {error}",
                directory.display()
            )),
            _ => Ok(()),
        }
    }

    fn log_path(&self, n: usize) -> PathBuf {
        self.directory.join(format!("node{}.log", n + 1))
    }

    /// The last line that a node has logged.
    pub(super) fn last_words(&self, n: usize) -> String {
        let text = fs::read(self.log_path(n)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines()
            .last()
            .unwrap_or("it logged nothing")
            .to_owned()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for n in 0..self.all.len() {
            self.kill(n);
        }
        if !self.keeps
            && let Err(error) = fs::remove_dir_all(&self.directory)
        {
            let _ = writeln!(
                io::stderr(),
                "henge: {} was not removed: {error}",
                self.directory.display()
            );
        }
    }
}

/// Addresses on the loopback at which nobody listens, all of one net, so that they are told apart by their last number.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, String> {
    /// As many runs, or whatever else is there, may be in the way of one.
    const TRIES: u32 = 64;
    let mut why = String::new();
    for _ in 0..TRIES {
        let random = random_number();
        // The lower half is for others on this machine who do the same.
        let (second, third) = (192 + (random % 62) as u8, (random >> 8) as u8);
        let addresses: Vec<SocketAddr> = (1..=count)
            .map(|n| SocketAddr::from((Ipv4Addr::new(127, second, third, n as u8), PORT)))
            .collect();
        let taken = addresses
            .iter()
            .find_map(|address| Some((address, TcpListener::bind(address).err()?)));
        match taken {
            None => return Ok(addresses),
            Some((address, error)) => why = format!("{address}: {error}"),
        }
    }
    Err(format!("no free addresses on the loopback: {why}"))
}

/// How nodes are reached, by their numbers from 0.
#[derive(Clone, Debug)]
pub(super) struct Places {
    hosts: Vec<(String, u16)>,
    network: Option<Arc<Network>>,
}

impl Places {
    /// Of nodes that run already.
    pub(super) fn of(hosts: Vec<(String, u16)>) -> Self {
        Self {
            hosts,
            network: None,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.hosts.len()
    }

    /// A connection to a node, if there is one within so long.
    pub(super) async fn connect(&self, n: usize, timeout: Duration) -> Result<Connection, String> {
        let (host, port) = &self.hosts[n];
        let stream = match &self.network {
            // What is opened within a namespace stays there.
            Some(network) => {
                let network = Arc::clone(network);
                let opened = tokio::task::spawn_blocking(move || {
                    let address = Network::address(n);
                    network
                        .inside(n, || {
                            std::net::TcpStream::connect_timeout(&address, timeout)
                        })
                        .flatten()
                });
                let opened = opened.await.map_err(|error| error.to_string())?;
                let stream = opened.and_then(|stream| {
                    stream.set_nonblocking(true)?;
                    TcpStream::from_std(stream)
                });
                stream.map_err(|error| error.to_string())?
            }
            None => tokio::time::timeout(timeout, TcpStream::connect((host.as_str(), *port)))
                .await
                .map_err(|_| format!("no connection within {timeout:?}"))?
                .map_err(|error| error.to_string())?,
        };
        let name = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        Connection::over(stream, name).await
    }
}
