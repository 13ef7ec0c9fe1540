//! What a start would make of a directory, found out without changing it: which snapshot it would load, how far the log goes,
//! and what it would refuse. It goes the way of `disk/recovery.rs`, but keeps no values.

use std::fmt;

use henge_engine::ReplayError;
use henge_engine::persistence::frame::Damage;
use henge_engine::persistence::inventory::Inventory;
use henge_engine::persistence::recovery::{Chunk, LogEnd, RecoveryError, read_log};
use henge_engine::persistence::snapshot::Part;
use henge_engine::persistence::snapshot_file::SnapshotReader;
use henge_engine::persistence::wal::{self, Record};
use henge_engine::persistence::{FileKind, Name, Position, Storage};

use super::course::Course;

/// A start would succeed.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    /// The snapshot that it would load.
    pub(crate) snapshot: Option<Name>,
    /// The records of that.
    pub(crate) restored: u64,
    /// How far the log goes.
    pub(crate) log: LogEnd,
    pub(crate) course: Course,
    /// Newer snapshots that cannot be read.
    pub(crate) passed_over: Vec<(Name, String)>,
}

/// A start would fail.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// Snapshots that cannot be read, the newest first.
    pub(super) broken: Vec<(Name, String)>,
    /// What the start would say.
    pub(super) error: RecoveryError,
    /// The snapshot whose log was read; none if there is none, and the log was read from its begin.
    pub(super) snapshot: Option<Name>,
    /// How far the log must go.
    pub(super) needed: Position,
    /// What was read until then.
    pub(super) course: Course,
}

impl Trouble {
    /// The segment that the log is read from.
    pub(super) fn from(&self) -> u64 {
        self.snapshot.map_or(1, |name| name.number)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// Finds out what a start would make of it.
pub(crate) fn diagnose<S: Storage>(storage: &S) -> Result<Health, Box<Trouble>> {
    let fail = |broken, error| {
        Box::new(Trouble {
            broken,
            error,
            snapshot: None,
            needed: Position::default(),
            course: Course::new(),
        })
    };
    let names = storage
        .names()
        .map_err(|error| fail(Vec::new(), RecoveryError::Io(None, error)))?;
    let snapshots = names
        .iter()
        .rev()
        .filter(|name| name.kind == FileKind::Snapshot);
    let mut broken: Vec<(Name, String)> = Vec::new();
    let mut first = None;
    let mut whole = None;
    for name in snapshots {
        let mut course = Course::new();
        match read_snapshot(storage, *name, &mut course) {
            Ok(complete) => {
                whole = Some((*name, complete, course));
                break;
            }
            // What the system does not give, or no key opens, is not known to be damaged.
            Err(error @ (RecoveryError::Io(..) | RecoveryError::Key(..))) => {
                return Err(fail(Vec::new(), error));
            }
            Err(error) => {
                broken.push((*name, error.to_string()));
                first.get_or_insert(error);
            }
        }
    }
    let (snapshot, complete, mut course) = match (whole, first) {
        (Some((name, complete, course)), _) => (Some(name), complete, course),
        (None, Some(error)) => return Err(fail(broken, error)),
        (None, None) => (None, Complete::default(), Course::new()),
    };
    let from = snapshot.map_or(1, |name| name.number);
    let needed = complete.position;
    let log = follow(storage, from, needed, &mut |_, record| {
        course
            .replayed(record)
            .map_err(|not_next| not_next.to_string())
    });
    match log {
        Ok(log) => {
            course.finish();
            Ok(Health {
                snapshot,
                restored: complete.records,
                log,
                course,
                passed_over: broken,
            })
        }
        Err(error) => Err(Box::new(Trouble {
            broken,
            error,
            snapshot,
            needed,
            course,
        })),
    }
}

/// The end of a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Complete {
    pub(super) position: Position,
    pub(super) records: u64,
    pub(super) at_ms: u64,
}

/// Reads a snapshot to its end.
fn read_snapshot<S: Storage>(
    storage: &S,
    name: Name,
    course: &mut Course,
) -> Result<Complete, RecoveryError> {
    let reader = SnapshotReader::open(storage, name)?;
    let mut complete = Complete::default();
    let mut scratch = Vec::new();
    let mut inventory = Inventory::default();
    reader.read_all(|_, part| {
        inventory.take(&part)?;
        match part {
            Part::Block(block) => block.own_records(&mut scratch, |record| {
                course.restored(block.partition, record.version);
            })?,
            // A node without a cluster has none.
            Part::Replica { .. } => {}
            Part::Partition {
                partition,
                progress,
                ..
            } => course.resumed(partition, progress.last),
            Part::Complete {
                position,
                records,
                at_ms,
            } => {
                complete = Complete {
                    position,
                    records,
                    at_ms,
                };
            }
        }
        Ok(())
    })?;
    Ok(complete)
}

/// Reads the log from a segment on, and shows its records with the places of their frames.
pub(super) fn follow<S: Storage>(
    storage: &S,
    from: u64,
    needed: Position,
    show: &mut dyn FnMut(Position, &Record<'_>) -> Result<(), String>,
) -> Result<LogEnd, RecoveryError> {
    let mut each = |chunk: Chunk| {
        let name = Name::segment(chunk.segment);
        let mut effects = Vec::new();
        for (offset, body) in chunk.bodies() {
            let damaged = |damage: Damage| RecoveryError::Damaged {
                name,
                offset,
                damage,
            };
            let record = wal::decode(body, &mut effects).map_err(damaged)?;
            if let Record::Mutation(mutation) = &record
                && !wal::has_own_keys(mutation)
            {
                return Err(RecoveryError::Order {
                    name,
                    offset,
                    detail: ReplayError::Foreign(mutation.partition).to_string(),
                });
            }
            let at = Position {
                segment: chunk.segment,
                offset,
            };
            show(at, &record).map_err(|detail| RecoveryError::Order {
                name,
                offset,
                detail,
            })?;
        }
        Ok(())
    };
    let log = read_log(storage, from, needed, &mut each)?;
    log.settle(storage)?;
    Ok(log)
}
