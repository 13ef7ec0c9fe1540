//! How far replicas of other nodes are behind the partitions that this node leads, and how much of these comes to be committed. It is
//! found by a look once a second, so that nothing is counted for it on the way of a write.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use henge_cluster::ring::NodeId;
use henge_wire::Partition;
use parking_lot::Mutex;

use crate::cache::{Cache, Led};

/// So many earlier looks are kept of a partition of which somebody lacks something: the oldest, and the newest others.
const MARKS: usize = 16;

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    /// What the last look has found, but while the next is under way.
    looks: Mutex<Looks>,
    behind: Mutex<BTreeMap<NodeId, Behind>>,
    commits: AtomicU64,
}

/// How far another node is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Behind {
    /// So many entries of all partitions together, of those replicas that have aligned.
    pub(crate) entries: u64,
    /// How long ago the oldest of these was there, or for how long one has not aligned.
    pub(crate) lag: Duration,
    /// Replicas that have not aligned yet.
    pub(crate) to_follow: u64,
}

#[derive(Debug, Default)]
struct Looks {
    led: HashMap<Partition, Seen>,
    /// Since when a replica has not aligned. There are as many as do not.
    to_follow: HashMap<(Partition, NodeId), Instant>,
}

#[derive(Debug)]
struct Seen {
    generation: u32,
    commit: u64,
    /// How far the leader was at looks before, the oldest first; of those that everybody has who is aligned, none.
    marks: Vec<(Instant, u64)>,
}

impl Lag {
    /// Looks at all partitions that this node leads. Called in turn, and not often.
    pub(crate) async fn look(&self, cache: &Cache, now: Instant) {
        let mut next = Next::after(std::mem::take(&mut *self.looks.lock()), now);
        for shard in 0..cache.shard_count() {
            for led in cache.led(shard) {
                next.add(&led);
            }
            tokio::task::yield_now().await;
        }
        let Next {
            looks,
            behind,
            commits,
            ..
        } = next;
        *self.looks.lock() = looks;
        *self.behind.lock() = behind;
        self.commits.fetch_add(commits, Relaxed);
    }

    /// Entries that were committed, of partitions that this node led then.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Relaxed)
    }

    /// How far each node is behind that has to follow.
    pub(crate) fn behind(&self) -> BTreeMap<NodeId, Behind> {
        self.behind.lock().clone()
    }
}

/// A look, as it goes on.
struct Next {
    before: Looks,
    now: Instant,
    looks: Looks,
    behind: BTreeMap<NodeId, Behind>,
    commits: u64,
}

impl Next {
    fn after(before: Looks, now: Instant) -> Self {
        Self {
            before,
            now,
            looks: Looks::default(),
            behind: BTreeMap::new(),
            commits: 0,
        }
    }

    fn add(&mut self, led: &Led) {
        let (partition, now) = (led.partition, self.now);
        let (last, commit) = (led.progress.last.seq(), led.progress.commit);
        // Another generation counts its entries anew.
        let known = self.before.led.remove(&partition);
        let known = known.filter(|known| known.generation == led.generation);
        // What is committed up to its base another one has stamped, or this one in a term of which it was counted.
        let counted = known.as_ref().map_or(0, |known| known.commit);
        self.commits += commit.saturating_sub(counted.max(led.base));
        let mut marks = known.map_or_else(Vec::new, |known| known.marks);
        for &(node, applied) in &led.followed {
            let behind = self.behind.entry(node).or_default();
            let since = if let Some(applied) = applied {
                behind.entries += last.saturating_sub(applied);
                let lacked = marks.iter().find(|(_, seq)| *seq > applied);
                lacked.map(|(at, _)| *at)
            } else {
                behind.to_follow += 1;
                let place = (partition, node);
                let since = self.before.to_follow.get(&place).copied().unwrap_or(now);
                self.looks.to_follow.insert(place, since);
                Some(since)
            };
            let lag = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            behind.lag = behind.lag.max(lag);
        }
        let aligned = led.followed.iter().filter_map(|(_, applied)| *applied);
        let everybodys = aligned.min().unwrap_or(last);
        marks.retain(|(_, seq)| *seq > everybodys);
        if last > marks.last().map_or(everybodys, |(_, seq)| *seq) {
            if marks.len() == MARKS {
                marks.remove(1);
            }
            marks.push((now, last));
        }
        let seen = Seen {
            generation: led.generation,
            commit,
            marks,
        };
        self.looks.led.insert(partition, seen);
    }
}

#[cfg(test)]
mod tests {
    use henge_engine::Progress;
    use henge_wire::Version;

    use super::*;

    const NODE: NodeId = NodeId(2);
    const BASE: u64 = 85;

    /// One look after the other, each a second after the one before: the generation, how far the leader is, and how far a follower.
    fn looked(all: &[(u32, (u64, u64), Option<u64>)]) -> (Vec<Behind>, u64) {
        let (mut looks, mut commits) = (Looks::default(), 0);
        let mut now = Instant::now();
        let mut found = Vec::new();
        for &(generation, (last, commit), applied) in all {
            now += Duration::from_secs(1);
            let mut next = Next::after(looks, now);
            next.add(&Led {
                partition: Partition::new(7).expect("it is one"),
                generation,
                base: BASE,
                progress: Progress {
                    last: Version::new(1, last),
                    commit,
                    horizon: 0,
                },
                followed: [(NODE, applied)].into_iter().collect(),
            });
            commits += next.commits;
            found.push(next.behind[&NODE]);
            looks = next.looks;
            assert!(looks.led.values().all(|seen| seen.marks.len() <= MARKS));
        }
        (found, commits)
    }

    fn behind(entries: u64, seconds: u64, to_follow: u64) -> Behind {
        Behind {
            entries,
            lag: Duration::from_secs(seconds),
            to_follow,
        }
    }

    #[test]
    fn the_oldest_that_is_lacked_counts() {
        let (found, commits) = looked(&[
            (1, (100, 70), Some(100)),
            (1, (150, 140), Some(120)),
            (1, (150, 150), Some(120)),
            (1, (160, 150), Some(120)),
            (1, (170, 160), Some(155)),
            (1, (170, 170), None),
            (1, (170, 170), None),
            (1, (170, 170), Some(170)),
        ]);
        let expected = [
            behind(0, 0, 0),
            behind(30, 0, 0),
            behind(30, 1, 0),
            behind(40, 2, 0),
            behind(15, 1, 0),
            behind(0, 0, 1),
            behind(0, 1, 1),
            behind(0, 0, 0),
        ];
        assert_eq!(found, expected);
        assert_eq!(
            commits,
            170 - BASE,
            "what was there before is none of its own"
        );
    }

    /// However long it goes on.
    #[test]
    fn who_is_always_as_far_behind_is_no_further() {
        let looks: Vec<_> = (100..300)
            .map(|second| (1, (10 * second, 0), Some(10 * (second - 3))))
            .collect();
        let (found, _) = looked(&looks);
        let longest = found.iter().map(|behind| behind.lag).max();
        assert_eq!(longest, Some(Duration::from_secs(2)));
        // And who never comes on is, by all that time.
        let looks: Vec<_> = (100..300).map(|n| (1, (10 * n, 0), Some(1000))).collect();
        let (found, _) = looked(&looks);
        assert_eq!(found.last(), Some(&behind(1990, 198, 0)));
    }

    #[test]
    fn another_generation_is_counted_anew() {
        let (_, commits) = looked(&[
            (1, (90, 90), Some(90)),
            (2, (95, 95), None),
            (2, (96, 96), None),
        ]);
        assert_eq!(commits, 5 + 10 + 1);
    }
}
