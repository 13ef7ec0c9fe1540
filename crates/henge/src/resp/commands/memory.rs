//! `MEMORY`: what memory is used for, in all and by one key.

use std::fmt::Write as _;
use std::sync::Arc;

use super::aside::aside;
use crate::admin::Admin;
use crate::cache::CacheStats;
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::help;
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};
use crate::{allocator, memory};

pub(in crate::resp) const COMMANDS: &[Spec] = &[Spec {
    name: "memory",
    syntax: "",
    arity: -2,
    flags: 0,
    keys: Keys::NONE,
    permission: Permission::Observe,
    group: Group::Server,
    since: "4.0.0",
    complexity: "Depends on the subcommand",
    summary: "Says what memory is used for",
    run: Run::Family(FAMILY),
}];

const FAMILY: &[Spec] = &[
    Spec {
        name: "memory|stats",
        syntax: "",
        arity: 2,
        flags: 0,
        keys: Keys::NONE,
        permission: Permission::Observe,
        group: Group::Server,
        since: "4.0.0",
        complexity: "O(N) where N is the number of shards",
        summary: "Gives the figures of memory",
        run: Run::Handler(stats),
    },
    Spec {
        name: "memory|doctor",
        syntax: "",
        arity: 2,
        flags: 0,
        keys: Keys::NONE,
        permission: Permission::Observe,
        group: Group::Server,
        since: "4.0.0",
        complexity: "O(N) where N is the number of shards",
        summary: "Says in words how full the memory is",
        run: Run::Handler(doctor),
    },
    Spec {
        name: "memory|malloc-stats",
        syntax: "",
        arity: 2,
        flags: flag::LOADING,
        keys: Keys::NONE,
        permission: Permission::Observe,
        group: Group::Server,
        since: "4.0.0",
        complexity: "O(1)",
        summary: "Gives the figures of the allocator",
        run: Run::Handler(malloc_stats),
    },
    Spec {
        name: "memory|purge",
        syntax: "",
        arity: 2,
        flags: flag::LOADING,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "4.0.0",
        complexity: "O(N) where N is the number of segments of memory",
        summary: "Gives back what deleted and expired items have left",
        run: Run::Handler(purge),
    },
    Spec {
        name: "memory|usage",
        syntax: "key [SAMPLES count]",
        arity: -3,
        flags: flag::READONLY,
        keys: Keys::new(2, 2, 1),
        permission: Permission::Read,
        group: Group::Server,
        since: "4.0.0",
        complexity: "O(1)",
        summary: "Says how many bytes a key takes with its value and its part of the index",
        run: Run::Handler(usage),
    },
    help::definition("memory|help", Group::Server, "4.0.0"),
];

/// What memory is used for, as far as it can be found out.
struct Used {
    cache: CacheStats,
    rss_bytes: u64,
    peak_bytes: u64,
    clients_bytes: u64,
    allocator: Option<allocator::Figures>,
}

impl Used {
    /// It reads `/proc` and asks the allocator, which is not for a data thread.
    fn now(admin: &Admin) -> Self {
        let shared = admin.shared();
        let cache = shared.cache.stats();
        Self {
            peak_bytes: admin.metrics.pulse.peak(cache.shards.charged_bytes),
            cache,
            rss_bytes: memory::process().map_or(0, |process| process.rss_bytes),
            clients_bytes: shared.in_flight.held() as u64,
            allocator: allocator::figures(),
        }
    }

    /// What is charged beside the items themselves.
    fn overhead_bytes(&self) -> u64 {
        self.cache.shards.table_bytes + self.cache.shards.hole_bytes
    }
}

/// A part of a whole, in hundredths of it; 0 where there is no whole.
pub(super) fn percentage(part: u64, whole: u64) -> f64 {
    ratio(part, whole) * 100.0
}

pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn stats(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let admin = Arc::clone(&call.local.admin);
    call.eventually(async move |out| {
        let used = aside(move || Used::now(&admin)).await?;
        let shards = &used.cache.shards;
        let charged = shards.charged_bytes;
        let allocated = used
            .allocator
            .map_or(charged, |figures| figures.allocated_bytes);
        let active = used
            .allocator
            .map_or(used.rss_bytes, |figures| figures.active_bytes);
        let resident = used
            .allocator
            .map_or(used.rss_bytes, |figures| figures.resident_bytes);
        let dataset = charged.saturating_sub(used.overhead_bytes());
        let figures = [
            ("peak.allocated", used.peak_bytes),
            ("total.allocated", charged),
            ("startup.allocated", 0),
            ("replication.backlog", 0),
            ("clients.slaves", 0),
            ("clients.normal", used.clients_bytes),
            ("cluster.links", 0),
            ("aof.buffer", 0),
            ("lua.caches", 0),
            ("functions.caches", 0),
            ("overhead.total", used.overhead_bytes()),
            ("keys.count", shards.items),
            (
                "keys.bytes-per-key",
                charged.checked_div(shards.items).unwrap_or(0),
            ),
            ("dataset.bytes", dataset),
            ("allocator.allocated", allocated),
            ("allocator.active", active),
            ("allocator.resident", resident),
            (
                "allocator-fragmentation.bytes",
                active.saturating_sub(allocated),
            ),
            ("allocator-rss.bytes", resident.saturating_sub(active)),
            (
                "rss-overhead.bytes",
                used.rss_bytes.saturating_sub(resident),
            ),
            (
                "fragmentation.bytes",
                used.rss_bytes.saturating_sub(charged),
            ),
        ];
        let ratios = [
            ("dataset.percentage", percentage(dataset, charged)),
            ("peak.percentage", percentage(charged, used.peak_bytes)),
            ("allocator-fragmentation.ratio", ratio(active, allocated)),
            ("allocator-rss.ratio", ratio(resident, active)),
            ("rss-overhead.ratio", ratio(used.rss_bytes, resident)),
            ("fragmentation", ratio(used.rss_bytes, charged)),
        ];
        out.map(figures.len() + ratios.len() + 1);
        for (name, figure) in figures {
            out.bulk(name.as_bytes());
            out.integer(i64::try_from(figure).unwrap_or(i64::MAX));
        }
        out.bulk(b"db.0");
        out.map(2);
        out.bulk(b"overhead.hashtable.main");
        out.integer(i64::try_from(shards.table_bytes).unwrap_or(i64::MAX));
        // Deadlines lie with their items.
        out.bulk(b"overhead.hashtable.expires");
        out.integer(0);
        for (name, ratio) in ratios {
            out.bulk(name.as_bytes());
            out.double(ratio);
        }
        Ok(())
    })
}

fn doctor(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let admin = Arc::clone(&call.local.admin);
    call.eventually(async move |out| {
        let used = aside(move || Used::now(&admin)).await?;
        out.verbatim(&report(&used));
        Ok(())
    })
}

/// From this part on of what is used, what is used for nothing is worth a word.
const MUCH: f64 = 0.25;

fn report(used: &Used) -> String {
    let shards = &used.cache.shards;
    let charged = shards.charged_bytes;
    let limit = used.cache.limit_bytes;
    let mut text = format!(
        "{} items take {charged} of {limit} bytes ({:.1} %).\n",
        shards.items,
        percentage(charged, limit)
    );
    let mut remark = |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{line}");
    };
    if used.cache.withheld_bytes > 0 {
        remark(format_args!(
            "The machine is short of memory: {} bytes of the limit are withheld (cache.memory_trigger).",
            used.cache.withheld_bytes
        ));
    }
    if ratio(shards.hole_bytes, shards.arena_bytes) > MUCH {
        remark(format_args!(
            "{} of {} bytes of the arenas lie idle between items; MEMORY PURGE gives back what it can.",
            shards.hole_bytes, shards.arena_bytes
        ));
    }
    let beside = used.rss_bytes.saturating_sub(charged);
    if charged > 0 && ratio(beside, limit) > MUCH {
        remark(format_args!(
            "The process holds {beside} bytes beside the cache: requests in flight hold {}.",
            used.clients_bytes
        ));
    }
    if text.lines().count() == 1 {
        text += "Nothing to remark.\n";
    }
    text
}

fn malloc_stats(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.eventually(async move |out| {
        match aside(allocator::figures).await? {
            Some(figures) => out.verbatim(&format!(
                "jemalloc\nallocated: {}\nactive: {}\nresident: {}\nretained: {}\n",
                figures.allocated_bytes,
                figures.active_bytes,
                figures.resident_bytes,
                figures.retained_bytes
            )),
            None => out.bulk(b"Stats not supported for the current allocator"),
        }
        Ok(())
    })
}

/// The allocator gives pages back as soon as they are free; what the cache holds without use is what there is to purge.
fn purge(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let shared = Arc::clone(&call.local.shared);
    call.eventually(async move |out| {
        aside(move || {
            let cache = &shared.cache;
            for shard in 0..cache.shard_count() {
                while cache.compact(shard) {}
                cache.collect_idle(shard);
            }
        })
        .await?;
        out.ok();
        Ok(())
    })
}

fn usage(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let mut index = 3;
    while index < call.words.len() {
        // How many parts of a value to look at: a string has one.
        if !call.is(index, "samples") || index + 1 == call.words.len() {
            return Err(ErrorReply::SYNTAX);
        }
        if call.integer(index + 1)? < 0 {
            return Err(ErrorReply::SYNTAX);
        }
        index += 2;
    }
    match call.cache().footprint(call.word(2), call.now_ms) {
        Some(footprint) => {
            let bytes = footprint.record_bytes + footprint.table_bytes;
            call.out.integer(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        None => call.out.null(),
    }
    Ok(Flow::Done)
}
