//! What the control leader does: it takes in who wants to be, and proposes what has to change of what is agreed on. Any other node
//! only looks whether it has become the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use henge_cluster::agreed::voters::{self, Seat};
use henge_cluster::agreed::{Agreed, Command, MAX_INCARNATION, Outcome, Rejected};
use henge_cluster::gossip::Health;
use henge_cluster::greeting::Failure;
use henge_cluster::ring::NodeId;
use henge_cluster::topology::{self, Incarnation, State};
use henge_wire::peer::Purpose;
use tokio::time::MissedTickBehavior;

use super::Control;
use super::candidacy::Role;
use super::health::{AllHeard, Heard, is_down};
use super::moving::{self, Gathering};
use super::questions::{Start, Started};
use super::reports::Reports;
use super::seen::is_only;
use crate::cluster::link::greet::{self, GreetError};

/// How often the leader looks around by itself: what it was told of it looks at at once.
const LOOK: Duration = Duration::from_millis(500);
/// A member of which nothing was heard, good or bad, for so long is down: gossip reaches everybody in half of it.
pub(super) const UNHEARD: Duration = Duration::from_secs(5);
/// How long Raft goes on with a node that was removed: several heartbeats.
const TOLD: Duration = Duration::from_secs(1);
/// The weight of a node that nobody gave one.
const WEIGHT: u32 = 100;

impl Control {
    /// Does what is the leader's to do, for as long as this node is that.
    pub(super) async fn lead(self: &Rc<Self>) {
        let mut watch = self.watch();
        let mut leaders = self.consensus.leaders();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leads = false;
        loop {
            self.stand_back().await;
            let leader = self.consensus.leader();
            self.show_leader(leader);
            let is_leader = self.consensus.is_leader();
            if is_leader != leads {
                self.awaited.borrow_mut().clear();
                self.down.borrow_mut().clear();
                leads = is_leader;
                self.tell_leader(leads);
            }
            // Who ends begins nothing that another would have to bring to its end, and who is not in yet knows nothing of others.
            if leads && self.is_registered.get() && !self.stands_back() && !self.is_leaving.get() {
                self.look_around().await;
            }
            tokio::select! {
                changed = watch.changed() => if changed.is_err() {
                    break;
                },
                changed = leaders.changed() => if changed.is_err() {
                    break;
                },
                () = self.news.notified() => {}
                _ = looks.tick() => {}
            }
        }
        // Raft has stopped, or is about to.
        while leaders.changed().await.is_ok() {}
        self.show_leader(None);
        if leads {
            self.tell_leader(false);
        }
        self.tell_failure();
    }

    /// Says whether this node may lead, and has another lead for which that is better, if there is one.
    pub(super) async fn stand_back(&self) {
        // Before Raft has begun nobody votes, as far as it says.
        let is_only_voter = self.consensus.voters().len() == 1;
        let (role, now) = (self.role(), Instant::now());
        let why = self.candidacy.borrow_mut().look(now, role, is_only_voter);
        if let Some(why) = why {
            self.tell_of_itself("deaf", &format!("{why}, and lets another lead"));
        }
        let may_lead = self.candidacy.borrow().may_lead(now);
        self.consensus.set_may_lead(may_lead).await;
    }

    fn stands_back(&self) -> bool {
        self.candidacy.borrow().stands_back(Instant::now())
    }

    fn role(&self) -> Role {
        if !self.consensus.is_leader() {
            Role::Follows
        } else if !self.is_registered.get() {
            Role::LeadsOutside
        } else if self.is_deaf(&self.agreed()) {
            Role::LeadsDeaf
        } else {
            Role::Leads
        }
    }

    /// Whether most of those that vote are down for this node, which a majority of them has answered just now, as it leads: it is this
    /// node that does not hear them. Of two nobody could lead without the other.
    fn is_deaf(&self, agreed: &Agreed) -> bool {
        let heard = self.all_heard(agreed);
        let nodes = agreed.topology().nodes();
        let voters = self.consensus.voters();
        let is_heard = |voter: &&u64| {
            let member = agreed.of_instance(**voter);
            let node = member.and_then(|(id, _)| nodes.get(&id));
            node.is_none_or(|node| is_down(&heard, **voter, node.incarnation) != Some(true))
        };
        voters.len() > 2 && 2 * voters.iter().filter(is_heard).count() <= voters.len()
    }

    /// Raft has stopped: this node hears of nothing that is agreed on any more.
    fn tell_failure(&self) {
        // Who ends has stopped it.
        if self.is_leaving.get() {
            return;
        }
        if let Some(why) = self.consensus.failure() {
            tracing::error!(
                why,
                "this node takes no part in what the cluster agrees on until it is started anew"
            );
            let what = format!("takes no part in what the cluster agrees on: {why}");
            self.tell_of_itself("failed", &what);
        }
    }

    /// Shows who leads, by the name that all know.
    fn show_leader(&self, leader: Option<u64>) {
        let agreed = self.agreed();
        let member = leader.and_then(|instance| agreed.of_instance(instance));
        self.cluster
            .set_leader(member.map(|(_, member)| member.name.clone()));
    }

    fn tell_leader(&self, leads: bool) {
        // That who ends leads no more is no news.
        if !leads && self.is_leaving.get() {
            return;
        }
        let (kind, what) = if leads {
            ("leading", "is the control leader")
        } else {
            ("led", "is not the control leader any more")
        };
        self.tell_of_itself(kind, what);
    }

    /// Adds an event about this node, whose name comes before what is told.
    fn tell_of_itself(&self, kind: &'static str, what: &str) {
        let name = &self.cluster.identity.name;
        let epoch = self.agreed().topology().epoch();
        let now_ms = self.shared.clock.now_ms();
        let text = format!("{name} {what}");
        self.cluster
            .events
            .add(now_ms, epoch, kind, Some(name), text);
    }

    async fn look_around(&self) {
        let agreed = self.agreed();
        if agreed.cluster().is_none() {
            return;
        }
        let own = self.own_start_id();
        let heard = self.all_heard(&agreed);
        // Requests wait for this, and what else there is to do may take some rounds.
        for command in changed_health(&agreed, own, &heard) {
            self.propose(Command::Topology(command)).await;
        }
        // Whoever is ready can lose its control leader: partitions are placed when enough vote.
        let is_settled = self.choose_voters().await;
        let agreed = self.agreed();
        let heard = self.all_heard(&agreed);
        let reports = self.all_reports();
        if reports.is_some() {
            self.replace_lost(&agreed).await;
        }
        let mut gathering = self.gathering.get();
        let wanted = wanted(
            &agreed,
            own,
            is_settled,
            &heard,
            reports.as_ref(),
            &mut gathering,
        );
        self.gathering.set(gathering);
        for command in wanted {
            self.propose(Command::Topology(command)).await;
        }
    }

    /// What is known of all others: who was not heard of at all for long enough is down.
    pub(super) fn all_heard(&self, agreed: &Agreed) -> AllHeard {
        let mut heard = self.heard.borrow().clone();
        let own = self.cluster.identity.instance;
        let now = Instant::now();
        let mut awaited = self.awaited.borrow_mut();
        let mut still = BTreeMap::new();
        for (id, member) in agreed.members() {
            let incarnation = agreed
                .topology()
                .nodes()
                .get(id)
                .map_or(0, |n| n.incarnation);
            let instance = member.instance;
            if instance == own || is_down(&heard, instance, incarnation).is_some() {
                continue;
            }
            let since = awaited
                .get(&(instance, incarnation))
                .copied()
                .unwrap_or(now);
            still.insert((instance, incarnation), since);
            if now.duration_since(since) >= UNHEARD {
                let health = Health::Down;
                heard.insert(
                    instance,
                    Heard {
                        incarnation,
                        health,
                    },
                );
            }
        }
        *awaited = still;
        heard
    }

    /// Proposes; what is refused is so already, or will be wanted again.
    pub(super) async fn propose(&self, command: Command) -> Option<Outcome> {
        match self.consensus.propose(command).await {
            Ok(Ok(outcome)) => Some(outcome),
            Ok(Err(rejected)) => {
                tracing::debug!(%rejected, "a change was not agreed on");
                None
            }
            Err(error) => {
                tracing::debug!(%error, "a change was not agreed on");
                None
            }
        }
    }

    /// Brings those who take part in Raft in line with the members. Whether as many vote as should.
    async fn choose_voters(&self) -> bool {
        // All of it is of one moment: nothing is waited for between these.
        let (present, ready) = (self.consensus.voters(), self.consensus.ready_learners());
        let known: BTreeSet<u64> = self
            .consensus
            .learners()
            .into_iter()
            .chain(present.clone())
            .collect();
        let agreed = self.agreed();
        let nodes = agreed.topology().nodes();
        let seats: BTreeMap<u64, Seat> = agreed
            .members()
            .iter()
            .map(|(id, member)| {
                let node = nodes.get(id);
                let seat = Seat {
                    is_alive: node.is_some_and(|node| node.state != State::Down),
                    is_leaving: node.is_some_and(|node| node.is_leaving),
                };
                (member.instance, seat)
            })
            .collect();
        let own = self.cluster.identity.instance;
        // Whose place another instance has taken, or who was removed, is spoken to no more.
        let is_stranger = |id: &u64| !seats.contains_key(id) && !self.is_joining(*id);
        let strangers: BTreeSet<u64> = known.iter().copied().filter(is_stranger).collect();
        let strangers = self.told_strangers(strangers);
        // One that was put out in the moment in which it came back.
        for member in agreed.members().values() {
            if !known.contains(&member.instance)
                && let Err(error) = self
                    .consensus
                    .add_learner(member.instance, member.address.clone())
                    .await
            {
                tracing::debug!(%error, member = member.name, "a member is not told what is agreed on");
            }
        }
        let next = voters::next(&seats, &present, &ready, own);
        if next.is_none() && strangers.is_empty() && !self.consensus.is_changing() {
            return present.len() >= voters::best(seats.len());
        }
        let voters = next.unwrap_or(present);
        let are_enough = voters.len() >= voters::best(seats.len());
        match self.consensus.set_voters(voters, &strangers).await {
            Ok(()) => are_enough,
            Err(error) => {
                tracing::debug!(%error, "the voters were not changed");
                false
            }
        }
    }

    /// Those who have had the time to hear that they are no members any more: what is agreed on is told with the next heartbeats.
    fn told_strangers(&self, strangers: BTreeSet<u64>) -> BTreeSet<u64> {
        let now = Instant::now();
        let mut since = self.strangers.borrow_mut();
        since.retain(|id, _| strangers.contains(id));
        let told = strangers
            .into_iter()
            .filter(|id| now.duration_since(*since.entry(*id).or_insert(now)) >= TOLD);
        told.collect()
    }

    /// Whether a learner is about to be a member.
    fn is_joining(&self, instance: u64) -> bool {
        self.joining.borrow().contains(instance)
    }

    /// Registers a start, as the control leader.
    pub(super) async fn register_as_leader(self: &Rc<Self>, start: Start) -> Started {
        let instance = start.who.instance;
        self.joining.borrow_mut().begin(instance);
        let started = self.try_to_register(start).await;
        self.joining.borrow_mut().end(instance);
        started
    }

    async fn try_to_register(&self, start: Start) -> Started {
        if start.incarnation > MAX_INCARNATION {
            return Started::Refused(Rejected::Incarnation(start.incarnation).to_string());
        }
        let agreed = self.agreed();
        let not_now = |error: &dyn std::fmt::Display| Started::NotNow(error.to_string());
        let name = &start.who.name;
        let is_founder = agreed.founders().iter().any(|who| who.name == *name);
        if !is_founder && !is_placed(&agreed) {
            // Who joins holds nothing: the partitions are those of the founders.
            return Started::NotNow("the partitions are not placed yet".to_owned());
        }
        if let Some((id, known)) = agreed.named(&start.who.name)
            && known.instance != start.who.instance
        {
            // It was replaced, if it does not answer any more.
            let me = &self.cluster.identity;
            let at = &known.address;
            let greeted = greet::connect(at, Some(known.instance), Purpose::Control, me).await;
            if let Err(GreetError::Said(Failure::Cluster(other, theirs))) = &greeted {
                let now_ms = self.shared.clock.now_ms();
                self.cluster.tell_of_another(now_ms, at, other, *theirs);
            }
            match greeted {
                Ok(_) => {
                    return Started::Refused(format!(
                        "there is a member {} at {} already; each needs a cluster.node_id of its own",
                        known.name, known.address
                    ));
                }
                // Its port is closed, another is there, or all agree that it is down.
                Err(GreetError::Refused(_) | GreetError::Said(Failure::Another(_))) => {}
                Err(_) if is_known_down(&agreed, id) => {}
                Err(error) => {
                    return Started::NotNow(format!(
                        "{} at {} may be there still: {error}",
                        known.name, known.address
                    ));
                }
            }
        }
        self.book
            .borrow_mut()
            .insert(start.who.instance, start.address.clone());
        let newest = agreed.newest_start(&start.who.name);
        if start.incarnation <= newest {
            let is_known = agreed
                .of_instance(start.who.instance)
                .is_some_and(|(id, _)| {
                    let node = agreed.topology().nodes().get(&id);
                    node.is_some_and(|node| node.incarnation == start.incarnation)
                });
            // Its answer may have been lost.
            return if is_known {
                Started::Yes
            } else {
                Started::Later(newest)
            };
        }
        let added = self
            .consensus
            .add_learner(start.who.instance, start.address.clone());
        if let Err(error) = added.await {
            return not_now(&error);
        }
        let command = Command::Start {
            who: start.who,
            address: start.address,
            incarnation: start.incarnation,
            has_lost_memory: start.has_lost_memory,
            weight: WEIGHT,
            zone: None,
        };
        match self.consensus.propose(command).await {
            Ok(Ok(_)) => Started::Yes,
            Ok(Err(rejected)) => not_now(&rejected),
            Err(error) => not_now(&error),
        }
    }
}

/// Instances that are being taken in, and how often at once: who asks again, as it was not answered in time, may be asked for still.
#[derive(Debug, Default)]
pub(super) struct Joining(BTreeMap<u64, usize>);

impl Joining {
    fn begin(&mut self, instance: u64) {
        *self.0.entry(instance).or_default() += 1;
    }

    fn end(&mut self, instance: u64) {
        if let Some(count) = self.0.get_mut(&instance) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&instance);
            }
        }
    }

    fn contains(&self, instance: u64) -> bool {
        self.0.contains_key(&instance)
    }
}

/// Whether partitions have their places.
pub(super) fn is_placed(agreed: &Agreed) -> bool {
    agreed.topology().is_placed()
}

fn is_known_down(agreed: &Agreed, id: NodeId) -> bool {
    let node = agreed.topology().nodes().get(&id);
    node.is_some_and(|node| node.state == State::Down)
}

/// An instance, and one of its starts.
type StartId = (u64, Incarnation);

/// Whether a member is down, by what `own`, the start that leads, has heard.
fn is_found_down(agreed: &Agreed, own: StartId, heard: &AllHeard, id: NodeId) -> Option<bool> {
    let node = agreed.topology().nodes().get(&id)?;
    let instance = agreed.members().get(&id)?.instance;
    // Nobody hears of itself; that it is down it has from before it led.
    if (instance, node.incarnation) == own {
        return Some(false);
    }
    is_down(heard, instance, node.incarnation)
}

/// Who is down, and who is not any more.
fn changed_health(agreed: &Agreed, own: StartId, heard: &AllHeard) -> Vec<topology::Command> {
    use topology::Command as Change;
    let nodes = agreed.topology().nodes().iter();
    // Who was removed by force stays down, whatever is heard of it.
    let changed = nodes
        .filter(|(_, node)| !node.is_lost)
        .filter_map(
            |(&id, node)| match (is_found_down(agreed, own, heard, id)?, node.state) {
                (true, State::Aligning | State::Up) => Some(Change::Down(id, node.incarnation)),
                (false, State::Down) => Some(Change::Back(id, node.incarnation)),
                (true, State::Down) | (false, State::Aligning | State::Up) => None,
            },
        );
    changed.collect()
}

/// What else has to change of the topology, as the start `own` that leads sees it.
fn wanted(
    agreed: &Agreed,
    own: StartId,
    is_settled: bool,
    heard: &AllHeard,
    reports: Option<&Reports>,
    gathering: &mut Gathering,
) -> Vec<topology::Command> {
    use topology::Command as Change;
    let topology = agreed.topology();
    let mut changes = Vec::new();
    for (&id, node) in topology.nodes() {
        if node.state == State::Down || is_found_down(agreed, own, heard, id) == Some(true) {
            continue;
        }
        if let Some(reports) = reports {
            let member = agreed.members().get(&id);
            let reported = member.and_then(|member| reports.of(member.instance, node.incarnation));
            if let Some(reported) = reported {
                changes.extend(topology.judged(id, |partition| reported.aligned(partition)));
            }
            continue;
        }
        // A node by itself has nobody to be aligned with. One that has heard of another a moment ago, and does not replicate yet, is not
        // by itself any more.
        if is_only(agreed) && node.state != State::Up {
            changes.push(Change::Up(id, node.incarnation));
            if node.amnesia > 0 {
                changes.push(Change::Remembers(id, node.incarnation));
            }
        }
    }
    if let Some(reports) = reports {
        let instance = |id: NodeId| agreed.members().get(&id).map(|member| member.instance);
        let now = Instant::now();
        changes.extend(moving::next(topology, reports, instance, gathering, now));
    }
    let is_in = |name: &str| {
        let member = agreed.named(name).map(|(id, _)| id);
        member.is_some_and(|id: NodeId| topology.nodes().contains_key(&id))
    };
    if !is_placed(agreed)
        && is_settled
        && agreed.founders().iter().all(|founder| is_in(&founder.name))
    {
        changes.push(Change::Rebalance);
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_cluster::forming::{ClusterId, Who};

    /// Two nodes, whose instances are 11 and 12.
    fn formed() -> Agreed {
        formed_of(&[("a", 11), ("b", 12)])
    }

    fn formed_of(all: &[(&str, u64)]) -> Agreed {
        let mut agreed = Agreed::new();
        let founders = all.iter().map(|&(name, instance)| Who {
            name: name.to_owned(),
            instance,
        });
        let founders: BTreeSet<Who> = founders.collect();
        let form = Command::Form {
            cluster: ClusterId(1),
            founders: founders.clone(),
            replication: 2,
        };
        let starts = founders.into_iter().map(|who| Command::Start {
            address: format!("{}:7000", who.name),
            who,
            incarnation: 1,
            has_lost_memory: false,
            weight: WEIGHT,
            zone: None,
        });
        for command in std::iter::once(form).chain(starts) {
            agreed.apply(&command).expect("it is agreed on");
        }
        agreed
    }

    fn apply(agreed: &mut Agreed, command: topology::Command) {
        let applied = agreed.apply(&Command::Topology(command));
        applied.expect("it is agreed on");
    }

    fn is_alive(instance: u64) -> AllHeard {
        let heard = Heard {
            incarnation: 1,
            health: Health::Alive,
        };
        AllHeard::from([(instance, heard)])
    }

    #[test]
    fn who_leads_and_was_down_comes_back_by_itself() {
        let mut agreed = formed();
        for n in [1, 2] {
            apply(&mut agreed, topology::Command::Down(NodeId(n), 1));
        }
        let back = |n| topology::Command::Back(NodeId(n), 1);
        for (own, heard, expected) in [
            ((11, 1), AllHeard::new(), vec![back(1)]),
            ((11, 1), is_alive(12), vec![back(1), back(2)]),
            // What is agreed on is of a start before the one that leads.
            ((11, 2), AllHeard::new(), vec![]),
        ] {
            assert_eq!(changed_health(&agreed, own, &heard), expected, "{own:?}");
        }
    }

    #[test]
    fn who_was_removed_by_force_stays_down() {
        let mut agreed = formed();
        apply(&mut agreed, topology::Command::Rebalance);
        apply(&mut agreed, topology::Command::Down(NodeId(2), 1));
        apply(&mut agreed, topology::Command::Lose(NodeId(2)));
        assert_eq!(changed_health(&agreed, (11, 1), &is_alive(12)), []);
    }

    /// It has replicas as soon as it has seen the other, and may be asked before that.
    #[test]
    fn who_does_not_replicate_yet_judges_nobody_but_itself() {
        let wanted = |agreed: &Agreed| {
            let heard = is_alive(12);
            wanted(
                agreed,
                (11, 1),
                false,
                &heard,
                None,
                &mut Gathering::default(),
            )
        };
        assert_eq!(wanted(&formed()), []);
        let alone = formed_of(&[("a", 11)]);
        assert_eq!(wanted(&alone), [topology::Command::Up(NodeId(1), 1)]);
    }

    #[test]
    fn who_is_taken_in_twice_is_so_until_both_are_over() {
        let mut joining = Joining::default();
        joining.begin(7);
        joining.begin(7);
        joining.begin(8);
        joining.end(7);
        assert!(joining.contains(7) && joining.contains(8));
        joining.end(7);
        assert!(!joining.contains(7) && joining.contains(8));
        joining.end(8);
        assert!(joining.0.is_empty());
    }
}
