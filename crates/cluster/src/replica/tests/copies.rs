//! Copies whose messages come twice.

use super::*;

/// Two replicas, the first of which leads, and what they have said to each other.
struct Pair {
    nodes: [(Replica<Map>, Map); 2],
    said: Vec<(usize, MessageOf<Map>)>,
}

impl Pair {
    fn new() -> Self {
        let mut topology = Topology::new(2, OnQuorumLoss::Forget);
        for node in [1, 2].map(NodeId) {
            let register = Command::Register {
                node,
                incarnation: 1,
                has_lost_memory: false,
                weight: 1,
                zone: None,
            };
            topology.apply(&register).expect("it is new");
        }
        topology.apply(&Command::Rebalance).expect("it is formed");
        let placement = topology.placement(partition()).clone();
        let (leader, _) = placement.leader.expect("somebody leads");
        let other = NodeId(3 - leader.0);
        let view = View {
            incarnations: [1, 2].map(|id| (NodeId(id), 1)).into(),
            up: Vec::new(),
            placement,
        };
        let nodes = [leader, other].map(|id| {
            let replica = Replica::new(id, 1, State::default(), Progress::default());
            (replica.with_parts_of(1), Map::default())
        });
        let mut pair = Self {
            nodes,
            said: Vec::new(),
        };
        pair.give(1, Input::View(view.clone()));
        pair.give(0, Input::View(view));
        pair.deliver_all();
        pair
    }

    fn give(&mut self, to: usize, input: Input<Map>) {
        let (replica, map) = &mut self.nodes[to];
        replica.handle(map, 0, input);
        let written = replica.written(map);
        replica.handle(map, 0, Input::Kept(written));
        while let Some(output) = replica.poll() {
            if let Output::Send(_, _, message) = output {
                self.said.push((1 - to, message));
            }
        }
    }

    fn deliver(&mut self, (to, message): (usize, MessageOf<Map>)) {
        let from = self.nodes[1 - to].0.me;
        self.give(to, Input::Message(from, 1, message));
    }

    fn deliver_all(&mut self) {
        while !self.said.is_empty() {
            let next = self.said.remove(0);
            self.deliver(next);
        }
    }

    fn set(&mut self, key: u8, value: u64) {
        self.give(
            0,
            Input::Request(value, Level::Quorum, Request::Set(vec![key], value)),
        );
    }

    fn holds(&self, at: usize, key: u8) -> Option<u64> {
        self.nodes[at].1.record(&[key])?.value
    }
}

/// The source began the copy anew and forgot what had changed since its first part: the follower took the first part of one scan
/// and the second of the other for one copy, and said that it had all.
#[test]
fn a_pull_that_comes_twice_is_one_copy() {
    let mut pair = Pair::new();
    pair.set(b'a', 1);
    pair.set(b'b', 2);
    pair.said.clear();
    pair.give(0, Input::Tick);
    let beat = pair.said.pop().expect("the leader says how far it is");
    pair.deliver(beat);
    let pull = pair.said.pop().expect("the follower lacks something");
    assert!(matches!(pull.1.body, Body::Pull { .. }), "{pull:?}");
    pair.deliver(pull.clone());
    pair.set(b'a', 3);
    pair.deliver(pull);
    pair.deliver_all();
    assert_eq!(pair.nodes[1].1.progress().last.seq(), 3);
    for key in *b"ab" {
        assert_eq!(pair.holds(0, key), pair.holds(1, key), "{key}");
    }
}
