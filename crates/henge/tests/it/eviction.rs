//! What a cache forgets, and when, as a client sees it: exact small caches under each policy, and expiry without a read.

use std::time::Instant;

use henge::Node;

use crate::client::{Client, DEADLINE, node};

fn small(policy: &str) -> Node {
    node(&[("cache.max_items", "3"), ("cache.policy", policy)])
}

fn set(client: &mut Client, key: &str, ttl: Option<u32>) {
    let ttl = ttl.map_or("null".to_owned(), |ttl| ttl.to_string());
    let body = format!(r#"{{"key":"{key}","value":"v","ttl":{ttl}}}"#);
    let response = client.request("POST", "/set", &[], body.as_bytes());
    assert_eq!(response.status, 200, "{}", response.text());
}

fn get(client: &mut Client, key: &str) -> bool {
    match client.get(&format!("/get?key={key}")).status {
        200 => true,
        404 => false,
        status => panic!("a get is answered by {status}"),
    }
}

/// Which of the keys are there, without counting as a use of them.
fn there<'k>(client: &mut Client, keys: &[&'k str]) -> Vec<&'k str> {
    let exists = |key: &&&str| {
        let response = client.get(&format!("/exists?key={key}"));
        response.json()["exists"].as_bool().expect("a boolean")
    };
    keys.iter().filter(exists).copied().collect()
}

#[test]
fn lru_evicts_what_was_not_used_for_longest() {
    let node = small("lru");
    let mut client = Client::connect(node.local_addr());
    for key in ["a", "b", "c"] {
        set(&mut client, key, None);
    }
    assert!(get(&mut client, "a"));
    set(&mut client, "d", None);
    assert_eq!(there(&mut client, &["a", "b", "c", "d"]), ["a", "c", "d"]);
    set(&mut client, "c", None);
    set(&mut client, "e", None);
    assert_eq!(there(&mut client, &["a", "c", "d", "e"]), ["c", "d", "e"]);
}

#[test]
fn lfu_evicts_what_was_used_least() {
    let node = small("lfu");
    let mut client = Client::connect(node.local_addr());
    for (key, gets) in [("a", 3), ("b", 1), ("c", 2)] {
        set(&mut client, key, None);
        for _ in 0..gets {
            assert!(get(&mut client, key));
        }
    }
    set(&mut client, "d", None);
    assert_eq!(there(&mut client, &["a", "b", "c", "d"]), ["a", "c", "d"]);
    // The newcomer was used once, as nothing else.
    set(&mut client, "e", None);
    assert_eq!(there(&mut client, &["a", "c", "d", "e"]), ["a", "c", "e"]);
}

#[test]
fn ttl_evicts_what_expires_first_and_what_never_expires_last() {
    let node = small("ttl");
    let mut client = Client::connect(node.local_addr());
    set(&mut client, "soon", Some(500));
    set(&mut client, "later", Some(1000));
    set(&mut client, "never", None);
    assert!(get(&mut client, "soon"));
    set(&mut client, "d", Some(2000));
    let keys = ["soon", "later", "never", "d", "e", "f"];
    assert_eq!(there(&mut client, &keys), ["later", "never", "d"]);
    set(&mut client, "e", None);
    assert_eq!(there(&mut client, &keys), ["never", "d", "e"]);
    set(&mut client, "f", None);
    assert_eq!(there(&mut client, &keys), ["never", "e", "f"]);
}

#[test]
fn random_evicts_a_key_that_was_there() {
    let node = small("random");
    let mut client = Client::connect(node.local_addr());
    for key in ["a", "b", "c", "d"] {
        set(&mut client, key, None);
    }
    let left = there(&mut client, &["a", "b", "c", "d"]);
    assert!(left.len() == 3 && left.contains(&"d"), "{left:?}");
}

#[test]
fn what_has_expired_is_swept_without_a_read() {
    let node = node(&[("cache.cleanup_interval_ms", "1")]);
    let mut client = Client::connect(node.local_addr());
    set(&mut client, "lasting", None);
    let body = br#"{"key":"fleeting","value":"v","ttl":0.01}"#;
    assert_eq!(client.request("POST", "/set", &[], body).status, 200);
    let start = Instant::now();
    loop {
        let stats = client.get("/stats").json();
        if stats["items"] == 1 {
            assert_eq!(stats["expirations"], 1);
            break;
        }
        assert!(start.elapsed() < DEADLINE, "it was not swept: {stats}");
    }
    assert!(get(&mut client, "lasting"));
}

#[test]
fn what_comes_once_does_not_push_out_what_comes_often() {
    for policy in ["s3fifo", "sieve", "wtinylfu"] {
        let node = node(&[("cache.max_items", "100"), ("cache.policy", policy)]);
        let mut client = Client::connect(node.local_addr());
        let often: Vec<String> = (0..20).map(|n| format!("often{n}")).collect();
        for key in &often {
            set(&mut client, key, None);
        }
        for n in 0..500 {
            assert!(get(&mut client, &often[n % 20]), "{policy}: {n}");
            set(&mut client, &format!("once{n}"), None);
        }
        let stats = client.get("/stats").json();
        assert_eq!(stats["items"], 100, "{policy}");
    }
}
