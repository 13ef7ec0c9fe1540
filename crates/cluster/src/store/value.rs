//! Values and replies with a life of their own: an answer may wait for a quorum, and a copy for its end.

use bytes::Bytes;
use henge_engine::{Body, RecordView};
use henge_wire::{Data, DataType, Encoding, Item, Outcome, Refusal, Version};
use std::fmt;

/// What a record holds, and until when.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Value {
    /// What the bytes are, once decoded.
    pub data_type: DataType,
    /// The bytes, in an allocation of just their length: a large one is kept as it is.
    pub data: Bytes,
    /// How they are encoded.
    pub encoding: Encoding,
    /// Their length once decoded.
    pub raw_len: u32,
    /// They are JSON that the client gave as such.
    pub json: bool,
    /// The media type that the client gave.
    pub content_type: Option<Box<str>>,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin = &self.data[..self.data.len().min(20)];
        write!(
            f,
            "{} bytes {:?} until {:?}",
            self.data.len(),
            String::from_utf8_lossy(begin),
            self.expires_at_ms
        )
    }
}

impl Value {
    fn new(value: &henge_wire::Value<'_>, expires_at_ms: Option<u64>) -> Self {
        Self {
            data_type: value.data_type,
            data: value.data.to_bytes(),
            encoding: value.encoding,
            raw_len: value.raw_len,
            json: value.json,
            content_type: value.content_type.map(Into::into),
            expires_at_ms,
        }
    }

    /// That of a record; none of a tombstone.
    pub(super) fn of(record: &RecordView<'_>) -> Option<Self> {
        match &record.body {
            Body::Value(value) => Some(Self::new(value, record.expires_at_ms)),
            Body::Tombstone => None,
        }
    }

    /// As commands and the engine have it. Nothing is copied.
    pub fn view(&self) -> henge_wire::Value<'_> {
        henge_wire::Value {
            data_type: self.data_type,
            data: Data::Shared(self.data.clone()),
            encoding: self.encoding,
            raw_len: self.raw_len,
            json: self.json,
            content_type: self.content_type.as_deref(),
        }
    }
}

/// What a client is answered: see [`henge_wire::Reply`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Reply {
    /// The item of this version.
    Found(Value, Version),
    /// The key is absent.
    Missing,
    /// The state of the item after a write.
    Stored {
        /// Its version.
        version: Version,
        /// When it expires, in milliseconds since the Unix epoch.
        expires_at_ms: Option<u64>,
    },
    /// The state of a counter after an increment.
    Counted {
        /// Its value.
        value: i64,
        /// Its version.
        version: Version,
        /// When it expires, in milliseconds since the Unix epoch.
        expires_at_ms: Option<u64>,
    },
    /// A key that existed was deleted.
    Deleted,
    /// Nothing changed.
    Refused(Refusal),
    /// What a transaction came to.
    Transacted(Outcome),
}

impl Reply {
    /// A copy of a reply.
    pub(super) fn of(reply: &henge_wire::Reply<'_>) -> Self {
        use henge_wire::Reply as Of;
        match reply {
            Of::Found(item) => {
                let value = Value::new(&item.value, item.expires_at_ms);
                Self::Found(value, item.version)
            }
            Of::Missing => Self::Missing,
            &Of::Stored {
                version,
                expires_at_ms,
            } => Self::Stored {
                version,
                expires_at_ms,
            },
            &Of::Counted {
                value,
                version,
                expires_at_ms,
            } => Self::Counted {
                value,
                version,
                expires_at_ms,
            },
            Of::Deleted => Self::Deleted,
            Of::Refused(refusal) => Self::Refused(*refusal),
        }
    }

    /// As protocols show it; none for what a transaction came to.
    pub fn view(&self) -> Option<henge_wire::Reply<'_>> {
        use henge_wire::Reply as Of;
        Some(match self {
            Self::Found(value, version) => Of::Found(Item {
                value: value.view(),
                version: *version,
                expires_at_ms: value.expires_at_ms,
            }),
            Self::Missing => Of::Missing,
            &Self::Stored {
                version,
                expires_at_ms,
            } => Of::Stored {
                version,
                expires_at_ms,
            },
            &Self::Counted {
                value,
                version,
                expires_at_ms,
            } => Of::Counted {
                value,
                version,
                expires_at_ms,
            },
            Self::Deleted => Of::Deleted,
            Self::Refused(refusal) => Of::Refused(*refusal),
            Self::Transacted(_) => return None,
        })
    }
}
