//! The bound on the bytes that requests and answers hold in memory over the whole node. Only what is large is counted, so
//! that small requests never touch the one counter that all data threads share.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// What is up to this size is not counted: with 50,000 connections that is 3 GiB at the very worst, and a request that
/// small comes and goes within one turn of its thread.
pub(crate) const UNCOUNTED_BYTES: usize = 64 * 1024;

/// The counter, and its bound.
#[derive(Debug)]
pub(crate) struct InFlight {
    held: AtomicUsize,
    limit: AtomicUsize,
}

impl InFlight {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            held: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
        })
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

    /// The bytes that may yet be held; as much as is never counted if there are none.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.limit()
            .saturating_sub(self.held())
            .max(UNCOUNTED_BYTES)
    }

    /// A hold on nothing yet. It borrows: another reference would write the count of references, which all data threads
    /// share, for each request.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold<'_> {
        Hold {
            in_flight: Counter::Borrowed(self),
            bytes: 0,
        }
    }

    /// A hold with a reference of its own, for work on `len` bytes that leaves its thread. None where that is too little
    /// to be counted.
    pub(crate) fn hold_for(self: &Arc<Self>, len: usize) -> Option<Hold<'static>> {
        (len > UNCOUNTED_BYTES).then(|| self.hold_apart())
    }

    /// The same for what grows while it is held.
    pub(crate) fn hold_apart(self: &Arc<Self>) -> Hold<'static> {
        Hold {
            in_flight: Counter::Owned(Arc::clone(self)),
            bytes: 0,
        }
    }
}

/// Bytes held until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold<'a> {
    in_flight: Counter<'a>,
    bytes: usize,
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
    /// Holds this many bytes instead of those before; false, and nothing changes, if that is past the bound.
    #[must_use]
    pub(crate) fn set(&mut self, bytes: usize) -> bool {
        self.set_within(bytes, self.in_flight.limit())
    }

    /// The same for what is there already, past the bound or not: who comes after it finds less room.
    pub(crate) fn set_anyway(&mut self, bytes: usize) {
        // All that is counted lies in memory, so the sum of it is a number.
        let _ = self.set_within(bytes, usize::MAX);
    }

    fn set_within(&mut self, bytes: usize, limit: usize) -> bool {
        let bytes = if bytes <= UNCOUNTED_BYTES { 0 } else { bytes };
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let within = |held: usize| held.checked_add(more).filter(|&held| held <= limit);
            let counter = &self.in_flight.held;
            if counter
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
                .is_err()
            {
                return false;
            }
        } else if bytes < self.bytes {
            self.in_flight
                .held
                .fetch_sub(self.bytes - bytes, Ordering::Relaxed);
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
        })
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.in_flight.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// Bytes with the hold on them. Only what is large gets here, so it may cost a reference.
struct Held {
    bytes: Bytes,
    in_flight: Arc<InFlight>,
    counted: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.in_flight
            .held
            .fetch_sub(self.counted, Ordering::Relaxed);
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
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
}
