//! What the node knows of itself: counters of one writer each, summed when they are read, and shown as one page, as JSON
//! with quantiles, and as Prometheus reads it. Nothing here is on the way of a request but the counting itself.

pub(crate) mod answers;
pub(crate) mod cluster;
pub(crate) mod counters;
pub(crate) mod exposition;
mod gather;
pub(crate) mod histogram;
#[cfg(test)]
mod page;
mod persistence;
mod pulse;
pub(crate) mod reading;
mod table;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use henge_engine::Cause;
use serde_json::{Value, json};

use henge_cluster::gossip::Load;

use crate::cache::CacheStats;
use crate::resp::COMMANDS;
use crate::shared::Shared;
use crate::{allocator, memory};
use counters::{CommandFigures, Counters};
pub(crate) use pulse::Pulse;

/// The commit that was built, if `build.rs` found one.
pub(crate) const COMMIT: Option<&str> = option_env!("HENGE_COMMIT");

/// Everything that there is to show.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) node_id: String,
    pub(crate) address: String,
    pub(crate) shared: Arc<Shared>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) pulse: Pulse,
}

impl Metrics {
    /// How much the node has to do, as others hear of it.
    pub(crate) fn load(&self) -> Load {
        let operations = self.pulse.operations_per_second();
        Load {
            operations_per_second: u32::try_from(operations).unwrap_or(u32::MAX),
            // What the system sees, as this node shows of itself.
            memory_bytes: memory::process().map_or(0, |process| process.rss_bytes),
            queue_bytes: self.shared.in_flight.held() as u64,
        }
    }

    pub(crate) fn uptime_seconds(&self) -> f64 {
        // Milliseconds are as much as anyone reads.
        (self.shared.clock.uptime().as_millis() as f64) / 1e3
    }

    /// The cache in one page.
    pub(crate) fn stats(&self) -> Value {
        let cache = self.shared.cache.stats();
        let process = memory::process().ok();
        let allocator = allocator::figures();
        let counters = &self.counters;
        let requests: serde_json::Map<String, Value> = counters
            .routes()
            .iter()
            .map(|route| (route.name.to_owned(), json!(route.requests())))
            .collect();
        let commands: serde_json::Map<String, Value> = self
            .commands()
            .iter()
            .map(|(name, figures)| ((*name).to_owned(), json!(figures.latency.count())))
            .collect();
        json!({
            "node_id": self.node_id,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.uptime_seconds(),
            "policy": cache.policy.name(),
            "items": cache.shards.items,
            "limit_items": cache.limit_items,
            "shards": cache.shard_count,
            "memory": {
                "charged_bytes": cache.shards.charged_bytes,
                "limit_bytes": cache.limit_bytes,
                "withheld_bytes": cache.withheld_bytes,
                "arena_bytes": cache.shards.arena_bytes,
                "hole_bytes": cache.shards.hole_bytes,
                "table_bytes": cache.shards.table_bytes,
                "rss_bytes": process.map(|process| process.rss_bytes),
                "allocator_bytes": allocator.map(|figures| figures.allocated_bytes),
                "in_flight_bytes": self.shared.in_flight.held(),
            },
            "hits": cache.shards.hits,
            "misses": cache.shards.misses,
            "hit_ratio": ratio(cache.shards.hits, cache.shards.hits + cache.shards.misses),
            "sets": cache.shards.sets,
            "deletes": cache.shards.deletes,
            "expirations": cache.shards.expirations,
            "evictions": evictions(&cache),
            "sweeps": cache.sweeps,
            "purges": cache.shards.purges,
            "compression": self.compression(),
            "persistence": persistence::figures(&self.shared.persistence),
            "connections": {
                "open": counters.open_connections(),
                "accepted": counters.acceptor.accepted.load(Ordering::Relaxed),
                "refused": counters.acceptor.refused.load(Ordering::Relaxed),
            },
            "requests": requests,
            "commands": commands,
        })
    }

    /// The commands of the Redis protocol that were called, by name.
    fn commands(&self) -> Vec<(&'static str, CommandFigures)> {
        let name = |number: u16| COMMANDS.entries()[usize::from(number)].spec.name;
        self.counters
            .commands()
            .into_iter()
            .map(|(number, figures)| (name(number), figures))
            .collect()
    }

    /// Everything that is counted, with quantiles.
    pub(crate) fn everything(&self) -> Value {
        let mut page = serde_json::Map::new();
        page.insert("node_id".to_owned(), json!(self.node_id));
        self.read().show(&mut page);
        Value::Object(page)
    }

    fn compression(&self) -> Value {
        let input = self.counters.sum(|thread| &thread.compression_in_bytes);
        let output = self.counters.sum(|thread| &thread.compression_out_bytes);
        json!({
            "in_bytes": input,
            "out_bytes": output,
            "ratio": ratio(output, input),
            "kept_raw": self.counters.sum(|thread| &thread.compression_refused),
        })
    }
}

fn evictions(cache: &CacheStats) -> Value {
    Cause::ALL
        .iter()
        .zip(cache.shards.evictions)
        .map(|(cause, count)| (cause.name().to_owned(), json!(count)))
        .collect()
}

/// A part of a whole; null while there is no whole.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
