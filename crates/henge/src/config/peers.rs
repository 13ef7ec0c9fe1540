//! Addresses of other nodes, as an operator gives them: `host:port`, or the URL of a node. It resolves nothing.

use std::fmt;
use std::str::FromStr;

use super::literal::{Literal, SettingValue};
use super::types::{InvalidValue, parse_host};

/// How a node is reached: a host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// A host name, or an IP address without brackets.
    pub host: String,
    /// The port; not 0.
    pub port: u16,
}

impl PeerAddress {
    const EXPECTED: &str = "an address such as localhost:8081, 10.0.0.2:8080 or http://node2:8080";

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bare = text.strip_prefix("http://").map(|rest| {
            // The path of the root is no path.
            rest.strip_suffix('/').unwrap_or(rest)
        });
        let (host, port) = bare.unwrap_or(text).rsplit_once(':')?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = is_number.then(|| port.parse().ok())??;
        (port != 0).then_some(Self {
            host: parse_host(host)?,
            port,
        })
    }
}

impl FromStr for PeerAddress {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text).ok_or_else(|| InvalidValue::new(text, Self::EXPECTED.to_owned()))
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

impl SettingValue for PeerAddress {
    type Bounds = ();

    fn expected((): &()) -> String {
        Self::EXPECTED.to_owned()
    }

    fn read(literal: &Literal, (): &()) -> Option<Self> {
        Self::parse(literal.text()?)
    }

    fn literal(&self) -> Literal {
        Literal::Text(self.to_string())
    }
}

/// Other nodes, each once; none for a node that is a cluster by itself.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Peers(Vec<PeerAddress>);

impl Peers {
    /// Enough to find a cluster by; who is in it is learnt from its members.
    const MOST: usize = 64;
    /// Also written by who wants none.
    const NONE: &str = "none";

    /// No others.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// The addresses, in the order in which they were given.
    pub fn addresses(&self) -> &[PeerAddress] {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case(Self::NONE) {
            return Some(Self::none());
        }
        let mut addresses: Vec<PeerAddress> = Vec::new();
        for part in text.split(',') {
            let address = PeerAddress::parse(part)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        (addresses.len() <= Self::MOST).then_some(Self(addresses))
    }
}

impl FromStr for Peers {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text).ok_or_else(|| InvalidValue::new(text, Self::expected(&())))
    }
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(Self::NONE);
        }
        for (nth, address) in self.0.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

impl SettingValue for Peers {
    type Bounds = ();

    fn expected((): &()) -> String {
        format!(
            "up to {} addresses with commas between them, such as http://localhost:8081,10.0.0.2:8080, or \"{}\"",
            Self::MOST,
            Self::NONE
        )
    }

    fn words() -> &'static [&'static str] {
        &[Self::NONE]
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
    fn addresses_of_nodes() {
        // Input, and how it is shown; none where it is refused.
        for (text, shown) in [
            ("http://localhost:8081", Some("localhost:8081")),
            ("http://localhost:8081/", Some("localhost:8081")),
            ("10.0.0.2:80", Some("10.0.0.2:80")),
            ("[::1]:8080", Some("[::1]:8080")),
            ("http://[fe80::1]:8080", Some("[fe80::1]:8080")),
            ("node-2.henge:8080", Some("node-2.henge:8080")),
            ("", None),
            (":8080", None),
            ("8080", None),
            ("localhost", None),
            ("localhost:0", None),
            ("localhost:+1", None),
            ("localhost:65536", None),
            ("https://localhost:8081", None),
            ("http://localhost:8081/get", None),
            ("http://http://a:1", None),
            ("300.1.1.1:80", None),
        ] {
            let parsed = text.parse::<PeerAddress>().ok();
            let written = parsed.as_ref().map(ToString::to_string);
            assert_eq!(written.as_deref(), shown, "{text:?}");
            if let Some(address) = parsed {
                assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }

    #[test]
    fn lists_of_them() {
        let many = |count: usize| {
            let each = (1..=count).map(|n| format!("n{n}:1"));
            each.collect::<Vec<_>>().join(",")
        };
        for (text, shown) in [
            ("none", Some("none".to_owned())),
            ("http://a:1, b:2,http://a:1", Some("a:1,b:2".to_owned())),
            (&many(64), Some(many(64))),
            (&many(65), None),
            ("", None),
            ("a:1,", None),
            ("a:1;b:2", None),
        ] {
            let parsed = text.parse::<Peers>().ok();
            assert_eq!(parsed.as_ref().map(ToString::to_string), shown, "{text:?}");
        }
    }
}
