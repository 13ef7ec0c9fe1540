//! Requests that cannot be meant: each with its status, its code, and what the detail must say.

#![expect(
    clippy::too_many_lines,
    reason = "a table of cases is as long as there are cases"
)]

use serde_json::json;

use crate::client::{Client, node};
use crate::http_api::check;

#[test]
fn what_cannot_be_meant_is_refused_and_says_why() {
    let node = node(&[
        ("limits.max_value_bytes", "1000"),
        ("limits.max_body_bytes", "100KiB"),
        ("limits.max_batch_items", "3"),
    ]);
    let mut client = Client::connect(node.local_addr());
    let long_key = format!(r#"{{"key":"{}","value":1}}"#, "k".repeat(65_537));
    let long_value = format!(r#"{{"key":"a","value":"{}"}}"#, "v".repeat(1001));
    // Method, target, body, status, code, and a part of the detail.
    let cases: &[(&str, &str, &str, u16, &str, &str)] = &[
        ("POST", "/set", "", 400, "invalid_json", "empty"),
        ("POST", "/set", "{", 400, "invalid_json", "line 1 column 1"),
        (
            "POST",
            "/set",
            "{\"key\":\"a\",\n\"value\":1,}",
            400,
            "invalid_json",
            "line 2 column",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","value":1}x"#,
            400,
            "invalid_json",
            "trailing characters",
        ),
        ("POST", "/set", r#"["a",1]"#, 400, "invalid_json", ""),
        (
            "POST",
            "/set",
            r#"{"key":"a","value":1,"tll":5}"#,
            400,
            "invalid_json",
            "unknown field `tll`, expected one of `key`",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","key":"b","value":1}"#,
            400,
            "invalid_json",
            "duplicate field `key` at line 1",
        ),
        (
            "POST",
            "/set",
            r#"{"key":5,"value":1}"#,
            400,
            "invalid_json",
            "expected a string at line 1",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","value":1,"ttl":"5"}"#,
            400,
            "invalid_json",
            "expected f64",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","value":1,"nx":1}"#,
            400,
            "invalid_json",
            "expected a boolean",
        ),
        (
            "POST",
            "/set",
            "{\"key\":\"\u{1}\",\"value\":1}",
            400,
            "invalid_json",
            "control character",
        ),
        (
            "POST",
            "/set",
            r#"{"value":1}"#,
            400,
            "key_missing",
            "expected key or key_base64",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","key_base64":"YQ==","value":1}"#,
            400,
            "key_conflict",
            "not both",
        ),
        (
            "POST",
            "/set",
            r#"{"key_base64":"!","value":1}"#,
            400,
            "invalid_base64",
            "key_base64",
        ),
        (
            "POST",
            "/set",
            &long_key,
            400,
            "key_too_long",
            "65537 bytes; the most is 65536",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a"}"#,
            400,
            "value_missing",
            "expected value",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","value":1,"value_base64":"YQ=="}"#,
            400,
            "value_conflict",
            "not both",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","value":"\ud800"}"#,
            400,
            "invalid_value",
            "in the string of value",
        ),
        (
            "POST",
            "/set",
            &long_value,
            413,
            "value_too_large",
            "1001 bytes; the most is limits.max_value_bytes, 1000",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","value":1,"ttl":-1}"#,
            400,
            "invalid_ttl",
            "from 0 up",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","value":1,"ttl":1e12}"#,
            400,
            "invalid_ttl",
            "9999",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","value":1,"ttl":1,"keep_ttl":true}"#,
            400,
            "invalid_ttl",
            "not both",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","value":1,"nx":true,"xx":true}"#,
            400,
            "invalid_precondition",
            "nx and xx",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","value":1,"nx":true,"if_version":"1-1"}"#,
            400,
            "invalid_precondition",
            "nx and if_version",
        ),
        (
            "POST",
            "/set",
            r#"{"key":"a","value":1,"if_version":"1"}"#,
            400,
            "invalid_version",
            "looks like",
        ),
        (
            "POST",
            "/expire",
            r#"{"key":"a"}"#,
            400,
            "invalid_ttl",
            "expected ttl",
        ),
        (
            "POST",
            "/incr",
            r#"{"key":"a","by":1.5}"#,
            400,
            "invalid_json",
            "expected i64",
        ),
        (
            "POST",
            "/mget",
            r#"{"keys":["a","b","c","d"]}"#,
            400,
            "batch_too_large",
            "limits.max_batch_items, 3",
        ),
        (
            "POST",
            "/mget",
            r#"{"keys":[1]}"#,
            400,
            "invalid_json",
            "a key, or an object",
        ),
        (
            "POST",
            "/mget",
            r#"{"keys":[{"kay":"a"}]}"#,
            400,
            "invalid_json",
            "unknown field `kay`",
        ),
        ("GET", "/get", "", 400, "key_missing", "expected key"),
        ("GET", "/get?key=a&key=b", "", 400, "invalid_query", "twice"),
        (
            "GET",
            "/get?kye=a",
            "",
            400,
            "invalid_query",
            "unknown parameter \"kye\"",
        ),
        ("GET", "/get?key=%zz", "", 400, "invalid_query", "%25"),
        (
            "GET",
            "/get?key=a&key_base64=YQ",
            "",
            400,
            "key_conflict",
            "not both",
        ),
        (
            "GET",
            "/get?key_base64=!",
            "",
            400,
            "invalid_base64",
            "key_base64",
        ),
        (
            "GET",
            "/keys?limit=0",
            "",
            400,
            "invalid_limit",
            "from 1 to",
        ),
        (
            "GET",
            "/keys?limit=x",
            "",
            400,
            "invalid_limit",
            "limit is x",
        ),
        (
            "GET",
            "/keys?cursor=x",
            "",
            400,
            "invalid_cursor",
            "expected \"0\"",
        ),
        (
            "GET",
            "/gett?key=a",
            "",
            404,
            "route_not_found",
            "did you mean",
        ),
        (
            "PATCH",
            "/set",
            "",
            405,
            "method_not_allowed",
            "it takes POST",
        ),
    ];
    for (method, target, body, status, code, detail) in cases {
        let response = client.request(method, target, &[], body.as_bytes());
        let shown = format!("{method} {target} {body:.80}: {}", response.text());
        assert_eq!(response.status, *status, "{shown}");
        check(&response, &json!(code), &shown);
        let found = response.json()["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(found.contains(detail), "{shown}: expected {detail:?}");
    }
    let allowed = client.request("PUT", "/get", &[], b"");
    assert_eq!(allowed.header("allow"), Some("GET, POST, HEAD"));
}
