//! Clusters of real processes on this machine: how they form, what each failure does, and that any of them answers any key.
//! Each test has addresses of its own on the loopback, so that the ports are the same for all.

mod backup;
mod clients;
pub(crate) mod dev;
mod faults;
mod figures;
mod forming;
mod keys;
mod links;
mod losses;
mod moves;
mod network;
mod partitions;
mod raw_peer;
mod recovery;
mod replicas;
mod restore;
mod secrets;
mod settings;
mod strangers;

use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) use self::moves::all_is_settled;
use self::network::Network;
use crate::client::{Client, DATA_VARIABLE, DEADLINE, data_directory};
use crate::durability::Resp;
use crate::resp_reply::Reply;

/// The port of all nodes, each at an address of its own.
const PORT: u16 = 7000;

/// How often a node is asked whether something is so.
const POLL: Duration = Duration::from_millis(10);

/// Nodes by their numbers, from 1 on, and their data.
pub(crate) struct Ring {
    data: PathBuf,
    /// The third byte of their addresses.
    net: u8,
    nodes: Vec<Option<Child>>,
    settings: Vec<String>,
    /// A network of their own, if they have one.
    network: Option<Network>,
}

impl Ring {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        Self {
            data: data_directory(),
            net: NEXT.fetch_add(1, Ordering::Relaxed),
            nodes: Vec::new(),
            // Where a test does not say otherwise a node's keys are its own.
            settings: vec!["cluster.replication_factor=1".to_owned()],
            network: None,
        }
    }

    /// Nodes in a network of their own, where each is a machine by itself.
    pub(crate) fn over(network: Network) -> Self {
        let mut ring = Self::new();
        ring.network = Some(network);
        ring
    }

    /// The network of their own.
    pub(crate) fn network(&self) -> &Network {
        self.network.as_ref().expect("it was made over one")
    }

    /// Does something on a node's machine.
    fn beside<T: Send>(&self, n: usize, work: impl FnOnce() -> T + Send) -> T {
        match &self.network {
            Some(network) => network.inside(n, work),
            None => work(),
        }
    }

    /// A setting of all nodes that are started from now on, in place of what was set before.
    pub(crate) fn set(mut self, setting: &str) -> Self {
        let name = setting.split('=').next();
        self.settings
            .retain(|other| other.split('=').next() != name);
        self.settings.push(setting.to_owned());
        self
    }

    /// A cluster of so many, formed.
    pub(crate) fn formed(self, count: usize) -> Self {
        let mut ring = self;
        for n in 1..=count {
            ring.start(n, &ring.others(n, count));
        }
        ring.wait_until_ready(1..=count);
        ring
    }

    /// A command of `henge cluster` that asks a node, to its end.
    pub(crate) fn command(&self, n: usize, words: &[&str]) -> Output {
        let (word, rest) = words.split_first().expect("a command");
        Command::new(env!("CARGO_BIN_EXE_henge"))
            .args(["cluster", word, "--url"])
            .arg(format!("http://{}", self.address(n)))
            .args(rest)
            .env_clear()
            .output()
            .expect("the binary of this build runs")
    }

    /// Where a node listens. The second byte tells this process's nodes from those of another.
    pub(crate) fn address(&self, n: usize) -> SocketAddr {
        if self.network.is_some() {
            return Network::address(n);
        }
        let process = 64 + (std::process::id() % 128) as u8;
        let n = u8::try_from(n).expect("few nodes");
        SocketAddr::from((Ipv4Addr::new(127, process, self.net, n), PORT))
    }

    /// All of so many but this one, as `--peers` takes them.
    pub(crate) fn others(&self, n: usize, count: usize) -> String {
        let others = (1..=count).filter(|other| *other != n);
        let addresses: Vec<String> = others
            .map(|other| format!("http://{}", self.address(other)))
            .collect();
        addresses.join(",")
    }

    pub(crate) fn start(&mut self, n: usize, peers: &str) {
        self.start_as(n, &format!("node{n}"), peers);
    }

    /// Starts a node under a name; without peers it is none of a cluster, or goes back to its own.
    pub(crate) fn start_as(&mut self, n: usize, name: &str, peers: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path(n))
            .expect("a file for the log");
        command
            .arg(format!("--port={}", self.address(n)))
            .args(["--max-size=64MiB", "--node-id", name])
            .env(DATA_VARIABLE, &self.data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if !peers.is_empty() {
            command.args(["--peers", peers]);
        }
        if self.network.is_some() {
            // Clients come from the router, as from another machine.
            command.args(["--set", "security.protected_mode=false"]);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let own = self.config_path(n);
        if own.exists() {
            command.arg("--config").arg(own);
        }
        if self.nodes.len() < n {
            self.nodes.resize_with(n, || None);
        }
        assert!(self.nodes[n - 1].is_none(), "node {n} runs already");
        let child = self.beside(n, || command.spawn());
        self.nodes[n - 1] = Some(child.expect("the process starts"));
    }

    /// The file of a node's own settings, which it reads if there is one when it starts.
    fn config_path(&self, n: usize) -> PathBuf {
        self.data.join(format!("config{n}.toml"))
    }

    /// Where a node keeps its files.
    pub(crate) fn directory(&self, n: usize) -> PathBuf {
        self.data.join(format!("node{n}"))
    }

    fn log_path(&self, n: usize) -> PathBuf {
        fs::create_dir_all(&self.data).expect("a directory");
        self.data.join(format!("log{n}"))
    }

    /// What a node has logged.
    pub(crate) fn log(&self, n: usize) -> String {
        let mut text = String::new();
        if let Ok(mut file) = fs::File::open(self.data.join(format!("log{n}"))) {
            file.read_to_string(&mut text).expect("the log is text");
        }
        text
    }

    /// The memory that a node has, in bytes.
    pub(crate) fn memory(&self, n: usize) -> u64 {
        let path = format!("/proc/{}/status", self.running(n).id());
        let status = fs::read_to_string(path).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        let kib: u64 = number.and_then(|n| n.parse().ok()).expect("a number");
        kib * 1024
    }

    /// A figure of a node, as `/metrics` has it.
    pub(crate) fn figure(&self, n: usize, name: &str) -> u64 {
        let page = self.http(n).get("/metrics").text();
        let lines = page.lines();
        let mut found = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let figure = found.next().unwrap_or_else(|| panic!("no {name}"));
        let figure = figure.strip_suffix(".0").unwrap_or(figure);
        figure.parse().expect("it is a number")
    }

    fn running(&self, n: usize) -> &Child {
        let node = self.nodes.get(n - 1).and_then(Option::as_ref);
        node.expect("the node runs")
    }

    pub(crate) fn signal(&self, n: usize, signal: Signal) {
        let process = Pid::from_child(self.running(n));
        kill_process(process, signal).expect("it runs");
    }

    /// Kills a node, as a power cut of its process does.
    pub(crate) fn kill(&mut self, n: usize) {
        self.signal(n, Signal::KILL);
        self.wait(n);
    }

    /// Has a node end in order.
    pub(crate) fn stop(&mut self, n: usize) {
        self.signal(n, Signal::TERM);
        self.wait(n);
    }

    /// Whether a node's process has not ended.
    pub(crate) fn is_running(&mut self, n: usize) -> bool {
        let node = self.nodes[n - 1].as_mut().expect("the node runs");
        node.try_wait().expect("it is ours").is_none()
    }

    fn wait(&mut self, n: usize) {
        let node = self.nodes[n - 1].take();
        node.expect("the node runs").wait().expect("it ends");
    }

    pub(crate) fn http(&self, n: usize) -> Client {
        self.try_http(n).expect("the node listens")
    }

    fn try_http(&self, n: usize) -> io::Result<Client> {
        let address = self.address(n);
        self.beside(n, || Client::try_connect(address))
    }

    pub(crate) fn resp(&self, n: usize) -> Resp {
        let address = self.address(n);
        self.beside(n, || Resp::connect(address))
    }

    /// Asks one node one thing.
    pub(crate) fn ask(&self, n: usize, command: &str) -> Reply {
        self.resp(n).ask(command)
    }

    /// What a node says of a member; nothing where it knows of none of that name.
    pub(crate) fn member(&self, n: usize, of: usize) -> Value {
        let status = self.status(n);
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let name = format!("node{of}");
        let found = members.into_iter().find(|member| member["name"] == *name);
        found.unwrap_or_default()
    }

    /// What a node says of its cluster; nothing while it does not listen.
    pub(crate) fn status(&self, n: usize) -> Value {
        let answer = self.try_http(n).ok().and_then(|mut client| {
            client
                .send(b"GET /cluster/status HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .ok()?;
            client.try_response(true).ok()
        });
        answer.map_or(Value::Null, |answer| answer.json())
    }

    /// The lines of `CLUSTER NODES` of a node: names in the order of their numbers are not in it, so the addresses are shown.
    pub(crate) fn members(&self, n: usize) -> Vec<(SocketAddr, bool)> {
        let Reply::Text(text) = self.ask(n, "CLUSTER NODES") else {
            return Vec::new();
        };
        let mut members: Vec<(SocketAddr, bool)> = text
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let address = words[1].split('@').next().unwrap_or_default();
                let is_down = words[2].contains("fail");
                (address.parse().expect("an address"), !is_down)
            })
            .collect();
        members.sort_unstable();
        members
    }

    /// Waits until something is so, and says what was not if it never is.
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so() {
            if Instant::now() > deadline {
                let logs: Vec<String> = (1..=self.nodes.len())
                    .map(|n| format!("== node {n}\n{}", self.log(n)))
                    .collect();
                panic!("it is never so: {what}\n{}", logs.join("\n"));
            }
            // Asked without a pause it would have no time for anything else.
            std::thread::park_timeout(POLL);
        }
    }

    /// Whether a node says that it is ready.
    pub(crate) fn is_ready(&self, n: usize) -> bool {
        let answer = self.try_http(n).ok().and_then(|mut client| {
            client
                .send(b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .ok()?;
            client.try_response(true).ok()
        });
        answer.is_some_and(|answer| answer.status == 200)
    }

    pub(crate) fn wait_until_ready(&self, nodes: impl IntoIterator<Item = usize>) {
        for n in nodes {
            self.until(&format!("node {n} is ready"), || self.is_ready(n));
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            // It may have ended already.
            let _ = node.kill();
            let _ = node.wait();
        }
        let _ = fs::remove_dir_all(&self.data);
    }
}
