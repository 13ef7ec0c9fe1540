//! What all threads of a node share: the cache, the clock, the bytes in flight, and the part of the configuration that
//! requests are measured against, which a reload replaces as a whole.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use henge_engine::compress::Settings;
use henge_wire::Refusal;

use crate::access::Access;
use crate::audit::Audit;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::cluster::link::parking::Parking;
use crate::cluster::losses::Losses;
use crate::cluster::replicas::Replicas;
use crate::config::{Config, ConsistencyLevel, Interval};
use crate::disk::gate::without_gate;
use crate::disk::persistence::Persistence;
use crate::http::cors::Cors;
use crate::insight::Insight;
use crate::net::inflight::InFlight;
use crate::net::pace::Patience;
use crate::rate::Rates;
use crate::resp;
use crate::tls::Tls;
use crate::traces::Traces;

/// What requests are measured against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_value_bytes: usize,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_batch_items: usize,
    /// How far a body may be behind the slowest that it may come.
    pub(crate) body_timeout: Duration,
}

/// What a reload may change under the requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) limits: Limits,
    pub(crate) patience: Patience,
    /// The longest head of a request of HTTP.
    pub(crate) max_header_bytes: usize,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_address: Option<usize>,
    pub(crate) default_level: ConsistencyLevel,
    /// Whether who knows the map of the cluster is told where else a key is.
    pub(crate) redirect: bool,
    /// After how long others take the place of a node that is down.
    pub(crate) down_timeout: Option<Duration>,
    /// How many bytes a second are sent for moves.
    pub(crate) move_rate: Option<u64>,
    pub(crate) compression: Settings,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) cleanup_interval: Duration,
    pub(crate) memory_trigger: f64,
    pub(crate) sync_interval: Duration,
    pub(crate) snapshot_interval: Option<Duration>,
    /// Whether clients without TLS are refused.
    pub(crate) requires_tls: bool,
}

impl Live {
    /// The part of a configuration that is of use here. It must be valid.
    pub(crate) fn of(config: &Config) -> Self {
        let limits = &config.limits;
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            limits: Limits {
                max_value_bytes: limits.max_value_bytes.as_usize(),
                max_body_bytes: limits.max_body_bytes.as_usize(),
                max_batch_items: count(limits.max_batch_items),
                body_timeout: Duration::from_millis(limits.body_timeout_ms),
            },
            patience: Patience {
                header: Duration::from_millis(limits.header_timeout_ms),
                idle: Duration::from_millis(limits.idle_timeout_ms),
                write: Duration::from_millis(limits.write_timeout_ms),
                body: Duration::from_millis(limits.body_timeout_ms),
            },
            max_header_bytes: limits.max_header_bytes.as_usize(),
            max_connections: count(limits.max_connections),
            max_connections_per_address: limits.max_connections_per_address.map(count),
            default_level: config.cluster.default_consistency,
            redirect: config.cluster.redirect,
            down_timeout: config.cluster.down_timeout.map(Interval::as_duration),
            move_rate: config.cluster.move_rate.map(|rate| rate.as_usize() as u64),
            compression: Settings {
                algorithm: config.compression.algorithm,
                threshold_bytes: config.compression.threshold_bytes.as_usize(),
                level: u8::try_from(config.compression.level).unwrap_or(u8::MAX),
            },
            shutdown_timeout: Duration::from_millis(config.server.shutdown_timeout_ms),
            cleanup_interval: Duration::from_millis(config.cache.cleanup_interval_ms),
            memory_trigger: config.cache.memory_trigger,
            sync_interval: Duration::from_millis(config.persistence.sync_interval_ms),
            snapshot_interval: config
                .persistence
                .snapshot_interval
                .map(Interval::as_duration),
            requires_tls: config.tls.required,
        }
    }
}

/// What all data threads share.
pub(crate) struct Shared {
    pub(crate) cache: Arc<Cache>,
    pub(crate) clock: Clock,
    pub(crate) in_flight: Arc<InFlight>,
    /// Shared by itself, so that a thread can keep the latest at hand.
    pub(crate) live: Arc<ArcSwap<Live>>,
    /// What the clients of the Redis protocol share.
    pub(crate) resp: resp::Server,
    pub(crate) persistence: Arc<Persistence>,
    /// The node's part in its cluster.
    pub(crate) cluster: Arc<Cluster>,
    /// What it has found to be lost.
    pub(crate) losses: Arc<Losses>,
    /// The replicas of its partitions, once it is one of several nodes.
    pub(crate) replicas: Arc<Replicas>,
    /// How many data threads there are.
    pub(crate) threads: usize,
    /// Large answers to other nodes, until those claim them.
    pub(crate) parking: Arc<Parking>,
    /// Who may do what.
    pub(crate) access: Access,
    pub(crate) tls: Tls,
    pub(crate) audit: Audit,
    /// What web pages of other origins may do.
    pub(crate) cors: ArcSwap<Cors>,
    /// How often clients may ask.
    pub(crate) rates: Rates,
    /// What explains its figures.
    pub(crate) insight: Insight,
    /// Where traces of requests go; none where nobody asked for them.
    pub(crate) traces: Option<Arc<Traces>>,
}

/// Without the cache, which is not for showing.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("in_flight", &self.in_flight)
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The limits that hold now.
    pub(crate) fn limits(&self) -> Limits {
        self.live.load().limits
    }

    /// Whether this node is one of several, or was: its partitions are replicas then.
    #[inline]
    pub(crate) fn is_replicated(&self) -> bool {
        self.replicas.inboxes.are_used()
    }

    /// Forgets everything, on a thread that has no gate. Whoever answers for it has to wait for the log.
    pub(crate) fn flush(&self) -> Result<(), Refusal> {
        let log = self.persistence.log.as_ref();
        without_gate(log, &self.in_flight, || self.cache.flush())
    }
}
