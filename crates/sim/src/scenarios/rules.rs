//! Stories of single rules, each of which ends well, and of what random schedules have found.

use super::Seen::{NoAnswer, Nothing, Shows};
use super::*;

/// k is 1 on all replicas.
fn begin(replicas: usize, spares: usize) -> Story {
    let mut story = Story::new(Bugs::default(), replicas, spares);
    story.set(A, "k", 1);
    story.tick();
    story
}

fn progress(story: &Story, name: Name) -> Progress {
    story.world.nodes[&story.id(name)].map.now.progress
}

#[test]
fn a_leader_whose_own_log_is_behind_takes_what_others_have() {
    let mut s = begin(3, 0);
    s.cut(C);
    s.set(A, "k", 2);
    s.lose_and_mend();
    s.lead(C);
    assert_eq!(s.get(C, "k"), Shows(2));
    s.check();
}

#[test]
fn a_full_copy_that_is_given_up_half_way_has_changed_nothing() {
    let mut s = begin(3, 0);
    s.cut(C);
    s.set(A, "k", 2);
    s.set(A, "a", 3);
    s.set(A, "m", 3);
    s.tick();
    s.evict(A, "k");
    s.lose_and_mend();
    s.hold(C, A, Kind::Next);
    let before = progress(&s, C);
    s.tick();
    assert_eq!(progress(&s, C), before);
    s.cut(A);
    s.lead(B);
    assert_eq!([s.get(B, "k"), s.get(B, "m")], [Shows(2), Shows(3)]);
    s.lead(C);
    assert_eq!([s.get(C, "k"), s.get(C, "m")], [Shows(2), Shows(3)]);
    s.check();
}

#[test]
fn of_two_that_take_themselves_for_leaders_one_is_not_answered() {
    let mut s = begin(3, 0);
    s.blind(A);
    s.block(A, B);
    s.block(B, A);
    s.lead(B);
    assert_eq!(s.try_to_set(A, "k", 2), NoAnswer);
    assert_eq!(s.get(A, "k"), NoAnswer);
    s.set(B, "k", 3);
    s.lose_and_mend();
    s.tick();
    s.lead(A);
    assert_eq!(s.get(A, "k"), Shows(3));
    s.check();
}

#[test]
fn a_write_at_one_may_be_lost_and_all_replicas_agree_then() {
    let mut s = begin(3, 0);
    s.cut(A);
    let set = Request::Set("k".into(), 2);
    assert_eq!(s.ask_at(A, Level::One, set), Shows(2));
    s.lead(B);
    assert_eq!(s.get(B, "k"), Shows(1));
    s.lose_and_mend();
    s.tick();
    let get = Request::Get("k".into());
    assert_eq!(s.ask_at(B, Level::All, get), Shows(1));
    assert_eq!(progress(&s, A).last, progress(&s, B).last);
    s.check();
}

#[test]
fn at_all_a_write_waits_for_all_and_a_read_for_those_that_are_up() {
    let mut s = begin(3, 0);
    s.cut(C);
    let set = Request::Set("k".into(), 2);
    let set = s.ask_at(A, Level::All, set);
    assert_eq!(set, NoAnswer);
    let get = Request::Get("k".into());
    assert_eq!(s.ask_at(A, Level::All, get.clone()), NoAnswer);
    s.down(C);
    assert_eq!(s.ask_at(A, Level::All, get), Shows(2));
    s.check();
}

#[test]
fn replicas_change_and_all_that_was_acknowledged_goes_with_them() {
    let mut s = begin(3, 1);
    s.begin_to_replace(B);
    s.tick();
    s.join();
    s.set(A, "k", 2);
    s.report();
    s.finish();
    assert_eq!(s.world.placement().old.len(), 3);
    assert_eq!(progress(&s, B), Progress::default());
    s.set(A, "k", 3);
    s.cut(A);
    s.lead(D);
    assert_eq!(s.get(D, "k"), Shows(3));
    s.check();
}

#[test]
fn the_seed_of_a_reset_brings_its_table_along() {
    let mut s = begin(3, 0);
    for name in [B, C] {
        s.crash(name);
        s.start_empty(name);
    }
    s.tick();
    assert_eq!(s.get(A, "k"), Shows(1));
    s.cut(A);
    s.lead(B);
    assert_eq!(s.get(B, "k"), Shows(1));
    s.check();
}

/// What it knew to be committed was so in the generation before. It would otherwise have come to less than that.
#[test]
fn a_seed_whose_term_never_opened_forgets_with_the_others() {
    let mut s = begin(3, 0);
    s.crash(B);
    s.start_empty(B);
    s.block(A, B);
    s.block(A, C);
    s.crash(C);
    s.start_empty(C);
    let generation = s.world.nodes[&s.id(A)].map.now.state.generation;
    assert_eq!(generation, s.world.placement().generation);
    s.crash(A);
    s.lead(B);
    assert_eq!(s.get(B, "k"), Nothing);
    s.lose_and_mend();
    s.start(A);
    s.tick();
    assert_eq!(progress(&s, A).last, progress(&s, B).last);
    s.lead(A);
    assert_eq!(s.get(A, "k"), Nothing);
    s.check();
}

/// Parts of two copies of the same name would be taken for one, which lacks what was written between their begins.
#[test]
fn a_pull_that_comes_twice_begins_one_copy() {
    let mut s = begin(3, 0);
    s.cut(B);
    for key in ["a", "b", "c"] {
        s.set(A, key, 2);
    }
    s.lose_and_mend();
    s.hold(B, A, Kind::Next);
    s.tick();
    s.set(A, "a", 9);
    s.repeat(B, A, Kind::Pull);
    s.mend();
    assert_eq!(progress(&s, B).last, progress(&s, A).last);
    s.cut(A);
    s.lead(B);
    assert_eq!(s.get(B, "a"), Shows(9));
    s.check();
}

#[test]
fn a_copy_ends_though_keys_change_all_the_time() {
    let mut s = begin(3, 0);
    s.cut(B);
    let keys = ["a", "b", "c", "d"];
    for key in keys {
        s.set(A, key, 2);
    }
    s.lose_and_mend();
    s.hold(B, A, Kind::Next);
    s.tick();
    for part in 0..keys.len() as u64 + 2 {
        s.set(A, "a", part);
        s.set(A, "b", part);
        s.let_through(B, A, Kind::Next);
    }
    assert_eq!(progress(&s, B).last, progress(&s, A).last);
    s.check();
}

/// It has acknowledged what it has dropped since: it must not be taken for one that still has that.
#[test]
fn who_was_removed_is_not_aligned_in_an_old_term_again() {
    let mut s = begin(3, 1);
    s.begin_to_replace(B);
    s.tick();
    s.join();
    s.set(A, "k", 2);
    s.report();
    s.blind(A);
    s.finish();
    assert_eq!(progress(&s, B), Progress::default());
    s.repeat(A, B, Kind::Open);
    s.tick();
    assert_eq!(progress(&s, B), Progress::default());
    s.check();
}

#[test]
fn who_is_removed_promises_nothing_any_more() {
    let mut s = begin(3, 1);
    s.begin_to_replace(B);
    s.tick();
    s.stop_disk(B);
    s.join();
    s.report();
    s.finish();
    s.unkept.clear();
    s.settle();
    let answer = &s.sent[&(s.id(B), s.id(A), Kind::Fenced)];
    let joint = s.world.nodes[&s.id(A)].map.now.state.history.terms()[1].0;
    assert!(answer.message.term < joint, "{answer:?}");
    s.check();
}
