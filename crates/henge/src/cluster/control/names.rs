//! Where members are whose addresses are names: each is looked up in a task of its own, so that a resolver that takes its time
//! keeps nobody from gossiping, and again and again where there is no answer. What is found comes back by a bounded channel. Which
//! names are wanted, and what is done with an address, is for who gossips.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::encryption::random_number;

/// Addresses on their way; who looks up more waits.
const FOUND: usize = 64;
/// Names that are looked up at one time: the system's resolver takes a thread for each, and there are two for all that waits.
const LOOKUPS: usize = 1;

/// How long to wait before a name is looked up again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    /// After the first time: a name is often there a moment after its machine.
    pub(super) first: Duration,
    /// At most: how late a member is found whose name was wrong for long.
    pub(super) longest: Duration,
}

impl Pauses {
    /// Those of a node.
    pub(super) const USUAL: Self = Self {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(30),
    };

    /// The one after so many tries: twice as long each time, less up to a half of it, so that not all nodes ask at once.
    fn after(self, tries: u32) -> Duration {
        let whole = self.first.saturating_mul(1 << tries.min(16));
        let random = random_number() % 512;
        whole
            .min(self.longest)
            .mul_f64((512 + random) as f64 / 1024.0)
    }
}

/// Who knows where names are.
pub(super) trait Resolve: Clone + 'static {
    /// All addresses of a name and a port; why there are none otherwise.
    fn resolve(&self, address: &str) -> impl Future<Output = Result<Vec<SocketAddr>, String>>;
}

/// The system's resolver.
#[derive(Clone, Debug)]
pub(super) struct System;

impl Resolve for System {
    async fn resolve(&self, address: &str) -> Result<Vec<SocketAddr>, String> {
        let found = tokio::net::lookup_host(address).await;
        found
            .map(Iterator::collect)
            .map_err(|error| error.to_string())
    }
}

/// Where a member was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) instance: u64,
    pub(super) at: SocketAddr,
}

/// See the head of the file.
pub(super) struct Names<R> {
    resolve: R,
    /// The socket can send to addresses of version 6, and to those of version 4 in its clothes.
    is_v6: bool,
    pauses: Pauses,
    permits: Rc<Semaphore>,
    searches: BTreeMap<u64, Search>,
    found: mpsc::Sender<Found>,
}

/// A name that is looked up. It ends when it is dropped.
struct Search(JoinHandle<()>);

impl Drop for Search {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Until when a name is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Until {
    /// It has an address.
    Found,
    /// Nobody wants it any more: each time it has an address that is told.
    Forgotten,
}

impl<R: Resolve> Names<R> {
    /// What is found comes over the channel.
    pub(super) fn new(resolve: R, is_v6: bool, pauses: Pauses) -> (Self, mpsc::Receiver<Found>) {
        let (found, receiver) = mpsc::channel(FOUND);
        let names = Self {
            resolve,
            is_v6,
            pauses,
            permits: Rc::new(Semaphore::new(LOOKUPS)),
            searches: BTreeMap::new(),
            found,
        };
        (names, receiver)
    }

    /// Looks up where a member is, in place of what was looked up of it before.
    pub(super) fn find(&mut self, instance: u64, address: &str, until: Until) {
        let permits = Rc::clone(&self.permits);
        let (resolve, found) = (self.resolve.clone(), self.found.clone());
        let (is_v6, pauses, address) = (self.is_v6, self.pauses, address.to_owned());
        let search = async move {
            let mut tries = 0;
            let mut is_told = false;
            loop {
                let at = {
                    // It is never closed.
                    let _permit = permits.acquire().await;
                    first_of(&resolve, &address, is_v6).await
                };
                match at {
                    Ok(at) => {
                        let is_over = found.send(Found { instance, at }).await.is_err();
                        if is_over || until == Until::Found {
                            return;
                        }
                    }
                    Err(why) if !is_told => {
                        is_told = true;
                        tracing::warn!(
                            address,
                            why,
                            "a member cannot be called until its name is found"
                        );
                    }
                    Err(_) => {}
                }
                // Unless nobody wants to know any more.
                let pause = tokio::time::timeout(pauses.after(tries), found.closed());
                if pause.await.is_ok() {
                    return;
                }
                tries += 1;
            }
        };
        let search = Search(tokio::task::spawn_local(search));
        self.searches.insert(instance, search);
    }

    /// A member is looked up no more.
    pub(super) fn forget(&mut self, instance: u64) {
        self.searches.remove(&instance);
    }
}

/// Looks up a name until it is found.
pub(super) async fn found(
    resolve: &impl Resolve,
    address: &str,
    is_v6: bool,
    pauses: Pauses,
) -> SocketAddr {
    let mut tries = 0;
    loop {
        match first_of(resolve, address, is_v6).await {
            Ok(at) => return at,
            Err(why) if tries == 0 => tracing::error!(
                address,
                why,
                "this node cannot gossip until its own name is found, and is taken for down"
            ),
            Err(_) => {}
        }
        let next = tokio::time::Instant::now() + pauses.after(tries);
        tokio::time::sleep_until(next).await;
        tries += 1;
    }
}

/// The first address that the socket can send to.
async fn first_of(
    resolve: &impl Resolve,
    address: &str,
    is_v6: bool,
) -> Result<SocketAddr, String> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let found = resolve.resolve(address).await?;
    let is_of_use = |at: &&SocketAddr| is_v6 || at.is_ipv4();
    let first = found.iter().find(is_of_use).copied();
    first.ok_or_else(|| match found.first() {
        None => "it is the name of no machine".to_owned(),
        Some(at) => format!("this node listens on version 4 only, and cannot send to {at}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::runtime::{Builder, LocalOptions};

    const QUICK: Pauses = Pauses {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(4),
    };
    const DEADLINE: Duration = Duration::from_mins(1);

    /// Answers in turn; the last answer stays.
    #[derive(Clone, Default)]
    struct Scripted(Rc<RefCell<BTreeMap<String, Answers>>>);

    type Answers = Vec<Result<&'static str, &'static str>>;

    impl Scripted {
        fn say(&self, name: &str, answers: &[Result<&'static str, &'static str>]) {
            let answers = answers.iter().rev().copied().collect();
            self.0.borrow_mut().insert(name.to_owned(), answers);
        }
    }

    impl Resolve for Scripted {
        async fn resolve(&self, address: &str) -> Result<Vec<SocketAddr>, String> {
            let answer = {
                let mut all = self.0.borrow_mut();
                let answers = all.get_mut(address).expect("it is in the script");
                if answers.len() > 1 {
                    answers.pop()
                } else {
                    answers.last().copied()
                }
            };
            match answer {
                // One that never answers.
                None => std::future::pending().await,
                Some(Ok(all)) => Ok(all
                    .split_whitespace()
                    .map(|at| at.parse().expect("an address"))
                    .collect()),
                Some(Err(why)) => Err(why.to_owned()),
            }
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .build_local(LocalOptions::default())
            .expect("a runtime");
        let in_time = async { tokio::time::timeout(DEADLINE, test).await };
        runtime.block_on(in_time).expect("in time");
    }

    async fn next(found: &mut mpsc::Receiver<Found>) -> (u64, String) {
        let Found { instance, at } = found.recv().await.expect("somebody looks");
        (instance, at.to_string())
    }

    fn at(instance: u64, at: &str) -> (u64, String) {
        (instance, at.to_owned())
    }

    #[test]
    fn a_name_is_looked_up_until_it_is_there() {
        run(async {
            let script = Scripted::default();
            script.say("a:1", &[Err("no"), Err("no"), Ok(""), Ok("10.0.0.1:1")]);
            script.say("b:2", &[Ok("[::1]:2 10.0.0.2:2")]);
            let (mut names, mut found) = Names::new(script, false, QUICK);
            names.find(1, "a:1", Until::Found);
            assert_eq!(next(&mut found).await, at(1, "10.0.0.1:1"));
            // What the socket cannot send to is passed over.
            names.find(2, "b:2", Until::Found);
            assert_eq!(next(&mut found).await, at(2, "10.0.0.2:2"));
            names.find(3, "127.0.0.1:3", Until::Found);
            assert_eq!(next(&mut found).await, at(3, "127.0.0.1:3"));
        });
    }

    #[test]
    fn one_that_moves_is_found_where_it_is() {
        run(async {
            let script = Scripted::default();
            script.say("a:1", &[Ok("10.0.0.1:1"), Err("no"), Ok("[::2]:1")]);
            script.say("b:1", &[Ok("10.0.0.3:1")]);
            let (mut names, mut found) = Names::new(script, true, QUICK);
            names.find(1, "a:1", Until::Forgotten);
            assert_eq!(next(&mut found).await, at(1, "10.0.0.1:1"));
            assert_eq!(next(&mut found).await, at(1, "[::2]:1"));
            assert_eq!(next(&mut found).await, at(1, "[::2]:1"));
            names.forget(1);
            names.find(2, "b:1", Until::Found);
            // One may be on its way already.
            let mut last = next(&mut found).await;
            while last == at(1, "[::2]:1") {
                last = next(&mut found).await;
            }
            assert_eq!(last, at(2, "10.0.0.3:1"));
        });
    }

    #[test]
    fn an_own_name_is_waited_for() {
        run(async {
            let script = Scripted::default();
            script.say("me:1", &[Err("no"), Err("no"), Ok("10.0.0.1:1")]);
            let own = found(&script, "me:1", false, QUICK).await;
            assert_eq!(own, "10.0.0.1:1".parse().expect("an address"));
        });
    }

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        for tries in 0..40 {
            let pause = Pauses::USUAL.after(tries);
            let whole = (Pauses::USUAL.first * (1 << tries.min(16))).min(Pauses::USUAL.longest);
            assert!(pause >= whole / 2 && pause < whole, "{tries}: {pause:?}");
        }
        let some: std::collections::BTreeSet<_> = (0..16).map(|_| Pauses::USUAL.after(3)).collect();
        assert!(some.len() > 1);
    }
}
