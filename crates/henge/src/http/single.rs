//! The JSON routes of one key. Each reads its key from the query or the body, runs one command, and writes one object.

use std::borrow::Cow;
use std::rc::Rc;

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
use crate::net::data_thread::Local;
use crate::net::inflight::Hold;
use crate::values::{Found, SHARED_BYTES, encode};

/// What is written as JSON while the shard is locked, in bytes; some 2 us. Larger values are copied out first.
const INLINE_BYTES: usize = 4 * 1024;

/// What is read or written as JSON on a data thread, in bytes: some 200 us where every byte is escaped.
const JSON_INLINE_BYTES: usize = 256 * 1024;

/// `GET /get`, the hottest of all.
#[inline]
pub(crate) fn get(local: &Rc<Local>, query: Option<&str>, now_ms: u64) -> Answer {
    match key_of(query) {
        Ok(key) => look_up(local, &key, now_ms),
        Err(problem) => Answer::Now(Err(problem)),
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
        Ok(found) if found.is_quick() && found.raw_len as usize <= JSON_INLINE_BYTES => {
            let hold = local.shared.in_flight.hold();
            let answer = found
                .raw()
                .map_err(Problem::from)
                .and_then(|raw| large_item(hold, key, &found, &raw, now_ms));
            Answer::Now(answer.map(json_response))
        }
        Ok(found) => {
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
    }
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
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Problem::new(Code::Internal, "the work was cut off")))
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
    let mut hold = local.shared.in_flight.hold_for(body.bytes.len());
    let bytes = body.bytes.clone();
    let work = move || {
        let mut request: SetRequest<'_> = parse(&bytes)?;
        let key = request.take_key()?;
        if let Some(hold) = &mut hold
            && !hold.set(request.value_len_bound())
        {
            return Err(overloaded());
        }
        Ok((key, Setting::of(&mut request, &bytes, now_ms)?, hold))
    };
    let (key, setting, _hold) = in_time(body.bytes.len(), work).await?;
    let (stored, now_ms) = store(&local, &key, setting).await?;
    Ok(local.write_json(|out| write_stored(out, &key, stored, now_ms)))
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
}

/// Stores one value; answers the item's state after it, and when that was, so that the lifetime is answered as given.
pub(crate) async fn store(
    local: &Local,
    key: &[u8],
    setting: Setting,
) -> Result<((Version, Option<u64>), u64), Problem> {
    let condition = setting.condition;
    let encoded = encode(local, setting.value, setting.json).await?;
    let now_ms = local.shared.clock.now_ms();
    let expiry = if setting.keep_ttl {
        Expiry::Keep
    } else {
        lifetime::expiry(setting.ttl, now_ms)?
    };
    let versions;
    let precondition = match condition {
        SetCondition::None => Precondition::NONE,
        SetCondition::Absent => Precondition {
            none_matches: Some(Match::Any),
            ..Precondition::NONE
        },
        SetCondition::Present => Precondition {
            matches: Some(Match::Any),
            ..Precondition::NONE
        },
        SetCondition::AtVersion(version) => {
            versions = [version];
            Precondition {
                matches: Some(Match::OneOf(&versions)),
                ..Precondition::NONE
            }
        }
    };
    let command = Command {
        key,
        operation: Operation::Set {
            value: encoded.value(None),
            expiry,
            precondition,
        },
    };
    Ok((stored(local, &command, now_ms)?, now_ms))
}

/// Runs a command whose answer is the state of an item.
pub(crate) fn stored(
    local: &Local,
    command: &Command<'_>,
    now_ms: u64,
) -> Result<(Version, Option<u64>), Problem> {
    local
        .shared
        .cache
        .execute(command, now_ms, |reply| match reply {
            Reply::Stored {
                version,
                expires_at_ms,
            } => Ok((version, expires_at_ms)),
            Reply::Missing => Err(missing()),
            Reply::Refused(refusal) => Err(refused(refusal)),
            other => unreachable!("{other:?} to a write"),
        })
}

/// `DELETE /delete`.
pub(crate) fn delete(local: &Local, query: Option<&str>, now_ms: u64) -> Outcome {
    let key = key_of(query)?;
    delete_key(local, &key, now_ms)
}

/// `POST /delete`.
pub(crate) async fn delete_post(local: Rc<Local>, body: Incoming) -> Outcome {
    let key = key_in(&local, body).await?;
    delete_key(&local, &key, local.shared.clock.now_ms())
}

fn delete_key(local: &Local, key: &[u8], now_ms: u64) -> Outcome {
    let deleted = remove(local, key, Precondition::NONE, now_ms)?;
    Ok(json_response(Bytes::from_static(if deleted {
        b"{\"deleted\":true}"
    } else {
        b"{\"deleted\":false}"
    })))
}

/// Removes a key; whether it was there.
pub(crate) fn remove(
    local: &Local,
    key: &[u8],
    precondition: Precondition<'_>,
    now_ms: u64,
) -> Result<bool, Problem> {
    let command = Command {
        key,
        operation: Operation::Delete { precondition },
    };
    local
        .shared
        .cache
        .execute(&command, now_ms, |reply| match reply {
            Reply::Deleted => Ok(true),
            Reply::Missing => Ok(false),
            Reply::Refused(refusal) => Err(refused(refusal)),
            other => unreachable!("{other:?} to a delete"),
        })
}

/// `POST /incr`.
pub(crate) async fn incr(local: Rc<Local>, body: Incoming) -> Outcome {
    let mut request: IncrRequest = parsed_body(&local, body).await?;
    let key = request.take_key()?;
    let now_ms = local.shared.clock.now_ms();
    let command = Command {
        key: &key,
        operation: Operation::Increment {
            by: request.by.unwrap_or(1),
            initial: request.initial.unwrap_or(0),
            expiry: lifetime::expiry(request.ttl, now_ms)?,
        },
    };
    local
        .shared
        .cache
        .execute(&command, now_ms, |reply| match reply {
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
        })
}

/// `POST /expire`.
pub(crate) async fn expire(local: Rc<Local>, body: Incoming) -> Outcome {
    let mut request: ExpireRequest = parsed_body(&local, body).await?;
    let key = request.take_key()?;
    if request.ttl.is_none() {
        return Err(Problem::new(
            Code::InvalidTtl,
            "expected ttl, in seconds; 0 means no expiry",
        ));
    }
    let now_ms = local.shared.clock.now_ms();
    change_expiry(&local, &key, lifetime::expiry(request.ttl, now_ms)?, now_ms)
}

/// `POST /persist`.
pub(crate) async fn persist(local: Rc<Local>, body: Incoming) -> Outcome {
    let key = key_in(&local, body).await?;
    change_expiry(&local, &key, Expiry::Never, local.shared.clock.now_ms())
}

fn change_expiry(local: &Local, key: &[u8], expiry: Expiry, now_ms: u64) -> Outcome {
    let command = Command {
        key,
        operation: Operation::Expire {
            expiry,
            precondition: Precondition::NONE,
        },
    };
    let state = stored(local, &command, now_ms)?;
    Ok(local.write_json(|out| write_stored(out, key, state, now_ms)))
}

/// `GET /ttl`.
pub(crate) fn ttl(local: &Local, query: Option<&str>, now_ms: u64) -> Outcome {
    let key = key_of(query)?;
    ttl_of(local, &key, now_ms)
}

/// `POST /ttl`.
pub(crate) async fn ttl_post(local: Rc<Local>, body: Incoming) -> Outcome {
    let key = key_in(&local, body).await?;
    ttl_of(&local, &key, local.shared.clock.now_ms())
}

fn ttl_of(local: &Local, key: &[u8], now_ms: u64) -> Outcome {
    let state = peek(local, key, now_ms).ok_or_else(missing)?;
    Ok(local.write_json(|out| write_stored(out, key, state, now_ms)))
}

/// `GET /exists`.
pub(crate) fn exists(local: &Local, query: Option<&str>, now_ms: u64) -> Outcome {
    let key = key_of(query)?;
    Ok(whether_exists(local, &key, now_ms))
}

/// `POST /exists`.
pub(crate) async fn exists_post(local: Rc<Local>, body: Incoming) -> Outcome {
    let key = key_in(&local, body).await?;
    Ok(whether_exists(&local, &key, local.shared.clock.now_ms()))
}

fn whether_exists(local: &Local, key: &[u8], now_ms: u64) -> super::service::Whole {
    let exists = peek(local, key, now_ms).is_some();
    local.write_json(|out| {
        out.push(b'{');
        json::write_bytes(out, "key", key);
        out.extend_from_slice(if exists {
            b",\"exists\":true}"
        } else {
            b",\"exists\":false}"
        });
    })
}

/// The version and deadline of a key, without counting a use of it.
fn peek(local: &Local, key: &[u8], now_ms: u64) -> Option<(Version, Option<u64>)> {
    let command = Command {
        key,
        operation: Operation::Peek,
    };
    local
        .shared
        .cache
        .execute(&command, now_ms, |reply| match reply {
            Reply::Found(item) => Some((item.version, item.expires_at_ms)),
            Reply::Missing => None,
            other => unreachable!("{other:?} to a peek"),
        })
}

/// The key of a query.
fn key_of(query: Option<&str>) -> Result<Cow<'_, [u8]>, Problem> {
    let [key, key_base64] = query::parse(query, ["key", "key_base64"])?;
    query_key(key, key_base64)
}

/// The key of a body that holds nothing else.
async fn key_in(local: &Local, body: Incoming) -> Result<Vec<u8>, Problem> {
    let request: KeyRequest = parsed_body(local, body).await?;
    request.into_key()
}

/// Reads a body of JSON.
pub(crate) async fn json_body(local: &Local, body: Incoming) -> Result<Whole<'_>, Problem> {
    let limit = local.shared.limits().max_body_bytes;
    body::read(body, &local.shared, limit, || {
        let detail = format!("the most is limits.max_body_bytes, {limit}");
        Problem::new(Code::BodyTooLarge, detail)
    })
    .await
}

/// The same, read as what is expected of it.
pub(crate) async fn parsed_body<T: for<'de> Deserialize<'de> + Send + 'static>(
    local: &Local,
    body: Incoming,
) -> Result<T, Problem> {
    let body = json_body(local, body).await?;
    in_time(body.bytes.len(), move || parse(&body.bytes)).await
}

pub(crate) fn missing() -> Problem {
    Problem::new(Code::KeyNotFound, "")
}

pub(crate) fn overloaded() -> Problem {
    Problem::new(
        Code::Overloaded,
        "bodies and answers in flight hold limits.max_inflight_bytes already",
    )
}

pub(crate) fn log_failed() -> Problem {
    Problem::new(
        Code::LogFailed,
        "nothing was changed; the node's log and GET /cluster/status say what is wrong with its disk, and reads are served",
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
        Refusal::LogBehind => Problem::new(
            Code::LogFailed,
            "nothing was changed; the log is behind: what waits for the disk holds its part of limits.max_inflight_bytes. Writes are taken again when that is written, and reads are served",
        ),
    }
}
