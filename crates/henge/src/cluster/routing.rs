//! A data thread's way to the keys that other nodes have: the present view of the cluster, and the thread's links. It decides
//! nothing and knows no protocol.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use henge_wire::peer::Purpose;

use super::Cluster;
use super::link::Service;
use super::link::asking::{Answer, AskError};
use super::link::links::Links;
use super::view::{Member, View};

/// How long a request waits for another node. A node that does not answer is known to be down before that, and then fails at
/// once; the rest is for one that answers slowly.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A view and the links for it. Those who route by it keep it for as long as one batch takes.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) view: Arc<View>,
    links: Rc<Links>,
}

impl Routes {
    /// Asks a member, later where there is no connection yet.
    pub(crate) fn ask(&self, member: &Arc<Member>, service: Service, body: &[u8]) -> Asking {
        if let Some(link) = self.links.connected(member.instance) {
            return Asking::Sent(link.ask(service, &[body], REQUEST_TIMEOUT));
        }
        Asking::Unsent {
            links: Rc::clone(&self.links),
            member: Arc::clone(member),
            service,
            body: body.to_vec(),
        }
    }
}

/// A question that was sent, or is to be.
#[derive(Debug)]
pub(crate) enum Asking {
    Sent(Result<Answer, AskError>),
    Unsent {
        links: Rc<Links>,
        member: Arc<Member>,
        service: Service,
        body: Vec<u8>,
    },
}

impl Asking {
    pub(crate) async fn answer(self) -> Result<bytes::Bytes, AskError> {
        match self {
            Self::Sent(answer) => answer?.await,
            Self::Unsent {
                links,
                member,
                service,
                body,
            } => {
                let link = links.to(member.instance, &member.address).await?;
                link.ask(service, &[&body], REQUEST_TIMEOUT)?.await
            }
        }
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Routing {
    present: RefCell<Present>,
    links: Rc<Links>,
}

#[derive(Debug)]
struct Present {
    views: arc_swap::Cache<Arc<ArcSwap<View>>, Arc<View>>,
    routes: Rc<Routes>,
}

impl Routing {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        let told = Arc::clone(cluster);
        let links = Links::new(
            Arc::clone(&cluster.identity),
            Purpose::Data,
            move |instance| told.was_refused(instance),
        );
        let mut views = arc_swap::Cache::new(Arc::clone(&cluster.view));
        let routes = Rc::new(Routes {
            view: Arc::clone(views.load()),
            links: Rc::clone(&links),
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
                links: Rc::clone(&self.links),
            }),
        );
        for member in &before.view.members {
            let now = view.members.iter().find(|now| now.id == member.id);
            let is_same = now.is_some_and(|now| {
                (now.instance, now.incarnation, now.is_reachable())
                    == (member.instance, member.incarnation, true)
            });
            if !is_same && !member.is_me {
                self.links
                    .end(member.instance, &format!("{} is down", member.name));
            }
            if now.is_some_and(|now| now.is_reachable()) {
                self.links.forget_failure(member.instance);
            }
        }
    }
}
