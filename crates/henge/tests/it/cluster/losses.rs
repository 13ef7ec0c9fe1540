//! What was acknowledged at ONE and did not survive is reported, by whichever node is asked, and what nobody can know is said to be
//! unknown: on real processes.

use std::process::Command;

use henge_wire::Version;
use serde_json::Value;

use super::{Ring, partitions};
use crate::client::Client;

/// An answer to a request for a key at a level; none where it is refused.
fn ask(client: &mut Client, request: &str, key: &str, level: &str, body: &str) -> Option<Version> {
    let length = body.len();
    let request = format!(
        "{request} /cache/{key} HTTP/1.1\r\nhost: localhost\r\nx-consistency-level: {level}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    client.send(request.as_bytes()).ok()?;
    let response = client.try_response(true).ok()?;
    if !(200..300).contains(&response.status) {
        return None;
    }
    let tag = response.header("etag")?;
    tag.trim_matches('"').parse().ok()
}

fn are_all_up(ring: &Ring, n: usize) -> bool {
    let status = ring.status(n);
    let members = status["members"].as_array().cloned().unwrap_or_default();
    members.len() == 3 && members.iter().all(|member| member["state"] == "up")
}

/// A key, the partition that it is in, and who leads that.
fn place(ring: &Ring, key: &str) -> (u64, String) {
    let place = ring.http(2).get(&format!("/cluster/ring?key={key}")).json();
    let name = place["holder"]["name"].as_str().unwrap_or_default();
    (
        place["partition"].as_u64().expect("a number"),
        name.to_owned(),
    )
}

fn losses(ring: &Ring, n: usize) -> Value {
    ring.http(n).get("/cluster/losses").json()
}

/// Whether a page says that a version of a partition is lost, and known to be.
fn has(page: &Value, partition: u64, version: Version) -> bool {
    let entries = page["entries"].as_array().cloned().unwrap_or_default();
    entries.iter().any(|entry| {
        let end = |name: &str| entry[name].as_str().and_then(|text| text.parse().ok());
        let run: Option<(Version, Version)> = end("first").zip(end("last"));
        let is_in = run.is_some_and(|(first, last)| first <= version && version <= last);
        entry["unknown"] == false && entry["partition"] == partition && is_in
    })
}

#[test]
fn writes_at_one_that_only_a_lost_leader_had_are_named() {
    const KEYS: usize = 6;
    let Some(ring) = partitions::machines(3) else {
        return;
    };
    let mut ring = ring.set("cluster.replication_factor=3").formed(3);
    for n in 1..=3 {
        ring.until("all are up", || are_all_up(&ring, n));
    }
    // Keys of partitions that node 1 leads.
    let mut keys = Vec::new();
    for number in 0.. {
        let key = format!("key{number}");
        let (partition, leader) = place(&ring, &key);
        if leader == "node1" && keys.iter().all(|(_, other)| *other != partition) {
            keys.push((key, partition));
        }
        if keys.len() == KEYS {
            break;
        }
    }
    for (key, _) in &keys {
        ring.until("each is written on all", || {
            ask(&mut ring.http(1), "PUT", key, "all", "first").is_some()
        });
    }
    let before = losses(&ring, 2);
    assert_eq!(before["lost_entries"], 0, "{before:#}");
    assert_eq!(before["unknown"], 0, "{before:#}");
    assert_eq!(before["is_complete"], true, "{before:#}");
    // From here on nobody hears node 1.
    let mut client = ring.http(1);
    for n in 2..=3 {
        ring.network().lose(1, n);
        ring.network().lose(n, 1);
    }
    let mut lost = Vec::new();
    for round in 0..3 {
        for (key, partition) in &keys {
            let body = format!("alone{round}");
            let version = ask(&mut client, "PUT", key, "one", &body);
            lost.push((*partition, version.expect("it is acknowledged at ONE")));
        }
    }
    ring.kill(1);
    for n in 2..=3 {
        ring.network().pass(1, n);
        ring.network().pass(n, 1);
    }
    for (key, _) in &keys {
        ring.until("another leads, and has what all had", || {
            ask(&mut ring.http(2), "PUT", key, "quorum", "second").is_some()
        });
    }
    let silent = losses(&ring, 3);
    assert_eq!(silent["is_complete"], false, "{silent:#}");
    ring.start(1, &ring.others(1, 3));
    ring.wait_until_ready([1]);
    let is_reported = |page: &Value| {
        let all = lost.iter();
        all.clone()
            .all(|(partition, version)| has(page, *partition, *version))
    };
    ring.until("node 3 says what node 1 had", || {
        is_reported(&losses(&ring, 3))
    });
    for n in 1..=3 {
        ring.until("all are up again", || are_all_up(&ring, n));
        let page = losses(&ring, n);
        // Nothing else was lost, and each is counted once.
        assert_eq!(page["lost_entries"], lost.len(), "{page:#}");
        assert_eq!(page["unknown"], 0, "{page:#}");
        assert_eq!(page["is_complete"], true, "{page:#}");
        assert!(is_reported(&page), "{page:#}");
    }
    let metrics = ring.http(1).get("/metrics").text();
    let line = format!("henge_lost_entries_total {}\n", lost.len());
    assert!(metrics.contains(&line), "{metrics}");

    // It is written down.
    ring.stop(1);
    ring.start(1, &ring.others(1, 3));
    ring.wait_until_ready([1]);
    ring.until("node 2 hears it again", || is_reported(&losses(&ring, 2)));
    let mut asks = Command::new(env!("CARGO_BIN_EXE_henge"));
    asks.args(["cluster", "losses", "--url"])
        .arg(format!("http://{}", ring.address(2)));
    let shown = ring.beside(2, || asks.output()).expect("it runs");
    let text = String::from_utf8(shown.stdout).expect("text");
    assert!(
        text.starts_with(&format!("{} entries were lost", lost.len())),
        "{text}"
    );
    assert_eq!(shown.status.code(), Some(0), "{text}");
}

#[test]
fn what_a_node_without_its_memory_had_is_unknown() {
    let mut ring = Ring::new()
        .set("cluster.replication_factor=3")
        .set("persistence.enabled=false")
        .formed(3);
    let page = losses(&ring, 2);
    assert_eq!(
        page["unknown"], 0,
        "who has just begun had nothing: {page:#}"
    );
    ring.kill(1);
    ring.start(1, &ring.others(1, 3));
    ring.wait_until_ready([1]);
    ring.until("it says that it has forgotten", || {
        let page = losses(&ring, 2);
        let entries = page["entries"].as_array().cloned().unwrap_or_default();
        entries.iter().any(|entry| {
            let why = entry["why"].as_str().unwrap_or_default();
            entry["unknown"] == true
                && entry["partition"].is_null()
                && entry["nodes"] == serde_json::json!(["node1"])
                && why.starts_with("the node lost its memory: ")
        })
    });
    let metrics = ring.http(1).get("/metrics").text();
    assert!(
        metrics.contains("henge_unknown_losses_total 1\n"),
        "{metrics}"
    );
}
