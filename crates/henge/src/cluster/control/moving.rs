//! Moves of partitions, as the control leader drives them: what is planned is begun with, some partitions at a time, and each change is
//! brought to its end, or given up where those that are to take over are gone. A step follows from the topology and from what nodes report, and
//! nothing that counts is remembered between two steps, so that another leader goes on wherever this one has stopped. Each step is an epoch,
//! which all nodes have to agree on and look at: so partitions go together as far as they do not wait for each other for long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_cluster::agreed::{self, Agreed};
use henge_cluster::ring::NodeId;
use henge_cluster::topology::{Command, Epoch, Incarnation, Node, Placement, State, Topology};
use henge_wire::Partition;

use super::Control;
use super::reports::{Reported, Reports};

/// Partitions that copy at once, and those of one command: enough that no node waits for what is agreed on, and few enough that what is
/// copied has an end soon, and that a change of mind costs little. Each 64 take four epochs where
/// they come along together.
const AT_ONCE: usize = 64;
/// For so long those that are ready wait for others that came with them: as long as those take where all is well.
const GATHERED: Duration = Duration::from_secs(1);

impl Control {
    /// Has others take the place of who was down for too long. Since when it is so each leader finds out for itself: one that has just
    /// become that waits for as long again.
    pub(super) async fn replace_lost(&self, agreed: &Agreed) {
        let settings = Arc::clone(&self.cluster.view.load().settings);
        let timeout = settings.down_timeout(&self.shared.live.load());
        let now = Instant::now();
        let mut since = std::mem::take(&mut *self.down.borrow_mut());
        let down = replaceable(agreed.topology());
        since.retain(|start, _| down.contains(start));
        let mut lost = Vec::new();
        for start in down {
            let since = *since.entry(start).or_insert(now);
            if timeout.is_some_and(|timeout| now.duration_since(since) >= timeout) {
                lost.push(start);
            }
        }
        *self.down.borrow_mut() = since;
        for (node, incarnation) in lost {
            let command = Command::Replace(node, incarnation);
            self.propose(agreed::Command::Topology(command)).await;
        }
    }
}

/// Starts that are down and hold something, where others can take their place.
fn replaceable(topology: &Topology) -> Vec<(NodeId, Incarnation)> {
    let staying = || topology.nodes().iter().filter(|(_, node)| node.stays());
    if staying().count() <= topology.replication() {
        return Vec::new();
    }
    let down = staying().filter(|(_, node)| node.state == State::Down);
    down.map(|(&id, node)| (id, node.incarnation)).collect()
}

/// Since when partitions that are ready for their next step wait for others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gathering(Option<Instant>);

impl Gathering {
    /// Whether so many of those that are in the same step go on now.
    fn is_over(&mut self, ready: usize, all: usize, now: Instant) -> bool {
        let is_over =
            ready >= all.min(AT_ONCE) || now.duration_since(*self.0.get_or_insert(now)) >= GATHERED;
        if is_over {
            self.0 = None;
        }
        is_over
    }
}

/// What has to be done next of all moves; `instance` is that of a member. It is one command, as while that is agreed on others come
/// further: what clients wait for goes first.
pub(super) fn next(
    topology: &Topology,
    reports: &Reports,
    instance: impl Fn(NodeId) -> Option<u64>,
    gathering: &mut Gathering,
    now: Instant,
) -> Option<Command> {
    if !topology.is_placed() {
        return None;
    }
    if topology.moves().are_due() {
        // All else is judged by what comes of that.
        return Some(Command::Plan);
    }
    let nodes = topology.nodes();
    let report = |id: NodeId| reports.of(instance(id)?, nodes.get(&id)?.incarnation);
    let mut steps = Steps::default();
    let (mut copying, mut opening, mut are_resting) = (0, 0, false);
    for partition in topology.partitions() {
        let placement = topology.placement(partition);
        if let Some(change) = &placement.change
            && !placement.may_finish()
        {
            if change.is_joint {
                opening += 1;
            } else if is_open(placement, partition, report) {
                // Nobody copies from a leader that has too few to open with: others need not wait for that.
                copying += 1;
            }
        }
        are_resting |= placement.heir.is_some();
        if let Some(step) = step(topology, partition, report) {
            steps.of(step).push((partition, placement.term));
        }
    }
    if are_resting {
        // Nobody serves these until that is over: it is waited for, and nothing else is begun.
        steps.open.clear();
        steps.join.clear();
        steps.begin.clear();
    }
    for (ready, all) in [(&mut steps.open, opening), (&mut steps.join, copying)] {
        if !ready.is_empty() && !gathering.is_over(ready.len(), all, now) {
            ready.clear();
        }
    }
    // While half of those that copy do so still there is enough to do.
    let room = AT_ONCE.saturating_sub(copying);
    steps
        .begin
        .truncate(if room >= AT_ONCE / 2 { room } else { 0 });
    // Who is drained and runs still sends on what it is asked.
    let is_gone = |id: NodeId, node: &Node| {
        node.is_leaving && node.state == State::Down && !topology.names(id)
    };
    let mut gone = nodes.iter().filter(|(id, node)| is_gone(**id, node));
    let gone = gone.next().map(|(id, _)| Command::Remove(*id));
    steps.first().or(gone)
}

/// Whether the leader of a partition says that it serves it.
fn is_open<'a>(
    placement: &Placement,
    partition: Partition,
    report: impl Fn(NodeId) -> Option<&'a Reported>,
) -> bool {
    let leader = placement.leader.and_then(|(id, _)| report(id));
    leader.is_some_and(|known| known.opened(partition) == placement.term)
}

/// What may be done next of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Lead,
    GiveUp,
    End,
    Open,
    Join,
    Begin,
}

#[derive(Default)]
struct Steps {
    lead: Vec<(Partition, Epoch)>,
    give_up: Vec<(Partition, Epoch)>,
    end: Vec<(Partition, Epoch)>,
    open: Vec<(Partition, Epoch)>,
    join: Vec<(Partition, Epoch)>,
    begin: Vec<(Partition, Epoch)>,
}

impl Steps {
    fn of(&mut self, step: Step) -> &mut Vec<(Partition, Epoch)> {
        match step {
            Step::Lead => &mut self.lead,
            Step::GiveUp => &mut self.give_up,
            Step::End => &mut self.end,
            Step::Open => &mut self.open,
            Step::Join => &mut self.join,
            Step::Begin => &mut self.begin,
        }
    }

    fn first(&self) -> Option<Command> {
        let some = |all: &[(Partition, Epoch)]| {
            let some = all.iter().take(AT_ONCE);
            some.map(|(partition, _)| *partition).collect::<Vec<_>>()
        };
        if !self.lead.is_empty() {
            // All that a node is to lead as it has come rest at once, and whoever asks for these waits.
            return Some(Command::Lead(self.lead.clone()));
        }
        let ways: [(&[_], fn(_) -> _); 2] =
            [(&self.end, Command::Finish), (&self.give_up, Command::Undo)];
        let urgent = ways.into_iter().find(|(all, _)| !all.is_empty());
        if let Some((all, command)) = urgent {
            return Some(command(some(all)));
        }
        if !self.open.is_empty() {
            let opened = self.open.iter().take(AT_ONCE).copied();
            return Some(Command::Opened(opened.collect()));
        }
        let ways: [(&[_], fn(_) -> _); 2] =
            [(&self.join, Command::Join), (&self.begin, Command::Begin)];
        let later = ways.into_iter().find(|(all, _)| !all.is_empty());
        later.map(|(all, command)| command(some(all)))
    }
}

/// The next step of a partition; none if it does not move, or somebody has to come further first.
fn step<'a>(
    topology: &Topology,
    partition: Partition,
    report: impl Fn(NodeId) -> Option<&'a Reported>,
) -> Option<Step> {
    let placement = topology.placement(partition);
    let is_there = |id: &NodeId| {
        let node = topology.nodes().get(id);
        node.is_some_and(|node| node.state != State::Down)
    };
    let term = placement.term;
    let leader = placement.leader.map(|(id, _)| id);
    let of_leader = leader.and_then(&report);
    // Who is gone rests as well.
    let rests = || {
        let rests = of_leader.is_some_and(|known| known.rested(partition) == term);
        rests || leader.is_none_or(|leader| !is_there(&leader))
    };
    if placement.may_hand_over() {
        return rests().then_some(Step::Lead);
    }
    let Some(change) = &placement.change else {
        let new = topology.moves().planned().get(&partition)?;
        let mut joining = new.iter().filter(|node| !placement.old.contains(node));
        // Where nobody serves there is nobody to copy from, and what is begun keeps others from it.
        let is_led = leader.is_some_and(|id| is_there(&id));
        let is_served = is_led && is_open(placement, partition, &report);
        return (is_served && joining.all(is_there)).then_some(Step::Begin);
    };
    if is_stuck(placement, is_there) {
        return Some(Step::GiveUp);
    }
    if placement.may_finish() {
        let ends = placement.heir.is_none() || rests();
        return ends.then_some(Step::End);
    }
    if change.is_joint {
        return is_open(placement, partition, &report).then_some(Step::Open);
    }
    // One that was to copy before, and not any more, may have said so before it heard of that.
    let is_aligned = |id| {
        let known = report(id).filter(|known| known.is_of(change.since));
        known.is_some_and(|known| known.aligned(partition) == term)
    };
    placement.learners().all(is_aligned).then_some(Step::Join)
}

/// Whether a change cannot go on as those are gone that are to take over, and the way back is open. What waits until they are back can
/// be begun with anew.
fn is_stuck(placement: &Placement, is_there: impl Fn(&NodeId) -> bool) -> bool {
    let is_majority = |list: &[NodeId]| {
        let votes = |node: &&NodeId| placement.voters.contains(node) && is_there(node);
        2 * list.iter().filter(votes).count() > list.len()
    };
    match placement.new_list() {
        None => placement.learners().any(|node| !is_there(&node)),
        Some(new) => !is_majority(new) && is_majority(&placement.old),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reports::Reported;
    use super::*;
    use henge_cluster::topology::OnQuorumLoss;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    /// Nodes that are Up, whose instances are their numbers, and what they report.
    struct Lab {
        topology: Topology,
        reports: BTreeMap<u64, Reported>,
        gathering: Cell<Gathering>,
        now: Instant,
    }

    impl Lab {
        fn new(nodes: u64, replication: usize) -> Self {
            let mut lab = Self {
                topology: Topology::with_partitions(200, replication, OnQuorumLoss::Forget),
                reports: BTreeMap::new(),
                gathering: Cell::default(),
                now: Instant::now(),
            };
            (1..=nodes).for_each(|node| lab.join(node));
            lab.apply(&Command::Rebalance);
            lab.report_all();
            lab
        }

        fn apply(&mut self, command: &Command) {
            let applied = self.topology.apply(command);
            applied.unwrap_or_else(|rejected| panic!("{command:?}: {rejected}"));
        }

        fn join(&mut self, node: u64) {
            let id = NodeId(node);
            self.apply(&Command::Register {
                node: id,
                incarnation: 1,
                has_lost_memory: false,
                weight: 100,
                zone: None,
            });
            self.apply(&Command::Up(id, 1));
            self.reports.insert(node, Reported::nothing(1));
        }

        fn down(&mut self, node: u64) {
            self.apply(&Command::Down(NodeId(node), 1));
        }

        fn next(&self) -> Option<Command> {
            let reports = Reports::of_all(&self.reports);
            let mut gathering = self.gathering.get();
            let (instance, now) = (|id: NodeId| Some(id.0), self.now);
            let next = next(&self.topology, &reports, instance, &mut gathering, now);
            self.gathering.set(gathering);
            next
        }

        /// Does what has to be done, until that is nothing more. Gives how many were on their way at once.
        fn go_on(&mut self) -> usize {
            let mut most = 0;
            for _ in 0..1000 {
                let Some(next) = self.next() else {
                    return most;
                };
                self.apply(&next);
                most = most.max(self.topology.moving());
            }
            panic!("it has no end: {:?}", self.next());
        }

        /// All copy, open and rest as they should.
        fn report_all(&mut self) {
            for partition in self.topology.partitions() {
                let placement = self.topology.placement(partition);
                let leader = placement.leader.map(|(node, _)| node.0);
                for (node, report) in &mut self.reports {
                    let rests = placement.heir.is_some();
                    report.note(partition, placement.term, leader == Some(*node), rests);
                }
            }
        }

        fn all(&mut self) {
            while self.topology.moves().are_due() || self.topology.moves().total() > 0 {
                self.go_on();
                self.report_all();
            }
        }

        fn holds(&self, node: u64) -> usize {
            let all = self.topology.partitions();
            let holds = |p: &Partition| self.topology.placement(*p).old.contains(&NodeId(node));
            all.filter(holds).count()
        }
    }

    #[test]
    fn a_join_moves_its_share_in_some_partitions_at_a_time() {
        let mut lab = Lab::new(3, 3);
        lab.join(4);
        assert_eq!(lab.next(), Some(Command::Plan));
        assert_eq!(lab.go_on(), AT_ONCE);
        // Nobody has copied anything yet.
        assert_eq!(lab.topology.moving(), AT_ONCE);
        let epochs = lab.topology.epoch();
        lab.all();
        assert!((140..=160).contains(&lab.holds(4)));
        // 150 partitions are begun, joined, opened and finished in batches.
        let most = 4 * 150_u32.div_ceil(AT_ONCE as u32 / 2);
        assert!(lab.topology.epoch() - epochs <= most);
        assert_eq!(lab.next(), None);
    }

    /// They may have too few replicas left to open with, and nobody can copy from them.
    #[test]
    fn partitions_that_nobody_serves_hold_up_no_others() {
        let mut lab = Lab::new(3, 3);
        lab.join(4);
        let shut: Vec<Partition> = lab.topology.partitions().take(50).collect();
        for report in lab.reports.values_mut() {
            for &p in &shut {
                report.note(p, 0, true, false);
            }
        }
        lab.go_on();
        let moves = |lab: &Lab, p: &Partition| lab.topology.placement(*p).change.is_some();
        assert_eq!(lab.topology.moving(), AT_ONCE);
        assert!(!shut.iter().any(|p| moves(&lab, p)));
        // Those that copy are served no more.
        let copying: Vec<Partition> = lab.topology.partitions().collect();
        let copying: Vec<Partition> = copying.into_iter().filter(|p| moves(&lab, p)).collect();
        for report in lab.reports.values_mut() {
            for &p in &copying {
                report.note(p, 0, true, false);
            }
        }
        lab.go_on();
        assert!(lab.topology.moving() > AT_ONCE);
    }

    #[test]
    fn who_leaves_is_removed_when_it_holds_nothing_and_has_ended() {
        let mut lab = Lab::new(4, 3);
        lab.apply(&Command::Leave(NodeId(4)));
        lab.all();
        assert_eq!((lab.holds(4), lab.next()), (0, None));
        lab.down(4);
        assert_eq!(lab.next(), Some(Command::Remove(NodeId(4))));
    }

    /// Until the leader has done what it took in nobody else leads; one that is gone takes nothing in.
    #[test]
    fn a_leader_comes_to_rest_before_another_leads() {
        let mut lab = Lab::new(4, 3);
        lab.apply(&Command::Leave(NodeId(1)));
        lab.go_on();
        lab.report_all();
        lab.go_on();
        lab.report_all();
        lab.reports.values_mut().for_each(Reported::has_not_rested);
        lab.go_on();
        let waits = |lab: &Lab, p: Partition| {
            let placement = lab.topology.placement(p);
            placement.heir.is_some() && placement.leader == Some((NodeId(1), 1))
        };
        let waiting: Vec<Partition> = lab.topology.partitions().collect();
        let waiting: Vec<Partition> = waiting.into_iter().filter(|&p| waits(&lab, p)).collect();
        assert!(!waiting.is_empty());
        let mut rested = lab.reports[&1].clone();
        rested.note(
            waiting[0],
            lab.topology.placement(waiting[0]).term,
            true,
            true,
        );
        lab.reports.insert(1, rested);
        assert_eq!(lab.next(), Some(Command::Finish(vec![waiting[0]])));
    }

    /// All that a node is to lead that has come back is handed over at once, when it rests or whoever leads it is gone, and nothing is begun
    /// meanwhile.
    #[test]
    fn who_comes_back_leads_once_the_others_rest() {
        let mut lab = Lab::new(3, 3);
        lab.down(1);
        lab.report_all();
        lab.apply(&Command::Back(NodeId(1), 1));
        lab.apply(&Command::Up(NodeId(1), 1));
        lab.join(4);
        lab.apply(&Command::Plan);
        let heirs = lab.topology.heirs();
        assert!((60..=70).contains(&heirs.len()), "{}", heirs.len());
        assert_eq!(lab.next(), None);
        let led_by = |lab: &Lab, node: u64| -> Vec<Partition> {
            let leads = |p: &Partition| {
                let leader = lab.topology.placement(*p).leader;
                leader == Some((NodeId(node), 1))
            };
            heirs.iter().map(|(p, _)| *p).filter(leads).collect()
        };
        let (second, third) = (led_by(&lab, 2), led_by(&lab, 3));
        let mut rested = lab.reports[&2].clone();
        for &partition in &second {
            let term = lab.topology.placement(partition).term;
            rested.note(partition, term, true, true);
        }
        lab.reports.insert(2, rested);
        let term = |&p: &Partition| (p, lab.topology.placement(p).term);
        let lead = Command::Lead(second.iter().map(term).collect());
        assert_eq!(lab.next(), Some(lead.clone()));
        lab.apply(&lead);
        assert_eq!(lab.next(), None);
        lab.down(3);
        assert_eq!(
            lab.topology.heirs(),
            [],
            "its partitions have another leader by that"
        );
        assert!(
            third
                .iter()
                .all(|p| lab.topology.placement(*p).leader == Some((NodeId(1), 1)))
        );
        assert!(matches!(lab.next(), Some(Command::Begin(_)) | None));
    }

    /// With one replica both lists are one node: while both are asked the loss of the new one would be that of the partition.
    #[test]
    fn a_change_is_given_up_where_who_takes_over_is_gone() {
        let mut lab = Lab::new(1, 1);
        lab.join(2);
        lab.go_on();
        let copying = lab.topology.moving();
        // All of them copy, and half are joint.
        let some: Vec<Partition> = lab.topology.partitions().collect();
        let moves = |p: &Partition| lab.topology.placement(*p).change.is_some();
        let some: Vec<Partition> = some.into_iter().filter(moves).collect();
        lab.apply(&Command::Join(some[..copying / 2].to_vec()));
        lab.down(2);
        lab.go_on();
        assert_eq!((lab.topology.moving(), lab.holds(1)), (0, 200));
        let leads = |p| lab.topology.placement(p).leader == Some((NodeId(1), 1));
        assert!(lab.topology.partitions().all(leads));
        // It waits, and nothing is begun with who is not there.
        assert!(lab.topology.moves().planned().len() >= copying);
        lab.apply(&Command::Back(NodeId(2), 1));
        lab.all();
        assert!((90..=110).contains(&lab.holds(2)));
    }

    #[test]
    fn who_is_down_is_replaced_where_others_can() {
        let mut lab = Lab::new(4, 3);
        assert_eq!(replaceable(&lab.topology), []);
        lab.down(4);
        assert_eq!(replaceable(&lab.topology), [(NodeId(4), 1)]);
        lab.apply(&Command::Replace(NodeId(4), 1));
        assert_eq!(replaceable(&lab.topology), []);
        lab.all();
        assert_eq!((lab.holds(1), lab.holds(4)), (200, 0));
        // Of the three that are left none can be missed.
        lab.down(3);
        assert_eq!(replaceable(&lab.topology), []);
    }

    #[test]
    fn a_source_that_is_gone_is_waited_for() {
        let mut lab = Lab::new(1, 1);
        lab.join(2);
        lab.go_on();
        lab.down(1);
        assert_eq!(lab.next(), None);
        lab.apply(&Command::Back(NodeId(1), 1));
        lab.all();
        assert!((90..=110).contains(&lab.holds(2)));
    }
}
