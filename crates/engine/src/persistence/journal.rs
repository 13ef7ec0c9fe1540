//! What was done and is not in the log yet: frames in the making, small things copied and large values by reference, so that
//! whoever applies a mutation under a lock does no more than that. Checksums are reckoned by whoever writes it out.

use super::cipher::SEALED_BYTES;
use super::frame::{FRAME_BYTES, HEAD_BYTES, Seed, TRAILER, TooLong, body_len};
use bytes::Bytes;
use henge_wire::Data;
use std::io::IoSlice;

/// A shared value from here on is kept by reference, and not copied: a piece of its own costs some 50 bytes and a slice of
/// the system call.
pub(super) const PIECE_BYTES: usize = 4 * 1024;

/// Bytes of which some are shared.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    own: Vec<u8>,
    /// Each lies before this place of `own`, in order.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
}

/// A place in [`Pieces`], to come back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    own: usize,
    shared: usize,
    shared_bytes: usize,
}

impl Pieces {
    /// These bytes, shared if it is worth it: what is small is a copy, so that it does not keep all of a message that it came in.
    pub(super) fn of(bytes: Bytes) -> Self {
        if bytes.len() < PIECE_BYTES {
            return Self {
                own: bytes.to_vec(),
                ..Self::default()
            };
        }
        Self {
            own: Vec::new(),
            shared_bytes: bytes.len(),
            shared: vec![(0, bytes)],
        }
    }

    /// None, with room for so many.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self {
            own: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// The bytes of all.
    pub fn len(&self) -> usize {
        self.own.len() + self.shared_bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.shared.is_empty()
    }

    /// Forgets all, and keeps no more memory than this.
    pub fn clear(&mut self, kept_bytes: usize) {
        self.own.clear();
        self.own.shrink_to(kept_bytes);
        self.shared.clear();
        self.shared.shrink_to(kept_bytes / 64);
        self.shared_bytes = 0;
    }

    /// Adds a copy of these.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.own.extend_from_slice(bytes);
    }

    /// A length and the data, which is shared if it is worth it.
    #[inline]
    pub(super) fn push_data(&mut self, data: &Data<'_>) -> Result<(), TooLong> {
        let len = u32::try_from(data.len()).map_err(|_| TooLong)?;
        self.push(&len.to_le_bytes());
        match data {
            Data::Shared(bytes) if bytes.len() >= PIECE_BYTES => {
                self.shared.push((self.own.len(), bytes.clone()));
                self.shared_bytes += bytes.len();
            }
            data => self.push(data),
        }
        Ok(())
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            own: self.own.len(),
            shared: self.shared.len(),
            shared_bytes: self.shared_bytes,
        }
    }

    fn rewind(&mut self, mark: Mark) {
        self.own.truncate(mark.own);
        self.shared.truncate(mark.shared);
        self.shared_bytes = mark.shared_bytes;
    }

    /// Takes what was added since that place.
    pub(super) fn split_off(&mut self, mark: Mark) -> Self {
        let mut shared = self.shared.split_off(mark.shared);
        for (place, _) in &mut shared {
            *place -= mark.own;
        }
        let shared_bytes = self.shared_bytes - mark.shared_bytes;
        self.shared_bytes = mark.shared_bytes;
        Self {
            own: self.own.split_off(mark.own),
            shared,
            shared_bytes,
        }
    }

    /// The pieces in order; none is empty.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = 0;
        let ends = self.shared.iter().map(|(place, _)| *place);
        let own = ends.chain([self.own.len()]).map(move |end| {
            let piece = &self.own[at..end];
            at = end;
            piece
        });
        let shared = self.shared.iter().map(|(_, piece)| &piece[..]);
        own.zip(shared.map(Some).chain([None]))
            .flat_map(|(own, shared)| [Some(own), shared])
            .flatten()
            .filter(|piece| !piece.is_empty())
    }

    /// All of it, if none is shared.
    pub(super) fn as_one(&self) -> Option<&[u8]> {
        self.shared.is_empty().then_some(&self.own[..])
    }

    /// All of it, if it is one piece, whether shared or not.
    pub(super) fn only(&self) -> Option<&[u8]> {
        match &self.shared[..] {
            [] => Some(&self.own),
            [(_, piece)] if self.own.is_empty() => Some(piece),
            _ => None,
        }
    }

    /// Adds what another has, which keeps it.
    pub(super) fn append(&mut self, other: &Self) {
        let base = self.own.len();
        self.own.extend_from_slice(&other.own);
        let shared = other.shared.iter();
        self.shared
            .extend(shared.map(|(place, piece)| (base + place, piece.clone())));
        self.shared_bytes += other.shared_bytes;
    }

    /// A copy of the last bytes, so many, without as many at their begin and their end. What is shared is none of those.
    fn last(&self, len: usize, begin: usize, end: usize) -> Self {
        let mut own_len = len;
        let mut first = self.shared.len();
        while let Some((place, piece)) = first.checked_sub(1).map(|n| &self.shared[n])
            && let Some(left) = own_len.checked_sub(piece.len())
            && place + left >= self.own.len()
        {
            own_len = left;
            first -= 1;
        }
        let start = self.own.len() - own_len + begin;
        let shared = self.shared[first..].iter();
        let shared = shared.map(|(place, piece)| (place - start, piece.clone()));
        Self {
            own: self.own[start..self.own.len() - end].to_vec(),
            shared: shared.collect(),
            shared_bytes: len - own_len,
        }
    }

    /// Takes over what another has.
    pub(super) fn take(&mut self, other: &mut Self) {
        let base = self.own.len();
        self.own.extend_from_slice(&other.own);
        let shared = other.shared.drain(..);
        self.shared
            .extend(shared.map(|(place, piece)| (base + place, piece)));
        self.shared_bytes += other.shared_bytes;
        other.own.clear();
        other.shared_bytes = 0;
    }

    /// Adds what `write` adds, or nothing if it fails.
    pub(super) fn all_or_nothing(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), TooLong>,
    ) -> Result<(), TooLong> {
        let mark = self.mark();
        let written = write(self);
        if written.is_err() {
            self.rewind(mark);
        }
        written
    }

    /// Adds the pieces to a list for the system.
    pub fn slices<'a>(&'a self, out: &mut Vec<IoSlice<'a>>) {
        out.extend(self.iter().map(IoSlice::new));
    }
}

/// See the head of the file.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    frames: Pieces,
    records: u64,
}

impl Journal {
    /// Its bytes: whole frames, whose checksums are right once they are [sealed](Self::seal).
    pub fn frames(&self) -> &Pieces {
        &self.frames
    }

    /// How many records it has.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Forgets all, and keeps no more memory than this.
    pub fn clear(&mut self, kept_bytes: usize) {
        self.frames.clear(kept_bytes);
        self.records = 0;
    }

    /// Adds a frame whose body `write` makes. If that fails nothing was added.
    #[inline]
    pub(super) fn frame(
        &mut self,
        write: impl FnOnce(&mut Pieces) -> Result<(), TooLong>,
    ) -> Result<(), TooLong> {
        let mark = self.frames.mark();
        let before = self.frames.len();
        self.frames.push(&[0; HEAD_BYTES]);
        let written = write(&mut self.frames)
            .and_then(|()| plain_len(self.frames.len() - before - HEAD_BYTES));
        match written {
            Ok(len) => {
                self.frames.own[mark.own..mark.own + 4].copy_from_slice(&len.to_le_bytes());
                self.frames.own.push(TRAILER);
                self.records += 1;
                Ok(())
            }
            Err(too_long) => {
                self.frames.rewind(mark);
                Err(too_long)
            }
        }
    }

    /// Adds a frame of these pieces, all of them copied; they are few and small.
    #[inline]
    pub(super) fn plain_frame(&mut self, pieces: [&[u8]; 4]) -> Result<(), TooLong> {
        let len = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let own = &mut self.frames.own;
        own.reserve(len + FRAME_BYTES);
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&plain_len(len)?.to_le_bytes());
        own.extend_from_slice(&head);
        for piece in pieces {
            own.extend_from_slice(piece);
        }
        own.push(TRAILER);
        self.records += 1;
        Ok(())
    }

    /// Adds a frame around a body that was read elsewhere, as it is.
    pub fn push_body(&mut self, body: &[u8]) -> Result<(), TooLong> {
        self.frame(|out| {
            out.push(body);
            Ok(())
        })
    }

    /// A copy of what is in the last frame, which is so long, behind so many bytes of it.
    pub(super) fn last_body(&self, len: usize, behind: usize) -> Pieces {
        self.frames
            .last(len, HEAD_BYTES + behind, FRAME_BYTES - HEAD_BYTES)
    }

    /// What is in each frame, in order.
    pub(super) fn each_frame(&self) -> Frames<'_, impl Iterator<Item = &[u8]>> {
        Frames {
            pieces: self.frames.iter(),
            piece: &[],
        }
    }

    /// Reckons the checksum of every frame, for a file of this seed.
    pub fn seal(&mut self, seed: Seed) {
        let Pieces { own, shared, .. } = &mut self.frames;
        let mut shared = shared.iter().peekable();
        let mut at = 0;
        while let Some(head) = own[at..].first_chunk::<4>() {
            let len = u32::from_le_bytes(*head);
            let mut place = at + HEAD_BYTES;
            let mut left = len as usize;
            // Nearly all frames are of one piece.
            let crc = if shared.peek().is_none_or(|(next, _)| *next > place + left) {
                place += left;
                seed.checksum(len, [&own[place - left..place]])
            } else {
                let mut pieces = Vec::new();
                while left > 0 {
                    if let Some((_, piece)) = shared.next_if(|(next, _)| *next == place) {
                        pieces.push(&piece[..]);
                        left -= piece.len();
                        continue;
                    }
                    let end = shared
                        .peek()
                        .map_or(place + left, |(next, _)| (*next).min(place + left));
                    pieces.push(&own[place..end]);
                    left -= end - place;
                    place = end;
                }
                seed.checksum(len, pieces)
            };
            own[at + 4..at + HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
            at = place + (FRAME_BYTES - HEAD_BYTES);
        }
    }
}

/// The length of a body that is not encrypted yet, as a frame says it: it has to fit with what that adds.
#[inline]
fn plain_len(len: usize) -> Result<u32, TooLong> {
    body_len(len + SEALED_BYTES).map(|_| len as u32)
}

/// The frames of a journal, to be copied out one after the other.
pub(super) struct Frames<'a, I: Iterator<Item = &'a [u8]>> {
    pieces: I,
    /// What is left of the piece that was begun.
    piece: &'a [u8],
}

impl<'a, I: Iterator<Item = &'a [u8]>> Frames<'a, I> {
    /// How long the body of the next one is; none if that was all. Its body has to be [copied](Self::copy_body) then.
    pub(super) fn next_len(&mut self) -> Option<usize> {
        let (mut head, mut read) = ([0; HEAD_BYTES], 0);
        self.take(HEAD_BYTES, |bytes| {
            head[read..read + bytes.len()].copy_from_slice(bytes);
            read += bytes.len();
        });
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        (read == HEAD_BYTES).then_some(len as usize)
    }

    /// Appends the body of that length, and goes behind it.
    pub(super) fn copy_body(&mut self, len: usize, out: &mut Vec<u8>) {
        self.take(len, |bytes| out.extend_from_slice(bytes));
        self.take(FRAME_BYTES - HEAD_BYTES, |_| {});
    }

    fn take(&mut self, mut len: usize, mut each: impl FnMut(&'a [u8])) {
        while len > 0 {
            if self.piece.is_empty() {
                let Some(piece) = self.pieces.next() else {
                    return;
                };
                self.piece = piece;
            }
            let (taken, rest) = self.piece.split_at(len.min(self.piece.len()));
            each(taken);
            len -= taken.len();
            self.piece = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Content, FORMAT, Frame, Header, frame};
    use super::*;

    #[test]
    fn frames_of_pieces_are_whole() {
        let header = Header {
            content: Content::Log,
            format: FORMAT,
            number: 1,
            cipher: 0,
            key_id: 0,
            salt: [7; 16],
        };
        let big = Bytes::from(vec![b'b'; PIECE_BYTES]);
        let bodies: [&[Data<'_>]; 5] = [
            &[Data::Slice(b"small")],
            &[Data::Shared(big.clone())],
            &[
                Data::Slice(b""),
                Data::Shared(big.clone()),
                Data::Slice(b"x"),
            ],
            &[Data::Shared(big.clone()), Data::Shared(big.clone())],
            &[Data::Shared(Bytes::from_static(b"not worth it"))],
        ];
        let mut journal = Journal::default();
        for body in bodies {
            journal
                .frame(|out| body.iter().try_for_each(|data| out.push_data(data)))
                .expect("they are short");
        }
        assert_eq!(journal.records(), 5);
        journal.seal(header.seed());
        let bytes: Vec<u8> = journal.frames().iter().flatten().copied().collect();
        assert_eq!(bytes.len(), journal.frames().len());
        let mut input = &bytes[..];
        for body in bodies {
            let Frame::Whole { body: found, len } = frame(header.seed(), input) else {
                panic!("{:?}", frame(header.seed(), input));
            };
            let expected: Vec<u8> = body
                .iter()
                .flat_map(|data| [&(data.len() as u32).to_le_bytes(), &data[..]].concat())
                .collect();
            assert_eq!(found, expected);
            input = &input[len..];
        }
        assert_eq!(input, b"");
    }

    #[test]
    fn what_is_too_long_leaves_nothing() {
        let mut journal = Journal::default();
        let refused = journal.frame(|out| {
            out.push(b"begun");
            out.push_data(&Data::Shared(Bytes::from(vec![0; PIECE_BYTES])))?;
            Err(TooLong)
        });
        assert_eq!(refused, Err(TooLong));
        assert!(journal.is_empty());
        assert_eq!(journal.frames().len(), 0);
    }
}
