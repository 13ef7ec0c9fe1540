//! One partition as the topology has it: its replicas, who leads them in which term, its generation, and a change of the
//! replicas that is under way.

use super::{Epoch, Incarnation, Node, OnQuorumLoss, Rejected, State};
use crate::ring::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Placement {
    /// The epoch of the last change to the leader, to who counts, or to the generation.
    pub term: Epoch,
    /// The epoch in which its data began.
    pub generation: Epoch,
    /// Who leads, in which start; none where no replica can.
    pub leader: Option<(NodeId, Incarnation)>,
    /// The epoch in which it became that: all terms since were its own.
    pub leads_since: Epoch,
    /// Who may keep its table though the generation is new: it led before, without a break, in this start.
    pub seed: Option<(NodeId, Incarnation)>,
    /// The newest generation that began with nothing, whoever might have kept it.
    pub forgotten: Epoch,
    /// The replicas.
    pub old: Vec<NodeId>,
    /// The change that is under way.
    pub change: Option<Change>,
    /// Of those that count, who is a voter.
    pub voters: Vec<NodeId>,
    /// Who is to lead in place of who does, now or once the change that is under way ends, where that could end now: until then the leader
    /// takes nothing more in, so that nobody's request is cut off by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heir: Option<NodeId>,
}

/// A change of the replicas.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Change {
    /// The replicas that are to be.
    pub new: Vec<NodeId>,
    /// Quorums of both lists are needed; else the new ones copy only.
    pub is_joint: bool,
    /// A leader has opened a term of this joint change.
    pub has_opened: bool,
    /// The epoch in which it became joint, or in which the new ones began to copy; 0 of one that was not planned.
    pub since: Epoch,
}

impl Placement {
    /// The second list that a quorum is of; none outside of a joint change.
    pub fn new_list(&self) -> Option<&[NodeId]> {
        let joint = self.change.as_ref().filter(|change| change.is_joint);
        joint.map(|change| &change.new[..])
    }

    /// Who copies, and counts nowhere yet.
    pub fn learners(&self) -> impl Iterator<Item = NodeId> {
        let change = self.change.as_ref().filter(|change| !change.is_joint);
        let new = change.into_iter().flat_map(|change| &change.new);
        new.copied().filter(|node| !self.old.contains(node))
    }

    /// Whether these, the voters among them, are a quorum.
    pub fn is_quorum(&self, has: impl Fn(NodeId) -> bool) -> bool {
        let is_majority = |list: &[NodeId]| {
            let votes = |node: &&NodeId| self.voters.contains(node) && has(**node);
            2 * list.iter().filter(votes).count() > list.len()
        };
        is_majority(&self.old) && self.new_list().is_none_or(is_majority)
    }

    /// Where its replicas are to be when all is done.
    pub fn goal(&self) -> &[NodeId] {
        self.change.as_ref().map_or(&self.old, |change| &change.new)
    }

    /// Whether a node is, or is to be, one of its replicas.
    pub fn names(&self, node: NodeId) -> bool {
        self.old.contains(&node) || self.goal().contains(&node)
    }

    /// Begins with a change, unless one is under way that counts already.
    pub(super) fn begin(&mut self, new: &[NodeId], epoch: Epoch) {
        if self.change.as_ref().is_some_and(|change| change.is_joint) || self.goal() == new {
            return;
        }
        if self.old.is_empty() {
            // It is formed: there is nothing to copy.
            self.old = new.to_vec();
            self.generation = epoch;
            return;
        }
        if same_nodes(&self.old, new) {
            // Only another order, in which nobody has to copy.
            self.old = new.to_vec();
            self.change = None;
            return;
        }
        self.change = Some(Change {
            new: new.to_vec(),
            is_joint: false,
            has_opened: false,
            since: 0,
        });
    }

    /// Another plan: what is joint goes on, and all else is given up for it. Gives where it should be, where it is not, and is not
    /// on its way there.
    pub(super) fn replan(&mut self, new: &[NodeId], epoch: Epoch) -> Option<Vec<NodeId>> {
        if self.old.is_empty() {
            self.begin(new, epoch);
        }
        if self.goal() == new {
            return None;
        }
        if self.new_list().is_none() {
            self.change = None;
        }
        (self.goal() != new).then(|| new.to_vec())
    }

    /// Begins with a change that was planned. One of the order alone needs nobody to copy, and may end at once.
    pub(super) fn begin_planned(&mut self, new: Vec<NodeId>, epoch: Epoch) -> Result<(), Rejected> {
        if self.change.is_some() {
            return Err(Rejected::Premature);
        }
        if self.old != new {
            self.change = Some(Change {
                new,
                is_joint: false,
                has_opened: false,
                since: epoch,
            });
        }
        Ok(())
    }

    /// Gives a change up, and says where it led to. A joint one as well: whatever was committed in it, or before, a majority of the
    /// list of before has, and any quorum of that from now on shares a node with it. But not where no majority of that list
    /// remembers: it would be reset.
    pub(super) fn undo(&mut self, nodes: &BTreeMap<NodeId, Node>) -> Result<Vec<NodeId>, Rejected> {
        self.count(nodes);
        if self.new_list().is_some() && !self.remembers(&self.old) {
            return Err(Rejected::Premature);
        }
        let change = self.change.take().ok_or(Rejected::Premature)?;
        Ok(change.new)
    }

    /// Gives a joint change up of whose new replicas no majority remembers, where those of before have all: else it would be reset.
    pub(super) fn go_back(&mut self, nodes: &BTreeMap<NodeId, Node>) -> Option<Vec<NodeId>> {
        self.new_list()?;
        self.count(nodes);
        if self.remembers(self.new_list()?) {
            return None;
        }
        self.undo(nodes).ok()
    }

    /// Whether a majority of a list votes.
    fn remembers(&self, list: &[NodeId]) -> bool {
        let votes = list.iter().filter(|node| self.voters.contains(node));
        2 * votes.count() > list.len()
    }

    /// Somebody was lost for good. Where the others are enough for a quorum they go on, as if it were Down. Else they are all that there
    /// is from now on, and what they had counts for nothing, but for what the leader has if it is one of them; `instead` are in their
    /// place where there are none.
    pub(super) fn lose(
        &mut self,
        instead: &[NodeId],
        epoch: Epoch,
        nodes: &BTreeMap<NodeId, Node>,
    ) {
        self.go_back(nodes);
        self.count(nodes);
        if self.old.is_empty() || self.is_quorum(|_| true) {
            return;
        }
        self.change = None;
        let is_lost = |node: &NodeId| nodes.get(node).is_none_or(|node| node.is_lost);
        self.old.retain(|node| !is_lost(node));
        if self.old.is_empty() {
            self.old = instead.to_vec();
        }
        self.begin_anew(epoch, nodes);
    }

    /// Whether the change that is under way may end: its joint term is open, or nobody has to copy anything.
    pub fn may_finish(&self) -> bool {
        self.change.as_ref().is_some_and(|change| {
            let is_order = !change.is_joint && same_nodes(&self.old, &change.new);
            is_order || change.is_joint && change.has_opened
        })
    }

    /// Both lists count from now on.
    pub(super) fn join(
        &mut self,
        epoch: Epoch,
        nodes: &BTreeMap<NodeId, Node>,
    ) -> Result<(), Rejected> {
        let generation = self.generation;
        let remembers = |node: &&NodeId| {
            let known = nodes.get(node);
            known.is_some_and(|known| known.amnesia <= generation)
        };
        let change = self.change.as_mut().filter(|change| !change.is_joint);
        let change = change.ok_or(Rejected::Premature)?;
        // Without a majority that counts it would be reset.
        if 2 * change.new.iter().filter(remembers).count() <= change.new.len() {
            return Err(Rejected::Premature);
        }
        change.is_joint = true;
        change.since = epoch;
        Ok(())
    }

    /// Its leader has opened its present term.
    pub(super) fn opened(&mut self, term: Epoch) -> Result<(), Rejected> {
        let joint = self.change.as_mut().filter(|change| change.is_joint);
        let joint = joint.filter(|change| term >= change.since && term == self.term);
        joint.ok_or(Rejected::Premature)?.has_opened = true;
        Ok(())
    }

    /// The new list is the list.
    pub(super) fn finish(&mut self) -> Result<(), Rejected> {
        if !self.may_finish() {
            return Err(Rejected::Premature);
        }
        let change = self.change.take().ok_or(Rejected::Premature)?;
        self.old = change.new;
        self.leader = None;
        Ok(())
    }

    /// Who is to lead does so from now on, as who led has come to rest in this term.
    pub(super) fn hand_over(&mut self, term: Epoch) -> Result<(), Rejected> {
        if !self.may_hand_over() || term != self.term {
            return Err(Rejected::Premature);
        }
        self.leader = None;
        Ok(())
    }

    /// Whether another is to lead, and nothing of the replicas changes.
    pub fn may_hand_over(&self) -> bool {
        self.heir.is_some() && self.change.is_none()
    }

    /// What it held counts for nothing.
    pub(super) fn reset(&mut self, epoch: Epoch) {
        self.generation = epoch;
        self.forgotten = epoch;
        self.seed = None;
    }

    /// What follows from the lists and the nodes, and from what it was before the present command.
    pub(super) fn derive(
        &mut self,
        before: &Self,
        epoch: Epoch,
        policy: OnQuorumLoss,
        nodes: &BTreeMap<NodeId, Node>,
    ) {
        self.count(nodes);
        if policy == OnQuorumLoss::Forget && !self.old.is_empty() && !self.is_quorum(|_| true) {
            self.begin_anew(epoch, nodes);
            self.count(nodes);
        }
        let leader = self.goes_on(nodes).or_else(|| {
            let candidates = self.old.iter().chain(self.new_list().unwrap_or_default());
            self.first_of(candidates, nodes)
        });
        // Who has the only replica is nobody's to follow, and is waited for.
        let only = self.old.first().filter(|_| self.old.len() == 1);
        let only = only.filter(|only| self.change.is_none() && self.voters.contains(only));
        let leader = leader.or_else(|| only.copied());
        self.leader = leader.and_then(|node| Some((node, nodes.get(&node)?.incarnation)));
        if self.leader != before.leader {
            self.leads_since = epoch;
        }
        if self.what_a_term_is_of() != before.what_a_term_is_of() {
            self.term = epoch;
            // What was open then says nothing of who counts now.
            if let Some(change) = &mut self.change {
                change.has_opened = false;
            }
        }
        let heir = self.first_of(self.goal(), nodes);
        // Who is not aligned yet is no reason for anybody to rest, unless it leads anyway once the change ends.
        let is_up = |heir: &NodeId| nodes.get(heir).is_some_and(|heir| heir.state == State::Up);
        let heir = match self.change {
            None => heir.filter(is_up),
            Some(_) => heir.filter(|_| self.may_finish()),
        };
        let leads = self.leader.map(|(node, _)| node);
        self.heir = heir.filter(|heir| Some(*heir) != leads);
    }

    /// Who leads goes on with that while it can, whoever comes: else what was asked of it is cut off, though nobody has failed.
    fn goes_on(&self, nodes: &BTreeMap<NodeId, Node>) -> Option<NodeId> {
        let (leader, incarnation) = self.leader?;
        let known = nodes.get(&leader)?;
        let is_there = known.incarnation == incarnation && known.state != State::Down;
        let in_new = || self.new_list().is_some_and(|new| new.contains(&leader));
        let counts = self.voters.contains(&leader) && (self.old.contains(&leader) || in_new());
        (is_there && counts).then_some(leader)
    }

    /// Who of these leads, where nobody does.
    fn first_of<'a>(
        &self,
        candidates: impl IntoIterator<Item = &'a NodeId>,
        nodes: &BTreeMap<NodeId, Node>,
    ) -> Option<NodeId> {
        let candidates: Vec<NodeId> = candidates.into_iter().copied().collect();
        let first = |state| {
            let can = |node: &&NodeId| {
                self.voters.contains(node) && nodes.get(node).is_some_and(|n| n.state == state)
            };
            candidates.iter().find(can).copied()
        };
        // Where nobody is aligned there is nobody to be aligned with.
        first(State::Up).or_else(|| first(State::Aligning))
    }

    /// A new generation, as no majority remembers the one of before. Who leads still has all of it, if it is in the start in which
    /// it led: whether it ever opened it knows itself.
    fn begin_anew(&mut self, epoch: Epoch, nodes: &BTreeMap<NodeId, Node>) {
        self.generation = epoch;
        self.seed = self.leader.filter(|(node, incarnation)| {
            let known = nodes.get(node);
            known.is_some_and(|n| n.incarnation == *incarnation && n.state == State::Up)
        });
    }

    /// What cannot change within a term.
    pub(super) fn what_a_term_is_of(&self) -> impl PartialEq + fmt::Debug + '_ {
        (self.leader, self.generation, &self.voters, self.lists())
    }

    fn lists(&self) -> (Vec<NodeId>, Option<Vec<NodeId>>) {
        let mut old = self.old.clone();
        // Their order says who leads, and nothing else.
        old.sort_unstable();
        let new = self.new_list().map(|new| {
            let mut new = new.to_vec();
            new.sort_unstable();
            new
        });
        (old, new)
    }

    /// Finds who votes: whose memory goes back to the begin of the generation.
    fn count(&mut self, nodes: &BTreeMap<NodeId, Node>) {
        let mut voters: Vec<NodeId> = self.old.clone();
        voters.extend(self.new_list().unwrap_or_default());
        voters.sort_unstable();
        voters.dedup();
        voters.retain(|node| {
            let known = nodes.get(node);
            known.is_some_and(|known| known.amnesia <= self.generation)
        });
        self.voters = voters;
    }
}

fn same_nodes(a: &[NodeId], b: &[NodeId]) -> bool {
    a.len() == b.len() && a.iter().all(|node| b.contains(node))
}
