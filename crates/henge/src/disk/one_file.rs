//! A snapshot under a name of its own, as a backup has it: the engine's `Storage` over one path. What is being written lies
//! beside it, with `.part` at its end, and takes its name when it is whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use henge_engine::persistence::cipher::Keyring;
use henge_engine::persistence::{FileKind, Name, Storage};

use super::files::{OpenFile, sync_directory};
use crate::encryption::Encryption;

/// See the head of the file.
#[derive(Clone, Debug)]
pub(crate) struct OneFile {
    path: PathBuf,
    encryption: Encryption,
}

impl OneFile {
    pub(crate) fn new(path: &Path, encryption: Encryption) -> Self {
        Self {
            path: path.to_owned(),
            encryption,
        }
    }

    /// What is being written.
    fn part(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".part");
        name.into()
    }

    /// The length of the whole file, in bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(fs::metadata(&self.path)?.len())
    }

    fn of(&self, name: Name) -> io::Result<PathBuf> {
        match name.kind {
            FileKind::Snapshot => Ok(self.path.clone()),
            FileKind::Unfinished => Ok(self.part()),
            FileKind::Segment => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl Storage for OneFile {
    type File = OpenFile;

    fn names(&self) -> io::Result<Vec<Name>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn create(&self, name: Name, _: u64) -> io::Result<OpenFile> {
        OpenFile::create(&self.of(name)?)
    }

    fn open(&self, name: Name) -> io::Result<OpenFile> {
        OpenFile::open(&self.of(name)?)
    }

    fn rename(&self, from: Name, to: Name) -> io::Result<()> {
        fs::rename(self.of(from)?, self.of(to)?)
    }

    fn remove(&self, name: Name) -> io::Result<()> {
        fs::remove_file(self.of(name)?)
    }

    fn sync_names(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
            _ => sync_directory(Path::new(".")),
        }
    }

    fn keys(&self) -> &dyn Keyring {
        &self.encryption
    }
}
