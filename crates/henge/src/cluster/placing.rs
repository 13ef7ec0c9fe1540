//! How much each member holds, is to hold, and how far moves are: for people, and for whoever waits until a node can be ended.

use std::collections::BTreeMap;

use henge_cluster::ring::NodeId;
use henge_cluster::topology::Topology;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Placing {
    members: BTreeMap<NodeId, Holding>,
    pub(crate) moves: Moves,
}

/// What a member has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holding {
    pub(crate) weight: u32,
    /// Partitions of which it is a replica.
    pub(crate) partitions: usize,
    /// It is to hold nothing any more.
    pub(crate) is_leaving: bool,
    /// And nothing is, or is about to be, on it.
    pub(crate) is_drained: bool,
}

/// Partitions that change their places, or are to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Moves {
    /// It is still to be reckoned which.
    pub(crate) are_due: bool,
    /// Of the present plan, those that are done among them.
    pub(crate) total: usize,
    pub(crate) moving: usize,
    /// Those that another is to lead, once who leads them has answered what it was asked; beside those that move.
    pub(crate) to_hand_over: usize,
    waiting: usize,
}

impl Moves {
    pub(crate) fn done(&self) -> usize {
        self.total.saturating_sub(self.left())
    }

    /// Partitions that are not where they should be yet.
    pub(crate) fn left(&self) -> usize {
        self.moving + self.waiting
    }
}

impl Placing {
    pub(crate) fn of(topology: &Topology) -> Self {
        let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
        for partition in topology.partitions() {
            for node in &topology.placement(partition).old {
                *held.entry(*node).or_default() += 1;
            }
        }
        let members = topology.nodes().iter().map(|(&id, node)| {
            let holding = Holding {
                weight: node.weight,
                partitions: held.get(&id).copied().unwrap_or(0),
                is_leaving: node.is_leaving,
                is_drained: node.is_leaving && !topology.names(id),
            };
            (id, holding)
        });
        let moves = topology.moves();
        Self {
            members: members.collect(),
            moves: Moves {
                are_due: moves.are_due(),
                total: moves.total(),
                moving: topology.moving(),
                to_hand_over: topology.heirs().len(),
                waiting: moves.planned().len(),
            },
        }
    }

    pub(crate) fn member(&self, id: NodeId) -> Option<&Holding> {
        self.members.get(&id)
    }
}
