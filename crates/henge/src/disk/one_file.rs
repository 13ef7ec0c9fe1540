//! A snapshot under a name of its own, as a backup has it: the engine's `Storage` over one path. What is being written lies
//! beside it, with `.part` at its end, and takes its name when it is whole. It touches no file that it did not make: one that
//! has either name stays as it is, unless it was said that the whole one is to be replaced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use henge_engine::persistence::cipher::Keyring;
use henge_engine::persistence::{FileKind, Name, Storage};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::files::{OpenFile, sync_directory};
use crate::encryption::Encryption;

/// See the head of the file.
#[derive(Clone, Debug)]
pub(crate) struct OneFile {
    path: PathBuf,
    encryption: Encryption,
    /// A file of this name may be replaced.
    replaces: bool,
}

impl OneFile {
    pub(crate) fn new(path: &Path, encryption: Encryption, replaces: bool) -> Self {
        Self {
            path: path.to_owned(),
            encryption,
            replaces,
        }
    }

    /// What is being written.
    pub(crate) fn part(&self) -> PathBuf {
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
        let (from, to) = (self.of(from)?, self.of(to)?);
        if self.replaces {
            return fs::rename(from, to);
        }
        match renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            // A file system, or a kernel, that cannot; to make another name fails as well where there is one.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                fs::hard_link(&from, &to)?;
                fs::remove_file(from)
            }
            renamed => Ok(renamed?),
        }
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

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn what_came_to_be_meanwhile_is_replaced_only_on_demand() {
        let folder = std::env::temp_dir().join(format!("henge-one-file-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a directory");
        let path = folder.join("backup");
        for (replaces, is_there, expected) in [
            (false, false, None),
            (false, true, Some(ErrorKind::AlreadyExists)),
            (true, false, None),
            (true, true, None),
        ] {
            let file = OneFile::new(&path, Encryption::default(), replaces);
            let (part, whole) = (Name::unfinished(1), Name::snapshot(1));
            let _ = fs::remove_file(&path);
            fs::write(file.part(), "backup").expect("there is room");
            if is_there {
                fs::write(&path, "other").expect("there is room");
            }
            let renamed = file.rename(part, whole).map_err(|error| error.kind());
            assert_eq!(renamed.err(), expected, "{replaces} {is_there}");
            let found = fs::read_to_string(&path).expect("it is there");
            let kept = if expected.is_some() {
                "other"
            } else {
                "backup"
            };
            assert_eq!(found, kept, "{replaces} {is_there}");
            // Of who failed it is to be removed.
            assert_eq!(file.part().exists(), expected.is_some());
            let begun = file.create(part, 0).map(drop).map_err(|error| error.kind());
            assert_eq!(begun.err(), expected, "{replaces} {is_there}");
            file.remove(part).expect("it is there");
        }
        fs::remove_dir_all(&folder).expect("it is there");
    }
}
