//! Requests whose answers wait: for the log, for a commit, for a probe, for all. Replies are made when a request runs; here is
//! only when they may be shown.

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

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Waiting<R> {
    requests: VecDeque<Wait<R>>,
}

/// One request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Wait<R> {
    pub(super) id: RequestId,
    pub(super) level: Level,
    pub(super) reply: R,
    /// What its reply shows, or did.
    pub(super) seq: u64,
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
            requests: VecDeque::new(),
        }
    }
}

impl<R> Waiting<R> {
    pub(super) fn push(&mut self, wait: Wait<R>) {
        self.requests.push_back(wait);
    }

    /// Probes are numbered anew: those that were sent count for nothing.
    pub(super) fn ask_again(&mut self) {
        for wait in &mut self.requests {
            wait.probe = wait.probe.min(1);
        }
    }

    /// The newest probe that somebody waits for.
    pub(super) fn newest_probe(&self) -> u64 {
        self.requests
            .iter()
            .map(|wait| wait.probe)
            .max()
            .unwrap_or(0)
    }

    /// Answers those that may be.
    pub(super) fn answer(
        &mut self,
        reached: Reached,
        answer: &mut impl FnMut(RequestId, Answer<R>),
    ) {
        for _ in 0..self.requests.len() {
            let Some(wait) = self.requests.pop_front() else {
                return;
            };
            if wait.may_be_shown(reached) {
                answer(wait.id, Answer::Reply(wait.reply));
            } else {
                self.requests.push_back(wait);
            }
        }
    }

    /// Answers one that waits no longer, or all where none is named.
    fn end(&mut self, id: Option<RequestId>, answer: &mut impl FnMut(RequestId, Answer<R>)) {
        self.requests.retain(|wait| {
            let ends = id.is_none_or(|id| id == wait.id);
            if ends {
                let outcome = if wait.is_stamped {
                    Answer::Unknown
                } else {
                    Answer::NotStamped
                };
                answer(wait.id, outcome);
            }
            !ends
        });
    }

    /// The leader leads no more: what it has stamped is unknown.
    pub(super) fn give_up(&mut self, answer: &mut impl FnMut(RequestId, Answer<R>)) {
        self.end(None, answer);
    }

    /// Whoever asked waits no longer.
    pub(super) fn expire(&mut self, id: RequestId, answer: &mut impl FnMut(RequestId, Answer<R>)) {
        self.end(Some(id), answer);
    }
}

impl<R> Wait<R> {
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
