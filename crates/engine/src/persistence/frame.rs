//! What all files have in common: a header that says what the file is, and frames that say how long they are and whether
//! they are whole. It knows nothing of what is in a frame. What it can tell is whether a frame that cannot be read may be
//! the end of what was being written when the machine stopped, or must be damage.
//!
//! ```text
//! header    8 magic | u16 format | u16 cipher | u32 key id | u64 number | 16 salt | u32 CRC-32C of all before | 0 0 0 0xA5
//! frame     u32 length of the body | u32 CRC-32C of the salt, the length and the body | body | 0xA5
//! ```
//!
//! All numbers are little-endian. Behind the last frame there may be zeros, where the file was made longer ahead of its use.

use crc32c::{crc32c, crc32c_append};
use henge_wire::Version;
use std::fmt;

/// The first format: what a node by itself writes.
pub const FORMAT: u16 = 1;
/// The same, and the kinds of records of a node that replicates, which the first does not know. It is the newest that is read.
pub const REPLICA_FORMAT: u16 = 2;
/// Bytes of a file's header.
pub const HEADER_BYTES: usize = 48;
/// Of these, those that its checksum is of.
pub const CHECKED_BYTES: usize = HEADER_BYTES - 8;
/// Bytes of a frame before its body.
pub const HEAD_BYTES: usize = 8;
/// Bytes of a frame beside its body.
pub const FRAME_BYTES: usize = HEAD_BYTES + 1;
/// The longest body. Lengths are 32 bits wide; the top one is left, so that a sum of two cannot wrap.
pub const MAX_BODY_BYTES: usize = (1 << 31) - 1;
/// Ends every frame. It is no zero, so that a frame whose end was never written does not look like one that was.
pub const TRAILER: u8 = 0xA5;
/// The last seq that is read: as many are left behind it as a million writes a second to one partition stamp in twelve days.
/// A version behind it is in a file only if somebody made that, and the partition would have none left for its writes.
pub const LAST_SEQ: u64 = Version::MAX_SEQ - (1 << 40);
/// What a disk writes in whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What a file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Records of the write-ahead log.
    Log,
    /// A snapshot.
    Snapshot,
}

impl Content {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Log => b"HENGEWAL",
            Self::Snapshot => b"HENGESNP",
        }
    }
}

/// What the head of a file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the file holds.
    pub content: Content,
    /// The format that it has.
    pub format: u16,
    /// Its place among the files of its kind, from 1 on, never used again. A snapshot's is that of the first segment of the
    /// log that is replayed after it.
    pub number: u64,
    /// How bodies are encrypted; 0 for not at all.
    pub cipher: u16,
    /// Which key that takes; 0 where there is none.
    pub key_id: u32,
    /// Random. What belongs to another file, or was written by somebody who cannot know it, is no frame of this one.
    pub salt: [u8; 16],
}

impl Header {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(self.content.magic());
        bytes[8..10].copy_from_slice(&self.format.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.cipher.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.key_id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.salt);
        let crc = crc32c(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..CHECKED_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
        bytes[HEADER_BYTES - 1] = TRAILER;
        bytes
    }

    /// All that it says, as bytes, without its checksum.
    pub fn identity(&self) -> [u8; CHECKED_BYTES] {
        let mut said = [0; CHECKED_BYTES];
        said.copy_from_slice(&self.encode()[..CHECKED_BYTES]);
        said
    }

    /// Reads the head of a file.
    pub fn decode(input: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = input.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Short);
        };
        let kinds = [Content::Log, Content::Snapshot];
        let Some(content) = kinds.into_iter().find(|kind| bytes[..8] == *kind.magic()) else {
            return Err(HeaderError::Unknown);
        };
        let mut fields = Reader(&bytes[8..]);
        // None is missing: all are within the bytes that are there.
        let (format, cipher) = (fields.u16(), fields.u16());
        let (key_id, number) = (fields.u32(), fields.u64());
        let (salt, crc, end) = (fields.array(), fields.u32(), fields.u32());
        // The format first: a later one may have its checksum elsewhere.
        let format = match format {
            Ok(known @ FORMAT..=REPLICA_FORMAT) => known,
            // There never was one of this number: a crash has cut it off.
            Ok(0) => return Err(HeaderError::Checksum),
            Ok(found) => return Err(HeaderError::Format(found)),
            Err(_) => return Err(HeaderError::Short),
        };
        if crc != Ok(crc32c(&bytes[..CHECKED_BYTES])) || end != Ok(u32::from(TRAILER) << 24) {
            return Err(HeaderError::Checksum);
        }
        match (number, cipher, key_id, salt) {
            (Ok(number), Ok(cipher), Ok(key_id), Ok(salt)) => Ok(Self {
                content,
                format,
                number,
                cipher,
                key_id,
                salt,
            }),
            _ => Err(HeaderError::Short),
        }
    }

    /// Whether what is no header at the begin of a file may be one whose writing a crash cut off: its end is not there, and
    /// nothing behind it is either, unless the sector that it lies in was not written at all.
    pub fn may_be_torn(file: &[u8]) -> bool {
        let Some((header, behind)) = file.split_at_checked(HEADER_BYTES) else {
            return true;
        };
        let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        let sector = &file[..file.len().min(SECTOR_BYTES)];
        header.ends_with(&[0]) && (is_zero(behind) || is_zero(sector))
    }

    /// What the checksums of its frames begin with.
    pub fn seed(&self) -> Seed {
        Seed(crc32c(&self.salt))
    }
}

/// What the checksums of a file's frames begin with: that of its salt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(u32);

impl Seed {
    /// The checksum of a frame whose body is in these pieces, `len` bytes in all.
    pub fn checksum<'a>(self, len: u32, pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
        let mut crc = crc32c_append(self.0, &len.to_le_bytes());
        for piece in pieces {
            crc = crc32c_append(crc, piece);
        }
        crc
    }
}

/// Why bytes are not the head of a file that can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// There are fewer bytes than a header has.
    Short,
    /// It does not begin as a file of ours does.
    Unknown,
    /// It has another format, mostly of a newer version.
    Format(u16),
    /// Its checksum is not that of its bytes.
    Checksum,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "shorter than the {HEADER_BYTES} bytes of a header"),
            Self::Unknown => f.write_str(
                "neither a segment of a log nor a snapshot: it begins with neither HENGEWAL nor HENGESNP",
            ),
            Self::Format(found) => write!(
                f,
                "format {found}, and this version reads formats {FORMAT} and {REPLICA_FORMAT} only"
            ),
            Self::Checksum => f.write_str("the checksum of the header is wrong"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// Appends a frame around a body.
pub fn append(seed: Seed, body: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
    let len = body_len(body.len())?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&seed.checksum(len, [body]).to_le_bytes());
    out.extend_from_slice(body);
    out.push(TRAILER);
    Ok(())
}

/// The length of a body, as a frame says it. That of a plain one has to be shorter by what encryption adds.
pub(crate) fn body_len(len: usize) -> Result<u32, TooLong> {
    u32::try_from(len)
        .ok()
        .filter(|_| len <= MAX_BODY_BYTES)
        .ok_or(TooLong)
}

/// What is to be written is longer than a frame can say; nothing of it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a record has more than {MAX_BODY_BYTES} bytes")
    }
}

impl std::error::Error for TooLong {}

/// What is at a place of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// A whole frame of this many bytes.
    Whole {
        /// What is in it.
        body: &'a [u8],
        /// The bytes of all of it.
        len: usize,
    },
    /// Nothing was written here: zeros, or no bytes at all.
    End,
    /// The bytes end before the frame does.
    Cut,
    /// Something else than a frame.
    Damaged(Damage),
}

/// What is wrong with a frame or its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// It says that it is longer than any.
    Length(u32),
    /// Its checksum is not that of its bytes, or it does not end as it should.
    Checksum,
    /// The checksum is right, and the body ends before what it says is in it.
    Short,
    /// The checksum is right, and the body goes on behind what it says is in it.
    Long,
    /// The checksum is right, and it holds what this version does not know: what it is, and what it says.
    Unknown(&'static str, u64),
    /// The checksum is right, and it does not agree with what came before it in a snapshot: what is wrong.
    Parts(&'static str),
    /// The checksum is right, and it has a key of another partition than it says: that one.
    Foreign(u16),
    /// The checksum is right, and it has a version behind which there are hardly any.
    Version(Version),
    /// The checksum is right, and what is encrypted is not what the key of the file made.
    Sealed,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => write!(f, "a length of {len} bytes, more than any record has"),
            Self::Checksum => f.write_str("the checksum is wrong"),
            Self::Short => f.write_str("the record ends before what it says is in it"),
            Self::Long => f.write_str("the record goes on behind what it says is in it"),
            Self::Unknown(what, found) => write!(f, "an unknown {what}: {found}"),
            Self::Parts(wrong) => f.write_str(wrong),
            Self::Foreign(number) => {
                write!(f, "it has a key of partition {number}, which is another")
            }
            Self::Version(version) => write!(
                f,
                "version {version}, which no partition comes to: the last that is taken has seq {LAST_SEQ}"
            ),
            Self::Sealed => {
                f.write_str("the record does not decrypt with the key that others here do")
            }
        }
    }
}

impl std::error::Error for Damage {}

/// Looks at the place where `input` begins. `input` goes to the end of the file, or at least as far as the frame does.
pub fn frame(seed: Seed, input: &[u8]) -> Frame<'_> {
    let Some((len, crc, rest)) = head(input) else {
        return if input.iter().all(|&byte| byte == 0) {
            Frame::End
        } else {
            Frame::Cut
        };
    };
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
    let (Some(body), Some(&trailer)) = (rest.get(..bytes), rest.get(bytes)) else {
        return Frame::Cut;
    };
    if trailer != TRAILER || crc != seed.checksum(len, [body]) {
        return Frame::Damaged(Damage::Checksum);
    }
    Frame::Whole {
        body,
        len: FRAME_BYTES + bytes,
    }
}

fn head(input: &[u8]) -> Option<(u32, u32, &[u8])> {
    let (head, rest) = input.split_first_chunk::<HEAD_BYTES>()?;
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    Some((len, crc, rest))
}

/// Whether what is at this place of a file, and is no whole frame, may be one whose writing a crash cut off. It is not if
/// a crash cannot have left it: a write that was cut off leaves zeros, or the old end of the file, where the rest of it
/// would be, by whole sectors or from some byte on. A frame that is there to its end and whose bytes are wrong is damaged.
pub fn may_be_torn(seed: Seed, file: &[u8], at: usize) -> bool {
    let input = file.get(at..).unwrap_or_default();
    let Some((len, crc, rest)) = head(input) else {
        return true;
    };
    // One wrong bit in the length makes a whole frame look like one that was cut.
    let mut lengths = (0..u32::BITS).map(|bit| len ^ (1 << bit));
    if lengths.any(|len| {
        let bytes = len as usize;
        len != 0
            && rest.get(bytes) == Some(&TRAILER)
            && rest
                .get(..bytes)
                .is_some_and(|body| crc == seed.checksum(len, [body]))
    }) {
        return false;
    }
    // A first sector that was not written to has the end of the frame before in it, and the length is wrong with it.
    let sector_end = file.len().min((at / SECTOR_BYTES + 1) * SECTOR_BYTES);
    if file[at..sector_end].iter().all(|&byte| byte == 0) {
        return true;
    }
    let Some(&last) = rest.get(len as usize) else {
        return true;
    };
    if last == 0 {
        return true;
    }
    let end = at + HEAD_BYTES + len as usize;
    (at / SECTOR_BYTES..=end / SECTOR_BYTES).any(|sector| {
        let start = sector * SECTOR_BYTES;
        let sector = &file[start..file.len().min(start + SECTOR_BYTES)];
        sector.iter().all(|&byte| byte == 0)
    })
}

/// What is left of a body.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damage> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Damage> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Damage> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    /// All was read.
    pub(crate) fn end(&self) -> Result<(), Damage> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Damage::Long)
        }
    }
}

#[cfg(test)]
mod tests;
