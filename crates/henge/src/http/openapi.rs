//! The interface as an `OpenAPI` 3.1 document. Paths, methods and names follow from the table of routes, problem codes from
//! the table of codes, request bodies from the structs that are parsed; only what a route takes and answers is said here. It is written as
//! JSON, as it says of members what they have to be together, and which headers come with every answer, for which `utoipa` has no types.

mod parameters;
mod schemas;
mod shapes;

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::backup::{X_NEXT_PLACE, X_TERM};
use super::routes::{Place, ROUTES, Route, RouteId, Verb};
use crate::access::permission::Permission;
use parameters::{NUMBER_TAG, VERSION_TAG};
use shapes::{Answered, Shape, Taken, shape};

/// The document as it is sent.
pub(crate) static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());

/// The ways in which an API key may come.
const SCHEMES: [&str; 2] = ["bearer", "x_api_key"];

fn document() -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.verb.name().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Henge",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A distributed cache that may forget a key and never lies about one.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {
                SCHEMES[0]: {"type": "http", "scheme": "bearer"},
                SCHEMES[1]: {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    })
}

/// Under what a route is listed.
fn tag(permission: Permission) -> &'static str {
    match permission {
        Permission::Read => "read",
        Permission::Write | Permission::Update => "write",
        Permission::Admin => "admin",
        Permission::Anyone | Permission::Connection | Permission::Observe => "observe",
    }
}

fn operation(route: &Route) -> Value {
    let shape = shape(route.id);
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.summary,
        "tags": [tag(route.permission)],
        "parameters": parameters::of(route, &shape),
        "responses": responses(route, &shape),
    });
    if let Some(body) = shape.body {
        operation["requestBody"] = match body {
            Taken::Json(name) => json!({"required": true, "content": json_content(name)}),
            Taken::Text(name) => {
                json!({"required": true, "content": {"text/plain": {"schema": schema(name)}}})
            }
            // No body is one without bytes.
            Taken::Bytes(media_type) => json!({"required": false, "content": {media_type: {}}}),
        };
    }
    if route.permission != Permission::Anyone {
        operation["security"] = SCHEMES.iter().map(|scheme| json!({*scheme: []})).collect();
    }
    operation
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn json_content(name: &str) -> Value {
    json!({"application/json": {"schema": schema(name)}})
}

/// A header of an answer, with the schema of its text.
fn header(is_required: bool, schema: &Value, about: &str) -> Value {
    json!({"required": is_required, "schema": schema, "description": about})
}

/// All answers to a route, by their statuses.
fn responses(route: &Route, shape: &Shape) -> Map<String, Value> {
    let mut responses = Map::new();
    let mut done = json!({"description": route.summary, "headers": headers(route)});
    match shape.answer {
        Answered::Nothing => {}
        Answered::Json(name) => done["content"] = json_content(name),
        Answered::Bytes(media_types) => {
            let types = media_types.iter();
            done["content"] = types.map(|&name| (name.to_owned(), json!({}))).collect();
        }
    }
    responses.insert(shape.status.to_string(), done);
    if matches!(route.id, RouteId::RawGet | RouteId::RawHead) {
        let tag = header(
            true,
            &json!({"type": "string", "pattern": *VERSION_TAG}),
            "The version",
        );
        let unchanged =
            json!({"description": "The client has it already", "headers": {"ETag": tag}});
        responses.insert("304".to_owned(), unchanged);
    }
    let mut codes = shape.all_codes(route);
    codes.sort_unstable_by_key(|code| (code.status_number(), code.name()));
    codes.dedup();
    for same in codes.chunk_by(|a, b| a.status_number() == b.status_number()) {
        let names: Vec<&str> = same.iter().map(|code| code.name()).collect();
        let mut problem = json!({"description": names.join(", ")});
        if route.verb != Verb::Head {
            problem["content"] = json!({"application/problem+json": {"schema": schema("Problem")}});
        }
        let status = same[0].status_number();
        match status {
            401 => {
                let scheme = json!({"type": "string", "const": "Bearer"});
                problem["headers"] =
                    json!({"WWW-Authenticate": header(true, &scheme, "The way in")});
            }
            429 => {
                let seconds = json!({"type": "integer", "minimum": 1});
                let text = json!({"type": "string"});
                problem["headers"] = json!({
                    "Retry-After": header(true, &seconds, "Seconds to wait"),
                    "RateLimit": header(true, &text, "Which limit is reached, and until when"),
                    "RateLimit-Policy": header(true, &text, "What is limited"),
                });
            }
            503 => {
                let seconds = json!({"type": "integer", "minimum": 1});
                // What is not ready does not know when it will be.
                let is_required = route.id != RouteId::Ready;
                problem["headers"] =
                    json!({"Retry-After": header(is_required, &seconds, "Seconds to wait")});
            }
            _ => {}
        }
        if (route.id, status) == (RouteId::Ready, 503) {
            problem["content"]["application/json"] = json!({"schema": schema("Unreadiness")});
        }
        responses.insert(status.to_string(), problem);
    }
    for response in responses.values_mut() {
        for (name, about) in RATE_LIMIT_HEADERS {
            // One of an answer that is always counted is said above.
            if response["headers"][name].is_null() {
                let text = json!({"type": "string"});
                response["headers"][name] = header(false, &text, about);
            }
        }
    }
    responses
}

/// Of each answer that is counted; which are, the settings say.
const RATE_LIMIT_HEADERS: [(&str, &str); 2] = [
    (
        "RateLimit",
        "How many requests are left of the limit that is nearest, and until when",
    ),
    ("RateLimit-Policy", "What is limited"),
];

/// The headers of an answer when all is well.
fn headers(route: &Route) -> Map<String, Value> {
    let mut headers = Map::new();
    let mut add = |name: &str, is_required, schema: Value, about| {
        headers.insert(name.to_owned(), header(is_required, &schema, about));
    };
    let integer = || json!({"type": "integer", "minimum": 0});
    let tag = |pattern: &str| json!({"type": "string", "pattern": pattern});
    if route.place == Place::Data {
        let levels = json!({"type": "string", "enum": ["ONE", "QUORUM", "ALL"]});
        add(
            "X-Consistency-Level",
            true,
            levels,
            "The level that was used",
        );
        let about = "How many replicas are known to have what is shown or said to be done";
        add("X-Replicas", false, integer(), about);
    }
    match route.id {
        RouteId::RawGet | RouteId::RawHead => {
            add("ETag", true, tag(&VERSION_TAG), "The version");
            let seconds = json!({"type": "number", "minimum": 0});
            add("X-TTL", false, seconds, "Seconds that remain");
            let age = tag("^max-age=[0-9]+$");
            add("Cache-Control", false, age, "Whole seconds that remain");
        }
        RouteId::RawPut => add("ETag", true, tag(&VERSION_TAG), "The version"),
        RouteId::SetSetting => add("ETag", true, tag(&NUMBER_TAG), "The version"),
        RouteId::AddApiKey => {
            let no_store = json!({"type": "string", "const": "no-store"});
            add("Cache-Control", true, no_store, "Nobody is to keep the key");
        }
        RouteId::Backup => {
            let about = "The place to ask for next; not there if that was all";
            add(X_NEXT_PLACE.as_str(), false, integer(), about);
            add(
                X_TERM.as_str(),
                true,
                integer(),
                "The term that the partition was in",
            );
        }
        _ => {}
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::super::problem::Code;
    use super::*;

    #[test]
    fn every_route_is_described_and_every_reference_leads_somewhere() {
        let document = document();
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

    #[test]
    fn every_answer_may_say_what_is_left_and_a_refusal_does() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let operations = paths
            .values()
            .flat_map(|methods| methods.as_object().expect("methods").values());
        for operation in operations {
            let responses = operation["responses"].as_object().expect("answers");
            for (status, response) in responses {
                for (name, _) in RATE_LIMIT_HEADERS {
                    let is_required = &response["headers"][name]["required"];
                    assert_eq!(*is_required, status == "429", "{operation} {status}");
                }
            }
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
