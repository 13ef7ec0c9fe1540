//! What a connection has said about itself, and what holds for its next commands.

use std::sync::Arc;

use henge_wire::resp::writer::Protocol;

use super::acknowledged::Writes;
use super::clients::Client;
use crate::access::caller::Caller;
use crate::access::entry::DEFAULT_USER;
use crate::audit::{Action, Outcome};
use crate::config::ConsistencyLevel;
use crate::traces::Context;

/// Which replies a client wants, by `CLIENT REPLY`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Replies {
    #[default]
    All,
    /// None until it says otherwise.
    None,
    /// Not that of the command after this one.
    SkipNext,
    /// Not that of this command.
    Skip,
}

/// Which trace the next command of a connection is in.
#[derive(Debug)]
pub(crate) enum NextTrace {
    /// The one that its client has told by `HENGE TRACEPARENT`, which may be none that is recorded.
    Told(Context),
    /// One of its own: it was to be traced, and could not run yet.
    Chosen,
}

/// See the head of the file.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is what another command says of the connection"
)]
pub(crate) struct Session {
    pub(crate) protocol: Protocol,
    /// The consistency level that it chose; the default of the node until then.
    pub(crate) level: Option<ConsistencyLevel>,
    /// Its reads are answered by any replica, whatever its level.
    pub(crate) reads_any: bool,
    pub(crate) replies: Replies,
    /// Its reads do not count as uses.
    pub(crate) no_touch: bool,
    /// It has asked for the map of the cluster: it can go elsewhere itself, and asks each node for its own.
    pub(crate) knows_map: bool,
    /// None where that is left to this node.
    pub(crate) next_trace: Option<Box<NextTrace>>,
    /// What it has written to, among several nodes.
    pub(super) writes: Writes,
    /// It stands for another node, which has sent here what its clients want of this one.
    pub(crate) is_forwarded: bool,
    /// What others see of it.
    pub(crate) client: Arc<Client>,
    /// Who it is, and what it may do.
    pub(crate) caller: Caller,
}

/// How what a connection asks is to be done and told: what is asked again later is so in the manner in which it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Manner {
    pub(crate) protocol: Protocol,
    pub(crate) level: Option<ConsistencyLevel>,
    pub(crate) reads_any: bool,
    pub(crate) no_touch: bool,
}

impl Session {
    pub(crate) fn manner(&self) -> Manner {
        Manner {
            protocol: self.protocol,
            level: self.level,
            reads_any: self.reads_any,
            no_touch: self.no_touch,
        }
    }

    pub(crate) fn new(client: Arc<Client>, caller: Caller) -> Self {
        Self {
            protocol: Protocol::default(),
            level: None,
            reads_any: false,
            replies: Replies::default(),
            no_touch: false,
            knows_map: false,
            next_trace: None,
            writes: Writes::default(),
            is_forwarded: false,
            caller,
            client,
        }
    }

    /// Of clients of another node.
    pub(crate) fn forwarded(client: Arc<Client>, protocol: Protocol, no_touch: bool) -> Self {
        Self {
            protocol,
            no_touch,
            is_forwarded: true,
            ..Self::new(client, Caller::node())
        }
    }

    /// Something that it has done, or was denied, for the audit log.
    pub(crate) fn action<'a>(
        &'a self,
        action: &'a str,
        outcome: Outcome,
        code: Option<&'a str>,
    ) -> Action<'a> {
        Action {
            protocol: "redis",
            client: Some(self.client.address),
            key: self.caller.name(),
            what: action,
            outcome,
            code,
        }
    }

    /// Whether it means all nodes by a command that names no key.
    pub(crate) fn asks_for_all(&self) -> bool {
        !self.knows_map && !self.is_forwarded
    }

    /// Chooses the version of the protocol for all replies from now on.
    pub(crate) fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.client.speaks(protocol);
    }

    /// As it was when the connection was new, for `RESET`.
    pub(crate) fn reset(&mut self) {
        self.client.reset();
        self.caller.forget();
        *self = Self::new(Arc::clone(&self.client), self.caller.clone());
    }

    /// Has lists of clients show who it is.
    pub(crate) fn show_name(&self) {
        let name = self.caller.name().unwrap_or(DEFAULT_USER);
        name.clone_into(&mut self.client.details.lock().user);
    }
}
