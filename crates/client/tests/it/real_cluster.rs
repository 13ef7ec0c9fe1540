//! The client and a cluster of real Redis servers: keys on all of them, slots that move, a server that dies. Where no server is
//! installed the tests say so on standard error.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use henge_client::{Client, Error, Lifetime, SetOptions};
use tokio::time::{MissedTickBehavior, interval};

use crate::server::DEADLINE;

/// A server that is a cluster by itself, killed when this is dropped.
struct Redis {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
    /// As the cluster calls it.
    id: String,
}

/// Where a server is: in the path, or as the checks of this repository say where they have installed one.
fn program() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|folder| folder.join("redis-server"));
    let installed = env::var_os("VALKEY_SERVER").map(PathBuf::from);
    in_path.chain(installed).find(|program| program.is_file())
}

/// Servers, if the machine has them.
fn start(count: usize, arguments: &[&str]) -> Option<Vec<Redis>> {
    let Some(program) = program() else {
        let needed = env::var("HENGE_TESTS_NEED").unwrap_or_default();
        assert!(
            !needed.contains("valkey-server"),
            "no server is there, and HENGE_TESTS_NEED lists one"
        );
        let _ = writeln!(
            io::stderr(),
            "skipped: redis-server is not installed, so nothing was tried with it"
        );
        return None;
    };
    Some(
        (0..count)
            .map(|_| Redis::start(&program, arguments))
            .collect(),
    )
}

impl Redis {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        // Between the search for a port and its use somebody else may take it; the server ends then, and another is tried.
        let started = (0..10).find_map(|_| Self::start_once(program, arguments));
        started.unwrap_or_else(|| panic!("{} does not start", program.display()))
    }

    fn start_once(program: &Path, arguments: &[&str]) -> Option<Self> {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let (data, bus) = (free(), free());
        let address = data.local_addr().expect("its address");
        let bus_port = bus.local_addr().expect("its address").port();
        drop((data, bus));
        // Each has a file of what it knows of its cluster, which must be nobody else's.
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("redis-{}", address.port()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        let mut child = Command::new(program)
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--cluster-port", &bus_port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--dir", &folder.to_string_lossy()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(began.elapsed() < DEADLINE, "it does not listen");
            if child.try_wait().expect("it can be asked").is_some() {
                return None;
            }
            std::thread::yield_now();
        }
        let mut started = Self {
            child,
            address,
            folder,
            id: String::new(),
        };
        if arguments.contains(&"--cluster-enabled") {
            started.id = started.call("CLUSTER MYID");
        }
        Some(started)
    }

    fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// The reply to an inline command, without its first line if that is a length.
    fn call(&self, line: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        write!(stream, "{line}\r\nQUIT\r\n").expect("it reads");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("it answers");
        let reply = reply.strip_suffix("+OK\r\n").expect("the reply to QUIT");
        assert!(!reply.starts_with('-'), "{line}: {reply}");
        match reply.strip_prefix('$') {
            Some(bulk) => bulk.split_once("\r\n").expect("a length").1.trim_end(),
            None => reply.trim_end(),
        }
        .to_owned()
    }

    /// How many requests it has sent elsewhere.
    fn redirections(&self) -> u64 {
        let stats = self.call("INFO errorstats");
        let of = |name: &str| {
            let rest = stats.split(&format!("errorstat_{name}:count=")).nth(1);
            rest.map_or(0, |rest| {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                digits.parse().expect("a count")
            })
        };
        of("MOVED") + of("ASK")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut pace = interval(Duration::from_millis(20));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < DEADLINE, "{what}");
        pace.tick().await;
    }
}

/// A cluster: the first three share the slots, others own nothing.
async fn cluster(count: usize) -> Option<Vec<Redis>> {
    // A second until a server that is silent is taken for dead.
    let timeout = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
    let servers = start(count, &timeout)?;
    for (place, slots) in ["0 5460", "5461 10922", "10923 16383"].iter().enumerate() {
        servers[place].call(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
    }
    for (place, server) in servers.iter().enumerate() {
        server.call(&format!("CLUSTER SET-CONFIG-EPOCH {}", place + 1));
        let bus = server.call("CONFIG GET cluster-port");
        let bus = bus.lines().last().expect("a value");
        let port = server.address.port();
        servers[0].call(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"));
    }
    until("the cluster forms", async || {
        servers.iter().all(|server| {
            let info = server.call("CLUSTER INFO");
            info.contains("cluster_state:ok")
                && info.contains(&format!("cluster_known_nodes:{count}\r"))
        })
    })
    .await;
    Some(servers)
}

#[tokio::test]
async fn keys_are_on_all_servers() {
    let Some(servers) = cluster(3).await else {
        return;
    };
    // Any of them tells the map.
    for server in &servers {
        let client = Client::connect(&server.url()).await.expect("it listens");
        for number in 0..300 {
            let (key, value) = (format!("key:{number}"), number.to_string());
            let stored = client.set(&key, &value, SetOptions::new()).await;
            assert!(stored.expect("stored"), "{key}");
            let found = client.get(&key).await.expect("answered");
            assert_eq!(found.as_deref(), Some(value.as_bytes()), "{key}");
        }
        assert_eq!(client.incr("counter", 1).await.expect("counted"), 1);
        let lifetime = client.ttl("counter").await.expect("answered");
        assert_eq!(lifetime, Lifetime::Unlimited);
        assert!(client.del("counter").await.expect("deleted"));
        client.ping().await.expect("somebody answers");
    }
    for server in &servers {
        let size = server.call("DBSIZE");
        let size: u32 = size.trim_start_matches(':').parse().expect("a number");
        assert!((50..200).contains(&size), "{size}");
        assert_eq!(server.redirections(), 0, "each went to its owner at once");
    }
    let client = Client::connect(&servers[2].url())
        .await
        .expect("it listens");
    let mut scan = client.scan("key:*").page_keys(50);
    let mut found = Vec::new();
    while let Some(keys) = scan.next_page().await.expect("answered") {
        found.extend(keys);
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 300);
}

#[tokio::test]
async fn slots_may_move() {
    let Some(servers) = cluster(3).await else {
        return;
    };
    let (key, slot) = ("foo", 12_182);
    let (from, to) = (&servers[2], &servers[0]);
    let client = Client::connect(&from.url()).await.expect("it listens");
    let old = client.set("{foo}old", "o", SetOptions::new()).await;
    assert!(old.expect("stored"));
    to.call(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", from.id));
    from.call(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", to.id));
    // What is there stays there as yet; what is not is asked for, and made, where the slot goes.
    for value in ["a", "b"] {
        let stored = client.set(key, value, SetOptions::new()).await;
        assert!(stored.expect("stored"));
        let found = client.get("{foo}old").await.expect("answered");
        assert_eq!(found.as_deref(), Some(&b"o"[..]));
        let found = client.get(key).await.expect("answered");
        assert_eq!(found.as_deref(), Some(value.as_bytes()));
    }
    assert_eq!(from.redirections(), 4, "each time anew");
    assert_eq!(to.call(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), ":1");

    let port = to.address.port();
    from.call(&format!("MIGRATE 127.0.0.1 {port} {{foo}}old 0 5000"));
    to.call(&format!("CLUSTER SETSLOT {slot} NODE {}", to.id));
    from.call(&format!("CLUSTER SETSLOT {slot} NODE {}", to.id));
    for key in ["foo", "{foo}old", "foo", "{foo}old"] {
        assert!(client.get(key).await.expect("answered").is_some());
    }
    assert_eq!(from.redirections(), 5, "once");
    // A client that comes later knows.
    let client = Client::connect(&servers[1].url())
        .await
        .expect("it listens");
    assert!(client.get(key).await.expect("answered").is_some());
    assert_eq!(from.redirections(), 5);
}

/// The last server becomes a replica of the first, which is killed. The client is told by nobody; it finds the new owner.
#[tokio::test]
async fn a_server_may_die() {
    let Some(mut servers) = cluster(4).await else {
        return;
    };
    let master = servers[0].id.clone();
    let replica = servers.pop().expect("there are four");
    replica.call(&format!("CLUSTER REPLICATE {master}"));
    // Its slot is 5061, of the first.
    let client = Client::connect(&servers[1].url())
        .await
        .expect("it listens");
    assert!(
        client
            .set("bar", "v", SetOptions::new())
            .await
            .expect("stored")
    );
    until("the replica has it", async || {
        replica.call("DBSIZE") == ":1"
            && replica.call("INFO replication").contains("link_status:up")
    })
    .await;
    // Before they know of a replica they would not vote for it.
    until("all know of the replica", async || {
        let knows = |server: &Redis| {
            server
                .call("CLUSTER NODES")
                .contains(&format!("slave {master}"))
        };
        servers.iter().all(knows)
    })
    .await;
    servers[0].child.kill().expect("it runs");
    servers[0].child.wait().expect("it ends");
    let mut last = None;
    until("the replica has taken over", async || {
        match client.get("bar").await {
            Ok(value) => {
                assert_eq!(value.as_deref(), Some(&b"v"[..]));
                true
            }
            Err(error @ (Error::Connect { .. } | Error::Refused { .. } | Error::Unanswered(_))) => {
                last = Some(error);
                false
            }
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    assert!(
        client
            .set("bar", "w", SetOptions::new())
            .await
            .expect("stored"),
        "{last:?}"
    );
    let found = replica.call("READONLY\r\nGET bar");
    assert!(found.ends_with('w'), "{found}");
}

/// One that is no cluster is used as it is.
#[tokio::test]
async fn a_server_by_itself() {
    let Some(servers) = start(1, &[]) else {
        return;
    };
    let client = Client::connect(&servers[0].url())
        .await
        .expect("it listens");
    assert!(
        client
            .set("foo", "v", SetOptions::new())
            .await
            .expect("stored")
    );
    let found = client.get("foo").await.expect("answered");
    assert_eq!(found.as_deref(), Some(&b"v"[..]));
}
