//! Reads at QUORUM of what is committed. All that they wait for is that a quorum follows no later term, of a question that was asked
//! after they came (rule 9). That is no matter of one partition: who has adopted nothing since it echoed a probe of this term follows
//! it still, and an answer that says so says it of all partitions at once. So the machine leaves these to the carrier, which has many
//! of them wait for one answer (see [`Outbox::wait`](crate::carrier::Outbox::wait)), and takes back those for which there is none.

use super::answers::{Level, RequestId, Wait};
use super::table::Types;
use super::{Answer, Output, Replica, Role};
use crate::ring::NodeId;
use crate::topology::{Epoch, Incarnation};
use smallvec::SmallVec;

/// As many as are kept in place: the other voters of five replicas.
pub(super) const IN_PLACE: usize = 4;

/// Another node, in this start of it.
pub type Voucher = (NodeId, Incarnation);

/// What a read has seen. It is committed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Seen<R> {
    /// The request.
    pub id: RequestId,
    /// What it is answered.
    pub reply: R,
    /// Its seq.
    pub seq: u64,
    /// The term in which its replica leads.
    pub term: Epoch,
}

/// Who has to say that they follow no later term, of a question that is asked from now on, before what was seen may be shown. The
/// carrier answers the request then, or gives it back by [`Input::Unvouched`](super::Input::Unvouched); also once its client waits no
/// longer it is the carrier's.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Vouch<R> {
    /// What for.
    pub seen: Seen<R>,
    /// The other voters, in these starts of them, in the order in which they are to be asked: as many as are needed, and others only
    /// where some of those cannot be. Each node begins with the one after it, so that all are asked as often.
    pub others: SmallVec<[Voucher; IN_PLACE]>,
    /// So many of them are enough.
    pub needed: usize,
}

/// Those who were asked to vouch for one read, and in which questions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vouching {
    needed: usize,
    asked: SmallVec<[(NodeId, u64); IN_PLACE]>,
}

impl Vouching {
    /// So many of these are to vouch, by their answers to the questions of these numbers, or to later ones. None if they are too few.
    pub fn by(needed: usize, asked: impl IntoIterator<Item = (NodeId, u64)>) -> Option<Self> {
        let asked: SmallVec<_> = asked.into_iter().collect();
        (asked.len() >= needed).then_some(Self { needed, asked })
    }

    /// One of them has answered a question, and vouches or does not. Says whether the read may be shown, or has to be given back, once
    /// that is known.
    pub fn hear(&mut self, from: NodeId, number: u64, vouches: bool) -> Option<bool> {
        let is_that = |(node, asked): &(NodeId, u64)| *node == from && *asked <= number;
        let place = self.asked.iter().position(is_that)?;
        self.asked.swap_remove(place);
        if vouches {
            self.needed -= 1;
        }
        if self.needed == 0 {
            return Some(true);
        }
        (self.asked.len() < self.needed).then_some(false)
    }
}

impl<T: Types> Replica<T> {
    /// Whether the carrier is to find out who follows this leader.
    pub(super) fn is_vouched_for(&self) -> bool {
        self.carrier.has_vouching && self.placed.vouchers_needed > 0
    }

    pub(super) fn ask_for_vouches(&mut self, id: RequestId, seq: u64, reply: T::Reply) {
        let Role::Leading(leading) = &self.role else {
            unreachable!("it has answered");
        };
        let vouch = Vouch {
            seen: Seen {
                id,
                reply,
                seq,
                term: leading.term,
            },
            others: self.placed.vouchers.clone(),
            needed: self.placed.vouchers_needed,
        };
        self.ready.push_back(Output::Vouch(vouch));
    }

    /// It asks by itself, if it leads in that term still. Else another may have led in between, and have done what was not seen.
    pub(super) fn unvouched(&mut self, seen: Seen<T::Reply>) {
        let Seen {
            id,
            reply,
            seq,
            term,
        } = seen;
        let probe = match &self.role {
            Role::Leading(leading) if leading.term == term => leading.asked() + 1,
            _ => {
                let none = Output::Answer(id, Answer::NotStamped);
                self.ready.push_back(none);
                return;
            }
        };
        self.waiting.push(Wait {
            id,
            level: Level::Quorum,
            reply,
            seq,
            term: 0,
            is_stamped: false,
            probe,
        });
        self.probe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_shown_once_enough_vouch_for_it_and_given_back_once_they_cannot() {
        let node = NodeId;
        let all = [(node(2), 5), (node(3), 8)];
        assert_eq!(Vouching::by(3, all), None);
        let one = Vouching::by(1, all).expect("there are two");
        let both = Vouching::by(2, all).expect("there are two");
        // Who has said it, in answer to which question, whether it does; and what comes of it for who needs one, and both.
        for (says, of_one, of_both) in [
            (&[(2, 5, true), (3, 8, true)][..], Some(true), Some(true)),
            (&[(2, 4, true), (3, 7, true)], None, None),
            (&[(2, 6, true)], Some(true), None),
            (&[(2, 5, true), (2, 6, true)], Some(true), None),
            (&[(9, 9, true), (2, 5, false)], None, Some(false)),
            (&[(2, 5, false), (3, 8, false)], Some(false), Some(false)),
            (&[(2, 5, false), (3, 8, true)], Some(true), Some(false)),
        ] {
            for (mut vouching, expected) in [(one.clone(), of_one), (both.clone(), of_both)] {
                let mut heard = says
                    .iter()
                    .map(|&(from, number, vouches)| vouching.hear(node(from), number, vouches));
                assert_eq!(heard.find_map(|heard| heard), expected, "{says:?}");
            }
        }
    }
}
