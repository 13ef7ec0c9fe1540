//! What concerns all keys: the scan, in pages, and the flush. A page is bounded in keys, in bytes and in steps, so it may be
//! short or empty while its cursor goes on.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;

use super::json;
use super::problem::{Code, Problem};
use super::query;
use super::requests::ScanRequest;
use super::service::{Outcome, json_response};
use super::single::{self, overloaded, parsed_body};
use crate::cache::ScanCursor;
use crate::disk::gate::note_unkept;
use crate::net::data_thread::Local;

/// Keys on a page when the client does not say.
const DEFAULT_LIMIT: usize = 100;
/// The most keys on a page.
const MAX_LIMIT: usize = 1000;
/// The most bytes of JSON on a page: a thousand keys of 1 KiB. A thousand of the longest would be 64 MiB, and six times that
/// with escapes. Only the keys of a single place of the table may make it more, as no cursor stands between them.
const PAGE_BYTES: usize = 1 << 20;
/// Steps of the scan for one page. A prefix that few keys have would otherwise make a page read the whole cache.
const STEPS: usize = 64;

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
            let limit = text.parse().map_err(|_| invalid_limit(text))?;
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
    let mut cursor: ScanCursor = match cursor {
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
    let mut hold = local.shared.in_flight.hold();
    let mut keys = Keys::default();
    // Halved while not even the first keys fit on the page; never again after.
    let mut most = limit;
    for step in 0..STEPS {
        let now_ms = local.shared.clock.now_ms();
        let before = keys.mark();
        let mut fits = true;
        let asked = most.min(limit - before.count);
        let next = local.shared.cache.scan(cursor, asked, now_ms, &mut |key| {
            fits = fits && (keys.len() < PAGE_BYTES || asked == 1);
            if fits && key.starts_with(prefix) {
                keys.push(key);
            }
        });
        if !hold.set(keys.capacity()) {
            return Err(overloaded());
        }
        if fits {
            cursor = next;
            if cursor.is_end() || keys.count >= limit || keys.len() >= PAGE_BYTES {
                break;
            }
        } else {
            keys.back_to(before);
            if before.count > 0 {
                break;
            }
            // A handful of these are far from all steps, so that the cursor moves on every page.
            most = (asked / 2).max(1);
        }
        if step % 4 == 3 {
            tokio::task::yield_now().await;
        }
    }
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
struct Mark {
    texts: usize,
    blobs: usize,
    count: usize,
}

impl Keys {
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

/// `POST /flush`. Whatever body comes with it means nothing and is not read.
pub(crate) async fn flush(local: Rc<Local>) -> Outcome {
    let shared = Arc::clone(&local.shared);
    // Giving back gigabytes takes its time.
    let flushed = tokio::task::spawn_blocking(move || shared.flush());
    flushed
        .await
        .map_err(|_| Problem::new(Code::Internal, "the flush was cut off"))?
        .map_err(single::refused)?;
    // It was done on another thread.
    note_unkept();
    Ok(json_response(Bytes::from_static(b"{\"flushed\":true}")))
}
