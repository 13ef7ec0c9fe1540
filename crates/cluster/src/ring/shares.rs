//! How many replicas each node should hold, and how many of one partition a zone may: by the weights, as far as a partition
//! has no two replicas on a node, and a zone no more than its part.

use super::Member;
use std::collections::BTreeMap;

/// A node holds no more than this much above its share.
const MOST: f64 = 1.10;
/// It holds this much more or less than its share, or one replica.
const SLACK: f64 = 0.05;

/// What is to be placed on whom.
pub(super) struct Cluster {
    /// Replicas of each partition.
    pub(super) replicas: usize,
    pub(super) nodes: Vec<Node>,
    /// How many replicas of a partition each zone may have.
    pub(super) zone_limits: Vec<usize>,
}

/// One node.
pub(super) struct Node {
    /// Its zone, by its place; nodes that have none are zones of their own.
    pub(super) zone: usize,
    /// How many replicas it should hold, if they could be divided.
    pub(super) share: f64,
    /// How many it may hold.
    pub(super) least: usize,
    pub(super) most: usize,
    /// How many partitions it may lead.
    pub(super) most_led: usize,
}

impl Cluster {
    pub(super) fn new(members: &[Member], replicas: usize, partitions: usize) -> Self {
        let whole = partitions as f64;
        let mut zones = BTreeMap::new();
        let of = |(place, member): (usize, &Member)| {
            // One that has none fails by itself.
            let key = member
                .zone
                .map_or((1, place as u64), |zone| (0, zone.into()));
            let next = zones.len();
            *zones.entry(key).or_insert(next)
        };
        let zone_of: Vec<usize> = members.iter().enumerate().map(of).collect();
        let mut sizes = vec![0; zones.len()];
        for &zone in &zone_of {
            sizes[zone] += 1;
        }
        let limit = zone_limit(&sizes, replicas);
        let zone_limits: Vec<usize> = sizes.iter().map(|&size| limit.min(size)).collect();
        let shares = shares(members, &zone_of, &zone_limits, replicas, whole);
        let nodes = shares.iter().zip(&zone_of).map(|(&share, &zone)| {
            let slack = (share * SLACK).max(1.0);
            let most = (share + slack)
                .floor()
                .min((share * MOST).ceil())
                .min(whole);
            let led = share / replicas as f64;
            Node {
                zone,
                share,
                least: to_count((share - slack).ceil()),
                most: to_count(most.max(share.ceil().min(whole))),
                most_led: to_count((led * MOST).ceil()),
            }
        });
        Self {
            replicas,
            nodes: nodes.collect(),
            zone_limits,
        }
    }
}

#[expect(clippy::cast_sign_loss, reason = "it is made zero at least")]
fn to_count(number: f64) -> usize {
    number.max(0.0) as usize
}

/// The least number of replicas of a partition that zones must take for all to have a place: one where there are enough zones.
fn zone_limit(sizes: &[usize], replicas: usize) -> usize {
    let room = |limit: usize| sizes.iter().map(|&size| size.min(limit)).sum::<usize>();
    (1..=replicas)
        .find(|&limit| room(limit) >= replicas)
        .unwrap_or(replicas)
}

/// Shares of `whole` partitions by weight, where no node takes more than one replica of each partition, nor a zone more than its limit. Whoever
/// would is given that much, and the rest is shared among the others.
fn shares(
    members: &[Member],
    zone_of: &[usize],
    limits: &[usize],
    replicas: usize,
    whole: f64,
) -> Vec<f64> {
    let mut left = whole * replicas as f64;
    let mut shares = vec![None; members.len()];
    let mut open = vec![true; limits.len()];
    loop {
        let weight = |n: usize| f64::from(members[n].weight);
        let free = |n: &usize| open[zone_of[*n]];
        let weights: f64 = (0..members.len()).filter(free).map(weight).sum();
        let level = if weights > 0.0 { left / weights } else { 0.0 };
        // The zone that is farthest above its limit is given that.
        let over = (0..limits.len()).filter(|&zone| open[zone]).find(|&zone| {
            let of_zone = (0..members.len()).filter(|&n| zone_of[n] == zone);
            let asked: f64 = of_zone.map(|n| (level * weight(n)).min(whole)).sum();
            let all_full = (0..members.len())
                .filter(|&n| zone_of[n] == zone)
                .all(|n| level * weight(n) >= whole);
            asked > limits[zone] as f64 * whole || all_full
        });
        let Some(zone) = over else {
            // What single nodes cannot take goes to the others that are open.
            let nodes: Vec<usize> = (0..members.len()).filter(free).collect();
            for (n, share) in fill(&nodes, &weight, left, whole) {
                shares[n] = Some(share);
            }
            break;
        };
        open[zone] = false;
        let nodes: Vec<usize> = (0..members.len()).filter(|&n| zone_of[n] == zone).collect();
        let room = (limits[zone] as f64 * whole).min(left);
        for (n, share) in fill(&nodes, &weight, room, whole) {
            shares[n] = Some(share);
        }
        left -= room;
    }
    shares.into_iter().map(Option::unwrap_or_default).collect()
}

/// Shares `amount` among nodes by weight, none more than a replica of each partition.
fn fill(
    nodes: &[usize],
    weight: &impl Fn(usize) -> f64,
    amount: f64,
    whole: f64,
) -> Vec<(usize, f64)> {
    let mut left = amount;
    let mut open: Vec<usize> = nodes.to_vec();
    let mut shares = Vec::new();
    while !open.is_empty() {
        let weights: f64 = open.iter().map(|&n| weight(n)).sum();
        let level = left / weights;
        let (full, rest): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|&&n| level * weight(n) >= whole);
        if full.is_empty() {
            shares.extend(rest.into_iter().map(|n| (n, level * weight(n))));
            break;
        }
        left -= whole * full.len() as f64;
        shares.extend(full.into_iter().map(|n| (n, whole)));
        open = rest;
    }
    shares
}
