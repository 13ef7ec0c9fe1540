//! Replies of the Redis protocol, taken apart, for tests that look at more than the bytes.

use std::collections::BTreeMap;

use crate::side_by_side::Connection;

/// A reply, taken apart. Errors keep their mark; what the two protocols write differently keeps its kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Reply {
    Null,
    Integer(i64),
    Text(String),
    Error(String),
    /// The mark, and the parts; of a map its keys and values in turn.
    Parts(char, Vec<Reply>),
}

impl Reply {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let (reply, rest) = Self::first(bytes);
        assert_eq!(rest, b"", "{}", bytes.escape_ascii());
        reply
    }

    fn first(bytes: &[u8]) -> (Self, &[u8]) {
        let end = bytes
            .iter()
            .position(|&byte| byte == b'\r')
            .expect("a line");
        let line = std::str::from_utf8(&bytes[1..end]).expect("text");
        let mut rest = &bytes[end + 2..];
        let reply = match bytes[0] {
            b'+' | b',' => Self::Text(line.to_owned()),
            b'-' => Self::Error(line.to_owned()),
            b':' => Self::Integer(line.parse().expect("a number")),
            b'_' => Self::Null,
            b'$' | b'*' if line == "-1" => Self::Null,
            kind @ (b'$' | b'=') => {
                let size: usize = line.parse().expect("a size");
                let skipped = if kind == b'=' { 4 } else { 0 };
                let text = String::from_utf8_lossy(&rest[skipped..size]).into_owned();
                rest = &rest[size + 2..];
                Self::Text(text)
            }
            kind => {
                let size: usize = line.parse().expect("a size");
                let count = if kind == b'%' { 2 * size } else { size };
                let mut parts = Vec::new();
                for _ in 0..count {
                    let (part, after) = Self::first(rest);
                    parts.push(part);
                    rest = after;
                }
                Self::Parts(char::from(kind), parts)
            }
        };
        (reply, rest)
    }

    pub(crate) fn parts(&self) -> &[Self] {
        match self {
            Self::Parts(_, parts) => parts,
            other => panic!("{other:?} has no parts"),
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    /// A map, whichever protocol it came in.
    pub(crate) fn map(&self) -> BTreeMap<&str, &Self> {
        self.parts()
            .chunks(2)
            .map(|pair| (pair[0].text(), &pair[1]))
            .collect()
    }
}

pub(crate) fn ask(connection: &mut Connection, words: &[&str]) -> Reply {
    Reply::read(&connection.call(words))
}

pub(crate) fn text(connection: &mut Connection, words: &[&str]) -> String {
    ask(connection, words).text().to_owned()
}

/// Sends several commands at once.
pub(crate) fn send_all(connection: &mut Connection, commands: &[&[&str]]) {
    for words in commands {
        connection.send(words);
    }
}
