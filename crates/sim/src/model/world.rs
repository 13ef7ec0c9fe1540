//! A state of the model: nodes, what is on its way between them, the topology, clients, and what may still go wrong. Here is
//! what one step does to it; which steps there are, and which laws, stand beside.

use super::agreed::{Agreed, Known};
use super::laws::{Ghost, Law};
use super::local::{Cause, Effects, Flight, Leaving, Node};
use super::sealed::Sealed;
use super::table::Ledger;
use henge_cluster::bugs::Bugs;
use henge_cluster::replica::{Answer, Level, Replica, RequestId};
use henge_cluster::ring::NodeId;
use henge_cluster::testing::map::{Durable, Request};
use henge_cluster::topology::{Command, Epoch, Incarnation};
use henge_wire::Version;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

/// A request that is not answered yet.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Asked {
    /// Of whom.
    pub of: NodeId,
    /// What it was.
    pub request: Request,
    /// No answer may show anything older.
    pub floor: Version,
}

/// What a node reports to the topology.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Report {
    /// It is open in this term.
    Opened(Epoch),
    /// It is aligned in this term.
    Aligned(Epoch),
}

/// How often what may happen still.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Budget {
    /// Requests.
    pub requests: u8,
    /// Records that are dropped.
    pub evictions: u8,
    /// Starts with what was kept.
    pub crashes: u8,
    /// Starts with nothing.
    pub amnesias: u8,
    /// Nodes that are taken for Down.
    pub downs: u8,
    /// Reports that come to the topology, and steps of a change.
    pub commands: u8,
    /// Reminders.
    pub ticks: u8,
}

/// What is the same in all states.
pub struct Setting {
    /// What is broken.
    pub bugs: Bugs,
    /// A message that has come may come again.
    pub repeats: bool,
    /// What is written is kept at once.
    pub keeps_at_once: bool,
    /// Reports come to the topology.
    pub reports: bool,
    /// Copies that a node may ask for in its life.
    pub copies: u64,
    /// What commands have come to.
    pub known: Known,
    /// What has come of what comes to nodes.
    pub effects: Effects,
}

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct World {
    /// In the order of their ids, from 1 on.
    pub nodes: Vec<Sealed<Node>>,
    /// In the order of their hashes: the network keeps none.
    pub network: Vec<Sealed<Flight>>,
    /// What they agree on.
    pub agreed: Sealed<Agreed>,
    /// What nodes have to tell to the topology.
    pub reports: BTreeSet<(NodeId, Incarnation, Report)>,
    /// Requests under way.
    pub asked: Vec<(RequestId, Asked)>,
    /// What the laws need to know.
    pub ghost: Sealed<Ghost>,
    /// What may happen still.
    pub budget: Budget,
    /// A law that was broken by the step to here.
    pub broken: Option<Law>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.nodes.hash(hasher);
        self.network.hash(hasher);
        self.agreed.hash(hasher);
        self.reports.hash(hasher);
        self.asked.hash(hasher);
        self.ghost.hash(hasher);
        self.budget.hash(hasher);
        self.broken.hash(hasher);
    }
}

/// Where a node is in the list.
pub fn place(id: NodeId) -> usize {
    id.0 as usize - 1
}

/// The node at a place.
pub fn id(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

impl World {
    /// Something comes to a node. Gives whether anything is different then.
    fn give(&mut self, setting: &Setting, to: NodeId, cause: Cause) -> bool {
        let before = self.nodes[place(to)].clone();
        let effect = setting.effects.of(&before, cause);
        let is_same = effect.after.digest() == before.digest();
        if is_same && effect.outputs.is_empty() && effect.broken.is_none() {
            return false;
        }
        self.nodes[place(to)] = effect.after.clone();
        self.broken = self.broken.or(effect.broken);
        let mut ghost = Ghost::clone(&self.ghost);
        if !is_same {
            let broken = ghost.watch(&before, &effect.after, &self.nodes);
            self.broken = self.broken.or(broken);
        }
        for output in &effect.outputs {
            let broken = self.carry(setting, &mut ghost, &effect.after, output);
            self.broken = self.broken.or(broken);
        }
        if ghost != *self.ghost {
            self.ghost = Sealed::new(ghost);
        }
        true
    }

    /// Carries an output out.
    fn carry(
        &mut self,
        setting: &Setting,
        ghost: &mut Ghost,
        from: &Node,
        output: &Leaving,
    ) -> Option<Law> {
        match output {
            Leaving::Flight(flight) => {
                self.send(flight);
                ghost.hear(flight)
            }
            Leaving::Answer(request, answer) => {
                let mut asked = self.asked.iter();
                let Some(place) = asked.position(|(id, _)| id == request) else {
                    return Some(Law::Claim);
                };
                let (_, asked) = self.asked.remove(place);
                match answer {
                    Answer::Reply(shown) => ghost.answer(&asked, *shown),
                    Answer::NotStamped | Answer::NoRoom | Answer::Unknown => None,
                }
            }
            Leaving::Report(report) => {
                if let Report::Opened(term) = report {
                    ghost.opened.insert(*term);
                }
                if setting.reports {
                    self.reports.insert((from.id, from.incarnation, *report));
                }
                None
            }
        }
    }

    fn send(&mut self, flight: &Sealed<Flight>) {
        if self.nodes[place(flight.to.0)].incarnation != flight.to.1 {
            return;
        }
        let same = |other: &Sealed<Flight>| other.digest().cmp(&flight.digest());
        if let Err(free) = self.network.binary_search_by(same) {
            self.network.insert(free, flight.clone());
        }
    }

    /// A message comes.
    pub fn deliver(&mut self, setting: &Setting, flight: Sealed<Flight>) -> bool {
        if !setting.repeats {
            let digest = flight.digest();
            self.network.retain(|other| other.digest() != digest);
        }
        let has_changed = self.give(setting, flight.to.0, Cause::Message(flight));
        has_changed || !setting.repeats
    }

    /// A node hears of an epoch.
    pub fn see(&mut self, setting: &Setting, to: NodeId, epoch: usize) -> bool {
        let view = self.agreed.view(epoch).clone();
        self.give(setting, to, Cause::View(epoch, view))
    }

    /// All that a node has written is kept.
    pub fn keep(&mut self, setting: &Setting, to: NodeId) -> bool {
        self.give(setting, to, Cause::Keep)
    }

    /// Some time has passed for a node.
    pub fn tick(&mut self, setting: &Setting, to: NodeId) -> bool {
        self.give(setting, to, Cause::Tick)
    }

    /// A client asks. Gives whether anybody minds.
    pub fn ask(&mut self, setting: &Setting, of: NodeId, level: Level, request: Request) -> bool {
        let mut ghost = Ghost::clone(&self.ghost);
        ghost.requests += 1;
        let number = ghost.requests;
        let floor = ghost.floor(request.key());
        self.ghost = Sealed::new(ghost);
        let ghost = self.ghost.digest();
        let asked = Asked {
            of,
            request: request.clone(),
            floor,
        };
        let before = self.nodes[place(of)].digest();
        self.asked.push((number, asked));
        self.give(setting, of, Cause::Request(number, level, request));
        // Who does not lead says so, and that is all.
        let has_done = self.nodes[place(of)].digest() != before;
        has_done || self.ghost.digest() != ghost || self.broken.is_some()
    }

    /// A node drops a record.
    pub fn evict(&mut self, setting: &Setting, at: NodeId, key: u8) -> bool {
        let before = self.nodes[place(at)].clone();
        let mut node = Node::clone(&before);
        node.table.evict(key);
        if setting.keeps_at_once {
            node.table.keep();
        }
        let has_changed = node.table.map.now != before.table.map.now;
        self.nodes[place(at)] = Sealed::new(node);
        has_changed
    }

    /// A process ends, and the next one of the node begins, registers and hears of that; of what was written and is not known
    /// to be kept so much survives, or where that is none nothing at all.
    pub fn restart(&mut self, setting: &Setting, of: NodeId, survive: Option<usize>) {
        let before = self.nodes[place(of)].clone();
        let mut table = before.table.clone();
        match survive {
            Some(survive) => table.crash(survive),
            None => table = Ledger::default(),
        }
        let incarnation = before.incarnation + 1;
        let node = node(setting, of, incarnation, table);
        self.nodes[place(of)] = Sealed::new(node);
        // What is for the start that is over comes to nobody, and whoever asked it hears no more.
        self.network
            .retain(|flight| flight.to != (of, before.incarnation));
        self.asked.retain(|(_, asked)| asked.of != of);
        self.register(setting, of, incarnation, survive.is_none());
        self.see(setting, of, self.agreed.epoch());
    }

    /// A start becomes known.
    pub fn register(&mut self, setting: &Setting, node: NodeId, incarnation: u64, forgot: bool) {
        let register = Command::Register {
            node,
            incarnation,
            has_lost_memory: forgot,
            weight: 1,
            zone: None,
        };
        assert!(self.command(setting, &register), "it is a later start");
    }

    /// The topology takes a command. Gives whether it did.
    pub fn command(&mut self, setting: &Setting, command: &Command) -> bool {
        let next = setting.known.apply(&self.agreed, command);
        let has_changed = next.is_some();
        self.agreed = next.unwrap_or_else(|| self.agreed.clone());
        has_changed
    }
}

/// A start of a node.
pub fn node(setting: &Setting, id: NodeId, incarnation: Incarnation, mut table: Ledger) -> Node {
    table.map.bugs = setting.bugs;
    let Durable {
        progress, state, ..
    } = table.map.now.clone();
    let replica = Replica::new(id, incarnation, state, progress);
    Node {
        id,
        incarnation,
        replica: replica.with_bugs(setting.bugs).with_parts_of(1),
        table,
        view: None,
        epoch: 0,
    }
}
