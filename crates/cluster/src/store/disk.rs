//! A shard and its disk, as bytes: what its journal comes to in the log, what a snapshot of it is, and the shard that both
//! make again. Whoever has the bytes may lose any end of those of the log that were not synced. The frames and records are
//! those of the node's files; the headers, and how segments follow each other, are not here.
//!
//! ```text
//! let settings = ShardSettings::new(room, seed);
//! let mut shard = settings.shard();                     // with a journal
//! ... PartitionTable::new(&mut shard, partition, settings.turn(now_ms)) ...
//! shard.surrender(overdrawn);                           // what the table has overdrawn, as far as it is not in use
//! log.extend(take_log(&mut shard));                     // written; what is synced of it is kept: Input::Kept
//!
//! let from = log.len();                                 // a snapshot: the journal was taken just now
//! let mut snapshot = Snapshot::begin(number);           // each has another number
//! while !snapshot.step(&mut shard) { ... }              // anything may happen to the shard in between
//! log.extend(take_log(&mut shard));                     // and is synced, before the snapshot counts
//! kept = Some(snapshot.finish()); log.drain(..from);    // whatever is before may go, or stay
//!
//! let found = settings.recover(now_ms, kept.as_deref(), &log)?;   // after a crash
//! log.truncate(found.log_bytes);                        // behind it is the torn end
//! for (partition, replica) in &found.replicas { Replica::new(.., replica.state.clone(), replica.progress) }
//! ```

use crate::replica::{Progress, State};
use henge_engine::persistence::frame::{
    Content, Damage, Frame, HEADER_BYTES, Header, HeaderError, REPLICA_FORMAT, frame,
};
use henge_engine::persistence::journal::Journal;
use henge_engine::persistence::snapshot::{self, Builder, Part};
use henge_engine::persistence::{Position, wal};
use henge_engine::{
    Cause, Commit, NoLender, PolicyKind, ReplayError, Room, Scan, Shard, ShardConfig, Turn,
};
use henge_wire::{PARTITIONS, Partition, Version};
use std::collections::BTreeMap;
use std::fmt;

/// Of which file the log's frames are: any one.
const LOG: Header = Header {
    content: Content::Log,
    format: REPLICA_FORMAT,
    number: 1,
    cipher: 0,
    key_id: 0,
    salt: [0; 16],
};

/// What a shard is made from. It has a room of its own that it neither lends nor borrows.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Its number among the shards of its node, and how many there are: its partitions are those that leave this remainder.
    pub index: u16,
    /// See `index`; a divisor of the number of partitions.
    pub shards: u16,
    /// The eviction order.
    pub policy: PolicyKind,
    /// Seeds the hash of keys and the random order.
    pub seed: u64,
    /// All that it may charge.
    pub room: Room,
    /// Bytes of committed tombstones that are kept.
    pub tombstone_bytes: usize,
}

impl ShardSettings {
    /// All partitions in one shard under LRU, with this room and no tombstones beyond their commit.
    pub fn new(room: Room, seed: u64) -> Self {
        Self {
            index: 0,
            shards: 1,
            policy: PolicyKind::Lru,
            seed,
            room,
            tombstone_bytes: 0,
        }
    }

    /// What an empty shard charges: with less room than this and two segments nothing can be put into it.
    pub fn empty_bytes(&self) -> u64 {
        self.empty().charged_bytes()
    }

    fn empty(&self) -> Shard {
        let mut shard = Shard::new(ShardConfig {
            index: self.index,
            shards: self.shards,
            policy: self.policy,
            seed: self.seed,
            first: Version::ZERO,
            commit: Commit::Told,
            tombstone_bytes: self.tombstone_bytes,
            allocation_size: |bytes| bytes,
        });
        shard.grant(self.room);
        shard
    }

    /// An empty shard that writes a journal.
    pub fn shard(&self) -> Shard {
        let mut shard = self.empty();
        shard.start_journal();
        shard
    }

    /// What surrounds a call into the shard.
    pub fn turn(&self, now_ms: u64) -> Turn<'static> {
        Turn {
            now_ms,
            lender: &NoLender,
            fair: Room::default(),
            limit: self.room,
            cause: Cause::Size,
        }
    }

    /// Makes the shard again of a snapshot and the log behind its begin, or more of that. It writes a journal from then on.
    pub fn recover(
        &self,
        now_ms: u64,
        snapshot: Option<&[u8]>,
        log: &[u8],
    ) -> Result<Recovered, RecoverError> {
        let mut shard = self.empty();
        let turn = self.turn(now_ms);
        if let Some(bytes) = snapshot {
            restore(&mut shard, &turn, bytes)?;
        }
        let mut log_bytes = 0;
        while let Frame::Whole { body, len } = frame(LOG.seed(), &log[log_bytes..]) {
            let mut effects = Vec::new();
            let record = wal::decode(body, &mut effects).map_err(RecoverError::Damage)?;
            let replayed = shard.replay(&turn, &record);
            replayed
                .map_err(RecoverError::Replay)?
                .expect("a shard without a fair share is never short");
            log_bytes += len;
        }
        shard.finish_recovery();
        // Also what was that of a node by itself is a replica's now.
        shard.replicate(|_| 0);
        let replicas = self.partitions().filter_map(|partition| {
            let found = shard.recovered(partition);
            let replica = RecoveredReplica {
                state: State::from(&found.state),
                progress: Progress {
                    last: found.progress.last,
                    commit: found.progress.commit,
                    horizon: found.progress.horizon,
                },
                has_lost_memory: found.has_lost_memory,
            };
            let is_known = replica != RecoveredReplica::default();
            is_known.then_some((partition, replica))
        });
        let replicas = replicas.collect();
        shard.start_journal();
        Ok(Recovered {
            shard,
            replicas,
            log_bytes,
        })
    }

    /// The partitions of the shard.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        let (index, shards) = (self.index, self.shards);
        Partition::all().filter(move |partition| partition.number() % shards == index)
    }
}

/// What was in a journal: frames, to be appended to the log.
pub fn take_log(shard: &mut Shard) -> Vec<u8> {
    let mut journals = Vec::new();
    // That answers wait for it is the replica's to see to.
    shard.take_journal(1, Journal::default(), &mut journals);
    shard.note_kept(1);
    journals
        .into_iter()
        .flat_map(|mut journal| bytes_of(&mut journal, &LOG))
        .collect()
}

fn bytes_of(journal: &mut Journal, header: &Header) -> Vec<u8> {
    journal.seal(header.seed());
    journal.frames().iter().flatten().copied().collect()
}

/// A replica as a recovery has found it; one that never took part is not among them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoveredReplica {
    /// What it has promised.
    pub state: State,
    /// How far its order has come.
    pub progress: Progress,
    /// It may have promised more, and had more: it is empty, and its node has to register without its memory.
    pub has_lost_memory: bool,
}

/// What a recovery has found.
pub struct Recovered {
    /// The shard.
    pub shard: Shard,
    /// Its replicas.
    pub replicas: BTreeMap<Partition, RecoveredReplica>,
    /// The bytes of the log that are whole frames. What is behind them is the torn end.
    pub log_bytes: usize,
}

/// Why a shard cannot be made again.
#[derive(Clone, Debug)]
pub enum RecoverError {
    /// The head of the snapshot is none.
    Header(HeaderError),
    /// What is in a whole frame cannot be read.
    Damage(Damage),
    /// A record does not follow the one before it.
    Replay(ReplayError),
    /// The snapshot is not whole.
    Incomplete,
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(error) => error.fmt(f),
            Self::Damage(damage) => damage.fmt(f),
            Self::Replay(error) => error.fmt(f),
            Self::Incomplete => f.write_str("the snapshot ends before it is complete"),
        }
    }
}

impl std::error::Error for RecoverError {}

fn restore(shard: &mut Shard, turn: &Turn<'_>, bytes: &[u8]) -> Result<(), RecoverError> {
    let header = Header::decode(bytes).map_err(RecoverError::Header)?;
    let mut rest = &bytes[HEADER_BYTES..];
    let (mut scratch, mut is_complete) = (Vec::new(), false);
    while let Frame::Whole { body, len } = frame(header.seed(), rest) {
        rest = &rest[len..];
        match snapshot::decode(body).map_err(RecoverError::Damage)? {
            Part::Replica {
                partition,
                commit,
                state,
            } => shard.begin_restore(partition, header.number, commit, state),
            Part::Block(block) => {
                let read = block.own_records(&mut scratch, |record| {
                    let restored = shard.restore(turn, block.partition, &record);
                    restored.expect("a shard without a fair share is never short");
                });
                read.map_err(RecoverError::Damage)?;
            }
            Part::Partition {
                partition,
                progress,
                ..
            } => shard.resume(partition, progress),
            Part::Complete { .. } => is_complete = true,
        }
    }
    if is_complete && rest.is_empty() {
        Ok(())
    } else {
        Err(RecoverError::Incomplete)
    }
}

/// A snapshot in the making.
pub struct Snapshot {
    number: u64,
    bytes: Vec<u8>,
    header: Header,
    builder: Builder,
    /// The partition that is scanned, or is the next.
    partition: u16,
    scan: Option<Scan>,
    place: u32,
    records: u64,
    all: u64,
}

impl Snapshot {
    /// Begins one. No two of a shard have the same number.
    pub fn begin(number: u64) -> Self {
        let header = Header {
            content: Content::Snapshot,
            number,
            ..LOG
        };
        Self {
            number,
            bytes: header.encode().to_vec(),
            header,
            builder: Builder::default(),
            partition: 0,
            scan: None,
            place: 0,
            records: 0,
            all: 0,
        }
    }

    /// Goes on by one place of a scan, and by partitions that have nothing. True if that was all.
    pub fn step(&mut self, shard: &mut Shard) -> bool {
        while let Some(partition) = Partition::new(self.partition) {
            if !shard.has(partition) {
                self.partition += 1;
                continue;
            }
            let mut out = Journal::default();
            let scan = self.scan.take().unwrap_or_else(|| {
                let scan = shard.begin_scan(partition, self.number);
                if let Some(state) = &scan.state {
                    let commit = scan.before().commit;
                    Builder::replica(partition, commit, state, &mut out)
                        .expect("no history is long");
                }
                scan
            });
            let (builder, records) = (&mut self.builder, &mut self.records);
            self.place = shard.scan_records(partition, 0, self.place, |record| {
                builder.push(&record).expect("values are shorter");
                *records += 1;
            });
            let is_done = self.place == 0;
            // Of a partition that never took part nothing has to be said.
            let has_something = scan.state.is_some() || *records > 0;
            if is_done {
                let progress = shard.end_scan(partition, &scan);
                if has_something {
                    builder
                        .finish(partition, &mut out)
                        .and_then(|()| Builder::partition(partition, progress, *records, &mut out))
                        .expect("a block is short");
                }
                self.all += std::mem::take(records);
                self.partition += 1;
            } else {
                self.scan = Some(scan);
            }
            self.bytes.extend(bytes_of(&mut out, &self.header));
            if !is_done || has_something {
                return self.partition >= PARTITIONS;
            }
        }
        true
    }

    /// Its bytes, once all was scanned.
    pub fn finish(mut self) -> Vec<u8> {
        assert!(self.partition >= PARTITIONS, "all was scanned");
        let mut out = Journal::default();
        Builder::complete(Position::default(), self.all, 0, &mut out).expect("it is short");
        self.bytes.extend(bytes_of(&mut out, &self.header));
        self.bytes
    }

    /// One that nothing came between.
    pub fn of(shard: &mut Shard, number: u64) -> Vec<u8> {
        let mut snapshot = Self::begin(number);
        while !snapshot.step(shard) {}
        snapshot.finish()
    }
}
