//! What a node keeps when it is killed, stopped, or out of disk: real processes, real files. What a disk does that loses
//! power is the engine's to test, on a disk that is made for it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::client::{Client, DEADLINE, Process, data_directory, skipped};
use crate::random::Random;
use crate::resp_reply::Reply;

/// How often a node is killed for each policy.
const KILLS: usize = 100;
/// How often one that encrypts its files: what it writes, and when, is the same.
const KILLS_ENCRYPTED: usize = 25;
/// Connections that write, each to keys of its own.
const WRITERS: usize = 4;
const KEYS: usize = 24;

/// A data directory that outlives its nodes, and is removed with this.
pub(crate) struct Data(pub(crate) PathBuf);

impl Data {
    pub(crate) fn new() -> Self {
        Self(data_directory())
    }

    pub(crate) fn start(&self, settings: &[&str]) -> Process {
        Process::start(self.command(settings))
    }

    pub(crate) fn command(&self, settings: &[&str]) -> std::process::Command {
        self.command_of("a", settings)
    }

    fn command_of(&self, node_id: &str, settings: &[&str]) -> std::process::Command {
        let directory = format!("--data-dir={}", self.0.display());
        let mut command = Process::command(&["--node-id", node_id, &directory]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command
    }

    /// A file of a key, as a node takes it.
    fn key_file(&self) -> PathBuf {
        std::fs::create_dir_all(&self.0).expect("a directory");
        let path = self.0.join("keys");
        std::fs::write(&path, format!("1 {}\n", "7".repeat(64))).expect("written");
        let owner = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, owner).expect("it is ours");
        path
    }

    /// Where the node has its files.
    pub(crate) fn node(&self) -> PathBuf {
        self.0.join("a")
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A connection whose other end may be gone at any time.
pub(crate) struct Resp(pub(crate) BufReader<TcpStream>);

impl Resp {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the node listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        stream.set_nodelay(true).expect("an option");
        Self(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, requests: &str) -> io::Result<()> {
        self.0.get_mut().write_all(requests.as_bytes())
    }

    /// Reads a reply of one piece.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        self.0.read_until(b'\n', &mut bytes)?;
        let line = std::str::from_utf8(&bytes).ok();
        let line = line.and_then(|line| line.strip_suffix("\r\n"));
        let line = line.ok_or(io::ErrorKind::UnexpectedEof)?;
        let len = line
            .strip_prefix('$')
            .and_then(|len| len.parse::<usize>().ok());
        if let Some(len) = len {
            let end = bytes.len();
            bytes.resize(end + 2 + len, 0);
            self.0.read_exact(&mut bytes[end..])?;
        }
        Ok(Reply::read(&bytes))
    }

    /// Reads a reply with all of its parts.
    pub(crate) fn whole_reply(&mut self) -> Reply {
        let mut bytes = Vec::new();
        self.read_whole(&mut bytes);
        Reply::read(&bytes)
    }

    fn read_whole(&mut self, bytes: &mut Vec<u8>) {
        let begin = bytes.len();
        self.0.read_until(b'\n', bytes).expect("a line comes");
        let line = std::str::from_utf8(&bytes[begin..])
            .expect("text")
            .trim_end();
        let size = line.get(1..).and_then(|size| size.parse::<usize>().ok());
        match (line.chars().next(), size) {
            (Some('$'), Some(size)) => {
                let end = bytes.len();
                bytes.resize(end + size + 2, 0);
                self.0.read_exact(&mut bytes[end..]).expect("a value comes");
            }
            (Some('*'), Some(count)) => (0..count).for_each(|_| self.read_whole(bytes)),
            (Some('%'), Some(pairs)) => (0..2 * pairs).for_each(|_| self.read_whole(bytes)),
            _ => {}
        }
    }

    /// Reads as many bytes of replies.
    pub(crate) fn read_text(&mut self, len: usize) -> String {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).expect("they come");
        String::from_utf8(bytes).expect("text")
    }

    /// Sends a command, inline, and reads its reply.
    pub(crate) fn ask(&mut self, command: &str) -> Reply {
        self.send(&format!("{command}\r\n")).expect("it is sent");
        self.reply().expect("it is answered")
    }

    fn get(&mut self, key: &str) -> Option<u64> {
        match self.ask(&format!("GET {key}")) {
            Reply::Text(value) => Some(number(&value)),
            Reply::Null => None,
            other => panic!("{other:?} to a GET"),
        }
    }
}

/// What was done to a key, in order: each step's value, none for a delete. Values of a key are never given twice.
#[derive(Debug, Default)]
struct History {
    /// The state before the first step.
    steps: Vec<Option<u64>>,
    /// How many steps are sure to last.
    kept: usize,
}

impl History {
    fn begin(state: Option<u64>) -> Self {
        Self {
            steps: vec![state],
            kept: 1,
        }
    }

    /// Somebody saw this value.
    fn saw(&mut self, value: u64) {
        let step = self.steps.iter().position(|step| *step == Some(value));
        if let Some(step) = step {
            self.kept = self.kept.max(step + 1);
        }
    }

    /// Whether the key may be so after a restart.
    fn allows(&self, state: Option<u64>) -> bool {
        self.steps[self.kept - 1..].contains(&state)
    }
}

/// Writes to keys of its own until the node is gone; gives what it did to each.
fn write(
    mut connection: Resp,
    writer: usize,
    mut random: Random,
    next: &AtomicU64,
    histories: &mut BTreeMap<String, History>,
) {
    loop {
        let depth = 1 + random.below(12);
        let mut request = String::new();
        let mut sent = Vec::new();
        for _ in 0..depth {
            let key = format!("w{writer}:{}", random.below(KEYS));
            let history = histories
                .entry(key.clone())
                .or_insert_with(|| History::begin(None));
            let value = next.fetch_add(1, Ordering::Relaxed);
            let size = if random.below(40) == 0 { 50_000 } else { 8 };
            let (text, step) = match random.below(5) {
                0 => (format!("DEL {key}\r\n"), None),
                1 => (format!("SET {key} {value:08} PX 600000\r\n"), Some(value)),
                _ => {
                    let text = format!("{value:08}{}", " ".repeat(size - 8));
                    let len = text.len();
                    let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${len}\r\n", key.len());
                    (format!("{head}{text}\r\n"), Some(value))
                }
            };
            request.push_str(&text);
            history.steps.push(step);
            sent.push((key, history.steps.len()));
        }
        if connection.send(&request).is_err() {
            return;
        }
        for (key, steps) in sent {
            match connection.reply() {
                Ok(Reply::Text(_) | Reply::Integer(_)) => {}
                Ok(other) => panic!("{other:?} to a write"),
                Err(_) => return,
            }
            let history = histories.get_mut(&key).expect("it was written to");
            history.kept = history.kept.max(steps);
        }
    }
}

/// Reads keys of all writers until the node is gone; gives the values that it saw.
fn read(mut connection: Resp, mut random: Random) -> Vec<(String, u64)> {
    let mut seen = Vec::new();
    loop {
        let key = format!("w{}:{}", random.below(WRITERS), random.below(KEYS));
        if connection.send(&format!("GET {key}\r\n")).is_err() {
            return seen;
        }
        match connection.reply() {
            Ok(Reply::Text(value)) => seen.push((key, number(&value))),
            Ok(_) => {}
            Err(_) => return seen,
        }
    }
}

/// The number that a value begins with.
fn number(value: &str) -> u64 {
    value[..8].parse().expect("it is a number")
}

fn killed_over_and_over(kills: usize, sync: &str, encryption: &str) {
    let (mut random, _) = Random::seeded(sync);
    let data = Data::new();
    let keys = data.key_file();
    let settings = [
        format!("persistence.sync={sync}"),
        format!("persistence.encryption={encryption}"),
        format!("persistence.key_file={}", keys.display()),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let next = AtomicU64::new(1);
    let mut states: BTreeMap<String, Option<u64>> = BTreeMap::new();
    let mut acknowledged = 0;
    let mut process = data.start(&settings);
    for kill in 0..kills {
        let address = process.address;
        let mut histories: Vec<BTreeMap<String, History>> = (0..WRITERS)
            .map(|writer| {
                let own = format!("w{writer}:");
                let own = states.iter().filter(|(key, _)| key.starts_with(&own));
                own.map(|(key, state)| (key.clone(), History::begin(*state)))
                    .collect()
            })
            .collect();
        let seen = thread::scope(|scope| {
            for (writer, histories) in (0..).zip(&mut histories) {
                let random = Random::new(random.next());
                let (next, connection) = (&next, Resp::connect(address));
                scope.spawn(move || write(connection, writer, random, next, histories));
            }
            let (own, connection) = (Random::new(random.next()), Resp::connect(address));
            let reader = scope.spawn(move || read(connection, own));
            if kill % 4 == 3 {
                // With a snapshot on its way.
                Resp::connect(address).ask("BGSAVE");
            }
            // The moment is random in what was written and not in time: a slow machine kills as early.
            let until = next.load(Ordering::Relaxed) + random.below(6_000) as u64;
            let deadline = Instant::now() + DEADLINE;
            while next.load(Ordering::Relaxed) < until && Instant::now() < deadline {
                thread::yield_now();
            }
            process.signal(Signal::KILL);
            reader.join().expect("the reader does not panic")
        });
        drop(process);
        let mut all = BTreeMap::new();
        for histories in histories {
            all.extend(histories);
        }
        for (key, value) in seen {
            if let Some(history) = all.get_mut(&key) {
                history.saw(value);
            }
        }
        acknowledged += all.values().map(|history| history.kept - 1).sum::<usize>();
        process = data.start(&settings);
        let mut client = Resp::connect(process.address);
        for (key, history) in &all {
            let state = client.get(key);
            assert!(
                history.allows(state),
                "kill {kill}: {key} is {state:?}, after {:?} of which {} last",
                history.steps,
                history.kept
            );
            states.insert(key.clone(), state);
        }
        if kill % 10 == 9 {
            // What was recovered lasts as well.
            process.signal(Signal::TERM);
            let (code, log) = process.wait();
            assert_eq!(code, Some(0), "{log}");
            process = data.start(&settings);
            let mut client = Resp::connect(process.address);
            for (key, state) in &states {
                assert_eq!(client.get(key), *state, "kill {kill}: {key}");
            }
        }
    }
    assert!(
        acknowledged > kills,
        "{acknowledged} writes were acknowledged"
    );
}

#[test]
fn killed_a_hundred_times_with_every_write_synced() {
    killed_over_and_over(KILLS, "always", "none");
}

#[test]
fn killed_a_hundred_times_with_writes_synced_at_an_interval() {
    killed_over_and_over(KILLS, "interval", "none");
}

#[test]
fn killed_over_and_over_with_all_files_encrypted() {
    killed_over_and_over(KILLS_ENCRYPTED, "interval", "aes-256-gcm");
}

/// What there is of every kind comes back as it was; what has expired meanwhile does not.
#[test]
fn everything_comes_back_as_it_was() {
    let data = Data::new();
    for with_snapshot in [false, true] {
        let process = data.start(&[]);
        let mut http = Client::connect(process.address);
        let mut resp = Resp::connect(process.address);
        resp.ask("FLUSHALL");
        for (key, body) in [
            (
                "json",
                json!({"key": "json", "value": {"a": [1, 2.5, null]}}),
            ),
            ("ttl", json!({"key": "ttl", "value": "x", "ttl": 600})),
            (
                "long",
                json!({"key": "long", "value": "ab".repeat(100_000)}),
            ),
        ] {
            let response = http.post("/set", &body.to_string());
            assert_eq!(response.status, 200, "{key}: {}", response.text());
        }
        let headers = [("content-type", "text/x-henge; charset=utf-8")];
        let raw = http.request("PUT", "/cache/raw", &headers, b"\0\xff raw");
        assert_eq!(raw.status, 204);
        for command in [
            "SET a 1",
            "INCRBY a 41",
            "SET gone 1",
            "DEL gone",
            "SET late 1 PX 1",
            "SET kept 1 EX 600",
            "PERSIST kept",
            "MSETNX {s}1 one {s}2 two",
            "SETRANGE {s}1 1 xx",
            "RENAME {s}2 {s}3",
        ] {
            resp.ask(command);
        }
        if with_snapshot {
            let made = http.request("POST", "/admin/snapshot", &[], b"");
            assert_eq!(made.status, 200, "{}", made.text());
            // And something after it.
            resp.ask("INCR a");
            resp.ask("DECR a");
        }
        let keys = ["json", "ttl", "long", "a", "kept", "{s}1", "{s}3"];
        let before: Vec<_> = keys
            .iter()
            .map(|key| http.get(&format!("/get?key={key}")).json())
            .collect();
        process.signal(Signal::KILL);
        drop(process);

        let process = data.start(&[]);
        let mut http = Client::connect(process.address);
        for (key, before) in keys.iter().zip(&before) {
            let after = http.get(&format!("/get?key={key}")).json();
            for field in ["value", "version"] {
                assert_eq!(after[field], before[field], "{key}");
            }
            let ttl = |item: &serde_json::Value| item["ttl"].as_f64();
            assert_eq!(ttl(&after).is_some(), ttl(before).is_some(), "{key}");
            assert!(ttl(&after) <= ttl(before), "{key}: {after}");
        }
        let raw = http.get("/cache/raw");
        assert_eq!(raw.body, b"\0\xff raw");
        assert_eq!(raw.header("content-type"), Some(headers[0].1));
        for key in ["gone", "late", "{s}2"] {
            assert_eq!(http.get(&format!("/get?key={key}")).status, 404, "{key}");
        }
        let status = http.get("/cluster/status").json();
        let durability = &status["nodes"][0]["durability"];
        assert_eq!(durability["writes_may_be_missing"], false, "{status}");
    }
}

/// FLUSHALL lasts, also for what was only in the log.
#[test]
fn what_was_flushed_stays_away() {
    let data = Data::new();
    let process = data.start(&[]);
    let mut resp = Resp::connect(process.address);
    for n in 0..100 {
        resp.ask(&format!("SET k{n} v"));
    }
    resp.ask("FLUSHALL");
    resp.ask("SET after v");
    process.signal(Signal::KILL);
    drop(process);
    let process = data.start(&[]);
    let mut resp = Resp::connect(process.address);
    assert_eq!(resp.ask("DBSIZE"), Reply::Integer(1));
    assert_eq!(resp.ask("EXISTS after"), Reply::Integer(1));
}

/// A cache that was exact is so with a log: a pipeline longer than the cache evicts what is not in the log yet.
#[test]
fn a_pipeline_may_be_longer_than_the_cache() {
    let data = Data::new();
    let process = data.start(&["cache.max_items=3"]);
    let mut resp = Resp::connect(process.address);
    let pipeline: Vec<String> = (0..100).map(|n| format!("SET k{n} {n}\r\n")).collect();
    let pipeline = pipeline.concat();
    resp.send(&pipeline).expect("it is sent");
    for _ in 0..100 {
        assert_eq!(resp.reply().expect("an answer"), ok());
    }
    let present = |resp: &mut Resp| {
        let keys = (0..100).filter(|n| resp.ask(&format!("EXISTS k{n}")) == Reply::Integer(1));
        keys.collect::<Vec<_>>()
    };
    assert_eq!(present(&mut resp), [97, 98, 99]);
    process.signal(Signal::KILL);
    drop(process);
    let process = data.start(&["cache.max_items=2"]);
    let mut resp = Resp::connect(process.address);
    assert_eq!(
        present(&mut resp),
        [98, 99],
        "the limit holds after a restart"
    );
}

/// What a node served from its memory alone is newer than what an older log has, which is not to come back.
#[test]
fn a_life_in_memory_outdates_the_log() {
    let data = Data::new();
    for (settings, command, expected) in [
        (&[][..], "SET k 1", ok()),
        (&["persistence.enabled=false"], "GET k", Reply::Null),
        (&[], "GET k", Reply::Null),
    ] {
        let process = data.start(settings);
        let mut resp = Resp::connect(process.address);
        assert_eq!(resp.ask(command), expected, "{settings:?}");
        process.signal(Signal::TERM);
        let (code, log) = process.wait();
        assert_eq!(code, Some(0), "{log}");
    }
    let process = data.start(&[]);
    let status = Client::connect(process.address)
        .get("/cluster/status")
        .json();
    let durability = &status["nodes"][0]["durability"];
    assert_eq!(durability["incarnation"], 4, "{status}");
}

#[test]
fn a_directory_is_for_one_process_and_one_node() {
    let data = Data::new();
    let process = data.start(&[]);
    let fails = |mut command: std::process::Command, part: &str| {
        let output = command.output().expect("it ends");
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{line}");
        let last = line.lines().last().unwrap_or_default();
        assert!(last.starts_with("henge: ") && last.contains(part), "{line}");
    };
    fails(data.command(&[]), "is in use by another process");
    drop(process);
    // As if somebody had moved it.
    std::fs::rename(data.node(), data.0.join("b")).expect("it is renamed");
    fails(
        data.command_of("b", &[]),
        "is that of the node a, and this one is b",
    );
    std::fs::write(data.0.join("b/node.json"), b"{").expect("it is written");
    fails(data.command_of("b", &[]), "node.json: not readable");
}

/// A torn end is cut and said; damage in the middle is refused with its file and place.
#[test]
fn a_torn_end_is_cut_and_damage_is_refused() {
    let data = Data::new();
    let process = data.start(&["persistence.sync=always"]);
    let mut resp = Resp::connect(process.address);
    for n in 0..50 {
        resp.ask(&format!("SET k{n} {}", "v".repeat(100)));
    }
    process.signal(Signal::KILL);
    drop(process);
    let log = data.node().join("log-0000000000000001.wal");
    let whole = std::fs::read(&log).expect("it is there");
    let end = 1 + whole
        .iter()
        .rposition(|&byte| byte != 0)
        .expect("it has records");

    // Not all of the last record was written.
    std::fs::write(&log, &whole[..end - 10]).expect("it is written");
    let process = data.start(&["persistence.sync=always"]);
    let mut resp = Resp::connect(process.address);
    assert_eq!(resp.ask("DBSIZE"), Reply::Integer(49));
    process.signal(Signal::TERM);
    let (_, said) = process.wait();
    assert!(said.contains("the log was torn"), "{said}");

    let _ = std::fs::remove_file(data.node().join("log-0000000000000002.wal"));
    let mut damaged = whole;
    damaged[end / 2] ^= 1;
    std::fs::write(&log, &damaged).expect("it is written");
    let output = data.command(&[]).output().expect("it ends");
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{line}");
    let last = line.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("henge: log-0000000000000001.wal is damaged at byte "),
        "{line}"
    );
    assert_eq!(
        std::fs::read(&log).expect("it is there"),
        damaged,
        "nothing was changed"
    );
}

pub(crate) fn ok() -> Reply {
    Reply::Text("OK".to_owned())
}

/// Files that no process leaves which ended, in order or not, are told of: they may lack writes.
#[test]
fn a_log_that_is_shorter_than_it_was_is_told_of() {
    const LOG: &str = "log-0000000000000001.wal";
    const SHORTER: Option<&str> = Some("the log ends before a place that it had come to");
    type Harm = fn(&Path);
    let shorten: Harm = |node| {
        let opened = std::fs::File::options().write(true).open(node.join(LOG));
        let file = opened.expect("it is there");
        let len = file.metadata().expect("it is there").len();
        file.set_len(len - 60).expect("it is ours");
    };
    let remove: Harm = |node| std::fs::remove_file(node.join(LOG)).expect("it is there");
    let forget: Harm = |node| std::fs::remove_file(node.join("node.json")).expect("it is there");
    // How a node ended, what is done to its files then, and why writes may be missing.
    for (signal, harm, expected) in [
        (Signal::TERM, None, None),
        (Signal::KILL, None, None),
        (Signal::TERM, Some(shorten), SHORTER),
        (Signal::TERM, Some(remove), SHORTER),
        (Signal::KILL, Some(remove), SHORTER),
        (
            Signal::TERM,
            Some(forget),
            Some("there is a log, and node.json, which says how it was left, is not"),
        ),
    ] {
        let data = Data::new();
        let process = data.start(&[]);
        let mut resp = Resp::connect(process.address);
        for n in 0..20 {
            resp.ask(&format!("SET key {n}"));
        }
        process.signal(signal);
        process.wait();
        if let Some(harm) = harm {
            harm(&data.node());
        }
        let process = data.start(&[]);
        let status = Client::connect(process.address)
            .get("/cluster/status")
            .json();
        let durability = &status["nodes"][0]["durability"];
        assert_eq!(
            durability["reason"].as_str(),
            expected,
            "{signal:?}: {status}"
        );
        assert_eq!(durability["writes_may_be_missing"], expected.is_some());
    }
}

#[test]
fn snapshots_are_made_on_demand() {
    let data = Data::new();
    let process = data.start(&[]);
    let mut resp = Resp::connect(process.address);
    let Reply::Integer(begun) = resp.ask("LASTSAVE") else {
        panic!("LASTSAVE is a time");
    };
    assert!(begun > 1_700_000_000);
    resp.ask("SET k v");
    assert_eq!(resp.ask("SAVE"), ok());
    let Reply::Text(info) = resp.ask("INFO persistence") else {
        panic!("INFO is text");
    };
    for line in [
        "loading:0",
        "rdb_bgsave_in_progress:0",
        "rdb_last_bgsave_status:ok",
        "aof_enabled:1",
        "aof_last_write_status:ok",
        "rdb_changes_since_last_save:0",
    ] {
        assert!(info.contains(line), "{line}: {info}");
    }
    let started = resp.ask("BGSAVE");
    assert_eq!(started, Reply::Text("Background saving started".to_owned()));
    let mut http = Client::connect(process.address);
    let made = http.request("POST", "/admin/snapshot", &[], b"").json();
    assert_eq!(made["records"], 1, "{made}");
    let names: Vec<String> = data
        .node()
        .read_dir()
        .expect("it is there")
        .flatten()
        .filter_map(|file| file.file_name().into_string().ok())
        .filter(|name| name.contains("snap") || name.contains("part"))
        .collect();
    assert_eq!(names.len(), 1, "only the newest stays: {names:?}");
    drop(process);

    let process = data.start(&["persistence.enabled=false"]);
    let mut resp = Resp::connect(process.address);
    for command in ["SAVE", "BGSAVE"] {
        let Reply::Error(line) = resp.ask(command) else {
            panic!("{command} has nothing to save to");
        };
        assert!(line.contains("persistence.enabled is false"), "{line}");
    }
    let refused = Client::connect(process.address).request("POST", "/admin/snapshot", &[], b"");
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (409, "persistence_off")
    );
}

/// A disk that is full: writes are refused with a clear error, reads are served, and all goes on when there is room. A file
/// system of its own, in a mount namespace of its own, as nobody else's is to be filled.
#[test]
fn a_full_disk_refuses_writes_and_recovers() {
    let data = Data::new();
    std::fs::create_dir_all(&data.0).expect("a directory");
    let Some(command) = on_a_disk_of_its_own(&data) else {
        skipped(
            "unshare",
            "no disk was filled: no file system can be mounted here",
        );
        return;
    };
    let process = Process::start(command);
    let mut resp = Resp::connect(process.address);
    let mut http = Client::connect(process.address);
    assert_eq!(resp.ask("SET first 1"), ok());
    // The disk as the node sees it.
    let inside = PathBuf::from(format!("/proc/{}/root", process.child.id()));
    let disk = inside.join(data.0.strip_prefix("/").expect("it is absolute"));
    let filler = disk.join("filler");
    fill(&filler);
    let (kept, refused) = write_until_refused(&mut resp);
    // The one that found the disk full may last or not; those after it are refused.
    let line = refused.expect("a thousand values do not fit");
    assert!(
        line.starts_with("-UNKNOWN ") || line.starts_with("UNKNOWN "),
        "{line}"
    );
    let Reply::Error(line) = resp.ask("SET other 1") else {
        panic!("the disk is full");
    };
    assert!(
        line.contains("MISCONF the write-ahead log cannot be written"),
        "{line}"
    );
    let refused = http.post("/set", r#"{"key":"other","value":1}"#);
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (507, "log_failed")
    );
    let Reply::Error(_) = resp.ask("FLUSHALL") else {
        panic!("the disk is full");
    };
    // Neither is told how many keys there are, as some are not kept, nor which.
    for command in ["DBSIZE", "KEYS *"] {
        let Reply::Error(line) = resp.ask(command) else {
            panic!("{command} shows what is not kept");
        };
        assert!(line.starts_with("UNKNOWN "), "{line}");
    }
    assert_eq!(resp.ask("GET first"), Reply::Text("1".to_owned()));
    assert_eq!(http.get("/get?key=first").json()["value"], "1");
    let status = http.get("/stats").json();
    assert_eq!(
        status["persistence"]["log"]["condition"], "full",
        "{status}"
    );

    // A snapshot has no room either, says so, and leaves nothing that would take what comes free.
    let Reply::Error(line) = resp.ask("SAVE") else {
        panic!("the disk is full");
    };
    assert!(line.contains("no snapshot was made"), "{line}");
    let parts = disk.join("a").read_dir().expect("it is there").flatten();
    let parts = parts.filter(|file| file.path().extension().is_some_and(|end| end == "part"));
    assert_eq!(parts.count(), 0);

    std::fs::remove_file(&filler).expect("it is there");
    let deadline = Instant::now() + DEADLINE;
    while resp.ask("SET other 2") != ok() {
        assert!(Instant::now() < deadline, "there is room");
        thread::yield_now();
    }
    for key in &kept {
        assert_eq!(
            resp.ask(&format!("STRLEN {key}")),
            Reply::Integer(100_000),
            "{key}"
        );
    }
    let status = http.get("/stats").json();
    assert_eq!(
        status["persistence"]["log"]["condition"], "open",
        "{status}"
    );
    assert_eq!(resp.ask("SAVE"), ok());

    // And a node that is told to stop while its disk is full does.
    fill(&filler);
    write_until_refused(&mut resp);
    let status = http.get("/stats").json();
    assert_eq!(
        status["persistence"]["log"]["condition"], "full",
        "{status}"
    );
    drop((resp, http));
    process.signal(Signal::TERM);
    let (code, log) = process.wait();
    assert_eq!(code, Some(0), "{log}");
}

/// Starts a node whose data directory is a file system of 192 MiB.
fn on_a_disk_of_its_own(data: &Data) -> Option<std::process::Command> {
    let unshare = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]);
        command.arg(&data.0);
        command
    };
    let mounted = unshare("mount -t tmpfs tmpfs \"$1\"").output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let script = "mount -t tmpfs -o size=192m tmpfs \"$1\" && shift && exec \"$@\"";
    let mut command = unshare(script);
    let node = data.command(&["compression.algorithm=none"]);
    command.arg(node.get_program()).args(node.get_args());
    Some(command)
}

/// Fills the disk that a file is on.
fn fill(filler: &Path) {
    let mut file = std::fs::File::create(filler).expect("there is room");
    while file.write_all(&vec![0; 64 * 1024]).is_ok() {}
}

/// Writes until that is refused: what is left is the room of the present segment. The keys that were written, and why the next
/// was not.
fn write_until_refused(resp: &mut Resp) -> (Vec<String>, Option<String>) {
    let value = "x".repeat(100_000);
    let mut kept = Vec::new();
    let refused = (0..1_000).find_map(|n| {
        let len = value.len();
        let key = format!("k{n:03}");
        let set = format!("*3\r\n$3\r\nSET\r\n$4\r\n{key}\r\n${len}\r\n{value}\r\n");
        resp.send(&set).expect("it is sent");
        match resp.reply().expect("it is answered") {
            Reply::Error(line) => Some(line),
            reply => {
                assert_eq!(reply, ok());
                kept.push(key);
                None
            }
        }
    });
    (kept, refused)
}
