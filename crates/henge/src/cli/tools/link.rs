//! A connection over HTTP to a node that a tool asks many things, made anew when it breaks. It says what went wrong and whether that may pass,
//! and repeats nothing by itself: only who asks knows what may be asked twice.

use std::fmt;
use std::io;
use std::time::Duration;

use henge_client::{Socket, Target};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::cli::api_key::{self, X_API_KEY};
use crate::cli::tls;

/// The longest answer that is taken: the longest frame, and as much beside it.
const MAX_ANSWER_BYTES: usize = 1 << 32;

/// Why there is no answer, or none that is a 200.
#[derive(Debug)]
pub(super) enum LinkError {
    /// There is no connection: nothing was asked.
    Connect(io::Error),
    /// The connection failed, or what came over it.
    Http(String),
    /// Nothing came for so long.
    TimedOut(Duration),
    /// The node says no: the status, and the code of the problem.
    Refused(StatusCode, Refusal),
}

/// What a problem says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    /// Its code; empty of one that has none.
    pub(super) code: String,
    detail: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.code[..], &self.detail[..]) {
            ("", _) => f.write_str("it does not say why"),
            (code, "") => f.write_str(code),
            (code, detail) => write!(f, "{code}: {detail}"),
        }
    }
}

impl Refusal {
    /// Reads the members of a problem.
    pub(super) fn of(problem: &serde_json::Value) -> Self {
        let text = |name: &str| problem[name].as_str().map(str::to_owned);
        Self {
            code: text("code").unwrap_or_default(),
            detail: text("detail").or_else(|| text("title")).unwrap_or_default(),
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "no connection to the node: {error}"),
            Self::Http(error) => write!(f, "the connection to the node failed: {error}"),
            Self::TimedOut(after) => write!(f, "the node did not answer within {after:?}"),
            Self::Refused(status, said) => write!(f, "the node refused ({status}): {said}"),
        }
    }
}

impl LinkError {
    /// Whether it is the connection that failed, so that it is to be made anew and another node may be better.
    pub(super) fn is_of_connection(&self) -> bool {
        !matches!(self, Self::Refused(..))
    }

    /// Whether another node may answer soon, or does already.
    pub(super) fn may_move(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Http(_) | Self::TimedOut(_) => true,
            Self::Refused(status, _) => matches!(
                *status,
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            ),
        }
    }
}

/// See the head of the file.
pub(super) struct Link {
    target: Target,
    patience: Duration,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
}

impl Link {
    pub(super) fn new(target: Target, patience: Duration) -> Self {
        Self {
            target,
            patience,
            sender: None,
        }
    }

    /// The node at its other end.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The next request takes another connection.
    pub(super) fn drop_connection(&mut self) {
        self.sender = None;
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        let tls = tls::towards(&self.target).map_err(LinkError::Connect)?;
        let connecting = Socket::open(&self.target, tls.as_ref());
        let socket = self
            .in_time(connecting)
            .await?
            .map_err(LinkError::Connect)?;
        let shaken = http1::handshake(TokioIo::new(socket)).await.map_err(http)?;
        let (sender, driver) = shaken;
        // It ends with the connection, and what went wrong there the request is told.
        tokio::spawn(driver);
        self.sender = Some(sender);
        Ok(())
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, LinkError> {
        let worked = timeout(self.patience, work).await;
        worked.map_err(|_| LinkError::TimedOut(self.patience))
    }

    /// What is answered to a path, where that is a 200.
    pub(super) async fn get(&mut self, path: &str) -> Result<(HeaderMap, Vec<u8>), LinkError> {
        self.ask(Request::get(path), Bytes::new()).await
    }

    /// What is answered to bytes that are sent to a path, where that is a 200.
    pub(super) async fn post(&mut self, path: &str, body: Bytes) -> Result<Vec<u8>, LinkError> {
        let request =
            Request::post(path).header(http::header::CONTENT_TYPE, "application/octet-stream");
        let (_, answer) = self.ask(request, body).await?;
        Ok(answer)
    }

    async fn ask(
        &mut self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<(HeaderMap, Vec<u8>), LinkError> {
        if self.sender.is_none() {
            self.connect().await?;
        }
        let mut request = request.header(http::header::HOST, self.target.server());
        if let Some(key) = api_key::header().map_err(http)? {
            request = request.header(X_API_KEY, key);
        }
        let request = request.body(Full::new(body)).map_err(http)?;
        let sender = self.sender.as_mut().expect("it was connected above");
        let patience = self.patience;
        let late = |_| LinkError::TimedOut(patience);
        let answering = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let response = timeout(patience, answering)
            .await
            .map_err(late)?
            .map_err(http)?;
        let (parts, body) = response.into_parts();
        let body = self.body(body).await?;
        if parts.status != StatusCode::OK {
            let problem = serde_json::from_slice(&body).unwrap_or_default();
            return Err(LinkError::Refused(parts.status, Refusal::of(&problem)));
        }
        Ok((parts.headers, body))
    }

    async fn body(&self, mut body: Incoming) -> Result<Vec<u8>, LinkError> {
        let mut bytes = Vec::new();
        // However long it is, something of it has to come in time.
        while let Some(some) = self.in_time(body.frame()).await? {
            if let Ok(data) = some.map_err(http)?.into_data() {
                if bytes.len() + data.len() > MAX_ANSWER_BYTES {
                    return Err(LinkError::Http("the answer has no end".to_owned()));
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes)
    }
}

fn http(error: impl std::error::Error) -> LinkError {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        line = format!("{line}: {inner}");
        source = inner.source();
    }
    LinkError::Http(line)
}
