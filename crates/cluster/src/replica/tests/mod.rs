//! Replicas of one partition over a network that loses, repeats and reorders, disks that lose what is not kept, and a topology
//! that changes, all from one seed; and what no answer may ever be.

mod copies;
mod lab;
mod map;
mod memory;
mod terms;
mod wild;

use super::*;
use crate::bugs::Bugs;
use crate::topology::{Command, OnQuorumLoss, Rejected, Topology};
use henge_wire::{Partition, Version};
use map::{Durable, Map, Request};

/// The generator `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

struct Node {
    incarnation: Incarnation,
    /// None while it does not run.
    replica: Option<Replica<Map>>,
    map: Map,
    /// The epoch that it knows.
    epoch: Epoch,
}

struct Flight {
    from: (NodeId, Incarnation),
    to: (NodeId, Incarnation),
    message: MessageOf<Map>,
}

/// A request that is under way.
struct Asked {
    key: Key,
    /// No answer may show anything older.
    floor: Version,
    is_read: bool,
}

struct World {
    random: Random,
    bugs: Bugs,
    topology: Topology,
    /// All its states, as a node may see one late.
    views: Vec<View>,
    nodes: BTreeMap<NodeId, Node>,
    network: Vec<Flight>,
    asked: BTreeMap<RequestId, Asked>,
    next_request: RequestId,
    next_value: u64,
    /// Of each key, the newest version that anybody was told of, or that was acknowledged.
    floors: BTreeMap<Key, Version>,
    /// What each version did.
    mutations: BTreeMap<(Epoch, Version), (Key, Option<u64>)>,
    answered: usize,
    shown: usize,
    reports: Vec<(NodeId, Incarnation, Output<Map>)>,
    /// What went past the machine of one that is alone, and is in no log yet.
    unkept: Vec<(NodeId, RequestId, map::Shown)>,
    /// Answers of the input that is given just now.
    answers: Vec<(RequestId, Answer<map::Shown>)>,
}

fn partition() -> Partition {
    Partition::new(0).expect("it is one")
}

/// What a topology says of a partition.
fn view_of(topology: &Topology, partition: Partition) -> View {
    let nodes = topology.nodes();
    let is_up = |node: &crate::topology::Node| node.state == crate::topology::State::Up;
    View {
        placement: topology.placement(partition).clone(),
        incarnations: nodes
            .iter()
            .map(|(&id, node)| (id, node.incarnation))
            .collect(),
        up: nodes
            .iter()
            .filter(|(_, node)| is_up(node))
            .map(|(&id, _)| id)
            .collect(),
    }
}

fn keys() -> [Key; 2] {
    [vec![b'a'], vec![b'b']]
}

impl World {
    fn new(seed: u64, count: u64, replication: usize, bugs: Bugs) -> Self {
        let mut world = Self {
            random: Random(seed),
            bugs,
            topology: Topology::with_partitions(1, replication, OnQuorumLoss::Forget),
            views: Vec::new(),
            nodes: BTreeMap::new(),
            network: Vec::new(),
            asked: BTreeMap::new(),
            next_request: 0,
            next_value: 0,
            floors: BTreeMap::new(),
            mutations: BTreeMap::new(),
            answered: 0,
            shown: 0,
            reports: Vec::new(),
            unkept: Vec::new(),
            answers: Vec::new(),
        };
        for id in (1..=count).map(NodeId) {
            world.nodes.insert(
                id,
                Node {
                    incarnation: 0,
                    replica: None,
                    map: Map::default(),
                    epoch: 0,
                },
            );
            world.start(id, false);
        }
        world
            .command(&Command::Rebalance)
            .expect("there is no ring");
        world
    }

    fn command(&mut self, command: &Command) -> Result<Epoch, Rejected> {
        let epoch = self.topology.apply(command)?;
        let view = view_of(&self.topology, partition());
        self.views.push(view);
        assert_eq!(self.views.len(), epoch as usize);
        Ok(epoch)
    }

    /// Starts a node that does not run, with what is on its disk, or with nothing.
    fn start(&mut self, id: NodeId, has_lost_memory: bool) {
        let node = self.nodes.get_mut(&id).expect("it is one");
        if has_lost_memory {
            node.map = Map::default();
        }
        node.map.log.clear();
        node.map.commits_at_once = false;
        node.incarnation += 1;
        let Durable {
            progress, state, ..
        } = node.map.now.clone();
        let mut replica = Replica::new(id, node.incarnation, state, progress);
        replica.bugs = self.bugs;
        node.replica = Some(replica);
        node.epoch = 0;
        let incarnation = node.incarnation;
        let register = Command::Register {
            node: id,
            incarnation,
            has_lost_memory,
            weight: 1,
            zone: None,
        };
        self.command(&register).expect("it is a later start");
    }

    /// Ends a node. Of what it has written and is not kept any part is lost from some place on.
    fn crash(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("it is one");
        if node.replica.take().is_none() {
            return;
        }
        self.unkept.retain(|(at, ..)| *at != id);
        let written = node.map.log.len();
        let unkept = node.map.log.split_off(0);
        let kept = self.random.below(written + 1);
        if written > 0 && kept < written {
            node.map.now = if kept == 0 {
                node.map.durable.clone()
            } else {
                unkept[kept - 1].clone()
            };
        }
        node.map.durable = node.map.now.clone();
    }

    /// Gives a node an input, and carries its outputs out.
    fn give(&mut self, id: NodeId, input: Input<Map>) {
        let node = self.nodes.get_mut(&id).expect("it is one");
        let Some(replica) = &mut node.replica else {
            return;
        };
        replica.handle(&mut node.map, 0, input);
        let incarnation = node.incarnation;
        while let Some(output) = replica.poll() {
            match output {
                Output::Send(to, to_incarnation, message) => {
                    if let Body::Append { entry, .. } = &message.body {
                        let generation = replica.state().generation;
                        let (keys, value) = &entry.effects;
                        let done = (keys[0].clone(), *value);
                        let known = self
                            .mutations
                            .insert((generation, entry.version), done.clone());
                        assert!(
                            known.is_none_or(|known| known == done),
                            "{} is two mutations",
                            entry.version
                        );
                    }
                    self.network.push(Flight {
                        from: (id, incarnation),
                        to: (to, to_incarnation),
                        message,
                    });
                }
                Output::Answer(request, answer) => self.answers.push((request, answer)),
                output => self.reports.push((id, incarnation, output)),
            }
        }
        for (request, answer) in std::mem::take(&mut self.answers) {
            self.tell(request, &answer);
        }
    }

    fn tell(&mut self, request: RequestId, answer: &Answer<map::Shown>) {
        let Some(asked) = self.asked.remove(&request) else {
            panic!("{request} was not asked, or answered twice");
        };
        self.answered += 1;
        if let &Answer::Reply((Some(version), value)) = answer {
            assert!(
                version >= asked.floor || (asked.is_read && value.is_none()),
                "{request} shows {:?} at {version}, and {} was known before it was asked",
                asked.key,
                asked.floor
            );
            let floor = self.floors.entry(asked.key).or_default();
            *floor = (*floor).max(version);
            self.shown += 1;
        }
    }

    fn pick(&mut self) -> NodeId {
        NodeId(1 + self.random.below(self.nodes.len()) as u64)
    }

    /// One thing happens.
    fn step(&mut self, faults: bool) {
        match self.random.below(if faults { 1031 } else { 976 }) {
            0..=449 => self.deliver(faults),
            450..=599 => self.request(),
            600..=749 => self.keep(),
            750..=869 => self.see(),
            870..=909 => {
                let id = self.pick();
                self.give(id, Input::Tick);
            }
            910..=969 => self.report(),
            970..=975 => self.control(),
            976..=985 => {
                if !self.network.is_empty() {
                    let lost = self.random.below(self.network.len());
                    self.network.swap_remove(lost);
                }
            }
            986..=1009 => self.drop_one(),
            1010 | 1011 => {
                let id = self.pick();
                self.crash(id);
            }
            1012..=1019 => {
                let id = self.pick();
                if self.nodes[&id].replica.is_none() {
                    let lost = self.random.one_in(4);
                    self.start(id, lost);
                }
            }
            1020 | 1021 => {
                // Rightly or not.
                let id = self.pick();
                let known = self.topology.nodes()[&id].incarnation;
                let _ = self.command(&Command::Down(id, known));
            }
            1022 if self.random.one_in(4) => {
                let _ = self.command(&Command::Leave(self.leaver()));
            }
            _ => {
                let id = self.pick();
                let known = self.topology.nodes()[&id].incarnation;
                let _ = if self.is_aligned(id) {
                    self.command(&Command::Up(id, known))
                } else {
                    self.command(&Command::Back(id, known))
                };
            }
        }
    }

    /// A node drops a record, if it may.
    fn drop_one(&mut self) {
        let id = self.pick();
        let key = keys()[self.random.below(2)].clone();
        let node = self.nodes.get_mut(&id).expect("it is one");
        if node.replica.is_some() {
            node.map.drop_one(&key);
        }
    }

    fn leaver(&self) -> NodeId {
        // The last always stays.
        let leaving = self
            .topology
            .nodes()
            .iter()
            .filter(|(_, node)| node.is_leaving);
        if leaving.count() + 3 < self.nodes.len() {
            NodeId(1)
        } else {
            NodeId(0)
        }
    }

    fn deliver(&mut self, faults: bool) {
        if self.network.is_empty() {
            return;
        }
        let place = self.random.below(self.network.len());
        let place = if faults && self.random.one_in(4) {
            place
        } else {
            0
        };
        let is_repeated = faults && self.random.one_in(12);
        let flight = if is_repeated {
            let Flight {
                from,
                to,
                ref message,
            } = self.network[place];
            Flight {
                from,
                to,
                message: message.clone(),
            }
        } else {
            self.network.remove(place)
        };
        let (to, incarnation) = flight.to;
        if self.nodes[&to].incarnation == incarnation {
            let (from, of) = flight.from;
            self.give(to, Input::Message(from, of, flight.message));
        }
    }

    fn request(&mut self) {
        // Mostly of who leads, as far as that is known.
        let leader = self.topology.placement(partition()).leader;
        let id = match leader {
            Some((leader, _)) if !self.random.one_in(4) => leader,
            _ => self.pick(),
        };
        if self.nodes[&id].replica.is_none() {
            return;
        }
        self.next_request += 1;
        self.next_value += 1;
        let (request, value) = (self.next_request, self.next_value);
        let key = keys()[self.random.below(2)].clone();
        let asks = match self.random.below(6) {
            0 | 1 => Request::Get(key.clone()),
            2 => Request::Set(key.clone(), value),
            3 => Request::Delete(key.clone()),
            4 => Request::Add(key.clone(), value),
            _ => Request::Increment(key.clone()),
        };
        let level = if self.random.one_in(5) {
            Level::All
        } else {
            Level::Quorum
        };
        let floor = self.floors.get(&key).copied().unwrap_or_default();
        let is_read = matches!(asks, Request::Get(_));
        self.asked.insert(
            request,
            Asked {
                key,
                floor,
                is_read,
            },
        );
        let node = self.nodes.get_mut(&id).expect("it is one");
        let is_alone = node.replica.as_ref().is_some_and(Replica::is_alone);
        if is_alone && self.random.one_in(2) {
            let (Ran::Changed(.., shown) | Ran::Saw(_, shown)) = node.map.execute(0, &asks, false)
            else {
                unreachable!("there is room");
            };
            self.unkept.push((id, request, shown));
            return;
        }
        self.give(id, Input::Request(request, level, asks));
    }

    /// The log of a node comes to its disk, as far as it is written, or a part of it.
    fn keep(&mut self) {
        let id = self.pick();
        self.keep_of(id);
    }

    fn keep_of(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("it is one");
        let Some(replica) = &node.replica else { return };
        let written = replica.written(&node.map);
        node.map.durable = node.map.now.clone();
        node.map.log.clear();
        let unkept = std::mem::take(&mut self.unkept);
        for (at, request, shown) in unkept {
            if at == id {
                self.tell(request, &Answer::Reply(shown));
            } else {
                self.unkept.push((at, request, shown));
            }
        }
        self.give(id, Input::Kept(written));
    }

    /// A node hears of a later state of the topology.
    fn see(&mut self) {
        let id = self.pick();
        let newest = self.views.len() as Epoch;
        let node = self.nodes.get_mut(&id).expect("it is one");
        if node.epoch < newest && node.replica.is_some() {
            let ahead = 1 + self.random.below((newest - node.epoch) as usize) as Epoch;
            node.epoch += ahead;
            let view = self.views[node.epoch as usize - 1].clone();
            self.give(id, Input::View(view));
        }
    }

    /// A report comes to the topology.
    fn report(&mut self) {
        if self.reports.is_empty() {
            return;
        }
        let place = self.random.below(self.reports.len());
        let (id, incarnation, output) = self.reports.swap_remove(place);
        let _ = match output {
            Output::Opened(term) => {
                let opened = vec![(partition(), term)];
                let _ = self.command(&Command::Up(id, incarnation));
                self.command(&Command::Opened(opened))
            }
            Output::Aligned(term) => {
                let node = self.topology.nodes()[&id];
                let current = self.topology.placement(partition()).term;
                if term == current && node.amnesia > 0 {
                    let _ = self.command(&Command::Remembers(id, incarnation));
                }
                if term == current || node.state == crate::topology::State::Aligning {
                    self.command(&Command::Up(id, incarnation))
                } else {
                    Err(Rejected::Unchanged)
                }
            }
            _ => Err(Rejected::Unchanged),
        };
    }

    fn is_aligned(&self, id: NodeId) -> bool {
        let node = &self.nodes[&id];
        let term = self.topology.placement(partition()).term;
        node.replica.is_some() && node.map.now.progress.last.term() == term
    }

    /// What proposes changes does something.
    fn control(&mut self) {
        let placement = self.topology.placement(partition()).clone();
        let all = vec![partition()];
        let _ = match placement.change {
            Some(change) if change.has_opened => self.command(&Command::Finish(all)),
            Some(change) if !change.is_joint => self.command(&Command::Join(all)),
            _ => self.command(&Command::Rebalance),
        };
    }

    /// Nothing fails any more, and all come to an end.
    fn heal(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&id].replica.is_none() {
                self.start(id, false);
            }
        }
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let known = self.topology.nodes()[&id].incarnation;
            let _ = self.command(&Command::Back(id, known));
        }
        let before = self.shown;
        for _ in 0..6_000 {
            self.step(false);
            if self.shown > before + 5 {
                return;
            }
        }
        let placement = self.topology.placement(partition());
        panic!("nothing is answered any more: {placement:?}");
    }
}

struct Printed(u64);

impl Drop for Printed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}", self.0);
        }
    }
}

fn run(seed: u64, bugs: Bugs) -> World {
    let _printed = Printed(seed);
    let count = 3 + seed % 3;
    let replication = 1 + (seed / 3 % 3) as usize;
    let mut world = World::new(seed, count, replication.max(2), bugs);
    for _ in 0..3_000 {
        world.step(true);
    }
    world.heal();
    world
}

#[test]
fn no_answer_is_older_than_what_was_known() {
    let (mut answered, mut shown) = (0, 0);
    for seed in 0..100 {
        let world = run(seed, Bugs::default());
        answered += world.answered;
        shown += world.shown;
    }
    println!("{answered} answers, {shown} that show something");
    assert!(shown > 5_000, "{shown}");
}

/// Rule 8 without its horizon: a replica that was away serves what was replaced and then evicted.
#[test]
fn a_planted_bug_is_found() {
    let fails = |seed: &u64| std::panic::catch_unwind(|| run(*seed, Bugs::only(1))).is_err();
    let found = (0..2_000).find(fails);
    println!("seed {found:?} finds it");
    assert!(found.is_some(), "no seed finds it");
}
