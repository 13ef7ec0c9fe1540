//! What a node has to say to one other, of one stream between the two: what replicas say goes into an [`Outbox`] in the order of
//! each partition, and comes out of it as [`Frame`]s. Acks wait until the next frame, and only the newest of each partition goes.
//! Probes of all partitions go together, one question in flight: what is asked meanwhile waits for its answer. It sends nothing,
//! decides nothing, and knows of a message only what it has to.
//!
//! **A question names only who has to be asked.** A replica echoes a probe if it has adopted no later term. A node counts how often
//! its replicas have adopted one, all together, and says with each answer how often that was before it looked. Who has echoed in one
//! answer has adopted nothing by the next, if both say the same; so from then on it is not named, and its echo is in the answer that
//! says so. Terms are adopted where a leader changes. That a node counts an adoption before anybody hears of it is the carrier's duty.
//! And where a leader's replica waits for nothing but that echo, it need not be told: whoever waits is ([`Outbox::wait`]).
//!
//! **What keeps its order, and what need not.** A replica takes messages in any order, and any may be lost; but an `Append` that
//! comes before what it follows is a gap, and each gap is a copy. So of one partition the `Append`s stay behind the `Part` with
//! which a copy ends, and behind the `Open` of their term. Between partitions nothing has an order. So there is one stream, and no
//! second one for copies, whose last parts would be overtaken: the first `Append` behind a copy would be lost each time, and a
//! partition that is written to would copy for ever. Instead a `Part` waits beside the queue, with the `Append`s of its partition
//! behind it, until what is in the queue by then has gone; from then on copies and the queue have turns. So what comes into the queue
//! waits for no more than one part, however many partitions copy.
//!
//! **What it may hold.** A copy has one part under way, as a source sends the next when that has come. Of all that is said again
//! while it was not answered only one of a kind waits for each partition. That leaves what is stamped, which has a bound: see
//! [`Outbox::put`]. For a node that is away neither waits: see [`Outbox::disconnected`].

mod format;

pub use format::FrameError;

use crate::replica::{Body, CopyId, Message, MessageOf, Types};
use crate::topology::{Epoch, Incarnation};
use henge_wire::{PARTITIONS, Partition};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A question that was not answered for so long was lost. Above a round trip of a slow network.
const PROBE_LOST_AFTER_MS: u64 = 60;
/// An empty queue keeps room for so many messages, some hundred kilobytes: as many as come between two frames of a busy stream.
const KEPT_MESSAGES: usize = 1_024;
/// So many messages are dropped while an outbox is locked, and a replica may be too: some tens of microseconds.
const FORGOTTEN_AT_ONCE: usize = 256;
/// So many wait for an answer at the most: some for each connection of a busy node.
const MOST_WAITERS: usize = 1 << 14;

/// In which trace something was stamped: bytes that mean something to who gives and takes them, and nothing here. They are told beside
/// the entry, in its frame, and decide nothing.
pub type Context = [u8; 25];

/// Partition, term, and a seq, a number or a term.
pub type Mark = (Partition, Epoch, u64);

/// What goes to a node at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame<E, V> {
    /// The start of the receiver that it is for. For another it says nothing.
    pub incarnation: Incarnation,
    /// Of each partition in the order in which they are to be taken.
    pub messages: Vec<(Partition, Message<E, V>)>,
    /// In which traces some of the entries among them were stamped, by their places.
    pub contexts: Vec<(u32, Context)>,
    /// How far partitions have come.
    pub acks: Vec<Mark>,
    /// A question with its number: does anybody of these follow a later term?
    pub probes: Option<(u64, Vec<Mark>)>,
    /// An answer to a question.
    pub echoes: Option<Echoes>,
}

/// An answer to a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Echoes {
    /// That of this number.
    pub number: u64,
    /// How often any replica of the node had adopted a term in this start, before it looked at the marks.
    pub adoptions: u64,
    /// Those of the marks who follow no later term.
    pub marks: Vec<Mark>,
}

/// A frame of a table's types.
pub type FrameOf<T> = Frame<<T as Types>::Effects, <T as Types>::Value>;

/// The newest of each partition.
#[derive(Default)]
struct Marks {
    list: Vec<Mark>,
    /// Where each partition is in the list, if it is: there it says so. Empty until there was one.
    places: Vec<u16>,
}

impl Marks {
    fn put(&mut self, (partition, term, number): Mark) {
        if self.places.is_empty() {
            self.places.resize(usize::from(PARTITIONS), 0);
        }
        let place = &mut self.places[usize::from(partition.number())];
        match self.list.get_mut(usize::from(*place)) {
            Some((known, newest, last)) if *known == partition => {
                (*newest, *last) = (*newest, *last).max((term, number));
            }
            _ => {
                *place = self.list.len() as u16;
                self.list.push((partition, term, number));
            }
        }
    }

    /// All of them, in the order of the partitions; none are left.
    fn take(&mut self) -> Vec<Mark> {
        /// Little room, and most of the growing.
        const ROOM: usize = 64;
        if self.list.is_empty() {
            return Vec::new();
        }
        let mut all = std::mem::replace(&mut self.list, Vec::with_capacity(ROOM));
        all.sort_unstable();
        all
    }

    fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn len(&self) -> usize {
        self.list.len()
    }
}

/// A message that waits.
struct Waiting<T: Types> {
    partition: Partition,
    bytes: usize,
    message: MessageOf<T>,
    /// That of an entry which is traced; boxed, as hardly any is.
    context: Option<Box<Context>>,
}

/// What goes in one frame.
struct Taken<T: Types> {
    messages: Vec<(Partition, MessageOf<T>)>,
    contexts: Vec<(u32, Context)>,
}

impl<T: Types> Default for Taken<T> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            contexts: Vec::new(),
        }
    }
}

impl<T: Types> Taken<T> {
    fn push(&mut self, waiting: Waiting<T>) {
        if let Some(context) = waiting.context {
            self.contexts.push((self.messages.len() as u32, *context));
        }
        self.messages.push((waiting.partition, waiting.message));
    }
}

/// What waits of a copy.
struct Copy<T: Types> {
    part: Option<Waiting<T>>,
    /// It goes when so many messages have left the queue, among them all `Append`s of its partition.
    after: u64,
    /// What was stamped behind it.
    appends: VecDeque<Waiting<T>>,
}

/// A question that was not answered yet.
struct Question {
    number: u64,
    asked_ms: u64,
    /// What is asked about.
    marks: Vec<Mark>,
    /// What need not be named, unless somebody has adopted another term.
    unnamed: Vec<Mark>,
    waiters: Vec<Waiter>,
}

/// Who waits for an answer, by a name of the carrier's, and the number of the question that was to be answered at first.
pub type Waiter = (u64, u64);

/// What an answer says beside what it names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answered {
    /// Those who were asked about and not named, and follow no later term.
    pub unnamed: Vec<Mark>,
    /// Who has waited for it, or for a later one of which it tells as well.
    pub waiters: Vec<Waiter>,
    /// Whether that for which they wait follows no later term. Else it has to be asked about by name.
    pub vouches: bool,
}

/// What the node has said of terms, which holds as long as none of its replicas adopts one.
#[derive(Default)]
struct Followed {
    /// How often they have, at that time; none before the first answer.
    adoptions: Option<u64>,
    /// By partitions, a term above which its replica followed none; 0 where that is not known.
    terms: Vec<Epoch>,
}

impl Followed {
    /// It has adopted terms so often.
    fn see(&mut self, adoptions: u64) {
        if self.adoptions != Some(adoptions) {
            self.adoptions = Some(adoptions);
            self.terms.clear();
        }
    }

    fn note(&mut self, (partition, term, _): Mark) {
        if self.terms.is_empty() {
            self.terms.resize(usize::from(PARTITIONS), 0);
        }
        self.terms[usize::from(partition.number())] = term;
    }

    fn is_known(&self, &(partition, term, _): &Mark) -> bool {
        let known = self.terms.get(usize::from(partition.number()));
        known.is_some_and(|&known| known != 0 && known <= term)
    }
}

/// See the head of the file.
pub struct Outbox<T: Types> {
    incarnation: Incarnation,
    queue: VecDeque<Waiting<T>>,
    /// How many messages have left the queue.
    left: u64,
    /// The place, counted from the first message that ever was in the queue, of what is said again while it waits.
    places: BTreeMap<(Partition, Kind), u64>,
    copies: BTreeMap<Partition, Copy<T>>,
    /// Whose copy has the next turn, and whether it comes before the queue.
    turns: VecDeque<Partition>,
    has_copy_turn: bool,
    bytes: usize,
    append_bytes: usize,
    most_append_bytes: usize,
    /// Partitions of which an `Append` was dropped: those behind it are of no use.
    gaps: BTreeSet<Partition>,
    dropped: u64,
    /// While the node is away, how many of the queue, from its first on, are not looked at since: see [`disconnected`](Self::disconnected).
    away: Option<usize>,
    acks: Marks,
    probes: Marks,
    question: Option<Question>,
    questions: u64,
    followed: Followed,
    /// Who waits for the answer to the next question.
    waiters: Vec<Waiter>,
    /// Who has waited in vain.
    given_up: Vec<Waiter>,
    /// Who was the first to wait, and for no answer, when that was last looked at.
    first_waiter: Option<Waiter>,
    /// The last question was not answered, or none can be asked: nobody waits for the next.
    is_silent: bool,
    echoes: Option<Answering>,
    is_answering: bool,
}

/// An answer that is being made, or waits.
struct Answering {
    number: u64,
    adoptions: u64,
    marks: Marks,
}

/// What there is one of, for each partition, in the queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Fence,
    Fenced,
    Refused,
    Open,
    Aligned,
    Pull,
    Next,
    Abort,
    Beat,
    /// One that answers no question that is known.
    Echo,
}

impl Kind {
    /// None for what is put elsewhere.
    fn of<E, V>(body: &Body<E, V>) -> Option<Self> {
        Some(match body {
            Body::Fence { .. } => Self::Fence,
            Body::Fenced { .. } => Self::Fenced,
            Body::Refused { .. } => Self::Refused,
            Body::Open { .. } => Self::Open,
            Body::Aligned { .. } => Self::Aligned,
            Body::Pull { .. } => Self::Pull,
            Body::Next { .. } => Self::Next,
            Body::Abort { .. } => Self::Abort,
            Body::Beat { .. } => Self::Beat,
            Body::Echo { .. } => Self::Echo,
            Body::Append { .. } | Body::Part { .. } | Body::Ack { .. } | Body::Probe { .. } => {
                return None;
            }
        })
    }
}

/// About how many bytes a message takes, in memory; as bytes it is some hundred less.
fn bytes<T: Types>(message: &MessageOf<T>) -> usize {
    let carried = match &message.body {
        Body::Append { entry, .. } => T::effects_bytes(&entry.effects),
        Body::Part { states, .. } => {
            let record = size_of_val(&states[..]);
            let carried = states.iter().map(|(key, record)| {
                let record = record.as_ref();
                key.len() + record.map_or(0, T::bytes)
            });
            record + carried.sum::<usize>()
        }
        Body::Pull { keys, .. } => {
            let carried = keys.iter().map(Vec::len).sum::<usize>();
            size_of_val(&keys[..]) + carried
        }
        Body::Fenced { history, .. } | Body::Open { history, .. } => size_of_val(history.terms()),
        _ => 0,
    };
    size_of::<Waiting<T>>() + carried
}

/// Which part of which copy it is.
fn part_of<T: Types>(waiting: &Waiting<T>) -> Option<(CopyId, u64, bool)> {
    match waiting.message.body {
        Body::Part {
            id,
            number,
            is_full,
            ..
        } => Some((id, number, is_full)),
        _ => None,
    }
}

impl<T: Types> Outbox<T> {
    /// An empty one. No more is taken that was stamped when so many bytes of that wait.
    pub fn new(most_append_bytes: usize) -> Self {
        Self {
            incarnation: 0,
            queue: VecDeque::new(),
            left: 0,
            places: BTreeMap::new(),
            copies: BTreeMap::new(),
            turns: VecDeque::new(),
            has_copy_turn: false,
            bytes: 0,
            append_bytes: 0,
            most_append_bytes,
            gaps: BTreeSet::new(),
            dropped: 0,
            away: None,
            acks: Marks::default(),
            probes: Marks::default(),
            question: None,
            questions: 0,
            followed: Followed::default(),
            waiters: Vec::new(),
            given_up: Vec::new(),
            first_waiter: None,
            is_silent: false,
            echoes: None,
            is_answering: false,
        }
    }

    /// Takes what a replica says to a start of the node. What is for an earlier one than others were is for nobody, and so is what
    /// waits for an earlier one than this.
    ///
    /// An `Append` that comes when there is no room for it is dropped, as if it had been lost, and so are those of its partition that
    /// come after it, which the replica could not take: until a copy has ended, or a term opens, for what they follow then. What is
    /// before it in the queue stays, as the replica can take that, and has to copy the less. A replica that is too slow for all of its
    /// partitions so keeps as many as it can follow. Others have no say in that: nothing is dropped of a partition that is not written
    /// to. Of its gap it hears by a `Beat`, and none goes until half of the room is free again: or it would copy while it cannot
    /// follow, and drop out again by the first write. So each copy comes with room for as many bytes at least.
    pub fn put(&mut self, partition: Partition, incarnation: Incarnation, message: MessageOf<T>) {
        self.put_traced(partition, incarnation, message, None);
    }

    /// The same, of a trace: what is told of that goes with the `Append`, or is dropped with it.
    pub fn put_traced(
        &mut self,
        partition: Partition,
        incarnation: Incarnation,
        message: MessageOf<T>,
        context: Option<Context>,
    ) {
        if !self.is_present(incarnation) {
            return;
        }
        let term = message.term;
        match message.body {
            Body::Append { .. } => self.append(partition, message, context),
            // Its end was to close the gap; and its source says it again.
            Body::Part { .. } if self.away.is_some() => {
                self.gaps.insert(partition);
            }
            Body::Part { .. } => self.copy(partition, message),
            Body::Ack { applied } => self.acks.put((partition, term, applied)),
            Body::Probe { number } => self.probes.put((partition, term, number)),
            Body::Echo { number } if self.echoes.is_some() => {
                let echoes = self.echoes.as_mut().expect("it is being answered");
                echoes.marks.put((partition, term, number));
            }
            _ => self.say(partition, message),
        }
    }

    /// Whether it is the present start of the node; if it is a later one it is from now on.
    fn is_present(&mut self, incarnation: Incarnation) -> bool {
        if incarnation > self.incarnation {
            self.give_up();
            *self = Self {
                incarnation,
                questions: self.questions,
                dropped: self.dropped,
                given_up: std::mem::take(&mut self.given_up),
                ..Self::new(self.most_append_bytes)
            };
        }
        incarnation == self.incarnation
    }

    fn append(&mut self, partition: Partition, message: MessageOf<T>, context: Option<Context>) {
        // One that is larger than all the room goes when there is nothing else.
        let is_full = self.append_bytes >= self.most_append_bytes;
        if is_full || self.away.is_some() || self.gaps.contains(&partition) {
            self.gaps.insert(partition);
            self.dropped += 1;
            return;
        }
        let mut waiting = self.waiting(partition, message);
        waiting.context = context.map(Box::new);
        self.append_bytes += waiting.bytes;
        match self.copies.get_mut(&partition) {
            Some(copy) => copy.appends.push_back(waiting),
            None => self.queue.push_back(waiting),
        }
    }

    fn waiting(&mut self, partition: Partition, message: MessageOf<T>) -> Waiting<T> {
        let bytes = bytes::<T>(&message);
        self.bytes += bytes;
        Waiting {
            partition,
            bytes,
            message,
            context: None,
        }
    }

    fn copy(&mut self, partition: Partition, message: MessageOf<T>) {
        if let Body::Part { end: Some(_), .. } = &message.body {
            // What is stamped from here on follows this.
            self.gaps.remove(&partition);
        }
        let waiting = self.waiting(partition, message);
        let after = self.left + self.queue.len() as u64;
        let copy = self.copies.entry(partition).or_insert_with(|| {
            self.turns.push_back(partition);
            Copy {
                part: None,
                after,
                appends: VecDeque::new(),
            }
        });
        if let Some(part) = &copy.part
            && part_of(part) == part_of(&waiting)
            && part.message.term == waiting.message.term
        {
            // It is the same, sent again as it was not answered; and some may wait behind it.
            self.bytes -= waiting.bytes;
            return;
        }
        // Whoever asks for another copy takes no part of the one before, and what was stamped by now is in the new one.
        let part = copy.part.replace(waiting);
        let appends = copy.appends.drain(..).map(|append| append.bytes);
        let appends = appends.sum::<usize>();
        self.append_bytes -= appends;
        self.bytes -= appends + part.map_or(0, |part| part.bytes);
    }

    /// What a replica says again as long as it is not answered: a newer one takes the place of one that waits. Either may be lost,
    /// and either may come before what was said in between.
    fn say(&mut self, partition: Partition, message: MessageOf<T>) {
        let kind = Kind::of(&message.body).expect("all else is put elsewhere");
        match kind {
            Kind::Open => {
                self.gaps.remove(&partition);
            }
            Kind::Beat => {
                let is_crowded = self.append_bytes > self.most_append_bytes / 2;
                if is_crowded && self.gaps.contains(&partition) {
                    return;
                }
            }
            _ => {}
        }
        let waiting = self.waiting(partition, message);
        let next = self.left + self.queue.len() as u64;
        let place = *self.places.entry((partition, kind)).or_insert(next);
        if place == next {
            self.queue.push_back(waiting);
            return;
        }
        let place = (place - self.left) as usize;
        let earlier = &mut self.queue[place];
        if kind == Kind::Beat && earlier.message.term == waiting.message.term {
            // There it would tell of what was stamped since, and comes behind it: of a gap where there is none.
            self.bytes -= waiting.bytes;
            return;
        }
        self.bytes -= earlier.bytes;
        *earlier = waiting;
    }

    /// What replicas say from now on until [`end_answer`](Self::end_answer) answers a question of this number, of this start of the
    /// node. So often had any replica here adopted a term, in whatever partition, when that was looked up for this.
    pub fn begin_answer(&mut self, incarnation: Incarnation, number: u64, adoptions: u64) {
        if self.is_present(incarnation) {
            // A question that was asked anew, as its answer was taken for lost, has it with the newer one, if that says the same.
            let earlier = self.echoes.take();
            let earlier = earlier.filter(|earlier| earlier.adoptions == adoptions);
            self.echoes = Some(Answering {
                number,
                adoptions,
                marks: earlier.map_or_else(Marks::default, |earlier| earlier.marks),
            });
            self.is_answering = true;
        }
    }

    /// All replicas that were asked have said what they do.
    pub fn end_answer(&mut self) {
        self.is_answering = false;
    }

    /// Has somebody, of this name, wait until this start of the node says in answer to a question that is asked from now on that its
    /// replica of a partition follows no later term than this; but not where that has to be asked about by name. Gives the number of
    /// the question. One that is answered may be a later one, and then it is said once for all of which the same somebody has waited.
    pub fn wait(
        &mut self,
        incarnation: Incarnation,
        partition: Partition,
        term: Epoch,
        waiter: u64,
    ) -> Option<u64> {
        let is_known = self.followed.is_known(&(partition, term, 0));
        let has_room = self.waiters.len() < MOST_WAITERS;
        if incarnation != self.incarnation || !is_known || !has_room || self.is_silent {
            return None;
        }
        let number = self.questions + 1;
        // One after the other they ask for many partitions.
        if self.waiters.last() != Some(&(waiter, number)) {
            self.waiters.push((waiter, number));
        }
        Some(number)
    }

    /// Who has waited in vain: as a question was not answered, or there was none from one such call to the next. They are told once.
    pub fn given_up(&mut self, now_ms: u64) -> Vec<Waiter> {
        let is_lost = self.next_lost().is_some_and(|lost_ms| lost_ms <= now_ms);
        let waits = self.waiters.first().filter(|_| self.question.is_none());
        let is_stuck = waits.is_some() && waits == self.first_waiter.as_ref();
        self.first_waiter = waits.copied();
        if is_lost || is_stuck {
            self.give_up();
        }
        std::mem::take(&mut self.given_up)
    }

    /// Nobody speaks to this node any more: gives all who wait.
    pub fn close(&mut self) -> Vec<Waiter> {
        self.give_up();
        std::mem::take(&mut self.given_up)
    }

    /// Nobody waits any more until a question is answered.
    fn give_up(&mut self) {
        self.is_silent = true;
        if let Some(question) = &mut self.question {
            self.given_up.append(&mut question.waiters);
        }
        self.given_up.append(&mut self.waiters);
    }

    /// A question was answered. If no term was adopted since who was asked about was named, it follows none that is later, and has
    /// answered as if it were named again. If one was, it is asked about by name next, and nobody waits for anything else.
    pub fn answered(&mut self, echoes: &Echoes) -> Answered {
        let is_that = |question: &mut Question| question.number == echoes.number;
        let Some(question) = self.question.take_if(is_that) else {
            return Answered::default();
        };
        self.is_silent = false;
        let is_same = self.followed.adoptions == Some(echoes.adoptions);
        self.followed.see(echoes.adoptions);
        for mark in &echoes.marks {
            self.followed.note(*mark);
        }
        let mut waiters = question.waiters;
        let mut unnamed = question.unnamed;
        if !is_same {
            // Also what waits for the next rests on what was known before.
            waiters.append(&mut self.waiters);
            for mark in unnamed.drain(..) {
                self.probes.put(mark);
            }
        }
        Answered {
            unnamed,
            waiters,
            vouches: is_same,
        }
    }

    /// The node cannot be reached, and not for a moment only: until it is again nothing is kept for it that is of any size. What was
    /// stamped and waits is dropped, as if it had been lost, and so is what comes, and copies with it. What is said again anyway still
    /// waits, once of each kind: by that somebody tries to reach it.
    ///
    /// Drops some of what waits, and says whether there is more: who puts something there waits for no more than that.
    pub fn disconnected(&mut self) -> bool {
        let unsorted = self.away.unwrap_or_else(|| {
            self.gaps.extend(self.copies.keys());
            self.turns.clear();
            self.queue.len()
        });
        let mut steps = FORGOTTEN_AT_ONCE;
        let sorted = unsorted.min(steps);
        for _ in 0..sorted {
            self.sort_out_one();
        }
        self.away = Some(unsorted - sorted);
        steps -= sorted;
        while steps > 0
            && let Some(mut copy) = self.copies.first_entry()
        {
            steps -= 1;
            if let Some(append) = copy.get_mut().appends.pop_front() {
                self.dropped += 1;
                self.append_bytes -= append.bytes;
                self.bytes -= append.bytes;
            } else {
                let part = copy.remove().part;
                self.bytes -= part.map_or(0, |part| part.bytes);
            }
        }
        let is_done = self.away == Some(0) && self.copies.is_empty();
        if is_done {
            self.queue.shrink_to(KEPT_MESSAGES);
        }
        !is_done
    }

    /// The first of the queue is dropped if it was stamped, and else comes to its end. No copy counts by it any more.
    fn sort_out_one(&mut self) {
        let Some(waiting) = self.queue.pop_front() else {
            return;
        };
        self.left += 1;
        if let Some(kind) = Kind::of(&waiting.message.body) {
            let place = self.left + self.queue.len() as u64;
            self.places.insert((waiting.partition, kind), place);
            self.queue.push_back(waiting);
        } else {
            self.gaps.insert(waiting.partition);
            self.dropped += 1;
            self.append_bytes -= waiting.bytes;
            self.bytes -= waiting.bytes;
        }
    }

    /// It is reached again. What was taken may be lost, as the connection is another one. A question is asked again; all else is for the
    /// replicas to say again, and what was stamped they find out.
    pub fn reconnected(&mut self) {
        self.away = None;
        if let Some(mut question) = self.question.take() {
            for mark in question.marks.into_iter().chain(question.unnamed) {
                self.probes.put(mark);
            }
            question.waiters.append(&mut self.waiters);
            self.waiters = question.waiters;
        }
    }

    /// What is to go now, if anything: so many bytes of messages at the most, as they are counted here, or one that is larger. The
    /// rest stays for the next call.
    pub fn take(&mut self, now_ms: u64, most_bytes: usize) -> Option<FrameOf<T>> {
        let Taken { messages, contexts } = self.take_messages(most_bytes);
        let echoes = if self.is_answering {
            None
        } else {
            self.echoes.take()
        };
        let frame = Frame {
            incarnation: self.incarnation,
            messages,
            contexts,
            acks: self.acks.take(),
            probes: self.take_probes(now_ms),
            echoes: echoes.map(|mut echoes| Echoes {
                number: echoes.number,
                adoptions: echoes.adoptions,
                marks: echoes.marks.take(),
            }),
        };
        let says_nothing = frame.messages.is_empty()
            && frame.acks.is_empty()
            && frame.probes.is_none()
            && frame.echoes.is_none();
        (!says_nothing).then_some(frame)
    }

    fn take_probes(&mut self, now_ms: u64) -> Option<(u64, Vec<Mark>)> {
        let lost_ms = self.next_lost();
        if lost_ms.is_some_and(|lost_ms| now_ms < lost_ms) {
            return None;
        }
        if lost_ms.is_some() {
            self.give_up();
        }
        if self.probes.is_empty() && self.waiters.is_empty() {
            return None;
        }
        self.questions += 1;
        let is_known = |mark: &Mark| self.followed.is_known(mark);
        let (unnamed, marks): (Vec<Mark>, Vec<Mark>) =
            self.probes.take().into_iter().partition(is_known);
        self.question = Some(Question {
            number: self.questions,
            asked_ms: now_ms,
            marks: marks.clone(),
            unnamed,
            waiters: std::mem::take(&mut self.waiters),
        });
        Some((self.questions, marks))
    }

    fn take_messages(&mut self, most_bytes: usize) -> Taken<T> {
        let mut room = Room {
            bytes: most_bytes,
            is_untouched: true,
        };
        let mut taken = Taken::default();
        let mut had_turn = self.has_copy_turn && self.take_copy(&mut room, &mut taken);
        let fitting = self.queue.iter().take_while(|next| room.takes(next.bytes));
        let fitting = fitting.count();
        taken.messages.reserve(fitting);
        for waiting in self.queue.drain(..fitting) {
            self.bytes -= waiting.bytes;
            match Kind::of(&waiting.message.body) {
                None => self.append_bytes -= waiting.bytes,
                Some(kind) => {
                    self.places.remove(&(waiting.partition, kind));
                }
            }
            taken.push(waiting);
        }
        self.left += fitting as u64;
        if self.queue.is_empty() {
            self.queue.shrink_to(KEPT_MESSAGES);
        }
        while self.take_copy(&mut room, &mut taken) {
            had_turn = true;
        }
        // A copy for which there was no room in this frame has it in the next, and the queue in that after it.
        self.has_copy_turn = !had_turn;
        taken
    }

    /// Takes what fits of the copy whose turn it is: its part, and what is behind that. Says whether anything did.
    fn take_copy(&mut self, room: &mut Room, taken: &mut Taken<T>) -> bool {
        let Some(&partition) = self.turns.front() else {
            return false;
        };
        let copy = self.copies.get_mut(&partition).expect("it has a turn");
        if copy.after > self.left {
            return false;
        }
        let before = taken.messages.len();
        let mut take = |waiting: Waiting<T>| {
            self.bytes -= waiting.bytes;
            taken.push(waiting);
        };
        if let Some(part) = copy.part.take_if(|part| room.takes(part.bytes)) {
            take(part);
        }
        if copy.part.is_none() {
            while let Some(append) = copy.appends.pop_front_if(|append| room.takes(append.bytes)) {
                self.append_bytes -= append.bytes;
                take(append);
            }
        }
        let had_turn = taken.messages.len() > before;
        if had_turn {
            self.turns.pop_front();
            if copy.appends.is_empty() && copy.part.is_none() {
                self.copies.remove(&partition);
            } else {
                self.turns.push_back(partition);
            }
        }
        had_turn
    }

    /// Whether nothing waits, not even for an answer.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
            && self.copies.is_empty()
            && self.acks.is_empty()
            && !self.has_probes()
            && self.echoes.is_none()
    }

    /// Whether probes wait, or somebody does, perhaps for the answer to others.
    pub fn has_probes(&self) -> bool {
        let question = self.question.as_ref();
        let is_awaited = question.is_some_and(|question| !question.waiters.is_empty());
        !self.probes.is_empty() || !self.waiters.is_empty() || is_awaited
    }

    /// About how many bytes wait.
    pub fn bytes(&self) -> usize {
        let answer = self.echoes.as_ref().map_or(0, |echoes| echoes.marks.len());
        let marks = self.acks.len() + self.probes.len() + answer;
        self.bytes + marks * size_of::<Mark>()
    }

    /// How many `Append`s were dropped, in its life.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// When there is more to take though nothing was put: probes wait for an answer that is lost then.
    pub fn next_deadline(&self) -> Option<u64> {
        self.next_lost().filter(|_| self.has_probes())
    }

    fn next_lost(&self) -> Option<u64> {
        let question = self.question.as_ref();
        question.map(|question| question.asked_ms + PROBE_LOST_AFTER_MS)
    }
}

/// What is left of a frame.
struct Room {
    bytes: usize,
    is_untouched: bool,
}

impl Room {
    /// Whether there is room for that; it is used then. There always is for the first.
    fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.is_untouched || bytes <= self.bytes;
        if fits {
            self.is_untouched = false;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        fits
    }
}

#[cfg(test)]
mod tests;
