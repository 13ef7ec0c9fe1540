//! Repairs the log: leaves out what cannot be read, and says so in the same place and of the same length, so that every mark
//! behind it stays right; or ends the log there. It changes an [`Overlay`] and no file.

use std::io;

use henge_engine::persistence::frame::{
    self, Content, FORMAT, FRAME_BYTES, Frame, HEADER_BYTES, Header, HeaderError, Seed,
};
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::recovery::RecoveryError;
use henge_engine::persistence::snapshot::{self, Builder, Part};
use henge_engine::persistence::wal::{self, GAP_BODY_BYTES, Record};
use henge_engine::persistence::walk::Walk;
use henge_engine::persistence::{FileKind, Name, Position, Storage, StorageFile};

use super::diagnosis::Trouble;
use super::overlay::{Draft, Laid, Overlay};
use super::{RepairError, Step, Survey, of};
use crate::disk::snapshots::salt;

/// The shortest frame that says that something is missing.
const GAP_BYTES: u64 = (FRAME_BYTES + GAP_BODY_BYTES) as u64;
/// More segments than any log lacks: 320 GiB of them.
const MAX_MISSING: u64 = 10_000;

/// Leaves out what cannot be read.
pub(super) fn skip(
    overlay: &mut Overlay,
    trouble: Trouble,
    steps: &mut Vec<Step>,
) -> Result<(), RepairError> {
    let from = trouble.from();
    match trouble.error {
        RecoveryError::Damaged { name, offset, .. } => {
            if offset == HEADER_BYTES as u64 {
                doubt_the_end(overlay, name, from)?;
            }
            leave_out(overlay, name, offset, trouble.needed, steps)
        }
        RecoveryError::Order { name, offset, .. } => {
            // Something is missing before it. The mark of that takes its place, as there is no other.
            let (mut walk, header) = walk(overlay, name)?;
            let mut end = frame_end(&mut walk, name, offset)?;
            if trouble.needed.segment == name.number && !walk.is_frame(offset).map_err(of(name))? {
                end = end.max(trouble.needed.offset);
            }
            let mut draft = overlay.draft(name).map_err(of(name))?;
            mark_gap(&mut draft, header.seed(), name, offset, end, steps);
            overlay.put(name, draft);
            Ok(())
        }
        RecoveryError::Header(name, error) => {
            refuse_format(overlay, name, error)?;
            mend_header(overlay, name, from, trouble.needed, steps)
        }
        RecoveryError::Missing(number) => {
            let there = segments(overlay)?;
            if there.contains(&number) {
                // It ends before the place that a snapshot knows of.
                let name = Name::segment(number);
                let (mut walk, header) = walk(overlay, name)?;
                let end = log_end(&mut walk, name)?;
                let mut draft = overlay.draft(name).map_err(of(name))?;
                let needed = trouble.needed.offset;
                mark_gap(&mut draft, header.seed(), name, end, needed, steps);
                overlay.put(name, draft);
                return Ok(());
            }
            let next = there.iter().copied().find(|&other| other > number);
            if trouble.snapshot.is_none()
                && number == 1
                && let Some(next) = next
            {
                // Segments are removed only once a snapshot covers them, so it is the snapshot that is missing.
                return super::remake::remake(overlay, Name::snapshot(next), steps);
            }
            let last = next.map_or(trouble.needed.segment.max(number), |next| next - 1);
            if last - number > MAX_MISSING {
                return Err(RepairError::Unmended(trouble.error.to_string()));
            }
            doubt_the_end(overlay, Name::segment(number), from)?;
            for number in number..=last {
                let draft = gap_segment(number, 0, trouble.needed);
                overlay.put(Name::segment(number), draft);
            }
            steps.push(Step::Missing {
                first: number,
                last,
            });
            Ok(())
        }
        RecoveryError::Io(name, error) => Err(RepairError::Io(name, error)),
        RecoveryError::Incomplete(_) => Err(RepairError::Unmended(trouble.error.to_string())),
    }
}

/// Ends the segment before this one with a mark, as this one will not begin with what it began with.
fn doubt_the_end(overlay: &mut Overlay, name: Name, from: u64) -> Result<(), RepairError> {
    if name.number <= from {
        return Ok(());
    }
    let before = Name::segment(name.number - 1);
    let (mut walk, header) = walk(overlay, before)?;
    let end = log_end(&mut walk, before)?;
    let mut draft = overlay.draft(before).map_err(of(before))?;
    let mark = framed(header.seed(), &wal::gap_body(0, GAP_BODY_BYTES));
    draft.replace(end..end + GAP_BYTES, mark);
    overlay.put(before, draft);
    Ok(())
}

/// Leaves out all that cannot be read of a segment from a place on, and has whole records behind it; if there are none, all
/// from that place on.
fn leave_out(
    overlay: &mut Overlay,
    name: Name,
    offset: u64,
    needed: Position,
    steps: &mut Vec<Step>,
) -> Result<(), RepairError> {
    let failed = of(name);
    let (mut walk, _) = walk(overlay, name)?;
    let mut draft = overlay.draft(name).map_err(&failed)?;
    let seed = walk.header().seed();
    let Some(next) = walk.next_frame(offset).map_err(&failed)? else {
        let mut end = walk.data_end(offset).map_err(&failed)?;
        if needed.segment == name.number {
            end = end.max(needed.offset);
        }
        mark_gap(&mut draft, seed, name, offset, end, steps);
        overlay.put(name, draft);
        return Ok(());
    };
    let (mut damaged, mut next) = (offset, next);
    loop {
        while next < damaged + GAP_BYTES {
            next = frame_end(&mut walk, name, next)?;
        }
        mark_gap(&mut draft, seed, name, damaged, next, steps);
        let mut at = next;
        while walk.is_frame(at).map_err(&failed)? {
            at = frame_end(&mut walk, name, at)?;
        }
        damaged = at;
        if walk.data_end(at).map_err(&failed)? == at {
            break;
        }
        match walk.next_frame(damaged).map_err(&failed)? {
            Some(again) => next = again,
            // What is left may be the torn end, which is for recovery to say.
            None => break,
        }
    }
    overlay.put(name, draft);
    Ok(())
}

/// Makes a header anew if its salt is the one of the frames behind it; if no frame can be read leaves the segment out.
fn mend_header(
    overlay: &mut Overlay,
    name: Name,
    from: u64,
    needed: Position,
    steps: &mut Vec<Step>,
) -> Result<(), RepairError> {
    let failed = of(name);
    let mut draft = overlay.draft(name).map_err(&failed)?;
    let file = overlay.open(name).map_err(&failed)?;
    if let Some(header) = guess_header(&file, name).map_err(&failed)? {
        draft.replace(0..HEADER_BYTES as u64, header.encode().to_vec());
        steps.push(Step::Header(name));
    } else {
        doubt_the_end(overlay, name, from)?;
        let bytes = file.len().map_err(&failed)?;
        let at = Position {
            segment: name.number,
            offset: 0,
        };
        draft = gap_segment(name.number, bytes, needed);
        steps.push(Step::LeftOut { at, bytes });
    }
    overlay.put(name, draft);
    Ok(())
}

/// Refuses a file that another version wrote. One whose format is only a damaged number is none.
pub(super) fn refuse_format(
    overlay: &Overlay,
    name: Name,
    error: HeaderError,
) -> Result<(), RepairError> {
    if !matches!(error, HeaderError::Format(_)) {
        return Ok(());
    }
    let file = overlay.open(name).map_err(of(name))?;
    match guess_header(&file, name).map_err(of(name))? {
        Some(_) => Ok(()),
        None => Err(RepairError::Format(name, error)),
    }
}

/// The header that a file must have had whose own cannot be read: with the salt that lies where it should, if a frame
/// behind it was written with that. None if there is no such frame.
pub(super) fn guess_header(file: &Laid, name: Name) -> io::Result<Option<Header>> {
    let content = match name.kind {
        FileKind::Segment => Content::Log,
        FileKind::Snapshot | FileKind::Unfinished => Content::Snapshot,
    };
    let mut head = [0; HEADER_BYTES];
    let mut read = 0;
    while read < head.len() {
        match file.read_at(&mut head[read..], read as u64)? {
            0 => return Ok(None),
            more => read += more,
        }
    }
    if Header::decode(&head).is_ok() {
        // It can be read, and is that of another file.
        return Ok(None);
    }
    let mut of_this_format = head;
    of_this_format[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    if let Ok(header) = Header::decode(&of_this_format)
        && (header.content, header.number) == (content, name.number)
    {
        return Ok(Some(header));
    }
    let mut salt = [0; 16];
    salt.copy_from_slice(&head[24..40]);
    let header = Header {
        content,
        number: name.number,
        cipher: 0,
        key_id: 0,
        salt,
    };
    let mut walk = Walk::new(file.clone(), header)?;
    let first = HEADER_BYTES as u64;
    let is_right = walk.is_frame(first)? || walk.next_frame(first)?.is_some();
    Ok(is_right.then_some(header))
}

/// A segment that says only that something is missing, and goes as far as it has to.
fn gap_segment(number: u64, bytes: u64, needed: Position) -> Draft {
    let header = Header {
        content: Content::Log,
        number,
        cipher: 0,
        key_id: 0,
        salt: salt(),
    };
    let least = HEADER_BYTES as u64 + GAP_BYTES;
    let end = if needed.segment == number {
        needed.offset.max(least)
    } else {
        least
    };
    let mut draft = Draft::default();
    draft.add(header.encode().to_vec());
    let len = (end - HEADER_BYTES as u64) as usize - FRAME_BYTES;
    draft.add(framed(header.seed(), &wal::gap_body(bytes, len)));
    draft
}

fn framed(seed: Seed, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + FRAME_BYTES);
    frame::append(seed, body, &mut bytes).expect("no more than lay in a file there");
    bytes
}

/// Puts a mark in the place of what is left out.
fn mark_gap(
    draft: &mut Draft,
    seed: Seed,
    name: Name,
    offset: u64,
    end: u64,
    steps: &mut Vec<Step>,
) {
    let bytes = end.saturating_sub(offset);
    let end = end.max(offset + GAP_BYTES);
    let len = (end - offset) as usize - FRAME_BYTES;
    draft.replace(offset..end, framed(seed, &wal::gap_body(bytes, len)));
    let at = Position {
        segment: name.number,
        offset,
    };
    steps.push(Step::LeftOut { at, bytes });
}

/// Drops all of the log from the trouble on.
pub(super) fn cut(
    overlay: &mut Overlay,
    trouble: Trouble,
    steps: &mut Vec<Step>,
) -> Result<(), RepairError> {
    let (segment, offset) = match &trouble.error {
        RecoveryError::Damaged { name, offset, .. } | RecoveryError::Order { name, offset, .. } => {
            (name.number, *offset)
        }
        RecoveryError::Header(name, error) => {
            refuse_format(overlay, *name, *error)?;
            (name.number, 0)
        }
        RecoveryError::Missing(number) if segments(overlay)?.contains(number) => {
            let name = Name::segment(*number);
            let (mut walk, _) = walk(overlay, name)?;
            (*number, log_end(&mut walk, name)?)
        }
        RecoveryError::Missing(number) => (*number, 0),
        RecoveryError::Io(..) | RecoveryError::Incomplete(_) => {
            return match trouble.error {
                RecoveryError::Io(name, error) => Err(RepairError::Io(name, error)),
                error => Err(RepairError::Unmended(error.to_string())),
            };
        }
    };
    let at = if offset > HEADER_BYTES as u64 {
        Position { segment, offset }
    } else if segment > trouble.from() {
        let before = Name::segment(segment - 1);
        let (mut walk, _) = walk(overlay, before)?;
        Position {
            segment: before.number,
            offset: log_end(&mut walk, before)?,
        }
    } else {
        Position { segment, offset: 0 }
    };
    if trouble.needed > at {
        let Some(snapshot) = trouble.snapshot else {
            return Err(RepairError::Unmended(trouble.error.to_string()));
        };
        shorten(overlay, snapshot, at, steps)?;
    }
    for number in segments(overlay)?.into_iter().rev() {
        let name = Name::segment(number);
        if number > at.segment || (number == at.segment && at.offset == 0) {
            let lost = survey(overlay, name, 0)?;
            overlay.put_aside(name);
            steps.push(Step::Aside { name, lost });
        } else if number == segment {
            let lost = survey(overlay, name, offset)?;
            let mut draft = overlay.draft(name).map_err(of(name))?;
            draft.cut(offset);
            overlay.put(name, draft);
            steps.push(Step::Cut { at, lost });
        }
    }
    if trouble.needed > at {
        // The snapshot has records that are newer than what is left of the log: nothing may be stamped below them.
        start_from(overlay, at, trouble.course.newest)?;
    }
    Ok(())
}

/// Has a snapshot do without the log behind this place.
fn shorten(
    overlay: &mut Overlay,
    name: Name,
    at: Position,
    steps: &mut Vec<Step>,
) -> Result<(), RepairError> {
    let failed = of(name);
    let (mut walk, header) = walk(overlay, name)?;
    if header.cipher != 0 {
        return Err(RepairError::Encrypted(name));
    }
    let mut offset = HEADER_BYTES as u64;
    loop {
        let end = frame_end(&mut walk, name, offset)?;
        let Frame::Whole { body, .. } = walk.look(offset).map_err(&failed)? else {
            return Err(RepairError::Unmended(format!(
                "{name} ends before it is complete"
            )));
        };
        if let Ok(Part::Complete { records, at_ms, .. }) = snapshot::decode(body) {
            let mut frames = Journal::default();
            Builder::complete(at, records, at_ms, &mut frames).expect("it is short");
            let mut draft = overlay.draft(name).map_err(&failed)?;
            draft.replace(offset..end, sealed(frames, header.seed()));
            overlay.put(name, draft);
            steps.push(Step::Shortened(name));
            return Ok(());
        }
        offset = end;
    }
}

/// Has all partitions go on from a version, behind the end of the log.
fn start_from(
    overlay: &mut Overlay,
    at: Position,
    first: henge_wire::Version,
) -> Result<(), RepairError> {
    let name = Name::segment(at.segment);
    let (mut draft, header) = if at.offset == 0 {
        let header = Header {
            content: Content::Log,
            number: at.segment,
            cipher: 0,
            key_id: 0,
            salt: salt(),
        };
        let mut draft = Draft::default();
        draft.add(header.encode().to_vec());
        (draft, header)
    } else {
        let (_, header) = walk(overlay, name)?;
        let mut draft = overlay.draft(name).map_err(of(name))?;
        // Room that was made ahead, if it is a segment that nothing is cut from.
        draft.cut(at.offset);
        (draft, header)
    };
    if header.cipher != 0 {
        return Err(RepairError::Encrypted(name));
    }
    let mut frames = Journal::default();
    let record = Record::Started {
        // No process; those count from 1.
        incarnation: 0,
        first,
    };
    record.encode(&mut frames).expect("it is short");
    draft.add(sealed(frames, header.seed()));
    overlay.put(name, draft);
    Ok(())
}

/// The bytes of frames, for a file of this seed.
pub(super) fn sealed(mut frames: Journal, seed: Seed) -> Vec<u8> {
    frames.seal(seed);
    frames.frames().iter().flatten().copied().collect()
}

/// What is in a file from a place on. Of a snapshot it is only the bytes.
pub(super) fn survey(overlay: &Overlay, name: Name, offset: u64) -> Result<Survey, RepairError> {
    let failed = of(name);
    let file = overlay.open(name).map_err(&failed)?;
    let mut survey = Survey::default();
    let header = match read_header(&file) {
        Ok(header) => Some(header),
        Err(_) => guess_header(&file, name).map_err(&failed)?,
    };
    let Some(header) = header else {
        survey.bytes = file.len().map_err(&failed)?;
        return Ok(survey);
    };
    let mut walk = Walk::new(file, header).map_err(&failed)?;
    survey.bytes = walk.data_end(offset).map_err(&failed)? - offset;
    if header.content == Content::Snapshot || header.cipher != 0 {
        return Ok(survey);
    }
    let mut at = offset.max(HEADER_BYTES as u64);
    loop {
        if walk.is_frame(at).map_err(&failed)? {
            let Frame::Whole { body, len } = walk.look(at).map_err(&failed)? else {
                break;
            };
            if let Ok(Some(partition)) = wal::partition_of(body) {
                survey.records += 1;
                survey.partitions.insert(partition.number());
            }
            at += len as u64;
            continue;
        }
        match walk.next_frame(at).map_err(&failed)? {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(survey)
}

pub(super) fn read_header(file: &Laid) -> Result<Header, HeaderError> {
    let mut head = [0; HEADER_BYTES];
    let mut read = 0;
    while read < head.len() {
        match file.read_at(&mut head[read..], read as u64) {
            Ok(more) if more > 0 => read += more,
            _ => break,
        }
    }
    Header::decode(&head[..read])
}

/// A file to be gone through whose header can be read.
pub(super) fn walk(overlay: &Overlay, name: Name) -> Result<(Walk<Laid>, Header), RepairError> {
    let file = overlay.open(name).map_err(of(name))?;
    let header =
        read_header(&file).map_err(|error| RepairError::Unmended(format!("{name}: {error}")))?;
    if header.cipher != 0 {
        return Err(RepairError::Encrypted(name));
    }
    let walk = Walk::new(file, header).map_err(of(name))?;
    Ok((walk, header))
}

/// The place behind the last of the whole frames that follow each other from the header on.
fn log_end(walk: &mut Walk<Laid>, name: Name) -> Result<u64, RepairError> {
    let mut at = HEADER_BYTES as u64;
    while walk.is_frame(at).map_err(of(name))? {
        at = frame_end(walk, name, at)?;
    }
    Ok(at)
}

/// Where a frame that is whole ends.
fn frame_end(walk: &mut Walk<Laid>, name: Name, at: u64) -> Result<u64, RepairError> {
    match walk.look(at).map_err(of(name))? {
        Frame::Whole { len, .. } => Ok(at + len as u64),
        // Behind the last one there is nothing that could be left out more.
        _ => Ok(at + GAP_BYTES),
    }
}

pub(super) fn segments(overlay: &Overlay) -> Result<Vec<u64>, RepairError> {
    let names = overlay
        .names()
        .map_err(|error| RepairError::Io(None, error))?;
    let segments = names.iter().filter(|name| name.kind == FileKind::Segment);
    Ok(segments.map(|name| name.number).collect())
}
