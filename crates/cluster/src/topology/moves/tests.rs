//! Moves over lists of commands: what each does in each state of a partition, and of a node.

use super::super::{Command, OnQuorumLoss, Placement};
use super::*;
use crate::testing::random::Random;

fn register(node: u64, incarnation: Incarnation, has_lost_memory: bool) -> Command {
    Command::Register {
        node: NodeId(node),
        incarnation,
        has_lost_memory,
        weight: 100,
        zone: None,
    }
}

fn done(topology: &mut Topology, commands: impl IntoIterator<Item = Command>) {
    for command in commands {
        let applied = topology.apply(&command);
        applied.unwrap_or_else(|rejected| panic!("{command:?}: {rejected}"));
    }
}

/// So many nodes that are Up, and 16 partitions on them.
fn formed(nodes: u64, replication: usize) -> Topology {
    let mut topology = Topology::with_partitions(16, replication, OnQuorumLoss::Forget);
    done(&mut topology, (1..=nodes).map(|n| register(n, 1, false)));
    done(&mut topology, [Command::Rebalance]);
    done(
        &mut topology,
        (1..=nodes).map(|node| Command::Up(NodeId(node), 1)),
    );
    topology
}

fn join(topology: &mut Topology, node: u64) {
    done(
        topology,
        [register(node, 1, false), Command::Up(NodeId(node), 1)],
    );
}

fn those(topology: &Topology, is: impl Fn(&Placement) -> bool) -> Vec<Partition> {
    let all = topology.partitions();
    all.filter(|&p| is(topology.placement(p))).collect()
}

fn planned(topology: &Topology) -> Vec<Partition> {
    topology.moves().planned().keys().copied().collect()
}

/// Brings all that is under way, and planned, to its end.
fn finish_all(topology: &mut Topology) {
    if topology.moves().are_due() {
        done(topology, [Command::Plan]);
    }
    for _ in 0..4 {
        let waits = planned(topology).into_iter();
        let begun = waits.filter(|&p| topology.placement(p).change.is_none());
        let begun: Vec<Partition> = begun.collect();
        if !begun.is_empty() {
            done(topology, [Command::Begin(begun)]);
        }
        let copies = those(topology, |p| {
            let copies = p.change.as_ref().is_some_and(|change| !change.is_joint);
            copies && !p.may_finish()
        });
        if !copies.is_empty() {
            done(topology, [Command::Join(copies)]);
        }
        let joint = those(topology, |p| p.new_list().is_some());
        let term = |&p: &Partition| (p, topology.placement(p).term);
        let opened: Vec<_> = joint.iter().map(term).collect();
        if !opened.is_empty() {
            done(topology, [Command::Opened(opened)]);
        }
        let changing = those(topology, |p| p.change.is_some());
        if !changing.is_empty() {
            done(topology, [Command::Finish(changing)]);
        }
    }
    assert!(planned(topology).is_empty() && topology.moving() == 0);
    assert_eq!(topology.moves().total(), 0);
    let heirs = topology.heirs();
    if !heirs.is_empty() {
        done(topology, [Command::Lead(heirs)]);
    }
    assert_eq!(topology.heirs(), []);
}

/// How many partitions a node is a replica of.
fn holds(topology: &Topology, node: u64) -> usize {
    those(topology, |p| p.old.contains(&NodeId(node))).len()
}

/// Whether it is a replica of three quarters of 16 partitions, or of one more or less.
fn has_share(topology: &Topology, node: u64) -> bool {
    (11..=13).contains(&holds(topology, node))
}

#[test]
fn who_joins_takes_its_share_one_change_at_a_time() {
    let mut topology = formed(3, 3);
    assert!(!topology.moves().are_due());
    join(&mut topology, 4);
    assert!(topology.moves().are_due());
    assert_eq!(holds(&topology, 4), 0);
    let before = topology.clone();
    done(&mut topology, [Command::Plan]);
    // A plan changes nothing yet.
    assert_eq!(before.partitions, topology.partitions);
    assert_eq!(topology.apply(&Command::Plan), Err(Rejected::Unchanged));
    let moves = planned(&topology);
    assert_eq!(topology.moves().total(), moves.len());
    let gains = |p: &&Partition| topology.moves().planned()[p].contains(&NodeId(4));
    assert!((11..=13).contains(&moves.iter().filter(gains).count()));
    // It is named by what waits only.
    let is_named = topology.names(NodeId(4));
    assert!(is_named);
    assert_eq!(
        topology.apply(&Command::Remove(NodeId(4))),
        Err(Rejected::Premature)
    );
    done(&mut topology, [Command::Begin(vec![moves[0]])]);
    assert_eq!(topology.moving(), 1);
    for again in [moves[0], Partition::new(1000).expect("it is one")] {
        let rejected = topology.apply(&Command::Begin(vec![again]));
        let unknown = Rejected::UnknownPartition(again);
        assert!([Err(Rejected::Premature), Err(unknown)].contains(&rejected));
    }
    finish_all(&mut topology);
    assert!(has_share(&topology, 4));
}

#[test]
fn each_change_can_be_given_up_in_each_of_its_states() {
    let mut topology = formed(3, 3);
    let undo = |p| Command::Undo(vec![p]);
    let at = topology.partitions().next().expect("there is one");
    assert_eq!(topology.apply(&undo(at)), Err(Rejected::Premature));
    join(&mut topology, 4);
    done(&mut topology, [Command::Plan]);
    let gains = |p: &Partition| topology.moves().planned()[p].contains(&NodeId(4));
    let moving = planned(&topology).into_iter().find(gains);
    let moving = moving.expect("something moves there");
    assert_eq!(topology.apply(&undo(moving)), Err(Rejected::Premature));
    let before = topology.placement(moving).clone();
    let goal = topology.moves().planned()[&moving].clone();
    let total = topology.moves().total();
    for steps in 0..3 {
        done(&mut topology, [Command::Begin(vec![moving])]);
        if steps > 0 {
            done(&mut topology, [Command::Join(vec![moving])]);
        }
        if steps > 1 {
            let term = topology.placement(moving).term;
            done(&mut topology, [Command::Opened(vec![(moving, term)])]);
        }
        let was_joint = topology.placement(moving).new_list().is_some();
        let term = topology.placement(moving).term;
        done(&mut topology, [undo(moving)]);
        let placement = topology.placement(moving);
        assert_eq!((&placement.old, &placement.change), (&before.old, &None));
        // Who counts has changed only if both did.
        assert_eq!(placement.term != term, was_joint);
        assert_eq!(placement.generation, before.generation);
        assert_eq!(topology.moves().planned()[&moving], goal);
        assert_eq!(topology.moves().total(), total);
    }
    finish_all(&mut topology);
    assert_eq!(topology.placement(moving).old, goal);
}

/// Where those of before have lost their memory there is no way back to them.
#[test]
fn nobody_goes_back_to_who_forgot() {
    let mut topology = formed(3, 3);
    topology.on_quorum_loss = OnQuorumLoss::Keep;
    join(&mut topology, 4);
    done(&mut topology, [Command::Plan]);
    let gains = |p: &Partition| topology.moves().planned()[p].contains(&NodeId(4));
    let moving = planned(&topology).into_iter().find(gains);
    let moving = moving.expect("something moves there");
    done(
        &mut topology,
        [Command::Begin(vec![moving]), Command::Join(vec![moving])],
    );
    let old = topology.placement(moving).old.clone();
    done(
        &mut topology,
        [register(old[0].0, 2, true), register(old[1].0, 2, true)],
    );
    let undone = topology.apply(&Command::Undo(vec![moving]));
    assert_eq!(undone, Err(Rejected::Premature));
}

/// Nothing is forgotten as the new one has: those of before have all of it.
#[test]
fn who_forgets_while_it_is_taken_in_is_taken_in_again() {
    let mut topology = formed(1, 1);
    join(&mut topology, 2);
    done(&mut topology, [Command::Plan]);
    let moving = planned(&topology)[0];
    done(
        &mut topology,
        [Command::Begin(vec![moving]), Command::Join(vec![moving])],
    );
    let generation = topology.placement(moving).generation;
    done(&mut topology, [register(2, 2, true)]);
    let placement = topology.placement(moving);
    assert_eq!(placement.generation, generation);
    assert_eq!(
        (&placement.old[..], &placement.change),
        (&[NodeId(1)][..], &None)
    );
    assert_eq!(topology.moves().planned()[&moving], [NodeId(2)]);
}

/// Who leads to the end takes nothing more in once somebody else is to lead, and only then.
#[test]
fn an_heir_is_named_when_a_change_may_end() {
    let mut topology = formed(3, 3);
    done(
        &mut topology,
        [Command::Leave(NodeId(1)), register(4, 1, false)],
    );
    done(&mut topology, [Command::Up(NodeId(4), 1), Command::Plan]);
    let led = |p: &Partition| topology.placement(*p).leader == Some((NodeId(1), 1));
    let moving = planned(&topology).into_iter().find(led);
    let moving = moving.expect("it leads something");
    let heir = |topology: &Topology| topology.placement(moving).heir;
    done(&mut topology, [Command::Begin(vec![moving])]);
    assert_eq!(heir(&topology), None);
    done(&mut topology, [Command::Join(vec![moving])]);
    assert_eq!(heir(&topology), None);
    let term = topology.placement(moving).term;
    done(&mut topology, [Command::Opened(vec![(moving, term)])]);
    let next = topology.placement(moving).goal()[0];
    assert_eq!(heir(&topology), Some(next));
    assert_eq!(topology.placement(moving).term, term);
    // Another one, if that is lost; and the term goes on.
    done(&mut topology, [Command::Down(next, 1)]);
    let second = topology.placement(moving).goal()[1];
    assert_eq!(heir(&topology), Some(second));
    done(&mut topology, [Command::Finish(vec![moving])]);
    let placement = topology.placement(moving);
    assert_eq!(placement.leader.map(|(node, _)| node), Some(second));
    assert_eq!(heir(&topology), None);
}

/// Only the order of a list changes: nobody copies, both lists are one, and it may end at once.
#[test]
fn who_leads_too_much_hands_over() {
    let mut topology = formed(3, 3);
    // All are led by one, as the others were away.
    for placement in topology.partitions.iter_mut().map(Arc::make_mut) {
        placement.old.sort_unstable();
    }
    done(
        &mut topology,
        [Command::Weigh(NodeId(2), 101), Command::Plan],
    );
    let moving = planned(&topology);
    assert!(moving.len() >= 9, "{moving:?}");
    let term = topology.placement(moving[0]).term;
    done(&mut topology, [Command::Begin(moving.clone())]);
    let placement = topology.placement(moving[0]);
    assert_eq!(placement.heir, Some(placement.goal()[0]));
    assert_eq!(placement.term, term);
    finish_all(&mut topology);
    let led = |node| {
        those(&topology, |p| {
            p.leader.is_some_and(|(n, _)| n == NodeId(node))
        })
    };
    assert!((1..=3).all(|node| led(node).len() <= 6));
}

#[test]
fn who_leaves_holds_nothing_and_may_stay_after_all() {
    let mut topology = formed(4, 3);
    let node = NodeId(2);
    assert_eq!(
        topology.apply(&Command::Stay(node)),
        Err(Rejected::Unchanged)
    );
    let nobody = NodeId(9);
    for command in [
        Command::Stay(nobody),
        Command::Leave(nobody),
        Command::Lose(nobody),
    ] {
        assert_eq!(topology.apply(&command), Err(Rejected::UnknownNode(nobody)));
    }
    done(&mut topology, [Command::Leave(node)]);
    assert_eq!(
        topology.apply(&Command::Leave(node)),
        Err(Rejected::Unchanged)
    );
    let some = [Command::Plan, Command::Stay(node)];
    done(&mut topology, some);
    assert!(topology.moves().are_due());
    finish_all(&mut topology);
    assert!(has_share(&topology, 2));
    done(&mut topology, [Command::Leave(node)]);
    finish_all(&mut topology);
    assert_eq!(holds(&topology, 2), 0);
    done(&mut topology, [Command::Remove(node)]);
    // Fewer than a partition should have replicas are so many replicas.
    done(&mut topology, [Command::Leave(NodeId(1))]);
    finish_all(&mut topology);
    assert!(those(&topology, |p| p.old.len() != 2).is_empty());
    done(&mut topology, [Command::Leave(NodeId(3))]);
    let last = topology.apply(&Command::Leave(NodeId(4)));
    assert_eq!(last, Err(Rejected::Last(NodeId(4))));
}

/// A plan that comes while another is carried out: what is joint goes on, and what copies for nothing does not.
#[test]
fn a_plan_replaces_another() {
    let mut topology = formed(3, 3);
    join(&mut topology, 4);
    done(&mut topology, [Command::Plan]);
    let gains = |p: &Partition| topology.moves().planned()[p].contains(&NodeId(4));
    let moving: Vec<Partition> = planned(&topology).into_iter().filter(gains).collect();
    let (joint, copies) = (moving[0], moving[1]);
    done(&mut topology, [Command::Begin(vec![joint, copies])]);
    done(&mut topology, [Command::Join(vec![joint])]);
    done(&mut topology, [Command::Leave(NodeId(4)), Command::Plan]);
    assert!(topology.placement(joint).new_list().is_some());
    assert_eq!(topology.placement(copies).change, None);
    // Of the other no more than the order is to change.
    for (partition, new) in topology.moves().planned() {
        assert!(!new.contains(&NodeId(4)), "{partition:?}");
    }
    assert!(planned(&topology).contains(&joint));
    // What is joint and planned is begun with when it is done.
    let early = topology.apply(&Command::Begin(vec![joint]));
    assert_eq!(early, Err(Rejected::Premature));
    finish_all(&mut topology);
    assert_eq!(holds(&topology, 4), 0);
}

#[test]
fn who_is_down_for_too_long_is_replaced_until_it_comes_back() {
    let mut topology = formed(4, 3);
    let node = NodeId(1);
    let replace = Command::Replace(node, 1);
    assert_eq!(topology.apply(&replace), Err(Rejected::Reachable(node)));
    done(&mut topology, [Command::Down(node, 1)]);
    let of_another = topology.apply(&Command::Replace(node, 2));
    assert_eq!(of_another, Err(Rejected::Incarnation(node)));
    done(&mut topology, [replace.clone()]);
    assert_eq!(topology.apply(&replace), Err(Rejected::Unchanged));
    finish_all(&mut topology);
    assert_eq!((holds(&topology, 1), holds(&topology, 2)), (0, 16));
    for back in [Command::Back(node, 1), register(1, 2, false)] {
        let mut topology = topology.clone();
        done(&mut topology, [back]);
        finish_all(&mut topology);
        assert!(has_share(&topology, 1));
    }
    // With three there is nobody to take its place.
    let mut topology = formed(3, 3);
    done(&mut topology, [Command::Down(node, 1)]);
    assert_eq!(topology.apply(&replace), Err(Rejected::Premature));
}

#[test]
fn who_is_lost_counts_nowhere_and_never_comes_back() {
    let mut topology = formed(4, 3);
    let node = NodeId(1);
    let lose = Command::Lose(node);
    assert_eq!(topology.apply(&lose), Err(Rejected::Reachable(node)));
    done(&mut topology, [Command::Down(node, 1)]);
    let before = topology.clone();
    done(&mut topology, [lose.clone()]);
    for partition in topology.partitions() {
        let (old, new) = (before.placement(partition), topology.placement(partition));
        assert!(!new.voters.contains(&node));
        assert_eq!((&new.old, new.generation), (&old.old, old.generation));
    }
    let gone = Err(Rejected::Lost(node));
    for command in [
        Command::Up(node, 1),
        Command::Back(node, 1),
        Command::Remembers(node, 1),
        Command::Stay(node),
        register(1, 2, false),
    ] {
        assert_eq!(topology.apply(&command), gone, "{command:?}");
    }
    assert_eq!(topology.apply(&lose), Err(Rejected::Unchanged));
    finish_all(&mut topology);
    assert_eq!(holds(&topology, 1), 0);
    done(&mut topology, [Command::Remove(node), register(1, 2, true)]);
}

/// Where too few are left what was is forgotten, but for what the leader has; and the partition is on those that are left.
#[test]
fn a_majority_that_is_lost_is_a_new_generation_of_the_others() {
    let mut topology = formed(4, 3);
    let (one, two) = (NodeId(1), NodeId(2));
    for node in [one, two] {
        done(&mut topology, [Command::Down(node, 1), Command::Lose(node)]);
    }
    let epoch = topology.epoch();
    let mut forgot = 0;
    for partition in topology.partitions() {
        let placement = topology.placement(partition);
        let (leader, _) = placement.leader.expect("somebody is left");
        assert!(![one, two].contains(&leader));
        assert!(placement.is_quorum(|node| node != one && node != two));
        if placement.generation == epoch {
            forgot += 1;
            assert!(!placement.old.contains(&one) && !placement.old.contains(&two));
            assert_eq!(placement.seed, placement.leader);
        }
    }
    assert!(forgot > 0);
    finish_all(&mut topology);
    assert_eq!((holds(&topology, 1), holds(&topology, 2)), (0, 0));
    let last = NodeId(4);
    done(
        &mut topology,
        [Command::Down(NodeId(3), 1), Command::Lose(NodeId(3))],
    );
    done(&mut topology, [Command::Down(last, 1)]);
    assert_eq!(
        topology.apply(&Command::Lose(last)),
        Err(Rejected::Last(last))
    );
}

/// Of what only it had nothing is left, and others begin with nothing.
#[test]
fn what_only_the_lost_one_had_is_elsewhere_and_empty() {
    let mut topology = formed(3, 1);
    let node = NodeId(1);
    let only = those(&topology, |p| p.old == [node]);
    done(&mut topology, [Command::Down(node, 1), Command::Lose(node)]);
    let epoch = topology.epoch();
    for partition in only {
        let placement = topology.placement(partition);
        assert_eq!((placement.generation, placement.seed), (epoch, None));
        assert!(placement.leader.is_some() && !placement.old.contains(&node));
    }
    done(&mut topology, [Command::Plan, Command::Remove(node)]);
}

#[test]
fn weights_move_shares_and_outlive_starts() {
    let mut topology = formed(4, 1);
    let node = NodeId(4);
    done(&mut topology, [Command::Weigh(node, 300)]);
    assert_eq!(
        topology.apply(&Command::Weigh(node, 300)),
        Err(Rejected::Unchanged)
    );
    finish_all(&mut topology);
    assert!((7..=9).contains(&holds(&topology, 4)));
    done(&mut topology, [register(4, 2, false)]);
    assert_eq!(topology.nodes()[&node].weight, 300);
    assert!(!topology.moves().are_due());
}

/// As `what_always_holds_through_random_commands` of the whole topology, with all commands.
#[test]
fn what_always_holds_through_random_moves() {
    for seed in 0..60_u64 {
        let mut random = Random::new(seed, 0);
        let replication = 1 + random.place(4);
        let mut topology = Topology::with_partitions(8, replication, OnQuorumLoss::Forget);
        for step in 0..200 {
            let node = NodeId(random.within(1, 6));
            let known = topology.nodes.get(&node).map_or(0, |node| node.incarnation);
            let mut chosen = |is: &dyn Fn(&Placement) -> bool| {
                let mut some = those(&topology, is);
                some.retain(|_| !random.one_in(3));
                some
            };
            let begun = chosen(&|p| p.change.is_none());
            let copies = chosen(&|p| p.learners().next().is_some());
            let ends = chosen(&|p| p.may_finish());
            let changing = chosen(&|p| p.change.is_some());
            let joint = chosen(&|p| p.new_list().is_some() && p.leader.is_some());
            let term = |p: Partition| (p, topology.placement(p).term);
            let begun = begun.into_iter();
            let begun = begun.filter(|p| topology.moves().planned().contains_key(p));
            let command = match random.below(21) {
                0 => register(node.0, known + 1, random.one_in(3)),
                1..=3 => Command::Up(node, known),
                4 => Command::Down(node, known),
                5 => Command::Remembers(node, known),
                6 => Command::Back(node, known),
                7 => Command::Leave(node),
                8 => Command::Stay(node),
                9 => Command::Remove(node),
                10 => Command::Replace(node, known),
                11 => Command::Lose(node),
                12 => Command::Weigh(node, random.within(1, 300) as u32),
                13 => Command::Undo(changing),
                14 if !topology.is_placed() => Command::Rebalance,
                14 | 15 => Command::Plan,
                16 => Command::Begin(begun.collect()),
                17 => Command::Join(copies),
                18 => Command::Opened(joint.into_iter().map(term).collect()),
                19 => Command::Lead(topology.heirs()),
                _ => Command::Finish(ends),
            };
            let before = topology.clone();
            let outcome = topology.apply(&command);
            println!("seed {seed}, step {step}: {command:.80?}: {outcome:?}");
            if outcome.is_err() {
                assert_eq!(before, topology);
                continue;
            }
            for partition in topology.partitions() {
                let (old, new) = (before.placement(partition), topology.placement(partition));
                assert!(new.term >= old.term && new.generation >= old.generation);
                let is_same = old.what_a_term_is_of() == new.what_a_term_is_of();
                assert_eq!(
                    old.term == new.term,
                    is_same,
                    "{partition:?}: {old:?} {new:?}"
                );
                if !new.old.is_empty() {
                    assert!(new.is_quorum(|_| true), "{partition:?}: {new:?}");
                }
                for node in new.old.iter().chain(new.goal()) {
                    assert!(topology.nodes.contains_key(node), "{partition:?}: {new:?}");
                }
                // All that follows of it does so at once: while it and the nodes stay as they are nothing has to be looked at again.
                let mut again = Placement::clone(new);
                assert_eq!(again.go_back(&topology.nodes), None);
                let policy = topology.on_quorum_loss;
                again.derive(new, topology.epoch + 1, policy, &topology.nodes);
                assert_eq!(again, **new, "{partition:?}");
                let ends = new.change.is_none() || new.may_finish();
                assert!(new.heir.is_none() || ends && new.leader.map(|(n, _)| n) != new.heir);
                assert!(new.heir.is_none() || new.leader.is_some());
                // Any quorum of before has one in common with any of after.
                if new.term != old.term && new.generation == old.generation {
                    for bits in 0..64_u32 {
                        let has = |node: NodeId| bits >> (node.0 - 1) & 1 == 1;
                        let common = !(old.is_quorum(has) && new.is_quorum(|node| !has(node)));
                        assert!(common, "{partition:?}: {old:?} {new:?}");
                    }
                }
            }
            let open = planned(&topology).len() + topology.moving();
            assert!(open > 0 || topology.moves().total() == 0);
        }
    }
}
