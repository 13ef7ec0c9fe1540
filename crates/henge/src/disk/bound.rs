//! How much of the disk may be used, by what is kept: how long the log may become, and when a snapshot is due to make all of it
//! smaller. It makes none, and asks nobody for figures.

use std::time::{Duration, Instant};

use super::persistence::SEGMENT_BYTES;

/// The pauses between snapshots that left the disk as full as it was.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// What there is, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Usage {
    /// What the cache is charged.
    pub(super) live: u64,
    /// The last snapshot.
    pub(super) snapshot: u64,
    /// What of the log no snapshot covers.
    pub(super) uncovered: u64,
}

impl Usage {
    /// The log is so long that it is time for a snapshot.
    pub(super) fn is_log_long(&self) -> bool {
        // Two snapshots of no more than what lives may lie beside it, and a segment whose room is not all used.
        self.uncovered > self.live / 4 * 3 + 2 * SEGMENT_BYTES
    }

    /// How much longer the log may become.
    pub(super) fn room(&self) -> u64 {
        (self.live + 3 * SEGMENT_BYTES).saturating_sub(self.uncovered)
    }

    /// More is there than another snapshot leaves room beside: what lives has become less since the last one.
    pub(super) fn is_large(&self) -> bool {
        self.snapshot + self.uncovered > 2 * self.live + 2 * SEGMENT_BYTES
    }
}

/// When a snapshot is made because too much is there. One that did not help, as what lives became less only while it was made,
/// or as it cannot be smaller, is made again after pauses that become longer.
#[derive(Debug)]
pub(super) struct Cleaning {
    not_before: Option<Instant>,
    pause: Duration,
}

impl Default for Cleaning {
    fn default() -> Self {
        Self {
            not_before: None,
            pause: FIRST_PAUSE,
        }
    }
}

impl Cleaning {
    pub(super) fn is_due(&self, usage: &Usage, now: Instant) -> bool {
        usage.is_large() && self.not_before.is_none_or(|not_before| now >= not_before)
    }

    /// A snapshot was made, and this is what there is now.
    pub(super) fn note_made(&mut self, usage: &Usage, now: Instant) {
        if usage.is_large() {
            self.not_before = Some(now + self.pause);
            self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        } else {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn usage(live: u64, snapshot: u64, uncovered: u64) -> Usage {
        Usage {
            live: live * MIB,
            snapshot: snapshot * MIB,
            uncovered: uncovered * MIB,
        }
    }

    #[test]
    fn what_there_is_calls_for_a_snapshot() {
        // What lives, the last snapshot and the log -> whether the log is long, whether all is large, how much room there is.
        for (of, is_log_long, is_large, room) in [
            (usage(0, 0, 0), false, false, 96),
            (usage(0, 0, 64), false, false, 32),
            (usage(0, 0, 65), true, true, 31),
            (usage(0, 600, 1), false, true, 95),
            (usage(4, 70, 2), false, false, 98),
            (usage(4, 71, 2), false, true, 98),
            // As long as as much lives as was in the snapshot only the log counts.
            (usage(1_000, 1_000, 814), false, false, 282),
            (usage(1_000, 1_000, 815), true, false, 281),
            (usage(1_000, 1_000, 2_000), true, true, 0),
            (usage(1_000, 2_000, 64), false, false, 1_032),
            (usage(1_000, 2_000, 65), false, true, 1_031),
        ] {
            let found = (of.is_log_long(), of.is_large(), of.room() / MIB);
            assert_eq!(found, (is_log_long, is_large, room), "{of:?}");
        }
    }

    #[test]
    fn what_does_not_help_is_done_ever_more_seldom() {
        let (large, small) = (usage(4, 600, 2), usage(4, 4, 2));
        let begun = Instant::now();
        let mut cleaning = Cleaning::default();
        assert!(!cleaning.is_due(&small, begun));
        assert!(cleaning.is_due(&large, begun));
        let (mut now, mut made) = (begun, 0);
        while now - begun < Duration::from_hours(24) {
            if cleaning.is_due(&large, now) {
                cleaning.note_made(&large, now);
                made += 1;
            }
            now += Duration::from_secs(1);
        }
        // Twelve until the pause is an hour, and then one each hour.
        assert!((24..=36).contains(&made), "{made}");
        assert!(!cleaning.is_due(&small, now));
        // Any that helps, whatever it was made for.
        cleaning.note_made(&small, now);
        assert!(cleaning.is_due(&large, now));
    }
}
