//! What `henge verify` can be told. The values are checked here, so that a run meets only such as make sense; whether this machine can
//! do what is asked for is found out when it begins.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use henge_client::{Scheme, Target};

use super::super::client::UrlParser;
use super::super::duration;
use super::faults::Kind;
use crate::encryption::random_number;

/// What is to be checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Options {
    /// A cluster, under a load.
    Run(Box<Plan>),
    /// A history that was recorded.
    Check {
        /// The file that has it.
        file: PathBuf,
        /// Whether the verdict is for programs.
        json: bool,
    },
}

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub(super) cluster: Cluster,
    pub(super) level: Level,
    pub(super) duration: Duration,
    pub(super) seed: u64,
    pub(super) clients: u64,
    /// Requests a second of all clients together.
    pub(super) rate: u64,
    /// Keys at a time; each round has as many of its own.
    pub(super) keys: u64,
    pub(super) size: usize,
    pub(super) timeout: Duration,
    pub(super) history: Option<PathBuf>,
    pub(super) report: Option<PathBuf>,
    pub(super) json: bool,
}

/// Whose answers are checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cluster {
    /// Nodes that are started for this.
    Own(Own),
    /// Nodes that run already, and to which nothing is done.
    Others(Vec<Target>),
}

/// Nodes that are started, and what is done to them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Own {
    pub(super) nodes: usize,
    /// How many replicas a partition is to have; none for what the nodes do by themselves.
    pub(super) replicas: Option<u64>,
    pub(super) faults: Vec<Kind>,
    /// The most nodes that a fault is about.
    pub(super) at_once: usize,
    /// Whether the cache is to be so small that it evicts all the time.
    pub(super) evicts: bool,
    pub(super) is_persistent: bool,
    /// Further settings of all nodes, as `--set` takes them.
    pub(super) settings: Vec<String>,
}

/// The level of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    One,
    Quorum,
    All,
}

impl Level {
    const ALL: [Self; 3] = [Self::One, Self::Quorum, Self::All];

    /// As HTTP spells it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::One => "ONE",
            Self::Quorum => "QUORUM",
            Self::All => "ALL",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| "expected one, quorum or all".to_owned())
    }
}

/// More nodes than this on one machine say nothing that fewer don't.
const MOST_NODES: u64 = 9;
/// And replicas of a partition: what `cluster.replication_factor` may be.
const MOST_REPLICAS: u64 = 7;

/// The options that are for nodes which are started here.
const OWN: [&str; 11] = [
    "nodes",
    "replicas",
    "at-once",
    "evict",
    "no-persistence",
    "set",
    "kill",
    "restart",
    "wipe",
    "pause",
    "partition",
];

pub(in crate::cli) fn command() -> Command {
    let number =
        |name: &'static str, default: &'static str, range: std::ops::RangeInclusive<u64>| {
            Arg::new(name)
                .long(name)
                .value_name("NUMBER")
                .default_value(default)
                .value_parser(clap::value_parser!(u64).range(range))
        };
    let optional = |name: &'static str, range: std::ops::RangeInclusive<u64>| {
        Arg::new(name)
            .long(name)
            .value_name("NUMBER")
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
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("verify")
        .about("Check that a cluster tells no lie, under load and faults")
        .after_help(AFTER_HELP)
        .args([
            Arg::new("url")
                .long("url")
                .value_name("URL")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .value_parser(UrlParser)
                .help("A node of a cluster that runs already, http://host:port; may be repeated, or a list [default: a cluster of its own]"),
            number("nodes", "3", 1..=MOST_NODES).help("Nodes that are started on this machine"),
            optional("replicas", 1..=MOST_REPLICAS)
                .help("Replicas of each partition, as cluster.replication_factor [default: what the nodes do]"),
            Arg::new("level")
                .long("level")
                .value_name("LEVEL")
                .default_value("quorum")
                .value_parser(Level::parse)
                .help("The level of consistency of all requests: one, quorum or all"),
            time("duration", "30s").short('d').alias("d").help("How long the load lasts"),
            optional("seed", 0..=u64::MAX)
                .help("The same seed gives the same faults and requests [default: another one each time]"),
            flag("kill").help("Kill nodes, and start them again"),
            flag("restart").help("Stop nodes in order, and start them again"),
            flag("wipe").help("Kill nodes, throw their directories away, and start them again"),
            flag("pause").help("Stop nodes' processes for a while (SIGSTOP)"),
            flag("partition").help("Cut nodes off from each other: needs root and iproute2"),
            flag("evict").help("Nodes so small, and so much written, that they evict all the time"),
            flag("no-persistence").help("Nodes that keep everything in memory, and lose it when they end"),
            optional("at-once", 1..=MOST_NODES)
                .help("The most nodes that one fault is about [default: a minority, at least one]"),
            Arg::new("set")
                .long("set")
                .value_name("SECTION.KEY=VALUE")
                .action(ArgAction::Append)
                .value_parser(ValueParser::string())
                .help("A setting of all nodes that are started; may be repeated"),
            number("clients", "12", 1..=1000).short('c').alias("c").help("Clients, each with one request at a time"),
            number("rate", "1000", 1..=20_000).help("Requests a second of all clients together"),
            number("keys", "24", 1..=10_000).help("Keys at a time: few, so that clients meet"),
            number("size", "64", 1..=1 << 20).help("Bytes of a value"),
            time("timeout", "5s").help("How long a client waits for an answer"),
            file("history").help("Write what was asked and answered to this file, a line of JSON for each"),
            file("check").help("Check such a file, and start nothing"),
            file("report").help("Write the verdict to this file as a page with plots"),
            flag("json").help("The verdict as JSON, for programs"),
        ])
}

const AFTER_HELP: &str = "Clients read and write a few keys, each key by all of them; every value is written once. What they are told is checked: it must be
what a register says that may forget. A value that comes back after a newer one was shown or acknowledged is a lie. A miss is none, but
an acknowledged write that is missing though nothing was evicted, and no quorum lost its memory, is lost. At --level one nothing is
promised but that values were written by somebody; what is older than it should be is counted.

Without --kill and its like there are no faults.

Exit codes:
  0  no lie, and no acknowledged write lost that should have been kept
  1  a lie, or a lost write, or a node that ended by itself
  2  the command line cannot be understood
  3  it could not be run";

/// The options of a command line that clap has understood; the error is about several of them together.
pub(in crate::cli) fn understood(matches: &ArgMatches) -> Result<Options, String> {
    let is_given =
        |name: &str| matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
    let json = matches.get_flag("json");
    if let Some(file) = matches.get_one::<PathBuf>("check") {
        let mut others = matches.ids().map(clap::Id::as_str);
        let other = others.find(|name| is_given(name) && !["check", "json"].contains(name));
        return match other {
            Some(other) => Err(format!(
                "--check starts nothing and asks nobody, so --{other} means nothing with it"
            )),
            None => Ok(Options::Check {
                file: file.clone(),
                json,
            }),
        };
    }
    let number = |name: &str| matches.get_one::<u64>(name).copied();
    let time = |name: &str| {
        matches
            .get_one::<Duration>(name)
            .copied()
            .unwrap_or_default()
    };
    let targets: Vec<Target> = matches
        .get_many("url")
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let cluster = if targets.is_empty() {
        Cluster::Own(own(matches)?)
    } else {
        if let Some(own) = OWN.iter().find(|name| is_given(name)) {
            return Err(format!(
                "--{own} is for nodes that henge verify starts itself, and --url names some that run already"
            ));
        }
        if let Some(other) = targets.iter().find(|target| target.scheme != Scheme::Http) {
            return Err(format!(
                "flag --url: found {other}, expected http://host:port"
            ));
        }
        Cluster::Others(targets)
    };
    let plan = Plan {
        cluster,
        level: matches.get_one("level").copied().unwrap_or(Level::Quorum),
        duration: time("duration"),
        seed: number("seed").unwrap_or_else(|| u64::from(random_number() as u32)),
        clients: number("clients").unwrap_or(1),
        rate: number("rate").unwrap_or(1),
        keys: number("keys").unwrap_or(1),
        size: number("size").unwrap_or(1) as usize,
        timeout: time("timeout"),
        history: matches.get_one("history").cloned(),
        report: matches.get_one("report").cloned(),
        json,
    };
    // Beyond a month the series of a run loses its meaning.
    if plan.duration > Duration::from_hours(24 * 31) {
        return Err("--duration is more than a month".to_owned());
    }
    Ok(Options::Run(Box::new(plan)))
}

fn own(matches: &ArgMatches) -> Result<Own, String> {
    let number = |name: &str| matches.get_one::<u64>(name).copied();
    let nodes = number("nodes").unwrap_or(1) as usize;
    let replicas = number("replicas");
    if replicas.is_some_and(|replicas| replicas > nodes as u64) {
        return Err(format!(
            "--replicas is more than --nodes: {nodes} nodes hold {nodes} replicas of a partition at the most"
        ));
    }
    let faults: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| matches.get_flag(kind.name()))
        .collect();
    if faults.contains(&Kind::Partition) && nodes < 2 {
        return Err("--partition needs two nodes to cut off from each other".to_owned());
    }
    let at_once = number("at-once").map(|most| most as usize);
    if at_once.is_some_and(|most| most > nodes) {
        return Err(format!("--at-once is more than --nodes, which is {nodes}"));
    }
    let settings: Vec<String> = matches
        .get_many("set")
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    for setting in &settings {
        let Some((name, _)) = setting.split_once('=') else {
            return Err(format!(
                "flag --set: found {setting:?}, expected section.key=value, such as cache.policy=lfu"
            ));
        };
        // What would be counted as lost hangs on them, so they are not to be said past this command.
        let instead = match name {
            "persistence.enabled" => "--no-persistence",
            "cluster.replication_factor" => "--replicas",
            _ => continue,
        };
        return Err(format!("flag --set: {name} is said by {instead} here"));
    }
    Ok(Own {
        nodes,
        replicas,
        faults,
        at_once: at_once.unwrap_or_else(|| (nodes.saturating_sub(1) / 2).max(1)),
        evicts: matches.get_flag("evict"),
        is_persistent: !matches.get_flag("no-persistence"),
        settings,
    })
}

impl Plan {
    /// The run in a line.
    pub(super) fn summary(&self) -> String {
        let (cluster, is_persistent) = match &self.cluster {
            Cluster::Own(own) => {
                let nodes = own.nodes;
                let s = if nodes == 1 { "" } else { "s" };
                let replicas = own
                    .replicas
                    .map(|n| format!(", {n} replicas of each partition"));
                let faults: Vec<&str> = own.faults.iter().map(|kind| kind.name()).collect();
                let faults = match &faults[..] {
                    [] => "no faults".to_owned(),
                    faults => format!("faults: {}", faults.join(", ")),
                };
                let evicts = if own.evicts {
                    ", a cache that is always full"
                } else {
                    ""
                };
                let persistence = if own.is_persistent {
                    "with persistence"
                } else {
                    "without persistence"
                };
                (
                    format!(
                        "{nodes} node{s} {persistence}{}{evicts}",
                        replicas.unwrap_or_default()
                    ),
                    faults,
                )
            }
            Cluster::Others(targets) => {
                let urls: Vec<String> = targets.iter().map(ToString::to_string).collect();
                (urls.join(", "), "no faults of ours".to_owned())
            }
        };
        format!(
            "{cluster}; {is_persistent}; level {}, {} clients, {} keys, {} requests a second",
            self.level.name(),
            self.clients,
            self.keys,
            self.rate
        )
    }

    /// The nodes that are started here, if any are.
    pub(super) fn own(&self) -> Option<&Own> {
        match &self.cluster {
            Cluster::Own(own) => Some(own),
            Cluster::Others(_) => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::verify) fn options(line: &str) -> Result<Options, String> {
        let words = line.split_whitespace();
        let matches = command().try_get_matches_from(["verify"].into_iter().chain(words));
        understood(&matches.map_err(|error| error.to_string())?)
    }

    #[test]
    fn options_and_their_defaults() {
        let Ok(Options::Run(plan)) = options("--seed 7 --kill --pause --evict --replicas 3") else {
            panic!("it is a run");
        };
        assert_eq!(plan.seed, 7);
        assert_eq!(
            plan.summary(),
            "3 nodes with persistence, 3 replicas of each partition, a cache that is always full; faults: kill, pause; level QUORUM, 12 clients, \
             24 keys, 1000 requests a second"
        );
        assert_eq!(plan.own().map(|own| own.at_once), Some(1));
        let Ok(Options::Run(plan)) = options("--nodes 5 --level ALL") else {
            panic!("it is a run");
        };
        assert_eq!(plan.own().map(|own| own.at_once), Some(2), "a minority");
        let Ok(Options::Run(plan)) = options("--url http://a:1,http://b:2") else {
            panic!("it is a run");
        };
        assert!(
            plan.summary()
                .starts_with("http://a:1, http://b:2; no faults of ours; ")
        );
        let check = Options::Check {
            file: "h".into(),
            json: true,
        };
        assert_eq!(options("--check h --json"), Ok(check));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, part) in [
            (
                "--url http://a --kill",
                "--kill is for nodes that henge verify starts itself",
            ),
            ("--url http://a --nodes 3", "--nodes is for nodes"),
            ("--url redis://a", "expected http://host:port"),
            ("--check h --kill", "so --kill means nothing with it"),
            ("--check h -d 3s", "so --duration means nothing with it"),
            ("--nodes 1 --partition", "needs two nodes"),
            ("--nodes 2 --replicas 3", "more than --nodes"),
            ("--at-once 4", "--at-once is more than --nodes"),
            ("--set x", "expected section.key=value"),
            (
                "--set persistence.enabled=false",
                "is said by --no-persistence here",
            ),
            ("--level some", "expected one, quorum or all"),
            ("--nodes 0", "--nodes"),
            ("-d 32d", "more than a month"),
            ("--rate 0", "--rate"),
            ("more", "unexpected argument"),
        ] {
            let error = options(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
