//! What web pages of other origins may do, as the settings of CORS have it: origins, and lists of methods and headers.

use std::fmt;
use std::str::FromStr;

use super::literal::{Literal, SettingValue};
use super::types::InvalidValue;

/// As many origins as a page has room for; each is compared with that of a request.
const MOST: usize = 64;
/// The longest of them, and the longest name of a header.
const MOST_BYTES: usize = 256;

/// Origins of web pages: none, some, or any.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Origins {
    /// No page of another origin.
    #[default]
    None,
    /// Pages of these, such as `https://console.example`.
    Listed(Vec<String>),
    /// Any page.
    Any,
}

impl Origins {
    const NONE: &str = "none";
    const ANY: &str = "*";

    /// Whether a page of this origin is meant.
    pub fn has(&self, origin: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::Listed(listed) => listed.iter().any(|one| one.as_bytes() == origin),
            Self::Any => true,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            Self::NONE => return Some(Self::None),
            Self::ANY => return Some(Self::Any),
            _ => {}
        }
        let all: Option<Vec<String>> = text.split(',').map(origin).collect();
        all.filter(|all| all.len() <= MOST).map(Self::Listed)
    }
}

/// An origin as browsers send it: a scheme, a host in lower case, and a port if it is another than the scheme's.
fn origin(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))?;
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    let is_one = !host.is_empty() && text.len() <= MOST_BYTES && host.bytes().all(is_fit);
    // The port of the scheme is not sent.
    let usual = if text.starts_with("https://") {
        ":443"
    } else {
        ":80"
    };
    let sent = text.strip_suffix(usual).unwrap_or(&text);
    is_one.then(|| sent.to_owned())
}

impl FromStr for Origins {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text).ok_or_else(|| InvalidValue::new(text, Self::expected(&())))
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str(Self::NONE),
            Self::Any => f.write_str(Self::ANY),
            Self::Listed(listed) => f.write_str(&listed.join(",")),
        }
    }
}

impl SettingValue for Origins {
    type Bounds = ();

    fn expected((): &()) -> String {
        format!(
            "up to {MOST} origins with commas between them, such as https://console.example, or \"{}\" for any, or \"{}\"",
            Self::ANY,
            Self::NONE
        )
    }

    fn words() -> &'static [&'static str] {
        &[Self::NONE, Self::ANY]
    }

    fn read(literal: &Literal, (): &()) -> Option<Self> {
        Self::parse(literal.text()?)
    }

    fn literal(&self) -> Literal {
        Literal::Text(self.to_string())
    }
}

/// The methods that a page may be allowed, as RFC 9110 (9.1) has them: no header is called so.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"];

/// Names of methods or of headers, with commas between them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tokens(String);

impl Tokens {
    pub(super) fn new(text: &str) -> Self {
        Self::parse(text).expect("a default is one")
    }

    /// As a header has them.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        // What RFC 9110 (5.6.2) has for a token.
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_token = |token: &&str| {
            !token.is_empty() && token.len() <= MOST_BYTES && token.bytes().all(is_fit)
        };
        let tokens: Vec<&str> = text.split(',').map(str::trim).collect();
        // To browsers `get` is no method, and would be a name that allows nothing.
        let is_misspelt = |token: &&str| {
            let upper = token.to_ascii_uppercase();
            METHODS.contains(&&*upper) && upper != *token
        };
        let are_fit =
            tokens.len() <= MOST && tokens.iter().all(is_token) && !tokens.iter().any(is_misspelt);
        are_fit.then(|| Self(tokens.join(", ")))
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SettingValue for Tokens {
    type Bounds = ();

    fn expected((): &()) -> String {
        format!("up to {MOST} names with commas between them, those of methods in capital letters")
    }

    fn read(literal: &Literal, (): &()) -> Option<Self> {
        Self::parse(literal.text()?)
    }

    fn literal(&self) -> Literal {
        Literal::Text(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_origins_there_are() {
        for (text, shown) in [
            ("none", Some("none")),
            ("*", Some("*")),
            ("https://a.example", Some("https://a.example")),
            (
                "https://A.example/, http://b:8080",
                Some("https://a.example,http://b:8080"),
            ),
            ("http://[::1]:80", Some("http://[::1]")),
            ("https://a.example:443", Some("https://a.example")),
            ("https://a.example:80", Some("https://a.example:80")),
            ("", None),
            ("a.example", None),
            ("https://", None),
            ("https://a/b", None),
            ("https://a,*", None),
            ("ftp://a", None),
            ("https://a b", None),
        ] {
            let read = text.parse::<Origins>().ok();
            assert_eq!(read.map(|one| one.to_string()).as_deref(), shown, "{text}");
        }
        let two: Origins = "https://a.example,http://b:8080".parse().expect("they are");
        for (origin, expected) in [
            ("https://a.example", true),
            ("http://b:8080", true),
            ("http://a.example", false),
            ("https://a.example.evil", false),
            ("http://b", false),
            ("null", false),
        ] {
            assert_eq!(two.has(origin.as_bytes()), expected, "{origin}");
        }
        assert!(Origins::Any.has(b"null") && !Origins::None.has(b"null"));
    }

    #[test]
    fn which_names_there_are() {
        for (text, shown) in [
            ("GET,POST", Some("GET, POST")),
            ("x-ttl , if-match", Some("x-ttl, if-match")),
            ("PURGE", Some("PURGE")),
            ("get", None),
            ("GET, Post", None),
            ("GET,", None),
            ("a b", None),
        ] {
            let read = Tokens::parse(text);
            assert_eq!(read.as_ref().map(Tokens::as_str), shown, "{text}");
        }
    }
}
