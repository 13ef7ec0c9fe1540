//! A disk that fails as disks do, in memory. It keeps apart what the process sees and what is on the platter: a loss of power
//! leaves any mixture of the two that a disk may leave. It knows nothing of what is in the files.
//!
//! What a loss of power may do is what file systems promise and no more. What was synced is there. Of what was not, each
//! sector of 512 bytes has its content of any moment since; so have the length of a file and, each on its own, its names.

use super::super::cipher::Keyring;
use super::super::storage::{Name, Storage, StorageFile};
use super::keys::Keys;
use super::random::Random;
use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::rc::Rc;

/// What a disk writes in whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What a call says that fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// There is no room: ENOSPC.
    Full,
    /// The disk is broken: EIO.
    Broken,
}

impl Failure {
    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Full => 28,
            Self::Broken => 5,
        })
    }
}

/// What goes wrong, and when. Calls count from 0 on since the last start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// These calls fail. One that writes has written half by then, and one that makes a file has made an empty one.
    pub(crate) fails: Option<(Range<u64>, Failure)>,
    /// The machine stops in this call. A write has written so many of its bytes by then; any other call has done nothing if
    /// that is 0, and all else.
    pub(crate) stops: Option<(u64, usize)>,
    /// A write or a read takes no more than this at once.
    pub(crate) most_bytes: Option<usize>,
}

/// See the head of the file. Its clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    all: Rc<RefCell<State>>,
    /// What who writes to it and reads from it has of keys.
    pub(crate) keys: Keys,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// By name, the places of the files in `files`.
    names: BTreeMap<Name, usize>,
    names_on_disk: BTreeMap<Name, usize>,
    name_changes: Vec<NameChange>,
    /// All that ever were.
    files: Vec<Content>,
    faults: Faults,
    calls: u64,
    /// Of each of them, how many bytes it was to write.
    to_write: Vec<usize>,
    /// The machine has stopped.
    is_stopped: bool,
}

#[derive(Clone, Copy, Debug)]
enum NameChange {
    Made(Name, usize),
    Renamed(Name, Name, usize),
    Removed(Name),
}

#[derive(Clone, Debug, Default)]
struct Content {
    /// As the process sees it.
    bytes: Vec<u8>,
    /// As it was when it was last synced.
    on_disk: Vec<u8>,
    /// What has happened to it since.
    changes: Vec<Change>,
    /// The last change is a write of which only a part was taken, up to here.
    is_short_at: Option<usize>,
}

#[derive(Clone, Debug)]
enum Change {
    Written(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    /// The length of a file of this length afterwards.
    fn len_after(&self, len: usize) -> usize {
        match self {
            Self::Written(at, bytes) => len.max(at + bytes.len()),
            Self::Length(new) => *new,
        }
    }

    /// Does it to these bytes, which begin at `start` of a file.
    fn apply(&self, start: usize, bytes: &mut [u8]) {
        match self {
            Self::Written(at, written) => {
                let from = (*at).max(start);
                let to = (at + written.len()).min(start + bytes.len());
                if from < to {
                    bytes[from - start..to - start].copy_from_slice(&written[from - at..to - at]);
                }
            }
            Self::Length(len) => {
                let kept = len.saturating_sub(start).min(bytes.len());
                bytes[kept..].fill(0);
            }
        }
    }
}

impl Content {
    fn change(&mut self, change: Change) {
        self.bytes.resize(change.len_after(self.bytes.len()), 0);
        change.apply(0, &mut self.bytes);
        self.changes.push(change);
    }

    /// Writes bytes, of which these were taken. The rest of what was not taken whole comes to the platter with it: that a
    /// sector goes there between the two is so unlikely that a recovery may take it for damage.
    fn write(&mut self, at: usize, taken: &[u8], is_short: bool) {
        match self.changes.last_mut() {
            Some(Change::Written(begin, bytes)) if self.is_short_at == Some(at) => {
                bytes.extend_from_slice(taken);
                self.bytes.resize(self.bytes.len().max(at + taken.len()), 0);
                assert_eq!(*begin + bytes.len(), at + taken.len());
                self.bytes[at..at + taken.len()].copy_from_slice(taken);
            }
            _ => self.change(Change::Written(at, taken.to_vec())),
        }
        self.is_short_at = is_short.then_some(at + taken.len());
    }

    fn sync(&mut self) {
        self.is_short_at = None;
        self.on_disk.clone_from(&self.bytes);
        self.changes.clear();
    }

    /// The platter as a loss of power may leave it.
    fn lose_power(&mut self, random: &mut Random) {
        let all = self.changes.len();
        let manner = random.below(4);
        let same = random.below(all + 1);
        // How many of the changes have come to a place.
        let mut moment = || match manner {
            0 => 0,
            1 => all,
            2 => same,
            _ if random.one_in(2) => random.below(all + 1),
            _ => [0, all][random.below(2)],
        };
        let mut len = self.on_disk.len();
        for change in &self.changes[..moment()] {
            len = change.len_after(len);
        }
        let mut left = vec![0; len];
        for (n, sector) in left.chunks_mut(SECTOR_BYTES).enumerate() {
            let start = n * SECTOR_BYTES;
            if let Some(old) = self.on_disk.get(start..) {
                let kept = old.len().min(sector.len());
                sector[..kept].copy_from_slice(&old[..kept]);
            }
            for change in &self.changes[..moment()] {
                change.apply(start, sector);
            }
        }
        self.bytes.clone_from(&left);
        self.on_disk = left;
        self.changes.clear();
    }
}

/// What becomes of a call.
enum Fate {
    Done,
    Fails(io::Error),
    /// The machine stops when so much of it was done.
    Stops(usize),
}

impl State {
    fn begin_call(&mut self) -> Fate {
        if self.is_stopped {
            return Fate::Fails(stopped());
        }
        let call = self.calls;
        self.calls += 1;
        self.to_write.push(0);
        if let Some((at, done)) = self.faults.stops
            && at == call
        {
            self.is_stopped = true;
            return Fate::Stops(done);
        }
        match &self.faults.fails {
            Some((calls, failure)) if calls.contains(&call) => Fate::Fails(failure.error()),
            _ => Fate::Done,
        }
    }

    /// A call that is done in whole or not at all.
    fn call<T>(&mut self, act: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        match self.begin_call() {
            Fate::Done => act(self),
            Fate::Fails(error) => Err(error),
            Fate::Stops(done) => {
                if done > 0 {
                    // Nobody is there to be told.
                    let _ = act(self);
                }
                Err(stopped())
            }
        }
    }

    fn make(&mut self, name: Name, len: usize) -> io::Result<usize> {
        if self.names.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = self.files.len();
        self.files.push(Content::default());
        if len > 0 {
            self.files[file].change(Change::Length(len));
        }
        self.names.insert(name, file);
        self.name_changes.push(NameChange::Made(name, file));
        Ok(file)
    }

    fn find(&self, name: Name) -> io::Result<usize> {
        let found = self.names.get(&name).copied();
        found.ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn remove(&mut self, name: Name) -> io::Result<()> {
        self.find(name)?;
        self.names.remove(&name);
        self.name_changes.push(NameChange::Removed(name));
        Ok(())
    }

    fn rename(&mut self, from: Name, to: Name) -> io::Result<()> {
        let file = self.find(from)?;
        self.names.remove(&from);
        self.names.insert(to, file);
        self.name_changes.push(NameChange::Renamed(from, to, file));
        Ok(())
    }

    fn sync_names(&mut self) {
        self.names_on_disk.clone_from(&self.names);
        self.name_changes.clear();
    }

    fn lose_power(&mut self, random: &mut Random) {
        let manner = random.below(4);
        let changes = std::mem::take(&mut self.name_changes);
        let count = random.below(changes.len() + 1);
        let mut names = std::mem::take(&mut self.names_on_disk);
        for (n, change) in changes.into_iter().enumerate() {
            let has_happened = match manner {
                0 => false,
                1 => true,
                2 => n < count,
                _ => random.one_in(2),
            };
            match change {
                _ if !has_happened => {}
                NameChange::Made(name, file) => drop(names.insert(name, file)),
                NameChange::Removed(name) => drop(names.remove(&name)),
                NameChange::Renamed(from, to, file) => {
                    names.remove(&from);
                    names.insert(to, file);
                }
            }
        }
        for file in &mut self.files {
            file.lose_power(random);
        }
        self.names.clone_from(&names);
        self.names_on_disk = names;
        self.start();
    }

    fn start(&mut self) {
        self.faults = Faults::default();
        self.calls = 0;
        self.to_write.clear();
        self.is_stopped = false;
    }
}

fn stopped() -> io::Error {
    io::Error::other("the machine has stopped")
}

impl Disk {
    fn state(&self) -> RefMut<'_, State> {
        self.all.borrow_mut()
    }

    /// An empty one for who has these keys.
    pub(crate) fn with(keys: Keys) -> Self {
        Self {
            keys,
            ..Self::default()
        }
    }

    /// Another disk with the same on it.
    pub(crate) fn copy(&self) -> Self {
        Self {
            all: Rc::new(RefCell::new(self.all.borrow().clone())),
            keys: self.keys,
        }
    }

    /// This goes wrong from now on; calls count from 0 again.
    pub(crate) fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        state.start();
        state.faults = faults;
    }

    /// Calls since the last start.
    pub(crate) fn calls(&self) -> u64 {
        self.all.borrow().calls
    }

    /// Of each call since the last start, how many bytes it was to write.
    pub(crate) fn to_write(&self) -> Vec<usize> {
        self.all.borrow().to_write.clone()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.all.borrow().is_stopped
    }

    /// The process is gone, and a new one may begin: what was written is there, synced or not.
    pub(crate) fn crash_process(&self) {
        self.state().start();
    }

    /// The power was gone and is back: what was not synced may be there.
    pub(crate) fn lose_power(&self, random: &mut Random) {
        self.state().lose_power(random);
    }

    /// What is in a file.
    pub(crate) fn bytes(&self, name: Name) -> Vec<u8> {
        let state = self.all.borrow();
        state.files[state.names[&name]].bytes.clone()
    }

    /// Puts something else in its place, also on the platter.
    pub(crate) fn replace(&self, name: Name, bytes: Vec<u8>) {
        let mut state = self.state();
        let file = state.names[&name];
        let content = &mut state.files[file];
        content.bytes = bytes;
        content.sync();
    }

    /// Damages one bit.
    pub(crate) fn flip(&self, name: Name, bit: usize) {
        let mut bytes = self.bytes(name);
        bytes[bit / 8] ^= 1 << (bit % 8);
        self.replace(name, bytes);
    }

    /// A file is gone.
    pub(crate) fn lose(&self, name: Name) {
        let mut state = self.state();
        state.names.remove(&name).expect("it was there");
        state.sync_names();
    }

    /// The names that there are.
    pub(crate) fn all(&self) -> Vec<Name> {
        self.all.borrow().names.keys().copied().collect()
    }
}

impl Storage for Disk {
    type File = DiskFile;

    fn names(&self) -> io::Result<Vec<Name>> {
        self.state()
            .call(|state| Ok(state.names.keys().copied().collect()))
    }

    fn create(&self, name: Name, len: u64) -> io::Result<DiskFile> {
        let mut state = self.state();
        let file = match state.begin_call() {
            Fate::Done => state.make(name, len as usize)?,
            Fate::Fails(error) => {
                if !state.is_stopped {
                    // It is there before there turns out to be no room for it.
                    state.make(name, 0)?;
                }
                return Err(error);
            }
            Fate::Stops(done) => {
                if done > 0 {
                    state.make(name, if done == 1 { 0 } else { len as usize })?;
                }
                return Err(stopped());
            }
        };
        drop(state);
        Ok(DiskFile {
            disk: self.clone(),
            file,
        })
    }

    fn open(&self, name: Name) -> io::Result<DiskFile> {
        let file = self.state().call(|state| state.find(name))?;
        Ok(DiskFile {
            disk: self.clone(),
            file,
        })
    }

    fn rename(&self, from: Name, to: Name) -> io::Result<()> {
        self.state().call(|state| state.rename(from, to))
    }

    fn remove(&self, name: Name) -> io::Result<()> {
        self.state().call(|state| state.remove(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.state().call(|state| {
            state.sync_names();
            Ok(())
        })
    }

    fn keys(&self) -> &dyn Keyring {
        &self.keys
    }
}

/// A file of it that is open.
#[derive(Clone, Debug)]
pub(crate) struct DiskFile {
    disk: Disk,
    file: usize,
}

impl DiskFile {
    fn call<T>(&self, act: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let mut state = self.disk.state();
        state.call(|state| Ok(act(&mut state.files[self.file])))
    }
}

impl StorageFile for DiskFile {
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| &piece[..])
            .copied()
            .collect();
        let mut state = self.disk.state();
        let all = bytes.len();
        bytes.truncate(state.faults.most_bytes.unwrap_or(usize::MAX));
        let is_short = bytes.len() < all;
        let (done, outcome) = match state.begin_call() {
            Fate::Done => (bytes.len(), Ok(bytes.len())),
            Fate::Fails(error) if state.is_stopped => (0, Err(error)),
            Fate::Fails(error) => (bytes.len() / 2, Err(error)),
            Fate::Stops(done) => (done.min(bytes.len()), Err(stopped())),
        };
        if let Some(to_write) = state.to_write.last_mut() {
            *to_write = bytes.len();
        }
        bytes.truncate(done);
        if done > 0 {
            state.files[self.file].write(offset as usize, &bytes, is_short);
        }
        outcome
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let most = state.faults.most_bytes.unwrap_or(usize::MAX);
        state.call(|state| {
            let rest = state.files[self.file].bytes.get(offset as usize..);
            let rest = rest.unwrap_or_default();
            let len = rest.len().min(buffer.len()).min(most);
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.call(|content| content.bytes.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(|content| content.change(Change::Length(len as usize)))
    }

    fn sync(&self) -> io::Result<()> {
        self.call(Content::sync)
    }
}

/// The disk itself keeps what it promises.
#[test]
fn what_was_synced_outlives_a_loss_of_power() {
    let mut both = [false; 2];
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let disk = Disk::default();
        let (kept, lost) = (Name::segment(1), Name::segment(2));
        let write = |file: &DiskFile, text: &[u8], at| {
            let written = file.write_at(&[IoSlice::new(text)], at);
            assert_eq!(written.expect("nothing fails"), text.len());
        };
        let file = disk.create(kept, 2_000).expect("nothing fails");
        write(&file, b"synced", 100);
        file.sync().expect("nothing fails");
        disk.sync_names().expect("nothing fails");
        write(&file, b"unsynced", 1_000);
        disk.create(lost, 10).expect("nothing fails");
        file.set_len(1_500).expect("nothing fails");
        disk.lose_power(&mut random);
        let bytes = disk.bytes(kept);
        assert!(bytes.len() == 2_000 || bytes.len() == 1_500);
        assert_eq!(&bytes[100..106], b"synced");
        let there = &bytes[1_000..1_008] == b"unsynced";
        assert!(there || bytes[1_000..1_008] == [0; 8]);
        both[usize::from(there)] = true;
    }
    assert_eq!(both, [true; 2]);
}

#[test]
fn calls_fail_when_they_are_told_to() {
    let disk = Disk::default();
    let file = disk.create(Name::segment(1), 0).expect("nothing fails");
    let write = || file.write_at(&[IoSlice::new(b"ab"), IoSlice::new(b"cd")], 0);
    disk.set_faults(Faults {
        fails: Some((1..3, Failure::Full)),
        stops: Some((4, 3)),
        most_bytes: Some(3),
    });
    assert_eq!(write().expect("call 0"), 3);
    let error = write().expect_err("call 1");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(file.sync().is_err(), "call 2");
    assert_eq!(file.len().expect("call 3"), 3);
    assert!(write().is_err(), "call 4");
    assert!(disk.is_stopped() && file.len().is_err());
    assert_eq!(disk.bytes(Name::segment(1)), b"abc");
    disk.crash_process();
    assert_eq!(write().expect("nothing fails any more"), 4);
}
