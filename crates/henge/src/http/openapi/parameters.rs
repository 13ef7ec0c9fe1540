//! The parameters of routes, in the query, the path and the headers, and the patterns of what is text with a form, which bodies have as
//! well. They say what is taken, and what else is refused: clients are tested with either.

use std::sync::LazyLock;

use henge_wire::{PARTITIONS, Version};
use serde_json::{Value, json};

use super::super::lifetime::LONGEST_SECONDS;
use super::super::routes::{Place, Route, RouteId};
use super::shapes::Shape;
use crate::access::permission::Permission;
use crate::cluster::settings;

/// The name of a key, a role or a node.
pub(super) const NAME: &str = "^[A-Za-z0-9._-]{1,64}$";
/// Base64 of either alphabet, padded or not. What is left over of the last letter is 0.
pub(super) const BASE64: &str = "^(([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw](={0,2})|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=?)?|([A-Za-z0-9_-]{4})*([A-Za-z0-9_-][AQgw](={0,2})|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048]=?)?)$";
/// A list of tags, or `*` (RFC 9110, 13.1).
const TAGS: &str = r#"^(\*|[, \t]*(W/)?"[^"]*"([ \t]*,[, \t]*(W/)?"[^"]*")*[ \t]*(,[, \t]*)?)$"#;
/// A consistency level, in any case.
const LEVEL: &str = "^([Oo][Nn][Ee]|[Qq][Uu][Oo][Rr][Uu][Mm]|[Aa][Ll][Ll])$";

/// A version without its ends.
static BARE_VERSION: LazyLock<String> = LazyLock::new(|| {
    let (term, seq) = (up_to(Version::MAX_TERM.into()), up_to(Version::MAX_SEQ));
    format!("{term}-{seq}")
});
/// A version, as the JSON routes have it.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| format!("^{}$", *BARE_VERSION));
/// A version, as an `ETag`.
pub(super) static VERSION_TAG: LazyLock<String> =
    LazyLock::new(|| format!("^\"{}\"$", *BARE_VERSION));
/// The number of the change that made a setting what it is, as an `ETag`.
pub(super) static NUMBER_TAG: LazyLock<String> =
    LazyLock::new(|| format!("^\"{}\"$", up_to(u64::MAX)));
/// Where a page of a scan begins: what the page before answered.
pub(super) static CURSOR: LazyLock<String> = LazyLock::new(|| {
    let partition = up_to(u64::from(PARTITIONS) - 1);
    format!("^(0|{partition}-0*[0-9A-Fa-f]{{1,8}}-0*[0-9A-Fa-f]{{1,8}})$")
});
/// A lifetime, in digits.
static LIFETIME: LazyLock<String> = LazyLock::new(|| {
    let below = up_to(LONGEST_SECONDS - 1);
    format!(r"^({below}(\.[0-9]*)?|0*{LONGEST_SECONDS}(\.0*)?|\.[0-9]+)$")
});

/// A pattern of the whole numbers up to this one, in digits.
fn up_to(most: u64) -> String {
    let digits = most.to_string();
    let mut ways = vec![digits.clone()];
    // The first digits are those of the most, the next is smaller, and those behind it are any.
    for (at, digit) in digits.bytes().enumerate() {
        if digit == b'0' || (at, digit) == (0, b'1') {
            continue;
        }
        let (first, smaller) = (&digits[..at], char::from(digit - 1));
        let rest = digits.len() - at - 1;
        ways.push(format!("{first}[0-{smaller}][0-9]{{{rest}}}"));
    }
    if digits.len() > 1 {
        ways.push(format!("[0-9]{{1,{}}}", digits.len() - 1));
    }
    format!("0*({})", ways.join("|"))
}

fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

/// A parameter of a query: whether it has to be given, its schema, and what it is.
fn of_query(name: &str) -> (bool, Value, &'static str) {
    match name {
        "key" => (
            false,
            json!({"type": "string"}),
            "The key, as text; this or `key_base64`",
        ),
        "key_base64" => (false, pattern(BASE64), "The key, in base64; this or `key`"),
        "prefix" => (false, json!({"type": "string"}), "What the keys begin with"),
        "cursor" => (
            false,
            pattern(&CURSOR),
            "What the page before answered; 0 begins a scan",
        ),
        "limit" => (
            false,
            json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
            "The most keys of a page",
        ),
        "count" => (
            false,
            json!({"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
            "The most of a page",
        ),
        "after" => (
            false,
            json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
            "The number of the last event that is known",
        ),
        "partition" => (
            true,
            json!({"type": "integer", "minimum": 0, "maximum": PARTITIONS - 1}),
            "The number of the partition",
        ),
        "place" => (
            false,
            json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            "What `X-Henge-Next-Place` of the page before said",
        ),
        "force" | "forget" | "leads" | "replace" => (
            false,
            json!({"type": "boolean", "default": false}),
            match name {
                "force" => "It is down for good, whatever it held",
                "forget" => "The name of one that was revoked is free again",
                "leads" => "What the leader of the partition has, or nothing",
                _ => "What is there under a key is replaced",
            },
        ),
        other => unreachable!("{other} is no parameter of a route"),
    }
}

/// The parameter that ends a path.
fn of_path(route: &Route) -> Option<Value> {
    let (name, schema, about) = if route.path.ends_with("{key}") {
        let schema = json!({"type": "string", "minLength": 1});
        (
            "key",
            schema,
            "The key: the rest of the path, percent-decoded once",
        )
    } else if route.path.ends_with("{file}") {
        (
            "file",
            json!({"type": "string", "enum": ["index.html", "main.js", "console.css"]}),
            "A file that the console's page names; those below `views/` as well",
        )
    } else if route.path.ends_with("{name}") {
        let schema = match route.id {
            RouteId::SetSetting => {
                json!({"type": "string", "enum": settings::names().collect::<Vec<_>>()})
            }
            _ => pattern(NAME),
        };
        ("name", schema, "Its name")
    } else {
        return None;
    };
    Some(
        json!({"name": name, "in": "path", "required": true, "schema": schema, "description": about}),
    )
}

/// The headers that a route reads, with their schemas and what they are.
fn of_headers(route: &Route) -> Vec<(&'static str, Value, &'static str)> {
    let mut headers = Vec::new();
    let is_of_keys = matches!(
        route.permission,
        Permission::Read | Permission::Write | Permission::Update
    );
    if is_of_keys || matches!(route.id, RouteId::Flush | RouteId::Restore) {
        headers.push((
            "X-Consistency-Level",
            pattern(LEVEL),
            "`ONE`, `QUORUM` or `ALL`",
        ));
    }
    if route.place == Place::Data {
        headers.push((
            "traceparent",
            json!({"type": "string"}),
            "The trace that it is a part of, as W3C Trace Context has it; what is none is passed over",
        ));
    }
    match route.id {
        RouteId::RawGet | RouteId::RawHead | RouteId::RawPut | RouteId::RawDelete => {
            headers.push((
                "If-Match",
                pattern(TAGS),
                "The versions that it has to have",
            ));
            headers.push((
                "If-None-Match",
                pattern(TAGS),
                "The versions that it may not have",
            ));
        }
        RouteId::SetSetting | RouteId::UnsetSetting => {
            headers.push((
                "If-Match",
                pattern(&NUMBER_TAG),
                "The version that it has to have; this or `If-None-Match`",
            ));
            headers.push((
                "If-None-Match",
                pattern(r"^\*$"),
                "It may not be set; this or `If-Match`",
            ));
        }
        _ => {}
    }
    if route.id == RouteId::RawPut {
        headers.push((
            "X-TTL",
            pattern(&LIFETIME),
            "The lifetime in seconds; `Cache-Control: max-age` where it is not given",
        ));
    }
    headers
}

/// All parameters of a route.
pub(super) fn of(route: &Route, shape: &Shape) -> Vec<Value> {
    let query = shape.query.iter().map(|&name| {
        let (is_required, schema, about) = of_query(name);
        json!({"name": name, "in": "query", "required": is_required, "schema": schema, "description": about})
    });
    let headers = of_headers(route).into_iter().map(|(name, schema, about)| {
        json!({"name": name, "in": "header", "required": false, "schema": schema, "description": about})
    });
    of_path(route)
        .into_iter()
        .chain(query)
        .chain(headers)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_patterns() {
        for (most, expected) in [
            (5, "0*(5|[0-4][0-9]{0})"),
            (1023, "0*(1023|10[0-1][0-9]{1}|102[0-2][0-9]{0}|[0-9]{1,3})"),
            (200, "0*(200|[0-1][0-9]{2}|[0-9]{1,2})"),
        ] {
            assert_eq!(up_to(most), expected);
        }
    }
}
