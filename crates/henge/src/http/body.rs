//! Reading the body of a request, within bounds: of its size, of its speed, and of what the whole node holds at once.

use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::problem::{Code, Problem};
use crate::net::inflight::Hold;
use crate::net::pace::{SLOWEST_IN, behind_since};
use crate::shared::Shared;
use crate::values::SHARED_BYTES;

/// A body that was read whole.
#[derive(Debug)]
pub(crate) struct Whole<'a> {
    pub(crate) bytes: Bytes,
    /// The part of the node's memory that it takes, until this is dropped.
    hold: Hold<'a>,
}

impl Whole<'_> {
    /// The same, held for as long as there is anything of it: for work that goes on elsewhere. Not for what the cache may keep.
    pub(crate) fn held(self) -> Bytes {
        self.hold.attach(self.bytes)
    }
}

/// Refuses a body that is encoded: the node would have to bound what comes out of it too.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let identity = |value: &&HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .find(|value| !identity(value))
    {
        None => Ok(()),
        Some(encoding) => {
            let detail = format!(
                "Content-Encoding is {encoding:?}; send the body as it is, the node compresses values"
            );
            Err(Problem::new(Code::UnsupportedEncoding, detail).closing())
        }
    }
}

/// Refuses a body that is not said to be JSON. A web page may send other types to anybody, and JSON to nobody who has not agreed
/// to that.
pub(crate) fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    let found = headers.get(CONTENT_TYPE);
    let is_json = |value: &HeaderValue| {
        let value = value.as_bytes();
        let end = value.iter().position(|&byte| byte == b';');
        let kind = value[..end.unwrap_or(value.len())].trim_ascii();
        let is_suffixed = || {
            let suffix = kind.len().checked_sub(5).map(|at| &kind[at..]);
            suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"))
        };
        kind.eq_ignore_ascii_case(b"application/json") || is_suffixed()
    };
    if found.is_some_and(is_json) {
        return Ok(());
    }
    let detail = match found {
        None => "there is no Content-Type; expected application/json".to_owned(),
        Some(found) => {
            let shown = &found.as_bytes()[..found.len().min(80)];
            let shown = shown.escape_ascii();
            format!("Content-Type is \"{shown}\"; expected application/json")
        }
    };
    Err(Problem::new(Code::UnsupportedMediaType, detail).closing())
}

/// Reads a body of at most `limit` bytes. `too_large` names the limit for the client.
pub(crate) async fn read(
    mut body: Incoming,
    shared: &Shared,
    limit: usize,
    too_large: impl Fn() -> Problem,
) -> Result<Whole<'_>, Problem> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|len| len > limit as u64) {
        return Err(too_large().closing());
    }
    let mut hold = shared.in_flight.hold();
    // Since when the client is behind.
    let mut since = Instant::now();
    let mut gathered: Vec<u8> = Vec::new();
    loop {
        let deadline = since + shared.limits().body_timeout;
        let frame = match tokio::time::timeout_at(deadline.into(), body.frame()).await {
            Err(_) => {
                let detail = format!(
                    "a body may be {} ms behind a KiB a second; {} bytes came",
                    shared.limits().body_timeout.as_millis(),
                    gathered.len()
                );
                return Err(Problem::new(Code::RequestTimeout, detail).closing());
            }
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                return Err(Problem::new(Code::InvalidBody, error.to_string()).closing());
            }
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        // Most bodies come in one piece, which is a view of the connection's buffer. One that the cache would keep by
        // reference is copied all the same, as it would keep the whole buffer.
        let small = data.len() < SHARED_BYTES && data.len() <= limit;
        if gathered.is_empty() && body.is_end_stream() && small {
            return Ok(Whole { bytes: data, hold });
        }
        since = behind_since(since, data.len() as u64, SLOWEST_IN, Instant::now());
        let len = gathered.len() + data.len();
        if len > limit {
            return Err(too_large().closing());
        }
        if len > gathered.capacity() {
            // Twice what came, but no more than was announced: a client cannot make the node allocate what it does
            // not send.
            let announced = announced.map_or(limit, |len| usize::try_from(len).unwrap_or(limit));
            let capacity = (2 * len).max(8 * 1024).min(announced).max(len);
            if !hold.set(capacity) {
                let detail = "bodies and answers in flight hold limits.max_inflight_bytes already, or of its address limits.max_inflight_bytes_per_address";
                return Err(Problem::new(Code::Overloaded, detail).closing());
            }
            gathered.reserve_exact(capacity - gathered.len());
        }
        gathered.extend_from_slice(&data);
    }
    gathered.shrink_to_fit();
    Ok(Whole {
        bytes: Bytes::from(gathered),
        hold,
    })
}
