//! A node on a disk: two shards with their journals, the log, snapshots in steps with writes in between, and the recovery.
//! Whatever it does the model is told, and what a recovery gives is compared with that.

use super::super::journal::Journal;
use super::super::log::{LogConfig, LogWriter, SyncWork};
use super::super::recovery::RecoveryError;
use super::super::snapshot::Builder;
use super::super::snapshot_file::SnapshotWriter;
use super::super::storage::{FileKind, Name, Storage};
use super::super::wal::Record;
use super::disk::Disk;
use super::model::{Entry, Model};
use super::random::Random;
use super::recover::{Recovered, Settings, found_in, partitions, recover, shard_of};
use crate::partition::Progress;
use crate::shard::Shard;
use henge_wire::{Partition, Version};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::OnceLock;

/// The shards that there are of those that a node would have.
pub(super) const USED_SHARDS: u16 = 2;
/// Keys of each partition.
pub(super) const KEYS: usize = 5;

/// The running process.
pub(super) struct Process {
    pub(super) shards: Vec<Shard>,
    writer: LogWriter<Disk>,
    /// What was taken from the shards and is not written.
    batch: Vec<Journal>,
    round: u64,
    sync: Option<(SyncWork<Disk>, usize)>,
    snapshot: Option<Snapshot>,
}

/// A snapshot in the making.
struct Snapshot {
    writer: SnapshotWriter<Disk>,
    number: u64,
    left: VecDeque<Partition>,
    place: u32,
    before: Option<Progress>,
    records: u64,
    all: u64,
    builder: Builder,
    frames: Journal,
}

/// See the head of the file.
pub(crate) struct Machine {
    pub(crate) disk: Disk,
    pub(crate) settings: Settings,
    pub(crate) model: Model,
    pub(crate) random: Random,
    pub(crate) now_ms: u64,
    pub(super) keys: &'static [Vec<u8>],
    /// The highest version ever stamped in each partition.
    pub(super) stamped: BTreeMap<u16, Version>,
    starts: u64,
    process: Option<Process>,
    /// Snapshots that were finished.
    pub(crate) snapshots: usize,
    /// Recoveries that cut something.
    pub(crate) cuts: usize,
}

/// Why a node did not start.
#[derive(Debug)]
pub(crate) enum StartError {
    Refused(RecoveryError),
    Io(io::Error),
}

impl Machine {
    /// One that is not started, with an empty disk.
    pub(crate) fn new(seed: u64, settings: Settings) -> Self {
        Self {
            disk: Disk::with(settings.keys),
            settings,
            model: Model::new(
                USED_SHARDS.into(),
                &partitions(),
                Version::new(1, 0),
                settings.evicts(),
            ),
            random: Random::new(seed),
            now_ms: 1_000_000,
            keys: all_keys(),
            stamped: BTreeMap::new(),
            starts: 0,
            process: None,
            snapshots: 0,
            cuts: 0,
        }
    }

    /// Recovers, compares that with the model, and begins to write.
    pub(crate) fn start(&mut self) -> Result<(), StartError> {
        self.now_ms += 1_000;
        let recovered =
            recover(&self.disk, &self.settings, self.now_ms).map_err(StartError::Refused)?;
        assert_eq!((recovered.forgotten, recovered.without_room), (0, 0));
        self.cuts += usize::from(recovered.end.cut.is_some());
        let found = found_in(&recovered.shards);
        if let Err(wrong) = self.model.settle(&found, self.now_ms) {
            panic!("{wrong}");
        }
        self.begin(recovered).map_err(StartError::Io)
    }

    fn begin(&mut self, recovered: Recovered) -> io::Result<()> {
        let Recovered {
            mut shards,
            end,
            snapshot,
            ..
        } = recovered;
        let config = LogConfig {
            segment_bytes: self.settings.segment_bytes,
            // Each other life writes ahead.
            ahead_bytes: match self.starts % 2 {
                0 => self.settings.segment_bytes as usize / 4,
                _ => 0,
            },
        };
        let mut salts = Random::new(self.random.number());
        let mut writer = LogWriter::begin(
            self.disk.clone(),
            config,
            Box::new(move || salts.bytes(16).try_into().expect("they are sixteen")),
            end.next,
            end.segments,
        )?;
        if let Some(number) = snapshot {
            self.cover(&mut writer, number)?;
        }
        let first = Version::new(1, self.now_ms);
        self.starts += 1;
        let mut started = Journal::default();
        Record::Started {
            incarnation: self.starts,
            first,
        }
        .encode(&mut started)
        .expect("it is short");
        for shard in &mut shards {
            shard.go_on_from(first);
            shard.start_journal();
        }
        self.model.append(Entry::Started(first));
        writer.write(Some(started))?;
        self.model.note_written();
        self.process = Some(Process {
            shards,
            writer,
            batch: Vec::new(),
            round: 0,
            sync: None,
            snapshot: None,
        });
        Ok(())
    }

    /// Removes what a snapshot covers.
    fn cover(&self, writer: &mut LogWriter<Disk>, number: u64) -> io::Result<()> {
        writer.remove_before(number)?;
        let covered = |name: &Name| name.kind == FileKind::Snapshot && name.number < number;
        for name in self.disk.names()?.into_iter().filter(covered) {
            self.disk.remove(name)?;
        }
        Ok(())
    }

    pub(super) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }

    /// The process ends where it stands.
    pub(crate) fn crash_process(&mut self) {
        self.process = None;
        self.disk.crash_process();
        self.model.end(false);
    }

    /// The machine ends where it stands.
    pub(crate) fn lose_power(&mut self) {
        self.process = None;
        self.disk.lose_power(&mut self.random);
        self.model.end(true);
    }

    pub(crate) fn is_started(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn shards(&self) -> &[Shard] {
        &self.process.as_ref().expect("it was started").shards
    }

    pub(crate) fn writer(&mut self) -> &mut LogWriter<Disk> {
        &mut self.process().writer
    }

    /// Writes what is in the journals; what could not be written before comes first. Then syncs it, or not.
    pub(crate) fn round(&mut self, sync: bool) -> io::Result<()> {
        let Self { process, model, .. } = self;
        let process = process.as_mut().expect("it was started");
        if process.batch.is_empty() {
            process.round += 1;
            for (n, shard) in process.shards.iter_mut().enumerate() {
                shard.take_journal(process.round, Journal::default(), &mut process.batch);
                model.take(n);
            }
        }
        while !process.batch.is_empty() {
            let written = process.writer.write_some(&mut process.batch);
            let count = written.map_err(|error| match error.kind() {
                // It may be tried again.
                ErrorKind::StorageFull => error,
                _ => broken(error),
            })?;
            process.batch.drain(..count);
        }
        let place = model.note_written();
        if sync {
            process.writer.sync().map_err(broken)?;
            assert_eq!(process.writer.synced(), process.writer.end());
            model.note_synced(place);
        }
        for shard in &mut process.shards {
            shard.note_kept(process.round);
        }
        Ok(())
    }

    /// Begins to sync what is written; other things happen before it is done.
    pub(crate) fn begin_sync(&mut self) {
        let Self { process, model, .. } = self;
        let process = process.as_mut().expect("it was started");
        if process.batch.is_empty() && process.sync.is_none() {
            let place = model.note_written();
            process.sync = process.writer.sync_work().map(|work| (work, place));
        }
    }

    pub(crate) fn finish_sync(&mut self) -> io::Result<()> {
        let disk = self.disk.clone();
        if let Some((work, place)) = self.process().sync.take() {
            work.run(&disk).map_err(broken)?;
            self.process().writer.sync_done(&work);
            self.model.note_synced(place);
        }
        Ok(())
    }

    pub(crate) fn begin_snapshot(&mut self) -> io::Result<()> {
        let salt = self.random.bytes(16);
        let disk = self.disk.clone();
        let process = self.process();
        process.writer.roll()?;
        let number = process.writer.end().segment;
        let salt = salt.try_into().expect("they are sixteen");
        process.snapshot = Some(Snapshot {
            writer: SnapshotWriter::begin(disk, number, salt)?,
            number,
            left: partitions().into(),
            place: 0,
            before: None,
            records: 0,
            all: 0,
            builder: Builder::default(),
            frames: Journal::default(),
        });
        Ok(())
    }

    pub(crate) fn is_in_snapshot(&self) -> bool {
        matches!(&self.process, Some(process) if process.snapshot.is_some())
    }

    /// Goes on with a snapshot, by a few records. One that fails is given up.
    pub(crate) fn step_snapshot(&mut self) -> io::Result<()> {
        let outcome = self.try_step_snapshot();
        if outcome.is_err() {
            self.give_snapshot_up();
        }
        outcome
    }

    pub(crate) fn give_snapshot_up(&mut self) {
        if let Some(snapshot) = self.process().snapshot.take() {
            // Where that fails it is tried at the next start.
            let _ = self.disk.remove(Name::unfinished(snapshot.number));
        }
    }

    fn try_step_snapshot(&mut self) -> io::Result<()> {
        let is_written_often = self.random.one_in(2);
        let process = self.process.as_mut().expect("it was started");
        let Some(snapshot) = &mut process.snapshot else {
            return Ok(());
        };
        let Some(&partition) = snapshot.left.front() else {
            return self.finish_snapshot();
        };
        let shard = &process.shards[shard_of(partition)];
        let before = *snapshot
            .before
            .get_or_insert_with(|| shard.progress(partition));
        let Snapshot {
            builder, records, ..
        } = snapshot;
        snapshot.place = shard.scan_records(partition, 0, snapshot.place, |record| {
            builder.push(&record).expect("records are short");
            *records += 1;
        });
        let frames = &mut snapshot.frames;
        if snapshot.place != 0 {
            return Ok(());
        }
        builder
            .finish(partition, frames)
            .expect("records are short");
        let after = shard.progress(partition);
        let horizon = after.horizon.min(before.last.seq());
        let progress = Progress {
            last: before.last,
            commit: before.commit.min(before.last.seq()).max(horizon),
            horizon,
        };
        Builder::partition(partition, progress, *records, frames).expect("it is short");
        snapshot.all += std::mem::take(&mut snapshot.records);
        snapshot.before = None;
        snapshot.left.pop_front();
        if is_written_often || snapshot.left.is_empty() {
            snapshot.writer.write(frames)?;
            frames.clear(0);
        }
        Ok(())
    }

    fn finish_snapshot(&mut self) -> io::Result<()> {
        // What it shows may be newer than what is in the log yet.
        while !self.model.is_all_written() {
            self.round(false)?;
        }
        self.round(true)?;
        let process = self.process();
        let position = process.writer.end();
        let Some(snapshot) = process.snapshot.take() else {
            return Ok(());
        };
        let Snapshot {
            writer,
            number,
            all,
            ..
        } = snapshot;
        writer.finish(position, all, 0)?;
        self.snapshots += 1;
        let mut process = self.process.take().expect("it was started");
        let covered = self.cover(&mut process.writer, number);
        self.process = Some(process);
        covered
    }

    /// Makes a snapshot at once.
    pub(crate) fn snapshot(&mut self) -> io::Result<()> {
        self.begin_snapshot()?;
        while self.is_in_snapshot() {
            self.step_snapshot()?;
        }
        Ok(())
    }

    /// Does many things, until something happens that nothing mends.
    pub(crate) fn live(&mut self, steps: usize, syncs: Syncs) -> io::Result<()> {
        for _ in 0..steps {
            if let Err(error) = self.step(syncs)
                && error.kind() == ErrorKind::Other
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Some commands and a round, so many times. Nothing may fail.
    pub(crate) fn run_rounds(&mut self, rounds: usize, syncs: Syncs) {
        for _ in 0..rounds {
            for _ in 0..3 {
                self.command();
            }
            let written = self.round(syncs == Syncs::Always);
            written.expect("nothing fails");
        }
    }

    fn step(&mut self, syncs: Syncs) -> io::Result<()> {
        for _ in 0..self.random.below(6) {
            self.command();
        }
        let chance = self.random.below(100);
        match syncs {
            Syncs::Always => self.round(true)?,
            Syncs::Never => self.round(false)?,
            Syncs::Sometimes if chance < 70 => self.round(chance < 10)?,
            Syncs::Sometimes if chance < 80 => self.begin_sync(),
            Syncs::Sometimes if chance < 90 => self.finish_sync()?,
            Syncs::Sometimes => {}
        }
        if self.is_in_snapshot() {
            if self.random.one_in(150) {
                self.give_snapshot_up();
            }
            return self.step_snapshot();
        }
        if self.random.one_in(30) {
            return self.begin_snapshot();
        }
        Ok(())
    }
}

/// Some keys of each partition, those of one side by side.
fn all_keys() -> &'static [Vec<u8>] {
    // To find them takes longer than many a life of a node.
    static KEYS_OF_ALL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    KEYS_OF_ALL.get_or_init(|| {
        let tag = |partition: &Partition| {
            let mut tags = (0..).map(|n| format!("{{{n}}}"));
            tags.find(|tag| Partition::of(tag.as_bytes()) == *partition)
                .expect("there is a key in each")
        };
        let tags = partitions().iter().map(tag).collect::<Vec<_>>();
        let keys = tags
            .iter()
            .flat_map(|tag| (0..KEYS).map(move |n| format!("{tag}{n}").into_bytes()));
        keys.collect()
    })
}

/// How often a node syncs its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Syncs {
    /// Whatever is written is synced at once.
    Always,
    /// Now and then, and while other things happen.
    Sometimes,
    /// Only where a snapshot needs it.
    Never,
}

/// What a log that failed so is good for no more: nobody knows what is on the disk.
fn broken(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::Other {
        return error;
    }
    io::Error::other(error)
}
