//! Whether the node lives, and whether it takes requests. On the data thread of whoever asks: monitors ask when much is wrong, and
//! whoever reaches the port may, so neither may wait for those who ask for figures.

use http::StatusCode;
use serde_json::{Value, json};

use super::routes::RouteId;
use super::service::{Whole, json_response};
use crate::cluster::view::Standing;
use crate::disk::persistence::Persistence;
use crate::metrics::Metrics;
use crate::metrics::cluster::stand;

/// The answer to one of the two. A stranger is told how the node is, in a word, and not why.
pub(super) fn answer(metrics: &Metrics, route: RouteId, is_stranger: bool) -> Whole {
    let (status, mut page) = match route {
        RouteId::Ready => ready(metrics),
        _ => (StatusCode::OK, health(metrics)),
    };
    if is_stranger {
        page = json!({"status": page["status"]});
    }
    let mut response = json_response(page.to_string().into());
    *response.status_mut() = status;
    response
}

fn health(metrics: &Metrics) -> Value {
    json!({
        "status": "ok",
        "node_id": metrics.node_id,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": metrics.uptime_seconds(),
        "checks": [{"name": "alive", "ok": true, "why": "its data threads answer"}],
    })
}

fn ready(metrics: &Metrics) -> (StatusCode, Value) {
    let persistence = &metrics.shared.persistence;
    let view = metrics.shared.cluster.view.load();
    let mut page = json!({"node_id": metrics.node_id});
    let me = view.me().and_then(|me| view.placing.member(me.id));
    let is_drained = me.is_some_and(|me| me.is_drained);
    let status = if persistence.is_loading() {
        let progress = &persistence.progress;
        page["progress"] = json!(progress.share());
        page["records"] = json!(progress.records());
        "loading".to_owned()
    } else if view.standing != Standing::Inside {
        stand(&view.standing, &mut page);
        let standing = page["standing"].take();
        if let Value::Object(page) = &mut page {
            page.remove("standing");
        }
        standing.as_str().unwrap_or_default().to_owned()
    } else if is_drained {
        // It sends on what it is asked; who chooses between nodes should choose another.
        "drained".to_owned()
    } else {
        "ready".to_owned()
    };
    // A node that drains has closed its port, so whoever can ask is answered. One whose log has failed serves what it has:
    // who sends it no more requests at all would lose that.
    let failure = persistence.log.as_ref().and_then(|log| log.failure());
    if status == "ready"
        && let Some(failure) = &failure
    {
        page["writes"] = json!("refused");
        page["failure"] = json!(failure);
    }
    let code = if status == "ready" {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    page["checks"] = json!(checks(
        persistence,
        &view.standing,
        is_drained,
        failure.as_deref()
    ));
    page["status"] = json!(status);
    (code, page)
}

/// What a node has to be to be ready, each by itself, and why it is or is not so.
fn checks(
    persistence: &Persistence,
    standing: &Standing,
    is_drained: bool,
    failure: Option<&str>,
) -> Vec<Value> {
    let check = |name: &str, ok: bool, why: String| json!({"name": name, "ok": ok, "why": why});
    let is_loading = persistence.is_loading();
    let recovered = if is_loading {
        let share = persistence.progress.share() * 100.0;
        format!("it is loading what it has on its disk: {share:.0} %")
    } else if persistence.log.is_some() {
        "what was on its disk is loaded".to_owned()
    } else {
        "it keeps everything in memory".to_owned()
    };
    let in_cluster = match standing {
        Standing::Inside => "it is a member of its cluster".to_owned(),
        Standing::Outside(waits) => format!("it waits: {}", waits.join("; ")),
        Standing::Refused(why) => format!("it was refused: {why}"),
    };
    let drained = if is_drained {
        "it was drained: its data are elsewhere"
    } else {
        "it takes its share of the data"
    };
    let log = match (&failure, persistence.log.is_some()) {
        (Some(failure), _) => format!("writes are refused: {failure}"),
        (None, true) => "its write-ahead log is written".to_owned(),
        (None, false) => "it has no write-ahead log".to_owned(),
    };
    let is_inside = *standing == Standing::Inside;
    vec![
        check("recovered", !is_loading, recovered),
        check("in_cluster", is_inside, in_cluster),
        check("not_drained", !is_drained, drained.to_owned()),
        check("log_writable", failure.is_none(), log),
    ]
}
