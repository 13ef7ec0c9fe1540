//! A directory in memory, for files that a fuzzer makes up.

use henge_engine::persistence::frame::{self, Content, FORMAT, Header};
use henge_engine::persistence::{Name, Storage, StorageFile};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::rc::Rc;

/// See the head of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(Rc<RefCell<BTreeMap<Name, Open>>>);

/// A file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open(Rc<RefCell<Vec<u8>>>);

impl Files {
    /// Puts a file.
    pub(crate) fn put(&self, name: Name, bytes: Vec<u8>) {
        let file = Open(Rc::new(RefCell::new(bytes)));
        self.0.borrow_mut().insert(name, file);
    }

    /// The bytes of a file, if it is there.
    pub(crate) fn bytes(&self, name: Name) -> Option<Vec<u8>> {
        let files = self.0.borrow();
        files.get(&name).map(|file| file.0.borrow().clone())
    }
}

impl Storage for Files {
    type File = Open;

    fn names(&self) -> io::Result<Vec<Name>> {
        Ok(self.0.borrow().keys().copied().collect())
    }

    fn create(&self, name: Name, len: u64) -> io::Result<Open> {
        let file = Open::default();
        file.set_len(len)?;
        self.0.borrow_mut().insert(name, file.clone());
        Ok(file)
    }

    fn open(&self, name: Name) -> io::Result<Open> {
        let files = self.0.borrow();
        let file = files.get(&name).cloned();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: Name, to: Name) -> io::Result<()> {
        let file = self.open(from)?;
        self.remove(from)?;
        self.0.borrow_mut().insert(to, file);
        Ok(())
    }

    fn remove(&self, name: Name) -> io::Result<()> {
        let removed = self.0.borrow_mut().remove(&name);
        removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl StorageFile for Open {
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let written = pieces.iter().flat_map(|piece| piece.iter().copied());
        let written: Vec<u8> = written.collect();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut file = self.0.borrow_mut();
        let end = start + written.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(&written);
        Ok(written.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = self.0.borrow();
        let start = usize::try_from(offset).map_or(file.len(), |start| start.min(file.len()));
        let len = buffer.len().min(file.len() - start);
        buffer[..len].copy_from_slice(&file[start..start + len]);
        Ok(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.borrow().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.0.borrow_mut().resize(len, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The file that an input stands for. Nothing that a fuzzer makes up has the right checksums, so an input whose first byte is
/// odd is a row of bodies, each behind a byte of its length, that are put into frames; after a length of 255 comes one of
/// two bytes. With an even byte it is the file itself.
pub(crate) fn file(content: Content, input: &[u8]) -> Vec<u8> {
    let Some((&form, mut rest)) = input.split_first() else {
        return Vec::new();
    };
    if form & 1 == 0 {
        return rest.to_vec();
    }
    let header = Header {
        content,
        format: FORMAT,
        number: 1,
        cipher: 0,
        key_id: 0,
        salt: [form; 16],
    };
    let mut file = header.encode().to_vec();
    while let Some((&len, after)) = rest.split_first() {
        let (len, after) = match (len, after.split_first_chunk::<2>()) {
            (255, Some((long, after))) => (usize::from(u16::from_le_bytes(*long)), after),
            _ => (usize::from(len), after),
        };
        let (body, after) = after.split_at(len.min(after.len()));
        rest = after;
        if !body.is_empty() {
            frame::append(header.seed(), body, &mut file).expect("it is short");
        }
    }
    // What there is ahead of its use; and now and then a tear.
    file.resize(file.len() + usize::from(form >> 1), 0);
    file
}
