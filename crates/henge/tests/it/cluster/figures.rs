//! What nodes of a cluster count of each other: how long clients wait at which level, what links and replicas do.

use serde_json::Value;

use super::Ring;
use super::moves::all_are_up;
use super::partitions::agreed_leader;
use crate::observe::ONLY_IN_A_CLUSTER;

fn ring() -> Ring {
    let ring = Ring::new().set("cluster.replication_factor=3");
    let ring = ring.set("compression.algorithm=none").formed(3);
    (1..=3).for_each(|n| all_are_up(&ring, n, 3));
    ring
}

fn figures(ring: &Ring, n: usize) -> Value {
    ring.http(n).get("/metrics/json").json()
}

fn count(figures: &Value, pointer: &str) -> u64 {
    let figure = figures.pointer(pointer).and_then(Value::as_u64);
    figure.unwrap_or_default()
}

/// Every key is written by node 1, so two thirds of them by way of others.
fn set_all(ring: &Ring, keys: u64, level: &str) {
    for key in 0..keys {
        ring.until("it is set", || {
            let headers = [("X-Consistency-Level", level)];
            let body = format!(r#"{{"key":"k{key}","value":1}}"#);
            ring.http(1)
                .request("POST", "/set", &headers, body.as_bytes())
                .status
                == 200
        });
    }
}

#[test]
fn what_clients_wait_for_is_counted_by_level() {
    let ring = ring();
    set_all(&ring, 30, "ALL");
    set_all(&ring, 10, "ONE");
    let mut resp = ring.resp(1);
    for _ in 0..7 {
        resp.ask("GET k1");
    }
    resp.ask("HENGE LEVEL ONE");
    resp.ask("GET k1");
    resp.ask("EXISTS k1 k2 k3 k4 k5 k6");
    resp.ask("PING");
    let seen = figures(&ring, 1);
    for (series, least) in [
        ("http/set/all", 30),
        ("http/set/one", 10),
        ("resp/get/quorum", 7),
        ("resp/get/one", 1),
        ("resp/exists/one", 1),
    ] {
        let answers = seen.pointer(&format!("/answers/{series}"));
        let answers = answers.unwrap_or_else(|| panic!("no {series} in {seen}"));
        assert!(count(answers, "/count") >= least, "{series}: {answers}");
        assert!(answers["p50"].as_f64() > Some(0.0), "{series}: {answers}");
    }
    assert_eq!(seen.pointer("/answers/resp/get/all"), None);
    assert_eq!(
        seen.pointer("/answers/resp/ping"),
        None,
        "it is about no key"
    );
    // Who has been asked answers its own clients only.
    for other in [2, 3] {
        let seen = figures(&ring, other);
        assert_eq!(seen.pointer("/answers/resp/get"), None, "{seen}");
    }
    let text = String::from_utf8(ring.http(1).get("/metrics").body).expect("text");
    let line = "henge_answer_duration_seconds_count{protocol=\"resp\",command=\"get\",level=\"quorum\"} 7\n";
    assert!(text.contains(line), "{text}");
    for metric in ONLY_IN_A_CLUSTER {
        assert!(text.contains(&format!("# TYPE {metric} ")), "{metric}");
    }
}

#[test]
fn links_and_replicas_are_counted_by_peer() {
    let mut ring = ring();
    set_all(&ring, 60, "QUORUM");
    let seen = figures(&ring, 1);
    for peer in ["node2", "node3"] {
        let link = format!("/cluster/links/{peer}");
        assert!(
            count(&seen, &format!("{link}/latency_seconds/count")) > 0,
            "{seen}"
        );
    }
    assert!(
        count(&seen, "/cluster/control_leader_changes") > 0,
        "{seen}"
    );
    // Each leads a third.
    for n in 1..=3 {
        let seen = figures(&ring, n);
        let openings = count(&seen, "/replication/openings");
        let fences = count(&seen, "/replication/fences");
        assert!(openings > 0 && fences >= openings, "{seen}");
        assert!(
            count(&seen, "/replication/adopted_terms") >= fences,
            "{seen}"
        );
    }
    ring.until("what was written is committed, and followed", || {
        let all = (1..=3).map(|n| figures(&ring, n));
        let all: Vec<Value> = all.collect();
        let commits: u64 = all
            .iter()
            .map(|seen| count(seen, "/replication/commits"))
            .sum();
        let is_followed = |seen: &Value| {
            let peers = seen["replication"]["peers"].as_object().cloned();
            let mut peers = peers.unwrap_or_default().into_iter();
            peers.all(|(_, peer)| peer["lag_entries"] == 0 && peer["to_follow"] == 0)
        };
        commits >= 60 && all.iter().all(is_followed)
    });
    let leader = agreed_leader(&ring, &[1, 2, 3]);
    let lost = if leader == 3 { 2 } else { 3 };
    ring.kill(lost);
    let behind = |ring: &Ring, figure: &str| {
        let seen = figures(ring, 1);
        let peer = &seen["replication"]["peers"][format!("node{lost}")];
        peer[figure].as_f64().unwrap_or_default()
    };
    set_all(&ring, 60, "QUORUM");
    ring.until("it is behind", || {
        let lacks = behind(&ring, "lag_entries") > 0.0 || behind(&ring, "to_follow") > 0.0;
        lacks && behind(&ring, "lag_seconds") >= 1.0
    });
    let value = "v".repeat(100_000);
    for key in 0..80 {
        ring.until("it is set", || {
            let target = format!("/cache/large{key}");
            let stored = ring.http(1).request("PUT", &target, &[], value.as_bytes());
            stored.status == 204
        });
    }
    for n in (1..=3).filter(|&n| n != lost) {
        ring.until("nothing of size waits for who is away", || {
            let peer = format!("/replication/peers/node{lost}/queue_bytes");
            count(&figures(&ring, n), &peer) < 1_000_000
        });
    }
    ring.start(lost, &ring.others(lost, 3));
    ring.wait_until_ready([lost]);
    ring.until("it has caught up", || {
        ["lag_entries", "to_follow", "lag_seconds"]
            .iter()
            .all(|figure| behind(&ring, figure) == 0.0)
    });
}
