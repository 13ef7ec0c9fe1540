//! A stand-in for the cache, over one map behind one lock, with the interface of the real one. It evicts nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use henge_wire::{
    Command, Data, Encoding, Expiry, Item, Operation, Partition, Precondition, Refusal, Reply,
    Value, Version,
};
use parking_lot::Mutex;

/// The cache.
#[derive(Debug, Default)]
pub struct Cache {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    items: BTreeMap<Vec<u8>, Kept>,
    seq: u64,
    stats: CacheStats,
}

#[derive(Debug)]
struct Kept {
    data: Bytes,
    encoding: Encoding,
    raw_len: u32,
    json: bool,
    content_type: Option<String>,
    version: Version,
    expires_at_ms: Option<u64>,
}

impl Kept {
    fn item(&self) -> Item<'_> {
        Item {
            value: Value {
                data: Data::Shared(self.data.clone()),
                encoding: self.encoding,
                raw_len: self.raw_len,
                json: self.json,
                content_type: self.content_type.as_deref(),
            },
            version: self.version,
            expires_at_ms: self.expires_at_ms,
        }
    }
}

/// Figures of the cache, summed over its shards.
#[derive(Clone, Debug, Default)]
pub struct CacheStats {
    /// Items that live.
    pub items: u64,
    /// Bytes charged.
    pub charged_bytes: u64,
    /// Bytes that may be charged.
    pub limit_bytes: u64,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Writes of a value.
    pub sets: u64,
    /// Deletes of a key that was there.
    pub deletes: u64,
    /// Items that expired.
    pub expirations: u64,
    /// Evictions, by policy and cause.
    pub evictions: Vec<Evictions>,
    /// Sweeps for what has expired.
    pub sweeps: u64,
    /// Tombstones purged.
    pub purges: u64,
}

/// How many items were evicted by a policy for a cause.
#[derive(Clone, Debug)]
pub struct Evictions {
    /// The policy's name.
    pub policy: &'static str,
    /// The cause's name.
    pub cause: &'static str,
    /// How many.
    pub count: u64,
}

/// Where a scan goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCursor(u64);

impl fmt::Display for ScanCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The text is no cursor.
#[derive(Clone, Copy, Debug)]
pub struct ParseCursorError;

impl FromStr for ScanCursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, ParseCursorError> {
        text.parse().map(Self).map_err(|_| ParseCursorError)
    }
}

impl Cache {
    /// Runs a command; `answer` sees the reply while the lock is held.
    pub fn execute<R>(
        &self,
        command: &Command<'_>,
        now_ms: u64,
        answer: impl FnOnce(Reply<'_>) -> R,
    ) -> R {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if let Entry::Occupied(entry) = inner.items.entry(command.key.to_vec())
            && entry.get().expires_at_ms.is_some_and(|at| at <= now_ms)
        {
            entry.remove();
            inner.stats.expirations += 1;
        }
        let current = inner.items.get(command.key).map(|kept| kept.version);
        match &command.operation {
            Operation::Get | Operation::Peek => {
                let counts = matches!(command.operation, Operation::Get);
                if let Some(kept) = inner.items.get(command.key) {
                    inner.stats.hits += u64::from(counts);
                    answer(Reply::Found(kept.item()))
                } else {
                    inner.stats.misses += u64::from(counts);
                    answer(Reply::Missing)
                }
            }
            Operation::Set {
                value,
                expiry,
                precondition,
            } => {
                if !precondition.holds(current) {
                    return answer(Reply::Refused(Refusal::PreconditionFailed(current)));
                }
                let (version, expires_at_ms) = inner.put(command.key, value, *expiry);
                answer(Reply::Stored {
                    version,
                    expires_at_ms,
                })
            }
            Operation::Delete { precondition } => {
                if !precondition.holds(current) {
                    return answer(Reply::Refused(Refusal::PreconditionFailed(current)));
                }
                match inner.items.remove(command.key) {
                    Some(_) => {
                        inner.stats.deletes += 1;
                        answer(Reply::Deleted)
                    }
                    None => answer(Reply::Missing),
                }
            }
            Operation::Increment {
                by,
                initial,
                expiry,
            } => {
                let (old, expiry) = match inner.items.get(command.key) {
                    None => (*initial, *expiry),
                    Some(kept) => {
                        let text = std::str::from_utf8(&kept.data).ok();
                        match text.and_then(|text| text.parse::<i64>().ok()) {
                            Some(number) => (number, Expiry::Keep),
                            None => return answer(Reply::Refused(Refusal::NotAnInteger)),
                        }
                    }
                };
                let Some(value) = old.checked_add(*by) else {
                    return answer(Reply::Refused(Refusal::Overflow));
                };
                let text = value.to_string();
                let (version, expires_at_ms) =
                    inner.put(command.key, &Value::from_slice(text.as_bytes()), expiry);
                answer(Reply::Counted {
                    value,
                    version,
                    expires_at_ms,
                })
            }
            Operation::Expire { expiry } => {
                let version = inner.next_version(command.key);
                match inner.items.get_mut(command.key) {
                    None => answer(Reply::Missing),
                    Some(kept) => {
                        match expiry {
                            Expiry::Keep => {}
                            Expiry::Never => kept.expires_at_ms = None,
                            Expiry::At(at) => kept.expires_at_ms = Some(*at),
                        }
                        kept.version = version;
                        answer(Reply::Stored {
                            version,
                            expires_at_ms: kept.expires_at_ms,
                        })
                    }
                }
            }
        }
    }

    /// A page of keys.
    pub fn scan(
        &self,
        cursor: ScanCursor,
        limit: usize,
        now_ms: u64,
        each: &mut dyn FnMut(&[u8]),
    ) -> ScanCursor {
        let inner = self.inner.lock();
        let from = usize::try_from(cursor.0).unwrap_or(usize::MAX);
        for (key, kept) in inner.items.iter().skip(from).take(limit) {
            if kept.expires_at_ms.is_none_or(|at| at > now_ms) {
                each(key);
            }
        }
        let next = from.saturating_add(limit);
        if next >= inner.items.len() {
            ScanCursor(0)
        } else {
            ScanCursor(next as u64)
        }
    }

    /// Forgets everything.
    pub fn flush(&self) {
        let items = std::mem::take(&mut self.inner.lock().items);
        drop(items);
    }

    /// The figures.
    pub fn stats(&self) -> CacheStats {
        let inner = self.inner.lock();
        CacheStats {
            items: inner.items.len() as u64,
            charged_bytes: inner
                .items
                .iter()
                .map(|(key, kept)| (key.len() + kept.data.len()) as u64)
                .sum(),
            ..inner.stats.clone()
        }
    }
}

impl Inner {
    fn next_version(&mut self, key: &[u8]) -> Version {
        debug_assert!(Partition::of(key).number() < henge_wire::PARTITIONS);
        self.seq += 1;
        Version::new(1, self.seq)
    }

    fn put(&mut self, key: &[u8], value: &Value<'_>, expiry: Expiry) -> (Version, Option<u64>) {
        let version = self.next_version(key);
        let expires_at_ms = match expiry {
            Expiry::Never => None,
            Expiry::At(at) => Some(at),
            Expiry::Keep => self.items.get(key).and_then(|kept| kept.expires_at_ms),
        };
        self.stats.sets += 1;
        self.items.insert(
            key.to_vec(),
            Kept {
                data: value.data.to_bytes(),
                encoding: value.encoding,
                raw_len: value.raw_len,
                json: value.json,
                content_type: value.content_type.map(str::to_owned),
                version,
                expires_at_ms,
            },
        );
        (version, expires_at_ms)
    }
}

/// The stand-in has no use for it, but the interface carries it.
const _: Precondition<'static> = Precondition::NONE;
