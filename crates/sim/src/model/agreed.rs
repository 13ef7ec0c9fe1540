//! The topology in the model. A state of it is made once and shared by all states of the world that it is in, as the machine
//! behind it has all partitions of a cluster.

use super::sealed::{Sealed, digest};
use henge_cluster::replica::View;
use henge_cluster::topology::{Command, State, Topology};
use henge_wire::Partition;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, PoisonError};

/// The topology as it is, and all its states, as a node may see one late.
#[derive(Clone, PartialEq, Eq)]
pub struct Agreed {
    topology: Topology,
    views: Vec<Sealed<View>>,
}

impl Agreed {
    /// Nothing yet.
    pub fn new(topology: Topology) -> Self {
        let views = Vec::new();
        Self { topology, views }
    }

    /// As it is.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The newest epoch.
    pub fn epoch(&self) -> usize {
        self.views.len()
    }

    /// What it was in an epoch.
    pub fn view(&self, epoch: usize) -> &Sealed<View> {
        &self.views[epoch - 1]
    }

    /// With one more command; none if it was rejected.
    fn with(&self, command: &Command) -> Option<Self> {
        let mut next = self.clone();
        next.topology.apply(command).ok()?;
        let nodes = next.topology.nodes();
        let up = nodes.iter().filter(|(_, node)| node.state == State::Up);
        let view = View {
            placement: next.topology.placement(partition()).clone(),
            incarnations: nodes
                .iter()
                .map(|(&id, node)| (id, node.incarnation))
                .collect(),
            up: up.map(|(&id, _)| id).collect(),
        };
        next.views.push(Sealed::new(view));
        Some(next)
    }
}

impl Hash for Agreed {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.views.hash(hasher);
        self.topology.nodes().hash(hasher);
    }
}

impl fmt::Debug for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let placement = self.topology.placement(partition());
        write!(f, "epoch {}: {placement:?}", self.epoch())
    }
}

/// By the hashes of a state and a command, the next state; none where it was rejected.
type Next = BTreeMap<(u64, u64), Option<Sealed<Agreed>>>;

/// What commands have come to.
#[derive(Default)]
pub struct Known(Mutex<Next>);

impl Known {
    /// What a command makes of it; none if it is rejected.
    pub fn apply(&self, agreed: &Sealed<Agreed>, command: &Command) -> Option<Sealed<Agreed>> {
        let key = (agreed.digest(), digest(command));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = known
            .entry(key)
            .or_insert_with(|| agreed.with(command).map(Sealed::new));
        next.clone()
    }
}

/// That of which the model is.
pub fn partition() -> Partition {
    Partition::new(0).expect("it is one")
}
