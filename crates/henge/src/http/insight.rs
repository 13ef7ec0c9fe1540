//! What explains the figures, over HTTP: why a key is not there, which keys are asked for most, which are the largest, and which
//! requests were slow.

use std::rc::Rc;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::json::put_bytes;
use super::problem::{Code, Problem};
use super::query;
use super::requests::{KeyRequest, query_key};
use super::service::{Outcome, Whole, json_response};
use super::single::parsed_body;
use crate::insight::{big, hot, why};
use crate::net::data_thread::Local;

/// Keys, or entries, on a page when the client does not say.
const DEFAULT_COUNT: usize = 20;
/// The most slow ones on a page, each of which may have some 6 KiB.
const MOST_ENTRIES: usize = 100;

/// `GET /why`.
pub(crate) async fn why(local: Rc<Local>, request: Request<Incoming>) -> Outcome {
    let [key, key_base64] = query::parse(request.uri().query(), ["key", "key_base64"])?;
    let key = query_key(key, key_base64)?;
    why_of(&local, &key).await
}

/// `POST /why`.
pub(crate) async fn why_post(local: Rc<Local>, body: Incoming) -> Outcome {
    let request: KeyRequest = parsed_body(&local, body).await?;
    why_of(&local, &request.into_key()?).await
}

/// Who asks what became of a key asks for nothing of it, so it does not count among those that are asked for.
async fn why_of(local: &Local, key: &[u8]) -> Outcome {
    local.check_scope(key)?;
    Ok(json_response(why::page(local, key).await?))
}

/// `GET /hot`. Who is confined to some keys is shown those.
pub(crate) fn hot(local: &Local, query: Option<&str>) -> Outcome {
    let count = count(query, hot::MOST_KEYS)?;
    let confined = local.confined();
    let shows = |key: &[u8]| {
        confined
            .as_ref()
            .is_none_or(|confined| confined.covers(key))
    };
    let now = std::time::Instant::now();
    let found = local.shared.insight.hot_keys.hottest(count, now, shows);
    let keys: Vec<Value> = found
        .keys
        .iter()
        .map(|hot| {
            let share = hot.count as f64 / found.seen.max(1) as f64;
            let mut page = json!({"count": hot.count, "share": share, "is_cut": hot.is_cut});
            put_bytes(&mut page, "key", &hot.key);
            page
        })
        .collect();
    Ok(page(&json!({
        "node": local.admin.metrics.node_id,
        "seen": found.seen,
        "sampled_one_in": found.sampled_one_in,
        "since_seconds": found.since.as_secs_f64(),
        "is_counting": found.is_counting,
        "keys": keys,
    })))
}

/// `GET /big`. Who is confined to some keys is shown those.
pub(crate) async fn big(local: Rc<Local>, request: Request<Incoming>) -> Outcome {
    let count = count(request.uri().query(), big::MOST_KEYS)?;
    let confined = local.confined();
    let shows = |key: &[u8]| {
        confined
            .as_ref()
            .is_none_or(|confined| confined.covers(key))
    };
    let found = big::biggest(&local, count, shows).await;
    let now_ms = local.shared.clock.now_ms();
    let keys: Vec<Value> = found
        .keys
        .iter()
        .map(|big| {
            let left = big.expires_at_ms.map(|at_ms| at_ms.saturating_sub(now_ms));
            let mut page = json!({
                "bytes": big.bytes,
                "value_bytes": big.value_bytes,
                "expires_in_ms": left,
            });
            put_bytes(&mut page, "key", &big.key);
            page
        })
        .collect();
    Ok(page(&json!({
        "node": local.admin.metrics.node_id,
        "looked_at": found.looked_at,
        "keys": keys,
    })))
}

/// `GET /slow`.
pub(crate) fn slow(local: &Local, query: Option<&str>) -> Outcome {
    let log = &local.shared.insight.slow_log;
    let count = count(query, MOST_ENTRIES)?;
    let text = |word: &Vec<u8>| String::from_utf8_lossy(word).into_owned();
    let entries: Vec<Value> = log
        .newest(count)
        .iter()
        .map(|entry| {
            json!({
                "id": entry.id,
                "at_ms": entry.at_ms,
                "took_us": entry.took_us,
                "words": entry.words.iter().map(text).collect::<Vec<_>>(),
                "client": entry.client,
                "client_name": text(&entry.client_name),
            })
        })
        .collect();
    Ok(page(&json!({
        "node": local.admin.metrics.node_id,
        "threshold_us": log.threshold_us(),
        "entries": entries,
    })))
}

fn page(page: &Value) -> Whole {
    json_response(Bytes::from(page.to_string()))
}

/// How many are asked for.
fn count(query: Option<&str>, most: usize) -> Result<usize, Problem> {
    let [count] = query::parse(query, ["count"])?;
    let Some(count) = count else {
        return Ok(DEFAULT_COUNT);
    };
    let text = query::text("count", &count)?;
    let count = query::whole(text).filter(|count| (1..=most).contains(count));
    count.ok_or_else(|| {
        let detail = format!("count is {text}; expected a whole number from 1 to {most}");
        Problem::new(Code::InvalidLimit, detail)
    })
}
