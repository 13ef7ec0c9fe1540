//! Makes a failure small: fewer faults, fewer clients, fewer operations, shorter faults, as long as it fails at the same place in
//! the code. A plan that is made smaller is run from its begin, so each try is as deterministic as a seed is; they are counted,
//! not timed, so the same failure always comes out the same.

use crate::plan::{Event, Plan};
use crate::run::{Options, Report, run};
use crate::store::Store;
use std::rc::Rc;

/// So many runs are tried. A run takes some milliseconds.
const TRIES: usize = 800;

struct Shrinking<'a> {
    options: Options,
    /// Where it fails.
    place: &'a str,
    best: Plan,
    left: usize,
}

/// The smallest plan that was found, and how it went.
pub fn shrink<S: Store>(plan: &Plan, report: &Report, options: &Options) -> (Plan, Report) {
    let Some((place, _)) = &report.failure else {
        return (plan.clone(), report.clone());
    };
    let mut best = plan.clone();
    best.faults.retain(|event| event.at_ms <= report.lasted_ms);
    best.operations = report.operations;
    let mut shrinking = Shrinking {
        options: Options {
            is_extended: false,
            is_traced: false,
            ..options.clone()
        },
        place,
        best,
        left: TRIES,
    };
    shrinking.find_end::<S>(plan, report);
    loop {
        let before = shrinking.size();
        shrinking.drop_faults::<S>();
        shrinking.drop_clients::<S>();
        shrinking.drop_operations::<S>();
        shrinking.shorten_faults::<S>();
        if shrinking.size() == before || shrinking.left == 0 {
            break;
        }
    }
    let best = Rc::new(shrinking.best);
    let traced = Options {
        is_traced: true,
        ..shrinking.options
    };
    let report = run::<S>(&best, &traced);
    (Rc::unwrap_or_clone(best), report)
}

impl Shrinking<'_> {
    fn size(&self) -> (usize, usize, u64, u64) {
        let lasts = self.best.faults.iter().map(|event| event.for_ms).sum();
        let silent = self.best.silent.len();
        (self.best.faults.len(), silent, self.best.operations, lasts)
    }

    /// Takes a plan if it fails as well.
    fn try_this<S: Store>(&mut self, plan: Plan) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let plan = Rc::new(plan);
        let report = run::<S>(&plan, &self.options);
        let is_same = report.failure.is_some_and(|(place, _)| place == self.place);
        if is_same {
            self.best = Rc::unwrap_or_clone(plan);
        }
        is_same
    }

    /// Safety lasts no longer than it takes to fail; where it failed after that, as long as it did.
    fn find_end<S: Store>(&mut self, plan: &Plan, report: &Report) {
        for safety_ms in [report.safety_ms, report.lasted_ms, plan.safety_ms] {
            let plan = Plan {
                safety_ms,
                ..self.best.clone()
            };
            if self.try_this::<S>(plan) {
                return;
            }
        }
        self.best.safety_ms = report.safety_ms;
    }

    /// Delta debugging: ever smaller runs of faults are left out.
    fn drop_faults<S: Store>(&mut self) {
        let mut run = self.best.faults.len().div_ceil(2);
        while run > 0 {
            let mut from = 0;
            while from < self.best.faults.len() {
                let mut plan = self.best.clone();
                let to = (from + run).min(plan.faults.len());
                plan.faults.drain(from..to);
                if !self.try_this::<S>(plan) {
                    from += run;
                }
            }
            run /= 2;
        }
    }

    fn drop_clients<S: Store>(&mut self) {
        for client in 0..self.best.clients {
            if !self.best.silent.contains(&client) {
                let mut plan = self.best.clone();
                plan.silent.push(client);
                self.try_this::<S>(plan);
            }
        }
    }

    fn drop_operations<S: Store>(&mut self) {
        let mut fails = self.best.operations;
        let mut holds = 0;
        while holds + 1 < fails {
            let plan = Plan {
                operations: u64::midpoint(holds, fails),
                ..self.best.clone()
            };
            let operations = plan.operations;
            if self.try_this::<S>(plan) {
                fails = operations;
            } else {
                holds = operations;
            }
        }
    }

    fn shorten_faults<S: Store>(&mut self) {
        for place in 0..self.best.faults.len() {
            while self.best.faults[place].for_ms > 10 {
                let mut plan = self.best.clone();
                let Event { for_ms, .. } = &mut plan.faults[place];
                *for_ms /= 2;
                if !self.try_this::<S>(plan) {
                    break;
                }
            }
        }
    }
}
