//! The topology over lists of commands: directed ones for each rule, and random ones that check what always holds.

use super::*;
use crate::testing::random::Random;

fn register(node: u64, incarnation: Incarnation, has_lost_memory: bool) -> Command {
    Command::Register {
        node: NodeId(node),
        incarnation,
        has_lost_memory,
        weight: 1,
        zone: None,
    }
}

/// So many nodes that are Up, and a ring of them.
fn formed(nodes: u64, replication: usize) -> Topology {
    let mut topology = Topology::new(replication, OnQuorumLoss::Forget);
    for node in 1..=nodes {
        topology
            .apply(&register(node, 1, false))
            .expect("it is new");
    }
    topology.apply(&Command::Rebalance).expect("there is none");
    for node in 1..=nodes {
        topology
            .apply(&Command::Up(NodeId(node), 1))
            .expect("it is not yet");
    }
    topology
}

fn first() -> Partition {
    Partition::new(0).expect("it is one")
}

fn leader(topology: &Topology) -> NodeId {
    topology
        .placement(first())
        .leader
        .expect("somebody leads")
        .0
}

/// The terms of partitions that changed between two states.
fn bumped(before: &Topology, after: &Topology) -> Vec<Partition> {
    let term = |topology: &Topology, partition| topology.placement(partition).term;
    Partition::all()
        .filter(|&partition| term(before, partition) != term(after, partition))
        .collect()
}

#[test]
fn who_is_down_leads_no_more_and_only_that_is_a_new_term() {
    let mut topology = formed(5, 3);
    let gone = leader(&topology);
    let before = topology.clone();
    let epoch = topology.apply(&Command::Down(gone, 1)).expect("it was Up");
    for partition in Partition::all() {
        let (old, new) = (before.placement(partition), topology.placement(partition));
        let led = old.leader.is_some_and(|(node, _)| node == gone);
        assert_eq!(new.term == epoch, led, "{partition:?}");
        assert!(
            new.leader
                .is_some_and(|(node, _)| node == new.old[usize::from(led)])
        );
        assert_eq!((&new.old, new.generation), (&old.old, old.generation));
    }
    // It comes back as another start, and leads again once it is aligned.
    topology
        .apply(&register(gone.0, 2, false))
        .expect("a later start");
    assert_ne!(leader(&topology), gone);
    let stale = topology.apply(&Command::Up(gone, 1));
    assert_eq!(stale, Err(Rejected::Incarnation(gone)));
    // But not before who leads meanwhile has come to rest.
    let meanwhile = topology.clone();
    topology
        .apply(&Command::Up(gone, 2))
        .expect("it is aligned");
    assert_eq!(bumped(&meanwhile, &topology), []);
    assert_eq!(topology.placement(first()).heir, Some(gone));
    let heirs = topology.heirs();
    let term = |partition| (partition, topology.placement(partition).term);
    let all = Command::Lead(Partition::all().map(term).collect());
    let earlier = heirs.iter().map(|&(partition, term)| (partition, term - 1));
    let earlier = Command::Lead(earlier.collect());
    for premature in [all, earlier] {
        assert_eq!(topology.apply(&premature), Err(Rejected::Premature));
    }
    topology.apply(&Command::Lead(heirs)).expect("it may");
    assert_eq!(leader(&topology), gone);
    assert_eq!(
        (topology.heirs(), topology.placement(first()).heir),
        (vec![], None)
    );
    let again = topology.apply(&register(gone.0, 2, false));
    assert_eq!(again, Err(Rejected::Incarnation(gone)));
    // What it had before it went is not of an unbroken leadership.
    let back = topology.placement(first());
    assert!(back.leads_since == back.term && back.term > epoch);
}

#[test]
fn who_lost_its_memory_counts_nowhere_until_it_remembers() {
    let mut topology = formed(3, 3);
    let node = NodeId(2);
    let epoch = topology
        .apply(&register(2, 2, true))
        .expect("a later start");
    for partition in Partition::all() {
        let placement = topology.placement(partition);
        assert_eq!(placement.term, epoch);
        assert!(!placement.voters.contains(&node));
        assert!(placement.is_quorum(|n| n != node) && !placement.is_quorum(|n| n != NodeId(1)));
    }
    // Another start with the files of this one does not bring the memory back.
    topology
        .apply(&register(2, 3, false))
        .expect("a later start");
    assert!(!topology.placement(first()).voters.contains(&node));
    topology
        .apply(&Command::Remembers(node, 3))
        .expect("it is aligned");
    assert!(topology.placement(first()).voters.contains(&node));
    assert_eq!(
        topology.placement(first()).generation,
        formed(3, 3).placement(first()).generation
    );
}

#[test]
fn a_majority_without_memory_is_a_new_generation_in_which_all_vote() {
    let mut topology = formed(3, 3);
    topology
        .apply(&register(1, 2, true))
        .expect("a later start");
    let second = topology
        .apply(&register(2, 2, true))
        .expect("a later start");
    for partition in Partition::all() {
        let placement = topology.placement(partition);
        assert_eq!((placement.generation, placement.term), (second, second));
        assert_eq!(placement.voters.len(), 3);
        // The third was Up all the time, and led once the first was gone where it is before the second.
        let seed = placement.seed.map(|(node, _)| node);
        assert!(seed.is_none_or(|node| node == NodeId(3)), "{seed:?}");
    }
    // They have nothing to remember there, and need not say that they do.
    let mut kept = Topology {
        on_quorum_loss: OnQuorumLoss::Keep,
        ..formed(3, 3)
    };
    kept.apply(&register(1, 2, true)).expect("a later start");
    kept.apply(&register(2, 2, true)).expect("a later start");
    assert_eq!(kept.placement(first()).voters, [NodeId(3)]);
    kept.apply(&Command::Reset(vec![first()]))
        .expect("an operator may");
    assert_eq!(kept.placement(first()).voters.len(), 3);
}

#[test]
fn of_two_without_a_disk_the_survivor_is_the_seed() {
    let mut topology = formed(2, 2);
    let survivor = leader(&topology);
    let other = 3 - survivor.0;
    topology
        .apply(&Command::Down(NodeId(other), 1))
        .expect("it was Up");
    topology
        .apply(&register(other, 2, true))
        .expect("a later start");
    let placement = topology.placement(first());
    assert_eq!(placement.seed, Some((survivor, 1)));
    assert_eq!(placement.generation, topology.epoch());
}

#[test]
fn a_change_ends_only_when_its_joint_has_opened() {
    let mut topology = formed(3, 3);
    topology.apply(&register(4, 1, false)).expect("it is new");
    topology
        .apply(&Command::Up(NodeId(4), 1))
        .expect("it is not yet");
    let before = topology.clone();
    topology.apply(&Command::Rebalance).expect("one has joined");
    // To copy is no change of who counts.
    assert_eq!(bumped(&before, &topology), []);
    let moves = |partition: &Partition| topology.placement(*partition).change.is_some();
    let moving = Partition::all().find(moves).expect("something moves");
    let list = vec![moving];
    let learners: Vec<NodeId> = topology.placement(moving).learners().collect();
    assert_eq!(learners, [NodeId(4)]);
    assert_eq!(
        topology.apply(&Command::Finish(list.clone())),
        Err(Rejected::Premature)
    );
    let joint = topology
        .apply(&Command::Join(list.clone()))
        .expect("it copies");
    let placement = topology.placement(moving);
    assert_eq!(placement.term, joint);
    assert!(placement.new_list().is_some() && placement.learners().next().is_none());
    // Two of the old ones are a majority of the new list only if they are both in it.
    let new = placement.new_list().expect("it is joint").to_vec();
    let gone = placement
        .old
        .iter()
        .find(|node| !new.contains(node))
        .copied();
    let gone = gone.expect("one leaves it");
    let stays = placement.old.iter().find(|node| **node != gone).copied();
    let stays = stays.expect("others stay");
    assert!(!placement.is_quorum(|node| node == gone || node == stays));
    assert!(placement.is_quorum(|node| node == gone || node == stays || node == NodeId(4)));
    assert_eq!(
        topology.apply(&Command::Finish(list.clone())),
        Err(Rejected::Premature)
    );
    let earlier = Command::Opened(vec![(moving, joint - 1)]);
    assert_eq!(topology.apply(&earlier), Err(Rejected::Premature));
    topology
        .apply(&Command::Opened(vec![(moving, joint)]))
        .expect("it is open");
    let done = topology
        .apply(&Command::Finish(list))
        .expect("it has opened");
    let placement = topology.placement(moving);
    assert_eq!((placement.term, &placement.old), (done, &new));
    assert_eq!(placement.change, None);
}

/// One node that holds all, a second one, and a partition that is to move there.
fn moving(policy: OnQuorumLoss, has_lost_memory: bool) -> (Topology, Partition) {
    let mut topology = Topology::with_partitions(8, 1, policy);
    let begin = [
        register(1, 1, false),
        Command::Rebalance,
        Command::Up(NodeId(1), 1),
        register(2, 1, has_lost_memory),
        Command::Rebalance,
    ];
    for command in begin {
        topology.apply(&command).expect("it may be");
    }
    let moves = |partition: &Partition| topology.placement(*partition).change.is_some();
    let moving = topology.partitions().find(moves);
    (topology, moving.expect("something moves"))
}

/// A list of which no majority counts would be reset as soon as it is one.
#[test]
fn a_change_waits_until_the_new_replicas_remember() {
    let (mut topology, partition) = moving(OnQuorumLoss::Forget, true);
    let before = topology.clone();
    let join = Command::Join(vec![partition]);
    assert_eq!(topology.apply(&join), Err(Rejected::Premature));
    assert_eq!(topology, before);
    topology
        .apply(&Command::Remembers(NodeId(2), 1))
        .expect("it is aligned");
    topology.apply(&join).expect("it counts");
    let placement = topology.placement(partition);
    assert_eq!(placement.generation, before.placement(partition).generation);
}

/// Who copied, and forgets it, is copied to again; what was open says nothing of who is taken in then.
#[test]
fn what_was_open_before_a_loss_ends_no_change() {
    for policy in [OnQuorumLoss::Keep, OnQuorumLoss::Forget] {
        let (mut topology, partition) = moving(policy, false);
        let generation = topology.placement(partition).generation;
        let joint = topology
            .apply(&Command::Join(vec![partition]))
            .expect("it copies");
        let opened = |term| Command::Opened(vec![(partition, term)]);
        topology.apply(&opened(joint)).expect("it is open");
        let lost = topology
            .apply(&register(2, 2, true))
            .expect("a later start");
        // A majority of before has all of it, so that nothing is reset.
        let placement = topology.placement(partition);
        assert_eq!((placement.term, placement.generation), (lost, generation));
        assert_eq!(placement.leader, Some((NodeId(1), 1)));
        let finish = Command::Finish(vec![partition]);
        let ends = topology.apply(&finish);
        assert_eq!(ends, Err(Rejected::Premature), "{policy:?}");
        // That report may come late.
        let late = topology.apply(&opened(joint));
        assert_eq!(late, Err(Rejected::Premature), "{policy:?}");
        let begin = Command::Begin(vec![partition]);
        topology.apply(&begin).expect("it waits again");
        let early = topology.apply(&Command::Join(vec![partition]));
        assert_eq!(early, Err(Rejected::Premature), "{policy:?}");
        topology
            .apply(&Command::Remembers(NodeId(2), 2))
            .expect("it is aligned");
        let joint = topology
            .apply(&Command::Join(vec![partition]))
            .expect("it copies");
        topology.apply(&opened(joint)).expect("it is open");
        topology.apply(&finish).expect("it has opened");
        assert!(!topology.placement(partition).names(NodeId(1)));
    }
}

/// A new list of several, of which one forgets, has to be open again.
#[test]
fn what_was_open_before_one_of_several_forgot_ends_no_change() {
    let mut topology = formed(3, 3);
    topology.apply(&register(4, 1, false)).expect("it is new");
    topology.apply(&Command::Rebalance).expect("one has joined");
    let moves = |partition: &Partition| topology.placement(*partition).change.is_some();
    let moving = Partition::all().find(moves).expect("something moves");
    let list = vec![moving];
    let joint = topology.apply(&Command::Join(list.clone()));
    let joint = joint.expect("it copies");
    let opened = |term| Command::Opened(vec![(moving, term)]);
    topology.apply(&opened(joint)).expect("it is open");
    let forgot = topology.apply(&register(4, 2, true));
    let forgot = forgot.expect("a later start");
    let finish = Command::Finish(list);
    assert_eq!(topology.apply(&finish), Err(Rejected::Premature));
    assert_eq!(topology.apply(&opened(joint)), Err(Rejected::Premature));
    topology.apply(&opened(forgot)).expect("it is open again");
    topology.apply(&finish).expect("it has opened");
}

#[test]
fn who_leaves_is_forgotten_when_it_holds_nothing() {
    let mut topology = formed(4, 3);
    let node = NodeId(4);
    topology.apply(&Command::Leave(node)).expect("it is there");
    topology
        .apply(&Command::Rebalance)
        .expect("it is to hold nothing");
    assert_eq!(
        topology.apply(&Command::Remove(node)),
        Err(Rejected::Premature)
    );
    let moving: Vec<Partition> = Partition::all()
        .filter(|partition| topology.placement(*partition).change.is_some())
        .collect();
    let joint = topology
        .apply(&Command::Join(moving.clone()))
        .expect("they copy");
    let opened = moving.iter().map(|&partition| (partition, joint)).collect();
    topology
        .apply(&Command::Opened(opened))
        .expect("they are open");
    topology
        .apply(&Command::Finish(moving))
        .expect("they have opened");
    topology
        .apply(&Command::Remove(node))
        .expect("it holds nothing");
    let rest = topology.apply(&Command::Rebalance);
    assert_eq!(rest, Err(Rejected::Unchanged));
    assert!(Partition::all().all(|partition| topology.placement(partition).old.len() == 3));
    // Who has not heard of that knows its start: it is never another's.
    assert_eq!(topology.newest_start(node), 1);
    let again = topology.apply(&register(node.0, 1, true));
    assert_eq!(again, Err(Rejected::Incarnation(node)));
    topology
        .apply(&register(node.0, 2, true))
        .expect("a later start");
}

#[test]
fn a_cluster_may_have_few_partitions() {
    let mut topology = Topology::with_partitions(4, 3, OnQuorumLoss::Forget);
    for node in 1..=5 {
        topology
            .apply(&register(node, 1, false))
            .expect("it is new");
    }
    topology.apply(&Command::Rebalance).expect("there is none");
    assert_eq!(topology.partitions().count(), 4);
    for partition in topology.partitions() {
        assert_eq!(topology.placement(partition).old.len(), 3);
    }
    let fifth = Partition::new(4).expect("a cluster may have as many");
    let rejected = topology.apply(&Command::Reset(vec![fifth]));
    assert_eq!(rejected, Err(Rejected::UnknownPartition(fifth)));
}

#[test]
fn what_always_holds_through_random_commands() {
    for seed in 0..30_u64 {
        let mut random = Random::new(seed, 0);
        let mut topology = Topology::new(1 + random.place(4), OnQuorumLoss::Forget);
        for step in 0..120 {
            let node = NodeId(random.within(1, 6));
            let known = topology.nodes.get(&node).map_or(0, |node| node.incarnation);
            let those = |topology: &Topology, is: &dyn Fn(&Placement) -> bool| -> Vec<Partition> {
                Partition::all()
                    .filter(|&p| is(topology.placement(p)))
                    .collect()
            };
            let command = match random.below(14) {
                0 | 1 => register(node.0, known + 1, random.one_in(2)),
                2 | 3 => Command::Up(node, known),
                4 => Command::Down(node, known),
                5 => Command::Remembers(node, known),
                6 => Command::Leave(node),
                12 => Command::Back(node, known),
                13 => Command::Lead(topology.heirs()),
                7 => Command::Remove(node),
                8 => Command::Rebalance,
                9 => Command::Join(those(&topology, &|p| {
                    p.change.as_ref().is_some_and(|c| !c.is_joint)
                })),
                10 => {
                    let joint = those(&topology, &|p| p.new_list().is_some() && p.leader.is_some());
                    let term = |p: Partition| (p, topology.placement(p).term);
                    Command::Opened(joint.into_iter().map(term).collect())
                }
                _ => Command::Finish(those(&topology, &|p| {
                    p.change.as_ref().is_some_and(|c| c.has_opened)
                })),
            };
            let before = topology.clone();
            let outcome = topology.apply(&command);
            println!("seed {seed}, step {step}: {command:.80?}: {outcome:?}");
            if outcome.is_err() {
                assert_eq!(before, topology);
                continue;
            }
            assert_eq!(topology.epoch, before.epoch + 1);
            for partition in Partition::all() {
                let (old, new) = (before.placement(partition), topology.placement(partition));
                assert!(new.term >= old.term && new.generation >= old.generation);
                assert!(new.generation <= new.term && new.term <= topology.epoch);
                let same = old.what_a_term_is_of() == new.what_a_term_is_of();
                assert_eq!(old.term == new.term, same, "{partition:?}: {old:?} {new:?}");
                if let Some((node, incarnation)) = new.leader {
                    assert!(new.voters.contains(&node));
                    assert_eq!(topology.nodes[&node].incarnation, incarnation);
                }
                // Nobody comes between who leads and what it was asked, but by the command for that and the end of a change.
                let still_leads = old.leader.is_some_and(|(node, incarnation)| {
                    let known = topology.nodes.get(&node);
                    let known = known.filter(|known| known.incarnation == incarnation);
                    let is_there = known.is_some_and(|known| known.state != State::Down);
                    is_there && new.voters.contains(&node)
                });
                let hands_over = matches!(command, Command::Lead(_) | Command::Finish(_));
                if still_leads && !hands_over {
                    assert_eq!(old.leader, new.leader, "{partition:?}");
                }
                // One who has forgotten counts only where there is nothing to remember.
                for node in &new.voters {
                    assert!(topology.nodes[node].amnesia <= new.generation);
                }
                if !new.old.is_empty() {
                    assert!(new.is_quorum(|_| true), "{partition:?}: {new:?}");
                }
                // In a joint change, any quorum of before has one in common with any of after.
                if new.term != old.term && new.generation == old.generation {
                    let everybody: Vec<NodeId> = (1..=6).map(NodeId).collect();
                    for bits in 0..64_u32 {
                        let has = |node: NodeId| bits >> (node.0 - 1) & 1 == 1;
                        let common = !(old.is_quorum(has) && new.is_quorum(|node| !has(node)));
                        assert!(common, "{everybody:?}: {old:?} {new:?}");
                    }
                }
            }
        }
    }
}
