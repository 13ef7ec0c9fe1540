//! Writes the log: segments one after the other, what was synced marked in them, and what a snapshot covers removed. It
//! decides neither when to write nor when to sync, and holds nothing back: what it was given is written when it returns,
//! or it says why not.

use super::cipher;
use super::frame::Content;
use super::journal::Journal;
use super::output::Output;
use super::storage::{Name, Position, Storage, StorageFile, write_all};
use super::wal::Record;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};

/// A write that is longer than this part of what is written ahead has nothing written behind it: it would cost it more than
/// it spares those that come.
const LARGE_SHARE: usize = 4;

/// Gives a salt for each file.
pub type Salts = Box<dyn FnMut() -> [u8; 16] + Send>;

/// How a log is written.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// A segment that has come to this length is the last to be written to no more.
    pub segment_bytes: u64,
    /// So many zeros are written behind a small write where none are yet; 0 for none. To sync what was only reserved a file system
    /// has to write down as well that it is used now, each time, which takes longer than the sync of a few records.
    pub ahead_bytes: usize,
}

/// See the head of the file.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact about the file that goes with none of the others"
)]
pub struct LogWriter<S: Storage> {
    storage: S,
    config: LogConfig,
    salts: Salts,
    file: S::File,
    output: Output,
    /// Where the next frame goes.
    end: Position,
    /// All before is on the disk.
    synced: Position,
    /// How far the log says so itself.
    marked: Position,
    /// Segments that are written to no more and were not synced, by their numbers.
    unsynced: BTreeMap<u64, S::File>,
    /// Records were written, and not only marks, that are not known to be on the disk.
    has_news: bool,
    /// A segment was made, and its name may not outlive a loss of power.
    is_name_unsynced: bool,
    /// The lengths of those that are written to no more.
    closed: BTreeMap<u64, u64>,
    /// As far the file was written to, zeros included.
    used: u64,
    /// As many as are written ahead.
    zeros: Vec<u8>,
    /// A write failed, and what it left behind the end may come to the disk.
    is_soiled: bool,
    /// A sync has failed that was done here.
    has_failed_sync: bool,
}

/// What has to be synced for all that was written to be on the disk. It may be done by another thread.
pub struct SyncWork<S: Storage> {
    files: Vec<S::File>,
    names: bool,
    /// How far all is synced then.
    pub position: Position,
}

impl<S: Storage> SyncWork<S> {
    /// Does it.
    pub fn run(&self, storage: &S) -> io::Result<()> {
        if self.names {
            storage.sync_names()?;
        }
        self.files.iter().try_for_each(StorageFile::sync)
    }
}

impl<S: Storage> LogWriter<S> {
    /// Begins a segment of this number behind others, which are written to no more and have these lengths.
    pub fn begin(
        storage: S,
        config: LogConfig,
        mut salts: Salts,
        number: u64,
        closed: BTreeMap<u64, u64>,
    ) -> io::Result<Self> {
        let before = closed.last_key_value();
        let before = before.map(|(&segment, &offset)| Position { segment, offset });
        let made = create(
            &storage,
            config,
            &mut salts,
            number,
            before.unwrap_or_default(),
        );
        let (file, output, offset) = made?;
        let end = Position {
            segment: number,
            offset,
        };
        Ok(Self {
            storage,
            config,
            salts,
            file,
            output,
            end,
            // Recovery has synced what it read and took for whole.
            synced: Position {
                segment: number,
                offset: 0,
            },
            marked: Position::default(),
            unsynced: BTreeMap::new(),
            has_news: false,
            is_name_unsynced: true,
            closed,
            used: offset,
            zeros: vec![0; config.ahead_bytes],
            is_soiled: false,
            has_failed_sync: false,
        })
    }

    /// Where the next frame goes.
    pub fn end(&self) -> Position {
        self.end
    }

    /// All before is on the disk.
    pub fn synced(&self) -> Position {
        self.synced
    }

    /// Whether the log does not say yet how much of it is on the disk.
    pub fn is_unmarked(&self) -> bool {
        self.marked < self.synced
    }

    /// Whether records were written, and not only marks, that are not known to be on the disk.
    pub fn has_news(&self) -> bool {
        self.has_news
    }

    /// Writes all records of a journal, or only what was synced. On an error none of them counts, and they may be written again.
    pub fn write(&mut self, journal: Option<Journal>) -> io::Result<()> {
        let mut journals = Vec::from_iter(journal);
        self.write_some(&mut journals).map(|_| ())
    }

    /// Writes all records of some journals, in this order: of as many as one segment takes, and of one at the least. Says how
    /// many journals those are. On an error none of them counts, and they may be written again.
    pub fn write_some(&mut self, journals: &mut [Journal]) -> io::Result<usize> {
        self.clean()?;
        if self.end.offset >= self.config.segment_bytes {
            self.roll()?;
        }
        let fitting = self.fitting(journals);
        let journals = &mut journals[..fitting];
        let mut mark = Journal::default();
        if self.is_unmarked() {
            Record::Synced(self.synced)
                .encode(&mut mark)
                .expect("it is short");
        }
        let offset = self.end.offset;
        let written = self.write_ahead(journals).and_then(|()| {
            self.output
                .write(&self.file, offset, &[], &mut mark, journals)
        });
        match written {
            Ok(len) => {
                self.end.offset += len;
                self.used = self.used.max(self.end.offset);
            }
            Err(error) => {
                self.is_soiled = true;
                // At once, so that nothing is there to be cut if the process ends now. Where that fails it is tried again.
                let _ = self.file.set_len(offset);
                return Err(error);
            }
        }
        self.has_news |= !journals.is_empty();
        self.marked = self.synced;
        Ok(fitting)
    }

    /// Of how many of these journals the segment takes the records: it is full behind the last of them, and not before.
    fn fitting(&self, journals: &[Journal]) -> usize {
        let mut end = self.end.offset;
        let fits = |journal: &&Journal| {
            let begins = end < self.config.segment_bytes;
            end += journal.frames().len() as u64;
            begins
        };
        // A segment that has just begun may be full already, if segments are tiny.
        let count = journals.iter().take_while(fits).count();
        count.max(journals.len().min(1))
    }

    /// Writes zeros to where these are to come, and some more behind them, unless they are there already.
    fn write_ahead(&mut self, journals: &[Journal]) -> io::Result<()> {
        let len: usize = journals.iter().map(|journal| journal.frames().len()).sum();
        let from = self.used.max(self.end.offset);
        let room = self.config.segment_bytes.saturating_sub(from);
        let zeros =
            usize::try_from(room).map_or(self.zeros.len(), |room| room.min(self.zeros.len()));
        // Encrypted they are a little longer; what reaches beyond costs one slow sync.
        let is_there = self.end.offset + len as u64 <= self.used;
        if is_there || len > self.zeros.len() / LARGE_SHARE || zeros == 0 {
            return Ok(());
        }
        let zeros = IoSlice::new(&self.zeros[..zeros]);
        write_all(&self.file, &mut [zeros], from)?;
        self.used = from + zeros.len() as u64;
        Ok(())
    }

    /// Has what a failed write has left go from the disk, before other bytes come in its place or the segment ends before it:
    /// after a loss of power some of its sectors would be between others, and that looks like damage.
    fn clean(&mut self) -> io::Result<()> {
        if self.is_soiled {
            self.file.set_len(self.end.offset)?;
            // After a failed sync nobody knows what the disk has, whatever it failed with.
            let synced = self.file.sync().map_err(io::Error::other);
            self.note_sync(synced)?;
            self.used = self.end.offset;
            self.is_soiled = false;
        }
        Ok(())
    }

    /// Begins the next segment. On an error the present one goes on.
    pub fn roll(&mut self) -> io::Result<()> {
        self.clean()?;
        let number = self.end.segment + 1;
        let made = create(
            &self.storage,
            self.config,
            &mut self.salts,
            number,
            self.end,
        );
        let (file, output, offset) = made?;
        // The room ahead that was not used is nobody's any more. Where that fails it is only room.
        let _ = self.file.set_len(self.end.offset);
        let old = std::mem::replace(&mut self.file, file);
        if self.synced < self.end {
            self.unsynced.insert(self.end.segment, old);
        }
        self.closed.insert(self.end.segment, self.end.offset);
        if self.synced == self.end {
            self.synced = Position {
                segment: number,
                offset: 0,
            };
        }
        self.end = Position {
            segment: number,
            offset,
        };
        self.output = output;
        self.used = offset;
        self.is_name_unsynced = true;
        Ok(())
    }

    /// What has to be synced for all to be on the disk; none if it is.
    pub fn sync_work(&self) -> Option<SyncWork<S>> {
        if self.synced == self.end {
            return None;
        }
        let mut files: Vec<S::File> = self.unsynced.values().cloned().collect();
        files.push(self.file.clone());
        Some(SyncWork {
            files,
            names: self.is_name_unsynced,
            position: self.end,
        })
    }

    /// Work was done.
    pub fn sync_done(&mut self, work: &SyncWork<S>) {
        // Its last file may have been written to since. Another work may have been done meanwhile.
        self.unsynced = self.unsynced.split_off(&work.position.segment);
        if work.position.segment == self.end.segment {
            self.is_name_unsynced = false;
        }
        self.synced = self.synced.max(work.position);
        self.has_news &= self.synced < self.end;
    }

    /// Syncs all that was written.
    pub fn sync(&mut self) -> io::Result<()> {
        if let Some(work) = self.sync_work() {
            let synced = work.run(&self.storage);
            self.note_sync(synced)?;
            self.sync_done(&work);
        }
        Ok(())
    }

    /// Whether a sync has failed that was done here.
    pub fn has_failed_sync(&self) -> bool {
        self.has_failed_sync
    }

    fn note_sync(&mut self, synced: io::Result<()>) -> io::Result<()> {
        self.has_failed_sync |= synced.is_err();
        synced
    }

    /// Gives back the room ahead that was not used. Nothing is written any more.
    pub fn close(self) -> io::Result<()> {
        self.file.set_len(self.end.offset)?;
        self.file.sync()
    }

    /// The bytes of all segments from this one on.
    pub fn bytes_from(&self, segment: u64) -> u64 {
        let closed: u64 = self.closed.range(segment..).map(|(_, len)| len).sum();
        closed + self.end.offset
    }

    /// How many segments that are written to no more were not synced; each is an open file.
    pub fn unsynced_segments(&self) -> usize {
        self.unsynced.len()
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.closed.len() + 1
    }

    /// Removes the segments before this one, oldest first: a snapshot covers them.
    pub fn remove_before(&mut self, segment: u64) -> io::Result<()> {
        while let Some((&number, _)) = self.closed.first_key_value() {
            if number >= segment {
                break;
            }
            match self.storage.remove(Name::segment(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.closed.remove(&number),
            };
        }
        Ok(())
    }
}

/// Makes a segment with nothing but its header and where the log before it ended. Gives how long that is as well.
fn create<S: Storage>(
    storage: &S,
    config: LogConfig,
    salts: &mut Salts,
    number: u64,
    before: Position,
) -> io::Result<(S::File, Output, u64)> {
    let (header, sealer) = cipher::begin(
        storage.keys(),
        Content::Log,
        storage.format(),
        number,
        salts(),
    )
    .map_err(io::Error::other)?;
    let mut output = Output::new(sealer);
    let mut first = Journal::default();
    Record::Follows(before)
        .encode(&mut first)
        .expect("it is short");
    let name = Name::segment(number);
    let mut made = storage.create(name, config.segment_bytes);
    if matches!(&made, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
        // An earlier try left it, and has nothing of worth in it.
        storage.remove(name)?;
        made = storage.create(name, config.segment_bytes);
    }
    let made = made.and_then(|file| {
        let len = output.write(&file, 0, &header.encode(), &mut first, &mut [])?;
        Ok((file, len))
    });
    match made {
        Ok((file, len)) => Ok((file, output, len)),
        Err(error) => {
            // Where that fails the next try does it.
            let _ = storage.remove(name);
            Err(error)
        }
    }
}
