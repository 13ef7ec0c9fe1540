//! Spans that wait to be exported, bounded: what has no room is dropped and counted. Whoever puts one there waits for nobody.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_sdk::trace::SpanData;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// Spans that wait, some two megabytes; what the SDK of OpenTelemetry has.
const MOST_SPANS: usize = 2_048;
/// Spans that are sent at once, as there.
const BATCH: usize = 512;
/// For so long the first of a batch waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// For so long it tries where the batch before was not taken: enough for one that is back.
const LAST_TRY: Duration = Duration::from_millis(300);
/// For so long a node that ends sends what waits: enough for a collector that answers, and no more for one that does not.
const LONGEST_END: Duration = Duration::from_secs(2);

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<SpanData>>,
    /// Is told of the first that waits, and of a batch.
    more: Notify,
    /// Until when what waits is sent, once no more comes.
    end: watch::Sender<Option<Instant>>,
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            // Who puts one there does not wait for it to grow.
            waiting: Mutex::new(VecDeque::with_capacity(MOST_SPANS)),
            more: Notify::new(),
            end: watch::Sender::new(None),
            exported: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }
}

impl Queue {
    /// Takes a span, if there is room.
    pub(super) fn push(&self, span: SpanData) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MOST_SPANS {
            drop(waiting);
            self.note_dropped(1);
            return;
        }
        waiting.push_back(span);
        let count = waiting.len();
        drop(waiting);
        if count == 1 || count == BATCH {
            self.more.notify_one();
        }
    }

    /// The next to be sent; none when no more comes.
    pub(super) async fn next(&self) -> Option<Vec<SpanData>> {
        let mut end = self.end.subscribe();
        loop {
            let is_over = end.borrow_and_update().is_some();
            let count = self.waiting.lock().len();
            if is_over || count >= BATCH {
                return self.take();
            }
            let more = async {
                tokio::select! {
                    () = self.more.notified() => {}
                    _ = end.changed() => {}
                }
            };
            if count == 0 {
                more.await;
            } else if tokio::time::timeout(DELAY, more).await.is_err() {
                return self.take();
            }
        }
    }

    fn take(&self) -> Option<Vec<SpanData>> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(BATCH);
        let batch: Vec<SpanData> = waiting.drain(..count).collect();
        (!batch.is_empty()).then_some(batch)
    }

    /// Resolves when nothing is to be sent any more: soon after no more comes, where a collector is likely to be away.
    pub(super) async fn is_over(&self, is_away: bool) {
        let mut end = self.end.subscribe();
        let deadline = end.wait_for(Option::is_some).await.ok();
        let deadline = deadline.and_then(|deadline| *deadline);
        if let Some(mut deadline) = deadline {
            if is_away {
                deadline = deadline.min(Instant::now() + LAST_TRY);
            }
            tokio::time::sleep_until(deadline.into()).await;
        }
    }

    /// No more comes: what waits is sent until this moment, and not for long.
    pub(super) fn end(&self, deadline: Instant) {
        let deadline = deadline.min(Instant::now() + LONGEST_END);
        self.end.send_replace(Some(deadline));
    }

    /// What waits is not sent. Says how much that was.
    pub(super) fn give_up(&self) -> usize {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        self.note_dropped(waiting.len());
        waiting.len()
    }

    pub(super) fn note_exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub(super) fn note_dropped(&self, spans: usize) {
        self.dropped.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub(super) fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
