//! `/admin/keys` and `/admin/roles`: the API keys and roles of a node, and changes of those that the whole cluster has agreed
//! on. A key that is made here is told once, in the answer; no route ever shows a hash. A change that would leave nobody who
//! can administer is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use henge_cluster::agreed::{Command, Outcome, Rejected};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::control::Control;
use super::problem::{Code, Problem};
use super::{agreed, body, query};
use crate::access::agreed::{Agreed, AgreedKey, REVOKED, key_setting, role_setting};
use crate::access::entry::{self, EntryError, KeyEntry, KeyRule};
use crate::access::hash::{KeyHash, NewKey, quoted};
use crate::access::prefix::Prefix;
use crate::access::ring::{Key, Ring, Source, unknown_roles};
use crate::audit::Detail;
use crate::calendar;
use crate::shared::Shared;

/// The longest body: all that a cluster can agree on is not much longer.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// What may have become of a change of which no answer came.
const UNKNOWN: &str =
    "it may have been changed, or be changed later; GET /admin/keys says what holds";

/// A key to be made, or one that was made elsewhere.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiKeyRequest {
    /// Letters, digits, `-`, `_` and `.`, up to 64.
    name: String,
    /// What `henge key new` printed; without it, and without a certificate, a key is made, and told in the answer.
    #[serde(default)]
    hash: Option<String>,
    /// A DNS name in the certificate of who is to have the key, without a text.
    #[serde(default)]
    certificate: Option<String>,
    /// Any of `read`, `write` and `admin`.
    #[serde(default)]
    permissions: BTreeSet<String>,
    /// Names of roles, whose permissions it has as well.
    #[serde(default)]
    roles: BTreeSet<String>,
    /// The keys of the cache that it may touch begin with one of these; all where there is none.
    #[serde(default)]
    prefixes: BTreeSet<String>,
    /// Until when it holds, such as `2027-01-31T12:00:00Z`; for ever where it does not say.
    #[serde(default)]
    expires: Option<String>,
}

/// Reads the body that a request brings, on the data thread of its connection.
pub(super) async fn read(
    headers: &HeaderMap,
    value: Incoming,
    shared: &Shared,
) -> Result<Bytes, Problem> {
    body::check_encoding(headers)?;
    body::check_json(headers)?;
    let too_large = || {
        let detail = format!("the most is {MAX_BODY_BYTES} bytes");
        Problem::new(Code::BodyTooLarge, detail)
    };
    Ok(body::read(value, shared, MAX_BODY_BYTES, too_large)
        .await?
        .bytes)
}

/// A key as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    id: Option<String>,
    certificate: Option<&'a str>,
    permissions: Vec<&'static str>,
    roles: &'a BTreeSet<String>,
    prefixes: Vec<String>,
    expires: Option<String>,
    /// `active`, `expired` or `revoked`.
    state: &'static str,
    source: &'static str,
}

fn shown(key: &Key, now_ms: u64) -> Shown<'_> {
    let text = |prefix: &Prefix| String::from_utf8_lossy(prefix.bytes()).into_owned();
    Shown {
        name: &key.name,
        id: key.hash.as_ref().map(|hash| hash.id.to_string()),
        certificate: key.certificate.as_deref(),
        permissions: key.permissions.names().collect(),
        roles: &key.roles,
        prefixes: key.prefixes.iter().map(text).collect(),
        expires: key.expires_at_ms.map(calendar::text),
        state: if key.holds_at(now_ms) {
            "active"
        } else {
            "expired"
        },
        source: key.source.name(),
    }
}

/// All keys and roles.
pub(super) async fn all(State(control): State<Arc<Control>>) -> Response {
    let shared = &control.metrics.shared;
    let (ring, now_ms) = (shared.access.ring(), shared.clock.now_ms());
    let mut keys: BTreeMap<&str, Value> = BTreeMap::new();
    for name in ring.revoked() {
        keys.insert(
            name,
            json!({"name": name, "state": "revoked", "source": "cluster"}),
        );
    }
    for key in ring.keys() {
        keys.insert(&key.name, json!(shown(key, now_ms)));
    }
    let roles = ring.roles.iter().map(|(name, (permissions, source))| {
        json!({
            "name": name,
            "permissions": permissions.names().collect::<Vec<_>>(),
            "source": source.name(),
        })
    });
    let page = json!({
        "keys": keys.into_values().collect::<Vec<_>>(),
        "roles": roles.collect::<Vec<_>>(),
        "are_required": !ring.is_empty(),
    });
    Json(page).into_response()
}

/// Adds a key.
pub(super) async fn add(State(control): State<Arc<Control>>, body: Bytes) -> Response {
    let shared = &control.metrics.shared;
    let added = async {
        let request: ApiKeyRequest = serde_json::from_slice(&body)
            .map_err(|error| Problem::new(Code::InvalidJson, error.to_string()))?;
        let name = request.name;
        entry::check_name(&name).map_err(|why| unfit(&name, &why))?;
        let is_drawn = request.hash.is_none() && request.certificate.is_none();
        let new = is_drawn.then(NewKey::draw);
        let drawn = new.as_ref().map(|new| new.hash.to_string());
        let entry = KeyEntry {
            hash: request.hash.or(drawn),
            certificate: request.certificate,
            permissions: request.permissions,
            roles: request.roles,
            prefixes: request.prefixes,
            expires: request.expires,
        };
        let rule = entry.read().map_err(|why| unfit(&name, &why))?;
        let (ring, now_ms) = (shared.access.ring(), shared.clock.now_ms());
        if !ring.has_room() {
            return Err(full());
        }
        if rule.expires_at_ms.is_some_and(|until| until <= now_ms) {
            return Err(invalid(format!("{name}: it would have expired already")));
        }
        if let Some(role) = unknown_roles(&ring, &rule.roles).next() {
            return Err(invalid(format!("{name}: there is no role {role:?}")));
        }
        let id = |hash: &Option<KeyHash>| hash.as_ref().map(|hash| hash.id);
        let is_twin = |key: &Key| {
            key.name == name
                || id(&key.hash).is_some() && id(&key.hash) == id(&rule.hash)
                || key.certificate.is_some() && key.certificate == rule.certificate
        };
        let twin = ring.keys().find(|key| is_twin(key));
        if let Some(twin) = twin {
            return Err(Problem::new(Code::ApiKeyExists, taken(twin, &name, &rule)));
        }
        let change = |agreed: &mut Agreed| {
            agreed
                .keys
                .insert(name.clone(), AgreedKey::Held(rule.clone()));
        };
        let next = shared.access.ring_with(change);
        check_administration(&ring, &next)?;
        set(shared, &ring, key_setting(&name), Some(entry.to_text())).await?;
        let mut page = json!({});
        if let Some(key) = next.named(&name) {
            page = json!(shown(key, now_ms));
        }
        if let Some(new) = new {
            page["key"] = new.text.into();
        }
        // A key is known by its name: the hash says nothing to who reads that.
        let told = KeyEntry {
            hash: None,
            ..entry
        };
        Ok((page, Detail(format!("{name} {}", told.to_text()))))
    };
    match added.await {
        Ok((page, detail)) => {
            // Nobody between here and there is to keep it.
            let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            let answer = (
                StatusCode::CREATED,
                [no_store],
                Extension(detail),
                Json(page),
            );
            answer.into_response()
        }
        Err(problem) => refused(problem),
    }
}

/// Revokes a key, or forgets that one was revoked.
pub(super) async fn revoke(
    State(control): State<Arc<Control>>,
    name: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Response {
    let shared = &control.metrics.shared;
    let revoked = async {
        let name = named(name)?;
        let [forget] = query::parse(uri.query(), ["forget"])?;
        let forget = query::is_set("forget", forget.as_deref())?;
        let ring = shared.access.ring();
        let is_revoked = ring.revoked().any(|revoked| revoked == name);
        if !is_revoked && ring.named(&name).is_none() {
            let shown = quoted(&name);
            let detail = format!("there is no key {shown}; GET /admin/keys lists all");
            return Err(Problem::new(Code::ApiKeyNotFound, detail));
        }
        if forget && !is_revoked {
            let detail = format!("{name} holds; only one that was revoked can be forgotten");
            return Err(Problem::new(Code::ApiKeyExists, detail));
        }
        let next = shared.access.ring_with(|agreed| {
            if forget {
                agreed.keys.remove(&name);
            } else {
                agreed.keys.insert(name.clone(), AgreedKey::Revoked);
            }
        });
        check_administration(&ring, &next)?;
        let value = (!forget).then(|| REVOKED.to_owned());
        set(shared, &ring, key_setting(&name), value).await
    };
    done(revoked.await)
}

/// Gives a role its permissions.
pub(super) async fn set_role(
    State(control): State<Arc<Control>>,
    name: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Response {
    let shared = &control.metrics.shared;
    let made = async {
        let name = named(name)?;
        entry::check_name(&name).map_err(|why| unfit(&name, &why))?;
        let names: BTreeSet<String> = serde_json::from_slice(&body).map_err(|error| {
            let detail = format!("expected a list of permissions: {error}");
            Problem::new(Code::InvalidJson, detail)
        })?;
        let held = entry::role(&names).map_err(|why| unfit(&name, &why))?;
        let ring = shared.access.ring();
        // What is left is for keys that are revoked.
        if !ring.roles.contains_key(&name) && !ring.has_room() {
            return Err(full());
        }
        let next = shared.access.ring_with(|agreed| {
            agreed.roles.insert(name.clone(), held);
        });
        check_administration(&ring, &next)?;
        let text = json!(names).to_string();
        set(shared, &ring, role_setting(&name), Some(text.clone())).await?;
        Ok(Detail(text))
    };
    match made.await {
        Ok(detail) => (StatusCode::NO_CONTENT, Extension(detail)).into_response(),
        Err(problem) => refused(problem),
    }
}

/// Takes a role away that no key has, unless the file of the node has one of the name as well; then that is what such keys have.
pub(super) async fn unset_role(
    State(control): State<Arc<Control>>,
    name: Result<Path<String>, PathRejection>,
) -> Response {
    let shared = &control.metrics.shared;
    let unset = async {
        let name = named(name)?;
        let ring = shared.access.ring();
        if !ring
            .roles
            .get(&name)
            .is_some_and(|(_, source)| *source == Source::Cluster)
        {
            let shown = quoted(&name);
            let detail = format!("the cluster has no role {shown}; GET /admin/keys lists all");
            return Err(Problem::new(Code::RoleNotFound, detail));
        }
        let next = shared.access.ring_with(|agreed| {
            agreed.roles.remove(&name);
        });
        if let Some(key) = ring.keys().find(|key| key.roles.contains(&name))
            && !next.roles.contains_key(&name)
        {
            let detail = format!(
                "{} has the role {name}; revoke it first, or give the role other permissions",
                key.name
            );
            return Err(Problem::new(Code::RoleInUse, detail));
        }
        check_administration(&ring, &next)?;
        set(shared, &ring, role_setting(&name), None).await
    };
    done(unset.await)
}

/// Why a key cannot be added beside this one.
fn taken(twin: &Key, name: &str, rule: &KeyRule) -> String {
    if twin.name == name {
        return format!("{name} is there already; revoke it first, or choose another name");
    }
    let what = match &rule.certificate {
        Some(certificate) if twin.certificate.as_ref() == Some(certificate) => {
            format!("the certificate name {certificate}")
        }
        _ => "the same key".to_owned(),
    };
    let twin = &twin.name;
    format!("{twin} has {what} already; revoke it first, or give {name} another")
}

/// Refuses a change after which nobody could make another, where somebody could before. Of two changes at once each is held against
/// what was before both.
fn check_administration(now: &Ring, next: &Ring) -> Result<(), Problem> {
    if next.can_be_administered() || !now.can_be_administered() {
        return Ok(());
    }
    let detail = "no key that does not expire would have the permission admin then, and nobody could make another: make such a key first";
    Err(Problem::new(Code::NobodyAdministers, detail))
}

/// Has a setting changed, if nobody else has changed it since this ring was made.
async fn set(
    shared: &Shared,
    ring: &Ring,
    name: String,
    value: Option<String>,
) -> Result<(), Problem> {
    let expected = Some(ring.version_of(&name));
    let command = Command::Set {
        name,
        value,
        expected,
    };
    match agreed::change(&shared.cluster, command, UNKNOWN).await? {
        Ok(Outcome::Set(_)) => Ok(()),
        Ok(other) => {
            let detail = format!("the cluster says {other:?} of a key");
            Err(Problem::new(Code::Internal, detail))
        }
        Err(Rejected::SettingVersion { .. }) => Err(Problem::new(
            Code::ChangedMeanwhile,
            "somebody else has changed it; GET /admin/keys says how it is now",
        )),
        Err(Rejected::TooManySettings | Rejected::TooLong(_)) => Err(full()),
        Err(rejected) => Err(invalid(rejected.to_string())),
    }
}

fn full() -> Problem {
    invalid(
        "the cluster has no room for more: revoke some, and forget those that were revoked"
            .to_owned(),
    )
}

fn invalid(detail: String) -> Problem {
    Problem::new(Code::InvalidConfiguration, detail)
}

fn unfit(name: &str, why: &EntryError) -> Problem {
    match why {
        EntryError::Name(_) => invalid(why.to_string()),
        _ => invalid(format!("{name}: {why}")),
    }
}

fn named(name: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let name = name.map_err(|error| Problem::new(Code::InvalidPath, error.to_string()))?;
    Ok(name.0)
}

fn done(outcome: Result<(), Problem>) -> Response {
    match outcome {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => refused(problem),
    }
}

fn refused(problem: Problem) -> Response {
    problem.into_response().map(Body::new)
}
