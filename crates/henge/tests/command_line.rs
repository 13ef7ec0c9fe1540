//! The binary's exit codes, and on which stream it says what: what shells and supervisors rely on.

use std::process::{Command, Output};

fn henge(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_henge"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("the binary of this build runs")
}

#[test]
fn what_is_asked_for_goes_to_standard_output() {
    let cases: &[(&[&str], &str)] = &[
        (&["--version"], "henge "),
        (&["--help"], "A distributed cache"),
        (
            &["config", "check", "-policy=lfu"],
            "configuration is valid: ",
        ),
        (
            &["config", "print"],
            "[server]\nlisten = \":8080\"  # default\n",
        ),
        (&["config", "print", "--json"], "{\n  \"server.listen\": "),
    ];
    for (arguments, start) in cases {
        let output = henge(arguments, &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with(start), "{arguments:?}: {text}");
        assert_eq!(output.stderr, b"", "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn errors_are_one_line_on_standard_error_and_exit_2() {
    // Arguments, an environment, and the start of the line.
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        (
            &["--prot=1"],
            &[],
            "henge: unexpected argument '--prot' found",
        ),
        (
            &["--peers", "a"],
            &[],
            "henge: flag --peers: cluster.peers: found \"a\", expected up to 64 addresses",
        ),
        (
            &["-max-items", "0"],
            &[],
            "henge: flag --max-items: cache.max_items: found \"0\"",
        ),
        (
            &["config", "check"],
            &[("HENGE_A__B", "1")],
            "henge: environment HENGE_A__B: unknown",
        ),
        (
            &["config"],
            &[],
            "henge: 'henge config' requires a subcommand",
        ),
    ];
    for (arguments, environment, start) in cases {
        let output = henge(arguments, environment);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.starts_with(start), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn several_errors_are_a_list() {
    let environment = [("HENGE_LOG__LEVEL", "loud")];
    let output = henge(&["config", "check", "--policy", "x"], &environment);
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], "henge: 2 errors in the configuration:");
    assert!(lines[1].starts_with("  environment HENGE_LOG__LEVEL: log.level: found \"loud\""));
    assert!(lines[2].starts_with("  flag --policy: cache.policy: found \"x\""));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_simulation_prints_a_table_or_says_what_is_wrong_with_the_trace() {
    let folder = std::env::temp_dir().join(format!("henge-simulate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let trace = folder.join("loop.csv");
    let mut lines = vec!["time,key,size".to_owned()];
    lines.extend((0..60).map(|n| format!("{n},k{},100", n % 6)));
    std::fs::write(&trace, lines.join("\n")).expect("written");
    let trace = trace.to_str().expect("UTF-8").to_owned();
    let output = henge(&["simulate", &trace, "--capacity", "5,6,1MiB"], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        lines[0],
        format!("{trace}: 60 accesses, 6 keys; hits in percent")
    );
    assert_eq!(lines[2], "capacity       5       6    1MiB");
    assert_eq!(lines[3], "lru         0.00   90.00   90.00");
    assert_eq!(lines[10], "best       73.33   90.00       -");
    let again = henge(&["simulate", &trace, "--capacity", "5,6,1MiB"], &[]);
    assert_eq!(output.stdout, again.stdout);

    std::fs::write(&trace, "0,a,1\n1,b\n").expect("written");
    let output = henge(&["simulate", &trace, "--capacity=5"], &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    let start =
        format!("henge: {trace}:2: found \"1,b\", expected three columns, time, key and size");
    assert!(text.starts_with(&start), "{text}");
    assert_eq!(output.status.code(), Some(1));
    std::fs::remove_dir_all(&folder).expect("removed");
}
