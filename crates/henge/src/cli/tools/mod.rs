//! `henge inspect`, `repair`, `restore`, `backup` and `cluster recover`: what is done with the files of a node beside running one. Here are the
//! grammar, the exit codes and what all of them print by; each has its file.

mod backup;
mod inspect;
mod link;
mod map;
mod recover;
mod repair;
mod restore;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use henge_client::Target;
use indicatif::{ProgressBar, ProgressStyle};

use super::client;
use crate::disk::repair::Choice;
use crate::encryption::{Encryption, from_variable};

/// The exit code where a file or a directory was found damaged, or what was asked for is not done without a second word.
const EXIT_DAMAGED: u8 = 1;
/// The exit code where nothing could be found out, or done. 2 is that of a wrong command line.
const EXIT_FAILED: u8 = 3;

/// How long to wait for a batch of a restore: some times as long as a node waits for the leaders of its records, so that it is
/// the node that says what became of them.
const RESTORE_TIMEOUT: &str = "15s";

/// What is to be done, as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    tool: Tool,
    key_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tool {
    Inspect {
        file: PathBuf,
        json: bool,
        records: bool,
    },
    Repair {
        directory: PathBuf,
        choice: Option<Choice>,
        dry_run: bool,
    },
    Restore {
        file: PathBuf,
        directory: PathBuf,
    },
    Load {
        file: PathBuf,
        order: restore::Order,
    },
    Backup {
        target: Target,
        timeout: Duration,
        to: PathBuf,
        force: bool,
    },
    Recover {
        directory: PathBuf,
        force: bool,
    },
}

const INSPECT_HELP: &str = "\
A segment of the log shows what it holds by kind, a snapshot or a backup what it restores. Values are not shown. Nothing
is changed, and no lock is taken: of a file that a node is writing the end may look torn.

Of an encrypted file without its key only what its head says is shown, and whether its checksums are right.

With --records each record is a line, its fields apart by tabs: the byte where it begins, partition, version, operation, key,
length of the value, and when it expires, in milliseconds since 1970. A dash is none. With --json each is an object.

Exit codes:
  0  the file is whole
  1  it is damaged or torn, or none of ours; what is wrong, and at which byte, is on standard error
  2  the command line cannot be understood
  3  it cannot be read, or its key is missing or wrong";

const REPAIR_HELP: &str = "\
The directory is that of one node, such as data/node1, and the node must not run. Without --cut or --skip nothing is
changed: it says whether a node would start, what keeps it from that, and what each way out would lose.

  --cut   Drops all of the log from the damage on. Keys have the values again that they had then: older ones than were
          acknowledged later. Of a damaged snapshot it drops all, and the log with it: the node starts empty.
  --skip  Leaves out what cannot be read and goes on at the next whole record. What may have been changed there is forgotten,
          so that no value comes back that was replaced later. Of a damaged snapshot it keeps what can be read.

What is replaced or dropped stays beside, as NAME.before-repair. The next start says that writes may be missing. A file whose
key is missing or wrong is not damaged, and nothing is done as long as there is one.

Exit codes:
  0  a node would start, or does after the repair
  1  it would not, and nothing was changed
  2  the command line cannot be understood
  3  it failed: the directory is in use or cannot be read, or no repair helps";

const RESTORE_HELP: &str = "\
FILE is a backup, or a snapshot of a node. It is read to its end, and only if it is whole anything is done. Lifetimes go on from when
they were given: what has expired since is not restored.

  --data-dir  Makes the files of a node that does not run. DIR is the directory of that node, persistence.dir with the node's name
              behind it, such as data/node1; it is made if it is not there, and must not hold the files of a node. With keys what
              is made is encrypted, with the last of them.
  --url       Writes all records into a running cluster of any size, through the node that is named, and others of it where that
              fails. Each is a new write, at QUORUM or what the cluster has as its default if that is more. A cluster that has
              keys is refused, and what is written by others meanwhile stays. With --replace the keys of FILE are written over
              what the cluster has of them, and all others stay. What cannot be written now, as a leader is replaced or a node
              is full, is tried again for a minute. In a cache that is smaller than FILE some of it is evicted again.

Exit codes:
  0  restored
  1  FILE is damaged, or the cluster has keys and --replace was not given; nothing was restored
  2  the command line cannot be understood
  3  it failed: into a directory nothing was restored, of a cluster it says how much was";

const BACKUP_HELP: &str = "\
The node is any of its cluster, with persistence or without; all goes on meanwhile. Each partition is copied from its leader, which
answers for no more than what is committed. If that is lost meanwhile the partition is taken anew from the next leader. Each key is
in the backup as it was at some moment while it was made; what was written or removed meanwhile may be in it or not. FILE comes to be once all of it is there and on the disk.
henge restore makes a data directory of it, henge inspect shows what is in it. A node that encrypts its files sends what it
holds encrypted, which takes its keys. With keys FILE is encrypted, with the last of them.

A node whose log has failed can be backed up too. What it could not log, and so did not acknowledge, may be in the backup.

Exit codes:
  0  FILE is whole
  2  the command line cannot be understood
  3  it failed, and there is no new FILE";

const RECOVER_HELP: &str = "\
For when so many members are lost for good that no majority is left to agree on anything. The directory is that of one node that is
left, such as data/node3, and the node must not run. Without --force nothing is changed: it says what would be lost.

With --force the node is a cluster by itself, with a new id, and has all partitions; the keys of those that others had are
lost. Nobody else is asked: if others are only out of reach there are two clusters afterwards, which refuse each other. The
members of before join the new one with empty directories.

Exit codes:
  0  recovered
  1  nothing was changed, as --force was not given
  2  the command line cannot be understood
  3  it failed, and nothing was changed: the directory is in use or cannot be read, or its node was in no cluster";

/// The grammar of `henge cluster recover`.
pub(super) fn recovery() -> Command {
    Command::new("recover")
        .about("Make a new cluster of one node, when a majority of the members is lost for good")
        .args([
            Arg::new("data-dir")
                .long("data-dir")
                .value_name("DIR")
                .required(true)
                .value_parser(ValueParser::path_buf())
                .help("The directory of the node, such as data/node3"),
            Arg::new("force")
                .long("force")
                .action(ArgAction::SetTrue)
                .help("Do it, and lose what it says"),
        ])
        .after_help(RECOVER_HELP)
}

/// The grammar of the commands.
pub(super) fn commands() -> Vec<Command> {
    let path = |name: &'static str, value: &'static str| {
        Arg::new(name)
            .value_name(value)
            .required(true)
            .value_parser(ValueParser::path_buf())
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    let directory = || path("data-dir", "DIR").long("data-dir");
    let keys = || {
        path("key-file", "FILE")
            .long("key-file")
            .required(false)
            .help("Keys for what is encrypted, as persistence.key_file has them")
    };
    vec![
        Command::new("inspect")
            .about("Show what a segment of the log or a snapshot holds, and whether it is whole")
            .args([
                path("file", "FILE")
                    .help("A segment, log-*.wal; a snapshot, snapshot-*.snap; or a backup"),
                flag("json", "As JSON, for programs"),
                flag("records", "Each record, a line for each"),
                keys(),
            ])
            .after_help(INSPECT_HELP),
        Command::new("repair")
            .about("Say what keeps a node from starting on its files, and mend them")
            .args([
                directory().help("The directory of the node, such as data/node1"),
                flag("cut", "Drop all from the damage on").conflicts_with("skip"),
                flag(
                    "skip",
                    "Leave out what is damaged, and forget what may have been changed there",
                ),
                flag("dry-run", "Only say what would be done"),
                keys(),
            ])
            .after_help(REPAIR_HELP),
        Command::new("restore")
            .about("Make the files of a node from a backup or a snapshot, or write it into a running cluster")
            .args([
                path("file", "FILE").help("The backup or the snapshot"),
                directory()
                    .required(false)
                    .required_unless_present("url")
                    .conflicts_with("url")
                    .help("The directory of the node, which must be empty"),
                client::url()
                    .default_value(None)
                    .help("A node of the cluster: http://host:port or https://host:port"),
                client::timeout()
                    .default_value(RESTORE_TIMEOUT)
                    .conflicts_with("data-dir"),
                flag("replace", "Write over keys that the cluster has")
                    .conflicts_with("data-dir"),
                keys(),
            ])
            .after_help(RESTORE_HELP),
        Command::new("backup")
            .about("Copy all that a running node, or its cluster, holds into a file")
            .args([
                client::url(),
                client::timeout(),
                path("to", "FILE").long("to").help("The file to make"),
                flag("force", "Replace FILE if it is there"),
                keys(),
            ])
            .after_help(BACKUP_HELP),
    ]
}

/// What a command of this module asks for; none if the word is no such command. The error is about its options.
pub(super) fn understood(word: &str, matches: &ArgMatches) -> Option<Result<Errand, String>> {
    let path = |name: &str| {
        matches
            .get_one::<PathBuf>(name)
            .cloned()
            .unwrap_or_default()
    };
    let tool = match word {
        "inspect" => Tool::Inspect {
            file: path("file"),
            json: matches.get_flag("json"),
            records: matches.get_flag("records"),
        },
        "repair" => Tool::Repair {
            directory: path("data-dir"),
            choice: match (matches.get_flag("cut"), matches.get_flag("skip")) {
                (true, _) => Some(Choice::Cut),
                (_, true) => Some(Choice::Skip),
                _ => None,
            },
            dry_run: matches.get_flag("dry-run"),
        },
        "restore" => match matches.get_one::<Target>("url") {
            None => Tool::Restore {
                file: path("file"),
                directory: path("data-dir"),
            },
            Some(target) => {
                let target = match client::over_http(target) {
                    Ok(target) => target,
                    Err(wrong) => return Some(Err(wrong)),
                };
                let order = restore::Order {
                    target,
                    timeout: *matches.get_one("timeout")?,
                    replace: matches.get_flag("replace"),
                };
                Tool::Load {
                    file: path("file"),
                    order,
                }
            }
        },
        "backup" => {
            let target = match client::over_http(matches.get_one("url")?) {
                Ok(target) => target,
                Err(wrong) => return Some(Err(wrong)),
            };
            Tool::Backup {
                target,
                timeout: *matches.get_one("timeout")?,
                to: path("to"),
                force: matches.get_flag("force"),
            }
        }
        "recover" => Tool::Recover {
            directory: path("data-dir"),
            force: matches.get_flag("force"),
        },
        _ => return None,
    };
    // What a cluster has agreed on is not encrypted.
    let key_file = matches.try_get_one::<PathBuf>("key-file");
    let key_file = key_file.ok().flatten().cloned();
    Some(Ok(Errand { tool, key_file }))
}

/// Why an errand was not done, or what is wrong with what it found.
#[derive(Debug)]
struct Failure {
    line: String,
    exit_code: u8,
}

impl Failure {
    /// Something is damaged.
    fn damaged(line: impl fmt::Display) -> Self {
        Self {
            line: line.to_string(),
            exit_code: EXIT_DAMAGED,
        }
    }

    /// It could not be done.
    fn failed(line: impl fmt::Display) -> Self {
        Self {
            line: line.to_string(),
            exit_code: EXIT_FAILED,
        }
    }
}

/// Does an errand.
/// `keys` is the variable of the environment that may hold some.
pub(super) fn run(errand: &Errand, keys: Option<OsString>) -> ExitCode {
    let mut out = Output::new();
    let encryption = from_variable(keys)
        .and_then(|keys| Encryption::of_tool(errand.key_file.as_deref(), keys))
        .map_err(Failure::failed);
    let done = encryption.and_then(|encryption| errand.tool.run(encryption, &mut out));
    let shown = out.finish();
    let failure = match (done, shown) {
        (Ok(()), Ok(())) => return ExitCode::SUCCESS,
        (Err(failure), _) => failure,
        (Ok(()), Err(error)) => {
            Failure::failed(format!("standard output cannot be written: {error}"))
        }
    };
    // With standard error closed there is nobody to tell, and the exit code still tells.
    let _ = writeln!(io::stderr(), "henge: {}", failure.line);
    ExitCode::from(failure.exit_code)
}

impl Tool {
    fn run(&self, encryption: Encryption, out: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Inspect {
                file,
                json,
                records,
            } => inspect::run(file, *json, *records, &encryption, out),
            Self::Repair {
                directory,
                choice,
                dry_run,
            } => repair::run(directory, *choice, *dry_run, encryption, out),
            Self::Restore { file, directory } => {
                restore::into_directory(file, directory, &encryption, out)
            }
            Self::Load { file, order } => restore::into_cluster(order, file, &encryption, out),
            Self::Backup {
                target,
                timeout,
                to,
                force,
            } => backup::run(target, *timeout, to, *force, encryption, out),
            Self::Recover { directory, force } => recover::run(directory, *force, out),
        }
    }
}

/// Standard output: what fails there is told once, at the end, and a reader that leaves early is no failure.
struct Output {
    out: io::BufWriter<io::StdoutLock<'static>>,
    failure: Option<io::Error>,
}

impl Output {
    fn new() -> Self {
        Self {
            out: io::BufWriter::new(io::stdout().lock()),
            failure: None,
        }
    }

    fn line(&mut self, line: impl fmt::Display) {
        if self.failure.is_none()
            && let Err(error) = writeln!(self.out, "{line}")
        {
            self.failure = Some(error);
        }
    }

    /// Nobody reads any more.
    fn is_closed(&self) -> bool {
        self.failure.is_some()
    }

    fn finish(mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        match self.failure.map_or(flushed, Err) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            shown => shown,
        }
    }
}

/// A bar on standard error, hidden where that is no terminal.
fn bar(template: &str, len: u64) -> ProgressBar {
    let bar = ProgressBar::new(len);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errand(line: &str) -> Result<Tool, String> {
        let (word, _) = line.split_once(' ').unwrap_or((line, ""));
        let command = commands()
            .into_iter()
            .find(|command| command.get_name() == word);
        let command = command.expect("a command");
        let matches = command.try_get_matches_from(line.split(' '));
        let matches = matches.map_err(|error| error.kind().to_string())?;
        Ok(understood(word, &matches).expect("an errand")?.tool)
    }

    #[test]
    fn errands() {
        let repair = |choice, dry_run| Tool::Repair {
            directory: "d".into(),
            choice,
            dry_run,
        };
        let table = [
            (
                "inspect f --json",
                Tool::Inspect {
                    file: "f".into(),
                    json: true,
                    records: false,
                },
            ),
            ("repair --data-dir d", repair(None, false)),
            (
                "repair --data-dir d --cut",
                repair(Some(Choice::Cut), false),
            ),
            (
                "repair --skip --dry-run --data-dir d",
                repair(Some(Choice::Skip), true),
            ),
            (
                "restore f --data-dir d",
                Tool::Restore {
                    file: "f".into(),
                    directory: "d".into(),
                },
            ),
            (
                "restore f --url http://h:1 --replace --timeout 2s",
                Tool::Load {
                    file: "f".into(),
                    order: restore::Order {
                        target: "http://h:1".parse().expect("a URL"),
                        timeout: Duration::from_secs(2),
                        replace: true,
                    },
                },
            ),
            (
                "backup --to f --url http://h:1 --timeout 2s",
                Tool::Backup {
                    target: "http://h:1".parse().expect("a URL"),
                    timeout: Duration::from_secs(2),
                    to: "f".into(),
                    force: false,
                },
            ),
        ];
        for (line, expected) in table {
            assert_eq!(errand(line), Ok(expected), "{line}");
        }
        for line in [
            "inspect",
            "repair",
            "repair --data-dir d --cut --skip",
            "restore f",
            "restore --data-dir d",
            "restore f --data-dir d --url http://h",
            "restore f --data-dir d --replace",
            "restore f --data-dir d --timeout 2s",
            "restore f --url redis://h",
            "backup",
            "backup --to f --url redis://h",
        ] {
            assert!(errand(line).is_err(), "{line}");
        }
    }
}
