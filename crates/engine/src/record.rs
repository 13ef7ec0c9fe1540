//! How a record lies in memory: a header, optional extensions, key and value in one block of the arena; or, where that is
//! too large, a block that names an allocation of its own, whose value is shared by reference count. It keeps no index
//! and no order: it only says what is at a handle, and lends the orders the room for their links.
//!
//! ```text
//! 0   the block's word; the owner's bits: flags 7 | key length 8 | padding 4
//! 4   version
//! 12  links of the eviction order, or of the list of tombstones
//! 20  the order's word                        if the order has one
//!     deadline, links of the timing wheel     if EXPIRES
//!     index of the allocation                 if the kind is LARGE; nothing follows
//!     raw length                              if encoded
//!     length of the media type, media type    if TYPED
//!     key
//!     value, to the end of the block less the padding
//! ```
//!
//! All bits of the flags are in use, and every value is a string, which needs no mark. The fourth kind is kept for the other
//! types: an inline record with a byte for its type before the raw length. A string then costs no more than it does now.

use crate::arena::{Arena, GRANULE, Handle, MAX_BLOCK_GRANULES, OWNER_SHIFT};
use crate::expiry::DeadlineLinks;
use crate::links::Links;
use crate::prefetch::Line;
use bytes::Bytes;
use henge_wire::{Data, DataType, Encoding, Value, Version};

const VERSION: usize = 4;
const PREVIOUS: usize = 12;
const NEXT: usize = 16;
const HEADER: usize = 20;
const WORD_BYTES: usize = 4;
/// The deadline and two links.
const EXPIRY_BYTES: usize = 16;

const EXPIRES: u32 = 1;
const TYPED: u32 = 1 << 1;
const ENCODING_SHIFT: u32 = 2;
const JSON: u32 = 1 << 4;
const KIND_SHIFT: u32 = 5;
const KIND_INLINE: u32 = 0;
const KIND_LARGE: u32 = 1;
const KIND_TOMBSTONE: u32 = 2;
const KEY_SHIFT: u32 = 7;
const PADDING_SHIFT: u32 = 15;

/// The longest key that lies inline: its length has eight bits.
const MAX_INLINE_KEY: usize = 255;
/// The largest block that is asked for: the arena may give up to three granules more.
const MAX_INLINE_BYTES: usize = (MAX_BLOCK_GRANULES as usize - 3) * GRANULE;

/// What a record says, tombstone or value.
#[derive(Clone, Debug)]
pub enum Body<'a> {
    /// The key holds this.
    Value(Value<'a>),
    /// The key was deleted.
    Tombstone,
}

/// What is to be written.
pub(crate) struct Content<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) version: Version,
    pub(crate) deadline: Option<u64>,
    pub(crate) body: &'a Body<'a>,
}

/// What a record needs.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Bytes used in its block.
    bytes: usize,
    flags: u32,
    /// What its own allocations are charged; 0 if it lies inline.
    pub(crate) large_bytes: usize,
}

impl Shape {
    /// The size of its block.
    pub(crate) fn granules(&self) -> u32 {
        self.bytes.div_ceil(GRANULE) as u32
    }

    pub(crate) fn is_large(&self) -> bool {
        self.flags >> KIND_SHIFT == KIND_LARGE
    }
}

/// A record too large for a block, or with too long a key.
struct Large {
    key: Box<[u8]>,
    /// None for a tombstone.
    value: Option<Bytes>,
    raw_len: u32,
    content_type: Option<Box<str>>,
    charged: usize,
}

/// All records of a shard.
pub(crate) struct Records {
    pub(crate) arena: Arena,
    large: Vec<Option<Large>>,
    large_free: Vec<u32>,
    large_bytes: usize,
    /// Bytes before the first extension: the header, and the order's word if it has one.
    fixed: usize,
    allocation_size: fn(usize) -> usize,
}

/// The parts of a block, from its word.
#[derive(Clone, Copy)]
struct Parts {
    flags: u32,
    key_len: usize,
    padding: usize,
}

impl Parts {
    #[inline]
    fn of(word: u32) -> Self {
        let owner = word >> OWNER_SHIFT;
        Self {
            flags: owner & 0x7f,
            key_len: ((owner >> KEY_SHIFT) & 0xff) as usize,
            padding: ((owner >> PADDING_SHIFT) & 0xf) as usize,
        }
    }

    #[inline]
    fn kind(self) -> u32 {
        self.flags >> KIND_SHIFT
    }

    /// Whether the record is what most are: a value in its block, as the client gave it, without a media type.
    #[inline]
    fn is_plain(self) -> bool {
        const { assert!(KIND_INLINE == 0) };
        self.flags & !(EXPIRES | JSON) == 0
    }

    /// The value, of these parts.
    #[inline]
    fn value<'a>(self, data: Data<'a>, raw_len: u32, content_type: Option<&'a str>) -> Value<'a> {
        Value {
            data_type: DataType::String,
            data,
            encoding: self.encoding(),
            raw_len,
            json: self.flags & JSON != 0,
            content_type,
        }
    }

    #[inline]
    fn encoding(self) -> Encoding {
        Encoding::ALL[((self.flags >> ENCODING_SHIFT) & 3) as usize]
    }

    /// Where the extensions end that every kind may have.
    #[inline]
    fn after_expiry(self, fixed: usize) -> usize {
        fixed
            + if self.flags & EXPIRES == 0 {
                0
            } else {
                EXPIRY_BYTES
            }
    }

    /// Where the raw length stands, if there is one, and where the media type or the key begins.
    #[inline]
    fn after_raw_len(self, fixed: usize) -> usize {
        self.after_expiry(fixed)
            + if self.flags & (3 << ENCODING_SHIFT) == 0 {
                0
            } else {
                4
            }
    }

    /// Where the key begins.
    #[inline]
    fn key(self, fixed: usize, block: &[u8]) -> usize {
        let at = self.after_raw_len(fixed);
        if self.flags & TYPED == 0 {
            at
        } else {
            at + 1 + usize::from(block[at])
        }
    }
}

impl Records {
    /// `has_word` says whether the order wants a word; `allocation_size` rounds a request as the allocator does.
    pub(crate) fn new(has_word: bool, allocation_size: fn(usize) -> usize) -> Self {
        Self {
            arena: Arena::new(),
            large: Vec::new(),
            large_free: Vec::new(),
            large_bytes: 0,
            fixed: HEADER + if has_word { WORD_BYTES } else { 0 },
            allocation_size,
        }
    }

    /// Bytes of all that is kept here.
    pub(crate) fn charged_bytes(&self) -> usize {
        self.arena.charged_bytes()
            + self.large_bytes
            + self.large.capacity() * size_of::<Option<Large>>()
            + self.large_free.capacity() * size_of::<u32>()
    }

    /// Of these, what does not go with the records.
    pub(crate) fn overhead_bytes(&self) -> usize {
        self.charged_bytes() - self.arena.segment_bytes() - self.large_bytes
    }

    /// Bytes that writing so many large records may take beside what is charged for them.
    pub(crate) fn growth_bytes(&self, large: usize) -> usize {
        let room = self.large_free.len() + self.large.capacity() - self.large.len();
        let mut grown = 0;
        while room + grown < large {
            grown += Self::more_large(self.large.capacity() + grown);
        }
        grown * size_of::<Option<Large>>()
    }

    /// How many more allocations to have room for: a quarter, as twice as many would be a leap.
    fn more_large(capacity: usize) -> usize {
        4.max(capacity / 4)
    }

    /// What a record with this content needs.
    pub(crate) fn shape(&self, key: &[u8], deadline: Option<u64>, body: &Body<'_>) -> Shape {
        let before = self.fixed + if deadline.is_some() { EXPIRY_BYTES } else { 0 };
        let expires = if deadline.is_some() { EXPIRES } else { 0 };
        let (bytes, flags, value_len, type_len) = match body {
            Body::Tombstone => (
                before + key.len(),
                expires | (KIND_TOMBSTONE << KIND_SHIFT),
                0,
                0,
            ),
            Body::Value(value) => {
                // Another type needs the kind that is kept for it.
                let DataType::String = value.data_type;
                let encoded = value.encoding != Encoding::Raw;
                let type_len = value.content_type.map_or(0, |t| 1 + t.len());
                let flags = expires
                    | if value.content_type.is_some() {
                        TYPED
                    } else {
                        0
                    }
                    | ((value.encoding as u32) << ENCODING_SHIFT)
                    | if value.json { JSON } else { 0 };
                let bytes =
                    before + if encoded { 4 } else { 0 } + type_len + key.len() + value.data.len();
                (bytes, flags, value.data.len(), type_len)
            }
        };
        if bytes <= MAX_INLINE_BYTES && key.len() <= MAX_INLINE_KEY {
            return Shape {
                bytes,
                flags,
                large_bytes: 0,
            };
        }
        let size = |len: usize| {
            if len == 0 {
                0
            } else {
                (self.allocation_size)(len)
            }
        };
        Shape {
            bytes: before + 4,
            flags: (flags & ((1 << KIND_SHIFT) - 1)) | (KIND_LARGE << KIND_SHIFT),
            large_bytes: size(key.len()) + size(value_len) + size(type_len),
        }
    }

    /// Fills a block just allocated for this shape. The links and the order's word are whoever's they are.
    pub(crate) fn write(&mut self, at: Handle, shape: &Shape, content: &Content<'_>) {
        let padding = self.block_bytes(at) - shape.bytes;
        let mut owner = shape.flags | ((padding as u32) << PADDING_SHIFT);
        let mut cursor = self.fixed;
        if let Some(deadline) = content.deadline {
            let block = self.arena.block_mut(at);
            block[cursor..cursor + 8].copy_from_slice(&deadline.to_le_bytes());
            cursor += EXPIRY_BYTES;
        }
        self.set_version(at, content.version);
        if shape.is_large() {
            let index = self.keep_large(shape, content);
            self.arena.write(at, cursor, index);
            self.arena.set_owner_bits(at, owner);
            return;
        }
        owner |= (content.key.len() as u32) << KEY_SHIFT;
        let block = self.arena.block_mut(at);
        let mut put = |bytes: &[u8]| {
            block[cursor..cursor + bytes.len()].copy_from_slice(bytes);
            cursor += bytes.len();
        };
        if let Body::Value(value) = content.body {
            if value.encoding != Encoding::Raw {
                put(&value.raw_len.to_le_bytes());
            }
            if let Some(content_type) = value.content_type {
                let len = u8::try_from(content_type.len())
                    .expect("protocols bound a media type to 255 bytes");
                put(&[len]);
                put(content_type.as_bytes());
            }
        }
        put(content.key);
        if let Body::Value(value) = content.body {
            put(&value.data);
        }
        self.arena.set_owner_bits(at, owner);
    }

    /// Whether a record can be written over with this shape: its block suffices and neither is large.
    #[inline]
    pub(crate) fn fits(&self, at: Handle, shape: &Shape) -> bool {
        !shape.is_large()
            && self.parts(at).kind() != KIND_LARGE
            && shape.granules() <= self.arena.granules(at)
    }

    /// Writes over a record that fits. The deadline's links are lost: the record must not be in the wheel.
    pub(crate) fn rewrite(&mut self, at: Handle, shape: &Shape, content: &Content<'_>) {
        self.arena.shrink(at, shape.granules());
        self.write(at, shape, content);
    }

    /// Copies a record, links included, to a block of at least `used_granules`. The old block is left as it is, and is
    /// the caller's to forget: it no longer owns a large allocation.
    pub(crate) fn copy(&mut self, from: Handle, to: Handle) {
        let used = self.used_bytes(from);
        self.arena.copy(from, to, used);
        let kept = (self.arena.word(from) >> OWNER_SHIFT) & ((1 << PADDING_SHIFT) - 1);
        let padding = self.block_bytes(to) - used;
        self.arena
            .set_owner_bits(to, kept | ((padding as u32) << PADDING_SHIFT));
    }

    /// The granules that a record needs, which may be fewer than its block has.
    pub(crate) fn used_granules(&self, at: Handle) -> u32 {
        self.used_bytes(at).div_ceil(GRANULE) as u32
    }

    /// What a record takes: its part of a block, and its own allocation. It stays the same when the record is moved.
    pub(crate) fn kept_bytes(&self, at: Handle) -> usize {
        self.used_granules(at) as usize * GRANULE + self.large_bytes_of(at)
    }

    /// What a record's own allocation is charged; 0 if it lies inline.
    pub(crate) fn large_bytes_of(&self, at: Handle) -> usize {
        match self.parts(at).kind() {
            KIND_LARGE => self.large(at).charged,
            _ => 0,
        }
    }

    /// What all records' own allocations are charged.
    pub(crate) fn large_bytes(&self) -> usize {
        self.large_bytes
    }

    /// The size of a record's block.
    fn block_bytes(&self, at: Handle) -> usize {
        self.arena.granules(at) as usize * GRANULE
    }

    fn used_bytes(&self, at: Handle) -> usize {
        self.block_bytes(at) - self.parts(at).padding
    }

    /// Frees a block and what belongs to it.
    pub(crate) fn free(&mut self, at: Handle) {
        if self.parts(at).kind() == KIND_LARGE {
            let index = self.large_index(at);
            let large = self.large[index as usize]
                .take()
                .expect("a large block owns its allocation");
            self.large_bytes -= large.charged;
            self.large_free.push(index);
        }
        self.arena.free(at);
    }

    /// The third line of a record, if it is so long, and those of the links to it in the records that its own name. The handle
    /// may be any.
    #[inline]
    pub(crate) fn ahead(&self, at: Handle) -> [Line; 3] {
        let Some([word, previous, next]) = self.arena.peek(at, [0, PREVIOUS, NEXT]) else {
            return [Line::NONE; 3];
        };
        [
            self.arena.third_line(at, word),
            self.arena.line_at(Handle(previous), NEXT),
            self.arena.line_at(Handle(next), PREVIOUS),
        ]
    }

    /// Gives the key's bytes.
    #[inline]
    pub(crate) fn key(&self, at: Handle) -> &[u8] {
        let block = self.arena.block(at);
        let parts = Parts::of(u32::from_le_bytes([block[0], block[1], block[2], block[3]]));
        if parts.kind() == KIND_LARGE {
            return &self.large(at).key;
        }
        let start = parts.key(self.fixed, block);
        &block[start..start + parts.key_len]
    }

    /// What the record says.
    #[inline]
    pub(crate) fn body(&self, at: Handle) -> Body<'_> {
        let block = self.arena.block(at);
        let parts = Parts::of(u32::from_le_bytes([block[0], block[1], block[2], block[3]]));
        if !parts.is_plain() {
            return self.other_body(at);
        }
        let key_at = parts.after_expiry(self.fixed);
        let data = &block[key_at + parts.key_len..block.len() - parts.padding];
        Body::Value(parts.value(Data::Slice(data), data.len() as u32, None))
    }

    /// The same of a record that is not plain.
    #[inline(never)]
    fn other_body(&self, at: Handle) -> Body<'_> {
        let block = self.arena.block(at);
        let parts = Parts::of(u32::from_le_bytes([block[0], block[1], block[2], block[3]]));
        match parts.kind() {
            KIND_TOMBSTONE => Body::Tombstone,
            KIND_LARGE => {
                let large = self.large(at);
                large.value.as_ref().map_or(Body::Tombstone, |bytes| {
                    Body::Value(parts.value(
                        Data::Shared(bytes.clone()),
                        large.raw_len,
                        large.content_type.as_deref(),
                    ))
                })
            }
            KIND_INLINE => {
                let key_at = parts.key(self.fixed, block);
                let data = &block[key_at + parts.key_len..block.len() - parts.padding];
                let raw_at = parts.after_expiry(self.fixed);
                let raw_len = if parts.encoding() == Encoding::Raw {
                    data.len() as u32
                } else {
                    self.arena.read(at, raw_at)
                };
                let content_type = (parts.flags & TYPED != 0).then(|| {
                    let start = parts.after_raw_len(self.fixed) + 1;
                    std::str::from_utf8(&block[start..key_at]).expect("it was stored from a str")
                });
                Body::Value(parts.value(Data::Slice(data), raw_len, content_type))
            }
            _ => unreachable!("no record is written with the fourth kind"),
        }
    }

    /// Whether the record says that its key was deleted.
    #[inline]
    pub(crate) fn is_tombstone(&self, at: Handle) -> bool {
        match self.parts(at).kind() {
            KIND_TOMBSTONE => true,
            KIND_LARGE => self.large(at).value.is_none(),
            _ => false,
        }
    }

    /// The version that wrote the record.
    #[inline]
    pub(crate) fn version(&self, at: Handle) -> Version {
        let low = u64::from(self.arena.read(at, VERSION));
        let high = u64::from(self.arena.read(at, VERSION + 4));
        Version::from_bits(low | (high << 32))
    }

    pub(crate) fn set_version(&mut self, at: Handle, version: Version) {
        let bits = version.to_bits();
        self.arena.write(at, VERSION, bits as u32);
        self.arena.write(at, VERSION + 4, (bits >> 32) as u32);
    }

    /// When the record expires, in milliseconds since the Unix epoch.
    #[inline]
    pub(crate) fn expires_at(&self, at: Handle) -> Option<u64> {
        (self.parts(at).flags & EXPIRES != 0).then(|| self.deadline(at))
    }

    /// Changes a deadline that the record has room for; it must not be in the wheel.
    pub(crate) fn set_deadline(&mut self, at: Handle, deadline: u64) {
        debug_assert!(self.parts(at).flags & EXPIRES != 0);
        self.arena.write(at, self.fixed, deadline as u32);
        self.arena
            .write(at, self.fixed + 4, (deadline >> 32) as u32);
    }

    /// Gives `to` the links and the order's word of `from`.
    pub(crate) fn copy_links(&mut self, from: Handle, to: Handle) {
        for offset in (PREVIOUS..self.fixed).step_by(4) {
            let value = self.arena.read(from, offset);
            self.arena.write(to, offset, value);
        }
    }

    #[inline]
    fn parts(&self, at: Handle) -> Parts {
        Parts::of(self.arena.word(at))
    }

    fn large_index(&self, at: Handle) -> u32 {
        self.arena.read(at, self.parts(at).after_expiry(self.fixed))
    }

    fn large(&self, at: Handle) -> &Large {
        self.large[self.large_index(at) as usize]
            .as_ref()
            .expect("a large block owns its allocation")
    }

    fn keep_large(&mut self, shape: &Shape, content: &Content<'_>) -> u32 {
        let (value, raw_len, content_type) = match content.body {
            Body::Tombstone => (None, 0, None),
            Body::Value(value) => (
                Some(value.data.to_bytes()),
                value.raw_len,
                value.content_type.map(Box::from),
            ),
        };
        let large = Large {
            key: Box::from(content.key),
            value,
            raw_len,
            content_type,
            charged: shape.large_bytes,
        };
        self.large_bytes += large.charged;
        if let Some(index) = self.large_free.pop() {
            self.large[index as usize] = Some(large);
            return index;
        }
        if self.large.len() == self.large.capacity() {
            self.large
                .reserve_exact(Self::more_large(self.large.capacity()));
        }
        self.large.push(Some(large));
        self.large.len() as u32 - 1
    }
}

impl Links for Records {
    #[inline]
    fn previous(&self, handle: Handle) -> Handle {
        Handle(self.arena.read(handle, PREVIOUS))
    }

    #[inline]
    fn set_previous(&mut self, handle: Handle, previous: Handle) {
        self.arena.write(handle, PREVIOUS, previous.0);
    }

    #[inline]
    fn next(&self, handle: Handle) -> Handle {
        Handle(self.arena.read(handle, NEXT))
    }

    #[inline]
    fn set_next(&mut self, handle: Handle, next: Handle) {
        self.arena.write(handle, NEXT, next.0);
    }

    fn word(&self, handle: Handle) -> u32 {
        self.arena.read(handle, HEADER)
    }

    fn set_word(&mut self, handle: Handle, word: u32) {
        self.arena.write(handle, HEADER, word);
    }
}

impl DeadlineLinks for Records {
    fn deadline(&self, handle: Handle) -> u64 {
        let low = u64::from(self.arena.read(handle, self.fixed));
        low | (u64::from(self.arena.read(handle, self.fixed + 4)) << 32)
    }

    fn previous(&self, handle: Handle) -> Handle {
        Handle(self.arena.read(handle, self.fixed + 8))
    }

    fn set_previous(&mut self, handle: Handle, previous: Handle) {
        self.arena.write(handle, self.fixed + 8, previous.0);
    }

    fn next(&self, handle: Handle) -> Handle {
        Handle(self.arena.read(handle, self.fixed + 12))
    }

    fn set_next(&mut self, handle: Handle, next: Handle) {
        self.arena.write(handle, self.fixed + 12, next.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_comes_back() {
        let long_key = [7u8; 300];
        let keys: [&[u8]; 4] = [b"", b"k", &[0xff; 255], &long_key];
        let lengths = [0, 1, 3, 4, 100, 5000, 8100, 9000, 100_000];
        for has_word in [false, true] {
            for key in keys {
                for len in lengths {
                    for deadline in [None, Some(1_234_567_890_123)] {
                        for (encoding, content_type, json) in [
                            (Encoding::Raw, None, false),
                            (Encoding::Lz4, Some("text/plain; charset=utf-8"), true),
                            (Encoding::Gzip, Some(""), false),
                        ] {
                            there_and_back(
                                has_word,
                                key,
                                len,
                                deadline,
                                encoding,
                                content_type,
                                json,
                            );
                        }
                    }
                }
            }
        }
    }

    fn there_and_back(
        has_word: bool,
        key: &[u8],
        len: usize,
        deadline: Option<u64>,
        encoding: Encoding,
        content_type: Option<&str>,
        json: bool,
    ) {
        let data: Vec<u8> = (0..len).map(|n| (n * 31) as u8).collect();
        let raw_len = if encoding == Encoding::Raw {
            len as u32
        } else {
            123_456
        };
        let body = Body::Value(Value {
            data_type: DataType::String,
            data: Data::Slice(&data),
            encoding,
            raw_len,
            json,
            content_type,
        });
        let version = Version::new(3, 77);
        let mut records = Records::new(has_word, |n| n);
        records.arena.add_segment();
        for body in [&body, &Body::Tombstone] {
            let shape = records.shape(key, deadline, body);
            let at = records.arena.allocate(shape.granules()).expect("room");
            records.write(
                at,
                &shape,
                &Content {
                    key,
                    version,
                    deadline,
                    body,
                },
            );
            Links::set_previous(&mut records, at, Handle(1));
            Links::set_next(&mut records, at, Handle(2));
            if has_word {
                records.set_word(at, 3);
            }
            assert_eq!(records.key(at), key);
            assert_eq!(records.version(at), version);
            assert_eq!(records.expires_at(at), deadline);
            match (body, records.body(at)) {
                (Body::Tombstone, Body::Tombstone) => assert!(records.is_tombstone(at)),
                (Body::Value(_), Body::Value(value)) => {
                    assert!(!records.is_tombstone(at));
                    assert_eq!(&value.data[..], &data[..]);
                    assert_eq!((value.encoding, value.raw_len), (encoding, raw_len));
                    assert_eq!((value.json, value.content_type), (json, content_type));
                    assert_eq!(value.data_type, DataType::String);
                }
                (_, body) => panic!("came back as {body:?}"),
            }
            assert_eq!(
                (Links::previous(&records, at), Links::next(&records, at)),
                (Handle(1), Handle(2))
            );
            records.free(at);
            assert_eq!(records.large_bytes, 0);
            records.arena.check();
        }
    }

    #[test]
    fn writing_over_a_record_keeps_its_links() {
        let mut records = Records::new(true, |n| n);
        records.arena.add_segment();
        let version = Version::new(1, 1);
        let write = |records: &mut Records, at: Option<Handle>, len: usize| {
            let data = vec![len as u8; len];
            let body = Body::Value(Value::from_slice(&data));
            let content = Content {
                key: b"key",
                version,
                deadline: None,
                body: &body,
            };
            let shape = records.shape(b"key", None, &body);
            let at = if let Some(at) = at {
                assert!(records.fits(at, &shape), "{len} fits");
                records.rewrite(at, &shape, &content);
                at
            } else {
                let at = records.arena.allocate(shape.granules()).expect("room");
                records.write(at, &shape, &content);
                records.copy_links(at, at);
                at
            };
            let Body::Value(value) = records.body(at) else {
                panic!("a value")
            };
            assert_eq!(&value.data[..], &data[..]);
            at
        };
        let at = write(&mut records, None, 100);
        records.set_word(at, 9);
        Links::set_next(&mut records, at, Handle(8));
        for len in [100, 97, 90, 99, 50, 0] {
            write(&mut records, Some(at), len);
            records.arena.check();
            assert_eq!(
                (records.word(at), Links::next(&records, at)),
                (9, Handle(8))
            );
        }
        let body = Body::Value(Value::from_slice(&[0; 100]));
        let shape = records.shape(b"key", None, &body);
        assert!(!records.fits(at, &shape), "it was cut to size");
    }
}
