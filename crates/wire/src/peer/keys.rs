//! What one node asks another about the keys that it has, and what is answered: commands with a reply for each, a page of a
//! scan, that all is to be forgotten, and why a key is not there. Deadlines are absolute; what the time is now, the one that answers says by itself.
//!
//! ```text
//! question      u8 1 | u32 count | commands; or u8 4 for level one, 5 for quorum, 6 for all, where 1 is the node's own
//!               u8 2 | u64 cursor | u32 limit | u32 length, prefix
//!               u8 3
//!               u8 7 | u32 length, key
//! answer        to 1 and 3: u32 count | replies; to 2: u64 cursor | u32 count | keys, each behind its u32 length
//!               to 7: a page of JSON, as clients are shown it
//!
//! command       u8 operation | u32 length, key | then by the operation
//!               1 get, 2 peek | 3 set: value, expiry, precondition | 4 delete: precondition
//!               5 increment: i64 by, i64 initial, expiry | 6 expire: expiry, precondition
//! reply         0 not here | 1 unknown | 2 found: u64 version, deadline, value | 3 missing | 4 stored: u64 version, deadline
//!               5 counted: i64 value, u64 version, deadline | 6 deleted | 7 refused: u8 why, and for 1 u8 0 or 1, u64 version
//!               8 before any of these: u8 replicas that are known to have what it is of; 0 where that is not known
//! value         u8 type | u8 encoding | u8 flags: 1 JSON, 2 content type | [u8 length, content type] | u32 raw length |
//!               u32 length, data
//! expiry        u8 0 never, 1 keep, 2 at: u64
//! deadline      u8 0 none, 1: u64
//! precondition  u8: what it matches + 3 * what it does not, each 0 unsaid, 1 any, 2 one of: u32 count, u64 versions
//! ```
//!
//! All of it has one form. An answer may have fewer replies than there were commands: those that follow were not run.

use std::fmt;

use bytes::{Buf, BufMut};

use crate::{
    Command, Data, DataType, Encoding, Expiry, Item, MAX_KEY_BYTES, Match, Operation, Precondition,
    Refusal, Reply, Value, Version,
};

/// The longest content type, in bytes: its length is one byte here, and where it is kept.
pub const MAX_CONTENT_TYPE_BYTES: usize = 255;

/// Bytes before the commands of a question.
pub const COMMANDS_HEAD_BYTES: usize = 5;
/// Bytes before the keys of a page.
pub const PAGE_HEAD_BYTES: usize = 12;

const COMMANDS: u8 = 1;
const SCAN: u8 = 2;
const FLUSH: u8 = 3;
const WHY: u8 = 7;
/// The three levels.
const AT_LEVELS: std::ops::RangeInclusive<u8> = 4..=6;

/// Why bytes are no question, or no answer: the part that is not there, or makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it has no {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Question<'a> {
    /// To run these, one after the other, at a level: 0 for one, 1 for quorum, 2 for all; none for the node's own.
    Commands(Option<u8>, Commands<'a>),
    /// A page of keys.
    Scan(Scan<'a>),
    /// To forget all. It is answered by one reply, which is `Deleted` where all is well.
    Flush,
    /// Why this key is not there.
    Why(&'a [u8]),
}

/// A page of keys that begin with something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scan<'a> {
    /// Where it goes on, as the one that is asked has said.
    pub cursor: u64,
    /// As many keys are enough.
    pub limit: u32,
    /// What they begin with.
    pub prefix: &'a [u8],
}

impl<'a> Question<'a> {
    /// Reads a question, all of it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let question = match reader.u8("question")? {
            COMMANDS => return Ok(Self::Commands(None, Commands::decode(reader)?)),
            at if AT_LEVELS.contains(&at) => {
                let level = at - AT_LEVELS.start();
                return Ok(Self::Commands(Some(level), Commands::decode(reader)?));
            }
            SCAN => Self::Scan(Scan {
                cursor: reader.u64("cursor")?,
                limit: reader.u32("limit")?,
                prefix: reader.key("prefix")?,
            }),
            FLUSH => Self::Flush,
            WHY => Self::Why(reader.key("key")?),
            _ => return Err(Malformed("question that this node knows")),
        };
        reader.end()?;
        Ok(question)
    }
}

impl Scan<'_> {
    /// Its bytes.
    ///
    /// # Panics
    /// If the prefix is longer than a key may be.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![SCAN];
        out.put_u64_le(self.cursor);
        out.put_u32_le(self.limit);
        encode_key(&mut out, self.prefix);
        out
    }
}

/// The bytes of [`Question::Why`].
///
/// # Panics
/// If the key is longer than [`MAX_KEY_BYTES`].
pub fn why_question(key: &[u8]) -> Vec<u8> {
    let mut out = vec![WHY];
    encode_key(&mut out, key);
    out
}

/// The bytes of [`Question::Flush`].
pub const FLUSH_QUESTION: &[u8] = &[FLUSH];

/// What stands before so many commands, at a level as in [`Question::Commands`].
///
/// # Panics
/// If there is no such level.
pub fn commands_head(level: Option<u8>, count: u32) -> [u8; COMMANDS_HEAD_BYTES] {
    let [a, b, c, d] = count.to_le_bytes();
    let kind = level.map_or(COMMANDS, |level| AT_LEVELS.start() + level);
    assert!(
        kind == COMMANDS || AT_LEVELS.contains(&kind),
        "there is no level {level:?}"
    );
    [kind, a, b, c, d]
}

/// Commands that were read.
#[derive(Clone, Debug)]
pub struct Commands<'a> {
    bytes: &'a [u8],
    count: u32,
    /// Those of all preconditions, one after the other: in the bytes they do not lie as they do in memory.
    versions: Vec<Version>,
}

impl<'a> Commands<'a> {
    fn decode(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let count = reader.u32("count")?;
        let bytes = reader.0;
        let mut versions = Vec::new();
        for _ in 0..count {
            reader.command(|version| versions.push(version))?;
        }
        reader.end()?;
        Ok(Self {
            bytes,
            count,
            versions,
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Each of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Command<'_>> {
        let mut reader = Reader(self.bytes);
        let mut versions = &self.versions[..];
        (0..self.count).map(move |_| {
            let Ok((mut command, lengths)) = reader.command(|_| ()) else {
                unreachable!("all of them were read before");
            };
            if let Some(precondition) = precondition_of(&mut command.operation) {
                let lists = [&mut precondition.matches, &mut precondition.none_matches];
                for (list, length) in lists.into_iter().zip(lengths) {
                    if let Some(Match::OneOf(list)) = list {
                        (*list, versions) = versions.split_at(length);
                    }
                }
            }
            command
        })
    }
}

fn precondition_of<'o, 'a>(operation: &'o mut Operation<'a>) -> Option<&'o mut Precondition<'a>> {
    match operation {
        Operation::Set { precondition, .. }
        | Operation::Delete { precondition }
        | Operation::Expire { precondition, .. } => Some(precondition),
        Operation::Get | Operation::Peek | Operation::Increment { .. } => None,
    }
}

/// Appends a command. Those of a question stand one after the other behind [`commands_head`].
///
/// # Panics
/// If its key is longer than [`MAX_KEY_BYTES`], its value than 4 GiB, or a content type than [`MAX_CONTENT_TYPE_BYTES`].
pub fn encode_command(out: &mut Vec<u8>, command: &Command<'_>) {
    out.put_u8(match &command.operation {
        Operation::Get => 1,
        Operation::Peek => 2,
        Operation::Set { .. } => 3,
        Operation::Delete { .. } => 4,
        Operation::Increment { .. } => 5,
        Operation::Expire { .. } => 6,
    });
    encode_key(out, command.key);
    match &command.operation {
        Operation::Get | Operation::Peek => {}
        Operation::Set {
            value,
            expiry,
            precondition,
        } => {
            put_value(out, value);
            put_expiry(out, *expiry);
            put_precondition(out, precondition);
        }
        Operation::Delete { precondition } => put_precondition(out, precondition),
        Operation::Increment {
            by,
            initial,
            expiry,
        } => {
            out.put_i64_le(*by);
            out.put_i64_le(*initial);
            put_expiry(out, *expiry);
        }
        Operation::Expire {
            expiry,
            precondition,
        } => {
            put_expiry(out, *expiry);
            put_precondition(out, precondition);
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug)]
pub enum Answered<'a> {
    /// The key's partition is not the one's that was asked, and nothing was done.
    NotHere,
    /// It was run, and what it wrote or showed may or may not last: the log failed.
    Unknown,
    /// It was run.
    Reply(Reply<'a>),
}

/// What stands before a reply to say how many replicas are known to have what it is of.
const REPLICAS: u8 = 8;

/// Appends what stands before a reply, and gives the place of the number of replicas that are known to have what it is of; 0 until
/// it is filled in.
pub fn encode_replicas(out: &mut Vec<u8>) -> usize {
    out.put_u8(REPLICAS);
    out.put_u8(0);
    out.len() - 1
}

/// What stands before so many replies.
pub fn replies_head(count: u32) -> [u8; 4] {
    count.to_le_bytes()
}

/// Appends what became of a command. Those of an answer stand one after the other behind [`replies_head`].
///
/// # Panics
/// As [`encode_command`].
pub fn encode_answered(out: &mut Vec<u8>, answered: &Answered<'_>) {
    let reply = match answered {
        Answered::NotHere => return out.put_u8(0),
        Answered::Unknown => return out.put_u8(1),
        Answered::Reply(reply) => reply,
    };
    match reply {
        Reply::Found(item) => {
            out.put_u8(2);
            put_state(out, item.version, item.expires_at_ms);
            put_value(out, &item.value);
        }
        Reply::Missing => out.put_u8(3),
        Reply::Stored {
            version,
            expires_at_ms,
        } => {
            out.put_u8(4);
            put_state(out, *version, *expires_at_ms);
        }
        Reply::Counted {
            value,
            version,
            expires_at_ms,
        } => {
            out.put_u8(5);
            out.put_i64_le(*value);
            put_state(out, *version, *expires_at_ms);
        }
        Reply::Deleted => out.put_u8(6),
        Reply::Refused(refusal) => {
            out.put_u8(7);
            put_refusal(out, *refusal);
        }
    }
}

/// Replies that were read.
#[derive(Clone, Copy, Debug)]
pub struct Replies<'a> {
    bytes: &'a [u8],
    count: u32,
}

impl<'a> Replies<'a> {
    /// Reads an answer, all of it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let count = reader.u32("count")?;
        let bytes = reader.0;
        for _ in 0..count {
            reader.replicas()?;
            reader.answered()?;
        }
        reader.end()?;
        Ok(Self { bytes, count })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Their bytes, without what stands before them, for [`decode_answered`].
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Takes the first of some replies.
pub fn decode_answered<'a>(bytes: &mut &'a [u8]) -> Result<Answered<'a>, Malformed> {
    decode_replicas(bytes).map(|(_, answered)| answered)
}

/// The same with how many replicas are known to have what it is of; 0 where that is not known.
pub fn decode_replicas<'a>(bytes: &mut &'a [u8]) -> Result<(u8, Answered<'a>), Malformed> {
    let mut reader = Reader(bytes);
    let replicas = reader.replicas()?;
    let answered = reader.answered()?;
    *bytes = reader.0;
    Ok((replicas, answered))
}

/// A page of keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<'a> {
    /// Where the scan goes on; 0 where it is done.
    pub cursor: u64,
    /// The keys.
    pub keys: Vec<&'a [u8]>,
}

impl<'a> Page<'a> {
    /// Reads a page, all of it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let cursor = reader.u64("cursor")?;
        let count = reader.u32("count")?;
        let keys: Result<_, _> = (0..count).map(|_| reader.key("key")).collect();
        reader.end()?;
        Ok(Self {
            cursor,
            keys: keys?,
        })
    }
}

/// What stands before so many keys of a page.
pub fn page_head(cursor: u64, count: u32) -> [u8; PAGE_HEAD_BYTES] {
    let mut head = [0; PAGE_HEAD_BYTES];
    head[..8].copy_from_slice(&cursor.to_le_bytes());
    head[8..].copy_from_slice(&count.to_le_bytes());
    head
}

/// Appends a key. Those of a page stand one after the other behind [`page_head`].
///
/// # Panics
/// If it is longer than [`MAX_KEY_BYTES`].
pub fn encode_key(out: &mut Vec<u8>, key: &[u8]) {
    assert!(
        key.len() <= MAX_KEY_BYTES,
        "keys are checked when they come"
    );
    out.put_u32_le(key.len() as u32);
    out.put_slice(key);
}

const JSON: u8 = 1;
const CONTENT_TYPE: u8 = 2;

fn put_value(out: &mut Vec<u8>, value: &Value<'_>) {
    out.put_u8(match value.data_type {
        DataType::String => 0,
    });
    let known = Encoding::ALL.iter();
    let encoding = known.take_while(|known| **known != value.encoding).count();
    out.put_u8(encoding as u8);
    let json = if value.json { JSON } else { 0 };
    let content_type = value.content_type.map_or(0, |_| CONTENT_TYPE);
    out.put_u8(json | content_type);
    if let Some(text) = value.content_type {
        assert!(
            text.len() <= MAX_CONTENT_TYPE_BYTES,
            "it is checked when it comes"
        );
        out.put_u8(text.len() as u8);
        out.put_slice(text.as_bytes());
    }
    out.put_u32_le(value.raw_len);
    let length = u32::try_from(value.data.len()).expect("limits keep values below 4 GiB");
    out.put_u32_le(length);
    out.put_slice(&value.data);
}

fn put_expiry(out: &mut Vec<u8>, expiry: Expiry) {
    match expiry {
        Expiry::Never => out.put_u8(0),
        Expiry::Keep => out.put_u8(1),
        Expiry::At(deadline) => {
            out.put_u8(2);
            out.put_u64_le(deadline);
        }
    }
}

fn put_precondition(out: &mut Vec<u8>, precondition: &Precondition<'_>) {
    let lists = [precondition.matches, precondition.none_matches];
    let [matches, none_matches] = lists.map(|list| match list {
        None => 0,
        Some(Match::Any) => 1,
        Some(Match::OneOf(_)) => 2,
    });
    out.put_u8(matches + 3 * none_matches);
    for list in lists {
        if let Some(Match::OneOf(versions)) = list {
            out.put_u32_le(versions.len() as u32);
            for version in versions {
                out.put_u64_le(version.to_bits());
            }
        }
    }
}

fn put_state(out: &mut Vec<u8>, version: Version, expires_at_ms: Option<u64>) {
    out.put_u64_le(version.to_bits());
    match expires_at_ms {
        None => out.put_u8(0),
        Some(deadline) => {
            out.put_u8(1);
            out.put_u64_le(deadline);
        }
    }
}

fn put_refusal(out: &mut Vec<u8>, refusal: Refusal) {
    match refusal {
        Refusal::PreconditionFailed(current) => {
            out.put_u8(1);
            match current {
                None => out.put_u8(0),
                Some(version) => {
                    out.put_u8(1);
                    out.put_u64_le(version.to_bits());
                }
            }
        }
        Refusal::NotAnInteger => out.put_u8(2),
        Refusal::Overflow => out.put_u8(3),
        Refusal::MemoryFull => out.put_u8(4),
        Refusal::TooLarge => out.put_u8(5),
        Refusal::LogFailed => out.put_u8(6),
        Refusal::LogBehind => out.put_u8(7),
        Refusal::NotOpen => out.put_u8(8),
    }
}

/// What was not read yet.
#[derive(Clone, Copy, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn u8(&mut self, part: &'static str) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed(part))
    }

    fn u32(&mut self, part: &'static str) -> Result<u32, Malformed> {
        self.0.try_get_u32_le().map_err(|_| Malformed(part))
    }

    fn u64(&mut self, part: &'static str) -> Result<u64, Malformed> {
        self.0.try_get_u64_le().map_err(|_| Malformed(part))
    }

    fn i64(&mut self, part: &'static str) -> Result<i64, Malformed> {
        self.0.try_get_i64_le().map_err(|_| Malformed(part))
    }

    fn take(&mut self, length: usize, part: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed(part))?;
        self.0 = rest;
        Ok(taken)
    }

    fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed("end where it should have one"))
        }
    }

    fn key(&mut self, part: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.u32(part)? as usize;
        if length > MAX_KEY_BYTES {
            return Err(Malformed(part));
        }
        self.take(length, part)
    }

    /// A command, without the versions of its precondition: those are handed out, and how many there are is said.
    fn command(
        &mut self,
        mut version: impl FnMut(Version),
    ) -> Result<(Command<'a>, [usize; 2]), Malformed> {
        let operation = self.u8("operation")?;
        let key = self.key("key")?;
        let mut lengths = [0; 2];
        let operation = match operation {
            1 => Operation::Get,
            2 => Operation::Peek,
            3 => Operation::Set {
                value: self.value()?,
                expiry: self.expiry()?,
                precondition: self.precondition(&mut version, &mut lengths)?,
            },
            4 => Operation::Delete {
                precondition: self.precondition(&mut version, &mut lengths)?,
            },
            5 => Operation::Increment {
                by: self.i64("number to add")?,
                initial: self.i64("initial number")?,
                expiry: self.expiry()?,
            },
            6 => Operation::Expire {
                expiry: self.expiry()?,
                precondition: self.precondition(&mut version, &mut lengths)?,
            },
            _ => return Err(Malformed("operation that this node knows")),
        };
        Ok((Command { key, operation }, lengths))
    }

    fn value(&mut self) -> Result<Value<'a>, Malformed> {
        let data_type = match self.u8("type")? {
            0 => DataType::String,
            _ => return Err(Malformed("type that this node knows")),
        };
        let encoding = usize::from(self.u8("encoding")?);
        let encoding = *Encoding::ALL
            .get(encoding)
            .ok_or(Malformed("encoding that this node knows"))?;
        let flags = self.u8("flags")?;
        if flags & !(JSON | CONTENT_TYPE) != 0 {
            return Err(Malformed("flags that this node knows"));
        }
        let content_type = if flags & CONTENT_TYPE == 0 {
            None
        } else {
            let length = usize::from(self.u8("content type")?);
            let text = self.take(length, "content type")?;
            Some(std::str::from_utf8(text).map_err(|_| Malformed("content type"))?)
        };
        let raw_len = self.u32("raw length")?;
        let length = self.u32("length of its value")?;
        if encoding == Encoding::Raw && raw_len != length {
            return Err(Malformed("one length of its value"));
        }
        Ok(Value {
            data_type,
            data: Data::Slice(self.take(length as usize, "value")?),
            encoding,
            raw_len,
            json: flags & JSON != 0,
            content_type,
        })
    }

    fn expiry(&mut self) -> Result<Expiry, Malformed> {
        Ok(match self.u8("expiry")? {
            0 => Expiry::Never,
            1 => Expiry::Keep,
            2 => Expiry::At(self.u64("deadline")?),
            _ => return Err(Malformed("expiry that this node knows")),
        })
    }

    fn precondition(
        &mut self,
        version: &mut impl FnMut(Version),
        lengths: &mut [usize; 2],
    ) -> Result<Precondition<'a>, Malformed> {
        const PART: &str = "precondition";
        let both = self.u8(PART)?;
        let mut list = |which: u8, length: &mut usize| {
            Ok(match which {
                0 => None,
                1 => Some(Match::Any),
                2 => {
                    let count = self.u32(PART)?;
                    for _ in 0..count {
                        version(Version::from_bits(self.u64(PART)?));
                    }
                    *length = count as usize;
                    Some(Match::OneOf(&[]))
                }
                _ => return Err(Malformed("precondition that this node knows")),
            })
        };
        Ok(Precondition {
            matches: list(both % 3, &mut lengths[0])?,
            none_matches: list(both / 3, &mut lengths[1])?,
        })
    }

    fn deadline(&mut self) -> Result<Option<u64>, Malformed> {
        match self.u8("deadline")? {
            0 => Ok(None),
            1 => self.u64("deadline").map(Some),
            _ => Err(Malformed("deadline")),
        }
    }

    fn version(&mut self) -> Result<Version, Malformed> {
        self.u64("version").map(Version::from_bits)
    }

    fn replicas(&mut self) -> Result<u8, Malformed> {
        if self.0.first() != Some(&REPLICAS) {
            return Ok(0);
        }
        self.u8("replicas")?;
        self.u8("replicas")
    }

    fn answered(&mut self) -> Result<Answered<'a>, Malformed> {
        Ok(Answered::Reply(match self.u8("reply")? {
            0 => return Ok(Answered::NotHere),
            1 => return Ok(Answered::Unknown),
            2 => {
                let (version, expires_at_ms) = (self.version()?, self.deadline()?);
                Reply::Found(Item {
                    value: self.value()?,
                    version,
                    expires_at_ms,
                })
            }
            3 => Reply::Missing,
            4 => Reply::Stored {
                version: self.version()?,
                expires_at_ms: self.deadline()?,
            },
            5 => Reply::Counted {
                value: self.i64("number")?,
                version: self.version()?,
                expires_at_ms: self.deadline()?,
            },
            6 => Reply::Deleted,
            7 => Reply::Refused(self.refusal()?),
            _ => return Err(Malformed("reply that this node knows")),
        }))
    }

    fn refusal(&mut self) -> Result<Refusal, Malformed> {
        Ok(match self.u8("refusal")? {
            1 => Refusal::PreconditionFailed(match self.u8("version")? {
                0 => None,
                1 => Some(self.version()?),
                _ => return Err(Malformed("version")),
            }),
            2 => Refusal::NotAnInteger,
            3 => Refusal::Overflow,
            4 => Refusal::MemoryFull,
            5 => Refusal::TooLarge,
            6 => Refusal::LogFailed,
            7 => Refusal::LogBehind,
            8 => Refusal::NotOpen,
            _ => return Err(Malformed("refusal that this node knows")),
        })
    }
}

#[cfg(test)]
mod tests;
