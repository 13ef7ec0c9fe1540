//! What all nodes agree on, as a machine: commands in the order in which consensus gives them, and from them the members, who
//! leads each partition, in which term and generation, and how a change of replicas stands. Whoever applies the same commands
//! has the same topology. It does not decide when a node is Down or a change begins; who proposes commands does.
//!
//! ```text
//!          Register                  Up                    Down
//!   (new) ─────────▶ Aligning ──────────────▶ Up ──────────────────▶ Down
//!                       ▲  └──── Down ─────────│────────────────────▶ │
//!                       │                       │                       │
//!                       └── Register of the next incarnation ──┴─ Back ─┘
//!
//!   a partition:  Stable ── Begin ──▶ Sync ── Join ──▶ Joint ── Finish, once its leader is open ──▶ Stable
//!                    ▲                 └──── Undo ───────┤
//!                    └───────────────────────────────────┘
//!   its leader:   leads ── one before it in the list is Up ──▶ is to rest, and has an heir ── Lead, or Finish ──▶ the heir leads
//! ```

mod moves;
mod placement;

use crate::ring::{Assignment, Member, NodeId};
use henge_wire::{PARTITIONS, Partition, Version};
pub use moves::Moves;
pub use placement::{Change, Placement};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The number of a state of the topology: it grows by one with each command that changes something.
pub type Epoch = u32;
/// The number of a start of a process, among all starts of its node.
pub type Incarnation = u64;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Topology {
    epoch: Epoch,
    /// How many replicas a partition should have.
    replication: usize,
    on_quorum_loss: OnQuorumLoss,
    nodes: BTreeMap<NodeId, Node>,
    /// The newest starts of those that were removed: somebody may not have heard of that yet, and take a later node of the same name for
    /// them.
    removed: BTreeMap<NodeId, Incarnation>,
    /// Changes of replicas that are still to be begun with.
    #[serde(default, skip_serializing_if = "Moves::are_none")]
    moves: Moves,
    /// Most commands leave most of them as they were: those are shared by all states that have them.
    #[serde(deserialize_with = "as_many_as_can_be")]
    partitions: Vec<Arc<Placement>>,
}

/// What becomes of a partition of whose replicas no majority remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OnQuorumLoss {
    /// It is reset: all that it held is forgotten, and nothing is a lie.
    Forget,
    /// Nothing, until an operator says what.
    Keep,
}

/// A node, as the others know it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its present start.
    pub incarnation: Incarnation,
    /// Whether it can be reached, and has what the others have.
    pub state: State,
    /// In which epoch it was registered without its memory; 0 if it has all that it ever promised.
    pub amnesia: Epoch,
    /// It is to hold nothing any more.
    pub is_leaving: bool,
    /// How much it should hold beside others.
    pub weight: u32,
    /// What fails together with others of the same number.
    pub zone: Option<u32>,
    /// It was Down for so long that others hold what it should, until it comes back.
    #[serde(default, skip_serializing_if = "is_not")]
    pub is_replaced: bool,
    /// An operator has said that it never comes back, and nor do its data. It leaves, and nothing is heard of it any more.
    #[serde(default, skip_serializing_if = "is_not")]
    pub is_lost: bool,
}

impl Node {
    /// Whether the ring is to give it something to hold.
    pub fn stays(&self) -> bool {
        !self.is_leaving && !self.is_replaced
    }
}

/// What is written down only where it is so: texts of before it was known have no word of it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_not(so: &bool) -> bool {
    !so
}

/// See the head of the file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum State {
    /// It runs, and is not known to be aligned with the leaders yet. It votes, and becomes a leader only where nobody else can be one.
    Aligning,
    /// It runs and is aligned.
    Up,
    /// It cannot be reached. It is in its lists still, and counts in their sizes.
    Down,
}

/// What consensus orders.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Command {
    /// A process has started.
    Register {
        /// The node.
        node: NodeId,
        /// Above that of all starts before, those of a node of this name that was removed as well.
        incarnation: Incarnation,
        /// It may lack what it has promised, or is older than what is known of it.
        has_lost_memory: bool,
        /// How much it should hold, if it is new; else it keeps its weight.
        weight: u32,
        /// What it fails together with.
        zone: Option<u32>,
    },
    /// A node is aligned with the present leaders of all its partitions.
    Up(NodeId, Incarnation),
    /// A node cannot be reached.
    Down(NodeId, Incarnation),
    /// A node that was Down can be reached.
    Back(NodeId, Incarnation),
    /// A node without memory has said in this start that it is aligned in the present term of each of its partitions: it was
    /// counted in no quorum of those terms, and what was committed in earlier ones is in their bases.
    Remembers(NodeId, Incarnation),
    /// A node is to hold nothing any more.
    Leave(NodeId),
    /// A node that holds nothing is forgotten, but for the number of its start.
    Remove(NodeId),
    /// The ring is reckoned anew; all partitions that should be elsewhere begin to copy at once. It is for those that are nowhere yet.
    Rebalance,
    /// Partitions whose new replicas have copied enough have both quorums from now on.
    Join(Vec<Partition>),
    /// Leaders have opened these terms of joint changes.
    Opened(Vec<(Partition, Epoch)>),
    /// Joint changes whose leaders have opened end.
    Finish(Vec<Partition>),
    /// Partitions that another is to lead, as it has come since, are led by that from now on: so their leaders have come to rest, in
    /// these terms.
    Lead(Vec<(Partition, Epoch)>),
    /// Data of partitions is forgotten.
    Reset(Vec<Partition>),
    /// The ring is reckoned anew; partitions that should be elsewhere wait for [`Command::Begin`].
    Plan,
    /// Partitions that wait for it begin to copy.
    Begin(Vec<Partition>),
    /// Changes that are under way are given up, joint ones as well: the replicas are those of before, and the change waits again.
    Undo(Vec<Partition>),
    /// A node that was to leave stays.
    Stay(NodeId),
    /// A node was Down for too long, in this start: others are to hold what it does.
    Replace(NodeId, Incarnation),
    /// A node that is Down never comes back, and what it held is lost, by an operator's word. Partitions of which others have too
    /// little to go on with are forgotten.
    Lose(NodeId),
    /// How much a node should hold beside others, 1 to [`MAX_WEIGHT`](crate::ring::MAX_WEIGHT).
    Weigh(NodeId, u32),
}

/// Why a command changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Rejected {
    /// There is no such node.
    UnknownNode(NodeId),
    /// There is no such partition in this cluster.
    UnknownPartition(Partition),
    /// It is of another start than the present one, or of no later one.
    Incarnation(NodeId),
    /// A node that holds replicas, or a partition that is not as the command takes it to be.
    Premature,
    /// It is so already.
    Unchanged,
    /// There are no epochs left.
    Exhausted,
    /// Nobody else would hold anything.
    Last(NodeId),
    /// A node that can be reached.
    Reachable(NodeId),
    /// A node that was said to be lost.
    Lost(NodeId),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownNode(node) => write!(f, "there is no node {node}"),
            Self::UnknownPartition(partition) => {
                write!(f, "there is no partition {}", partition.number())
            }
            Self::Incarnation(node) => write!(f, "node {node} has been started anew since"),
            Self::Premature => f.write_str("what it needs has not happened yet"),
            Self::Unchanged => f.write_str("it is so already"),
            Self::Exhausted => f.write_str("the topology has had all its epochs"),
            Self::Last(node) => write!(f, "node {node} is the last one that stays"),
            Self::Reachable(node) => write!(f, "node {node} can be reached"),
            Self::Lost(node) => write!(f, "node {node} was said to be lost for good"),
        }
    }
}

impl std::error::Error for Rejected {}

impl Topology {
    /// Without nodes, of the default number of partitions.
    pub fn new(replication: usize, on_quorum_loss: OnQuorumLoss) -> Self {
        Self::with_partitions(PARTITIONS, replication, on_quorum_loss)
    }

    /// Without nodes, of a number of partitions that stays for ever.
    ///
    /// # Panics
    /// If they are none, or more than a [`Partition`] can name.
    pub fn with_partitions(
        partitions: u16,
        replication: usize,
        on_quorum_loss: OnQuorumLoss,
    ) -> Self {
        assert!(
            (1..=PARTITIONS).contains(&partitions),
            "a cluster has 1 to {PARTITIONS} partitions"
        );
        Self {
            epoch: 0,
            replication,
            on_quorum_loss,
            nodes: BTreeMap::new(),
            removed: BTreeMap::new(),
            moves: Moves::default(),
            partitions: vec![Arc::default(); usize::from(partitions)],
        }
    }

    /// The number of this state.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many replicas a partition should have, where there are as many nodes.
    pub fn replication(&self) -> usize {
        self.replication
    }

    /// The members.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// The newest start of a node, removed or not, above which its next one has to be; 0 if there was none.
    pub fn newest_start(&self, node: NodeId) -> Incarnation {
        let known = self.nodes.get(&node).map(|known| known.incarnation);
        let removed = self.removed.get(&node).copied();
        known.max(removed).unwrap_or(0)
    }

    /// Its partitions.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        let count = self.partitions.len();
        Partition::all().take(count)
    }

    /// What has to change of a node that runs, by the newest term in which each of its replicas is aligned (0 for none), as its present
    /// start says: it is Up once all are in the present ones, and remembers again once all were in one since it lost its memory.
    pub fn judged(&self, id: NodeId, aligned: impl Fn(Partition) -> Epoch) -> Vec<Command> {
        let Some(node) = self.nodes.get(&id) else {
            return Vec::new();
        };
        let are_all = |is: &dyn Fn(Epoch, Epoch) -> bool| {
            let all = self.partitions();
            let mut own = all.filter(|partition| self.placement(*partition).names(id));
            own.all(|partition| is(aligned(partition), self.placement(partition).term))
        };
        let mut changes = Vec::new();
        if node.state == State::Aligning && are_all(&|aligned, term| aligned == term) {
            changes.push(Command::Up(id, node.incarnation));
        }
        // One that voted nowhere before it was registered leaves the term as it was, and may be aligned in that.
        let is_whole = |aligned, term| aligned >= node.amnesia || aligned == term;
        if node.amnesia > 0 && are_all(&is_whole) {
            changes.push(Command::Remembers(id, node.incarnation));
        }
        changes
    }

    /// The partitions that another is to lead, and of whose replicas nothing changes, with their terms, for [`Command::Lead`].
    pub fn heirs(&self) -> Vec<(Partition, Epoch)> {
        let all = self.partitions();
        all.filter(|partition| self.placement(*partition).may_hand_over())
            .map(|partition| (partition, self.placement(partition).term))
            .collect()
    }

    /// Where a partition is. As long as nothing changes of it that is one allocation, in whatever state.
    ///
    /// # Panics
    /// If it is none of this topology's.
    pub fn placement(&self, partition: Partition) -> &Arc<Placement> {
        &self.partitions[usize::from(partition.number())]
    }

    /// Applies a command. If it is rejected nothing has changed.
    pub fn apply(&mut self, command: &Command) -> Result<Epoch, Rejected> {
        let epoch = self.epoch + 1;
        if epoch > Version::MAX_TERM {
            return Err(Rejected::Exhausted);
        }
        let mut next = self.clone();
        next.epoch = epoch;
        next.change(command)?;
        next.derive(self);
        next.count_moves();
        // What changes nothing must not use an epoch up.
        let is_same = next.nodes == self.nodes && next.partitions == self.partitions;
        if is_same && next.moves == self.moves {
            return Err(Rejected::Unchanged);
        }
        *self = next;
        Ok(epoch)
    }

    /// One node of all is left, by an operator's word: it holds every partition, and each of which others had a replica is of a new
    /// generation in which what was counts for nothing. The others are forgotten as by [`Command::Remove`], whatever they hold.
    pub(crate) fn recover(&mut self, survivor: NodeId) -> Result<Epoch, Rejected> {
        let epoch = self.epoch + 1;
        if epoch > Version::MAX_TERM {
            return Err(Rejected::Exhausted);
        }
        let known = self.nodes.get(&survivor).copied();
        let known = known.ok_or(Rejected::UnknownNode(survivor))?;
        let mut next = self.clone();
        next.epoch = epoch;
        for (node, gone) in std::mem::take(&mut next.nodes) {
            next.removed.insert(node, gone.incarnation);
        }
        next.removed.remove(&survivor);
        next.moves = Moves::default();
        next.nodes.insert(
            survivor,
            Node {
                is_leaving: false,
                is_replaced: false,
                is_lost: false,
                ..known
            },
        );
        for placement in next.partitions.iter_mut().map(Arc::make_mut) {
            // Of what nobody else ever had a part of it has all.
            let is_only = placement.old == [survivor] && placement.change.is_none();
            placement.old = vec![survivor];
            placement.change = None;
            if !is_only {
                placement.reset(epoch);
            }
        }
        next.derive(self);
        *self = next;
        Ok(epoch)
    }

    fn change(&mut self, command: &Command) -> Result<(), Rejected> {
        match command {
            &Command::Register {
                node,
                incarnation,
                has_lost_memory,
                weight,
                zone,
            } => {
                let known = self.nodes.get(&node).copied();
                if known.is_some_and(|known| known.is_lost) {
                    return Err(Rejected::Lost(node));
                }
                if incarnation <= self.newest_start(node) {
                    return Err(Rejected::Incarnation(node));
                }
                self.removed.remove(&node);
                let forgot = if has_lost_memory { self.epoch } else { 0 };
                let amnesia = known.map_or(0, |known| known.amnesia).max(forgot);
                let is_leaving = known.is_some_and(|known| known.is_leaving);
                let registered = Node {
                    incarnation,
                    state: State::Aligning,
                    amnesia,
                    is_leaving,
                    // It may be another than it began with, by an operator's word.
                    weight: known.map_or(weight, |known| known.weight),
                    zone,
                    is_replaced: false,
                    is_lost: false,
                };
                self.nodes.insert(node, registered);
                if known.is_none_or(|known| known.is_replaced) {
                    self.note_due();
                }
            }
            &Command::Up(node, incarnation) => self.node(node, incarnation)?.state = State::Up,
            &Command::Down(node, incarnation) => self.node(node, incarnation)?.state = State::Down,
            &Command::Back(node, incarnation) => {
                let node = self.node(node, incarnation)?;
                if node.state != State::Down {
                    return Err(Rejected::Unchanged);
                }
                node.state = State::Aligning;
                if std::mem::take(&mut node.is_replaced) {
                    self.note_due();
                }
            }
            &Command::Remembers(node, incarnation) => self.node(node, incarnation)?.amnesia = 0,
            &Command::Leave(node) => self.leave(node)?,
            &Command::Stay(node) => self.stay(node)?,
            &Command::Replace(node, incarnation) => self.replace(node, incarnation)?,
            &Command::Lose(node) => self.lose(node)?,
            &Command::Weigh(node, weight) => self.weigh(node, weight)?,
            Command::Plan => self.plan()?,
            Command::Begin(partitions) => self.begin(partitions)?,
            Command::Undo(partitions) => self.undo(partitions)?,
            Command::Remove(node) => {
                if self.names(*node) {
                    return Err(Rejected::Premature);
                }
                let known = self
                    .nodes
                    .remove(node)
                    .ok_or(Rejected::UnknownNode(*node))?;
                self.removed.insert(*node, known.incarnation);
            }
            Command::Rebalance => self.rebalance()?,
            Command::Join(partitions) => {
                let nodes = self.nodes.clone();
                self.each(partitions, |placement, epoch| placement.join(epoch, &nodes))?;
            }
            Command::Opened(opened) => {
                for &(partition, term) in opened {
                    self.each(&[partition], |placement, _| placement.opened(term))?;
                }
            }
            Command::Finish(partitions) => {
                self.each(partitions, |placement, _| placement.finish())?;
            }
            Command::Lead(led) => {
                for &(partition, term) in led {
                    self.each(&[partition], |placement, _| placement.hand_over(term))?;
                }
            }
            Command::Reset(partitions) => self.each(partitions, |placement, epoch| {
                placement.reset(epoch);
                Ok(())
            })?,
        }
        Ok(())
    }

    /// A node, if a command is of its present start.
    fn node(&mut self, node: NodeId, incarnation: Incarnation) -> Result<&mut Node, Rejected> {
        let known = self
            .nodes
            .get_mut(&node)
            .ok_or(Rejected::UnknownNode(node))?;
        if known.is_lost {
            Err(Rejected::Lost(node))
        } else if known.incarnation == incarnation {
            Ok(known)
        } else {
            Err(Rejected::Incarnation(node))
        }
    }

    fn each(
        &mut self,
        partitions: &[Partition],
        change: impl Fn(&mut Placement, Epoch) -> Result<(), Rejected>,
    ) -> Result<(), Rejected> {
        let epoch = self.epoch;
        partitions
            .iter()
            .try_for_each(|partition| change(self.placement_mut(*partition)?, epoch))
    }

    /// A partition that is about to change.
    fn placement_mut(&mut self, partition: Partition) -> Result<&mut Placement, Rejected> {
        let placement = self.partitions.get_mut(usize::from(partition.number()));
        let placement = placement.ok_or(Rejected::UnknownPartition(partition))?;
        Ok(Arc::make_mut(placement))
    }

    /// Reckons the ring, and begins with what is to change. What is under way goes on as it was begun.
    fn rebalance(&mut self) -> Result<(), Rejected> {
        let next = self.reckoned()?;
        let epoch = self.epoch;
        for (partition, placement) in Partition::all().zip(&mut self.partitions) {
            Arc::make_mut(placement).begin(next.replicas(partition), epoch);
        }
        self.moves = Moves::default();
        Ok(())
    }

    /// Where all partitions should be, from where they are, or are about to be.
    fn reckoned(&self) -> Result<Assignment, Rejected> {
        let count = u16::try_from(self.partitions.len()).expect("as many as a u16 can count");
        let mut present = Assignment::of(count);
        for partition in self.partitions() {
            present.set(partition, self.placement(partition).goal().to_vec());
        }
        let members = self.nodes.iter().filter(|(_, node)| node.stays());
        let members: Vec<Member> = members
            .map(|(&id, node)| Member {
                id,
                weight: node.weight,
                zone: node.zone,
            })
            .collect();
        if members.is_empty() {
            // The last one cannot leave.
            return Err(Rejected::Premature);
        }
        Ok(present.next(&members, self.replication))
    }

    /// What follows from the rest: who leads, what is reset, and in which term that is.
    fn derive(&mut self, before: &Self) {
        let (epoch, policy) = (self.epoch, self.on_quorum_loss);
        let are_same_nodes = self.nodes == before.nodes;
        let all = Partition::all().zip(&mut self.partitions);
        for ((partition, placement), before) in all.zip(&before.partitions) {
            // What it follows from is as it was, and so it is itself.
            if are_same_nodes && Arc::ptr_eq(placement, before) {
                continue;
            }
            let mut next = Placement::clone(placement);
            if let Some(new) = next.go_back(&self.nodes) {
                self.moves.wait(partition, new);
            }
            next.derive(before, epoch, policy, &self.nodes);
            if next == **before {
                *placement = Arc::clone(before);
            } else if next != **placement {
                *placement = Arc::new(next);
            }
        }
    }
}

/// No place of a partition is read that this program could not have made.
fn as_many_as_can_be<'de, D>(from: D) -> Result<Vec<Arc<Placement>>, D::Error>
where
    D: Deserializer<'de>,
{
    let partitions: Vec<Arc<Placement>> = Vec::deserialize(from)?;
    let can_be = 1..=usize::from(PARTITIONS);
    if can_be.contains(&partitions.len()) {
        return Ok(partitions);
    }
    let text = format!("a topology of {} partitions", partitions.len());
    Err(serde::de::Error::custom(text))
}

#[cfg(test)]
mod tests;
