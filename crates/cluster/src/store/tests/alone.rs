//! A replica that is alone, whose requests go past the machine, and others that come to it; and a leader whose next term is its
//! own as well.

use super::three::{NOW, World, key, partition, set};
use super::*;
use crate::replica::{Answer, Input, View};
use crate::ring::NodeId;
use crate::topology::{self, OnQuorumLoss, Topology};
use henge_wire::Operation;
use std::sync::Arc;

/// A world in which the first node is the only replica.
fn alone() -> World {
    let mut world = World::new(&settings(8, 1_000));
    Arc::make_mut(&mut world.view.placement).old = vec![NodeId(1)];
    Arc::make_mut(&mut world.view.placement).voters = [NodeId(1)].into_iter().collect();
    world.lead(0);
    assert!(is_alone(&world));
    world
}

fn is_alone(world: &World) -> bool {
    let replica = world.nodes[0].replica.as_ref();
    replica.expect("it runs").is_alone()
}

/// The second is to be a replica as well, and copies.
fn learner_joins(world: &mut World) -> View {
    let mut topology = Topology::with_partitions(1, 2, OnQuorumLoss::Forget);
    for node in [1, 2].map(NodeId) {
        let register = topology::Command::Register {
            node,
            incarnation: 1,
            has_lost_memory: false,
            weight: 1,
            zone: None,
        };
        for command in [register, topology::Command::Rebalance] {
            topology.apply(&command).expect("a node joins");
        }
    }
    let placement = topology.placement(Partition::new(0).expect("it is one"));
    assert_eq!(placement.learners().count(), 1);
    Arc::make_mut(&mut world.view.placement)
        .change
        .clone_from(&placement.change);
    world.view.clone()
}

/// As a node does for who is alone.
fn set_past_the_machine(world: &mut World, name: &str, data: &[u8]) {
    assert!(is_alone(world));
    let node = &mut world.nodes[0];
    let key = key(name);
    let (turn, hash) = (node.settings.turn(NOW), node.shard.hash(&key));
    let command = Command {
        key: &key,
        operation: set(data),
    };
    let reply = node.shard.execute(&turn, partition(), hash, &command);
    assert!(matches!(reply, Ok(henge_wire::Reply::Stored { .. })));
}

/// All three are replicas from now on.
fn joined_by_all(world: &mut World) {
    let all = [1, 2, 3].map(NodeId);
    Arc::make_mut(&mut world.view.placement).old = all.to_vec();
    Arc::make_mut(&mut world.view.placement).voters = all.into_iter().collect();
    world.lead(0);
    assert!(!is_alone(world));
}

#[test]
fn what_went_past_the_machine_comes_to_those_who_join() {
    let mut world = alone();
    set_past_the_machine(&mut world, "a", b"1");
    set_past_the_machine(&mut world, "a", b"2");
    assert_eq!(world.progress(0).commit, 2, "nobody else is asked");
    joined_by_all(&mut world);
    world.set(0, "b", b"3");
    assert_eq!(world.progress(2).last, world.progress(0).last);
    world.crash(0);
    world.lead(1);
    assert_eq!(world.get(1, "a").as_deref(), Some(&b"2"[..]));
    assert_eq!(world.get(1, "b").as_deref(), Some(&b"3"[..]));
}

/// What it promises to others from then on it has on its disk.
#[test]
fn what_went_past_the_machine_is_kept_before_it_counts() {
    let mut world = alone();
    set_past_the_machine(&mut world, "a", b"1");
    let all = [1, 2, 3].map(NodeId);
    let placement = Arc::make_mut(&mut world.view.placement);
    placement.old = all.to_vec();
    placement.voters = all.into_iter().collect();
    placement.term += 1;
    let view = world.view.clone();
    for n in 0..3 {
        world.give(n, Input::View(view.clone()));
    }
    assert!(world.network.is_empty(), "its fence waits for the log");
    world.keep();
    assert!(!world.network.is_empty());
    world.crash(0);
    world.start(0);
    assert_eq!(world.get(0, "a").as_deref(), Some(&b"1"[..]));
}

/// What is written may all be in the log before another comes, and then the log would have nothing more to say.
#[test]
fn who_was_alone_has_the_log_say_how_far_it_is() {
    let mut world = alone();
    set_past_the_machine(&mut world, "a", b"1");
    world.keep();
    assert!(!world.nodes[0].shard.has_journal());
    let view = learner_joins(&mut world);
    world.give(0, Input::View(view));
    // What was sent at once is lost.
    world.network.clear();
    world.give(0, Input::Tick);
    assert!(world.network.is_empty(), "it waits for the log");
    assert!(world.nodes[0].shard.has_journal());
    world.keep();
    assert!(!world.network.is_empty());
}

/// The table takes for committed what is in no log yet. An answer that goes through the machine waits for the log all the same.
#[test]
fn what_went_past_the_machine_is_shown_by_it_once_it_is_kept() {
    for has_learner in [true, false] {
        let mut world = alone();
        set_past_the_machine(&mut world, "a", b"1");
        if has_learner {
            let view = learner_joins(&mut world);
            world.give(0, Input::View(view));
            assert!(!is_alone(&world));
        }
        let read = world.ask(0, &key("a"), Operation::Get);
        let write = world.ask(0, &key("b"), set(b"2"));
        let other = world.ask(0, &key("b"), Operation::Get);
        assert!(world.answers.is_empty(), "{:?}", world.answers);
        world.keep();
        for id in [read, write, other] {
            assert!(world.answers.contains_key(&id));
        }
    }
}

/// A change of the replicas is a new term. Who waits for what its leader has stamped before is answered in it.
#[test]
fn who_leads_on_answers_those_who_wait() {
    let mut world = alone();
    joined_by_all(&mut world);
    let write = world.ask(0, &key("a"), set(b"1"));
    let read = world.ask(0, &key("a"), Operation::Get);
    assert!(world.answers.is_empty());
    // What was sent of that is lost with the term.
    world.network.clear();
    world.lead(0);
    let stored = world.answers.remove(&write);
    assert!(
        matches!(stored, Some(Answer::Reply(Reply::Stored { .. }))),
        "{stored:?}"
    );
    let found = world.answers.remove(&read);
    assert!(
        matches!(found, Some(Answer::Reply(Reply::Found(..)))),
        "{found:?}"
    );
    assert_eq!(world.progress(2).last, world.progress(0).last);
}

/// Not if another has led in between: then nobody knows.
#[test]
fn who_led_before_another_cannot_tell() {
    let mut world = alone();
    joined_by_all(&mut world);
    world.set(0, "a", b"0");
    let write = world.ask(0, &key("a"), set(b"1"));
    world.network.clear();
    // It hears nothing of the next term, nor the others of what it has stamped.
    let (replica, view) = (world.nodes[0].replica.take(), world.view.clone());
    world.lead(1);
    world.set(1, "a", b"2");
    world.nodes[0].replica = replica;
    assert!(world.view.placement.term > view.placement.term);
    world.lead(0);
    assert_eq!(world.answers.remove(&write), Some(Answer::Unknown));
    assert_eq!(world.get(0, "a").as_deref(), Some(&b"2"[..]));
}
