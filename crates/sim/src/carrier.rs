//! What a node says to the others, as a real one does: an outbox for each of them.

use crate::store::Store;
use henge_cluster::carrier::{Echoes, FrameOf, Mark, Outbox, Waiter};
use henge_cluster::replica::{MessageOf, RequestId, Seen, Types, Vouch, Vouching};
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
    waiting: BTreeMap<RequestId, (Vouched<S>, Vouching)>,
    /// Since when the way to others is cut.
    cut_ms: BTreeMap<NodeId, u64>,
}

/// A way that is cut for so long is one to nowhere: what real nodes take for that is longer, as all in their networks is.
const AWAY_AFTER_MS: u64 = 100;

/// Of a partition what was seen.
pub type Vouched<S> = (Partition, Seen<<<S as Store>::Kind as Types>::Reply>);

impl<S: Store> Carrier<S> {
    /// One with these bounds of each outbox, and of each frame.
    pub fn new(most_append_bytes: usize, most_frame_bytes: usize) -> Self {
        Self {
            outboxes: BTreeMap::new(),
            most_append_bytes,
            most_frame_bytes,
            adoptions: 0,
            waiting: BTreeMap::new(),
            cut_ms: BTreeMap::new(),
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

    /// A read waits until others vouch for what it saw; it is given back if these are too few.
    pub fn wait(
        &mut self,
        partition: Partition,
        vouch: Vouch<<S::Kind as Types>::Reply>,
    ) -> Option<Vouched<S>> {
        let Vouch {
            seen,
            others,
            needed,
        } = vouch;
        let (id, term) = (seen.id, seen.term);
        let mut asked = Vec::new();
        for (node, incarnation) in others {
            if asked.len() == needed {
                break;
            }
            let outbox = self.outbox(node);
            let number = outbox.wait(incarnation, partition, term, id);
            asked.extend(number.map(|number| (node, number)));
        }
        let Some(vouching) = Vouching::by(needed, asked) else {
            return Some((partition, seen));
        };
        self.waiting.insert(id, ((partition, seen), vouching));
        None
    }

    /// A read is waited for no longer: it was one of these.
    pub fn expire(&mut self, id: RequestId) -> bool {
        self.waiting.remove(&id).is_some()
    }

    /// A peer has answered a question. Gives the echoes that are in that beside those that are named, and the reads for which enough
    /// have vouched, or too few.
    pub fn answered(
        &mut self,
        from: NodeId,
        echoes: &Echoes,
    ) -> (Vec<Mark>, Vec<(Vouched<S>, bool)>) {
        let answered = self.outbox(from).answered(echoes);
        let number = echoes.number;
        let heard = answered
            .waiters
            .into_iter()
            .map(|(waiter, asked)| (waiter, asked.max(number)));
        (answered.unnamed, self.hear(from, heard, answered.vouches))
    }

    /// Reads for which nobody vouches as a peer has not answered in time.
    pub fn given_up(&mut self, now_ms: u64) -> Vec<(Vouched<S>, bool)> {
        let given_up = self.outboxes.iter_mut();
        let given_up: Vec<(NodeId, Vec<Waiter>)> = given_up
            .map(|(&node, outbox)| (node, outbox.given_up(now_ms)))
            .collect();
        let mut done = Vec::new();
        for (node, waiters) in given_up {
            done.extend(self.hear(node, waiters, false));
        }
        done
    }

    fn hear(
        &mut self,
        from: NodeId,
        waiters: impl IntoIterator<Item = Waiter>,
        vouches: bool,
    ) -> Vec<(Vouched<S>, bool)> {
        let mut done = Vec::new();
        for (waiter, number) in waiters {
            let vouching = self.waiting.get_mut(&waiter);
            let heard = vouching.and_then(|(_, vouching)| vouching.hear(from, number, vouches));
            if let Some(vouched) = heard {
                let (seen, _) = self.waiting.remove(&waiter).expect("it was just there");
                done.push((seen, vouched));
            }
        }
        done
    }

    /// What is to go now, where some ways may be cut.
    pub fn flush(
        &mut self,
        now_ms: u64,
        is_cut: impl Fn(NodeId) -> bool,
        mut each: impl FnMut(NodeId, FrameOf<S::Kind>),
    ) {
        for (&to, outbox) in &mut self.outboxes {
            if is_cut(to) {
                let since_ms = *self.cut_ms.entry(to).or_insert(now_ms);
                if now_ms - since_ms >= AWAY_AFTER_MS {
                    while outbox.disconnected() {}
                }
            } else if self.cut_ms.remove(&to).is_some() {
                outbox.reconnected();
            }
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
