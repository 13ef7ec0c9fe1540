//! The log and snapshots on a disk that fails: whatever happens, a recovery gives what the log had at some moment, with all
//! that was synced, or says what is wrong.

mod commands;
mod crashes;
mod damage;
mod disk;
mod encryption;
mod faults;
pub(crate) mod golden;
pub(crate) mod keys;
mod machine;
mod model;
mod random;
mod recover;
mod replay;
mod replicas;
mod snapshots;

/// Runs a test with as many seeds, or with the one in the environment; one that fails is printed. Says whether all were run.
#[expect(clippy::disallowed_methods, reason = "a test that failed is run again")]
fn for_seeds(count: u64, mut test: impl FnMut(u64)) -> bool {
    let given = std::env::var("HENGE_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("HENGE_SEED is a number"));
    for seed in given.map_or(0..count, |seed: u64| seed..seed + 1) {
        let _printed = Printed(seed);
        test(seed);
    }
    given.is_none()
}

/// A seed, which is printed if the test fails.
struct Printed(u64);

impl Drop for Printed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("again with HENGE_SEED={}", self.0);
        }
    }
}
