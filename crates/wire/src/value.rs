//! `Value`: bytes, of which type and how encoded, and what the client said they are. Compressing them is the engine's; this file
//! only carries the result.

use bytes::Bytes;
use std::ops::Deref;

/// How a value's bytes are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Encoding {
    /// As the client sent them.
    #[default]
    Raw,
    /// RFC 1952, so that an HTTP client can have them as they are.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// An LZ4 block without its frame; the raw length stands beside it.
    Lz4,
}

impl Encoding {
    /// All of them, in the order of their numbers on the wire.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Gzip, Self::Zstd, Self::Lz4];

    /// The name in configuration, metrics and HTTP headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }
}

/// What a value is, as commands see it: one for another type finds the wrong type, and is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum DataType {
    /// Bytes.
    #[default]
    String,
}

impl DataType {
    /// The name that Redis gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
        }
    }
}

/// Bytes, borrowed or shared. Shared bytes go into and out of the cache by reference count, so a large value is never
/// copied under a lock.
#[derive(Clone, Debug)]
pub enum Data<'a> {
    /// Copied by whoever keeps them.
    Slice(&'a [u8]),
    /// Kept as they are: so they are an allocation of their own of just their length, and not a view of something larger,
    /// which would be kept with them and not be charged.
    Shared(Bytes),
}

impl Data<'_> {
    /// The bytes with a life of their own: a copy of a slice, a reference to what is shared.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Slice(slice) => Bytes::copy_from_slice(slice),
            Self::Shared(bytes) => bytes.clone(),
        }
    }
}

impl Deref for Data<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Slice(slice) => slice,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// What is stored under a key.
#[derive(Clone, Debug)]
pub struct Value<'a> {
    /// What the bytes are, once decoded.
    pub data_type: DataType,
    /// The bytes, encoded as `encoding` says.
    pub data: Data<'a>,
    /// How `data` is encoded.
    pub encoding: Encoding,
    /// The length of the value once decoded, in bytes. Equal to `data.len()` for `Encoding::Raw`.
    pub raw_len: u32,
    /// The bytes are JSON text that the client gave as JSON, and wants back as JSON.
    pub json: bool,
    /// The media type that the client gave, at most 255 bytes.
    pub content_type: Option<&'a str>,
}

impl<'a> Value<'a> {
    /// A plain string that is not encoded.
    ///
    /// # Panics
    /// If it is 4 GiB or longer; the limits of every protocol are below that.
    pub fn raw(data: Data<'a>) -> Self {
        let raw_len = u32::try_from(data.len()).expect("limits keep values below 4 GiB");
        Self {
            data_type: DataType::String,
            data,
            encoding: Encoding::Raw,
            raw_len,
            json: false,
            content_type: None,
        }
    }

    /// A plain string from borrowed bytes.
    pub fn from_slice(bytes: &'a [u8]) -> Self {
        Self::raw(Data::Slice(bytes))
    }
}
