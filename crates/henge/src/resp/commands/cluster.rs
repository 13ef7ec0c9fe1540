//! `CLUSTER`: the map of the cluster, as clients know it that send each command to the node of its keys, and the keys of a slot.
//! All of it is from this node's present view. A connection that has asked for the map is told where else a key is; `READONLY`
//! and `ASKING` are taken from those clients, and change nothing here.

use std::fmt::Write as _;
use std::sync::Arc;

use henge_wire::resp::request::integer;
use henge_wire::{Partition, SLOTS, Slot};

use crate::cache::ScanCursor;
use crate::cluster::view::{Member, MemberState, SLOTS_EACH, View};
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::help;
use crate::resp::table::{Group, Keys, Permission, Run, Spec, flag};

pub(in crate::resp) const COMMANDS: &[Spec] = &[
    Spec {
        name: "cluster",
        syntax: "",
        arity: -2,
        flags: 0,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Cluster,
        since: "3.0.0",
        complexity: "That of the subcommand",
        summary: "The map of the cluster",
        run: Run::Family(FAMILY),
    },
    Spec {
        name: "asking",
        syntax: "",
        arity: 1,
        flags: flag::FAST,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Cluster,
        since: "3.0.0",
        complexity: "O(1)",
        summary: "Is taken, and changes nothing: a key is asked for at one node, or at any",
        run: Run::Handler(taken),
    },
    Spec {
        name: "readonly",
        syntax: "",
        arity: 1,
        flags: flag::LOADING | flag::STALE | flag::FAST,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Cluster,
        since: "3.0.0",
        complexity: "O(1)",
        summary: "Reads of this connection are answered at level ONE, by any replica: they may be stale",
        run: Run::Handler(readonly),
    },
    Spec {
        name: "readwrite",
        syntax: "",
        arity: 1,
        flags: flag::LOADING | flag::STALE | flag::FAST,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Cluster,
        since: "3.0.0",
        complexity: "O(1)",
        summary: "Takes READONLY back",
        run: Run::Handler(readwrite),
    },
];

fn readonly(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.session.reads_any = true;
    call.out.ok();
    Ok(Flow::Done)
}

fn readwrite(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.session.reads_any = false;
    call.out.ok();
    Ok(Flow::Done)
}

/// A subcommand that tells of the cluster, and is told at any time.
const fn tells(
    name: &'static str,
    since: &'static str,
    summary: &'static str,
    complexity: &'static str,
    run: crate::resp::table::Handler,
) -> Spec {
    Spec {
        name,
        syntax: "",
        arity: 2,
        flags: flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Cluster,
        since,
        complexity,
        summary,
        run: Run::Handler(run),
    }
}

const OF_PARTITIONS: &str = "O(N) where N is the number of partitions";

const FAMILY: &[Spec] = &[
    Spec {
        name: "cluster|countkeysinslot",
        syntax: "slot",
        arity: 3,
        flags: flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Read,
        group: Group::Cluster,
        since: "3.0.0",
        complexity: "O(N) where N is the number of keys of the slot's partition",
        summary: "Counts the keys of a slot",
        run: Run::Handler(count_keys_in_slot),
    },
    Spec {
        name: "cluster|getkeysinslot",
        syntax: "slot count",
        arity: 4,
        flags: flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Read,
        group: Group::Cluster,
        since: "3.0.0",
        complexity: "O(N) where N is the number of keys of the slot's partition",
        summary: "Gives some keys of a slot",
        run: Run::Handler(get_keys_in_slot),
    },
    help::definition("cluster|help", Group::Cluster, "5.0.0"),
    tells(
        "cluster|info",
        "3.0.0",
        "Says how the cluster is",
        OF_PARTITIONS,
        info,
    ),
    Spec {
        name: "cluster|keyslot",
        syntax: "key",
        arity: 3,
        flags: flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Cluster,
        since: "3.0.0",
        complexity: "O(N) where N is the length of the key",
        summary: "Gives the slot of a key",
        run: Run::Handler(keyslot),
    },
    tells(
        "cluster|myid",
        "3.0.0",
        "Gives the name of this node in the map",
        "O(1)",
        my_id,
    ),
    tells(
        "cluster|nodes",
        "3.0.0",
        "Lists the members, and the slots of each, in lines of text",
        OF_PARTITIONS,
        nodes,
    ),
    tells(
        "cluster|shards",
        "7.0.0",
        "Lists the members, and the slots of each",
        OF_PARTITIONS,
        shards,
    ),
    tells(
        "cluster|slots",
        "3.0.0",
        "Lists runs of slots, and the member that has each",
        OF_PARTITIONS,
        slots,
    ),
];

#[expect(
    clippy::unnecessary_wraps,
    reason = "handlers are of one type, though many never refuse"
)]
fn taken(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.out.ok();
    Ok(Flow::Done)
}

/// A member with its slots.
struct Holder {
    member: Arc<Member>,
    host: String,
    port: u16,
    runs: Vec<(u16, u16)>,
}

/// The members of the present view, and what each has.
fn holders(call: &Call<'_>) -> Result<(Arc<View>, Vec<Holder>), ErrorReply> {
    let cluster = &call.local.shared.cluster;
    let view = cluster.view.load_full();
    if view.members.is_empty() && !view.is_alone {
        return Err(ErrorReply::new(format!(
            "CLUSTERDOWN {}",
            view.why_nowhere()
        )));
    }
    // Nobody has met a node that is alone: it is where this client has found it.
    let met_at = call.session.client.local_address;
    let place = |member: &Member| {
        let (host, port) = member.host_and_port();
        if view.is_alone {
            (met_at.ip().to_string(), met_at.port())
        } else {
            (host.to_owned(), port)
        }
    };
    let mut holders: Vec<Holder> = cluster
        .members(&view)
        .into_iter()
        .map(|member| {
            let (host, port) = place(&member);
            Holder {
                member,
                host,
                port,
                runs: Vec::new(),
            }
        })
        .collect();
    if view.is_alone {
        holders[0].runs.push((0, SLOTS - 1));
    }
    for (first, last, member) in view.runs().into_iter().filter(|_| !view.is_alone) {
        let slots = (
            first.number() * SLOTS_EACH,
            last.number() * SLOTS_EACH + SLOTS_EACH - 1,
        );
        let holder = holders
            .iter_mut()
            .find(|holder| holder.member.id == member.id);
        if let Some(holder) = holder {
            holder.runs.push(slots);
        }
    }
    Ok((view, holders))
}

fn slots(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let (_, holders) = holders(call)?;
    call.session.knows_map = true;
    let mut runs: Vec<(u16, u16, &Holder)> = holders
        .iter()
        .flat_map(|holder| {
            holder
                .runs
                .iter()
                .map(move |&(from, to)| (from, to, holder))
        })
        .collect();
    runs.sort_unstable_by_key(|(from, ..)| *from);
    let out = &mut call.out;
    out.array(runs.len());
    for (from, to, holder) in runs {
        out.array(3);
        out.integer(from.into());
        out.integer(to.into());
        out.array(4);
        out.bulk(holder.host.as_bytes());
        out.integer(holder.port.into());
        out.bulk(holder.member.redis_id().as_bytes());
        out.array(0);
    }
    Ok(Flow::Done)
}

fn shards(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let (_, holders) = holders(call)?;
    call.session.knows_map = true;
    let out = &mut call.out;
    out.array(holders.len());
    for holder in holders {
        out.map(2);
        out.bulk(b"slots");
        out.array(2 * holder.runs.len());
        for (from, to) in &holder.runs {
            out.integer((*from).into());
            out.integer((*to).into());
        }
        out.bulk(b"nodes");
        out.array(1);
        out.map(7);
        out.bulk(b"id");
        out.bulk(holder.member.redis_id().as_bytes());
        out.bulk(b"port");
        out.integer(holder.port.into());
        out.bulk(b"ip");
        out.bulk(holder.host.as_bytes());
        out.bulk(b"endpoint");
        out.bulk(holder.host.as_bytes());
        out.bulk(b"role");
        out.bulk(b"master");
        out.bulk(b"replication-offset");
        out.integer(0);
        out.bulk(b"health");
        out.bulk(if holder.member.is_reachable() {
            b"online"
        } else {
            b"fail"
        });
    }
    Ok(Flow::Done)
}

fn nodes(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let (view, holders) = holders(call)?;
    call.session.knows_map = true;
    let mut text = String::new();
    for Holder {
        member,
        host,
        port,
        runs,
    } in holders
    {
        let myself = if member.is_me { "myself," } else { "" };
        let (fails, link) = match member.state {
            MemberState::Down => (",fail", "disconnected"),
            _ if member.is_reachable() => ("", "connected"),
            _ => (",fail?", "disconnected"),
        };
        // Nodes speak to each other on the same port.
        let _ = write!(
            text,
            "{} {host}:{port}@{port} {myself}master{fails} - 0 0 {} {link}",
            member.redis_id(),
            view.epoch
        );
        for (from, to) in runs {
            let _ = write!(text, " {from}-{to}");
        }
        text.push('\n');
    }
    call.out.verbatim(&text);
    Ok(Flow::Done)
}

fn info(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let view = call.local.shared.cluster.view.load_full();
    let (members, runs) = match holders(call) {
        Ok((_, holders)) => {
            let down = |holder: &&Holder| holder.member.state == MemberState::Down;
            let count = |of: &[&Holder]| -> u32 {
                let slots = of.iter().flat_map(|holder| &holder.runs);
                slots.map(|(from, to)| u32::from(to - from) + 1).sum()
            };
            let all: Vec<&Holder> = holders.iter().collect();
            let fails: Vec<&Holder> = holders.iter().filter(down).collect();
            let silent = |holder: &&Holder| !down(holder) && !holder.member.is_reachable();
            let silent: Vec<&Holder> = holders.iter().filter(silent).collect();
            let with_slots = holders.iter().filter(|holder| !holder.runs.is_empty());
            (
                (holders.len(), with_slots.count()),
                (count(&all), count(&silent), count(&fails)),
            )
        }
        Err(_) => ((0, 0), (0, 0, 0)),
    };
    let ((known, size), (assigned, silent, failed)) = (members, runs);
    // Keys of who does not answer this node are refused, whether all agree on that or not.
    let is_ok = assigned == u32::from(SLOTS) && silent + failed == 0;
    let lines = [
        ("cluster_enabled", 1),
        ("cluster_slots_assigned", assigned as usize),
        ("cluster_slots_ok", (assigned - silent - failed) as usize),
        ("cluster_slots_pfail", silent as usize),
        ("cluster_slots_fail", failed as usize),
        ("cluster_known_nodes", known),
        ("cluster_size", size),
        ("cluster_current_epoch", view.epoch as usize),
        ("cluster_my_epoch", view.epoch as usize),
    ];
    let mut text = format!("cluster_state:{}\r\n", if is_ok { "ok" } else { "fail" });
    for (name, value) in lines {
        let _ = write!(text, "{name}:{value}\r\n");
    }
    call.out.verbatim(&text);
    Ok(Flow::Done)
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "handlers are of one type, though many never refuse"
)]
fn my_id(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let cluster = &call.local.shared.cluster;
    let view = cluster.view.load();
    let me = view.me().cloned().unwrap_or_else(|| cluster.own_member());
    call.out.bulk(me.redis_id().as_bytes());
    Ok(Flow::Done)
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "handlers are of one type, though many never refuse"
)]
fn keyslot(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let slot = Slot::of(call.word(2));
    call.out.integer(slot.number().into());
    Ok(Flow::Done)
}

/// The slot that a word is.
fn slot(word: &[u8]) -> Result<u16, ErrorReply> {
    let number = integer(word).and_then(|number| u16::try_from(number).ok());
    number
        .filter(|&number| number < SLOTS)
        .ok_or(ErrorReply::fixed("ERR Invalid or out of range slot"))
}

/// The partition of the slot that a command asks about, if it is a slot.
pub(in crate::resp) fn partition_asked(word: &[u8]) -> Option<Partition> {
    Partition::new(slot(word).ok()? / SLOTS_EACH)
}

fn count_keys_in_slot(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let slot = slot(call.word(2))?;
    let local = std::rc::Rc::clone(call.local);
    call.eventually(async move |out| {
        let mut count = 0;
        each_key(&local, slot, |_| {
            count += 1;
            true
        })
        .await;
        out.integer(count);
        Ok(())
    })
}

fn get_keys_in_slot(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let slot = slot(call.word(2))?;
    let most = usize::try_from(call.integer(3)?)
        .map_err(|_| ErrorReply::fixed("ERR Invalid number of keys"))?;
    let local = std::rc::Rc::clone(call.local);
    call.eventually(async move |out| {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        each_key(&local, slot, |key| {
            if keys.len() < most {
                keys.push(key.to_vec());
            }
            keys.len() < most
        })
        .await;
        out.account_with(keys.iter().map(Vec::len).sum())?;
        out.array(keys.len());
        for key in keys {
            out.bulk(&key);
        }
        Ok(())
    })
}

/// Shows the keys of a slot that are here, each once at least, until enough were shown.
async fn each_key(
    local: &crate::net::data_thread::Local,
    slot: u16,
    mut each: impl FnMut(&[u8]) -> bool,
) {
    /// Keys that are looked at before others have their turn.
    const STEP: usize = 256;
    let Some(partition) = Partition::new(slot / SLOTS_EACH) else {
        return;
    };
    let mut cursor = ScanCursor::beginning_of(partition);
    let mut goes_on = true;
    while goes_on && cursor.partition() == Some(partition) {
        let now_ms = local.shared.clock.now_ms();
        cursor = local.shared.cache.scan(cursor, STEP, now_ms, &mut |key| {
            // The step may end in another partition.
            if goes_on && Slot::of(key).number() == slot {
                goes_on = each(key);
            }
        });
        tokio::task::yield_now().await;
    }
}
