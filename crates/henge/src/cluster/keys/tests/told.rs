//! What clients are told of writes whose answer is lost, makes no sense, or is an error: the node that has some of the keys is
//! played. "Nothing was done" is said only where that is so.

use std::fmt::Write as _;
use std::sync::Arc;

use henge_wire::peer::keys::{Answered, FLUSH_QUESTION, encode_answered, replies_head};
use henge_wire::{Refusal, Reply};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::lanes::{Came, Client, Played, pair};
use super::{Pair, key_of, owner, owner_of};
use crate::cluster::link::Service;
use crate::cluster::view::MemberState;

/// The `service` of an answer that says that nothing was done.
const FAILED: u8 = 0xFF;

/// What the played node does about each question.
#[derive(Clone, Debug)]
enum Does {
    /// It ends the connection.
    Ends,
    /// By a `service`, and these bytes.
    Answers(u8, Vec<u8>),
}

fn bytes(answer: Vec<u8>) -> Does {
    Does::Answers(0, answer)
}

/// An answer of one reply of the Redis protocol.
fn resp(reply: &str) -> Does {
    resp_of(&[reply])
}

fn resp_of(replies: &[&str]) -> Does {
    let mut answer = (replies.len() as u32).to_le_bytes().to_vec();
    for reply in replies {
        answer.extend_from_slice(&(reply.len() as u32).to_le_bytes());
    }
    answer.extend_from_slice(replies.concat().as_bytes());
    bytes(answer)
}

/// An answer to commands.
fn commands(answers: &[Answered<'_>]) -> Does {
    let mut answer = replies_head(answers.len() as u32).to_vec();
    for one in answers {
        encode_answered(&mut answer, one);
    }
    bytes(answer)
}

fn failed() -> Does {
    Does::Answers(FAILED, b"it does nothing".to_vec())
}

/// A pair whose second node does what is set.
struct Stage {
    pair: Pair,
    does: Arc<Mutex<Does>>,
    played: Played,
}

impl Stage {
    fn set() -> Self {
        let mut pair = pair();
        let does = Arc::new(Mutex::new(Does::Ends));
        let now = Arc::clone(&does);
        let played = Played::instead_of_two(&mut pair, move |_: &Came| match now.lock().clone() {
            Does::Ends => None,
            Does::Answers(service, body) => Some((service, body)),
        });
        Self { pair, does, played }
    }

    /// Has the other node do this from now on.
    fn play(&self, does: &Does) {
        self.does.lock().clone_from(does);
        // A view that is new has a connection that has ended made again at once.
        self.pair.show(0, [MemberState::Up; 2], owner);
    }

    /// What a client is told in one line, where the other node does this.
    fn line(&self, does: &Does, request: &str) -> String {
        self.play(does);
        let mut client = Client::of(&self.pair, 0);
        client.send(&format!("{request}\r\n"));
        client.line()
    }

    /// The status and the code of an answer over HTTP, and its detail.
    fn problem(&self, does: &Does, target: &str, body: &Value) -> (u16, String, String) {
        self.play(does);
        self.pair.post(0, target, body).problem()
    }
}

/// So many keys of a node.
fn keys_of(which: usize, count: usize) -> Vec<String> {
    let keys = (0..).map(|number| format!("key{number}"));
    let keys = keys.filter(|key| owner_of(key) == which);
    keys.take(count).collect()
}

const UNKEPT: &str = "-UNKNOWN the write-ahead log failed meanwhile: it may or may not survive\r\n";
const FULL: &str = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
const MANY: &str = "-CLUSTERDOWN three is down; nothing was done\r\n";

#[test]
fn a_single_write_of_the_redis_protocol_is_unknown_where_it_may_be_done() {
    let stage = Stage::set();
    let key = key_of(1);
    let write = format!("SET {key} v");
    let table = [
        (Does::Ends, "-UNKNOWN two at "),
        (resp(UNKEPT), "-UNKNOWN the write-ahead log failed"),
        // Two replies to one request, and bytes that are no answer.
        (resp_of(&["+OK\r\n", "+OK\r\n"]), "-UNKNOWN two at "),
        (bytes(b"?".to_vec()), "-UNKNOWN two at "),
        (failed(), "-CLUSTERDOWN two at "),
        (resp(FULL), "-OOM "),
    ];
    for (does, expected) in &table {
        let line = stage.line(does, &write);
        assert!(line.starts_with(expected), "{does:?}: {line}");
        let is_nothing = line.ends_with("nothing was done");
        assert!(!(is_nothing && line.starts_with("-UNKNOWN")), "{line}");
    }
    assert!(stage.line(&failed(), &write).ends_with("nothing was done"));
    // What changes nothing is never unknown.
    let line = stage.line(&Does::Ends, &format!("GET {key}"));
    assert!(line.starts_with("-CLUSTERDOWN two at "), "{line}");
}

/// What is done here is done when the other part fails, however that is.
#[test]
fn a_split_write_of_the_redis_protocol_says_which_parts_are_done() {
    let stage = Stage::set();
    let mut mset = "MSET".to_owned();
    let mut del = "DEL".to_owned();
    for key in keys_of(0, 2).iter().chain(&keys_of(1, 2)) {
        let _ = write!(mset, " {key} v");
        let _ = write!(del, " {key}");
    }
    let (here, there) = (key_of(0), key_of(1));
    let single = format!("MSET {here} v {there} v");
    let not_known = "-UNKNOWN done by one; not known of two at ";
    let not = "-UNKNOWN done by one; not by two at ";
    let table = [
        (&mset, Does::Ends, not_known),
        (&mset, resp(UNKEPT), not_known),
        (&mset, resp(FULL), not_known),
        (&single, resp(FULL), not),
        (&mset, resp(MANY), not),
        (&mset, failed(), not),
        (&mset, bytes(b"?".to_vec()), not_known),
        (&mset, resp_of(&[]), not_known),
        (&mset, resp(":1\r\n"), "-UNKNOWN another node's reply"),
        (&del, resp("+OK\r\n"), "-UNKNOWN another node's reply"),
        (&del, Does::Ends, not_known),
        (&mset, resp("+OK\r\n"), "+OK"),
    ];
    for (request, does, expected) in &table {
        let line = stage.line(does, request);
        assert!(line.starts_with(expected), "{request} and {does:?}: {line}");
    }
    // A read is what it was.
    let exists = format!("EXISTS {here} {there}");
    let line = stage.line(&Does::Ends, &exists);
    assert!(line.starts_with("-CLUSTERDOWN two at "), "{line}");
    let line = stage.line(&resp("+OK\r\n"), &exists);
    assert!(line.starts_with("-ERR another node's reply"), "{line}");
}

#[test]
fn a_flush_says_who_has_forgotten_and_of_whom_that_is_not_known() {
    let stage = Stage::set();
    let not_known = "forgotten by one; not known of two at ";
    let not = "forgotten by one; not by two at ";
    let refused = Answered::Reply(Reply::Refused(Refusal::LogFailed));
    let table = [
        (Does::Ends, 504, "outcome_unknown", not_known),
        (
            commands(&[Answered::Unknown]),
            504,
            "outcome_unknown",
            not_known,
        ),
        (commands(&[]), 504, "outcome_unknown", not_known),
        (commands(&[refused]), 503, "partly_flushed", not),
        (failed(), 503, "partly_flushed", not),
    ];
    for (does, status, code, start) in &table {
        let (found, name, detail) = stage.problem(does, "/flush", &json!({}));
        assert_eq!((found, &*name), (*status, *code), "{does:?}: {detail}");
        assert!(detail.starts_with(start), "{does:?}: {detail}");
    }
    let came = stage.played.came();
    assert!(came.iter().all(|came| came.body == FLUSH_QUESTION));

    let table = [
        (Does::Ends, "-UNKNOWN done by one; not known of two at "),
        (resp(UNKEPT), "-UNKNOWN done by one; not known of two at "),
        (failed(), "-UNKNOWN done by one; not by two at "),
        (
            resp("-MISCONF the write-ahead log cannot be written\r\n"),
            "-UNKNOWN done by one; not by two at ",
        ),
        (resp("+OK\r\n"), "+OK"),
    ];
    for (does, expected) in &table {
        let line = stage.line(does, "FLUSHALL");
        assert!(line.starts_with(expected), "{does:?}: {line}");
    }
    // Nobody does anything about what is no flush.
    let line = stage.line(&resp("-ERR syntax error\r\n"), "FLUSHALL X");
    assert_eq!(line, "-ERR syntax error");
}

#[test]
fn writes_over_http_are_unknown_where_they_may_be_done() {
    let stage = Stage::set();
    let key = key_of(1);
    let (set, gone) = (json!({"key": key, "value": 1}), json!({"key": key}));
    let unknown = [
        Does::Ends,
        commands(&[Answered::Unknown]),
        // An answer to a read, two to one question, and none at all.
        commands(&[Answered::Reply(Reply::Counted {
            value: 1,
            version: henge_wire::Version::default(),
            expires_at_ms: None,
        })]),
        commands(&[Answered::NotHere, Answered::NotHere]),
        commands(&[]),
        bytes(b"?".to_vec()),
    ];
    let both = json!([{"key": key_of(0), "value": 1}, {"key": key, "value": 1}]);
    for does in &unknown {
        for (target, body) in [("/set", &set), ("/delete", &gone)] {
            let (status, code, detail) = stage.problem(does, target, body);
            assert_eq!(
                (status, &*code),
                (504, "outcome_unknown"),
                "{target} and {does:?}: {detail}"
            );
            assert!(!detail.contains("nothing was done"), "{detail}");
        }
        stage.play(does);
        let stored = stage.pair.post(0, "/mset", &json!({"items": both})).json();
        assert!(stored["results"][0]["version"].is_string(), "{stored}");
        let error = &stored["results"][1]["error"];
        assert_eq!(error["code"], "outcome_unknown", "{does:?}: {stored}");
    }
    let (status, code, detail) = stage.problem(&failed(), "/set", &set);
    assert_eq!((status, &*code), (503, "owner_unreachable"), "{detail}");
    assert!(detail.ends_with("nothing was done"), "{detail}");
    let services = stage.played.came();
    let is_commands = |came: &Came| came.service == Service::Commands as u8;
    assert!(services.iter().all(is_commands));
}

/// A batch of writes that is under way says of each key what became of it, however much else is in flight.
#[test]
fn results_of_writes_are_answered_past_the_bound() {
    const KEYS: usize = 100_000;
    let pair = Pair::start(&[
        ("persistence.enabled", "false"),
        ("limits.max_value_bytes", "512KiB"),
        ("limits.max_body_bytes", "1MiB"),
        ("limits.max_inflight_bytes", "2MiB"),
        ("limits.max_batch_items", "200000"),
    ]);
    let keys: Vec<Value> = (0..KEYS)
        .map(|number| json!(format!("{number:x}")))
        .collect();
    let gone = pair.post(0, "/mdelete", &json!({ "keys": keys }));
    assert_eq!(gone.status, 200, "{}", String::from_utf8_lossy(&gone.body));
    let results = gone.json()["results"].as_array().map(Vec::len);
    assert_eq!(results, Some(KEYS));
    // What only reads ends at the bound.
    let got = pair.post(0, "/mget", &json!({ "keys": keys })).problem();
    assert_eq!((got.0, &*got.1), (503, "overloaded"));
}
