//! A connection that speaks HTTP/1.1, by hyper. hyper leaves it to the caller to drive a connection; that is done here
//! beside each request and not by a task, so that a connection that is dropped leaves nothing behind.

mod form;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use crate::{Answer, Cause, ConsistencyLevel, Error, Request, Settings, Socket, Target};

/// Where a server looks for an API key.
const X_API_KEY: http::HeaderName = http::HeaderName::from_static("x-api-key");

/// Where a server looks for the level of a request.
const X_CONSISTENCY_LEVEL: http::HeaderName = http::HeaderName::from_static("x-consistency-level");

type Body = Full<Bytes>;
type Driver = http1::Connection<TokioIo<Socket>, Body>;

pub(crate) struct HttpLink {
    sender: http1::SendRequest<Body>,
    /// None once the connection is closed.
    driver: Option<Driver>,
    host: http::HeaderValue,
    api_key: Option<http::HeaderValue>,
    max_answer_bytes: usize,
    /// Set while a request is on its way, so that it stays set when one fails or is dropped halfway. hyper closes such a
    /// connection too, but does not promise it.
    is_engaged: bool,
}

impl HttpLink {
    pub(crate) async fn open(
        socket: Socket,
        target: &Target,
        settings: &Settings,
    ) -> Result<Self, Cause> {
        let wrong = |_| Cause::Protocol("the host cannot stand in an HTTP header".to_owned());
        let host = http::HeaderValue::try_from(target.server()).map_err(wrong)?;
        let api_key = settings.api_key.as_ref().map(|key| {
            let value = http::HeaderValue::try_from(key.reveal());
            let mut value = value.expect("visible characters can stand in a header");
            value.set_sensitive(true);
            value
        });
        let (sender, driver) = http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| cause_of(&error))?;
        Ok(Self {
            sender,
            driver: Some(driver),
            host,
            api_key,
            max_answer_bytes: settings.max_answer_bytes,
            is_engaged: false,
        })
    }

    pub(crate) fn is_usable(&mut self) -> bool {
        // Only looks; whoever uses the connection next polls it again with a waker of its own.
        let mut context = Context::from_waker(Waker::noop());
        poll_driver(&mut self.driver, &mut context);
        !self.is_engaged && self.driver.is_some() && !self.sender.is_closed()
    }

    pub(crate) async fn execute(
        &mut self,
        request: &Request<'_>,
        level: Option<ConsistencyLevel>,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let mut sent = form::request(request, &self.host);
        if let Some(level) = level {
            let level = http::HeaderValue::from_static(level.name());
            sent.headers_mut().insert(X_CONSISTENCY_LEVEL, level);
        }
        let mut was_sent = false;
        let exchanged = self.exchange_until(sent, deadline, &mut was_sent).await;
        let cause = match exchanged.map(|(status, body)| form::answer(request, status, body)) {
            Ok(Ok(answer)) => return answer,
            Ok(Err(cause)) | Err(cause) => cause,
        };
        Err(Error::without_answer(cause, was_sent && request.is_write()))
    }

    /// What the server says of its cluster: a status, and JSON if that is one of success.
    pub(crate) async fn cluster_status(
        &mut self,
        deadline: Instant,
    ) -> Result<(http::StatusCode, Bytes), Error> {
        let sent = form::cluster_status(&self.host);
        let exchanged = self.exchange_until(sent, deadline, &mut false).await;
        exchanged.map_err(Error::Unanswered)
    }

    async fn exchange_until(
        &mut self,
        mut request: http::Request<Body>,
        deadline: Instant,
        was_sent: &mut bool,
    ) -> Result<(http::StatusCode, Bytes), Cause> {
        if self.is_engaged {
            return Err(Cause::Closed);
        }
        if let Some(key) = &self.api_key {
            request.headers_mut().insert(X_API_KEY, key.clone());
        }
        self.is_engaged = true;
        let began = Instant::now();
        match timeout_at(deadline, self.exchange(request, was_sent)).await {
            Ok(Ok(response)) => {
                self.is_engaged = false;
                Ok(response)
            }
            Ok(Err(cause)) => Err(cause),
            Err(_) => Err(Cause::TimedOut(deadline.duration_since(began))),
        }
    }

    async fn exchange(
        &mut self,
        request: http::Request<Body>,
        was_sent: &mut bool,
    ) -> Result<(http::StatusCode, Bytes), Cause> {
        let Self { sender, driver, .. } = self;
        driven(driver, sender.ready())
            .await
            .map_err(|error| cause_of(&error))?;
        // From here on hyper may write it at any time; it says so if it did not.
        *was_sent = true;
        let response = match driven(driver, sender.try_send_request(request)).await {
            Ok(response) => response,
            Err(mut error) => {
                *was_sent = error.take_message().is_none();
                return Err(cause_of(error.error()));
            }
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), self.max_answer_bytes);
        let body = driven(driver, body.collect()).await.map_err(|error| {
            match error.downcast_ref::<hyper::Error>() {
                Some(error) => cause_of(error),
                None if error.is::<LengthLimitError>() => {
                    Cause::Protocol("the answer is larger than it may be".to_owned())
                }
                None => Cause::Protocol(error.to_string()),
            }
        })?;
        Ok((status, body.to_bytes()))
    }
}

impl std::fmt::Debug for HttpLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpLink")
            .field("host", &self.host)
            .field("is_open", &self.driver.is_some())
            .finish_non_exhaustive()
    }
}

/// Does the work, and beside it what the connection has to do for it.
async fn driven<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        // First, so that what came is handed to the work in the same turn.
        poll_driver(driver, context);
        work.as_mut().poll(context)
    })
    .await
}

/// Lets the connection do what it can. Why it ended, the request learns that was on its way.
fn poll_driver(driver: &mut Option<Driver>, context: &mut Context<'_>) {
    if let Some(running) = driver
        && let Poll::Ready(_) = Pin::new(running).poll(context)
    {
        *driver = None;
    }
}

fn cause_of(error: &hyper::Error) -> Cause {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return std::io::Error::new(io.kind(), io.to_string()).into();
        }
        source = inner.source();
    }
    if error.is_parse() {
        Cause::Protocol(format!("the answer is not HTTP/1.1: {error}"))
    } else {
        // The connection ended before the message did, or before it began.
        Cause::Closed
    }
}
