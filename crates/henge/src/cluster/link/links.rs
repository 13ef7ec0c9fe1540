//! The connections of one thread to other nodes, for one purpose: one to each, made when it is first needed, and again when it
//! has ended. Who cannot be reached is tried again after a while that grows, and is different for each thread, so that a node
//! that comes back is not met by all at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_wire::peer::Purpose;
use tokio::sync::Notify;

use super::asking::{AskError, Ended, Link};
use super::greet::{self, GreetError};
use crate::cluster::identity::Identity;

/// The first while: a process that is started anew needs longer.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest: how late a node that is back is noticed by who does not hear of it otherwise.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// See the head of the file.
pub(crate) struct Links {
    me: Arc<Identity>,
    purpose: Purpose,
    peers: RefCell<HashMap<u64, Peer>>,
    /// Is told of a node whose port is closed.
    refused: Box<dyn Fn(u64)>,
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
    pub(crate) fn new(
        me: Arc<Identity>,
        purpose: Purpose,
        refused: impl Fn(u64) + 'static,
    ) -> Rc<Self> {
        Rc::new(Self {
            me,
            purpose,
            peers: RefCell::default(),
            refused: Box::new(refused),
            random: RandomState::new(),
        })
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
                Ok(greeted) => {
                    let (link, run) = Link::over(greeted);
                    let kept = Rc::clone(&own);
                    tokio::task::spawn_local(async move {
                        let Ended { why, has_answered } = run.await;
                        tracing::debug!(why = &*why, "a link has ended");
                        let mut peers = kept.peers.borrow_mut();
                        if !matches!(peers.get(&instance), Some(Peer::Connected(now)) if now.is_ended())
                        {
                            // There is another by now, or it is not wanted any more.
                        } else if has_answered {
                            peers.remove(&instance);
                        } else {
                            // Who ends each connection before it answers anything refuses this node, and is not asked all the time.
                            let failed =
                                Peer::Failed(kept.pause(tries), tries.saturating_add(1), why);
                            peers.insert(instance, failed);
                        }
                    });
                    Peer::Connected(link)
                }
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
    }

    /// A node is not spoken to any more.
    pub(crate) fn forget(&self, instance: u64, why: &str) {
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
