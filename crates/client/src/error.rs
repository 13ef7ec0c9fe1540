//! What can go wrong with a request, and what it leaves behind. The one difference that matters to a caller is whether a
//! write may have happened; it is in the type, and not in the text.

use std::time::Duration;
use std::{fmt, io};

use crate::{EncryptionError, TargetError, TypedError};

/// Why a request brought no answer that the caller asked for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The URL is none that a client can use. Nothing was sent.
    Target(TargetError),
    /// An argument that no server could take. Nothing was sent.
    Argument(&'static str),
    /// Every connection of the pool was in use for the whole time that the request had. Nothing was sent.
    Busy(Duration),
    /// There is no connection to the server. Nothing was sent.
    Connect {
        /// The server, as `host:port`.
        server: String,
        /// What went wrong.
        cause: Cause,
    },
    /// The server answered that it does not do this. Nothing was changed.
    Refused {
        /// A word that programs can rely on: `NOAUTH`, `memory_full`.
        code: String,
        /// What the server says about it.
        message: String,
    },
    /// The request was not answered, and changed nothing: it only reads, or was never sent as a whole.
    Unanswered(Cause),
    /// A write was sent and not answered, or answered by that. The server may have carried it out, or may yet; only reading the
    /// key tells. It was not sent again.
    Unknown(Cause),
    /// The client has keys to encrypt values, and the value of a key does not open, or the one to store was not sealed. Nothing was
    /// changed.
    Encryption(EncryptionError),
    /// The value of a key is not of the type that was asked for, or the one to store has no form. Nothing was changed.
    Typed(TypedError),
}

/// What happened to an exchange of bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Cause {
    /// It took longer than this.
    TimedOut(Duration),
    /// The server closed the connection.
    Closed,
    /// The system says so.
    Io(io::Error),
    /// What the server sent is not of the protocol, or does not answer what was asked.
    Protocol(String),
    /// The server, or something before it, says that it failed within the request: an HTTP status and text, or what `UNKNOWN`
    /// says in the Redis protocol.
    Server(String),
}

impl Error {
    /// Whether a write may have happened although there is no answer.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    /// Whether a fresh connection may do better, and nothing was changed.
    pub(crate) fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::Unanswered(Cause::Closed | Cause::Io(_)))
    }

    /// Whether it is what a server said, and not that none did.
    pub(crate) fn is_of_a_server(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Unanswered(cause) | Self::Unknown(cause) => matches!(cause, Cause::Server(_)),
            _ => false,
        }
    }

    /// Whether a server refused for a reason that passes: it loads, or its part of the cluster is without a leader. Nothing
    /// was changed.
    pub(crate) fn is_passing(&self) -> bool {
        let passes = |code: &str| {
            matches!(
                code,
                "CLUSTERDOWN"
                    | "TRYAGAIN"
                    | "try_again"
                    | "owner_down"
                    | "owner_unreachable"
                    | "no_control_leader"
                    | "not_in_cluster"
            )
        };
        self.is_loading() || matches!(self, Self::Refused { code, .. } if passes(code))
    }

    /// Whether a server refused as its client asks too often. Nothing was changed.
    pub(crate) fn is_of_rate(&self) -> bool {
        match self {
            Self::Refused { code, message } => {
                code == "rate_limit_exceeded" || message.starts_with("rate limit exceeded")
            }
            _ => false,
        }
    }

    /// Whether a server refused as it is not ready for anything. Nothing was changed.
    pub(crate) fn is_loading(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code.eq_ignore_ascii_case("loading"))
    }

    /// A request that ended without an answer: of a write that may have arrived the outcome is unknown.
    pub(crate) fn without_answer(cause: Cause, may_have_happened: bool) -> Self {
        if may_have_happened {
            Self::Unknown(cause)
        } else {
            Self::Unanswered(cause)
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(error) => error.fmt(f),
            Self::Argument(what) => f.write_str(what),
            Self::Encryption(error) => error.fmt(f),
            Self::Typed(error) => error.fmt(f),
            Self::Busy(after) => write!(
                f,
                "no connection of the pool was free within {after:?}; nothing was sent"
            ),
            Self::Connect { server, cause } => write!(f, "no connection to {server}: {cause}"),
            Self::Refused { code, message } if message.is_empty() => {
                write!(f, "the server refused: {code}")
            }
            Self::Refused { code, message } => write!(f, "the server refused: {code}: {message}"),
            Self::Unanswered(cause) => write!(f, "no answer, and nothing was changed: {cause}"),
            Self::Unknown(cause) => write!(
                f,
                "no answer, and it is unknown whether the write happened: {cause}"
            ),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(after) => {
                // What was left for it may be a little less than the time-out that the caller knows.
                let ms = after.as_secs_f64() * 1000.0;
                let after = Duration::from_secs_f64(ms.round() / 1000.0);
                write!(f, "timed out after {after:?}")
            }
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Io(error) => error.fmt(f),
            Self::Protocol(what) | Self::Server(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Target(error) => Some(error),
            Self::Encryption(error) => Some(error),
            Self::Typed(error) => Some(error),
            Self::Connect { cause, .. } | Self::Unanswered(cause) | Self::Unknown(cause) => {
                match cause {
                    Cause::Io(error) => Some(error),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

impl From<TargetError> for Error {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}

impl From<EncryptionError> for Error {
    fn from(error: EncryptionError) -> Self {
        Self::Encryption(error)
    }
}

impl From<TypedError> for Error {
    fn from(error: TypedError) -> Self {
        Self::Typed(error)
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // All of these are the other side going away, by the words of different moments.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let table = [
            (
                Error::without_answer(Cause::Closed, true),
                "no answer, and it is unknown whether the write happened: the server closed the connection",
            ),
            (
                Error::without_answer(Cause::TimedOut(Duration::from_nanos(4_999_974_562)), false),
                "no answer, and nothing was changed: timed out after 5s",
            ),
            (
                Error::Refused {
                    code: "OOM".to_owned(),
                    message: String::new(),
                },
                "the server refused: OOM",
            ),
            (
                Error::Busy(Duration::from_millis(500)),
                "no connection of the pool was free within 500ms; nothing was sent",
            ),
        ];
        for (error, line) in table {
            assert_eq!(error.to_string(), line);
            assert_eq!(error.is_unknown(), line.contains("unknown"));
        }
    }

    #[test]
    fn some_refusals_pass() {
        for (code, passes, loads) in [
            ("LOADING", true, true),
            ("loading", true, true),
            ("CLUSTERDOWN", true, false),
            ("TRYAGAIN", true, false),
            ("try_again", true, false),
            ("owner_down", true, false),
            ("owner_unreachable", true, false),
            ("no_control_leader", true, false),
            ("not_in_cluster", true, false),
            ("memory_full", false, false),
            ("rate_limit_exceeded", false, false),
            ("MOVED", false, false),
            ("overloaded", false, false),
        ] {
            let error = Error::Refused {
                code: code.to_owned(),
                message: String::new(),
            };
            assert_eq!((error.is_passing(), error.is_loading()), (passes, loads));
        }
        let refused = |code: &str, message: &str| Error::Refused {
            code: code.to_owned(),
            message: message.to_owned(),
        };
        assert!(refused("ERR", "rate limit exceeded, retry in 5 ms").is_of_rate());
        assert!(refused("rate_limit_exceeded", "").is_of_rate());
        assert!(!refused("ERR", "unknown command").is_of_rate());
        assert!(!Error::Unknown(Cause::Closed).is_passing());
        assert!(!Error::Unknown(Cause::Closed).is_of_a_server());
        assert!(Error::Unknown(Cause::Server(String::new())).is_of_a_server());
    }

    #[test]
    fn only_a_broken_connection_is_worth_a_retry() {
        let reset = || Cause::from(io::Error::from(io::ErrorKind::ConnectionReset));
        assert!(Error::Unanswered(reset()).is_worth_a_retry());
        assert!(!Error::Unknown(reset()).is_worth_a_retry());
        let late = Cause::TimedOut(Duration::ZERO);
        assert!(!Error::Unanswered(late).is_worth_a_retry());
    }
}
