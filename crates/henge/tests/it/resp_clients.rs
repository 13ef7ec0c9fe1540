//! Connections of the Redis protocol and what they may know and do about each other, with two of them or more.

use std::collections::BTreeMap;

use crate::client::node;
use crate::resp_reply::{Reply, ask, send_all, text};
use crate::side_by_side::{Connection, tables};

#[test]
fn connection() {
    tables(include_str!("side_by_side/connection.txt"));
}

#[test]
fn client() {
    tables(include_str!("side_by_side/client.txt"));
}

#[test]
fn a_greeting_says_who_is_there() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    let two = connection.call(&["HELLO"]);
    assert!(two.starts_with(b"*14\r\n"));
    let three = connection.call(&["HELLO", "3", "AUTH", "default", "x", "SETNAME", "me"]);
    assert!(three.starts_with(b"%7\r\n"));
    let greeting = Reply::read(&three);
    let greeting = greeting.map();
    for (field, value) in [
        ("server", "henge"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("mode", "standalone"),
        ("role", "master"),
    ] {
        assert_eq!(greeting[field].text(), value);
    }
    assert_eq!(greeting["proto"], &Reply::Integer(3));
    let id = ask(&mut connection, &["CLIENT", "ID"]);
    assert_eq!(greeting["id"], &id);
    assert_eq!(text(&mut connection, &["CLIENT", "GETNAME"]), "me");
    // A reset goes back to RESP2, and to no name.
    assert_eq!(connection.call(&["RESET"]), b"+RESET\r\n");
    assert_eq!(connection.call(&["CLIENT", "GETNAME"]), b"$-1\r\n");
    assert_eq!(connection.call(&["HELLO", "2"])[..5], b"*14\r\n"[..]);
}

/// The fields of a line of `CLIENT LIST`.
fn fields(line: &str) -> BTreeMap<&str, &str> {
    line.split(' ')
        .map(|field| field.split_once('=').expect("a name and a value"))
        .collect()
}

/// All lines, by the name of the client.
fn listed(connection: &mut Connection, filters: &[&str]) -> Vec<String> {
    let words: Vec<&str> = ["CLIENT", "LIST"].iter().chain(filters).copied().collect();
    let text = text(connection, &words);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn clients_are_listed_with_what_they_said() {
    for protocol in [2, 3] {
        // A node of its own: the last connection of the round before may be seen to end only later.
        let node = node(&[]);
        let mut one = Connection::open(node.local_addr(), protocol);
        let mut other = Connection::open(node.local_addr(), 2);
        ask(&mut one, &["CLIENT", "SETNAME", "one"]);
        for words in [
            ["CLIENT", "SETNAME", "other"].as_slice(),
            &["CLIENT", "SETINFO", "LIB-NAME", "lib"],
            &["CLIENT", "SETINFO", "LIB-VER", "1.2"],
            &["CLIENT", "NO-EVICT", "ON"],
            &["CLIENT", "NO-TOUCH", "ON"],
            &["GET", "k"],
        ] {
            other.call(words);
        }
        let lines = listed(&mut one, &[]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let (own, others) = (fields(&lines[0]), fields(&lines[1]));
        let expected = [
            ("name", "other"),
            ("flags", "eT"),
            ("db", "0"),
            ("cmd", "get"),
            ("user", "default"),
            ("resp", "2"),
            ("lib-name", "lib"),
            ("lib-ver", "1.2"),
            ("tot-cmds", "6"),
        ];
        for (field, value) in expected {
            assert_eq!(others[field], value, "{field}");
        }
        assert_eq!(own["name"], "one");
        assert_eq!(own["cmd"], "client|list");
        assert_eq!(own["resp"], protocol.to_string());
        assert_eq!(own["laddr"], node.local_addr().to_string());
        assert!(own["tot-net-in"].parse::<u64>().expect("a number") > 0);
        let (id, address) = (others["id"], others["addr"]);
        for (filters, names) in [
            (&["ID", id][..], &["other"][..]),
            (&["ID", id, own["id"]], &["one", "other"]),
            (&["NOT-ID", id], &["one"]),
            (&["ADDR", address], &["other"]),
            (&["NOT-ADDR", address], &["one"]),
            (&["LADDR", own["laddr"]], &["one", "other"]),
            (&["IP", "127.0.0.1", "SKIPME", "YES"], &["other"]),
            (&["NAME", "one"], &["one"]),
            (&["LIB-NAME", "lib"], &["other"]),
            (&["NOT-LIB-VER", "1.2"], &["one"]),
            (&["FLAGS", "T"], &["other"]),
            (&["NOT-FLAGS", "e", "TYPE", "NORMAL"], &["one"]),
            (&["USER", "default", "DB", "0"], &["one", "other"]),
        ] {
            let lines = listed(&mut one, filters);
            let found: Vec<_> = lines.iter().map(|line| fields(line)["name"]).collect();
            assert_eq!(found, names, "{filters:?}");
        }
        assert_eq!(text(&mut other, &["CLIENT", "INFO"]).lines().count(), 1);
        // A connection that ended is listed no more, once the node has seen it.
        drop(other);
        while listed(&mut one, &[]).len() > 1 {
            std::thread::yield_now();
        }
        drop(one);
        let mut last = Connection::open(node.local_addr(), 2);
        while listed(&mut last, &[]).len() > 1 {
            std::thread::yield_now();
        }
    }
}

/// More clients than the data thread lists by itself.
#[test]
fn many_clients_are_listed() {
    let node = node(&[]);
    let many: Vec<Connection> = (0..200)
        .map(|_| {
            let mut connection = Connection::open(node.local_addr(), 2);
            assert_eq!(connection.call(&["PING"]), b"+PONG\r\n");
            connection
        })
        .collect();
    let mut connection = Connection::open(node.local_addr(), 3);
    assert_eq!(listed(&mut connection, &[]).len(), 1 + many.len());
}

#[test]
fn clients_are_killed() {
    let node = node(&[]);
    let mut one = Connection::open(node.local_addr(), 2);
    let victim = || {
        let mut victim = Connection::open(node.local_addr(), 2);
        let line = text(&mut victim, &["CLIENT", "INFO"]);
        let fields = fields(line.trim_end());
        let (id, address) = (fields["id"].to_owned(), fields["addr"].to_owned());
        (victim, id, address)
    };
    let (mut killed, id, _) = victim();
    assert_eq!(one.call(&["CLIENT", "KILL", "ID", &id]), b":1\r\n");
    assert_eq!(killed.reply(), b"");
    let (mut killed, _, address) = victim();
    assert_eq!(one.call(&["CLIENT", "KILL", &address]), b"+OK\r\n");
    assert_eq!(killed.reply(), b"");
    // All but the one who asks.
    let ((mut first, ..), (mut second, ..)) = (victim(), victim());
    assert_eq!(one.call(&["CLIENT", "KILL", "TYPE", "normal"]), b":2\r\n");
    assert_eq!((first.reply(), second.reply()), (vec![], vec![]));
    // And that one too, who reads of it.
    let (mut second, ..) = victim();
    assert_eq!(
        one.call(&["CLIENT", "KILL", "SKIPME", "no", "USER", "default"]),
        b":2\r\n"
    );
    assert_eq!((one.reply(), second.reply()), (vec![], vec![]));
    // One that waits for something is killed as well.
    let (mut waiting, id, _) = victim();
    waiting.send(&["WAIT", "1", "0"]);
    let mut one = Connection::open(node.local_addr(), 2);
    assert_eq!(one.call(&["CLIENT", "KILL", "ID", &id]), b":1\r\n");
    assert_eq!(waiting.reply(), b"");
}

#[test]
fn replies_are_left_out_as_the_client_wants() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    send_all(
        &mut connection,
        &[
            &["CLIENT", "REPLY", "SKIP"],
            &["PING", "skipped"],
            &["CLIENT", "REPLY", "SKIP"],
            &["CLIENT", "REPLY", "SKIP"],
            &["PING", "skipped as well"],
            &["CLIENT", "REPLY", "SKIP"],
            &["NO", "SUCH"],
            &["PING", "a"],
            &["CLIENT", "REPLY", "OFF"],
            &["PING", "off"],
            &["NO", "SUCH"],
            &["CLIENT", "REPLY", "SKIP"],
            // Its reply comes later, and is not wanted either.
            &["INFO"],
            &["CLIENT", "REPLY", "ON"],
            &["PING", "b"],
            &["CLIENT", "REPLY", "OFF"],
            &["RESET"],
            &["PING", "c"],
        ],
    );
    let replies: Vec<Vec<u8>> = (0..5).map(|_| connection.reply()).collect();
    let expected: [&[u8]; 5] = [
        b"$1\r\na\r\n",
        b"+OK\r\n",
        b"$1\r\nb\r\n",
        b"+RESET\r\n",
        b"$1\r\nc\r\n",
    ];
    assert_eq!(replies, expected);
}

#[test]
fn a_pause_lasts_until_it_is_ended() {
    let node = node(&[]);
    let mut one = Connection::open(node.local_addr(), 2);
    let mut other = Connection::open(node.local_addr(), 2);
    assert_eq!(
        one.call(&["CLIENT", "PAUSE", "3600000", "WRITE"]),
        b"+OK\r\n"
    );
    // The reply to the first says that the second was met.
    send_all(
        &mut other,
        &[&["GET", "k"], &["SET", "k", "v"], &["GET", "k"]],
    );
    assert_eq!(other.reply(), b"$-1\r\n");
    assert_eq!(one.call(&["GET", "k"]), b"$-1\r\n");
    let clients = text(&mut one, &["INFO", "clients"]);
    assert!(clients.contains("paused_actions:write\r\n"), "{clients}");
    assert_eq!(one.call(&["CLIENT", "UNPAUSE"]), b"+OK\r\n");
    assert_eq!(other.reply(), b"+OK\r\n");
    assert_eq!(other.reply(), b"$1\r\nv\r\n");
    // All commands wait but the one that ends it.
    assert_eq!(one.call(&["CLIENT", "PAUSE", "3600000"]), b"+OK\r\n");
    other.send(&["PING"]);
    assert_eq!(one.call(&["CLIENT", "UNPAUSE"]), b"+OK\r\n");
    assert_eq!(other.reply(), b"+PONG\r\n");
    // And it ends by itself.
    assert_eq!(one.call(&["CLIENT", "PAUSE", "1"]), b"+OK\r\n");
    assert_eq!(other.call(&["PING"]), b"+PONG\r\n");
}

#[test]
fn reads_without_touch_do_not_keep_a_key() {
    for (no_touch, survivor) in [("OFF", "a"), ("ON", "b")] {
        let node = node(&[("cache.max_items", "2")]);
        let mut connection = Connection::open(node.local_addr(), 2);
        for words in [
            ["CLIENT", "NO-TOUCH", no_touch].as_slice(),
            &["SET", "a", "1"],
            &["SET", "b", "1"],
            &["GET", "a"],
            &["SET", "c", "1"],
        ] {
            connection.call(words);
        }
        for key in ["a", "b"] {
            let is_there = connection.call(&["GET", key]) != b"$-1\r\n";
            assert_eq!(is_there, key == survivor, "{no_touch} {key}");
        }
    }
}
