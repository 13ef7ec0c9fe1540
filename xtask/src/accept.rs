//! `cargo xtask accept [ISSUE]`: runs what the issues measure, prints each figure beside its bound and the figure
//! before, and fails if a bound is missed. It measures nothing itself: each line names a command whose output has the figure as a
//! line `figure NAME NUMBER`.
//!
//! The figures are kept in `docs/figures.json`, which is rewritten with every figure that was found, passed or not: what is
//! committed there is what the next run is compared with.

use serde_json::{Map, Value, json};
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Which way a figure is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Better {
    Higher,
    Lower,
}

/// A line of an issue that can be measured.
struct Line {
    issue: u32,
    /// The figure's name in the command's output and in `docs/figures.json`.
    figure: &'static str,
    what: &'static str,
    better: Better,
    /// What it must reach, or stay below; the bound itself passes.
    bound: f64,
    /// The arguments for cargo. Lines with the same command share one run.
    command: &'static [&'static str],
}

/// In the order of the issues, and within one in the order of its text.
const LINES: &[Line] = &[
    Line {
        issue: 2,
        figure: "churn_rss_ratio",
        what: "peak RSS over 1.15 x 256 MiB + 64 MiB, while 4 GiB of all sizes pass through",
        better: Better::Lower,
        bound: 1.0,
        command: &["xtask", "bench", "churn"],
    },
    Line {
        issue: 2,
        figure: "stats_vs_allocator",
        what: "how far the memory figure of /stats is off the allocator's, as a part of it",
        better: Better::Lower,
        bound: 0.10,
        command: &["xtask", "bench", "churn"],
    },
    Line {
        issue: 2,
        figure: "item_overhead_bytes",
        what: "bytes for an item beside 16 B of key and 64 B of value, as RSS growth",
        better: Better::Lower,
        bound: 32.0,
        command: &["xtask", "bench", "memory"],
    },
    Line {
        issue: 2,
        figure: "http_get_ratio",
        what: "GET /get in requests per CPU-second, over a bare hyper server's",
        better: Better::Higher,
        bound: 0.85,
        command: &["xtask", "bench", "http", "--rounds", "9", "--secs", "2"],
    },
    Line {
        issue: 2,
        figure: "cache_get_two_thread_speedup",
        what: "the cache's GETs a second on two threads, over those on one",
        better: Better::Higher,
        bound: 1.8,
        command: &["bench", "--package=henge", "--bench=cache"],
    },
    Line {
        issue: 2,
        figure: "cache_set_two_thread_speedup",
        what: "the cache's SETs a second on two threads, over those on one",
        better: Better::Higher,
        bound: 1.8,
        command: &["bench", "--package=henge", "--bench=cache"],
    },
    Line {
        issue: 3,
        figure: "resp_get_p1_over_echo",
        what: "GET one at a time in requests per CPU-second, over an echo loop of the same bytes",
        better: Better::Higher,
        bound: 0.9,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_set_p1_over_echo",
        what: "SET one at a time in requests per CPU-second, over an echo loop of the same bytes",
        better: Better::Higher,
        bound: 0.9,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_get_p16_over_redis",
        what: "GET in pipelines of 16, over Redis",
        better: Better::Higher,
        bound: 2.1,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_set_p16_over_redis",
        what: "SET in pipelines of 16, over Redis",
        better: Better::Higher,
        bound: 2.1,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_get_p64_over_redis",
        what: "GET in pipelines of 64, over Redis",
        better: Better::Higher,
        bound: 2.4,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_set_p64_over_redis",
        what: "SET in pipelines of 64, over Redis",
        better: Better::Higher,
        bound: 2.4,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_get_p16_over_valkey",
        what: "GET in pipelines of 16, over Valkey",
        better: Better::Higher,
        bound: 1.25,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_set_p16_over_valkey",
        what: "SET in pipelines of 16, over Valkey",
        better: Better::Higher,
        bound: 1.25,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_get_p64_over_valkey",
        what: "GET in pipelines of 64, over Valkey",
        better: Better::Higher,
        bound: 1.25,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_set_p64_over_valkey",
        what: "SET in pipelines of 64, over Valkey",
        better: Better::Higher,
        bound: 1.25,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_get_p1_p99_over_redis",
        what: "p99 latency of GET at P=1, over Redis",
        better: Better::Lower,
        bound: 1.0,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_set_p1_p99_over_redis",
        what: "p99 latency of SET at P=1, over Redis",
        better: Better::Lower,
        bound: 1.0,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_get_p16_p99_over_redis",
        what: "p99 latency of GET at P=16, over Redis",
        better: Better::Lower,
        bound: 1.0,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_set_p16_p99_over_redis",
        what: "p99 latency of SET at P=16, over Redis",
        better: Better::Lower,
        bound: 1.0,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_get_p64_p99_over_redis",
        what: "p99 latency of GET at P=64, over Redis",
        better: Better::Lower,
        bound: 1.0,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "resp_set_p64_p99_over_redis",
        what: "p99 latency of SET at P=64, over Redis",
        better: Better::Lower,
        bound: 1.0,
        command: PEERS,
    },
    Line {
        issue: 3,
        figure: "s3fifo_least_points",
        what: "hit ratio of s3fifo on the traces, least points above the table of an independent simulator",
        better: Better::Higher,
        bound: -1.5,
        command: TRACES,
    },
    Line {
        issue: 3,
        figure: "wtinylfu_least_points",
        what: "hit ratio of wtinylfu on the traces, least points above the table of an independent simulator",
        better: Better::Higher,
        bound: -1.5,
        command: TRACES,
    },
    Line {
        issue: 4,
        figure: "log_interval_data_ratio",
        what: "SET in pipelines of 16 with a log, over those without, by CPU-second of the data threads",
        better: Better::Higher,
        bound: 0.9,
        command: DURABILITY,
    },
    Line {
        issue: 4,
        figure: "log_interval_all_ratio",
        what: "the same by CPU-second of all threads",
        better: Better::Higher,
        bound: 0.7,
        command: DURABILITY,
    },
    Line {
        issue: 4,
        figure: "log_always_over_redis",
        what: "SET a second with every write synced, over Redis with appendfsync always",
        better: Better::Higher,
        bound: 1.1,
        command: DURABILITY,
    },
    Line {
        issue: 4,
        figure: "log_always_syncs_over_redis",
        what: "syncs for each 1,000 of these writes, over Redis",
        better: Better::Lower,
        bound: 1.0,
        command: DURABILITY,
    },
    Line {
        issue: 4,
        figure: "snapshot_speed",
        what: "MB/s of a snapshot of 2 GiB, over 3 times Redis's BGSAVE or 0.8 of the disk's in sequence",
        better: Better::Higher,
        bound: 1.0,
        command: DURABILITY,
    },
    Line {
        issue: 4,
        figure: "snapshot_rss_ratio",
        what: "resident size while one is made under 20,000 SET/s, over that before",
        better: Better::Lower,
        bound: 1.05,
        command: DURABILITY,
    },
    Line {
        issue: 4,
        figure: "snapshot_p99_ratio",
        what: "p99 of these SETs while one is made, over that without",
        better: Better::Lower,
        bound: 1.5,
        command: DURABILITY,
    },
    Line {
        issue: 4,
        figure: "restart_over_redis",
        what: "how many times faster the restart is than Redis's with the same data",
        better: Better::Higher,
        bound: 3.0,
        command: DURABILITY,
    },
    Line {
        issue: 5,
        figure: "one_replica_get_ratio",
        what: "instructions of a GET on the table of a replica that is alone, over those on a shard by itself",
        better: Better::Lower,
        bound: 1.05,
        command: ONE_REPLICA,
    },
    Line {
        issue: 5,
        figure: "one_replica_set_ratio",
        what: "the same of a SET",
        better: Better::Lower,
        bound: 1.05,
        command: ONE_REPLICA,
    },
    Line {
        issue: 6,
        figure: "forwarded_get_cpu_ratio",
        what: "CPU time of a forwarded GET on both nodes, over that of one which is answered where it is (50 connections, P=16)",
        better: Better::Lower,
        bound: 2.2,
        command: RING,
    },
    Line {
        issue: 6,
        figure: "control_failover_seconds",
        what: "seconds until both others of three nodes know another control leader, once it is killed; the worst of five",
        better: Better::Lower,
        bound: 2.0,
        command: RING,
    },
    Line {
        issue: 6,
        figure: "members_bytes_growth",
        what: "bytes a second of each member by the log of their number, from 25 members to 400, over what log n allows",
        better: Better::Lower,
        bound: 1.1,
        command: &[
            "run",
            "--quiet",
            "--release",
            "--package=henge-sim",
            "--bin=members",
        ],
    },
    Line {
        issue: 7,
        figure: "failover_gap_seconds",
        what: "seconds without a write to what a killed node led, under 5,000 writes/s; the longest but for one in fifty",
        better: Better::Lower,
        bound: 1.0,
        command: FAILOVER,
    },
    Line {
        issue: 7,
        figure: "failover_other_errors",
        what: "errors of these writes but outcome_unknown, at the nodes that stay and within 2 s",
        better: Better::Lower,
        bound: 0.0,
        command: FAILOVER,
    },
    Line {
        issue: 7,
        figure: "silent_gap_seconds",
        what: "the same gap where a node's packets are lost in silence; the longest but for one in twenty",
        better: Better::Lower,
        bound: 3.0,
        command: FAILOVER,
    },
    Line {
        issue: 7,
        figure: "pause_failovers",
        what: "pauses of 300 ms, of fifty, after which the topology is another one",
        better: Better::Lower,
        bound: 0.0,
        command: FAILOVER,
    },
    Line {
        issue: 7,
        figure: "quorum_set_p1_over_etcd",
        what: "SET a second that two of three have synced, one at a time over 50 connections, over etcd",
        better: Better::Higher,
        bound: 3.0,
        command: REPLICATION,
    },
    Line {
        issue: 7,
        figure: "quorum_set_p16_over_etcd",
        what: "the same, 16 at a time",
        better: Better::Higher,
        bound: 3.0,
        command: REPLICATION,
    },
    Line {
        issue: 7,
        figure: "quorum_set_p1_over_redis",
        what: "SET a second that two of three have in memory, over Redis with two replicas and WAIT 1",
        better: Better::Higher,
        bound: 1.0,
        command: REPLICATION,
    },
    Line {
        issue: 7,
        figure: "quorum_set_p16_over_redis",
        what: "the same in pipelines of 16, each with one WAIT",
        better: Better::Higher,
        bound: 1.0,
        command: REPLICATION,
    },
    Line {
        issue: 7,
        figure: "quorum_get_p16_over_one",
        what: "GET a second at QUORUM in pipelines of 16, over those at ONE",
        better: Better::Higher,
        bound: 0.6,
        command: REPLICATION,
    },
    Line {
        issue: 7,
        figure: "quorum_get_p16_of_leaders_over_one",
        what: "the same, where each key is asked of the node that leads it",
        better: Better::Higher,
        bound: 0.6,
        command: REPLICATION,
    },
    Line {
        issue: 7,
        figure: "move_failed_requests",
        what: "requests that fail while a fourth node joins and the second is drained, with 1 GiB under a quarter of the load that is possible",
        better: Better::Lower,
        bound: 0.0,
        command: MOVES,
    },
    Line {
        issue: 7,
        figure: "move_wrong_reads",
        what: "reads of keys that are lost, or older than what was acknowledged, meanwhile and of all keys after each move",
        better: Better::Lower,
        bound: 0.0,
        command: MOVES,
    },
    Line {
        issue: 7,
        figure: "join_p99_over_bound",
        what: "p99 of requests while a node joins, over twice that before or 5 ms; the median of five",
        better: Better::Lower,
        bound: 1.0,
        command: MOVES,
    },
    Line {
        issue: 7,
        figure: "join_time_over_least",
        what: "how long it takes until it has its share, over what the loopback and cluster.move_rate allow",
        better: Better::Lower,
        bound: 3.0,
        command: MOVES,
    },
    Line {
        issue: 7,
        figure: "drain_p99_over_bound",
        what: "p99 of requests while the second is drained, over twice that before or 5 ms; the median of five",
        better: Better::Lower,
        bound: 1.0,
        command: MOVES,
    },
    Line {
        issue: 7,
        figure: "drain_time_over_least",
        what: "how long it takes until it holds nothing, over what the loopback and cluster.move_rate allow",
        better: Better::Lower,
        bound: 3.0,
        command: MOVES,
    },
    Line {
        issue: 8,
        figure: "tls_cpu_over_plain",
        what: "CPU of a request in pipelines of 16 from 50 clients over TLS, over that in the clear; the worse of GET and SET",
        better: Better::Lower,
        bound: 1.6,
        command: SECURITY,
    },
    Line {
        issue: 8,
        figure: "full_key_cpu_over_none",
        what: "the same with an API key that holds all rights, over that without keys",
        better: Better::Lower,
        bound: 1.05,
        command: SECURITY,
    },
    Line {
        issue: 8,
        figure: "confined_key_cpu_over_none",
        what: "the same with an API key that is confined to a prefix",
        better: Better::Lower,
        bound: 1.05,
        command: SECURITY,
    },
    Line {
        issue: 8,
        figure: "rate_limits_cpu_over_none",
        what: "the same with such a key and all rate limits",
        better: Better::Lower,
        bound: 1.05,
        command: SECURITY,
    },
    Line {
        issue: 8,
        figure: "hostile_slowloris_p99_over_bound",
        what: "p99 of others, a quarter of the load that is possible, while 2,000 connections send a byte now and then, over twice that without or 5 ms; the median of five",
        better: Better::Lower,
        bound: 1.0,
        command: HOSTILE,
    },
    Line {
        issue: 8,
        figure: "hostile_flood_p99_over_bound",
        what: "the same while one address opens 10,500 connections, over and over",
        better: Better::Lower,
        bound: 1.0,
        command: HOSTILE,
    },
    Line {
        issue: 8,
        figure: "hostile_never_reads_p99_over_bound",
        what: "the same while 128 clients ask for 1 MiB over and over and read nothing",
        better: Better::Lower,
        bound: 1.0,
        command: HOSTILE,
    },
    Line {
        issue: 8,
        figure: "hostile_huge_length_p99_over_bound",
        what: "the same while 200 requests a second announce up to 4 GiB",
        better: Better::Lower,
        bound: 1.0,
        command: HOSTILE,
    },
    Line {
        issue: 8,
        figure: "hostile_million_commands_p99_over_bound",
        what: "the same while two clients send a million commands without a pause",
        better: Better::Lower,
        bound: 1.0,
        command: HOSTILE,
    },
    Line {
        issue: 8,
        figure: "hostile_failed_requests",
        what: "requests of these others that fail",
        better: Better::Lower,
        bound: 0.0,
        command: HOSTILE,
    },
    Line {
        issue: 8,
        figure: "hostile_rss_over_bound",
        what: "the node's resident size at its most, over 1.15 times the cache's limit, 64 MiB, and limits.max_inflight_bytes",
        better: Better::Lower,
        bound: 1.0,
        command: HOSTILE,
    },
    Line {
        issue: 9,
        figure: "insight_cpu_over_none",
        what: "CPU of a request in pipelines of 16 from 50 clients with hot keys, causes of misses and the slow log on, over that with all of it off; the worst of GET and SET, of what is there and of what is evicted",
        better: Better::Lower,
        bound: 1.05,
        command: INSIGHT,
    },
];

const RING: &[&str] = &["xtask", "bench", "ring"];

/// Beside Redis 7.0 and Valkey 9.1, where they are installed; without them their lines fail.
const DURABILITY: &[&str] = &["xtask", "bench", "durability"];
/// Needs iproute2, and may make network namespaces.
const FAILOVER: &[&str] = &["xtask", "bench", "failover"];
/// Beside etcd 3.4 and Redis 7.0.
const REPLICATION: &[&str] = &["xtask", "bench", "replication"];
/// Needs 20,000 open files.
const HOSTILE: &[&str] = &["xtask", "bench", "hostile"];
/// Needs redis-benchmark and openssl.
const SECURITY: &[&str] = &["xtask", "bench", "security"];
/// Needs redis-benchmark.
const INSIGHT: &[&str] = &["xtask", "bench", "insight"];
const MOVES: &[&str] = &["xtask", "bench", "moves"];
/// Needs valgrind.
const ONE_REPLICA: &[&str] = &["xtask", "bench", "one-replica"];
const PEERS: &[&str] = &["xtask", "bench-peers"];
/// Where the traces are; without them its lines fail.
const TRACES: &[&str] = &[
    "test",
    "--release",
    "--package=henge-engine",
    "--test=traces",
    "--",
    "--nocapture",
];

const FIGURES: &str = "docs/figures.json";

impl Line {
    fn passes(&self, figure: f64) -> bool {
        match self.better {
            Better::Higher => figure >= self.bound,
            Better::Lower => figure <= self.bound,
        }
    }

    /// The bound for people.
    fn bound_text(&self) -> String {
        let sign = match self.better {
            Better::Higher => ">=",
            Better::Lower => "<=",
        };
        format!("{sign} {}", self.bound)
    }

    /// One line of the report. Without a figure it fails.
    fn report(&self, figure: Option<f64>, before: Option<f64>) -> String {
        let verdict = if figure.is_some_and(|figure| self.passes(figure)) {
            "pass"
        } else {
            "FAIL"
        };
        let text = |figure: Option<f64>| figure.map_or("none".to_string(), |n| format!("{n:.3}"));
        format!(
            "{verdict}  {:<28} {:>9}  bound {:<8} before {:>9}  {}",
            self.figure,
            text(figure),
            self.bound_text(),
            text(before),
            self.what
        )
    }
}

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let issue: Option<u32> = match arguments {
        [] => None,
        [number] => match number.parse() {
            Ok(issue) if LINES.iter().any(|line| line.issue == issue) => Some(issue),
            _ => return usage(&format!("issue {number} has no measurable lines")),
        },
        _ => return usage("one issue or none"),
    };
    let lines: Vec<&Line> = LINES
        .iter()
        .filter(|line| issue.is_none_or(|issue| line.issue == issue))
        .collect();
    match accept(&lines) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("accept: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage(wrong: &str) -> ExitCode {
    eprintln!("xtask accept: {wrong}\n\nusage: cargo xtask accept [ISSUE]");
    ExitCode::from(crate::EXIT_USAGE)
}

/// Runs the lines' commands; whether all passed.
fn accept(lines: &[&Line]) -> io::Result<bool> {
    let path = workspace().join(FIGURES);
    let mut kept = read_figures(&path)?;
    let mut found: Vec<(String, f64)> = Vec::new();
    let mut ran: Vec<&[&str]> = Vec::new();
    for line in lines {
        if !ran.contains(&line.command) {
            ran.push(line.command);
            found.extend(run(line.command)?);
        }
    }

    println!();
    let mut all_pass = true;
    for line in lines {
        let figure = found
            .iter()
            .find(|(name, _)| name == line.figure)
            .map(|(_, figure)| *figure);
        println!("{}", line.report(figure, before(&kept, line.figure)));
        all_pass &= figure.is_some_and(|figure| line.passes(figure));
        if let Some(figure) = figure {
            let entry = json!({ "figure": figure, "bound": line.bound_text() });
            kept.insert(line.figure.to_string(), entry);
        }
    }
    if !found.is_empty() {
        fs::write(&path, serde_json::to_string_pretty(&kept)? + "\n")?;
    }
    Ok(all_pass)
}

/// Runs cargo, passing its output on as it comes; the figures in it. A command that fails has what figures it printed
/// before; the lines without one fail.
fn run(command: &[&str]) -> io::Result<Vec<(String, f64)>> {
    println!("\n== cargo {}", command.join(" "));
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(cargo)
        .args(command)
        .current_dir(workspace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut figures = Vec::new();
    if let Some(output) = child.stdout.take() {
        // What cannot be read ends the reading, not the waiting for the command.
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            println!("{line}");
            figures.extend(parse_figure(&line));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        println!("it failed: {status}");
    }
    Ok(figures)
}

/// A line `figure NAME NUMBER`.
fn parse_figure(line: &str) -> Option<(String, f64)> {
    let mut words = line.split_ascii_whitespace();
    if words.next()? != "figure" {
        return None;
    }
    let (name, number) = (words.next()?, words.next()?.parse().ok()?);
    (words.next().is_none() && f64::is_finite(number)).then(|| (name.to_string(), number))
}

/// The figures of the run before: name to figure and bound. No file, no figures.
fn read_figures(path: &Path) -> io::Result<Map<String, Value>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(error),
    }
}

fn before(kept: &Map<String, Value>, name: &str) -> Option<f64> {
    kept.get(name)?.get("figure")?.as_f64()
}

fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_output() {
        for (line, expected) in [
            ("figure a_b 0.91", Some(("a_b", 0.91))),
            ("  figure a 3", Some(("a", 3.0))),
            ("figure a", None),
            ("figure a b", None),
            ("figure a NaN", None),
            ("figure a 1 2", None),
            ("figures a 1", None),
            ("", None),
        ] {
            let expected = expected.map(|(name, number): (&str, f64)| (name.to_string(), number));
            assert_eq!(parse_figure(line), expected, "{line}");
        }
    }

    #[test]
    fn bounds_pass_themselves_and_what_is_better() {
        for (better, figure, passes) in [
            (Better::Higher, 0.86, true),
            (Better::Higher, 0.85, true),
            (Better::Higher, 0.84, false),
            (Better::Lower, 0.84, true),
            (Better::Lower, 0.85, true),
            (Better::Lower, 0.86, false),
        ] {
            let line = Line {
                issue: 2,
                figure: "x",
                what: "",
                better,
                bound: 0.85,
                command: &[],
            };
            assert_eq!(line.passes(figure), passes, "{better:?} {figure}");
            assert_eq!(line.report(Some(figure), None).starts_with("pass"), passes);
            assert!(line.report(None, Some(1.0)).starts_with("FAIL"));
        }
    }

    #[test]
    fn every_line_has_a_name_of_its_own() {
        for (i, line) in LINES.iter().enumerate() {
            assert!(LINES[..i].iter().all(|other| other.figure != line.figure));
        }
    }
}
