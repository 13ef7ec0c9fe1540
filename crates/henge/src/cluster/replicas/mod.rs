//! The replicas of this node's partitions among those of other nodes: what they say goes to streams (`streams`), verdicts on
//! requests to the threads that wait for them (`told`), and what the topology has to know to whoever reports it. Views of the
//! topology come from the control part. What is decided is decided in the machines, which stand in the cache.

pub(crate) mod streams;
pub(crate) mod told;

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use henge_cluster::agreed::Agreed;
use henge_cluster::replica::{Level, Output, RequestId, View};
use henge_cluster::ring::NodeId;
use henge_cluster::store::Served;
use henge_cluster::topology::{Epoch, Incarnation, Placement, State};
use henge_wire::{PARTITIONS, Partition};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use self::streams::{Speakers, Streams, TICK};
use self::told::{Inboxes, Verdict};
use crate::cache::{Cache, Carry};
use crate::cluster::losses::Losses;
use crate::net::data_thread::Local;

/// By partitions, a term; 0 for none.
type Terms = Box<[Epoch]>;

/// What a node says of its replicas to the control leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    /// The newest term in which each is aligned.
    pub(crate) aligned: Terms,
    /// The newest term that each has opened.
    pub(crate) opened: Terms,
}

impl Default for Report {
    fn default() -> Self {
        let none = || vec![0; usize::from(PARTITIONS)].into_boxed_slice();
        Self {
            aligned: none(),
            opened: none(),
        }
    }
}

/// See the head of the file.
pub(crate) struct Replicas {
    pub(crate) inboxes: Arc<Inboxes>,
    pub(crate) streams: Streams,
    /// How often replicas here have adopted a term, in this start.
    pub(crate) adoptions: AtomicU64,
    report: Mutex<Report>,
    /// Is told whenever replicas elsewhere have said something.
    pub(crate) heard: Notify,
    /// Is told of another report.
    pub(crate) reported: Notify,
    losses: Arc<Losses>,
    /// What the topology said last of each partition.
    seen: Mutex<BTreeMap<Partition, Seen>>,
}

/// What a replica was told of the topology.
#[derive(PartialEq, Eq)]
struct Seen {
    placement: Placement,
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
            report: Mutex::default(),
            heard: Notify::new(),
            reported: Notify::new(),
            losses,
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

    /// Shows what is agreed on to the machines of the partitions that this node has, or had.
    pub(crate) fn see(&self, cache: &Cache, agreed: &Agreed, me: NodeId, now_ms: u64) {
        let topology = agreed.topology();
        let nodes = topology.nodes();
        let up: Vec<NodeId> = nodes
            .iter()
            .filter(|(_, node)| node.state == State::Up)
            .map(|(&id, _)| id)
            .collect();
        let mut seen = self.seen.lock();
        // A replica of an earlier life may be nobody's now.
        let is_first = seen.is_empty();
        for partition in topology.partitions() {
            let placement = topology.placement(partition);
            let is_mine = placement.names(me);
            if !is_mine && !is_first && !seen.contains_key(&partition) {
                continue;
            }
            let replicas = placement.old.iter().chain(placement.goal()).copied();
            let incarnations: BTreeMap<NodeId, Incarnation> = replicas
                .filter_map(|id| Some((id, nodes.get(&id)?.incarnation)))
                .collect();
            let now = Seen {
                placement: placement.clone(),
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
                placement: placement.clone(),
                incarnations,
                up: now.up.clone(),
            };
            if is_mine {
                seen.insert(partition, now);
            } else {
                seen.remove(&partition);
            }
            cache.look(partition, view, now_ms);
        }
    }
}

impl Carry for Replicas {
    fn begin(&self, partition: Partition, is_write: bool) -> (RequestId, Level) {
        told::begin_call(partition, is_write)
    }

    fn level(&self) -> Level {
        told::level()
    }

    fn adopted(&self) {
        self.adoptions.fetch_add(1, SeqCst);
    }

    fn carry(&self, partition: Partition, output: Output<Served>) {
        match output {
            Output::Send(to, incarnation, message) => {
                self.streams.put(partition, to, incarnation, message);
            }
            Output::Answer(id, answer) => self.inboxes.put(id, Verdict::of(&answer)),
            Output::Opened(term) => {
                let at = usize::from(partition.number());
                let mut report = self.report.lock();
                report.opened[at] = term;
                report.aligned[at] = report.aligned[at].max(term);
                drop(report);
                self.reported.notify_one();
            }
            Output::Aligned(term) => {
                self.report.lock().aligned[usize::from(partition.number())] = term;
                self.reported.notify_one();
            }
            Output::Lost(loss) => self.losses.add(partition, &loss),
            Output::Unsettled(losses) => self.losses.note_unsettled(partition, &losses),
        }
    }
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
        let _ = &own;
        inboxes.deliver(index, cx.waker());
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
    let (own, replicas) = (Rc::clone(local), Arc::clone(replicas));
    let ticks = tokio::task::spawn_local(async move {
        // A node by itself has nothing that time passes for.
        let mut changes = own.shared.cluster.changes();
        while !own.shared.is_replicated() {
            if changes.changed().await.is_err() {
                return;
            }
        }
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
            own.gate.ask_for_replicas();
            if index == 0 {
                replicas.streams.wake_all();
            }
        }
    });
    vec![delivers, speaks, ticks]
}
