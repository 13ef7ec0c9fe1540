//! What must hold, whatever happens: the claim, and the invariants of the protocol. What they need to know of the past, and no
//! replica does, is kept here, as little of it as will do: each bit of it makes states different.

use super::local::{Flight, Node};
use super::sealed::Sealed;
use super::table::{Ledger, Mutation, NOBODYS, Order, letter};
use super::world::{Asked, place};
use henge_cluster::history::History;
use henge_cluster::replica::{Body, Key, Progress, Table, View};
use henge_cluster::ring::NodeId;
use henge_cluster::testing::map::{Request, Shown};
use henge_cluster::topology::{Epoch, Incarnation};
use henge_wire::Version;
use std::collections::{BTreeMap, BTreeSet};

/// A law that a step has broken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Law {
    /// No answer is older than what was shown or acknowledged before the request was made.
    Claim,
    /// What an answer shows is committed, and what was written.
    Shown,
    /// Of each key a table has exactly the newest of its order, or nothing, and that is not above the horizon.
    Table,
    /// `horizon <= commit <= last`, the term of `last` is not above `adopted`, and all of them only grow.
    Bounds,
    /// What is committed is the same for all, and in the base of each later term.
    Committed,
    /// When something becomes committed a quorum has it, and keeps it.
    Quorum,
    /// A version is one mutation.
    OneMutation,
    /// A term is started by one process.
    OneStart,
    /// The order that a replica claims to have is the one that it has.
    Order,
    /// The end of a change of replicas comes after its joint part was open.
    Final,
    /// An assertion of the machine.
    Assert,
}

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ghost {
    /// How many were made.
    pub requests: u64,
    /// Of each key the newest version that anybody was told of.
    floors: BTreeMap<u8, Version>,
    /// All that was ever stamped.
    mutations: Order,
    /// Of each generation what is committed, and in which term it first was.
    pub committed: BTreeMap<Epoch, Vec<(Mutation, Epoch)>>,
    /// Who has started a term.
    started: BTreeMap<Epoch, (NodeId, Incarnation)>,
    /// Terms that are open.
    pub opened: BTreeSet<Epoch>,
    /// When both lists began to count.
    pub joined: Option<Epoch>,
}

fn unless(holds: bool, law: Law) -> Option<Law> {
    (!holds).then_some(law)
}

impl Ghost {
    /// What an answer about a key may not be older than.
    pub fn floor(&self, key: &Key) -> Version {
        self.floors.get(&letter(key)).copied().unwrap_or_default()
    }

    /// Of each key the newest version that anybody was told of.
    pub fn floors(&self) -> &BTreeMap<u8, Version> {
        &self.floors
    }

    /// A message is sent.
    pub fn hear(&mut self, flight: &Flight) -> Option<Law> {
        let message = &flight.message;
        if !matches!(message.body, Body::Fence { .. } | Body::Open { .. }) {
            return None;
        }
        let first = *self.started.entry(message.term).or_insert(flight.from);
        unless(first == flight.from, Law::OneStart)
    }

    /// A request is answered.
    pub fn answer(&mut self, asked: &Asked, (version, value): Shown) -> Option<Law> {
        let key = letter(asked.request.key());
        let Some(version) = version else {
            if matches!(asked.request, Request::Delete(_)) {
                // It says that nothing is there, without a place in the order: what is in it must not come back.
                let of_key = self.mutations.iter().filter(|m| m.key == key);
                let gone = of_key.map(|m| m.version.next()).max();
                self.floors.extend(gone.map(|gone| (key, gone)));
            }
            // A miss is always allowed.
            return None;
        };
        let is_miss = value.is_none() && matches!(asked.request, Request::Get(_));
        let floor = self.floors.entry(key).or_default();
        *floor = (*floor).max(version);
        let was_written = self.mutations.contains(&Mutation {
            version,
            key,
            value,
        });
        let mut committed = self.committed.values().flatten();
        let is_committed = committed.any(|(mutation, _)| mutation.version == version);
        unless(version >= asked.floor || is_miss, Law::Claim)
            .or(unless(is_committed && was_written, Law::Shown))
    }

    /// A node has done something.
    pub fn watch(&mut self, before: &Node, after: &Node, nodes: &[Sealed<Node>]) -> Option<Law> {
        self.stamp(before, after)
            .or_else(|| self.commit(before, after, nodes))
            .or_else(|| self.base(before, after))
    }

    /// What is new in an order and in no other was stamped here.
    fn stamp(&mut self, before: &Node, after: &Node) -> Option<Law> {
        let new = after.table.order.last()?;
        let is_own = after.table.order.len() == before.table.order.len() + 1;
        let known = self.mutations.iter().find(|m| m.version == new.version);
        match known {
            None => {
                self.mutations.push(*new);
                self.mutations.sort_unstable_by_key(|m| m.version);
                unless(is_own, Law::OneMutation)
            }
            Some(known) => unless(known == new || new.key == NOBODYS, Law::OneMutation),
        }
    }

    /// Rule 7.
    fn commit(&mut self, before: &Node, after: &Node, nodes: &[Sealed<Node>]) -> Option<Law> {
        let commit = after.table.progress().commit as usize;
        let state = after.replica.state();
        let committed = self.committed.entry(state.generation).or_default();
        let known = committed.len();
        let order = &after.table.order;
        let same = committed
            .iter()
            .zip(order.iter().take(commit))
            .all(|(known, own)| known.0 == *own);
        let new = order.iter().take(commit).skip(known);
        committed.extend(new.map(|mutation| (*mutation, state.adopted)));
        if committed.is_empty() {
            self.committed.remove(&state.generation);
        }
        let is_first = commit > known && commit as u64 > before.table.progress().commit;
        let is_quorum = || {
            let view = after.view.as_ref();
            let has = |view: &View, node| has(&nodes[place(node)], view, after, commit);
            view.is_none_or(|view| view.placement.is_quorum(|node| has(view, node)))
        };
        unless(same, Law::Committed).or(unless(!is_first || is_quorum(), Law::Quorum))
    }

    /// What was committed in a lower term is in the base of a higher.
    fn base(&self, before: &Node, after: &Node) -> Option<Law> {
        let term = after.aligned();
        if before.aligned() == term {
            return None;
        }
        let generation = after.replica.state().generation;
        let committed = self.committed.get(&generation)?;
        let mut lower = committed.iter().enumerate().filter(|(_, (_, t))| *t < term);
        let all =
            lower.all(|(place, (mutation, _))| after.table.order.get(place) == Some(mutation));
        unless(all, Law::Committed)
    }
}

/// Whether a node has, and keeps, what a leader takes for committed; or has moved on, and what it has tells nothing.
fn has(node: &Node, view: &View, leader: &Node, commit: usize) -> bool {
    let named = view.incarnations.get(&node.id);
    let leads = leader.replica.state();
    let state = node.replica.state();
    if named != Some(&node.incarnation)
        || state.adopted > leads.adopted
        || state.generation > leads.generation
    {
        return true;
    }
    node.table.kept().get(commit - 1) == leader.table.order.get(commit - 1)
}

/// The laws of what is in one node.
pub fn of_one(before: &Node, after: &Node) -> Option<Law> {
    table_law(&after.table)
        .or(bounds_law(before, after))
        .or(order_law(after))
}

/// Invariant 1.
fn table_law(table: &Ledger) -> Option<Law> {
    let records = &table.map.now.records;
    let newest = |key: u8| table.order.iter().rev().find(|m| m.key == key);
    let horizon = table.progress().horizon;
    let is_newest = records.iter().all(|(key, (version, value))| {
        newest(letter(key)).is_some_and(|m| m.version == *version && m.value == *value)
    });
    let all = table.order.iter().all(|mutation| {
        mutation.key == NOBODYS
            || records.contains_key(&vec![mutation.key])
            || newest(mutation.key).is_none_or(|m| m.version.seq() <= horizon)
    });
    unless(is_newest && all, Law::Table)
}

/// Invariant 2.
fn bounds_law(before: &Node, after: &Node) -> Option<Law> {
    let Progress {
        last,
        commit,
        horizon,
    } = after.table.progress();
    let state = after.replica.state();
    let (old, known) = (before.table.progress(), before.replica.state());
    let holds = horizon <= commit
        && commit <= last.seq()
        && last.term() <= state.adopted
        && state.adopted >= known.adopted
        && state.generation >= known.generation;
    let view = after.view.as_ref();
    let is_replica = view.is_none_or(|view| view.placement.names(after.id));
    let goes_on = is_replica && state.generation == known.generation;
    let grows = commit >= old.commit && horizon >= old.horizon && last.term() >= old.last.term();
    unless(holds && (!goes_on || grows), Law::Bounds)
}

/// What its history says is what it has.
fn order_law(node: &Node) -> Option<Law> {
    let order = &node.table.order;
    let last = node.table.progress().last.seq();
    let history = &node.replica.state().history;
    let ends = order.chunk_by(|a, b| a.version.term() == b.version.term());
    let mut next = 1;
    let holds = ends.into_iter().all(|of_term| {
        let (first, end) = (next, next + of_term.len() as u64 - 1);
        next = end + 1;
        let own = History::from(&[(of_term[0].version.term(), first)][..]);
        history.common(last, &own, u64::MAX) == end
            && of_term
                .iter()
                .zip(first..)
                .all(|(m, seq)| m.version.seq() == seq)
    });
    unless(holds && order.len() as u64 == last, Law::Order)
}
