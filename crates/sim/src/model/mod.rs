//! A model of the protocol: all that can happen to three or four replicas within some steps of where it becomes interesting,
//! each state once. The replicas are the machines of `henge-cluster` themselves; here is the world around them, which steps it
//! can take, and what must hold after each. `stateright` goes through the states, breadth first, so that what it finds is short.
//!
//! **The network** is a set. Nothing in it is ordered, and nothing has to arrive; so a loss needs no step of its own. In most
//! configurations it also keeps what has arrived, which may come again at any time: that is more than any connection does, and
//! there are fewer states, as it makes no difference what has come already. In those about disks a message comes once.
//!
//! **A node that is away** is one that nothing comes to, so only the starts are steps. A process that starts registers, and
//! hears of that, in the same step: it takes part in nothing before.
//!
//! **What is bounded**: requests, drops, starts, decisions and copies, for each configuration by numbers of its own. Copies are
//! sent in parts of one record.

pub mod agreed;
pub mod configurations;
pub mod laws;
pub mod local;
pub mod scene;
pub mod sealed;
pub mod steps;
pub mod table;
#[cfg(test)]
mod tests;
pub mod world;

use configurations::{CONFIGURATIONS, Configuration};
use henge_cluster::bugs::Bugs;
use stateright::{Checker, Expectation, HasDiscoveries, Model};
use std::time::Instant;

/// What was found.
#[derive(Debug)]
pub struct Explored {
    /// States that differ.
    pub states: usize,
    /// Steps that lead from one to another.
    pub steps: usize,
    /// The most steps from the start.
    pub depth: usize,
    /// A law that was broken, and the steps to that.
    pub broken: Option<(&'static str, Vec<String>)>,
    /// What happened somewhere.
    pub reached: Vec<&'static str>,
}

/// Explores all up to so many steps from the start, unless a law is broken before. With more than one thread the states come
/// in some other order, and at the far end a few may be left out.
pub fn explore(
    configuration: &'static Configuration,
    bugs: Bugs,
    depth: usize,
    threads: usize,
) -> Explored {
    let protocol = scene::protocol(configuration, bugs);
    let properties = protocol.properties();
    // The start counts as 1, and what is at the bound is looked at no more.
    let bound = depth.saturating_add(2);
    let checker = protocol
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_max_depth(bound)
        .spawn_bfs()
        .join();
    let mut broken = None;
    let mut reached = Vec::new();
    let mut found = checker.discoveries();
    for property in properties {
        let Some(path) = found.remove(property.name) else {
            continue;
        };
        if property.expectation == Expectation::Sometimes {
            reached.push(property.name);
        } else {
            let actions = path.into_actions();
            let trace = actions.iter().map(|action| format!("{action:?}"));
            broken = Some((property.name, trace.collect()));
        }
    }
    Explored {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: (checker.max_depth() - 1).min(depth),
        broken,
        reached,
    }
}

/// What somebody wants to know.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of which configuration; of all where none is named.
    pub configuration: Option<String>,
    /// Up to how many steps; to that of CI where none is given.
    pub depth: Option<usize>,
    /// With a planted bug.
    pub bugs: Bugs,
    /// How many threads look.
    pub threads: usize,
}

/// Explores, and says in lines what is found. Gives whether all laws hold; no where there is no such configuration.
pub fn run(wanted: &Wanted, say: &mut dyn FnMut(String)) -> bool {
    let name = wanted.configuration.as_deref();
    let is_wanted = |known: &&Configuration| name.is_none_or(|name| name == known.name);
    if !CONFIGURATIONS.iter().any(|known| is_wanted(&known)) {
        let names: Vec<_> = CONFIGURATIONS.iter().map(|known| known.name).collect();
        say(format!(
            "there is no such configuration; there are {}",
            names.join(", ")
        ));
        return false;
    }
    let mut all_hold = true;
    say("configuration     depth     states      steps  seconds  it happens that".to_owned());
    for configuration in CONFIGURATIONS.iter().filter(is_wanted) {
        let depth = wanted.depth.unwrap_or(configuration.depth);
        let begin = Instant::now();
        let explored = explore(configuration, wanted.bugs, depth, wanted.threads);
        say(format!(
            "{:16} {:>5}{} {:>10} {:>10} {:>8.1}  {}",
            configuration.name,
            explored.depth,
            // There is nothing further away.
            if explored.broken.is_none() && explored.depth < depth {
                "."
            } else {
                " "
            },
            explored.states,
            explored.steps,
            begin.elapsed().as_secs_f64(),
            explored.reached.join(", ")
        ));
        if let Some((law, trace)) = explored.broken {
            all_hold = false;
            say(format!("  it does not hold that {law}:"));
            for step in trace {
                say(format!("    {step}"));
            }
        }
    }
    all_hold
}
