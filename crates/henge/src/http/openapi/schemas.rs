//! The schemas of bodies. Those of requests are made from the structs that are parsed; what their members have to be together, which
//! no struct says, is added to them here, for requests of one key only: in a batch that is told for each key. Those of
//! answers say all that there may be, as far as it is the same from version to version.

use serde_json::{Map, Value, json};
use utoipa::openapi::ComponentsBuilder;

use super::super::api_keys::ApiKeyRequest;
use super::super::lifetime::LONGEST_SECONDS;
use super::super::problem::Code;
use super::super::requests::{
    ExpireRequest, IncrRequest, KeyRequest, KeysRequest, MsetRequest, ScanRequest, SetRequest,
};
use super::parameters::{BASE64, CURSOR, NAME, VERSION};
use crate::access::permission::Permissions;
use henge_wire::MAX_KEY_BYTES;

/// All of them, by their names.
pub(super) fn all() -> Map<String, Value> {
    let mut schemas = requests();
    schemas.extend(
        [items_and_states(), figures_of_node(), changes(), errors()]
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.to_owned(), schema)),
    );
    schemas
}

/// A schema and its name.
type Named = (&'static str, Value);

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn list(items: &Value) -> Value {
    json!({"type": "array", "items": items})
}

/// An object of these members, all of which are there, and of no others.
fn object(members: &Value) -> Value {
    let names: Vec<&String> = members
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .collect();
    json!({"type": "object", "properties": members, "required": names, "additionalProperties": false})
}

/// What the structs of requests are, strictly, and what their members have to be together.
fn requests() -> Map<String, Value> {
    let components = ComponentsBuilder::new()
        .schema_from::<ApiKeyRequest>()
        .schema_from::<KeyRequest>()
        .schema_from::<SetRequest<'_>>()
        .schema_from::<MsetRequest<'_>>()
        .schema_from::<KeysRequest>()
        .schema_from::<IncrRequest>()
        .schema_from::<ExpireRequest>()
        .schema_from::<ScanRequest>()
        .build();
    let mut components = serde_json::to_value(components).expect("it is JSON");
    let Value::Object(mut schemas) = components["schemas"].take() else {
        unreachable!("schemas are an object");
    };
    for schema in schemas.values_mut() {
        schema["additionalProperties"] = false.into();
    }
    for member in ["by", "initial"] {
        let member = &mut schemas["IncrRequest"]["properties"][member];
        member["minimum"] = i64::MIN.into();
        member["maximum"] = i64::MAX.into();
        let about = "From 10^15 in size on without a fraction or an exponent";
        member["description"] = about.into();
    }
    // The parts of a batch, each of which has an answer of its own.
    let (key, set) = (schemas["KeyRequest"].clone(), schemas["SetRequest"].clone());
    let named = json!({"anyOf": [{"type": "string"}, reference("NamedKey")]});
    schemas["KeysRequest"]["properties"]["keys"] = list(&named);
    schemas["MsetRequest"]["properties"]["items"] = list(&reference("SetItem"));
    schemas.insert("NamedKey".to_owned(), key);
    schemas.insert("SetItem".to_owned(), set);

    let one_key = either(
        "key",
        &json!({"type": "string", "maxLength": MAX_KEY_BYTES}),
    );
    let seconds = json!({"minimum": 0, "maximum": LONGEST_SECONDS});
    let lifetime = json!({"properties": {"ttl": seconds}});
    for (name, together) in [
        ("KeyRequest", vec![one_key.clone()]),
        ("SetRequest", set_rules(&one_key, &lifetime)),
        ("IncrRequest", vec![one_key.clone(), lifetime.clone()]),
        (
            "ExpireRequest",
            vec![
                one_key,
                lifetime,
                json!({"properties": {"ttl": {"type": "number"}}, "required": ["ttl"]}),
            ],
        ),
        ("ScanRequest", scan_rules()),
    ] {
        schemas[name]["allOf"] = together.into();
    }
    let permission =
        json!({"type": "string", "enum": Permissions::ALL.names().collect::<Vec<_>>()});
    let held = json!({"type": "array", "items": permission, "minItems": 1});
    schemas.insert("RoleRequest".to_owned(), held);
    api_key_rules(&mut schemas["ApiKeyRequest"], &permission);
    schemas.insert(
        "SettingValue".to_owned(),
        json!({"type": "string", "maxLength": 1024, "description": "As it is configured"}),
    );
    let weight =
        json!({"type": "integer", "minimum": 1, "maximum": henge_cluster::ring::MAX_WEIGHT});
    schemas.insert("Weight".to_owned(), weight);
    schemas
}

/// One of two members is given, as it is or in base64; null is as good as not given.
fn either(name: &str, plain: &Value) -> Value {
    let base64 = format!("{name}_base64");
    let nothing = json!({"type": "null"});
    let bytes = json!({"type": "string", "pattern": BASE64});
    json!({"oneOf": [
        {"properties": {name: plain, &base64: nothing}, "required": [name]},
        {"properties": {name: nothing, &base64: bytes}, "required": [base64]},
    ]})
}

fn set_rules(one_key: &Value, lifetime: &Value) -> Vec<Value> {
    let yes = json!({"const": true});
    let never = |members: &Value| {
        let names: Vec<&String> = members
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .collect();
        json!({"not": {"properties": members, "required": names}})
    };
    let version = json!({"type": "string"});
    vec![
        one_key.clone(),
        // Null is a value as well.
        json!({"oneOf": [
            {"properties": {"value_base64": {"type": "null"}}, "required": ["value"]},
            {
                "properties": {"value": false, "value_base64": {"type": "string", "pattern": BASE64}},
                "required": ["value_base64"],
            },
        ]}),
        lifetime.clone(),
        json!({"properties": {"if_version": {"pattern": *VERSION}}}),
        never(&json!({"keep_ttl": yes, "ttl": {"type": "number"}})),
        never(&json!({"nx": yes, "xx": yes})),
        never(&json!({"nx": yes, "if_version": version})),
    ]
}

fn scan_rules() -> Vec<Value> {
    let text = json!({"type": "string"});
    vec![
        json!({"properties": {
            "prefix_base64": {"pattern": BASE64},
            "cursor": {"pattern": *CURSOR},
            "limit": {"minimum": 1, "maximum": 1000},
        }}),
        json!({"not": {
            "properties": {"prefix": text, "prefix_base64": text},
            "required": ["prefix", "prefix_base64"],
        }}),
    ]
}

fn api_key_rules(schema: &mut Value, permission: &Value) {
    let members = &mut schema["properties"];
    members["name"]["pattern"] = NAME.into();
    members["hash"]["pattern"] =
        "^hs256:[0-9a-f]{12}:[A-Za-z0-9_-]{21}[AQgw]:[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$".into();
    members["certificate"]["pattern"] = "^[A-Za-z0-9._-]{1,253}$".into();
    members["expires"]["pattern"] =
        "^(19[789][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])([Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][Zz])?$".into();
    members["roles"]["items"]["pattern"] = NAME.into();
    members["permissions"]["items"] = permission.clone();
    members["prefixes"]["maxItems"] = 64.into();
    members["prefixes"]["items"]["maxLength"] = 1024.into();
    // They are sets, and what is in one twice is in it.
    for set in ["permissions", "roles", "prefixes"] {
        if let Some(set) = members[set].as_object_mut() {
            set.remove("uniqueItems");
        }
    }
    schema["anyOf"] = json!([
        {"properties": {"permissions": {"minItems": 1}}, "required": ["permissions"]},
        {"properties": {"roles": {"minItems": 1}}, "required": ["roles"]},
    ]);
}

/// An object about a key of the cache, which is text or base64, with these members beside it.
fn of_key(members: &Value) -> Value {
    let mut schema = object(members);
    schema["properties"]["key"] = json!({"type": "string"});
    schema["properties"]["key_base64"] = json!({"type": "string", "pattern": BASE64});
    schema["oneOf"] = json!([{"required": ["key"]}, {"required": ["key_base64"]}]);
    schema
}

/// What is answered about keys of the cache.
fn items_and_states() -> Vec<Named> {
    let ttl = json!({
        "type": ["number", "null"],
        "minimum": 0,
        "description": "Seconds that remain, with three decimals; null for none",
    });
    let version = json!({"type": "string", "pattern": *VERSION});
    let state = json!({"ttl": ttl, "version": version});
    let boolean = json!({"type": "boolean"});
    let mut item = of_key(&state);
    item["properties"]["value"] = json!({"description": "Text, or the JSON value that was stored"});
    item["properties"]["value_base64"] = json!({"type": "string", "pattern": BASE64});
    item["allOf"] = json!([{"oneOf": [{"required": ["value"]}, {"required": ["value_base64"]}]}]);
    let counter = json!({"value": {"type": "integer"}, "ttl": ttl, "version": version});
    let error = json!({
        "type": "object",
        "properties": problem_members(),
        "required": ["status", "code"],
        "additionalProperties": false,
    });
    // The key of one that named none cannot be shown.
    let mut failed = object(&json!({"error": error}));
    failed["properties"]["key"] = json!({"type": "string"});
    failed["properties"]["key_base64"] = json!({"type": "string", "pattern": BASE64});
    let results = |name: &str| {
        let one = json!({"anyOf": [reference(name), reference("FailedKey")]});
        object(&json!({"results": list(&one)}))
    };
    let mut page = object(&json!({
        "keys": list(&json!({"type": "string"})),
        "cursor": {"type": "string", "pattern": *CURSOR},
    }));
    page["properties"]["keys_base64"] = list(&json!({"type": "string", "pattern": BASE64}));
    vec![
        ("Item", item),
        ("State", of_key(&state)),
        ("Counter", of_key(&counter)),
        ("Deleted", object(&json!({"deleted": boolean}))),
        ("DeletedKey", of_key(&json!({"deleted": boolean}))),
        ("Existence", of_key(&json!({"exists": boolean}))),
        ("FailedKey", failed),
        ("Items", results("Item")),
        ("States", results("State")),
        ("Deletions", results("DeletedKey")),
        ("Page", page),
        ("Flushed", object(&json!({"flushed": boolean}))),
    ]
}

/// What is answered about the node and its cluster. What grows with each version is an object, and no more is said of it.
fn figures_of_node() -> Vec<Named> {
    let text = json!({"type": "string"});
    let number = json!({"type": "integer", "minimum": 0});
    let status = |known: &[&str]| {
        json!({
            "type": "object",
            "properties": {"status": {"type": "string", "enum": known}},
            "required": ["status"],
        })
    };
    let setting = object(&json!({
        "name": text,
        "value": {"type": ["string", "null"]},
        "source": {"type": "string", "enum": ["cluster", "node", "ignored"]},
        "cluster_value": {"type": ["string", "null"]},
        "version": {"type": ["integer", "null"]},
        "about": text,
    }));
    vec![
        ("Figures", json!({"type": "object"})),
        ("Health", status(&["ok"])),
        ("Readiness", status(&["ready"])),
        (
            "Unreadiness",
            status(&["loading", "forming", "refused", "drained"]),
        ),
        (
            "Release",
            object(&json!({"name": text, "version": text, "commit": text})),
        ),
        ("Settings", object(&json!({"settings": list(&setting)}))),
        (
            "SettingState",
            object(&json!({"name": text, "value": text, "version": number})),
        ),
        (
            "Snapshot",
            object(&json!({
                "number": number,
                "records": number,
                "bytes": number,
                "seconds": {"type": "number", "minimum": 0},
            })),
        ),
        (
            "Reloaded",
            object(&json!({"changed": list(&text), "needs_restart": list(&text)})),
        ),
    ]
}

/// What is answered to who administers.
fn changes() -> Vec<Named> {
    let text = json!({"type": "string"});
    let number = json!({"type": "integer", "minimum": 0});
    let names = list(&text);
    let source = json!({"type": "string", "enum": ["file", "cluster"]});
    // One that was revoked has its name only.
    let api_key = json!({
        "type": "object",
        "properties": {
            "name": text,
            "id": {"type": ["string", "null"]},
            "certificate": {"type": ["string", "null"]},
            "permissions": names,
            "roles": names,
            "prefixes": names,
            "expires": {"type": ["string", "null"]},
            "state": {"type": "string", "enum": ["active", "expired", "revoked"]},
            "source": source,
            "key": {"type": "string", "description": "The key itself, told where it was made and never again"},
        },
        "required": ["name", "state", "source"],
        "additionalProperties": false,
    });
    let mut moved = object(&json!({"node": text, "epoch": number}));
    moved["properties"]["weight"] = number.clone();
    let failed = object(&json!({"at": number, "error": {"type": "object"}}));
    vec![
        ("AddedApiKey", api_key.clone()),
        (
            "ApiKeys",
            object(&json!({
                "keys": list(&api_key),
                "roles": list(&object(&json!({"name": text, "permissions": names, "source": source}))),
                "are_required": {"type": "boolean"},
            })),
        ),
        ("NodeChange", moved),
        ("RingChange", object(&json!({"epoch": number}))),
        (
            "Restored",
            object(&json!({
                "records": number,
                "written": number,
                "present": number,
                "expired": number,
                "deleted": number,
                "failed": list(&failed),
            })),
        ),
    ]
}

/// What an error says, on its own and in the answer to a batch.
fn problem_members() -> Value {
    json!({
        "status": {"type": "integer"},
        "code": reference("Code"),
        "detail": {"type": "string"},
        "current_version": {"type": ["string", "null"]},
    })
}

fn errors() -> Vec<Named> {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    let meaning = |code: &Code| {
        format!(
            "{} ({}): {}",
            code.name(),
            code.status_number(),
            code.title()
        )
    };
    let meanings: Vec<String> = Code::ALL.iter().map(meaning).collect();
    let mut members = problem_members();
    members["type"] = json!({"type": "string", "pattern": "^urn:henge:problem:[a-z0-9_]+$"});
    members["title"] = json!({"type": "string"});
    vec![
        (
            "Code",
            json!({"type": "string", "enum": codes, "description": meanings.join("\n")}),
        ),
        (
            "Problem",
            json!({
                "type": "object",
                "properties": members,
                "required": ["type", "title", "status", "code"],
                "additionalProperties": false,
            }),
        ),
    ]
}
