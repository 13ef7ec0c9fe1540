//! `henge bench` as a shell runs it: against a node, and against servers that stall, hang up or are not there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use henge_wire::resp::reply::{Decoder, Limits};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::client::{Client, DEADLINE, node};

/// The protocols that a node speaks, by the schemes of their URLs.
const SCHEMES: [&str; 1] = ["http"];

/// A bench that writes its results to files of its own.
struct Bench {
    child: Child,
    folder: PathBuf,
}

impl Bench {
    /// `name` tells tests apart that run at the same time.
    fn start(name: &str, url: &str, line: &str) -> Self {
        let folder = format!("henge-bench-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).expect("a directory");
        let no_warmup = (!line.contains("-warmup")).then_some("-warmup=0s");
        let child = Command::new(env!("CARGO_BIN_EXE_henge"))
            .args(["bench", "-url", url, "-json=j", "-html=h"])
            .args(line.split(' '))
            .args(no_warmup)
            .current_dir(&folder)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary of this build runs");
        Self { child, folder }
    }

    /// What it printed, and the two files, where it wrote them.
    fn wait(self) -> (Output, Value, String) {
        let output = self.child.wait_with_output().expect("it ends");
        let read = |name: &str| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let json = serde_json::from_str(&read("j")).unwrap_or_default();
        let html = read("h");
        std::fs::remove_dir_all(&self.folder).expect("removed");
        (output, json, html)
    }

    /// As `wait`, of one that must succeed.
    fn results(self) -> (String, Value) {
        let (output, json, html) = self.wait();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_eq!(said, "", "no progress bar but on a terminal");
        assert!(html.starts_with("<!doctype html>"), "{html}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), json)
    }
}

/// A server of the Redis protocol that answers `answer(n)` to the nth request of a connection, from 0, and hangs up at none.
fn fake(answer: impl Fn(usize) -> Option<&'static str> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let answer = std::sync::Arc::new(answer);
    // Both threads end with their connections, or with the process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = std::sync::Arc::clone(&answer);
            thread::spawn(move || serve(stream, &*answer));
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(usize) -> Option<&'static str>) {
    let (mut input, mut decoder) = (BytesMut::new(), Decoder::new(Limits::default()));
    let mut chunk = [0; 4096];
    let mut count = 0;
    loop {
        // What a client sends has the form of a reply.
        while let Some(_request) = decoder.decode(&mut input).expect("RESP") {
            let Some(text) = answer(count) else { return };
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
            count += 1;
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(len) => input.extend_from_slice(&chunk[..len]),
        }
    }
}

fn number(json: &Value, pointer: &str) -> f64 {
    let found = json.pointer(pointer).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("{pointer} in {json:#}"))
}

#[test]
fn a_node_is_measured() {
    for scheme in SCHEMES {
        for dist in ["uniform", "zipf"] {
            let node = node(&[]);
            let url = format!("{scheme}://{}", node.local_addr());
            let line = format!("-c 4 -threads 2 -d 300ms -keys 100 -size 50 -dist {dist}");
            let (text, json) =
                Bench::start(&format!("node-{scheme}-{dist}"), &url, &line).results();
            let heads: Vec<&str> = text
                .lines()
                .filter_map(|line| line.split("  ").next())
                .collect();
            let rows = [
                "ops",
                "errors",
                "hit ratio",
                "ops/s",
                "p50",
                "p90",
                "p99",
                "p99.9",
                "p99.99",
                "max",
            ];
            assert!(heads.ends_with(&rows), "{text}");
            assert!(number(&json, "/all/ops") > 0.0, "{text}");
            assert!(number(&json, "/all/errors") == 0.0, "{text}");
            // Every key was written before.
            assert!(number(&json, "/hit_ratio") >= 1.0, "{text}");
            let mut client = Client::connect(node.local_addr());
            let value = client.get("/cache/bench:0000000099");
            assert_eq!((value.status, value.body.len()), (200, 50));
            assert_eq!(client.get("/cache/bench:0000000100").status, 404);
        }
    }
}

#[test]
fn keys_that_were_not_loaded_are_misses() {
    for scheme in SCHEMES {
        let node = node(&[]);
        let url = format!("{scheme}://{}", node.local_addr());
        let bench = Bench::start(
            &format!("miss-{scheme}"),
            &url,
            "-c 2 -d 200ms -read 1 -no-load",
        );
        let (text, json) = bench.results();
        assert!(number(&json, "/hit_ratio") == 0.0, "{text}");
        assert!(number(&json, "/writes/ops") == 0.0, "{text}");
    }
}

#[test]
fn an_open_loop_asks_exactly_as_often_as_it_was_told() {
    for scheme in SCHEMES {
        let node = node(&[]);
        let url = format!("{scheme}://{}", node.local_addr());
        let bench = Bench::start(&format!("rate-{scheme}"), &url, "-c 3 -d 500ms -rate 200");
        let (text, json) = bench.results();
        let asked = number(&json, "/all/ops") + number(&json, "/all/errors");
        assert!(
            (asked + number(&json, "/unsent") - 100.0).abs() < 0.5,
            "{text}"
        );
    }
}

/// A backlog of the warm-up would be all that is ever sent.
#[test]
fn a_rate_that_is_too_high_shows_what_the_server_can_do() {
    let address = fake(|_| Some("$1\r\nv\r\n"));
    // No server answers one request at a time so fast.
    let line = "-c 1 -d 500ms -warmup 300ms -rate 100000000 -read 1 -no-load";
    let (text, json) = Bench::start("too-fast", &format!("redis://{address}"), line).results();
    let ops = number(&json, "/all/ops");
    assert!(ops > 0.0, "{text}");
    // What was due in the measured time, and nothing of the warm-up.
    let due = ops + number(&json, "/unsent");
    assert!((due - 50_000_000.0).abs() < 0.5, "{due}: {text}");
    assert!(
        text.contains("\nThe rate of 100,000,000/s was not reached: "),
        "{text}"
    );
}

/// A closed loop would feel the stall once. Of a hundred requests that are due in a second, those of the first 100 ms wait
/// at least 100 ms each for a server that stalls for 200 ms.
#[test]
fn a_stall_is_felt_by_all_who_were_due() {
    let address = fake(|count| {
        if count == 0 {
            let (_never, stall) = mpsc::channel::<()>();
            let _ = stall.recv_timeout(Duration::from_millis(200));
        }
        Some("$1\r\nv\r\n")
    });
    let line = "-c 1 -d 1s -rate 100 -read 1 -no-load";
    let (text, json) = Bench::start("stall", &format!("redis://{address}"), line).results();
    assert!(number(&json, "/all/latency_us/p90") >= 99_000.0, "{text}");
}

#[test]
fn pipelines_are_answered_one_by_one() {
    let address = fake(|_| Some("$1\r\nv\r\n"));
    let line = "-c 2 -d 200ms -pipeline 16 -read 1 -no-load";
    let (text, json) = Bench::start("pipeline", &format!("redis://{address}"), line).results();
    let ops = number(&json, "/reads/ops");
    assert!(ops >= 16.0 && ops % 16.0 == 0.0, "{text}");
    assert!(number(&json, "/all/errors") == 0.0, "{text}");
}

#[test]
fn errors_are_counted_and_do_not_end_it() {
    /// Each of two connections asks again when it has counted what came of the last, so that all but two of so many are
    /// counted, and among them are errors and answers.
    const ENOUGH: usize = 30;
    let hang_up: fn(usize) -> Option<&'static str> = |count| (count < 5).then_some("$1\r\nv\r\n");
    let refuse: fn(usize) -> Option<&'static str> =
        |count| Some(["$1\r\nv\r\n", "-ERR not today\r\n"][count % 2]);
    for (name, answer, said) in [
        ("hang-up", hang_up, "closed the connection"),
        ("refuse", refuse, "not today"),
    ] {
        let asked = AtomicUsize::new(0);
        let (enough, is_enough) = mpsc::channel();
        let address = fake(move |count| {
            if asked.fetch_add(1, Ordering::Relaxed) == ENOUGH {
                // The test may have given up.
                let _ = enough.send(());
            }
            answer(count)
        });
        let line = "-c 2 -d 1h -read 1 -no-load";
        let bench = Bench::start(name, &format!("redis://{address}"), line);
        let waited = is_enough.recv_timeout(DEADLINE);
        kill_process(Pid::from_child(&bench.child), Signal::INT).expect("it runs");
        let (text, json) = bench.results();
        assert_eq!(waited, Ok(()), "an error ended it: {text}");
        assert!(number(&json, "/all/errors") > 0.0, "{text}");
        assert!(number(&json, "/all/ops") > 1.0, "{text}");
        let first = json["first_error"].as_str().unwrap_or_default();
        assert!(first.contains(said), "{first}");
    }
}

#[test]
fn what_cannot_be_loaded_is_not_measured() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = listener.local_addr().expect("it is bound");
    let refuse = fake(|_| Some("-OOM no room\r\n"));
    // Not before the other has its port, which may not be this one.
    drop(listener);
    for (name, url, threads, said) in [
        (
            "closed",
            format!("http://{closed}"),
            1,
            "henge: no connection to ",
        ),
        (
            "closed-2",
            format!("redis://{closed}"),
            2,
            "henge: no connection to ",
        ),
        (
            "full",
            format!("redis://{refuse}"),
            2,
            "henge: the server refused: OOM: no room\n",
        ),
    ] {
        let line = format!("-c 4 -threads {threads} -d 1h");
        let (output, ..) = Bench::start(name, &url, &line).wait();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.starts_with(said), "{stderr}");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stdout, b"");
    }
}

#[test]
fn an_interrupt_ends_it_with_the_results_so_far() {
    for scheme in SCHEMES {
        let node = node(&[]);
        let url = format!("{scheme}://{}", node.local_addr());
        let bench = Bench::start(&format!("interrupt-{scheme}"), &url, "-c 4 -d 1h");
        // It reads, so it measures.
        let mut client = Client::connect(node.local_addr());
        let began = std::time::Instant::now();
        while number(&client.get("/stats").json(), "/hits") < 100.0 {
            assert!(began.elapsed() < DEADLINE, "it never reads");
            thread::yield_now();
        }
        let pid = Pid::from_child(&bench.child);
        kill_process(pid, Signal::INT).expect("it runs");
        let (text, json) = bench.results();
        assert!(number(&json, "/all/ops") > 0.0, "{text}");
        assert!(text.contains("\nEnded after "), "{text}");
    }
}
