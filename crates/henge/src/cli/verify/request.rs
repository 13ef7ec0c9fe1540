//! One request to a node over HTTP, which tells of each answer the version and whether anything was done; and what an answer means in
//! the checker's words. It sends nothing twice.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use henge_checker::{Answer, Condition, Event, Found, Made, Operation, Outcome};
use henge_wire::Version;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::options::Level;

/// The longest answer that is taken: `/cluster/status` of a few nodes, or a value of a MiB.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// What stands for a value that nobody wrote: all that are written are greater.
pub(super) const MANGLED: i64 = -1;

/// What a client asks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Read,
    /// A counter.
    Count,
    Write {
        value: i64,
        when: Condition,
    },
    Delete,
    /// One is added to a counter.
    Increment,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Answered(Reply),
    /// Nothing has left, and why.
    Unsent(String),
    /// It may have left, and no answer came.
    Silence(String),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// By its `ETag`.
    pub(super) version: Option<u64>,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn is_read(self) -> bool {
        matches!(self, Self::Read | Self::Count)
    }

    /// In the checker's words.
    pub(super) fn operation(self) -> Operation {
        match self {
            Self::Read | Self::Count => Operation::Read,
            Self::Write { value, when } => Operation::Write { value, when },
            Self::Delete => Operation::Delete {
                when: Condition::Always,
            },
            Self::Increment => Operation::Increment { by: 1 },
        }
    }

    /// As HTTP has it. `size` is that of a value.
    fn request(
        self,
        key: &str,
        host: &str,
        level: Level,
        size: usize,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let path = format!("/cache/{}", key.replace('{', "%7B").replace('}', "%7D"));
        let mut request = Request::builder()
            .header(header::HOST, host)
            .header("x-consistency-level", level.name());
        let (method, path, body) = match self {
            Self::Read | Self::Count => (Method::GET, path, Bytes::new()),
            Self::Delete => (Method::DELETE, path, Bytes::new()),
            Self::Increment => {
                let body = serde_json::json!({ "key": key }).to_string();
                (Method::POST, "/incr".to_owned(), body.into())
            }
            Self::Write { value, when } => {
                request = match when {
                    Condition::Absent => request.header(header::IF_NONE_MATCH, "*"),
                    Condition::Present => request.header(header::IF_MATCH, "*"),
                    Condition::Version(version) => {
                        let tag = format!("\"{}\"", Version::from_bits(version));
                        request.header(header::IF_MATCH, tag)
                    }
                    Condition::Always | Condition::Value(_) => request,
                };
                (Method::PUT, path, text_of(value, size).into())
            }
        };
        request.method(method).uri(path).body(Full::new(body))
    }

    /// What was told, in the checker's words; none if it says nothing: a read that was not answered.
    pub(super) fn outcome(self, told: &Told, size: usize) -> Option<Outcome> {
        let outcome = match told {
            Told::Unsent(_) => Outcome::Failed,
            Told::Silence(_) => Outcome::Unknown,
            Told::Answered(reply) => match self.answer(reply, size) {
                Some(answer) => Outcome::Answered(answer),
                None if reply.was_nothing_done() => Outcome::Failed,
                None => Outcome::Unknown,
            },
        };
        let is_told = matches!(outcome, Outcome::Answered(_));
        (is_told || !self.is_read()).then_some(outcome)
    }

    /// What an answer says, if it is one.
    fn answer(self, reply: &Reply, size: usize) -> Option<Answer> {
        let version = reply.version;
        match (self, reply.status) {
            (Self::Read, 200) => Some(Answer::found(value_of(&reply.body, size), version)),
            (Self::Count, 200) => {
                let text = std::str::from_utf8(&reply.body).ok();
                let number = text.and_then(|text| text.parse().ok()).unwrap_or(MANGLED);
                Some(Answer::found(number, version))
            }
            (Self::Read | Self::Count | Self::Delete, 404) => {
                reply.is("key_not_found").then_some(Answer::MISSING)
            }
            (Self::Write { .. }, 204) => Some(Answer::done(version)),
            (Self::Write { when, .. }, 412) => Some(match reply.member("current_version") {
                Some(Value::Null) => Answer::MISSING,
                Some(Value::String(text)) => Answer {
                    found: Found::Something {
                        value: None,
                        version: text.parse().ok().map(Version::to_bits),
                    },
                    made: None,
                },
                _ if when == Condition::Absent => Answer::THERE,
                _ => Answer::REFUSED,
            }),
            (Self::Delete, 204) => Some(Answer::DONE.over(Found::Something {
                value: None,
                version: None,
            })),
            (Self::Increment, 200) => {
                let version = match reply.member("version")? {
                    Value::String(text) => text.parse().ok().map(Version::to_bits),
                    _ => None,
                };
                let sum = reply.member("value")?.as_i64()?;
                Some(Answer::counted(sum, version))
            }
            // What is there is no number: nobody wrote that.
            (Self::Increment, 409) => Some(Answer::found(MANGLED, None)),
            _ => None,
        }
    }
}

impl Reply {
    fn member(&self, name: &str) -> Option<Value> {
        let document: Value = serde_json::from_slice(&self.body).ok()?;
        document.get(name).cloned()
    }

    /// The word for what went wrong, or the status.
    pub(super) fn code(&self) -> String {
        match self.member("code") {
            // A few letters, of whoever answered.
            Some(Value::String(code)) => code.chars().take(40).collect(),
            _ => self.status.to_string(),
        }
    }

    fn is(&self, code: &str) -> bool {
        self.code() == code
    }

    /// Whether a refusal says that nothing was done and never will be. All that is not known to say so is not taken for it.
    fn was_nothing_done(&self) -> bool {
        const SURE: [&str; 9] = [
            "owner_down",
            "owner_unreachable",
            "try_again",
            "not_in_cluster",
            "loading",
            "overloaded",
            "too_many_connections",
            "memory_full",
            "log_failed",
        ];
        let code = self.code();
        let says_so = || {
            let detail = self.member("detail");
            let detail = detail.as_ref().and_then(Value::as_str);
            detail.is_some_and(|detail| detail.ends_with("nothing was done"))
        };
        match self.status {
            400..=499 => true,
            503 | 507 => SURE.contains(&&*code) || says_so(),
            _ => false,
        }
    }
}

/// The value with this number: every value is another text, as long as was asked for.
fn text_of(value: i64, size: usize) -> String {
    let mut text = format!("v{value}");
    let rest = size.saturating_sub(text.len());
    text.push_str(&".".repeat(rest));
    text
}

/// The number of a value.
fn value_of(text: &[u8], size: usize) -> i64 {
    let number = std::str::from_utf8(text).ok().and_then(|text| {
        let digits = text.strip_prefix('v')?.trim_end_matches('.');
        let value = digits.parse::<i64>().ok()?;
        (text == text_of(value, size)).then_some(value)
    });
    number.unwrap_or(MANGLED)
}

/// A connection to a node.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection to {}", self.host)
    }
}

impl Connection {
    /// Over this stream, to a server of this name.
    pub(super) async fn over(stream: TcpStream, host: String) -> Result<Self, String> {
        // Without it small requests would wait for each other.
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(|error| error.to_string())?;
        // It ends with the connection, and what went wrong there the request is told.
        tokio::spawn(driver);
        Ok(Self { sender, host })
    }

    /// Asks something of a key, and waits so long.
    pub(super) async fn ask(
        &mut self,
        asked: Asked,
        key: &str,
        level: Level,
        size: usize,
        timeout: Duration,
    ) -> Told {
        match asked.request(key, &self.host, level, size) {
            Ok(request) => self.send(request, timeout).await,
            Err(error) => Told::Unsent(error.to_string()),
        }
    }

    /// Asks for a page.
    pub(super) async fn page(&mut self, path: &str, timeout: Duration) -> Told {
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, &self.host)
            .body(Full::default());
        match request {
            Ok(request) => self.send(request, timeout).await,
            Err(error) => Told::Unsent(error.to_string()),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>, timeout: Duration) -> Told {
        let exchange = async {
            if let Err(error) = self.sender.ready().await {
                return Told::Unsent(error.to_string());
            }
            let response = match self.sender.try_send_request(request).await {
                Ok(response) => response,
                // It is given back only if none of it has left.
                Err(mut error) => {
                    let is_unsent = error.take_message().is_some();
                    let why = error.into_error().to_string();
                    return if is_unsent {
                        Told::Unsent(why)
                    } else {
                        Told::Silence(why)
                    };
                }
            };
            let (parts, body) = response.into_parts();
            match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
                Ok(whole) => Told::Answered(Reply {
                    status: parts.status.as_u16(),
                    version: version_of(&parts.headers),
                    body: whole.to_bytes(),
                }),
                Err(error) => Told::Silence(error.to_string()),
            }
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or_else(|_| Told::Silence(format!("no answer within {timeout:?}")))
    }
}

fn version_of(headers: &HeaderMap) -> Option<u64> {
    let tag = headers.get(header::ETAG)?.to_str().ok()?;
    let version: Version = tag.trim_matches('"').parse().ok()?;
    Some(version.to_bits())
}

/// What an event says was made or found under which version, for who asks for it next.
pub(super) fn version_told(event: &Event) -> Option<u64> {
    let Outcome::Answered(answer) = event.outcome else {
        return None;
    };
    match (answer.made, answer.found) {
        (Some(Made { version, .. }), _) | (None, Found::Something { version, .. }) => version,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, version: Option<&str>, body: &str) -> Told {
        Told::Answered(Reply {
            status,
            version: version
                .and_then(|text| text.parse().ok())
                .map(Version::to_bits),
            body: Bytes::copy_from_slice(body.as_bytes()),
        })
    }

    fn problem(status: u16, code: &str) -> Told {
        reply(status, None, &format!("{{\"code\":\"{code}\"}}"))
    }

    fn bits(term: u32, seq: u64) -> u64 {
        Version::new(term, seq).to_bits()
    }

    fn check(table: impl IntoIterator<Item = (Asked, Told, Option<Outcome>)>) {
        for (asked, told, outcome) in table {
            assert_eq!(asked.outcome(&told, 8), outcome, "{asked:?}: {told:?}");
        }
    }

    #[test]
    fn what_answers_to_reads_mean() {
        let answered = |answer| Some(Outcome::Answered(answer));
        let found = |value, version| answered(Answer::found(value, version));
        let missing = answered(Answer::MISSING);
        check([
            (
                Asked::Read,
                reply(200, Some("2-3"), "v7......"),
                found(7, Some(bits(2, 3))),
            ),
            (
                Asked::Read,
                reply(200, None, "v7....."),
                found(MANGLED, None),
            ),
            (Asked::Read, reply(200, None, "v-1....."), found(-1, None)),
            (Asked::Read, problem(404, "key_not_found"), missing),
            (Asked::Read, problem(404, "route_not_found"), None),
            (Asked::Read, problem(503, "owner_down"), None),
            (Asked::Read, Told::Silence(String::new()), None),
            (Asked::Count, reply(200, None, "12"), found(12, None)),
            (
                Asked::Count,
                reply(200, None, "v12....."),
                found(MANGLED, None),
            ),
        ]);
    }

    #[test]
    fn what_answers_to_writes_mean() {
        let answered = |answer| Some(Outcome::Answered(answer));
        let write = |when| Asked::Write { value: 7, when };
        let always = write(Condition::Always);
        let there = |version| Found::Something {
            value: None,
            version,
        };
        let refused = |version| {
            answered(Answer {
                found: there(version),
                made: None,
            })
        };
        let deleted = answered(Answer::DONE.over(there(None)));
        let missing = answered(Answer::MISSING);
        let current = |text: &str| reply(412, None, &format!("{{\"current_version\":{text}}}"));
        let mut table = vec![
            (
                always,
                reply(204, Some("1-9"), ""),
                answered(Answer::done(Some(bits(1, 9)))),
            ),
            (always, Told::Unsent(String::new()), Some(Outcome::Failed)),
            (always, Told::Silence(String::new()), Some(Outcome::Unknown)),
            (always, reply(503, None, "<html>"), Some(Outcome::Unknown)),
            (
                always,
                reply(
                    503,
                    None,
                    "{\"code\":\"new\",\"detail\":\"x; nothing was done\"}",
                ),
                Some(Outcome::Failed),
            ),
            (
                always,
                reply(
                    504,
                    None,
                    "{\"code\":\"new\",\"detail\":\"x; nothing was done\"}",
                ),
                Some(Outcome::Unknown),
            ),
            (
                write(Condition::Absent),
                current("\"4-5\""),
                refused(Some(bits(4, 5))),
            ),
            (
                write(Condition::Absent),
                problem(412, "precondition_failed"),
                answered(Answer::THERE),
            ),
            (write(Condition::Version(1)), current("null"), missing),
            (
                write(Condition::Version(1)),
                problem(412, "precondition_failed"),
                answered(Answer::REFUSED),
            ),
            (Asked::Delete, reply(204, None, ""), deleted),
            (Asked::Delete, problem(404, "key_not_found"), missing),
            (
                Asked::Increment,
                reply(200, None, "{\"value\":3,\"version\":\"1-2\"}"),
                answered(Answer::counted(3, Some(bits(1, 2)))),
            ),
            (
                Asked::Increment,
                problem(409, "not_an_integer"),
                answered(Answer::found(MANGLED, None)),
            ),
            (
                Asked::Increment,
                reply(200, None, "{}"),
                Some(Outcome::Unknown),
            ),
        ];
        for (status, code, outcome) in [
            (503, "owner_down", Outcome::Failed),
            (503, "owner_unreachable", Outcome::Failed),
            (507, "log_failed", Outcome::Failed),
            (400, "invalid_host", Outcome::Failed),
            (503, "something_new", Outcome::Unknown),
            (504, "outcome_unknown", Outcome::Unknown),
            (500, "internal", Outcome::Unknown),
        ] {
            for asked in [always, Asked::Delete, Asked::Increment] {
                table.push((asked, problem(status, code), Some(outcome)));
            }
        }
        check(table);
    }

    #[test]
    fn values_are_as_long_as_they_should_be() {
        for (value, size) in [(1, 1), (1, 64), (1 << 50, 4), (9, 1 << 20)] {
            let text = text_of(value, size);
            assert!(text.len() >= size);
            assert_eq!(value_of(text.as_bytes(), size), value);
            let cut = text.len() - 1;
            assert_ne!(value_of(&text.as_bytes()[..cut], size), value, "{text}");
        }
    }
}
