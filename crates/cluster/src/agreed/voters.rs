//! Who should vote in Raft, from who is there: a pure function, which the control leader asks again whenever something has
//! changed. It says who, and not how Raft is told.
//!
//! - At most seven vote, and an odd number of them: an even one is no better at losing some. Two are the exception, as either of two
//!   has all that was agreed on, and of one the other may lack something.
//! - A lost voter keeps its vote until a living learner can take it: it may come back, and fewer voters are no safer.
//! - One lost voter is replaced at a time, so that a mistake about who is lost costs little.
//! - Who is no member any more has no vote, and neither has who leaves.
//! - Nothing is changed unless majorities of who votes and of who is to vote are alive.

use std::collections::{BTreeMap, BTreeSet};

/// Seven can lose three; more would only make each agreement slower.
pub const MAX_VOTERS: usize = 7;

/// A member, as this is asked about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seat {
    /// It answers.
    pub is_alive: bool,
    /// It is to go, and gives its vote away.
    pub is_leaving: bool,
}

/// The voters that there should be, if they are others than those that there are.
///
/// `members` are all members by their Raft ids, `voters` who votes, `learners` who has nearly all of the log and does not vote, and
/// `leader` who asks.
pub fn next(
    members: &BTreeMap<u64, Seat>,
    voters: &BTreeSet<u64>,
    learners: &BTreeSet<u64>,
    leader: u64,
) -> Option<BTreeSet<u64>> {
    let is_alive = |id: &u64| members.get(id).is_some_and(|seat| seat.is_alive);
    let stays = |id: &u64| members.get(id).is_some_and(|seat| !seat.is_leaving);
    let is_majority_alive = |of: &BTreeSet<u64>| {
        let alive = of.iter().filter(|id| is_alive(id)).count();
        2 * alive > of.len()
    };
    if !is_majority_alive(voters) {
        return None;
    }
    let mut next: BTreeSet<u64> = voters.iter().copied().filter(stays).collect();
    let can = |id: &u64| is_alive(id) && stays(id) && !voters.contains(id);
    let mut waiting: Vec<u64> = learners.iter().copied().filter(can).collect();
    waiting.reverse();
    // One that is lost, and who could vote in its place.
    let first = waiting.last().copied();
    let is_lost = |id: &u64| !is_alive(id);
    let replace = |of: &BTreeSet<u64>| -> Option<BTreeSet<u64>> {
        let out = of.iter().copied().rfind(is_lost)?;
        let rest = of.iter().copied().filter(|&id| id != out);
        Some(rest.chain([first?]).collect())
    };
    let count = best(next.len() + waiting.len());
    while next.len() < count {
        next.extend(waiting.pop());
    }
    while next.len() > count {
        let another = || next.iter().copied().rfind(|&id| id != leader);
        let out = next.iter().copied().rfind(is_lost).or_else(another)?;
        next.remove(&out);
    }
    // Taking somebody in and putting somebody out in the same change is for those only who are no members any more.
    if next.is_subset(voters) {
        next = replace(&next).unwrap_or(next);
    }
    if !is_majority_alive(&next) {
        // Who leaves has to vote on until fewer are lost.
        next = replace(voters)?;
    }
    (next != *voters).then_some(next)
}

/// How many of so many should vote.
pub fn best(candidates: usize) -> usize {
    match candidates.min(MAX_VOTERS) {
        few @ 0..=2 => few,
        more => more - (more + 1) % 2,
    }
}

#[cfg(test)]
mod tests;
