//! The commands about the node: side by side with valkey-server where the replies are the same, and by what
//! they do where they are not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::client::{Client, DEADLINE, Process, node};
use crate::resp_reply::{Reply, ask, send_all, text};
use crate::side_by_side::{Connection, tables};

#[test]
fn config() {
    tables(include_str!("side_by_side/config.txt"));
}

#[test]
fn server() {
    tables(include_str!("side_by_side/server.txt"));
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
        ("aof_enabled", "1"),
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

/// However a deadline comes and goes, the count of them follows.
#[test]
fn deadlines_are_counted() {
    let node = node(&[]);
    // One slot for all, as some commands ask for.
    let mut connection = Connection::open(node.local_addr(), 2);
    for (words, keyspace) in [
        (&["SET", "{t}a", "1"][..], "keys=1,expires=0"),
        (&["SET", "{t}b", "1", "EX", "100"], "keys=2,expires=1"),
        (&["EXPIRE", "{t}a", "100"], "keys=2,expires=2"),
        (&["EXPIRE", "{t}a", "200"], "keys=2,expires=2"),
        (&["APPEND", "{t}b", "2"], "keys=2,expires=2"),
        (&["PERSIST", "{t}a"], "keys=2,expires=1"),
        (&["SET", "{t}b", "3"], "keys=2,expires=0"),
        (&["SETEX", "{t}c", "100", "1"], "keys=3,expires=1"),
        (&["RENAME", "{t}c", "{t}a"], "keys=2,expires=1"),
        (&["COPY", "{t}a", "{t}d"], "keys=3,expires=2"),
        (&["DEL", "{t}d"], "keys=2,expires=1"),
    ] {
        let reply = connection.call(words);
        assert!(!reply.starts_with(b"-"), "{}", reply.escape_ascii());
        let found = info(&mut connection, &["keyspace"]);
        assert_eq!(found["db0"], format!("{keyspace},avg_ttl=0"), "{words:?}");
    }
    connection.call(&["PEXPIRE", "{t}a", "1"]);
    let begun = Instant::now();
    while info(&mut connection, &["keyspace"])["db0"] != "keys=1,expires=0,avg_ttl=0" {
        assert!(begun.elapsed() < DEADLINE, "it was never swept");
        std::thread::yield_now();
    }
    connection.call(&["SET", "{t}b", "1", "EX", "100"]);
    connection.call(&["FLUSHALL"]);
    assert!(info(&mut connection, &["keyspace"]).is_empty());
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
            &["slowlog-max-len", "10001"],
            failed(
                "slowlog-max-len",
                "argument must be between 0 and 10000 inclusive",
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
    connection.call(&["CONFIG", "SET", "masterauth", "hunter2"]);
    let newest = ask(&mut connection, &["SLOWLOG", "GET", "1"]);
    let told = format!("{:?}", newest.parts()[0].parts()[3]);
    assert!(
        told.contains("masterauth") && told.contains("(hidden)"),
        "{told}"
    );
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
    // An hour, which nothing takes.
    connection.call(&["CONFIG", "SET", "latency-monitor-threshold", "3600000"]);
    assert!(text(&mut connection, &["LATENCY", "DOCTOR"]).starts_with("No command took"));
    connection.call(&["CONFIG", "SET", "latency-monitor-threshold", "1"]);
    // Larger and larger, until one takes a millisecond.
    let begun = Instant::now();
    let mut keys = 1024;
    // Others may take as long, on a machine that has more to do.
    let is_fast = |event: &&Reply| event.parts()[0].text() == "fast-command";
    let event = loop {
        let mut words = vec!["EXISTS"];
        words.resize(keys, "k");
        connection.call(&words);
        let latest = ask(&mut connection, &["LATENCY", "LATEST"]);
        if let Some(event) = latest.parts().iter().find(is_fast) {
            break event.clone();
        }
        assert!(begun.elapsed() < DEADLINE, "{keys} keys took no time");
        keys = (keys * 2).min(1 << 19);
    };
    // EXISTS is one of the quick ones by its name, whatever it is asked.
    assert_eq!(event.parts().len(), 6);
    let history = ask(&mut connection, &["LATENCY", "HISTORY", "fast-command"]);
    assert_eq!(history.parts()[0].parts().len(), 2);
    let graph = text(&mut connection, &["LATENCY", "GRAPH", "fast-command"]);
    assert!(graph.starts_with("fast-command - high "), "{graph}");
    let report = text(&mut connection, &["LATENCY", "DOCTOR"]);
    assert!(report.contains("fast-command: "), "{report}");
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
    connection.call(&["LATENCY", "RESET"]);
    connection.call(&["CONFIG", "SET", "latency-monitor-threshold", "0"]);
    connection.call(&["LATENCY", "RESET"]);
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

/// However long it would wait else.
#[test]
fn who_waits_does_not_keep_the_node_from_its_end() {
    let setting = "--set=server.shutdown_timeout_ms=3600000";
    let process = Process::start(Process::command(&[setting]));
    let mut waiting = Connection::open(process.address, 2);
    // The reply to the first says that the second was met.
    send_all(&mut waiting, &[&["PING"], &["WAIT", "1", "0"]]);
    assert_eq!(waiting.reply(), b"+PONG\r\n");
    let mut other = Connection::open(process.address, 2);
    other.send(&["SHUTDOWN"]);
    assert_eq!(other.reply(), b"");
    assert_eq!(waiting.reply(), b":0\r\n");
    assert_eq!(waiting.reply(), b"");
    let (code, log) = process.wait();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_client_ends_the_node() {
    let in_memory = ["--set", "persistence.enabled=false"];
    for (settings, words) in [
        (&in_memory[..], &["SHUTDOWN"][..]),
        (&in_memory, &["SHUTDOWN", "NOSAVE", "NOW", "FORCE"]),
        (&in_memory, &["SHUTDOWN", "SAVE", "FORCE"]),
        (&[], &["SHUTDOWN", "SAVE"]),
    ] {
        let process = Process::start(Process::command(settings));
        let mut connection = Connection::open(process.address, 2);
        if !settings.is_empty() {
            assert_eq!(
                connection.call(&["SHUTDOWN", "SAVE"]),
                b"-ERR Errors trying to SHUTDOWN. Check logs.\r\n",
                "nothing can be saved"
            );
        }
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
