//! Lives of a node on a machine whose clock goes back between them: what was stamped is not stamped again, and what has expired
//! stays so.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use henge_engine::persistence::Position;
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::log::{LogConfig, LogWriter};
use henge_engine::persistence::wal::Record;
use henge_wire::{
    Command, Effect, Expiry, Mutation, Operation, Partition, Precondition, Reply, Value, Version,
};

use super::super::directory::Directory;
use super::super::files::Files;
use super::super::timekeeper::TimeKeeper;
use super::SEGMENT_BYTES;
use crate::clock::Clock;
use crate::config::{Config, DirectoryPath};
use crate::encryption::{Encryption, salt};
use crate::node::Node;

/// The name of every node here, and so of its directory.
const NODE: &str = "a";
const KEY: &[u8] = b"key";
const HOUR_MS: u64 = 3_600_000;
const DEADLINE: Duration = Duration::from_mins(1);

/// A directory of one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("henge-lives-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join(NODE)).expect("a directory");
        Self(path)
    }

    fn node(&self) -> PathBuf {
        self.0.join(NODE)
    }

    fn start(&self, is_durable: bool) -> Node {
        let mut config = Config::default();
        let set = config
            .set("server.listen", "127.0.0.1:0")
            .and_then(|()| config.set("cluster.node_id", NODE))
            .and_then(|()| config.set("persistence.enabled", &is_durable.to_string()));
        set.expect("they are settings");
        config.persistence.dir = DirectoryPath::new(self.0.clone());
        let node = Node::start(config).expect("it starts");
        node.wait_until_ready().expect("it loads");
        node
    }

    /// Changes what the last life has noted of itself.
    fn note(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.node().join("node.json");
        let text = fs::read_to_string(&path).expect("it is there");
        let mut state = serde_json::from_str(&text).expect("it is whole");
        change(&mut state);
        fs::write(&path, state.to_string()).expect("there is room");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn now_ms() -> u64 {
    Clock::start().now_ms()
}

/// A segment of records, as a process leaves it that is killed.
fn write_log(path: &Path, records: &[Record<'_>]) {
    let mut journal = Journal::default();
    for record in records {
        record.encode(&mut journal).expect("it is short");
    }
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        ahead_bytes: 0,
    };
    let files = Files::new(path, Arc::new(Encryption::default()));
    let begun = LogWriter::begin(files, config, Box::new(salt), 1, BTreeMap::new());
    let mut writer = begun.expect("there is room");
    writer.write(Some(journal)).expect("there is room");
}

fn put(version: Version, expires_at_ms: Option<u64>) -> (Version, Effect<'static>) {
    let value = Value::from_slice(b"value");
    let effect = Effect::Put {
        value,
        expires_at_ms,
    };
    (version, effect)
}

/// Writes the key, and says which version that has.
fn set(node: &Node) -> Version {
    let operation = Operation::Set {
        value: Value::from_slice(b"value"),
        expiry: Expiry::Never,
        precondition: Precondition::NONE,
    };
    let command = Command {
        key: KEY,
        operation,
    };
    node.cache()
        .execute(&command, now_ms(), |reply| match reply {
            Reply::Stored { version, .. } => version,
            other => panic!("a set is answered by {other:?}"),
        })
}

/// The log is ahead of the clock, and something behind its end may be lost.
#[test]
fn versions_that_may_be_lost_are_not_stamped_again() {
    let folder = Folder::new();
    let ahead = Version::new(1, Version::MAX_SEQ / 2);
    let partition = Partition::of(KEY);
    let (version, effect) = put(ahead.next(), None);
    write_log(
        &folder.node(),
        &[
            Record::Started {
                incarnation: 7,
                first: ahead,
            },
            Record::Mutation(Mutation {
                partition,
                version,
                effects: &[(KEY, effect)],
            }),
        ],
    );
    let stamped = set(&folder.start(true));
    // A million writes of this partition.
    assert!(stamped.seq() > version.seq() + 1_000_000, "{stamped}");
    // That life ended in order, so nothing of it is missing.
    let next = set(&folder.start(true));
    assert_eq!(next, stamped.next());
    // A loss of power, by which the next write may be gone.
    folder.note(|state| {
        state["clean"] = false.into();
        state["boot_id"] = "another".into();
    });
    let after = set(&folder.start(true));
    assert!(after.seq() > next.seq() + 1_000_000, "{after}");
}

/// In memory nothing but the state tells of it.
#[test]
fn a_life_in_memory_stamps_nothing_that_the_last_one_may_have() {
    let folder = Folder::new();
    let mut last = set(&folder.start(false));
    for _ in 0..3 {
        folder.note(|state| {
            state["clean"] = false.into();
            // As if all of these lives were in the same moment.
            state["seen_ms"] = (now_ms() + 24 * HOUR_MS).into();
        });
        let version = set(&folder.start(false));
        assert!(version.seq() > last.seq() + 1_000_000, "{version}");
        last = version;
    }
}

#[test]
fn what_was_seen_to_have_expired_stays_so() {
    let folder = Folder::new();
    let partition = Partition::of(KEY);
    let deadline = now_ms() + HOUR_MS;
    let first = Version::new(1, 10);
    let (version, effect) = put(first.next(), Some(deadline));
    write_log(
        &folder.node(),
        &[
            Record::Started {
                incarnation: 7,
                first,
            },
            Record::Mutation(Mutation {
                partition,
                version,
                effects: &[(KEY, effect)],
            }),
        ],
    );
    assert!(is_there(&folder.start(true)));
    for clean in [true, false] {
        folder.note(|state| {
            state["clean"] = clean.into();
            state["seen_ms"] = (deadline + 1).into();
        });
        assert!(!is_there(&folder.start(true)), "{clean}");
        // Nor in the life after that.
        assert!(!is_there(&folder.start(true)), "{clean}");
    }
}

/// Whether a client finds the key.
fn is_there(node: &Node) -> bool {
    let mut stream = TcpStream::connect(node.local_addr()).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let request = "GET /cache/key HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    match answer.get(9..12) {
        Some("200") => true,
        Some("404") => false,
        _ => panic!("{answer}"),
    }
}

#[test]
fn the_time_is_noted_while_the_node_runs() {
    let folder = Folder::new();
    let take = || Directory::take(folder.node(), Some(NODE), NODE, None).expect("it is free");
    let directory = take();
    let clock = Clock::start_from(now_ms() + HOUR_MS);
    directory
        .begin(1, 5, Position::default())
        .expect("there is room");
    let keeper = TimeKeeper::start(directory.ledger.clone(), clock, Duration::from_millis(1));
    let until = Instant::now() + DEADLINE;
    while directory.ledger.state().seen_ms == 1 {
        assert!(Instant::now() < until, "nothing was noted");
        thread::yield_now();
    }
    drop(keeper.expect("a thread"));
    let noted = directory.ledger.state().seen_ms;
    drop(directory);
    // As it lies on the disk.
    let state = take().ledger.state();
    assert_eq!((state.seen_ms, state.first_seq), (noted, 5));
    assert!(
        (clock.started_ms()..=clock.now_ms()).contains(&noted),
        "{noted}"
    );
}
