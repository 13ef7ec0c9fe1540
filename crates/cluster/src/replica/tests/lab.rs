//! Replicas of one partition that a test drives by hand: it says who sees what of the topology, which messages arrive, what is
//! kept, and when time passes.

use crate::replica::{
    Answer, Body, Input, Key, Level, MessageOf, Output, Progress, Replica, RequestId, State,
};
use crate::ring::NodeId;
use crate::testing::map::{Map, Request, Shown};
use crate::testing::view_of;
use crate::topology::{Command, Epoch, Incarnation, OnQuorumLoss, Placement, Topology};
use henge_wire::{Partition, Version};
use std::collections::{BTreeMap, VecDeque};

/// A message that is under way.
pub(super) struct Flight {
    pub(super) from: (NodeId, Incarnation),
    pub(super) to: (NodeId, Incarnation),
    pub(super) message: MessageOf<Map>,
}

/// A node that runs.
pub(super) struct Running {
    pub(super) incarnation: Incarnation,
    pub(super) replica: Replica<Map>,
    pub(super) map: Map,
}

pub(super) struct Lab {
    pub(super) topology: Topology,
    /// All its states; that of epoch 1 is the first.
    states: Vec<Topology>,
    pub(super) partition: Partition,
    pub(super) nodes: BTreeMap<u64, Running>,
    pub(super) network: VecDeque<Flight>,
    pub(super) answers: BTreeMap<RequestId, Answer<Shown>>,
    /// What replicas have told the topology, in which start.
    pub(super) reports: Vec<(u64, Incarnation, Output<Map>)>,
    next_request: RequestId,
}

fn register(id: u64, incarnation: Incarnation, has_lost_memory: bool, weight: u32) -> Command {
    Command::Register {
        node: NodeId(id),
        incarnation,
        has_lost_memory,
        weight,
        zone: None,
    }
}

impl Lab {
    /// So many nodes that are Up, of which nobody has seen anything.
    pub(super) fn new(nodes: u64, partitions: u16, replication: usize) -> Self {
        let mut lab = Self {
            topology: Topology::with_partitions(partitions, replication, OnQuorumLoss::Forget),
            states: Vec::new(),
            partition: Partition::new(0).expect("it is one"),
            nodes: BTreeMap::new(),
            network: VecDeque::new(),
            answers: BTreeMap::new(),
            reports: Vec::new(),
            next_request: 0,
        };
        for id in 1..=nodes {
            lab.join(id, 1);
        }
        lab.command(&Command::Rebalance);
        for id in 1..=nodes {
            lab.up(id);
        }
        lab
    }

    /// Three replicas of one partition, open; the first leads.
    pub(super) fn three() -> (Self, [u64; 3]) {
        let mut lab = Self::new(3, 1, 3);
        let list = lab.list();
        lab.all_see(&list);
        lab.settle(&list);
        assert!(lab.has_opened());
        (lab, list.try_into().expect("they are three"))
    }

    pub(super) fn command(&mut self, command: &Command) -> Epoch {
        let epoch = self.topology.apply(command);
        let epoch = epoch.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.states.push(self.topology.clone());
        epoch
    }

    pub(super) fn join(&mut self, id: u64, weight: u32) {
        self.command(&register(id, 1, false, weight));
        let running = Running {
            incarnation: 1,
            replica: Replica::new(NodeId(id), 1, State::default(), Progress::default()),
            map: Map::default(),
        };
        self.nodes.insert(id, running);
    }

    /// A node that was forgotten registers with an empty disk, in the first start that the topology takes.
    pub(super) fn join_anew(&mut self, id: u64) {
        let incarnation = self.topology.newest_start(NodeId(id)) + 1;
        self.command(&register(id, incarnation, true, 1));
        let (state, progress) = (State::default(), Progress::default());
        let running = Running {
            incarnation,
            replica: Replica::new(NodeId(id), incarnation, state, progress),
            map: Map::default(),
        };
        self.nodes.insert(id, running);
    }

    /// Starts a node anew, with what it had or without, and registers that.
    pub(super) fn restart(&mut self, id: u64, has_lost_memory: bool) {
        let running = self.nodes.get_mut(&id).expect("it is one");
        running.incarnation += 1;
        if has_lost_memory {
            running.map = Map::default();
        }
        let (state, progress) = (running.map.now.state.clone(), running.map.now.progress);
        running.replica = Replica::new(NodeId(id), running.incarnation, state, progress);
        let incarnation = running.incarnation;
        self.command(&register(id, incarnation, has_lost_memory, 1));
    }

    pub(super) fn down(&mut self, id: u64) -> Epoch {
        self.command(&Command::Down(NodeId(id), self.nodes[&id].incarnation))
    }

    pub(super) fn back(&mut self, id: u64) -> Epoch {
        self.command(&Command::Back(NodeId(id), self.nodes[&id].incarnation))
    }

    pub(super) fn up(&mut self, id: u64) -> Epoch {
        self.command(&Command::Up(NodeId(id), self.nodes[&id].incarnation))
    }

    pub(super) fn state(&self, epoch: Epoch) -> &Topology {
        &self.states[epoch as usize - 1]
    }

    pub(super) fn placement(&self) -> &Placement {
        self.topology.placement(self.partition)
    }

    pub(super) fn list(&self) -> Vec<u64> {
        self.placement().old.iter().map(|node| node.0).collect()
    }

    pub(super) fn leader(&self) -> u64 {
        self.placement().leader.expect("somebody leads").0.0
    }

    /// A node sees a state of the topology.
    pub(super) fn see(&mut self, id: u64, epoch: Epoch) {
        let view = view_of(self.state(epoch), self.partition);
        self.give(id, Input::View(view));
    }

    /// They see the present one.
    pub(super) fn all_see(&mut self, ids: &[u64]) {
        for &id in ids {
            self.see(id, self.topology.epoch());
        }
    }

    pub(super) fn give(&mut self, id: u64, input: Input<Map>) {
        let running = self.nodes.get_mut(&id).expect("it is one");
        let incarnation = running.incarnation;
        running.replica.handle(&mut running.map, 0, input);
        while let Some(output) = running.replica.poll() {
            match output {
                Output::Send(to, to_incarnation, message) => self.network.push_back(Flight {
                    from: (NodeId(id), incarnation),
                    to: (to, to_incarnation),
                    message,
                }),
                Output::Answer(request, answer) => {
                    let before = self.answers.insert(request, answer);
                    assert!(before.is_none(), "{request} is answered twice");
                }
                report => self.reports.push((id, incarnation, report)),
            }
        }
    }

    /// All that it has written is kept.
    pub(super) fn keep(&mut self, id: u64) {
        let running = self.nodes.get_mut(&id).expect("it is one");
        let written = running.replica.written(&running.map);
        running.map.log.clear();
        self.give(id, Input::Kept(written));
    }

    /// A message arrives, if whom it is for is in the start that it is for.
    pub(super) fn arrive(&mut self, flight: Flight) {
        let (to, incarnation) = flight.to;
        let (from, of) = flight.from;
        if self.nodes[&to.0].incarnation == incarnation {
            self.give(to.0, Input::Message(from, of, flight.message));
        }
    }

    /// The first message arrives if it is between these, and is lost else. False if there is none.
    pub(super) fn deliver(&mut self, ids: &[u64]) -> bool {
        let Some(flight) = self.network.pop_front() else {
            return false;
        };
        if ids.contains(&flight.to.0.0) && ids.contains(&flight.from.0.0) {
            self.arrive(flight);
        }
        true
    }

    /// Messages arrive between these until one is on its way that is such; it is taken from the network.
    pub(super) fn deliver_until(
        &mut self,
        ids: &[u64],
        is_such: impl Fn(&Body<(Vec<Key>, Option<u64>), u64>) -> bool,
    ) -> Flight {
        loop {
            let place = self
                .network
                .iter()
                .position(|flight| is_such(&flight.message.body));
            if let Some(place) = place {
                return self.network.remove(place).expect("it is there");
            }
            for &id in ids {
                self.keep(id);
            }
            assert!(self.deliver(ids), "no such message is sent");
        }
    }

    /// All between these arrives and is kept, and what is for others is lost.
    pub(super) fn settle(&mut self, ids: &[u64]) {
        loop {
            for &id in ids {
                self.keep(id);
            }
            if !self.deliver(ids) {
                return;
            }
            while self.deliver(ids) {}
        }
    }

    /// Time passes for these so many times, and they settle.
    pub(super) fn ticks(&mut self, ids: &[u64], times: usize) {
        for _ in 0..times {
            for &id in ids {
                self.give(id, Input::Tick);
            }
            self.settle(ids);
        }
    }

    /// Copies come in parts of so many records.
    pub(super) fn parts_of(&mut self, records: usize) {
        for running in self.nodes.values_mut() {
            running.replica.part_records = records;
        }
    }

    pub(super) fn ask(&mut self, id: u64, level: Level, request: Request) -> RequestId {
        self.next_request += 1;
        self.give(id, Input::Request(self.next_request, level, request));
        self.next_request
    }

    /// What a read at QUORUM shows that the present leader is asked, and these settle.
    pub(super) fn read(&mut self, ids: &[u64], key: &Key) -> Option<u64> {
        let request = self.ask(self.leader(), Level::Quorum, Request::Get(key.clone()));
        self.settle(ids);
        match self.answers.get(&request) {
            Some(Answer::Reply((_, value))) => *value,
            other => panic!("a read is answered {other:?}"),
        }
    }

    pub(super) fn is_done(&self, request: RequestId) -> bool {
        matches!(self.answers.get(&request), Some(Answer::Reply(_)))
    }

    pub(super) fn last(&self, id: u64) -> Version {
        self.nodes[&id].map.now.progress.last
    }

    /// Whether they hold the same, up to the same place of one order.
    pub(super) fn agree(&self, a: u64, b: u64) -> bool {
        let of = |id| {
            let now = &self.nodes[&id].map.now;
            (now.progress.last, &now.records)
        };
        of(a) == of(b)
    }

    /// Whether the present leader has said that the present term is open.
    pub(super) fn has_opened(&self) -> bool {
        let placement = self.placement();
        let (leader, incarnation) = placement.leader.expect("somebody leads");
        let opened = (leader.0, incarnation, Output::Opened(placement.term));
        self.reports.contains(&opened)
    }

    /// Whether a node has said, in its present start, that it is aligned in the present term.
    pub(super) fn has_aligned(&self, id: u64) -> bool {
        let aligned = Output::Aligned(self.placement().term);
        let incarnation = self.nodes[&id].incarnation;
        self.reports.contains(&(id, incarnation, aligned))
    }

    /// A change of the partition's replicas goes from its begin to its end; some see each step, and some hear of it from them.
    /// Gives the epoch in which it ends.
    pub(super) fn change(&mut self, see: &[u64], hear: &[u64]) -> Epoch {
        let all = [see, hear].concat();
        let moving = vec![self.partition];
        self.command(&Command::Rebalance);
        self.all_see(see);
        self.settle(&all);
        self.command(&Command::Join(moving.clone()));
        self.all_see(see);
        self.settle(&all);
        assert!(self.has_opened());
        let opened = vec![(self.partition, self.placement().term)];
        self.command(&Command::Opened(opened));
        let end = self.command(&Command::Finish(moving));
        self.all_see(see);
        self.settle(&all);
        assert!(self.has_opened());
        end
    }
}
