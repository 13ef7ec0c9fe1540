//! Reads a snapshot or a backup to its end, and makes a data directory of it: a snapshot that stands for
//! itself and needs no log. It takes an empty directory only, so that it never mixes what two nodes had.

use std::fmt;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use henge_engine::Progress;
use henge_engine::persistence::frame::{Content, Damage, HEADER_BYTES, Header};
use henge_engine::persistence::inventory::Inventory;
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::recovery::RecoveryError;
use henge_engine::persistence::snapshot::{self, Builder, Part};
use henge_engine::persistence::snapshot_file::{SnapshotReader, SnapshotWriter};
use henge_engine::persistence::{Name, Position, Storage, StorageFile};
use henge_wire::{PARTITIONS, Version};

use super::directory::{Directory, DirectoryError, STATE};
use super::files::{Files, OpenFile, make_directory};
use crate::config::shown;
use crate::encryption::{Encryption, salt};

/// The number of a snapshot that comes before every log.
const FIRST: u64 = 1;
/// Frames are written when they come to this.
const WRITE_BYTES: usize = 512 * 1024;

/// What was restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Restored {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// When the records were taken from their node, in milliseconds since 1970; 0 if it does not say.
    pub(crate) at_ms: u64,
}

/// Why nothing was restored. No snapshot was left behind.
#[derive(Debug)]
pub(crate) enum RestoreError {
    /// The file cannot be used: what is wrong with it.
    File(PathBuf, RecoveryError),
    /// The file says something that no snapshot does, at this place.
    Contents(PathBuf, u64, String),
    /// It is a segment of a log.
    Segment(PathBuf),
    /// The directory is not empty: what is in it.
    NotEmpty(PathBuf, String),
    /// The directory cannot be had.
    Directory(DirectoryError),
    /// The system refused.
    Io(&'static str, PathBuf, io::Error),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => f.write_str(&of_file(path, error)),
            Self::Contents(path, offset, wrong) => {
                write!(f, "{} is damaged at byte {offset}: {wrong}", shown(path))
            }
            Self::Segment(path) => write!(
                f,
                "{} is a segment of a log, which has no whole cache; expected a snapshot or a backup",
                shown(path)
            ),
            Self::NotEmpty(path, found) => write!(
                f,
                "{} holds {found}, which is of another node or an earlier time; choose a directory that is empty",
                shown(path)
            ),
            Self::Directory(error) => error.fmt(f),
            Self::Io(what, path, error) => write!(f, "cannot {what} {}: {error}", shown(path)),
        }
    }
}

impl std::error::Error for RestoreError {}

impl RestoreError {
    /// Whether it is the file that is not whole, rather than something around it.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::File(_, error) => {
                !matches!(error, RecoveryError::Io(..) | RecoveryError::Key(..))
            }
            Self::Contents(..) => true,
            _ => false,
        }
    }
}

/// An error of a file of any name.
pub(crate) fn of_file(path: &Path, error: &RecoveryError) -> String {
    let path = shown(path);
    match error {
        RecoveryError::Io(_, error) => format!("{path}: {error}"),
        RecoveryError::Header(_, error) => format!("{path}: {error}"),
        RecoveryError::Key(_, error) => format!("{path}: {error}"),
        RecoveryError::Damaged { offset, damage, .. } => {
            format!("{path} is damaged at byte {offset}: {damage}")
        }
        RecoveryError::Order { offset, detail, .. } => {
            format!("{path} is damaged at byte {offset}: {detail}")
        }
        RecoveryError::Incomplete(_) => format!("{path} ends before it is complete"),
        RecoveryError::Missing(_) => format!("{path}: {error}"),
    }
}

/// Makes the directory of the file. `progress` is shown how many bytes of how many were read, and how many records.
pub(crate) fn restore(
    file: &Path,
    directory: &Path,
    encryption: &Encryption,
    progress: &mut dyn FnMut(u64, u64, u64),
) -> Result<Restored, RestoreError> {
    let reader = open(file, encryption)?;
    let there = |error| RestoreError::Io("make", directory.to_owned(), error);
    make_directory(directory).map_err(there)?;
    let lock = Directory::borrow(directory.to_owned()).map_err(RestoreError::Directory)?;
    check_empty(directory)?;
    let encryption = encryption.made_of(reader.header().cipher);
    let files = Files::new(directory, Arc::new(encryption));
    let restored = copy(file, reader, &files, progress);
    if restored.is_err() {
        // Where that fails the next start removes it, as nobody finished it.
        let _ = files.remove(Name::unfinished(FIRST));
    }
    drop(lock);
    restored
}

fn open(file: &Path, encryption: &Encryption) -> Result<SnapshotReader<OpenFile>, RestoreError> {
    let opened = OpenFile::to_read(file)
        .map_err(|error| RestoreError::Io("open", file.to_owned(), error))?;
    if is_segment(&opened) {
        return Err(RestoreError::Segment(file.to_owned()));
    }
    SnapshotReader::of(opened, Name::snapshot(FIRST), encryption)
        .map_err(|error| RestoreError::File(file.to_owned(), error))
}

/// A part of a file.
pub(crate) struct Found<'a> {
    path: &'a Path,
    /// Where its frame begins.
    offset: u64,
    pub(crate) part: Part<'a>,
    /// The body of its frame, decrypted.
    pub(crate) body: &'a [u8],
}

impl Found<'_> {
    /// What it says is wrong.
    pub(crate) fn damaged(&self, damage: &Damage) -> RestoreError {
        RestoreError::Contents(self.path.to_owned(), self.offset, damage.to_string())
    }
}

/// Shows all parts of a backup, in their order, until `show` breaks it off. The error says what is not whole, also where only the end
/// is missing. `progress` is shown how many bytes of how many were read, and how many records.
pub(crate) fn walk(
    file: &Path,
    encryption: &Encryption,
    progress: &mut dyn FnMut(u64, u64, u64),
    show: &mut dyn FnMut(Found<'_>) -> Result<ControlFlow<()>, RestoreError>,
) -> Result<(), RestoreError> {
    walk_on(file, open(file, encryption)?, progress, show)
}

fn walk_on(
    path: &Path,
    mut reader: SnapshotReader<OpenFile>,
    progress: &mut dyn FnMut(u64, u64, u64),
    show: &mut dyn FnMut(Found<'_>) -> Result<ControlFlow<()>, RestoreError>,
) -> Result<(), RestoreError> {
    let failed = |error| RestoreError::File(path.to_owned(), error);
    let mut inventory = Inventory::default();
    let len = reader.len();
    while let Some(window) = reader.next_window().map_err(failed)? {
        for (offset, body) in window.bodies() {
            let damaged = |damage: Damage| {
                RestoreError::Contents(path.to_owned(), offset, damage.to_string())
            };
            let part = snapshot::decode(body).map_err(damaged)?;
            inventory.take(&part).map_err(damaged)?;
            let found = Found {
                path,
                offset,
                part,
                body,
            };
            if show(found)?.is_break() {
                return Ok(());
            }
        }
        let read = window.offset + window.bytes.len() as u64;
        progress(read, len, inventory.records());
    }
    if inventory.is_complete() {
        Ok(())
    } else {
        Err(failed(RecoveryError::Incomplete(Name::snapshot(FIRST))))
    }
}

fn is_segment(file: &OpenFile) -> bool {
    let mut head = [0; HEADER_BYTES];
    let read = file.read_at(&mut head, 0).unwrap_or(0);
    Header::decode(&head[..read]).is_ok_and(|header| header.content == Content::Log)
}

/// Refuses a directory that has anything of a node in it but a lock.
fn check_empty(directory: &Path) -> Result<(), RestoreError> {
    let failed = |error| RestoreError::Io("read", directory.to_owned(), error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if name == STATE || Name::parse(&name).is_some() {
            found.push(name.into_owned());
        }
    }
    found.sort_unstable();
    match &found[..] {
        [] => Ok(()),
        [one] => Err(RestoreError::NotEmpty(directory.to_owned(), one.clone())),
        [first, rest @ ..] => {
            let more = rest.len();
            let found = format!("{first} and {more} files more");
            Err(RestoreError::NotEmpty(directory.to_owned(), found))
        }
    }
}

fn copy(
    path: &Path,
    reader: SnapshotReader<OpenFile>,
    files: &Files,
    progress: &mut dyn FnMut(u64, u64, u64),
) -> Result<Restored, RestoreError> {
    let to = files.path(Name::snapshot(FIRST));
    let unwritten = |error| RestoreError::Io("write", to.clone(), error);
    let too_long = |error| unwritten(io::Error::other(error));
    let mut writer = SnapshotWriter::begin(files.clone(), FIRST, salt()).map_err(unwritten)?;
    // By partition.
    let mut newest = vec![Version::ZERO; usize::from(PARTITIONS)];
    let mut frames = Journal::default();
    let mut scratch = Vec::new();
    let (mut records, mut at_ms) = (0, 0);
    walk_on(path, reader, progress, &mut |found| {
        match found.part {
            Part::Block(block) => {
                let newest = &mut newest[usize::from(block.partition.number())];
                let read = block.own_records(&mut scratch, |record| {
                    *newest = (*newest).max(record.version);
                });
                read.map_err(|damage| found.damaged(&damage))?;
                frames.push_body(found.body).map_err(too_long)?;
            }
            // What its node has promised is not that of the one that starts from this.
            Part::Replica { .. } => {}
            Part::Partition {
                partition,
                progress,
                records,
            } => {
                // What would come from the log is not there: the records are all there is.
                let newest = newest[usize::from(partition.number())];
                let progress = Progress {
                    last: progress.last.max(newest),
                    ..progress
                };
                Builder::partition(partition, progress, records, &mut frames).map_err(too_long)?;
            }
            Part::Complete {
                records: all,
                at_ms: at,
                ..
            } => (records, at_ms) = (all, at),
        }
        if frames.frames().len() >= WRITE_BYTES {
            writer.write(&mut frames).map_err(unwritten)?;
            frames.clear(2 * WRITE_BYTES);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    writer.write(&mut frames).map_err(unwritten)?;
    // No log has any of it.
    let position = Position::default();
    writer.finish(position, records, at_ms).map_err(unwritten)?;
    let bytes = fs::metadata(&to).map_err(unwritten)?.len();
    Ok(Restored {
        records,
        bytes,
        at_ms,
    })
}
