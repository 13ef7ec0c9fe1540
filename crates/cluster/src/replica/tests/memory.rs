//! Starts with memory and without: what is said of them to the topology, and when they count again.

use super::lab::Lab;
use super::*;
use crate::testing::map::Request;

fn set(value: u64) -> Request {
    Request::Set(vec![b'k'], value)
}

/// The one who hears what replicas report: one that has said in its present start that it is aligned in the present term
/// remembers, in whatever epoch it was registered.
fn hear_reports(lab: &mut Lab, id: u64) {
    let node = lab.topology.nodes()[&NodeId(id)];
    if node.amnesia > 0 && lab.has_aligned(id) {
        lab.command(&Command::Remembers(NodeId(id), node.incarnation));
    }
}

/// No new term comes of the second loss, as it counted nowhere already.
#[test]
fn who_loses_its_memory_twice_counts_again_once_it_is_aligned() {
    let (mut lab, [a, b, c]) = Lab::three();
    lab.restart(b, true);
    lab.all_see(&[a, b, c]);
    lab.ticks(&[a, b, c], 2);
    assert!(lab.has_aligned(b));
    lab.restart(b, true);
    let node = lab.topology.nodes()[&NodeId(b)];
    assert!(lab.placement().term < node.amnesia);
    // What the start before has said counts for nothing.
    hear_reports(&mut lab, b);
    assert!(!lab.placement().voters.contains(&NodeId(b)));
    lab.all_see(&[a, b, c]);
    let write = lab.ask(a, Level::Quorum, set(1));
    lab.ticks(&[a, b], 2);
    // It has it, and is counted in no quorum of this term.
    assert!(lab.agree(a, b) && lab.has_aligned(b));
    assert_eq!(lab.answers.get(&write), None);
    lab.ticks(&[a, b, c], 2);
    assert!(lab.is_done(write));

    let term = lab.placement().term;
    hear_reports(&mut lab, b);
    assert!(lab.placement().voters.contains(&NodeId(b)) && lab.placement().term > term);
    lab.up(b);
    lab.down(a);
    lab.all_see(&[b, c]);
    lab.ticks(&[b, c], 3);
    assert!(lab.has_opened());
    assert_eq!(lab.read(&[b, c], &vec![b'k']), Some(1));
}

#[test]
fn who_starts_anew_in_a_term_in_which_it_was_aligned_says_so() {
    let (mut lab, [a, b, c]) = Lab::three();
    assert!(lab.has_aligned(b));
    let term = lab.placement().term;
    lab.restart(b, false);
    assert!(lab.placement().term == term && !lab.has_aligned(b));
    lab.all_see(&[a, b, c]);
    lab.ticks(&[a, b, c], 2);
    assert!(lab.has_aligned(b));
}

/// A node is forgotten, and one of its name comes with an empty disk. That is no start that a leader of long ago knows.
#[test]
fn who_was_forgotten_does_not_count_for_who_it_was() {
    let mut lab = Lab::new(4, 1, 3);
    let [a, b, c] = lab.list()[..] else {
        panic!("they are three");
    };
    let d = 10 - a - b - c;
    lab.all_see(&[a, b, c]);
    lab.ask(a, Level::Quorum, set(0));
    lab.settle(&[a, b, c]);
    lab.ask(a, Level::Quorum, set(1));
    lab.ticks(&[a, b, c], 2);
    // A hears of nothing of that.
    lab.down(a);
    lab.all_see(&[b, c]);
    lab.settle(&[b, c]);
    lab.command(&Command::Leave(NodeId(c)));
    lab.change(&[b, c, d], &[]);
    lab.command(&Command::Remove(NodeId(c)));
    let write = lab.ask(lab.leader(), Level::Quorum, set(2));
    lab.settle(&[b, d]);
    assert!(lab.is_done(write));

    lab.join_anew(c);
    lab.see(c, lab.topology.epoch());
    let read = lab.ask(a, Level::Quorum, Request::Get(vec![b'k']));
    lab.ticks(&[a, c], 3);
    assert_eq!(lab.answers.get(&read), None);
}
