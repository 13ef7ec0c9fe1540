//! All configurations to their depths, and bugs that the model has to find.

use super::configurations::CONFIGURATIONS;
use super::{Configuration, explore};
use henge_cluster::bugs::Bugs;

fn configuration(name: &str) -> &'static Configuration {
    let mut all = CONFIGURATIONS.iter();
    all.find(|known| known.name == name).expect("it is one")
}

/// A test for each configuration, so that they run beside each other.
macro_rules! hold {
    ($($test:ident $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                holds($name);
            }
        )*

        #[test]
        fn all_have_a_test() {
            let names: Vec<_> = CONFIGURATIONS.iter().map(|known| known.name).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

hold! {
    steady "steady",
    failover "failover",
    uncommitted "uncommitted",
    base "base",
    deposed "deposed",
    tails "tails",
    eviction "eviction",
    evicted "evicted",
    deleted "deleted",
    copy "copy",
    copy_failover "copy-failover",
    restart "restart",
    amnesia "amnesia",
    amnesia_votes "amnesia-votes",
    disks "disks",
    disks_failover "disks-failover",
    disks_copy "disks-copy",
    disks_reset "disks-reset",
    reset "reset",
    reset_late "reset-late",
    quorum_loss "quorum-loss",
    seed "seed",
    joint "joint",
    joint_failover "joint-failover",
    joint_undone "joint-undone",
}

fn holds(name: &str) {
    let configuration = configuration(name);
    let explored = explore(configuration, Bugs::default(), configuration.depth, 1);
    println!(
        "{name}: {} states, {} steps, depth {}",
        explored.states, explored.steps, explored.depth
    );
    if let Some((law, trace)) = explored.broken {
        panic!("it does not hold that {law}:\n{}", trace.join("\n"));
    }
    for what in configuration.reaches {
        assert!(
            explored.reached.contains(what),
            "it never happens that {what}"
        );
    }
}

/// A number, and where it is found.
const BUGS: [(u8, &str); 15] = [
    (1, "copy"),
    (2, "copy"),
    (3, "copy"),
    (4, "copy"),
    (5, "copy"),
    (7, "tails"),
    (10, "amnesia"),
    (12, "disks"),
    (13, "reset-late"),
    (14, "joint"),
    (15, "evicted"),
    (16, "deposed"),
    (18, "deposed"),
    (22, "tails"),
    (22, "disks"),
];

#[test]
fn planted_bugs_are_found() {
    for (bug, name) in BUGS {
        let configuration = configuration(name);
        let explored = explore(configuration, Bugs::only(bug), configuration.depth, 1);
        let Some((law, trace)) = explored.broken else {
            panic!("bug {bug} is not found from {name}");
        };
        println!(
            "| {bug} | {name} | {law} | {} | {} |",
            trace.len(),
            explored.states
        );
    }
}
