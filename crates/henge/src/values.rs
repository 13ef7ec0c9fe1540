//! Values between the wire and the cache: copied out of a shard, compressed before they go in and decompressed after they
//! came out, never under a lock. Large ones are worked on by the blocking pool, so that they delay no other connection.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use henge_engine::compress::{Algorithm, Compressor, Decompressor, Settings, Skipped};
use henge_wire::{Data, DataType, Encoding, Item, Value, Version};

use crate::aside::aside;
use crate::metrics::counters::add;
use crate::net::data_thread::Local;
use crate::net::inflight::{Hold, InFlight};

/// What is compressed inline, in bytes: gzip at level 6 takes some 160 us for this much.
const COMPRESSED_INLINE_BYTES: usize = 16 * 1024;

/// What is decompressed inline, in bytes: some 60 us.
const DECOMPRESSED_INLINE_BYTES: usize = 64 * 1024;

/// What goes into the cache by reference rather than by copy, in bytes. Such a value must be an allocation of its own, of
/// just its size: the cache charges its length.
pub(crate) const SHARED_BYTES: usize = 32 * 1024;

thread_local! {
    /// A compressor for each thread that ever compresses, with the settings it was made with.
    static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// Why a value does not go in, or does not come out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ValueError {
    /// It is longer than `limits.max_value_bytes`.
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The most there may be.
        limit: usize,
    },
    /// What is stored cannot be decompressed: a fault of ours or of the memory.
    Corrupt(String),
    /// The node is stopping.
    CutOff,
    /// Requests and replies hold all of `limits.max_inflight_bytes`.
    NoRoom,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { len, limit } => write!(
                f,
                "the value has {len} bytes; the most is limits.max_value_bytes, {limit}"
            ),
            Self::Corrupt(detail) => f.write_str(detail),
            Self::CutOff => f.write_str("decompression was cut off"),
            Self::NoRoom => f.write_str(
                "requests and replies hold limits.max_inflight_bytes, or of its address limits.max_inflight_bytes_per_address; there is no room to work on this one",
            ),
        }
    }
}

/// An item, copied out of the cache.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    data_type: DataType,
    pub(crate) data: Bytes,
    pub(crate) encoding: Encoding,
    pub(crate) raw_len: u32,
    pub(crate) json: bool,
    pub(crate) content_type: Option<Box<str>>,
    pub(crate) version: Version,
    pub(crate) expires_at_ms: Option<u64>,
}

impl Found {
    /// Copies; what is shared, by reference count.
    pub(crate) fn copy(item: &Item<'_>) -> Self {
        Self {
            data_type: item.value.data_type,
            data: item.value.data.to_bytes(),
            encoding: item.value.encoding,
            raw_len: item.value.raw_len,
            json: item.value.json,
            content_type: item.value.content_type.map(Box::from),
            version: item.version,
            expires_at_ms: item.expires_at_ms,
        }
    }

    /// The value as it is stored, for another key; large data by reference.
    pub(crate) fn stored(&self) -> Value<'_> {
        Value {
            data_type: self.data_type,
            data: data(&self.data),
            encoding: self.encoding,
            raw_len: self.raw_len,
            json: self.json,
            content_type: self.content_type.as_deref(),
        }
    }

    /// Whether its value can be had without delaying others.
    pub(crate) fn is_quick(&self) -> bool {
        self.encoding == Encoding::Raw || self.raw_len as usize <= DECOMPRESSED_INLINE_BYTES
    }

    /// The value as the client gave it, at once.
    pub(crate) fn raw(&self) -> Result<Bytes, ValueError> {
        if self.encoding == Encoding::Raw {
            return Ok(self.data.clone());
        }
        decompressed(self.encoding, &self.data, self.raw_len)
    }

    /// The same, on the blocking pool if it is large. Meanwhile, as long as it waits for its turn there too, its bytes are held;
    /// whoever gets them holds them from then on.
    pub(crate) async fn raw_in_time(&self, in_flight: &Arc<InFlight>) -> Result<Bytes, ValueError> {
        if self.is_quick() {
            return self.raw();
        }
        let hold = held(in_flight, self.raw_len as usize)?;
        let (encoding, data, raw_len) = (self.encoding, self.data.clone(), self.raw_len);
        let work = move || (decompressed(encoding, &data, raw_len), hold);
        let (raw, _hold) = aside(work).await.ok_or(ValueError::CutOff)?;
        raw
    }
}

/// Holds bytes that work on a value will take.
fn held(in_flight: &Arc<InFlight>, bytes: usize) -> Result<Option<Hold<'static>>, ValueError> {
    let mut hold = in_flight.hold_for(bytes);
    if hold.as_mut().is_none_or(|hold| hold.set(bytes)) {
        Ok(hold)
    } else {
        Err(ValueError::NoRoom)
    }
}

/// As the engine takes it: what is large by reference.
fn data(bytes: &Bytes) -> Data<'_> {
    if bytes.len() >= SHARED_BYTES {
        Data::Shared(bytes.clone())
    } else {
        Data::Slice(bytes)
    }
}

fn decompressed(encoding: Encoding, data: &[u8], raw_len: u32) -> Result<Bytes, ValueError> {
    let mut out = Vec::new();
    DECOMPRESSOR
        .with_borrow_mut(|decompressor| decompressor.decompress(encoding, data, raw_len, &mut out))
        .map_err(|corrupt| {
            tracing::error!(%corrupt, "a value cannot be read back");
            ValueError::Corrupt(corrupt.to_string())
        })?;
    Ok(Bytes::from(out))
}

/// A value as it goes into the cache.
#[derive(Debug)]
pub(crate) struct Encoded {
    data: Bytes,
    encoding: Encoding,
    raw_len: u32,
    pub(crate) json: bool,
}

impl Encoded {
    /// As the engine takes it.
    pub(crate) fn value<'a>(&'a self, content_type: Option<&'a str>) -> Value<'a> {
        Value {
            data_type: DataType::String,
            data: data(&self.data),
            encoding: self.encoding,
            raw_len: self.raw_len,
            json: self.json,
            content_type,
        }
    }
}

/// Compresses a value if the settings say so and it is worth it. `raw` must be an allocation of its own where it is large,
/// since the cache may keep it.
pub(crate) async fn encode(local: &Local, raw: Bytes, json: bool) -> Result<Encoded, ValueError> {
    let limit = local.shared.limits().max_value_bytes;
    if raw.len() > limit {
        return Err(ValueError::TooLarge {
            len: raw.len(),
            limit,
        });
    }
    let raw_len = u32::try_from(raw.len()).expect("limits keep values below 4 GiB");
    let settings = local.shared.live.load().compression;
    let packed = match settings.algorithm {
        Some(_) if raw.len() >= settings.threshold_bytes => {
            if raw.len() <= COMPRESSED_INLINE_BYTES {
                compressed(settings, &raw)
            } else if let Ok(hold) = held(&local.shared.in_flight, raw.len()) {
                // What comes out has at most as many bytes, and those are held meanwhile. Without room for them the value is kept
                // as it is.
                let raw = raw.clone();
                let work = move || (compressed(settings, &raw), hold);
                let done = aside(work).await;
                done.map_or(Err(Skipped::DidNotShrink), |(packed, _hold)| packed)
            } else {
                Err(Skipped::Off)
            }
        }
        _ => Err(Skipped::Off),
    };
    let counters = &local.counters;
    let (data, encoding) = match packed {
        Ok(packed) => {
            add(&counters.compression_in_bytes, u64::from(raw_len));
            add(&counters.compression_out_bytes, packed.len() as u64);
            let encoding = settings
                .algorithm
                .map_or(Encoding::Raw, Algorithm::encoding);
            (Bytes::from(packed), encoding)
        }
        Err(skipped) => {
            if matches!(
                skipped,
                Skipped::LooksIncompressible | Skipped::DidNotShrink
            ) {
                add(&counters.compression_refused, 1);
            }
            (raw, Encoding::Raw)
        }
    };
    Ok(Encoded {
        data,
        encoding,
        raw_len,
        json,
    })
}

fn compressed(settings: Settings, raw: &[u8]) -> Result<Vec<u8>, Skipped> {
    COMPRESSOR.with_borrow_mut(|slot| {
        // The settings may have been reloaded since this thread's compressor was made.
        if slot
            .as_ref()
            .is_none_or(|compressor| compressor.settings() != settings)
        {
            *slot = Some(Compressor::new(settings).expect("settings were checked at the start"));
        }
        let compressor = slot.as_mut().expect("it was just made");
        compressor.compress(raw)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::data_thread;

    #[test]
    fn room_is_asked_for_before_the_work() {
        const RAW_BYTES: u32 = 10 << 20;
        // It cannot be decompressed: whoever tries learns that.
        let found = Found {
            data_type: DataType::String,
            data: Bytes::from_static(b"no gzip"),
            encoding: Encoding::Gzip,
            raw_len: RAW_BYTES,
            json: false,
            content_type: None,
            version: Version::new(1, 1),
            expires_at_ms: None,
        };
        let in_flight = InFlight::new(RAW_BYTES as usize);
        let runtime = data_thread::runtime().expect("a runtime");
        let outcome = |in_flight| runtime.block_on(found.raw_in_time(in_flight));
        assert!(matches!(outcome(&in_flight), Err(ValueError::Corrupt(_))));
        assert_eq!(in_flight.held(), 0, "it gives back what it held");
        let other = held(&in_flight, 100_000).expect("there is room");
        assert!(matches!(outcome(&in_flight), Err(ValueError::NoRoom)));
        drop(other);
        assert!(matches!(outcome(&in_flight), Err(ValueError::Corrupt(_))));
    }
}
