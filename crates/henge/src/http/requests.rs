//! The bodies of requests, read strictly: an unknown or repeated member, or one of another type, is an error that says
//! where, in words of JSON and not of Rust. Batches are counted while they are read. What the members mean together is checked here too, once; after that there are only keys, values and conditions.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use henge_wire::{MAX_KEY_BYTES, Version};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
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
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    value_base64: Option<Text<'a>>,
    #[serde(default, deserialize_with = "seconds")]
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
#[derive(Debug, ToSchema)]
pub(crate) struct MsetRequest<'a> {
    #[schema(value_type = Vec<SetRequest>)]
    pub(crate) items: Vec<SetRequest<'a>>,
}

/// Names many keys.
#[derive(Debug, ToSchema)]
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
    #[serde(default, deserialize_with = "integer")]
    pub(crate) by: Option<i64>,
    #[serde(default, deserialize_with = "integer")]
    pub(crate) initial: Option<i64>,
    #[serde(default, deserialize_with = "seconds")]
    pub(crate) ttl: Option<f64>,
}

/// A new lifetime.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpireRequest {
    key: Option<String>,
    key_base64: Option<String>,
    #[serde(default, deserialize_with = "seconds")]
    pub(crate) ttl: Option<f64>,
}

/// A page of a scan.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScanRequest {
    prefix: Option<String>,
    prefix_base64: Option<String>,
    pub(crate) cursor: Option<String>,
    #[serde(default, deserialize_with = "count")]
    pub(crate) limit: Option<u64>,
}

/// A member that is there, be it null: that is a JSON value too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A string that is borrowed if nothing in it is escaped. Serde would copy a `Cow` within an `Option`.
#[derive(Debug)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowing;
        impl<'de> Visitor<'de> for Borrowing {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrowing)
    }
}

/// A number that may be null, told from the JSON as it stands: what serde reads numbers with names Rust's types to clients.
struct Number<T> {
    expected: &'static str,
    whole: fn(i128) -> Option<T>,
    fraction: fn(f64) -> Option<T>,
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    deserializer.deserialize_any(Number {
        expected: "a number",
        whole: |number| Some(number as f64),
        fraction: Some,
    })
}

fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    deserializer.deserialize_any(Number {
        expected: "a whole number of 64 bits",
        whole: |number| number.try_into().ok(),
        fraction: |number| without_fraction(number)?.try_into().ok(),
    })
}

fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_any(Number {
        expected: "a whole number from 0 up",
        whole: |number| number.try_into().ok(),
        fraction: |number| without_fraction(number)?.try_into().ok(),
    })
}

/// A number that was written with a fraction, or an exponent, and is a whole one all the same: JSON knows one kind of numbers, and
/// libraries write `2.0` for one that they keep as a float.
fn without_fraction(number: f64) -> Option<i128> {
    (number.fract() == 0.0 && number.abs() < ROUNDED_FROM).then_some(number as i128)
}

/// From here on what is read of such a number may be another whole one than was written. It is less than 2^53, as the parser rounds
/// more than once.
const ROUNDED_FROM: f64 = 1_000_000_000_000_000.0;

impl<T> Visitor<'_> for Number<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<T>, E> {
        let unexpected = || E::invalid_value(Unexpected::Unsigned(number), &self);
        (self.whole)(number.into()).ok_or_else(unexpected).map(Some)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<T>, E> {
        let unexpected = || E::invalid_value(Unexpected::Signed(number), &self);
        (self.whole)(number.into()).ok_or_else(unexpected).map(Some)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Option<T>, E> {
        let unexpected = || {
            let number_there = Unexpected::Float(number);
            if number.abs() < ROUNDED_FROM {
                return E::invalid_value(number_there, &self);
            }
            let expected = format!(
                "{}, which from {ROUNDED_FROM} on is written without a fraction or an exponent",
                self.expected
            );
            E::invalid_value(number_there, &&*expected)
        };
        (self.fraction)(number).ok_or_else(unexpected).map(Some)
    }
}

/// What a body is: an object. Structs that serde derives would also be read from a list of their members in order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(AN_OBJECT)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// What is expected of a body, and of each of the items in it.
const AN_OBJECT: &str = "an object like {\"key\":…}";

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

/// The one list that a batch is: counted while it is read, since ninety megabytes of `{}` are gigabytes of items.
struct Batch<'c, T> {
    /// The member that holds it.
    name: &'static str,
    most: usize,
    /// Set when it holds more: that is an error of its own, not one of JSON.
    exceeded: &'c Cell<bool>,
    item: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Batch<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object like {{\"{}\":[…]}}", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<T>, A::Error> {
        let mut items = None;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            if name != self.name {
                let expected = self.name;
                return Err(A::Error::custom(format_args!(
                    "unknown field `{name}`, expected `{expected}`"
                )));
            }
            if items.is_some() {
                return Err(A::Error::duplicate_field(self.name));
            }
            items = Some(map.next_value_seed(List(&self))?);
        }
        items.ok_or_else(|| A::Error::missing_field(self.name))
    }
}

struct List<'b, 'c, T>(&'b Batch<'c, T>);

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for List<'_, '_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<'_, '_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() == self.0.most {
                self.0.exceeded.set(true);
                return Err(A::Error::custom("the batch holds too many"));
            }
            items.push(item);
        }
        Ok(items)
    }
}

fn batch<'a, T: Deserialize<'a>>(
    body: &'a [u8],
    name: &'static str,
    most: usize,
) -> Result<Vec<T>, Problem> {
    let exceeded = Cell::new(false);
    let batch = Batch {
        name,
        most,
        exceeded: &exceeded,
        item: PhantomData,
    };
    let read = read(body, |deserializer| deserializer.deserialize_map(batch));
    if exceeded.get() {
        let detail = format!("{name} holds more than limits.max_batch_items, {most}");
        return Err(Problem::new(Code::BatchTooLarge, detail));
    }
    read
}

impl<'a> MsetRequest<'a> {
    /// Reads at most so many items.
    pub(crate) fn parse(body: &'a [u8], most: usize) -> Result<Self, Problem> {
        let items: Vec<Object<_>> = batch(body, "items", most)?;
        let items = items.into_iter().map(|Object(item)| item).collect();
        Ok(Self { items })
    }
}

impl KeysRequest {
    /// Reads at most so many keys.
    pub(crate) fn parse(body: &[u8], most: usize) -> Result<Self, Problem> {
        let keys = batch(body, "keys", most)?;
        Ok(Self { keys })
    }
}

/// Reads a body as JSON.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    read(body, |deserializer| Object::deserialize(deserializer)).map(|Object(request)| request)
}

/// Reads a body, and that nothing comes after.
fn read<'a, T>(
    body: &'a [u8],
    as_what: impl FnOnce(&mut JsonReader<'a>) -> Result<T, serde_json::Error>,
) -> Result<T, Problem> {
    if body.trim_ascii().is_empty() {
        return Err(Problem::new(
            Code::InvalidJson,
            "the body is empty; expected a JSON object",
        ));
    }
    let mut reader = JsonReader::from_slice(body);
    as_what(&mut reader)
        .and_then(|read| reader.end().map(|()| read))
        .map_err(|error| Problem::new(Code::InvalidJson, error.to_string()))
}

type JsonReader<'a> = serde_json::Deserializer<serde_json::de::SliceRead<'a>>;

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

impl ScanRequest {
    /// What the keys begin with; every key does with nothing.
    pub(crate) fn take_prefix(&mut self) -> Result<Vec<u8>, Problem> {
        match (self.prefix.take(), self.prefix_base64.take()) {
            (Some(_), Some(_)) => Err(Problem::new(
                Code::KeyConflict,
                "give prefix or prefix_base64, not both",
            )),
            (None, Some(text)) => base64("prefix_base64", text.as_bytes()),
            (prefix, None) => Ok(prefix.unwrap_or_default().into_bytes()),
        }
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

    /// The most bytes that the value may have once it is decoded.
    pub(crate) fn value_len_bound(&self) -> usize {
        let plain = self.value.map_or(0, |raw| raw.get().len());
        let base64 = self.value_base64.as_ref().map_or(0, |text| text.0.len());
        plain + base64.div_ceil(4) * 3
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
                bytes: Cow::Owned(base64("value_base64", text.0.as_bytes())?),
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
        check_nested(text.as_bytes())?;
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

/// How deep a JSON value may be nested. Many parsers, serde's too, stop at 128, and `/mget` puts three levels around it.
const MAX_DEPTH: usize = 124;

/// Refuses what is JSON by its grammar, which is all that was checked of a value kept as text, and which clients still could
/// not read when it comes back.
fn check_nested(json: &[u8]) -> Result<(), Problem> {
    let mut depth = 0_usize;
    let mut rest = json;
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let detail =
                        format!("the value is nested deeper than {MAX_DEPTH}, which is the most");
                    return Err(Problem::new(Code::InvalidValue, detail));
                }
            }
            b']' | b'}' => depth -= 1,
            b'"' => rest = after_string(after)?,
            _ => {}
        }
    }
    Ok(())
}

/// What follows a string, of which this is the part after its first quote. It is complete, so no byte that is looked for is
/// absent.
fn after_string(mut rest: &[u8]) -> Result<&[u8], Problem> {
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'u', after @ ..] => match code_unit(after) {
                0xd800..=0xdbff => match &after[4..] {
                    [b'\\', b'u', low @ ..] if (0xdc00..=0xdfff).contains(&code_unit(low)) => {
                        &low[4..]
                    }
                    _ => return Err(lone_surrogate()),
                },
                0xdc00..=0xdfff => return Err(lone_surrogate()),
                _ => &after[4..],
            },
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
            [] => unreachable!("the string was read before, with its end"),
        }
    }
}

/// The four hexadecimal digits of a `\u`.
fn code_unit(digits: &[u8]) -> u32 {
    let digit = |&byte: &u8| char::from(byte).to_digit(16).expect("it was read before");
    digits[..4]
        .iter()
        .fold(0, |unit, byte| unit * 16 + digit(byte))
}

fn lone_surrogate() -> Problem {
    Problem::new(
        Code::InvalidValue,
        "a string within value has half of a surrogate pair",
    )
}
