//! The raw form: bodies, entity tags, lifetimes and encodings.

use crate::client::{Client, Response, node};

fn put(client: &mut Client, key: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    client.request("PUT", &format!("/cache/{key}"), headers, body)
}

#[test]
fn bodies_and_their_types() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    let png = [("content-type", "image/png")];
    for (key, headers, body) in [
        ("a", &png[..], &b"\x89PNG\0"[..]),
        ("b", &[], b"plain"),
        ("empty", &[], b""),
    ] {
        let stored = put(&mut client, key, headers, body);
        assert_eq!((stored.status, stored.body.len()), (204, 0), "{key}");
        let etag = stored.header("etag").expect("an ETag").to_owned();
        let expected = headers.first().map_or("application/octet-stream", |h| h.1);
        for method in ["GET", "HEAD"] {
            let found = client.request(method, &format!("/cache/{key}"), &[], b"");
            assert_eq!(found.status, 200);
            assert_eq!(found.header("content-type"), Some(expected));
            assert_eq!(found.header("etag"), Some(&*etag));
            assert_eq!(
                found.header("content-length"),
                Some(&*body.len().to_string()),
                "{method} {key}"
            );
            assert_eq!(found.body, if method == "GET" { body } else { b"" });
        }
    }
    client.post("/set", r#"{"key":"j","value":{"x":1}}"#);
    let found = client.get("/cache/j");
    assert_eq!(found.header("content-type"), Some("application/json"));
    assert_eq!(found.body, br#"{"x":1}"#);

    assert_eq!(client.request("DELETE", "/cache/a", &[], b"").status, 204);
    assert_eq!(client.request("DELETE", "/cache/a", &[], b"").status, 404);
    assert_eq!(client.get("/cache/a").code(), "key_not_found");
    assert_eq!(client.request("HEAD", "/cache/a", &[], b"").status, 404);
}

#[test]
fn keys_are_the_rest_of_the_path_decoded_once() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    for (path, key) in [
        ("a/b", "a/b"),
        ("a%2Fb", "a/b"),
        ("a%252Fb", "a%2Fb"),
        ("x+y", "x+y"),
        ("//", "//"),
        ("..", ".."),
    ] {
        assert_eq!(
            put(&mut client, path, &[], path.as_bytes()).status,
            204,
            "{path}"
        );
        let body = serde_json::json!({"key": key}).to_string();
        assert_eq!(client.post("/get", &body).json()["value"], path);
    }
    for (path, status, code) in [
        ("", 400, "key_missing"),
        ("%f", 400, "invalid_path"),
        ("a?b", 400, "invalid_query"),
    ] {
        let response = client.get(&format!("/cache/{path}"));
        assert_eq!(
            (response.status, &*response.code()),
            (status, code),
            "{path}"
        );
    }
}

#[test]
fn lifetimes() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    for (headers, ttl) in [
        (&[("cache-control", "public, max-age=600")][..], Some(600)),
        (&[("x-ttl", "599.5")], Some(599)),
        (
            &[("x-ttl", "100"), ("cache-control", "max-age=7")],
            Some(100),
        ),
        (&[("cache-control", "no-cache")], None),
        (&[("x-ttl", "0")], None),
    ] {
        assert_eq!(put(&mut client, "k", headers, b"v").status, 204);
        let found = client.get("/cache/k");
        let left = found
            .header("x-ttl")
            .map(|ttl| ttl.parse::<f64>().expect("seconds"));
        assert_eq!(left.is_some(), ttl.is_some(), "{headers:?}");
        if let (Some(left), Some(ttl)) = (left, ttl) {
            assert!(
                left <= f64::from(ttl) + 0.5 && left > f64::from(ttl) - 60.0,
                "{left}"
            );
            let max_age = found.header("cache-control").expect("a lifetime");
            let seconds: f64 = max_age
                .strip_prefix("max-age=")
                .and_then(|s| s.parse().ok())
                .expect("seconds");
            assert!(seconds <= left && seconds > left - 1.0);
        }
    }
    let twice = put(&mut client, "k", &[("x-ttl", "1"), ("x-ttl", "2")], b"v");
    assert_eq!((twice.status, &*twice.code()), (400, "invalid_ttl"));
    for value in ["-1", "soon", "1e3", "99999999999999"] {
        let response = put(&mut client, "k", &[("x-ttl", value)], b"v");
        assert_eq!(
            (response.status, &*response.code()),
            (400, "invalid_ttl"),
            "{value}"
        );
    }
}

#[test]
fn conditional_requests() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    assert_eq!(
        put(&mut client, "k", &[("if-match", "*")], b"0").code(),
        "precondition_failed"
    );
    let first = put(&mut client, "k", &[("if-none-match", "*")], b"1");
    let old = first.header("etag").expect("an ETag").to_owned();
    assert_eq!(
        put(&mut client, "k", &[("if-none-match", "*")], b"2").status,
        412
    );
    let second = put(&mut client, "k", &[("if-match", &old)], b"2");
    let new = second.header("etag").expect("an ETag").to_owned();
    assert_ne!(old, new);
    let weak = format!("W/{new}");
    let list = format!("\"other\", {old} , {new}");
    let gaps = format!(",{new},");
    for (method, header, value, status) in [
        ("GET", "if-none-match", &*new, 304),
        ("HEAD", "if-none-match", &new, 304),
        ("GET", "if-none-match", &weak, 304),
        ("GET", "if-none-match", &list, 304),
        ("GET", "if-none-match", &gaps, 304),
        ("GET", "if-none-match", "*", 304),
        ("GET", "if-none-match", &old, 200),
        ("GET", "if-match", &new, 200),
        ("GET", "if-match", &list, 200),
        ("GET", "if-match", &weak, 412),
        ("GET", "if-match", &old, 412),
        ("GET", "if-match", "unquoted", 400),
        ("PUT", "if-match", &old, 412),
        ("PUT", "if-match", &weak, 412),
        ("PUT", "if-none-match", &new, 412),
        ("DELETE", "if-match", &old, 412),
        ("DELETE", "if-match", &new, 204),
        ("GET", "if-match", "*", 412),
        ("GET", "if-none-match", "*", 404),
    ] {
        let body: &[u8] = if method == "PUT" { b"3" } else { b"" };
        let response = client.request(method, "/cache/k", &[(header, value)], body);
        assert_eq!(response.status, status, "{method} {header}: {value}");
        if status == 304 {
            assert_eq!(response.header("etag"), Some(&*new));
        }
    }
}

#[test]
fn gzip_is_answered_as_stored() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    for len in [2_000, 300_000] {
        let value = "compress me ".repeat(len / 12);
        put(
            &mut client,
            "k",
            &[("content-type", "text/plain")],
            value.as_bytes(),
        );
        let packed = client.request("GET", "/cache/k", &[("accept-encoding", "br, gzip")], b"");
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        assert_eq!(packed.header("vary"), Some("accept-encoding"));
        assert_eq!(packed.body[..2], [0x1f, 0x8b]);
        assert!(packed.body.len() < value.len() / 4);
        for accepted in [&[][..], &[("accept-encoding", "gzip;q=0")]] {
            let plain = client.request("GET", "/cache/k", accepted, b"");
            assert_eq!(plain.header("content-encoding"), None);
            assert_eq!(plain.header("vary"), Some("accept-encoding"));
            assert_eq!(plain.text(), value);
            let head = client.request("HEAD", "/cache/k", accepted, b"");
            assert_eq!(
                head.header("content-length"),
                Some(&*value.len().to_string())
            );
        }
        assert_eq!(client.get("/get?key=k").json()["value"], value);
    }
    let stats = client.get("/stats").json();
    let ratio = stats["compression"]["ratio"].as_f64().expect("a ratio");
    assert!(ratio > 0.0 && ratio < 0.25, "{ratio}");
}

#[test]
fn what_is_not_taken() {
    let node = node(&[("limits.max_value_bytes", "100KB")]);
    let mut client = Client::connect(node.local_addr());
    let long = format!("text/{}", "x".repeat(251));
    assert_eq!(
        put(&mut client, "k", &[("content-type", &long)], b"v").code(),
        "invalid_content_type"
    );
    assert_eq!(
        put(&mut client, "k", &[("content-type", &long[..255])], b"v").status,
        204
    );
    assert_eq!(
        put(&mut client, "k", &[("content-encoding", "identity")], b"v").status,
        204
    );
    let mut client = Client::connect(node.local_addr());
    assert_eq!(
        put(&mut client, "k", &[("content-encoding", "gzip")], b"v").code(),
        "unsupported_encoding"
    );
    // It is refused by its announced length, before it is sent.
    let mut client = Client::connect(node.local_addr());
    client
        .send(b"PUT /cache/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100001\r\n\r\n")
        .expect("sent");
    let refused = client.response(true);
    assert_eq!((refused.status, &*refused.code()), (413, "value_too_large"));
    client.until_closed();
    // Without an announced length, while it comes.
    let mut client = Client::connect(node.local_addr());
    let mut chunked =
        b"PUT /cache/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..200 {
        chunked.extend_from_slice(b"400\r\n");
        chunked.extend_from_slice(&[b'x'; 1024]);
        chunked.extend_from_slice(b"\r\n");
    }
    // The node may close before all of it is sent.
    let _ = client.send(&chunked);
    let refused = client.response(true);
    assert_eq!((refused.status, &*refused.code()), (413, "value_too_large"));
    let mut client = Client::connect(node.local_addr());
    assert_eq!(put(&mut client, "k", &[], &vec![b'x'; 100_000]).status, 204);
    assert_eq!(client.get("/cache/k").body.len(), 100_000);
}
