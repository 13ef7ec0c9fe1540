//! How the replicas of all nodes stand, as each says to the control leader, and what of the topology follows from it: who is
//! aligned, who remembers, and how far a change of replicas is.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use henge_cluster::agreed::Agreed;
use henge_cluster::topology::{Epoch, Incarnation};
use henge_wire::Partition;
use serde::{Deserialize, Serialize};

use super::seen::is_only;
use super::{AGAIN, Control, questions};
use crate::cache::{Carry, Identified};
use crate::cluster::link::Service;
use crate::cluster::link::asking::AskError;
use crate::disk::gate::without_gate;
use std::sync::Arc;

/// How long the leader may take to hear a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// What replicas of many partitions say one after the other, as they do where an epoch changed something of all of them, is told together:
/// for so long a report waits for more, unless another leads.
const TOGETHER: Duration = Duration::from_millis(2);

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
    /// By partitions, the newest term in which it has led and come to rest for the next leader; 0 for none.
    #[serde(default)]
    rested: Vec<Epoch>,
    /// See [`Report::learns_since`](crate::cluster::replicas::Report).
    #[serde(default)]
    learns_since: Epoch,
}

impl Reported {
    /// Whether what it says of a copy is of one that it was to begin with in this epoch.
    pub(super) fn is_of(&self, since: Epoch) -> bool {
        self.learns_since >= since
    }

    pub(super) fn aligned(&self, partition: Partition) -> Epoch {
        at(&self.aligned, partition)
    }

    pub(super) fn opened(&self, partition: Partition) -> Epoch {
        at(&self.opened, partition)
    }

    pub(super) fn rested(&self, partition: Partition) -> Epoch {
        at(&self.rested, partition)
    }
}

/// What the control leader was told, by instances.
pub(super) struct Reports(BTreeMap<u64, Reported>);

impl Control {
    /// Shows the topology to this node's replicas.
    pub(super) fn show_replicas(&self, agreed: &Agreed) {
        let shared = &self.shared;
        let log = shared.persistence.log.as_ref();
        without_gate(log, &shared.in_flight, || self.show(agreed));
    }

    fn show(&self, agreed: &Agreed) {
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
            // One that leads again in a later term may have been started anew, and knows nothing of before then.
            let leader = self.consensus.elected();
            if let Some(leader) = leader
                && told.as_ref() != Some(&(leader, report.clone()))
            {
                let reported = Reported {
                    incarnation: self.cluster.identity.incarnation(),
                    aligned: report.aligned.to_vec(),
                    opened: report.opened.to_vec(),
                    rested: report.rested.to_vec(),
                    learns_since: report.learns_since,
                };
                match self.report_to(leader.0, reported).await {
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
                () = replicas.reported.notified() => {
                    let _ = tokio::time::timeout(TOGETHER, leaders.changed()).await;
                }
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
    /// What a start of a node has reported.
    pub(super) fn of(&self, instance: u64, incarnation: Incarnation) -> Option<&Reported> {
        let reported = self.0.get(&instance)?;
        (reported.incarnation == incarnation).then_some(reported)
    }
}

fn at(terms: &[Epoch], partition: Partition) -> Epoch {
    terms
        .get(usize::from(partition.number()))
        .copied()
        .unwrap_or(0)
}

#[cfg(test)]
impl Reported {
    /// Of a start that has nothing yet.
    pub(super) fn nothing(incarnation: Incarnation) -> Self {
        let none = || vec![0; usize::from(henge_wire::PARTITIONS)];
        Self {
            incarnation,
            aligned: none(),
            opened: none(),
            rested: none(),
            learns_since: 0,
        }
    }

    /// It is aligned in a term, and if it leads it has opened that, or rests in it.
    pub(super) fn note(&mut self, partition: Partition, term: Epoch, leads: bool, rests: bool) {
        let at = usize::from(partition.number());
        self.learns_since = Epoch::MAX;
        self.aligned[at] = term;
        if leads {
            self.opened[at] = term;
        }
        if leads && rests {
            self.rested[at] = term;
        }
    }

    pub(super) fn has_not_rested(&mut self) {
        self.rested.fill(0);
    }
}

#[cfg(test)]
impl Reports {
    pub(super) fn of_all(reports: &BTreeMap<u64, Reported>) -> Self {
        Self(reports.clone())
    }
}
