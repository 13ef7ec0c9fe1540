//! What explains a node's figures, over its port: why keys are not there, on a node by itself and in clusters of processes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::{Client, DEADLINE, node};
use crate::cluster::Ring;
use crate::durability::Data;
use crate::side_by_side::Connection;

/// Keys of the load.
const KEYS: u32 = 1_000_000;

fn why(client: &mut Client, key: &str) -> Value {
    // The leader of its partition may be about to open.
    let deadline = Instant::now() + DEADLINE;
    let response = loop {
        let response = client.get(&format!("/why?key={key}"));
        if response.status != 503 {
            break response;
        }
        assert!(Instant::now() < deadline, "{}", response.text());
    };
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
    assert_eq!(page["is_certain"], false, "{page}");
    assert!(page["remembered_ms"].is_u64(), "{page}");
    resp.call(&["SET", "gone", "v"]);
    resp.call(&["DEL", "gone"]);
    let page = is_missed(&mut client, &mut resp, "gone", "deleted");
    assert_eq!(page["is_certain"], true, "{page}");
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
    let mut rude = |body: &str| client.post("/why", body).status;
    assert_eq!(rude("{}"), 400);
    assert_eq!(rude(r#"{"key":"a","key_base64":"YQ=="}"#), 400);
    assert_eq!(rude(r#"{"key":"a"}"#), 200);
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
    let page = client.get("/hot").json();
    assert_eq!(
        (&page["is_counting"], &page["seen"]),
        (&false.into(), &0.into())
    );
    let mut resp = Connection::open(node.local_addr(), 2);
    let set = ["CONFIG", "SET", "insight.enabled", "true"];
    assert_eq!(resp.call(&set), b"+OK\r\n");
    assert_eq!(client.get("/hot").json()["is_counting"], true);
}

/// A node that comes back knows what it had on its disk. What had left it before it knows from its log, and not when that was; of what the
/// log has no more nobody is told that it was never there.
#[test]
fn nothing_is_certain_of_an_earlier_life() {
    let data = Data::new();
    for key in ["before-the-snapshot", "in-the-log"] {
        let process = data.start(&[]);
        let mut client = Client::connect(process.address);
        // It may be loading still.
        assert_eq!(why(&mut client, key)["cause"], "never_set");
        let target = format!("/cache/{key}");
        assert_eq!(client.request("PUT", &target, &[], b"v").status, 204);
        assert_eq!(client.request("DELETE", &target, &[], b"").status, 204);
        let page = why(&mut client, key);
        let found = (&page["cause"], &page["is_certain"]);
        assert_eq!(found, (&"deleted".into(), &true.into()));
        assert!(page["left_ago_ms"].is_u64(), "{page}");
        if key == "before-the-snapshot" {
            let made = client.request("POST", "/admin/snapshot", &[], b"");
            assert_eq!(made.status, 200, "{}", made.text());
        }
        process.signal(Signal::TERM);
        assert_eq!(process.wait().0, Some(0));
    }
    let process = data.start(&[]);
    let mut client = Client::connect(process.address);
    for key in ["before-the-snapshot", "in-the-log", "stranger"] {
        let page = why(&mut client, key);
        let found = (&page["cause"], &page["is_certain"]);
        assert_eq!(found, (&"never_set".into(), &false.into()), "{page}");
        let text = page["text"].as_str().expect("a text");
        assert!(text.contains("before the node's start"), "{text}");
    }
    // What was flushed is not lost, and not deleted either.
    let cycle = ["PUT", "DELETE", "PUT"].map(|method| {
        let answer = client.request(method, "/cache/flushed", &[], b"v");
        answer.status
    });
    assert_eq!(cycle, [204; 3]);
    assert_eq!(client.post("/flush", "").status / 100, 2);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().0, Some(0));
    let process = data.start(&[]);
    let mut client = Client::connect(process.address);
    let page = why(&mut client, "flushed");
    let found = (&page["cause"], &page["is_certain"]);
    assert_eq!(found, (&"never_set".into(), &false.into()), "{page}");
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
    let page = why(&mut ring.http(1), &key);
    assert_eq!(
        (&page["cause"], &page["is_certain"]),
        (&"never_set".into(), &false.into())
    );
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
    // The partition goes to the other node, without what is remembered of it. Something is in it, or there would be nothing to say.
    let beside = format!("/cache/%7B{key}%7Dbeside");
    let stored = ring.http(1).request("PUT", &beside, &[], b"v");
    assert_eq!(stored.status, 204);
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

/// No request line has room for the longest keys, wherever they are.
#[test]
fn the_longest_key_is_asked_about_in_a_body() {
    let mut ring = Ring::new().formed(2);
    let place = key_of(&ring, "node2");
    let long = format!("{{{place}}}");
    let long = format!("{long}{}", "x".repeat(65_536 - long.len()));
    let url = format!("http://{}", ring.address(1));
    // The leader of its partition may be about to open.
    why(&mut ring.http(1), &place);
    for key in [long.as_str(), "gone\u{1}"] {
        let body = json!({"key": key, "value": "v"}).to_string();
        ring.until("it is written", || {
            ring.http(1).post("/set", &body).status == 200
        });
        let body = json!({"key": key}).to_string();
        assert_eq!(ring.http(1).post("/delete", &body).status, 200);
        let answer = ring.http(1).post("/why", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page = answer.json();
        assert_eq!(
            (&page["cause"], &page["key"]),
            (&"deleted".into(), &key.into())
        );
        let said = Command::new(env!("CARGO_BIN_EXE_henge"))
            .args(["why", "--json", "--url", &url, key])
            .env_clear()
            .output()
            .expect("the binary of this build runs");
        assert!(said.status.success(), "{said:?}");
        let said: Value = serde_json::from_slice(&said.stdout).expect("JSON");
        assert_eq!(
            (&said["cause"], &said["node"]),
            (&"deleted".into(), &page["node"])
        );
        if key == long {
            assert_eq!(page["node"], "node2");
        }
    }
    let body = json!({"key": format!("{long}x")}).to_string();
    assert_eq!(ring.http(1).post("/why", &body).status, 400);
    ring.kill(2);
}

#[test]
fn what_no_majority_remembers_is_lost() {
    let ring = Ring::new()
        .set("cluster.replication_factor=3")
        .set("persistence.enabled=false");
    let mut ring = ring.formed(3);
    let key = key_of(&ring, "node2");
    ring.until("a new cluster has lost nothing", || {
        let page = ring.http(1).get(&format!("/why?key={key}"));
        page.status == 200 && page.json()["cause"] == "never_set"
    });
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

/// Draws of a zipf distribution over a million keys, the hottest of which is 0.
struct Zipf {
    /// Up to where each key comes, of one.
    ends: Vec<f64>,
    random: u64,
}

impl Zipf {
    fn new(exponent: f64, seed: u64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=KEYS).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        let mut ends: Vec<f64> = sums.collect();
        for end in &mut ends {
            *end /= sum;
        }
        Self { ends, random: seed }
    }

    fn draw(&mut self) -> usize {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let at = (self.random >> 11) as f64 / 2f64.powi(53);
        self.ends.partition_point(|end| *end < at)
    }
}

#[test]
fn the_hottest_keys_of_a_million_are_found() {
    let node = node(&[("cache.max_size_bytes", "64MiB")]);
    // One for each data thread, and enough of it that chance does not put the eleventh before the tenth.
    let connect = || TcpStream::connect(node.local_addr()).expect("the node listens");
    let mut streams = [connect(), connect()];
    let mut zipf = Zipf::new(1.5, 7);
    let mut answer = vec![0; 1000 * b"$-1\r\n".len()];
    for round in 0..2000 {
        let mut batch = Vec::new();
        for _ in 0..1000 {
            let key = format!("key{}", zipf.draw());
            let command = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
            batch.extend_from_slice(command.as_bytes());
        }
        let stream = &mut streams[round % 2];
        stream.write_all(&batch).expect("the node reads");
        stream.read_exact(&mut answer).expect("the node answers");
    }
    let mut client = Client::connect(node.local_addr());
    let page = client.get("/hot?count=10").json();
    let keys = page["keys"].as_array().expect("keys");
    let mut found: Vec<&str> = keys.iter().filter_map(|key| key["key"].as_str()).collect();
    assert_eq!(found[..4], ["key0", "key1", "key2", "key3"], "{page:#}");
    // Chance may put the eleventh before the tenth here; the unit test has a load of which it does not.
    let hottest: Vec<String> = (0..12).map(|n| format!("key{n}")).collect();
    assert!(
        found.iter().all(|key| hottest.iter().any(|hot| hot == key)),
        "{page:#}"
    );
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 10, "{page:#}");
    let share = keys[0]["share"].as_f64().expect("a number");
    assert!((0.36..0.41).contains(&share), "{page:#}");
    for (target, status) in [
        ("/hot?count=0", 400),
        ("/hot?count=101", 400),
        ("/hot?count=%2B1", 400),
        ("/hot?count=+1", 400),
        ("/keys?limit=%2B1", 400),
        ("/admin/backup?partition=%2B1", 400),
        ("/admin/backup?partition=1&place=%2B1", 400),
        ("/cluster/events?after=%2B1", 400),
        ("/hot?n=1", 400),
    ] {
        assert_eq!(client.get(target).status, status, "{target}");
    }
}

#[test]
fn keys_count_over_both_protocols_and_each_of_several() {
    let node = node(&[]);
    let mut resp = Connection::open(node.local_addr(), 2);
    let mut client = Client::connect(node.local_addr());
    for _ in 0..3 {
        client.get("/get?key=three");
    }
    client.post("/mget", r#"{"keys":["two"]}"#);
    resp.call(&["MGET", "two", "one"]);
    resp.call(&["PING"]);
    let page = client.get("/hot").json();
    let keys = page["keys"].as_array().expect("keys").iter();
    let found: Vec<_> = keys.map(|key| (&key["key"], &key["count"])).collect();
    let expected = [("three", 3), ("two", 2), ("one", 1)].map(|(key, n)| (key.into(), n.into()));
    assert_eq!(
        found,
        expected
            .iter()
            .map(|(key, n)| (key, n))
            .collect::<Vec<(&Value, &Value)>>()
    );
    assert_eq!(
        (&page["seen"], &page["sampled_one_in"]),
        (&6.into(), &1.into())
    );
}

#[test]
fn who_is_confined_to_some_keys_is_shown_those() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    for key in ["app:one", "other"] {
        client.request("PUT", &format!("/cache/{key}"), &[], b"value");
    }
    let mut made = |body: &str, admin: &str| {
        let headers = [("content-type", "application/json"), ("x-api-key", admin)];
        let headers = &headers[..if admin.is_empty() { 1 } else { 2 }];
        let answer = client.request("POST", "/admin/keys", headers, body.as_bytes());
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["key"].as_str().expect("a key").to_owned()
    };
    let admin = made(r#"{"name":"boss","permissions":["admin","read"]}"#, "");
    let confined = r#"{"name":"app","permissions":["read"],"prefixes":["app:"]}"#;
    let confined = made(confined, &admin);
    for target in ["/hot", "/big"] {
        for (key, expected) in [(&admin, 2), (&confined, 1)] {
            let answer = client.request("GET", target, &[("x-api-key", key)], b"");
            let page = answer.json();
            let keys = page["keys"].as_array().expect("keys");
            assert_eq!(keys.len(), expected, "{target}: {page}");
            let is_shown = |name: &str| keys.iter().any(|key| key["key"] == name);
            assert!(
                is_shown("app:one") && is_shown("other") == (expected == 2),
                "{page}"
            );
        }
    }
    let denied = client.request("GET", "/why?key=other", &[("x-api-key", &confined)], b"");
    assert_eq!(denied.status, 403);
}

#[test]
fn the_largest_items_are_found() {
    let node = node(&[("compression.algorithm", "none")]);
    let mut resp = Connection::open(node.local_addr(), 2);
    for size in 1..=300 {
        resp.call(&["SET", &format!("key{size}"), &"x".repeat(100 * size)]);
    }
    resp.call(&["PEXPIRE", "key300", "1000000"]);
    let mut client = Client::connect(node.local_addr());
    let page = client.get("/big?count=3").json();
    assert_eq!(page["looked_at"], 300);
    let names: Vec<&Value> = page["keys"].as_array().expect("keys").iter().collect();
    for (place, size) in [300u64, 299, 298].into_iter().enumerate() {
        let item = names[place];
        assert_eq!(item["key"], format!("key{size}"), "{page:#}");
        assert_eq!(item["value_bytes"], 100 * size);
        assert!(item["bytes"].as_u64() > Some(100 * size), "{page:#}");
        assert_eq!(item["expires_in_ms"].is_u64(), size == 300);
    }
}

#[test]
fn what_was_slow_is_listed_from_both_protocols() {
    let node = node(&[]);
    let mut resp = Connection::open(node.local_addr(), 2);
    let mut client = Client::connect(node.local_addr());
    let page = client.get("/slow").json();
    assert_eq!(page["threshold_us"], 10_000);
    assert_eq!(
        resp.call(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]),
        b"+OK\r\n"
    );
    resp.call(&["CLIENT", "SETNAME", "me"]);
    resp.call(&["GET", "some-key"]);
    client.get(&format!("/get?key=other-key&{}", "x".repeat(500)));
    client.get("/get?key=other-key");
    let page = client.get("/slow?count=100").json();
    let entries = page["entries"].as_array().expect("entries");
    let words = |entry: &Value| entry["words"].as_array().cloned().unwrap_or_default();
    let find = |first: &str, second: &str| {
        let mut all = entries.iter();
        all.find(|entry| words(entry).starts_with(&[first.into(), second.into()]))
            .unwrap_or_else(|| panic!("{first} {second} is in {page:#}"))
    };
    assert_eq!(find("GET", "some-key")["client_name"], "me");
    let entry = find("GET", "/get?key=other-key");
    assert!(entry["took_us"].is_u64() && entry["at_ms"].as_u64() > Some(1_700_000_000_000));
    assert!(
        entry["client"]
            .as_str()
            .is_some_and(|client| client.starts_with("127.0.0.1:"))
    );
    let ids: Vec<u64> = entries
        .iter()
        .filter_map(|entry| entry["id"].as_u64())
        .collect();
    assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
    let longest = entries
        .iter()
        .flat_map(words)
        .map(|word| word.to_string().len())
        .max();
    assert!(longest < Some(200), "long ones are cut");
}

#[test]
fn a_node_says_what_it_is_set_to_and_who_asks() {
    let node = node(&[("cache.max_items", "7")]);
    let mut client = Client::connect(node.local_addr());
    let page = client.get("/config").json();
    let settings = page["settings"].as_array().expect("settings");
    let setting = |name: &str| {
        let mut all = settings.iter();
        all.find(|setting| setting["name"] == name)
            .expect("it is there")
    };
    assert_eq!(setting("cache.max_items")["value"], 7);
    assert_eq!(setting("cache.max_items")["source"], "given");
    assert_eq!(setting("cache.policy")["value"], "lru");
    assert_eq!(setting("cache.policy")["source"], "default");
    assert_eq!(setting("cache.policy")["may_change"], false);
    let page = client.get("/whoami").json();
    assert_eq!(
        page["permissions"],
        serde_json::json!(["read", "write", "admin"])
    );
    assert_eq!(page["needs_key"], false);
    let page = client.get("/ready").json();
    let checks = page["checks"].as_array().expect("checks");
    assert_eq!(checks.len(), 4);
    for check in checks {
        assert_eq!(check["ok"], true, "{check}");
        assert!(check["why"].as_str().is_some_and(|why| !why.is_empty()));
    }
}

/// What a lower limit has evicted is told with its own cause and time, and what was remembered before is not forgotten by it.
#[test]
fn a_limit_that_changes_is_no_reason_to_forget() {
    let node = node(&[("cache.max_items", "100")]);
    let mut client = Client::connect(node.local_addr());
    let mut resp = Connection::open(node.local_addr(), 2);
    for key in 0..50 {
        let key = format!("k{key}");
        assert_eq!(resp.call(&["SET", &key, "v"]), b"+OK\r\n");
    }
    assert_eq!(resp.call(&["SET", "gone", "v"]), b"+OK\r\n");
    assert_eq!(resp.call(&["DEL", "gone"]), b":1\r\n");
    for (setting, value) in [
        ("cache.max_size_bytes", "256MiB"),
        ("cache.max_items", "10"),
    ] {
        assert_eq!(resp.call(&["CONFIG", "SET", setting, value]), b"+OK\r\n");
    }
    let page = why(&mut client, "gone");
    assert_eq!(page["cause"], "deleted", "{page}");
    let page = why(&mut client, "k0");
    assert_eq!(page["evicted_for"], "items", "{page}");
    assert!(page["left_ago_ms"].as_u64() < Some(600_000), "{page}");
    let figures = client.get("/metrics/json").json();
    assert_eq!(
        figures["evictions"]["items"], 40,
        "{}",
        figures["evictions"]
    );
}
