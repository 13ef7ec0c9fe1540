//! A node's part in what its cluster agrees on, on the control runtime: it finds its cluster or forms one (`forming`), registers its
//! start, has a view made of each state that is agreed on (`seen`), and as the control leader proposes what has to change
//! (`leading`).

mod answers;
mod candidacy;
mod changes;
mod forming;
mod health;
mod leading;
mod leaving;
mod losses;
mod moving;
mod names;
mod questions;
mod reports;
mod seen;
mod voice;

#[cfg(test)]
pub(crate) use changes::SLOWEST_CHANGE;
pub(crate) use changes::{WISHES, Wish};
pub(crate) use health::{OwnLoad, bind};
pub(crate) use questions::Changed;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_cluster::agreed::voters::MAX_VOTERS;
use henge_cluster::agreed::{Agreed, MAX_INCARNATION, Rejected};
use henge_cluster::forming::{ClusterId, Forming};
use henge_cluster::gossip::Health;
use henge_cluster::ring::NodeId;
use henge_cluster::topology::State;
use henge_wire::peer::Purpose;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use self::answers::ControlAnswers;
use self::candidacy::Candidacy;
use self::health::AllHeard;
use self::leading::Joining;
use self::moving::Gathering;
use self::questions::{Start, Started};
use self::voice::Voice;
use super::link::Service;
use super::link::answering::answer_all;
use super::link::asking::{Came, Link};
use super::link::links::Links;
use super::raft::{Consensus, Leaders};
use super::settings::Settings;
use super::view::{Standing, View};
use super::{Cluster, Inbox};
use crate::net::watch::DRAIN_GRACE;
use crate::shared::Shared;

/// How long to wait before something is tried again that cannot be done now: an election takes about as long.
const AGAIN: Duration = Duration::from_millis(200);
/// What only the control leader can do is passed on to it, and by that to its successor.
const MOST_HOPS: u8 = 2;
/// Members that are asked one after the other to have a start registered. As many vote, with one more.
const ASKED_MAX: usize = MAX_VOTERS + 1;
/// How long an answer may take that needs a round of consensus.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells a node's part in its cluster when that ends.
#[derive(Debug)]
pub(crate) struct Ends {
    /// The node answers what it was asked, and takes nothing more. Told, or dropped.
    pub(crate) begins: oneshot::Receiver<()>,
    /// It has answered.
    pub(crate) all: oneshot::Receiver<()>,
}

impl Ends {
    /// It begins to.
    async fn begun(&mut self) {
        let _ = (&mut self.begins).await;
    }

    /// All is over. It may be asked again.
    async fn all(&mut self) {
        if !self.all.is_terminated() {
            let _ = (&mut self.all).await;
        }
    }
}

/// What a node's operator says about its cluster.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    /// Addresses of nodes to form a cluster with, or to join.
    pub(crate) peers: Vec<String>,
    /// Replicas of a partition, of a cluster that this node begins.
    pub(crate) replication: usize,
    /// Where what is agreed on is kept.
    pub(crate) directory: PathBuf,
    /// Notes a number of the present start that is higher than the directory knew.
    pub(crate) note_incarnation: NoteIncarnation,
}

/// Writes down the number of a start.
#[derive(Clone)]
pub(crate) struct NoteIncarnation(pub(crate) Arc<dyn Fn(u64) -> Result<(), String> + Send + Sync>);

impl fmt::Debug for NoteIncarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoteIncarnation")
    }
}

/// What the tasks of this part share.
pub(super) struct Control {
    cluster: Arc<Cluster>,
    shared: Arc<Shared>,
    orders: Orders,
    consensus: Consensus,
    links: Rc<Links>,
    /// Where nodes were met last, by their instances, beside what is agreed on.
    book: RefCell<BTreeMap<u64, String>>,
    forming: RefCell<Option<Forming>>,
    /// Instances that are being taken in.
    joining: RefCell<Joining>,
    /// Whether it may lead.
    candidacy: RefCell<Candidacy>,
    /// The start of this process is registered.
    is_registered: Cell<bool>,
    /// That is agreed on, as far as this node has heard.
    was_in: Cell<bool>,
    /// Is told of that.
    registered: Notify,
    /// How often members did not answer that were asked to have a start registered.
    unanswered: RefCell<BTreeMap<u64, u32>>,
    /// What gossip says of others, by their instances.
    heard: RefCell<AllHeard>,
    /// Is told of news of that.
    news: Notify,
    /// How replicas of others stand, by their instances.
    reports: RefCell<BTreeMap<u64, reports::Reported>>,
    /// Is told of another.
    heard_report: Notify,
    /// Starts of which the leader has heard nothing yet, and since when.
    awaited: RefCell<BTreeMap<(u64, u64), Instant>>,
    /// Since when nodes are down, as far as this leader knows, by their starts.
    down: RefCell<BTreeMap<(NodeId, u64), Instant>>,
    gathering: Cell<Gathering>,
    /// Who takes part in Raft and is no member, and since when this leader knows that.
    strangers: RefCell<BTreeMap<u64, Instant>>,
    /// Starts of others that have said that they end, by their instances.
    left: RefCell<BTreeMap<u64, u64>>,
    /// This node ends, and has nothing done any more.
    is_leaving: Cell<bool>,
    /// Is told when that is to be gossiped.
    leaving: Notify,
    /// Is told when it was.
    has_gossiped: Notify,
    /// What this node makes of the settings that are agreed on.
    settings: RefCell<Arc<Settings>>,
    begun: Instant,
}

/// Does the node's part until it is told to stop.
pub(crate) async fn run(
    shared: Arc<Shared>,
    orders: Orders,
    inbox: Inbox,
    (socket, own_load): (std::net::UdpSocket, OwnLoad),
    mut ends: Ends,
) {
    let cluster = Arc::clone(&shared.cluster);
    let told = Arc::clone(&cluster);
    let links = Links::new(
        Arc::clone(&cluster.identity),
        Purpose::Control,
        None,
        move |instance| told.was_refused(instance),
    );
    let (voice, questions) = Voice::new();
    let instance = cluster.identity.instance;
    let consensus = match Consensus::open(&orders.directory, instance, voice).await {
        Ok(consensus) => consensus,
        Err(error) => {
            tracing::error!(%error, "what the cluster agreed on cannot be read");
            if !cluster.view.load().is_alone {
                let refused = Standing::Refused(error.to_string());
                cluster.show(View::outside(refused));
            }
            return ends.all().await;
        }
    };
    let control = Rc::new(Control {
        cluster,
        shared,
        orders,
        consensus,
        links,
        book: RefCell::default(),
        forming: RefCell::default(),
        joining: RefCell::default(),
        candidacy: RefCell::new(Candidacy::new(Instant::now())),
        is_registered: Cell::new(false),
        was_in: Cell::new(false),
        registered: Notify::new(),
        unanswered: RefCell::default(),
        heard: RefCell::default(),
        news: Notify::new(),
        reports: RefCell::default(),
        heard_report: Notify::new(),
        awaited: RefCell::default(),
        down: RefCell::default(),
        gathering: Cell::default(),
        strangers: RefCell::default(),
        left: RefCell::default(),
        is_leaving: Cell::new(false),
        leaving: Notify::new(),
        has_gossiped: Notify::new(),
        settings: RefCell::default(),
        begun: Instant::now(),
    });
    let Inbox {
        refused,
        handovers,
        wishes,
        inquiries,
    } = inbox;
    let work = async {
        tokio::join!(
            voice::speak(Rc::clone(&control), questions),
            control.take_connections(handovers),
            control.take_wishes(wishes),
            control.take_inquiries(inquiries),
            control.keep_losses(),
            control.gossip(socket, own_load, refused),
            control.see(),
            control.report(),
            control.lead(),
            control.enter(),
        )
    };
    let ending = async {
        ends.begun().await;
        control.is_leaving.set(true);
        // What others have asked until now is answered first: who hears of the end gives up what it has asked.
        let _ = tokio::time::timeout(DRAIN_GRACE, ends.all()).await;
        control.leave().await;
        // It would lead for as long as its clients take, and do nothing of what a leader does.
        control.consensus.clone().shutdown().await;
        ends.all().await;
    };
    tokio::select! {
        _ = work => {}
        () = ending => {}
    }
    control.consensus.clone().shutdown().await;
}

impl Control {
    fn agreed(&self) -> Arc<Agreed> {
        Arc::clone(&self.consensus.watch().borrow())
    }

    fn watch(&self) -> watch::Receiver<Arc<Agreed>> {
        self.consensus.watch()
    }

    /// Where a node is reached: as it said last, or as all know.
    fn address_of(&self, instance: u64) -> Option<String> {
        if let Some(address) = self.book.borrow().get(&instance) {
            return Some(address.clone());
        }
        let agreed = self.agreed();
        let member = agreed.of_instance(instance)?.1;
        Some(member.address.clone())
    }

    /// Who leads, and where that is, for what was passed on so often already; it is once more then. Or why it cannot be passed on.
    fn leader_to_pass_to(&self, hops: &mut u8) -> Result<(u64, String), &'static str> {
        if *hops >= MOST_HOPS {
            return Err("the members don't agree on who leads");
        }
        *hops += 1;
        let leader = self.consensus.leader();
        let leader = leader.ok_or("the cluster has no control leader now")?;
        let address = self.address_of(leader);
        let address = address.ok_or("it does not know where the control leader is")?;
        Ok((leader, address))
    }

    /// Goes into the cluster, whichever way there is, and registers this start.
    async fn enter(self: &Rc<Self>) {
        self.wait_for_data().await;
        self.candidacy.borrow_mut().has_data();
        self.stand_back().await;
        let agreed = self.agreed();
        let cluster = match agreed.cluster() {
            Some(cluster) => cluster,
            None => match forming::find(self).await {
                Ok(cluster) => cluster,
                Err(why) => return self.refuse(&why),
            },
        };
        self.cluster.identity.enter(cluster);
        self.register(cluster).await;
    }

    /// It can be in no cluster, which an operator has to know of.
    fn refuse(&self, why: &str) {
        tracing::error!(why, "this node can be in no cluster");
        // One that has all keys itself needs nobody to serve them.
        if !self.cluster.view.load().is_alone {
            self.cluster
                .show(View::outside(Standing::Refused(why.to_owned())));
        }
    }

    /// Waits until it is known what the node has kept.
    async fn wait_for_data(&self) {
        /// How long a thread waits at once: it must end with the node.
        const STEP: Duration = Duration::from_millis(100);
        loop {
            let persistence = Arc::clone(&self.shared.persistence);
            let waited = tokio::task::spawn_blocking(move || persistence.wait(STEP)).await;
            match waited {
                Ok(Some(Ok(()))) => return,
                // It has failed, and the node is to be stopped.
                Ok(Some(Err(_))) | Err(_) => std::future::pending().await,
                Ok(None) => {}
            }
        }
    }

    /// Has this start registered. It goes on until that is done: a node whose cluster has no leader waits for one.
    async fn register(self: &Rc<Self>, cluster: ClusterId) {
        let mut said = String::new();
        let mut leaders = self.consensus.leaders();
        loop {
            let why = match self.start(self.own_start(cluster)).await {
                Started::Yes => break,
                Started::Later(newest) => {
                    if newest >= MAX_INCARNATION {
                        let why = Rejected::Incarnation(newest.saturating_add(1));
                        return self.refuse(&why.to_string());
                    }
                    match self.begin_later(newest + 1).await {
                        Ok(()) => format!("it is start {} of this node", newest + 1),
                        Err(why) => why,
                    }
                }
                Started::Refused(why) => return self.refuse(&why),
                Started::NotNow(why) => why,
            };
            if why != said {
                self.wait_outside(vec![why.clone()]);
                said = why;
            }
            // Another leader may be able to.
            wait_a_while(&mut leaders).await;
        }
        self.note_amnesia();
        self.is_registered.set(true);
        self.registered.notify_one();
        self.news.notify_one();
        // What was seen before this may be all there is to see.
        self.make_view();
    }

    /// Shows that the node waits, if it serves nothing yet.
    fn wait_outside(&self, waits: Vec<String>) {
        let view = self.cluster.view.load();
        let standing = Standing::Outside(waits);
        if !view.is_alone && view.standing != standing {
            if let Standing::Outside(waits) = &standing {
                tracing::info!(waits = waits.join("; "), "not in the cluster yet");
            }
            self.cluster.show(View::outside(standing));
        }
    }

    fn own_start_id(&self) -> (u64, u64) {
        let identity = &self.cluster.identity;
        (identity.instance, identity.incarnation())
    }

    fn own_start(&self, cluster: ClusterId) -> Start {
        let identity = &self.cluster.identity;
        Start {
            who: identity.who(),
            address: identity.address_or_loopback(),
            incarnation: identity.incarnation(),
            has_lost_memory: self.shared.persistence.missing().is_some(),
            cluster,
            hops: 0,
        }
    }

    /// The cluster knows of later starts than the directory: this one has a number after those.
    async fn begin_later(&self, incarnation: u64) -> Result<(), String> {
        let note = self.orders.note_incarnation.clone();
        let noted = tokio::task::spawn_blocking(move || (note.0)(incarnation)).await;
        noted.unwrap_or_else(|_| Err("it was cut off".to_owned()))?;
        self.cluster.identity.set_incarnation(incarnation);
        Ok(())
    }

    /// Registers a start, of this node or another: here if this one is the control leader, or by whoever is.
    async fn start(self: &Rc<Self>, start: Start) -> Started {
        if self.consensus.is_leader() {
            return self.register_as_leader(start).await;
        }
        let mut start = start;
        start.hops += 1;
        let mut why = "it knows no member to ask".to_owned();
        for instance in self.who_may_know() {
            let Some(address) = self.address_of(instance) else {
                continue;
            };
            let asked = self.ask_to_start(instance, &address, &start).await;
            if asked.is_err() {
                let mut unanswered = self.unanswered.borrow_mut();
                *unanswered.entry(instance).or_default() += 1;
            }
            match asked {
                Ok(Started::NotNow(reason)) | Err(reason) => why = reason,
                Ok(started) => return started,
            }
        }
        for address in &self.orders.peers {
            match self.ask_entry_to_start(address, &start).await {
                Ok(Started::NotNow(reason)) | Err(reason) => why = reason,
                Ok(started) => return started,
            }
        }
        Started::NotNow(why)
    }

    /// Whom to ask for the leader.
    fn who_may_know(&self) -> Vec<u64> {
        let agreed = self.agreed();
        let own = self.cluster.identity.instance;
        let heard = self.heard.borrow();
        let nodes = agreed.topology().nodes();
        let others = agreed.members().iter();
        let others = others.filter(|(_, member)| member.instance != own);
        let all = others.map(|(id, member)| {
            let node = nodes.get(id);
            let incarnation = node.map_or(0, |node| node.incarnation);
            let of_this_start = heard.get(&member.instance);
            let of_this_start = of_this_start.filter(|heard| heard.incarnation >= incarnation);
            let doubt = match of_this_start.map(|heard| heard.health) {
                Some(Health::Suspected) => Doubt::Suspected,
                Some(Health::Down) => Doubt::Down,
                None if node.is_some_and(|node| node.state == State::Down) => Doubt::Down,
                Some(Health::Alive) | None => Doubt::None,
            };
            (member.instance, doubt)
        });
        in_order(all, self.consensus.leader(), &self.unanswered.borrow())
    }

    async fn ask_to_start(
        self: &Rc<Self>,
        instance: u64,
        address: &str,
        start: &Start,
    ) -> Result<Started, String> {
        let link = self
            .links
            .to(instance, address)
            .await
            .map_err(|error| error.to_string())?;
        ask_over(&link, start).await
    }

    /// The same of whoever answers at an address.
    async fn ask_entry_to_start(&self, address: &str, start: &Start) -> Result<Started, String> {
        let (link, _) = forming::link_to(self, address)
            .await
            .map_err(|error| format!("{address}: {error}"))?;
        ask_over(&link, start).await
    }

    /// Answers over the connections that others have made.
    async fn take_connections(
        self: &Rc<Self>,
        mut handovers: mpsc::Receiver<super::peers::Handover>,
    ) {
        while let Some(handover) = handovers.recv().await {
            let Some(greeted) = handover.take() else {
                continue;
            };
            self.meet(&greeted.hello);
            let answers = ControlAnswers {
                control: Rc::clone(self),
                from: greeted.hello.instance,
            };
            tokio::task::spawn_local(async move {
                let name = greeted.hello.name.clone();
                if let Some(error) = answer_all(greeted, &answers, None).await {
                    tracing::debug!(name, %error, "a connection of another node has ended");
                }
            });
        }
    }

    /// Another node says where it is reached.
    fn meet(&self, hello: &henge_wire::peer::Hello) {
        /// Nodes that are remembered: more than a cluster has.
        const MOST: usize = 4096;
        let mut book = self.book.borrow_mut();
        if !hello.address.is_empty() && (book.len() < MOST || book.contains_key(&hello.instance)) {
            book.insert(hello.instance, hello.address.clone());
        }
        self.links.forget_failure(hello.instance);
    }
}

/// How sure it is that a member answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Doubt {
    None,
    Suspected,
    Down,
}

/// Who is asked, one after the other: who is known to lead, and then others, which may know more. Each may take seconds where it is
/// silent, so that those that were so before come last, and not all are asked at once; the next time it is the turn of others.
fn in_order(
    all: impl Iterator<Item = (u64, Doubt)>,
    leader: Option<u64>,
    unanswered: &BTreeMap<u64, u32>,
) -> Vec<u64> {
    let mut all: Vec<(u64, Doubt)> = all.collect();
    all.sort_by_key(|&(instance, doubt)| {
        let failures = unanswered.get(&instance).copied().unwrap_or(0);
        (leader != Some(instance), failures, doubt, instance)
    });
    all.truncate(ASKED_MAX);
    all.into_iter().map(|(instance, _)| instance).collect()
}

/// Waits until another leads, or for a while: where Raft has stopped nobody tells of that any more.
async fn wait_a_while(leaders: &mut Leaders) {
    let changed = async {
        if leaders.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let _ = tokio::time::timeout(AGAIN, changed).await;
}

/// Asks for a start over a connection.
async fn ask_over(link: &Link, start: &Start) -> Result<Started, String> {
    let question = questions::encode(start);
    let answer = link
        .ask(Service::Start, &[&question], START_TIMEOUT)
        .map_err(|error| error.to_string())?;
    let answer = answer.await.and_then(Came::whole);
    questions::decode(&answer.map_err(|error| error.to_string())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_answer_is_asked_first() {
        let all = [
            (1, Doubt::Down),
            (2, Doubt::Suspected),
            (3, Doubt::None),
            (4, Doubt::None),
        ];
        let asked = |leader, unanswered: &[(u64, u32)]| {
            let unanswered = unanswered.iter().copied().collect();
            in_order(all.into_iter(), leader, &unanswered)
        };
        assert_eq!(asked(None, &[]), [3, 4, 2, 1]);
        // It is heard, whatever else is said of it.
        assert_eq!(asked(Some(1), &[(1, 5)]), [1, 3, 4, 2]);
        assert_eq!(asked(None, &[(3, 1), (4, 2)]), [2, 1, 3, 4]);
    }

    /// Some silent ones in front keep nobody from being asked.
    #[test]
    fn all_have_their_turn() {
        let members = 100;
        let mut unanswered = BTreeMap::new();
        let mut asked = std::collections::BTreeSet::new();
        for _ in 0..=members / ASKED_MAX as u64 {
            let all = (0..members).map(|instance| (instance, Doubt::None));
            let some = in_order(all, None, &unanswered);
            assert_eq!(some.len(), ASKED_MAX);
            for instance in some {
                *unanswered.entry(instance).or_default() += 1;
                asked.insert(instance);
            }
        }
        assert_eq!(asked.len() as u64, members);
    }
}
