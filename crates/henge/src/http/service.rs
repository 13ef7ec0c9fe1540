//! From a request to its answer: finds the route, runs the handler, counts. Routes without a body are answered within
//! `call`, with no future made; the others are one boxed future.

use std::borrow::Cow;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Version, header};
use http_body_util::Full;
use hyper::body::{Body, Incoming};

use super::access::{Seen, Visitor};
use super::level::{self, X_CONSISTENCY_LEVEL, X_REPLICAS};
use super::problem::{Code, Problem};
use super::routes::{self, Lookup, Place, Route, RouteId};
use super::{
    backup, batch, body, console, control, health, insight, keys, pages, raw, restore, single,
};
use crate::access::caller::Caller;
use crate::access::permission::Permission;
use crate::access::ring::Key;
use crate::audit::{self, Action, Detail};
use crate::cluster::replicas::told::{self, Bad};
use crate::config::ConsistencyLevel;
use crate::disk::gate::{self, Owed, Untold};
use crate::insight::slow::shortened_word;
use crate::metrics::answers::Series;
use crate::net::data_thread::Local;
use crate::net::pace::Pace;
use crate::rate::RateLimits;
use crate::traces::{self, Span};

/// A response, whole.
pub(crate) type Whole = Response<Full<Bytes>>;
/// What a handler makes of a request.
pub(crate) type Outcome = Result<Whole, Problem>;

/// An answer that is there, or will be.
pub(crate) enum Answer {
    Now(Outcome),
    Later(Pin<Box<dyn Future<Output = Outcome>>>),
}

impl Answer {
    pub(crate) fn later(future: impl Future<Output = Outcome> + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer of JSON.
#[inline]
pub(crate) fn json_response(body: Bytes) -> Whole {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// How much of a path is noted down, in characters: those of routes with a name in them are shorter, unless it is none.
const AUDITED_PATH: usize = 256;

/// What the scratch keeps between answers: enough for nearly all of them.
const KEPT_SCRATCH_BYTES: usize = 64 * 1024;

impl Local {
    /// Writes an answer of JSON in the thread's scratch, and copies it once its size is known.
    #[inline]
    pub(crate) fn write_json(&self, write: impl FnOnce(&mut Vec<u8>)) -> Whole {
        let mut scratch = self.scratch.take();
        scratch.clear();
        write(&mut scratch);
        let response = json_response(Bytes::copy_from_slice(&scratch));
        if scratch.capacity() <= KEPT_SCRATCH_BYTES {
            self.scratch.replace(scratch);
        }
        response
    }
}

/// The service of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    local: Rc<Local>,
    pace: Rc<Pace>,
    visitor: Rc<RefCell<Visitor>>,
}

impl Service {
    /// Of a connection from whom this is, as far as that is known.
    pub(crate) fn new(
        local: Rc<Local>,
        pace: Rc<Pace>,
        address: SocketAddr,
        caller: Caller,
    ) -> Self {
        Self {
            local,
            pace,
            visitor: Rc::new(RefCell::new(Visitor::new(address, caller))),
        }
    }

    /// What the table says of a request, if it may be made.
    #[inline]
    fn look_up(
        &self,
        request: &Request<Incoming>,
        seen: &Seen<'_>,
        begun: Instant,
    ) -> Result<Lookup, Problem> {
        let head = check_head(request);
        let lookup = routes::find(request.method(), request.uri().path());
        let shared = &self.local.shared;
        let mut visitor = self.visitor.borrow_mut();
        let now_ms = shared.clock.at(begun);
        let admitted = visitor.admit(seen, &lookup, &shared.access, now_ms);
        // What is refused for another reason is asked all the same.
        let is_exempt = |limits: &RateLimits| limits.exempts(&lookup);
        visitor.count(is_exempt, &self.local, begun)?;
        head?;
        admitted?;
        if seen.is_of_page() && !seen.is_of_own_page(visitor.caller().has_shown()) {
            let cors = shared.cors.load();
            cors.check(request.method(), visitor.origin())?;
        }
        self.local.confine(visitor.caller().confined());
        Ok(lookup)
    }

    /// The answer to a browser that asks what a page may do, if that is asked.
    fn preflight(&self, request: &Request<Incoming>, begun: Instant) -> Option<Outcome> {
        let cors = self.local.shared.cors.load();
        let answer = cors.preflight(request.method(), request.headers())?;
        // No key comes with such a question.
        let mut visitor = self.visitor.borrow_mut();
        let shared = &self.local.shared;
        visitor.forget(&shared.access, shared.clock.at(begun));
        let counted = visitor.count(|_| false, &self.local, begun);
        Some(counted.map(|()| answer))
    }

    /// A page of the node itself.
    fn own_page(&self, route: RouteId, request: &Request<Incoming>) -> Outcome {
        let visitor = self.visitor.borrow();
        let caller = visitor.caller();
        Ok(match route {
            RouteId::Console => console::redirect(),
            RouteId::ConsoleFile => console::file(request.uri().path(), request.headers())?,
            RouteId::Whoami => pages::whoami(&self.local, caller),
            RouteId::Config => pages::config(&self.local.admin.config()),
            _ => {
                let is_stranger = caller.check(Permission::Observe).is_err();
                health::answer(&self.local.admin.metrics, route, is_stranger)
            }
        })
    }

    /// Notes a request that was slow.
    #[cold]
    fn note_slow(&self, route: RouteId, target: &PathAndQuery, took: Duration) {
        let route = &routes::ROUTES[route as usize];
        let words = [route.verb.name(), target.as_str()].map(str::as_bytes);
        let words = words.map(shortened_word).to_vec();
        let visitor = self.visitor.borrow();
        let name = visitor.caller().name().unwrap_or_default().as_bytes();
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let shared = &self.local.shared;
        let now_ms = shared.clock.now_ms();
        shared
            .insight
            .slow_log
            .add(now_ms, took_us, words, visitor.address(), name);
    }

    #[inline]
    fn finish(
        &self,
        route: Option<RouteId>,
        level: Option<ConsistencyLevel>,
        replicas: Option<u8>,
        noted: Noted,
        outcome: Outcome,
    ) -> Whole {
        let Noted {
            begun,
            target,
            asked,
            span,
        } = noted;
        if self.local.shared.audit.is_on() {
            let what = asked.map(|asked| asked.answered());
            self.audit(route, what.as_deref(), &outcome);
        }
        let mut response = outcome.unwrap_or_else(Problem::into_response);
        if let Some(mut span) = span {
            describe(&mut span, level, &response);
        }
        let cors = self.local.shared.cors.load();
        let visitor = self.visitor.borrow();
        let answered = response.body().size_hint().exact().unwrap_or_default();
        // What has come for requests behind one that is not counted is not that one's.
        // And of who is refused nobody knows how much was for requests of others behind it: it is spent of both.
        let is_denied = matches!(response.status().as_u16(), 401 | 403);
        let received = || {
            if is_denied {
                self.pace.received()
            } else {
                self.pace.take_received()
            }
        };
        let bytes = || received().saturating_add(answered);
        visitor.spend(bytes, response.headers_mut());
        cors.mark(visitor.origin(), response.headers_mut());
        drop(visitor);
        if let Some(level) = level {
            let is_done = response.status().is_success();
            let headers = response.headers_mut();
            headers.insert(X_CONSISTENCY_LEVEL, level::header(level));
            let replicas = replicas.unwrap_or_else(|| {
                // Where there is one replica of each, whoever shows something has it.
                let routes = self.local.routing.routes();
                u8::from(routes.is_none_or(|routes| !routes.view.fails_over()))
            });
            if is_done && replicas > 0 {
                headers.insert(X_REPLICAS, HeaderValue::from(u16::from(replicas)));
            }
        }
        if !response.status().is_success() && response.headers().contains_key(header::CONNECTION) {
            self.pace.leave_unread();
        }
        if self.local.is_draining() {
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let now = Instant::now();
        self.pace.answered(now);
        let took = now.saturating_duration_since(begun);
        self.local.counters.request(route, response.status(), took);
        if let (Some(route), Some(level)) = (route, level)
            && route.is_about_keys()
            && self.local.routing.routes().is_some()
        {
            let series = Series::of_route(route, level);
            self.local.counters.waited(series, took, 1);
        }
        let micros = took.as_micros() as u64;
        if let (Some(route), Some(target)) = (route, target)
            && self.local.shared.insight.slow_log.is_slow(micros)
        {
            self.note_slow(route, &target, took);
        }
        response
    }
}

/// What is to be told of a request when it is answered.
pub(crate) struct Noted {
    begun: Instant,
    /// What is asked for, if it may be called slow. Its bytes are shared with the request.
    target: Option<PathAndQuery>,
    /// What it was, if it is to be noted down what came of it.
    asked: Option<Box<Asked>>,
    /// If it is traced.
    span: Option<Box<Span>>,
}

impl Noted {
    /// Of a request of which nothing is to be told.
    fn at(begun: Instant) -> Self {
        Self {
            begun,
            target: None,
            asked: None,
            span: None,
        }
    }
}

impl Service {
    /// What is to be told of a request. A body comes as slowly as its client likes, so one that has any is not called slow.
    #[inline]
    fn note<B: Body>(
        &self,
        begun: Instant,
        lookup: &Result<Lookup, Problem>,
        request: &Request<B>,
    ) -> Noted {
        let shared = &self.local.shared;
        let is_watched =
            shared.insight.slow_log.threshold_us() >= 0 && request.body().is_end_stream();
        let target = request.uri().path_and_query();
        Noted {
            begun,
            target: target.filter(|_| is_watched).cloned(),
            asked: match lookup {
                Ok(Lookup::Found(route)) if shared.audit.is_on() => self.asked(route, request),
                _ => None,
            },
            span: match (&self.local.tracer, lookup) {
                (Some(tracer), Ok(Lookup::Found(route))) if route.place == Place::Data => {
                    let name = || format!("{} {}", route.verb.name(), route.path);
                    let span = tracer.begin_http(request.headers(), name);
                    span.map(|span| with_route(span, route))
                }
                _ => None,
            },
        }
    }

    /// What is asked for, for the audit log; none where it is no administrative action.
    fn asked<B>(&self, route: &Route, request: &Request<B>) -> Option<Box<Asked>> {
        if route.permission != Permission::Admin {
            return None;
        }
        // With its query, which says how it is meant: a key is revoked, or forgotten.
        let path = request
            .uri()
            .path_and_query()
            .map_or("", |all| all.as_str());
        let path: String = path.chars().take(AUDITED_PATH).collect();
        let visitor = self.visitor.borrow();
        Some(Box::new(Asked {
            what: format!("{} {path}", request.method()).into_boxed_str(),
            key: visitor.caller().name().map(str::to_owned),
            address: visitor.address(),
            local: Rc::clone(&self.local),
        }))
    }

    /// Notes down what was done, or denied, if it is to be.
    #[cold]
    fn audit(&self, route: Option<RouteId>, asked: Option<&str>, outcome: &Outcome) {
        let problem = outcome.as_ref().err().map(|problem| problem.code);
        let is_denied = problem.is_some_and(|code| matches!(code.status_number(), 401 | 403));
        if asked.is_none() && !is_denied {
            return;
        }
        let route = route.map(|id| &routes::ROUTES[id as usize]);
        // The path of what was denied may have a key of the cache in it.
        let form = route.map(|route| format!("{} {}", route.verb.name(), route.path));
        let answer = outcome.as_ref().ok();
        let detail = answer.and_then(|answer| answer.extensions().get::<Detail>());
        let what = asked.or(form.as_deref()).unwrap_or("unrouted");
        let what = match detail {
            Some(Detail(detail)) => Cow::Owned(format!("{what} {detail}")),
            None => Cow::Borrowed(what),
        };
        let status = answer.map(Response::status);
        let status = status.filter(|status| !status.is_success());
        let status = status.map(|status| status.as_str().to_owned());
        let visitor = self.visitor.borrow();
        let action = Action {
            protocol: "http",
            client: Some(visitor.address()),
            key: visitor.caller().name(),
            what: &what,
            outcome: match (is_denied, problem.is_some() || status.is_some()) {
                (true, _) => audit::Outcome::Denied,
                (false, true) => audit::Outcome::Failed,
                (false, false) => audit::Outcome::Done,
            },
            code: problem.map(Code::name).or(status.as_deref()),
        };
        let shared = &self.local.shared;
        shared.audit.note(shared.clock.now_ms(), &action);
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Whole;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let begun = self.pace.begin(Instant::now);
        let has_body = !request.body().is_end_stream();
        if has_body {
            self.pace.announce_body(request.body().size_hint().exact());
        }
        let seen = Seen::of(request.headers(), request.uri());
        self.visitor.borrow_mut().begin(&seen);
        if seen.is_of_page()
            && let Some(answer) = self.preflight(&request, begun)
        {
            let noted = Noted::at(begun);
            let answer = self.finish(None, None, None, noted, answer);
            return Answering::Now(Some(answer));
        }
        let lookup = self.look_up(&request, &seen, begun);
        let noted = self.note(begun, &lookup, &request);
        let entered = noted.span.as_ref().map(|span| traces::enter(span.scope()));
        let (route, level, answer) = match lookup {
            Ok(Lookup::Found(route))
                if route.place == Place::Data && self.local.shared.persistence.is_loading() =>
            {
                let detail = "it is done when GET /ready says 200";
                let problem = Problem::new(Code::Loading, detail);
                (Some(route), None, Answer::Now(Err(problem)))
            }
            Ok(Lookup::Found(route)) if route.place == Place::Data => {
                let default = self.local.shared.live.load().default_level;
                let default = match route.id {
                    // What is said to be restored is kept.
                    RouteId::Restore => level::at_least_quorum(default),
                    _ => default,
                };
                match level::of(request.headers(), default) {
                    Ok(level) => {
                        let now_ms = self.local.shared.clock.at(begun);
                        told::set_level(level);
                        // Apart from the others, so that the request is not moved once more.
                        let answer = if route.id == RouteId::Get {
                            single::get(&self.local, request.uri().query(), now_ms)
                        } else {
                            answer(&self.local, route.id, request, now_ms)
                        };
                        (Some(route), Some(level), answer)
                    }
                    Err(problem) => (Some(route), None, Answer::Now(Err(problem))),
                }
            }
            Ok(Lookup::Found(route)) if route.id == RouteId::Backup => {
                let answer = backup::ask(Rc::clone(&self.local), request);
                (Some(route), None, Answer::later(answer))
            }
            Ok(Lookup::Found(route)) if route.place == Place::Node => {
                let answer = self.own_page(route.id, &request);
                (Some(route), None, Answer::Now(answer))
            }
            Ok(Lookup::Found(route)) => {
                let answer = control::ask(Rc::clone(&self.local), route.id, request);
                (Some(route), None, Answer::later(answer))
            }
            // What was denied is counted as what it was.
            Err(problem) => (route_of(&request), None, Answer::Now(Err(problem))),
            Ok(Lookup::WrongMethod(allow, _)) => {
                let problem = Problem::method_not_allowed(allow);
                (None, None, Answer::Now(Err(problem)))
            }
            Ok(Lookup::Unknown(near)) => {
                let problem = unknown_route(request.uri().path(), &near);
                (None, None, Answer::Now(Err(problem)))
            }
        };
        let route = route.map(|route: &Route| route.id);
        let owed = self.local.gate.take_owed();
        let replicas = told::take_replicas();
        drop(entered);
        let is_owed = owed.is_some();
        let later = |stage, noted| Answering::Later {
            stage,
            owed,
            place: gate::Place::default(),
            service: self.clone(),
            route,
            level,
            replicas,
            noted: Some(noted),
            confined: self.local.confined(),
        };
        match answer {
            Answer::Now(outcome) => {
                if has_body {
                    self.pace.leave_unread();
                }
                if is_owed {
                    return later(Stage::Held(Some(outcome)), noted);
                }
                let response = self.finish(route, level, replicas, noted, outcome);
                Answering::Now(Some(response))
            }
            Answer::Later(future) => later(Stage::Working(future), noted),
        }
    }
}

/// What is known of a request from the beginning, by the conventions of OpenTelemetry for servers of HTTP. Nothing of its target is told
/// but its route, as there may be a key in it.
#[cold]
fn with_route(mut span: Box<Span>, route: &Route) -> Box<Span> {
    span.note("http.request.method", route.verb.name());
    span.note("http.route", route.path);
    span
}

/// What came of it.
#[cold]
fn describe(span: &mut Span, level: Option<ConsistencyLevel>, response: &Whole) {
    let status = response.status();
    span.note("http.response.status_code", i64::from(status.as_u16()));
    if let Some(level) = level {
        span.note("henge.consistency", level.name());
    }
    // What a client does wrong is no failure of the server.
    if status.is_server_error() {
        span.fail();
    }
}

/// An administrative action that is under way, for the audit log: of one whose client does not wait for the answer nobody knows here
/// what came of it.
pub(crate) struct Asked {
    what: Box<str>,
    key: Option<String>,
    address: SocketAddr,
    local: Rc<Local>,
}

impl Asked {
    /// What it was, of one that is answered.
    fn answered(mut self) -> Box<str> {
        std::mem::take(&mut self.what)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.what.is_empty() {
            return;
        }
        let action = Action {
            protocol: "http",
            client: Some(self.address),
            key: self.key.as_deref(),
            what: &self.what,
            outcome: audit::Outcome::Unknown,
            code: None,
        };
        let shared = &self.local.shared;
        shared.audit.note(shared.clock.now_ms(), &action);
    }
}

/// The route of a request that is not answered by it.
#[cold]
fn route_of<B>(request: &Request<B>) -> Option<&'static Route> {
    match routes::find(request.method(), request.uri().path()) {
        Lookup::Found(route) => Some(route),
        Lookup::WrongMethod(..) | Lookup::Unknown(_) => None,
    }
}

/// What RFC 9112 (3.2) and RFC 9110 (10.1.1) ask of every request, and hyper leaves to its user.
#[inline]
fn check_head<B>(request: &Request<B>) -> Result<(), Problem> {
    let headers = request.headers();
    if request.version() == Version::HTTP_11 {
        let hosts = headers.get_all(header::HOST).iter().take(2).count();
        if hosts != 1 {
            let detail = "a request of HTTP/1.1 has one Host header, not none and not two";
            return Err(Problem::new(Code::InvalidHost, detail));
        }
    }
    for expected in headers.get_all(header::EXPECT) {
        if !expected.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            let detail = format!("Expect is {expected:?}; only 100-continue is known");
            return Err(Problem::new(Code::ExpectationFailed, detail));
        }
    }
    Ok(())
}

fn unknown_route(path: &str, near: &[&str]) -> Problem {
    // What came is shown, but not all of a URL of 64 KiB.
    let shown: String = path.chars().take(80).collect();
    let detail = if near.is_empty() {
        format!("no route {shown}; GET /openapi.json lists all")
    } else {
        format!("no route {shown}; did you mean {}?", near.join(" or "))
    };
    Problem::new(Code::RouteNotFound, detail)
}

/// Runs the handler of a data route.
fn answer(local: &Rc<Local>, route: RouteId, request: Request<Incoming>, now_ms: u64) -> Answer {
    if !request.body().is_end_stream() {
        let headers = request.headers();
        let checked = body::check_encoding(headers).and_then(|()| {
            if routes::takes_json(route) {
                body::check_json(headers)?;
            }
            Ok(())
        });
        if let Err(problem) = checked {
            return Answer::Now(Err(problem));
        }
    }
    let local = Rc::clone(local);
    match route {
        RouteId::RawGet => raw::get(&local, &request, now_ms),
        RouteId::RawHead => raw::head(&local, &request, now_ms),
        RouteId::RawDelete => raw::delete(&local, &request, now_ms),
        RouteId::RawPut => Answer::later(raw::put(local, request)),
        RouteId::Delete => single::delete(&local, request.uri().query(), now_ms),
        RouteId::Ttl => single::ttl(&local, request.uri().query(), now_ms),
        RouteId::Exists => single::exists(&local, request.uri().query(), now_ms),
        RouteId::Set => Answer::later(single::set(local, request.into_body())),
        RouteId::GetPost => Answer::later(single::get_post(local, request.into_body())),
        RouteId::DeletePost => Answer::later(single::delete_post(local, request.into_body())),
        RouteId::TtlPost => Answer::later(single::ttl_post(local, request.into_body())),
        RouteId::ExistsPost => Answer::later(single::exists_post(local, request.into_body())),
        RouteId::Incr => Answer::later(single::incr(local, request.into_body())),
        RouteId::Expire => Answer::later(single::expire(local, request.into_body())),
        RouteId::Persist => Answer::later(single::persist(local, request.into_body())),
        RouteId::Mget => Answer::later(batch::mget(local, request.into_body())),
        RouteId::Mset => Answer::later(batch::mset(local, request.into_body())),
        RouteId::Mdelete => Answer::later(batch::mdelete(local, request.into_body())),
        RouteId::Why => Answer::later(insight::why(local, request)),
        RouteId::WhyPost => Answer::later(insight::why_post(local, request.into_body())),
        RouteId::Hot => Answer::Now(insight::hot(&local, request.uri().query())),
        RouteId::Big => Answer::later(insight::big(local, request)),
        RouteId::Slow => Answer::Now(insight::slow(&local, request.uri().query())),
        RouteId::Keys => Answer::later(keys::get(local, request)),
        RouteId::KeysPost => Answer::later(keys::post(local, request.into_body())),
        RouteId::Flush => Answer::later(keys::flush(local)),
        RouteId::Restore => Answer::later(restore::restore(local, request)),
        RouteId::Get
        | RouteId::Health
        | RouteId::Ready
        | RouteId::Whoami
        | RouteId::Config
        | RouteId::Console
        | RouteId::ConsoleFile
        | RouteId::Version
        | RouteId::Stats
        | RouteId::Metrics
        | RouteId::MetricsJson
        | RouteId::Cluster
        | RouteId::Ring
        | RouteId::Events
        | RouteId::Losses
        | RouteId::Settings
        | RouteId::SetSetting
        | RouteId::UnsetSetting
        | RouteId::AddNode
        | RouteId::DrainNode
        | RouteId::RemoveNode
        | RouteId::WeighNode
        | RouteId::Rebalance
        | RouteId::OpenApi
        | RouteId::Backup
        | RouteId::ApiKeys
        | RouteId::AddApiKey
        | RouteId::RevokeApiKey
        | RouteId::SetRole
        | RouteId::UnsetRole
        | RouteId::Reload
        | RouteId::Snapshot => unreachable!("{route:?} is not answered here"),
    }
}

/// The future of an answer.
pub(crate) enum Answering {
    Now(Option<Whole>),
    Later {
        stage: Stage,
        /// What has to be there before what was shown or written until now may be told.
        owed: Option<Owed>,
        /// Its place among those that wait for that.
        place: gate::Place,
        service: Service,
        route: Option<RouteId>,
        level: Option<ConsistencyLevel>,
        /// How many replicas are known to have what was shown until now; none if nothing was said of that.
        replicas: Option<u8>,
        /// The key of who asks, if it is confined to some keys of the cache.
        confined: Option<Arc<Key>>,
        /// None once it is answered.
        noted: Option<Noted>,
    },
}

/// How far an answer is that comes later.
pub(crate) enum Stage {
    Working(Pin<Box<dyn Future<Output = Outcome>>>),
    /// It is there, and waits for the log.
    Held(Option<Outcome>),
}

impl Future for Answering {
    type Output = Result<Whole, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(response) => {
                Poll::Ready(Ok(response.take().expect("polled once after it was ready")))
            }
            Self::Later {
                stage,
                owed,
                place,
                service,
                route,
                level,
                replicas,
                confined,
                noted,
            } => {
                let gate = &service.local.gate;
                if let Stage::Working(future) = stage {
                    if let Some(level) = level {
                        told::set_level(*level);
                    }
                    service.local.confine(confined.as_ref());
                    let span = noted.as_ref().and_then(|noted| noted.span.as_ref());
                    let entered = span.map(|span| traces::enter(span.scope()));
                    let polled = future.as_mut().poll(cx);
                    Owed::add(owed, gate.take_owed());
                    drop(entered);
                    let known = told::take_replicas();
                    *replicas = match (*replicas, known) {
                        (Some(before), Some(now)) => Some(before.min(now)),
                        (before, now) => before.or(now),
                    };
                    *stage = Stage::Held(Some(ready!(polled)));
                }
                let told = match owed {
                    None => Ok(()),
                    Some(owed) => ready!(gate.poll_owed(owed, place, cx)),
                };
                let Stage::Held(outcome) = stage else {
                    unreachable!("it was made so above");
                };
                let outcome = outcome.take().expect("polled once after it was ready");
                let outcome = match told {
                    Ok(()) => outcome,
                    Err(why @ Untold::Replies(_)) if why.worst() != Bad::Unknown => {
                        Err(single::not_open())
                    }
                    Err(Untold::Replies(_)) => Err(Problem::new(
                        Code::OutcomeUnknown,
                        "replicas have not said in time that they have it: what was written may or may not have been",
                    )),
                    Err(Untold::NotKept) => Err(Problem::new(
                        Code::OutcomeUnknown,
                        "the write-ahead log failed meanwhile: what was written, or seen, may or may not survive a restart",
                    )),
                };
                Poll::Ready(Ok(service.finish(
                    *route,
                    *level,
                    *replicas,
                    noted.take().expect("polled once after it was ready"),
                    outcome,
                )))
            }
        }
    }
}
