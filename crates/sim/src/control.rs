//! A small stand-in for who proposes changes of the topology: it hears reports of nodes, late or not at all, and concludes from
//! them what is to be proposed. What is proposed is decided elsewhere, and later.

use henge_cluster::ring::NodeId;
use henge_cluster::testing::random::Random;
use henge_cluster::topology::{Command, Epoch, Incarnation, State, Topology};
use henge_wire::Partition;
use std::collections::{BTreeMap, BTreeSet};

/// What a node says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The node.
    pub node: NodeId,
    /// Its start.
    pub incarnation: Incarnation,
    /// It may lack what it has promised.
    pub has_lost_memory: bool,
    /// How far it knows the topology.
    pub epoch: Epoch,
    /// By partitions, the newest term in which it is aligned; 0 for none.
    pub aligned: Vec<Epoch>,
    /// By partitions, the newest term that it has opened; 0 for none.
    pub opened: Vec<Epoch>,
    /// By partitions, the newest term in which it has come to rest; 0 for none.
    pub rested: Vec<Epoch>,
}

/// See the head of the file.
pub struct Control {
    random: Random,
    suspicion_ms: u64,
    /// The newest report of each node, and when it came.
    heard: BTreeMap<NodeId, (u64, Report)>,
    /// Who was removed: a name is given once.
    gone: BTreeSet<NodeId>,
    /// The members of the ring that was reckoned last.
    ring: Vec<NodeId>,
    /// Whoever is named here is taken for dead, by the number of the fault.
    pub suspected: Vec<(usize, NodeId)>,
    /// Faults in which what is proposed is wrong.
    pub wrong: u32,
    /// An operator is there, who resets what has no majority of voters.
    pub has_operator: bool,
}

impl Control {
    /// One that has heard of nobody.
    pub fn new(random: Random, suspicion_ms: u64) -> Self {
        Self {
            random,
            suspicion_ms,
            heard: BTreeMap::new(),
            gone: BTreeSet::new(),
            ring: Vec::new(),
            suspected: Vec::new(),
            wrong: 0,
            has_operator: false,
        }
    }

    /// A report has come.
    pub fn hear(&mut self, now_ms: u64, report: Report) {
        let known = self.heard.get(&report.node);
        if self.gone.contains(&report.node) {
            return;
        }
        if known.is_none_or(|(_, known)| known.incarnation <= report.incarnation) {
            self.heard.insert(report.node, (now_ms, report));
        }
    }

    /// A node was removed.
    pub fn forget(&mut self, node: NodeId) {
        self.gone.insert(node);
        self.heard.remove(&node);
    }

    /// What is to be proposed now.
    pub fn propose(&mut self, now_ms: u64, topology: &Topology) -> Vec<Command> {
        let mut commands = Vec::new();
        for (_, report) in self.heard.values() {
            let known = topology.nodes().get(&report.node);
            if known.is_none_or(|known| known.incarnation < report.incarnation) {
                commands.push(Command::Register {
                    node: report.node,
                    incarnation: report.incarnation,
                    has_lost_memory: report.has_lost_memory,
                    weight: 1,
                    zone: None,
                });
            }
        }
        self.judge_nodes(now_ms, topology, &mut commands);
        self.judge_partitions(topology, &mut commands);
        let members = topology.nodes().iter().filter(|(_, node)| !node.is_leaving);
        let members: Vec<NodeId> = members.map(|(&id, _)| id).collect();
        if members != self.ring && !members.is_empty() {
            self.ring = members;
            // An operator may have all begin at once.
            if !topology.is_placed() || self.random.one_in(4) {
                commands.push(Command::Rebalance);
            }
        }
        if topology.moves().are_due() {
            commands.push(Command::Plan);
        }
        if self.wrong > 0 && self.random.one_in(2) {
            commands.push(self.wrong_proposal(topology));
        }
        commands
    }

    fn judge_nodes(&self, now_ms: u64, topology: &Topology, commands: &mut Vec<Command>) {
        for (&id, node) in topology.nodes() {
            let heard = self.heard.get(&id);
            let heard = heard.filter(|(_, report)| report.incarnation == node.incarnation);
            let is_heard = heard.is_some_and(|(at, _)| now_ms < at + self.suspicion_ms);
            let is_suspected = self.suspected.iter().any(|&(_, suspect)| suspect == id);
            let Some((_, report)) = heard.filter(|_| is_heard && !is_suspected) else {
                if node.state != State::Down {
                    commands.push(Command::Down(id, node.incarnation));
                }
                continue;
            };
            if node.state == State::Down {
                commands.push(Command::Back(id, node.incarnation));
            }
            let aligned = |partition: Partition| report.aligned[usize::from(partition.number())];
            commands.extend(topology.judged(id, aligned));
            if node.is_leaving && !topology.names(id) {
                commands.push(Command::Remove(id));
            }
        }
    }

    fn judge_partitions(&mut self, topology: &Topology, commands: &mut Vec<Command>) {
        let (mut ready, mut opened, mut done, mut lost) = (vec![], vec![], vec![], vec![]);
        let (mut given_up, mut led) = (vec![], vec![]);
        let planned: Vec<Partition> = topology.moves().planned().keys().copied().collect();
        let begun = planned
            .into_iter()
            .filter(|&partition| topology.placement(partition).change.is_none())
            .filter(|_| self.random.one_in(2));
        let begun: Vec<Partition> = begun.collect();
        if !begun.is_empty() {
            commands.push(Command::Begin(begun));
        }
        for partition in topology.partitions() {
            let placement = topology.placement(partition);
            let place = usize::from(partition.number());
            let report = |node: NodeId| {
                let (_, report) = self.heard.get(&node)?;
                let incarnation = topology.nodes().get(&node)?.incarnation;
                (report.incarnation == incarnation).then_some(report)
            };
            // He takes his time, unless all else is well.
            let resets = self.has_operator || self.random.one_in(60);
            if resets && !placement.old.is_empty() && !placement.is_quorum(|_| true) {
                lost.push(partition);
            }
            let leader = placement.leader.map(|(node, _)| node);
            // So that nobody who waits is told that it is not known; whoever is gone does not say so.
            let is_at_rest = leader
                .and_then(report)
                .is_some_and(|report| report.rested[place] == placement.term);
            let Some(change) = &placement.change else {
                if placement.heir.is_some() && (is_at_rest || self.random.one_in(5)) {
                    led.push((partition, placement.term));
                }
                continue;
            };
            if !self.has_operator && self.random.one_in(50) {
                given_up.push(partition);
            }
            let is_aligned =
                |node| report(node).is_some_and(|report| report.aligned[place] == placement.term);
            if !change.is_joint {
                // It is for speed only, so it may be too soon.
                if placement.learners().all(is_aligned) || self.random.one_in(40) {
                    ready.push(partition);
                }
            } else if change.has_opened {
                if placement.heir.is_none() || is_at_rest || self.random.one_in(5) {
                    done.push(partition);
                }
            } else if let Some(report) = leader.and_then(report)
                && report.opened[place] > 0
            {
                opened.push((partition, report.opened[place]));
            }
        }
        if !ready.is_empty() {
            commands.push(Command::Join(ready));
        }
        commands.extend(
            opened
                .into_iter()
                .map(|opened| Command::Opened(vec![opened])),
        );
        if !done.is_empty() {
            commands.push(Command::Finish(done));
        }
        if !led.is_empty() {
            commands.push(Command::Lead(led));
        }
        if !given_up.is_empty() {
            commands.push(Command::Undo(given_up));
        }
        if !lost.is_empty() {
            commands.push(Command::Reset(lost));
        }
    }

    /// One that nothing speaks for. It may be one that changes nothing.
    fn wrong_proposal(&mut self, topology: &Topology) -> Command {
        let nodes: Vec<_> = topology.nodes().iter().collect();
        let partitions: Vec<Partition> = topology.partitions().collect();
        let partition = *self.random.of(&partitions);
        if nodes.is_empty() {
            return Command::Rebalance;
        }
        let &(&node, known) = self.random.of(&nodes);
        let incarnation = known.incarnation;
        match self.random.below(10) {
            9 => Command::Lead(vec![(partition, topology.placement(partition).term)]),
            0 => Command::Finish(vec![partition]),
            1 => Command::Join(vec![partition]),
            2 => Command::Up(node, incarnation),
            3 => Command::Down(node, incarnation),
            4 => Command::Up(node, incarnation.saturating_sub(1)),
            5 => Command::Undo(vec![partition]),
            6 => Command::Plan,
            7 => Command::Stay(node),
            _ => Command::Rebalance,
        }
    }
}
