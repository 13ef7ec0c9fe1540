//! The JSON routes: tables of requests and what they answer.

#![expect(
    clippy::too_many_lines,
    reason = "tables of cases are as long as there are cases"
)]

use serde_json::{Value, json};

use crate::client::{Client, Response, node};

/// Compares an answer with what was expected: `"*"` stands for any text, and numbers within a second are the same.
fn matches(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::String(star), Value::String(_)) if star == "*" => true,
        (Value::Object(expected), Value::Object(found)) => {
            expected.len() == found.len()
                && expected
                    .iter()
                    .all(|(name, value)| found.get(name).is_some_and(|found| matches(value, found)))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len() && expected.iter().zip(found).all(|(e, f)| matches(e, f))
        }
        (Value::Number(expected), Value::Number(found)) if expected.is_f64() => {
            // What remains of a lifetime: a slow machine may take its time, so only the order of size counts.
            let (expected, found) = (expected.as_f64(), found.as_f64());
            expected
                .zip(found)
                .is_some_and(|(e, f)| f <= e && f > e - 60.0)
        }
        _ => expected == found,
    }
}

/// Runs requests in order over one connection: `method target body`, the status, and the body or the problem's code.
fn run(client: &mut Client, steps: &[(&str, &str, &str, u16, Value)]) {
    for (method, target, body, status, expected) in steps {
        let response = client.request(method, target, &[], body.as_bytes());
        let shown = format!("{method} {target} {body}: {}", response.text());
        assert_eq!(response.status, *status, "{shown}");
        check(&response, expected, &shown);
    }
}

pub(crate) fn check(response: &Response, expected: &Value, shown: &str) {
    let content_type = response.header("content-type");
    if response.status < 400 {
        assert_eq!(content_type, Some("application/json"), "{shown}");
        let found = response.json();
        assert!(matches(expected, &found), "{shown}: expected {expected}");
    } else {
        assert_eq!(content_type, Some("application/problem+json"), "{shown}");
        let problem = response.json();
        assert_eq!(&problem["code"], expected, "{shown}");
        assert_eq!(problem["status"], response.status, "{shown}");
        let urn = format!(
            "urn:henge:problem:{}",
            problem["code"].as_str().expect("text")
        );
        assert_eq!(problem["type"], urn, "{shown}");
        assert!(problem["title"].is_string(), "{shown}");
    }
}

#[test]
fn values_come_back_as_they_were_given() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    let stored = |key: &str| json!({"key": key, "ttl": null, "version": "*"});
    let item =
        |key: &str, value: Value| json!({"key": key, "value": value, "ttl": null, "version": "*"});
    run(
        &mut client,
        &[
            (
                "POST",
                "/set",
                r#"{"key":"s","value":"text"}"#,
                200,
                stored("s"),
            ),
            ("GET", "/get?key=s", "", 200, item("s", json!("text"))),
            (
                "POST",
                "/get",
                r#"{"key":"s"}"#,
                200,
                item("s", json!("text")),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"e","value":"a\n\"\u00e9\ud83e\uddc0\u0000"}"#,
                200,
                stored("e"),
            ),
            ("GET", "/get?key=e", "", 200, item("e", json!("a\n\"é🧀\0"))),
            (
                "POST",
                "/set",
                r#"{"key":"o","value":{"a": [1, 2.50, null]}}"#,
                200,
                stored("o"),
            ),
            (
                "GET",
                "/get?key=o",
                "",
                200,
                item("o", json!({"a": [1, 2.5, null]})),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"n","value":null}"#,
                200,
                stored("n"),
            ),
            ("GET", "/get?key=n", "", 200, item("n", json!(null))),
            (
                "POST",
                "/set",
                r#"{"key":"big","value":123456789012345678901234567890}"#,
                200,
                stored("big"),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"","value":"the empty key"}"#,
                200,
                stored(""),
            ),
            (
                "GET",
                "/get?key=",
                "",
                200,
                item("", json!("the empty key")),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"b","value_base64":"/wA="}"#,
                200,
                stored("b"),
            ),
            (
                "GET",
                "/get?key=b",
                "",
                200,
                json!({"key": "b", "value_base64": "/wA=", "ttl": null, "version": "*"}),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"t","value_base64":"aGk"}"#,
                200,
                stored("t"),
            ),
            ("GET", "/get?key=t", "", 200, item("t", json!("hi"))),
            (
                "POST",
                "/set",
                r#"{"key_base64":"_wA","value":1}"#,
                200,
                json!({"key_base64": "/wA=", "ttl": null, "version": "*"}),
            ),
            (
                "GET",
                "/get?key=%FF%00",
                "",
                200,
                json!({"key_base64": "/wA=", "value": 1, "ttl": null, "version": "*"}),
            ),
            (
                "GET",
                "/get?key_base64=_wA%3D",
                "",
                200,
                json!({"key_base64": "/wA=", "value": 1, "ttl": null, "version": "*"}),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"a b+c&d","value":1}"#,
                200,
                stored("a b+c&d"),
            ),
            (
                "GET",
                "/get?key=a+b%2Bc%26d",
                "",
                200,
                item("a b+c&d", json!(1)),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"e","value":["\ud83e\uDDC0\u0041\\ud800"]}"#,
                200,
                stored("e"),
            ),
            (
                "GET",
                "/get?key=e",
                "",
                200,
                item("e", json!(["🧀A\\ud800"])),
            ),
            (
                "POST",
                "/set",
                "\n {\"key\" : \"s\",\t\"value\":\"spaced\"} \n",
                200,
                stored("s"),
            ),
        ],
    );
    let response = client.get("/get?key=big");
    assert!(
        response
            .text()
            .contains(r#""value":123456789012345678901234567890,"#)
    );
}

#[test]
fn each_route_of_one_key() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    run(
        &mut client,
        &[
            ("GET", "/get?key=a", "", 404, json!("key_not_found")),
            (
                "POST",
                "/get",
                r#"{"key":"a"}"#,
                404,
                json!("key_not_found"),
            ),
            ("GET", "/ttl?key=a", "", 404, json!("key_not_found")),
            (
                "POST",
                "/expire",
                r#"{"key":"a","ttl":1}"#,
                404,
                json!("key_not_found"),
            ),
            (
                "POST",
                "/persist",
                r#"{"key":"a"}"#,
                404,
                json!("key_not_found"),
            ),
            (
                "GET",
                "/exists?key=a",
                "",
                200,
                json!({"key": "a", "exists": false}),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"a","value":"1","ttl":100.5}"#,
                200,
                json!({"key": "a", "ttl": 100.5, "version": "*"}),
            ),
            (
                "GET",
                "/exists?key=a",
                "",
                200,
                json!({"key": "a", "exists": true}),
            ),
            (
                "POST",
                "/exists",
                r#"{"key_base64":"YQ"}"#,
                200,
                json!({"key": "a", "exists": true}),
            ),
            (
                "GET",
                "/ttl?key=a",
                "",
                200,
                json!({"key": "a", "ttl": 100.5, "version": "*"}),
            ),
            (
                "POST",
                "/ttl",
                r#"{"key":"a"}"#,
                200,
                json!({"key": "a", "ttl": 100.5, "version": "*"}),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"a","value":"2","keep_ttl":true}"#,
                200,
                json!({"key": "a", "ttl": 100.5, "version": "*"}),
            ),
            (
                "POST",
                "/persist",
                r#"{"key":"a"}"#,
                200,
                json!({"key": "a", "ttl": null, "version": "*"}),
            ),
            (
                "POST",
                "/expire",
                r#"{"key":"a","ttl":1000}"#,
                200,
                json!({"key": "a", "ttl": 1000.0, "version": "*"}),
            ),
            (
                "POST",
                "/expire",
                r#"{"key":"a","ttl":0}"#,
                200,
                json!({"key": "a", "ttl": null, "version": "*"}),
            ),
            (
                "POST",
                "/incr",
                r#"{"key":"a","by":-3}"#,
                200,
                json!({"key": "a", "value": -1, "ttl": null, "version": "*"}),
            ),
            (
                "POST",
                "/incr",
                r#"{"key":"c"}"#,
                200,
                json!({"key": "c", "value": 1, "ttl": null, "version": "*"}),
            ),
            (
                "POST",
                "/incr",
                r#"{"key":"f","by":2.0,"initial":1e3}"#,
                200,
                json!({"key": "f", "value": 1002, "ttl": null, "version": "*"}),
            ),
            (
                "POST",
                "/incr",
                r#"{"key":"f2","by":1000000000000001,"initial":-999999999999999.0}"#,
                200,
                json!({"key": "f2", "value": 2, "ttl": null, "version": "*"}),
            ),
            (
                "POST",
                "/incr",
                r#"{"key":"c2","by":5,"initial":10,"ttl":100}"#,
                200,
                json!({"key": "c2", "value": 15, "ttl": 100.0, "version": "*"}),
            ),
            (
                "POST",
                "/incr",
                r#"{"key":"c","by":9223372036854775807}"#,
                409,
                json!("overflow"),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"w","value":"word"}"#,
                200,
                json!({"key": "w", "ttl": null, "version": "*"}),
            ),
            (
                "POST",
                "/incr",
                r#"{"key":"w"}"#,
                409,
                json!("not_an_integer"),
            ),
            ("DELETE", "/delete?key=w", "", 200, json!({"deleted": true})),
            (
                "DELETE",
                "/delete?key=w",
                "",
                200,
                json!({"deleted": false}),
            ),
            (
                "POST",
                "/delete",
                r#"{"key":"a"}"#,
                200,
                json!({"deleted": true}),
            ),
            ("POST", "/flush", "", 200, json!({"flushed": true})),
            ("GET", "/keys", "", 200, json!({"keys": [], "cursor": "0"})),
        ],
    );
}

#[test]
fn conditions_of_a_set() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    let refused = json!("precondition_failed");
    run(
        &mut client,
        &[
            (
                "POST",
                "/set",
                r#"{"key":"a","value":1,"xx":true}"#,
                412,
                refused.clone(),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"a","value":1,"if_version":"1-1"}"#,
                412,
                refused.clone(),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"a","value":1,"nx":true}"#,
                200,
                json!({"key": "a", "ttl": null, "version": "*"}),
            ),
            (
                "POST",
                "/set",
                r#"{"key":"a","value":2,"nx":true}"#,
                412,
                refused,
            ),
            (
                "POST",
                "/set",
                r#"{"key":"a","value":2,"xx":true}"#,
                200,
                json!({"key": "a", "ttl": null, "version": "*"}),
            ),
        ],
    );
    let version = client.get("/ttl?key=a").json()["version"].clone();
    let set = |value: u8| json!({"key": "a", "value": value, "if_version": version}).to_string();
    assert_eq!(client.post("/set", &set(3)).status, 200);
    let response = client.post("/set", &set(4));
    assert_eq!(response.status, 412);
    let now = client.get("/get?key=a").json();
    assert_eq!(now["value"], 3);
    assert_eq!(response.json()["current_version"], now["version"]);
}

#[test]
fn batches_answer_in_order() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    run(
        &mut client,
        &[
            (
                "POST",
                "/mset",
                r#"{"items":[{"key":"a","value":1,"ttl":50},{"key":"b"},{"value":1},{"key":"c","value":"x"},{"key":"c","value":"y","nx":true}]}"#,
                200,
                json!({"results": [
                    {"key": "a", "ttl": 50.0, "version": "*"},
                    {"key": "b", "error": {"status": 400, "code": "value_missing", "detail": "*"}},
                    {"error": {"status": 400, "code": "key_missing", "detail": "*"}},
                    {"key": "c", "ttl": null, "version": "*"},
                    {"key": "c", "error": {"status": 412, "code": "precondition_failed", "detail": "*", "current_version": "*"}},
                ]}),
            ),
            (
                "POST",
                "/mget",
                r#"{"keys":["c","none",{"key_base64":"YQ=="},{},"c"]}"#,
                200,
                json!({"results": [
                    {"key": "c", "value": "x", "ttl": null, "version": "*"},
                    {"key": "none", "error": {"status": 404, "code": "key_not_found"}},
                    {"key": "a", "value": 1, "ttl": 50.0, "version": "*"},
                    {"error": {"status": 400, "code": "key_missing", "detail": "*"}},
                    {"key": "c", "value": "x", "ttl": null, "version": "*"},
                ]}),
            ),
            (
                "POST",
                "/mdelete",
                r#"{"keys":["c","c"]}"#,
                200,
                json!({"results": [
                    {"key": "c", "deleted": true},
                    {"key": "c", "deleted": false},
                ]}),
            ),
            (
                "POST",
                "/mget",
                r#"{"keys":[]}"#,
                200,
                json!({"results": []}),
            ),
        ],
    );
}

#[test]
fn an_answer_to_a_batch_is_bounded() {
    let node = node(&[
        ("limits.max_body_bytes", "64KiB"),
        ("limits.max_value_bytes", "40000"),
    ]);
    let mut client = Client::connect(node.local_addr());
    let value = "v".repeat(40_000);
    client.post("/set", &json!({"key": "a", "value": value}).to_string());
    let results = client.post("/mget", r#"{"keys":["a","a"]}"#).json();
    assert_eq!(results["results"][0]["value"], value);
    assert_eq!(results["results"][1]["error"]["code"], "answer_too_large");
}

/// Zeros are six times as long in JSON: what may be stored can be read. A buffer that doubled did not fit.
#[test]
fn a_value_that_escapes_make_long_can_be_read() {
    let node = node(&[
        ("limits.max_body_bytes", "2MiB"),
        ("limits.max_value_bytes", "1MiB"),
        ("limits.max_inflight_bytes", "7MiB"),
    ]);
    let mut client = Client::connect(node.local_addr());
    let zeros = "A".repeat((1 << 20) / 3 * 4);
    let body = json!({"key": "zeros", "value_base64": zeros}).to_string();
    assert_eq!(client.post("/set", &body).status, 200);
    let response = client.get("/get?key=zeros");
    assert_eq!(response.status, 200, "{}", response.text());
    let value = response.json()["value"].as_str().map(str::len);
    assert_eq!(value, Some((1 << 20) / 3 * 3));
    let result = client.post("/mget", r#"{"keys":["zeros"]}"#).json()["results"][0].clone();
    assert_eq!(result["error"]["code"], "answer_too_large", "it is 6 MiB");
}

#[test]
fn a_scan_returns_every_key() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    for number in 0..500 {
        client.post("/set", &format!(r#"{{"key":"key:{number}","value":1}}"#));
    }
    client.post("/set", r#"{"key_base64":"/w==","value":1}"#);
    let mut scan = |prefix: &str| {
        let mut found = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let page = client
                .get(&format!("/keys?prefix={prefix}&limit=7&cursor={cursor}"))
                .json();
            for name in ["keys", "keys_base64"] {
                let keys = page[name].as_array().into_iter().flatten();
                found.extend(keys.map(|key| key.as_str().expect("text").to_owned()));
            }
            page["cursor"]
                .as_str()
                .expect("text")
                .clone_into(&mut cursor);
            if cursor == "0" {
                found.sort_unstable();
                found.dedup();
                return found;
            }
        }
    };
    assert_eq!(scan("").len(), 501);
    let mut tens: Vec<String> = (490..500).map(|n| format!("key:{n}")).collect();
    tens.push("key:49".to_owned());
    tens.sort_unstable();
    assert_eq!(scan("key%3A49"), tens);
    assert_eq!(scan("%FF"), ["/w=="]);
    let page = client.post("/keys", r#"{"prefix":"key:499"}"#);
    assert_eq!(page.status, 200);
    let page = client.post("/keys", r#"{"prefix_base64":"/w","limit":1000}"#);
    assert_eq!(page.json()["keys"], json!([]), "{}", page.text());
    assert_eq!(
        page.json()["keys_base64"],
        json!(["/w=="]),
        "{}",
        page.text()
    );
    let page = client.post("/keys", r#"{"prefix_base64":"/w","prefix":"a"}"#);
    assert_eq!(page.code(), "key_conflict");
}

/// A page ends at about a MiB, however long the keys are, and the scan still returns every key.
#[test]
fn a_page_of_long_keys_is_short() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    for (filler, kind) in [("k", "keys"), ("\u{1}", "keys"), ("\u{ff}", "keys_base64")] {
        client.post("/flush", "");
        for number in 0..100 {
            let text = format!("{number}:{}", filler.repeat(60_000));
            if kind == "keys" {
                let body = json!({"key": text, "value": 1}).to_string();
                assert_eq!(client.post("/set", &body).status, 200);
            } else {
                let target = format!("/cache/{number}:{}", "%ff".repeat(20_000));
                assert_eq!(client.request("PUT", &target, &[], b"v").status, 204);
            }
        }
        let (mut found, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let page = client.get(&format!("/keys?limit=1000&cursor={cursor}"));
            assert_eq!(page.status, 200, "{}", page.text());
            assert!(page.body.len() < 2 << 20, "{} bytes", page.body.len());
            let page = page.json();
            let keys = page[kind].as_array().into_iter().flatten();
            found.extend(keys.map(|key| key.as_str().expect("text").to_owned()));
            page["cursor"]
                .as_str()
                .expect("text")
                .clone_into(&mut cursor);
            if cursor == "0" {
                break;
            }
        }
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 100, "{filler:?}");
    }
}

#[test]
fn an_encoded_body_is_refused() {
    let node = node(&[]);
    let body = br#"{"key":"k","value":1}"#;
    for (encoding, status) in [("gzip", 415), ("br", 415), ("Identity", 200)] {
        let mut client = Client::connect(node.local_addr());
        let headers = [("content-encoding", encoding)];
        let response = client.request("POST", "/set", &headers, body);
        assert_eq!(response.status, status, "{encoding}: {}", response.text());
        if status == 415 {
            assert_eq!(response.code(), "unsupported_encoding");
            client.until_closed();
        }
    }
}

#[test]
fn consistency_levels() {
    let node = node(&[("cluster.default_consistency", "all")]);
    let mut client = Client::connect(node.local_addr());
    client.post("/set", r#"{"key":"a","value":1}"#);
    for (given, status, answered) in [
        (None, 200, Some("ALL")),
        (Some("ONE"), 200, Some("ONE")),
        (Some("quorum"), 200, Some("QUORUM")),
        (Some(" All"), 200, Some("ALL")),
        (Some("TWO"), 400, None),
        (Some(""), 400, None),
    ] {
        let headers: Vec<(&str, &str)> = given
            .map(|level| ("x-consistency-level", level))
            .into_iter()
            .collect();
        for (target, found) in [
            ("/get?key=a", 200),
            ("/get?key=none", 404),
            ("/cache/a", 200),
        ] {
            let response = client.request("GET", target, &headers, b"");
            let expected = if status == 200 { found } else { status };
            assert_eq!(response.status, expected, "{given:?}: {}", response.text());
            assert_eq!(
                response.header("x-consistency-level"),
                answered,
                "{given:?}"
            );
        }
    }
}

#[test]
fn large_values_through_json() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    // Longer than what is answered inline, than a segment, and than what is decompressed inline; with escapes.
    for len in [5_000, 70_000, 300_000, 3_000_000] {
        let value = "a\"\u{e9} ".repeat(len / 5);
        let response = client.post("/set", &json!({"key": "k", "value": value}).to_string());
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(client.get("/get?key=k").json()["value"], value, "{len}");
        assert_eq!(
            client.post("/mget", r#"{"keys":["k"]}"#).json()["results"][0]["value"],
            value
        );
    }
}

/// The answer's lifetime counts from the moment of the write, not from when the answer was made: with two readings of the
/// clock, one answer in a few dozen said 59.999.
#[test]
fn a_lifetime_is_answered_as_it_was_given() {
    let node = node(&[]);
    let mut client = Client::connect(node.local_addr());
    for _ in 0..500 {
        let set = client.post("/set", r#"{"key":"k","value":1,"ttl":60}"#);
        assert!(set.text().contains(r#""ttl":60.000"#), "{}", set.text());
        let mset = client.post("/mset", r#"{"items":[{"key":"k","value":1,"ttl":60}]}"#);
        assert!(mset.text().contains(r#""ttl":60.000"#), "{}", mset.text());
    }
}
