//! A data thread's way to the keys that other nodes have: the present view of the cluster, and the thread's links, for what is
//! small and for bulk. It decides nothing and knows no protocol.
//!
//! The two links of a member keep no order between them. So who asks a member for one client has one question out to it at a
//! time, and asks the next when the answer to the one before has come or will be told as unknown. `resp` sends one batch to
//! each member and runs nothing of the client's before all are answered; `keys` has one share for each member; what touches
//! several nodes asks each for one part.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use henge_wire::peer::Purpose;

use super::Cluster;
use super::link::asking::{Answer, AskError, Came, Link};
use super::link::links::Links;
use super::link::{BULK_BYTES, Service};
use super::view::{Member, View};
use crate::metrics::counters::ThreadCounters;
use crate::traces::{self, Kind, Span, Wrapped};

/// How long a request waits for other nodes and for replicas, however often it is asked again meanwhile. A node that does not answer
/// is known to be down before that, and then fails at once, and a lost leader is replaced; the rest is for one that answers slowly.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// For so long an answer is waited for beyond the deadline of its request: who is asked has the same time, from when it hears of it, and
/// may have more to say at its end than that there was no answer. As much as a turn of a busy node takes, and not more, as a client
/// waits for it.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// A view and the links for it. Those who route by it keep it for as long as one batch takes.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) view: Arc<View>,
    links: Lanes,
}

/// A thread's links.
#[derive(Clone, Debug)]
struct Lanes {
    small: Rc<Links>,
    bulk: Rc<Links>,
}

impl Lanes {
    fn of(&self, bytes: usize) -> &Rc<Links> {
        if bytes < BULK_BYTES {
            &self.small
        } else {
            &self.bulk
        }
    }
}

/// A question that was sent, or is to be.
#[derive(Debug)]
pub(crate) struct Asking {
    service: Service,
    deadline: Instant,
    way: Asked,
    traced: Option<Traced>,
}

/// Of a question of a traced request.
#[derive(Debug)]
struct Traced {
    span: Box<Span>,
    /// What stands before the question.
    head: Vec<u8>,
}

impl Traced {
    /// If what this thread works for is traced.
    fn begin(member: &Member, service: Service) -> Option<Self> {
        let mut span = traces::child("forward", Kind::Client)?;
        span.note("henge.peer", member.name.clone());
        let head = Wrapped::head(span.scope().context(), service as u8);
        Some(Self { span, head })
    }
}

#[derive(Debug)]
enum Asked {
    Sent(Result<Answer, AskError>),
    /// There is no connection yet.
    Unsent(Vec<u8>),
}

impl Routes {
    /// Asks a member, later where there is no connection yet. The bytes of the question are whose asks to hold.
    pub(crate) fn ask(&self, member: &Member, service: Service, body: &[u8]) -> Asking {
        self.ask_until(member, service, body, Instant::now() + REQUEST_TIMEOUT)
    }

    /// The same for a request that has this deadline.
    pub(crate) fn ask_until(
        &self,
        member: &Member,
        service: Service,
        body: &[u8],
        deadline: Instant,
    ) -> Asking {
        let traced = Traced::begin(member, service);
        let (service, head) = match &traced {
            Some(traced) => (Service::Traced, &traced.head[..]),
            None => (service, &[][..]),
        };
        let way = match self.links.of(body.len()).connected(member.instance) {
            Some(link) => {
                let asked = link.ask_until(service, &[head, body], deadline + ON_ITS_WAY);
                Asked::Sent(asked)
            }
            None => Asked::Unsent([head, body].concat()),
        };
        Asking {
            service,
            deadline,
            way,
            traced,
        }
    }

    /// The answer of a member. A question that changes nothing, given as `again`, is asked once more where the connection breaks
    /// before it is answered: it may have been dead for as long as nothing was asked over it.
    pub(crate) async fn answer(
        &self,
        member: &Member,
        asking: Asking,
        again: Option<&[u8]>,
    ) -> Result<Bytes, AskError> {
        let Asking {
            service,
            deadline,
            way,
            mut traced,
        } = asking;
        let outcome = self.answer_once(member, service, deadline, way).await;
        let outcome = match (outcome, again) {
            (Err(error), Some(body)) if error.link_broke && Instant::now() < deadline => {
                let head = traced.as_ref().map(|traced| &traced.head[..]);
                let way = Asked::Unsent([head.unwrap_or_default(), body].concat());
                self.answer_once(member, service, deadline, way).await
            }
            (outcome, _) => outcome,
        };
        if let (Some(traced), Err(_)) = (&mut traced, &outcome) {
            traced.span.fail();
        }
        outcome
    }

    async fn answer_once(
        &self,
        member: &Member,
        service: Service,
        deadline: Instant,
        way: Asked,
    ) -> Result<Bytes, AskError> {
        let came = match way {
            Asked::Sent(answer) => answer?.await?,
            Asked::Unsent(body) => {
                let link = link(self.links.of(body.len()), member, deadline).await?;
                let answer = link.ask_until(service, &[&body], deadline + ON_ITS_WAY)?;
                answer.await?
            }
        };
        match came {
            Came::Whole(bytes) => Ok(bytes),
            Came::Parked(number) => self.claim(member, number, deadline + ON_ITS_WAY).await,
        }
    }

    /// The answer that waits under a number. What was asked is done, so that without it nobody may say that it is not.
    async fn claim(
        &self,
        member: &Member,
        number: u64,
        deadline: Instant,
    ) -> Result<Bytes, AskError> {
        let claimed = async {
            let link = link(&self.links.bulk, member, deadline).await?;
            let answer = link.ask_until(Service::Claim, &[&number.to_le_bytes()], deadline)?;
            answer.await?.whole()
        };
        let claimed = claimed.await;
        claimed.map_err(|error| AskError {
            may_be_done: true,
            link_broke: error.link_broke,
            text: format!("its answer was not to be had: {error}").into(),
        })
    }
}

/// The link to a member, made if there is none, by a deadline.
async fn link(links: &Rc<Links>, member: &Member, deadline: Instant) -> Result<Link, AskError> {
    if let Some(link) = links.connected(member.instance) {
        return Ok(link);
    }
    let made = links.to(member.instance, &member.address);
    let made = tokio::time::timeout_at(deadline.into(), made).await;
    let made =
        made.unwrap_or_else(|_| Err(AskError::unsent("no connection to it was made in time")));
    if made.is_err() {
        links.note_no_link(member.instance);
    }
    made
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Routing {
    present: RefCell<Present>,
    links: Lanes,
}

#[derive(Debug)]
struct Present {
    views: arc_swap::Cache<Arc<ArcSwap<View>>, Arc<View>>,
    routes: Rc<Routes>,
}

impl Routing {
    pub(crate) fn new(cluster: &Arc<Cluster>, counters: &Arc<ThreadCounters>) -> Self {
        let links = |purpose| {
            let told = Arc::clone(cluster);
            let identity = Arc::clone(&cluster.identity);
            Links::new(
                identity,
                purpose,
                Some(Arc::clone(counters)),
                move |instance| {
                    told.was_refused(instance);
                },
            )
        };
        let links = Lanes {
            small: links(Purpose::Data),
            bulk: links(Purpose::Bulk),
        };
        let mut views = arc_swap::Cache::new(Arc::clone(&cluster.view));
        let routes = Rc::new(Routes {
            view: Arc::clone(views.load()),
            links: links.clone(),
        });
        Self {
            present: RefCell::new(Present { views, routes }),
            links,
        }
    }

    /// The way to keys; none for a node that has all of them.
    #[inline]
    pub(crate) fn routes(&self) -> Option<Rc<Routes>> {
        let mut present = self.present.borrow_mut();
        let Present { views, routes } = &mut *present;
        let view = views.load();
        if view.is_alone {
            return None;
        }
        if !Arc::ptr_eq(view, &routes.view) {
            self.renew(view, routes);
        }
        Some(Rc::clone(routes))
    }

    /// Takes over another view: who is known to be gone fails what was asked of it.
    #[cold]
    fn renew(&self, view: &Arc<View>, routes: &mut Rc<Routes>) {
        let before = std::mem::replace(
            routes,
            Rc::new(Routes {
                view: Arc::clone(view),
                links: self.links.clone(),
            }),
        );
        for member in &before.view.members {
            let now = view.members.iter().find(|now| now.id == member.id);
            // Who ends in order answers first what it was asked, and closes its connections itself.
            let is_same = now.is_some_and(|now| {
                (now.instance, now.incarnation) == (member.instance, member.incarnation)
                    && (now.is_reachable() || now.has_left)
            });
            for links in [&self.links.small, &self.links.bulk] {
                if !is_same && !member.is_me {
                    let why = format!("{} is down", member.name);
                    links.end(member.instance, member.incarnation, &why);
                }
                if now.is_none_or(|now| now.instance != member.instance) {
                    let why = format!("{} is no member any more", member.name);
                    links.forget(member.instance, &why);
                }
                if now.is_some_and(|now| now.is_reachable()) {
                    links.forget_failure(member.instance);
                }
            }
        }
    }
}
