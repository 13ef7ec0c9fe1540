//! The commands about connections and the node: side by side with valkey-server where the replies are the same, and by what
//! they do where they are not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use crate::client::{Client, DEADLINE, Process, node};
use crate::side_by_side::{Connection, Pair, Valkey, tables};

#[test]
fn connection() {
    tables(include_str!("side_by_side/connection.txt"));
}

#[test]
fn client() {
    tables(include_str!("side_by_side/client.txt"));
}

#[test]
fn command() {
    tables(include_str!("side_by_side/command.txt"));
}

#[test]
fn config() {
    tables(include_str!("side_by_side/config.txt"));
}

#[test]
fn server() {
    tables(include_str!("side_by_side/server.txt"));
}

/// A reply, taken apart. Errors keep their mark; what the two protocols write differently keeps its kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reply {
    Null,
    Integer(i64),
    Text(String),
    Error(String),
    /// The mark, and the parts; of a map its keys and values in turn.
    Parts(char, Vec<Reply>),
}

impl Reply {
    fn read(bytes: &[u8]) -> Self {
        let (reply, rest) = Self::first(bytes);
        assert_eq!(rest, b"", "{}", bytes.escape_ascii());
        reply
    }

    fn first(bytes: &[u8]) -> (Self, &[u8]) {
        let end = bytes
            .iter()
            .position(|&byte| byte == b'\r')
            .expect("a line");
        let line = std::str::from_utf8(&bytes[1..end]).expect("text");
        let mut rest = &bytes[end + 2..];
        let reply = match bytes[0] {
            b'+' | b',' => Self::Text(line.to_owned()),
            b'-' => Self::Error(line.to_owned()),
            b':' => Self::Integer(line.parse().expect("a number")),
            b'_' => Self::Null,
            b'$' | b'*' if line == "-1" => Self::Null,
            kind @ (b'$' | b'=') => {
                let size: usize = line.parse().expect("a size");
                let skipped = if kind == b'=' { 4 } else { 0 };
                let text = String::from_utf8_lossy(&rest[skipped..size]).into_owned();
                rest = &rest[size + 2..];
                Self::Text(text)
            }
            kind => {
                let size: usize = line.parse().expect("a size");
                let count = if kind == b'%' { 2 * size } else { size };
                let mut parts = Vec::new();
                for _ in 0..count {
                    let (part, after) = Self::first(rest);
                    parts.push(part);
                    rest = after;
                }
                Self::Parts(char::from(kind), parts)
            }
        };
        (reply, rest)
    }

    fn parts(&self) -> &[Self] {
        match self {
            Self::Parts(_, parts) => parts,
            other => panic!("{other:?} has no parts"),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    /// A map, whichever protocol it came in.
    fn map(&self) -> BTreeMap<&str, &Self> {
        self.parts()
            .chunks(2)
            .map(|pair| (pair[0].text(), &pair[1]))
            .collect()
    }
}

fn ask(connection: &mut Connection, words: &[&str]) -> Reply {
    Reply::read(&connection.call(words))
}

fn text(connection: &mut Connection, words: &[&str]) -> String {
    ask(connection, words).text().to_owned()
}

/// Sends several commands at once.
fn send_all(connection: &mut Connection, commands: &[&[&str]]) {
    for words in commands {
        connection.send(words);
    }
}

/// What `COMMAND` says of one command, its lists in order, without what only we or only valkey have.
#[derive(PartialEq, Debug)]
struct Described {
    words: Vec<Reply>,
    flags: BTreeSet<Reply>,
    categories: BTreeSet<Reply>,
    key_specs: Vec<Reply>,
    subcommands: BTreeMap<String, Described>,
}

impl Described {
    fn of(reply: &Reply) -> (String, Self) {
        let parts = reply.parts();
        let set = |place: usize| parts[place].parts().iter().cloned().collect();
        let key_specs = parts[8].parts().iter().map(|spec| {
            let Reply::Parts(kind, fields) = spec else {
                panic!("{spec:?} is no map");
            };
            // Notes are sentences of others.
            let fields = fields.chunks(2).filter(|pair| pair[0].text() != "notes");
            Reply::Parts(*kind, fields.flatten().cloned().collect())
        });
        let described = Self {
            words: [1, 3, 4, 5].map(|place| parts[place].clone()).into(),
            flags: set(2),
            categories: set(6),
            key_specs: key_specs.collect(),
            subcommands: parts[9].parts().iter().map(Self::of).collect(),
        };
        (parts[0].text().to_owned(), described)
    }
}

/// Subcommands that valkey has and we have not, and commands that only we have.
const MISSING: [(&str, &str); 7] = [
    ("client|caching", "nothing is tracked for caches of clients"),
    (
        "client|capa",
        "there is no capability that would change a reply",
    ),
    (
        "client|getredir",
        "nothing is tracked for caches of clients",
    ),
    ("client|import-source", "nothing is imported"),
    (
        "client|tracking",
        "nothing is tracked for caches of clients",
    ),
    (
        "client|trackinginfo",
        "nothing is tracked for caches of clients",
    ),
    (
        "client|unblock",
        "no command waits but WAIT, which ends by itself",
    ),
];
const OWN: [&str; 1] = ["henge"];

#[test]
fn commands_are_described_as_valkey_describes_them() {
    let Some(valkey) = Valkey::start() else {
        return;
    };
    for protocol in [2, 3] {
        let mut pair = Pair::over(Some(&valkey), protocol);
        let (ours, theirs) = pair.connection("");
        let theirs = theirs.as_mut().expect("there is one");
        let all = ask(ours, &["COMMAND"]);
        assert_eq!(all, ask(ours, &["COMMAND", "INFO"]));
        let mut missing = BTreeSet::new();
        for ours in all.parts() {
            let (name, mut ours) = Described::of(ours);
            let found = ask(theirs, &["COMMAND", "INFO", &name]);
            if OWN.contains(&name.as_str()) {
                assert_eq!(found.parts(), [Reply::Null]);
                continue;
            }
            let (_, mut theirs) = Described::of(&found.parts()[0]);
            theirs.subcommands.retain(|name, _| {
                let is_known = ours.subcommands.contains_key(name);
                if !is_known {
                    missing.insert(name.clone());
                }
                is_known
            });
            for (name, ours) in std::mem::take(&mut ours.subcommands) {
                assert_eq!(Some(ours), theirs.subcommands.remove(&name), "{name}");
            }
            assert_eq!(ours, theirs, "{name}");
        }
        let known: BTreeSet<_> = MISSING.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(missing, known);
    }
}

#[test]
fn documentation_is_complete() {
    let node = node(&[]);
    for protocol in [2, 3] {
        let mut connection = Connection::open(node.local_addr(), protocol);
        let docs = ask(&mut connection, &["COMMAND", "DOCS"]);
        let names = ask(&mut connection, &["COMMAND", "LIST"]);
        let count = ask(&mut connection, &["COMMAND", "COUNT"]);
        let docs = docs.map();
        let len = i64::try_from(docs.len()).expect("a few");
        assert_eq!(count, Reply::Integer(len));
        let mut listed = BTreeSet::new();
        for (name, doc) in &docs {
            listed.insert((*name).to_owned());
            let doc = doc.map();
            for field in ["summary", "since", "group", "complexity"] {
                assert!(!doc[field].text().is_empty(), "{name}: {field}");
            }
            if let Some(subcommands) = doc.get("subcommands") {
                listed.extend(subcommands.map().keys().map(|name| (*name).to_owned()));
            }
        }
        let names: BTreeSet<_> = names
            .parts()
            .iter()
            .map(|name| name.text().to_owned())
            .collect();
        assert_eq!(listed, names);
        // As a client sees one command whole: a key, a value, one of some, an option, one of some again.
        let set = docs["set"].map();
        let types: Vec<_> = set["arguments"]
            .parts()
            .iter()
            .map(|argument| argument.map()["type"].text())
            .collect();
        assert_eq!(types, ["key", "string", "oneof", "pure-token", "oneof"]);
        let condition = set["arguments"].parts()[2].map();
        assert_eq!(condition["flags"].parts(), [Reply::Text("optional".into())]);
        assert_eq!(
            condition["arguments"].parts()[2].map()["token"].text(),
            "IFEQ"
        );
    }
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
    let node = node(&[]);
    for protocol in [2, 3] {
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

/// The lines of `INFO` as names and values.
fn info(connection: &mut Connection, sections: &[&str]) -> BTreeMap<String, String> {
    let words: Vec<&str> = ["INFO"].iter().chain(sections).copied().collect();
    text(connection, &words)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn number(info: &BTreeMap<String, String>, name: &str) -> u64 {
    info[name]
        .parse()
        .unwrap_or_else(|_| panic!("{name}:{}", info[name]))
}

#[test]
fn info_has_what_exporters_read() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 3);
    for words in [
        ["SET", "a", "1"].as_slice(),
        &["SET", "b", "1", "PX", "3600000"],
        &["GET", "a"],
        &["GET", "none"],
        &["INCR", "a", "b"],
        &["NO-SUCH"],
        &["SELECT", "9"],
    ] {
        connection.call(words);
    }
    let all = info(&mut connection, &["everything"]);
    for (name, value) in [
        ("redis_version", "7.2.4"),
        ("server_name", "henge"),
        ("henge_version", env!("CARGO_PKG_VERSION")),
        ("redis_mode", "standalone"),
        ("connected_clients", "1"),
        ("blocked_clients", "0"),
        ("maxmemory", "268435456"),
        ("maxmemory_human", "256.00M"),
        ("maxmemory_policy", "allkeys-lru"),
        ("loading", "0"),
        ("aof_enabled", "0"),
        ("rdb_last_bgsave_status", "ok"),
        ("total_connections_received", "1"),
        ("keyspace_hits", "1"),
        ("keyspace_misses", "1"),
        ("expired_keys", "0"),
        ("evicted_keys", "0"),
        ("rejected_connections", "0"),
        ("total_error_replies", "3"),
        ("role", "master"),
        ("connected_slaves", "0"),
        ("cluster_enabled", "0"),
        ("db0", "keys=2,expires=1,avg_ttl=0"),
        ("errorstat_ERR", "count=3"),
    ] {
        assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
    }
    for name in [
        "uptime_in_seconds",
        "process_id",
        "tcp_port",
        "used_memory",
        "used_memory_rss",
        "used_memory_peak",
        "total_system_memory",
        "total_commands_processed",
        "instantaneous_ops_per_sec",
        "total_net_input_bytes",
        "total_net_output_bytes",
        "maxclients",
    ] {
        number(&all, name);
    }
    assert!(number(&all, "used_memory_peak") >= number(&all, "used_memory"));
    let expected = "calls=2,usec=";
    assert!(all["cmdstat_set"].starts_with(expected), "{all:?}");
    assert!(all["cmdstat_incr"].ends_with("rejected_calls=1,failed_calls=0"));
    assert!(all["cmdstat_select"].ends_with("rejected_calls=0,failed_calls=1"));
    assert!(all["latency_percentiles_usec_get"].starts_with("p50="));

    let titles = |connection: &mut Connection, words: &[&str]| -> Vec<String> {
        let page = text(connection, words);
        page.lines()
            .filter_map(|line| line.strip_prefix("# ").map(str::to_owned))
            .collect()
    };
    let default = titles(&mut connection, &["INFO"]);
    assert_eq!(default, titles(&mut connection, &["INFO", "default"]));
    assert!(!default.contains(&"Commandstats".to_owned()));
    let all = titles(&mut connection, &["INFO", "all"]);
    assert_eq!(all.len(), default.len() + 2);
    assert_eq!(
        titles(
            &mut connection,
            &["INFO", "CPU", "server", "server", "none"]
        ),
        ["Server", "CPU"]
    );
    assert_eq!(
        titles(&mut connection, &["INFO", "default", "commandstats"]).len(),
        default.len() + 1
    );
}

#[test]
fn statistics_begin_again_and_metrics_do_not() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    for words in [["GET", "k"].as_slice(), &["GET"], &["GET", "k"]] {
        connection.call(words);
    }
    let before = info(&mut connection, &["stats", "commandstats", "errorstats"]);
    assert_eq!(number(&before, "keyspace_misses"), 2);
    assert!(before.contains_key("cmdstat_get") && before.contains_key("errorstat_ERR"));
    assert_eq!(connection.call(&["CONFIG", "RESETSTAT"]), b"+OK\r\n");
    let after = info(&mut connection, &["stats", "commandstats", "errorstats"]);
    assert_eq!(number(&after, "keyspace_misses"), 0);
    assert_eq!(number(&after, "total_error_replies"), 0);
    assert!(!after.contains_key("cmdstat_get") && !after.contains_key("errorstat_ERR"));
    let histogram = ask(&mut connection, &["LATENCY", "HISTOGRAM", "get"]);
    assert_eq!(histogram.parts(), []);

    let mut http = Client::connect(node.local_addr());
    let page = http.get("/metrics/json").json();
    let get = &page["commands"]["get"];
    assert_eq!((&get["calls"], &get["rejected"]), (&2.into(), &1.into()));
    assert!(get["latency_seconds"]["p50"].as_f64() > Some(0.0));
    assert_eq!(page["commands"]["set"], serde_json::Value::Null);
    assert_eq!(http.get("/stats").json()["commands"]["get"], 2);
    let metrics = http.get("/metrics").text();
    for line in [
        "henge_commands_total{command=\"get\"} 2",
        "henge_commands_rejected_total{command=\"get\"} 1",
        "henge_command_duration_seconds_count{command=\"get\"} 2",
        "henge_error_replies_total{code=\"ERR\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }
    assert!(!metrics.contains("command=\"set\""));
}

#[test]
fn memory_is_set_while_the_node_runs() {
    let node = node(&[("compression.algorithm", "none")]);
    let mut connection = Connection::open(node.local_addr(), 2);
    let value = "x".repeat(64 * 1024);
    for key in 0..200 {
        let set = connection.call(&["SET", &key.to_string(), &value]);
        assert_eq!(set, b"+OK\r\n");
    }
    let before = info(&mut connection, &["memory", "stats"]);
    assert!(number(&before, "used_memory") > 12 << 20);
    assert_eq!(number(&before, "evicted_keys"), 0);
    assert_eq!(
        connection.call(&["CONFIG", "SET", "maxmemory", "4mb"]),
        b"+OK\r\n"
    );
    let after = info(&mut connection, &["memory", "stats"]);
    assert!(number(&after, "used_memory") <= 4 << 20);
    assert!(number(&after, "evicted_keys") > 100);
    assert_eq!(number(&after, "maxmemory"), 4 << 20);
    let page = Client::connect(node.local_addr()).get("/stats").json();
    assert_eq!(page["memory"]["limit_bytes"], 4 << 20);
    // The same setting under its own name.
    let own = ask(
        &mut connection,
        &["CONFIG", "GET", "cache.max_*", "Cache.Policy"],
    );
    assert_eq!(
        own.map(),
        BTreeMap::from([
            ("cache.max_size_bytes", &Reply::Text("4MiB".into())),
            ("cache.max_items", &Reply::Text("none".into())),
            ("Cache.Policy", &Reply::Text("lru".into())),
        ])
    );
}

#[test]
fn settings_change_all_or_none() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    let failed = |argument: &str, why: &str| {
        Reply::Error(format!(
            "ERR CONFIG SET failed (possibly related to argument '{argument}') - {why}"
        ))
    };
    let immutable = "can't set immutable config";
    let ok = Reply::Text("OK".into());
    for (settings, reply) in [
        (
            &["cache.max_items", "10", "limits.max_batch_items", "5"][..],
            ok.clone(),
        ),
        (
            &["cache.max_items", "20", "cache.policy", "lfu"],
            failed(
                "cache.policy",
                &format!("{immutable}: cache.policy changes at a restart only"),
            ),
        ),
        (
            &["cache.max_items", "20", "maxmemory-policy", "allkeys-lfu"],
            failed(
                "maxmemory-policy",
                &format!("{immutable}: cache.policy changes at a restart only"),
            ),
        ),
        (
            &["cache.max_items", "20", "limits.max_value_bytes", "1GiB"],
            failed(
                "cache.max_items",
                "limits.max_value_bytes = \"1GiB\" and limits.max_inflight_bytes = \"512MiB\" do not go together: the \
                 first must be at most the second, or the largest value could never be received",
            ),
        ),
        (
            &["cache.max_items", "20", "timeout", "5"],
            failed("timeout", immutable),
        ),
        (
            &[
                "cache.max_items",
                "20",
                "maxmemory",
                "1gb",
                "cache.max_size_bytes",
                "1GiB",
            ],
            failed("cache.max_size_bytes", "duplicate parameter"),
        ),
        (
            &["slowlog-max-len", "7", "cache.max_items", "0"],
            failed(
                "cache.max_items",
                "cache.max_items: found \"0\", expected an integer from 1 to 9223372036854775807, or \"none\"",
            ),
        ),
        (
            &["slowlog-max-len", "100001"],
            failed(
                "slowlog-max-len",
                "argument must be between 0 and 100000 inclusive",
            ),
        ),
        (&["maxmemory-policy", "allkeys-lru"], ok.clone()),
    ] {
        let words: Vec<&str> = ["CONFIG", "SET"].iter().chain(settings).copied().collect();
        assert_eq!(ask(&mut connection, &words), reply, "{settings:?}");
        let now = ask(
            &mut connection,
            &["CONFIG", "GET", "cache.max_items", "slowlog-max-len"],
        );
        assert_eq!(now.map()["cache.max_items"].text(), "10");
        assert_eq!(now.map()["slowlog-max-len"].text(), "128");
    }
    let rewritten = ask(&mut connection, &["CONFIG", "REWRITE"]);
    assert!(matches!(rewritten, Reply::Error(_)));
    // More patterns than the data thread looks for by itself; each setting comes once.
    let mut words = vec!["CONFIG", "GET"];
    words.resize(40, "*");
    let all = ask(&mut connection, &words);
    assert!(all.map().contains_key("maxmemory") && all.map().contains_key("log.level"));
    assert_eq!(all.parts().len(), 2 * all.map().len());
}

#[test]
fn slow_commands_are_logged_in_pipelines_too() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    connection.call(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    connection.call(&["SLOWLOG", "RESET"]);
    let commands: Vec<[&str; 2]> = vec![["GET", "k"]; 50];
    for words in &commands {
        connection.send(words);
    }
    for _ in &commands {
        assert_eq!(connection.reply(), b"$-1\r\n");
    }
    // What may carry secrets is kept out.
    connection.call(&["AUTH", "default", "secret"]);
    assert_eq!(connection.call(&["SLOWLOG", "LEN"]), b":51\r\n");
    connection.call(&["CONFIG", "SET", "slowlog-max-len", "3"]);
    assert_eq!(connection.call(&["SLOWLOG", "LEN"]), b":3\r\n");
    let long = "x".repeat(200);
    let mut words = vec![long.as_str(); 40];
    words[0] = "DEL";
    connection.call(&words);
    let newest = ask(&mut connection, &["SLOWLOG", "GET", "1"]);
    let entry = newest.parts()[0].parts();
    let kept = entry[3].parts();
    assert_eq!(kept.len(), 32);
    assert_eq!(
        kept[1].text(),
        format!("{}... (72 more bytes)", "x".repeat(128))
    );
    assert_eq!(kept[31].text(), "... (9 more arguments)");
}

#[test]
fn slow_seconds_are_remembered() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 3);
    connection.call(&["CONFIG", "SET", "latency-monitor-threshold", "1"]);
    assert!(text(&mut connection, &["LATENCY", "DOCTOR"]).starts_with("No command took"));
    // Larger and larger, until one takes a millisecond.
    let begun = Instant::now();
    let mut keys = 1024;
    let latest = loop {
        let mut words = vec!["EXISTS"];
        words.resize(keys, "k");
        connection.call(&words);
        let latest = ask(&mut connection, &["LATENCY", "LATEST"]);
        if !latest.parts().is_empty() {
            break latest;
        }
        assert!(begun.elapsed() < DEADLINE, "{keys} keys took no time");
        keys = (keys * 2).min(1 << 19);
    };
    // EXISTS is one of the quick ones by its name, whatever it is asked.
    let event = latest.parts()[0].parts();
    assert_eq!(event[0].text(), "fast-command");
    assert_eq!(event.len(), 6);
    let history = ask(&mut connection, &["LATENCY", "HISTORY", "fast-command"]);
    assert_eq!(history.parts()[0].parts().len(), 2);
    let graph = text(&mut connection, &["LATENCY", "GRAPH", "fast-command"]);
    assert!(graph.starts_with("fast-command - high "), "{graph}");
    let report = text(&mut connection, &["LATENCY", "DOCTOR"]);
    assert!(report.starts_with("fast-command: 1 slow ones"), "{report}");
    let histogram = ask(
        &mut connection,
        &["LATENCY", "HISTOGRAM", "exists", "latency"],
    );
    let histogram = histogram.map();
    let calls = &histogram["exists"].map()["calls"];
    let steps = histogram["exists"].map()["histogram_usec"].parts().to_vec();
    assert_eq!(steps.last(), Some(*calls));
    assert!(histogram.contains_key("latency|doctor") && !histogram.contains_key("config|set"));
    assert_eq!(
        connection.call(&["LATENCY", "RESET", "fast-command"]),
        b":1\r\n"
    );
    assert_eq!(connection.call(&["LATENCY", "LATEST"]), b"*0\r\n");
}

#[test]
fn memory_is_accounted_for() {
    let node = node(&[]);
    for protocol in [2, 3] {
        let mut connection = Connection::open(node.local_addr(), protocol);
        connection.call(&["SET", "k", "v"]);
        let stats = ask(&mut connection, &["MEMORY", "STATS"]);
        let stats = stats.map();
        assert_eq!(stats["keys.count"], &Reply::Integer(1));
        assert_eq!(stats["db.0"].parts().len(), 4);
        assert!(stats["dataset.percentage"].text().parse::<f64>().is_ok());
        let report = text(&mut connection, &["MEMORY", "DOCTOR"]);
        assert!(report.starts_with("1 items take "), "{report}");
        assert!(!text(&mut connection, &["MEMORY", "MALLOC-STATS"]).is_empty());
        assert_eq!(connection.call(&["MEMORY", "PURGE"]), b"+OK\r\n");
        assert_eq!(connection.call(&["GET", "k"]), b"$1\r\nv\r\n");
    }
}

#[test]
fn levels_and_versions() {
    let node = node(&[("cluster.default_consistency", "one")]);
    let mut connection = Connection::open(node.local_addr(), 2);
    for (words, reply) in [
        (&["HENGE", "LEVEL"][..], &b"$3\r\nONE\r\n"[..]),
        (&["HENGE", "LEVEL", "quorum"], b"+OK\r\n"),
        (&["HENGE", "LEVEL"], b"$6\r\nQUORUM\r\n"),
        (&["HENGE", "LEVEL", "ALL"], b"+OK\r\n"),
        (&["HENGE", "LEVEL"], b"$3\r\nALL\r\n"),
        (&["HENGE", "LEVEL", "TWO"], b"-ERR syntax error\r\n"),
        (
            &["HENGE", "LEVEL", "ONE", "TWO"],
            b"-ERR wrong number of arguments for 'henge|level' command\r\n",
        ),
        (&["RESET"], b"+RESET\r\n"),
        (&["HENGE", "LEVEL"], b"$3\r\nONE\r\n"),
        (&["HENGE", "VERSION", "k"], b"$-1\r\n"),
        (
            &["HENGE", "NONE"],
            b"-ERR unknown subcommand 'NONE'. Try HENGE HELP.\r\n",
        ),
    ] {
        assert_eq!(connection.call(words), reply, "{words:?}");
    }
    // The same version as HTTP has it.
    connection.call(&["SET", "k", "v"]);
    let version = text(&mut connection, &["HENGE", "VERSION", "k"]);
    let got = Client::connect(node.local_addr()).get("/get?key=k").json();
    assert_eq!(got["version"], version.as_str());
    connection.call(&["SET", "k", "w"]);
    assert_ne!(text(&mut connection, &["HENGE", "VERSION", "k"]), version);
}

#[test]
fn help_lists_every_subcommand() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr(), 2);
    for family in [
        "CLIENT", "COMMAND", "CONFIG", "HENGE", "LATENCY", "MEMORY", "SLOWLOG",
    ] {
        let help = ask(&mut connection, &[family, "HELP"]);
        let lines: Vec<_> = help.parts().iter().map(Reply::text).collect();
        let head = format!("{family} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
        assert_eq!(lines[0], head);
        let pattern = format!("{family}|*");
        let names = ask(
            &mut connection,
            &["COMMAND", "LIST", "FILTERBY", "PATTERN", &pattern],
        );
        assert_eq!(lines.len(), 1 + 2 * names.parts().len(), "{family}");
    }
}

#[test]
fn a_port_of_its_own_for_the_redis_protocol() {
    let node = node(&[
        ("server.resp_listen", "127.0.0.1:0"),
        ("limits.max_connections", "2"),
    ]);
    let address: SocketAddr = node.resp_addr().expect("it was asked for");
    assert_ne!(address, node.local_addr());
    let mut connection = Connection::open(address, 3);
    assert_eq!(connection.call(&["SET", "k", "v"]), b"+OK\r\n");
    // The other port serves both, and the same data.
    let mut both = Connection::open(node.local_addr(), 2);
    assert_eq!(both.call(&["GET", "k"]), b"$1\r\nv\r\n");
    // Who is one too many is told so in words of the protocol.
    let mut refused = Client::connect(address);
    assert_eq!(
        refused.until_closed(),
        b"-ERR max number of clients reached\r\n"
    );
    drop(both);
    // What looks like HTTP is a command that there is not.
    let mut inline = loop {
        let mut inline = Client::connect(address);
        let line = b"GET /stats HTTP/1.1\r\n";
        inline.send(line).expect("sent");
        let mut reply = [0; 4];
        inline.read_exact(&mut reply);
        // The connection that was dropped may still be counted.
        assert_eq!(&reply, b"-ERR");
        let mut rest = vec![0; 8];
        inline.read_exact(&mut rest);
        if rest == b" wrong n" {
            break inline;
        }
        assert_eq!(rest, b" max num");
        inline.until_closed();
    };
    inline.send(b"QUIT\r\n").expect("sent");
    let rest = String::from_utf8(inline.until_closed()).expect("text");
    assert_eq!(rest, "umber of arguments for 'get' command\r\n+OK\r\n");
    assert!(crate::client::node(&[]).resp_addr().is_none());
}

#[test]
fn a_client_ends_the_node() {
    for words in [
        &["SHUTDOWN"][..],
        &["SHUTDOWN", "NOSAVE", "NOW", "FORCE"],
        &["SHUTDOWN", "SAVE", "FORCE"],
    ] {
        let process = Process::start(Process::command(&[]));
        let mut connection = Connection::open(process.address, 2);
        assert_eq!(
            connection.call(&["SHUTDOWN", "SAVE"]),
            b"-ERR Errors trying to SHUTDOWN. Check logs.\r\n",
            "nothing can be saved"
        );
        assert_eq!(connection.call(&["SET", "k", "v"]), b"+OK\r\n");
        // What came before it is answered, and it has no answer itself.
        send_all(&mut connection, &[&["GET", "k"], words]);
        assert_eq!(connection.reply(), b"$1\r\nv\r\n");
        assert_eq!(connection.reply(), b"");
        drop(connection);
        let (code, log) = process.wait();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("draining") && log.contains("stopped"), "{log}");
    }
}
