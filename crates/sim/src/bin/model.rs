//! `model`: explores the model of the partition protocol by hand, deeper than CI does.

use henge_cluster::bugs::Bugs;
use henge_sim::model::{Wanted, run};
use std::process::ExitCode;

const USAGE: &str = "model [--configuration NAME] [--depth STEPS] [--bug NUMBER] [--threads COUNT]";

fn main() -> ExitCode {
    let Some(wanted) = wanted(std::env::args().skip(1)) else {
        eprintln!("usage: {USAGE}");
        return ExitCode::from(2);
    };
    let all_hold = run(&wanted, &mut |line| println!("{line}"));
    ExitCode::from(u8::from(!all_hold))
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Option<Wanted> {
    let mut wanted = Wanted {
        configuration: None,
        depth: None,
        bugs: Bugs::default(),
        threads: 1,
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match name.as_str() {
            "--configuration" => wanted.configuration = Some(value),
            "--depth" => wanted.depth = Some(value.parse().ok()?),
            "--bug" => wanted.bugs = Bugs::only(value.parse().ok().filter(|bug| *bug < 32)?),
            "--threads" => wanted.threads = value.parse().ok().filter(|count| *count > 0)?,
            _ => return None,
        }
    }
    Some(wanted)
}
