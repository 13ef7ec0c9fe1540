//! Nodes that start in every order, ask each other when they like, and are replaced meanwhile: they become one cluster.

use super::{ClusterId, Forming, Hello, Refused, Step, Wait, Who};
use crate::testing::random::Random;
use std::collections::{BTreeMap, BTreeSet};

fn who(name: &str, instance: u64) -> Who {
    Who {
        name: name.to_owned(),
        instance,
    }
}

fn forming(me: Who, entries: &[&str]) -> Forming {
    Forming::new(me, entries.iter().map(ToString::to_string))
}

/// Of a node that knows all of a set.
fn whole(me: Who, set: &[Who]) -> Hello {
    Hello {
        who: me,
        cluster: None,
        set: set.iter().cloned().collect(),
        is_whole: true,
    }
}

/// Nodes, by their addresses, and who answers where.
struct World {
    random: Random,
    given: BTreeMap<&'static str, Vec<&'static str>>,
    nodes: BTreeMap<&'static str, (Forming, Option<ClusterId>)>,
    begun: Vec<ClusterId>,
}

impl World {
    fn start(&mut self, address: &'static str, instance: u64) {
        let node = forming(who(address, instance), &self.given[address]);
        self.nodes.insert(address, (node, None));
    }

    /// Who listens there says who it is; an address may lead to a node by another name.
    fn says(&self, address: &str) -> Option<Hello> {
        let (node, cluster) = self.nodes.get(address.trim_start_matches("also-"))?;
        let cluster = *cluster;
        Some(Hello {
            cluster,
            ..node.hello()
        })
    }

    /// A node asks at one of its addresses, perhaps in vain, and does what it is to do.
    fn ask(&mut self, address: &'static str, is_lost: bool) {
        let entries = &self.given[address];
        let entry = (!entries.is_empty()).then(|| *self.random.of(entries));
        let hello = entry
            .filter(|_| !is_lost)
            .and_then(|entry| self.says(entry));
        let (node, cluster) = self.nodes.get_mut(address).expect("it runs");
        if cluster.is_some() {
            return;
        }
        if let Some(entry) = entry {
            node.heard(entry, hello);
        }
        match node.step().expect("nobody is refused") {
            Step::Wait(waits) => assert!(!waits.is_empty(), "it waits for somebody"),
            Step::Begin(set) => {
                assert_eq!(set.first(), Some(&node.me));
                let id = ClusterId(self.begun.len() as u128 + 1);
                *cluster = Some(id);
                self.begun.push(id);
            }
            Step::Join(_, id) => *cluster = Some(id),
        }
    }
}

/// What each of some nodes is given.
fn mirrors() -> Vec<BTreeMap<&'static str, Vec<&'static str>>> {
    vec![
        BTreeMap::from([("a", vec![])]),
        BTreeMap::from([("a", vec!["b"]), ("b", vec!["a"])]),
        BTreeMap::from([
            ("a", vec!["b", "c"]),
            ("b", vec!["a", "c"]),
            ("c", vec!["a", "b"]),
        ]),
        // Oneself is in the list, and somebody by two addresses.
        BTreeMap::from([
            ("a", vec!["a", "b", "c"]),
            ("b", vec!["a", "b", "c", "also-a"]),
            ("c", vec!["a", "b", "c", "also-c"]),
        ]),
        BTreeMap::from([
            ("a", vec!["b", "c", "d", "e"]),
            ("b", vec!["a", "c", "d", "e"]),
            ("c", vec!["a", "b", "d", "e"]),
            ("d", vec!["a", "b", "c", "e"]),
            ("e", vec!["a", "b", "c", "d"]),
        ]),
        // The last two only know one of the others.
        BTreeMap::from([
            ("a", vec!["b"]),
            ("b", vec!["a"]),
            ("c", vec!["b"]),
            ("d", vec!["c"]),
        ]),
    ]
}

#[test]
fn nodes_become_one_cluster_in_whatever_order_they_start() {
    for seed in 0..100 {
        println!("seed {seed}");
        for given in mirrors() {
            let mut world = World {
                random: Random::new(seed, 0),
                nodes: BTreeMap::new(),
                begun: Vec::new(),
                given,
            };
            let all: Vec<_> = world.given.keys().copied().collect();
            let mut tries = 0;
            let is_done = |world: &World| {
                world.nodes.len() == all.len() && world.nodes.values().all(|(_, c)| c.is_some())
            };
            while !is_done(&world) {
                tries += 1;
                assert!(tries < 100_000, "they never become one");
                let address = *world.random.of(&all);
                if world.nodes.contains_key(address) {
                    let is_lost = world.random.one_in(4);
                    world.ask(address, is_lost);
                } else if world.random.one_in(5) {
                    world.start(address, seed);
                }
            }
            assert_eq!(world.begun.len(), 1, "one is begun");
        }
    }
}

#[test]
fn nobody_begins_with_who_was_replaced() {
    let (a, b, c) = (who("a", 1), who("b", 1), who("c", 1));
    let replaced = who("c", 2);
    let mut node = forming(a.clone(), &["b", "c"]);
    let old = [a.clone(), b.clone(), c];
    let new = [a.clone(), b.clone(), replaced.clone()];
    node.heard("b", Some(whole(b.clone(), &old)));
    node.heard("c", Some(whole(replaced.clone(), &new)));
    let step = node.step().expect("nobody is refused");
    let Step::Wait(waits) = step else {
        panic!("it does not wait: {step:?}");
    };
    assert!(matches!(&waits[..], [Wait::Differs(entry, ..)] if entry == "b"));
    node.heard("b", Some(whole(b, &new)));
    assert_eq!(node.step(), Ok(Step::Begin(new.into_iter().collect())));
    // It does not answer any more.
    node.heard("c", None);
    assert_eq!(
        node.step(),
        Ok(Step::Wait(vec![Wait::Silent("c".to_owned())]))
    );
}

#[test]
fn a_node_says_for_whom_it_waits() {
    let (a, b, c) = (who("a", 1), who("b", 1), who("c", 1));
    let waits = |heard: Vec<(&str, Hello)>| {
        let mut node = forming(b.clone(), &["left", "right"]);
        for (entry, hello) in heard {
            node.heard(entry, Some(hello));
        }
        match node.step() {
            Ok(Step::Wait(waits)) => waits.iter().map(ToString::to_string).collect(),
            other => vec![format!("{other:?}")],
        }
    };
    let all = [a.clone(), b.clone(), c.clone()];
    let some = |set: &[Who]| Hello {
        is_whole: false,
        ..whole(a.clone(), set)
    };
    let cases = [
        (
            vec![],
            vec!["nobody answers at left", "nobody answers at right"],
        ),
        (
            vec![("left", some(&all[..1])), ("right", whole(c.clone(), &all))],
            vec!["a at left waits for its peers"],
        ),
        (
            vec![
                ("left", whole(a.clone(), &all)),
                ("right", whole(c.clone(), &all)),
            ],
            vec!["a at left is to form the cluster"],
        ),
        (
            vec![
                ("left", whole(a.clone(), &all[..2])),
                (
                    "right",
                    whole(c.clone(), &[&all[..], &[who("d", 1)]].concat()),
                ),
            ],
            vec![
                "a at left has other peers: not c",
                "c at right has other peers: d too",
            ],
        ),
    ];
    for (heard, expected) in cases {
        let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(waits(heard), expected);
    }
}

#[test]
fn who_can_be_in_no_cluster_is_refused() {
    let (a, b) = (who("a", 1), who("b", 1));
    let mut node = forming(a.clone(), &["left", "right"]);
    // Itself, by an address that leads to it.
    node.heard("left", Some(whole(a.clone(), std::slice::from_ref(&a))));
    assert!(node.step().is_ok());
    let double = who("a", 2);
    node.heard("right", Some(whole(double.clone(), &[double])));
    let refused = node.step().expect_err("there are two of that name");
    assert_eq!(
        refused.to_string(),
        "two nodes are called a: this one and the one at right; each needs a cluster.node_id of its own"
    );
    let within = |who: &Who, cluster| Hello {
        cluster: Some(ClusterId(cluster)),
        ..whole(who.clone(), &[])
    };
    node.heard("left", Some(within(&b, 7)));
    node.heard("right", Some(within(&who("c", 1), 8)));
    assert_eq!(
        node.step(),
        Err(Refused::TwoClusters([
            ("left".to_owned(), ClusterId(7)),
            ("right".to_owned(), ClusterId(8)),
        ]))
    );
    node.heard("right", None);
    assert_eq!(node.step(), Ok(Step::Join("left".to_owned(), ClusterId(7))));
    assert_eq!(node.hello().set, BTreeSet::from([a, b]));
}
