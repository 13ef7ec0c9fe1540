//! A data thread: one tokio `LocalRuntime` that keeps its connections for life. When the acceptor goes away it drains:
//! idle connections close after a moment, requests in flight are answered, and after the shutdown time-out the rest is cut.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;

use super::acceptor::Accepted;
use super::addresses::Seat;
use super::connection;
use super::endings::Endings;
use super::inflight::paid_by;
use crate::access::caller::Denied;
use crate::access::ring::Key;
use crate::admin::Admin;
use crate::cluster::replicas;
use crate::cluster::routing::Routing;
use crate::disk::gate::Gate;
use crate::http::Call;
use crate::insight::hot::Sampler;
use crate::metrics::counters::ThreadCounters;
use crate::rate::Allowances;
use crate::resp;
use crate::shared::Shared;
use crate::traces::Tracer;

/// What the connections of a thread share; one reference each, and no lock.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    pub(crate) counters: Arc<ThreadCounters>,
    /// What may be asked of the node beside its data.
    pub(crate) admin: Arc<Admin>,
    /// To the control runtime.
    pub(crate) control: mpsc::Sender<Call>,
    /// Scratch for answers, so that they grow once and are then of a known size.
    pub(crate) scratch: RefCell<Vec<u8>>,
    /// The API key of who asks over HTTP for what is worked on now, if it is confined to some keys of the cache.
    confined: RefCell<Option<Arc<Key>>>,
    /// The same for the Redis protocol, with what its connections read into.
    pub(crate) resp: RefCell<resp::Scratch>,
    /// Where answers wait until what they show is in the log.
    pub(crate) gate: Gate,
    /// The way to the keys of other nodes.
    pub(crate) routing: Routing,
    /// What its clients may ask for yet.
    pub(crate) allowances: Allowances,
    /// When connections may give back what they hold.
    pub(crate) endings: Endings,
    /// Which keys its clients name.
    pub(crate) sampler: Sampler,
    /// Which of their requests are traced; none where none are.
    pub(crate) tracer: Option<Tracer>,
    /// Connections over which other nodes tell its replicas something: they end when those nodes do, and nobody waits for that.
    streams: Cell<usize>,
    drain: Notify,
    draining: Cell<bool>,
    empty: Notify,
}

/// Counts a stream of another node until it is dropped.
pub(crate) struct Listens(Rc<Local>);

impl Listens {
    pub(crate) fn begin(local: &Rc<Local>) -> Self {
        local.streams.set(local.streams.get() + 1);
        local.look_whether_empty();
        Self(Rc::clone(local))
    }
}

impl Drop for Listens {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

impl Local {
    /// Whether the next answer on each connection is its last.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether no connection is open but those that nobody waits for.
    fn is_empty(&self) -> bool {
        self.counters.open.load(Ordering::Relaxed) <= self.streams.get()
    }

    fn look_whether_empty(&self) {
        if self.is_empty() {
            self.empty.notify_one();
        }
    }

    /// What is worked on from here on is asked for by who has this key.
    #[inline]
    pub(crate) fn confine(&self, key: Option<&Arc<Key>>) {
        let mut confined = self.confined.borrow_mut();
        if confined.is_some() || key.is_some() {
            *confined = key.cloned();
        }
    }

    /// The key of who asks for what is worked on, if it is confined.
    #[inline]
    pub(crate) fn confined(&self) -> Option<Arc<Key>> {
        self.confined.borrow().clone()
    }

    /// Refuses a key of the cache that who asks may not touch, and a prefix of such.
    #[inline]
    pub(crate) fn check_scope(&self, key: &[u8]) -> Result<(), Denied> {
        match &*self.confined.borrow() {
            Some(confined) if !confined.covers(key) => Err(Denied::Scope),
            _ => Ok(()),
        }
    }

    /// The same for a key that is asked for, which is counted among those.
    #[inline]
    pub(crate) fn name_key(&self, key: &[u8]) -> Result<(), Denied> {
        self.check_scope(key)?;
        self.sampler.one(key);
        Ok(())
    }

    /// Resolves when draining begins.
    pub(crate) fn drain(&self) -> tokio::sync::futures::Notified<'_> {
        self.drain.notified()
    }
}

/// How many values a data thread may have compressed or decompressed at one time. One core is there for each data thread,
/// so more only compete with it and hold memory: tokio's 512 gave 264 threads and 1.3 GiB with zstd at level 19. Two, so that
/// a quick one need not wait for a slow one. What waits for a place is bounded by connections, and by bytes in flight: see `aside.rs`.
pub(crate) const BLOCKING_THREADS: usize = 2;

/// So many turns of connections are taken before sockets are looked at again, if there is always one that wants the next. tokio's 61 are 8 ms where
/// one pipelines over HTTP, each turn of which is 16 answers; a look costs a few hundredths of a turn.
const TURNS_BETWEEN_LOOKS: u32 = 16;

/// Builds the runtime of a data thread, on that thread.
pub(crate) fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .event_interval(TURNS_BETWEEN_LOOKS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(Duration::from_secs(10))
        .build_local(LocalOptions::default())
}

/// How often is looked how late the thread comes to what is due: rarely beside what it does, and often enough to meet what is so
/// every second.
const DELAY_LOOKS: Duration = Duration::from_millis(100);
/// A thread that comes so late to what was due has been held up: by a command on very many keys, or as the system has run something else.
const STALL: Duration = Duration::from_millis(10);

/// Looks at how late the thread comes to what is due, until it is dropped.
async fn watch_delay(counters: &ThreadCounters) {
    let mut ticks = tokio::time::interval(DELAY_LOOKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = ticks.tick().await;
        counters.came_late(due.elapsed(), STALL);
    }
}

/// Serves what comes over `connections` until that is closed and all are done, or the time-out has passed. Answers
/// whether all were done.
pub(crate) async fn serve(
    admin: Arc<Admin>,
    counters: Arc<ThreadCounters>,
    index: usize,
    control: mpsc::Sender<Call>,
    mut connections: mpsc::Receiver<Accepted>,
) -> bool {
    let local = Rc::new(Local {
        shared: Arc::clone(admin.shared()),
        routing: Routing::new(&admin.shared().cluster, &counters),
        counters,
        control,
        scratch: RefCell::new(Vec::new()),
        confined: RefCell::new(None),
        resp: RefCell::new(resp::Scratch::new(admin.shared())),
        gate: Gate::new(
            admin.shared().persistence.log.clone(),
            Arc::clone(&admin.shared().replicas.inboxes),
            Arc::clone(&admin.shared().in_flight),
            index,
        ),
        allowances: Allowances::default(),
        endings: Endings::default(),
        sampler: admin.shared().insight.hot_keys.sampler(index),
        tracer: admin.shared().traces.as_ref().map(Tracer::new),
        admin,
        streams: Cell::new(0),
        drain: Notify::new(),
        draining: Cell::new(false),
        empty: Notify::new(),
    });
    let own = Rc::clone(&local);
    let keeper = tokio::task::spawn_local(async move {
        let keep = || replicas::rounds_are_done(&own, index);
        own.gate.keep(keep).await;
    });
    let own = Rc::clone(&local);
    let ender = tokio::task::spawn_local(async move { own.endings.keep().await });
    let own = Rc::clone(&local);
    let watcher = tokio::task::spawn_local(async move { watch_delay(&own.counters).await });
    let replicating = replicas::serve(&local.shared.replicas, &local, index);
    let own = Rc::clone(&local);
    let router = tokio::task::spawn_local(async move {
        let mut changes = own.shared.cluster.changes();
        // Ends with the node, which has the other end.
        while changes.changed().await.is_ok() {
            // Looks at the view, so that who waits for a node that is gone is told.
            own.routing.routes();
        }
    });
    while let Some(connection) = connections.recv().await {
        let Accepted { socket, door, seat } = connection;
        let share = seat.as_ref().map(Seat::share);
        let open = Open {
            local: Rc::clone(&local),
            _seat: seat,
        };
        // Refused only when the runtime has no more room in its poller; the connection is closed then.
        let Ok(socket) = TcpStream::from_std(socket) else {
            continue;
        };
        // Answers are written whole; waiting to fill a segment only delays them. Without it all still works.
        let _ = socket.set_nodelay(true);
        tokio::task::spawn_local(async move {
            let serving = connection::serve(socket, door, &open.local);
            if let Some(closing) = paid_by(share, serving).await {
                open.local.endings.wait().await;
                drop(closing);
            }
            drop(open);
        });
    }
    local.draining.set(true);
    local.drain.notify_waiters();
    let deadline = Instant::now() + local.shared.live.load().shutdown_timeout;
    while !local.is_empty() {
        if tokio::time::timeout_at(deadline.into(), local.empty.notified())
            .await
            .is_err()
        {
            return false;
        }
    }
    keeper.abort();
    ender.abort();
    router.abort();
    watcher.abort();
    replicating.iter().for_each(tokio::task::JoinHandle::abort);
    true
}

/// Counts a connection as open until it is dropped.
struct Open {
    local: Rc<Local>,
    _seat: Option<Seat>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.local.counters.open.fetch_sub(1, Ordering::Relaxed);
        self.local.look_whether_empty();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn no_more_than_a_few_threads_compress() {
        let runtime = runtime().expect("a runtime");
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        runtime.block_on(async {
            let job = || {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                tokio::task::spawn_blocking(move || {
                    most.fetch_max(
                        1 + running.fetch_add(1, Ordering::Relaxed),
                        Ordering::Relaxed,
                    );
                    for _ in 0..100 {
                        std::thread::yield_now();
                    }
                    running.fetch_sub(1, Ordering::Relaxed);
                })
            };
            let jobs: Vec<_> = (0..64).map(|_| job()).collect();
            for job in jobs {
                job.await.expect("it does not panic");
            }
        });
        assert!(most.load(Ordering::Relaxed) <= BLOCKING_THREADS);
    }
}
