//! A connection that speaks the Redis protocol. Requests are written and answers read in one loop, so that a server that
//! answers before it has read a long pipeline is not waited for by a client that waits for it.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use henge_wire::resp::encode;
use henge_wire::resp::reply::{Decoder, Limits, Reply};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use crate::request::milliseconds;
use crate::{Answer, ApiKey, Cause, Condition, ConsistencyLevel, Error, Lifetime, Request, Socket};

/// Room for one read. Large answers double it by themselves.
const READ_BYTES: usize = 16 * 1024;
/// A buffer that grew beyond this for one request is not kept for the next.
const KEPT_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct RespLink {
    socket: Socket,
    /// The requests of the pipeline at hand, where each of them ends, and how much may have left: it was given to the system, or to
    /// TLS.
    out: Vec<u8>,
    ends: Vec<usize>,
    sent: usize,
    /// TLS may hold some of that back.
    is_flushed: bool,
    input: BytesMut,
    decoder: Decoder,
    answered: usize,
    /// That of all commands, by the server's word; none while it is the server's default.
    level: Option<ConsistencyLevel>,
    /// Set while a pipeline is on its way, so that it stays set when one fails or is dropped halfway.
    is_engaged: bool,
}

impl RespLink {
    pub(crate) fn new(socket: Socket, max_answer_bytes: usize) -> Self {
        let limits = Limits {
            bytes: max_answer_bytes,
            ..Limits::default()
        };
        Self {
            socket,
            out: Vec::new(),
            ends: Vec::new(),
            sent: 0,
            is_flushed: true,
            input: BytesMut::new(),
            decoder: Decoder::new(limits),
            answered: 0,
            level: None,
            is_engaged: false,
        }
    }

    /// Shows the server a key.
    pub(crate) async fn log_in(&mut self, key: &ApiKey, deadline: Instant) -> Result<(), Cause> {
        let words = [b"AUTH", key.reveal().as_bytes()];
        match self.query(&words, deadline).await {
            Ok(Reply::Error(text)) => Err(Cause::Server(refused(&text).to_string())),
            Ok(_) => Ok(()),
            Err(Error::Unanswered(cause) | Error::Unknown(cause)) => Err(cause),
            Err(error) => Err(Cause::Protocol(error.to_string())),
        }
    }

    pub(crate) fn level(&self) -> Option<ConsistencyLevel> {
        self.level
    }

    /// Has the server do what follows at this level, or at its default, if it does not yet.
    ///
    /// Its word is waited for: one that does not know levels would do what follows all the same, and as it likes.
    pub(crate) async fn use_level(
        &mut self,
        level: Option<ConsistencyLevel>,
        key: Option<&ApiKey>,
        deadline: Instant,
    ) -> Result<(), Error> {
        if level == self.level {
            return Ok(());
        }
        let Some(named) = level else {
            // The default has no name, and may change: a connection has it by being as it was when it was new.
            let reset = self.query(&[b"RESET"], deadline).await?;
            if let Reply::Error(text) = &reset {
                return Err(refused(text));
            }
            if let Some(key) = key
                && let Err(cause) = self.log_in(key, deadline).await
            {
                // Nobody may take it for one that has shown its key.
                self.is_engaged = true;
                return Err(Error::Unanswered(cause));
            }
            self.level = None;
            return Ok(());
        };
        let words: [&[u8]; 3] = [b"HENGE", b"LEVEL", named.name().as_bytes()];
        if let Reply::Error(text) = &self.query(&words, deadline).await? {
            return Err(refused(text));
        }
        self.level = level;
        Ok(())
    }

    pub(crate) fn is_usable(&mut self) -> bool {
        let is_between = self.input.is_empty() && !self.decoder.is_within_reply();
        !self.is_engaged && is_between && self.socket.is_quiet()
    }

    pub(crate) async fn pipeline(
        &mut self,
        requests: &[Request<'_>],
        deadline: Instant,
        mut on_answer: impl FnMut(usize, Result<Answer, Error>),
    ) -> Result<(), Error> {
        self.begin()?;
        for request in requests {
            encode_request(&mut self.out, request);
            self.ends.push(self.out.len());
        }
        let exchanged = self.exchange(deadline, |place, reply| {
            on_answer(place, answer_to(&requests[place], reply)?);
            Ok(())
        });
        let Err(cause) = exchanged.await else {
            return Ok(());
        };
        // A server carries out no command that did not arrive as a whole.
        let may_have_happened = requests
            .iter()
            .zip(&self.ends)
            .skip(self.answered)
            .any(|(request, end)| request.is_write() && *end <= self.sent);
        Err(Error::without_answer(cause, may_have_happened))
    }

    /// Sends a request to a server that is not yet known as the owner of its key, and serves it only for having been told so
    /// by the command before it.
    pub(crate) async fn execute_asking(
        &mut self,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        self.begin()?;
        encode::request(&mut self.out, &[b"ASKING"]);
        self.ends.push(self.out.len());
        encode_request(&mut self.out, request);
        self.ends.push(self.out.len());
        let mut answer = None;
        let exchanged = self.exchange(deadline, |place, reply| {
            // If the first is refused, so is what follows.
            if place == 1 {
                answer = Some(answer_to(request, reply)?);
            }
            Ok(())
        });
        match exchanged.await {
            Ok(()) => answer.expect("an exchange without an error answers each request"),
            Err(cause) => {
                let was_sent = self.sent == self.out.len();
                Err(Error::without_answer(cause, was_sent && request.is_write()))
            }
        }
    }

    /// Sends a command that changes nothing, and hands over its reply as it is.
    pub(crate) async fn query(
        &mut self,
        words: &[&[u8]],
        deadline: Instant,
    ) -> Result<Reply, Error> {
        self.begin()?;
        encode::request(&mut self.out, words);
        self.ends.push(self.out.len());
        let mut found = None;
        let exchanged = self.exchange(deadline, |_, reply| {
            found = Some(reply);
            Ok(())
        });
        match exchanged.await {
            Ok(()) => Ok(found.expect("an exchange without an error answers each request")),
            Err(cause) => Err(Error::Unanswered(cause)),
        }
    }

    /// Makes room for the requests of an exchange.
    fn begin(&mut self) -> Result<(), Error> {
        if self.is_engaged {
            return Err(Error::Unanswered(Cause::Closed));
        }
        self.is_engaged = true;
        self.out.clear();
        self.ends.clear();
        self.sent = 0;
        self.answered = 0;
        Ok(())
    }

    /// Sends what was encoded since the beginning, and hands over the reply to each request.
    async fn exchange(
        &mut self,
        deadline: Instant,
        on_reply: impl FnMut(usize, Reply) -> Result<(), Cause>,
    ) -> Result<(), Cause> {
        let began = Instant::now();
        match timeout_at(deadline, self.drive(on_reply)).await {
            Ok(Ok(())) => {
                // A server may refuse what it has not read to its end; then the rest is never sent.
                self.is_engaged = self.sent < self.out.len() || !self.is_flushed;
                self.out.clear();
                self.out.shrink_to(KEPT_BYTES);
                Ok(())
            }
            Ok(Err(cause)) => Err(cause),
            Err(_) => Err(Cause::TimedOut(deadline.duration_since(began))),
        }
    }

    async fn drive(
        &mut self,
        mut on_reply: impl FnMut(usize, Reply) -> Result<(), Cause>,
    ) -> Result<(), Cause> {
        // What a server that closes the connection says before is worth more than that it cannot be written to.
        let mut write_error = None;
        poll_fn(|cx| {
            loop {
                if write_error.is_none() {
                    write_error = self.send_some(cx).err();
                }
                while self.answered < self.ends.len() {
                    let reply = self.decoder.decode(&mut self.input);
                    let reply = reply.map_err(|error| Cause::Protocol(error.to_string()))?;
                    let Some(reply) = reply else {
                        break;
                    };
                    on_reply(self.answered, reply)?;
                    self.answered += 1;
                }
                if self.answered == self.ends.len() {
                    return Poll::Ready(Ok(()));
                }
                if ready!(self.poll_receive(cx))? == 0 {
                    let error = write_error.take();
                    return Poll::Ready(Err(error.map_or(Cause::Closed, Cause::from)));
                }
            }
        })
        .await
    }

    /// Writes what there is room for, and sees to it that there is a turn for the rest.
    fn send_some(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.sent < self.out.len() {
            let mut socket = Pin::new(&mut self.socket);
            match socket.as_mut().poll_write(cx, &self.out[self.sent..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => {
                    self.sent += len;
                    self.is_flushed = false;
                }
                Poll::Ready(Err(error)) => {
                    // How much of it had left before is not said, and whoever asks has to take it for all of it.
                    if !self.socket.is_plain() {
                        self.sent = self.out.len();
                    }
                    return Err(error);
                }
                Poll::Pending => return Ok(()),
            }
        }
        if !self.is_flushed {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(flushed) => {
                    flushed?;
                    self.is_flushed = true;
                }
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// Reads what has come; 0 if that is the end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.is_empty() && self.input.capacity() > KEPT_BYTES {
            self.input = BytesMut::new();
        }
        self.input.reserve(READ_BYTES);
        // It keeps nothing from one turn to the next.
        pin!(self.socket.read_buf(&mut self.input)).poll(cx)
    }
}

/// Appends a request as its command.
fn encode_request(out: &mut Vec<u8>, request: &Request<'_>) {
    match request {
        Request::Ping => encode::request(out, &[b"PING"]),
        Request::Get { key } => encode::request(out, &[b"GET", key]),
        Request::Set {
            key,
            value,
            options,
        } => {
            let ttl = options.ttl.and_then(milliseconds).map(|ms| ms.to_string());
            let mut arguments: [&[u8]; 6] = [b"SET", key, value, b"", b"", b""];
            let mut len = 3;
            if let Some(ttl) = &ttl {
                arguments[3] = b"PX";
                arguments[4] = ttl.as_bytes();
                len = 5;
            }
            let condition: Option<&[u8]> = match options.condition {
                Condition::Always => None,
                Condition::IfAbsent => Some(b"NX"),
                Condition::IfPresent => Some(b"XX"),
            };
            if let Some(condition) = condition {
                arguments[len] = condition;
                len += 1;
            }
            encode::request(out, &arguments[..len]);
        }
        Request::Delete { key } => encode::request(out, &[b"DEL", key]),
        Request::Increment { key, by } => {
            encode::request(out, &[b"INCRBY", key, by.to_string().as_bytes()]);
        }
        Request::Lifetime { key } => encode::request(out, &[b"PTTL", key]),
        Request::Expire { key, ttl } => {
            let ms = milliseconds(*ttl).unwrap_or(u64::MAX).to_string();
            encode::request(out, &[b"PEXPIRE", key, ms.as_bytes()]);
        }
        Request::Scan {
            cursor,
            pattern,
            count,
        } => {
            let count = count.to_string();
            let arguments: [&[u8]; 6] = [
                b"SCAN",
                cursor.as_bytes(),
                b"MATCH",
                pattern,
                b"COUNT",
                count.as_bytes(),
            ];
            encode::request(out, &arguments);
        }
    }
}

/// What a reply says to a request. The outer error is a reply that answers no such request.
fn answer_to(request: &Request<'_>, reply: Reply) -> Result<Result<Answer, Error>, Cause> {
    let answer = match (request, reply) {
        (request, Reply::Error(text)) => return Ok(Err(refusal_of(request, &text))),
        // Remarks beside a reply do not change it.
        (_, Reply::Attributed(attributed)) => return answer_to(request, attributed.reply),
        (Request::Ping, Reply::Simple(text)) if text == b"PONG"[..] => Answer::Pong,
        (Request::Get { .. }, Reply::Bulk(value)) => Answer::Value(Some(value)),
        (Request::Get { .. }, Reply::Null) => Answer::Value(None),
        (Request::Set { .. }, Reply::Simple(text)) if text == b"OK"[..] => Answer::Stored(true),
        (Request::Set { options, .. }, Reply::Null) if options.condition != Condition::Always => {
            Answer::Stored(false)
        }
        (Request::Delete { .. }, Reply::Integer(count @ (0 | 1))) => Answer::Deleted(count == 1),
        (Request::Increment { .. }, Reply::Integer(sum)) => Answer::Counted(sum),
        (Request::Lifetime { .. }, Reply::Integer(-2)) => Answer::Lifetime(Lifetime::Missing),
        (Request::Lifetime { .. }, Reply::Integer(-1)) => Answer::Lifetime(Lifetime::Unlimited),
        (Request::Lifetime { .. }, Reply::Integer(ms @ 0..)) => {
            let left = std::time::Duration::from_millis(ms.unsigned_abs());
            Answer::Lifetime(Lifetime::Left(left))
        }
        (Request::Expire { .. }, Reply::Integer(count @ (0 | 1))) => Answer::Expires(count == 1),
        (Request::Scan { .. }, Reply::Array(parts)) => page(parts)?,
        (request, reply) => return Err(unexpected(request, &reply)),
    };
    Ok(Ok(answer))
}

/// A cursor and an array of keys.
fn page(parts: Vec<Reply>) -> Result<Answer, Cause> {
    let wrong = || Cause::Protocol("the reply to SCAN is no cursor with keys".to_owned());
    let Ok([Reply::Bulk(cursor), Reply::Array(found)]) = <[Reply; 2]>::try_from(parts) else {
        return Err(wrong());
    };
    let cursor = String::from_utf8(cursor.into()).map_err(|_| wrong())?;
    let mut keys = Vec::with_capacity(found.len());
    for reply in found {
        let Reply::Bulk(key) = reply else {
            return Err(wrong());
        };
        keys.push(key);
    }
    Ok(Answer::Page { cursor, keys })
}

/// Most errors say that nothing was done; one says that the server does not know.
fn refusal_of(request: &Request<'_>, text: &Bytes) -> Error {
    match refused(text) {
        Error::Refused { code, message } if code == "UNKNOWN" && request.is_write() => {
            Error::Unknown(Cause::Server(message))
        }
        error => error,
    }
}

/// The code in capitals is what programs go by; a server without one says just something.
pub(crate) fn refused(text: &Bytes) -> Error {
    let text = String::from_utf8_lossy(text);
    let (code, message) = match text.split_once(' ') {
        Some((code, message)) if !code.bytes().any(|byte| byte.is_ascii_lowercase()) => {
            (code, message)
        }
        _ => ("ERR", text.as_ref()),
    };
    Error::Refused {
        code: code.to_owned(),
        message: message.trim_end().to_owned(),
    }
}

fn unexpected(request: &Request<'_>, reply: &Reply) -> Cause {
    let kind = match reply {
        Reply::Simple(_) => "a simple string",
        Reply::Error(_) => "an error",
        Reply::Integer(_) => "an integer",
        Reply::Bulk(_) => "a bulk string",
        Reply::Array(_) => "an array",
        Reply::Null => "null",
        Reply::Boolean(_) => "a boolean",
        Reply::Double(_) => "a double",
        Reply::BigNumber(_) => "a big number",
        Reply::Verbatim { .. } => "a verbatim string",
        Reply::Map(_) => "a map",
        Reply::Set(_) => "a set",
        Reply::Push(_) => "a push message",
        Reply::Attributed(_) => "attributes",
    };
    let name = match request {
        Request::Ping => "PING",
        Request::Get { .. } => "GET",
        Request::Set { .. } => "SET",
        Request::Delete { .. } => "DEL",
        Request::Increment { .. } => "INCRBY",
        Request::Lifetime { .. } => "PTTL",
        Request::Expire { .. } => "PEXPIRE",
        Request::Scan { .. } => "SCAN",
    };
    Cause::Protocol(format!("{kind} is no reply to {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SetOptions;
    use std::time::Duration;

    const GET: Request<'_> = Request::Get { key: b"k" };
    const PTTL: Request<'_> = Request::Lifetime { key: b"k" };
    const DEL: Request<'_> = Request::Delete { key: b"k" };
    const SCAN: Request<'_> = Request::Scan {
        cursor: "0",
        pattern: b"a*",
        count: 7,
    };

    fn set(options: SetOptions) -> Request<'static> {
        Request::Set {
            key: b"k",
            value: b"v",
            options,
        }
    }

    #[test]
    fn requests_are_commands() {
        let ttl = SetOptions::new().ttl(Duration::from_micros(1500));
        let table = [
            (Request::Ping, "PING"),
            (GET, "GET k"),
            (set(SetOptions::new()), "SET k v"),
            (set(ttl), "SET k v PX 2"),
            (set(ttl.condition(Condition::IfAbsent)), "SET k v PX 2 NX"),
            (
                set(SetOptions::new().condition(Condition::IfPresent)),
                "SET k v XX",
            ),
            (DEL, "DEL k"),
            (Request::Increment { key: b"k", by: -3 }, "INCRBY k -3"),
            (PTTL, "PTTL k"),
            (
                Request::Expire {
                    key: b"k",
                    ttl: Duration::from_secs(1),
                },
                "PEXPIRE k 1000",
            ),
            (SCAN, "SCAN 0 MATCH a* COUNT 7"),
        ];
        for (request, command) in table {
            let mut expected = Vec::new();
            let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
            encode::request(&mut expected, &words);
            let mut found = Vec::new();
            encode_request(&mut found, &request);
            assert_eq!(found, expected, "{command}");
        }
    }

    #[test]
    fn replies_are_answers() {
        let nx = set(SetOptions::new().condition(Condition::IfAbsent));
        let left = Lifetime::Left(Duration::from_millis(5));
        let table: &[(Request<'_>, &str, Result<Answer, &str>)] = &[
            (Request::Ping, "+PONG\r\n", Ok(Answer::Pong)),
            (GET, "$1\r\nv\r\n", Ok(Answer::Value(Some("v".into())))),
            (GET, "$-1\r\n", Ok(Answer::Value(None))),
            (GET, "_\r\n", Ok(Answer::Value(None))),
            (
                GET,
                "|1\r\n+a\r\n+b\r\n$1\r\nv\r\n",
                Ok(Answer::Value(Some("v".into()))),
            ),
            (GET, "+v\r\n", Err("a simple string is no reply to GET")),
            (
                GET,
                "-WRONGTYPE not a string\r\n",
                Err("the server refused: WRONGTYPE: not a string"),
            ),
            (
                GET,
                "-something else\r\n",
                Err("the server refused: ERR: something else"),
            ),
            (
                GET,
                "-UNKNOWN it may be lost\r\n",
                Err("the server refused: UNKNOWN: it may be lost"),
            ),
            (
                DEL,
                "-UNKNOWN it may be lost\r\n",
                Err("no answer, and it is unknown whether the write happened: it may be lost"),
            ),
            (set(SetOptions::new()), "+OK\r\n", Ok(Answer::Stored(true))),
            (
                set(SetOptions::new()),
                "$-1\r\n",
                Err("null is no reply to SET"),
            ),
            (nx, "$-1\r\n", Ok(Answer::Stored(false))),
            (nx, "+OK\r\n", Ok(Answer::Stored(true))),
            (DEL, ":1\r\n", Ok(Answer::Deleted(true))),
            (DEL, ":0\r\n", Ok(Answer::Deleted(false))),
            (DEL, ":2\r\n", Err("an integer is no reply to DEL")),
            (PTTL, ":-2\r\n", Ok(Answer::Lifetime(Lifetime::Missing))),
            (PTTL, ":-1\r\n", Ok(Answer::Lifetime(Lifetime::Unlimited))),
            (PTTL, ":5\r\n", Ok(Answer::Lifetime(left))),
            (PTTL, ":-3\r\n", Err("an integer is no reply to PTTL")),
            (
                SCAN,
                "*2\r\n$1\r\n9\r\n*1\r\n$1\r\na\r\n",
                Ok(Answer::Page {
                    cursor: "9".to_owned(),
                    keys: vec!["a".into()],
                }),
            ),
            (
                SCAN,
                "*1\r\n$1\r\n0\r\n",
                Err("the reply to SCAN is no cursor with keys"),
            ),
        ];
        for (request, bytes, expected) in table {
            let mut input = BytesMut::from(*bytes);
            let reply = Decoder::new(Limits::default()).decode(&mut input);
            let reply = reply.expect("it is a reply").expect("it is whole");
            let found = match answer_to(request, reply) {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(refused)) => Err(refused.to_string()),
                Err(cause) => Err(cause.to_string()),
            };
            assert_eq!(found, expected.clone().map_err(str::to_owned), "{bytes:?}");
        }
    }
}
