//! Many seeds, each a world of its own, over the cores of the machine. What comes out does not depend on how many those are.

use crate::coverage::Coverage;
use crate::plan::Plan;
use crate::run::{Options, Report, run};
use crate::store::Store;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What came of them.
#[derive(Clone, Default, Debug)]
pub struct Swept {
    /// How many were run.
    pub seeds: u64,
    /// Operations with an answer.
    pub completed: usize,
    /// Seeds of which the checker has not judged every key.
    pub undecided: u64,
    /// Faults that took place.
    pub faults: u64,
    /// What was seen.
    pub coverage: Coverage,
    /// Seeds that failed, and how.
    pub failures: Vec<(u64, Report)>,
}

/// Runs so many seeds from one on, until so many of them have failed.
pub fn sweep<S: Store>(
    from: u64,
    count: u64,
    most_failures: usize,
    threads: usize,
    options: &Options,
) -> Swept {
    let next = AtomicU64::new(from);
    let swept = Mutex::new(Swept::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let plan = Rc::new(Plan::new(seed, options.scenario));
                    let report = run::<S>(&plan, options);
                    let mut swept = swept.lock().expect("nothing panics under it");
                    swept.seeds += 1;
                    swept.undecided += u64::from(report.is_undecided);
                    swept.completed += report.completed;
                    swept.faults += report.coverage.faults().0;
                    swept.coverage.add(&report.coverage);
                    if report.failure.is_some() {
                        swept.failures.push((seed, report));
                        if swept.failures.len() >= most_failures {
                            next.store(from + count, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mut swept = swept.into_inner().expect("all threads have ended");
    swept.failures.sort_by_key(|&(seed, _)| seed);
    swept
}
