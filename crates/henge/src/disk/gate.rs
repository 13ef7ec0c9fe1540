//! Where the connections of a data thread wait until what they are to show is in the log. It counts nothing and writes
//! nothing: it asks the log for a round once per turn of the thread, and wakes who waits when one is done.
//!
//! A call into the cache notes for its thread that it showed, or made, what is not in the log yet. Whoever ran calls takes
//! that note before anything else runs on the thread, and holds its answer until the round is done.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::log::{Log, NotKept};
use crate::net::inflight::InFlight;

thread_local! {
    static UNKEPT: Cell<bool> = const { Cell::new(false) };
    static JOURNALLED_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// The calls of this thread showed, or made, what is not in the log yet.
#[inline]
pub(crate) fn note_unkept() {
    UNKEPT.set(true);
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

/// A round of the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Round(u64);

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Gate {
    log: Option<Arc<Log>>,
    in_flight: Arc<InFlight>,
    /// Which bell of the log is this thread's.
    thread: usize,
    waiting: RefCell<Vec<Waker>>,
    /// Counts how often all that waited were woken.
    woken: Cell<u64>,
    /// Somebody has begun to wait in this turn.
    is_asked: Cell<bool>,
    keeper: RefCell<Option<Waker>>,
}

impl Gate {
    pub(crate) fn new(log: Option<Arc<Log>>, in_flight: Arc<InFlight>, thread: usize) -> Self {
        Self {
            log,
            in_flight,
            thread,
            waiting: RefCell::default(),
            woken: Cell::new(1),
            is_asked: Cell::new(false),
            keeper: RefCell::default(),
        }
    }

    /// The round that has what the calls since the last time need, if they need any. To be asked right after them. What they
    /// wrote to the journals counts as in flight from here on, until it is written.
    #[inline]
    pub(crate) fn take_unkept(&self) -> Option<Round> {
        if !UNKEPT.replace(false) {
            return None;
        }
        let bytes = JOURNALLED_BYTES.replace(0);
        let log = self.log.as_ref()?;
        let round = log.next_round();
        if let Some(mut hold) = self.in_flight.hold_for(bytes) {
            // It is there, whether there is room for it or not.
            hold.set_anyway(bytes);
            log.hold(round, hold);
        }
        Some(Round(round))
    }

    /// Waits for a round. `place` is the caller's in the crowd, so that it is there once however often it is polled; it is 0
    /// before and after.
    pub(crate) fn poll_kept(
        &self,
        round: Round,
        place: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), NotKept>> {
        let Some(log) = &self.log else {
            return Poll::Ready(Ok(()));
        };
        if let Some(outcome) = log.outcome(round.0) {
            *place = 0;
            return Poll::Ready(outcome);
        }
        if *place == self.woken.get() {
            return Poll::Pending;
        }
        if *place == 0 {
            log.note_waiting(self.thread, round.0);
        }
        *place = self.woken.get();
        self.waiting.borrow_mut().push(cx.waker().clone());
        if !self.is_asked.replace(true)
            && let Some(keeper) = &*self.keeper.borrow()
        {
            keeper.wake_by_ref();
        }
        Poll::Pending
    }

    /// Keeps the gate for as long as it is polled: a task of its own, so that it runs after those that were ready before it,
    /// and the log is asked once for all of them.
    pub(crate) async fn keep(&self) {
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
            if !self.waiting.borrow().is_empty() {
                // Before the look: what is done from here on rings.
                log.await_bell(self.thread);
                let now = log.outcomes();
                if now != done {
                    done = now;
                    // Who is not done waits again.
                    self.woken.set(self.woken.get() + 1);
                    self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
                }
            }
            Poll::<()>::Pending
        })
        .await;
    }
}
