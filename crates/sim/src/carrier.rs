//! What a node does with what its replicas say to those of others: one queue for each peer. Acks wait until the next frame, and
//! only the newest of each partition goes. Probes of all partitions go together, one question in flight a peer: what is asked
//! meanwhile waits for its answer. It decides nothing, and knows of a message only what it has to.

use henge_cluster::replica::{Body, Message};
use henge_cluster::ring::NodeId;
use henge_cluster::topology::{Epoch, Incarnation};
use std::collections::BTreeMap;

/// A question that was not answered for so long was lost. Above a round trip of a slow network.
const PROBE_LOST_AFTER_MS: u64 = 60;

/// Partition, term, and a seq, a number or a term.
pub type Mark = (usize, Epoch, u64);

/// What goes to a peer at once.
#[derive(Clone, Debug)]
pub struct Frame<E, V> {
    /// By partitions, in the order in which they were said.
    pub messages: Vec<(usize, Message<E, V>)>,
    /// How far partitions have come.
    pub acks: Vec<Mark>,
    /// A question with its number: does anybody of these follow a later term?
    pub probes: Option<(u64, Vec<Mark>)>,
    /// An answer to a question of this number: those who do not.
    pub echoes: Option<(u64, Vec<Mark>)>,
}

/// See the head of the file.
pub struct Carrier<E, V> {
    peers: BTreeMap<NodeId, Peer<E, V>>,
    questions: u64,
}

struct Peer<E, V> {
    incarnation: Incarnation,
    messages: Vec<(usize, Message<E, V>)>,
    acks: BTreeMap<usize, (Epoch, u64)>,
    probes: BTreeMap<usize, (Epoch, u64)>,
    in_flight: Option<(u64, u64)>,
    echoes: Option<(u64, Vec<Mark>)>,
}

impl<E, V> Peer<E, V> {
    fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            messages: Vec::new(),
            acks: BTreeMap::new(),
            probes: BTreeMap::new(),
            in_flight: None,
            echoes: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.acks.is_empty()
            && self.probes.is_empty()
            && self.echoes.is_none()
    }
}

impl<E, V> Default for Carrier<E, V> {
    fn default() -> Self {
        Self {
            peers: BTreeMap::new(),
            questions: 0,
        }
    }
}

impl<E, V> Carrier<E, V> {
    /// Takes what a replica says to a peer.
    pub fn put(
        &mut self,
        partition: usize,
        to: NodeId,
        incarnation: Incarnation,
        message: Message<E, V>,
    ) {
        let new = || Peer::new(incarnation);
        let peer = self.peers.entry(to).or_insert_with(new);
        if peer.incarnation < incarnation {
            // What was for an earlier start of it is for nobody.
            *peer = new();
        } else if peer.incarnation > incarnation {
            return;
        }
        let newest = |marks: &mut BTreeMap<usize, (Epoch, u64)>, seq| {
            let mark = marks.entry(partition).or_default();
            *mark = (*mark).max((message.term, seq));
        };
        match message.body {
            Body::Ack { applied } => newest(&mut peer.acks, applied),
            Body::Probe { number } => newest(&mut peer.probes, number),
            Body::Echo { number } if peer.echoes.is_some() => {
                let (_, marks) = peer.echoes.as_mut().expect("it is being answered");
                marks.push((partition, message.term, number));
            }
            _ => peer.messages.push((partition, message)),
        }
    }

    /// What the replicas say next to a peer answers its question, of this number.
    pub fn begin_answer(&mut self, to: NodeId, incarnation: Incarnation, number: u64) {
        let new = || Peer::new(incarnation);
        let peer = self.peers.entry(to).or_insert_with(new);
        if peer.incarnation != incarnation {
            *peer = new();
        }
        let earlier = peer.echoes.take();
        // A question that was asked anew, as its answer was taken for lost, has it with the newer one.
        let marks = earlier.map_or_else(Vec::new, |(_, marks)| marks);
        peer.echoes = Some((number, marks));
    }

    /// A peer has answered a question.
    pub fn answered(&mut self, from: NodeId, number: u64) {
        if let Some(peer) = self.peers.get_mut(&from)
            && peer.in_flight.is_some_and(|(asked, _)| asked == number)
        {
            peer.in_flight = None;
        }
    }

    /// What is to go now.
    pub fn flush(&mut self, now_ms: u64, mut each: impl FnMut(NodeId, Incarnation, Frame<E, V>)) {
        let marks = |marks: BTreeMap<usize, (Epoch, u64)>| -> Vec<Mark> {
            let marks = marks.into_iter();
            marks.map(|(p, (term, seq))| (p, term, seq)).collect()
        };
        for (&to, peer) in &mut self.peers {
            if peer.is_empty() {
                continue;
            }
            let is_asking = peer
                .in_flight
                .is_some_and(|(_, at)| now_ms < at + PROBE_LOST_AFTER_MS);
            let probes = if is_asking || peer.probes.is_empty() {
                None
            } else {
                self.questions += 1;
                peer.in_flight = Some((self.questions, now_ms));
                Some((self.questions, marks(std::mem::take(&mut peer.probes))))
            };
            let frame = Frame {
                messages: std::mem::take(&mut peer.messages),
                acks: marks(std::mem::take(&mut peer.acks)),
                probes,
                echoes: peer.echoes.take(),
            };
            let says_nothing = frame.messages.is_empty()
                && frame.acks.is_empty()
                && frame.probes.is_none()
                && frame.echoes.is_none();
            if !says_nothing {
                each(to, peer.incarnation, frame);
            }
        }
    }

    /// Probes wait for an answer of another.
    pub fn has_waiting(&self) -> bool {
        self.peers.values().any(|peer| !peer.probes.is_empty())
    }
}
