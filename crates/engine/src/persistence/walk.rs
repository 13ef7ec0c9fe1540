//! Goes through the frames of one file, whatever is in them, and finds the next whole one behind what cannot be read. It
//! keeps a window of the file and no more, changes nothing, and does not decide what damage means: that is for recovery,
//! and for who repairs.

use super::cipher::{self, FileCipher, KeyError, Keyring};
use super::frame::{self, Content, FRAME_BYTES, Frame, HEAD_BYTES, Header};
use super::storage::{StorageFile, read_some};
use super::{snapshot, wal};
use std::io;
use std::sync::Arc;

/// How much is read at once; more where a frame is longer.
const WINDOW_BYTES: usize = 1024 * 1024;
/// The shortest frame: no body is empty.
const LEAST_FRAME_BYTES: u64 = FRAME_BYTES as u64 + 1;
/// What a look at a place that may be a frame needs of it.
const PROBE_BYTES: usize = HEAD_BYTES + wal::BEGIN_BYTES;

/// The work of one search. Whoever stores values may have them look like the begins of frames, each as long as the file: to
/// reckon the checksum of each would be the square of its length. So a search may reckon those of as many bytes as are left of
/// the file, which is enough for any frame that is the next one, and of so many more for each byte that it has come on. That
/// is seconds for a segment of a gigabyte, and bytes that nobody chose are content with a tenth: one place of 4 million looks
/// like a record, down to its last byte. Where all is spent a frame may be passed over, up to the next one that is short or
/// for which there is enough again: that leaves out more than has to be, and makes nothing wrong that is found.
const CHECKED_PER_BYTE: u64 = 32;
/// Frames that are looked at whatever was spent before.
const SHORT_BYTES: u64 = 512;
/// What it counts for to read a byte elsewhere in the file: as much as is checked in that time.
const PEEK_BYTES: u64 = 4096;

/// See the head of the file.
pub struct Walk<F> {
    file: F,
    header: Header,
    /// None of a plain file.
    cipher: Result<Option<Arc<dyn FileCipher>>, KeyError>,
    len: u64,
    window: Vec<u8>,
    /// Where in the file the window begins.
    start: u64,
    /// What was decrypted last.
    plain: Vec<u8>,
    /// Bytes that the present search has reckoned checksums of.
    checked: u64,
}

impl<F: StorageFile> Walk<F> {
    /// Goes through a file whose header is known. If it is encrypted, and its key is not among these, only its frames can be
    /// told apart; what is in them is shown as it is.
    pub fn new(file: F, header: Header, keys: &dyn Keyring) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self {
            file,
            header,
            cipher: cipher::opener(keys, &header),
            len,
            window: Vec::new(),
            start: 0,
            plain: Vec::new(),
            checked: 0,
        })
    }

    /// Why what is in the file cannot be read, if it cannot for want of a key.
    pub fn key_error(&self) -> Option<&KeyError> {
        self.cipher.as_ref().err()
    }

    /// What the head of the file says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The length of the file, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is at this place of the file; what is encrypted there is decrypted.
    pub fn look(&mut self, at: u64) -> io::Result<Frame<'_>> {
        let cipher = self.cipher.clone();
        let Ok(Some(cipher)) = cipher else {
            return self.look_at_raw(at);
        };
        let mut plain = std::mem::take(&mut self.plain);
        let len = match self.look_at_raw(at)? {
            Frame::Whole { body, len } => {
                plain.clear();
                plain.extend_from_slice(body);
                len
            }
            // What has no body holds on to nothing.
            Frame::End => return Ok(Frame::End),
            Frame::Cut => return Ok(Frame::Cut),
            Frame::Damaged(damage) => return Ok(Frame::Damaged(damage)),
        };
        let opened = cipher::open(&*cipher, &mut plain);
        self.plain = plain;
        Ok(match opened {
            Ok(body) => Frame::Whole {
                body: &self.plain[body],
                len,
            },
            Err(damage) => Frame::Damaged(damage),
        })
    }

    fn look_at_raw(&mut self, at: u64) -> io::Result<Frame<'_>> {
        let seed = self.header.seed();
        let head = self.view(at, HEAD_BYTES)?;
        let Some(len) = head.first_chunk::<4>().filter(|_| head.len() >= HEAD_BYTES) else {
            return Ok(frame::frame(seed, self.view(at, HEAD_BYTES)?));
        };
        let want = u64::from(u32::from_le_bytes(*len)) + FRAME_BYTES as u64;
        // A frame that goes beyond the file is cut, and need not be read to know that.
        let want = if want > self.len - at {
            HEAD_BYTES
        } else {
            usize::try_from(want).unwrap_or(HEAD_BYTES)
        };
        let view = self.view(at, want)?;
        Ok(frame::frame(seed, &view[..want.min(view.len())]))
    }

    /// Whether there is a whole frame at this place, with something in it that can be read: that a checksum is right is not
    /// enough for who searches.
    pub fn is_frame(&mut self, at: u64) -> io::Result<bool> {
        let content = self.header.content;
        let is_sealed = self.cipher.is_err();
        Ok(match self.look(at)? {
            Frame::Whole { .. } if is_sealed => true,
            Frame::Whole { body, .. } => match content {
                Content::Log => wal::decode(body, &mut Vec::new()).is_ok(),
                Content::Snapshot => snapshot::decode(body).is_ok(),
            },
            _ => false,
        })
    }

    /// The next place behind `damaged` where a whole frame begins; none if there is none. For the bound of the search see
    /// `CHECKED_PER_BYTE`.
    pub fn next_frame(&mut self, damaged: u64) -> io::Result<Option<u64>> {
        // Where the length is right and what it is of is not, the next one is where it says.
        if let Some(len) = self.view(damaged, HEAD_BYTES)?.first_chunk::<4>() {
            let end = damaged + u64::from(u32::from_le_bytes(*len)) + FRAME_BYTES as u64;
            if end + LEAST_FRAME_BYTES <= self.len && self.is_frame(end)? {
                return Ok(Some(end));
            }
        }
        self.checked = 0;
        let left = self.len.saturating_sub(damaged);
        let mut at = damaged + 1;
        while at + LEAST_FRAME_BYTES <= self.len {
            match self.probe(at)? {
                Ok(candidate) => {
                    let may_check = left + CHECKED_PER_BYTE * (candidate - damaged);
                    if self.is_worth_it(candidate, may_check)? && self.is_frame(candidate)? {
                        return Ok(Some(candidate));
                    }
                    at = candidate + 1;
                }
                Err(seen) => at = seen,
            }
        }
        Ok(None)
    }

    /// Whether what looks like a frame at its begin does so at its end as well, and may be looked at as a whole, by how much a
    /// search may check until it is here.
    fn is_worth_it(&mut self, at: u64, may_check: u64) -> io::Result<bool> {
        let Some(len) = self.view(at, HEAD_BYTES)?.first_chunk::<4>() else {
            return Ok(false);
        };
        let bytes = u64::from(u32::from_le_bytes(*len)) + FRAME_BYTES as u64;
        if bytes > SHORT_BYTES && self.checked + bytes > may_check {
            return Ok(false);
        }
        let last = at + bytes - 1;
        let in_window = last
            .checked_sub(self.start)
            .and_then(|place| usize::try_from(place).ok());
        let trailer = if let Some(&byte) = in_window.and_then(|place| self.window.get(place)) {
            byte
        } else {
            // The window stays where it is, as most of these are none.
            let mut byte = [0];
            read_some(&self.file, &mut byte, last)?;
            self.checked += PEEK_BYTES;
            byte[0]
        };
        if trailer != frame::TRAILER {
            return Ok(false);
        }
        self.checked += bytes;
        Ok(true)
    }

    /// The first place from this on that looks like a frame; or how far there is none.
    fn probe(&mut self, at: u64) -> io::Result<Result<u64, u64>> {
        let Header {
            content, cipher, ..
        } = self.header;
        let len = self.len;
        let view = self.view(at, PROBE_BYTES)?;
        let is_rest = at + view.len() as u64 >= len;
        let places = if is_rest {
            view.len().saturating_sub(HEAD_BYTES)
        } else {
            view.len().saturating_sub(PROBE_BYTES)
        };
        for place in 0..=places {
            let Some((head, begin)) = view[place..].split_first_chunk::<HEAD_BYTES>() else {
                break;
            };
            let body = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let candidate = at + place as u64;
            if body == 0 || candidate + FRAME_BYTES as u64 + u64::from(body) > len {
                continue;
            }
            let body = body as usize;
            let begin = &begin[..body.min(begin.len())];
            let is_candidate = if cipher == 0 {
                may_begin(content, body, begin)
            } else {
                cipher::may_begin(body, begin)
            };
            if is_candidate {
                return Ok(Ok(candidate));
            }
        }
        Ok(Err(at + places as u64 + 1))
    }

    /// The place behind the last byte from `at` on that is not zero; `at` if all are.
    pub fn data_end(&mut self, at: u64) -> io::Result<u64> {
        let (mut end, mut place) = (at, at);
        while place < self.len {
            let view = self.view(place, 1)?;
            if view.is_empty() {
                break;
            }
            if let Some(last) = view.iter().rposition(|&byte| byte != 0) {
                end = place + last as u64 + 1;
            }
            place += view.len() as u64;
        }
        Ok(end)
    }

    /// What is in the file from a place on: so many bytes or more, unless it ends before that.
    fn view(&mut self, at: u64, want: usize) -> io::Result<&[u8]> {
        let end = self.start + self.window.len() as u64;
        let wanted_end = at.saturating_add(want as u64).min(self.len);
        if at < self.start || wanted_end > end || at > end {
            let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
            let mut window = std::mem::take(&mut self.window);
            window.clear();
            window.resize(want.max(WINDOW_BYTES).min(left), 0);
            let read = read_some(&self.file, &mut window, at)?;
            window.truncate(read);
            (self.window, self.start) = (window, at);
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        Ok(self.window.get(from..).unwrap_or_default())
    }
}

fn may_begin(content: Content, len: usize, begin: &[u8]) -> bool {
    match content {
        Content::Log => wal::may_begin(len, begin),
        Content::Snapshot => snapshot::may_begin(len, begin),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cipher::{NoKeys, Sealer};
    use super::super::frame::HEADER_BYTES;
    use super::super::tests::keys::Keys;
    use super::super::wal::gap_body;
    use super::*;
    use std::cell::Cell;
    use std::io::IoSlice;
    use std::rc::Rc;

    /// A file in memory that gives a few bytes at a time, and counts them.
    #[derive(Clone)]
    struct Slow(Rc<Vec<u8>>, Rc<Cell<u64>>);

    impl Slow {
        fn new(bytes: &[u8]) -> Self {
            Self(Rc::new(bytes.to_vec()), Rc::default())
        }
    }

    impl StorageFile for Slow {
        fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let left = self.0.get(offset as usize..).unwrap_or_default();
            let len = buffer.len().min(left.len()).min(1_000);
            buffer[..len].copy_from_slice(&left[..len]);
            self.1.set(self.1.get() + len as u64);
            Ok(len)
        }

        fn len(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    const HEADER: Header = Header {
        content: Content::Log,
        format: frame::FORMAT,
        number: 1,
        cipher: 0,
        key_id: 0,
        salt: [9; 16],
    };

    /// The same for an encrypted one.
    const ENCRYPTED: Header = Header {
        cipher: 7,
        key_id: 1,
        ..HEADER
    };

    /// A segment of gaps with bodies of these lengths, and where each begins and the last one ends.
    fn segment(header: Header, lens: &[usize]) -> (Vec<u8>, Vec<u64>) {
        let mut bytes = header.encode().to_vec();
        let mut places = vec![bytes.len() as u64];
        let mut sealer = Sealer::mending(&Keys::FIRST, &header, 5).expect("it has the key");
        for (number, &len) in lens.iter().enumerate() {
            let body = gap_body(number as u64, len);
            sealer.append(&body, &mut bytes).expect("it is short");
            places.push(bytes.len() as u64);
        }
        (bytes, places)
    }

    fn walk(bytes: &[u8], header: Header) -> Walk<Slow> {
        Walk::new(Slow::new(bytes), header, &Keys::FIRST).expect("it is in memory")
    }

    #[test]
    fn frames_longer_than_the_window_are_seen_whole() {
        for header in [HEADER, ENCRYPTED] {
            let lens = [9, 2 * WINDOW_BYTES, 9, WINDOW_BYTES - 20, 10];
            let (mut bytes, places) = segment(header, &lens);
            let end = bytes.len() as u64;
            bytes.resize(bytes.len() + WINDOW_BYTES, 0);
            let mut walk = walk(&bytes, header);
            for (place, len) in places.iter().zip(lens) {
                match walk.look(*place).expect("it is in memory") {
                    Frame::Whole { body, .. } => assert_eq!(body.len(), len),
                    other => panic!("{other:?}"),
                }
            }
            assert!(matches!(walk.look(end), Ok(Frame::End)));
            assert_eq!(walk.data_end(0).expect("it is in memory"), end);
            assert_eq!(walk.data_end(end).expect("it is in memory"), end);
            assert!(matches!(walk.look(bytes.len() as u64), Ok(Frame::End)));
        }
    }

    #[test]
    fn the_next_frame_is_found_wherever_one_is_damaged() {
        for header in [HEADER, ENCRYPTED] {
            let (bytes, places) = segment(header, &[9, 30, 9, 12]);
            for at in places[1]..places[2] {
                let mut damaged = bytes.clone();
                damaged[at as usize] ^= 0x40;
                let mut walk = walk(&damaged, header);
                assert!(!walk.is_frame(places[1]).expect("it is in memory"), "{at}");
                let next = walk.next_frame(places[1]).expect("it is in memory");
                assert_eq!(next, Some(places[2]), "{at}");
            }
            // Nothing is behind the last, and bytes that were moved are found where they are.
            let mut cut = bytes.clone();
            cut[places[3] as usize + 9] ^= 1;
            assert_eq!(
                walk(&cut, header)
                    .next_frame(places[3])
                    .expect("it is in memory"),
                None
            );
            let from = places[1] as usize;
            let moved = [&bytes[..from], &[1, 2, 3], &bytes[from..]].concat();
            let next = walk(&moved, header)
                .next_frame(places[1])
                .expect("it is in memory");
            assert_eq!(next, Some(places[1] + 3));
            let hole = vec![0; 3 * WINDOW_BYTES];
            let zeros = [&bytes[..from], &hole, &bytes[from..]].concat();
            let next = walk(&zeros, header)
                .next_frame(places[1])
                .expect("it is in memory");
            assert_eq!(next, Some(places[1] + 3 * WINDOW_BYTES as u64));
            // Frames of another file are none.
            let other = Header {
                salt: [8; 16],
                ..header
            };
            let mut walk =
                Walk::new(Slow::new(&bytes), other, &Keys::FIRST).expect("it is in memory");
            let first = HEADER_BYTES as u64;
            assert_eq!(walk.next_frame(first).expect("it is in memory"), None);
        }
    }

    /// Without its key the frames of an encrypted file are told apart all the same.
    #[test]
    fn frames_are_found_without_a_key() {
        let (bytes, places) = segment(ENCRYPTED, &[9, 30, 12]);
        let mut walk = Walk::new(Slow::new(&bytes), ENCRYPTED, &NoKeys).expect("in memory");
        assert!(walk.key_error().is_some());
        for pair in places.windows(2) {
            assert!(walk.is_frame(pair[0]).expect("it is in memory"));
            let found = walk
                .look(pair[0])
                .map(|frame| matches!(frame, Frame::Whole { .. }));
            assert!(found.expect("it is in memory"));
        }
        let next = walk.next_frame(places[0] + 1).expect("it is in memory");
        assert_eq!(next, Some(places[1]));
    }

    /// A client may store what looks like the begins of frames, each of which ends where another one does: to reckon all of
    /// their checksums would be the square of its length.
    #[test]
    fn a_value_of_heads_of_frames_costs_no_more_than_its_length() {
        const LEN: usize = 3 * WINDOW_BYTES;
        /// A head, the begin of a mutation, and the end of another frame.
        const STEP: usize = 20;
        let body = gap_body(7, LEN);
        // Ends that have to be read for, and such that lie in what was read.
        for distance in [LEN / 2, WINDOW_BYTES / 4] {
            let (mut bytes, places) = segment(HEADER, &[9, body.len(), 30, 9]);
            let value = &mut bytes[places[1] as usize + HEAD_BYTES + 20..places[2] as usize - 1];
            for (number, head) in value.chunks_exact_mut(STEP).enumerate() {
                // Each ends behind the one before it.
                let steps = distance / STEP + number % 1024;
                let len = (steps * STEP - FRAME_BYTES) as u32;
                head[..4].copy_from_slice(&len.to_le_bytes());
                head[4..].copy_from_slice(&[1, 2, 3, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xA5]);
            }
            // The record before it, whose length is not to be known either.
            bytes[places[1] as usize + 1] ^= 1;
            let file = Slow::new(&bytes);
            let read = Rc::clone(&file.1);
            let mut walk = Walk::new(file, HEADER, &Keys::FIRST).expect("it is in memory");
            let next = walk.next_frame(places[1]).expect("it is in memory");
            assert_eq!(next, Some(places[2]));
            let most = 40 * bytes.len() as u64;
            assert!(walk.checked <= most, "{} of {most}", walk.checked);
            assert!(read.get() <= most + 2 * LEN as u64, "{}", read.get());
            assert!(walk.checked > bytes.len() as u64, "{}", walk.checked);
        }
    }
}
