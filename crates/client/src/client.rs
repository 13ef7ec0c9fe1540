//! The client: a method for each request; where it is sent again, and what never is; and the one place where values are sealed
//! and opened.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Cluster, Member};
use crate::map::Redirect;
use crate::{
    Answer, ApiKey, Cause, ConsistencyLevel, EncryptionKeys, Error, Lifetime, Request, Scan,
    SetOptions, Settings, Target, Tls,
};

/// A time-out beyond this is none: an instant that is further away than the clock reaches would be a panic.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24 * 365);

/// As many connections as answer most programs; each is a file handle here and there.
const POOL_SIZE: usize = 16;

/// How often a request is sent at the most: to an owner, to another member if that is gone, and on to where two redirections
/// lead, with room for pauses. Servers that name each other in a circle should be found out soon.
const MAX_TRIES: u32 = 8;

/// The first pause after a refusal that passes; each is twice as long as the one before. All of them together are two
/// seconds, in which most clusters have chosen another leader.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// How long a connection to one member may take where there are others: enough to send a lost SYN once more.
const MEMBER_CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// A client of a cluster, or of one server. Clones share its connections and what it knows.
#[derive(Clone, Debug)]
pub struct Client {
    cluster: Arc<Cluster>,
    encryption: Option<EncryptionKeys>,
    level: Option<ConsistencyLevel>,
    deadline: Option<Instant>,
}

/// What a client should be like.
#[derive(Clone, Debug)]
pub struct Builder {
    targets: Vec<Target>,
    settings: Settings,
    pool_size: usize,
    encryption: Option<EncryptionKeys>,
}

impl Builder {
    /// The most connections to each server at a time, at least 1; 16 if it is not said.
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

    /// The API key that is shown to all servers; none if it is not said.
    #[must_use]
    pub fn api_key(mut self, key: ApiKey) -> Self {
        self.settings.api_key = Some(key);
        self
    }

    /// Whom to trust over TLS, and what to show; without it no URL may be of `https://` or `rediss://`. Members of a cluster that one
    /// of them names are spoken to by the scheme of the URLs, and have to have certificates for the hosts that they are named by.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.settings.tls = Some(tls);
        self
    }

    /// The keys that values are sealed with before they are sent, and opened when they come back; none if it is not said, and then
    /// values are sent as they are.
    ///
    /// With keys every value is sealed. One that a server has and that is not, or does not open, is an
    /// [`Error::Encryption`], and never taken as it is; [`Client::incr`] is refused, as no server can count what it cannot read. Keys of the
    /// cache, lengths and lifetimes stay visible. `docs/client-encryption.md` has what it protects against, and what it does not: above
    /// all, a server may give back an older value of the same key.
    ///
    /// ```no_run
    /// use henge_client::{Client, EncryptionKeys, SetOptions};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let keys: EncryptionKeys = std::fs::read_to_string("app.keys")?.parse()?;
    /// let builder = Client::builder("redis://localhost:8080")?;
    /// let client = builder.encryption(keys).connect().await?;
    ///
    /// client.set("greeting", "hello", SetOptions::new()).await?;
    /// assert_eq!(client.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn encryption(mut self, keys: EncryptionKeys) -> Self {
        self.encryption = Some(keys);
        self
    }

    /// The client, with one connection open, so that servers that are not there are found out now, and with the map of the
    /// cluster, if there is one.
    pub async fn connect(self) -> Result<Client, Error> {
        let cluster = Cluster::learn(self.targets, self.settings, self.pool_size).await?;
        Ok(Client {
            cluster: Arc::new(cluster),
            encryption: self.encryption,
            level: None,
            deadline: None,
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
    /// A client of `redis://host:port` or `http://host:port`, with one connection open; over TLS it is [built](Self::builder). Several URLs with commas between them are members of one
    /// cluster, of which one has to be there.
    pub async fn connect(urls: &str) -> Result<Self, Error> {
        Self::builder(urls)?.connect().await
    }

    /// A client that is to be set up.
    pub fn builder(urls: &str) -> Result<Builder, Error> {
        let targets = urls.split(',').map(str::parse);
        let targets: Vec<Target> = targets.collect::<Result<_, _>>()?;
        if targets
            .iter()
            .any(|other| other.scheme != targets[0].scheme)
        {
            return Err(Error::Argument(
                "the members of a cluster are all given by one scheme: all by http://, all by https://, all by redis:// or all by rediss://",
            ));
        }
        Ok(Builder {
            targets,
            settings: Settings::default(),
            pool_size: POOL_SIZE,
            encryption: None,
        })
    }

    /// A clone whose requests are of this consistency level, and not of the default of the cluster. It shares all else, and no
    /// request of another clone is of that level for it. Only nodes of Henge know levels; others refuse, and do nothing.
    ///
    /// Over the Redis protocol a connection is told its level before a request, and waited for, where it had another one:
    /// a client of which most requests are of one level pays nothing for it.
    #[must_use]
    pub fn at_level(&self, level: ConsistencyLevel) -> Self {
        Self {
            level: Some(level),
            ..self.clone()
        }
    }

    /// A clone whose requests end at this moment, or at their [time-out](Builder::request_timeout) if that is earlier. Where it is
    /// over, nothing is sent. It shares all else; a moment of [`std::time::Instant`] is one.
    #[must_use]
    pub fn with_deadline(&self, deadline: impl Into<Instant>) -> Self {
        Self {
            deadline: Some(deadline.into()),
            ..self.clone()
        }
    }

    /// When a request that begins now ends.
    fn end(&self) -> Result<Instant, Error> {
        let now = Instant::now();
        let end = now + self.cluster.request_timeout();
        match self.deadline {
            Some(deadline) if deadline <= now => {
                Err(Error::Unanswered(Cause::TimedOut(Duration::ZERO)))
            }
            deadline => Ok(deadline.map_or(end, |deadline| deadline.min(end))),
        }
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

    /// Adds to an integer of 64 bits, and answers the sum. An absent one is 0. A client with [encryption](Builder::encryption) refuses.
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

    /// The keys that match a pattern (`*`, `?`, `[a-z]`, `\` before what stands for itself), page by page, of all members of a
    /// cluster. A key that is there throughout, and on one member, is found at least once.
    pub fn scan(&self, pattern: impl AsRef<[u8]>) -> Scan<'_> {
        Scan::new(self, pattern.as_ref().to_vec())
    }

    /// Whether a server answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.execute(&Request::Ping).await.map(drop)
    }

    /// Sends a request to a server that can serve it, and waits for its answer, within the request's time-out. The cursor of a
    /// page belongs to one member; [`Client::scan`] stays with it, and this does not. Values are sealed and opened here, if the
    /// client has keys for that.
    pub async fn execute(&self, request: &Request<'_>) -> Result<Answer, Error> {
        request.check()?;
        let Some(keys) = &self.encryption else {
            return self.send(request).await;
        };
        // Each request is named: one that is new here has values or not, and may not pass by without a look.
        match *request {
            Request::Set {
                key,
                value,
                options,
            } => {
                let value = &keys.seal(key, value)?;
                let sealed = Request::Set {
                    key,
                    value,
                    options,
                };
                self.send(&sealed).await
            }
            Request::Get { key } => match self.send(request).await? {
                Answer::Value(Some(sealed)) => Ok(Answer::Value(Some(keys.open(key, sealed)?))),
                other => Ok(other),
            },
            Request::Increment { .. } => Err(Error::Argument(
                "no server can add to a value that this client encrypts; expected get and set",
            )),
            Request::Ping
            | Request::Delete { .. }
            | Request::Lifetime { .. }
            | Request::Expire { .. }
            | Request::Scan { .. } => self.send(request).await,
        }
    }

    /// As [`Self::execute`], of a request that goes out as it is and was checked.
    async fn send(&self, request: &Request<'_>) -> Result<Answer, Error> {
        let cluster = &*self.cluster;
        let deadline = self.end()?;
        let slot = request.key().map(henge_wire::Slot::of);
        let mut unreached = Vec::new();
        let mut has_asked = false;
        let mut is_asking = false;
        let mut pause = FIRST_PAUSE;
        let member = cluster.route(slot, &unreached);
        let mut member = member.expect("a client knows a server");
        let mut tries = 1;
        loop {
            let manner = self.manner(is_asking, deadline);
            let sent = exchange(cluster, &member, request, manner);
            let error = match self.beside_the_map(sent, deadline).await {
                Err(error) if tries < MAX_TRIES && Instant::now() < deadline => error,
                answer => return answer,
            };
            tries += 1;
            is_asking = false;
            // In each of these cases nothing was done.
            let next = match Redirect::of(&error, member.pool.target()) {
                Some(Redirect::Moved { slot, to }) => cluster.moved(slot, &to),
                Some(Redirect::Ask(to)) if !has_asked => {
                    has_asked = true;
                    is_asking = true;
                    cluster.member(&to)
                }
                None if matches!(error, Error::Connect { .. }) => {
                    cluster.doubt();
                    unreached.push(member);
                    cluster.route(slot, &unreached)
                }
                None if error.is_passing() && cluster.has_others() => {
                    cluster.doubt();
                    // Others can forward to one that is only about to be ready.
                    let loads = std::slice::from_ref(&member);
                    cluster.route(slot, if error.is_loading() { loads } else { &[] })
                }
                Some(Redirect::Ask(_)) | None => None,
            };
            let Some(next) = next else {
                return Err(error);
            };
            // What has just failed is not better at once.
            let is_again = unreached.iter().any(|other| Arc::ptr_eq(other, &next));
            if is_again || error.is_passing() {
                let until = Instant::now() + self.jittered(pause);
                if until >= deadline {
                    return Err(error);
                }
                // There is no event to wait for: nobody tells when a server is ready.
                self.beside_the_map(sleep_until(until), deadline).await;
                pause *= 2;
            }
            member = next;
        }
    }

    /// As [`Self::execute`], by this member and no other, of a page of a scan, which has no values.
    pub(crate) async fn execute_at(
        &self,
        member: &Member,
        request: &Request<'_>,
    ) -> Result<Answer, Error> {
        let has_no_value = matches!(request, Request::Scan { .. });
        assert!(has_no_value, "values are sealed and opened elsewhere");
        request.check()?;
        let deadline = self.end()?;
        let manner = self.manner(false, deadline);
        let sent = exchange(&self.cluster, member, request, manner);
        self.beside_the_map(sent, deadline).await
    }

    /// The first page of a scan, if whoever is asked shows the keys of all members; none if each shows its own. A node of Henge
    /// shows those of all, and over the Redis protocol only to a connection that has not asked for the map. The connections of
    /// the pool may have, so that it is asked on another.
    pub(crate) async fn first_page_of_all(
        &self,
        request: &Request<'_>,
    ) -> Result<Option<Answer>, Error> {
        request.check()?;
        let cluster = &*self.cluster;
        if cluster.is_over_http() {
            return self.execute(request).await.map(Some);
        }
        if !cluster.has_map() {
            return Ok(None);
        }
        let deadline = self.end()?;
        let member = cluster.route(None, &[]);
        let member = member.expect("a client knows a server");
        let asked = async {
            let checkout = member.pool.check_out(deadline).await?;
            let mut watch = member.watch();
            let answer = async {
                let mut connection = checkout.fresh(deadline).await?;
                watch.is_sent();
                if connection.is_to_henge(deadline).await? {
                    let answer = connection.execute_until(request, self.level, deadline);
                    answer.await.map(Some)
                } else {
                    Ok(None)
                }
            };
            let answer = answer.await;
            watch.end(does_well(&answer));
            answer
        };
        self.beside_the_map(asked, deadline).await
    }

    pub(crate) fn owners(&self) -> Vec<Arc<Member>> {
        self.cluster.owners()
    }

    /// Does the work, and asks for the map meanwhile if that is due.
    async fn beside_the_map<T>(&self, work: impl Future<Output = T>, deadline: Instant) -> T {
        match self.cluster.due() {
            None => work.await,
            Some(turn) => {
                // On the heap, as most requests have none of it.
                let refresh = Box::pin(self.cluster.refresh(turn, deadline));
                tokio::join!(work, refresh).0
            }
        }
    }

    fn manner(&self, is_asking: bool, deadline: Instant) -> Manner {
        Manner {
            level: self.level,
            is_asking,
            deadline,
        }
    }

    /// From a half of the pause to all of it, so that not all who were refused come back together.
    fn jittered(&self, pause: Duration) -> Duration {
        let part = self.cluster.next_random() >> 32;
        pause / 2 + (pause / 2).mul_f64(part as f64 / f64::from(u32::MAX))
    }
}

/// How a request is sent.
#[derive(Clone, Copy)]
struct Manner {
    level: Option<ConsistencyLevel>,
    /// Another member has named the one that is asked for this one time.
    is_asking: bool,
    deadline: Instant,
}

/// Sends a request over a connection of a member's pool. A read is sent once more if the connection breaks.
async fn exchange(
    cluster: &Cluster,
    member: &Member,
    request: &Request<'_>,
    manner: Manner,
) -> Result<Answer, Error> {
    let Manner {
        level,
        is_asking,
        deadline,
    } = manner;
    let mut watch = member.watch();
    let checkout = member.pool.check_out(deadline).await?;
    let connect_by = if cluster.has_others() {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        now + MEMBER_CONNECT_TIMEOUT.min(left / 2)
    } else {
        deadline
    };
    let mut connected = checkout.connection(level, connect_by).await;
    let mut is_retried = false;
    let answer = loop {
        let mut connection = match connected {
            Ok(connection) => connection,
            Err(error) => break Err(error),
        };
        watch.is_sent();
        let answer = if is_asking {
            connection.execute_asking(request, level, deadline).await
        } else {
            connection.execute_until(request, level, deadline).await
        };
        if let Err(error) = &answer
            && error.is_worth_a_retry()
            && !request.is_write()
            && !is_retried
        {
            is_retried = true;
            // Those that are idle may be as broken as this one was.
            connected = checkout.fresh(connect_by).await;
            continue;
        }
        if connection.is_usable() {
            checkout.give_back(connection);
        }
        break answer;
    };
    watch.end(does_well(&answer));
    answer
}

/// Whether a member that has answered so does what is asked of a member.
fn does_well<T>(answer: &Result<T, Error>) -> bool {
    match answer {
        Ok(_) => true,
        Err(error) => error.is_of_a_server() && !error.is_loading(),
    }
}
