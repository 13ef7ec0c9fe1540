//! Who has shown no key: whom a node serves nevertheless, what a web page of somebody else is kept from, and what a stranger may
//! cost.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use super::{made, write_private};
use crate::client::{Client, DEADLINE, data_directory, node, skipped};
use crate::side_by_side::Connection;

/// An address of this machine that is not the loopback's, if it has one.
fn address_of_machine() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only says over which address it would be.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

#[test]
fn without_keys_only_the_machine_itself_is_served() {
    let Some(address) = address_of_machine() else {
        skipped("an address beside the loopback", "clients from elsewhere");
        return;
    };
    for (is_protected, expected) in [("true", 403), ("false", 404)] {
        let settings = [
            ("server.listen", "0.0.0.0:0"),
            ("security.protected_mode", is_protected),
        ];
        let node = node(&settings);
        let far = std::net::SocketAddr::new(address, node.local_addr().port());
        let near = std::net::SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), far.port());
        let mut client = Client::connect(far);
        for (target, status) in [("/health", "ok"), ("/ready", "ready")] {
            let answer = client.get(target);
            assert_eq!(answer.status, 200);
            if is_protected == "true" {
                assert_eq!(answer.json(), json!({"status": status}), "and no more");
            }
        }
        let answer = client.get("/get?key=k");
        assert_eq!(answer.status, expected);
        assert_eq!(Client::connect(near).get("/get?key=k").status, 404);
        let mut connection = Connection::open(far, 2);
        let reply = connection.call(&["GET", "k"]).escape_ascii().to_string();
        if is_protected == "true" {
            assert_eq!(answer.code(), "protected_mode");
            assert!(answer.text().contains("henge key new"), "{}", answer.text());
            assert!(
                reply.starts_with("-DENIED ") && reply.contains("henge key new"),
                "{reply}"
            );
            assert_eq!(
                connection.call(&["GET", "k"]),
                b"",
                "the connection is closed"
            );
        } else {
            assert_eq!(reply, "$-1\\r\\n");
        }
        assert_eq!(Connection::open(near, 2).call(&["GET", "k"]), b"$-1\r\n");
    }
}

/// What a browser may be made to send by a page of somebody else.
#[test]
fn web_pages_of_others_change_nothing() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    let set = br#"{"key":"k","value":"v"}"#;
    let origin = ("origin", "http://evil.example");
    for (method, target, headers, body, status, code) in [
        (
            "POST",
            "/set",
            &[("content-type", "application/json"), origin][..],
            &set[..],
            403,
            "origin_not_allowed",
        ),
        (
            "POST",
            "/set",
            &[("content-type", "text/plain")],
            set,
            415,
            "unsupported_media_type",
        ),
        (
            "POST",
            "/set",
            &[("content-type", "application/x-www-form-urlencoded")],
            set,
            415,
            "unsupported_media_type",
        ),
        ("POST", "/flush", &[origin], b"", 403, "origin_not_allowed"),
        (
            "POST",
            "/admin/reload",
            &[origin],
            b"",
            403,
            "origin_not_allowed",
        ),
        (
            "DELETE",
            "/delete?key=k",
            &[origin],
            b"",
            403,
            "origin_not_allowed",
        ),
        (
            "PUT",
            "/cache/k",
            &[origin],
            b"v",
            403,
            "origin_not_allowed",
        ),
        (
            "POST",
            "/set",
            &[("content-type", "application/JSON; charset=utf-8")],
            set,
            200,
            "",
        ),
        (
            "POST",
            "/set",
            &[("content-type", "application/some+json")],
            set,
            200,
            "",
        ),
        ("GET", "/get?key=k", &[origin], b"", 200, ""),
    ] {
        let answer = Client::connect(node.local_addr()).request(method, target, headers, body);
        assert_eq!(
            answer.status,
            status,
            "{method} {target} {headers:?}: {}",
            answer.text()
        );
        if !code.is_empty() {
            assert_eq!(answer.code(), code);
        }
    }
    for host in [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
    ] {
        let request = format!("GET /get?key=k HTTP/1.1\r\nhost: {host}\r\n\r\n");
        client.send(request.as_bytes()).expect("sent");
        assert_eq!(client.response(true).code(), "protected_mode", "{host}");
    }
}

/// What is not served has no more room than it takes to say who it is; who has said so has all.
#[test]
fn strangers_cost_no_memory() {
    let path = data_directory().join("keys.toml");
    let (key, entry) = made(&["web", "--permissions=read,write"]);
    write_private(&path, &entry);
    let node = node(&[("security.key_file", path.to_str().expect("text"))]);
    let large = "x".repeat(1 << 20);
    for words in [&["PING", &large][..], &["AUTH", &large]] {
        let mut connection = Connection::open(node.local_addr(), 2);
        let reply = connection.call(words);
        assert!(
            reply.starts_with(b"-ERR Protocol error"),
            "{}",
            reply.escape_ascii()
        );
        assert_eq!(connection.reply(), b"", "the connection is closed");
    }
    let mut connection = Connection::open(node.local_addr(), 2);
    let many = ["PING"; 17];
    assert!(connection.call(&many).starts_with(b"-ERR Protocol error"));
    // In one pipeline, and in one after the other.
    let mut connection = Connection::open(node.local_addr(), 2);
    connection.send(&["AUTH", &key]);
    connection.send(&["SET", "k", &large]);
    connection.send(&["STRLEN", "k"]);
    assert_eq!(connection.reply(), b"+OK\r\n");
    assert_eq!(connection.reply(), b"+OK\r\n");
    assert_eq!(connection.reply(), b":1048576\r\n");
    assert_eq!(connection.call(&["SET", "k", &large]), b"+OK\r\n");
}

/// A script or an image of a page comes without an Origin, and its browser says so.
#[test]
fn web_pages_of_others_embed_nothing() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    client.request(
        "PUT",
        "/cache/app.js",
        &[("content-type", "text/javascript")],
        b"v",
    );
    for (site, mode, status) in [
        ("cross-site", "no-cors", 403),
        ("same-site", "no-cors", 403),
        ("same-origin", "no-cors", 200),
        ("none", "navigate", 200),
        // Who follows a link sees what it leads to, and the page does not.
        ("cross-site", "navigate", 200),
    ] {
        let headers = [("sec-fetch-mode", mode), ("sec-fetch-site", site)];
        let answer = client.request("GET", "/cache/app.js", &headers, b"");
        assert_eq!(answer.status, status, "{site}, {mode}");
    }
}

/// What a browser is told for pages of other origins, and what those may do then.
#[test]
fn web_pages_that_are_listed() {
    let node = node(&[
        ("cors.origins", "https://console.example"),
        ("cors.max_age", "5m"),
    ]);
    let mut client = Client::connect(node.local_addr());
    let ours = ("origin", "https://console.example");
    let theirs = ("origin", "https://evil.example");
    let asks = ("access-control-request-method", "PUT");
    // Of two neither counts, whichever comes first.
    for both in [[ours, theirs], [theirs, ours]] {
        let refused = client.request("PUT", "/cache/k", &both, b"v");
        assert_eq!(refused.code(), "origin_not_allowed");
    }
    // A browser asks beforehand, and shows no key then.
    let allowed = client.request("OPTIONS", "/cache/k", &[ours, asks], b"");
    assert_eq!(allowed.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://console.example"),
        (
            "access-control-allow-methods",
            "GET, HEAD, POST, PUT, DELETE",
        ),
        ("access-control-max-age", "300"),
        ("vary", "origin"),
    ] {
        assert_eq!(allowed.header(name), Some(value));
    }
    let headers = allowed
        .header("access-control-allow-headers")
        .expect("it says");
    assert!(
        headers.contains("x-api-key") && headers.contains("content-type"),
        "{headers}"
    );
    assert_eq!(allowed.header("access-control-allow-credentials"), None);
    let refused = client.request("OPTIONS", "/cache/k", &[theirs, asks], b"");
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "origin_not_allowed")
    );
    assert_eq!(refused.header("access-control-allow-origin"), None);
    // One that comes behind others is about itself.
    for (before, asked, status) in [(theirs, ours, 204), (ours, theirs, 403)] {
        client.request("GET", "/get?key=k", &[before], b"");
        let answer = client.request("OPTIONS", "/cache/k", &[asked, asks], b"");
        assert_eq!(answer.status, status);
        let expected = (status == 204).then_some(ours.1);
        assert_eq!(answer.header("access-control-allow-origin"), expected);
    }
    // What is no such question is a method that the route does not take.
    assert_eq!(
        client.request("OPTIONS", "/cache/k", &[ours], b"").status,
        405
    );
    let put = client.request("PUT", "/cache/k", &[ours], b"v");
    assert_eq!(
        (put.status, put.header("access-control-allow-origin")),
        (204, Some(ours.1))
    );
    assert_eq!(
        client.request("PUT", "/cache/k", &[theirs], b"v").status,
        403
    );
    for target in ["/cache/k", "/cache/none", "/get?kye=k"] {
        let shown = client.request("GET", target, &[ours], b"");
        assert_eq!(
            shown.header("access-control-allow-origin"),
            Some(ours.1),
            "{target}"
        );
        assert!(shown.header("access-control-expose-headers").is_some());
        let hidden = client.request("GET", target, &[theirs], b"");
        assert_eq!(
            hidden.header("access-control-allow-origin"),
            None,
            "{target}"
        );
        assert_eq!(hidden.header("vary"), Some("origin"));
        assert_eq!(client.get(target).header("vary"), Some("origin"));
    }
    // Of any page, and by default of none.
    let any = crate::client::node(&[("cors.origins", "*")]);
    let mut client = Client::connect(any.local_addr());
    let answer = client.request("POST", "/set", &[theirs], br#"{"key":"k","value":1}"#);
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, Some("*"))
    );
    let closed = crate::client::node(&[]);
    let mut client = Client::connect(closed.local_addr());
    assert_eq!(
        client
            .request("OPTIONS", "/cache/k", &[ours, asks], b"")
            .status,
        403
    );
    let answer = client.request("GET", "/get?key=k", &[ours], b"");
    assert_eq!(
        (
            answer.header("access-control-allow-origin"),
            answer.header("vary")
        ),
        (None, None)
    );
}

/// A pool of clients may be silent as long as it likes; who has shown no key is closed after a while, whatever it says.
#[test]
fn strangers_do_not_stay() {
    let path = data_directory().join("keys.toml");
    let (key, entry) = made(&["web", "--permissions=read"]);
    write_private(&path, &entry);
    let node = node(&[
        ("security.key_file", path.to_str().expect("text")),
        ("limits.idle_timeout_ms", "2000"),
        ("server.resp_listen", "127.0.0.1:0"),
    ]);
    let port = node.resp_addr().expect("it has one");
    let login = ["AUTH", key.as_str()];
    for address in [node.local_addr(), port] {
        let mut known = Connection::open(address, 2);
        assert_eq!(known.call(&login), b"+OK\r\n");
        let mut left = Connection::open(address, 2);
        assert_eq!(left.call(&login), b"+OK\r\n");
        assert_eq!(left.call(&["RESET"]), b"+RESET\r\n");
        let mut silent = Connection::open(address, 2);
        for stranger in [&mut left, &mut silent] {
            assert_eq!(stranger.reply(), b"", "it is closed");
        }
        // Always within a request, or between two.
        for pieces in [&[&b"PING\r\n"[..]][..], &[b"PI", b"NG\r\nPI", b"NG\r\n"]] {
            let mut busy = TcpStream::connect(address).expect("it listens");
            busy.set_read_timeout(Some(DEADLINE)).expect("an option");
            let deadline = std::time::Instant::now() + DEADLINE;
            'open: loop {
                for piece in pieces {
                    let is_gone = busy.write_all(piece).is_err()
                        || piece.ends_with(b"\n") && !matches!(busy.read(&mut [0; 256]), Ok(1..));
                    if is_gone {
                        break 'open;
                    }
                }
                assert!(std::time::Instant::now() < deadline, "it is not closed");
            }
        }
        assert_eq!(known.call(&["PING"]), b"+PONG\r\n", "it has shown a key");
    }
}

/// One address has no more connections than it may, and others have theirs.
#[test]
fn an_address_has_its_own_number_of_connections() {
    let resp = ("server.resp_listen", "127.0.0.1:0");
    let node = node(&[("limits.max_connections_per_address", "3"), resp]);
    let mut open: Vec<Client> = (0..3).map(|_| Client::connect(node.local_addr())).collect();
    for client in &mut open {
        assert_eq!(client.get("/health").status, 200);
    }
    let refused = Client::connect(node.local_addr()).response(true);
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "too_many_connections")
    );
    assert!(refused.text().contains("max_connections_per_address"));
    let port = node.resp_addr().expect("it has one");
    let refused = Connection::open(port, 2).reply();
    assert_eq!(refused, b"-ERR max number of clients reached\r\n");
    // Another address of the loopback is another client.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let other: std::net::SocketAddr = "127.0.0.2:0".parse().expect("an address");
    socket.bind(&other.into()).expect("it is ours");
    socket
        .connect(&node.local_addr().into())
        .expect("it listens");
    let stream = std::net::TcpStream::from(socket);
    assert_eq!(Client::over(Box::new(stream)).get("/health").status, 200);
    drop(open.pop());
    let deadline = std::time::Instant::now() + DEADLINE;
    loop {
        let mut again = Client::connect(node.local_addr());
        // Who is refused may be told so before it has asked.
        let answered = again
            .send(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .and_then(|()| again.try_response(true));
        if answered.is_ok_and(|answer| answer.status == 200) {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "its place is not free"
        );
    }
}
