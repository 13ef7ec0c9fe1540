//! Whether this node may lead what its cluster agrees on. Not before it knows what it has kept and has listened for a leader; and one
//! that leads and cannot do what a leader does stands back, for as long as another needs to lead in its place. It knows times and
//! roles, and neither Raft nor gossip.

use std::time::{Duration, Instant};

use super::leading::UNHEARD;
use crate::cluster::raft::LEASE;

/// How long a leader that stands back is silent, and asks for no votes: another leads within half of it, if any can.
const STAND_BACK: Duration = Duration::from_secs(3);
/// If none can it leads on for so long, with what it knows, before it tries again.
const STAND_BACK_AGAIN: Duration = Duration::from_mins(1);

/// How this node stands in Raft.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// It does not lead.
    Follows,
    /// It leads, as it should.
    Leads,
    /// It leads, and hears no majority of the voters by datagrams.
    LeadsDeaf,
    /// It leads, and its start is not registered.
    LeadsOutside,
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Candidacy {
    begun: Instant,
    has_data: bool,
    has_listened: bool,
    /// Since when it leads though its start is not registered.
    leads_outside: Option<Instant>,
    /// When it let another lead.
    stood_back: Option<Instant>,
}

impl Candidacy {
    /// Of a process that begins at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            has_data: false,
            has_listened: false,
            leads_outside: None,
            stood_back: None,
        }
    }

    /// It is known what the node has kept.
    pub(super) fn has_data(&mut self) {
        self.has_data = true;
    }

    /// Takes how the node stands at `now`, and gives why it stands back from now on, if it does.
    pub(super) fn look(
        &mut self,
        now: Instant,
        role: Role,
        is_only_voter: bool,
    ) -> Option<&'static str> {
        // Who has just started has not heard the leader yet, for whom others keep their votes.
        self.has_listened |= is_only_voter || now.duration_since(self.begun) >= LEASE;
        if role != Role::LeadsOutside || is_only_voter {
            self.leads_outside = None;
        }
        // Nobody else can lead where it is the only one that votes.
        if is_only_voter {
            return None;
        }
        let why = match role {
            Role::Follows | Role::Leads => return None,
            Role::LeadsDeaf => "hears no majority of the voters by datagrams (UDP)",
            Role::LeadsOutside => {
                let since = *self.leads_outside.get_or_insert(now);
                if now.duration_since(since) < UNHEARD {
                    return None;
                }
                "leads and is in no cluster"
            }
        };
        if self.stood_back_within(STAND_BACK_AGAIN, now) {
            return None;
        }
        self.stood_back = Some(now);
        Some(why)
    }

    /// Whether it may ask for votes, and go on leading.
    pub(super) fn may_lead(&self, now: Instant) -> bool {
        self.has_data && self.has_listened && !self.stands_back(now)
    }

    /// Whether it lets another lead.
    pub(super) fn stands_back(&self, now: Instant) -> bool {
        self.stood_back_within(STAND_BACK, now)
    }

    fn stood_back_within(&self, time: Duration, now: Instant) -> bool {
        self.stood_back
            .is_some_and(|at| now.duration_since(at) < time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that has been up for long.
    fn grown() -> (Candidacy, Instant) {
        let begun = Instant::now();
        let mut candidacy = Candidacy::new(begun);
        candidacy.has_data();
        let now = begun + LEASE;
        assert_eq!(candidacy.look(now, Role::Follows, false), None);
        (candidacy, now)
    }

    #[test]
    fn who_starts_leads_when_it_has_its_data_and_has_listened() {
        let begun = Instant::now();
        let almost = begun + LEASE.mul_f64(0.99);
        for (has_data, now, is_only_voter, expected) in [
            (false, begun + LEASE, false, false),
            (true, almost, false, false),
            (true, begun + LEASE, false, true),
            // There is no leader that it could have missed.
            (true, begun, true, true),
            (false, begun, true, false),
        ] {
            let mut candidacy = Candidacy::new(begun);
            if has_data {
                candidacy.has_data();
            }
            candidacy.look(now, Role::Follows, is_only_voter);
            let case = (has_data, now - begun, is_only_voter);
            assert_eq!(candidacy.may_lead(now), expected, "{case:?}");
        }
    }

    /// It has listened as the only one that votes; that others vote since then does not undo it.
    #[test]
    fn who_may_lead_goes_on_when_others_vote_too() {
        let begun = Instant::now();
        let mut candidacy = Candidacy::new(begun);
        candidacy.has_data();
        candidacy.look(begun, Role::Leads, true);
        candidacy.look(begun, Role::Leads, false);
        assert!(candidacy.may_lead(begun));
    }

    #[test]
    fn a_deaf_leader_that_nobody_follows_leads_on_and_tries_again() {
        let (mut candidacy, first) = grown();
        assert!(candidacy.look(first, Role::LeadsDeaf, false).is_some());
        assert!(!candidacy.may_lead(first + STAND_BACK.mul_f64(0.99)));
        let again = first + STAND_BACK;
        assert_eq!(candidacy.look(again, Role::LeadsDeaf, false), None);
        assert!(candidacy.may_lead(again));
        let before = first + STAND_BACK_AGAIN.mul_f64(0.99);
        assert_eq!(candidacy.look(before, Role::LeadsDeaf, false), None);
        assert!(candidacy.may_lead(before));
        let second = first + STAND_BACK_AGAIN;
        assert!(candidacy.look(second, Role::LeadsDeaf, false).is_some());
        assert!(!candidacy.may_lead(second));
    }

    #[test]
    fn a_leader_in_no_cluster_gives_up_when_that_lasts() {
        let (mut candidacy, first) = grown();
        assert_eq!(candidacy.look(first, Role::LeadsOutside, false), None);
        let inside = first + UNHEARD / 2;
        assert_eq!(candidacy.look(inside, Role::Leads, false), None);
        // Not the time before it was in.
        let outside = first + UNHEARD;
        assert_eq!(candidacy.look(outside, Role::LeadsOutside, false), None);
        let late = outside + UNHEARD;
        assert!(candidacy.look(late, Role::LeadsOutside, false).is_some());
        assert!(candidacy.stands_back(late));
    }

    #[test]
    fn who_votes_alone_leads_whatever_it_hears() {
        for role in [Role::LeadsDeaf, Role::LeadsOutside] {
            let (mut candidacy, now) = grown();
            assert_eq!(candidacy.look(now, role, true), None);
            let late = now + UNHEARD;
            assert_eq!(candidacy.look(late, role, true), None);
            assert!(candidacy.may_lead(late));
        }
    }
}
