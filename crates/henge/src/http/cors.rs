//! What web pages of other origins may ask, by CORS (the Fetch standard): the answer to a browser that asks beforehand, and what
//! each answer to a page says. A page of which nothing is set may read what anybody may read, whose answer its browser does not
//! show it, and change nothing.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::problem::{Code, Problem};
use super::service::Whole;
use crate::config::{Config, Interval, Origins};

/// What a page may see of an answer, beside what all may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, ratelimit, ratelimit-policy, retry-after, www-authenticate, x-consistency-level, x-replicas, x-ttl",
);

/// What a configuration says of it.
#[derive(Clone, Debug)]
pub(crate) struct Cors {
    origins: Origins,
    methods: HeaderValue,
    headers: HeaderValue,
    takes_credentials: bool,
    max_age: HeaderValue,
}

impl Cors {
    pub(crate) fn of(config: &Config) -> Self {
        let cors = &config.cors;
        let value = |text: &str| HeaderValue::try_from(text).expect("tokens can stand in a header");
        let seconds = Interval::as_duration(cors.max_age).as_secs();
        Self {
            origins: cors.origins.clone(),
            methods: value(cors.methods.as_str()),
            headers: value(cors.headers.as_str()),
            takes_credentials: cors.credentials,
            max_age: HeaderValue::from(seconds),
        }
    }

    /// Refuses what a page of an origin that is not listed would change.
    #[inline]
    pub(crate) fn check(
        &self,
        method: &Method,
        origin: Option<&HeaderValue>,
    ) -> Result<(), Problem> {
        let Some(origin) = origin else {
            return Ok(());
        };
        if method == Method::GET || method == Method::HEAD || self.origins.has(origin.as_bytes()) {
            return Ok(());
        }
        let detail = "a request that a web page makes of another origin may change nothing, unless cors.origins lists that";
        Err(Problem::new(Code::OriginNotAllowed, detail))
    }

    /// The answer to a browser that asks whether a page may ask something; none if it is another request.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Whole> {
        if method != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        {
            return None;
        }
        let origin = headers.get(header::ORIGIN)?;
        let mut response = Response::new(http_body_util::Full::default());
        if !self.origins.has(origin.as_bytes()) {
            let detail = "cors.origins does not list this origin";
            return Some(Problem::new(Code::OriginNotAllowed, detail).into_response());
        }
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        Some(response)
    }

    /// Has an answer say that a page of this origin may see it, if that is so.
    #[inline]
    pub(crate) fn mark(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        if matches!(self.origins, Origins::Listed(_)) {
            // A cache between here and there must not give the answer for one page to another.
            answer.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = origin
            && self.origins.has(origin.as_bytes())
        {
            self.allow(origin, answer);
        }
    }

    fn allow(&self, origin: &HeaderValue, answer: &mut HeaderMap) {
        let allowed = match (&self.origins, self.takes_credentials) {
            (Origins::Any, false) => HeaderValue::from_static("*"),
            _ => origin.clone(),
        };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if self.takes_credentials {
            let yes = HeaderValue::from_static("true");
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
    }
}
