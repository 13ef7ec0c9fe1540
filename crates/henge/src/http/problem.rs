//! Problems: every error that HTTP clients see, as RFC 9457 has it. The table of codes is the one definition of each code,
//! its status and its title; a code never changes its meaning.

use std::borrow::Cow;

use bytes::Bytes;
use henge_wire::Version;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::json;
use super::routes::Verb;
use crate::access::hash::without_keys;
use crate::cluster::keys::Elsewhere;
use crate::rate::meter::Exceeded;
use crate::values::ValueError;

macro_rules! codes {
    ($($code:ident $name:literal $status:literal $title:literal;)*) => {
        /// A stable name of what went wrong.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Code { $(#[doc = concat!("`", $name, "`")] $code,)* }

        impl Code {
            /// All of them.
            pub(crate) const ALL: [Self; [$($name),*].len()] = [$(Self::$code,)*];

            /// The name that clients see.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            pub(crate) const fn status_number(self) -> u16 {
                match self { $(Self::$code => $status,)* }
            }

            /// What it means, in a line that never varies.
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$code => $title,)* }
            }
        }
    };
}

codes! {
    InvalidJson "invalid_json" 400 "The body is not the JSON that was expected";
    InvalidBody "invalid_body" 400 "The body did not come as it was announced";
    InvalidQuery "invalid_query" 400 "The query string is not the one that was expected";
    InvalidPath "invalid_path" 400 "The path is not percent-encoded text";
    InvalidHost "invalid_host" 400 "The request does not name one host";
    KeyMissing "key_missing" 400 "No key was given";
    KeyConflict "key_conflict" 400 "Both key and key_base64 were given";
    KeyTooLong "key_too_long" 400 "The key is longer than 65536 bytes";
    InvalidBase64 "invalid_base64" 400 "The text is not base64";
    ValueMissing "value_missing" 400 "No value was given";
    ValueConflict "value_conflict" 400 "Both value and value_base64 were given";
    InvalidValue "invalid_value" 400 "The value is not one that can be kept";
    InvalidTtl "invalid_ttl" 400 "The lifetime is not one";
    InvalidVersion "invalid_version" 400 "The version is not one";
    InvalidPrecondition "invalid_precondition" 400 "The conditions are not ones, or contradict each other";
    InvalidConsistencyLevel "invalid_consistency_level" 400 "The consistency level is not one";
    InvalidCursor "invalid_cursor" 400 "The cursor is not one that a scan answered";
    InvalidLimit "invalid_limit" 400 "The limit is not one";
    InvalidWeight "invalid_weight" 400 "The weight is not one";
    InvalidContentType "invalid_content_type" 400 "The media type cannot be kept";
    BatchTooLarge "batch_too_large" 400 "The batch holds too many keys";
    Unauthenticated "unauthenticated" 401 "The request has no API key that holds";
    Forbidden "forbidden" 403 "The API key does not allow it";
    ProtectedMode "protected_mode" 403 "The node serves clients of its own machine only";
    TlsRequired "tls_required" 403 "The node serves clients over TLS only";
    OriginNotAllowed "origin_not_allowed" 403 "Web pages of this origin may change nothing";
    KeyNotFound "key_not_found" 404 "The key does not exist";
    NodeNotFound "node_not_found" 404 "The cluster has no such member";
    ApiKeyNotFound "api_key_not_found" 404 "There is no such API key";
    RoleNotFound "role_not_found" 404 "There is no such role";
    SettingNotFound "setting_not_found" 404 "No such setting can hold for a whole cluster";
    RouteNotFound "route_not_found" 404 "There is no such route";
    MethodNotAllowed "method_not_allowed" 405 "The route does not take this method";
    RequestTimeout "request_timeout" 408 "The request came too slowly";
    NotAnInteger "not_an_integer" 409 "The value is not an integer of 64 bits";
    PersistenceOff "persistence_off" 409 "The node keeps everything in memory";
    Overflow "overflow" 409 "The sum does not fit 64 bits";
    ApiKeyExists "api_key_exists" 409 "There is such an API key";
    RoleInUse "role_in_use" 409 "An API key has the role";
    ChangedMeanwhile "changed_meanwhile" 409 "Somebody else has changed it meanwhile";
    NobodyAdministers "nobody_administers" 409 "Nobody could administer the node any more";
    NodeHoldsData "node_holds_data" 409 "The member holds partitions";
    NodeReachable "node_reachable" 409 "The member can be reached";
    NodeLost "node_lost" 409 "The member was removed by force";
    LastNode "last_node" 409 "No other member could hold anything";
    PreconditionFailed "precondition_failed" 412 "A condition of the request does not hold";
    BodyTooLarge "body_too_large" 413 "The body is too large";
    ValueTooLarge "value_too_large" 413 "The value is too large";
    AnswerTooLarge "answer_too_large" 413 "The answer to the batch is too large";
    UnsupportedEncoding "unsupported_encoding" 415 "The body is encoded in a way that is not taken";
    UnsupportedMediaType "unsupported_media_type" 415 "The body is not said to be JSON";
    ExpectationFailed "expectation_failed" 417 "The request expects what is not known";
    InvalidConfiguration "invalid_configuration" 422 "The configuration cannot be used, and nothing was changed";
    RateLimitExceeded "rate_limit_exceeded" 429 "The client asks too often, or for too much";
    Internal "internal" 500 "The node failed";
    SnapshotFailed "snapshot_failed" 500 "No snapshot was made";
    Overloaded "overloaded" 503 "The node has too much in flight";
    OwnerDown "owner_down" 503 "The node that has the key is down, or this one hears from too few others";
    OwnerUnreachable "owner_unreachable" 503 "The node that has the key cannot be asked, or did not answer";
    NoControlLeader "no_control_leader" 503 "The cluster can agree on nothing now";
    NotInCluster "not_in_cluster" 503 "The node is in no cluster";
    TryAgain "try_again" 503 "No node serves the key now: it moves, another node is about to take over, or the cluster is being formed";
    PartlyFlushed "partly_flushed" 503 "Not all nodes have forgotten their keys";
    Loading "loading" 503 "The node is loading what it has on its disk";
    TooManyConnections "too_many_connections" 503 "The node has no room for another connection";
    OutcomeUnknown "outcome_unknown" 504 "Whether it was done, and will last, is not known";
    LogFailed "log_failed" 507 "The write-ahead log cannot be written";
    MemoryFull "memory_full" 507 "There is no room, and nothing that may be dropped";
}

impl Code {
    pub(crate) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.status_number()).expect("the table holds statuses")
    }
}

/// An error as a client sees it. Boxed where it travels: the way that leads here is not the hot one.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    pub(crate) detail: Cow<'static, str>,
    current: Current,
    /// For a wrong method: what the route takes.
    allow: Vec<Verb>,
    /// What comes after on this connection cannot be understood.
    close: bool,
    /// How many seconds to wait before it is asked again.
    retry_after: Option<u64>,
}

/// What a problem says of the present version of a key, or of a setting: only a failed precondition says something.
#[derive(Clone, Copy, Debug)]
enum Current {
    Unsaid,
    Absent,
    At(Version),
    /// That of a setting of the cluster, which has numbers.
    Numbered(u64),
}

/// How long a client should wait before it tries an overloaded node again, in seconds: the least that the header can say.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The media type of problems.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl From<ValueError> for Problem {
    fn from(error: ValueError) -> Self {
        let code = match error {
            ValueError::TooLarge { .. } => Code::ValueTooLarge,
            ValueError::NoRoom => Code::Overloaded,
            ValueError::Corrupt(_) | ValueError::CutOff => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Elsewhere> for Problem {
    #[cold]
    fn from(elsewhere: Elsewhere) -> Self {
        let code = match elsewhere {
            Elsewhere::Outside(_) => Code::NotInCluster,
            Elsewhere::Nowhere | Elsewhere::NotThere(_) | Elsewhere::NotOpen => Code::TryAgain,
            Elsewhere::Down(_) | Elsewhere::Minority => Code::OwnerDown,
            Elsewhere::Unreachable(..) => Code::OwnerUnreachable,
            Elsewhere::Unknown(..) | Elsewhere::UnknownHere(_) => Code::OutcomeUnknown,
            Elsewhere::NoRoom => Code::Overloaded,
        };
        Self::new(code, elsewhere.to_string())
    }
}

impl Problem {
    /// What looks like an API key is hidden: people put one where a name belongs, and errors end in logs.
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let detail = match detail.into() {
            Cow::Borrowed(detail) => Cow::Borrowed(detail),
            Cow::Owned(detail) => match without_keys(&detail) {
                Cow::Borrowed(_) => Cow::Owned(detail),
                Cow::Owned(hidden) => Cow::Owned(hidden),
            },
        };
        Self {
            code,
            detail,
            current: Current::Unsaid,
            allow: Vec::new(),
            close: false,
            retry_after: None,
        }
    }

    /// More is asked than there are tokens for.
    pub(crate) fn rate_limit_exceeded(exceeded: &Exceeded) -> Self {
        let wait_ms = exceeded.wait_ms();
        let detail = format!(
            "the limit of {} of the {} is reached, retry in {wait_ms} ms",
            exceeded.resource.name(),
            exceeded.scope.name(),
        );
        Self {
            retry_after: Some(exceeded.wait_seconds()),
            ..Self::new(Code::RateLimitExceeded, detail)
        }
    }

    /// A condition does not hold; this is the version that the key has.
    pub(crate) fn precondition_failed(current: Option<Version>) -> Self {
        let detail = match current {
            None => Cow::Borrowed("the key does not exist"),
            Some(version) => format!("the key is at version {version}").into(),
        };
        Self {
            current: current.map_or(Current::Absent, Current::At),
            ..Self::new(Code::PreconditionFailed, detail)
        }
    }

    /// A setting of the cluster has another version than was asked for; 0 is that of one that is not set.
    pub(crate) fn setting_has_changed(present: u64) -> Self {
        let (detail, current) = if present == 0 {
            (Cow::Borrowed("the setting is not set"), Current::Absent)
        } else {
            let detail = format!("the setting is at version {present}");
            (detail.into(), Current::Numbered(present))
        };
        Self {
            current,
            ..Self::new(Code::PreconditionFailed, detail)
        }
    }

    pub(crate) fn method_not_allowed(allow: Vec<Verb>) -> Self {
        let detail = format!("it takes {}", names(&allow));
        Self {
            allow,
            ..Self::new(Code::MethodNotAllowed, detail)
        }
    }

    /// The same, and the connection is closed after it.
    #[must_use]
    pub(crate) fn closing(self) -> Self {
        Self {
            close: true,
            ..self
        }
    }

    /// The members that also stand in the answer to a batch.
    fn write_members(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"status\":");
        json::write_u64(out, u64::from(self.code.status_number()));
        out.extend_from_slice(b",\"code\":\"");
        out.extend_from_slice(self.code.name().as_bytes());
        out.push(b'"');
        if !self.detail.is_empty() {
            out.extend_from_slice(b",\"detail\":");
            json::write_string(out, &self.detail);
        }
        match self.current {
            Current::Unsaid => {}
            Current::Absent => out.extend_from_slice(b",\"current_version\":null"),
            Current::At(version) => {
                out.extend_from_slice(b",\"current_version\":");
                json::write_version(out, version);
            }
            Current::Numbered(version) => {
                out.extend_from_slice(b",\"current_version\":\"");
                json::write_u64(out, version);
                out.push(b'"');
            }
        }
    }

    /// As one result of a batch.
    pub(crate) fn write_error(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"error\":{");
        self.write_members(out);
        out.push(b'}');
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(192);
        body.extend_from_slice(b"{\"type\":\"urn:henge:problem:");
        body.extend_from_slice(self.code.name().as_bytes());
        body.extend_from_slice(b"\",\"title\":");
        json::write_string(&mut body, self.code.title());
        body.push(b',');
        self.write_members(&mut body);
        body.extend_from_slice(b"}\n");
        body
    }

    /// As what is said before a connection is closed outside the protocol.
    pub(crate) fn into_last_words(self) -> Vec<u8> {
        let body = self.body();
        let status = self.code.status();
        let mut words = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            status.as_str(),
            status.canonical_reason().unwrap_or_default(),
            body.len(),
        )
        .into_bytes();
        words.extend_from_slice(&body);
        words
    }

    /// As an answer of its own.
    #[cold]
    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let body = self.body();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if self.code.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if !self.allow.is_empty() {
            let allow = HeaderValue::try_from(names(&self.allow));
            headers.insert(header::ALLOW, allow.expect("methods are letters"));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn names(verbs: &[Verb]) -> String {
    let names: Vec<&str> = verbs.iter().map(|verb| verb.name()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::counters::STATUSES;

    #[test]
    fn every_code_is_named_once_and_its_status_is_counted() {
        for code in Code::ALL {
            assert!(STATUSES.contains(&code.status_number()), "{code:?}");
            let same = Code::ALL.iter().filter(|other| other.name() == code.name());
            assert_eq!(same.count(), 1, "{code:?}");
        }
    }
}
