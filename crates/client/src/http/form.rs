//! Requests and answers in the forms of Henge's HTTP interface: the raw form for values, JSON for the rest. Keys that cannot
//! stand in a path go into a body.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use henge_wire::Glob;
use http::header::{CONTENT_TYPE, HOST, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Body;
use crate::request::milliseconds;
use crate::{Answer, Cause, Condition, Error, Lifetime, Request, SetOptions};

/// Every version of a key.
const ANY: HeaderValue = HeaderValue::from_static("*");

const X_TTL: HeaderName = HeaderName::from_static("x-ttl");

/// Henge takes 65,534 bytes, but what stands before it may not.
const MAX_PATH_BYTES: usize = 8 * 1024;

/// The failures of a Henge that it says before it does anything: all of 503 but that of a flush, which some members may have
/// done, and all of 507.
const BEFORE: [&str; 10] = [
    "overloaded",
    "owner_down",
    "owner_unreachable",
    "no_control_leader",
    "not_in_cluster",
    "try_again",
    "loading",
    "too_many_connections",
    "log_failed",
    "memory_full",
];

/// A body of JSON; what is none is left out. Keys and values go as base64, as they are bytes.
#[derive(Serialize, Default)]
struct Json {
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<f64>,
    #[serde(skip_serializing_if = "is_false")]
    nx: bool,
    #[serde(skip_serializing_if = "is_false")]
    xx: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Json {
    fn of(key: &[u8]) -> Self {
        Self {
            key_base64: Some(STANDARD.encode(key)),
            ..Self::default()
        }
    }
}

/// The request on the wire.
pub(super) fn request(request: &Request<'_>, host: &HeaderValue) -> http::Request<Body> {
    match request {
        Request::Ping => bare(Method::GET, "/health", Bytes::new(), host),
        Request::Get { key } => match raw_path(key) {
            Some(path) => bare(Method::GET, &path, Bytes::new(), host),
            None => post("/get", &Json::of(key), host),
        },
        Request::Set {
            key,
            value,
            options,
        } => {
            if let Some(path) = raw_path(key) {
                return put(&path, value, options, host);
            }
            let json = Json {
                value_base64: Some(STANDARD.encode(value)),
                ttl: options.ttl.map(seconds),
                nx: options.condition == Condition::IfAbsent,
                xx: options.condition == Condition::IfPresent,
                ..Json::of(key)
            };
            post("/set", &json, host)
        }
        Request::Delete { key } => post("/delete", &Json::of(key), host),
        Request::Increment { key, by } => {
            let by = Some(*by);
            post(
                "/incr",
                &Json {
                    by,
                    ..Json::of(key)
                },
                host,
            )
        }
        Request::Lifetime { key } => post("/ttl", &Json::of(key), host),
        Request::Expire { key, ttl } => {
            let ttl = Some(seconds(*ttl));
            let json = Json {
                ttl,
                ..Json::of(key)
            };
            post("/expire", &json, host)
        }
        Request::Scan {
            cursor,
            pattern,
            count,
        } => {
            let json = Json {
                prefix_base64: Some(STANDARD.encode(Glob::new(pattern).literal_prefix())),
                cursor: Some((*cursor).to_owned()),
                limit: Some(*count),
                ..Json::default()
            };
            post("/keys", &json, host)
        }
    }
}

/// Asks for the map of the cluster.
pub(super) fn cluster_status(host: &HeaderValue) -> http::Request<Body> {
    bare(Method::GET, "/cluster/status", Bytes::new(), host)
}

fn bare(method: Method, path: &str, body: Bytes, host: &HeaderValue) -> http::Request<Body> {
    let path = http::uri::PathAndQuery::try_from(path).expect("a path of ours is in ASCII");
    let mut request = http::Request::new(Body::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = http::Uri::from(path);
    request.headers_mut().insert(HOST, host.clone());
    request
}

fn post(path: &str, json: &Json, host: &HeaderValue) -> http::Request<Body> {
    let body = serde_json::to_vec(json).expect("texts and finite numbers are JSON");
    let mut request = bare(Method::POST, path, body.into(), host);
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    request
}

fn put(path: &str, value: &[u8], options: &SetOptions, host: &HeaderValue) -> http::Request<Body> {
    let body = Bytes::copy_from_slice(value);
    let mut request = bare(Method::PUT, path, body, host);
    let headers = request.headers_mut();
    if let Some(ms) = options.ttl.and_then(milliseconds) {
        let seconds = format!("{}.{:03}", ms / 1000, ms % 1000);
        let seconds = HeaderValue::try_from(seconds).expect("digits and a dot are a header");
        headers.insert(X_TTL, seconds);
    }
    match options.condition {
        Condition::Always => None,
        Condition::IfAbsent => headers.insert(IF_NONE_MATCH, ANY),
        Condition::IfPresent => headers.insert(IF_MATCH, ANY),
    };
    request
}

/// A lifetime as JSON has it, rounded up to what servers count in.
fn seconds(ttl: Duration) -> f64 {
    milliseconds(ttl).unwrap_or(u64::MAX) as f64 / 1000.0
}

/// The path of the raw form, unless the key is too long for it, or empty, which has no raw form. Slashes are encoded too: what
/// is between might take `a//b` and `a/b` for the same.
fn raw_path(key: &[u8]) -> Option<String> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if key.is_empty() || key.len() > MAX_PATH_BYTES / 3 {
        return None;
    }
    let mut path = String::with_capacity(7 + key.len() + key.len() / 2);
    path.push_str("/cache/");
    for &byte in key {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':') {
            path.push(char::from(byte));
        } else {
            path.push('%');
            path.push(char::from(HEX[usize::from(byte >> 4)]));
            path.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    // A path may hold dots, but `.` and `..` alone mean to go elsewhere, also when they are encoded.
    (!matches!(key, b"." | b"..")).then_some(path)
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default, deserialize_with = "also_null")]
    value: Option<&'a RawValue>,
    value_base64: Option<String>,
}

/// serde takes a null for an absence; here it is a value.
fn also_null<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

#[derive(Deserialize)]
struct Deleted {
    deleted: bool,
}

#[derive(Deserialize)]
struct Counted {
    value: i64,
}

#[derive(Deserialize)]
struct Ttl {
    ttl: Option<f64>,
}

#[derive(Deserialize)]
struct Page {
    keys: Vec<String>,
    #[serde(default)]
    keys_base64: Vec<String>,
    cursor: String,
}

/// What a response says to a request. The outer error is a response that answers no such request, or does not say whether
/// a write happened.
pub(super) fn answer(
    request: &Request<'_>,
    status: StatusCode,
    body: Bytes,
) -> Result<Result<Answer, Error>, Cause> {
    if !status.is_success() {
        let problem = Refusal::of(status, &body);
        return match problem.answer(request) {
            Some(answer) => Ok(Ok(answer)),
            None if request.is_write() && problem.may_have_happened() => {
                Err(Cause::Server(problem.line()))
            }
            None => Ok(Err(problem.into_error())),
        };
    }
    let answer = match request {
        Request::Ping => Answer::Pong,
        Request::Get { key } => match raw_path(key) {
            Some(_) => Answer::Value(Some(body)),
            None => Answer::Value(Some(value(parsed(&body)?)?)),
        },
        Request::Set { .. } => Answer::Stored(true),
        Request::Delete { .. } => Answer::Deleted(parsed::<Deleted>(&body)?.deleted),
        Request::Increment { .. } => Answer::Counted(parsed::<Counted>(&body)?.value),
        Request::Lifetime { .. } => Answer::Lifetime(match parsed::<Ttl>(&body)?.ttl {
            None => Lifetime::Unlimited,
            Some(seconds) => Duration::try_from_secs_f64(seconds)
                .map(Lifetime::Left)
                .map_err(|_| Cause::Protocol(format!("{seconds} is no lifetime")))?,
        }),
        Request::Expire { .. } => Answer::Expires(true),
        Request::Scan { pattern, .. } => page(parsed(&body)?, pattern)?,
    };
    Ok(Ok(answer))
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Cause> {
    serde_json::from_slice(body)
        .map_err(|error| Cause::Protocol(format!("the answer is not the JSON expected: {error}")))
}

fn from_base64(text: &str) -> Result<Bytes, Cause> {
    STANDARD
        .decode(text)
        .map(Bytes::from)
        .map_err(|error| Cause::Protocol(format!("the answer holds no base64: {error}")))
}

/// A JSON string is the value's bytes; of any other JSON the value is its text.
fn value(item: Item<'_>) -> Result<Bytes, Cause> {
    match (item.value, item.value_base64) {
        (Some(raw), None) if raw.get().starts_with('"') => {
            Ok(parsed::<String>(raw.get().as_bytes())?.into())
        }
        (Some(raw), None) => Ok(Bytes::copy_from_slice(raw.get().as_bytes())),
        (None, Some(text)) => from_base64(&text),
        _ => Err(Cause::Protocol("the answer holds no value".to_owned())),
    }
}

/// The node knows prefixes; the rest of the pattern is matched here.
fn page(page: Page, pattern: &[u8]) -> Result<Answer, Cause> {
    let mut keys: Vec<Bytes> = page.keys.into_iter().map(Bytes::from).collect();
    for text in &page.keys_base64 {
        keys.push(from_base64(text)?);
    }
    let pattern = Glob::new(pattern);
    keys.retain(|key| pattern.matches(key));
    let cursor = page.cursor;
    Ok(Answer::Page { cursor, keys })
}

/// A response that is none of success.
struct Refusal {
    status: StatusCode,
    /// What a Henge says; something else on the port may say anything.
    problem: Option<Problem>,
}

impl Refusal {
    fn of(status: StatusCode, body: &[u8]) -> Self {
        let problem = serde_json::from_slice(body).ok();
        Self { status, problem }
    }

    /// Some refusals are answers.
    fn answer(&self, request: &Request<'_>) -> Option<Answer> {
        let code = self.problem.as_ref().map(|problem| problem.code.as_str())?;
        match (request, code) {
            (Request::Get { .. }, "key_not_found") => Some(Answer::Value(None)),
            (Request::Lifetime { .. }, "key_not_found") => {
                Some(Answer::Lifetime(Lifetime::Missing))
            }
            (Request::Expire { .. }, "key_not_found") => Some(Answer::Expires(false)),
            (Request::Set { options, .. }, "precondition_failed")
                if options.condition != Condition::Always =>
            {
                Some(Answer::Stored(false))
            }
            _ => None,
        }
    }

    /// Whether a write may be done. After any failure of a server that is not known to be said before anything is done, or of
    /// what is before the server, there is no telling how far it got.
    fn may_have_happened(&self) -> bool {
        let code = self.problem.as_ref().map(|problem| problem.code.as_str());
        self.status.is_server_error() && !code.is_some_and(|code| BEFORE.contains(&code))
    }

    fn line(&self) -> String {
        match &self.problem {
            Some(problem) => format!("{}: {}: {}", self.status, problem.code, problem.said()),
            None => self.status.to_string(),
        }
    }

    fn into_error(self) -> Error {
        match self.problem {
            Some(problem) => Error::Refused {
                message: problem.said().to_owned(),
                code: problem.code,
            },
            None => Error::Refused {
                code: self.status.as_str().to_owned(),
                message: format!(
                    "{}; is this a Henge node?",
                    self.status.canonical_reason().unwrap_or("unknown status")
                ),
            },
        }
    }
}

impl Problem {
    fn said(&self) -> &str {
        if self.detail.is_empty() {
            &self.title
        } else {
            &self.detail
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    const GET: Request<'_> = Request::Get { key: b"k" };
    const PLAIN: Request<'_> = set(
        b"k",
        SetOptions {
            ttl: None,
            condition: Condition::Always,
        },
    );
    const NX: Request<'_> = set(
        b"k",
        SetOptions {
            ttl: None,
            condition: Condition::IfAbsent,
        },
    );
    const TTL: Request<'_> = Request::Lifetime { key: b"k" };
    const SCAN: Request<'_> = Request::Scan {
        cursor: "0",
        pattern: b"a*c",
        count: 7,
    };

    const fn set(key: &[u8], options: SetOptions) -> Request<'_> {
        Request::Set {
            key,
            value: b"v\xff",
            options,
        }
    }

    /// A request, the status, the body, and the answer, or what is refused, or what is wrong.
    type Case<'a> = (Request<'a>, u16, &'static str, Result<Answer, &'a str>);

    /// The first line, the headers but Host, and the body, of a body that is there at once.
    fn shown(sent: http::Request<Body>) -> String {
        let (head, body) = sent.into_parts();
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(body)) = pin!(body.collect()).as_mut().poll(&mut context) else {
            panic!("the body is whole");
        };
        let headers = head.headers.iter();
        let headers = headers.filter(|(name, _)| **name != HOST && **name != CONTENT_TYPE);
        let headers: String = headers
            .flat_map(|(name, value)| [" ", name.as_str(), "=", value.to_str().expect("ASCII")])
            .collect();
        let body = body.to_bytes();
        let shown = format!(
            "{} {}{headers} {}",
            head.method,
            head.uri,
            String::from_utf8_lossy(&body)
        );
        shown.trim_end().to_owned()
    }

    #[test]
    fn requests_take_the_raw_form_where_they_can() {
        let options = SetOptions::new().ttl(Duration::from_micros(1_500_001));
        let nx = options.condition(Condition::IfAbsent);
        let xx = SetOptions::new().condition(Condition::IfPresent);
        let long = vec![b'k'; MAX_PATH_BYTES];
        let ttl = Duration::from_secs(2);
        let table = [
            (Request::Ping, "GET /health"),
            (GET, "GET /cache/k"),
            (
                Request::Get {
                    key: b"a/b c?%:\xff",
                },
                "GET /cache/a%2Fb%20c%3F%25:%FF",
            ),
            (Request::Get { key: b"" }, r#"POST /get {"key_base64":""}"#),
            (
                Request::Get { key: b".." },
                r#"POST /get {"key_base64":"Li4="}"#,
            ),
            (PLAIN, "PUT /cache/k v�"),
            (set(b"k", nx), "PUT /cache/k x-ttl=1.501 if-none-match=* v�"),
            (set(b"k", xx), "PUT /cache/k if-match=* v�"),
            (
                set(b"", nx),
                r#"POST /set {"key_base64":"","value_base64":"dv8=","ttl":1.501,"nx":true}"#,
            ),
            (
                Request::Delete { key: b"k" },
                r#"POST /delete {"key_base64":"aw=="}"#,
            ),
            (
                Request::Increment { key: b"k", by: -1 },
                r#"POST /incr {"key_base64":"aw==","by":-1}"#,
            ),
            (TTL, r#"POST /ttl {"key_base64":"aw=="}"#),
            (
                Request::Expire { key: b"k", ttl },
                r#"POST /expire {"key_base64":"aw==","ttl":2.0}"#,
            ),
            (
                SCAN,
                r#"POST /keys {"prefix_base64":"YQ==","cursor":"0","limit":7}"#,
            ),
        ];
        let host = HeaderValue::from_static("h");
        for (sent, expected) in table {
            assert_eq!(shown(request(&sent, &host)), expected);
        }
        let long = shown(request(&Request::Get { key: &long }, &host));
        assert!(long.starts_with("POST /get "), "{long}");
    }

    #[test]
    fn responses_are_answers() {
        let empty = Request::Get { key: b"" };
        let value = |text: &'static str| Ok(Answer::Value(Some(text.into())));
        let left = Lifetime::Left(Duration::from_millis(1500));
        let missing = r#"{"code":"key_not_found","status":404}"#;
        let unmet = r#"{"code":"precondition_failed","title":"no"}"#;
        let full = r#"{"code":"memory_full","title":"no room","detail":"none"}"#;
        let table: &[Case] = &[
            (Request::Ping, 200, "{}", Ok(Answer::Pong)),
            (GET, 200, "v", value("v")),
            (GET, 404, missing, Ok(Answer::Value(None))),
            (
                GET,
                404,
                "nothing here",
                Err("the server refused: 404: Not Found; is this a Henge node?"),
            ),
            (
                GET,
                500,
                "",
                Err("the server refused: 500: Internal Server Error; is this a Henge node?"),
            ),
            (empty, 200, r#"{"value":"a\u00e9"}"#, value("a\u{e9}")),
            (
                empty,
                200,
                r#"{"value": {"a": [1.50]} }"#,
                value(r#"{"a": [1.50]}"#),
            ),
            (empty, 200, r#"{"value":null}"#, value("null")),
            (
                empty,
                200,
                r#"{"value_base64":"/w=="}"#,
                Ok(Answer::Value(Some(Bytes::from_static(b"\xff")))),
            ),
            (
                empty,
                200,
                r#"{"value_base64":"/"}"#,
                Err("the answer holds no base64: "),
            ),
            (empty, 200, "{}", Err("the answer holds no value")),
            (
                empty,
                200,
                "[",
                Err("the answer is not the JSON expected: "),
            ),
            (PLAIN, 204, "", Ok(Answer::Stored(true))),
            (
                PLAIN,
                412,
                unmet,
                Err("the server refused: precondition_failed: no"),
            ),
            (NX, 412, unmet, Ok(Answer::Stored(false))),
            (NX, 507, full, Err("the server refused: memory_full: none")),
            (NX, 503, "", Err("503 Service Unavailable")),
            (
                NX,
                500,
                r#"{"code":"internal","title":"oh"}"#,
                Err("500 Internal Server Error: internal: oh"),
            ),
            (TTL, 200, r#"{"ttl":1.500}"#, Ok(Answer::Lifetime(left))),
            (
                TTL,
                200,
                r#"{"ttl":null}"#,
                Ok(Answer::Lifetime(Lifetime::Unlimited)),
            ),
            (TTL, 200, r#"{"ttl":-1}"#, Err("-1 is no lifetime")),
            (TTL, 404, missing, Ok(Answer::Lifetime(Lifetime::Missing))),
            (
                SCAN,
                200,
                r#"{"keys":["abc","ab"],"keys_base64":["Yf9j"],"cursor":"5"}"#,
                Ok(Answer::Page {
                    cursor: "5".to_owned(),
                    keys: vec!["abc".into(), Bytes::from_static(b"a\xffc")],
                }),
            ),
        ];
        for (request, status, body, expected) in table {
            let status = StatusCode::from_u16(*status).expect("a status");
            let found = match answer(request, status, Bytes::from_static(body.as_bytes())) {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(refused)) => Err(refused.to_string()),
                Err(cause) => Err(cause.to_string()),
            };
            match (&found, expected) {
                (Err(found), Err(start)) => assert!(found.starts_with(start), "{found}"),
                _ => assert_eq!(found, expected.clone().map_err(str::to_owned), "{body}"),
            }
        }
    }

    /// A failure that nobody knows to be said before anything is done leaves a write unknown.
    #[test]
    fn a_write_is_refused_only_where_nothing_was_done() {
        let table = [
            (503, "owner_down", true),
            (503, "overloaded", true),
            (507, "log_failed", true),
            (503, "partly_flushed", false),
            (503, "one_of_tomorrow", false),
            (504, "outcome_unknown", false),
        ];
        for (status, code, is_refused) in table {
            let body = format!(r#"{{"code":"{code}","title":"oh"}}"#);
            let status = StatusCode::from_u16(status).expect("a status");
            let answered = answer(&NX, status, body.clone().into());
            match answered {
                Ok(Err(Error::Refused { code: said, .. })) if is_refused => assert_eq!(said, code),
                Err(Cause::Server(line)) if !is_refused => assert!(line.contains(code), "{line}"),
                other => panic!("{code}: {other:?}"),
            }
            // A read has nothing to be unknown about.
            let answered = answer(&GET, status, body.into());
            assert!(matches!(answered, Ok(Err(Error::Refused { .. }))), "{code}");
        }
    }
}
