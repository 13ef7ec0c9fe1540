//! The cluster as this node sees it, for people and programs: its members, who has which partitions, where a key is and why, and
//! the last events.

use std::sync::Arc;
use std::time::Instant;

use henge_cluster::ring::NodeId;
use henge_wire::{PARTITIONS, Partition, SLOTS, Slot};
use serde_json::{Value, json};

use super::{Metrics, persistence};
use crate::cluster::losses::{Merged, Of};
use crate::cluster::replicas::Aligned;
use crate::cluster::replicas::pace::Copies;
use crate::cluster::view::{Member, SLOTS_EACH, Standing, View};
use crate::http::json::put_bytes;
use crate::http::level;
use crate::memory;

impl Metrics {
    /// The whole of it.
    pub(crate) fn cluster(&self) -> Value {
        let cluster = &self.shared.cluster;
        let view = cluster.view.load_full();
        let members: Vec<Value> = cluster
            .members(&view)
            .iter()
            .map(|member| self.member(&view, member))
            .collect();
        let owners: Vec<Value> = self
            .runs(&view)
            .iter()
            .map(|(first, last, member)| json!([first, last, member.id.0]))
            .collect();
        let held = held(&view);
        let me = view.me().map(|me| me.id);
        let mut page = json!({
            "cluster": view.cluster.map(|cluster| cluster.to_string()),
            "leader": cluster.leader().as_deref(),
            "epoch": view.epoch,
            "members": members,
            "partitions": {"count": PARTITIONS, "owners": owners},
            "moves": Self::moves(&view),
            "copies": self.copies(&view),
            "slots": SLOTS,
            "replication_factor": view.replication,
            "default_consistency": level::name(self.shared.live.load().default_level),
            // What only this node knows of itself.
            "nodes": [{
                "id": self.node_id,
                "address": self.address,
                "leads_partitions": held,
                "holds_partitions": me.map_or(held, |me| holds(&view, me).unwrap_or(held)),
                "durability": persistence::durability(&self.shared.persistence),
                "secrets": self.secrets(),
            }],
        });
        stand(&view.standing, &mut page);
        page
    }

    /// The numbers of the secrets that it uses and accepts, which tell whether two nodes have the same; null where it has none.
    fn secrets(&self) -> Value {
        let number = |id: u32| format!("{id:08x}");
        let secrets = self.shared.cluster.identity.secrets();
        secrets.map_or(Value::Null, |secrets| {
            let used = secrets.used().id();
            let accepted = [Some(used), secrets.also_accepted()];
            let accepted: Vec<String> = accepted.into_iter().flatten().map(number).collect();
            json!({"uses": number(used), "accepts": accepted})
        })
    }

    fn member(&self, view: &View, member: &Member) -> Value {
        let mut shown = brief(member);
        let load = self.shared.cluster.load(member.instance);
        shown["instance"] = json!(format!("{:016x}", member.instance));
        shown["incarnation"] = json!(member.incarnation);
        shown["is_me"] = json!(member.is_me);
        shown["is_reachable"] = json!(member.is_reachable());
        shown["partitions"] = json!(if member.is_me {
            held(view)
        } else {
            led(view, member)
        });
        shown["holds_partitions"] = json!(holds(view, member.id));
        shown["weight"] = json!(view.placing.member(member.id).map(|holding| holding.weight));
        if member.is_me {
            let cache = self.shared.cache.stats().shards;
            shown["items"] = json!(cache.items);
            shown["bytes"] = json!(cache.charged_bytes);
            shown["operations_per_second"] = json!(self.pulse.operations_per_second());
            shown["memory_bytes"] = json!(memory::process().ok().map(|process| process.rss_bytes));
            shown["queue_bytes"] = json!(self.shared.in_flight.held());
        } else {
            shown["items"] = Value::Null;
            shown["bytes"] = Value::Null;
            shown["operations_per_second"] = json!(load.map(|load| load.operations_per_second));
            shown["memory_bytes"] = json!(load.map(|load| load.memory_bytes));
            shown["queue_bytes"] = json!(load.map(|load| load.queue_bytes));
        }
        shown
    }

    /// How far the partitions are that change their places.
    fn moves(view: &View) -> Value {
        let moves = &view.placing.moves;
        json!({
            "are_planned": !moves.are_due,
            "partitions_total": moves.total,
            "partitions_done": moves.done(),
            "partitions_moving": moves.moving,
            "partitions_to_hand_over": moves.to_hand_over,
        })
    }

    /// How far this node's replicas are, and what it sends to those of others.
    fn copies(&self, view: &View) -> Value {
        let pace = &self.shared.replicas.pace;
        let Copies { under_way, waiting } = pace.copies();
        let Aligned { replicas, aligned } = self.alignment(view);
        json!({
            "replicas": replicas,
            "replicas_aligned": aligned,
            "under_way": under_way,
            "waiting": waiting,
            "sent_bytes": pace.sent_bytes(),
            "sent_bytes_per_second": pace.bytes_per_second(Instant::now()),
        })
    }

    /// How many of this node's replicas are as far as their leaders.
    pub(super) fn alignment(&self, view: &View) -> Aligned {
        if self.shared.is_replicated() {
            return self.shared.replicas.aligned();
        }
        let held = held(view);
        Aligned {
            replicas: held,
            aligned: held,
        }
    }

    /// Runs of partitions with one holder, from the first to the last.
    fn runs(&self, view: &View) -> Vec<(u16, u16, Arc<Member>)> {
        if view.is_alone {
            let me = self.shared.cluster.members(view).remove(0);
            return vec![(0, PARTITIONS - 1, me)];
        }
        let runs = view.runs().into_iter();
        runs.map(|(first, last, member)| (first.number(), last.number(), Arc::clone(member)))
            .collect()
    }

    /// Where a key is, and why.
    pub(crate) fn ring_of(&self, key: &[u8]) -> Value {
        let cluster = &self.shared.cluster;
        let view = cluster.view.load_full();
        let (slot, partition) = (Slot::of(key), Partition::of(key));
        let holder = if view.is_alone {
            Some(cluster.members(&view).remove(0))
        } else {
            view.holder(partition).cloned()
        };
        let holder = holder.map(|member| brief(&member));
        let tag = Slot::hash_tag(key);
        let hashed = tag.map_or_else(
            || "the key".to_owned(),
            |tag| format!("its hash tag {{{}}}", tag.escape_ascii()),
        );
        let (number, slot) = (partition.number(), slot.number());
        let why = match &holder {
            None => view.why_nowhere().to_string(),
            Some(holder) => format!(
                "the CRC16 of {hashed} modulo {SLOTS} is the slot {slot}, which is in the partition {number} (slot / {SLOTS_EACH}), and that is {}'s by the placement of epoch {}",
                holder["name"].as_str().unwrap_or_default(),
                view.epoch,
            ),
        };
        let mut page = json!({
            "slot": slot,
            "partition": number,
            "epoch": view.epoch,
            "replicas": holder.iter().collect::<Vec<_>>(),
            "holder": holder,
            "why": why,
        });
        put_bytes(&mut page, "key", key);
        match tag {
            Some(tag) => put_bytes(&mut page, "hash_tag", tag),
            None => page["hash_tag"] = Value::Null,
        }
        page
    }

    /// All partitions in runs of one member.
    pub(crate) fn ring(&self) -> Value {
        let cluster = &self.shared.cluster;
        let view = cluster.view.load_full();
        let run = |(first, last, holder): (u16, u16, Arc<Member>)| {
            json!({
                "first_partition": first,
                "last_partition": last,
                "first_slot": first * SLOTS_EACH,
                "last_slot": last * SLOTS_EACH + SLOTS_EACH - 1,
                "holder": brief(&holder),
            })
        };
        let runs: Vec<Value> = self.runs(&view).into_iter().map(run).collect();
        json!({"epoch": view.epoch, "runs": runs})
    }

    /// What all members have found to be lost.
    pub(crate) async fn losses(&self) -> Value {
        let own = Of {
            name: self.node_id.clone(),
            said: Ok(self.shared.losses.found()),
        };
        let cluster = &self.shared.cluster;
        let mut all = vec![own];
        if let Some(others) = cluster.others_losses().await {
            all.extend(others);
        } else {
            // Who the others are it knows, if it has ever been in its cluster.
            let members = cluster.members(&cluster.view.load_full());
            let others = members.iter().filter(|member| !member.is_me);
            all.extend(others.map(|member| Of {
                name: member.name.clone(),
                said: Err("this node takes no part in its cluster".to_owned()),
            }));
        }
        Merged::new(all).page()
    }

    /// The events after one.
    pub(crate) fn events(&self, after: u64) -> Value {
        let events = &self.shared.cluster.events;
        let mut all = events.all();
        all.retain(|event| event.number > after);
        json!({"count": events.count(), "events": all})
    }
}

/// How a node stands to its cluster, as members of a page.
pub(crate) fn stand(standing: &Standing, page: &mut Value) {
    match standing {
        Standing::Inside => page["standing"] = json!("member"),
        Standing::Outside(waits) => {
            page["standing"] = json!("forming");
            page["waits"] = json!(waits);
        }
        Standing::Refused(why) => {
            page["standing"] = json!("refused");
            page["why"] = json!(why);
        }
    }
}

/// Partitions that this node leads.
pub(super) fn held(view: &View) -> usize {
    if view.is_alone {
        return usize::from(PARTITIONS);
    }
    view.me().map_or(0, |me| led(view, me))
}

/// Partitions of which a member is a replica, whoever leads them.
fn holds(view: &View, member: NodeId) -> Option<usize> {
    let holding = view.placing.member(member);
    holding.map(|holding| holding.partitions)
}

/// Who a member is, and how it is reached.
fn brief(member: &Member) -> Value {
    json!({
        "id": member.id.0,
        "name": member.name,
        "address": member.address,
        "state": member.state.name(),
    })
}

fn led(view: &View, member: &Member) -> usize {
    let runs = view.runs();
    let its = runs.iter().filter(|(.., holder)| holder.id == member.id);
    its.map(|(first, last, _)| usize::from(last.number() - first.number()) + 1)
        .sum()
}
