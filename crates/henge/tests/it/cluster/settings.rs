//! Settings of the whole cluster: set at any node they hold on all of them, at once and after a restart, and who cannot have one
//! agreed on says so.

use serde_json::Value;

use super::Ring;
use super::faults::wait_for_leader;
use crate::client::Response;
use crate::resp_reply::Reply;

const REDIRECT: &str = "/cluster/settings/cluster.redirect";

fn set(ring: &Ring, n: usize, value: &str, headers: &[(&str, &str)]) -> Response {
    ring.http(n)
        .request("PUT", REDIRECT, headers, value.as_bytes())
}

/// The one setting that there is, as a node shows it.
fn shown(ring: &Ring, n: usize) -> Value {
    let page = ring.http(n).get("/cluster/settings").json();
    page["settings"][0].clone()
}

fn until_it_is(ring: &Ring, n: usize, value: &str, source: &str) {
    ring.until(&format!("node {n} goes by {value} of {source}"), || {
        let shown = shown(ring, n);
        shown["value"] == value && shown["source"] == source
    });
}

/// Whether a connection that has asked a node for the map is told where keys are.
fn is_told(ring: &Ring, n: usize) -> bool {
    let mut aware = ring.resp(n);
    assert!(matches!(aware.ask("CLUSTER NODES"), Reply::Text(_)));
    let moved = (0..30).filter(|key| match aware.ask(&format!("SET k{key} v")) {
        Reply::Error(error) => {
            assert!(error.starts_with("MOVED "), "{error}");
            true
        }
        reply => {
            assert_eq!(reply, Reply::Text("OK".to_owned()));
            false
        }
    });
    moved.count() > 0
}

/// Before anything is proposed.
fn what_is_wrong_is_said(ring: &Ring, n: usize) {
    let mut client = ring.http(n);
    let wrong = set(ring, n, "maybe", &[]);
    assert_eq!(
        (wrong.status, &*wrong.code()),
        (422, "invalid_configuration")
    );
    let detail = wrong.json()["detail"].to_string();
    assert!(detail.contains("expected true or false"), "{detail}");
    for method in ["PUT", "DELETE"] {
        let path = "/cluster/settings/cluster.redirekt";
        let unknown = client.request(method, path, &[], b"");
        assert_eq!(
            (unknown.status, &*unknown.code()),
            (404, "setting_not_found")
        );
        let detail = unknown.json()["detail"].to_string();
        assert!(detail.contains("there is cluster.redirect, "), "{detail}");
    }
    let condition = set(ring, n, "true", &[("if-match", "3")]);
    assert_eq!(
        (condition.status, &*condition.code()),
        (400, "invalid_precondition")
    );
    let long = set(ring, n, &"x".repeat(2000), &[]);
    assert_eq!((long.status, &*long.code()), (413, "body_too_large"));
}

#[test]
fn a_setting_that_is_set_anywhere_holds_everywhere() {
    let mut ring = Ring::new().formed(3);
    let leader = wait_for_leader(&ring, 1);
    let follower = leader % 3 + 1;
    for n in 1..=3 {
        until_it_is(&ring, n, "true", "node");
        assert!(is_told(&ring, n));
    }
    let answer = set(&ring, follower, "false\n", &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["value"], "false");
    let version = answer.json()["version"].as_u64().expect("a version");
    let tag = answer.header("etag").expect("a tag").to_owned();
    assert_eq!(tag, format!("\"{version}\""));
    // Who was asked goes by it already.
    assert_eq!(shown(&ring, follower)["value"], "false");
    for n in 1..=3 {
        until_it_is(&ring, n, "false", "cluster");
        assert_eq!(shown(&ring, n)["version"], version);
        assert!(!is_told(&ring, n), "node {n}");
        // Its own configuration is what it was, and counts again when the cluster says nothing.
        let mut client = ring.resp(n);
        let sent = client.send("CONFIG GET cluster.redirect\r\n");
        sent.expect("it is sent");
        let own = client.whole_reply();
        assert!(format!("{own:?}").contains("true"), "{own:?}");
        let events = ring.http(n).get("/cluster/events").text();
        let expected = "cluster.redirect is false in the whole cluster, and was each node's own";
        assert!(events.contains(expected), "{events}");
    }

    // A condition that does not hold changes nothing.
    for headers in [
        [("if-match", "\"999\"")],
        [("if-none-match", "*")],
        [("if-match", "\"0\"")],
    ] {
        let failed = set(&ring, follower, "true", &headers);
        assert_eq!(
            (failed.status, &*failed.code()),
            (412, "precondition_failed")
        );
        assert_eq!(failed.json()["current_version"], version.to_string());
    }
    let next = set(&ring, leader, "true", &[("if-match", &tag)]);
    assert_eq!(next.status, 200, "{}", next.text());
    assert!(next.json()["version"].as_u64() > Some(version));

    what_is_wrong_is_said(&ring, follower);

    // All of them are killed, and go by it when they are back.
    let set_again = ring.command(follower, &["set", "cluster.redirect", "false"]);
    let text = String::from_utf8_lossy(&set_again.stdout).into_owned();
    assert!(set_again.status.success(), "{set_again:?}");
    let begin = "cluster.redirect is false in the whole cluster (version ";
    assert!(text.starts_with(begin), "{text}");
    for n in 1..=3 {
        ring.kill(n);
    }
    for n in 1..=3 {
        ring.start(n, &ring.others(n, 3));
    }
    ring.wait_until_ready(1..=3);
    for n in 1..=3 {
        until_it_is(&ring, n, "false", "cluster");
    }
    ring.until("all are asked for their keys", || {
        (0..30).all(|key| ring.ask(1, &format!("GET k{key}")) == Reply::Text("v".to_owned()))
    });
    for n in 1..=3 {
        assert!(!is_told(&ring, n), "node {n}");
    }

    // It is each node's own again.
    let unset = ring.command(2, &["unset", "cluster.redirect"]);
    assert!(unset.status.success(), "{unset:?}");
    for n in 1..=3 {
        until_it_is(&ring, n, "true", "node");
        assert!(is_told(&ring, n), "node {n}");
    }
    let table = ring.command(3, &["settings"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let row = "\ncluster.redirect      true   node          -\n";
    assert!(table.contains(row), "{table}");
    let unknown = ring.command(3, &["set", "cache.policy", "lfu"]);
    assert_eq!(unknown.status.code(), Some(3));
    let line = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(line.contains("there is cluster.redirect"), "{line}");
}

#[test]
fn a_minority_says_that_it_can_change_nothing() {
    let mut ring = Ring::new().formed(3);
    ring.kill(1);
    ring.kill(2);
    ring.until("it knows no leader", || ring.status(3)["leader"].is_null());
    let refused = set(&ring, 3, "false", &[]);
    assert_eq!(
        (refused.status, &*refused.code()),
        (503, "no_control_leader"),
        "{}",
        refused.text()
    );
    let detail = refused.json()["detail"].to_string();
    assert!(detail.ends_with("; nothing was done\""), "{detail}");
    assert_eq!(shown(&ring, 3)["source"], "node");
    // With another one it is a majority again, and nothing of before was left to be done.
    ring.start(1, &ring.others(1, 3));
    ring.wait_until_ready([1]);
    wait_for_leader(&ring, 3);
    let set = set(&ring, 3, "false", &[("if-none-match", "*")]);
    assert_eq!(set.status, 200, "{}", set.text());
    until_it_is(&ring, 1, "false", "cluster");
}
