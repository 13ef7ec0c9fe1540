//! Every setting, defined once: its name, type, default, bounds, whether it can change while the node runs, and its
//! meaning with the reason for its bounds.
//!
//! From the one table below follow the [`Config`] struct, its defaults, parsing from every source, `config print`, the
//! help, and the names that errors suggest. It refuses to know where a value comes from; that is
//! [`layers`](super::layers).

use std::fmt;

use henge_engine::PolicyKind;
use henge_engine::compress::Algorithm;

use super::collector::CollectorUrl;
use super::literal::{Literal, SettingValue};
use super::peers::{PeerAddress, Peers};
use super::suggest;
use super::types::{
    ByteSize, CacheSize, ConsistencyLevel, DirectoryPath, EncryptionCipher, FilePath, Interval,
    ListenAddress, LogFormat, LogLevel, NodeId, SyncPolicy,
};
use super::web::{Origins, Tokens};

/// The form of the table below: for each setting `reload` or `restart` (when a changed value takes effect), name, type,
/// default, and where the type does not bound the value, its bounds. Doc lines are kept as text too.
macro_rules! settings {
    (
        $(#[doc = $config_doc:literal])+
        config;
        $(
            $(#[doc = $section_doc:literal])+
            $section:ident: $section_type:ident {
                $(
                    $(#[doc = $doc:literal])+
                    $change:ident $key:ident: $type:ty = $default:expr $(, within $bounds:expr)?;
                )+
            }
        )+
    ) => {
        $(#[doc = $config_doc])+
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Config { $( $(#[doc = $section_doc])+ pub $section: $section_type, )+ }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub struct $section_type { $( $(#[doc = $doc])+ pub $key: $type, )+ }

            impl Default for $section_type {
                fn default() -> Self {
                    Self { $($key: $default),+ }
                }
            }
        )+

        /// Every setting, in the order in which they are shown.
        pub static SETTINGS: &[Setting] = &[ $($(
            Setting {
                name: concat!(stringify!($section), ".", stringify!($key)),
                section: stringify!($section),
                key: stringify!($key),
                doc: concat!($($doc),+),
                reloadable: settings!(@reloadable $change),
                words: <$type as SettingValue>::words,
                expected: || <$type as SettingValue>::expected(&settings!(@bounds $($bounds)?)),
                assign: |config, literal| {
                    let value = <$type as SettingValue>::read(literal, &settings!(@bounds $($bounds)?));
                    value.map(|value| config.$section.$key = value).is_some()
                },
                literal: |config| config.$section.$key.literal(),
                copy: |from, to| to.$section.$key.clone_from(&from.$section.$key),
            },
        )+)+ ];
    };
    (@reloadable reload) => { true };
    (@reloadable restart) => { false };
    (@bounds) => { () };
    (@bounds $bounds:expr) => { $bounds };
}

/// An hour: whoever waits longer for one request or for one stop has forgotten it, and a bound is no bound any more.
const HOUR_MS: u64 = 3_600_000;

/// One in 100 nanoseconds: buckets count whole ones.
const REQUESTS_PER_SECOND_MAX: u64 = 10_000_000;
/// A token of bytes, of which there is at least one a second.
const BYTES_PER_SECOND_MIN: ByteSize = ByteSize::kib(1);
/// More than a machine's network carries: with as many tokens a second a bucket counts in 15 nanoseconds, with more it would err.
const BYTES_PER_SECOND_MAX: ByteSize = ByteSize::gib(64);

/// The largest value that `limits.max_value_bytes` can allow: a record's length field, and one body in memory.
const VALUE_BYTES_MAX: ByteSize = ByteSize::gib(1);

settings! {
    /// What a node is told: one field for each section, and in it one for each setting.
    ///
    /// A program builds one from [`Config::default`] by setting fields, or by name with [`Config::set`]; values set as
    /// fields are checked by [`Config::validate`].
    ///
    /// ```
    /// let mut config = henge::config::Config::default();
    /// config.cache.max_items = Some(3);
    /// config.set("cache.policy", "lfu")?;
    /// config.validate()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    config;

    /// How the node is reached, and how it stops.
    server: ServerConfig {
        /// Where to listen: `:8080` or `8080` on all interfaces, `127.0.0.1:8080`, `[::1]:8080` or `localhost:8080` on
        /// one. Port 0 takes any that is free.
        restart listen: ListenAddress = ListenAddress::all_interfaces(8080);
        /// Another address, of the same form, that speaks the Redis protocol only; "none" for none. `server.listen` speaks it
        /// as well, beside HTTP.
        restart resp_listen: Option<ListenAddress> = None;
        /// How long a node that was told to stop waits for requests in flight. 0 waits for none; an hour at most, as
        /// every supervisor has killed it by then.
        reload shutdown_timeout_ms: u64 = 10_000, within 0..=HOUR_MS;
    }

    /// The node's place in a cluster.
    cluster: ClusterConfig {
        /// The name of this node: letters, digits, "-", "_" and ".", up to 64 so that it fits a line. One is made up
        /// when there is none.
        restart node_id: Option<NodeId> = None;
        /// Nodes to form a cluster with, or members of one to join: addresses with commas between them, this node's own or
        /// not. A node that has been in a cluster goes back there, whatever this says.
        restart peers: Peers = Peers::none();
        /// How other nodes and clients reach this node; "none" for the address at which it meets the first of its peers.
        restart advertise: Option<PeerAddress> = None;
        /// A file with the secret of the cluster, the same for all nodes, for its owner alone: at least 32 bytes, so that nobody
        /// guesses it. Without one only nodes of the same machine, over its loopback, are taken for nodes. It is read again at
        /// each reload, as the other one is.
        reload secret_file: Option<FilePath> = None;
        /// A file with another secret, by which other nodes may prove themselves too, while the cluster changes from one to the
        /// other; "none" for none. This node proves itself by the first.
        reload accepted_secret_file: Option<FilePath> = None;
        /// Whether a Redis client that has asked for the map of the cluster is told where else a key is (MOVED); else it is
        /// served by forwarding, as those are that have not.
        reload redirect: bool = true;
        /// How many replicas of each partition there are, where there are as many nodes. What the nodes that form a cluster say
        /// holds for that; a node that joins takes it over.
        restart replication_factor: u64 = 3, within 1..=7;
        /// How long a node may be down before others take its place, where there are enough of them; "none" for ever. At least a
        /// second, as each pause of a machine would move data; a year at most, which is for ever.
        reload down_timeout: Option<Interval> = Some(Interval::seconds(300)), within Interval::seconds(1)..=Interval::seconds(365 * 86_400);
        /// How many bytes a second this node sends of copies, for partitions that move to others and to nodes that come back; "none" for as many as it can. At least 64KiB,
        /// with which a GiB takes hours; at most 1TiB, more than any machine can.
        reload move_rate: Option<ByteSize> = Some(ByteSize::mib(16)), within ByteSize::kib(64)..=ByteSize::tib(1);
        /// The consistency of a request that asks for none. With one replica all mean the same.
        reload default_consistency: ConsistencyLevel = ConsistencyLevel::Quorum;
    }

    /// What is kept, and what is thrown away.
    cache: CacheConfig {
        /// The memory that the cache may take, all included; "auto" is a quarter of what the machine or the cgroup
        /// has. At least 1MiB, below which tables leave no room for items; at most 1024TiB, more than any machine has.
        reload max_size_bytes: CacheSize = CacheSize::Auto, within ByteSize::mib(1)..=ByteSize::tib(1024);
        /// The number of items that the cache may hold; "none" leaves it to the memory. At least 1, as a cache of
        /// none could take no write; at most what a TOML integer can say.
        reload max_items: Option<u64> = None, within 1..=i64::MAX.unsigned_abs();
        /// Which item a full cache evicts: the least recently used, the least frequently used, the one that expires first,
        /// any, or what S3-FIFO, SIEVE or W-TinyLFU say, which also hold against scans.
        restart policy: PolicyKind = PolicyKind::Lru;
        /// How often expired items are swept away. At most a minute, so that their memory is not held for long; at
        /// least 1, as 0 would sweep without a pause.
        reload cleanup_interval_ms: u64 = 250, within 1..=60_000;
        /// The share of the machine's or the cgroup's memory in use above which the cache evicts and gives memory
        /// back. 1.0 is never. At least 0.1, as the system itself uses some of it, and the cache would stay empty.
        reload memory_trigger: f64 = 0.9, within 0.1..=1.0;
    }

    /// What outlives the process.
    persistence: PersistenceConfig {
        /// Whether writes are logged, and what is there is loaded at the start. Without it the node keeps everything in memory.
        restart enabled: bool = true;
        /// Where the data directories of nodes lie. A node's own is in it: its `cluster.node_id`, or `port-8080` by its port.
        restart dir: DirectoryPath = DirectoryPath::new("data");
        /// When a write is on the disk: before it is answered, some time after that, or when the system likes. A killed process
        /// loses nothing with either; a loss of power loses what was not on the disk.
        restart sync: SyncPolicy = SyncPolicy::Interval;
        /// How long after a write it is on the disk, with `persistence.sync = "interval"`. At least 10, as each sync keeps the
        /// disk busy; at most an hour.
        reload sync_interval_ms: u64 = 1_000, within 10..=HOUR_MS;
        /// How often a snapshot is made, beside those that the growth of the log asks for; "none" leaves it to that. At least 10
        /// seconds, as it writes all there is.
        reload snapshot_interval: Option<Interval> = Some(Interval::seconds(3_600)), within Interval::seconds(10)..=Interval::seconds(365 * 86_400);
        /// How the log, snapshots and backups are encrypted; "none" for not at all. It takes a key. What was written
        /// before stays as it is until the next snapshot.
        restart encryption: Option<EncryptionCipher> = None;
        /// A file of keys, for its owner alone: lines of a number and 64 hexadecimal digits. The last one's key writes, all
        /// read. The variable `HENGE_PERSISTENCE__KEYS` may hold the lines instead.
        restart key_file: Option<FilePath> = None;
    }

    /// Who may do what.
    security: SecurityConfig {
        /// A file of API keys and roles, for its owner alone; "none" for no keys but those that the cluster agrees on. It is read
        /// again at each reload.
        reload key_file: Option<FilePath> = None;
        /// Whether clients from elsewhere are refused for as long as there is no API key. Without it anyone who reaches the port
        /// may do anything: for containers, whose network keeps strangers out.
        reload protected_mode: bool = true;
    }

    /// TLS, on the same port as all else: what begins with it is spoken to with it.
    tls: TlsConfig {
        /// A file with the node's certificate, and those between it and an authority that clients trust, in PEM; "none" for no TLS.
        /// It is read again at each reload, as the other two are.
        reload certificate_file: Option<FilePath> = None;
        /// A file with the private key of that, in PEM, for its owner alone.
        reload key_file: Option<FilePath> = None;
        /// A file with the certificates of the authorities that certificates of clients are of, in PEM; "none" to ask clients for no
        /// certificate. Who shows one has the API key of its name.
        reload client_ca_file: Option<FilePath> = None;
        /// Whether clients without TLS are refused. Other nodes prove who they are by the secret of the cluster, and need none.
        reload required: bool = false;
    }

    /// Who did what: administrative actions, and what was denied, as lines of JSON.
    audit: AuditConfig {
        /// The file of them; "none" to write none. It is its owner's alone.
        restart file: Option<FilePath> = None;
        /// How long it grows before another is begun. At least 64KiB, as each is a file of its own; at most 1GiB.
        restart max_size_bytes: ByteSize = ByteSize::mib(16), within ByteSize::kib(64)..=ByteSize::gib(1);
        /// How many older ones are kept, as `FILE.1` and so on.
        restart keep_files: u64 = 4, within 1..=100;
    }

    /// What web pages of other origins may do over HTTP (CORS).
    cors: CorsConfig {
        /// The origins of pages that may ask and see anything their key may, such as `https://console.example`, with commas between
        /// them; "*" for any page, "none" for no page.
        reload origins: Origins = Origins::None;
        /// The methods that they may use.
        reload methods: Tokens = Tokens::new("GET, HEAD, POST, PUT, DELETE");
        /// The headers that they may send.
        reload headers: Tokens = Tokens::new("authorization, content-type, if-match, if-none-match, traceparent, tracestate, x-api-key, x-consistency-level, x-ttl");
        /// Whether a browser may send what it has of its visitor, such as a client certificate. Only with listed origins.
        reload credentials: bool = false;
        /// How long a browser may remember what it was told of this. A day at most, beyond which browsers go by their own.
        reload max_age: Interval = Interval::seconds(600), within Interval::seconds(0)..=Interval::seconds(86_400);
    }

    /// How large values are made smaller.
    compression: CompressionConfig {
        /// The algorithm; "none" keeps values as they come.
        reload algorithm: Option<Algorithm> = Some(Algorithm::Gzip);
        /// Values below this are not compressed: little is to be had there, and it costs time. At most the largest
        /// value there can be.
        reload threshold_bytes: ByteSize = ByteSize::kib(1), within ByteSize::bytes(0)..=VALUE_BYTES_MAX;
        /// How hard to try: 1 is fast, higher is smaller. gzip has levels 1 to 12 and zstd 1 to 19; lz4 has none.
        reload level: u64 = 6, within 1..=19;
    }

    /// What one client can make the node spend.
    limits: LimitsConfig {
        /// The largest value. At most 1GiB: a value is one piece in memory, and is copied when it is replicated.
        reload max_value_bytes: ByteSize = ByteSize::mib(64), within ByteSize::bytes(1)..=VALUE_BYTES_MAX;
        /// The largest body of a JSON request, batches included. At most 2GiB: room for the largest value in base64.
        reload max_body_bytes: ByteSize = ByteSize::mib(128), within ByteSize::kib(1)..=ByteSize::gib(2);
        /// The longest head of a request over HTTP, its URL and with that perhaps a key included; past it is a 431. At least 8KiB, as browsers send some; at
        /// most 128KiB, as a URL has at most 64KiB and is left as much again for headers.
        reload max_header_bytes: ByteSize = ByteSize::kib(128), within ByteSize::kib(8)..=ByteSize::kib(128);
        /// What requests and answers hold in memory at one time, over all connections; those of up to 64KiB are not counted. At least 1KiB, as the largest
        /// body must fit; at most 1TiB, more than there is to lose.
        reload max_inflight_bytes: ByteSize = ByteSize::mib(512), within ByteSize::kib(1)..=ByteSize::tib(1);
        /// What of that requests and answers of clients from one address may hold, of IPv6 from one network of 64 bits; "none" for all of it. So that one that
        /// sends much slowly, or reads nothing, leaves room for others. At least 1KiB and at most 1TiB, as for all.
        reload max_inflight_bytes_per_address: Option<ByteSize> = Some(ByteSize::mib(256)), within ByteSize::kib(1)..=ByteSize::tib(1);
        /// The most keys in one batch. At most a million, as a batch and its answer are held in memory as a whole.
        reload max_batch_items: u64 = 10_000, within 1..=1_000_000;
        /// The most connections open at one time. At most a million: Linux gives a process no more files (`fs.nr_open`).
        reload max_connections: u64 = 50_000, within 1..=1_000_000;
        /// The most connections open at one time from one address, of IPv6 from one network of 64 bits; "none" for no such limit. Nodes
        /// of the cluster count as well, with a few for each of their processors.
        reload max_connections_per_address: Option<u64> = Some(10_000), within 1..=1_000_000;
        /// How long a client may take to send the head of a request. At least 1 and at most an hour, as for all time-outs:
        /// 0 would refuse everyone, and beyond an hour it protects nothing.
        reload header_timeout_ms: u64 = 5_000, within 1..=HOUR_MS;
        /// How far a body, or a request of the Redis protocol, may be behind a KiB a second; no pause may be longer.
        reload body_timeout_ms: u64 = 10_000, within 1..=HOUR_MS;
        /// How far a client may be behind 16KiB a second with reading an answer that waits for it; no pause may be longer. It is closed then, as
        /// what waits is memory.
        reload write_timeout_ms: u64 = 30_000, within 1..=HOUR_MS;
        /// How long a connection may stay open between two requests. At most a day: a pool of clients may sleep at night.
        reload idle_timeout_ms: u64 = 300_000, within 1..=24 * HOUR_MS;
    }

    /// How often clients may ask, and how many bytes of requests and replies they may have, by buckets of tokens.
    rate_limits: RateLimitsConfig {
        /// Requests a second of all clients that show one API key; "none" for no such limit. At most 10 million, more than a node
        /// answers.
        reload key_requests_per_second: Option<u64> = None, within 1..=REQUESTS_PER_SECOND_MAX;
        /// Bytes a second of their requests and replies. At least 1KiB, as they are counted in such pieces; at most 64GiB.
        reload key_bytes_per_second: Option<ByteSize> = None, within BYTES_PER_SECOND_MIN..=BYTES_PER_SECOND_MAX;
        /// Requests a second of all clients that come from one address, of IPv6 from one network of 64 bits, with an API key or not.
        reload address_requests_per_second: Option<u64> = None, within 1..=REQUESTS_PER_SECOND_MAX;
        /// Bytes a second of their requests and replies.
        reload address_bytes_per_second: Option<ByteSize> = None, within BYTES_PER_SECOND_MIN..=BYTES_PER_SECOND_MAX;
        /// Requests a second of all clients of this node. Who is not served, for want of an API key, is not counted, so that
        /// strangers cannot use it up.
        reload node_requests_per_second: Option<u64> = None, within 1..=REQUESTS_PER_SECOND_MAX;
        /// Bytes a second of their requests and replies.
        reload node_bytes_per_second: Option<ByteSize> = None, within BYTES_PER_SECOND_MIN..=BYTES_PER_SECOND_MAX;
        /// How much may be had at once after a while of silence: what is had in this time otherwise. At most an hour.
        reload burst_ms: u64 = 1_000, within 1..=HOUR_MS;
        /// Whether `GET /health` and `GET /ready` are answered however much was asked.
        reload exempt_health: bool = true;
        /// Whether `GET /metrics` and `GET /metrics/json` are.
        reload exempt_metrics: bool = true;
    }

    /// What explains the node's figures.
    insight: InsightConfig {
        /// Whether the node remembers why keys left, in a 128th of `cache.max_size_bytes` and 44 bytes for each partition, and which are asked for most.
        reload enabled: bool = true;
    }

    /// Traces of requests, which go to a collector of OpenTelemetry.
    tracing: TracingConfig {
        /// The URL of a collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`; "none" for no traces.
        restart endpoint: Option<CollectorUrl> = None;
        /// The part of the requests that are traced, of those that do not say themselves by `traceparent` whether they are. At most 1,
        /// which is all of them and costs as much.
        reload sample_ratio: f64 = 0.0001, within 0.0..=1.0;
    }

    /// What the node says about itself.
    log: LogConfig {
        /// The least severe events to log.
        reload level: LogLevel = LogLevel::Info;
        /// How log lines are written: text for people, json for machines.
        restart format: LogFormat = LogFormat::Text;
    }
}

/// One setting: what there is to know about it, and how to read and write it in a [`Config`].
#[derive(Debug)]
pub struct Setting {
    name: &'static str,
    section: &'static str,
    key: &'static str,
    doc: &'static str,
    reloadable: bool,
    words: fn() -> &'static [&'static str],
    expected: fn() -> String,
    assign: fn(&mut Config, &Literal) -> bool,
    literal: fn(&Config) -> Literal,
    copy: fn(&Config, &mut Config),
}

impl Setting {
    /// The setting of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The full name, `section.key`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The section alone.
    pub fn section(&self) -> &'static str {
        self.section
    }

    /// The key inside the section.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// What it means, and why its bounds are where they are.
    pub fn doc(&self) -> &'static str {
        self.doc.trim_start()
    }

    /// What its values are, in words.
    pub fn expected(&self) -> String {
        (self.expected)()
    }

    /// Whether a running node takes a new value over; the others wait for a restart.
    pub fn is_reloadable(&self) -> bool {
        self.reloadable
    }

    /// The environment variable that sets it.
    pub fn environment_variable(&self) -> String {
        format!("HENGE_{}__{}", self.section, self.key).to_ascii_uppercase()
    }

    /// Its value in a configuration.
    pub fn value(&self, config: &Config) -> Literal {
        (self.literal)(config)
    }

    /// Gives it a value in a configuration, which is unchanged on an error.
    pub fn assign(&self, config: &mut Config, literal: &Literal) -> Result<(), SettingError> {
        if (self.assign)(config, literal) {
            return Ok(());
        }
        Err(SettingError::Invalid {
            name: self.name,
            found: literal.found(),
            expected: self.expected(),
            suggestion: literal
                .text()
                .and_then(|text| suggest::nearest(text, (self.words)().iter().copied())),
        })
    }

    /// Copies its value from one configuration to another.
    pub(super) fn copy(&self, from: &Config, to: &mut Config) {
        (self.copy)(from, to);
    }

    /// Why the setting does nothing in this configuration; none when it does something.
    ///
    /// Only what can never do anything together counts. `compression.algorithm = "none"` switches compression off and
    /// keeps its threshold and level for the time it is on again, so those are no error.
    pub(crate) fn idle_reason(&self, config: &Config) -> Option<&'static str> {
        (self.name == "compression.level" && config.compression.algorithm == Some(Algorithm::Lz4))
            .then_some("lz4 has no levels")
    }
}

/// A setting that could not be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingError {
    /// There is no setting of that name.
    Unknown {
        /// The name as given.
        name: String,
        /// The nearest name there is, if one is near.
        suggestion: Option<&'static str>,
    },
    /// The value is of the wrong type or out of bounds. The setting keeps the value that it had.
    Invalid {
        /// The name of the setting.
        name: &'static str,
        /// What was given.
        found: String,
        /// What would have been right.
        expected: String,
        /// The nearest word that is right, if one is near.
        suggestion: Option<&'static str>,
    },
}

impl SettingError {
    /// There is no setting `name`; the error suggests the nearest.
    pub(super) fn unknown(name: &str) -> Self {
        Self::Unknown {
            name: name.to_owned(),
            suggestion: suggest::setting(name).map(Setting::name),
        }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suggestion = match self {
            Self::Unknown { name, suggestion } => {
                write!(f, "unknown setting {}", super::literal::quoted(name))?;
                suggestion
            }
            Self::Invalid {
                name,
                found,
                expected,
                suggestion,
            } => {
                write!(f, "{name}: found {found}, expected {expected}")?;
                suggestion
            }
        };
        match suggestion {
            Some(suggestion) => write!(f, "; did you mean \"{suggestion}\"?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SettingError {}

#[cfg(test)]
mod tests;
