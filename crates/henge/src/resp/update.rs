//! Commands that make a new value of the old one: the item is read with its version, the change is computed outside of every
//! lock, and written if the version is still the same. Who lost the race begins again, as somebody has won it; but not for ever, as
//! a change of megabytes may lose to quick ones as long as they come.

use std::rc::Rc;

use bytes::Bytes;
use henge_wire::{
    Command, Encoding, Expiry, Match, Operation, Precondition, Refusal, Reply, Version,
};

use super::call::{Call, ErrorReply, Flow, string};
use crate::net::data_thread::Local;
use crate::values::{Found, encode};

/// A live item, as a change sees it.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    /// The value as the client gave it.
    pub(crate) value: Bytes,
    pub(crate) version: Version,
    /// It was decompressed for this command.
    is_decompressed: bool,
}

impl Current {
    /// The memory that it takes beside the cache.
    pub(crate) fn decompressed_bytes(&self) -> usize {
        if self.is_decompressed {
            self.value.len()
        } else {
            0
        }
    }
}

/// What becomes of a key.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// It stays as it is.
    None,
    /// It holds this value.
    Put { value: Bytes, expiry: Expiry },
    /// It keeps its value and lives as long as this says.
    Expire(Expiry),
    /// It is gone.
    Delete,
}

/// What the client is told.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Ok,
    Null,
    Integer(i64),
    /// A length, as an integer.
    Count(usize),
    Bulk(Bytes),
}

/// The cache as one command sees it, with a life of its own.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) local: Rc<Local>,
    pub(crate) now_ms: u64,
}

impl Store {
    pub(crate) fn of(call: &Call<'_>) -> Self {
        Self {
            local: Rc::clone(call.local),
            now_ms: call.now_ms,
        }
    }

    /// The item of a key, by `Operation::Get` or `Operation::Peek`.
    pub(crate) async fn current(
        &self,
        key: &[u8],
        look: &Operation<'_>,
    ) -> Result<Option<Current>, ErrorReply> {
        let command = Command {
            key,
            operation: look.clone(),
        };
        let found = self.execute(&command, |reply| {
            string(reply).map(|item| item.map(|item| Found::copy(&item)))
        });
        let Some(found) = found? else {
            return Ok(None);
        };
        Ok(Some(Current {
            value: found.raw_in_time(&self.local.shared.in_flight).await?,
            version: found.version,
            is_decompressed: found.encoding != Encoding::Raw,
        }))
    }

    /// Makes a change if the precondition holds; says whether it did.
    pub(crate) async fn change(
        &self,
        key: &[u8],
        change: Change,
        precondition: Precondition<'_>,
    ) -> Result<bool, ErrorReply> {
        let refused = match change {
            Change::None => return Ok(true),
            Change::Put { value, expiry } => {
                let encoded = encode(&self.local, value, false).await?;
                let operation = Operation::Set {
                    value: encoded.value(None),
                    expiry,
                    precondition,
                };
                self.execute(&Command { key, operation }, refusal)
            }
            Change::Expire(expiry) => {
                let operation = Operation::Expire {
                    expiry,
                    precondition,
                };
                self.execute(&Command { key, operation }, refusal)
            }
            Change::Delete => {
                let operation = Operation::Delete { precondition };
                self.execute(&Command { key, operation }, refusal)
            }
        };
        match refused {
            None => Ok(true),
            Some(Refusal::PreconditionFailed(_)) => Ok(false),
            Some(refusal) => Err(ErrorReply::of(refusal)),
        }
    }

    fn execute<R>(&self, command: &Command<'_>, answer: impl FnOnce(Reply<'_>) -> R) -> R {
        let cache = &self.local.shared.cache;
        cache.execute(command, self.now_ms, answer)
    }
}

/// Why an operation did nothing, if it did nothing.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is called with what the cache answers"
)]
pub(crate) fn refusal(reply: Reply<'_>) -> Option<Refusal> {
    match reply {
        Reply::Refused(refusal) => Some(refusal),
        _ => None,
    }
}

/// Holds if a key is as it was when it was read.
fn unchanged(version: Option<&Version>) -> Precondition<'_> {
    match version {
        Some(version) => Precondition {
            matches: Some(Match::OneOf(std::slice::from_ref(version))),
            none_matches: None,
        },
        None => Precondition {
            matches: None,
            none_matches: Some(Match::Any),
        },
    }
}

/// How often a change is tried before its client is told. Among quick ones on many cores one may lose some hundred times.
const MOST_ATTEMPTS: u32 = 1_000;
/// How much is read and made for one change before its client is told: several seconds of compression.
const MOST_ATTEMPTED_BYTES: usize = 512 << 20;

/// The attempts at a change that others' changes can get ahead of.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    begun: u32,
    bytes: usize,
}

impl Attempts {
    /// To be called before each of them.
    #[inline]
    pub(crate) fn begin(&mut self) -> Result<(), ErrorReply> {
        if self.begun == MOST_ATTEMPTS || self.bytes > MOST_ATTEMPTED_BYTES {
            return Err(ErrorReply::fixed(
                "ERR nothing was changed: others changed the key first, each time that it was tried",
            ));
        }
        self.begun += 1;
        Ok(())
    }

    /// This one read and made so many bytes.
    #[inline]
    pub(crate) fn worked_on(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl Call<'_> {
    /// Changes the call's first key by what `compute` makes of its item. `look` says whether reading it counts as a use:
    /// [`Call::look`] where the client is told what was there.
    pub(crate) fn update(
        &mut self,
        look: Operation<'static>,
        mut compute: impl FnMut(Option<&Current>) -> Result<(Change, Answer), ErrorReply> + 'static,
    ) -> Result<Flow, ErrorReply> {
        let (store, key) = (Store::of(self), Bytes::copy_from_slice(self.word(1)));
        // What `compute` keeps is of them.
        let copied = self.words.from(1).map(<[u8]>::len).sum();
        self.eventually_with(copied, async move |out| {
            let mut attempts = Attempts::default();
            let answer = loop {
                attempts.begin()?;
                let current = store.current(&key, &look).await?;
                let (change, answer) = compute(current.as_ref())?;
                let old_bytes = current.as_ref().map_or(0, Current::decompressed_bytes);
                let new_bytes = match &change {
                    Change::Put { value, .. } => value.len(),
                    Change::None | Change::Expire(_) | Change::Delete => 0,
                };
                out.account_with(old_bytes + new_bytes)?;
                attempts.worked_on(old_bytes + new_bytes);
                let version = current.map(|current| current.version);
                if store
                    .change(&key, change, unchanged(version.as_ref()))
                    .await?
                {
                    break answer;
                }
            };
            match answer {
                Answer::Ok => out.ok(),
                Answer::Null => out.null(),
                Answer::Integer(value) => out.integer(value),
                Answer::Count(value) => out.count(value),
                Answer::Bulk(value) => out.bulk_shared(value),
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_end_in_an_error() {
        let mut attempts = Attempts::default();
        for _ in 0..MOST_ATTEMPTS {
            assert!(attempts.begin().is_ok());
        }
        assert!(attempts.begin().is_err());
        assert!(attempts.begin().is_err(), "and stay there");

        let mut attempts = Attempts::default();
        for _ in 0..9 {
            assert!(attempts.begin().is_ok());
            attempts.worked_on(64 << 20);
        }
        assert!(attempts.begin().is_err(), "much was worked on");
    }
}
