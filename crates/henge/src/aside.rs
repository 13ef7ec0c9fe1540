//! Work that takes longer than a data thread should give to one request: it is done by the blocking pool of its runtime, and other
//! connections go on meanwhile. Whoever goes away has work that has not begun dropped, and all that it took with it: so what
//! work needs of the node's memory is counted by a hold that goes with it, and not by one that stays with who waits.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;

/// Does the work elsewhere; none where it is cut off.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    Waiting(tokio::task::spawn_blocking(work)).await
}

/// Who waits for it.
struct Waiting<T>(JoinHandle<T>);

impl<T> Future for Waiting<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.0).poll(cx).map(Result::ok)
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        // What has begun goes on to its end.
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::net::data_thread::{BLOCKING_THREADS, runtime};
    use crate::net::inflight::InFlight;

    #[test]
    fn what_nobody_waits_for_is_not_begun_and_is_counted_until_it_is_dropped() {
        const BYTES: usize = 1 << 20;
        let in_flight = InFlight::new(BYTES);
        let has_run = Arc::new(AtomicBool::new(false));
        runtime().expect("a runtime").block_on(async {
            let (let_go, wait) = mpsc::channel::<()>();
            let wait = Arc::new(parking_lot::Mutex::new(wait));
            let busy = (0..BLOCKING_THREADS).map(|_| {
                let wait = Arc::clone(&wait);
                tokio::task::spawn_blocking(move || wait.lock().recv())
            });
            let busy: Vec<_> = busy.collect();
            let mut hold = in_flight.hold_for(BYTES).expect("it is much");
            assert!(hold.set(BYTES));
            let runs = Arc::clone(&has_run);
            {
                let work = move || {
                    runs.store(true, Ordering::Relaxed);
                    drop(hold);
                };
                let mut waiting = pin!(aside(work));
                poll_fn(|cx| {
                    assert!(waiting.as_mut().poll(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
            }
            assert_eq!(in_flight.held(), BYTES, "it waits for its turn");
            for _ in 0..BLOCKING_THREADS {
                let_go.send(()).expect("they wait");
            }
            for one in busy {
                let _ = one.await.expect("it does not panic");
            }
            assert_eq!(aside(|| 7).await, Some(7), "it comes behind the other");
        });
        assert_eq!(in_flight.held(), 0);
        assert!(!has_run.load(Ordering::Relaxed));
    }
}
