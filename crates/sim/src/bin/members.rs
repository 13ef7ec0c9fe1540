//! `members`: how clusters of several sizes form, lose a tenth of their members at once and have them back, and what that costs
//! each member. Its exit code is 1 if they do not, or if the cost grows faster than the logarithm of the size.

use clap::{Arg, ArgAction, Command, value_parser};
use henge_sim::membership::{Plan, grows_faster_than_log, growth_over_log, run};
use henge_sim::run::catch_panics;
use std::process::ExitCode;

fn command() -> Command {
    Command::new("members")
        .about("Gossip, ring and topology of hundreds of members, in one thread, from a seed")
        .arg(
            Arg::new("members")
                .long("members")
                .help("Of so many; several by commas")
                .value_parser(value_parser!(u16).range(3..=2_000))
                .value_delimiter(',')
                .default_values(["25", "50", "100", "200", "400"]),
        )
        .arg(
            Arg::new("seed")
                .long("seed")
                .help("The first seed")
                .value_parser(value_parser!(u64))
                .default_value("1"),
        )
        .arg(
            Arg::new("seeds")
                .long("seeds")
                .help("So many seeds for each size")
                .value_parser(value_parser!(u64).range(1..))
                .default_value("1"),
        )
        .arg(
            Arg::new("rest")
                .long("rest")
                .help("Seconds of rest, in which it counts")
                .value_parser(value_parser!(u64).range(1..=3_600))
                .default_value("60"),
        )
        .arg(
            Arg::new("one-by-one")
                .long("one-by-one")
                .help("They join one after another")
                .action(ArgAction::SetTrue),
        )
}

fn main() -> ExitCode {
    catch_panics();
    let matches = command().get_matches();
    let sizes = matches.get_many::<u16>("members").into_iter().flatten();
    let number = |name: &str| matches.get_one::<u64>(name).copied().unwrap_or(1);
    println!(
        "{:>7} {:>5} {:>5} | {:>8} {:>10} {:>8} {:>8} | {:>9} {:>8} | {:>9} {:>8} | suspicions, with cuts, longest",
        "members",
        "seed",
        "lost",
        "form ms",
        "first down",
        "all down",
        "all back",
        "rest: 1/s",
        "bytes/s",
        "loss: 1/s",
        "bytes/s"
    );
    let mut all_hold = true;
    let mut rates = Vec::new();
    for &members in sizes {
        for seed in number("seed")..number("seed") + number("seeds") {
            let plan = Plan {
                seed,
                members: members.into(),
                lost: usize::from(members).div_ceil(10),
                rest_ms: number("rest") * 1_000,
                is_one_by_one: matches.get_flag("one-by-one"),
                is_disturbed: true,
            };
            match run(&plan) {
                Ok(found) => {
                    println!(
                        "{members:>7} {seed:>5} {:>5} | {:>8} {:>10} {:>8} {:>8} | {:>9.1} {:>8.0} | {:>9.1} {:>8.0} | {}, {}, {} ms",
                        plan.lost,
                        found.formed_ms,
                        found.first_down_ms,
                        found.all_down_ms,
                        found.back_ms,
                        found.rest.datagrams,
                        found.rest.bytes,
                        found.loss.datagrams,
                        found.loss.bytes,
                        found.suspicions,
                        found.cut_suspicions,
                        found.longest_ms
                    );
                    rates.push((plan.members, found.rest));
                }
                Err(failure) => {
                    println!("{members:>7} {seed:>5} {failure}");
                    all_hold = false;
                }
            }
        }
    }
    println!("figure members_bytes_growth {:.4}", growth_over_log(&rates));
    if let Some(worse) = grows_faster_than_log(&rates) {
        println!("{worse}");
        all_hold = false;
    }
    ExitCode::from(u8::from(!all_hold))
}
