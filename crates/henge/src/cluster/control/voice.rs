//! How consensus speaks to other nodes: it may be on any thread, and the connections are on one; so its questions go there.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Control;
use crate::cluster::link::Service;
use crate::cluster::raft::{Ask, AskError};

/// Questions on their way: some for each of the members, of which there are a few hundred.
const QUESTIONS: usize = 4096;

/// A question of consensus.
pub(super) struct Question {
    to: u64,
    address: String,
    body: Vec<u8>,
    timeout: Duration,
    answer: oneshot::Sender<Result<Vec<u8>, AskError>>,
}

/// See the head of the file.
#[derive(Clone, Debug)]
pub(super) struct Voice(mpsc::Sender<Question>);

impl Voice {
    pub(super) fn new() -> (Self, mpsc::Receiver<Question>) {
        let (sender, receiver) = mpsc::channel(QUESTIONS);
        (Self(sender), receiver)
    }
}

fn unreachable_node(text: impl Into<String>) -> AskError {
    AskError {
        is_unreachable: true,
        text: text.into(),
    }
}

impl Ask for Voice {
    async fn ask(
        &self,
        to: u64,
        address: String,
        question: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, AskError> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            to,
            address,
            body: question,
            timeout,
            answer,
        };
        self.0
            .try_send(question)
            .map_err(|_| unreachable_node("too many questions wait"))?;
        answered
            .await
            .unwrap_or_else(|_| Err(unreachable_node("the node is about to end")))
    }
}

/// Asks what consensus has to ask, until it is dropped.
pub(super) async fn speak(control: Rc<Control>, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        let control = Rc::clone(&control);
        tokio::task::spawn_local(async move {
            let Question {
                to,
                address,
                body,
                timeout,
                answer,
            } = question;
            let address = control.address_of(to).unwrap_or(address);
            let asked = async {
                let link = control.links.to(to, &address).await?;
                let answer = link.ask(Service::Raft, &[&body], timeout)?;
                answer.await?.whole()
            };
            let outcome = match tokio::time::timeout(timeout, asked).await {
                Ok(Ok(bytes)) => Ok(bytes.to_vec()),
                Ok(Err(error)) => Err(AskError {
                    is_unreachable: !error.may_be_done,
                    text: error.to_string(),
                }),
                Err(_) => Err(AskError {
                    is_unreachable: false,
                    text: "no answer in time".to_owned(),
                }),
            };
            // Who asked may not want to know any more.
            let _ = answer.send(outcome);
        });
    }
}
