//! The engine's `Storage` over a directory of the system.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use henge_engine::persistence::cipher::Keyring;
use henge_engine::persistence::frame::{HEADER_BYTES, Header, REPLICA_FORMAT};
use henge_engine::persistence::{Name, Storage, StorageFile};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, pwritev};

use crate::encryption::Encryption;

/// What comes behind the name of a file that a repair has replaced or put aside; a number may follow.
pub(crate) const BEFORE_REPAIR: &str = ".before-repair";

/// A directory; its clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    path: Arc<Path>,
    encryption: Arc<Encryption>,
}

impl Files {
    pub(crate) fn new(path: &Path, encryption: Arc<Encryption>) -> Self {
        Self {
            path: Arc::from(path),
            encryption,
        }
    }

    /// The header of a file; none if what is there is no header.
    pub(crate) fn header(&self, name: Name) -> io::Result<Option<Header>> {
        header_of(&self.path(name))
    }

    /// The headers of all files that have one, those included that a repair has kept.
    pub(crate) fn headers(&self) -> io::Result<Vec<Header>> {
        let mut headers = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let kept = name.split_once(BEFORE_REPAIR).map(|(name, _)| name);
            if Name::parse(kept.unwrap_or(name)).is_some() {
                headers.extend(header_of(&entry.path())?);
            }
        }
        Ok(headers)
    }

    pub(crate) fn path(&self, name: Name) -> PathBuf {
        self.path.join(name.to_string())
    }
}

fn header_of(path: &Path) -> io::Result<Option<Header>> {
    let file = OpenFile::to_read(path)?;
    let mut head = [0; HEADER_BYTES];
    let read = file.read_at(&mut head, 0)?;
    Ok(Header::decode(&head[..read]).ok())
}

impl Storage for Files {
    type File = OpenFile;

    fn names(&self) -> io::Result<Vec<Name>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().to_str().and_then(Name::parse));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, name: Name, len: u64) -> io::Result<OpenFile> {
        let mut options = to_make();
        let file = options.read(true).create_new(true).open(self.path(name))?;
        if len > 0 {
            match fallocate(&file, FallocateFlags::empty(), 0, len) {
                Ok(()) => {}
                // A file system that cannot: the room is found when it is written to.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(len)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(OpenFile(Arc::new(file)))
    }

    fn open(&self, name: Name) -> io::Result<OpenFile> {
        OpenFile::open(&self.path(name))
    }

    fn rename(&self, from: Name, to: Name) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: Name) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }

    fn keys(&self) -> &dyn Keyring {
        &*self.encryption
    }

    /// A node by itself may be one of several before the file is full.
    fn format(&self) -> u16 {
        REPLICA_FORMAT
    }
}

/// How a file of data is made: its owner reads and writes it, and nobody else, whatever the umask is.
pub(crate) fn to_make() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// Makes a directory for data, and those above it, if they are not there: for their owner only.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Returns once the names in a directory outlive a loss of power.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Whether there was no room on the disk, or no file to be had, which may change: nothing was written then that counts.
pub(super) fn is_full(error: &io::Error) -> bool {
    let no_file = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) || error
        .raw_os_error()
        .is_some_and(|error| no_file.contains(&error))
}

/// An open file.
#[derive(Clone, Debug)]
pub(crate) struct OpenFile(Arc<File>);

impl OpenFile {
    /// Makes a file, to be written to. Fails if it exists.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = to_make().read(true).create_new(true).open(path)?;
        Ok(Self(Arc::new(file)))
    }

    /// Opens what is there, only to be read.
    pub(crate) fn to_read(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(File::open(path)?)))
    }

    /// Opens what is there, to be written to if that is allowed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path)?,
            opened => opened?,
        };
        Ok(Self(Arc::new(file)))
    }
}

impl StorageFile for OpenFile {
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(pwritev(&*self.0, pieces, offset)?)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&*self.0, buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
