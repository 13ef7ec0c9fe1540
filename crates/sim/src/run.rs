//! One seed from its begin to its end: safety while faults come and go, then healing, and then everything has to come to rest:
//! every partition is open, every request is answered, every change is done, every replica has the same.

use crate::coverage::Coverage;
use crate::node::Node;
use crate::plan::{LONGEST_SAFETY_MS, Plan, Scenario};
use crate::store::Store;
use crate::world::{World, partition};
use henge_checker::Verdict;
use henge_cluster::bugs::Bugs;
use henge_cluster::replica::Table;
use henge_cluster::topology::State;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// So many operations have to have come to an answer, or a seed goes on.
const LEAST_COMPLETED: usize = 500;
/// So many faults, of so many kinds.
const LEAST_FAULTS: (u64, usize) = (5, 3);
/// After the last fault all is well within this time. Above some rounds of suspicion, fences, copies and a joint change.
const CALM_WITHIN_MS: u64 = 6_000;

/// The checker may look so long at a key, some hundredths of a second: a seed in ten thousand needs more.
const CHECKER_STEPS: u64 = 50_000;

/// What of a seed takes place.
#[derive(Clone, Debug)]
pub struct Options {
    /// The story.
    pub scenario: Scenario,
    /// Planted bugs.
    pub bugs: Bugs,
    /// Whether it is written down.
    pub is_traced: bool,
    /// A seed that has seen too little goes on.
    pub is_extended: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scenario: Scenario::Any,
            bugs: Bugs::default(),
            is_traced: false,
            is_extended: true,
        }
    }
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was seen.
    pub coverage: Coverage,
    /// Operations with an answer.
    pub completed: usize,
    /// Operations that were begun.
    pub operations: u64,
    /// How long it took, in the world's time.
    pub lasted_ms: u64,
    /// How much of that was under faults.
    pub safety_ms: u64,
    /// The checker gave up; all else was checked.
    pub is_undecided: bool,
    /// What failed: the place in the code, and what it says.
    pub failure: Option<(String, String)>,
    /// What happened.
    pub trace: String,
}

thread_local! {
    static PANIC: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// From here on a panic says nothing by itself; what it would have said is in the report.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |location| {
            format!("{}:{}", location.file(), location.line())
        });
        let payload = info.payload();
        let text = payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string));
        PANIC.with(|panic| *panic.borrow_mut() = Some((place, text.unwrap_or_default())));
    }));
}

/// Runs a plan.
pub fn run<S: Store>(plan: &Rc<Plan>, options: &Options) -> Report {
    let mut world = World::<S>::new(Rc::clone(plan), options.bugs, options.is_traced);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        world.live(options);
    }));
    let failure = outcome.err().map(|_| {
        let panic = PANIC.with(|panic| panic.borrow_mut().take());
        panic.unwrap_or_else(|| ("?".to_string(), "it panicked".to_string()))
    });
    let mut coverage = world.coverage.clone();
    for ledger in &world.ledgers {
        coverage.add(&ledger.borrow().coverage);
    }
    Report {
        coverage,
        completed: world.clients.completed,
        operations: world.clients.operations,
        lasted_ms: world.now_ms,
        safety_ms: world.healed_ms.unwrap_or(world.now_ms),
        is_undecided: world.is_undecided,
        failure,
        trace: world
            .trace
            .take()
            .map_or_else(String::new, |trace| trace.text),
    }
}

impl<S: Store> World<S> {
    fn live(&mut self, options: &Options) {
        let mut until_ms = self.plan.safety_ms;
        self.run_until(until_ms);
        while options.is_extended && !self.has_seen_enough() {
            until_ms += 100;
            assert!(
                until_ms < LONGEST_SAFETY_MS,
                "{} operations and {:?} faults are enough",
                self.clients.completed,
                self.coverage.faults()
            );
            self.run_until(until_ms);
        }
        self.heal();
        let healed_ms = self.now_ms;
        let calm_until_ms = healed_ms + CALM_WITHIN_MS;
        // A while of work without faults.
        self.run_until(healed_ms + 100);
        while let Some(missing) = self.is_served() {
            assert!(self.now_ms < calm_until_ms, "after healing {missing}");
            self.run_until(self.now_ms + 20);
        }
        self.is_closing = true;
        let calm_until_ms = self.now_ms + CALM_WITHIN_MS;
        while let Some(missing) = self.is_calm() {
            assert!(self.now_ms < calm_until_ms, "at the end {missing}");
            self.run_until(self.now_ms + 20);
        }
        self.compare();
        for (p, ledger) in self.ledgers.iter().enumerate() {
            let placement = self.topology.placement(partition(p));
            ledger.borrow_mut().check_losses(placement.generation);
        }
        self.judge();
    }

    fn has_seen_enough(&self) -> bool {
        let (count, kinds) = self.coverage.faults();
        self.clients.completed >= LEAST_COMPLETED
            && count >= LEAST_FAULTS.0
            && kinds >= LEAST_FAULTS.1
    }

    /// What is not well yet; nothing if all is.
    fn is_served(&self) -> Option<String> {
        for (&id, node) in self.topology.nodes() {
            if node.state != State::Up || node.amnesia > 0 {
                return Some(format!("node {id} is {node:?}"));
            }
        }
        for p in 0..self.plan.partitions {
            let placement = self.topology.placement(partition(p));
            let is_open = placement.leader.is_some_and(|(node, incarnation)| {
                let node = &self.nodes[node.0 as usize];
                node.incarnation == incarnation && node.opened[p] == placement.term
            });
            let planned = self.topology.moves().planned();
            let waits = planned.contains_key(&partition(p));
            if placement.change.is_some() || waits || !is_open {
                return Some(format!("partition {p} is {placement:?}"));
            }
        }
        None
    }

    /// What is not at rest yet.
    fn is_calm(&self) -> Option<String> {
        if let Some(missing) = self.is_served() {
            return Some(missing);
        }
        let waiting = self.clients.all.iter().find_map(|c| c.operation.as_ref());
        if let Some(operation) = waiting {
            return Some(format!("{operation:?} has no end"));
        }
        // Whoever asked has perhaps gone on, and a slow disk keeps the answer back until the deadline.
        if let Some(asked) = self.clients.asked.values().next() {
            return Some(format!("{asked:?} has no answer"));
        }
        for p in 0..self.plan.partitions {
            // A follower hears of it by the next beat.
            let has_unsettled =
                |node: &&Node<S>| node.is_running && !node.slots[p].unsettled.is_empty();
            if let Some(node) = self.nodes.iter().find(has_unsettled) {
                let unsettled = &node.slots[p].unsettled;
                return Some(format!("{}/{p} has not settled {unsettled:?}", node.id));
            }
            let placement = self.topology.placement(partition(p));
            let progress = |node: &henge_cluster::ring::NodeId| {
                let table = &self.nodes[node.0 as usize].slots[p].table;
                table.progress()
            };
            let first = progress(&placement.old[0]);
            for node in &placement.old {
                let other = progress(node);
                let is_same = other.last == first.last && other.commit == other.last.seq();
                if !is_same {
                    return Some(format!(
                        "{node}/{p} is at {other:?}, and {first:?} is another"
                    ));
                }
            }
        }
        None
    }

    /// Whether the answers can be those of registers that may forget.
    fn judge(&mut self) {
        let history = crate::history::history(&self.clients.done);
        match henge_checker::check_within(&history, CHECKER_STEPS) {
            Verdict::Holds => {}
            Verdict::Undecided { .. } => self.is_undecided = true,
            lies @ Verdict::Lies(_) => panic!("{lies}"),
        }
    }

    /// All replicas have the same, but for what they have dropped.
    fn compare(&self) {
        for p in 0..self.plan.partitions {
            let placement = self.topology.placement(partition(p));
            let newest = |node: &henge_cluster::ring::NodeId| {
                self.nodes[node.0 as usize].slots[p].table.newest()
            };
            for node in &placement.old {
                assert_eq!(
                    newest(node),
                    newest(&placement.old[0]),
                    "{node}/{p} has what the others have"
                );
            }
        }
    }
}
