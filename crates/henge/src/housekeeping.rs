//! What a cache needs done while nobody asks: expired items are swept, idle room goes back to the pool, and when the
//! machine or its cgroup runs short of memory a part of the limit is withheld until it no longer does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::memory::{self, MemoryState};
use crate::metrics::Metrics;

/// A withheld part is given back at half the distance to the trigger each time, once use is this far below it: so that the
/// two do not chase each other.
const CALM_BELOW_TRIGGER: f64 = 0.02;
/// This part of the limit is never withheld: a neighbour that takes all the memory makes the cache small, not useless.
const KEPT_SHARE: u64 = 16;
/// How often the memory in use is read, and idle room collected. Reading costs some 100 microseconds, and a machine
/// rarely fills a tenth of its memory in a second.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// After so many sweeps in a row, of some 20 microseconds each, it rests for a while, so that what many keys that expire at once cost, or
/// a flush, or partitions that have moved away, is a quarter of a processor for some time and not all of it at once. Who needs
/// their room takes it without waiting for this.
const SWEEPS_AT_ONCE: usize = 16;
const REST: Duration = Duration::from_millis(1);

/// Keeps house until it is dropped. It gives way after each few records, so that others on its runtime are answered.
pub(crate) async fn keep_house(metrics: Arc<Metrics>) {
    let shared = &metrics.shared;
    let cache = &shared.cache;
    let mut watched = Instant::now();
    let mut swept = Instant::now();
    let mut sweeps = 0;
    loop {
        // What is watched does not wait for sweeps that are rare.
        let interval = shared.live.load().cleanup_interval;
        tokio::time::sleep(interval.min(WATCH_INTERVAL)).await;
        if shared.persistence.is_loading() {
            // What expires while the log is replayed may be given another deadline by it.
            continue;
        }
        if swept.elapsed() < interval {
            watch(&metrics, &mut watched).await;
            continue;
        }
        swept = Instant::now();
        for shard in 0..cache.shard_count() {
            while cache.sweep(shard, shared.clock.now_ms()) {
                sweeps += 1;
                if sweeps % SWEEPS_AT_ONCE == 0 {
                    tokio::time::sleep(REST).await;
                    // However long there is something to sweep.
                    watch(&metrics, &mut watched).await;
                } else {
                    tokio::task::yield_now().await;
                }
            }
            tokio::task::yield_now().await;
        }
        watch(&metrics, &mut watched).await;
    }
}

/// Looks at the memory in use, if that is due, and gives back what is not used.
async fn watch(metrics: &Arc<Metrics>, watched: &mut Instant) {
    if watched.elapsed() < WATCH_INTERVAL {
        return;
    }
    *watched = Instant::now();
    let shared = &metrics.shared;
    let cache = &shared.cache;
    for shard in 0..cache.shard_count() {
        while cache.compact(shard) {
            tokio::task::yield_now().await;
        }
        cache.collect_idle(shard);
        tokio::task::yield_now().await;
    }
    shared.rates.drop_idle(*watched).await;
    shared.insight.hot_keys.look(*watched);
    metrics.pulse.look(metrics, cache.charged_bytes(), *watched);
    if shared.is_replicated() {
        shared.replicas.lag.look(cache, *watched).await;
    }
    // Where nobody knows how full the machine is there is nothing to compare; the start has said so.
    if let Ok(memory) = memory::machine() {
        relieve(cache, memory.fullest, shared.live.load().memory_trigger);
    }
}

/// Compares the memory in use with the trigger, a fraction of all there is, and withholds a part of the limit or gives it
/// back. What is evicted goes back to the system as the allocator frees it.
fn relieve(cache: &Cache, memory: MemoryState, trigger: f64) {
    let withheld = cache.withheld();
    let stats = cache.stats();
    let wanted = to_withhold(
        memory,
        trigger,
        stats.limit_bytes,
        stats.shards.charged_bytes,
        withheld,
    );
    if wanted == withheld {
        return;
    }
    cache.withhold(wanted);
    let MemoryState {
        total_bytes,
        used_bytes,
        limit_source,
    } = memory;
    if withheld == 0 {
        tracing::warn!(
            used_bytes,
            total_bytes,
            limit = limit_source.name(),
            withheld_bytes = wanted,
            "memory in use is above cache.memory_trigger: a part of cache.max_size_bytes is withheld"
        );
    } else if wanted == 0 {
        tracing::info!(
            used_bytes,
            total_bytes,
            "memory in use is below cache.memory_trigger again"
        );
    }
}

/// How many bytes of the limit to withhold.
fn to_withhold(memory: MemoryState, trigger: f64, limit: u64, charged: u64, withheld: u64) -> u64 {
    if trigger >= 1.0 {
        return 0;
    }
    // A cast takes what is below zero for zero, and no fraction here is.
    #[expect(clippy::cast_sign_loss)]
    let bytes = |fraction: f64| (fraction * memory.total_bytes as f64) as u64;
    let allowed = bytes(trigger);
    if memory.used_bytes > allowed {
        // Only what is charged can be given up, so the part of the limit that is not in use goes first.
        let unused = limit.saturating_sub(charged);
        let over = memory.used_bytes - allowed;
        return withheld
            .max(unused.saturating_add(over))
            .min(limit - limit / KEPT_SHARE);
    }
    let calm = bytes((trigger - CALM_BELOW_TRIGGER).max(0.0));
    if memory.used_bytes < calm {
        return withheld.saturating_sub(((allowed - memory.used_bytes) / 2).max(1));
    }
    withheld
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::LimitSource;

    #[test]
    fn what_is_withheld_follows_the_memory_in_use() {
        let state = |used_bytes| MemoryState {
            total_bytes: 1000,
            used_bytes,
            limit_source: LimitSource::Machine,
        };
        // used, trigger, limit, charged, withheld before -> after
        for (used, trigger, limit, charged, before, after) in [
            (500, 0.9, 400, 400, 0, 0),
            (900, 0.9, 400, 400, 0, 0),
            (950, 0.9, 400, 400, 0, 50),
            (950, 0.9, 400, 300, 0, 150),
            (950, 0.9, 400, 350, 80, 100),
            (1000, 0.9, 40, 40, 0, 38),
            (890, 0.9, 400, 300, 100, 100),
            (800, 0.9, 400, 300, 100, 50),
            (879, 0.9, 400, 300, 5, 0),
            (1000, 1.0, 400, 400, 100, 0),
        ] {
            assert_eq!(
                to_withhold(state(used), trigger, limit, charged, before),
                after,
                "{used} of 1000, {charged} of {limit} charged, {before} withheld"
            );
        }
    }
}
