//! Where a server is and what is spoken to it: the URL of a client. Only what a client uses is taken; a path, a user or a
//! query would be ignored in silence otherwise.

use std::fmt;
use std::str::FromStr;

/// The protocol, and whether it is spoken over TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// The Redis protocol, by `redis://`.
    Redis,
    /// The Redis protocol over TLS, by `rediss://`.
    Rediss,
    /// HTTP/1.1, by `http://`.
    Http,
    /// HTTP/1.1 over TLS, by `https://`.
    Https,
}

impl Scheme {
    /// Whether HTTP is spoken, and not the Redis protocol.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    /// Whether it is spoken over TLS.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Rediss | Self::Https)
    }
}

/// A server: `redis://host:port` or `http://host:port`, over TLS `rediss://host:port` or `https://host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// What is spoken.
    pub scheme: Scheme,
    /// A name, or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The port. Of a URL that names none it is what its scheme has: 6379, 80 or 443.
    pub port: u16,
}

/// A text that is no URL of a server; what it is, and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetError {
    url: String,
    wrong: &'static str,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no URL of a server: {}; expected http://host:port or redis://host:port, over TLS https:// or rediss://",
            self.url, self.wrong
        )
    }
}

impl std::error::Error for TargetError {}

impl Target {
    /// The host and the port as one text, with brackets around an IPv6 address.
    pub fn server(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or("it has no scheme")?;
        let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "redis" => (Scheme::Redis, 6379),
            "http" => (Scheme::Http, 80),
            "rediss" => (Scheme::Rediss, 6379),
            "https" => (Scheme::Https, 443),
            _ => return Err("its scheme is not known"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err("a user or password belongs in no URL: an API key is given by itself");
        }
        if rest.contains(['/', '?', '#']) {
            return Err("a path or query is not supported");
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']').ok_or("a ] is missing")?;
                let host: std::net::Ipv6Addr =
                    host.parse().map_err(|_| "its host is no IPv6 address")?;
                let port = match after.strip_prefix(':') {
                    Some(port) => Some(port),
                    None if after.is_empty() => None,
                    None => return Err("something follows the ]"),
                };
                (host.to_string(), port)
            }
            None => match rest.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err("an IPv6 address belongs in [brackets]");
                }
                Some((host, port)) => (host.to_owned(), Some(port)),
                None => (rest.to_owned(), None),
            },
        };
        if host.is_empty() {
            return Err("it has no host");
        }
        if !host.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("its host is no name");
        }
        let port = match port {
            None => default_port,
            Some(port) => port
                .parse()
                .ok()
                .filter(|number| *number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or("its port is no number from 1 to 65535")?,
        };
        Ok(Self { scheme, host, port })
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(url: &str) -> Result<Self, TargetError> {
        Self::parse(url).map_err(|wrong| TargetError {
            url: without_user(url),
            wrong,
        })
    }
}

/// A text without what may be a user and a password, or a key that was taken for one: the text is shown.
fn without_user(url: &str) -> String {
    let begin = url.find("://").map_or(0, |at| at + 3);
    match url[begin..].rfind('@') {
        Some(at) => format!("{}(hidden){}", &url[..begin], &url[begin + at..]),
        None => url.to_owned(),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.server())
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "redis",
            Self::Rediss => "rediss",
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_servers() {
        let table = [
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://localhost:8080/", "http://localhost:8080"),
            ("HTTP://Host", "http://Host:80"),
            ("redis://127.0.0.1", "redis://127.0.0.1:6379"),
            ("redis://[::1]:7", "redis://[::1]:7"),
            ("redis://[::1]", "redis://[::1]:6379"),
            ("https://h", "https://h:443"),
            ("rediss://h", "rediss://h:6379"),
            ("Rediss://h:7", "rediss://h:7"),
        ];
        for (url, expected) in table {
            let target: Target = url.parse().expect(url);
            assert_eq!(target.to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_url_says_why() {
        let table = [
            ("", "no scheme"),
            ("localhost:8080", "no scheme"),
            ("henge://h", "not known"),
            ("http://", "no host"),
            ("http://:80", "no host"),
            ("http://a b", "no name"),
            ("http://h:", "port"),
            ("http://h:0", "port"),
            ("http://h:+1", "port"),
            ("http://h:65536", "port"),
            ("http://h/cache", "path"),
            ("http://h?x", "path"),
            ("redis://h/0", "path"),
            ("http://::1:80", "brackets"),
            ("http://[::1", "] is missing"),
            ("http://[::1]80", "follows"),
            ("http://[h]:80", "IPv6"),
        ];
        for (url, why) in table {
            let error = url.parse::<Target>().expect_err(url).to_string();
            assert!(error.contains(why) && error.contains(url), "{error}");
        }
        for url in ["redis://u:secret@h", "http://secret@h/p@x", "u:secret@h"] {
            let error = url.parse::<Target>().expect_err(url).to_string();
            assert!(error.contains("(hidden)@"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
