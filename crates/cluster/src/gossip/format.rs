//! Datagrams as bytes. The library puts one together of the parts that are written here, and takes it apart by them; here it is
//! taken apart as a whole first, so that one that is wrong anywhere changes nothing.
//!
//! ```text
//! datagram   u8 version | member, u16 refutations: who says it | member: to whom | u8 kind, by kind: u8 number, member: of whom |
//!            u16 count, so many of: member, u16 refutations, u8 state | the rest: u16 length, load
//! member     u64 instance | varint incarnation | varint returns | u8 4 or 6, IP address, u16 port
//! load       u64 instance | varint incarnation | varint count | varint operations a second | varint memory | varint queue
//! ```
//!
//! Numbers are big-endian; a varint has seven bits in each byte, the low ones first. A call and the word that somebody is down
//! end behind the kind.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};

use super::identity::{ANYONE, Identity};
use super::{Load, Peer};

/// The version of all that is said here.
const VERSION: u8 = 1;

/// Why a datagram is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DatagramError {
    /// It is of another version.
    Version(u8),
    /// It ends too early, goes on behind its end, or makes no sense: where.
    Malformed(&'static str),
}

impl fmt::Display for DatagramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(
                f,
                "a datagram of version {version}, and this node speaks {VERSION}"
            ),
            Self::Malformed(part) => write!(f, "a datagram has no {part}"),
        }
    }
}

impl std::error::Error for DatagramError {}

/// A load, and which of its member's it is: the newest counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Told {
    pub(super) instance: u64,
    /// The start, and its count.
    pub(super) stamp: (u64, u64),
    pub(super) load: Load,
}

/// A datagram in parts, which are the machine's business.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    pub(super) header: Header<Identity>,
    pub(super) updates: Vec<Member<Identity>>,
    pub(super) loads: Vec<Told>,
}

impl Datagram {
    /// Takes one apart.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, DatagramError> {
        let mut reader = Reader(bytes);
        let header = reader.header()?;
        let mut updates = Vec::new();
        let mut loads = Vec::new();
        if has_tail(&header.message) {
            // More than fit would end early anyway, so the count allocates nothing.
            for _ in 0..reader.u16("count of members")? {
                updates.push(reader.member()?);
            }
            while !reader.0.is_empty() {
                let length = reader.u16("length of a load")?;
                let mut part = Reader(reader.take(length.into(), "load")?);
                loads.push(part.told()?);
                part.end()?;
            }
        }
        reader.end()?;
        Ok(Self {
            header,
            updates,
            loads,
        })
    }

    /// Its bytes: it has one form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_header(&mut out, &self.header);
        if has_tail(&self.header.message) {
            let count = u16::try_from(self.updates.len());
            out.put_u16(count.expect("no more than came in a datagram"));
            for update in &self.updates {
                put_member(&mut out, update);
            }
            for told in &self.loads {
                let load = told.encode();
                out.put_u16(load.len() as u16);
                out.put_slice(&load);
            }
        }
        out
    }
}

impl Told {
    /// Its bytes, some 25.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        out.put_u64(self.instance);
        let (incarnation, count) = self.stamp;
        let Load {
            operations_per_second,
            memory_bytes,
            queue_bytes,
        } = self.load;
        let operations = u64::from(operations_per_second);
        for number in [incarnation, count, operations, memory_bytes, queue_bytes] {
            put_varint(&mut out, number);
        }
        out
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DatagramError> {
        let mut reader = Reader(bytes);
        let told = reader.told()?;
        reader.end()?;
        Ok(told)
    }
}

fn has_tail(message: &Message<Identity>) -> bool {
    !matches!(message, Message::Announce | Message::TurnUndead)
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_identity(out: &mut Vec<u8>, identity: &Identity) {
    out.put_u64(identity.peer.instance);
    put_varint(out, identity.peer.incarnation);
    put_varint(out, identity.returns.into());
    match identity.peer.address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16(identity.peer.address.port());
}

fn put_member(out: &mut Vec<u8>, member: &Member<Identity>) {
    put_identity(out, member.id());
    out.put_u16(member.incarnation());
    out.push(match member.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
}

fn put_header(out: &mut Vec<u8>, header: &Header<Identity>) {
    out.push(VERSION);
    put_identity(out, &header.src);
    out.put_u16(header.src_incarnation);
    put_identity(out, &header.dst);
    let (kind, number, whom) = match &header.message {
        Message::Ping(number) => (1, Some(number), None),
        Message::Ack(number) => (2, Some(number), None),
        Message::PingReq {
            target,
            probe_number,
        } => (3, Some(probe_number), Some(target)),
        Message::IndirectPing {
            origin,
            probe_number,
        } => (4, Some(probe_number), Some(origin)),
        Message::IndirectAck {
            target,
            probe_number,
        } => (5, Some(probe_number), Some(target)),
        Message::ForwardedAck {
            origin,
            probe_number,
        } => (6, Some(probe_number), Some(origin)),
        Message::Announce => (7, None, None),
        Message::Feed => (8, None, None),
        Message::Gossip | Message::Broadcast => (9, None, None),
        Message::TurnUndead => (10, None, None),
    };
    out.push(kind);
    out.extend(number);
    if let Some(whom) = whom {
        put_identity(out, whom);
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, part: &'static str) -> Result<&'a [u8], DatagramError> {
        let taken = self.0.split_at_checked(count);
        let (taken, rest) = taken.ok_or(DatagramError::Malformed(part))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], DatagramError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, part)?);
        Ok(bytes)
    }

    fn u8(&mut self, part: &'static str) -> Result<u8, DatagramError> {
        self.array::<1>(part).map(|[byte]| byte)
    }

    fn u16(&mut self, part: &'static str) -> Result<u16, DatagramError> {
        self.array(part).map(u16::from_be_bytes)
    }

    fn u64(&mut self, part: &'static str) -> Result<u64, DatagramError> {
        self.array(part).map(u64::from_be_bytes)
    }

    fn varint(&mut self, part: &'static str) -> Result<u64, DatagramError> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8(part)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits || byte == 0 && shift > 0 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DatagramError::Malformed(part))
    }

    fn identity(&mut self) -> Result<Identity, DatagramError> {
        let instance = self.u64("instance")?;
        let incarnation = self.varint("incarnation")?;
        let returns = self.varint("count of returns")?;
        let returns = u32::try_from(returns);
        let returns = returns.map_err(|_| DatagramError::Malformed("count of returns"))?;
        let ip = match self.u8("family of an address")? {
            4 => IpAddr::from(self.array::<4>("IP address")?),
            6 => IpAddr::from(self.array::<16>("IP address")?),
            _ => return Err(DatagramError::Malformed("family of an address")),
        };
        let peer = Peer {
            instance,
            incarnation,
            address: SocketAddr::new(ip, self.u16("port")?),
        };
        Ok(Identity { peer, returns })
    }

    /// One that is somebody.
    fn somebody(&mut self) -> Result<Identity, DatagramError> {
        let identity = self.identity()?;
        if identity.peer.instance == ANYONE {
            return Err(DatagramError::Malformed("instance"));
        }
        Ok(identity)
    }

    fn member(&mut self) -> Result<Member<Identity>, DatagramError> {
        let identity = self.somebody()?;
        let refutations = self.u16("count of refutations")?;
        let state = match self.u8("state")? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(DatagramError::Malformed("state")),
        };
        Ok(Member::new(identity, refutations, state))
    }

    fn header(&mut self) -> Result<Header<Identity>, DatagramError> {
        let version = self.u8("version")?;
        if version != VERSION {
            return Err(DatagramError::Version(version));
        }
        let src = self.somebody()?;
        let src_incarnation = self.u16("count of refutations")?;
        let dst = self.identity()?;
        let kind = self.u8("kind")?;
        let probe_number = match kind {
            1..=6 => self.u8("number of a probe")?,
            _ => 0,
        };
        let message = match kind {
            1 => Message::Ping(probe_number),
            2 => Message::Ack(probe_number),
            3 => Message::PingReq {
                target: self.somebody()?,
                probe_number,
            },
            4 => Message::IndirectPing {
                origin: self.somebody()?,
                probe_number,
            },
            5 => Message::IndirectAck {
                target: self.somebody()?,
                probe_number,
            },
            6 => Message::ForwardedAck {
                origin: self.somebody()?,
                probe_number,
            },
            7 => Message::Announce,
            8 => Message::Feed,
            9 => Message::Gossip,
            10 => Message::TurnUndead,
            _ => return Err(DatagramError::Malformed("kind that is known")),
        };
        if dst.peer.instance == ANYONE && message != Message::Announce {
            return Err(DatagramError::Malformed("addressee"));
        }
        Ok(Header {
            src,
            src_incarnation,
            dst,
            message,
        })
    }

    fn told(&mut self) -> Result<Told, DatagramError> {
        let instance = self.u64("instance of a load")?;
        let stamp = (self.varint("incarnation")?, self.varint("count of a load")?);
        let operations = u32::try_from(self.varint("operations")?);
        let load = Load {
            operations_per_second: operations
                .map_err(|_| DatagramError::Malformed("operations"))?,
            memory_bytes: self.varint("memory")?,
            queue_bytes: self.varint("queue")?,
        };
        Ok(Told {
            instance,
            stamp,
            load,
        })
    }

    fn end(&self) -> Result<(), DatagramError> {
        match self.0 {
            [] => Ok(()),
            _ => Err(DatagramError::Malformed("end")),
        }
    }
}

/// The parts, as the library asks for them.
pub(super) struct Format;

impl Format {
    /// Nothing is written where there is no room for all of it.
    fn write(bytes: &[u8], mut out: impl BufMut) -> Result<(), DatagramError> {
        if out.remaining_mut() < bytes.len() {
            return Err(DatagramError::Malformed("room"));
        }
        out.put_slice(bytes);
        Ok(())
    }

    fn read<T>(
        mut from: impl Buf,
        read: impl FnOnce(&mut &[u8]) -> Result<T, DatagramError>,
    ) -> Result<T, DatagramError> {
        let mut left = from.chunk();
        let found = read(&mut left)?;
        let left = left.len();
        from.advance(from.remaining() - left);
        Ok(found)
    }
}

impl Codec<Identity> for Format {
    type Error = DatagramError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        out: impl BufMut,
    ) -> Result<(), DatagramError> {
        let mut bytes = Vec::with_capacity(64);
        put_header(&mut bytes, header);
        Self::write(&bytes, out)
    }

    fn decode_header(&mut self, from: impl Buf) -> Result<Header<Identity>, DatagramError> {
        Self::read(from, |bytes| {
            let mut reader = Reader(bytes);
            let read = reader.header();
            *bytes = reader.0;
            read
        })
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        out: impl BufMut,
    ) -> Result<(), DatagramError> {
        let mut bytes = Vec::with_capacity(32);
        put_member(&mut bytes, member);
        Self::write(&bytes, out)
    }

    fn decode_member(&mut self, from: impl Buf) -> Result<Member<Identity>, DatagramError> {
        Self::read(from, |bytes| {
            let mut reader = Reader(bytes);
            let read = reader.member();
            *bytes = reader.0;
            read
        })
    }
}

#[cfg(test)]
mod tests;
