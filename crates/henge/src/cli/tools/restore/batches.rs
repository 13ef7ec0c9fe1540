//! A backup as batches of records, each of which a node takes in one request: the file is read twice, first to its end, so that
//! nothing is sent of one that is not whole. Where a key is in it twice, as a scan shows one that moved meanwhile, only the newest record
//! is sent; what is older would come in any order. It knows no node, and holds a window of the file and what repeats of a partition.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::path::Path;

use henge_engine::RecordView;
use henge_engine::persistence::cipher::{self, NoKeys, Sealer};
use henge_engine::persistence::frame::{
    Content, Damage, FORMAT, Frame, HEADER_BYTES, Header, frame,
};
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::snapshot::{self, Block, Builder, Part};
use henge_wire::{Partition, Version};
use hyper::body::Bytes;

use crate::disk::restore::{RestoreError, walk};
use crate::encryption::{Encryption, salt};

/// A batch is sent when it has so many records: as many as a node asks others for at once.
const ENOUGH_RECORDS: usize = 512;
/// Or so many bytes: as much as a node works on without giving it to another thread, and enough that a round trip is little.
const ENOUGH_BYTES: usize = 128 * 1024;

/// What was found in a backup that is whole.
pub(super) struct Checked {
    pub(super) records: u64,
    /// When it was made, in milliseconds since 1970; 0 if it does not say.
    pub(super) at_ms: u64,
    hasher: RandomState,
    /// By partition, the hashes of the keys that are there twice, or share one with another key.
    repeated: HashMap<u16, HashSet<u64>>,
}

/// Reads a backup to its end, with all that is in its blocks.
pub(super) fn check(
    file: &Path,
    encryption: &Encryption,
    progress: &mut dyn FnMut(u64, u64, u64),
) -> Result<Checked, RestoreError> {
    let mut checked = Checked {
        records: 0,
        at_ms: 0,
        hasher: RandomState::new(),
        repeated: HashMap::new(),
    };
    // Of each partition until it ends: those of a file of ours come one after the other.
    let mut seen: HashMap<u16, HashSet<u64>> = HashMap::new();
    let mut scratch = Vec::new();
    walk(file, encryption, progress, &mut |found| {
        match &found.part {
            Part::Block(block) => {
                let number = block.partition.number();
                let seen = seen.entry(number).or_default();
                let read = block.own_records(&mut scratch, |record| {
                    let hash = checked.hasher.hash_one(record.key);
                    if !seen.insert(hash) {
                        checked.repeated.entry(number).or_default().insert(hash);
                    }
                });
                read.map_err(|damage| found.damaged(&damage))?;
            }
            Part::Partition { partition, .. } => {
                seen.remove(&partition.number());
            }
            Part::Complete { records, at_ms, .. } => {
                (checked.records, checked.at_ms) = (*records, *at_ms);
            }
            Part::Replica { .. } => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(checked)
}

/// What is shown of a backup as it is read again.
pub(super) enum Shown {
    Batch(Batch),
    /// So many records were there in an older version too, which is not sent.
    Older(u64),
}

/// Reads a backup again, and shows all of it until `show` breaks it off.
pub(super) fn read(
    file: &Path,
    encryption: &Encryption,
    checked: &Checked,
    show: &mut dyn FnMut(Shown) -> ControlFlow<()>,
) -> Result<(), RestoreError> {
    let mut packer = Packer::new();
    // By partition, what repeats of it, by key: the newest, and how many there were.
    let mut kept: HashMap<u16, Kept> = HashMap::new();
    let mut scratch = Vec::new();
    walk(file, encryption, &mut |_, _, _| (), &mut |found| {
        match &found.part {
            Part::Block(block) => {
                let number = block.partition.number();
                match checked.repeated.get(&number) {
                    None => packer.push(found.body, block.records as usize),
                    Some(repeated) => {
                        let is_repeated = |key: &[u8]| {
                            let hash = checked.hasher.hash_one(key);
                            repeated.contains(&hash)
                        };
                        let kept = kept.entry(number).or_default();
                        packer
                            .push_some(block, &mut scratch, |record| {
                                let keeps = is_repeated(record.key);
                                if keeps {
                                    kept.take(block.partition, record);
                                }
                                !keeps
                            })
                            .map_err(|damage| found.damaged(&damage))?;
                    }
                }
            }
            Part::Partition { partition, .. } => {
                if let Some(kept) = kept.remove(&partition.number()) {
                    for (_, frames) in kept.newest.values() {
                        packer.push_frames(frames, 1);
                        if packer.is_full() && show(Shown::Batch(packer.take())).is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                    if show(Shown::Older(kept.older)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Part::Replica { .. } | Part::Complete { .. } => {}
        }
        if packer.is_full() {
            return Ok(show(Shown::Batch(packer.take())));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if packer.records > 0 {
        // Nothing comes after it, whether somebody takes it or not.
        let _ = show(Shown::Batch(packer.take()));
    }
    Ok(())
}

/// Records of a partition whose keys are there twice.
#[derive(Default)]
struct Kept {
    newest: HashMap<Box<[u8]>, (Version, Journal)>,
    older: u64,
}

impl Kept {
    fn take(&mut self, partition: Partition, record: &RecordView<'_>) {
        let entry = self.newest.entry(record.key.into());
        if let Entry::Occupied(entry) = &entry {
            self.older += 1;
            if entry.get().0 >= record.version {
                return;
            }
        }
        let mut builder = Builder::default();
        let mut frames = Journal::default();
        let made = builder
            .push(record)
            .and_then(|()| builder.finish(partition, &mut frames));
        made.expect("it was in a frame before");
        entry.insert_entry((record.version, frames));
    }
}

/// Records as a node takes them in one request.
pub(super) struct Batch {
    pub(super) body: Bytes,
    pub(super) records: usize,
}

impl Batch {
    /// Shows its records with their places in it.
    fn blocks(&self, mut show: impl FnMut(&Block<'_>)) {
        let header = Header::decode(&self.body).expect("it was made here");
        let mut at = HEADER_BYTES;
        while let Frame::Whole { body, len } = frame(header.seed(), &self.body[at..]) {
            at += len;
            if let Ok(Part::Block(block)) = snapshot::decode(body) {
                show(&block);
            }
        }
    }

    /// Some of its records, by their places.
    pub(super) fn only(&self, places: &HashSet<usize>) -> Self {
        let mut packer = Packer::new();
        let (mut at, mut scratch) = (0, Vec::new());
        self.blocks(|block| {
            let pushed = packer.push_some(block, &mut scratch, |_| {
                at += 1;
                places.contains(&(at - 1))
            });
            pushed.expect("its records were read before");
        });
        packer.take()
    }

    /// The key of a record, by its place.
    pub(super) fn key(&self, place: usize) -> Option<Vec<u8>> {
        let (mut at, mut scratch, mut key) = (0, Vec::new(), None);
        self.blocks(|block| {
            let read = block.records(&mut scratch, |record| {
                if at == place {
                    key = Some(record.key.to_vec());
                }
                at += 1;
            });
            read.expect("its records were read before");
        });
        key
    }
}

/// A batch in the making.
struct Packer {
    header: [u8; HEADER_BYTES],
    sealer: Sealer,
    body: Vec<u8>,
    records: usize,
}

impl Packer {
    fn new() -> Self {
        let begun = cipher::begin(&NoKeys, Content::Snapshot, FORMAT, 1, salt());
        let (header, sealer) = begun.expect("plain files need no key");
        let header = header.encode();
        Self {
            header,
            sealer,
            body: header.to_vec(),
            records: 0,
        }
    }

    /// Adds a block, as it is.
    fn push(&mut self, body: &[u8], records: usize) {
        let pushed = self.sealer.append(body, &mut self.body);
        pushed.expect("it was in a frame before");
        self.records += records;
    }

    fn push_frames(&mut self, frames: &Journal, records: usize) {
        let pushed = self.sealer.append_all(frames, &mut self.body);
        pushed.expect("they were frames before");
        self.records += records;
    }

    /// Adds those of the records of a block that are wanted.
    fn push_some(
        &mut self,
        block: &Block<'_>,
        scratch: &mut Vec<u8>,
        mut is_wanted: impl FnMut(&RecordView<'_>) -> bool,
    ) -> Result<(), Damage> {
        let (mut builder, mut frames) = (Builder::default(), Journal::default());
        let mut records = 0;
        block.records(scratch, |record| {
            if is_wanted(&record) {
                let pushed = builder.push(&record);
                pushed.expect("it was in a frame before");
                records += 1;
            }
        })?;
        let finished = builder.finish(block.partition, &mut frames);
        finished.expect("they were in a frame before");
        self.push_frames(&frames, records);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.records >= ENOUGH_RECORDS || self.body.len() >= ENOUGH_BYTES
    }

    fn take(&mut self) -> Batch {
        let next = self.header.to_vec();
        Batch {
            body: Bytes::from(std::mem::replace(&mut self.body, next)),
            records: std::mem::take(&mut self.records),
        }
    }
}

#[cfg(test)]
mod tests;
