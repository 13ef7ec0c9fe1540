//! One story for each way to lie that a first draft had, by the numbers of `henge_cluster::bugs`. Each is told twice: without
//! the bug it ends well, which may be a miss or no answer, and with it the lie is seen. In all of them k is 1 on all replicas
//! when it begins.

use super::Seen::{NoAnswer, Nothing, Shows};
use super::*;

/// One way to lie.
struct Way {
    /// What is planted: one bug, or two where each alone is harmless.
    bugs: Bugs,
    name: &'static str,
    replicas: usize,
    spares: usize,
    tell: fn(&mut Story) -> Vec<Seen>,
    /// What clients see if all is well, and what with the bug.
    well: &'static [Seen],
    lie: &'static [Seen],
}

const fn way(
    bugs: Bugs,
    name: &'static str,
    tell: fn(&mut Story) -> Vec<Seen>,
    well: &'static [Seen],
    lie: &'static [Seen],
) -> Way {
    Way {
        bugs,
        name,
        replicas: 3,
        spares: 0,
        tell,
        well,
        lie,
    }
}

const fn bug(number: u8) -> Bugs {
    Bugs::only(number)
}

#[rustfmt::skip]
const WAYS: [Way; 22] = [
    way(bug(1), "no horizon", no_horizon, &[Nothing], &[Shows(1)]),
    Way { replicas: 5, ..way(bug(2), "a copy does not inherit the horizon", no_inheritance, &[Nothing], &[Shows(1)]) },
    way(bug(3), "a drop during a delta", drop_in_a_delta, &[Nothing], &[Shows(1)]),
    way(bug(4), "a partial copy counts", partial_copy, &[Shows(1), Shows(1)], &[Shows(2), Shows(1)]),
    way(bug(5), "a copy claims where it began", early_claim, &[Shows(3), Shows(3)], &[Shows(3), Shows(1)]),
    way(bug(6), "alignment does not raise the term", figure_eight, &[Shows(1), Shows(1)], &[Shows(2), Shows(1)]),
    way(bug(7), "an entry is taken by its seq", taken_by_seq, &[Shows(20)], &[Shows(2)]),
    way(bug(8), "a term is resumed", resumed_term, &[NoAnswer, Shows(2)], &[Shows(3), Shows(2)]),
    way(bug(9), "any incarnation counts", other_start, &[NoAnswer], &[Shows(1)]),
    way(bug(10), "a replica remembers before it has copied", early_return, &[NoAnswer], &[Shows(1)]),
    way(bug(9).and(11), "adopted is not durable", forgotten_term, &[NoAnswer, Shows(1)], &[Shows(2), Shows(1)]),
    way(bug(12), "an ack before the log has it", early_ack, &[NoAnswer, Shows(1)], &[Shows(2), Shows(1)]),
    way(bug(13), "a reset is an event", reset_as_event, &[Nothing], &[Shows(1)]),
    Way { spares: 1, ..way(bug(14), "Final before its Joint opened", early_final, &[Shows(2)], &[Shows(1)]) },
    way(bug(15), "a delete of nothing does nothing", no_tombstone, &[Nothing, Nothing], &[Nothing, Shows(1)]),
    way(bug(16), "a failed SETNX answers at once", early_failure, &[NoAnswer, Shows(1)], &[Shows(2), Shows(1)]),
    way(bug(17), "a write of unknown outcome is repeated", repeated_write, &[NoAnswer, Shows(20), Shows(20)], &[NoAnswer, Shows(20), Shows(2)]),
    way(bug(18), "an echo for a term that is over", echo_of_the_past, &[NoAnswer], &[Shows(1)]),
    way(bug(20), "one ack for a link", one_ack_for_a_link, &[NoAnswer, Shows(1)], &[Shows(2), Shows(1)]),
    way(bug(22), "what is given up is kept", kept_divergence, &[Shows(1), Shows(1)], &[Shows(2), Shows(1)]),
    way(bug(22), "a tombstone that is given up is kept", kept_tombstone, &[Shows(1)], &[Nothing]),
    way(bug(22), "a key that is given up is kept", kept_key, &[Nothing, Nothing], &[Shows(7), Nothing]),
];

#[test]
fn each_way_to_lie_is_seen_with_its_bug_and_only_then() {
    for way in &WAYS {
        let told = |bugs: Bugs| {
            let mut story = Story::new(bugs, way.replicas, way.spares);
            story.set(A, "k", 1);
            story.tick();
            let seen = (way.tell)(&mut story);
            (seen, story.world.lies)
        };
        let (seen, lies) = told(Bugs::default());
        assert_eq!(seen, way.well, "without: {}", way.name);
        assert!(lies.is_empty(), "without: {}: {lies:?}", way.name);
        let (seen, lies) = told(way.bugs);
        assert_eq!(seen, way.lie, "with: {}", way.name);
        // Who repeats a write lies to itself.
        assert!(!lies.is_empty() || way.bugs == bug(17), "{}", way.name);
    }
}

/// Where a bug is harmless without another one.
#[test]
fn to_forget_a_term_is_no_lie_as_long_as_starts_are_told_apart() {
    for bugs in [bug(9), bug(11)] {
        let mut story = Story::new(bugs, 3, 0);
        story.set(A, "k", 1);
        story.tick();
        assert_eq!(forgotten_term(&mut story), [NoAnswer, Shows(1)]);
    }
}

/// C is away while k is written and evicted. Its delta has nothing of that.
fn no_horizon(s: &mut Story) -> Vec<Seen> {
    s.cut(C);
    s.set(A, "k", 2);
    s.tick();
    s.evict(A, "k");
    s.evict(B, "k");
    s.lose_and_mend();
    s.tick();
    s.lead(C);
    vec![s.get(C, "k")]
}

/// B copies A in full, and knows nothing of what A had dropped. C takes B's delta.
fn no_inheritance(s: &mut Story) -> Vec<Seen> {
    s.cut(B);
    s.cut(C);
    s.set(A, "k", 2);
    s.tick();
    s.evict(A, "k");
    s.lose_and_mend();
    s.cut(C);
    s.tick();
    s.lose_and_mend();
    s.cut(A);
    s.cut(E);
    s.lead(B);
    s.lead(C);
    vec![s.get(C, "k")]
}

/// B pulls what is above 1. A drops k before the scan has come to it.
fn drop_in_a_delta(s: &mut Story) -> Vec<Seen> {
    s.cut(B);
    s.set(A, "k", 2);
    s.set(A, "a", 3);
    s.tick();
    s.lose_and_mend();
    s.hold(B, A, Kind::Next);
    s.tick();
    s.evict(A, "k");
    s.mend();
    s.cut(A);
    s.lead(B);
    vec![s.get(B, "k")]
}

/// A alone has k = 2. B pulls it, and the link breaks before the end of the copy.
fn partial_copy(s: &mut Story) -> Vec<Seen> {
    s.hold(A, B, Kind::Append);
    s.hold(A, C, Kind::Append);
    s.try_to_set(A, "k", 2);
    s.try_to_set(A, "m", 3);
    s.lose();
    s.block(A, C);
    s.hold(B, A, Kind::Next);
    s.tick();
    s.lose_and_mend();
    s.cut(A);
    s.lead(B);
    s.set(B, "m", 9);
    let first = s.get(B, "k");
    s.lead(C);
    vec![first, s.get(C, "k")]
}

/// B pulls what is above 1, and k = 3 is written meanwhile by A alone. The copy has it, and does not say so.
fn early_claim(s: &mut Story) -> Vec<Seen> {
    s.cut(B);
    s.set(A, "a", 2);
    s.set(A, "b", 2);
    s.lose_and_mend();
    s.hold(B, A, Kind::Next);
    s.hold(A, C, Kind::Append);
    s.tick();
    s.try_to_set(A, "k", 3);
    s.release(B, A, Kind::Next);
    s.lose_and_mend();
    s.cut(A);
    s.lead(B);
    s.set(B, "m", 9);
    let first = s.get(B, "k");
    s.lead(C);
    vec![first, s.get(C, "k")]
}

/// Figure 8 of the Raft paper: A stamps alone, then B does in a later term, then A leads a still later one with C, which was
/// aligned with B. A's longer tail must not win against that: B's wins against A's once more.
fn figure_eight(s: &mut Story) -> Vec<Seen> {
    s.cut(A);
    s.try_to_set(A, "k", 2);
    s.lose();
    s.lead(B);
    s.cut(B);
    s.try_to_set(B, "m", 20);
    s.lose_and_mend();
    s.cut(B);
    s.lead(A);
    let first = s.get(A, "k");
    s.lose_and_mend();
    s.cut(A);
    s.lead(B);
    vec![first, s.get(B, "k")]
}

/// A has stamped k = 2 alone. It leaves its term, and before it is aligned again an entry comes that fits by its seq.
fn taken_by_seq(s: &mut Story) -> Vec<Seen> {
    s.block(A, B);
    s.block(A, C);
    s.try_to_set(A, "k", 2);
    s.hold(B, A, Kind::Open);
    s.lead(B);
    s.set(B, "k", 20);
    s.set(B, "m", 30);
    s.lose_and_mend();
    s.cut(B);
    s.lead(A);
    vec![s.get(A, "k")]
}

/// A loses (1, 2) in a crash, B has it. A goes on in its term and stamps (1, 2) again; B's ack of the one counts for the other.
fn resumed_term(s: &mut Story) -> Vec<Seen> {
    s.lead(A);
    let epoch = s.world.newest();
    s.stop_disk(A);
    s.hold(A, C, Kind::Append);
    s.hold(B, A, Kind::Ack);
    s.try_to_set(A, "k", 2);
    s.crash(A);
    s.blind(A);
    s.start(A);
    s.lose();
    s.world.see(s.id(A), epoch);
    s.tick();
    let acknowledged = s.try_to_set(A, "k", 3);
    s.release(B, A, Kind::Ack);
    s.tick();
    let acknowledged = s.late(acknowledged);
    s.cut(A);
    s.lead(B);
    vec![acknowledged, s.get(B, "k")]
}

/// A and B have k = 2. B loses its memory, and C, which has not heard of that, takes the answer of B's new start for that of the
/// one before.
fn other_start(s: &mut Story) -> Vec<Seen> {
    s.cut(C);
    s.set(A, "k", 2);
    s.lose_and_mend();
    s.cut(A);
    s.hold(C, B, Kind::Fence);
    s.lead(C);
    let epoch = s.world.newest();
    s.crash(B);
    s.blind(B);
    s.blind(C);
    s.start_empty(B);
    s.world.see(s.id(B), epoch);
    s.release(C, B, Kind::Fence);
    s.tick();
    vec![s.get(C, "k")]
}

/// As before, but all know of B's new start, and it says too early that it has everything again.
fn early_return(s: &mut Story) -> Vec<Seen> {
    s.cut(C);
    s.set(A, "k", 2);
    s.lose_and_mend();
    s.world.reports.clear();
    s.hold(A, C, Kind::Open);
    s.hold(A, C, Kind::Beat);
    s.hold(B, A, Kind::Next);
    s.hold(B, A, Kind::Pull);
    s.crash(B);
    s.start_empty(B);
    s.report();
    s.lose_and_mend();
    s.cut(A);
    s.lead(C);
    vec![s.get(C, "k")]
}

/// C answers B's fence, restarts, forgets that, and acknowledges to A.
fn forgotten_term(s: &mut Story) -> Vec<Seen> {
    s.block(A, B);
    s.block(B, A);
    s.blind(A);
    s.hold(B, C, Kind::Open);
    s.lead(B);
    s.crash(C);
    s.start(C);
    s.repeat(A, C, Kind::Open);
    let acknowledged = s.try_to_set(A, "k", 2);
    s.release(B, C, Kind::Open);
    s.tick();
    vec![acknowledged, s.get(B, "k")]
}

/// B acknowledges what its log does not have, and crashes.
fn early_ack(s: &mut Story) -> Vec<Seen> {
    s.cut(C);
    s.stop_disk(B);
    let acknowledged = s.try_to_set(A, "k", 2);
    s.crash(B);
    s.lose_and_mend();
    s.cut(A);
    s.start(B);
    s.lead(C);
    vec![acknowledged, s.get(C, "k")]
}

/// A and B lose their memory, which is a reset. C does not see it happen, and brings what it had.
fn reset_as_event(s: &mut Story) -> Vec<Seen> {
    s.cut(C);
    s.set(A, "k", 2);
    s.lose();
    s.crash(C);
    s.crash(A);
    s.crash(B);
    s.start_empty(A);
    s.start_empty(B);
    s.mend();
    s.cut(B);
    s.start(C);
    s.lead(A);
    vec![s.get(A, "k")]
}

/// D comes for B. A and B have k = 2, and A says that it is open before D and C have it.
fn early_final(s: &mut Story) -> Vec<Seen> {
    s.begin_to_replace(B);
    s.tick();
    s.world.reports.clear();
    s.cut(C);
    s.cut(D);
    s.set(A, "k", 2);
    s.join();
    s.report();
    s.finish();
    s.lose_and_mend();
    s.cut(A);
    s.lead(C);
    vec![s.get(C, "k")]
}

/// The leader has evicted k, and a follower has not.
fn no_tombstone(s: &mut Story) -> Vec<Seen> {
    s.evict(A, "k");
    let deleted = s.ask(A, Request::Delete("k".into()));
    s.cut(A);
    s.lead(B);
    vec![deleted, s.get(B, "k")]
}

/// It fails because of a k = 2 that nobody else ever has.
fn early_failure(s: &mut Story) -> Vec<Seen> {
    s.cut(A);
    s.try_to_set(A, "k", 2);
    let failed = s.ask(A, Request::Add("k".into(), 3));
    s.lead(B);
    vec![failed, s.get(B, "k")]
}

/// k = 2 is done, and its client is not told. Another one puts 20. Then the first one tries again.
fn repeated_write(s: &mut Story) -> Vec<Seen> {
    s.hold(B, A, Kind::Ack);
    s.hold(C, A, Kind::Ack);
    let unknown = s.try_to_set(A, "k", 2);
    s.cut(A);
    s.lead(B);
    s.set(B, "k", 20);
    let before = s.get(B, "k");
    if s.has(17) {
        s.set(B, "k", 2);
    }
    vec![unknown, before, s.get(B, "k")]
}

/// B and C have gone on. C tells A, which has not heard of that, that it still follows it.
fn echo_of_the_past(s: &mut Story) -> Vec<Seen> {
    s.block(A, B);
    s.block(B, A);
    s.blind(A);
    s.lead(B);
    s.set(B, "k", 2);
    vec![s.get(A, "k")]
}

/// B refuses what A sends of one partition, as it has gone on there, and acknowledges what comes of another one over the same
/// link. A takes that for both.
fn one_ack_for_a_link(s: &mut Story) -> Vec<Seen> {
    let mut other = Story::new(s.bugs, 3, 0);
    s.cut(A);
    s.holds.clear();
    s.block(C, A);
    s.block(A, C);
    s.block(B, A);
    s.lead(C);
    let asked = s.try_to_set(A, "k", 2);
    // The next frames of the link are of the other partition, where all is well.
    other.set(A, "q", 5);
    if s.has(20) {
        let applied = s.world.nodes[&s.id(A)].map.now.progress.last;
        s.say(
            B,
            A,
            applied.term(),
            Body::Ack {
                applied: applied.seq(),
            },
        );
    }
    let acknowledged = s.late(asked);
    vec![acknowledged, s.get(C, "k")]
}

/// A stamps k = 2 alone. B and C go on without it, and A comes back.
fn kept_divergence(s: &mut Story) -> Vec<Seen> {
    give_up(s, Request::Set("k".into(), 2));
    let first = s.get(A, "k");
    s.lead(C);
    vec![first, s.get(C, "k")]
}

fn kept_tombstone(s: &mut Story) -> Vec<Seen> {
    give_up(s, Request::Delete("k".into()));
    vec![s.get(A, "k")]
}

fn kept_key(s: &mut Story) -> Vec<Seen> {
    give_up(s, Request::Set("n".into(), 7));
    let first = s.get(A, "n");
    s.lead(C);
    vec![first, s.get(C, "n")]
}

/// A has done something alone, B and C go on with something else, and then A leads again.
fn give_up(s: &mut Story, alone: Request) {
    s.cut(A);
    s.ask(A, alone);
    s.lose();
    s.lead(B);
    s.set(B, "m", 20);
    s.lose_and_mend();
    s.tick();
    s.lead(A);
}
