//! Records of the log that only a node writes which replicates: the steps of a partition's order with what was known to be
//! committed, the state of the protocol, and copies. What they do to a shard is told in `shard/recover.rs`; what is in a
//! state the engine does not look into. docs/durability.md has each byte by byte.
//!
//! ```text
//! entry      7 | u16 partition | u64 version | u64 commit | u16 effects | effect, effect, ...
//! state      8 | u16 partition | u64 last | u64 commit | state
//! wiped      9 | u16 partition | state
//! copied    10 | u16 partition | u32 part | u32 records | record, record, ...
//! installed 11 | u16 partition | u64 last | u64 commit | u64 horizon | u8 what is replaced | u64 above | u32 parts | state
//! scanned   12 | u16 partition | u64 snapshot
//! lost      13 | u16 partition | state
//! state      u32 adopted | u32 generation | u8 terms | u32 term, u64 first seq; for each
//! record     u64 version | effect: a put, or a delete for a tombstone
//! ```
//!
//! A copy is the `copied` records of its parts, 0, 1, 2 and so on, and the `installed` behind them, which is what makes it
//! count: parts without it are of a copy that a crash cut off, and are nothing.

use super::frame::{Damage, LAST_SEQ, Reader, TooLong};
use super::journal::{Journal, PIECE_BYTES, Pieces};
use super::wal::{BEFORE_KEY, Record, encode_effect, encode_small_put, small};
use crate::partition::{Progress, ReplicaState};
use crate::record::Body;
use crate::shard::{RecordView, Replace};
use bytes::Bytes;
use henge_wire::{Effect, Mutation, Partition, Value, Version};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub(super) const ENTRY: u8 = 7;
const STATE: u8 = 8;
const WIPED: u8 = 9;
const COPIED: u8 = 10;
const INSTALLED: u8 = 11;
const SCANNED: u8 = 12;
const LOST: u8 = 13;
/// The kinds of these records.
pub(super) const KINDS: std::ops::RangeInclusive<u8> = ENTRY..=LOST;

/// Bytes of an entry before the number of its effects.
const ENTRY_HEAD_BYTES: usize = 1 + 2 + 8 + 8;
/// Bytes of a state without terms, and of each term.
const STATE_BYTES: usize = 4 + 4 + 1;
const TERM_BYTES: usize = 4 + 8;
/// What an effect takes beside its key and its data, at the most: less than this.
const BESIDE_BYTES: usize = 300;
/// A part of a copy that has come to this is followed by another one: as long as a journal may become.
const PART_BYTES: usize = 1 << 20;

/// What happened to a partition of a node that replicates.
#[derive(Clone, Debug)]
pub enum ReplicaRecord<'a> {
    /// The next step of its order was applied.
    Entry {
        /// It.
        mutation: Mutation<'a>,
        /// What was known to be committed then.
        commit: u64,
    },
    /// The state of the protocol has changed, or the term in which the partition is aligned.
    State {
        /// The partition.
        partition: Partition,
        /// Its newest version, in the term in which it is aligned now.
        last: Version,
        /// What was known to be committed then.
        commit: u64,
        /// The state.
        state: ReplicaState,
    },
    /// All of a partition was forgotten, as if it had never been.
    Wiped {
        /// The partition.
        partition: Partition,
        /// The state since.
        state: ReplicaState,
    },
    /// A part of a copy.
    Copied {
        /// The partition.
        partition: Partition,
        /// Its place among the parts of the copy, from 0 on.
        part: u32,
        /// What is in it.
        records: CopiedRecords<'a>,
    },
    /// All of a copy came before this, and was installed.
    Installed {
        /// The partition.
        partition: Partition,
        /// What it replaced.
        replace: Replace,
        /// How far the partition has come with it; its horizon is that of the copy.
        progress: Progress,
        /// How many parts it has.
        parts: u32,
        /// The state since.
        state: ReplicaState,
    },
    /// A snapshot has begun to scan a partition: all that came before is in it.
    Scanned {
        /// The partition.
        partition: Partition,
        /// The number of the snapshot.
        snapshot: u64,
    },
    /// A recovery has found that a partition has lost its memory, and nobody may know that yet.
    Lost {
        /// The partition.
        partition: Partition,
        /// What is left of the state.
        state: ReplicaState,
    },
}

impl ReplicaRecord<'_> {
    /// The partition that it is of.
    pub fn partition(&self) -> Partition {
        match self {
            Self::Entry { mutation, .. } => mutation.partition,
            Self::State { partition, .. }
            | Self::Wiped { partition, .. }
            | Self::Copied { partition, .. }
            | Self::Installed { partition, .. }
            | Self::Scanned { partition, .. }
            | Self::Lost { partition, .. } => *partition,
        }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Entry { .. } => "entry",
            Self::State { .. } => "state",
            Self::Wiped { .. } => "wiped",
            Self::Copied { .. } => "copied",
            Self::Installed { .. } => "installed",
            Self::Scanned { .. } => "scanned",
            Self::Lost { .. } => "lost",
        }
    }

    pub(super) fn encode_body(&self, out: &mut Pieces) -> Result<(), TooLong> {
        match self {
            Self::Entry { mutation, commit } => {
                let head = entry_head(mutation.partition, mutation.version, *commit);
                out.push(&head);
                encode_effects(mutation.effects, out)?;
            }
            Self::State {
                partition,
                last,
                commit,
                state,
            } => {
                push_head(STATE, *partition, out);
                out.push(&last.to_bits().to_le_bytes());
                out.push(&commit.to_le_bytes());
                encode_state(state, out)?;
            }
            Self::Wiped { partition, state } => {
                push_head(WIPED, *partition, out);
                encode_state(state, out)?;
            }
            Self::Lost { partition, state } => {
                push_head(LOST, *partition, out);
                encode_state(state, out)?;
            }
            Self::Copied {
                partition,
                part,
                records,
            } => {
                push_head(COPIED, *partition, out);
                out.push(&part.to_le_bytes());
                out.push(&records.count.to_le_bytes());
                out.push(records.data);
            }
            Self::Installed {
                partition,
                replace,
                progress,
                parts,
                state,
            } => {
                push_head(INSTALLED, *partition, out);
                out.push(&progress.last.to_bits().to_le_bytes());
                out.push(&progress.commit.to_le_bytes());
                out.push(&progress.horizon.to_le_bytes());
                let (kind, above) = match replace {
                    Replace::All => (0, 0),
                    Replace::Above(seq) => (1, *seq),
                };
                out.push(&[kind]);
                out.push(&above.to_le_bytes());
                out.push(&parts.to_le_bytes());
                encode_state(state, out)?;
            }
            Self::Scanned {
                partition,
                snapshot,
            } => {
                push_head(SCANNED, *partition, out);
                out.push(&snapshot.to_le_bytes());
            }
        }
        Ok(())
    }
}

fn push_head(kind: u8, partition: Partition, out: &mut Pieces) {
    out.push(&[kind]);
    out.push(&partition.number().to_le_bytes());
}

fn entry_head(partition: Partition, version: Version, commit: u64) -> [u8; ENTRY_HEAD_BYTES] {
    let mut head = [0; ENTRY_HEAD_BYTES];
    head[0] = ENTRY;
    head[1..3].copy_from_slice(&partition.number().to_le_bytes());
    head[3..11].copy_from_slice(&version.to_bits().to_le_bytes());
    head[11..].copy_from_slice(&commit.to_le_bytes());
    head
}

/// Appends the frame of an entry that puts one value: the same bytes as by [`ReplicaRecord::encode_body`], and for a small raw value
/// without a deadline or a media type, which nearly all are, in few steps.
#[inline]
pub(crate) fn encode_entry_put(
    out: &mut Journal,
    (partition, version, commit): (Partition, Version, u64),
    key: &[u8],
    (value, expires_at_ms): (&Value<'_>, Option<u64>),
) -> Result<(), TooLong> {
    if let Some(data) = small(value, expires_at_ms) {
        let mut before_key = [0; ENTRY_HEAD_BYTES + BEFORE_KEY];
        before_key[..ENTRY_HEAD_BYTES].copy_from_slice(&entry_head(partition, version, commit));
        return encode_small_put(out, before_key, key, (value.json, data));
    }
    let effect = Effect::Put {
        value: value.clone(),
        expires_at_ms,
    };
    let mutation = Mutation {
        partition,
        version,
        effects: &[(key, effect)],
    };
    Record::Replica(ReplicaRecord::Entry { mutation, commit }).encode(out)
}

/// Appends the number of effects, and them.
fn encode_effects(effects: &[(&[u8], Effect<'_>)], out: &mut Pieces) -> Result<(), TooLong> {
    let count = u16::try_from(effects.len()).map_err(|_| TooLong)?;
    out.push(&count.to_le_bytes());
    for (key, effect) in effects {
        encode_effect(key, effect, out)?;
    }
    Ok(())
}

/// Appends a state.
pub(super) fn encode_state(state: &ReplicaState, out: &mut Pieces) -> Result<(), TooLong> {
    out.push(&state.adopted.to_le_bytes());
    out.push(&state.generation.to_le_bytes());
    let terms = u8::try_from(state.history.len()).map_err(|_| TooLong)?;
    out.push(&[terms]);
    for (term, first) in &state.history {
        out.push(&term.to_le_bytes());
        out.push(&first.to_le_bytes());
    }
    Ok(())
}

/// Appends a record of a copy or a snapshot. One whose key is longer than that of any record cannot be read again.
pub fn encode_record(record: &RecordView<'_>, out: &mut Pieces) -> Result<(), TooLong> {
    let effect = match &record.body {
        Body::Value(value) => Effect::Put {
            value: value.clone(),
            expires_at_ms: record.expires_at_ms,
        },
        Body::Tombstone => Effect::Delete,
    };
    out.push(&record.version.to_bits().to_le_bytes());
    encode_effect(record.key, &effect, out)
}

/// The records of a copy by its parts.
pub(crate) fn parts<'v, 'a>(
    records: &'v [RecordView<'a>],
) -> impl Iterator<Item = &'v [RecordView<'a>]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|record| {
            let begins = bytes < PART_BYTES;
            let data = match &record.body {
                Body::Value(value) => value.data.len(),
                Body::Tombstone => 0,
            };
            bytes += record.key.len() + data + BESIDE_BYTES;
            begins
        });
        let (part, behind) = rest.split_at(fitting.count());
        rest = behind;
        (!part.is_empty()).then_some(part)
    })
}

/// Appends the frame of a part of a copy.
pub(crate) fn encode_part(
    partition: Partition,
    number: u32,
    records: &[RecordView<'_>],
    out: &mut Journal,
) -> Result<(), TooLong> {
    out.frame(|out| {
        push_head(COPIED, partition, out);
        out.push(&number.to_le_bytes());
        let count = u32::try_from(records.len()).map_err(|_| TooLong)?;
        out.push(&count.to_le_bytes());
        records
            .iter()
            .try_for_each(|record| encode_record(record, out))
    })
}

/// Records of a part of a copy, as they lie in the log. All of them are right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopiedRecords<'a> {
    count: u32,
    data: &'a [u8],
}

impl<'a> CopiedRecords<'a> {
    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.data
    }

    /// Those that lie in these bytes, which were read before.
    pub(crate) fn of(count: u32, data: &'a [u8]) -> Self {
        Self { count, data }
    }

    /// Shows them, as far as they can be read.
    pub fn each(&self, mut each: impl FnMut(RecordView<'a>)) -> Result<(), Damage> {
        let mut reader = Reader(self.data);
        for _ in 0..self.count {
            each(reader.record()?);
        }
        reader.end()
    }
}

/// Takes the first of some records, as [`encode_record`] wrote it.
pub fn decode_record<'a>(bytes: &mut &'a [u8]) -> Result<RecordView<'a>, Damage> {
    let mut reader = Reader(bytes);
    let record = reader.record()?;
    *bytes = reader.0;
    Ok(record)
}

impl<'a> Reader<'a> {
    /// A record of a copy or a snapshot.
    pub(super) fn record(&mut self) -> Result<RecordView<'a>, Damage> {
        let version = self.version()?;
        let (key, effect) = self.effect()?;
        let (body, expires_at_ms) = match effect {
            Effect::Put {
                value,
                expires_at_ms,
            } => (Body::Value(value), expires_at_ms),
            Effect::Delete => (Body::Tombstone, None),
            Effect::Expire { .. } => return Err(Damage::Unknown("effect", 1)),
        };
        Ok(RecordView {
            key,
            version,
            expires_at_ms,
            body,
        })
    }

    /// A state, whose terms are in order.
    pub(super) fn state(&mut self) -> Result<ReplicaState, Damage> {
        let (adopted, generation) = (self.u32()?, self.u32()?);
        let terms = self.u8()?;
        let mut history: Vec<(u32, u64)> = Vec::with_capacity(terms.into());
        for _ in 0..terms {
            let (term, first) = (self.u32()?, self.u64()?);
            let follows = history.last().is_none_or(|&(t, f)| t < term && f <= first);
            if !follows || term > Version::MAX_TERM || !(1..=LAST_SEQ + 1).contains(&first) {
                return Err(Damage::Unknown("term", term.into()));
            }
            history.push((term, first));
        }
        if adopted > Version::MAX_TERM || generation > Version::MAX_TERM {
            return Err(Damage::Unknown("term", adopted.max(generation).into()));
        }
        Ok(ReplicaState {
            adopted,
            generation,
            history,
        })
    }

    /// What is behind the kind of a record of a replica. `effects` is where those of an entry are put.
    pub(super) fn replica<'v>(
        &mut self,
        kind: u8,
        effects: &'v mut Vec<(&'a [u8], Effect<'a>)>,
    ) -> Result<ReplicaRecord<'v>, Damage>
    where
        'a: 'v,
    {
        let partition = self.partition()?;
        Ok(match kind {
            ENTRY => {
                let (version, commit) = (self.version()?, self.u64()?);
                if commit >= version.seq() {
                    return Err(Damage::Unknown("commit", commit));
                }
                self.effects(effects)?;
                ReplicaRecord::Entry {
                    mutation: Mutation {
                        partition,
                        version,
                        effects,
                    },
                    commit,
                }
            }
            STATE => {
                let (last, commit) = (self.version()?, self.u64()?);
                if commit > last.seq() {
                    return Err(Damage::Unknown("commit", commit));
                }
                ReplicaRecord::State {
                    partition,
                    last,
                    commit,
                    state: self.state()?,
                }
            }
            WIPED => ReplicaRecord::Wiped {
                partition,
                state: self.state()?,
            },
            LOST => ReplicaRecord::Lost {
                partition,
                state: self.state()?,
            },
            COPIED => {
                let (part, count) = (self.u32()?, self.u32()?);
                let records = CopiedRecords {
                    count,
                    data: self.take(self.0.len())?,
                };
                records.each(|_| {})?;
                ReplicaRecord::Copied {
                    partition,
                    part,
                    records,
                }
            }
            INSTALLED => {
                let progress = Progress {
                    last: self.version()?,
                    commit: self.u64()?,
                    horizon: self.u64()?,
                };
                let Progress {
                    last,
                    commit,
                    horizon,
                } = progress;
                if horizon > commit || commit > last.seq() {
                    return Err(Damage::Unknown("progress with a horizon", horizon));
                }
                let replace = match (self.u8()?, self.u64()?) {
                    (0, 0) => Replace::All,
                    (1, above) => Replace::Above(above),
                    (kind, _) => return Err(Damage::Unknown("range of a copy", kind.into())),
                };
                ReplicaRecord::Installed {
                    partition,
                    replace,
                    progress,
                    parts: self.u32()?,
                    state: self.state()?,
                }
            }
            SCANNED => ReplicaRecord::Scanned {
                partition,
                snapshot: self.u64()?,
            },
            other => return Err(Damage::Unknown("kind of record", other.into())),
        })
    }

    /// A number of effects, and them.
    fn effects(&mut self, effects: &mut Vec<(&'a [u8], Effect<'a>)>) -> Result<(), Damage> {
        for _ in 0..self.u16()? {
            effects.push(self.effect()?);
        }
        Ok(())
    }
}

/// Shows the effects in these bytes, which have nothing else.
fn with_effects<R>(
    bytes: &[u8],
    show: impl FnOnce(&[(&[u8], Effect<'_>)]) -> R,
) -> Result<R, Damage> {
    let mut reader = Reader(bytes);
    // Nearly all have one, which needs no room elsewhere.
    if bytes.starts_with(&1_u16.to_le_bytes()) {
        reader.u16()?;
        let effect = reader.effect()?;
        reader.end()?;
        return Ok(show(&[effect]));
    }
    let mut effects = Vec::new();
    reader.effects(&mut effects)?;
    reader.end()?;
    Ok(show(&effects))
}

/// Whether a body of so many bytes may end with a state behind so many.
pub(super) fn may_have_state(len: usize, before: usize) -> bool {
    let terms = len.checked_sub(before + STATE_BYTES);
    terms.is_some_and(|terms| terms.is_multiple_of(TERM_BYTES) && terms / TERM_BYTES < 256)
}

/// Whether a record of one of these kinds may be so long.
pub(super) fn may_be_so_long(kind: u8, len: usize) -> bool {
    let has_state = |before| may_have_state(len, before);
    match kind {
        ENTRY => len >= ENTRY_HEAD_BYTES + 2,
        STATE => has_state(3 + 16),
        WIPED | LOST => has_state(3),
        COPIED => len >= 3 + 8,
        INSTALLED => has_state(3 + 24 + 9 + 4),
        SCANNED => len == 3 + 8,
        _ => false,
    }
}

/// The effects of an entry as the log has them: what a leader has written to its journal goes to other replicas as it is, and
/// into theirs. Its clones share it.
#[derive(Clone, Debug)]
pub struct EncodedEffects(Arc<Pieces>);

impl PartialEq for EncodedEffects {
    fn eq(&self, other: &Self) -> bool {
        self.pieces().flatten().eq(other.pieces().flatten())
    }
}

impl Eq for EncodedEffects {}

impl Hash for EncodedEffects {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // However the bytes are split.
        self.pieces().flatten().for_each(|byte| byte.hash(state));
    }
}

impl EncodedEffects {
    /// Those of a mutation.
    pub fn encode(effects: &[(&[u8], Effect<'_>)]) -> Result<Self, TooLong> {
        /// Above what an effect has beside its key and its value, but for a content type.
        const EFFECT_BYTES: usize = 32;
        let bytes = effects.iter().map(|(key, effect)| {
            let value = match effect {
                Effect::Put { value, .. } => value.data.len().min(PIECE_BYTES),
                Effect::Delete | Effect::Expire { .. } => 0,
            };
            EFFECT_BYTES + key.len() + value
        });
        let mut pieces = Pieces::with_room(2 + bytes.sum::<usize>());
        encode_effects(effects, &mut pieces)?;
        Ok(Self(Arc::new(pieces)))
    }

    /// Those of the last entry of a journal, whose frame is so long.
    pub(crate) fn of_frame(journal: &Journal, len: usize) -> Self {
        Self(Arc::new(journal.last_body(len, ENTRY_HEAD_BYTES)))
    }

    /// Reads what came from another replica; an error if a key is not of the partition. Bytes that are worth it stay shared.
    pub fn read(partition: Partition, bytes: Bytes) -> Result<Self, Damage> {
        let foreign = with_effects(&bytes, |effects| {
            let mut of = effects.iter().map(|(key, _)| Partition::of(key));
            of.find(|of| *of != partition)
        })?;
        if let Some(other) = foreign {
            return Err(Damage::Foreign(other.number()));
        }
        Ok(Self(Arc::new(Pieces::of(bytes))))
    }

    /// Appends its bytes.
    pub fn append_to(&self, out: &mut Pieces) {
        out.append(&self.0);
    }

    /// Its bytes, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none, which is never so.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Shows the effects.
    pub fn with<R>(&self, show: impl FnOnce(&[(&[u8], Effect<'_>)]) -> R) -> R {
        let flat;
        let bytes = if let Some(bytes) = self.0.only() {
            bytes
        } else {
            flat = self.0.iter().collect::<Vec<_>>().concat();
            &flat
        };
        with_effects(bytes, show).expect("they were read before, or encoded here")
    }

    /// The key of the first effect, where the bytes are in one piece.
    pub fn first_key(&self) -> Option<&[u8]> {
        let mut reader = Reader(self.0.only()?);
        reader.u16().ok()?;
        reader.effect().ok().map(|(key, _)| key)
    }

    /// Appends the frame of an entry with these effects.
    pub(crate) fn encode_entry(
        &self,
        partition: Partition,
        version: Version,
        commit: u64,
        out: &mut Journal,
    ) -> Result<(), TooLong> {
        out.frame(|out| {
            out.push(&entry_head(partition, version, commit));
            out.append(&self.0);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
