//! Changes that an operator asks for at any node: the control leader proposes them, and who asked is told what came of it, or that
//! it is not known. Which commands an operator may ask for is said here; what is right for one is for who takes them from a person.

use std::rc::Rc;
use std::time::{Duration, Instant};

use henge_cluster::agreed::{Agreed, Command, Outcome};
use henge_cluster::topology;
use tokio::sync::{mpsc, oneshot};

use super::questions::{self, Change, Changed};
use super::{Control, wait_a_while};
use crate::cluster::link::Service;
use crate::cluster::link::asking::Came;
#[cfg(test)]
use crate::cluster::link::greet::GREETING_TIMEOUT;
use crate::cluster::raft::ProposeError;

/// Changes that wait for the cluster's thread: people ask for them.
pub(crate) const WISHES: usize = 64;
/// How long a control leader is waited for where there is none: one that is lost has a successor within 2 s.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long another node has for an answer: a proposal has 5 s, and the rest is for the way there and back.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// How long who asked waits, when all is done, until this node has heard of it: it is sent on with the next heartbeat.
const HEARD_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest that a node takes for a change: it asks last when its patience is about to end, and may need a connection for that.
/// Who asks a node has to wait longer.
#[cfg(test)]
pub(crate) const SLOWEST_CHANGE: Duration = PATIENCE
    .saturating_add(GREETING_TIMEOUT)
    .saturating_add(ANSWER_TIMEOUT)
    .saturating_add(HEARD_TIMEOUT);

/// A change on its way from a route to the cluster's thread.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Changed>,
}

/// Whether an operator may ask for a command, or a route for him: the others are those of nodes, and of the control leader.
pub(super) fn may_be_asked(command: &Command) -> bool {
    match command {
        Command::Set { .. } => true,
        Command::Topology(command) => matches!(
            command,
            topology::Command::Reset(_)
                | topology::Command::Plan
                | topology::Command::Leave(_)
                | topology::Command::Stay(_)
                | topology::Command::Remove(_)
                | topology::Command::Lose(_)
                | topology::Command::Weigh(..)
        ),
        _ => false,
    }
}

impl Control {
    /// Takes what is asked for at this node.
    pub(super) async fn take_wishes(self: &Rc<Self>, mut wishes: mpsc::Receiver<Wish>) {
        while let Some(Wish { command, answer }) = wishes.recv().await {
            let control = Rc::clone(self);
            tokio::task::spawn_local(async move {
                // Who asked may not want to know any more.
                let _ = answer.send(control.have_changed(command).await);
            });
        }
    }

    /// Has a change made, by whoever leads, and waits a while for somebody to.
    async fn have_changed(&self, command: Command) -> Changed {
        let mut leaders = self.consensus.leaders();
        let end = Instant::now() + PATIENCE;
        loop {
            let changed = match self.agreed().cluster() {
                None => Changed::NotNow("this node is in no cluster yet".to_owned()),
                Some(cluster) => {
                    let command = command.clone();
                    let hops = 0;
                    let change = Change {
                        command,
                        cluster,
                        hops,
                    };
                    self.change(change).await
                }
            };
            match changed {
                // Nothing was proposed, so that it can be asked for again.
                Changed::NotNow(_) if Instant::now() < end => {
                    wait_a_while(&mut leaders).await;
                }
                Changed::Done(outcome) => {
                    self.hear_of(&command, outcome).await;
                    return Changed::Done(outcome);
                }
                changed => return changed,
            }
        }
    }

    /// Has a change made: here if this node leads, or by the one that does.
    pub(super) async fn change(&self, mut change: Change) -> Changed {
        if let Some(other) = self.agreed().cluster().filter(|own| *own != change.cluster) {
            return Changed::NotNow(format!(
                "{} is in the cluster {other}, and not in {}",
                self.cluster.identity.name, change.cluster
            ));
        }
        if self.consensus.is_leader() {
            let resets = match &change.command {
                Command::Topology(topology::Command::Reset(partitions)) => partitions.clone(),
                _ => Vec::new(),
            };
            return match self.consensus.propose(change.command).await {
                Ok(Ok(outcome)) => {
                    if self.have_opened(&resets).await {
                        Changed::Done(outcome)
                    } else {
                        Changed::Unknown(
                            "it is agreed on, and not all leaders go by it yet".to_owned(),
                        )
                    }
                }
                Ok(Err(rejected)) => Changed::Rejected(rejected),
                Err(error @ (ProposeError::Lost | ProposeError::Stopped(_))) => {
                    Changed::Unknown(error.to_string())
                }
                Err(error) => Changed::NotNow(error.to_string()),
            };
        }
        let (leader, address) = match self.leader_to_pass_to(&mut change.hops) {
            Ok(leader) => leader,
            Err(why) => return Changed::NotNow(why.to_owned()),
        };
        let question = questions::encode(&change);
        let asked = async {
            let link = self.links.to(leader, &address).await?;
            let answer = link.ask(Service::Change, &[&question], ANSWER_TIMEOUT)?;
            answer.await.and_then(Came::whole)
        };
        match asked.await {
            // One that is understood by nobody was an answer to what was asked all the same.
            Ok(answer) => questions::decode(&answer).unwrap_or_else(Changed::Unknown),
            Err(error) if error.may_be_done => Changed::Unknown(error.to_string()),
            Err(error) => Changed::NotNow(error.to_string()),
        }
    }

    /// Waits until this node goes by what was changed, so that who asked finds it so here.
    async fn hear_of(&self, command: &Command, outcome: Outcome) {
        let mut watch = self.watch();
        let heard = watch.wait_for(|agreed| has(agreed, command, outcome));
        // Who does not hear of it in time hears of it later.
        let _ = tokio::time::timeout(HEARD_TIMEOUT, heard).await;
        self.make_view();
    }
}

/// Whether what was changed is in what is agreed on.
fn has(agreed: &Agreed, command: &Command, outcome: Outcome) -> bool {
    match (command, outcome) {
        (Command::Set { name, .. }, Outcome::Set(version)) => {
            let setting = agreed.settings().get(name);
            if version == 0 {
                setting.is_none()
            } else {
                setting.is_some_and(|setting| setting.version >= version)
            }
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_cluster::forming::ClusterId;
    use henge_cluster::ring::NodeId;

    #[test]
    fn operators_ask_for_settings_for_moves_and_to_forget() {
        let set = Command::Set {
            name: "cluster.redirect".to_owned(),
            value: None,
            expected: None,
        };
        assert!(may_be_asked(&set));
        let reset = Command::Topology(topology::Command::Reset(Vec::new()));
        assert!(may_be_asked(&reset));
        let node = NodeId(1);
        for command in [
            topology::Command::Leave(node),
            topology::Command::Stay(node),
            topology::Command::Remove(node),
            topology::Command::Lose(node),
            topology::Command::Weigh(node, 1),
            topology::Command::Plan,
        ] {
            assert!(may_be_asked(&Command::Topology(command)));
        }
        for command in [
            Command::Recover {
                cluster: ClusterId(1),
                survivor: NodeId(1),
            },
            Command::Topology(topology::Command::Finish(Vec::new())),
            Command::Topology(topology::Command::Down(NodeId(1), 1)),
        ] {
            assert!(!may_be_asked(&command), "{command:?}");
        }
    }

    #[test]
    fn what_was_changed_is_heard_of() {
        let mut agreed = Agreed::new();
        let form = Command::Form {
            cluster: ClusterId(1),
            founders: std::collections::BTreeSet::new(),
            replication: 1,
        };
        agreed.apply(&form).expect("it is formed");
        let command = |value: Option<&str>| Command::Set {
            name: "a".to_owned(),
            value: value.map(str::to_owned),
            expected: None,
        };
        let (set, unset) = (command(Some("1")), command(None));
        assert!(!has(&agreed, &set, Outcome::Set(1)));
        assert!(has(&agreed, &unset, Outcome::Set(0)));
        let outcome = agreed.apply(&set).expect("it is set");
        assert!(has(&agreed, &set, outcome));
        assert!(!has(&agreed, &unset, Outcome::Set(0)));
        assert!(!has(&agreed, &set, Outcome::Set(2)));
    }
}
