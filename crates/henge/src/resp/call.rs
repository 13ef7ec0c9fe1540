//! One call of a command: what its handler sees and what it may answer, and how arguments are read. Each error that Redis
//! has is Redis's own, word for word, as clients compare them.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use henge_wire::resp::request::{Arguments, integer};
use henge_wire::resp::writer::{Output, Writer};
use henge_wire::{Command, DataType, Glob, Item, MAX_PATTERN_BYTES, Operation, Refusal, Reply};

use super::counted::{Counted, counted};
use super::session::Session;
use super::table::Spec;
use crate::access::caller::{Caller, Denied, NOT_YET, PROTECTED};
use crate::access::entry::DEFAULT_USER;
use crate::cache::{Cache, Location};
use crate::cluster::keys::Elsewhere;
use crate::net::data_thread::Local;
use crate::values::{Found, ValueError};

/// A reply that is not there yet.
pub(crate) type Later = Pin<Box<dyn Future<Output = Result<Output, ErrorReply>>>>;

/// What follows a call that was not refused.
pub(crate) enum Flow {
    /// The reply is written.
    Done,
    /// The reply comes later; commands that follow on the connection wait for it.
    Later(Later),
    /// The reply is written, and is the connection's last.
    Close,
}

/// A refusal: the line of an error, with its code in front.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ErrorReply(pub(crate) Cow<'static, str>);

impl ErrorReply {
    pub(crate) const SYNTAX: Self = Self::fixed("ERR syntax error");
    pub(crate) const NOT_AN_INTEGER: Self =
        Self::fixed("ERR value is not an integer or out of range");
    pub(crate) const NOT_A_FLOAT: Self = Self::fixed("ERR value is not a valid float");
    pub(crate) const OVERFLOW: Self = Self::fixed("ERR increment or decrement would overflow");
    pub(crate) const NO_SUCH_KEY: Self = Self::fixed("ERR no such key");
    pub(crate) const CROSS_SLOT: Self =
        Self::fixed("CROSSSLOT Keys in request don't hash to the same slot");
    pub(crate) const OUT_OF_MEMORY: Self =
        Self::fixed("OOM command not allowed when used memory > 'maxmemory'.");
    /// Beside Redis's own: what could never fit is told from what does not fit now.
    pub(crate) const TOO_LARGE: Self =
        Self::fixed("OOM the item is larger than cache.max_size_bytes can hold");
    /// The code is Redis's for a disk that fails.
    pub(crate) const LOG_FAILED: Self = Self::fixed(
        "MISCONF the write-ahead log cannot be written, so writes are refused and reads are served. See the log of the node, or INFO persistence.",
    );
    pub(crate) const LOG_BEHIND: Self = Self::fixed(
        "MISCONF the write-ahead log is behind: what waits for the disk holds its part of limits.max_inflight_bytes, so writes are refused until that is written, and reads are served",
    );
    /// The code is that of Redis for what may be asked again.
    pub(crate) const NOT_OPEN: Self =
        Self::fixed("TRYAGAIN the leader of this key's partition is changing; nothing was done");
    /// As Redis has it, but for the name.
    pub(crate) const LOADING: Self = Self::fixed("LOADING Henge is loading the dataset in memory");
    /// The code of whatever may have been done, or a part of it.
    pub(crate) const UNKNOWN_CODE: &'static str = "UNKNOWN";
    pub(crate) const UNKNOWN: Self = Self::fixed(
        "UNKNOWN the write-ahead log failed meanwhile: what was written, or seen, may or may not survive a restart",
    );
    /// Redis's words for who is asked for a password.
    pub(crate) const NO_AUTH: Self = Self::fixed("NOAUTH Authentication required.");
    pub(crate) const WRONG_PASS: Self =
        Self::fixed("WRONGPASS invalid username-password pair or user is disabled.");
    pub(crate) const NO_KEY_PERMISSION: Self = Self::fixed("NOPERM No permissions to access a key");
    pub(crate) const KEY_TOO_LONG: Self = Self::fixed("ERR a key has at most 65536 bytes");
    /// Redis names its own setting in it; ours is `limits.max_value_bytes`.
    pub(crate) const VALUE_TOO_LONG: Self =
        Self::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    pub(crate) const REPLY_TOO_LONG: Self = Self::fixed(
        "ERR the reply would hold more than limits.max_inflight_bytes leaves, or of its address limits.max_inflight_bytes_per_address; ask for less at a time",
    );

    /// Four times the longest key, see [`MAX_PATTERN_BYTES`].
    pub(crate) const PATTERN_TOO_LONG: Self = Self::fixed("ERR a pattern has at most 262144 bytes");
    pub(crate) const IN_FLIGHT: Self = Self::fixed(
        "OOM requests and replies hold limits.max_inflight_bytes, or of its address limits.max_inflight_bytes_per_address; there is no room to work on this one",
    );

    pub(crate) const fn fixed(line: &'static str) -> Self {
        Self(Cow::Borrowed(line))
    }

    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self(Cow::Owned(line.into()))
    }

    pub(crate) fn wrong_arity(name: &str) -> Self {
        Self::new(format!(
            "ERR wrong number of arguments for '{name}' command"
        ))
    }

    pub(crate) fn invalid_expire(name: &str) -> Self {
        Self::new(format!("ERR invalid expire time in '{name}' command"))
    }

    /// More is asked than there are tokens for.
    #[cold]
    pub(crate) fn rate_limit_exceeded(wait_ms: u64) -> Self {
        Self::new(format!("ERR rate limit exceeded, retry in {wait_ms} ms"))
    }

    /// Who asked for this command, or for none, may not.
    pub(crate) fn denied(denied: Denied, caller: &Caller, command: Option<&str>) -> Self {
        match denied {
            Denied::Protected => Self::new(format!("DENIED {PROTECTED}")),
            // That of a node which is not in its cluster: clients come again, or go elsewhere.
            Denied::NotYet => Self::new(format!("CLUSTERDOWN {NOT_YET}")),
            Denied::Unknown => Self::NO_AUTH,
            Denied::Permission(_) => Self::new(format!(
                "NOPERM User {} has no permissions to run the '{}' command",
                caller.name().unwrap_or(DEFAULT_USER),
                command.unwrap_or_default()
            )),
            Denied::Scope => Self::NO_KEY_PERMISSION,
        }
    }

    /// What the engine refused, where nothing else can be meant.
    pub(crate) fn of(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotAnInteger => Self::NOT_AN_INTEGER,
            Refusal::Overflow => Self::OVERFLOW,
            Refusal::MemoryFull => Self::OUT_OF_MEMORY,
            Refusal::TooLarge => Self::TOO_LARGE,
            Refusal::LogFailed => Self::LOG_FAILED,
            Refusal::LogBehind => Self::LOG_BEHIND,
            Refusal::NotOpen => Self::NOT_OPEN,
            Refusal::PreconditionFailed(_) => {
                unreachable!("a precondition's failure is its command's to answer")
            }
        }
    }

    /// Whether it is one of those that are said before anything is run, and not for good.
    pub(crate) fn says_nothing_was_done(&self) -> bool {
        matches!(self.code(), "CLUSTERDOWN" | "TRYAGAIN" | "LOADING")
    }

    /// Replicas have not said in time that they have what was written; so many are known to have it, if that is known.
    pub(crate) fn unknown_at_replicas(replicas: Option<usize>) -> Self {
        let known = match replicas {
            None => String::new(),
            Some(replicas) => format!(", and {replicas} are known to have it"),
        };
        Self::new(format!(
            "{} replicas have not said in time that they have it{known}: what was written may or may not have been",
            Self::UNKNOWN_CODE
        ))
    }

    /// The code: its first word.
    pub(crate) fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }
}

impl From<Elsewhere> for ErrorReply {
    #[cold]
    fn from(elsewhere: Elsewhere) -> Self {
        let code = match elsewhere {
            Elsewhere::Outside(_)
            | Elsewhere::Nowhere
            | Elsewhere::Down(_)
            | Elsewhere::Minority
            | Elsewhere::Unreachable(..) => "CLUSTERDOWN",
            Elsewhere::NotThere(_) | Elsewhere::NotOpen => "TRYAGAIN",
            Elsewhere::Unknown(..) | Elsewhere::UnknownHere(_) => Self::UNKNOWN_CODE,
            Elsewhere::NoRoom => "OOM",
        };
        Self::new(format!("{code} {elsewhere}"))
    }
}

impl From<ValueError> for ErrorReply {
    fn from(error: ValueError) -> Self {
        match error {
            ValueError::TooLarge { .. } => Self::VALUE_TOO_LONG,
            ValueError::NoRoom => Self::IN_FLIGHT,
            other => Self::new(format!("ERR {other}")),
        }
    }
}

/// The string that a command on strings found, if the key has an item. Here, and nowhere else, is refused what is of
/// another type: a match that is no longer complete when there is one.
#[expect(clippy::unnecessary_wraps, reason = "there is only one type yet")]
#[inline]
pub(crate) fn string(reply: Reply<'_>) -> Result<Option<Item<'_>>, ErrorReply> {
    match reply {
        Reply::Found(item) => match item.value.data_type {
            DataType::String => Ok(Some(item)),
        },
        _ => Ok(None),
    }
}

/// A pattern that a client gave.
pub(crate) fn glob(pattern: &[u8]) -> Result<Glob, ErrorReply> {
    check_pattern(pattern)?;
    Ok(Glob::new(pattern))
}

/// Refuses a pattern that is longer than any that is worth parsing.
pub(crate) fn check_pattern(pattern: &[u8]) -> Result<(), ErrorReply> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(ErrorReply::PATTERN_TOO_LONG);
    }
    Ok(())
}

/// See the head of the file.
pub(crate) struct Call<'a> {
    pub(crate) spec: &'static Spec,
    /// The words of the command, its name first.
    pub(crate) words: Arguments<'a>,
    pub(crate) out: Writer<'a>,
    pub(crate) session: &'a mut Session,
    pub(crate) local: &'a Rc<Local>,
    /// The time of the call, in milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
    /// From how many bytes on a value may have to be compressed, or refused: only below this may it go in as it is.
    pub(crate) compress_from: usize,
    /// Where its first key lies, if it was looked up ahead.
    pub(crate) first_key: Option<Location>,
}

impl<'a> Call<'a> {
    /// The argument at a place; the name is at 0. It must be there, by the arity.
    #[inline]
    pub(crate) fn word(&self, index: usize) -> &'a [u8] {
        self.words
            .get(index)
            .expect("the arity of a command was checked")
    }

    #[inline]
    pub(crate) fn cache(&self) -> &'a Cache {
        &self.local.shared.cache
    }

    /// The integer at a place.
    pub(crate) fn integer(&self, index: usize) -> Result<i64, ErrorReply> {
        integer(self.word(index)).ok_or(ErrorReply::NOT_AN_INTEGER)
    }

    /// Whether the word at a place is this one, in any case.
    pub(crate) fn is(&self, index: usize, word: &str) -> bool {
        self.words
            .get(index)
            .is_some_and(|given| given.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Where a key lies.
    #[inline]
    pub(crate) fn locate(&self, index: usize, key: &[u8]) -> Location {
        match self.first_key {
            Some(at) if index == 1 => at,
            _ => self.cache().locate(key),
        }
    }

    /// Runs an operation on the key at a place.
    #[inline]
    pub(crate) fn on_key<R>(
        &self,
        index: usize,
        operation: Operation<'_>,
        answer: impl FnOnce(Reply<'_>) -> R,
    ) -> R {
        let key = self.word(index);
        let at = self.locate(index, key);
        self.cache()
            .execute_at(at, &Command { key, operation }, self.now_ms, answer)
    }

    /// Answers a value that was copied out of the cache.
    pub(crate) fn answer_value(&mut self, found: Found) -> Result<Flow, ErrorReply> {
        if found.is_quick() {
            self.out.bulk_shared(found.raw()?);
            return Ok(Flow::Done);
        }
        self.eventually(async move |out| {
            let value = found.raw_in_time(out.in_flight()).await?;
            out.bulk_shared(value);
            Ok(())
        })
    }

    /// Answers by a future, at once if it need not wait.
    pub(crate) fn eventually(
        &mut self,
        write: impl AsyncFnOnce(&mut Counted<'_>) -> Result<(), ErrorReply> + 'static,
    ) -> Result<Flow, ErrorReply> {
        self.eventually_with(0, write)
    }

    /// The same, where the future keeps so many bytes of the request. What is stored as it came need not be counted: the
    /// cache charges it.
    pub(crate) fn eventually_with(
        &mut self,
        copied: usize,
        write: impl AsyncFnOnce(&mut Counted<'_>) -> Result<(), ErrorReply> + 'static,
    ) -> Result<Flow, ErrorReply> {
        let protocol = self.out.protocol();
        let local = Rc::clone(self.local);
        let mut future =
            Box::pin(
                async move { counted(&local.shared.in_flight, protocol, copied, write).await },
            );
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(Ok(reply)) => {
                self.out.output().append(reply);
                Ok(Flow::Done)
            }
            Poll::Ready(Err(error)) => Err(error),
            // It is polled again at once, with a waker that wakes.
            Poll::Pending => Ok(Flow::Later(future)),
        }
    }

    /// What a look at a key's item is for this client: one that said `CLIENT NO-TOUCH` leaves no trace.
    #[inline]
    pub(crate) fn look(&self) -> Operation<'static> {
        if self.session.no_touch {
            Operation::Peek
        } else {
            Operation::Get
        }
    }
}
