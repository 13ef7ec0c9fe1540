//! How far replicas of other nodes are behind the partitions that this node leads, and how much of these comes to be committed. It is
//! found by a look once a second, so that nothing is counted for it on the way of a write.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use henge_cluster::ring::NodeId;
use henge_wire::Partition;
use parking_lot::Mutex;

use crate::cache::{Cache, Led};

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    looks: Mutex<Looks>,
    commits: AtomicU64,
}

/// How far another node is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Behind {
    /// So many entries of all partitions together, of those replicas that have aligned.
    pub(crate) entries: u64,
    /// For so long it has lacked something of one.
    pub(crate) lasts: Duration,
    /// Replicas that have not aligned yet.
    pub(crate) to_follow: u64,
}

/// What the last look has found.
#[derive(Debug, Default)]
struct Looks {
    at: Option<Instant>,
    led: HashMap<Partition, Seen>,
    /// Since when a node has lacked what its leader had then. There are as many as replicas that lack something.
    lacking: HashMap<(Partition, NodeId), Instant>,
    behind: BTreeMap<NodeId, Behind>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    generation: u32,
    last: u64,
    commit: u64,
}

impl Lag {
    /// Looks at all partitions that this node leads. Called in turn, and not often.
    pub(crate) fn look(&self, cache: &Cache, now: Instant) {
        let mut looks = self.looks.lock();
        let mut next = Next::of(&looks, now);
        for shard in 0..cache.shard_count() {
            cache.look_at_led(shard, |led| next.add(&looks, led));
        }
        self.commits.fetch_add(next.commits, Relaxed);
        *looks = next.looks;
    }

    /// Entries that were committed, of partitions that this node led then.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Relaxed)
    }

    /// How far each node is behind that has to follow.
    pub(crate) fn behind(&self) -> BTreeMap<NodeId, Behind> {
        self.looks.lock().behind.clone()
    }
}

/// A look, as it goes on.
struct Next {
    looks: Looks,
    now: Instant,
    commits: u64,
}

impl Next {
    fn of(before: &Looks, now: Instant) -> Self {
        Self {
            looks: Looks {
                at: Some(now),
                led: HashMap::with_capacity(before.led.len()),
                ..Looks::default()
            },
            now,
            commits: 0,
        }
    }

    fn add(&mut self, before: &Looks, led: Led<'_>) {
        let partition = led.partition;
        let seen = Seen {
            generation: led.generation,
            last: led.progress.last.seq(),
            commit: led.progress.commit,
        };
        // Another generation counts its entries anew.
        let known = before.led.get(&partition);
        let known = known.filter(|known| known.generation == seen.generation);
        // What is committed up to its base another one has stamped, or this one in a term of which it was counted.
        let counted = known.map_or(led.base, |known| known.commit);
        self.commits += seen.commit.saturating_sub(counted);
        for (node, applied) in led.followed {
            let behind = self.looks.behind.entry(node).or_default();
            match applied {
                Some(applied) => behind.entries += seen.last.saturating_sub(applied),
                None => behind.to_follow += 1,
            }
            // What was stamped since the last look may be on its way.
            let has_all = applied.is_some() && applied >= known.map(|known| known.last);
            if !has_all {
                let place = (partition, node);
                let since = before.lacking.get(&place).copied();
                let since = since.or(before.at).unwrap_or(self.now);
                self.looks.lacking.insert(place, since);
                behind.lasts = behind.lasts.max(self.now.saturating_duration_since(since));
            }
        }
        self.looks.led.insert(partition, seen);
    }
}

#[cfg(test)]
mod tests {
    use henge_engine::Progress;
    use henge_wire::Version;

    use super::*;

    const NODE: NodeId = NodeId(2);

    /// One look after the other, each a second after the one before: the generation, how far the leader is, and how far a follower.
    fn looked(looks: &[(u32, (u64, u64), Option<u64>)]) -> (Vec<Behind>, u64) {
        let (mut before, mut commits) = (Looks::default(), 0);
        let mut now = Instant::now();
        let mut all = Vec::new();
        for &(generation, (last, commit), applied) in looks {
            now += Duration::from_secs(1);
            let mut next = Next::of(&before, now);
            next.add(
                &before,
                Led {
                    partition: Partition::new(7).expect("it is one"),
                    generation,
                    base: 85,
                    progress: Progress {
                        last: Version::new(1, last),
                        commit,
                        horizon: 0,
                    },
                    followed: &mut std::iter::once((NODE, applied)),
                },
            );
            commits += next.commits;
            before = next.looks;
            all.push(before.behind[&NODE]);
        }
        (all, commits)
    }

    fn behind(entries: u64, seconds: u64, to_follow: u64) -> Behind {
        Behind {
            entries,
            lasts: Duration::from_secs(seconds),
            to_follow,
        }
    }

    #[test]
    fn who_lacks_something_lacks_it_since_a_look() {
        let (found, commits) = looked(&[
            (1, (100, 90), Some(100)),
            (1, (150, 140), Some(120)),
            (1, (150, 150), Some(120)),
            (1, (160, 150), Some(120)),
            (1, (170, 160), Some(160)),
            (1, (170, 170), None),
            (1, (170, 170), Some(170)),
        ]);
        let expected = [
            behind(0, 0, 0),
            behind(30, 0, 0),
            behind(30, 1, 0),
            behind(40, 2, 0),
            behind(10, 0, 0),
            behind(0, 1, 1),
            behind(0, 0, 0),
        ];
        assert_eq!(found, expected);
        assert_eq!(commits, 170 - 85);
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
