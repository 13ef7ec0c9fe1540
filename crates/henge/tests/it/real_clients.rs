//! Clients that others wrote, against a node in a process of its own: redis-cli, redis-benchmark, redis-py, ioredis and the
//! crate `redis`, each with what programs do with it. Where one is not installed the test says so on standard error;
//! `.ci/run` installs them. What the commands answer byte for byte is the matter of [`crate::side_by_side`].

mod redis_rs;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::{env, thread};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{DEADLINE, Process, installed, skipped};

/// A node, started for one client.
pub(crate) fn start() -> Process {
    Process::start(Process::command(&[]))
}

const NOTHING_TRIED: &str = "nothing was tried with it";

/// Runs a command to its end.
fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // It may not want all of it.
    let sender = thread::spawn(move || stdin.write_all(&input));
    let pid = Pid::from_child(&child);
    let (done, output) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    // A script is not one thing that is waited for, but all that a client does, over several nodes.
    let Ok(output) = output.recv_timeout(4 * DEADLINE) else {
        let _ = kill_process(pid, Signal::KILL);
        panic!("{command:?} does not end");
    };
    let _ = sender.join().expect("it does not panic");
    output.expect("its output can be read")
}

/// What a command printed, one stream after the other, for whoever reads why a test failed.
fn printed(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Whether a program starts and ends well.
fn is_there(command: &mut Command) -> bool {
    let output = command.stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

/// Runs a script, which lies beside these tests, with words; it says "ok" at its end.
pub(crate) fn run_script(mut command: Command, script: &str, words: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it")
        .join(script);
    let output = run(command.arg(path).args(words), b"");
    assert!(
        output.status.success() && output.stdout == b"ok\n",
        "{script}: {}\n{}",
        output.status,
        printed(&output)
    );
}

/// Where a language looks for its modules: as this process was told, or else where `.ci/run` installs them.
fn module_paths(variable: &str, tool: &str, below: &str) -> Vec<Option<OsString>> {
    let installed = installed(tool).map(|folder| folder.join(below).into_os_string());
    let mut paths = vec![env::var_os(variable)];
    paths.extend(installed.map(Some));
    paths
}

/// What runs a script of a language with a client in it, if that is there; what `.ci/run` has installed must be of use.
fn interpreter(
    client: &str,
    paths: Vec<Option<OsString>>,
    command: impl Fn(Option<OsString>) -> Command,
    import: [&str; 2],
) -> Option<Command> {
    let found = paths
        .into_iter()
        .find(|path| is_there(command(path.clone()).args(import)));
    if found.is_none() {
        if let Some(folder) = installed(client) {
            panic!("{} is there and cannot be imported", folder.display());
        }
        skipped(client, NOTHING_TRIED);
    }
    found.map(command)
}

/// Python with redis-py.
pub(crate) fn python() -> Option<Command> {
    let python = |path: Option<OsString>| {
        let mut command = Command::new("python3");
        // A warning is a call that will soon not be there.
        command.args(["-B", "-W", "error"]);
        command.envs(path.map(|path| ("PYTHONPATH", path)));
        command
    };
    let paths = module_paths("PYTHONPATH", "redis-py", "");
    interpreter("redis-py", paths, python, ["-c", "import redis"])
}

/// Node.js with ioredis.
pub(crate) fn javascript() -> Option<Command> {
    let node = |path: Option<OsString>| {
        let mut command = Command::new("node");
        command.envs(path.map(|path| ("NODE_PATH", path)));
        command
    };
    let paths = module_paths("NODE_PATH", "ioredis", "node_modules");
    interpreter("ioredis", paths, node, ["-e", "require('ioredis')"])
}

#[test]
fn redis_py() {
    if let Some(python) = python() {
        let node = start();
        let port = node.address.port().to_string();
        run_script(python, "real_clients/redis_py.py", &[port]);
    }
}

#[test]
fn ioredis() {
    if let Some(javascript) = javascript() {
        let node = start();
        let port = node.address.port().to_string();
        run_script(javascript, "real_clients/ioredis.js", &[port]);
    }
}

/// A program of the package redis-tools, if it is there, pointed at a node.
fn tool(name: &str) -> Option<impl Fn(SocketAddr) -> Command> {
    let program = PathBuf::from(name);
    if !is_there(Command::new(&program).arg("--version")) {
        skipped(name, NOTHING_TRIED);
        return None;
    }
    Some(move |address: SocketAddr| {
        let mut command = Command::new(&program);
        // No password and no settings of whoever runs the tests.
        command
            .env_remove("REDISCLI_AUTH")
            .env("REDISCLI_RCFILE", "/dev/null")
            .args(["-h", "127.0.0.1", "-p", &address.port().to_string()]);
        command
    })
}

#[test]
fn redis_benchmark() {
    let Some(benchmark) = tool("redis-benchmark") else {
        return;
    };
    let node = start();
    for more in [&[][..], &["-3"], &["-r", "1000", "-d", "100", "-c", "50"]] {
        let output = run(
            benchmark(node.address)
                .args(["-t", "set,get,incr,mset,ping_inline,ping_mbulk"])
                .args(["-n", "20000", "-P", "16", "-c", "20", "--csv"])
                .args(more),
            b"",
        );
        let printed = printed(&output);
        assert!(output.status.success(), "{more:?}: {printed}");
        // Of the heading only its beginning: what is measured differs from version to version. An error would stand in
        // between, or on the other stream.
        let rows: Vec<&str> = printed
            .lines()
            .filter_map(|line| line.split(',').next())
            .collect();
        let expected = [
            "\"test\"",
            "\"PING_INLINE\"",
            "\"PING_MBULK\"",
            "\"SET\"",
            "\"GET\"",
            "\"INCR\"",
            "\"MSET (10 keys)\"",
        ];
        assert_eq!(rows, expected, "{more:?}: {printed}");
    }
    // Any command, with numbers put into it; alone, in no pipeline.
    let output = run(
        benchmark(node.address)
            .args(["-n", "2000", "-r", "100", "--csv"])
            .args(["SET", "any:__rand_int__", "v", "EX", "100"]),
        b"",
    );
    assert!(output.status.success(), "{}", printed(&output));
    assert_eq!(output.stderr, b"", "{}", printed(&output));
}

/// The arguments, the input, and what is printed, in this order on one node.
const CLI: &[(&[&str], &str, &str)] = &[
    (&["PING"], "", "PONG\n"),
    (&["-3", "PING"], "", "PONG\n"),
    (&["SET", "k", "a value"], "", "OK\n"),
    (&["GET", "k"], "", "a value\n"),
    (&["--no-raw", "GET", "k"], "", "\"a value\"\n"),
    (&["--no-raw", "GET", "none"], "", "(nil)\n"),
    (&["-3", "--no-raw", "GET", "none"], "", "(nil)\n"),
    (&["--no-raw", "EXISTS", "k"], "", "(integer) 1\n"),
    (&["--json", "GET", "none"], "", "null\n"),
    (&["--json", "MGET", "k", "none"], "", "[\"a value\",null]\n"),
    (&["--csv", "MGET", "k", "none"], "", "\"a value\",NULL\n"),
    (&["-r", "3", "INCR", "n"], "", "1\n2\n3\n"),
    (
        &["--quoted-input", "SET", r#""b\x00\r\n""#, "v"],
        "",
        "OK\n",
    ),
    (&["--no-raw", "KEYS", "b*"], "", "1) \"b\\x00\\r\\n\"\n"),
    // The last argument comes from the input, or a marked one.
    (&["-x", "SET", "x"], "line\nline", "OK\n"),
    (&["GET", "x"], "", "line\nline\n"),
    (
        &["-X", "here", "SET", "x", "here", "EX", "100"],
        "y",
        "OK\n",
    ),
    (&["STRLEN", "x"], "", "1\n"),
    // Commands from the input.
    (
        &[],
        "SET t x\nINCR t\nINCRBY n 39\nGET \"t\"\nFOO\n",
        "OK\nERR value is not an integer or out of range\n\n42\nx\n\
         ERR unknown command 'FOO', with args beginning with: \n\n",
    ),
    (&["-3"], "SET t x\nGET t\n", "OK\nx\n"),
    (
        &["SUBSCRIBE", "c"],
        "",
        "ERR unknown command 'SUBSCRIBE', with args beginning with: 'c' \n\n",
    ),
    (
        &["CLIENT", "SETNAME", "a b"],
        "",
        "ERR Client names cannot contain spaces, newlines or special characters.\n\n",
    ),
    (&["--no-raw", "OBJECT", "ENCODING", "n"], "", "\"int\"\n"),
    (&["CONFIG", "GET", "appendonly"], "", "appendonly\nyes\n"),
    (&["FLUSHALL", "ASYNC"], "", "OK\n"),
    (&["DBSIZE"], "", "0\n"),
];

#[test]
fn redis_cli() {
    let Some(cli) = tool("redis-cli") else {
        return;
    };
    let node = start();
    let call = |arguments: &[&str], input: &str| {
        let output = run(cli(node.address).args(arguments), input.as_bytes());
        assert_eq!(output.stderr, b"", "{arguments:?}: {}", printed(&output));
        assert!(output.status.success(), "{arguments:?}: {}", output.status);
        String::from_utf8(output.stdout).expect("text")
    };
    for (arguments, input, expected) in CLI {
        assert_eq!(call(arguments, input), *expected, "{arguments:?} {input:?}");
    }

    let url = format!("redis://127.0.0.1:{}/0", node.address.port());
    assert_eq!(call(&["-u", &url, "ECHO", "a"], ""), "a\n");
    for version in ["-2", "-3"] {
        let info = call(&[version, "INFO", "server"], "");
        assert!(info.starts_with("# Server\r\nredis_version:"), "{info}");
    }
    let hello = call(&["--json", "HELLO", "3"], "");
    let hello: serde_json::Value = serde_json::from_str(&hello).expect("JSON");
    assert_eq!(hello["proto"], 3);
    let failed = run(cli(node.address).args(["-e", "GET"]), b"");
    assert_eq!(failed.status.code(), Some(1), "{}", printed(&failed));

    // Mass insertion: requests as they go over the wire, whose replies are counted.
    let mut requests = String::new();
    for number in 0..10_000 {
        let key = format!("mass:{number}");
        let _ = write!(
            requests,
            "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$10\r\n0123456789\r\n",
            key.len()
        );
    }
    requests += "*2\r\n$4\r\nINCR\r\n$6\r\nmass:0\r\n*1\r\n$3\r\nFOO\r\n";
    let output = run(cli(node.address).arg("--pipe"), requests.as_bytes());
    let summary = "errors: 2, replies: 10002\n";
    assert!(printed(&output).contains(summary), "{}", printed(&output));

    let scanned = call(&["--scan", "--pattern", "mass:12*"], "");
    let mut scanned: Vec<&str> = scanned.lines().collect();
    scanned.sort_unstable();
    scanned.dedup();
    assert_eq!(scanned.len(), 111);
    assert_eq!(call(&["SET", "biggest", &"x".repeat(11)], ""), "OK\n");
    for (option, biggest) in [("--bigkeys", " has 11 bytes"), ("--memkeys", " bytes")] {
        let summary = call(&[option], "");
        for expected in [
            "Sampled 10001 keys in the keyspace!",
            "10001 strings with ",
            "Biggest string found ",
            biggest,
        ] {
            assert!(summary.contains(expected), "{option}: {summary}");
        }
    }
}
