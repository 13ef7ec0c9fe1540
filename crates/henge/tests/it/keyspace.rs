//! The commands on keys: their tables side by side with valkey-server, random commands on both, what a scan promises while
//! keys come and go, and that nobody waits for those who look at all keys.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::client::{Client, node};
use crate::random::Random;
use crate::side_by_side::{Connection, Pair, Valkey, tables};

#[test]
fn keys() {
    tables(include_str!("side_by_side/keys.txt"));
}

#[test]
fn expiry() {
    tables(include_str!("side_by_side/expiry.txt"));
}

#[test]
fn scan() {
    tables(include_str!("side_by_side/scan.txt"));
}

#[test]
fn rename() {
    tables(include_str!("side_by_side/rename.txt"));
}

#[test]
fn object() {
    tables(include_str!("side_by_side/object.txt"));
}

/// Reads what `KEYS` and the like answer: bulk strings, whatever aggregates they stand in.
fn bulks(reply: &[u8]) -> Vec<Vec<u8>> {
    let mut bulks = Vec::new();
    let mut rest = reply;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let (line, after) = rest.split_at(end + 1);
        rest = after;
        let text = std::str::from_utf8(line)
            .expect("a line is text")
            .trim_end();
        if let Some(len) = text.strip_prefix('$') {
            let len = len.parse().expect("a bulk string that is there");
            bulks.push(rest[..len].to_vec());
            rest = &rest[len + 2..];
        } else {
            assert!(text.starts_with('*'), "{text}");
        }
    }
    bulks
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// Sends many commands before it reads their replies, which must be these.
fn pipeline(connection: &mut Connection, commands: impl Iterator<Item = String>, expected: &[u8]) {
    let commands: Vec<String> = commands.collect();
    for some in commands.chunks(500) {
        for command in some {
            connection.send(&words(command));
        }
        for command in some {
            let reply = connection.reply();
            assert_eq!(reply, expected, "{command}: {}", reply.escape_ascii());
        }
    }
}

/// Commands on lifetimes and names, over few keys, so that they meet each other. All times are far away.
#[test]
fn random_commands_are_answered_as_by_valkey() {
    const KEYS: [&str; 5] = ["{k}a", "{k}b", "{k}c", "{k}d", "{k}e"];
    let valkey = Valkey::start();
    let (mut random, _) = Random::seeded("keys and times");
    let mut pair = Pair::over(valkey.as_ref(), 2);
    let (node, server) = pair.connection("");
    for step in 0..20_000 {
        let (key, other) = (random.of(&KEYS), random.of(&KEYS));
        let time = random.of(&["20", "21", "22", "23", "23"]);
        let time = format!("331771174{time}");
        let past = random.below(12) == 0;
        let seconds = if past { "-1" } else { &time };
        let ms = if past { "-1" } else { &format!("{time}007") };
        let option = random.of(&["", "", " NX", " XX", " GT", " LT", " XX GT", " LT XX"]);
        let command = match random.below(18) {
            0 | 1 => format!("SET {key} {}", random.below(1_000)),
            2 => format!("SET {key} {}", "x".repeat(random.below(150))),
            3 | 4 => format!("EXPIREAT {key} {seconds}{option}"),
            5 | 6 => format!("PEXPIREAT {key} {ms}{option}"),
            7 => format!("PERSIST {key}"),
            8 | 9 => format!("RENAME {key} {other}"),
            10 => format!("RENAMENX {key} {other}"),
            11 => format!("COPY {key} {other}"),
            12 => format!("COPY {key} {other} REPLACE"),
            13 => format!("DEL {key} {other}"),
            14 => format!("{} {key} {other}", random.of(&["EXISTS", "TOUCH"])),
            15 => format!("SET {key} 7 KEEPTTL"),
            16 => format!("SET {key} 7 EXAT {time}"),
            _ => format!("APPEND {key} x"),
        };
        // An empty value is a word too.
        let look = format!(
            "{} {key}",
            random.of(&["GET", "PEXPIRETIME", "EXPIRETIME", "TYPE"])
        );
        for command in [command, look] {
            let ours = node.call(&words(&command));
            if let Some(server) = server {
                let theirs = server.call(&words(&command));
                let (ours, theirs) = (ours.escape_ascii(), theirs.escape_ascii());
                assert!(
                    ours.to_string() == theirs.to_string(),
                    "step {step}: {command}\n  henge: {ours}\n valkey: {theirs}"
                );
            }
        }
    }
}

#[test]
fn random_patterns_match_as_in_valkey() {
    const KEY_LETTERS: [&str; 6] = ["a", "b", "c", "[", "-", "\\"];
    const PATTERN_LETTERS: [&str; 14] = [
        "a", "b", "c", "*", "*", "?", "[", "]", "[a-c]", "[^b]", "^", "-", "\\", "[\\]",
    ];
    let valkey = Valkey::start();
    let (mut random, _) = Random::seeded("keys and times");
    let mut pair = Pair::over(valkey.as_ref(), 2);
    let (node, server) = pair.connection("");
    let mut text = |letters: &[&str], least: usize, most: usize| -> String {
        let len = least + random.below(most - least + 1);
        (0..len).map(|_| random.of(letters)).collect()
    };
    for _ in 0..300 {
        let command = ["SET", &text(&KEY_LETTERS, 1, 6), "v"].map(str::to_owned);
        assert_eq!(node.call(&command), b"+OK\r\n");
        if let Some(server) = server {
            assert_eq!(server.call(&command), b"+OK\r\n");
        }
    }
    let mut matched = 0;
    for _ in 0..3_000 {
        let command = ["KEYS", &text(&PATTERN_LETTERS, 0, 6)].map(str::to_owned);
        let ours: BTreeSet<Vec<u8>> = bulks(&node.call(&command)).into_iter().collect();
        matched += ours.len();
        if let Some(server) = server {
            let theirs = bulks(&server.call(&command)).into_iter().collect();
            assert_eq!(ours, theirs, "{}", command[1]);
        }
    }
    assert!(matched > 3_000, "{matched} matches tell little");
}

/// Scans everything while `disturb` is called between pages, and gives what was shown.
fn scanned(
    connection: &mut Connection,
    options: &str,
    mut disturb: impl FnMut(&mut Connection, usize),
) -> Vec<Vec<u8>> {
    let mut shown = Vec::new();
    let mut cursor = "0".to_owned();
    for page in 0.. {
        let command = format!("SCAN {cursor}{options}");
        let mut keys = bulks(&connection.call(&words(&command)));
        cursor = String::from_utf8(keys.remove(0)).expect("a cursor is text");
        shown.extend(keys);
        if cursor == "0" {
            break;
        }
        disturb(connection, page);
    }
    shown
}

/// In one partition, whose table then grows and shrinks by itself a lot, and over all of them.
#[test]
fn a_scan_shows_whatever_stays_while_keys_come_and_go() {
    const STAY: usize = 600;
    const COME: usize = 6_000;
    for tag in ["{one}", ""] {
        let node = node(&[]);
        let mut connection = Connection::open(node.local_addr(), 2);
        let stay: BTreeSet<Vec<u8>> = (0..STAY)
            .map(|n| format!("{tag}stay{n}").into_bytes())
            .collect();
        let sets = (0..STAY).map(|n| format!("SET {tag}stay{n} v"));
        pipeline(&mut connection, sets, b"+OK\r\n");
        for options in ["", " COUNT 37", " COUNT 100000", " MATCH *stay* COUNT 50"] {
            let shown = scanned(&mut connection, options, |connection, page| {
                match page % 6 {
                    0 => {
                        let sets = (0..COME).map(|n| format!("SET {tag}come{n} v"));
                        pipeline(connection, sets, b"+OK\r\n");
                    }
                    3 => {
                        let gone = (0..COME).map(|n| format!("DEL {tag}come{n}"));
                        pipeline(connection, gone, b":1\r\n");
                    }
                    _ => {}
                }
            });
            let shown: BTreeSet<Vec<u8>> = shown.into_iter().collect();
            let missing = stay.difference(&shown).count();
            assert_eq!(missing, 0, "{tag}{options}");
            let all = (0..COME).map(|n| format!("UNLINK {tag}come{n}"));
            all.for_each(|command| connection.send(&words(&command)));
            (0..COME).for_each(|_| drop(connection.reply()));
            assert_eq!(
                connection.call(&["DBSIZE"]),
                format!(":{STAY}\r\n").as_bytes()
            );
        }
    }
}

#[test]
fn a_quiet_scan_and_keys_show_each_key_once() {
    const KEYS: usize = 20_000;
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    let sets = (0..KEYS).map(|n| format!("SET key{n} v"));
    pipeline(&mut connection, sets, b"+OK\r\n");
    let expected: BTreeSet<Vec<u8>> = (0..KEYS).map(|n| format!("key{n}").into_bytes()).collect();
    let mut pages = 0;
    let scan = scanned(&mut connection, " COUNT 100", |_, page| pages = page);
    assert!(pages < KEYS / 100 + 1_024, "{pages} pages");
    for shown in [scan, bulks(&connection.call(&["KEYS", "*"]))] {
        assert_eq!(shown.len(), KEYS);
        assert_eq!(shown.into_iter().collect::<BTreeSet<_>>(), expected);
    }
    let some = bulks(&connection.call(&["KEYS", "key1?99*"]));
    assert_eq!(some.len(), 10 + 100);
    // What no server of ours gave begins somewhere, and ends.
    for cursor in [
        "1",
        "1023",
        "4711",
        "9223372036854775807",
        "18446744073709551615",
    ] {
        let command = format!("SCAN {cursor} COUNT 1000000");
        let mut page = bulks(&connection.call(&words(&command)));
        assert_eq!(page.remove(0), b"0");
        assert!(page.iter().all(|key| expected.contains(key)));
    }
}

#[test]
fn a_random_key_may_be_any() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    for key in ["a", "b", "c", "d"] {
        assert_eq!(connection.call(&["SET", key, "v"]), b"+OK\r\n");
    }
    let mut seen = BTreeSet::new();
    // That one of four is not drawn in a thousand times has a chance of 10 to the minus 124.
    for _ in 0..1_000 {
        seen.insert(connection.call(&["RANDOMKEY"]));
    }
    assert_eq!(seen.len(), 4);
}

/// Patterns that take minutes on these keys, on every data thread. Others are served meanwhile, and one of them ends it.
#[test]
fn nobody_waits_for_a_hostile_pattern() {
    let node = node(&[]);
    // Connections go to the less loaded of two threads, so this is at least one for each.
    let count = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let open = |_| Connection::open(node.local_addr(), 2);
    let mut hostile: Vec<Connection> = (0..count).map(open).collect();
    for n in 0..64 {
        let key = format!("{}{n}", "a".repeat(65_000));
        assert_eq!(hostile[0].call(&["SET", &key, "v"]), b"+OK\r\n");
    }
    let ids: Vec<String> = hostile
        .iter_mut()
        .map(|connection| {
            let id = String::from_utf8(connection.call(&["CLIENT", "ID"])).expect("a number");
            id.trim_matches([':', '\r', '\n']).to_owned()
        })
        .collect();
    let pattern = format!("*{}b", "a".repeat(30_000));
    for (n, connection) in hostile.iter_mut().enumerate() {
        if n % 2 == 0 {
            connection.send(&["KEYS", &pattern]);
        } else {
            connection.send(&["SCAN", "0", "MATCH", &pattern, "COUNT", "1000"]);
        }
    }
    let mut others: Vec<Connection> = (0..count).map(open).collect();
    for (n, other) in others.iter_mut().enumerate() {
        let key = format!("k{n}");
        assert_eq!(other.call(&["SET", &key, "v"]), b"+OK\r\n");
        assert_eq!(other.call(&["GET", &key]), b"$1\r\nv\r\n");
    }
    for id in &ids {
        assert_eq!(others[0].call(&["CLIENT", "KILL", "ID", id]), b":1\r\n");
    }
    for connection in &mut hostile {
        assert_eq!(connection.reply(), b"");
    }
}

#[test]
fn keys_past_the_memory_for_replies_are_an_error() {
    let node = node(&[
        ("limits.max_value_bytes", "64KiB"),
        ("limits.max_body_bytes", "128KiB"),
        ("limits.max_inflight_bytes", "256KiB"),
    ]);
    let mut connection = Connection::open(node.local_addr(), 2);
    let name = "x".repeat(90);
    let sets = (0..5_000).map(|n| format!("SET {name}{n} v"));
    pipeline(&mut connection, sets, b"+OK\r\n");
    for command in ["KEYS *", "SCAN 0 COUNT 100000"] {
        let reply = connection.call(&words(command));
        let reply = String::from_utf8_lossy(&reply);
        assert!(
            reply.starts_with("-ERR the reply would hold more"),
            "{reply}"
        );
    }
    let few = bulks(&connection.call(&["KEYS", "*99"]));
    assert_eq!(few.len(), 50);
}

/// What HTTP says of a value goes with it, however it is stored.
#[test]
fn a_value_moves_as_it_is_stored() {
    let node = node(&[("compression.algorithm", "gzip")]);
    let mut http = Client::connect(node.local_addr());
    let mut connection = Connection::open(node.local_addr(), 2);
    let long = b"compressible ".repeat(50_000);
    let headers = [("content-type", "text/x-long")];
    let put = http.request("PUT", "/cache/%7Bk%7Da", &headers, &long);
    assert_eq!(put.status, 204);
    assert_eq!(
        connection.call(&["EXPIREAT", "{k}a", "33177117420"]),
        b":1\r\n"
    );
    let before = http.request(
        "GET",
        "/cache/%7Bk%7Da",
        &[("accept-encoding", "gzip")],
        b"",
    );
    assert_eq!(before.header("content-encoding"), Some("gzip"));
    assert_eq!(connection.call(&["COPY", "{k}a", "{k}b"]), b":1\r\n");
    assert_eq!(connection.call(&["RENAME", "{k}a", "{k}c"]), b"+OK\r\n");
    for key in ["b", "c"] {
        let target = format!("/cache/%7Bk%7D{key}");
        let after = http.request("GET", &target, &[("accept-encoding", "gzip")], b"");
        assert_eq!(after.header("content-type"), Some("text/x-long"));
        assert_eq!(after.header("content-encoding"), Some("gzip"));
        assert_eq!(after.body, before.body);
        let key = format!("{{k}}{key}");
        assert_eq!(connection.call(&["EXPIRETIME", &key]), b":33177117420\r\n");
    }
    // JSON stays JSON.
    let set = http.post("/set", r#"{"key":"{k}j","value":{"a":[1,2]}}"#);
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(connection.call(&["RENAME", "{k}j", "{k}i"]), b"+OK\r\n");
    let get = http.get("/get?key=%7Bk%7Di").json();
    assert_eq!(get["value"], serde_json::json!({"a": [1, 2]}));
}

/// Runs each command on a connection and a thread of its own, many times at once, so that the threads of the node meet. Gives
/// how often each was answered by 1.
fn successes(address: SocketAddr, commands: [&'static str; 4]) -> [usize; 4] {
    const ROUNDS: usize = 200;
    const AT_ONCE: usize = 500;
    let repeat = |command: &'static str| {
        std::thread::spawn(move || {
            let mut connection = Connection::open(address, 2);
            let mut successes = 0;
            for _ in 0..ROUNDS {
                for _ in 0..AT_ONCE {
                    connection.send(&words(command));
                }
                for _ in 0..AT_ONCE {
                    match &connection.reply()[..] {
                        b":1\r\n" => successes += 1,
                        b":0\r\n" | b"-ERR no such key\r\n" => {}
                        other => panic!("{command}: {}", other.escape_ascii()),
                    }
                }
            }
            successes
        })
    };
    commands
        .map(repeat)
        .map(|thread| thread.join().expect("it is answered"))
}

/// Clients move one value there and back: however they meet, it is never in both places, nor in none.
#[test]
fn a_value_that_is_renamed_is_in_one_place() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    assert_eq!(connection.call(&["SET", "{k}a", "v"]), b"+OK\r\n");
    let [there, back, also_there, also_back] = successes(
        node.local_addr(),
        [
            "RENAMENX {k}a {k}b",
            "RENAMENX {k}b {k}a",
            "RENAMENX {k}a {k}b",
            "RENAMENX {k}b {k}a",
        ],
    );
    let (there, back) = (there + also_there, back + also_back);
    assert!(there > 0);
    let place = match there - back {
        0 => "{k}a",
        1 => "{k}b",
        _ => panic!("{there} there, {back} back"),
    };
    let expected = format!("*1\r\n$4\r\n{place}\r\n");
    assert_eq!(connection.call(&["KEYS", "*"]), expected.as_bytes());
}

/// Clients give a key a deadline if it has none, and others take it away: each deadline that was given is taken once.
#[test]
fn deadlines_are_given_and_taken_in_turn() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    assert_eq!(connection.call(&["SET", "k", "v"]), b"+OK\r\n");
    let [given, taken, also_given, also_taken] = successes(
        node.local_addr(),
        [
            "EXPIREAT k 33177117420 NX",
            "PERSIST k",
            "PEXPIREAT k 33177117420007 NX",
            "PERSIST k",
        ],
    );
    let left = connection.call(&["PERSIST", "k"]) == b":1\r\n";
    assert!(given + also_given > 0);
    assert_eq!(given + also_given, taken + also_taken + usize::from(left));
}

/// A deadline comes by itself.
#[test]
fn what_expires_is_gone_from_everywhere() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    assert_eq!(connection.call(&["SET", "{k}a", "v"]), b"+OK\r\n");
    assert_eq!(connection.call(&["PEXPIRE", "{k}a", "20"]), b":1\r\n");
    while connection.call(&["PTTL", "{k}a"]) != b":-2\r\n" {
        std::thread::yield_now();
    }
    for (command, reply) in [
        ("EXISTS {k}a", ":0"),
        ("TYPE {k}a", "+none"),
        ("KEYS *", "*0"),
        ("SCAN 0", "*2\r\n$1\r\n0\r\n*0"),
        ("RANDOMKEY", "$-1"),
        ("EXPIRE {k}a 100", ":0"),
        ("EXPIRE {k}a 100 NX", ":0"),
        ("PERSIST {k}a", ":0"),
        ("RENAME {k}a {k}b", "-ERR no such key"),
        ("COPY {k}a {k}b", ":0"),
        ("OBJECT ENCODING {k}a", "$-1"),
        ("MEMORY USAGE {k}a", "$-1"),
        ("DEL {k}a", ":0"),
    ] {
        let expected = format!("{reply}\r\n");
        assert_eq!(
            connection.call(&words(command)),
            expected.as_bytes(),
            "{command}"
        );
    }
}

#[test]
fn the_least_frequently_used_policy_counts_uses() {
    let node = node(&[("cache.policy", "lfu")]);
    let mut connection = Connection::open(node.local_addr(), 2);
    assert_eq!(connection.call(&["SET", "k", "v"]), b"+OK\r\n");
    let before = connection.call(&["OBJECT", "FREQ", "k"]);
    assert_eq!(connection.call(&["TYPE", "k"]), b"+string\r\n");
    assert_eq!(connection.call(&["EXISTS", "k"]), b":1\r\n");
    assert_eq!(connection.call(&["OBJECT", "FREQ", "k"]), before);
    assert_eq!(connection.call(&["CLIENT", "NO-TOUCH", "ON"]), b"+OK\r\n");
    assert_eq!(connection.call(&["GET", "k"]), b"$1\r\nv\r\n");
    assert_eq!(connection.call(&["OBJECT", "FREQ", "k"]), before);
    // Whoever says so means it.
    assert_eq!(connection.call(&["TOUCH", "k"]), b":1\r\n");
    assert_ne!(connection.call(&["OBJECT", "FREQ", "k"]), before);
    assert_eq!(connection.call(&["SET", "{k}l", "v"]), b"+OK\r\n");
    let before = connection.call(&["OBJECT", "FREQ", "k"]);
    assert_eq!(
        connection.call(&["COPY", "k", "{k}l", "REPLACE"]),
        b":1\r\n"
    );
    assert_eq!(connection.call(&["OBJECT", "FREQ", "k"]), before);
    assert_eq!(connection.call(&["CLIENT", "NO-TOUCH", "OFF"]), b"+OK\r\n");
    assert_eq!(
        connection.call(&["COPY", "k", "{k}l", "REPLACE"]),
        b":1\r\n"
    );
    assert_ne!(connection.call(&["OBJECT", "FREQ", "k"]), before);
    let idle = connection.call(&["OBJECT", "IDLETIME", "k"]);
    assert!(idle.starts_with(b"-ERR An LFU maxmemory policy is selected, idle time not tracked."));
    assert_eq!(connection.call(&["OBJECT", "IDLETIME", "no"]), b"$-1\r\n");
}
