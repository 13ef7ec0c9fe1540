//! One connection, of either protocol, to one server. It is used by one request after the other, or by a pipeline of them;
//! after an error it is of no more use, and says so.

use std::time::Duration;

use henge_wire::resp::reply::{Limits, Reply};
use tokio::time::{Instant, timeout_at};

use crate::http::HttpLink;
use crate::map::{Map, Told};
use crate::resp::{RespLink, refused};
use crate::socket::{NO_AUTHORITIES, Socket};
use crate::{Answer, ApiKey, Cause, ConsistencyLevel, Error, Request, Target, Tls};

/// How long to wait, and for how much.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long a request may take, from the moment it is made to its whole answer.
    pub request_timeout: Duration,
    /// The most bytes that an answer may have.
    pub max_answer_bytes: usize,
    /// The API key that is shown to servers, if any.
    pub api_key: Option<ApiKey>,
    /// Whom to trust over TLS, if that is spoken.
    pub tls: Option<Tls>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // A lost SYN is sent again after one second, and after two more.
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            max_answer_bytes: Limits::default().bytes,
            api_key: None,
            tls: None,
        }
    }
}

/// A connection to a server. It takes values as they are, and seals none; [`EncryptionKeys`](crate::EncryptionKeys) does.
#[derive(Debug)]
pub struct Connection {
    settings: Settings,
    link: Link,
}

#[derive(Debug)]
enum Link {
    Resp(Box<RespLink>),
    Http(Box<HttpLink>),
}

impl Connection {
    /// Connects to a server.
    pub async fn open(target: &Target, settings: Settings) -> Result<Self, Error> {
        let deadline = Instant::now() + settings.connect_timeout;
        Self::open_until(target, settings, deadline).await
    }

    /// Connects until the deadline, which may be earlier than the settings have it.
    pub(crate) async fn open_until(
        target: &Target,
        settings: Settings,
        deadline: Instant,
    ) -> Result<Self, Error> {
        if target.scheme.is_secure() && settings.tls.is_none() {
            return Err(Error::Argument(NO_AUTHORITIES));
        }
        let failed = |cause: Cause| Error::Connect {
            server: target.server(),
            cause,
        };
        let dial = async {
            let socket = Socket::open(target, settings.tls.as_ref())
                .await
                .map_err(Cause::Io)?;
            if target.scheme.is_http() {
                let link = HttpLink::open(socket, target, &settings).await?;
                return Ok(Link::Http(Box::new(link)));
            }
            let mut link = RespLink::new(socket, settings.max_answer_bytes);
            if let Some(key) = &settings.api_key {
                link.log_in(key, deadline).await?;
            }
            Ok(Link::Resp(Box::new(link)))
        };
        let began = Instant::now();
        match timeout_at(deadline, dial).await {
            Ok(Ok(link)) => Ok(Self { settings, link }),
            Ok(Err(cause)) => Err(failed(cause)),
            Err(_) => Err(failed(Cause::TimedOut(deadline.duration_since(began)))),
        }
    }

    /// Sends a request and waits for its answer.
    pub async fn execute(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.settings.request_timeout;
        self.execute_until(request, None, deadline).await
    }

    pub(crate) async fn execute_until(
        &mut self,
        request: &Request<'_>,
        level: Option<ConsistencyLevel>,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let mut answer = None;
        let requests = std::slice::from_ref(request);
        self.pipeline_until(requests, level, deadline, |_, found| answer = Some(found))
            .await?;
        answer.expect("a pipeline without an error answers each request")
    }

    /// As [`Self::execute_until`], of a server that the owner of the key has named for this one time.
    pub(crate) async fn execute_asking(
        &mut self,
        request: &Request<'_>,
        level: Option<ConsistencyLevel>,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        match &mut self.link {
            Link::Resp(link) => {
                let key = self.settings.api_key.as_ref();
                link.use_level(level, key, deadline).await?;
                link.execute_asking(request, deadline).await
            }
            // Only the Redis protocol has such answers.
            Link::Http(link) => link.execute(request, level, deadline).await,
        }
    }

    /// Asks the server, which is this one, for the map of its cluster.
    pub(crate) async fn map(&mut self, target: &Target, deadline: Instant) -> Result<Told, Error> {
        match &mut self.link {
            Link::Resp(link) => {
                let reply = link.query(&[b"CLUSTER", b"SHARDS"], deadline).await?;
                let Reply::Error(text) = &reply else {
                    return Ok(Told::of(Map::of_shards(&reply, target)));
                };
                let refusal = refused(text);
                if refusal.is_passing() || refusal.is_of_rate() {
                    return Ok(Told::NotYet);
                }
                // Servers before Redis 7 have the cluster and not this form of its map.
                if !refusal.to_string().to_lowercase().contains("subcommand") {
                    return Ok(Told::Alone);
                }
                let reply = link.query(&[b"CLUSTER", b"SLOTS"], deadline).await?;
                Ok(Told::of(Map::of_slots(&reply, target)))
            }
            Link::Http(link) => {
                let (status, body) = link.cluster_status(deadline).await?;
                // Nor does one that may not ask, or asks too often, hear that there is no cluster.
                if matches!(status.as_u16(), 401 | 403 | 429 | 503) {
                    return Ok(Told::NotYet);
                }
                let map = status.is_success().then(|| Map::of_status(&body, target));
                Ok(Told::of(map.flatten()))
            }
        }
    }

    /// Whether the server, which speaks the Redis protocol, is a node of Henge.
    pub(crate) async fn is_to_henge(&mut self, deadline: Instant) -> Result<bool, Error> {
        let Link::Resp(link) = &mut self.link else {
            return Ok(false);
        };
        // Servers before Redis 6 do not know it, and others may want a password first.
        Ok(match link.query(&[b"HELLO"], deadline).await? {
            Reply::Array(words) => words
                .chunks_exact(2)
                .any(|pair| is_name_of_henge(&pair[0], &pair[1])),
            Reply::Map(pairs) => pairs
                .iter()
                .any(|(name, value)| is_name_of_henge(name, value)),
            _ => false,
        })
    }

    /// Sends all requests, and hands over the answer of each, with its place among them, as soon as it is there. Answers come in the order
    /// of the requests. The whole has the time of one request.
    ///
    /// HTTP has no pipeline that servers can be relied on to understand: there each request waits for the answer before it.
    ///
    /// # Errors
    /// What a server refuses, or by the Redis protocol that it does not know what a write did, is handed over as the answer of that request. Any other error ends the connection; requests
    /// whose answers were not handed over got none, and if a write may be among those that were sent, it is
    /// [`Error::Unknown`].
    pub async fn pipeline(
        &mut self,
        requests: &[Request<'_>],
        on_answer: impl FnMut(usize, Result<Answer, Error>),
    ) -> Result<(), Error> {
        let deadline = Instant::now() + self.settings.request_timeout;
        self.pipeline_until(requests, None, deadline, on_answer)
            .await
    }

    async fn pipeline_until(
        &mut self,
        requests: &[Request<'_>],
        level: Option<ConsistencyLevel>,
        deadline: Instant,
        mut on_answer: impl FnMut(usize, Result<Answer, Error>),
    ) -> Result<(), Error> {
        for request in requests {
            request.check()?;
        }
        match &mut self.link {
            Link::Resp(link) => {
                let key = self.settings.api_key.as_ref();
                link.use_level(level, key, deadline).await?;
                link.pipeline(requests, deadline, on_answer).await
            }
            Link::Http(link) => {
                for (place, request) in requests.iter().enumerate() {
                    match link.execute(request, level, deadline).await {
                        Err(error @ Error::Refused { .. }) => on_answer(place, Err(error)),
                        other => on_answer(place, Ok(other?)),
                    }
                }
                Ok(())
            }
        }
    }

    /// Whether a request at this level can be sent without another one before it.
    pub(crate) fn is_at(&self, level: Option<ConsistencyLevel>) -> bool {
        match &self.link {
            Link::Resp(link) => link.level() == level,
            // Each request says it.
            Link::Http(_) => true,
        }
    }

    /// Whether another request may be sent: none was given up halfway, and the server has not closed the connection.
    pub fn is_usable(&mut self) -> bool {
        match &mut self.link {
            Link::Resp(link) => link.is_usable(),
            Link::Http(link) => link.is_usable(),
        }
    }
}

fn is_name_of_henge(field: &Reply, value: &Reply) -> bool {
    let is = |reply: &Reply, text: &[u8]| matches!(reply, Reply::Bulk(bytes) if bytes == text);
    is(field, b"server") && is(value, b"henge")
}
