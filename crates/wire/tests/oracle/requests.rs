//! Requests: whoever reads a stream, in one piece or in many, finds the same requests and the same error; what is said of
//! an incomplete one is true; and nothing is taken that the limits forbid, nor room for what is only announced.

use henge_wire::resp::encode;
use henge_wire::resp::request::{
    Arguments, Decoded, Limits, MAX_LINE_BYTES, RequestError, Span, decode, inline_arguments,
    integer,
};

use super::Case;

/// As generous as a server is.
const WIDE: Limits = Limits {
    max_bulk_bytes: 64 << 20,
    max_arguments: 1 << 20,
    max_request_bytes: 256 << 20,
};
const NARROW: Limits = Limits {
    max_bulk_bytes: 32,
    max_arguments: 8,
    max_request_bytes: 96,
};

/// A header's type, a number of 64 bits, and the end of its line: as far as it may lead past the longest request.
const HEADER_BYTES: usize = 23;

/// How many beginnings of each request are looked at one by one.
const BEGINNINGS: usize = 64;

/// Checks one case.
pub(crate) fn check(input: &[u8]) {
    let Some(case) = Case::parse(input, MAX_LINE_BYTES) else {
        return;
    };
    let stream = &case.stream[..];
    let mut eye = Eye::new(if case.is_narrow { NARROW } else { WIDE });
    let whole = read(stream, &[stream.len()], &mut eye);
    let pieces = read(stream, &[case.cut, stream.len()], &mut eye);
    assert!(
        pieces == whole,
        "cut at {}: {pieces:?}, {whole:?}",
        case.cut
    );
    check_patient(stream, &whole, &mut eye);
    check_beginnings(stream, &whole, &mut eye);
    // A vector grows by doubling; six bytes are the shortest argument.
    assert!(eye.spans.capacity() <= 8 + 2 * stream.len() / 6);
}

/// What a reader made of a stream.
#[derive(PartialEq, Debug)]
struct Reading {
    requests: Vec<Request>,
    /// The error behind the last request; none if the stream ends before one.
    error: Option<RequestError>,
}

#[derive(PartialEq, Debug)]
struct Request {
    len: usize,
    arguments: Vec<Vec<u8>>,
}

/// Reads a stream that comes up to each of `ends`, and looks at whatever has come.
fn read(stream: &[u8], ends: &[usize], eye: &mut Eye) -> Reading {
    let (mut at, mut requests, mut error) = (0, Vec::new(), None);
    for &end in ends {
        while error.is_none() && at < end {
            match eye.look(&stream[at..end]) {
                Ok(Look::Request(request)) => {
                    at += request.len;
                    requests.push(request);
                }
                Ok(Look::Incomplete { .. }) => break,
                Err(broken) => error = Some(broken),
            }
        }
    }
    Reading { requests, error }
}

/// A reader that waits as it is told to misses nothing, and looks seldom, though the stream comes byte by byte.
fn check_patient(stream: &[u8], whole: &Reading, eye: &mut Eye) {
    let mut expected = whole.requests.iter();
    let mut at = 0;
    let (mut needed, mut looks) = (1, 0);
    while at + needed <= stream.len() {
        looks += 1;
        match eye.look(&stream[at..at + needed]) {
            Ok(Look::Request(request)) => {
                assert_eq!(Some(&request), expected.next());
                at += request.len;
                (needed, looks) = (1, 0);
            }
            Ok(Look::Incomplete { at_least }) => {
                needed = at_least;
                if stream[at] == b'*' {
                    // A look in vain tells of at least one argument more, and asks for six bytes more for each that
                    // is left. A few more looks are at numbers of which the end has not come.
                    let bound = 64 + 2 * needed.isqrt();
                    assert!(looks <= bound, "{looks} looks at {needed} bytes");
                } else if needed > 256 {
                    // The line of an inline command is searched anew, which is not what is tested here.
                    needed = (2 * needed).min(stream.len() - at).max(needed);
                }
            }
            Err(error) => {
                assert_eq!((Some(error), None), (whole.error, expected.next()));
                return;
            }
        }
    }
    // It may still wait where others have seen an error.
    assert_eq!(expected.next(), None, "it waits for {needed} bytes");
}

/// The beginning of a request is not one, and whoever sees it is asked for no more than the request has. The beginning of
/// what is none may pass for that of one, but not for something else.
fn check_beginnings(stream: &[u8], whole: &Reading, eye: &mut Eye) {
    let mut rest = stream;
    let lens = whole.requests.iter().map(|request| Some(request.len));
    for len in lens.chain([None]) {
        for end in 1..len.unwrap_or(rest.len() + 1).min(BEGINNINGS) {
            match (eye.look(&rest[..end]), len) {
                (Ok(Look::Incomplete { at_least }), Some(len)) => {
                    assert!(at_least <= len, "{at_least} bytes asked for, of {len}");
                }
                (Ok(Look::Incomplete { .. }), None) => {}
                (Err(error), None) => assert_eq!(Some(error), whole.error),
                (look, len) => panic!("{end} of {len:?} bytes: {look:?}"),
            }
        }
        rest = &rest[len.unwrap_or(0)..];
    }
}

#[derive(Debug)]
enum Look {
    Request(Request),
    Incomplete { at_least: usize },
}

/// What looks at the beginning of a stream, and checks what can be checked without knowing more.
struct Eye {
    limits: Limits,
    /// The first one is there before every look, and has to stay.
    spans: Vec<Span>,
    first: Span,
}

impl Eye {
    fn new(limits: Limits) -> Self {
        let mut spans = Vec::new();
        let decoded = decode(b"*1\r\n$4\r\nPING\r\n", &WIDE, &mut spans);
        assert_eq!(decoded, Ok(Decoded::Request { len: 14 }));
        let first = spans[0];
        Self {
            limits,
            spans,
            first,
        }
    }

    fn look(&mut self, input: &[u8]) -> Result<Look, RequestError> {
        self.spans.truncate(1);
        let decoded = decode(input, &self.limits, &mut self.spans);
        assert_eq!(self.spans[0], self.first);
        let spans = &self.spans[1..];
        if let Ok(Decoded::Request { len }) = decoded {
            let arguments = check_array(&input[..len], spans, &self.limits);
            return Ok(Look::Request(Request { len, arguments }));
        }
        assert!(spans.is_empty());
        match decoded? {
            Decoded::Incomplete { at_least } => {
                assert!(at_least > input.len(), "{at_least} bytes have come");
                let most = match input[0] {
                    b'*' => self.limits.max_request_bytes + HEADER_BYTES,
                    _ => MAX_LINE_BYTES,
                };
                assert!(at_least <= most, "{at_least} bytes are never taken");
                Ok(Look::Incomplete { at_least })
            }
            Decoded::Request { len } | Decoded::Inline { len } => {
                let line = &input[..len];
                assert!(len <= MAX_LINE_BYTES);
                assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(len - 1));
                let arguments = check_inline(line)?;
                Ok(Look::Request(Request { len, arguments }))
            }
        }
    }
}

/// A request has one form only, which is the one that clients write; but for those without arguments.
fn check_array(frame: &[u8], spans: &[Span], limits: &Limits) -> Vec<Vec<u8>> {
    assert!(frame.len() <= limits.max_request_bytes);
    assert!(spans.len() <= limits.max_arguments);
    let arguments: Vec<&[u8]> = Arguments::new(frame, spans).from(0).collect();
    for argument in &arguments {
        assert!(argument.len() <= limits.max_bulk_bytes);
    }
    if arguments.is_empty() {
        let count = frame
            .strip_prefix(b"*")
            .and_then(|rest| rest.strip_suffix(b"\r\n"));
        assert!(
            count.and_then(integer).is_some_and(|count| count <= 0),
            "no arguments in {}",
            frame.escape_ascii()
        );
    } else {
        let mut written = Vec::new();
        encode::request(&mut written, &arguments);
        assert!(written == frame, "{}", frame.escape_ascii());
    }
    arguments.into_iter().map(<[u8]>::to_vec).collect()
}

/// Without quotes a line is words between spaces; with them its words, quoted anew, are the same words.
fn check_inline(line: &[u8]) -> Result<Vec<Vec<u8>>, RequestError> {
    let words = inline(line);
    let is_quoted = line.iter().any(|byte| matches!(byte, b'"' | b'\''));
    let words = match words {
        Ok(words) => words,
        Err(error) => {
            assert_eq!((error, is_quoted), (RequestError::UnbalancedQuotes, true));
            return Err(error);
        }
    };
    if is_quoted {
        let mut quoted = String::new();
        for word in &words {
            let escaped = word.iter().map(|byte| format!("\\x{byte:02x}"));
            quoted.extend(["\"", &escaped.collect::<String>(), "\"\t"]);
        }
        assert_eq!(inline(quoted.as_bytes()).as_ref(), Ok(&words));
    } else {
        let is_space = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
        let text = line.split(|&byte| byte == 0).next().unwrap_or_default();
        let split = text.split(is_space).filter(|word| !word.is_empty());
        assert!(words.iter().map(Vec::as_slice).eq(split));
    }
    Ok(words)
}

fn inline(line: &[u8]) -> Result<Vec<Vec<u8>>, RequestError> {
    let mut bytes = b"before".to_vec();
    let mut spans = Vec::new();
    inline_arguments(line, &mut bytes, &mut spans)?;
    assert!(bytes.starts_with(b"before"));
    assert!(bytes.len() <= b"before".len() + line.len());
    // One behind the other, and all of what was appended.
    let mut end = b"before".len();
    for span in &spans {
        assert_eq!(span.range().start, end);
        end = span.range().end;
    }
    assert_eq!(end, bytes.len());
    let words = spans.iter().map(|span| bytes[span.range()].to_vec());
    Ok(words.collect())
}
