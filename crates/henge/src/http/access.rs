//! Who asks over HTTP: how an API key comes with a request, what a web page of somebody else may not do, and what is told to
//! who is refused. A key comes with each request, so a connection remembers the last that it has seen.

use std::net::SocketAddr;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::problem::{Code, Problem};
use super::routes::Lookup;
use crate::access::Access;
use crate::access::caller::{Caller, Denied, NOT_YET, PROTECTED};
use crate::access::hash;
use crate::access::permission::Permission;
use crate::metrics::counters::add;
use crate::net::data_thread::Local;
use crate::rate::RateLimits;
use crate::rate::meter::{Exceeded, Meter};

/// A header that has a key, and nothing else.
const X_API_KEY: &str = "x-api-key";
/// What is limited, and what is left of it (draft-ietf-httpapi-ratelimit-headers-10).
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The scheme of `Authorization` that does (RFC 6750).
const BEARER: &[u8] = b"bearer ";

/// Who asks on one connection.
#[derive(Debug)]
pub(crate) struct Visitor {
    caller: Caller,
    /// The key that came with the last request, if it held.
    shown: Option<Box<[u8]>>,
    /// The origin of the web page that has made the last request.
    origin: Option<HeaderValue>,
    /// Where it connects from.
    address: SocketAddr,
    meter: Meter,
    /// Why the present request is not served, if it is for its client asking too often.
    exceeded: Option<Exceeded>,
    /// Whether the present request is counted.
    is_counted: bool,
}

/// What stands for the origin of a request that names several, which no browser does.
static SEVERAL: HeaderValue = HeaderValue::from_static("several");

/// What the headers of a request say of who makes it, found in one pass: most have three headers, and each request is looked at.
#[derive(Default)]
pub(crate) struct Seen<'h> {
    key: Option<&'h [u8]>,
    /// More than one key came, so none of them counts.
    has_several_keys: bool,
    origin: Option<&'h HeaderValue>,
    /// Whom it means: the header, but for a request that names a host in its target, which goes before it (RFC 9112, 3.2.2).
    host: Option<&'h [u8]>,
    /// A header that only proxies send.
    by_proxy: Option<&'h str>,
    /// What a browser says of whose page asks, and how (Fetch Metadata); nothing of what is no browser.
    site: Option<&'h [u8]>,
    is_navigation: bool,
}

impl<'h> Seen<'h> {
    #[inline]
    pub(crate) fn of(headers: &'h HeaderMap, target: &'h Uri) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "host" => seen.host = Some(value.as_bytes()),
                X_API_KEY => seen.add_key(value.as_bytes()),
                "authorization" => {
                    // What is of another scheme is for somebody else, such as a proxy before the node.
                    let parts = value.as_bytes().split_at_checked(BEARER.len());
                    if let Some((scheme, text)) = parts
                        && scheme.eq_ignore_ascii_case(BEARER)
                    {
                        seen.add_key(text.trim_ascii());
                    }
                }
                // Two are none that is listed.
                "origin" if seen.origin.is_some() => seen.origin = Some(&SEVERAL),
                "origin" => seen.origin = Some(value),
                "sec-fetch-site" => seen.site = Some(value.as_bytes()),
                "sec-fetch-mode" => seen.is_navigation = value == "navigate",
                name @ ("forwarded" | "via" | "x-forwarded-for" | "x-real-ip") => {
                    seen.by_proxy = Some(name);
                }
                _ => {}
            }
        }
        if let Some(authority) = target.authority() {
            seen.host = Some(authority.as_str().as_bytes());
        }
        seen
    }

    fn add_key(&mut self, key: &'h [u8]) {
        self.has_several_keys |= self.key.replace(key).is_some();
    }

    /// Whether a web page of another origin asks.
    #[inline]
    pub(crate) fn is_of_page(&self) -> bool {
        self.origin.is_some()
    }

    /// Whether the page is the node's own, the console: its origin is whom the request means. A stranger may have had the name of a page of
    /// his own lead here (DNS rebinding), so a name other than localhost counts only where a key was shown, which he has not.
    pub(crate) fn is_of_own_page(&self, has_shown_key: bool) -> bool {
        let (Some(origin), Some(host)) = (self.origin, self.host) else {
            return false;
        };
        let mut schemes = [&b"http://"[..], b"https://"].into_iter();
        let authority = schemes.find_map(|scheme| origin.as_bytes().strip_prefix(scheme));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
            && self.site.is_none_or(|site| site == b"same-origin")
            && (has_shown_key || !matches!(Named::by(host), Named::Other))
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Protected => Self::new(Code::ProtectedMode, PROTECTED),
            Denied::NotYet => Self::new(Code::NotInCluster, NOT_YET),
            Denied::Unknown => Self::new(Code::Unauthenticated, ""),
            Denied::Permission(needed) => {
                let detail = format!("it needs the permission {}", needed.name());
                Self::new(Code::Forbidden, detail)
            }
            Denied::Scope => Self::new(Code::Forbidden, "it is confined to other keys than this"),
        }
    }
}

impl Visitor {
    pub(crate) fn new(address: SocketAddr, caller: Caller) -> Self {
        Self {
            caller,
            shown: None,
            origin: None,
            address,
            meter: Meter::of(address.ip()),
            exceeded: None,
            is_counted: false,
        }
    }

    /// Where it connects from.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who it is, as the last request has shown.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The origin of the web page that has made the last request.
    pub(crate) fn origin(&self) -> Option<&HeaderValue> {
        self.origin.as_ref()
    }

    /// Takes notice of another request: what the one before has shown of itself is not this one's.
    #[inline]
    pub(crate) fn begin(&mut self, seen: &Seen<'_>) {
        if self.origin.is_some() || seen.origin.is_some() {
            self.origin = seen.origin.cloned();
        }
    }

    /// Refuses a request where more was asked than there are tokens for, or spends one. One that is exempt is not counted.
    #[inline]
    pub(crate) fn count(
        &mut self,
        is_exempt: impl FnOnce(&RateLimits) -> bool,
        local: &Local,
        now: Instant,
    ) -> Result<(), Problem> {
        (self.exceeded, self.is_counted) = (None, false);
        let (rates, allowances) = (&local.shared.rates, &local.allowances);
        if self
            .meter
            .look(rates, allowances, now)
            .is_none_or(is_exempt)
        {
            return Ok(());
        }
        let grant = self.meter.grant(1, rates, allowances, &self.caller, now);
        if let Some(exceeded) = grant.exceeded {
            self.exceeded = Some(exceeded);
            add(&local.counters.rate_limited[exceeded.scope as usize], 1);
            return Err(Problem::rate_limit_exceeded(&exceeded));
        }
        self.is_counted = true;
        self.meter.spend(1, 0);
        Ok(())
    }

    /// Spends the bytes of the present request and of its answer, if it is counted, and tells in the answer how much is left. `bytes`
    /// takes those that have come: of what is exempt they stay, for whose they are that comes behind it; of what is refused, or came where
    /// nothing is limited, nobody is ever charged.
    #[inline]
    pub(crate) fn spend(&self, bytes: impl FnOnce() -> u64, answer: &mut HeaderMap) {
        let Some(limits) = self.meter.limits() else {
            bytes();
            return;
        };
        if self.is_counted || self.exceeded.is_some() {
            let bytes = bytes();
            if self.is_counted {
                self.meter.spend_bytes(bytes);
            }
            answer.insert(RATE_LIMIT_POLICY, limits.policy().clone());
            if let Some(left) = self.meter.left(self.exceeded) {
                answer.insert(RATE_LIMIT, left);
            }
        }
    }

    /// Forgets who made the request before: no key comes with this one.
    pub(crate) fn forget(&mut self, access: &Access, now_ms: u64) {
        self.shown = None;
        self.caller.forget();
        self.caller.look(access, now_ms);
    }

    /// Refuses a request that may not be made: by who makes it, or by where it comes from.
    #[inline]
    pub(crate) fn admit(
        &mut self,
        seen: &Seen<'_>,
        lookup: &Lookup,
        access: &Access,
        now_ms: u64,
    ) -> Result<(), Problem> {
        let needed = match lookup {
            Lookup::Found(route) => route.permission,
            // Whoever may not ask for anything is not told either what there is to ask for.
            Lookup::WrongMethod(_, needed) => *needed,
            Lookup::Unknown(_) => Permission::Connection,
        };
        self.caller.look(access, now_ms);
        match seen.key {
            _ if seen.has_several_keys => {
                self.forget(access, now_ms);
                if needed != Permission::Anyone {
                    return Err(Denied::Unknown.into());
                }
            }
            None => {
                if self.shown.take().is_some() {
                    self.caller.forget();
                    self.caller.look(access, now_ms);
                }
            }
            Some(text) => self.show(text, access, now_ms, needed)?,
        }
        self.caller.check(needed)?;
        if needed != Permission::Anyone && self.caller.is_trusted_by_place() {
            check_place(seen)?;
        }
        Ok(())
    }

    fn show(
        &mut self,
        text: &[u8],
        access: &Access,
        now_ms: u64,
        needed: Permission,
    ) -> Result<(), Problem> {
        let is_same = |shown: &[u8]| hash::is_same_text(shown, text);
        // A key that has expired or was revoked is no longer the caller's.
        if self.caller.has_shown() && self.shown.as_deref().is_some_and(is_same) {
            return Ok(());
        }
        self.shown = None;
        self.caller.forget();
        let shown = self.caller.show(access, None, text, now_ms);
        match shown {
            Ok(()) => self.shown = Some(text.into()),
            // Where nobody is asked for a key one that is wrong is one, as it would be once there is any.
            Err(denied) if needed != Permission::Anyone => return Err(denied.into()),
            Err(_) => self.caller.look(access, now_ms),
        }
        Ok(())
    }
}

/// Refuses what is trusted for where it comes from, and did not mean this machine: a page of another has had its name lead here,
/// and the browser of a visitor has asked it (DNS rebinding); or it comes by way of a proxy, whose clients are anywhere.
fn check_place(seen: &Seen<'_>) -> Result<(), Problem> {
    if let Some(name) = seen.by_proxy {
        let detail = format!("the request came through a proxy ({name}); {PROTECTED}");
        return Err(Problem::new(Code::ProtectedMode, detail));
    }
    // An image or a script of a page of somebody else comes without an Origin, and is run or shown there.
    let is_elsewhere = |site: &[u8]| !matches!(site, b"same-origin" | b"none");
    if !seen.is_of_page() && !seen.is_navigation && seen.site.is_some_and(is_elsewhere) {
        let detail = format!("the request is of a web page of another origin; {PROTECTED}");
        return Err(Problem::new(Code::ProtectedMode, detail));
    }
    // HTTP/1.0, which no browser speaks, has none.
    match seen.host {
        Some(host) if !is_local(host) => {
            let shown = &host[..host.len().min(80)];
            let shown = shown.escape_ascii();
            let detail = format!(
                "Host is \"{shown}\", and in protected mode it has to be localhost or an address of the loopback; {PROTECTED}"
            );
            Err(Problem::new(Code::ProtectedMode, detail))
        }
        _ => Ok(()),
    }
}

/// Whom a Host header names.
enum Named {
    Localhost,
    Address(std::net::IpAddr),
    /// By a name that may lead anywhere.
    Other,
}

impl Named {
    fn by(host: &[u8]) -> Self {
        let Ok(host) = std::str::from_utf8(host) else {
            return Self::Other;
        };
        let (name, port) = match host.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((name, port)) => (name, port),
                None => return Self::Other,
            },
            None => host.split_at(host.find(':').unwrap_or(host.len())),
        };
        let port = port.strip_prefix(':').unwrap_or(port);
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        if !port.is_empty() && (!is_number || port.parse::<u16>().is_err()) {
            return Self::Other;
        }
        // A name may end in a dot, as the root has none.
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.eq_ignore_ascii_case("localhost") {
            return Self::Localhost;
        }
        name.parse().map_or(Self::Other, Self::Address)
    }
}

/// Whether a Host header names this machine by a name or an address that leads nowhere else.
fn is_local(host: &[u8]) -> bool {
    match Named::by(host) {
        Named::Localhost => true,
        Named::Address(address) => address.to_canonical().is_loopback(),
        Named::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::cors::Cors;
    use super::super::routes;
    use super::*;
    use crate::access::hash::NewKey;
    use crate::access::testing::{access, file};

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_str(value).expect("it is one"));
        }
        headers
    }

    fn visit(
        visitor: &mut Visitor,
        target: (Method, &str),
        list: &[(&'static str, &str)],
        access: &Access,
    ) -> Result<(), Code> {
        let (method, path) = target;
        let target: Uri = path.parse().expect("a target");
        let lookup = routes::find(&method, target.path());
        let headers = headers(list);
        let seen = Seen::of(&headers, &target);
        let cors = Cors::of(&crate::config::Config::default());
        let admitted = visitor.admit(&seen, &lookup, access, 0);
        let admitted = admitted.and_then(|()| cors.check(&method, seen.origin));
        admitted.map_err(|problem| problem.code)
    }

    fn visitor(address: &str) -> Visitor {
        {
            let address = address.parse().expect("an address");
            Visitor::new((address, 1).into(), Caller::from(address, Vec::new()))
        }
    }

    #[test]
    fn which_hosts_are_this_machine() {
        for host in [
            "localhost",
            "localhost.",
            "localhost.:80",
            "LocalHost:8080",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_local(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "localhost:99999",
            "localhost:+80",
            "localhost..",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]",
            "[::1",
            "127.0.0.1:evil",
            "localhost@evil:1",
        ] {
            assert!(!is_local(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn where_there_are_no_keys_the_place_counts() {
        let access = access(true, None);
        let local = [("host", "localhost:8080")];
        let get = || (Method::GET, "/get");
        let near = &mut visitor("127.0.0.1");
        assert_eq!(visit(near, get(), &local, &access), Ok(()));
        let rebound = [("host", "evil.example:8080")];
        assert_eq!(
            visit(near, get(), &rebound, &access),
            Err(Code::ProtectedMode)
        );
        let health = visit(near, (Method::GET, "/health"), &rebound, &access);
        assert_eq!(
            health,
            Ok(()),
            "whoever looks after nodes asks by their addresses"
        );
        let whole = (Method::GET, "http://evil.example/get");
        assert_eq!(
            visit(near, whole, &local, &access),
            Err(Code::ProtectedMode),
            "the target names another host"
        );
        let several = headers(&[("origin", "http://one.example"), ("origin", "null")]);
        let target = Uri::default();
        let seen = Seen::of(&several, &target);
        assert_eq!(seen.origin, Some(&SEVERAL), "it is none that is listed");
        let page = [("host", "localhost"), ("origin", "http://evil.example")];
        assert_eq!(
            visit(near, (Method::POST, "/set"), &page, &access),
            Err(Code::OriginNotAllowed)
        );
        assert_eq!(
            visit(near, get(), &page, &access),
            Ok(()),
            "it cannot see the answer"
        );
        let wrong = [("host", "localhost"), ("x-api-key", "x")];
        assert_eq!(
            visit(near, get(), &wrong, &access),
            Err(Code::Unauthenticated)
        );

        let far = &mut visitor("10.0.0.1");
        assert_eq!(visit(far, get(), &local, &access), Err(Code::ProtectedMode));
        assert_eq!(
            visit(far, (Method::GET, "/nothing"), &local, &access),
            Err(Code::ProtectedMode)
        );
        assert_eq!(
            visit(far, (Method::GET, "/ready"), &rebound, &access),
            Ok(())
        );
        access.set_file(false, None);
        assert_eq!(visit(far, get(), &rebound, &access), Ok(()));
    }

    #[test]
    fn a_key_comes_with_each_request() {
        let key = NewKey::draw();
        let access = access(true, Some(file(&[("web", &key, &["read"], &[], None)])));
        let far = &mut visitor("10.0.0.1");
        let bearer = format!("Bearer {}", key.text);
        let lower = format!("bearer  {}", key.text);
        let basic = format!("Basic {}", key.text);
        let stranger = NewKey::draw().text;
        for (list, expected) in [
            (&[("authorization", &*bearer)][..], Ok(())),
            (&[], Err(Code::Unauthenticated)),
            (&[("x-api-key", &*key.text)], Ok(())),
            (&[("x-api-key", &*key.text)], Ok(())),
            (&[("x-api-key", &*stranger)], Err(Code::Unauthenticated)),
            (&[("authorization", &*lower)], Ok(())),
            (&[("authorization", &*basic)], Err(Code::Unauthenticated)),
            (&[("authorization", "Bearer")], Err(Code::Unauthenticated)),
            (
                &[("authorization", &*bearer), ("x-api-key", &*key.text)],
                Err(Code::Unauthenticated),
            ),
            (
                &[("authorization", &*bearer), ("authorization", &*bearer)],
                Err(Code::Unauthenticated),
            ),
        ] {
            assert_eq!(
                visit(far, (Method::GET, "/get"), list, &access),
                expected,
                "{list:?}"
            );
            let unknown = visit(far, (Method::GET, "/nothing"), list, &access);
            assert_eq!(unknown, expected, "{list:?}");
            assert_eq!(visit(far, (Method::GET, "/health"), list, &access), Ok(()));
            let wrong = visit(far, (Method::DELETE, "/health"), list, &access);
            assert_eq!(wrong, Ok(()), "who may ask may be told how");
            let wrong = visit(far, (Method::TRACE, "/get"), list, &access);
            assert_eq!(wrong, expected, "{list:?}");
        }
        let list = [("authorization", &*bearer)];
        assert_eq!(
            visit(far, (Method::POST, "/set"), &list, &access),
            Err(Code::Forbidden)
        );
        access.set_file(
            true,
            Some(file(&[("web", &NewKey::draw(), &["read"], &[], None)])),
        );
        assert_eq!(
            visit(far, (Method::GET, "/get"), &list, &access),
            Err(Code::Unauthenticated)
        );
    }

    #[test]
    fn the_console_is_known_by_its_origin() {
        for (origin, host, site, own, own_with_key) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", None, true, true),
            (
                "http://localhost:8080",
                "LOCALHOST:8080",
                Some("same-origin"),
                true,
                true,
            ),
            ("https://[::1]:8080", "[::1]:8080", None, true, true),
            ("http://10.1.2.3", "10.1.2.3", None, true, true),
            // A name may lead anywhere; a key was shown by who has it.
            ("http://cache.example", "cache.example", None, false, true),
            ("http://evil.example", "cache.example", None, false, false),
            (
                "http://127.0.0.1:9999",
                "127.0.0.1:8080",
                None,
                false,
                false,
            ),
            (
                "http://127.0.0.1:8080",
                "127.0.0.1:8080",
                Some("same-site"),
                false,
                false,
            ),
            (
                "http://127.0.0.1:8080",
                "127.0.0.1:8080",
                Some("cross-site"),
                false,
                false,
            ),
            ("null", "127.0.0.1:8080", None, false, false),
            ("ftp://127.0.0.1", "127.0.0.1", None, false, false),
        ] {
            let mut list = vec![("origin", origin), ("host", host)];
            list.extend(site.map(|site| ("sec-fetch-site", site)));
            let headers = headers(&list);
            let target = Uri::from_static("/set");
            let seen = Seen::of(&headers, &target);
            assert_eq!(seen.is_of_own_page(false), own, "{list:?}");
            assert_eq!(seen.is_of_own_page(true), own_with_key, "{list:?}");
        }
    }
}
