//! The directory of the data: whose it is, what room there is, and how long a sync takes. What it writes has no name for longer than it
//! takes to make it, so that nothing is left however this ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use rustix::process::geteuid;

use super::facts::{Known, Place, Space, Speed};
use crate::config::shown;
use crate::encryption::random_number;

/// How often is written and synced: enough for a median, and a second on a bad disk.
const TIMES: usize = 32;
/// After so long what was measured is enough, however few.
const LONGEST: Duration = Duration::from_secs(5);
/// What is written each time: a page.
const BLOCK: [u8; 4096] = [0x48; 4096];
/// The deepest that is looked into directories for files: those of nodes lie in the first.
const DEEPEST: usize = 4;

pub(super) fn place(path: &Path) -> Known<Place> {
    let found = match fs::metadata(path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{}: {error}", shown(path))),
    };
    if found.as_ref().is_some_and(|found| !found.is_dir()) {
        return Err(format!("{} is no directory", shown(path)));
    }
    let written = nameless(&nearest(path));
    Ok(Place {
        path: shown(path),
        is_there: found.is_some(),
        is_ours: found
            .as_ref()
            .is_none_or(|found| found.uid() == geteuid().as_raw()),
        mode: found.map_or(0o700, |found| found.mode() & 0o7777),
        not_writable: written.err().map(|error| error.to_string()),
    })
}

/// The directory, or the nearest above it that is there.
fn nearest(path: &Path) -> PathBuf {
    let mut all = path.ancestors();
    match all.find(|path| path.is_dir()) {
        // What a path without a root begins in.
        Some(found) if found.as_os_str().is_empty() => PathBuf::from("."),
        Some(found) => found.to_owned(),
        None => PathBuf::from("."),
    }
}

/// A file in a directory, whose name is gone again.
fn nameless(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!(".henge-doctor-{:016x}", random_number()));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

pub(super) fn speed(path: &Path) -> Known<Speed> {
    measured(path).map_err(|error| format!("it cannot be measured: {error}"))
}

fn measured(path: &Path) -> io::Result<Speed> {
    let mut file = nameless(&nearest(path))?;
    let mut took = Vec::new();
    let began = Instant::now();
    while took.len() < TIMES && (took.is_empty() || began.elapsed() < LONGEST) {
        let started = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    Ok(Speed {
        times: took.len(),
        median: took[took.len() / 2],
        worst: took[took.len() - 1],
    })
}

pub(super) fn space(path: &Path) -> Known<Space> {
    let there = nearest(path);
    let room = statvfs(&there).map_err(|error| format!("{}: {error}", shown(&there)))?;
    Ok(Space {
        free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
        own_bytes: size_of(path, DEEPEST),
    })
}

/// What the files in a directory take. What cannot be looked at is passed over.
fn size_of(directory: &Path, deep: usize) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() && deep > 0 => size_of(&entry.path(), deep - 1),
        Ok(found) if found.is_file() => found.blocks().saturating_mul(512),
        _ => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_left_as_it_was() {
        let root = std::env::temp_dir().join(format!("henge-doctor-test-{:016x}", random_number()));
        let below = root.join("not/there");
        fs::create_dir(&root).expect("a directory");
        let found = place(&below).expect("it can be made");
        assert_eq!((found.is_there, found.not_writable), (false, None));
        let found = place(&root).expect("it is there");
        assert!(found.is_there && found.is_ours, "{found:?}");
        let found = speed(&below).expect("it is measured");
        assert!(found.times > 0 && found.worst >= found.median);
        assert_eq!(fs::read_dir(&root).expect("it is there").count(), 0);
        fs::create_dir(root.join("n1")).expect("a directory");
        fs::write(root.join("n1/log"), [1; 9000]).expect("a file");
        let found = space(&root).expect("it is there");
        assert!(found.free_bytes > 0 && found.own_bytes >= 8192, "{found:?}");
        let file = place(&root.join("n1/log")).expect_err("it is a file");
        assert!(file.ends_with("log is no directory"), "{file}");
        fs::remove_dir_all(&root).expect("it is ours");
    }
}
