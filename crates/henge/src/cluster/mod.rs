//! A node's part in its cluster: who it is (`identity`), its connections to other nodes (`link`), what it knows of them (`view`,
//! `events`), and its data threads' way to the keys that others have (`routing`, `keys`). What all agree on, and how a cluster is formed,
//! is `henge-cluster`'s.

// mod control;
pub(crate) mod events;
pub(crate) mod identity;
pub(crate) mod keys;
pub(crate) mod link;
pub(crate) mod peers;
pub(crate) mod raft;
pub(crate) mod routing;
pub(crate) mod view;

use std::sync::Arc;

use arc_swap::ArcSwap;
use henge_cluster::ring::NodeId;
use tokio::sync::{mpsc, watch};

use self::events::Events;
use self::identity::Identity;
use self::peers::Handover;
use self::view::{Member, MemberState, View};

/// Connections on their way to the control runtime: each node has one or two.
const HANDOVERS: usize = 256;
/// Nodes whose ports were found closed: more at once say nothing new.
const REFUSALS: usize = 64;

/// What all threads of a node share of its cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) identity: Arc<Identity>,
    /// Shared by itself, so that a thread can keep the latest at hand.
    pub(crate) view: Arc<ArcSwap<View>>,
    pub(crate) events: Events,
    changed: watch::Sender<()>,
    refused: mpsc::Sender<u64>,
    handovers: mpsc::Sender<Handover>,
}

/// What the control runtime is told.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Instances of nodes whose ports were found closed.
    pub(crate) refused: mpsc::Receiver<u64>,
    pub(crate) handovers: mpsc::Receiver<Handover>,
}

impl Cluster {
    pub(crate) fn new(identity: Identity, view: View) -> (Arc<Self>, Inbox) {
        let (refused, refusals) = mpsc::channel(REFUSALS);
        let (handovers, handed_over) = mpsc::channel(HANDOVERS);
        let cluster = Self {
            identity: Arc::new(identity),
            view: Arc::new(ArcSwap::from_pointee(view)),
            events: Events::default(),
            changed: watch::Sender::new(()),
            refused,
            handovers,
        };
        let inbox = Inbox {
            refused: refusals,
            handovers: handed_over,
        };
        (Arc::new(cluster), inbox)
    }

    /// All threads see this view from now on.
    pub(crate) fn show(&self, view: View) {
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
            is_me: true,
        })
    }

    /// Tells of changes of the view.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A node's port is closed: its process is gone, or about to come back.
    pub(crate) fn was_refused(&self, instance: u64) {
        // If as many wait it is looked at soon anyway.
        let _ = self.refused.try_send(instance);
    }
}
