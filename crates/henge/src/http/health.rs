//! Whether the node lives, and whether it takes requests. On the data thread of whoever asks: monitors ask when much is wrong, and
//! whoever reaches the port may, so neither may wait for those who ask for figures.

use http::StatusCode;
use serde_json::{Value, json};

use super::routes::RouteId;
use super::service::{Whole, json_response};
use crate::cluster::view::Standing;
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
    })
}

fn ready(metrics: &Metrics) -> (StatusCode, Value) {
    let persistence = &metrics.shared.persistence;
    let not_yet = StatusCode::SERVICE_UNAVAILABLE;
    if persistence.is_loading() {
        let progress = &persistence.progress;
        let page = json!({
            "status": "loading",
            "node_id": metrics.node_id,
            "progress": progress.share(),
            "records": progress.records(),
        });
        return (not_yet, page);
    }
    let view = metrics.shared.cluster.view.load();
    if view.standing != Standing::Inside {
        let mut page = json!({"node_id": metrics.node_id});
        stand(&view.standing, &mut page);
        page["status"] = page["standing"].take();
        if let Value::Object(page) = &mut page {
            page.remove("standing");
        }
        return (not_yet, page);
    }
    let me = view.me().and_then(|me| view.placing.member(me.id));
    if me.is_some_and(|me| me.is_drained) {
        // It sends on what it is asked; who chooses between nodes should choose another.
        let page = json!({"status": "drained", "node_id": metrics.node_id});
        return (not_yet, page);
    }
    // A node that drains has closed its port, so whoever can ask is answered. One whose log has failed serves what it has:
    // who sends it no more requests at all would lose that.
    let mut page = json!({"status": "ready", "node_id": metrics.node_id});
    if let Some(failure) = persistence.log.as_ref().and_then(|log| log.failure()) {
        page["writes"] = json!("refused");
        page["failure"] = json!(failure);
    }
    (StatusCode::OK, page)
}
