//! Files that nobody but their owner may read or change: of keys, and of secrets. What is in them is others' business.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// A file of keys of this length has hundreds of them; what is longer is another file.
pub(crate) const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Who else than its owner may do something with a file.
const OTHERS: u32 = 0o077;
/// What a group may do with a file of root's that a node reads which is not root: credentials of systemd (by an access list, which shows
/// as the group's) and secrets of Kubernetes (by `fsGroup`) are shown in no other way.
const GROUP_READS: u32 = 0o040;

/// Why a file was not read. Nothing that is in it is in here.
#[derive(Debug)]
pub(crate) enum FileError {
    /// The system says so.
    Read(io::Error),
    /// Others than its owner may read or change it: its mode.
    Mode(u32),
    /// It is a directory, a pipe or a device.
    NoFile,
    /// It is longer than [`FILE_BYTES_MAX`].
    Long,
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// All that is in a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    // A pipe that nobody writes to would be waited for, for ever.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let opened = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path);
    let file = opened?;
    // Of what is open, and not of what has its name by now.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::NoFile);
    }
    let mode = metadata.permissions().mode();
    let lent = metadata.uid() == 0 && !rustix::process::geteuid().is_root();
    if mode & OTHERS & !(if lent { GROUP_READS } else { 0 }) != 0 {
        return Err(FileError::Mode(mode & 0o7777));
    }
    let mut bytes = Vec::new();
    let mut limited = file.take(FILE_BYTES_MAX + 1);
    limited.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::Long);
    }
    Ok(bytes)
}
