//! Replies of the Redis protocol, as a server writes them: appended to an [`Output`], in RESP2 or in RESP3. Large values
//! are kept by reference and not copied; what a reply may hold in all is bounded.

use bytes::{Bytes, BytesMut};

/// Values from this size on that are shared already are kept by reference: a copy costs more than a piece of its own.
const SHARED_BYTES: usize = 16 * 1024;

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// What a connection begins with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

impl Protocol {
    /// Its number in `HELLO`.
    pub const fn number(self) -> i64 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}

/// Replies that wait to be sent: bytes, and between them values that are kept by reference.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// Values, each with the place in `bytes` before which it stands, in that order.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
    /// What may wait in all; what is past it is not kept.
    budget: Option<usize>,
    is_over_budget: bool,
}

/// A place in an output, to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    bytes: usize,
    shared: usize,
}

impl Output {
    /// All bytes, those kept by reference included.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.shared.is_empty()
    }

    /// The bytes, if nothing is kept by reference.
    #[inline]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        self.shared.is_empty().then_some(&self.bytes)
    }

    /// Bounds what may wait in all, in bytes. A bulk string past the bound is not kept; whoever wrote it has to look at
    /// [`Output::is_over_budget`], take the broken reply back and say why.
    pub fn set_budget(&mut self, bytes: usize) {
        self.budget = Some(bytes);
    }

    /// Whether something was not kept. [`Output::rewind`] forgets it.
    #[inline]
    pub fn is_over_budget(&self) -> bool {
        self.is_over_budget
    }

    #[inline]
    fn has_room(&mut self, len: usize) -> bool {
        if self.budget.is_some_and(|budget| self.len() + len > budget) {
            self.is_over_budget = true;
        }
        !self.is_over_budget
    }

    /// Where it ends now.
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark {
            bytes: self.bytes.len(),
            shared: self.shared.len(),
        }
    }

    /// Takes back what was written since the mark.
    pub fn rewind(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        self.shared.truncate(mark.shared);
        self.shared_bytes = self.shared.iter().map(|(_, value)| value.len()).sum();
        self.is_over_budget = false;
    }

    /// The first byte written since the mark: it tells the kind of a reply.
    pub fn first_since(&self, mark: Mark) -> Option<u8> {
        self.bytes.get(mark.bytes).copied()
    }

    /// Forgets what waits, and keeps up to `keep` bytes of the memory for the next.
    #[inline]
    pub fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        if self.bytes.capacity() > keep {
            self.bytes.shrink_to(keep);
        }
        if !self.shared.is_empty() {
            self.shared = Vec::new();
            self.shared_bytes = 0;
        }
    }

    /// Takes what waits out of it, from a place on, piece by piece in the order in which they are to be sent.
    pub fn take_pieces(&mut self, mut from: usize) -> Vec<Bytes> {
        let mut rest = BytesMut::from(&self.bytes[..]).freeze();
        let mut pieces = Vec::with_capacity(2 * self.shared.len() + 1);
        let mut taken = 0;
        for (place, value) in self.shared.drain(..) {
            pieces.push(rest.split_to(place - taken));
            pieces.push(value);
            taken = place;
        }
        pieces.push(rest);
        self.bytes.clear();
        self.shared_bytes = 0;
        pieces.retain_mut(|piece| {
            let skipped = from.min(piece.len());
            from -= skipped;
            let _ = piece.split_to(skipped);
            !piece.is_empty()
        });
        pieces
    }

    /// Appends what waits in another.
    pub fn append(&mut self, other: Self) {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.shared_bytes += other.shared_bytes;
        self.shared.extend(
            other
                .shared
                .into_iter()
                .map(|(place, value)| (before + place, value)),
        );
    }

    /// Appends bytes that are protocol already.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// Writes one reply. Aggregates are announced with their size; their parts follow as replies of their own.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Output,
    protocol: Protocol,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    #[inline]
    pub fn new(out: &'a mut Output, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The protocol that it writes.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What is written to.
    #[inline]
    pub fn output(&mut self) -> &mut Output {
        self.out
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.push(b"+OK\r\n");
    }

    /// A simple string: text without line ends.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error: its code and its words, made into one line.
    pub fn error(&mut self, text: &str) {
        self.out.bytes.push(b'-');
        self.out.bytes.extend(text.bytes().map(|byte| match byte {
            b'\r' | b'\n' => b' ',
            byte => byte,
        }));
        self.out.push(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        match value {
            0 => self.out.push(b":0\r\n"),
            1 => self.out.push(b":1\r\n"),
            _ => self.number(b':', value),
        }
    }

    /// A count or a size, as an integer.
    #[inline]
    pub fn count(&mut self, value: usize) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        if !self.out.has_room(bytes.len()) {
            return;
        }
        self.size(b'$', bytes.len());
        self.out.push(bytes);
        self.out.push(b"\r\n");
    }

    /// A bulk string, kept by reference where it is large.
    pub fn bulk_shared(&mut self, bytes: Bytes) {
        if bytes.len() < SHARED_BYTES {
            return self.bulk(&bytes);
        }
        if !self.out.has_room(bytes.len()) {
            return;
        }
        self.size(b'$', bytes.len());
        self.out.shared_bytes += bytes.len();
        self.out.shared.push((self.out.bytes.len(), bytes));
        self.out.push(b"\r\n");
    }

    /// No value.
    #[inline]
    pub fn null(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.out.push(b"$-1\r\n"),
            Protocol::Resp3 => self.out.push(b"_\r\n"),
        }
    }

    /// No array.
    pub fn null_array(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.out.push(b"*-1\r\n"),
            Protocol::Resp3 => self.out.push(b"_\r\n"),
        }
    }

    /// An array of so many replies.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.size(b'*', len);
    }

    /// A map of so many pairs; in RESP2 an array of twice as many.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.size(b'*', 2 * pairs),
            Protocol::Resp3 => self.size(b'%', pairs),
        }
    }

    /// A set of so many replies; in RESP2 an array.
    pub fn set(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.size(b'*', len),
            Protocol::Resp3 => self.size(b'~', len),
        }
    }

    /// A text for people to read; in RESP2 a bulk string.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 if !self.out.has_room(text.len()) => {}
            Protocol::Resp3 => {
                self.size(b'=', text.len() + 4);
                self.out.push(b"txt:");
                self.out.push(text.as_bytes());
                self.out.push(b"\r\n");
            }
        }
    }

    /// A number with a fraction; in RESP2 a bulk string of its digits.
    pub fn double(&mut self, value: f64) {
        let text = value.to_string();
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => self.line(b',', text.as_bytes()),
        }
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.bytes.push(kind);
        self.out.push(text);
        self.out.push(b"\r\n");
    }

    #[inline]
    fn number(&mut self, kind: u8, value: i64) {
        self.digits(kind, value < 0, value.unsigned_abs());
    }

    #[inline]
    fn size(&mut self, kind: u8, len: usize) {
        self.digits(kind, false, len as u64);
    }

    #[inline]
    fn digits(&mut self, kind: u8, is_negative: bool, rest: u64) {
        // Nearly all have one or two digits, and then the line is of a length that the compiler knows.
        let digit = |value: u64| b'0' + (value % 10) as u8;
        match rest {
            0..10 if !is_negative => self.out.push(&[kind, digit(rest), b'\r', b'\n']),
            10..100 if !is_negative => {
                self.out
                    .push(&[kind, digit(rest / 10), digit(rest), b'\r', b'\n']);
            }
            _ => self.many_digits(kind, is_negative, rest),
        }
    }

    fn many_digits(&mut self, kind: u8, is_negative: bool, mut rest: u64) {
        let mut line = [0; 24];
        line[22..].copy_from_slice(b"\r\n");
        let mut at = 22;
        loop {
            at -= 1;
            line[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if is_negative {
            at -= 1;
            line[at] = b'-';
        }
        at -= 1;
        line[at] = kind;
        self.out.push(&line[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(protocol: Protocol, write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut out = Output::default();
        write(&mut Writer::new(&mut out, protocol));
        let len = out.len();
        let bytes = out.take_pieces(0).concat();
        assert_eq!(bytes.len(), len);
        assert!(out.is_empty());
        bytes.escape_ascii().to_string()
    }

    #[test]
    fn each_kind_in_both_protocols() {
        type Case = (fn(&mut Writer<'_>), &'static str, &'static str);
        let cases: &[Case] = &[
            (|w| w.ok(), "+OK\\r\\n", "+OK\\r\\n"),
            (|w| w.simple("PONG"), "+PONG\\r\\n", "+PONG\\r\\n"),
            (
                |w| w.error("ERR a\r\nb"),
                "-ERR a  b\\r\\n",
                "-ERR a  b\\r\\n",
            ),
            (|w| w.integer(-1), ":-1\\r\\n", ":-1\\r\\n"),
            (
                |w| w.integer(i64::MIN),
                ":-9223372036854775808\\r\\n",
                ":-9223372036854775808\\r\\n",
            ),
            (|w| w.count(10), ":10\\r\\n", ":10\\r\\n"),
            (|w| w.bulk(b""), "$0\\r\\n\\r\\n", "$0\\r\\n\\r\\n"),
            (|w| w.null(), "$-1\\r\\n", "_\\r\\n"),
            (|w| w.null_array(), "*-1\\r\\n", "_\\r\\n"),
            (|w| w.array(3), "*3\\r\\n", "*3\\r\\n"),
            (|w| w.map(3), "*6\\r\\n", "%3\\r\\n"),
            (|w| w.set(3), "*3\\r\\n", "~3\\r\\n"),
            (|w| w.double(1.5), "$3\\r\\n1.5\\r\\n", ",1.5\\r\\n"),
            (|w| w.double(100.0), "$3\\r\\n100\\r\\n", ",100\\r\\n"),
            (
                |w| w.verbatim("ab"),
                "$2\\r\\nab\\r\\n",
                "=6\\r\\ntxt:ab\\r\\n",
            ),
        ];
        for (write, two, three) in cases {
            assert_eq!(written(Protocol::Resp2, write), *two);
            assert_eq!(written(Protocol::Resp3, write), *three);
        }
    }

    #[test]
    fn what_is_past_the_budget_is_not_kept() {
        let mut out = Output::default();
        out.set_budget(100);
        let mark = out.mark();
        for _ in 0..1000 {
            Writer::new(&mut out, Protocol::Resp2).bulk(&[b'x'; 10]);
        }
        assert!(out.is_over_budget());
        assert!(out.len() < 120);
        out.rewind(mark);
        assert!(out.is_empty() && !out.is_over_budget());
    }

    #[test]
    fn large_values_stay_where_they_are() {
        let large = Bytes::from(vec![b'x'; SHARED_BYTES]);
        let mut out = Output::default();
        let mut writer = Writer::new(&mut out, Protocol::Resp2);
        writer.ok();
        writer.bulk_shared(large.clone());
        writer.bulk_shared(Bytes::from_static(b"small"));
        let mark = writer.output().mark();
        writer.bulk_shared(large.clone());
        writer.output().rewind(mark);
        let mut other = Output::default();
        Writer::new(&mut other, Protocol::Resp2).bulk_shared(large.clone());
        out.append(other);
        assert_eq!(out.as_bytes(), None);
        let head = format!("+OK\r\n${SHARED_BYTES}\r\n");
        let between = format!("\r\n$5\r\nsmall\r\n${SHARED_BYTES}\r\n");
        assert_eq!(out.len(), head.len() + between.len() + 2 * SHARED_BYTES + 2);
        let pieces = out.take_pieces(3);
        assert_eq!(pieces.len(), 5);
        assert_eq!(pieces[0], head.as_bytes()[3..]);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        assert_eq!(pieces[2], between.as_bytes());
        assert_eq!(pieces[3].as_ptr(), large.as_ptr());
        assert_eq!(pieces[4], b"\r\n"[..]);
    }
}
