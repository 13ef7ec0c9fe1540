//! What a replica had applied and the surviving order does not hold: entries that their leader may have acknowledged at ONE. It
//! names them only once that is settled, which is when the term in which it has given them up is open: until then another leader
//! may begin from a replica that still has them. What cannot be told exactly it calls unknown, and never guesses.

use super::message::End;
use super::table::{Progress, Table, Types, Wiped};
use super::{Output, Replica, Role};
use crate::history::{History, KEPT_TERMS};
use crate::topology::Epoch;
use henge_wire::Version;
use std::collections::BTreeMap;

/// What was lost, or may have been.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Loss {
    /// The generation that it was of.
    pub generation: Epoch,
    /// The first and the last of a run of the order; none where nobody can say which.
    pub versions: Option<(Version, Version)>,
    /// What became of it.
    pub fate: Fate,
}

/// What became of entries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fate {
    /// The surviving order has others in their place, or none. The run is of one term, and each of its entries was stamped.
    Replaced,
    /// Unknown: the partition began anew in a later generation, which nobody had ordered, and this replica's data was of the old
    /// one.
    Reset,
    /// Unknown: the replica was removed while it had more than it knew to be committed.
    Removed,
    /// Unknown: so many terms ago that no order tells any more.
    Forgotten,
}

impl Loss {
    /// How many entries there are in the run.
    pub fn count(&self) -> Option<u64> {
        let (first, last) = self.versions?;
        Some(last.seq() - first.seq() + 1)
    }

    /// Whether it is not known what was lost of this.
    pub fn is_unknown(&self) -> bool {
        self.fate != Fate::Replaced
    }
}

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Losses {
    /// The generation of what follows.
    generation: Epoch,
    /// What was given up and is not settled: of each term the first and the last seq. What survives of a term is its beginning, so
    /// what does not is one run.
    given_up: BTreeMap<Epoch, (u64, u64)>,
    /// The generation of data that were wiped for a later one, of which the topology has not said yet whether that was ordered.
    wiped: Option<Epoch>,
}

impl Losses {
    /// All that is not settled, as it is to be told if this replica ends before it is.
    fn unsettled(&self) -> Vec<Loss> {
        let run = |(&term, &(first, last)): (&Epoch, &(u64, u64))| Loss {
            generation: self.generation,
            versions: Some((Version::new(term, first), Version::new(term, last))),
            fate: Fate::Replaced,
        };
        let wiped = self.wiped.map(|generation| Loss {
            generation,
            versions: None,
            fate: Fate::Reset,
        });
        self.given_up.iter().map(run).chain(wiped).collect()
    }
}

impl<T: Types> Replica<T> {
    /// A copy replaces what this replica has above what both have.
    pub(super) fn give_up_own(&mut self, own: Progress, end: &End) {
        let history = &self.state.history;
        let (last, at) = (own.last.seq(), end.at.seq());
        let common = history.common(last, &end.history, at);
        // What is committed is in every later order, also where that has forgotten its oldest terms.
        let kept = common.max(own.commit.min(last));
        if kept >= last {
            return;
        }
        let generation = self.state.generation;
        self.losses.generation = generation;
        let is_told = |term: Epoch| {
            let oldest = end.history.terms().first();
            let is_whole = end.history.terms().len() < KEPT_TERMS;
            is_whole || oldest.is_some_and(|&(oldest, _)| oldest <= term)
        };
        let mut unknown = Vec::new();
        let terms = history.terms();
        let oldest = terms.first().map_or(last + 1, |&(_, first)| first);
        if kept + 1 < oldest {
            let run = (Version::new(0, kept + 1), Version::new(0, oldest - 1));
            unknown.push((run, Fate::Forgotten));
        }
        for (place, &(term, first)) in terms.iter().enumerate() {
            let ends = terms.get(place + 1).map_or(last, |&(_, next)| next - 1);
            let (first, ends) = (first.max(kept + 1), ends.min(last));
            if first > ends {
                continue;
            }
            let run = (Version::new(term, first), Version::new(term, ends));
            if term < generation {
                // It was brought into this generation by the seed of a reset.
                unknown.push((run, Fate::Reset));
            } else if is_told(term) {
                let known = self.losses.given_up.entry(term).or_insert((first, ends));
                *known = (known.0.min(first), known.1.max(ends));
            } else {
                unknown.push((run, Fate::Forgotten));
            }
        }
        while self.losses.given_up.len() > KEPT_TERMS {
            let oldest = self.losses.given_up.pop_first();
            let (term, (first, last)) = oldest.expect("there are some");
            let run = (Version::new(term, first), Version::new(term, last));
            unknown.push((run, Fate::Forgotten));
        }
        for (run, fate) in unknown {
            self.lose(generation, Some(run), fate);
        }
        self.say_unsettled();
    }

    /// The term in which this replica is aligned is open: every later order has what this one has, and nothing in its place.
    pub(super) fn settle_losses(&mut self, table: &dyn Table<T>) {
        if self.losses.given_up.is_empty() {
            return;
        }
        let last = table.progress().last.seq();
        let (generation, given_up) = (
            self.losses.generation,
            std::mem::take(&mut self.losses.given_up),
        );
        for (term, (first, ends)) in given_up {
            let survives = survives(&self.state.history, term, last);
            let first = first.max(survives + 1);
            if first <= ends {
                let run = (Version::new(term, first), Version::new(term, ends));
                self.lose(generation, Some(run), Fate::Replaced);
            }
        }
        self.say_unsettled();
    }

    /// What this replica has, of this generation, is wiped for a later one. Gives why, as far as that is known.
    pub(super) fn lose_to_reset(&mut self, generation: Epoch, own: Progress) -> Option<Wiped> {
        self.lose_unsettled(Fate::Reset);
        // Of no generation is what a node had before it was in a cluster.
        if own.last.seq() > 0 && generation > 0 && self.losses.wiped.is_none() {
            self.losses.wiped = Some(generation);
            self.say_unsettled();
        }
        self.judge_reset()
    }

    /// Whether a reset was ordered the topology says, perhaps later than a fence that came of it. Gives what it says, once.
    pub(super) fn judge_reset(&mut self) -> Option<Wiped> {
        let placement = &self.view.placement;
        let (is_known, forgotten) = (
            placement.generation >= self.state.generation,
            placement.forgotten,
        );
        let generation = self.losses.wiped.take_if(|_| is_known)?;
        let is_lost = forgotten <= generation;
        if is_lost {
            self.lose(generation, None, Fate::Reset);
        }
        self.say_unsettled();
        Some(if is_lost { Wiped::Lost } else { Wiped::Ordered })
    }

    /// This replica is removed, with what it has.
    pub(super) fn lose_to_removal(&mut self, own: Progress) {
        self.lose_unsettled(Fate::Removed);
        // Who is aligned with a leader has what that has, and the leader knows what became of it.
        let is_aligned = own.last.term() == self.state.adopted;
        let follows = is_aligned && matches!(self.role, Role::Following(_));
        let (last, generation) = (own.last.seq(), self.state.generation);
        if follows || own.commit >= last || generation == 0 {
            return;
        }
        let history = &self.state.history;
        let first = Version::new(history.term_of(own.commit + 1), own.commit + 1);
        let last = Version::new(history.term_of(last), last);
        self.lose(generation, Some((first, last)), Fate::Removed);
    }

    /// What is not settled never will be here.
    pub(super) fn lose_unsettled(&mut self, fate: Fate) {
        let generation = self.losses.generation;
        let given_up = std::mem::take(&mut self.losses.given_up);
        if given_up.is_empty() {
            return;
        }
        for (term, (first, last)) in given_up {
            let run = (Version::new(term, first), Version::new(term, last));
            self.lose(generation, Some(run), fate);
        }
        self.say_unsettled();
    }

    fn lose(&mut self, generation: Epoch, versions: Option<(Version, Version)>, fate: Fate) {
        let loss = Loss {
            generation,
            versions,
            fate,
        };
        self.ready.push_back(Output::Lost(loss));
    }

    fn say_unsettled(&mut self) {
        let unsettled = self.losses.unsettled();
        self.ready.push_back(Output::Unsettled(unsettled));
    }
}

/// The last seq of a term that an order has, 0 if it has none of it. An order that has forgotten its oldest terms has been asked
/// for those before (see [`Replica::give_up_own`]).
fn survives(history: &History, term: Epoch, last: u64) -> u64 {
    let terms = history.terms();
    let Ok(place) = terms.binary_search_by_key(&term, |&(term, _)| term) else {
        return 0;
    };
    terms.get(place + 1).map_or(last, |&(_, next)| next - 1)
}
