//! Snapshots as files: written beside and renamed once they are complete and on the disk, so that what has the name of a
//! snapshot is a whole one; and read window by window. What is in them is `snapshot`'s.

use super::cipher::{self, FileCipher, KeyError, Keyring};
use super::frame::{self, Content, Damage, Frame, HEADER_BYTES, Header, HeaderError};
use super::journal::Journal;
use super::output::Output;
use super::recovery::RecoveryError;
use super::snapshot::{self, Builder, Part};
use super::storage::{Name, Position, Storage, StorageFile, read_some, write_all};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

/// How much is read at once; where a block is longer, that block alone.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;
/// Buffers that are kept, each with no more than so much memory: as many windows as wait for those who work on them.
const KEPT_BUFFERS: usize = 16;
const KEPT_BYTES: usize = 2 * WINDOW_BYTES;

/// Writes a snapshot. One that is dropped before it is finished has left a file that is `Unfinished`.
pub struct SnapshotWriter<S: Storage> {
    storage: S,
    file: S::File,
    number: u64,
    output: Output,
    offset: u64,
}

impl<S: Storage> SnapshotWriter<S> {
    /// Begins the snapshot that the log from segment `number` on belongs to. Fails if one that was not finished lies there:
    /// whether that may go only its owner knows.
    pub fn begin(storage: S, number: u64, salt: [u8; 16]) -> io::Result<Self> {
        let (header, sealer) = cipher::begin(
            storage.keys(),
            Content::Snapshot,
            storage.format(),
            number,
            salt,
        )
        .map_err(io::Error::other)?;
        let name = Name::unfinished(number);
        let file = storage.create(name, 0)?;
        let written = write_all(&file, &mut [IoSlice::new(&header.encode())], 0);
        if written.is_err() {
            // It was made just now. Where that fails it is for who begins the next one.
            let _ = storage.remove(name);
        }
        written?;
        Ok(Self {
            storage,
            file,
            number,
            output: Output::new(sealer),
            offset: HEADER_BYTES as u64,
        })
    }

    /// The bytes written.
    pub fn len(&self) -> u64 {
        self.offset
    }

    /// Whether there is nothing but the header.
    pub fn is_empty(&self) -> bool {
        self.offset == HEADER_BYTES as u64
    }

    /// Writes frames that a [`Builder`] made.
    pub fn write(&mut self, frames: &mut Journal) -> io::Result<()> {
        self.offset += self
            .output
            .write(&self.file, self.offset, &[], frames, &mut [])?;
        Ok(())
    }

    /// Cuts it back to a [length](Self::len) that it had between two writes: what was written since is nothing. An encrypted one
    /// goes on with other counters, so that nothing is encrypted twice alike.
    ///
    /// # Panics
    /// If it is shorter than that.
    pub fn cut_back(&mut self, len: u64) -> io::Result<()> {
        assert!(
            (HEADER_BYTES as u64..=self.offset).contains(&len),
            "it was {len} bytes long once, and is {} now",
            self.offset
        );
        self.file.set_len(len)?;
        self.offset = len;
        Ok(())
    }

    /// Ends it and gives it its name. Says how long it is.
    pub fn finish(mut self, position: Position, records: u64, at_ms: u64) -> io::Result<u64> {
        let mut end = Journal::default();
        Builder::complete(position, records, at_ms, &mut end).expect("it is short");
        self.write(&mut end)?;
        self.file.sync()?;
        let name = Name::snapshot(self.number);
        self.storage.rename(Name::unfinished(self.number), name)?;
        self.storage.sync_names()?;
        Ok(self.offset)
    }
}

/// Some parts of a snapshot.
#[derive(Clone, Debug)]
pub struct Window {
    /// Where it begins in the file.
    pub offset: u64,
    /// What was read. Once nobody has it any more its memory is read into again.
    pub bytes: Arc<Vec<u8>>,
    /// Where in it the bodies of the parts are, decrypted. Their checksums are right.
    bodies: Vec<Range<usize>>,
    /// From the begin of a frame to what is in it.
    lead: usize,
}

impl Window {
    /// The bodies of the parts, each with the place of its frame in the file.
    pub fn bodies(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let bodies = self.bodies.iter().cloned();
        bodies.map(|body| {
            let offset = self.offset + (body.start - self.lead) as u64;
            (offset, &self.bytes[body])
        })
    }
}

/// Reads a snapshot.
pub struct SnapshotReader<F> {
    file: F,
    name: Name,
    header: Header,
    cipher: Option<Arc<dyn FileCipher>>,
    offset: u64,
    len: u64,
    /// The bytes of windows, for their memory: fresh memory is cleared by the system, which costs more than reading.
    buffers: Vec<Arc<Vec<u8>>>,
}

impl<F: StorageFile> SnapshotReader<F> {
    /// Opens one.
    pub fn open<S: Storage<File = F>>(storage: &S, name: Name) -> Result<Self, RecoveryError> {
        let io = |error| RecoveryError::Io(Some(name), error);
        let file = storage.open(name).map_err(io)?;
        let mut reader = Self::of(file, name, storage.keys())?;
        if reader.header.number != name.number {
            return Err(RecoveryError::Header(name, HeaderError::Unknown));
        }
        reader.name = name;
        Ok(reader)
    }

    /// Reads a file; `name` is what errors call it.
    pub fn of(file: F, name: Name, keys: &dyn Keyring) -> Result<Self, RecoveryError> {
        let io = |error| RecoveryError::Io(Some(name), error);
        let mut head = [0; HEADER_BYTES];
        let read = read_some(&file, &mut head, 0).map_err(io)?;
        let header = Header::decode(&head[..read])
            .and_then(|header| match header.content {
                Content::Snapshot => Ok(header),
                Content::Log => Err(HeaderError::Unknown),
            })
            .map_err(|error| RecoveryError::Header(name, error))?;
        let cipher = cipher::opener(keys, &header);
        let cipher = cipher.map_err(|error| RecoveryError::Key(name, error))?;
        let len = file.len().map_err(io)?;
        Ok(Self {
            file,
            name,
            header,
            cipher,
            offset: HEADER_BYTES as u64,
            len,
            buffers: Vec::new(),
        })
    }

    /// What its head says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its length, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is left to read.
    pub fn is_empty(&self) -> bool {
        self.offset >= self.len
    }

    /// The next parts, in their order; none at the end of the file.
    pub fn next_window(&mut self) -> Result<Option<Window>, RecoveryError> {
        let mut want = WINDOW_BYTES;
        loop {
            if self.is_empty() {
                return Ok(None);
            }
            let left = usize::try_from(self.len - self.offset).unwrap_or(usize::MAX);
            let mut shared = self.buffer();
            let bytes = Arc::make_mut(&mut shared);
            bytes.resize(want.min(left), 0);
            let read = read_some(&self.file, bytes, self.offset)
                .map_err(|error| RecoveryError::Io(Some(self.name), error))?;
            if read < bytes.len() {
                // The file is not as long as it was.
                return Err(RecoveryError::Damaged {
                    name: self.name,
                    offset: self.offset + read as u64,
                    damage: Damage::Short,
                });
            }
            let is_rest = read == left;
            let (mut at, mut bodies) = (0, Vec::new());
            let cipher = self.cipher.as_deref();
            let end = loop {
                match frame::frame(self.header.seed(), &bytes[at..]) {
                    Frame::Whole { body, len } => {
                        let start = at + frame::HEAD_BYTES;
                        let mut body = start..start + body.len();
                        if let Some(cipher) = cipher {
                            match cipher::open(cipher, &mut bytes[body]) {
                                Ok(plain) => body = start + plain.start..start + plain.end,
                                Err(damage) => break Some(damage),
                            }
                        }
                        bodies.push(body);
                        at += len;
                    }
                    Frame::Cut if !is_rest => break None,
                    Frame::End if at == bytes.len() => break None,
                    Frame::Cut | Frame::End => break Some(Damage::Short),
                    Frame::Damaged(damage) => break Some(damage),
                }
            };
            if let Some(damage) = end {
                let is_first = self.offset + at as u64 == HEADER_BYTES as u64;
                if is_first && damage == Damage::Sealed {
                    let wrong = KeyError::Wrong(self.header.key_id);
                    return Err(RecoveryError::Key(self.name, wrong));
                }
                return Err(RecoveryError::Damaged {
                    name: self.name,
                    offset: self.offset + at as u64,
                    damage,
                });
            }
            if bodies.is_empty() {
                // A block that is longer than the window.
                let len = bytes
                    .first_chunk::<4>()
                    .map_or(0, |len| u32::from_le_bytes(*len));
                want = len as usize + frame::FRAME_BYTES;
                continue;
            }
            bytes.truncate(at);
            if bytes.capacity() <= KEPT_BYTES && self.buffers.len() < KEPT_BUFFERS {
                self.buffers.push(Arc::clone(&shared));
            }
            let window = Window {
                offset: self.offset,
                bytes: shared,
                bodies,
                lead: cipher::lead_bytes(self.cipher.is_some()),
            };
            self.offset += at as u64;
            return Ok(Some(window));
        }
    }

    /// One of the buffers that nobody has any more, or another.
    fn buffer(&mut self) -> Arc<Vec<u8>> {
        let free = |buffer: &Arc<Vec<u8>>| Arc::strong_count(buffer) == 1;
        let free = self.buffers.iter().position(free);
        free.map_or_else(Arc::default, |place| self.buffers.swap_remove(place))
    }

    /// Shows all parts, with the place of each in the file. It must be complete, and the end of it the end of the file.
    pub fn read_all(
        mut self,
        mut show: impl FnMut(u64, Part<'_>) -> Result<(), Damage>,
    ) -> Result<(), RecoveryError> {
        let mut is_complete = false;
        while let Some(window) = self.next_window()? {
            for (offset, body) in window.bodies() {
                let damaged = |damage| RecoveryError::Damaged {
                    name: self.name,
                    offset,
                    damage,
                };
                if is_complete {
                    return Err(damaged(Damage::Long));
                }
                let part = snapshot::decode(body).map_err(damaged)?;
                is_complete = matches!(part, Part::Complete { .. });
                show(offset, part).map_err(damaged)?;
            }
        }
        if is_complete {
            Ok(())
        } else {
            Err(RecoveryError::Incomplete(self.name))
        }
    }
}
