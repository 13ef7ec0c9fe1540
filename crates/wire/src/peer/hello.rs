//! Who a node is, as it says to another when they connect, and why one may be refused.
//!
//! ```text
//! hello     u16 newest, u16 oldest version | u8 purpose | u128 cluster, 0 for none | u64 instance | u64 incarnation |
//!           32 bytes nonce | u16 length, name | u16 length, address
//! refusal   u16 why | text
//! ```
//!
//! Behind what is known there may be more, of a later version; it is left out.

use super::VERSION;
use bytes::{Buf, BufMut};
use std::fmt;

/// The longest name of a node, and the longest address, in bytes. Neither has control characters.
pub const MAX_NAME_BYTES: usize = 255;

/// Bytes of the nonce of a hello.
pub const NONCE_BYTES: usize = 32;

/// What a connection is for. One that carries much must not keep others waiting.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Purpose {
    /// What the nodes agree on.
    Control = 1,
    /// Requests that are small, as their answers are, and the streams of replicas.
    Data = 2,
    /// Requests and answers that are large, and copies of partitions.
    Bulk = 3,
    /// What replicas say to each other.
    Stream = 4,
}

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// What the connection is for; both sides say the same.
    pub purpose: Purpose,
    /// The cluster that it is in; none before it is in one.
    pub cluster: Option<u128>,
    /// Drawn with its data directory.
    pub instance: u64,
    /// The number of its present start.
    pub incarnation: u64,
    /// Drawn for this connection: what is proved on it is worth nothing on another.
    pub nonce: [u8; NONCE_BYTES],
    /// What its operator calls it.
    pub name: String,
    /// Where others reach it; empty where it does not know yet.
    pub address: String,
}

/// Why a hello is none, or its sender cannot be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HelloError {
    /// It speaks versions from the first to the second, and none that this node does.
    Version(u16, u16),
    /// It ends before its end, or what is in it makes no sense: which part.
    Malformed(&'static str),
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(oldest, newest) => write!(
                f,
                "it speaks the versions {oldest} to {newest} of the peer protocol, and this node speaks {VERSION}"
            ),
            Self::Malformed(part) => write!(f, "its hello has no {part}"),
        }
    }
}

impl std::error::Error for HelloError {}

impl Hello {
    /// Its bytes.
    ///
    /// # Panics
    /// If the name or the address is longer than [`MAX_NAME_BYTES`], or the cluster is 0. One with control characters is encoded, and
    /// refused by who decodes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(80 + self.name.len() + self.address.len());
        out.put_u16_le(VERSION);
        out.put_u16_le(VERSION);
        out.put_u8(self.purpose as u8);
        assert_ne!(self.cluster, Some(0), "0 is no cluster");
        out.put_u128_le(self.cluster.unwrap_or(0));
        out.put_u64_le(self.instance);
        out.put_u64_le(self.incarnation);
        out.put_slice(&self.nonce);
        for text in [&self.name, &self.address] {
            assert!(text.len() <= MAX_NAME_BYTES, "a name is short");
            out.put_u16_le(text.len() as u16);
            out.put_slice(text.as_bytes());
        }
        out
    }

    /// What they say.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, HelloError> {
        let no = |part| move |_| HelloError::Malformed(part);
        let newest = bytes.try_get_u16_le().map_err(no("version"))?;
        let oldest = bytes.try_get_u16_le().map_err(no("version"))?;
        if !(oldest..=newest).contains(&VERSION) {
            return Err(HelloError::Version(oldest, newest));
        }
        let purpose = match bytes.try_get_u8().map_err(no("purpose"))? {
            1 => Purpose::Control,
            2 => Purpose::Data,
            3 => Purpose::Bulk,
            4 => Purpose::Stream,
            _ => return Err(HelloError::Malformed("purpose that this node knows")),
        };
        let cluster = bytes.try_get_u128_le().map_err(no("cluster"))?;
        Ok(Self {
            purpose,
            cluster: Some(cluster).filter(|&cluster| cluster != 0),
            instance: bytes.try_get_u64_le().map_err(no("instance"))?,
            incarnation: bytes.try_get_u64_le().map_err(no("incarnation"))?,
            nonce: nonce(&mut bytes)?,
            name: text(&mut bytes, "name")?,
            address: text(&mut bytes, "address")?,
        })
    }
}

fn nonce(bytes: &mut &[u8]) -> Result<[u8; NONCE_BYTES], HelloError> {
    let split = bytes.split_first_chunk();
    let (nonce, rest) = split.ok_or(HelloError::Malformed("nonce"))?;
    *bytes = rest;
    Ok(*nonce)
}

fn text(bytes: &mut &[u8], part: &'static str) -> Result<String, HelloError> {
    let malformed = HelloError::Malformed(part);
    let length = usize::from(bytes.try_get_u16_le().map_err(|_| malformed)?);
    if length > MAX_NAME_BYTES {
        return Err(malformed);
    }
    let (text, rest) = bytes.split_at_checked(length).ok_or(malformed)?;
    *bytes = rest;
    let text = std::str::from_utf8(text).map_err(|_| malformed)?;
    // It is shown to people, on terminals too, and is nowhere part of what a node may be called.
    if text.contains(char::is_control) {
        return Err(malformed);
    }
    Ok(text.to_owned())
}

/// Why a connection is closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub why: Why,
    /// The same for a person, in one line.
    pub text: String,
}

/// What a node does about a refusal depends on this.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    /// The two do not understand each other.
    Version,
    /// They are in two clusters.
    Cluster,
    /// There is another node of that name.
    Name,
    /// The other one is the node itself.
    Itself,
    /// It did not prove that it belongs here.
    Stranger,
    /// One that a later version knows.
    Other(u16),
}

impl Why {
    const NUMBERS: [(Self, u16); 5] = [
        (Self::Version, 1),
        (Self::Cluster, 2),
        (Self::Name, 3),
        (Self::Itself, 4),
        (Self::Stranger, 5),
    ];

    fn number(self) -> u16 {
        if let Self::Other(number) = self {
            return number;
        }
        let mut known = Self::NUMBERS.iter();
        let found = known.find(|(why, _)| *why == self);
        found.expect("all others are in the list").1
    }

    fn of(number: u16) -> Self {
        let mut known = Self::NUMBERS.iter();
        let found = known.find(|(_, known)| *known == number);
        found.map_or(Self::Other(number), |(why, _)| *why)
    }
}

impl Refusal {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        [&self.why.number().to_le_bytes(), self.text.as_bytes()].concat()
    }

    /// What they say. What cannot be read of the text is replaced, as it is for a person.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (why, text) = bytes.split_first_chunk()?;
        Some(Self {
            why: Why::of(u16::from_le_bytes(*why)),
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }
}
