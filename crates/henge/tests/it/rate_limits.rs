//! Rate limits: what clients of each protocol are told who ask too often, whose requests are counted together, what is exempt, and
//! that a reload changes them. Rates are so low that nothing comes while a test runs, or so high that all is granted.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use henge::Node;
use rustix::process::Signal;
use serde_json::json;

use crate::access::{made, write_private};
use crate::client::{Client, DEADLINE, Process, Response, data_directory, node};
use crate::cluster::Ring;
use crate::side_by_side::Connection;

/// The least rate there is.
const ONE_A_SECOND: &str = "1";

fn resp(node: &Node) -> Connection {
    Connection::open(node.local_addr(), 2)
}

/// What a reply asks to wait, in milliseconds, of one that says that the limit is reached.
fn wait_of(reply: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(reply).ok()?;
    let ms = text.strip_prefix("-ERR rate limit exceeded, retry in ")?;
    ms.strip_suffix(" ms\r\n")?.parse().ok()
}

/// The first answer that says that the limit is reached, of a client that asks faster than once a second.
fn refused_answer(client: &mut Client, target: &str) -> Response {
    let mut answers = (0..1_000).map(|_| client.get(target));
    let refused = answers.find(|answer| answer.status == 429);
    refused.expect("more than the rate was asked")
}

#[test]
fn a_pipeline_is_served_as_far_as_its_tokens_go() {
    let node = node(&[
        ("rate_limits.address_requests_per_second", ONE_A_SECOND),
        ("rate_limits.burst_ms", "40000"),
    ]);
    let begun = Instant::now();
    let mut connection = resp(&node);
    for number in 0..100 {
        connection.send(&["SET", "k", &number.to_string()]);
    }
    let replies: Vec<_> = (0..100).map(|_| connection.reply()).collect();
    let came = usize::try_from(begun.elapsed().as_secs()).expect("it is short") + 1;
    let served = replies.iter().filter(|reply| *reply == b"+OK\r\n").count();
    assert!((40..=40 + came).contains(&served), "{served}, {came}");
    let refused = replies.iter().filter(|reply| *reply != b"+OK\r\n");
    for reply in refused {
        let wait = wait_of(reply).expect("it says when to come again");
        assert!((1..=1_000).contains(&wait), "{wait}");
    }
    // It is the address's, whatever the connection and the protocol.
    let mut client = Client::connect(node.local_addr());
    let refused = refused_answer(&mut client, "/get?key=k");
    assert_eq!(refused.code(), "rate_limit_exceeded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("ratelimit"), Some("\"address\";r=0;t=1"));
    assert_eq!(
        refused.header("ratelimit-policy"),
        Some("\"address\";q=40;w=40")
    );
    let detail = refused.json()["detail"].as_str().map(str::to_owned);
    let detail = detail.expect("a text");
    assert!(
        detail.starts_with("the limit of requests of the address is reached, retry in "),
        "{detail}"
    );
    // Lines by hand as well.
    let mut inline = TcpStream::connect(node.local_addr()).expect("the node listens");
    inline.set_read_timeout(Some(DEADLINE)).expect("a socket");
    inline
        .write_all(&b"GET k\r\n".repeat(64))
        .expect("it is sent");
    inline.shutdown(Shutdown::Write).expect("a socket");
    let mut replies = Vec::new();
    inline.read_to_end(&mut replies).expect("it is closed");
    let replies = String::from_utf8_lossy(&replies);
    assert!(
        replies.contains("-ERR rate limit exceeded, retry in "),
        "{replies}"
    );

    // What is said of the node itself is not counted.
    for target in ["/health", "/ready", "/metrics", "/metrics/json"] {
        for _ in 0..3 {
            let answer = client.get(target);
            assert_eq!(answer.status, 200, "{target}");
            assert_eq!(answer.header("ratelimit"), None);
        }
    }
    let metrics = client.get("/metrics").text();
    let counted = |scope: &str| -> u64 {
        let name = format!("henge_rate_limited_requests_total{{scope=\"{scope}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.expect("it is there").parse().expect("a number")
    };
    assert!(counted("address") >= 50);
    assert_eq!((counted("key"), counted("node")), (0, 0));
    let page = client.get("/metrics/json").json();
    assert_eq!(
        page["network"]["rate_limited"]["address"],
        json!(counted("address"))
    );
}

#[test]
fn what_is_exempt_is_configured() {
    let node = node(&[
        ("rate_limits.node_requests_per_second", ONE_A_SECOND),
        ("rate_limits.exempt_health", "false"),
        ("rate_limits.exempt_metrics", "false"),
    ]);
    for target in ["/health", "/metrics"] {
        refused_answer(&mut Client::connect(node.local_addr()), target);
    }
}

#[test]
fn each_key_has_its_own_and_strangers_none_of_the_nodes() {
    let directory = data_directory();
    let file = directory.join("keys.toml");
    let (one, of_one) = made(&["one", "--permissions=read,write"]);
    let (two, of_two) = made(&["two", "--permissions=read,write"]);
    write_private(&file, &(of_one + &of_two));
    let node = node(&[
        ("security.key_file", &file.display().to_string()),
        ("rate_limits.key_requests_per_second", ONE_A_SECOND),
        ("rate_limits.node_requests_per_second", ONE_A_SECOND),
        // Some minutes' worth for the node: less than strangers ask below.
        ("rate_limits.burst_ms", "600000"),
    ]);
    let mut stranger = resp(&node);
    for _ in 0..1_000 {
        stranger.send(&["GET", "k"]);
    }
    for _ in 0..1_000 {
        assert!(stranger.reply().starts_with(b"-NOAUTH "));
    }
    let spend = |key: &str, count: usize| -> usize {
        let mut connection = resp(&node);
        assert_eq!(connection.call(&["AUTH", key]), b"+OK\r\n");
        (0..count).for_each(|_| connection.send(&["GET", "k"]));
        let replies: Vec<_> = (0..count).map(|_| connection.reply()).collect();
        replies
            .iter()
            .filter(|reply| wait_of(reply).is_none())
            .count()
    };
    assert_eq!(spend(&one, 300), 300);
    // The node has some 300 left, of which the other key may have all.
    let rest = spend(&two, 600);
    assert!((290..600).contains(&rest), "{rest}");
    let mut client = Client::connect(node.local_addr());
    let bearer = format!("Bearer {two}");
    let answer = client.request("GET", "/get?key=k", &[("authorization", &bearer)], b"");
    if answer.status == 429 {
        let left = answer.header("ratelimit").expect("it is said");
        assert!(left.starts_with("\"node\";r=0;t="), "{left}");
    } else {
        assert_eq!(answer.status, 404, "a second has passed");
    }
    fs::remove_dir_all(directory).expect("it is ours");
}

#[test]
fn bytes_are_counted_both_ways() {
    let node = node(&[
        ("rate_limits.address_bytes_per_second", "1KiB"),
        ("rate_limits.burst_ms", "600000"),
    ]);
    let value = "v".repeat(400_000);
    let mut connection = resp(&node);
    // 600 KiB are there: 390 of it in, and the rest is not enough to have it back twice.
    assert_eq!(connection.call(&["SET", "k", &value]), b"+OK\r\n");
    assert!(connection.call(&["GET", "k"]).len() > 400_000);
    let reply = connection.call(&["GET", "k"]);
    let wait = wait_of(&reply).expect("it owes some 190 KiB");
    assert!(wait > 100_000 && wait < 300_000, "{wait}");
    let mut client = Client::connect(node.local_addr());
    let answer = client.get("/get?key=k");
    assert_eq!(answer.status, 429);
    let limited = answer.header("ratelimit").expect("it is said");
    assert!(limited.starts_with("\"address-bytes\";r=0;t="), "{limited}");
    let after: u64 = {
        let text = answer.header("retry-after").expect("it is said");
        text.parse().expect("a number")
    };
    // Less where another thread answers, which does not know what that one is owed.
    assert!((1..300).contains(&after), "{after}");
    assert_eq!(
        answer.header("ratelimit-policy"),
        Some("\"address-bytes\";q=614400;w=600;qu=\"content-bytes\"")
    );
    // A body that is refused is not kept, and costs nothing.
    let refused = client.request("PUT", "/cache/k", &[], value.as_bytes());
    assert_eq!(refused.status, 429);
}

#[test]
fn what_is_left_is_told_and_a_reload_gives_more() {
    let directory = data_directory();
    fs::create_dir_all(&directory).expect("a folder");
    let path = directory.join("henge.toml");
    let write = |rate: &str| {
        let text =
            format!("[rate_limits]\naddress_requests_per_second = {rate}\nburst_ms = 60000\n");
        fs::write(&path, text).expect("it is written");
    };
    write("\"none\"");
    let path_text = path.display().to_string();
    let process = Process::start(Process::command(&["--config", &path_text]));
    let mut client = Client::connect(process.address);
    assert_eq!(client.get("/get?key=k").header("ratelimit"), None);
    write("1");
    assert_eq!(client.post("/admin/reload", "").status, 200);
    let left = |client: &mut Client| -> u64 {
        let answer = client.get("/get?key=k");
        assert_eq!(answer.status, 404);
        let left = answer.header("ratelimit").expect("it is said").to_owned();
        let left = left
            .strip_prefix("\"address\";r=")
            .expect("it is the address's");
        left.parse().expect("a number")
    };
    let first = left(&mut client);
    assert!((1..60).contains(&first), "{first}");
    write("\"none\"");
    assert_eq!(client.post("/admin/reload", "").status, 200);
    assert_eq!(client.get("/get?key=k").header("ratelimit"), None);
    process.signal(Signal::TERM);
    process.wait();
    fs::remove_dir_all(directory).expect("it is ours");
}

/// What is sent on to another node is counted by the one that was asked, once.
#[test]
fn in_a_cluster_who_is_asked_counts() {
    let ring = Ring::new()
        .set("rate_limits.address_requests_per_second=1")
        .set("rate_limits.burst_ms=100000")
        .formed(3);
    let begun = Instant::now();
    let mut connection = Connection::open(ring.address(1), 2);
    for number in 0..150 {
        connection.send(&["GET", &format!("k{number}")]);
    }
    let replies: Vec<_> = (0..150).map(|_| connection.reply()).collect();
    let served = replies.iter().filter(|reply| *reply == b"$-1\r\n").count();
    let came = usize::try_from(begun.elapsed().as_secs()).expect("it is short") + 1;
    // Less what threads have in advance that were not asked.
    assert!((80..=100 + came).contains(&served), "{served}, {came}");
    let others = replies.iter().filter(|reply| wait_of(reply).is_some());
    assert_eq!(others.count() + served, 150);
}

/// Whoever changes who it is in the midst of a pipeline pays as who it was with what came before, and as who it is with the rest.
#[test]
fn nobody_passes_by_being_somebody_else_for_a_while() {
    let directory = data_directory();
    let file = directory.join("keys.toml");
    let (one, of_one) = made(&["one", "--permissions=read"]);
    let (two, of_two) = made(&["two", "--permissions=read"]);
    write_private(&file, &(of_one + &of_two));
    let path = file.display().to_string();
    let settings = |limited| {
        [
            ("security.key_file", path.as_str()),
            (limited, ONE_A_SECOND),
            ("rate_limits.burst_ms", "20000"),
        ]
    };
    let auth = |key| ["AUTH", key];
    // In one batch, so that the last word would be about all of it.
    let pipeline = |connection: &mut Connection, last: &[&str]| -> usize {
        connection.send(&auth(one.as_str()));
        (0..40).for_each(|_| connection.send(&["GET", "k"]));
        connection.send(last);
        let replies: Vec<_> = (0..42).map(|_| connection.reply()).collect();
        let served = replies.iter().filter(|reply| *reply == b"$-1\r\n");
        served.count()
    };
    for last in [&["RESET"][..], &auth(two.as_str())] {
        for limited in [
            "rate_limits.key_requests_per_second",
            "rate_limits.node_requests_per_second",
        ] {
            let node = node(&settings(limited));
            let begun = Instant::now();
            let mut connection = resp(&node);
            let served: usize = (0..4).map(|_| pipeline(&mut connection, last)).sum();
            let came = usize::try_from(begun.elapsed().as_secs()).expect("it is short") + 1;
            assert!(served <= 20 + came, "{limited}, {last:?}: {served}, {came}");
            // The other pays for what it asks itself: where the node is limited there is nothing left for it.
            let mut other = resp(&node);
            assert_eq!(other.call(&auth(two.as_str())), b"+OK\r\n");
            let is_refused = wait_of(&other.call(&["GET", "k"])).is_some();
            let is_nodes = limited == "rate_limits.node_requests_per_second";
            assert!(is_nodes || !is_refused, "{limited}, {last:?}");
        }
    }
    fs::remove_dir_all(directory).expect("it is ours");
}

/// Who needs no key is nobody else behind a RESET, and pays for it.
#[test]
fn a_reset_changes_nothing_for_who_needs_no_key() {
    let node = node(&[
        ("rate_limits.node_requests_per_second", ONE_A_SECOND),
        ("rate_limits.burst_ms", "20000"),
    ]);
    let begun = Instant::now();
    let mut connection = resp(&node);
    let mut served = 0;
    for _ in 0..4 {
        connection.send(&["RESET"]);
        (0..40).for_each(|_| connection.send(&["GET", "k"]));
        let replies: Vec<_> = (0..41).map(|_| connection.reply()).collect();
        served += replies.iter().filter(|reply| *reply == b"$-1\r\n").count();
    }
    let came = usize::try_from(begun.elapsed().as_secs()).expect("it is short") + 1;
    assert!(served <= 20 + came, "{served}, {came}");
}

/// What came with a request that is denied may be of others behind it, who have a key.
#[test]
fn bytes_behind_a_denied_request_are_paid_for() {
    const BEHIND: usize = 20;
    let directory = data_directory();
    let file = directory.join("keys.toml");
    let (one, of_one) = made(&["one", "--permissions=read"]);
    write_private(&file, &of_one);
    let node = node(&[
        ("security.key_file", &file.display().to_string()),
        ("rate_limits.key_bytes_per_second", "1KiB"),
        ("rate_limits.burst_ms", "20000"),
    ]);
    let padding = "x".repeat(8 * 1024);
    let denied = "GET /get?key=k HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let behind = format!(
        "GET /get?key=k HTTP/1.1\r\nhost: localhost\r\nx-api-key: {one}\r\nx-padding: {padding}\r\n\r\n"
    );
    let all = denied.to_owned() + &behind.repeat(BEHIND);
    let mut client = Client::connect(node.local_addr());
    client.send(all.as_bytes()).expect("it is sent");
    assert_eq!(client.response(true).status, 401);
    let statuses: Vec<u16> = (0..BEHIND).map(|_| client.response(true).status).collect();
    let served = statuses.iter().filter(|status| **status == 404).count();
    // 20 KiB are there, and a request is 8 KiB.
    assert!(served <= 4, "{statuses:?}");
    assert_eq!(statuses[BEHIND - 1], 429);
    fs::remove_dir_all(directory).expect("it is ours");
}

/// Where nothing is left, what no command is is nothing all the same, and what a browser was made to send ends the connection.
#[test]
fn what_is_no_command_is_not_answered_by_a_limit() {
    let node = node(&[("rate_limits.address_requests_per_second", ONE_A_SECOND)]);
    let mut client = Client::connect(node.local_addr());
    refused_answer(&mut client, "/get?key=k");
    let exchange = |bytes: &[u8]| -> String {
        let mut socket = TcpStream::connect(node.local_addr()).expect("the node listens");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
        socket.write_all(bytes).expect("it is sent");
        // What is behind the line that ends the connection may not be taken.
        let _ = socket.shutdown(Shutdown::Write);
        let mut replies = Vec::new();
        let _ = socket.read_to_end(&mut replies);
        String::from_utf8_lossy(&replies).into_owned()
    };
    let lines = "\r\n".repeat(20);
    let replies = exchange(format!("PING\r\n{lines}PING\r\n").as_bytes());
    assert_eq!(replies.lines().count(), 2, "{replies}");
    assert_eq!(exchange(b"\r\nhost: x\r\nSET k evil\r\n"), "");
    let begun = Instant::now();
    let mut asked = std::iter::repeat_with(|| client.get("/get?key=k").status);
    let served = asked.find(|&status| status != 429 || begun.elapsed() > DEADLINE);
    assert_eq!(served, Some(404));
}

/// What has come behind a request that is not counted is counted with the one that it is of.
#[test]
fn what_is_not_counted_hides_nothing() {
    let node = node(&[
        ("rate_limits.address_bytes_per_second", "1KiB"),
        ("rate_limits.burst_ms", "20000"),
    ]);
    let mut client = Client::connect(node.local_addr());
    let value = "v".repeat(15_000);
    let pair = format!(
        "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nPUT /cache/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{value}",
        value.len()
    );
    let mut statuses = Vec::new();
    for _ in 0..4 {
        client.send(pair.as_bytes()).expect("it is sent");
        assert_eq!(client.response(true).status, 200);
        let answer = client.response(true);
        statuses.push(answer.status);
        if answer.header("connection") == Some("close") {
            break;
        }
    }
    // 20 KiB are there: one is served, and a second while something is left.
    assert!(statuses.contains(&429), "{statuses:?}");
}

/// What a connection has had before there was a limit is not held against it, nor what was refused.
#[test]
fn what_came_before_a_limit_is_not_counted() {
    let directory = data_directory();
    fs::create_dir_all(&directory).expect("a folder");
    let path = directory.join("henge.toml");
    let write = |rate: &str| {
        let text = format!("[rate_limits]\naddress_bytes_per_second = {rate}\nburst_ms = 60000\n");
        fs::write(&path, text).expect("it is written");
    };
    write("\"none\"");
    let path_text = path.display().to_string();
    let process = Process::start(Process::command(&["--config", &path_text]));
    let mut client = Client::connect(process.address);
    let value = "v".repeat(500_000);
    let put = client.request("PUT", "/cache/k", &[], value.as_bytes());
    assert!(put.status < 300, "{}", put.status);
    write("\"1KiB\"");
    assert_eq!(client.post("/admin/reload", "").status, 200);
    for _ in 0..5 {
        assert_eq!(client.get("/get?key=none").status, 404);
    }
    process.signal(Signal::TERM);
    process.wait();
    fs::remove_dir_all(directory).expect("it is ours");
}
