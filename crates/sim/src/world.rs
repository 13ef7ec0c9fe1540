//! A world from a seed, in one thread: what happens next is the earliest of what is due, and what is due at the same time happens
//! in the order in which it became so. It carries what nodes say, hands their logs to their disks, lets the topology come to
//! them, and gives every replica's output to the ghost.

mod agreed;
mod requests;

use crate::carrier::{Carrier, Vouched};
use crate::clients::{Clients, Operation, Outcome};
use crate::control::{Control, Report};
use crate::coverage::{Coverage, Rule};
use crate::ghost::{Ledger, Shared, Watched};
use crate::network::{CONTROL, Network};
use crate::node::{Batch, Clock, FrameOf, Node, Slot, Work};
use crate::plan::{Persistence, Plan};
use crate::store::{EffectsOf, ReplyOf, Size, Store, Told, ValueOf};
use henge_cluster::bugs::Bugs;
use henge_cluster::replica::{
    Answer, Body, Input, Key, Level, Message, Output, Replica, RequestId, Table, View, Written,
};
use henge_cluster::ring::NodeId;
use henge_cluster::testing::random::Random;
use henge_cluster::topology::{Command, Epoch, Incarnation, State, Topology};
use henge_wire::Partition;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::OnceLock;

/// A replica says again what was not answered after so long.
const TICK_MS: u64 = 25;
/// A node reports so often.
const REPORT_MS: u64 = 12;
/// Proposals are made so often.
const PROPOSE_MS: u64 = 8;
/// What is written is synced so often, where that may come late.
const SYNC_MS: u64 = 150;

/// No batch takes longer, however slow its disk.
const SLOWEST_DISK_MS: u64 = 400;

/// What is due.
pub(crate) enum Moment<S: Store> {
    /// A node does something, if it is in this start.
    At(usize, Incarnation, Work<S>),
    /// A report has come.
    Report(Report),
    /// Changes of the topology are proposed.
    Propose,
    /// A proposal has become a command, or is rejected.
    Commit(Command),
    /// A client begins with something.
    Think(usize),
    /// It asks a node.
    Ask(usize, u64),
    /// It is answered, and told who leads.
    Told(usize, u64, Reply, Option<usize>),
    /// It waits no longer.
    GiveUp(usize, u64),
    /// A fault begins, or ends.
    Begin(usize),
    End(usize),
    /// Nodes forget.
    Evict,
}

/// What a client hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    /// A node has answered so.
    Answer(Outcome),
    /// It did not get there.
    Refused,
    /// It was there, and nobody knows what became of it.
    Broken,
}

struct Due<S: Store> {
    at_ms: u64,
    order: u64,
    moment: Moment<S>,
}

impl<S: Store> PartialEq for Due<S> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<S: Store> Eq for Due<S> {}

impl<S: Store> PartialOrd for Due<S> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<S: Store> Ord for Due<S> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.order).cmp(&(other.at_ms, other.order))
    }
}

/// See the head of the file.
pub struct World<S: Store> {
    pub(crate) plan: Rc<Plan>,
    pub(crate) bugs: Bugs,
    pub(crate) now_ms: u64,
    due: BinaryHeap<Reverse<Due<S>>>,
    order: u64,
    pub(crate) random: Random,
    pub(crate) disks: Random,
    pub(crate) network: Network,
    pub(crate) topology: Topology,
    /// Its states as each partition sees them, by epochs from 1 on.
    views: Vec<Vec<Rc<View>>>,
    /// The epochs in which the changes of partitions became joint.
    joined: Vec<Epoch>,
    pub(crate) control: Control,
    /// By their names; at 0 is none.
    pub(crate) nodes: Vec<Node<S>>,
    pub(crate) clients: Clients,
    pub(crate) ledgers: Vec<Shared>,
    pub(crate) coverage: Coverage,
    /// The checker has not come to an end.
    pub(crate) is_undecided: bool,
    /// Since when there are no faults any more.
    pub(crate) healed_ms: Option<u64>,
    /// Nobody begins with anything any more.
    pub(crate) is_closing: bool,
    /// Faults that leave nobody to propose anything.
    pub(crate) leaderless: u32,
    pub(crate) active: Vec<usize>,
    /// What happened, if somebody wants to know.
    pub(crate) trace: Option<Trace>,
}

/// What happened.
#[derive(Default)]
pub struct Trace {
    /// Line by line.
    pub text: String,
}

/// Notes something down, if somebody wants to know.
macro_rules! note {
    ($world:expr, $($what:tt)*) => {
        if let Some(trace) = &mut $world.trace {
            let _ = write!(trace.text, "{:>6} ", $world.now_ms);
            let _ = writeln!(trace.text, $($what)*);
        }
    };
}
pub(crate) use note;

/// The most keys of a partition, and the most partitions.
const MOST: (usize, usize) = (12, 4);

/// Keys that are of the first partitions of all.
fn keys(partitions: usize, count: usize) -> Vec<Vec<Key>> {
    static KEYS: OnceLock<Vec<Vec<Key>>> = OnceLock::new();
    let all = KEYS.get_or_init(|| {
        let mut keys = vec![Vec::new(); MOST.1];
        let mut number = 0_u32;
        while keys.iter().any(|keys: &Vec<Key>| keys.len() < MOST.0) {
            let key = format!("k{number}").into_bytes();
            let place = usize::from(Partition::of(&key).number());
            if place < MOST.1 && keys[place].len() < MOST.0 {
                keys[place].push(key);
            }
            number += 1;
        }
        keys
    });
    let some = all[..partitions].iter();
    some.map(|keys| keys[..count].to_vec()).collect()
}

pub(crate) fn partition(number: usize) -> Partition {
    Partition::new(number as u16).expect("there are few")
}

impl<S: Store> World<S> {
    /// That of a plan, at its begin.
    pub fn new(plan: Rc<Plan>, bugs: Bugs, is_traced: bool) -> Self {
        let seed = plan.seed;
        let (fastest, slowest) = plan.frame_ms;
        let ledgers = (0..plan.partitions).map(|_| Rc::new(RefCell::new(Ledger::default())));
        let mut world = Self {
            bugs,
            now_ms: 0,
            due: BinaryHeap::new(),
            order: 0,
            random: Random::new(seed, 3),
            disks: Random::new(seed, 4),
            network: Network::new(Random::new(seed, 5), fastest, slowest),
            topology: Topology::with_partitions(
                plan.partitions as u16,
                plan.replication,
                plan.on_quorum_loss,
            ),
            views: Vec::new(),
            joined: vec![0; plan.partitions],
            control: Control::new(Random::new(seed, 6), plan.suspicion_ms),
            nodes: Vec::new(),
            clients: Clients::new(
                seed,
                plan.clients,
                keys(plan.partitions, plan.keys),
                plan.nodes,
            ),
            ledgers: ledgers.collect(),
            coverage: Coverage::default(),
            is_undecided: false,
            healed_ms: None,
            is_closing: false,
            leaderless: 0,
            active: Vec::new(),
            trace: is_traced.then(Trace::default),
            plan: Rc::clone(&plan),
        };
        // The end at 0 is no node.
        for _ in 0..=plan.nodes {
            world.add_node();
        }
        world.nodes[0].is_gone = true;
        for node in 1..=plan.nodes {
            world.start(node);
        }
        world.after(5, Moment::Propose);
        world.after(10, Moment::Evict);
        for client in 0..plan.clients {
            world.after(30 + client as u64, Moment::Think(client));
        }
        for (number, event) in plan.faults.iter().enumerate() {
            world.after(event.at_ms, Moment::Begin(number));
        }
        world
    }

    pub(crate) fn add_node(&mut self) {
        let id = self.nodes.len();
        let slots = self.ledgers.iter().enumerate().map(|(p, ledger)| Slot {
            replica: None,
            table: Watched::create(self.size(id, p), Rc::clone(ledger)),
            view: Rc::default(),
            starts: BTreeSet::new(),
            handed: Written::default(),
            kept: Written::default(),
            pull: None,
            unsettled: Vec::new(),
            parts: Vec::new(),
        });
        let persistence = self.plan.persistence[id];
        let node = Node::new(id, persistence, slots.collect());
        self.nodes.push(node);
    }

    /// Nodes have room for as much as others, or for less.
    fn size(&self, n: usize, p: usize) -> Size {
        Size {
            records: self.plan.rooms[n],
            partition: partition(p),
            bugs: self.bugs,
            scans_by_key: self.plan.part_records < 4,
        }
    }

    pub(crate) fn after(&mut self, wait_ms: u64, moment: Moment<S>) {
        self.order += 1;
        self.due.push(Reverse(Due {
            at_ms: self.now_ms + wait_ms,
            order: self.order,
            moment,
        }));
    }

    pub(crate) fn work(&mut self, wait_ms: u64, node: usize, work: Work<S>) {
        let incarnation = self.nodes[node].incarnation;
        self.after(wait_ms, Moment::At(node, incarnation, work));
    }

    /// Goes on until a time.
    pub fn run_until(&mut self, until_ms: u64) {
        while let Some(Reverse(due)) = self.due.peek()
            && due.at_ms <= until_ms
        {
            let Reverse(due) = self.due.pop().expect("it is there");
            self.now_ms = due.at_ms;
            self.happen(due.moment);
        }
        self.now_ms = until_ms;
    }

    fn happen(&mut self, moment: Moment<S>) {
        match moment {
            Moment::At(node, incarnation, work) => {
                let is_that =
                    self.nodes[node].is_running && self.nodes[node].incarnation == incarnation;
                if is_that {
                    self.turn(node, work);
                } else if let Work::Request(client, operation) = work {
                    self.tell(client, operation.number, Reply::Refused, None);
                }
            }
            Moment::Report(report) => {
                let node = report.node.0 as usize;
                let known = report.epoch;
                self.control.hear(self.now_ms, report);
                if known < self.topology.epoch() {
                    self.show_topology(node);
                }
            }
            Moment::Propose => {
                self.after(PROPOSE_MS, Moment::Propose);
                if self.leaderless == 0 {
                    for command in self.control.propose(self.now_ms, &self.topology) {
                        let wait_ms = self.random.within(1, 6);
                        self.after(wait_ms, Moment::Commit(command));
                    }
                }
            }
            Moment::Commit(command) => self.commit(&command),
            Moment::Think(client) => self.think(client),
            Moment::Ask(client, number) => self.ask(client, number),
            Moment::Told(client, number, reply, leader) => {
                self.told(client, number, reply, leader);
            }
            Moment::GiveUp(client, number) => {
                if self.waits_for(client, number) {
                    self.end(client, Outcome::Unknown);
                }
            }
            Moment::Begin(number) => self.begin_fault(number),
            Moment::End(number) => self.end_fault(number),
            Moment::Evict => {
                self.after(10, Moment::Evict);
                self.evict();
            }
        }
    }

    /// Starts a node that does not run.
    pub(crate) fn start(&mut self, n: usize) {
        let (bugs, part_records) = (self.bugs, self.plan.part_records);
        let now_ms = self.now_ms;
        let node = &mut self.nodes[n];
        assert!(!node.is_running, "it does not run");
        node.is_running = true;
        node.incarnation += 1;
        node.down_by = None;
        node.is_registered = false;
        node.is_latched = false;
        node.is_writing = false;
        node.is_flushing = false;
        let (most_append_bytes, most_frame_bytes) = self.plan.outbox_bytes;
        node.carrier = Carrier::new(most_append_bytes, most_frame_bytes);
        node.clock = Clock::new(now_ms, 1_000_000 + now_ms);
        node.aligned.fill(0);
        node.opened.fill(0);
        node.rested.fill(0);
        for slot in &mut node.slots {
            let (state, progress) = (slot.table.state().clone(), slot.table.progress());
            let replica = Replica::new(node.id, node.incarnation, state, progress);
            let replica = replica.with_vouching().with_queue().with_bugs(bugs);
            slot.replica = Some(replica.with_parts_of(part_records));
            slot.table.me = Some((node.id, node.incarnation));
            slot.view = Rc::default();
            slot.handed = Written::default();
            slot.kept = Written {
                mark: 0,
                seq: progress.last.seq(),
                term: progress.last.term(),
            };
            slot.pull = None;
            slot.parts.clear();
        }
        let lost = node.has_lost_memory;
        // What it had of the topology is on its disk as well, or an earlier state of it.
        let epoch = node.epoch;
        if lost {
            self.coverage.rule(Rule::Forgot);
        }
        self.nodes[n].epoch = if lost || epoch == 0 || self.random.one_in(2) {
            0
        } else {
            self.random.within(1, u64::from(epoch)) as Epoch
        };
        note!(
            self,
            "node {n} starts, number {}{}",
            self.nodes[n].incarnation,
            if lost { ", memory lost" } else { "" }
        );
        self.work(0, n, Work::Report);
        let wait_ms = self.random.below(TICK_MS);
        self.work(wait_ms, n, Work::Tick);
        if self.nodes[n].persistence == Persistence::Interval {
            self.work(SYNC_MS, n, Work::Sync);
        }
    }

    /// Ends a node, or its machine.
    pub(crate) fn crash(&mut self, n: usize, is_machine: bool) {
        note!(self, "node {n} ends");
        let node = &mut self.nodes[n];
        node.is_running = false;
        node.backlog.clear();
        let is_told = node.is_registered || !node.has_lost_memory;
        node.has_lost_memory = match node.persistence {
            Persistence::Always => !is_told,
            Persistence::Interval => is_machine || !is_told,
            Persistence::Memory => true,
        };
        for (p, ledger) in self.ledgers.iter().enumerate() {
            let size = self.size(n, p);
            let node = &mut self.nodes[n];
            let slot = &mut node.slots[p];
            slot.replica = None;
            ledger
                .borrow_mut()
                .leave(&std::mem::take(&mut slot.unsettled));
            let before = slot.table.progress().last;
            if node.persistence == Persistence::Memory {
                slot.table = Watched::create(size, Rc::clone(ledger));
            } else {
                let found = slot.table.crash(is_machine, &mut self.disks);
                if found.progress.last < before {
                    self.coverage.rule(Rule::TornTail);
                }
                // What there is no room for any more may have been promised.
                node.has_lost_memory |= found.has_lost_memory;
            }
        }
        self.note_amnesia(n);
        let node = &self.nodes[n];
        if !node.has_lost_memory {
            for (slot, ledger) in node.slots.iter().zip(&self.ledgers) {
                let ledger = ledger.borrow();
                let (state, progress) = (slot.table.state(), slot.table.progress());
                ledger.check_promises((node.id, node.incarnation), state, progress);
            }
        }
        self.break_requests(n);
    }

    fn note_amnesia(&mut self, n: usize) {
        let node = &self.nodes[n];
        if node.has_lost_memory {
            for ledger in &self.ledgers {
                ledger.borrow_mut().forgets(node.id);
            }
        }
    }

    /// Its disk is empty.
    pub(crate) fn lose_disk(&mut self, n: usize) {
        self.nodes[n].has_lost_memory = true;
        self.note_amnesia(n);
        for (p, ledger) in self.ledgers.iter().enumerate() {
            let size = self.size(n, p);
            self.nodes[n].slots[p].table = Watched::create(size, Rc::clone(ledger));
        }
    }

    /// A node does something, or will when it wakes.
    pub(crate) fn turn(&mut self, n: usize, work: Work<S>) {
        if self.nodes[n].pauses > 0 {
            self.nodes[n].backlog.push(work);
            return;
        }
        match work {
            Work::Frame(from, of, frame) => self.receive(n, from, of, frame),
            Work::Flush => self.flush(n),
            Work::Tick => {
                let wait_ms =
                    (TICK_MS * 1_000 / (1_000 + self.nodes[n].clock.gains()) as u64).max(1);
                self.work(wait_ms, n, Work::Tick);
                for p in 0..self.plan.partitions {
                    self.give(n, p, Input::Tick);
                }
                if self.nodes[n].carrier.has_waiting() {
                    self.flush_soon(n);
                }
                let given_up = self.nodes[n].carrier.given_up(self.now_ms);
                self.vouched(n, given_up);
            }
            Work::Turn(p, to) => self.give(n, p, Input::Turn(to)),
            Work::Hand => self.hand(n),
            Work::OnDisk(batches) => self.on_disk(n, batches),
            Work::Sync => {
                self.work(SYNC_MS, n, Work::Sync);
                let node = &mut self.nodes[n];
                if !node.is_latched {
                    for slot in &mut node.slots {
                        slot.table.store.sync_written();
                    }
                }
            }
            Work::Report => {
                self.work(REPORT_MS, n, Work::Report);
                self.report(n);
            }
            Work::See(epoch) => self.see(n, epoch),
            Work::Request(client, operation) => self.serve(n, client, &operation),
            Work::Expire(request) => {
                if let Some(asked) = self.clients.asked.get(&request) {
                    let (p, _) = asked.place;
                    self.coverage.rule(Rule::Expired);
                    if self.nodes[n].carrier.expire(request) {
                        self.answer(n, request, Answer::NotStamped);
                    } else {
                        self.give(n, p, Input::Expired(request));
                    }
                }
            }
        }
    }

    fn receive(&mut self, n: usize, from: NodeId, of: Incarnation, frame: FrameOf<S>) {
        if self.network.is_cut(from.0 as usize, n) {
            return;
        }
        for (of_partition, message) in frame.messages {
            let p = usize::from(of_partition.number());
            if let (Body::Append { entry, .. }, true) = (&message.body, self.bugs.has(20)) {
                // Planted: what has come is acknowledged, whether it was taken or not.
                let (term, applied) = (message.term, entry.version.seq());
                let body = Body::Ack { applied };
                let ack = Message { term, body };
                let carrier = &mut self.nodes[n].carrier;
                carrier.put(of_partition, from, of, ack);
                self.flush_soon(n);
            }
            self.hear(n, p, from, of, message);
        }
        if frame.acks.len() > 1 {
            self.coverage.rule(Rule::AcksTogether);
        }
        for (p, term, applied) in frame.acks {
            let body = Body::Ack { applied };
            self.hear(n, p.number().into(), from, of, Message { term, body });
        }
        if let Some((number, probes)) = frame.probes {
            if probes.len() > 1 {
                self.coverage.rule(Rule::ProbesTogether);
            }
            self.nodes[n].carrier.begin_answer(from, of, number);
            for (p, term, number) in probes {
                let body = Body::Probe { number };
                self.hear(n, p.number().into(), from, of, Message { term, body });
            }
            self.nodes[n].carrier.end_answer(from);
            self.flush_soon(n);
        }
        if let Some(echoes) = frame.echoes {
            let (unnamed, reads) = self.nodes[n].carrier.answered(from, &echoes);
            self.vouched(n, reads);
            if !unnamed.is_empty() {
                self.coverage.rule(Rule::EchoesUnnamed);
            }
            for (p, term, number) in echoes.marks.into_iter().chain(unnamed) {
                let body = Body::Echo { number };
                self.hear(n, p.number().into(), from, of, Message { term, body });
            }
            if self.nodes[n].carrier.has_waiting() {
                self.flush_soon(n);
            }
        }
    }

    /// Others have vouched for what reads have seen, or have not.
    fn vouched(&mut self, n: usize, reads: Vec<(Vouched<S>, bool)>) {
        for ((p, seen), is_vouched) in reads {
            if is_vouched {
                self.coverage.rule(Rule::Vouched);
                self.show(n, seen.id, seen.reply);
            } else {
                self.coverage.rule(Rule::Unvouched);
                self.give(n, p.number().into(), Input::Unvouched(seen));
            }
        }
    }

    fn hear(
        &mut self,
        n: usize,
        p: usize,
        from: NodeId,
        of: Incarnation,
        message: Message<EffectsOf<S>, ValueOf<S>>,
    ) {
        self.coverage.message(&message.body);
        note!(self, "{n}/{p} hears from {from}.{of}: {message:?}");
        if let Body::Abort { id } = message.body {
            let slot = &mut self.nodes[n].slots[p];
            if slot.pull == Some(id) && message.term == slot.table.state().adopted {
                slot.table.pulls = None;
            }
        }
        if let Body::Part { number, .. } = message.body
            && number > 0
        {
            self.coverage.rule(Rule::CopyInParts);
        }
        self.give(n, p, Input::Message(from, of, message));
    }

    fn flush_soon(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if !node.is_flushing {
            node.is_flushing = true;
            let wait_ms = self.random.below(2);
            self.work(wait_ms, n, Work::Flush);
        }
    }

    fn flush(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.is_flushing = false;
        let (id, incarnation) = (node.id, node.incarnation);
        let mut frames = Vec::new();
        let is_cut = |to: NodeId| self.network.is_cut(n, to.0 as usize);
        node.carrier.flush(self.now_ms, is_cut, |to, frame| {
            frames.push((to.0 as usize, frame.incarnation, S::carry(frame)));
        });
        for (to, its, frame) in frames {
            let [first, again] = self.network.send(self.now_ms, n, to);
            let again = again.map(|at| (at, frame.clone()));
            let first = first.map(|at| (at, frame));
            for (at, frame) in first.into_iter().chain(again) {
                let moment = Moment::At(to, its, Work::Frame(id, incarnation, frame));
                self.after(at - self.now_ms, moment);
            }
        }
    }

    /// Gives a replica an input, and carries its outputs out.
    pub(crate) fn give(&mut self, n: usize, p: usize, input: Input<'_, S::Kind>) {
        let node = &mut self.nodes[n];
        let now_ms = node.clock.read(self.now_ms);
        let slot = &mut node.slots[p];
        let Some(replica) = &mut slot.replica else {
            return;
        };
        let me = (node.id, node.incarnation);
        let before = slot.table.progress();
        let adopted = replica.state().adopted;
        replica.handle(&mut slot.table, now_ms, input);
        if replica.state().adopted != adopted {
            node.carrier.adopted();
        }
        slot.table.look();
        if !slot.view.placement.names(node.id) && slot.table.state().history.terms().is_empty() {
            self.ledgers[p].borrow_mut().dismiss(me);
            // A copy that was under way is given up.
            slot.table.pulls = None;
        }
        let placement = &slot.view.placement;
        let state = slot.table.state();
        let progress = slot.table.progress();
        let leads = placement.leader == Some(me) && placement.term == state.adopted;
        let has_base = before.last.term() == placement.term;
        if leads && has_base && progress.commit > before.commit {
            let kept = (slot.kept.term == placement.term).then_some(slot.kept.seq);
            let own = (me.0, kept);
            let ledger = self.ledgers[p].borrow();
            ledger.check_commit(placement, &slot.view.incarnations, own, progress.commit);
            self.coverage.rule(if placement.new_list().is_some() {
                Rule::CommittedInJoint
            } else {
                Rule::Committed
            });
        }
        let written = replica.written(&slot.table);
        let hands = written.mark > slot.handed.mark && !node.is_writing;
        if hands {
            node.is_writing = true;
        }
        let mut outputs = Vec::new();
        while let Some(output) = replica.poll() {
            outputs.push(output);
        }
        if hands {
            let wait_ms = self.disks.below(2);
            self.work(wait_ms, n, Work::Hand);
        }
        for output in outputs {
            self.carry_out(n, p, output);
        }
    }

    fn carry_out(&mut self, n: usize, p: usize, output: Output<S::Kind>) {
        let node = &mut self.nodes[n];
        let me = (node.id, node.incarnation);
        match output {
            Output::Send(to, incarnation, message) => {
                note!(self, "{n}/{p} says to {to}.{incarnation}: {message:?}");
                self.watch(n, p, to, &message);
                let node = &mut self.nodes[n];
                let dropped = node.carrier.dropped();
                node.carrier.put(partition(p), to, incarnation, message);
                if node.carrier.dropped() > dropped {
                    self.coverage.rule(Rule::NoRoomOnTheWay);
                }
                self.flush_soon(n);
            }
            Output::Answer(request, answer) => self.answer(n, request, answer),
            Output::Vouch(vouch) => {
                // Invariant 9.
                assert!(
                    vouch.seen.seq <= self.committed(n, p),
                    "{:?} is about to be shown, and is not committed",
                    vouch.seen
                );
                let node = &mut self.nodes[n];
                if let Some((_, seen)) = node.carrier.wait(partition(p), vouch) {
                    self.give(n, p, Input::Unvouched(seen));
                } else {
                    self.flush_soon(n);
                }
            }
            Output::Opened(term) => {
                note!(self, "{n}/{p} opens term {term}");
                self.ledgers[p].borrow_mut().opened(term, me);
                node.opened[p] = term;
                node.aligned[p] = term;
            }
            Output::Aligned(term) => node.aligned[p] = node.aligned[p].max(term),
            Output::Lost(loss) => {
                note!(self, "{n}/{p} reports {loss:?}");
                self.ledgers[p].borrow_mut().lose(&loss);
            }
            Output::Unsettled(losses) => node.slots[p].unsettled = losses,
            Output::Queued { to, .. } => {
                self.coverage.rule(Rule::CopyQueued);
                // Mostly there is room for it.
                let is_held = self.random.one_in(4);
                let wait_ms = if is_held {
                    self.random.within(1, 8 * TICK_MS)
                } else {
                    0
                };
                self.work(wait_ms, n, Work::Turn(p, to));
            }
            Output::Rested(term) => {
                note!(self, "{n}/{p} rests in term {term}");
                self.coverage.rule(Rule::Rested);
                node.rested[p] = term;
            }
        }
    }

    /// What is said is a promise, or rests on others'.
    fn watch(
        &mut self,
        n: usize,
        p: usize,
        to: NodeId,
        message: &Message<EffectsOf<S>, ValueOf<S>>,
    ) {
        let node = &mut self.nodes[n];
        let me = (node.id, node.incarnation);
        let slot = &mut node.slots[p];
        let mut ledger = self.ledgers[p].borrow_mut();
        let coverage = &mut self.coverage;
        let term = message.term;
        match &message.body {
            Body::Fence { .. } => ledger.start(term, me),
            Body::Fenced { .. } => ledger.fence(me, term),
            Body::Open { base, .. } => {
                let view = &slot.view;
                ledger.open(&view.placement, &slot.starts, me.0, (term, *base));
            }
            Body::Ack { applied } => {
                ledger.ack(me, term, *applied);
            }
            Body::Aligned { applied } => {
                let is_repeated = ledger.ack(me, term, *applied);
                if is_repeated {
                    coverage.rule(Rule::AlignedAgain);
                } else if slot.table.copied != Some(term) {
                    coverage.rule(Rule::AlignedAsIs);
                }
            }
            Body::Pull {
                id, common, wanted, ..
            } => {
                let progress = slot.table.progress();
                // Invariant 5: what it has dropped is in what both have.
                let is_known = slot.table.state().history.terms().len() < 64;
                assert!(
                    *common >= progress.horizon || !is_known,
                    "it pulls from {common} on, and has dropped up to {}",
                    progress.horizon
                );
                coverage.rule(match (wanted, slot.table.pulls) {
                    (_, Some(of)) if of == term => Rule::CopyAgain,
                    (Some(_), _) => Rule::BasePulled,
                    (None, _) if progress.last.term() == term => Rule::Gap,
                    (None, _) => Rule::CopyBegan,
                });
                slot.table.pulls = Some(term);
                slot.pull = Some(*id);
            }
            Body::Part { id, is_full, .. } => {
                let last = slot
                    .parts
                    .iter()
                    .find(|(node, of, _)| *node == to && of == id);
                if last.is_some_and(|&(_, _, was_full)| *is_full && !was_full) {
                    coverage.rule(Rule::CopyBecameFull);
                }
                slot.parts.retain(|&(node, ..)| node != to);
                slot.parts.push((to, *id, *is_full));
            }
            Body::Refused { .. } => coverage.rule(Rule::Refused),
            _ => {}
        }
    }

    /// What tables have written goes to the disk.
    fn hand(&mut self, n: usize) {
        let (least, most) = self.plan.disk_ms;
        let node = &mut self.nodes[n];
        let mut batches = Vec::new();
        for (partition, slot) in node.slots.iter_mut().enumerate() {
            let Some(replica) = &slot.replica else {
                continue;
            };
            let written = replica.written(&slot.table);
            if written.mark > slot.handed.mark {
                slot.handed = written;
                let number = slot.table.store.hand();
                batches.push(Batch {
                    partition,
                    number,
                    written,
                });
            }
        }
        let takes_ms = match node.persistence {
            Persistence::Memory => 0,
            // It is the kernel that has it.
            Persistence::Interval => self.disks.within(0, 1) * node.disk_factor,
            Persistence::Always => self.disks.within(least, most) * node.disk_factor,
        };
        let takes_ms = takes_ms.min(SLOWEST_DISK_MS);
        self.work(takes_ms, n, Work::OnDisk(batches));
    }

    fn on_disk(&mut self, n: usize, batches: Vec<Batch>) {
        let node = &mut self.nodes[n];
        if node.is_latched {
            // The first error is the last: nothing is kept any more, until it is started anew.
            return;
        }
        node.is_writing = false;
        let is_synced = node.persistence != Persistence::Interval;
        for batch in batches {
            let slot = &mut self.nodes[n].slots[batch.partition];
            slot.table.store.written(batch.number);
            if is_synced {
                slot.table.store.sync_written();
            }
            slot.kept = slot.kept.max(batch.written);
            self.give(n, batch.partition, Input::Kept(batch.written));
        }
        let node = &mut self.nodes[n];
        let is_dirty = node.slots.iter().any(|slot| {
            let replica = slot.replica.as_ref();
            replica.is_some_and(|replica| replica.written(&slot.table).mark > slot.handed.mark)
        });
        if is_dirty && !node.is_writing {
            node.is_writing = true;
            self.work(0, n, Work::Hand);
        }
    }

    fn evict(&mut self) {
        for n in 1..self.nodes.len() {
            if !self.nodes[n].is_running || self.nodes[n].pauses > 0 {
                continue;
            }
            let times = match self.nodes[n].evicting {
                0 => u64::from(self.random.one_in(20)),
                _ => self.random.below(4),
            };
            for _ in 0..times {
                let p = self.random.place(self.plan.partitions);
                self.nodes[n].slots[p].table.evict(&mut self.random);
            }
        }
    }
}
