//! What is in the journals, or was taken from them, and is not written yet: it counts as in flight until the round is written
//! that has it, whoever waits for it, as a client that is gone takes none of it along. It says when that is so much that writes
//! are to be refused, and when the log has caught up; it refuses none itself.

use std::sync::Arc;

use crate::net::inflight::{Hold, InFlight};

/// This part of `limits.max_inflight_bytes` may wait for the log. What is left is for those that read, which goes on however
/// long the log stands still.
const SHARE: (usize, usize) = (3, 4);
/// However small that limit is: what clients that send many small writes have under way where the disk is well.
const LEAST_BYTES: usize = 4 << 20;
/// The log has caught up when no more than this part of that is left.
const REST: usize = 2;

/// What this node copies from others waits from this part of it on: it comes as fast as a network does, and is in no hurry.
const FILLING: usize = 4;

/// What becomes of writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Refuse,
    Take,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// The round under way, and those that are to come.
    rounds: Vec<Counted>,
    /// So much may wait.
    most: usize,
    /// Writes are refused until no more than this is left.
    until: Option<usize>,
}

/// What is counted for a round.
#[derive(Debug)]
struct Counted {
    round: u64,
    bytes: usize,
    hold: Hold<'static>,
}

impl Backlog {
    /// Counts what a round is to write. It is there, whether there is room for it or not.
    pub(super) fn add(
        &mut self,
        round: u64,
        bytes: usize,
        in_flight: &Arc<InFlight>,
    ) -> Option<Change> {
        let place = self.rounds.iter().position(|known| known.round == round);
        let place = place.unwrap_or_else(|| {
            self.rounds.push(Counted {
                round,
                bytes: 0,
                hold: in_flight.hold_apart(),
            });
            self.rounds.len() - 1
        });
        let counted = &mut self.rounds[place];
        counted.bytes += bytes;
        counted.hold.set_anyway(counted.bytes);
        let share = in_flight.limit() / SHARE.1 * SHARE.0;
        self.most = share.max(LEAST_BYTES);
        if self.until.is_some() || self.bytes() <= self.most {
            return None;
        }
        self.until = Some(self.most / REST);
        Some(Change::Refuse)
    }

    /// All rounds up to this one are written, or never will be.
    pub(super) fn release(&mut self, round: u64) -> Option<Change> {
        self.rounds.retain(|counted| counted.round > round);
        let bytes = self.bytes();
        self.until.take_if(|until| bytes <= *until)?;
        Some(Change::Take)
    }

    /// Writes are refused.
    pub(super) fn is_long(&self) -> bool {
        self.until.is_some()
    }

    /// What can wait should.
    pub(super) fn is_filling(&self) -> bool {
        self.bytes() > self.most / FILLING
    }

    pub(super) fn bytes(&self) -> usize {
        self.rounds.iter().map(|counted| counted.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_refused_from_a_bound_until_half_of_it() {
        const MIB: usize = 1 << 20;
        let in_flight = InFlight::new(8 * MIB);
        let mut backlog = Backlog::default();
        // Of a round, bytes -> what becomes of writes.
        assert!(!backlog.is_filling());
        for (round, bytes, expected) in [
            (1, MIB, None),
            (1, 2 * MIB, None),
            (1, 1, None),
            (1, 2 * MIB - 1, None),
            (2, MIB, None),
            (2, MIB, Some(Change::Refuse)),
            (2, 2 * MIB, None),
        ] {
            assert_eq!(backlog.add(round, bytes, &in_flight), expected);
            assert_eq!(backlog.bytes(), in_flight.held());
            assert_eq!(backlog.is_filling(), backlog.bytes() > 3 * MIB / 2);
        }
        assert_eq!(backlog.release(1), None, "4 MiB are left");
        assert!(backlog.is_long());
        assert_eq!(backlog.release(2), Some(Change::Take));
        assert!(!backlog.is_long());
        assert!(!backlog.is_filling());
        assert_eq!(in_flight.held(), 0);
    }
}
