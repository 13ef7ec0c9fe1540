//! The metrics as Prometheus reads them, in the `OpenMetrics` text format. Each metric is named once, here; the figures are
//! gathered at the moment of the scrape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use henge_engine::Cause;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::cluster::held;
use super::counters::CommandFigures;
use super::persistence::{get, progress, seconds};
use super::{COMMIT, Metrics};
use crate::cache::CacheStats;
use crate::cluster::view::{MemberState, Standing};
use crate::disk::log::{self, Condition};
use crate::disk::snapshots::Snapshots;
use crate::rate::Scope;
use crate::resp::COMMANDS;
use crate::{allocator, memory};

/// The media type of the format.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics as text.
pub(crate) fn text(metrics: &Arc<Metrics>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(Arc::clone(metrics))));
    let mut out = String::with_capacity(16 * 1024);
    text::encode(&mut out, &registry).expect("writing to a string cannot fail");
    out
}

#[derive(Debug)]
struct Scrape(Arc<Metrics>);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.requests(&mut out)?;
        self.commands(&mut out)?;
        self.cache(&mut out)?;
        self.persistence(&mut out)?;
        self.network(&mut out)?;
        self.cluster(&mut out)?;
        self.process(&mut out)
    }
}

/// One label and its value.
type Label<'a> = [(&'static str, &'a str)];

/// Writes metrics under our prefix.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: &[(&Label<'_>, u64)],
    ) -> fmt::Result {
        let name = format!("henge_{name}");
        let mut metric = self
            .0
            .encode_descriptor(&name, help, unit, MetricType::Counter)?;
        for (labels, value) in values {
            let mut metric = metric.encode_family(labels)?;
            metric.encode_counter::<[(&str, &str); 0], _, f64>(value, None)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let name = format!("henge_{name}");
        self.0
            .encode_descriptor(&name, help, unit, MetricType::Counter)?
            .encode_counter::<[(&str, &str); 0], _, f64>(&value, None)
    }

    /// A counter of time.
    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let name = format!("henge_{name}");
        self.0
            .encode_descriptor(&name, help, Some(&Unit::Seconds), MetricType::Counter)?
            .encode_counter::<[(&str, &str); 0], _, f64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
        let name = format!("henge_{name}");
        self.0
            .encode_descriptor(&name, help, unit, MetricType::Gauge)?
            .encode_gauge(&value)
    }
}

impl Scrape {
    fn requests(&self, out: &mut Out<'_>) -> fmt::Result {
        let routes = self.0.counters.routes();
        let statuses: Vec<(String, &str, &str, u64)> = routes
            .iter()
            .flat_map(|route| {
                let named = move |&(status, count): &(u16, u64)| {
                    (status.to_string(), route.name, route.class, count)
                };
                route.by_status.iter().map(named)
            })
            .collect();
        let labels: Vec<[(&str, &str); 3]> = statuses
            .iter()
            .map(|(status, route, class, _)| {
                [
                    ("route", *route),
                    ("class", *class),
                    ("status", status.as_str()),
                ]
            })
            .collect();
        let values: Vec<(&Label<'_>, u64)> = labels
            .iter()
            .zip(&statuses)
            .map(|(labels, status)| (&labels[..], status.3))
            .collect();
        out.counters("requests", "Requests answered", None, &values)?;

        let mut metric = out.0.encode_descriptor(
            "henge_request_duration",
            "From the last byte of a request's head to its answer",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for route in &routes {
            let labels = [("route", route.name)];
            let (sum, count) = (route.latency.sum_seconds(), route.latency.count());
            metric
                .encode_family(&labels)?
                .encode_histogram::<[(&str, &str); 0]>(sum, count, &route.latency.coarse(), None)?;
        }
        Ok(())
    }

    /// The Redis protocol. Only commands that were called have a series, as there are many that never are.
    fn commands(&self, out: &mut Out<'_>) -> fmt::Result {
        let commands = self.0.counters.commands();
        let named: Vec<(&str, &CommandFigures)> = commands
            .iter()
            .map(|(number, figures)| {
                let entry = &COMMANDS.entries()[usize::from(*number)];
                (entry.spec.name, figures)
            })
            .collect();
        let labels: Vec<[(&str, &str); 1]> =
            named.iter().map(|(name, _)| [("command", *name)]).collect();
        let counts = |count: fn(&CommandFigures) -> u64| -> Vec<(&Label<'_>, u64)> {
            labels
                .iter()
                .zip(&named)
                .map(|(labels, (_, figures))| (&labels[..], count(figures)))
                .collect()
        };
        out.counters(
            "commands",
            "Commands of the Redis protocol that ran",
            None,
            &counts(|figures| figures.latency.count()),
        )?;
        out.counters(
            "commands_failed",
            "Commands that ran and answered an error",
            None,
            &counts(|figures| figures.failed),
        )?;
        out.counters(
            "commands_rejected",
            "Commands that did not run, as they were wrong in form",
            None,
            &counts(|figures| figures.rejected),
        )?;
        let mut metric = out.0.encode_descriptor(
            "henge_command_duration",
            "What a command took to run; quick ones in a long pipeline share the time of all",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (labels, (_, figures)) in labels.iter().zip(&named) {
            let latency = &figures.latency;
            let (sum, count) = (latency.sum_seconds(), latency.count());
            metric
                .encode_family(labels)?
                .encode_histogram::<[(&str, &str); 0]>(sum, count, &latency.coarse(), None)?;
        }
        let errors = self.0.shared.resp.errors();
        let labels: Vec<[(&str, &str); 1]> = errors
            .keys()
            .map(|code| [("code", code.as_str())])
            .collect();
        let values: Vec<(&Label<'_>, u64)> = labels
            .iter()
            .zip(errors.values())
            .map(|(labels, count)| (&labels[..], *count))
            .collect();
        out.counters(
            "error_replies",
            "Errors answered over the Redis protocol",
            None,
            &values,
        )
    }

    fn cache(&self, out: &mut Out<'_>) -> fmt::Result {
        let cache = self.0.shared.cache.stats();
        let (bytes, none) = (Some(&Unit::Bytes), None);
        out.gauge("items", "Items that live", none, cache.shards.items as f64)?;
        out.gauge(
            "charged",
            "Memory that the cache is charged",
            bytes,
            cache.shards.charged_bytes as f64,
        )?;
        out.gauge(
            "limit",
            "Memory that the cache may be charged",
            bytes,
            cache.limit_bytes as f64,
        )?;
        let figures = [
            (
                "withheld",
                "Of the limit, withheld because the machine is short of memory",
                cache.withheld_bytes,
            ),
            (
                "arena",
                "Of the charge, segments of the arenas",
                cache.shards.arena_bytes,
            ),
            (
                "holes",
                "Of the arenas, free between records",
                cache.shards.hole_bytes,
            ),
            (
                "table",
                "Of the charge, buckets and directories",
                cache.shards.table_bytes,
            ),
        ];
        for (name, help, figure) in figures {
            out.gauge(name, help, bytes, figure as f64)?;
        }
        out.gauge(
            "shards",
            "Shards, each with a lock and an order",
            none,
            cache.shard_count as f64,
        )?;
        if let Some(items) = cache.limit_items {
            out.gauge("limit_items", "Items that may be kept", none, items as f64)?;
        }
        out.counter(
            "evacuations",
            "Segments whose records were moved together",
            none,
            cache.shards.evacuations,
        )?;
        Self::events(out, &cache)?;
        self.compression(out)
    }

    /// What the shards have counted.
    fn events(out: &mut Out<'_>, cache: &CacheStats) -> fmt::Result {
        let none = None;
        out.counter(
            "hits",
            "Reads that found their key",
            none,
            cache.shards.hits,
        )?;
        out.counter(
            "misses",
            "Reads that did not find their key",
            none,
            cache.shards.misses,
        )?;
        out.counter("sets", "Values stored", none, cache.shards.sets)?;
        out.counter("deletes", "Keys deleted", none, cache.shards.deletes)?;
        out.counter(
            "expirations",
            "Items that expired",
            none,
            cache.shards.expirations,
        )?;
        let policy = cache.policy.name();
        let labels = Cause::ALL.map(|cause| [("policy", policy), ("cause", cause.name())]);
        let values: Vec<(&Label<'_>, u64)> = labels
            .iter()
            .zip(cache.shards.evictions)
            .map(|(labels, count)| (&labels[..], count))
            .collect();
        out.counters("evictions", "Items evicted", none, &values)?;
        out.counter("sweeps", "Sweeps for expired items", none, cache.sweeps)?;
        out.counter("purges", "Tombstones purged", none, cache.shards.purges)
    }

    fn compression(&self, out: &mut Out<'_>) -> fmt::Result {
        let (bytes, none) = (Some(&Unit::Bytes), None);
        let counters = &self.0.counters;
        let (input, output) = (
            counters.sum(|thread| &thread.compression_in_bytes),
            counters.sum(|thread| &thread.compression_out_bytes),
        );
        out.counter("compression_in", "Values before compression", bytes, input)?;
        out.counter("compression_out", "Values after compression", bytes, output)?;
        out.counter(
            "compression_refused",
            "Values kept raw because they would not shrink",
            none,
            counters.sum(|thread| &thread.compression_refused),
        )?;
        let ratio = super::ratio(output, input).unwrap_or(1.0);
        out.gauge(
            "compression_ratio",
            "Compressed bytes by raw bytes, of what was compressed",
            none,
            ratio,
        )
    }

    fn persistence(&self, out: &mut Out<'_>) -> fmt::Result {
        let shared = &self.0.shared.persistence;
        let is = |holds: bool| f64::from(u8::from(holds));
        for (name, help, holds) in [
            (
                "writes_may_be_missing",
                "Whether writes that were acknowledged before the start may be missing",
                shared.missing().is_some(),
            ),
            (
                "loading",
                "Whether the node is loading what it has on its disk",
                shared.is_loading(),
            ),
        ] {
            out.gauge(name, help, None, is(holds))?;
        }
        if let Some(log) = &shared.log {
            let is_open = log.condition() == Condition::Open;
            let help = "Whether the write-ahead log can be written";
            out.gauge("log_writable", help, None, is(is_open))?;
            Self::log(out, &log.figures)?;
        }
        match &shared.snapshots {
            Some(snapshots) => Self::snapshots(out, snapshots),
            None => Ok(()),
        }
    }

    fn log(out: &mut Out<'_>, figures: &log::Figures) -> fmt::Result {
        let bytes = Some(&Unit::Bytes);
        for (name, help, unit, figure) in [
            (
                "log_segments",
                "Segments of the log",
                None,
                &figures.segments,
            ),
            ("log_size", "The log on the disk", bytes, &figures.log_bytes),
            (
                "log_uncovered",
                "Of the log, what no snapshot covers",
                bytes,
                &figures.uncovered_bytes,
            ),
        ] {
            out.gauge(name, help, unit, get(figure) as f64)?;
        }
        for (name, help, unit, figure) in [
            (
                "log_records",
                "Records written to the log",
                None,
                &figures.records,
            ),
            (
                "log_written",
                "What was written to the log",
                bytes,
                &figures.written_bytes,
            ),
            (
                "log_rounds",
                "Rounds in which it was written",
                None,
                &figures.rounds,
            ),
            ("log_syncs", "Syncs of the log", None, &figures.syncs),
        ] {
            out.counter(name, help, unit, get(figure))?;
        }
        out.seconds(
            "log_sync",
            "Time spent in syncs of the log",
            seconds(&figures.sync_us),
        )?;
        out.seconds(
            "log_delay",
            "Time for which writes were held back, as the log outran the snapshots",
            seconds(&figures.delayed_us),
        )
    }

    fn snapshots(out: &mut Out<'_>, snapshots: &Snapshots) -> fmt::Result {
        let figures = &snapshots.figures;
        let (bytes, time) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
        let progress = progress(snapshots).unwrap_or(1.0);
        let made_at = (get(&figures.made_at_ms) / 1000) as f64;
        for (name, help, unit, figure) in [
            (
                "snapshot_size",
                "The last snapshot on the disk",
                bytes,
                get(&figures.bytes) as f64,
            ),
            (
                "snapshot_records",
                "Records of the last snapshot",
                None,
                get(&figures.records) as f64,
            ),
            (
                "snapshot_progress",
                "The part of the partitions that the present snapshot has; 1 between snapshots",
                None,
                progress,
            ),
            (
                "snapshot_duration",
                "How long the last snapshot took",
                time,
                seconds(&figures.took_us),
            ),
            (
                "snapshot_timestamp",
                "When the last snapshot was made, since 1970; 0 for never",
                time,
                made_at,
            ),
        ] {
            out.gauge(name, help, unit, figure)?;
        }
        let made = get(&figures.made);
        out.counter("snapshots_made", "Snapshots made", None, made)?;
        let failed = get(&figures.failed);
        out.counter("snapshots_failed", "Snapshots that failed", None, failed)
    }

    fn network(&self, out: &mut Out<'_>) -> fmt::Result {
        let counters = &self.0.counters;
        let (bytes, none) = (Some(&Unit::Bytes), None);
        out.gauge(
            "open_connections",
            "Connections that are open",
            none,
            counters.open_connections() as f64,
        )?;
        let acceptor = &counters.acceptor;
        for (name, help, counter) in [
            (
                "accepted_connections",
                "Connections taken",
                &acceptor.accepted,
            ),
            (
                "refused_connections",
                "Connections turned away at limits.max_connections",
                &acceptor.refused,
            ),
            (
                "accept_errors",
                "Connections that could not be taken",
                &acceptor.errors,
            ),
        ] {
            out.counter(name, help, none, counter.load(Ordering::Relaxed))?;
        }
        out.counter(
            "received",
            "Bytes from clients",
            bytes,
            counters.sum(|thread| &thread.received_bytes),
        )?;
        out.counter(
            "sent",
            "Bytes to clients",
            bytes,
            counters.sum(|thread| &thread.sent_bytes),
        )?;
        out.counter(
            "timed_out_connections",
            "Connections closed because the client was too slow",
            none,
            counters.sum(|thread| &thread.timed_out),
        )?;
        let limited = Scope::ALL.map(|scope| {
            let count = counters.sum(|thread| &thread.rate_limited[scope as usize]);
            ([("scope", scope.name())], count)
        });
        out.counters(
            "rate_limited_requests",
            "Requests and commands that were not served, as rate_limits allow no more",
            none,
            &limited
                .each_ref()
                .map(|(label, count)| (&label[..], *count)),
        )?;
        out.counter(
            "protocol_errors",
            "Connections closed because what came was no HTTP",
            none,
            counters.sum(|thread| &thread.protocol_errors),
        )?;
        out.gauge(
            "in_flight",
            "Large bodies and answers in memory",
            bytes,
            self.0.shared.in_flight.held() as f64,
        )
    }

    fn cluster(&self, out: &mut Out<'_>) -> fmt::Result {
        let cluster = &self.0.shared.cluster;
        let view = cluster.view.load_full();
        let members = cluster.members(&view);
        let mut metric = out.0.encode_descriptor(
            "henge_cluster_members",
            "Members of the cluster by their states",
            None,
            MetricType::Gauge,
        )?;
        for state in MemberState::ALL {
            let count = members.iter().filter(|member| member.state == state);
            metric
                .encode_family(&[("state", state.name())])?
                .encode_gauge(&(count.count() as f64))?;
        }
        let is = |holds: bool| f64::from(u8::from(holds));
        let is_leader = cluster.leader().is_some_and(|name| *name == self.0.node_id);
        for (name, help, value) in [
            (
                "in_cluster",
                "Whether the node is in its cluster, and serves",
                is(view.standing == Standing::Inside),
            ),
            (
                "control_leader",
                "Whether the node is the control leader",
                is(is_leader),
            ),
            (
                "partitions",
                "Partitions that the node has",
                held(&view) as f64,
            ),
            (
                "epoch",
                "The epoch of the topology that the node knows",
                f64::from(view.epoch),
            ),
            (
                "partitions_to_move",
                "Partitions of the cluster that are not where they should be yet, as the node knows",
                view.placing.moves.left() as f64,
            ),
            (
                "replicas_to_align",
                "Replicas of the node that lack something of what their leaders have",
                self.0.alignment(&view).left() as f64,
            ),
        ] {
            out.gauge(name, help, None, value)?;
        }
        out.counter(
            "cluster_events",
            "Events of the cluster that the node has seen",
            None,
            cluster.events.count(),
        )?;
        out.counter(
            "moved_partitions",
            "Partitions of the cluster whose replicas have become others, as the node has seen",
            None,
            cluster.moved_partitions.load(Ordering::Relaxed),
        )?;
        out.counter(
            "dropped_datagrams",
            "Datagrams of other nodes, or of strangers, that the node has not taken",
            None,
            cluster.dropped_datagrams.load(Ordering::Relaxed),
        )?;
        out.counter(
            "copies_sent",
            "Bytes that the node has sent of copies of its partitions that others make",
            Some(&Unit::Bytes),
            self.0.shared.replicas.pace.sent_bytes(),
        )?;
        let (lost, unknown) = self.0.shared.losses.counts();
        out.counter(
            "lost_entries",
            "Entries that the node had, perhaps acknowledged at ONE, and that did not survive; since its list of losses began",
            None,
            lost,
        )?;
        out.counter(
            "unknown_losses",
            "Times that the node cannot know what was lost, as with its memory; since its list of losses began",
            None,
            unknown,
        )?;
        out.counter(
            "forwarded",
            "Commands that other nodes were asked to run, as they have the keys",
            None,
            self.0.counters.sum(|thread| &thread.forwarded),
        )
    }

    fn process(&self, out: &mut Out<'_>) -> fmt::Result {
        let (bytes, none) = (Some(&Unit::Bytes), None);
        if let Ok(process) = memory::process() {
            out.gauge("rss", "Resident memory", bytes, process.rss_bytes as f64)?;
            out.gauge("threads", "Threads", none, process.threads as f64)?;
            out.gauge(
                "open_files",
                "Open file handles",
                none,
                process.open_files as f64,
            )?;
            let mut metric = out.0.encode_descriptor(
                "henge_cpu",
                "CPU time",
                Some(&Unit::Seconds),
                MetricType::Counter,
            )?;
            for (mode, seconds) in [
                ("user", process.cpu_user_seconds),
                ("system", process.cpu_system_seconds),
            ] {
                metric
                    .encode_family(&[("mode", mode)])?
                    .encode_counter::<[(&str, &str); 0], _, f64>(&seconds, None)?;
            }
        }
        if let Some(figures) = allocator::figures() {
            for (name, help, figure) in [
                (
                    "allocated",
                    "Live allocations, as the allocator rounds them",
                    figures.allocated_bytes,
                ),
                (
                    "active",
                    "Pages with live allocations",
                    figures.active_bytes,
                ),
                (
                    "resident",
                    "Pages that the allocator holds in memory",
                    figures.resident_bytes,
                ),
                (
                    "retained",
                    "Address space that it keeps without memory",
                    figures.retained_bytes,
                ),
            ] {
                out.gauge(&format!("allocator_{name}"), help, bytes, figure as f64)?;
            }
        }
        let tasks = self.0.counters.live_tasks() as f64;
        out.gauge("live_tasks", "Tasks of the runtimes", none, tasks)?;
        let uptime = self.0.uptime_seconds();
        out.gauge(
            "uptime",
            "Time since the start",
            Some(&Unit::Seconds),
            uptime,
        )?;
        let mut metric =
            out.0
                .encode_descriptor("henge_build", "What is running", None, MetricType::Info)?;
        metric.encode_info(&[
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", COMMIT.unwrap_or("unknown")),
        ])
    }
}
