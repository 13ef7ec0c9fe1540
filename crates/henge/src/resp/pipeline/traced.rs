//! Commands that are traced: which are, what their spans say, and when these end. A command that is not costs a look at whether any is,
//! and a decrement.

use henge_wire::resp::request::Arguments;
use henge_wire::resp::writer::{Mark, Output, Protocol};

use super::{Pipeline, Raw, Stop, Timing, check, is_not_run};
use crate::cache::Location;
use crate::resp::session::NextTrace;
use crate::resp::table::Entry;
use crate::traces::{self, Entered, Span};

impl Pipeline {
    /// Runs one command, in a span if it is traced.
    #[expect(clippy::too_many_arguments, reason = "it is the inside of two loops")]
    #[inline]
    pub(super) fn run_one(
        &mut self,
        words: Arguments<'_>,
        raw: Raw<'_>,
        entry: Option<Entry>,
        first_key: Option<Location>,
        clock: &mut Timing,
        time_each: bool,
        untimed: &mut Vec<u16>,
        out: &mut Output,
    ) -> Option<Stop> {
        let is_asked = self.local.tracer.is_some() && !self.session.is_forwarded;
        let chosen = if is_asked {
            self.choose(words, entry)
        } else {
            None
        };
        let entered = chosen.as_ref().and_then(Chosen::enter);
        let before = chosen.as_ref().map(|_| (out.mark(), self.forwards.count()));
        let step = self.run_untraced(words, raw, entry, first_key, clock, time_each, untimed, out);
        match chosen.zip(before) {
            None => step,
            Some((chosen, before)) => {
                drop(entered);
                self.hand_over(chosen, before, out, step)
            }
        }
    }

    /// Whether a command is traced; none where nobody had said anything of that, and it is not.
    fn choose(&mut self, words: Arguments<'_>, entry: Option<Entry>) -> Option<Chosen> {
        let next = self.session.next_trace.take();
        let span = self.begin_span(words, entry, next.as_deref());
        (span.is_some() || next.is_some()).then_some(Chosen { next, span })
    }

    /// The span of a command, if it is one and is traced. Who has to say first who it is is not traced.
    #[inline]
    fn begin_span(
        &self,
        words: Arguments<'_>,
        entry: Option<Entry>,
        next: Option<&NextTrace>,
    ) -> Option<Box<Span>> {
        let tracer = self.local.tracer.as_ref()?;
        let entry = entry?;
        if self.session.caller.is_stranger() || is_about_next(words, entry) {
            return None;
        }
        let span = match next {
            None => tracer.begin_command(None, entry.spec.name),
            Some(NextTrace::Chosen) => Some(tracer.begin_chosen(entry.spec.name)),
            Some(NextTrace::Told(parent)) => tracer.begin_command(Some(parent), entry.spec.name),
        };
        span.map(|span| self.described(span, words, entry))
    }

    /// By the conventions of OpenTelemetry for databases. Of what its client has sent the name alone is told, as the table has it.
    #[cold]
    fn described(&self, mut span: Box<Span>, words: Arguments<'_>, entry: Entry) -> Box<Span> {
        let entry = check(words, Some(entry)).unwrap_or(entry);
        let name = entry.spec.name.replace('|', " ").to_uppercase();
        let version = match self.session.protocol {
            Protocol::Resp2 => "2",
            Protocol::Resp3 => "3",
        };
        span.note("db.system.name", "henge");
        span.note("db.operation.name", name.clone());
        span.note("network.protocol.name", "resp");
        span.note("network.protocol.version", version);
        span.note("henge.consistency", self.level.name());
        span.rename(name);
        span
    }

    /// A command has run, or goes on elsewhere, or will be looked at again. A span ends when its reply is there and may be told.
    #[cold]
    fn hand_over(
        &mut self,
        chosen: Chosen,
        (mark, sent): (Mark, usize),
        out: &Output,
        step: Option<Stop>,
    ) -> Option<Stop> {
        let Chosen { next, span } = chosen;
        if is_not_run(step.as_ref()) {
            let chosen = span.is_some().then(|| Box::new(NextTrace::Chosen));
            self.session.next_trace = next.or(chosen);
            if let Some(span) = span {
                span.discard();
            }
            return step;
        }
        let Some(mut span) = span else {
            return step;
        };
        if matches!(out.first_since(mark), Some(b'-' | b'!')) {
            span.fail();
        }
        match step {
            Some(Stop::Later(mut waiting)) => {
                let reply = waiting.reply;
                waiting.reply = Box::pin(async move {
                    let scope = span.scope().clone();
                    let reply = traces::within(Some(scope), reply).await;
                    if reply.is_err() {
                        span.fail();
                    }
                    traces::note_ran(span);
                    reply
                });
                Some(Stop::Later(waiting))
            }
            step if self.forwards.count() > sent => {
                self.forwards.trace(span);
                step
            }
            step => {
                traces::note_ran(span);
                step
            }
        }
    }
}

/// What was said of the trace of a command, and its span if it has one.
struct Chosen {
    next: Option<Box<NextTrace>>,
    span: Option<Box<Span>>,
}

impl Chosen {
    fn enter(&self) -> Option<Entered> {
        self.span.as_ref().map(|span| traces::enter(span.scope()))
    }
}

/// Whether a command does nothing but say in which trace the next one is.
fn is_about_next(words: Arguments<'_>, entry: Entry) -> bool {
    let is_that = |word: &[u8]| word.eq_ignore_ascii_case(b"traceparent");
    entry.spec.name == "henge" && words.get(1).is_some_and(is_that)
}
