//! The form in text, as the first program that wrote it did: it is read for ever. With `UPDATE_GOLDEN=1` in the environment the
//! files are written anew, which is right only with a new number of the format.

use super::*;
use henge_wire::Partition;
use std::fs;
use std::path::Path;

/// Asserts that a golden file holds this text, and gives it back.
fn golden(name: &str, written: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, written).expect("the folder of golden files can be written to");
    }
    let kept =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        kept == written,
        "{}: the format changed without a new number",
        path.display()
    );
    kept
}

fn commands() -> Vec<Command> {
    let node = NodeId(2);
    let partitions = || Partition::all().skip(7).take(2).collect::<Vec<_>>();
    let of_topology = [
        topology::Command::Register {
            node,
            incarnation: 5,
            has_lost_memory: true,
            weight: 2,
            zone: Some(4),
        },
        topology::Command::Up(node, 5),
        topology::Command::Down(node, 5),
        topology::Command::Back(node, 5),
        topology::Command::Remembers(node, 5),
        topology::Command::Leave(node),
        topology::Command::Remove(node),
        topology::Command::Rebalance,
        topology::Command::Join(partitions()),
        topology::Command::Opened(partitions().into_iter().map(|p| (p, 6)).collect()),
        topology::Command::Finish(partitions()),
        topology::Command::Reset(partitions()),
        topology::Command::Plan,
        topology::Command::Begin(partitions()),
        topology::Command::Undo(partitions()),
        topology::Command::Stay(node),
        topology::Command::Replace(node, 5),
        topology::Command::Lose(node),
        topology::Command::Weigh(node, 7),
        topology::Command::Lead(partitions().into_iter().map(|p| (p, 6)).collect()),
    ];
    let mut commands = vec![
        Command::Form {
            cluster: ClusterId(0xabc << 100),
            founders: BTreeSet::from([who("a", 11), who("b", u64::MAX)]),
            replication: 3,
        },
        Command::Start {
            who: who("a", 11),
            address: "127.0.0.1:8080".to_owned(),
            incarnation: 5,
            has_lost_memory: true,
            weight: 1,
            zone: Some(4),
        },
        set("name", Some("a \"value\""), Some(3)),
        set("name", None, None),
        Command::Recover {
            cluster: ClusterId(7),
            survivor: node,
        },
    ];
    commands.extend(of_topology.map(Command::Topology));
    commands
}

#[test]
fn commands_have_a_form_for_ever() {
    let mut written = String::new();
    for command in commands() {
        written += &serde_json::to_string(&command).expect("it has a form");
        written.push('\n');
    }
    let kept = golden("commands-1.jsonl", &written);
    for (line, command) in kept.lines().zip(commands()) {
        let read: Command = serde_json::from_str(line).expect("it is a command");
        assert_eq!(read, command);
    }
}

#[test]
fn what_commands_lead_to_has_a_form_for_ever() {
    let rejected = |of| Err(Rejected::Topology(of));
    let answers: Vec<Result<Outcome, Rejected>> = vec![
        Ok(Outcome::Formed),
        Ok(Outcome::Started(NodeId(2))),
        Ok(Outcome::Epoch(3)),
        Ok(Outcome::Set(4)),
        Err(Rejected::AlreadyFormed),
        Err(Rejected::NotFormed),
        rejected(topology::Rejected::UnknownNode(NodeId(2))),
        rejected(topology::Rejected::UnknownPartition(
            Partition::new(9).expect("it is one"),
        )),
        rejected(topology::Rejected::Incarnation(NodeId(2))),
        rejected(topology::Rejected::Premature),
        rejected(topology::Rejected::Unchanged),
        rejected(topology::Rejected::Exhausted),
        Err(Rejected::NotAStart),
        Err(Rejected::OtherName(NodeId(2))),
        Err(Rejected::Weight(0)),
        Err(Rejected::NoReplicas),
        Err(Rejected::TooManyMembers),
        Err(Rejected::TooManyNames),
        Err(Rejected::TooManyPartitions),
        Err(Rejected::TooManySettings),
        Err(Rejected::SettingVersion { present: 1 }),
        Err(Rejected::Empty(Text::NodeName)),
        Err(Rejected::Empty(Text::Address)),
        Err(Rejected::TooLong(Text::SettingName)),
        Err(Rejected::TooLong(Text::SettingValue)),
        Err(Rejected::Incarnation(u64::MAX)),
        rejected(topology::Rejected::Last(NodeId(2))),
        rejected(topology::Rejected::Reachable(NodeId(2))),
        rejected(topology::Rejected::Lost(NodeId(2))),
    ];
    let mut written = String::new();
    for answer in &answers {
        written += &serde_json::to_string(answer).expect("it has a form");
        written.push('\n');
    }
    let kept = golden("answers-1.jsonl", &written);
    for (line, answer) in kept.lines().zip(answers) {
        let read: Result<Outcome, Rejected> = serde_json::from_str(line).expect("it is an answer");
        assert_eq!(read, answer);
    }
}

#[test]
fn the_state_has_a_form_for_ever() {
    let mut agreed = formed(&["a", "b"]);
    let commands = [
        Command::Topology(topology::Command::Rebalance),
        Command::Topology(topology::Command::Up(NodeId(1), 1)),
        Command::Topology(topology::Command::Up(NodeId(2), 1)),
        Command::Topology(topology::Command::Down(NodeId(2), 1)),
        start("d", 14, 1),
        Command::Topology(topology::Command::Remove(NodeId(3))),
        start("e", 15, 1),
        Command::Topology(topology::Command::Rebalance),
        set("name", Some("value"), None),
    ];
    for command in commands {
        agreed.apply(&command).expect("it may be");
    }
    let moves = |p: &Partition| agreed.topology.placement(*p).change.is_some();
    let moving = agreed.topology.partitions().find(moves);
    let moving = moving.expect("the third takes something over");
    agreed
        .apply(&Command::Topology(topology::Command::Join(vec![moving])))
        .expect("it may be");
    let mut written = serde_json::to_string_pretty(&agreed).expect("it has a form");
    written.push('\n');
    let kept = golden("agreed-1.json", &written);
    let read: Agreed = serde_json::from_str(&kept).expect("it is one");
    assert_eq!(read, agreed);
}

/// What came to be known later is written where there is something of it, so that a text of before is read as well.
#[test]
fn moves_have_a_form_for_ever() {
    let mut agreed = formed(&["a"]);
    for command in [
        Command::Topology(topology::Command::Rebalance),
        Command::Topology(topology::Command::Up(NodeId(1), 1)),
        start("b", 12, 1),
        Command::Topology(topology::Command::Plan),
    ] {
        agreed.apply(&command).expect("it may be");
    }
    let planned: Vec<Partition> = agreed.topology.moves().planned().keys().copied().collect();
    for command in [
        topology::Command::Begin(planned[..1].to_vec()),
        topology::Command::Join(planned[..1].to_vec()),
        topology::Command::Opened(vec![(planned[0], agreed.topology.epoch() + 2)]),
        topology::Command::Leave(NodeId(2)),
        topology::Command::Weigh(NodeId(1), 7),
    ] {
        let applied = agreed.apply(&Command::Topology(command));
        applied.expect("it may be");
    }
    let mut written = serde_json::to_string_pretty(&agreed).expect("it has a form");
    written.push('\n');
    let kept = golden("moves-1.json", &written);
    let read: Agreed = serde_json::from_str(&kept).expect("it is one");
    assert_eq!(read, agreed);
    assert!(read.topology.moves().are_due() && read.topology.moves().total() > 0);
}

#[test]
fn what_is_newer_or_cannot_be_is_refused() {
    let newer = r#"{"format":2,"cluster":{"of":"another form"}}"#;
    let error = serde_json::from_str::<Agreed>(newer).expect_err("it is newer");
    let text = "what the cluster agrees on has the format 2, and this program reads 1";
    assert!(error.to_string().starts_with(text), "{error}");
    let agreed = serde_json::to_value(Agreed::new()).expect("it has a form");
    for (pointer, value) in [
        ("/topology/partitions", serde_json::json!([])),
        ("/cluster", serde_json::json!("abc")),
        (
            "/cluster",
            serde_json::json!("+".to_owned() + &"1".repeat(31)),
        ),
    ] {
        let mut wrong = agreed.clone();
        *wrong.pointer_mut(pointer).expect("it is there") = value;
        let error = serde_json::from_value::<Agreed>(wrong).expect_err("it cannot be");
        println!("{error}");
    }
    let none = r#"{"Topology":{"Reset":[1024]}}"#;
    serde_json::from_str::<Command>(none).expect_err("there is none");
}
