//! The engine as a node asks it: a reply is shown where the request runs, while its shard lends it, and nothing of it is kept. What
//! waits in the machine is only that it may be told.

use super::{EncodedEffects, Request, Value, Ways};
use crate::replica::{Record, Types};
use henge_wire::{Outcome, Reply};
use std::fmt;

/// See the head of the file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Served {}

/// What a request came to.
#[derive(Debug)]
pub enum Shown<'r> {
    /// A command.
    Reply(Reply<'r>),
    /// A transaction.
    Outcome(Outcome),
    /// It was looked at.
    Looked,
}

/// Sees what a request came to, at most once.
pub trait Show {
    /// Takes what it needs. Nobody may be told before the machine has answered.
    fn show(&self, shown: Shown<'_>);
}

/// A request, and who sees what it comes to.
#[derive(Clone, Copy)]
pub struct Asked<'r> {
    /// It.
    pub request: Request<'r>,
    /// Who.
    pub show: &'r dyn Show,
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.request.fmt(f)
    }
}

impl Types for Served {
    type Request<'r> = Asked<'r>;
    type Reply = ();
    type Effects = EncodedEffects;
    type Value = Value;

    fn bytes(record: &Record<Value>) -> usize {
        super::bytes(record)
    }

    fn effects_bytes(effects: &EncodedEffects) -> usize {
        effects.len()
    }
}

impl Ways for Served {
    fn request<'r: 'r>(asked: &Asked<'r>) -> Request<'r> {
        asked.request
    }

    fn reply(asked: &Asked<'_>, shown: Shown<'_>) {
        asked.show.show(shown);
    }
}
