//! Calls that this house does not make, each with what it does instead and where it is right after all.

use super::Finding;
use super::source::Source;

/// One banned call.
struct Ban {
    /// As it stands in code, after rustfmt.
    call: &'static str,
    /// What is wrong with it, and after `; ` what to do instead.
    instead: &'static str,
    /// The folders it is banned in; empty for everywhere.
    within: &'static [&'static str],
    /// Whether tests may make it.
    tests_may: bool,
    /// Files and folders it is right in, each with the reason.
    allowed: &'static [(&'static str, &'static str)],
}

/// What ships, as opposed to the chores.
const CRATES: &[&str] = &["crates/"];
/// What must behave alike for a seed.
const PURE: &[&str] = &["crates/wire/", "crates/engine/", "crates/cluster/"];

const BANS: &[Ban] = &[
    Ban {
        call: "todo!(",
        instead: "a panic in place of a feature; leave the feature out until it works",
        within: &[],
        tests_may: false,
        allowed: &[],
    },
    Ban {
        call: "unimplemented!(",
        instead: "a panic in place of a feature; return an error that the user can act on, or leave it out",
        within: &[],
        tests_may: false,
        allowed: &[],
    },
    Ban {
        call: "dbg!(",
        instead: "left over from a search for a bug; take it out, or log with tracing",
        within: &[],
        tests_may: false,
        allowed: &[],
    },
    Ban {
        call: "#[ignore",
        instead: "a test that nobody runs; make it fast and steady, or delete it",
        within: &[],
        tests_may: false,
        allowed: &[],
    },
    Ban {
        call: "thread::sleep",
        instead: "waits for luck; wait for the event itself with a deadline, or advance the time that is an argument",
        within: &[],
        tests_may: false,
        allowed: SLEEPERS,
    },
    Ban {
        call: "time::sleep",
        instead: "waits for luck; wait for the event with tokio::time::timeout, or tick with tokio::time::interval",
        within: &[],
        tests_may: false,
        allowed: SLEEPERS,
    },
    Ban {
        call: "process::exit",
        instead: "runs no destructor and cannot be tested; return an error or an ExitCode up to main",
        within: &[],
        tests_may: false,
        allowed: &[
            ("crates/henge/src/main.rs", "the process is main's to end"),
            (
                "crates/henge/src/cli/",
                "as main: the command line decides on the exit code",
            ),
            ("xtask/src/main.rs", "the process is main's to end"),
        ],
    },
    Ban {
        call: "println!(",
        instead: "prints from a library; log with tracing, or return what is to be shown",
        within: CRATES,
        tests_may: true,
        allowed: PRINTERS,
    },
    Ban {
        call: "eprintln!(",
        instead: "prints from a library; log with tracing, or return what is to be shown",
        within: CRATES,
        tests_may: true,
        allowed: PRINTERS,
    },
    Ban {
        call: ".unwrap()",
        instead: "panics without a word; return an error, or expect(\"why this cannot fail\")",
        within: CRATES,
        tests_may: true,
        allowed: EXAMPLES,
    },
    Ban {
        call: "HashMap::new",
        instead: "seeds itself at random; take the seed as an argument, or use a BTreeMap",
        within: PURE,
        tests_may: false,
        allowed: &[],
    },
    Ban {
        call: "HashSet::new",
        instead: "seeds itself at random; take the seed as an argument, or use a BTreeSet",
        within: PURE,
        tests_may: false,
        allowed: &[],
    },
    Ban {
        call: "RandomState",
        instead: "seeds itself at random; use foldhash::SeedableRandomState with a seed that is an argument",
        within: PURE,
        tests_may: false,
        allowed: &[],
    },
];

/// Who may sleep.
const SLEEPERS: &[(&str, &str)] = &[(
    "crates/henge/src/housekeeping.rs",
    "the pace of a loop, not a wait for something; an interval could not follow a setting that a reload changes",
)];

/// Who may print.
const PRINTERS: &[(&str, &str)] = &[
    (
        "crates/henge/src/main.rs",
        "prints why the start failed, before there is a log",
    ),
    (
        "crates/henge/src/cli/",
        "its output is what the user asked for",
    ),
    (
        "crates/henge/build.rs",
        "what a build script prints is how it tells cargo",
    ),
    (
        "crates/sim/src/main.rs",
        "its output is what whoever started it asked for",
    ),
    (
        "crates/sim/src/bin/",
        "its output is what whoever started it asked for",
    ),
    ("crates/cluster/benches/", "a bench prints its figures"),
    ("crates/engine/benches/", "a bench prints its figures"),
    ("crates/henge/benches/", "a bench prints its figures"),
];

/// Who may unwrap although it is not under `cfg(test)`.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "crates/engine/benches/",
        "a bench that fails may stop where it stands",
    ),
    (
        "crates/henge/benches/",
        "a bench that fails may stop where it stands",
    ),
];

/// Every banned call of a file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let under = |folder: &str| source.path.starts_with(folder);
    let mut findings = Vec::new();
    for ban in BANS {
        if !ban.within.is_empty() && !ban.within.iter().any(|folder| under(folder)) {
            continue;
        }
        if ban.allowed.iter().any(|(place, _)| under(place)) {
            continue;
        }
        for (line, in_test) in source.find_in_code(ban.call) {
            if !(in_test && ban.tests_may) {
                let call = ban.call.trim_end_matches('(');
                findings.push(Finding::new(
                    source.path,
                    line,
                    format!("`{call}` {}", ban.instead),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banned_calls_are_found_where_they_are_banned() {
        // (path, text, the lines and calls that are found)
        type Case<'a> = (&'a str, &'a str, &'a [(usize, &'a str)]);
        let table: &[Case] = &[
            (
                "crates/wire/src/a.rs",
                "fn f() {\n    todo!()\n}",
                &[(2, "`todo!`")],
            ),
            (
                "xtask/src/a.rs",
                "unimplemented!(\"x\")",
                &[(1, "`unimplemented!`")],
            ),
            ("xtask/src/a.rs", "dbg!(x)", &[(1, "`dbg!`")]),
            (
                "crates/a/tests/a.rs",
                "#[ignore = \"slow\"]",
                &[(1, "`#[ignore`")],
            ),
            ("crates/a/src/a.rs", "// todo!() and \"dbg!(\"", &[]),
            ("crates/a/src/a.rs", "let s = \"todo!(\";", &[]),
            (
                "crates/a/tests/a.rs",
                "std::thread::sleep(d)",
                &[(1, "`thread::sleep`")],
            ),
            (
                "crates/a/src/a.rs",
                "use tokio::time::sleep;",
                &[(1, "`time::sleep`")],
            ),
            ("crates/a/src/a.rs", "tokio::time::sleep_until(d)", &[]),
            (
                "crates/henge/src/node.rs",
                "std::process::exit(1)",
                &[(1, "`process::exit`")],
            ),
            ("crates/henge/src/main.rs", "std::process::exit(1)", &[]),
            ("crates/henge/src/cli/serve.rs", "process::exit(1)", &[]),
            (
                "crates/engine/src/a.rs",
                "println!(\"x\")",
                &[(1, "`println!`")],
            ),
            (
                "crates/henge/src/net/a.rs",
                "eprintln!(\"x\")",
                &[(1, "`eprintln!`")],
            ),
            ("crates/henge/src/cli/a.rs", "println!(\"x\")", &[]),
            (
                "crates/engine/src/a.rs",
                "#[cfg(test)]\nmod tests { fn f() { println!(\"skipped\") } }",
                &[],
            ),
            ("xtask/src/a.rs", "println!(\"x\")", &[]),
            ("crates/wire/src/a.rs", "x.unwrap()", &[(1, "`.unwrap()`")]),
            ("crates/wire/src/a.rs", "x.unwrap_or(y)", &[]),
            (
                "crates/wire/src/a.rs",
                "/// x.unwrap()\n#[cfg(test)]\nmod tests { fn f() { x.unwrap() } }",
                &[],
            ),
            ("crates/wire/tests/a.rs", "x.unwrap()", &[]),
            (
                "crates/engine/src/a.rs",
                "HashMap::new()",
                &[(1, "`HashMap::new`")],
            ),
            (
                "crates/engine/tests/a.rs",
                "HashSet::new()",
                &[(1, "`HashSet::new`")],
            ),
            (
                "crates/engine/src/a.rs",
                "RandomState::new()",
                &[(1, "`RandomState`")],
            ),
            (
                "crates/engine/src/a.rs",
                "SeedableRandomState::with_seed(seed)",
                &[],
            ),
            ("crates/henge/src/a.rs", "HashMap::new()", &[]),
            ("docs/a.md", "todo!() .unwrap()", &[]),
        ];
        for (path, text, expected) in table {
            let found = check(&Source::new(path, text));
            assert_eq!(found.len(), expected.len(), "{path} {text:?}: {found:?}");
            for (finding, (line, call)) in found.iter().zip(*expected) {
                assert_eq!(finding.line, *line, "{path} {text:?}");
                assert!(
                    finding.message.starts_with(call),
                    "{path} {text:?}: {finding}"
                );
            }
        }
    }
}
