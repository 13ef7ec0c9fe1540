//! Traces of requests, as a collector of OTLP gets them: of a node by itself, and of a request that goes through a cluster.

mod collector;

use std::time::Instant;

pub(crate) use self::collector::silent;
use self::collector::{Collector, Seen, hostile};
use crate::client::{Client, DEADLINE, Response, node};
use crate::cluster::{Ring, all_is_settled};
use crate::side_by_side::Connection;

/// Whose context a test's requests are in.
const PARENT: &str = "b7ad6b7169203331";
/// A key and a value that nobody has by chance.
const KEY: &str = "secret-key-7f3a";
const VALUE: &str = "secret-value-91bc";

fn trace_id(number: usize) -> String {
    format!("0af7651916cd43dd8448eb21{number:08x}")
}

fn traceparent(number: usize, flags: &str) -> String {
    format!("00-{}-{PARENT}-{flags}", trace_id(number))
}

fn set(client: &mut Client, key: &str, traceparent: &str) -> Response {
    let body = format!(r#"{{"key":"{key}","value":"{VALUE}"}}"#);
    let headers = [
        ("traceparent", traceparent),
        ("tracestate", "vendor=opaque"),
    ];
    client.request("POST", "/set", &headers, body.as_bytes())
}

/// Asks all at once, as a pipeline.
fn ask_all(resp: &mut Connection, requests: &[&[&str]]) -> Vec<u8> {
    for words in requests {
        resp.send(words);
    }
    requests.iter().flat_map(|_| resp.reply()).collect()
}

/// The only span of these that is called so and is of this kind.
fn only<'a>(spans: &'a [Seen], name: &str, kind: i32) -> &'a Seen {
    let found: Vec<&Seen> = spans
        .iter()
        .filter(|span| span.name == name && span.kind == kind)
        .collect();
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

fn assert_secret(collector: &Collector) {
    let bytes = collector.bytes();
    assert!(!bytes.is_empty());
    for secret in [KEY, VALUE] {
        let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found, "{secret} was exported");
    }
}

fn figure(client: &mut Client, name: &str) -> u64 {
    let page = client.get("/metrics/json").json();
    let figure = page["traces"][name].as_u64();
    figure.unwrap_or_else(|| panic!("{}", page["traces"]))
}

#[test]
fn all_requests_of_both_protocols_are_traced_at_a_ratio_of_one() {
    let collector = Collector::start();
    let node = node(&[
        ("tracing.endpoint", &collector.endpoint()),
        ("tracing.sample_ratio", "1"),
        ("cluster.node_id", "n1"),
    ]);
    let mut client = Client::connect(node.local_addr());
    let mut resp = Connection::open(node.local_addr(), 3);
    // A malformed one begins a new trace.
    let malformed = traceparent(1, "01").replace("00-", "0-");
    assert_eq!(set(&mut client, KEY, &malformed).status, 200);
    let headers = [("x-consistency-level", "one")];
    let target = format!("/get?key={KEY}");
    client.request("GET", &target, &headers, b"");
    resp.call(&["SET", KEY, VALUE]);
    resp.call(&["INCR", KEY]);
    resp.call(&["CONFIG", "GET", "cache.policy"]);
    let spans = collector.wait_for("the last one", |spans| {
        let has = |name: &str| spans.iter().any(|span| span.name == name);
        let names = ["POST /set", "GET /get", "SET", "INCR", "CONFIG GET"];
        names.into_iter().all(has).then(|| spans.to_vec())
    });
    for span in &spans {
        assert!(!span.name.contains("metrics"), "that is none of data");
        assert_eq!(span.node(), "n1");
        assert_eq!(span.resource["service.name"], "henge");
        assert_eq!(span.resource["service.instance.id"], "n1");
        assert!(span.has_lasted, "{span:#?}");
        assert_ne!(span.trace, trace_id(1));
        assert_eq!(span.parent.is_empty(), span.name != "wait", "{span:#?}");
    }
    let post = only(&spans, "POST /set", 2);
    assert_eq!(post.attribute("http.request.method"), "POST");
    assert_eq!(post.attribute("http.route"), "/set");
    assert_eq!(post.attribute("http.response.status_code"), "200");
    assert_eq!(
        only(&spans, "GET /get", 2).attribute("henge.consistency"),
        "one"
    );
    let incr = only(&spans, "INCR", 2);
    assert_eq!(incr.attribute("db.operation.name"), "INCR");
    assert_eq!(incr.attribute("network.protocol.name"), "resp");
    assert_eq!(incr.attribute("network.protocol.version"), "3");
    assert_eq!((incr.status, only(&spans, "SET", 2).status), (2, 0));
    // Each trace is one of its own.
    let servers = spans.iter().filter(|span| span.kind == 2);
    let mut traces: Vec<&str> = servers.map(|span| &*span.trace).collect();
    let count = traces.len();
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), count);
    assert_secret(&collector);
    // The node hears of it behind the collector.
    let deadline = Instant::now() + DEADLINE;
    while figure(&mut client, "exported_spans") < spans.len() as u64 {
        assert!(Instant::now() < deadline, "they are not counted");
    }
    assert_eq!(figure(&mut client, "dropped_spans"), 0);
    // What waits when the node ends is sent.
    resp.call(&["ECHO", "last"]);
    assert!(node.shutdown());
    assert!(collector.spans().iter().any(|span| span.name == "ECHO"));
}

/// A part of requests, by chance; none of those that say that they are not recorded; all of those that say they are.
#[test]
fn a_traceparent_decides() {
    let collector = Collector::start();
    let node = node(&[
        ("tracing.endpoint", &collector.endpoint()),
        ("tracing.sample_ratio", "1"),
    ]);
    let mut client = Client::connect(node.local_addr());
    let mut resp = Connection::open(node.local_addr(), 2);
    assert_eq!(set(&mut client, KEY, &traceparent(1, "00")).status, 200);
    let reply = resp.call(&["HENGE", "TRACEPARENT", &traceparent(2, "00")]);
    assert_eq!(reply, b"+OK\r\n");
    resp.call(&["SET", KEY, VALUE]);
    // It was of one command.
    resp.call(&["APPEND", KEY, VALUE]);
    let reply = resp.call(&["HENGE", "TRACEPARENT", "nonsense"]);
    assert!(
        reply.starts_with(b"-ERR that is no traceparent"),
        "{reply:?}"
    );
    let reply = resp.call(&["CONFIG", "SET", "tracing.sample_ratio", "0"]);
    assert_eq!(reply, b"+OK\r\n");
    resp.call(&["STRLEN", KEY]);
    assert_eq!(set(&mut client, KEY, &traceparent(3, "01")).status, 200);
    let reply = resp.call(&["HENGE", "TRACEPARENT", &traceparent(4, "01")]);
    assert_eq!(reply, b"+OK\r\n");
    resp.call(&["GETDEL", KEY]);
    assert!(node.shutdown());
    let spans = collector.spans();
    let has = |name: &str| spans.iter().any(|span| span.name == name);
    assert!(has("APPEND") && !has("SET") && !has("STRLEN"), "{spans:#?}");
    assert!(!spans.iter().any(|span| span.trace == trace_id(1)));
    let post = only(&spans, "POST /set", 2);
    let named = (&*post.trace, &*post.parent, &*post.state);
    assert_eq!(named, (&*trace_id(3), PARENT, "vendor=opaque"));
    let getdel = only(&spans, "GETDEL", 2);
    assert_eq!((&*getdel.trace, &*getdel.parent), (&*trace_id(4), PARENT));
    assert_secret(&collector);
}

/// It has no span, and what was said of its trace is of no other command.
#[test]
fn a_command_that_a_rate_limit_refuses_is_not_traced() {
    let collector = Collector::start();
    let node = node(&[
        ("tracing.endpoint", &collector.endpoint()),
        ("tracing.sample_ratio", "0"),
        ("rate_limits.address_requests_per_second", "1"),
        ("rate_limits.burst_ms", "3000"),
    ]);
    let mut resp = Connection::open(node.local_addr(), 2);
    let deadline = Instant::now() + DEADLINE;
    let until = |what: &str, is_so: &mut dyn FnMut() -> bool| {
        while !is_so() {
            assert!(Instant::now() < deadline, "it is never so: {what}");
        }
    };
    let traced: &[&[&str]] = &[
        &["HENGE", "TRACEPARENT", &traceparent(2, "01")],
        &["STRLEN", KEY],
    ];
    assert_eq!(ask_all(&mut resp, traced), b"+OK\r\n:0\r\n");
    for is_inline in [false, true] {
        let mut ask = |words: &[&str]| {
            if is_inline {
                resp.send_bytes(format!("{}\r\n", words.join(" ")).as_bytes());
            } else {
                resp.send(words);
            }
            resp.reply()
        };
        // A token is there for the first of the two, and none for the second.
        until("the second is refused alone", &mut || {
            let told = ask(&["HENGE", "TRACEPARENT", &traceparent(1, "01")]);
            let set = ask(&["SET", KEY, VALUE]);
            told == b"+OK\r\n" && set.starts_with(b"-ERR rate limit exceeded")
        });
        until("another is served", &mut || {
            ask(&["APPEND", KEY, VALUE]).starts_with(b":")
        });
    }
    assert!(node.shutdown());
    let spans = collector.spans();
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    assert!(names.contains(&"STRLEN"), "{names:?}");
    assert!(!names.contains(&"APPEND"), "{names:?}");
}

/// A write that is traced, and what it came to on the nodes, once all of that was told. It may have been tried in vain before, as a
/// partition may be about to have another leader: what is looked at is the time that it was applied.
#[derive(Clone, Debug)]
struct Write {
    root: Seen,
    /// The question to another node and the answer to it, where the first does not lead.
    forward: Option<(Seen, Seen)>,
    wait: Seen,
    applied: Vec<Seen>,
}

impl Write {
    fn of(spans: &[Seen], trace: &str) -> Option<Self> {
        let mut spans = spans.iter().filter(|span| span.trace == trace);
        let spans: Vec<&Seen> = spans.by_ref().collect();
        let find = |is_that: &dyn Fn(&Seen) -> bool| {
            let found = spans.iter().find(|span| is_that(span));
            found.map(|span| (*span).clone())
        };
        let applied = spans.iter().filter(|span| span.name == "apply");
        let applied: Vec<Seen> = applied.map(|span| (*span).clone()).collect();
        let leader = &applied.first().filter(|_| applied.len() == 2)?.parent;
        let root = find(&|span| span.parent == PARENT)?;
        let forward = if root.id == *leader {
            None
        } else {
            let answered = find(&|span| span.id == *leader)?;
            let asked = find(&|span| span.id == answered.parent)?;
            Some((asked, answered))
        };
        Some(Self {
            wait: find(&|span| span.name == "wait" && span.parent == *leader)?,
            root,
            forward,
            applied,
        })
    }

    fn check(&self, name: &str) {
        let (root, wait) = (&self.root, &self.wait);
        assert_eq!((&*root.name, root.kind, root.node()), (name, 2, "node1"));
        let leader = match &self.forward {
            None => root,
            Some((asked, answered)) => {
                assert_eq!((&*asked.name, asked.kind), ("forward", 3));
                assert_eq!((&*answered.name, answered.kind), ("forward", 2));
                assert_eq!((&asked.parent, asked.node()), (&root.id, root.node()));
                assert_eq!(asked.attribute("henge.peer"), answered.node());
                // What a client's tracestate says goes with its context.
                let states = [&asked.state, &answered.state];
                assert_eq!(states, [&root.state; 2]);
                answered
            }
        };
        assert_eq!(wait.node(), leader.node());
        let mut nodes = vec![leader.node()];
        for apply in &self.applied {
            assert_eq!((&apply.parent, apply.kind), (&leader.id, 1));
            for name in ["henge.partition", "henge.version"] {
                assert_ne!(apply.attribute(name), "", "{apply:#?}");
                assert_eq!(apply.attribute(name), wait.attribute(name), "{self:#?}");
            }
            nodes.push(apply.node());
        }
        nodes.sort_unstable();
        assert_eq!(nodes, ["node1", "node2", "node3"]);
        for span in [root, wait].into_iter().chain(&self.applied) {
            assert_eq!(span.status, 0, "{span:#?}");
        }
    }
}

#[test]
fn a_request_is_followed_through_forwards_and_replicas() {
    let collector = Collector::start();
    let ring = Ring::new()
        .set("cluster.replication_factor=3")
        .set("tracing.sample_ratio=0")
        .set(&format!("tracing.endpoint={}", collector.endpoint()))
        .formed(3);
    // A replica that still copies has a write by its copy, and applies nothing.
    all_is_settled(&ring, 3);
    let mut client = ring.http(1);
    let mut resp = Connection::open(ring.address(1), 2);
    // Of so many keys another node has some, and this one others.
    let keys: Vec<usize> = (1..=24).collect();
    for &number in &keys {
        let key = format!("{KEY}-{number}");
        // What is not to be recorded is recorded nowhere.
        let untraced = set(&mut client, &key, &traceparent(100 + number, "00"));
        assert_eq!(untraced.status, 200, "{}", untraced.text());
        let answer = set(&mut client, &key, &traceparent(number, "01"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        // Two commands at once, of which the first says what the second is in.
        let traced = traceparent(200 + number, "01");
        let replies = ask_all(
            &mut resp,
            &[
                &["HENGE", "TRACEPARENT", &traced],
                &["SET", &key, VALUE],
                &["GET", &key],
            ],
        );
        let expected = format!("+OK\r\n+OK\r\n${}\r\n{VALUE}\r\n", VALUE.len());
        assert_eq!(String::from_utf8_lossy(&replies), expected);
    }
    for (of, name) in [(0, "POST /set"), (200, "SET")] {
        let mut forwarded = 0;
        for &number in &keys {
            let trace = trace_id(of + number);
            let what = format!("the whole of {trace}");
            let write = collector.wait_for(&what, |spans| Write::of(spans, &trace));
            write.check(name);
            forwarded += usize::from(write.forward.is_some());
        }
        assert!(0 < forwarded && forwarded < keys.len(), "{forwarded}");
    }
    let spans = collector.spans();
    let untraced = |span: &Seen| (101..=124).any(|number| span.trace == trace_id(number));
    assert!(!spans.iter().any(untraced), "{spans:#?}");
    assert!(!spans.iter().any(|span| span.name == "GET"), "{spans:#?}");
    assert_secret(&collector);
}

#[test]
fn a_silent_collector_costs_spans_and_nothing_else() {
    let (_listener, endpoint) = silent();
    let node = node(&[
        ("tracing.endpoint", &endpoint),
        ("tracing.sample_ratio", "1"),
        ("server.shutdown_timeout_ms", "500"),
    ]);
    let mut client = Client::connect(node.local_addr());
    let mut resp = Connection::open(node.local_addr(), 2);
    let deadline = Instant::now() + DEADLINE;
    while figure(&mut client, "dropped_spans") == 0 {
        assert!(Instant::now() < deadline, "nothing is ever dropped");
        let requests: Vec<&[&str]> = vec![&["SET", KEY, VALUE]; 500];
        let replies = ask_all(&mut resp, &requests);
        assert_eq!(replies, b"+OK\r\n".repeat(500));
        assert_eq!(client.get(&format!("/get?key={KEY}")).status, 200);
    }
    assert_eq!(figure(&mut client, "exported_spans"), 0);
    node.shutdown();
}

/// Whatever a collector answers costs spans at the most.
#[test]
fn a_collector_may_answer_anything() {
    // Two members of a message: the first is the only one that counts, and says that one span was not taken.
    const PARTLY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n\x0a\x04\x08\x01\x12\x00";
    const ALL: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n\x0a\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x12\x00";
    let long: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n";
    let later: &[u8] = b"HTTP/1.1 503 No\r\nretry-after: 999999999\r\ncontent-length: 0\r\n\r\n";
    let elsewhere: &[u8] =
        b"HTTP/1.1 307 No\r\nlocation: http://[::1]:1/\r\ncontent-length: 0\r\n\r\n";
    let refused: &[u8] = b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n";
    for (answer, rest, takes) in [
        (&b""[..], &b""[..], 0),
        (b"SSH-2.0-OpenSSH_9.9\r\n", b"", 0),
        (
            b"HTTP/1.1 200 OK\r\nx: ",
            b"xxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            0,
        ),
        (long, b"xxxxxxxxxxxxxxxxxxxxxxxxxxxx", 0),
        (later, b"", 0),
        (elsewhere, b"", 0),
        (refused, b"", 0),
        (PARTLY, b"", 1),
        (ALL, b"", 0),
    ] {
        let node = node(&[
            ("tracing.endpoint", &hostile(answer, rest)),
            ("tracing.sample_ratio", "1"),
            ("persistence.enabled", "false"),
        ]);
        let mut client = Client::connect(node.local_addr());
        let replies = {
            let mut resp = Connection::open(node.local_addr(), 2);
            ask_all(&mut resp, &[&["SET", KEY, VALUE], &["ECHO", "e"]])
        };
        assert_eq!(replies, b"+OK\r\n$1\r\ne\r\n");
        let deadline = Instant::now() + DEADLINE;
        let dropped = 2 - takes;
        while figure(&mut client, "dropped_spans") < dropped {
            let what = answer.escape_ascii();
            assert!(Instant::now() < deadline, "nothing is dropped: {what}");
        }
        assert_eq!(figure(&mut client, "exported_spans"), takes);
        assert_eq!(figure(&mut client, "dropped_spans"), dropped);
        node.shutdown();
    }
}
