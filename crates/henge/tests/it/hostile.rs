//! Clients that mean no good, or know no better. Each gets an answer or a time-out, and the node serves the next request.

use std::net::SocketAddr;
use std::time::Instant;

use crate::client::{Client, DEADLINE, Process, node};

/// The node still serves, over a new connection.
fn still_serves(address: SocketAddr) {
    let mut client = Client::connect(address);
    assert_eq!(
        client.post("/set", r#"{"key":"alive","value":1}"#).status,
        200
    );
    assert_eq!(client.get("/get?key=alive").json()["value"], 1);
}

#[test]
fn what_is_nearly_http() {
    let node = node(&[]);
    let cases: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /get?key=a b HTTP/1.1\r\n\r\n",
        b"POST /set HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /set HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"GET\0/ HTTP/1.1\r\n\r\n",
    ];
    for bytes in cases {
        let mut client = Client::connect(node.local_addr());
        client.send(bytes).expect("sent");
        let response = client.response(true);
        assert_eq!(response.status, 400, "{}", bytes.escape_ascii());
        client.until_closed();
        still_serves(node.local_addr());
    }
}

/// A first line that is not HTTP's is an inline command of the Redis protocol, whatever it is; TLS is closed.
#[test]
fn what_is_no_http() {
    let node = node(&[]);
    let cases: &[(&[u8], &str)] = &[
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
            "",
        ),
        (
            b"GET /get?key=a HTTP/9.9\r\nQUIT\r\n",
            "-ERR wrong number of arguments for 'get' command\r\n+OK\r\n",
        ),
        (b"GET /get\r\nQUIT\r\n", "$-1\r\n+OK\r\n"),
        (
            b"nonsense\r\nQUIT\r\n",
            "-ERR unknown command 'nonsense', with args beginning with: \r\n+OK\r\n",
        ),
    ];
    for (bytes, reply) in cases {
        let mut client = Client::connect(node.local_addr());
        client.send(bytes).expect("sent");
        let came = String::from_utf8_lossy(&client.until_closed()).into_owned();
        assert_eq!(came, *reply, "{}", bytes.escape_ascii());
        still_serves(node.local_addr());
    }
}

/// What is HTTP, and still cannot be answered by what it says.
#[test]
fn requests_that_contradict_themselves_or_lack_a_host() {
    let node = node(&[]);
    // Version, headers, and the status and code of the answer.
    let cases: &[(&str, &str, u16, &str)] = &[
        ("1.1", "", 400, "invalid_host"),
        ("1.1", "host: localhost\r\nhost: b\r\n", 400, "invalid_host"),
        ("1.0", "", 404, "key_not_found"),
        ("1.1", "host: \r\n", 403, "protected_mode"),
        (
            "1.1",
            "host: localhost\r\nexpect: 100-Continue\r\n",
            404,
            "key_not_found",
        ),
        (
            "1.1",
            "host: localhost\r\nexpect: a-miracle\r\n",
            417,
            "expectation_failed",
        ),
        (
            "1.1",
            "host: localhost\r\nexpect: 100-continue\r\nexpect: a-miracle\r\n",
            417,
            "expectation_failed",
        ),
        (
            "1.1",
            "host: localhost\r\nx-consistency-level: ONE\r\nx-consistency-level: ALL\r\n",
            400,
            "invalid_consistency_level",
        ),
        (
            "1.1",
            "host: localhost\r\nx-consistency-level: ALL\r\nx-consistency-level: all\r\n",
            404,
            "key_not_found",
        ),
    ];
    for (version, headers, status, code) in cases {
        let mut client = Client::connect(node.local_addr());
        let request = format!("GET /get?key=a HTTP/{version}\r\n{headers}\r\n");
        client.send(request.as_bytes()).expect("sent");
        let response = client.response(true);
        assert_eq!(
            (response.status, &*response.code()),
            (*status, *code),
            "{headers:?}"
        );
        still_serves(node.local_addr());
    }
}

#[test]
fn heads_that_are_too_large() {
    let node = node(&[]);
    let cookies = "x: y\r\n".repeat(200);
    for (request, status) in [
        (
            format!(
                "GET /get?key={} HTTP/1.1\r\nhost: localhost\r\n\r\n",
                "k".repeat(65_000)
            ),
            404,
        ),
        (
            format!(
                "GET /get?key={} HTTP/1.1\r\nhost: localhost\r\n\r\n",
                "k".repeat(70_000)
            ),
            414,
        ),
        (
            format!(
                "GET /get?key={} HTTP/1.1\r\nhost: localhost\r\n\r\n",
                "k".repeat(300_000)
            ),
            431,
        ),
        (
            format!(
                "GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
                "y".repeat(100_000)
            ),
            200,
        ),
        (
            format!(
                "GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
                "y".repeat(300_000)
            ),
            431,
        ),
        (
            format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{cookies}\r\n"),
            431,
        ),
    ] {
        let mut client = Client::connect(node.local_addr());
        // The node may answer and close before all of it is sent.
        let _ = client.send(request.as_bytes());
        match client.try_response(true) {
            Ok(response) => assert_eq!(response.status, status, "{request:.60}"),
            // A head that never ends can be cut off by a reset that overtakes the answer.
            Err(error) => assert!(
                status == 431 && error.kind() == std::io::ErrorKind::ConnectionReset,
                "{error}"
            ),
        }
        still_serves(node.local_addr());
    }
}

#[test]
fn keys_of_every_length() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    for (len, status) in [(65_535, 200), (65_536, 200), (65_537, 400)] {
        let key = "k".repeat(len);
        let body = format!(r#"{{"key":"{key}","value":1}}"#);
        assert_eq!(client.post("/set", &body).status, status, "{len}");
        let body = format!(r#"{{"key":"{key}"}}"#);
        assert_eq!(client.post("/get", &body).status, status, "{len}");
    }
}

/// A value that was taken can be read by a client whose parser has the common bound of 128, from a batch too.
#[test]
fn deep_json_is_refused() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    for (depth, status) in [(124, 200), (125, 400), (100_000, 400)] {
        for (open, close) in [("[", "]"), ("{\"\":", "}"), ("[\"]\\\"\",", "]")] {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let response = client.post("/set", &format!(r#"{{"key":"d","value":{deep}}}"#));
            assert_eq!(response.status, status, "{depth}: {}", response.text());
            if status == 200 {
                assert_eq!(client.get("/cache/d").text(), deep);
                let results = client.post("/mget", r#"{"keys":["d"]}"#).json();
                assert!(!results["results"][0]["value"].is_null());
            } else {
                assert_eq!(response.code(), "invalid_value");
                assert!(response.text().contains("deeper than 124"));
            }
        }
    }
    assert_eq!(
        client.post("/set", &"[".repeat(100_000)).code(),
        "invalid_json"
    );
    still_serves(node.local_addr());
}

/// They are counted while they are read: ninety megabytes of `{}` took gigabytes.
#[test]
fn a_batch_is_refused_at_the_first_item_too_many() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    for (target, name, item) in [("/mset", "items", "{}"), ("/mget", "keys", "{}")] {
        // What comes after that item is not even looked at, or this would be no JSON.
        let items = vec![item; 1_000_000].join(",");
        let body = format!(r#"{{"{name}":[{items},!"#);
        let response = client.post(target, &body);
        assert_eq!(response.code(), "batch_too_large", "{}", response.text());
        let most = vec![item; 10_000].join(",");
        let response = client.post(target, &format!(r#"{{"{name}":[{most}]}}"#));
        assert_eq!(response.status, 200, "{target}");
    }
    still_serves(node.local_addr());
}

#[test]
fn a_body_cut_off() {
    let node = node(&[]);
    for body in ["", "{\"key\":"] {
        let mut client = Client::connect(node.local_addr());
        let head = "POST /set HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
        client
            .send(format!("{head}{body}").as_bytes())
            .expect("sent");
        drop(client);
        still_serves(node.local_addr());
    }
    // Half closed: the answer says what was wrong, or the connection just ends.
    let mut client = Client::connect(node.local_addr());
    client
        .send(b"POST /set HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        .expect("sent");
    let response = client.response(true);
    assert_eq!((response.status, &*response.code()), (400, "invalid_body"));
    client.until_closed();
    still_serves(node.local_addr());
}

#[test]
fn a_slow_head_is_timed_out() {
    let node = node(&[
        ("limits.header_timeout_ms", "50"),
        ("limits.idle_timeout_ms", "3600000"),
    ]);
    let mut client = Client::connect(node.local_addr());
    client.send(b"GET /health HT").expect("sent");
    let response = client.response(true);
    assert_eq!(
        (response.status, &*response.code()),
        (408, "request_timeout")
    );
    client.until_closed();
    // The time for a head is not the time between requests.
    let mut client = Client::connect(node.local_addr());
    assert_eq!(client.get("/get?key=a").status, 404);
    let mut other = Client::connect(node.local_addr());
    other.send(b"G").expect("sent");
    assert_eq!(other.until_closed(), b"", "nobody knows what it speaks");
    assert_eq!(
        client.get("/get?key=a").status,
        404,
        "it was idle for longer than a head may take"
    );
    still_serves(node.local_addr());
}

#[test]
fn an_idle_connection_is_closed() {
    let node = node(&[
        ("limits.idle_timeout_ms", "50"),
        ("limits.header_timeout_ms", "3600000"),
    ]);
    let mut fresh = Client::connect(node.local_addr());
    assert_eq!(fresh.until_closed(), b"");
    let mut used = Client::connect(node.local_addr());
    assert_eq!(used.get("/get?key=a").status, 404);
    assert_eq!(used.until_closed(), b"");
    let mut client = Client::connect(node.local_addr());
    let stats = client.get("/metrics/json").json();
    assert!(stats["network"]["timed_out"].as_u64() >= Some(2), "{stats}");
}

#[test]
fn a_slow_body_is_timed_out() {
    let node = node(&[("limits.body_timeout_ms", "50")]);
    let mut client = Client::connect(node.local_addr());
    client
        .send(b"POST /set HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"key\"")
        .expect("sent");
    let response = client.response(true);
    assert_eq!(
        (response.status, &*response.code()),
        (408, "request_timeout")
    );
    assert_eq!(response.header("connection"), Some("close"));
    client.until_closed();
    still_serves(node.local_addr());
}

#[test]
fn a_client_that_takes_no_answer_is_cut_off() {
    let node = node(&[("limits.write_timeout_ms", "50")]);
    let mut client = Client::connect(node.local_addr());
    let value = "v".repeat(16 << 20);
    assert_eq!(
        client
            .request(
                "PUT",
                "/cache/big",
                &[("content-type", "a/b")],
                value.as_bytes()
            )
            .status,
        204
    );
    let mut slow = Client::connect(node.local_addr());
    slow.send(
        b"GET /cache/big HTTP/1.1\r\nhost: localhost\r\n\r\n"
            .repeat(8)
            .as_slice(),
    )
    .expect("sent");
    // Nothing is read until the node has given up on it. It is counted a moment before what it held is free.
    let deadline = Instant::now() + DEADLINE;
    loop {
        let stats = client.get("/metrics/json").json();
        let left = (
            &stats["connections"]["open"],
            &stats["memory"]["in_flight_bytes"],
        );
        if stats["network"]["timed_out"] == 1 && left == (&1.into(), &0.into()) {
            break;
        }
        assert!(Instant::now() < deadline, "{stats}");
        std::thread::yield_now();
    }
    still_serves(node.local_addr());
}

/// The second of two pipelined requests is answered when the client has taken the first answer, by what is there then.
#[test]
fn a_request_that_waited_sees_no_expired_item() {
    // The sweep must not find it first.
    let node = node(&[("cache.cleanup_interval_ms", "60000")]);
    let mut client = Client::connect(node.local_addr());
    let value = vec![b'v'; 16 << 20];
    let put = client.request("PUT", "/cache/big", &[("content-type", "a/b")], &value);
    assert_eq!(put.status, 204);
    for key in ["short", "witness"] {
        let set = format!(r#"{{"key":"{key}","value":1,"ttl":0.3}}"#);
        assert_eq!(client.post("/set", &set).status, 200);
    }
    let mut slow = Client::connect(node.local_addr());
    slow.send(
        b"GET /cache/big HTTP/1.1\r\nhost: localhost\r\n\r\nGET /get?key=short HTTP/1.1\r\nhost: localhost\r\n\r\n",
    )
    .expect("sent");
    // Its own key is not looked at, since who finds an expired item takes it away.
    let deadline = Instant::now() + DEADLINE;
    while client.get("/get?key=witness").status == 200 {
        assert!(Instant::now() < deadline, "it never expires");
        std::thread::yield_now();
    }
    assert_eq!(slow.response(true).body.len(), value.len());
    assert_eq!(slow.response(true).status, 404);
}

/// A client that looks for the answer only after its whole body is sent, as most do.
#[test]
fn who_sends_all_of_too_large_a_body_reads_why_not() {
    let node = node(&[
        ("limits.max_value_bytes", "1MiB"),
        ("limits.max_body_bytes", "2MiB"),
    ]);
    for (target, method, code) in [
        ("/cache/k", "PUT", "value_too_large"),
        ("/set", "POST", "body_too_large"),
    ] {
        let mut client = Client::connect(node.local_addr());
        let response = client.request(method, target, &[], &vec![b'x'; 40 << 20]);
        assert_eq!((response.status, &*response.code()), (413, code));
        client.until_closed();
    }
    still_serves(node.local_addr());
}

#[test]
fn bodies_in_flight_are_bounded() {
    let node = node(&[
        ("limits.max_value_bytes", "1MiB"),
        ("limits.max_body_bytes", "2MiB"),
        ("limits.max_inflight_bytes", "2MiB"),
    ]);
    let mut stalled = Vec::new();
    let mut refused = None;
    for _ in 0..8 {
        let mut client = Client::connect(node.local_addr());
        client
            .send(b"PUT /cache/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1048576\r\n\r\n")
            .expect("sent");
        let _ = client.send(&vec![b'x'; 1 << 19]);
        stalled.push(client);
    }
    // Those that were refused say so; at least one must have been.
    for mut client in stalled.drain(..).rev() {
        let _ = client.send(&vec![b'x'; 1 << 19]);
        let response = client.try_response(true);
        if let Ok(response) = response {
            if response.status == 503 {
                assert_eq!(response.code(), "overloaded");
                assert_eq!(response.header("retry-after"), Some("1"));
                refused = Some(());
            } else {
                assert_eq!(response.status, 204);
            }
        }
    }
    assert_eq!(refused, Some(()));
    still_serves(node.local_addr());
}

/// A body of JSON and the value decoded from it are both there at once, and both count.
#[test]
fn decoded_values_in_flight_are_bounded() {
    let node = node(&[
        ("limits.max_value_bytes", "2MiB"),
        ("limits.max_body_bytes", "3MiB"),
        ("limits.max_inflight_bytes", "3MiB"),
        ("compression.algorithm", "none"),
    ]);
    let mut client = Client::connect(node.local_addr());
    for (len, status) in [(1_000_000, 200), (2_000_000, 503)] {
        let value = "v".repeat(len);
        let base64 = "dnZ2".repeat(len / 3);
        for member in [
            format!(r#""value":"{value}""#),
            format!(r#""value":"\n{value}""#),
            format!(r#""value":["{value}"]"#),
            format!(r#""value_base64":"{base64}""#),
        ] {
            let set = client.post("/set", &format!(r#"{{"key":"k",{member}}}"#));
            assert_eq!(set.status, status, "{member:.20} {}", set.text());
            let mset = client.post("/mset", &format!(r#"{{"items":[{{"key":"k",{member}}}]}}"#));
            assert_eq!(mset.status, status, "{member:.20} {}", mset.text());
            if status == 503 {
                assert_eq!(set.code(), "overloaded");
            } else {
                let got = client.get("/get?key=k").json()["value"].clone();
                let mget = client.post("/mget", r#"{"keys":["none","k"]}"#).json();
                assert_eq!(mget["results"][1]["value"], got, "{member:.20}");
                let got = got.as_str().or(got[0].as_str()).expect("text").to_owned();
                assert!(got.trim_start().bytes().all(|byte| byte == b'v'));
                assert!(got.len() >= len / 3 * 3, "{member:.20}");
            }
            let stats = client.get("/metrics/json").json();
            assert_eq!(stats["memory"]["in_flight_bytes"], 0);
        }
    }
    still_serves(node.local_addr());
}

#[test]
fn too_many_connections_are_turned_away() {
    let node = node(&[("limits.max_connections", "2")]);
    let mut one = Client::connect(node.local_addr());
    let mut two = Client::connect(node.local_addr());
    assert_eq!(one.get("/get?key=a").status, 404);
    assert_eq!(two.get("/get?key=a").status, 404);
    let mut three = Client::connect(node.local_addr());
    let refused = three.response(true);
    assert_eq!(
        (refused.status, &*refused.code()),
        (503, "too_many_connections")
    );
    three.until_closed();
    assert_eq!(one.get("/stats").json()["connections"]["refused"], 1);
    drop(two);
    // Its place is free as soon as the node has seen it go.
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "its place is never free");
        let mut client = Client::connect(node.local_addr());
        if client
            .send(b"GET /get?key=a HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .is_ok()
            && client
                .try_response(true)
                .is_ok_and(|response| response.status == 404)
        {
            break;
        }
    }
}

/// Ten thousand clients at once, each served. Both sides need a file for each connection, so the node is a process of its
/// own.
#[test]
fn ten_thousand_connections() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    const WANTED: usize = 10_000;
    // For the tests that run beside this one.
    const SPARE: usize = 500;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be raised to the hard one");
    let allowed = limit.maximum.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    });
    let count = WANTED.min(allowed.saturating_sub(SPARE));
    if count < WANTED {
        eprintln!("only {count} connections: the hard limit of open files is {allowed}");
    }
    let process = Process::start(Process::command(&[]));
    let mut clients: Vec<Client> = (0..count)
        .map(|_| Client::connect(process.address))
        .collect();
    let request = b"GET /get?key=a HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for client in &mut clients {
        client.send(request).expect("sent");
    }
    for client in &mut clients {
        assert_eq!(client.response(true).status, 404);
    }
    let stats = clients[0].get("/stats").json();
    assert!(
        stats["connections"]["open"].as_u64() >= Some(count as u64),
        "{stats}"
    );
    drop(clients);
    still_serves(process.address);
}
