//! A data directory as it would be after a repair: files whose pieces lie on the disk or were made, and files that are put
//! aside. Recovery reads it as if it were there, so a repair is known to help before anything is changed. It writes
//! nothing but new files beside the old ones, and that only when it is told to.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IoSlice, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use henge_engine::persistence::cipher::Keyring;
use henge_engine::persistence::{Name, Storage, StorageFile};

use crate::disk::files::{BEFORE_REPAIR, Files, OpenFile, sync_directory, to_make};
use crate::encryption::Encryption;

/// What the name of a file ends in that is being written to replace another.
const BESIDE: &str = "repaired.part";
/// What is copied at once.
const COPY_BYTES: usize = 1024 * 1024;

/// A piece of a file.
#[derive(Clone, Debug)]
enum Piece {
    /// These bytes of the file on the disk.
    There(Range<u64>),
    Made(Bytes),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::There(range) => range.end - range.start,
            Self::Made(bytes) => bytes.len() as u64,
        }
    }

    /// The part of it that these bytes are, counted from its begin.
    fn part(&self, range: Range<u64>) -> Self {
        match self {
            Self::There(there) => Self::There(there.start + range.start..there.start + range.end),
            Self::Made(bytes) => Self::Made(bytes.slice(range.start as usize..range.end as usize)),
        }
    }
}

/// A file in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pieces: Vec<Piece>,
}

impl Draft {
    /// Adds bytes of the file on the disk.
    pub(super) fn keep(&mut self, range: Range<u64>) {
        if let Some(Piece::There(last)) = self.pieces.last_mut()
            && last.end == range.start
        {
            last.end = range.end;
        } else if !range.is_empty() {
            self.pieces.push(Piece::There(range));
        }
    }

    /// Adds other bytes.
    pub(super) fn add(&mut self, bytes: impl Into<Bytes>) {
        self.pieces.push(Piece::Made(bytes.into()));
    }

    pub(super) fn len(&self) -> u64 {
        self.pieces.iter().map(Piece::len).sum()
    }

    /// Ends it here.
    pub(super) fn cut(&mut self, at: u64) {
        self.pieces = self.between(0..at);
    }

    /// Puts other bytes in the place of some, as many of them as there are.
    pub(super) fn replace(&mut self, range: Range<u64>, bytes: impl Into<Bytes>) {
        let mut pieces = self.between(0..range.start);
        pieces.push(Piece::Made(bytes.into()));
        pieces.extend(self.between(range.end..u64::MAX));
        self.pieces = pieces;
    }

    fn between(&self, range: Range<u64>) -> Vec<Piece> {
        let mut at = 0;
        let mut found = Vec::new();
        for piece in &self.pieces {
            let (start, end) = (range.start.max(at), range.end.min(at + piece.len()));
            if start < end {
                found.push(piece.part(start - at..end - at));
            }
            at += piece.len();
        }
        found
    }
}

/// What becomes of a file.
#[derive(Clone, Debug)]
enum Change {
    /// It is this from now on.
    Draft(Arc<Draft>),
    /// It is put aside.
    Aside,
}

/// See the head of the file.
#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    files: Files,
    directory: PathBuf,
    changes: BTreeMap<Name, Change>,
}

impl Overlay {
    /// The directory as it is.
    pub(crate) fn new(directory: &Path, encryption: Encryption) -> io::Result<Self> {
        let files = Files::new(directory, Arc::new(encryption.clone()));
        // What is made anew is encrypted if anything here is.
        let mut encryption = encryption;
        for name in files.names()? {
            if let Some(header) = files.header(name)?.filter(|header| header.cipher != 0) {
                encryption = encryption.made_of(header.cipher);
            }
        }
        Ok(Self {
            files: Files::new(directory, Arc::new(encryption)),
            directory: directory.to_owned(),
            changes: BTreeMap::new(),
        })
    }

    /// Whether anything is other than on the disk.
    pub(crate) fn is_changed(&self) -> bool {
        !self.changes.is_empty()
    }

    /// A file to be changed, as it is now; an empty one if it is not there.
    pub(super) fn draft(&self, name: Name) -> io::Result<Draft> {
        match self.changes.get(&name) {
            Some(Change::Draft(draft)) => return Ok(Draft::clone(draft)),
            Some(Change::Aside) => return Ok(Draft::default()),
            None => {}
        }
        let mut draft = Draft::default();
        match self.files.open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => draft.keep(0..file?.len()?),
        }
        Ok(draft)
    }

    /// The file is this from now on.
    pub(super) fn put(&mut self, name: Name, draft: Draft) {
        self.changes.insert(name, Change::Draft(Arc::new(draft)));
    }

    /// The file is gone from now on.
    pub(super) fn put_aside(&mut self, name: Name) {
        self.changes.insert(name, Change::Aside);
    }

    /// Does it: what is replaced or put aside keeps its bytes under another name. Each file changes in one step, so that the
    /// directory is as good as before wherever this is cut off. Says what was kept, and as what.
    pub(crate) fn carry_out(&self) -> io::Result<Vec<(Name, PathBuf)>> {
        let mut beside = Vec::new();
        for (name, change) in &self.changes {
            if let Change::Draft(draft) = change {
                let path = self.directory.join(format!("{name}.{BESIDE}"));
                let written = self.write(*name, draft, &path);
                beside.push((*name, path));
                if written.is_err() {
                    // Nothing was replaced. What cannot be removed either is of no name that a start looks at.
                    for (_, path) in &beside {
                        let _ = fs::remove_file(path);
                    }
                }
                written?;
            }
        }
        sync_directory(&self.directory)?;
        let mut kept = Vec::new();
        // What comes last in the log goes first: of a log that ends earlier than it could nothing is missing in between.
        for name in self.changes.keys().rev() {
            let path = self.files.path(*name);
            let new = beside.iter().find(|(other, _)| other == name);
            if path.exists() {
                let old = self.free_name(*name);
                if new.is_some() && fs::hard_link(&path, &old).is_ok() {
                    // Both names are there until the new file takes one of them.
                } else {
                    fs::rename(&path, &old)?;
                }
                kept.push((*name, old));
            }
            if let Some((_, new)) = new {
                fs::rename(new, &path)?;
            }
            sync_directory(&self.directory)?;
        }
        kept.reverse();
        Ok(kept)
    }

    /// A name for what an older repair has not kept already.
    fn free_name(&self, name: Name) -> PathBuf {
        let numbered = (2..).map(|number| format!("{name}{BEFORE_REPAIR}-{number}"));
        [format!("{name}{BEFORE_REPAIR}")]
            .into_iter()
            .chain(numbered)
            .map(|name| self.directory.join(name))
            .find(|path| !path.exists())
            .expect("there is always another number")
    }

    fn write(&self, name: Name, draft: &Draft, path: &Path) -> io::Result<()> {
        let old = self.files.open(name).ok();
        let mut file = to_make().create(true).truncate(true).open(path)?;
        let mut buffer = vec![0; COPY_BYTES];
        for piece in &draft.pieces {
            match piece {
                Piece::Made(bytes) => file.write_all(bytes)?,
                Piece::There(range) => {
                    let mut at = range.start;
                    while at < range.end {
                        let want = buffer.len().min((range.end - at) as usize);
                        let old = old.as_ref().ok_or(io::ErrorKind::NotFound)?;
                        let read = old.read_at(&mut buffer[..want], at)?;
                        if read == 0 {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        file.write_all(&buffer[..read])?;
                        at += read as u64;
                    }
                }
            }
        }
        file.sync_all()
    }
}

/// Recovery may cut and remove what it takes for torn; here it is told that it is done, and nothing is.
impl Storage for Overlay {
    type File = Laid;

    fn names(&self) -> io::Result<Vec<Name>> {
        let mut names = self.files.names()?;
        names.retain(|name| !self.changes.contains_key(name));
        for (name, change) in &self.changes {
            if matches!(change, Change::Draft(_)) {
                names.push(*name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, _: Name, _: u64) -> io::Result<Laid> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, name: Name) -> io::Result<Laid> {
        match self.changes.get(&name) {
            Some(Change::Aside) => Err(io::ErrorKind::NotFound.into()),
            Some(Change::Draft(draft)) => Ok(Laid {
                file: self.files.open(name).ok(),
                draft: Arc::clone(draft),
            }),
            None => {
                let file = self.files.open(name)?;
                let mut draft = Draft::default();
                draft.keep(0..file.len()?);
                Ok(Laid {
                    file: Some(file),
                    draft: Arc::new(draft),
                })
            }
        }
    }

    fn rename(&self, _: Name, _: Name) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: Name) -> io::Result<()> {
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn keys(&self) -> &dyn Keyring {
        self.files.keys()
    }
}

/// A file of an overlay.
#[derive(Clone, Debug)]
pub(crate) struct Laid {
    file: Option<OpenFile>,
    draft: Arc<Draft>,
}

impl StorageFile for Laid {
    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut at = 0;
        for piece in &self.draft.pieces {
            let len = piece.len();
            if offset < at + len {
                let within = offset - at;
                let want = buffer
                    .len()
                    .min(usize::try_from(len - within).unwrap_or(usize::MAX));
                return match piece {
                    Piece::Made(bytes) => {
                        let from = within as usize;
                        buffer[..want].copy_from_slice(&bytes[from..from + want]);
                        Ok(want)
                    }
                    Piece::There(range) => {
                        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
                        file.read_at(&mut buffer[..want], range.start + within)
                    }
                };
            }
            at += len;
        }
        Ok(0)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.draft.len())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_are_what_was_done_to_them() {
        let mut draft = Draft::default();
        draft.keep(0..10);
        draft.keep(10..20);
        assert_eq!(draft.pieces.len(), 1);
        draft.replace(5..8, &b"abc"[..]);
        draft.replace(7..9, &b"de"[..]);
        draft.cut(15);
        draft.add(&b"end"[..]);
        let shown: Vec<String> = draft
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::There(range) => format!("{}-{}", range.start, range.end),
                Piece::Made(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            })
            .collect();
        assert_eq!(shown, ["0-5", "ab", "de", "9-15", "end"]);
        assert_eq!(draft.len(), 18);
        // Behind its end.
        draft.replace(16..40, &b"xyz"[..]);
        assert_eq!(draft.len(), 19);
    }
}
