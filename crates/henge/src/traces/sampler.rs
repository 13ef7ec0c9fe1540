//! Which requests are traced: those whose `traceparent` says so, and of those that have none a part. Of these it counts down to the
//! next one, so that a request that is not taken costs a decrement.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderMap;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use super::{Context, Kind, Span, Traces};

/// What W3C Trace Context calls its headers.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// As much is put together of a `tracestate` in several headers; more is none.
const MOST_STATE_BYTES: usize = 4 * 1024;
/// There is no next one.
const NEVER: u64 = u64::MAX;

/// A data thread's part in this.
#[derive(Debug)]
pub(crate) struct Tracer {
    traces: Arc<Traces>,
    /// The ratio that `left` was drawn by, as bits.
    ratio: Cell<u64>,
    /// The next one is the one of this number.
    left: Cell<u64>,
}

impl Tracer {
    pub(crate) fn new(traces: &Arc<Traces>) -> Self {
        let ratio = traces.ratio.load(Ordering::Relaxed);
        Self {
            traces: Arc::clone(traces),
            ratio: Cell::new(ratio),
            left: Cell::new(draw(f64::from_bits(ratio))),
        }
    }

    /// The span of a request over HTTP with these headers, if it is traced.
    pub(crate) fn begin_http(
        &self,
        headers: &HeaderMap,
        name: impl FnOnce() -> String,
    ) -> Option<Box<Span>> {
        let parent = headers.get(TRACEPARENT).and_then(|value| {
            // Of several nobody knows which is meant (3.2.2).
            let is_one = headers.get_all(TRACEPARENT).iter().nth(1).is_none();
            Context::parse(value.as_bytes()).filter(|_| is_one)
        });
        let parent = match parent {
            None if self.decide() => None,
            Some(parent) if parent.is_sampled() => {
                let mut states = headers.get_all(TRACESTATE).iter();
                // Several are one list (3.3.1.1).
                let state = states.try_fold(Vec::new(), |mut all, state| {
                    if !all.is_empty() {
                        all.push(b',');
                    }
                    all.extend_from_slice(state.as_bytes());
                    (all.len() <= MOST_STATE_BYTES).then_some(all)
                });
                Some(parent.with_state(&state.unwrap_or_default()))
            }
            _ => return None,
        };
        Some(self.begin(parent.as_ref(), name().into(), Kind::Server))
    }

    /// The span of a command of the Redis protocol, if it is traced; `parent` is what its client has said before it.
    pub(crate) fn begin_command(
        &self,
        parent: Option<&Context>,
        name: &'static str,
    ) -> Option<Box<Span>> {
        let is_traced = match parent {
            Some(parent) => parent.is_sampled(),
            None => self.decide(),
        };
        is_traced.then(|| self.begin(parent, name.into(), Kind::Server))
    }

    /// The same of one that was chosen before, and could not run then.
    pub(crate) fn begin_chosen(&self, name: &'static str) -> Box<Span> {
        self.begin(None, name.into(), Kind::Server)
    }

    /// A span of what another node has asked, or told.
    pub(crate) fn begin_of(&self, parent: &Context, name: &'static str, kind: Kind) -> Box<Span> {
        self.begin(Some(parent), name.into(), kind)
    }

    fn begin(&self, parent: Option<&Context>, name: Cow<'static, str>, kind: Kind) -> Box<Span> {
        let parent = parent.map(|parent| (parent, true));
        Span::begin(&self.traces, parent, name, kind)
    }

    /// Whether a request that says nothing is traced.
    fn decide(&self) -> bool {
        let ratio = self.traces.ratio.load(Ordering::Relaxed);
        if ratio != self.ratio.get() {
            self.ratio.set(ratio);
            self.left.set(draw(f64::from_bits(ratio)));
        }
        match self.left.get() {
            NEVER => false,
            1 => {
                self.left.set(draw(f64::from_bits(ratio)));
                true
            }
            left => {
                self.left.set(left - 1);
                false
            }
        }
    }
}

/// Which of the next requests is traced: as far away as if chance had been asked for each of them, so that a pattern in the requests
/// meets none here.
fn draw(ratio: f64) -> u64 {
    /// What a float can tell apart.
    const STEPS: u64 = 1 << 53;
    if ratio <= 0.0 {
        return NEVER;
    }
    if ratio >= 1.0 {
        return 1;
    }
    let random = u64::from_be_bytes(RandomIdGenerator::default().new_span_id().to_bytes());
    let chance = (random % STEPS + 1) as f64 / STEPS as f64;
    let passed = (chance.ln() / (-ratio).ln_1p()).floor();
    // A float that is too large becomes the largest number, which would be never.
    #[expect(
        clippy::cast_sign_loss,
        reason = "it is the ratio of two that are not above 0"
    )]
    let passed = (passed as u64).min(NEVER - 2);
    passed + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_kept() {
        for (ratio, least, most) in [
            (0.0, 0, 0),
            (1.0, 100_000, 100_000),
            // Within five deviations.
            (0.5, 49_200, 50_800),
            (0.001, 50, 150),
        ] {
            let tracer = Tracer::new(&Traces::new("n1", ratio));
            let taken = (0..100_000).filter(|_| tracer.decide()).count();
            assert!((least..=most).contains(&taken), "{ratio}: {taken}");
        }
    }

    #[test]
    fn another_ratio_holds_at_once() {
        let all = Traces::new("n1", 0.0);
        let tracer = Tracer::new(&all);
        assert!(!tracer.decide());
        all.set_ratio(1.0);
        assert!(tracer.decide());
        all.set_ratio(0.0);
        assert!(!tracer.decide());
    }
}
