//! Any node answers any key: plain clients by forwarding, those that know the map by being told where to go.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Ring;
use crate::durability::Resp;
use crate::resp_reply::Reply;

fn text(text: &str) -> Reply {
    Reply::Text(text.to_owned())
}

#[test]
fn plain_clients_see_one_cache() {
    let ring = Ring::new().formed(3);
    let mut nodes: Vec<_> = (1..=3).map(|n| ring.resp(n)).collect();
    let keys: Vec<String> = (0..60).map(|n| format!("key{n}")).collect();
    for (at, key) in keys.iter().enumerate() {
        assert_eq!(
            nodes[at % 3].ask(&format!("SET {key} value{at}")),
            text("OK")
        );
    }
    for (at, key) in keys.iter().enumerate() {
        for node in &mut nodes {
            assert_eq!(node.ask(&format!("GET {key}")), text(&format!("value{at}")));
        }
    }
    for node in &mut nodes {
        assert_eq!(node.ask("DBSIZE"), Reply::Integer(60));
        assert_eq!(
            node.ask(&format!("EXISTS {}", keys.join(" "))),
            Reply::Integer(60)
        );
        let values: Vec<String> = (0..60).map(|at| format!("value{at}")).collect();
        let Reply::Parts('*', found) = asked(node, &format!("MGET {}", keys.join(" "))) else {
            panic!("values come");
        };
        assert!(
            found
                .iter()
                .zip(&values)
                .all(|(found, value)| *found == text(value))
        );
    }
    // A scan sees each key, from whichever node.
    for node in &mut nodes {
        let mut seen = BTreeSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let Reply::Parts(_, page) = asked(node, &format!("SCAN {cursor} COUNT 7")) else {
                panic!("a page comes");
            };
            seen.extend(page[1].parts().iter().map(|key| match key {
                Reply::Text(key) => key.clone(),
                other => panic!("{other:?} for a key"),
            }));
            match &page[0] {
                Reply::Text(next) if next == "0" => break,
                Reply::Text(next) => cursor.clone_from(next),
                other => panic!("{other:?} for a cursor"),
            }
        }
        assert!(keys.iter().all(|key| seen.contains(key)), "{seen:?}");
        assert_eq!(seen.len(), 60);
    }
    assert_eq!(
        nodes[1].ask(&format!("DEL {} nosuch", keys[..30].join(" "))),
        Reply::Integer(30)
    );
    assert_eq!(nodes[2].ask("DBSIZE"), Reply::Integer(30));
    assert_eq!(nodes[0].ask("MSET x 1 y 2 z 3"), text("OK"));
    assert_eq!(nodes[2].ask("INCRBY y 5"), Reply::Integer(7));
    let Reply::Error(error) = nodes[0].ask("MSETNX a 1 b 2") else {
        panic!("all or none is for one slot");
    };
    assert!(error.starts_with("CROSSSLOT"), "{error}");
    assert_eq!(nodes[0].ask("MSETNX {t}a 1 {t}b 2"), Reply::Integer(1));
    assert_eq!(nodes[1].ask("RENAME {t}a {t}c"), text("OK"));
    assert_eq!(nodes[2].ask("GET {t}c"), text("1"));
    assert!(matches!(nodes[1].ask("RANDOMKEY"), Reply::Text(_)));
    assert_eq!(nodes[2].ask("FLUSHALL"), text("OK"));
    for node in &mut nodes {
        assert_eq!(node.ask("DBSIZE"), Reply::Integer(0));
        assert_eq!(node.ask("RANDOMKEY"), Reply::Null);
    }
}

/// A reply of several parts.
fn asked(node: &mut crate::durability::Resp, command: &str) -> Reply {
    node.send(&format!("{command}\r\n")).expect("it is sent");
    node.whole_reply()
}

#[test]
fn a_pipeline_is_answered_in_its_order() {
    let ring = Ring::new().formed(3);
    let mut node = ring.resp(1);
    let mut requests = String::new();
    let mut expected = Vec::new();
    for n in 0..300 {
        let _ = write!(
            requests,
            "SET k{n} {n}\r\nINCR k{n}\r\nPING {n}\r\nGET k{n}\r\nMGET k{n} k0\r\nnosuch\r\n"
        );
        expected.extend([
            "+OK".to_owned(),
            format!(":{}", n + 1),
            format!("${}\r\n{n}", n.to_string().len()),
            format!("${}\r\n{}", (n + 1).to_string().len(), n + 1),
            format!(
                "*2\r\n${}\r\n{}\r\n$1\r\n1",
                (n + 1).to_string().len(),
                n + 1
            ),
            "-ERR unknown command 'nosuch', with args beginning with: ".to_owned(),
        ]);
    }
    node.send(&requests).expect("it is sent");
    let expected = expected.join("\r\n") + "\r\n";
    assert_eq!(node.read_text(expected.len()), expected);
    // Values that are sent by reference, and replies that nobody wants.
    let large = "x".repeat(100_000);
    for key in ["l1", "l2", "l3"] {
        let size = large.len();
        node.send(&format!(
            "*3\r\n$3\r\nSET\r\n$2\r\n{key}\r\n${size}\r\n{large}\r\n"
        ))
        .expect("it is sent");
    }
    assert_eq!(node.read_text(15), "+OK\r\n+OK\r\n+OK\r\n");
    node.send("GET l1\r\nGET l2\r\nPING\r\nCLIENT REPLY SKIP\r\nGET l3\r\nGET l3\r\n")
        .expect("it is sent");
    let one = format!("$100000\r\n{large}\r\n");
    let expected = format!("{one}{one}+PONG\r\n{one}");
    assert!(node.read_text(expected.len()) == expected);
}

#[test]
fn who_knows_the_map_is_told_where_to_go() {
    let ring = Ring::new().formed(3);
    for redirect in [true, false] {
        for n in 1..=3 {
            let set = ring.ask(n, &format!("CONFIG SET cluster.redirect {redirect}"));
            assert_eq!(set, text("OK"));
        }
        let mut plain = ring.resp(1);
        let mut aware = ring.resp(1);
        let Reply::Text(_) = aware.ask("CLUSTER NODES") else {
            panic!("the map comes");
        };
        let mut moved = 0;
        for n in 0..30 {
            let command = format!("SET m{n} v");
            assert_eq!(plain.ask(&command), text("OK"));
            match aware.ask(&command) {
                Reply::Error(error) => {
                    let words: Vec<&str> = error.split(' ').collect();
                    assert_eq!(words[0], "MOVED");
                    let address = words[2].parse().expect("an address");
                    let mut there = crate::durability::Resp::connect(address);
                    assert!(matches!(there.ask("CLUSTER NODES"), Reply::Text(_)));
                    assert_eq!(there.ask(&command), text("OK"));
                    let slot = there.ask(&format!("CLUSTER KEYSLOT m{n}"));
                    assert_eq!(slot, Reply::Integer(words[1].parse().expect("a slot")));
                    moved += 1;
                }
                reply => assert_eq!(reply, text("OK")),
            }
        }
        assert_eq!(moved > 0, redirect, "{moved} of 30");
    }
}

/// The keys of a scan whose pages come over one connection after the other.
fn scanned(connections: &mut [&mut Resp]) -> Vec<String> {
    let mut cursor = "0".to_owned();
    let mut found = Vec::new();
    for page in 0.. {
        let which = page % connections.len();
        let scan = format!("SCAN {cursor} COUNT 7\r\n");
        connections[which].send(&scan).expect("it is sent");
        let reply = connections[which].whole_reply();
        let Reply::Parts(_, parts) = reply else {
            panic!("{reply:?}");
        };
        let [Reply::Text(next), Reply::Parts('*', keys)] = &parts[..] else {
            panic!("{parts:?}");
        };
        for key in keys {
            let Reply::Text(key) = key else {
                panic!("{key:?}");
            };
            found.push(key.clone());
        }
        cursor.clone_from(next);
        if cursor == "0" {
            break;
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn a_cursor_says_whose_keys_it_goes_over() {
    let ring = Ring::new().formed(3);
    let mut plain = [1, 2, 3].map(|n| ring.resp(n));
    let mut aware = [1, 2, 3].map(|n| ring.resp(n));
    for n in 0..300 {
        assert_eq!(plain[0].ask(&format!("SET s{n} v")), text("OK"));
    }
    let mut all: Vec<String> = (0..300).map(|n| format!("s{n}")).collect();
    all.sort_unstable();
    for connection in &mut aware {
        assert!(matches!(connection.ask("CLUSTER NODES"), Reply::Text(_)));
    }
    let mut parts = Vec::new();
    for n in 0..3 {
        // Who begins without the map goes over all nodes, and goes on over whichever connection to any of them.
        let [one, two, three] = &mut aware;
        assert_eq!(scanned(&mut [&mut plain[n], one, two, three]), all);
        // Who begins with it goes over that node's own, and goes on over any connection to it.
        let own = scanned(&mut [&mut aware[n]]);
        assert_eq!(scanned(&mut [&mut aware[n], &mut plain[n]]), own);
        assert!(own.len() < all.len());
        parts.extend(own);
    }
    parts.sort_unstable();
    assert_eq!(parts, all);
}

#[test]
fn clients_of_http_see_one_cache() {
    let ring = Ring::new().formed(3);
    let mut nodes: Vec<_> = (1..=3).map(|n| ring.http(n)).collect();
    for n in 0..30 {
        let body = format!("{{\"key\":\"h{n}\",\"value\":\"v{n}\",\"ttl\":600}}");
        assert_eq!(nodes[n % 3].post("/set", &body).status, 200);
    }
    for node in &mut nodes {
        for n in 0..30 {
            let found = node.get(&format!("/get?key=h{n}"));
            assert_eq!(found.json()["value"], format!("v{n}"), "{}", found.text());
        }
        let keys: Vec<String> = (0..30).map(|n| format!("\"h{n}\"")).collect();
        let found = node.post("/mget", &format!("{{\"keys\":[{}]}}", keys.join(",")));
        let results = found.json()["results"].as_array().map_or(0, Vec::len);
        assert_eq!(results, 30, "{}", found.text());
        assert!(!found.text().contains("error"), "{}", found.text());
    }
    // What one protocol wrote another reads, and conditions hold wherever the key is.
    let put = nodes[0].request("PUT", "/cache/h5", &[("if-none-match", "*")], b"other");
    assert_eq!(put.status, 412, "{}", put.text());
    assert_eq!(ring.ask(2, "GET h5"), text("v5"));
    let etag = nodes[1].get("/cache/h5").header("etag").map(str::to_owned);
    let etag = etag.expect("an item has a version");
    let put = nodes[2].request("PUT", "/cache/h5", &[("if-match", &etag)], b"other");
    assert_eq!(put.status, 204, "{}", put.text());
    assert_eq!(nodes[0].get("/cache/h5").text(), "other");
    assert_eq!(nodes[1].request("POST", "/flush", &[], b"").status, 200);
    assert_eq!(ring.ask(3, "DBSIZE"), Reply::Integer(0));
}

/// What is split over several nodes is done after what stands before it in the pipeline, once, and not at all if it is wrong.
#[test]
fn what_is_split_keeps_its_place() {
    let ring = Ring::new().formed(3);
    for n in 1..=3 {
        let mut node = ring.resp(n);
        for round in 0..30 {
            let [a, b, c] = ["a", "b", "c"].map(|name| format!("{name}{n}-{round}"));
            let requests = format!(
                "SET {a} 1\r\nGET {a}\r\nMSET {a} 2 {b} 2 {c} 2\r\nINCR {a}\r\nDEL {a} {b} {c}\r\nEXISTS {a} {b} {c}\r\nSET {a} 4\r\nMSET {a} 5 {b} 5 {c}\r\nMGET {a} {b} {c}\r\n"
            );
            node.send(&requests).expect("it is sent");
            let expected = "+OK\r\n$1\r\n1\r\n+OK\r\n:3\r\n:3\r\n:0\r\n+OK\r\n\
                -ERR wrong number of arguments for 'mset' command\r\n\
                *3\r\n$1\r\n4\r\n$-1\r\n$-1\r\n";
            assert_eq!(node.read_text(expected.len()), expected, "{round}");
        }
    }
}

/// A connection may speak one protocol, and then the other.
#[test]
fn replies_of_others_are_in_the_protocol_of_the_moment() {
    let ring = Ring::new().formed(3);
    for n in 1..=3 {
        speaks_both_protocols(&mut ring.resp(n));
    }
}

/// Asks for what is not there in one pipeline that changes its protocol twice.
pub(super) fn speaks_both_protocols(node: &mut Resp) {
    let requests = (0..30).map(|key| format!("GET nosuch{key}\r\n"));
    let requests = requests.collect::<Vec<_>>().concat();
    let all = format!("{requests}HELLO 3\r\n{requests}HELLO 2\r\n{requests}");
    node.send(&all).expect("it is sent");
    assert_eq!(node.read_text(30 * 5), "$-1\r\n".repeat(30));
    // What it answers itself is long and of no matter here.
    assert!(matches!(node.whole_reply(), Reply::Parts('%', _)));
    assert_eq!(node.read_text(30 * 3), "_\r\n".repeat(30));
    assert!(matches!(node.whole_reply(), Reply::Parts('*', _)));
    assert_eq!(node.read_text(30 * 5), "$-1\r\n".repeat(30));
}
