//! From what is agreed on to what this node's threads see: a view for each state, and the events between two states.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use henge_cluster::agreed::Agreed;
use henge_cluster::topology::{Node, State, Topology};
use henge_wire::Partition;

use super::Control;
use super::health::is_down;
use super::leading::is_placed;
use crate::access::agreed::{is_access, told};
use crate::cluster::placing::Placing;
use crate::cluster::settings::Settings;
use crate::cluster::view::{Member, MemberState, Standing, View};

impl Control {
    /// Follows what is agreed on.
    pub(super) async fn see(&self) {
        let mut watch = self.watch();
        // What was agreed on before this start is no news.
        let mut before = self.agreed();
        loop {
            let now = Arc::clone(&watch.borrow_and_update());
            self.tell(&before, &now);
            let moved = moved(before.topology(), now.topology());
            self.cluster
                .moved_partitions
                .fetch_add(moved, Ordering::Relaxed);
            before = now;
            self.make_view();
            if watch.changed().await.is_err() {
                // Consensus has ended.
                return;
            }
        }
    }

    /// Makes the view of what is agreed on now, once this node has its part in it.
    pub(super) fn make_view(&self) {
        let agreed = self.agreed();
        let (Some(cluster), identity) = (agreed.cluster(), &self.cluster.identity) else {
            return;
        };
        let own = agreed.of_instance(identity.instance);
        let is_mine = |node: &Node| node.incarnation == identity.incarnation();
        let nodes = agreed.topology().nodes();
        let is_in = own.is_some_and(|(id, _)| nodes.get(&id).is_some_and(is_mine));
        if !self.is_registered.get() {
            return;
        }
        // Before this node has heard of its own start it is in nothing yet.
        self.was_in.set(self.was_in.get() || is_in);
        if !self.was_in.get() {
            return;
        }
        if !is_in {
            // What it has is another's now.
            let why = if agreed.named(&identity.name).is_some() {
                "another start, or another node of its name, is the member now"
            } else {
                "it was removed from the cluster, and can be ended; its next start joins again"
            };
            self.cluster
                .show(View::outside(Standing::Refused(why.to_owned())));
            return;
        }
        self.show_replicas(&agreed);
        let heard = self.all_heard(&agreed);
        let members: Vec<Arc<Member>> = agreed
            .members()
            .iter()
            .filter_map(|(id, member)| {
                let node = nodes.get(id)?;
                Some(Arc::new(Member {
                    id: *id,
                    name: member.name.clone(),
                    instance: member.instance,
                    incarnation: node.incarnation,
                    address: member.address.clone(),
                    state: state(node),
                    is_silent: is_down(&heard, member.instance, node.incarnation) == Some(true),
                    has_left: self.has_left(member.instance, node.incarnation),
                    is_me: member.instance == identity.instance,
                }))
            })
            .collect();
        let topology = agreed.topology();
        if !is_placed(&agreed) && agreed.founders().len() > 1 {
            let is_in = |name: &str| agreed.named(name).is_some();
            let missing = agreed.founders().iter().filter(|who| !is_in(&who.name));
            let waits = missing.map(|who| format!("{} is not in the cluster yet", who.name));
            let mut waits: Vec<String> = waits.collect();
            if waits.is_empty() {
                waits.push("the partitions are not placed yet".to_owned());
            }
            return self.wait_outside(waits);
        }
        let is_only = is_only(&agreed);
        let only = members.first().map(|member| member.id).filter(|_| is_only);
        let owner = |partition: Partition| {
            let placement = topology.placement(partition);
            let first = || placement.old.first().copied();
            only.or_else(|| placement.leader.map(|(leader, _)| leader).or_else(first))
        };
        let view = View::of(cluster, topology.epoch(), members, owner);
        let me = view.me().filter(|me| me.state == MemberState::Up);
        let me = me.map(|me| me.id);
        let view = view.with_replicas(topology.replication(), |partition| {
            me.is_some_and(|me| topology.placement(partition).old.contains(&me))
        });
        let view = view.with_terms(|partition| topology.placement(partition).term);
        let view = view.with_placing(Placing::of(topology));
        self.cluster.show(view.with(self.settings(&agreed)));
    }

    /// What this node makes of the settings that are agreed on. They are looked at only where they have changed: views are made
    /// more often.
    fn settings(&self, agreed: &Agreed) -> Arc<Settings> {
        self.shared.access.set_agreed(agreed.settings());
        let mut made = self.settings.borrow_mut();
        if made.agreed() != agreed.settings() {
            let settings = Settings::of(agreed.settings());
            for (name, why) in settings.newly_ignored(&made) {
                tracing::warn!(
                    name,
                    why,
                    "a setting of the cluster is ignored here: a later version may have set it"
                );
            }
            *made = Arc::new(settings);
        }
        Arc::clone(&made)
    }

    /// Tells what has changed between two states.
    fn tell(&self, before: &Agreed, now: &Agreed) {
        let time_ms = self.shared.clock.now_ms();
        let epoch = now.topology().epoch();
        let events = &self.cluster.events;
        if let Some(cluster) = now.cluster()
            && before.cluster() != Some(cluster)
        {
            let text = format!("the cluster {cluster} is formed");
            events.add(time_ms, epoch, "formed", None, text);
        }
        for (id, member) in now.members() {
            let name = Some(&*member.name);
            let Some(node) = now.topology().nodes().get(id) else {
                continue;
            };
            let known = before.topology().nodes().get(id);
            let add = |kind, text| events.add(time_ms, epoch, kind, name, text);
            match known {
                None => add(
                    "joined",
                    format!("{} at {} is a member", member.name, member.address),
                ),
                Some(known) if known.incarnation != node.incarnation => add(
                    "started",
                    format!(
                        "{} at {} has been started anew, for the {}. time",
                        member.name, member.address, node.incarnation
                    ),
                ),
                Some(known) if known.state != node.state => {
                    let has_left = self.has_left(member.instance, node.incarnation);
                    let (kind, what) = match node.state {
                        State::Down if has_left => (
                            "down",
                            "has left, as it was stopped, and is down until it is started again",
                        ),
                        State::Down => ("down", "cannot be reached, and is down"),
                        State::Aligning => ("back", "can be reached again"),
                        State::Up => ("up", "is up"),
                    };
                    add(
                        kind,
                        format!("{} at {} {what}", member.name, member.address),
                    );
                }
                Some(_) => {}
            }
            if let Some(known) = known {
                for (kind, what) in self::changed(known, node) {
                    add(kind, format!("{} {what}", member.name));
                }
                let is_drained = |of: &Agreed, node: &Node| {
                    node.is_leaving && !node.is_lost && !of.topology().names(*id)
                };
                if is_drained(now, node) && !is_drained(before, known) {
                    let text = "holds nothing any more: its process can be ended";
                    add("drained", format!("{} {text}", member.name));
                }
            }
        }
        let (planned, is_planned) = (before.topology().moves(), now.topology().moves());
        if planned.are_due() && !is_planned.are_due() && is_planned.total() > 0 {
            let text = format!("{} partitions are to move", is_planned.total());
            events.add(time_ms, epoch, "moving", None, text);
        }
        if planned.total() > 0 && is_planned.total() == 0 {
            let text = "all partitions are where they should be".to_owned();
            events.add(time_ms, epoch, "moved", None, text);
        }
        let names = before.settings().keys().chain(now.settings().keys());
        for name in names.collect::<BTreeSet<_>>() {
            let (was, is) = (before.settings().get(name), now.settings().get(name));
            let value = is.map(|is| is.value.as_str());
            let text = match is {
                _ if was == is => continue,
                // What one is is in no log.
                _ if is_access(name) => told(name, value).unwrap_or_default().to_owned(),
                Some(is) => {
                    let was = was.map_or("each node's own", |was| &was.value);
                    format!("{name} is {} in the whole cluster, and was {was}", is.value)
                }
                None => format!("{name} is each node's own"),
            };
            events.add(time_ms, epoch, "setting", None, text);
        }
        for (id, member) in before.members() {
            if !now.members().contains_key(id) {
                let text = format!("{} is no member any more", member.name);
                events.add(time_ms, epoch, "removed", Some(&member.name), text);
            }
        }
    }
}

/// Whether a cluster is of one node, and of no other that it waits for.
pub(super) fn is_only(agreed: &Agreed) -> bool {
    agreed.members().len() == 1 && agreed.founders().len() <= 1
}

/// What has changed of what a node is to hold: a kind of event, and what follows its name.
fn changed(was: &Node, is: &Node) -> Vec<(&'static str, String)> {
    let mut changed = Vec::new();
    if is.is_lost && !was.is_lost {
        let text = "was removed by force: it counts nowhere, and others take its place";
        changed.push(("lost", text.to_owned()));
    } else if is.is_leaving && !was.is_leaving {
        changed.push(("leaving", "is to hold nothing any more".to_owned()));
    } else if was.is_leaving && !is.is_leaving {
        changed.push(("staying", "stays".to_owned()));
    }
    if is.is_replaced && !was.is_replaced {
        let text = "is down for too long: others take its place until it is back";
        changed.push(("replaced", text.to_owned()));
    }
    if was.weight != is.weight {
        let text = format!("weighs {}, and weighed {}", is.weight, was.weight);
        changed.push(("weight", text));
    }
    changed
}

/// How many partitions have other replicas, or another order of them, than in the state before. To be placed is no move.
fn moved(before: &Topology, now: &Topology) -> u64 {
    if before.epoch() == now.epoch() {
        return 0;
    }
    let partitions = now.partitions();
    let has_moved = |partition: &Partition| {
        let was = &before.placement(*partition).old;
        !was.is_empty() && *was != now.placement(*partition).old
    };
    partitions.filter(has_moved).count() as u64
}

fn state(node: &Node) -> MemberState {
    match node.state {
        State::Down => MemberState::Down,
        _ if node.is_leaving => MemberState::Leaving,
        State::Aligning => MemberState::Aligning,
        State::Up => MemberState::Up,
    }
}
