//! How a start state comes about: by the same steps, one after the other and nothing lost, until it is as it is to be.

use super::agreed::{Agreed, Known, partition};
use super::configurations::Configuration;
use super::laws::Ghost;
use super::local::{Effects, Node};
use super::sealed::Sealed;
use super::steps::{Asks, Control, Protocol, request};
use super::table::Ledger;
use super::world::{Budget, Setting, World, id, node};
use henge_cluster::bugs::Bugs;
use henge_cluster::replica::{Body, Level};
use henge_cluster::ring::NodeId;
use henge_cluster::topology::{Command, OnQuorumLoss, Topology};
use std::collections::BTreeSet;
use std::sync::Arc;

/// See the head of the file.
pub struct Scene {
    setting: Setting,
    /// As it has come to be.
    pub world: World,
    /// Nodes that hear nothing, and whom nobody hears.
    away: Vec<NodeId>,
}

/// Replicas that a partition is to have.
const REPLICATION: usize = 3;

impl Scene {
    /// All nodes run, and the first replica leads the partition.
    fn new(nodes: u64) -> Self {
        let setting = Setting {
            bugs: Bugs::default(),
            repeats: false,
            keeps_at_once: true,
            reports: true,
            copies: u64::MAX,
            known: Known::default(),
            effects: Effects::new(true),
        };
        let ids: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let first = |&id: &NodeId| Sealed::new(node(&setting, id, 1, Ledger::default()));
        let topology = Topology::new(REPLICATION, OnQuorumLoss::Forget);
        let world = World {
            nodes: ids.iter().map(first).collect(),
            network: Vec::new(),
            agreed: Sealed::new(Agreed::new(topology)),
            reports: BTreeSet::new(),
            asked: Vec::new(),
            ghost: Sealed::new(Ghost::default()),
            budget: Budget::default(),
            broken: None,
        };
        let mut scene = Self {
            setting,
            world,
            away: Vec::new(),
        };
        for &id in &ids[..REPLICATION] {
            scene.world.register(&scene.setting, id, 1, false);
        }
        scene.command(&Command::Rebalance);
        scene.settle();
        // What comes later is in no list yet.
        for &id in &ids[REPLICATION..] {
            scene.world.register(&scene.setting, id, 1, false);
        }
        scene.settle();
        scene
    }

    fn command(&mut self, command: &Command) {
        assert!(
            self.world.command(&self.setting, command),
            "{command:?} is rejected"
        );
    }

    /// The replicas, the leader first.
    pub fn replicas(&self) -> Vec<NodeId> {
        self.world
            .agreed
            .topology()
            .placement(partition())
            .old
            .clone()
    }

    /// A replica, by its place in the list.
    pub fn replica(&self, place: usize) -> NodeId {
        self.replicas()[place]
    }

    /// These are away from now on, and no others.
    pub fn away(&mut self, nodes: &[NodeId]) {
        self.away = nodes.to_vec();
    }

    /// All hear of all, and all that is said arrives; but nothing from or to those that are away.
    pub fn settle(&mut self) {
        loop {
            let away = &self.away;
            let world = &mut self.world;
            let is_here = |id: NodeId| !away.contains(&id);
            world
                .network
                .retain(|flight| is_here(flight.from.0) && is_here(flight.to.0));
            world.reports.retain(|(of, _, _)| is_here(*of));
            let newest = world.agreed.epoch();
            let mut nodes = world.nodes.iter().enumerate();
            let late = nodes.find(|(place, node)| node.epoch < newest && is_here(id(*place)));
            if let Some((place, _)) = late {
                world.see(&self.setting, id(place), newest);
            } else if let Some(flight) = world.network.first().cloned() {
                world.deliver(&self.setting, flight);
            } else if let Some(&(of, start, report)) = world.reports.first() {
                world.hear(&self.setting, of, start, report);
            } else {
                break;
            }
            assert_eq!(self.world.broken, None);
        }
    }

    /// All that is on its way is lost.
    pub fn lose(&mut self) {
        self.world.network.clear();
        self.world.reports.clear();
    }

    /// The leader is asked, at QUORUM.
    pub fn ask(&mut self, asks: Asks, key: u8) {
        let leader = self.world.agreed.topology().placement(partition()).leader;
        let (leader, _) = leader.expect("there is one");
        let value = self.world.ghost.requests + 1;
        let request = request(asks, key, value);
        let takes = self
            .world
            .ask(&self.setting, leader, Level::Quorum, request);
        assert!(takes, "it leads");
    }

    /// The leader writes, these apply it, and nobody hears of that.
    pub fn write_unheard(&mut self, asks: Asks, key: u8, apply: &[NodeId]) {
        self.ask(asks, key);
        for flight in std::mem::take(&mut self.world.network) {
            let is_entry = matches!(flight.message.body, Body::Append { .. });
            if is_entry && apply.contains(&flight.to.0) {
                self.world.deliver(&self.setting, flight);
            }
        }
        self.lose();
    }

    /// The leader writes, and all that are not away have it.
    pub fn write(&mut self, asks: Asks, key: u8) {
        self.ask(asks, key);
        self.settle();
    }

    /// A node drops a record.
    pub fn evict(&mut self, at: NodeId, key: u8) {
        assert!(self.world.evict(&self.setting, at, key), "it may");
    }

    /// A node starts again, with all or nothing.
    pub fn restart(&mut self, of: NodeId, remembers: bool) {
        let survive = remembers.then_some(usize::MAX);
        self.world.restart(&self.setting, of, survive);
    }

    /// A node is taken for Down.
    pub fn down(&mut self, node: NodeId) {
        assert!(self.world.down(&self.setting, node));
    }

    /// A node is to leave, and another to take over.
    pub fn leave(&mut self, node: NodeId) {
        self.command(&Command::Leave(node));
        self.command(&Command::Rebalance);
    }

    /// A change goes on.
    pub fn control(&mut self, control: Control) {
        assert!(self.world.control(&self.setting, control));
    }
}

/// The model of a configuration.
pub fn protocol(configuration: &'static Configuration, bugs: Bugs) -> Protocol {
    let mut scene = Scene::new(configuration.nodes);
    (configuration.start)(&mut scene);
    let Scene {
        setting, mut world, ..
    } = scene;
    let setting = Setting {
        bugs,
        repeats: configuration.repeats,
        keeps_at_once: configuration.keeps_at_once,
        reports: configuration.reports,
        copies: configuration.copies,
        effects: Effects::new(configuration.keeps_at_once),
        ..setting
    };
    for node in &mut world.nodes {
        let mut with = Node::clone(node);
        with.replica = with.replica.with_bugs(bugs);
        with.table.map.bugs = bugs;
        *node = Sealed::new(with);
    }
    if !setting.reports {
        world.reports.clear();
    }
    world.budget = configuration.budget;
    Protocol {
        setting: Arc::new(setting),
        configuration,
        start: world,
    }
}
