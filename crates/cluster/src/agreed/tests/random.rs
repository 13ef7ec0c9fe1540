//! What always holds through random commands: their states are the same after being written and read, and what is rejected has
//! changed nothing.

use super::*;
use crate::testing::random::Random;
use henge_wire::Partition;

const SEEDS: u64 = 30;
const STEPS: usize = 150;

fn command(random: &mut Random, agreed: &Agreed) -> Command {
    let names = ["a", "b", "c", "d", "e"];
    let name = *random.of(&names);
    let node = NodeId(random.within(1, 6));
    let known = agreed.topology.newest_start(node);
    let partitions = |random: &mut Random| -> Vec<Partition> {
        let all = Partition::all().take(10);
        all.filter(|_| random.one_in(2)).collect()
    };
    match random.below(18) {
        0 => Command::Form {
            cluster: ClusterId(u128::from(random.next())),
            founders: BTreeSet::from([who(name, random.within(1, 9))]),
            replication: random.place(4),
        },
        1..=4 => Command::Start {
            who: who(name, random.within(1, 12)),
            address: format!("{name}:{}", random.below(9)),
            incarnation: agreed.newest_start(name) + random.below(3),
            has_lost_memory: random.one_in(3),
            weight: random.within(0, 3) as u32,
            zone: random.one_in(2).then_some(1),
        },
        5 | 6 => {
            let long = random.one_in(4).then(|| "x".repeat(40_000));
            let value = random.one_in(2).then(|| name.to_owned());
            set(
                &random.below(4).to_string(),
                long.or(value).as_deref(),
                random.one_in(3).then(|| random.below(9)),
            )
        }
        7 if random.one_in(6) => Command::Recover {
            cluster: ClusterId(u128::from(random.below(3))),
            survivor: node,
        },
        kind => Command::Topology(match kind {
            7 | 8 => topology::Command::Up(node, known),
            9 => topology::Command::Down(node, known),
            10 => topology::Command::Back(node, known),
            11 => topology::Command::Remembers(node, known),
            12 => topology::Command::Leave(node),
            13 => topology::Command::Remove(node),
            14 => topology::Command::Rebalance,
            15 => topology::Command::Join(partitions(random)),
            16 => {
                let term = |p| (p, agreed.topology.placement(p).term);
                let all = partitions(random).into_iter();
                let known = all.filter(|p| p.number() < 8);
                topology::Command::Opened(known.map(term).collect())
            }
            _ if random.one_in(2) => topology::Command::Finish(partitions(random)),
            _ => topology::Command::Reset(partitions(random)),
        }),
    }
}

fn check(agreed: &Agreed) {
    let nodes = agreed.topology.nodes().keys();
    assert!(nodes.eq(agreed.members.keys()), "who is in one is in both");
    let mut numbers: Vec<NodeId> = agreed.names.values().map(|named| named.node).collect();
    numbers.sort_unstable();
    assert!(
        numbers
            .iter()
            .copied()
            .eq((1..=agreed.last_node).map(NodeId))
    );
    for (&node, member) in &agreed.members {
        assert_eq!(agreed.named(&member.name), Some((node, member)));
        assert_eq!(agreed.of_instance(member.instance), Some((node, member)));
    }
    let bytes = |(name, setting): (&String, &Setting)| name.len() + setting.value.len();
    assert!(agreed.settings.iter().map(bytes).sum::<usize>() <= MAX_SETTINGS_BYTES);
}

/// A test that failed is run again with its seed in the environment.
#[expect(clippy::disallowed_methods, reason = "a test that failed is run again")]
fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("HENGE_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("HENGE_SEED is a number"));
    given.map_or(0..SEEDS, |seed: u64| seed..seed + 1)
}

#[test]
fn what_always_holds_through_random_commands() {
    for seed in seeds() {
        let mut random = Random::new(seed, 0);
        let mut agreed = Agreed::new();
        for step in 0..STEPS {
            let command = command(&mut random, &agreed);
            let before = agreed.clone();
            let outcome = agreed.apply(&command);
            println!("HENGE_SEED={seed}, step {step}: {command:.80?}: {outcome:?}");
            if matches!(outcome, Ok(Outcome::Formed)) {
                // A small one, so that more of them can be tried.
                agreed.topology =
                    Topology::with_partitions(8, 1 + random.place(3), OnQuorumLoss::Forget);
            }
            let written = serde_json::to_string(&command).expect("it has a form");
            let read: Command = serde_json::from_str(&written).expect("it is a command");
            assert_eq!(read, command);
            match outcome {
                Err(_) => assert_eq!(agreed, before),
                Ok(_) => check(&agreed),
            }
            let written = serde_json::to_string(&agreed).expect("it has a form");
            let read: Agreed = serde_json::from_str(&written).expect("it is one");
            assert_eq!(read, agreed);
            // Names, numbers and versions are given once.
            for (name, named) in &before.names {
                assert_eq!(agreed.names[name].node, named.node);
                assert!(agreed.newest_start(name) >= before.newest_start(name));
            }
            assert!(agreed.last_setting >= before.last_setting);
        }
    }
}
