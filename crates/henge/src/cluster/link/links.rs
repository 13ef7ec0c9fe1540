//! The connections of one thread to other nodes, for one purpose: one to each, made when it is first needed, and again when it
//! has ended. Who cannot be reached is tried again after a while that grows, and is different for each thread, so that a node
//! that comes back is not met by all at once. Where the secrets of the cluster change, another connection takes the place of one
//! that was made before, which goes on until all that was asked over it is answered.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_wire::peer::Purpose;
use tokio::sync::Notify;

use super::asking::{AskError, Ended, Link, WeakLink};
use super::greet::{self, GreetError, Greeted};
use super::standing::{LAST, Standing};
use crate::cluster::identity::Identity;
use crate::metrics::counters::ThreadCounters;

/// The first while: a process that is started anew needs longer.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest: how late a node that is back is noticed by who does not hear of it otherwise.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// See the head of the file.
pub(crate) struct Links {
    me: Arc<Identity>,
    purpose: Purpose,
    peers: RefCell<HashMap<u64, Peer>>,
    /// Connections whose place others have taken, until what was asked over them is answered: each for [`LAST`] at the most.
    replaced: RefCell<HashMap<u64, Vec<WeakLink>>>,
    /// Is told of a node whose port is closed.
    refused: Box<dyn Fn(u64)>,
    /// Those of a data thread, which are counted.
    counters: Option<Arc<ThreadCounters>>,
    random: RandomState,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links")
            .field("purpose", &self.purpose)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Peer {
    Connected(Link),
    /// It is being made; who waits is told.
    Connecting(Rc<Notify>),
    /// It cannot be had before this time; how often it was tried, and why it failed.
    Failed(Instant, u32, Rc<str>),
}

impl Links {
    /// Those of a data thread come with its counters.
    pub(crate) fn new(
        me: Arc<Identity>,
        purpose: Purpose,
        counters: Option<Arc<ThreadCounters>>,
        refused: impl Fn(u64) + 'static,
    ) -> Rc<Self> {
        Rc::new(Self {
            me,
            purpose,
            peers: RefCell::default(),
            replaced: RefCell::default(),
            refused: Box::new(refused),
            counters,
            random: RandomState::new(),
        })
    }

    /// There was no connection for a question.
    pub(crate) fn note_no_link(&self, instance: u64) {
        if let Some(counters) = &self.counters {
            counters.link(instance).count(false, Duration::ZERO);
        }
    }

    /// The connection to a node, if there is one now.
    #[inline]
    pub(crate) fn connected(&self, instance: u64) -> Option<Link> {
        match self.peers.borrow().get(&instance) {
            Some(Peer::Connected(link)) if !link.is_ended() => Some(link.clone()),
            _ => None,
        }
    }

    /// The connection to a node, made if there is none.
    pub(crate) async fn to(
        self: &Rc<Self>,
        instance: u64,
        address: &str,
    ) -> Result<Link, AskError> {
        loop {
            let waits = {
                let mut peers = self.peers.borrow_mut();
                let tries = match peers.get(&instance) {
                    Some(Peer::Connected(link)) if !link.is_ended() => return Ok(link.clone()),
                    Some(Peer::Failed(until, _, why)) if Instant::now() < *until => {
                        return Err(AskError::unsent(Rc::clone(why)));
                    }
                    Some(Peer::Connecting(notify)) => Err(Rc::clone(notify)),
                    Some(Peer::Failed(_, tries, _)) => Ok(*tries),
                    Some(Peer::Connected(_)) | None => Ok(0),
                };
                tries.map_or_else(
                    |under_way| under_way,
                    |tries| {
                        let notify = Rc::new(Notify::new());
                        peers.insert(instance, Peer::Connecting(Rc::clone(&notify)));
                        self.connect(instance, address.to_owned(), tries);
                        notify
                    },
                )
            };
            // All of it is on one thread: nobody is told between the look and the wait.
            waits.notified().await;
            if let Some(Peer::Failed(_, _, why)) = self.peers.borrow().get(&instance) {
                return Err(AskError::unsent(Rc::clone(why)));
            }
        }
    }

    /// Makes a connection in a task of its own: who waits for it may go away.
    fn connect(self: &Rc<Self>, instance: u64, address: String, tries: u32) {
        let own = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let outcome = greet::connect(&address, Some(instance), own.purpose, &own.me).await;
            let next = match outcome {
                Ok(greeted) => Peer::Connected(own.keep(instance, address, tries, greeted)),
                Err(error) => {
                    if matches!(error, GreetError::Refused(_)) {
                        (own.refused)(instance);
                    }
                    tracing::debug!(%address, %error, "no link");
                    let why = format!("no connection to {address}: {error}");
                    Peer::Failed(own.pause(tries), tries.saturating_add(1), why.into())
                }
            };
            let before = own.peers.borrow_mut().insert(instance, next);
            if let Some(Peer::Connecting(waits)) = before {
                waits.notify_waiters();
            }
        });
    }

    /// Has a connection run in a task of its own, until it ends or another takes its place.
    fn keep(self: &Rc<Self>, instance: u64, address: String, tries: u32, greeted: Greeted) -> Link {
        let standing = greeted.standing.clone();
        let counters = self.counters.as_ref();
        let counters = counters.map_or_else(Arc::default, |counters| counters.link(instance));
        let (link, run) = Link::over(greeted, counters);
        let (own, weak) = (Rc::clone(self), link.weak());
        tokio::task::spawn_local(async move {
            let mut run = pin!(run);
            let ended = tokio::select! {
                ended = &mut run => ended,
                () = own.replace(instance, address, &standing, &weak) => {
                    // It ends with the last that was asked over it.
                    if let Ok(ended) = tokio::time::timeout(LAST, &mut run).await {
                        ended
                    } else {
                        weak.end("it was not answered while another connection took the place of its own");
                        run.await
                    }
                }
            };
            let Ended { why, has_answered } = ended;
            tracing::debug!(why = &*why, "a link has ended");
            own.forget_replaced(instance, &weak);
            let mut peers = own.peers.borrow_mut();
            if !matches!(peers.get(&instance), Some(Peer::Connected(now)) if weak.is(now)) {
                // There is another by now, or it is not wanted any more.
            } else if has_answered {
                peers.remove(&instance);
            } else {
                // Who ends each connection before it answers anything refuses this node, and is not asked all the time.
                let failed = Peer::Failed(own.pause(tries), tries.saturating_add(1), why);
                peers.insert(instance, failed);
            }
        });
        link
    }

    /// Waits until the secrets are others than those by which a connection was made, and puts another in its place; none where that
    /// cannot be had: who needs one is told why.
    async fn replace(
        self: &Rc<Self>,
        instance: u64,
        address: String,
        standing: &Standing,
        replaced: &WeakLink,
    ) {
        standing.is_outdated().await;
        let outcome = greet::connect(&address, Some(instance), self.purpose, &self.me).await;
        let is_it =
            |peer: Option<&Peer>| matches!(peer, Some(Peer::Connected(now)) if replaced.is(now));
        if !is_it(self.peers.borrow().get(&instance)) {
            return;
        }
        let mut all_replaced = self.replaced.borrow_mut();
        let of_peer = all_replaced.entry(instance).or_default();
        of_peer.push(replaced.clone());
        drop(all_replaced);
        match outcome {
            Ok(greeted) => {
                let link = self.keep(instance, address, 0, greeted);
                let other = Peer::Connected(link);
                self.peers.borrow_mut().insert(instance, other);
            }
            Err(error) => {
                tracing::debug!(%address, %error, "no link in the place of another");
                self.peers.borrow_mut().remove(&instance);
            }
        }
    }

    /// When to try again.
    fn pause(&self, tries: u32) -> Instant {
        let longest = FIRST_PAUSE
            .saturating_mul(1 << tries.min(16))
            .min(LONGEST_PAUSE);
        // Between a half and all of it.
        let now = Instant::now();
        let random = self.random.hash_one((now, tries)) % 512;
        now + longest.mul_f64((512 + random) as f64 / 1024.0)
    }

    /// A start of a node is known to be gone: what was asked of it will not be answered.
    pub(crate) fn end(&self, instance: u64, incarnation: u64, why: &str) {
        if let Some(Peer::Connected(link)) = self.peers.borrow().get(&instance)
            && link.incarnation() <= incarnation
        {
            link.end(why);
        }
        for link in self.replaced(instance) {
            if link.incarnation() <= incarnation {
                link.end(why);
            }
        }
    }

    /// The connections to a node whose place others have taken.
    fn replaced(&self, instance: u64) -> Vec<Link> {
        let replaced = self.replaced.borrow();
        let of_peer = replaced.get(&instance).into_iter().flatten();
        of_peer.filter_map(WeakLink::upgrade).collect()
    }

    fn forget_replaced(&self, instance: u64, ended: &WeakLink) {
        let mut replaced = self.replaced.borrow_mut();
        if let Some(of_peer) = replaced.get_mut(&instance) {
            of_peer.retain(|link| !link.is_same(ended));
            if of_peer.is_empty() {
                replaced.remove(&instance);
            }
        }
    }

    /// A node is not spoken to any more.
    pub(crate) fn forget(&self, instance: u64, why: &str) {
        for link in self.replaced(instance) {
            link.end(why);
        }
        let mut peers = self.peers.borrow_mut();
        // Who waits for one that is being made is told by who makes it.
        if !matches!(peers.get(&instance), Some(Peer::Connecting(_)))
            && let Some(Peer::Connected(link)) = peers.remove(&instance)
        {
            link.end(why);
        }
    }

    /// A node was heard of: it is tried at once.
    pub(crate) fn forget_failure(&self, instance: u64) {
        let mut peers = self.peers.borrow_mut();
        if let Some(Peer::Failed(..)) = peers.get(&instance) {
            peers.remove(&instance);
        }
    }
}
