//! The one table of metrics. The exposition for Prometheus, the page of JSON and the page of documentation follow from it; what is not
//! here is not shown. What each is read from is in `gather.rs`.

/// What kind of figure a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// It only grows while the node lives.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It holds or does not: 1 or 0 for Prometheus.
    Flag,
    /// Durations, of which JSON has quantiles; or ages, of which it has a count by bounds.
    Histogram,
    /// Texts, as labels of a 1.
    Info,
}

/// What a metric is counted in; part of its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    /// In what its name says.
    Plain,
    Bytes,
    Seconds,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Metric {
    /// Its heading in the documentation.
    #[cfg_attr(not(test), expect(dead_code, reason = "the page is made by a test"))]
    pub(crate) section: &'static str,
    /// Its name for Prometheus, without the prefix, the unit and `_total`.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: Unit,
    pub(crate) labels: &'static [&'static str],
    /// Where JSON has it: members separated by dots. `{label}` stands for what the label says.
    pub(crate) json: &'static str,
    /// What it is, in a line.
    pub(crate) help: &'static str,
}

impl Metric {
    /// Its whole name, but for the suffix of its kind.
    pub(crate) fn prefixed(&self) -> String {
        format!("henge_{}", self.name)
    }
}

macro_rules! metrics {
    ($($section:literal { $($id:ident $kind:ident $unit:ident $name:literal [$($label:literal)*] $json:literal $help:literal;)* })*) => {
        /// The name of a metric; as a number, its row in [`METRICS`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum MetricId { $($($id,)*)* }

        /// All metrics.
        pub(crate) static METRICS: [Metric; [$($($name),*),*].len()] = [$($(Metric {
            section: $section,
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            json: $json,
            help: $help,
        },)*)*];
    };
}

metrics! {
    "Requests over HTTP" {
        Requests Counter Plain "requests" ["route" "class" "status"] "routes.{route}.by_status.{status}" "Requests answered";
        RequestDuration Histogram Seconds "request_duration" ["route"] "routes.{route}.latency_seconds" "From the last byte of a request's head to its answer";
    }
    "Commands of the Redis protocol" {
        Commands Counter Plain "commands" ["command"] "commands.{command}.calls" "Commands that ran";
        CommandsFailed Counter Plain "commands_failed" ["command"] "commands.{command}.failed" "Commands that ran and answered an error";
        CommandsRejected Counter Plain "commands_rejected" ["command"] "commands.{command}.rejected" "Commands that did not run, as they were wrong in form";
        CommandDuration Histogram Seconds "command_duration" ["command"] "commands.{command}.latency_seconds" "What a command took to run; quick ones in a long pipeline share the time of all";
        ErrorReplies Counter Plain "error_replies" ["code"] "error_replies.{code}" "Errors answered";
    }
    "What clients waited for, in a cluster" {
        AnswerDuration Histogram Seconds "answer_duration" ["protocol" "command" "level"] "answers.{protocol}.{command}.{level}" "From when a request about keys was read (over HTTP its head) to when its answer could be told, with all that other nodes and the log took for it, by the level it asked for; nothing of a node by itself, which waits for no other";
    }
    "The cache" {
        Items Gauge Plain "items" [] "items" "Items that live";
        LimitItems Gauge Plain "limit_items" [] "limit_items" "Items that may be kept, where there is a limit";
        Hits Counter Plain "hits" [] "hits" "Reads that found their key";
        Misses Counter Plain "misses" [] "misses" "Reads that did not find their key";
        MissesByCause Counter Plain "misses_by_cause" ["cause"] "misses_by_cause.{cause}" "Reads that did not find their key, by why it was not there";
        Sets Counter Plain "sets" [] "sets" "Values stored";
        Deletes Counter Plain "deletes" [] "deletes" "Keys deleted";
        Expirations Counter Plain "expirations" [] "expirations" "Items that expired";
        Evictions Counter Plain "evictions" ["policy" "cause"] "evictions.{cause}" "Items evicted";
        EvictionAge Histogram Seconds "eviction_age" ["policy" "cause"] "evictions_by_age.{cause}" "How long ago items that were evicted had been written";
        Sweeps Counter Plain "sweeps" [] "sweeps" "Sweeps for expired items";
        Purges Counter Plain "purges" [] "purges" "Tombstones purged";
        CompressionIn Counter Bytes "compression_in" [] "compression.in_bytes" "Values before compression";
        CompressionOut Counter Bytes "compression_out" [] "compression.out_bytes" "Values after compression";
        CompressionRefused Counter Plain "compression_refused" [] "compression.kept_raw" "Values kept raw because they would not shrink";
        CompressionRatio Gauge Plain "compression_ratio" [] "compression.ratio" "Compressed bytes by raw bytes, of what was compressed; none before something was";
    }
    "Memory" {
        MemoryUse Gauge Bytes "memory_use" ["use"] "memory.by_use.{use}" "What the allocator holds in memory, by what it is for; a large value that is on its way to clients or replicas counts as both";
        Charged Gauge Bytes "charged" [] "memory.charged_bytes" "Memory that the cache is charged";
        Limit Gauge Bytes "limit" [] "memory.limit_bytes" "Memory that the cache may be charged";
        Withheld Gauge Bytes "withheld" [] "memory.withheld_bytes" "Of the limit, withheld because the machine is short of memory";
        Arena Gauge Bytes "arena" [] "memory.arena_bytes" "Of the charge, segments of the arenas";
        Holes Gauge Bytes "holes" [] "memory.hole_bytes" "Of the arenas, free between records";
        Tables Gauge Bytes "table" [] "memory.table_bytes" "Of the charge, buckets and directories";
        InFlight Gauge Bytes "in_flight" [] "memory.in_flight_bytes" "Large bodies and answers in memory";
        Rss Gauge Bytes "rss" [] "memory.rss_bytes" "Resident memory";
        Allocated Gauge Bytes "allocator_allocated" [] "allocator.allocated_bytes" "Live allocations, as the allocator rounds them";
        Active Gauge Bytes "allocator_active" [] "allocator.active_bytes" "Pages with live allocations";
        Resident Gauge Bytes "allocator_resident" [] "allocator.resident_bytes" "Pages that the allocator holds in memory";
        Retained Gauge Bytes "allocator_retained" [] "allocator.retained_bytes" "Address space that it keeps without memory";
        Shards Gauge Plain "shards" [] "shards" "Shards, each with a lock and an order";
        Evacuations Counter Plain "evacuations" [] "evacuations" "Segments whose records were moved together";
    }
    "What is on the disk" {
        WritesMayBeMissing Flag Plain "writes_may_be_missing" [] "persistence.writes_may_be_missing" "Whether writes that were acknowledged before the start may be missing";
        Loading Flag Plain "loading" [] "persistence.is_loading" "Whether the node is loading what it has on its disk";
        LogWritable Flag Plain "log_writable" [] "persistence.log.writable" "Whether the write-ahead log can be written";
        LogSegments Gauge Plain "log_segments" [] "persistence.log.segments" "Segments of the log";
        LogSize Gauge Bytes "log_size" [] "persistence.log.bytes" "The log on the disk";
        LogUncovered Gauge Bytes "log_uncovered" [] "persistence.log.uncovered_bytes" "Of the log, what no snapshot covers";
        LogRecords Counter Plain "log_records" [] "persistence.log.records" "Records written to the log";
        LogWritten Counter Bytes "log_written" [] "persistence.log.written_bytes" "What was written to the log";
        LogRounds Counter Plain "log_rounds" [] "persistence.log.rounds" "Rounds in which it was written";
        LogSyncs Counter Plain "log_syncs" [] "persistence.log.syncs" "Syncs of the log";
        LogSyncDuration Histogram Seconds "log_sync_duration" [] "persistence.log.sync_latency_seconds" "What a sync of the log took";
        LogDelay Counter Seconds "log_delay" [] "persistence.log.delayed_seconds" "Time for which writes were held back, as the log outran the snapshots";
        SnapshotSize Gauge Bytes "snapshot_size" [] "persistence.snapshots.last_bytes" "The last snapshot on the disk";
        SnapshotRecords Gauge Plain "snapshot_records" [] "persistence.snapshots.last_records" "Records of the last snapshot";
        SnapshotProgress Gauge Plain "snapshot_progress" [] "persistence.snapshots.share" "The part of the partitions that the present snapshot has; 1 between snapshots";
        SnapshotDuration Gauge Seconds "snapshot_duration" [] "persistence.snapshots.last_seconds" "How long the last snapshot took";
        SnapshotTimestamp Gauge Seconds "snapshot_timestamp" [] "persistence.snapshots.last_at_seconds" "When the last snapshot was made, since 1970; 0 for never";
        SnapshotsMade Counter Plain "snapshots_made" [] "persistence.snapshots.made" "Snapshots made";
        SnapshotsFailed Counter Plain "snapshots_failed" [] "persistence.snapshots.failed" "Snapshots that failed";
    }
    "The network" {
        OpenConnections Gauge Plain "open_connections" [] "connections.open" "Connections that are open";
        MaxConnections Gauge Plain "max_connections" [] "connections.limit" "Connections that may be open, by limits.max_connections";
        AcceptedConnections Counter Plain "accepted_connections" [] "connections.accepted" "Connections taken";
        RefusedConnections Counter Plain "refused_connections" [] "connections.refused" "Connections turned away at limits.max_connections";
        AcceptErrors Counter Plain "accept_errors" [] "network.accept_errors" "Connections that could not be taken";
        Received Counter Bytes "received" [] "network.received_bytes" "Bytes from clients";
        Sent Counter Bytes "sent" [] "network.sent_bytes" "Bytes to clients";
        TimedOut Counter Plain "timed_out_connections" [] "network.timed_out" "Connections closed because the client was too slow";
        RateLimited Counter Plain "rate_limited_requests" ["scope"] "network.rate_limited.{scope}" "Requests and commands that were not served, as rate_limits allow no more";
        ProtocolErrors Counter Plain "protocol_errors" [] "network.protocol_errors" "Connections closed because what came was of no protocol that the node speaks";
    }
    "Security" {
        RefusedCertificates Counter Plain "refused_certificates" [] "security.refused_certificates" "Connections whose client has shown a certificate that is not trusted";
        CertificateExpiry Gauge Seconds "certificate_expiry_timestamp" [] "security.certificate_expires_at_seconds" "When the certificate of tls.certificate_file ends, or the one of its chain that ends first, since 1970";
        AuditLost Counter Plain "audit_lost" [] "security.audit_lost" "Lines of the audit log for which there was no room, or no disk";
    }
    "The cluster" {
        ClusterMembers Gauge Plain "cluster_members" ["state"] "cluster.members.{state}" "Members of the cluster by their states";
        InCluster Flag Plain "in_cluster" [] "cluster.in_cluster" "Whether the node is in its cluster, and serves";
        ControlLeader Flag Plain "control_leader" [] "cluster.is_control_leader" "Whether the node is the control leader";
        Partitions Gauge Plain "partitions" [] "cluster.partitions" "Partitions that the node leads, so that it answers for their keys; not those of which it is a replica only";
        Epoch Gauge Plain "epoch" [] "cluster.epoch" "The epoch of the topology that the node knows";
        PartitionsToMove Gauge Plain "partitions_to_move" [] "cluster.partitions_to_move" "Partitions of the cluster that are not where they should be yet, as the node knows";
        ReplicasToAlign Gauge Plain "replicas_to_align" [] "cluster.replicas_to_align" "Replicas of the node that lack something of what their leaders have";
        ClusterEvents Counter Plain "cluster_events" [] "cluster.events" "Events of the cluster that the node has seen";
        MovedPartitions Counter Plain "moved_partitions" [] "cluster.moved_partitions" "Partitions of the cluster whose replicas have become others, as the node has seen";
        DroppedDatagrams Counter Plain "dropped_datagrams" [] "cluster.dropped_datagrams" "Datagrams of other nodes, or of strangers, that the node has not taken";
        CopiesSent Counter Bytes "copies_sent" [] "cluster.copies_sent_bytes" "Bytes that the node has sent of copies of its partitions that others make";
        LostEntries Counter Plain "lost_entries" [] "cluster.lost_entries" "Entries that the node had, perhaps acknowledged at ONE, and that did not survive; since its list of losses began";
        UnknownLosses Counter Plain "unknown_losses" [] "cluster.unknown_losses" "Times that the node cannot know what was lost, as with its memory; since its list of losses began";
        Forwarded Counter Plain "forwarded" [] "cluster.forwarded" "Commands that other nodes were asked to run, as they have the keys";
        LinkDuration Histogram Seconds "link_duration" ["peer"] "cluster.links.{peer}.latency_seconds" "From a question of a data thread to another node to its answer";
        LinkFailures Counter Plain "link_failures" ["peer"] "cluster.links.{peer}.failed" "Questions of data threads to another node that had no answer in time, or for which there was no connection";
        ControlLeaderChanges Counter Plain "control_leader_changes" [] "cluster.control_leader_changes" "Times that a member became control leader that was not the one before, as the node has seen";
    }
    "Replication" {
        Fences Counter Plain "fences" [] "replication.fences" "Terms in which the node has fenced a partition, to lead it";
        Openings Counter Plain "openings" [] "replication.openings" "Terms in which a partition that the node leads has opened";
        AdoptedTerms Counter Plain "adopted_terms" [] "replication.adopted_terms" "Times that a replica of the node has adopted a later term";
        Commits Counter Plain "commits" [] "replication.commits" "Entries that a quorum has come to have, of partitions that the node leads; looked at once a second";
        ReplicaLagEntries Gauge Plain "replica_lag_entries" ["peer"] "replication.peers.{peer}.lag_entries" "Entries of partitions that the node leads and the peer has not acknowledged; looked at once a second";
        ReplicaLag Gauge Seconds "replica_lag" ["peer"] "replication.peers.{peer}.lag_seconds" "How old the oldest entry is that the peer lacks of a partition that the node leads, or for how long it has not aligned; to a second";
        ReplicasToFollow Gauge Plain "replicas_to_follow" ["peer"] "replication.peers.{peer}.to_follow" "Replicas of the peer that have not aligned yet in the present term of a partition that the node leads";
        ReplicaQueue Gauge Bytes "replica_queue" ["peer"] "replication.peers.{peer}.queue_bytes" "What replicas here have said to those of the peer and is not sent yet";
    }
    "The data threads" {
        Busy Counter Seconds "busy" ["thread"] "threads.{thread}.busy_seconds" "For how long a data thread has worked; what its rate lacks of 1 is the share in which it waited for something to do";
        ThreadDelay Histogram Seconds "thread_delay" ["thread"] "threads.{thread}.delay_seconds" "How late a data thread came to what was due, to a millisecond; looked at ten times a second";
        Stalls Counter Plain "stalls" ["thread"] "threads.{thread}.stalls" "Of these times, those that it was more than 10 ms late";
    }
    "Traces" {
        SpansExported Counter Plain "spans_exported" [] "traces.exported_spans" "Spans of traces that the collector has taken";
        SpansDropped Counter Plain "spans_dropped" [] "traces.dropped_spans" "Spans that nobody has, for want of room or of a collector";
    }
    "The process" {
        Threads Gauge Plain "threads" [] "process.threads" "Threads";
        DataThreads Gauge Plain "data_threads" [] "process.data_threads" "Threads that serve connections";
        OpenFiles Gauge Plain "open_files" [] "process.open_files" "Open file handles";
        OpenFilesLimit Gauge Plain "open_files_limit" [] "process.open_files_limit" "File handles that the process may have open, where there is a limit";
        Cpu Counter Seconds "cpu" ["mode"] "process.cpu_{mode}_seconds" "Processor time";
        LiveTasks Gauge Plain "live_tasks" [] "process.live_tasks" "Tasks of the runtimes";
        Uptime Gauge Seconds "uptime" [] "uptime_seconds" "Time since the start";
        Build Info Plain "build" ["version" "commit"] "build" "What is running";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        for metric in &METRICS {
            // Nor is one within another.
            let within = format!("{}.", metric.json);
            let is_twin = |other: &&Metric| {
                other.name == metric.name || format!("{}.", other.json).starts_with(&within)
            };
            assert_eq!(METRICS.iter().filter(is_twin).count(), 1, "{}", metric.name);
            for part in metric.json.split('{').skip(1) {
                let label = part.split('}').next().expect("a part");
                assert!(metric.labels.contains(&label), "{}: {label}", metric.name);
            }
            for suffix in ["_total", "_bytes", "_seconds", "_info"] {
                assert!(!metric.name.ends_with(suffix), "{}", metric.name);
            }
            assert!(
                !metric.help.ends_with('.') && !metric.help.contains('\n'),
                "{}",
                metric.name
            );
        }
    }
}
