//! What a replica reports as lost, when, and what it calls unknown.

use super::lab::Lab;
use super::*;
use crate::testing::map::Request;

fn set(value: u64) -> Request {
    Request::Set(b"k".to_vec(), value)
}

/// What a node has reported, over all its starts.
fn lost(lab: &Lab, id: u64) -> Vec<Loss> {
    let of = |(node, _, report): &(u64, Incarnation, Output<_>)| match report {
        Output::Lost(loss) if *node == id => Some(*loss),
        _ => None,
    };
    lab.reports.iter().filter_map(of).collect()
}

/// What a node would say of what is not settled, if it ended now.
fn unsettled(lab: &Lab, id: u64) -> Vec<Loss> {
    let of = |(node, _, report): &(u64, Incarnation, Output<_>)| match report {
        Output::Unsettled(losses) if *node == id => Some(losses.clone()),
        _ => None,
    };
    lab.reports.iter().rev().find_map(of).unwrap_or_default()
}

fn replaced(generation: Epoch, first: Version, last: Version) -> Loss {
    Loss {
        generation,
        versions: Some((first, last)),
        fate: Fate::Replaced,
    }
}

/// A leads alone for a while, and has acknowledged so many writes at ONE of which nobody else hears.
fn writes_alone(lab: &mut Lab, a: u64, count: u64) -> (Version, Version) {
    let first = lab.last(a);
    for value in 0..count {
        let write = lab.ask(a, Level::One, set(100 + value));
        lab.keep(a);
        assert!(lab.is_done(write));
    }
    lab.network.clear();
    let last = lab.last(a);
    assert_eq!(last.seq(), first.seq() + count);
    (Version::new(last.term(), first.seq() + 1), last)
}

#[test]
fn a_leader_that_comes_back_reports_what_only_it_had() {
    let (mut lab, [a, b, c]) = Lab::three();
    lab.ask(a, Level::All, set(1));
    lab.settle(&[a, b, c]);
    let generation = lab.placement().generation;
    let (first, last) = writes_alone(&mut lab, a, 4);
    lab.down(a);
    lab.all_see(&[b, c]);
    lab.settle(&[b, c]);
    lab.ask(b, Level::Quorum, set(2));
    lab.settle(&[b, c]);
    lab.restart(a, false);
    lab.all_see(&[a, b, c]);
    lab.ticks(&[a, b, c], 3);
    assert_eq!(lost(&lab, a), [replaced(generation, first, last)]);
    assert_eq!(lost(&lab, a)[0].count(), Some(4));
    assert_eq!(unsettled(&lab, a), []);
    // Who had nothing of it has nothing to report, and no more comes of it.
    lab.ticks(&[a, b, c], 3);
    assert_eq!(
        (lost(&lab, a).len(), lost(&lab, b), lost(&lab, c)),
        (1, vec![], vec![])
    );
}

/// Nothing of the partition was ever written but what is lost: the next term begins with nothing.
#[test]
fn the_first_writes_of_a_partition_can_be_lost() {
    let (mut lab, [a, b, c]) = Lab::three();
    let generation = lab.placement().generation;
    let (first, last) = writes_alone(&mut lab, a, 2);
    assert_eq!(first.seq(), 1);
    lab.down(a);
    lab.all_see(&[b, c]);
    lab.settle(&[b, c]);
    lab.back(a);
    lab.all_see(&[a, b, c]);
    lab.ticks(&[a, b, c], 3);
    assert_eq!(lost(&lab, a), [replaced(generation, first, last)]);
}

/// Five replicas, and their partition is open; the first leads.
fn five() -> (Lab, Vec<u64>) {
    let mut lab = Lab::new(5, 1, 5);
    let all = lab.list();
    lab.all_see(&all);
    lab.settle(&all);
    (lab, all)
}

#[test]
fn a_follower_reports_what_the_lost_leader_had_streamed_to_it_alone() {
    let (mut lab, all) = five();
    let (leader, heard_it, rest) = (all[0], all[4], &all[1..]);
    let generation = lab.placement().generation;
    lab.ask(leader, Level::All, set(1));
    lab.settle(&all);
    // One alone hears of the first of two.
    lab.ask(leader, Level::One, set(2));
    lab.settle(&[leader, heard_it]);
    let heard = lab.last(heard_it);
    let (unheard, last) = writes_alone(&mut lab, leader, 1);
    assert_eq!(unheard.seq(), heard.seq() + 1);
    lab.down(leader);
    lab.all_see(&all[1..4]);
    lab.settle(&all[1..4]);
    lab.all_see(&[heard_it]);
    lab.ticks(rest, 3);
    assert_eq!(lost(&lab, heard_it), [replaced(generation, heard, heard)]);
    lab.back(leader);
    lab.all_see(&all);
    lab.ticks(&all, 3);
    // The ranges of both say what is lost, each entry once.
    assert_eq!(lost(&lab, leader), [replaced(generation, heard, last)]);
}

/// One gives an entry up for a leader that never gets a quorum, and the next leader has it.
#[test]
fn what_survives_elsewhere_after_all_is_not_reported() {
    let (mut lab, all) = five();
    let (first, second, third) = (all[0], all[1], all[3]);
    let (gives_up, others) = (all[2], [all[3], all[4]]);
    let generation = lab.placement().generation;
    lab.ask(first, Level::All, set(1));
    lab.ticks(&all, 1);
    lab.ask(first, Level::One, set(2));
    lab.settle(&[first, gives_up]);
    let entry = lab.last(first);
    assert_eq!(lab.last(gives_up), entry);
    // The second leader begins its term with what it and two others have. One aligns with it, and no other hears where it begins.
    lab.down(first);
    let fenced = [second, others[0], others[1]];
    lab.all_see(&fenced);
    lab.deliver_until(&fenced, |body| matches!(body, Body::Open { .. }));
    lab.network.clear();
    lab.see(gives_up, lab.topology.epoch());
    lab.ticks(&[second, gives_up], 3);
    assert_eq!(lab.last(gives_up).seq(), entry.seq() - 1);
    assert!(!lab.has_opened());
    let noted = [replaced(generation, entry, entry)];
    assert_eq!(unsettled(&lab, gives_up), noted);
    // Both are lost, and the first is back, which has it.
    lab.down(second);
    lab.down(gives_up);
    lab.back(first);
    assert_eq!(lab.leader(), third);
    let present = [first, others[0], others[1]];
    lab.all_see(&present);
    lab.ticks(&present, 3);
    assert!(lab.has_opened());
    assert_eq!(lab.last(third).seq(), entry.seq());
    lab.back(gives_up);
    let present = [first, gives_up, others[0], others[1]];
    lab.all_see(&present);
    lab.ticks(&present, 3);
    assert!(lab.agree(gives_up, third));
    assert_eq!(unsettled(&lab, gives_up), []);
    assert!(all.iter().all(|&id| lost(&lab, id).is_empty()));
}

#[test]
fn a_reset_for_lack_of_memory_is_unknown_and_one_that_was_ordered_is_no_loss() {
    let (mut lab, [a, b, c]) = Lab::three();
    let all = [a, b, c];
    lab.ask(a, Level::All, set(1));
    lab.settle(&all);
    lab.command(&Command::Reset(vec![lab.partition]));
    lab.all_see(&all);
    lab.ticks(&all, 3);
    assert!(all.iter().all(|&id| lost(&lab, id).is_empty()));
    let generation = lab.placement().generation;
    lab.ask(a, Level::All, set(2));
    lab.ticks(&all, 2);
    // The leader is gone, and the two others have lost their memory: what it had is of an old generation when it is back.
    lab.down(a);
    lab.restart(b, true);
    lab.restart(c, true);
    lab.all_see(&[b, c]);
    lab.ticks(&[b, c], 3);
    lab.back(a);
    lab.all_see(&all);
    lab.ticks(&all, 3);
    let unknown = Loss {
        generation,
        versions: None,
        fate: Fate::Reset,
    };
    assert_eq!(lost(&lab, a), [unknown]);
    assert!(unknown.is_unknown() && unknown.count().is_none());
}

#[test]
fn who_is_removed_with_more_than_is_committed_says_that_it_does_not_know() {
    let (mut lab, [a, b, c]) = Lab::three();
    let all = [a, b, c];
    let generation = lab.placement().generation;
    lab.ask(a, Level::All, set(1));
    lab.settle(&all);
    let (first, last) = writes_alone(&mut lab, a, 2);
    lab.down(a);
    lab.all_see(&[b, c]);
    lab.settle(&[b, c]);
    lab.join(4, 1);
    lab.up(4);
    lab.command(&Command::Leave(NodeId(a)));
    lab.change(&[b, c, 4], &[]);
    // It hears of all that when it has left.
    lab.see(a, lab.topology.epoch());
    assert_eq!(lab.last(a), Version::default());
    let unknown = Loss {
        generation,
        versions: Some((first, last)),
        fate: Fate::Removed,
    };
    assert_eq!(lost(&lab, a), [unknown]);
}
