//! Traces of requests, for a collector of OpenTelemetry: which are taken, what is in a span, and which trace a thread works for now.
//! It reads no key and no value, makes nobody wait, and for a request that is not traced it has no clock read and no memory taken.
//!
//! What a thread works for is noted for the thread, and only while a part of a traced request runs: between two polls it works for
//! nobody. So what is called on the way (the links, the replicas, the gate) finds its trace without being given one.

mod context;
mod export;
mod queue;
mod sampler;
mod span;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use henge_wire::{Partition, Version};
use opentelemetry::InstrumentationScope;

use crate::cluster::replicas::told::{self, Bad};
use crate::disk::gate::Untold;

pub(crate) use context::{Context, Wrapped};
pub(crate) use export::{Exporter, run};
use queue::Queue;
pub(crate) use sampler::Tracer;
pub(crate) use span::{Kind, Span};

/// The traces of a node.
#[derive(Debug)]
pub(crate) struct Traces {
    queue: Queue,
    /// The part of the requests that are traced, of those that do not say; as bits.
    ratio: AtomicU64,
    /// The name of the node.
    node: Arc<str>,
    library: InstrumentationScope,
}

impl Traces {
    /// Of a node of this name.
    pub(crate) fn new(node: &str, ratio: f64) -> Arc<Self> {
        let library = InstrumentationScope::builder("henge");
        Arc::new(Self {
            queue: Queue::default(),
            ratio: AtomicU64::new(ratio.to_bits()),
            node: node.into(),
            library: library.with_version(env!("CARGO_PKG_VERSION")).build(),
        })
    }

    /// From now on this part of the requests is traced.
    pub(crate) fn set_ratio(&self, ratio: f64) {
        self.ratio.store(ratio.to_bits(), Ordering::Relaxed);
    }

    /// No more spans come: those that wait are sent until this moment, and no longer.
    pub(crate) fn end(&self, deadline: Instant) {
        self.queue.end(deadline);
    }

    /// Spans that a collector has taken.
    pub(crate) fn exported(&self) -> u64 {
        self.queue.exported()
    }

    /// Spans that none has, for want of room or of a collector.
    pub(crate) fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

/// What work is for: a trace, and the span in it that the next ones are children of.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    traces: Arc<Traces>,
    context: Context,
}

impl Scope {
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }
}

thread_local! {
    static PRESENT: RefCell<Option<Scope>> = const { RefCell::new(None) };
    /// Traced commands of the Redis protocol that ran in this turn, and whose replies are not told yet.
    static RAN: RefCell<Vec<Ran>> = const { RefCell::new(Vec::new()) };
    /// What was called for the present trace.
    static CALLED: Cell<Called> = const { Cell::new(Called::Nothing) };
}

/// A command that has run.
struct Ran {
    span: Box<Span>,
    called: Called,
    /// Which reply of its batch it has.
    reply: u32,
}

/// Which replicas were called.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) enum Called {
    #[default]
    Nothing,
    /// That of this partition, and what it has stamped, if it has.
    One(Partition, Option<Version>),
    /// Those of several partitions, which have no one version.
    Several,
}

/// Whether this thread works for a trace now.
pub(crate) fn is_traced() -> bool {
    PRESENT.with_borrow(Option::is_some)
}

/// What this thread works for now.
pub(crate) fn present() -> Option<Scope> {
    PRESENT.with_borrow(Option::clone)
}

/// Until it is dropped this thread works for a trace.
#[derive(Debug)]
#[must_use]
pub(crate) struct Entered {
    before: Option<Scope>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        PRESENT.set(self.before.take());
    }
}

/// From here on, for as long as this is kept, the thread works for what this is in.
pub(crate) fn enter(scope: &Scope) -> Entered {
    let before = PRESENT.replace(Some(scope.clone()));
    if before.is_none() {
        CALLED.set(Called::Nothing);
    }
    Entered { before }
}

/// The same for whatever a future does, if it is for a trace at all.
pub(crate) async fn within<F: Future>(scope: Option<Scope>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let _entered = scope.as_ref().map(enter);
        future.as_mut().poll(cx)
    })
    .await
}

/// A part of this thread's trace begins, if it works for one.
pub(crate) fn child(name: &'static str, kind: Kind) -> Option<Box<Span>> {
    PRESENT.with_borrow(|present| {
        let scope = present.as_ref()?;
        let parent = Some((&scope.context, false));
        Some(Span::begin(&scope.traces, parent, name.into(), kind))
    })
}

/// A replica of this partition is called, for the present trace if there is one; or that has come to this version.
pub(crate) fn note_call(partition: Partition, stamped: Option<Version>) {
    if is_traced() {
        CALLED.set(match CALLED.get() {
            Called::One(other, _) if other != partition => Called::Several,
            Called::Several => Called::Several,
            Called::Nothing | Called::One(..) => Called::One(partition, stamped),
        });
    }
}

/// A traced command has run: its reply is told when what it owes is there.
pub(crate) fn note_ran(span: Box<Span>) {
    let (called, reply) = (CALLED.take(), told::reply());
    RAN.with_borrow_mut(|ran| {
        ran.push(Ran {
            span,
            called,
            reply,
        });
    });
}

/// Spans that end when replies may be told: each with the reply of its batch that it is about, or about all.
#[derive(Default, Debug)]
pub(crate) struct Waits(Vec<(Option<u32>, Span)>);

impl Waits {
    /// Nothing is waited for by what has run.
    #[inline]
    pub(crate) fn none() {
        let has_run = RAN.with_borrow(|ran| !ran.is_empty());
        if has_run {
            drop(RAN.take());
        }
    }

    /// Of what this thread works for, and of what has run in this turn: from now on they wait.
    pub(crate) fn begin() -> Self {
        let mut waits = Vec::new();
        if let Some(mut wait) = child("wait", Kind::Internal) {
            wait.note_call(CALLED.take());
            waits.push((None, *wait));
        }
        for Ran {
            span,
            called,
            reply,
        } in RAN.take()
        {
            let parent = Some((span.scope().context(), false));
            let traces = &span.scope().traces;
            let mut wait = Span::begin(traces, parent, "wait".into(), Kind::Internal);
            wait.note_call(called);
            // In the order in which they end.
            waits.extend([(Some(reply), *wait), (Some(reply), *span)]);
        }
        Self(waits)
    }

    /// More to wait for.
    pub(crate) fn add(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// All may be told, or not: of what was not done nothing has failed, as it is asked for again.
    pub(crate) fn end(&mut self, untold: Option<&Untold>) {
        for (reply, mut span) in self.0.drain(..) {
            if untold.is_some_and(|untold| has_failed(untold, reply)) {
                span.fail();
            }
        }
    }
}

/// Whether a reply of a batch, or any, is one of which nobody knows what becomes.
fn has_failed(untold: &Untold, reply: Option<u32>) -> bool {
    match untold {
        Untold::NotKept => true,
        Untold::Replies(replies) => replies
            .iter()
            .any(|&(number, bad)| bad != Bad::NotDone && reply.is_none_or(|reply| reply == number)),
    }
}

#[cfg(test)]
mod tests;
