//! What a view says of a replica's place that is asked for with each request. It is read once, when the view comes: a placement lies
//! elsewhere in memory, as do its lists, and each is one more place to wait for.

use super::View;
use super::vouch::Voucher;
use crate::ring::NodeId;
use crate::topology::{Epoch, Placement};
use smallvec::SmallVec;

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Placed {
    /// It is a quorum by itself.
    pub(super) is_quorum: bool,
    /// There is no other replica, nor is there to be one.
    pub(super) is_only: bool,
    /// The term at whose end another is to lead in place of who does.
    pub(super) ends: Option<Epoch>,
    /// So many others have to vouch for what a read has seen; 0 where nobody can.
    pub(super) vouchers_needed: usize,
    /// The others that can, in the order in which they are to be asked.
    pub(super) vouchers: SmallVec<[Voucher; super::vouch::IN_PLACE]>,
}

impl Placed {
    pub(super) fn of(view: &View, me: NodeId) -> Self {
        let Placement {
            term,
            old,
            voters,
            change,
            heir,
            ..
        } = &*view.placement;
        let counts = |node: &NodeId| old.contains(node) && voters.contains(node);
        // While replicas change quorums are of two lists, and a leader asks by itself.
        let is_vouched_for = change.is_none() && counts(&me) && old.len() > 1;
        let vouchers = view
            .incarnations
            .iter()
            .filter(|(node, _)| is_vouched_for && **node != me && counts(node));
        let mut vouchers: SmallVec<_> = vouchers.map(|(&node, &start)| (node, start)).collect();
        vouchers.sort_unstable_by_key(|&(node, _)| (node < me, node));
        Self {
            is_quorum: view.placement.is_quorum(|node| node == me),
            is_only: *old == [me] && change.is_none(),
            ends: heir.map(|_| *term),
            vouchers_needed: if is_vouched_for { old.len() / 2 } else { 0 },
            vouchers,
        }
    }
}
