//! Tables of what was found and what is to be said of it.

use super::Verdict::{Bad, Ok as Fine, Unknown, Warn};
use super::*;

fn unknown<T>() -> Known<T> {
    Err("no such file".to_owned())
}

fn verdicts(checks: impl IntoIterator<Item = Check>) -> Vec<Verdict> {
    let checks = checks.into_iter().inspect(|check| {
        let is_right = matches!(check.verdict, Warn | Bad);
        assert_eq!(check.change.is_some(), is_right, "{check:?}");
        assert!(
            !check.expected.is_empty() && !check.found.is_empty(),
            "{check:?}"
        );
    });
    checks.map(|check| check.verdict).collect()
}

#[test]
fn of_the_system() {
    let found = [None, Some(50_512), Some(50_511), Some(1_024), Some(1_023)];
    let checks = found.map(|hard| open_files(hard, 50_000));
    assert_eq!(verdicts(checks), [Fine, Fine, Warn, Warn, Bad]);
    assert_eq!(verdicts([open_files(Some(600), 10)]), [Fine]);
    let line = "always [madvise] never".to_owned();
    let check = huge_pages(&Ok(line));
    assert_eq!((check.verdict, &*check.found), (Fine, "madvise"));
    assert_eq!(verdicts([huge_pages(&unknown())]), [Unknown]);
    let found = [Ok(0), Ok(1), Ok(2), unknown()];
    assert_eq!(
        verdicts(found.map(|mode| overcommit(&mode))),
        [Fine, Fine, Warn, Unknown]
    );
    let of = |total_bytes, swappiness| {
        Ok(Swap {
            total_bytes,
            swappiness,
        })
    };
    let found = [of(0, 60), of(1 << 30, 10), of(1 << 30, 60), unknown()];
    assert_eq!(
        verdicts(found.map(|found| swap(&found))),
        [Fine, Fine, Warn, Unknown]
    );
    let found = [75, 76, 90, 91, 200].map(|size| memory(size << 20, &Ok((100 << 20, "cgroup"))));
    assert_eq!(verdicts(found), [Fine, Warn, Warn, Bad, Bad]);
    assert_eq!(verdicts([memory(1, &unknown())]), [Unknown]);
    let found = [Ok(4_096), Ok(128), unknown()];
    assert_eq!(
        verdicts(found.map(|most| backlog(&most, 4_096))),
        [Fine, Warn, Unknown]
    );
    let found = [Ok("tsc".to_owned()), Ok("hpet".to_owned()), unknown()];
    assert_eq!(
        verdicts(found.map(|source| clock_source(&source))),
        [Fine, Warn, Unknown]
    );
}

#[test]
fn of_the_disk() {
    let of = |is_there, is_ours, mode, not_writable: Option<&str>| {
        place(&Ok(Place {
            path: "data".to_owned(),
            is_there,
            is_ours,
            mode,
            not_writable: not_writable.map(str::to_owned),
        }))
    };
    let checks = [
        of(true, true, 0o700, None),
        of(true, true, 0o755, None),
        of(false, true, 0o700, None),
        of(true, false, 0o755, None),
        of(true, true, 0o770, None),
        of(true, true, 0o700, Some("read-only")),
        place(&Err("it is a file".to_owned())),
    ];
    assert_eq!(verdicts(checks), [Fine, Fine, Fine, Warn, Warn, Bad, Bad]);

    let millis = Duration::from_millis;
    for (sync, median, worst, verdict) in [
        (SyncPolicy::Always, 2, 20, Fine),
        (SyncPolicy::Always, 11, 20, Warn),
        (SyncPolicy::Always, 2, 101, Warn),
        (SyncPolicy::Always, 101, 101, Bad),
        (SyncPolicy::Interval, 50, 900, Fine),
        (SyncPolicy::Interval, 150, 900, Warn),
        (SyncPolicy::Interval, 50, 1_100, Warn),
        (SyncPolicy::Interval, 1_100, 1_100, Bad),
        (SyncPolicy::Never, 5_000, 9_000, Fine),
    ] {
        let speed = Speed {
            times: 32,
            median: millis(median),
            worst: millis(worst),
        };
        let check = disk_speed(&Ok(speed), sync, millis(1_000));
        assert_eq!(verdicts([check]), [verdict], "{sync:?} {median} {worst}");
    }
    assert_eq!(
        verdicts([disk_speed(&unknown(), SyncPolicy::Never, millis(1))]),
        [Unknown]
    );

    let of = |free_bytes, own_bytes| {
        disk_space(
            &Ok(Space {
                free_bytes,
                own_bytes,
            }),
            100,
        )
    };
    assert_eq!(
        verdicts([
            of(300, 0),
            of(200, 100),
            of(200, 99),
            of(50, 50),
            of(50, 49)
        ]),
        [Fine, Fine, Warn, Warn, Bad]
    );
    assert_eq!(verdicts([disk_space(&unknown(), 100)]), [Unknown]);

    assert_eq!(file("tls.key_file", &Ok(None)), None);
    let checks = [
        Ok(Some("k.pem".to_owned())),
        Err("others may read it".to_owned()),
    ];
    assert_eq!(
        verdicts(checks.iter().filter_map(|read| file("tls.key_file", read))),
        [Fine, Bad]
    );
}

#[test]
fn of_ports_and_peers() {
    let owner = |name: &str| Owner {
        name: name.to_owned(),
        process: 7,
    };
    let taken = Err("it is in use".to_owned());
    let checks = [
        port("server.listen", ":1", &Ok(()), None),
        port("server.listen", ":1", &taken, Some(&owner("henge"))),
        port("server.listen", ":1", &taken, Some(&owner("nginx"))),
        port("server.listen", ":1", &taken, None),
    ];
    assert_eq!(checks[2].found, ":1 is in use by nginx (process 7)");
    assert_eq!(verdicts(checks), [Fine, Fine, Bad, Bad]);
    let checks = [
        peer("h:1", &Ok(Duration::from_millis(1))),
        peer("h:1", &Err("refused".to_owned())),
    ];
    assert_eq!(verdicts(checks), [Fine, Warn]);
}

#[test]
fn of_nodes_that_run() {
    let word = |is_ready, word: &str| Ok((is_ready, word.to_owned()));
    let checks = [
        word(true, "ready"),
        word(false, "loading"),
        Err("refused".to_owned()),
    ];
    assert_eq!(
        verdicts(checks.map(|said| readiness("n1", &said))),
        [Fine, Bad, Bad]
    );
    let named = |versions: &[&str]| -> Vec<_> {
        versions
            .iter()
            .map(|version| ("n".to_owned(), (*version).to_owned()))
            .collect()
    };
    assert_eq!(versions(&[]), None);
    let checks = [named(&["1", "1"]), named(&["1", "2"])];
    assert_eq!(
        verdicts(checks.iter().filter_map(|said| versions(said))),
        [Fine, Warn]
    );
}

#[test]
fn of_clocks() {
    let of = |bounds: &[(f64, f64)]| {
        let named: Vec<_> = bounds
            .iter()
            .enumerate()
            .map(|(nth, &(least_ms, most_ms))| {
                (format!("n{nth}"), Ok(ClockBounds { least_ms, most_ms }))
            })
            .collect();
        clocks(&named)
    };
    assert_eq!(of(&[]), None);
    // All are off this machine's clock by an hour, and agree: it is this one that is wrong.
    let hour = 3_600_000.0;
    for (bounds, verdict) in [
        (&[(-50.0, 60.0)][..], Fine),
        (&[(600.0, 700.0)], Warn),
        (&[(hour, hour + 100.0), (hour - 40.0, hour + 60.0)], Fine),
        // They may be half a second apart and more, but need not.
        (&[(0.0, 400.0), (600.0, 1_000.0)], Fine),
        (&[(0.0, 100.0), (50.0, 90.0), (601.0, 700.0)], Warn),
        (&[(0.0, 100.0), (6_000.0, 6_100.0)], Bad),
    ] {
        let check = of(bounds).expect("there are some");
        assert_eq!(verdicts([check]), [verdict], "{bounds:?}");
    }
    let check = of(&[(0.0, 100.0), (6_000.0, 6_100.0)]).expect("there are some");
    assert!(
        check
            .found
            .ends_with("n0 +50 ms ± 50 ms, n1 +6050 ms ± 50 ms"),
        "{}",
        check.found
    );
    assert!(
        check
            .change
            .is_some_and(|change| change.ends_with("n0 and n1 are 5900 ms apart at least"))
    );
    let unknown = [("n0".to_owned(), Err("no date".to_owned()))];
    assert_eq!(clocks(&unknown).map(|check| check.verdict), Some(Unknown));
}
