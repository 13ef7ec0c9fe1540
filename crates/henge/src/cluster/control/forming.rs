//! How a node that is in no cluster finds one or forms one with others: it asks all addresses that it was given who is there, as
//! [`Forming`] wants it, and does what that says.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use henge_cluster::agreed::Command;
use henge_cluster::forming::{ClusterId, Forming, Hello, Step, Wait, Who};
use henge_cluster::greeting::Failure;
use henge_wire::peer::Purpose;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::questions::{self, Presence, Started};
use super::{AGAIN, Control, wait_a_while};
use crate::cluster::link::Service;
use crate::cluster::link::asking::{AskError, Came, Link};
use crate::cluster::link::greet::{self, GreetError};
use crate::cluster::link::standing::Standing as Proved;
use crate::cluster::raft::ConsensusError;
use crate::cluster::view::{Standing, View};
use crate::encryption::random_number;

/// How long who answers has time to say who it is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to whoever answers at an address, and how the two have proved themselves.
pub(super) async fn link_to(
    control: &Control,
    address: &str,
) -> Result<(Link, Proved), GreetError> {
    let identity = &control.cluster.identity;
    let greeted = greet::connect(address, None, Purpose::Control, identity).await;
    if let Err(GreetError::Said(Failure::Cluster(name, theirs))) = &greeted {
        let now_ms = control.shared.clock.now_ms();
        control
            .cluster
            .tell_of_another(now_ms, address, name, *theirs);
    }
    let greeted = greeted?;
    control.meet(&greeted.hello);
    let proved = greeted.standing.clone();
    let (link, run) = Link::over(greeted, Arc::default());
    tokio::task::spawn_local(run);
    Ok((link, proved))
}

/// Finds a cluster, or forms one.
///
/// # Errors
/// It can be in none, until its operator changes something.
pub(super) async fn find(control: &Rc<Control>) -> Result<ClusterId, String> {
    let me = control.cluster.identity.who();
    let entries = &control.orders.peers;
    if entries.is_empty() {
        return begin(control, BTreeSet::from([me])).await;
    }
    *control.forming.borrow_mut() = Some(Forming::new(me, entries.iter().cloned()));
    let heard = Rc::new(Heard::default());
    let askers: Vec<_> = entries
        .iter()
        .map(|entry| {
            let (control, entry, heard) = (Rc::clone(control), entry.clone(), Rc::clone(&heard));
            Asker(tokio::task::spawn_local(async move {
                ask_again_and_again(&control, &entry, &heard).await;
            }))
        })
        .collect();
    let found = decide(control, &heard).await;
    drop(askers);
    *control.forming.borrow_mut() = None;
    found
}

/// What those who ask tell who decides, beside what [`Forming`] is told.
#[derive(Default)]
struct Heard {
    news: Notify,
    /// Why who answers at an address says nothing of use.
    refusals: RefCell<BTreeMap<String, String>>,
}

impl Heard {
    /// How an entry has answered, if not as it should.
    fn note(&self, entry: &str, unanswered: Option<&Unanswered>) {
        let mut refusals = self.refusals.borrow_mut();
        match unanswered {
            None | Some(Unanswered::Nobody) => refusals.remove(entry),
            Some(Unanswered::Refused(why)) => {
                refusals.insert(entry.to_owned(), format!("{entry}: {why}"))
            }
        };
    }

    /// What is waited for, for people.
    fn said(&self, wait: &Wait) -> String {
        let refusals = self.refusals.borrow();
        let refusal = match wait {
            Wait::Silent(entry) => refusals.get(entry),
            _ => None,
        };
        refusal.map_or_else(
            || wait.to_string(),
            |why| format!("it is not known who is at {why}"),
        )
    }
}

/// Ends its task when it is dropped.
struct Asker(tokio::task::JoinHandle<()>);

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn decide(control: &Rc<Control>, heard: &Heard) -> Result<ClusterId, String> {
    let mut said = Vec::new();
    loop {
        let step = match &*control.forming.borrow() {
            Some(forming) => forming.step(),
            None => Ok(Step::Wait(Vec::new())),
        };
        match step {
            Ok(Step::Wait(waits)) => {
                let waits: Vec<String> = waits.iter().map(|wait| heard.said(wait)).collect();
                if waits != said {
                    control.wait_outside(waits.clone());
                    said = waits;
                }
            }
            // Whoever is wrong may be replaced by one that is not.
            Err(refused) => {
                let why = vec![refused.to_string()];
                if why != said {
                    tracing::error!(%refused, "no cluster can be formed");
                    control.wait_outside(why.clone());
                    said = why;
                }
            }
            Ok(Step::Begin(set)) => {
                if set.len() > 1 {
                    check_empty(control)?;
                }
                return begin(control, set).await;
            }
            Ok(Step::Join(entry, cluster)) => {
                check_empty(control)?;
                let start = control.own_start(cluster);
                let why = match control.ask_entry_to_start(&entry, &start).await {
                    Ok(Started::Yes | Started::Later(_)) => return Ok(cluster),
                    Ok(Started::Refused(why)) => return Err(why),
                    Ok(Started::NotNow(why)) | Err(why) => vec![why],
                };
                if why != said {
                    control.wait_outside(why.clone());
                    said = why;
                }
                // Whatever is heard meanwhile may change it.
                let _ = tokio::time::timeout(AGAIN, heard.news.notified()).await;
                continue;
            }
        }
        heard.news.notified().await;
    }
}

/// Keys that a node has from a life outside of the cluster would be where nobody looks for them.
fn check_empty(control: &Control) -> Result<(), String> {
    let items = control.shared.cache.stats().shards.items;
    if items == 0 {
        return Ok(());
    }
    Err(format!(
        "it has {items} items of its own, which would be lost in a cluster with others; start it without --peers, or with another persistence.dir"
    ))
}

/// Begins a cluster of these, this node among them.
async fn begin(control: &Rc<Control>, founders: BTreeSet<Who>) -> Result<ClusterId, String> {
    let identity = &control.cluster.identity;
    let failed = |error: &dyn std::fmt::Display| format!("the cluster cannot be begun: {error}");
    let number = u128::from(random_number()) << 64 | u128::from(random_number());
    // 0 stands for none.
    let cluster = ClusterId(number | 1);
    let consensus = &control.consensus;
    let has_begun = consensus
        .has_begun()
        .await
        .map_err(|error| failed(&error))?;
    if !has_begun {
        // From here on no other cluster reaches it.
        identity.enter(cluster);
        match consensus.begin(identity.address_or_loopback()).await {
            // It was begun in the same moment: see below.
            Ok(()) | Err(ConsensusError::HasBegun) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    let form = Command::Form {
        cluster,
        founders,
        replication: control.orders.replication,
    };
    let mut leaders = consensus.leaders();
    let mut is_another = false;
    loop {
        if let Some(cluster) = control.agreed().cluster() {
            return Ok(cluster);
        }
        // A cluster was about to take it in when it ended, and does so now: it has no key of its own then.
        let is_voter = |id: &u64| *id == identity.instance;
        if !is_another && !consensus.voters().iter().all(is_voter) {
            is_another = true;
            let waits = vec!["another cluster takes it in".to_owned()];
            let standing = Standing::Outside(waits);
            control.cluster.show(View::outside(standing));
        }
        match consensus.propose(form.clone()).await {
            Ok(Ok(_)) => {}
            Ok(Err(rejected)) => tracing::debug!(%rejected, "the cluster is formed already"),
            Err(error) => {
                // It becomes the leader of itself in a moment.
                tracing::debug!(%error, "the cluster is not formed yet");
                wait_a_while(&mut leaders).await;
            }
        }
    }
}

/// Asks who is at an address, until it is not wanted any more.
async fn ask_again_and_again(control: &Rc<Control>, entry: &str, heard: &Heard) {
    let link = RefCell::new(None);
    let mut turns = tokio::time::interval(AGAIN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let answer = ask_once(control, entry, &link).await;
        heard.note(entry, answer.as_ref().err());
        if answer.is_err() {
            *link.borrow_mut() = None;
        }
        if let Some(forming) = &mut *control.forming.borrow_mut() {
            forming.heard(entry, answer.ok());
        }
        heard.news.notify_one();
    }
}

/// Why it is not known who is at an address.
enum Unanswered {
    /// There is nobody.
    Nobody,
    /// There is somebody who does not say it, or is not believed.
    Refused(String),
}

async fn ask_once(
    control: &Rc<Control>,
    entry: &str,
    kept: &RefCell<Option<(Link, Proved)>>,
) -> Result<Hello, Unanswered> {
    let refused = |error: AskError| Unanswered::Refused(error.to_string());
    // One that was made by secrets that have changed since is dropped for another.
    let is_good = |(link, proved): &(Link, Proved)| !link.is_ended() && proved.is_current();
    let known = kept.take().filter(is_good);
    let (link, proved) = match known {
        Some(known) => known,
        None => link_to(control, entry).await.map_err(|error| {
            tracing::debug!(entry, %error, "nobody answers");
            if error.is_silence() {
                Unanswered::Nobody
            } else {
                Unanswered::Refused(error.to_string())
            }
        })?,
    };
    *kept.borrow_mut() = Some((link.clone(), proved));
    let question = questions::encode(&control.presence());
    let answer = link
        .ask(Service::Form, &[&question], ANSWER_TIMEOUT)
        .map_err(refused)?;
    let answer = answer.await.and_then(Came::whole).map_err(refused)?;
    let presence = questions::decode::<Presence>(&answer).map_err(Unanswered::Refused)?;
    Ok(presence.hello())
}

impl Control {
    /// What this node says of itself.
    pub(super) fn presence(&self) -> Presence {
        let me = self.cluster.identity.who();
        let cluster = self.agreed().cluster();
        let hello = match &*self.forming.borrow() {
            Some(forming) if cluster.is_none() => forming.hello(),
            // It has no peers, or its own start is not done; either way it is no part of another's set yet.
            _ => Hello {
                set: BTreeSet::from([me.clone()]),
                who: me,
                cluster,
                is_whole: cluster.is_some(),
            },
        };
        Presence::of(hello)
    }
}
