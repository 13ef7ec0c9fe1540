//! `henge simulate`: what hit ratio each eviction policy would have on a trace of accesses, beside the best possible. The store
//! is the real one, so what is shown is what a node does; every access is a get, and on a miss the key is put. Time stands
//! still, nothing expires, and the cache is one shard, so that the eviction order is exact however large it is.

mod belady;
mod replay;
mod trace;

use std::fmt;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Serialize;

use crate::config::{ByteSize, PolicyKind, nearest, shown};
use trace::{Trace, TraceError};

/// What is simulated unless `--seed` says otherwise.
const SEED: u64 = 42;
/// The row of the best possible.
const BEST: &str = "best";

/// Below this tables leave no room for items, as with `cache.max_size_bytes`; above it one shard could not name them all.
const CAPACITY_BYTES: RangeInclusive<u64> = 1 << 20..=8 << 30;

/// How much a simulated cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capacity {
    Items(u64),
    /// Of memory, all included, as `cache.max_size_bytes` has it.
    Bytes(ByteSize),
}

impl Capacity {
    const EXPECTED: &str =
        "a number of items from 1 on, such as 1000, or a size from 1MiB to 8GiB, such as 64MiB";

    fn parse(text: &str) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let items: u32 = text.parse().ok()?;
            return (items > 0).then_some(Self::Items(items.into()));
        }
        let size: ByteSize = text.parse().ok()?;
        CAPACITY_BYTES
            .contains(&size.as_u64())
            .then_some(Self::Bytes(size))
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Items(items) => f.write_str(&grouped(*items)),
            Self::Bytes(size) => size.fmt(f),
        }
    }
}

/// What is to be simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulation {
    trace: PathBuf,
    policies: Vec<PolicyKind>,
    capacities: Vec<Capacity>,
    seed: u64,
    json: bool,
}

/// The words of the command line, as they came.
pub(super) struct Words<'a> {
    pub(super) trace: Option<&'a PathBuf>,
    pub(super) policies: Vec<&'a str>,
    pub(super) capacities: Vec<&'a str>,
    pub(super) seeds: Vec<&'a str>,
    pub(super) json: bool,
}

impl Simulation {
    /// Understands the words; if they cannot be, a line that says why. Lists may be given in one word or in several.
    pub(super) fn new(words: &Words<'_>) -> Result<Self, String> {
        let trace = words.trace.ok_or(
            "a trace is missing, expected a file such as accesses.csv or accesses.trace.gz",
        )?;
        let mut policies = Vec::new();
        for name in words.policies.iter().flat_map(|list| list.split(',')) {
            let policy = policy(name)?;
            if !policies.contains(&policy) {
                policies.push(policy);
            }
        }
        if policies.is_empty() {
            policies = PolicyKind::ALL.to_vec();
        }
        let mut capacities = Vec::new();
        for text in words.capacities.iter().flat_map(|list| list.split(',')) {
            let capacity = Capacity::parse(text.trim()).ok_or_else(|| {
                format!(
                    "flag --capacity: found {text:?}, expected {}",
                    Capacity::EXPECTED
                )
            })?;
            if !capacities.contains(&capacity) {
                capacities.push(capacity);
            }
        }
        if capacities.is_empty() {
            return Err(format!(
                "--capacity is missing, expected {}",
                Capacity::EXPECTED
            ));
        }
        let seed = match words.seeds[..] {
            [] => SEED,
            [text] => text.parse().map_err(|_| {
                format!(
                    "flag --seed: found {text:?}, expected an integer from 0 to {}",
                    u64::MAX
                )
            })?,
            _ => return Err("--seed is given twice; a simulation has one".to_owned()),
        };
        Ok(Self {
            trace: trace.clone(),
            policies,
            capacities,
            seed,
            json: words.json,
        })
    }

    /// Reads the trace, runs it through every cache that was asked for, and gives what to show.
    pub fn run(&self) -> Result<String, SimulationError> {
        let trace = Trace::read(&self.trace).map_err(SimulationError::Trace)?;
        self.report(shown(&self.trace), &trace)
    }

    fn report(&self, file: String, trace: &Trace) -> Result<String, SimulationError> {
        if !trace.has_sizes()
            && let Some(bytes) = self
                .capacities
                .iter()
                .find(|capacity| matches!(capacity, Capacity::Bytes(_)))
        {
            return Err(SimulationError::NoSizes {
                file,
                capacity: bytes.to_string(),
            });
        }
        let mut rows = Vec::new();
        for &policy in &self.policies {
            let hits = self
                .capacities
                .iter()
                .map(|&capacity| Some(replay::hits(trace, policy, capacity, self.seed)));
            rows.push((policy.name(), hits.collect::<Vec<_>>()));
        }
        let best = self.capacities.iter().map(|capacity| match capacity {
            Capacity::Items(items) => Some(belady::hits(trace.accesses(), *items)),
            // With sizes the best possible is not known in any reasonable time (it is NP-hard).
            Capacity::Bytes(_) => None,
        });
        rows.push((BEST, best.collect()));
        Ok(if self.json {
            self.to_json(&file, trace, &rows)
        } else {
            self.to_table(&file, trace, &rows)
        })
    }

    fn to_table(&self, file: &str, trace: &Trace, rows: &[(&str, Vec<Option<u64>>)]) -> String {
        let accesses = trace.accesses().len();
        let mut table = format!(
            "{file}: {} accesses, {} keys; hits in percent\n\n{:8}",
            grouped(accesses as u64),
            grouped(trace.keys() as u64),
            "capacity"
        );
        let heads: Vec<String> = self.capacities.iter().map(Capacity::to_string).collect();
        let width = |head: &String| head.len().max("100.00".len());
        // Writing to a String does not fail.
        for head in &heads {
            let _ = write!(table, "  {head:>0$}", width(head));
        }
        table.push('\n');
        for (name, hits) in rows {
            let _ = write!(table, "{name:8}");
            for (head, hits) in heads.iter().zip(hits) {
                let text = hits.map_or("-".to_owned(), |hits| {
                    format!("{:.2}", 100.0 * hits as f64 / accesses as f64)
                });
                let _ = write!(table, "  {text:>0$}", width(head));
            }
            table.push('\n');
        }
        table
    }

    fn to_json(&self, file: &str, trace: &Trace, rows: &[(&str, Vec<Option<u64>>)]) -> String {
        let accesses = trace.accesses().len() as u64;
        let results = rows.iter().flat_map(|(policy, hits)| {
            let each = self.capacities.iter().zip(hits);
            each.filter_map(move |(capacity, hits)| {
                let hits = (*hits)?;
                let (capacity, unit) = match capacity {
                    Capacity::Items(items) => (*items, "items"),
                    Capacity::Bytes(size) => (size.as_u64(), "bytes"),
                };
                Some(ResultJson {
                    policy,
                    capacity,
                    unit,
                    hits,
                    misses: accesses - hits,
                    hit_ratio: hits as f64 / accesses as f64,
                })
            })
        });
        let report = ReportJson {
            trace: file,
            accesses,
            keys: trace.keys() as u64,
            seed: self.seed,
            results: results.collect(),
        };
        let mut text =
            serde_json::to_string_pretty(&report).expect("numbers and names are always JSON");
        text.push('\n');
        text
    }
}

#[derive(Serialize)]
struct ReportJson<'a> {
    trace: &'a str,
    accesses: u64,
    keys: u64,
    seed: u64,
    results: Vec<ResultJson<'a>>,
}

#[derive(Serialize)]
struct ResultJson<'a> {
    policy: &'a str,
    capacity: u64,
    unit: &'static str,
    hits: u64,
    misses: u64,
    hit_ratio: f64,
}

/// Why there is nothing to show.
#[derive(Debug)]
pub enum SimulationError {
    /// The trace could not be read.
    Trace(TraceError),
    /// A capacity in bytes, for a trace that does not say how large items are.
    NoSizes {
        /// The trace.
        file: String,
        /// The capacity.
        capacity: String,
    },
}

impl fmt::Display for SimulationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trace(error) => error.fmt(f),
            Self::NoSizes { file, capacity } => write!(
                f,
                "{file} does not say how large items are, so a capacity of {capacity} means nothing; \
                 expected a number of items, or a trace of time, key and size in CSV"
            ),
        }
    }
}

impl std::error::Error for SimulationError {}

fn policy(name: &str) -> Result<PolicyKind, String> {
    let name = name.trim();
    let named = |policy: &PolicyKind| policy.name().eq_ignore_ascii_case(name);
    PolicyKind::ALL.into_iter().find(named).ok_or_else(|| {
        let all = PolicyKind::ALL.map(PolicyKind::name);
        let near =
            nearest(name, all).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        format!(
            "flag --policy: found {name:?}, expected {}{near}",
            all.join(", ")
        )
    })
}

/// With a comma between thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn capacities() {
        for (text, capacity) in [
            ("1", Some(Capacity::Items(1))),
            ("1000", Some(Capacity::Items(1000))),
            ("4294967295", Some(Capacity::Items(4_294_967_295))),
            ("1MiB", Some(Capacity::Bytes(ByteSize::mib(1)))),
            ("64MiB", Some(Capacity::Bytes(ByteSize::mib(64)))),
            ("0", None),
            ("4294967296", None),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("many", None),
            ("1KiB", None),
            ("9GiB", None),
        ] {
            assert_eq!(Capacity::parse(text), capacity, "{text:?}");
        }
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    fn simulation(policies: &[&str], capacities: &[&str], json: bool) -> Simulation {
        Simulation::new(&Words {
            trace: Some(&PathBuf::from("t.csv")),
            policies: policies.to_vec(),
            capacities: capacities.to_vec(),
            seeds: vec!["7"],
            json,
        })
        .expect("the words are understood")
    }

    #[test]
    fn a_table_for_people() {
        let trace = Trace::of(&[1, 2, 3, 1, 2, 3, 1, 2, 3]);
        let report = simulation(&["lru", "SIEVE,lru"], &["2,3", "1000"], false)
            .report("t.csv".to_owned(), &trace);
        let expected = "\
t.csv: 9 accesses, 3 keys; hits in percent

capacity       2       3   1,000
lru         0.00   66.67   66.67
sieve       0.00   66.67   66.67
best       33.33   66.67   66.67
";
        assert_eq!(report.ok().as_deref(), Some(expected));
    }

    #[test]
    fn json_for_machines() {
        let trace = Trace::of(&[1, 1, 1, 2]);
        let report = simulation(&["lfu"], &["1"], true)
            .report("t.csv".to_owned(), &trace)
            .expect("a report");
        let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        let result = |policy: &str| {
            serde_json::json!({
                "policy": policy, "capacity": 1, "unit": "items", "hits": 2, "misses": 2, "hit_ratio": 0.5,
            })
        };
        let expected = serde_json::json!({
            "trace": "t.csv", "accesses": 4, "keys": 2, "seed": 7,
            "results": [result("lfu"), result("best")],
        });
        assert_eq!(report, expected);
    }

    #[test]
    fn capacities_in_bytes() {
        let unsized_trace = Trace::of(&[1, 1]);
        let error = simulation(&[], &["10,1MiB"], false).report("t".to_owned(), &unsized_trace);
        assert_eq!(
            error.err().map(|error| error.to_string()).as_deref(),
            Some(
                "t does not say how large items are, so a capacity of 1MiB means nothing; \
                 expected a number of items, or a trace of time, key and size in CSV"
            )
        );
        let one = Capacity::Bytes(ByteSize::mib(1));
        let rounds = |keys: u32, size: u32| {
            let accesses = (0..3 * keys).map(|n| (n % keys, size));
            Trace::with_sizes(&accesses.collect::<Vec<_>>())
        };
        for policy in PolicyKind::ALL {
            // Nine tenths of a mebibyte fit, three times as much does not, and what is larger than all never does.
            let hits = |trace: &Trace| replay::hits(trace, policy, one, SEED);
            assert_eq!(hits(&rounds(10, 80_000)), 20, "{policy}");
            assert!(hits(&rounds(40, 80_000)) < 40, "{policy}");
            assert_eq!(hits(&rounds(3, 2 << 20)), 0, "{policy}");
        }
    }

    proptest! {
        #[test]
        fn no_policy_beats_the_best_possible(
            accesses in prop::collection::vec(
                prop_oneof![3 => 0u32..12, 2 => 0u32..60], 1..400
            ),
            capacity in 1u64..30,
            seed: u64
        ) {
            let trace = Trace::of(&accesses);
            let best = belady::hits(trace.accesses(), capacity);
            for policy in PolicyKind::ALL {
                let hits = replay::hits(&trace, policy, Capacity::Items(capacity), seed);
                prop_assert!(hits <= best, "{policy}: {hits} of {best}");
                let again = replay::hits(&trace, policy, Capacity::Items(capacity), seed);
                prop_assert_eq!(hits, again, "a seed says it all");
            }
        }
    }
}
