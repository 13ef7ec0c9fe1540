//! A node that is about to end says so: to each member over a link, so that all know that it was stopped and did not fail, and by
//! gossip, for who was not reached. It stays a member, and is back with its next start. Who leads has a successor by that. What it
//! has to answer before is not known here.

use std::rc::Rc;
use std::time::Duration;

use henge_cluster::agreed::Command;
use henge_cluster::gossip::Health;
use henge_cluster::topology;

use super::Control;
use super::health::{Heard, is_down};
use super::questions::{self, Leave};
use crate::cluster::link::Service;

/// How long others have to take it in, those that do not lead and the one that does: several round trips on one continent. Who
/// does not answer hears of it by gossip.
const TOLD_TIMEOUT: Duration = Duration::from_millis(150);

impl Control {
    /// Tells all others that this node ends.
    pub(super) async fn leave(self: &Rc<Self>) {
        // With nobody else there is nobody to tell.
        if !self.was_in.get() || self.agreed().members().len() < 2 {
            return;
        }
        let leader = self.consensus.leader();
        let (leaders, others): (Vec<u64>, Vec<u64>) = self
            .reachable()
            .into_iter()
            .partition(|instance| Some(*instance) == leader);
        // The leader last: what it then has agreed on should be no surprise to anybody.
        self.tell_all(&others).await;
        self.tell_all(&leaders).await;
        if self.consensus.is_leader() {
            self.leave_as_leader().await;
        }
        self.leaving.notify_one();
        // A node that does not know its own address has gossiped nothing.
        let _ = tokio::time::timeout(TOLD_TIMEOUT, self.has_gossiped.notified()).await;
    }

    /// Members that may answer, without this one.
    fn reachable(&self) -> Vec<u64> {
        let view = self.cluster.view.load();
        let others = view.members.iter().filter(|member| !member.is_me);
        let others = others.filter(|member| member.is_reachable());
        others.map(|member| member.instance).collect()
    }

    async fn tell_all(self: &Rc<Self>, instances: &[u64]) {
        let incarnation = self.cluster.identity.incarnation();
        let telling: Vec<_> = instances
            .iter()
            .map(|&instance| {
                let control = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    let Some(address) = control.address_of(instance) else {
                        return;
                    };
                    let question = questions::encode(&Leave { incarnation });
                    let told = async {
                        let link = control.links.to(instance, &address).await?;
                        link.ask(Service::Leave, &[&question], TOLD_TIMEOUT)?.await
                    };
                    match tokio::time::timeout(TOLD_TIMEOUT, told).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(error)) => {
                            tracing::debug!(%error, "a member does not know that this node ends");
                        }
                        Err(_) => tracing::debug!("a member does not know that this node ends"),
                    }
                })
            })
            .collect();
        for told in telling {
            // Each has its own end.
            let _ = told.await;
        }
    }

    /// There is nobody else now who could have it agreed on; its successor takes a while to be one.
    async fn leave_as_leader(&self) {
        let agreed = self.agreed();
        let Some((id, _)) = agreed.of_instance(self.cluster.identity.instance) else {
            return;
        };
        let down = topology::Command::Down(id, self.cluster.identity.incarnation());
        let proposed = self.consensus.propose(Command::Topology(down));
        if tokio::time::timeout(TOLD_TIMEOUT, proposed).await.is_err() {
            tracing::debug!("it is not agreed on in time that this node ends");
        }
    }

    /// Another node says that it ends.
    pub(super) fn hear_of_leaving(self: &Rc<Self>, instance: u64, incarnation: u64) {
        let agreed = self.agreed();
        let nodes = agreed.topology().nodes();
        let newest = |instance: u64| {
            let (id, _) = agreed.of_instance(instance)?;
            nodes.get(&id).map(|node| node.incarnation)
        };
        if newest(instance) != Some(incarnation) {
            return;
        }
        let mut left = self.left.borrow_mut();
        left.retain(|&instance, incarnation| newest(instance) == Some(*incarnation));
        let is_news = left.insert(instance, incarnation).is_none();
        drop(left);
        if is_news && self.consensus.leader() == Some(instance) && self.is_next() {
            let consensus = self.consensus.clone();
            tokio::task::spawn_local(async move { consensus.succeed(instance).await });
        }
        let health = Health::Down;
        self.note(
            instance,
            Heard {
                incarnation,
                health,
            },
        );
    }

    /// Whether this node is the one that asks for votes when the leader ends: the first of the voters that are there.
    fn is_next(&self) -> bool {
        let agreed = self.agreed();
        let heard = self.all_heard(&agreed);
        let mut voters = self.consensus.voters().into_iter();
        let next = voters.find(|instance| {
            let Some((id, _)) = agreed.of_instance(*instance) else {
                return false;
            };
            let node = agreed.topology().nodes().get(&id);
            node.is_some_and(|node| {
                let is_lost = is_down(&heard, *instance, node.incarnation) == Some(true);
                !is_lost && !self.has_left(*instance, node.incarnation)
            })
        });
        next == Some(self.cluster.identity.instance)
    }

    /// Whether a start of a node has said that it ends.
    pub(super) fn has_left(&self, instance: u64, incarnation: u64) -> bool {
        self.left.borrow().get(&instance) == Some(&incarnation)
    }
}
