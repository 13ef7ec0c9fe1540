//! A part of a trace that is under way. It ends when it is dropped, so that what is broken off is told as well.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{Key, KeyValue, SpanId, Value};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};

use super::{Called, Context, Scope, Traces};

pub(crate) use opentelemetry::trace::SpanKind as Kind;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Span {
    scope: Scope,
    /// The span that it is a part of, and whether that is of another process.
    parent: Option<(SpanId, bool)>,
    name: Cow<'static, str>,
    kind: SpanKind,
    started_at: SystemTime,
    began: Instant,
    attributes: Vec<KeyValue>,
    has_failed: bool,
    is_discarded: bool,
}

impl Span {
    pub(super) fn begin(
        traces: &Arc<Traces>,
        parent: Option<(&Context, bool)>,
        name: Cow<'static, str>,
        kind: SpanKind,
    ) -> Box<Self> {
        let numbers = RandomIdGenerator::default();
        let span = numbers.new_span_id();
        let context = match parent {
            Some((parent, _)) => Context {
                span,
                ..parent.clone()
            },
            None => Context::new(numbers.new_trace_id(), span),
        };
        Box::new(Self {
            parent: parent.map(|(parent, is_remote)| (parent.span, is_remote)),
            name,
            kind,
            started_at: SystemTime::now(),
            began: Instant::now(),
            attributes: vec![KeyValue::new("henge.node", Arc::clone(&traces.node))],
            has_failed: false,
            is_discarded: false,
            scope: Scope {
                traces: Arc::clone(traces),
                context,
            },
        })
    }

    /// For what is done as a part of it.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Something that is known of it. Never a key or a value of the cache.
    pub(crate) fn note(&mut self, name: impl Into<Key>, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(name, value));
    }

    /// What a replica was asked for in it.
    pub(crate) fn note_call(&mut self, called: Called) {
        if let Called::One(partition, stamped) = called {
            self.note("henge.partition", i64::from(partition.number()));
            if let Some(version) = stamped {
                self.note("henge.version", version.to_string());
            }
        }
    }

    /// It is called this.
    pub(crate) fn rename(&mut self, name: String) {
        self.name = name.into();
    }

    /// It has failed.
    pub(crate) fn fail(&mut self) {
        self.has_failed = true;
    }

    /// It is not told of, as nothing was done.
    pub(crate) fn discard(mut self) {
        self.is_discarded = true;
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.is_discarded {
            return;
        }
        let Scope { traces, context } = &self.scope;
        let state = context.state.as_deref().map(str::parse::<TraceState>);
        let state = state.and_then(Result::ok).unwrap_or_default();
        let flags = TraceFlags::new(context.flags);
        let (parent, is_remote) = self.parent.unwrap_or((SpanId::INVALID, false));
        traces.queue.push(SpanData {
            span_context: SpanContext::new(context.trace, context.span, flags, false, state),
            parent_span_id: parent,
            parent_span_is_remote: is_remote,
            span_kind: self.kind.clone(),
            name: std::mem::take(&mut self.name),
            start_time: self.started_at,
            // The machine's clock may have been set meanwhile.
            end_time: self.started_at + self.began.elapsed(),
            attributes: std::mem::take(&mut self.attributes),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if self.has_failed {
                Status::error("")
            } else {
                Status::Unset
            },
            instrumentation_scope: traces.library.clone(),
        });
    }
}
