//! What a data thread has at hand of the tokens of each who asks on it: taken from the shared buckets in advance, so that most
//! requests touch nothing that another thread touches. What was asked for may be spent before it is known how much it is, a reply
//! say, so there may be less than nothing at hand; then all waits until that is made good.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::bucket::{Buckets, IN_ADVANCE, Subject};
use super::{Limit, RateLimits, TOKEN_BYTES};

/// How often a thread looks for those who ask no longer. What it has at hand of them is lost, which is no more than their buckets
/// fill with meanwhile.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What is at hand of one kind: requests, or bytes.
#[derive(Debug)]
pub(super) struct Balance {
    /// How much one token is.
    of_token: u32,
    at_hand: Cell<i64>,
    /// What the bucket had left when tokens were last taken from it.
    left: Cell<u32>,
    /// Since the bucket was last found empty.
    empty: Cell<Option<Empty>>,
}

/// A bucket that was found empty.
#[derive(Clone, Copy, Debug)]
struct Empty {
    /// When that was.
    at: Instant,
    /// When it has another token.
    next: Instant,
    /// When what is owed can be made good, and there is another token.
    until: Instant,
}

impl Balance {
    fn of(of_token: u32) -> Self {
        Self {
            of_token,
            at_hand: Cell::new(0),
            left: Cell::new(u32::MAX),
            empty: Cell::new(None),
        }
    }

    /// Has so much at hand, or as much of it as there is. Says how much is.
    #[inline]
    pub(super) fn have(
        &self,
        wanted: i64,
        buckets: &Buckets,
        subject: &Subject,
        now: Instant,
    ) -> i64 {
        if self.at_hand.get() < wanted {
            self.take(wanted, buckets, subject, now);
        }
        self.at_hand.get()
    }

    #[cold]
    fn take(&self, wanted: i64, buckets: &Buckets, subject: &Subject, now: Instant) {
        let empty = self.empty.get();
        let is_empty = empty.is_some_and(|empty| now < empty.next);
        if is_empty && self.at_hand.get() <= 0 {
            return;
        }
        self.empty.set(None);
        let unit = i64::from(self.of_token);
        loop {
            let missing = wanted - self.at_hand.get();
            if missing <= 0 {
                return;
            }
            let missing = missing.unsigned_abs().div_ceil(unit.unsigned_abs());
            let missing = u32::try_from(missing).unwrap_or(u32::MAX);
            match buckets.take(subject, missing, now) {
                Ok(taken) => {
                    let mut tokens = i64::from(taken.tokens);
                    if missing > taken.tokens
                        && taken.tokens == buckets.room()
                        && let Some(Empty { at, .. }) = empty
                    {
                        // It was full, as nobody has taken anything while this waited: what has run over makes good what is owed.
                        let came = buckets.filled_in(now.saturating_duration_since(at));
                        let owed = -self.at_hand.get().min(0) / unit;
                        tokens = tokens.max(came.min(owed + tokens));
                    }
                    self.at_hand.set(self.at_hand.get() + tokens * unit);
                    self.left.set(taken.left);
                }
                Err(wait) => {
                    self.left.set(0);
                    // What is owed has to be made good first.
                    let owed = u32::try_from(-self.at_hand.get().min(0) / unit).unwrap_or(u32::MAX);
                    let next = now + wait;
                    let made_good = next.checked_add(buckets.interval().saturating_mul(owed));
                    self.empty.set(Some(Empty {
                        at: now,
                        next,
                        until: made_good.unwrap_or(next),
                    }));
                    return;
                }
            }
        }
    }

    /// Spends so much, whether it is there or not.
    #[inline]
    pub(super) fn spend(&self, amount: u64) {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        self.at_hand.set(self.at_hand.get().saturating_sub(amount));
    }

    /// How long it takes until there is more than was had last.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let until = self.empty.get().map(|empty| empty.until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// How much may be had at once, as far as this thread knows; `room` is what a bucket holds.
    pub(super) fn known(&self, room: u32) -> u64 {
        let left = u64::from(self.left.get().min(room)) * u64::from(self.of_token);
        left.saturating_add_signed(self.at_hand.get())
            .min(u64::from(room) * u64::from(self.of_token))
    }
}

/// What a thread has at hand of one who asks.
#[derive(Debug)]
pub(super) struct Allowance {
    pub(super) subject: Subject,
    pub(super) requests: Balance,
    pub(super) bytes: Balance,
    /// When somebody last had a use for it.
    used: Cell<Instant>,
}

impl Allowance {
    fn new(subject: Subject, now: Instant) -> Self {
        Self {
            subject,
            requests: Balance::of(1),
            bytes: Balance::of(TOKEN_BYTES),
            used: Cell::new(now),
        }
    }

    /// Whether more was spent than there was, and cannot be made good yet.
    fn owes(&self, limit: &Limit, now: Instant) -> bool {
        let owes = |balance: &Balance, buckets: &Option<Buckets>| match buckets {
            Some(buckets) if balance.at_hand.get() < 0 => {
                balance.have(0, buckets, &self.subject, now) < 0
            }
            _ => false,
        };
        owes(&self.requests, &limit.requests) | owes(&self.bytes, &limit.bytes)
    }
}

/// The allowances of one thread.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    known: RefCell<HashMap<Subject, Rc<Allowance>>>,
    /// Of which limits they are.
    generation: Cell<u64>,
    swept: Cell<Option<Instant>>,
}

impl Allowances {
    /// That of one who asks.
    pub(super) fn of(&self, limits: &RateLimits, subject: &Subject, now: Instant) -> Rc<Allowance> {
        self.sweep(limits, now);
        let mut known = self.known.borrow_mut();
        let new = || Rc::new(Allowance::new(subject.clone(), now));
        let allowance = known.entry(subject.clone()).or_insert_with(new);
        allowance.used.set(now);
        Rc::clone(allowance)
    }

    /// Forgets those that no connection has, that were not used lately, and that owe nothing.
    fn sweep(&self, limits: &RateLimits, now: Instant) {
        let is_due = |swept: Instant| now.saturating_duration_since(swept) >= SWEEP_EVERY;
        if !self.swept.get().is_none_or(is_due) {
            return;
        }
        self.swept.set(Some(now));
        self.known.borrow_mut().retain(|subject, allowance| {
            if Rc::strong_count(allowance) > 1 {
                allowance.used.set(now);
                return true;
            }
            let limit = limits.of_subject(subject);
            // What is lost with it has come again by then.
            now.saturating_duration_since(allowance.used.get()) < limits.burst / IN_ADVANCE
                || limit.is_some_and(|limit| allowance.owes(limit, now))
        });
    }

    /// Forgets those of other limits than these.
    pub(super) fn hold_for(&self, generation: u64) {
        if self.generation.replace(generation) != generation {
            self.known.borrow_mut().clear();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.borrow().len()
    }
}
