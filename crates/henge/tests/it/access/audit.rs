//! The audit log of a node: which actions are in it, and that nothing is that should not be.

use std::fs;

use serde_json::{Value, json};

use super::{made, write_private};
use crate::client::{Client, data_directory, node};
use crate::resp_reply::send_all;
use crate::side_by_side::Connection;

/// A line for each of these, in their order: who, what, and what came of it.
#[test]
fn what_is_in_it() {
    let folder = data_directory();
    let (boss, entry) = made(&["boss", "--permissions=read,write,admin"]);
    let (web, more) = made(&["web", "--permissions=read", "--prefix=app:"]);
    let keys = folder.join("keys.toml");
    write_private(&keys, &(entry + &more));
    let (keys, log) = (keys.to_str().expect("text"), folder.join("audit.log"));
    let node = node(&[
        ("security.key_file", keys),
        ("audit.file", log.to_str().expect("text")),
        ("cluster.node_id", "one"),
    ]);
    let mut http = Client::connect(node.local_addr());
    let mut ask = |method: &str, target: &str, key: &str| {
        http.request(method, target, &[("x-api-key", key)], b"")
            .status
    };
    assert_eq!(ask("GET", "/get?key=secret-1", &boss), 404);
    assert_eq!(ask("GET", "/get?key=secret-2", "secret-3"), 401);
    assert_eq!(ask("GET", "/secret-4", "secret-3"), 401);
    assert_eq!(ask("GET", "/cache/secret-5", &web), 403);
    assert_eq!(ask("POST", "/flush", &web), 403);
    assert_eq!(ask("POST", "/flush", &boss), 200);
    assert_eq!(ask("POST", "/cluster/drain/none-such", &boss), 404);
    assert_eq!(ask("DELETE", "/admin/keys/web", &boss), 204);
    assert_eq!(ask("DELETE", "/admin/keys/web?forget=true", &boss), 204);
    let made = json!({"name": "app", "permissions": ["read"], "prefixes": ["app:"]}).to_string();
    let shown = [("x-api-key", &*boss), ("content-type", "application/json")];
    let mut post =
        |method, target, body: &str| http.request(method, target, &shown, body.as_bytes()).status;
    assert_eq!(post("POST", "/admin/keys", &made), 201);
    assert_eq!(post("PUT", "/admin/roles/writer", "[\"write\"]"), 204);
    assert_eq!(
        post("PUT", "/cluster/settings/cluster.redirect", "true"),
        200
    );
    node.reload().expect("nothing is wrong with it");
    let mut resp = Connection::open(node.local_addr(), 2);
    send_all(
        &mut resp,
        &[
            &["SET", "secret-6", "secret-7"],
            &["NONESUCH", "secret-8"],
            &["AUTH", "secret-9"],
            &["AUTH", &boss],
            &["SET", "secret-10", "secret-11"],
            &["CONFIG", "SET", "requirepass", "secret-12"],
            &["FLUSHALL"],
            &["SLOWLOG", "RESET"],
        ],
    );
    assert!(node.shutdown());
    let text = fs::read_to_string(&log).expect("it is there");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let part = |line: &Value, name: &str| line[name].as_str().unwrap_or("-").to_owned();
    let found: Vec<String> = lines
        .iter()
        .map(|line| {
            let parts = ["protocol", "key", "action", "outcome", "code"];
            parts.map(|name| part(line, name)).join(" ")
        })
        .collect();
    assert_eq!(
        found,
        [
            "http - GET /get denied unauthenticated",
            "http - unrouted denied unauthenticated",
            "http web GET /cache/{key} denied forbidden",
            "http web POST /flush denied forbidden",
            "http boss POST /flush done -",
            "http boss POST /cluster/drain/none-such failed 404",
            "http boss DELETE /admin/keys/web done -",
            "http boss DELETE /admin/keys/web?forget=true done -",
            "http boss POST /admin/keys app {\"permissions\":[\"read\"],\"prefixes\":[\"app:\"]} done -",
            "http boss PUT /admin/roles/writer [\"write\"] done -",
            "http boss PUT /cluster/settings/cluster.redirect true done -",
            "signal - reload done -",
            "redis - set denied NOAUTH",
            "redis - unknown denied NOAUTH",
            "redis - auth denied WRONGPASS",
            "redis boss CONFIG SET requirepass (hidden) failed ERR",
            "redis boss FLUSHALL done -",
            "redis boss SLOWLOG RESET done -",
        ]
    );
    for secret in ["secret-", &boss, &web] {
        assert!(!text.contains(secret), "{text}");
    }
    for line in &lines {
        assert_eq!(part(line, "node"), "one");
        let is_signal = part(line, "protocol") == "signal";
        let client = if is_signal { "-" } else { "127.0.0.1:" };
        assert!(part(line, "client").starts_with(client), "{line}");
        assert!(part(line, "time").ends_with('Z'), "{line}");
    }
}

#[test]
fn a_file_that_cannot_be_written_keeps_a_node_from_starting() {
    let log = "/none/such/audit.log";
    let started = henge::Node::start(crate::client::config(&[("audit.file", log)]));
    let error = started.expect_err("it cannot be opened").to_string();
    assert!(error.starts_with(log), "{error}");
}
