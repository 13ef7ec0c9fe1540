//! A stand-in for the control leader, as far as it goes by gossip: it believes one member that runs, and proposes what follows
//! from that for the topology, which is one list of commands here. Nobody holds data, so whoever is there is aligned.

use henge_cluster::gossip::{Gossip, Health, Peer};
use henge_cluster::ring::NodeId;
use henge_cluster::topology::{Command, OnQuorumLoss, State, Topology};
use std::collections::BTreeMap;

/// Replicas of each partition.
const REPLICATION: usize = 3;

/// See the head of the file.
pub struct Control {
    topology: Topology,
    /// The numbers of the members in the ring, by their instances.
    numbers: BTreeMap<u64, NodeId>,
}

impl Control {
    /// One that knows of nobody.
    pub fn new() -> Self {
        Self {
            topology: Topology::new(REPLICATION, OnQuorumLoss::Keep),
            numbers: BTreeMap::new(),
        }
    }

    /// What all agree on.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The state of a member, if it is in the topology.
    pub fn state(&self, instance: u64) -> Option<State> {
        let number = self.numbers.get(&instance)?;
        let node = self.topology.nodes().get(number)?;
        Some(node.state)
    }

    /// All partitions are placed among those that are members now.
    ///
    /// # Panics
    /// If there are none.
    pub fn place(&mut self) {
        let placed = self.topology.apply(&Command::Rebalance);
        placed.expect("there are members, and nothing was placed before");
    }

    /// Goes by what a member knows, itself included.
    pub fn hear(&mut self, me: &Peer, gossip: &Gossip) {
        let others = gossip.members().map(|(peer, health, _)| (peer, health));
        for (peer, health) in others.chain([(me, Health::Alive)]) {
            let next = NodeId(self.numbers.len() as u64 + 1);
            let number = *self.numbers.entry(peer.instance).or_insert(next);
            let incarnation = peer.incarnation;
            let known = self.topology.nodes().get(&number);
            let state = known.map(|node| node.state);
            let is_newer = known.is_none_or(|node| node.incarnation < incarnation);
            let commands = match (health, state) {
                (Health::Down, Some(state)) if state != State::Down && !is_newer => {
                    vec![Command::Down(number, incarnation)]
                }
                (Health::Alive, _) if is_newer => vec![
                    Command::Register {
                        node: number,
                        incarnation,
                        has_lost_memory: false,
                        weight: 1,
                        zone: None,
                    },
                    Command::Up(number, incarnation),
                ],
                (Health::Alive, Some(State::Down)) => vec![
                    Command::Back(number, incarnation),
                    Command::Up(number, incarnation),
                ],
                _ => vec![],
            };
            for command in commands {
                // One about an earlier start is refused, as it is by the topology of a cluster.
                let _ = self.topology.apply(&command);
            }
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}
