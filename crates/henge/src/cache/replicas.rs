//! The cache and the machines of its partitions' replicas: each stands beside its table, behind the same lock, so that what a
//! replica says leaves in the order in which its table changed. What they say is carried by somebody else, as is who waits for
//! an answer.
//!
//! A partition whose replica is alone is served past its machine, as by a node by itself.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use henge_cluster::replica::{
    Answer, Course, Input, Level, MessageOf, Output, Replica, RequestId, Seen, State, View, Vouch,
    Written,
};
use henge_cluster::ring::NodeId;
use henge_cluster::store::{Asked, Look, PartitionTable, Request, Served, Show, Shown};
use henge_cluster::topology::Incarnation;
use henge_engine::{Line, Progress, Room, Shard, Short, Turn};
use henge_wire::{Command, Outcome, PARTITIONS, Partition, Refusal, Reply, Transaction, Version};
use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::{Cache, LENDING_ROUNDS, Location};

/// Takes what replicas say, while the shard is locked: it may lock what is locked after a shard, and waits for nothing.
pub(crate) trait Carry: Send + Sync {
    /// A request that this thread makes now: how much it is to promise, and its name. A name of 0 is nobody's.
    fn begin(&self, partition: Partition, is_write: bool) -> (RequestId, Level);

    /// What a request of this name and thread has written is in the order up to this version.
    fn stamped(&self, id: RequestId, version: Version);

    /// How much is promised to whoever this thread asks for now.
    fn level(&self) -> Level;

    /// A replica has adopted another term: to be counted before anything is carried that it says of it.
    fn adopted(&self);

    /// A read of this thread waits until others vouch for what it has seen. It is given back if there are too few who can.
    fn wait(&self, partition: Partition, vouch: Vouch<()>) -> Option<Seen<()>>;

    /// A replica has said something else.
    fn carry(&self, partition: Partition, output: Output<Served>);
}

/// A shard, and the replicas of its partitions.
pub(super) struct Seat {
    shard: Shard,
    /// By the places of partitions in the shard; none for a node that does not replicate.
    replicas: Box<[Option<Box<Seated>>]>,
    /// How far replicas have written in the journal that is not taken yet.
    journalled: Vec<(Partition, Written)>,
    /// The same in journals that were taken, by their rounds.
    taken: VecDeque<(u64, Vec<(Partition, Written)>)>,
}

/// A replica, and how far of what it has written note was taken.
struct Seated {
    replica: Replica<Served>,
    noted: Written,
    /// How far it was at the tick before, if it can do without one.
    course: Option<Course>,
}

/// A replica that waits for nothing has one tick of so many: one second's, of those that come each 25 ms. It says then how far it is,
/// in case somebody has lost that.
const RARE_TICKS: u64 = 40;

impl Seat {
    pub(super) fn new(shard: Shard) -> Self {
        Self {
            shard,
            replicas: Box::default(),
            journalled: Vec::new(),
            taken: VecDeque::new(),
        }
    }

    /// The journal was taken for a round. Says whether replicas wait for that.
    pub(super) fn note_taken(&mut self, round: u64) -> bool {
        if !self.journalled.is_empty() {
            let journalled = std::mem::take(&mut self.journalled);
            self.taken.push_back((round, journalled));
        }
        !self.taken.is_empty()
    }

    /// Where a partition's replica begins.
    pub(super) fn replica(&self, p: usize) -> Option<Line> {
        let seated = self.replicas.get(p).and_then(Option::as_deref);
        seated.map(Line::of)
    }

    fn has_replica(&self, p: usize) -> bool {
        self.replicas.get(p).is_some_and(Option::is_some)
    }

    /// Whether what a partition has is this node's to show.
    pub(super) fn shows(&self, p: usize) -> bool {
        !self.has_machine(p) || self.leads(p)
    }

    /// Whether a partition's machine leads it.
    fn leads(&self, p: usize) -> bool {
        let seated = self.replicas.get(p).and_then(Option::as_ref);
        seated.is_some_and(|seated| seated.replica.leads())
    }

    /// Whether requests for a partition have to go by its machine.
    #[inline]
    pub(super) fn has_machine(&self, p: usize) -> bool {
        match self.replicas.get(p) {
            None => false,
            Some(None) => true,
            Some(Some(seated)) => !seated.replica.is_alone(),
        }
    }
}

impl Deref for Seat {
    type Target = Shard;

    #[inline]
    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for Seat {
    #[inline]
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

/// Asks for all of a replica that begins there.
pub(super) fn prefetch_replica(mut line: Line) {
    /// Of a processor's cache.
    const LINE_BYTES: usize = 64;
    for _ in 0..size_of::<Seated>().div_ceil(LINE_BYTES) {
        line.prefetch();
        line = line.next();
    }
}

/// Who replicates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identified {
    pub(crate) me: NodeId,
    pub(crate) incarnation: Incarnation,
    /// What is written is kept once a round of the log has it; else at once.
    pub(crate) has_log: bool,
}

/// The same, and who carries what is said.
pub(super) struct Replication {
    identified: Identified,
    carrier: Arc<dyn Carry>,
}

/// What a machine's part of a call came to, beside what was carried.
#[derive(Default)]
struct Handled {
    /// The request was not run for want of room.
    had_no_room: bool,
    /// What its shard was short of, if others may lend it.
    short: Option<Short>,
    /// What it has granted itself.
    overdrawn: Room,
}

/// Looks at a shard, once.
struct Looks<F, R>(Cell<Option<F>>, Cell<Option<R>>);

impl<F: FnOnce(&Shard) -> R, R> Look for Looks<F, R> {
    fn look(&self, shard: &Shard) {
        if let Some(look) = self.0.take() {
            self.1.set(Some(look(shard)));
        }
    }
}

/// Shows a reply to who waits for it, once.
struct Once<F, R>(Cell<Option<F>>, Cell<Option<R>>);

impl<F: FnOnce(Shown<'_>) -> R, R> Once<F, R> {
    fn new(answer: F) -> Self {
        Self(Cell::new(Some(answer)), Cell::new(None))
    }

    /// What it was made of, or what is made of this now.
    fn take_or(self, otherwise: Shown<'_>) -> R {
        let Self(answer, made) = self;
        match (made.into_inner(), answer.into_inner()) {
            (Some(made), _) => made,
            (None, Some(answer)) => answer(otherwise),
            (None, None) => unreachable!("it is taken when it is made"),
        }
    }
}

impl<F: FnOnce(Shown<'_>) -> R, R> Show for Once<F, R> {
    fn show(&self, shown: Shown<'_>) {
        if let Some(answer) = self.0.take() {
            self.1.set(Some(answer(shown)));
        }
    }
}

thread_local! {
    /// What a machine says in one call.
    static OUTPUTS: RefCell<VecDeque<Output<Served>>> = const { RefCell::new(VecDeque::new()) };
}

/// A partition that this node leads, of which it has the base.
pub(crate) struct Led {
    pub(crate) partition: Partition,
    pub(crate) generation: u32,
    /// The seq from which on this term goes.
    pub(crate) base: u64,
    pub(crate) progress: Progress,
    /// Each other replica, with the seq up to which it has said that it has the order of this term.
    pub(crate) followed: SmallVec<[(NodeId, Option<u64>); 4]>,
}

impl Cache {
    /// From now on this node's partitions are replicas, of which it is told by [`look`](Self::look): of these generations, where
    /// they were its own. Only the first call counts.
    pub(crate) fn replicate(
        &self,
        identified: Identified,
        carrier: Arc<dyn Carry>,
        generation: impl Fn(Partition) -> u32,
    ) {
        let replication = Replication {
            identified,
            carrier,
        };
        if self.replication.set(replication).is_ok() {
            let count = usize::from(PARTITIONS) / self.shards.len();
            for slot in &self.shards {
                let mut seat = slot.shard.lock();
                seat.shard.replicate(&generation);
                seat.replicas = (0..count).map(|_| None).collect();
            }
        }
    }

    /// The topology says this of a partition.
    pub(crate) fn look(&self, partition: Partition, view: View, now_ms: u64) {
        // One that was never here is told of nothing; what a recovery has found of it is.
        let is_nothing = {
            let seat = self.slot(partition).shard.lock();
            !seat.has_replica(self.place(partition)) && seat.items_of(partition) == 0
        };
        if is_nothing && !self.names_me(&view) {
            return;
        }
        self.drive(partition, now_ms, Input::View(view));
    }

    fn names_me(&self, view: &View) -> bool {
        let me = self
            .replication
            .get()
            .map(|replication| replication.identified.me);
        me.is_some_and(|me| view.placement.names(me))
    }

    /// Another replica of a partition says something.
    pub(crate) fn hear(
        &self,
        partition: Partition,
        (from, incarnation): (NodeId, Incarnation),
        message: MessageOf<Served>,
        now_ms: u64,
    ) {
        // One that was never placed here hears of its partition by the topology first.
        self.drive_known(
            partition,
            now_ms,
            Input::Message(from, incarnation, message),
        );
    }

    /// Asks for the memory of a replica that hears something soon.
    pub(crate) fn look_ahead_for_replica(&self, partition: Partition) {
        // Whoever holds the lock is reading there already.
        if let Some(seat) = self.slot(partition).shard.try_lock() {
            let replica = seat.replica(self.place(partition));
            drop(seat);
            replica.into_iter().for_each(prefetch_replica);
        }
    }

    /// It is the turn of a copy to a node.
    pub(crate) fn take_turn(&self, partition: Partition, to: NodeId, now_ms: u64) {
        self.drive_known(partition, now_ms, Input::Turn(to));
    }

    /// Whether a copy to a node is under way from here.
    pub(crate) fn is_copying(&self, partition: Partition, to: NodeId) -> bool {
        let seat = self.slot(partition).shard.lock();
        let seated = seat.replicas.get(self.place(partition));
        seated.is_some_and(|seated| {
            let seated = seated.as_ref();
            seated.is_some_and(|seated| seated.replica.is_copying(to))
        })
    }

    /// Nobody waits for a request any more.
    pub(crate) fn expire(&self, partition: Partition, id: RequestId, now_ms: u64) {
        self.drive_known(partition, now_ms, Input::Expired(id));
    }

    /// Too few have vouched for what a read has seen.
    pub(crate) fn unvouched(&self, partition: Partition, seen: Seen<()>, now_ms: u64) {
        self.drive_known(partition, now_ms, Input::Unvouched(seen));
    }

    /// All rounds of the log up to the present one are kept: replicas of a shard that have waited for that are told.
    pub(crate) fn keep_replicas(&self, shard: usize, now_ms: u64) {
        let slot = &self.shards[shard];
        if !slot.has_taken.swap(false, SeqCst) {
            return;
        }
        let kept = self.log.kept.load(Relaxed);
        let mut due = Vec::new();
        let mut seat = slot.shard.lock();
        while let Some((_, written)) = seat.taken.pop_front_if(|(round, _)| *round <= kept) {
            due.extend(written);
        }
        if !seat.taken.is_empty() {
            slot.has_taken.store(true, SeqCst);
        }
        drop(seat);
        for (partition, written) in due {
            self.drive(partition, now_ms, Input::Kept(written));
        }
    }

    /// Some time has passed for the replicas of a shard: this is the tick of that number. Those that were answered all that they have
    /// said before the last one go without.
    pub(crate) fn tick_replicas(&self, shard: usize, number: u64, now_ms: u64) {
        let count = self.shards.len();
        let partitions = (shard..usize::from(PARTITIONS)).step_by(count);
        let partitions =
            partitions.map(|number| Partition::new(number as u16).expect("it is one of them"));
        let due: Vec<Partition> = {
            let turn = self.turn(now_ms);
            let mut seat = self.shards[shard].shard.lock();
            let Seat {
                shard, replicas, ..
            } = &mut *seat;
            let mut is_due = |partition: &Partition| {
                let place = self.place(*partition);
                let Some(Some(seated)) = replicas.get_mut(place) else {
                    return false;
                };
                let table = PartitionTable::served(shard, *partition, turn);
                let course = seated.replica.course(&table);
                let before = std::mem::replace(&mut seated.course, course);
                let is_answered = course
                    .zip(before)
                    .is_some_and(|(now, before)| now.answers(&before));
                !is_answered || number % RARE_TICKS == place as u64 % RARE_TICKS
            };
            partitions.filter(&mut is_due).collect()
        };
        for partition in due {
            self.drive(partition, now_ms, Input::Tick);
        }
    }

    /// The partitions of a shard that this node leads.
    pub(crate) fn led(&self, shard: usize) -> Vec<Led> {
        let seat = self.shards[shard].shard.lock();
        let replicas = seat.replicas.iter().enumerate();
        let led = replicas.filter_map(|(place, own)| {
            let replica = &own.as_ref()?.replica;
            let base = replica.base()?;
            let number = place * self.shards.len() + shard;
            let partition = Partition::new(number as u16).expect("it is one of the shard's");
            Some(Led {
                partition,
                generation: replica.state().generation,
                base,
                progress: seat.shard.progress(partition),
                followed: replica.followed().collect(),
            })
        });
        led.collect()
    }

    /// Whether requests for a partition wait for other nodes, or for this one to lead it.
    pub(crate) fn asks_others(&self, partition: Partition) -> bool {
        let is_replicated = self.replication.get().is_some();
        let needs = |seat: &Seat| seat.has_machine(self.place(partition));
        is_replicated && needs(&self.slot(partition).shard.lock())
    }

    /// Of a partition that this node leads, the newest version that it has stamped, in its present term.
    pub(crate) fn stamped(&self, partition: Partition) -> Option<Version> {
        let seat = self.slot(partition).shard.lock();
        let leads = seat.leads(self.place(partition));
        leads.then(|| seat.progress(partition).last)
    }

    /// The newest version that a partition has here.
    pub(crate) fn newest(&self, partition: Partition) -> Version {
        self.slot(partition).shard.lock().progress(partition).last
    }

    /// Items of the partitions that this node leads and has opened, for a client as in [`Cache::size`], and which these are.
    pub(crate) fn size_of_led(&self) -> (u64, Vec<Partition>) {
        let mut items = 0;
        let led = Partition::all().filter(|&partition| {
            let seat = self.slot(partition).lock_to_show(&self.log);
            let place = self.place(partition);
            let is_open = || {
                let seated = seat.replicas.get(place).and_then(Option::as_ref);
                let last = seat.progress(partition).last;
                seated.is_some_and(|seated| seated.replica.followers_with(last).is_some())
            };
            let is_led = !seat.has_machine(place) || is_open();
            items += if is_led { seat.items_of(partition) } else { 0 };
            is_led
        });
        let led = led.collect();
        (items, led)
    }

    /// How many replicas of a partition beside this one are known to have what it has stamped up to a version; none where this node does
    /// not lead it.
    pub(crate) fn followers_with(&self, partition: Partition, version: Version) -> Option<usize> {
        let seat = self.slot(partition).shard.lock();
        let seated = seat.replicas.get(self.place(partition))?.as_ref()?;
        seated.replica.followers_with(version)
    }

    /// How many replicas are known to have all of these, this one with them: the fewest; none where nobody knows.
    pub(crate) fn replicas_with(&self, stamped: &[(Partition, Version)]) -> Option<usize> {
        let replicas = stamped
            .iter()
            .map(|&(partition, version)| self.followers_with(partition, version));
        let fewest = replicas.collect::<Option<Vec<_>>>()?.into_iter().min();
        fewest.map(|others| others + 1)
    }

    /// Where a partition stands in its shard.
    #[inline]
    pub(super) fn place(&self, partition: Partition) -> usize {
        usize::from(partition.number()) >> self.shards.len().trailing_zeros()
    }

    /// Tells a machine something, and carries what it says. Room that it lacked is lent, so that it is there next time.
    fn drive(&self, partition: Partition, now_ms: u64, input: Input<'_, Served>) {
        let seat = self.slot(partition).lock(&self.log);
        self.drive_locked(seat, partition, now_ms, input);
    }

    /// The same, if there is a machine.
    fn drive_known(&self, partition: Partition, now_ms: u64, input: Input<'_, Served>) {
        let seat = self.slot(partition).lock(&self.log);
        if seat.has_replica(self.place(partition)) {
            self.drive_locked(seat, partition, now_ms, input);
        }
    }

    fn drive_locked(
        &self,
        mut seat: MutexGuard<'_, Seat>,
        partition: Partition,
        now_ms: u64,
        input: Input<'_, Served>,
    ) {
        let Some(replication) = self.replication.get() else {
            return;
        };
        // A follower that lacks room drops its own: what it cannot take is lost to it, and comes again.
        let turn = Turn {
            fair: Room::default(),
            ..self.turn(now_ms)
        };
        let done = self.handle(&mut seat, replication, partition, turn, input);
        self.slot(partition).note_for_replicas(&seat);
        drop(seat);
        self.pool.overdraw(done.overdrawn);
        if let Some(Short(wanted)) = done.short {
            self.lend_to(self.shard_of(partition), wanted);
        }
    }

    /// The machine's part of a call, under the lock.
    fn handle(
        &self,
        seat: &mut Seat,
        replication: &Replication,
        partition: Partition,
        turn: Turn<'_>,
        input: Input<'_, Served>,
    ) -> Handled {
        let place = self.place(partition);
        let Seat {
            shard,
            replicas,
            journalled,
            ..
        } = seat;
        // Most of what a machine is told has nothing written: what was before would be counted, and asked of the log, with each.
        shard.begin_call();
        let now_ms = turn.now_ms;
        let own = match &input {
            Input::Request(id, ..) => Some(*id),
            _ => None,
        };
        let mut handled = Handled::default();
        let Some(seated) = replicas.get_mut(place) else {
            return handled;
        };
        // What a recovery has found, where the machine is new.
        let state = if seated.is_none() {
            State::from(&shard.recovered(partition).state)
        } else {
            State::default()
        };
        let mut table = PartitionTable::served(shard, partition, turn);
        let seated = seated.get_or_insert_with(|| {
            let progress = henge_cluster::replica::Table::progress(&table);
            let Identified {
                me,
                incarnation,
                has_log,
            } = replication.identified;
            let mut replica = Replica::new(me, incarnation, state, progress)
                .with_vouching()
                .with_queue();
            if !has_log {
                replica = replica.without_log();
            }
            let noted = replica.written(&table);
            Box::new(Seated {
                replica,
                noted,
                course: None,
            })
        });
        OUTPUTS.with_borrow_mut(|outputs| {
            let replica = &mut seated.replica;
            let adopted = replica.state().adopted;
            replica.handle_into(&mut table, now_ms, input, outputs);
            if replica.state().adopted != adopted {
                replication.carrier.adopted();
            }
            let mut unvouched = None;
            for output in outputs.drain(..) {
                match output {
                    Output::Vouch(vouch) => unvouched = replication.carrier.wait(partition, vouch),
                    // Who asks hears it from here: room may be had.
                    Output::Answer(id, Answer::NoRoom) if own == Some(id) => {
                        handled.had_no_room = true;
                    }
                    output => replication.carrier.carry(partition, output),
                }
            }
            if let Some(seen) = unvouched {
                let input = Input::Unvouched(seen);
                replica.handle_into(&mut table, now_ms, input, outputs);
                for output in outputs.drain(..) {
                    replication.carrier.carry(partition, output);
                }
            }
        });
        if replication.identified.has_log {
            let written = seated.replica.written(&table);
            if written != seated.noted {
                seated.noted = written;
                match journalled.iter_mut().rfind(|(of, _)| *of == partition) {
                    Some((_, newest)) => *newest = written,
                    None => journalled.push((partition, written)),
                }
            }
        }
        handled.short = table.short();
        handled.overdrawn = table.overdrawn();
        handled
    }

    /// Has a machine run a command. What it comes to is shown as it runs; whether it may be told is another answer, which the carrier
    /// gets. One that was not run is shown as refused.
    #[inline(never)]
    pub(super) fn ask_command<R>(
        &self,
        at: Location,
        command: &Command<'_>,
        now_ms: u64,
        answer: impl FnOnce(Reply<'_>) -> R,
    ) -> R {
        let Location { partition, hash } = at;
        let once = Once::new(|shown: Shown<'_>| match shown {
            Shown::Reply(reply) => answer(reply),
            Shown::Outcome(_) | Shown::Looked => unreachable!("a command has a reply"),
        });
        let refusal = self.ask(partition, Request::Command(command, hash), &once, now_ms);
        once.take_or(Shown::Reply(Reply::Refused(refusal)))
    }

    /// The same for a transaction.
    pub(super) fn ask_transaction(
        &self,
        partition: Partition,
        transaction: &Transaction<'_>,
        now_ms: u64,
    ) -> Outcome {
        let once = Once::new(|shown: Shown<'_>| match shown {
            Shown::Outcome(outcome) => outcome,
            Shown::Reply(_) | Shown::Looked => unreachable!("a transaction has an outcome"),
        });
        let refusal = self.ask(partition, Request::Transaction(transaction), &once, now_ms);
        once.take_or(Shown::Outcome(Outcome::Refused(refusal)))
    }

    /// Whether this thread reads for somebody who takes what any replica has.
    pub(super) fn reads_at_one(&self) -> bool {
        let replication = self.replication.get();
        replication.is_some_and(|replication| replication.carrier.level() == Level::One)
    }

    /// The term in which this node has a partition, which it leads where there are others; none where another one leads. It is a call
    /// of this thread, which may be told once all that is there is committed and nobody else leads, if that is its level.
    pub(crate) fn led_in(&self, partition: Partition, now_ms: u64) -> Option<u32> {
        let term = |shard: &Shard| shard.progress(partition).last.term();
        self.look_at(partition, now_ms, term)
    }

    /// Looks at a partition to show what it has: none of one that another node leads.
    pub(super) fn look_at<R>(
        &self,
        partition: Partition,
        now_ms: u64,
        look: impl FnOnce(&Shard) -> R,
    ) -> Option<R> {
        let seat = self.slot(partition).lock_to_show(&self.log);
        if !seat.has_machine(self.place(partition)) {
            return Some(look(&seat));
        }
        let is_led = seat.leads(self.place(partition));
        drop(seat);
        if !is_led {
            return None;
        }
        let looks = Looks(Cell::new(Some(look)), Cell::new(None));
        let nobody = Once::new(|_: Shown<'_>| ());
        let _ = self.ask(partition, Request::Look(&looks), &nobody, now_ms);
        looks.1.into_inner()
    }

    /// Why it was refused, if nothing was shown.
    fn ask(
        &self,
        partition: Partition,
        request: Request<'_>,
        show: &dyn Show,
        now_ms: u64,
    ) -> Refusal {
        let Some(replication) = self.replication.get() else {
            return Refusal::NotOpen;
        };
        let is_write = match &request {
            Request::Command(command, _) => command.operation.is_write(),
            Request::Transaction(transaction) => !transaction.effects.is_empty(),
            Request::Look(_) => false,
        };
        let (id, level) = replication.carrier.begin(partition, is_write);
        let mut turn = self.turn(now_ms);
        let slot = self.slot(partition);
        for round in 0..=LENDING_ROUNDS + 1 {
            let mut seat = slot.lock(&self.log);
            let seated = seat.replicas.get(self.place(partition));
            if seated.is_none_or(Option::is_none) {
                drop(seat);
                let answer = Output::Answer(id, Answer::NotStamped);
                replication.carrier.carry(partition, answer);
                return Refusal::NotOpen;
            }
            let asked = Asked { request, show };
            let input = Input::Request(id, level, asked);
            let done = self.handle(&mut seat, replication, partition, turn, input);
            slot.note_for_replicas(&seat);
            let is_counted = is_write && level == Level::All && !done.had_no_room;
            if is_counted && seat.leads(self.place(partition)) {
                replication
                    .carrier
                    .stamped(id, seat.progress(partition).last);
            }
            drop(seat);
            if !done.had_no_room {
                // It has run, or the carrier was told that it has not.
                return Refusal::NotOpen;
            }
            let Some(Short(wanted)) = done.short else {
                break;
            };
            if !self.lend_to(self.shard_of(partition), wanted) || round == LENDING_ROUNDS {
                turn.fair = Room::default();
            }
        }
        // That nothing was done rests on nothing.
        let answer = Output::Answer(id, Answer::Reply(()));
        replication.carrier.carry(partition, answer);
        Refusal::MemoryFull
    }
}
