//! The records of the write-ahead log as bytes: what is in the frames of a segment. It opens no file and decides nothing
//! about what is damaged. docs/durability.md has the format byte by byte; it changes only with a new number.
//!
//! ```text
//! body      u8 kind, then by kind:
//! mutation  1 | u16 partition | u64 version | u16 effects | effect, effect, ...
//! flush     2 | u16 partition | u64 version
//! synced    3 | u64 segment | u64 offset
//! started   4 | u64 incarnation | u64 version
//! gap       5 | u64 bytes | zeros, so many that it lies where these bytes lay
//! follows   6 | u64 segment | u64 offset
//! 7 to 13, of a node that replicates: see `replica`
//! effect    u8 operation and flags | u32 length, key | u64 deadline, if it has one | what is put
//! put       u8 form | u32 raw length, if encoded | u8 length, media type, if typed | u32 length, data
//! ```

use super::Position;
use super::frame::{Damage, LAST_SEQ, Reader, TooLong};
use super::journal::{Journal, Pieces};
use super::replica::{self, ReplicaRecord};
use henge_wire::{
    Data, DataType, Effect, Encoding, MAX_KEY_BYTES, Mutation, PARTITIONS, Partition, Value,
    Version,
};

const MUTATION: u8 = 1;
const FLUSH: u8 = 2;
const SYNCED: u8 = 3;
const STARTED: u8 = 4;
const GAP: u8 = 5;
const FOLLOWS: u8 = 6;

const DELETE: u8 = 0;
const EXPIRE: u8 = 1;
const PUT: u8 = 2;
const OPERATION: u8 = 3;
const HAS_DEADLINE: u8 = 1 << 2;

const ENCODING: u8 = 3;
const JSON: u8 = 1 << 2;
const TYPED: u8 = 1 << 3;
const TYPE_SHIFT: u32 = 4;
const STRING: u8 = 0;

/// What happened, as the log has it.
#[derive(Clone, Debug)]
pub enum Record<'a> {
    /// A mutation was applied.
    Mutation(Mutation<'a>),
    /// All records of a partition up to this version were forgotten at once.
    Flush {
        /// The partition.
        partition: Partition,
        /// Its last version then.
        last: Version,
    },
    /// All of the log before this place was on the disk when this was written. What is damaged there is no torn end.
    Synced(Position),
    /// A process began to write here.
    Started {
        /// Its number among all that ever wrote this log.
        incarnation: u64,
        /// Partitions that had not come as far go on from this version, so that none is stamped twice.
        first: Version,
    },
    /// A repair left out so many bytes here, which nobody could read. Partitions go on from any later version.
    Gap {
        /// What was left out.
        bytes: u64,
    },
    /// The log before this segment ended here; a segment begins with it. Without it a segment whose end was lost, as it was not
    /// synced, would look like one that was ended there, and the next would be read as if nothing were missing.
    Follows(Position),
    /// What a node that replicates has written of a partition.
    Replica(ReplicaRecord<'a>),
}

impl Record<'_> {
    /// Appends its frame. If it is too long nothing is.
    #[inline]
    pub fn encode(&self, out: &mut Journal) -> Result<(), TooLong> {
        out.frame(|out| self.encode_body(out))
    }

    fn encode_body(&self, out: &mut Pieces) -> Result<(), TooLong> {
        match self {
            Self::Mutation(mutation) => {
                let effects = u16::try_from(mutation.effects.len()).map_err(|_| TooLong)?;
                out.push(&head(MUTATION, mutation.partition, mutation.version));
                out.push(&effects.to_le_bytes());
                for (key, effect) in mutation.effects {
                    encode_effect(key, effect, out)?;
                }
            }
            Self::Flush { partition, last } => out.push(&head(FLUSH, *partition, *last)),
            Self::Synced(position) => encode_position(SYNCED, *position, out),
            Self::Started { incarnation, first } => {
                out.push(&[STARTED]);
                out.push(&incarnation.to_le_bytes());
                out.push(&first.to_bits().to_le_bytes());
            }
            Self::Gap { bytes } => {
                out.push(&[GAP]);
                out.push(&bytes.to_le_bytes());
            }
            Self::Follows(position) => encode_position(FOLLOWS, *position, out),
            Self::Replica(record) => record.encode_body(out)?,
        }
        Ok(())
    }
}

/// Appends the frame of a mutation that puts one value: the same bytes as by [`Record::encode`], and for a small raw value
/// without a deadline or a media type, which nearly all are, in few steps.
#[inline]
pub fn encode_put(
    out: &mut Journal,
    partition: Partition,
    version: Version,
    key: &[u8],
    (value, expires_at_ms): (&Value<'_>, Option<u64>),
) -> Result<(), TooLong> {
    let Some(data) = small(value, expires_at_ms) else {
        return encode_any_put(out, partition, version, key, (value, expires_at_ms));
    };
    let mut before_key = [0; 11 + BEFORE_KEY];
    before_key[..11].copy_from_slice(&head(MUTATION, partition, version));
    encode_small_put(out, before_key, key, (value.json, data))
}

/// The bytes of a small raw value without a deadline or a media type.
#[inline]
pub(super) fn small<'a>(value: &'a Value<'_>, expires_at_ms: Option<u64>) -> Option<&'a [u8]> {
    let is_plain = value.encoding == Encoding::Raw && value.content_type.is_none();
    match &value.data {
        Data::Slice(data) if is_plain && expires_at_ms.is_none() && data.len() <= SMALL_BYTES => {
            Some(data)
        }
        _ => None,
    }
}

/// Appends the frame of a record whose one effect puts a [`small`] value. How it begins stands in `before_key`, with room for
/// what is between that and the key.
#[inline]
pub(super) fn encode_small_put<const N: usize>(
    out: &mut Journal,
    mut before_key: [u8; N],
    key: &[u8],
    (json, data): (bool, &[u8]),
) -> Result<(), TooLong> {
    let at = N - BEFORE_KEY;
    before_key[at] = 1;
    before_key[at + 2] = PUT;
    let key_len = u32::try_from(key.len()).map_err(|_| TooLong)?;
    before_key[at + 3..].copy_from_slice(&key_len.to_le_bytes());
    let mut before_data = [0; BEFORE_DATA];
    before_data[0] = if json { JSON } else { 0 } | (STRING << TYPE_SHIFT);
    before_data[1..].copy_from_slice(&(data.len() as u32).to_le_bytes());
    out.plain_frame([&before_key, key, &before_data, data])
}

/// What [`small`] takes for that.
const SMALL_BYTES: usize = 64 * 1024;
/// Count; operation, length of the key.
pub(super) const BEFORE_KEY: usize = 2 + 5;
/// Form, length of the data.
const BEFORE_DATA: usize = 1 + 4;

#[inline(never)]
fn encode_any_put(
    out: &mut Journal,
    partition: Partition,
    version: Version,
    key: &[u8],
    (value, expires_at_ms): (&Value<'_>, Option<u64>),
) -> Result<(), TooLong> {
    let effect = Effect::Put {
        value: value.clone(),
        expires_at_ms,
    };
    let mutation = Mutation {
        partition,
        version,
        effects: &[(key, effect)],
    };
    Record::Mutation(mutation).encode(out)
}

fn encode_position(kind: u8, Position { segment, offset }: Position, out: &mut Pieces) {
    out.push(&[kind]);
    out.push(&segment.to_le_bytes());
    out.push(&offset.to_le_bytes());
}

/// How a record of a partition begins.
fn head(kind: u8, partition: Partition, version: Version) -> [u8; 11] {
    let mut head = [0; 11];
    head[0] = kind;
    head[1..3].copy_from_slice(&partition.number().to_le_bytes());
    head[3..].copy_from_slice(&version.to_bits().to_le_bytes());
    head
}

/// The partition that a record is of, from the begin of its body; none for one that is of all.
pub fn partition_of(body: &[u8]) -> Result<Option<Partition>, Damage> {
    let mut reader = Reader(body);
    match reader.u8()? {
        MUTATION | FLUSH => reader.partition().map(Some),
        kind if replica::KINDS.contains(&kind) => reader.partition().map(Some),
        _ => Ok(None),
    }
}

/// Whether the keys of a mutation are of its partition, without which a start refuses it.
pub fn has_own_keys(mutation: &Mutation<'_>) -> bool {
    let is_own = |key: &[u8]| Partition::of(key) == mutation.partition;
    mutation.effects.iter().all(|(key, _)| is_own(key))
}

/// Where the log before a segment ended, from the body of its first record.
pub(super) fn follows(body: &[u8]) -> Option<Position> {
    match decode(body, &mut Vec::new()) {
        Ok(Record::Follows(position)) => Some(position),
        _ => None,
    }
}

/// Whether a body is that of a `gap`.
pub(super) fn is_gap(body: &[u8]) -> bool {
    body.first() == Some(&GAP)
}

/// The body of a `synced`, for who looks for one among bytes that are no frames.
pub(super) const SYNCED_BODY: (usize, u8) = (17, SYNCED);

/// Appends what becomes of a key.
#[inline]
pub(super) fn encode_effect(
    key: &[u8],
    effect: &Effect<'_>,
    out: &mut Pieces,
) -> Result<(), TooLong> {
    let (operation, deadline) = match effect {
        Effect::Delete => (DELETE, None),
        Effect::Expire { expires_at_ms } => (EXPIRE, *expires_at_ms),
        Effect::Put { expires_at_ms, .. } => (PUT, *expires_at_ms),
    };
    let flags = if deadline.is_some() { HAS_DEADLINE } else { 0 };
    let mut head = [operation | flags, 0, 0, 0, 0];
    let key_len = u32::try_from(key.len()).map_err(|_| TooLong)?;
    head[1..].copy_from_slice(&key_len.to_le_bytes());
    out.push(&head);
    out.push(key);
    if let Some(deadline) = deadline {
        out.push(&deadline.to_le_bytes());
    }
    let Effect::Put { value, .. } = effect else {
        return Ok(());
    };
    let DataType::String = value.data_type;
    let json = if value.json { JSON } else { 0 };
    let typed = if value.content_type.is_some() {
        TYPED
    } else {
        0
    };
    out.push(&[value.encoding as u8 | json | typed | (STRING << TYPE_SHIFT)]);
    if value.encoding != Encoding::Raw {
        out.push(&value.raw_len.to_le_bytes());
    }
    if let Some(content_type) = value.content_type {
        out.push(&[u8::try_from(content_type.len()).map_err(|_| TooLong)?]);
        out.push(content_type.as_bytes());
    }
    out.push_data(&value.data)
}

/// The body of a `gap` of so many bytes that takes up the place of a frame's body of `len` bytes, which has to be
/// [`GAP_BODY_BYTES`] or more: so all that is behind it stays where marks and snapshots say that it is.
pub fn gap_body(bytes: u64, len: usize) -> Vec<u8> {
    assert!(len >= GAP_BODY_BYTES, "a gap says how long it is");
    let mut body = vec![0; len];
    body[0] = GAP;
    body[1..GAP_BODY_BYTES].copy_from_slice(&bytes.to_le_bytes());
    body
}

/// The shortest body of a `gap`.
pub const GAP_BODY_BYTES: usize = 9;

/// Whether a body of so many bytes may begin like this: a cheap look by who searches for frames, before a checksum is
/// reckoned. `begin` is the body, or at least [`BEGIN_BYTES`] of it.
pub fn may_begin(len: usize, begin: &[u8]) -> bool {
    let is_partition = || {
        begin
            .get(2)
            .is_some_and(|&high| u16::from(high) << 8 < PARTITIONS)
    };
    // No file has more bytes than 48 bits tell.
    let is_length = || begin.get(7..GAP_BODY_BYTES) == Some(&[0, 0]);
    match begin.first() {
        Some(&MUTATION) => len >= 13 && is_partition(),
        Some(&FLUSH) => len == 11 && is_partition(),
        Some(&SYNCED | &STARTED | &FOLLOWS) => len == 17,
        Some(&GAP) => len >= GAP_BODY_BYTES && is_length(),
        Some(&kind) if replica::KINDS.contains(&kind) => {
            is_partition() && replica::may_be_so_long(kind, len)
        }
        _ => false,
    }
}

/// As much of a body as is looked at by [`may_begin`], here and in `snapshot`.
pub const BEGIN_BYTES: usize = 12;

/// Reads the body of a frame. `effects` is where those of a mutation are put; what was in it goes.
pub fn decode<'v, 'a: 'v>(
    body: &'a [u8],
    effects: &'v mut Vec<(&'a [u8], Effect<'a>)>,
) -> Result<Record<'v>, Damage> {
    effects.clear();
    let mut reader = Reader(body);
    let record = match reader.u8()? {
        MUTATION => {
            let (partition, version) = (reader.partition()?, reader.version()?);
            for _ in 0..reader.u16()? {
                effects.push(reader.effect()?);
            }
            Record::Mutation(Mutation {
                partition,
                version,
                effects,
            })
        }
        FLUSH => Record::Flush {
            partition: reader.partition()?,
            last: reader.version()?,
        },
        SYNCED => Record::Synced(reader.position()?),
        FOLLOWS => Record::Follows(reader.position()?),
        STARTED => Record::Started {
            incarnation: reader.u64()?,
            first: reader.version()?,
        },
        GAP => {
            let bytes = reader.u64()?;
            let padding = reader.take(reader.0.len())?;
            if padding.iter().any(|&byte| byte != 0) {
                return Err(Damage::Long);
            }
            Record::Gap { bytes }
        }
        kind if replica::KINDS.contains(&kind) => Record::Replica(reader.replica(kind, effects)?),
        kind => return Err(Damage::Unknown("kind of record", kind.into())),
    };
    reader.end()?;
    Ok(record)
}

impl<'a> Reader<'a> {
    pub(super) fn partition(&mut self) -> Result<Partition, Damage> {
        let number = self.u16()?;
        Partition::new(number).ok_or(Damage::Unknown("partition", number.into()))
    }

    pub(super) fn version(&mut self) -> Result<Version, Damage> {
        let version = Version::from_bits(self.u64()?);
        if version.seq() > LAST_SEQ {
            return Err(Damage::Version(version));
        }
        Ok(version)
    }

    fn position(&mut self) -> Result<Position, Damage> {
        Ok(Position {
            segment: self.u64()?,
            offset: self.u64()?,
        })
    }

    pub(super) fn effect(&mut self) -> Result<(&'a [u8], Effect<'a>), Damage> {
        let operation = self.u8()?;
        if operation & !(OPERATION | HAS_DEADLINE) != 0 {
            return Err(Damage::Unknown("effect", operation.into()));
        }
        let key = self.bytes()?;
        if key.len() > MAX_KEY_BYTES {
            return Err(Damage::Unknown("length of a key", key.len() as u64));
        }
        let expires_at_ms = if operation & HAS_DEADLINE == 0 {
            None
        } else {
            Some(self.u64()?)
        };
        let effect = match (operation & OPERATION, expires_at_ms) {
            (DELETE, None) => Effect::Delete,
            (EXPIRE, expires_at_ms) => Effect::Expire { expires_at_ms },
            (PUT, expires_at_ms) => Effect::Put {
                value: self.value()?,
                expires_at_ms,
            },
            _ => return Err(Damage::Unknown("effect", operation.into())),
        };
        Ok((key, effect))
    }

    fn value(&mut self) -> Result<Value<'a>, Damage> {
        let form = self.u8()?;
        if form >> TYPE_SHIFT != STRING {
            return Err(Damage::Unknown("type of value", form.into()));
        }
        let encoding = Encoding::ALL[usize::from(form & ENCODING)];
        let encoded_len = match encoding {
            Encoding::Raw => None,
            _ => Some(self.u32()?),
        };
        let content_type = if form & TYPED == 0 {
            None
        } else {
            let len = self.u8()?;
            let text = std::str::from_utf8(self.take(len.into())?);
            Some(text.map_err(|_| Damage::Unknown("media type", len.into()))?)
        };
        let data = self.bytes()?;
        Ok(Value {
            data_type: DataType::String,
            data: Data::Slice(data),
            encoding,
            raw_len: encoded_len.unwrap_or(data.len() as u32),
            json: form & JSON != 0,
            content_type,
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
