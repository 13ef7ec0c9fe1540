//! Consensus: what all nodes agree on, by Raft. A thin module over openraft, so that nobody else knows that library: it opens the log
//! of a data directory, takes part over connections that others keep, has commands agreed on, and shows what was. It decides nothing
//! about members; who should be one, and who should vote, is for those who use it.

mod error;
mod file;
mod network;
mod recover;
mod store;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use henge_cluster::agreed::{Agreed, Command, Outcome, Rejected, Setting};
use henge_cluster::forming::ClusterId;
use openraft::error::{ClientWriteError, InitializeError, RaftError};
use openraft::{BasicNode, ChangeMembers, Membership, RaftMetrics, ServerState};
use parking_lot::Mutex;
use tokio::sync::watch;

pub(crate) use error::{ConsensusError, ProposeError};
use file::RaftFile;
pub(crate) use network::{Ask, AskError};
use network::{Network, Question};
pub(crate) use recover::{Recovered, prepare};
use store::Disk;
pub(crate) use types::LEASE;
use types::{Compaction, HEARTBEAT, SILENCE, Types};

use crate::cache::Generations;

/// How long a proposal may take: two elections and a slow disk. Whoever asked has given up by then.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest command, as text: all settings in characters that JSON writes as six, and room for the rest.
const MAX_COMMAND_BYTES: usize = 512 << 10;
/// How far a learner may be behind to be taken for one that has all: what a leader sends in one question.
const MAX_LAG: u64 = 256;
/// How often it is looked whether a leader has fallen silent, of which nothing tells: a heartbeat and a half, as openraft itself does.
const LOOK: Duration = Duration::from_millis(150);

/// What the last life of a directory has left of this.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Left {
    /// The Raft id that its log is of.
    pub(crate) instance: u64,
    /// By all that is in its log there is nobody else who can have any key.
    pub(crate) is_alone: bool,
    /// Which cluster it is in, be it one of its own.
    pub(crate) cluster: Option<ClusterId>,
    /// What of each partition counts.
    pub(crate) generations: Generations,
    /// The settings of that cluster, as far as it knew them.
    pub(crate) settings: BTreeMap<String, Setting>,
}

/// A node's part in what all agree on.
#[derive(Clone)]
pub(crate) struct Consensus(Arc<Inner>);

struct Inner {
    raft: openraft::Raft<Types>,
    instance: u64,
    disk: Disk,
    agreed: watch::Receiver<Arc<Agreed>>,
    /// Which leader was heard when. A node that cannot vote never gives a silent one up by itself.
    heard: Mutex<Option<(u64, Instant)>>,
    /// Whether it may ask for votes, and goes on to lead.
    may_lead: AtomicBool,
}

impl Consensus {
    /// What a directory says before its log is opened; none if it has no log. Whoever finds none draws another Raft id, so that
    /// none is used again when its log is gone.
    pub(crate) fn left_in(directory: &Path) -> Result<Option<Left>, ConsensusError> {
        let Some((file, instance)) = RaftFile::existing(directory)? else {
            return Ok(None);
        };
        let recover::All { agreed, voters, .. } = recover::All::of(&file)?;
        let mut members = agreed.members().values();
        let is_alone = agreed.founders().len() <= 1
            && members.all(|member| member.instance == instance)
            && voters.iter().all(|voter| *voter == instance);
        let topology = agreed.topology();
        let generations = topology.partitions();
        let generations = generations.map(|partition| topology.placement(partition).generation);
        Ok(Some(Left {
            instance,
            is_alone,
            cluster: agreed.cluster(),
            generations: Generations(generations.collect()),
            settings: agreed.settings().clone(),
        }))
    }

    /// Opens the log of a directory, or makes one for this Raft id, and takes part. It votes, and asks for no votes until it
    /// [may lead](Self::set_may_lead). Must be called in a runtime.
    pub(crate) async fn open(
        directory: &Path,
        instance: u64,
        links: impl Ask,
    ) -> Result<Self, ConsensusError> {
        Self::open_with(directory, instance, links, Compaction::default()).await
    }

    async fn open_with(
        directory: &Path,
        instance: u64,
        links: impl Ask,
        compaction: Compaction,
    ) -> Result<Self, ConsensusError> {
        let (disk, log, state, agreed) = store::open(directory, instance).await?;
        let config = Arc::new(types::config(compaction));
        let network = Network {
            links,
            agreed: agreed.clone(),
            own: instance,
        };
        let raft = openraft::Raft::new(instance, config, network, log, state).await?;
        let heard = Mutex::new(None);
        Ok(Self(Arc::new(Inner {
            raft,
            instance,
            disk,
            agreed,
            heard,
            may_lead: AtomicBool::new(false),
        })))
    }

    /// Its Raft id.
    #[cfg(test)]
    pub(crate) fn instance(&self) -> u64 {
        self.0.instance
    }

    /// Whether it has a log or a vote: it was in a cluster before.
    pub(crate) async fn has_begun(&self) -> Result<bool, ConsensusError> {
        Ok(self.0.raft.is_initialized().await?)
    }

    /// Begins a cluster of this node alone, and returns when it leads that.
    pub(crate) async fn begin(&self, address: String) -> Result<(), ConsensusError> {
        let alone = store::alone(self.0.instance, address);
        match self.0.raft.initialize(alone).await {
            Ok(()) => {}
            Err(RaftError::Fatal(fatal)) => return Err(fatal.into()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                return Err(ConsensusError::HasBegun);
            }
            Err(RaftError::APIError(error @ InitializeError::NotInMembers(_))) => {
                unreachable!("it is the only one: {error}")
            }
        }
        let mut leaders = self.leaders();
        let leads = async {
            while !self.is_leader() {
                leaders.changed().await?;
            }
            Ok(())
        };
        let led = tokio::time::timeout(PROPOSAL_TIMEOUT, leads).await;
        led.unwrap_or(Err(ConsensusError::Late))
    }

    /// Has a command agreed on, if this node leads, and says what it did.
    pub(crate) async fn propose(
        &self,
        command: Command,
    ) -> Result<Result<Outcome, Rejected>, ProposeError> {
        let length = serde_json::to_vec(&command).map(|text| text.len());
        if length.map_or(true, |length| length > MAX_COMMAND_BYTES) {
            return Err(ProposeError::TooLong);
        }
        self.check_lease()?;
        let written = within(self.0.raft.client_write(command)).await;
        let written = written.map_err(|error| match error {
            // It was in the log of this node, which leads no more, and may still be in another's.
            ProposeError::NotLeader(_) => ProposeError::Lost,
            error => error,
        })?;
        Ok(written.data.0.expect("an entry with a command is applied"))
    }

    /// What is agreed on, as far as this node knows; changes as entries are applied.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Agreed>> {
        self.0.agreed.clone()
    }

    /// Who leads, as far as this node knows: none if it was not heard lately.
    pub(crate) fn leader(&self) -> Option<u64> {
        let metrics = self.0.raft.metrics();
        self.leader_by(&metrics.borrow())
    }

    /// The term of Raft that this node knows of.
    #[cfg(test)]
    pub(crate) fn term(&self) -> u64 {
        self.0.raft.metrics().borrow().current_term
    }

    /// Who leads, as above, and the term in which it was elected.
    pub(crate) fn elected(&self) -> Option<(u64, u64)> {
        let metrics = self.0.raft.metrics();
        self.elected_by(&metrics.borrow())
    }

    /// Whether this node leads, and a majority has heard it lately.
    pub(crate) fn is_leader(&self) -> bool {
        self.leader() == Some(self.0.instance)
    }

    /// Tells when another leads.
    pub(crate) fn leaders(&self) -> Leaders {
        let metrics = self.0.raft.metrics();
        let last = self.elected_by(&metrics.borrow());
        Leaders {
            last,
            consensus: self.clone(),
            metrics,
        }
    }

    /// Why this node takes no part any more, if it does not.
    pub(crate) fn failure(&self) -> Option<String> {
        let metrics = self.0.raft.metrics();
        let state = metrics.borrow().running_state.clone();
        state.err().map(|fatal| fatal.to_string())
    }

    /// Answers a question of another's Raft.
    pub(crate) async fn answer(&self, question: &[u8]) -> Result<Vec<u8>, ConsensusError> {
        match Question::decode(question)? {
            Question::Append(rpc) => {
                let leader = rpc.vote;
                let answer = self.0.raft.append_entries(rpc).await;
                let answer = answer.map_err(|error| stopped(&error))?;
                if !matches!(answer, openraft::raft::AppendEntriesResponse::HigherVote(_)) {
                    self.hear(leader);
                }
                network::answer(&answer)
            }
            Question::Vote(rpc) => {
                let answer = self.0.raft.vote(rpc).await;
                network::answer(&answer.map_err(|error| stopped(&error))?)
            }
            Question::Snapshot(vote, snapshot) => {
                let answer = self.0.raft.install_full_snapshot(vote, snapshot).await?;
                if answer.vote == vote {
                    self.hear(vote);
                }
                network::answer(&answer)
            }
        }
    }

    /// Takes a node in that is to have all that is agreed on, and does not vote. It is well if it is in already.
    pub(crate) async fn add_learner(
        &self,
        instance: u64,
        address: String,
    ) -> Result<(), ProposeError> {
        self.check_lease()?;
        let node = BasicNode::new(address);
        let added = self.0.raft.add_learner(instance, node, false);
        within(added).await.map(drop)
    }

    /// Makes these the voters; those who voted and are not among them learn. Whoever is to be forgotten does neither.
    pub(crate) async fn set_voters(
        &self,
        voters: BTreeSet<u64>,
        forget: &BTreeSet<u64>,
    ) -> Result<(), ProposeError> {
        self.check_lease()?;
        if voters != self.voters() || self.is_changing() {
            let changed = self.0.raft.change_membership(voters.clone(), true);
            within(changed).await?;
        }
        let known = self.by_membership(|membership| {
            let nodes = membership.nodes().map(|(id, _)| *id);
            nodes.collect::<BTreeSet<u64>>()
        });
        let mut forget: BTreeSet<u64> = forget.intersection(&known).copied().collect();
        forget.retain(|id| !voters.contains(id));
        if !forget.is_empty() {
            let removed = ChangeMembers::RemoveNodes(forget);
            within(self.0.raft.change_membership(removed, true)).await?;
        }
        Ok(())
    }

    /// Who votes; while that changes, who is to.
    pub(crate) fn voters(&self) -> BTreeSet<u64> {
        self.by_membership(|membership| {
            let configs = membership.get_joint_config();
            configs.last().cloned().unwrap_or_default()
        })
    }

    /// Whether the voters of before count as well, as a change has not come to its end: [`Consensus::set_voters`] ends it.
    pub(crate) fn is_changing(&self) -> bool {
        self.by_membership(|membership| membership.get_joint_config().len() > 1)
    }

    /// Who has all that is agreed on and does not vote.
    pub(crate) fn learners(&self) -> BTreeSet<u64> {
        self.by_membership(|membership| membership.learner_ids().collect())
    }

    /// Those of them that have nearly all of the log and could vote; nobody is known to if this node does not lead.
    pub(crate) fn ready_learners(&self) -> BTreeSet<u64> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow();
        let last = metrics.last_log_index.unwrap_or(0);
        let has = |id: &u64| {
            let matched = metrics.replication.as_ref()?.get(id)?.as_ref()?;
            Some(matched.index + MAX_LAG >= last)
        };
        let membership = metrics.membership_config.membership();
        let learners = membership.learner_ids();
        learners.filter(|id| has(id) == Some(true)).collect()
    }

    /// Whether it may lead. One that may not asks for no votes, and one that leads says no more that it is there, so that another does
    /// within some 1.5 s.
    pub(crate) async fn set_may_lead(&self, may_lead: bool) {
        let inner = &self.0;
        if inner.may_lead.swap(may_lead, Ordering::Relaxed) == may_lead {
            return;
        }
        inner.raft.runtime_config().elect(may_lead);
        inner.raft.runtime_config().heartbeat(may_lead);
        if may_lead && self.voters().len() == 1 {
            // Nobody else would, unless the one voter is another.
            self.campaign().await;
        }
    }

    /// Asks for votes now, if it may lead: for who knows that the leader's process is gone. A leader that is there would lose its place by it.
    pub(crate) async fn campaign(&self) {
        if self.0.may_lead.load(Ordering::Relaxed) {
            // It fails only when Raft has stopped, of which others tell.
            let _ = self.0.raft.trigger().elect().await;
        }
    }

    /// Asks for votes once nobody has to keep its own for a leader that has said that it ends. It is for one of the voters: several
    /// at once would take each other's votes. It gives up when that leads no more.
    pub(crate) async fn succeed(&self, leader: u64) {
        let mut leaders = self.leaders();
        loop {
            let metrics = self.0.raft.metrics();
            let leads = {
                let metrics = metrics.borrow();
                metrics.running_state.is_ok() && metrics.current_leader == Some(leader)
            };
            if !leads {
                return;
            }
            let heard = *self.0.heard.lock();
            // Another may have heard it a moment later than this node.
            let free = heard.map(|(_, at)| at + LEASE + HEARTBEAT);
            match free.map(|free| free.saturating_duration_since(Instant::now())) {
                Some(wait) if !wait.is_zero() => {
                    let _ = tokio::time::timeout(wait, leaders.changed()).await;
                }
                _ => return self.campaign().await,
            }
        }
    }

    /// Stops, and returns when the file is closed. It may be asked for again. Clones of this are told that it has stopped.
    pub(crate) async fn shutdown(self) {
        // An error is that of a task that has panicked, which has told so itself.
        let _ = self.0.raft.shutdown().await;
        self.0.disk.close().await;
    }

    fn hear(&self, leader: types::Vote) {
        let leader = leader.leader_id().voted_for();
        *self.0.heard.lock() = leader.map(|leader| (leader, Instant::now()));
    }

    fn leader_by(&self, metrics: &RaftMetrics<u64, BasicNode>) -> Option<u64> {
        // What was true last is so no more where Raft has stopped.
        if metrics.running_state.is_err() {
            return None;
        }
        let leader = metrics.current_leader?;
        let is_heard = if leader == self.0.instance {
            let heard = metrics.millis_since_quorum_ack;
            self.0.may_lead.load(Ordering::Relaxed)
                && metrics.state == ServerState::Leader
                && heard.is_some_and(|millis| millis < LEASE.as_millis() as u64)
        } else {
            let heard = *self.0.heard.lock();
            heard.is_some_and(|(id, at)| id == leader && at.elapsed() < SILENCE)
        };
        is_heard.then_some(leader)
    }

    /// Who leads, and the term in which it was elected.
    fn elected_by(&self, metrics: &RaftMetrics<u64, BasicNode>) -> Option<(u64, u64)> {
        let leader = self.leader_by(metrics)?;
        Some((leader, metrics.current_term))
    }

    /// A leader that no majority hears must not be asked for what it could not do.
    fn check_lease(&self) -> Result<(), ProposeError> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow();
        // Who has just become leader has the votes of a majority, and has not asked it for more yet.
        let is_new = metrics.millis_since_quorum_ack.is_none();
        // What is proposed keeps a leader one, also where it says no more that it is there.
        let may_lead = self.0.may_lead.load(Ordering::Relaxed);
        let leads = may_lead && metrics.current_leader == Some(self.0.instance);
        let leader = self.leader_by(&metrics);
        if leads && (is_new || leader.is_some()) {
            Ok(())
        } else {
            Err(ProposeError::NotLeader(leader))
        }
    }

    fn by_membership<T>(&self, ask: impl FnOnce(&Membership<u64, BasicNode>) -> T) -> T {
        let metrics = self.0.raft.metrics();
        ask(metrics.borrow().membership_config.membership())
    }
}

/// See [`Consensus::leaders`].
pub(crate) struct Leaders {
    consensus: Consensus,
    metrics: watch::Receiver<RaftMetrics<u64, BasicNode>>,
    last: Option<(u64, u64)>,
}

impl Leaders {
    /// Waits until another leads than this told last, or the same in a later term, or nobody does any more, and tells who.
    pub(crate) async fn changed(&mut self) -> Result<Option<u64>, ConsensusError> {
        loop {
            let now = {
                let metrics = self.metrics.borrow_and_update();
                if let Err(fatal) = &metrics.running_state {
                    return Err(fatal.clone().into());
                }
                self.consensus.elected_by(&metrics)
            };
            if now != self.last {
                self.last = now;
                return Ok(now.map(|(leader, _)| leader));
            }
            if let Ok(Err(_)) = tokio::time::timeout(LOOK, self.metrics.changed()).await {
                return Err(ConsensusError::Stopped("the node ends".to_owned()));
            }
        }
    }
}

fn stopped(error: &RaftError<u64>) -> ConsensusError {
    ConsensusError::Stopped(error.to_string())
}

async fn within<T>(
    work: impl Future<Output = Result<T, RaftError<u64, ClientWriteError<u64, BasicNode>>>>,
) -> Result<T, ProposeError> {
    match tokio::time::timeout(PROPOSAL_TIMEOUT, work).await {
        Ok(done) => done.map_err(ProposeError::from),
        Err(_) => Err(ProposeError::Lost),
    }
}

#[cfg(test)]
mod tests;
