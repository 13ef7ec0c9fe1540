//! What a replica does that another one leads: it leaves lower terms, takes over the leader's order, applies what comes next in
//! it, and pulls what it lacks.

use super::message::{Body, CopyId, End};
use super::source::PATIENCE_TICKS;
use super::table::{Entry, Key, NoRoom, Progress, Record, Replace, Table, Types};
use super::{Output, Replica, Role};
use crate::history::{History, next};
use crate::ring::NodeId;
use crate::topology::Epoch;
use henge_wire::Version;
use std::collections::BTreeMap;

/// A copy for the base of a term of which nothing has come for so many ticks is given up: somebody else may have as much. All others
/// their sources may send as slowly as they are told to, and are given as long as by those.
const BASE_PATIENCE_TICKS: u32 = 32;
/// After so many ticks without a part it is asked for again, after twice as many once more, and so on. One that is only late comes twice
/// then, and it may be late as there is too much on the way.
pub(super) const AGAIN_TICKS: u32 = 4;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Following<T: Types> {
    pub(super) leader: NodeId,
    pub(super) pull: Option<Pull<T>>,
    /// What the leader was told.
    acked: u64,
}

/// A copy that is pulled.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Pull<T: Types> {
    pub(super) source: NodeId,
    id: CopyId,
    common: u64,
    wanted: Option<Version>,
    /// The part that comes next.
    number: u64,
    is_full: bool,
    came: Came<T>,
    /// Ticks since something has come of it.
    silent: u32,
}

/// What has come of a copy that is not at its end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Came<T: Types> {
    /// It waits beside the table, which is what it was until the end.
    Beside(BTreeMap<Key, Option<Record<T::Value>>>),
    /// It is in the table, where there was nothing that it could take the place of.
    InTable,
}

impl<T: Types> Replica<T> {
    /// Rule 2.
    pub(super) fn fence(
        &mut self,
        table: &mut dyn Table<T>,
        from: NodeId,
        term: Epoch,
        generation: Epoch,
    ) {
        let adopted = self.state.adopted;
        if term < adopted || generation < self.state.generation {
            self.send(from, term, Body::Refused { adopted });
            return;
        }
        let last = table.progress().last;
        if term == adopted && (last.term() == term || matches!(self.role, Role::Leading(_))) {
            // An old one: the term is open, or its own.
            return;
        }
        if term > adopted || generation > self.state.generation {
            self.adopt(table, term, generation, false);
        }
        let last = table.progress().last;
        let history = self.state.history.clone();
        self.send_kept(from, term, Body::Fenced { last, history });
    }

    /// Rule 4.
    pub(super) fn open(
        &mut self,
        table: &mut dyn Table<T>,
        from: NodeId,
        term: Epoch,
        generation: Epoch,
        base: u64,
        history: History,
    ) {
        let adopted = self.state.adopted;
        if term < adopted || generation < self.state.generation {
            self.send(from, term, Body::Refused { adopted });
            return;
        }
        if matches!(self.role, Role::Leading(_)) && term == adopted {
            return;
        }
        let placement = &self.view.placement;
        if term <= placement.term && !placement.names(self.me) {
            // Rule 11: it is no replica any more. Where it is to be one again that is said again until it is aligned.
            return;
        }
        if term > adopted || generation > self.state.generation {
            self.adopt(table, term, generation, false);
        }
        if matches!(&self.role, Role::Following(following) if following.pull.is_some()) {
            // It is at it already.
            return;
        }
        let last = table.progress().last;
        if last.term() == term {
            // After a restart it may be the first to say so in this start.
            self.follow(from);
            self.say_aligned(from, term, last.seq());
            return;
        }
        let common = self.common(table, &history, base);
        self.follow(from);
        // Where the term began says nothing of how far it is, and who comes in the midst of it is to take over what is there: one that
        // lacks nothing of before the term copies as well.
        let learns = self.view.placement.learners().any(|node| node == self.me);
        if common == base && last.seq() == base && !learns {
            self.state.history = history;
            table.align(term, &self.state);
            self.written += 1;
            self.say_aligned(from, term, base);
        } else {
            self.begin_pull(table, from, term, common, None);
            if self.has_bug(10) {
                self.when_kept(Output::Aligned(term));
            }
        }
    }

    fn follow(&mut self, leader: NodeId) {
        if !matches!(&self.role, Role::Following(following) if following.leader == leader) {
            self.role = Role::Following(Following {
                leader,
                pull: None,
                acked: 0,
            });
        }
    }

    fn say_aligned(&mut self, to: NodeId, term: Epoch, applied: u64) {
        self.send_kept(to, term, Body::Aligned { applied });
        self.when_kept(Output::Aligned(term));
    }

    /// Asks for what is above a place up to which both have the same.
    pub(super) fn begin_pull(
        &mut self,
        table: &dyn Table<T>,
        source: NodeId,
        term: Epoch,
        common: u64,
        wanted: Option<Version>,
    ) {
        // What it knows to be committed is in the order of every later leader. Only who kept its table in a new generation
        // (rule 13) that began without it, or has forgotten where its terms began, has to begin from nothing.
        let common = if table.progress().commit > common {
            0
        } else {
            common
        };
        self.copies += 1;
        let id = self.copies;
        let mut keys = Vec::new();
        // Of what is replaced in whole nothing has to be named, and above the last there is nothing.
        let has_more = common > 0 && common < table.progress().last.seq();
        if has_more && !self.has_bug(22) {
            let mut place = 0;
            loop {
                place = table.scan(place, common, &mut |record| keys.push(record.key));
                if place == 0 {
                    break;
                }
            }
        }
        let pull = Pull {
            source,
            id,
            common,
            wanted,
            number: 0,
            is_full: false,
            came: Came::Beside(BTreeMap::new()),
            silent: 0,
        };
        match &mut self.role {
            Role::Following(following) => following.pull = Some(pull),
            Role::Leading(leading) => leading.pull = Some(pull),
            Role::Idle => return,
        }
        self.send(
            source,
            term,
            Body::Pull {
                id,
                common,
                wanted,
                keys,
            },
        );
    }

    /// Whether what has come of a copy is in the table.
    fn fills(&self) -> bool {
        let pull = match &self.role {
            Role::Following(following) => following.pull.as_ref(),
            Role::Leading(leading) => leading.pull.as_ref(),
            Role::Idle => None,
        };
        pull.is_some_and(|pull| matches!(pull.came, Came::InTable))
    }

    /// Rule 5: of a copy that has not come to its end nothing stays, however it ended.
    pub(super) fn empty_if_ended(&mut self, table: &mut dyn Table<T>) {
        if self.is_filled && !self.fills() && !self.has_bug(4) {
            self.is_filled = false;
            table.empty();
        }
    }

    /// A copy is under way no more.
    pub(super) fn take_pull(&mut self) -> Option<Pull<T>> {
        match &mut self.role {
            Role::Following(following) => following.pull.take(),
            Role::Leading(leading) => leading.pull.take(),
            Role::Idle => None,
        }
    }

    fn pulling(&mut self) -> Option<&mut Pull<T>> {
        match &mut self.role {
            Role::Following(following) => following.pull.as_mut(),
            Role::Leading(leading) => leading.pull.as_mut(),
            Role::Idle => None,
        }
    }

    /// Rule 5: a part of a copy has come.
    #[expect(clippy::too_many_arguments, reason = "they are those of a message")]
    pub(super) fn part(
        &mut self,
        table: &mut dyn Table<T>,
        from: NodeId,
        term: Epoch,
        id: CopyId,
        number: u64,
        is_full: bool,
        states: Vec<(Key, Option<Record<T::Value>>)>,
        end: Option<End>,
    ) {
        if term != self.state.adopted {
            return;
        }
        let Some(pull) = self.pulling() else { return };
        if pull.source != from || pull.id != id || pull.number != number {
            return;
        }
        if is_full && !pull.is_full {
            // Nothing is given up by who has nothing, whatever becomes of the copy.
            let has_nothing = table.progress().last.seq() == 0;
            pull.came = if has_nothing {
                Came::InTable
            } else {
                Came::Beside(BTreeMap::new())
            };
        }
        pull.is_full = is_full;
        pull.number += 1;
        pull.silent = 0;
        let number = pull.number;
        match &mut pull.came {
            Came::Beside(staged) => staged.extend(states),
            Came::InTable => {
                table.fill(states);
                self.is_filled = true;
            }
        }
        match end {
            None => {
                if self.has_bug(4) {
                    self.put_early(table);
                }
                self.send(from, term, Body::Next { id, number });
            }
            Some(end) => self.install(table, from, term, end),
        }
    }

    /// Planted: what has come of a copy is shown before its end.
    fn put_early(&mut self, table: &mut dyn Table<T>) {
        let Some(Pull {
            came: Came::Beside(staged),
            ..
        }) = self.pulling()
        else {
            return;
        };
        let came = staged.values().flatten().cloned().collect();
        let own = Progress {
            last: table.progress().last,
            ..Progress::default()
        };
        table.install(Replace::Above(u64::MAX), came, own, &self.state);
        self.written += 1;
    }

    fn install(&mut self, table: &mut dyn Table<T>, from: NodeId, term: Epoch, end: End) {
        let pull = self.take_pull().expect("a part of it has come");
        let inherits = !self.has_bug(2);
        assert!(
            pull.is_full || end.horizon <= pull.common || self.has_bug(1) || self.has_bug(3),
            "a copy of what changed lacks nothing that was dropped"
        );
        let replace = if pull.is_full || pull.common == 0 {
            Replace::All
        } else if self.has_bug(22) {
            Replace::Above(u64::MAX)
        } else {
            Replace::Above(pull.common)
        };
        let progress = Progress {
            last: end.at,
            commit: end.commit.max(table.progress().commit.min(pull.common)),
            horizon: if inherits { end.horizon } else { 0 },
        };
        self.give_up_own(table.progress(), &end);
        self.state.history = end.history;
        match pull.came {
            Came::Beside(staged) => {
                let records = staged.into_values().flatten().collect();
                table.install(replace, records, progress, &self.state);
            }
            Came::InTable => {
                self.is_filled = false;
                table.complete(progress, &self.state);
            }
        }
        self.written += 1;
        if pull.wanted.is_some() {
            // What it had stamped before may not be in it.
            self.strand();
            self.set_base(table);
            return;
        }
        assert_eq!(end.at.term(), term, "the leader is in its own term");
        self.say_aligned(from, term, end.at.seq());
    }

    /// A copy does not go on.
    pub(super) fn abort(
        &mut self,
        table: &mut dyn Table<T>,
        from: NodeId,
        term: Epoch,
        id: CopyId,
    ) {
        let is_that = |pull: &mut Pull<T>| pull.source == from && pull.id == id;
        if term != self.state.adopted || !self.pulling().is_some_and(is_that) {
            return;
        }
        match &mut self.role {
            // The leader says again that it is open.
            Role::Following(following) => following.pull = None,
            Role::Leading(_) => self.fence_again(table, from),
            Role::Idle => {}
        }
    }

    /// Nothing of a copy has come for a while: it is asked for again, and in the end for another one.
    pub(super) fn pull_again(&mut self, table: &mut dyn Table<T>) {
        let term = self.state.adopted;
        let Some(pull) = self.pulling() else { return };
        pull.silent += 1;
        let patience = match pull.wanted {
            Some(_) => BASE_PATIENCE_TICKS,
            None => PATIENCE_TICKS,
        };
        let (source, id, number) = (pull.source, pull.id, pull.number);
        if pull.silent > patience {
            let (common, wanted) = (pull.common, pull.wanted);
            if wanted.is_some() {
                // Another may have as much.
                self.fence_again(table, source);
            } else {
                self.begin_pull(table, source, term, common, None);
            }
        } else if pull.silent >= AGAIN_TICKS && pull.silent.is_power_of_two() {
            self.send(source, term, Body::Next { id, number });
        }
    }

    /// Whether it follows in this term, and has no copy under way.
    fn is_aligned(&self, table: &dyn Table<T>, from: NodeId, term: Epoch) -> bool {
        let follows = matches!(
            &self.role,
            Role::Following(following) if following.leader == from && following.pull.is_none()
        );
        let last = table.progress().last;
        follows && self.state.adopted == term && (last.term() == term || self.has_bug(7))
    }

    /// Rule 6.
    pub(super) fn append(
        &mut self,
        table: &mut dyn Table<T>,
        now_ms: u64,
        from: NodeId,
        term: Epoch,
        entry: &Entry<T::Effects>,
        commit: u64,
    ) {
        if term < self.state.adopted {
            let adopted = self.state.adopted;
            self.send(from, term, Body::Refused { adopted });
            return;
        }
        if self.has_bug(7) && term == self.state.adopted && matches!(self.role, Role::Idle) {
            self.follow(from);
        }
        if !self.is_aligned(table, from, term) {
            return;
        }
        // Nobody stamps before its term is open.
        self.settle_losses(table);
        let last = table.progress().last;
        let seq = entry.version.seq();
        if seq > next(last) {
            self.begin_pull(table, from, term, last.seq(), None);
            return;
        }
        // What is for room may be dropped up to there.
        let known = table.progress().commit;
        table.commit(commit.min(last.seq()).max(known));
        if seq == next(last) {
            match table.apply(now_ms, entry) {
                Ok(()) => self.written += 1,
                // As if it had been lost: a copy may leave it out once it is committed.
                Err(NoRoom) => return,
            }
        }
        table.commit(commit.min(table.progress().last.seq()).max(known));
    }

    /// How far the leader is, whose term is open.
    pub(super) fn beat(
        &mut self,
        table: &mut dyn Table<T>,
        from: NodeId,
        term: Epoch,
        last: u64,
        commit: u64,
    ) {
        if !self.is_aligned(table, from, term) {
            let is_idle = self.pulling().is_none() && !matches!(self.role, Role::Leading(_));
            if term == self.state.adopted && is_idle {
                // The leader takes it to be aligned; it has to open to it again.
                let (last, history) = (table.progress().last, self.state.history.clone());
                self.send_kept(from, term, Body::Fenced { last, history });
            }
            return;
        }
        self.settle_losses(table);
        let Progress {
            last: own,
            commit: known,
            ..
        } = table.progress();
        table.commit(commit.min(own.seq()).max(known));
        if last > own.seq() {
            self.begin_pull(table, from, term, own.seq(), None);
            return;
        }
        if let Role::Following(following) = &mut self.role {
            // An ack may have been lost.
            following.acked = 0;
        }
        self.acknowledge();
    }

    /// Tells the leader what is kept, if it does not know.
    pub(super) fn acknowledge(&mut self) {
        let (term, kept) = (self.state.adopted, self.kept);
        let Role::Following(following) = &mut self.role else {
            return;
        };
        // While a copy is pulled the order is not known to be the leader's.
        if following.pull.is_none() && kept.term == term && kept.seq > following.acked {
            following.acked = kept.seq;
            let leader = following.leader;
            self.send(leader, term, Body::Ack { applied: kept.seq });
        }
    }
}
