//! `bench one-replica`: the instructions of a GET and a SET on a shard that is the table of a replica which is alone, over those on a
//! shard by itself, as valgrind's callgrind counts them. They are the same in each run, whatever else the machine does.

use super::{Arguments, Result, print_figure};
use std::process::{Command, Stdio};

pub(super) const OPTIONS: &[(&str, &str)] = &[("operations", "of each kind (20000)")];

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let operations = arguments.number("operations", 20_000_u64)?.max(1);
    println!(
        "{:<5} {:>12} {:>14} {:>8}",
        "", "by itself", "as a replica", "ratio"
    );
    for operation in ["get", "set"] {
        let each = |way| -> Result<f64> {
            // What comes before the first is the same in both.
            let all = instructions(way, operation, operations)?;
            let before = instructions(way, operation, 0)?;
            Ok((all - before) as f64 / operations as f64)
        };
        let (shard, replica) = (each("shard")?, each("replica")?);
        println!(
            "{operation:<5} {shard:>12.1} {replica:>14.1} {:>8.4}",
            replica / shard
        );
        print_figure(&format!("one_replica_{operation}_ratio"), replica / shard);
    }
    Ok(())
}

/// What the bench of the cluster runs, from its first instruction to its last.
fn instructions(way: &str, operation: &str, operations: u64) -> Result<u64> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "--config",
            "target.'cfg(unix)'.runner = ['valgrind', '--tool=callgrind', '--callgrind-out-file=/dev/null']",
            "bench",
            "--quiet",
            "--package=henge-cluster",
            "--bench=one_replica",
            "--",
            way,
            operation,
            &operations.to_string(),
        ])
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.ok_or_else(|| format!("valgrind does not say how many instructions: {said}").into())
}
