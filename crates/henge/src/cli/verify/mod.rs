//! `henge verify`: whether a cluster tells lies. A load is driven at nodes that are started for it, or run already, faults are injected into
//! the first, and what clients were told is judged by `henge-checker`. This file starts and ends it, and has the exit codes; `conduct` is
//! the run, `load` what clients do, `judge` the verdict on it, `report` and `html` what is said of it.

mod conduct;
mod faults;
mod history;
mod html;
mod judge;
mod load;
mod network;
mod nodes;
mod options;
mod report;
mod reported;
mod request;
mod tally;
mod whole;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::shown;

pub use options::{Options, Plan};
pub(super) use options::{command, understood};

/// The exit code for a lie, an acknowledged write that is lost, or a node that ended by itself.
const EXIT_BAD: u8 = 1;
/// The exit code where nothing could be found out. 2 is that of a wrong command line.
const EXIT_FAILED: u8 = 3;

/// Checks, and reports on standard output and in the files that were asked for.
pub(super) fn run(options: &Options) -> ExitCode {
    let done = match options {
        Options::Run(plan) => checked(plan),
        Options::Check { file, json } => judge::judge_file(file).and_then(|findings| {
            let text = match json {
                true => report::file_json(&findings),
                false => report::file_text(&findings),
            };
            print(&text)?;
            if findings.events == 0 {
                return Err("it has no events, so nothing was checked".to_owned());
            }
            Ok(findings.lie_count + findings.returned == 0)
        }),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_BAD),
        Err(line) => {
            let _ = writeln!(io::stderr(), "henge: {line}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Runs a plan; whether all is well.
fn checked(plan: &Plan) -> Result<bool, String> {
    let create = |file: &PathBuf| {
        let created = File::create(file).map(|page| (file.clone(), page));
        created.map_err(|error| unwritable(file, &error))
    };
    // Before the run: an hour later is too late to find out that a page cannot be written.
    let page = plan.report.as_ref().map(create).transpose()?;
    let outcome = conduct::run(plan)?;
    let text = if plan.json {
        outcome.json()
    } else {
        outcome.text()
    };
    print(&text)?;
    if let Some((file, mut page)) = page {
        page.write_all(outcome.html().as_bytes())
            .map_err(|error| unwritable(&file, &error))?;
    }
    if let Some(why) = &outcome.findings.unwritten {
        return Err(why.clone());
    }
    if outcome.answered() == 0 {
        return Err("nothing was answered, so nothing was checked".to_owned());
    }
    Ok(outcome.is_good())
}

fn unwritable(file: &Path, error: &io::Error) -> String {
    format!("{} cannot be written: {error}", shown(file))
}

fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever closed standard output does not want to read it; the exit code and the files may still be wanted.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("standard output cannot be written: {error}"))
        }
        _ => Ok(()),
    }
}
