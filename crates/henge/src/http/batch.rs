//! Many keys in one request. Results come in the order of the keys, each the answer of the single request or the error of
//! that key; a batch as a whole fails only if it cannot be read. Between keys the thread serves other connections. Keys that
//! other nodes have are asked for in parts of some hundreds, each node once for a part.

use std::rc::Rc;

use bytes::Bytes;
use henge_wire::{Command, Operation, Precondition};
use hyper::body::Incoming;

use super::json;
use super::problem::{Code, Problem};
use super::requests::{KeysRequest, MsetRequest, SetRequest};
use super::service::{Outcome, Whole, json_response};
use super::single::{
    Setting, State, deleted, deletion, found, in_time, item_len, json_body, missing, overloaded,
    state, write_item, write_stored,
};
use crate::cluster::keys::{Place, Scatter};
use crate::net::data_thread::Local;
use crate::net::inflight::Hold;

/// Keys that are worked on before other connections have a turn: some 50 us.
const TURN: usize = 64;

/// The answer to a batch as it grows.
struct Results<'a> {
    local: &'a Local,
    out: Vec<u8>,
    hold: Hold<'a>,
    count: usize,
    /// They say what was done: there is room for them in any case.
    are_of_writes: bool,
}

impl<'a> Results<'a> {
    fn new(local: &'a Local, are_of_writes: bool) -> Self {
        Self {
            are_of_writes,
            local,
            out: b"{\"results\":[".to_vec(),
            hold: local.shared.in_flight.hold(),
            count: 0,
        }
    }

    /// Adds a result: what `write` writes, or the error of the key if that is known.
    async fn push(
        &mut self,
        key: &[u8],
        result: Result<(), Problem>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Problem> {
        self.separate();
        match result {
            Ok(()) => write(&mut self.out),
            Err(problem) => {
                self.out.push(b'{');
                json::write_bytes(&mut self.out, "key", key);
                self.out.push(b',');
                problem.write_error(&mut self.out);
                self.out.push(b'}');
            }
        }
        self.pushed().await
    }

    /// Sets a result apart from the one before.
    fn separate(&mut self) {
        if self.count > 0 {
            self.out.push(b',');
        }
    }

    /// Adds the error of a result whose key cannot be shown.
    async fn push_unnamed(&mut self, problem: Problem) -> Result<(), Problem> {
        self.separate();
        self.out.push(b'{');
        problem.write_error(&mut self.out);
        self.out.push(b'}');
        self.pushed().await
    }

    async fn pushed(&mut self) -> Result<(), Problem> {
        let bytes = self.out.capacity();
        if self.are_of_writes {
            // Without them nobody would know of any key what became of it. They are short.
            self.hold.set_anyway(bytes);
        } else if !self.hold.set(bytes) {
            return Err(overloaded());
        }
        self.count += 1;
        if self.count.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Whether a result of this length may still be answered.
    fn has_room(&self, len: usize) -> bool {
        self.out.len() + len <= self.local.shared.limits().max_body_bytes
    }

    /// Makes room for a result before it is written, so that the buffer doubles no further than answers go.
    fn reserve(&mut self, len: usize) -> Result<(), Problem> {
        let needed = self.out.len() + len;
        if needed <= self.out.capacity() {
            return Ok(());
        }
        let most = self.local.shared.limits().max_body_bytes;
        let capacity = (2 * self.out.capacity()).min(most).max(needed);
        if !self.hold.set(capacity) {
            return Err(overloaded());
        }
        self.out.reserve_exact(capacity - self.out.len());
        Ok(())
    }

    fn finish(mut self) -> Whole {
        self.out.extend_from_slice(b"]}");
        json_response(self.hold.attach(Bytes::from(self.out)))
    }
}

/// `POST /mset`.
pub(crate) async fn mset(local: Rc<Local>, body: Incoming) -> Outcome {
    let body = json_body(&local, body).await?;
    let now_ms = local.shared.clock.now_ms();
    let most = local.shared.limits().max_batch_items;
    let mut hold = local.shared.in_flight.hold_for(body.len());
    let len = body.len();
    let work = move || {
        let request = MsetRequest::parse(&body, most)?;
        let len = request.items.iter().map(SetRequest::value_len_bound).sum();
        if let Some(hold) = &mut hold
            && !hold.set(len)
        {
            return Err(overloaded());
        }
        let settings = request.items.into_iter().map(|mut item| {
            let key = item.take_key()?;
            let setting = Setting::of(&mut item, &body, now_ms);
            Ok((key, setting))
        });
        Ok((settings.collect::<Vec<Result<_, Problem>>>(), hold))
    };
    let (settings, _hold) = in_time(len, work).await?;
    let mut results = Results::new(&local, true);
    let mut settings = settings.into_iter().peekable();
    while settings.peek().is_some() {
        let mut scatter = Scatter::begin(&local);
        let mut part = Vec::new();
        while !scatter.is_full()
            && let Some(item) = settings.next()
        {
            part.push(match item {
                Ok((key, Ok(setting))) => {
                    let stored = begin_store(&local, &mut scatter, &key, setting).await;
                    Ok((key, stored))
                }
                Ok((key, Err(problem))) => Ok((key, Err(problem))),
                Err(problem) => Err(problem),
            });
        }
        scatter.send();
        for item in part {
            let (key, begun) = match item {
                Ok(item) => item,
                Err(problem) => {
                    results.push_unnamed(problem).await?;
                    continue;
                }
            };
            let stored = match begun {
                Ok((Begun::Done(state), now_ms)) => Ok((state, now_ms)),
                Ok((Begun::Asked(share), now_ms)) => match scatter.next(share, state).await {
                    Ok(state) => state.map(|state| (state, now_ms)),
                    Err(elsewhere) => Err(elsewhere.into()),
                },
                Err(problem) => Err(problem),
            };
            match stored {
                Err(problem) => results.push(&key, Err(problem), |_| ()).await?,
                Ok((state, now_ms)) => {
                    let write = |out: &mut Vec<u8>| write_stored(out, &key, state, now_ms);
                    results.push(&key, Ok(()), write).await?;
                }
            }
        }
    }
    Ok(results.finish())
}

/// How far a store is.
enum Begun {
    Done(State),
    /// Another node is to be asked, with others of this number.
    Asked(usize),
}

/// Stores a value that has its place here, and adds any other to what is asked. When that was is answered too.
async fn begin_store(
    local: &Local,
    scatter: &mut Scatter<'_>,
    key: &[u8],
    setting: Setting,
) -> Result<(Begun, u64), Problem> {
    local.name_key(key)?;
    let ready = setting.ready(local).await?;
    let (command, now_ms) = (ready.command(key), ready.now_ms);
    let begun = match scatter.push(&command)? {
        Place::Here => Begun::Done(local.shared.cache.execute(&command, now_ms, state)?),
        Place::There(share) => Begun::Asked(share),
    };
    Ok((begun, now_ms))
}

fn get(key: &[u8]) -> Command<'_> {
    Command {
        key,
        operation: Operation::Get,
    }
}

fn delete(key: &[u8]) -> Command<'_> {
    deletion(key, Precondition::NONE)
}

/// `POST /mget`.
pub(crate) async fn mget(local: Rc<Local>, body: Incoming) -> Outcome {
    each_key(&local, body, get, async |results, asked| {
        let now_ms = local.shared.clock.now_ms();
        let Asked {
            key,
            place,
            scatter,
        } = asked;
        let found = match place {
            Ok(place) => scatter.perform(place, &get(key), now_ms, found).await,
            Err(problem) => return results.push(key, Err(problem), |_| ()).await,
        };
        let found = match found {
            Ok(found) => found,
            Err(elsewhere) => return results.push(key, Err(elsewhere.into()), |_| ()).await,
        };
        let Some(found) = found else {
            return results.push(key, Err(missing()), |_| ()).await;
        };
        let too_large = || {
            let detail =
                "answers to batches end at limits.max_body_bytes; ask for this key by /get";
            Problem::new(Code::AnswerTooLarge, detail)
        };
        // What cannot fit even without escapes is not decompressed.
        if !results.has_room(found.raw_len as usize) {
            return results.push(key, Err(too_large()), |_| ()).await;
        }
        match found.raw_in_time(&local.shared.in_flight).await {
            Err(error) => results.push(key, Err(error.into()), |_| ()).await,
            Ok(raw) => {
                let (key, raw) = (Bytes::copy_from_slice(key), (raw, found.json));
                let mut hold = local.shared.in_flight.hold_for(raw.0.len());
                if hold.as_mut().is_some_and(|hold| !hold.set(raw.0.len())) {
                    return results.push(&key, Err(overloaded()), |_| ()).await;
                }
                let (of_key, of_raw) = (key.clone(), raw.clone());
                let work = move || Ok((item_len(&of_key, (&of_raw.0, of_raw.1)), hold));
                let (len, hold) = in_time(raw.0.len(), work).await?;
                if !results.has_room(len) {
                    return results.push(&key, Err(too_large()), |_| ()).await;
                }
                results.reserve(len)?;
                results.separate();
                let mut out = std::mem::take(&mut results.out);
                let work = move || {
                    let (version, expires_at_ms) = (found.version, found.expires_at_ms);
                    write_item(
                        &mut out,
                        &key,
                        (&raw.0, raw.1),
                        version,
                        expires_at_ms,
                        now_ms,
                    );
                    Ok((out, hold))
                };
                (results.out, _) = in_time(len, work).await?;
                results.pushed().await
            }
        }
    })
    .await
}

/// `POST /mdelete`.
pub(crate) async fn mdelete(local: Rc<Local>, body: Incoming) -> Outcome {
    each_key(&local, body, delete, async |results, asked| {
        let now_ms = local.shared.clock.now_ms();
        let Asked {
            key,
            place,
            scatter,
        } = asked;
        let deleted = match place {
            Ok(place) => scatter.perform(place, &delete(key), now_ms, deleted).await,
            Err(problem) => return results.push(key, Err(problem), |_| ()).await,
        };
        match deleted.map_err(Problem::from).flatten() {
            Err(problem) => results.push(key, Err(problem), |_| ()).await,
            Ok(deleted) => {
                let write = |out: &mut Vec<u8>| {
                    out.push(b'{');
                    json::write_bytes(out, "key", key);
                    let deleted = if deleted { "true" } else { "false" };
                    out.extend_from_slice(b",\"deleted\":");
                    out.extend_from_slice(deleted.as_bytes());
                    out.push(b'}');
                };
                results.push(key, Ok(()), write).await
            }
        }
    })
    .await
}

/// One key of a body, and where its command is run.
struct Asked<'s, 'a> {
    key: &'s [u8],
    place: Result<Place, Problem>,
    scatter: &'s mut Scatter<'a>,
}

/// Answers each key of a body with one result, which `answer` pushes; `command` is what is asked of each.
async fn each_key<'a>(
    local: &'a Local,
    body: Incoming,
    command: fn(&[u8]) -> Command<'_>,
    answer: impl AsyncFn(&mut Results<'a>, Asked<'_, 'a>) -> Result<(), Problem>,
) -> Outcome {
    let body = json_body(local, body).await?;
    let len = body.len();
    let most = local.shared.limits().max_batch_items;
    let work = move || KeysRequest::parse(&body, most);
    let request = in_time(len, work).await?;
    let are_writes = command(b"").operation.is_write();
    let mut results = Results::new(local, are_writes);
    let mut keys = request.keys.into_iter().peekable();
    while keys.peek().is_some() {
        let mut scatter = Scatter::begin(local);
        let mut part = Vec::new();
        while !scatter.is_full()
            && let Some(key) = keys.next()
        {
            part.push(key.into_key().map(|key| {
                let place = match local.name_key(&key) {
                    Ok(()) => scatter.push(&command(&key)).map_err(Problem::from),
                    Err(denied) => Err(denied.into()),
                };
                (key, place)
            }));
        }
        scatter.send();
        for item in part {
            match item {
                Ok((key, place)) => {
                    let asked = Asked {
                        key: &key,
                        place,
                        scatter: &mut scatter,
                    };
                    answer(&mut results, asked).await?;
                }
                Err(problem) => results.push_unnamed(problem).await?,
            }
        }
    }
    Ok(results.finish())
}
