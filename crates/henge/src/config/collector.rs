//! Where traces are sent: the URL of a collector that takes OTLP over HTTP. It resolves nothing and connects to nothing.

use std::fmt;
use std::str::FromStr;

use http::Uri;

use super::literal::{Literal, SettingValue};
use super::types::InvalidValue;

/// The longest URL: as long as a line that an operator would still read.
const MOST_BYTES: usize = 1024;
/// The path for traces, as the specification of OTLP has it (1.5, "OTLP/HTTP Request"), where a URL names none.
const PATH: &str = "/v1/traces";
/// The port of HTTP.
const PORT: u16 = 80;

/// A URL of a collector, such as `http://127.0.0.1:4318/v1/traces`.
///
/// Not over TLS: there is no authority that a node trusts by itself, and a collector mostly runs beside it, which speaks TLS to whoever
/// is farther away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CollectorUrl(Uri);

impl CollectorUrl {
    /// Whom to connect to.
    pub(crate) fn host_and_port(&self) -> (&str, u16) {
        let host = self.0.host().unwrap_or_default();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        (bare.unwrap_or(host), self.0.port_u16().unwrap_or(PORT))
    }

    /// As a log may have it: without its query, where a token may be.
    pub(crate) fn for_a_log(&self) -> String {
        let mut shown = self.0.to_string();
        shown.truncate(shown.find('?').unwrap_or(shown.len()));
        shown
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() > MOST_BYTES || text.contains('#') {
            return None;
        }
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        // Behind the host there is a port or nothing. A name and a password, which would be before it, would be in each log that shows
        // settings.
        let behind = authority.as_str().strip_prefix(authority.host())?;
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        let has_port = behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port);
        let is_host = !authority.host().is_empty() && has_port;
        if uri.scheme_str() != Some("http") || !is_host {
            return None;
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Some(Self(uri));
        }
        format!("http://{authority}{PATH}").parse().ok().map(Self)
    }
}

impl FromStr for CollectorUrl {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text).ok_or_else(|| InvalidValue::new(text, Self::expected(&())))
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SettingValue for CollectorUrl {
    type Bounds = ();

    fn expected((): &()) -> String {
        "a URL of a collector of OTLP over HTTP such as http://127.0.0.1:4318/v1/traces, without a user (https:// is not spoken: a collector nearby can pass traces on)".to_owned()
    }

    fn read(literal: &Literal, (): &()) -> Option<Self> {
        Self::parse(literal.text()?)
    }

    fn literal(&self) -> Literal {
        Literal::Text(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_urls_are_taken() {
        let long = format!("http://a/{}", "p".repeat(MOST_BYTES));
        for (text, shown) in [
            (
                "http://127.0.0.1:4318/v1/traces",
                Some(("http://127.0.0.1:4318/v1/traces", "127.0.0.1", 4318)),
            ),
            (
                "http://collector:4318",
                Some(("http://collector:4318/v1/traces", "collector", 4318)),
            ),
            (
                "http://collector/",
                Some(("http://collector/v1/traces", "collector", 80)),
            ),
            (
                "http://[::1]:4318/in?x=1",
                Some(("http://[::1]:4318/in?x=1", "::1", 4318)),
            ),
            ("https://collector:4318/v1/traces", None),
            ("http://user:word@collector/", None),
            ("http://collector:/", None),
            ("http://collector:0/", None),
            ("http://collector:99999/", None),
            ("http:///v1/traces", None),
            ("http://collector/#part", None),
            ("collector:4318", None),
            ("/v1/traces", None),
            ("", None),
            (&*long, None),
        ] {
            let url = CollectorUrl::parse(text);
            let found = url.as_ref().map(|url| {
                let (host, port) = url.host_and_port();
                (url.to_string(), host, port)
            });
            let expected = shown.map(|(shown, host, port)| (shown.to_owned(), host, port));
            assert_eq!(found, expected, "{text}");
        }
    }
}
