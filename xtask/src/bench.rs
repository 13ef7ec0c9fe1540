//! `cargo xtask bench <name>`: benches that drive a whole `henge` process from outside. Each prints a table for people
//! and, last, lines `figure NAME NUMBER` for `cargo xtask accept`. They judge nothing; the bounds are in `accept.rs`.

mod arguments;
mod bare;
mod churn;
mod client;
mod durability;
mod echo;
mod failover;
mod hostile;
mod http;
mod insight;
mod memory;
mod moves;
// What the tests cut nodes off from each other with. It uses what it needs of that.
#[expect(
    dead_code,
    reason = "no cable is pulled here, and no single protocol lost"
)]
#[path = "../../crates/henge/tests/it/cluster/network.rs"]
mod network;
mod one_replica;
mod peers;
mod proc;
mod random;
mod replication;
mod ring;
mod security;
mod server;
mod three;

use self::arguments::Arguments;
use std::error::Error;
use std::process::ExitCode;

/// A bench fails with a line for its user, who is one of us.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One bench: its name, the options that it takes with their help, and what runs it.
struct Bench {
    name: &'static str,
    help: &'static str,
    options: &'static [(&'static str, &'static str)],
    run: fn(&Arguments) -> Result<()>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "http",
        help: "GET /get beside a bare hyper server with the same response, by requests per CPU-second",
        options: http::OPTIONS,
        run: http::run,
    },
    Bench {
        name: "churn",
        help: "resident size while gigabytes of all sizes pass through a small cache",
        options: churn::OPTIONS,
        run: churn::run,
    },
    Bench {
        name: "memory",
        help: "resident bytes for each small item, beside its key and value",
        options: memory::OPTIONS,
        run: memory::run,
    },
    Bench {
        name: "peers",
        help: "GET and SET over the Redis protocol beside an echo loop, Redis and Valkey, by requests per CPU-second",
        options: peers::OPTIONS,
        run: peers::run,
    },
    Bench {
        name: "durability",
        help: "the log and snapshots, beside a node without them and beside Redis with its own",
        options: durability::OPTIONS,
        run: durability::run,
    },
    Bench {
        name: "one-replica",
        help: "the instructions of the protocol where there is nobody to agree with",
        options: one_replica::OPTIONS,
        run: one_replica::run,
    },
    Bench {
        name: "ring",
        help: "what a forwarded GET costs, and how long a ring is without a control leader",
        options: ring::OPTIONS,
        run: ring::run,
    },
    Bench {
        name: "failover",
        help: "how long writes wait for another leader, what clients are told, and what a short pause does",
        options: failover::OPTIONS,
        run: failover::run,
    },
    Bench {
        name: "replication",
        help: "writes that a majority of three has, beside etcd and Redis, and reads at two levels",
        options: replication::OPTIONS,
        run: replication::run,
    },
    Bench {
        name: "moves",
        help: "a node joins and another is drained under an open-loop load: requests that fail, keys that are lost, p99, time",
        options: moves::OPTIONS,
        run: moves::run,
    },
    Bench {
        name: "security",
        help: "what TLS and API keys cost a request, by CPU time of the server",
        options: security::OPTIONS,
        run: security::run,
    },
    Bench {
        name: "insight",
        help: "what hot keys, causes of misses and the slow log cost a request, by CPU time of the server",
        options: insight::OPTIONS,
        run: insight::run,
    },
    Bench {
        name: "hostile",
        help: "p99 of others beside clients that mean harm, and how large the node grows",
        options: hostile::OPTIONS,
        run: hostile::run,
    },
    Bench {
        name: "floor",
        help: "the same one request at a time, beside the echo loop alone",
        options: peers::FLOOR_OPTIONS,
        run: peers::run_floor,
    },
];

/// The bare server is a process of its own, started by `bench http`, so it is a name here and not in the help.
const BARE: &str = "bare-http";
/// The echo loop likewise, for `bench peers` and `bench floor`.
const ECHO: &str = "echo";
/// The attackers likewise, for `bench hostile`.
const ATTACKER: &str = "attacker";

/// `cargo xtask bench-peers`, by the name under which docs/performance.md tells of it.
pub(crate) fn peers(arguments: &[String]) -> ExitCode {
    let line = [&["peers".to_owned()], arguments].concat();
    main(&line)
}

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let Some((name, rest)) = arguments.split_first() else {
        return usage("which bench?");
    };
    let result = if name == BARE {
        bare::serve()
    } else if name == ECHO {
        echo::serve()
    } else if name == ATTACKER {
        hostile::attack(rest)
    } else {
        let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
            return usage(&format!("there is no bench {name:?}"));
        };
        match Arguments::parse(rest, bench.options) {
            Ok(arguments) => (bench.run)(&arguments),
            Err(wrong) => return usage(&wrong),
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage(wrong: &str) -> ExitCode {
    eprintln!("xtask bench: {wrong}\n\nusage: cargo xtask bench <name> [--option value]\n");
    for bench in BENCHES {
        eprintln!("  {:<11} {}", bench.name, bench.help);
        for (option, help) in bench.options {
            eprintln!("           --{option:<12} {help}");
        }
    }
    ExitCode::from(crate::EXIT_USAGE)
}

/// Prints the line that `cargo xtask accept` looks for.
fn print_figure(name: &str, figure: f64) {
    println!("figure {name} {figure:.4}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
