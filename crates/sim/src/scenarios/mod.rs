//! Stories that are told step by step: which message comes, which is held, lost or repeated, what a disk keeps, who crashes, what
//! the topology says and who sees it. `lies` has one for each way to lie that a first draft of the protocol had, told with its
//! mistake and without; `rules` has others, and `random` those that chance tells.

mod lies;
mod random;
mod rules;

use crate::small_world::{Flight, Lie, World, partition};
use henge_cluster::bugs::Bugs;
use henge_cluster::replica::{
    Answer, Body, Input, Level, Message, MessageOf, Progress, RequestId, Types,
};
use henge_cluster::ring::NodeId;
use henge_cluster::testing::map::{Map, Request};
use henge_cluster::topology::{Command, Epoch};
pub(crate) use random::tell;
use std::collections::BTreeMap;

/// Nodes by their names in a story. A is the first of the replicas and leads, in a term that is open; behind the replicas are
/// nodes that hold nothing.
type Name = usize;
const A: Name = 0;
const B: Name = 1;
const C: Name = 2;
const D: Name = 3;
const E: Name = 4;

/// What a client sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// A value, or that of a write.
    Shows(u64),
    /// There is nothing, or a delete is done.
    Nothing,
    /// No answer, or that nothing was done, or that nobody knows.
    NoAnswer,
}

/// Kinds of messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Fence,
    Fenced,
    Refused,
    Open,
    Aligned,
    Pull,
    Next,
    Part,
    Abort,
    Append,
    Beat,
    Ack,
    Probe,
    Echo,
}

fn kind(message: &MessageOf<Map>) -> Kind {
    match message.body {
        Body::Fence { .. } => Kind::Fence,
        Body::Fenced { .. } => Kind::Fenced,
        Body::Refused { .. } => Kind::Refused,
        Body::Open { .. } => Kind::Open,
        Body::Aligned { .. } => Kind::Aligned,
        Body::Pull { .. } => Kind::Pull,
        Body::Next { .. } => Kind::Next,
        Body::Part { .. } => Kind::Part,
        Body::Abort { .. } => Kind::Abort,
        Body::Append { .. } => Kind::Append,
        Body::Beat { .. } => Kind::Beat,
        Body::Ack { .. } => Kind::Ack,
        Body::Probe { .. } => Kind::Probe,
        Body::Echo { .. } => Kind::Echo,
    }
}

/// Messages that are held: of whom, to whom, of which kind; none for any.
type Hold = (Option<NodeId>, Option<NodeId>, Option<Kind>);

/// See the head of the file.
struct Story {
    bugs: Bugs,
    world: World,
    names: Vec<NodeId>,
    holds: Vec<Hold>,
    /// They do not hear of the topology.
    blind: Vec<NodeId>,
    /// Their disks keep nothing for the time being.
    unkept: Vec<NodeId>,
    /// The newest of each kind on each way.
    sent: BTreeMap<(NodeId, NodeId, Kind), Flight>,
}

impl Story {
    /// So many replicas, and nodes beside them; all are Up, and A leads.
    fn new(bugs: Bugs, replicas: usize, spares: usize) -> Self {
        let world = World::new(replicas as u64, replicas, 1, bugs);
        let mut story = Self {
            bugs,
            names: world.placement().old.clone(),
            world,
            holds: Vec::new(),
            blind: Vec::new(),
            unkept: Vec::new(),
            sent: BTreeMap::new(),
        };
        for name in A..replicas {
            story.up(name);
        }
        for spare in replicas..replicas + spares {
            let id = NodeId(spare as u64 + 1);
            story.world.add(id);
            story.names.push(id);
            story.up(spare);
        }
        story.settle();
        story
    }

    fn has(&self, bug: u8) -> bool {
        self.bugs.has(bug)
    }

    fn id(&self, name: Name) -> NodeId {
        self.names[name]
    }

    // What happens by itself.

    /// Until nothing happens any more: topology is seen, disks keep, and messages come in their order, but those that are held.
    fn settle(&mut self) {
        loop {
            let newest = self.world.newest();
            for id in self.names.clone() {
                let node = &self.world.nodes[&id];
                if node.replica.is_some() && node.epoch < newest && !self.blind.contains(&id) {
                    self.world.see(id, newest);
                }
                if !self.unkept.contains(&id) {
                    self.world.begin_to_keep(id);
                    self.world.keep(id);
                }
            }
            for flight in &self.world.network {
                let way = (flight.from.0, flight.to.0, kind(&flight.message));
                self.sent.insert(way, flight.clone());
            }
            let free = self
                .world
                .network
                .iter()
                .position(|flight| !self.is_held(flight));
            let Some(place) = free else { return };
            let flight = self.world.network.remove(place);
            self.world.deliver(flight);
        }
    }

    fn is_held(&self, flight: &Flight) -> bool {
        let fits = |hold: &Hold| {
            hold.0.is_none_or(|from| from == flight.from.0)
                && hold.1.is_none_or(|to| to == flight.to.0)
                && hold.2.is_none_or(|which| which == kind(&flight.message))
        };
        self.holds.iter().any(fits)
    }

    /// What was not answered is said again.
    fn tick(&mut self) {
        for id in self.names.clone() {
            self.world.give(id, Input::Tick);
        }
        self.settle();
    }

    // The network.

    /// Messages of a kind wait on their way, from now on.
    fn hold(&mut self, from: Name, to: Name, kind: Kind) {
        self.holds
            .push((Some(self.id(from)), Some(self.id(to)), Some(kind)));
    }

    /// They go on.
    fn release(&mut self, from: Name, to: Name, kind: Kind) {
        let hold = (Some(self.id(from)), Some(self.id(to)), Some(kind));
        self.holds.retain(|other| *other != hold);
        self.settle();
    }

    /// The first that is held of a kind goes on.
    fn let_through(&mut self, from: Name, to: Name, which: Kind) {
        let way = (self.id(from), self.id(to), which);
        let mut network = self.world.network.iter();
        let first =
            network.position(|flight| (flight.from.0, flight.to.0, kind(&flight.message)) == way);
        if let Some(first) = first {
            let flight = self.world.network.remove(first);
            self.world.deliver(flight);
            self.settle();
        }
    }

    /// No message goes on a way.
    fn block(&mut self, from: Name, to: Name) {
        self.holds
            .push((Some(self.id(from)), Some(self.id(to)), None));
    }

    /// Nothing comes from a node or to it, and it does not hear of the topology.
    fn cut(&mut self, name: Name) {
        let id = self.id(name);
        self.holds.push((Some(id), None, None));
        self.holds.push((None, Some(id), None));
        self.blind.push(id);
    }

    /// What is held is lost.
    fn lose(&mut self) {
        let network = std::mem::take(&mut self.world.network);
        let (_, rest) = network.into_iter().partition(|flight| self.is_held(flight));
        self.world.network = rest;
    }

    /// Nothing is held any more, and all see the topology.
    fn mend(&mut self) {
        self.holds.clear();
        self.blind.clear();
        self.settle();
    }

    /// What is held is lost, and nothing is held any more.
    fn lose_and_mend(&mut self) {
        self.lose();
        self.mend();
    }

    /// The newest message of a kind comes once more.
    fn repeat(&mut self, from: Name, to: Name, kind: Kind) {
        let flight = self.sent[&(self.id(from), self.id(to), kind)].clone();
        self.world.deliver(flight);
        self.settle();
    }

    /// Somebody says something that its replica did not say.
    fn say(&mut self, from: Name, to: Name, term: Epoch, body: Body<<Map as Types>::Effects, u64>) {
        let start = |id: NodeId| (id, self.world.nodes[&id].incarnation);
        let flight = Flight {
            from: start(self.id(from)),
            to: start(self.id(to)),
            message: Message { term, body },
        };
        self.world.deliver(flight);
        self.settle();
    }

    // Disks and processes.

    /// A disk keeps nothing for the time being.
    fn stop_disk(&mut self, name: Name) {
        self.unkept.push(self.id(name));
    }

    /// A process ends; what is not kept is lost.
    fn crash(&mut self, name: Name) {
        let id = self.id(name);
        self.world.crash(id, 0);
        self.unkept.retain(|&other| other != id);
    }

    /// It starts anew.
    fn start(&mut self, name: Name) {
        let id = self.id(name);
        self.world.start(id, false);
        self.settle();
    }

    /// It starts anew, and all that it kept is gone.
    fn start_empty(&mut self, name: Name) {
        let id = self.id(name);
        self.world.start(id, true);
        self.settle();
    }

    /// It forgets a record, if it may.
    fn evict(&mut self, name: Name, key: &str) {
        let id = self.id(name);
        self.world.evict(id, &key.into());
    }

    // The topology.

    /// Does not hear of the topology.
    fn blind(&mut self, name: Name) {
        self.blind.push(self.id(name));
    }

    /// What replicas reported comes to the topology.
    fn report(&mut self) {
        while !self.world.reports.is_empty() {
            self.world.report(0);
        }
        self.settle();
    }

    fn up(&mut self, name: Name) {
        let id = self.id(name);
        let incarnation = self.world.nodes[&id].incarnation;
        self.command(&Command::Up(id, incarnation));
    }

    fn down(&mut self, name: Name) {
        let id = self.id(name);
        let incarnation = self.world.nodes[&id].incarnation;
        self.command(&Command::Down(id, incarnation));
    }

    fn command(&mut self, command: &Command) {
        self.world.command(command).expect("it is possible");
        self.settle();
    }

    /// All others are taken for Down, rightly or not.
    fn lead(&mut self, name: Name) {
        assert!(self.try_to_lead(name), "it leads");
    }

    fn try_to_lead(&mut self, name: Name) -> bool {
        for id in self.names.clone() {
            let incarnation = self.world.nodes[&id].incarnation;
            let _ = if id == self.id(name) {
                self.world.command(&Command::Back(id, incarnation))
            } else {
                self.world.command(&Command::Down(id, incarnation))
            };
        }
        let leader = self.world.placement().leader;
        self.settle();
        leader.is_some_and(|(id, _)| id == self.id(name))
    }

    /// The next list is without a replica, and with a node beside them that copies from now on.
    fn begin_to_replace(&mut self, leaves: Name) {
        self.command(&Command::Leave(self.id(leaves)));
        self.command(&Command::Rebalance);
    }

    /// Both lists count.
    fn join(&mut self) {
        self.command(&Command::Join(vec![partition()]));
    }

    /// The change ends, if it may.
    fn finish(&mut self) {
        let _ = self.world.command(&Command::Finish(vec![partition()]));
        self.settle();
    }

    /// Nobody has lied.
    fn check(&self) {
        assert!(self.world.lies.is_empty(), "{:?}", self.world.lies);
    }

    // Clients.

    /// Asks at QUORUM, and waits as long as anything happens.
    fn ask(&mut self, at: Name, request: Request) -> Seen {
        self.ask_at(at, Level::Quorum, request)
    }

    fn ask_at(&mut self, at: Name, level: Level, request: Request) -> Seen {
        let id = self.world.ask(self.id(at), level, request);
        self.settle();
        self.seen(id)
    }

    /// What the newest request has come to by now, if it was not answered at once.
    fn late(&self, before: Seen) -> Seen {
        match before {
            Seen::NoAnswer => self.seen(self.world.requests()),
            seen => seen,
        }
    }

    fn seen(&self, id: RequestId) -> Seen {
        match self.world.answers.get(&id) {
            Some(Answer::Reply((_, Some(value)))) => Seen::Shows(*value),
            Some(Answer::Reply((_, None))) => Seen::Nothing,
            _ => Seen::NoAnswer,
        }
    }

    fn get(&mut self, at: Name, key: &str) -> Seen {
        self.ask(at, Request::Get(key.into()))
    }

    /// Writes, and is told that it is done.
    fn set(&mut self, at: Name, key: &str, value: u64) {
        let seen = self.try_to_set(at, key, value);
        assert_eq!(seen, Seen::Shows(value), "it is acknowledged");
    }

    fn try_to_set(&mut self, at: Name, key: &str, value: u64) -> Seen {
        self.ask(at, Request::Set(key.into(), value))
    }
}
