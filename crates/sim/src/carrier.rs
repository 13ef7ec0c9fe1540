//! What a node says to the others, as a real one does: an outbox for each of them.

use crate::store::Store;
use henge_cluster::carrier::{Echoes, FrameOf, Mark, Outbox};
use henge_cluster::replica::MessageOf;
use henge_cluster::ring::NodeId;
use henge_cluster::topology::Incarnation;
use henge_wire::Partition;
use std::collections::BTreeMap;

/// See the head of the file.
pub struct Carrier<S: Store> {
    outboxes: BTreeMap<NodeId, Outbox<S::Kind>>,
    most_append_bytes: usize,
    most_frame_bytes: usize,
    /// How often replicas of the node have adopted a term.
    adoptions: u64,
}

impl<S: Store> Carrier<S> {
    /// One with these bounds of each outbox, and of each frame.
    pub fn new(most_append_bytes: usize, most_frame_bytes: usize) -> Self {
        Self {
            outboxes: BTreeMap::new(),
            most_append_bytes,
            most_frame_bytes,
            adoptions: 0,
        }
    }

    fn outbox(&mut self, to: NodeId) -> &mut Outbox<S::Kind> {
        let new = || Outbox::new(self.most_append_bytes);
        self.outboxes.entry(to).or_insert_with(new)
    }

    /// Takes what a replica says to a peer.
    pub fn put(
        &mut self,
        partition: Partition,
        to: NodeId,
        incarnation: Incarnation,
        message: MessageOf<S::Kind>,
    ) {
        self.outbox(to).put(partition, incarnation, message);
    }

    /// What the replicas say next to a peer answers its question, of this number.
    pub fn begin_answer(&mut self, to: NodeId, incarnation: Incarnation, number: u64) {
        let adoptions = self.adoptions;
        self.outbox(to).begin_answer(incarnation, number, adoptions);
    }

    /// A replica of the node has adopted a term.
    pub fn adopted(&mut self) {
        self.adoptions += 1;
    }

    /// All have said what they do.
    pub fn end_answer(&mut self, to: NodeId) {
        self.outbox(to).end_answer();
    }

    /// A peer has answered a question. Gives the echoes that are in that beside those that are named.
    pub fn answered(&mut self, from: NodeId, echoes: &Echoes) -> Vec<Mark> {
        self.outbox(from).answered(echoes)
    }

    /// What is to go now.
    pub fn flush(&mut self, now_ms: u64, mut each: impl FnMut(NodeId, FrameOf<S::Kind>)) {
        for (&to, outbox) in &mut self.outboxes {
            while let Some(frame) = outbox.take(now_ms, self.most_frame_bytes) {
                each(to, frame);
            }
        }
    }

    /// Probes wait for an answer of another.
    pub fn has_waiting(&self) -> bool {
        self.outboxes.values().any(Outbox::has_probes)
    }

    /// How many entries there was no room for.
    pub fn dropped(&self) -> u64 {
        self.outboxes.values().map(Outbox::dropped).sum()
    }
}
