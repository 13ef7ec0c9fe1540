//! Many keys in one request. Results come in the order of the keys, each the answer of the single request or the error of
//! that key; a batch as a whole fails only if it cannot be read. Between keys the thread serves other connections.

use std::rc::Rc;

use bytes::Bytes;
use henge_wire::{Command, Operation, Precondition, Reply};
use hyper::body::Incoming;

use super::json;
use super::problem::{Code, Problem};
use super::requests::{KeysRequest, MsetRequest, NamedKey, parse};
use super::service::{Outcome, Whole, json_response};
use super::single::{
    json_body, missing, overloaded, parsed_body, remove, store, write_item, write_stored,
};
use super::values::Found;
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
}

impl<'a> Results<'a> {
    fn new(local: &'a Local) -> Self {
        Self {
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
        if self.count > 0 {
            self.out.push(b',');
        }
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

    /// Adds the error of a result whose key cannot be shown.
    async fn push_unnamed(&mut self, problem: Problem) -> Result<(), Problem> {
        if self.count > 0 {
            self.out.push(b',');
        }
        self.out.push(b'{');
        problem.write_error(&mut self.out);
        self.out.push(b'}');
        self.pushed().await
    }

    async fn pushed(&mut self) -> Result<(), Problem> {
        if !self.hold.set(self.out.capacity()) {
            return Err(overloaded());
        }
        self.count += 1;
        if self.count.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Whether a value of this length may still be answered.
    fn has_room(&self, len: usize) -> bool {
        self.out.len() + len <= self.local.shared.limits().max_body_bytes
    }

    fn finish(mut self) -> Whole {
        self.out.extend_from_slice(b"]}");
        json_response(self.hold.attach(Bytes::from(self.out)))
    }
}

/// `POST /mset`.
pub(crate) async fn mset(local: Rc<Local>, body: Incoming) -> Outcome {
    let body = json_body(&local, body).await?;
    let request: MsetRequest<'_> = parse(&body.bytes)?;
    check_count(&local, request.items.len())?;
    let mut results = Results::new(&local);
    for mut item in request.items {
        match item.take_key() {
            Err(problem) => results.push_unnamed(problem).await?,
            Ok(key) => match store(&local, &key, &mut item).await {
                Err(problem) => results.push(&key, Err(problem), |_| ()).await?,
                Ok((state, now_ms)) => {
                    let write = |out: &mut Vec<u8>| write_stored(out, &key, state, now_ms);
                    results.push(&key, Ok(()), write).await?;
                }
            },
        }
    }
    Ok(results.finish())
}

/// `POST /mget`.
pub(crate) async fn mget(local: Rc<Local>, body: Incoming) -> Outcome {
    let keys = keys_in(&local, body).await?;
    let mut results = Results::new(&local);
    for key in keys {
        let key = match key.into_key() {
            Ok(key) => key,
            Err(problem) => {
                results.push_unnamed(problem).await?;
                continue;
            }
        };
        let now_ms = local.shared.clock.now_ms();
        let command = Command {
            key: &key,
            operation: Operation::Get,
        };
        let cache = &local.shared.cache;
        let found = cache.execute(&command, now_ms, |reply| match reply {
            Reply::Found(item) => Some(Found::copy(&item)),
            Reply::Missing => None,
            other => unreachable!("{other:?} to a get"),
        });
        let Some(found) = found else {
            results.push(&key, Err(missing()), |_| ()).await?;
            continue;
        };
        if !results.has_room(found.raw_len as usize) {
            let detail = "answers end at limits.max_body_bytes; ask for this key again";
            let problem = Problem::new(Code::AnswerTooLarge, detail);
            results.push(&key, Err(problem), |_| ()).await?;
            continue;
        }
        match found.raw_in_time().await {
            Err(problem) => results.push(&key, Err(problem), |_| ()).await?,
            Ok(raw) => {
                let value = (&raw[..], found.json);
                let write = |out: &mut Vec<u8>| {
                    let (version, expires_at_ms) = (found.version, found.expires_at_ms);
                    write_item(out, &key, value, version, expires_at_ms, now_ms);
                };
                results.push(&key, Ok(()), write).await?;
            }
        }
    }
    Ok(results.finish())
}

/// `POST /mdelete`.
pub(crate) async fn mdelete(local: Rc<Local>, body: Incoming) -> Outcome {
    let keys = keys_in(&local, body).await?;
    let mut results = Results::new(&local);
    for key in keys {
        let key = match key.into_key() {
            Ok(key) => key,
            Err(problem) => {
                results.push_unnamed(problem).await?;
                continue;
            }
        };
        let now_ms = local.shared.clock.now_ms();
        match remove(&local, &key, Precondition::NONE, now_ms) {
            Err(problem) => results.push(&key, Err(problem), |_| ()).await?,
            Ok(deleted) => {
                let write = |out: &mut Vec<u8>| {
                    out.push(b'{');
                    json::write_bytes(out, "key", &key);
                    let deleted = if deleted { "true" } else { "false" };
                    out.extend_from_slice(b",\"deleted\":");
                    out.extend_from_slice(deleted.as_bytes());
                    out.push(b'}');
                };
                results.push(&key, Ok(()), write).await?;
            }
        }
    }
    Ok(results.finish())
}

async fn keys_in(local: &Local, body: Incoming) -> Result<Vec<NamedKey>, Problem> {
    let request: KeysRequest = parsed_body(local, body).await?;
    check_count(local, request.keys.len())?;
    Ok(request.keys)
}

fn check_count(local: &Local, count: usize) -> Result<(), Problem> {
    let most = local.shared.limits().max_batch_items;
    if count <= most {
        return Ok(());
    }
    let detail = format!("it holds {count}; the most is limits.max_batch_items, {most}");
    Err(Problem::new(Code::BatchTooLarge, detail))
}
