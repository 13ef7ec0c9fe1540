//! `model`: explores the model of the partition protocol by hand, deeper than CI does. Its exit code is 1 if a law is broken.

use clap::{Arg, ArgMatches, Command, value_parser};
use henge_cluster::bugs::Bugs;
use henge_sim::model::configurations::CONFIGURATIONS;
use henge_sim::model::{Wanted, run};
use henge_sim::run::catch_panics;
use std::process::ExitCode;

fn command() -> Command {
    let names = CONFIGURATIONS.iter().map(|known| known.name);
    Command::new("model")
        .about("All that can happen to the replicas of a partition, each state once")
        .arg(
            Arg::new("configuration")
                .long("configuration")
                .help("From where; from all of them unless it is said")
                .value_parser(names.collect::<Vec<_>>()),
        )
        .arg(
            Arg::new("depth")
                .long("depth")
                .help("Up to so many steps; as many as in CI unless it is said")
                .value_parser(value_parser!(u16)),
        )
        .arg(
            Arg::new("bug")
                .long("bug")
                .help("Switches a planted bug on, by its number")
                .value_parser(value_parser!(Bugs)),
        )
        .arg(
            Arg::new("threads")
                .long("threads")
                .help("On so many cores. With one the states come in the same order each time")
                .value_parser(value_parser!(u16).range(1..))
                .default_value("1"),
        )
}

fn wanted(matches: &ArgMatches) -> Wanted {
    Wanted {
        configuration: matches.get_one::<String>("configuration").cloned(),
        depth: matches.get_one::<u16>("depth").map(|&steps| steps.into()),
        bugs: matches.get_one::<Bugs>("bug").copied().unwrap_or_default(),
        threads: matches
            .get_one::<u16>("threads")
            .map_or(1, |&count| count.into()),
    }
}

fn main() -> ExitCode {
    catch_panics();
    let wanted = wanted(&command().get_matches());
    let all_hold = run(&wanted, &mut |line| println!("{line}"));
    ExitCode::from(u8::from(!all_hold))
}
