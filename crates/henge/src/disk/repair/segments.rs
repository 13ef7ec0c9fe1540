//! Repairs the log: leaves out what cannot be read, and says so in the same place and of the same length, so that every mark
//! behind it stays right; or ends the log there. It changes an [`Overlay`] and no file.

use henge_engine::persistence::cipher::{self, KeyError, NoKeys, SEALED_BYTES, Sealer};
use henge_engine::persistence::frame::{
    Content, FORMAT, FRAME_BYTES, Frame, HEADER_BYTES, Header, HeaderError, REPLICA_FORMAT,
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
use crate::encryption::{random_number, salt};

/// The shortest frame that says that something is missing. No other record is shorter, encrypted or not.
const fn gap_bytes(header: &Header) -> u64 {
    let more = if header.cipher == 0 { 0 } else { SEALED_BYTES };
    (FRAME_BYTES + GAP_BODY_BYTES + more) as u64
}

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
            let mut sealer = sealer(overlay, name, &header)?;
            mark_gap(&mut draft, &mut sealer, name, offset, end, steps);
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
                let mut sealer = sealer(overlay, name, &header)?;
                mark_gap(&mut draft, &mut sealer, name, end, needed, steps);
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
                let draft = gap_segment(overlay, number, 0, trouble.needed)?;
                overlay.put(Name::segment(number), draft);
            }
            steps.push(Step::Missing {
                first: number,
                last,
            });
            Ok(())
        }
        RecoveryError::Io(name, error) => Err(RepairError::Io(name, error)),
        RecoveryError::Key(name, error) => Err(RepairError::Key(name, error)),
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
    let mut sealer = sealer(overlay, before, &header)?;
    let mark = framed(&mut sealer, &wal::gap_body(0, GAP_BODY_BYTES));
    draft.replace(end..end + gap_bytes(&header), mark);
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
    let (mut walk, header) = walk(overlay, name)?;
    let mut draft = overlay.draft(name).map_err(&failed)?;
    let mut sealer = sealer(overlay, name, &header)?;
    let Some(next) = walk.next_frame(offset).map_err(&failed)? else {
        let mut end = walk.data_end(offset).map_err(&failed)?;
        if needed.segment == name.number {
            end = end.max(needed.offset);
        }
        mark_gap(&mut draft, &mut sealer, name, offset, end, steps);
        overlay.put(name, draft);
        return Ok(());
    };
    let (mut damaged, mut next) = (offset, next);
    loop {
        while next < damaged + gap_bytes(&header) {
            next = frame_end(&mut walk, name, next)?;
        }
        mark_gap(&mut draft, &mut sealer, name, damaged, next, steps);
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
    if let Some(header) = guess_header(overlay, &file, name)? {
        draft.replace(0..HEADER_BYTES as u64, header.encode().to_vec());
        steps.push(Step::Header(name));
    } else {
        doubt_the_end(overlay, name, from)?;
        let bytes = file.len().map_err(&failed)?;
        let at = Position {
            segment: name.number,
            offset: 0,
        };
        draft = gap_segment(overlay, name.number, bytes, needed)?;
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
    match guess_header(overlay, &file, name)? {
        Some(_) => Ok(()),
        None => Err(RepairError::Format(name, error)),
    }
}

/// The header that a file must have had whose own cannot be read: with the salt that lies where it should, if a frame
/// behind it was written with that. None if there is no such frame. An error if there is one that no key here opens.
pub(super) fn guess_header(
    overlay: &Overlay,
    file: &Laid,
    name: Name,
) -> Result<Option<Header>, RepairError> {
    let failed = of(name);
    let content = match name.kind {
        FileKind::Segment => Content::Log,
        FileKind::Snapshot | FileKind::Unfinished => Content::Snapshot,
    };
    let mut head = [0; HEADER_BYTES];
    let mut read = 0;
    while read < head.len() {
        match file
            .read_at(&mut head[read..], read as u64)
            .map_err(&failed)?
        {
            0 => return Ok(None),
            more => read += more,
        }
    }
    if Header::decode(&head).is_ok() {
        // It can be read, and is that of another file.
        return Ok(None);
    }
    for format in [FORMAT, REPLICA_FORMAT] {
        let mut of_this_format = head;
        of_this_format[8..10].copy_from_slice(&format.to_le_bytes());
        if let Ok(header) = Header::decode(&of_this_format)
            && (header.content, header.number) == (content, name.number)
        {
            return Ok(Some(header));
        }
    }
    let mut salt = [0; 16];
    salt.copy_from_slice(&head[24..40]);
    let with = |(cipher, key_id)| Header {
        content,
        format: REPLICA_FORMAT,
        number: name.number,
        cipher,
        key_id,
        salt,
    };
    let ways: Vec<Header> = [(0, 0)]
        .into_iter()
        .chain(overlay.keys().all())
        .map(with)
        .collect();
    let first = HEADER_BYTES as u64;
    // The first frame of nearly every file tells; only then it is worth looking for another, once for each way.
    for is_only_first in [true, false] {
        for header in &ways {
            let walk = Walk::new(file.clone(), *header, overlay.keys());
            let mut walk = walk.map_err(&failed)?;
            let is_right = walk.is_frame(first).map_err(&failed)?
                || (!is_only_first && walk.next_frame(first).map_err(&failed)?.is_some());
            if is_right {
                return Ok(Some(*header));
            }
        }
    }
    // Frames that are whole and that nothing opens: their key is none of these, and the file may be whole but for its header.
    let cipher = u16::from_le_bytes([head[10], head[11]]);
    let key_id = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
    let sealed = with((cipher.max(1), key_id));
    let mut walk = Walk::new(file.clone(), sealed, &NoKeys).map_err(&failed)?;
    if walk.is_frame(first).map_err(&failed)? {
        return match cipher::opener(overlay.keys(), &sealed) {
            Err(error) => Err(RepairError::Key(name, error)),
            Ok(_) => Err(RepairError::Key(name, KeyError::Wrong(key_id))),
        };
    }
    Ok(None)
}

/// A segment that says only that something is missing, and goes as far as it has to.
fn gap_segment(
    overlay: &Overlay,
    number: u64,
    bytes: u64,
    needed: Position,
) -> Result<Draft, RepairError> {
    let (header, mut sealer) = begin(overlay, Content::Log, number)?;
    let least = HEADER_BYTES as u64 + gap_bytes(&header);
    let end = if needed.segment == number {
        needed.offset.max(least)
    } else {
        least
    };
    let mut draft = Draft::default();
    draft.add(header.encode().to_vec());
    let len = (end - HEADER_BYTES as u64) as usize - sealer.frame_bytes();
    draft.add(framed(&mut sealer, &wal::gap_body(bytes, len)));
    Ok(draft)
}

/// The header of a new file, and what makes its frames.
pub(super) fn begin(
    overlay: &Overlay,
    content: Content,
    number: u64,
) -> Result<(Header, Sealer), RepairError> {
    let name = match content {
        Content::Log => Name::segment(number),
        Content::Snapshot => Name::snapshot(number),
    };
    cipher::begin(overlay.keys(), content, REPLICA_FORMAT, number, salt())
        .map_err(|error| RepairError::Key(name, error))
}

/// What makes frames for a file that others have written.
pub(super) fn sealer(
    overlay: &Overlay,
    name: Name,
    header: &Header,
) -> Result<Sealer, RepairError> {
    Sealer::mending(overlay.keys(), header, random_number())
        .map_err(|error| RepairError::Key(name, error))
}

fn framed(sealer: &mut Sealer, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let appended = sealer.append(body, &mut bytes);
    appended.expect("no more than lay in a file there");
    bytes
}

/// Puts a mark in the place of what is left out.
fn mark_gap(
    draft: &mut Draft,
    sealer: &mut Sealer,
    name: Name,
    offset: u64,
    end: u64,
    steps: &mut Vec<Step>,
) {
    let bytes = end.saturating_sub(offset);
    let least = sealer.frame_bytes() + GAP_BODY_BYTES;
    let end = end.max(offset + least as u64);
    let len = (end - offset) as usize - sealer.frame_bytes();
    draft.replace(offset..end, framed(sealer, &wal::gap_body(bytes, len)));
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
        RecoveryError::Io(..) | RecoveryError::Key(..) | RecoveryError::Incomplete(_) => {
            return match trouble.error {
                RecoveryError::Io(name, error) => Err(RepairError::Io(name, error)),
                RecoveryError::Key(name, error) => Err(RepairError::Key(name, error)),
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
            let mut sealer = sealer(overlay, name, &header)?;
            draft.replace(offset..end, sealed(&frames, &mut sealer));
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
    let (mut draft, mut sealer) = if at.offset == 0 {
        let (header, sealer) = begin(overlay, Content::Log, at.segment)?;
        let mut draft = Draft::default();
        draft.add(header.encode().to_vec());
        (draft, sealer)
    } else {
        let (_, header) = walk(overlay, name)?;
        let mut draft = overlay.draft(name).map_err(of(name))?;
        // Room that was made ahead, if it is a segment that nothing is cut from.
        draft.cut(at.offset);
        (draft, sealer(overlay, name, &header)?)
    };
    let mut frames = Journal::default();
    let record = Record::Started {
        // No process; those count from 1.
        incarnation: 0,
        first,
    };
    record.encode(&mut frames).expect("it is short");
    draft.add(sealed(&frames, &mut sealer));
    overlay.put(name, draft);
    Ok(())
}

/// The bytes of frames, for the file of this sealer.
pub(super) fn sealed(frames: &Journal, sealer: &mut Sealer) -> Vec<u8> {
    let mut bytes = Vec::new();
    let appended = sealer.append_all(frames, &mut bytes);
    appended.expect("they are short");
    bytes
}

/// What is in a file from a place on. Of a snapshot it is only the bytes.
pub(super) fn survey(overlay: &Overlay, name: Name, offset: u64) -> Result<Survey, RepairError> {
    let failed = of(name);
    let file = overlay.open(name).map_err(&failed)?;
    let mut survey = Survey::default();
    let header = match read_header(&file) {
        Ok(header) => Some(header),
        Err(_) => guess_header(overlay, &file, name)?,
    };
    let Some(header) = header else {
        survey.bytes = file.len().map_err(&failed)?;
        return Ok(survey);
    };
    let mut walk = Walk::new(file, header, overlay.keys()).map_err(&failed)?;
    survey.bytes = walk.data_end(offset).map_err(&failed)? - offset;
    if header.content == Content::Snapshot || walk.key_error().is_some() {
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
    let walk = Walk::new(file, header, overlay.keys()).map_err(of(name))?;
    if let Some(error) = walk.key_error() {
        return Err(RepairError::Key(name, error.clone()));
    }
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
        _ => Ok(at + gap_bytes(walk.header())),
    }
}

pub(super) fn segments(overlay: &Overlay) -> Result<Vec<u64>, RepairError> {
    let names = overlay
        .names()
        .map_err(|error| RepairError::Io(None, error))?;
    let segments = names.iter().filter(|name| name.kind == FileKind::Segment);
    Ok(segments.map(|name| name.number).collect())
}
