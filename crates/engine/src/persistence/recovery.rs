//! Reads the log again. It finds how far the log goes, tells the torn end of what was being written from damage, and
//! refuses the one. The other is cut when who was shown the records has found them all good, and nothing is changed before.
//! What is in the records, and what they do, is for them.
//!
//! A place that cannot be read is the torn end if a crash can have left it so ([`frame::may_be_torn`]) and nothing says
//! that it was on the disk before: no `synced` record behind it, and no snapshot that was finished later. All behind it goes.
//! The same holds where a segment ends before the place that the next one follows.
//!
//! What is encrypted is told from damage by its checksums as all else is, so nothing is cut for want of the right key: a file
//! whose key is missing or wrong is refused, wherever in the log it is.

use super::cipher::{self, FileCipher, KeyError, Keyring, SEALED_BYTES};
use super::frame::{self, Damage, Frame, HEADER_BYTES, Header, HeaderError};
use super::storage::{FileKind, Name, Position, Storage, StorageFile, read_to_end};
use super::wal::{self, Record};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Records shown at once.
const CHUNK_RECORDS: usize = 4096;
/// Of those that were decrypted so many bytes, or one record: each chunk has memory of its own then.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// Some records of a segment, in their order.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The number of the segment.
    pub segment: u64,
    /// The segment from a place on; what is encrypted in it is decrypted where it lay.
    bytes: Bytes,
    /// That place.
    start: usize,
    /// Where in these bytes the bodies of the records are. Their checksums are right.
    bodies: Vec<Range<usize>>,
    /// From the begin of a frame to what is in it.
    lead: usize,
}

impl Chunk {
    /// The bodies of the records, each with the place of its frame in the segment.
    pub fn bodies(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let bodies = self.bodies.iter().cloned();
        bodies.map(|body| {
            let offset = self.start + body.start - self.lead;
            (offset as u64, &self.bytes[body])
        })
    }

    /// How far the segment was read.
    pub fn end(&self) -> u64 {
        let end = self.bodies.last().map_or(0, |body| body.end);
        (self.start + end) as u64
    }
}

/// How far the log went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEnd {
    /// Where the next frame would have gone.
    pub end: Position,
    /// The number of the segment that the log goes on in.
    pub next: u64,
    /// The lengths of all segments that there are.
    pub segments: BTreeMap<u64, u64>,
    /// Records read.
    pub records: u64,
    /// The torn end, if there is one.
    pub cut: Option<Cut>,
    leftovers: Leftovers,
}

/// What is behind the end of a log: it is to go before the log goes on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Leftovers {
    /// Segments, in the order in which they go.
    segments: Vec<u64>,
    /// Where the segment ends that has the torn end.
    torn: Option<Position>,
    /// Where segments end that have room left.
    unused: Vec<Position>,
}

/// The torn end of a log, which is cut before the log goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Where it began.
    pub at: Position,
    /// Its bytes, those included that were never written to.
    pub bytes: u64,
    /// Of these, whole segments behind the place.
    pub segments: u64,
}

/// Why a log or a snapshot cannot be read. Nothing was changed.
#[derive(Debug)]
pub enum RecoveryError {
    /// The system refused.
    Io(Option<Name>, io::Error),
    /// The head of a file is not one that can be read.
    Header(Name, HeaderError),
    /// What is in a file cannot be read for want of its key. It may be whole.
    Key(Name, KeyError),
    /// What is at this place, which was on the disk, is damaged.
    Damaged {
        /// The file.
        name: Name,
        /// From its begin, in bytes.
        offset: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// A segment is not there, though one behind it is, or a snapshot that needs it.
    Missing(u64),
    /// A record does not follow the one before it.
    Order {
        /// The segment.
        name: Name,
        /// From its begin, in bytes: where its body begins.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
    /// A snapshot ends before it is complete.
    Incomplete(Name),
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(Some(name), error) => write!(f, "{name}: {error}"),
            Self::Io(None, error) => error.fmt(f),
            Self::Header(name, error) => write!(f, "{name}: {error}"),
            Self::Key(name, error) => write!(f, "{name}: {error}"),
            Self::Damaged {
                name,
                offset,
                damage,
            } => write!(f, "{name} is damaged at byte {offset}: {damage}"),
            Self::Missing(number) => write!(
                f,
                "{} is missing, and what came after it is there",
                Name::segment(*number)
            ),
            Self::Order {
                name,
                offset,
                detail,
            } => write!(f, "{name} is damaged at byte {offset}: {detail}"),
            Self::Incomplete(name) => write!(f, "{name} ends before it is complete"),
        }
    }
}

impl std::error::Error for RecoveryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Header(_, error) => Some(error),
            Self::Key(_, error) => Some(error),
            Self::Damaged { damage, .. } => Some(damage),
            Self::Missing(_) | Self::Order { .. } | Self::Incomplete(_) => None,
        }
    }
}

/// Why a place of a file cannot be read.
#[derive(Clone, Copy, Debug)]
enum Unreadable {
    Missing,
    Header(HeaderError),
    Frame(Damage),
    /// The file ends in a frame.
    Cut,
    /// Zeros, and then something else.
    Hole,
    /// The file ends here, and the next segment says that it ended elsewhere.
    Ended(Position),
}

impl LogEnd {
    /// Cuts the torn end, and gives back room that was not used. To be called once all that was shown is known to be good,
    /// and before the log goes on.
    pub fn settle<S: Storage>(&self, storage: &S) -> Result<(), RecoveryError> {
        let Leftovers {
            segments,
            torn,
            unused,
        } = &self.leftovers;
        let shorten = |end: &Position, is_synced: bool| {
            let name = Name::segment(end.segment);
            let shortened = storage.open(name).and_then(|file| {
                file.set_len(end.offset)?;
                if is_synced { file.sync() } else { Ok(()) }
            });
            shortened.map_err(|error| RecoveryError::Io(Some(name), error))
        };
        for &number in segments {
            let name = Name::segment(number);
            let removed = storage.remove(name);
            removed.map_err(|error| RecoveryError::Io(Some(name), error))?;
        }
        torn.iter().try_for_each(|end| shorten(end, true))?;
        storage
            .sync_names()
            .map_err(|error| RecoveryError::Io(None, error))?;
        unused.iter().try_for_each(|end| shorten(end, false))
    }

    /// Removes the segments before this one, which a snapshot covers that was restored. To be called once all is settled, as
    /// the name of the snapshot outlives a loss of power only then. What cannot be removed stays among the segments.
    pub fn remove_covered<S: Storage>(&mut self, storage: &S, from: u64) -> io::Result<()> {
        while let Some(entry) = self.segments.first_entry()
            && *entry.key() < from
        {
            storage.remove(Name::segment(*entry.key()))?;
            entry.remove();
        }
        Ok(())
    }
}

/// Reads the log from a segment on, and shows all records. `needed` is a place that was on the disk, as a snapshot says.
/// Nothing is changed: that is for [`LogEnd::settle`].
pub fn read_log<S: Storage>(
    storage: &S,
    from: u64,
    needed: Position,
    show: &mut dyn FnMut(Chunk) -> Result<(), RecoveryError>,
) -> Result<LogEnd, RecoveryError> {
    let names = storage
        .names()
        .map_err(|error| RecoveryError::Io(None, error))?;
    let there: Vec<u64> = names
        .into_iter()
        .filter(|name| name.kind == FileKind::Segment)
        .map(|name| name.number)
        .collect();
    let last = there.last().copied().unwrap_or(0).max(needed.segment);
    let mut log = LogEnd {
        end: Position {
            segment: from,
            offset: 0,
        },
        next: from,
        segments: BTreeMap::new(),
        records: 0,
        cut: None,
        leftovers: Leftovers::default(),
    };
    // What the next segment goes on from, and where that lies.
    let mut before: Option<(Position, Bytes)> = None;
    for number in from..=last {
        let name = Name::segment(number);
        let mut file = if there.binary_search(&number).is_ok() {
            let file = storage.open(name).and_then(|file| {
                // A process that crashed may not have synced it, and what is taken for kept here must not be lost later.
                file.sync()?;
                read_to_end(&file, 0)
            });
            Bytes::from(file.map_err(|error| RecoveryError::Io(Some(name), error))?)
        } else {
            Bytes::new()
        };
        let is_missing = there.binary_search(&number).is_err();
        let read = if is_missing {
            Read::none(Unreadable::Missing)
        } else {
            let before = before.as_ref().map(|(end, _)| *end);
            read_segment(storage.keys(), number, &file, before, &mut |chunk| {
                log.records += chunk.bodies.len() as u64;
                show(chunk)
            })?
        };
        log.end = Position {
            segment: number,
            offset: read.len as u64,
        };
        let Some(why) = read.then else {
            log.segments.insert(number, log.end.offset);
            if read.len < file.len() {
                log.leftovers.unused.push(log.end);
            }
            // A repair may have made the file longer or shorter.
            before = (!read.has_gap).then_some((log.end, file));
            continue;
        };
        if let (Unreadable::Ended(_), Some((end, ended))) = (why, before.take()) {
            (log.end, file) = (end, ended);
        }
        let offset = log.end.offset as usize;
        let later = there.iter().copied().filter(|&n| n > log.end.segment);
        let later: Vec<u64> = later.collect();
        refuse_damage(storage, &file, log.end, why, needed, &later)?;
        let mut cut = Cut {
            at: log.end,
            bytes: (file.len() - offset) as u64,
            segments: later.len() as u64,
        };
        for &number in later.iter().rev() {
            cut.bytes += len(storage, Name::segment(number))?;
            log.leftovers.segments.push(number);
        }
        if offset >= HEADER_BYTES {
            log.leftovers.torn = Some(log.end);
            log.segments.insert(log.end.segment, offset as u64);
        } else if !is_missing {
            log.leftovers.segments.push(log.end.segment);
        }
        // Room that was never written to is no loss.
        let is_empty = file[offset..].iter().all(|&byte| byte == 0);
        log.cut = (!is_empty || cut.segments > 0).then_some(cut);
        break;
    }
    if log.end < needed {
        return Err(RecoveryError::Order {
            name: Name::segment(log.end.segment),
            offset: log.end.offset,
            detail: format!("it ends here, and the snapshot needs the log up to {needed}"),
        });
    }
    if let Some((&last, _)) = log.segments.last_key_value() {
        log.next = last + 1;
    }
    for &number in there.iter().take_while(|&&number| number < from) {
        // A snapshot covers it, and the process that made that did not come to remove it: see `remove_covered`.
        let len = len(storage, Name::segment(number))?;
        log.segments.insert(number, len);
    }
    Ok(log)
}

fn len<S: Storage>(storage: &S, name: Name) -> Result<u64, RecoveryError> {
    let len = storage.open(name).and_then(|file| file.len());
    len.map_err(|error| RecoveryError::Io(Some(name), error))
}

/// What was read of a segment.
struct Read {
    /// The place behind its last record.
    len: usize,
    /// Why the next cannot be read, if that is not simply the end.
    then: Option<Unreadable>,
    /// A repair left something out.
    has_gap: bool,
}

impl Read {
    fn none(then: Unreadable) -> Self {
        Self {
            len: 0,
            then: Some(then),
            has_gap: false,
        }
    }
}

/// Shows the records of a segment, if it follows the log before it.
fn read_segment(
    keys: &dyn Keyring,
    number: u64,
    file: &Bytes,
    before: Option<Position>,
    show: &mut dyn FnMut(Chunk) -> Result<(), RecoveryError>,
) -> Result<Read, RecoveryError> {
    let name = Name::segment(number);
    let header = match header(number, file) {
        Ok(header) => header,
        Err(error) => return Ok(Read::none(Unreadable::Header(error))),
    };
    let seed = header.seed();
    let cipher = cipher::opener(keys, &header).map_err(|error| RecoveryError::Key(name, error))?;
    let mut bodies = Bodies::new(number, file, cipher);
    let mut has_gap = false;
    let mut at = HEADER_BYTES;
    let then = loop {
        match frame::frame(seed, &file[at..]) {
            Frame::Whole { body, len } => {
                let body = match bodies.take(at, body) {
                    Ok(body) => body,
                    Err(Damage::Sealed) if at == HEADER_BYTES => {
                        let wrong = KeyError::Wrong(header.key_id);
                        return Err(RecoveryError::Key(name, wrong));
                    }
                    Err(damage) => break Some(Unreadable::Frame(damage)),
                };
                if let Some(before) = before.filter(|_| at == HEADER_BYTES) {
                    match wal::follows(body) {
                        Some(position) if position == before => {}
                        Some(position) => return Ok(Read::none(Unreadable::Ended(position))),
                        None => {
                            let kind = body[0].into();
                            bodies.forget();
                            break Some(Unreadable::Frame(Damage::Unknown(
                                "first record of a segment",
                                kind,
                            )));
                        }
                    }
                }
                has_gap |= wal::is_gap(body);
                at += len;
                if let Some(chunk) = bodies.full_chunk() {
                    show(chunk)?;
                }
            }
            Frame::End => {
                let is_hole = file[at..].iter().any(|&byte| byte != 0);
                break is_hole.then_some(Unreadable::Hole);
            }
            Frame::Cut => break Some(Unreadable::Cut),
            Frame::Damaged(damage) => break Some(Unreadable::Frame(damage)),
        }
    };
    if let Some(chunk) = bodies.chunk() {
        show(chunk)?;
    }
    Ok(Read {
        len: at,
        then,
        has_gap,
    })
}

/// The bodies of a segment that were read and not shown yet: where they lie in the file, or a decrypted copy of that.
struct Bodies<'a> {
    segment: u64,
    file: &'a Bytes,
    cipher: Option<Arc<dyn FileCipher>>,
    /// What was copied of the file, from `start` on.
    copy: Vec<u8>,
    start: usize,
    places: Vec<Range<usize>>,
}

impl<'a> Bodies<'a> {
    fn new(segment: u64, file: &'a Bytes, cipher: Option<Arc<dyn FileCipher>>) -> Self {
        Self {
            segment,
            file,
            cipher,
            copy: Vec::new(),
            start: 0,
            places: Vec::new(),
        }
    }

    /// Takes the body of the frame at this place, and gives what is in it.
    fn take<'s>(&'s mut self, at: usize, body: &'s [u8]) -> Result<&'s [u8], Damage> {
        let start = at + frame::HEAD_BYTES;
        let Some(cipher) = &self.cipher else {
            self.places.push(start..start + body.len());
            return Ok(body);
        };
        if self.places.is_empty() {
            self.start = at;
        }
        // All of the frame, so that places in the copy are those in the file.
        self.copy.truncate(at - self.start);
        self.copy.extend_from_slice(&self.file[at..start]);
        let begin = self.copy.len();
        self.copy.extend_from_slice(body);
        let plain = cipher::open(&**cipher, &mut self.copy[begin..])?;
        let plain = begin + plain.start..begin + plain.end;
        self.copy.push(frame::TRAILER);
        self.places.push(plain.clone());
        Ok(&self.copy[plain])
    }

    /// Forgets the last one.
    fn forget(&mut self) {
        self.places.pop();
    }

    /// What was taken, if it is enough to be shown.
    fn full_chunk(&mut self) -> Option<Chunk> {
        let is_full = self.places.len() >= CHUNK_RECORDS || self.copy.len() >= CHUNK_BYTES;
        is_full.then(|| self.chunk()).flatten()
    }

    /// What was taken, if anything was.
    fn chunk(&mut self) -> Option<Chunk> {
        if self.places.is_empty() {
            return None;
        }
        let is_encrypted = self.cipher.is_some();
        Some(Chunk {
            segment: self.segment,
            bytes: if is_encrypted {
                Bytes::from(std::mem::take(&mut self.copy))
            } else {
                self.file.clone()
            },
            start: self.start,
            bodies: std::mem::take(&mut self.places),
            lead: cipher::lead_bytes(is_encrypted),
        })
    }
}

fn header(number: u64, file: &[u8]) -> Result<Header, HeaderError> {
    let header = Header::decode(file)?;
    if header.content != frame::Content::Log || header.number != number {
        return Err(HeaderError::Unknown);
    }
    Ok(header)
}

/// Finds out whether what cannot be read is damage, and refuses it then.
fn refuse_damage<S: Storage>(
    storage: &S,
    file: &[u8],
    at: Position,
    why: Unreadable,
    needed: Position,
    later: &[u64],
) -> Result<(), RecoveryError> {
    let (name, offset) = (Name::segment(at.segment), at.offset);
    let damaged = |damage| RecoveryError::Damaged {
        name,
        offset,
        damage,
    };
    let place = file.len().min(offset as usize);
    let header = Header::decode(file);
    let seed = header.map(|header| header.seed());
    let (may_be_torn, error) = match why {
        Unreadable::Missing => (true, RecoveryError::Missing(at.segment)),
        Unreadable::Header(error @ HeaderError::Format(_)) => {
            (false, RecoveryError::Header(name, error))
        }
        Unreadable::Header(error) => {
            let may_be_torn = Header::may_be_torn(file);
            (may_be_torn, RecoveryError::Header(name, error))
        }
        // Its checksum is right, so all of it was written.
        Unreadable::Frame(Damage::Sealed) => (false, damaged(Damage::Sealed)),
        Unreadable::Frame(damage) => {
            let may_be_torn = seed.is_ok_and(|seed| frame::may_be_torn(seed, file, place));
            (may_be_torn, damaged(damage))
        }
        Unreadable::Cut => {
            let may_be_torn = seed.is_ok_and(|seed| frame::may_be_torn(seed, file, place));
            (may_be_torn, damaged(Damage::Short))
        }
        Unreadable::Hole => (true, damaged(Damage::Short)),
        Unreadable::Ended(ended) => {
            let is_cut = ended.segment == at.segment && ended > at;
            let detail = format!("it ends here, and the next segment begins behind {ended}");
            (
                is_cut,
                RecoveryError::Order {
                    name,
                    offset,
                    detail,
                },
            )
        }
    };
    if !may_be_torn || needed > at {
        return Err(error);
    }
    let keys = storage.keys();
    if let Ok(header) = header
        && says_synced(keys, name, &header, (&file[place..], place), at)?
    {
        return Err(error);
    }
    for &number in later {
        let name = Name::segment(number);
        let file = storage.open(name).and_then(|file| read_to_end(&file, 0));
        let file = file.map_err(|error| RecoveryError::Io(Some(name), error))?;
        let was_on_disk = match Header::decode(&file) {
            Ok(header) => says_synced(keys, name, &header, (&file, 0), at)?,
            // What it says cannot be told, and no crash has made it so.
            Err(_) => !Header::may_be_torn(&file),
        };
        if was_on_disk {
            return Err(error);
        }
    }
    Ok(())
}

/// Whether there is a record among these bytes of a file, which begin at some place of it, that says that all up to behind
/// `at` was synced. An error if that cannot be told for want of the file's key.
fn says_synced(
    keys: &dyn Keyring,
    name: Name,
    header: &Header,
    (bytes, start): (&[u8], usize),
    at: Position,
) -> Result<bool, RecoveryError> {
    let cipher = cipher::opener(keys, header).map_err(|error| RecoveryError::Key(name, error))?;
    let seed = header.seed();
    let (len, kind) = wal::SYNCED_BODY;
    let len = len + cipher.as_ref().map_or(0, |_| SEALED_BYTES);
    let first = (len as u32).to_le_bytes();
    for (place, window) in bytes.windows(len + frame::FRAME_BYTES).enumerate() {
        let may_be_one = window[..4] == first
            && match &cipher {
                None => window[frame::HEAD_BYTES] == kind,
                Some(_) => cipher::may_begin(len, &window[frame::HEAD_BYTES..]),
            };
        if !may_be_one {
            continue;
        }
        let Frame::Whole { body, .. } = frame::frame(seed, window) else {
            continue;
        };
        let mut copy;
        let body = match &cipher {
            None => body,
            Some(cipher) => {
                copy = body.to_vec();
                match cipher::open(&**cipher, &mut copy) {
                    Ok(plain) => &copy[plain],
                    Err(_) if start + place == HEADER_BYTES => {
                        let wrong = KeyError::Wrong(header.key_id);
                        return Err(RecoveryError::Key(name, wrong));
                    }
                    // Somebody changed what was written, so it was.
                    Err(_) => return Ok(true),
                }
            }
        };
        let mut effects = Vec::new();
        let record = wal::decode(body, &mut effects);
        if matches!(record, Ok(Record::Synced(position)) if position > at) {
            return Ok(true);
        }
    }
    Ok(false)
}
