//! The sources of a configuration, stacked: defaults, a file, the environment, flags. The later wins.
//!
//! [`Sources`] is kept for the life of a node, so that a reload reads the same places again; the file is read anew, the
//! environment and the flags are those of the start. Every value that any source gives must be right, also one that a
//! stronger source overrides: it would else be a trap for the day the override goes. All that is wrong is reported at
//! once.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::{self, Entry, Format, Position};
use super::literal::quoted;
use super::settings::{Config, SETTINGS, Setting, SettingError};
use super::{ConfigError, Literal, suggest};
use crate::encryption::VARIABLE;

/// A megabyte of settings is a mistake (a data file, a device); the largest sensible file is a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the names of Henge's environment variables begin with.
const ENVIRONMENT_PREFIX: &str = "HENGE_";

/// Where the value of a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the file.
    File {
        /// The file as it was named.
        path: Arc<Path>,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// The command line.
    Flag {
        /// The flag, such as `--port` or `--set`.
        flag: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", shown(path)),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Flag { flag } => write!(f, "flag {flag}"),
        }
    }
}

/// A setting that the command line gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagSetting {
    /// The flag that gave it, such as `--port` or `--set`.
    pub flag: String,
    /// The setting's full name.
    pub name: String,
    /// Its value, as typed.
    pub value: String,
}

/// Where a node's configuration is read from, at its start and at each reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    flags: Vec<FlagSetting>,
}

impl Sources {
    /// A file if there is one, the environment (of which `HENGE_…` is kept), and what the command line set.
    pub fn new(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<FlagSetting>,
    ) -> Self {
        // Keys are no setting, and are not to be shown where settings are.
        let is_ours = |name: &OsString| {
            let prefix = ENVIRONMENT_PREFIX.as_bytes();
            name.as_encoded_bytes().starts_with(prefix) && name != VARIABLE
        };
        let mut environment: Vec<_> = environment
            .into_iter()
            .filter(|(name, _)| is_ours(name))
            .collect();
        // The system gives no order; messages should have one.
        environment.sort();
        Self {
            file,
            environment,
            flags,
        }
    }

    /// The file, if one was named.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads all sources and makes one configuration of them.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut stack = Stack::default();
        if let Some(path) = &self.file {
            match read_file(path) {
                Ok((text, format)) => stack.file(path, &text, format),
                Err(problem) => stack.problems.push(problem),
            }
        }
        stack.environment(&self.environment);
        stack.flags(&self.flags);
        stack.finish()
    }
}

/// A configuration, and where each value of it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// In the order of [`SETTINGS`].
    origins: Vec<Origin>,
}

impl Loaded {
    /// Where the value of a setting came from.
    pub fn origin(&self, setting: &Setting) -> &Origin {
        &self.origins[index_of(setting)]
    }
}

/// A file's name for a message: its control characters replaced, as the message is one line.
pub(crate) fn shown(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

fn index_of(setting: &Setting) -> usize {
    SETTINGS
        .iter()
        .position(|other| other.name() == setting.name())
        .expect("every Setting is one of SETTINGS")
}

/// The format that a file's ending says.
fn format_of(path: &Path) -> Result<Format, String> {
    let name = shown(path);
    let Some(ending) = path.extension().map(|ending| ending.to_string_lossy()) else {
        return Err(format!(
            "{name}: the file has no ending, expected .toml or .json"
        ));
    };
    match ending.to_ascii_lowercase().as_str() {
        "toml" => Ok(Format::Toml),
        "json" => Ok(Format::Json),
        _ => {
            let ending = quoted(&format!(".{ending}"));
            Err(format!(
                "{name}: the file's ending is {ending}, expected .toml or .json"
            ))
        }
    }
}

/// The text of a file and its format, or why there is none.
fn read_file(path: &Path) -> Result<(String, Format), String> {
    let name = shown(path);
    let format = format_of(path)?;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{name}: the file cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "{name}: the file is larger than {FILE_BYTES_MAX} bytes, which no configuration is"
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = Position::of(error.as_bytes(), error.utf8_error().valid_up_to());
        format!("{name}:{}:{}: the file is not UTF-8", at.line, at.column)
    })?;
    Ok((text, format))
}

/// The configuration as far as the sources have been read.
struct Stack {
    config: Config,
    origins: Vec<Origin>,
    problems: Vec<String>,
}

impl Default for Stack {
    fn default() -> Self {
        Self {
            config: Config::default(),
            origins: vec![Origin::Default; SETTINGS.len()],
            problems: Vec::new(),
        }
    }
}

impl Stack {
    fn file(&mut self, path: &Path, text: &str, format: Format) {
        let name = shown(path);
        let path: Arc<Path> = path.into();
        let entries = match document::parse(text, format) {
            Ok(entries) => entries,
            Err(fault) => {
                self.problems.push(format!(
                    "{name}:{}:{}: {}",
                    fault.at.line, fault.at.column, fault.message
                ));
                return;
            }
        };
        // A misspelt section is one slip, however many keys it has.
        let mut last_unknown_section = None;
        for entry in entries {
            let Some(setting) = find(&entry) else {
                if last_unknown_section.as_ref() != Some(&entry.section) {
                    let (at, message) = (entry.name_at, unknown(&entry));
                    self.problems
                        .push(format!("{name}:{}:{}: {message}", at.line, at.column));
                }
                if !is_section(&entry.section) && entry.key.is_some() {
                    last_unknown_section = Some(entry.section);
                }
                continue;
            };
            let origin = Origin::File {
                path: Arc::clone(&path),
                line: entry.value_at.line,
            };
            let place = format!("{name}:{}:{}", entry.value_at.line, entry.value_at.column);
            self.assign(setting, &entry.literal, origin, &place);
        }
    }

    fn environment(&mut self, variables: &[(OsString, OsString)]) {
        for (name, value) in variables {
            let name = name.to_string_lossy();
            let Some(setting) = SETTINGS
                .iter()
                .find(|setting| setting.environment_variable() == name)
            else {
                self.problems.extend(unknown_variable(&name));
                continue;
            };
            let Some(value) = value.to_str() else {
                self.problems
                    .push(format!("environment {name}: the value is not UTF-8"));
                continue;
            };
            let origin = Origin::Environment {
                variable: name.clone().into_owned(),
            };
            self.assign(
                setting,
                &Literal::Untyped(value.to_owned()),
                origin,
                &format!("environment {name}"),
            );
        }
    }

    fn flags(&mut self, flags: &[FlagSetting]) {
        for FlagSetting { flag, name, value } in flags {
            match Setting::find(name) {
                None => self
                    .problems
                    .push(format!("flag {flag}: {}", SettingError::unknown(name))),
                Some(setting) => {
                    let origin = Origin::Flag { flag: flag.clone() };
                    self.assign(
                        setting,
                        &Literal::Untyped(value.clone()),
                        origin,
                        &format!("flag {flag}"),
                    );
                }
            }
        }
    }

    fn assign(
        &mut self,
        setting: &'static Setting,
        literal: &Literal,
        origin: Origin,
        place: &str,
    ) {
        match setting.assign(&mut self.config, literal) {
            Ok(()) => self.origins[index_of(setting)] = origin,
            Err(error) => self.problems.push(format!("{place}: {error}")),
        }
    }

    /// Rules about several settings are looked at only when each is right by itself: a value that was refused would
    /// else be judged by its default.
    fn finish(mut self) -> Result<Loaded, ConfigError> {
        let origin = |setting: &Setting| self.origins[index_of(setting)].to_string();
        if self.problems.is_empty() {
            self.problems.extend(
                self.config
                    .conflicts()
                    .iter()
                    .map(|conflict| conflict.describe(&self.config, |s| Some(origin(s)))),
            );
            for setting in SETTINGS {
                let place = &self.origins[index_of(setting)];
                if let (Some(reason), false) =
                    (setting.idle_reason(&self.config), *place == Origin::Default)
                {
                    self.problems.push(format!(
                        "{place}: {} does nothing: {reason}",
                        setting.name()
                    ));
                }
            }
        }
        ConfigError::of(self.problems)?;
        Ok(Loaded {
            config: self.config,
            origins: self.origins,
        })
    }
}

fn is_section(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.section() == name)
}

fn find(entry: &Entry) -> Option<&'static Setting> {
    let key = entry.key.as_deref()?;
    SETTINGS
        .iter()
        .find(|setting| setting.section() == entry.section && setting.key() == key)
}

/// What is wrong with the name of an entry that is no setting.
fn unknown(entry: &Entry) -> String {
    let section = entry.section.as_str();
    match &entry.key {
        None if is_section(section) => {
            format!(
                "{section} is a section: found {}, expected a table of its settings",
                entry.literal.found()
            )
        }
        None => SettingError::unknown(section).to_string(),
        Some(key) if is_section(section) => {
            SettingError::unknown(&format!("{section}.{key}")).to_string()
        }
        Some(_) => {
            let mut sections: Vec<&str> = SETTINGS.iter().map(Setting::section).collect();
            sections.dedup();
            match suggest::nearest(section, sections.iter().copied()) {
                Some(near) => format!(
                    "unknown section {}; did you mean \"{near}\"?",
                    quoted(section)
                ),
                None => format!(
                    "unknown section {}, expected one of {}",
                    quoted(section),
                    sections.join(", ")
                ),
            }
        }
    }
}

/// What is wrong with an environment variable that is no setting; none when it is none of our business.
///
/// Without a double underscore it mostly is somebody else's: Kubernetes gives every pod beside a service named `henge`
/// `HENGE_PORT`, `HENGE_SERVICE_HOST` and more, and must not keep a node from starting. Only a setting whose double
/// underscore lost its half is surely meant for us.
fn unknown_variable(name: &str) -> Option<String> {
    let settings = SETTINGS.iter().map(Setting::environment_variable);
    let variables: Vec<String> = settings.chain([VARIABLE.to_owned()]).collect();
    let single = |name: &str| name.replace("__", "_").to_ascii_uppercase();
    let near = match variables
        .iter()
        .find(|variable| single(variable) == single(name))
    {
        Some(meant) => Some(meant.clone()),
        None if !name.contains("__") => return None,
        None => {
            let setting = name[ENVIRONMENT_PREFIX.len()..].replacen("__", ".", 1);
            suggest::setting(&setting).map(Setting::environment_variable)
        }
    };
    let suggestion = near
        .map(|near| format!("; did you mean {near}?"))
        .unwrap_or_default();
    Some(format!("environment {name}: unknown setting{suggestion}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration of a file's text, environment variables and flags, or the problems with it.
    fn stacked(
        file: Option<(&str, &str)>,
        environment: &[(&str, &str)],
        flags: &[(&str, &str, &str)],
    ) -> Result<Loaded, Vec<String>> {
        let mut stack = Stack::default();
        if let Some((name, text)) = file {
            stack.file(
                Path::new(name),
                text,
                format_of(Path::new(name)).expect("a known ending"),
            );
        }
        let environment = environment
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let flags = flags.iter().map(|(flag, name, value)| FlagSetting {
            flag: (*flag).to_owned(),
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        });
        let sources = Sources::new(None, environment, flags.collect());
        stack.environment(&sources.environment);
        stack.flags(&sources.flags);
        stack.finish().map_err(|error| error.problems)
    }

    fn value_and_origin(loaded: &Loaded, name: &str) -> (String, String) {
        let setting = Setting::find(name).expect("tests name settings");
        (
            setting.value(&loaded.config).render(),
            loaded.origin(setting).to_string(),
        )
    }

    #[test]
    fn the_later_source_wins() {
        let file = Some(("henge.toml", "[cache]\nmax_items = 1\n"));
        let environment = [("HENGE_CACHE__MAX_ITEMS", "2"), ("PATH", "/bin")];
        let flags = [("--max-items", "cache.max_items", "3")];
        let cases: &[(Result<Loaded, _>, &str, &str)] = &[
            (stacked(None, &[], &[]), "\"none\"", "default"),
            (stacked(file, &[], &[]), "1", "henge.toml:2"),
            (
                stacked(None, &environment, &[]),
                "2",
                "environment HENGE_CACHE__MAX_ITEMS",
            ),
            (
                stacked(file, &environment, &[]),
                "2",
                "environment HENGE_CACHE__MAX_ITEMS",
            ),
            (stacked(file, &[], &flags), "3", "flag --max-items"),
            (stacked(None, &environment, &flags), "3", "flag --max-items"),
            (stacked(file, &environment, &flags), "3", "flag --max-items"),
        ];
        for (loaded, value, origin) in cases {
            let loaded = loaded.as_ref().expect("all sources are sound");
            let expected = ((*value).to_owned(), (*origin).to_owned());
            assert_eq!(value_and_origin(loaded, "cache.max_items"), expected);
            assert_eq!(
                value_and_origin(loaded, "cache.policy").1,
                "default",
                "the others stay"
            );
        }
    }

    #[test]
    fn problems_of_a_file_have_a_line() {
        let cases = [
            (
                "[cache]\nmax_item = 3",
                "2:1: unknown setting \"cache.max_item\"; did you mean \"cache.max_items\"?",
            ),
            // Misspelt on purpose:
            (
                "\n[cahce]\na = 1\nb = 2",
                "3:1: unknown section \"cahce\"; did you mean \"cache\"?",
            ),
            // End of misspelt.
            (
                "[kafka]\na = 1",
                "2:1: unknown section \"kafka\", expected one of server, cluster, cache, persistence, security, tls, audit, cors, compression, limits, rate_limits, insight, tracing, log",
            ),
            (
                "max_items = 3",
                "1:1: unknown setting \"max_items\"; did you mean \"cache.max_items\"?",
            ),
            (
                "cache = 3",
                "1:1: cache is a section: found 3, expected a table of its settings",
            ),
            (
                "[limits]\nmax_items = 3",
                "2:1: unknown setting \"limits.max_items\"; did you mean \"cache.max_items\"?",
            ),
            (
                "[cache]\nmax_items = \"3\"",
                "2:13: cache.max_items: found the text \"3\", expected an integer from 1 to 9223372036854775807, \
                 or \"none\"",
            ),
            (
                "[cache]\n\npolicy = \"lruu\"",
                "3:10: cache.policy: found the text \"lruu\", expected one of lru, lfu, ttl, random, s3fifo, sieve, wtinylfu; \
                 did you mean \"lru\"?",
            ),
            (
                "[log]\nlevel = [\"info\"]",
                "2:9: log.level: found an array, expected one of error, warn, info, debug, trace",
            ),
            (
                "[cache]\npolicy = \"lru\"\npolicy = \"lfu\"",
                "3:1: duplicate key",
            ),
            ("[cache\n", "1:7: unclosed table, expected `]`"),
            (
                "[cache]\nmax_items =\n",
                "2:12: string values must be quoted, expected literal string",
            ),
        ];
        for (text, problem) in cases {
            let problems = stacked(Some(("a.toml", text)), &[], &[]).map(|loaded| loaded.config);
            assert_eq!(problems, Err(vec![format!("a.toml:{problem}")]), "{text}");
        }
        let json = "{\n \"cache\": {\n  \"policy\": \"LRU\",\n  \"max_items\": 0\n }\n}";
        let problem = "a.json:4:16: cache.max_items: found 0, expected an integer from 1 to 9223372036854775807, \
                       or \"none\"";
        assert_eq!(
            stacked(Some(("a.json", json)), &[], &[]),
            Err(vec![problem.to_owned()])
        );
    }

    #[test]
    fn variables_of_the_environment() {
        // A variable, and the problem with it if there is one.
        let cases = [
            ("HENGE_CACHE__MAX_ITEMS", "3", None),
            ("HENGE_LIMITS__MAX_VALUE_BYTES", "1MiB", None),
            ("HENGE_PORT", "tcp://10.0.0.1:8080", None),
            ("HENGE_SERVICE_HOST", "10.0.0.1", None),
            ("henge_cache__max_items", "x", None),
            (
                "HENGE_CACHE__MAX_ITEM",
                "3",
                Some("unknown setting; did you mean HENGE_CACHE__MAX_ITEMS?"),
            ),
            (
                "HENGE_CACHE_MAX_ITEMS",
                "3",
                Some("unknown setting; did you mean HENGE_CACHE__MAX_ITEMS?"),
            ),
            (
                "HENGE_CACHE__MAX__ITEMS",
                "3",
                Some("unknown setting; did you mean HENGE_CACHE__MAX_ITEMS?"),
            ),
            (
                "HENGE_cache__max_items",
                "3",
                Some("unknown setting; did you mean HENGE_CACHE__MAX_ITEMS?"),
            ),
            ("HENGE_X__Y", "3", Some("unknown setting")),
            ("HENGE___", "3", Some("unknown setting")),
            (
                "HENGE_LOG__FORMAT",
                "",
                Some("log.format: found \"\", expected one of text, json"),
            ),
        ];
        for (name, value, problem) in cases {
            let expected = problem.map(|problem| vec![format!("environment {name}: {problem}")]);
            assert_eq!(
                stacked(None, &[(name, value)], &[]).err(),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn everything_wrong_is_reported_at_once() {
        let problems = stacked(
            Some(("a.toml", "[log]\nlevel = 3\nlevl = 4\n")),
            &[
                ("HENGE_CACHE__POLICY", "x"),
                ("HENGE_CACHE__MAX_ITEMS", "x"),
            ],
            &[("--set", "a.b", "1")],
        )
        .expect_err("all of this is wrong");
        let places: Vec<&str> = problems
            .iter()
            .filter_map(|problem| problem.split(": ").next())
            .collect();
        let expected = [
            "a.toml:2:9",
            "a.toml:3:1",
            "environment HENGE_CACHE__MAX_ITEMS",
            "environment HENGE_CACHE__POLICY",
            "flag --set",
        ];
        assert_eq!(places, expected);
        let shown = ConfigError { problems }.to_string();
        assert!(
            shown.starts_with("5 errors in the configuration:\n  a.toml:2:9: log.level: found 3, "),
            "{shown}"
        );
    }

    #[test]
    fn conflicts_name_both_settings_and_their_sources() {
        let problems = stacked(
            Some(("a.toml", "[limits]\nmax_inflight_bytes = \"256MiB\"\n")),
            &[],
            &[("--set", "limits.max_value_bytes", "512MiB")],
        );
        let expected = "limits.max_value_bytes = \"512MiB\" (flag --set) and limits.max_inflight_bytes = \"256MiB\" \
                        (a.toml:2) do not go together: the first must be at most the second, or the largest value \
                        could never be received";
        assert_eq!(problems, Err(vec![expected.to_owned()]));
    }

    #[test]
    fn a_level_is_refused_where_it_does_nothing() {
        let lz4 = ("--set", "compression.algorithm", "lz4");
        assert!(
            stacked(None, &[], &[lz4]).is_ok(),
            "the default level is nobody's wish"
        );
        assert_eq!(
            stacked(Some(("a.toml", "[compression]\nlevel = 6")), &[], &[lz4]),
            Err(vec![
                "a.toml:2: compression.level does nothing: lz4 has no levels".to_owned()
            ])
        );
        assert!(
            stacked(
                Some(("a.toml", "[compression]\nlevel = 9\nalgorithm = \"none\"")),
                &[],
                &[]
            )
            .is_ok(),
            "switched off, the level waits for the time it is on again"
        );
    }

    /// A file in the system's place for such, gone with the value.
    struct TemporaryFile(PathBuf);

    impl TemporaryFile {
        fn new(name: &str, bytes: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("henge-{}-{name}", std::process::id()));
            std::fs::write(&path, bytes).expect("the temporary directory takes a file");
            Self(path)
        }
    }

    impl Drop for TemporaryFile {
        fn drop(&mut self) {
            // Nothing depends on its removal.
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn files_that_cannot_be_read() {
        let large = vec![b'#'; usize::try_from(FILE_BYTES_MAX).expect("a megabyte") + 1];
        let cases: &[(&str, &[u8], &str)] = &[
            (
                "layers.Yaml",
                b"",
                ": the file's ending is \".Yaml\", expected .toml or .json",
            ),
            (
                "layers",
                b"",
                ": the file has no ending, expected .toml or .json",
            ),
            (
                "layers-large.toml",
                &large,
                ": the file is larger than 1048576 bytes, which no configuration is",
            ),
            (
                "layers-latin1.toml",
                b"[log]\n# \xe9\n",
                ":2:3: the file is not UTF-8",
            ),
        ];
        for (name, bytes, problem) in cases {
            let file = TemporaryFile::new(name, bytes);
            let error = Sources::new(Some(file.0.clone()), [], Vec::new())
                .load()
                .expect_err("cannot be read");
            assert_eq!(error.to_string(), format!("{}{problem}", file.0.display()));
        }
        let missing = PathBuf::from("no-such-directory/henge.toml");
        let error = Sources::new(Some(missing), [], Vec::new())
            .load()
            .expect_err("there is no such file");
        let start = "no-such-directory/henge.toml: the file cannot be read: ";
        assert!(error.to_string().starts_with(start), "{error}");
    }

    #[test]
    fn sources_read_the_file_anew() {
        let file = TemporaryFile::new("layers-anew.TOML", b"[cache]\nmax_items = 1\n");
        let sources = Sources::new(Some(file.0.clone()), [], Vec::new());
        assert_eq!(
            sources.load().map(|loaded| loaded.config.cache.max_items),
            Ok(Some(1))
        );
        std::fs::write(&file.0, "[cache]\nmax_items = 2\n").expect("the file is ours");
        assert_eq!(
            sources.load().map(|loaded| loaded.config.cache.max_items),
            Ok(Some(2))
        );
    }
}
