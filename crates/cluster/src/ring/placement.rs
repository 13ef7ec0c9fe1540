//! Who holds a replica of which partition. What is there stays where it may; vacancies are filled by the partitions' order of
//! preference; then single replicas move, by the shortest way there is, until no node holds too many or too few.

use super::circle::Circle;
use super::shares::Cluster;
use std::collections::VecDeque;

/// Lists of nodes, of each partition; whom the present lists name stays first.
pub(super) fn place(cluster: &Cluster, circle: &Circle, present: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut board = Board::new(cluster, present);
    board.fill(circle);
    board.level();
    board.lists
}

struct Board<'a> {
    cluster: &'a Cluster,
    lists: Vec<Vec<usize>>,
    /// The partitions of each node.
    held: Vec<Vec<usize>>,
}

impl<'a> Board<'a> {
    fn new(cluster: &'a Cluster, present: &[Vec<usize>]) -> Self {
        let mut board = Self {
            cluster,
            lists: vec![Vec::new(); present.len()],
            held: vec![Vec::new(); cluster.nodes.len()],
        };
        for (partition, list) in present.iter().enumerate() {
            for &node in list {
                // It had more replicas before, or zones were others.
                if board.lists[partition].len() < cluster.replicas
                    && board.may(partition, node, None)
                {
                    board.add(partition, node);
                }
            }
        }
        board
    }

    fn add(&mut self, partition: usize, node: usize) {
        self.lists[partition].push(node);
        self.held[node].push(partition);
    }

    /// Whether a node may take a replica of a partition, if another one gives its away.
    fn may(&self, partition: usize, node: usize, without: Option<usize>) -> bool {
        let list = &self.lists[partition];
        let zone = self.cluster.nodes[node].zone;
        let others = list.iter().filter(|&&n| Some(n) != without);
        let in_zone = others
            .filter(|&&n| self.cluster.nodes[n].zone == zone)
            .count();
        !list.contains(&node) && in_zone < self.cluster.zone_limits[zone]
    }

    /// How full a node is.
    fn fullness(&self, node: usize) -> f64 {
        self.held[node].len() as f64 / self.cluster.nodes[node].share.max(f64::MIN_POSITIVE)
    }

    /// Gives each partition as many replicas as it should have.
    fn fill(&mut self, circle: &Circle) {
        for partition in 0..self.lists.len() {
            if self.lists[partition].len() == self.cluster.replicas {
                continue;
            }
            let order = circle.order(partition);
            while self.lists[partition].len() < self.cluster.replicas {
                let may = |node: &&usize| self.may(partition, **node, None);
                let has_room = |node: &&usize| {
                    (self.held[**node].len() as f64) < self.cluster.nodes[**node].share
                };
                let first = order.iter().filter(may).find(has_room);
                let emptiest = || {
                    let free = order.iter().filter(may);
                    free.min_by(|a, b| self.fullness(**a).total_cmp(&self.fullness(**b)))
                };
                let node = first.or_else(emptiest);
                // No zone has more than its limit, and the limits have room for all.
                self.add(partition, *node.expect("a zone has room"));
            }
        }
    }

    fn shift(&mut self, partition: usize, from: usize, to: usize) {
        let list = &mut self.lists[partition];
        // Behind those that stay: it has to copy first, and should not lead.
        list.retain(|&node| node != from);
        list.push(to);
        self.held[from].retain(|&held| held != partition);
        self.held[to].push(partition);
    }

    /// Moves replicas until each node holds what it may.
    fn level(&mut self) {
        // Each turn brings a node nearer to what it may hold, and none farther from it.
        loop {
            let nodes = 0..self.cluster.nodes.len();
            let needy = nodes
                .clone()
                .filter(|&n| self.held[n].len() < self.cluster.nodes[n].least)
                .min_by(|&a, &b| self.fullness(a).total_cmp(&self.fullness(b)));
            let heavy = nodes
                .filter(|&n| self.held[n].len() > self.cluster.nodes[n].most)
                .max_by(|&a, &b| self.fullness(a).total_cmp(&self.fullness(b)));
            let path = match (needy, heavy) {
                (Some(to), _) => self.path(|n| self.gives(n), |n| n == to),
                (None, Some(from)) => self.path(|n| n == from, |n| self.takes(n)),
                (None, None) => return,
            };
            let Some(path) = path else { return };
            for (partition, from, to) in path {
                self.shift(partition, from, to);
            }
        }
    }

    /// Whether a node may hold one less.
    fn gives(&self, node: usize) -> bool {
        let held = self.held[node].len();
        held > self.cluster.nodes[node].least && held as f64 > self.cluster.nodes[node].share
    }

    /// Whether a node may hold one more.
    fn takes(&self, node: usize) -> bool {
        let held = self.held[node].len();
        held < self.cluster.nodes[node].most && (held as f64) < self.cluster.nodes[node].share
    }

    /// The fewest moves, each of a partition from a node to another, by which one that `gives` holds one less and one that `takes`
    /// one more. Of several that give the fullest is the first.
    fn path(
        &self,
        gives: impl Fn(usize) -> bool,
        takes: impl Fn(usize) -> bool,
    ) -> Option<Vec<(usize, usize, usize)>> {
        let count = self.cluster.nodes.len();
        let mut sources: Vec<usize> = (0..count).filter(|&n| gives(n)).collect();
        sources.sort_by(|&a, &b| self.fullness(b).total_cmp(&self.fullness(a)));
        let mut came: Vec<Option<(usize, usize)>> = vec![None; count];
        let mut seen = vec![false; count];
        let mut moved = vec![false; self.lists.len()];
        for &source in &sources {
            seen[source] = true;
        }
        let mut queue: VecDeque<usize> = sources.into();
        while let Some(from) = queue.pop_front() {
            for &partition in &self.held[from] {
                if moved[partition] {
                    continue;
                }
                let free =
                    (0..count).filter(|&to| !seen[to] && self.may(partition, to, Some(from)));
                // Of all that a replica of this partition could go to, one that takes it is the end.
                let mut found = None;
                for to in free {
                    if takes(to) {
                        found = Some(to);
                        break;
                    }
                    found.get_or_insert(to);
                }
                let Some(to) = found else { continue };
                // No partition moves twice on one way: what may move where would not be what was looked at.
                moved[partition] = true;
                seen[to] = true;
                came[to] = Some((partition, from));
                if takes(to) {
                    let (mut path, mut at) = (Vec::new(), to);
                    while let Some((partition, before)) = came[at] {
                        path.push((partition, before, at));
                        at = before;
                    }
                    path.reverse();
                    return Some(path);
                }
                queue.push_back(to);
            }
        }
        None
    }
}
