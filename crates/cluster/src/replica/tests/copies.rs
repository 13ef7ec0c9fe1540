//! Copies: what comes twice or never, what is written meanwhile, whose source or puller is gone.

use super::lab::{Flight, Lab};
use super::*;
use crate::replica::follow::AGAIN_TICKS;
use crate::replica::source::PATIENCE_TICKS;
use crate::testing::map::Request;
use std::collections::VecDeque;

/// Three replicas, of which the third lacks what was set: so many keys to 0.
fn one_lacks(keys: u8) -> (Lab, [u64; 3]) {
    let (mut lab, [a, b, c]) = Lab::three();
    for key in 0..keys {
        lab.ask(a, Level::Quorum, Request::Set(vec![key], 0));
    }
    lab.settle(&[a, b]);
    assert_eq!(lab.last(c).seq(), 0);
    (lab, [a, b, c])
}

fn is_pull<E, V>(body: &Body<E, V>) -> bool {
    matches!(body, Body::Pull { .. })
}

fn is_part<E, V>(body: &Body<E, V>) -> bool {
    matches!(body, Body::Part { .. })
}

/// A second scan under the name of the first would have forgotten what had changed since the first part.
#[test]
fn a_pull_that_comes_twice_is_one_copy() {
    let (mut lab, [a, b, c]) = one_lacks(2);
    lab.parts_of(1);
    lab.give(a, Input::Tick);
    let pull = lab.deliver_until(&[a, c], is_pull);
    let message = pull.message.clone();
    lab.network.clear();
    lab.arrive(pull);
    lab.ask(a, Level::Quorum, Request::Set(vec![0], 1));
    lab.give(a, Input::Message(NodeId(c), 1, message));
    lab.settle(&[a, b, c]);
    assert_eq!(lab.last(a).seq(), 3);
    assert!(lab.agree(a, c));
}

#[test]
fn a_part_that_is_lost_is_asked_for_again_and_not_another_copy() {
    let (mut lab, [a, b, c]) = one_lacks(5);
    lab.parts_of(1);
    lab.give(a, Input::Tick);
    for lost in [0, 2, 4] {
        let is_that =
            |body: &Body<_, _>| matches!(body, Body::Part { number, .. } if *number == lost);
        let _ = lab.deliver_until(&[a, c], is_that);
        assert!(
            !lab.network
                .iter()
                .any(|flight| is_pull(&flight.message.body))
        );
        lab.network.clear();
        for _ in 0..AGAIN_TICKS {
            assert!(lab.network.is_empty());
            lab.give(c, Input::Tick);
        }
        assert!(
            !lab.network
                .iter()
                .any(|flight| is_pull(&flight.message.body))
        );
    }
    lab.settle(&[a, b, c]);
    assert!(lab.agree(a, c));
}

/// As many keys change between two parts as one part has.
#[test]
fn a_copy_ends_under_a_stream_of_writes() {
    let (mut lab, [a, b, c]) = one_lacks(255);
    lab.give(a, Input::Tick);
    let (mut parts, mut key) = (0, 0_u8);
    while lab.last(c).seq() == 0 {
        let part = lab.deliver_until(&[a, b, c], is_part);
        parts += 1;
        assert!(parts < 10, "255 keys are some four parts");
        for value in 0..64 {
            key = key.wrapping_add(1);
            lab.ask(a, Level::Quorum, Request::Set(vec![key], value));
        }
        lab.arrive(part);
    }
    lab.settle(&[a, b, c]);
    assert!(parts > 3 && lab.agree(a, c), "after {parts} parts");
}

/// A copy that began anew after each tick without a part would never have its first.
#[test]
fn a_copy_ends_where_each_message_takes_two_ticks() {
    let (mut lab, [a, b, c]) = one_lacks(10);
    lab.parts_of(1);
    let mut under_way: VecDeque<(usize, Flight)> = VecDeque::new();
    let mut pulls = 0;
    for now in 0..100 {
        while under_way.front().is_some_and(|&(at, _)| at <= now) {
            let (_, flight) = under_way.pop_front().expect("there is one");
            pulls += usize::from(is_pull(&flight.message.body));
            lab.arrive(flight);
        }
        for id in [a, b, c] {
            lab.keep(id);
            lab.give(id, Input::Tick);
        }
        let sent = lab.network.drain(..);
        under_way.extend(sent.map(|flight| (now + 2, flight)));
    }
    assert!(pulls == 1 && lab.agree(a, c), "after {pulls} pulls");
}

#[test]
fn a_part_is_no_larger_than_some_records_or_bytes() {
    let (mut lab, [a, b, c]) = Lab::three();
    let large = |first| vec![first; 60 << 10];
    for first in 0..20 {
        lab.ask(a, Level::Quorum, Request::Set(large(first), 0));
    }
    lab.settle(&[a, b]);
    lab.give(a, Input::Tick);
    let mut parts = 0;
    while lab.last(c).seq() == 0 {
        let part = lab.deliver_until(&[a, c], is_part);
        let Body::Part { states, .. } = &part.message.body else {
            unreachable!("it is one");
        };
        let bytes: usize = states.iter().map(|(key, _)| key.len()).sum();
        assert!(bytes <= (256 + 60) << 10, "{bytes}");
        parts += 1;
        lab.arrive(part);
    }
    assert!(parts > 3, "{parts}");
}

/// However long that takes, and however often it is asked for meanwhile.
#[test]
fn a_part_that_nobody_needs_now_waits_for_its_turn() {
    let (mut lab, [a, b, c]) = one_lacks(5);
    lab.parts_of(1);
    lab.nodes
        .get_mut(&a)
        .expect("it runs")
        .replica
        .carrier
        .has_queue = true;
    let queued = |lab: &mut Lab| {
        let reports = lab.reports.drain(..);
        let queued = reports.filter_map(|(node, _, report)| match report {
            Output::Queued { to, has_begun } => Some((node, to.0, has_begun)),
            _ => None,
        });
        queued.collect::<Vec<_>>()
    };
    let ticks = PATIENCE_TICKS as usize / 2;
    lab.ticks(&[a, b, c], ticks);
    assert_eq!(queued(&mut lab), [(a, c, false)]);
    // What has no turn is not sent, and nobody else has one.
    lab.give(a, Input::Turn(NodeId(b)));
    assert!(lab.network.is_empty());
    for _ in 0..2 {
        lab.ask(a, Level::Quorum, Request::Set(vec![9], 9));
        lab.give(a, Input::Turn(NodeId(c)));
        lab.give(a, Input::Turn(NodeId(c)));
        lab.settle(&[a, b, c]);
        assert_eq!(queued(&mut lab), [(a, c, true)]);
        lab.ticks(&[a, b, c], ticks);
        assert_eq!(queued(&mut lab), []);
    }
    assert_eq!(lab.last(c).seq(), 0);
    // Without the other one there is no quorum but with who copies: it is waited for.
    lab.down(b);
    lab.all_see(&[a, c]);
    let write = lab.ask(a, Level::Quorum, Request::Set(vec![0], 7));
    lab.ticks(&[a, c], 1);
    assert!(lab.is_done(write) && lab.agree(a, c));
    assert_eq!(queued(&mut lab), []);
}

/// What is written is noted for who copies, and for nobody who does so no more.
#[test]
fn a_source_forgets_a_puller_that_is_gone() {
    let (mut lab, [a, b, c]) = one_lacks(200);
    lab.give(a, Input::Tick);
    let _ = lab.deliver_until(&[a, c], is_part);
    lab.network.clear();
    lab.down(c);
    lab.all_see(&[a, b]);
    assert!(lab.nodes[&a].replica.is_copying(NodeId(c)));
    for value in 0..=u64::from(PATIENCE_TICKS) {
        lab.ask(a, Level::Quorum, Request::Set(vec![0], value));
        lab.ticks(&[a, b], 1);
    }
    assert!(lab.nodes[&a].replica.sources.is_empty());
    // It was only away: what it asks for is not there any more, and it copies anew.
    lab.ticks(&[a, b, c], AGAIN_TICKS as usize + 1);
    assert!(lab.agree(a, c));
}

/// Its puller has stopped in the midst of a copy, and other keys change all the time.
#[test]
fn a_source_notes_no_more_than_some_megabytes() {
    let (mut lab, [a, b, c]) = one_lacks(200);
    lab.give(a, Input::Tick);
    let _ = lab.deliver_until(&[a, c], is_part);
    lab.network.clear();
    let key = |n: u8| vec![n; 60_000];
    for n in 0..150 {
        assert!(lab.nodes[&a].replica.is_copying(NodeId(c)) || n > 100);
        lab.ask(a, Level::Quorum, Request::Set(key(n), 1));
        lab.settle(&[a, b]);
    }
    assert!(lab.nodes[&a].replica.sources.is_empty());
    lab.ticks(&[a, b, c], AGAIN_TICKS as usize + 1);
    assert!(lab.agree(a, c));
}

#[test]
fn a_source_that_has_sent_all_notes_nothing_more() {
    let (mut lab, [a, b, c]) = one_lacks(3);
    lab.give(a, Input::Tick);
    let _ = lab.deliver_until(&[a, c], is_part);
    let noted = |lab: &Lab| format!("{:?}", lab.nodes[&a].replica.sources);
    let before = noted(&lab);
    lab.ask(a, Level::Quorum, Request::Set(vec![0], 1));
    assert!(!lab.nodes[&a].replica.is_copying(NodeId(c)));
    assert_eq!(noted(&lab), before);
    // What it has lost is sent again, and it lacks but what came behind.
    lab.network.clear();
    lab.ticks(&[a, b, c], AGAIN_TICKS as usize + 1);
    assert!(lab.agree(a, c));
}

#[test]
fn a_source_is_none_any_more_once_the_puller_is_aligned() {
    let (mut lab, [a, b, c]) = one_lacks(3);
    lab.ticks(&[a, b, c], 1);
    assert!(lab.agree(a, c) && lab.nodes[&a].replica.sources.is_empty());
}

/// The furthest has answered the fence, and is asked for its order; then it is gone, or another start. What it has, the one who
/// led has as well.
fn the_source_of_the_base_is_gone(is_for_good: bool) -> Lab {
    let (mut lab, [a, m, s]) = Lab::three();
    let written = lab.ask(a, Level::Quorum, Request::Set(vec![0], 1));
    lab.settle(&[a, s]);
    assert!(lab.is_done(written));
    lab.down(a);
    lab.all_see(&[m, s]);
    let pull = lab.deliver_until(&[m, s], is_pull);
    assert_eq!((lab.leader(), pull.to.0), (m, NodeId(s)));
    lab.network.clear();
    if is_for_good {
        lab.down(s);
        lab.back(a);
        lab.all_see(&[a, m]);
        lab.ticks(&[a, m], 40);
        assert!(lab.has_opened());
        assert_eq!(lab.read(&[a, m], &vec![0]), Some(1));
    } else {
        lab.restart(s, false);
        lab.all_see(&[m, s]);
        lab.ticks(&[m, s], 1);
        assert!(lab.has_opened());
        assert_eq!(lab.read(&[m, s], &vec![0]), Some(1));
    }
    lab
}

#[test]
fn a_base_is_taken_from_another_where_its_source_is_gone() {
    the_source_of_the_base_is_gone(true);
}

#[test]
fn a_base_is_asked_for_anew_of_another_start() {
    the_source_of_the_base_is_gone(false);
}

/// The term began with nothing, as most do in a cluster that was formed empty: all that there is was written in it.
#[test]
fn a_learner_is_aligned_once_it_has_what_was_written_in_the_term() {
    for keys in [0, 5] {
        let mut lab = Lab::new(1, 1, 2);
        lab.all_see(&[1]);
        lab.settle(&[1]);
        for key in 0..keys {
            lab.ask(1, Level::Quorum, Request::Set(vec![key], 0));
        }
        lab.settle(&[1]);
        lab.join(2, 1);
        lab.command(&Command::Rebalance);
        assert!(lab.placement().learners().eq([NodeId(2)]));
        lab.parts_of(1);
        lab.all_see(&[1, 2]);
        let part = lab.deliver_until(&[1, 2], is_part);
        assert!(!lab.has_aligned(2), "{keys} keys");
        lab.arrive(part);
        lab.settle(&[1, 2]);
        assert!(lab.has_aligned(2), "{keys} keys");
        assert!(lab.agree(1, 2), "{keys} keys");
    }
}

/// A partition of a learner that comes, goes and comes again in one term: it, and the epochs of that.
fn with_a_learner() -> (Lab, u64, [Epoch; 3]) {
    // Node 4 joins, then a heavy 5, which leaves again.
    let mut lab = Lab::new(3, 32, 2);
    lab.join(4, 1);
    let learns = lab.command(&Command::Rebalance);
    lab.join(5, 1_000);
    let goes = lab.command(&Command::Rebalance);
    lab.command(&Command::Leave(NodeId(5)));
    let again = lab.command(&Command::Rebalance);
    let (partition, learner) = lab
        .topology
        .partitions()
        .find_map(|partition| {
            let at = |epoch| lab.state(epoch).placement(partition);
            let learner = at(learns).learners().next()?;
            let comes_back = at(again).learners().any(|node| node == learner);
            let is_one_term = at(learns).term == at(again).term;
            let is_such = !at(goes).names(learner) && comes_back && is_one_term;
            is_such.then_some((partition, learner.0))
        })
        .expect("there is one");
    lab.partition = partition;
    (lab, learner, [learns, goes, again])
}

/// One learns, is to be no replica any more, forgets what it had, and is to learn again, all in one term.
fn a_learner_comes_back(leader_sees_it_go: bool) {
    let (mut lab, learner, [learns, goes, again]) = with_a_learner();
    let a = lab.leader();
    let all = [lab.list(), vec![learner]].concat();
    let see = |lab: &mut Lab, epoch: Epoch| {
        for &id in &all {
            if leader_sees_it_go || id != a || epoch != goes {
                lab.see(id, epoch);
            }
        }
    };
    see(&mut lab, learns);
    lab.settle(&all);
    for value in 1..=3 {
        lab.ask(a, Level::Quorum, Request::Set(vec![0], value));
    }
    lab.ticks(&all, 3);
    assert!(lab.agree(a, learner));
    see(&mut lab, goes);
    assert_eq!(lab.last(learner), Version::default());
    see(&mut lab, again);
    lab.settle(&all);
    // One beat says that there is more; one before it says that nothing is right.
    lab.ticks(&all, if leader_sees_it_go { 1 } else { 2 });
    assert_eq!(lab.last(a).seq(), 3);
    assert!(lab.agree(a, learner));
}

#[test]
fn a_learner_that_forgot_learns_again_in_the_same_term() {
    a_learner_comes_back(true);
}

/// The leader has not seen that it went: it is told by the learner's answer to a beat.
#[test]
fn a_learner_that_forgot_says_so() {
    a_learner_comes_back(false);
}

/// A learner that is none any more, as the leader knows or does not know yet: what comes late of its term gives it nothing.
fn a_learner_goes(
    leader_sees_it_go: bool,
    is_late: impl Fn(&Body<(Vec<Key>, Option<u64>), u64>) -> bool,
) {
    let (mut lab, learner, [learns, goes, _]) = with_a_learner();
    lab.parts_of(1);
    let a = lab.leader();
    let list = lab.list();
    for &id in &list {
        lab.see(id, learns);
    }
    lab.settle(&list);
    for key in 0..3 {
        lab.ask(a, Level::Quorum, Request::Set(vec![key], 1));
    }
    lab.settle(&list);
    let all = [list, vec![learner]].concat();
    lab.see(learner, learns);
    lab.give(a, Input::Tick);
    let late = lab.deliver_until(&all, is_late);
    if leader_sees_it_go {
        lab.see(a, goes);
    }
    lab.see(learner, goes);
    lab.arrive(late);
    lab.ticks(&all, 3);
    lab.see(a, goes);
    lab.ticks(&all, 3);
    assert_eq!(lab.last(learner), Version::default());
    let peers = format!("{:?}", lab.nodes[&a].replica.role);
    assert!(
        !peers.contains(&format!("{:?}: Peer", NodeId(learner))),
        "{peers}"
    );
}

#[test]
fn who_was_about_to_learn_does_not_once_it_is_gone() {
    for leader_sees_it_go in [true, false] {
        a_learner_goes(leader_sees_it_go, is_pull);
        a_learner_goes(leader_sees_it_go, is_part);
        a_learner_goes(leader_sees_it_go, |body| matches!(body, Body::Open { .. }));
    }
}

/// It has learned all, and a beat asks it how far it is.
#[test]
fn who_is_gone_is_not_opened_to_again() {
    let (mut lab, learner, [learns, goes, _]) = with_a_learner();
    let a = lab.leader();
    let all = [lab.list(), vec![learner]].concat();
    for &id in &all {
        lab.see(id, learns);
    }
    lab.settle(&all);
    lab.ask(a, Level::Quorum, Request::Set(vec![0], 1));
    lab.ticks(&all, 3);
    assert!(lab.agree(a, learner));
    lab.give(a, Input::Tick);
    for &id in &all {
        lab.see(id, goes);
    }
    lab.settle(&all);
    assert_eq!(lab.last(learner), Version::default());
}
