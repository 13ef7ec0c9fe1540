//! The attackers of `bench hostile`, in a process of their own that does one of five things from an address of its own until its
//! input ends, and then says how much of it. It looks at its sockets once a millisecond and never waits for one, so that it takes
//! little of the CPU that it shares with the load of others.

use super::super::Result;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Where all of it comes from; the load of others comes from 127.0.0.1.
const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// How often sockets are looked at.
const STEP: Duration = Duration::from_millis(1);

/// A value that is there, of [`BIG_BYTES`].
pub(super) const BIG_KEY: &str = "big";
pub(super) const BIG_BYTES: usize = 1 << 20;

/// What one attack does in a step, and what it has done.
pub(super) trait Attack {
    fn step(&mut self) -> io::Result<()>;

    /// Whether all of it has begun.
    fn is_under_way(&self) -> bool {
        true
    }

    fn done(&self) -> String;
}

pub(super) type New = fn(SocketAddr) -> Box<dyn Attack>;

/// All attacks: their names and what makes them.
pub(super) const ATTACKS: [(&str, New); 5] = [
    ("slowloris", |to| Box::new(Slowloris::new(to))),
    ("flood", |to| Box::new(Flood::new(to))),
    ("never_reads", |to| Box::new(NeverReads::new(to))),
    ("huge_length", |to| Box::new(HugeLength::new(to))),
    ("million_commands", |to| Box::new(MillionCommands::new(to))),
];

/// What the process says once all of its attack has begun.
pub(super) const UNDER_WAY: &str = "under way";

/// Attacks a node until the input ends.
pub(in super::super) fn attack(arguments: &[String]) -> Result<()> {
    let [name, to] = arguments else {
        return Err("expected an attack and an address".into());
    };
    let (_, new) = ATTACKS
        .iter()
        .find(|(known, _)| known == name)
        .ok_or_else(|| format!("there is no attack {name:?}"))?;
    let mut attack = new(to.parse()?);
    let ends = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ends);
    thread::spawn(move || {
        // Whatever ends the input ends the attack.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    let mut is_told = false;
    let mut due = Instant::now();
    let mut steps = 0_u64;
    let begun = Instant::now();
    while !ends.load(Ordering::Relaxed) {
        attack.step()?;
        steps += 1;
        if !is_told && attack.is_under_way() {
            is_told = true;
            println!("{UNDER_WAY}");
        }
        due += STEP;
        let now = Instant::now();
        match due.checked_duration_since(now) {
            Some(early) => thread::park_timeout(early),
            // What was missed is not made up for.
            None => due = now,
        }
    }
    let each = begun.elapsed().as_secs_f64() * 1e3 / steps.max(1) as f64;
    println!("{}, a step each {each:.2} ms", attack.done());
    Ok(())
}

/// Which protocol a connection speaks; they take turns.
#[derive(Clone, Copy)]
enum Protocol {
    Resp,
    Http,
}

fn protocol(number: usize) -> Protocol {
    if number.is_multiple_of(2) {
        Protocol::Resp
    } else {
        Protocol::Http
    }
}

/// A connection that waits for nothing, and leaves no trace in the system when it is dropped.
struct Client(TcpStream);

/// What became of bytes that were to be sent.
enum Sent {
    /// So many were taken.
    Some(usize),
    /// The node has closed the connection.
    Gone,
}

impl Client {
    /// Opens one, with room for few bytes that come if there is a bound for that.
    fn open(to: SocketAddr, room: Option<usize>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        // Ports are not kept for minutes after it.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        if let Some(room) = room {
            sockopt::set_socket_recv_buffer_size(&socket, room)?;
        }
        bind(&socket, &SocketAddr::from((FROM, 0)))?;
        match connect(&socket, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(Self(TcpStream::from(socket))),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Sent {
        match self.0.write(bytes) {
            Ok(sent) => Sent::Some(sent),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Some(0),
            Err(_) => Sent::Gone,
        }
    }

    /// Reads what has come and throws it away; how much that was, and whether there will be more.
    fn read_all(&mut self, buffer: &mut [u8]) -> (u64, bool) {
        let mut came = 0;
        loop {
            match self.0.read(buffer) {
                Ok(0) => return (came, false),
                Ok(read) => came += read as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (came, true),
                Err(_) => return (came, false),
            }
        }
    }
}

/// Requests that come a byte at a time, over many connections: heads of HTTP and values of the Redis protocol.
struct Slowloris {
    to: SocketAddr,
    clients: Vec<(Client, usize)>,
    turn: usize,
    sent: u64,
    cut: u64,
}

impl Slowloris {
    const CONNECTIONS: usize = 2_000;
    /// Connections that send a byte in each step: each sends one twice a second.
    const IN_STEP: usize = 4;

    fn new(to: SocketAddr) -> Self {
        Self {
            to,
            clients: Vec::with_capacity(Self::CONNECTIONS),
            turn: 0,
            sent: 0,
            cut: 0,
        }
    }

    fn byte(number: usize, at: usize) -> u8 {
        let head: &[u8] = match protocol(number) {
            Protocol::Resp => b"*3\r\n$3\r\nSET\r\n$4\r\nslow\r\n$1000000\r\n",
            Protocol::Http => b"GET /get?key=slow HTTP/1.1\r\nhost: localhost\r\nx: ",
        };
        head.get(at).copied().unwrap_or(b'a')
    }
}

impl Attack for Slowloris {
    fn step(&mut self) -> io::Result<()> {
        for _ in 0..Self::IN_STEP {
            if self.clients.len() < Self::CONNECTIONS {
                self.clients.push((Client::open(self.to, None)?, 0));
            }
            let number = self.turn % self.clients.len();
            self.turn += 1;
            let (client, at) = &mut self.clients[number];
            match client.send(&[Self::byte(number, *at)]) {
                Sent::Some(sent) => {
                    *at += sent;
                    self.sent += sent as u64;
                }
                Sent::Gone => {
                    self.clients[number] = (Client::open(self.to, None)?, 0);
                    self.cut += 1;
                }
            }
        }
        Ok(())
    }

    fn is_under_way(&self) -> bool {
        self.clients.len() == Self::CONNECTIONS
    }

    fn done(&self) -> String {
        let Self { sent, cut, .. } = self;
        format!("{sent} bytes, one at a time; {cut} connections were cut off")
    }
}

/// Connections as fast as may be, until there are as many as there may be from one address and some more; then all break off, and
/// it begins anew. Some say nothing, some ask something and do not look at the answer.
struct Flood {
    to: SocketAddr,
    clients: Vec<Client>,
    breaks_off: bool,
    opened: u64,
    rounds: u64,
}

impl Flood {
    const CONNECTIONS: usize = 10_000;
    const BEYOND: usize = 500;
    /// Opened in each step.
    const IN_STEP: usize = 5;
    /// Broken off in each step.
    const OFF_IN_STEP: usize = 50;

    fn new(to: SocketAddr) -> Self {
        Self {
            to,
            clients: Vec::with_capacity(Self::CONNECTIONS + Self::BEYOND),
            breaks_off: false,
            opened: 0,
            rounds: 0,
        }
    }
}

impl Attack for Flood {
    fn step(&mut self) -> io::Result<()> {
        if self.breaks_off {
            let left = self.clients.len().saturating_sub(Self::OFF_IN_STEP);
            self.clients.truncate(left);
            self.breaks_off = left > 0;
            return Ok(());
        }
        for _ in 0..Self::IN_STEP {
            let mut client = Client::open(self.to, None)?;
            self.opened += 1;
            let says: &[u8] = match self.opened % 3 {
                0 => b"PING\r\n",
                1 => b"GET /get?key=none HTTP/1.1\r\nhost: localhost\r\n\r\n",
                _ => b"",
            };
            // It may be refused already.
            let _ = client.send(says);
            self.clients.push(client);
        }
        if self.clients.len() >= Self::CONNECTIONS + Self::BEYOND {
            self.breaks_off = true;
            self.rounds += 1;
        }
        Ok(())
    }

    fn done(&self) -> String {
        let Self { opened, rounds, .. } = self;
        format!(
            "{opened} connections opened, {rounds} times all of {}",
            Self::CONNECTIONS + Self::BEYOND
        )
    }
}

/// Clients that ask for a large value over and over and read nothing. After a while each is another.
struct NeverReads {
    to: SocketAddr,
    clients: VecDeque<Client>,
    steps: usize,
    asked: usize,
}

impl NeverReads {
    const CONNECTIONS: usize = 128;
    /// Steps from one new client to the next: each lives for a second.
    const STEPS: usize = 8;
    /// What a system makes of this is little more; the rest stays with the node.
    const ROOM: usize = 4096;
    const REQUESTS: usize = 200;

    fn new(to: SocketAddr) -> Self {
        Self {
            to,
            clients: VecDeque::new(),
            steps: 0,
            asked: 0,
        }
    }
}

impl Attack for NeverReads {
    fn step(&mut self) -> io::Result<()> {
        let is_due = self.steps.is_multiple_of(Self::STEPS);
        self.steps += 1;
        if self.clients.len() == Self::CONNECTIONS {
            if !is_due {
                return Ok(());
            }
            self.clients.pop_front();
        }
        let mut client = Client::open(self.to, Some(Self::ROOM))?;
        let one = match protocol(self.asked) {
            Protocol::Resp => format!("*2\r\n$3\r\nGET\r\n${}\r\n{BIG_KEY}\r\n", BIG_KEY.len()),
            Protocol::Http => format!("GET /cache/{BIG_KEY} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        };
        let _ = client.send(one.repeat(Self::REQUESTS).as_bytes());
        self.clients.push_back(client);
        self.asked += 1;
        Ok(())
    }

    fn is_under_way(&self) -> bool {
        self.clients.len() == Self::CONNECTIONS
    }

    fn done(&self) -> String {
        format!(
            "{} clients asked {} times for {BIG_BYTES} bytes each and read nothing",
            self.asked,
            Self::REQUESTS
        )
    }
}

/// Requests that say that they are 4 GB long, or as long as may be, and of which some comes.
struct HugeLength {
    to: SocketAddr,
    clients: VecDeque<Client>,
    steps: usize,
    asked: usize,
    sent: usize,
    payload: Vec<u8>,
}

impl HugeLength {
    const CONNECTIONS: usize = 200;
    /// Steps from one to the next.
    const STEPS: usize = 5;
    const PAYLOAD_BYTES: usize = 256 << 10;

    fn new(to: SocketAddr) -> Self {
        Self {
            to,
            clients: VecDeque::new(),
            steps: 0,
            asked: 0,
            sent: 0,
            payload: vec![b'x'; Self::PAYLOAD_BYTES],
        }
    }
}

impl Attack for HugeLength {
    fn step(&mut self) -> io::Result<()> {
        self.steps += 1;
        if !self.steps.is_multiple_of(Self::STEPS) {
            return Ok(());
        }
        let head: &[u8] = match self.asked % 4 {
            0 => b"*3\r\n$3\r\nSET\r\n$4\r\nhuge\r\n$4294967296\r\n",
            1 => {
                b"PUT /cache/huge HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4294967296\r\n\r\n"
            }
            2 => b"*3\r\n$3\r\nSET\r\n$4\r\nhuge\r\n$16777216\r\n",
            _ => b"PUT /cache/huge HTTP/1.1\r\nhost: localhost\r\ncontent-length: 16777216\r\n\r\n",
        };
        let mut client = Client::open(self.to, None)?;
        for bytes in [head, &self.payload] {
            if let Sent::Some(sent) = client.send(bytes) {
                self.sent += sent;
            }
        }
        self.asked += 1;
        self.clients.push_back(client);
        if self.clients.len() > Self::CONNECTIONS {
            self.clients.pop_front();
        }
        Ok(())
    }

    fn done(&self) -> String {
        format!(
            "{} requests announced up to 4 GiB each and sent {} bytes",
            self.asked, self.sent
        )
    }
}

/// A client of each protocol that sends a million commands without a pause, and reads the answers.
struct MillionCommands {
    to: SocketAddr,
    clients: [Option<Pipeline>; 2],
    buffer: Vec<u8>,
    sent: u64,
    read: u64,
    whole: u64,
}

/// What one of them has yet to send.
struct Pipeline {
    client: Client,
    /// Commands, as many as fit; sent over and over.
    piece: Vec<u8>,
    at: usize,
    pieces: usize,
}

impl MillionCommands {
    const COMMANDS: usize = 1_000_000;
    const IN_PIECE: usize = 1_000;

    fn new(to: SocketAddr) -> Self {
        Self {
            to,
            clients: [None, None],
            buffer: vec![0; 256 << 10],
            sent: 0,
            read: 0,
            whole: 0,
        }
    }

    fn begin(to: SocketAddr, number: usize) -> io::Result<Pipeline> {
        let one: &str = match protocol(number) {
            Protocol::Resp => "*2\r\n$3\r\nGET\r\n$16\r\nbench:0000000007\r\n",
            Protocol::Http => "GET /get?key=bench:0000000007 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        };
        Ok(Pipeline {
            client: Client::open(to, None)?,
            piece: one.repeat(Self::IN_PIECE).into_bytes(),
            at: 0,
            pieces: Self::COMMANDS / Self::IN_PIECE,
        })
    }
}

impl Pipeline {
    /// Sends what is taken; how much that was, or none once the node has closed the connection.
    fn send(&mut self) -> Option<u64> {
        let mut all = 0;
        while self.pieces > 0 {
            match self.client.send(&self.piece[self.at..]) {
                Sent::Gone => return None,
                Sent::Some(0) => break,
                Sent::Some(sent) => {
                    all += sent as u64;
                    self.at += sent;
                    if self.at == self.piece.len() {
                        self.at = 0;
                        self.pieces -= 1;
                    }
                }
            }
        }
        Some(all)
    }
}

impl Attack for MillionCommands {
    fn step(&mut self) -> io::Result<()> {
        for (number, slot) in self.clients.iter_mut().enumerate() {
            let pipeline = match slot {
                Some(pipeline) => pipeline,
                None => slot.insert(Self::begin(self.to, number)?),
            };
            let had_all = pipeline.pieces == 0;
            let sent = pipeline.send();
            self.sent += sent.unwrap_or(0);
            if pipeline.pieces == 0 && !had_all {
                // The node ends it when all is answered.
                pipeline.client.0.shutdown(std::net::Shutdown::Write)?;
            }
            let (read, is_open) = pipeline.client.read_all(&mut self.buffer);
            self.read += read;
            if !is_open || sent.is_none() {
                self.whole += u64::from(had_all);
                *slot = None;
            }
        }
        Ok(())
    }

    fn done(&self) -> String {
        let Self {
            sent, read, whole, ..
        } = self;
        format!("{sent} bytes of pipelines, {read} of answers, {whole} pipelines to their end")
    }
}
