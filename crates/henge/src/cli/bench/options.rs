//! What `henge bench` can be told. The values are checked here, so that the load meets only such as make sense.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use henge_client::Target;

use super::super::{client, duration};

/// What is to be measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub(super) target: Target,
    pub(super) connections: usize,
    pub(super) threads: usize,
    pub(super) duration: Duration,
    pub(super) warmup: Duration,
    pub(super) timeout: Duration,
    pub(super) keys: u64,
    pub(super) size: usize,
    /// The part of the requests that read.
    pub(super) read: f64,
    /// Requests a second over all connections; none for as many as are answered.
    pub(super) rate: Option<u64>,
    pub(super) pipeline: usize,
    pub(super) is_zipf: bool,
    pub(super) seed: u64,
    /// Whether every key is written before.
    pub(super) load: bool,
    pub(super) json: Option<PathBuf>,
    pub(super) html: Option<PathBuf>,
}

pub(in crate::cli) fn command() -> Command {
    let number =
        |name: &'static str, default: &'static str, range: std::ops::RangeInclusive<u64>| {
            Arg::new(name)
                .long(name)
                .value_name("NUMBER")
                .default_value(default)
                .value_parser(clap::value_parser!(u64).range(range))
        };
    let time = |name: &'static str, default: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("DURATION")
            .default_value(default)
            .value_parser(duration::parse_positive)
    };
    let file = |name: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("FILE")
            .value_parser(ValueParser::path_buf())
    };
    Command::new("bench")
        .about("Measure the throughput and latency of a server")
        .after_help(AFTER_HELP)
        .args([
            client::url(),
            client::timeout(),
            number("connections", "50", 1..=100_000)
                .short('c')
                // As `-c=50` is read.
                .alias("c")
                .help("Connections, each with one request or one pipeline at a time"),
            number("threads", "1", 1..=1024)
                .help("Threads of the load; more than one where one is fully used"),
            time("duration", "30s")
                .short('d')
                .alias("d")
                .help("How long to measure"),
            time("warmup", "2s")
                .value_parser(duration::parse)
                .help("How long the load runs before it is measured"),
            number("keys", "10000", 1..=10_000_000_000).help("Keys that are read and written"),
            number("size", "500", 0..=512 << 20).help("Bytes of a value"),
            Arg::new("read")
                .long("read")
                .value_name("PART")
                .default_value("0.8")
                .value_parser(part)
                .help("The part of the requests that read, from 0 to 1"),
            Arg::new("rate")
                .long("rate")
                .value_name("NUMBER")
                .value_parser(clap::value_parser!(u64).range(1..=100_000_000))
                .help("Requests a second, by the clock [default: as many as are answered]"),
            number("pipeline", "1", 1..=10_000)
                .help("Requests that a connection sends at once, over redis:// only"),
            Arg::new("dist")
                .long("dist")
                .value_name("NAME")
                .default_value("uniform")
                .value_parser(["uniform", "zipf"])
                .help("How popular keys are: all alike, or by Zipf's law with exponent 0.99"),
            number("seed", "1", 0..=u64::MAX).help("The same seed gives the same keys and values"),
            Arg::new("no-load")
                .long("no-load")
                .action(ArgAction::SetTrue)
                .help("Do not write every key before"),
            file("json").help("Write the results to this file as JSON"),
            file("html").help("Write the results to this file as a page with plots"),
        ])
}

const AFTER_HELP: &str = "Every key, bench:0000000000 and so on, is written once before, so that reads hit; then the load warms up, \
and then it is measured.
What it wrote stays. Ctrl-C ends it with the results so far.

Without --rate each connection sends its next request when the last is answered. A server that stalls is then asked less, and
the stall is seen by few requests. With --rate requests are due at fixed times, and their latency counts from then.
What is due in the warm-up and cannot be sent in it is dropped. It keeps a core busy to be on time.";

fn part(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part| (0.0..=1.0).contains(part));
    part.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// The options of a command line that clap has understood; the error is about several of them together.
pub(in crate::cli) fn understood(matches: &ArgMatches) -> Result<Options, String> {
    let number = |name: &str| matches.get_one::<u64>(name).copied().unwrap_or_default();
    let time = |name: &str| {
        matches
            .get_one::<Duration>(name)
            .copied()
            .unwrap_or_default()
    };
    let target: &Target = matches.get_one("url").ok_or("--url is missing")?;
    let options = Options {
        target: target.clone(),
        connections: number("connections") as usize,
        // A thread without a connection would only be in the way.
        threads: number("threads").min(number("connections")) as usize,
        duration: time("duration"),
        warmup: time("warmup"),
        timeout: time("timeout"),
        keys: number("keys"),
        size: number("size") as usize,
        read: matches.get_one("read").copied().unwrap_or_default(),
        rate: matches.get_one("rate").copied(),
        pipeline: number("pipeline") as usize,
        is_zipf: matches
            .get_one::<String>("dist")
            .is_some_and(|name| name == "zipf"),
        seed: number("seed"),
        load: !matches.get_flag("no-load"),
        json: matches.get_one("json").cloned(),
        html: matches.get_one("html").cloned(),
    };
    if options.pipeline > 1 && options.target.scheme.is_http() {
        return Err(
            "--pipeline needs a redis:// URL; HTTP has none that can be relied on".to_owned(),
        );
    }
    // What is under way at a time has to fit the memory of this machine.
    let at_once = options.size.saturating_mul(options.pipeline);
    if at_once > 1 << 30 {
        return Err("--size times --pipeline is more than 1 GiB for each connection".to_owned());
    }
    // Beyond a year the series of a run loses its meaning, and the clock its range.
    if options.duration.saturating_add(options.warmup) > Duration::from_hours(24 * 365) {
        return Err("--duration and --warmup are more than a year".to_owned());
    }
    Ok(options)
}

impl Options {
    /// The run in a line.
    pub(super) fn summary(&self) -> String {
        let count = |number: u64, what: &str| {
            let end = if number == 1 { "" } else { "s" };
            format!("{number} {what}{end}")
        };
        let load = match self.rate {
            Some(rate) => format!("open loop at {rate}/s"),
            None => "closed loop".to_owned(),
        };
        let pipeline = match self.pipeline {
            1 => String::new(),
            many => format!(", pipelines of {many}"),
        };
        format!(
            "{}, {}, {}, {} of {}, {}, {}% reads, {load}{pipeline}",
            self.target,
            count(self.connections as u64, "connection"),
            count(self.threads as u64, "thread"),
            count(self.keys, "key"),
            count(self.size as u64, "byte"),
            if self.is_zipf { "zipf" } else { "uniform" },
            (self.read * 1000.0).round() / 10.0,
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::bench) fn options(line: &str) -> Result<Options, String> {
        let words = line.split_whitespace();
        let matches = command().try_get_matches_from(["bench"].into_iter().chain(words));
        understood(&matches.map_err(|error| error.to_string())?)
    }

    #[test]
    fn options_and_their_defaults() {
        let defaults = options("").expect("all have defaults");
        assert_eq!(
            defaults.summary(),
            "http://localhost:8080, 50 connections, 1 thread, 10000 keys of 500 bytes, uniform, 80% reads, closed loop"
        );
        let given = options(
            "--url redis://h:1 -c 2 -d 500ms --keys 7 --size 1 --read 0.123 --rate 1000 --pipeline 8 --dist zipf \
             --warmup 0s --threads 9 --seed 18446744073709551615 --no-load --json a --html b",
        )
        .expect("all are good");
        assert_eq!(
            given.summary(),
            "redis://h:1, 2 connections, 2 threads, 7 keys of 1 byte, zipf, 12.3% reads, open loop at 1000/s, pipelines of 8"
        );
        assert_eq!(given.duration, Duration::from_millis(500));
        assert_eq!((given.warmup, given.seed), (Duration::ZERO, u64::MAX));
        assert_eq!((given.load, given.json), (false, Some("a".into())));
        assert_eq!(options("--c=3").map(|options| options.connections), Ok(3));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "-c 0",
            "-d 0s",
            "-d soon",
            "--keys 0",
            "--read 1.1",
            "--read -0.1",
            "--read nan",
            "--rate 0",
            "--dist normal",
            "--pipeline 2",
            "--url redis://h --pipeline 10000 --size 1000000",
            "-d 400d",
            "--url h",
            "--threads 0",
            "extra",
        ] {
            assert!(options(line).is_err(), "{line}");
        }
    }
}
