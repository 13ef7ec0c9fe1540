//! `GET /admin/backup`: some of the records of a partition, as the frames of a snapshot, from a place of its scan on, encrypted
//! if the node's files are. A client
//! that asks for all places of all partitions has a backup, whether the node has a log or not. It keeps nothing between
//! two requests, and blocks no thread that serves others.

use std::rc::Rc;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request as AxumRequest;
use axum::response::Response as AxumResponse;
use bytes::Bytes;
use henge_engine::persistence::cipher;
use henge_engine::persistence::frame::{Content, FORMAT};
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::snapshot::Builder;
use henge_wire::{PARTITIONS, Partition};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request};
use hyper::body::Incoming;

use super::control::{self, Control};
use super::problem::{Code, Problem};
use super::query;
use super::routes::RouteId;
use super::service::Outcome;
use super::single::overloaded;
use crate::disk::gate::note_unkept;
use crate::disk::log::Condition;
use crate::encryption::salt;
use crate::net::data_thread::Local;
use crate::shared::Shared;

/// The place to ask for next; not there if that was all of the partition.
pub(crate) const X_NEXT_PLACE: HeaderName = HeaderName::from_static("x-henge-next-place");

/// A page is full from here on: large enough that the requests cost nothing beside what they bring, small enough to be held
/// in memory.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Asks the control runtime, and has the answer wait until the log has what it shows. Of a log that has failed nothing is
/// waited for: then a backup is the only way to what the node still has, and it may hold what nobody was told was written.
pub(crate) async fn ask(local: Rc<Local>, request: Request<Incoming>) -> Outcome {
    let answer = control::ask(Rc::clone(&local), RouteId::Backup, request).await;
    let log = local.shared.persistence.log.as_ref();
    if log.is_some_and(|log| log.condition() == Condition::Open) {
        // On this thread, which takes the note right after this.
        note_unkept();
    }
    answer
}

/// Answers on the control runtime.
pub(super) async fn page(
    State(control): State<Arc<Control>>,
    request: AxumRequest<Body>,
) -> AxumResponse {
    let shared = Arc::clone(&control.metrics.shared);
    let made = match wanted(&shared, request.uri().query()) {
        Ok((partition, place)) => {
            let making = tokio::task::spawn_blocking(move || make(&shared, partition, place));
            making
                .await
                .unwrap_or_else(|_| Err(Problem::new(Code::Internal, "the backup was cut off")))
        }
        Err(problem) => Err(problem),
    };
    let (frames, next) = match made {
        Ok(page) => page,
        Err(problem) => return problem.into_response().map(Body::new),
    };
    let mut response = AxumResponse::new(Body::from(frames));
    let headers = response.headers_mut();
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, octets);
    if let Some(next) = next {
        headers.insert(X_NEXT_PLACE, HeaderValue::from(next));
    }
    response
}

/// What a request asks for.
fn wanted(shared: &Shared, query: Option<&str>) -> Result<(Partition, u32), Problem> {
    if shared.persistence.is_loading() {
        let detail = "it is done when GET /ready says 200";
        return Err(Problem::new(Code::Loading, detail));
    }
    let invalid = |detail: String| Problem::new(Code::InvalidQuery, detail);
    let [partition, place] = query::parse(query, ["partition", "place"])?;
    let partition = partition.ok_or_else(|| {
        invalid(format!(
            "partition is missing, expected 0 to {}",
            PARTITIONS - 1
        ))
    })?;
    let partition = query::text("partition", &partition)?;
    let number = partition.parse().ok().and_then(Partition::new);
    let number = number.ok_or_else(|| {
        invalid(format!(
            "partition: found {partition:?}, expected 0 to {}",
            PARTITIONS - 1
        ))
    })?;
    let Some(place) = place else {
        return Ok((number, 0));
    };
    let place = query::text("place", &place)?;
    let at = place.parse().map_err(|_| {
        invalid(format!(
            "place: found {place:?}, expected what X-Henge-Next-Place said"
        ))
    })?;
    Ok((number, at))
}

/// Makes a page, and says where the next one begins.
fn make(
    shared: &Shared,
    partition: Partition,
    mut place: u32,
) -> Result<(Bytes, Option<u32>), Problem> {
    let too_long = |_| Problem::new(Code::Internal, "a block of records is too long for a frame");
    let encryption = &*shared.persistence.encryption;
    let (header, mut sealer) = cipher::begin(encryption, Content::Snapshot, FORMAT, 1, salt())
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let mut hold = shared
        .in_flight
        .hold_for(PAGE_BYTES)
        .ok_or_else(overloaded)?;
    let mut builder = Builder::default();
    let mut frames = Journal::default();
    let mut records = 0;
    loop {
        let mut pushed = Ok(());
        place = shared.cache.scan_records_at(partition, place, |record| {
            if pushed.is_ok() {
                pushed = builder.push(&record);
                records += 1;
            }
        });
        pushed.map_err(too_long)?;
        let is_end = place == 0;
        if builder.is_full() || is_end {
            let finished = if is_end {
                builder.finish(partition, &mut frames)
            } else {
                builder.finish_full(partition, &mut frames)
            };
            finished.map_err(too_long)?;
            // They are copied once more, to lie in one piece.
            if !hold.set(2 * frames.frames().len()) {
                return Err(overloaded());
            }
        }
        if is_end {
            // Taken last, so that no record is newer.
            let progress = shared.cache.progress(partition);
            Builder::partition(partition, progress, records, &mut frames).map_err(too_long)?;
            break;
        }
        if frames.frames().len() >= PAGE_BYTES {
            break;
        }
    }
    builder.finish(partition, &mut frames).map_err(too_long)?;
    let mut page = Vec::with_capacity(frames.frames().len() + header.encode().len());
    page.extend_from_slice(&header.encode());
    sealer.append_all(&frames, &mut page).map_err(too_long)?;
    drop(frames);
    if !hold.set(page.len()) {
        return Err(overloaded());
    }
    let page = hold.attach(Bytes::from(page));
    Ok((page, (place != 0).then_some(place)))
}
