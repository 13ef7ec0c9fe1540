//! The counters that requests write. Each data thread has its own and is their only writer, so a count is a load and a
//! store without a lock prefix, and no two threads write one cache line. Readers sum over the threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;

use super::answers::{Series, places};
use super::histogram::{Distribution, Histogram};
use crate::http::routes::{ROUTES, RouteId};
use crate::rate::Scope;
use crate::resp::COMMANDS;

/// Adds to a counter that only this thread writes.
#[inline]
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}

/// The statuses that the node answers, frequent ones first. One that is missing here is counted as 500, which a test of
/// the problems' table rules out. The parser's own refusals (400, 414, 431) are no requests: they are counted as
/// [`ThreadCounters::protocol_errors`].
pub(crate) const STATUSES: [u16; 21] = [
    200, 304, 404, 204, 201, 400, 401, 403, 405, 408, 409, 412, 413, 415, 417, 422, 429, 500, 503,
    504, 507,
];

/// Where 500 stands.
const INTERNAL: usize = {
    let mut index = 0;
    while STATUSES[index] != 500 {
        index += 1;
    }
    index
};

fn status_index(status: StatusCode) -> usize {
    let status = status.as_u16();
    STATUSES
        .iter()
        .position(|&known| known == status)
        .unwrap_or(INTERNAL)
}

/// Requests of no route of ours are counted together.
const UNROUTED: usize = ROUTES.len();

/// What one data thread counts.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct ThreadCounters {
    requests: [[AtomicU64; STATUSES.len()]; UNROUTED + 1],
    latency: Box<[Histogram]>,
    /// By the number of the command, for the Redis protocol.
    commands: Box<[CommandCounters]>,
    /// By the place of a [`Series`]; made when there is the first.
    answers: Box<[OnceLock<Box<Histogram>>]>,
    /// By the instances of the nodes that it asks; those that are no members any more are forgotten by who reads.
    links: Mutex<BTreeMap<u64, Arc<LinkCounters>>>,
    /// How late it came to what was due.
    pub(crate) delay: Histogram,
    /// How often it was much too late.
    pub(crate) stalls: AtomicU64,
    /// Connections whose client has shown a certificate that is not trusted.
    pub(crate) refused_certificates: AtomicU64,
    /// Commands of the Redis protocol that were answered, of all kinds.
    pub(crate) answered: AtomicU64,
    /// Commands and requests that other nodes were asked to run, as the keys are there.
    pub(crate) forwarded: AtomicU64,
    /// Bytes read from clients.
    pub(crate) received_bytes: AtomicU64,
    /// Bytes written to clients.
    pub(crate) sent_bytes: AtomicU64,
    /// Bytes of values before they were compressed, and after.
    pub(crate) compression_in_bytes: AtomicU64,
    /// See above.
    pub(crate) compression_out_bytes: AtomicU64,
    /// Values that were tried and kept raw, because they did not shrink.
    pub(crate) compression_refused: AtomicU64,
    /// Requests and commands that were not served for want of tokens, by the number of the [`Scope`].
    pub(crate) rate_limited: [AtomicU64; Scope::ALL.len()],
    /// Connections closed because the client was too slow.
    pub(crate) timed_out: AtomicU64,
    /// Connections closed because what came was no HTTP, or a head or a URL that was too long (431, 414).
    pub(crate) protocol_errors: AtomicU64,
    /// Connections on this thread. Also written by the acceptor, as it hands one over; not on the way of a request.
    pub(crate) open: AtomicUsize,
}

impl ThreadCounters {
    fn new() -> Self {
        Self {
            requests: [const { [const { AtomicU64::new(0) }; STATUSES.len()] }; UNROUTED + 1],
            latency: (0..=UNROUTED).map(|_| Histogram::new()).collect(),
            commands: COMMANDS
                .entries()
                .iter()
                .map(|_| CommandCounters::default())
                .collect(),
            answers: (0..places()).map(|_| OnceLock::new()).collect(),
            links: Mutex::default(),
            delay: Histogram::new(),
            stalls: AtomicU64::new(0),
            refused_certificates: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            compression_in_bytes: AtomicU64::new(0),
            compression_out_bytes: AtomicU64::new(0),
            compression_refused: AtomicU64::new(0),
            rate_limited: [const { AtomicU64::new(0) }; Scope::ALL.len()],
            timed_out: AtomicU64::new(0),
            protocol_errors: AtomicU64::new(0),
            open: AtomicUsize::new(0),
        }
    }

    /// The counters of the command of this number.
    #[inline]
    pub(crate) fn command(&self, number: u16) -> &CommandCounters {
        &self.commands[usize::from(number)]
    }

    /// Counts answers that waited for as long. Only the thread that owns the counters may call this.
    #[inline]
    pub(crate) fn waited(&self, series: Series, took: Duration, count: u64) {
        let histogram = self.answers[series.place()].get_or_init(Box::default);
        histogram.record_some(nanos(took), count);
    }

    /// Counts how late the thread came to what was due, and whether that was too late. Only that thread may call this.
    pub(crate) fn came_late(&self, late: Duration, stall: Duration) {
        self.delay.record(nanos(late));
        add(&self.stalls, u64::from(late > stall));
    }

    /// What is counted of the node of this instance.
    pub(crate) fn link(&self, instance: u64) -> Arc<LinkCounters> {
        Arc::clone(self.links.lock().entry(instance).or_default())
    }

    /// Counts an answered request. Only the thread that owns the counters may call this.
    #[inline]
    pub(crate) fn request(&self, route: Option<RouteId>, status: StatusCode, took: Duration) {
        let route = route.map_or(UNROUTED, |route| route as usize);
        add(&self.requests[route][status_index(status)], 1);
        self.latency[route].record(nanos(took));
    }
}

#[inline]
fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// What one data thread counts of what it asks another node.
#[derive(Debug, Default)]
pub(crate) struct LinkCounters {
    /// How long the answers took that came.
    pub(crate) latency: Histogram,
    /// Questions that had none.
    pub(crate) failed: AtomicU64,
}

impl LinkCounters {
    /// Counts what became of a question. Only the thread that owns the counters may call this.
    pub(crate) fn count(&self, is_answered: bool, took: Duration) {
        if is_answered {
            self.latency.record(nanos(took));
        } else {
            add(&self.failed, 1);
        }
    }
}

/// What one data thread counts of one command of the Redis protocol.
#[derive(Debug)]
pub(crate) struct CommandCounters {
    /// How long it took; its count is that of the calls.
    latency: Histogram,
    /// Calls that ran and answered an error.
    pub(crate) failed: AtomicU64,
    /// Calls that did not run.
    pub(crate) rejected: AtomicU64,
}

impl Default for CommandCounters {
    fn default() -> Self {
        Self {
            latency: Histogram::new(),
            failed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        }
    }
}

impl CommandCounters {
    /// Counts a call that ran. Only the thread that owns the counters may call this.
    #[inline]
    pub(crate) fn took(&self, took: Duration) {
        self.latency.record(nanos(took));
    }
}

/// What the acceptor counts; it is the only writer.
#[derive(Debug, Default)]
pub(crate) struct AcceptorCounters {
    /// Connections taken.
    pub(crate) accepted: AtomicU64,
    /// Connections turned away at `limits.max_connections`.
    pub(crate) refused: AtomicU64,
    /// Calls of `accept` that failed, for want of file handles or memory.
    pub(crate) errors: AtomicU64,
}

/// All counters of a node.
#[derive(Debug)]
pub(crate) struct Counters {
    threads: Vec<Arc<ThreadCounters>>,
    pub(crate) acceptor: AcceptorCounters,
    /// Task counts of the runtimes, added as the threads start.
    runtimes: Mutex<Vec<tokio::runtime::Handle>>,
    /// Those of the data threads, by their numbers, once they have begun.
    data_runtimes: Vec<OnceLock<tokio::runtime::Handle>>,
}

impl Counters {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            threads: (0..threads)
                .map(|_| Arc::new(ThreadCounters::new()))
                .collect(),
            acceptor: AcceptorCounters::default(),
            runtimes: Mutex::new(Vec::new()),
            data_runtimes: (0..threads).map(|_| OnceLock::new()).collect(),
        }
    }

    pub(crate) fn thread(&self, index: usize) -> &Arc<ThreadCounters> {
        &self.threads[index]
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Lets the tasks of the runtime that the caller runs in be counted.
    pub(crate) fn watch_this_runtime(&self) {
        self.runtimes.lock().push(tokio::runtime::Handle::current());
    }

    /// The same, of the data thread of this number.
    pub(crate) fn watch_this_data_runtime(&self, index: usize) {
        self.watch_this_runtime();
        // A thread begins once.
        let _ = self.data_runtimes[index].set(tokio::runtime::Handle::current());
    }

    /// For how long each data thread has worked.
    pub(crate) fn busy(&self) -> impl Iterator<Item = Duration> {
        // Its runtime has one worker.
        let busy =
            |runtime: &tokio::runtime::Handle| runtime.metrics().worker_total_busy_duration(0);
        let runtimes = self.data_runtimes.iter();
        runtimes.map(move |runtime| runtime.get().map_or(Duration::ZERO, busy))
    }

    /// How long answers were waited for, of all that any was.
    pub(crate) fn answers(&self) -> impl Iterator<Item = (Series, Distribution)> {
        Series::all().filter_map(|series| {
            let of_threads = self.threads.iter();
            let histograms = of_threads.filter_map(|thread| thread.answers[series.place()].get());
            let mut all = Distribution::default();
            histograms.for_each(|histogram| all.add(histogram));
            (all.count() > 0).then_some((series, all))
        })
    }

    /// What the threads have asked each node that has a name, and how often in vain; others are forgotten.
    pub(crate) fn links<'a>(
        &self,
        name: impl Fn(u64) -> Option<&'a str>,
    ) -> BTreeMap<&'a str, (Distribution, u64)> {
        let mut all: BTreeMap<&str, (Distribution, u64)> = BTreeMap::new();
        for thread in &self.threads {
            thread.links.lock().retain(|&instance, link| {
                let Some(name) = name(instance) else {
                    // A link may know of a member before this view does.
                    return Arc::strong_count(link) > 1;
                };
                let (latency, failed) = all.entry(name).or_default();
                latency.add(&link.latency);
                *failed += link.failed.load(Ordering::Relaxed);
                true
            });
        }
        all
    }

    pub(crate) fn live_tasks(&self) -> usize {
        let runtimes = self.runtimes.lock();
        runtimes
            .iter()
            .map(|runtime| runtime.metrics().num_alive_tasks())
            .sum()
    }

    pub(crate) fn open_connections(&self) -> usize {
        let open = |thread: &Arc<ThreadCounters>| thread.open.load(Ordering::Relaxed);
        self.threads.iter().map(open).sum()
    }

    /// The sum of one counter over the threads.
    pub(crate) fn sum(&self, counter: impl Fn(&ThreadCounters) -> &AtomicU64) -> u64 {
        let read = |thread: &Arc<ThreadCounters>| counter(thread).load(Ordering::Relaxed);
        self.threads.iter().map(read).sum()
    }

    /// Requests of HTTP about keys that were answered: who looks at figures is none of the load.
    pub(crate) fn requests(&self) -> u64 {
        let routes = ROUTES.iter().filter(|route| route.id.is_about_keys());
        let counts = routes.flat_map(|route| {
            let threads = self.threads.iter();
            threads.flat_map(move |thread| &thread.requests[route.id as usize])
        });
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Every command of the Redis protocol that was called, by its number.
    pub(crate) fn commands(&self) -> BTreeMap<u16, CommandFigures> {
        COMMANDS
            .entries()
            .iter()
            .filter_map(|entry| {
                let mut figures = CommandFigures::default();
                for thread in &self.threads {
                    let own = thread.command(entry.number);
                    figures.latency.add(&own.latency);
                    figures.failed += own.failed.load(Ordering::Relaxed);
                    figures.rejected += own.rejected.load(Ordering::Relaxed);
                }
                (!figures.is_empty()).then_some((entry.number, figures))
            })
            .collect()
    }

    /// Every route that was asked for, and last what was none.
    pub(crate) fn routes(&self) -> Vec<RouteFigures> {
        (0..=UNROUTED)
            .filter_map(|route| {
                let mut statuses = [0; STATUSES.len()];
                let mut latency = Distribution::default();
                for thread in &self.threads {
                    for (sum, count) in statuses.iter_mut().zip(&thread.requests[route]) {
                        *sum += count.load(Ordering::Relaxed);
                    }
                    latency.add(&thread.latency[route]);
                }
                let by_status: Vec<(u16, u64)> = STATUSES
                    .into_iter()
                    .zip(statuses)
                    .filter(|&(_, count)| count > 0)
                    .collect();
                (!by_status.is_empty()).then(|| RouteFigures {
                    name: ROUTES.get(route).map_or("unrouted", |route| route.name),
                    class: ROUTES
                        .get(route)
                        .map_or("none", |route| route.permission.name()),
                    by_status,
                    latency,
                })
            })
            .collect()
    }
}

/// The calls of one command.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommandFigures {
    /// How long those took that ran; its count is that of the calls.
    pub(crate) latency: Distribution,
    /// Calls that ran and answered an error.
    pub(crate) failed: u64,
    /// Calls that did not run.
    pub(crate) rejected: u64,
}

impl CommandFigures {
    /// Whether it was never called.
    pub(crate) fn is_empty(&self) -> bool {
        self.rejected == 0 && self.latency.count() == 0
    }

    /// Takes away what was counted up to an earlier moment.
    pub(crate) fn subtract(&mut self, earlier: &Self) {
        self.latency.subtract(&earlier.latency);
        self.failed = self.failed.saturating_sub(earlier.failed);
        self.rejected = self.rejected.saturating_sub(earlier.rejected);
    }
}

/// The requests of one route.
#[derive(Debug)]
pub(crate) struct RouteFigures {
    pub(crate) name: &'static str,
    pub(crate) class: &'static str,
    /// Statuses that were answered, with how often.
    pub(crate) by_status: Vec<(u16, u64)>,
    pub(crate) latency: Distribution,
}

impl RouteFigures {
    pub(crate) fn requests(&self) -> u64 {
        self.by_status.iter().map(|&(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::Code;

    /// What handlers answer beside problems.
    const SUCCESSES: [u16; 4] = [200, 201, 204, 304];

    /// A view that does not know of a member yet takes nothing from a link that does.
    #[test]
    fn counters_of_a_link_last_as_long_as_it() {
        let counters = Counters::new(1);
        let link = counters.thread(0).link(7);
        link.count(true, Duration::from_millis(1));
        assert!(counters.links(|_| None).is_empty());
        link.count(false, Duration::ZERO);
        let named = counters.links(|instance| (instance == 7).then_some("n2"));
        let (latency, failed) = &named["n2"];
        assert_eq!((latency.count(), *failed), (1, 1));
        drop(link);
        assert!(counters.links(|_| None).is_empty());
        assert!(counters.links(|_| Some("n2")).is_empty(), "it is forgotten");
    }

    #[test]
    fn each_status_is_one_that_is_answered() {
        for status in STATUSES {
            let of_a_problem = Code::ALL.iter().any(|code| code.status_number() == status);
            assert!(of_a_problem || SUCCESSES.contains(&status), "{status}");
        }
        assert_eq!(status_index(StatusCode::IM_A_TEAPOT), INTERNAL);
    }
}
