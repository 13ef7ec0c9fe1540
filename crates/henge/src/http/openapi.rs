//! The interface as an `OpenAPI` 3.1 document. Paths, methods and names follow from the table of routes, problem codes from
//! the table of codes, request bodies from the structs that are parsed; only what a route takes and answers is said here.

use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, Content, Header, InfoBuilder, OpenApi, OpenApiBuilder, Paths, Ref, RefOr,
    Required, ResponseBuilder, Schema,
};

use super::api_keys::ApiKeyRequest;
use super::backup::{X_NEXT_PLACE, X_TERM};
use super::problem::Code;
use super::requests::{
    ExpireRequest, IncrRequest, KeyRequest, KeysRequest, MsetRequest, ScanRequest, SetRequest,
};
use super::routes::{Place, ROUTES, Route, RouteId, Verb};
use crate::access::permission::Permission;

/// What a route takes and answers.
struct Shape {
    /// Parameters of the query.
    query: &'static [&'static str],
    /// The schema of its body; `bytes` or `text` for one that is no JSON.
    body: Option<&'static str>,
    /// The status when all is well, and the schema of the answer, or its media type.
    ok: (u16, &'static str),
    /// What can go wrong, beside what can with every route.
    codes: &'static [Code],
}

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

const KEY_QUERY: &[&str] = &["key", "key_base64"];
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
fn shape(id: RouteId) -> Shape {
    let shape = |query, body, ok, codes| Shape {
        query,
        body,
        ok,
        codes,
    };
    let json_page = |schema| shape(&[], None, (200, schema), &[]);
    match id {
        RouteId::Get => shape(
            KEY_QUERY,
            None,
            (200, "Item"),
            &[Code::KeyNotFound, Code::Overloaded],
        ),
        RouteId::GetPost => shape(&[], Some("KeyRequest"), (200, "Item"), &[Code::KeyNotFound]),
        RouteId::Set => shape(&[], Some("SetRequest"), (200, "State"), VALUE_CODES),
        RouteId::Delete => shape(KEY_QUERY, None, (200, "Deleted"), &[]),
        RouteId::DeletePost => shape(&[], Some("KeyRequest"), (200, "Deleted"), &[]),
        RouteId::Mget => shape(
            &[],
            Some("KeysRequest"),
            (200, "Results"),
            &[Code::BatchTooLarge, Code::AnswerTooLarge],
        ),
        RouteId::Mset => shape(
            &[],
            Some("MsetRequest"),
            (200, "Results"),
            &[Code::BatchTooLarge],
        ),
        RouteId::Mdelete => shape(
            &[],
            Some("KeysRequest"),
            (200, "Results"),
            &[Code::BatchTooLarge],
        ),
        RouteId::Incr => shape(
            &[],
            Some("IncrRequest"),
            (200, "Counter"),
            &[
                Code::InvalidTtl,
                Code::NotAnInteger,
                Code::Overflow,
                Code::MemoryFull,
            ],
        ),
        RouteId::Expire => shape(
            &[],
            Some("ExpireRequest"),
            (200, "State"),
            &[Code::InvalidTtl, Code::KeyNotFound],
        ),
        RouteId::Ttl => shape(KEY_QUERY, None, (200, "State"), &[Code::KeyNotFound]),
        RouteId::Persist | RouteId::TtlPost => shape(
            &[],
            Some("KeyRequest"),
            (200, "State"),
            &[Code::KeyNotFound],
        ),
        RouteId::Exists => shape(KEY_QUERY, None, (200, "Existence"), &[]),
        RouteId::ExistsPost => shape(&[], Some("KeyRequest"), (200, "Existence"), &[]),
        RouteId::Keys => shape(
            &["prefix", "cursor", "limit"],
            None,
            (200, "Page"),
            &[Code::InvalidCursor, Code::InvalidLimit, Code::Overloaded],
        ),
        RouteId::KeysPost => shape(
            &[],
            Some("ScanRequest"),
            (200, "Page"),
            &[
                Code::InvalidCursor,
                Code::InvalidLimit,
                Code::KeyConflict,
                Code::InvalidBase64,
                Code::Overloaded,
            ],
        ),
        RouteId::Flush => shape(&[], None, (200, "Flushed"), &[Code::PartlyFlushed]),
        RouteId::RawGet => shape(
            &[],
            None,
            (200, "application/octet-stream"),
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
            (200, ""),
            &[Code::KeyNotFound, Code::PreconditionFailed],
        ),
        RouteId::RawPut => shape(
            &[],
            Some("bytes"),
            (204, ""),
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
            (204, ""),
            &[
                Code::KeyNotFound,
                Code::InvalidPath,
                Code::InvalidPrecondition,
                Code::PreconditionFailed,
            ],
        ),
        RouteId::Health | RouteId::Ready | RouteId::Version => json_page("Figures"),
        RouteId::Stats | RouteId::MetricsJson | RouteId::Cluster | RouteId::OpenApi => {
            json_page("Figures")
        }
        RouteId::Ring => shape(KEY_QUERY, None, (200, "Figures"), &[]),
        RouteId::Losses | RouteId::ApiKeys => shape(&[], None, (200, "Figures"), &[]),
        RouteId::Events => shape(&["after"], None, (200, "Figures"), &[]),
        RouteId::Settings => json_page("Settings"),
        RouteId::SetSetting => shape(
            &[],
            Some("text"),
            (200, "SettingState"),
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
            (204, ""),
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
        RouteId::AddNode | RouteId::DrainNode => shape(&[], None, (200, "Figures"), NODE_CODES),
        RouteId::RemoveNode => shape(&["force"], None, (200, "Figures"), NODE_CODES),
        RouteId::WeighNode => shape(&[], Some("text"), (200, "Figures"), WEIGHT_CODES),
        RouteId::Rebalance => shape(&[], None, (200, "Figures"), RING_CODES),
        RouteId::Metrics => json_page(crate::metrics::exposition::CONTENT_TYPE),
        RouteId::Backup => shape(
            &["partition", "place", "leads"],
            None,
            (200, "application/octet-stream"),
            &[
                Code::Loading,
                Code::OutcomeUnknown,
                Code::TryAgain,
                Code::Internal,
            ],
        ),
        RouteId::Restore => shape(
            &["replace"],
            Some("bytes"),
            (200, "Restored"),
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
        RouteId::AddApiKey => shape(&[], Some("ApiKeyRequest"), (201, "Figures"), ACCESS_CODES),
        RouteId::RevokeApiKey => shape(&["forget"], None, (204, ""), ACCESS_CODES),
        RouteId::SetRole => shape(&[], Some("RoleRequest"), (204, ""), ACCESS_CODES),
        RouteId::UnsetRole => shape(&[], None, (204, ""), ACCESS_CODES),
        RouteId::Reload => shape(&[], None, (200, "Reloaded"), &[Code::InvalidConfiguration]),
        RouteId::Snapshot => shape(
            &[],
            None,
            (200, "Snapshot"),
            &[Code::PersistenceOff, Code::SnapshotFailed, Code::Loading],
        ),
    }
}

impl Shape {
    /// Whether it takes JSON.
    fn has_json(&self) -> bool {
        self.body
            .is_some_and(|body| !matches!(body, "bytes" | "text"))
    }

    /// Every code that the route can answer.
    fn all_codes(&self, route: &Route) -> Vec<Code> {
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
            || (self.has_json() && route.place == Place::Data && self.body != Some("ScanRequest"));
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

/// The document.
pub(crate) fn document() -> OpenApi {
    let mut paths = Paths::new();
    for route in &ROUTES {
        let method = match route.verb {
            Verb::Get => HttpMethod::Get,
            Verb::Head => HttpMethod::Head,
            Verb::Post => HttpMethod::Post,
            Verb::Put => HttpMethod::Put,
            Verb::Delete => HttpMethod::Delete,
        };
        paths.add_path_operation(route.path, vec![method], operation(route));
    }
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Henge")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "A distributed cache that may forget a key and never lies about one.",
                )),
        )
        .paths(paths)
        .components(Some(components()))
        .build()
}

/// The ways in which an API key may come.
const SCHEMES: [&str; 2] = ["bearer", "x_api_key"];

/// Under what a route is listed.
fn tag(permission: Permission) -> &'static str {
    match permission {
        Permission::Read => "read",
        Permission::Write | Permission::Update => "write",
        Permission::Admin => "admin",
        Permission::Anyone | Permission::Connection | Permission::Observe => "observe",
    }
}

fn operation(route: &Route) -> OperationBuilder {
    let shape = shape(route.id);
    let mut operation = OperationBuilder::new()
        .operation_id(Some(route.name))
        .summary(Some(route.summary))
        .tag(tag(route.permission));
    if route.permission != Permission::Anyone {
        for scheme in SCHEMES {
            operation = operation.security(SecurityRequirement::new(scheme, [""; 0]));
        }
    }
    for &name in shape.query {
        operation = operation.parameter(parameter(name, ParameterIn::Query, Required::False));
    }
    if route.path.ends_with("{key}") {
        operation = operation.parameter(parameter("key", ParameterIn::Path, Required::True));
    }
    if route.path.ends_with("{name}") {
        operation = operation.parameter(parameter("name", ParameterIn::Path, Required::True));
        for name in ["If-Match", "If-None-Match"] {
            operation = operation.parameter(parameter(name, ParameterIn::Header, Required::False));
        }
    }
    if matches!(
        route.permission,
        Permission::Read | Permission::Write | Permission::Update
    ) || matches!(route.id, RouteId::Flush | RouteId::Restore)
    {
        let name = "X-Consistency-Level";
        operation = operation.parameter(parameter(name, ParameterIn::Header, Required::False));
    }
    if let Some(body) = shape.body {
        let (media_type, schema) = match body {
            "bytes" => ("application/octet-stream", text()),
            "text" => ("text/plain", text()),
            name => ("application/json", reference(name)),
        };
        operation = operation.request_body(Some(
            RequestBodyBuilder::new()
                .content(media_type, Content::new(Some(schema)))
                .required(Some(Required::True))
                .build(),
        ));
    }
    let (status, answer) = shape.ok;
    let mut ok = ResponseBuilder::new().description(route.summary);
    if answer.contains('/') {
        ok = ok.content(answer, Content::new(Some(text())));
    } else if !answer.is_empty() {
        ok = ok.content("application/json", Content::new(Some(reference(answer))));
    }
    if route.id == RouteId::Backup {
        let mut place = Header::new(text());
        place.description = Some("The place to ask for next; not there if that was all".to_owned());
        ok = ok.header(X_NEXT_PLACE.as_str(), place);
        let mut term = Header::new(text());
        term.description = Some("The term that the partition was in".to_owned());
        ok = ok.header(X_TERM.as_str(), term);
    }
    operation = operation.response(status.to_string(), ok);

    let mut codes = shape.all_codes(route);
    codes.sort_unstable_by_key(|code| (code.status_number(), code.name()));
    codes.dedup();
    for same in codes.chunk_by(|a, b| a.status_number() == b.status_number()) {
        let names: Vec<&str> = same.iter().map(|code| code.name()).collect();
        let problem = ResponseBuilder::new()
            .description(names.join(", "))
            .content(
                "application/problem+json",
                Content::new(Some(reference("Problem"))),
            );
        operation = operation.response(same[0].status_number().to_string(), problem);
    }
    operation
}

fn parameter(name: &str, place: ParameterIn, required: Required) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .schema(Some(text()))
}

fn reference(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

fn of_type(kind: impl Into<SchemaType>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

fn text() -> RefOr<Schema> {
    of_type(Type::String).into()
}

/// An object with these members.
fn object(members: &[(&str, RefOr<Schema>)]) -> ObjectBuilder {
    let object = of_type(Type::Object);
    members.iter().fold(object, |object, (name, schema)| {
        object.property(*name, schema.clone())
    })
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn components() -> utoipa::openapi::Components {
    let seconds = || -> RefOr<Schema> {
        of_type(SchemaType::from_iter([Type::Number, Type::Null]))
            .description(Some(
                "Seconds that remain, with three decimals; null for none",
            ))
            .into()
    };
    let nullable =
        |kind| -> RefOr<Schema> { of_type(SchemaType::from_iter([kind, Type::Null])).into() };
    let boolean = || -> RefOr<Schema> { of_type(Type::Boolean).into() };
    let integer = || -> RefOr<Schema> { of_type(Type::Integer).into() };
    let any = || -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .into()
    };
    let array = |items: RefOr<Schema>| -> RefOr<Schema> { ArrayBuilder::new().items(items).into() };
    let key = [("key", text()), ("key_base64", text())];
    let state = [("ttl", seconds()), ("version", text())];
    let with = |members: &[(&str, RefOr<Schema>)]| object(&[&key, members].concat());
    let codes = Code::ALL.iter().map(|code| code.name());
    let meanings: Vec<String> = Code::ALL
        .iter()
        .map(|code| {
            format!(
                "{} ({}): {}",
                code.name(),
                code.status_number(),
                code.title()
            )
        })
        .collect();
    let code: RefOr<Schema> = of_type(Type::String)
        .enum_values(Some(codes))
        .description(Some(meanings.join("\n")))
        .into();
    let item = [&[("value", any()), ("value_base64", text())], &state[..]].concat();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let header = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
    ComponentsBuilder::new()
        .security_scheme(SCHEMES[0], SecurityScheme::Http(bearer))
        .security_scheme(SCHEMES[1], SecurityScheme::ApiKey(header))
        .schema_from::<ApiKeyRequest>()
        .schema("RoleRequest", array(text()))
        .schema_from::<KeyRequest>()
        .schema_from::<SetRequest<'_>>()
        .schema_from::<MsetRequest<'_>>()
        .schema_from::<KeysRequest>()
        .schema_from::<IncrRequest>()
        .schema_from::<ExpireRequest>()
        .schema_from::<ScanRequest>()
        .schema("Item", with(&item))
        .schema("State", with(&state))
        .schema(
            "Counter",
            with(&[&[("value", integer())], &state[..]].concat()),
        )
        .schema("Deleted", object(&[("deleted", boolean())]))
        .schema("Existence", with(&[("exists", boolean())]))
        .schema("Flushed", object(&[("flushed", boolean())]))
        .schema(
            "Page",
            object(&[
                ("keys", array(text())),
                ("keys_base64", array(text())),
                ("cursor", text()),
            ]),
        )
        .schema("Results", object(&[("results", array(any()))]))
        .schema(
            "Reloaded",
            object(&[("changed", array(text())), ("needs_restart", array(text()))]),
        )
        .schema(
            "Snapshot",
            object(&[
                ("number", integer()),
                ("records", integer()),
                ("bytes", integer()),
                ("seconds", of_type(Type::Number).into()),
            ]),
        )
        .schema(
            "Restored",
            object(&[
                ("records", integer()),
                ("written", integer()),
                ("present", integer()),
                ("expired", integer()),
                ("deleted", integer()),
                (
                    "failed",
                    array(object(&[("at", integer()), ("error", any())]).into()),
                ),
            ]),
        )
        .schema(
            "SettingState",
            object(&[("name", text()), ("value", text()), ("version", integer())]),
        )
        .schema(
            "Settings",
            object(&[(
                "settings",
                array(
                    object(&[
                        ("name", text()),
                        ("value", nullable(Type::String)),
                        ("source", text()),
                        ("cluster_value", nullable(Type::String)),
                        ("version", nullable(Type::Integer)),
                        ("about", text()),
                    ])
                    .into(),
                ),
            )]),
        )
        .schema("Figures", of_type(Type::Object))
        .schema(
            "Problem",
            object(&[
                ("type", text()),
                ("title", text()),
                ("status", integer()),
                ("detail", text()),
                ("code", code),
                ("current_version", text()),
            ]),
        )
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_every_reference_leads_somewhere() {
        let document = serde_json::to_value(document()).expect("it is JSON");
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().expect("paths");
        let mut described = 0;
        for route in &ROUTES {
            let verb = route.verb.name().to_ascii_lowercase();
            let operation = &paths[route.path][&verb];
            assert_eq!(operation["operationId"], route.name, "{}", route.path);
        }
        for methods in paths.values() {
            described += methods.as_object().map_or(0, serde_json::Map::len);
        }
        assert_eq!(described, ROUTES.len());

        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("it is quoted");
            let schemas = &document["components"]["schemas"];
            assert!(schemas[name].is_object(), "{name}");
        }
    }

    /// A code that no route names would be one that a client cannot look up.
    #[test]
    fn every_code_belongs_to_a_route() {
        // These come before a route is found, or from batches.
        let elsewhere = [
            Code::InvalidHost,
            Code::ExpectationFailed,
            Code::RouteNotFound,
            Code::MethodNotAllowed,
            Code::TooManyConnections,
            Code::TlsRequired,
        ];
        for code in Code::ALL {
            let known = ROUTES
                .iter()
                .any(|route| shape(route.id).all_codes(route).contains(&code));
            assert!(known || elsewhere.contains(&code), "{code:?}");
        }
    }

    #[test]
    fn the_page_in_docs_names_every_route_and_code() {
        let page = include_str!("../../../../docs/http-api.md");
        for route in &ROUTES {
            let heading = format!("`{} {}`", route.verb.name(), route.path);
            assert!(page.contains(&heading), "{heading}");
        }
        for code in Code::ALL {
            let row = format!(
                "| `{}` | {} | {} |",
                code.name(),
                code.status_number(),
                code.title()
            );
            assert!(page.contains(&row), "{row}");
        }
    }
}
