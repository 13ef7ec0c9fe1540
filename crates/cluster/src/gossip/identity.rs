//! What a member is to the library below: the same one as long as its instance is, wherever it is reached, and the newer one by
//! its starts. It does not renew itself: who was declared down begins anew, with nothing that it believed while it was cut off.

use std::net::SocketAddr;

use super::Peer;

/// The instance of an identity that stands for whoever is at an address.
pub(super) const ANYONE: u64 = 0;

/// A start of a member, and how often that was declared down and came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) peer: Peer,
    /// Grows by one each time.
    pub(super) returns: u32,
}

impl Identity {
    /// Whoever is at an address.
    pub(super) fn at(address: SocketAddr) -> Self {
        let peer = Peer {
            instance: ANYONE,
            incarnation: 0,
            address,
        };
        Self { peer, returns: 0 }
    }

    /// The address decides between two that were started from copies of one directory; both are wrong, but all agree on one.
    fn age(&self) -> (u64, u32, SocketAddr) {
        (self.peer.incarnation, self.returns, self.peer.address)
    }

    /// Whether there was this one before the other, of the same instance.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        self.age() < other.age()
    }
}

impl foca::Identity for Identity {
    type Addr = u64;

    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> u64 {
        self.peer.instance
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        other.is_older_than(self)
    }
}
