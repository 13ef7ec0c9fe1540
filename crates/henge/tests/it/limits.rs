//! What one client, or all of one address, may take of a node: time, memory, length. What each limit holds is seen over real
//! sockets, over HTTP and the Redis protocol, and that others are served meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::client::{Client, DEADLINE, node};

/// A connection from another address of this machine, with little room for what comes.
fn from_elsewhere(to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket");
    let own: SocketAddr = "127.0.0.2:0".parse().expect("an address");
    socket
        .bind(&own.into())
        .expect("an address of this machine");
    socket.connect(&to.into()).expect("the node listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
    stream
}

/// What comes until the node closes, from who may have been cut off while it sent.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A megabyte that came at once holds memory for no longer than a pause may be.
#[test]
fn what_came_at_once_buys_no_time() {
    let node = node(&[("limits.body_timeout_ms", "200")]);
    let much = vec![b'v'; 1 << 20];
    for (head, answer) in [
        (&b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2097152\r\n"[..], ""),
        (
            b"PUT /cache/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2097152\r\n\r\n",
            "HTTP/1.1 408 Request Timeout",
        ),
    ] {
        let mut stream = TcpStream::connect(node.local_addr()).expect("the node listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream.write_all(head).expect("it is read");
        stream.write_all(&much).expect("it is read");
        let came = rest(&mut stream);
        assert_eq!(came.is_empty(), answer.is_empty(), "{came}");
        assert!(came.starts_with(answer), "{came}");
    }
    let stats = Client::connect(node.local_addr()).get("/stats").json();
    assert_eq!(stats["memory"]["in_flight_bytes"], 0);
}

/// Each request has its own time, also where each comes with the beginning of the next.
#[test]
fn requests_that_overlap_are_not_late() {
    const BODY_TIMEOUT: Duration = Duration::from_secs(2);
    let node = node(&[("limits.body_timeout_ms", "2000")]);
    let mut stream = TcpStream::connect(node.local_addr()).expect("the node listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    let request = b"*2\r\n$4\r\nECHO\r\n$1\r\na\r\n";
    let (begin, end) = request.split_at(10);
    stream.write_all(begin).expect("it is read");
    let since = Instant::now();
    while since.elapsed() < BODY_TIMEOUT + BODY_TIMEOUT / 4 {
        stream
            .write_all(&[end, begin].concat())
            .expect("it is read");
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).expect("a reply comes");
        assert_eq!(&reply, b"$1\r\na\r\n");
    }
}

/// Clients of one address that send a part of much, or read nothing of it, hold what an address may, and no more.
#[test]
fn one_address_leaves_room_for_others() {
    let node = node(&[
        ("limits.max_inflight_bytes", "10MiB"),
        ("limits.max_inflight_bytes_per_address", "4MiB"),
        ("limits.max_body_bytes", "2MiB"),
        ("limits.max_value_bytes", "1MiB"),
        ("compression.algorithm", "none"),
    ]);
    let at = node.local_addr();
    let mut other = Client::connect(at);
    let value = vec![b'v'; 1 << 20];
    let is_served = |other: &mut Client| {
        let put = other.request("PUT", "/cache/k", &[], &value);
        assert_eq!(put.status, 204, "{}", put.text());
        assert_eq!(other.get("/cache/k").body.len(), value.len());
        let mut resp = TcpStream::connect(at).expect("the node listens");
        resp.set_read_timeout(Some(DEADLINE)).expect("a socket");
        resp.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048576\r\n")
            .expect("it is read");
        resp.write_all(&value).expect("it is read");
        resp.write_all(b"\r\n").expect("it is read");
        let mut reply = [0; 5];
        resp.read_exact(&mut reply).expect("a reply comes");
        assert_eq!(&reply, b"+OK\r\n");
    };
    is_served(&mut other);

    // Each holds 600 KB and more, so no more than six have room.
    let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048576\r\n";
    let mut senders: Vec<TcpStream> = (0..16).map(|_| from_elsewhere(at)).collect();
    for sender in &mut senders {
        sender.write_all(head).expect("it is read");
        // One that is refused is read to its end as well.
        sender.write_all(&value[..600_000]).expect("it is read");
    }
    let deadline = Timespec::try_from(DEADLINE).expect("a time");
    let begun = Instant::now();
    loop {
        let wait = |sender| PollFd::new(sender, PollFlags::IN);
        let mut all: Vec<PollFd<'_>> = senders.iter().map(wait).collect();
        if poll(&mut all, Some(&deadline)).expect("sockets") >= 10 {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "too few are refused");
        std::thread::yield_now();
    }
    is_served(&mut other);
    drop(senders);

    // An answer is held until it is with the system, which takes some of them.
    let asks = b"GET /cache/k HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    let mut readers: Vec<TcpStream> = (0..16).map(|_| from_elsewhere(at)).collect();
    for reader in &mut readers {
        reader.write_all(&asks).expect("it is read");
    }
    let mut watcher = Client::connect(at);
    let mut in_flight = || {
        let stats = watcher.get("/stats").json();
        stats["memory"]["in_flight_bytes"].as_u64().expect("a size")
    };
    while in_flight() < 1 << 20 {
        assert!(begun.elapsed() < 2 * DEADLINE, "nothing is held");
        std::thread::yield_now();
    }
    is_served(&mut other);
    // What the last answer held may be given back a moment later.
    while in_flight() > 4 << 20 {
        assert!(begun.elapsed() < 3 * DEADLINE, "one address holds too much");
        std::thread::yield_now();
    }
}

/// The system takes little of what a client does not read: it stays where it is counted, and the client gets it when it does.
#[test]
fn what_is_not_read_stays_with_the_node() {
    let node = node(&[("compression.algorithm", "none")]);
    let at = node.local_addr();
    let mut watcher = Client::connect(at);
    let value = vec![b'v'; 1 << 20];
    let put = watcher.request("PUT", "/cache/k", &[], &value);
    assert_eq!(put.status, 204);
    for ask in [
        &b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nQUIT\r\n"[..],
        b"GET /cache/k HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    ] {
        let mut reader = from_elsewhere(at);
        reader.write_all(ask).expect("it is read");
        let begun = Instant::now();
        loop {
            let stats = watcher.get("/stats").json();
            let held = stats["memory"]["in_flight_bytes"].as_u64();
            // A part of it may be with the system.
            if held > Some(512 << 10) {
                break;
            }
            assert!(begun.elapsed() < DEADLINE, "{stats}");
            std::thread::yield_now();
        }
        let came = rest(&mut reader);
        let is_whole = came.contains(&"v".repeat(value.len()));
        assert!(is_whole, "{} bytes came", came.len());
    }
}

#[test]
fn a_head_has_the_length_that_is_set() {
    let node = node(&[("limits.max_header_bytes", "8KiB")]);
    for (bytes, status) in [(7_000, 404), (9_000, 431)] {
        let mut client = Client::connect(node.local_addr());
        let padding = "x".repeat(bytes);
        let response = client.request("GET", "/get?key=a", &[("x-padding", &padding)], b"");
        assert_eq!(response.status, status, "{bytes}");
    }
}
