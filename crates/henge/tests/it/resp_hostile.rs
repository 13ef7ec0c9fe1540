//! Clients of the Redis protocol that mean harm, or are broken: each gets an error or is closed, the node's memory stays
//! flat, and the next request is served.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::client::{DEADLINE, Process, node};

/// A connection.
struct Connection(TcpStream);

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the node listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self(stream)
    }

    /// Sends; what the node does not want to read any more may fail to be sent.
    fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.0.write_all(bytes) {
            let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
    }

    /// Reads as many bytes as this text has, and compares what has come after each read: a reply that is another one may be
    /// shorter, and would be waited for in vain.
    fn expect(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        let mut came = 0;
        while came < bytes.len() {
            let read = self.0.read(&mut bytes[came..]).expect("a reply comes");
            came += read;
            let (found, expected) = (&bytes[..came], &text.as_bytes()[..came]);
            assert!(
                read > 0 && found == expected,
                "{} is not the begin of {}",
                shown(found),
                shown(text.as_bytes())
            );
        }
    }

    /// Reads a bulk string.
    fn bulk(&mut self) -> String {
        let mut len = 0;
        let mut byte = [0];
        loop {
            self.0.read_exact(&mut byte).expect("a reply comes");
            match byte[0] {
                b'0'..=b'9' => len = len * 10 + usize::from(byte[0] - b'0'),
                b'\n' => break,
                _ => {}
            }
        }
        let mut bytes = vec![0; len + 2];
        self.0.read_exact(&mut bytes).expect("a reply comes");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    /// What comes until the node closes.
    fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The begin of what may be long.
fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(200)].escape_ascii().to_string()
}

fn still_serves(address: SocketAddr) {
    let mut connection = Connection::open(address);
    connection.send(b"*3\r\n$3\r\nSET\r\n$5\r\nalive\r\n$1\r\n1\r\nGET alive\r\n");
    connection.expect("+OK\r\n$1\r\n1\r\n");
}

/// Resident bytes of a process.
fn resident(process: &Process) -> u64 {
    let path = format!("/proc/{}/status", process.child.id());
    let status = std::fs::read_to_string(path).expect("the node runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a size") * 1024
}

#[test]
fn what_is_no_request_is_refused_and_costs_nothing() {
    let process = Process::start(Process::command(&[]));
    still_serves(process.address);
    let before = resident(&process);
    let long = "x".repeat(70_000);
    let cases: Vec<(&str, String, &str)> = vec![
        (
            "400 KB of nested arrays",
            "*1\r\n".repeat(100_000),
            "-ERR Protocol error: expected '$', got '*'\r\n",
        ),
        (
            "a bulk length of 2^63",
            "*2\r\n$3\r\nGET\r\n$9223372036854775808\r\n".to_owned(),
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            "a bulk length past the limit",
            "*2\r\n$3\r\nGET\r\n$67108865\r\n".to_owned(),
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            "a negative bulk length",
            "*2\r\n$3\r\nGET\r\n$-1\r\n".to_owned(),
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            "a million empty arrays",
            "*0\r\n".repeat(1_000_000),
            "-ERR Protocol error: too many empty requests\r\n",
        ),
        (
            "a million empty arrays in an array",
            format!("*1000000\r\n{}", "*0\r\n".repeat(1_000_000)),
            "-ERR Protocol error: expected '$', got '*'\r\n",
        ),
        (
            "a million empty lines",
            format!("PING\r\n{}", "\r\n".repeat(1_000_000)),
            "+PONG\r\n-ERR Protocol error: too many empty requests\r\n",
        ),
        (
            "2^31 words",
            "*2147483648\r\n".to_owned(),
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            "a number that is none",
            "*abc\r\n".to_owned(),
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            "an argument longer than it says",
            "*2\r\n$3\r\nGET\r\n$1\r\nabc\r\n".to_owned(),
            "-ERR Protocol error: expected CRLF after an argument\r\n",
        ),
        (
            "a quote that is not closed",
            "PING\r\nGET \"abc\r\n".to_owned(),
            "+PONG\r\n-ERR Protocol error: unbalanced quotes in request\r\n",
        ),
        (
            "an inline command without an end",
            format!("PING\r\n{long}"),
            "+PONG\r\n-ERR Protocol error: too big inline request\r\n",
        ),
        (
            "a first line without an end",
            long.clone(),
            "-ERR Protocol error: too big inline request\r\n",
        ),
        (
            "a length without an end",
            format!("*{}", "1".repeat(70_000)),
            "-ERR Protocol error: too big mbulk count string\r\n",
        ),
    ];
    for (what, bytes, reply) in cases {
        let mut connection = Connection::open(process.address);
        connection.send(bytes.as_bytes());
        assert_eq!(connection.rest(), reply, "{what}");
        still_serves(process.address);
    }
    let after = resident(&process);
    assert!(after < before + (4 << 20), "{before} bytes grew to {after}");
}

/// Who announces much and sends little is given little, and not for ever.
#[test]
fn requests_that_do_not_end() {
    let process = Process::start(Process::command(&["--set", "limits.body_timeout_ms=200"]));
    still_serves(process.address);
    let before = resident(&process);
    let mut connections: Vec<Connection> = (0..100)
        .map(|_| {
            let mut connection = Connection::open(process.address);
            connection.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$67108864\r\nabc");
            connection
        })
        .collect();
    for connection in &mut connections {
        assert_eq!(connection.rest(), "");
    }
    let after = resident(&process);
    assert!(
        after < before + (16 << 20),
        "{before} bytes grew to {after}"
    );
    still_serves(process.address);
}

/// Every way to cut a pipeline into pieces gives the same replies.
#[test]
fn requests_in_pieces() {
    let node = node(&[]);
    let input = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nhello\r\nPING\r\n\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$3\r\nFOO\r\n";
    let output =
        "+OK\r\n+PONG\r\n$5\r\nhello\r\n-ERR unknown command 'FOO', with args beginning with: \r\n";
    for cut in 1..input.len() {
        let mut connection = Connection::open(node.local_addr());
        connection.send(&input[..cut]);
        connection.send(&input[cut..]);
        connection.expect(output);
    }
    let mut connection = Connection::open(node.local_addr());
    for byte in input {
        connection.send(&[*byte]);
    }
    connection.expect(output);
}

/// A pipeline is answered in bounded memory, however deep it is and whether or not its client reads.
#[test]
fn a_client_that_never_reads() {
    let process = Process::start(Process::command(&[
        "--set",
        "limits.write_timeout_ms=300",
        "--set",
        "compression.algorithm=none",
    ]));
    let mut connection = Connection::open(process.address);
    let value = "v".repeat(100_000);
    connection.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n{value}\r\n").as_bytes());
    connection.expect("+OK\r\n");
    let before = resident(&process);
    // A hundred thousand copies would be 10 GB.
    let pipeline = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".repeat(100_000);
    connection.send(&pipeline);
    // It is closed for not reading, which is seen without reading.
    let mut closed = [PollFd::new(&connection.0, PollFlags::RDHUP)];
    let deadline = Timespec::try_from(DEADLINE).expect("a time");
    assert_eq!(poll(&mut closed, Some(&deadline)), Ok(1));
    let after = resident(&process);
    assert!(
        after < before + (16 << 20),
        "{before} bytes grew to {after}"
    );
    still_serves(process.address);
}

/// A deep pipeline whose client reads is answered in full, and in order.
#[test]
fn a_deep_pipeline() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr());
    let mut reader = Connection(connection.0.try_clone().expect("a socket"));
    let sender = std::thread::spawn(move || {
        for n in 0..100_000 {
            let value = n.to_string();
            let set = format!(
                "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
                value.len()
            );
            connection.send(set.as_bytes());
        }
        connection.0.shutdown(Shutdown::Write).expect("a socket");
    });
    for n in 0..100_000 {
        let value = n.to_string();
        reader.expect(&format!("+OK\r\n${}\r\n{value}\r\n", value.len()));
    }
    assert_eq!(reader.rest(), "");
    sender.join().expect("it was all sent");
}

/// Requests beyond what the node may hold are refused, and others are served meanwhile.
#[test]
fn requests_beyond_the_bytes_in_flight() {
    let node = node(&[
        ("limits.max_inflight_bytes", "2MiB"),
        ("limits.max_body_bytes", "1MiB"),
        ("limits.max_value_bytes", "1MiB"),
    ]);
    let half = vec![b'v'; 1_000_000];
    let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048576\r\n";
    let mut connections: Vec<Connection> = (0..4)
        .map(|_| {
            let mut connection = Connection::open(node.local_addr());
            connection.send(head);
            connection.send(&half);
            connection
        })
        .collect();
    // Four times a megabyte is not to be had: one of them is told so at the least.
    let refused = {
        let wait = |connection| PollFd::new(connection, PollFlags::IN);
        let mut all: Vec<PollFd<'_>> = connections.iter().map(|c| wait(&c.0)).collect();
        let deadline = Timespec::try_from(DEADLINE).expect("a time");
        assert!(poll(&mut all, Some(&deadline)).is_ok_and(|ready| ready > 0));
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        all.iter().position(is_ready).expect("one is ready")
    };
    let reply = "-OOM requests hold limits.max_inflight_bytes, or of its address limits.max_inflight_bytes_per_address; the connection is closed\r\n";
    connections[refused].expect(reply);
    still_serves(node.local_addr());
    for mut connection in connections {
        // It may be closed already.
        let _ = connection.0.shutdown(Shutdown::Write);
        connection.rest();
    }
    let mut connection = Connection::open(node.local_addr());
    connection.send(head);
    connection.send(&vec![b'v'; 1_048_576]);
    connection.send(b"\r\n");
    connection.expect("+OK\r\n");
}

/// What a command keeps of its request while it works counts beside the request itself.
#[test]
fn copies_beyond_the_bytes_in_flight() {
    let node = node(&[
        ("limits.max_inflight_bytes", "2MiB"),
        ("limits.max_body_bytes", "2MiB"),
        ("limits.max_value_bytes", "1MiB"),
        ("compression.algorithm", "none"),
    ]);
    let value = "v".repeat(700_000);
    let refused = "-OOM requests and replies hold limits.max_inflight_bytes, or of its address limits.max_inflight_bytes_per_address; there is no room to work on this one\r\n";
    let half = "v".repeat(400_000);
    for (words, reply) in [
        (&["SET", "k", &value][..], "+OK\r\n"),
        (&["MSET", "a", &half, "b", &half], "+OK\r\n"),
        (&["MSET", "a", &value, "b", &value], refused),
        (
            &["MSETNX", "{c}a", &half, "{c}b", &half, "{c}c", &half],
            refused,
        ),
        (&["SETRANGE", "k", "300000", &value], refused),
        (&["SETRANGE", "k", "0", "abc"], ":700000\r\n"),
        (&["APPEND", "none", &value], refused),
        (&["EXISTS", "{c}a", "{c}b", "none"], ":0\r\n"),
        (&[&["EXISTS"][..], &vec!["a"; 1_500]].concat(), ":1500\r\n"),
        (&[&["EXISTS"][..], &vec!["a"; 150_000]].concat(), refused),
        (&[&["UNLINK"][..], &vec!["a"; 1_500]].concat(), ":1\r\n"),
    ] {
        let mut connection = Connection::open(node.local_addr());
        connection.send(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            connection.send(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        connection.expect(reply);
        // What it held is given back before it is closed.
        connection.0.shutdown(Shutdown::Write).expect("a socket");
        assert_eq!(connection.rest(), "", "{}", words[0]);
    }
}

/// Parsing a pattern holds its thread, so one that no key could need is not parsed.
#[test]
fn patterns_beyond_the_longest() {
    let node = node(&[]);
    let longest = "*".repeat(262_144);
    let longer = "*".repeat(262_145);
    for (words, reply) in [
        (&["KEYS"][..], "*0\r\n"),
        (&["SCAN", "0", "MATCH"], "*2\r\n$1\r\n0\r\n*0\r\n"),
        (&["CONFIG", "GET", "x"], "*"),
        (&["COMMAND", "LIST", "FILTERBY", "PATTERN"], "*"),
    ] {
        for (pattern, reply) in [
            (&longer, "-ERR a pattern has at most 262144 bytes\r\n"),
            (&longest, reply),
        ] {
            // Not all of a reply is read.
            let mut connection = Connection::open(node.local_addr());
            connection.send(format!("*{}\r\n", words.len() + 1).as_bytes());
            for word in words.iter().chain([&pattern.as_str()]) {
                connection.send(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
            }
            connection.expect(reply);
        }
    }
}

/// Names are kept and shown often, and errors are written to logs: neither is as long as a client likes.
#[test]
fn long_words_are_not_kept_or_repeated() {
    let node = node(&[]);
    let mut connection = Connection::open(node.local_addr());
    let long = "z".repeat(1_025);
    let name = &long[1..];
    let shown = &long[..128];
    let too_long = "-ERR what a client is called has at most 1024 bytes".to_owned();
    for (words, reply) in [
        (&["CLIENT", "SETNAME", name][..], "+OK".to_owned()),
        (&["CLIENT", "SETNAME", &long], too_long.clone()),
        (&["CLIENT", "SETINFO", "LIB-NAME", &long], too_long.clone()),
        (&["CLIENT", "SETINFO", "LIB-VER", &long], too_long.clone()),
        (&["HELLO", "2", "SETNAME", &long], too_long),
        (&["CLIENT", "GETNAME"], format!("$1024\r\n{name}")),
        (
            &["EXPIRE", "k", "1", &long],
            format!("-ERR Unsupported option {shown}"),
        ),
        (
            &["SCAN", "0", "TYPE", &long],
            format!("-ERR unknown type name '{shown}'"),
        ),
        (
            &["CLIENT", "SETINFO", &long, "x"],
            format!("-ERR Unrecognized option '{shown}'"),
        ),
        (
            &["CLIENT", "LIST", "USER", &long],
            format!("-ERR No such user '{shown}'"),
        ),
        (
            &["CLIENT", "LIST", "TYPE", &long],
            format!("-ERR Unknown client type '{shown}'"),
        ),
        (
            &["CLIENT", "LIST", "FLAGS", &long],
            format!("-ERR Unknown flags found in the provided filter: {shown}"),
        ),
        (
            &["LATENCY", "GRAPH", &long],
            format!("-ERR No samples available for event '{shown}'"),
        ),
        (
            &["HELLO", "2", &long],
            format!("-ERR Syntax error in HELLO option '{shown}'"),
        ),
        (
            &["CONFIG", "SET", &long, "x"],
            format!("-ERR Unknown option or number of arguments for CONFIG SET - '{shown}'"),
        ),
    ] {
        connection.send(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            connection.send(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        connection.expect(&(reply + "\r\n"));
    }
}

/// When `CLIENT KILL` has answered, nothing more of that client is run.
#[test]
fn a_killed_client_is_not_served() {
    let node = node(&[]);
    let mut other = Connection::open(node.local_addr());
    for _ in 0..500 {
        let mut killed = Connection::open(node.local_addr());
        killed.send(b"PING\r\n");
        killed.expect("+PONG\r\n");
        let address = killed.0.local_addr().expect("a socket");
        other.send(format!("CLIENT KILL ADDR {address}\r\n").as_bytes());
        other.expect(":1\r\n");
        killed.send(b"SET late 1\r\n");
        assert_eq!(killed.rest(), "");
        other.send(b"EXISTS late\r\n");
        other.expect(":0\r\n");
    }
}

/// A client that takes no replies is killed all the same.
#[test]
fn a_killed_client_that_never_reads() {
    let node = node(&[
        ("limits.write_timeout_ms", "3600000"),
        ("compression.algorithm", "none"),
    ]);
    let mut other = Connection::open(node.local_addr());
    let mut killed = Connection::open(node.local_addr());
    let value = "v".repeat(100_000);
    killed.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n{value}\r\n").as_bytes());
    killed.expect("+OK\r\n");
    killed.send(&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".repeat(10_000));
    // Some bytes are there: it is being answered, and more than a socket holds.
    killed.expect("$100000\r\n");
    let address = killed.0.local_addr().expect("a socket");
    other.send(format!("CLIENT KILL ADDR {address}\r\n").as_bytes());
    other.expect(":1\r\n");
    let mut closed = [PollFd::new(&killed.0, PollFlags::RDHUP)];
    let deadline = Timespec::try_from(DEADLINE).expect("a time");
    assert_eq!(
        poll(&mut closed, Some(&deadline)),
        Ok(1),
        "it is not closed"
    );
}

/// What a request held is given back with its reply, not with its connection.
#[test]
fn large_requests_are_held_no_longer_than_they_take() {
    let node = node(&[("compression.algorithm", "none")]);
    let value = vec![b'v'; 5 << 20];
    let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", value.len());
    let mut connections: Vec<Connection> = (0..3)
        .map(|_| Connection::open(node.local_addr()))
        .collect();
    for connection in &mut connections {
        connection.send(head.as_bytes());
        connection.send(&value);
        // The next request has begun when the reply comes, and is small.
        connection.send(b"\r\n*1\r\n");
        connection.expect("+OK\r\n");
    }
    let metrics = crate::client::Client::connect(node.local_addr())
        .get("/metrics")
        .text();
    assert!(
        metrics.contains("\nhenge_in_flight_bytes 0.0\n"),
        "{metrics}"
    );
}

/// Inline commands are answered in steps as others are, though each of their replies is large.
#[test]
fn a_pipeline_of_inline_commands_is_bounded_as_others_are() {
    let node = node(&[
        ("limits.max_inflight_bytes", "32MiB"),
        ("limits.max_body_bytes", "16MiB"),
        ("limits.max_value_bytes", "16MiB"),
        ("compression.algorithm", "none"),
    ]);
    let mut connection = Connection::open(node.local_addr());
    let value = "v".repeat(1 << 20);
    let reply = format!("${}\r\n{value}\r\n", value.len());
    connection.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n{reply}").as_bytes());
    connection.expect("+OK\r\n");
    connection.send(&b"GET k\n".repeat(200));
    for _ in 0..200 {
        connection.expect(&reply);
    }
    // Empty requests behind replies that have to be sent first are counted once.
    connection.send(
        &[
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
            &b"*0\r\n".repeat(600)[..],
        ]
        .concat(),
    );
    connection.expect(&reply);
    connection.send(b"PING\r\n");
    connection.expect("+PONG\r\n");
}

/// A client that closes while its command waits, or while all wait, is noticed.
#[test]
fn clients_that_leave_while_they_wait() {
    let node = node(&[]);
    let mut watcher = Connection::open(node.local_addr());
    let mut count = |until: &str| {
        // The end of a connection comes by itself; this asks until it has come.
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            watcher.send(b"CLIENT LIST\r\n");
            let list = watcher.bulk();
            let clients = list.lines().filter(|line| line.contains(until)).count();
            if clients == 0 {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{list}");
            std::thread::yield_now();
        }
    };
    for command in ["WAIT 1 0\r\n", "WAIT 1 0\r\nPING\r\n"] {
        let mut connection = Connection::open(node.local_addr());
        connection.send(b"CLIENT SETNAME waiter\r\n");
        connection.expect("+OK\r\n");
        connection.send(command.as_bytes());
        drop(connection);
        count("name=waiter ");
    }
    let mut pauser = Connection::open(node.local_addr());
    pauser.send(b"CLIENT PAUSE 600000 WRITE\r\n");
    pauser.expect("+OK\r\n");
    let mut connection = Connection::open(node.local_addr());
    connection.send(b"CLIENT SETNAME paused\r\n");
    connection.expect("+OK\r\n");
    connection.send(b"SET a 1\r\n");
    drop(connection);
    count("name=paused ");
}

/// What has come when the node is told to stop is answered, also if it takes many steps.
#[test]
fn a_pipeline_is_answered_to_its_end_when_the_node_stops() {
    let process = Process::start(Process::command(&["--set", "compression.algorithm=none"]));
    let mut connection = Connection::open(process.address);
    let value = "v".repeat(1 << 20);
    let reply = format!("${}\r\n{value}\r\n", value.len());
    connection.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n{reply}").as_bytes());
    connection.expect("+OK\r\n");
    connection.send(&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".repeat(100));
    // All requests have come when the first reply does: they fit one read.
    connection.expect(&reply);
    process.signal(rustix::process::Signal::TERM);
    for _ in 1..100 {
        connection.expect(&reply);
    }
    assert_eq!(connection.rest(), "");
    assert_eq!(process.wait().0, Some(0));
}

/// A page in a browser can have it send requests to any port. Their bodies are not run.
#[test]
fn http_on_a_port_of_the_redis_protocol_ends_it() {
    let node = node(&[("server.resp_listen", "127.0.0.1:0")]);
    let resp = node.resp_addr().expect("it listens");
    for request in [
        "POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a 1\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a 1\r\n",
    ] {
        let mut connection = Connection::open(resp);
        connection.send(request.as_bytes());
        let came = connection.rest();
        assert!(!came.contains("+OK"), "{came}");
    }
    let mut connection = Connection::open(resp);
    connection.send(b"GET a\r\n");
    connection.expect("$-1\r\n");
}
