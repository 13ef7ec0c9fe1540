//! What the tests of this crate and those of `crates/sim` share, behind the feature `bugs`: the smallest table there is,
//! chance, and what a topology says of a partition. In no program that is shipped.

pub mod map;
pub mod random;

use crate::replica::View;
use crate::topology::{State, Topology};
use henge_wire::Partition;
use std::sync::Arc;

/// What a replica is to know of a state of the topology.
pub fn view_of(topology: &Topology, partition: Partition) -> View {
    let nodes = topology.nodes().iter();
    let up = nodes.clone().filter(|(_, node)| node.state == State::Up);
    View {
        placement: Arc::clone(topology.placement(partition)),
        incarnations: nodes.map(|(&id, node)| (id, node.incarnation)).collect(),
        up: up.map(|(&id, _)| id).collect(),
    }
}
