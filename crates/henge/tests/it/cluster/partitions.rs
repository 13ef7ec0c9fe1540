//! What each failure of the network does: nodes in network namespaces of their own, cut off from each other by a cable that is
//! pulled, in silence, or in one direction only. What heals must need no hand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::network::Network;
use super::{POLL, Ring};
use crate::client::{Response, skipped};
use crate::resp_reply::Reply;

/// No client waits longer for what is said within 5 s: generous, as it is only ever reached when a test fails.
const HANG: Duration = Duration::from_secs(30);
/// How long a network that stays as it is is looked at: some ten elections, if there were one after the other.
const WHILE: Duration = Duration::from_secs(12);
/// Keys of each node: one for each of three that write all the time, and three that are written by the test.
const KEYS: usize = 6;

/// A file with a secret, made of a word.
fn secret(ring: &Ring, word: &str) -> PathBuf {
    fs::create_dir_all(&ring.data).expect("a directory");
    let path = ring.data.join(format!("secret-{word}"));
    fs::write(&path, word.repeat(32)).expect("written");
    let owner = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&path, owner).expect("it is ours");
    path
}

/// Nodes that are to have a secret, in a network for so many; none where there can be no network.
pub(super) fn machines(count: usize) -> Option<Ring> {
    let network = Network::new(count);
    let skip = |why| {
        let what = format!("no nodes are cut off from each other: {why}");
        skipped("iproute2", &what);
    };
    let ring = Ring::over(network.map_err(skip).ok()?);
    let path = secret(&ring, "same");
    Some(ring.set(&format!("cluster.secret_file={}", path.display())))
}

/// Keys of three nodes, by their holders: of node n at n - 1.
fn keys(ring: &Ring) -> [Vec<String>; 3] {
    let mut keys: [Vec<String>; 3] = Default::default();
    let mut client = ring.http(1);
    for n in 0.. {
        let key = format!("key{n}");
        let place = client.get(&format!("/cluster/ring?key={key}")).json();
        let holder = numbered(&place["holder"]["name"]).expect("all keys are placed");
        let its = &mut keys[holder - 1];
        if its.len() < KEYS {
            its.push(key);
        }
        if keys.iter().all(|its| its.len() == KEYS) {
            break;
        }
    }
    keys
}

fn numbered(name: &Value) -> Option<usize> {
    name.as_str()?.strip_prefix("node")?.parse().ok()
}

fn leader(ring: &Ring, n: usize) -> Option<usize> {
    numbered(&ring.status(n)["leader"])
}

/// The leader that all of these name.
pub(super) fn agreed_leader(ring: &Ring, nodes: &[usize]) -> usize {
    let mut found = None;
    ring.until("all name the same leader", || {
        found = leader(ring, nodes[0]);
        found.is_some() && nodes.iter().all(|n| leader(ring, *n) == found)
    });
    found.expect("it was just found")
}

fn set(ring: &Ring, n: usize, key: &str, value: &str) -> Reply {
    ring.ask(n, &format!("SET {key} {value}"))
}

fn ok() -> Reply {
    Reply::Text("OK".to_owned())
}

fn http(ring: &Ring, n: usize, key: &str) -> Response {
    ring.http(n).get(&format!("/cache/{key}"))
}

/// A node says of another's key who has it, and why that is not asked.
fn assert_refused(ring: &Ring, n: usize, key: &str, holder: usize, why: &str) {
    let at = format!(
        "node{holder} at {}, which has this key",
        ring.address(holder)
    );
    for command in [format!("GET {key}"), format!("SET {key} x")] {
        let expected = format!("CLUSTERDOWN {at}, {why}; nothing was done");
        assert_eq!(ring.ask(n, &command), Reply::Error(expected));
    }
    let response = http(ring, n, key);
    assert_eq!((response.status, &*response.code()), (503, "owner_down"));
    assert!(response.text().contains(&at), "{}", response.text());
}

/// All see all as members that are up and can be reached, and serve all keys; nobody was started anew for that.
fn wait_until_healed(ring: &Ring, nodes: usize, keys: &[Vec<String>], cluster: &Value) {
    for n in 1..=nodes {
        ring.until("all are up again", || {
            let status = ring.status(n);
            let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
            let is_up = |member: &Value| member["state"] == "up" && member["is_reachable"] == true;
            // What the other half held for down may be heard once more before it is put right: both pages have to say so at once.
            members.len() == nodes
                && members.iter().all(is_up)
                && ring.members(n).iter().all(|(_, is_up)| *is_up)
        });
    }
    let everybody: Vec<usize> = (1..=nodes).collect();
    agreed_leader(ring, &everybody);
    for n in everybody {
        assert_eq!(&ring.status(n)["cluster"], cluster);
        for key in keys.iter().flat_map(|its| &its[3..]) {
            ring.until("all keys are served by all", || {
                set(ring, n, key, "healed") == ok()
            });
        }
    }
}

/// Clients that read and write all keys, one on each node, and say if what they are told is not true. Each has keys of its own.
struct Traffic<'a> {
    ends: &'a AtomicBool,
    ring: &'a Ring,
    keys: &'a [Vec<String>],
}

/// What a client was told of its writes to one key.
#[derive(Clone, Debug, Default)]
struct Told {
    /// The last that was done.
    done: Option<u64>,
    /// Those after it that may have been.
    unknown: Vec<u64>,
}

impl Told {
    fn allows(&self, found: &Reply) -> bool {
        let found = match found {
            Reply::Null => None,
            Reply::Text(text) => Some(text.parse().expect("a number was written")),
            other => panic!("{other:?} for a value"),
        };
        found == self.done || found.is_some_and(|found| self.unknown.contains(&found))
    }
}

impl Traffic<'_> {
    /// Of one node, until it is told to end: what it was told of the keys of each holder.
    fn of(&self, n: usize) -> [Told; 3] {
        let mut told: [Told; 3] = Default::default();
        let mut client = self.ring.resp(n);
        let stream = client.0.get_ref();
        stream.set_read_timeout(Some(HANG)).expect("a time-out");
        for count in 0.. {
            for (at, its) in self.keys.iter().enumerate() {
                let (key, told) = (&its[n - 1], &mut told[at]);
                match client.ask(&format!("SET {key} {count}")) {
                    Reply::Error(error) if error.starts_with("CLUSTERDOWN node") => {
                        assert!(error.ends_with("nothing was done"), "{error}");
                    }
                    Reply::Error(error) => {
                        assert!(error.starts_with("UNKNOWN node"), "{error}");
                        told.unknown.push(count);
                    }
                    reply => {
                        assert_eq!(reply, ok());
                        told.done = Some(count);
                        told.unknown.clear();
                    }
                }
                match client.ask(&format!("GET {key}")) {
                    // What is read is never unknown.
                    Reply::Error(error) => {
                        assert!(error.starts_with("CLUSTERDOWN node"), "{error}");
                    }
                    found => assert!(told.allows(&found), "node {n}: {key} {found:?}, {told:?}"),
                }
            }
            if self.ends.load(Ordering::Relaxed) {
                break;
            }
            // Asked without a pause the nodes would have no time for each other.
            thread::park_timeout(POLL);
        }
        told
    }
}

/// Does something while clients read and write, and looks at the end whether all that they were told is so.
fn under_traffic(ring: &Ring, keys: &[Vec<String>], work: impl FnOnce()) {
    /// Ends the clients also when the work fails.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    for key in keys.iter().flatten() {
        ring.until("what was there is gone", || {
            ring.ask(1, &format!("EXISTS {key}")) == Reply::Integer(0)
                || ring.ask(1, &format!("DEL {key}")) == Reply::Integer(1)
        });
    }
    let ends = AtomicBool::new(false);
    let ends = &ends;
    let told: Vec<[Told; 3]> = thread::scope(|scope| {
        let clients: Vec<_> = (1..=3)
            .map(|n| scope.spawn(move || Traffic { ends, ring, keys }.of(n)))
            .collect();
        let end = End(ends);
        work();
        drop(end);
        let clients = clients.into_iter();
        clients
            .map(|client| client.join().expect("it was told what is so"))
            .collect()
    });
    for (by, told) in told.iter().enumerate() {
        for (at, told) in told.iter().enumerate() {
            for n in 1..=3 {
                let key = &keys[at][by];
                let mut found = Reply::Null;
                // A thread that has asked nothing since the network healed may find only now that its connection is dead.
                ring.until("it is served", || {
                    found = ring.ask(n, &format!("GET {key}"));
                    !matches!(&found, Reply::Error(error) if error.starts_with("CLUSTERDOWN node"))
                });
                assert!(told.allows(&found), "node {n}: {key} {found:?}, {told:?}");
            }
        }
    }
}

/// How often a node has become the control leader.
fn elections(ring: &Ring) -> usize {
    let logs = (1..=3).map(|n| ring.log(n));
    logs.map(|log| log.matches("is the control leader").count())
        .sum()
}

/// What is so while one node cannot be reached: the two others go on, and each side says what it cannot do.
fn look_at_both_sides(ring: &Ring, keys: &[Vec<String>], lost: usize) {
    let rest: Vec<usize> = (1..=3).filter(|n| *n != lost).collect();
    for n in &rest {
        ring.until("the majority has the lost one down", || {
            ring.members(*n).contains(&(ring.address(lost), false))
                && ring.member(*n, lost)["state"] == "down"
        });
    }
    assert_ne!(agreed_leader(ring, &rest), lost);
    for n in &rest {
        for other in &rest {
            assert_eq!(set(ring, *n, &keys[other - 1][3], "majority"), ok());
        }
        assert_refused(ring, *n, &keys[lost - 1][3], lost, "is down");
        assert!(ring.log(*n).contains(&format!(
            "node{lost} at {} cannot be reached, and is down",
            ring.address(lost)
        )));
    }
    ring.until("the lost one knows that it is alone", || {
        let members = ring.members(lost);
        rest.iter()
            .all(|n| members.contains(&(ring.address(*n), false)))
    });
    ring.until("the lost one has no leader", || {
        ring.status(lost)["leader"].is_null()
    });
    for n in &rest {
        assert_eq!(ring.member(lost, *n)["is_reachable"], false);
        assert_refused(ring, lost, &keys[n - 1][3], *n, "does not answer this node");
    }
    assert_eq!(set(ring, lost, &keys[lost - 1][4], "minority"), ok());
    assert_eq!(http(ring, lost, &keys[lost - 1][4]).status, 200);
    let Reply::Text(info) = ring.ask(lost, "CLUSTER INFO") else {
        panic!("it says how it is");
    };
    assert!(info.contains("cluster_state:fail"), "{info}");
    assert!(!info.contains("cluster_slots_pfail:0"), "{info}");
}

fn starts(ring: &Ring) -> Vec<Value> {
    let of = |n| ring.member(n, n)["incarnation"].clone();
    (1..=3).map(of).collect()
}

/// Cuts one node off, looks, and heals the network again.
fn cut_off(
    ring: &Ring,
    lost: usize,
    cut: impl FnOnce(&Network, usize),
    heal: impl FnOnce(&Network, usize),
) {
    let keys = keys(ring);
    let (cluster, starts_before) = (ring.status(1)["cluster"].clone(), starts(ring));
    under_traffic(ring, &keys, || {
        cut(ring.network(), lost);
        look_at_both_sides(ring, &keys, lost);
        heal(ring.network(), lost);
        wait_until_healed(ring, 3, &keys, &cluster);
    });
    for n in 1..=3 {
        let found = ring.ask(n, &format!("GET {}", keys[lost - 1][4]));
        assert_eq!(found, Reply::Text("healed".to_owned()));
    }
    assert_eq!(starts(ring), starts_before);
}

/// Between one of three nodes and the others one protocol is lost, and the other one passes.
fn lose_protocol(protocol: &'static str, is_down: bool) {
    let Some(ring) = machines(3) else { return };
    let ring = ring.formed(3);
    let keys = keys(&ring);
    let (cluster, starts_before) = (ring.status(1)["cluster"].clone(), starts(&ring));
    let lost = agreed_leader(&ring, &[1, 2, 3]);
    let rest: Vec<usize> = (1..=3).filter(|n| *n != lost).collect();
    under_traffic(&ring, &keys, || {
        for n in &rest {
            ring.network().lose_only(protocol, lost, *n);
            ring.network().lose_only(protocol, *n, lost);
        }
        for n in &rest {
            ring.until("its keys are refused", || {
                matches!(set(&ring, *n, &keys[lost - 1][3], "x"), Reply::Error(error)
                    if error.starts_with(&format!("CLUSTERDOWN node{lost} at ")))
            });
            for other in &rest {
                assert_eq!(set(&ring, *n, &keys[other - 1][3], "rest"), ok());
            }
            ring.until("it is down if it is not heard", || {
                ring.member(*n, lost)["is_reachable"] != is_down
            });
        }
        // Raft has connections, and gossip datagrams; who is to decide needs both.
        ring.until("another leads", || agreed_leader(&ring, &rest) != lost);
        for n in &rest {
            ring.network().pass_only(protocol, lost, *n);
            ring.network().pass_only(protocol, *n, lost);
        }
        wait_until_healed(&ring, 3, &keys, &cluster);
    });
    assert_eq!(starts(&ring), starts_before);
}

#[test]
fn only_datagrams_are_lost() {
    lose_protocol("udp", true);
}

#[test]
fn only_connections_are_lost() {
    lose_protocol("tcp", false);
}

fn follower(ring: &Ring) -> usize {
    let leader = agreed_leader(ring, &[1, 2, 3]);
    if leader == 1 { 2 } else { 1 }
}

#[test]
fn a_cable_is_pulled() {
    let Some(ring) = machines(3) else { return };
    let ring = ring.formed(3);
    cut_off(&ring, follower(&ring), Network::unplug, Network::plug_in);
    let leader = agreed_leader(&ring, &[1, 2, 3]);
    cut_off(&ring, leader, Network::unplug, Network::plug_in);
}

/// Nothing passes between one of three nodes and the others.
fn lose_all(network: &Network, n: usize) {
    for other in (1..=3).filter(|other| *other != n) {
        network.lose(n, other);
        network.lose(other, n);
    }
}

fn pass_all(network: &Network, n: usize) {
    for other in (1..=3).filter(|other| *other != n) {
        network.pass(n, other);
        network.pass(other, n);
    }
}

#[test]
fn a_node_falls_silent() {
    let Some(ring) = machines(3) else { return };
    let ring = ring.formed(3);
    cut_off(&ring, follower(&ring), lose_all, pass_all);
    let leader = agreed_leader(&ring, &[1, 2, 3]);
    cut_off(&ring, leader, lose_all, pass_all);
}

#[test]
fn what_was_given_up_does_not_come_later() {
    let Some(ring) = machines(3) else { return };
    let ring = ring.formed(3);
    let key = &keys(&ring)[2][0];
    let mut client = ring.resp(1);
    assert_eq!(client.ask(&format!("SET {key} first")), ok());
    lose_all(ring.network(), 3);
    let Reply::Error(error) = client.ask(&format!("SET {key} late")) else {
        panic!("nothing comes to the third");
    };
    assert!(error.starts_with("UNKNOWN node3 at "), "{error}");
    pass_all(ring.network(), 3);
    // The system would send it again within this.
    let end = Instant::now() + WHILE;
    for count in 0.. {
        assert_eq!(set(&ring, 3, key, &count.to_string()), ok());
        let found = ring.ask(3, &format!("GET {key}"));
        assert_eq!(found, Reply::Text(count.to_string()));
        if Instant::now() > end {
            break;
        }
        thread::park_timeout(POLL);
    }
}

/// One way is cut, for a while in which nothing else changes, and heals.
fn cut_one_way(ring: &Ring, from: usize, to: usize) {
    let keys = keys(ring);
    let (cluster, starts_before) = (ring.status(1)["cluster"].clone(), starts(ring));
    let third = 6 - from - to;
    let before = elections(ring);
    // Their threads have connections to the other side already.
    let mut clients: Vec<_> = [(from, to), (to, from)]
        .map(|(n, other)| (n, ring.resp(n), format!("SET {} void", keys[other - 1][4])))
        .into();
    for (n, client, command) in &mut clients {
        assert_eq!(client.ask(command), ok(), "node {n}");
    }
    under_traffic(ring, &keys, || {
        ring.network().lose(from, to);
        for (n, client, command) in &mut clients {
            ring.until("it is known that nothing gets through", || {
                let reply = client.ask(command);
                let Reply::Error(error) = reply else {
                    panic!("node {n}: {reply:?}");
                };
                error.starts_with("CLUSTERDOWN node")
            });
        }
        // This is the failure itself, and not a wait for something.
        let end = Instant::now() + WHILE;
        while Instant::now() < end {
            for key in keys.iter().map(|its| &its[3]) {
                assert_eq!(set(ring, third, key, "third"), ok(), "{key}");
            }
            for n in [from, to] {
                assert_eq!(set(ring, n, &keys[n - 1][3], "own"), ok());
                assert_eq!(set(ring, n, &keys[third - 1][3], "own"), ok());
            }
            thread::park_timeout(POLL);
        }
        let lost = elections(ring) - before;
        ring.network().pass(from, to);
        wait_until_healed(ring, 3, &keys, &cluster);
        println!(
            "node{from} is not heard by node{to}: {lost} elections, then {}",
            elections(ring) - before - lost
        );
        assert!(lost <= ELECTIONS, "{lost} elections");
    });
    assert_eq!(starts(ring), starts_before);
}

/// How often another may lead while one way is cut, however long that lasts: a follower that does not hear its leader asks for
/// votes, and may get that of a leader that hears it for as long as their old connection lasts.
const ELECTIONS: usize = 3;

#[test]
fn one_way_is_cut() {
    let Some(ring) = machines(3) else { return };
    let ring = ring.formed(3);
    let of = |ring: &Ring| {
        let leader = agreed_leader(ring, &[1, 2, 3]);
        let others: Vec<usize> = (1..=3).filter(|n| *n != leader).collect();
        (leader, others[0], others[1])
    };
    let (leader, first, _) = of(&ring);
    cut_one_way(&ring, leader, first);
    let (leader, _, second) = of(&ring);
    cut_one_way(&ring, second, leader);
    let (_, first, second) = of(&ring);
    cut_one_way(&ring, first, second);
}

#[test]
fn nodes_come_while_one_is_cut_off() {
    let Some(ring) = machines(5) else { return };
    let mut ring = ring.formed(3);
    let keys = keys(&ring);
    let cluster = ring.status(1)["cluster"].clone();
    let lost = agreed_leader(&ring, &[1, 2, 3]);
    let majority = if lost == 1 { 2 } else { 1 };
    assert_eq!(set(&ring, majority, &keys[lost - 1][3], "kept"), ok());
    // The fourth is with the majority, the fifth with the one that is alone.
    let (with_lost, with_rest): (Vec<usize>, Vec<usize>) =
        (1..=5).partition(|n| *n == lost || *n == 5);
    let ways = |ring: &Ring, change: fn(&Network, usize, usize)| {
        for one in &with_lost {
            for other in &with_rest {
                change(ring.network(), *one, *other);
                change(ring.network(), *other, *one);
            }
        }
    };
    ways(&ring, Network::lose);
    ring.start(4, &format!("http://{}", ring.address(majority)));
    ring.wait_until_ready([4]);
    assert_eq!(ring.status(4)["cluster"], cluster);
    ring.start(5, &format!("http://{}", ring.address(lost)));
    ring.until("the fifth is told why it cannot join", || {
        let waits = ring.status(5)["waits"].to_string();
        waits.contains("the cluster has no control leader now")
    });
    // The one that is alone is started anew: it cannot be sure of what it has.
    ring.kill(lost);
    ring.start(lost, "http://127.0.0.1:1");
    ring.until("it says for whom it waits", || {
        !ring.status(lost)["waits"].is_null()
    });
    assert!(!ring.is_ready(lost));
    for n in (1..=3).filter(|n| *n != lost) {
        ring.until("the majority refuses its keys", || {
            matches!(set(&ring, n, &keys[lost - 1][3], "x"), Reply::Error(error)
                if error.starts_with(&format!("CLUSTERDOWN node{lost} ")))
        });
    }
    ring.until("it refuses them itself, and says why", || {
        matches!(set(&ring, lost, &keys[lost - 1][3], "x"), Reply::Error(error)
            if error.starts_with("CLUSTERDOWN this node is not in its cluster yet: "))
    });
    ways(&ring, Network::pass);
    ring.wait_until_ready(1..=5);
    for n in 1..=5 {
        let found = || ring.ask(n, &format!("GET {}", keys[lost - 1][3]));
        ring.until("what it had is there", || {
            found() == Reply::Text("kept".to_owned())
        });
    }
    wait_until_healed(&ring, 5, &keys, &cluster);
}

#[test]
fn strangers_are_told_what_to_do() {
    let Some(ring) = machines(3) else { return };
    let ring = ring.formed(2);
    let other = secret(&ring, "other");
    let mut ring = ring.set(&format!("cluster.secret_file={}", other.display()));
    ring.start(3, &ring.others(3, 3));
    ring.until("who has another secret is told so", || {
        let waits = ring.status(3)["waits"].to_string();
        waits.contains(
            "does not have the secret of the cluster; all nodes need the same cluster.secret_file",
        )
    });
    assert!(!ring.is_ready(3));
    let from = Network::address(3).ip().to_string();
    for n in 1..=2 {
        ring.until("the members say who was refused, and why", || {
            let log = ring.log(n);
            let mut lines = log.lines().filter(|line| line.contains("WARN"));
            lines.any(|line| {
                line.contains("node3") && line.contains(&from) && line.contains("secret")
            })
        });
        let log = ring.log(n);
        let lines = log.lines().filter(|line| line.contains("WARN")).count();
        assert!(lines < 5, "a node that tries for ever fills no log:\n{log}");
    }
    ring.kill(3);
    // One that has none, and members that have one.
    let mut ring = ring.set("cluster.secret_file=none");
    ring.start(3, &ring.others(3, 3));
    ring.until("who has no secret is told so", || {
        let waits = ring.status(3)["waits"].to_string();
        waits.contains("it does not have the secret of this node's cluster; give it the same cluster.secret_file")
    });
    ring.kill(3);
    // Nobody has one.
    for n in 1..=2 {
        ring.kill(n);
        ring.start(n, "");
    }
    ring.start(3, &ring.others(3, 3));
    ring.until("without a secret only one machine's nodes meet", || {
        let waits = ring.status(3)["waits"].to_string();
        waits.contains("a node without cluster.secret_file takes only nodes of its own machine")
            && waits.contains("give all nodes the same cluster.secret_file")
    });
    assert!(!ring.is_ready(3));
}
