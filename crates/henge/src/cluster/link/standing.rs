//! How the two sides of a connection have proved themselves, and whether that still holds: a node's secrets may change while
//! its connections are open. Who has opened one makes another then, and who has accepted one ends it where it must.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use henge_cluster::secret::Secrets;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::cluster::identity::Identity;

/// How long a connection goes on that is replaced, or whose other side proved itself by a secret that was taken away: what a
/// client has asked for over it is answered by then, as a request waits no longer (5.5 s, with the answer's way). A snapshot of what is
/// agreed on may take longer; it is cut, and begun again.
pub(crate) const LAST: Duration = Duration::from_secs(6);

/// See the head of the file.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// The secret of this node's proof; none where it had none.
    ours: Option<u32>,
    /// That of the other side's.
    theirs: Option<u32>,
    /// When they had done so.
    since: Instant,
    secrets: watch::Receiver<Option<Arc<Secrets>>>,
}

impl Standing {
    /// Of a connection of this node, by which secrets the two have proved themselves.
    pub(crate) fn of(me: &Identity, ours: Option<u32>, theirs: Option<u32>) -> Self {
        Self {
            ours,
            theirs,
            since: Instant::now(),
            secrets: me.watch_secrets(),
        }
    }

    /// Whether the proof of the other side would be taken now.
    pub(crate) fn is_accepted_now(&self) -> bool {
        self.is_accepted(self.secrets.borrow().as_deref())
    }

    /// Whether who has opened the connection need not make another.
    pub(crate) fn is_current(&self) -> bool {
        self.is_of(self.secrets.borrow().as_deref())
    }

    /// Resolves when who has opened the connection should make another.
    pub(crate) fn is_outdated(&self) -> impl Future<Output = ()> + use<> {
        let own = self.clone();
        apart(async move {
            let mut secrets = own.secrets.clone();
            when(&mut secrets, |now| !own.is_of(now.as_deref())).await;
        })
    }

    /// Resolves when who has accepted the connection should end it: [`LAST`] after the secret by which the other side proved itself
    /// was taken away.
    pub(crate) fn is_over(&self) -> impl Future<Output = ()> + use<> {
        self.is_over_after(LAST)
    }

    fn is_over_after(&self, last: Duration) -> impl Future<Output = ()> + use<> {
        let own = self.clone();
        apart(async move {
            let mut secrets = own.secrets.clone();
            // What was taken away before anybody looked was so after the two had proved themselves.
            let mut since = own.since;
            loop {
                if own.is_accepted(secrets.borrow_and_update().as_deref()) {
                    when(&mut secrets, |now| !own.is_accepted(now.as_deref())).await;
                    since = Instant::now();
                }
                // Its operator may think better of it.
                let again = when(&mut secrets, |now| own.is_accepted(now.as_deref()));
                if tokio::time::timeout_at(since + last, again).await.is_err() {
                    return;
                }
            }
        })
    }

    /// Whether both sides would prove themselves as they have done. Of the other it is not known what it uses now, only whether that
    /// would be taken.
    fn is_of(&self, now: Option<&Secrets>) -> bool {
        now.map(|now| now.used().id()) == self.ours && self.is_accepted(now)
    }

    fn is_accepted(&self, now: Option<&Secrets>) -> bool {
        match (self.theirs, now) {
            (Some(id), Some(now)) => now.accepted(id).is_some(),
            (None, None) => true,
            _ => false,
        }
    }
}

async fn when(
    secrets: &mut watch::Receiver<Option<Arc<Secrets>>>,
    is_so: impl FnMut(&Option<Arc<Secrets>>) -> bool,
) {
    if secrets.wait_for(is_so).await.is_err() {
        // They are who has the connection, which ends with them.
        pending::<()>().await;
    }
}

/// Waits in a task of its own: who is woken for each frame should not have to look at what all threads share.
fn apart(wait: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> {
    let (mut tell, told) = oneshot::channel();
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = wait => {
                // Who waits may have gone in this turn.
                let _ = tell.send(());
            }
            () = tell.closed() => {}
        }
    });
    async move {
        if told.await.is_err() {
            pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use henge_cluster::secret::Secret;
    use tokio::task::LocalSet;

    use super::*;

    fn secrets(used: &[u8], accepted: Option<&[u8]>) -> Arc<Secrets> {
        let accepted = accepted.map(Secret::of);
        Arc::new(Secrets::new(Secret::of(used), accepted))
    }

    /// Whether a connection that was made at each step of a change of secrets is as it would be made at each step, and whether the
    /// other side is taken for what it is.
    #[test]
    fn each_step_of_a_change() {
        let [old, new]: [&[u8]; 2] = [b"old", b"new"];
        let id = |secret| Some(Secret::of(secret).id());
        let [by_old, by_new] = [id(old), id(new)];
        let steps = [
            Some(secrets(old, None)),
            Some(secrets(old, Some(new))),
            Some(secrets(new, Some(old))),
            Some(secrets(new, None)),
            None,
        ];
        let (good, stale, over) = ((true, true), (false, true), (false, false));
        // This node's proof and the other's, and what becomes of it by the step.
        let table = [
            (by_old, by_old, [good, good, stale, over, over]),
            (by_new, by_old, [stale, stale, good, over, over]),
            (by_old, by_new, [over, good, stale, stale, over]),
            (by_new, by_new, [over, stale, good, good, over]),
            (None, None, [over, over, over, over, good]),
        ];
        for (ours, theirs, expected) in table {
            let (_, secrets) = watch::channel(None);
            let standing = Standing {
                ours,
                theirs,
                since: Instant::now(),
                secrets,
            };
            for (step, expected) in steps.iter().zip(expected) {
                let now = step.as_deref();
                let found = (standing.is_of(now), standing.is_accepted(now));
                assert_eq!(found, expected, "{ours:?} {theirs:?} {step:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_change_is_told() {
        let (sender, receiver) = watch::channel(Some(secrets(b"old", None)));
        let old = Some(Secret::of(b"old").id());
        let standing = Standing {
            ours: old,
            theirs: old,
            since: Instant::now(),
            secrets: receiver,
        };
        LocalSet::new()
            .run_until(async {
                let mut outdated = std::pin::pin!(standing.is_outdated());
                let mut over = std::pin::pin!(standing.is_over_after(Duration::ZERO));
                let either = async {
                    tokio::select! {
                        () = &mut outdated => "outdated",
                        () = &mut over => "over",
                        // All that has something to do has its turn in between.
                        () = turns() => "neither",
                    }
                };
                assert_eq!(either.await, "neither");
                assert!(standing.is_current() && standing.is_accepted_now());
                sender.send_replace(Some(secrets(b"new", Some(b"old"))));
                outdated.await;
                assert!(!standing.is_current() && standing.is_accepted_now());
                tokio::select! {
                    () = &mut over => panic!("it is accepted still"),
                    () = turns() => {}
                }
                sender.send_replace(Some(secrets(b"new", None)));
                over.await;
                assert!(!standing.is_current() && !standing.is_accepted_now());
                // It was taken away before anybody looked: the time has begun when the two had proved themselves.
                let before = Standing {
                    since: Instant::now() - LAST,
                    ..standing.clone()
                };
                tokio::select! {
                    biased;
                    () = before.is_over() => {}
                    () = standing.is_over() => panic!("it has its whole time"),
                }
            })
            .await;
    }

    async fn turns() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}
