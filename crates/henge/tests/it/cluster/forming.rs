//! How nodes find each other: in every order, a fourth, all at once again, and who is refused.

use super::Ring;
use crate::resp_reply::Reply;

/// All orders of three.
const ORDERS: [[usize; 3]; 6] = [
    [1, 2, 3],
    [1, 3, 2],
    [2, 1, 3],
    [2, 3, 1],
    [3, 1, 2],
    [3, 2, 1],
];

/// The cluster that a node is in.
fn cluster(ring: &Ring, n: usize) -> String {
    let status = ring.status(n);
    status["cluster"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn three_form_one_cluster_in_every_order() {
    for order in ORDERS {
        let mut ring = Ring::new();
        let [first, second, third] = order;
        ring.start(first, &ring.others(first, 3));
        // The next one is started when this one waits for it, which is seconds later for a machine.
        ring.until("the first waits", || {
            ring.status(first)["waits"]
                .to_string()
                .contains("nobody answers")
        });
        assert!(!ring.is_ready(first));
        ring.start(second, &ring.others(second, 3));
        let silent = format!("nobody answers at {}", ring.address(third));
        for n in [first, second] {
            ring.until("both wait for the third alone", || {
                let waits = ring.status(n)["waits"].to_string();
                waits.contains(&silent) && waits.matches("nobody").count() == 1
            });
            assert!(!ring.is_ready(n), "{order:?}");
        }
        let Reply::Error(error) = ring.ask(first, "GET k") else {
            panic!("it serves no keys yet");
        };
        assert!(
            error.starts_with("CLUSTERDOWN this node is not in its cluster yet"),
            "{error}"
        );
        ring.start(third, &ring.others(third, 3));
        ring.wait_until_ready(1..=3);
        let clusters: Vec<String> = (1..=3).map(|n| cluster(&ring, n)).collect();
        assert!(
            clusters
                .iter()
                .all(|id| *id == clusters[0] && id.len() == 32),
            "{order:?}: {clusters:?}"
        );
        for n in 1..=3 {
            assert_eq!(ring.members(n).len(), 3, "{order:?}");
        }
    }
}

#[test]
fn a_fourth_joins_by_naming_any_member() {
    let mut ring = Ring::new().formed(3);
    let before = cluster(&ring, 1);
    ring.start(4, &format!("http://{}", ring.address(2)));
    ring.wait_until_ready([4]);
    assert_eq!(cluster(&ring, 4), before);
    for n in 1..=4 {
        ring.until("all know four members", || ring.members(n).len() == 4);
    }
    // It holds nothing, and answers any key.
    assert_eq!(ring.ask(4, "SET k v"), Reply::Text("OK".to_owned()));
    assert_eq!(ring.ask(1, "GET k"), Reply::Text("v".to_owned()));
    let slots = |n| match ring.ask(n, "CLUSTER NODES") {
        Reply::Text(text) => text
            .lines()
            .find(|line| line.contains("myself"))
            .map_or(0, |line| line.split(' ').skip(8).count()),
        other => panic!("{other:?}"),
    };
    assert_eq!(slots(4), 0);
    assert!(slots(1) > 0);
}

#[test]
fn all_are_started_again_and_find_the_same_cluster() {
    let mut ring = Ring::new().formed(3);
    let before = cluster(&ring, 1);
    assert_eq!(
        ring.ask(1, "MSET a 1 b 2 c 3 d 4"),
        Reply::Text("OK".to_owned())
    );
    for n in 1..=3 {
        ring.kill(n);
    }
    // What `--peers` says now is of no use.
    for n in 1..=3 {
        ring.start(n, "http://127.0.0.1:1");
    }
    ring.wait_until_ready(1..=3);
    for n in 1..=3 {
        assert_eq!(cluster(&ring, n), before);
        for (key, value) in [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")] {
            ring.until("what was written is there", || {
                ring.ask(n, &format!("GET {key}")) == Reply::Text(value.to_owned())
            });
        }
    }
}

/// Nothing of its data outlives its process, and its place in the cluster does.
#[test]
fn a_node_without_persistence_comes_back_empty() {
    let mut ring = Ring::new().set("persistence.enabled=false").formed(3);
    let before = cluster(&ring, 1);
    let keys: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    for key in &keys {
        assert_eq!(
            ring.ask(1, &format!("SET {key} v")),
            Reply::Text("OK".to_owned())
        );
    }
    ring.kill(2);
    ring.start(2, &ring.others(2, 3));
    ring.wait_until_ready([2]);
    assert_eq!(cluster(&ring, 2), before);
    let mut missing = 0;
    for key in &keys {
        ring.until("each key is served again", || {
            match ring.ask(1, &format!("GET {key}")) {
                Reply::Text(value) => {
                    assert_eq!(value, "v");
                    true
                }
                Reply::Null => {
                    missing += 1;
                    true
                }
                _ => false,
            }
        });
    }
    assert!(missing > 0 && missing < keys.len(), "{missing}");
}

/// A datagram does not say which cluster it is of; who drops it says where it came from, once.
#[test]
fn datagrams_of_no_member_are_told_once() {
    let ring = Ring::new().formed(1);
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let event = |ring: &Ring| {
        let page = ring.http(1).get("/cluster/events").json();
        let all = page["events"].as_array().cloned().unwrap_or_default();
        let mut all = all.into_iter();
        all.find(|event| event["kind"] == "datagrams_dropped")
    };
    // In the clear, of this version, and with the checksum of another cluster.
    ring.until("it is told", || {
        let sent = stranger.send_to(&[1, 0, 0, 0, 0, 0, 7, 7], ring.address(1));
        sent.expect("it is sent");
        event(&ring).is_some()
    });
    let text = event(&ring).expect("it was there")["text"].to_string();
    assert!(
        text.contains("datagrams from 127.0.0.1 are dropped"),
        "{text}"
    );
    assert!(text.contains(&cluster(&ring, 1)), "{text}");
    let told = ring
        .log(1)
        .matches("datagrams of another node are dropped")
        .count();
    assert_eq!(told, 1, "{}", ring.log(1));
}

#[test]
fn each_shows_of_others_what_they_show_of_themselves() {
    let ring = Ring::new().formed(2);
    let memory = |asked: usize, of: usize| {
        let status = ring.status(asked);
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let member = members
            .iter()
            .find(|member| member["name"] == format!("node{of}"));
        member.and_then(|member| member["memory_bytes"].as_u64())
    };
    // A process without a key has some megabytes, and its cache some kilobytes.
    let own = memory(2, 2).expect("it knows itself");
    ring.until("its load is heard", || {
        memory(1, 2).is_some_and(|bytes| bytes > 0)
    });
    let heard = memory(1, 2).expect("it was heard");
    assert!(heard > own / 2 && heard < own * 2, "{heard} {own}");
}

#[test]
fn a_node_by_itself_is_a_cluster_that_others_join() {
    let mut ring = Ring::new();
    ring.start(1, "");
    ring.wait_until_ready([1]);
    assert_eq!(ring.ask(1, "SET k v"), Reply::Text("OK".to_owned()));
    ring.start(2, &format!("http://{}", ring.address(1)));
    ring.wait_until_ready([2]);
    assert_eq!(ring.ask(2, "GET k"), Reply::Text("v".to_owned()));
    assert_eq!(ring.ask(2, "SET other w"), Reply::Text("OK".to_owned()));
    assert_eq!(ring.ask(1, "GET other"), Reply::Text("w".to_owned()));
}

#[test]
fn the_same_name_twice_is_refused() {
    let mut ring = Ring::new();
    ring.start_as(1, "twin", &ring.others(1, 2));
    ring.until("the first waits", || ring.status(1)["waits"].is_array());
    // The second needs another folder for its data, as the name is that of the first's.
    let mut other = Ring::new();
    other.net = ring.net;
    other.start_as(2, "twin", &ring.others(2, 2));
    for (ring, n) in [(&ring, 1), (&other, 2)] {
        ring.until("each says that there are two", || {
            ring.status(n)["waits"]
                .to_string()
                .contains("two nodes are called twin")
        });
        assert!(!ring.is_ready(n));
    }
}

#[test]
fn two_clusters_refuse_each_other() {
    let mut ring = Ring::new();
    for n in 1..=2 {
        ring.start(n, "");
    }
    // A node by itself is ready before it has a number for its cluster.
    for n in 1..=2 {
        ring.until("each has its own", || !cluster(&ring, n).is_empty());
    }
    ring.start(
        3,
        &format!("http://{},http://{}", ring.address(1), ring.address(2)),
    );
    ring.until("the third is told of both", || {
        let waits = ring.status(3)["waits"].to_string();
        waits.contains("is in the cluster") && waits.contains("must be in one")
    });
    assert!(!ring.is_ready(3));
    assert_ne!(cluster(&ring, 1), cluster(&ring, 2));
}

#[test]
fn a_node_that_members_of_another_cluster_call_says_so_once() {
    let mut ring = Ring::new().formed(3);
    let theirs = cluster(&ring, 1);
    ring.stop(2);
    // Where the second was there is a node of its own now.
    ring.start_as(2, "elsewhere", "");
    ring.wait_until_ready([2]);
    let event = |ring: &Ring| {
        let page = ring.http(2).get("/cluster/events").json();
        let all = page["events"].as_array().cloned().unwrap_or_default();
        let mut all = all.into_iter();
        all.find(|event| event["kind"] == "another_cluster")
    };
    ring.until("it is told", || event(&ring).is_some());
    let text = event(&ring).expect("it was there")["text"].to_string();
    let ours = cluster(&ring, 2);
    assert!(text.contains(&theirs) && text.contains(&ours), "{text}");
    let log = ring.log(2);
    let told = log.matches("a node of another cluster was met").count();
    assert_eq!(told, 1, "{log}");
}
