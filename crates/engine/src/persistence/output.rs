//! Writes the frames of journals to a file: as they are, in one call and without a copy, or encrypted, through a buffer. What is
//! in the journals stays plain, so that a write that failed can be done again.

use super::cipher::Sealer;
use super::journal::Journal;
use super::storage::{StorageFile, write_all};
use std::io::{self, IoSlice};

/// What is encrypted is written when it comes to this: large enough for one call, small enough to lie in the processor's cache.
const WRITE_BYTES: usize = 512 * 1024;
/// What the buffer keeps of its memory. It has more only while a frame is in it that is longer.
const KEPT_BYTES: usize = 2 * WRITE_BYTES;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Output {
    sealer: Sealer,
    buffer: Vec<u8>,
}

impl Output {
    pub(super) fn new(sealer: Sealer) -> Self {
        Self {
            sealer,
            buffer: Vec::new(),
        }
    }

    /// Writes `head` and, behind it, all frames of the journals, and says how many bytes that are. On an error some of them may
    /// be in the file.
    pub(super) fn write<F: StorageFile>(
        &mut self,
        file: &F,
        offset: u64,
        head: &[u8],
        first: &mut Journal,
        rest: &mut [Journal],
    ) -> io::Result<u64> {
        if self.sealer.is_encrypted() {
            return self.write_encrypted(file, offset, head, first, rest);
        }
        let seed = self.sealer.seed();
        let mut len = head.len();
        for journal in [&mut *first].into_iter().chain(rest.iter_mut()) {
            journal.seal(seed);
            len += journal.frames().len();
        }
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(rest.len() + 2);
        if !head.is_empty() {
            slices.push(IoSlice::new(head));
        }
        first.frames().slices(&mut slices);
        for journal in rest.iter() {
            journal.frames().slices(&mut slices);
        }
        write_all(file, &mut slices, offset)?;
        Ok(len as u64)
    }

    fn write_encrypted<F: StorageFile>(
        &mut self,
        file: &F,
        offset: u64,
        head: &[u8],
        first: &Journal,
        rest: &[Journal],
    ) -> io::Result<u64> {
        let Self { sealer, buffer } = self;
        let mut written = 0;
        let mut write = |buffer: &mut Vec<u8>| {
            write_all(file, &mut [IoSlice::new(buffer)], offset + written)?;
            written += buffer.len() as u64;
            buffer.clear();
            io::Result::Ok(())
        };
        buffer.clear();
        buffer.extend_from_slice(head);
        for journal in [first].into_iter().chain(rest) {
            let mut frames = journal.each_frame();
            while sealer
                .append_next(&mut frames, buffer)
                .map_err(io::Error::other)?
            {
                if buffer.len() >= WRITE_BYTES {
                    write(buffer)?;
                    buffer.shrink_to(KEPT_BYTES);
                }
            }
        }
        if !buffer.is_empty() {
            write(buffer)?;
        }
        Ok(written)
    }
}
