//! A reply that is written in its own time, with what was copied for it. All of it counts against the bytes in flight while
//! it grows, so that replies which many connections build at once stay within the bound together. It sends nothing: once
//! the reply is whole its connection counts what waits to be sent.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use henge_wire::resp::writer::{Output, Protocol, Writer};

use super::call::ErrorReply;
use crate::net::inflight::{Hold, InFlight};

/// Writes a reply as a [`Writer`] does. Who writes a reply in pieces has each counted by [`Counted::account`].
#[derive(Debug)]
pub(crate) struct Counted<'a> {
    out: Writer<'a>,
    in_flight: &'a Arc<InFlight>,
    /// None as long as all of it is too little to be counted.
    hold: Option<Hold<'static>>,
    /// Bytes that were copied from the request.
    copied: usize,
}

impl Counted<'_> {
    /// Where it is counted.
    pub(crate) fn in_flight(&self) -> &Arc<InFlight> {
        self.in_flight
    }

    /// Counts what was written so far. An error if that is past the bound: the reply is lost then.
    pub(crate) fn account(&mut self) -> Result<(), ErrorReply> {
        self.account_with(0)
    }

    /// The same, with so many bytes that are there beside the reply just now.
    pub(crate) fn account_with(&mut self, beside: usize) -> Result<(), ErrorReply> {
        let written = self.out.output().len();
        let beside = beside.saturating_add(self.copied);
        let all = written.saturating_add(beside);
        if self.hold.is_none() {
            self.hold = self.in_flight.hold_for(all);
        }
        let is_held = self.hold.as_mut().is_none_or(|hold| hold.set(all));
        match is_held && !self.out.output().is_over_budget() {
            true => Ok(()),
            false if written >= beside => Err(ErrorReply::REPLY_TOO_LONG),
            false => Err(ErrorReply::IN_FLIGHT),
        }
    }
}

impl<'a> Deref for Counted<'a> {
    type Target = Writer<'a>;

    fn deref(&self) -> &Self::Target {
        &self.out
    }
}

impl DerefMut for Counted<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.out
    }
}

/// The reply that `write` writes, for which so many bytes of the request were copied. They are held until it is whole.
pub(crate) async fn counted(
    in_flight: &Arc<InFlight>,
    protocol: Protocol,
    copied: usize,
    write: impl AsyncFnOnce(&mut Counted<'_>) -> Result<(), ErrorReply>,
) -> Result<Output, ErrorReply> {
    let mut out = Output::default();
    let mut counted = Counted {
        out: Writer::new(&mut out, protocol),
        in_flight,
        hold: None,
        copied,
    };
    counted.account()?;
    // One piece alone may be past the bound: it is not even written.
    counted.output().set_budget(in_flight.left());
    write(&mut counted).await?;
    // What was asked is done by now, and is not to be told otherwise for want of room for a line.
    if counted.output().is_over_budget() {
        return Err(ErrorReply::REPLY_TOO_LONG);
    }
    drop(counted);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    const PIECE: usize = 100_000;

    async fn pieces(
        in_flight: &Arc<InFlight>,
        copied: usize,
        count: usize,
    ) -> Result<Output, ErrorReply> {
        counted(in_flight, Protocol::Resp2, copied, async |out| {
            for _ in 0..count {
                out.bulk(&vec![b'v'; PIECE]);
                out.account()?;
                tokio::task::yield_now().await;
            }
            Ok(())
        })
        .await
    }

    /// Each alone would fit; what counts is what all of them hold.
    #[test]
    fn replies_that_grow_side_by_side_share_the_bound() {
        let in_flight = InFlight::new(5 * PIECE);
        let mut cx = Context::from_waker(Waker::noop());
        let mut replies = [(); 3].map(|()| Box::pin(pieces(&in_flight, 0, 4)));
        let mut poll = |n: usize| replies[n].as_mut().poll(&mut cx);
        assert!(poll(0).is_pending() && poll(1).is_pending() && poll(2).is_pending());
        assert!(in_flight.held() > 3 * PIECE, "{}", in_flight.held());
        assert!(poll(0).is_pending());
        assert!(
            matches!(poll(1), Poll::Ready(Err(error)) if error == ErrorReply::REPLY_TOO_LONG),
            "a fifth piece is past the bound"
        );
        // What it held is there for the others.
        assert!(poll(0).is_pending());
        assert!(matches!(poll(2), Poll::Ready(Err(error)) if error == ErrorReply::REPLY_TOO_LONG));
        assert!(poll(0).is_pending());
        let Poll::Ready(Ok(whole)) = poll(0) else {
            panic!("one of them goes through");
        };
        assert!(whole.len() > 4 * PIECE);
        assert_eq!(in_flight.held(), 0, "its connection counts it now");
    }

    #[test]
    fn what_is_done_is_told_without_room() {
        let in_flight = InFlight::new(2 * PIECE);
        let mut cx = Context::from_waker(Waker::noop());
        let mut write = pin!(counted(&in_flight, Protocol::Resp2, PIECE, async |out| {
            tokio::task::yield_now().await;
            out.ok();
            Ok(())
        }));
        assert!(write.as_mut().poll(&mut cx).is_pending());
        let mut others = in_flight.hold_apart();
        assert!(others.set(PIECE - 1));
        in_flight.set_limit(PIECE);
        assert!(matches!(write.as_mut().poll(&mut cx), Poll::Ready(Ok(_))));
    }

    #[test]
    fn what_was_copied_is_held_until_the_end() {
        let in_flight = InFlight::new(5 * PIECE);
        let mut cx = Context::from_waker(Waker::noop());
        {
            let mut reply = pin!(pieces(&in_flight, 3 * PIECE, 1));
            assert!(reply.as_mut().poll(&mut cx).is_pending());
            assert!(in_flight.held() > 4 * PIECE);
            let mut other = pin!(pieces(&in_flight, PIECE, 0));
            assert!(
                matches!(other.as_mut().poll(&mut cx), Poll::Ready(Err(error)) if error == ErrorReply::IN_FLIGHT)
            );
        }
        assert_eq!(in_flight.held(), 0);
    }
}
