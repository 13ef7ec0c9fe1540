//! What a node says, shows and keeps when its log cannot be written: real processes, of which the system refuses to write more
//! than a few bytes to any file, or for whom no snapshot can be made.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::process::Command;
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::Value;

use crate::client::{Client, DEADLINE, Process};
use crate::durability::{Data, Resp, ok};
use crate::resp_reply::Reply;
use crate::side_by_side::Connection;

/// So long that the log writes nothing of itself while a test runs.
const QUIET: &str = "persistence.sync_interval_ms=3600000";
/// What is written to the log is as long as it is.
const RAW: &str = "compression.algorithm=none";
/// What a file may have from then on: more than the state of the node, less than any log.
const FILE_BYTES: u64 = 64;
const STATE_BYTES: u64 = 4_096;

/// A command whose process may write no more than this. The system would kill it for that, if it did not see to it.
fn told(command: &Command, limit: &str) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("{limit} exec \"$@\"");
    shell.args(["-c", &script, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
}

/// From now on the system takes nothing behind this place of any file: not "no room", but a failure.
fn fail_writes(process: &Process, from: u64) {
    let limit = Rlimit {
        current: Some(from),
        maximum: None,
    };
    prlimit(
        Some(Pid::from_child(&process.child)),
        Resource::Fsize,
        limit,
    )
    .expect("it runs");
}

fn durability(http: &mut Client) -> Value {
    http.get("/cluster/status").json()["nodes"][0]["durability"].clone()
}

/// A log that broke: writes are refused, reads are served, everybody is told, and so is the next start, once.
#[test]
fn a_broken_log_is_told_of() {
    // How it is synced, whether the state of the node can be written still -> whether the next start says that something may
    // be missing.
    for (sync, state, is_missing) in [
        ("interval", STATE_BYTES, true),
        ("always", STATE_BYTES, false),
    ] {
        let data = Data::new();
        let sync = format!("persistence.sync={sync}");
        let process = Process::start(told(&data.command(&[&sync, QUIET, RAW]), ""));
        let (mut resp, mut http) = (
            Resp::connect(process.address),
            Client::connect(process.address),
        );
        // More than the state may have.
        let first = "1".repeat(STATE_BYTES as usize);
        assert_eq!(resp.ask(&format!("SET first {first}")), ok());
        let ready = http.get("/ready").json();
        assert_eq!(
            (&ready["status"], &ready["writes"]),
            (&"ready".into(), &Value::Null)
        );
        assert_eq!(durability(&mut http)["log"], "open");
        fail_writes(&process, state);
        let Reply::Error(line) = resp.ask("SET second 1") else {
            panic!("it is not in the log");
        };
        assert!(line.starts_with("UNKNOWN "), "{line}");
        let Reply::Error(line) = resp.ask("SET third 1") else {
            panic!("the log is broken");
        };
        assert!(line.starts_with("MISCONF "), "{line}");
        let refused = http.post("/set", r#"{"key":"third","value":1}"#);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (507, "log_failed")
        );
        assert_eq!(resp.ask("GET first"), Reply::Text(first.clone()));

        let ready = http.get("/ready");
        let told = ready.json();
        assert_eq!(
            (ready.status, &told["status"], &told["writes"]),
            (200, &"ready".into(), &"refused".into())
        );
        let failure = told["failure"].as_str().unwrap_or_default().to_owned();
        assert!(failure.starts_with("failed to write: "), "{told}");
        let status = durability(&mut http);
        assert_eq!(
            (&status["log"], &status["failure"]),
            (&"broken".into(), &failure.into())
        );
        // It stays so where the disk is well again: what it has from then on is not known.
        fail_writes(&process, u64::MAX);
        assert!(matches!(resp.ask("SET third 1"), Reply::Error(_)));
        process.signal(Signal::TERM);
        let (code, log) = process.wait();
        assert_eq!(code, Some(0), "{log}");

        for is_missing in [is_missing, false] {
            let process = data.start(&[&sync]);
            let (mut resp, mut http) = (
                Resp::connect(process.address),
                Client::connect(process.address),
            );
            assert_eq!(resp.ask("GET first"), Reply::Text(first.clone()));
            let status = durability(&mut http);
            assert_eq!(
                status["writes_may_be_missing"], is_missing,
                "{sync}: {status}"
            );
            let reason = status["reason"].as_str();
            assert_eq!(
                reason.is_some_and(|reason| reason.starts_with("the disk failed")),
                is_missing
            );
            // What it has read may be in the memory of the system only, and is written anew.
            let until = Instant::now() + DEADLINE;
            let made = |http: &mut Client| {
                let figures = http.get("/stats").json();
                figures["persistence"]["snapshots"]["made"].as_u64()
            };
            while is_missing && made(&mut http) == Some(0) {
                assert!(Instant::now() < until, "no snapshot is made");
                thread::yield_now();
            }
            process.signal(Signal::TERM);
            let (code, log) = process.wait();
            assert_eq!(code, Some(0), "{log}");
        }
    }
}

/// Commands that read, each with a key that is not kept, and one that is missing for the same reason.
const READS: [&str; 25] = [
    "GET @",
    "HENGE WHY @",
    "MGET old @",
    "STRLEN @",
    "GETRANGE @ 0 -1",
    "SUBSTR @ 0 -1",
    "GETBIT @ 1",
    "BITCOUNT @",
    "BITPOS @ 1",
    "EXISTS @",
    "TOUCH @",
    "TYPE @",
    "TTL @",
    "PTTL @",
    "EXPIRETIME @",
    "PEXPIRETIME @",
    "OBJECT ENCODING @",
    "OBJECT FREQ @",
    "OBJECT IDLETIME @",
    "OBJECT REFCOUNT @",
    "MEMORY USAGE @",
    "HENGE VERSION @",
    "BITFIELD_RO @ GET u8 0",
    "SORT_RO @",
    "LCS @ old",
];
/// Commands that show whatever is there.
const SCANS: [&str; 6] = [
    "DBSIZE",
    "HENGE SIZE",
    "RANDOMKEY",
    "KEYS *",
    "KEYS nothing*",
    "SCAN 0",
];
/// Writes that tell what they find, and change nothing.
const WRITES: [&str; 4] = ["GETEX @", "GETDEL @", "GETSET @ x", "SET @ x GET"];

/// The commands that read keys, and their subcommands, as the node lists them.
fn readers(connection: &mut Connection) -> BTreeSet<String> {
    fn add(of: &Reply, readers: &mut BTreeSet<String>) {
        let parts = of.parts();
        let has = |flag: &str| parts[2].parts().contains(&Reply::Text(flag.to_owned()));
        if has("readonly") {
            readers.insert(parts[0].text().to_owned());
        }
        for of in parts[9].parts() {
            add(of, readers);
        }
    }
    let mut readers = BTreeSet::new();
    for of in Reply::read(&connection.call(&["COMMAND"])).parts() {
        add(of, &mut readers);
    }
    readers
}

/// No command and no route shows what is not in the log, be it a key that is there or one that is not.
#[test]
fn nobody_shows_what_is_not_kept() {
    let data = Data::new();
    // With the one policy that OBJECT FREQ tells something of.
    let settings = [QUIET, "cache.policy=lfu"];
    let process = Process::start(told(&data.command(&settings), ""));
    let mut resp = Resp::connect(process.address);
    assert_eq!(resp.ask("MSET old 1 gone 1"), ok());
    let mut connection = Connection::open(process.address, 2);
    let mut readers = readers(&mut connection);
    fail_writes(&process, FILE_BYTES);
    // One write of both, which fails: what comes after it is refused. They are of one slot.
    let failed = resp.ask("RENAME gone new43140");
    assert!(
        matches!(&failed, Reply::Error(line) if line.starts_with("UNKNOWN ")),
        "{failed:?}"
    );
    let mut shown = |command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        let reply = String::from_utf8_lossy(&connection.call(&words)).into_owned();
        reply.trim_end().to_owned()
    };
    for read in READS {
        let words: Vec<String> = read.split(' ').map(str::to_lowercase).collect();
        let (name, family) = (words[0].clone(), format!("{}|{}", words[0], words[1]));
        let is_known = readers.remove(&name) | readers.remove(&family);
        let old = shown(&read.replace('@', "old"));
        if !is_known {
            assert!(old.starts_with("-ERR unknown command"), "{read}: {old}");
            continue;
        }
        // With the policy that counts uses no time of a use is kept.
        let has_none = read.starts_with("OBJECT IDLETIME") && old.starts_with("-ERR An LFU");
        assert!(
            has_none || !old.starts_with('-'),
            "{read} of what is kept: {old}"
        );
        for key in ["new43140", "gone"] {
            let reply = shown(&read.replace('@', key));
            assert!(reply.starts_with("-UNKNOWN "), "{read} of {key}: {reply}");
        }
    }
    for scan in SCANS {
        let words: Vec<String> = scan.split(' ').map(str::to_lowercase).collect();
        readers.remove(&words[0]);
        readers.remove(&words.join("|"));
        let reply = shown(scan);
        assert!(reply.starts_with("-UNKNOWN "), "{scan}: {reply}");
    }
    assert_eq!(readers, BTreeSet::new(), "nobody has looked at these");
    for write in WRITES {
        for key in ["new43140", "gone"] {
            let reply = shown(&write.replace('@', key));
            let is_hidden = reply.starts_with("-UNKNOWN ") || reply.starts_with("-MISCONF ");
            assert!(is_hidden, "{write} of {key}: {reply}");
        }
    }

    // Method, target, body, whether it is about one key.
    let mut http = Client::connect(process.address);
    for (method, target, body) in [
        ("GET", "/get?key=@", ""),
        ("POST", "/get", r#"{"key":"@"}"#),
        ("GET", "/cache/@", ""),
        ("HEAD", "/cache/@", ""),
        ("GET", "/ttl?key=@", ""),
        ("POST", "/ttl", r#"{"key":"@"}"#),
        ("GET", "/exists?key=@", ""),
        ("POST", "/exists", r#"{"key":"@"}"#),
        ("POST", "/mget", r#"{"keys":["old","@"]}"#),
    ] {
        for (key, expected) in [("old", 200), ("new43140", 504), ("gone", 504)] {
            let (target, body) = (target.replace('@', key), body.replace('@', key));
            let response = http.request(method, &target, &[], body.as_bytes());
            assert_eq!(response.status, expected, "{method} {target} {body}");
        }
    }
    for (method, target, body) in [
        ("GET", "/keys", ""),
        ("GET", "/keys?prefix=nothing", ""),
        ("POST", "/keys", "{}"),
    ] {
        let response = http.request(method, target, &[], body.as_bytes());
        assert_eq!(response.status, 504, "{method} {target} {body}");
    }
    // What is in no log was never promised: the next start does not have it.
    drop(process);
    let process = data.start(&[]);
    let mut resp = Resp::connect(process.address);
    for (key, expected) in [("old", 1), ("gone", 1), ("new43140", 0)] {
        assert_eq!(
            resp.ask(&format!("EXISTS {key}")),
            Reply::Integer(expected),
            "{key}"
        );
    }
}

/// A node that cannot begin its log says so in one line, changes nothing of what is there, and starts when it can.
#[test]
fn a_log_that_cannot_be_begun_loses_nothing() {
    let data = Data::new();
    let process = data.start(&["persistence.sync=always"]);
    let mut resp = Resp::connect(process.address);
    assert_eq!(resp.ask("SET k 1"), ok());
    assert_eq!(resp.ask("SAVE"), ok());
    assert_eq!(resp.ask("SET k 2"), ok());
    process.signal(Signal::KILL);
    drop(process);
    let files = || {
        let files = data.node().read_dir().expect("it is there").flatten();
        let names = files.map(|file| file.file_name().into_string().expect("a name"));
        names.collect::<BTreeSet<_>>()
    };
    let before = files();
    let state = std::fs::read(data.node().join("node.json")).expect("it is there");
    for _ in 0..2 {
        // Less than a segment, more than the state of the node.
        let limited = told(&data.command(&[]), "ulimit -f 64;");
        let output = { limited }.output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("henge: the log cannot be begun: "),
            "{said}"
        );
        assert_eq!(
            said.lines()
                .filter(|line| line.starts_with("henge: "))
                .count(),
            1
        );
        assert_eq!(files(), before);
        assert!(state == std::fs::read(data.node().join("node.json")).expect("it is there"));
    }
    let process = data.start(&[]);
    let mut resp = Resp::connect(process.address);
    assert_eq!(resp.ask("GET k"), Reply::Text("2".to_owned()));
    let status = durability(&mut Client::connect(process.address));
    // The starts that failed are none.
    assert_eq!(
        (&status["incarnation"], &status["writes_may_be_missing"]),
        (&2.into(), &false.into())
    );
}

/// What waits for the log is bounded, though the cache is not charged for it: many connections overwrite one large value
/// while the log may not grow, as no snapshot can be made.
#[test]
fn what_waits_for_the_log_is_bounded() {
    const LIMIT: usize = 64 << 20;
    const LARGE: usize = 30 << 20;
    let data = Data::new();
    let process = data.start(&[
        RAW,
        "persistence.sync=never",
        "limits.max_inflight_bytes=64MiB",
        "limits.max_value_bytes=32MiB",
        "limits.max_body_bytes=32MiB",
    ]);
    let in_the_way = data.node().join("snapshot-9999999999999999.part");
    std::fs::create_dir(&in_the_way).expect("a directory");
    let set = |key: &str, len: usize| {
        let value = "v".repeat(len);
        let key_len = key.len();
        format!("*3\r\n$3\r\nSET\r\n${key_len}\r\n{key}\r\n${len}\r\n{value}\r\n")
    };
    let mut writer = Resp::connect(process.address);
    let large = set("large", LARGE);
    // The room of the log is what lives and three segments; each is slower than the one before.
    for _ in 0..5 {
        writer.send(&large).expect("it is sent");
        assert_eq!(writer.reply().expect("an answer"), ok());
    }
    // From here on all wait.
    let mut http = Client::connect(process.address);
    let mut held = || http.get("/stats").json()["memory"]["in_flight_bytes"].as_u64();
    let one = set("small", 1 << 20);
    let mut waiting: Vec<Resp> = Vec::new();
    let refused = loop {
        let mut connection = Resp::connect(process.address);
        // One that is refused may be closed before all is sent.
        let _ = connection.send(&one);
        let expected = ((waiting.len() + 1) << 20) as u64;
        let until = Instant::now() + DEADLINE;
        let stream = connection.0.get_ref();
        stream.set_nonblocking(true).expect("an option");
        let is_refused = loop {
            match stream.peek(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => break true,
            }
            if held() >= Some(expected) {
                break false;
            }
            assert!(
                Instant::now() < until,
                "{:?} of {expected} are held",
                held()
            );
            thread::yield_now();
        };
        connection
            .0
            .get_ref()
            .set_nonblocking(false)
            .expect("an option");
        if is_refused {
            break connection.reply();
        }
        waiting.push(connection);
        assert!(waiting.len() <= LIMIT >> 20, "it has no bound");
    };
    match refused {
        Ok(Reply::Error(line)) => assert!(
            line.starts_with("MISCONF the write-ahead log is behind"),
            "{line}"
        ),
        Ok(other) => panic!("{other:?} to a write that waits"),
        Err(_) => {}
    }
    let mut other = Client::connect(process.address);
    let refused = other.post("/set", r#"{"key":"k","value":1}"#);
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (507, "log_failed")
    );
    let told = refused.json()["detail"].as_str().map(str::to_owned);
    assert!(told.unwrap_or_default().contains("the log is behind"));
    assert_eq!(other.get("/ready").json()["writes"], "refused");
    let mut reader = Resp::connect(process.address);
    assert_eq!(reader.ask("EXISTS other"), Reply::Integer(0));
    assert!(waiting.len() > LIMIT >> 21, "{} may wait", waiting.len());

    // It goes on when there is room, and nothing is held any more.
    std::fs::remove_dir(&in_the_way).expect("it is there");
    assert_eq!(Resp::connect(process.address).ask("SAVE"), ok());
    let last = waiting.len() - 1;
    for (index, connection) in waiting.iter_mut().enumerate() {
        let reply = connection.reply().expect("an answer");
        let is_told = |words: &str| matches!(&reply, Reply::Error(line) if line.starts_with(words));
        // Where the machine is slow they have waited for a minute, and were told that nobody knows. What was held for the last
        // may have been its request, which was refused.
        let is_refused = index == last && is_told("MISCONF ");
        assert!(
            reply == ok() || is_told("UNKNOWN ") || is_refused,
            "{reply:?}"
        );
    }
    let until = Instant::now() + DEADLINE;
    while held() != Some(0) {
        assert!(Instant::now() < until, "{:?} are held", held());
        thread::yield_now();
    }
}
