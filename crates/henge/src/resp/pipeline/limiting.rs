//! Where a batch of commands is held against what its client may ask for: so many of them run, the others are told when to come
//! again, and what they cost is spent when it is known.

use std::ops::Range;

use henge_wire::resp::writer::Output;

use super::timing::Timing;
use super::{Buffers, OUTPUT_BYTES, Pipeline, Stop};
use crate::metrics::counters::add;
use crate::rate::meter::{Exceeded, Grant, Meter};
use crate::resp::call::ErrorReply;
use crate::resp::session::Session;
use crate::resp::table::{Entry, flag};

impl Meter {
    /// Of what a session asks.
    pub(super) fn of_session(session: &Session) -> Self {
        if session.is_forwarded {
            Self::of_node()
        } else {
            Self::of(session.client.address.ip())
        }
    }
}

impl Pipeline {
    fn grant(&mut self, count: usize, clock: &Timing) -> Grant {
        let (rates, allowances) = (&self.local.shared.rates, &self.local.allowances);
        let caller = &self.session.caller;
        self.meter
            .grant(count, rates, allowances, caller, clock.mark)
    }

    /// Runs as many of the commands that were prepared as its client may ask for.
    #[inline]
    pub(super) fn run_granted(
        &mut self,
        input: &[u8],
        at: &mut usize,
        clock: &mut Timing,
        buffers: &mut Buffers,
        out: &mut Output,
        commands: &mut u64,
    ) -> Option<Stop> {
        let (rates, allowances) = (&self.local.shared.rates, &self.local.allowances);
        let limits = self.meter.look(rates, allowances, clock.mark);
        if limits.is_none() {
            let all = 0..buffers.batch.len();
            return self.run_batch(all, input, at, clock, buffers, out, commands);
        }
        let mut from = 0;
        while from < buffers.batch.len() {
            // Who asks is another after some commands: what comes behind one is granted to who that is.
            let is_last = |entry: Option<Entry>| entry.is_some_and(|e| e.spec.is(flag::NO_AUTH));
            let rest = &buffers.batch[from..];
            let asked = rest.iter().position(|prepared| is_last(prepared.entry));
            let to = asked.map_or(buffers.batch.len(), |place| from + place + 1);
            let step = self.run_limited(from..to, input, at, clock, buffers, out, commands);
            if step.is_some() {
                return step;
            }
            from = to;
        }
        None
    }

    /// The same for some of them, of one who asks.
    #[expect(clippy::too_many_arguments, reason = "it is the inside of a loop")]
    fn run_limited(
        &mut self,
        part: Range<usize>,
        input: &[u8],
        at: &mut usize,
        clock: &mut Timing,
        buffers: &mut Buffers,
        out: &mut Output,
        commands: &mut u64,
    ) -> Option<Stop> {
        let grant = self.grant(part.len(), clock);
        let granted = part.start..part.start + grant.count;
        let (begin, written, ran) = (*at, out.len(), *commands);
        let refused = granted.end..part.end;
        let step = self.run_batch(granted, input, at, clock, buffers, out, commands);
        self.spend(*commands - ran, *at - begin, out.len() - written);
        let Some(exceeded) = grant.exceeded.as_ref().filter(|_| step.is_none()) else {
            return step;
        };
        for prepared in &buffers.batch[refused] {
            let before = (self.replies, self.forwards.count());
            self.refuse_for_rate(prepared.entry, exceeded, out);
            if self.routes.is_some() {
                self.end_reply(prepared.frame.clone(), before, out.len());
            }
            *at = prepared.frame.end;
            *commands += 1;
        }
        // What is refused takes time as well.
        clock.lap();
        (out.len() >= OUTPUT_BYTES || clock.is_turn_over()).then_some(Stop::Output)
    }

    /// Why the next command, which is a line, is not served, if it is not.
    pub(super) fn exceeded(&mut self, clock: &Timing) -> Option<Exceeded> {
        let grant = self.grant(1, clock);
        grant.exceeded.filter(|_| grant.count == 0)
    }

    /// Spends what commands cost that ran: how many they were, their bytes, and those of their replies.
    pub(super) fn spend(&self, count: u64, bytes: usize, replies: usize) {
        if self.meter.is_on() {
            self.meter.spend(count, (bytes + replies) as u64);
        }
    }

    /// Spends what replies cost that came later.
    #[inline]
    pub(in crate::resp) fn spend_later(&self, bytes: usize) {
        self.meter.spend_bytes(bytes as u64);
    }

    #[cold]
    pub(super) fn refuse_for_rate(
        &mut self,
        entry: Option<Entry>,
        exceeded: &Exceeded,
        out: &mut Output,
    ) {
        add(
            &self.local.counters.rate_limited[exceeded.scope as usize],
            1,
        );
        // What was said of its trace is of no other command.
        self.session.next_trace = None;
        let error = ErrorReply::rate_limit_exceeded(exceeded.wait_ms());
        // It never stops a pipeline.
        let _ = self.reject(entry, &error, out);
    }
}
