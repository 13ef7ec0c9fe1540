//! The ends of connections, a few in each round of their data thread. Who breaks off thousands at once would else have it close sockets
//! for as long as that takes, while others wait for their answers. It closes none, and refuses none its end.

use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

/// How many connections may end before all that is ready has been polled once, at the least: some 50 microseconds of a thread.
const IN_A_ROUND: usize = 4;
/// What an end takes, about.
const END: Duration = Duration::from_micros(12);
/// The part of a round's time that the ends in the next one may take: where clients make rounds long, ends keep up with those that come.
const PART: u32 = 8;

/// Who may end.
#[derive(Debug)]
pub(crate) struct Endings {
    places: Semaphore,
    taken: Notify,
}

impl Default for Endings {
    fn default() -> Self {
        Self {
            places: Semaphore::new(IN_A_ROUND),
            taken: Notify::new(),
        }
    }
}

impl Endings {
    /// Resolves when a connection may be closed; in the order in which they asked.
    pub(crate) async fn wait(&self) {
        // It is never closed.
        if let Ok(place) = self.places.acquire().await {
            place.forget();
        }
        self.taken.notify_one();
    }

    /// Gives places out, for as long as it is polled: new ones once all that was ready has been polled, and sockets looked at.
    pub(crate) async fn keep(&self) {
        loop {
            self.taken.notified().await;
            let mut begun = Instant::now();
            loop {
                tokio::task::yield_now().await;
                let now = Instant::now();
                let round = now.saturating_duration_since(begun);
                begun = now;
                let places = in_a_round(round);
                let left = self.places.available_permits();
                if left >= IN_A_ROUND {
                    // Nobody waits.
                    self.places.forget_permits(left - IN_A_ROUND);
                    break;
                }
                // Who waits has them at once.
                self.places.add_permits(places - left);
            }
        }
    }
}

/// How many may end in a round after one that took so long.
fn in_a_round(round: Duration) -> usize {
    let fit = (round / PART).as_nanos() / END.as_nanos();
    usize::try_from(fit)
        .unwrap_or(usize::MAX)
        .clamp(IN_A_ROUND, Semaphore::MAX_PERMITS / 2)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use super::*;
    use crate::net::data_thread::runtime;

    #[test]
    fn others_are_polled_between_ends() {
        const ENDS: usize = 50;
        let runtime = runtime().expect("a runtime");
        let endings = Rc::new(Endings::default());
        let ended = Rc::new(RefCell::new(Vec::new()));
        let rounds = Rc::new(Cell::new(0));
        runtime.block_on(async {
            let own = Rc::clone(&endings);
            let keeper = tokio::task::spawn_local(async move { own.keep().await });
            let own = Rc::clone(&rounds);
            let other = tokio::task::spawn_local(async move {
                loop {
                    own.set(own.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
            let end = |number: usize| {
                let (endings, ended) = (Rc::clone(&endings), Rc::clone(&ended));
                let rounds = Rc::clone(&rounds);
                tokio::task::spawn_local(async move {
                    endings.wait().await;
                    ended.borrow_mut().push((number, rounds.get()));
                })
            };
            let all: Vec<_> = (0..ENDS).map(end).collect();
            // One that goes away while it waits takes nobody's place.
            drop(tokio::time::timeout(Duration::ZERO, endings.wait()).await);
            for one in all {
                one.await.expect("it does not panic");
            }
            keeper.abort();
            other.abort();
        });
        let ended = ended.borrow();
        let order: Vec<usize> = ended.iter().map(|(number, _)| *number).collect();
        assert_eq!(order, (0..ENDS).collect::<Vec<_>>(), "who came first");
        assert!(
            ended.first().map(|end| end.1) < ended.last().map(|end| end.1),
            "the other was polled: {ended:?}"
        );
    }

    #[test]
    fn more_may_end_in_long_rounds() {
        assert_eq!(in_a_round(Duration::ZERO), IN_A_ROUND);
        assert_eq!(in_a_round(Duration::from_micros(300)), IN_A_ROUND);
        // 100 ms, of which 12.5 ms are 1,041 ends.
        assert_eq!(in_a_round(Duration::from_millis(100)), 1_041);
        assert!(in_a_round(Duration::MAX) > 1_041);
    }
}
