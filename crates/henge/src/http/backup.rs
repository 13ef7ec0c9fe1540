//! `GET /admin/backup`: some of the records of a partition, as the frames of a snapshot, from a place of its scan on, encrypted
//! if the node's files are. A client
//! that asks for all places of all partitions has a backup, whether the node has a log or not. It keeps nothing between
//! two requests, and blocks no thread that serves others. Who asks for what the leader has is answered only once all that is
//! shown is committed, and a quorum has said that nobody else leads.

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
use http::{HeaderName, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;

use super::control::{self, Control};
use super::problem::{Code, Problem};
use super::query;
use super::routes::RouteId;
use super::service::Outcome;
use super::single::overloaded;
use crate::cluster::replicas::told;
use crate::cluster::view::Owner;
use crate::config::ConsistencyLevel;
use crate::disk::gate::note_unkept;
use crate::disk::log::Condition;
use crate::encryption::salt;
use crate::net::data_thread::Local;
use crate::shared::Shared;

/// The place to ask for next; not there if that was all of the partition.
pub(crate) const X_NEXT_PLACE: HeaderName = HeaderName::from_static("x-henge-next-place");

/// The term that the partition was in when the page was begun. Pages of two terms are not of one order.
pub(crate) const X_TERM: HeaderName = HeaderName::from_static("x-henge-term");

/// A page is full from here on: large enough that the requests cost nothing beside what they bring, small enough to be held
/// in memory.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Asks the control runtime, and has the answer wait until the log has what it shows. Of a log that has failed nothing is
/// waited for: then a backup is the only way to what the node still has, and it may hold what nobody was told was written.
pub(crate) async fn ask(local: Rc<Local>, request: Request<Incoming>) -> Outcome {
    // What is wrong with it the control runtime says.
    let wanted = wanted(&local.shared, request.uri().query()).ok();
    let answer = control::ask(Rc::clone(&local), RouteId::Backup, request).await?;
    if let Some(Wanted {
        partition, leads, ..
    }) = wanted
        && leads
        && answer.status() == StatusCode::OK
    {
        check_leads(&local, partition, answer.headers().get(X_TERM))?;
    }
    let log = local.shared.persistence.log.as_ref();
    if log.is_some_and(|log| log.condition() == Condition::Open) {
        // On this thread, which takes the note right after this.
        note_unkept();
    }
    Ok(answer)
}

/// Whether this node leads a partition, and has since a term. Like a read at QUORUM it makes the answer wait until what was shown
/// is committed and others have said that they follow nobody else; a quorum that does not say so makes it a refusal.
fn check_leads(
    local: &Local,
    partition: Partition,
    since: Option<&HeaderValue>,
) -> Result<(), Problem> {
    let shared = &local.shared;
    let view = shared.cluster.view.load();
    if view.is_alone {
        // Also one whose log has failed is asked for what it still has.
        return Ok(());
    }
    told::set_level(ConsistencyLevel::Quorum);
    let is_owner = matches!(view.owner(partition), Owner::Here);
    let term = shared.cache.led_in(partition, shared.clock.now_ms());
    let is_same = term.map(HeaderValue::from).as_ref() == since;
    if is_owner && term.is_some() && is_same {
        return Ok(());
    }
    let detail = format!(
        "this node does not lead partition {}, or not since the page was begun; ask its leader for all of it",
        partition.number()
    );
    Err(Problem::new(Code::TryAgain, detail))
}

/// Answers on the control runtime.
pub(super) async fn page(
    State(control): State<Arc<Control>>,
    request: AxumRequest<Body>,
) -> AxumResponse {
    let shared = Arc::clone(&control.metrics.shared);
    let made = match wanted(&shared, request.uri().query()) {
        Ok(Wanted {
            partition, place, ..
        }) => {
            let making = tokio::task::spawn_blocking(move || make(&shared, partition, place));
            making
                .await
                .unwrap_or_else(|_| Err(Problem::new(Code::Internal, "the backup was cut off")))
        }
        Err(problem) => Err(problem),
    };
    let Page { frames, next, term } = match made {
        Ok(page) => page,
        Err(problem) => return problem.into_response().map(Body::new),
    };
    let mut response = AxumResponse::new(Body::from(frames));
    let headers = response.headers_mut();
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, octets);
    headers.insert(X_TERM, HeaderValue::from(term));
    if let Some(next) = next {
        headers.insert(X_NEXT_PLACE, HeaderValue::from(next));
    }
    response
}

/// What a request asks for.
struct Wanted {
    partition: Partition,
    place: u32,
    /// It is to be what the leader has.
    leads: bool,
}

/// What a request asks for.
fn wanted(shared: &Shared, query: Option<&str>) -> Result<Wanted, Problem> {
    if shared.persistence.is_loading() {
        let detail = "it is done when GET /ready says 200";
        return Err(Problem::new(Code::Loading, detail));
    }
    let invalid = |detail: String| Problem::new(Code::InvalidQuery, detail);
    let [partition, place, leads] = query::parse(query, ["partition", "place", "leads"])?;
    let leads = query::is_set("leads", leads.as_deref())?;
    let partition = partition.ok_or_else(|| {
        invalid(format!(
            "partition is missing, expected 0 to {}",
            PARTITIONS - 1
        ))
    })?;
    let partition = query::text("partition", &partition)?;
    let number = query::whole(partition).and_then(Partition::new);
    let partition = number.ok_or_else(|| {
        invalid(format!(
            "partition: found {partition:?}, expected 0 to {}",
            PARTITIONS - 1
        ))
    })?;
    let Some(place) = place else {
        let place = 0;
        return Ok(Wanted {
            partition,
            place,
            leads,
        });
    };
    let place = query::text("place", &place)?;
    let place = query::whole(place).ok_or_else(|| {
        invalid(format!(
            "place: found {place:?}, expected what X-Henge-Next-Place said"
        ))
    })?;
    Ok(Wanted {
        partition,
        place,
        leads,
    })
}

/// A page, and where the next one begins.
struct Page {
    frames: Bytes,
    next: Option<u32>,
    term: u32,
}

/// Makes a page.
fn make(shared: &Shared, partition: Partition, mut place: u32) -> Result<Page, Problem> {
    // Before the first record, so that none is of an earlier one.
    let term = shared.cache.progress(partition).last.term();
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
    Ok(Page {
        frames: hold.attach(Bytes::from(page)),
        next: (place != 0).then_some(place),
        term,
    })
}
