//! What goes over which link between two nodes, and what is said when a link ends: one of the two is played.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use henge_wire::peer::keys::{Answered, Question, encode_answered, replies_head};
use henge_wire::peer::{self, Head, Kind, MAX_BODY_BYTES, PREFACE, Purpose};
use henge_wire::{Operation, Reply};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::{DEADLINE, Pair, key_of, owner, owner_of};
use crate::cluster::identity::Identity;
use crate::cluster::link::Service;
use crate::cluster::link::greet::{self, Greeted};
use crate::cluster::view::MemberState;
use crate::net::data_thread;

/// The `service` of an answer that is parked.
const PARKED: u8 = 0xFE;

/// A question that came to the played node: over which of its connections, and for what that is.
#[derive(Clone, Debug)]
pub(super) struct Came {
    connection: usize,
    pub(super) purpose: Purpose,
    pub(super) service: u8,
    pub(super) body: Bytes,
}

/// What it does about it: an answer, or the end of the connection.
type Play = dyn Fn(&Came) -> Option<(u8, Vec<u8>)> + Send + Sync;

/// A node that is played, in place of the second of a pair.
pub(super) struct Played {
    came: Arc<Mutex<Vec<Came>>>,
    ends: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Played {
    pub(super) fn instead_of_two(
        pair: &mut Pair,
        play: impl Fn(&Came) -> Option<(u8, Vec<u8>)> + Send + Sync + 'static,
    ) -> Self {
        let identity = Arc::clone(&pair.cluster(1).identity);
        drop(pair.nodes[1].take());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
        pair.addresses[1] = listener.local_addr().expect("it has one").to_string();
        pair.show(0, [MemberState::Up; 2], owner);
        let (ends, ended) = oneshot::channel();
        let came = Arc::new(Mutex::new(Vec::new()));
        let (all, play) = (Arc::clone(&came), Arc::new(play) as Arc<Play>);
        let thread = thread::spawn(move || {
            let runtime = data_thread::runtime().expect("a runtime");
            runtime.block_on(async {
                listener.set_nonblocking(true).expect("it is one");
                let listener = tokio::net::TcpListener::from_std(listener).expect("it is one");
                let accept = async {
                    for connection in 0.. {
                        let (socket, _) = listener.accept().await.expect("somebody connects");
                        let (identity, all) = (Arc::clone(&identity), Arc::clone(&all));
                        let play = Arc::clone(&play);
                        tokio::task::spawn_local(async move {
                            serve(socket, connection, &identity, &all, &*play).await;
                        });
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = ended => {}
                }
            });
        });
        Self {
            came,
            ends: Some(ends),
            thread: Some(thread),
        }
    }

    pub(super) fn came(&self) -> Vec<Came> {
        self.came.lock().clone()
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        drop(self.ends.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "it plays to its end");
        }
    }
}

async fn serve(
    mut socket: tokio::net::TcpStream,
    connection: usize,
    identity: &Identity,
    all: &Mutex<Vec<Came>>,
    play: &Play,
) {
    let mut first = [0; PREFACE.len()];
    let read = socket.read_exact(&mut first).await;
    read.expect("it says what it is");
    let greeted = greet::accept(socket, &first, identity).await;
    let Greeted {
        mut socket,
        mut incoming,
        hello,
        ..
    } = greeted.expect("they know each other");
    loop {
        while let Some((head, body)) = incoming.next(MAX_BODY_BYTES).expect("it is a frame") {
            let came = Came {
                connection,
                purpose: hello.purpose,
                service: head.service,
                body,
            };
            all.lock().push(came.clone());
            let Some((service, body)) = play(&came) else {
                return;
            };
            let mut bytes = Vec::new();
            let head = Head {
                kind: Kind::Answer,
                service,
                id: head.id,
            };
            peer::encode(&mut bytes, head, &[&body]);
            let _ = socket.write_all(&bytes).await;
        }
        let read = std::future::poll_fn(|cx| incoming.poll_read(&mut socket, cx));
        if read.await.is_err() {
            return;
        }
    }
}

/// So many first commands of a question, as the node would answer them that has none of their keys.
fn answered(came: &Came, most: usize) -> (u8, Vec<u8>) {
    let Ok(Question::Commands(_, commands)) = Question::decode(&came.body) else {
        panic!("{came:?} is no question");
    };
    let count = commands.count().min(most);
    let mut out = replies_head(count as u32).to_vec();
    for command in commands.iter().take(count) {
        encode_answered(
            &mut out,
            &Answered::Reply(match command.operation {
                Operation::Get | Operation::Peek => Reply::Missing,
                Operation::Delete { .. } => Reply::Deleted,
                other => panic!("{other:?} is not asked"),
            }),
        );
    }
    (0, out)
}

/// A connection of a client of a node, which stays on one of its threads.
pub(super) struct Client(BufReader<TcpStream>);

impl Client {
    pub(super) fn of(pair: &Pair, which: usize) -> Self {
        let stream = TcpStream::connect(&pair.addresses[which]).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("it is one");
        Self(BufReader::new(stream))
    }

    pub(super) fn send(&mut self, bytes: &str) {
        let sent = self.0.get_mut().write_all(bytes.as_bytes());
        sent.expect("it is sent");
    }

    pub(super) fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("it comes");
        line.trim_end().to_owned()
    }

    /// The status of an answer over HTTP, and its body.
    pub(super) fn http(&mut self, method: &str, target: &str) -> (u16, String) {
        self.send(&format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\n\r\n"
        ));
        let status = self.line();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut length = 0;
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            if let Some(text) = line.strip_prefix("content-length: ") {
                length = text.parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("it comes");
        let body = String::from_utf8(body).expect("text");
        (status.expect("a status"), body)
    }
}

/// A pair of nodes, one to be played, that keeps nothing on a disk.
pub(super) fn pair() -> Pair {
    Pair::start(&[
        ("persistence.enabled", "false"),
        ("compression.algorithm", "none"),
    ])
}

#[test]
fn a_read_is_asked_again_where_its_link_was_dead_and_a_write_is_not() {
    let mut pair = pair();
    let key = key_of(1);
    // Each connection answers one question, and ends with the next.
    let seen = Mutex::new(BTreeSet::new());
    let played = Played::instead_of_two(&mut pair, move |came| {
        let is_first = seen.lock().insert(came.connection);
        is_first.then(|| match came.service {
            service if service == Service::Resp as u8 => {
                let mut answer = 1_u32.to_le_bytes().to_vec();
                answer.extend_from_slice(&5_u32.to_le_bytes());
                answer.extend_from_slice(b"$-1\r\n");
                (0, answer)
            }
            _ => answered(came, 1),
        })
    });
    // Over the first, and over the second when the first is found to be dead.
    let mut http = Client::of(&pair, 0);
    for target in ["get", "get", "exists"] {
        let (status, body) = http.http("GET", &format!("/{target}?key={key}"));
        assert!(status == 404 || status == 200, "{target}: {status} {body}");
    }
    let (status, body) = http.http("DELETE", &format!("/delete?key={key}"));
    assert_eq!(status, 504, "{body}");
    let mut resp = Client::of(&pair, 0);
    let get = format!("GET {key}\r\n");
    for _ in 0..3 {
        resp.send(&get);
        assert_eq!(resp.line(), "$-1");
    }
    resp.send(&format!("DEL {key}\r\n"));
    let line = resp.line();
    assert!(line.starts_with("-UNKNOWN"), "{line}");
    let came = played.came();
    let writes = came.iter().filter(|came| {
        let is_write = |operation: &Operation<'_>| matches!(operation, Operation::Delete { .. });
        match Question::decode(&came.body) {
            Ok(Question::Commands(_, commands)) => {
                commands.iter().any(|command| is_write(&command.operation))
            }
            _ => came.body.windows(3).any(|word| word == b"DEL"),
        }
    });
    assert_eq!(writes.count(), 2, "each is sent once: {came:?}");
}

#[test]
fn what_is_large_goes_over_a_link_of_its_own() {
    let mut pair = pair();
    let key = key_of(1);
    let played = Played::instead_of_two(&mut pair, move |_| {
        let mut answer = 1_u32.to_le_bytes().to_vec();
        answer.extend_from_slice(&5_u32.to_le_bytes());
        answer.extend_from_slice(b"+OK\r\n");
        Some((0, answer))
    });
    let mut resp = Client::of(&pair, 0);
    for size in [10, 1 << 20, 10] {
        let (length, value) = (key.len(), "v".repeat(size));
        resp.send(&format!(
            "*3\r\n$3\r\nSET\r\n${length}\r\n{key}\r\n${size}\r\n{value}\r\n"
        ));
        assert_eq!(resp.line(), "+OK");
    }
    let purposes: Vec<_> = played.came().iter().map(|came| came.purpose).collect();
    assert_eq!(purposes, [Purpose::Data, Purpose::Bulk, Purpose::Data]);
}

/// What was done and whose answer is lost on its way over the other link may have been done, and a read says that it has none.
#[test]
fn an_answer_that_cannot_be_claimed_is_unknown() {
    for is_expired in [true, false] {
        let mut pair = pair();
        let key = key_of(1);
        let played = Played::instead_of_two(&mut pair, move |came| match came.purpose {
            Purpose::Data => Some((PARKED, 77_u64.to_le_bytes().to_vec())),
            // It does not know the number, or it is gone.
            _ => is_expired.then(|| (0xFF, b"no such answer".to_vec())),
        });
        let mut http = Client::of(&pair, 0);
        let (status, body) = http.http("DELETE", &format!("/delete?key={key}"));
        assert_eq!(status, 504, "{body}");
        let (status, body) = http.http("GET", &format!("/get?key={key}"));
        assert_eq!(status, 503, "{body}");
        let mut resp = Client::of(&pair, 0);
        resp.send(&format!("GETDEL {key}\r\n"));
        let line = resp.line();
        assert!(line.starts_with("-UNKNOWN"), "{line}");
        resp.send(&format!("GET {key}\r\n"));
        let line = resp.line();
        assert!(line.starts_with("-CLUSTERDOWN"), "{line}");
        let came = played.came();
        let claims = came.iter().filter(|came| came.purpose == Purpose::Bulk);
        for claim in claims {
            assert_eq!(claim.service, Service::Claim as u8);
            assert_eq!(&claim.body[..], &77_u64.to_le_bytes());
        }
    }
}

/// Who answers one of many at a time is not sent all of the rest each time.
#[test]
fn the_rest_of_a_batch_is_asked_for_in_parts() {
    const KEYS: usize = 200;
    let mut pair = pair();
    let played = Played::instead_of_two(&mut pair, |came| {
        if came.service == Service::Commands as u8 {
            return Some(answered(came, 1));
        }
        let mut answer = 1_u32.to_le_bytes().to_vec();
        answer.extend_from_slice(&5_u32.to_le_bytes());
        answer.extend_from_slice(b"$-1\r\n");
        Some((0, answer))
    });
    let keys: Vec<String> = (0..)
        .map(|number| format!("k{number}"))
        .filter(|key| owner_of(key) == 1)
        .take(KEYS)
        .collect();
    let got = pair.post(0, "/mget", &serde_json::json!({ "keys": keys }));
    assert_eq!(got.json()["results"].as_array().map(Vec::len), Some(KEYS));
    let of_http = played.came();
    let mut resp = Client::of(&pair, 0);
    let mut requests = String::new();
    for key in &keys {
        let _ = write!(requests, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
    }
    resp.send(&requests);
    for key in &keys {
        assert_eq!(resp.line(), "$-1", "{key}");
    }
    let of_resp = played.came().split_off(of_http.len());
    let whole = of_http[0].body.len();
    for (questions, whole) in [(of_http, whole), (of_resp, requests.len())] {
        assert!(questions.len() >= KEYS);
        let bytes: usize = questions.iter().map(|came| came.body.len()).sum();
        let count = questions.len();
        // The first has all, and of those behind it each has two, behind a head.
        assert!(
            bytes <= 3 * whole + 8 * count,
            "{bytes} of {whole} in {count}"
        );
        // All of them, one after the other.
        let last = &questions[questions.len() - 1].body;
        let last_key = keys[KEYS - 1].as_bytes();
        assert!(last.windows(last_key.len()).any(|part| part == last_key));
    }
}

/// A connection that says another thing of itself in the middle of a pipeline has its commands run in their order.
#[test]
fn a_batch_overtakes_no_other() {
    let pair = pair();
    let key = key_of(1);
    let mut resp = Client::of(&pair, 0);
    resp.send(&format!(
        "SET {key} 1\r\nCLIENT NO-TOUCH ON\r\nSET {key} 2\r\nAPPEND {key} x\r\nCLIENT NO-TOUCH OFF\r\nSET {key} 3\r\nGET {key}\r\n"
    ));
    let lines: Vec<String> = (0..8).map(|_| resp.line()).collect();
    let expected = ["+OK", "+OK", "+OK", ":2", "+OK", "+OK", "$1", "3"];
    assert_eq!(lines, expected);
    resp.send(&format!("GET {key}\r\n"));
    assert_eq!([resp.line(), resp.line()], ["$1", "3"], "it lasts");
}

/// Replies of several nodes count together, whichever sends them.
#[test]
fn replies_that_are_joined_are_held() {
    let pair = Pair::start(&[
        ("persistence.enabled", "false"),
        ("compression.algorithm", "none"),
        ("limits.max_value_bytes", "512KiB"),
        ("limits.max_body_bytes", "1MiB"),
        ("limits.max_inflight_bytes", "2MiB"),
    ]);
    let value = "v".repeat(400_000);
    let mut words = "*7\r\n$4\r\nMGET\r\n".to_owned();
    for which in 0..2 {
        let mut keys = (0..).map(|number| format!("key{number}"));
        for _ in 0..3 {
            let key = keys.find(|key| owner_of(key) == which).expect("one");
            let mut resp = Client::of(&pair, which);
            let (length, size) = (key.len(), value.len());
            resp.send(&format!(
                "*3\r\n$3\r\nSET\r\n${length}\r\n{key}\r\n${size}\r\n{value}\r\n"
            ));
            assert_eq!(resp.line(), "+OK");
            let _ = write!(words, "${length}\r\n{key}\r\n");
        }
    }
    let mut resp = Client::of(&pair, 0);
    resp.send(&words);
    let line = resp.line();
    assert!(line.starts_with("-ERR the reply would hold"), "{line}");
    // The connection goes on, and nothing is held any more.
    resp.send("PING\r\n");
    assert_eq!(resp.line(), "+PONG");
}
