//! Hit ratios on public access traces, against the figures of an independent simulator. The traces are not part of the
//! project: where they are not beside it, the test says so and checks nothing. Nothing here may be tuned to them.

use henge_engine::{Commit, KeyHasher, NoLender, PolicyKind, Room, Shard, ShardConfig, Turn};
use henge_wire::{Command, Expiry, Operation, Partition, Precondition, Reply, Value, Version};
use libdeflater::Decompressor;
use lzma_rust2::XzReader;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

const SEED: u64 = 42;

/// A line of the table in the traces' README.
#[derive(Debug)]
struct Row {
    trace: String,
    capacity: u64,
    requests: usize,
    keys: usize,
    /// The hit ratio of each policy that the table has, in percent.
    ratios: Vec<(PolicyKind, String)>,
}

/// The table's columns, and how far below them, in percentage points, a policy of ours may stay: nothing where the order is
/// exact. The others leave choices open, and the simulator has made its own.
const COLUMNS: [(&str, PolicyKind, f64); 4] = [
    ("LRU", PolicyKind::Lru, 0.0),
    ("LFU", PolicyKind::Lfu, 0.0),
    ("S3-FIFO", PolicyKind::S3Fifo, 1.5),
    ("W-TinyLFU", PolicyKind::WTinyLfu, 1.5),
];

#[test]
fn orders_reach_the_hit_ratios_of_an_independent_simulator() {
    let Some(folder) = folder() else { return };
    let rows = rows(&fs::read_to_string(folder.join("README.md")).expect("the traces' README"));
    assert!(!rows.is_empty(), "the README has a table");
    let mut wrong = Vec::new();
    let mut least = COLUMNS.map(|_| f64::INFINITY);
    for row in rows {
        let accesses = accesses(&folder, &row.trace);
        let mut keys = accesses.clone();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(
            (accesses.len(), keys.len()),
            (row.requests, row.keys),
            "{} is not read as the simulator read it",
            row.trace
        );
        for (policy, expected) in &row.ratios {
            let hits = hits(*policy, row.capacity, &accesses);
            let ratio = format!("{:.2}", 100.0 * hits as f64 / accesses.len() as f64);
            println!(
                "{:>7} {:>5} {policy}: {ratio:>5}, the simulator {expected:>5}",
                row.trace, row.capacity
            );
            let below = |column: &str| -> f64 {
                let number = |text: &str| text.parse::<f64>().expect("a number");
                number(column) - number(&ratio)
            };
            for (least, (_, kind, _)) in least.iter_mut().zip(&COLUMNS) {
                if kind == policy {
                    *least = least.min(-below(expected));
                }
            }
            let holds = COLUMNS.iter().any(|&(_, kind, tolerance)| {
                kind == *policy
                    && (ratio == *expected || (tolerance > 0.0 && below(expected) <= tolerance))
            });
            if !holds {
                wrong.push(format!(
                    "{} {} {policy}: {ratio}, not {expected}",
                    row.trace, row.capacity
                ));
            }
        }
    }
    // Lines for `cargo xtask accept`.
    for (least, (_, policy, _)) in least.iter().zip(&COLUMNS) {
        println!("figure {policy}_least_points {least:.2}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The folder of the traces, if it is there.
fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/traces");
    if folder.join("README.md").exists() {
        return Some(folder);
    }
    // Not by the macro, whose words the test runner keeps to itself when a test passes.
    writeln!(
        std::io::stderr(),
        "skipped: no traces in {}",
        folder.display()
    )
    .expect("stderr");
    None
}

fn rows(readme: &str) -> Vec<Row> {
    let mut lines = readme.lines().filter(|line| line.starts_with('|'));
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let header = cells(lines.next().expect("a table"));
    let column = |name: &str| {
        header
            .iter()
            .position(|cell| cell == name)
            .unwrap_or_else(|| panic!("a column {name} in {header:?}"))
    };
    let number = |cell: &str| -> u64 { cell.replace(',', "").parse().expect("a number") };
    lines
        .skip(1)
        .map(|line| {
            let cells = cells(line);
            Row {
                trace: cells[column("trace")].clone(),
                capacity: number(&cells[column("capacity")]),
                requests: number(&cells[column("requests")]) as usize,
                keys: number(&cells[column("keys")]) as usize,
                ratios: COLUMNS
                    .iter()
                    .map(|&(name, policy, _)| (policy, cells[column(name)].clone()))
                    .collect(),
            }
        })
        .collect()
}

/// The accesses of a trace: big-endian numbers behind xz, or a number a line behind gzip, where some lines hold none.
fn accesses(folder: &Path, trace: &str) -> Vec<u64> {
    let xz = folder.join(format!("{trace}.trace.xz"));
    if xz.exists() {
        let packed = fs::read(xz).expect("a trace");
        let mut bytes = Vec::new();
        XzReader::new(&packed[..], false)
            .read_to_end(&mut bytes)
            .expect("xz");
        return bytes
            .as_chunks()
            .0
            .iter()
            .map(|&number| u32::from_be_bytes(number).into())
            .collect();
    }
    let packed = fs::read(folder.join(format!("{trace}.trace.gz"))).expect("a trace");
    // RFC 1952: the last word is the length of what was packed.
    let length = packed.last_chunk().map(|&n| u32::from_le_bytes(n));
    let mut bytes = vec![0; length.expect("a trailer") as usize];
    Decompressor::new()
        .gzip_decompress(&packed, &mut bytes)
        .expect("gzip");
    String::from_utf8(bytes)
        .expect("text")
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect()
}

/// Replays a trace: every access is a get, and on a miss the key is put.
fn hits(policy: PolicyKind, capacity: u64, accesses: &[u64]) -> u64 {
    let mut shard = Shard::new(ShardConfig {
        index: 0,
        shards: 1,
        policy,
        seed: SEED,
        first: Version::new(1, 0),
        commit: Commit::AtOnce,
        tombstone_bytes: 0,
        allocation_size: |bytes| bytes,
    });
    let room = Room {
        bytes: u64::MAX / 4,
        items: capacity,
    };
    shard.grant(room);
    let turn = Turn {
        now_ms: 1,
        lender: &NoLender,
        fair: Room::default(),
        cause: henge_engine::Cause::Items,
        limit: room,
    };
    let hasher = KeyHasher::new(SEED);
    for number in accesses {
        let key = number.to_string().into_bytes();
        let (partition, hash) = (Partition::of(&key), hasher.hash(&key));
        let mut run = |operation| {
            let command = Command {
                key: &key,
                operation,
            };
            let reply = shard.execute(&turn, partition, hash, &command);
            match reply.expect("a shard without a fair share is never short") {
                Reply::Found(_) => true,
                Reply::Missing | Reply::Stored { .. } => false,
                other => panic!("answered by {other:?}"),
            }
        };
        if !run(Operation::Get) {
            run(Operation::Set {
                value: Value::from_slice(b""),
                expiry: Expiry::Never,
                precondition: Precondition::NONE,
            });
        }
    }
    let stats = shard.stats();
    assert_eq!(stats.hits + stats.misses, accesses.len() as u64);
    assert!(stats.items <= capacity);
    stats.hits
}
