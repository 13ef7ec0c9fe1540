//! A backup of a cluster loaded into another one that runs, of another size, on real processes: what comes back, what is refused, and
//! what happens when nodes are killed meanwhile.

use std::fs;
use std::process::Output;

use rustix::process::{Pid, Signal, kill_process};

use super::Ring;
use super::backup::{KEYS, LIFETIME, check, henge, put, seconds_left, told, value};
use crate::client::Client;
use crate::resp_reply::Reply;

fn up(ring: &Ring, count: usize) {
    for n in 1..=count {
        ring.until("all are up", || {
            let status = ring.status(n);
            let members = status["members"].as_array().cloned().unwrap_or_default();
            members.len() == count && members.iter().all(|member| member["state"] == "up")
        });
    }
}

/// A cluster with three replicas of each partition.
fn cluster(count: usize) -> Ring {
    let ring = Ring::new()
        .set("cluster.replication_factor=3")
        .formed(count);
    up(&ring, count);
    ring
}

fn alone() -> Ring {
    let mut ring = Ring::new();
    ring.start(1, "");
    ring.wait_until_ready([1]);
    ring
}

fn url(ring: &Ring, n: usize) -> String {
    format!("http://{}", ring.address(n))
}

/// What the command prints, if it ends with this code.
fn said(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", told(output));
    told(output)
}

fn restored(file: &str, url: &str, options: &[&str], code: i32) -> String {
    let arguments = [&["restore", file, "--url", url], options].concat();
    let output = henge(&arguments).output().expect("it runs");
    said(&output, code)
}

/// A backup of the cluster that this node is in; the file goes with the ring.
fn backed_up(ring: &Ring, n: usize) -> String {
    let file = ring.data.join("cluster.backup");
    let file = file.to_str().expect("a path that is text").to_owned();
    let output = henge(&["backup", "--url", &url(ring, n), "--to", &file]).output();
    said(&output.expect("it runs"), 0);
    file
}

fn size(ring: &Ring, n: usize) -> usize {
    match ring.ask(n, "DBSIZE") {
        Reply::Integer(keys) => usize::try_from(keys).expect("a count"),
        other => panic!("{other:?}"),
    }
}

fn check_all(client: &mut Client) {
    for number in 0..KEYS {
        let key = format!("key{number}");
        check(&client.get(&format!("/cache/{key}")), number);
        let left = seconds_left(client, &key);
        assert_eq!(left.is_some(), number % 2 == 0, "{key}");
        let is_right = left.is_none_or(|left| left > 0.0 && left <= LIFETIME as f64);
        assert!(is_right, "{key}: {left:?}");
    }
    let json = client.get("/get?key=json").json();
    assert_eq!(json["value"]["list"][1], 2, "{json}");
    assert_eq!(client.get("/cache/gone").status, 404);
    assert_eq!(client.get("/cache/brief").status, 404);
}

#[test]
fn a_backup_of_three_is_loaded_into_five_and_into_one() {
    let three = cluster(3);
    for number in 0..KEYS {
        let node = 1 + number % 3;
        three.until("each is written", || {
            let key = format!("key{number}");
            put(&mut three.http(node), &key, &value(number), number)
        });
    }
    let mut client = three.http(1);
    let json = r#"{"key":"json","value":{"list":[1,2]}}"#;
    assert_eq!(client.post("/set", json).status, 200);
    assert!(put(&mut client, "gone", b"not in the backup", 1));
    let deleted = client.request("DELETE", "/cache/gone", &[], b"");
    assert_eq!(deleted.status, 204);
    let brief = client.request("PUT", "/cache/brief", &[("x-ttl", "2.5")], b"x");
    assert_eq!(brief.status, 204);
    let backup = backed_up(&three, 2);
    three.until("it has expired", || {
        client.get("/cache/brief").status == 404
    });
    // What was restored is there whichever node is asked, and survives any of them.
    let mut five = cluster(5);
    let out = restored(&backup, &url(&five, 2), &[], 0);
    assert!(out.starts_with("restored 301 records of 20"), "{out}");
    assert!(out.contains("which has 301 keys now"), "{out}");
    for n in 1..=5 {
        check_all(&mut five.http(n));
    }

    let out = restored(&backup, &url(&five, 4), &[], 1);
    let expected = "has 301 keys, and nothing was restored; --replace";
    assert!(out.contains(expected), "{out}");
    let mut client = five.http(1);
    assert!(put(&mut client, "key1", b"changed", 3));
    assert!(put(&mut client, "other", b"stays", 5));
    let before = client.get("/get?key=key0").json();
    let out = restored(&backup, &url(&five, 3), &["--replace"], 0);
    assert!(out.contains("which has 302 keys now"), "{out}");
    check_all(&mut client);
    assert_eq!(client.get("/cache/other").text(), "stays");
    // It is a write like any other, and so a new one.
    let after = client.get("/get?key=key0").json();
    assert_ne!(before["version"], after["version"]);
    five.kill(5);
    five.until("the others serve what it led", || {
        let mut client = five.http(1);
        (0..KEYS).all(|number| client.get(&format!("/cache/key{number}")).status == 200)
    });
    check_all(&mut five.http(2));
    drop(five);

    let one = alone();
    let out = restored(&backup, &url(&one, 1), &[], 0);
    assert!(out.contains("restored 301 records"), "{out}");
    check_all(&mut one.http(1));
    assert_eq!(size(&one, 1), 301);
}

/// Keys of which there are so many that a restore takes long enough to be met.
const MANY: usize = 30_000;

/// A node that has so many, and a backup of it.
fn many() -> (Ring, String) {
    let from = alone();
    let mut client = from.http(1);
    for first in (0..MANY).step_by(1_000) {
        let items = (first..first + 1_000)
            .map(|number| format!(r#"{{"key":"many{number}","value":"value {number}"}}"#));
        let items = items.collect::<Vec<_>>().join(",");
        let stored = client.post("/mset", &format!(r#"{{"items":[{items}]}}"#));
        assert_eq!(stored.status, 200, "{}", stored.text());
    }
    let file = backed_up(&from, 1);
    (from, file)
}

/// All of them, by one node; `changed` is what the last has become.
fn check_many(client: &mut Client, changed: Option<&str>) {
    for first in (0..MANY).step_by(1_000) {
        let keys: Vec<String> = (first..first + 1_000)
            .map(|number| format!("\"many{number}\""))
            .collect();
        let found = client.post("/mget", &format!(r#"{{"keys":[{}]}}"#, keys.join(",")));
        let found = found.json();
        let results = found["results"].as_array().expect("results");
        for (number, result) in (first..).zip(results) {
            let expected = match changed {
                Some(value) if number == MANY - 1 => value.to_owned(),
                _ => format!("value {number}"),
            };
            assert_eq!(result["value"], expected, "{result}");
        }
    }
}

#[test]
fn a_restore_goes_on_when_its_node_is_killed() {
    let (_from, file) = many();
    let mut three = cluster(3);
    let command = henge(&["restore", &file, "--url", &url(&three, 1)]).spawn();
    let command = command.expect("it starts");
    three.until("it has begun", || size(&three, 2) > 0);
    // What a client writes meanwhile is newer, whichever comes first.
    let mine = three
        .http(2)
        .request("PUT", "/cache/many29999", &[], b"mine");
    assert_eq!(mine.status, 204);
    three.kill(1);
    let output = command.wait_with_output().expect("it ends");
    let out = said(&output, 0);
    assert!(out.contains("which has 30,000 keys now"), "{out}");
    check_many(&mut three.http(3), Some("mine"));
    // Where nobody is left it gives up, and says so, before anything is written.
    let out = restored(&file, "http://127.0.0.1:1", &[], 3);
    let expected = "nothing was restored into http://127.0.0.1:1: no connection to the node";
    assert!(out.contains(expected), "{out}");
}

/// In the midst, and while no node answers.
#[test]
fn a_restore_that_is_interrupted_says_how_far_it_came_and_can_be_gone_on_with() {
    let (_from, file) = many();
    let into = alone();
    let address = url(&into, 1);
    let met = || {
        let command = henge(&["restore", &file, "--url", &address]).spawn();
        let mut command = command.expect("it starts");
        into.until("it has begun", || size(&into, 1) > 0);
        into.signal(1, Signal::STOP);
        let has_ended = command.try_wait().expect("it can be asked").is_some();
        if has_ended {
            // The node was faster than whoever stops it.
            into.signal(1, Signal::CONT);
            assert_eq!(into.ask(1, "FLUSHALL"), Reply::Text("OK".to_owned()));
            return None;
        }
        Some(command)
    };
    let command = (0..10).find_map(|_| met());
    let command = command.expect("it is met in the midst");
    let pid = Pid::from_child(&command);
    kill_process(pid, Signal::INT).expect("it runs");
    let output = command.wait_with_output().expect("it ends");
    let out = said(&output, 3);
    into.signal(1, Signal::CONT);
    assert!(out.contains(" of 30,000 records into "), "{out}");
    assert!(
        out.contains("and then no more: interrupted; what was under way"),
        "{out}"
    );
    let (_, next) = out
        .split_once("to go on, henge restore ")
        .expect("it says how");
    assert!(
        next.starts_with(&format!("{file} --url {address} --replace ")),
        "{out}"
    );
    let done = restored(&file, &address, &["--replace"], 0);
    assert!(done.contains("which has 30,000 keys now"), "{done}");
    check_many(&mut into.http(1), None);
}

#[test]
fn of_a_damaged_backup_nothing_is_written() {
    let one = alone();
    let mut client = one.http(1);
    for number in 0..KEYS {
        assert!(put(
            &mut client,
            &format!("key{number}"),
            &value(number),
            number
        ));
    }
    let file = backed_up(&one, 1);
    assert_eq!(client.request("POST", "/flush", &[], b"").status, 200);
    let whole = fs::read(&file).expect("it is there");
    let broken = format!("{file}.broken");
    let at = whole.len() - 100;
    let mut bytes = whole.clone();
    bytes[at] ^= 1;
    for bytes in [&bytes[..], &whole[..whole.len() / 2], &whole[..10], b""] {
        fs::write(&broken, bytes).expect("it is written");
        let out = restored(&broken, &url(&one, 1), &[], 1);
        let is_told = out.contains(&broken) && out.contains("; nothing was restored");
        assert!(is_told, "{out}");
        assert_eq!(size(&one, 1), 0);
    }
    fs::write(&broken, &bytes).expect("it is written");
    let out = restored(&broken, &url(&one, 1), &[], 1);
    assert!(out.contains("is damaged at byte "), "{out}");
    restored(&format!("{file}.none"), &url(&one, 1), &[], 3);
    restored(&file, &url(&one, 1), &[], 0);
    assert_eq!(size(&one, 1), KEYS);

    // The route takes blocks and nothing else, and changes nothing where it does not.
    for (query, body, status, code) in [
        ("", &b"x"[..], 400, "invalid_body"),
        ("", &whole[..], 400, "invalid_body"),
        ("?replace=yes", b"", 400, "invalid_query"),
        ("?x=1", b"", 400, "invalid_query"),
    ] {
        let path = format!("/admin/restore{query}");
        let refused = client.request("POST", &path, &[], body);
        assert_eq!((refused.status, &*refused.code()), (status, code));
    }
    assert_eq!(size(&one, 1), KEYS);
    // A node that takes no value that long refuses that one for good, and has all others.
    let mut small = Ring::new().set("limits.max_value_bytes=1KiB");
    small.start(1, "");
    small.wait_until_ready([1]);
    let out = restored(&file, &url(&small, 1), &[], 3);
    assert!(out.contains("restored 200 records"), "{out}");
    assert!(out.contains("100 records were refused for good"), "{out}");
    assert!(out.contains("limits.max_value_bytes"), "{out}");
}
