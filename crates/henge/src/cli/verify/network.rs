//! A network for nodes that are to be cut off from each other, of network namespaces: one for each node, and a router between them that
//! drops what it is told to, without a word to either side. Nodes say their own addresses to each other and take datagrams and connections
//! on them, so that a proxy between two of them would have to know their protocols; a router need not. It is made by iproute2, needs
//! root, and is removed with this.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::nodes::PORT;

/// Where iproute2 keeps namespaces.
const FOLDER: &str = "/run/netns";
/// What the names begin with. The number of the process follows.
const PREFIX: &str = "henge-verify-";

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Network {
    name: String,
    nodes: usize,
}

impl Network {
    /// A network for so many nodes.
    pub(super) fn new(nodes: usize) -> Result<Self, String> {
        remove_left();
        let network = Self {
            name: format!("{PREFIX}{}-", std::process::id()),
            nodes,
        };
        // From here on what there is of it goes when this does.
        network.make().map_err(|why| {
            format!("--partition needs network namespaces, by iproute2 and as root; they cannot be made: {why}")
        })?;
        Ok(network)
    }

    fn make(&self) -> Result<(), String> {
        let router = self.router();
        ip(&format!("netns add {router}\n"))?;
        for n in 0..self.nodes {
            let node = self.of(n);
            ip(&format!(
                "netns add {node}\nlink add to{n} netns {router} type veth peer name eth netns {node}\n"
            ))?;
        }
        for n in 0..self.nodes {
            let (node, gate) = (host(n), gate(n));
            inside(&router, || {
                ip(&format!(
                    "link set to{n} up\naddr add {gate}/24 dev to{n}\n"
                ))
            })??;
            inside(&self.of(n), || {
                ip(&format!(
                    "link set lo up\nlink set eth up\naddr add {node}/24 dev eth\nroute add default via {gate}\n"
                ))
            })??;
        }
        inside(&router, || fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?
            .map_err(|error| format!("the router does not forward: {error}"))
    }

    /// Where a node listens.
    pub(super) fn address(n: usize) -> SocketAddr {
        SocketAddr::from((host(n), PORT))
    }

    /// Does something where a node is: sockets that it opens, and processes that it starts, stay there.
    pub(super) fn inside<T: Send>(
        &self,
        n: usize,
        work: impl FnOnce() -> T + Send,
    ) -> io::Result<T> {
        inside(&self.of(n), work).map_err(io::Error::other)
    }

    /// Has all that one node sends to another be lost, and nobody told.
    pub(super) fn lose(&self, from: usize, to: usize) -> Result<(), String> {
        self.rule("add", from, to)
    }

    /// Ends that.
    pub(super) fn pass(&self, from: usize, to: usize) -> Result<(), String> {
        self.rule("del", from, to)
    }

    fn rule(&self, action: &str, from: usize, to: usize) -> Result<(), String> {
        let rule = format!(
            "rule {action} from {} to {} blackhole\n",
            host(from),
            host(to)
        );
        inside(&self.router(), || ip(&rule))?
    }

    fn router(&self) -> String {
        format!("{}router", self.name)
    }

    fn of(&self, n: usize) -> String {
        format!("{}node{}", self.name, n + 1)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in (0..self.nodes).map(|n| self.of(n)).chain([self.router()]) {
            if Path::new(FOLDER).join(&name).exists()
                && let Err(why) = ip(&format!("netns del {name}\n"))
            {
                let _ = writeln!(
                    io::stderr(),
                    "henge: the namespace {name} was not removed: {why}"
                );
            }
        }
    }
}

/// The networks are within namespaces, so that no address is taken from this machine's.
fn host(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, n as u8 + 1, 2)
}

fn gate(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, n as u8 + 1, 1)
}

/// Has iproute2 do these things, one a line.
fn ip(orders: &str) -> Result<(), String> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("ip: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended already says why.
        let _ = stdin.write_all(orders.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr)
            .trim()
            .replace('\n', ": "))
    }
}

/// Does something in a namespace, on a thread of its own: the namespace is one of a thread.
fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    let namespace = File::open(Path::new(FOLDER).join(name))
        .map_err(|error| format!("the namespace {name} cannot be opened: {error}"))?;
    let done = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| format!("the namespace {name} cannot be entered: {error}"))?;
            Ok(work())
        });
        thread.join()
    });
    done.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Removes the namespaces of runs that were killed.
fn remove_left() {
    for entry in Path::new(FOLDER).read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !PathBuf::from(format!("/proc/{process}")).exists()) {
            // Another run may be removing it as well.
            let _ = ip(&format!("netns del {name}\n"));
        }
    }
}
