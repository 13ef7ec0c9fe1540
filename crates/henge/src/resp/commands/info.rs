//! `INFO`: the node in figures, section by section. Names and forms are those that clients and exporters read; a figure about
//! what does not exist here is what it is in Redis for a server that makes no use of it, where readers rely on it, and else
//! left out.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use super::aside::aside;
use super::memory::{percentage, ratio};
use crate::admin::Admin;
use crate::cache::CacheStats;
use crate::config::Config;
use crate::disk::log::Condition;
use crate::disk::snapshots;
use crate::memory::ProcessFigures;
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::pause::Paused;
use crate::resp::statistics::Statistics;
use crate::resp::table::{COMMANDS as ALL, Group, Keys, Permission, Run, Spec, flag};
use crate::{allocator, memory};

pub(in crate::resp) const COMMANDS: &[Spec] = &[Spec {
    name: "info",
    syntax: "[section ...]",
    arity: -1,
    flags: flag::LOADING | flag::STALE,
    keys: Keys::NONE,
    permission: Permission::Observe,
    group: Group::Server,
    since: "1.0.0",
    complexity: "O(N) where N is the number of commands and shards",
    summary: "Gives the figures of the node, or those of sections",
    run: Run::Handler(info),
}];

/// The version of Redis that clients may take this for. They choose by it which commands they send, and what is defined here
/// is of that version and not of a later one; what runs is said by `henge_version`.
const REDIS_VERSION: &str = "7.2.4";

/// What tells this process from the one before it.
static RUN_ID: LazyLock<String> = LazyLock::new(|| {
    let word = || RandomState::new().hash_one(0);
    format!("{:016x}{:016x}{:08x}", word(), word(), word() >> 32)
});

/// A part of the page.
struct Section {
    name: &'static str,
    title: &'static str,
    /// It is shown to who asks for no section by name.
    is_default: bool,
    write: fn(&mut Page, &Snapshot),
}

const SECTIONS: [Section; 13] = [
    Section::new("server", "Server", true, server),
    Section::new("clients", "Clients", true, clients),
    Section::new("memory", "Memory", true, memory_used),
    Section::new("persistence", "Persistence", true, persistence),
    Section::new("stats", "Stats", true, stats),
    Section::new("replication", "Replication", true, replication),
    Section::new("cpu", "CPU", true, cpu),
    Section::new("modules", "Modules", true, |_, _| {}),
    Section::new("commandstats", "Commandstats", false, command_statistics),
    Section::new("errorstats", "Errorstats", true, error_statistics),
    Section::new("latencystats", "Latencystats", false, latency_statistics),
    Section::new("cluster", "Cluster", true, |page, snapshot| {
        page.line("cluster_enabled", u8::from(!is_alone(snapshot)));
    }),
    Section::new("keyspace", "Keyspace", true, keyspace),
];

impl Section {
    const fn new(
        name: &'static str,
        title: &'static str,
        is_default: bool,
        write: fn(&mut Page, &Snapshot),
    ) -> Self {
        Self {
            name,
            title,
            is_default,
            write,
        }
    }
}

/// The text as it grows.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, name: &str, value: impl Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// A size, and once more for people.
    fn size(&mut self, name: &str, bytes: u64) {
        self.line(name, bytes);
        self.line(&format!("{name}_human"), human(bytes));
    }
}

/// All figures, at one moment.
struct Snapshot {
    admin: Arc<Admin>,
    config: Arc<Config>,
    now_ms: u64,
    statistics: Statistics,
    cache: CacheStats,
    process: Option<ProcessFigures>,
    allocator: Option<allocator::Figures>,
    machine_bytes: u64,
    peak_bytes: u64,
}

impl Snapshot {
    fn now(admin: Arc<Admin>, now_ms: u64) -> Self {
        let cache = admin.shared().cache.stats();
        Self {
            config: admin.config(),
            now_ms,
            statistics: Statistics::now(&admin.metrics),
            peak_bytes: admin.metrics.pulse.peak(cache.shards.charged_bytes),
            cache,
            process: memory::process().ok(),
            allocator: allocator::figures(),
            machine_bytes: memory::machine().map_or(0, |machine| machine.smallest.total_bytes),
            admin,
        }
    }
}

fn info(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let wanted = wanted(call);
    let (admin, now_ms) = (Arc::clone(&call.local.admin), call.now_ms);
    call.eventually(async move |out| {
        let text = aside(move || page(&Snapshot::now(admin, now_ms), &wanted)).await?;
        out.verbatim(&text);
        Ok(())
    })
}

/// The sections that were asked for, in the order in which they are shown. Unknown names mean nothing.
fn wanted(call: &Call<'_>) -> BTreeSet<usize> {
    let mut wanted = BTreeSet::new();
    let mut add = |which: &dyn Fn(&Section) -> bool| {
        wanted.extend((0..SECTIONS.len()).filter(|&place| which(&SECTIONS[place])));
    };
    if call.words.len() == 1 {
        add(&|section| section.is_default);
    }
    for name in call.words.from(1) {
        match &*name.to_ascii_lowercase() {
            b"default" => add(&|section| section.is_default),
            // There are no modules, so all is everything.
            b"all" | b"everything" => add(&|_| true),
            name => add(&|section| section.name.as_bytes() == name),
        }
    }
    wanted
}

fn page(snapshot: &Snapshot, wanted: &BTreeSet<usize>) -> String {
    let mut page = Page::default();
    for &place in wanted {
        let section = &SECTIONS[place];
        if !page.0.is_empty() {
            page.0 += "\r\n";
        }
        let _ = write!(page.0, "# {}\r\n", section.title);
        (section.write)(&mut page, snapshot);
    }
    page.0
}

/// Whether the node has all keys itself.
fn is_alone(snapshot: &Snapshot) -> bool {
    snapshot.admin.shared().cluster.view.load().is_alone
}

fn server(page: &mut Page, snapshot: &Snapshot) {
    let metrics = &snapshot.admin.metrics;
    let shared = snapshot.admin.shared();
    let uptime = shared.clock.uptime().as_secs();
    page.line("redis_version", REDIS_VERSION);
    page.line("server_name", "henge");
    page.line("henge_version", env!("CARGO_PKG_VERSION"));
    page.line("henge_commit", crate::metrics::COMMIT.unwrap_or("unknown"));
    page.line("node_id", &metrics.node_id);
    let mode = if is_alone(snapshot) {
        "standalone"
    } else {
        "cluster"
    };
    page.line("redis_mode", mode);
    page.line("server_mode", mode);
    page.line(
        "os",
        format_args!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    );
    page.line("arch_bits", usize::BITS);
    page.line("process_id", std::process::id());
    page.line("run_id", &*RUN_ID);
    page.line(
        "tcp_port",
        metrics.address.rsplit(':').next().unwrap_or_default(),
    );
    page.line("server_time_usec", shared.clock.now_us());
    page.line("uptime_in_seconds", uptime);
    page.line("uptime_in_days", uptime / 86_400);
    // Whether there is more than one, as in Redis; `io-threads` says how many.
    let is_threaded = metrics.counters.threads() > 1;
    page.line("io_threads_active", u8::from(is_threaded));
    page.line("data_threads", metrics.counters.threads());
}

fn clients(page: &mut Page, snapshot: &Snapshot) {
    let resp = &snapshot.admin.shared().resp;
    page.line("connected_clients", resp.clients.count());
    page.line("cluster_connections", 0);
    page.line("maxclients", snapshot.config.limits.max_connections);
    page.line("blocked_clients", 0);
    page.line("tracking_clients", 0);
    page.line("pubsub_clients", 0);
    page.line("watching_clients", 0);
    page.line(
        "open_connections",
        snapshot.admin.metrics.counters.open_connections(),
    );
    let paused = resp.pause.now(snapshot.now_ms);
    let (reason, actions, left_ms) = match paused {
        None => ("none", "none", 0),
        Some((kind, until_ms)) => (
            "client_pause",
            match kind {
                Paused::All => "all",
                Paused::Writes => "write",
            },
            until_ms - snapshot.now_ms,
        ),
    };
    page.line("paused_reason", reason);
    page.line("paused_actions", actions);
    page.line("paused_timeout_milliseconds", left_ms);
}

/// `used_memory` is what `maxmemory` bounds: what is charged to the cache.
fn memory_used(page: &mut Page, snapshot: &Snapshot) {
    let shards = &snapshot.cache.shards;
    let charged = shards.charged_bytes;
    let rss = snapshot.process.map_or(0, |process| process.rss_bytes);
    let overhead = shards.table_bytes + shards.hole_bytes;
    let dataset = charged.saturating_sub(overhead);
    page.size("used_memory", charged);
    page.size("used_memory_rss", rss);
    page.size("used_memory_peak", snapshot.peak_bytes);
    let percent = |part, whole| format!("{:.2}%", percentage(part, whole));
    page.line(
        "used_memory_peak_perc",
        percent(charged, snapshot.peak_bytes),
    );
    page.line("used_memory_overhead", overhead);
    page.line("used_memory_dataset", dataset);
    page.line("used_memory_dataset_perc", percent(dataset, charged));
    if let Some(figures) = snapshot.allocator {
        page.line("allocator_allocated", figures.allocated_bytes);
        page.line("allocator_active", figures.active_bytes);
        page.line("allocator_resident", figures.resident_bytes);
    }
    page.size("total_system_memory", snapshot.machine_bytes);
    page.size("used_memory_lua", 0);
    page.size("used_memory_scripts", 0);
    page.size("maxmemory", snapshot.cache.limit_bytes);
    let policy = super::config::policy(&snapshot.config);
    page.line("maxmemory_policy", policy);
    page.line("withheld_memory", snapshot.cache.withheld_bytes);
    if let Some(figures) = snapshot.allocator {
        let waste = figures.active_bytes.saturating_sub(figures.allocated_bytes);
        let held = figures.resident_bytes.saturating_sub(figures.active_bytes);
        let two = |part, whole| format!("{:.2}", ratio(part, whole));
        page.line(
            "allocator_frag_ratio",
            two(figures.active_bytes, figures.allocated_bytes),
        );
        page.line("allocator_frag_bytes", waste);
        page.line(
            "allocator_rss_ratio",
            two(figures.resident_bytes, figures.active_bytes),
        );
        page.line("allocator_rss_bytes", held);
        page.line("rss_overhead_ratio", two(rss, figures.resident_bytes));
        page.line(
            "rss_overhead_bytes",
            rss.saturating_sub(figures.resident_bytes),
        );
    }
    page.line(
        "mem_fragmentation_ratio",
        format_args!("{:.2}", ratio(rss, charged)),
    );
    page.line("mem_fragmentation_bytes", rss.saturating_sub(charged));
    page.line("mem_not_counted_for_evict", 0);
    page.line("mem_replication_backlog", 0);
    page.line("mem_clients_slaves", 0);
    page.line(
        "mem_clients_normal",
        snapshot.admin.shared().in_flight.held(),
    );
    page.line("mem_aof_buffer", 0);
    let allocator = if allocator::in_use() {
        "jemalloc"
    } else {
        "libc"
    };
    page.line("mem_allocator", allocator);
    page.line("active_defrag_running", 0);
    page.line("lazyfree_pending_objects", 0);
    page.line("lazyfreed_objects", 0);
}

/// The log is what Redis calls the append-only file, and a snapshot what it calls the RDB file.
fn persistence(page: &mut Page, snapshot: &Snapshot) {
    let persistence = &snapshot.admin.shared().persistence;
    page.line("loading", u8::from(persistence.is_loading()));
    page.line("async_loading", 0);
    let snapshots = persistence.snapshots.as_ref().map(|made| &made.figures);
    let figure = |figure: fn(&snapshots::Figures) -> u64| snapshots.map_or(0, figure);
    let ok = |is_ok: bool| if is_ok { "ok" } else { "err" };
    let log = persistence.log.as_ref();
    let records = log.map_or(0, |log| log.figures.all_records());
    let saved = figure(|figures| figures.log_records.load(Ordering::Relaxed));
    page.line("rdb_changes_since_last_save", records.saturating_sub(saved));
    let is_running = snapshots.is_some_and(|figures| figures.is_running.load(Ordering::Relaxed));
    page.line("rdb_bgsave_in_progress", u8::from(is_running));
    let made_at_ms = figure(|figures| figures.made_at_ms.load(Ordering::Relaxed));
    page.line("rdb_last_save_time", made_at_ms / 1000);
    let failed = snapshots.is_some_and(|figures| figures.has_failed.load(Ordering::Relaxed));
    page.line("rdb_last_bgsave_status", ok(!failed));
    match figure(|figures| figures.took_us.load(Ordering::Relaxed)) {
        0 => page.line("rdb_last_bgsave_time_sec", -1),
        took_us => page.line("rdb_last_bgsave_time_sec", took_us / 1_000_000),
    }
    page.line(
        "rdb_current_bgsave_time_sec",
        if is_running { 0 } else { -1 },
    );
    // Nothing is copied on a write, as nothing forks.
    page.line("rdb_last_cow_size", 0);
    page.line("aof_enabled", u8::from(log.is_some()));
    page.line("aof_rewrite_in_progress", 0);
    page.line("aof_rewrite_scheduled", 0);
    page.line("aof_last_rewrite_time_sec", -1);
    page.line("aof_current_rewrite_time_sec", -1);
    page.line("aof_last_bgrewrite_status", "ok");
    let is_open = log.is_none_or(|log| log.condition() == Condition::Open);
    page.line("aof_last_write_status", ok(is_open));
    page.line("aof_last_cow_size", 0);
    if let Some(log) = log {
        let bytes = log.figures.log_bytes.load(Ordering::Relaxed);
        page.line("aof_current_size", bytes);
    }
}

fn stats(page: &mut Page, snapshot: &Snapshot) {
    let statistics = &snapshot.statistics;
    let [per_second, received, sent] = snapshot.admin.metrics.pulse.rates();
    let kbps = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    page.line("total_connections_received", statistics.connections);
    page.line("total_commands_processed", statistics.answered);
    page.line("instantaneous_ops_per_sec", per_second);
    page.line("total_net_input_bytes", statistics.received_bytes);
    page.line("total_net_output_bytes", statistics.sent_bytes);
    page.line("total_net_repl_input_bytes", 0);
    page.line("total_net_repl_output_bytes", 0);
    page.line("instantaneous_input_kbps", kbps(received));
    page.line("instantaneous_output_kbps", kbps(sent));
    page.line("rejected_connections", statistics.refused_connections);
    page.line("sync_full", 0);
    page.line("sync_partial_ok", 0);
    page.line("sync_partial_err", 0);
    page.line("expired_keys", statistics.expirations);
    page.line("expired_time_cap_reached_count", 0);
    page.line("evicted_keys", statistics.evictions);
    page.line("evicted_clients", 0);
    page.line("keyspace_hits", statistics.hits);
    page.line("keyspace_misses", statistics.misses);
    page.line("pubsub_channels", 0);
    page.line("pubsub_patterns", 0);
    page.line("latest_fork_usec", 0);
    page.line("total_forks", 0);
    page.line("slave_expires_tracked_keys", 0);
    page.line("active_defrag_hits", 0);
    page.line("active_defrag_misses", 0);
    page.line("active_defrag_key_hits", 0);
    page.line("active_defrag_key_misses", 0);
    page.line("tracking_total_keys", 0);
    page.line("tracking_total_items", 0);
    page.line("tracking_total_prefixes", 0);
    page.line("unexpected_error_replies", 0);
    page.line(
        "total_error_replies",
        statistics.errors.values().sum::<u64>(),
    );
}

fn replication(page: &mut Page, _: &Snapshot) {
    page.line("role", "master");
    page.line("connected_slaves", 0);
    page.line("master_failover_state", "no-failover");
    page.line("master_replid", &*RUN_ID);
    page.line("master_replid2", "0".repeat(40));
    page.line("master_repl_offset", 0);
    page.line("second_repl_offset", -1);
    page.line("repl_backlog_active", 0);
    page.line("repl_backlog_size", 0);
    page.line("repl_backlog_first_byte_offset", 0);
    page.line("repl_backlog_histlen", 0);
}

fn cpu(page: &mut Page, snapshot: &Snapshot) {
    let seconds = |figure: fn(&ProcessFigures) -> f64| {
        format!("{:.6}", snapshot.process.as_ref().map_or(0.0, figure))
    };
    page.line(
        "used_cpu_sys",
        seconds(|process| process.cpu_system_seconds),
    );
    page.line("used_cpu_user", seconds(|process| process.cpu_user_seconds));
    page.line("used_cpu_sys_children", "0.000000");
    page.line("used_cpu_user_children", "0.000000");
}

/// The name of a command's number.
fn name(number: u16) -> &'static str {
    ALL.entries()[usize::from(number)].spec.name
}

fn command_statistics(page: &mut Page, snapshot: &Snapshot) {
    for (number, figures) in &snapshot.statistics.commands {
        let calls = figures.latency.count();
        let micros = figures.latency.sum_seconds() * 1e6;
        let each = if calls == 0 {
            0.0
        } else {
            micros / calls as f64
        };
        page.line(
            &format!("cmdstat_{}", name(*number)),
            format_args!(
                "calls={calls},usec={micros:.0},usec_per_call={each:.2},rejected_calls={},failed_calls={}",
                figures.rejected, figures.failed
            ),
        );
    }
}

fn error_statistics(page: &mut Page, snapshot: &Snapshot) {
    for (code, count) in &snapshot.statistics.errors {
        page.line(&format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latency_statistics(page: &mut Page, snapshot: &Snapshot) {
    for (number, figures) in &snapshot.statistics.commands {
        if figures.latency.count() > 0 {
            let micros = |quantile| figures.latency.quantile_seconds(quantile) * 1e6;
            page.line(
                &format!("latency_percentiles_usec_{}", name(*number)),
                format_args!(
                    "p50={:.3},p99={:.3},p99.9={:.3}",
                    micros(0.5),
                    micros(0.99),
                    micros(0.999)
                ),
            );
        }
    }
}

/// An empty database is not shown.
fn keyspace(page: &mut Page, snapshot: &Snapshot) {
    let shards = &snapshot.cache.shards;
    if shards.items > 0 {
        page.line(
            "db0",
            format_args!(
                "keys={},expires={},avg_ttl=0",
                shards.items, shards.expiring
            ),
        );
    }
}

/// A size for people, in the largest unit of 1024 that is not more than it.
fn human(bytes: u64) -> String {
    const UNITS: [(u32, char); 4] = [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    for (bits, unit) in UNITS {
        if bytes >= 1 << bits {
            return format!("{:.2}{unit}", bytes as f64 / (1u64 << bits) as f64);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1_796_368, "1.71M"),
            (25_276_502_016, "23.54G"),
            (1 << 40, "1.00T"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
