//! The command line's grammar: commands, flags, and what each flag sets.
//!
//! It turns arguments into an [`Invocation`] and knows no configuration but the names of settings. Flags are accepted
//! before and after the command, and with one dash as well as two, as Go programs have them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use clap_complete::Shell;

use super::simulate::{Simulation, Words};
use super::{
    CliError, bench, client, cluster, completions, dev, doctor, insight, key, manual, ping, tools,
    top, verify,
};
use crate::config::{FlagSetting, SETTINGS, Setting, shown};

/// A flag that is short for `--set`: its name, the setting, the name of its value in the help, and what the help says.
const SHORTHANDS: [(&str, &str, &str, &str); 9] = [
    (
        "port",
        "server.listen",
        "ADDRESS",
        "Where to listen: :8080, 8080, 127.0.0.1:8080 [default: :8080]",
    ),
    (
        "node-id",
        "cluster.node_id",
        "NAME",
        "The name of this node",
    ),
    (
        "peers",
        "cluster.peers",
        "ADDRESSES",
        "Nodes to form a cluster with, or members of one to join: http://a:8080,http://b:8080",
    ),
    (
        "advertise",
        "cluster.advertise",
        "ADDRESS",
        "How other nodes reach this one [default: where it meets the first peer]",
    ),
    (
        "data-dir",
        "persistence.dir",
        "DIR",
        "Where the data of nodes lie, each in a directory of its own [default: data]",
    ),
    (
        "max-size",
        "cache.max_size_bytes",
        "SIZE",
        "Memory for the cache, such as 512MiB [default: a quarter of all]",
    ),
    (
        "max-items",
        "cache.max_items",
        "COUNT",
        "The most items to keep [default: none]",
    ),
    (
        "policy",
        "cache.policy",
        "POLICY",
        "What a full cache evicts: lru, lfu, ttl, random, s3fifo, sieve, wtinylfu [default: lru]",
    ),
    (
        "log-level",
        "log.level",
        "LEVEL",
        "error, warn, info, debug or trace [default: info]",
    ),
];

/// What to do, by the words of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Serve,
    ConfigCheck,
    ConfigPrint { json: bool },
    Doctor(doctor::DoctorOptions),
}

/// A command line, understood.
#[derive(Debug, PartialEq)]
pub(super) enum Invocation {
    Run {
        task: Task,
        file: Option<PathBuf>,
        flags: Vec<FlagSetting>,
    },
    Simulate(Simulation),
    Client(client::Order),
    Cluster(cluster::Inquiry),
    Key(key::KeyOrder),
    Bench(Box<bench::Options>),
    Verify(verify::Options),
    Tool(tools::Errand),
    Dev(dev::Dev),
    Insight(insight::Insight),
    Ping(ping::Ping),
    Top(top::Top),
    Completions(Shell),
    Manual(Option<PathBuf>),
    Help(String),
    Version,
}

/// Understands the arguments, the first of which is the program's name.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, CliError> {
    let grammar = grammar();
    let arguments = double_the_dash(arguments, &grammar);
    let matches = match grammar.try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp => Ok(Invocation::Help(error.render().to_string())),
                ErrorKind::DisplayVersion => Ok(Invocation::Version),
                _ => Err(CliError::Usage(one_line(&error.render().to_string()))),
            };
        }
    };

    let mut words = Vec::new();
    let mut levels = vec![&matches];
    while let Some((word, deeper)) = levels.last().and_then(|level| level.subcommand()) {
        words.push(word);
        levels.push(deeper);
    }
    if let Some(understood) = understood(&words, levels[levels.len() - 1]) {
        no_settings(&words.join(" "), levels[0])?;
        return understood;
    }
    let task = match words[..] {
        ["config", "check"] => Task::ConfigCheck,
        ["doctor"] => Task::Doctor(doctor::understood(levels[1]).map_err(CliError::Usage)?),
        ["config", "print"] => Task::ConfigPrint {
            json: levels.last().is_some_and(|level| level.get_flag("json")),
        },
        _ => Task::Serve,
    };

    Ok(Invocation::Run {
        task,
        file: file(&levels)?,
        flags: flags(&levels)?,
    })
}

/// What a command asks for that starts no node and has no configuration; none if the words are of none.
fn understood(words: &[&str], own: &ArgMatches) -> Option<Result<Invocation, CliError>> {
    let asked = match *words {
        ["simulate"] => return Some(simulation(own).map(Invocation::Simulate)),
        ["dev"] => dev::understood(own).map(Invocation::Dev),
        ["bench"] => bench::understood(own).map(|options| Invocation::Bench(Box::new(options))),
        ["top"] => top::understood(own)?.map(Invocation::Top),
        ["verify"] => verify::understood(own).map(Invocation::Verify),
        ["completions"] => Ok(Invocation::Completions(completions::understood(own)?)),
        ["man"] => Ok(Invocation::Manual(manual::understood(own))),
        ["cluster", "recover"] => tools::understood("recover", own)?.map(Invocation::Tool),
        ["cluster", word] => cluster::understood(word, own)?.map(Invocation::Cluster),
        ["key", word] => key::understood(word, own)?.map(Invocation::Key),
        ["ping"] => ping::understood(own)?.map(Invocation::Ping),
        ["hot" | "big" | "why"] => insight::understood(words[0], own)?.map(Invocation::Insight),
        [word] => match client::understood(word, own) {
            Some(order) => Ok(Invocation::Client(order)),
            None => tools::understood(word, own)?.map(Invocation::Tool),
        },
        _ => return None,
    };
    Some(asked.map_err(CliError::Usage))
}

/// What to simulate.
fn simulation(own: &ArgMatches) -> Result<Simulation, CliError> {
    let given = |id| -> Vec<&str> {
        let values = own.get_many::<String>(id);
        values.into_iter().flatten().map(String::as_str).collect()
    };
    Simulation::new(&Words {
        trace: own.get_one("trace"),
        policies: given("policy"),
        capacities: given("capacity"),
        seeds: given("seed"),
        json: own.get_flag("json"),
    })
    .map_err(CliError::Usage)
}

/// Refuses settings of a node before a command that starts none; ignored, they would promise something.
fn no_settings(word: &str, root: &ArgMatches) -> Result<(), CliError> {
    let mut given = root.ids().map(clap::Id::as_str);
    match given.find(|id| root.contains_id(id)) {
        None => Ok(()),
        Some(flag) => Err(CliError::Usage(format!(
            "--{flag} is for a node, and henge {word} starts none"
        ))),
    }
}

/// The file of `--config`, which may be given once.
fn file(levels: &[&ArgMatches]) -> Result<Option<PathBuf>, CliError> {
    let files: Vec<&PathBuf> = levels
        .iter()
        .filter_map(|level| level.get_many("config"))
        .flatten()
        .collect();
    match files[..] {
        [] => Ok(None),
        [file] => Ok(Some(file.clone())),
        [first, second, ..] => Err(CliError::Usage(format!(
            "--config is given twice: {} and {}; a node has one file",
            shown(first),
            shown(second)
        ))),
    }
}

/// What the flags set, each setting at most once: whichever of two were taken, somebody would wonder about the other.
fn flags(levels: &[&ArgMatches]) -> Result<Vec<FlagSetting>, CliError> {
    let given = |id| {
        levels
            .iter()
            .filter_map(move |level| level.get_many::<String>(id))
            .flatten()
    };
    let mut flags: Vec<FlagSetting> = Vec::new();
    for (flag, name, ..) in SHORTHANDS {
        flags.extend(given(flag).map(|value| FlagSetting {
            flag: format!("--{flag}"),
            name: name.to_owned(),
            value: value.clone(),
        }));
    }
    for assignment in given("set") {
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(CliError::Usage(format!(
                "flag --set: found {assignment:?}, expected section.key=value, such as cache.max_items=3"
            )));
        };
        flags.push(FlagSetting {
            flag: "--set".to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }
    for (index, second) in flags.iter().enumerate() {
        if let Some(first) = flags[..index]
            .iter()
            .find(|first| first.name == second.name)
        {
            let typed = |given: &FlagSetting| match given.flag.as_str() {
                "--set" => format!("--set {}={}", given.name, given.value),
                flag => format!("{flag}={}", given.value),
            };
            return Err(CliError::Usage(format!(
                "{} is given twice: {} and {}",
                second.name,
                typed(first).escape_debug(),
                typed(second).escape_debug()
            )));
        }
    }
    Ok(flags)
}

/// The whole grammar. Every command has the flags of its own, and not clap's global ones: of a global flag given both
/// before and after a command, clap keeps one and drops the other without a word.
pub(super) fn grammar() -> Command {
    let with_flags = |command: Command| command.args(setting_flags());
    let serve =
        Command::new("serve").about("Start a node; what henge does when no command is given");
    let check = Command::new("check")
        .about("Say whether the configuration is valid, and what is wrong if not");
    let print = Command::new("print")
        .about("Show every setting in force, and where its value came from")
        .arg(client::json());
    let config = Command::new("config")
        .about("Check or show the configuration that a node would start with")
        .subcommand_required(true)
        .subcommands([check, print].map(with_flags));
    let simulate = simulate_command();
    let root = Command::new("henge")
        .about("A distributed cache that may forget a key, and never lies about one.")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands([serve, config, doctor::command()].map(with_flags))
        .subcommand(simulate)
        .subcommands(client::commands())
        .subcommand(ping::command())
        .subcommands(insight::commands())
        .subcommand(top::command())
        .subcommand(cluster::command())
        .subcommand(key::command())
        .subcommand(dev::command())
        .subcommand(bench::command())
        .subcommand(verify::command())
        .subcommands(tools::commands())
        .subcommand(completions::command())
        .subcommand(manual::command())
        .after_help(after_help());
    with_flags(root)
}

fn simulate_command() -> Command {
    let list = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .help(help)
            .action(ArgAction::Append)
            .allow_hyphen_values(true)
            .value_parser(ValueParser::string())
    };
    Command::new("simulate")
        .about("Show what hit ratio each eviction policy has on a trace of accesses")
        .args([
            Arg::new("trace")
                .value_name("TRACE")
                .value_parser(ValueParser::path_buf())
                .help("A file of accesses, by its ending: .trace, .csv, .trace.gz, .csv.gz, .trace.xz"),
            list(
                "capacity",
                "CAPACITY",
                "Items, such as 1000, or memory, such as 64MiB; may be repeated, or a list",
            ),
            list(
                "policy",
                "POLICY",
                "A policy, or a list; may be repeated [default: all]",
            ),
            list("seed", "NUMBER", "Seeds what is random [default: 42]"),
            client::json(),
        ])
        .after_help(
            "Every access is a get, and on a miss the key is put. The last row is the best possible, by Belady's rule, which
knows what is to come.

Traces:
  .trace     a number a line
  .csv       time, key, size in bytes, without quotes; a first line may name the columns, and others are refused
  .trace.xz  big-endian 32-bit integers
The first two may be packed, with .gz behind the ending.

In a capacity of items all of them count the same. In one of memory each value is as large as the trace says, and its
key and what the cache needs beside it count too, as with cache.max_size_bytes. Then the best possible is not known.",
        )
}

fn setting_flags() -> Vec<Arg> {
    // A value that looks like a flag is refused by its setting, which says what it expected; clap could not.
    let flag = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .help(help)
            .action(ArgAction::Append)
            .allow_hyphen_values(true)
            .value_parser(ValueParser::string())
    };
    let mut flags = vec![
        flag(
            "config",
            "FILE",
            "A configuration file, TOML or JSON by its ending",
        )
        .value_parser(ValueParser::path_buf()),
    ];
    flags.extend(SHORTHANDS.map(|(name, _, value, help)| flag(name, value, help)));
    flags.push(flag(
        "set",
        "SECTION.KEY=VALUE",
        "Any setting of the list below; may be repeated",
    ));
    flags
}

fn after_help() -> String {
    let width = SETTINGS
        .iter()
        .map(|setting| setting.name().len())
        .max()
        .unwrap_or(0);
    let defaults = crate::config::Config::default();
    let line = |setting: &Setting| {
        let restart = if setting.is_reloadable() {
            ""
        } else {
            "  (fixed at the start)"
        };
        format!(
            "  {:width$}  {}{restart}\n",
            setting.name(),
            setting.value(&defaults).render()
        )
    };
    let settings: String = SETTINGS.iter().map(line).collect();
    format!(
        "Examples:
  henge                                        a node on port 8080
  henge --port 127.0.0.1:9000 --max-size 1GiB  on one interface, with a gibibyte
  henge --set limits.max_value_bytes=1MiB      any setting by its name
  HENGE_CACHE__MAX_ITEMS=1000 henge            the same from the environment
  henge config print --config henge.toml       what a node would start with
  henge simulate a.csv --capacity 1000,10000   which policy suits these accesses
  henge set greeting hello --ttl 60s           a key of the node on this machine
  henge bench -c 50 -d 30s                     how fast that node is
  henge verify --kill --pause -d 1m            whether a cluster lies when its nodes fail
  henge backup --to today.backup               what that node holds, in a file

A flag wins over the environment, the environment over the file, the file over the defaults.
Flags may be given with one dash as well: -port=:8080.

Settings and their defaults:
{settings}"
    )
}

/// Gives long flags that were typed with one dash their second. Untouched are values (what follows a flag of the command
/// at hand that takes one), all after `--`, and what cannot be a long flag: `-h`, `-5`, `-`. A misspelt flag gets its dash too, or clap
/// would complain about its first letter.
fn double_the_dash(
    arguments: impl IntoIterator<Item = OsString>,
    mut command: &Command,
) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    // The program's name.
    let mut doubled: Vec<OsString> = arguments.next().into_iter().collect();
    let mut is_value = false;
    let mut flags_ended = false;
    for argument in arguments {
        let text = argument.to_string_lossy();
        flags_ended |= text == "--" && !is_value;
        let Some(flag) = text.strip_prefix('-').filter(|_| !is_value && !flags_ended) else {
            if !is_value {
                command = command.find_subcommand(&argument).unwrap_or(command);
            }
            is_value = false;
            doubled.push(argument);
            continue;
        };
        let (name, dash) = match flag.strip_prefix('-') {
            Some(name) => (name, ""),
            None if flag.len() > 1 && flag.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                (flag, "-")
            }
            None => (flag, ""),
        };
        is_value = takes_value(command, name);
        let mut whole = OsString::from(dash);
        whole.push(&argument);
        doubled.push(whole);
    }
    doubled
}

/// Whether the next argument is the value of the long flag of that name. With `=` and a value behind it, a name is none
/// of these.
fn takes_value(command: &Command, name: &str) -> bool {
    let is_it = |arg: &Arg| arg.get_long() == Some(name) && arg.get_action().takes_values();
    command.get_arguments().any(is_it)
}

/// clap's message, which is a few paragraphs, as one line: what is wrong and its tip, without the usage.
fn one_line(message: &str) -> String {
    let until_usage = message
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let parts: Vec<&str> = until_usage
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    // What a line announces follows it.
    let line = parts.join("; ").replace(":; ", ": ");
    format!(
        "{} (henge --help shows what there is)",
        line.strip_prefix("error: ").unwrap_or(&line)
    )
}

/// The commands of a grammar that have no others below them, by their words.
#[cfg(test)]
pub(super) fn leaves(grammar: &Command) -> Vec<(String, Command)> {
    let mut left = vec![(String::new(), grammar)];
    let mut found = Vec::new();
    while let Some((words, command)) = left.pop() {
        if !command.has_subcommands() {
            found.push((words, command.clone()));
            continue;
        }
        left.extend(command.get_subcommands().map(|deeper| {
            let words = format!("{words} {}", deeper.get_name());
            (words.trim_start().to_owned(), deeper)
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(line: &str) -> Result<Invocation, String> {
        parse(line.split(' ').map(OsString::from)).map_err(|error| error.to_string())
    }

    /// A command line, its task, its file, and what its flags set.
    type Case<'a> = (
        &'a str,
        Task,
        Option<&'a str>,
        &'a [(&'a str, &'a str, &'a str)],
    );

    fn assert_understood(cases: &[Case<'_>]) {
        for (line, task, file, flags) in cases {
            let flags = flags.iter().map(|(flag, name, value)| FlagSetting {
                flag: (*flag).to_owned(),
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            });
            let expected = Invocation::Run {
                task: task.clone(),
                file: file.map(PathBuf::from),
                flags: flags.collect(),
            };
            assert_eq!(understood(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn commands_and_flags_in_any_order() {
        let check = Task::ConfigCheck;
        let print = Task::ConfigPrint { json: false };
        let json = Task::ConfigPrint { json: true };
        let cases: &[Case<'_>] = &[
            ("henge", Task::Serve, None, &[]),
            ("henge serve", Task::Serve, None, &[]),
            (
                "henge --port=:9000",
                Task::Serve,
                None,
                &[("--port", "server.listen", ":9000")],
            ),
            (
                "henge --port 9000 serve",
                Task::Serve,
                None,
                &[("--port", "server.listen", "9000")],
            ),
            (
                "henge serve --port 9000",
                Task::Serve,
                None,
                &[("--port", "server.listen", "9000")],
            ),
            (
                "henge -port=:9000",
                Task::Serve,
                None,
                &[("--port", "server.listen", ":9000")],
            ),
            (
                "henge -max-items 3",
                Task::Serve,
                None,
                &[("--max-items", "cache.max_items", "3")],
            ),
            (
                "henge --max-items -3",
                Task::Serve,
                None,
                &[("--max-items", "cache.max_items", "-3")],
            ),
            (
                "henge -node-id -port",
                Task::Serve,
                None,
                &[("--node-id", "cluster.node_id", "-port")],
            ),
            ("henge --config -port", Task::Serve, Some("-port"), &[]),
            (
                "henge -set=a.b=-policy=c",
                Task::Serve,
                None,
                &[("--set", "a.b", "-policy=c")],
            ),
            (
                "henge --set log.level=",
                Task::Serve,
                None,
                &[("--set", "log.level", "")],
            ),
            (
                "henge -max-size 1GiB --policy lfu -log-level=warn --node-id n -set x.y=1 --set x.z=2",
                Task::Serve,
                None,
                &[
                    ("--node-id", "cluster.node_id", "n"),
                    ("--max-size", "cache.max_size_bytes", "1GiB"),
                    ("--policy", "cache.policy", "lfu"),
                    ("--log-level", "log.level", "warn"),
                    ("--set", "x.y", "1"),
                    ("--set", "x.z", "2"),
                ],
            ),
            ("henge config check", check.clone(), None, &[]),
            (
                "henge config check -config a.toml",
                check,
                Some("a.toml"),
                &[],
            ),
            (
                "henge --set a.b=1 config --policy lru print --set a.c=2 -config=a.json",
                print,
                Some("a.json"),
                &[
                    ("--policy", "cache.policy", "lru"),
                    ("--set", "a.b", "1"),
                    ("--set", "a.c", "2"),
                ],
            ),
            ("henge config print --json", json.clone(), None, &[]),
            (
                "henge config print -json -port 1",
                json,
                None,
                &[("--port", "server.listen", "1")],
            ),
        ];
        assert_understood(cases);
    }

    #[test]
    fn simulations() {
        let trace = PathBuf::from("a.csv");
        let words = |policies: &[&'static str], capacities: &[&'static str], json| {
            let simulation = Simulation::new(&Words {
                trace: Some(&trace),
                policies: policies.to_vec(),
                capacities: capacities.to_vec(),
                seeds: vec!["42"],
                json,
            });
            simulation.map(Invocation::Simulate)
        };
        let all = "lru,lfu,ttl,random,s3fifo,sieve,wtinylfu";
        for (line, expected) in [
            (
                "henge simulate a.csv --capacity 3",
                words(&[all], &["3"], false),
            ),
            (
                "henge simulate --capacity=3,64MiB -json a.csv",
                words(&[all], &["3", "64MiB"], true),
            ),
            (
                "henge simulate -policy sieve,lru a.csv -capacity 3 --capacity 4 --policy lfu",
                words(&["sieve", "lru", "lfu"], &["3", "4"], false),
            ),
        ] {
            assert_eq!(understood(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_refused() {
        let hint = " (henge --help shows what there is)";
        let cases = [
            ("henge --prot=1", format!("unexpected argument '--prot' found; tip: a similar argument exists: '--port'{hint}")),
            ("henge -port", format!("a value is required for '--port <ADDRESS>' but none was supplied{hint}")),
            (
                "henge -prot=1",
                format!(
                    "unexpected argument '--prot' found; tip: a similar argument exists: '--port'{hint}"
                ),
            ),
            ("henge -x", format!("unexpected argument '-x' found{hint}")),
            ("henge srve", format!("unrecognized subcommand 'srve'; tip: a similar subcommand exists: 'serve'{hint}")),
            ("henge config", format!("'henge config' requires a subcommand but one was not provided; [subcommands: check, print, help]{hint}")),
            ("henge config check --json", format!("unexpected argument '--json' found{hint}")),
            ("henge -- -port=1", format!("unrecognized subcommand '-port=1'{hint}")),
            ("henge -5", format!("unexpected argument '-5' found{hint}")),
            ("henge --set cache.max_items", "flag --set: found \"cache.max_items\", expected section.key=value, such as cache.max_items=3".to_owned()),
            ("henge --port 1 serve --port 2", "server.listen is given twice: --port=1 and --port=2".to_owned()),
            ("henge --set server.listen=1 -port=2", "server.listen is given twice: --port=2 and --set server.listen=1".to_owned()),
            ("henge --set a.b=1 --set a.b=1", "a.b is given twice: --set a.b=1 and --set a.b=1".to_owned()),
            ("henge --config a serve --config b", "--config is given twice: a and b; a node has one file".to_owned()),
            ("henge simulate --capacity 3", "a trace is missing, expected a file such as accesses.csv or accesses.trace.gz".to_owned()),
            ("henge simulate a.csv", "--capacity is missing, expected a number of items from 1 on, such as 1000, or a size from 1MiB to 8GiB, such as 64MiB".to_owned()),
            ("henge simulate a.csv --capacity 3,x", "flag --capacity: found \"x\", expected a number of items from 1 on, such as 1000, or a size from 1MiB to 8GiB, such as 64MiB".to_owned()),
            ("henge simulate a.csv --capacity 3 --policy lru,siev", "flag --policy: found \"siev\", expected lru, lfu, ttl, random, s3fifo, sieve, wtinylfu; did you mean \"sieve\"?".to_owned()),
            ("henge simulate a.csv --capacity 3 -seed=-1", "flag --seed: found \"-1\", expected an integer from 0 to 18446744073709551615".to_owned()),
            ("henge simulate a.csv --capacity 3 --seed 1 --seed 2", "--seed is given twice; a simulation has one".to_owned()),
            ("henge --policy lru simulate a.csv --capacity 3", "--policy is for a node, and henge simulate starts none".to_owned()),
            ("henge simulate a.csv b.csv --capacity 3", format!("unexpected argument 'b.csv' found{hint}")),
            ("henge -policy lru get k", "--policy is for a node, and henge get starts none".to_owned()),
            ("henge get k -policy lru", format!("unexpected argument '--policy' found; tip: to pass '--policy' as a value, use '-- --policy'{hint}")),
            ("henge get k -url x", format!("flag --url: \"x\" is no URL of a server: it has no scheme; expected http://host:port or redis://host:port, over TLS https:// or rediss://{hint}")),
        ];
        for (line, message) in cases {
            assert_eq!(understood(line), Err(message), "{line}");
        }
    }

    #[test]
    fn flags_belong_to_their_command() {
        for line in [
            "henge set -ttl 60 k -5",
            "henge set -nx -ttl=60 -url http://h k v",
            "henge incr k -by -3",
            "henge scan -timeout 1s set",
            // In `config print` it takes no value, in others it may.
            "henge get -- -json",
        ] {
            assert!(
                matches!(understood(line), Ok(Invocation::Client(_))),
                "{line}"
            );
        }
    }

    #[test]
    fn help_and_version() {
        for line in ["henge --version", "henge -V", "henge -version"] {
            assert_eq!(understood(line), Ok(Invocation::Version), "{line}");
        }
        for line in [
            "henge --help",
            "henge -h",
            "henge -help",
            "henge help",
            "henge --port 1 --help",
        ] {
            let Ok(Invocation::Help(text)) = understood(line) else {
                panic!("{line} shows the help");
            };
            for setting in SETTINGS {
                assert!(
                    text.contains(&format!("\n  {} ", setting.name())),
                    "{}",
                    setting.name()
                );
            }
            for (flag, ..) in SHORTHANDS {
                assert!(text.contains(&format!("--{flag} <")), "{flag}");
            }
        }
        assert!(matches!(
            understood("henge config print --help"),
            Ok(Invocation::Help(_))
        ));
    }

    #[test]
    fn what_a_node_says_can_be_had_as_json() {
        // The first two are about files, the third has a file of its own for that, and the last is drawn from /metrics/json.
        const NOT_SHOWN: [&str; 4] = ["restore", "backup", "bench", "top"];
        let all = leaves(&grammar());
        let has = |command: &Command, long: &str| {
            let mut options = command.get_arguments();
            options.any(|option| option.get_long() == Some(long))
        };
        for (words, command) in all.iter().filter(|(_, command)| has(command, "url")) {
            let is_shown = !NOT_SHOWN.contains(&&**words);
            assert!(!is_shown || has(command, "json"), "henge {words}");
        }
        assert!(all.len() > 30, "all are looked at: {}", all.len());
    }

    #[test]
    fn every_command_and_option_has_a_help() {
        fn look(command: &Command, words: &str) {
            assert!(command.get_about().is_some(), "{words}");
            for option in command.get_arguments() {
                let is_shown = option.is_hide_set() || option.get_help().is_some();
                assert!(is_shown, "{words}: {}", option.get_id());
            }
            for deeper in command.get_subcommands() {
                look(deeper, &format!("{words} {}", deeper.get_name()));
            }
        }
        let mut grammar = grammar();
        grammar.build();
        look(&grammar, "henge");
    }

    #[test]
    fn shorthands_name_settings() {
        for (flag, name, ..) in SHORTHANDS {
            assert!(Setting::find(name).is_some(), "--{flag}");
        }
        grammar().debug_assert();
    }
}
