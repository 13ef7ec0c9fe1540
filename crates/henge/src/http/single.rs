//! The JSON routes of one key. Each reads its key from the query or the body, runs one command, and writes one object.

use std::borrow::Cow;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use henge_wire::{
    Command, Encoding, Expiry, Match, Operation, Precondition, Refusal, Reply, Version,
};
use hyper::body::Incoming;
use serde::Deserialize;

use super::body::{self, Whole};
use super::problem::{Code, Problem};
use super::requests::{
    ExpireRequest, IncrRequest, KeyRequest, SetCondition, SetRequest, parse, query_key,
};
use super::service::{Answer, Outcome, json_response};
use super::{json, lifetime, query};
use crate::aside::aside;
use crate::cluster::keys::{self, Elsewhere, Way};
use crate::net::data_thread::Local;
use crate::net::inflight::Hold;
use crate::values::{Encoded, Found, SHARED_BYTES, encode};

/// What is written as JSON while the shard is locked, in bytes; some 2 us. Larger values are copied out first.
const INLINE_BYTES: usize = 4 * 1024;

/// What is read or written as JSON on a data thread, in bytes: some 200 us where every byte is escaped.
const JSON_INLINE_BYTES: usize = 256 * 1024;

/// `GET /get`, the hottest of all.
#[inline]
pub(crate) fn get(local: &Rc<Local>, query: Option<&str>, now_ms: u64) -> Answer {
    match key_of(local, query) {
        Ok(key) => look_up(local, &key, now_ms),
        Err(problem) => Answer::Now(Err(problem)),
    }
}

/// Answers a request whose key is known: at once where the key is here, and without a future of its own.
pub(crate) fn at_key(
    local: &Rc<Local>,
    key: Cow<'_, [u8]>,
    work: impl AsyncFnOnce(&Rc<Local>, Way, &[u8]) -> Outcome + 'static,
) -> Answer {
    match Way::to(local, &key) {
        Err(elsewhere) => Answer::Now(Err(elsewhere.into())),
        Ok(Way::Here) => {
            let work = pin!(work(local, Way::Here, &key));
            match work.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(outcome) => Answer::Now(outcome),
                Poll::Pending => unreachable!("nothing is awaited where the key is"),
            }
        }
        Ok(way) => {
            let (local, key) = (Rc::clone(local), key.into_owned());
            Answer::later(async move { work(&local, way, &key).await })
        }
    }
}

/// `POST /get`.
pub(crate) async fn get_post(local: Rc<Local>, body: Incoming) -> Outcome {
    let key = key_in(&local, body).await?;
    match look_up(&local, &key, local.shared.clock.now_ms()) {
        Answer::Now(outcome) => outcome,
        Answer::Later(future) => future.await,
    }
}

#[inline]
fn look_up(local: &Rc<Local>, key: &[u8], now_ms: u64) -> Answer {
    match Way::to(local, key) {
        Ok(Way::Here) => look_up_here(local, key, now_ms),
        Ok(way) => {
            let (local, key) = (Rc::clone(local), key.to_vec());
            Answer::later(look_up_there(local, way, key, now_ms))
        }
        Err(elsewhere) => Answer::Now(Err(elsewhere.into())),
    }
}

async fn look_up_there(local: Rc<Local>, way: Way, key: Vec<u8>, now_ms: u64) -> Outcome {
    let command = Command {
        key: &key,
        operation: Operation::Get,
    };
    let found = way.perform(&local, &command, now_ms, found);
    let found = found.await?.ok_or_else(missing)?;
    match item(&local, &key, found, now_ms) {
        Answer::Now(outcome) => outcome,
        Answer::Later(future) => future.await,
    }
}

/// The item of a reply to a read, copied.
pub(crate) fn found(reply: Reply<'_>) -> Option<Found> {
    match reply {
        Reply::Found(item) => Some(Found::copy(&item)),
        Reply::Missing => None,
        other => unreachable!("{other:?} to a read"),
    }
}

#[inline]
fn look_up_here(local: &Rc<Local>, key: &[u8], now_ms: u64) -> Answer {
    let mut scratch = local.scratch.take();
    scratch.clear();
    let command = Command {
        key,
        operation: Operation::Get,
    };
    let looked = local
        .shared
        .cache
        .execute(&command, now_ms, |reply| match reply {
            Reply::Found(item)
                if item.value.encoding == Encoding::Raw
                    && item.value.data.len() <= INLINE_BYTES =>
            {
                let value = &item.value;
                write_item(
                    &mut scratch,
                    key,
                    (&value.data, value.json),
                    item.version,
                    item.expires_at_ms,
                    now_ms,
                );
                Ok(None)
            }
            Reply::Found(item) => Ok(Some(Found::copy(&item))),
            Reply::Missing => Err(missing()),
            // It was this node's a moment ago.
            Reply::Refused(_) => Err(not_open()),
            other => unreachable!("{other:?} to a get"),
        });
    let found = match looked {
        Err(problem) => Err(problem),
        Ok(None) => {
            let response = json_response(Bytes::copy_from_slice(&scratch));
            local.scratch.replace(scratch);
            return Answer::Now(Ok(response));
        }
        Ok(Some(found)) => Ok(found),
    };
    local.scratch.replace(scratch);
    match found {
        Err(problem) => Answer::Now(Err(problem)),
        Ok(found) => item(local, key, found, now_ms),
    }
}

/// The answer to a get, of an item that was copied.
fn item(local: &Rc<Local>, key: &[u8], found: Found, now_ms: u64) -> Answer {
    if found.is_quick() && found.raw_len as usize <= JSON_INLINE_BYTES {
        let hold = local.shared.in_flight.hold();
        let answer = found
            .raw()
            .map_err(Problem::from)
            .and_then(|raw| large_item(hold, key, &found, &raw, now_ms));
        return Answer::Now(answer.map(json_response));
    }
    let (local, key) = (Rc::clone(local), key.to_vec());
    let raw_len = found.raw_len as usize;
    Answer::later(async move {
        let raw = found.raw_in_time(&local.shared.in_flight).await?;
        let Some(hold) = local.shared.in_flight.hold_for(raw_len) else {
            let hold = local.shared.in_flight.hold();
            return large_item(hold, &key, &found, &raw, now_ms).map(json_response);
        };
        let work = move || large_item(hold, &key, &found, &raw, now_ms);
        in_time(raw_len, work).await.map(json_response)
    })
}

/// An item whose value is out of the shard. Its JSON is a buffer of its own, of just its size, held against the node's
/// bound: escapes may make it six times as long as the value, and a buffer that doubles takes twice that.
fn large_item(
    mut hold: Hold,
    key: &[u8],
    found: &Found,
    raw: &[u8],
    now_ms: u64,
) -> Result<Bytes, Problem> {
    let value = (raw, found.json);
    let len = item_len(key, value);
    if !hold.set(len) {
        return Err(overloaded());
    }
    let mut out = Vec::with_capacity(len);
    let (version, expires_at_ms) = (found.version, found.expires_at_ms);
    write_item(&mut out, key, value, version, expires_at_ms, now_ms);
    Ok(hold.attach(Bytes::from(out)))
}

/// Works on so many bytes of JSON or base64: at once, or on the blocking pool if others would wait for it.
pub(crate) async fn in_time<T: Send + 'static>(
    len: usize,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if len <= JSON_INLINE_BYTES {
        return work();
    }
    aside(work)
        .await
        .unwrap_or_else(|| Err(Problem::new(Code::Internal, "the work was cut off")))
}

/// The most that the braces, the names, the lifetime and the version of an item take.
const ITEM_BYTES: usize = 128;

/// At least the length of what `write_item` writes, and hardly more.
pub(crate) fn item_len(key: &[u8], (value, is_json): (&[u8], bool)) -> usize {
    let value = if is_json {
        value.len()
    } else {
        json::bytes_len("value", value)
    };
    ITEM_BYTES + json::bytes_len("key", key) + value
}

/// `{"key","value","ttl","version"}`.
pub(crate) fn write_item(
    out: &mut Vec<u8>,
    key: &[u8],
    (value, is_json): (&[u8], bool),
    version: Version,
    expires_at_ms: Option<u64>,
    now_ms: u64,
) {
    out.push(b'{');
    json::write_bytes(out, "key", key);
    out.push(b',');
    if is_json {
        out.extend_from_slice(b"\"value\":");
        out.extend_from_slice(value);
    } else {
        json::write_bytes(out, "value", value);
    }
    write_state(out, version, expires_at_ms, now_ms);
}

/// The end of most answers: `,"ttl":…,"version":…}`.
fn write_state(out: &mut Vec<u8>, version: Version, expires_at_ms: Option<u64>, now_ms: u64) {
    out.extend_from_slice(b",\"ttl\":");
    json::write_ttl(out, expires_at_ms, now_ms);
    out.extend_from_slice(b",\"version\":");
    json::write_version(out, version);
    out.push(b'}');
}

/// `{"key",` and then the state.
pub(crate) fn write_stored(
    out: &mut Vec<u8>,
    key: &[u8],
    (version, expires_at_ms): (Version, Option<u64>),
    now_ms: u64,
) {
    out.push(b'{');
    json::write_bytes(out, "key", key);
    write_state(out, version, expires_at_ms, now_ms);
}

/// `POST /set`.
pub(crate) async fn set(local: Rc<Local>, body: Incoming) -> Outcome {
    let body = json_body(&local, body).await?;
    let now_ms = local.shared.clock.now_ms();
    let mut hold = local.shared.in_flight.hold_for(body.len());
    let len = body.len();
    let work = move || {
        let mut request: SetRequest<'_> = parse(&body)?;
        let key = request.take_key()?;
        if let Some(hold) = &mut hold
            && !hold.set(request.value_len_bound())
        {
            return Err(overloaded());
        }
        Ok((key, Setting::of(&mut request, &body, now_ms)?, hold))
    };
    let (key, setting, _hold) = in_time(len, work).await?;
    local.name_key(&key)?;
    let ready = setting.ready(&local).await?;
    let state = stored(&local, &ready.command(&key), ready.now_ms).await?;
    Ok(local.write_json(|out| write_stored(out, &key, state, ready.now_ms)))
}

/// One value to store, checked and decoded.
pub(crate) struct Setting {
    value: Bytes,
    json: bool,
    condition: SetCondition,
    ttl: Option<f64>,
    keep_ttl: bool,
}

impl Setting {
    /// Reads it from a request that stands in `body`.
    pub(crate) fn of(
        request: &mut SetRequest<'_>,
        body: &Bytes,
        now_ms: u64,
    ) -> Result<Self, Problem> {
        let (ttl, keep_ttl) = (request.ttl, request.keep_ttl);
        if keep_ttl && ttl.is_some() {
            return Err(Problem::new(
                Code::InvalidTtl,
                "give ttl or keep_ttl, not both",
            ));
        }
        let condition = request.condition()?;
        // Checked before the value is worked on; the deadline counts from when it is stored.
        lifetime::expiry(ttl, now_ms)?;
        let given = request.take_value()?;
        let value = match given.bytes {
            // What the cache copies may stay a part of the body.
            Cow::Borrowed(part) if part.len() < SHARED_BYTES => body.slice_ref(part),
            // What it may keep takes no more than its size.
            bytes => {
                let mut owned = bytes.into_owned();
                owned.shrink_to_fit();
                Bytes::from(owned)
            }
        };
        Ok(Self {
            value,
            json: given.json,
            condition,
            ttl,
            keep_ttl,
        })
    }

    /// Compressed, and with its deadline, which counts from now: it is to be stored at once.
    pub(crate) async fn ready(self, local: &Local) -> Result<Ready, Problem> {
        let encoded = encode(local, self.value, self.json).await?;
        let now_ms = local.shared.clock.now_ms();
        let expiry = if self.keep_ttl {
            Expiry::Keep
        } else {
            lifetime::expiry(self.ttl, now_ms)?
        };
        Ok(Ready {
            encoded,
            expiry,
            condition: self.condition,
            versions: match self.condition {
                SetCondition::AtVersion(version) => [version],
                _ => [Version::ZERO],
            },
            now_ms,
        })
    }
}

/// What is to be stored under a key, and when that was decided, so that the lifetime is answered as given.
pub(crate) struct Ready {
    encoded: Encoded,
    expiry: Expiry,
    condition: SetCondition,
    versions: [Version; 1],
    pub(crate) now_ms: u64,
}

impl Ready {
    pub(crate) fn command<'a>(&'a self, key: &'a [u8]) -> Command<'a> {
        let precondition = match self.condition {
            SetCondition::None => Precondition::NONE,
            SetCondition::Absent => Precondition {
                none_matches: Some(Match::Any),
                ..Precondition::NONE
            },
            SetCondition::Present => Precondition {
                matches: Some(Match::Any),
                ..Precondition::NONE
            },
            SetCondition::AtVersion(_) => Precondition {
                matches: Some(Match::OneOf(&self.versions)),
                ..Precondition::NONE
            },
        };
        Command {
            key,
            operation: Operation::Set {
                value: self.encoded.value(None),
                expiry: self.expiry,
                precondition,
            },
        }
    }
}

/// The version and the deadline of an item.
pub(crate) type State = (Version, Option<u64>);

/// Runs a command whose answer is the state of an item.
pub(crate) async fn stored(
    local: &Local,
    command: &Command<'_>,
    now_ms: u64,
) -> Result<State, Problem> {
    keys::perform(local, command, now_ms, state).await?
}

/// The state of a reply to a command that has one.
pub(crate) fn state(reply: Reply<'_>) -> Result<State, Problem> {
    match reply {
        Reply::Stored {
            version,
            expires_at_ms,
        } => Ok((version, expires_at_ms)),
        Reply::Missing => Err(missing()),
        Reply::Refused(refusal) => Err(refused(refusal)),
        other => unreachable!("{other:?} to a write"),
    }
}

/// `DELETE /delete`.
pub(crate) fn delete(local: &Rc<Local>, query: Option<&str>, now_ms: u64) -> Answer {
    match key_of(local, query) {
        Err(problem) => Answer::Now(Err(problem)),
        Ok(key) => at_key(local, key, async move |local, way, key| {
            delete_key(local, way, key, now_ms).await
        }),
    }
}

/// `POST /delete`.
pub(crate) async fn delete_post(local: Rc<Local>, body: Incoming) -> Outcome {
    let key = key_in(&local, body).await?;
    let way = Way::to(&local, &key)?;
    delete_key(&local, way, &key, local.shared.clock.now_ms()).await
}

async fn delete_key(local: &Local, way: Way, key: &[u8], now_ms: u64) -> Outcome {
    let command = deletion(key, Precondition::NONE);
    let deleted = way.perform(local, &command, now_ms, deleted).await??;
    Ok(json_response(Bytes::from_static(if deleted {
        b"{\"deleted\":true}"
    } else {
        b"{\"deleted\":false}"
    })))
}

/// The command that removes a key.
pub(crate) fn deletion<'a>(key: &'a [u8], precondition: Precondition<'a>) -> Command<'a> {
    Command {
        key,
        operation: Operation::Delete { precondition },
    }
}

/// Whether the key was there, by the reply to a deletion.
pub(crate) fn deleted(reply: Reply<'_>) -> Result<bool, Problem> {
    match reply {
        Reply::Deleted => Ok(true),
        Reply::Missing => Ok(false),
        Reply::Refused(refusal) => Err(refused(refusal)),
        other => unreachable!("{other:?} to a delete"),
    }
}

/// `POST /incr`.
pub(crate) async fn incr(local: Rc<Local>, body: Incoming) -> Outcome {
    let mut request: IncrRequest = parsed_body(&local, body).await?;
    let key = request.take_key()?;
    local.name_key(&key)?;
    let now_ms = local.shared.clock.now_ms();
    let command = Command {
        key: &key,
        operation: Operation::Increment {
            by: request.by.unwrap_or(1),
            initial: request.initial.unwrap_or(0),
            expiry: lifetime::expiry(request.ttl, now_ms)?,
        },
    };
    let write = |reply: Reply<'_>| match reply {
        Reply::Counted {
            value,
            version,
            expires_at_ms,
        } => Ok(local.write_json(|out| {
            out.push(b'{');
            json::write_bytes(out, "key", &key);
            out.extend_from_slice(b",\"value\":");
            json::write_i64(out, value);
            write_state(out, version, expires_at_ms, now_ms);
        })),
        Reply::Refused(refusal) => Err(refused(refusal)),
        other => unreachable!("{other:?} to an increment"),
    };
    keys::perform(&local, &command, now_ms, write).await?
}

/// `POST /expire`.
pub(crate) async fn expire(local: Rc<Local>, body: Incoming) -> Outcome {
    let mut request: ExpireRequest = parsed_body(&local, body).await?;
    let key = request.take_key()?;
    local.name_key(&key)?;
    if request.ttl.is_none() {
        return Err(Problem::new(
            Code::InvalidTtl,
            "expected ttl, in seconds; 0 means no expiry",
        ));
    }
    let now_ms = local.shared.clock.now_ms();
    change_expiry(&local, &key, lifetime::expiry(request.ttl, now_ms)?, now_ms).await
}

/// `POST /persist`.
pub(crate) async fn persist(local: Rc<Local>, body: Incoming) -> Outcome {
    let key = key_in(&local, body).await?;
    change_expiry(&local, &key, Expiry::Never, local.shared.clock.now_ms()).await
}

async fn change_expiry(local: &Local, key: &[u8], expiry: Expiry, now_ms: u64) -> Outcome {
    let command = Command {
        key,
        operation: Operation::Expire {
            expiry,
            precondition: Precondition::NONE,
        },
    };
    let state = stored(local, &command, now_ms).await?;
    Ok(local.write_json(|out| write_stored(out, key, state, now_ms)))
}

/// `GET /ttl`.
pub(crate) fn ttl(local: &Rc<Local>, query: Option<&str>, now_ms: u64) -> Answer {
    match key_of(local, query) {
        Err(problem) => Answer::Now(Err(problem)),
        Ok(key) => at_key(local, key, async move |local, way, key| {
            ttl_of(local, way, key, now_ms).await
        }),
    }
}

/// `POST /ttl`.
pub(crate) async fn ttl_post(local: Rc<Local>, body: Incoming) -> Outcome {
    let key = key_in(&local, body).await?;
    let way = Way::to(&local, &key)?;
    ttl_of(&local, way, &key, local.shared.clock.now_ms()).await
}

async fn ttl_of(local: &Local, way: Way, key: &[u8], now_ms: u64) -> Outcome {
    let state = peek(local, way, key, now_ms).await?.ok_or_else(missing)?;
    Ok(local.write_json(|out| write_stored(out, key, state, now_ms)))
}

/// `GET /exists`.
pub(crate) fn exists(local: &Rc<Local>, query: Option<&str>, now_ms: u64) -> Answer {
    match key_of(local, query) {
        Err(problem) => Answer::Now(Err(problem)),
        Ok(key) => at_key(local, key, async move |local, way, key| {
            whether_exists(local, way, key, now_ms).await
        }),
    }
}

/// `POST /exists`.
pub(crate) async fn exists_post(local: Rc<Local>, body: Incoming) -> Outcome {
    let key = key_in(&local, body).await?;
    let way = Way::to(&local, &key)?;
    whether_exists(&local, way, &key, local.shared.clock.now_ms()).await
}

async fn whether_exists(local: &Local, way: Way, key: &[u8], now_ms: u64) -> Outcome {
    let exists = peek(local, way, key, now_ms).await?.is_some();
    Ok(local.write_json(|out| {
        out.push(b'{');
        json::write_bytes(out, "key", key);
        out.extend_from_slice(if exists {
            b",\"exists\":true}"
        } else {
            b",\"exists\":false}"
        });
    }))
}

/// The version and deadline of a key, without counting a use of it.
async fn peek(
    local: &Local,
    way: Way,
    key: &[u8],
    now_ms: u64,
) -> Result<Option<State>, Elsewhere> {
    let command = Command {
        key,
        operation: Operation::Peek,
    };
    let state = |reply: Reply<'_>| match reply {
        Reply::Found(item) => Some((item.version, item.expires_at_ms)),
        Reply::Missing => None,
        other => unreachable!("{other:?} to a peek"),
    };
    way.perform(local, &command, now_ms, state).await
}

/// The key of a query.
fn key_of<'q>(local: &Local, query: Option<&'q str>) -> Result<Cow<'q, [u8]>, Problem> {
    let [key, key_base64] = query::parse(query, ["key", "key_base64"])?;
    let key = query_key(key, key_base64)?;
    local.name_key(&key)?;
    Ok(key)
}

/// The key of a body that holds nothing else.
async fn key_in(local: &Local, body: Incoming) -> Result<Vec<u8>, Problem> {
    let request: KeyRequest = parsed_body(local, body).await?;
    let key = request.into_key()?;
    local.name_key(&key)?;
    Ok(key)
}

/// Reads a body of JSON, which is held for as long as there is anything of it.
pub(crate) async fn json_body(local: &Local, body: Incoming) -> Result<Bytes, Problem> {
    let limit = local.shared.limits().max_body_bytes;
    body::read(body, &local.shared, limit, || {
        let detail = format!("the most is limits.max_body_bytes, {limit}");
        Problem::new(Code::BodyTooLarge, detail)
    })
    .await
    .map(Whole::held)
}

/// The same, read as what is expected of it.
pub(crate) async fn parsed_body<T: for<'de> Deserialize<'de> + Send + 'static>(
    local: &Local,
    body: Incoming,
) -> Result<T, Problem> {
    let body = json_body(local, body).await?;
    in_time(body.len(), move || parse(&body)).await
}

pub(crate) fn missing() -> Problem {
    Problem::new(Code::KeyNotFound, "")
}

pub(crate) fn overloaded() -> Problem {
    Problem::new(
        Code::Overloaded,
        "bodies and answers in flight hold limits.max_inflight_bytes already, or of its address limits.max_inflight_bytes_per_address",
    )
}

pub(crate) fn log_failed() -> Problem {
    Problem::new(
        Code::LogFailed,
        "nothing was changed; the node's log and GET /cluster/status say what is wrong with its disk, and reads are served",
    )
}

/// Nobody leads the partition here.
pub(crate) fn not_open() -> Problem {
    Problem::new(
        Code::TryAgain,
        "the leader of the key's partition is changing; nothing was changed",
    )
}

/// A refusal of the engine, for people.
pub(crate) fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::PreconditionFailed(current) => Problem::precondition_failed(current),
        Refusal::NotAnInteger => Problem::new(
            Code::NotAnInteger,
            "only decimal digits can be added to, with a minus or without; no plus sign, no leading zeros",
        ),
        Refusal::Overflow => Problem::new(
            Code::Overflow,
            "the counter holds what it held; it goes from -9223372036854775808 to 9223372036854775807",
        ),
        Refusal::MemoryFull => Problem::new(
            Code::MemoryFull,
            "raise cache.max_size_bytes, delete something, or, where /stats shows memory.withheld_bytes, free memory of the machine",
        ),
        Refusal::TooLarge => Problem::new(
            Code::ValueTooLarge,
            "key and value could never fit cache.max_size_bytes",
        ),
        Refusal::LogFailed => log_failed(),
        Refusal::NotOpen => not_open(),
        Refusal::LogBehind => Problem::new(
            Code::LogFailed,
            "nothing was changed; the log is behind: what waits for the disk holds its part of limits.max_inflight_bytes. Writes are taken again when that is written, and reads are served",
        ),
    }
}
