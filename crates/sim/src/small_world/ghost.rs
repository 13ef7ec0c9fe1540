//! What no replica knows: every mutation that was ever stamped, and so what the table of a replica has to hold that claims to
//! have come to some place of some order. The invariants that it asserts have the numbers of docs/replication.md.

use henge_cluster::history::History;
use henge_cluster::replica::{Body, Fate, Key, Loss, MessageOf, Progress, State, Types};
use henge_cluster::ring::NodeId;
use henge_cluster::testing::map::{Durable, Map};
use henge_cluster::topology::{Epoch, Incarnation};
use henge_wire::Version;
use std::collections::{BTreeMap, BTreeSet};

/// What an invariant is broken by.
pub(crate) type Broken = String;

/// See the head of the file.
#[derive(Default)]
pub(crate) struct Ghost {
    started: BTreeMap<Epoch, (NodeId, Incarnation)>,
    /// Of each key what was stamped, by its seq and then its term.
    mutations: BTreeMap<Key, BTreeMap<(u64, Epoch), Option<u64>>>,
    /// The order that is aligned in a term.
    orders: BTreeMap<Epoch, History>,
    /// Of each generation, the term of each seq that anybody knows to be committed, from 1 on.
    committed: BTreeMap<Epoch, Vec<Epoch>>,
    /// What was reported as lost: the generation, the seq and the term.
    lost: BTreeSet<(Epoch, u64, Epoch)>,
    /// Of generations that a leader brought its table into, up to where that had forgotten before.
    forgotten: BTreeMap<Epoch, u64>,
    replicas: BTreeMap<NodeId, Seen>,
}

/// A replica, when it was last looked at.
#[derive(Default)]
struct Seen {
    generation: Epoch,
    adopted: Epoch,
    progress: Progress,
    /// Up to there its order was compared with what is committed.
    compared: (Epoch, u64),
    promised: Promised,
}

/// What a replica has told others of itself, and must not forget.
#[derive(Clone, Copy, Default)]
struct Promised {
    generation: Epoch,
    adopted: Epoch,
    last: Version,
}

macro_rules! hold {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}

impl Ghost {
    /// A leader stamps.
    fn stamped(&mut self, version: Version, key: &Key, value: Option<u64>) -> Result<(), Broken> {
        let place = (version.seq(), version.term());
        let others = self.mutations.iter();
        let elsewhere = others
            .filter(|(other, _)| *other != key)
            .any(|(_, done)| done.contains_key(&place));
        let mutations = self.mutations.entry(key.clone()).or_default();
        let is_new = mutations.insert(place, value).is_none();
        hold!(
            is_new && !elsewhere,
            "4: {version} is stamped a second time"
        );
        Ok(())
    }

    /// A leader has stamped the newest that is in its table.
    pub(crate) fn has_stamped(&mut self, durable: &Durable) -> Result<(), Broken> {
        let last = durable.progress.last;
        let mut records = durable.records.iter();
        let (key, (_, value)) = records
            .find(|(_, (version, _))| *version == last)
            .expect("what was stamped is there");
        self.stamped(last, key, *value)
    }

    /// A replica says something.
    pub(crate) fn said<T: Types>(
        &mut self,
        from: (NodeId, Incarnation),
        state: &State,
        message: &MessageOf<T>,
    ) -> Result<(), Broken> {
        let Seen { promised, .. } = self.replicas.entry(from.0).or_default();
        if promised.generation < state.generation {
            *promised = Promised {
                generation: state.generation,
                ..*promised
            };
            promised.last = Version::default();
        }
        match message.body {
            Body::Fence { .. } | Body::Open { .. } => {
                let starter = *self.started.entry(message.term).or_insert(from);
                hold!(
                    starter == from,
                    "4: term {} is started by {starter:?} and {from:?}",
                    message.term
                );
            }
            Body::Fenced { last, .. } => {
                promised.adopted = promised.adopted.max(message.term);
                promised.last = promised.last.max(last);
            }
            Body::Aligned { applied } | Body::Ack { applied } => {
                promised.adopted = promised.adopted.max(message.term);
                promised.last = promised.last.max(Version::new(message.term, applied));
            }
            _ => {}
        }
        Ok(())
    }

    /// A node starts, with this on its disk.
    pub(crate) fn restarted(
        &mut self,
        node: NodeId,
        durable: &Durable,
        has_lost_memory: bool,
    ) -> Result<(), Broken> {
        let seen = self.replicas.remove(&node).unwrap_or_default();
        if has_lost_memory {
            return Ok(());
        }
        let State {
            adopted,
            generation,
            ..
        } = durable.state;
        let promised = seen.promised;
        self.replicas.entry(node).or_default().promised = promised;
        hold!(
            adopted >= promised.adopted,
            "2: {node} had adopted {}, and comes back with {adopted}",
            promised.adopted
        );
        let last = durable.progress.last;
        hold!(
            generation > promised.generation || last >= promised.last,
            "2: {node} had come to {}, and comes back with {last}",
            promised.last
        );
        Ok(())
    }

    /// Looks at a replica after something has happened to it.
    pub(crate) fn look(&mut self, node: NodeId, map: &Map) -> Result<(), Broken> {
        let Durable {
            records,
            progress,
            state,
            ..
        } = &map.now;
        let Progress {
            last,
            commit,
            horizon,
        } = *progress;
        let seen = self.replicas.entry(node).or_default();
        hold!(
            seen.adopted <= state.adopted,
            "2: {node} had adopted {}, and now {}",
            seen.adopted,
            state.adopted
        );
        if seen.generation == state.generation && last.term() != 0 {
            let before = seen.progress;
            hold!(
                before.commit <= commit && before.horizon <= horizon,
                "2: {node} was at {before:?}, and is at {progress:?}"
            );
        } else {
            seen.compared = (0, 0);
            if last.term() != 0 && seen.generation != 0 {
                let before = self.forgotten.get(&seen.generation);
                let before = before.copied().unwrap_or(0);
                let forgotten = seen.progress.horizon.max(before);
                self.forgotten.entry(state.generation).or_insert(forgotten);
            }
        }
        let forgotten = self.forgotten.get(&state.generation);
        let horizon = horizon.max(forgotten.copied().unwrap_or(0));
        if last.term() == 0 {
            // It was reset, or removed, and has to remember nothing.
            seen.promised.last = Version::default();
        }
        seen.generation = state.generation;
        seen.adopted = state.adopted;
        seen.progress = *progress;
        hold!(
            state.history.newest() == last.term(),
            "7: {node} is at {last} of {:?}",
            state.history
        );
        let order = self.orders.entry(last.term());
        let order = order.or_insert_with(|| state.history.clone());
        hold!(
            *order == state.history,
            "3: {node} is aligned in term {} with {:?}, and others with {order:?}",
            last.term(),
            state.history
        );
        for (key, (version, value)) in records {
            let place = (version.seq(), version.term());
            let done = self.mutations.get(key).and_then(|d| d.get(&place));
            hold!(
                done == Some(value),
                "4: {node} holds {value:?} of {version} for {key:?}, which did {done:?}"
            );
        }
        for (key, mutations) in &self.mutations {
            let mut before = mutations.range(..=(last.seq(), Epoch::MAX)).rev();
            let term_of = |seq: u64| state.history.term_of(seq);
            let its = before.find(|((seq, term), _)| [0, *term].contains(&term_of(*seq)));
            let newest = its.map(|((seq, term), _)| Version::new(*term, *seq));
            if newest.is_some_and(|newest| term_of(newest.seq()) == 0) {
                // So long ago that its history does not tell any more.
                continue;
            }
            let held = records.get(key).map(|(version, _)| *version);
            let is_dropped = |newest: Version| held.is_none() && newest.seq() <= horizon;
            hold!(
                held == newest || newest.is_some_and(is_dropped),
                "1: {node} at {last}, horizon {horizon}, holds {held:?} for {key:?}, of which {newest:?} is the newest"
            );
        }
        let from = if seen.compared.0 == last.term() {
            seen.compared.1
        } else {
            0
        };
        let committed = self.committed.entry(state.generation).or_default();
        let known = map.committed();
        for seq in from + 1..=known {
            let term = state.history.term_of(seq);
            let place = seq as usize - 1;
            match committed.get(place) {
                Some(&known) => hold!(
                    term == 0 || term == known,
                    "3: {node} has {seq} of term {term} for committed, and others that of {known}"
                ),
                None => committed.push(term),
            }
        }
        seen.compared = (last.term(), from.max(known));
        self.check_lost(state.generation)
    }

    /// Nothing that is committed was reported as lost.
    fn check_lost(&self, generation: Epoch) -> Result<(), Broken> {
        let committed = self.committed.get(&generation);
        for &(of, seq, term) in &self.lost {
            let known = committed.and_then(|terms| terms.get(seq as usize - 1));
            hold!(
                of != generation || known != Some(&term),
                "10: {seq} of term {term} was reported as lost, and is committed"
            );
        }
        Ok(())
    }

    /// A replica reports a loss: of what was stamped, and of nothing that is committed.
    pub(crate) fn lost(&mut self, node: NodeId, loss: &Loss) -> Result<(), Broken> {
        let (Some((first, last)), Fate::Replaced) = (loss.versions, loss.fate) else {
            return Ok(());
        };
        for seq in first.seq()..=last.seq() {
            let (place, term) = ((seq, first.term()), first.term());
            let mut all = self.mutations.values();
            hold!(
                all.any(|done| done.contains_key(&place)),
                "10: {node} reports {seq} of term {term} as lost, which nobody stamped"
            );
            self.lost.insert((loss.generation, seq, term));
        }
        self.check_lost(loss.generation)
    }

    /// A leader reports that it is open.
    pub(crate) fn opened(node: NodeId, term: Epoch, durable: &Durable) -> Result<(), Broken> {
        let begun = durable.state.history.terms().last();
        let is_open = begun
            .is_some_and(|&(newest, first)| newest == term && durable.progress.commit + 1 >= first);
        hold!(is_open, "8: {node} reports {term} open, and it is not");
        Ok(())
    }

    /// An answer shows a version.
    pub(crate) fn shown(&self, generation: Epoch, version: Version) -> Result<(), Broken> {
        let committed = self.committed.get(&generation);
        let committed = committed.map_or(&[][..], |terms| &terms[..]);
        let place = version.seq() as usize - 1;
        hold!(
            committed.get(place) == Some(&version.term()),
            "9: {version} is shown, and is not committed"
        );
        Ok(())
    }
}
