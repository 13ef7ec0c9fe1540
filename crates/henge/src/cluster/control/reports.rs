//! How the replicas of all nodes stand, as each says to the control leader, and what of the topology follows from it: who is
//! aligned, who remembers, and how far a change of replicas is.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use henge_cluster::agreed::Agreed;
use henge_cluster::ring::NodeId;
use henge_cluster::topology::{Command, Epoch, Incarnation, Placement, State, Topology};
use henge_wire::Partition;
use serde::{Deserialize, Serialize};

use super::seen::is_only;
use super::{AGAIN, Control, questions};
use crate::cache::{Carry, Identified};
use crate::cluster::link::Service;
use crate::cluster::link::asking::AskError;
use std::sync::Arc;

/// How long the leader may take to hear a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long leaders may take to open a term that was asked for: some round trips, and what is wiped before.
const OPEN_TIMEOUT: Duration = Duration::from_secs(4);

/// What a node says of its replicas, in one of its starts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Reported {
    incarnation: Incarnation,
    /// By partitions, the newest term in which it is aligned; 0 for none.
    aligned: Vec<Epoch>,
    /// By partitions, the newest term that it has opened; 0 for none.
    opened: Vec<Epoch>,
}

/// What the control leader was told, by instances.
pub(super) struct Reports(BTreeMap<u64, Reported>);

impl Control {
    /// Shows the topology to this node's replicas.
    pub(super) fn show_replicas(&self, agreed: &Agreed) {
        let replicas = &self.shared.replicas;
        let identity = &self.cluster.identity;
        let Some((me, _)) = agreed.of_instance(identity.instance) else {
            return;
        };
        let cache = &self.shared.cache;
        if !self.shared.is_replicated() {
            let has_served = self.cluster.view.load().is_alone;
            if has_served && is_only(agreed) {
                return;
            }
            // What it has served by itself is what there is. Before that it had nothing that counts, or what its log says of it.
            let topology = agreed.topology();
            let generation = |partition| match topology.placement(partition) {
                placement if has_served => placement.generation,
                _ => 0,
            };
            let has_log = self.shared.persistence.log.is_some();
            let carrier = Arc::clone(replicas) as Arc<dyn Carry>;
            replicas.begin();
            cache.replicate(
                Identified {
                    me,
                    incarnation: identity.incarnation(),
                    has_log,
                },
                carrier,
                generation,
            );
        }
        replicas.see(cache, agreed, me, self.shared.clock.now_ms());
    }

    /// Tells the control leader how this node's replicas stand, whenever that has changed, or another leads.
    pub(super) async fn report(self: &Rc<Self>) {
        let replicas = &self.shared.replicas;
        let mut leaders = self.consensus.leaders();
        let mut told = None;
        loop {
            let report = replicas.report();
            let leader = self.consensus.leader();
            if let Some(leader) = leader
                && told.as_ref() != Some(&(leader, report.clone()))
            {
                let reported = Reported {
                    incarnation: self.cluster.identity.incarnation(),
                    aligned: report.aligned.to_vec(),
                    opened: report.opened.to_vec(),
                };
                match self.report_to(leader, reported).await {
                    Ok(()) => told = Some((leader, report)),
                    Err(error) => {
                        tracing::debug!(%error, "the control leader was not told how replicas stand");
                        let _ = tokio::time::timeout(AGAIN, leaders.changed()).await;
                        continue;
                    }
                }
            }
            tokio::select! {
                changed = leaders.changed() => if changed.is_err() {
                    return;
                },
                () = replicas.reported.notified() => {}
            }
        }
    }

    async fn report_to(self: &Rc<Self>, leader: u64, reported: Reported) -> Result<(), AskError> {
        let own = self.cluster.identity.instance;
        if leader == own {
            return self.hear_report(own, reported).map_err(AskError::unsent);
        }
        let address = self
            .address_of(leader)
            .ok_or_else(|| AskError::unsent("it is not known where the control leader is"))?;
        let link = self.links.to(leader, &address).await?;
        let question = questions::encode(&reported);
        link.ask(Service::Report, &[&question], REPORT_TIMEOUT)?
            .await?;
        Ok(())
    }

    /// A node says how its replicas stand.
    ///
    /// # Errors
    /// It is not taken in, and is to be said again: why.
    pub(super) fn hear_report(&self, from: u64, reported: Reported) -> Result<(), &'static str> {
        let agreed = self.agreed();
        let mut reports = self.reports.borrow_mut();
        reports.retain(|instance, _| agreed.of_instance(*instance).is_some());
        if agreed.of_instance(from).is_none() {
            // A new node may know who leads before that knows of it.
            return Err("it is no member yet");
        }
        let known = reports.get(&from).map_or(0, |known| known.incarnation);
        if known > reported.incarnation {
            return Err("a later start of it has reported");
        }
        reports.insert(from, reported);
        self.heard_report.notify_waiters();
        self.news.notify_one();
        Ok(())
    }

    /// Waits until the leaders of these partitions have opened their present terms, so that no older one answers any more. False
    /// if they have not in time.
    pub(super) async fn have_opened(&self, partitions: &[Partition]) -> bool {
        let opened = async {
            loop {
                let heard = self.heard_report.notified();
                if self.are_open(partitions) {
                    return;
                }
                heard.await;
            }
        };
        tokio::time::timeout(OPEN_TIMEOUT, opened).await.is_ok()
    }

    fn are_open(&self, partitions: &[Partition]) -> bool {
        let agreed = self.agreed();
        let topology = agreed.topology();
        let reports = self.reports.borrow();
        partitions.iter().all(|&partition| {
            let placement = topology.placement(partition);
            let leader = placement.leader.map(|(id, _)| id);
            let member = leader.and_then(|id| agreed.members().get(&id));
            let report = member.and_then(|member| reports.get(&member.instance));
            report.is_some_and(|known| at(&known.opened, partition) == placement.term)
        })
    }

    /// What is known of all, where this node replicates.
    pub(super) fn all_reports(&self) -> Option<Reports> {
        if !self.shared.is_replicated() {
            return None;
        }
        Some(Reports(self.reports.borrow().clone()))
    }
}

impl Reports {
    fn of(&self, instance: u64, incarnation: Incarnation) -> Option<&Reported> {
        let reported = self.0.get(&instance)?;
        (reported.incarnation == incarnation).then_some(reported)
    }

    /// What of a node has to change that is not Down.
    pub(super) fn judge_node(
        &self,
        topology: &Topology,
        id: NodeId,
        instance: u64,
        changes: &mut Vec<Command>,
    ) {
        let Some(node) = topology.nodes().get(&id) else {
            return;
        };
        let Some(reported) = self.of(instance, node.incarnation) else {
            return;
        };
        let named = || {
            let partitions = topology.partitions();
            let of = partitions.map(|partition| (partition, topology.placement(partition)));
            of.filter(|(_, placement)| placement.names(id))
        };
        let aligned = |partition: Partition| at(&reported.aligned, partition);
        if node.state == State::Aligning
            && named().all(|(partition, placement)| aligned(partition) == placement.term)
        {
            changes.push(Command::Up(id, node.incarnation));
        }
        // One that voted nowhere before it was registered leaves the term as it was, and may be aligned in that.
        let is_whole = |(partition, placement): (Partition, &Placement)| {
            aligned(partition) >= node.amnesia || aligned(partition) == placement.term
        };
        if node.amnesia > 0 && named().all(is_whole) {
            changes.push(Command::Remembers(id, node.incarnation));
        }
    }

    /// How far changes of replicas are.
    pub(super) fn judge_partitions(
        &self,
        topology: &Topology,
        instance: impl Fn(NodeId) -> Option<u64>,
        changes: &mut Vec<Command>,
    ) {
        let (mut ready, mut opened, mut done) = (vec![], vec![], vec![]);
        let report = |id: NodeId| {
            let incarnation = topology.nodes().get(&id)?.incarnation;
            self.of(instance(id)?, incarnation)
        };
        for partition in topology.partitions() {
            let placement = topology.placement(partition);
            let Some(change) = &placement.change else {
                continue;
            };
            let is_aligned = |id| {
                report(id).is_some_and(|known| at(&known.aligned, partition) == placement.term)
            };
            let leader = placement.leader.map(|(id, _)| id);
            if !change.is_joint {
                if placement.learners().all(is_aligned) {
                    ready.push(partition);
                }
            } else if change.has_opened {
                done.push(partition);
            } else if let Some(known) = leader.and_then(report)
                && at(&known.opened, partition) == placement.term
            {
                opened.push((partition, placement.term));
            }
        }
        if !ready.is_empty() {
            changes.push(Command::Join(ready));
        }
        if !opened.is_empty() {
            changes.push(Command::Opened(opened));
        }
        if !done.is_empty() {
            changes.push(Command::Finish(done));
        }
    }
}

fn at(terms: &[Epoch], partition: Partition) -> Epoch {
    terms
        .get(usize::from(partition.number()))
        .copied()
        .unwrap_or(0)
}
