//! Three replicas over three shards with tiny rooms, and what each has on its disk: written to, the leader gone, copied in parts and
//! in full, and made again of log and snapshot.

use super::*;
use crate::replica::{Answer, Body, Input, Level, MessageOf, Output, Replica, RequestId, View};
use crate::ring::NodeId;
use crate::topology::{Incarnation, Placement};
use henge_wire::{Condition, Effect, Expiry, Guard, Operation, Precondition};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const NOW: u64 = 1_800_000_000_000;

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) settings: ShardSettings,
    pub(super) shard: Shard,
    /// None while it does not run.
    pub(super) replica: Option<Replica<Store>>,
    pub(super) files: Files,
}

pub(super) type Flight = (NodeId, Incarnation, NodeId, Incarnation, MessageOf<Store>);

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) view: View,
    pub(super) network: Vec<Flight>,
    pub(super) answers: BTreeMap<RequestId, Answer<Reply>>,
    pub(super) next_request: RequestId,
    /// Parts of copies that were delivered, in full and not.
    pub(super) full_parts: usize,
    pub(super) delta_parts: usize,
    pub(super) opened: u32,
}

pub(super) fn partition() -> Partition {
    Partition::of(b"{p}")
}

pub(super) fn key(name: &str) -> Vec<u8> {
    format!("{{p}}{name}").into_bytes()
}

impl World {
    pub(super) fn new(settings: &ShardSettings) -> Self {
        let nodes = (1..=3).map(|id| Node {
            id: NodeId(id),
            incarnation: 1,
            settings: settings.clone(),
            shard: settings.shard(),
            replica: None,
            files: Files::default(),
        });
        let mut world = Self {
            nodes: nodes.collect(),
            view: View::default(),
            network: Vec::new(),
            answers: BTreeMap::new(),
            next_request: 0,
            full_parts: 0,
            delta_parts: 0,
            opened: 0,
        };
        let all: Vec<NodeId> = world.nodes.iter().map(|node| node.id).collect();
        world.view.placement = Arc::new(Placement {
            old: all.clone(),
            voters: all.into_iter().collect(),
            generation: 1,
            ..Placement::default()
        });
        for n in 0..3 {
            let id = world.nodes[n].id;
            world.view.incarnations.insert(id, 1);
            let (state, progress) = (State::default(), Progress::default());
            world.nodes[n].replica = Some(Replica::new(id, 1, state, progress));
        }
        world
    }

    /// A node leads in the next term.
    pub(super) fn lead(&mut self, n: usize) {
        let node = &self.nodes[n];
        Arc::make_mut(&mut self.view.placement).term += 1;
        Arc::make_mut(&mut self.view.placement).leader = Some((node.id, node.incarnation));
        let runs = |node: &&Node| node.replica.is_some();
        self.view.up = self.nodes.iter().filter(runs).map(|node| node.id).collect();
        for n in 0..3 {
            self.give(n, Input::View(self.view.clone()));
        }
        self.settle();
    }

    pub(super) fn give(&mut self, n: usize, input: Input<'_, Store>) {
        let node = &mut self.nodes[n];
        let Some(replica) = &mut node.replica else {
            return;
        };
        let turn = node.settings.turn(NOW);
        let mut table = PartitionTable::new(&mut node.shard, partition(), turn);
        replica.handle(&mut table, NOW, input);
        while let Some(output) = replica.poll() {
            match output {
                Output::Send(to, incarnation, message) => {
                    let flight = (node.id, node.incarnation, to, incarnation, message);
                    self.network.push(flight);
                }
                Output::Answer(id, answer) => {
                    let before = self.answers.insert(id, answer);
                    assert!(before.is_none(), "{id} was answered twice");
                }
                Output::Opened(term) => self.opened = term,
                Output::Aligned(_) | Output::Rested(_) | Output::Lost(_) | Output::Unsettled(_) => {
                }
                Output::Vouch(_) => unreachable!("its replicas ask by themselves"),
                Output::Queued { .. } => unreachable!("its replicas copy at once"),
            }
        }
    }

    /// All that was written is kept, and all that was sent arrives, until nothing more comes of it.
    pub(super) fn settle(&mut self) {
        for _ in 0..4 {
            for _ in 0..500 {
                self.keep();
                if self.network.is_empty() {
                    break;
                }
                for flight in std::mem::take(&mut self.network) {
                    self.deliver(flight);
                }
            }
            for n in 0..3 {
                self.give(n, Input::Tick);
            }
        }
        self.network.clear();
    }

    pub(super) fn keep(&mut self) {
        for n in 0..3 {
            let node = &mut self.nodes[n];
            let Some(replica) = &node.replica else {
                continue;
            };
            let turn = node.settings.turn(NOW);
            let table = PartitionTable::new(&mut node.shard, partition(), turn);
            let written = replica.written(&table);
            node.files.write(&mut node.shard);
            node.files.sync();
            self.give(n, Input::Kept(written));
        }
    }

    pub(super) fn deliver(&mut self, (from, of, to, incarnation, message): Flight) {
        if let Body::Part { is_full, .. } = message.body {
            self.full_parts += usize::from(is_full);
            self.delta_parts += usize::from(!is_full);
        }
        let n = to.0 as usize - 1;
        if self.nodes[n].incarnation == incarnation {
            self.give(n, Input::Message(from, of, message));
        }
    }

    pub(super) fn ask(&mut self, n: usize, key: &[u8], operation: Operation<'_>) -> RequestId {
        self.next_request += 1;
        let id = self.next_request;
        let hash = self.nodes[n].shard.hash(key);
        let command = Command { key, operation };
        let request = Request::Command(&command, hash);
        self.give(n, Input::Request(id, Level::Quorum, request));
        id
    }

    /// Asks and waits for the answer.
    pub(super) fn run(&mut self, n: usize, key: &[u8], operation: Operation<'_>) -> Reply {
        let id = self.ask(n, key, operation);
        self.settle();
        match self.answers.remove(&id) {
            Some(Answer::Reply(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn set(&mut self, n: usize, name: &str, data: &[u8]) -> Version {
        match self.run(n, &key(name), set(data)) {
            Reply::Stored { version, .. } => version,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn get(&mut self, n: usize, name: &str) -> Option<Vec<u8>> {
        match self.run(n, &key(name), Operation::Get) {
            Reply::Found(value, _) => Some(value.data.to_vec()),
            Reply::Missing => None,
            other => panic!("{other:?}"),
        }
    }

    /// The process ends, and of what was not synced nothing is left.
    pub(super) fn crash(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.replica = None;
        node.files.lose(node.files.synced);
    }

    /// Starts it with what is on its disk.
    pub(super) fn start(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let found = node.files.recover(&node.settings, NOW);
        node.shard = found.shard;
        node.incarnation += 1;
        let replica = found.replicas.get(&partition()).cloned();
        let replica = replica.unwrap_or_default();
        assert!(!replica.has_lost_memory);
        node.replica = Some(Replica::new(
            node.id,
            node.incarnation,
            replica.state,
            replica.progress,
        ));
        self.view.incarnations.insert(node.id, node.incarnation);
        Arc::make_mut(&mut self.view.placement).term += 1;
        if self
            .view
            .placement
            .leader
            .is_some_and(|(id, _)| id == node.id)
        {
            Arc::make_mut(&mut self.view.placement).leader = None;
        }
        let leader = self
            .view
            .placement
            .leader
            .map_or(n, |(id, _)| id.0 as usize - 1);
        Arc::make_mut(&mut self.view.placement).term -= 1;
        self.lead(leader);
    }

    pub(super) fn progress(&mut self, n: usize) -> henge_engine::Progress {
        self.nodes[n].shard.progress(partition())
    }
}

pub(super) fn set(data: &[u8]) -> Operation<'_> {
    Operation::Set {
        value: henge_wire::Value::from_slice(data),
        expiry: Expiry::Never,
        precondition: Precondition::NONE,
    }
}

fn delete() -> Operation<'static> {
    Operation::Delete {
        precondition: Precondition::NONE,
    }
}

#[test]
fn what_was_written_outlives_the_leader_and_all_crashes() {
    let mut settings = settings(8, 1_000);
    // Without those a delete would make every copy one of all.
    settings.tombstone_bytes = 10_000;
    let mut world = World::new(&settings);
    world.lead(0);
    assert_eq!(world.opened, 1);
    let first = world.set(0, "a", b"1");
    assert_eq!(first, Version::new(1, 1));
    world.set(0, "b", &vec![b'b'; 10_000]);
    assert_eq!(world.run(0, &key("gone"), delete()), Reply::Missing);
    for n in 0..3 {
        assert_eq!(world.progress(n).last, Version::new(1, 3));
    }
    // The leader is gone, and another goes on.
    world.crash(0);
    world.lead(1);
    assert_eq!(world.get(1, "a").as_deref(), Some(&b"1"[..]));
    assert_eq!(world.set(1, "a", b"2"), Version::new(2, 4));
    assert_eq!(world.run(1, &key("b"), delete()), Reply::Deleted);
    // It comes back, and takes what it lacks: no more than that.
    world.start(0);
    assert_eq!((world.full_parts, world.delta_parts), (0, 1));
    assert_eq!(world.progress(0).last, world.progress(1).last);
    // All of them, one after the other, with and without a snapshot.
    for n in [1, 2, 0] {
        if n != 2 {
            let node = &mut world.nodes[n];
            node.files.snapshot(&mut node.shard, |_| {});
        }
        world.crash(n);
        world.lead((n + 1) % 3);
        world.start(n);
        assert_eq!(world.get((n + 1) % 3, "a").as_deref(), Some(&b"2"[..]));
        assert_eq!(world.get((n + 1) % 3, "b"), None);
    }
    assert_eq!(world.full_parts, 0);
}

/// What was dropped meanwhile nobody knows the keys of.
#[test]
fn who_was_away_for_long_copies_all() {
    let mut world = World::new(&settings(2, 20));
    world.lead(0);
    world.set(0, "old", b"old");
    world.set(0, "k", b"1");
    world.crash(2);
    world.lead(0);
    world.set(0, "k", b"2");
    for n in 0..60 {
        world.set(0, &format!("filler {n}"), &[b'f'; 3_000]);
    }
    assert!(world.progress(0).horizon > 3, "{:?}", world.progress(0));
    world.start(2);
    assert!(world.full_parts > 0, "{}", world.delta_parts);
    // The one that has copied leads, and shows nothing that was replaced.
    world.crash(0);
    world.lead(2);
    for name in ["old", "k"] {
        assert_eq!(world.get(2, name), None);
    }
    assert_eq!(
        world.get(2, "filler 59").as_deref(),
        Some(&[b'f'; 3_000][..])
    );
    // The copy is in its log, and made again of that.
    let before = world.progress(2);
    world.crash(2);
    let found = {
        let node = &mut world.nodes[2];
        node.files.recover(&node.settings, NOW)
    };
    let replica = &found.replicas[&partition()];
    assert_eq!(replica.progress.last, before.last);
    assert!(replica.progress.horizon <= replica.progress.commit);
    assert!(replica.progress.commit <= before.commit);
}

/// Which guard failed says that those before it hold: an answer waits for what they found as well.
#[test]
fn a_transaction_that_fails_shows_what_its_guards_found() {
    let mut world = World::new(&settings(8, 1_000));
    world.lead(0);
    world.set(0, "a", b"1");
    let write = world.ask(0, &key("a"), set(b"2"));
    // The others get nothing of that, and echo what they are asked.
    world.network.clear();
    let (a, b) = (key("a"), key("b"));
    let guard = |key, condition| Guard { key, condition };
    let guards = [
        guard(&a[..], Condition::Version(Version::new(1, 2))),
        guard(&b[..], Condition::Exists),
    ];
    let transaction = Transaction {
        guards: &guards,
        effects: &[(&b[..], Effect::Delete)],
    };
    world.next_request += 1;
    let id = world.next_request;
    let request = Request::Transaction(&transaction);
    world.give(0, Input::Request(id, Level::Quorum, request));
    for _ in 0..4 {
        for flight in std::mem::take(&mut world.network) {
            if matches!(flight.4.body, Body::Probe { .. } | Body::Echo { .. }) {
                world.deliver(flight);
            }
        }
    }
    assert_eq!(world.answers.get(&id), None);
    world.settle();
    assert!(world.answers.contains_key(&write) && world.answers.contains_key(&id));
}

/// What a leader has stamped that nobody else has is gone when the others have gone on without it, also from its disk.
#[test]
fn what_no_quorum_had_is_replaced() {
    let mut world = World::new(&settings(8, 1_000));
    world.lead(0);
    world.set(0, "a", b"1");
    for n in 0..5 {
        world.ask(0, &key(&format!("lost {n}")), set(b"lost"));
    }
    world.ask(0, &key("a"), set(b"lost"));
    // It is in its log, and on no way to the others.
    world.network.clear();
    world.keep();
    world.crash(0);
    world.lead(1);
    world.set(1, "b", b"2");
    world.start(0);
    assert_eq!((world.full_parts, world.delta_parts), (0, 1));
    for with_snapshot in [false, true] {
        if with_snapshot {
            let node = &mut world.nodes[0];
            node.files.snapshot(&mut node.shard, |_| {});
        }
        world.crash(0);
        world.start(0);
        world.lead(0);
        assert_eq!(world.get(0, "a").as_deref(), Some(&b"1"[..]));
        assert_eq!(world.get(0, "b").as_deref(), Some(&b"2"[..]));
        assert_eq!(world.get(0, "lost 3"), None);
    }
}
