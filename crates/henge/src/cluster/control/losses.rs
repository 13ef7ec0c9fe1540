//! What is lost, as all members have found it: each is asked for its own list when somebody wants to know, and keeps that on its disk.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Control, questions};
use crate::cluster::Inquiry;
use crate::cluster::link::Service;
use crate::cluster::link::asking::Came;
use crate::cluster::losses::{Found, Of};

/// How long a member has for its answer, with the connection that it may need.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// After a write to the disk has failed it is tried again, and the list may have grown.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

impl Control {
    /// This start is registered. What the node had before it may lack is said.
    pub(super) fn note_amnesia(&self) {
        let persistence = &self.shared.persistence;
        let had_another = || {
            // All others know of earlier starts, and this directory does not.
            let is_later = self.cluster.identity.incarnation() > 1;
            (persistence.incarnation == 1 && is_later)
                .then(|| "its data directory is not the one of its last start".to_owned())
        };
        if let Some(why) = persistence.missing().or_else(had_another) {
            self.shared.losses.note_amnesia(&why);
            // Where it has some of it, it is likelier that a key was never set.
            if self.shared.cache.items() == 0 {
                self.shared.cache.lost_its_memory();
            }
        }
    }

    /// Keeps the list on the disk.
    pub(super) async fn keep_losses(&self) {
        loop {
            self.shared.losses.changed().await;
            let losses = Arc::clone(&self.shared.losses);
            let written = tokio::task::spawn_blocking(move || losses.write()).await;
            if let Ok(Err(error)) = written {
                tracing::error!(%error, "the list of losses was not written");
                let _ = tokio::time::timeout(WRITE_AGAIN, self.shared.losses.changed()).await;
                self.shared.losses.note_unwritten();
            }
        }
    }

    /// Asks all others for who asks here.
    pub(super) async fn take_inquiries(self: &Rc<Self>, mut inquiries: mpsc::Receiver<Inquiry>) {
        while let Some(answer) = inquiries.recv().await {
            let control = Rc::clone(self);
            tokio::task::spawn_local(async move {
                // Who asked may not want to know any more.
                let _ = answer.send(control.others_losses().await);
            });
        }
    }

    async fn others_losses(self: &Rc<Self>) -> Vec<Of> {
        let agreed = self.agreed();
        let own = self.cluster.identity.instance;
        let mut asked = JoinSet::new();
        let others = agreed.members().values();
        for member in others.filter(|member| member.instance != own) {
            let control = Rc::clone(self);
            let (instance, name) = (member.instance, member.name.clone());
            asked.spawn_local(async move {
                let said = tokio::time::timeout(ANSWER_TIMEOUT, control.losses_of(instance)).await;
                let late = || Err(format!("it did not answer within {ANSWER_TIMEOUT:?}"));
                let said = said.unwrap_or_else(|_| late());
                Of { name, said }
            });
        }
        let mut all = Vec::new();
        while let Some(of) = asked.join_next().await {
            all.extend(of.ok());
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    async fn losses_of(&self, instance: u64) -> Result<Found, String> {
        let address = self
            .address_of(instance)
            .ok_or("nobody knows where it is")?;
        let asked = async {
            let link = self.links.to(instance, &address).await?;
            let answer = link.ask(Service::Losses, &[], ANSWER_TIMEOUT)?;
            answer.await.and_then(Came::whole)
        };
        questions::decode(&asked.await.map_err(|error| error.to_string())?)
    }
}
