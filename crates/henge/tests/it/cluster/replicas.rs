//! Partitions with three replicas, on real processes: what is acknowledged outlives any one of three, however it goes, and a node
//! that comes back has all of it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;

use serde_json::json;

use super::Ring;
use super::keys::speaks_both_protocols;
use super::moves::all_are_up;
use super::partitions::{agreed_leader, machines};
use crate::durability::Resp;
use crate::resp_reply::Reply;

const KEYS: usize = 200;

/// Three, all of which are up: as long as they come, writes that are under way to who leads meanwhile may be unknown.
fn ring() -> Ring {
    let ring = Ring::new().set("cluster.replication_factor=3").formed(3);
    (1..=3).for_each(|n| all_are_up(&ring, n, 3));
    ring
}

/// Starts one of three again, and waits until all know all to be up.
fn start_again(ring: &mut Ring, lost: usize) {
    ring.start(lost, &ring.others(lost, 3));
    ring.wait_until_ready([lost]);
    for n in 1..=3 {
        ring.until("all are up", || {
            let status = ring.status(n);
            let members = status["members"].as_array().cloned().unwrap_or_default();
            members.len() == 3 && members.iter().all(|member| member["state"] == "up")
        });
    }
}

fn ok() -> Reply {
    Reply::Text("OK".to_owned())
}

/// Sets each key, by the nodes in turn, and again where nothing was done.
fn set_all(ring: &Ring, nodes: &[usize], value: &str) {
    for key in 0..KEYS {
        let node = nodes[key % nodes.len()];
        ring.until("each is set", || {
            match ring.ask(node, &format!("SET k{key} {value}{key}")) {
                Reply::Error(error) => {
                    let is_refused = error.contains("nothing was done");
                    assert!(is_refused, "{error}");
                    false
                }
                reply => {
                    assert_eq!(reply, ok());
                    true
                }
            }
        });
    }
}

/// Each key has its value, by each of the nodes; asked again where a node says that it cannot know.
fn check_all(ring: &Ring, nodes: &[usize], value: &str) {
    for node in nodes {
        for key in 0..KEYS {
            ring.until("each is read", || {
                match ring.ask(*node, &format!("GET k{key}")) {
                    Reply::Error(_) => false,
                    reply => {
                        assert_eq!(reply, Reply::Text(format!("{value}{key}")), "by {node}");
                        true
                    }
                }
            });
        }
    }
}

#[test]
fn what_was_acknowledged_outlives_each_of_three_in_turn() {
    let mut ring = ring();
    set_all(&ring, &[1, 2, 3], "first-");
    check_all(&ring, &[1, 2, 3], "first-");
    for lost in 1..=3 {
        let rest: Vec<usize> = (1..=3).filter(|n| *n != lost).collect();
        ring.kill(lost);
        check_all(&ring, &rest, if lost == 1 { "first-" } else { "again-" });
        set_all(&ring, &rest, "again-");
        start_again(&mut ring, lost);
        check_all(&ring, &[1, 2, 3], "again-");
    }
}

/// All others would be down to it, and none of three would be left that reaches another by what is agreed on.
#[test]
fn a_control_leader_that_hears_no_datagrams_has_a_successor() {
    let Some(ring) = machines(3) else { return };
    let ring = ring.set("cluster.replication_factor=3").formed(3);
    set_all(&ring, &[1, 2, 3], "v-");
    let deaf = agreed_leader(&ring, &[1, 2, 3]);
    let rest: Vec<usize> = (1..=3).filter(|n| *n != deaf).collect();
    for n in &rest {
        ring.network().lose_only("udp", deaf, *n);
        ring.network().lose_only("udp", *n, deaf);
    }
    for n in &rest {
        ring.until("it is down, and the others are up", || {
            let states: Vec<bool> = (1..=3)
                .map(|of| ring.member(*n, of)["state"] == "up")
                .collect();
            (1..=3).zip(states).all(|(of, is_up)| is_up == (of != deaf))
        });
    }
    assert_ne!(agreed_leader(&ring, &rest), deaf);
    // One of the others may have been down for a moment, as it cannot be told from a node that is silent; both never were.
    let events = ring.http(rest[0]).get("/cluster/events").json();
    let events = events["events"].as_array().cloned().unwrap_or_default();
    let downs: BTreeSet<&str> = events
        .iter()
        .filter(|event| event["kind"] == "down")
        .filter_map(|event| event["member"].as_str())
        .collect();
    let deaf_name = format!("node{deaf}");
    assert!(downs.contains(&*deaf_name) && downs.len() <= 2, "{downs:?}");
    check_all(&ring, &rest, "v-");
    set_all(&ring, &rest, "w-");
    for n in &rest {
        ring.network().pass_only("udp", deaf, *n);
        ring.network().pass_only("udp", *n, deaf);
    }
    check_all(&ring, &[1, 2, 3], "w-");
}

/// What is sent as a line is asked again as what is sent as a frame, and what is of all keys is as well: while a leader is replaced a
/// client sees slow answers, or that it is not known what was done.
#[test]
fn lines_and_what_is_of_all_keys_wait_for_another_leader() {
    let mut ring = ring();
    set_all(&ring, &[1], "v-");
    let count = format!(":{KEYS}");
    for lost in [2, 3] {
        let stream = TcpStream::connect(ring.address(1)).expect("it listens");
        let mut replies = BufReader::new(stream.try_clone().expect("a handle")).lines();
        let mut ask = |lines: &str| -> Vec<String> {
            (&stream).write_all(lines.as_bytes()).expect("it is taken");
            let replies = lines.lines().map(|_| replies.next().expect("a reply"));
            replies.map(|reply| reply.expect("a line")).collect()
        };
        let sets: Vec<String> = (0..KEYS)
            .map(|key| format!("SET k{key} {lost}\r\n"))
            .collect();
        ring.kill(lost);
        ring.until("it is known to be lost", || {
            for reply in ask(&sets.concat()) {
                let is_told = reply == "+OK" || reply.starts_with("-UNKNOWN");
                assert!(is_told, "{reply}");
            }
            // Nothing is left out while nobody leads some of them.
            assert_eq!(ask("DBSIZE\r\n"), [&*count]);
            let status = ring.status(1);
            let members = status["members"].as_array().cloned().unwrap_or_default();
            members.iter().any(|member| member["state"] == "down")
        });
        for reply in ask(&sets.concat()) {
            assert_eq!(reply, "+OK");
        }
        assert_eq!(ask("DBSIZE\r\n"), [&*count]);
        start_again(&mut ring, lost);
    }
}

/// A node that has lost all copies at the pace that is set, a few partitions at a time, and shows how far it is.
#[test]
fn who_comes_back_with_nothing_copies_at_the_pace_that_is_set() {
    const VALUES: usize = 200;
    let mut ring = Ring::new()
        .set("cluster.replication_factor=3")
        .set("persistence.enabled=false")
        .set("cluster.move_rate=64KiB")
        .formed(3);
    let value = "v".repeat(32 << 10);
    let mut connection = ring.resp(1);
    for key in 0..VALUES {
        assert_eq!(connection.ask(&format!("SET k{key} {value}")), ok());
    }
    ring.kill(3);
    ring.start(3, &ring.others(3, 3));
    let copies = |n| {
        let status = ring.status(n);
        move |name: &str| status["copies"][name].as_u64()
    };
    ring.until("it has some of its replicas", || {
        // As many copies at a time as a node sends to another one.
        let under_way = copies(1)("under_way").expect("the node answers");
        assert!(under_way <= 16, "{under_way}");
        let own = copies(3);
        own("replicas") == Some(1024) && own("replicas_aligned") > Some(0)
    });
    // What there is takes two nodes most of a minute at that pace.
    let own = copies(3);
    assert!(own("replicas_aligned") < own("replicas"));
    let table = ring.command(3, &["status"]);
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(
        table.contains(" of 1,024 replicas of the node that was asked are aligned\n"),
        "{table}"
    );
    let mut settings = ring.http(1);
    settings
        .send(b"PUT /cluster/settings/cluster.move_rate HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\nnone")
        .expect("it is sent");
    assert_eq!(settings.response(true).status, 200);
    ring.until("it has all", || {
        let own = copies(3);
        own("replicas_aligned") == Some(1024)
    });
    ring.until("nobody copies", || {
        (1..=2).all(|n| copies(n)("under_way") == Some(0) && copies(n)("waiting") == Some(0))
    });
    ring.wait_until_ready([3]);
    for key in 0..VALUES {
        assert_eq!(
            ring.ask(3, &format!("GET k{key}")),
            Reply::Text(value.clone())
        );
    }
}

/// Who cannot tell says so; no key is left out of a count, and none is counted twice.
#[test]
fn each_key_is_counted_once_as_leaders_change() {
    let mut ring = ring();
    set_all(&ring, &[1], "v-");
    let address = ring.address(1);
    let (under_way, is_over) = mpsc::channel::<()>();
    let counting = thread::spawn(move || {
        let mut client = Resp::connect(address);
        let mut told = Vec::new();
        while is_over.try_recv() == Err(mpsc::TryRecvError::Empty) {
            told.push(client.ask("DBSIZE"));
        }
        told
    });
    for lost in [2, 3] {
        ring.kill(lost);
        ring.until("it is known to be lost", || {
            ring.members(1).contains(&(ring.address(lost), false))
        });
        start_again(&mut ring, lost);
    }
    ring.stop(2);
    check_all(&ring, &[1, 3], "v-");
    drop(under_way);
    let told = counting.join().expect("it counts to the end");
    let count = Reply::Integer(i64::try_from(KEYS).expect("a small number"));
    let wrong = told.iter().find(|&reply| match reply {
        Reply::Error(error) => !error.ends_with("nothing was done"),
        reply => *reply != count,
    });
    assert_eq!(wrong, None, "of {}", told.len());
}

#[test]
fn all_are_killed_and_have_all_again() {
    let mut ring = ring();
    set_all(&ring, &[1, 2, 3], "kept-");
    for n in 1..=3 {
        ring.kill(n);
    }
    for n in 1..=3 {
        ring.start(n, &ring.others(n, 3));
    }
    ring.wait_until_ready(1..=3);
    check_all(&ring, &[1, 2, 3], "kept-");
}

#[test]
fn a_minority_serves_nothing_at_quorum() {
    let mut ring = ring();
    set_all(&ring, &[1], "v-");
    ring.kill(2);
    ring.kill(3);
    ring.until("it knows that it is alone", || {
        let status = ring.status(1);
        let members = status["members"].as_array().cloned().unwrap_or_default();
        members
            .iter()
            .filter(|member| member["is_reachable"] == false)
            .count()
            == 2
    });
    for key in 0..KEYS {
        for command in [format!("GET k{key}"), format!("SET k{key} lost")] {
            let Reply::Error(error) = ring.ask(1, &command) else {
                panic!("{command} was answered");
            };
            assert!(
                error.starts_with("CLUSTERDOWN") && error.ends_with("nothing was done"),
                "{error}"
            );
        }
    }
}

/// Reads at ONE are of whatever replica a node has, though nobody else answers.
#[test]
fn what_is_read_at_one_is_read_without_the_others() {
    let mut ring = ring();
    set_all(&ring, &[1, 2, 3], "before-");
    let mut client = ring.resp(1);
    assert_eq!(client.ask("HENGE LEVEL all"), ok());
    for key in 0..KEYS {
        assert_eq!(client.ask(&format!("SET k{key} v-{key}")), ok());
    }
    ring.kill(2);
    ring.kill(3);
    assert_eq!(client.ask("READONLY"), ok());
    for key in 0..KEYS {
        let expected = Reply::Text(format!("v-{key}"));
        assert_eq!(client.ask(&format!("GET k{key}")), expected);
    }
    // Of another key: it may be in this node's table all the same.
    let Reply::Error(error) = client.ask("SET other new") else {
        panic!("a write without a quorum was acknowledged");
    };
    assert!(!error.starts_with("OK"), "{error}");
    assert_eq!(client.ask("HENGE LEVEL one"), ok());
    assert_eq!(client.ask("READWRITE"), ok());
    assert_eq!(client.ask("GET k2"), Reply::Text("v-2".to_owned()));
    // The same over HTTP, of one key and of all.
    let keys: Vec<String> = (0..KEYS).map(|key| format!("k{key}")).collect();
    let body = json!({ "keys": keys }).to_string();
    let mut client = ring.http(1);
    let mut ask = |request: &str, body: &str| {
        let head = format!(
            "{request} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nx-consistency-level: ONE\r\n"
        );
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        client.send(request.as_bytes()).expect("it is sent");
        client.response(true).json()
    };
    assert_eq!(ask("GET /get?key=k3", "")["value"], "v-3");
    let answer = ask("POST /mget", &body);
    let results = answer["results"].as_array().expect("there are results");
    assert_eq!(results.len(), KEYS);
    for (key, result) in results.iter().enumerate() {
        assert_eq!(result["value"], format!("v-{key}"), "{result}");
    }
}

/// What is asked again, as its leader is lost, is answered as it was asked, whatever the connection has chosen since.
#[test]
fn replies_that_wait_for_a_leader_are_in_the_protocol_of_their_requests() {
    let mut ring = ring();
    set_all(&ring, &[1, 2, 3], "v-");
    let mut node = ring.resp(1);
    ring.kill(3);
    speaks_both_protocols(&mut node);
}

/// Each key is on three nodes, and is one key; and what is forgotten no replica brings back.
#[test]
fn a_key_of_three_replicas_is_one_key() {
    let ring = ring();
    set_all(&ring, &[1, 2, 3], "v-");
    // Leaders may change until all are up; until then a node may say that it cannot tell.
    let count = Reply::Integer(i64::try_from(KEYS).expect("a small number"));
    for n in 1..=3 {
        ring.until("each is counted once", || ring.ask(n, "DBSIZE") == count);
    }
    ring.until("all is forgotten", || ring.ask(2, "FLUSHALL") == ok());
    for n in 1..=3 {
        for key in 0..KEYS {
            let reply = ring.ask(n, &format!("GET k{key}"));
            assert!(!matches!(reply, Reply::Text(_)), "{reply:?} by {n}");
        }
    }
    set_all(&ring, &[3], "again-");
    check_all(&ring, &[1, 2, 3], "again-");
}

/// `WAIT` of a connection, behind what it has asked for in the same pipeline.
fn wait(ring: &Ring, n: usize, before: &[&str], wanted: usize, timeout_ms: u64) -> Vec<Reply> {
    let mut node = ring.resp(n);
    let mut replies: Vec<Reply> = before.iter().map(|command| node.ask(command)).collect();
    replies.push(node.ask(&format!("WAIT {wanted} {timeout_ms}")));
    replies
}

#[test]
fn how_many_replicas_have_it_is_told() {
    const LONG: u64 = 20_000;
    let mut ring = ring();
    set_all(&ring, &[1, 2, 3], "v-");
    let keys: Vec<String> = (0..40).map(|key| format!("SET k{key} w")).collect();
    let sets: Vec<&str> = ["HENGE LEVEL ONE"]
        .into_iter()
        .chain(keys.iter().map(String::as_str))
        .collect();
    for n in 1..=3 {
        let mut replies = wait(&ring, n, &sets, 2, LONG);
        assert_eq!(replies.pop(), Some(Reply::Integer(2)), "by {n}");
        assert!(replies.iter().all(|reply| *reply == ok()));
        // Who has written nothing has nothing that any replica lacks.
        assert_eq!(wait(&ring, n, &[], 0, LONG), [Reply::Integer(2)]);
    }
    let of_all = |level: &str, method: &str, key: usize| {
        let request = format!(
            "{method} /cache/k{key} HTTP/1.1\r\nhost: localhost\r\nx-consistency-level: {level}\r\ncontent-length: 1\r\n\r\nv"
        );
        let mut client = ring.http(1);
        client.send(request.as_bytes()).expect("it is sent");
        let answer = client.response(true);
        assert!(answer.status < 300, "{}", answer.status);
        answer.header("x-replicas").map(str::to_owned)
    };
    for key in 0..10 {
        assert_eq!(of_all("ALL", "PUT", key).as_deref(), Some("3"));
        let at_quorum = of_all("QUORUM", "PUT", key).expect("it is known");
        assert!(["2", "3"].contains(&&*at_quorum), "{at_quorum}");
    }

    ring.kill(3);
    for n in 1..=2 {
        ring.until("the third is known to be gone", || {
            let status = ring.status(n);
            let members = status["members"].as_array().cloned().unwrap_or_default();
            members.iter().any(|member| member["state"] == "down")
        });
    }
    set_all(&ring, &[1, 2], "x-");
    let sets = ["SET k1 y", "SET k2 y", "SET k3 y"];
    for n in 1..=2 {
        let reached = wait(&ring, n, &sets, 1, LONG).pop();
        assert_eq!(reached, Some(Reply::Integer(1)), "by {n}");
        // The second is not to be had, and the time is over.
        let reached = wait(&ring, n, &sets, 2, 50).pop();
        assert_eq!(reached, Some(Reply::Integer(1)), "by {n}");
    }
    // Nor is ALL; of a write that another node leads the same is said.
    for n in 1..=2 {
        let mut node = ring.resp(n);
        assert_eq!(node.ask("HENGE LEVEL ALL"), ok());
        for command in ["SET k1 z", "MSET k1 z k2 z k3 z"] {
            let Reply::Error(error) = node.ask(command) else {
                panic!("{command} was acknowledged by all of which one is gone");
            };
            assert!(error.starts_with("UNKNOWN "), "{error}");
            assert!(error.contains("2 are known to have it"), "{error}");
        }
    }
}

/// Each looks at all partitions that its node leads, and is told when replicas of all of them have said that it leads.
#[test]
fn a_pipeline_of_scans_is_answered() {
    const SCANS: usize = 400;
    let ring = ring();
    let mut stream = TcpStream::connect(ring.address(1)).expect("it listens");
    stream
        .set_read_timeout(Some(crate::client::DEADLINE))
        .expect("a socket");
    // Who knows the map asks each node for what it leads.
    let scans = "SCAN 1 MATCH none COUNT 256\r\n".repeat(SCANS);
    let requests = format!("CLUSTER SLOTS\r\nPING\r\n{scans}PING\r\n");
    stream
        .write_all(requests.as_bytes())
        .expect("it reads all of it");
    let mut lines = BufReader::new(stream).lines();
    let mut until_pong = || {
        let lines = lines.by_ref().map(|line| line.expect("it goes on"));
        lines
            .take_while(|line| line != "+PONG")
            .collect::<Vec<String>>()
    };
    until_pong();
    let replies = until_pong();
    // A leader may change meanwhile.
    let is_reply = |line: &&String| *line == "*2" || line.starts_with("-TRYAGAIN");
    assert_eq!(replies.iter().filter(is_reply).count(), SCANS);
    set_all(&ring, &[1], "v");
}

/// All that it copies would fit into what may wait for the log twenty times over: each byte of it is to be counted once.
#[test]
fn who_comes_back_to_much_is_not_behind_its_log() {
    let ring = Ring::new().set("cluster.replication_factor=3");
    let mut ring = ring.set("compression.algorithm=none").formed(3);
    (1..=3).for_each(|n| all_are_up(&ring, n, 3));
    ring.kill(2);
    let value = "v".repeat(64 << 10);
    for key in 0..300 {
        ring.until("each is set", || {
            let target = format!("/cache/large{key}");
            let stored = ring.http(1).request("PUT", &target, &[], value.as_bytes());
            stored.status == 204
        });
    }
    start_again(&mut ring, 2);
    for n in 1..=3 {
        assert!(
            !ring.log(n).contains("the log is behind"),
            "{}",
            ring.log(n)
        );
    }
}
