//! Replies: however a stream is cut, the decoder gives the same replies and the same error; what it gives is within the
//! limits, and written in one form of each type it is read as the same again.

use bytes::BytesMut;
use henge_wire::resp::reply::{DecodeError, Decoder, Limits, MAX_LINE_BYTES, Reply};

use super::Case;

const NARROW: Limits = Limits {
    depth: 3,
    elements: 12,
    bytes: 48,
};

/// So much of a stream is decoded reply by reply, each time from a copy of the rest.
const SMALL_BYTES: usize = 4096;

/// Checks one case.
pub(crate) fn check(input: &[u8]) {
    let Some(case) = Case::parse(input, MAX_LINE_BYTES) else {
        return;
    };
    let limits = if case.is_narrow {
        NARROW
    } else {
        Limits::default()
    };
    let stream = &case.stream[..];
    let whole = read(stream, stream.len(), stream.len(), limits);
    let pieces = read(stream, case.cut, stream.len(), limits);
    assert_eq!(pieces, whole, "cut at {}", case.cut);
    // Byte by byte; a long stream a few at a time.
    let step = 1 + stream.len() / 8192;
    let drips = read(stream, step, step, limits);
    assert_eq!(drips, whole, "{step} bytes at a time");

    // No reply leaves anything behind for the next.
    let mut apart = Reading::default();
    let mut start = 0;
    while start < stream.len() && apart.error.is_none() {
        let mut decoder = Decoder::new(limits);
        let mut input = BytesMut::from(&stream[start..]);
        match decoder.decode(&mut input) {
            Ok(Some(reply)) => {
                write(&reply, &mut apart.written);
                start = stream.len() - input.len();
                assert!(stream[..start].ends_with(b"\r\n"));
                if start > SMALL_BYTES {
                    return check_again(&whole, limits);
                }
            }
            Ok(None) => {
                apart.left = input.len();
                break;
            }
            Err(error) => apart.error = Some(error),
        }
    }
    assert_eq!(apart, whole, "each by itself");
    check_again(&whole, limits);
}

/// What was written is read as the same.
fn check_again(whole: &Reading, limits: Limits) {
    let generous = Limits {
        bytes: usize::MAX,
        ..limits
    };
    let again = read(&whole.written, whole.written.len(), 1, generous);
    assert_eq!((again.error, again.left), (None, 0));
    assert_eq!(again.written, whole.written);
}

/// What a reader made of a stream.
#[derive(PartialEq, Default)]
struct Reading {
    /// The replies, each in one form. Not the replies, as a NaN among them is not equal to itself.
    written: Vec<u8>,
    error: Option<DecodeError>,
    /// The bytes that were not taken off the stream; 0 after an error, when nobody asks.
    left: usize,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            written,
            error,
            left,
        } = self;
        write!(f, "{}, {error:?}, {left} left", written.escape_ascii())
    }
}

/// Feeds a decoder: `first` bytes, then `step` more each time.
fn read(stream: &[u8], first: usize, step: usize, limits: Limits) -> Reading {
    let mut decoder = Decoder::new(limits);
    let mut input = BytesMut::new();
    let mut written = Vec::new();
    let mut came = 0;
    // Where the reply at hand begins.
    let mut start = 0;
    let mut end = first;
    loop {
        end = end.min(stream.len());
        input.extend_from_slice(&stream[came..end]);
        came = end;
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(reply)) => {
                    let size = measure(&reply, false);
                    let taken = came - input.len() - start;
                    assert!(size.depth <= limits.depth, "{} deep", size.depth);
                    assert!(
                        size.elements <= limits.elements,
                        "{} elements",
                        size.elements
                    );
                    assert!(
                        size.bytes <= limits.bytes.min(taken),
                        "{} bytes",
                        size.bytes
                    );
                    write(&reply, &mut written);
                    start += taken;
                    assert!(!decoder.is_within_reply());
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&mut input), Err(error), "errors stay");
                    let error = Some(error);
                    let left = 0;
                    return Reading {
                        written,
                        error,
                        left,
                    };
                }
            }
        }
        // Whoever has no bytes left knows from the decoder whether a reply is cut off.
        assert!(!input.is_empty() || decoder.is_within_reply() == (came > start));
        if came == stream.len() {
            return Reading {
                written,
                error: None,
                left: input.len(),
            };
        }
        end += step;
    }
}

#[derive(Default)]
struct Size {
    depth: usize,
    elements: usize,
    bytes: usize,
}

fn measure(reply: &Reply, is_inside: bool) -> Size {
    let parts: Vec<&Reply> = match reply {
        Reply::Simple(text) => {
            assert!(!text.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
            return Size::of(text.len());
        }
        Reply::BigNumber(text) => {
            assert!(text.last().is_some_and(u8::is_ascii_digit));
            return Size::of(text.len());
        }
        Reply::Error(text) | Reply::Bulk(text) => return Size::of(text.len()),
        Reply::Verbatim { text, .. } => return Size::of(text.len() + 4),
        Reply::Integer(_) | Reply::Null | Reply::Boolean(_) | Reply::Double(_) => {
            return Size::default();
        }
        Reply::Array(parts) | Reply::Set(parts) => parts.iter().collect(),
        Reply::Push(parts) => {
            assert!(!is_inside, "a push message inside of a reply");
            parts.iter().collect()
        }
        Reply::Map(pairs) => pairs.iter().flat_map(|(key, value)| [key, value]).collect(),
        Reply::Attributed(attributed) => {
            let pairs = attributed.attributes.iter();
            let parts = pairs.flat_map(|(key, value)| [key, value]);
            parts.chain([&attributed.reply]).collect()
        }
    };
    let mut size = Size::default();
    for part in &parts {
        let inner = measure(part, true);
        size.depth = size.depth.max(inner.depth);
        size.elements += inner.elements;
        size.bytes += inner.bytes;
    }
    size.depth += 1;
    size.elements += parts.len();
    size
}

impl Size {
    fn of(bytes: usize) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }
}

/// Appends a reply in RESP3, by hand: a server's writer has no reason to write them all.
fn write(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Simple(text) => line(out, '+', text),
        Reply::Error(text) => payload(out, '!', text),
        Reply::Integer(value) => line(out, ':', value.to_string().as_bytes()),
        Reply::Bulk(text) => payload(out, '$', text),
        Reply::Null => line(out, '_', b""),
        Reply::Boolean(value) => line(out, '#', if *value { b"t" } else { b"f" }),
        Reply::Double(value) => line(out, ',', value.to_string().to_lowercase().as_bytes()),
        Reply::BigNumber(text) => line(out, '(', text),
        Reply::Verbatim { format, text } => payload(out, '=', &[format, &b":"[..], text].concat()),
        Reply::Array(parts) => list(out, '*', parts),
        Reply::Set(parts) => list(out, '~', parts),
        Reply::Push(parts) => list(out, '>', parts),
        Reply::Map(pairs) => map(out, '%', pairs),
        Reply::Attributed(attributed) => {
            map(out, '|', &attributed.attributes);
            write(&attributed.reply, out);
        }
    }
}

fn line(out: &mut Vec<u8>, kind: char, text: &[u8]) {
    out.push(kind as u8);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn payload(out: &mut Vec<u8>, kind: char, text: &[u8]) {
    line(out, kind, text.len().to_string().as_bytes());
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn list(out: &mut Vec<u8>, kind: char, parts: &[Reply]) {
    line(out, kind, parts.len().to_string().as_bytes());
    for part in parts {
        write(part, out);
    }
}

fn map(out: &mut Vec<u8>, kind: char, pairs: &[(Reply, Reply)]) {
    line(out, kind, pairs.len().to_string().as_bytes());
    for (key, value) in pairs {
        write(key, out);
        write(value, out);
    }
}
