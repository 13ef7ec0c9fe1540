//! Why a key is not there: what a shard asks of its memory of departures, and what the records that are still there say. It changes
//! nothing but what is counted.

use super::Shard;
use crate::departures::{Absence, Departures, MissCause};
use henge_wire::Partition;

impl Shard {
    /// Remembers from now on what leaves, in so many bytes of fingerprints, which are charged; none with none. What was remembered goes on
    /// as far as there is room for it; its memory is given back, to be dropped where nobody waits.
    #[must_use = "dropping it frees the memory; do that where nobody waits"]
    pub fn remember_departures(&mut self, bytes: usize) -> Remembered {
        let next = match bytes {
            0 => Departures::none(),
            _ => Departures::new(bytes, self.partitions.len()),
        };
        let before = std::mem::replace(&mut self.departures, Departures::none());
        let (next, before) = next.going_on(before);
        self.departures = next;
        Remembered(before)
    }

    /// Why a key is not there.
    pub fn why(
        &self,
        partition: Partition,
        hash: u64,
        key: &[u8],
        now_ms: u64,
    ) -> Result<Absence, Unexplained> {
        let p = self.local(partition);
        let found = self.find(p, hash, key);
        if found.is_some_and(|at| self.is_live(at, now_ms)) {
            return Err(Unexplained::Alive);
        }
        if !self.departures.is_on() {
            return Err(Unexplained::NothingRemembered);
        }
        let mut why = self.departures.why(p, hash, now_ms);
        if let Some(at) = found {
            // It lies here still, which says more than any memory of it.
            let seqs = (
                self.records.version(at).seq(),
                self.partitions[p].last.seq(),
            );
            let since_written_s = self.departures.age_s(p, seqs, now_ms);
            why.is_certain = true;
            why.evicted_for = None;
            if self.records.is_tombstone(at) {
                why.cause = MissCause::Deleted;
                why.left_ago_s = since_written_s;
                why.age_s = None;
            } else {
                let deadline = self.records.expires_at(at).unwrap_or(now_ms);
                let ago_s = now_ms.saturating_sub(deadline) / 1000;
                why.cause = MissCause::Expired;
                why.left_ago_s = Some(ago_s);
                why.age_s = since_written_s.map(|since| since.saturating_sub(ago_s));
            }
        }
        Ok(why)
    }

    /// What it had in the life of another process is gone with that, and nobody knows what it was.
    pub fn lost_its_memory(&mut self) {
        for p in 0..self.partitions.len() {
            self.departures.all_left(p, MissCause::Lost, 0);
        }
    }

    /// A Get has found nothing.
    #[inline(never)]
    pub(super) fn count_miss(&mut self, p: usize, hash: u64, key: &[u8]) {
        self.stats.misses += 1;
        if !self.departures.is_on() {
            return;
        }
        // Only where records stay that nobody may see is there one to look for again.
        let state = &self.partitions[p];
        let may_lie_here = state.tombstones > 0 || !state.commits_at_once;
        let found = may_lie_here.then(|| self.find(p, hash, key)).flatten();
        let cause = match found {
            Some(at) if self.records.is_tombstone(at) => MissCause::Deleted,
            Some(_) => MissCause::Expired,
            None => self.departures.count(p, hash),
        };
        self.stats.misses_by_cause[cause as usize] += 1;
    }

    /// A seq, and that to which its partition has come.
    #[inline]
    pub(super) fn seqs(&self, p: usize, seq: u64) -> (u64, u64) {
        (seq, self.partitions[p].last.seq())
    }
}

/// What a shard has remembered of what left, to be dropped.
pub struct Remembered(#[expect(dead_code, reason = "it exists to be dropped")] Departures);

/// Why nothing is said of why a key is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unexplained {
    /// It is there.
    Alive,
    /// It is not, and the shard was not asked to remember what leaves.
    NothingRemembered,
}
