//! Repairs a data directory that a start refuses: says what is wrong and what each way out loses, and carries one out. What
//! is damaged is left out, with a mark that has replay forget what may have been changed there, or all from there on is
//! dropped. It never mends a file in place, and never makes up a value.

mod course;
mod diagnosis;
mod overlay;
mod remake;
mod segments;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;

use henge_engine::persistence::cipher::KeyError;
use henge_engine::persistence::frame::{Damage, Frame, HEADER_BYTES, HeaderError};
use henge_engine::persistence::recovery::{Cut, LogEnd, RecoveryError};
use henge_engine::persistence::walk::Walk;
use henge_engine::persistence::{FileKind, Name, Position, Storage};

use super::directory::{DirectoryError, State};
pub(crate) use diagnosis::Health;
use diagnosis::{Trouble, diagnose};
pub(crate) use overlay::Overlay;

/// More rounds than any damage takes: each mends a file or a place.
const MAX_ROUNDS: usize = 10_000;

/// How to go on where something cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    /// Drop all from there on.
    Cut,
    /// Leave out what cannot be read, and forget what may have been changed there.
    Skip,
}

/// Something that a repair does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Bytes of the log are left out.
    LeftOut { at: Position, bytes: u64 },
    /// The header of a file is made anew: its salt was found to be right.
    Header(Name),
    /// Segments of the log are not there; such as only say so take their place.
    Missing { first: u64, last: u64 },
    /// A segment ends here.
    Cut { at: Position, lost: Survey },
    /// A file is put aside.
    Aside { name: Name, lost: Survey },
    /// A snapshot is made again of what can be read of it.
    Remade {
        name: Name,
        /// Bytes that cannot be read.
        lost_bytes: u64,
        /// Records that are kept.
        records: u64,
        /// Partitions whose records are not.
        dropped: usize,
    },
    /// The snapshot does without the end of the log, as that is gone.
    Shortened(Name),
}

/// What is in a part of the log, as far as it can be read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Survey {
    /// Bytes, without the zeros at the end.
    pub(crate) bytes: u64,
    /// Whole records that are of a partition.
    pub(crate) records: u64,
    /// The partitions that those are of.
    pub(crate) partitions: BTreeSet<u16>,
}

/// A repair that helps.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// What a start makes of it then.
    pub(crate) health: Health,
    overlay: Overlay,
}

/// Why there is no repair.
#[derive(Debug)]
pub(crate) enum RepairError {
    /// The system refused.
    Io(Option<Name>, io::Error),
    /// A file is of another version, not damaged.
    Format(Name, HeaderError),
    /// A file is encrypted, and its key is not there or is another: it may be whole.
    Key(Name, KeyError),
    /// It still would not start: what is wrong.
    Unmended(String),
    /// The directory cannot be had.
    Directory(DirectoryError),
}

impl fmt::Display for RepairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(Some(name), error) => write!(f, "{name}: {error}"),
            Self::Io(None, error) => error.fmt(f),
            Self::Format(name, error) => write!(
                f,
                "{name}: {error}: that is no damage; use the version that wrote it"
            ),
            Self::Key(name, error) => write!(f, "{name}: {error}"),
            Self::Unmended(wrong) => write!(f, "that is not enough to start: {wrong}"),
            Self::Directory(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RepairError {}

/// What a start would make of the directory as it is.
#[derive(Debug)]
pub(crate) enum Finding {
    /// It would start.
    Starts(Box<Health>),
    /// It would refuse: what it would say.
    Refuses(String),
}

/// Finds out whether a start would succeed.
pub(crate) fn find(overlay: &Overlay) -> Result<Finding, RepairError> {
    refuse_unreadable(overlay)?;
    match diagnose(overlay) {
        Ok(health) => Ok(Finding::Starts(Box::new(health))),
        Err(trouble) => match trouble.error {
            RecoveryError::Io(name, error) => Err(RepairError::Io(name, error)),
            RecoveryError::Key(name, error) => Err(RepairError::Key(name, error)),
            // The start says of two snapshots what is wrong with the newest.
            error => Ok(Finding::Refuses(match trouble.broken.first() {
                Some((_, wrong)) => wrong.clone(),
                None => error.to_string(),
            })),
        },
    }
}

/// Refuses a directory of which a file is encrypted with a key that is not there, or is another: what cannot be read is not to
/// be dropped as if it were damaged.
fn refuse_unreadable(overlay: &Overlay) -> Result<(), RepairError> {
    let names = overlay
        .names()
        .map_err(|error| RepairError::Io(None, error))?;
    for name in names {
        let file = overlay.open(name).map_err(of(name))?;
        let Ok(header) = segments::read_header(&file) else {
            continue;
        };
        let mut walk = Walk::new(file, header, overlay.keys()).map_err(of(name))?;
        if let Some(error) = walk.key_error() {
            return Err(RepairError::Key(name, error.clone()));
        }
        let first = walk.look(HEADER_BYTES as u64).map_err(of(name))?;
        if matches!(first, Frame::Damaged(Damage::Sealed)) {
            let wrong = KeyError::Wrong(header.key_id);
            return Err(RepairError::Key(name, wrong));
        }
    }
    Ok(())
}

impl Plan {
    /// Finds out what has to be done for a start to succeed.
    pub(crate) fn make(mut overlay: Overlay, choice: Choice) -> Result<Self, RepairError> {
        let mut steps = Vec::new();
        let mut before = String::new();
        for _ in 0..MAX_ROUNDS {
            let trouble = match diagnose(&overlay) {
                Ok(health) => {
                    return Ok(Self {
                        steps,
                        health,
                        overlay,
                    });
                }
                Err(trouble) => trouble,
            };
            let wrong = trouble.to_string();
            if wrong == before {
                return Err(RepairError::Unmended(wrong));
            }
            before = wrong;
            mend(&mut overlay, choice, *trouble, &mut steps)?;
        }
        match find(&overlay)? {
            Finding::Refuses(wrong) => Err(RepairError::Unmended(wrong)),
            Finding::Starts(health) => Ok(Self {
                steps,
                health: *health,
                overlay,
            }),
        }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        !self.overlay.is_changed()
    }

    /// What is lost of the log, for all steps together.
    pub(crate) fn lost(&self) -> Survey {
        let mut sum = Survey::default();
        for step in &self.steps {
            match step {
                Step::Cut { lost, .. } | Step::Aside { lost, .. } => {
                    sum.bytes += lost.bytes;
                    sum.records += lost.records;
                    sum.partitions.extend(&lost.partitions);
                }
                Step::LeftOut { bytes, .. } => sum.bytes += bytes,
                Step::Remade { lost_bytes, .. } => sum.bytes += lost_bytes,
                Step::Header(_) | Step::Missing { .. } | Step::Shortened(_) => {}
            }
        }
        sum
    }

    /// Does it. The next start will say that writes may be missing.
    pub(crate) fn carry_out(
        &self,
        directory: &std::path::Path,
        state: Option<State>,
    ) -> Result<Vec<(Name, PathBuf)>, RepairError> {
        if let Some(state) = state {
            // Before anything is changed: a repair that is cut off may have dropped something already.
            let marked = state.mark_repaired(directory);
            marked.map_err(RepairError::Directory)?;
        }
        self.overlay
            .carry_out()
            .map_err(|error| RepairError::Io(None, error))
    }
}

/// Does away with what keeps a start from succeeding, or with a part of it.
fn mend(
    overlay: &mut Overlay,
    choice: Choice,
    trouble: Trouble,
    steps: &mut Vec<Step>,
) -> Result<(), RepairError> {
    let newest_broken = trouble.broken.first().map(|(name, _)| *name);
    match (newest_broken, choice) {
        (None, Choice::Skip) => segments::skip(overlay, trouble, steps),
        (None, Choice::Cut) => segments::cut(overlay, trouble, steps),
        (Some(name), Choice::Skip) => {
            if remake::try_without(overlay, name, steps)? {
                return Ok(());
            }
            remake::remake(overlay, name, steps)
        }
        (Some(_), Choice::Cut) => {
            // What a snapshot has of a key is not in the log after it, so without it nothing of that is of use.
            let names = overlay
                .names()
                .map_err(|error| RepairError::Io(None, error))?;
            for name in names.into_iter().rev() {
                if name.kind != FileKind::Unfinished {
                    let lost = segments::survey(overlay, name, 0)?;
                    overlay.put_aside(name);
                    steps.push(Step::Aside { name, lost });
                }
            }
            Ok(())
        }
    }
}

/// Says where the log ends, for people, if a start would cut it there.
pub(crate) fn torn(log: &LogEnd) -> Option<String> {
    let Cut {
        at,
        bytes,
        segments,
    } = log.cut?;
    let behind = match segments {
        0 => String::new(),
        segments => format!(", with {segments} segments behind it"),
    };
    Some(format!(
        "the log is torn, as a crash leaves it: a start cuts {bytes} bytes at {at}{behind}"
    ))
}

fn of(name: Name) -> impl Fn(io::Error) -> RepairError {
    move |error| RepairError::Io(Some(name), error)
}
