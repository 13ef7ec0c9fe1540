//! Replies as a client reads them: an incremental decoder of RESP2 and RESP3 that copies no payload. It is fed a buffer that
//! grows, takes whole elements off its front, and remembers where it stands, so that no byte is looked at twice. Depth,
//! elements and bytes of a reply are bounded when they are announced, not when they have come. Streamed types, whose length
//! is not announced, are refused: no server in use sends them.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// The longest line: a simple string, an error, a number, or the head of anything else. An error may quote a key.
pub const MAX_LINE_BYTES: usize = 128 * 1024;

/// What a reply may cost. Each bound is checked against what the reply announces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How deep aggregates may lie in each other. A reply is a tree, which is dropped by recursion.
    pub depth: usize,
    /// The elements of all aggregates of a reply together.
    pub elements: usize,
    /// The bytes of all lines and payloads of a reply together.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The deepest reply in use, of COMMAND DOCS, has 9.
            depth: 32,
            // Several times the largest batch; as empty elements they are 10 MiB of tree.
            elements: 1 << 18,
            // The longest string of Redis.
            bytes: 512 << 20,
        }
    }
}

/// A reply. Its bytes are views of the buffer that it was read from, which lives as long as any of them.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// A simple string.
    Simple(Bytes),
    /// An error, simple or bulk: a code in capitals, a space, a message.
    Error(Bytes),
    /// An integer.
    Integer(i64),
    /// A bulk string.
    Bulk(Bytes),
    /// A list of replies.
    Array(Vec<Reply>),
    /// Nothing: the null of RESP3, or the null bulk string or null array of RESP2.
    Null,
    /// True or false.
    Boolean(bool),
    /// A floating-point number.
    Double(f64),
    /// An integer of any size: an optional sign and decimal digits.
    BigNumber(Bytes),
    /// A string with a hint how to show it: `txt` or `mkd`.
    Verbatim {
        /// The hint.
        format: [u8; 3],
        /// The string.
        text: Bytes,
    },
    /// Keys and their values, in the order in which they came.
    Map(Vec<(Reply, Reply)>),
    /// A list whose order means nothing. That no element comes twice is the server's promise, and not checked.
    Set(Vec<Reply>),
    /// Out-of-band data, which answers no request.
    Push(Vec<Reply>),
    /// A reply with remarks beside it.
    Attributed(Box<Attributed>),
}

/// What an attribute adds to a reply.
#[derive(Clone, PartialEq, Debug)]
pub struct Attributed {
    /// The remarks, as keys and values.
    pub attributes: Vec<(Reply, Reply)>,
    /// What they are about.
    pub reply: Reply,
}

/// What came is no reply, or a larger one than may come. What follows in the stream cannot be understood any more, so
/// the connection has to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// A reply begins with this byte, which no type has.
    UnknownType(u8),
    /// A type whose length is not announced.
    Streamed,
    /// A line with a carriage return or a line feed on its own, or a payload without both after it.
    LineEnd,
    /// A line that is longer than [`MAX_LINE_BYTES`].
    LongLine,
    /// A length that is none.
    Length,
    /// A line of this type that does not hold what the type says.
    Malformed(&'static str),
    /// Out-of-band data inside of a reply.
    NestedPush,
    /// Aggregates deeper than [`Limits::depth`].
    TooDeep,
    /// More elements than [`Limits::elements`].
    TooManyElements,
    /// More bytes than [`Limits::bytes`].
    TooManyBytes,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType(byte) => {
                let shown = byte.escape_ascii();
                write!(
                    f,
                    "a reply begins with '{shown}', which no type of RESP has"
                )
            }
            Self::Streamed => f.write_str("a reply is of a streamed type, which is not taken"),
            Self::LineEnd => f.write_str("a line or string of a reply does not end with \\r\\n"),
            Self::LongLine => write!(f, "a line of a reply is longer than {MAX_LINE_BYTES} bytes"),
            Self::Length => f.write_str("a length in a reply is no number from 0 to 2^63 - 1"),
            Self::Malformed(what) => write!(f, "a reply is announced as {what} and is none"),
            Self::NestedPush => f.write_str("a push message came inside of a reply"),
            Self::TooDeep => f.write_str("a reply is nested too deeply"),
            Self::TooManyElements => f.write_str("a reply has too many elements"),
            Self::TooManyBytes => f.write_str("a reply has too many bytes"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Decodes the replies of one connection.
///
/// ```
/// use bytes::BytesMut;
/// use henge_wire::resp::reply::{Decoder, Limits, Reply};
///
/// let mut decoder = Decoder::new(Limits::default());
/// let mut input = BytesMut::from("$5\r\nhel");
/// assert_eq!(decoder.decode(&mut input), Ok(None));
/// input.extend_from_slice(b"lo\r\n:1");
/// assert_eq!(decoder.decode(&mut input), Ok(Some(Reply::Bulk("hello".into()))));
/// assert_eq!(decoder.decode(&mut input), Ok(None));
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// The aggregates that are begun and not complete, the outermost first.
    open: Vec<Open>,
    /// The payload that is announced and has not all come.
    payload: Option<Payload>,
    /// So many bytes at the front of the input are known to hold no end of a line.
    scanned: usize,
    /// What the reply at hand may still announce.
    elements_left: usize,
    bytes_left: usize,
    /// After an error nothing in the stream means anything.
    failed: Option<DecodeError>,
    /// How many bytes of lines were looked at.
    #[cfg(test)]
    looked_at: usize,
}

/// An aggregate that is begun.
#[derive(Debug)]
struct Open {
    kind: Aggregate,
    /// How many replies are yet to come. Keys and values of a map count by themselves, as does what attributes are about.
    missing: usize,
    /// Those that came. Nothing is reserved for what is only announced.
    came: Vec<Reply>,
}

#[derive(Clone, Copy, Debug)]
enum Aggregate {
    Array,
    Set,
    Push,
    Map,
    Attributes,
}

/// A string of a known length, with `\r\n` behind it.
#[derive(Clone, Copy, Debug)]
struct Payload {
    kind: Text,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Text {
    Bulk,
    Error,
    Verbatim,
}

/// What a line turned out to be.
enum Head {
    Reply(Reply),
    Payload(Payload),
    Open(Aggregate, usize),
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: Vec::new(),
            payload: None,
            scanned: 0,
            elements_left: limits.elements,
            bytes_left: limits.bytes,
            failed: None,
            #[cfg(test)]
            looked_at: 0,
        }
    }

    /// Takes the next reply off the front of `input`, or none if it has not all come: then call again with more bytes
    /// at the end. Between two calls the input may only grow at its end. After an error every call gives that error.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let decoded = self.advance(input);
        if let Err(error) = decoded {
            self.failed = Some(error);
            self.open = Vec::new();
        }
        decoded
    }

    /// Whether a part of a reply was taken off the input, or looked at, without the rest.
    pub fn is_within_reply(&self) -> bool {
        !self.open.is_empty() || self.payload.is_some() || self.scanned > 0
    }

    fn advance(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, DecodeError> {
        loop {
            let element = if let Some(payload) = self.payload {
                let Some(reply) = payload.take(input)? else {
                    return Ok(None);
                };
                self.payload = None;
                reply
            } else {
                let Some(len) = self.line(input)? else {
                    return Ok(None);
                };
                match self.head(input, len)? {
                    Head::Reply(reply) => reply,
                    Head::Payload(payload) => {
                        self.payload = Some(payload);
                        continue;
                    }
                    Head::Open(kind, missing) => {
                        self.open.push(Open {
                            kind,
                            missing,
                            came: Vec::new(),
                        });
                        match self.close(None) {
                            Some(reply) => return Ok(Some(reply)),
                            None => continue,
                        }
                    }
                }
            };
            if let Some(reply) = self.close(Some(element)) {
                return Ok(Some(reply));
            }
        }
    }

    /// Puts an element where it belongs, and closes every aggregate that it completes. The outermost of them is a reply.
    fn close(&mut self, mut element: Option<Reply>) -> Option<Reply> {
        loop {
            let Some(innermost) = self.open.last_mut() else {
                if element.is_some() {
                    self.elements_left = self.limits.elements;
                    self.bytes_left = self.limits.bytes;
                }
                return element;
            };
            if let Some(element) = element.take() {
                innermost.missing -= 1;
                innermost.came.push(element);
            }
            if innermost.missing > 0 {
                return None;
            }
            element = self.open.pop().map(Open::complete);
        }
    }

    /// The length of the line at the front of the input, without its end.
    fn line(&mut self, input: &BytesMut) -> Result<Option<usize>, DecodeError> {
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let unseen = &input[self.scanned..];
        let end = unseen.iter().position(is_end);
        #[cfg(test)]
        {
            self.looked_at += end.map_or(unseen.len(), |end| end + 1);
        }
        let len = self.scanned + end.unwrap_or(unseen.len());
        if len > MAX_LINE_BYTES {
            return Err(DecodeError::LongLine);
        }
        self.scanned = len;
        match (end, input.get(len), input.get(len + 1)) {
            (None, ..) | (_, Some(b'\r'), None) => Ok(None),
            (_, Some(b'\r'), Some(b'\n')) => {
                self.scanned = 0;
                self.charge_bytes(len)?;
                Ok(Some(len))
            }
            _ => Err(DecodeError::LineEnd),
        }
    }

    /// Takes a line of that length off the input and understands it.
    fn head(&mut self, input: &mut BytesMut, len: usize) -> Result<Head, DecodeError> {
        let Some(&kind) = input[..len].first() else {
            return Err(DecodeError::UnknownType(b'\r'));
        };
        if let b'+' | b'-' | b'(' = kind {
            let mut text = input.split_to(len).freeze();
            input.advance(2);
            text.advance(1);
            return match kind {
                b'+' => Ok(Head::Reply(Reply::Simple(text))),
                b'-' => Ok(Head::Reply(Reply::Error(text))),
                _ if is_big_number(&text) => Ok(Head::Reply(Reply::BigNumber(text))),
                _ => Err(DecodeError::Malformed("a big number")),
            };
        }
        // Most lines are the head of a bulk string; they are read where they lie.
        let head = self.announced(kind, &input[1..len])?;
        input.advance(len + 2);
        Ok(head)
    }

    fn announced(&mut self, kind: u8, rest: &[u8]) -> Result<Head, DecodeError> {
        let malformed = DecodeError::Malformed;
        let reply = match (kind, rest) {
            (b':', _) => Reply::Integer(integer(rest).ok_or(malformed("an integer"))?),
            // Two of RESP2, one of RESP3.
            (b'$' | b'*', b"-1") | (b'_', b"") => Reply::Null,
            (b'_', _) => return Err(malformed("null")),
            (b'#', b"t") => Reply::Boolean(true),
            (b'#', b"f") => Reply::Boolean(false),
            (b'#', _) => return Err(malformed("a boolean")),
            (b',', _) => Reply::Double(double(rest).ok_or(malformed("a double"))?),
            (b'$', _) => return self.payload(Text::Bulk, rest),
            (b'!', _) => return self.payload(Text::Error, rest),
            (b'=', _) => return self.payload(Text::Verbatim, rest),
            (b'*', _) => return self.aggregate(Aggregate::Array, rest),
            (b'~', _) => return self.aggregate(Aggregate::Set, rest),
            (b'>', _) => return self.aggregate(Aggregate::Push, rest),
            (b'%', _) => return self.aggregate(Aggregate::Map, rest),
            (b'|', _) => return self.aggregate(Aggregate::Attributes, rest),
            // A chunk of a streamed string, and the end of a streamed aggregate.
            (b';' | b'.', _) => return Err(DecodeError::Streamed),
            (other, _) => return Err(DecodeError::UnknownType(other)),
        };
        Ok(Head::Reply(reply))
    }

    fn payload(&mut self, kind: Text, digits: &[u8]) -> Result<Head, DecodeError> {
        let len = length(digits)?;
        self.charge_bytes(len)?;
        Ok(Head::Payload(Payload { kind, len }))
    }

    fn aggregate(&mut self, kind: Aggregate, digits: &[u8]) -> Result<Head, DecodeError> {
        let announced = length(digits)?;
        if matches!(kind, Aggregate::Push) && !self.open.is_empty() {
            return Err(DecodeError::NestedPush);
        }
        if self.open.len() >= self.limits.depth {
            return Err(DecodeError::TooDeep);
        }
        let replies = match kind {
            Aggregate::Array | Aggregate::Set | Aggregate::Push => Some(announced),
            Aggregate::Map => announced.checked_mul(2),
            Aggregate::Attributes => announced.checked_mul(2).and_then(|n| n.checked_add(1)),
        };
        let left = replies.and_then(|replies| self.elements_left.checked_sub(replies));
        self.elements_left = left.ok_or(DecodeError::TooManyElements)?;
        Ok(Head::Open(kind, replies.unwrap_or_default()))
    }

    fn charge_bytes(&mut self, len: usize) -> Result<(), DecodeError> {
        let left = self.bytes_left.checked_sub(len);
        self.bytes_left = left.ok_or(DecodeError::TooManyBytes)?;
        Ok(())
    }
}

impl Open {
    fn complete(self) -> Reply {
        match self.kind {
            Aggregate::Array => Reply::Array(self.came),
            Aggregate::Set => Reply::Set(self.came),
            Aggregate::Push => Reply::Push(self.came),
            Aggregate::Map => Reply::Map(pairs(self.came)),
            Aggregate::Attributes => {
                let mut came = self.came;
                let reply = came.pop().expect("attributes are about a reply");
                Reply::Attributed(Box::new(Attributed {
                    attributes: pairs(came),
                    reply,
                }))
            }
        }
    }
}

fn pairs(flat: Vec<Reply>) -> Vec<(Reply, Reply)> {
    let mut pairs = Vec::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
        pairs.push((key, value));
    }
    pairs
}

impl Payload {
    /// The string, once all of it and its end are there.
    fn take(self, input: &mut BytesMut) -> Result<Option<Reply>, DecodeError> {
        // Both differ by two at most from lengths that exist, so nothing overflows.
        if input.len() < self.len || input.len() - self.len < 2 {
            return Ok(None);
        }
        if input[self.len..self.len + 2] != *b"\r\n" {
            return Err(DecodeError::LineEnd);
        }
        let mut text = input.split_to(self.len).freeze();
        input.advance(2);
        Ok(Some(match self.kind {
            Text::Bulk => Reply::Bulk(text),
            Text::Error => Reply::Error(text),
            Text::Verbatim => {
                let [a, b, c, b':', ..] = text[..] else {
                    return Err(DecodeError::Malformed("a verbatim string"));
                };
                text.advance(4);
                Reply::Verbatim {
                    format: [a, b, c],
                    text,
                }
            }
        }))
    }
}

fn length(digits: &[u8]) -> Result<usize, DecodeError> {
    if digits == b"?" {
        return Err(DecodeError::Streamed);
    }
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(DecodeError::Length);
    }
    let len = integer(digits).ok_or(DecodeError::Length)?;
    usize::try_from(len).map_err(|_| DecodeError::TooManyBytes)
}

/// An optional sign and decimal digits, within 64 bits.
fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// As the protocol has it, which is narrower than what Rust parses.
fn double(text: &[u8]) -> Option<f64> {
    let is_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    match text {
        b"inf" => Some(f64::INFINITY),
        b"-inf" => Some(f64::NEG_INFINITY),
        // Older servers print whatever their C library makes of it.
        b"nan" | b"-nan" => Some(f64::NAN),
        _ if text.iter().all(is_number) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

fn is_big_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+"));
    let digits = digits.unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests;
