//! Requests whose answers wait: for the log, for a commit, for a probe, for all. Replies are made when a request runs; here is
//! only when they may be shown.

use crate::topology::Epoch;
use std::collections::VecDeque;

/// The carrier's name for a request.
pub type RequestId = u64;

/// How much an answer promises.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Level {
    /// The leader has it.
    One,
    /// A quorum has it.
    Quorum,
    /// All replicas have it.
    All,
}

/// What a request is answered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Answer<R> {
    /// The reply.
    Reply(R),
    /// Nothing was changed, nor will be: it may be asked of another.
    NotStamped,
    /// There is no room for it, and nothing was changed.
    NoRoom,
    /// It was stamped. Whether it is kept nobody knows.
    Unknown,
}

/// See the head of the file. Of each kind those that came first wait first: what they wait for comes in an order, so nobody is
/// looked at who is behind one that waits. A read may so wait for what another one saw, and no longer than that one does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Waiting<R> {
    /// By [`Wait::kind`].
    requests: [VecDeque<Wait<R>>; 6],
    /// The newest probe that somebody waits for, or has.
    newest_probe: u64,
    /// Those that were stamped in a term that is over: whether they are kept shows once so much is committed, in whatever term.
    stranded: VecDeque<Wait<R>>,
}

/// One request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Wait<R> {
    pub(super) id: RequestId,
    pub(super) level: Level,
    pub(super) reply: R,
    /// What its reply shows, or did.
    pub(super) seq: u64,
    /// The term in which it was stamped; 0 if it was not.
    pub(super) term: Epoch,
    pub(super) is_stamped: bool,
    /// The probe that has to come back from a quorum; 0 for none.
    pub(super) probe: u64,
}

/// How far a leader is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    /// Its own log.
    pub(super) kept: u64,
    pub(super) committed: u64,
    /// All replicas, and those that are Up.
    pub(super) all: u64,
    pub(super) all_up: u64,
    /// The newest probe that a quorum has echoed.
    pub(super) probe: u64,
}

impl<R> Default for Waiting<R> {
    fn default() -> Self {
        Self {
            requests: Default::default(),
            newest_probe: 0,
            stranded: VecDeque::new(),
        }
    }
}

impl<R> Waiting<R> {
    pub(super) fn push(&mut self, wait: Wait<R>) {
        self.newest_probe = self.newest_probe.max(wait.probe);
        self.requests[wait.kind()].push_back(wait);
    }

    /// Whether somebody waits for all replicas.
    pub(super) fn is_for_all(&self) -> bool {
        self.requests[4..]
            .iter()
            .any(|requests| !requests.is_empty())
    }

    /// The newest probe that somebody waits for.
    pub(super) fn newest_probe(&self) -> u64 {
        self.newest_probe
    }

    /// Probes are numbered anew: those that were sent count for nothing.
    pub(super) fn ask_again(&mut self) {
        self.newest_probe = self.newest_probe.min(1);
        for wait in self.requests.iter_mut().flatten() {
            wait.probe = wait.probe.min(1);
        }
    }

    /// Answers those that may be.
    pub(super) fn answer(
        &mut self,
        reached: Reached,
        answer: &mut impl FnMut(RequestId, Answer<R>),
    ) {
        for requests in &mut self.requests {
            while let Some(wait) = requests.pop_front_if(|wait| wait.may_be_shown(reached)) {
                answer(wait.id, Answer::Reply(wait.reply));
            }
        }
    }

    /// The leader leads no more. What it has stamped may be in what the next one opens with, and then it is done; but that all
    /// replicas have it nobody tells.
    pub(super) fn strand(&mut self, answer: &mut impl FnMut(RequestId, Answer<R>)) {
        self.newest_probe = 0;
        for wait in self.requests.iter_mut().flat_map(std::mem::take) {
            if wait.is_stamped && wait.level != Level::All {
                self.stranded.push_back(wait);
            } else {
                answer(wait.id, wait.unknown());
            }
        }
    }

    /// What there was is gone, and nobody can say what became of it.
    pub(super) fn give_up(&mut self, answer: &mut impl FnMut(RequestId, Answer<R>)) {
        self.strand(answer);
        for wait in self.stranded.drain(..) {
            answer(wait.id, Answer::Unknown);
        }
    }

    /// So much is committed, of an order in which `is_there` says whether what was stamped with a seq and a term is: then it is done.
    /// What another leader has put something else in the place of, or nothing, is as good as lost.
    pub(super) fn settle(
        &mut self,
        committed: u64,
        is_there: impl Fn(u64, Epoch) -> bool,
        answer: &mut impl FnMut(RequestId, Answer<R>),
    ) {
        for _ in 0..self.stranded.len() {
            let Some(wait) = self.stranded.pop_front() else {
                return;
            };
            if !is_there(wait.seq, wait.term) {
                answer(wait.id, Answer::Unknown);
            } else if wait.seq <= committed {
                answer(wait.id, Answer::Reply(wait.reply));
            } else {
                self.stranded.push_back(wait);
            }
        }
    }

    /// Whether any were stamped, and wait for whatever.
    pub(super) fn has_stamped(&self) -> bool {
        let mut requests = self.requests.iter().flatten();
        self.has_stranded() || requests.any(|wait| wait.is_stamped)
    }

    /// Whether any wait for what is committed in terms that are not theirs.
    #[inline]
    pub(super) fn has_stranded(&self) -> bool {
        !self.stranded.is_empty()
    }

    /// Whoever asked waits no longer.
    pub(super) fn expire(&mut self, id: RequestId, answer: &mut impl FnMut(RequestId, Answer<R>)) {
        for requests in self.requests.iter_mut().chain([&mut self.stranded]) {
            // They are asked in the order of their deadlines, more or less: it is one of the first.
            if let Some(place) = requests.iter().position(|wait| wait.id == id) {
                let wait = requests.remove(place).expect("it is there");
                answer(id, wait.unknown());
                return;
            }
        }
    }
}

impl<R> Wait<R> {
    fn kind(&self) -> usize {
        let level = match self.level {
            Level::One => 0,
            Level::Quorum => 1,
            Level::All => 2,
        };
        2 * level + usize::from(self.is_stamped)
    }

    /// What is known of one that is not answered.
    fn unknown(&self) -> Answer<R> {
        if self.is_stamped {
            Answer::Unknown
        } else {
            Answer::NotStamped
        }
    }

    fn may_be_shown(&self, reached: Reached) -> bool {
        let is_committed = self.seq <= reached.committed;
        match (self.level, self.is_stamped) {
            (Level::One, _) => self.seq <= reached.kept,
            (Level::Quorum, true) => is_committed,
            (Level::All, true) => is_committed && self.seq <= reached.all,
            (Level::Quorum, false) => is_committed && self.probe <= reached.probe,
            (Level::All, false) => {
                is_committed && self.probe <= reached.probe && self.seq <= reached.all_up
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests from 1 on: their levels, what they show, and whether they were stamped, in the term 4.
    fn waiting(requests: [(Level, u64, bool); 5]) -> Waiting<()> {
        let mut waiting = Waiting::default();
        for (id, (level, seq, is_stamped)) in (1..).zip(requests) {
            waiting.push(Wait {
                id,
                level,
                reply: (),
                seq,
                term: if is_stamped { 4 } else { 0 },
                is_stamped,
                probe: 0,
            });
        }
        waiting
    }

    fn answered(waiting: &mut Waiting<()>, committed: u64) -> Vec<RequestId> {
        let reached = Reached {
            kept: 9,
            committed,
            all: 0,
            all_up: 0,
            probe: 0,
        };
        let mut answered = Vec::new();
        waiting.answer(reached, &mut |id, answer| {
            assert_eq!(answer, Answer::Reply(()));
            answered.push(id);
        });
        answered
    }

    /// Else each ack would look at all that wait.
    #[test]
    fn nobody_is_looked_at_behind_one_that_waits() {
        let mut waiting = waiting([
            (Level::Quorum, 5, false),
            (Level::Quorum, 0, false),
            (Level::Quorum, 6, true),
            (Level::All, 2, true),
            (Level::One, 7, true),
        ]);
        // Another kind is another queue.
        assert_eq!(answered(&mut waiting, 4), [5]);
        assert_eq!(answered(&mut waiting, 5), [1, 2]);
        assert_eq!(answered(&mut waiting, 9), [3]);
        let mut left = Vec::new();
        waiting.give_up(&mut |id, answer| left.push((id, answer)));
        assert_eq!(left, [(4, Answer::Unknown)]);
    }

    #[test]
    fn what_was_stamped_before_is_settled_by_what_is_committed_later() {
        let mut waiting = waiting([
            (Level::Quorum, 5, true),
            (Level::Quorum, 6, true),
            (Level::Quorum, 6, false),
            (Level::All, 5, true),
            (Level::One, 7, true),
        ]);
        let mut told = Vec::new();
        waiting.strand(&mut |id, answer| told.push((id, answer)));
        assert_eq!(told, [(3, Answer::NotStamped), (4, Answer::Unknown)]);
        let mut settle = |committed| {
            let mut told = Vec::new();
            // Its successor has begun with 6.
            let is_there = |seq, term| seq < 6 && term == 4;
            waiting.settle(committed, is_there, &mut |id, answer| {
                told.push((id, answer));
            });
            told
        };
        let unknown = |id| (id, Answer::Unknown);
        assert_eq!(settle(4), [unknown(5), unknown(2)]);
        assert_eq!(settle(6), [(1, Answer::Reply(()))]);
        assert!(!waiting.has_stranded());
    }
}
