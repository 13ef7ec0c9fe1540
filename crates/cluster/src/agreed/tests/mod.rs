//! What the nodes agree on, over lists of commands.

mod golden;
mod random;

use super::*;

fn who(name: &str, instance: u64) -> Who {
    Who {
        name: name.to_owned(),
        instance,
    }
}

fn start(name: &str, instance: u64, incarnation: Incarnation) -> Command {
    Command::Start {
        who: who(name, instance),
        address: format!("{name}:8080"),
        incarnation,
        has_lost_memory: false,
        weight: 1,
        zone: None,
    }
}

fn set(name: &str, value: Option<&str>, expected: Option<u64>) -> Command {
    Command::Set {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        expected,
    }
}

/// A cluster of these, with instances 11, 12 and so on, of few partitions.
fn formed(names: &[&str]) -> Agreed {
    let mut agreed = Agreed::new();
    let founders: BTreeSet<Who> = (11..).zip(names).map(|(n, name)| who(name, n)).collect();
    let form = Command::Form {
        cluster: ClusterId(1),
        founders: founders.clone(),
        replication: 1,
    };
    assert_eq!(agreed.apply(&form), Ok(Outcome::Formed));
    agreed.topology = Topology::with_partitions(4, 1, OnQuorumLoss::Forget);
    for (founder, number) in founders.iter().zip(1..) {
        let started = agreed.apply(&start(&founder.name, founder.instance, 1));
        assert_eq!(started, Ok(Outcome::Started(NodeId(number))));
    }
    agreed
}

/// Applies a command that is rejected, and changes nothing.
fn rejected(agreed: &mut Agreed, command: &Command) -> Rejected {
    let before = agreed.clone();
    let rejected = agreed.apply(command).expect_err("it is rejected");
    assert_eq!(*agreed, before);
    println!("{rejected}");
    rejected
}

#[test]
fn a_cluster_is_formed_once_and_before_all_else() {
    let mut agreed = Agreed::new();
    assert_eq!(
        rejected(&mut agreed, &start("a", 1, 1)),
        Rejected::NotFormed
    );
    assert_eq!(
        rejected(&mut agreed, &set("a", None, None)),
        Rejected::NotFormed
    );
    let form = |cluster, replication| Command::Form {
        cluster: ClusterId(cluster),
        founders: BTreeSet::from([who("a", 11)]),
        replication,
    };
    assert_eq!(rejected(&mut agreed, &form(1, 0)), Rejected::NoReplicas);
    assert_eq!(agreed.apply(&form(1, 1)), Ok(Outcome::Formed));
    assert_eq!(agreed.cluster(), Some(ClusterId(1)));
    assert_eq!(agreed.founders(), &BTreeSet::from([who("a", 11)]));
    assert_eq!(rejected(&mut agreed, &form(2, 1)), Rejected::AlreadyFormed);
}

#[test]
fn a_name_keeps_its_number() {
    let mut agreed = formed(&["a", "b"]);
    let topology = topology::Command::Remove(NodeId(2));
    let epoch = agreed.topology.epoch();
    assert_eq!(
        agreed.apply(&Command::Topology(topology.clone())),
        Ok(Outcome::Epoch(epoch + 1))
    );
    assert_eq!((agreed.named("b"), agreed.of_instance(12)), (None, None));
    assert_eq!(agreed.newest_start("b"), 1);
    assert_eq!(
        agreed.apply(&start("c", 13, 1)),
        Ok(Outcome::Started(NodeId(3)))
    );
    let again = rejected(&mut agreed, &start("b", 12, 1));
    let stale = topology::Rejected::Incarnation(NodeId(2));
    assert_eq!(again, Rejected::Topology(stale));
    assert_eq!(
        agreed.apply(&start("b", 12, 2)),
        Ok(Outcome::Started(NodeId(2)))
    );
    assert_eq!(agreed.topology.nodes()[&NodeId(2)].amnesia, 0);
}

#[test]
fn a_name_with_another_directory_has_lost_its_memory() {
    let mut agreed = formed(&["a", "b"]);
    agreed.apply(&start("b", 22, 2)).expect("a later start");
    let (node, member) = agreed.named("b").expect("it is a member");
    assert_eq!(
        (node, &member.who(), &member.address[..]),
        (NodeId(2), &who("b", 22), "b:8080")
    );
    assert_eq!(agreed.of_instance(12), None);
    assert!(agreed.topology.nodes()[&node].amnesia > 0);
    // That also holds for who was removed meanwhile.
    let mut agreed = formed(&["a", "b"]);
    agreed
        .apply(&Command::Topology(topology::Command::Remove(NodeId(2))))
        .expect("it holds nothing");
    agreed.apply(&start("b", 22, 2)).expect("a later start");
    assert!(agreed.topology.nodes()[&NodeId(2)].amnesia > 0);
}

#[test]
fn a_start_brings_another_address() {
    let mut agreed = formed(&["a", "b"]);
    let mut elsewhere = start("b", 12, 2);
    if let Command::Start { address, .. } = &mut elsewhere {
        *address = "elsewhere:1".to_owned();
    }
    agreed.apply(&elsewhere).expect("a later start");
    let (_, member) = agreed.named("b").expect("it is a member");
    assert_eq!(member.address, "elsewhere:1");
    assert_eq!(agreed.topology.nodes()[&NodeId(2)].amnesia, 0);
}

#[test]
fn a_start_that_makes_no_sense_is_rejected() {
    let mut agreed = formed(&["a", "b"]);
    // Two names of one directory would be two members of Raft with one id.
    let other = rejected(&mut agreed, &start("c", 12, 9));
    assert_eq!(other, Rejected::OtherName(NodeId(2)));
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    let cases = [
        (start("", 13, 1), Rejected::Empty(Text::NodeName)),
        (start(&long, 13, 1), Rejected::TooLong(Text::NodeName)),
        // There would be no later start of it.
        (start("b", 12, u64::MAX), Rejected::Incarnation(u64::MAX)),
    ];
    for (command, why) in cases {
        assert_eq!(rejected(&mut agreed, &command), why);
    }
    let many = start("b", 12, MAX_INCARNATION + 1);
    let why = Rejected::Incarnation(MAX_INCARNATION + 1);
    assert_eq!(rejected(&mut agreed, &many), why);
    for wrong in [0, MAX_WEIGHT + 1] {
        let mut command = start("c", 13, 1);
        if let Command::Start { weight, .. } = &mut command {
            *weight = wrong;
        }
        assert_eq!(rejected(&mut agreed, &command), Rejected::Weight(wrong));
    }
    let mut nowhere = start("c", 13, 1);
    if let Command::Start { address, .. } = &mut nowhere {
        *address = long;
    }
    let why = Rejected::TooLong(Text::Address);
    assert_eq!(rejected(&mut agreed, &nowhere), why);
    let register = topology::Command::Register {
        node: NodeId(9),
        incarnation: 1,
        has_lost_memory: false,
        weight: 1,
        zone: None,
    };
    let by_itself = rejected(&mut agreed, &Command::Topology(register));
    assert_eq!(by_itself, Rejected::NotAStart);
    let partition = henge_wire::Partition::new(0).expect("it is one");
    let many = topology::Command::Reset(vec![partition; 5]);
    let many = rejected(&mut agreed, &Command::Topology(many));
    assert_eq!(many, Rejected::TooManyPartitions);
}

#[test]
fn a_setting_has_versions() {
    let mut agreed = formed(&["a"]);
    let absent = Rejected::SettingVersion { present: 0 };
    assert_eq!(rejected(&mut agreed, &set("k", Some("1"), Some(1))), absent);
    assert_eq!(
        agreed.apply(&set("k", Some("1"), Some(0))),
        Ok(Outcome::Set(1))
    );
    assert_eq!(
        agreed.apply(&set("k", Some("2"), None)),
        Ok(Outcome::Set(2))
    );
    let other = Rejected::SettingVersion { present: 2 };
    assert_eq!(rejected(&mut agreed, &set("k", None, Some(1))), other);
    assert_eq!(agreed.apply(&set("k", None, Some(2))), Ok(Outcome::Set(0)));
    assert_eq!(agreed.apply(&set("k", None, None)), Ok(Outcome::Set(0)));
    // Who saw version 1 does not take this for it.
    assert_eq!(
        agreed.apply(&set("k", Some("3"), Some(0))),
        Ok(Outcome::Set(3))
    );
    assert_eq!(agreed.settings()["k"].value, "3");
}

#[test]
fn settings_are_bounded() {
    let mut agreed = formed(&["a"]);
    let too_long = "x".repeat(MAX_SETTINGS_BYTES);
    let why = Rejected::TooLong(Text::SettingValue);
    assert_eq!(rejected(&mut agreed, &set("k", Some(&too_long), None)), why);
    agreed
        .apply(&set("k", Some(&too_long[1..]), None))
        .expect("it has room");
    // What it replaces needs none.
    agreed
        .apply(&set("k", Some(&too_long[2..]), None))
        .expect("it has room");
    assert_eq!(rejected(&mut agreed, &set("l", Some("v"), None)), why);
    agreed
        .apply(&set("k", None, None))
        .expect("it may be removed");
    for number in 0..MAX_SETTINGS {
        agreed
            .apply(&set(&number.to_string(), Some("v"), None))
            .expect("it has room");
    }
    let many = rejected(&mut agreed, &set("k", Some("v"), None));
    assert_eq!(many, Rejected::TooManySettings);
    agreed
        .apply(&set("0", Some("w"), None))
        .expect("it is there");
}

#[test]
fn one_is_left_and_holds_all_anew() {
    let mut agreed = formed(&["a", "b", "c"]);
    for command in [
        topology::Command::Rebalance,
        topology::Command::Up(NodeId(2), 1),
        topology::Command::Leave(NodeId(2)),
    ] {
        agreed
            .apply(&Command::Topology(command))
            .expect("it may be");
    }
    let recover = |cluster, survivor| Command::Recover {
        cluster: ClusterId(cluster),
        survivor: NodeId(survivor),
    };
    let same = rejected(&mut agreed, &recover(1, 2));
    assert_eq!(same, Rejected::AlreadyFormed);
    let unknown = topology::Rejected::UnknownNode(NodeId(9));
    let nobody = rejected(&mut agreed, &recover(2, 9));
    assert_eq!(nobody, Rejected::Topology(unknown));
    let epoch = agreed.topology.epoch() + 1;
    let before = agreed.topology.clone();
    assert_eq!(agreed.apply(&recover(2, 2)), Ok(Outcome::Epoch(epoch)));
    assert_eq!(agreed.cluster(), Some(ClusterId(2)));
    assert_eq!(agreed.founders(), &BTreeSet::from([who("b", 12)]));
    let members: Vec<&NodeId> = agreed.members().keys().collect();
    assert_eq!(members, [&NodeId(2)]);
    assert!(!agreed.topology.nodes()[&NodeId(2)].is_leaving);
    for partition in agreed.topology.partitions() {
        let placement = agreed.topology.placement(partition);
        let was = before.placement(partition);
        assert_eq!(placement.old, [NodeId(2)]);
        // Of what nobody else had a replica of it has all.
        if was.old == [NodeId(2)] && was.change.is_none() {
            assert_eq!(placement.generation, was.generation);
        } else {
            assert_eq!((placement.generation, placement.term), (epoch, epoch));
            assert_eq!((placement.forgotten, placement.seed), (epoch, None));
        }
        assert_eq!(placement.leader, Some((NodeId(2), 1)));
    }
    // The others come back as others.
    assert_eq!(agreed.newest_start("c"), 1);
    let back = agreed.apply(&start("c", 23, 2));
    assert_eq!(back, Ok(Outcome::Started(NodeId(3))));
    assert!(agreed.topology.nodes()[&NodeId(3)].amnesia > 0);
}
