//! Encryption of what is in files, as far as the engine goes: which file takes which key is asked of a [`Keyring`], which the
//! node provides, and so is the work itself. Here is how a frame holds an encrypted body, and that no counter is used twice
//! under a key. It knows no algorithm and no key.
//!
//! ```text
//! body of a frame of an encrypted file    u64 counter | what the plain body would be, encrypted | 16 tag
//! ```
//!
//! The checksum of the frame is of that, so that whoever tells a torn end from damage needs no key. The counter is not the
//! place in the file: after a write that failed other bytes come to the same place.

use super::frame::{self, Content, Damage, Header, Seed, TooLong};
use super::journal::{Frames, Journal};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What shows that nobody changed what was encrypted.
pub const TAG_BYTES: usize = 16;
const COUNTER_BYTES: usize = 8;
/// What an encrypted body has beside what is in it.
pub const SEALED_BYTES: usize = COUNTER_BYTES + TAG_BYTES;

/// Counters from here on are of frames that a repair has put into a file which others wrote; the 48 bits behind these go on
/// from a random number, so that no two repairs have one in common.
const MENDING: u64 = 0xFFFF << 48;
/// Counters of whoever writes a file are below this: years of writing, those that failed included.
const WRITING: u64 = 1 << 47;

/// Encrypts and decrypts the bodies of one file.
pub trait FileCipher: Send + Sync {
    /// Encrypts these bytes in place, and gives their tag. No two calls for a file may have the same counter.
    fn seal(&self, counter: u64, body: &mut [u8]) -> [u8; TAG_BYTES];

    /// Decrypts these bytes in place; the tag is at their end. False if the tag is not theirs, and they are of no use then.
    fn open(&self, counter: u64, sealed: &mut [u8]) -> bool;
}

/// The keys that there are.
pub trait Keyring {
    /// What new files are encrypted with: the number of the cipher, and of the key. None for not at all.
    fn current(&self) -> Option<(u16, u32)>;

    /// Every cipher with every key, for a file whose header does not say it any more.
    fn all(&self) -> Vec<(u16, u32)>;

    /// What the bodies of a file are encrypted with that has this header. Only asked of one that says that it is.
    fn cipher(&self, header: &Header) -> Result<Arc<dyn FileCipher>, KeyError>;
}

/// There are no keys: nothing is encrypted, and nothing that is can be read.
#[derive(Clone, Copy, Debug)]
pub struct NoKeys;

impl Keyring for NoKeys {
    fn current(&self) -> Option<(u16, u32)> {
        None
    }

    fn all(&self) -> Vec<(u16, u32)> {
        Vec::new()
    }

    fn cipher(&self, header: &Header) -> Result<Arc<dyn FileCipher>, KeyError> {
        Err(KeyError::Missing {
            key_id: header.key_id,
            why: "no keys are given".to_owned(),
        })
    }
}

/// Why what is in a file cannot be read, though the file may be whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// Its cipher has a number that this version does not know.
    Cipher(u16),
    /// Its key is not there.
    Missing {
        /// The number of the key.
        key_id: u32,
        /// What is there instead, and what to do about it.
        why: String,
    },
    /// The key of that number is there, and is another.
    Wrong(u32),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cipher(found) => write!(
                f,
                "encrypted with cipher {found}, which this version does not know"
            ),
            Self::Missing { key_id, why } => write!(f, "encrypted with key {key_id}, and {why}"),
            Self::Wrong(key_id) => {
                write!(f, "key {key_id} is not the one that it was encrypted with")
            }
        }
    }
}

impl std::error::Error for KeyError {}

/// What reads the bodies of a file; none for a plain one.
pub fn opener(
    keys: &dyn Keyring,
    header: &Header,
) -> Result<Option<Arc<dyn FileCipher>>, KeyError> {
    let is_plain = header.cipher == 0;
    (!is_plain).then(|| keys.cipher(header)).transpose()
}

/// Decrypts the body of a frame in place, and says where in it what it holds is.
pub fn open(cipher: &dyn FileCipher, body: &mut [u8]) -> Result<Range<usize>, Damage> {
    let Some((counter, sealed)) = body.split_first_chunk_mut::<COUNTER_BYTES>() else {
        return Err(Damage::Sealed);
    };
    // Of nothing there is no body.
    let is_right = sealed.len() > TAG_BYTES && cipher.open(u64::from_le_bytes(*counter), sealed);
    if is_right {
        Ok(COUNTER_BYTES..body.len() - TAG_BYTES)
    } else {
        Err(Damage::Sealed)
    }
}

/// From the begin of a frame to what is in it.
pub(super) fn lead_bytes(is_encrypted: bool) -> usize {
    frame::HEAD_BYTES + if is_encrypted { COUNTER_BYTES } else { 0 }
}

/// Whether an encrypted body of so many bytes may begin like this: a cheap look by who searches for frames. What is
/// encrypted looks like anything; the counter does not.
pub(super) fn may_begin(len: usize, begin: &[u8]) -> bool {
    begin.first_chunk().is_some_and(|counter| {
        let counter = u64::from_le_bytes(*counter);
        len > SEALED_BYTES && !(WRITING..MENDING).contains(&counter)
    })
}

/// The header of a new file, and what makes its frames.
pub fn begin(
    keys: &dyn Keyring,
    content: Content,
    format: u16,
    number: u64,
    salt: [u8; 16],
) -> Result<(Header, Sealer), KeyError> {
    let (cipher, key_id) = keys.current().unwrap_or_default();
    let header = Header {
        content,
        format,
        number,
        cipher,
        key_id,
        salt,
    };
    let sealer = Sealer::new(keys, &header, 0)?;
    Ok((header, sealer))
}

/// Makes the frames of a file, encrypted if its header says so.
pub struct Sealer {
    seed: Seed,
    cipher: Option<Arc<dyn FileCipher>>,
    /// Of the next frame.
    counter: u64,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("is_encrypted", &self.is_encrypted())
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    fn new(keys: &dyn Keyring, header: &Header, counter: u64) -> Result<Self, KeyError> {
        Ok(Self {
            seed: header.seed(),
            cipher: opener(keys, header)?,
            counter,
        })
    }

    /// For frames that are put into a file which somebody else wrote. Each repair gives another random number.
    pub fn mending(keys: &dyn Keyring, header: &Header, random: u64) -> Result<Self, KeyError> {
        Self::new(keys, header, MENDING | random)
    }

    /// Whether its file is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.cipher.is_some()
    }

    /// The bytes of a frame beside what is in it.
    pub fn frame_bytes(&self) -> usize {
        let more = if self.is_encrypted() { SEALED_BYTES } else { 0 };
        frame::FRAME_BYTES + more
    }

    /// What the checksums of its frames begin with.
    pub(super) fn seed(&self) -> Seed {
        self.seed
    }

    /// Appends a frame of this body.
    pub fn append(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
        self.append_pieces(body.len(), out, |out| out.extend_from_slice(body))
    }

    /// Appends all frames of a journal.
    pub fn append_all(&mut self, journal: &Journal, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let mut frames = journal.each_frame();
        while self.append_next(&mut frames, out)? {}
        Ok(())
    }

    /// Appends the next frame of a journal; false if there is none.
    pub(super) fn append_next<'a>(
        &mut self,
        frames: &mut Frames<'a, impl Iterator<Item = &'a [u8]>>,
        out: &mut Vec<u8>,
    ) -> Result<bool, TooLong> {
        let Some(len) = frames.next_len() else {
            return Ok(false);
        };
        self.append_pieces(len, out, |out| frames.copy_body(len, out))?;
        Ok(true)
    }

    fn append_pieces(
        &mut self,
        len: usize,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), TooLong> {
        let more = self.frame_bytes() - frame::FRAME_BYTES;
        let len = frame::body_len(len + more)?;
        let start = out.len();
        out.reserve(frame::FRAME_BYTES + len as usize);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let body = out.len();
        if let Some(cipher) = &self.cipher {
            let counter = self.counter;
            // Before anything is encrypted: whatever becomes of the frame, no other has it.
            self.counter = counter.wrapping_add(1) | (counter & MENDING);
            out.extend_from_slice(&counter.to_le_bytes());
            write(out);
            let tag = cipher.seal(counter, &mut out[body + COUNTER_BYTES..]);
            out.extend_from_slice(&tag);
        } else {
            write(out);
        }
        assert_eq!(
            out.len() - body,
            len as usize,
            "a body is as long as it says"
        );
        let crc = self.seed.checksum(len, [&out[body..]]);
        out[start + 4..start + frame::HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        out.push(frame::TRAILER);
        Ok(())
    }
}
