//! What a new term takes over, and what becomes of those who hear of it late: of removals, of resets, of seeds.

use super::lab::Lab;
use super::*;
use crate::testing::map::Request;

fn key() -> Key {
    vec![b'k']
}

fn set(value: u64) -> Request {
    Request::Set(key(), value)
}

/// A node joins the cluster, a replica moves to it, it leaves, and the replica moves back. The one that had it all the while
/// acknowledges a write, and only then sees the state in which it was in no list.
fn moves_away_and_back(replays_at_a_restart: bool) {
    let mut lab = Lab::new(3, 8, 3);
    // A partition that will move away from one that does not lead it.
    let mut next = lab.topology.clone();
    let joins = Command::Register {
        node: NodeId(4),
        incarnation: 1,
        has_lost_memory: false,
        weight: 1,
        zone: None,
    };
    for command in [joins, Command::Rebalance] {
        next.apply(&command).expect("a node joins");
    }
    let (partition, x) = next
        .partitions()
        .find_map(|partition| {
            let placement = next.placement(partition);
            let is_gone = |node: &&NodeId| !placement.goal().contains(node);
            let gone = placement.old.iter().find(is_gone)?;
            (placement.leader?.0 != *gone).then_some((partition, gone.0))
        })
        .expect("one moves");
    lab.partition = partition;
    let a = lab.leader();
    let b = 6 - a - x;
    lab.all_see(&[a, b, x]);
    lab.settle(&[a, b, x]);
    lab.ask(a, Level::Quorum, set(1));
    lab.settle(&[a, b, x]);
    let named = lab.topology.epoch();

    lab.join(4, 1);
    lab.up(4);
    let removed = lab.change(&[a, b, 4], &[x]);
    assert!(!lab.placement().names(NodeId(x)));
    lab.command(&Command::Leave(NodeId(4)));
    lab.change(&[a, b, 4], &[x]);
    assert!(lab.placement().names(NodeId(x)) && lab.leader() == a);
    if replays_at_a_restart {
        // It is no laggard: it sees all there is, then starts anew and hears the sequence from its begin.
        lab.see(x, lab.topology.epoch());
        lab.settle(&[a, b, x]);
    }
    let write = lab.ask(a, Level::Quorum, set(2));
    // B hears nothing of it.
    lab.settle(&[a, x]);
    assert!(lab.is_done(write));

    if replays_at_a_restart {
        lab.restart(x, false);
        lab.see(x, named);
    }
    lab.see(x, removed);
    lab.keep(x);
    assert_eq!(lab.last(x), lab.last(a));

    lab.down(a);
    lab.all_see(&[b, x]);
    lab.ticks(&[b, x], 5);
    assert_eq!(lab.read(&[b, x], &key()), Some(2));
}

#[test]
fn who_was_taken_in_again_keeps_what_it_has_when_it_hears_that_it_was_gone() {
    moves_away_and_back(false);
}

#[test]
fn who_was_taken_in_again_keeps_what_it_has_when_it_hears_all_anew() {
    moves_away_and_back(true);
}

/// What a replica held that was in no list is wiped by whoever hears of that late, if it was not taken in again.
#[test]
fn who_is_gone_for_good_forgets_even_after_a_restart() {
    let (mut lab, [a, b, c]) = Lab::three();
    let all = [a, b, c];
    lab.ask(a, Level::All, set(1));
    lab.ticks(&all, 2);
    lab.join(4, 1);
    lab.up(4);
    lab.command(&Command::Leave(NodeId(c)));
    lab.change(&[a, b, 4], &[c]);
    lab.restart(c, false);
    assert_ne!(lab.last(c), Version::default());
    // Of the states in which it was named it sees none.
    lab.see(c, lab.topology.epoch());
    assert_eq!(lab.last(c), Version::default());
}

/// What is said again at each tick waits for the log but once.
#[test]
fn what_waits_for_a_log_that_stands_still_does_not_grow() {
    let held = |lab: &Lab, id| lab.nodes[&id].replica.held.len();
    let (mut lab, [a, b, c]) = Lab::three();
    lab.down(a);
    lab.all_see(&[b, c]);
    for _ in 0..50 {
        lab.keep(b);
        lab.give(b, Input::Tick);
        while lab.deliver(&[b, c]) {}
    }
    assert!(held(&lab, c) < 5, "{}", held(&lab, c));
    lab.settle(&[b, c]);
    assert!(lab.has_opened());

    let (mut lab, [a, b, c]) = Lab::three();
    lab.down(a);
    lab.all_see(&[b, c]);
    // It keeps that it leads, and not the base that it finds.
    lab.keep(b);
    while lab.deliver(&[b, c]) {}
    lab.keep(c);
    while lab.deliver(&[b, c]) {}
    for _ in 0..50 {
        lab.give(b, Input::Tick);
    }
    assert!(held(&lab, b) < 5, "{}", held(&lab, b));
    lab.ticks(&[b, c], 3);
    assert!(lab.has_opened());
}

/// FLUSHALL, and then a reset by loss whose seed has seen only that.
#[test]
fn a_seed_forgets_where_all_was_to_be_forgotten_before() {
    let (mut lab, [a, b, c]) = Lab::three();
    lab.ask(a, Level::All, set(1));
    lab.ticks(&[a, b, c], 2);
    lab.command(&Command::Reset(vec![lab.partition]));
    lab.all_see(&[b, c]);
    lab.settle(&[b, c]);
    lab.restart(b, true);
    lab.restart(c, true);
    assert_eq!(lab.placement().seed, Some((NodeId(a), 1)));
    lab.all_see(&[a, b, c]);
    lab.settle(&[a, b, c]);
    lab.ticks(&[a, b, c], 5);
    assert!(lab.has_opened());
    assert_eq!(lab.read(&[a, b, c], &key()), None);
}

/// Two lose their memory; the one who leads still has all of it, and those who count have it from there.
#[test]
fn a_seed_keeps_what_it_has() {
    let (mut lab, [a, b, c]) = Lab::three();
    lab.ask(a, Level::All, set(1));
    lab.ticks(&[a, b, c], 2);
    lab.restart(b, true);
    lab.restart(c, true);
    lab.all_see(&[a, b, c]);
    lab.ticks(&[a, b, c], 5);
    assert!(lab.has_opened() && lab.agree(a, b) && lab.agree(a, c));
    assert_eq!(lab.read(&[a, b, c], &key()), Some(1));
}

/// The same where the one who leads sees the losses one by one: it leads a term in between that has no base, as nobody who counts
/// answers its fence.
#[test]
fn a_seed_keeps_what_it_has_though_it_fences_anew() {
    let (mut lab, [a, b, c]) = Lab::three();
    lab.ask(a, Level::All, set(1));
    lab.ticks(&[a, b, c], 2);
    for lost in [b, c] {
        lab.restart(lost, true);
        lab.see(a, lab.topology.epoch());
    }
    lab.all_see(&[b, c]);
    lab.ticks(&[a, b, c], 5);
    assert!(lab.has_opened() && lab.agree(a, b) && lab.agree(a, c));
    assert_eq!(lab.read(&[a, b, c], &key()), Some(1));
}

/// One that led, slept through the leadership of another, is named as leader again, and then as a seed: it has seen but the last of that.
#[test]
fn a_seed_that_slept_through_the_leadership_of_another_forgets() {
    let (mut lab, [a, b, c]) = Lab::three();
    lab.ask(a, Level::All, set(1));
    lab.ticks(&[a, b, c], 2);
    lab.down(a);
    lab.all_see(&[b, c]);
    lab.settle(&[b, c]);
    let write = lab.ask(b, Level::Quorum, set(2));
    lab.settle(&[b, c]);
    assert!(lab.is_done(write));
    lab.up(a);
    lab.restart(b, true);
    lab.restart(c, true);
    assert_eq!(
        (lab.leader(), lab.placement().seed),
        (a, Some((NodeId(a), 1)))
    );
    lab.all_see(&[a, b, c]);
    lab.ticks(&[a, b, c], 5);
    assert!(lab.has_opened());
    assert_eq!(lab.read(&[a, b, c], &key()), None);
}

/// A seed keeps its table, and leads no more before anybody has it: the order that it copies is shorter than what it knows to be
/// committed.
#[test]
fn a_seed_that_is_overtaken_copies_all() {
    let (mut lab, [a, b, c]) = Lab::three();
    for value in 1..=5 {
        lab.ask(a, Level::Quorum, set(value));
        lab.ask(a, Level::Quorum, Request::Set(vec![b'o'], value));
    }
    lab.ticks(&[a, b, c], 2);
    lab.restart(b, true);
    lab.restart(c, true);
    lab.see(a, lab.topology.epoch());
    // What it sends now is lost.
    lab.settle(&[a]);
    lab.down(a);
    lab.all_see(&[b, c]);
    lab.ticks(&[b, c], 3);
    let leader = lab.leader();
    let write = lab.ask(leader, Level::Quorum, set(9));
    lab.settle(&[b, c]);
    assert!(lab.is_done(write));
    assert!(lab.last(a).seq() > lab.last(leader).seq());
    lab.see(a, lab.topology.epoch());
    lab.ticks(&[a, b, c], 3);
    assert!(lab.agree(a, leader));
    let progress = |id| lab.nodes[&id].map.now.progress;
    assert_eq!(progress(a), progress(leader));
}

/// A state of the topology of the same term: who answered the fence has answered it.
#[test]
fn answers_to_a_fence_outlive_a_view_of_the_same_term() {
    let mut lab = Lab::new(5, 1, 5);
    let list = lab.list();
    let [a, b, c, d, _] = list[..] else {
        panic!("they are five");
    };
    lab.all_see(&list);
    // Two of five have answered; then one that leads nothing is suspected.
    lab.settle(&[a, b]);
    assert!(!lab.has_opened());
    let term = lab.placement().term;
    lab.down(d);
    assert_eq!(lab.placement().term, term);
    lab.all_see(&[a, b, c]);
    let fenced = Body::Fenced {
        last: Version::default(),
        history: History::default(),
    };
    let body = fenced;
    lab.give(a, Input::Message(NodeId(c), 1, Message { term, body }));
    lab.settle(&[a, b, c]);
    assert!(lab.has_opened());
}

/// What needs the leader alone does not wait for those who have to be aligned anew.
#[test]
fn one_is_answered_while_there_is_no_quorum() {
    let mut lab = Lab::new(3, 1, 3);
    let [a, b, c] = lab.list()[..] else {
        panic!("they are three");
    };
    lab.down(c);
    lab.all_see(&[a, b]);
    lab.settle(&[a, b]);
    assert!(lab.has_opened());
    lab.restart(b, false);
    lab.see(a, lab.topology.epoch());
    let write = lab.ask(a, Level::One, set(1));
    let read = lab.ask(a, Level::One, Request::Get(key()));
    let quorum = lab.ask(a, Level::Quorum, set(2));
    lab.ticks(&[a], 2);
    assert!(lab.is_done(write) && lab.is_done(read));
    assert_eq!(lab.answers.get(&quorum), None);
    lab.see(b, lab.topology.epoch());
    lab.ticks(&[a, b], 2);
    assert!(lab.is_done(quorum));
}

/// One that was to lead, and heard nothing of anybody, is in no list any more when it hears of that. It fences nobody in a term
/// that is another's, who could not begin it then.
#[test]
fn who_never_had_anything_leads_no_more_once_it_is_gone() {
    let mut lab = Lab::new(4, 1, 3);
    let [x, y, z] = lab.list()[..] else {
        panic!("they are three");
    };
    let w = 10 - x - y - z;
    lab.see(x, lab.topology.epoch());
    lab.network.clear();
    lab.down(x);
    lab.all_see(&[y, z]);
    lab.settle(&[y, z]);
    lab.command(&Command::Leave(NodeId(x)));
    lab.change(&[y, z, w], &[]);
    assert!(!lab.placement().names(NodeId(x)));
    lab.down(lab.leader());
    let leader = lab.leader();
    lab.see(x, lab.topology.epoch());
    lab.ticks(&[x, leader], 1);
    let others = lab.list();
    lab.all_see(&others);
    lab.ticks(&others, 3);
    assert!(lab.has_opened());
}
