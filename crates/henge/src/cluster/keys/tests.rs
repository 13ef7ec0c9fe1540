//! Two nodes in one process whose views are set by hand: each serves the keys of both over HTTP, and says what it cannot do.

mod lanes;
mod told;

use std::fs;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use henge_cluster::forming::ClusterId;
use henge_cluster::ring::NodeId;
use henge_wire::Partition;
use henge_wire::peer::PREFACE;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::identity::Identity;
use crate::cluster::link::greet::{self, Greeted};
use crate::cluster::view::{Member, MemberState, Standing, View};
use crate::config::{Config, DirectoryPath};
use crate::net::data_thread;
use crate::node::Node;

const DEADLINE: Duration = Duration::from_mins(1);

/// Two nodes, and the directory that theirs are in.
struct Pair {
    nodes: [Option<Node>; 2],
    addresses: [String; 2],
    instances: [u64; 2],
    folder: PathBuf,
}

struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// A problem, as its status, its code and its detail.
    fn problem(&self) -> (u16, String, String) {
        let problem = self.json();
        let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        (self.status, text("code"), text("detail"))
    }
}

impl Pair {
    fn start(settings: &[(&str, &str)]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("henge-pair-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let node = |name: &str| {
            let mut config = Config::default();
            let own = [("server.listen", "127.0.0.1:0"), ("cluster.node_id", name)];
            for (setting, value) in own.iter().chain(settings) {
                config.set(setting, value).expect("it is a setting");
            }
            config.persistence.dir = DirectoryPath::new(folder.clone());
            let mut node = Node::start(config).expect("it starts");
            node.wait_until_ready().expect("it loads");
            node.leave_cluster();
            node
        };
        let nodes = ["one", "two"].map(node);
        let pair = Self {
            instances: nodes
                .each_ref()
                .map(|node| node.shared().cluster.identity.instance),
            addresses: nodes.each_ref().map(|node| node.local_addr().to_string()),
            nodes: nodes.map(Some),
            folder,
        };
        for which in 0..2 {
            pair.cluster(which).identity.enter(ClusterId(7));
            pair.show(which, [MemberState::Up; 2], owner);
        }
        pair
    }

    fn cluster(&self, which: usize) -> &Arc<Cluster> {
        let node = self.nodes[which].as_ref().expect("it runs");
        &node.shared().cluster
    }

    /// Lets a node see the members in these states, and partitions where `owner` says.
    fn show(&self, which: usize, states: [MemberState; 2], owner: fn(Partition) -> usize) {
        let member = |at: usize| {
            Arc::new(Member {
                is_silent: false,
                has_left: false,
                id: NodeId(at as u64 + 1),
                name: ["one", "two"][at].to_owned(),
                instance: self.instances[at],
                incarnation: 1,
                address: self.addresses[at].clone(),
                state: states[at],
                is_me: at == which,
            })
        };
        let members = vec![member(0), member(1)];
        let owner = |partition| Some(NodeId(owner(partition) as u64 + 1));
        let view = View::of(ClusterId(7), 3, members, owner);
        self.cluster(which).show(view);
    }

    fn ask(&self, which: usize, method: &str, target: &str, more: &str, body: &[u8]) -> Response {
        let mut stream = TcpStream::connect(&self.addresses[which]).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("it is one");
        let length = body.len();
        let kind = match method {
            "POST" => "content-type: application/json\r\n",
            _ => "",
        };
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{kind}content-length: {length}\r\n{more}\r\n"
        );
        stream.write_all(head.as_bytes()).expect("it is sent");
        stream.write_all(body).expect("it is sent");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("it is answered");
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let body = bytes.split_off(end.expect("it has a head") + 4);
        let head = String::from_utf8(bytes).expect("a head is text");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Response {
            status: status.expect("a status"),
            head,
            body,
        }
    }

    fn get(&self, which: usize, target: &str) -> Response {
        self.ask(which, "GET", target, "", b"")
    }

    fn post(&self, which: usize, target: &str, body: &Value) -> Response {
        self.ask(which, "POST", target, "", body.to_string().as_bytes())
    }

    fn items(&self, which: usize) -> u64 {
        let node = self.nodes[which].as_ref().expect("it runs");
        node.cache().items()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            drop(node.take());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The partitions of both are mixed, so that each has many runs.
fn owner(partition: Partition) -> usize {
    usize::from(partition.number() / 3 % 2)
}

fn owner_of(key: &str) -> usize {
    owner(Partition::of(key.as_bytes()))
}

/// A key of each node.
fn key_of(which: usize) -> String {
    let mut keys = (0..).map(|number| format!("key{number}"));
    keys.find(|key| owner_of(key) == which)
        .expect("there is one")
}

#[test]
fn any_node_serves_any_key() {
    let pair = Pair::start(&[("persistence.enabled", "false")]);
    for number in 0..24 {
        let key = format!("k{number}");
        let (here, there) = (number % 2, 1 - number % 2);
        let set = pair.post(
            here,
            "/set",
            &json!({"key": key, "value": number, "ttl": 100}),
        );
        assert_eq!(set.status, 200, "{key}: {}", set.json());
        let get = pair.get(there, &format!("/get?key={key}")).json();
        assert_eq!(
            (&get["value"], &get["version"]),
            (&json!(number), &set.json()["version"])
        );
        assert_eq!(
            pair.post(here, "/get", &json!({"key": key})).json()["value"],
            number
        );
        let left = pair.get(here, &format!("/ttl?key={key}")).json()["ttl"].as_f64();
        assert!(left.is_some_and(|left| left > 90.0), "{left:?}");
        let persisted = pair.post(there, "/persist", &json!({"key": key}));
        assert_eq!(persisted.json()["ttl"], Value::Null);
        let expires = pair.post(here, "/expire", &json!({"key": key, "ttl": 50}));
        assert!(
            expires.json()["ttl"]
                .as_f64()
                .is_some_and(|left| left > 40.0)
        );
        assert_eq!(
            pair.get(there, &format!("/exists?key={key}")).json()["exists"],
            true
        );
        let sum = pair
            .post(here, "/incr", &json!({"key": key, "by": 100}))
            .json();
        assert_eq!(sum["value"], number + 100);
        let stale = json!({"key": key, "value": 0, "if_version": get["version"]});
        let (status, code, _) = pair.post(there, "/set", &stale).problem();
        assert_eq!((status, &*code), (412, "precondition_failed"));
    }
    let (one, two) = (pair.items(0), pair.items(1));
    assert!(one > 0 && two > 0 && one + two == 24, "{one} and {two}");
    for number in 0..24 {
        let target = format!("/delete?key=k{number}");
        for expected in [true, false] {
            assert_eq!(
                pair.ask(0, "DELETE", &target, "", b"").json()["deleted"],
                expected
            );
        }
        let gone = pair.get(1, &format!("/get?key=k{number}"));
        assert_eq!(gone.status, 404);
    }
    let status = pair.get(0, "/cluster/status").json();
    assert_eq!(status["members"][1]["name"], "two");
    assert_eq!(status["standing"], "member");
    let held = |at: usize| status["members"][at]["partitions"].as_u64();
    assert_eq!(held(0).zip(held(1)).map(|(a, b)| a + b), Some(1024));
    let ring = pair
        .get(0, &format!("/cluster/ring?key={}", key_of(1)))
        .json();
    assert_eq!(
        (&ring["holder"]["name"], &ring["epoch"]),
        (&json!("two"), &json!(3))
    );
    let metrics = String::from_utf8(pair.get(0, "/metrics").body).expect("it is text");
    assert!(
        metrics.contains("henge_cluster_members{state=\"up\"} 2.0\n"),
        "{metrics}"
    );
}

#[test]
fn values_keep_what_is_said_of_them() {
    let pair = Pair::start(&[("persistence.enabled", "false")]);
    for which in 0..2 {
        let target = format!("/cache/{}", key_of(which));
        // It compresses well, and is large as it is.
        let text = vec![b'x'; 300_000];
        let put = pair.ask(
            0,
            "PUT",
            &target,
            "content-type: text/odd\r\nx-ttl: 60\r\n",
            &text,
        );
        assert_eq!(put.status, 204);
        let etag = put.header("etag").expect("it has one").to_owned();
        for asked in 0..2 {
            let got = pair.get(asked, &target);
            assert_eq!((got.status, got.body.len()), (200, text.len()));
            assert_eq!(got.header("content-type"), Some("text/odd"));
            assert_eq!(got.header("etag"), Some(&*etag));
            let packed = pair.ask(asked, "GET", &target, "accept-encoding: gzip\r\n", b"");
            assert_eq!(packed.header("content-encoding"), Some("gzip"));
            assert!(packed.body.len() < 10_000);
            let head = pair.ask(asked, "HEAD", &target, "", b"");
            assert_eq!(head.header("content-length"), Some("300000"));
            let same = format!("if-none-match: {etag}\r\n");
            assert_eq!(pair.ask(asked, "GET", &target, &same, b"").status, 304);
            assert_eq!(pair.ask(asked, "PUT", &target, &same, b"new").status, 412);
        }
        let random: Vec<u8> = (0..200_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let matching = format!("if-match: {etag}\r\n");
        assert_eq!(pair.ask(1, "PUT", &target, &matching, &random).status, 204);
        assert_eq!(pair.get(0, &target).body, random);
        assert_eq!(pair.ask(0, "DELETE", &target, &matching, b"").status, 412);
        assert_eq!(pair.ask(0, "DELETE", &target, "", b"").status, 204);
        assert_eq!(pair.ask(1, "DELETE", &target, "", b"").status, 404);
    }
}

#[test]
fn batches_are_scattered_and_gathered_in_order() {
    let pair = Pair::start(&[
        ("persistence.enabled", "false"),
        ("compression.algorithm", "none"),
    ]);
    // More than one part of a batch, and more than one answer of each node: 60 values of 40 KB, and a thousand small ones.
    let value = |number: usize| match number % 20 {
        0 => format!("{number}-").repeat(40_000 / 5),
        _ => number.to_string(),
    };
    let keys: Vec<String> = (0..1200).map(|number| format!("key{number}")).collect();
    let item = |(number, key)| json!({"key": key, "value": value(number)});
    let items: Vec<Value> = keys.iter().enumerate().map(item).collect();
    let stored = pair.post(0, "/mset", &json!({"items": items})).json();
    let stored = stored["results"].as_array().expect("results").clone();
    assert_eq!(stored.len(), keys.len());
    let asked: Vec<Value> = keys
        .iter()
        .map(|key| json!(key))
        .chain([json!("absent")])
        .collect();
    for which in 0..2 {
        let got = pair.post(which, "/mget", &json!({"keys": asked})).json();
        let got = got["results"].as_array().expect("results").clone();
        assert_eq!(got.len(), asked.len());
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(got[number]["key"], **key);
            assert_eq!(got[number]["value"], value(number), "{key}");
            assert_eq!(got[number]["version"], stored[number]["version"]);
        }
        assert_eq!(got[1200]["error"]["code"], "key_not_found");
    }
    let (one, two) = (pair.items(0), pair.items(1));
    assert!(
        one > 400 && two > 400 && one + two == 1200,
        "{one} and {two}"
    );

    for which in 0..2 {
        let mut found = Vec::new();
        let mut cursor = "0".to_owned();
        for _ in 0..5000 {
            let target = format!("/keys?prefix=key1&limit=50&cursor={cursor}");
            let page = pair.get(which, &target).json();
            let keys = page["keys"].as_array().expect("keys").iter();
            found.extend(keys.filter_map(|key| key.as_str().map(str::to_owned)));
            page["cursor"]
                .as_str()
                .expect("a cursor")
                .clone_into(&mut cursor);
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(cursor, "0", "it ends");
        found.sort_unstable();
        found.dedup();
        let expected = keys.iter().filter(|key| key.starts_with("key1"));
        assert_eq!(found.len(), expected.count());
    }

    let gone = pair
        .post(1, "/mdelete", &json!({"keys": &asked[600..]}))
        .json();
    let deleted: Vec<bool> = gone["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|one| one["deleted"] == true)
        .collect();
    assert_eq!(deleted.iter().filter(|deleted| **deleted).count(), 600);
    assert_eq!(deleted.last(), Some(&false));
    assert_eq!(pair.items(0) + pair.items(1), 600);
    assert_eq!(
        pair.ask(0, "POST", "/flush", "", b"").json()["flushed"],
        true
    );
    assert_eq!((pair.items(0), pair.items(1)), (0, 0));
}

#[test]
fn writes_to_others_are_answered_when_their_logs_have_them() {
    let pair = Pair::start(&[("persistence.sync", "always")]);
    for which in 0..2 {
        let key = key_of(which);
        let set = pair.post(1 - which, "/set", &json!({"key": key, "value": "v"}));
        assert_eq!(set.status, 200, "{}", set.json());
        assert_eq!(
            pair.get(1 - which, &format!("/get?key={key}")).json()["value"],
            "v"
        );
    }
    assert_eq!(
        pair.ask(0, "POST", "/flush", "", b"").json()["flushed"],
        true
    );
    assert_eq!((pair.items(0), pair.items(1)), (0, 0));
}

/// Is a node to others, takes one question of each connection, and ends it without a word; until one ends that has said nothing.
fn impostor_of(identity: &Identity, listener: &TcpListener) {
    let runtime = data_thread::runtime().expect("a runtime");
    loop {
        let (mut socket, _) = listener.accept().expect("somebody connects");
        let mut first = [0; PREFACE.len()];
        if socket.read_exact(&mut first).is_err() {
            return;
        }
        socket.set_nonblocking(true).expect("it is one");
        runtime.block_on(async {
            let socket = tokio::net::TcpStream::from_std(socket).expect("it is one");
            let greeted = greet::accept(socket, &first, identity).await;
            let Greeted {
                mut socket,
                mut incoming,
                ..
            } = greeted.expect("they know each other");
            while incoming.next(1 << 20).expect("it is a frame").is_none() {
                let read = poll_fn(|cx| incoming.poll_read(&mut socket, cx));
                read.await.expect("it comes");
            }
        });
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let mut pair = Pair::start(&[("persistence.enabled", "false")]);
    let (own, other) = (key_of(0), key_of(1));
    let set = |pair: &Pair, key: &str| pair.post(0, "/set", &json!({"key": key, "value": 1}));

    // It is known to be down.
    pair.show(0, [MemberState::Up, MemberState::Down], owner);
    let address = pair.addresses[1].clone();
    let down = format!("two at {address}, which has this key, is down; nothing was done");
    assert_eq!(
        set(&pair, &other).problem(),
        (503, "owner_down".to_owned(), down)
    );
    assert_eq!(set(&pair, &own).status, 200);
    let both = pair.post(0, "/mget", &json!({"keys": [other, own]})).json();
    assert_eq!(both["results"][0]["error"]["code"], "owner_down");
    assert_eq!(both["results"][1]["value"], 1);
    let (status, code, _) = pair.ask(0, "POST", "/flush", "", b"").problem();
    assert_eq!((status, &*code), (503, "owner_down"));
    assert_eq!(pair.items(0), 1, "nothing was flushed");

    // One of the two is behind.
    pair.show(0, [MemberState::Up; 2], owner);
    pair.show(1, [MemberState::Up; 2], |_| 0);
    let (status, code, detail) = set(&pair, &other).problem();
    assert_eq!((status, &*code), (503, "try_again"), "{detail}");

    // It runs no more, and nobody has noticed.
    let identity = Arc::clone(&pair.cluster(1).identity);
    let gone = pair.nodes[1].take();
    drop(gone);
    for target in ["/get", "/exists", "/ttl"] {
        let (status, code, detail) = pair.get(0, &format!("{target}?key={other}")).problem();
        assert_eq!((status, &*code), (503, "owner_unreachable"), "{detail}");
        assert!(detail.contains(&address), "{detail}");
    }
    let (status, code, detail) = pair.ask(0, "POST", "/flush", "", b"").problem();
    assert_eq!((status, &*code), (503, "partly_flushed"), "{detail}");
    assert!(
        detail.starts_with("forgotten by one; not by two at "),
        "{detail}"
    );
    assert_eq!(pair.items(0), 0);

    // What listens there now takes questions, and goes away.
    let identity = Arc::clone(&identity);
    let impostor = TcpListener::bind(&address).expect("it is free");
    // A view that is new has it tried again at once.
    pair.show(0, [MemberState::Up; 2], owner);
    let questions = thread::spawn(move || impostor_of(&identity, &impostor));
    let (status, code, detail) = set(&pair, &other).problem();
    assert_eq!((status, &*code), (504, "outcome_unknown"), "{detail}");
    let (status, code, detail) = pair.get(0, &format!("/get?key={other}")).problem();
    assert_eq!((status, &*code), (503, "owner_unreachable"), "{detail}");
    // Whether the read came to it is chance: after the write its connections pause for a moment.
    drop(TcpStream::connect(&address).expect("it listens"));
    questions.join().expect("it has ended");

    // It is in no cluster.
    let waits = Standing::Outside(vec!["two does not answer".to_owned()]);
    pair.cluster(0).show(View::outside(waits));
    let (status, code, detail) = set(&pair, &own).problem();
    assert_eq!((status, &*code), (503, "not_in_cluster"), "{detail}");
    assert!(detail.contains("two does not answer"), "{detail}");
    for target in ["/keys", "/cache/k"] {
        assert_eq!(pair.get(0, target).problem().1, "not_in_cluster");
    }
    let ready = pair.get(0, "/ready");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["waits"][0], "two does not answer");
    assert_eq!(pair.get(0, "/cluster/status").json()["standing"], "forming");
}
