//! `/cluster/settings`: the settings that may hold for the whole cluster, as this node goes by them, and changes of them, which the
//! control leader has agreed on whichever node is asked. What is wrong with a change is said before anything is proposed.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use henge_cluster::agreed::{Command, Outcome, Rejected};
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::control::Control;
use super::problem::{Code, Problem};
use super::{agreed, body};
use crate::access::agreed::is_access;
use crate::audit::Detail;
use crate::cluster::Cluster;
use crate::cluster::settings::{self, Unfit};
use crate::shared::Shared;

/// The longest value that is read: those of the configuration are a word.
const MAX_VALUE_BYTES: usize = 1024;

/// Reads the value that a request brings, on the data thread of its connection.
pub(super) async fn read(
    headers: &HeaderMap,
    value: Incoming,
    shared: &Shared,
) -> Result<Bytes, Problem> {
    body::check_encoding(headers)?;
    let too_large = || {
        let detail = format!("a value has at most {MAX_VALUE_BYTES} bytes");
        Problem::new(Code::BodyTooLarge, detail)
    };
    let whole = body::read(value, shared, MAX_VALUE_BYTES, too_large).await?;
    Ok(whole.bytes)
}

pub(super) async fn all(State(control): State<Arc<Control>>) -> Response {
    let shared = &control.metrics.shared;
    let settings = Arc::clone(&shared.cluster.view.load().settings);
    Json(json!({"settings": settings.shown(&shared.live.load())})).into_response()
}

pub(super) async fn set(
    State(control): State<Arc<Control>>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    value: Bytes,
) -> Response {
    let set = async {
        let name = named(name)?;
        let value = std::str::from_utf8(&value).map_err(|_| {
            let detail = format!("{name}: its value is text, and this is none");
            Problem::new(Code::InvalidConfiguration, detail)
        })?;
        // A file or a shell puts a newline behind it.
        let value = settings::checked(&name, value.trim()).map_err(|unfit| {
            let code = match unfit {
                Unfit::Unknown(_) => Code::SettingNotFound,
                Unfit::Invalid(_) => Code::InvalidConfiguration,
            };
            Problem::new(code, unfit.to_string())
        })?;
        let expected = expected(&headers)?;
        let cluster = &control.metrics.shared.cluster;
        let version = change(cluster, name.clone(), Some(value.clone()), expected).await?;
        Ok((name, value, version))
    };
    match set.await {
        Ok((name, value, version)) => {
            let page = json!({"name": name, "value": value, "version": version});
            let tag = HeaderValue::try_from(format!("\"{version}\""));
            let tag = tag.expect("a number in quotes is one");
            ([(ETAG, tag)], Extension(Detail(value)), Json(page)).into_response()
        }
        Err(problem) => refused(problem),
    }
}

pub(super) async fn unset(
    State(control): State<Arc<Control>>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let unset = async {
        let name = named(name)?;
        let cluster = &control.metrics.shared.cluster;
        let is_agreed = cluster.view.load().settings.agreed().contains_key(&name);
        // What a later version has set can be taken back by any; keys and roles have routes of their own.
        if !settings::is_known(&name) && !is_agreed || is_access(&name) {
            let unfit = Unfit::Unknown(name);
            return Err(Problem::new(Code::SettingNotFound, unfit.to_string()));
        }
        let expected = expected(&headers)?;
        change(cluster, name, None, expected).await
    };
    match unset.await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => refused(problem),
    }
}

fn named(name: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    match name {
        Ok(Path(name)) => Ok(name),
        Err(error) => Err(Problem::new(Code::InvalidPath, error.to_string())),
    }
}

fn refused(problem: Problem) -> Response {
    problem.into_response().map(Body::new)
}

/// The version that the setting must have, if the client says; 0 is that of one that is not set.
fn expected(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let invalid = |name: &str, expected: &str, value: &HeaderValue| {
        let detail = format!("{name} is {value:?}; expected {expected}");
        Problem::new(Code::InvalidPrecondition, detail)
    };
    let mut all = headers.iter().filter_map(|(name, value)| {
        if name == IF_MATCH {
            let text = value.to_str().ok().map(str::trim);
            let tag = text.and_then(|text| text.strip_prefix('"')?.strip_suffix('"'));
            let version = tag.and_then(|tag| tag.parse().ok());
            Some(version.ok_or_else(|| {
                let one = "the version of the setting in quotes, such as \"3\"";
                invalid("If-Match", one, value)
            }))
        } else if name == IF_NONE_MATCH {
            let is_any = value.as_bytes().trim_ascii() == b"*";
            Some(is_any.then_some(0).ok_or_else(|| {
                let any = "*, for a setting that is not set";
                invalid("If-None-Match", any, value)
            }))
        } else {
            None
        }
    });
    let first = all.next().transpose()?;
    if all.next().is_some() {
        let detail = "one condition can be given, If-Match or If-None-Match";
        return Err(Problem::new(Code::InvalidPrecondition, detail));
    }
    Ok(first)
}

/// Has a setting changed, and says which version it has then.
async fn change(
    cluster: &Cluster,
    name: String,
    value: Option<String>,
    expected: Option<u64>,
) -> Result<u64, Problem> {
    let command = Command::Set {
        name,
        value,
        expected,
    };
    let unknown = "the setting may have been changed, or be changed later; GET /cluster/settings says what holds";
    match agreed::change(cluster, command, unknown).await? {
        Ok(Outcome::Set(version)) => Ok(version),
        Ok(other) => {
            let detail = format!("the cluster says {other:?} of a setting");
            Err(Problem::new(Code::Internal, detail))
        }
        Err(Rejected::SettingVersion { present }) => Err(Problem::setting_has_changed(present)),
        Err(rejected) => Err(Problem::new(
            Code::InvalidConfiguration,
            rejected.to_string(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions() {
        let read = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            expected(&map).map_err(|problem| problem.code)
        };
        let invalid = Err(Code::InvalidPrecondition);
        for (headers, expected) in [
            (&[][..], Ok(None)),
            (&[("if-match", "\"3\"")], Ok(Some(3))),
            (&[("if-none-match", "*")], Ok(Some(0))),
            (&[("if-match", "3")], invalid),
            (&[("if-match", "*")], invalid),
            (&[("if-match", "\"1-2\"")], invalid),
            (&[("if-none-match", "\"3\"")], invalid),
            (&[("if-match", "\"3\""), ("if-none-match", "*")], invalid),
            (&[("if-match", "\"3\""), ("if-match", "\"4\"")], invalid),
        ] {
            assert_eq!(read(headers), expected, "{headers:?}");
        }
    }
}
