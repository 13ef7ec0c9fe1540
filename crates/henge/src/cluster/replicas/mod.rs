//! The replicas of this node's partitions among those of other nodes: what they say goes to streams (`streams`), verdicts on
//! requests to the threads that wait for them (`told`), and what the topology has to know to whoever reports it. Views of the
//! topology come from the control part. What is decided is decided in the machines, which stand in the cache.

mod held;
pub(crate) mod lag;
pub(crate) mod pace;
pub(crate) mod streams;
pub(crate) mod told;

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Instant;

use henge_cluster::agreed::Agreed;
use henge_cluster::carrier::Context;
use henge_cluster::replica::{Body, Level, MessageOf, Output, RequestId, Seen, Types, View, Vouch};
use henge_cluster::ring::NodeId;
use henge_cluster::store::Served;
use henge_cluster::topology::{Epoch, Incarnation, Placement, State};
use henge_wire::{PARTITIONS, Partition, Version};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use self::held::Held;
use self::lag::Lag;
use self::pace::{Pace, Turn};
use self::streams::{Speakers, Streams, TICK};
use self::told::{Inboxes, Verdict};
use crate::cache::{Cache, Carry};
use crate::cluster::losses::Losses;
use crate::net::data_thread::Local;
use crate::shared::Shared;
use crate::traces;

/// By partitions, a term; 0 for none.
type Terms = Box<[Epoch]>;

/// What a node says of its replicas to the control leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    /// The newest term in which each is aligned.
    pub(crate) aligned: Terms,
    /// The newest term that each has opened.
    pub(crate) opened: Terms,
    /// The newest term in which each has led and come to rest.
    pub(crate) rested: Terms,
    /// The newest epoch in which it was to begin with a copy, of those that it has seen: in what it says above there is nothing of a copy
    /// that it had before, and was to throw away.
    pub(crate) learns_since: Epoch,
}

impl Default for Report {
    fn default() -> Self {
        let none = || vec![0; usize::from(PARTITIONS)].into_boxed_slice();
        Self {
            aligned: none(),
            opened: none(),
            rested: none(),
            learns_since: 0,
        }
    }
}

/// How far a node's replicas are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Aligned {
    pub(crate) replicas: usize,
    pub(crate) aligned: usize,
}

impl Aligned {
    /// Those that lack something.
    pub(crate) fn left(self) -> usize {
        self.replicas - self.aligned
    }
}

/// See the head of the file.
pub(crate) struct Replicas {
    pub(crate) inboxes: Arc<Inboxes>,
    pub(crate) streams: Streams,
    /// How often replicas here have adopted a term, in this start.
    pub(crate) adoptions: AtomicU64,
    /// By partitions, the newest term in which this node has fenced it; and in how many it has.
    fenced: Box<[AtomicU32]>,
    pub(crate) fences: AtomicU64,
    /// In how many terms one has opened here.
    pub(crate) openings: AtomicU64,
    pub(crate) lag: Lag,
    report: Mutex<Report>,
    /// Is told whenever replicas elsewhere have said something.
    pub(crate) heard: Notify,
    /// Is told of another report.
    pub(crate) reported: Notify,
    losses: Arc<Losses>,
    pub(crate) pace: Pace,
    held: Held,
    /// What the topology said last of each partition that is here.
    seen: Mutex<AllSeen>,
}

#[derive(Default)]
struct AllSeen {
    partitions: BTreeMap<Partition, Known>,
    /// All nodes, their starts, and whether they are up: while these are the same only placements have to be looked at.
    nodes: Vec<(NodeId, Incarnation, bool)>,
    has_begun: bool,
}

/// What a replica was told of the topology.
#[derive(PartialEq, Eq)]
struct Known {
    placement: Arc<Placement>,
    incarnations: Vec<Incarnation>,
    up: Vec<NodeId>,
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replicas")
    }
}

impl Replicas {
    pub(crate) fn new(threads: usize, losses: Arc<Losses>) -> Arc<Self> {
        Arc::new(Self {
            inboxes: Arc::new(Inboxes::new(threads)),
            streams: Streams::default(),
            adoptions: AtomicU64::new(0),
            fenced: (0..PARTITIONS).map(|_| AtomicU32::new(0)).collect(),
            fences: AtomicU64::new(0),
            openings: AtomicU64::new(0),
            lag: Lag::default(),
            report: Mutex::default(),
            heard: Notify::new(),
            reported: Notify::new(),
            losses,
            pace: Pace::new(Instant::now()),
            held: Held::default(),
            seen: Mutex::default(),
        })
    }

    /// There are some from now on.
    pub(crate) fn begin(&self) {
        self.inboxes.begin();
    }

    /// What the control leader is to know now.
    pub(crate) fn report(&self) -> Report {
        self.report.lock().clone()
    }

    /// How many replicas this node has, as far as it has heard, and how many of them are aligned with their leaders, or lead.
    pub(crate) fn aligned(&self) -> Aligned {
        let seen = self.seen.lock();
        let report = self.report.lock();
        let is_aligned = |(partition, known): &(&Partition, &Known)| {
            report.aligned[usize::from(partition.number())] == known.placement.term
        };
        Aligned {
            replicas: seen.partitions.len(),
            aligned: seen.partitions.iter().filter(is_aligned).count(),
        }
    }

    /// Shows what is agreed on to the machines of the partitions that this node has, or had.
    pub(crate) fn see(&self, cache: &Cache, agreed: &Agreed, me: NodeId, now_ms: u64) {
        let topology = agreed.topology();
        let nodes = topology.nodes();
        let up: Vec<NodeId> = nodes
            .iter()
            .filter(|(_, node)| node.state == State::Up)
            .map(|(&id, _)| id)
            .collect();
        let all = nodes.iter();
        let all = all.map(|(&id, node)| (id, node.incarnation, node.state == State::Up));
        let all: Vec<_> = all.collect();
        let AllSeen {
            partitions: seen,
            nodes: seen_nodes,
            has_begun,
        } = &mut *self.seen.lock();
        let are_same = *seen_nodes == all;
        *seen_nodes = all;
        // A replica of an earlier life may be nobody's now.
        let is_first = !std::mem::replace(has_begun, true);
        for partition in topology.partitions() {
            let placement = topology.placement(partition);
            let known = seen.get(&partition);
            let is_mine = placement.names(me);
            if !is_mine && !is_first && known.is_none() {
                continue;
            }
            if are_same && known.is_some_and(|known| known.placement == *placement) {
                continue;
            }
            let replicas = placement.old.iter().chain(placement.goal()).copied();
            let incarnations: BTreeMap<NodeId, Incarnation> = replicas
                .filter_map(|id| Some((id, nodes.get(&id)?.incarnation)))
                .collect();
            let now = Known {
                placement: Arc::clone(placement),
                incarnations: incarnations.values().copied().collect(),
                up: up
                    .iter()
                    .copied()
                    .filter(|id| incarnations.contains_key(id))
                    .collect(),
            };
            if seen.get(&partition) == Some(&now) {
                continue;
            }
            let view = View {
                placement: Arc::clone(placement),
                incarnations,
                up: now.up.clone(),
            };
            if is_mine {
                seen.insert(partition, now);
            } else {
                seen.remove(&partition);
            }
            let learns_since = placement.learners().any(|learner| learner == me);
            let learns_since = placement.change.as_ref().filter(|_| learns_since);
            cache.look(partition, view, now_ms);
            self.note_place(
                partition,
                is_mine,
                learns_since.map_or(0, |change| change.since),
            );
        }
    }

    /// A partition is this node's, or is so no more: then what was said of it holds no more.
    fn note_place(&self, partition: Partition, is_mine: bool, learns_since: Epoch) {
        let at = usize::from(partition.number());
        let mut report = self.report.lock();
        if !is_mine {
            report.aligned[at] = 0;
            report.opened[at] = 0;
            report.rested[at] = 0;
        }
        let is_news = learns_since > report.learns_since;
        report.learns_since = report.learns_since.max(learns_since);
        drop(report);
        if is_news {
            self.reported.notify_one();
        }
    }
}

impl Carry for Replicas {
    fn begin(&self, partition: Partition, is_write: bool) -> (RequestId, Level) {
        traces::note_call(partition, None);
        told::begin_call(partition, is_write)
    }

    fn stamped(&self, id: RequestId, version: Version) {
        told::note_stamped(id, version);
    }

    fn level(&self) -> Level {
        told::level()
    }

    fn adopted(&self) {
        self.adoptions.fetch_add(1, SeqCst);
    }

    fn wait(&self, partition: Partition, vouch: Vouch<()>) -> Option<Seen<()>> {
        self.streams.wait(partition, vouch)
    }

    fn carry(&self, partition: Partition, output: Output<Served>) {
        match output {
            Output::Send(to, incarnation, message) => {
                if matches!(message.body, Body::Fence { .. }) {
                    // It goes to several, and again to who has not answered.
                    let fenced = &self.fenced[usize::from(partition.number())];
                    let is_first = fenced.fetch_max(message.term, Relaxed) < message.term;
                    self.fences.fetch_add(is_first.into(), Relaxed);
                }
                if let Body::Part { states, end, .. } = &message.body {
                    let bytes = states
                        .iter()
                        .map(|(key, record)| record.as_ref().map_or(key.len(), Served::bytes));
                    self.pace.sent(partition, to, bytes.sum(), end.is_some());
                }
                let said = self.held.pass(partition, (to, incarnation, message));
                if let Some((to, incarnation, message)) = said {
                    let context = traced(partition, &message);
                    self.streams
                        .put(partition, (to, incarnation), message, context);
                }
            }
            Output::Answer(id, answer) => self.inboxes.put(id, Verdict::of(&answer)),
            Output::Opened(term) => {
                let at = usize::from(partition.number());
                let mut report = self.report.lock();
                let is_first = report.opened[at] != term;
                self.openings.fetch_add(is_first.into(), Relaxed);
                report.opened[at] = term;
                report.aligned[at] = report.aligned[at].max(term);
                drop(report);
                self.reported.notify_one();
            }
            Output::Rested(term) => {
                self.report.lock().rested[usize::from(partition.number())] = term;
                self.reported.notify_one();
            }
            Output::Aligned(term) => {
                self.report.lock().aligned[usize::from(partition.number())] = term;
                self.reported.notify_one();
            }
            Output::Vouch(_) => unreachable!("it is waited for"),
            Output::Queued { to, has_begun } => self.pace.wait(partition, to, has_begun),
            Output::Lost(loss) => self.losses.add(partition, &loss),
            Output::Unsettled(losses) => self.losses.note_unsettled(partition, &losses),
        }
    }
}

/// In which trace an entry was stamped, if it is one and this thread has stamped it for a trace just now. All that a machine says while a
/// request runs in it is of that request.
fn traced(partition: Partition, message: &MessageOf<Served>) -> Option<Context> {
    let Body::Append { entry, .. } = &message.body else {
        return None;
    };
    let scope = traces::present()?;
    traces::note_call(partition, Some(entry.version));
    Some(scope.context().encode())
}

/// The log has come further: replicas of the thread's shards have waited for that.
pub(crate) fn rounds_are_done(local: &Local, index: usize) {
    let shared = &local.shared;
    if !shared.is_replicated() {
        return;
    }
    let (cache, now_ms) = (&shared.cache, shared.clock.now_ms());
    for shard in (index..cache.shard_count()).step_by(shared.threads) {
        cache.keep_replicas(shard, now_ms);
    }
    local.gate.ask_for_replicas();
}

/// Reads of this thread for which too few have vouched go back to their machines.
fn ask_machines(local: &Local) {
    let (cache, clock) = (&local.shared.cache, &local.shared.clock);
    for (partition, seen) in told::take_unvouched() {
        cache.unvouched(partition, seen, clock.now_ms());
    }
}

/// Copies go on whose turn it is: of one part after the other, and all else that a thread has to do goes between them.
async fn copy(replicas: &Replicas, shared: &Shared) {
    loop {
        let settings = Arc::clone(&shared.cluster.view.load().settings);
        let rate = settings.move_rate(&shared.live.load());
        match replicas.pace.next(Instant::now(), rate) {
            Turn::Of(partition, to) => {
                let now_ms = shared.clock.now_ms();
                shared.cache.take_turn(partition, to, now_ms);
                tokio::task::yield_now().await;
            }
            // The rate may be another one before that is over.
            Turn::In(wait) => {
                let _ = tokio::time::timeout(wait.min(TICK), replicas.pace.some_wait()).await;
            }
            Turn::Nobodys => replicas.pace.some_wait().await,
        }
    }
}

/// A data thread's part: its streams, its shards' sense of time, and those of its connections that wait. The tasks end when they
/// are aborted.
pub(crate) fn serve(
    replicas: &Arc<Replicas>,
    local: &Rc<Local>,
    index: usize,
) -> Vec<JoinHandle<()>> {
    told::begin_thread(index);
    let threads = local.shared.threads;
    let (own, inboxes) = (Rc::clone(local), Arc::clone(&replicas.inboxes));
    let delivers = tokio::task::spawn_local(std::future::poll_fn(move |cx| {
        inboxes.deliver(index, cx.waker());
        ask_machines(&own);
        std::task::Poll::<()>::Pending
    }));
    let own = Rc::clone(local);
    let speaks = tokio::task::spawn_local(async move {
        let mut changes = own.shared.cluster.changes();
        let mut speakers = Speakers::new(index, threads);
        loop {
            speakers.renew(&own);
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
    let (own, all) = (Rc::clone(local), Arc::clone(replicas));
    let copies = tokio::task::spawn_local(async move { copy(&all, &own.shared).await });
    let (own, replicas) = (Rc::clone(local), Arc::clone(replicas));
    let ticks = tokio::task::spawn_local(async move {
        // A node by itself has nothing that time passes for.
        let mut changes = own.shared.cluster.changes();
        while !own.shared.is_replicated() {
            if changes.changed().await.is_err() {
                return;
            }
        }
        own.gate.begin_to_hear();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0.. {
            ticks.tick().await;
            let (cache, now_ms) = (&own.shared.cache, own.shared.clock.now_ms());
            for shard in (index..cache.shard_count()).step_by(threads) {
                cache.tick_replicas(shard, number, now_ms);
            }
            for (partition, id) in told::expired() {
                cache.expire(partition, id, now_ms);
            }
            ask_machines(&own);
            if index == 0 {
                let is_copying = |partition, to| cache.is_copying(partition, to);
                replicas.pace.tick(Instant::now(), is_copying);
            }
            own.gate.ask_for_replicas();
            if index == 0 {
                let log = own.shared.persistence.log.as_ref();
                let asks = replicas.held.set(log.is_some_and(|log| log.is_filling()));
                for (partition, (to, incarnation, message)) in asks {
                    replicas
                        .streams
                        .put(partition, (to, incarnation), message, None);
                }
                replicas.streams.wake_all();
                replicas.streams.give_up(&replicas.inboxes, now_ms);
            }
        }
    });
    vec![delivers, speaks, copies, ticks]
}
