//! A node: starts its threads, knows its address, takes over a new configuration, drains and stops. It handles no signals,
//! prints nothing and sets up no log: those belong to the program that it runs in.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use henge_cluster::forming::Who;
use henge_engine::persistence::frame::LAST_SEQ;
use henge_wire::Version;
use tokio::sync::{mpsc, oneshot};

use crate::access::{Access, KeyFileError};
use crate::admin::{Admin, key_file, size_of};
use crate::audit::{Action, Audit, AuditFile, Outcome};
use crate::builder::NodeBuilder;
use crate::cache::{Cache, CacheConfig, Whose};
use crate::clock::Clock;
use crate::cluster::control::{self, Ends, NoteIncarnation, Orders, OwnLoad};
use crate::cluster::identity::Identity;
use crate::cluster::link::parking::Parking;
use crate::cluster::losses::Losses;
use crate::cluster::raft::Consensus;
use crate::cluster::replicas::Replicas;
use crate::cluster::routing::REQUEST_TIMEOUT;
use crate::cluster::secret_file;
use crate::cluster::view::{Standing, View};
use crate::cluster::{Cluster, Inbox};
use crate::config::{
    ByteSize, Config, ConfigError, ListenAddress, NodeId, Reload, SyncPolicy, shown,
};
use crate::disk::directory::Directory;
use crate::disk::persistence::{Persistence, PersistenceError, Surroundings, beyond};
use crate::encryption::{Encryption, Keys, KeysError, random_number};
use crate::housekeeping::keep_house;
use crate::http::cors::Cors;
use crate::http::{CALLS, Call, Control, serve_control};
use crate::insight::Insight;
use crate::metrics::counters::Counters;
use crate::metrics::{Metrics, Pulse};
use crate::net::acceptor::{Accepted, Door, Listening};
use crate::net::inflight::InFlight;
use crate::net::listen::ListenError;
use crate::net::{acceptor, data_thread, handles, listen};
use crate::rate::Rates;
use crate::shared::{Live, Shared};
use crate::tls::{self, Tls, TlsError};
use crate::traces::{self, Traces};
use crate::{allocator, resp};

/// How long a stopped runtime waits for work on its blocking pool: compressing one value takes less.
const BLOCKING_GRACE: Duration = Duration::from_secs(1);

/// A running node. Dropping it drains and stops it, as [`Node::shutdown`] does.
#[derive(Debug)]
pub struct Node {
    admin: Arc<Admin>,
    address: SocketAddr,
    resp_address: Option<SocketAddr>,
    stop: Option<acceptor::Stop>,
    acceptor: Option<JoinHandle<()>>,
    data_threads: Vec<JoinHandle<Option<bool>>>,
    control: Option<JoinHandle<Option<()>>>,
    /// The thread that has the node's part in its cluster, and what ends it.
    cluster: Option<JoinHandle<Option<()>>>,
    leave: Option<Leave>,
    recovery: Option<JoinHandle<()>>,
    audit: Option<JoinHandle<()>>,
    traces: Option<JoinHandle<Option<()>>>,
}

/// Ends the node's part in its cluster, in two steps.
#[derive(Debug)]
struct Leave {
    begin: Option<oneshot::Sender<()>>,
    _all: oneshot::Sender<()>,
}

/// How far a node is that loads what it has on its disk.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Loading {
    /// The part of the bytes that was read, from 0 to 1.
    pub share: f64,
    /// Records loaded.
    pub records: u64,
}

/// Why a node did not start. Nothing of it is left running.
#[derive(Debug)]
pub enum StartError {
    /// The configuration cannot be used.
    Config(ConfigError),
    /// The port could not be opened.
    Listen(ListenError),
    /// The system refused a thread, or what a runtime needs.
    System(io::Error),
    /// The keys for what is on the disk cannot be had.
    Keys(KeysError),
    /// The API keys cannot be had.
    KeyFile(KeyFileError),
    /// The certificates for TLS cannot be had.
    Tls(TlsError),
    /// The audit log cannot be written.
    Audit(PathBuf, io::Error),
    /// The data directory cannot be used, or what is in it cannot be loaded.
    Data(DataError),
    /// What the node's cluster agreed on cannot be read: one line.
    Cluster(String),
    /// The environment says something of exporters of OpenTelemetry (`OTEL_EXPORTER_OTLP_…`) that cannot be: one line.
    Traces(String),
}

/// Why the data directory cannot be used, or what is in it cannot be loaded: one line. What was acknowledged is still
/// there.
#[derive(Clone, Debug)]
pub struct DataError(Arc<PersistenceError>);

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for DataError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

fn data(error: PersistenceError) -> StartError {
    StartError::Data(DataError(Arc::new(error)))
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Listen(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::KeyFile(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Audit(path, error) => {
                write!(
                    f,
                    "{}: the audit log cannot be written: {error}",
                    shown(path)
                )
            }
            Self::Data(error) => error.fmt(f),
            Self::Cluster(line) => f.write_str(line),
            Self::Traces(line) => write!(f, "traces cannot be exported: {line}"),
            Self::System(error) => match handles::explained(error) {
                Some(line) => f.write_str(&line),
                None => write!(f, "the system refused what the node needs: {error}"),
            },
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Listen(error) => Some(error),
            Self::Keys(error) => Some(error),
            Self::KeyFile(error) => Some(error),
            Self::Tls(error) => Some(error),
            Self::Data(error) => Some(error),
            Self::System(error) | Self::Audit(_, error) => Some(error),
            Self::Cluster(_) | Self::Traces(_) => None,
        }
    }
}

impl Node {
    /// A node for inside a program, in memory and on the loopback unless it is told otherwise.
    ///
    /// ```
    /// let node = henge::Node::builder()
    ///     .max_size("64MiB")
    ///     .set("cache.policy", "s3fifo")
    ///     .start()?;
    /// assert!(node.local_addr().ip().is_loopback());
    /// node.shutdown();
    /// # Ok::<(), henge::StartError>(())
    /// ```
    pub fn builder() -> NodeBuilder {
        NodeBuilder::new()
    }

    /// Starts a node: opens its port, starts a data thread for each core that the process may use, and returns. While it loads
    /// what it has on its disk requests for data are refused: [`Node::wait_until_ready`] waits for that.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with_keys(config, None)
    }

    /// The same with keys for what is on the disk that come from elsewhere than `persistence.key_file`.
    pub fn start_with_keys(config: Config, keys: Option<Keys>) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        let encryption = Arc::new(Encryption::of(&config, keys).map_err(StartError::Keys)?);
        let (access, tls) = who_may(&config)?;
        let files = handles::raise_limit();
        handles::enough_to_start().map_err(StartError::System)?;
        let Ports {
            listening: ports,
            address,
            resp_address,
            datagrams,
        } = Ports::open(&config)?;
        tracing::debug!(%address, ?resp_address, open_files_limit = files, "listening");

        let threads = thread::available_parallelism().map_or(1, usize::from);
        let counters = Arc::new(Counters::new(threads));
        let (directory, sync) = data_directory(&config, address.port())?;
        let (cluster, inbox, whose) = cluster(&config, &directory, address, &access)?;
        let last = directory.ledger.state();
        let clock = clock_after(last.seen_ms);
        let losses = Arc::new(Losses::open(&directory.path, clock));
        // Such as the last life may have stamped are before this, whatever its clock was.
        let stamped = Version::new(1, last.first_seq.min(LAST_SEQ));
        let fresh = first_version(clock.now_ms()).max(beyond(stamped));
        // What is on the disk says how far partitions have come.
        let first = if sync.is_some() { Version::ZERO } else { fresh };
        let cache = cache_of(&config, threads, first)?;
        let persistence = match sync {
            None => Persistence::none(directory, encryption, clock, fresh).map_err(data)?,
            Some(sync) => Persistence::loading(directory, encryption, &cache, clock, sync, threads),
        };
        let persistence = Arc::new(persistence);
        let in_flight = InFlight::new(config.limits.max_inflight_bytes.as_usize());
        let share = config.limits.max_inflight_bytes_per_address;
        in_flight.set_share_limit(share.map(ByteSize::as_usize));
        let (audit, audit_writer) = audit_log(&config, persistence.node_id())?;
        let (stop, stopped) = acceptor::stop().map_err(StartError::System)?;
        let (traces, exporter) = traces(&config, &persistence.node_id())?;
        let shared = Arc::new(Shared {
            cache: Arc::clone(&cache),
            clock,
            parking: Parking::new(Arc::clone(&in_flight), REQUEST_TIMEOUT),
            in_flight,
            live: Arc::new(ArcSwap::from_pointee(Live::of(&config))),
            resp: resp::Server::default(),
            persistence: Arc::clone(&persistence),
            cluster,
            replicas: Replicas::new(threads, Arc::clone(&losses)),
            losses,
            threads,
            access,
            tls,
            audit,
            cors: ArcSwap::from_pointee(Cors::of(&config)),
            rates: Rates::new(&config, threads),
            insight: Insight::new(config.insight.enabled, threads),
            traces,
        });
        let node_id = persistence.node_id();
        let metrics = Arc::new(Metrics {
            node_id,
            address: address.to_string(),
            shared: Arc::clone(&shared),
            counters: Arc::clone(&counters),
            pulse: Pulse::default(),
        });
        let admin = Arc::new(Admin::new(Arc::clone(&metrics), config));

        // From here on a failure drops the node, which stops what has been started.
        let mut node = Self {
            admin: Arc::clone(&admin),
            address,
            resp_address,
            stop: Some(stop),
            acceptor: None,
            data_threads: Vec::with_capacity(threads),
            control: None,
            cluster: None,
            leave: None,
            recovery: None,
            audit: audit_writer,
            traces: exporter,
        };
        let (calls, called) = mpsc::channel(CALLS);
        node.start_control(metrics, Arc::clone(&counters), called)?;
        node.join_cluster(&persistence, inbox, datagrams)?;
        let senders = node.start_data_threads(threads, &counters, &calls)?;
        let live = Arc::clone(&admin.shared().live);
        let around = Surroundings {
            cache,
            live,
            fresh,
            whose,
        };
        node.recovery = persistence.start(around).map_err(StartError::System)?;
        let acceptor = thread::Builder::new()
            .name("henge-accept".to_owned())
            .spawn(move || acceptor::accept_all(&ports, senders, counters, shared, &stopped))
            .map_err(StartError::System)?;
        node.acceptor = Some(acceptor);
        Ok(node)
    }

    /// Starts the thread that answers what is not data, and keeps house.
    fn start_control(
        &mut self,
        metrics: Arc<Metrics>,
        counters: Arc<Counters>,
        called: mpsc::Receiver<Call>,
    ) -> Result<(), StartError> {
        let house = Arc::clone(&metrics);
        let admin = Arc::clone(&self.admin);
        let control = Control {
            metrics,
            reload: Box::new(move || admin.reload()),
        };
        self.control = Some(spawn("henge-control", async move || {
            counters.watch_this_runtime();
            tokio::select! {
                () = keep_house(house) => {}
                () = serve_control(control, called) => {}
            }
        })?);
        Ok(())
    }

    /// Starts the data threads, and gives the channels by which they take connections.
    fn start_data_threads(
        &mut self,
        threads: usize,
        counters: &Arc<Counters>,
        calls: &mpsc::Sender<Call>,
    ) -> Result<Vec<mpsc::Sender<Accepted>>, StartError> {
        let mut senders = Vec::with_capacity(threads);
        for index in 0..threads {
            let (sender, receiver) = mpsc::channel(acceptor::HANDOFF);
            senders.push(sender);
            let (admin, calls) = (Arc::clone(&self.admin), calls.clone());
            let counters = Arc::clone(counters);
            let thread = spawn(&format!("henge-data-{index}"), async move || {
                counters.watch_this_data_runtime(index);
                let own = Arc::clone(counters.thread(index));
                data_thread::serve(admin, own, index, calls, receiver).await
            })?;
            self.data_threads.push(thread);
        }
        Ok(senders)
    }

    /// Starts the thread that has the node's part in its cluster.
    fn join_cluster(
        &mut self,
        persistence: &Arc<Persistence>,
        inbox: Inbox,
        datagrams: UdpSocket,
    ) -> Result<(), StartError> {
        let metrics = Arc::clone(&self.admin.metrics);
        let orders = orders(&self.admin.config(), persistence);
        let (begin, begins) = oneshot::channel();
        let (ended, all) = oneshot::channel();
        self.leave = Some(Leave {
            begin: Some(begin),
            _all: ended,
        });
        let ends = Ends { begins, all };
        self.cluster = Some(spawn("henge-cluster", async move || {
            let shared = Arc::clone(&metrics.shared);
            let load: OwnLoad = Box::new(move || metrics.load());
            // It holds all that the cluster's thread does.
            Box::pin(control::run(shared, orders, inbox, (datagrams, load), ends)).await;
        })?);
        Ok(())
    }

    /// The address that it listens on, with the port that was chosen if the configuration left that open.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Whether it serves clients over TLS only.
    pub fn requires_tls(&self) -> bool {
        self.admin.shared().live.load().requires_tls
    }

    /// Whether it serves nobody without an API key, or a certificate that stands for one.
    pub fn requires_keys(&self) -> bool {
        !self.admin.shared().access.ring().is_empty()
    }

    /// The address on which it speaks the Redis protocol only, if `server.resp_listen` asked for one.
    pub fn resp_addr(&self) -> Option<SocketAddr> {
        self.resp_address
    }

    /// Waits until what the node has on its disk is loaded, and blocks meanwhile.
    ///
    /// # Errors
    /// It cannot be loaded; what was acknowledged is still there. The node answers no request for data; it is to be dropped.
    pub fn wait_until_ready(&self) -> Result<(), StartError> {
        loop {
            if let Some(outcome) = self.wait_a_while(Duration::from_mins(1)) {
                return outcome;
            }
        }
    }

    /// The same for no longer than this; none if it goes on.
    pub(crate) fn wait_a_while(&self, timeout: Duration) -> Option<Result<(), StartError>> {
        let outcome = self.admin.shared().persistence.wait(timeout)?;
        Some(outcome.map_err(|error| StartError::Data(DataError(error))))
    }

    /// How far it is with loading; none if it is done.
    pub fn loading(&self) -> Option<Loading> {
        let persistence = &self.admin.shared().persistence;
        persistence.is_loading().then(|| Loading {
            share: persistence.progress.share(),
            records: persistence.progress.records(),
        })
    }

    /// Its cache, for a program that runs the node inside itself.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.admin.shared().cache
    }

    /// Ends the node's own part in its cluster, for tests that say themselves what it sees.
    #[cfg(test)]
    pub(crate) fn leave_cluster(&mut self) {
        drop(self.leave.take());
        if let Some(cluster) = self.cluster.take() {
            let _ = cluster.join();
        }
    }

    /// What its threads share.
    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        self.admin.shared()
    }

    /// Says how the configuration is read again at `POST /admin/reload` and by [`Node::reload`]. Without this they find
    /// nothing changed. `taken_over` is called with what is in force from then on, each time that a new configuration was
    /// found valid: for what belongs to the program, as its log does; it must not reload. Only the first call counts.
    pub fn reload_with(
        &self,
        load: impl Fn() -> Result<Config, ConfigError> + Send + Sync + 'static,
        taken_over: impl Fn(&Config) + Send + Sync + 'static,
    ) {
        self.admin.reload_with(Box::new(load), Box::new(taken_over));
    }

    /// Reads the configuration again and takes over what can change while running. On an error nothing changes.
    pub fn reload(&self) -> Result<Reload, ConfigError> {
        let reloaded = self.admin.reload();
        let shared = self.admin.shared();
        let action = Action {
            protocol: "signal",
            client: None,
            key: None,
            what: "reload",
            outcome: if reloaded.is_ok() {
                Outcome::Done
            } else {
                Outcome::Failed
            },
            code: None,
        };
        shared.audit.note(shared.clock.now_ms(), &action);
        reloaded
    }

    /// Takes over what can change while running from a configuration. On an error nothing changes.
    pub fn apply(&self, config: &Config) -> Result<Reload, ConfigError> {
        self.admin.apply(config)
    }

    /// Resolves when a client has asked for the end of the node, by `SHUTDOWN`. The node goes on until its program ends it, by
    /// [`Node::shutdown`].
    pub async fn stop_asked(&self) {
        self.admin.stop_asked().await;
    }

    /// Drains and stops: no new connections, idle ones close after a moment, what is in flight is answered within
    /// `server.shutdown_timeout_ms`. Answers whether all of it was.
    pub fn shutdown(mut self) -> bool {
        self.stop()
    }

    fn stop(&mut self) -> bool {
        let shutdown_timeout = self.admin.shared().live.load().shutdown_timeout;
        let deadline = Instant::now() + shutdown_timeout;
        drop(self.stop.take());
        if let Some(leave) = &mut self.leave {
            drop(leave.begin.take());
        }
        let persistence = &self.admin.shared().persistence;
        persistence.give_up();
        let mut drained = true;
        if let Some(acceptor) = self.acceptor.take() {
            drained &= acceptor.join().is_ok();
        }
        for thread in self.data_threads.drain(..) {
            drained &= thread.join().ok().flatten().unwrap_or(false);
        }
        if let Some(control) = self.control.take() {
            drained &= control.join().is_ok();
        }
        drop(self.leave.take());
        if let Some(cluster) = self.cluster.take() {
            drained &= cluster.join().is_ok();
        }
        if let Some(recovery) = self.recovery.take() {
            drained &= recovery.join().is_ok();
        }
        // Nobody writes any more.
        self.admin.shared().persistence.stop();
        self.end_traces(deadline);
        // The last, as its disk may be another, and hang.
        self.admin.shared().audit.end();
        if let Some(audit) = self.audit.take() {
            drained &= audit.join().is_ok();
        }
        drained
    }

    /// What is left of the time goes to the spans that wait. There was none where answers have taken all of it.
    fn end_traces(&mut self, deadline: Instant) {
        if let (Some(traces), Some(thread)) = (&self.admin.shared().traces, self.traces.take()) {
            traces.end(deadline);
            let _ = thread.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The cache that a configuration asks for, whose partitions begin after this version.
fn cache_of(config: &Config, threads: usize, first: Version) -> Result<Arc<Cache>, StartError> {
    Ok(Arc::new(Cache::new(&CacheConfig {
        max_size_bytes: size_of(config.cache.max_size_bytes).map_err(StartError::System)?,
        max_items: config.cache.max_items,
        policy: config.cache.policy,
        seed: RandomState::new().build_hasher().finish(),
        first,
        threads,
        allocation_size: allocator::rounded_size,
        remembers_departures: config.insight.enabled,
    })))
}

/// Takes the node's directory. Says how its log is to be synced as well, if it is to have one.
fn data_directory(
    config: &Config,
    port: u16,
) -> Result<(Directory, Option<SyncPolicy>), StartError> {
    let persistence = &config.persistence;
    let sync = persistence.enabled.then_some(persistence.sync);
    let own_id = config.cluster.node_id.as_ref().map(NodeId::as_str);
    let folder = own_id.map_or_else(|| format!("port-{port}"), str::to_owned);
    let path = persistence.dir.as_path().join(folder);
    let taken = Directory::take(path, own_id, &format!("henge-{port}"), sync);
    let directory = taken.map_err(|error| data(PersistenceError::Directory(error)))?;
    Ok((directory, sync))
}

/// Who may do what, and what is spoken to clients of TLS, by the files that a configuration names.
fn who_may(config: &Config) -> Result<(Access, Tls), StartError> {
    let keys = key_file(config).map_err(StartError::KeyFile)?;
    let certificates = tls::read(config).map_err(StartError::Tls)?;
    let access = Access::new(config.security.protected_mode, keys);
    Ok((access, Tls::new(certificates)))
}

/// The audit log, and the thread that writes it, which ends with it; there is none where no file is set.
fn audit_log(config: &Config, node: String) -> Result<(Audit, Option<JoinHandle<()>>), StartError> {
    let Some(file) = &config.audit.file else {
        return Ok((Audit::none(), None));
    };
    let path = file.as_path();
    let most = config.audit.max_size_bytes.as_usize() as u64;
    let opened = AuditFile::open(path, most, config.audit.keep_files);
    let opened = opened.map_err(|error| StartError::Audit(path.to_owned(), error))?;
    let (audit, writer) = Audit::of(node, opened);
    let thread = thread::Builder::new().name("audit".to_owned());
    let thread = thread.spawn(move || writer.run());
    Ok((audit, Some(thread.map_err(StartError::System)?)))
}

/// Where traces go, and the thread that sends them; none where no collector is named.
#[expect(clippy::type_complexity, reason = "it is both or neither")]
fn traces(
    config: &Config,
    node: &str,
) -> Result<(Option<Arc<Traces>>, Option<JoinHandle<Option<()>>>), StartError> {
    let Some(url) = &config.tracing.endpoint else {
        return Ok((None, None));
    };
    let exporter = traces::Exporter::new(url, node).map_err(StartError::Traces)?;
    let traces = Traces::new(node, config.tracing.sample_ratio);
    let sent = Arc::clone(&traces);
    let thread = spawn("henge-traces", async move || {
        traces::run(sent, exporter).await;
    })?;
    Ok((Some(traces), Some(thread)))
}

/// What the threads share of the node's cluster, as it is before anybody was asked.
fn cluster(
    config: &Config,
    directory: &Directory,
    address: SocketAddr,
    access: &Access,
) -> Result<(Arc<Cluster>, Inbox, Whose), StartError> {
    let state = directory.ledger.state();
    let left = Consensus::left_in(&directory.path);
    let left = left.map_err(|error| StartError::Cluster(error.to_string()))?;
    if let Some(left) = &left {
        // Before a port is served: who had keys yesterday is not open to all until others are heard.
        if left.cluster.is_some() {
            access.set_agreed(&left.settings);
        }
    }
    // Whose log is gone must not vote as who had it.
    let known = left.as_ref().map(|left| left.instance);
    let instance = known.unwrap_or_else(|| random_number().max(1));
    let advertise = config.cluster.advertise.as_ref().map(ToString::to_string);
    let who = Who {
        name: state.node_id,
        instance,
    };
    let secrets = secret_file::secrets(config);
    let secrets = secrets.map_err(|error| StartError::Cluster(error.to_string()))?;
    if let Some(secrets) = &secrets {
        tracing::info!(%secrets, "the secrets of the cluster were read");
    }
    let identity = Identity::new(who, state.incarnation, address, advertise, secrets);
    let cluster = left.as_ref().and_then(|left| left.cluster);
    let has_no_peers = config.cluster.peers.addresses().is_empty();
    let is_alone = left.as_ref().is_none_or(|left| left.is_alone);
    let (view, whose) = if is_alone && (has_no_peers || cluster.is_some()) {
        // It is a cluster by itself, and what it knew is all there is.
        access.set_agreed(
            &left
                .as_ref()
                .map_or_else(BTreeMap::new, |left| left.settings.clone()),
        );
        let generations = left.map(|left| left.generations).unwrap_or_default();
        let replication = usize::try_from(config.cluster.replication_factor).unwrap_or(1);
        (View::alone(cluster, replication), Whose::Own(generations))
    } else {
        let waits = Standing::Outside(Vec::new());
        (View::outside(waits), Whose::Cluster)
    };
    let (cluster, inbox) = Cluster::new(identity, view);
    Ok((cluster, inbox, whose))
}

/// What the node is to do about its cluster.
fn orders(config: &Config, persistence: &Arc<Persistence>) -> Orders {
    let peers = config.cluster.peers.addresses();
    let noted = Arc::clone(persistence);
    Orders {
        peers: peers.iter().map(ToString::to_string).collect(),
        replication: usize::try_from(config.cluster.replication_factor).unwrap_or(1),
        directory: PathBuf::from(&persistence.path),
        note_incarnation: NoteIncarnation(Arc::new(move |incarnation| {
            noted
                .note_incarnation(incarnation)
                .map_err(|error| error.to_string())
        })),
    }
}

/// The ports, open.
struct Ports {
    listening: Vec<Listening>,
    address: SocketAddr,
    resp_address: Option<SocketAddr>,
    /// The same port, for what nodes tell each other of who lives.
    datagrams: UdpSocket,
}

impl Ports {
    fn open(config: &Config) -> Result<Self, StartError> {
        let (listener, datagrams) = Self::open_both(&config.server.listen)?;
        let address = listener.local_addr().map_err(StartError::System)?;
        let mut ports = vec![Listening {
            listener,
            door: Door::Any,
        }];
        let mut resp_address = None;
        if let Some(listen_on) = &config.server.resp_listen {
            let listener = listen::listen(listen_on.host.as_deref(), listen_on.port)
                .map_err(StartError::Listen)?;
            resp_address = Some(listener.local_addr().map_err(StartError::System)?);
            let door = Door::Resp;
            ports.push(Listening { listener, door });
        }
        Ok(Self {
            listening: ports,
            address,
            resp_address,
            datagrams,
        })
    }

    /// A port for connections, and the same for datagrams.
    fn open_both(at: &ListenAddress) -> Result<(TcpListener, UdpSocket), StartError> {
        /// Ports that the system chose and of which somebody had the other half: one after the other is chance no more.
        const TRIES: u32 = 16;
        let mut tries = 0;
        loop {
            let listener =
                listen::listen(at.host.as_deref(), at.port).map_err(StartError::Listen)?;
            let address = listener.local_addr().map_err(StartError::System)?;
            tries += 1;
            match control::bind(address) {
                Ok(datagrams) => return Ok((listener, datagrams)),
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && at.port == 0
                        && tries < TRIES => {}
                Err(source) => {
                    return Err(StartError::Listen(ListenError {
                        address: format!("{address} for datagrams (UDP)"),
                        source,
                    }));
                }
            }
        }
    }
}

/// The clock of a node whose last life has come to this time.
fn clock_after(seen_ms: u64) -> Clock {
    /// A clock may be set back so far without anybody being told.
    const UNTOLD: Duration = Duration::from_secs(10);
    let (wall, clock) = (Clock::start(), Clock::start_from(seen_ms));
    let ahead = clock.started_ms().saturating_sub(wall.started_ms());
    let ahead = Duration::from_millis(ahead);
    if ahead > UNTOLD {
        tracing::warn!(
            seconds = ahead.as_secs(),
            "the machine's clock is behind what this node has seen, and the node's goes on from there; if that was wrong, stop the node and set seen_ms in its node.json to 0"
        );
    }
    clock
}

/// The version before the first of a node that does not know which were stamped: the time, so that none is stamped twice. See
/// "Versions" in docs/ARCHITECTURE.md.
fn first_version(now_ms: u64) -> Version {
    const YEAR_2025_MS: u64 = 1_735_689_600_000;
    /// Writes that one partition may stamp in a millisecond before a restart could meet them.
    const WRITES_PER_MS: u64 = 16;
    let seq = now_ms.saturating_sub(YEAR_2025_MS) * WRITES_PER_MS;
    Version::new(1, seq.min(Version::MAX_SEQ / 2))
}

/// Runs a future on a thread of its own, in a runtime that must be built there; a failure of that is reported here.
fn spawn<T: Send + 'static>(
    name: &str,
    run: impl AsyncFnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<Option<T>>, StartError> {
    let (built, outcome) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let (runtime, report) = match data_thread::runtime() {
                Ok(runtime) => (Some(runtime), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // The caller waits for it.
            let _ = built.send(report);
            let runtime = runtime?;
            let result = runtime.block_on(run());
            runtime.shutdown_timeout(BLOCKING_GRACE);
            Some(result)
        })
        .map_err(StartError::System)?;
    match outcome.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(StartError::System(error)),
        Err(_) => {
            let gone = io::Error::other("a thread ended before it began");
            Err(StartError::System(gone))
        }
    }
}
