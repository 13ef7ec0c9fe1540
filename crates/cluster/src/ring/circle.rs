//! Consistent hashing with virtual nodes: a circle of 64-bit points, some of each node by its weight, and the order in which a
//! walk from a partition's point comes upon the nodes. The points are format, fixed for ever: they are XXH3 of what they are of.

use super::Member;
use henge_wire::PARTITIONS;
use xxhash_rust::xxh3::xxh3_64;

/// Points of a node of the mean weight. The order decides only between places that are as good, so that few are enough.
const POINTS: u64 = 64;
/// No node has more, whatever its weight.
const MOST_POINTS: u64 = 1_024;

/// See the head of the file.
pub(super) struct Circle {
    /// Ascending: where, and which member.
    points: Vec<(u64, usize)>,
    members: usize,
}

impl Circle {
    pub(super) fn new(members: &[Member]) -> Self {
        let weights: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let mut points = Vec::new();
        for (place, member) in members.iter().enumerate() {
            let share = u64::from(member.weight) * members.len() as u64 * POINTS / weights.max(1);
            for number in 0..share.clamp(1, MOST_POINTS) {
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&member.id.0.to_le_bytes());
                bytes[8..].copy_from_slice(&number.to_le_bytes());
                points.push((xxh3_64(&bytes), place));
            }
        }
        points.sort_unstable();
        Self {
            points,
            members: members.len(),
        }
    }

    /// All members, in the order of preference of a partition.
    pub(super) fn order(&self, partition: usize) -> Vec<usize> {
        assert!(partition < usize::from(PARTITIONS), "it is one of them");
        let point = xxh3_64(&(partition as u16).to_le_bytes());
        let start = self.points.partition_point(|(at, _)| *at < point);
        let mut seen = vec![false; self.members];
        let mut order = Vec::with_capacity(self.members);
        let (before, behind) = self.points.split_at(start);
        for &(_, member) in behind.iter().chain(before) {
            if !std::mem::replace(&mut seen[member], true) {
                order.push(member);
                if order.len() == self.members {
                    break;
                }
            }
        }
        order
    }
}
