//! The consistency level of a request and of its answer. With one replica all levels mean the same; the header is
//! accepted, checked and answered from the first day, so that clients written now keep their meaning in a cluster.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::problem::{Code, Problem};
use crate::config::ConsistencyLevel;

/// The header.
pub(crate) const X_CONSISTENCY_LEVEL: HeaderName = HeaderName::from_static("x-consistency-level");

/// How many replicas must have agreed before a request is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    One,
    Quorum,
    All,
}

impl From<ConsistencyLevel> for Level {
    fn from(level: ConsistencyLevel) -> Self {
        match level {
            ConsistencyLevel::One => Self::One,
            ConsistencyLevel::Quorum => Self::Quorum,
            ConsistencyLevel::All => Self::All,
        }
    }
}

impl Level {
    const EVERY: [Self; 3] = [Self::One, Self::Quorum, Self::All];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::One => "ONE",
            Self::Quorum => "QUORUM",
            Self::All => "ALL",
        }
    }

    /// As the answer carries it.
    #[inline]
    pub(crate) const fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// What the request asks for, or the default.
    #[inline]
    pub(crate) fn of(headers: &HeaderMap, default: Self) -> Result<Self, Problem> {
        match headers.get(X_CONSISTENCY_LEVEL) {
            None => Ok(default),
            Some(value) => Self::parse(value),
        }
    }

    fn parse(value: &HeaderValue) -> Result<Self, Problem> {
        let text = value.as_bytes().trim_ascii();
        let same = |level: &Self| text.eq_ignore_ascii_case(level.name().as_bytes());
        Self::EVERY.into_iter().find(same).ok_or_else(|| {
            let detail = format!("X-Consistency-Level is {value:?}; expected ONE, QUORUM or ALL");
            Problem::new(Code::InvalidConsistencyLevel, detail)
        })
    }
}
