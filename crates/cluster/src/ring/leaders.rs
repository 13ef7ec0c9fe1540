//! Which replica of each partition leads: the one that does, as long as no node leads more than its part. The others follow in
//! the order in which they were.

use super::shares::Cluster;
use std::collections::VecDeque;

/// Brings each list's leader to its front.
pub(super) fn choose(cluster: &Cluster, present: &[Vec<usize>], lists: &mut [Vec<usize>]) {
    let mut led: Vec<Vec<usize>> = vec![Vec::new(); cluster.nodes.len()];
    let mut leader: Vec<Option<usize>> = vec![None; lists.len()];
    for (partition, list) in lists.iter().enumerate() {
        let before = present[partition].first();
        let stays = before.filter(|node| list.contains(node));
        if let Some(&node) = stays.filter(|&&node| led[node].len() < cluster.nodes[node].most_led) {
            led[node].push(partition);
            leader[partition] = Some(node);
        }
    }
    for (partition, list) in lists.iter().enumerate() {
        if leader[partition].is_some() {
            continue;
        }
        let part = |node: &usize| led[*node].len() as f64 / cluster.nodes[*node].share;
        let least = list.iter().min_by(|a, b| part(a).total_cmp(&part(b)));
        let node = *least.expect("a list has a node");
        led[node].push(partition);
        leader[partition] = Some(node);
        if led[node].len() > cluster.nodes[node].most_led {
            relieve(cluster, lists, &mut led, &mut leader, node);
        }
    }
    for (list, leader) in lists.iter_mut().zip(leader) {
        let leader = leader.expect("each has one by now");
        let place = list.iter().position(|&node| node == leader);
        list[..=place.expect("it is of the list")].rotate_right(1);
    }
}

/// Has one that leads too many lead one less, over as few others as it takes. Where there is no way it stays so.
fn relieve(
    cluster: &Cluster,
    lists: &[Vec<usize>],
    led: &mut [Vec<usize>],
    leader: &mut [Option<usize>],
    heavy: usize,
) {
    let mut came: Vec<Option<(usize, usize)>> = vec![None; led.len()];
    let mut seen = vec![false; led.len()];
    seen[heavy] = true;
    let mut queue = VecDeque::from([heavy]);
    while let Some(from) = queue.pop_front() {
        for &partition in &led[from] {
            for &to in &lists[partition] {
                if std::mem::replace(&mut seen[to], true) {
                    continue;
                }
                came[to] = Some((partition, from));
                if led[to].len() < cluster.nodes[to].most_led {
                    let mut at = to;
                    while let Some((partition, before)) = came[at] {
                        led[before].retain(|&one| one != partition);
                        led[at].push(partition);
                        leader[partition] = Some(at);
                        at = before;
                    }
                    return;
                }
                queue.push_back(to);
            }
        }
    }
}
