//! A request to a node over HTTP, and the page that it answers with or why there is none. What is asked for is for others; nothing is
//! asked twice, as only who asks knows what may be.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use henge_client::{Socket, Target};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::table::printable;
use super::{api_key, tls};

/// The longest page that is taken: hundreds of members, each with a partition of its own here and there, are a few hundred KiB.
const MAX_PAGE_BYTES: usize = 16 << 20;

/// Why nothing was found out.
#[derive(Debug)]
pub(super) enum InquiryError {
    /// There is no connection.
    Connect(io::Error),
    /// The connection failed, or what came over it.
    Http(String),
    /// Nothing came for so long.
    TimedOut(Duration),
    /// It failed after a change was asked for, which may be done: what may be so.
    Unknown(Box<Self>, &'static str),
    /// A change was made, and what comes of it was not seen to its end.
    Unwatched(Box<Self>),
    /// A change was made, and somebody else has undone it since: how it is now.
    Undone(String),
    /// It failed before a change was asked for.
    Unchanged(Box<Self>),
    /// The node says no, and perhaps why.
    Refused(StatusCode, Option<String>),
    /// What came is not what a node says.
    NoPage(String),
    System(io::Error),
}

impl fmt::Display for InquiryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "no connection to the node: {error}"),
            Self::Http(error) => write!(f, "the connection to the node failed: {error}"),
            Self::TimedOut(after) => write!(f, "the node did not answer within {after:?}"),
            Self::Unknown(error, may_be) => write!(f, "{error}; {may_be}"),
            Self::Unwatched(error) => write!(
                f,
                "{error}; it is agreed on, and partitions move without being watched"
            ),
            Self::Undone(now) => write!(f, "it was undone by somebody else meanwhile: {now}"),
            Self::Unchanged(error) => write!(f, "{error}; nothing was changed"),
            Self::Refused(StatusCode::UNAUTHORIZED, None) => f.write_str(
                "the node refused: it wants an API key that holds; expected one in HENGE_API_KEY",
            ),
            Self::Refused(status, None) => write!(f, "the node refused: {status}"),
            Self::Refused(status, Some(why)) => write!(f, "the node refused: {status}: {why}"),
            Self::NoPage(why) => write!(f, "what came is nothing that a node says: {why}"),
            Self::System(error) => error.fmt(f),
        }
    }
}

/// The page of a path, as JSON, within a time.
pub(super) async fn page(
    target: &Target,
    path: &str,
    timeout: Duration,
) -> Result<Value, InquiryError> {
    page_of(
        (Method::GET, path.to_owned(), String::new()),
        target,
        timeout,
    )
    .await
}

/// The same of a question that is in the body.
pub(super) async fn page_for(
    target: &Target,
    path: &str,
    question: &Value,
    timeout: Duration,
) -> Result<Value, InquiryError> {
    let request = (Method::POST, path.to_owned(), question.to_string());
    page_of(request, target, timeout).await
}

async fn page_of(
    request: (Method, String, String),
    target: &Target,
    timeout: Duration,
) -> Result<Value, InquiryError> {
    let is_sent = AtomicBool::new(false);
    let asked = tokio::time::timeout(timeout, ask(target, request, &is_sent)).await;
    let page = asked.unwrap_or(Err(InquiryError::TimedOut(timeout)))?;
    serde_json::from_slice(&page).map_err(|error| InquiryError::NoPage(error.to_string()))
}

/// A path of something of a name, in which nothing means anything in a path or a query.
pub(super) fn path_of(begin: &str, name: &[u8]) -> String {
    let mut path = begin.to_owned();
    for &byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                path.push(byte.into());
            }
            _ => {
                let _ = write!(path, "%{byte:02X}");
            }
        }
    }
    path
}

/// Asks for a method, a path and a body, and notes when something may have left.
pub(super) async fn ask(
    target: &Target,
    request: (Method, String, String),
    is_sent: &AtomicBool,
) -> Result<Bytes, InquiryError> {
    let mut node = Connection::open(target).await?;
    let (status, page) = node.send(request, is_sent).await?;
    granted(status, page)
}

/// What came, if that is what was asked for, and not why it was not done.
pub(super) fn granted(status: StatusCode, page: Bytes) -> Result<Bytes, InquiryError> {
    if status.is_success() {
        return Ok(page);
    }
    let problem: Option<Value> = serde_json::from_slice(&page).ok();
    let why = problem.and_then(|problem| problem["detail"].as_str().map(printable));
    Err(InquiryError::Refused(status, why))
}

/// A connection to a node, on which one request goes after the other.
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    pub(super) async fn open(target: &Target) -> Result<Self, InquiryError> {
        let tls = tls::towards(target).map_err(InquiryError::Connect)?;
        let connected = Socket::open(target, tls.as_ref()).await;
        let socket = connected.map_err(InquiryError::Connect)?;
        let (sender, driver) = http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| http(&error))?;
        // It ends with the connection, and what went wrong there the request is told.
        tokio::spawn(driver);
        Ok(Self {
            sender,
            host: target.server(),
        })
    }

    /// Asks for a method, a path and a body, and notes when something may have left.
    pub(super) async fn send(
        &mut self,
        request: (Method, String, String),
        is_sent: &AtomicBool,
    ) -> Result<(StatusCode, Bytes), InquiryError> {
        let answer = self.exchange(request, is_sent).await?;
        Ok((answer.status(), answer.into_body()))
    }

    /// The same with the head of the answer.
    pub(super) async fn exchange(
        &mut self,
        (method, path, body): (Method, String, String),
        is_sent: &AtomicBool,
    ) -> Result<Response<Bytes>, InquiryError> {
        let key = api_key::header().map_err(|error| InquiryError::Http(error.to_string()))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, &self.host);
        if let Some(key) = key {
            request = request.header(api_key::X_API_KEY, key);
        }
        if body.starts_with(['{', '[']) {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| InquiryError::Http(error.to_string()))?;
        self.sender.ready().await.map_err(|error| http(&error))?;
        is_sent.store(true, Ordering::Relaxed);
        let response = self
            .sender
            .send_request(request)
            .await
            .map_err(|error| http(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_PAGE_BYTES);
        let whole = body.collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                InquiryError::NoPage(format!("it is longer than {MAX_PAGE_BYTES} bytes"))
            } else {
                InquiryError::Http(error.to_string())
            }
        })?;
        Ok(Response::from_parts(head, whole.to_bytes()))
    }
}

fn http(error: impl Error) -> InquiryError {
    let source = error.source().map(|source| format!(": {source}"));
    InquiryError::Http(format!("{error}{}", source.unwrap_or_default()))
}

/// A node that answers a few paths with pages, and all others with 404.
#[cfg(test)]
pub(super) mod canned {
    use std::net::SocketAddr;

    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    type Pages = &'static [(&'static str, &'static str)];

    /// Its address. It serves as long as the test's runtime runs.
    pub(in crate::cli) async fn node(pages: Pages) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has one");
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket, pages));
            }
        });
        address
    }

    async fn answer(mut socket: TcpStream, pages: Pages) {
        let (read, mut write) = socket.split();
        let mut lines = BufReader::new(read).lines();
        let mut path = String::new();
        while let Ok(Some(line)) = lines.next_line().await {
            if !line.is_empty() {
                if path.is_empty() {
                    line.split(' ')
                        .nth(1)
                        .unwrap_or_default()
                        .clone_into(&mut path);
                }
                continue;
            }
            let page = pages.iter().find(|(known, _)| *known == path);
            let (status, body) = page.map_or(("404 Not Found", ""), |(_, page)| ("200 OK", page));
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            if write.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            path.clear();
        }
    }
}
