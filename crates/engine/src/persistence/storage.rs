//! What the log and snapshots need of a directory, and what its files are called. The node implements it over the system's
//! files, the tests over a disk that fails.

use super::cipher::{Keyring, NoKeys};
use super::frame;
use std::fmt;
use std::io::{self, IoSlice};

/// A place in the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Position {
    /// The number of a segment.
    pub segment: u64,
    /// From its begin, in bytes.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", Name::segment(self.segment), self.offset)
    }
}

/// What a file of the directory is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FileKind {
    /// A segment of the log.
    Segment,
    /// A snapshot.
    Snapshot,
    /// A snapshot that is being written, or that nobody finished.
    Unfinished,
}

/// The name of a file: what it is, and its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    /// What it is.
    pub kind: FileKind,
    /// Its number among its kind.
    pub number: u64,
}

impl Name {
    /// A segment of the log.
    pub const fn segment(number: u64) -> Self {
        Self {
            kind: FileKind::Segment,
            number,
        }
    }

    /// A snapshot.
    pub const fn snapshot(number: u64) -> Self {
        Self {
            kind: FileKind::Snapshot,
            number,
        }
    }

    /// A snapshot that is being written.
    pub const fn unfinished(number: u64) -> Self {
        Self {
            kind: FileKind::Unfinished,
            number,
        }
    }

    /// Reads a name; none if it is of no file of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        let digits = |digits: &str| {
            let is_number = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse().ok()).flatten()
        };
        let (prefix, number) = stem.split_once('-')?;
        let kind = match (prefix, extension) {
            ("log", "wal") => FileKind::Segment,
            ("snapshot", "snap") => FileKind::Snapshot,
            ("snapshot", "part") => FileKind::Unfinished,
            _ => return None,
        };
        digits(number).map(|number| Self { kind, number })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        match self.kind {
            FileKind::Segment => write!(f, "log-{number:016}.wal"),
            FileKind::Snapshot => write!(f, "snapshot-{number:016}.snap"),
            FileKind::Unfinished => write!(f, "snapshot-{number:016}.part"),
        }
    }
}

/// A directory.
pub trait Storage {
    /// A file of it that is open.
    type File: StorageFile;

    /// The files of ours that it has, in the order of their kinds and numbers.
    fn names(&self) -> io::Result<Vec<Name>>;

    /// Makes a file of so many zeros, for which there is room from now on, and opens it. Fails if it exists.
    fn create(&self, name: Name, len: u64) -> io::Result<Self::File>;

    /// Opens a file.
    fn open(&self, name: Name) -> io::Result<Self::File>;

    /// Gives a file the name of another, which is gone if it was there.
    fn rename(&self, from: Name, to: Name) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: Name) -> io::Result<()>;

    /// Returns once names made, changed and removed before will be so after a loss of power.
    fn sync_names(&self) -> io::Result<()>;

    /// The keys of its files. Where there are none, files are plain.
    fn keys(&self) -> &dyn Keyring {
        &NoKeys
    }

    /// The format that new files are to have: that of a lone node, or of one that replicates.
    fn format(&self) -> u16 {
        frame::FORMAT
    }
}

/// A file that is open. Its clones are the same file.
#[expect(
    clippy::len_without_is_empty,
    reason = "a length that may fail is not that of a collection"
)]
pub trait StorageFile: Clone {
    /// Writes some of these bytes at a place, and says how many.
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Reads some bytes at a place, and says how many; none at its end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Its length, in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Cuts it, or appends zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns once what was written before outlives a loss of power, its length included.
    fn sync(&self) -> io::Result<()>;
}

/// Writes all of it.
pub(super) fn write_all<F: StorageFile>(
    file: &F,
    pieces: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    let mut left = pieces;
    while !left.is_empty() {
        let batch = left.len().min(MAX_SLICES);
        match file.write_at(&left[..batch], offset) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut left, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// As many as Linux takes in one call (`UIO_MAXIOV`).
const MAX_SLICES: usize = 1024;

/// Reads all from a place on, as far as the file goes.
pub(super) fn read_to_end<F: StorageFile>(file: &F, offset: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?.saturating_sub(offset);
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    let read = read_some(file, &mut bytes, offset)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Fills the buffer as far as the file goes, and says how far.
pub(super) fn read_some<F: StorageFile>(
    file: &F,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in [
            Name::segment(1),
            Name::snapshot(u64::from(u32::MAX)),
            Name::unfinished(77),
        ] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        for other in [
            "log-1.wal",
            "log-0000000000000001",
            "log-0000000000000001.snap",
            "snapshot-+000000000000001.snap",
            "lock",
            "",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
