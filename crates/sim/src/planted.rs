//! Which seeds find a planted bug: the same for each way in which chance makes a world.

use henge_cluster::bugs::Bugs;
use std::ops::Range;
use std::panic::catch_unwind;

/// All that a world can be made to lie by.
pub(crate) const ALL: [u8; 18] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 22,
];

/// What is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    /// Answers and invariants.
    All,
    /// What clients are told, and nothing else.
    Answers,
}

/// Runs a seed, and says what is wrong with it.
pub(crate) type Run = fn(u64, Bugs, Look) -> Option<String>;

/// What is wrong with a seed; a panic is as good as anything.
fn try_one(run: Run, seed: u64, bugs: Bugs, look: Look) -> Option<String> {
    catch_unwind(|| run(seed, bugs, look)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Some(text.unwrap_or_default())
    })
}

/// Asserts that seeds find each of these.
pub(crate) fn are_found(run: Run, bugs: &[u8], seeds: Range<u64>, look: Look) {
    for &bug in bugs {
        let bugs = Bugs::only(bug);
        let mut tried = seeds.clone();
        let found = tried.any(|seed| try_one(run, seed, bugs, look).is_some());
        assert!(found, "no seed of {seeds:?} finds bug {bug}");
    }
}

/// Asserts that seeds without a bug are without a fault.
pub(crate) fn are_well(run: Run, seeds: Range<u64>) {
    for seed in seeds {
        let found = try_one(run, seed, Bugs::default(), Look::All);
        assert!(
            found.is_none(),
            "seed {seed}: {}",
            found.unwrap_or_default()
        );
    }
}

/// How many seeds find each of these, and what the first of them says. Bug 0 is none.
pub(crate) fn count(run: Run, bugs: &[u8], seeds: u64) -> String {
    let mut table = Vec::new();
    for &bug in bugs {
        let planted = if bug == 0 {
            Bugs::default()
        } else {
            Bugs::only(bug)
        };
        for look in [Look::All, Look::Answers] {
            let tried = (0..seeds).map(|seed| (seed, try_one(run, seed, planted, look)));
            let found = tried.filter_map(|(seed, found)| Some((seed, found?)));
            let found: Vec<(u64, String)> = found.collect();
            let count = found.len();
            table.push(format!("bug {bug}, {look:?}: {count} of {seeds}"));
            if let Some((seed, first)) = found.first() {
                table.push(format!("  seed {seed}: {first}"));
            }
        }
    }
    table.join("\n")
}
