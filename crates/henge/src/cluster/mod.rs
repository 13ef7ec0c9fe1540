//! A node's part in its cluster: who it is (`identity`), its connections to other nodes (`link`), what it knows of them (`view`,
//! `events`), and its data threads' way to the keys that others have (`routing`, `keys`). What all agree on, and how a cluster is formed,
//! is `henge-cluster`'s.

pub(crate) mod control;
pub(crate) mod events;
pub(crate) mod identity;
pub(crate) mod keys;
pub(crate) mod link;
pub(crate) mod losses;
pub(crate) mod peers;
pub(crate) mod placing;
pub(crate) mod raft;
pub(crate) mod replicas;
pub(crate) mod routing;
pub(crate) mod secret_file;
pub(crate) mod settings;
pub(crate) mod view;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use henge_cluster::agreed::Command;
use henge_cluster::forming::ClusterId;
use henge_cluster::ring::NodeId;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use self::control::{Changed, WISHES, Wish};
use self::events::Events;
use self::identity::Identity;
use self::losses::Of;
use self::peers::Handover;
use self::view::{Member, MemberState, View};
use crate::net::addresses::counted;

/// Connections on their way to the control runtime: each node has one or two.
const HANDOVERS: usize = 256;
/// Nodes whose ports were found closed: more at once say nothing new.
const REFUSALS: usize = 64;
/// How often it is told of one machine that it was refused: it tries again several times a second.
const TELL_AGAIN: Duration = Duration::from_mins(10);
/// Machines of which that is remembered. Of more at once nothing is told.
const TOLD_MAX: usize = 64;

/// How much a member has to do, as it says itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Load {
    pub(crate) operations_per_second: u64,
    pub(crate) memory_bytes: u64,
    /// Of requests and answers that are in memory.
    pub(crate) queue_bytes: u64,
}

/// What is refused of a machine, of which an operator is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Matter {
    Connection,
    Datagram,
    /// It speaks HTTP where the Redis protocol is spoken.
    Request,
    /// It has nodes of another cluster.
    Cluster,
}

/// What all threads of a node share of its cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) identity: Arc<Identity>,
    /// Shared by itself, so that a thread can keep the latest at hand.
    pub(crate) view: Arc<ArcSwap<View>>,
    pub(crate) events: Events,
    /// Partitions whose replicas have become others, as this node has seen.
    pub(crate) moved_partitions: AtomicU64,
    /// Datagrams that came and were not taken.
    pub(crate) dropped_datagrams: AtomicU64,
    /// The name of the control leader, if there is one.
    leader: ArcSwapOption<String>,
    /// Who was that last, and how often another became it.
    leaders: Mutex<(Option<Arc<String>>, u64)>,
    /// By the instances of members.
    loads: Mutex<HashMap<u64, Load>>,
    changed: watch::Sender<()>,
    /// Machines of which it was told that something of theirs was refused, and when.
    told: Mutex<BTreeMap<(Matter, String), Instant>>,
    refused: mpsc::Sender<u64>,
    handovers: mpsc::Sender<Handover>,
    wishes: mpsc::Sender<Wish>,
    inquiries: mpsc::Sender<Inquiry>,
}

/// Who asks what all members have found to be lost.
pub(crate) type Inquiry = oneshot::Sender<Vec<Of>>;

/// What the control runtime is told.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Instances of nodes whose ports were found closed.
    pub(crate) refused: mpsc::Receiver<u64>,
    pub(crate) handovers: mpsc::Receiver<Handover>,
    /// Changes that operators ask for.
    pub(crate) wishes: mpsc::Receiver<Wish>,
    pub(crate) inquiries: mpsc::Receiver<Inquiry>,
}

impl Cluster {
    pub(crate) fn new(identity: Identity, view: View) -> (Arc<Self>, Inbox) {
        let (refused, refusals) = mpsc::channel(REFUSALS);
        let (handovers, handed_over) = mpsc::channel(HANDOVERS);
        let (wishes, asked_for) = mpsc::channel(WISHES);
        let (inquiries, asked_of_all) = mpsc::channel(WISHES);
        let cluster = Self {
            identity: Arc::new(identity),
            view: Arc::new(ArcSwap::from_pointee(view)),
            events: Events::default(),
            moved_partitions: AtomicU64::new(0),
            dropped_datagrams: AtomicU64::new(0),
            leader: ArcSwapOption::empty(),
            leaders: Mutex::default(),
            loads: Mutex::default(),
            changed: watch::Sender::new(()),
            told: Mutex::default(),
            refused,
            handovers,
            wishes,
            inquiries,
        };
        let inbox = Inbox {
            refused: refusals,
            handovers: handed_over,
            wishes: asked_for,
            inquiries: asked_of_all,
        };
        (Arc::new(cluster), inbox)
    }

    /// All threads see this view from now on.
    pub(crate) fn show(&self, view: View) {
        let is_member = |instance| view.members.iter().any(|one| one.instance == instance);
        self.loads.lock().retain(|&instance, _| is_member(instance));
        self.view.store(Arc::new(view));
        self.changed.send_replace(());
    }

    /// The members of a view; a node that nobody has taken in yet is its own.
    pub(crate) fn members(&self, view: &View) -> Vec<Arc<Member>> {
        if view.members.is_empty() {
            vec![self.own_member()]
        } else {
            view.members.clone()
        }
    }

    /// This node, as a member of a cluster that is not formed yet.
    pub(crate) fn own_member(&self) -> Arc<Member> {
        Arc::new(Member {
            id: NodeId(0),
            name: self.identity.name.clone(),
            instance: self.identity.instance,
            incarnation: self.identity.incarnation(),
            address: self.identity.address_or_loopback(),
            state: MemberState::Up,
            is_silent: false,
            has_left: false,
            is_me: true,
        })
    }

    /// The name of the control leader, if there is one.
    pub(crate) fn leader(&self) -> Option<Arc<String>> {
        self.leader.load_full()
    }

    /// Another member leads, or none.
    pub(crate) fn set_leader(&self, name: Option<String>) {
        let name = name.map(Arc::new);
        if name.is_some() {
            let (last, changes) = &mut *self.leaders.lock();
            if *last != name {
                last.clone_from(&name);
                *changes += 1;
            }
        }
        self.leader.store(name);
    }

    /// How often another member became the control leader, as this node has seen.
    pub(crate) fn leader_changes(&self) -> u64 {
        self.leaders.lock().1
    }

    /// The load of a member, if it was heard of.
    pub(crate) fn load(&self, instance: u64) -> Option<Load> {
        self.loads.lock().get(&instance).copied()
    }

    /// A member was heard of. Who is none of the present view is left out.
    pub(crate) fn set_load(&self, instance: u64, load: Load) {
        let view = self.view.load();
        if view.members.iter().any(|one| one.instance == instance) {
            self.loads.lock().insert(instance, load);
        }
    }

    /// Tells of changes of the view.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether an operator is to be told that a node of this machine was refused, and has not been lately.
    pub(crate) fn is_to_be_told(&self, machine: IpAddr) -> bool {
        self.is_news(Matter::Connection, &counted(machine).to_string())
    }

    /// The same of one that speaks HTTP where the Redis protocol is spoken.
    pub(crate) fn is_request_to_be_told(&self, machine: IpAddr) -> bool {
        self.is_news(Matter::Request, &counted(machine).to_string())
    }

    /// Whether something was not told of a machine lately. Each matter has its own bound: datagrams may say anything of where
    /// they are from.
    fn is_news(&self, matter: Matter, machine: &str) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock();
        told.retain(|_, at| now.duration_since(*at) < TELL_AGAIN);
        let count = told.keys().filter(|(of, _)| *of == matter).count();
        let is_new = count < TOLD_MAX && !told.contains_key(&(matter, machine.to_owned()));
        if is_new {
            told.insert((matter, machine.to_owned()), now);
        }
        is_new
    }

    /// A node of another cluster was met, on whichever side of a connection.
    pub(crate) fn tell_of_another(
        &self,
        now_ms: u64,
        machine: &str,
        name: &str,
        theirs: ClusterId,
    ) {
        let Some(ours) = self.identity.cluster() else {
            return;
        };
        if !self.is_news(Matter::Cluster, machine) {
            return;
        }
        let (own, epoch) = (&self.identity.name, self.view.load().epoch);
        let text = format!(
            "{name} at {machine} is in the cluster {theirs}, and {own} in {ours}: the two refuse each other. If they should be one, stop {name} and start it with an empty directory and --peers of this cluster; if not, see which of the two has an address of the other's among its peers or members"
        );
        tracing::warn!(machine, name, %theirs, %ours, "a node of another cluster was met");
        self.events
            .add(now_ms, epoch, "another_cluster", None, text);
    }

    /// A datagram was dropped that who sends it has to be put right for.
    pub(crate) fn tell_of_datagrams(&self, now_ms: u64, machine: IpAddr, why: &str) {
        let Some(ours) = self.identity.cluster() else {
            return;
        };
        if !self.is_news(Matter::Datagram, &counted(machine).to_string()) {
            return;
        }
        let epoch = self.view.load().epoch;
        let text = format!(
            "datagrams from {machine} are dropped: {why}. This node is in the cluster {ours}; a node of another one, or with another cluster.secret_file, may have its address among its members"
        );
        tracing::warn!(%machine, why, %ours, "datagrams of another node are dropped");
        self.events
            .add(now_ms, epoch, "datagrams_dropped", None, text);
    }

    /// Has a change agreed on that an operator may ask for, by whichever node leads.
    pub(crate) async fn change(&self, command: Command) -> Changed {
        let (answer, answered) = oneshot::channel();
        if self.wishes.try_send(Wish { command, answer }).is_err() {
            let why =
                "this node takes no part in what the cluster agrees on, or too many changes wait";
            return Changed::NotNow(why.to_owned());
        }
        let ends = || Changed::Unknown("this node ends".to_owned());
        answered.await.unwrap_or_else(|_| ends())
    }

    /// What the other members have found to be lost, or why they do not say; none where this node cannot ask them.
    pub(crate) async fn others_losses(&self) -> Option<Vec<Of>> {
        let (answer, answered) = oneshot::channel();
        self.inquiries.try_send(answer).ok()?;
        answered.await.ok()
    }

    /// A node's port is closed: its process is gone, or about to come back.
    pub(crate) fn was_refused(&self, instance: u64) {
        // If as many wait it is looked at soon anyway.
        let _ = self.refused.try_send(instance);
    }
}
