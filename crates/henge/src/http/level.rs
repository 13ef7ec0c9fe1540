//! The consistency level of a request and of its answer.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::problem::{Code, Problem};
use crate::config::ConsistencyLevel;

/// The header.
pub(crate) const X_CONSISTENCY_LEVEL: HeaderName = HeaderName::from_static("x-consistency-level");

/// How many replicas are known to have what an answer shows or says to be done: of several keys the fewest.
pub(crate) const X_REPLICAS: HeaderName = HeaderName::from_static("x-replicas");

/// As HTTP spells it.
pub(crate) const fn name(level: ConsistencyLevel) -> &'static str {
    match level {
        ConsistencyLevel::One => "ONE",
        ConsistencyLevel::Quorum => "QUORUM",
        ConsistencyLevel::All => "ALL",
    }
}

/// As the answer carries it.
#[inline]
pub(crate) const fn header(level: ConsistencyLevel) -> HeaderValue {
    HeaderValue::from_static(name(level))
}

/// The level, or QUORUM where that is more.
pub(crate) const fn at_least_quorum(level: ConsistencyLevel) -> ConsistencyLevel {
    match level {
        ConsistencyLevel::One => ConsistencyLevel::Quorum,
        more => more,
    }
}

/// What the request asks for, or the default.
#[inline]
pub(crate) fn of(
    headers: &HeaderMap,
    default: ConsistencyLevel,
) -> Result<ConsistencyLevel, Problem> {
    let mut values = headers.get_all(X_CONSISTENCY_LEVEL).iter();
    let Some(first) = values.next() else {
        return Ok(default);
    };
    let level = parse(first)?;
    for other in values {
        if parse(other)? != level {
            let detail = "X-Consistency-Level came twice, with two levels; expected one";
            return Err(Problem::new(Code::InvalidConsistencyLevel, detail));
        }
    }
    Ok(level)
}

fn parse(value: &HeaderValue) -> Result<ConsistencyLevel, Problem> {
    let text = value.as_bytes().trim_ascii();
    let same = |level: &ConsistencyLevel| text.eq_ignore_ascii_case(name(*level).as_bytes());
    let level = ConsistencyLevel::ALL.iter().copied().find(same);
    level.ok_or_else(|| {
        let detail = format!("X-Consistency-Level is {value:?}; expected ONE, QUORUM or ALL");
        Problem::new(Code::InvalidConsistencyLevel, detail)
    })
}
