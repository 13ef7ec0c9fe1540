//! In which trace something happens, and under which span: as requests say it (W3C Trace Context), and as nodes tell each other.

use std::str::FromStr;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use henge_cluster::carrier;
use opentelemetry::trace::TraceState;
use opentelemetry::{SpanId, TraceId};

/// `00-` and 32 digits, 16, and 2, with `-` between them.
const TRACEPARENT_BYTES: usize = 55;
/// The longest `tracestate` that is passed on: what the recommendation asks for at the least (3.3.1.5).
const TRACESTATE_BYTES: usize = 512;
/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;
/// Flags that mean something: that, and that the trace's number is random.
const FLAGS: u8 = 3;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Context {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) flags: u8,
    /// What others have to say of the trace, in the form of its header.
    pub(crate) state: Option<Arc<str>>,
}

impl Context {
    /// Of a trace that begins here.
    pub(super) fn new(trace: TraceId, span: SpanId) -> Self {
        Self {
            trace,
            span,
            flags: SAMPLED,
            state: None,
        }
    }

    /// What a `traceparent` says; none of one that is malformed, as the recommendation has it (3.2). Of a later version the beginning
    /// is read.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(TRACEPARENT_BYTES)?;
        let number = |from: usize, to: usize| hexadecimal(&known[from..to]);
        let version = number(0, 2)?;
        let is_whole = more.is_empty() || version > 0 && more[0] == b'-';
        let are_apart = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        if version == 0xff || !is_whole || !are_apart {
            return None;
        }
        let trace = TraceId::from(number(3, 35)?);
        let span = SpanId::from(number(36, 52)? as u64);
        let flags = number(53, 55)? as u8 & FLAGS;
        (trace != TraceId::INVALID && span != SpanId::INVALID).then_some(Self {
            trace,
            span,
            flags,
            state: None,
        })
    }

    /// With a `tracestate`, if that is one and not too long.
    pub(crate) fn with_state(mut self, state: &[u8]) -> Self {
        let state = str::from_utf8(state).ok();
        let state = state.filter(|state| !state.is_empty() && state.len() <= TRACESTATE_BYTES);
        let is_one = |state: &&str| TraceState::from_str(state).is_ok();
        self.state = state.filter(is_one).map(Into::into);
        self
    }

    /// Whether the trace is recorded.
    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// As replicas are told it.
    pub(crate) fn encode(&self) -> carrier::Context {
        let mut bytes = carrier::Context::default();
        bytes[..16].copy_from_slice(&self.trace.to_bytes());
        bytes[16..24].copy_from_slice(&self.span.to_bytes());
        bytes[24] = self.flags;
        bytes
    }

    /// What another node has told; none of what makes no sense, or is of no recorded trace.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let context = Self {
            trace: TraceId::from(bytes.try_get_u128().ok()?),
            span: SpanId::from(bytes.try_get_u64().ok()?),
            flags: bytes.try_get_u8().ok()? & FLAGS,
            state: None,
        };
        let is_one = context.trace != TraceId::INVALID && context.span != SpanId::INVALID;
        (is_one && context.is_sampled()).then_some(context)
    }
}

/// A number of lower-case digits.
fn hexadecimal(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// A question of a traced request: what it is about, and in which trace.
///
/// ```text
/// question  25 bytes of context | u16 length, tracestate | u8 service | what that service is asked
/// ```
#[derive(Debug)]
pub(crate) struct Wrapped {
    /// None where what was told of a trace makes no sense.
    pub(crate) context: Option<Context>,
    pub(crate) service: u8,
    pub(crate) question: Bytes,
}

impl Wrapped {
    /// What stands before a question.
    pub(crate) fn head(context: &Context, service: u8) -> Vec<u8> {
        let state = context.state.as_deref().unwrap_or_default();
        let mut head = context.encode().to_vec();
        head.put_u16_le(state.len() as u16);
        head.put_slice(state.as_bytes());
        head.put_u8(service);
        head
    }

    /// None where there is no question.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        let context = bytes.split_to_checked(size_of::<carrier::Context>())?;
        let length = bytes.try_get_u16_le().ok()?;
        let state = bytes.split_to_checked(length.into())?;
        let service = bytes.try_get_u8().ok()?;
        let context = Context::decode(&context);
        Some(Self {
            context: context.map(|context| context.with_state(&state)),
            service,
            question: bytes,
        })
    }
}

trait SplitChecked: Sized {
    fn split_to_checked(&mut self, bytes: usize) -> Option<Self>;
}

impl SplitChecked for Bytes {
    fn split_to_checked(&mut self, bytes: usize) -> Option<Self> {
        (bytes <= self.len()).then(|| self.split_to(bytes))
    }
}
