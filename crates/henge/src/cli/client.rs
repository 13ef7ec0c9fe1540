//! `henge get`, `set`, `del`, `incr`, `ttl` and `scan`: one request to a node from a shell. What was found goes to standard
//! output as it is, and why nothing was to standard error, in a line; the exit code tells an answer of "no" from a failure.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::builder::{TypedValueParser, ValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use henge_client::{
    Client, Condition, EncryptionKeys, EncryptionKeysError, Error, Lifetime, SetOptions, Target,
    TargetError,
};
use serde_json::{Map, Value};

use super::{EXIT_USAGE, api_key, duration, tls};
use crate::access::hash::without_keys;
use crate::config::shown;
use crate::encryption;

/// Where a node listens when nothing is said.
pub(super) const DEFAULT_URL: &str = "http://localhost:8080";

/// The most that is read from standard input: the longest string of the Redis protocol, beyond every node's limit.
const MAX_INPUT_BYTES: u64 = 512 << 20;

/// The exit code where all went well and there is nothing: no such key, or a condition that does not hold.
const EXIT_NOTHING: u8 = 1;
/// The exit code where it is not known what there is. A script that takes it for a miss would be wrong, so it is a code of its
/// own; 2 is that of a wrong command line.
const EXIT_FAILED: u8 = 3;

/// The flag of the commands that have a value.
const ENCRYPT_KEY_FILE: &str = "encrypt-key-file";

const JSON_HELP: &str = "\
With --json what was found is an object, and of scan and del one for each key, a line each. Keys and values that are no UTF-8 are in
base64, as key_base64 and value_base64. What was not found is said by the exit code.";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  there is no such key, or nothing was stored
  2  the command line cannot be understood
  3  it failed: no connection, an error, or no answer; a write that was not answered may have been done";

/// One request, as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Members of one cluster.
    targets: Vec<Target>,
    timeout: Duration,
    /// Whether what was found is shown as JSON.
    json: bool,
    /// A file of the keys that values are sealed with and opened by.
    encrypt_key_file: Option<PathBuf>,
    errand: Errand,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Errand {
    Get(Vec<u8>),
    Set {
        key: Vec<u8>,
        value: Source,
        options: SetOptions,
    },
    Del(Vec<Vec<u8>>),
    Incr {
        key: Vec<u8>,
        by: i64,
    },
    Ttl(Vec<u8>),
    Scan(Vec<u8>),
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Argument(Vec<u8>),
    Standard,
}

/// The grammar of the commands.
pub(super) fn commands() -> Vec<Command> {
    let key = || {
        bytes("key")
            .value_name("KEY")
            .required(true)
            .help("The key: any bytes, at most 64 KiB")
    };
    let command = |name: &'static str, about: &'static str| {
        Command::new(name)
            .about(about)
            .args([urls(), timeout(), json()])
            .after_help(format!("{JSON_HELP}\n\n{EXIT_CODES}"))
    };
    vec![
        command("get", "Print the value of a key").args([
            key(),
            encrypt_key_file("Open the value by the keys of this file, which set has sealed it with; one that does not open is not printed"),
        ]),
        command("set", "Store a value under a key").args([
            key(),
            bytes("value")
                .value_name("VALUE")
                .required(true)
                .allow_negative_numbers(true)
                .help("The value; - reads it from standard input"),
            Arg::new("ttl")
                .long("ttl")
                .value_name("DURATION")
                .value_parser(duration::parse_positive)
                .help("Expire after this time, such as 60s [default: never]"),
            Arg::new("nx")
                .long("nx")
                .action(ArgAction::SetTrue)
                .conflicts_with("xx")
                .help("Only if the key is not there"),
            Arg::new("xx")
                .long("xx")
                .action(ArgAction::SetTrue)
                .help("Only if the key is there"),
            encrypt_key_file("Seal the value with the last key of this file: lines of a number and 64 hexadecimal digits, for its owner alone"),
        ]),
        command("del", "Remove keys").arg(
            key()
                .num_args(1..)
                .help("The keys, which are removed one after the other"),
        ),
        command("incr", "Add to an integer, and print the sum").args([
            key(),
            Arg::new("by")
                .long("by")
                .value_name("NUMBER")
                .default_value("1")
                .allow_hyphen_values(true)
                .value_parser(clap::value_parser!(i64))
                .help("What is added"),
        ]),
        command("ttl", "Print how many seconds a key has left, or none").arg(key()),
        command("scan", "Print the keys, a line for each").arg(
            bytes("pattern")
                .value_name("PATTERN")
                .default_value("*")
                .help("Which keys: * and ? and [a-z], with \\ before what stands for itself"),
        ),
    ]
}

fn bytes(name: &'static str) -> Arg {
    Arg::new(name).value_parser(ValueParser::os_string())
}

fn encrypt_key_file(help: &'static str) -> Arg {
    Arg::new(ENCRYPT_KEY_FILE)
        .long(ENCRYPT_KEY_FILE)
        .value_name("FILE")
        .value_parser(ValueParser::path_buf())
        .help(help)
}

pub(super) fn url() -> Arg {
    Arg::new("url")
        .long("url")
        .value_name("URL")
        .default_value(DEFAULT_URL)
        .value_parser(UrlParser)
        .help("The node: http://host:port or redis://host:port, over TLS https:// or rediss://")
}

/// Reads the URL of a node. What clap says of a value that cannot be read has the whole of it, and in this one people put passwords.
#[derive(Clone, Copy, Debug)]
pub(super) struct UrlParser;

impl TypedValueParser for UrlParser {
    type Value = Target;

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Target, clap::Error> {
        let text = value.to_string_lossy();
        text.parse().map_err(|error: TargetError| {
            let text = format!("flag --url: {error}");
            let mut command = command.clone();
            command.error(ErrorKind::ValueValidation, without_keys(&text))
        })
    }
}

/// A node that is asked over HTTP.
///
/// # Errors
/// It speaks the Redis protocol.
pub(super) fn over_http(target: &Target) -> Result<Target, String> {
    if target.scheme.is_http() {
        return Ok(target.clone());
    }
    Err(format!(
        "flag --url: found {target}, expected http://host:port or https://host:port"
    ))
}

/// Any node serves any key; several are for the case that one is not there.
fn urls() -> Arg {
    url()
        .action(ArgAction::Append)
        .value_delimiter(',')
        .help("The node: http://host:port or redis://host:port, over TLS https:// or rediss://; may be repeated, or a list, for nodes of one cluster")
}

pub(super) fn timeout() -> Arg {
    Arg::new("timeout")
        .long("timeout")
        .value_name("DURATION")
        .default_value("5s")
        .value_parser(duration::parse_positive)
        .help("How long to wait for a connection, and for an answer")
}

/// The flag of all that show something.
pub(super) fn json() -> Arg {
    Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("As JSON, for programs")
}

/// The order of a command of this module; none if the word is no such command.
pub(super) fn understood(word: &str, matches: &ArgMatches) -> Option<Order> {
    let bytes = |name: &str| {
        matches
            .get_one::<OsString>(name)
            .cloned()
            .map(OsString::into_vec)
    };
    let key = || bytes("key").unwrap_or_default();
    let errand = match word {
        "get" => Errand::Get(key()),
        "set" => {
            let mut options = SetOptions::new();
            if let Some(ttl) = matches.get_one("ttl") {
                options = options.ttl(*ttl);
            }
            if matches.get_flag("nx") {
                options = options.condition(Condition::IfAbsent);
            } else if matches.get_flag("xx") {
                options = options.condition(Condition::IfPresent);
            }
            let value = match bytes("value").unwrap_or_default() {
                dash if dash == b"-" => Source::Standard,
                value => Source::Argument(value),
            };
            Errand::Set {
                key: key(),
                value,
                options,
            }
        }
        "del" => Errand::Del(
            matches
                .get_many::<OsString>("key")
                .unwrap_or_default()
                .map(|key| key.clone().into_vec())
                .collect(),
        ),
        "incr" => Errand::Incr {
            key: key(),
            by: matches.get_one("by").copied().unwrap_or(1),
        },
        "ttl" => Errand::Ttl(key()),
        "scan" => Errand::Scan(bytes("pattern").unwrap_or_default()),
        _ => return None,
    };
    Some(Order {
        targets: matches.get_many("url")?.cloned().collect(),
        timeout: *matches.get_one("timeout")?,
        json: matches.get_flag("json"),
        encrypt_key_file: match errand {
            Errand::Get(_) | Errand::Set { .. } => matches.get_one(ENCRYPT_KEY_FILE).cloned(),
            // These have no such flag.
            _ => None,
        },
        errand,
    })
}

/// Why an order was not carried out.
enum Failure {
    Client(Error),
    /// Nothing went wrong, but there is nothing.
    Nothing(Cow<'static, str>),
    /// There are no keys to seal or open with, and why.
    Keys(String),
    /// Nobody is known to be trusted, and why.
    Authorities(io::Error),
    Input(io::Error),
    Output(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Nothing(why) => f.write_str(why),
            Self::Keys(why) => f.write_str(why),
            Self::Authorities(error) => error.fmt(f),
            Self::Input(error) => write!(f, "standard input cannot be read: {error}"),
            Self::Output(error) => write!(f, "standard output cannot be written: {error}"),
        }
    }
}

impl Failure {
    fn nothing(why: &'static str) -> Self {
        Self::Nothing(why.into())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Nothing(_) => EXIT_NOTHING,
            Self::Client(Error::Target(_) | Error::Argument(_)) => EXIT_USAGE,
            Self::Client(_)
            | Self::Keys(_)
            | Self::Authorities(_)
            | Self::Input(_)
            | Self::Output(_) => EXIT_FAILED,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

/// Carries out an order.
pub(super) fn run(order: &Order) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(carry_out(order)),
        Err(error) => Err(Failure::Output(error)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // In `henge scan | head -1` the reader leaves early.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(io::stderr(), "henge: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// The keys of a file.
fn encryption_keys(path: &Path) -> Result<EncryptionKeys, Failure> {
    let text = encryption::read_file(path).map_err(|error| Failure::Keys(error.to_string()))?;
    text.parse().map_err(|error: EncryptionKeysError| {
        let is_of_a_line = matches!(error, EncryptionKeysError::Line { .. });
        let apart = if is_of_a_line { "," } else { ":" };
        Failure::Keys(format!("{}{apart} {error}", shown(path)))
    })
}

async fn carry_out(order: &Order) -> Result<(), Failure> {
    let keys = order.encrypt_key_file.as_deref().map(encryption_keys);
    let keys = keys.transpose()?;
    // Before the connection, which would grow old while a person types.
    let value = match &order.errand {
        Errand::Set { value, .. } => value.read()?,
        _ => Vec::new(),
    };
    let urls: Vec<String> = order.targets.iter().map(Target::to_string).collect();
    let mut builder = Client::builder(&urls.join(","))?
        .pool_size(1)
        .connect_timeout(order.timeout)
        .request_timeout(order.timeout);
    if let Some(key) = api_key::of_environment()? {
        builder = builder.api_key(key);
    }
    if let Some(keys) = keys {
        builder = builder.encryption(keys);
    }
    // All of them are of the same scheme.
    if let Some(first) = order.targets.first()
        && let Some(tls) = tls::towards(first).map_err(Failure::Authorities)?
    {
        builder = builder.tls(tls);
    }
    let client = builder.connect().await?;
    order.done(&client, &value).await
}

/// Writes to standard output, at once.
fn show(parts: &[&[u8]]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = parts.iter().try_for_each(|part| out.write_all(part));
    written.and_then(|()| out.flush()).map_err(Failure::Output)
}

/// A line with an object of a key and what else there is of it.
fn line(key: &[u8], members: impl IntoIterator<Item = (&'static str, Value)>) -> Vec<u8> {
    let all = [named("key", "key_base64", key)].into_iter().chain(members);
    let object: Map<_, _> = all.map(|(name, value)| (name.to_owned(), value)).collect();
    let mut line = Value::Object(object).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Bytes as text, or by the other name in base64.
fn named(text: &'static str, base64: &'static str, bytes: &[u8]) -> (&'static str, Value) {
    match std::str::from_utf8(bytes) {
        Ok(value) => (text, value.into()),
        Err(_) => (base64, STANDARD.encode(bytes).into()),
    }
}

impl Order {
    /// Asks, and shows what there is.
    async fn done(&self, client: &Client, value: &[u8]) -> Result<(), Failure> {
        let is_json = self.json;
        match &self.errand {
            Errand::Get(key) => {
                let value = client.get(key).await?;
                let value = value.ok_or(Failure::nothing("there is no such key"))?;
                if is_json {
                    return show(&[&line(key, [named("value", "value_base64", &value)])]);
                }
                // A file gets exactly the value; on a terminal the prompt should not stand behind it.
                let end: &[u8] = if io::stdout().is_terminal() {
                    b"\n"
                } else {
                    b""
                };
                show(&[&value, end])
            }
            Errand::Set { key, options, .. } => {
                if client.set(key, value, *options).await? {
                    return if is_json {
                        show(&[&line(key, [("is_stored", true.into())])])
                    } else {
                        Ok(())
                    };
                }
                let is_nx = *options == options.condition(Condition::IfAbsent);
                Err(Failure::nothing(if is_nx {
                    "nothing was stored: the key is there"
                } else {
                    "nothing was stored: there is no such key"
                }))
            }
            Errand::Del(keys) => {
                let mut missing = Vec::new();
                for key in keys {
                    let is_removed = client.del(key).await?;
                    if is_json {
                        show(&[&line(key, [("is_removed", is_removed.into())])])?;
                    }
                    if !is_removed {
                        let key = String::from_utf8_lossy(key);
                        missing.push(key.escape_debug().to_string());
                    }
                }
                match &missing[..] {
                    [] => Ok(()),
                    [_] if keys.len() == 1 => Err(Failure::nothing("there is no such key")),
                    _ => {
                        let why = format!("there is no such key: {}", missing.join(", "));
                        Err(Failure::Nothing(why.into()))
                    }
                }
            }
            Errand::Incr { key, by } => {
                let sum = client.incr(key, *by).await?;
                if is_json {
                    return show(&[&line(key, [("value", sum.into())])]);
                }
                show(&[sum.to_string().as_bytes(), b"\n"])
            }
            Errand::Ttl(key) => match client.ttl(key).await? {
                Lifetime::Missing => Err(Failure::nothing("there is no such key")),
                Lifetime::Unlimited if is_json => show(&[&line(key, [("ttl", Value::Null)])]),
                Lifetime::Left(left) if is_json => {
                    show(&[&line(key, [("ttl", left.as_secs_f64().into())])])
                }
                Lifetime::Unlimited => show(&[b"none\n"]),
                Lifetime::Left(left) => show(&[format!("{:.3}\n", left.as_secs_f64()).as_bytes()]),
            },
            Errand::Scan(pattern) => {
                let mut scan = client.scan(pattern);
                let mut found = false;
                while let Some(keys) = scan.next_page().await? {
                    found |= !keys.is_empty();
                    let mut page = Vec::new();
                    for key in keys {
                        if is_json {
                            page.extend(line(&key, []));
                            continue;
                        }
                        page.extend_from_slice(&key);
                        page.push(b'\n');
                    }
                    show(&[&page])?;
                }
                found
                    .then_some(())
                    .ok_or(Failure::nothing("no key matches the pattern"))
            }
        }
    }
}

impl Source {
    fn read(&self) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Argument(value) => Ok(value.clone()),
            Self::Standard => {
                let mut value = Vec::new();
                let mut input = io::stdin().lock().take(MAX_INPUT_BYTES + 1);
                input.read_to_end(&mut value).map_err(Failure::Input)?;
                if value.len() as u64 > MAX_INPUT_BYTES {
                    let long = format!("it is longer than {MAX_INPUT_BYTES} bytes");
                    return Err(Failure::Input(io::Error::other(long)));
                }
                Ok(value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::hash::NewKey;

    #[test]
    fn a_url_that_is_wrong_shows_no_secret() {
        let key = NewKey::draw().text;
        for url in [
            format!("http://u:{key}@h:1"),
            format!("http://h/{key}"),
            "http://u:tiger@h".to_owned(),
        ] {
            let told = Command::new("x").arg(super::url());
            let told = told.try_get_matches_from(["x", "--url", &url]);
            let told = told.expect_err("it is no URL").to_string();
            assert!(
                told.contains("flag --url: ") && told.contains("(hidden)"),
                "{told}"
            );
            assert!(
                !told.contains("tiger") && !told.contains(&key[20..]),
                "{told}"
            );
        }
    }

    fn order(line: &str) -> Result<Errand, String> {
        let (word, _) = line.split_once(' ').unwrap_or((line, ""));
        let command = commands()
            .into_iter()
            .find(|command| command.get_name() == word);
        let command = command.expect("a command");
        let matches = command.try_get_matches_from(line.split(' '));
        let matches = matches.map_err(|error| error.kind().to_string())?;
        Ok(understood(word, &matches).expect("an order").errand)
    }

    #[test]
    fn orders() {
        let set = |value: &[u8], options| Errand::Set {
            key: b"k".to_vec(),
            value: if value == b"-" {
                Source::Standard
            } else {
                Source::Argument(value.to_vec())
            },
            options,
        };
        let minute = SetOptions::new().ttl(Duration::from_mins(1));
        let table = [
            ("get k", Errand::Get(b"k".to_vec())),
            ("set k v", set(b"v", SetOptions::new())),
            ("set k -", set(b"-", SetOptions::new())),
            ("set k -5", set(b"-5", SetOptions::new())),
            ("set k -- --x", set(b"--x", SetOptions::new())),
            ("set --ttl 60 k v", set(b"v", minute)),
            (
                "set k v --nx --ttl=1m",
                set(b"v", minute.condition(Condition::IfAbsent)),
            ),
            (
                "set k v --xx",
                set(b"v", SetOptions::new().condition(Condition::IfPresent)),
            ),
            ("del k", Errand::Del(vec![b"k".to_vec()])),
            ("del k l", Errand::Del(vec![b"k".to_vec(), b"l".to_vec()])),
            (
                "incr k",
                Errand::Incr {
                    key: b"k".to_vec(),
                    by: 1,
                },
            ),
            (
                "incr k --by -3",
                Errand::Incr {
                    key: b"k".to_vec(),
                    by: -3,
                },
            ),
            ("ttl k", Errand::Ttl(b"k".to_vec())),
            ("scan", Errand::Scan(b"*".to_vec())),
            ("scan a*", Errand::Scan(b"a*".to_vec())),
        ];
        for (line, expected) in table {
            assert_eq!(order(line), Ok(expected), "{line}");
        }
        for line in [
            "get",
            "get a b",
            "del",
            "set k",
            "set k v --nx --xx",
            "set k v --ttl 0",
            "set k v --ttl soon",
            "incr k --by x",
            "get k --url localhost",
            "get k --timeout 0s",
            "get k --encrypt-key-file",
            // Whose values nobody but a client could read.
            "incr k --encrypt-key-file keys",
        ] {
            assert!(order(line).is_err(), "{line}");
        }
    }

    #[test]
    fn nodes() {
        let command = commands().remove(0);
        let table: [(&str, &[&str]); 4] = [
            ("get k", &[DEFAULT_URL]),
            ("get k --url http://a:1", &["http://a:1"]),
            (
                "get k --url http://a:1,http://b:2",
                &["http://a:1", "http://b:2"],
            ),
            (
                "get --url redis://a:1 k --url=redis://b:2",
                &["redis://a:1", "redis://b:2"],
            ),
        ];
        for (line, expected) in table {
            let matches = command.clone().try_get_matches_from(line.split(' '));
            let order = understood("get", &matches.expect(line)).expect("an order");
            let urls: Vec<String> = order.targets.iter().map(Target::to_string).collect();
            assert_eq!(urls, expected, "{line}");
        }
    }

    #[test]
    fn key_files() {
        for line in [
            "get k --encrypt-key-file keys",
            "set --encrypt-key-file=keys k v",
        ] {
            let (word, _) = line.split_once(' ').expect("words");
            let mut commands = commands().into_iter();
            let command = commands.find(|command| command.get_name() == word);
            let matches = command.map(|command| command.get_matches_from(line.split(' ')));
            let order = understood(word, &matches.expect("a command")).expect("an order");
            assert_eq!(order.encrypt_key_file, Some("keys".into()), "{line}");
        }
    }

    #[test]
    fn keys_are_bytes() {
        let odd = b"\xff".to_vec();
        let command = commands()
            .into_iter()
            .find(|command| command.get_name() == "get");
        let line = ["get".into(), OsString::from_vec(odd.clone())];
        let matches = command.expect("a command").try_get_matches_from(line);
        let order = understood("get", &matches.expect("understood"));
        let errand = order.map(|order| order.errand);
        assert_eq!(errand, Some(Errand::Get(odd)));
    }
}
