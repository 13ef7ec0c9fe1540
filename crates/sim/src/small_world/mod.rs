//! A small world: replicas of one partition over the smallest table, a network of messages that can be delivered in any order,
//! more than once or never, disks that keep what they are told to, and a topology that is seen late. Nothing happens by itself:
//! a script (`scenarios`) or chance (`chance`) says what is next. What happens is watched by a ghost, and answers by a judge.

mod chance;
mod ghost;
mod judge;

pub(crate) use chance::run;
use ghost::Ghost;
use henge_cluster::bugs::Bugs;
use henge_cluster::replica::{
    Answer, Input, Key, Level, MessageOf, Output, Ran, Replica, RequestId, Table, View, Written,
};
use henge_cluster::ring::NodeId;
use henge_cluster::testing::map::{Durable, Map, Request, Shown};
use henge_cluster::testing::view_of;
use henge_cluster::topology::{
    Command, Epoch, Incarnation, OnQuorumLoss, Placement, Rejected, State, Topology,
};
use henge_wire::Partition;
use judge::{Asked, Judge};
use std::collections::BTreeMap;
use std::fmt;

/// A node, which has one replica or none.
pub(crate) struct Node {
    pub(crate) incarnation: Incarnation,
    /// None while it does not run.
    pub(crate) replica: Option<Replica<Map>>,
    pub(crate) map: Map,
    /// The epoch that it knows.
    pub(crate) epoch: Epoch,
    /// What went past its machine, and in which generation: that is answered when it is kept.
    past: Vec<(RequestId, Epoch, Shown)>,
    /// What its disk is about to keep: how far, and how much of the log and of what went past the machine that is.
    writing: Option<(Written, usize, usize)>,
}

/// A message that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) from: (NodeId, Incarnation),
    pub(crate) to: (NodeId, Incarnation),
    pub(crate) message: MessageOf<Map>,
}

/// What must not be, and was seen.
#[derive(Clone, Debug)]
pub(crate) enum Lie {
    /// An answer is one.
    Answer(String),
    /// An invariant does not hold. What follows from that may come later.
    Broken(String),
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Answer(why) | Self::Broken(why)) = self;
        f.write_str(why)
    }
}

/// See the head of the file.
pub(crate) struct World {
    bugs: Bugs,
    /// So many records are a part of a copy.
    parts: usize,
    pub(crate) topology: Topology,
    /// What all its states say, as a node may see one late.
    views: Vec<View>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) network: Vec<Flight>,
    /// What replicas have told the topology.
    pub(crate) reports: Vec<(NodeId, Incarnation, Output<Map>)>,
    asked: BTreeMap<RequestId, (Level, Asked)>,
    pub(crate) answers: BTreeMap<RequestId, Answer<Shown>>,
    next_request: RequestId,
    /// A reset that nobody is told of yet.
    flushing: Option<Epoch>,
    ghost: Ghost,
    judge: Judge,
    pub(crate) lies: Vec<Lie>,
}

/// The one that there is.
pub(crate) fn partition() -> Partition {
    Partition::new(0).expect("it is one")
}

impl World {
    /// So many nodes that run, and a ring of them. Copies come in parts of so many records.
    pub(crate) fn new(count: u64, replication: usize, parts: usize, bugs: Bugs) -> Self {
        let mut world = Self {
            bugs,
            parts,
            topology: Topology::with_partitions(1, replication, OnQuorumLoss::Forget),
            views: Vec::new(),
            nodes: BTreeMap::new(),
            network: Vec::new(),
            reports: Vec::new(),
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_request: 0,
            flushing: None,
            ghost: Ghost::default(),
            judge: Judge::default(),
            lies: Vec::new(),
        };
        for id in (1..=count).map(NodeId) {
            world.add(id);
        }
        world
            .command(&Command::Rebalance)
            .expect("there is no ring");
        world
    }

    /// A node that was never there.
    pub(crate) fn add(&mut self, id: NodeId) {
        let node = Node {
            incarnation: 0,
            replica: None,
            map: Map::default(),
            epoch: 0,
            past: Vec::new(),
            writing: None,
        };
        self.nodes.insert(id, node);
        self.start(id, false);
    }

    pub(crate) fn placement(&self) -> &Placement {
        self.topology.placement(partition())
    }

    pub(crate) fn newest(&self) -> Epoch {
        self.views.len() as Epoch
    }

    /// Consensus orders something.
    pub(crate) fn command(&mut self, command: &Command) -> Result<Epoch, Rejected> {
        let epoch = self.topology.apply(command)?;
        self.views.push(view_of(&self.topology, partition()));
        assert_eq!(self.newest(), epoch);
        Ok(epoch)
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("it is one")
    }

    /// The table of a node.
    pub(crate) fn map(&mut self, id: NodeId) -> &mut Map {
        &mut self.node(id).map
    }

    pub(crate) fn runs(&self, id: NodeId) -> bool {
        self.nodes[&id].replica.is_some()
    }

    /// Starts a node that does not run, with what is on its disk, or with nothing.
    pub(crate) fn start(&mut self, id: NodeId, has_lost_memory: bool) {
        let (bugs, parts) = (self.bugs, self.parts);
        let node = self.node(id);
        if has_lost_memory {
            node.map = Map::default();
        }
        node.map.bugs = bugs;
        node.map.commits_at_once = false;
        node.incarnation += 1;
        node.epoch = 0;
        let Durable {
            progress, state, ..
        } = node.map.now.clone();
        let incarnation = node.incarnation;
        let replica = Replica::new(id, incarnation, state, progress);
        node.replica = Some(replica.with_bugs(bugs).with_parts_of(parts));
        let durable = &self.nodes[&id].map.now;
        let kept = self.ghost.restarted(id, durable, has_lost_memory);
        self.note(kept);
        let register = Command::Register {
            node: id,
            incarnation,
            has_lost_memory,
            weight: 1,
            zone: None,
        };
        self.command(&register).expect("it is a later start");
    }

    /// How many writes of a node may be lost.
    pub(crate) fn unkept(&self, id: NodeId) -> usize {
        self.nodes[&id].map.log.len()
    }

    /// Ends a node. Of the writes that are not known to be kept so many are.
    pub(crate) fn crash(&mut self, id: NodeId, kept: usize) {
        let node = self.node(id);
        node.replica = None;
        node.writing = None;
        node.past.clear();
        let log = std::mem::take(&mut node.map.log);
        if kept < log.len() {
            let before = kept.checked_sub(1).map(|place| log[place].clone());
            node.map.now = before.unwrap_or_else(|| node.map.durable.clone());
        }
        node.map.now = node.map.now.image();
        node.map.durable = node.map.now.clone();
    }

    /// Where an invariant is broken once, it is broken wherever one looks.
    fn note(&mut self, outcome: Result<(), String>) {
        let is_known = self.lies.iter().any(|lie| matches!(lie, Lie::Broken(_)));
        if let Err(why) = outcome
            && !is_known
        {
            self.lies.push(Lie::Broken(why));
        }
    }

    /// Gives a node an input, and carries its outputs out.
    pub(crate) fn give(&mut self, id: NodeId, input: Input<Map>) {
        let node = self.nodes.get_mut(&id).expect("it is one");
        let Some(replica) = &mut node.replica else {
            return;
        };
        let is_request = matches!(input, Input::Request(..));
        let before = node.map.now.progress.last.seq();
        replica.handle(&mut node.map, 0, input);
        let durable = &node.map.now;
        let generation = durable.state.generation;
        let last = durable.progress.last;
        let (mut found, mut answers) = (Vec::new(), Vec::new());
        if is_request && last.seq() > before {
            found.push(self.ghost.has_stamped(durable));
        }
        found.push(self.ghost.look(id, &node.map));
        let incarnation = node.incarnation;
        while let Some(output) = replica.poll() {
            match output {
                Output::Send(to, to_incarnation, message) => {
                    let from = (id, incarnation);
                    found.push(self.ghost.said::<Map>(from, replica.state(), &message));
                    self.network.push(Flight {
                        from,
                        to: (to, to_incarnation),
                        message,
                    });
                }
                Output::Answer(request, answer) => {
                    answers.push((request, answer));
                }
                Output::Lost(loss) => found.push(self.ghost.lost(id, &loss)),
                Output::Unsettled(_) => {}
                output => {
                    if let Output::Opened(term) = output {
                        found.push(Ghost::opened(id, term, &node.map.now));
                        if let Some(reset) = self.flushing.take_if(|reset| *reset <= term) {
                            self.judge.flushed(reset);
                        }
                    }
                    self.reports.push((id, incarnation, output));
                }
            }
        }
        for outcome in found {
            self.note(outcome);
        }
        for (request, answer) in answers {
            self.answer(request, Some(generation), answer);
        }
    }

    /// A client is answered out of a table in this generation; none if the table has left that since: nobody counts then how far
    /// it was kept.
    fn answer(&mut self, request: RequestId, generation: Option<Epoch>, answer: Answer<Shown>) {
        let asked = self.asked.remove(&request);
        let (level, asked) = asked.expect("it was asked, and not answered");
        if let Answer::Reply((version, value)) = answer
            && level != Level::One
        {
            if let (Some(version), Some(generation)) = (version, generation) {
                self.note(self.ghost.shown(generation, version));
            }
            let judged = self.judge.answered(&asked, version, value);
            self.lies.extend(judged.err().map(Lie::Answer));
        }
        self.answers.insert(request, answer);
    }

    /// A message comes to whom it is for.
    pub(crate) fn deliver(&mut self, flight: Flight) {
        let (to, incarnation) = flight.to;
        // What is for another start of a node no carrier gives to it.
        if self.nodes[&to].incarnation == incarnation || self.bugs.has(9) {
            let (from, of) = flight.from;
            self.give(to, Input::Message(from, of, flight.message));
        }
    }

    /// A client asks.
    pub(crate) fn ask(&mut self, id: NodeId, level: Level, request: Request) -> RequestId {
        let number = self.asks(level, &request);
        self.give(id, Input::Request(number, level, request));
        number
    }

    fn asks(&mut self, level: Level, request: &Request) -> RequestId {
        self.next_request += 1;
        let asked = self.judge.asked(request);
        self.asked.insert(self.next_request, (level, asked));
        self.next_request
    }

    /// Whether requests may go past the machine of a node.
    pub(crate) fn is_alone(&self, id: NodeId) -> bool {
        let replica = self.nodes[&id].replica.as_ref();
        replica.is_some_and(Replica::is_alone)
    }

    /// A client asks a node that is alone, and that goes past its machine.
    pub(crate) fn ask_past(&mut self, id: NodeId, level: Level, request: &Request) {
        let number = self.asks(level, request);
        let node = self.nodes.get_mut(&id).expect("it is one");
        let generation = node.map.now.state.generation;
        let stamped = match node.map.execute(0, request, false) {
            Ran::Changed(_, _, shown) => {
                node.past.push((number, generation, shown));
                self.ghost.has_stamped(&node.map.now)
            }
            Ran::Saw(_, shown) => {
                node.past.push((number, generation, shown));
                Ok(())
            }
            Ran::NoRoom => unreachable!("there is room for what a leader does"),
        };
        let looked = self.ghost.look(id, &node.map);
        self.note(stamped.and(looked));
    }

    /// How many were asked; the newest has that number.
    pub(crate) fn requests(&self) -> RequestId {
        self.next_request
    }

    /// All that a node has written so far is on its way to its disk.
    pub(crate) fn begin_to_keep(&mut self, id: NodeId) {
        let node = self.node(id);
        if let Some(replica) = &node.replica
            && node.writing.is_none()
        {
            let written = replica.written(&node.map);
            node.writing = Some((written, node.map.log.len(), node.past.len()));
        }
    }

    /// That is on its disk.
    pub(crate) fn keep(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some((written, count, past)) = node.writing.take() else {
            return;
        };
        if let Some(newest) = node.map.log.drain(..count).next_back() {
            node.map.durable = newest;
        }
        let past: Vec<_> = node.past.drain(..past).collect();
        self.give(id, Input::Kept(written));
        let now = self.nodes[&id].map.now.state.generation;
        for (request, generation, shown) in past {
            // Of a generation that is over nothing has to be left: the answer came too late for the reset, and that is no lie.
            let generation = (generation == now).then_some(generation);
            self.answer(request, generation, Answer::Reply(shown));
        }
    }

    /// A node hears of a state of the topology.
    pub(crate) fn see(&mut self, id: NodeId, epoch: Epoch) {
        let view = self.views[epoch as usize - 1].clone();
        self.node(id).epoch = epoch;
        self.give(id, Input::View(view));
    }

    /// All is to be forgotten. That is done once a term is open that came with it or after it.
    pub(crate) fn flush(&mut self) {
        let reset = self.command(&Command::Reset(vec![partition()]));
        self.flushing = reset.ok().or(self.flushing);
    }

    /// A record is forgotten, if that is allowed.
    pub(crate) fn evict(&mut self, id: NodeId, key: &Key) {
        let node = self.node(id);
        if node.replica.is_some() {
            node.map.drop_one(key);
            let looked = self.ghost.look(id, &self.nodes[&id].map);
            self.note(looked);
        }
    }

    /// A report comes to the topology.
    pub(crate) fn report(&mut self, place: usize) {
        let (id, incarnation, output) = self.reports.remove(place);
        let node = self.topology.nodes()[&id];
        match output {
            Output::Opened(term) => {
                let _ = self.command(&Command::Up(id, incarnation));
                let _ = self.command(&Command::Opened(vec![(partition(), term)]));
            }
            Output::Aligned(term) => {
                let current = self.placement().term;
                if term == current && node.amnesia > 0 {
                    let _ = self.command(&Command::Remembers(id, incarnation));
                }
                if term == current || node.state == State::Aligning {
                    let _ = self.command(&Command::Up(id, incarnation));
                }
            }
            _ => {}
        }
    }
}
