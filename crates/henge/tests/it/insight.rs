//! What explains a node's figures, over its port: why keys are not there, on a node by itself and in clusters of processes.

use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::client::{Client, DEADLINE, node};
use crate::cluster::Ring;
use crate::side_by_side::Connection;

fn why(client: &mut Client, key: &str) -> Value {
    let response = client.get(&format!("/why?key={key}"));
    assert_eq!(response.status, 200, "{}", response.text());
    let page = response.json();
    assert_eq!(page["key"], key);
    page
}

fn misses(client: &mut Client, cause: &str) -> u64 {
    let page = client.get("/metrics/json").json();
    let count = page.pointer(&format!("/misses_by_cause/{cause}"));
    count.and_then(Value::as_u64).expect("a number")
}

/// A key is missed: the page, the command and the count say why.
fn is_missed_as(client: &mut Client, resp: &mut Connection, key: &str, cause: &str) -> Value {
    let before = misses(client, cause);
    assert_eq!(client.get(&format!("/get?key={key}")).status, 404);
    assert_eq!(misses(client, cause), before + 1, "{key}: {cause}");
    let page = why(client, key);
    assert_eq!(page["cause"], cause, "{page}");
    assert_eq!(page["is_there"], false);
    let reply = resp.call(&["HENGE", "WHY", key]);
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let text = page["text"].as_str().expect("a text");
    let expected = format!("*2\r\n${}\r\n{cause}\r\n${}\r\n", cause.len(), text.len());
    assert!(reply.starts_with(&expected), "{reply}");
    page
}

#[test]
fn each_cause_on_a_node_by_itself() {
    let node = node(&[("cache.max_items", "3")]);
    let mut client = Client::connect(node.local_addr());
    let mut resp = Connection::open(node.local_addr(), 2);
    let is_missed = |client: &mut Client, resp: &mut Connection, key, cause| {
        is_missed_as(client, resp, key, cause)
    };
    let page = is_missed(&mut client, &mut resp, "stranger", "never_set");
    assert_eq!(page["is_certain"], true, "{page}");
    resp.call(&["SET", "gone", "v"]);
    resp.call(&["DEL", "gone"]);
    is_missed(&mut client, &mut resp, "gone", "deleted");
    resp.call(&["SET", "short", "v", "PX", "1"]);
    let deadline = Instant::now() + DEADLINE;
    while resp.call(&["EXISTS", "short"]) != b":0\r\n" {
        assert!(Instant::now() < deadline, "it never expires");
        thread::yield_now();
    }
    let page = is_missed(&mut client, &mut resp, "short", "expired");
    assert!(page["left_ago_ms"].is_u64(), "{page}");
    for key in ["a", "b", "c", "d"] {
        resp.call(&["SET", key, "v"]);
    }
    let page = is_missed(&mut client, &mut resp, "a", "evicted");
    assert_eq!(page["policy"], "lru");
    assert_eq!(page["evicted_for"], "items");
    assert_eq!(why(&mut client, "d")["is_there"], true);
    resp.call(&["FLUSHALL"]);
    let page = is_missed(&mut client, &mut resp, "d", "flushed");
    assert_eq!(page["is_certain"], false);
    // Of many more misses no more are the flush's than it took keys.
    for number in 0..20 {
        client.get(&format!("/get?key=unknown{number}"));
    }
    assert!(misses(&mut client, "flushed") <= 3);
    let sum: u64 = [
        "never_set",
        "deleted",
        "expired",
        "evicted",
        "flushed",
        "moved",
        "lost",
    ]
    .map(|cause| misses(&mut client, cause))
    .iter()
    .sum();
    let page = client.get("/metrics/json").json();
    assert_eq!(page["misses"], sum, "each miss has one cause");
    let mut rude = |target: &str| client.get(target).status;
    assert_eq!(rude("/why"), 400);
    assert_eq!(rude("/why?key=a&key_base64=YQ=="), 400);
}

#[test]
fn nothing_is_remembered_where_that_is_off() {
    let node = node(&[("insight.enabled", "false")]);
    let mut client = Client::connect(node.local_addr());
    client.get("/get?key=k");
    let page = why(&mut client, "k");
    assert_eq!(page["cause"], Value::Null);
    assert_eq!(page["is_certain"], false);
    assert_eq!(misses(&mut client, "never_set"), 0);
}

/// A key of a partition that a node leads, and has a replica of where others are to have one.
fn key_of(ring: &Ring, leader: &str) -> String {
    let place = |key: &str| ring.http(1).get(&format!("/cluster/ring?key={key}")).json();
    let mut keys = (0..).map(|number| format!("key{number}"));
    let is_its = |key: &String| place(key)["holder"]["name"] == leader;
    keys.find(is_its).expect("each node leads some")
}

#[test]
fn any_node_knows_why_and_who_took_over_says_what_it_cannot_know() {
    let mut ring = Ring::new().formed(2);
    let key = key_of(&ring, "node2");
    let set = |ring: &Ring, n| {
        let body = format!(r#"{{"key":"{key}","value":"v"}}"#);
        assert_eq!(ring.http(n).post("/set", &body).status, 200);
    };
    set(&ring, 1);
    let deleted = ring
        .http(1)
        .request("DELETE", &format!("/cache/{key}"), &[], b"");
    assert_eq!(deleted.status, 204);
    for n in 1..=2 {
        let page = why(&mut ring.http(n), &key);
        assert_eq!(
            (&page["cause"], &page["node"]),
            (&"deleted".into(), &"node2".into())
        );
    }
    set(&ring, 1);
    let flushed = ring.http(1).post("/flush", "");
    assert_eq!(flushed.status, 200);
    assert_eq!(why(&mut ring.http(1), &key)["cause"], "flushed");
    // The partition goes to the other node, without what is remembered of it.
    let drained = ring.command(1, &["drain", "node2"]);
    assert!(drained.status.success(), "{drained:?}");
    let page = why(&mut ring.http(1), &key);
    assert_eq!(
        (&page["cause"], &page["node"]),
        (&"moved".into(), &"node1".into())
    );
    assert_eq!(page["is_certain"], false);
    ring.kill(2);
}

#[test]
fn what_no_majority_remembers_is_lost() {
    let ring = Ring::new()
        .set("cluster.replication_factor=3")
        .set("persistence.enabled=false");
    let mut ring = ring.formed(3);
    let key = key_of(&ring, "node2");
    let body = format!(r#"{{"key":"{key}","value":"v"}}"#);
    ring.until("it is written", || {
        ring.http(1).post("/set", &body).status == 200
    });
    for n in [2, 3] {
        ring.kill(n);
    }
    for n in [2, 3] {
        ring.start(n, &ring.others(n, 3));
    }
    ring.wait_until_ready([2, 3]);
    ring.until("whoever leads now says that it is lost", || {
        let page = ring.http(1).get(&format!("/why?key={key}"));
        page.status == 200 && page.json()["cause"] == "lost"
    });
}
