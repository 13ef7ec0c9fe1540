//! What concerns all keys: the scan, in pages, and the flush. A page is bounded in keys and in steps, so it may be short
//! or empty while its cursor goes on.

use std::rc::Rc;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;

use super::json;
use super::problem::{Code, Problem};
use super::query;
use super::requests::ScanRequest;
use super::service::{Outcome, json_response};
use super::single::parsed_body;
use crate::cache::ScanCursor;
use crate::net::data_thread::Local;

/// Keys on a page when the client does not say.
const DEFAULT_LIMIT: usize = 100;
/// The most keys on a page: with keys of 64 KiB that is the bound on an answer, 64 MiB.
const MAX_LIMIT: usize = 1000;
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
    let request: ScanRequest = parsed_body(&local, body).await?;
    let prefix = request.prefix.unwrap_or_default();
    page(
        &local,
        prefix.as_bytes(),
        request.cursor.as_deref(),
        request.limit,
    )
    .await
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
    let (mut texts, mut blobs) = (Vec::new(), Vec::new());
    let mut count = 0;
    for step in 0..STEPS {
        let now_ms = local.shared.clock.now_ms();
        let left = limit - count;
        cursor = local.shared.cache.scan(cursor, left, now_ms, &mut |key| {
            if !key.starts_with(prefix) {
                return;
            }
            count += 1;
            if let Ok(text) = std::str::from_utf8(key) {
                json::write_string(&mut texts, text);
                texts.push(b',');
            } else {
                json::write_base64(&mut blobs, key);
                blobs.push(b',');
            }
        });
        if cursor.is_end() || count >= limit {
            break;
        }
        if step % 4 == 3 {
            tokio::task::yield_now().await;
        }
    }
    texts.pop();
    blobs.pop();
    let mut out = Vec::with_capacity(texts.len() + blobs.len() + 64);
    out.extend_from_slice(b"{\"keys\":[");
    out.extend_from_slice(&texts);
    if !blobs.is_empty() {
        out.extend_from_slice(b"],\"keys_base64\":[");
        out.extend_from_slice(&blobs);
    }
    out.extend_from_slice(b"],\"cursor\":");
    json::write_string(&mut out, &cursor.to_string());
    out.push(b'}');
    Ok(json_response(Bytes::from(out)))
}

fn invalid_limit(text: &str) -> Problem {
    let detail = format!("limit is {text}; expected a whole number from 1 to {MAX_LIMIT}");
    Problem::new(Code::InvalidLimit, detail)
}

/// `POST /flush`. Whatever body comes with it means nothing and is not read.
pub(crate) async fn flush(local: Rc<Local>) -> Outcome {
    let cache = local.shared.cache.clone();
    // Giving back gigabytes takes its time.
    tokio::task::spawn_blocking(move || cache.flush())
        .await
        .map_err(|_| Problem::new(Code::Internal, "the flush was cut off"))?;
    Ok(json_response(Bytes::from_static(b"{\"flushed\":true}")))
}
