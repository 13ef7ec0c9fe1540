//! `henge doctor`: whether the surroundings of a node are such that it can do what its configuration says. Here are the grammar, the order
//! of the checks and how they are shown; what is found is gathered and judged apart, and nothing is changed.

mod disk;
mod facts;
mod judge;
mod machine;
mod nodes;
mod ports;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Command};
use henge_client::Target;
use serde_json::json;

use self::judge::{Check, Verdict};
use super::colour::{self, Painter, Tone, When};
use super::{api_key, client, failed, print};
use crate::admin::{key_file, size_of};
use crate::cluster::secret_file;
use crate::config::{Config, shown};
use crate::encryption::{Encryption, Keys, KeysError};
use crate::net::listen::BACKLOG;
use crate::{memory, tls};

/// The exit code where something should be otherwise. 2 is that of a wrong command line or configuration.
const EXIT_WARN: u8 = 1;
/// The exit code where a node would not start, or not do what it should.
const EXIT_BAD: u8 = 3;

const HELP: &str = "\
It looks at the machine that it runs on, as the user that it runs as, with the configuration that a node would start with:
limits, memory, the disk of persistence.dir (a few syncs of 4 KiB, and nothing is left there), files of keys, ports and peers.
With --url it asks a running node and all members of its cluster as well, and how far their clocks are apart. Nothing is changed.

Exit codes:
  0  all is well, as far as it could be found out
  1  something should be otherwise
  2  the command line cannot be understood, or the configuration is not valid
  3  something is bad: a node would not start, or not do what it should";

/// What is asked for beside the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoctorOptions {
    target: Option<Target>,
    timeout: Duration,
    json: bool,
    colour: When,
}

/// The grammar, but for the flags of settings.
pub(super) fn command() -> Command {
    Command::new("doctor")
        .about("Say whether the machine, the disk and the network suit the node that is configured")
        .args([
            client::url()
                .default_value(None)
                .help("A running node, which is asked with all members of its cluster: http://host:port or https://host:port"),
            client::timeout().default_value("2s"),
            client::json(),
            colour::flag(),
        ])
        .after_help(format!("{HELP}\n\n{}", api_key::HELP))
}

/// What the words after `doctor` ask for.
///
/// # Errors
/// The node cannot be asked by this URL.
pub(super) fn understood(matches: &ArgMatches) -> Result<DoctorOptions, String> {
    let target = matches.get_one::<Target>("url");
    Ok(DoctorOptions {
        target: target.map(client::over_http).transpose()?,
        timeout: matches.get_one("timeout").copied().unwrap_or_default(),
        json: matches.get_flag("json"),
        colour: When::given(matches),
    })
}

/// Looks, and says what was found.
pub(super) fn run(
    options: &DoctorOptions,
    config: &Config,
    keys: Result<Option<Keys>, KeysError>,
) -> ExitCode {
    let mut checks = of_the_machine(config);
    checks.extend(of_files(config, keys));
    checks.extend(ports::checks(config, options.timeout));
    if let Some(target) = &options.target {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => checks.extend(runtime.block_on(nodes::checks(target, options.timeout))),
            Err(error) => return failed(&error, EXIT_BAD),
        }
    }
    let text = if options.json {
        page(&checks)
    } else {
        text(&checks, options.colour.painter())
    };
    match print(&text) {
        ExitCode::SUCCESS => ExitCode::from(exit_code(&checks)),
        code => code,
    }
}

fn exit_code(checks: &[Check]) -> u8 {
    match worst(checks) {
        Verdict::Ok | Verdict::Unknown => 0,
        Verdict::Warn => EXIT_WARN,
        Verdict::Bad => EXIT_BAD,
    }
}

fn worst(checks: &[Check]) -> Verdict {
    let verdicts = checks.iter().map(|check| check.verdict);
    verdicts.max().unwrap_or(Verdict::Ok)
}

fn of_the_machine(config: &Config) -> Vec<Check> {
    let size = size_of(config.cache.max_size_bytes);
    let memory = memory::machine().map_err(|error| error.to_string());
    let limit = memory.map(|memory| {
        let smallest = memory.smallest;
        (smallest.total_bytes, smallest.limit_source.name())
    });
    let size = size.unwrap_or(0);
    let mut checks = vec![
        judge::open_files(machine::most_open_files(), config.limits.max_connections),
        judge::memory(size, &limit),
        judge::swap(&machine::swap()),
        judge::overcommit(&machine::number("/proc/sys/vm/overcommit_memory")),
        judge::huge_pages(&machine::words(
            "/sys/kernel/mm/transparent_hugepage/enabled",
        )),
        judge::backlog(
            &machine::number("/proc/sys/net/core/somaxconn"),
            u64::from(BACKLOG.unsigned_abs()),
        ),
        judge::clock_source(&machine::words(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        )),
    ];
    let persistence = &config.persistence;
    let path = persistence.dir.as_path();
    let place = disk::place(path);
    let is_usable = place
        .as_ref()
        .is_ok_and(|place| place.not_writable.is_none());
    checks.push(judge::place(&place));
    if persistence.enabled && is_usable {
        let interval = Duration::from_millis(persistence.sync_interval_ms);
        checks.push(judge::disk_speed(
            &disk::speed(path),
            persistence.sync,
            interval,
        ));
        checks.push(judge::disk_space(&disk::space(path), size));
    }
    checks
}

/// The files that a start would read.
fn of_files(config: &Config, keys: Result<Option<Keys>, KeysError>) -> Vec<Check> {
    let path =
        |file: &Option<crate::config::FilePath>| file.as_ref().map(|file| shown(file.as_path()));
    let encryption = keys.and_then(|keys| Encryption::of(config, keys));
    let read = [
        (
            "security.key_file",
            key_file(config)
                .map_err(|error| error.to_string())
                .map(|_| path(&config.security.key_file)),
        ),
        (
            "tls.key_file",
            tls::read(config)
                .map_err(|error| error.to_string())
                .map(|_| path(&config.tls.key_file)),
        ),
        (
            "cluster.secret_file",
            secret_file::secrets(config)
                .map_err(|error| error.to_string())
                .map(|_| path(&config.cluster.secret_file)),
        ),
        (
            "persistence.key_file",
            encryption
                .map_err(|error| error.to_string())
                .map(|_| path(&config.persistence.key_file)),
        ),
    ];
    let checks = read
        .iter()
        .filter_map(|(name, read)| judge::file(name, read));
    checks.collect()
}

/// For programs.
fn page(checks: &[Check]) -> String {
    let page = json!({"verdict": worst(checks), "checks": checks});
    format!("{page:#}\n")
}

/// For people: a line each, and below what is not well what it should be and what to change.
fn text(checks: &[Check], painter: Painter) -> String {
    let widest = |text: fn(&Check) -> &str| {
        let widths = checks.iter().map(|check| text(check).chars().count());
        widths.max().unwrap_or(0)
    };
    let (verdicts, names) = (
        widest(|check| check.verdict.word()),
        widest(|check| &check.name),
    );
    let mut text = String::new();
    for check in checks {
        let word = check.verdict.word();
        let tone = match check.verdict {
            Verdict::Ok => Tone::Good,
            Verdict::Unknown => Tone::Plain,
            Verdict::Warn => Tone::Doubtful,
            Verdict::Bad => Tone::Bad,
        };
        let gap = " ".repeat(verdicts - word.chars().count());
        let word = painter.paint(word, tone);
        let _ = writeln!(text, "{word}{gap}  {:<names$}  {}", check.name, check.found);
        if let Some(change) = &check.change {
            let indent = " ".repeat(verdicts + 2);
            let _ = writeln!(text, "{indent}  expected: {}", check.expected);
            let _ = writeln!(text, "{indent}  change:   {change}");
        }
    }
    let count = |verdict| {
        checks
            .iter()
            .filter(|check| check.verdict == verdict)
            .count()
    };
    let _ = writeln!(
        text,
        "\n{} ok, {} warn, {} bad, {} unknown",
        count(Verdict::Ok),
        count(Verdict::Warn),
        count(Verdict::Bad),
        count(Verdict::Unknown)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Vec<Check> {
        vec![
            Check::new(
                "open files",
                Verdict::Ok,
                "1,048,576 at most",
                "50,512",
                "more",
            ),
            Check::new("swap", Verdict::Warn, "8 GiB", "none", "swapoff -a"),
            Check::new(
                "clock source",
                Verdict::Unknown,
                "it cannot be read",
                "tsc",
                "",
            ),
        ]
    }

    #[test]
    fn what_is_not_well_says_what_to_change() {
        let expected = "\
ok       open files    1,048,576 at most
warn     swap          8 GiB
           expected: none
           change:   swapoff -a
unknown  clock source  it cannot be read

1 ok, 1 warn, 0 bad, 1 unknown
";
        assert_eq!(text(&checks(), Painter::default()), expected);
        let coloured = text(&checks(), Painter { is_on: true });
        assert!(
            coloured.contains("\u{1b}[33mwarn\u{1b}[0m     swap"),
            "{coloured:?}"
        );
        let page: serde_json::Value = serde_json::from_str(&page(&checks())).expect("JSON");
        assert_eq!(page["verdict"], "warn");
        assert_eq!(page["checks"][1]["change"], "swapoff -a");
        assert_eq!(page["checks"][0]["change"], serde_json::Value::Null);
    }

    #[test]
    fn the_exit_code_is_of_the_worst() {
        let mut checks = checks();
        assert_eq!(exit_code(&checks), 1);
        checks.push(Check::new("x", Verdict::Bad, "a", "b", "c"));
        assert_eq!(exit_code(&checks), 3);
        checks.retain(|check| check.change.is_none());
        assert_eq!(exit_code(&checks), 0);
    }
}
