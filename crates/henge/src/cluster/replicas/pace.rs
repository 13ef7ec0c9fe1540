//! How fast copies go that are made because partitions move: a node sends so many bytes of them a second, whoever asks. Who asks for
//! another part waits for its turn; what a part has is known when it is sent, so that the next ones pay for it. Replicas that come back
//! and copy what they lack are not held up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use henge_cluster::replica::MessageOf;
use henge_cluster::ring::NodeId;
use henge_cluster::store::Served;
use henge_cluster::topology::Incarnation;
use henge_wire::Partition;
use parking_lot::Mutex;

/// What was not sent for so long may be sent at once: it is looked at four times in that.
const BURST: Duration = Duration::from_millis(100);
/// Over so long the present rate is reckoned.
const WINDOW: Duration = Duration::from_secs(2);

/// Somebody who asks for another part of a copy.
#[derive(Debug)]
pub(crate) struct Asks {
    pub(crate) partition: Partition,
    pub(crate) from: (NodeId, Incarnation),
    pub(crate) message: MessageOf<Served>,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Pace {
    sent_bytes: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    /// What may be sent now, below zero where more was sent than that.
    room_bytes: f64,
    at: Instant,
    /// In the order in which they came. One for each partition and node: who asks again has no answer to the last.
    asks: VecDeque<Asks>,
    /// For the rate: what was sent until when.
    marks: VecDeque<(Instant, u64)>,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            sent_bytes: AtomicU64::new(0),
            queue: Mutex::new(Queue {
                room_bytes: 0.0,
                at: now,
                asks: VecDeque::new(),
                marks: VecDeque::new(),
            }),
        }
    }

    /// All bytes that were sent for moves since the start.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// How many are sent a second now.
    pub(crate) fn bytes_per_second(&self, now: Instant) -> u64 {
        let sent = self.sent_bytes();
        let mut queue = self.queue.lock();
        let is_old = |at: Instant| now.saturating_duration_since(at) > WINDOW;
        while queue.marks.len() > 1 && is_old(queue.marks[1].0) {
            queue.marks.pop_front();
        }
        let Some(&(since, before)) = queue.marks.front() else {
            return 0;
        };
        let took = now.saturating_duration_since(since).max(BURST);
        let rate = u128::from(sent - before) * 1_000 / took.as_millis();
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// A part was sent.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.queue.lock().room_bytes -= bytes as f64;
    }

    /// Somebody asks, and waits for its turn.
    pub(crate) fn wait(&self, asks: Asks) {
        let mut queue = self.queue.lock();
        let is_same =
            |other: &&mut Asks| other.partition == asks.partition && other.from.0 == asks.from.0;
        match queue.asks.iter_mut().find(is_same) {
            Some(before) => *before = asks,
            None => queue.asks.push_back(asks),
        }
    }

    /// Whose turn it is, at so many bytes a second, or without a bound. To be asked again when that was answered, until there is none.
    pub(crate) fn next(&self, now: Instant, rate: Option<u64>) -> Option<Asks> {
        let mut queue = self.queue.lock();
        let passed = now.saturating_duration_since(queue.at);
        queue.at = now;
        match rate {
            None => queue.room_bytes = 0.0,
            Some(rate) => {
                let most = rate as f64 * BURST.as_secs_f64();
                let more = rate as f64 * passed.as_secs_f64();
                queue.room_bytes = (queue.room_bytes + more).min(most);
                if queue.room_bytes < 0.0 {
                    return None;
                }
            }
        }
        queue.asks.pop_front()
    }

    /// Time has passed: for the rate.
    pub(crate) fn mark(&self, now: Instant) {
        let sent = self.sent_bytes();
        let mut queue = self.queue.lock();
        let is_due = |at: Instant| now.saturating_duration_since(at) >= WINDOW / 4;
        if queue.marks.back().is_none_or(|(at, _)| is_due(*at)) {
            queue.marks.push_back((now, sent));
            // Those of two windows say all.
            while queue.marks.len() > 8 {
                queue.marks.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_cluster::replica::{Body, Message};

    fn asks(partition: u16, number: u64) -> Asks {
        Asks {
            partition: Partition::new(partition).expect("it is one"),
            from: (NodeId(4), 1),
            message: Message {
                term: 3,
                body: Body::Next { id: 1, number },
            },
        }
    }

    /// Who asks next, by the partition and the part.
    fn next(pace: &Pace, now: Instant, rate: Option<u64>) -> Option<(u16, u64)> {
        let asks = pace.next(now, rate)?;
        let Body::Next { number, .. } = asks.message.body else {
            panic!("it is another question");
        };
        Some((asks.partition.number(), number))
    }

    #[test]
    fn what_was_sent_is_paid_for_before_the_next() {
        let begun = Instant::now();
        let pace = Pace::new(begun);
        let rate = Some(1_000_000);
        (0..4).for_each(|partition| pace.wait(asks(partition, 1)));
        // Twice, as what was asked was not answered.
        pace.wait(asks(1, 2));
        assert_eq!(next(&pace, begun, rate), Some((0, 1)));
        pace.sent(500_000);
        assert_eq!(next(&pace, begun, rate), None);
        let later = |ms| begun + Duration::from_millis(ms);
        assert_eq!(next(&pace, later(499), rate), None);
        assert_eq!(next(&pace, later(500), rate), Some((1, 2)));
        pace.sent(1);
        assert_eq!(next(&pace, later(500), rate), None);
        assert_eq!(next(&pace, later(501), rate), Some((2, 1)));
        pace.sent(700_000);
        // Without a bound nobody waits, and nothing is owed when there is one again.
        assert_eq!(next(&pace, later(502), None), Some((3, 1)));
        assert_eq!(next(&pace, later(502), rate), None);
        pace.wait(asks(3, 2));
        assert_eq!(next(&pace, later(502), rate), Some((3, 2)));
        assert_eq!(pace.sent_bytes(), 1_200_001);
    }

    /// Who had nothing to send for long may not send all of it at once.
    #[test]
    fn what_was_not_sent_is_not_saved_up() {
        let begun = Instant::now();
        let pace = Pace::new(begun);
        let later = begun + Duration::from_mins(10);
        assert_eq!(next(&pace, later, Some(1_000_000)), None);
        pace.sent(200_000);
        pace.wait(asks(1, 1));
        let soon = |ms| later + Duration::from_millis(ms);
        assert_eq!(next(&pace, soon(99), Some(1_000_000)), None);
        assert_eq!(next(&pace, soon(100), Some(1_000_000)), Some((1, 1)));
    }

    #[test]
    fn the_rate_is_that_of_the_last_moments() {
        let begun = Instant::now();
        let pace = Pace::new(begun);
        assert_eq!(pace.bytes_per_second(begun), 0);
        for half in 0..20 {
            pace.mark(begun + half * (WINDOW / 4));
            pace.sent(1_000);
        }
        let end = begun + 20 * (WINDOW / 4);
        let rate = pace.bytes_per_second(end);
        assert!((1_900..=2_100).contains(&rate), "{rate}");
        pace.mark(end);
        pace.mark(end + 2 * WINDOW);
        assert_eq!(pace.bytes_per_second(end + 3 * WINDOW), 0);
    }
}
