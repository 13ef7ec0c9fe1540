//! A network for nodes, of network namespaces: one for each node, and a router between them that can be told to drop what one
//! sends to another, without a word to either. Made by iproute2, and removed with this, also after a panic; what a run leaves that
//! was killed the next one removes. `cargo xtask bench failover` has this file as well, so it knows nothing of the tests.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The port of all nodes, each of which has an address of its own. Nobody else uses it there.
const PORT: u16 = 7000;
/// Where iproute2 keeps namespaces.
const FOLDER: &str = "/run/netns";
/// What the names begin with. The number of the process follows.
const PREFIX: &str = "henge-test-";

/// See the head of the file.
pub(crate) struct Network {
    name: String,
    nodes: usize,
}

impl Network {
    /// A network for so many nodes.
    ///
    /// # Errors
    /// Why this machine cannot have one.
    pub(crate) fn new(nodes: usize) -> Result<Self, String> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_left);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = Self {
            name: format!("{PREFIX}{}-{number}-", std::process::id()),
            nodes,
        };
        let router = network.router();
        ip(&format!("netns add {router}\n"))?;
        for n in 1..=nodes {
            let node = network.of(n);
            network.must(&format!(
                "netns add {node}\nlink add to{n} netns {router} type veth peer name eth netns {node}\n"
            ));
        }
        for n in 1..=nodes {
            network.must_in(
                &router,
                &format!("link set to{n} up\naddr add 10.0.{n}.1/24 dev to{n}\n"),
            );
            network.must_in(
                &network.of(n),
                &format!(
                    "link set lo up\nlink set eth up\naddr add {}/24 dev eth\nroute add default via 10.0.{n}.1\n",
                    host(n)
                ),
            );
        }
        in_namespace(&router, || {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a router forwards");
        });
        Ok(network)
    }

    /// Where a node listens: a port is the same for all, as each has an address of its own.
    pub(crate) fn address(n: usize) -> SocketAddr {
        SocketAddr::from((host(n), PORT))
    }

    /// Does something where a node is: sockets that it opens, and processes that it starts, stay there.
    pub(crate) fn inside<T: Send>(&self, n: usize, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.of(n), work)
    }

    /// The same where it reaches all of them, and is cut off from none.
    #[allow(dead_code, reason = "the tests ask nodes from where they are")]
    pub(crate) fn amidst<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.router(), work)
    }

    /// Pulls a node's cable, of which all are told that send to it.
    pub(crate) fn unplug(&self, n: usize) {
        self.must_in(&self.router(), &format!("link set to{n} down\n"));
    }

    pub(crate) fn plug_in(&self, n: usize) {
        self.must_in(&self.router(), &format!("link set to{n} up\n"));
    }

    /// Has all that one node sends to another be lost, TCP and UDP, and nobody told.
    pub(crate) fn lose(&self, from: usize, to: usize) {
        self.rule("add", from, to, "");
    }

    /// Ends that.
    pub(crate) fn pass(&self, from: usize, to: usize) {
        self.rule("del", from, to, "");
    }

    /// The same for one protocol, `tcp` or `udp`.
    pub(crate) fn lose_only(&self, protocol: &str, from: usize, to: usize) {
        self.rule("add", from, to, &format!("ipproto {protocol}"));
    }

    pub(crate) fn pass_only(&self, protocol: &str, from: usize, to: usize) {
        self.rule("del", from, to, &format!("ipproto {protocol}"));
    }

    fn rule(&self, action: &str, from: usize, to: usize, what: &str) {
        let (from, to) = (host(from), host(to));
        let rule = format!("rule {action} from {from} to {to} {what} blackhole\n");
        self.must_in(&self.router(), &rule);
    }

    fn router(&self) -> String {
        format!("{}router", self.name)
    }

    fn of(&self, n: usize) -> String {
        format!("{}node{n}", self.name)
    }

    fn must(&self, orders: &str) {
        ip(orders).unwrap_or_else(|why| panic!("{}: {orders}{why}", self.name));
    }

    fn must_in(&self, namespace: &str, orders: &str) {
        in_namespace(namespace, || self.must(orders));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in (1..=self.nodes).map(|n| self.of(n)).chain([self.router()]) {
            // It may not have come to be.
            let _ = ip(&format!("netns del {name}\n"));
        }
    }
}

fn host(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, u8::try_from(n).expect("few nodes"), 2)
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
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that has ended already says why.
    let _ = stdin.write_all(orders.as_bytes());
    drop(stdin);
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// Does something in a namespace, on a thread of its own: the namespace is one of a thread.
fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(Path::new(FOLDER).join(name)).expect("the namespace is there");
    let done = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network).expect("root may go there");
            work()
        });
        thread.join()
    });
    done.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Removes the namespaces of runs that are over.
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
