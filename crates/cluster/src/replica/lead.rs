//! What a leader does: it fences, takes the furthest order for the base of its term, has the others aligned to it, stamps,
//! streams, and finds out what is committed.

use super::answers::{Answer, Level, Reached, RequestId, Wait};
use super::follow::Pull;
use super::message::Body;
use super::table::{Entry, Progress, Ran, Table, Types};
use super::{Course, Nodes, Output, Replica, Role, View};
use crate::few::Few;
use crate::history::{History, next};
use crate::ring::NodeId;
use crate::topology::{Epoch, Placement};
use henge_wire::Version;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// For so many ticks a leader waits for what it has taken in before another is to lead. What is to be on all replicas may wait for one
/// that is away, and those that wait for the next leader have no longer than their deadlines.
const REST_TICKS: u32 = 40;
/// For so many ticks it waits for the other one; then it goes on for as long, as who proposes that may be gone, and rests again.
const AWAY_TICKS: u32 = 80;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Leading<T: Types> {
    pub(super) term: Epoch,
    /// How far each has come that has left lower terms.
    answers: BTreeMap<NodeId, (Version, History)>,
    /// The mark of its own adoption, and of its base.
    fence_mark: u64,
    base: Option<Base>,
    is_open: bool,
    peers: Few<NodeId, Peer>,
    /// The base is pulled from another.
    pub(super) pull: Option<Pull<T>>,
    /// The newest probe that was sent, and the newest that a quorum has echoed.
    asked: u64,
    echoed: u64,
    rest: Rest,
}

/// How a leader stands that takes nothing more in, as another is to lead.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Rest {
    /// It takes in what is asked.
    No,
    /// It waits for what it has taken in, for so many ticks.
    Begun(u32),
    /// It has told that it rests, so many ticks ago.
    Told(u32),
    /// It takes in again what is asked, for so many ticks, as nobody else leads.
    Over(u32),
}

impl Rest {
    fn takes_in(self) -> bool {
        matches!(self, Self::No | Self::Over(_))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Base {
    seq: u64,
    mark: u64,
}

/// Another replica, as its leader knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Peer {
    /// Has this order, up to here, in its log; none before it has said so in this term.
    applied: Option<u64>,
    /// Gets what is stamped at once: no copy is under way.
    is_streamed: bool,
    /// The newest probe that it has echoed.
    echoed: u64,
}

impl<T: Types> Leading<T> {
    /// The newest probe that was sent.
    pub(super) fn asked(&self) -> u64 {
        self.asked
    }

    pub(super) fn has_base(&self) -> bool {
        self.base.is_some()
    }

    pub(super) fn stream(&mut self, to: NodeId, is_streamed: bool) {
        if let Some(peer) = self.peers.get_mut(to) {
            peer.is_streamed = is_streamed;
        }
    }
}

/// All that a leader has to bring to its order.
pub(super) fn others(placement: &Placement, me: NodeId) -> Nodes {
    let mut others = Nodes::from(&placement.old[..]);
    others.extend(placement.goal().iter().copied());
    others.sort_unstable();
    others.dedup();
    others.retain(|node| *node != me);
    others
}

/// The greatest seq that a quorum has applied, where a quorum has said what it has.
fn reached_by_quorum(
    placement: &Placement,
    applied: impl Fn(NodeId) -> Option<u64>,
) -> Option<u64> {
    let of_majority = |list: &[NodeId]| {
        let voters = list.iter().filter(|node| placement.voters.contains(node));
        let mut reached: SmallVec<[u64; 8]> = voters.filter_map(|node| applied(*node)).collect();
        reached.sort_unstable_by(|a, b| b.cmp(a));
        // So many more than half of the list have that much.
        reached.get(list.len() / 2).copied()
    };
    let old = of_majority(&placement.old)?;
    match placement.new_list() {
        None => Some(old),
        Some(new) => of_majority(new).map(|new| old.min(new)),
    }
}

impl<T: Types> Replica<T> {
    /// Rule 1.
    pub(super) fn start(
        &mut self,
        table: &mut dyn Table<T>,
        term: Epoch,
        generation: Epoch,
        keeps: bool,
    ) {
        // Who goes on leading, and does so from what it has, has all that it has stamped: who waits for that may go on waiting.
        let leads_on = matches!(self.role, Role::Leading(_)) && generation == self.state.generation;
        let waiting = leads_on.then(|| std::mem::take(&mut self.waiting));
        self.adopt(table, term, generation, keeps);
        if let Some(waiting) = waiting {
            self.waiting = waiting;
        }
        self.waiting.ask_again();
        let resumed = self.resumed(term);
        self.role = Role::Leading(Leading {
            term,
            answers: BTreeMap::new(),
            fence_mark: self.written,
            base: resumed,
            is_open: false,
            peers: Few::default(),
            pull: None,
            asked: 0,
            echoed: 0,
            rest: Rest::No,
        });
        if self.has_bug(14) {
            self.ready.push_back(Output::Opened(term));
        }
        if resumed.is_some() {
            for node in self.others.clone() {
                self.send_open(node);
            }
        } else {
            self.send_fences(&[]);
        }
        self.advance(table);
    }

    /// Planted: where its own term began, if it goes on in one.
    fn resumed(&self, term: Epoch) -> Option<Base> {
        let newest = self.state.history.terms().last();
        let begun = newest.filter(|(newest, _)| *newest == term && self.has_bug(8));
        begun.map(|&(_, first)| Base {
            seq: first - 1,
            mark: self.written,
        })
    }

    /// Fences all that count but these.
    fn send_fences(&mut self, answered: &[NodeId]) {
        let Placement {
            term, generation, ..
        } = *self.view.placement;
        let placement = &self.view.placement;
        let counting = self.others.iter().copied();
        let learners: Vec<NodeId> = placement.learners().collect();
        let unheard = |node: &NodeId| !answered.contains(node) && !learners.contains(node);
        for node in counting.filter(unheard).collect::<Vec<_>>() {
            self.send_kept(node, term, Body::Fence { generation });
        }
    }

    pub(super) fn fenced(
        &mut self,
        table: &mut dyn Table<T>,
        from: NodeId,
        term: Epoch,
        last: Version,
        history: History,
    ) {
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        if leading.term != term {
            return;
        }
        if leading.base.is_some() {
            // It has heard of the term, and not of where that began; or it is no replica any more, and does not know.
            if self.others.contains(&from) {
                self.send_open(from);
            }
        } else {
            leading.answers.insert(from, (last, history));
            self.find_base(table);
        }
    }

    /// Rule 3: once a quorum has answered.
    fn find_base(&mut self, table: &mut dyn Table<T>) {
        let Role::Leading(leading) = &self.role else {
            return;
        };
        if leading.base.is_some() || leading.pull.is_some() {
            return;
        }
        let placement = &self.view.placement;
        let answers = &leading.answers;
        if !answers.contains_key(&self.me)
            || !placement.is_quorum(|node| answers.contains_key(&node))
        {
            return;
        }
        let votes = answers
            .iter()
            .filter(|(node, _)| placement.voters.contains(node));
        // Term first; among those as far its own, which need not be copied.
        let best = votes.max_by_key(|(node, (last, history))| {
            let term = if self.has_bug(6) {
                history.term_of(last.seq())
            } else {
                last.term()
            };
            (term, last.seq(), **node == self.me)
        });
        let (&best, (last, history)) = best.expect("a quorum is not empty");
        let (last, term) = (*last, leading.term);
        if best == self.me {
            self.set_base(table);
        } else {
            let common = self.common(table, history, last.seq());
            self.begin_pull(table, best, term, common, Some(last));
        }
    }

    /// A source of the base cannot give it: it is asked again how far it is.
    pub(super) fn fence_again(&mut self, table: &mut dyn Table<T>, source: NodeId) {
        if let Role::Leading(leading) = &mut self.role {
            leading.pull = None;
            leading.answers.remove(&source);
            let answered: Vec<NodeId> = leading.answers.keys().copied().collect();
            self.send_fences(&answered);
            self.find_base(table);
        }
    }

    /// The order that this replica has is that of the term.
    pub(super) fn set_base(&mut self, table: &mut dyn Table<T>) {
        let last = table.progress().last;
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        let (term, seq) = (leading.term, last.seq());
        self.state.history.begin(term, next(last));
        table.align(term, &self.state);
        self.written += 1;
        let mark = self.written;
        leading.base = Some(Base { seq, mark });
        self.based = term;
        for node in self.others.clone() {
            self.send_open(node);
        }
        self.advance(table);
    }

    /// Has a replica brought to the order of the term.
    fn send_open(&mut self, node: NodeId) {
        let is_copying = self.is_copying(node);
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        let Some(base) = leading.base else { return };
        let peer = leading.peers.entry(node);
        // What is stamped from here on comes behind this on the way to it; where it has to copy first it says so.
        peer.is_streamed = peer.is_streamed || !is_copying;
        let (term, history) = (leading.term, self.state.history.clone());
        let generation = self.view.placement.generation;
        let base = base.seq;
        self.send_kept(
            node,
            term,
            Body::Open {
                generation,
                base,
                history,
            },
        );
    }

    /// The same term, and another start of somebody, or others that copy.
    pub(super) fn recount(&mut self, table: &mut dyn Table<T>, before: &View) {
        let named = self.others.clone();
        if let Role::Leading(leading) = &mut self.role {
            // Who is named again may have forgotten what it had.
            leading.peers.retain(|node| named.contains(&node));
        }
        for node in self.others.clone() {
            let is_same = self.view.incarnations.get(&node) == before.incarnations.get(&node);
            let Role::Leading(leading) = &mut self.role else {
                return;
            };
            let is_known = leading.base.is_none() || leading.peers.get(node).is_some();
            if is_same && is_known {
                continue;
            }
            leading.peers.remove(node);
            leading.answers.remove(&node);
            leading.pull.take_if(|pull| pull.source == node);
            self.sources.remove(&node);
            if leading.base.is_some() {
                self.send_open(node);
            } else if !is_same {
                let answered: Vec<NodeId> = leading.answers.keys().copied().collect();
                self.send_fences(&answered);
            }
        }
        self.advance(table);
    }

    pub(super) fn acknowledged(
        &mut self,
        table: &mut dyn Table<T>,
        from: NodeId,
        term: Epoch,
        applied: u64,
        is_aligned: bool,
    ) {
        let last = table.progress().last.seq();
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        if leading.term != term || leading.base.is_none() || applied > last {
            return;
        }
        let Some(peer) = leading.peers.get_mut(from) else {
            return;
        };
        peer.applied = Some(peer.applied.unwrap_or(0).max(applied));
        // What was stamped while it had no way to hear of it.
        let lags = is_aligned && applied < last && !peer.is_streamed;
        let is_copying = self
            .sources
            .get(&from)
            .is_some_and(|source| !source.is_done);
        if !is_copying {
            // It has what it was sent.
            self.sources.remove(&from);
        }
        if lags && !is_copying {
            let commit = table.progress().commit;
            self.send(from, term, Body::Beat { last, commit });
        }
        self.advance(table);
    }

    pub(super) fn echoed(
        &mut self,
        table: &mut dyn Table<T>,
        from: NodeId,
        term: Epoch,
        number: u64,
    ) {
        if let Role::Leading(leading) = &mut self.role
            && leading.term == term
            && let Some(peer) = leading.peers.get_mut(from)
        {
            peer.echoed = peer.echoed.max(number.min(leading.asked));
            self.advance(table);
        }
    }

    /// Takes nothing more in once another is to lead, and tells when what it has taken in is done. Where nobody else is to lead any more
    /// it goes on.
    pub(super) fn come_to_rest(&mut self, table: &dyn Table<T>) {
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        // A term that is not open yet is no reason to stay: it may never be.
        if self.placed.ends != Some(leading.term) {
            if matches!(leading.rest, Rest::Told(_)) {
                // It takes things in again, and whoever is the heir then waits for them.
                self.ready.push_back(Output::Rested(0));
            }
            leading.rest = Rest::No;
            return;
        }
        match leading.rest {
            Rest::No => leading.rest = Rest::Begun(0),
            Rest::Told(ticks) if ticks >= AWAY_TICKS => {
                leading.rest = Rest::Over(0);
                self.ready.push_back(Output::Rested(0));
                return;
            }
            Rest::Over(ticks) if ticks >= AWAY_TICKS => leading.rest = Rest::Begun(0),
            Rest::Begun(_) | Rest::Told(_) | Rest::Over(_) => {}
        }
        if let Rest::Begun(ticks) = leading.rest {
            let Progress { last, commit, .. } = table.progress();
            let is_done = commit == last.seq() && !self.waiting.has_stamped();
            if is_done || ticks >= REST_TICKS {
                leading.rest = Rest::Told(0);
                self.ready.push_back(Output::Rested(leading.term));
            }
        }
    }

    /// Whether nobody waits for a copy to that node: a quorum gets what is stamped without it, or is about to, where the term is not
    /// open yet.
    pub(super) fn may_wait(&self, to: NodeId) -> bool {
        let Role::Leading(leading) = &self.role else {
            return false;
        };
        let goes_on = |node: NodeId| {
            let peer = leading.peers.get(node).copied().unwrap_or_default();
            let follows = peer.is_streamed && peer.applied.is_some();
            let is_coming = !leading.is_open && !self.sources.contains_key(&node);
            node == self.me || self.view.up.contains(&node) && (follows || is_coming)
        };
        let placement = &self.view.placement;
        self.carrier.has_queue && placement.is_quorum(|node| node != to && goes_on(node))
    }

    /// See [`is_alone`](Self::is_alone).
    pub(super) fn serves_alone(&self) -> bool {
        let is_open = matches!(&self.role, Role::Leading(leading) if leading.is_open);
        is_open && self.placed.is_only && self.sources.is_empty()
    }

    /// How many replicas beside this one are known to have what was stamped up to this version, and to keep it; none where it does not
    /// lead, or was not the one to stamp it or to begin with it.
    pub fn followers_with(&self, version: Version) -> Option<usize> {
        let Role::Leading(leading) = &self.role else {
            return None;
        };
        if !leading.is_open || version.term() > leading.term {
            return None;
        }
        let placement = &self.view.placement;
        let mut others = others(placement, self.me);
        others.retain(|other| {
            let peer = leading.peers.get(*other);
            peer.and_then(|peer| peer.applied) >= Some(version.seq())
        });
        Some(others.len())
    }

    /// Of one that leads: the base of its term, if it has that.
    pub fn base(&self) -> Option<u64> {
        match &self.role {
            Role::Leading(leading) => leading.base.map(|base| base.seq),
            _ => None,
        }
    }

    /// Of one that leads and has the base of its term: each other replica, with the seq up to which it has that order in its log; none
    /// before it has said so in this term.
    pub fn followed(&self) -> impl Iterator<Item = (NodeId, Option<u64>)> {
        let leading = match &self.role {
            Role::Leading(leading) if leading.has_base() => Some(leading),
            _ => None,
        };
        let others = leading.into_iter().flat_map(|leading| {
            let peers = self.others.iter();
            peers.map(move |&node| (node, leading.peers.get(node)))
        });
        others.map(|(node, peer)| (node, peer.and_then(|peer| peer.applied)))
    }

    /// Rule 7, and what follows from it.
    pub(super) fn advance(&mut self, table: &mut dyn Table<T>) {
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        if leading.base.is_none() {
            if self.kept.mark >= leading.fence_mark && !leading.answers.contains_key(&self.me) {
                let own = (table.progress().last, self.state.history.clone());
                leading.answers.insert(self.me, own);
            }
            self.find_base(table);
            return;
        }
        let Some(base) = leading.base else { return };
        let own = (self.kept.mark >= base.mark && self.kept.term == leading.term)
            .then_some(self.kept.seq);
        let (me, peers) = (self.me, &leading.peers);
        let applied = |node: NodeId| {
            if node == me {
                own
            } else {
                peers.get(node).and_then(|peer| peer.applied)
            }
        };
        let placement = &self.view.placement;
        let committed = reached_by_quorum(placement, applied).filter(|&seq| seq >= base.seq);
        let (asked, mut echoed) = (leading.asked, leading.echoed);
        if echoed < asked {
            let has_echoed =
                |node| node == me || peers.get(node).is_some_and(|peer| peer.echoed >= asked);
            if placement.is_quorum(has_echoed) {
                echoed = asked;
            }
        }
        // Where some have to be aligned anew there may be no quorum for a while: what was committed is so still. Who is a quorum alone
        // may have a table that commits at once: of that it shows what is kept.
        let known = leading.is_open.then(|| {
            let commit = table.progress().commit;
            if self.placed.is_quorum {
                commit.min(own.unwrap_or(0))
            } else {
                commit
            }
        });
        let (all, all_up) = if self.waiting.is_for_all() {
            let new = placement.new_list().unwrap_or_default();
            let counting = || placement.old.iter().chain(new).copied();
            let least = |nodes: &mut dyn Iterator<Item = NodeId>| {
                nodes.map(|node| applied(node).unwrap_or(0)).min()
            };
            let is_up = |node: &NodeId| *node == me || self.view.up.contains(node);
            (
                least(&mut counting()).unwrap_or(0),
                least(&mut counting().filter(is_up)).unwrap_or(0),
            )
        } else {
            (0, 0)
        };
        leading.echoed = echoed;
        let Some(committed) = committed.max(known) else {
            return;
        };
        let (term, probe) = (leading.term, leading.echoed);
        if !std::mem::replace(&mut leading.is_open, true) {
            self.ready.push_back(Output::Opened(term));
            self.settle_losses(table);
        }
        if committed > table.progress().commit {
            table.commit(committed);
        }
        let reached = Reached {
            kept: own.unwrap_or(0),
            committed,
            all,
            all_up,
            probe,
        };
        let ready = &mut self.ready;
        let mut answer = |id, answer| ready.push_back(Output::Answer(id, answer));
        self.waiting.answer(reached, &mut answer);
        self.probe();
    }

    /// Begins a probe if somebody waits for one that was not sent, and none is under way.
    pub(super) fn probe(&mut self) {
        let wanted = self.waiting.newest_probe();
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        if leading.echoed < leading.asked || wanted <= leading.asked {
            return;
        }
        leading.asked += 1;
        let (term, number) = (leading.term, leading.asked);
        for node in self.others.clone() {
            self.send(node, term, Body::Probe { number });
        }
    }

    /// A client asks.
    pub(super) fn ask(
        &mut self,
        table: &mut dyn Table<T>,
        now_ms: u64,
        id: RequestId,
        level: Level,
        request: &T::Request<'_>,
    ) {
        let takes_in = matches!(
            &self.role,
            Role::Leading(leading) if leading.is_open && leading.rest.takes_in()
        );
        if !takes_in {
            self.ready.push_back(Output::Answer(id, Answer::NotStamped));
            return;
        }
        let has_peers =
            |leading: &Leading<T>| leading.peers.iter().any(|(_, peer)| peer.is_streamed);
        let is_copied = self.sources.values().any(|source| !source.is_done);
        let wants_effects =
            is_copied || matches!(&self.role, Role::Leading(leading) if has_peers(leading));
        let ran = table.execute(now_ms, request, wants_effects);
        let commit = table.progress().commit;
        let answers_at_once = self.has_bug(16);
        let is_vouched = level == Level::Quorum && self.is_vouched_for();
        let Role::Leading(leading) = &mut self.role else {
            unreachable!("it is open");
        };
        let is_alone = self.placed.is_quorum;
        let wait = match ran {
            Ran::NoRoom => {
                self.ready.push_back(Output::Answer(id, Answer::NoRoom));
                return;
            }
            Ran::Saw(_, reply) if answers_at_once => {
                let answer = Output::Answer(id, Answer::Reply(reply));
                self.ready.push_back(answer);
                return;
            }
            Ran::Saw(seq, reply) if is_vouched && seq <= commit => {
                self.ask_for_vouches(id, seq, reply);
                return;
            }
            Ran::Saw(seq, reply) => Wait {
                id,
                level,
                reply,
                seq,
                term: 0,
                is_stamped: false,
                // One that is under way was sent before this came.
                probe: if is_alone || level == Level::One {
                    0
                } else {
                    leading.asked + 1
                },
            },
            Ran::Changed(version, effects, reply) => {
                self.written += 1;
                let term = leading.term;
                assert_eq!(version.term(), term, "it is stamped in the term");
                let streamed = leading.peers.iter().filter(|(_, peer)| peer.is_streamed);
                let streamed: Nodes = streamed.map(|(node, _)| node).collect();
                if let (Some(effects), false) = (&effects, self.sources.is_empty()) {
                    let keys = table.keys(effects);
                    self.touch_sources(&keys);
                }
                for node in streamed {
                    let effects = effects.clone().expect("they were asked for");
                    let entry = Entry { version, effects };
                    self.send(node, term, Body::Append { entry, commit });
                }
                Wait {
                    id,
                    level,
                    reply,
                    seq: version.seq(),
                    term,
                    is_stamped: true,
                    probe: 0,
                }
            }
        };
        // What waits for others gains nothing by a look at how far they are.
        let waits_for_others = level == Level::Quorum && !is_alone;
        let is_asked = wait.probe > 0;
        self.waiting.push(wait);
        self.keep_at_once(table);
        if !waits_for_others {
            self.advance(table);
        } else if is_asked {
            self.probe();
        }
    }

    pub(super) fn expire(&mut self, id: RequestId) {
        let ready = &mut self.ready;
        let mut answer = |id, answer| ready.push_back(Output::Answer(id, answer));
        self.waiting.expire(id, &mut answer);
    }

    /// See [`Replica::course`]; none where what is to be answered has no such order.
    pub(super) fn course_of_leader(&self, table: &dyn Table<T>) -> Option<Course> {
        let Role::Leading(leading) = &self.role else {
            return None;
        };
        // While another is to lead ticks are counted.
        if !leading.is_open || leading.pull.is_some() || leading.rest != Rest::No {
            return None;
        }
        let mut heard = u64::MAX;
        for node in self.others.clone() {
            heard = heard.min(leading.peers.get(node)?.applied?);
        }
        Some(Course {
            said: (table.progress().last.seq(), leading.asked),
            heard: (heard, leading.echoed),
        })
    }

    /// Says again what was not answered.
    pub(super) fn remind(&mut self, table: &mut dyn Table<T>) {
        let Progress { last, commit, .. } = table.progress();
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        if let Rest::Begun(ticks) | Rest::Told(ticks) | Rest::Over(ticks) = &mut leading.rest {
            *ticks += 1;
        }
        let term = leading.term;
        if leading.base.is_none() {
            let answered: Vec<NodeId> = leading.answers.keys().copied().collect();
            self.send_fences(&answered);
            self.pull_again(table);
            return;
        }
        let probe = (leading.echoed < leading.asked).then_some(leading.asked);
        for node in self.others.clone() {
            let Role::Leading(leading) = &self.role else {
                return;
            };
            let peer = leading.peers.get(node).copied().unwrap_or_default();
            if peer.applied.is_none() {
                self.send_open(node);
            } else if leading.is_open {
                // So who hears one knows that what it gave up in this term is in no later one.
                let last = last.seq();
                self.send(node, term, Body::Beat { last, commit });
            }
            if let Some(number) = probe
                && peer.echoed < number
            {
                self.send(node, term, Body::Probe { number });
            }
        }
    }
}
