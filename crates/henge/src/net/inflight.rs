//! The bounds on the bytes that requests and answers hold in memory: over the whole node, and for the clients of one address. Only
//! what is large is counted, so that small requests never touch the counters that data threads share.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// What is up to this size is not counted: with 50,000 connections that is 3 GiB at the very worst, and a request that
/// small comes and goes within one turn of its thread.
pub(crate) const UNCOUNTED_BYTES: usize = 64 * 1024;

/// The counter, and the bounds.
#[derive(Debug)]
pub(crate) struct InFlight {
    held: AtomicUsize,
    limit: AtomicUsize,
    /// What the clients of one address may hold of that.
    share_limit: AtomicUsize,
}

/// What the clients of one address hold.
#[derive(Debug, Default)]
pub(crate) struct Share(AtomicUsize);

thread_local! {
    /// Whose connection this thread works for.
    static PAYER: RefCell<Option<Arc<Share>>> = const { RefCell::new(None) };
}

/// Does all of this work at the expense of an address: what it holds counts against the bound of that as well.
pub(crate) async fn paid_by<T>(share: Option<Arc<Share>>, work: impl Future<Output = T>) -> T {
    let mut share = share;
    // What an async function takes by value is kept in it twice, and of connections there are thousands.
    let mut work = Box::pin(work);
    poll_fn(|cx| {
        // Swapped and not shared: a reference more would write what all data threads with clients of that address read.
        PAYER.with_borrow_mut(|payer| std::mem::swap(payer, &mut share));
        let polled = work.as_mut().poll(cx);
        PAYER.with_borrow_mut(|payer| std::mem::swap(payer, &mut share));
        polled
    })
    .await
}

/// Adds to a counter if that stays within a bound.
fn take(counter: &AtomicUsize, more: usize, limit: usize) -> bool {
    let within = |held: usize| held.checked_add(more).filter(|&held| held <= limit);
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
        .is_ok()
}

impl InFlight {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            held: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            share_limit: AtomicUsize::new(usize::MAX),
        })
    }

    /// Changes what the clients of one address may hold; none for as much as there is.
    pub(crate) fn set_share_limit(&self, limit: Option<usize>) {
        let limit = limit.unwrap_or(usize::MAX);
        self.share_limit.store(limit, Ordering::Relaxed);
    }

    fn share_limit(&self) -> usize {
        self.share_limit.load(Ordering::Relaxed)
    }

    /// Changes the bound; what is held already stays.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The bound.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// The bytes that are held now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// The bytes that may yet be held by whom this thread works for; as much as is never counted if there are none.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        let left = self.limit().saturating_sub(self.held());
        let of_payer = PAYER.with_borrow(|payer| match payer {
            None => usize::MAX,
            Some(share) => {
                let held = share.0.load(Ordering::Relaxed);
                self.share_limit().saturating_sub(held)
            }
        });
        left.min(of_payer).max(UNCOUNTED_BYTES)
    }

    /// A hold on nothing yet. It borrows: another reference would write the count of references, which all data threads
    /// share, for each request.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold<'_> {
        Hold {
            in_flight: Counter::Borrowed(self),
            bytes: 0,
            payer: Payer::Present,
        }
    }

    /// A hold with a reference of its own, for work on `len` bytes that leaves its thread. None where that is too little
    /// to be counted.
    pub(crate) fn hold_for(self: &Arc<Self>, len: usize) -> Option<Hold<'static>> {
        (len > UNCOUNTED_BYTES).then(|| Hold {
            in_flight: Counter::Owned(Arc::clone(self)),
            bytes: 0,
            payer: Payer::Known(PAYER.with_borrow(Clone::clone)),
        })
    }

    /// The same for what grows while it is held, on the thread that works for who holds it.
    pub(crate) fn hold_growing(self: &Arc<Self>) -> Hold<'static> {
        Hold {
            in_flight: Counter::Owned(Arc::clone(self)),
            bytes: 0,
            payer: Payer::Present,
        }
    }

    /// The same for what is held for the node: its log, and what others ask it.
    pub(crate) fn hold_apart(self: &Arc<Self>) -> Hold<'static> {
        Hold {
            in_flight: Counter::Owned(Arc::clone(self)),
            bytes: 0,
            payer: Payer::Known(None),
        }
    }
}

/// Bytes held until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold<'a> {
    in_flight: Counter<'a>,
    bytes: usize,
    payer: Payer,
}

/// At whose expense bytes are held.
#[derive(Debug)]
enum Payer {
    /// Of whom the thread works for when the first of them is counted.
    Present,
    /// Of this address, or of the node.
    Known(Option<Arc<Share>>),
}

impl Payer {
    fn share(&mut self) -> Option<&Share> {
        if let Self::Present = self {
            *self = Self::Known(PAYER.with_borrow(Clone::clone));
        }
        match self {
            Self::Known(share) => share.as_deref(),
            Self::Present => None,
        }
    }

    /// The same, which is to be held elsewhere.
    fn take(&mut self) -> Option<Arc<Share>> {
        match std::mem::replace(self, Self::Known(None)) {
            Self::Known(share) => share,
            Self::Present => None,
        }
    }
}

/// Gives bytes back.
fn release(in_flight: &InFlight, share: Option<&Share>, bytes: usize) {
    in_flight.held.fetch_sub(bytes, Ordering::Relaxed);
    if let Some(share) = share {
        share.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Counter<'a> {
    Borrowed(&'a Arc<InFlight>),
    Owned(Arc<InFlight>),
}

impl Deref for Counter<'_> {
    type Target = Arc<InFlight>;

    fn deref(&self) -> &Arc<InFlight> {
        match self {
            Self::Borrowed(counter) => counter,
            Self::Owned(counter) => counter,
        }
    }
}

impl Hold<'_> {
    /// Holds this many bytes instead of those before; false, and nothing changes, if that is past a bound.
    #[must_use]
    pub(crate) fn set(&mut self, bytes: usize) -> bool {
        let limits = (self.in_flight.limit(), self.in_flight.share_limit());
        self.set_within(bytes, limits)
    }

    /// The same for what is there already, past the bound or not: who comes after it finds less room.
    pub(crate) fn set_anyway(&mut self, bytes: usize) {
        // All that is counted lies in memory, so the sum of it is a number.
        let _ = self.set_within(bytes, (usize::MAX, usize::MAX));
    }

    fn set_within(&mut self, bytes: usize, (limit, share_limit): (usize, usize)) -> bool {
        let bytes = if bytes <= UNCOUNTED_BYTES { 0 } else { bytes };
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let share = self.payer.share();
            if share.is_some_and(|share| !take(&share.0, more, share_limit)) {
                return false;
            }
            if !take(&self.in_flight.held, more, limit) {
                if let Some(share) = share {
                    share.0.fetch_sub(more, Ordering::Relaxed);
                }
                return false;
            }
        } else if bytes < self.bytes {
            release(&self.in_flight, self.payer.share(), self.bytes - bytes);
        }
        self.bytes = bytes;
        true
    }

    /// The same bytes, which now carry the hold with them until the last reference is gone.
    pub(crate) fn attach(mut self, bytes: Bytes) -> Bytes {
        if self.bytes == 0 {
            return bytes;
        }
        Bytes::from_owner(Held {
            bytes,
            in_flight: Arc::clone(&self.in_flight),
            counted: std::mem::take(&mut self.bytes),
            share: self.payer.take(),
        })
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            release(&self.in_flight, self.payer.share(), self.bytes);
        }
    }
}

/// Bytes with the hold on them. Only what is large gets here, so it may cost a reference.
struct Held {
    bytes: Bytes,
    in_flight: Arc<InFlight>,
    counted: usize,
    share: Option<Arc<Share>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        release(&self.in_flight, self.share.as_deref(), self.counted);
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn holds_end_with_what_holds_them() {
        let in_flight = InFlight::new(300_000);
        let mut small = in_flight.hold();
        assert!(small.set(UNCOUNTED_BYTES));
        assert_eq!(in_flight.held(), 0);
        assert_eq!(
            Arc::strong_count(&in_flight),
            1,
            "nothing shared was written"
        );
        let mut large = in_flight.hold();
        assert!(large.set(200_000));
        let mut other = in_flight.hold();
        assert!(!other.set(100_001));
        assert!(other.set(100_000));
        assert!(large.set(150_000));
        assert_eq!(in_flight.held(), 250_000);
        let mut anyway = in_flight.hold();
        anyway.set_anyway(100_000);
        assert_eq!(in_flight.held(), 350_000);
        assert!(!small.set(UNCOUNTED_BYTES + 1), "it is past the bound");
        drop(anyway);
        let bytes = large.attach(Bytes::from(vec![1; 150_000]));
        let slice = bytes.slice(5..6);
        drop((other, bytes));
        assert_eq!(in_flight.held(), 150_000);
        drop(slice);
        assert_eq!(in_flight.held(), 0);
    }

    /// One address has its share, whatever the others leave; what is held for the node itself is of no address.
    #[test]
    fn an_address_holds_no_more_than_its_share() {
        use std::task::{Context, Poll, Waker};

        let in_flight = InFlight::new(1_000_000);
        in_flight.set_share_limit(Some(300_000));
        let one = Arc::new(Share::default());
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = Bytes::new();
        {
            let mut work = pin!(paid_by(Some(Arc::clone(&one)), async {
                assert_eq!(in_flight.left(), 300_000);
                let mut hold = in_flight.hold();
                assert!(hold.set(200_000));
                tokio::task::yield_now().await;
                assert_eq!(in_flight.left(), 100_000);
                let mut other = in_flight.hold_for(100_001).expect("it is large");
                assert!(!other.set(100_001));
                assert!(other.set(100_000));
                let mut apart = in_flight.hold_apart();
                assert!(apart.set(500_000), "it is the node's");
                bytes = hold.attach(Bytes::from(vec![1; 200_000]));
            }));
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.expect("a runtime");
            let _inside = runtime.enter();
            assert!(work.as_mut().poll(&mut cx).is_pending());
            assert_eq!(in_flight.left(), 800_000, "nobody's turn");
            assert!(in_flight.hold().set(400_000), "another has its own");
            assert!(work.as_mut().poll(&mut cx) == Poll::Ready(()));
        }
        assert_eq!(
            (in_flight.held(), one.0.load(Ordering::Relaxed)),
            (200_000, 200_000)
        );
        let mut rest = in_flight.hold();
        assert!(rest.set(800_000));
        let refused = pin!(paid_by(Some(Arc::clone(&one)), async {
            let mut hold = in_flight.hold();
            assert!(!hold.set(70_000), "the node has none left");
        }));
        assert!(refused.poll(&mut cx).is_ready());
        drop(bytes);
        assert_eq!(
            (in_flight.held(), one.0.load(Ordering::Relaxed)),
            (800_000, 0)
        );
    }
}
