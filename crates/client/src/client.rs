//! The client: a pool, and a method for each request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::pool::Pool;
use crate::{Answer, Error, Lifetime, Request, Scan, SetOptions, Settings, Target};

/// A time-out beyond this is none: an instant that is further away than the clock reaches would be a panic.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24 * 365);

/// As many connections as answer most programs; each is a file handle here and there.
const POOL_SIZE: usize = 16;

/// A client of one server. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Arc<Pool>,
}

/// What a client should be like.
#[derive(Clone, Debug)]
pub struct Builder {
    target: Target,
    settings: Settings,
    pool_size: usize,
}

impl Builder {
    /// The most connections at a time, at least 1; 16 if it is not said.
    #[must_use]
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool_size = connections;
        self
    }

    /// How long to wait for a connection; 5 seconds if it is not said.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout.min(LONGEST_TIMEOUT);
        self
    }

    /// How long a request may take, with the wait for a connection; 5 seconds if it is not said.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.request_timeout = timeout.min(LONGEST_TIMEOUT);
        self
    }

    /// The most bytes of an answer; 512 MiB if it is not said.
    #[must_use]
    pub fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_answer_bytes = bytes;
        self
    }

    /// The client, with one connection open, so that a server that is not there is found out now.
    pub async fn connect(self) -> Result<Client, Error> {
        let pool = Pool::new(self.target, self.settings, self.pool_size);
        let deadline = Instant::now() + self.settings.connect_timeout;
        let checkout = pool.check_out(deadline).await?;
        let connection = checkout.fresh(deadline).await?;
        checkout.give_back(connection);
        Ok(Client {
            pool: Arc::new(pool),
        })
    }
}

/// A method for each request: what it is called and takes, the request, and its answer.
macro_rules! answered {
    ($self:ident, $request:expr, $answer:ident) => {
        match $self.execute(&$request).await? {
            Answer::$answer(answer) => Ok(answer),
            other => unreachable!("{other:?} is the answer to another request"),
        }
    };
}

impl Client {
    /// A client of `redis://host:port` or `http://host:port`, with one connection open.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder(url)?.connect().await
    }

    /// A client that is to be set up.
    pub fn builder(url: &str) -> Result<Builder, Error> {
        Ok(Builder {
            target: url.parse()?,
            settings: Settings::default(),
            pool_size: POOL_SIZE,
        })
    }

    /// The value of a key, none if it is not there.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        let key = key.as_ref();
        answered!(self, Request::Get { key }, Value)
    }

    /// Stores a value; false if the condition of the options does not hold.
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: SetOptions,
    ) -> Result<bool, Error> {
        let (key, value) = (key.as_ref(), value.as_ref());
        let request = Request::Set {
            key,
            value,
            options,
        };
        answered!(self, request, Stored)
    }

    /// Removes a key; whether it was there.
    pub async fn del(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let key = key.as_ref();
        answered!(self, Request::Delete { key }, Deleted)
    }

    /// Adds to an integer of 64 bits, and answers the sum. An absent one is 0.
    pub async fn incr(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, Error> {
        let key = key.as_ref();
        answered!(self, Request::Increment { key, by }, Counted)
    }

    /// How long a key has left.
    pub async fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Lifetime, Error> {
        let key = key.as_ref();
        answered!(self, Request::Lifetime { key }, Lifetime)
    }

    /// Gives a key a new lifetime, longer than zero; whether the key is there.
    pub async fn expire(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool, Error> {
        let key = key.as_ref();
        answered!(self, Request::Expire { key, ttl }, Expires)
    }

    /// The keys that match a pattern (`*`, `?`, `[a-z]`, `\` before what stands for itself), page by page. A key that is
    /// there throughout is found at least once.
    pub fn scan(&self, pattern: impl AsRef<[u8]>) -> Scan<'_> {
        Scan::new(self, pattern.as_ref().to_vec())
    }

    /// Whether the server answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.execute(&Request::Ping).await.map(drop)
    }

    /// Sends a request over a connection of the pool, and waits for its answer, within the request's time-out.
    pub async fn execute(&self, request: &Request<'_>) -> Result<Answer, Error> {
        request.check()?;
        let deadline = Instant::now() + self.pool.request_timeout();
        let checkout = self.pool.check_out(deadline).await?;
        let mut connection = checkout.connection(deadline).await?;
        let mut answer = connection.execute_until(request, deadline).await;
        if let Err(error) = &answer
            && error.is_worth_a_retry()
            && !request.is_write()
        {
            // Those that are idle may be as broken as this one was.
            connection = checkout.fresh(deadline).await?;
            answer = connection.execute_until(request, deadline).await;
        }
        if connection.is_usable() {
            checkout.give_back(connection);
        }
        answer
    }
}
