//! What a connection must notice beside its own traffic: that its client is too slow, and that the node drains. One timer
//! a connection, which is not touched on the way of a request.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::{Duration, Instant};

use tokio::sync::futures::Notified;
use tokio::time::Sleep;

use super::data_thread::Local;
use super::pace::{Late, Pace};

/// How long an idle connection is kept once draining has begun, so that a request already on its way is answered, with
/// `connection: close`, and how long what other nodes have asked has to be answered. A round trip across a continent; a stop takes
/// that much longer.
pub(crate) const DRAIN_GRACE: Duration = Duration::from_millis(100);

/// What a look around found.
pub(crate) enum Seen {
    Nothing,
    /// Draining has begun, and an idle connection need not be kept any longer.
    GraceOver,
    Late(Late),
}

/// Looks at what a connection must notice beside its own traffic. The task is woken for that by futures that were polled
/// once; every wake-up for a request then costs a look at two flags, where `select!` would poll both futures again.
pub(crate) struct Watch<'a> {
    pace: &'a Pace,
    local: &'a Local,
    timer: Pin<Box<Sleep>>,
    drain: Pin<Box<Notified<'a>>>,
    timer_is_set: bool,
    /// Draining was seen to have begun.
    is_draining: bool,
    /// Until when the connection is kept though idle; only while draining, and until that has passed.
    grace: Option<Instant>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(pace: &'a Pace, local: &'a Local) -> Self {
        let now = Instant::now();
        let first = pace.check(now).unwrap_or(now);
        Self {
            pace,
            local,
            timer: Box::pin(tokio::time::sleep_until(first.into())),
            drain: Box::pin(local.drain()),
            timer_is_set: false,
            is_draining: false,
            grace: None,
        }
    }

    /// Must be called each time that the task is woken and does not end.
    #[inline]
    pub(crate) fn look(&mut self, cx: &mut Context<'_>) -> Seen {
        if self.timer_is_set
            && !self.timer.is_elapsed()
            && self.is_draining == self.local.is_draining()
        {
            return Seen::Nothing;
        }
        self.look_closely(cx)
    }

    #[cold]
    fn look_closely(&mut self, cx: &mut Context<'_>) -> Seen {
        if !self.is_draining {
            let begun = self.drain.as_mut().poll(cx).is_ready() || self.local.is_draining();
            if begun {
                self.is_draining = true;
                let until = Instant::now() + DRAIN_GRACE;
                self.grace = Some(until);
                self.timer.as_mut().reset(until.into());
            }
        }
        let mut is_grace_over = false;
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            is_grace_over |= self.grace.take_if(|until| *until <= now).is_some();
            // What was changed meanwhile holds from now on.
            self.pace
                .set_patience(self.local.shared.live.load().patience);
            match self.pace.check(now) {
                Ok(next) => {
                    let next = self.grace.map_or(next, |until| next.min(until));
                    self.timer.as_mut().reset(next.into());
                }
                Err(late) => return Seen::Late(late),
            }
        }
        self.timer_is_set = true;
        // Only with the timer set: who is told goes on, and its client may be late yet.
        if is_grace_over {
            Seen::GraceOver
        } else {
            Seen::Nothing
        }
    }
}
