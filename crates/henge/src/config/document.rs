//! A configuration file's text, TOML or JSON, as a flat list of what it sets and where each stands.
//!
//! Both formats come out as the same [`Entry`] list, so that the rest of the configuration knows no formats. Nothing
//! here knows which sections or keys exist; it refuses only what is no valid document of sections and keys: bad
//! syntax, a key set twice, a value outside any section's reach.

use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};

use super::literal::{Literal, quoted};

/// The formats of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    Json,
}

/// A place in a file, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    /// The place of a byte of the text.
    pub(super) fn of(text: &[u8], offset: usize) -> Self {
        let before = &text[..offset.min(text.len())];
        let (mut line, mut line_text) = (0, before);
        for part in before.split(|byte| *byte == b'\n') {
            (line, line_text) = (line + 1, part);
        }
        Self {
            line,
            column: 1 + String::from_utf8_lossy(line_text).chars().count(),
        }
    }
}

/// What is wrong with a document, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: Position,
    pub(super) message: String,
}

/// One thing that a document says, in the order of the text.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) section: String,
    /// None for what stands where a section should: `cache = 3`.
    pub(super) key: Option<String>,
    pub(super) literal: Literal,
    /// Where the name stands; an unknown name is reported here.
    pub(super) name_at: Position,
    /// Where the value stands; a wrong value is reported here.
    pub(super) value_at: Position,
}

/// Reads a document of sections of keys. A section that is there and empty gives no entries.
pub(super) fn parse(text: &str, format: Format) -> Result<Vec<Entry>, Fault> {
    let mut entries = match format {
        Format::Toml => parse_toml(text)?,
        Format::Json => parse_json(text)?,
    };
    entries.sort_by_key(|entry| entry.name_at);
    Ok(entries)
}

fn parse_toml(text: &str) -> Result<Vec<Entry>, Fault> {
    let document = DeTable::parse(text).map_err(|error| Fault {
        at: Position::of(text.as_bytes(), error.span().map_or(0, |span| span.start)),
        message: one_line(error.message()),
    })?;
    let at = |span: Range<usize>| Position::of(text.as_bytes(), span.start);
    let mut entries = Vec::new();
    for (section, body) in document.get_ref() {
        let DeValue::Table(table) = body.get_ref() else {
            entries.push(Entry {
                section: section.get_ref().clone().into_owned(),
                key: None,
                literal: toml_literal(body.get_ref()),
                name_at: at(section.span()),
                value_at: at(body.span()),
            });
            continue;
        };
        for (key, value) in table {
            entries.push(Entry {
                section: section.get_ref().clone().into_owned(),
                key: Some(key.get_ref().clone().into_owned()),
                literal: toml_literal(value.get_ref()),
                name_at: at(key.span()),
                value_at: at(value.span()),
            });
        }
    }
    Ok(entries)
}

fn toml_literal(value: &DeValue<'_>) -> Literal {
    match value {
        DeValue::String(text) => Literal::Text(text.clone().into_owned()),
        DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
            .map_or(
                Literal::Other("an integer of too many digits"),
                Literal::Integer,
            ),
        DeValue::Float(float) => float
            .as_str()
            .parse()
            .map_or(Literal::Other("a float that is no number"), Literal::Float),
        DeValue::Boolean(boolean) => Literal::Boolean(*boolean),
        DeValue::Datetime(_) => Literal::Other("a date or a time"),
        DeValue::Array(_) => Literal::Other("an array"),
        DeValue::Table(_) => Literal::Other("a table"),
    }
}

/// The pairs of a JSON object in order, duplicates included, values unread. A value borrows from the text, and so tells
/// where it stands.
struct JsonObject<'de>(Vec<(String, &'de RawValue)>);

impl<'de> Deserialize<'de> for JsonObject<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = JsonObject<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(JsonObject(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

fn parse_json(text: &str) -> Result<Vec<Entry>, Fault> {
    let mut entries = Vec::new();
    for (section, body) in json_pairs(text, text)? {
        if !body.raw.starts_with('{') {
            entries.push(Entry {
                section,
                key: None,
                literal: json_literal(text, body.raw)?,
                name_at: body.name_at,
                value_at: Position::of(text.as_bytes(), offset_in(text, body.raw)),
            });
            continue;
        }
        for (key, value) in json_pairs(text, body.raw)? {
            entries.push(Entry {
                section: section.clone(),
                key: Some(key),
                literal: json_literal(text, value.raw)?,
                name_at: value.name_at,
                value_at: Position::of(text.as_bytes(), offset_in(text, value.raw)),
            });
        }
    }
    Ok(entries)
}

/// A value of a JSON object, unread, and where its name stands.
struct JsonValue<'de> {
    raw: &'de str,
    name_at: Position,
}

/// The pairs of the object that is `part` of `text`; a name that occurs twice is a fault.
fn json_pairs<'de>(text: &'de str, part: &'de str) -> Result<Vec<(String, JsonValue<'de>)>, Fault> {
    let JsonObject(pairs) =
        serde_json::from_str(part).map_err(|error| json_fault(text, part, &error))?;
    let mut found: Vec<(String, JsonValue<'de>)> = Vec::with_capacity(pairs.len());
    // Between the opening brace, or the value before, and a name there is nothing but blanks and a comma, so the next
    // quote opens the name.
    let mut name_from = offset_in(text, part);
    for (name, raw) in pairs {
        let name_offset = name_from + text[name_from..].find('"').unwrap_or(0);
        let name_at = Position::of(text.as_bytes(), name_offset);
        name_from = offset_in(text, raw.get()) + raw.get().len();
        if found.iter().any(|(other, _)| *other == name) {
            return Err(Fault {
                at: name_at,
                message: format!("duplicate key {}", quoted(&name)),
            });
        }
        found.push((
            name,
            JsonValue {
                raw: raw.get(),
                name_at,
            },
        ));
    }
    Ok(found)
}

fn json_literal(text: &str, raw: &str) -> Result<Literal, Fault> {
    // Looked at before it is parsed: nothing that a setting takes nests, so how deep it goes is of no interest.
    match raw.as_bytes().first() {
        Some(b'[') => return Ok(Literal::Other("an array")),
        Some(b'{') => return Ok(Literal::Other("an object")),
        Some(b'n') => return Ok(Literal::Other("null")),
        _ => {}
    }
    let value: serde_json::Value =
        serde_json::from_str(raw).map_err(|error| json_fault(text, raw, &error))?;
    Ok(match value {
        serde_json::Value::Bool(boolean) => Literal::Boolean(boolean),
        serde_json::Value::String(text) => Literal::Text(text),
        serde_json::Value::Number(number) => match (number.as_i128(), number.as_f64()) {
            (Some(integer), _) => Literal::Integer(integer),
            (None, Some(float)) => Literal::Float(float),
            (None, None) => Literal::Other("a number out of range"),
        },
        _ => Literal::Other("a value of several parts"),
    })
}

/// An error of `serde_json` about `part` of the text, placed in the whole text.
fn json_fault(text: &str, part: &str, error: &serde_json::Error) -> Fault {
    let start = Position::of(text.as_bytes(), offset_in(text, part));
    // serde_json counts a column of 0 where it has read nothing of the line.
    let column = error.column().max(1);
    let at = match error.line() {
        0 | 1 => Position {
            line: start.line,
            column: start.column + column - 1,
        },
        line => Position {
            line: start.line + line - 1,
            column,
        },
    };
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    Fault {
        at,
        message: one_line(message.strip_suffix(&position).unwrap_or(&message)),
    }
}

/// Where a slice of `text` begins in it.
fn offset_in(text: &str, slice: &str) -> usize {
    let offset = slice.as_ptr().addr().wrapping_sub(text.as_ptr().addr());
    assert!(offset <= text.len(), "the slice is not of this text");
    offset
}

/// A parser's message as part of one line.
fn one_line(message: &str) -> String {
    message
        .split('\n')
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(text: &str, format: Format) -> Vec<String> {
        let at = |position: Position| format!("{}:{}", position.line, position.column);
        match parse(text, format) {
            Err(fault) => vec![format!("{}: {}", at(fault.at), fault.message)],
            Ok(entries) => entries
                .iter()
                .map(|entry| {
                    let key = entry.key.as_deref().unwrap_or("-");
                    let (name_at, value_at) = (at(entry.name_at), at(entry.value_at));
                    format!(
                        "{name_at} {}.{key} = {value_at} {}",
                        entry.section,
                        entry.literal.found()
                    )
                })
                .collect(),
        }
    }

    #[test]
    fn toml_documents() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("[cache]\n", &[]),
            (
                "# é\n[cache]\nmax_items = 3\npolicy = \"lfu\" # why\n\n[log]\nlevel='warn'\n",
                &[
                    "3:1 cache.max_items = 3:13 3",
                    "4:1 cache.policy = 4:10 the text \"lfu\"",
                    "7:1 log.level = 7:7 the text \"warn\"",
                ],
            ),
            (
                "cache.max_items = 1_000",
                &["1:7 cache.max_items = 1:19 1000"],
            ),
            (
                "cache = { max_items = 0x10 }",
                &["1:11 cache.max_items = 1:23 16"],
            ),
            ("cache = 3", &["1:1 cache.- = 1:9 3"]),
            (
                "[cache.max_items]\nx = 1",
                &["1:8 cache.max_items = 1:1 a table"],
            ),
            (
                "[a]\nb = [1]\nc = 1979-05-27\nd = 1e3\ne = true\nf = nan",
                &[
                    "2:1 a.b = 2:5 an array",
                    "3:1 a.c = 3:5 a date or a time",
                    "4:1 a.d = 4:5 1000.0",
                    "5:1 a.e = 5:5 true",
                    "6:1 a.f = 6:5 NaN",
                ],
            ),
            ("[a]\nb = 1\nb = 2", &["3:1: duplicate key"]),
            ("[a]\nb = 1\n[a]\nc = 2", &["3:2: duplicate key"]),
        ];
        for (text, expected) in cases {
            assert_eq!(summary(text, Format::Toml), *expected, "{text}");
        }
    }

    #[test]
    fn json_documents() {
        let cases: &[(&str, &[&str])] = &[
            ("{}", &[]),
            (" {\"cache\": {}}\n", &[]),
            (
                "{\n  \"cache\": {\n    \"max_items\": 3,\n    \"policy\" :\n      \"lfu\"\n  },\n  \"log\": {\"é\": 1, \"x\": -2.5}\n}",
                &[
                    "3:5 cache.max_items = 3:18 3",
                    "4:5 cache.policy = 5:7 the text \"lfu\"",
                    "7:11 log.é = 7:16 1",
                    "7:19 log.x = 7:24 -2.5",
                ],
            ),
            ("{\"cache\": 3}", &["1:2 cache.- = 1:11 3"]),
            (
                "{\"a\": {\"\\u0062\": null, \"c\": [[]], \"d\": {}, \"e\": false}}",
                &[
                    "1:8 a.b = 1:18 null",
                    "1:24 a.c = 1:29 an array",
                    "1:35 a.d = 1:40 an object",
                    "1:44 a.e = 1:49 false",
                ],
            ),
            (
                "{\"a\": {\"b\": 1,\n \"b\": 2}}",
                &["2:2: duplicate key \"b\""],
            ),
            ("{\"a\": {},\n\"a\": {}}", &["2:1: duplicate key \"a\""]),
            ("[1]", &["1:1: invalid type: sequence, expected an object"]),
            ("{\"a\": {\n\"b\": 1,\n}}", &["3:1: key must be a string"]),
            ("{\"a\": {}} x", &["1:11: trailing characters"]),
            ("{\n\"a\": {\"b\": 1e999}}", &["2:16: number out of range"]),
        ];
        for (text, expected) in cases {
            assert_eq!(summary(text, Format::Json), *expected, "{text}");
        }
    }

    #[test]
    fn deep_nesting_overflows_nothing() {
        let deep = 100_000;
        let json = format!(
            "{{\"a\": {{\"b\": {}{}}}}}",
            "[".repeat(deep),
            "]".repeat(deep)
        );
        assert_eq!(summary(&json, Format::Json), ["1:8 a.b = 1:13 an array"]);
        let toml = format!("[a]\nb = {}{}", "[".repeat(deep), "]".repeat(deep));
        assert!(
            parse(&toml, Format::Toml).is_err(),
            "the parser bounds its recursion"
        );
    }
}
