//! Moves of partitions between nodes: what has to change of where replicas are, as members have come, go, or weigh otherwise. The
//! ring is reckoned in one command, which plans all that follows from it; then partitions are begun with, some at a time, and each
//! has one change at a time. All of it is in the topology, so that whoever proposes has nothing to remember. When a step is due, and how
//! many partitions move at once, is for who proposes.
//!
//! ```text
//!   a new node, Leave, Stay,               ┌─────────────────── Undo ────────────────────┐
//!   Weigh, Replace, Lose                   ▼                                             │
//!   ───────────────────▶ due ── Plan ──▶ planned ── Begin ──▶ Sync ── Join ──▶ Joint ────┤
//!                                                      └──▶ another order ──────┐        │ Opened
//!                                                                               ▼        ▼
//!                                                               its leader rests, if another is to lead ── Finish ──▶
//! ```
//!
//! Where another is to lead and nothing moves, as a node has come back, its leader rests as well, and `Lead` is the end of that.

use super::{Incarnation, Node, Rejected, State, Topology};
use crate::ring::NodeId;
use henge_wire::Partition;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Moves {
    /// The ring is to be reckoned anew.
    is_due: bool,
    /// Where partitions are to be that are not, and are not on their way there.
    planned: BTreeMap<Partition, Vec<NodeId>>,
    /// How many were to move when that was planned, those under way among them.
    total: usize,
}

impl Moves {
    pub(super) fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the ring is to be reckoned anew, by [`Command::Plan`](super::Command::Plan).
    pub fn are_due(&self) -> bool {
        self.is_due
    }

    /// Where partitions are to be that nobody has begun with.
    pub fn planned(&self) -> &BTreeMap<Partition, Vec<NodeId>> {
        &self.planned
    }

    /// How many partitions were to move when that was planned; 0 once all have.
    pub fn total(&self) -> usize {
        self.total
    }

    /// A change was given up, and waits again, unless there is a newer plan.
    pub(super) fn wait(&mut self, partition: Partition, new: Vec<NodeId>) {
        self.planned.entry(partition).or_insert(new);
    }
}

impl Topology {
    /// Changes of replicas that wait to be begun with.
    pub fn moves(&self) -> &Moves {
        &self.moves
    }

    /// How many partitions are on their way.
    pub fn moving(&self) -> usize {
        let moving = self.partitions.iter();
        moving
            .filter(|placement| placement.change.is_some())
            .count()
    }

    /// Whether any partition has its place.
    pub fn is_placed(&self) -> bool {
        self.partitions
            .iter()
            .any(|placement| !placement.old.is_empty())
    }

    /// Whether a node is, or is to be, a replica of anything.
    pub fn names(&self, node: NodeId) -> bool {
        let planned = self.moves.planned.values();
        self.partitions
            .iter()
            .any(|placement| placement.names(node))
            || planned.flatten().any(|&named| named == node)
    }

    /// The ring does not fit any more. Where nothing is placed yet there is nothing to move.
    pub(super) fn note_due(&mut self) {
        self.moves.is_due = self.is_placed();
    }

    /// Keeps the count of a plan until all of it is done.
    pub(super) fn count_moves(&mut self) {
        if self.moves.planned.is_empty() && self.moving() == 0 {
            self.moves.total = 0;
        }
    }

    pub(super) fn plan(&mut self) -> Result<(), Rejected> {
        let next = self.reckoned()?;
        let epoch = self.epoch;
        let mut planned = BTreeMap::new();
        for (partition, placement) in Partition::all().zip(&mut self.partitions) {
            if let Some(new) = Arc::make_mut(placement).replan(next.replicas(partition), epoch) {
                planned.insert(partition, new);
            }
        }
        // Of a partition that is joint for something else both are to come.
        let joint = self.partitions().filter(|partition| {
            self.placement(*partition).change.is_some() && !planned.contains_key(partition)
        });
        self.moves.total = planned.len() + joint.count();
        self.moves.planned = planned;
        self.moves.is_due = false;
        Ok(())
    }

    pub(super) fn begin(&mut self, partitions: &[Partition]) -> Result<(), Rejected> {
        let epoch = self.epoch;
        for partition in partitions {
            let new = self.moves.planned.remove(partition);
            let placement = self.placement_mut(*partition)?;
            placement.begin_planned(new.ok_or(Rejected::Premature)?, epoch)?;
        }
        Ok(())
    }

    pub(super) fn undo(&mut self, partitions: &[Partition]) -> Result<(), Rejected> {
        for partition in partitions {
            let placement = self.partitions.get_mut(usize::from(partition.number()));
            let placement = placement.ok_or(Rejected::UnknownPartition(*partition))?;
            let new = Arc::make_mut(placement).undo(&self.nodes)?;
            self.moves.wait(*partition, new);
        }
        Ok(())
    }

    pub(super) fn leave(&mut self, node: NodeId) -> Result<(), Rejected> {
        let is_last = self.is_last(node);
        let known = self.known(node)?;
        if known.is_leaving {
            return Err(Rejected::Unchanged);
        }
        if is_last {
            return Err(Rejected::Last(node));
        }
        known.is_leaving = true;
        self.note_due();
        Ok(())
    }

    pub(super) fn stay(&mut self, node: NodeId) -> Result<(), Rejected> {
        let known = self.known(node)?;
        if known.is_lost {
            return Err(Rejected::Lost(node));
        }
        if !std::mem::take(&mut known.is_leaving) {
            return Err(Rejected::Unchanged);
        }
        self.note_due();
        Ok(())
    }

    pub(super) fn replace(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), Rejected> {
        // With fewer than a partition should have replicas there is nobody to take its place, and what it has is best kept for it.
        let others = self.stay_beside(node);
        let replication = self.replication;
        let known = self.node(node, incarnation)?;
        if known.state != State::Down {
            return Err(Rejected::Reachable(node));
        }
        if !known.stays() {
            return Err(Rejected::Unchanged);
        }
        if others < replication {
            return Err(Rejected::Premature);
        }
        known.is_replaced = true;
        self.note_due();
        Ok(())
    }

    pub(super) fn lose(&mut self, node: NodeId) -> Result<(), Rejected> {
        let (epoch, is_last) = (self.epoch, self.is_last(node));
        let known = self.known(node)?;
        if known.is_lost {
            return Err(Rejected::Unchanged);
        }
        if known.state != State::Down {
            return Err(Rejected::Reachable(node));
        }
        if is_last {
            return Err(Rejected::Last(node));
        }
        *known = Node {
            is_leaving: true,
            is_lost: true,
            is_replaced: false,
            amnesia: epoch,
            ..*known
        };
        let instead = self.reckoned()?;
        for (partition, placement) in Partition::all().zip(&mut self.partitions) {
            Arc::make_mut(placement).lose(instead.replicas(partition), epoch, &self.nodes);
        }
        self.note_due();
        Ok(())
    }

    pub(super) fn weigh(&mut self, node: NodeId, weight: u32) -> Result<(), Rejected> {
        let known = self.known(node)?;
        if known.weight == weight {
            return Err(Rejected::Unchanged);
        }
        known.weight = weight;
        if known.stays() {
            self.note_due();
        }
        Ok(())
    }

    fn known(&mut self, node: NodeId) -> Result<&mut Node, Rejected> {
        self.nodes.get_mut(&node).ok_or(Rejected::UnknownNode(node))
    }

    /// How many others hold something, or are to.
    fn stay_beside(&self, node: NodeId) -> usize {
        let others = self.nodes.iter().filter(|(other, _)| **other != node);
        others.filter(|(_, other)| other.stays()).count()
    }

    fn is_last(&self, node: NodeId) -> bool {
        self.stay_beside(node) == 0
    }
}

#[cfg(test)]
mod tests;
