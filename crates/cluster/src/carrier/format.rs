//! Frames of the table that the engine is, as bytes. What a frame carries of the log, which are effects and records, has the bytes
//! that it has there: nobody encodes it anew for each replica. A frame that is wrong anywhere is none.
//!
//! ```text
//! frame     u8 version | u64 start of the receiver | u32 count, messages | u32 count, acks: marks |
//!           question, of marks that are probes | answer, of marks that are echoes | traces, if there are any
//! question  u8 0 none, 1: u64 number | u32 count, marks
//! answer    u8 0 none, 1: u64 number | u64 adoptions | u32 count, marks
//! traces    u32 count, at least 1 | u32 place of an append among the messages, 25 bytes of its context; by their places
//! mark      u16 partition | u32 term | u64 seq, number or term
//! message   u16 partition | u32 term | u8 kind | then by the kind
//!           1 fence: u32 generation | 2 fenced: u64 last, history | 3 refused: u32 adopted
//!           4 open: u32 generation, u64 base, history | 5 aligned: u64 applied
//!           6 pull: u64 id, u64 common, u8 0 or 1 and u64 wanted, u32 count, keys | 7 next: u64 id, u64 number
//!           8 part: u64 id, u64 number, u8 flags: 1 full, 2 end, u32 count, states, end if there is one | 9 abort: u64 id
//!           10 append: u64 version, u64 commit, u32 length, effects as in the log | 11 beat: u64 last, u64 commit
//!           12 ack: u64 applied | 13 probe: u64 number | 14 echo: u64 number
//! state     u8 0, key: there is nothing | u8 1, record as in the log
//! end       u64 at, history, u64 commit, u64 horizon
//! history   u8 count | u32 term, u64 first seq; for each
//! key       u32 length, bytes
//! ```
//!
//! Traces stand behind all else, so that a frame without any is as it always was, and a place among the messages of the frame is all
//! that they say of an entry: so they can be told of no other, and neither put it off nor bring it forward.
//!
//! All numbers are little-endian. All of it has one form. Acks and probes are messages only where they come alone.

use super::{Context, Echoes, Frame, Mark};
use crate::history::{History, KEPT_TERMS};
use crate::replica::{Body, End, Entry, Key, Message, Record};
use crate::store::{EncodedEffects, Value, owned, view};
use crate::topology::Epoch;
use bytes::{Buf, Bytes};
use henge_engine::persistence::frame::{Damage, LAST_SEQ, TooLong};
use henge_engine::persistence::journal::Pieces;
use henge_engine::persistence::replica::{decode_record, encode_record};
use henge_wire::peer::MAX_BODY_BYTES;
use henge_wire::{MAX_KEY_BYTES, Partition, Version};
use std::fmt;

/// The version of all that is said here. In version 1 an answer said nothing of adoptions, and nobody speaks that any more.
const VERSION: u8 = 2;

const FENCE: u8 = 1;
const FENCED: u8 = 2;
const REFUSED: u8 = 3;
const OPEN: u8 = 4;
const ALIGNED: u8 = 5;
const PULL: u8 = 6;
const NEXT: u8 = 7;
const PART: u8 = 8;
const ABORT: u8 = 9;
const APPEND: u8 = 10;
const BEAT: u8 = 11;
const ACK: u8 = 12;
const PROBE: u8 = 13;
const ECHO: u8 = 14;

const FULL: u8 = 1;
const END: u8 = 2;

/// Room is made for so many of a list before any was read. In memory each is some ten times what it has to be as bytes, so for
/// more it is made as they are read.
const LISTED_AHEAD: usize = 1_024;
/// The fewest bytes of a message, of a state and of a key: no list has more than bytes have come for.
const MESSAGE_BYTES: usize = 2 + 4 + 1 + 4;
const STATE_BYTES: usize = 1 + 4;
const KEY_BYTES: usize = 4;
const MARK_BYTES: usize = 2 + 4 + 8;
const TRACE_BYTES: usize = 4 + size_of::<Context>();

/// A message of this table.
type Said = Message<EncodedEffects, Value>;
/// What a key holds, as a copy has it.
type State = (Key, Option<Record<Value>>);

/// Why bytes are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// It is of another version.
    Version(u8),
    /// At this byte there is no such part, or none that makes sense.
    Malformed(&'static str, usize),
    /// Behind this byte is something that is none of the log's.
    Damaged(Damage, usize),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(
                f,
                "a frame of replicas of version {version}, and this node speaks {VERSION}"
            ),
            Self::Malformed(part, at) => {
                write!(f, "a frame of replicas has no {part} at byte {at}")
            }
            Self::Damaged(damage, at) => {
                write!(f, "a frame of replicas is wrong behind byte {at}: {damage}")
            }
        }
    }
}

impl std::error::Error for FrameError {}

impl Frame<EncodedEffects, Value> {
    /// Puts its bytes into `out`, which is empty; large values are shared.
    ///
    /// # Errors
    /// If it has more than fits between two nodes.
    pub fn encode(&self, out: &mut Pieces) -> Result<(), TooLong> {
        out.push(&[VERSION]);
        put_u64(out, self.incarnation);
        put_count(out, self.messages.len())?;
        for (partition, message) in &self.messages {
            put_message(out, *partition, message)?;
        }
        put_marks(out, &self.acks)?;
        out.push(&[u8::from(self.probes.is_some())]);
        if let Some((number, marks)) = &self.probes {
            put_u64(out, *number);
            put_marks(out, marks)?;
        }
        out.push(&[u8::from(self.echoes.is_some())]);
        if let Some(echoes) = &self.echoes {
            put_u64(out, echoes.number);
            put_u64(out, echoes.adoptions);
            put_marks(out, &echoes.marks)?;
        }
        if !self.contexts.is_empty() {
            put_count(out, self.contexts.len())?;
            for (place, context) in &self.contexts {
                put_u32(out, *place);
                out.push(context);
            }
        }
        if out.len() > MAX_BODY_BYTES {
            return Err(TooLong);
        }
        Ok(())
    }

    /// Reads a frame, all of it. Effects that are large share the bytes, as they are applied and written soon. Values of a copy do
    /// not: they wait for its end, and a table keeps a large one as it is, so each has to be an allocation of just its length.
    pub fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        let mut reader = Reader { all: bytes, at: 0 };
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let incarnation = reader.u64("start")?;
        let messages = reader.list("messages", MESSAGE_BYTES, Reader::message)?;
        let acks = reader.marks("acks")?;
        let probes = reader.question("question")?;
        let echoes = reader.answer()?;
        let contexts = reader.traces(&messages)?;
        if reader.at < bytes.len() {
            return Err(reader.no("end"));
        }
        Ok(Self {
            incarnation,
            messages,
            contexts,
            acks,
            probes,
            echoes,
        })
    }
}

fn put_u64(out: &mut Pieces, number: u64) {
    out.push(&number.to_le_bytes());
}

fn put_u32(out: &mut Pieces, number: u32) {
    out.push(&number.to_le_bytes());
}

fn put_count(out: &mut Pieces, count: usize) -> Result<(), TooLong> {
    put_u32(out, u32::try_from(count).map_err(|_| TooLong)?);
    Ok(())
}

fn put_key(out: &mut Pieces, key: &[u8]) -> Result<(), TooLong> {
    put_count(out, key.len())?;
    out.push(key);
    Ok(())
}

fn put_marks(out: &mut Pieces, marks: &[Mark]) -> Result<(), TooLong> {
    put_count(out, marks.len())?;
    for (partition, term, number) in marks {
        out.push(&partition.number().to_le_bytes());
        put_u32(out, *term);
        put_u64(out, *number);
    }
    Ok(())
}

fn put_history(out: &mut Pieces, history: &History) {
    let terms = history.terms();
    out.push(&[terms.len() as u8]);
    for (term, first) in terms {
        put_u32(out, *term);
        put_u64(out, *first);
    }
}

fn put_message(out: &mut Pieces, partition: Partition, message: &Said) -> Result<(), TooLong> {
    out.push(&partition.number().to_le_bytes());
    put_u32(out, message.term);
    let numbers = |out: &mut Pieces, kind, numbers: &[u64]| {
        out.push(&[kind]);
        for number in numbers {
            put_u64(out, *number);
        }
    };
    match &message.body {
        Body::Fence { generation } => {
            out.push(&[FENCE]);
            put_u32(out, *generation);
        }
        Body::Fenced { last, history } => {
            numbers(out, FENCED, &[last.to_bits()]);
            put_history(out, history);
        }
        Body::Refused { adopted } => {
            out.push(&[REFUSED]);
            put_u32(out, *adopted);
        }
        Body::Open {
            generation,
            base,
            history,
        } => {
            out.push(&[OPEN]);
            put_u32(out, *generation);
            put_u64(out, *base);
            put_history(out, history);
        }
        Body::Aligned { applied } => numbers(out, ALIGNED, &[*applied]),
        Body::Pull {
            id,
            common,
            wanted,
            keys,
        } => {
            numbers(out, PULL, &[*id, *common]);
            match wanted {
                None => out.push(&[0]),
                Some(wanted) => numbers(out, 1, &[wanted.to_bits()]),
            }
            put_count(out, keys.len())?;
            keys.iter().try_for_each(|key| put_key(out, key))?;
        }
        Body::Next { id, number } => numbers(out, NEXT, &[*id, *number]),
        Body::Part {
            id,
            number,
            is_full,
            states,
            end,
        } => {
            numbers(out, PART, &[*id, *number]);
            let full = if *is_full { FULL } else { 0 };
            let ended = if end.is_some() { END } else { 0 };
            out.push(&[full | ended]);
            put_count(out, states.len())?;
            for (key, record) in states {
                match record {
                    None => {
                        out.push(&[0]);
                        put_key(out, key)?;
                    }
                    Some(record) => {
                        out.push(&[1]);
                        encode_record(&view(record), out)?;
                    }
                }
            }
            if let Some(end) = end {
                put_u64(out, end.at.to_bits());
                put_history(out, &end.history);
                put_u64(out, end.commit);
                put_u64(out, end.horizon);
            }
        }
        Body::Abort { id } => numbers(out, ABORT, &[*id]),
        Body::Append { entry, commit } => {
            numbers(out, APPEND, &[entry.version.to_bits(), *commit]);
            put_count(out, entry.effects.len())?;
            entry.effects.append_to(out);
        }
        Body::Beat { last, commit } => numbers(out, BEAT, &[*last, *commit]),
        Body::Ack { applied } => numbers(out, ACK, &[*applied]),
        Body::Probe { number } => numbers(out, PROBE, &[*number]),
        Body::Echo { number } => numbers(out, ECHO, &[*number]),
    }
    Ok(())
}

/// A frame, and how far it was read.
struct Reader<'a> {
    all: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    fn no(&self, part: &'static str) -> FrameError {
        FrameError::Malformed(part, self.at)
    }

    fn rest(&self) -> &'a [u8] {
        &self.all[self.at..]
    }

    fn take(&mut self, length: usize, part: &'static str) -> Result<&'a [u8], FrameError> {
        let taken = self.rest().get(..length).ok_or(self.no(part))?;
        self.at += length;
        Ok(taken)
    }

    fn u8(&mut self, part: &'static str) -> Result<u8, FrameError> {
        self.take(1, part).map(|byte| byte[0])
    }

    fn u32(&mut self, part: &'static str) -> Result<u32, FrameError> {
        self.take(4, part).map(|mut bytes| bytes.get_u32_le())
    }

    fn u64(&mut self, part: &'static str) -> Result<u64, FrameError> {
        self.take(8, part).map(|mut bytes| bytes.get_u64_le())
    }

    /// What `read` makes of the next bytes, if it holds; where it does not the error is where they begin.
    fn checked<T>(
        &mut self,
        part: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, FrameError>,
        holds: impl FnOnce(&T) -> bool,
    ) -> Result<T, FrameError> {
        let wrong = self.no(part);
        let read = read(self)?;
        holds(&read).then_some(read).ok_or(wrong)
    }

    fn flag(&mut self, part: &'static str) -> Result<bool, FrameError> {
        let flag = self.checked(part, |r| r.u8(part), |flag| *flag <= 1)?;
        Ok(flag == 1)
    }

    fn epoch(&mut self, part: &'static str) -> Result<Epoch, FrameError> {
        self.checked(part, |r| r.u32(part), |term| *term <= Version::MAX_TERM)
    }

    fn seq(&mut self, part: &'static str) -> Result<u64, FrameError> {
        self.checked(part, |r| r.u64(part), |seq| *seq <= Version::MAX_SEQ)
    }

    fn version(&mut self, part: &'static str) -> Result<Version, FrameError> {
        let read = |r: &mut Self| r.u64(part).map(Version::from_bits);
        self.checked(part, read, |version| version.seq() <= LAST_SEQ)
    }

    fn partition(&mut self) -> Result<Partition, FrameError> {
        const PART: &str = "partition";
        let wrong = self.no(PART);
        let number = self.take(2, PART)?.get_u16_le();
        Partition::new(number).ok_or(wrong)
    }

    /// So many as it says, each of which has some bytes at least.
    fn list<T>(
        &mut self,
        part: &'static str,
        each_bytes: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, FrameError>,
    ) -> Result<Vec<T>, FrameError> {
        let most = (self.all.len() - self.at) / each_bytes;
        let count = self.checked(part, |r| r.u32(part), |count| *count as usize <= most)?;
        let mut list = Vec::with_capacity((count as usize).min(LISTED_AHEAD));
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }

    fn marks(&mut self, part: &'static str) -> Result<Vec<Mark>, FrameError> {
        self.list(part, MARK_BYTES, |r| {
            Ok((r.partition()?, r.epoch("term")?, r.u64("mark")?))
        })
    }

    fn question(&mut self, part: &'static str) -> Result<Option<(u64, Vec<Mark>)>, FrameError> {
        if !self.flag(part)? {
            return Ok(None);
        }
        Ok(Some((self.u64("number of a question")?, self.marks(part)?)))
    }

    fn answer(&mut self) -> Result<Option<Echoes>, FrameError> {
        const PART: &str = "answer";
        if !self.flag(PART)? {
            return Ok(None);
        }
        Ok(Some(Echoes {
            number: self.u64("number of a question")?,
            adoptions: self.u64("adoptions")?,
            marks: self.marks(PART)?,
        }))
    }

    fn traces(
        &mut self,
        messages: &[(Partition, Said)],
    ) -> Result<Vec<(u32, Context)>, FrameError> {
        const PART: &str = "trace";
        if self.rest().is_empty() {
            return Ok(Vec::new());
        }
        let mut least = 0;
        let read = |r: &mut Self| {
            let is_next = |place: &u32| {
                let message = messages.get(*place as usize);
                let is_entry = |(_, said): &(_, Said)| matches!(said.body, Body::Append { .. });
                *place >= least && message.is_some_and(is_entry)
            };
            let place = r.checked(PART, |r| r.u32(PART), is_next)?;
            least = place + 1;
            let mut context = Context::default();
            context.copy_from_slice(r.take(size_of::<Context>(), PART)?);
            Ok((place, context))
        };
        let any = |traces: &Vec<_>| !traces.is_empty();
        self.checked(PART, |r| r.list(PART, TRACE_BYTES, read), any)
    }

    fn history(&mut self) -> Result<History, FrameError> {
        const PART: &str = "term of a history";
        let begin = self.at;
        let count = self.u8("history")?;
        let mut terms: Vec<(Epoch, u64)> = Vec::with_capacity(count.into());
        for _ in 0..count {
            let read = |r: &mut Self| Ok((r.epoch(PART)?, r.u64(PART)?));
            let last = terms.last().copied();
            let follows = |&(term, first): &(Epoch, u64)| {
                let is_behind = last.is_none_or(|(t, f)| t < term && f <= first);
                is_behind && (1..=LAST_SEQ + 1).contains(&first)
            };
            terms.push(self.checked(PART, read, follows)?);
        }
        if terms.len() > KEPT_TERMS {
            return Err(FrameError::Malformed("history that is short", begin));
        }
        Ok(History::from(&terms[..]))
    }

    fn key(&mut self, partition: Partition) -> Result<Key, FrameError> {
        const PART: &str = "key";
        let length = self.checked(
            PART,
            |r| r.u32(PART),
            |length| *length as usize <= MAX_KEY_BYTES,
        )?;
        let begin = self.at;
        let key = self.take(length as usize, PART)?;
        own(partition, key, begin)?;
        Ok(key.to_vec())
    }

    fn state(&mut self, partition: Partition) -> Result<State, FrameError> {
        if !self.flag("state")? {
            return Ok((self.key(partition)?, None));
        }
        let begin = self.at;
        let mut rest = self.rest();
        let record = decode_record(&mut rest);
        let record = record.map_err(|damage| FrameError::Damaged(damage, begin))?;
        own(partition, record.key, begin)?;
        let record = owned(&record);
        self.at = self.all.len() - rest.len();
        Ok((record.key.clone(), Some(record)))
    }

    fn end(&mut self) -> Result<End, FrameError> {
        let begin = self.at;
        let end = End {
            at: self.version("end")?,
            history: self.history()?,
            commit: self.seq("commit")?,
            horizon: self.seq("horizon")?,
        };
        if end.horizon > end.commit || end.commit > end.at.seq() {
            return Err(FrameError::Malformed("end in its order", begin));
        }
        Ok(end)
    }

    fn effects(&mut self, partition: Partition) -> Result<EncodedEffects, FrameError> {
        let length = self.u32("length of effects")? as usize;
        let begin = self.at;
        self.take(length, "effects")?;
        let effects = EncodedEffects::read(partition, self.all.slice(begin..self.at));
        effects.map_err(|damage| FrameError::Damaged(damage, begin))
    }

    fn message(&mut self) -> Result<(Partition, Said), FrameError> {
        let (partition, term) = (self.partition()?, self.epoch("term")?);
        let begin = self.at;
        let body = match self.u8("message")? {
            FENCE => Body::Fence {
                generation: self.epoch("generation")?,
            },
            FENCED => Body::Fenced {
                last: self.version("last version")?,
                history: self.history()?,
            },
            REFUSED => Body::Refused {
                adopted: self.epoch("adopted term")?,
            },
            OPEN => Body::Open {
                generation: self.epoch("generation")?,
                base: self.seq("base")?,
                history: self.history()?,
            },
            ALIGNED => Body::Aligned {
                applied: self.seq("applied seq")?,
            },
            PULL => Body::Pull {
                id: self.u64("copy")?,
                common: self.seq("common seq")?,
                wanted: if self.flag("wanted version")? {
                    Some(self.version("wanted version")?)
                } else {
                    None
                },
                keys: self.list("keys", KEY_BYTES, |r| r.key(partition))?,
            },
            NEXT => Body::Next {
                id: self.u64("copy")?,
                number: self.seq("number of a part")?,
            },
            PART => {
                let (id, number) = (self.u64("copy")?, self.seq("number of a part")?);
                let known = FULL | END;
                let flags = self.checked("flags", |r| r.u8("flags"), |flags| *flags <= known)?;
                let states = self.list("states", STATE_BYTES, |r| r.state(partition))?;
                let ended = (flags & END != 0).then(|| self.end());
                Body::Part {
                    id,
                    number,
                    is_full: flags & FULL != 0,
                    states,
                    end: ended.transpose()?,
                }
            }
            ABORT => Body::Abort {
                id: self.u64("copy")?,
            },
            APPEND => {
                // It is stamped in the term.
                let read = |r: &mut Self| r.version("version");
                let of_term = |version: &Version| version.term() == term;
                let version = self.checked("version of its term", read, of_term)?;
                let commit = self.seq("commit")?;
                let effects = self.effects(partition)?;
                let entry = Entry { version, effects };
                Body::Append { entry, commit }
            }
            BEAT => Body::Beat {
                last: self.seq("last seq")?,
                commit: self.seq("commit")?,
            },
            ACK => Body::Ack {
                applied: self.seq("applied seq")?,
            },
            PROBE => Body::Probe {
                number: self.u64("number of a question")?,
            },
            ECHO => Body::Echo {
                number: self.u64("number of a question")?,
            },
            _ => return Err(FrameError::Malformed("message that this node knows", begin)),
        };
        Ok((partition, Message { term, body }))
    }
}

/// A key that is not of the partition would be where nobody looks for it.
fn own(partition: Partition, key: &[u8], at: usize) -> Result<(), FrameError> {
    let of = Partition::of(key);
    if of == partition {
        Ok(())
    } else {
        Err(FrameError::Damaged(Damage::Foreign(of.number()), at))
    }
}

#[cfg(test)]
mod tests;
