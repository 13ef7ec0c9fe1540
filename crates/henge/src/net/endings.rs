//! The ends of connections, a few in each turn of their data thread. Who breaks off thousands at once would else have it close sockets
//! and give memory back for as long as that takes, while others wait for their answers. It ends none, and refuses none its end.

use tokio::sync::{Notify, Semaphore};

/// How many connections may end before all that is ready has its turn: some 50 microseconds of a thread. Ten thousand have ended
/// in less than a second then, however busy it is.
const IN_A_TURN: usize = 4;

/// Who may end.
#[derive(Debug)]
pub(crate) struct Endings {
    turns: Semaphore,
    taken: Notify,
}

impl Default for Endings {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(IN_A_TURN),
            taken: Notify::new(),
        }
    }
}

impl Endings {
    /// Resolves when a connection may give back what it holds; in the order in which they asked.
    pub(crate) async fn turn(&self) {
        // It is never closed.
        if let Ok(turn) = self.turns.acquire().await {
            turn.forget();
        }
        self.taken.notify_one();
    }

    /// Gives turns out, for as long as it is polled: new ones once all that was ready has been polled, and sockets looked at.
    pub(crate) async fn keep(&self) {
        loop {
            self.taken.notified().await;
            loop {
                tokio::task::yield_now().await;
                // Who waits has them at once, and then all are missing again.
                let missing = IN_A_TURN - self.turns.available_permits();
                if missing == 0 {
                    break;
                }
                self.turns.add_permits(missing);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use super::*;
    use crate::net::data_thread::runtime;

    #[test]
    fn others_have_their_turn_between_ends() {
        const ENDS: usize = 50;
        let runtime = runtime().expect("a runtime");
        let endings = Rc::new(Endings::default());
        let ended = Rc::new(RefCell::new(Vec::new()));
        let served = Rc::new(Cell::new(0));
        runtime.block_on(async {
            let own = Rc::clone(&endings);
            let keeper = tokio::task::spawn_local(async move { own.keep().await });
            let own = Rc::clone(&served);
            let other = tokio::task::spawn_local(async move {
                loop {
                    own.set(own.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
            let end = |number: usize| {
                let (endings, ended) = (Rc::clone(&endings), Rc::clone(&ended));
                let served = Rc::clone(&served);
                tokio::task::spawn_local(async move {
                    endings.turn().await;
                    ended.borrow_mut().push((number, served.get()));
                })
            };
            let all: Vec<_> = (0..ENDS).map(end).collect();
            for one in all {
                one.await.expect("it does not panic");
            }
            keeper.abort();
            other.abort();
        });
        let ended = ended.borrow();
        let order: Vec<usize> = ended.iter().map(|(number, _)| *number).collect();
        assert_eq!(order, (0..ENDS).collect::<Vec<_>>(), "who came first");
        for window in ended.windows(2 * IN_A_TURN + 1) {
            let (first, last) = (window[0].1, window[2 * IN_A_TURN].1);
            assert!(first < last, "the other was served: {ended:?}");
        }
    }
}
