//! `/cluster/add`, `drain`, `remove`, `weight` and `rebalance`: which nodes are to hold how much. Each is a change that the control leader has
//! agreed on whichever node is asked, and is answered when that is done; partitions move afterwards, of which `/cluster/status` tells.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use henge_cluster::agreed::{self, Outcome};
use henge_cluster::ring::MAX_WEIGHT;
use henge_cluster::topology::{Command, Rejected};
use http::Uri;
use serde_json::json;

use super::control::Control;
use super::problem::{Code, Problem};
use super::{agreed as changes, query};
use crate::audit::Detail;
use crate::cluster::view::{Member, MemberState};

/// What is said where nobody knows.
const UNKNOWN: &str =
    "it may have been agreed on, or be agreed on later; GET /cluster/status says what is so";

type Controlled = State<Arc<Control>>;
type Name = Result<Path<String>, PathRejection>;

/// A node takes its share. One that has joined does so by itself; one that was to leave stays.
pub(super) async fn add(State(control): Controlled, name: Name) -> Response {
    let added = async {
        let node = member(&control, name)?;
        let epoch = change(&control, &node, Command::Stay(node.id)).await?;
        Ok(done(&node, epoch))
    };
    answered(added.await)
}

/// All that a node holds goes elsewhere.
pub(super) async fn drain(State(control): Controlled, name: Name) -> Response {
    let drained = async {
        let node = member(&control, name)?;
        let epoch = change(&control, &node, Command::Leave(node.id)).await?;
        Ok(done(&node, epoch))
    };
    answered(drained.await)
}

/// A node is a member no more: one that holds nothing; or with `force=true` one that is down for good, whatever it held.
pub(super) async fn remove(State(control): Controlled, name: Name, uri: Uri) -> Response {
    let removed = async {
        let [force] = query::parse(uri.query(), ["force"])?;
        let is_forced = query::is_set("force", force.as_deref())?;
        let node = member(&control, name)?;
        let command = if is_forced {
            Command::Lose(node.id)
        } else {
            may_go(&control, &node)?;
            Command::Remove(node.id)
        };
        let epoch = change(&control, &node, command).await?;
        Ok(done(&node, epoch))
    };
    answered(removed.await)
}

/// How much a node holds beside others.
pub(super) async fn weigh(State(control): Controlled, name: Name, weight: Bytes) -> Response {
    let weighed = async {
        let invalid = |found: &str| {
            let detail =
                format!("weight: found {found:?}, expected a number from 1 to {MAX_WEIGHT}");
            Problem::new(Code::InvalidWeight, detail)
        };
        let text = String::from_utf8_lossy(&weight);
        let weight: u32 = text.trim().parse().map_err(|_| invalid(text.trim()))?;
        if !(1..=MAX_WEIGHT).contains(&weight) {
            return Err(invalid(text.trim()));
        }
        let node = member(&control, name)?;
        let epoch = change(&control, &node, Command::Weigh(node.id, weight)).await?;
        let mut page = done(&node, epoch);
        page["weight"] = json!(weight);
        Ok((page, Detail(weight.to_string())))
    };
    match weighed.await {
        Ok((page, detail)) => (Extension(detail), answered(Ok(page))).into_response(),
        Err(problem) => answered(Err(problem)),
    }
}

/// The ring is reckoned anew, and what should be elsewhere moves.
pub(super) async fn rebalance(State(control): Controlled) -> Response {
    let rebalanced = async {
        let epoch = propose(&control, Command::Plan).await?;
        let epoch = epoch
            .map_err(|rejected| Problem::new(Code::InvalidConfiguration, rejected.to_string()))?;
        Ok(json!({"epoch": epoch}))
    };
    answered(rebalanced.await)
}

fn answered(answer: Result<serde_json::Value, Problem>) -> Response {
    match answer {
        Ok(page) => Json(page).into_response(),
        Err(problem) => problem.into_response().map(Body::new),
    }
}

fn done(node: &Member, epoch: u32) -> serde_json::Value {
    json!({"node": node.name, "epoch": epoch})
}

/// The member of a name.
fn member(control: &Control, name: Name) -> Result<Arc<Member>, Problem> {
    let name = match name {
        Ok(Path(name)) => name,
        Err(error) => return Err(Problem::new(Code::InvalidPath, error.to_string())),
    };
    let view = control.metrics.shared.cluster.view.load();
    let found = view.members.iter().find(|member| member.name == name);
    found.cloned().ok_or_else(|| unknown(&name))
}

fn unknown(name: &str) -> Problem {
    let detail = format!(
        "no member is called {name:?}; a node joins by being started with --peers=http://host:port of any member"
    );
    Problem::new(Code::NodeNotFound, detail)
}

/// Whether a node may be removed as it is.
fn may_go(control: &Control, node: &Member) -> Result<(), Problem> {
    let view = control.metrics.shared.cluster.view.load();
    let holding = view.placing.member(node.id);
    if holding.is_none_or(|holding| holding.is_drained) {
        return Ok(());
    }
    let (name, partitions) = (&node.name, holding.map_or(0, |holding| holding.partitions));
    let detail = match node.state {
        MemberState::Down => format!(
            "{name} is down, and a replica of {partitions} partitions: drain it, and others take its place; or with force, if it and its data never come back"
        ),
        MemberState::Leaving => {
            format!("{name} is still a replica of {partitions} partitions; it is being drained")
        }
        _ => format!("{name} is a replica of {partitions} partitions: drain it first"),
    };
    Err(Problem::new(Code::NodeHoldsData, detail))
}

/// Has a change of a node made, and gives the epoch since when it is so.
async fn change(control: &Control, node: &Member, command: Command) -> Result<u32, Problem> {
    let name = &node.name;
    let rejected = match propose(control, command).await? {
        Ok(epoch) => return Ok(epoch),
        Err(rejected) => rejected,
    };
    let (code, detail) = match rejected {
        agreed::Rejected::Topology(Rejected::UnknownNode(_)) => return Err(unknown(name)),
        agreed::Rejected::Topology(Rejected::Last(_)) => (
            Code::LastNode,
            format!("{name} is the last node that holds anything, and nobody could take that"),
        ),
        agreed::Rejected::Topology(Rejected::Reachable(_)) => (
            Code::NodeReachable,
            format!("{name} can be reached: drain it, or end its process first"),
        ),
        agreed::Rejected::Topology(Rejected::Lost(_)) => (
            Code::NodeLost,
            format!(
                "{name} was removed by force, and is a member only until others have its place"
            ),
        ),
        agreed::Rejected::Topology(Rejected::Premature) => (
            Code::NodeHoldsData,
            format!("{name} is, or is to be, a replica of some partitions"),
        ),
        other => (Code::InvalidConfiguration, other.to_string()),
    };
    Err(Problem::new(code, format!("{detail}; nothing was done")))
}

/// The epoch since when it is so; that of now, where it was so already.
async fn propose(
    control: &Control,
    command: Command,
) -> Result<Result<u32, agreed::Rejected>, Problem> {
    let cluster = &control.metrics.shared.cluster;
    let command = agreed::Command::Topology(command);
    Ok(match changes::change(cluster, command, UNKNOWN).await? {
        Ok(Outcome::Epoch(epoch)) => Ok(epoch),
        Err(agreed::Rejected::Topology(Rejected::Unchanged)) => Ok(cluster.view.load().epoch),
        Ok(other) => {
            let detail = format!("the cluster says {other:?} of a change of nodes");
            return Err(Problem::new(Code::Internal, detail));
        }
        Err(rejected) => Err(rejected),
    })
}
