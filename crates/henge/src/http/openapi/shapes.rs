//! What each route takes and answers, beside what the table of routes says of it: the parameters of its query, its body, its answer,
//! and the codes of what can go wrong.

use super::super::console;
use super::super::problem::Code;
use super::super::routes::{Place, Route, RouteId, Verb};
use crate::access::permission::Permission;
use crate::metrics::exposition::CONTENT_TYPES;

/// What a route takes and answers.
pub(super) struct Shape {
    /// Parameters of the query.
    pub(super) query: &'static [&'static str],
    pub(super) body: Option<Taken>,
    /// The status when all is well.
    pub(super) status: u16,
    pub(super) answer: Answered,
    /// What can go wrong, beside what can with every route.
    codes: &'static [Code],
}

/// The body that a route takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// JSON of this schema.
    Json(&'static str),
    /// Text of this schema.
    Text(&'static str),
    /// Bytes of this media type.
    Bytes(&'static str),
}

/// The body of an answer when all is well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    Nothing,
    /// JSON of this schema.
    Json(&'static str),
    /// Whatever it is, of one of these media types.
    Bytes(&'static [&'static str]),
}

use Answered::Nothing;

/// What can go wrong with every data route.
const DATA_CODES: &[Code] = &[
    Code::InvalidConsistencyLevel,
    Code::Loading,
    Code::NotInCluster,
    Code::OwnerDown,
    Code::OwnerUnreachable,
    Code::TryAgain,
    Code::Overloaded,
    Code::OutcomeUnknown,
];
/// What can go wrong with a route that names a key.
const KEY_CODES: &[Code] = &[
    Code::KeyMissing,
    Code::KeyConflict,
    Code::KeyTooLong,
    Code::InvalidBase64,
];
/// What can go wrong with a body of JSON.
const BODY_CODES: &[Code] = &[
    Code::UnsupportedEncoding,
    Code::UnsupportedMediaType,
    Code::InvalidJson,
    Code::InvalidBody,
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::Overloaded,
];

pub(super) const KEY_QUERY: &[&str] = &["key", "key_base64"];
const VALUE_CODES: &[Code] = &[
    Code::ValueMissing,
    Code::ValueConflict,
    Code::InvalidValue,
    Code::InvalidTtl,
    Code::InvalidVersion,
    Code::InvalidPrecondition,
    Code::PreconditionFailed,
    Code::ValueTooLarge,
    Code::MemoryFull,
];

/// What can go wrong with a change of API keys or roles.
const ACCESS_CODES: &[Code] = &[
    Code::ApiKeyNotFound,
    Code::RoleNotFound,
    Code::ApiKeyExists,
    Code::RoleInUse,
    Code::NobodyAdministers,
    Code::ChangedMeanwhile,
    Code::InvalidConfiguration,
    Code::InvalidPath,
    Code::NotInCluster,
    Code::NoControlLeader,
    Code::OutcomeUnknown,
    Code::Internal,
];

/// What can go wrong with what is agreed on about a member.
const NODE_CODES: &[Code] = &[
    Code::InvalidPath,
    Code::NodeNotFound,
    Code::NodeHoldsData,
    Code::NodeReachable,
    Code::NodeLost,
    Code::LastNode,
    Code::NotInCluster,
    Code::NoControlLeader,
    Code::OutcomeUnknown,
    Code::Internal,
];
/// What can go wrong with its weight.
const WEIGHT_CODES: &[Code] = &[
    Code::InvalidWeight,
    Code::UnsupportedEncoding,
    Code::InvalidBody,
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::InvalidPath,
    Code::NodeNotFound,
    Code::NodeLost,
    Code::NotInCluster,
    Code::NoControlLeader,
    Code::OutcomeUnknown,
    Code::Internal,
];
/// What can go wrong with what is agreed on about all of them.
const RING_CODES: &[Code] = &[
    Code::InvalidConfiguration,
    Code::NotInCluster,
    Code::NoControlLeader,
    Code::OutcomeUnknown,
    Code::Internal,
];

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn shape(id: RouteId) -> Shape {
    let shape = |query, body, (status, answer), codes| Shape {
        query,
        body,
        status,
        answer,
        codes,
    };
    let json_page = |schema| shape(&[], None, (200, Answered::Json(schema)), &[]);
    match id {
        RouteId::Get => shape(
            KEY_QUERY,
            None,
            (200, Answered::Json("Item")),
            &[Code::KeyNotFound, Code::Overloaded],
        ),
        RouteId::GetPost => shape(
            &[],
            Some(Taken::Json("KeyRequest")),
            (200, Answered::Json("Item")),
            &[Code::KeyNotFound],
        ),
        RouteId::Set => shape(
            &[],
            Some(Taken::Json("SetRequest")),
            (200, Answered::Json("State")),
            VALUE_CODES,
        ),
        RouteId::Delete => shape(KEY_QUERY, None, (200, Answered::Json("Deleted")), &[]),
        RouteId::DeletePost => shape(
            &[],
            Some(Taken::Json("KeyRequest")),
            (200, Answered::Json("Deleted")),
            &[],
        ),
        RouteId::Mget => shape(
            &[],
            Some(Taken::Json("KeysRequest")),
            (200, Answered::Json("Items")),
            &[Code::BatchTooLarge, Code::AnswerTooLarge],
        ),
        RouteId::Mset => shape(
            &[],
            Some(Taken::Json("MsetRequest")),
            (200, Answered::Json("States")),
            &[Code::BatchTooLarge],
        ),
        RouteId::Mdelete => shape(
            &[],
            Some(Taken::Json("KeysRequest")),
            (200, Answered::Json("Deletions")),
            &[Code::BatchTooLarge],
        ),
        RouteId::Incr => shape(
            &[],
            Some(Taken::Json("IncrRequest")),
            (200, Answered::Json("Counter")),
            &[
                Code::InvalidTtl,
                Code::NotAnInteger,
                Code::Overflow,
                Code::MemoryFull,
            ],
        ),
        RouteId::Expire => shape(
            &[],
            Some(Taken::Json("ExpireRequest")),
            (200, Answered::Json("State")),
            &[Code::InvalidTtl, Code::KeyNotFound],
        ),
        RouteId::Ttl => shape(
            KEY_QUERY,
            None,
            (200, Answered::Json("State")),
            &[Code::KeyNotFound],
        ),
        RouteId::Persist | RouteId::TtlPost => shape(
            &[],
            Some(Taken::Json("KeyRequest")),
            (200, Answered::Json("State")),
            &[Code::KeyNotFound],
        ),
        RouteId::Exists => shape(KEY_QUERY, None, (200, Answered::Json("Existence")), &[]),
        RouteId::ExistsPost => shape(
            &[],
            Some(Taken::Json("KeyRequest")),
            (200, Answered::Json("Existence")),
            &[],
        ),
        RouteId::Keys => shape(
            &["prefix", "cursor", "limit"],
            None,
            (200, Answered::Json("Page")),
            &[Code::InvalidCursor, Code::InvalidLimit, Code::Overloaded],
        ),
        RouteId::KeysPost => shape(
            &[],
            Some(Taken::Json("ScanRequest")),
            (200, Answered::Json("Page")),
            &[
                Code::InvalidCursor,
                Code::InvalidLimit,
                Code::KeyConflict,
                Code::InvalidBase64,
                Code::Overloaded,
            ],
        ),
        RouteId::Flush => shape(
            &[],
            None,
            (200, Answered::Json("Flushed")),
            &[Code::PartlyFlushed],
        ),
        RouteId::RawGet => shape(
            &[],
            None,
            (200, Answered::Bytes(&["*/*"])),
            &[
                Code::KeyNotFound,
                Code::InvalidPath,
                Code::InvalidPrecondition,
                Code::PreconditionFailed,
                Code::Overloaded,
            ],
        ),
        RouteId::RawHead => shape(
            &[],
            None,
            (200, Nothing),
            &[
                Code::KeyNotFound,
                Code::InvalidPath,
                Code::InvalidPrecondition,
                Code::PreconditionFailed,
            ],
        ),
        RouteId::RawPut => shape(
            &[],
            Some(Taken::Bytes("*/*")),
            (204, Nothing),
            &[
                Code::InvalidPath,
                Code::InvalidPrecondition,
                Code::InvalidContentType,
                Code::InvalidTtl,
                Code::InvalidBody,
                Code::RequestTimeout,
                Code::PreconditionFailed,
                Code::ValueTooLarge,
                Code::UnsupportedEncoding,
                Code::Overloaded,
                Code::MemoryFull,
            ],
        ),
        RouteId::RawDelete => shape(
            &[],
            None,
            (204, Nothing),
            &[
                Code::KeyNotFound,
                Code::InvalidPath,
                Code::InvalidPrecondition,
                Code::PreconditionFailed,
            ],
        ),
        RouteId::Health => json_page("Health"),
        RouteId::Ready => json_page("Readiness"),
        RouteId::Console => shape(&[], None, (308, Nothing), &[]),
        RouteId::ConsoleFile => shape(
            &[],
            None,
            (200, Answered::Bytes(&console::MEDIA_TYPES)),
            &[Code::RouteNotFound],
        ),
        RouteId::Version => json_page("Release"),
        RouteId::Stats | RouteId::MetricsJson | RouteId::Cluster | RouteId::OpenApi => {
            json_page("Figures")
        }
        RouteId::Hot | RouteId::Big | RouteId::Slow => shape(
            &["count"],
            None,
            (200, Answered::Json("Figures")),
            &[Code::InvalidLimit],
        ),
        RouteId::Ring | RouteId::Why => {
            shape(KEY_QUERY, None, (200, Answered::Json("Figures")), &[])
        }
        RouteId::WhyPost => shape(
            &[],
            Some(Taken::Json("KeyRequest")),
            (200, Answered::Json("Figures")),
            &[],
        ),
        RouteId::Losses | RouteId::Whoami | RouteId::Config => json_page("Figures"),
        RouteId::ApiKeys => json_page("ApiKeys"),
        RouteId::Events => shape(&["after"], None, (200, Answered::Json("Figures")), &[]),
        RouteId::Settings => json_page("Settings"),
        RouteId::SetSetting => shape(
            &[],
            Some(Taken::Text("SettingValue")),
            (200, Answered::Json("SettingState")),
            &[
                Code::SettingNotFound,
                Code::InvalidConfiguration,
                Code::UnsupportedEncoding,
                Code::InvalidBody,
                Code::RequestTimeout,
                Code::BodyTooLarge,
                Code::InvalidPath,
                Code::InvalidPrecondition,
                Code::PreconditionFailed,
                Code::NotInCluster,
                Code::NoControlLeader,
                Code::OutcomeUnknown,
                Code::Internal,
            ],
        ),
        RouteId::UnsetSetting => shape(
            &[],
            None,
            (204, Nothing),
            &[
                Code::SettingNotFound,
                Code::InvalidPath,
                Code::InvalidPrecondition,
                Code::PreconditionFailed,
                Code::NotInCluster,
                Code::NoControlLeader,
                Code::OutcomeUnknown,
                Code::Internal,
            ],
        ),
        RouteId::AddNode | RouteId::DrainNode => {
            shape(&[], None, (200, Answered::Json("NodeChange")), NODE_CODES)
        }
        RouteId::RemoveNode => shape(
            &["force"],
            None,
            (200, Answered::Json("NodeChange")),
            NODE_CODES,
        ),
        RouteId::WeighNode => shape(
            &[],
            Some(Taken::Text("Weight")),
            (200, Answered::Json("NodeChange")),
            WEIGHT_CODES,
        ),
        RouteId::Rebalance => shape(&[], None, (200, Answered::Json("RingChange")), RING_CODES),
        RouteId::Metrics => shape(&[], None, (200, Answered::Bytes(&CONTENT_TYPES)), &[]),
        RouteId::Backup => shape(
            &["partition", "place", "leads"],
            None,
            (200, Answered::Bytes(&["application/octet-stream"])),
            &[
                Code::Loading,
                Code::OutcomeUnknown,
                Code::TryAgain,
                Code::Internal,
            ],
        ),
        RouteId::Restore => shape(
            &["replace"],
            Some(Taken::Bytes("application/octet-stream")),
            (200, Answered::Json("Restored")),
            &[
                Code::UnsupportedEncoding,
                Code::InvalidBody,
                Code::RequestTimeout,
                Code::BodyTooLarge,
                Code::BatchTooLarge,
                Code::ValueTooLarge,
                Code::MemoryFull,
                Code::LogFailed,
            ],
        ),
        RouteId::AddApiKey => shape(
            &[],
            Some(Taken::Json("ApiKeyRequest")),
            (201, Answered::Json("AddedApiKey")),
            ACCESS_CODES,
        ),
        RouteId::RevokeApiKey => shape(&["forget"], None, (204, Nothing), ACCESS_CODES),
        RouteId::SetRole => shape(
            &[],
            Some(Taken::Json("RoleRequest")),
            (204, Nothing),
            ACCESS_CODES,
        ),
        RouteId::UnsetRole => shape(&[], None, (204, Nothing), ACCESS_CODES),
        RouteId::Reload => shape(
            &[],
            None,
            (200, Answered::Json("Reloaded")),
            &[Code::InvalidConfiguration],
        ),
        RouteId::Snapshot => shape(
            &[],
            None,
            (200, Answered::Json("Snapshot")),
            &[Code::PersistenceOff, Code::SnapshotFailed, Code::Loading],
        ),
    }
}

impl Shape {
    /// Whether it takes JSON.
    fn has_json(&self) -> bool {
        matches!(self.body, Some(Taken::Json(_)))
    }

    /// Every code that the route can answer.
    pub(super) fn all_codes(&self, route: &Route) -> Vec<Code> {
        let mut codes = self.codes.to_vec();
        codes.push(Code::RateLimitExceeded);
        if route.place == Place::Data {
            codes.extend_from_slice(DATA_CODES);
        } else {
            codes.push(Code::Overloaded);
        }
        if matches!(route.permission, Permission::Write | Permission::Update)
            || route.id == RouteId::Flush
        {
            codes.push(Code::LogFailed);
        }
        let names_key = self.query == KEY_QUERY
            || route.path.ends_with("{key}")
            || (self.has_json()
                && route.place == Place::Data
                && self.body != Some(Taken::Json("ScanRequest")));
        if names_key {
            codes.extend_from_slice(KEY_CODES);
        }
        if !self.query.is_empty() || route.path.ends_with("{key}") {
            codes.push(Code::InvalidQuery);
        }
        if self.has_json() {
            codes.extend_from_slice(BODY_CODES);
        }
        if route.permission != Permission::Anyone {
            codes.extend([Code::Unauthenticated, Code::Forbidden, Code::ProtectedMode]);
        }
        if !matches!(route.verb, Verb::Get | Verb::Head) {
            codes.push(Code::OriginNotAllowed);
        }
        codes
    }
}
