//! What nodes say to each other over a connection, as bytes: a line that tells the protocol, who each is, and then frames. Of what
//! is in a frame beside who they are, commands on keys and their replies are in `keys`; the rest is somebody else's business.
//!
//! ```text
//! preface   "HENGE-PEER\n", by who has connected; then each sends its hello, as a frame
//! frame     u32 length of the body | u32 CRC-32C of all behind it | u8 kind | u8 service | u16 0 | u32 id | body
//! ```
//!
//! All numbers are little-endian. The preface, the frame and the hello up to its versions stay as they are for ever, so that two
//! nodes of any two versions can tell each other that they do not understand each other.

mod hello;
pub mod keys;

use bytes::BufMut;
use crc32c::{crc32c, crc32c_append};
pub use hello::{Hello, HelloError, MAX_NAME_BYTES, NONCE_BYTES, Purpose, Refusal, Why};
use std::fmt;
use std::ops::Range;

/// The first line of who has connected. No other protocol on the port begins with it.
pub const PREFACE: &[u8] = b"HENGE-PEER\n";
/// The version of what this node says.
pub const VERSION: u16 = 1;
/// Bytes of a frame before its body.
pub const HEAD_BYTES: usize = 16;
/// The longest body of a hello or a refusal: two names and an address, with room for what later versions add. Who has not said
/// who it is costs no more than that.
pub const MAX_HELLO_BYTES: usize = 4 * 1024;
/// The longest body at all: the longest value that can be configured, with its key and what surrounds them.
pub const MAX_BODY_BYTES: usize = (1 << 31) - 1;

/// What a frame is for its connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Who sends it: the first frame of each side.
    Hello = 1,
    /// Why the connection is closed.
    Refusal = 2,
    /// A question, with an id that no other open question of its side has.
    Ask = 3,
    /// The answer to the question of that id.
    Answer = 4,
    /// What wants no answer.
    Tell = 5,
    /// That its sender has the secret of the cluster: the frame after its hello, where there is one.
    Proof = 6,
}

impl Kind {
    fn of(number: u8) -> Option<Self> {
        [
            Self::Hello,
            Self::Refusal,
            Self::Ask,
            Self::Answer,
            Self::Tell,
            Self::Proof,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == number)
    }
}

/// What stands before a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// What it is for the connection.
    pub kind: Kind,
    /// Whom it is for in the node. What that is, is not for this module.
    pub service: u8,
    /// Which question it is, or answers; 0 for all others.
    pub id: u32,
}

/// A frame, or how much of it there is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// It is whole.
    Frame {
        /// What stands before the body.
        head: Head,
        /// Where the body is in the input; the next frame begins at its end.
        body: Range<usize>,
    },
    /// It is not whole; it has at least so many bytes.
    NotYet(usize),
}

/// Why a frame is none. Whoever sent it is spoken to no more: what follows it cannot be told from its rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// It says that its body has so many bytes, and so many are taken.
    TooLong(u32, usize),
    /// What came is not what was sent.
    Checksum,
    /// Its kind is none that there is.
    Kind(u8),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(bytes, most) => {
                write!(f, "a frame of {bytes} bytes, where {most} are taken")
            }
            Self::Checksum => f.write_str("a frame that is damaged, or is none"),
            Self::Kind(kind) => write!(f, "a frame of the unknown kind {kind}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Appends a frame; its body comes in pieces, as it may lie in several places.
///
/// # Panics
/// If the body is longer than [`MAX_BODY_BYTES`].
pub fn encode(out: &mut Vec<u8>, head: Head, body: &[&[u8]]) {
    let bytes: usize = body.iter().map(|piece| piece.len()).sum();
    assert!(bytes <= MAX_BODY_BYTES, "a body is at most 2 GiB");
    out.reserve(HEAD_BYTES + bytes);
    let begin = out.len();
    out.put_u32_le(bytes as u32);
    out.put_u32_le(0);
    out.put_u8(head.kind as u8);
    out.put_u8(head.service);
    out.put_u16_le(0);
    out.put_u32_le(head.id);
    for piece in body {
        out.extend_from_slice(piece);
    }
    let sum = checksum(&out[begin..begin + 4], &out[begin + 8..]);
    out[begin + 4..begin + 8].copy_from_slice(&sum.to_le_bytes());
}

/// Takes the first frame of what came, if its body has at most so many bytes.
pub fn decode(input: &[u8], most_bytes: usize) -> Result<Decoded, FrameError> {
    let Some((head, rest)) = input.split_first_chunk::<HEAD_BYTES>() else {
        return Ok(Decoded::NotYet(HEAD_BYTES));
    };
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = number(0);
    let bytes = length as usize;
    if bytes > most_bytes.min(MAX_BODY_BYTES) {
        return Err(FrameError::TooLong(length, most_bytes));
    }
    let Some(body) = rest.get(..bytes) else {
        return Ok(Decoded::NotYet(HEAD_BYTES + bytes));
    };
    let sum = crc32c_append(checksum(&head[..4], &head[8..]), body);
    if sum != number(4) {
        return Err(FrameError::Checksum);
    }
    let kind = Kind::of(head[8]).ok_or(FrameError::Kind(head[8]))?;
    Ok(Decoded::Frame {
        head: Head {
            kind,
            service: head[9],
            id: number(12),
        },
        body: HEAD_BYTES..HEAD_BYTES + bytes,
    })
}

/// Of the length too: a frame whose length is damaged must not be waited for, or taken for another.
fn checksum(length: &[u8], rest: &[u8]) -> u32 {
    crc32c_append(crc32c(length), rest)
}

#[cfg(test)]
mod tests;
