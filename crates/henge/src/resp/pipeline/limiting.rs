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
use crate::resp::table::Entry;

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
    pub(super) fn run_granted(
        &mut self,
        input: &[u8],
        at: &mut usize,
        clock: &mut Timing,
        buffers: &mut Buffers,
        out: &mut Output,
        commands: &mut u64,
    ) -> Option<Stop> {
        let grant = self.grant(buffers.batch.len(), clock);
        if !self.meter.is_on() {
            return self.run_batch(grant.count, input, at, clock, buffers, out, commands);
        }
        let (from, written, ran) = (*at, out.len(), *commands);
        let step = self.run_batch(grant.count, input, at, clock, buffers, out, commands);
        self.spend(*commands - ran, *at - from, (written, out), clock);
        let Some(exceeded) = &grant.exceeded else {
            return step;
        };
        if step.is_some() {
            return step;
        }
        for prepared in &buffers.batch[grant.count..] {
            let before = (out.len(), self.replies, self.forwards.count());
            self.refuse_for_rate(prepared.entry, exceeded, out);
            if self.routes.is_some() {
                self.end_reply(prepared.frame.clone(), (before.1, before.2), out.len());
            }
            *at = prepared.frame.end;
            *commands += 1;
        }
        (out.len() >= OUTPUT_BYTES).then_some(Stop::Output)
    }

    /// The same for a command that is a line.
    #[cold]
    pub(super) fn run_granted_line(
        &mut self,
        input: &[u8],
        line: Range<usize>,
        clock: &mut Timing,
        buffers: &mut Buffers,
        out: &mut Output,
        commands: &mut u64,
    ) -> Option<Stop> {
        let grant = self.grant(1, clock);
        let (written, ran, bytes) = (out.len(), *commands, line.len());
        if let Some(exceeded) = &grant.exceeded
            && grant.count == 0
        {
            let before = (self.replies, self.forwards.count());
            self.refuse_for_rate(None, exceeded, out);
            self.end_reply(line, before, out.len());
            *commands += 1;
            return None;
        }
        let step = self.run_inline(input, line, clock, buffers, out, commands);
        if self.meter.is_on() {
            let ran = *commands - ran;
            let bytes = if ran > 0 { bytes } else { 0 };
            self.spend(ran, bytes, (written, out), clock);
        }
        step
    }

    /// Spends what commands cost that ran: how many they were, their bytes, and those of replies since there were so many.
    fn spend(
        &mut self,
        count: u64,
        bytes: usize,
        (written, out): (usize, &Output),
        clock: &Timing,
    ) {
        let bytes = (bytes + out.len().saturating_sub(written)) as u64;
        let allowances = &self.local.allowances;
        let caller = &self.session.caller;
        self.meter
            .spend(count, bytes, allowances, caller, clock.mark);
    }

    /// Spends what replies cost that came later.
    #[inline]
    pub(in crate::resp) fn spend_later(&self, bytes: usize) {
        self.meter.spend_bytes(bytes as u64, &self.session.caller);
    }

    #[cold]
    fn refuse_for_rate(&mut self, entry: Option<Entry>, exceeded: &Exceeded, out: &mut Output) {
        add(
            &self.local.counters.rate_limited[exceeded.scope as usize],
            1,
        );
        let error = ErrorReply::rate_limit_exceeded(exceeded.wait_ms());
        // It never stops a pipeline.
        let _ = self.reject(entry, &error, out);
    }
}
