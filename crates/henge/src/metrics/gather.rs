//! What each metric is read from. Figures are gathered when somebody asks, and by who asks: nothing here is on the way of a request.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use henge_cluster::ring::NodeId;
use henge_engine::{Cause, MissCause};

use super::cluster::held;
use super::persistence::{get, progress, seconds};
use super::reading::{Figure, Reading};
use super::table::MetricId as Id;
use super::{COMMIT, Metrics};
use crate::cache::CacheStats;
use crate::cluster::view::{MemberState, Standing};
use crate::disk::figures::Figures;
use crate::disk::log::Condition;
use crate::disk::snapshots::Snapshots;
use crate::net::handles;
use crate::rate::Scope;
use crate::{allocator, memory};

impl Metrics {
    /// All figures, as they are now.
    pub(crate) fn read(&self) -> Reading {
        let mut reading = Reading::new();
        self.read_requests(&mut reading);
        self.read_commands(&mut reading);
        self.read_answers(&mut reading);
        let cache = self.shared.cache.stats();
        let queued = self.shared.replicas.streams.queued_bytes();
        self.read_cache(&cache, &mut reading);
        self.read_memory(&cache, queued.values().sum(), &mut reading);
        self.read_disk(&mut reading);
        self.read_network(&mut reading);
        self.read_security(&mut reading);
        self.read_cluster(&mut reading);
        self.read_links(&mut reading);
        self.read_replication(&queued, &mut reading);
        self.read_threads(&mut reading);
        self.read_traces(&mut reading);
        self.read_process(&mut reading);
        reading
    }

    fn read_requests(&self, reading: &mut Reading) {
        for route in self.counters.routes() {
            for &(status, count) in &route.by_status {
                let labels = [route.name, route.class, &status.to_string()];
                reading.set(Id::Requests, &labels, Figure::Count(count));
            }
            let durations = Figure::Durations(Box::new(route.latency));
            reading.set(Id::RequestDuration, &[route.name], durations);
        }
    }

    /// Only commands that were called have figures, as there are many that never are.
    fn read_commands(&self, reading: &mut Reading) {
        for (name, figures) in self.commands() {
            for (metric, count) in [
                (Id::Commands, figures.latency.count()),
                (Id::CommandsFailed, figures.failed),
                (Id::CommandsRejected, figures.rejected),
            ] {
                reading.set(metric, &[name], Figure::Count(count));
            }
            let durations = Figure::Durations(Box::new(figures.latency));
            reading.set(Id::CommandDuration, &[name], durations);
        }
        for (code, count) in self.shared.resp.errors() {
            reading.set(Id::ErrorReplies, &[&code], Figure::Count(count));
        }
    }

    /// As with commands, of what there was.
    fn read_answers(&self, reading: &mut Reading) {
        for (series, durations) in self.counters.answers() {
            let durations = Figure::Durations(Box::new(durations));
            reading.set(Id::AnswerDuration, &series.labels(), durations);
        }
    }

    fn read_cache(&self, cache: &CacheStats, reading: &mut Reading) {
        let shards = &cache.shards;
        for (metric, count) in [
            (Id::Items, shards.items),
            (Id::Hits, shards.hits),
            (Id::Misses, shards.misses),
            (Id::Sets, shards.sets),
            (Id::Deletes, shards.deletes),
            (Id::Expirations, shards.expirations),
            (Id::Sweeps, cache.sweeps),
            (Id::Purges, shards.purges),
            (Id::Charged, shards.charged_bytes),
            (Id::Limit, cache.limit_bytes),
            (Id::Withheld, cache.withheld_bytes),
            (Id::Arena, shards.arena_bytes),
            (Id::Holes, shards.hole_bytes),
            (Id::Tables, shards.table_bytes),
            (Id::InFlight, self.shared.in_flight.held() as u64),
            (Id::Shards, cache.shard_count as u64),
            (Id::Evacuations, shards.evacuations),
        ] {
            reading.count(metric, count);
        }
        if let Some(items) = cache.limit_items {
            reading.count(Id::LimitItems, items);
        }
        for (cause, count) in MissCause::ALL.iter().zip(shards.misses_by_cause) {
            reading.set(Id::MissesByCause, &[cause.name()], Figure::Count(count));
        }
        let policy = cache.policy.name();
        let counted = shards.evictions.iter().zip(shards.eviction_ages);
        for (cause, (&count, ages)) in Cause::ALL.iter().zip(counted) {
            let labels = [policy, cause.name()];
            reading.set(Id::Evictions, &labels, Figure::Count(count));
            reading.set(Id::EvictionAge, &labels, Figure::Ages(ages));
        }
        let counters = &self.counters;
        let raw = counters.sum(|thread| &thread.compression_in_bytes);
        let compressed = counters.sum(|thread| &thread.compression_out_bytes);
        let refused = counters.sum(|thread| &thread.compression_refused);
        reading.count(Id::CompressionIn, raw);
        reading.count(Id::CompressionOut, compressed);
        reading.count(Id::CompressionRefused, refused);
        if let Some(ratio) = super::ratio(compressed, raw) {
            reading.number(Id::CompressionRatio, ratio);
        }
    }

    /// What is for what is known by those who hold it; the rest is the difference to what the allocator says. As they are not of one
    /// moment, it may be none.
    fn read_memory(&self, cache: &CacheStats, queued_bytes: usize, reading: &mut Reading) {
        let Some(figures) = allocator::figures() else {
            return;
        };
        let shards = &cache.shards;
        let beside_items = shards.hole_bytes + shards.table_bytes + shards.departures_bytes;
        let log = self.shared.persistence.log.as_ref();
        let log = log.map_or(0, |log| log.backlog_bytes() as u64);
        let uses = [
            ("items", shards.charged_bytes.saturating_sub(beside_items)),
            ("holes", shards.hole_bytes),
            ("tables", shards.table_bytes),
            ("departures", shards.departures_bytes),
            (
                "buffers",
                (self.shared.in_flight.held() as u64).saturating_sub(log),
            ),
            ("log", log),
            ("replication", queued_bytes as u64),
        ];
        let known: u64 = uses.iter().map(|(_, bytes)| bytes).sum();
        let allocated = figures.allocated_bytes;
        let slack = figures.resident_bytes.saturating_sub(allocated);
        let rest = [
            ("other", allocated.saturating_sub(known)),
            ("allocator_slack", slack),
        ];
        for (use_, bytes) in uses.into_iter().chain(rest) {
            reading.set(Id::MemoryUse, &[use_], Figure::Count(bytes));
        }
    }

    fn read_disk(&self, reading: &mut Reading) {
        let disk = &self.shared.persistence;
        reading.flag(Id::WritesMayBeMissing, disk.missing().is_some());
        reading.flag(Id::Loading, disk.is_loading());
        if let Some(log) = &disk.log {
            reading.flag(Id::LogWritable, log.condition() == Condition::Open);
            Self::read_log(&log.figures, reading);
        }
        if let Some(snapshots) = &disk.snapshots {
            Self::read_snapshots(snapshots, reading);
        }
    }

    fn read_log(figures: &Figures, reading: &mut Reading) {
        for (metric, figure) in [
            (Id::LogSegments, &figures.segments),
            (Id::LogSize, &figures.log_bytes),
            (Id::LogUncovered, &figures.uncovered_bytes),
            (Id::LogRecords, &figures.records),
            (Id::LogWritten, &figures.written_bytes),
            (Id::LogRounds, &figures.rounds),
        ] {
            reading.count(metric, get(figure));
        }
        let syncs = figures.syncs.distribution();
        reading.count(Id::LogSyncs, syncs.count());
        let durations = Figure::Durations(Box::new(syncs));
        reading.set(Id::LogSyncDuration, &[], durations);
        reading.number(Id::LogDelay, seconds(&figures.delayed_us));
    }

    fn read_snapshots(snapshots: &Snapshots, reading: &mut Reading) {
        let figures = &snapshots.figures;
        for (metric, figure) in [
            (Id::SnapshotSize, &figures.bytes),
            (Id::SnapshotRecords, &figures.records),
            (Id::SnapshotsMade, &figures.made),
            (Id::SnapshotsFailed, &figures.failed),
        ] {
            reading.count(metric, get(figure));
        }
        reading.number(Id::SnapshotProgress, progress(snapshots).unwrap_or(1.0));
        reading.number(Id::SnapshotDuration, seconds(&figures.took_us));
        reading.count(Id::SnapshotTimestamp, get(&figures.made_at_ms) / 1000);
    }

    fn read_network(&self, reading: &mut Reading) {
        let counters = &self.counters;
        reading.count(Id::OpenConnections, counters.open_connections() as u64);
        let most = self.shared.live.load().max_connections;
        reading.count(Id::MaxConnections, most as u64);
        let acceptor = &counters.acceptor;
        for (metric, counter) in [
            (Id::AcceptedConnections, &acceptor.accepted),
            (Id::RefusedConnections, &acceptor.refused),
            (Id::AcceptErrors, &acceptor.errors),
        ] {
            reading.count(metric, counter.load(Ordering::Relaxed));
        }
        reading.count(Id::Received, counters.sum(|thread| &thread.received_bytes));
        reading.count(Id::Sent, counters.sum(|thread| &thread.sent_bytes));
        reading.count(Id::TimedOut, counters.sum(|thread| &thread.timed_out));
        for scope in Scope::ALL {
            let count = counters.sum(|thread| &thread.rate_limited[scope as usize]);
            reading.set(Id::RateLimited, &[scope.name()], Figure::Count(count));
        }
        let errors = counters.sum(|thread| &thread.protocol_errors);
        reading.count(Id::ProtocolErrors, errors);
    }

    fn read_security(&self, reading: &mut Reading) {
        let refused = self.counters.sum(|thread| &thread.refused_certificates);
        reading.count(Id::RefusedCertificates, refused);
        if let Some(expires_at_s) = self.shared.tls.expires_at_s() {
            reading.count(Id::CertificateExpiry, expires_at_s);
        }
        reading.count(Id::AuditLost, self.shared.audit.lost());
    }

    /// What is asked of other members, by their names.
    fn read_links(&self, reading: &mut Reading) {
        let view = self.shared.cluster.view.load_full();
        let name = |instance| {
            let mut members = view.members.iter();
            let member = members.find(|member| member.instance == instance);
            member.map(|member| &*member.name)
        };
        for (peer, (latency, failed)) in self.counters.links(name) {
            let durations = Figure::Durations(Box::new(latency));
            reading.set(Id::LinkDuration, &[peer], durations);
            reading.set(Id::LinkFailures, &[peer], Figure::Count(failed));
        }
    }

    /// Of a node by itself there is none.
    fn read_replication(&self, queued: &BTreeMap<NodeId, usize>, reading: &mut Reading) {
        let replicas = &self.shared.replicas;
        for (metric, counter) in [
            (Id::Fences, &replicas.fences),
            (Id::Openings, &replicas.openings),
            (Id::AdoptedTerms, &replicas.adoptions),
        ] {
            reading.count(metric, counter.load(Ordering::Relaxed));
        }
        reading.count(Id::Commits, replicas.lag.commits());
        let behind = replicas.lag.behind();
        let view = self.shared.cluster.view.load_full();
        for member in view.members.iter().filter(|member| !member.is_me) {
            let peer = [&*member.name];
            let behind = behind.get(&member.id).copied().unwrap_or_default();
            let queued = queued.get(&member.id).copied().unwrap_or_default();
            for (metric, figure) in [
                (Id::ReplicaLagEntries, Figure::Count(behind.entries)),
                (Id::ReplicaLag, Figure::Number(behind.lag.as_secs_f64())),
                (Id::ReplicasToFollow, Figure::Count(behind.to_follow)),
                (Id::ReplicaQueue, Figure::Count(queued as u64)),
            ] {
                reading.set(metric, &peer, figure);
            }
        }
    }

    fn read_threads(&self, reading: &mut Reading) {
        for (index, busy) in self.counters.busy().enumerate() {
            let counters = self.counters.thread(index);
            let thread = [&*index.to_string()];
            let delay = Figure::Durations(Box::new(counters.delay.distribution()));
            let stalls = Figure::Count(counters.stalls.load(Ordering::Relaxed));
            reading.set(Id::Busy, &thread, Figure::Number(busy.as_secs_f64()));
            reading.set(Id::ThreadDelay, &thread, delay);
            reading.set(Id::Stalls, &thread, stalls);
        }
    }

    fn read_cluster(&self, reading: &mut Reading) {
        let cluster = &self.shared.cluster;
        let view = cluster.view.load_full();
        let members = cluster.members(&view);
        for state in MemberState::ALL {
            let those = members.iter().filter(|member| member.state == state);
            let count = Figure::Count(those.count() as u64);
            reading.set(Id::ClusterMembers, &[state.name()], count);
        }
        let is_leader = cluster.leader().is_some_and(|name| *name == self.node_id);
        reading.flag(Id::InCluster, view.standing == Standing::Inside);
        reading.flag(Id::ControlLeader, is_leader);
        let (lost, unknown) = self.shared.losses.counts();
        let replicas = &self.shared.replicas;
        for (metric, count) in [
            (Id::Partitions, held(&view) as u64),
            (Id::Epoch, u64::from(view.epoch)),
            (Id::PartitionsToMove, view.placing.moves.left() as u64),
            (Id::ReplicasToAlign, self.alignment(&view).left() as u64),
            (Id::ClusterEvents, cluster.events.count()),
            (Id::ControlLeaderChanges, cluster.leader_changes()),
            (
                Id::MovedPartitions,
                cluster.moved_partitions.load(Ordering::Relaxed),
            ),
            (
                Id::DroppedDatagrams,
                cluster.dropped_datagrams.load(Ordering::Relaxed),
            ),
            (Id::CopiesSent, replicas.pace.sent_bytes()),
            (Id::LostEntries, lost),
            (Id::UnknownLosses, unknown),
            (Id::Forwarded, self.counters.sum(|thread| &thread.forwarded)),
        ] {
            reading.count(metric, count);
        }
    }

    fn read_traces(&self, reading: &mut Reading) {
        let traces = self.shared.traces.as_ref();
        let (exported, dropped) =
            traces.map_or((0, 0), |traces| (traces.exported(), traces.dropped()));
        reading.count(Id::SpansExported, exported);
        reading.count(Id::SpansDropped, dropped);
    }

    fn read_process(&self, reading: &mut Reading) {
        if let Ok(process) = memory::process() {
            reading.count(Id::Rss, process.rss_bytes);
            reading.count(Id::Threads, process.threads);
            reading.count(Id::OpenFiles, process.open_files);
            for (mode, seconds) in [
                ("user", process.cpu_user_seconds),
                ("system", process.cpu_system_seconds),
            ] {
                reading.set(Id::Cpu, &[mode], Figure::Number(seconds));
            }
        }
        if let Some(limit) = handles::limit() {
            reading.count(Id::OpenFilesLimit, limit);
        }
        if let Some(figures) = allocator::figures() {
            reading.count(Id::Allocated, figures.allocated_bytes);
            reading.count(Id::Active, figures.active_bytes);
            reading.count(Id::Resident, figures.resident_bytes);
            reading.count(Id::Retained, figures.retained_bytes);
        }
        reading.count(Id::DataThreads, self.counters.threads() as u64);
        reading.count(Id::LiveTasks, self.counters.live_tasks() as u64);
        reading.number(Id::Uptime, self.uptime_seconds());
        let build = [env!("CARGO_PKG_VERSION"), COMMIT.unwrap_or("unknown")];
        reading.set(Id::Build, &build, Figure::Count(1));
    }
}
