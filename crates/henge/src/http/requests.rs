//! The bodies of requests, read strictly: an unknown or repeated member, or one of another type, is an error that says
//! where. What the members mean together is checked here too, once; after that there are only keys, values and conditions.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use henge_wire::{MAX_KEY_BYTES, Version};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::problem::{Code, Problem};

/// Names one key: by its text, or by its bytes in base64.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRequest {
    key: Option<String>,
    key_base64: Option<String>,
}

/// A value to store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetRequest<'a> {
    key: Option<String>,
    key_base64: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Value)]
    value: Option<&'a RawValue>,
    value_base64: Option<String>,
    pub(crate) ttl: Option<f64>,
    #[serde(default)]
    nx: bool,
    #[serde(default)]
    xx: bool,
    if_version: Option<String>,
    #[serde(default)]
    pub(crate) keep_ttl: bool,
}

/// Values to store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MsetRequest<'a> {
    #[serde(borrow)]
    #[schema(value_type = Vec<SetRequest>)]
    pub(crate) items: Vec<SetRequest<'a>>,
}

/// Names many keys.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysRequest {
    #[schema(value_type = Vec<Value>)]
    pub(crate) keys: Vec<NamedKey>,
}

/// What to add to a counter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IncrRequest {
    key: Option<String>,
    key_base64: Option<String>,
    pub(crate) by: Option<i64>,
    pub(crate) initial: Option<i64>,
    pub(crate) ttl: Option<f64>,
}

/// A new lifetime.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpireRequest {
    key: Option<String>,
    key_base64: Option<String>,
    pub(crate) ttl: Option<f64>,
}

/// A page of a scan.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScanRequest {
    pub(crate) prefix: Option<String>,
    pub(crate) cursor: Option<String>,
    pub(crate) limit: Option<u64>,
}

/// A member that is there, be it null: that is a JSON value too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// One of many keys: a string, or an object that names one.
#[derive(Debug)]
pub(crate) struct NamedKey(KeyRequest);

impl<'de> Deserialize<'de> for NamedKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An untagged enum would do this too, but forget line and column.
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = NamedKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key, or an object with key or key_base64")
            }

            fn visit_str<E>(self, key: &str) -> Result<NamedKey, E> {
                Ok(NamedKey(KeyRequest {
                    key: Some(key.to_owned()),
                    key_base64: None,
                }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NamedKey, A::Error> {
                KeyRequest::deserialize(MapAccessDeserializer::new(map)).map(NamedKey)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Reads a body as JSON.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    if body.trim_ascii().is_empty() {
        return Err(Problem::new(
            Code::InvalidJson,
            "the body is empty; expected a JSON object",
        ));
    }
    serde_json::from_slice(body).map_err(|error| Problem::new(Code::InvalidJson, error.to_string()))
}

/// The key that a request names, and no longer than keys may be.
pub(crate) fn key(key: Option<String>, key_base64: Option<String>) -> Result<Vec<u8>, Problem> {
    let key = match (key, key_base64) {
        (Some(_), Some(_)) => return Err(both_keys()),
        (None, None) => return Err(no_key()),
        (Some(key), None) => key.into_bytes(),
        (None, Some(text)) => base64("key_base64", text.as_bytes())?,
    };
    check_key(&key)?;
    Ok(key)
}

/// The key of a query string: as above.
pub(crate) fn query_key<'q>(
    key: Option<Cow<'q, [u8]>>,
    key_base64: Option<Cow<'q, [u8]>>,
) -> Result<Cow<'q, [u8]>, Problem> {
    let key = match (key, key_base64) {
        (Some(_), Some(_)) => return Err(both_keys()),
        (None, None) => return Err(no_key()),
        (Some(key), None) => key,
        (None, Some(text)) => Cow::Owned(base64("key_base64", &text)?),
    };
    check_key(&key)?;
    Ok(key)
}

fn both_keys() -> Problem {
    Problem::new(Code::KeyConflict, "give key or key_base64, not both")
}

fn no_key() -> Problem {
    Problem::new(Code::KeyMissing, "expected key or key_base64")
}

/// Refuses a key that is too long.
pub(crate) fn check_key(key: &[u8]) -> Result<(), Problem> {
    if key.len() <= MAX_KEY_BYTES {
        return Ok(());
    }
    let detail = format!(
        "the key has {} bytes; the most is {MAX_KEY_BYTES}",
        key.len()
    );
    Err(Problem::new(Code::KeyTooLong, detail))
}

/// Decodes base64 of either alphabet, padded or not: what the many encoders of the world make.
fn base64(name: &str, text: &[u8]) -> Result<Vec<u8>, Problem> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);
    let url_safe = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = if url_safe { URL_SAFE } else { STANDARD };
    engine
        .decode(text)
        .map_err(|error| Problem::new(Code::InvalidBase64, format!("{name}: {error}")))
}

impl KeyRequest {
    pub(crate) fn into_key(self) -> Result<Vec<u8>, Problem> {
        key(self.key, self.key_base64)
    }
}

impl NamedKey {
    pub(crate) fn into_key(self) -> Result<Vec<u8>, Problem> {
        self.0.into_key()
    }
}

impl IncrRequest {
    pub(crate) fn take_key(&mut self) -> Result<Vec<u8>, Problem> {
        key(self.key.take(), self.key_base64.take())
    }
}

impl ExpireRequest {
    pub(crate) fn take_key(&mut self) -> Result<Vec<u8>, Problem> {
        key(self.key.take(), self.key_base64.take())
    }
}

/// A value as a request holds it.
#[derive(Debug)]
pub(crate) struct GivenValue<'a> {
    pub(crate) bytes: Cow<'a, [u8]>,
    /// It is the text of a JSON value that is no string.
    pub(crate) json: bool,
}

/// The conditions of a set, consistent with each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SetCondition {
    None,
    Absent,
    Present,
    AtVersion(Version),
}

impl<'a> SetRequest<'a> {
    pub(crate) fn take_key(&mut self) -> Result<Vec<u8>, Problem> {
        key(self.key.take(), self.key_base64.take())
    }

    pub(crate) fn take_value(&mut self) -> Result<GivenValue<'a>, Problem> {
        match (self.value, self.value_base64.take()) {
            (Some(_), Some(_)) => Err(Problem::new(
                Code::ValueConflict,
                "give value or value_base64, not both",
            )),
            (None, None) => Err(Problem::new(
                Code::ValueMissing,
                "expected value or value_base64",
            )),
            (None, Some(text)) => Ok(GivenValue {
                bytes: Cow::Owned(base64("value_base64", text.as_bytes())?),
                json: false,
            }),
            (Some(raw), None) => json_value(raw),
        }
    }

    pub(crate) fn condition(&self) -> Result<SetCondition, Problem> {
        let version = match &self.if_version {
            None => None,
            Some(text) => Some(text.parse::<Version>().map_err(|error| {
                Problem::new(Code::InvalidVersion, format!("if_version: {error}"))
            })?),
        };
        let contradiction = match (self.nx, self.xx, version) {
            (true, true, _) => "nx and xx",
            (true, _, Some(_)) => "nx and if_version",
            (true, false, None) => return Ok(SetCondition::Absent),
            // xx says no more than if_version does.
            (false, _, Some(version)) => return Ok(SetCondition::AtVersion(version)),
            (false, true, None) => return Ok(SetCondition::Present),
            (false, false, None) => return Ok(SetCondition::None),
        };
        let detail = format!("{contradiction} can never hold together");
        Err(Problem::new(Code::InvalidPrecondition, detail))
    }
}

fn json_value(raw: &RawValue) -> Result<GivenValue<'_>, Problem> {
    let text = raw.get();
    let Some(inner) = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
    else {
        return Ok(GivenValue {
            bytes: Cow::Borrowed(text.as_bytes()),
            json: true,
        });
    };
    // Without a backslash nothing in it is escaped, and it need not be copied.
    let bytes = if inner.contains('\\') {
        let string: String = serde_json::from_str(text).map_err(|error| {
            Problem::new(
                Code::InvalidValue,
                format!("in the string of value: {error}"),
            )
        })?;
        Cow::Owned(string.into_bytes())
    } else {
        Cow::Borrowed(inner.as_bytes())
    };
    Ok(GivenValue { bytes, json: false })
}
