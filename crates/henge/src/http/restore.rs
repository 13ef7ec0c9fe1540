//! `POST /admin/restore`: blocks of records of a backup, as the frames of a [snapshot](henge_engine::persistence::snapshot), written as
//! if clients wrote them now: each gets a version of now, on whichever node has its key, at QUORUM unless more is asked for. So nothing that was
//! read before comes back in its old version. A body is read and checked to its end before the first record is written; the
//! answer says of each record that was not what became of it. It takes no place in an order from the backup, and no encrypted frame: what
//! is sent is as plain as any other write.

use std::rc::Rc;

use bytes::Bytes;
use henge_engine::persistence::frame::{Content, Frame, HEADER_BYTES, Header, frame};
use henge_engine::persistence::snapshot::{self, Part};
use henge_engine::{Body, RecordView};
use henge_wire::{Command, Expiry, Item, Match, Operation, Precondition};
use http::Request;
use hyper::body::Incoming;

use super::body;
use super::json;
use super::problem::{Code, Problem};
use super::query;
use super::service::{Outcome, json_response};
use super::single::{in_time, overloaded, state};
use crate::cluster::keys::{Place, Scatter};
use crate::net::data_thread::Local;
use crate::net::inflight::Hold;
use crate::values::Found;

/// What a body may have beside the longest value: its key, its media type, the heads of the frame and of the file.
const BESIDE_VALUE_BYTES: usize = 128 * 1024;

/// Records of one body: some times as many as the shortest ones of a block, so that nobody has to split one, and few enough that each
/// can be told of.
const MOST_RECORDS: usize = 32 * 1024;

/// What a record that was read takes beside its bytes.
const BESIDE_RECORD_BYTES: usize = size_of::<Record>() + 64;

/// Answers on the data thread of the connection.
pub(crate) async fn restore(local: Rc<Local>, request: Request<Incoming>) -> Outcome {
    let [replace] = query::parse(request.uri().query(), ["replace"])?;
    let replaces = query::is_set("replace", replace.as_deref())?;
    let limits = local.shared.limits();
    let most_value = limits.max_value_bytes;
    let most = limits.max_body_bytes.max(most_value + BESIDE_VALUE_BYTES);
    let whole = body::read(request.into_body(), &local.shared, most, || {
        let detail = format!(
            "the most is {most}, what limits.max_value_bytes and limits.max_body_bytes allow"
        );
        Problem::new(Code::BodyTooLarge, detail)
    })
    .await?;
    let mut hold = local.shared.in_flight.hold_apart();
    let bytes = whole.bytes.clone();
    let work = move || read(&bytes, &mut hold).map(|records| (records, hold));
    let (records, _hold) = in_time(whole.bytes.len(), work).await?;
    drop(whole);
    let mut told = Told {
        hold: local.shared.in_flight.hold(),
        records: records.len() as u64,
        written: 0,
        present: 0,
        expired: 0,
        deleted: 0,
        failed: Vec::new(),
    };
    let mut records = records.iter().enumerate().peekable();
    while records.peek().is_some() {
        let mut scatter = Scatter::begin(&local);
        let now_ms = local.shared.clock.now_ms();
        let mut asked = Vec::new();
        while !scatter.is_full()
            && let Some((at, record)) = records.next()
        {
            let Some(value) = &record.value else {
                told.deleted += 1;
                continue;
            };
            if value.expires_at_ms.is_some_and(|end_ms| end_ms <= now_ms) {
                told.expired += 1;
                continue;
            }
            let len = value.raw_len as usize;
            if len > most_value {
                let detail = format!(
                    "the value has {len} bytes; the most is limits.max_value_bytes, {most_value}"
                );
                told.take(at, Err(Problem::new(Code::ValueTooLarge, detail)));
                continue;
            }
            let command = command(&record.key, value, replaces);
            match scatter.push(&command) {
                Ok(Place::Here) => {
                    let written = local.shared.cache.execute(&command, now_ms, state);
                    told.take(at, written.map(drop));
                }
                Ok(Place::There(share)) => asked.push((at, share)),
                Err(elsewhere) => told.take(at, Err(elsewhere.into())),
            }
        }
        scatter.send();
        for (at, share) in asked {
            let written = scatter.next(share, state).await;
            told.take(at, written.map_err(Problem::from).flatten().map(drop));
        }
        // Where all of them are here nothing was awaited, and others wait.
        tokio::task::yield_now().await;
    }
    Ok(json_response(told.into_json()))
}

/// A record of a backup, with a life of its own.
struct Record {
    key: Box<[u8]>,
    /// As it lay in the cache that it comes from, and until when; none of a key that was deleted.
    value: Option<Found>,
}

impl Record {
    fn copy(record: &RecordView<'_>) -> Self {
        let value = match &record.body {
            Body::Tombstone => None,
            Body::Value(value) => Some(Found::copy(&Item {
                value: value.clone(),
                version: record.version,
                expires_at_ms: record.expires_at_ms,
            })),
        };
        Self {
            key: record.key.into(),
            value,
        }
    }
}

/// Reads all records of a body.
fn read(body: &[u8], hold: &mut Hold<'_>) -> Result<Vec<Record>, Problem> {
    let invalid = |detail: String| Problem::new(Code::InvalidBody, detail);
    let header = Header::decode(body).map_err(|error| invalid(error.to_string()))?;
    if header.content != Content::Snapshot || header.cipher != 0 {
        let detail = "expected a part of a snapshot, not encrypted; henge restore sends them";
        return Err(invalid(detail.to_owned()));
    }
    let (mut records, mut scratch) = (Vec::new(), Vec::new());
    let (mut at, mut bytes) = (HEADER_BYTES, 0);
    while at < body.len() {
        let damaged = |wrong: &dyn std::fmt::Display| invalid(format!("at byte {at}: {wrong}"));
        let (part, len) = match frame(header.seed(), &body[at..]) {
            Frame::Whole { body, len } => (snapshot::decode(body), len),
            Frame::Damaged(damage) => return Err(damaged(&damage)),
            Frame::End | Frame::Cut => return Err(damaged(&"it is cut off")),
        };
        let Part::Block(block) = part.map_err(|damage| damaged(&damage))? else {
            return Err(damaged(&"only blocks of records are taken"));
        };
        let count = block.records as usize;
        if records.len() + count > MOST_RECORDS {
            let detail = format!("it has more than {MOST_RECORDS} records");
            return Err(Problem::new(Code::BatchTooLarge, detail));
        }
        // Of what it says of itself, before it is believed: it may be compressed.
        bytes += usize::try_from(block.raw_bytes()).unwrap_or(usize::MAX);
        if !hold.set(bytes.saturating_add((records.len() + count) * BESIDE_RECORD_BYTES)) {
            return Err(overloaded());
        }
        let shown = block.own_records(&mut scratch, |record| records.push(Record::copy(&record)));
        shown.map_err(|damage| damaged(&damage))?;
        at += len;
    }
    Ok(records)
}

fn command<'a>(key: &'a [u8], value: &'a Found, replaces: bool) -> Command<'a> {
    Command {
        key,
        operation: Operation::Set {
            value: value.stored(),
            expiry: value.expires_at_ms.map_or(Expiry::Never, Expiry::At),
            precondition: if replaces {
                Precondition::NONE
            } else {
                Precondition {
                    none_matches: Some(Match::Any),
                    ..Precondition::NONE
                }
            },
        },
    }
}

/// What became of the records.
struct Told<'a> {
    hold: Hold<'a>,
    records: u64,
    written: u64,
    present: u64,
    expired: u64,
    deleted: u64,
    /// Of those that failed, as JSON.
    failed: Vec<u8>,
}

impl Told<'_> {
    fn take(&mut self, at: usize, written: Result<(), Problem>) {
        match written {
            Ok(()) => self.written += 1,
            Err(problem) if problem.code == Code::PreconditionFailed => self.present += 1,
            Err(problem) => {
                let out = &mut self.failed;
                if !out.is_empty() {
                    out.push(b',');
                }
                out.extend_from_slice(b"{\"at\":");
                json::write_u64(out, at as u64);
                out.push(b',');
                problem.write_error(out);
                out.push(b'}');
                // Without them nobody would know what became of any. They are short.
                self.hold.set_anyway(self.failed.capacity());
            }
        }
    }

    fn into_json(self) -> Bytes {
        let mut out = Vec::with_capacity(128 + self.failed.len());
        for (name, number) in [
            ("{\"records\":", self.records),
            (",\"written\":", self.written),
            (",\"present\":", self.present),
            (",\"expired\":", self.expired),
            (",\"deleted\":", self.deleted),
        ] {
            out.extend_from_slice(name.as_bytes());
            json::write_u64(&mut out, number);
        }
        out.extend_from_slice(b",\"failed\":[");
        out.extend_from_slice(&self.failed);
        out.extend_from_slice(b"]}");
        self.hold.attach(Bytes::from(out))
    }
}
