//! `henge repair`: what is wrong with a data directory, what each way out loses, and what was done, in words. Finding out and
//! doing it is `disk/repair/`.

use std::path::Path;

use super::{Failure, Output};
use crate::cli::simulate::grouped;
use crate::config::shown;
use crate::disk::directory::{Directory, State};
use crate::disk::repair::{
    Choice, Finding, Health, Overlay, Plan, RepairError, Step, Survey, find, torn,
};
use crate::encryption::Encryption;
use henge_wire::PARTITIONS;

pub(super) fn run(
    directory: &Path,
    choice: Option<Choice>,
    dry_run: bool,
    encryption: Encryption,
    out: &mut Output,
) -> Result<(), Failure> {
    let failed = |error: RepairError| Failure::failed(format!("{}: {error}", shown(directory)));
    let (lock, state) = Directory::borrow(directory.to_owned()).map_err(Failure::failed)?;
    if state.as_ref().is_some_and(State::is_memory_only) {
        out.line("The node kept everything in memory since the log and the snapshots here were written: a start removes them.");
        out.line("There is nothing to repair.");
        return Ok(());
    }
    let overlay = Overlay::new(directory, encryption)
        .map_err(|error| failed(RepairError::Io(None, error)))?;
    let wrong = match find(&overlay).map_err(failed)? {
        Finding::Starts(health) => {
            describe(&health, out);
            out.line("A node starts on it: there is nothing to repair.");
            return Ok(());
        }
        Finding::Refuses(wrong) => wrong,
    };
    let would_not = format!("{}: no node starts on it: {wrong}", shown(directory));
    let Some(choice) = choice else {
        out.line(format_args!("No node starts on it: {wrong}"));
        for choice in [Choice::Cut, Choice::Skip] {
            out.line("");
            match Plan::make(overlay.clone(), choice) {
                Ok(plan) => offer(&plan, choice, out),
                Err(error) => out.line(format_args!("{} does not help: {error}", flag(choice))),
            }
        }
        out.line("");
        out.line(
            "Nothing was changed. A backup may hold more than either leaves: henge restore --help.",
        );
        return Err(Failure::damaged(would_not));
    };
    let plan = Plan::make(overlay, choice).map_err(failed)?;
    out.line(format_args!("No node starts on it: {wrong}"));
    offer(&plan, choice, out);
    if dry_run {
        out.line("Nothing was changed.");
        return Err(Failure::damaged(would_not));
    }
    let has_state = state.is_some();
    let kept = plan.carry_out(directory, state).map_err(failed)?;
    drop(lock);
    out.line("");
    for (name, path) in kept {
        let path = path.file_name().unwrap_or_default().to_string_lossy();
        out.line(format_args!("{name} as it was is kept as {path}"));
    }
    describe(&plan.health, out);
    out.line(if has_state {
        "A node starts on it, and says that writes may be missing."
    } else {
        "A node starts on it, as a new one: there is no node.json."
    });
    Ok(())
}

fn flag(choice: Choice) -> &'static str {
    match choice {
        Choice::Cut => "--cut",
        Choice::Skip => "--skip",
    }
}

/// Says what a start would load.
fn describe(health: &Health, out: &mut Output) {
    for (name, wrong) in &health.passed_over {
        out.line(format_args!("{wrong}; a start passes over {name}"));
    }
    let log = grouped(health.log.records);
    match health.snapshot {
        Some(name) => out.line(format_args!(
            "It loads {} records of {name}, and {log} of the log after it.",
            grouped(health.restored)
        )),
        None => out.line(format_args!(
            "It loads {log} records of the log, and no snapshot."
        )),
    }
    if let Some(torn) = torn(&health.log) {
        out.line(format_args!("{torn}."));
    }
}

/// Says what a repair does, and what that loses.
fn offer(plan: &Plan, choice: Choice, out: &mut Output) {
    if plan.is_empty() {
        return;
    }
    out.line(format_args!("{}:", flag(choice)));
    for step in &plan.steps {
        out.line(format_args!("  {}", line(step)));
    }
    let forgotten = plan.health.course.forgotten.len();
    let lost = plan.lost();
    match choice {
        Choice::Skip => {
            out.line(format_args!(
                "  {} bytes are lost; {} of {} partitions are forgotten, as keys of them may have been changed there",
                grouped(lost.bytes),
                grouped(forgotten as u64),
                grouped(PARTITIONS.into())
            ));
            out.line("  no value comes back that was replaced or removed later");
        }
        Choice::Cut => {
            out.line(format_args!("  {} are lost{}", of(&lost), among(&lost)));
            out.line("  keys have the values again that they had before: older ones than were acknowledged later");
        }
    }
}

fn of(survey: &Survey) -> String {
    match survey.records {
        0 => format!("{} bytes", grouped(survey.bytes)),
        records => format!(
            "{} bytes with {} records that can be read",
            grouped(survey.bytes),
            grouped(records)
        ),
    }
}

fn among(survey: &Survey) -> String {
    match survey.partitions.len() {
        0 => String::new(),
        partitions => format!(", of {} partitions", grouped(partitions as u64)),
    }
}

fn line(step: &Step) -> String {
    match step {
        Step::LeftOut { at, bytes } => {
            format!("{} bytes are left out of {at}", grouped(*bytes))
        }
        Step::Header(name) => {
            format!("the header of {name} is made anew; the records behind it are whole")
        }
        Step::Missing { first, last } if first == last => {
            format!(
                "a segment that only says so takes the place of number {first}, which is missing"
            )
        }
        Step::Missing { first, last } => format!(
            "segments that only say so take the places of numbers {first} to {last}, which are missing"
        ),
        Step::Cut { at, lost } => format!("the log ends in {at}: {} are dropped", of(lost)),
        Step::Aside { name, lost } => format!("{name} is put aside: {}", of(lost)),
        Step::Remade {
            name,
            lost_bytes,
            records,
            dropped,
        } => {
            let dropped = match dropped {
                0 => String::new(),
                dropped => format!(
                    "; those of {dropped} partitions are dropped, whose place in the log is lost"
                ),
            };
            format!(
                "{name} is made again with the {} records that can be read; {} bytes cannot{dropped}",
                grouped(*records),
                grouped(*lost_bytes)
            )
        }
        Step::Shortened(name) => {
            format!("{name} does without the end of the log, which it was made with")
        }
    }
}
