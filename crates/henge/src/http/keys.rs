//! What concerns all keys, of all members: the scan, in pages, and the flush. A page may be short or empty while its cursor goes
//! on.

use std::rc::Rc;

use bytes::Bytes;
use henge_wire::peer::keys::Scan;
use http::Request;
use hyper::body::Incoming;

use super::json;
use super::problem::{Code, Problem};
use super::query;
use super::requests::ScanRequest;
use super::service::{Outcome, json_response};
use super::single::{self, overloaded, parsed_body};
use crate::cache::ScanCursor;
use crate::cluster::keys::scan::{self, NoRoom, Sheet};
use crate::cluster::keys::{self, Elsewhere, FlushError, FlushFailure, NotFlushed};
use crate::cluster::routing::Routes;
use crate::net::data_thread::Local;

/// Keys on a page when the client does not say.
const DEFAULT_LIMIT: usize = 100;
/// The most keys on a page.
const MAX_LIMIT: usize = 1000;

/// `GET /keys`.
pub(crate) async fn get(local: Rc<Local>, request: Request<Incoming>) -> Outcome {
    let [prefix, cursor, limit] =
        query::parse(request.uri().query(), ["prefix", "cursor", "limit"])?;
    let cursor = cursor
        .map(|cursor| query::text("cursor", &cursor).map(str::to_owned))
        .transpose()?;
    let limit = match limit {
        None => None,
        Some(limit) => {
            let text = query::text("limit", &limit)?;
            let limit = query::whole(text).ok_or_else(|| invalid_limit(text))?;
            Some(limit)
        }
    };
    page(
        &local,
        &prefix.unwrap_or_default(),
        cursor.as_deref(),
        limit,
    )
    .await
}

/// `POST /keys`.
pub(crate) async fn post(local: Rc<Local>, body: Incoming) -> Outcome {
    let mut request: ScanRequest = parsed_body(&local, body).await?;
    let prefix = request.take_prefix()?;
    page(&local, &prefix, request.cursor.as_deref(), request.limit).await
}

/// One page: `{"keys":[…],"cursor":"…"}`; keys that are not UTF-8 stand in `keys_base64` beside it.
async fn page(local: &Local, prefix: &[u8], cursor: Option<&str>, limit: Option<u64>) -> Outcome {
    let cursor: ScanCursor = match cursor {
        None => ScanCursor::default(),
        Some(text) => text.parse().map_err(|_| {
            let detail =
                format!("cursor is {text:?}; expected \"0\" or what the page before answered");
            Problem::new(Code::InvalidCursor, detail)
        })?,
    };
    let limit = match limit {
        None => DEFAULT_LIMIT,
        Some(limit) => usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| invalid_limit(&limit.to_string()))?,
    };
    local.check_scope(prefix)?;
    let mut hold = local.shared.in_flight.hold();
    let mut keys = Keys::default();
    let cursor = match local.routing.routes() {
        None => scan::page(local, cursor, prefix, limit, &mut keys).await?,
        Some(routes) => page_of_any(local, &routes, (cursor, prefix, limit), &mut keys).await?,
    };
    let Keys {
        mut texts,
        mut blobs,
        ..
    } = keys;
    texts.pop();
    blobs.pop();
    let len = texts.len() + blobs.len() + 96;
    if !hold.set(texts.capacity() + blobs.capacity() + len) {
        return Err(overloaded());
    }
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(b"{\"keys\":[");
    out.extend_from_slice(&texts);
    if !blobs.is_empty() {
        out.extend_from_slice(b"],\"keys_base64\":[");
        out.extend_from_slice(&blobs);
    }
    out.extend_from_slice(b"],\"cursor\":");
    json::write_string(&mut out, &cursor.to_string());
    out.push(b'}');
    drop((texts, blobs));
    // It holds less now, which never fails.
    let _ = hold.set(out.capacity());
    Ok(json_response(hold.attach(Bytes::from(out))))
}

/// A page of the member whose turn it is.
async fn page_of_any(
    local: &Local,
    routes: &Routes,
    (cursor, prefix, limit): (ScanCursor, &[u8], usize),
    keys: &mut Keys,
) -> Result<ScanCursor, Problem> {
    let view = &routes.view;
    let turn = scan::turn(view, cursor);
    let (member, from) = turn.ok_or_else(|| Elsewhere::nowhere(view))?;
    let next = if member.is_me {
        scan::page(local, from, prefix, limit, keys).await?
    } else {
        let asked = Scan {
            cursor: from.to_u64(),
            limit: limit as u32,
            prefix,
        };
        scan::page_of(local, routes, member, &asked, keys).await?
    };
    Ok(scan::next(view, member, next))
}

impl From<NoRoom> for Problem {
    fn from(NoRoom: NoRoom) -> Self {
        overloaded()
    }
}

/// The keys of a page, as JSON with a comma after each.
#[derive(Default)]
struct Keys {
    texts: Vec<u8>,
    /// Those that are not UTF-8.
    blobs: Vec<u8>,
    count: usize,
}

/// A state of the keys to go back to.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    texts: usize,
    blobs: usize,
    count: usize,
}

impl Sheet for Keys {
    type Mark = Mark;

    fn push(&mut self, key: &[u8]) {
        self.count += 1;
        if let Ok(text) = std::str::from_utf8(key) {
            json::write_string(&mut self.texts, text);
            self.texts.push(b',');
        } else {
            json::write_base64(&mut self.blobs, key);
            self.blobs.push(b',');
        }
    }

    fn count(&self) -> usize {
        self.count
    }

    fn len(&self) -> usize {
        self.texts.len() + self.blobs.len()
    }

    fn capacity(&self) -> usize {
        self.texts.capacity() + self.blobs.capacity()
    }

    fn mark(&self) -> Mark {
        Mark {
            texts: self.texts.len(),
            blobs: self.blobs.len(),
            count: self.count,
        }
    }

    fn back_to(&mut self, mark: Mark) {
        self.texts.truncate(mark.texts);
        self.blobs.truncate(mark.blobs);
        self.count = mark.count;
    }
}

fn invalid_limit(text: &str) -> Problem {
    let detail = format!("limit is {text}; expected a whole number from 1 to {MAX_LIMIT}");
    Problem::new(Code::InvalidLimit, detail)
}

/// `POST /flush`: on all members. Whatever body comes with it means nothing and is not read.
pub(crate) async fn flush(local: Rc<Local>) -> Outcome {
    match local.routing.routes() {
        None => flush_here(&local).await?,
        // One asks the whole cluster.
        Some(_) if local.shared.is_replicated() => flush_here(&local).await?,
        Some(routes) => {
            let here = async || {
                let flushed = flush_here(&local).await;
                flushed.map_err(|problem| match problem.code {
                    Code::OutcomeUnknown => NotFlushed::Unknown(problem.detail.into_owned()),
                    code => NotFlushed::Refused(code.title().to_owned()),
                })
            };
            match keys::flush_all(&local, &routes, here()).await {
                Ok(()) => {}
                Err(FlushError::Elsewhere(elsewhere)) => return Err(elsewhere.into()),
                Err(FlushError::Partly(detail)) => {
                    return Err(Problem::new(Code::PartlyFlushed, detail));
                }
                Err(FlushError::Unknown(detail)) => {
                    return Err(Problem::new(Code::OutcomeUnknown, detail));
                }
            }
        }
    }
    Ok(json_response(Bytes::from_static(b"{\"flushed\":true}")))
}

async fn flush_here(local: &Local) -> Result<(), Problem> {
    keys::flush(local).await.map_err(|failure| match failure {
        FlushFailure::Refused(refusal) => single::refused(refusal),
        FlushFailure::NotNow(why) => {
            Problem::new(Code::TryAgain, format!("{why}; nothing was done"))
        }
        FlushFailure::Cut => Problem::new(Code::OutcomeUnknown, "the flush was cut off"),
    })
}
