//! The command line: from arguments and environment to an [`Action`], and the actions that need no node.
//!
//! `arguments` has the grammar. Starting a node is not done here: [`run`] hands a valid configuration to a function of
//! `main`, so that this module needs no sockets and no runtime.

mod api_key;
mod arguments;
mod asking;
mod bench;
mod client;
mod cluster;
mod colour;
mod completions;
mod dev;
mod doctor;
mod duration;
mod insight;
mod key;
mod manual;
mod members;
mod ping;
mod plot;
mod serve;
mod simulate;
mod stop_signals;
mod table;
mod tls;
mod tools;
mod top;
mod verify;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use arguments::{Invocation, Task};
use clap_complete::Shell;

use crate::admin::key_file;
use crate::cluster::secret_file;
use crate::config::{Config, ConfigError, Loaded, Sources, shown};
use crate::encryption::{Encryption, Keys, KeysError, VARIABLE, from_variable};
use crate::tls as server_tls;

pub use bench::Options as BenchOptions;
pub use client::Order;
pub use cluster::Inquiry;
pub use dev::Dev;
pub use doctor::DoctorOptions;
pub use insight::Insight;
pub use key::KeyOrder;
pub use ping::Ping;
pub use serve::serve;
pub use simulate::{Simulation, SimulationError};
pub use tools::Errand;
pub use top::Top;
pub use verify::{Options as VerifyOptions, Plan as VerifyPlan};

/// The exit code for a command line or a configuration that cannot be used, as shells and most tools have it.
const EXIT_USAGE: u8 = 2;
/// The exit code for what was asked for in the right way and could not be done.
const EXIT_FAILURE: u8 = 1;

/// What the command line asks for, ready to be done.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Start a node. The sources are for its reloads; the keys are those of the environment.
    Serve(Sources, Box<Config>, Option<Keys>),
    /// Say that the configuration is valid; that it is was found out on the way here.
    ConfigCheck {
        /// The file that was checked, if one was named.
        file: Option<PathBuf>,
    },
    /// Show the configuration and where its values came from.
    ConfigPrint {
        /// What to show.
        loaded: Box<Loaded>,
        /// Whether as JSON.
        json: bool,
    },
    /// Say whether its surroundings suit a node of this configuration.
    Doctor(Box<Config>, DoctorOptions),
    /// Run a trace through the eviction policies.
    Simulate(Simulation),
    /// Ask a node something.
    Client(Order),
    /// Show what a node knows of its cluster.
    Cluster(Inquiry),
    /// Make, show or revoke API keys.
    Key(KeyOrder),
    /// Measure a server.
    Bench(Box<BenchOptions>),
    /// Check that a cluster tells no lie.
    Verify(VerifyOptions),
    /// Do something with the files of a node.
    Tool(Errand),
    /// Show what nodes know of keys.
    Insight(Insight),
    /// Ask a node whether it lives.
    Ping(Ping),
    /// Draw what nodes do.
    Top(Top),
    /// Start a cluster to try things out.
    Dev(Dev),
    /// Show what a shell completes commands by.
    Completions(Shell),
    /// Show the manual, or write it into a directory.
    Manual(Option<PathBuf>),
    /// Show this help.
    Help(String),
    /// Show the version.
    Version,
}

/// A command line that cannot be followed. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CliError {
    /// The arguments themselves; a line that says what is wrong with them.
    Usage(String),
    /// What they, the environment and the file configure.
    Config(ConfigError),
    /// The keys for what is on the disk cannot be had.
    Keys(String),
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(line) | Self::Keys(line) => f.write_str(line),
            Self::Config(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CliError {}

/// Understands a command line, whose first argument is the program's name, and loads the configuration it asks for.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Action, CliError> {
    let (task, file, flags) = match arguments::parse(arguments)? {
        Invocation::Help(text) => return Ok(Action::Help(text)),
        Invocation::Version => return Ok(Action::Version),
        Invocation::Simulate(simulation) => return Ok(Action::Simulate(simulation)),
        Invocation::Client(order) => return Ok(Action::Client(order)),
        Invocation::Cluster(inquiry) => return Ok(Action::Cluster(inquiry)),
        Invocation::Key(order) => return Ok(Action::Key(order)),
        Invocation::Bench(options) => return Ok(Action::Bench(options)),
        Invocation::Verify(options) => return Ok(Action::Verify(options)),
        Invocation::Tool(errand) => return Ok(Action::Tool(errand)),
        Invocation::Dev(dev) => return Ok(Action::Dev(dev)),
        Invocation::Insight(insight) => return Ok(Action::Insight(insight)),
        Invocation::Ping(ping) => return Ok(Action::Ping(ping)),
        Invocation::Top(top) => return Ok(Action::Top(top)),
        Invocation::Completions(shell) => return Ok(Action::Completions(shell)),
        Invocation::Manual(directory) => return Ok(Action::Manual(directory)),
        Invocation::Run { task, file, flags } => (task, file, flags),
    };
    let environment: Vec<_> = environment.into_iter().collect();
    let keys = environment.iter().find(|(name, _)| name == VARIABLE);
    let keys = keys.map(|(_, value)| value.clone());
    let unusable = |error: KeysError| CliError::Keys(error.to_string());
    let sources = Sources::new(file, environment, flags);
    let loaded = sources.load().map_err(CliError::Config)?;
    Ok(match task {
        Task::Serve => {
            let keys = from_variable(keys).map_err(unusable)?;
            Action::Serve(sources, Box::new(loaded.config), keys)
        }
        Task::ConfigCheck => {
            let keys = from_variable(keys).map_err(unusable)?;
            Encryption::of(&loaded.config, keys).map_err(unusable)?;
            check_files(&loaded.config).map_err(CliError::Keys)?;
            Action::ConfigCheck {
                file: sources.file().map(PathBuf::from),
            }
        }
        Task::Doctor(options) => Action::Doctor(Box::new(loaded.config), options),
        Task::ConfigPrint { json } => Action::ConfigPrint {
            loaded: Box::new(loaded),
            json,
        },
    })
}

/// Reads the files that a start would read beside the configuration, or a reload.
fn check_files(config: &Config) -> Result<(), String> {
    key_file(config).map_err(|error| error.to_string())?;
    server_tls::read(config).map_err(|error| error.to_string())?;
    secret_file::secrets(config).map_err(|error| error.to_string())?;
    if let Some(file) = &config.audit.file {
        let path = file.as_path();
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        if path.is_dir() || folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(format!(
                "audit.file, {}: expected a file, in a directory that is there",
                shown(path)
            ));
        }
    }
    Ok(())
}

/// Does what the process's own arguments and environment ask for; `serve` starts the node.
pub fn run(serve: impl FnOnce(Config, Sources, Option<Keys>) -> ExitCode) -> ExitCode {
    match parse(std::env::args_os(), std::env::vars_os()) {
        Ok(Action::Serve(sources, config, keys)) => serve(*config, sources, keys),
        Ok(Action::Simulate(simulation)) => match simulation.run() {
            Ok(text) => print(&text),
            Err(error) => failed(&error, EXIT_FAILURE),
        },
        Ok(Action::Doctor(config, options)) => {
            let keys = from_variable(std::env::var_os(VARIABLE));
            doctor::run(&options, &config, keys)
        }
        Ok(Action::Client(order)) => client::run(&order),
        Ok(Action::Cluster(inquiry)) => cluster::run(&inquiry),
        Ok(Action::Key(order)) => key::run(&order),
        Ok(Action::Bench(options)) => bench::run(&options),
        Ok(Action::Verify(options)) => verify::run(&options),
        Ok(Action::Tool(errand)) => tools::run(&errand, std::env::var_os(VARIABLE)),
        Ok(Action::Dev(dev)) => dev::run(&dev),
        Ok(Action::Insight(insight)) => insight::run(&insight),
        Ok(Action::Ping(ping)) => ping::run(&ping),
        Ok(Action::Top(top)) => top::run(&top),
        Ok(Action::Manual(directory)) => manual::run(directory.as_deref(), arguments::grammar()),
        Ok(shown) => print(&shown.text()),
        Err(error) => failed(&error, EXIT_USAGE),
    }
}

fn failed(error: &dyn fmt::Display, code: u8) -> ExitCode {
    // With standard error closed there is nobody to tell, and the exit code still tells.
    let _ = writeln!(io::stderr(), "henge: {error}");
    ExitCode::from(code)
}

impl Action {
    /// What an action shows on standard output that has nothing to do but that.
    fn text(&self) -> String {
        match self {
            Self::Serve(..)
            | Self::Doctor(..)
            | Self::Simulate(_)
            | Self::Client(_)
            | Self::Cluster(_)
            | Self::Key(_)
            | Self::Bench(_)
            | Self::Verify(_)
            | Self::Tool(_)
            | Self::Dev(_)
            | Self::Insight(_)
            | Self::Ping(_)
            | Self::Top(_)
            | Self::Manual(_) => String::new(),
            Self::Completions(shell) => completions::script(*shell, arguments::grammar()),
            Self::ConfigCheck { file: Some(file) } => {
                format!("configuration is valid: {}\n", shown(file))
            }
            Self::ConfigCheck { file: None } => {
                "configuration is valid: no file, only defaults, environment and flags\n".to_owned()
            }
            Self::ConfigPrint { loaded, json: true } => loaded.to_json(),
            Self::ConfigPrint {
                loaded,
                json: false,
            } => loaded.to_toml(),
            Self::Help(text) => text.clone(),
            Self::Version => format!("henge {}\n", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// Prints, and fails quietly where `println!` would panic: in `henge config print | head -1` the reader leaves early.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "henge: standard output cannot be written: {error}"
            );
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(line: &str, environment: &[(&str, &str)]) -> Result<Action, String> {
        let environment = environment
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        parse(line.split(' ').map(OsString::from), environment).map_err(|error| error.to_string())
    }

    #[test]
    fn serve_has_the_configuration_of_all_sources() {
        let environment = [
            ("HENGE_CACHE__MAX_ITEMS", "2"),
            ("HENGE_CACHE__POLICY", "lfu"),
        ];
        let Ok(Action::Serve(sources, config, None)) =
            done("henge -max-items 3 --port 0", &environment)
        else {
            panic!("the line serves");
        };
        let mut expected = Config::default();
        for (name, value) in [
            ("cache.max_items", "3"),
            ("cache.policy", "lfu"),
            ("server.listen", ":0"),
        ] {
            assert_eq!(expected.set(name, value), Ok(()));
        }
        assert_eq!(*config, expected);
        assert_eq!(
            sources.load().map(|loaded| loaded.config),
            Ok(expected),
            "a reload finds the same"
        );
    }

    #[test]
    fn what_is_shown() {
        let check = done("henge config check", &[]).map(|action| action.text());
        assert_eq!(
            check,
            Ok(
                "configuration is valid: no file, only defaults, environment and flags\n"
                    .to_owned()
            )
        );
        for setting in [
            "TLS__CERTIFICATE_FILE",
            "CLUSTER__SECRET_FILE",
            "SECURITY__KEY_FILE",
        ] {
            let variable = format!("HENGE_{setting}");
            let environment = [(&*variable, "/none/such"), ("HENGE_TLS__KEY_FILE", "/none")];
            let from = usize::from(setting.starts_with("TLS"));
            let check = done("henge config check", &environment[..=from]);
            let error = check.expect_err("there is no such file");
            assert!(error.contains("/none/such"), "{error}");
        }
        let version = done("henge --version", &[]).map(|action| action.text());
        assert_eq!(
            version,
            Ok(format!("henge {}\n", env!("CARGO_PKG_VERSION")))
        );
        let print = done("henge config print -policy ttl", &[]).map(|action| action.text());
        assert!(print.is_ok_and(|text| text.contains("\npolicy = \"ttl\"  # flag --policy\n")));
        let json = done("henge config print --json", &[("HENGE_LOG__LEVEL", "warn")])
            .map(|action| action.text());
        let origin =
            "\"log.level\": {\"value\": \"warn\", \"origin\": \"environment HENGE_LOG__LEVEL\"";
        assert!(json.is_ok_and(|text| text.contains(origin)));
    }

    #[test]
    fn every_error_is_a_line_that_can_be_acted_on() {
        let cases = [
            (
                "henge --policy lruu",
                "flag --policy: cache.policy: found \"lruu\", expected one of lru, lfu, ttl, random, s3fifo, sieve, wtinylfu; did you mean \"lru\"?",
            ),
            (
                "henge --set cache.max_item=3",
                "flag --set: unknown setting \"cache.max_item\"; did you mean \"cache.max_items\"?",
            ),
            ("henge --set =3", "flag --set: unknown setting \"\""),
            (
                "henge config check --config henge.yml",
                "henge.yml: the file's ending is \".yml\", expected .toml or .json",
            ),
            (
                "henge --port --policy lru",
                "unrecognized subcommand 'lru' (henge --help shows what there is)",
            ),
            (
                "henge --max-items -3",
                "flag --max-items: cache.max_items: found \"-3\", expected an integer from 1 to 9223372036854775807, or \"none\"",
            ),
        ];
        for (line, message) in cases {
            assert_eq!(done(line, &[]), Err(message.to_owned()), "{line}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn arguments_that_are_no_text() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(b"--policy=\xff".to_vec());
        let error = parse(["henge".into(), odd], []).expect_err("no setting is spelt so");
        assert!(
            matches!(&error, CliError::Usage(line) if !line.contains('\n')),
            "{error}"
        );
        let odd = OsString::from_vec(b"\xff".to_vec());
        let error = parse(["henge".into()], [("HENGE_CACHE__POLICY".into(), odd)])
            .expect_err("no policy is spelt so");
        assert_eq!(
            error.to_string(),
            "environment HENGE_CACHE__POLICY: the value is not UTF-8"
        );
    }
}
