//! A node's life: start, reload, drain, stop, and what it says when it cannot.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use henge::config::{LogLevel, PolicyKind};
use rustix::process::Signal;

use crate::client::{Client, DATA_VARIABLE, DEADLINE, Process, config, data_directory, node};
use henge::Node;

/// Waits until nobody can connect any more.
fn until_port_closed(process: &Process) {
    while Client::try_connect(process.address).is_ok() {
        std::thread::yield_now();
    }
}

#[test]
fn a_signal_drains_what_is_in_flight() {
    for signal in [Signal::TERM, Signal::INT] {
        let process = Process::start(Process::command(&[]));
        let mut idle = Client::connect(process.address);
        assert_eq!(idle.get("/get?key=a").status, 404);
        let mut busy = Client::connect(process.address);
        busy.send(
            b"POST /set HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 22\r\n\r\n",
        )
        .expect("sent");
        // The node asks for the body, so the request is in flight.
        busy.send(b"{\"key\":").expect("sent");
        assert_eq!(idle.get("/get?key=a").status, 404);
        let mut line = [0; 25];
        busy.read_exact(&mut line);
        assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
        process.signal(signal);
        idle.until_closed();
        until_port_closed(&process);
        busy.send(b"\"a\",\"value\":1} ").expect("sent");
        let response = busy.response(true);
        assert_eq!(response.status, 200, "{}", response.text());
        busy.until_closed();
        let (code, log) = process.wait();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("draining") && log.contains("stopped"), "{log}");
    }
}

/// A request over an idle connection that crosses the signal on its way is answered, and told that it was the last.
#[test]
fn an_idle_connection_is_kept_for_a_moment_as_draining_begins() {
    // The moment is short, and a busy machine may let it pass; without it no try could succeed.
    let answered = (0..20).any(|_| {
        let process = Process::start(Process::command(&[]));
        let mut client = Client::connect(process.address);
        assert_eq!(client.get("/get?key=a").header("connection"), None);
        process.signal(Signal::TERM);
        until_port_closed(&process);
        let sent = client.send(b"GET /get?key=a HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let response = sent.and_then(|()| client.try_response(true));
        if let Ok(response) = &response {
            assert_eq!(response.status, 404);
            assert_eq!(response.header("connection"), Some("close"));
        }
        client.until_closed();
        assert_eq!(process.wait().0, Some(0));
        response.is_ok()
    });
    assert!(answered);
}

#[test]
fn draining_ends_at_the_time_out_and_a_second_signal_ends_it_at_once() {
    for (timeout, signals, code) in [("50", 1, 0), ("3600000", 2, 1)] {
        let setting = format!("--set=server.shutdown_timeout_ms={timeout}");
        let process = Process::start(Process::command(&[&setting]));
        let mut stuck = Client::connect(process.address);
        stuck
            .send(b"POST /set HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n")
            .expect("sent");
        let mut line = [0; 25];
        stuck.read_exact(&mut line);
        process.signal(Signal::TERM);
        if signals > 1 {
            until_port_closed(&process);
            process.signal(Signal::TERM);
        }
        stuck.until_closed();
        let (found, log) = process.wait();
        assert_eq!(found, Some(code), "{log}");
    }
}

/// Whoever was refused and still sends its body would hold up a node that ends for as long as it likes.
#[test]
fn nobody_waits_for_the_rest_of_what_was_refused() {
    let process = Process::start(Process::command(&[
        "--set=server.shutdown_timeout_ms=3600000",
    ]));
    let mut refused = Client::connect(process.address);
    refused
        .send(b"POST /set HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2000000000\r\n\r\n")
        .expect("sent");
    // It reads its answer and stays, with a body that it has earned hours for.
    let answer = refused.response(true);
    assert_eq!(answer.status, 413);
    refused.send(&vec![b'x'; 4 << 20]).expect("it is read");
    process.signal(Signal::TERM);
    let (found, log) = process.wait();
    assert_eq!(found, Some(0), "{log}");
}

/// Runs a command that must fail at once; its exit code and its one line.
fn fails(mut command: Command) -> (Option<i32>, String) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("the process starts");
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(line.lines().count(), 1, "{line}");
    (output.status.code(), line)
}

#[test]
fn what_keeps_it_from_starting_is_one_line() {
    let taken = node(&[]);
    let port = taken.local_addr().port();
    let dir = std::env::temp_dir().join(format!("henge-life-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    let broken = dir.join("broken.toml");
    fs::write(&broken, "[cache]\npolicy = \"lru\"\nmax_itms = 5\n").expect("written");
    let broken = broken.to_str().expect("a path of ours");
    let in_use = format!("--port=127.0.0.1:{port}");
    // Arguments, the exit code, and what the line holds.
    let cases: &[(&[&str], i32, &str)] = &[
        (&[&in_use], 1, "the port is in use"),
        (&["--port=192.0.2.1:80"], 1, "cannot listen on 192.0.2.1:80"),
        (
            &["--port=no-such-host.invalid:80"],
            1,
            "cannot listen on no-such-host.invalid:80",
        ),
        (&["--config", broken], 2, "broken.toml:3"),
        (
            &["--config", "/nonexistent/henge.toml"],
            2,
            "/nonexistent/henge.toml",
        ),
    ];
    for (arguments, code, part) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
        command.args(*arguments);
        let (found, line) = fails(command);
        assert_eq!(found, Some(*code), "{arguments:?}: {line}");
        assert!(line.starts_with("henge: ") && line.contains(part), "{line}");
    }
    fs::remove_dir_all(&dir).expect("removed");
}

/// Found out before tokio would, which panics.
#[test]
fn too_few_file_handles_to_start_is_one_line() {
    for limit in 6..=12 {
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {limit} && exec \"$0\" --port=127.0.0.1:0");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_henge")]);
        command.env(DATA_VARIABLE, data_directory());
        let (code, line) = fails(command);
        assert_eq!(code, Some(1), "{limit}: {line}");
        let part = format!("too few file handles: {limit} are allowed");
        assert!(
            line.contains(&part) && line.contains("ulimit -n"),
            "{limit}: {line}"
        );
    }
}

/// With a limit so low that connections use it up, the node says so, keeps serving those that it has, and takes new ones
/// when there are handles again.
#[test]
fn out_of_file_handles() {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 60 && exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_henge"),
        "--port=127.0.0.1:0",
        "--max-size=64MiB",
    ]);
    command.env(DATA_VARIABLE, data_directory());
    let mut process = Process::start(command);
    let mut first = Client::connect(process.address);
    assert_eq!(first.get("/get?key=a").status, 404);
    let crowd: Vec<Client> = (0..80).map(|_| Client::connect(process.address)).collect();
    // The line in the log is the event to wait for.
    let mut stderr = process.child.stderr.take().expect("it is piped");
    let mut log = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&log).contains("out of file handles") {
        assert_eq!(stderr.read(&mut byte).expect("the log"), 1, "it ended");
        log.push(byte[0]);
    }
    assert_eq!(
        first.get("/get?key=a").status,
        404,
        "who is connected is served"
    );
    drop(crowd);
    let mut next = Client::connect(process.address);
    assert_eq!(next.get("/get?key=a").status, 404);
}

#[test]
fn a_reload_takes_over_what_it_can() {
    let running = config(&[]);
    let data = running.persistence.dir.clone();
    let node = Node::start(running).expect("the node starts");
    node.wait_until_ready().expect("there is nothing to load");
    let mut client = Client::connect(node.local_addr());
    let before = client.request("POST", "/admin/reload", &[], b"").json();
    assert_eq!(
        before,
        serde_json::json!({"changed": [], "needs_restart": []})
    );
    let address = node.local_addr().to_string();
    let taken_over = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&taken_over);
    let load = move || {
        let mut config = config(&[("limits.max_value_bytes", "10"), ("cache.policy", "lfu")]);
        config.persistence.dir = data.clone();
        config.set("log.level", "warn").expect("a setting");
        Ok(config)
    };
    node.reload_with(load, move |config| {
        let policy = config.cache.policy;
        told.lock()
            .expect("no panic")
            .push((config.log.level, policy));
    });
    let reloaded = client.request("POST", "/admin/reload", &[], b"").json();
    let changed: Vec<_> = reloaded["changed"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(changed.len(), 2, "{reloaded}");
    assert_eq!(
        reloaded["needs_restart"].as_array().map(Vec::len),
        Some(1),
        "{reloaded}"
    );
    assert_eq!(
        client
            .post("/set", r#"{"key":"a","value":"12345678901"}"#)
            .status,
        413
    );
    assert_eq!(
        *taken_over.lock().expect("no panic"),
        [(LogLevel::Warn, PolicyKind::Lru)],
        "what is in force, not what was asked for"
    );
    assert_eq!(node.local_addr().to_string(), address);
}

#[test]
fn sighup_reloads_the_file() {
    let dir = std::env::temp_dir().join(format!("henge-hup-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    let file = dir.join("henge.toml");
    fs::write(&file, "[limits]\nmax_value_bytes = 1000\n").expect("written");
    let path = file.to_str().expect("a path of ours");
    let process = Process::start(Process::command(&["--config", path]));
    let mut client = Client::connect(process.address);
    let body = r#"{"key":"a","value":"12345678901"}"#;
    assert_eq!(client.post("/set", body).status, 200);
    fs::write(&file, "[limits]\nmax_value_bytes = 10\n").expect("written");
    process.signal(Signal::HUP);
    while client.post("/set", body).status != 413 {
        std::thread::yield_now();
    }
    // A broken file changes nothing, and says where it is broken.
    fs::write(&file, "[limits]\nmax_value_bytes = -1\n").expect("written");
    let refused = client.request("POST", "/admin/reload", &[], b"");
    assert_eq!(
        (refused.status, &*refused.code()),
        (422, "invalid_configuration")
    );
    assert!(
        refused.text().contains("henge.toml:2"),
        "{}",
        refused.text()
    );
    assert_eq!(client.post("/set", body).status, 413);
    fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn a_node_inside_a_program_stops_when_it_is_told_or_dropped() {
    let first = node(&[]);
    let address = first.local_addr();
    assert_eq!(Client::connect(address).get("/get?key=a").status, 404);
    assert!(first.shutdown());
    assert!(Client::try_connect(address).is_err());
    let second = node(&[]);
    let address = second.local_addr();
    drop(second);
    assert!(Client::try_connect(address).is_err());
}

/// A node by itself begins a cluster of one meanwhile.
#[test]
fn who_is_stopped_as_it_begins_ends() {
    for _ in 0..30 {
        let process = Process::start(Process::command(&[]));
        process.signal(rustix::process::Signal::TERM);
        let (code, log) = process.wait();
        assert_eq!(code, Some(0), "{log}");
    }
}

/// As systemd starts it, with `Type=notify`.
#[test]
fn a_supervisor_is_told_when_it_is_ready_and_when_it_stops() {
    let path = std::env::temp_dir().join(format!("henge-notify-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a place for a socket");
    socket
        .set_read_timeout(Some(DEADLINE))
        .expect("it can be waited for");
    let mut command = Process::command(&[]);
    command.env("NOTIFY_SOCKET", &path);
    let process = Process::start(command);
    let told = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("it says something");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    assert_eq!(told(), "READY=1");
    process.signal(Signal::TERM);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(process.wait().0, Some(0));
    std::fs::remove_file(&path).expect("it is ours");
}

/// As systemd and Kubernetes show secrets to a program that is not root's: files of root that its group may read.
#[test]
fn a_file_that_root_lends_to_the_node_s_group_is_private_enough() {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can start a node as somebody else");
        return;
    }
    let path = std::env::temp_dir().join(format!("henge-lent-{}", std::process::id()));
    fs::write(&path, [b's'; 32]).expect("it can be written");
    std::os::unix::fs::chown(&path, Some(0), Some(NOBODY)).expect("root may");
    for (mode, is_taken) in [(0o440, true), (0o640, true), (0o444, false), (0o460, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("root may");
        let output = Command::new(env!("CARGO_BIN_EXE_henge"))
            .args(["config", "check", "--set"])
            .arg(format!("cluster.secret_file={}", path.display()))
            .env_clear()
            .uid(NOBODY)
            .gid(NOBODY)
            .output();
        let Ok(output) = output else {
            eprintln!("the binary is in a folder that nobody else may enter");
            break;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_taken, "{mode:o}: {said}");
    }
    fs::remove_file(&path).expect("it is ours");
}
