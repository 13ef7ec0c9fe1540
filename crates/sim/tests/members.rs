//! Members of small clusters converge in simulated time, by each way of joining; what they send grows no faster than the
//! logarithm of their number; and a seed is the same twice. Larger ones are run by the binary `members`.

use henge_sim::membership::{Plan, Report, grows_faster_than_log, run};

fn plan(seed: u64, members: usize) -> Plan {
    Plan {
        seed,
        members,
        lost: members.div_ceil(10),
        rest_ms: 30_000,
        is_one_by_one: false,
        is_disturbed: members < 30,
    }
}

fn found(plan: &Plan) -> Report {
    match run(plan) {
        Ok(report) => report,
        Err(failure) => panic!("{plan:?}: {failure}"),
    }
}

#[test]
fn they_converge_and_bytes_grow_slowly() {
    let sizes = [3, 12, 25, 50];
    let rates = sizes.map(|members| {
        let report = found(&plan(1, members));
        println!("{members} members: {report:?}");
        (members, report.rest)
    });
    // With three each hears of the two others only, and there are no loads that wait.
    assert_eq!(grows_faster_than_log(&rates[1..]), None);
}

#[test]
fn many_seeds_of_few() {
    for seed in 1..=12 {
        let plan = Plan {
            is_one_by_one: seed % 2 == 0,
            rest_ms: 5_000,
            lost: seed as usize % 3 + 1,
            ..plan(seed, 4 + seed as usize)
        };
        found(&plan);
    }
}

#[test]
fn two_hundred_lose_twenty() {
    let report = found(&Plan {
        rest_ms: 5_000,
        ..plan(1, 200)
    });
    println!("{report:?}");
}

#[test]
fn a_seed_is_the_same_twice() {
    let plan = plan(7, 9);
    assert_eq!(run(&plan), run(&plan));
}
