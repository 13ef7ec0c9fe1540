//! The next assignment of partitions to nodes, from the present one and the members: a pure function, which every node that is
//! asked gives the same answer to. It says where replicas should be, and not how they get there, nor who is up.
//!
//! Consistent hashing (`circle`) gives each partition its order of preference among the nodes; how much each node should
//! hold (`shares`) and what it holds at present decide (`placement`, `leaders`):
//!
//! - no node holds more than a twentieth, or one replica, beside its share, nor more than a tenth above it;
//! - none leads more than a tenth above its share of the leaders;
//! - the replicas of a partition are on distinct nodes, and in distinct zones where there are enough;
//! - what is where it should be stays.

mod circle;
mod leaders;
mod placement;
mod shares;

use henge_wire::{PARTITIONS, Partition};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of a node among its cluster: given once, never to another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The largest weight of a node. The smallest is 1.
pub const MAX_WEIGHT: u32 = 1_000;

/// A node that may hold replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name.
    pub id: NodeId,
    /// How much it should hold beside others, 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// What fails together with other nodes of the same number: a rack, a data centre.
    pub zone: Option<u32>,
}

/// Where the replicas of each partition are, the leader first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment(Vec<Vec<NodeId>>);

impl Assignment {
    /// Before there is any, of a cluster of the default number of partitions.
    pub fn empty() -> Self {
        Self::of(PARTITIONS)
    }

    /// Before there is any, of a cluster of so many partitions.
    ///
    /// # Panics
    /// If they are none, or more than a [`Partition`] can name.
    pub fn of(partitions: u16) -> Self {
        assert!(
            (1..=PARTITIONS).contains(&partitions),
            "a cluster has 1 to {PARTITIONS} partitions"
        );
        Self(vec![Vec::new(); usize::from(partitions)])
    }

    /// The replicas of a partition, the leader first.
    pub fn replicas(&self, partition: Partition) -> &[NodeId] {
        &self.0[usize::from(partition.number())]
    }

    /// Sets them.
    pub fn set(&mut self, partition: Partition, replicas: Vec<NodeId>) {
        self.0[usize::from(partition.number())] = replicas;
    }

    /// The next assignment: of `replication` replicas each, or of as many as there are members. None for no members.
    ///
    /// # Panics
    /// If a member comes twice, or a weight is out of its range.
    #[must_use]
    pub fn next(&self, members: &[Member], replication: usize) -> Self {
        let mut members = members.to_vec();
        members.sort_by_key(|member| member.id);
        assert!(
            members.windows(2).all(|pair| pair[0].id != pair[1].id),
            "a member is one once"
        );
        assert!(
            members.iter().all(|m| (1..=MAX_WEIGHT).contains(&m.weight)),
            "a weight is 1 to {MAX_WEIGHT}"
        );
        let replicas = replication.min(members.len());
        if replicas == 0 {
            return Self(vec![Vec::new(); self.0.len()]);
        }
        let cluster = shares::Cluster::new(&members, replicas, self.0.len());
        let circle = circle::Circle::new(&members);
        let place = |id: &NodeId| members.binary_search_by_key(id, |member| member.id).ok();
        // Nodes by their places among the members.
        let present: Vec<Vec<usize>> = self
            .0
            .iter()
            .map(|replicas| replicas.iter().filter_map(place).collect())
            .collect();
        let mut lists = placement::place(&cluster, &circle, &present);
        leaders::choose(&cluster, &present, &mut lists);
        let name = |list: Vec<usize>| list.into_iter().map(|n| members[n].id).collect();
        Self(lists.into_iter().map(name).collect())
    }
}

#[cfg(test)]
mod tests;
