//! Makes a snapshot again of what can be read of it. A record that is lost is a miss, which a cache may have. What must not
//! be lost is how far a partition had come: where that cannot be read it follows from the log, which has all that was
//! written since the snapshot was begun; and where the log does not say it either, the partition is left out.

use std::ops::Range;

use henge_engine::Progress;
use henge_engine::persistence::frame::{Content, Frame, HEADER_BYTES, Header};
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::recovery::{LogEnd, RecoveryError};
use henge_engine::persistence::snapshot::{self, Block, Builder, Part};
use henge_engine::persistence::wal::Record;
use henge_engine::persistence::walk::Walk;
use henge_engine::persistence::{Name, Position, Storage, StorageFile};
use henge_wire::{PARTITIONS, Partition, Version};

use super::course::Course;
use super::diagnosis::{Complete, Trouble, diagnose, follow};
use super::overlay::{Draft, Laid, Overlay};
use super::segments::{self, guess_header, read_header, refuse_format, sealed};
use super::{MAX_ROUNDS, RepairError, Step, of};

/// Puts a snapshot aside if the log is there from its begin on, and so has all of it. False if not.
pub(super) fn try_without(
    overlay: &mut Overlay,
    name: Name,
    steps: &mut Vec<Step>,
) -> Result<bool, RepairError> {
    if name.number == 1 || segments::segments(overlay)?.first() != Some(&1) {
        return Ok(false);
    }
    let mut without = overlay.clone();
    without.put_aside(name);
    if diagnose(&without).is_err() {
        return Ok(false);
    }
    let lost = segments::survey(overlay, name, 0)?;
    *overlay = without;
    steps.push(Step::Aside { name, lost });
    Ok(true)
}

/// What can be read of a partition.
#[derive(Clone, Debug, Default)]
struct Found {
    /// Where its blocks are.
    blocks: Vec<Range<u64>>,
    records: u64,
    /// The newest of them.
    newest: Version,
    /// How far it had come, if that can be read.
    progress: Option<Progress>,
}

/// What can be read of a snapshot.
struct Rest {
    /// None if it is lost.
    header: Option<Header>,
    /// It can be read.
    has_header: bool,
    partitions: Vec<Found>,
    complete: Option<Complete>,
    lost_bytes: u64,
}

/// What the log after a snapshot says of a partition.
#[derive(Clone, Copy, Debug, Default)]
struct Logged {
    first: Option<Version>,
    last: Version,
    /// A part of the log is missing before the first.
    is_doubtful: bool,
}

/// Makes it again, and mends the log that that takes. A snapshot that is not there at all is made without any record.
pub(super) fn remake(
    overlay: &mut Overlay,
    name: Name,
    steps: &mut Vec<Step>,
) -> Result<(), RepairError> {
    let rest = read(overlay, name)?;
    let begin = Position {
        segment: name.number,
        offset: 0,
    };
    let needed = rest.complete.map_or(begin, |complete| complete.position);
    let (log, logged) = follow_mended(overlay, name, needed, steps)?;
    let mut draft = Draft::default();
    let mut sealer = if let Some(header) = rest.header {
        if rest.has_header {
            draft.keep(0..HEADER_BYTES as u64);
        } else {
            draft.add(header.encode().to_vec());
        }
        segments::sealer(overlay, name, &header)?
    } else {
        let (header, sealer) = segments::begin(overlay, Content::Snapshot, name.number)?;
        draft.add(header.encode().to_vec());
        sealer
    };
    let (mut kept, mut dropped) = (0, 0);
    for (partition, mut found) in Partition::all().zip(rest.partitions) {
        let logged = logged[usize::from(partition.number())];
        let last = match found.progress {
            Some(progress) => progress.last,
            None => go_on_from(&found, logged),
        };
        // Without its end nobody knows how far the log has to go for all records to be in it; and without the place of a
        // partition they may be older than what the log lacks.
        let is_ahead = rest.complete.is_none() && found.newest > last.max(logged.last);
        let is_doubtful = found.progress.is_none() && logged.is_doubtful;
        if (is_ahead || is_doubtful) && found.records > 0 {
            found.blocks.clear();
            found.records = 0;
            dropped += 1;
        }
        for block in found.blocks {
            draft.keep(block);
        }
        let progress = Progress {
            last,
            // What is lost counts as dropped.
            commit: last.seq(),
            horizon: last.seq(),
        };
        let mut frames = Journal::default();
        Builder::partition(partition, progress, found.records, &mut frames).expect("it is short");
        draft.add(sealed(&frames, &mut sealer));
        kept += found.records;
    }
    let (position, at_ms) = match rest.complete {
        Some(complete) => (complete.position, complete.at_ms),
        None => (log.end, 0),
    };
    let mut frames = Journal::default();
    Builder::complete(position, kept, at_ms, &mut frames).expect("it is short");
    draft.add(sealed(&frames, &mut sealer));
    overlay.put(name, draft);
    steps.push(Step::Remade {
        name,
        lost_bytes: rest.lost_bytes,
        records: kept,
        dropped,
    });
    Ok(())
}

/// Reads the log that a snapshot belongs to, and mends it if it must be.
fn follow_mended(
    overlay: &mut Overlay,
    name: Name,
    needed: Position,
    steps: &mut Vec<Step>,
) -> Result<(LogEnd, Vec<Logged>), RepairError> {
    let mut before = String::new();
    for _ in 0..MAX_ROUNDS {
        let error = match read_log(overlay, name.number, needed) {
            Ok(read) => return Ok(read),
            Err(RecoveryError::Io(name, error)) => return Err(RepairError::Io(name, error)),
            Err(RecoveryError::Key(name, error)) => return Err(RepairError::Key(name, error)),
            Err(error) => error,
        };
        let wrong = error.to_string();
        if wrong == before {
            break;
        }
        before = wrong;
        let trouble = Trouble {
            broken: Vec::new(),
            error,
            snapshot: Some(name),
            needed,
            course: Course::new(),
        };
        segments::skip(overlay, trouble, steps)?;
    }
    Err(RepairError::Unmended(before))
}

/// What the log from a segment on says of each partition.
fn read_log(
    overlay: &Overlay,
    from: u64,
    needed: Position,
) -> Result<(LogEnd, Vec<Logged>), RecoveryError> {
    let mut logged = vec![Logged::default(); usize::from(PARTITIONS)];
    let mut has_gap = false;
    let log = follow(overlay, from, needed, &mut |_, record| {
        let (partition, version) = match record {
            Record::Mutation(mutation) => (mutation.partition, mutation.version),
            Record::Flush { partition, last } => (*partition, *last),
            Record::Gap { .. } => {
                has_gap = true;
                return Ok(());
            }
            Record::Synced(_)
            | Record::Follows(_)
            | Record::Started { .. }
            | Record::Replica(_) => return Ok(()),
        };
        let state = &mut logged[usize::from(partition.number())];
        if state.first.is_none() {
            state.first = Some(version);
            state.is_doubtful = has_gap;
        }
        state.last = state.last.max(version);
        Ok(())
    })?;
    Ok((log, logged))
}

/// The version that a partition goes on from whose place in the snapshot is lost: the one before the first in the log, so
/// that all is done again that the log has. It had all since the snapshot was begun, so what the snapshot has is
/// changed by that only as it was before.
fn go_on_from(found: &Found, logged: Logged) -> Version {
    match logged.first {
        _ if logged.is_doubtful => Version::ZERO,
        Some(first) => Version::new(first.term(), first.seq().saturating_sub(1)),
        None => found.newest,
    }
}

/// Reads what can be read of it.
fn read(overlay: &Overlay, name: Name) -> Result<Rest, RepairError> {
    let failed = of(name);
    let mut rest = Rest {
        header: None,
        has_header: false,
        partitions: vec![Found::default(); usize::from(PARTITIONS)],
        complete: None,
        lost_bytes: 0,
    };
    let file = match overlay.open(name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(rest),
        file => file.map_err(&failed)?,
    };
    let header = match read_header(&file) {
        Ok(header) if header.number == name.number && header.content == Content::Snapshot => {
            rest.has_header = true;
            Some(header)
        }
        found => {
            if let Err(error) = found {
                refuse_format(overlay, name, error)?;
            }
            guess_header(overlay, &file, name)?
        }
    };
    let Some(header) = header else {
        rest.lost_bytes = file.len().map_err(&failed)?;
        return Ok(rest);
    };
    rest.header = Some(header);
    let mut walk = Walk::new(file, header, overlay.keys()).map_err(&failed)?;
    if let Some(error) = walk.key_error() {
        return Err(RepairError::Key(name, error.clone()));
    }
    let mut at = HEADER_BYTES as u64;
    let mut scratch = Vec::new();
    while at < walk.len() && rest.complete.is_none() {
        if let Some(end) = rest.take(&mut walk, at, &mut scratch).map_err(&failed)? {
            at = end;
            continue;
        }
        let next = walk.next_frame(at).map_err(&failed)?;
        let next = next.unwrap_or(walk.len());
        rest.lost_bytes += next - at;
        at = next;
    }
    Ok(rest)
}

impl Rest {
    /// Takes the frame at a place and says where it ends; none if there is none that can be read.
    fn take(
        &mut self,
        walk: &mut Walk<Laid>,
        at: u64,
        scratch: &mut Vec<u8>,
    ) -> std::io::Result<Option<u64>> {
        let Frame::Whole { body, len } = walk.look(at)? else {
            return Ok(None);
        };
        let end = at + len as u64;
        match snapshot::decode(body) {
            Err(_) => return Ok(None),
            Ok(Part::Block(block)) => match newest(&block, scratch) {
                None => self.lost_bytes += len as u64,
                Some(newest) => {
                    let found = &mut self.partitions[usize::from(block.partition.number())];
                    found.blocks.push(at..end);
                    found.records += u64::from(block.records);
                    found.newest = found.newest.max(newest);
                }
            },
            Ok(Part::Replica { .. }) => {}
            Ok(Part::Partition {
                partition,
                progress,
                ..
            }) => self.partitions[usize::from(partition.number())].progress = Some(progress),
            Ok(Part::Complete {
                position,
                records,
                at_ms,
            }) => {
                self.complete = Some(Complete {
                    position,
                    records,
                    at_ms,
                });
            }
        }
        Ok(Some(end))
    }
}

/// The newest version in a block; none if it cannot be read.
fn newest(block: &Block<'_>, scratch: &mut Vec<u8>) -> Option<Version> {
    let mut newest = Version::ZERO;
    let read = block.own_records(scratch, |record| newest = newest.max(record.version));
    read.ok().map(|()| newest)
}
