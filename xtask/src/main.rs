//! The chores of the workspace, as `cargo xtask <chore>`: one table of chores, and the dispatch over it.
//!
//! A chore lives in a file of its own. There is no argument parser here: a chore reads its own few arguments.

mod accept;
mod bench;
mod tidy;

use std::env;
use std::process::ExitCode;

/// One chore: its name on the command line, a line of help, and what runs it on the arguments that follow the name.
struct Chore {
    name: &'static str,
    help: &'static str,
    run: fn(&[String]) -> ExitCode,
}

const CHORES: &[Chore] = &[
    Chore {
        name: "accept",
        help: "run what the issues measure, and compare with their bounds and the figures before",
        run: accept::main,
    },
    Chore {
        name: "bench",
        help: "drive a henge process and print figures: http, churn, memory, peers, floor",
        run: bench::main,
    },
    Chore {
        name: "bench-peers",
        help: "compare with Redis and Valkey; the same as bench peers",
        run: bench::peers,
    },
    Chore {
        name: "tidy",
        help: "check what the compiler and clippy cannot: the rules of the house",
        run: tidy::main,
    },
];

/// As sysexits and most tools have it: the command line was wrong, as opposed to what was checked.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        return usage("which chore?");
    };
    match CHORES.iter().find(|chore| chore.name == name) {
        Some(chore) => (chore.run)(rest),
        None => usage(&format!("there is no chore {name:?}")),
    }
}

/// Prints what was wrong with the command line and what would be right.
fn usage(wrong: &str) -> ExitCode {
    eprintln!("xtask: {wrong}\n\nusage: cargo xtask <chore>\n");
    for chore in CHORES {
        eprintln!("  {:<11} {}", chore.name, chore.help);
    }
    ExitCode::from(EXIT_USAGE)
}
