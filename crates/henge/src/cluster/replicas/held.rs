//! Copies that come to this node wait while its log is behind: what they bring would fill the room that the log has, and writes of
//! clients be refused for want of it. Who copies asks for each part, so a part that is not asked for yet does not come. What a replica
//! copies that is to lead is not held: nobody is answered before it has that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use henge_cluster::replica::{Body, CopyId, MessageOf};
use henge_cluster::ring::NodeId;
use henge_cluster::store::Served;
use henge_cluster::topology::Incarnation;
use henge_wire::Partition;
use parking_lot::Mutex;

/// What a replica says to one of another node.
type Said = (NodeId, Incarnation, MessageOf<Served>);

/// See the head of the file.
#[derive(Default)]
pub(super) struct Held {
    is_on: AtomicBool,
    asks: Mutex<Asks>,
}

#[derive(Default)]
struct Asks {
    /// The last copies of replicas that are to lead.
    leading: BTreeMap<Partition, CopyId>,
    /// One of each partition, as that copies from one place at a time. One that has begun anew meanwhile asks anew, and nobody minds what
    /// the one before it asked.
    held: BTreeMap<Partition, Said>,
}

impl Held {
    /// What is said goes on, unless it asks for the next part of a copy and those are held.
    pub(super) fn pass(&self, partition: Partition, said: Said) -> Option<Said> {
        match said.2.body {
            Body::Pull { id, wanted, .. } => {
                let leading = &mut self.asks.lock().leading;
                if wanted.is_some() {
                    leading.insert(partition, id);
                } else {
                    leading.remove(&partition);
                }
            }
            Body::Next { id, .. } if self.is_on.load(Ordering::Relaxed) => {
                let mut asks = self.asks.lock();
                if asks.leading.get(&partition) != Some(&id) {
                    asks.held.insert(partition, said);
                    return None;
                }
            }
            _ => {}
        }
        Some(said)
    }

    /// Holds them from now on, or does not; gives what is held no longer. One that comes at the same moment and is kept goes on with the
    /// next call.
    pub(super) fn set(&self, is_on: bool) -> BTreeMap<Partition, Said> {
        self.is_on.store(is_on, Ordering::Relaxed);
        if is_on {
            return BTreeMap::new();
        }
        std::mem::take(&mut self.asks.lock().held)
    }
}

#[cfg(test)]
mod tests {
    use henge_wire::Version;

    use super::*;

    #[test]
    fn parts_are_asked_for_when_there_is_room() {
        let held = Held::default();
        let said = |body| (NodeId(2), 1, MessageOf::<Served> { term: 3, body });
        let next = |number, id| said(Body::Next { id, number });
        let pull = |id, wanted| {
            said(Body::Pull {
                id,
                common: 0,
                wanted,
                keys: Vec::new(),
            })
        };
        let passes = |number, said| {
            let partition = Partition::new(number).expect("it is one");
            held.pass(partition, said).is_some()
        };
        assert!(passes(0, next(1, 1)));
        assert!(held.set(true).is_empty());
        assert!(!passes(0, next(2, 1)) && !passes(1, next(7, 1)));
        assert!(passes(0, said(Body::Ack { applied: 1 })), "it is no copy's");
        // It has begun anew.
        assert!(!passes(0, next(1, 2)));
        // That of who is to lead, and the next one, that is to follow.
        assert!(passes(2, pull(4, Some(Version::new(3, 1)))) && passes(2, next(1, 4)));
        assert!(passes(2, pull(5, None)) && !passes(2, next(1, 5)));
        let asks = held.set(false).into_iter();
        let asks: Vec<_> = asks
            .map(|(partition, said)| (partition.number(), said))
            .collect();
        assert_eq!(asks, [(0, next(1, 2)), (1, next(7, 1)), (2, next(1, 5))]);
        assert!(passes(0, next(3, 2)));
        assert!(held.set(false).is_empty());
    }
}
