//! `CLIENT PAUSE`: until a time, commands wait, or those that write. A look at it on the way of a command is one load of
//! what nobody writes in the meantime.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Which commands wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Paused {
    /// Those that may write.
    Writes,
    /// All but those that end the pause.
    All,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    /// Milliseconds since the Unix epoch, twice, and 1 more if all commands wait; 0 for no pause.
    state: AtomicU64,
    ended: Notify,
}

impl Pause {
    /// Begins a pause, or prolongs one: the longer time and the stricter kind of the two hold.
    pub(crate) fn begin(&self, until_ms: u64, paused: Paused, now_ms: u64) {
        let wanted = (
            until_ms.min(u64::MAX >> 1) << 1,
            u64::from(paused == Paused::All),
        );
        let longer = |state: u64| {
            let (until, all) = if state >> 1 > now_ms {
                (state & !1, state & 1)
            } else {
                (0, 0)
            };
            Some(until.max(wanted.0) | all | wanted.1)
        };
        // It never gives up, as it always wants to store something.
        let _ = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, longer);
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.state.store(0, Ordering::Relaxed);
        self.ended.notify_waiters();
    }

    /// What waits, and until when, if anything does.
    #[inline]
    pub(crate) fn now(&self, now_ms: u64) -> Option<(Paused, u64)> {
        let state = self.state.load(Ordering::Relaxed);
        if state == 0 {
            return None;
        }
        let until_ms = state >> 1;
        let paused = if state & 1 == 1 {
            Paused::All
        } else {
            Paused::Writes
        };
        (until_ms > now_ms).then_some((paused, until_ms))
    }

    /// Resolves when it is ended before its time.
    pub(crate) fn ended(&self) -> tokio::sync::futures::Notified<'_> {
        self.ended.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_and_the_stricter_hold() {
        let pause = Pause::default();
        assert_eq!(pause.now(5), None);
        pause.begin(10, Paused::Writes, 5);
        assert_eq!(pause.now(9), Some((Paused::Writes, 10)));
        assert_eq!(pause.now(10), None);
        pause.begin(8, Paused::All, 5);
        assert_eq!(pause.now(9), Some((Paused::All, 10)));
        pause.begin(20, Paused::Writes, 15);
        assert_eq!(
            pause.now(15),
            Some((Paused::Writes, 20)),
            "the one before is over"
        );
        pause.end();
        assert_eq!(pause.now(15), None);
    }
}
