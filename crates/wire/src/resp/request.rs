//! Requests of the Redis protocol, as a server reads them: an array of bulk strings, or an inline command of one line. The
//! arguments are places in the input, which is never copied; whoever feeds it keeps an incomplete request and comes back
//! with more. It knows no command, and its errors end the connection, as nobody can tell where the next request begins.

use std::fmt;
use std::ops::{Index, Range};

/// A line of a header or of an inline command ends within this many bytes, as in Redis.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// An argument's place in the input of its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    #[inline]
    fn new(start: usize, len: usize) -> Self {
        Self {
            start: start as u32,
            end: (start + len) as u32,
        }
    }

    /// The bytes of the input that it names.
    #[inline]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// What a request may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The longest argument, in bytes.
    pub max_bulk_bytes: usize,
    /// The most arguments.
    pub max_arguments: usize,
    /// The longest request, in bytes: at most `u32::MAX`, as spans are that wide.
    pub max_request_bytes: usize,
}

/// What the beginning of the input is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// A request of this many bytes; its arguments were pushed, none for an empty one.
    Request {
        /// How many bytes it takes.
        len: usize,
    },
    /// An inline command: a line of this many bytes, with its end. [`inline_arguments`] takes it apart.
    Inline {
        /// How many bytes it takes.
        len: usize,
    },
    /// The beginning of a request that has at least this many bytes. To look again before they are there is useless, and
    /// who does not look keeps the work linear, however the input is cut.
    Incomplete {
        /// The least number of bytes that the request can have.
        at_least: usize,
    },
}

/// Why the input is no request. The texts are Redis's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestError {
    /// The number of arguments is no number, or too large.
    InvalidMultibulkLength,
    /// The length of an argument is no number, negative, or too large.
    InvalidBulkLength,
    /// Something else than `$` where an argument begins: the byte that came. Nested arrays end here.
    ExpectedBulk(u8),
    /// An argument is not followed by CR LF, so its length is wrong.
    UnterminatedBulk,
    /// The line with the number of arguments does not end.
    MultibulkLineTooLong,
    /// The line with an argument's length does not end.
    BulkLineTooLong,
    /// The line of an inline command does not end.
    InlineTooLong,
    /// The request is longer than `Limits::max_request_bytes`.
    TooLong,
    /// A quote in an inline command is not closed, or is followed by something else than a space.
    UnbalancedQuotes,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            Self::InvalidMultibulkLength => f.write_str("invalid multibulk length"),
            Self::InvalidBulkLength => f.write_str("invalid bulk length"),
            Self::ExpectedBulk(byte) => {
                // One line, whatever came.
                let shown = match byte {
                    b'\r' | b'\n' => ' ',
                    byte => char::from(*byte),
                };
                if shown.is_ascii() {
                    write!(f, "expected '$', got '{shown}'")
                } else {
                    write!(f, "expected '$', got byte {byte}")
                }
            }
            Self::UnterminatedBulk => f.write_str("expected CRLF after an argument"),
            Self::MultibulkLineTooLong => f.write_str("too big mbulk count string"),
            Self::BulkLineTooLong => f.write_str("too big bulk count string"),
            Self::InlineTooLong => f.write_str("too big inline request"),
            Self::TooLong => f.write_str("too big request"),
            Self::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
        }
    }
}

impl std::error::Error for RequestError {}

/// Looks at the request at the beginning of `input`, which is not empty, and pushes the places of its arguments. On
/// anything but a whole request `spans` is left as it was.
#[inline]
pub fn decode(
    input: &[u8],
    limits: &Limits,
    spans: &mut Vec<Span>,
) -> Result<Decoded, RequestError> {
    if input[0] != b'*' {
        return decode_inline(input);
    }
    let before = spans.len();
    let decoded = decode_array(input, limits, spans);
    if !matches!(decoded, Ok(Decoded::Request { .. })) {
        spans.truncate(before);
    }
    decoded
}

fn decode_inline(input: &[u8]) -> Result<Decoded, RequestError> {
    let seen = &input[..input.len().min(MAX_LINE_BYTES)];
    match seen.iter().position(|&byte| byte == b'\n') {
        Some(end) => Ok(Decoded::Inline { len: end + 1 }),
        None if input.len() < MAX_LINE_BYTES => Ok(Decoded::Incomplete {
            at_least: input.len() + 1,
        }),
        None => Err(RequestError::InlineTooLong),
    }
}

/// The shortest argument: `$0`, CR LF, CR LF.
const LEAST_BULK_BYTES: usize = 6;

#[inline]
fn decode_array(
    input: &[u8],
    limits: &Limits,
    spans: &mut Vec<Span>,
) -> Result<Decoded, RequestError> {
    let (count, mut at) = match header(input, 1) {
        Header::Number(count, next) => (count, next),
        Header::Bad => return Err(RequestError::InvalidMultibulkLength),
        Header::TooLong => return Err(RequestError::MultibulkLineTooLong),
        Header::Unfinished => {
            return Ok(Decoded::Incomplete {
                at_least: input.len() + 1,
            });
        }
    };
    // Redis reads an array of -1 or of -5 as one of none.
    let count = usize::try_from(count).unwrap_or(0);
    if count > limits.max_arguments {
        return Err(RequestError::InvalidMultibulkLength);
    }
    for left in (0..count).rev() {
        match input.get(at) {
            Some(b'$') => {}
            Some(&other) => return Err(RequestError::ExpectedBulk(other)),
            None => {
                return incomplete(at + LEAST_BULK_BYTES, left, limits);
            }
        }
        let (len, start) = match header(input, at + 1) {
            Header::Number(len, next) => (len, next),
            Header::Bad => return Err(RequestError::InvalidBulkLength),
            Header::TooLong => return Err(RequestError::BulkLineTooLong),
            Header::Unfinished => return incomplete(input.len() + 1, left, limits),
        };
        let len = usize::try_from(len)
            .ok()
            .filter(|&len| len <= limits.max_bulk_bytes)
            .ok_or(RequestError::InvalidBulkLength)?;
        let end = start + len;
        let next = end + 2;
        if next > limits.max_request_bytes {
            return Err(RequestError::TooLong);
        }
        match input.get(end..next) {
            Some(b"\r\n") => {}
            Some(_) => return Err(RequestError::UnterminatedBulk),
            None => return incomplete(next, left, limits),
        }
        spans.push(Span::new(start, len));
        at = next;
    }
    Ok(Decoded::Request { len: at })
}

/// The request goes on to `so_far` at least, and then has `left` more arguments.
#[cold]
fn incomplete(so_far: usize, left: usize, limits: &Limits) -> Result<Decoded, RequestError> {
    let at_least = so_far + left * LEAST_BULK_BYTES;
    if at_least > limits.max_request_bytes {
        return Err(RequestError::TooLong);
    }
    Ok(Decoded::Incomplete { at_least })
}

enum Header {
    /// The number, and where its line ends.
    Number(i64, usize),
    Bad,
    TooLong,
    Unfinished,
}

/// Reads a number and its CR LF.
#[inline]
fn header(input: &[u8], at: usize) -> Header {
    // Nearly all are of one or two digits.
    match input.get(at..at + 4) {
        Some(&[one @ b'0'..=b'9', b'\r', b'\n', _]) => {
            Header::Number(i64::from(one - b'0'), at + 3)
        }
        Some(&[ten @ b'1'..=b'9', one @ b'0'..=b'9', b'\r', b'\n']) => {
            Header::Number(i64::from(ten - b'0') * 10 + i64::from(one - b'0'), at + 4)
        }
        _ => long_header(input, at),
    }
}

fn long_header(input: &[u8], at: usize) -> Header {
    let rest = &input[at.min(input.len())..];
    let seen = &rest[..rest.len().min(MAX_LINE_BYTES)];
    let Some(end) = seen.iter().position(|&byte| byte == b'\r') else {
        return if rest.len() < MAX_LINE_BYTES {
            Header::Unfinished
        } else {
            Header::TooLong
        };
    };
    match rest.get(end + 1) {
        None => Header::Unfinished,
        Some(b'\n') => match integer(&rest[..end]) {
            Some(number) => Header::Number(number, at + end + 2),
            None => Header::Bad,
        },
        Some(_) => Header::Bad,
    }
}

/// A decimal integer of 64 bits as Redis reads one everywhere: no plus sign, no leading zeros, no spaces, no `-0`.
#[inline]
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] => return (!negative).then_some(0),
        [] | [b'0', ..] => return None,
        _ => {}
    }
    let mut magnitude = 0u64;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Takes an inline command apart into `bytes`, where `spans` then point: words between spaces, with `"…"` and its escapes,
/// and with `'…'`, as `redis-cli` and a shell have them.
pub fn inline_arguments(
    line: &[u8],
    bytes: &mut Vec<u8>,
    spans: &mut Vec<Span>,
) -> Result<(), RequestError> {
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|&byte| is_space(byte)) {
            at += 1;
        }
        if at >= line.len() || line[at] == 0 {
            return Ok(());
        }
        let start = bytes.len();
        at = word(line, at, bytes)?;
        spans.push(Span::new(start, bytes.len() - start));
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Appends one word, and gives the place after it.
fn word(line: &[u8], mut at: usize, bytes: &mut Vec<u8>) -> Result<usize, RequestError> {
    loop {
        match line.get(at) {
            None | Some(0) => return Ok(line.len()),
            Some(&byte) if is_space(byte) => return Ok(at),
            Some(&quote @ (b'"' | b'\'')) => {
                at = quoted(line, at + 1, quote, bytes)?;
                return match line.get(at) {
                    None | Some(0) => Ok(line.len()),
                    Some(&byte) if is_space(byte) => Ok(at),
                    Some(_) => Err(RequestError::UnbalancedQuotes),
                };
            }
            Some(&byte) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
}

/// Appends what stands up to the closing quote, and gives the place after that.
fn quoted(
    line: &[u8],
    mut at: usize,
    quote: u8,
    bytes: &mut Vec<u8>,
) -> Result<usize, RequestError> {
    loop {
        match line[at.min(line.len())..] {
            [] | [0, ..] => return Err(RequestError::UnbalancedQuotes),
            [byte, ..] if byte == quote => return Ok(at + 1),
            [b'\\', b'\'', ..] if quote == b'\'' => {
                bytes.push(b'\'');
                at += 2;
            }
            [b'\\', b'x', high, low, ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                bytes.push(hex(high) * 16 + hex(low));
                at += 4;
            }
            [b'\\', escaped, ..] if quote == b'"' && escaped != 0 => {
                bytes.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => other,
                });
                at += 2;
            }
            [byte, ..] => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// The arguments of one request, the command's name first.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    input: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Arguments<'a> {
    /// What `spans` name in `input`, the same that they were decoded from.
    #[inline]
    pub fn new(input: &'a [u8], spans: &'a [Span]) -> Self {
        Self { input, spans }
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at a place, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| &self.input[span.range()])
    }

    /// All of them from a place on.
    #[inline]
    pub fn from(&self, index: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone {
        let input = self.input;
        self.spans[index.min(self.spans.len())..]
            .iter()
            .map(move |span| &input[span.range()])
    }

    /// The arguments from a place on, as arguments.
    #[inline]
    #[must_use]
    pub fn after(&self, index: usize) -> Self {
        Self {
            input: self.input,
            spans: &self.spans[index.min(self.spans.len())..],
        }
    }
}

impl Index<usize> for Arguments<'_> {
    type Output = [u8];

    #[inline]
    fn index(&self, index: usize) -> &[u8] {
        &self.input[self.spans[index].range()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        max_bulk_bytes: 1 << 20,
        max_arguments: 1 << 20,
        max_request_bytes: 4 << 20,
    };

    /// All requests of an input, or the error that ends it.
    fn requests(input: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, RequestError> {
        let (mut at, mut all) = (0, Vec::new());
        while at < input.len() {
            let mut spans = Vec::new();
            let rest = &input[at..];
            let own = |arguments: Arguments<'_>| arguments.from(0).map(<[u8]>::to_vec).collect();
            match decode(rest, &LIMITS, &mut spans)? {
                Decoded::Request { len } => {
                    all.push(own(Arguments::new(rest, &spans)));
                    at += len;
                }
                Decoded::Inline { len } => {
                    let mut bytes = Vec::new();
                    inline_arguments(&rest[..len], &mut bytes, &mut spans)?;
                    all.push(own(Arguments::new(&bytes, &spans)));
                    at += len;
                }
                Decoded::Incomplete { at_least } => {
                    assert!(at_least > rest.len(), "it says that more is needed");
                    assert!(spans.is_empty());
                    return Ok(all);
                }
            }
        }
        Ok(all)
    }

    #[test]
    fn requests_and_their_arguments() {
        type Words<'a> = &'a [&'a [u8]];
        let cases: &[(&[u8], &[Words<'_>])] = &[
            (b"*1\r\n$4\r\nPING\r\n", &[&[b"PING"]]),
            (b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", &[&[b"GET", b""]]),
            (
                b"*2\r\n$3\r\nGET\r\n$12\r\n012345678\r\n9\r\n",
                &[&[b"GET", b"012345678\r\n9"]],
            ),
            (b"*0\r\n*-1\r\nPING\r\n", &[&[], &[], &[b"PING"]]),
            (b"\r\n  \n", &[&[], &[]]),
            (
                b"SET k \"a b\\x41\\n\\\"\" 'c\\'d\\n'\r\n",
                &[&[b"SET", b"k", b"a bA\n\"", b"c'd\\n"]],
            ),
            (b"GET \"\"\n", &[&[b"GET", b""]]),
            (b"a\"b\" c\n", &[&[b"ab", b"c"]]),
            (b"*2\r\n$3\r\nGET\r\n$3\r\nab", &[]),
        ];
        for (input, expected) in cases {
            let expected: Vec<Vec<Vec<u8>>> = expected
                .iter()
                .map(|request| request.iter().map(|part| part.to_vec()).collect())
                .collect();
            assert_eq!(requests(input), Ok(expected), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_request() {
        let long = vec![b'1'; MAX_LINE_BYTES + 1];
        let joined = |head: &[u8]| [head, &long[..]].concat();
        let cases: &[(&[u8], RequestError)] = &[
            (b"*x\r\n", RequestError::InvalidMultibulkLength),
            (b"*1\rx", RequestError::InvalidMultibulkLength),
            (b"*\r\n", RequestError::InvalidMultibulkLength),
            (b"*1048577\r\n", RequestError::InvalidMultibulkLength),
            (
                b"*9223372036854775808\r\n",
                RequestError::InvalidMultibulkLength,
            ),
            (b"*1\r\n*1\r\n*1\r\n", RequestError::ExpectedBulk(b'*')),
            (b"*1\r\n:1\r\n", RequestError::ExpectedBulk(b':')),
            (b"*1\r\n$-1\r\n", RequestError::InvalidBulkLength),
            (
                b"*1\r\n$9223372036854775808\r\n",
                RequestError::InvalidBulkLength,
            ),
            (b"*1\r\n$1048577\r\n", RequestError::InvalidBulkLength),
            (b"*1\r\n$03\r\nGET\r\n", RequestError::InvalidBulkLength),
            (b"*1\r\n$3\r\nGETxx", RequestError::UnterminatedBulk),
            (&joined(b"*"), RequestError::MultibulkLineTooLong),
            (&joined(b"*1\r\n$"), RequestError::BulkLineTooLong),
            (&joined(b""), RequestError::InlineTooLong),
            (b"GET \"k\n", RequestError::UnbalancedQuotes),
            (b"GET 'k'x\n", RequestError::UnbalancedQuotes),
            (b"*1048576\r\n$1048576\r\n", RequestError::TooLong),
        ];
        for (input, error) in cases {
            let shown = input[..input.len().min(40)].escape_ascii();
            assert_eq!(requests(input), Err(*error), "{shown}");
        }
        assert_eq!(
            RequestError::ExpectedBulk(b'*').to_string(),
            "Protocol error: expected '$', got '*'"
        );
    }

    #[test]
    fn integers() {
        let cases: &[(&[u8], Option<i64>)] = &[
            (b"0", Some(0)),
            (b"-1", Some(-1)),
            (b"9223372036854775807", Some(i64::MAX)),
            (b"-9223372036854775808", Some(i64::MIN)),
            (b"9223372036854775808", None),
            (b"-9223372036854775809", None),
            (b"18446744073709551617", None),
            (b"", None),
            (b"-", None),
            (b"-0", None),
            (b"+1", None),
            (b"01", None),
            (b"1 ", None),
            (b"1a", None),
        ];
        for (text, value) in cases {
            assert_eq!(integer(text), *value, "{}", text.escape_ascii());
        }
    }

    /// However few bytes come at a time, a request is looked at a few times only if its reader waits as it was told.
    #[test]
    fn a_request_in_drips_costs_little() {
        let mut input = b"*10000\r\n".to_vec();
        for _ in 0..10_000 {
            input.extend_from_slice(b"$12\r\n0123456789ab\r\n");
        }
        let (mut looks, mut needed) = (0, 1);
        for len in 1..=input.len() {
            if len < needed {
                continue;
            }
            looks += 1;
            match decode(&input[..len], &LIMITS, &mut Vec::new()) {
                Ok(Decoded::Incomplete { at_least }) => needed = at_least,
                other => assert_eq!(other, Ok(Decoded::Request { len: input.len() })),
            }
        }
        assert!(looks < 100, "{looks} looks");
    }

    proptest! {
        /// Arguments of any bytes come out as they went in, and no beginning of a request passes for one.
        #[test]
        fn any_arguments_survive(
            request in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6),
        ) {
            let mut input = format!("*{}\r\n", request.len()).into_bytes();
            for argument in &request {
                input.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
                input.extend_from_slice(argument);
                input.extend_from_slice(b"\r\n");
            }
            for cut in 1..input.len() {
                prop_assert_eq!(requests(&input[..cut]), Ok(vec![]));
            }
            prop_assert_eq!(requests(&input), Ok(vec![request]));
        }

        /// Nothing that comes makes it panic.
        #[test]
        fn any_bytes_are_survived(input in proptest::collection::vec(any::<u8>(), 1..200)) {
            let _ = requests(&input);
        }
    }
}
