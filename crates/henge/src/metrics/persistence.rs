//! What a node has on its disk, in figures: for `/stats`, `/cluster/status` and Prometheus alike.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::disk::log::{Condition, Log};
use crate::disk::persistence::Persistence;
use crate::disk::snapshots::Snapshots;

/// The figures of the log and of the snapshots.
pub(super) fn figures(persistence: &Persistence) -> Value {
    let (Some(log), Some(snapshots)) = (&persistence.log, &persistence.snapshots) else {
        return json!({"enabled": false, "directory": persistence.path});
    };
    let syncs = log.figures.syncs.distribution();
    json!({
        "enabled": true,
        "directory": persistence.path,
        "sync": log.sync.name(),
        "loading": persistence.is_loading().then(|| persistence.progress.share()),
        "log": {
            "condition": condition(log),
            "failure": log.failure(),
            "segments": get(&log.figures.segments),
            "bytes": get(&log.figures.log_bytes),
            "uncovered_bytes": get(&log.figures.uncovered_bytes),
            "records": get(&log.figures.records),
            "rounds": get(&log.figures.rounds),
            "written_bytes": get(&log.figures.written_bytes),
            "syncs": syncs.count(),
            "sync_seconds": syncs.sum_seconds(),
            "delayed_seconds": seconds(&log.figures.delayed_us),
        },
        "snapshots": {
            "running": snapshots.figures.is_running.load(Ordering::Relaxed),
            "progress": progress(snapshots),
            "made": get(&snapshots.figures.made),
            "failed": get(&snapshots.figures.failed),
            "last_bytes": get(&snapshots.figures.bytes),
            "last_records": get(&snapshots.figures.records),
            "last_seconds": seconds(&snapshots.figures.took_us),
            "last_at_ms": Some(get(&snapshots.figures.made_at_ms)).filter(|&at_ms| at_ms > 0),
        },
    })
}

/// Whether the node may lack what it had acknowledged before its start, and whether its log can be written now, and why; and
/// how its files are encrypted.
pub(super) fn durability(persistence: &Persistence) -> Value {
    json!({
        "incarnation": persistence.incarnation,
        "writes_may_be_missing": persistence.missing().is_some(),
        "reason": persistence.missing(),
        "log": persistence.log.as_ref().map(|log| condition(log)),
        "failure": persistence.log.as_ref().and_then(|log| log.failure()),
        "encryption": encryption(persistence),
        "keys_needed": persistence.snapshots.as_ref().map(|snapshots| snapshots.needed_keys()),
    })
}

/// What new files are encrypted with; null for not at all.
fn encryption(persistence: &Persistence) -> Value {
    match persistence.encryption.writes() {
        Some((cipher, key_id)) => json!({"cipher": cipher.name(), "key_id": key_id}),
        None => Value::Null,
    }
}

pub(super) fn condition(log: &Log) -> &'static str {
    match log.condition() {
        Condition::Open => "open",
        Condition::Full => "full",
        Condition::Broken => "broken",
    }
}

/// The part of the partitions that the present snapshot has; none if there is none.
pub(super) fn progress(snapshots: &Snapshots) -> Option<f64> {
    let is_running = snapshots.figures.is_running.load(Ordering::Relaxed);
    let done = get(&snapshots.figures.partitions) as f64;
    is_running.then(|| done / f64::from(henge_wire::PARTITIONS))
}

pub(super) fn get(figure: &AtomicU64) -> u64 {
    figure.load(Ordering::Relaxed)
}

pub(super) fn seconds(figure: &AtomicU64) -> f64 {
    get(figure) as f64 / 1e6
}
