//! How fast copies go to other nodes, and how many at a time. A node sends so many bytes of them a second, whoever asks: what a part
//! has is known when it is sent, so that the next ones pay for it. Parts that somebody's answer waits for are not held up, and are paid
//! for all the same. And to each node only some copies are under way, as who copies keeps what has come of one beside its cache until its
//! end; the others begin when those have come to theirs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use henge_cluster::ring::NodeId;
use henge_wire::Partition;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What was not sent for so long may be sent at once. Threads that have so much to do that they come to it later than that send less,
/// and requests go before copies.
const BURST: Duration = Duration::from_millis(10);
/// The rate is reckoned over no less than that.
const MOMENT: Duration = Duration::from_millis(100);
/// Over so long the present rate is reckoned.
const WINDOW: Duration = Duration::from_secs(2);
/// Copies that are under way to a node at a time: with parts of a quarter of a MiB enough for a fast network, and of a thousand
/// partitions little memory.
const MOST_UNDER_WAY: usize = 16;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Pace {
    sent_bytes: AtomicU64,
    queue: Mutex<Queue>,
    /// Is told of a copy that waits for its turn, or may.
    waits: Notify,
}

/// What is to be done about copies now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// It is that of a copy to a node.
    Of(Partition, NodeId),
    /// It is somebody's after so long.
    In(Duration),
    /// Nobody waits for one.
    Nobodys,
}

#[derive(Debug)]
struct Queue {
    /// What may be sent now, below zero where more was sent than that.
    room_bytes: f64,
    at: Instant,
    /// Copies that have begun and ask for their next parts, in the order in which they came.
    asks: VecDeque<(Partition, NodeId)>,
    targets: BTreeMap<NodeId, Target>,
    /// For the rate: what was sent until when.
    marks: VecDeque<(Instant, u64)>,
}

/// A node that copies from here.
#[derive(Debug, Default)]
struct Target {
    /// Copies that have not begun.
    begins: VecDeque<Partition>,
    /// Those that have, and are not at their ends.
    under_way: BTreeSet<Partition>,
}

impl Target {
    fn has_room(&self) -> bool {
        self.under_way.len() < MOST_UNDER_WAY
    }
}

impl Queue {
    /// Where a copy can begin.
    fn open_target(&mut self) -> Option<(NodeId, &mut Target)> {
        let targets = self.targets.iter_mut();
        let open = targets.filter(|(_, target)| target.has_room() && !target.begins.is_empty());
        let first = open.min_by_key(|(_, target)| target.under_way.len());
        first.map(|(to, target)| (*to, target))
    }

    fn some_wait(&mut self) -> bool {
        !self.asks.is_empty() || self.open_target().is_some()
    }

    fn take(&mut self) -> Option<(Partition, NodeId)> {
        if let Some(asks) = self.asks.pop_front() {
            return Some(asks);
        }
        let (to, target) = self.open_target()?;
        let partition = target.begins.pop_front()?;
        target.under_way.insert(partition);
        Some((partition, to))
    }
}

/// How many copies there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Copies {
    pub(crate) under_way: usize,
    /// Those that have not begun.
    pub(crate) waiting: usize,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            sent_bytes: AtomicU64::new(0),
            queue: Mutex::new(Queue {
                room_bytes: 0.0,
                at: now,
                asks: VecDeque::new(),
                targets: BTreeMap::new(),
                marks: VecDeque::new(),
            }),
            waits: Notify::new(),
        }
    }

    /// Waits until somebody may have a turn.
    pub(crate) async fn some_wait(&self) {
        self.waits.notified().await;
    }

    /// All bytes of copies that were sent since the start.
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
        let took = now.saturating_duration_since(since).max(MOMENT);
        let rate = u128::from(sent - before) * 1_000 / took.as_millis();
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// How many copies go out from here.
    pub(crate) fn copies(&self) -> Copies {
        let queue = self.queue.lock();
        let mut copies = Copies::default();
        for target in queue.targets.values() {
            copies.under_way += target.under_way.len();
            copies.waiting += target.begins.len();
        }
        copies
    }

    /// A part of a copy was sent: the last one, or others come.
    pub(crate) fn sent(&self, partition: Partition, to: NodeId, bytes: usize, is_last: bool) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let mut queue = self.queue.lock();
        queue.room_bytes -= bytes as f64;
        let target = queue.targets.entry(to).or_default();
        if is_last {
            target.under_way.remove(&partition);
        } else {
            target.under_way.insert(partition);
        }
        let others_can = is_last && !target.begins.is_empty();
        drop(queue);
        if others_can {
            self.waits.notify_one();
        }
    }

    /// A copy asks for its next part, and waits for its turn.
    pub(crate) fn wait(&self, partition: Partition, to: NodeId, has_begun: bool) {
        let mut queue = self.queue.lock();
        let asks = (partition, to);
        if has_begun {
            // One asks again only when it was answered, or begins anew.
            queue.asks.push_back(asks);
        } else {
            queue.asks.retain(|other| *other != asks);
            let target = queue.targets.entry(to).or_default();
            target.under_way.remove(&partition);
            if !target.begins.contains(&partition) {
                target.begins.push_back(partition);
            }
        }
        drop(queue);
        self.waits.notify_one();
    }

    /// Whose turn it is, at so many bytes a second, or without a bound. To be asked again when that part was sent.
    pub(crate) fn next(&self, now: Instant, rate: Option<u64>) -> Turn {
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
                    let wait = Duration::from_secs_f64(-queue.room_bytes / rate as f64);
                    return if queue.some_wait() {
                        Turn::In(wait)
                    } else {
                        Turn::Nobodys
                    };
                }
            }
        }
        queue
            .take()
            .map_or(Turn::Nobodys, |(partition, to)| Turn::Of(partition, to))
    }

    /// Time has passed: copies are forgotten that ended before their ends, where others wait for them.
    pub(crate) fn tick(&self, now: Instant, is_copying: impl Fn(Partition, NodeId) -> bool) {
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
        let under_way = |(to, target): (&NodeId, &Target)| {
            let all = target.under_way.iter();
            all.map(|partition| (*partition, *to)).collect::<Vec<_>>()
        };
        let all: Vec<_> = queue.targets.iter().flat_map(under_way).collect();
        // A shard is locked before the queue, never behind it.
        drop(queue);
        let ended = all
            .into_iter()
            .filter(|(partition, to)| !is_copying(*partition, *to));
        let ended: Vec<_> = ended.collect();
        let mut queue = self.queue.lock();
        for (partition, to) in ended {
            if let Some(target) = queue.targets.get_mut(&to) {
                target.under_way.remove(&partition);
            }
        }
        let is_used = |target: &Target| !target.under_way.is_empty() || !target.begins.is_empty();
        queue.targets.retain(|_, target| is_used(target));
        if queue.some_wait() {
            self.waits.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: NodeId = NodeId(4);

    fn partition(number: u16) -> Partition {
        Partition::new(number).expect("it is one")
    }

    /// Whose turn it is, by the partition.
    fn next(pace: &Pace, now: Instant, rate: Option<u64>) -> Option<u16> {
        let Turn::Of(partition, to) = pace.next(now, rate) else {
            return None;
        };
        assert_eq!(to, TO);
        Some(partition.number())
    }

    fn begins(pace: &Pace, number: u16) {
        pace.wait(partition(number), TO, false);
    }

    fn sent(pace: &Pace, number: u16, bytes: usize) {
        pace.sent(partition(number), TO, bytes, false);
    }

    #[test]
    fn what_was_sent_is_paid_for_before_the_next() {
        let begun = Instant::now();
        let pace = Pace::new(begun);
        let rate = Some(1_000_000);
        (0..4).for_each(|number| begins(&pace, number));
        // Twice, as it has begun anew.
        begins(&pace, 1);
        assert_eq!(next(&pace, begun, rate), Some(0));
        sent(&pace, 0, 500_000);
        let half = Duration::from_millis(500);
        assert_eq!(pace.next(begun, rate), Turn::In(half));
        let later = |ms| begun + Duration::from_millis(ms);
        assert_eq!(next(&pace, later(499), rate), None);
        assert_eq!(next(&pace, later(500), rate), Some(1));
        sent(&pace, 1, 1);
        assert_eq!(next(&pace, later(500), rate), None);
        assert_eq!(next(&pace, later(501), rate), Some(2));
        sent(&pace, 2, 700_000);
        // Without a bound nobody waits, and nothing is owed when there is one again.
        assert_eq!(next(&pace, later(502), None), Some(3));
        assert_eq!(next(&pace, later(502), rate), None);
        pace.wait(partition(3), TO, true);
        assert_eq!(next(&pace, later(502), rate), Some(3));
        assert_eq!(pace.sent_bytes(), 1_200_001);
    }

    /// Who had nothing to send for long may not send all of it at once.
    #[test]
    fn what_was_not_sent_is_not_saved_up() {
        let begun = Instant::now();
        let pace = Pace::new(begun);
        let later = begun + Duration::from_mins(10);
        assert_eq!(next(&pace, later, Some(1_000_000)), None);
        sent(&pace, 1, 200_000);
        pace.wait(partition(1), TO, true);
        let soon = |ms| later + Duration::from_millis(ms);
        assert_eq!(next(&pace, soon(189), Some(1_000_000)), None);
        assert_eq!(next(&pace, soon(190), Some(1_000_000)), Some(1));
    }

    #[test]
    fn copies_begin_as_others_come_to_their_ends() {
        let now = Instant::now();
        let pace = Pace::new(now);
        let most = u16::try_from(MOST_UNDER_WAY).expect("few");
        (0..most + 3).for_each(|number| begins(&pace, number));
        (0..most).for_each(|number| assert_eq!(next(&pace, now, None), Some(number)));
        assert_eq!(next(&pace, now, None), None);
        let (under_way, waiting) = (MOST_UNDER_WAY, 3);
        assert_eq!(pace.copies(), Copies { under_way, waiting });
        // Another node waits for none of them.
        let other = NodeId(5);
        pace.wait(partition(0), other, false);
        assert_eq!(pace.next(now, None), Turn::Of(partition(0), other));
        // One that has begun goes on before others begin.
        pace.sent(partition(3), TO, 1, true);
        pace.wait(partition(5), TO, true);
        assert_eq!(next(&pace, now, None), Some(5));
        assert_eq!(next(&pace, now, None), Some(most));
        assert_eq!(next(&pace, now, None), None);
        // One that begins anew waits behind the others.
        begins(&pace, 5);
        assert_eq!(next(&pace, now, None), Some(most + 1));
        assert_eq!(next(&pace, now, None), None);
        // Some have ended, and nobody has said so.
        pace.tick(now, |partition, _| partition.number() > 1);
        assert_eq!(next(&pace, now, None), Some(most + 2));
        assert_eq!(next(&pace, now, None), Some(5));
        assert_eq!(next(&pace, now, None), None);
        pace.tick(now, |_, _| false);
        assert_eq!(pace.copies(), Copies::default());
    }

    #[test]
    fn the_rate_is_that_of_the_last_moments() {
        let begun = Instant::now();
        let pace = Pace::new(begun);
        assert_eq!(pace.bytes_per_second(begun), 0);
        let tick = |now| pace.tick(now, |_, _| true);
        for half in 0..20 {
            tick(begun + half * (WINDOW / 4));
            sent(&pace, 1, 1_000);
        }
        let end = begun + 20 * (WINDOW / 4);
        let rate = pace.bytes_per_second(end);
        assert!((1_900..=2_100).contains(&rate), "{rate}");
        tick(end);
        tick(end + 2 * WINDOW);
        assert_eq!(pace.bytes_per_second(end + 3 * WINDOW), 0);
    }
}
