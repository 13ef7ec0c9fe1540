//! `henge dev`, as a shell runs it: a cluster of processes that goes with the command, whatever ends it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::client::Client;
use crate::durability::Resp;
use crate::resp_reply::Reply;

const NODES: u16 = 3;

/// A command, with a directory for temporary files of its own.
pub(crate) struct Dev {
    child: Child,
    temporary: PathBuf,
    stdout: BufReader<ChildStdout>,
}

/// Ports that nobody has, below those that the system draws: another sixteen for each process, and each test.
pub(crate) fn free_ports(test: u16) -> u16 {
    let process = (std::process::id() % 700) as u16 * 32;
    let mut first = 10_000 + process + test * 16;
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    while !(first..first + NODES).all(is_free) {
        first = 10_000 + (first - 10_000 + 32) % 22_400;
    }
    first
}

impl Dev {
    pub(crate) fn start(port: u16) -> Self {
        let name = format!("dev-{}-{port}", std::process::id());
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&temporary).expect("a directory");
        let mut child = Command::new(env!("CARGO_BIN_EXE_henge"))
            .args(["dev", "--nodes", "3", "--port", &port.to_string()])
            .args(["--set", "cache.max_size_bytes=64MiB"])
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // As a shell has it, whose Ctrl-C all of them hear.
            .process_group(0)
            .spawn()
            .expect("the process starts");
        let stdout = child.stdout.take().expect("it is piped");
        Self {
            child,
            temporary,
            stdout: BufReader::new(stdout),
        }
    }

    /// What it prints up to a line that ends so.
    pub(crate) fn lines_to(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.trim_end().ends_with(end) {
            let read = self.stdout.read_line(&mut text).expect("it is text");
            assert!(read > 0, "it ended: {text}");
        }
        text
    }

    /// Its exit code, and its errors.
    fn wait(&mut self) -> (Option<i32>, String) {
        let mut errors = String::new();
        let stderr = self.child.stderr.as_mut().expect("it is piped");
        stderr.read_to_string(&mut errors).expect("it is text");
        (self.child.wait().expect("it ends").code(), errors)
    }

    fn has_left_nothing(&self) -> bool {
        let mut left = fs::read_dir(&self.temporary).expect("it is there");
        left.next().is_none()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Of a test that failed it still runs, and stops its nodes. Once waited for, its number may be another's.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

#[test]
fn three_nodes_in_one_command() {
    let port = free_ports(0);
    let mut dev = Dev::start(port);
    let text = dev.lines_to("Ctrl-C stops them.");
    let addresses: Vec<SocketAddr> = (port..port + NODES)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .collect();
    let mut processes = Vec::new();
    for (nth, address) in addresses.iter().enumerate() {
        let node = format!("  node{}  http://{address}  process ", nth + 1);
        let (_, rest) = text.split_once(&node).expect("each node has a line");
        let (process, _) = rest.split_once('\n').expect("it ends");
        processes.push(process.parse().expect("a number"));
    }
    assert!(!dev.has_left_nothing());
    for (nth, address) in addresses.iter().enumerate() {
        let key = format!("k{nth}");
        let set = Resp::connect(*address).ask(&format!("SET {key} v"));
        assert_eq!(set, Reply::Text("OK".to_owned()));
        for other in &addresses {
            let found = Resp::connect(*other).ask(&format!("GET {key}"));
            assert_eq!(found, Reply::Text("v".to_owned()));
            let response = Client::connect(*other).get(&format!("/get?key={key}"));
            assert_eq!(response.json()["value"], "v");
        }
    }
    let second = Pid::from_raw(processes[1]).expect("a process");
    kill_process(second, Signal::KILL).expect("it runs");
    let told = dev.lines_to("(SIGKILL)");
    assert!(told.starts_with("node2 has ended: "), "{told}");
    let group = Pid::from_child(&dev.child);
    kill_process_group(group, Signal::INT).expect("it runs");
    let (code, errors) = dev.wait();
    assert_eq!((code, &*errors), (Some(0), ""));
    assert!(dev.has_left_nothing());
    for address in addresses {
        assert!(Client::try_connect(address).is_err());
    }
}

#[test]
fn a_port_in_use_is_told_and_nothing_is_left() {
    let port = free_ports(1);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).expect("it is free");
    let mut dev = Dev::start(port);
    let (code, errors) = dev.wait();
    assert_eq!(code, Some(1));
    let address = taken.local_addr().expect("its address");
    let expected = format!("henge: no node can listen on {address}: ");
    assert!(
        errors.starts_with(&expected) && errors.lines().count() == 1,
        "{errors}"
    );
    assert!(dev.has_left_nothing());
    assert!(Client::try_connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_err());
}
