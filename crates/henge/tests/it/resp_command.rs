//! What `COMMAND` says of commands: the same as valkey's, and complete.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::node;
use crate::resp_reply::{Reply, ask};
use crate::side_by_side::{Connection, Pair, Valkey, tables};

#[test]
fn command() {
    tables(include_str!("side_by_side/command.txt"));
}

/// What `COMMAND` says of one command, its lists in order, without what only we or only valkey have.
#[derive(PartialEq, Debug)]
struct Described {
    words: Vec<Reply>,
    flags: BTreeSet<Reply>,
    categories: BTreeSet<Reply>,
    key_specs: Vec<Reply>,
    subcommands: BTreeMap<String, Described>,
}

impl Described {
    fn of(reply: &Reply) -> (String, Self) {
        let parts = reply.parts();
        let set = |place: usize| parts[place].parts().iter().cloned().collect();
        let key_specs = parts[8].parts().iter().map(|spec| {
            let Reply::Parts(kind, fields) = spec else {
                panic!("{spec:?} is no map");
            };
            // Notes are sentences of others.
            let fields = fields.chunks(2).filter(|pair| pair[0].text() != "notes");
            Reply::Parts(*kind, fields.flatten().cloned().collect())
        });
        let described = Self {
            words: [1, 3, 4, 5].map(|place| parts[place].clone()).into(),
            flags: set(2),
            categories: set(6),
            key_specs: key_specs.collect(),
            subcommands: parts[9].parts().iter().map(Self::of).collect(),
        };
        (parts[0].text().to_owned(), described)
    }
}

/// Subcommands that valkey has and we have not, and commands that only we have.
const MISSING: [(&str, &str); 32] = [
    ("client|caching", "nothing is tracked for caches of clients"),
    (
        "client|capa",
        "there is no capability that would change a reply",
    ),
    (
        "client|getredir",
        "nothing is tracked for caches of clients",
    ),
    ("client|import-source", "nothing is imported"),
    (
        "client|tracking",
        "nothing is tracked for caches of clients",
    ),
    (
        "client|trackinginfo",
        "nothing is tracked for caches of clients",
    ),
    (
        "client|unblock",
        "no command waits but WAIT, which ends by itself",
    ),
    (
        "cluster|addslots",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|addslotsrange",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|bumpepoch",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|cancelslotmigrations",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|count-failure-reports",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|delslots",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|delslotsrange",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|failover",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|flushslot",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|flushslots",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|forget",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|getslotmigrations",
        "nodes are told by their operators, and agree on the rest",
    ),
    ("cluster|links", "links are no business of clients"),
    (
        "cluster|meet",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|migrateslots",
        "nodes are told by their operators, and agree on the rest",
    ),
    ("cluster|myshardid", "a partition is no shard of Redis"),
    ("cluster|replicas", "a partition has one replica"),
    (
        "cluster|replicate",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|reset",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|saveconfig",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|set-config-epoch",
        "nodes are told by their operators, and agree on the rest",
    ),
    (
        "cluster|setslot",
        "nodes are told by their operators, and agree on the rest",
    ),
    ("cluster|slaves", "a partition has one replica"),
    ("cluster|slot-stats", "figures are kept for nodes"),
    (
        "cluster|syncslots",
        "nodes are told by their operators, and agree on the rest",
    ),
];
const OWN: [&str; 1] = ["henge"];

#[test]
fn commands_are_described_as_valkey_describes_them() {
    let Some(valkey) = Valkey::start() else {
        return;
    };
    for protocol in [2, 3] {
        let mut pair = Pair::over(Some(&valkey), protocol);
        let (ours, theirs) = pair.connection("");
        let theirs = theirs.as_mut().expect("there is one");
        let all = ask(ours, &["COMMAND"]);
        assert_eq!(all, ask(ours, &["COMMAND", "INFO"]));
        let mut missing = BTreeSet::new();
        for ours in all.parts() {
            let (name, mut ours) = Described::of(ours);
            let found = ask(theirs, &["COMMAND", "INFO", &name]);
            if OWN.contains(&name.as_str()) {
                assert_eq!(found.parts(), [Reply::Null]);
                continue;
            }
            let (_, mut theirs) = Described::of(&found.parts()[0]);
            theirs.subcommands.retain(|name, _| {
                let is_known = ours.subcommands.contains_key(name);
                if !is_known {
                    missing.insert(name.clone());
                }
                is_known
            });
            for (name, ours) in std::mem::take(&mut ours.subcommands) {
                assert_eq!(Some(ours), theirs.subcommands.remove(&name), "{name}");
            }
            assert_eq!(ours, theirs, "{name}");
        }
        let known: BTreeSet<_> = MISSING.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(missing, known);
    }
}

#[test]
fn documentation_is_complete() {
    let node = node(&[]);
    for protocol in [2, 3] {
        let mut connection = Connection::open(node.local_addr(), protocol);
        let docs = ask(&mut connection, &["COMMAND", "DOCS"]);
        let names = ask(&mut connection, &["COMMAND", "LIST"]);
        let count = ask(&mut connection, &["COMMAND", "COUNT"]);
        let docs = docs.map();
        let len = i64::try_from(docs.len()).expect("a few");
        assert_eq!(count, Reply::Integer(len));
        let mut listed = BTreeSet::new();
        for (name, doc) in &docs {
            listed.insert((*name).to_owned());
            let doc = doc.map();
            for field in ["summary", "since", "group", "complexity"] {
                assert!(!doc[field].text().is_empty(), "{name}: {field}");
            }
            if let Some(subcommands) = doc.get("subcommands") {
                listed.extend(subcommands.map().keys().map(|name| (*name).to_owned()));
            }
        }
        let names: BTreeSet<_> = names
            .parts()
            .iter()
            .map(|name| name.text().to_owned())
            .collect();
        assert_eq!(listed, names);
        // As a client sees one command whole: a key, a value, one of some, an option, one of some again.
        let set = docs["set"].map();
        let types: Vec<_> = set["arguments"]
            .parts()
            .iter()
            .map(|argument| argument.map()["type"].text())
            .collect();
        assert_eq!(types, ["key", "string", "oneof", "pure-token", "oneof"]);
        let condition = set["arguments"].parts()[2].map();
        assert_eq!(condition["flags"].parts(), [Reply::Text("optional".into())]);
        assert_eq!(
            condition["arguments"].parts()[2].map()["token"].text(),
            "IFEQ"
        );
    }
}
