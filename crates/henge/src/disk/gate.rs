//! Where the connections of a data thread wait until what they are to show is in the log. It counts nothing and writes
//! nothing: it asks the log for a round once per turn of the thread, and wakes who waits when one is done.
//!
//! A call into the cache notes for its thread that it showed, or made, what is not in the log yet. Whoever ran calls takes
//! that note before anything else runs on the thread, and holds its answer until the round is done.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use henge_wire::{Partition, Version};

use super::log::{Log, NotKept};
use crate::cluster::replicas::told::{self, Bad, Inboxes, Sorted, Ticket, Verdict};
use crate::net::inflight::{InFlight, UNCOUNTED_BYTES};
use crate::traces::Waits;

thread_local! {
    static UNKEPT: Cell<bool> = const { Cell::new(false) };
    static IS_FOR_REPLICAS: Cell<bool> = const { Cell::new(false) };
    static JOURNALLED_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// The calls of this thread showed, or made, what is not in the log yet.
#[inline]
pub(crate) fn note_unkept() {
    UNKEPT.set(true);
}

/// Machines of replicas have written: they say themselves when that may be told, and wait for the log.
#[inline]
pub(crate) fn note_for_replicas() {
    IS_FOR_REPLICAS.set(true);
}

/// The calls of this thread wrote so much more to the journals.
#[inline]
pub(crate) fn note_journalled(bytes: usize) {
    JOURNALLED_BYTES.set(JOURNALLED_BYTES.get().saturating_add(bytes));
}

/// What the calls of this thread have written to the journals since the note of it was taken.
#[inline]
pub(crate) fn journalled_bytes() -> usize {
    JOURNALLED_BYTES.get()
}

/// Makes calls on a thread that has no gate, and counts what they wrote to the journals. Where machines of replicas have written, the
/// log is asked for a round, as nobody else may have a reason to.
pub(crate) fn without_gate<R>(
    log: Option<&Arc<Log>>,
    in_flight: &Arc<InFlight>,
    calls: impl FnOnce() -> R,
) -> R {
    let made = calls();
    // Whoever waits for them has it noted on its own thread.
    UNKEPT.set(false);
    let bytes = JOURNALLED_BYTES.replace(0);
    if let Some(log) = log {
        log.count(log.next_round(), bytes, in_flight);
        if IS_FOR_REPLICAS.replace(false) {
            log.ask();
        }
    }
    made
}

/// What has to be there before an answer may be told: a round of the log, and the verdicts of replicas.
#[derive(Default, Debug)]
pub(crate) struct Owed {
    round: u64,
    tickets: Vec<Ticket>,
    /// Spans of the traces that wait for it.
    waits: Waits,
}

impl Owed {
    /// Whether replicas have to say something.
    pub(crate) fn has_tickets(&self) -> bool {
        !self.tickets.is_empty()
    }

    /// Until when replicas are waited for; none where they are not.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.tickets.iter().filter_map(Ticket::deadline).min()
    }

    /// Replicas are not waited for longer than until this moment.
    pub(crate) fn end_by(&self, deadline: Instant) {
        self.tickets
            .iter()
            .for_each(|ticket| ticket.end_by(deadline));
    }

    /// What was written at ALL for a reply of which nobody knows what becomes; none where it is not known what that is.
    pub(crate) fn unknown(&self, reply: u32) -> Option<Vec<(Partition, Version)>> {
        let tickets = self.tickets.iter().map(|ticket| ticket.unknown(reply));
        let unknown: Vec<Vec<_>> = tickets.collect::<Option<_>>()?;
        Some(unknown.concat())
    }

    /// What is owed, and what another batch of calls needs.
    pub(crate) fn add(owed: &mut Option<Self>, more: Option<Self>) {
        let Some(more) = more else { return };
        let all = owed.get_or_insert_default();
        all.round = all.round.max(more.round);
        all.tickets.extend(more.tickets);
        all.waits.add(more.waits);
    }
}

/// Why an answer may not be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Untold {
    /// The log has failed.
    NotKept,
    /// Replicas have not said in time that they have it, or another leads them now: which replies of the batch that is of.
    Replies(Vec<(u32, Bad)>),
}

impl Untold {
    /// Of an answer that is one, whatever of it may not be told.
    pub(crate) fn worst(&self) -> Bad {
        match self {
            Self::NotKept => Bad::Unknown,
            Self::Replies(replies) => {
                let worst = replies.iter().map(|(_, bad)| *bad).max();
                worst.unwrap_or(Bad::NotDone)
            }
        }
    }
}

/// A caller's place among those that wait, so that it is there once however often it is polled. Whoever goes away leaves it.
#[derive(Debug, Default)]
pub(crate) struct Place(Option<Waiting>);

#[derive(Debug)]
struct Waiting {
    crowd: Rc<RefCell<Crowd>>,
    /// When it was taken, and which one.
    woken: u64,
    index: usize,
}

impl Place {
    fn leave(&mut self) {
        if let Some(Waiting {
            crowd,
            woken,
            index,
        }) = self.0.take()
        {
            let left = crowd.borrow_mut().leave(woken, index);
            // Only now, as what it wakes may be gone with it and have a place as well.
            drop(left);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Who waits. A waker keeps the memory of a connection's task, so there are no more of them than wait.
#[derive(Debug, Default)]
struct Crowd {
    /// Counts how often all that waited were woken.
    woken: u64,
    places: Vec<Option<Waker>>,
    /// Places that were left.
    free: Vec<usize>,
}

impl Crowd {
    fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }

    fn join(&mut self, waker: Waker) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[index] = Some(waker);
        index
    }

    fn leave(&mut self, woken: u64, index: usize) -> Option<Waker> {
        // Else all have left that place.
        let left = (woken == self.woken).then(|| self.places[index].take())?;
        self.free.push(index);
        left
    }

    /// All leave, to be woken.
    fn disperse(&mut self) -> Vec<Option<Waker>> {
        self.woken += 1;
        self.free.clear();
        std::mem::take(&mut self.places)
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Gate {
    log: Option<Arc<Log>>,
    /// Where verdicts of replicas come from.
    replicas: Arc<Inboxes>,
    in_flight: Arc<InFlight>,
    /// Which bell of the log is this thread's.
    thread: usize,
    crowd: Rc<RefCell<Crowd>>,
    /// What the calls of this thread have written for a round and is not counted in `in_flight`: up to as much as never is.
    uncounted: Cell<(u64, usize)>,
    /// Somebody has begun to wait in this turn.
    is_asked: Cell<bool>,
    keeper: RefCell<Option<Waker>>,
}

impl Gate {
    pub(crate) fn new(
        log: Option<Arc<Log>>,
        replicas: Arc<Inboxes>,
        in_flight: Arc<InFlight>,
        thread: usize,
    ) -> Self {
        Self {
            log,
            replicas,
            in_flight,
            thread,
            crowd: Rc::default(),
            uncounted: Cell::default(),
            is_asked: Cell::new(false),
            keeper: RefCell::default(),
        }
    }

    /// What the calls since the last time need, if they need anything. To be asked right after them. What they wrote to the
    /// journals counts as in flight from here on, until it is written.
    #[inline]
    pub(crate) fn take_owed(&self) -> Option<Owed> {
        let round = self.take_unkept();
        let mut ticket = None;
        if self.replicas.are_used() {
            self.ask_for_replicas();
            ticket = told::take_ticket();
        }
        if round.is_none() && ticket.is_none() {
            Waits::none();
            return None;
        }
        Some(Owed {
            round: round.unwrap_or(0),
            tickets: ticket.into_iter().collect(),
            waits: Waits::begin(),
        })
    }

    #[inline]
    fn take_unkept(&self) -> Option<u64> {
        UNKEPT.replace(false).then_some(())?;
        self.take_journalled()
    }

    /// The round that will have what was journalled.
    fn take_journalled(&self) -> Option<u64> {
        let mut bytes = JOURNALLED_BYTES.replace(0);
        let log = self.log.as_ref()?;
        let round = log.next_round();
        let (before, uncounted) = self.uncounted.get();
        // What is left of the round before is too little to be counted, and one before that is done.
        if before == round {
            bytes += uncounted;
        }
        if bytes > UNCOUNTED_BYTES {
            log.count(round, bytes, &self.in_flight);
            bytes = 0;
        }
        self.uncounted.set((round, bytes));
        Some(round)
    }

    /// Where machines have written, the log is to have it soon, whoever waits.
    pub(crate) fn ask_for_replicas(&self) {
        if IS_FOR_REPLICAS.replace(false)
            && let Some(round) = self.take_journalled()
            && let Some(log) = &self.log
        {
            log.note_waiting(self.thread, round);
            self.ask_soon();
        }
    }

    /// There are replicas from now on, which are to hear of each round, whoever has asked for it.
    pub(crate) fn begin_to_hear(&self) {
        self.wake_keeper();
    }

    /// Has the log asked once for all that has run in this turn.
    fn ask_soon(&self) {
        if !self.is_asked.replace(true) {
            self.wake_keeper();
        }
    }

    fn wake_keeper(&self) {
        if let Some(keeper) = &*self.keeper.borrow() {
            keeper.wake_by_ref();
        }
    }

    /// Waits for what is owed.
    pub(crate) fn poll_owed(
        &self,
        owed: &mut Owed,
        place: &mut Place,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Untold>> {
        let told = ready!(self.poll_told(owed, place, cx));
        owed.waits.end(told.as_ref().err());
        Poll::Ready(told)
    }

    fn poll_told(
        &self,
        owed: &mut Owed,
        place: &mut Place,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Untold>> {
        if owed.round > 0 {
            if ready!(self.poll_kept(owed.round, place, cx)).is_err() {
                return Poll::Ready(Err(Untold::NotKept));
            }
            owed.round = 0;
        }
        if !owed.tickets.is_empty() {
            self.replicas.collect(self.thread);
            let mut worst = Verdict::Told;
            for ticket in &owed.tickets {
                match ticket.verdict(cx.waker()) {
                    None => return Poll::Pending,
                    Some(verdict) => worst = worst.max(verdict),
                }
            }
            if worst != Verdict::Told {
                let mut sorted = Sorted::default();
                for ticket in &owed.tickets {
                    ticket.sort(&mut sorted);
                }
                return Poll::Ready(Err(Untold::Replies(sorted.untold())));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for a round.
    fn poll_kept(
        &self,
        round: u64,
        place: &mut Place,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), NotKept>> {
        let Some(log) = &self.log else {
            return Poll::Ready(Ok(()));
        };
        if let Some(outcome) = log.outcome(round) {
            place.leave();
            return Poll::Ready(outcome);
        }
        let mut crowd = self.crowd.borrow_mut();
        match &mut place.0 {
            Some(waiting) if waiting.woken == crowd.woken => return Poll::Pending,
            Some(waiting) => {
                waiting.woken = crowd.woken;
                waiting.index = crowd.join(cx.waker().clone());
            }
            none => {
                log.note_waiting(self.thread, round);
                *none = Some(Waiting {
                    crowd: Rc::clone(&self.crowd),
                    woken: crowd.woken,
                    index: crowd.join(cx.waker().clone()),
                });
            }
        }
        drop(crowd);
        self.ask_soon();
        Poll::Pending
    }

    /// Keeps the gate for as long as it is polled: a task of its own, so that it runs after those that were ready before it,
    /// and the log is asked once for all of them.
    pub(crate) async fn keep(&self, mut rounds_are_done: impl FnMut()) {
        let Some(log) = &self.log else {
            return;
        };
        let mut done = log.outcomes();
        poll_fn(|cx| {
            if self.keeper.borrow().is_none() {
                *self.keeper.borrow_mut() = Some(cx.waker().clone());
                log.register(self.thread, cx.waker());
            }
            if self.is_asked.replace(false) {
                log.ask();
            }
            if self.replicas.are_used() || !self.crowd.borrow().is_empty() {
                // Before the look: what is done from here on rings.
                log.await_bell(self.thread);
                let now = log.outcomes();
                if now != done {
                    done = now;
                    rounds_are_done();
                    // Who is not done waits again.
                    let mut woken = self.crowd.borrow_mut().disperse();
                    woken.drain(..).flatten().for_each(Waker::wake);
                    let places = &mut self.crowd.borrow_mut().places;
                    if places.is_empty() {
                        // For its memory.
                        *places = woken;
                    }
                }
            }
            Poll::<()>::Pending
        })
        .await;
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let crowd = self.crowd.borrow();
        crowd.places.len() - crowd.free.len()
    }
}
