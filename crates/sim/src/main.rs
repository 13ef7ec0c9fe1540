//! `henge-sim`: runs one seed or many, says what they covered, and makes a failure small. Its exit code is 1 if a seed failed,
//! or if there is something that none of many seeds has reached.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use henge_cluster::bugs::Bugs;
use henge_sim::engine::Engine;
use henge_sim::plan::{Plan, Scenario};
use henge_sim::run::{Options, Report, catch_panics, run};
use henge_sim::shrink::shrink;
use henge_sim::store::Store;
use henge_sim::sweep::sweep;
use henge_sim::toy::Toy;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

/// So many seeds reach everything, if it can be reached.
const SEEDS_FOR_COVERAGE: u64 = 1_000;
/// Lines of a trace that are shown, unless all are asked for.
const LAST_LINES: usize = 60;

fn command() -> Command {
    let number = |name: &'static str| Arg::new(name).long(name).value_parser(value_parser!(u64));
    let count = |name| number(name).value_parser(value_parser!(u64).range(1..));
    Command::new("henge-sim")
        .about("The partition protocol under faults, in one thread, from a seed")
        .arg(number("seed").help("Runs this one").conflicts_with("seeds"))
        .arg(count("seeds").help("Runs so many").default_value("1000"))
        .arg(number("from").help("The first of them").default_value("1"))
        .arg(count("threads").help("On so many cores; all of them unless it is said"))
        .arg(
            count("failures")
                .help("Stops after so many that fail")
                .default_value("1"),
        )
        .arg(
            Arg::new("scenario")
                .long("scenario")
                .help("Tells another story than all of them")
                .value_parser(["any", "full-cache"])
                .default_value("any"),
        )
        .arg(
            Arg::new("table")
                .long("table")
                .help("What the replicas' tables are: the engine, or a toy, which is faster")
                .value_parser(["engine", "toy"])
                .default_value("engine"),
        )
        .arg(
            Arg::new("bug")
                .long("bug")
                .help("Switches a planted bug on, by its number")
                .value_parser(value_parser!(Bugs)),
        )
        .arg(
            Arg::new("trace")
                .long("trace")
                .help("Shows all that happens")
                .action(ArgAction::SetTrue),
        )
}

fn main() -> ExitCode {
    catch_panics();
    let matches = command().get_matches();
    let options = Options {
        scenario: match matches.get_one::<String>("scenario").map(String::as_str) {
            Some("full-cache") => Scenario::FullCache,
            _ => Scenario::Any,
        },
        bugs: matches.get_one::<Bugs>("bug").copied().unwrap_or_default(),
        is_traced: matches.get_flag("trace"),
        is_extended: true,
    };
    let is_toy = matches.get_one::<String>("table").map(String::as_str) == Some("toy");
    match (matches.get_one::<u64>("seed"), is_toy) {
        (Some(&seed), true) => one::<Toy>(seed, &options),
        (Some(&seed), false) => one::<Engine>(seed, &options),
        (None, true) => many::<Toy>(&matches, &options),
        (None, false) => many::<Engine>(&matches, &options),
    }
}

fn one<S: Store>(seed: u64, options: &Options) -> ExitCode {
    let plan = Rc::new(Plan::new(seed, options.scenario));
    let begin = Instant::now();
    let report = run::<S>(&plan, options);
    print!("{}", report.trace);
    let (faults, kinds) = report.coverage.faults();
    println!(
        "seed {seed}: {} nodes, {} replicas of {} partitions; {} operations answered in {} ms of its time, {faults} faults of \
         {kinds} kinds; {:.1} ms",
        plan.nodes,
        plan.replication,
        plan.partitions,
        report.completed,
        report.lasted_ms,
        begin.elapsed().as_secs_f64() * 1e3,
    );
    if report.failure.is_none() {
        return ExitCode::SUCCESS;
    }
    explain::<S>(seed, &plan, &report, options);
    ExitCode::FAILURE
}

fn many<S: Store>(matches: &ArgMatches, options: &Options) -> ExitCode {
    let number = |name| matches.get_one::<u64>(name).copied();
    let (from, count) = (number("from").unwrap_or(1), number("seeds").unwrap_or(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = number("threads").map_or(cores, |threads| threads as usize);
    let most = number("failures").unwrap_or(1) as usize;
    let begin = Instant::now();
    let swept = sweep::<S>(from, count, most, threads, options);
    let elapsed = begin.elapsed().as_secs_f64();
    print!("{}", swept.coverage);
    println!(
        "{} seeds from {from}: {} operations answered under {} faults; {} undecided by the checker; {elapsed:.1} s on {threads} cores, {:.1} ms each",
        swept.seeds,
        swept.completed,
        swept.faults,
        swept.undecided,
        elapsed * 1e3 / swept.seeds as f64 * threads as f64,
    );
    for (seed, report) in &swept.failures {
        if let Some((place, text)) = &report.failure {
            println!("seed {seed} fails: {text} ({place})");
        }
    }
    if let Some((seed, report)) = swept.failures.first() {
        let plan = Plan::new(*seed, options.scenario);
        explain::<S>(*seed, &plan, report, options);
        return ExitCode::FAILURE;
    }
    let missing = swept.coverage.missing();
    if options.scenario == Scenario::Any && count >= SEEDS_FOR_COVERAGE && !missing.is_empty() {
        println!("never seen: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Makes it small, and shows it.
fn explain<S: Store>(seed: u64, plan: &Plan, report: &Report, options: &Options) {
    let (small, shown) = shrink::<S>(plan, report, options);
    let Some((place, text)) = &shown.failure else {
        println!("seed {seed} fails, and not again: the world is not deterministic");
        return;
    };
    println!("seed {seed} fails: {text}");
    println!("  at {place}");
    println!(
        "  {} nodes, {} replicas of {} partitions with {} keys and room for {:?} records, parts of {}; {} of {} clients, {} \
         operations",
        small.nodes,
        small.replication,
        small.partitions,
        small.keys,
        &small.rooms[1..=small.nodes],
        small.part_records,
        small.clients - small.silent.len(),
        small.clients,
        small.operations,
    );
    for event in &small.faults {
        println!(
            "  at {} ms for {} ms: {:?}",
            event.at_ms, event.for_ms, event.fault
        );
    }
    let lines: Vec<&str> = shown.trace.lines().collect();
    let from = if options.is_traced {
        0
    } else {
        lines.len().saturating_sub(LAST_LINES)
    };
    println!("its last {} of {} lines:", lines.len() - from, lines.len());
    for line in &lines[from..] {
        println!("{line}");
    }
}
