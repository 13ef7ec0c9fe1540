//! The bounds of an assignment over clusters of 1 to 500 nodes, of any weights and zones, and how little moves between two.

use super::*;
use crate::testing::random::Random;
use std::collections::BTreeMap;

fn members(count: u64) -> Vec<Member> {
    let member = |id| Member {
        id: NodeId(id),
        weight: 1,
        zone: None,
    };
    (1..=count).map(member).collect()
}

fn partitions(assignment: &Assignment) -> impl Iterator<Item = Partition> + use<> {
    Partition::all().take(assignment.0.len())
}

fn held(assignment: &Assignment) -> BTreeMap<NodeId, usize> {
    let mut held = BTreeMap::new();
    for partition in partitions(assignment) {
        for &node in assignment.replicas(partition) {
            *held.entry(node).or_default() += 1;
        }
    }
    held
}

/// Replicas that are in `next` and not in `before`.
fn moved(before: &Assignment, next: &Assignment) -> usize {
    let fresh = |partition| {
        let old = before.replicas(partition);
        let new = next.replicas(partition).iter();
        new.filter(|node| !old.contains(node)).count()
    };
    partitions(before).map(fresh).sum()
}

/// What holds of every assignment.
fn check(assignment: &Assignment, members: &[Member], replication: usize) {
    let replicas = replication.min(members.len());
    let mut sorted = members.to_vec();
    sorted.sort_by_key(|member| member.id);
    let cluster = shares::Cluster::new(&sorted, replicas, assignment.0.len());
    let all: f64 = cluster.nodes.iter().map(|node| node.share).sum();
    let expected = (assignment.0.len() * replicas) as f64;
    assert!((all - expected).abs() < 1e-6, "{all} of {expected}");
    let held = held(assignment);
    let mut led: BTreeMap<NodeId, usize> = BTreeMap::new();
    for partition in partitions(assignment) {
        let list = assignment.replicas(partition);
        assert_eq!(list.len(), replicas, "{partition:?}");
        let mut distinct = list.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), replicas, "{partition:?}: {list:?}");
        *led.entry(list[0]).or_default() += 1;
        let mut zones: BTreeMap<usize, usize> = BTreeMap::new();
        for node in list {
            let place = sorted.binary_search_by_key(node, |member| member.id);
            *zones
                .entry(cluster.nodes[place.expect("a member")].zone)
                .or_default() += 1;
        }
        for (zone, count) in zones {
            assert!(
                count <= cluster.zone_limits[zone],
                "{partition:?}: {list:?}"
            );
        }
    }
    for (member, node) in sorted.iter().zip(&cluster.nodes) {
        let held = held.get(&member.id).copied().unwrap_or(0) as f64;
        let share = node.share;
        assert!(
            held <= (1.10 * share).ceil(),
            "{member:?} holds {held} of {share}"
        );
        assert!(
            (held - share).abs() <= (0.05 * share).max(1.0) + 1e-9,
            "{member:?} holds {held} of {share}"
        );
        let led = led.get(&member.id).copied().unwrap_or(0) as f64;
        let mean = share / replicas as f64;
        assert!(
            led <= (1.10 * mean).ceil(),
            "{member:?} leads {led} of {mean}"
        );
    }
}

const COUNTS: [u64; 14] = [1, 2, 3, 4, 5, 6, 7, 10, 16, 33, 64, 100, 250, 500];

#[test]
fn forming_joining_and_leaving_keep_the_bounds_and_move_little() {
    for replication in [1, 2, 3, 5] {
        for count in COUNTS {
            let members = members(count);
            let formed = Assignment::empty().next(&members, replication);
            check(&formed, &members, replication);
            assert_eq!(
                formed.next(&members, replication),
                formed,
                "{count}: it rests"
            );

            let mut more = members.clone();
            more.push(Member {
                id: NodeId(count + 1),
                weight: 1,
                zone: None,
            });
            let joined = formed.next(&more, replication);
            check(&joined, &more, replication);
            // Its share has to come to it, whatever else.
            let replicas = replication.min(more.len());
            let least = f64::from(PARTITIONS) * replicas as f64 / more.len() as f64;
            let moved_in = moved(&formed, &joined) as f64;
            assert!(
                moved_in <= 1.25 * least.max(1.0).ceil(),
                "{count}: {moved_in} of {least}"
            );

            let left = joined.next(&members, replication);
            check(&left, &members, replication);
            let least = held(&joined).get(&NodeId(count + 1)).copied().unwrap_or(0);
            if replicas == replication.min(members.len()) {
                let moved = moved(&joined, &left) as f64;
                assert!(moved <= 1.25 * least as f64, "{count}: {moved} of {least}");
            }
        }
    }
}

#[test]
fn weights_and_zones_hold_through_random_lives() {
    for seed in 0..40 {
        let mut random = Random::new(seed, 0);
        let replication = 1 + random.place(4);
        let zones = random.below(6);
        let mut present = Assignment::empty();
        let mut members: Vec<Member> = Vec::new();
        let mut next_id = 1;
        for _ in 0..12 {
            if members.len() > 3 && random.one_in(3) {
                let gone = random.place(members.len());
                members.swap_remove(gone);
            } else {
                for _ in 0..=random.below(4) {
                    let zone = (zones > 0).then(|| random.below(zones) as u32);
                    members.push(Member {
                        id: NodeId(next_id),
                        weight: 1 + random.below(4) as u32,
                        zone,
                    });
                    next_id += 1;
                }
            }
            present = present.next(&members, replication);
            println!("seed {seed}, {replication} replicas, {members:?}");
            check(&present, &members, replication);
        }
    }
}

#[test]
fn one_of_any_weight_joins_and_leaves_and_little_moves() {
    for seed in 0..60 {
        let mut random = Random::new(seed, 0);
        let replication = 1 + random.place(3);
        let count = 4 + random.below(40);
        let mut all = members(count + 1);
        for member in &mut all {
            member.weight = 1 + random.below(5) as u32;
        }
        println!("seed {seed}, {replication} replicas, {all:?}");
        let before = &all[..all.len() - 1];
        let formed = Assignment::empty().next(before, replication);
        let joined = formed.next(&all, replication);
        check(&joined, &all, replication);
        let share =
            shares::Cluster::new(&all, replication, joined.0.len()).nodes[all.len() - 1].share;
        let came = moved(&formed, &joined) as f64;
        assert!(came <= 1.25 * share, "{came} of {share}");
        let left = joined.next(before, replication);
        check(&left, before, replication);
        let least = held(&joined)[&NodeId(count + 1)] as f64;
        let went = moved(&joined, &left) as f64;
        assert!(went <= 1.25 * least, "{went} of {least}");
    }
}

#[test]
fn few_partitions_are_placed_by_the_same_rules() {
    for partitions in [1, 2, 4, 7, 64] {
        for count in 1..=12 {
            for replication in 1..=3 {
                let (few, more) = (members(count), members(count + 1));
                let formed = Assignment::of(partitions).next(&few, replication);
                check(&formed, &few, replication);
                let grown = formed.next(&more, replication);
                check(&grown, &more, replication);
            }
        }
    }
}

/// Placement is format: what it was for these is what it is for ever.
#[test]
fn placement_is_what_it_was() {
    let golden = [
        (3, 2, 14_574_057_793_117_634_052),
        (5, 3, 4_712_245_608_239_841_907),
        (100, 3, 2_042_752_103_249_945_084),
    ];
    let found = golden.map(|(count, replication, _)| {
        let formed = Assignment::empty().next(&members(count), replication);
        let grown = formed.next(&members(count + 1), replication);
        let lists = Partition::all()
            .map(|partition| [formed.replicas(partition), grown.replicas(partition)].concat());
        let bytes: Vec<u8> = lists
            .flatten()
            .flat_map(|node| node.0.to_le_bytes())
            .collect();
        (count, replication, xxhash_rust::xxh3::xxh3_64(&bytes))
    });
    assert_eq!(found, golden);
}
