//! What one node does by itself. That depends on the node and on what comes to it and on nothing else in the world, so it is
//! worked out once, and looked up in all the other states in which the same comes to the same node.

use super::laws::{self, Law};
use super::sealed::{Sealed, digest};
use super::table::{Ledger, Order};
use super::world::Report;
use foldhash::quality::FixedState;
use henge_cluster::replica::{
    Answer, Body, Input, Level, MessageOf, Output, Replica, RequestId, Table, View,
};
use henge_cluster::ring::NodeId;
use henge_cluster::testing::map::{Request, Shown};
use henge_cluster::topology::{Epoch, Incarnation};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// A node that runs: one that does not is one that nothing comes to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Its present start.
    pub incarnation: Incarnation,
    /// The machine.
    pub replica: Replica<Ledger>,
    /// Its table.
    pub table: Ledger,
    /// What it knows of the topology, and the number of that.
    pub view: Option<Sealed<View>>,
    /// The epoch of the view; 0 before there is one.
    pub epoch: usize,
}

/// A message on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Flight {
    /// Whose it is.
    pub from: (NodeId, Incarnation),
    /// Whom it is for.
    pub to: (NodeId, Incarnation),
    /// What it says.
    pub message: MessageOf<Ledger>,
    /// The order behind the end of a copy.
    pub order: Option<Order>,
}

/// What comes to a node.
#[derive(Clone, Hash, Debug)]
pub enum Cause {
    /// A message.
    Message(Sealed<Flight>),
    /// An epoch.
    View(usize, Sealed<View>),
    /// What it has written is kept.
    Keep,
    /// Some time has passed.
    Tick,
    /// A client asks.
    Request(RequestId, Level, Request),
}

/// What comes of it.
#[derive(Debug)]
pub struct Effect {
    /// The node is this from now on.
    pub after: Sealed<Node>,
    /// What leaves it.
    pub outputs: Vec<Leaving>,
    /// A law of what is in one node.
    pub broken: Option<Law>,
}

/// What leaves a node.
#[derive(Debug)]
pub enum Leaving {
    /// A message.
    Flight(Sealed<Flight>),
    /// An answer.
    Answer(RequestId, Answer<Shown>),
    /// A report to the topology.
    Report(Report),
}

/// Places with a lock of their own, so that explorers seldom wait for each other.
const PLACES: usize = 64;

type Place = Mutex<HashMap<(u64, u64), Arc<Effect>, FixedState>>;

/// What has been worked out.
pub struct Effects {
    places: Vec<Place>,
    keeps_at_once: bool,
}

impl Effects {
    /// Nothing yet; in a world in which what is written is kept at once, or is not.
    pub fn new(keeps_at_once: bool) -> Self {
        let place = |_| Mutex::new(HashMap::with_hasher(FixedState::default()));
        let places = (0..PLACES).map(place).collect();
        Self {
            places,
            keeps_at_once,
        }
    }

    /// What comes of it.
    pub fn of(&self, node: &Sealed<Node>, cause: Cause) -> Arc<Effect> {
        let key = (node.digest(), digest(&cause));
        let place = &self.places[(key.0 ^ key.1) as usize % PLACES];
        let mut known = place.lock().unwrap_or_else(PoisonError::into_inner);
        let effect = known
            .entry(key)
            .or_insert_with(|| Arc::new(node.feel(cause, self.keeps_at_once)));
        effect.clone()
    }
}

impl Node {
    /// The term in which it is aligned.
    pub fn aligned(&self) -> Epoch {
        self.table.progress().last.term()
    }

    fn feel(&self, cause: Cause, keeps_at_once: bool) -> Effect {
        let mut node = self.clone();
        let mut outputs = Vec::new();
        let run = AssertUnwindSafe(|| {
            node.take(cause, &mut outputs);
            while keeps_at_once && node.table.unkept() > 0 {
                node.take(Cause::Keep, &mut outputs);
            }
        });
        if catch_unwind(run).is_err() {
            return Effect {
                after: Sealed::new(self.clone()),
                outputs: Vec::new(),
                broken: Some(Law::Assert),
            };
        }
        let outputs = outputs.into_iter().filter_map(|output| node.sort(output));
        Effect {
            outputs: outputs.collect(),
            broken: laws::of_one(self, &node),
            after: Sealed::new(node),
        }
    }

    fn take(&mut self, cause: Cause, outputs: &mut Vec<Output<Ledger>>) {
        let input = match cause {
            Cause::Message(flight) => {
                self.table.arriving.clone_from(&flight.order);
                let (from, start) = flight.from;
                Input::Message(from, start, flight.message.clone())
            }
            Cause::View(epoch, view) => {
                self.epoch = epoch;
                self.view = Some(view.clone());
                Input::View(View::clone(&view))
            }
            Cause::Keep => {
                let written = self.replica.written(&self.table);
                self.table.keep();
                Input::Kept(written)
            }
            Cause::Tick => Input::Tick,
            Cause::Request(id, level, request) => Input::Request(id, level, request),
        };
        self.replica.handle(&mut self.table, 0, input);
        self.table.arriving = None;
        outputs.extend(std::iter::from_fn(|| self.replica.poll()));
    }

    fn sort(&self, output: Output<Ledger>) -> Option<Leaving> {
        Some(match output {
            // Nobody does anything about it.
            Output::Send(_, _, message) if matches!(message.body, Body::Refused { .. }) => {
                return None;
            }
            Output::Send(to, incarnation, message) => {
                let end = match &message.body {
                    Body::Part { end, .. } => end.as_ref(),
                    _ => None,
                };
                // As far as it was where the end says: it may be said again when more has been written.
                let order = end.map(|end| {
                    let length = self.table.order.len().min(end.at.seq() as usize);
                    self.table.order[..length].to_vec()
                });
                Leaving::Flight(Sealed::new(Flight {
                    from: (self.id, self.incarnation),
                    to: (to, incarnation),
                    message,
                    order,
                }))
            }
            Output::Answer(request, answer) => Leaving::Answer(request, answer),
            Output::Opened(term) => Leaving::Report(Report::Opened(term)),
            Output::Aligned(term) => Leaving::Report(Report::Aligned(term)),
            // The simulator knows whether they are true.
            // And another leads whether one has come to rest or not.
            Output::Lost(_) | Output::Unsettled(_) | Output::Rested(_) => return None,
            Output::Vouch(_) => unreachable!("its replicas ask by themselves"),
            Output::Queued { .. } => unreachable!("its replicas copy at once"),
        })
    }
}
