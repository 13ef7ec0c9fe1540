//! What one node's Raft asks another's, as bytes, over connections that others keep: a byte for the version, one for the kind of the
//! question, and JSON. It opens no connection and finds no node; it knows what each question is about and how often to ask again.
//!
//! ```text
//! question  u8 version | u8 kind | the question as JSON
//! answer    u8 version | the answer as JSON
//! ```

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use henge_cluster::agreed::Agreed;
use openraft::error::{
    Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::error::ConsensusError;
use super::file::Kept;
use super::types::{Snapshot, Types, Vote};

/// The version of questions and answers.
pub(super) const VERSION: u8 = 1;
/// How long a node that cannot be reached is left alone: a heartbeat, as it is missed for no longer than that when it is back.
const BACKOFF: Duration = Duration::from_millis(100);

/// What Raft needs of the connections between nodes.
pub(crate) trait Ask: Clone + Send + Sync + 'static {
    /// Sends a question of Raft to the node with this Raft id, last known at this address, and awaits its answer.
    fn ask(
        &self,
        to: u64,
        address: String,
        question: Vec<u8>,
        timeout: Duration,
    ) -> impl Future<Output = Result<Vec<u8>, AskError>> + Send;
}

/// Why a question has no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AskError {
    /// It never left.
    pub(crate) is_unreachable: bool,
    /// What is wrong, for people.
    pub(crate) text: String,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_unreachable {
            "cannot be reached"
        } else {
            "has not answered"
        };
        write!(f, "it {what}: {}", self.text)
    }
}

impl std::error::Error for AskError {}

/// A snapshot on its way.
#[derive(Serialize, Deserialize)]
struct Sent {
    vote: Vote,
    snapshot: Kept,
}

/// A question of Raft.
pub(super) enum Question {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Snapshot(Vote, Snapshot),
}

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const SNAPSHOT: u8 = 3;

impl Question {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ConsensusError> {
        let (kind, json) = versioned(bytes)?
            .split_first()
            .ok_or_else(|| ConsensusError::Malformed("it has no kind".to_owned()))?;
        Ok(match *kind {
            APPEND => Self::Append(parse(json)?),
            VOTE => Self::Vote(parse(json)?),
            SNAPSHOT => {
                let sent: Sent = parse(json)?;
                let snapshot = Snapshot {
                    meta: sent.snapshot.meta,
                    snapshot: Box::new(sent.snapshot.agreed),
                };
                Self::Snapshot(sent.vote, snapshot)
            }
            other => {
                return Err(ConsensusError::Malformed(format!(
                    "it is of the kind {other}"
                )));
            }
        })
    }
}

/// The bytes of an answer.
pub(super) fn answer(answer: &impl Serialize) -> Result<Vec<u8>, ConsensusError> {
    encode(&[VERSION], answer)
}

fn encode(head: &[u8], json: &impl Serialize) -> Result<Vec<u8>, ConsensusError> {
    let mut bytes = head.to_vec();
    let written = serde_json::to_writer(&mut bytes, json);
    written.map_err(|error| ConsensusError::Malformed(error.to_string()))?;
    Ok(bytes)
}

fn versioned(bytes: &[u8]) -> Result<&[u8], ConsensusError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((&other, _)) => Err(ConsensusError::Version(other)),
        None => Err(ConsensusError::Malformed("it is empty".to_owned())),
    }
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, ConsensusError> {
    serde_json::from_slice(json).map_err(|error| ConsensusError::Malformed(error.to_string()))
}

/// The other nodes.
pub(super) struct Network<A> {
    pub(super) links: A,
    /// Where members are, which is newer than what Raft's own membership has of those that have moved.
    pub(super) agreed: watch::Receiver<Arc<Agreed>>,
    pub(super) own: u64,
}

impl<A: Ask> RaftNetworkFactory<Types> for Network<A> {
    type Network = Peer<A>;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer<A> {
        Peer {
            links: self.links.clone(),
            agreed: self.agreed.clone(),
            own: self.own,
            to: target,
            address: node.addr.clone(),
        }
    }
}

/// One of them.
pub(super) struct Peer<A> {
    links: A,
    agreed: watch::Receiver<Arc<Agreed>>,
    own: u64,
    to: u64,
    /// Where it was when it was taken in.
    address: String,
}

/// No answer that can be used came.
enum Unanswered {
    Late(Timeout<u64>),
    Failed(Unreachable),
}

impl<A: Ask> Peer<A> {
    async fn ask<T: DeserializeOwned>(
        &self,
        kind: u8,
        question: &impl Serialize,
        action: RPCTypes,
        timeout: Duration,
    ) -> Result<T, Unanswered> {
        let failed = |error: &ConsensusError| Unanswered::Failed(Unreachable::new(error));
        let question = encode(&[VERSION, kind], question).map_err(|error| failed(&error))?;
        let now = self
            .agreed
            .borrow()
            .of_instance(self.to)
            .map(|found| found.1.address.clone());
        let address = now.unwrap_or_else(|| self.address.clone());
        let asked = self.links.ask(self.to, address, question, timeout);
        let Ok(answered) = tokio::time::timeout(timeout, asked).await else {
            return Err(Unanswered::Late(Timeout {
                action,
                id: self.own,
                target: self.to,
                timeout,
            }));
        };
        // Whether it left or not: asking again at once would be asking for the same error in a loop.
        let answer = answered.map_err(|e| Unanswered::Failed(Unreachable::new(&e)))?;
        let answer = versioned(&answer).and_then(parse);
        answer.map_err(|error| failed(&error))
    }
}

impl From<Unanswered> for RPCError<u64, BasicNode, RaftError<u64>> {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Late(timeout) => Self::Timeout(timeout),
            Unanswered::Failed(unreachable) => Self::Unreachable(unreachable),
        }
    }
}

impl From<Unanswered> for StreamingError<Types, Fatal<u64>> {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Late(timeout) => Self::Timeout(timeout),
            Unanswered::Failed(unreachable) => Self::Unreachable(unreachable),
        }
    }
}

impl<A: Ask> RaftNetwork<Types> for Peer<A> {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let asked = self.ask(APPEND, &rpc, RPCTypes::AppendEntries, option.hard_ttl());
        Ok(asked.await?)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let asked = self.ask(VOTE, &rpc, RPCTypes::Vote, option.hard_ttl());
        Ok(asked.await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let snapshot = Kept {
            meta: snapshot.meta,
            agreed: *snapshot.snapshot,
        };
        let sent = Sent { vote, snapshot };
        let asked = self.ask(
            SNAPSHOT,
            &sent,
            RPCTypes::InstallSnapshot,
            option.hard_ttl(),
        );
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            answered = asked => Ok(answered?),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
