//! The routes that are not data, answered by axum on a runtime of their own: a data thread sends the request over a
//! bounded channel and awaits the answer, so that a slow page of figures never stalls a GET.

use std::rc::Rc;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post, put};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tower::ServiceExt;

use super::problem::{Code, Problem};
use super::requests::query_key;
use super::routes::{Place, ROUTES, RouteId};
use super::service::Outcome;
use super::{api_keys, backup, nodes, openapi, query, settings};
use crate::config::{ConfigError, Reload};
use crate::metrics::Metrics;
use crate::metrics::exposition::{self, Format};
use crate::net::data_thread::Local;

/// A request on its way to the control runtime.
pub(crate) struct Call {
    request: Request<Bytes>,
    answer: oneshot::Sender<http::Response<Full<Bytes>>>,
}

/// Requests that may wait. They are asked by monitors and people; more at once is a mistake.
pub(crate) const CALLS: usize = 256;

/// What the routes show, and what they may do.
pub(crate) struct Control {
    pub(crate) metrics: Arc<Metrics>,
    /// Reads the configuration again and takes over what can change.
    pub(crate) reload: Box<dyn Fn() -> Result<Reload, ConfigError> + Send + Sync>,
}

/// Asks the control runtime.
pub(crate) async fn ask(local: Rc<Local>, route: RouteId, request: Request<Incoming>) -> Outcome {
    let (parts, body) = request.into_parts();
    let body = match route {
        RouteId::SetSetting | RouteId::WeighNode => {
            settings::read(&parts.headers, body, &local.shared).await?
        }
        RouteId::AddApiKey | RouteId::SetRole => {
            api_keys::read(&parts.headers, body, &local.shared).await?
        }
        // The bodies of all others mean nothing; hyper reads past a short one.
        _ => Bytes::new(),
    };
    let (sender, receiver) = oneshot::channel();
    let call = Call {
        request: Request::from_parts(parts, body),
        answer: sender,
    };
    local
        .control
        .try_send(call)
        .map_err(|_| Problem::new(Code::Overloaded, "too many requests for figures at once"))?;
    let answer = receiver.await;
    answer.map_err(|_| Problem::new(Code::Internal, "the request was cut off"))
}

/// Answers calls until no data thread is left.
pub(crate) async fn serve(control: Control, mut calls: mpsc::Receiver<Call>) {
    let router = router(Arc::new(control));
    while let Some(call) = calls.recv().await {
        let router = router.clone();
        tokio::spawn(async move {
            let request = call.request.map(Body::from);
            let Ok(response) = router.oneshot(request).await;
            let (parts, body) = response.into_parts();
            // The bodies are whole already; nothing can go wrong in gathering them.
            let body = body
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes);
            let response = http::Response::from_parts(parts, Full::new(body.unwrap_or_default()));
            // The client may be gone; then so is its need for an answer.
            let _ = call.answer.send(response);
        });
    }
}

type Controlled = State<Arc<Control>>;

/// The handlers of the table's control routes.
fn router(control: Arc<Control>) -> Router {
    let mut router = Router::new();
    for route in ROUTES.iter().filter(|route| route.place == Place::Control) {
        let handler = match route.id {
            RouteId::Version => get(version),
            RouteId::Stats => get(stats),
            RouteId::Metrics => get(prometheus),
            RouteId::MetricsJson => get(metrics_json),
            RouteId::Cluster => get(cluster),
            RouteId::Ring => get(ring),
            RouteId::Events => get(events),
            RouteId::Losses => get(losses),
            RouteId::OpenApi => get(interface),
            RouteId::Settings => get(settings::all),
            RouteId::SetSetting => put(settings::set),
            RouteId::UnsetSetting => delete(settings::unset),
            RouteId::AddNode => post(nodes::add),
            RouteId::DrainNode => post(nodes::drain),
            RouteId::RemoveNode => post(nodes::remove),
            RouteId::WeighNode => put(nodes::weigh),
            RouteId::Rebalance => post(nodes::rebalance),
            RouteId::Backup => get(backup::page),
            RouteId::ApiKeys => get(api_keys::all),
            RouteId::AddApiKey => post(api_keys::add),
            RouteId::RevokeApiKey => delete(api_keys::revoke),
            RouteId::SetRole => put(api_keys::set_role),
            RouteId::UnsetRole => delete(api_keys::unset_role),
            RouteId::Reload => post(reload),
            RouteId::Snapshot => post(snapshot),
            other => unreachable!("{other:?} is answered on the data threads"),
        };
        router = router.route(route.path, handler);
    }
    router.with_state(control)
}

async fn interface() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], openapi::DOCUMENT.clone()).into_response()
}

async fn version() -> Response {
    Json(json!({
        "name": "henge",
        "version": env!("CARGO_PKG_VERSION"),
        "commit": crate::metrics::COMMIT,
    }))
    .into_response()
}

async fn stats(State(control): Controlled) -> Response {
    Json(control.metrics.stats()).into_response()
}

async fn metrics_json(State(control): Controlled) -> Response {
    Json(control.metrics.everything()).into_response()
}

async fn prometheus(State(control): Controlled, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter();
    let format = Format::accepted(accept.filter_map(|accept| accept.to_str().ok()));
    let text = exposition::text(control.metrics.read(), format);
    let headers = [
        (header::CONTENT_TYPE, format.content_type()),
        (header::VARY, "accept"),
    ];
    (headers, text).into_response()
}

async fn cluster(State(control): Controlled) -> Response {
    Json(control.metrics.cluster()).into_response()
}

async fn ring(State(control): Controlled, uri: Uri) -> Response {
    let key = query::parse(uri.query(), ["key", "key_base64"]).and_then(|[key, key_base64]| {
        if key.is_none() && key_base64.is_none() {
            return Ok(None);
        }
        query_key(key, key_base64).map(Some)
    });
    match key {
        Ok(None) => Json(control.metrics.ring()).into_response(),
        Ok(Some(key)) => Json(control.metrics.ring_of(&key)).into_response(),
        Err(problem) => problem.into_response().map(Body::new),
    }
}

async fn events(State(control): Controlled, uri: Uri) -> Response {
    let after = query::parse(uri.query(), ["after"]).and_then(|[after]| {
        let Some(after) = after else {
            return Ok(0);
        };
        let text = query::text("after", &after)?;
        query::whole(text).ok_or_else(|| {
            let detail = format!("after: found {text:?}, expected the number of an event");
            Problem::new(Code::InvalidQuery, detail)
        })
    });
    match after {
        Ok(after) => Json(control.metrics.events(after)).into_response(),
        Err(problem) => problem.into_response().map(Body::new),
    }
}

async fn losses(State(control): Controlled) -> Response {
    Json(control.metrics.losses().await).into_response()
}

async fn reload(State(control): Controlled) -> Response {
    let reloaded = tokio::task::spawn_blocking(move || (control.reload)()).await;
    match reloaded {
        Ok(Ok(reload)) => {
            let lines = |changes: &[crate::config::Change]| {
                changes.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            Json(json!({
                "changed": lines(&reload.changed),
                "needs_restart": lines(&reload.needs_restart),
            }))
            .into_response()
        }
        Ok(Err(error)) => Problem::new(Code::InvalidConfiguration, error.to_string())
            .into_response()
            .map(Body::new),
        Err(_) => Problem::new(Code::Internal, "the reload was cut off")
            .into_response()
            .map(Body::new),
    }
}

async fn snapshot(State(control): Controlled) -> Response {
    let persistence = &control.metrics.shared.persistence;
    let problem = |code, detail: String| Problem::new(code, detail).into_response().map(Body::new);
    let Some(snapshots) = &persistence.snapshots else {
        let detail = "persistence.enabled is false".to_owned();
        return problem(Code::PersistenceOff, detail);
    };
    if persistence.is_loading() {
        return problem(
            Code::Loading,
            "it is done when GET /ready says 200".to_owned(),
        );
    }
    match snapshots.ask_and_wait().made().await {
        Ok(made) => Json(json!({
            "number": made.number,
            "records": made.records,
            "bytes": made.bytes,
            "seconds": made.took.as_secs_f64(),
        }))
        .into_response(),
        Err(error) => problem(Code::SnapshotFailed, error),
    }
}
