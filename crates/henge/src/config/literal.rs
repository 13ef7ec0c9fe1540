//! A scalar as a source gives it, and the trait by which a type becomes the type of a setting.
//!
//! A file says what a value is (`3` is an integer, `"3"` is a text); the environment and the command line do not, so
//! theirs is a kind of its own. Nothing here knows which settings exist or where a value stood.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use crate::access::hash::without_keys;

/// Found texts longer than this are cut in messages, so that an error stays a line that a person reads.
const FOUND_CHARS_MAX: usize = 60;

/// One scalar: what a source says, and what `config print` shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number, wide enough for all that TOML and JSON can write.
    Integer(i128),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A text that a file gives as a text.
    Text(String),
    /// What the environment or a flag gives: the setting's own type decides how it reads.
    Untyped(String),
    /// Something that no setting takes (an array, a date), by its name.
    Other(&'static str),
}

impl Literal {
    /// How the literal is named in an error, as in `found …`.
    pub fn found(&self) -> String {
        match self {
            Self::Boolean(boolean) => boolean.to_string(),
            Self::Integer(integer) => integer.to_string(),
            Self::Float(float) => format!("{float:?}"),
            Self::Text(text) => format!("the text {}", quoted(text)),
            Self::Untyped(text) => quoted(text),
            Self::Other(name) => (*name).to_owned(),
        }
    }

    /// The text of the literal, whether a file or the command line gave it.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Some(text),
            _ => None,
        }
    }

    /// The literal as TOML, and as JSON too: what settings consist of is written alike in both.
    pub fn render(&self) -> String {
        match self {
            Self::Boolean(boolean) => boolean.to_string(),
            Self::Integer(integer) => integer.to_string(),
            // The debug form keeps the ".0" by which TOML tells a float from an integer.
            Self::Float(float) => format!("{float:?}"),
            // A JSON string is also a TOML basic string; the reverse does not hold.
            Self::Text(text) | Self::Untyped(text) => {
                serde_json::Value::from(text.as_str()).to_string()
            }
            Self::Other(name) => serde_json::Value::from(*name).to_string(),
        }
    }
}

/// Text from a user, quoted for a one-line message: escaped, without API keys and the users of URLs, and cut when long.
pub(crate) fn quoted(text: &str) -> String {
    let text = &*without_keys(text);
    let text = &*without_user(text);
    if text.chars().count() <= FOUND_CHARS_MAX {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(FOUND_CHARS_MAX).collect();
    format!("{start:?}…")
}

/// A text without what is before the host of a URL, which may be a password, however little of a URL the rest is.
fn without_user(text: &str) -> Cow<'_, str> {
    let Some((user, host)) = text.rsplit_once('@') else {
        return Cow::Borrowed(text);
    };
    let (scheme, user) = match user.split_once("://") {
        Some((scheme, user)) => (format!("{scheme}://"), user),
        None => (String::new(), user),
    };
    if scheme.is_empty() && !user.contains(':') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{scheme}(hidden)@{host}"))
}

/// A type that a setting can have.
pub(crate) trait SettingValue: Sized {
    /// What limits the values of one setting: a range, or nothing.
    type Bounds;

    /// What is expected, as in `expected …`.
    fn expected(bounds: &Self::Bounds) -> String;

    /// The words that a value may be, for "did you mean".
    fn words() -> &'static [&'static str] {
        &[]
    }

    /// The value that the literal says; none when it is not what [`Self::expected`] describes.
    fn read(literal: &Literal, bounds: &Self::Bounds) -> Option<Self>;

    /// The literal from which [`Self::read`] makes this value again.
    fn literal(&self) -> Literal;
}

impl SettingValue for bool {
    type Bounds = ();

    fn expected((): &()) -> String {
        "true or false".to_owned()
    }

    fn words() -> &'static [&'static str] {
        &["true", "false"]
    }

    fn read(literal: &Literal, (): &()) -> Option<Self> {
        match literal {
            Literal::Boolean(boolean) => Some(*boolean),
            Literal::Untyped(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn literal(&self) -> Literal {
        Literal::Boolean(*self)
    }
}

impl SettingValue for u64 {
    type Bounds = RangeInclusive<u64>;

    fn expected(bounds: &Self::Bounds) -> String {
        format!("an integer from {} to {}", bounds.start(), bounds.end())
    }

    fn read(literal: &Literal, bounds: &Self::Bounds) -> Option<Self> {
        let value = match literal {
            Literal::Integer(integer) => u64::try_from(*integer).ok()?,
            Literal::Untyped(text) => text.parse().ok()?,
            _ => return None,
        };
        bounds.contains(&value).then_some(value)
    }

    fn literal(&self) -> Literal {
        Literal::Integer(i128::from(*self))
    }
}

impl SettingValue for f64 {
    type Bounds = RangeInclusive<f64>;

    fn expected(bounds: &Self::Bounds) -> String {
        format!("a number from {:?} to {:?}", bounds.start(), bounds.end())
    }

    fn read(literal: &Literal, bounds: &Self::Bounds) -> Option<Self> {
        let value = match literal {
            Literal::Integer(integer) => *integer as f64,
            Literal::Float(float) => *float,
            Literal::Untyped(text) => text.parse().ok()?,
            _ => return None,
        };
        // A range holds no NaN, so that is refused here as well.
        bounds.contains(&value).then_some(value)
    }

    fn literal(&self) -> Literal {
        Literal::Float(*self)
    }
}

/// A setting that may be unset. TOML has no null, so the word `none` says it in every source.
impl<T: SettingValue> SettingValue for Option<T> {
    type Bounds = T::Bounds;

    fn expected(bounds: &Self::Bounds) -> String {
        format!("{}, or \"none\"", T::expected(bounds))
    }

    fn words() -> &'static [&'static str] {
        T::words()
    }

    fn read(literal: &Literal, bounds: &Self::Bounds) -> Option<Self> {
        match literal.text() {
            Some(text) if text.eq_ignore_ascii_case("none") => Some(None),
            _ => T::read(literal, bounds).map(Some),
        }
    }

    fn literal(&self) -> Literal {
        self.as_ref()
            .map_or_else(|| Literal::Text("none".to_owned()), T::literal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::hash::NewKey;

    #[test]
    fn no_user_of_a_url_is_quoted() {
        for (text, expected) in [
            ("http://user:word@host/v1", "\"http://(hidden)@host/v1\""),
            ("https://a@b@host", "\"https://(hidden)@host\""),
            ("user:word@host:4318", "\"(hidden)@host:4318\""),
            ("http://user:wo/rd@host", "\"http://(hidden)@host\""),
            ("a://x,http://u:p@h", "\"a://(hidden)@h\""),
            ("a@b", "\"a@b\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn no_key_is_quoted() {
        let key = NewKey::draw().text;
        for text in [
            key.clone(),
            format!("x {key}"),
            format!("{key}, {}", "y".repeat(99)),
        ] {
            let quoted = quoted(&text);
            assert!(
                quoted.contains("(hidden)") && !quoted.contains(&key[20..]),
                "{quoted}"
            );
        }
    }
}
