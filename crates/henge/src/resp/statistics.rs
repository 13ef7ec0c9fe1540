//! The counts that `INFO` and `LATENCY HISTOGRAM` show. The counters themselves only ever grow, as others read them too; what
//! `CONFIG RESETSTAT` resets is where these begin to count.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::metrics::Metrics;
use crate::metrics::counters::CommandFigures;

/// See the head of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) connections: u64,
    pub(crate) refused_connections: u64,
    pub(crate) answered: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) expirations: u64,
    pub(crate) evictions: u64,
    /// By the number of the command.
    pub(crate) commands: BTreeMap<u16, CommandFigures>,
    /// By the code of the error.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Statistics {
    /// What was counted since the last reset.
    pub(crate) fn now(metrics: &Metrics) -> Self {
        let mut now = Self::ever(metrics);
        now.subtract(&metrics.shared.resp.since.lock());
        now
    }

    /// What was counted since the start. It reads every histogram, which is not for a data thread.
    pub(crate) fn ever(metrics: &Metrics) -> Self {
        let counters = &metrics.counters;
        let cache = metrics.shared.cache.stats().shards;
        Self {
            connections: counters.acceptor.accepted.load(Ordering::Relaxed),
            refused_connections: counters.acceptor.refused.load(Ordering::Relaxed),
            answered: counters.sum(|thread| &thread.answered),
            received_bytes: counters.sum(|thread| &thread.received_bytes),
            sent_bytes: counters.sum(|thread| &thread.sent_bytes),
            hits: cache.hits,
            misses: cache.misses,
            expirations: cache.expirations,
            evictions: cache.evictions.iter().sum(),
            commands: counters.commands(),
            errors: metrics.shared.resp.errors(),
        }
    }

    fn subtract(&mut self, before: &Self) {
        for (now, before) in [
            (&mut self.connections, before.connections),
            (&mut self.refused_connections, before.refused_connections),
            (&mut self.answered, before.answered),
            (&mut self.received_bytes, before.received_bytes),
            (&mut self.sent_bytes, before.sent_bytes),
            (&mut self.hits, before.hits),
            (&mut self.misses, before.misses),
            (&mut self.expirations, before.expirations),
            (&mut self.evictions, before.evictions),
        ] {
            *now = now.saturating_sub(before);
        }
        for (number, figures) in &mut self.commands {
            if let Some(before) = before.commands.get(number) {
                figures.subtract(before);
            }
        }
        self.commands.retain(|_, figures| !figures.is_empty());
        for (code, count) in &mut self.errors {
            *count -= before.errors.get(code).copied().unwrap_or(0).min(*count);
        }
        self.errors.retain(|_, count| *count > 0);
    }
}
