//! The write-ahead log as bytes: the header of a segment, and the records that follow it, each in a frame that says how long it
//! is and whether it is whole. It opens no file and decides nothing about what is damaged: it says what is at a place, and
//! whoever reads a segment knows what was promised about it. docs/durability.md has the format byte by byte; it changes
//! only with a new number.
//!
//! ```text
//! segment   header, frame, frame, ...; zeros to the end where it was made longer ahead of its use
//! header    "HENGEWAL" | u16 format | u16 cipher | u32 key id | u64 number | u32 0 | u32 CRC-32C of all before
//! frame     u32 length of the body | u32 CRC-32C of the length and the body | body
//! body      u8 kind, then by kind:
//! mutation  1 | u16 partition | u64 version | u16 effects | effect, effect, ...
//! flush     2 | u16 partition | u64 version
//! synced    3 | u64 offset
//! effect    u8 operation and flags | u32 length, key | u64 deadline, if it has one | what is put
//! put       u8 form | u32 raw length, if encoded | u8 length, media type, if typed | u32 length, data
//! ```
//!
//! All numbers are little-endian.

use crc32c::{crc32c, crc32c_append};
use henge_wire::{
    Data, DataType, Effect, Encoding, MAX_KEY_BYTES, Mutation, Partition, Value, Version,
};
use std::fmt;

/// The format that is written, and the newest that is read.
pub const FORMAT: u16 = 1;
/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 32;
/// Bytes of a frame before its body.
pub const FRAME_BYTES: usize = 8;
/// The longest body. Lengths are 32 bits wide; the top one is left, so that a sum of two cannot wrap.
pub const MAX_BODY_BYTES: usize = (1 << 31) - 1;

const MAGIC: &[u8; 8] = b"HENGEWAL";

const MUTATION: u8 = 1;
const FLUSH: u8 = 2;
const SYNCED: u8 = 3;

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

/// What the head of a segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The segment's place among all, from 1 on, never used again.
    pub number: u64,
    /// How bodies are encrypted; 0 for not at all.
    pub cipher: u16,
    /// Which key that takes; 0 where there is none.
    pub key_id: u32,
}

impl Header {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.cipher.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.key_id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        let crc = crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the head of a segment.
    pub fn decode(input: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = input.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Short);
        };
        if &bytes[..8] != MAGIC {
            return Err(HeaderError::NotASegment);
        }
        let mut fields = Reader(&bytes[8..]);
        // None is missing: all are within the bytes that are there.
        let (format, cipher) = (fields.u16(), fields.u16());
        let (key_id, number) = (fields.u32(), fields.u64());
        let (_, crc) = (fields.u32(), fields.u32());
        // The format first: a later one may have its checksum elsewhere.
        match format {
            Ok(FORMAT) => {}
            Ok(found) => return Err(HeaderError::Format(found)),
            Err(_) => return Err(HeaderError::Short),
        }
        if crc != Ok(crc32c(&bytes[..28])) {
            return Err(HeaderError::Checksum);
        }
        match (number, cipher, key_id) {
            (Ok(number), Ok(cipher), Ok(key_id)) => Ok(Self {
                number,
                cipher,
                key_id,
            }),
            _ => Err(HeaderError::Short),
        }
    }
}

/// Why bytes are not the head of a segment that can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// There are fewer bytes than a header has.
    Short,
    /// It does not begin as a segment does.
    NotASegment,
    /// It has another format, mostly of a newer version.
    Format(u16),
    /// Its checksum is not that of its bytes.
    Checksum,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "shorter than the {HEADER_BYTES} bytes of a header"),
            Self::NotASegment => {
                f.write_str("not a segment of a log: it does not begin with HENGEWAL")
            }
            Self::Format(found) => write!(
                f,
                "format {found}, and this version reads format {FORMAT} only"
            ),
            Self::Checksum => f.write_str("the checksum of the header is wrong"),
        }
    }
}

impl std::error::Error for HeaderError {}

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
    /// All bytes of this segment before this one were on the disk when this was written. What is damaged among them is no torn
    /// end of the log.
    Synced {
        /// From the begin of the segment.
        offset: u64,
    },
}

/// A record is longer than a frame can say; nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a record of the log has more than {MAX_BODY_BYTES} bytes"
        )
    }
}

impl std::error::Error for TooLong {}

impl Record<'_> {
    /// Appends its frame.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_BYTES]);
        let written = self.encode_body(out).and_then(|()| {
            let len = out.len() - start - FRAME_BYTES;
            u32::try_from(len)
                .ok()
                .filter(|_| len <= MAX_BODY_BYTES)
                .ok_or(TooLong)
        });
        match written {
            Ok(len) => {
                let frame = &mut out[start..];
                frame[..4].copy_from_slice(&len.to_le_bytes());
                let crc = frame_crc(len, &frame[FRAME_BYTES..]);
                frame[4..FRAME_BYTES].copy_from_slice(&crc.to_le_bytes());
                Ok(())
            }
            Err(too_long) => {
                out.truncate(start);
                Err(too_long)
            }
        }
    }

    fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        match self {
            Self::Mutation(mutation) => {
                out.push(MUTATION);
                out.extend_from_slice(&mutation.partition.number().to_le_bytes());
                out.extend_from_slice(&mutation.version.to_bits().to_le_bytes());
                let effects = u16::try_from(mutation.effects.len()).map_err(|_| TooLong)?;
                out.extend_from_slice(&effects.to_le_bytes());
                for (key, effect) in mutation.effects {
                    encode_effect(key, effect, out)?;
                }
            }
            Self::Flush { partition, last } => {
                out.push(FLUSH);
                out.extend_from_slice(&partition.number().to_le_bytes());
                out.extend_from_slice(&last.to_bits().to_le_bytes());
            }
            Self::Synced { offset } => {
                out.push(SYNCED);
                out.extend_from_slice(&offset.to_le_bytes());
            }
        }
        Ok(())
    }
}

fn encode_effect(key: &[u8], effect: &Effect<'_>, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let (operation, deadline) = match effect {
        Effect::Delete => (DELETE, None),
        Effect::Expire { expires_at_ms } => (EXPIRE, *expires_at_ms),
        Effect::Put { expires_at_ms, .. } => (PUT, *expires_at_ms),
    };
    let flags = if deadline.is_some() { HAS_DEADLINE } else { 0 };
    out.push(operation | flags);
    put_bytes(key, out)?;
    if let Some(deadline) = deadline {
        out.extend_from_slice(&deadline.to_le_bytes());
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
    out.push(value.encoding as u8 | json | typed | (STRING << TYPE_SHIFT));
    if value.encoding != Encoding::Raw {
        out.extend_from_slice(&value.raw_len.to_le_bytes());
    }
    if let Some(content_type) = value.content_type {
        out.push(u8::try_from(content_type.len()).map_err(|_| TooLong)?);
        out.extend_from_slice(content_type.as_bytes());
    }
    put_bytes(&value.data, out)
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
    let len = u32::try_from(bytes.len()).map_err(|_| TooLong)?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// What is at a place of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// A whole frame of this many bytes.
    Whole {
        /// What [`decode`] reads.
        body: &'a [u8],
        /// The bytes of all of it.
        len: usize,
    },
    /// Nothing was written here: zeros, or no bytes at all.
    End,
    /// The bytes end before the frame does.
    Torn,
    /// Something else than a frame.
    Damaged(Damage),
}

/// What is wrong with a frame or its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// It says that it is longer than any.
    Length(u32),
    /// Its checksum is not that of its bytes.
    Checksum,
    /// The checksum is right, and the body ends before what it says is in it.
    Short,
    /// The checksum is right, and the body goes on behind what it says is in it.
    Long,
    /// The checksum is right, and it holds what this version does not know: what it is, and what it says.
    Unknown(&'static str, u64),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => write!(f, "a length of {len} bytes, more than any record has"),
            Self::Checksum => f.write_str("the checksum is wrong"),
            Self::Short => f.write_str("the record ends before what it says is in it"),
            Self::Long => f.write_str("the record goes on behind what it says is in it"),
            Self::Unknown(what, found) => write!(f, "an unknown {what}: {found}"),
        }
    }
}

impl std::error::Error for Damage {}

/// Looks at the place where `input` begins. `input` goes to the end of the segment, or at least as far as the frame does.
pub fn frame(input: &[u8]) -> Frame<'_> {
    let Some((head, rest)) = input.split_first_chunk::<FRAME_BYTES>() else {
        return if input.iter().all(|&byte| byte == 0) {
            Frame::End
        } else {
            Frame::Torn
        };
    };
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if len == 0 {
        // No body is empty.
        return if crc == 0 {
            Frame::End
        } else {
            Frame::Damaged(Damage::Short)
        };
    }
    let bytes = len as usize;
    if bytes > MAX_BODY_BYTES {
        return Frame::Damaged(Damage::Length(len));
    }
    let Some(body) = rest.get(..bytes) else {
        return Frame::Torn;
    };
    if crc != frame_crc(len, body) {
        return Frame::Damaged(Damage::Checksum);
    }
    Frame::Whole {
        body,
        len: FRAME_BYTES + bytes,
    }
}

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
        SYNCED => Record::Synced {
            offset: reader.u64()?,
        },
        kind => return Err(Damage::Unknown("kind of record", kind.into())),
    };
    if reader.0.is_empty() {
        Ok(record)
    } else {
        Err(Damage::Long)
    }
}

/// What is left of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Damage> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Damage> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Damage> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn partition(&mut self) -> Result<Partition, Damage> {
        let number = self.u16()?;
        Partition::new(number).ok_or(Damage::Unknown("partition", number.into()))
    }

    fn version(&mut self) -> Result<Version, Damage> {
        self.u64().map(Version::from_bits)
    }

    fn effect(&mut self) -> Result<(&'a [u8], Effect<'a>), Damage> {
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

/// Of the length and the body together, so that neither can be taken for another's.
fn frame_crc(len: u32, body: &[u8]) -> u32 {
    crc32c_append(crc32c(&len.to_le_bytes()), body)
}

#[cfg(test)]
mod tests;
