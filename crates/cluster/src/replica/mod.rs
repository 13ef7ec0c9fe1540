//! One replica of one partition: a machine. It has no clock, no socket, no lock, no randomness, and no table: whoever carries
//! it gives it the table, the time and an input by `handle`, and takes its outputs by `poll` until there is none. The rules are
//! those of docs/replication.md, by their numbers there.
//!
//! **What must be durable before what is sent.** Every change of durable state, here or in the table, is written to the log in
//! one order; [`Replica::written`] says how far that is. `Fenced`, `Aligned` and `Ack` wait in the machine until the carrier
//! has said by [`Input::Kept`] that the log has what they promise; `Fence` and `Open` likewise, as a term must not be started
//! twice. The leader's own place in a quorum is what is kept, not what is applied.
//!
//! ```text
//!          named as leader, term > adopted
//!   Idle ──────────────────────▶ Fencing ──quorum──▶ Basing ──▶ Opening ──quorum aligned──▶ Open
//!     ▲ ▲                           └── the furthest is its own ──▲
//!     │ └───────────────── any higher term, from whatever state
//!     └── Following: Open of a term >= adopted; it pulls what it lacks, and whenever it finds a gap
//! ```

mod answers;
mod follow;
mod lead;
mod losses;
mod message;
mod placed;
mod source;
mod table;
mod vouch;

pub use answers::{Answer, Level, RequestId};
pub use losses::{Fate, Loss};
pub use message::{Body, CopyId, End, Message};
pub use table::{Entry, Key, NoRoom, Progress, Ran, Record, Replace, Table, Types, Wiped};
pub use vouch::{Seen, Vouch, Voucher, Vouching};

use crate::few::Few;
use crate::history::History;
use crate::ring::NodeId;
use crate::topology::{Epoch, Incarnation, Placement};
use answers::Waiting;
use follow::Following;
use lead::Leading;
use losses::Losses;
use placed::Placed;
use smallvec::SmallVec;
use source::Source;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What the topology says of a partition, as far as one of its replicas has to know.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct View {
    /// The partition.
    pub placement: Arc<Placement>,
    /// The present starts of the nodes that it names.
    pub incarnations: BTreeMap<NodeId, Incarnation>,
    /// Those of them that are Up.
    pub up: Vec<NodeId>,
}

/// A message of a table's types.
pub type MessageOf<T> = Message<<T as Types>::Effects, <T as Types>::Value>;
type BodyOf<T> = Body<<T as Types>::Effects, <T as Types>::Value>;

/// Replicas of a partition; mostly of a few.
type Nodes = SmallVec<[NodeId; 4]>;

/// What a replica is told.
#[derive(Clone, Debug)]
pub enum Input<'r, T: Types> {
    /// The topology is at a later epoch.
    View(View),
    /// A message from a node, in this start of it.
    Message(NodeId, Incarnation, MessageOf<T>),
    /// A client asks.
    Request(RequestId, Level, T::Request<'r>),
    /// The client waits no longer.
    Expired(RequestId),
    /// All up to there is in the log, as durably as it is to be.
    Kept(Written),
    /// Not enough have vouched for this: the replica asks them by itself.
    Unvouched(Seen<T::Reply>),
    /// The next part of a copy to that node may go, if it is [`Queued`](Output::Queued).
    Turn(NodeId),
    /// Some time has passed: what was said and not answered is said again.
    Tick,
}

/// What a replica wants done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output<T: Types> {
    /// A message is to go to a node, in this start of it.
    Send(NodeId, Incarnation, MessageOf<T>),
    /// A request is answered.
    Answer(RequestId, Answer<T::Reply>),
    /// For the topology: this replica leads, and is open in this term.
    Opened(Epoch),
    /// For the topology: this replica is aligned in this term, and keeps that.
    Aligned(Epoch),
    /// For operators: this was lost, or may have been.
    Lost(Loss),
    /// For who tells operators if this start ends before it is settled: all that was given up and may yet have survived elsewhere,
    /// in place of what was said before.
    Unsettled(Vec<Loss>),
    /// For the topology: this replica leads in this term, takes nothing more in until another does, and all that it has taken in is
    /// done. 0 if it takes in again, as nobody else has come to lead for too long.
    Rested(Epoch),
    /// A read has seen what is committed: see [`Vouch`]. Only of a replica that is [`with_vouching`](Replica::with_vouching).
    Vouch(Vouch<T::Reply>),
    /// The next part of a copy waits for its [`Turn`](Input::Turn), as no quorum needs that node. Only of a replica that is
    /// [`with_queue`](Replica::with_queue).
    Queued {
        /// Who copies.
        to: NodeId,
        /// It has parts of this copy.
        has_begun: bool,
    },
}

impl<T: Types> Output<T> {
    /// Whether it is the same message, or report.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Send(to, start, message), Self::Send(other_to, other_start, other)) => {
                (to, start, message) == (other_to, other_start, other)
            }
            (Self::Aligned(term), Self::Aligned(other)) => term == other,
            _ => false,
        }
    }
}

/// The durable state beside the table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct State {
    /// The highest term that was followed.
    pub adopted: Epoch,
    /// The generation of the data.
    pub generation: Epoch,
    /// The order of the data.
    pub history: History,
}

/// How far something has been written: a mark that grows with every change of durable state, and the newest seq then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Written {
    /// The mark.
    pub mark: u64,
    /// The seq.
    pub seq: u64,
    /// The term in which that is aligned.
    pub term: u32,
}

/// How far a replica has spoken to others, and how far they have answered: a seq and a number of a probe each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Course {
    said: (u64, u64),
    heard: (u64, u64),
}

impl Course {
    /// Whether all that was said by `earlier` is answered by now.
    pub fn answers(&self, earlier: &Self) -> bool {
        self.heard.0 >= earlier.said.0 && self.heard.1 >= earlier.said.1
    }
}

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Replica<T: Types> {
    me: NodeId,
    incarnation: Incarnation,
    view: View,
    /// Of the view: the present starts, all that are named but this one, and this one's place.
    starts: Few<NodeId, Incarnation>,
    others: Nodes,
    placed: Placed,
    state: State,
    written: u64,
    kept: Written,
    /// What is written is kept at once.
    keeps_at_once: bool,
    carrier: Carrier,
    role: Role<T>,
    /// The newest term that it led, in this start, of which it had the base and has not forgotten it since.
    based: Epoch,
    /// Copies that others pull from here.
    sources: BTreeMap<NodeId, Source<T>>,
    /// The newest copy that each has asked for, in which of its starts.
    pulled: BTreeMap<NodeId, (Incarnation, CopyId)>,
    waiting: Waiting<T::Reply>,
    losses: Losses,
    /// See [`is_alone`](Self::is_alone).
    is_alone: bool,
    /// What has come of a copy is in the table.
    is_filled: bool,
    copies: CopyId,
    ready: VecDeque<Output<T>>,
    /// What waits until a mark is kept, in its order.
    held: VecDeque<(u64, Output<T>)>,
    #[cfg(any(test, feature = "bugs"))]
    bugs: crate::bugs::Bugs,
    #[cfg(any(test, feature = "bugs"))]
    part_records: usize,
}

/// What whoever carries a replica can do for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Carrier {
    /// It finds others who vouch for what a read has seen.
    has_vouching: bool,
    /// It says when parts of copies may go that nobody waits for.
    has_queue: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one that leads is looked at for each request, and lies in one piece"
)]
enum Role<T: Types> {
    Idle,
    Following(Following<T>),
    Leading(Leading<T>),
}

impl<T: Types> Replica<T> {
    /// One whose durable state is this, in a new start of its node. All of it counts as kept: what was read of a log is to be synced
    /// before, where that is what the node calls kept.
    pub fn new(me: NodeId, incarnation: Incarnation, state: State, progress: Progress) -> Self {
        Self {
            me,
            incarnation,
            view: View::default(),
            starts: Few::default(),
            others: Nodes::default(),
            placed: Placed::default(),
            state,
            written: 0,
            kept: Written {
                mark: 0,
                seq: progress.last.seq(),
                term: progress.last.term(),
            },
            keeps_at_once: false,
            carrier: Carrier::default(),
            role: Role::Idle,
            based: 0,
            sources: BTreeMap::new(),
            pulled: BTreeMap::new(),
            waiting: Waiting::default(),
            losses: Losses::default(),
            is_alone: false,
            is_filled: false,
            copies: 0,
            ready: VecDeque::new(),
            held: VecDeque::new(),
            #[cfg(any(test, feature = "bugs"))]
            bugs: crate::bugs::Bugs::default(),
            #[cfg(any(test, feature = "bugs"))]
            part_records: source::PART_RECORDS,
        }
    }

    /// One without a log: what is written is kept at once, and needs no [`Input::Kept`].
    #[must_use]
    pub fn without_log(mut self) -> Self {
        self.keeps_at_once = true;
        self
    }

    /// One whose carrier takes [`Output::Vouch`].
    #[must_use]
    pub fn with_vouching(mut self) -> Self {
        self.carrier.has_vouching = true;
        self
    }

    /// One whose carrier takes [`Output::Queued`].
    #[must_use]
    pub fn with_queue(mut self) -> Self {
        self.carrier.has_queue = true;
        self
    }

    /// One with planted bugs.
    #[cfg(any(test, feature = "bugs"))]
    #[must_use]
    pub fn with_bugs(mut self, bugs: crate::bugs::Bugs) -> Self {
        self.bugs = bugs;
        self
    }

    /// One that copies in parts of so many records: of a table of two keys each copy is one part else, and nothing happens
    /// in the midst of it.
    #[cfg(any(test, feature = "bugs"))]
    #[must_use]
    pub fn with_parts_of(mut self, records: usize) -> Self {
        self.part_records = records;
        self
    }

    /// The durable state beside the table.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether it leads its partition, or is about to.
    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Leading(_))
    }

    /// Whether it is open, and nobody else has the partition or copies it. Then there is nobody to tell of what is stamped, and to ask
    /// whether it still leads: requests may go to the table past the machine, in this term's versions. What they show, or did, may
    /// be told once it is kept.
    #[inline]
    pub fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// How far is written. Once that is in the log it is to be told by [`Input::Kept`].
    pub fn written(&self, table: &dyn Table<T>) -> Written {
        let last = table.progress().last;
        Written {
            mark: self.written,
            seq: last.seq(),
            term: last.term(),
        }
    }

    /// Where nothing but what others answer in its order is waited for: how far that is. What was said before the last tick and is
    /// answered by this one needs none, and then a tick now and then is enough, for what is lost on a way that nobody knows of. None
    /// where it needs every tick.
    pub fn course(&self, table: &dyn Table<T>) -> Option<Course> {
        if !self.sources.is_empty() {
            return None;
        }
        match &self.role {
            Role::Leading(_) => self.course_of_leader(table),
            Role::Following(following) => following.pull.is_none().then(Course::default),
            Role::Idle => Some(Course::default()),
        }
    }

    /// Takes an input. All outputs are to be taken before the next.
    pub fn handle(&mut self, table: &mut dyn Table<T>, now_ms: u64, input: Input<'_, T>) {
        match input {
            Input::View(view) => self.look(table, view),
            Input::Message(from, incarnation, message) => {
                self.hear(table, now_ms, from, incarnation, message);
            }
            Input::Request(id, level, request) => self.ask(table, now_ms, id, level, &request),
            Input::Expired(id) => self.expire(id),
            Input::Kept(kept) => self.keep(table, kept),
            Input::Unvouched(seen) => self.unvouched(seen),
            Input::Turn(node) => self.take_turn(table, node),
            Input::Tick => self.tick(table),
        }
        self.empty_if_ended(table);
        self.come_to_rest(table);
        let is_alone = self.serves_alone();
        if is_alone != self.is_alone {
            self.is_alone = is_alone;
            table.commit_at_once(is_alone);
            // What went past it is to be kept before anything is promised from here on, which waits for a record behind all of it: where
            // nothing is written the log says nothing.
            table.log(&self.state);
            self.written += 1;
        }
        if self.waiting.has_stranded() {
            self.settle(table);
        }
        if self.keeps_at_once || self.has_bug(12) {
            let written = self.written(table);
            if written != self.kept {
                self.keep(table, written);
            }
        }
        self.check(table);
    }

    /// The same, with its outputs put into `outputs`, so that a replica among many keeps no memory for them.
    pub fn handle_into(
        &mut self,
        table: &mut dyn Table<T>,
        now_ms: u64,
        input: Input<'_, T>,
        outputs: &mut VecDeque<Output<T>>,
    ) {
        std::mem::swap(&mut self.ready, outputs);
        self.handle(table, now_ms, input);
        std::mem::swap(&mut self.ready, outputs);
    }

    /// Where what is written is kept at once, it is.
    fn keep_at_once(&mut self, table: &dyn Table<T>) {
        if self.keeps_at_once && self.held.is_empty() {
            self.kept = self.kept.max(self.written(table));
        }
    }

    /// The next output, if there is one.
    pub fn poll(&mut self) -> Option<Output<T>> {
        self.ready.pop_front()
    }

    /// The topology has changed.
    fn look(&mut self, table: &mut dyn Table<T>, view: View) {
        if view.placement.term < self.view.placement.term {
            return;
        }
        let before = std::mem::replace(&mut self.view, view);
        let starts = self.view.incarnations.iter();
        self.starts = starts.map(|(&node, &start)| (node, start)).collect();
        self.others = lead::others(&self.view.placement, self.me);
        self.placed = Placed::of(&self.view, self.me);
        if let Some(why) = self.judge_reset() {
            table.explain_wipe(why);
        }
        let Placement {
            term,
            generation,
            leader,
            leads_since,
            seed,
            forgotten,
            ..
        } = *self.view.placement;
        if !self.view.placement.names(self.me) {
            let has_some =
                table.progress() != Progress::default() || !self.state.history.is_empty();
            // Others have it: what is here is nobody's. But not if it has followed a later term, in which it was taken in again; in
            // this one it can have been no more than a learner.
            if has_some && self.state.adopted <= term {
                self.lose_to_removal(table.progress());
            }
            if self.state.adopted <= term {
                // What it was about to do in a term it would go on with, though it had nothing yet.
                self.stand_back();
            }
            // What is committed from here on it does not hear.
            self.give_up();
            if has_some && self.state.adopted <= term {
                // It must not go on in a term in which it has acknowledged what it has no more.
                self.state.adopted = self.state.adopted.max(term);
                self.forget(table);
                table.explain_wipe(Wiped::Removed);
                self.written += 1;
            }
            return;
        }
        let is_mine = |incarnation| incarnation == self.incarnation || self.has_bug(8);
        let leads = leader.is_some_and(|(node, start)| node == self.me && is_mine(start));
        let adopted = self.state.adopted;
        let is_resumed = term == adopted && matches!(self.role, Role::Idle) && self.has_bug(8);
        let was_away = before.placement.generation == 0 && self.has_bug(13);
        if leads && (term > adopted || is_resumed) {
            // Rule 13: the one who has led all the while keeps what it has. One that slept through the term of another has not, nor one
            // that has slept through a reset in which all was to be forgotten.
            let keeps = seed == leader
                && self.state.generation >= forgotten
                && matches!(self.role, Role::Leading(_))
                && self.based >= leads_since;
            self.start(table, term, generation, keeps || was_away);
            return;
        }
        if term > adopted && generation > self.state.generation {
            // Old data counts for nothing from now on; the new leader's fence may come late.
            self.adopt(table, term, generation, was_away);
        }
        if let Role::Leading(leading) = &self.role
            && (leading.term < term || !leads)
        {
            self.stand_back();
        } else if matches!(self.role, Role::Leading(_)) {
            // Others have started anew: they have to be aligned again.
            self.recount(table, &before);
        }
    }

    /// Follows a term from now on, and none below it.
    fn adopt(&mut self, table: &mut dyn Table<T>, term: Epoch, generation: Epoch, keeps: bool) {
        assert!(term >= self.state.adopted, "terms only grow");
        if term > self.state.adopted {
            self.stand_back();
            self.state.adopted = term;
        }
        let is_new = generation > self.state.generation;
        let before = self.state.generation;
        self.state.generation = self.state.generation.max(generation);
        if is_new && !keeps {
            self.sources.clear();
            let why = self.lose_to_reset(before, table.progress());
            self.forget(table);
            if let Some(why) = why {
                table.explain_wipe(why);
            }
        } else if is_new {
            self.lose_unsettled(Fate::Reset);
            table.keep(&self.state);
        } else if self.has_bug(11) {
            return;
        } else {
            table.log(&self.state);
        }
        self.written += 1;
    }

    /// Forgets all that it has.
    fn forget(&mut self, table: &mut dyn Table<T>) {
        self.based = 0;
        self.give_up();
        self.state.history = History::default();
        table.wipe(&self.state);
        // With it went the parts of a copy that has filled it.
        self.is_filled = false;
        self.take_pull();
        // What was about to be promised is gone.
        self.held.clear();
    }

    /// Gives up whatever it does in a term.
    fn stand_back(&mut self) {
        self.strand();
        self.role = Role::Idle;
        // Who copies from here does so for a term that is over.
        self.sources.clear();
    }

    /// Tells all that wait that they do so in vain, but for those whose writes another leader may have.
    fn strand(&mut self) {
        let ready = &mut self.ready;
        let mut answer = |id, answer| ready.push_back(Output::Answer(id, answer));
        self.waiting.strand(&mut answer);
    }

    /// Tells all that wait that they do so in vain.
    fn give_up(&mut self) {
        let ready = &mut self.ready;
        let mut answer = |id, answer| ready.push_back(Output::Answer(id, answer));
        self.waiting.give_up(&mut answer);
    }

    /// Tells those whose writes were stamped in a term that is over what became of them.
    fn settle(&mut self, table: &dyn Table<T>) {
        let ready = &mut self.ready;
        let mut answer = |id, answer| ready.push_back(Output::Answer(id, answer));
        // What went past it while it was alone was committed before it was kept.
        let Progress { last, commit, .. } = table.progress();
        let committed = commit.min(self.kept.seq);
        let is_there = |seq, term| {
            // Until another term is followed nobody has put anything in its place.
            last.term() <= term || seq <= last.seq() && self.state.history.term_of(seq) == term
        };
        self.waiting.settle(committed, is_there, &mut answer);
    }

    fn hear(
        &mut self,
        table: &mut dyn Table<T>,
        now_ms: u64,
        from: NodeId,
        incarnation: Incarnation,
        message: MessageOf<T>,
    ) {
        if self.starts.get(from) != Some(&incarnation) && !self.has_bug(9) {
            // Rule 12: it is of a start that is over, or that the topology does not know yet.
            return;
        }
        let Message { term, body } = message;
        match body {
            Body::Fence { generation } => self.fence(table, from, term, generation),
            Body::Open {
                generation,
                base,
                history,
            } => {
                self.open(table, from, term, generation, base, history);
            }
            Body::Append { entry, commit } => {
                self.append(table, now_ms, from, term, &entry, commit);
            }
            Body::Beat { last, commit } => self.beat(table, from, term, last, commit),
            Body::Part {
                id,
                number,
                is_full,
                states,
                end,
            } => {
                self.part(table, from, term, id, number, is_full, states, end);
            }
            Body::Abort { id } => self.abort(table, from, term, id),
            Body::Pull {
                id,
                common,
                wanted,
                keys,
            } => {
                self.pull(table, (from, incarnation), term, id, common, wanted, keys);
            }
            Body::Next { id, number } => self.next_part(table, from, term, id, number),
            Body::Probe { number } => {
                let body = if self.state.adopted <= term || self.has_bug(18) {
                    Body::Echo { number }
                } else {
                    Body::Refused {
                        adopted: self.state.adopted,
                    }
                };
                self.send(from, term, body);
            }
            Body::Fenced { last, history } => self.fenced(table, from, term, last, history),
            Body::Aligned { applied } | Body::Ack { applied } => {
                let is_aligned = matches!(body, Body::Aligned { .. });
                self.acknowledged(table, from, term, applied, is_aligned);
            }
            Body::Echo { number } => self.echoed(table, from, term, number),
            // The topology says who leads; until then no quorum answers.
            Body::Refused { .. } => {}
        }
    }

    fn keep(&mut self, table: &mut dyn Table<T>, kept: Written) {
        self.kept = self.kept.max(kept);
        while let Some((mark, _)) = self.held.front()
            && *mark <= self.kept.mark
        {
            let (_, output) = self.held.pop_front().expect("there is one");
            self.ready.push_back(output);
        }
        match &self.role {
            Role::Leading(_) => self.advance(table),
            Role::Following(_) => self.acknowledge(),
            Role::Idle => {}
        }
    }

    fn tick(&mut self, table: &mut dyn Table<T>) {
        self.tick_sources(table);
        match &self.role {
            Role::Leading(_) => self.remind(table),
            Role::Following(_) => self.pull_again(table),
            Role::Idle => {}
        }
    }

    /// Sends at once.
    fn send(&mut self, to: NodeId, term: Epoch, body: BodyOf<T>) {
        // Whose start is not known is told when it is.
        if let Some(&incarnation) = self.starts.get(to) {
            let message = Message { term, body };
            self.ready.push_back(Output::Send(to, incarnation, message));
        }
    }

    /// Sends once all that is written now is kept.
    fn send_kept(&mut self, to: NodeId, term: Epoch, body: BodyOf<T>) {
        if let Some(&incarnation) = self.starts.get(to) {
            let message = Message { term, body };
            self.when_kept(Output::Send(to, incarnation, message));
        }
    }

    fn when_kept(&mut self, output: Output<T>) {
        if self.written <= self.kept.mark {
            self.ready.push_back(output);
        } else if !self.held.iter().any(|(_, held)| held.is_same(&output)) {
            // What is said again at each tick is said once the log goes on, and once.
            self.held.push_back((self.written, output));
        }
    }

    /// How far the order is in which this replica is.
    fn common(&self, table: &dyn Table<T>, other: &History, other_last: u64) -> u64 {
        let last = table.progress().last.seq();
        self.state.history.common(last, other, other_last)
    }

    /// What must always hold.
    fn check(&self, table: &dyn Table<T>) {
        let Progress {
            last,
            commit,
            horizon,
        } = table.progress();
        assert!(horizon <= commit, "only what is committed is dropped");
        assert!(commit <= last.seq(), "what is committed is applied");
        assert!(
            last.term() <= self.state.adopted,
            "a term is adopted before it is followed"
        );
        if let Role::Leading(leading) = &self.role {
            assert_eq!(
                leading.term, self.state.adopted,
                "it leads the term that it has adopted"
            );
        }
    }

    #[cfg(any(test, feature = "bugs"))]
    fn has_bug(&self, number: u8) -> bool {
        self.bugs.has(number)
    }

    #[cfg(not(any(test, feature = "bugs")))]
    #[expect(clippy::unused_self, reason = "one with bugs asks itself")]
    const fn has_bug(&self, _: u8) -> bool {
        false
    }

    #[cfg(any(test, feature = "bugs"))]
    fn part_records(&self) -> usize {
        self.part_records
    }

    #[cfg(not(any(test, feature = "bugs")))]
    #[expect(clippy::unused_self, reason = "one in a test asks itself")]
    const fn part_records(&self) -> usize {
        source::PART_RECORDS
    }
}

#[cfg(test)]
mod tests;
