//! What is answered over connections for control.

use std::rc::Rc;

use bytes::Bytes;

use super::Control;
use super::changes::may_be_asked;
use super::questions::{self, Change, Leave, Presence, Start, Started};
use super::reports::Reported;
use crate::cluster::link::Service;
use crate::cluster::link::answering::{Answers, Reply};

/// See the head of the file.
pub(super) struct ControlAnswers {
    pub(super) control: Rc<Control>,
    /// The instance of the node that asks.
    pub(super) from: u64,
}

impl Answers for ControlAnswers {
    fn answer(&self, service: Service, question: Bytes, reply: Reply) {
        let control = Rc::clone(&self.control);
        match service {
            Service::Raft => {
                tokio::task::spawn_local(async move {
                    match control.consensus.answer(&question).await {
                        Ok(answer) => reply.send(&[&answer]),
                        Err(error) => reply.fail(&error.to_string()),
                    }
                });
            }
            Service::Form => match questions::decode::<Presence>(&question) {
                Ok(_) => reply.send(&[&questions::encode(&control.presence())]),
                Err(why) => reply.fail(&why),
            },
            Service::Start => match questions::decode::<Start>(&question) {
                Ok(start) => {
                    tokio::task::spawn_local(async move {
                        let started = control.pass_on(start).await;
                        reply.send(&[&questions::encode(&started)]);
                    });
                }
                Err(why) => reply.fail(&why),
            },
            Service::Change => match questions::decode::<Change>(&question) {
                Ok(change) if !may_be_asked(&change.command) => {
                    reply.fail("that is nothing that an operator asks for");
                }
                Ok(change) => {
                    tokio::task::spawn_local(async move {
                        let changed = control.change(change).await;
                        reply.send(&[&questions::encode(&changed)]);
                    });
                }
                Err(why) => reply.fail(&why),
            },
            Service::Leave => match questions::decode::<Leave>(&question) {
                Ok(Leave { incarnation }) => {
                    control.hear_of_leaving(self.from, incarnation);
                    reply.send(&[]);
                }
                Err(why) => reply.fail(&why),
            },
            Service::Report => match questions::decode::<Reported>(&question) {
                Ok(reported) => match control.hear_report(self.from, reported) {
                    Ok(()) => reply.send(&[]),
                    Err(why) => reply.fail(why),
                },
                Err(why) => reply.fail(&why),
            },
            Service::Losses => {
                reply.send(&[&questions::encode(&control.shared.losses.found())]);
            }
            Service::Resp | Service::Commands | Service::Claim | Service::Traced => {
                reply.fail("this is asked over connections for data");
            }
        }
    }
}

impl Control {
    /// A start of another node, as one of those that may know the control leader.
    async fn pass_on(self: &Rc<Self>, mut start: Start) -> Started {
        match self.agreed().cluster() {
            None => return Started::NotNow("it is in no cluster yet".to_owned()),
            Some(cluster) if cluster != start.cluster => {
                return Started::Refused(format!(
                    "{} is in the cluster {cluster}, and not in {}",
                    self.cluster.identity.name, start.cluster
                ));
            }
            Some(_) => {}
        }
        if self.consensus.is_leader() {
            return self.register_as_leader(start).await;
        }
        let (leader, address) = match self.leader_to_pass_to(&mut start.hops) {
            Ok(leader) => leader,
            Err(why) => return Started::NotNow(why.to_owned()),
        };
        let answer = self.ask_to_start(leader, &address, &start).await;
        answer.unwrap_or_else(Started::NotNow)
    }
}
