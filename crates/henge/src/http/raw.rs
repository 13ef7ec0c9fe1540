//! The raw form: the body is the value, and headers say the rest. Byte ranges are not served.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use henge_wire::{Command, Encoding, Operation, Version};
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use super::conditions::Conditions;
use super::problem::{Code, Problem};
use super::requests::check_key;
use super::routes::RAW_PREFIX;
use super::service::{Answer, Outcome, Whole};
use super::single::{at_key, deleted, deletion, found, missing, overloaded, stored};
use super::{body, json, lifetime, query};
use crate::cluster::keys::Way;
use crate::net::data_thread::Local;
use crate::values::{Found, encode};

/// The lifetime in seconds, fractions allowed; where both are given it beats max-age, which knows only whole seconds.
const X_TTL: HeaderName = HeaderName::from_static("x-ttl");

/// The longest media type that is kept: what the engine has one byte of length for.
const MAX_CONTENT_TYPE_BYTES: usize = 255;

/// `GET /cache/{key}`.
pub(crate) fn get(local: &Rc<Local>, request: &Request<Incoming>, now_ms: u64) -> Answer {
    let asked = match Asked::of(local, request) {
        Ok(asked) => asked,
        Err(problem) => return Answer::Now(Err(problem)),
    };
    let way = match Way::to(local, &asked.key) {
        Ok(way) => way,
        Err(elsewhere) => return Answer::Now(Err(elsewhere.into())),
    };
    if let Way::Here = way {
        let command = asked.command(Operation::Get);
        let found = local.shared.cache.execute(&command, now_ms, found);
        return match asked.wanted(found, now_ms) {
            Ok(wanted) => show(local, wanted, asked.takes_gzip, now_ms),
            Err(problem) => Answer::Now(Err(problem)),
        };
    }
    let (local, asked) = (Rc::clone(local), asked.into_owned());
    Answer::later(async move {
        let command = asked.command(Operation::Get);
        let found = way.perform(&local, &command, now_ms, found).await?;
        let wanted = asked.wanted(found, now_ms)?;
        match show(&local, wanted, asked.takes_gzip, now_ms) {
            Answer::Now(outcome) => outcome,
            Answer::Later(future) => future.await,
        }
    })
}

fn show(local: &Rc<Local>, wanted: Wanted, takes_gzip: bool, now_ms: u64) -> Answer {
    let wanted = match wanted {
        Wanted::Unchanged(response) => return Answer::Now(Ok(response)),
        Wanted::Item(found) => found,
    };
    if wanted.encoding == Encoding::Gzip && takes_gzip {
        let body = wanted.data.clone();
        return Answer::Now(full(local, &wanted, body, true, now_ms));
    }
    if wanted.is_quick() {
        let answer = wanted
            .raw()
            .map_err(Problem::from)
            .and_then(|raw| full(local, &wanted, raw, false, now_ms));
        return Answer::Now(answer);
    }
    let local = Rc::clone(local);
    Answer::later(async move {
        let raw = wanted.raw_in_time(&local.shared.in_flight).await?;
        full(&local, &wanted, raw, false, now_ms)
    })
}

/// `HEAD /cache/{key}`: what GET would say, without its work. It counts as no use of the key.
pub(crate) fn head(local: &Rc<Local>, request: &Request<Incoming>, now_ms: u64) -> Answer {
    let Asked {
        key,
        conditions,
        takes_gzip,
    } = match Asked::of(local, request) {
        Ok(asked) => asked,
        Err(problem) => return Answer::Now(Err(problem)),
    };
    at_key(local, key, async move |local, way, key| {
        let asked = Asked {
            key: key.into(),
            conditions,
            takes_gzip,
        };
        let command = asked.command(Operation::Peek);
        let found = way.perform(local, &command, now_ms, found).await?;
        let found = match asked.wanted(found, now_ms)? {
            Wanted::Unchanged(response) => return Ok(response),
            Wanted::Item(found) => found,
        };
        let as_stored = found.encoding == Encoding::Gzip && takes_gzip;
        let mut response = Response::new(Full::default());
        let headers = response.headers_mut();
        describe(headers, &found, as_stored, now_ms);
        let length = if as_stored {
            found.data.len() as u64
        } else {
            u64::from(found.raw_len)
        };
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        Ok(response)
    })
}

/// `PUT /cache/{key}`: 204 with the `ETag` of what was stored.
pub(crate) async fn put(local: Rc<Local>, request: Request<Incoming>) -> Outcome {
    let key = key_of(&local, &request)?.into_owned();
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    body::check_encoding(headers)?;
    let content_type = content_type(headers)?;
    let ttl = ttl(headers)?;
    let conditions = Conditions::of(headers)?;
    lifetime::expiry(ttl, local.shared.clock.now_ms())?;

    let limit = local.shared.limits().max_value_bytes;
    let whole = body::read(body, &local.shared, limit, || {
        let detail = format!("the most is limits.max_value_bytes, {limit}");
        Problem::new(Code::ValueTooLarge, detail)
    })
    .await?;
    let encoded = encode(&local, whole.bytes, false).await?;
    let now_ms = local.shared.clock.now_ms();
    let command = Command {
        key: &key,
        operation: Operation::Set {
            value: encoded.value(content_type),
            expiry: lifetime::expiry(ttl, now_ms)?,
            precondition: conditions.precondition(),
        },
    };
    let (version, _) = stored(&local, &command, now_ms).await?;
    Ok(no_content(Some(version)))
}

/// `DELETE /cache/{key}`: 204, or 404 if it was not there.
pub(crate) fn delete(local: &Rc<Local>, request: &Request<Incoming>, now_ms: u64) -> Answer {
    let asked =
        key_of(local, request).and_then(|key| Ok((key, Conditions::of(request.headers())?)));
    let (key, conditions) = match asked {
        Ok(asked) => asked,
        Err(problem) => return Answer::Now(Err(problem)),
    };
    at_key(local, key, async move |local, way, key| {
        let command = deletion(key, conditions.precondition());
        if way.perform(local, &command, now_ms, deleted).await?? {
            Ok(no_content(None))
        } else {
            Err(missing())
        }
    })
}

/// What a read asks for.
struct Asked<'a> {
    key: Cow<'a, [u8]>,
    conditions: Conditions,
    takes_gzip: bool,
}

enum Wanted {
    /// The client has it already.
    Unchanged(Whole),
    Item(Found),
}

impl<'a> Asked<'a> {
    fn of(local: &Local, request: &'a Request<Incoming>) -> Result<Self, Problem> {
        Ok(Self {
            key: key_of(local, request)?,
            conditions: Conditions::of(request.headers())?,
            takes_gzip: accepts_gzip(request.headers()),
        })
    }

    fn into_owned(self) -> Asked<'static> {
        Asked {
            key: Cow::Owned(self.key.into_owned()),
            conditions: self.conditions,
            takes_gzip: self.takes_gzip,
        }
    }

    fn command<'s>(&'s self, operation: Operation<'s>) -> Command<'s> {
        Command {
            key: &self.key,
            operation,
        }
    }

    fn wanted(&self, found: Option<Found>, now_ms: u64) -> Result<Wanted, Problem> {
        let Some(found) = found else {
            self.conditions.of_absent()?;
            return Err(missing());
        };
        if self.conditions.of_read(found.version)? {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            let headers = response.headers_mut();
            headers.insert(ETAG, etag(found.version));
            cache_headers(headers, &found, now_ms);
            return Ok(Wanted::Unchanged(response));
        }
        Ok(Wanted::Item(found))
    }
}

/// The rest of the path, decoded once.
fn key_of<'r>(local: &Local, request: &'r Request<Incoming>) -> Result<Cow<'r, [u8]>, Problem> {
    let rest = request
        .uri()
        .path()
        .strip_prefix(RAW_PREFIX)
        .unwrap_or_default();
    // The empty key exists, but `/cache/` is far more often a variable that was empty in somebody's script.
    if rest.is_empty() {
        let detail =
            "the key is the rest of the path after /cache/; the empty key is for the JSON routes";
        return Err(Problem::new(Code::KeyMissing, detail));
    }
    if let Some(query) = request.uri().query() {
        let detail =
            format!("/cache/ takes no query, but ?{query:.80} came; a ? in a key is written %3F");
        return Err(Problem::new(Code::InvalidQuery, detail));
    }
    let key = query::path_decoded(rest)?;
    check_key(&key)?;
    local.name_key(&key)?;
    Ok(key)
}

fn full(local: &Local, found: &Found, body: Bytes, as_stored: bool, now_ms: u64) -> Outcome {
    // A value in the cache costs nothing more while it is sent, but it may leave the cache before it is.
    let mut hold = local.shared.in_flight.hold();
    if !hold.set(body.len()) {
        return Err(overloaded());
    }
    let mut response = Response::new(Full::new(hold.attach(body)));
    describe(response.headers_mut(), found, as_stored, now_ms);
    Ok(response)
}

fn describe(headers: &mut HeaderMap, found: &Found, as_stored: bool, now_ms: u64) {
    const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let content_type = match &found.content_type {
        Some(text) => HeaderValue::from_str(text).unwrap_or(OCTETS),
        None if found.json => JSON,
        None => OCTETS,
    };
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(ETAG, etag(found.version));
    cache_headers(headers, found, now_ms);
    if as_stored {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
}

/// What a 304 repeats, beside the `ETag`.
fn cache_headers(headers: &mut HeaderMap, found: &Found, now_ms: u64) {
    if found.encoding == Encoding::Gzip {
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    let Some(deadline) = found.expires_at_ms else {
        return;
    };
    let left_ms = deadline.saturating_sub(now_ms);
    let mut out = b"max-age=".to_vec();
    // Rounded down: a cache between us may forget too early, not too late.
    json::write_u64(&mut out, left_ms / 1000);
    headers.insert(CACHE_CONTROL, ascii(&out));
    out.clear();
    json::write_seconds(&mut out, left_ms);
    headers.insert(X_TTL, ascii(&out));
}

fn etag(version: Version) -> HeaderValue {
    let mut out = Vec::with_capacity(32);
    json::write_version(&mut out, version);
    ascii(&out)
}

fn ascii(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).expect("digits, letters and quotes are legal in headers")
}

fn no_content(version: Option<Version>) -> Whole {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Some(version) = version {
        response.headers_mut().insert(ETAG, etag(version));
    }
    response
}

fn content_type(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(None);
    };
    let invalid = |detail: String| Problem::new(Code::InvalidContentType, detail);
    let text = value
        .to_str()
        .map_err(|_| invalid("Content-Type has letters beyond ASCII".to_owned()))?;
    if text.len() > MAX_CONTENT_TYPE_BYTES {
        let len = text.len();
        return Err(invalid(format!(
            "Content-Type has {len} bytes; the most is {MAX_CONTENT_TYPE_BYTES}"
        )));
    }
    Ok((!text.is_empty()).then_some(text))
}

/// X-TTL, or else max-age.
fn ttl(headers: &HeaderMap) -> Result<Option<f64>, Problem> {
    let mut given = headers.get_all(X_TTL).iter();
    if let Some(value) = given.next() {
        if given.next().is_some() {
            return Err(Problem::new(Code::InvalidTtl, "X-TTL is given twice"));
        }
        let text = value.to_str().unwrap_or_default();
        return lifetime::parse("X-TTL", text).map(Some);
    }
    for line in headers.get_all(CACHE_CONTROL) {
        // Directives that are not text are none of ours.
        for directive in line.to_str().unwrap_or_default().split(',') {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            if name.trim().eq_ignore_ascii_case("max-age") {
                let value = value.trim().trim_matches('"');
                return lifetime::parse("Cache-Control: max-age", value).map(Some);
            }
        }
    }
    Ok(None)
}

/// Whether the client takes gzip (RFC 9110, 12.5.3): named, or by `*` if it is not named, and not with `q=0`.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut star) = (None, None);
    for line in headers.get_all(ACCEPT_ENCODING) {
        for coding in line.to_str().unwrap_or_default().split(',') {
            let mut parts = coding.split(';');
            let name = parts.next().unwrap_or_default().trim();
            let weight = parts
                .filter_map(|part| part.trim().split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
                .map_or(1.0, |(_, q)| q.trim().parse::<f32>().unwrap_or(0.0));
            if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                gzip = Some(weight > 0.0);
            } else if name == "*" {
                star = Some(weight > 0.0);
            }
        }
    }
    gzip.or(star).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn who_takes_gzip() {
        for (value, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; Q=0.000", false),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=0, *", false),
            ("br", false),
            ("", false),
            ("gzip;q=x", false),
        ] {
            assert_eq!(
                accepts_gzip(&headers(ACCEPT_ENCODING, value)),
                expected,
                "{value}"
            );
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn lifetimes_in_headers() {
        for (name, value, expected) in [
            (CACHE_CONTROL, "public, Max-Age=60", Ok(Some(60.0))),
            (CACHE_CONTROL, "max-age=\"5\"", Ok(Some(5.0))),
            (CACHE_CONTROL, "no-cache", Ok(None)),
            (CACHE_CONTROL, "s-maxage=9", Ok(None)),
            (CACHE_CONTROL, "max-age=-1", Err(Code::InvalidTtl)),
            (CACHE_CONTROL, "max-age", Err(Code::InvalidTtl)),
            (X_TTL, "0.25", Ok(Some(0.25))),
            (X_TTL, "soon", Err(Code::InvalidTtl)),
        ] {
            let found = ttl(&headers(name, value)).map_err(|problem| problem.code);
            assert_eq!(found, expected, "{value}");
        }
    }
}
